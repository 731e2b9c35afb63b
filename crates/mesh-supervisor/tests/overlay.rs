//! The files laid over the root file system agree with each other.
#![allow(clippy::unwrap_used, clippy::panic)] // a test's helpers fail as the test does

use std::fs;
use std::path::{Path, PathBuf};

fn overlays() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../overlays")
}

fn read(name: &str) -> String {
    let path = overlays().join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Lines that are no comments, cut at `separator`.
fn rows(text: &str, separator: char) -> Vec<Vec<&str>> {
    let lines = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#'));
    lines.map(|l| l.split(separator).map(str::trim).collect()).collect()
}

#[test]
fn ownership_names_only_files_that_are_there() {
    for row in rows(&read("ownership.txt"), ' ') {
        let [path, mode, uid, gid] = row[..] else { panic!("{row:?}: path mode uid gid") };
        let at = overlays().join("rootfs").join(path);
        assert_eq!(at.is_dir(), path.ends_with('/'), "{path}");
        assert!(at.exists(), "{path} is not there");
        assert!(u32::from_str_radix(mode, 8).is_ok_and(|m| m <= 0o7777), "{path}: {mode}");
        assert!(uid.parse::<u32>().is_ok() && gid.parse::<u32>().is_ok(), "{path}");
    }
}

#[test]
fn accounts_fit_together_and_every_service_has_its_own() {
    let (passwd, group, shadow) =
        (read("rootfs/etc/passwd"), read("rootfs/etc/group"), read("rootfs/etc/shadow"));
    let users = rows(&passwd, ':');
    let groups = rows(&group, ':');
    let names: Vec<_> = users.iter().map(|u| u[0]).collect();
    assert_eq!(
        rows(&shadow, ':').iter().map(|s| s[0]).collect::<Vec<_>>(),
        names,
        "shadow(5) has the same users"
    );
    for user in &users {
        assert_eq!(user.len(), 7, "{user:?}");
        assert!(groups.iter().any(|g| g[2] == user[3]), "{}: there is no group {}", user[0], user[3]);
        assert_eq!(users.iter().filter(|u| u[2] == user[2]).count(), 1, "{}: its number is taken", user[0]);
    }
    let mesh = groups.iter().find(|g| g[0] == "mesh").unwrap()[2];
    let table = read("rootfs/etc/p2pmesh/services.conf");
    let wanted: Vec<_> = table.lines().filter_map(|l| l.strip_prefix("user = ")).collect();
    assert!(wanted.len() >= 5);
    for (i, name) in wanted.iter().enumerate() {
        let user = users.iter().find(|u| u[0] == *name).unwrap_or_else(|| panic!("there is no user {name}"));
        assert_eq!(user[3], mesh, "{name}: its sockets belong to the group mesh");
        assert!(!wanted[..i].contains(name), "{name} runs two services");
    }
}

#[test]
fn nobody_but_root_can_log_in_and_root_with_the_workshop_password() {
    let shadow = read("rootfs/etc/shadow");
    for row in rows(&shadow, ':') {
        assert_eq!(row[1].starts_with("$6$"), row[0] == "root", "{}", row[0]);
    }
}

#[test]
fn what_init_starts_is_executable() {
    use std::os::unix::fs::PermissionsExt;
    let inittab = read("rootfs/etc/inittab");
    for row in rows(&inittab, ':') {
        let program = row[3].split(' ').next().unwrap();
        let ours = overlays().join("rootfs").join(program.trim_start_matches('/'));
        if program.starts_with("/usr/lib/p2pmesh/") {
            assert!(ours.metadata().unwrap().permissions().mode() & 0o111 != 0, "{program}");
        }
    }
}

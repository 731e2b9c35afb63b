//! What makes this node this one: identity, name, password, keys, kernel settings.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use mesh_config::{Config, Loaded, Secret};
use mesh_sys::identity::{self, Identity, IdentityError};
use mesh_sys::{entropy, file, process};
use mesh_types::NodeName;

use super::folder;
use crate::accounts;
use crate::console::Console;
use crate::options::Options;
use crate::table;

/// Exists while log-in by SSH is wanted; holds the flags for the server.
pub(crate) const SSH_WANTED: &str = "ssh-wanted";

/// Services with a user of their own, and that user.
pub(super) fn service_users(options: &Options) -> Vec<(String, String)> {
    let text = fs::read_to_string(&options.services).unwrap_or_default();
    let (entries, _) = table::parse(&text);
    entries.into_iter().filter_map(|e| Some((e.name, e.user?))).collect()
}

/// Services with a user of their own, and the format of their state.
pub(super) fn state_formats(options: &Options) -> Vec<(String, u32)> {
    let text = fs::read_to_string(&options.services).unwrap_or_default();
    let (entries, _) = table::parse(&text);
    entries.into_iter().filter(|e| e.user.is_some()).map(|e| (e.name, e.state_format)).collect()
}

/// Applies `key = value` lines to `/proc/sys`. Keys that this kernel lacks are skipped.
pub(super) fn kernel_settings(path: &Path, found: &mut Vec<String>) {
    for (place, value) in settings(&fs::read_to_string(path).unwrap_or_default()) {
        match fs::write(&place, value) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => found.push(format!("{}: {e}", place.display())),
            _ => {}
        }
    }
}

/// The lines of a sysctl.conf(5) that name a setting.
fn settings(text: &str) -> Vec<(PathBuf, String)> {
    let lines = text.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';']));
    lines
        .filter_map(|l| l.split_once('='))
        .map(|(key, value)| {
            // Dots become slashes, so that no key can lead out of the folder.
            let key = key.trim().replace('.', "/");
            (Path::new("/proc/sys").join(key.trim_start_matches('/')), value.trim().to_owned())
        })
        .collect()
}

/// The update service changes the boot state, which is on the disk outside of every partition; it does so
/// as the group of its own that may write raw disks.
pub(super) fn share_disk(disk: &Path, found: &mut Vec<String>) {
    let Some(gid) = accounts::group_id(Path::new("/etc"), "disk") else { return };
    let nodes =
        [disk.to_path_buf(), super::card::partition_node(disk, 2), super::card::partition_node(disk, 3)];
    for node in nodes {
        let shared = std::os::unix::fs::chown(&node, Some(0), Some(gid))
            .and_then(|()| fs::set_permissions(&node, fs::Permissions::from_mode(0o660)));
        if let Err(e) = shared {
            found.push(format!("{}: {e}; updates will not work", node.display()));
        }
    }
}

/// The file whose time of change is the last time that this node knew.
fn clock_file(options: &Options) -> PathBuf {
    options.state_dir.join("clock")
}

/// No board has a clock that runs without power. Time starts where the node or its image last knew it, so
/// that it never runs backwards; nothing relies on it being right.
pub(super) fn set_clock(options: &Options) {
    let times = [clock_file(options), "/etc/os-release".into(), options.services.clone()];
    let known = times.iter().filter_map(|f| fs::metadata(f).ok()?.modified().ok()).max();
    let Some(known) = known.filter(|t| *t > SystemTime::now()) else { return };
    if let Err(e) = process::set_time_of_day(known) {
        log::warn!("the clock can't be set: {e}");
    }
    keep_clock(options);
}

/// Notes the time for the next boot.
pub(super) fn keep_clock(options: &Options) {
    // Only the file's time of change matters.
    if let Err(e) = fs::write(clock_file(options), "") {
        log::debug!("the time can't be kept: {e}");
    }
}

/// Makes the identity on the first boot. One that is damaged is set aside.
pub(super) fn identity(options: &Options, group: Option<u32>, found: &mut Vec<String>) {
    let group = group.filter(|_| process::is_root());
    let state = &options.state_dir;
    let mut result = identity::load_or_create_for(state, group);
    if let Err(IdentityError::Damaged(path)) = &result {
        let aside = path.with_file_name("identity.damaged");
        found.push(format!(
            "the node's identity was damaged and it got a new one, with new addresses; the old file is {}",
            aside.display()
        ));
        if fs::rename(path, aside).is_ok() {
            result = identity::load_or_create_for(state, group);
        }
    }
    match result {
        Ok(id) => {
            log::info!("this node is {}", id.node_id());
            // One that was saved from a lost partition was put back by root, and services read it, too.
            let path = state.join(identity::FILE_NAME);
            if let Some(gid) = group
                && let Err(e) = std::os::unix::fs::chown(&path, Some(0), Some(gid))
            {
                found.push(format!("{}: {e}", path.display()));
            }
        }
        Err(e) => found.push(e.to_string()),
    }
}

/// Everything that follows from `p2pmesh.toml`.
pub(super) fn configure(options: &Options, group: Option<u32>, found: &mut Vec<String>) {
    let copy = options.state_dir.join("p2pmesh.toml");
    let loaded = mesh_config::load_or_last_good(&options.config, &copy);
    let console = if options.system { Console::Serial } else { Console::Stdout };
    for line in loaded.problem_lines(&options.config) {
        console.say(&line);
        found.push(line);
    }
    keep_good(options, &loaded, &copy, group, found);
    found.extend(loaded.note_lines(&options.config));
    let config = &loaded.config;
    found.extend(config.warnings().into_iter().map(str::to_owned));
    if !options.system {
        return;
    }
    let Some(name) = config.hostname.clone().or_else(|| default_name(options)) else { return };
    let etc = &options.etc;
    let mut note = |what: &str, result: io::Result<()>| {
        if let Err(e) = result {
            found.push(format!("{what}: {e}"));
        }
    };
    note("the host name", process::set_hostname(name.as_str()));
    note("/etc/hostname", fs::write(etc.join("hostname"), format!("{name}\n")));
    note("/etc/hosts", fs::write(etc.join("hosts"), hosts(&name)));
    note("/etc/issue", fs::write(etc.join("issue"), issue(&name, config)));
    note("root's password", password(etc, config.console.password.as_ref()));
    note("SSH", ssh(options, config));
}

/// A configuration without a mistake is kept for the day when the card's file can't be read.
fn keep_good(options: &Options, loaded: &Loaded, copy: &Path, group: Option<u32>, found: &mut Vec<String>) {
    if loaded.hopeless || !loaded.problems.is_empty() || loaded.source.as_ref() != Some(&options.config) {
        return;
    }
    let read = |path: &Path| file::read_limited(path, mesh_config::MAX_BYTES as u64);
    let Ok(bytes) = read(&options.config) else { return };
    if read(copy).is_ok_and(|old| old == bytes) {
        return;
    }
    let kept = file::write_atomic(copy, &bytes, 0o640).and_then(|()| match group {
        Some(gid) if process::is_root() => std::os::unix::fs::chown(copy, Some(0), Some(gid)),
        _ => Ok(()),
    });
    if let Err(e) = kept {
        found.push(format!("the configuration can't be kept on the data partition: {e}"));
    }
}

/// `mesh-` and four digits of the board's serial number; without one (an emulated board), of the NodeId.
fn default_name(options: &Options) -> Option<NodeName> {
    let serial = fs::read_to_string("/proc/device-tree/serial-number").unwrap_or_default();
    let digits = serial_digits(&serial).or_else(|| {
        let id: Identity = identity::load_or_create(&options.state_dir).ok()?;
        id.node_id().to_string().get(..4).map(str::to_owned)
    });
    NodeName::new(&format!("mesh-{}", digits.as_deref().unwrap_or("node"))).ok()
}

/// The last four hexadecimal digits of a serial number that is not all zero.
fn serial_digits(serial: &str) -> Option<String> {
    let serial = serial.trim_matches(['\0', '\n', ' ']).to_ascii_lowercase();
    let good = serial.len() >= 4
        && serial.bytes().all(|b| b.is_ascii_hexdigit())
        && serial.bytes().any(|b| b != b'0');
    good.then(|| serial.get(serial.len() - 4..).map(str::to_owned)).flatten()
}

fn hosts(name: &NodeName) -> String {
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{name}\n")
}

/// What stands above the log-in prompt.
fn issue(name: &NodeName, config: &Config) -> String {
    let mut text = format!("\n{name}, a node of p2pmesh\n");
    if config.console.password.is_none() {
        text.push_str(
            "\n*** WARNING: anybody can log in as root with the password \"root\".\n\
             *** Set console.password in p2pmesh.toml on the card before you put this node on a roof.\n",
        );
    }
    text + "\n"
}

/// Sets root's password; `None` leaves the image's.
fn password(etc: &Path, password: Option<&Secret>) -> io::Result<()> {
    let Some(password) = password else { return Ok(()) };
    let hash = hash_password(password.expose())?;
    let path = etc.join("shadow");
    let shadow = fs::read_to_string(&path)?;
    let line = |l: &str| match l.strip_prefix("root:").and_then(|rest| rest.split_once(':')) {
        Some((_, rest)) => format!("root:{hash}:{rest}\n"),
        None => format!("{l}\n"),
    };
    file::write_atomic(&path, shadow.lines().map(line).collect::<String>().as_bytes(), 0o600)
}

/// crypt(3), SHA-512, by busybox; the password does not show in the list of processes.
fn hash_password(password: &str) -> io::Result<String> {
    const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut random = [0; 16];
    entropy::fill(&mut random)?;
    let salt: String =
        random.iter().filter_map(|b| LETTERS.get(usize::from(b & 63))).map(|b| char::from(*b)).collect();
    let mut child = Command::new("/bin/busybox")
        .args(["mkpasswd", "-m", "sha512", "-P", "0", "-S", &salt])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(password.as_bytes())?;
        input.write_all(b"\n")?;
    }
    let output = child.wait_with_output()?;
    let hash = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let sound = output.status.success() && hash.starts_with("$6$") && !hash.contains([':', '\n']);
    if sound { Ok(hash) } else { Err(io::Error::other("it can't be set: busybox mkpasswd failed")) }
}

/// SSH is off unless a key turns it on, or the workshop's password still stands.
fn ssh(options: &Options, config: &Config) -> io::Result<()> {
    let marker = options.run_dir.join(SSH_WANTED);
    let keys = &config.ssh.authorized_keys;
    let workshop = config.console.password.is_none();
    if keys.is_empty() && !workshop {
        return match fs::remove_file(&marker) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
    }
    let dir = options.etc.join("dropbear");
    folder(&dir, 0o700, None)?;
    let text: String = keys.iter().map(|k| format!("{k}\n")).collect();
    file::write_atomic(&dir.join("authorized_keys"), text.as_bytes(), 0o600)?;
    folder(&options.state_dir.join("ssh"), 0o700, None)?;
    // With a password of their own, people come in by key only.
    fs::write(marker, if workshop { "" } else { "-s\n" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_serial_numbers() {
        assert_eq!(serial_digits("10000000a3b2c1D0\0").as_deref(), Some("c1d0"));
        for none in ["", "\0", "0000000000000000", "abc", "not hex digits!"] {
            assert_eq!(serial_digits(none), None, "{none:?}");
        }
    }

    #[test]
    fn sysctl_lines() {
        let found = settings("# x\n; y\nnet.ipv4.ip_forward = 1\n\nnet/ipv6/x=a b\nbad\n../../etc/x=1\n");
        assert_eq!(
            found,
            [
                (PathBuf::from("/proc/sys/net/ipv4/ip_forward"), "1".to_owned()),
                (PathBuf::from("/proc/sys/net/ipv6/x"), "a b".to_owned()),
                (PathBuf::from("/proc/sys/etc/x"), "1".to_owned()),
            ]
        );
    }

    #[test]
    fn the_warning_goes_with_the_workshop_password() {
        let name = NodeName::new("bloor").unwrap();
        let mut config = Config::default();
        assert!(issue(&name, &config).contains("WARNING"));
        config.console.password = Some(Secret::new("correct horse"));
        assert!(!issue(&name, &config).contains("WARNING"));
        assert!(hosts(&name).ends_with("\tbloor\n"));
    }
}

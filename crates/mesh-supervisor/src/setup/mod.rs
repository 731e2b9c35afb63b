//! `mesh-supervisor setup`: from the root file system that `/init` left to a system in which services can
//! start. It runs on every boot, each step does nothing where there is nothing to do, and none of them
//! keeps the node from starting: what fails is a problem for the console and `meshctl status`.

mod card;
mod data;
mod ext4;
mod formats;
mod mbr;
mod node;
mod reset;
#[cfg(test)]
mod reset_tests;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use mesh_sys::mount::{self, Options as Mount};
use mesh_sys::{disk, kmod, process};

use crate::accounts;
use crate::console::Console;
use crate::hotplug::Meanwhile;
use crate::options::Options;
use crate::{kept, logger, problems};

/// Where the data partition is mounted.
const DATA: &str = "/data";
/// The first FAT partition.
const BOOT: &str = "/boot";
/// What the card's two file systems need. The kernel would run one modprobe after the other for them, which takes
/// a third of a second.
const CARD_MODULES: [&str; 4] = ["vfat", "nls_cp437", "nls_ascii", "ext4"];
/// At most that many files of a service are looked at for their owner.
const MAX_SAVED: usize = 100;
/// Memory in place of a data partition.
const NO_DATA_SIZE: &str = "size=25%,mode=0755";

/// Sets the node up.
pub(crate) fn setup(options: &Options) -> Result<(), String> {
    let console = if options.system { Console::Serial } else { Console::Stdout };
    let mut found = Vec::new();
    let group = accounts::group_id(&options.etc, accounts::MESH_GROUP);
    if options.system {
        kernel_file_systems(&mut found);
        node::kernel_settings(&options.etc.join("sysctl.conf"), &mut found);
    }
    // /run is memory from here on.
    folder(&options.run_dir, 0o1770, group).map_err(|e| format!("{}: {e}", options.run_dir.display()))?;
    logger::start(options);
    log::info!("set-up starts");
    let meanwhile = options.system.then(Meanwhile::start);
    folder(&options.log_dir(), 0o750, group).map_err(|e| format!("{}: {e}", options.log_dir().display()))?;
    if options.system {
        card(options, console, group, &mut found);
    }
    state(options, group, &mut found);
    if options.system {
        node::set_clock(options);
    }
    node::configure(options, group, &mut found);
    drop(meanwhile);
    if let Err(e) = problems::save(&options.run_dir, &found) {
        log::error!("the list of problems can't be kept: {e}");
    }
    for problem in &found {
        log::warn!("{problem}");
    }
    log::info!("set-up ends");
    Ok(())
}

/// Ends the supervisor and its services and leaves the card in order.
pub(crate) fn finish(options: &Options) -> Result<(), String> {
    let pid = fs::read_to_string(options.pid_file()).unwrap_or_default();
    if let Ok(pid) = pid.trim().parse() {
        match process::end_and_wait(pid, std::time::Duration::from_secs(60)) {
            Ok(true) => {}
            Ok(false) => log::error!("the supervisor does not end"),
            Err(e) => log::error!("the supervisor can't be told to end: {e}"),
        }
    }
    if options.system {
        node::keep_clock(options);
    }
    disk::sync_all();
    if options.system {
        for target in ["/root", DATA, BOOT] {
            let target = Path::new(target);
            // Somebody's shell may still be in there.
            if let Err(e) = mount::unmount(target).or_else(|_| mount::make_read_only(target)) {
                log::debug!("{} stays mounted: {e}", target.display());
            }
        }
        disk::sync_all();
    }
    Ok(())
}

/// A folder of that mode (and of the group `mesh`, where there is one).
fn folder(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if process::is_root() {
        chown(path, Some(0), group)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn mounted(target: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|l| l.split(' ').nth(1).is_some_and(|t| Path::new(t) == target))
}

fn mount_once(source: &str, target: &str, kind: &str, options: Mount, data: &str) -> Result<(), String> {
    let target = Path::new(target);
    if mounted(target) {
        return Ok(());
    }
    mount::mount_at(Path::new(source), target, kind, options, data)
        .map_err(|e| format!("{} can't be mounted: {e}", target.display()))
}

fn kernel_file_systems(found: &mut Vec<String>) {
    let programs = Mount { no_devices: true, no_suid: true, ..Mount::default() };
    let devices = Mount { no_suid: true, ..Mount::default() };
    let _ = fs::create_dir_all("/dev/pts"); // missing in /dev only while devtmpfs is missing, too
    for (source, target, kind, options, data) in [
        ("proc", "/proc", "proc", Mount::DATA, ""),
        ("sysfs", "/sys", "sysfs", Mount::DATA, ""),
        ("devtmpfs", "/dev", "devtmpfs", devices, ""),
        ("devpts", "/dev/pts", "devpts", devices, "gid=5,mode=620,ptmxmode=666"),
        ("tmpfs", "/run", "tmpfs", Mount::DATA, "size=15%,mode=0755"),
        ("tmpfs", "/tmp", "tmpfs", programs, "size=25%,mode=1777"),
        // A process joins its group without waiting for all processors, which takes 50 ms each time.
        ("cgroup2", "/sys/fs/cgroup", "cgroup2", Mount::DATA, "favordynmods"),
    ] {
        if let Err(e) = mount_once(source, target, kind, options, data) {
            found.push(e);
        }
    }
}

/// The FAT and the data partition.
fn card(options: &Options, console: Console, group: Option<u32>, found: &mut Vec<String>) {
    let modules = kmod::folder();
    for name in CARD_MODULES {
        if let Err(e) = kmod::load_by_name(&modules, name) {
            log::debug!("module {name}: {e}; the kernel asks for it when it is used");
        }
    }
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let disk = match card::find_disk(&cmdline) {
        Ok(disk) => Some(disk),
        Err(why) => {
            found.push(format!("the card was not found: {why}; nothing is kept when the node goes off"));
            None
        }
    };
    if let Some(disk) = &disk {
        let read_only = Mount { read_only: true, ..Mount::DATA };
        // It holds passwords: only root and the services may read it.
        let data = format!("gid={},umask=0027,iocharset=ascii", group.unwrap_or(0));
        let node = card::partition_node(disk, 1);
        if let Err(e) = mount_once(&node.to_string_lossy(), BOOT, "vfat", read_only, &data) {
            found.push(format!("{e}; the node uses its last good configuration or defaults"));
        }
    }
    log::info!("{BOOT} is mounted: {}", mounted(Path::new(BOOT)));
    let outcome = match disk {
        Some(disk) if !mounted(Path::new(DATA)) => {
            node::share_disk(&disk, found);
            let wish = wish(options, console, found);
            reset::prepare(
                &mut card::Card::new(disk, DATA.into(), console),
                &wish,
                &mut reset::Files(BOOT.into()),
            )
        }
        _ => data::Outcome { mounted: mounted(Path::new(DATA)), problems: Vec::new() },
    };
    log::info!("{DATA} is mounted: {}", outcome.mounted);
    found.extend(outcome.problems);
    if !outcome.mounted {
        let memory = Mount { no_devices: true, no_suid: true, ..Mount::default() };
        if let Err(e) = mount_once("tmpfs", DATA, "tmpfs", memory, NO_DATA_SIZE) {
            found.push(e);
        }
    }
}

/// The disk the node was started from.
pub(crate) fn own_disk() -> Option<std::path::PathBuf> {
    card::find_disk(&fs::read_to_string("/proc/cmdline").unwrap_or_default()).ok()
}

/// Whether somebody wants the node to be as it was when it was new.
fn wish(options: &Options, console: Console, found: &mut Vec<String>) -> reset::Wish {
    if let Some(stamp) = reset::Files(BOOT.into()).find() {
        return reset::Wish::File(stamp);
    }
    let Some(gpio) = mesh_config::load(&options.config).config.reset.gpio else { return reset::Wish::None };
    match reset::held(gpio, console) {
        Ok(true) => return reset::Wish::Button(gpio),
        Ok(false) => {}
        Err(why) => found.push(why),
    }
    reset::Wish::None
}

/// The state directory: identity, a folder for each service, kept logs.
fn state(options: &Options, group: Option<u32>, found: &mut Vec<String>) {
    let state = &options.state_dir;
    let mut note = |what: &Path, result: io::Result<()>| {
        if let Err(e) = result {
            found.push(format!("{}: {e}", what.display()));
        }
    };
    note(state, folder(state, 0o750, group));
    formats::settle(state, &node::state_formats(options), found);
    let mut note = |what: &Path, result: io::Result<()>| {
        if let Err(e) = result {
            found.push(format!("{}: {e}", what.display()));
        }
    };
    for (name, user) in node::service_users(options) {
        let path = state.join(&name);
        note(&path, folder(&path, 0o750, group));
        if let (true, Ok(c)) = (process::is_root(), accounts::lookup(&options.etc, &user)) {
            note(&path, chown(&path, Some(c.uid), group));
            // What was saved from a lost or reset partition was put back by root.
            for file in fs::read_dir(&path).into_iter().flatten().flatten().take(MAX_SAVED) {
                let saved = file.metadata().is_ok_and(|m| m.is_file() && m.uid() != c.uid);
                if saved {
                    note(&file.path(), std::os::unix::fs::lchown(file.path(), Some(c.uid), group));
                }
            }
        }
    }
    let kept = options.kept_logs();
    note(&kept, folder(&kept, 0o750, group));
    note(&kept, kept::new_boot(&kept));
    if options.system {
        let home = Path::new(DATA).join("home/root");
        note(&home, fs::create_dir_all(&home));
        note(&home, fs::set_permissions(&home, fs::Permissions::from_mode(0o700)));
        let root = Path::new("/root");
        if !mounted(root) {
            note(root, mount::bind(&home, root));
        }
    }
    node::identity(options, group, found);
}

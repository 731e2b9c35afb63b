//! `/init` of the initramfs: from the kernel to the verified root (level 4).
//!
//! Loads the few modules that the card and the root image need, finds the slot that the boot script chose,
//! builds dm-linear and dm-verity over it, mounts the root read-only with writable layers on `/etc` and
//! `/var`, and hands over to `/sbin/init`. Whatever fails is said on the console and the board restarts:
//! that counts as a failed try, and after three of them the boot script takes the other slot.

mod card;
mod header;

use std::fs::{self, File};
use std::io::{Read, Write, stderr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use mesh_sys::dm::{DeviceMapper, Target};
use mesh_sys::mount::{self, Options};
use mesh_sys::watchdog::{self, Watchdog};
use mesh_sys::{board, kmod};

use card::BootArguments;
use header::RootImage;
use update_core::SECTOR;

/// How long the card may take to appear.
const CARD_PATIENCE: Duration = Duration::from_secs(20);
/// How long a failure stays readable before the board restarts.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);
/// Of the root image, in KiB.
const READ_AHEAD_KB: &str = "16";
/// The board restarts if mesh-supervisor does not take the watchdog over within that many seconds. A repair of
/// the data partition happens before.
const PATIENCE_S: u32 = 900;
const NEW_ROOT: &str = "/root";
const REAL_INIT: &str = "/sbin/init";

fn main() -> ExitCode {
    if std::process::id() != 1 {
        say("this program is the initramfs' /init and does nothing when run by hand");
        return ExitCode::from(2);
    }
    std::panic::set_hook(Box::new(|info| fail(&format!("defect in /init: {info}"))));
    let reason = match boot() {
        Ok(never) => match never {},
        Err(reason) => reason,
    };
    fail(&reason);
    ExitCode::FAILURE
}

/// All steps; returns only with a failure, in words for the console.
fn boot() -> Result<std::convert::Infallible, String> {
    kernel_file_systems()?;
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let arguments = BootArguments::parse(&command_line);
    let dog = load_modules(&command_line, arguments.watchdog.unwrap_or(PATIENCE_S))?;
    let partition = card::find(&arguments, CARD_PATIENCE)?;
    let header = read_header(&partition, &arguments)?;
    let device = verified_device(&header, &partition.node)?;
    mount_root(&device)?;
    say(&format!(
        "slot {} version {}: root verified and mounted, {} s",
        arguments.slot,
        header.version(),
        uptime()
    ));
    hand_over(dog)
}

/// A line on the console.
fn say(text: &str) {
    let _ = writeln!(stderr(), "p2pmesh: {text}");
}

/// Says what went wrong and restarts the board.
fn fail(reason: &str) {
    say(&format!("BOOT FAILED: {reason}"));
    say(
        "this try counts against the slot; the board starts again, and takes the other slot after three tries",
    );
    sleep(FAILURE_PAUSE);
    let error = mount::restart();
    say(&format!("could not restart: {error}"));
}

fn uptime() -> String {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}

fn kernel_file_systems() -> Result<(), String> {
    for (kind, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        let options = Options { no_devices: kind != "devtmpfs", ..Options::DATA };
        mount::mount_at(Path::new(kind), Path::new(target), kind, options, "")
            .map_err(|e| format!("{target} can't be mounted: {e}"))?;
    }
    Ok(())
}

/// Loads the modules of the list in its order, and arms the watchdog as soon as its module is there. One that
/// fails is said and skipped: a board may not need it, and if it does, the next step fails with its own words.
fn load_modules(command_line: &str, patience: u32) -> Result<Option<Watchdog>, String> {
    let real = board::is_real_board(Path::new("/proc/device-tree"), command_line);
    let mut dog = None;
    let list = fs::read_to_string("/etc/modules.list").map_err(|e| format!("no list of modules: {e}"))?;
    for name in list.lines().filter(|line| !line.is_empty()) {
        let path = Path::new("/modules").join(format!("{name}.ko"));
        if let Err(error) = kmod::load(&path) {
            say(&format!("module {name} was not loaded: {error}"));
        }
        // Its memory is worth more than the file.
        let _ = fs::remove_file(path);
        if dog.is_none() && patience > 0 {
            let offers = watchdog::offers(Path::new("/sys/class/watchdog"));
            dog = board::choose(&offers, real).and_then(|o| Watchdog::arm(&o.device, patience).ok());
        }
    }
    Ok(dog)
}

fn read_header(partition: &card::SlotPartition, arguments: &BootArguments) -> Result<RootImage, String> {
    let node = partition.node.display();
    let mut sector = [0; SECTOR];
    File::open(&partition.node)
        .and_then(|mut file| file.read_exact(&mut sector))
        .map_err(|e| format!("{node} can't be read: {e}"))?;
    let header = RootImage::parse(&sector, partition.sectors).map_err(|e| format!("{node}: {e}"))?;
    if header.root_hash() != arguments.root_hash {
        return Err(format!(
            "{node} holds version {}, which is not the one the boot script chose",
            header.version()
        ));
    }
    Ok(header)
}

/// dm-linear cuts the root image out of the slot, dm-verity checks every block that is read from it.
fn verified_device(header: &RootImage, partition: &Path) -> Result<PathBuf, String> {
    let mapper = DeviceMapper::open().map_err(|e| format!("device-mapper is not there: {e}"))?;
    let partition = partition.display().to_string();
    let layer = |name: &str, kind: &str, parameters: &str| {
        let target = Target { start: 0, sectors: header.sectors(), kind, parameters };
        mapper.create_read_only(name, &[target]).map_err(|e| format!("dm-{kind} refuses '{parameters}': {e}"))
    };
    let image = layer("p2pmesh-image", "linear", &header.linear(&partition))?;
    let root = layer("p2pmesh-root", "verity", &header.verity(&image.display().to_string(), &partition))?;
    // The file system reads whole blocks of 128 KiB as it is. Beyond them, a program that is started would
    // have twice as much read as it touches.
    if let Some(name) = root.file_name() {
        let setting = Path::new("/sys/class/block").join(name).join("queue/read_ahead_kb");
        if let Err(e) = fs::write(&setting, READ_AHEAD_KB) {
            say(&format!("{}: {e}", setting.display()));
        }
    }
    Ok(root)
}

/// Mounts the root and lays writable memory over the folders that programs write to.
fn mount_root(device: &Path) -> Result<(), String> {
    let root = Path::new(NEW_ROOT);
    let read_only = Options { read_only: true, ..Options::default() };
    let kinds = ["erofs", "squashfs"];
    let mounted = kinds.iter().any(|kind| mount::mount_at(device, root, kind, read_only, "").is_ok());
    if !mounted {
        return Err(format!(
            "the root image on {} is neither erofs nor squashfs, or it is damaged",
            device.display()
        ));
    }
    let scratch = Path::new("/scratch");
    fs::create_dir_all(scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    let options = Options { no_devices: true, no_suid: true, ..Options::default() };
    mount::mount_at(Path::new("tmpfs"), scratch, "tmpfs", options, "size=25%,mode=0755")
        .map_err(|e| format!("no memory file system: {e}"))?;
    for folder in ["etc", "var"] {
        mount::overlay(&root.join(folder), &scratch.join(folder))
            .map_err(|e| format!("no writable layer on /{folder}: {e}"))?;
    }
    Ok(())
}

/// Closes the watchdog, which goes on running: mesh-supervisor opens it again and feeds it. The kernel takes that
/// for a mistake, on the console, too; its log may keep it.
fn release(dog: Option<Watchdog>) {
    let Some(dog) = dog else { return };
    let level = "/proc/sys/kernel/printk";
    let before = fs::read_to_string(level);
    let _ = fs::write(level, "1");
    drop(dog);
    if let Ok(before) = before {
        let _ = fs::write(level, before);
    }
}

/// Takes the kernel's file systems along, frees the initramfs and starts the real init.
fn hand_over(dog: Option<Watchdog>) -> Result<std::convert::Infallible, String> {
    release(dog);
    let root = Path::new(NEW_ROOT);
    for folder in ["dev", "proc", "sys"] {
        mount::move_to(&Path::new("/").join(folder), &root.join(folder))
            .map_err(|e| format!("/{folder} can't be moved to the root: {e}"))?;
    }
    let _ = fs::remove_file("/init");
    mount::switch_root(root).map_err(|e| format!("can't change to the root: {e}"))?;
    let mut init = Command::new(REAL_INIT);
    init.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    init.env("HOME", "/").env("TERM", "vt102");
    Err(format!("{REAL_INIT} can't be started: {}", init.exec()))
}

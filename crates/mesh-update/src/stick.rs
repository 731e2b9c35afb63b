//! `mesh-update --stick DEVICE`: installs the newest bundle of a USB stick. Started as root by mesh-supervisor when a
//! stick appears; prints what people should see, a line each, which the supervisor puts on the console.
//!
//! The stick is mounted in a mount namespace of this process alone, read-only, without devices, programs or
//! set-user-ID; it is gone with the process. Bundles reach the service as they do from `meshctl`: it trusts nothing
//! here. Nothing is mounted before the running system is confirmed, so that a stick that crashes the kernel costs
//! restarts, but no system.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mesh_ipc::update::{Slots, UpdateRequest, UpdateResponse};
use mesh_ipc::{Request, Response};
use mesh_sys::control::Client;
use mesh_sys::disk;
use mesh_sys::mount::{self, Options as Mount};
use mesh_sys::service::{Args, print};
use update_core::bundle::{PREFIX, Prefix};
use update_core::stick::{MAX_LOOKED_AT, Present, is_bundle_name, look, worth};
use update_core::{Policy, Refusal};

use crate::job::read_at;
use crate::service::policy;

/// Entries of the stick's top folder that are read.
const MAX_ENTRIES: usize = 1000;
/// Bundles whose reasons are told.
const MAX_REASONS: usize = 3;
/// How long a node may take to confirm its system.
const CONFIRMATION: Duration = Duration::from_secs(1800);
/// How long the service may be silent.
const SILENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(1);
/// The folder it is mounted on, beside the control sockets' (which is not root's alone); a number follows.
const FOLDER: &str = "usb-stick.";

type Service = Client<UpdateRequest, UpdateResponse>;

/// A bundle that this node would take.
struct Candidate {
    name: String,
    file: File,
    release: u64,
    version: String,
}

/// What is on a stick.
#[derive(Default)]
struct Found {
    best: Option<Candidate>,
    /// Why the others are left alone.
    passed: Vec<String>,
    /// There was more than is looked at.
    more: bool,
}

/// Does it all; `Ok`: what was done, for people. Prints on the way.
pub(crate) fn run(args: &Args, device: &Path) -> Result<(), String> {
    let loaded = mesh_config::load_or_last_good(&args.config, &args.state_dir.join("p2pmesh.toml"));
    let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !loaded.config.update.usb {
        log::info!("USB stick {name}: left alone (update.usb is not set)");
        return Ok(());
    }
    let policy = policy(&loaded.config, args.all("--board"));
    let slots = confirmed(&args.run_dir)?;
    let folder = args.run_dir.with_file_name(format!("{FOLDER}{}", std::process::id()));
    let result = mount_stick(device, &folder).and_then(|()| {
        let result = install(&args.run_dir, &folder, &policy, &slots, &name);
        // The namespace ends with the process; what is told now holds also for whoever pulls the stick at once.
        if let Err(e) = mount::unmount(&folder) {
            log::warn!("{}: {e}", folder.display());
        }
        result
    });
    // A person may want to write to it later.
    if let Err(e) = disk::set_read_only(device, false) {
        log::debug!("{}: {e}", device.display());
    }
    // Empty, and there only if it came so far.
    let _ = fs::remove_dir(&folder);
    let (text, told) = match result {
        Ok(Outcome::Installed(text)) => (text, true),
        Ok(Outcome::Left(text)) => (text, false),
        Err(text) => (text, false),
    };
    say(&name, &text);
    if !told {
        let text = format!("USB stick {name}: {text}");
        let told = connect(&args.run_dir).and_then(|mut c| {
            c.request(&Request::Service(UpdateRequest::Stick(text))).map_err(|e| e.to_string())
        });
        if let Err(e) = told {
            log::warn!("mesh-update can't be told of the stick: {e}");
        }
    }
    Ok(())
}

/// How it ended.
enum Outcome {
    /// The service did it, or refused it, and keeps the words itself.
    Installed(String),
    /// There was nothing for it.
    Left(String),
}

fn say(name: &str, text: &str) {
    print(&format!("USB stick {name}: {text}\n"));
}

fn connect(run_dir: &Path) -> Result<Service, String> {
    Client::connect(run_dir, crate::NAME, SILENCE).map_err(|e| format!("mesh-update does not answer: {e}"))
}

/// Waits until the running system is confirmed.
fn confirmed(run_dir: &Path) -> Result<Slots, String> {
    let end = Instant::now() + CONFIRMATION;
    loop {
        let slots = connect(run_dir).and_then(|mut c| {
            match c.request(&Request::Service(UpdateRequest::Slots)).map_err(|e| e.to_string())? {
                Response::Service(UpdateResponse::Slots(slots)) => Ok(slots),
                _ => Err("mesh-update gave an odd answer".into()),
            }
        });
        match slots {
            Ok(slots) if slots.confirmed => return Ok(slots),
            Ok(slots) if slots.slots.is_empty() => {
                return Err("no boot slots here: this system was not started from a p2pmesh card".into());
            }
            Ok(_) if Instant::now() > end => {
                return Err("the running system is not confirmed, so the stick is left alone".into());
            }
            Err(why) if Instant::now() > end => return Err(why),
            _ => std::thread::sleep(PAUSE),
        }
    }
}

/// Mounts it where nobody else sees it.
fn mount_stick(device: &Path, folder: &Path) -> Result<(), String> {
    let bad = |e: io::Error| format!("can't be read: {e}");
    if !fs::metadata(device).map_err(bad)?.file_type().is_block_device() {
        return Err("is no block device".into());
    }
    let mut head = vec![0; 4096];
    File::open(device).and_then(|f| f.read_exact_at(&mut head, 0)).map_err(bad)?;
    let Some((kind, data)) = file_system(&head) else {
        return Err("no file system that this node reads (FAT, exFAT, ext4)".into());
    };
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    disk::set_read_only(device, true).map_err(bad)?;
    mount::private_namespace().map_err(|e| format!("no mount namespace: {e}"))?;
    let options = Mount { read_only: true, ..Mount::DATA };
    mount::mount_at(device, folder, kind, options, data).map_err(|e| {
        format!("its {kind} can't be mounted: {e}; the stick is damaged, or its format is not known here")
    })
}

/// The file system that begins with `head`, and what it is mounted with. Nothing on a stick may stop the kernel
/// (`errors=`, which an ext4 brings along), and nothing is written, not even an ext4's journal.
fn file_system(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let at = |offset: usize, text: &[u8]| head.get(offset..offset + text.len()) == Some(text);
    if at(3, b"EXFAT   ") {
        return Some(("exfat", "umask=0077,errors=continue"));
    }
    if at(1080, &[0x53, 0xef]) {
        return Some(("ext4", "noload,errors=continue"));
    }
    let fat = at(510, &[0x55, 0xaa]) && (at(54, b"FAT") || at(82, b"FAT32"));
    fat.then_some(("vfat", "umask=0077,iocharset=ascii,errors=continue"))
}

fn install(
    run_dir: &Path,
    folder: &Path,
    policy: &Policy,
    slots: &Slots,
    stick: &str,
) -> Result<Outcome, String> {
    let (present, policy) = present(slots, policy);
    let found = search(folder, &policy)?;
    let mut notes = found.passed;
    if let Some(rest) = notes.len().checked_sub(MAX_REASONS).filter(|rest| *rest > 0) {
        notes.truncate(MAX_REASONS);
        notes.push(format!("and {rest} more"));
    }
    if found.more {
        notes.push(format!(
            "there are more files than the {MAX_ENTRIES} (of them {MAX_LOOKED_AT} bundles) that are looked at"
        ));
    }
    let Some(best) = found.best else {
        let why = if notes.is_empty() { "no bundle (*.bundle) on it".into() } else { notes.join("; ") };
        return Ok(Outcome::Left(why));
    };
    if let Err(left) = worth(best.release, present) {
        return Ok(Outcome::Left(format!("{}: {left}", best.name)));
    }
    say(stick, &format!("{} is installed: version {} (release {})", best.name, best.version, best.release));
    let done = offer(run_dir, &best.file, stick);
    Ok(Outcome::Installed(match done {
        Ok(text) => format!("{text}. The stick can be taken out"),
        Err(e) => format!("{} was not installed: {e}", best.name),
    }))
}

/// What is in the slots, and the policy with what follows from that.
fn present(slots: &Slots, policy: &Policy) -> (Present, Policy) {
    let of = |running: bool| slots.slots.iter().find(move |s| (s.name == slots.running) == running);
    let running = of(true).map_or(0, |s| s.release);
    let present = Present {
        running,
        other: of(false).map_or(0, |s| s.release),
        other_boots: of(false).is_some_and(|s| s.tries_left > 0),
    };
    // Whether it fits the slot is the service's question.
    let policy = Policy { running, floor: slots.floor, slot: u64::MAX, ..policy.clone() };
    (present, policy)
}

/// The newest bundle that this node would take.
fn search(folder: &Path, policy: &Policy) -> Result<Found, String> {
    let mut found = Found::default();
    let mut names = Vec::new();
    let entries = fs::read_dir(folder).map_err(|e| format!("can't be read: {e}"))?;
    for (i, entry) in entries.enumerate() {
        if i >= MAX_ENTRIES {
            found.more = true;
            break;
        }
        let entry = entry.map_err(|e| format!("can't be read: {e}"))?;
        names.extend(entry.file_name().into_string().ok().filter(|n| is_bundle_name(n)));
    }
    // By name, last first: names of releases grow.
    names.sort_unstable_by(|a, b| b.cmp(a));
    found.more |= names.len() > MAX_LOOKED_AT;
    names.truncate(MAX_LOOKED_AT);
    for name in names {
        match look_at(&folder.join(&name), policy) {
            Ok((file, release, version)) => {
                if found.best.as_ref().is_none_or(|b| b.release < release) {
                    found.best = Some(Candidate { name, file, release, version });
                }
            }
            Err(why) => found.passed.push(format!("{name}: {why}")),
        }
    }
    Ok(found)
}

/// Reads and checks the start of a bundle.
fn look_at(path: &PathBuf, policy: &Policy) -> Result<(File, u64, String), String> {
    // Neither a link to elsewhere nor a pipe that nobody writes.
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|e| format!("can't be read: {e}"))?;
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return Err("is no file".into());
    }
    let short = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => Refusal::NotABundle.to_string(),
        _ => format!("can't be read: {e}"),
    };
    let mut prefix = [0; PREFIX];
    file.read_exact(&mut prefix).map_err(short)?;
    let prefix = Prefix::parse(&prefix).map_err(|e| e.to_string())?;
    let mut signed = vec![0; prefix.signed_part()];
    file.read_exact(&mut signed).map_err(short)?;
    let (manifest, signatures) = signed.split_at_checked(prefix.manifest).unwrap_or_default();
    let (release, version) = look(policy, manifest, signatures).map_err(|e| e.to_string())?;
    Ok((file, release, version))
}

/// Hands the bundle to the service.
fn offer(run_dir: &Path, file: &File, stick: &str) -> Result<String, String> {
    let lost = |e: io::Error| format!("mesh-update: {e}");
    let size = file.metadata().map_err(|e| e.to_string())?.len();
    let mut service = connect(run_dir)?;
    service.send(&Request::Service(UpdateRequest::Offer { size, check_only: false })).map_err(lost)?;
    let mut told = (String::new(), 0);
    loop {
        match service.receive().map_err(lost)? {
            Response::Service(UpdateResponse::Done(text)) => return Ok(text),
            Response::Service(UpdateResponse::Want { offset, len }) => {
                let mut piece = vec![0; len as usize];
                let n =
                    read_at(file, &mut piece, offset).map_err(|e| format!("the stick can't be read: {e}"))?;
                piece.truncate(n);
                service.send(&Request::Service(UpdateRequest::Data(piece))).map_err(lost)?;
            }
            Response::Service(UpdateResponse::Progress(p)) => {
                let quarter = p.done.saturating_mul(4).checked_div(p.total).unwrap_or(0);
                if (p.stage.as_str(), quarter) != (told.0.as_str(), told.1) && p.total > 0 {
                    say(stick, &format!("{}: {} %", p.stage, quarter * 25));
                    told = (p.stage, quarter);
                }
            }
            Response::Service(UpdateResponse::Slots(_)) | Response::Status(_) => {
                return Err("an odd answer".into());
            }
            Response::Error(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_told_by_their_first_bytes() {
        let head = |places: &[(usize, &[u8])]| {
            let mut head = vec![0; 4096];
            for (at, text) in places {
                head[*at..at + text.len()].copy_from_slice(text);
            }
            file_system(&head).map(|(kind, _)| kind)
        };
        assert_eq!(head(&[(82, b"FAT32   "), (510, &[0x55, 0xaa])]), Some("vfat"));
        assert_eq!(head(&[(54, b"FAT16   "), (510, &[0x55, 0xaa])]), Some("vfat"));
        assert_eq!(head(&[(82, b"FAT32   ")]), None);
        // A partition table alone.
        assert_eq!(head(&[(510, &[0x55, 0xaa])]), None);
        assert_eq!(head(&[(3, b"EXFAT   "), (510, &[0x55, 0xaa])]), Some("exfat"));
        assert_eq!(head(&[(3, b"NTFS    "), (510, &[0x55, 0xaa])]), None);
        assert_eq!(head(&[(1080, &[0x53, 0xef])]), Some("ext4"));
        assert_eq!(file_system(b"short"), None);
    }
}

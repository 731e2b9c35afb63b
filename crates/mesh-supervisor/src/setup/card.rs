//! The real card, and the tools of e2fsprogs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mesh_sys::board::argument;
use mesh_sys::disk::{self, Partition};
use mesh_sys::identity;
use mesh_sys::mount::{self, Options};

use super::data::{Check, Depth, Machine};
use super::mbr::{DATA, Part, SECTOR};
use crate::console::Console;

/// At most that many entries of `lost+found` are looked at.
const MAX_LOST: usize = 10_000;
/// Of a file that is saved from a lost file system.
const MAX_RESCUED: u64 = 64 * 1024;
/// Files below the state directory that can't be replaced.
const RESCUED: [&str; 5] = [
    identity::FILE_NAME,
    "p2pmesh.toml",
    "ssh/dropbear_ed25519_host_key",
    "mesh-update/floor",
    "mesh-update/trial",
];

/// The disk the node was started from, with its data partition.
#[derive(Debug)]
pub(crate) struct Card {
    disk: PathBuf,
    data: PathBuf,
    data_name: String,
    target: PathBuf,
    console: Console,
}

/// Device node of partition `number` of `disk`: `mmcblk0p4`, `sda4`.
pub(crate) fn partition_node(disk: &Path, number: usize) -> PathBuf {
    let name = disk.file_name().unwrap_or_default().to_string_lossy();
    let separator = if name.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    disk.with_file_name(format!("{name}{separator}{number}"))
}

/// The disk whose signature the boot script named (`p2pmesh.part=6d703270-02`).
pub(crate) fn find_disk(cmdline: &str) -> Result<PathBuf, String> {
    let wanted = argument(cmdline, "p2pmesh.part")
        .and_then(|p| u32::from_str_radix(p.split('-').next()?, 16).ok())
        .ok_or("the kernel's command line has no p2pmesh.part")?;
    let has_it = |node: &PathBuf| {
        let mut sector = [0; SECTOR];
        let read = File::open(node).and_then(|mut f| f.read_exact(&mut sector));
        read.is_ok()
            && sector.ends_with(&[0x55, 0xaa])
            && sector.get(440..444).is_some_and(|s| s == wanted.to_le_bytes())
    };
    let blocks = fs::read_dir("/sys/class/block").map_err(|e| format!("/sys/class/block: {e}"))?;
    let mut disks: Vec<PathBuf> = blocks
        .flatten()
        .filter(|e| !e.path().join("partition").exists())
        .map(|e| Path::new("/dev").join(e.file_name()))
        .collect();
    disks.sort();
    disks.into_iter().find(has_it).ok_or_else(|| format!("there is no disk with signature {wanted:08x}"))
}

impl Card {
    /// The card on `disk`; its data goes to `target`.
    pub(crate) fn new(disk: PathBuf, target: PathBuf, console: Console) -> Self {
        let data = partition_node(&disk, DATA);
        let data_name = data.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { disk, data, data_name, target, console }
    }
}

impl Machine for Card {
    fn read_table(&mut self) -> io::Result<[u8; SECTOR]> {
        let mut sector = [0; SECTOR];
        File::open(&self.disk)?.read_exact(&mut sector)?;
        Ok(sector)
    }

    fn card_sectors(&mut self) -> io::Result<u64> {
        Ok(disk::size(&self.disk)? / 512)
    }

    fn write_table(&mut self, sector: &[u8; SECTOR]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(&self.disk)?;
        file.write_all(sector)?;
        file.sync_all()
    }

    fn announce(&mut self, part: Part) -> io::Result<()> {
        let wanted = Partition { number: DATA as i32, start: part.start * 512, length: part.sectors * 512 };
        let disk = File::open(&self.disk)?;
        match disk::known(Path::new("/sys/class/block"), &self.data_name) {
            Some((start, length)) if (start, length) == (wanted.start, wanted.length) => {}
            Some((start, _)) if start == wanted.start => disk::resize_partition(&disk, wanted)?,
            Some(_) => return Err(io::Error::other("it sees it in another place; start the node again")),
            None => disk::add_partition(&disk, wanted)?,
        }
        // The node appears with the partition; devtmpfs makes it before the call is over.
        fs::metadata(&self.data).map(drop)
    }

    fn read(&mut self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.data)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn check(&mut self, depth: Depth) -> Check {
        check(&self.data, depth)
    }

    fn format(&mut self) -> Result<(), String> {
        format(&self.data)
    }

    fn mount(&mut self) -> io::Result<()> {
        let options = Options { no_devices: true, no_suid: true, no_atime: true, ..Options::default() };
        // Unused inode tables stay unwritten; checksums tell them from used ones.
        mount::mount_at(&self.data, &self.target, "ext4", options, "errors=remount-ro,noinit_itable")
    }

    fn unmount(&mut self) -> io::Result<()> {
        // A process that is just being started may hold our files for a moment longer.
        let mut tries = 0;
        loop {
            match mount::unmount(&self.target) {
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy && tries < 50 => {
                    tries += 1;
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                result => return result,
            }
        }
    }

    fn try_use(&mut self) -> io::Result<()> {
        try_use(&self.target)
    }

    fn grow(&mut self, blocks: u64) -> io::Result<()> {
        disk::grow_ext4(&self.target, blocks)
    }

    fn rescue(&mut self) -> Vec<(String, Vec<u8>)> {
        let options = Options { read_only: true, ..Options::DATA };
        // Without replaying its journal, which may be what is broken.
        if mount::mount_at(&self.data, &self.target, "ext4", options, "noload").is_err() {
            return Vec::new();
        }
        let saved = rescue_files(&self.target);
        if let Err(e) = self.unmount() {
            log::error!("the old data partition can't be unmounted: {e}");
        }
        saved
    }

    fn restore(&mut self, files: &[(String, Vec<u8>)]) -> io::Result<()> {
        restore_files(&self.target, files)
    }

    fn recover_lost(&mut self) -> bool {
        recover_lost(&self.target)
    }

    fn has_identity(&mut self) -> bool {
        state_dir(&self.target).join(identity::FILE_NAME).exists()
    }

    fn free(&mut self) -> io::Result<u64> {
        Ok(disk::free(&self.target)?.0)
    }

    fn note(&mut self, name: &str) -> Option<String> {
        note(&self.target, name)
    }

    fn set_note(&mut self, name: &str, text: Option<&str>) -> io::Result<()> {
        set_note(&self.target, name, text)
    }

    fn say(&mut self, text: &str) {
        self.console.say(text);
    }
}

/// `/p2pmesh` of the data partition is the state directory.
fn state_dir(target: &Path) -> PathBuf {
    target.join("p2pmesh")
}

/// A note at the top of the file system.
pub(crate) fn note(target: &Path, name: &str) -> Option<String> {
    String::from_utf8(mesh_sys::file::read_limited(&target.join(name), 4096).ok()?).ok()
}

/// Writes or removes a note, and waits until that is on the card.
pub(crate) fn set_note(target: &Path, name: &str, text: Option<&str>) -> io::Result<()> {
    let path = target.join(name);
    match text {
        Some(text) => mesh_sys::file::write_atomic(&path, text.as_bytes(), 0o600),
        None => {
            fs::remove_file(path)?;
            File::open(target)?.sync_all()
        }
    }
}

/// The files that can't be replaced, with their names below the state directory.
pub(crate) fn rescue_files(target: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: &str| {
        let bytes = mesh_sys::file::read_limited(&state_dir(target).join(name), MAX_RESCUED).ok()?;
        (!bytes.is_empty()).then(|| (name.to_owned(), bytes))
    };
    RESCUED.iter().filter_map(|name| read(name)).collect()
}

/// The opposite of [`rescue_files`].
pub(crate) fn restore_files(target: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    for (name, bytes) in files {
        let path = state_dir(target).join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        mesh_sys::file::write_atomic(&path, bytes, 0o640)?;
    }
    Ok(())
}

/// A repair puts what lost its name into `lost+found`. If the identity is there, alone or with the whole state
/// directory, it comes back; true if it did.
pub(crate) fn recover_lost(target: &Path) -> bool {
    let state = state_dir(target);
    let place = state.join(identity::FILE_NAME);
    if place.exists() {
        return false;
    }
    let sound = |path: &Path| {
        mesh_sys::file::read_limited(path, 4096).ok().filter(|bytes| identity::parse(bytes).is_some())
    };
    for entry in fs::read_dir(target.join("lost+found")).into_iter().flatten().flatten().take(MAX_LOST) {
        let path = entry.path();
        let found = if path.is_dir() {
            let inside = path.join(identity::FILE_NAME);
            sound(&inside).is_some_and(|bytes| {
                // An empty or missing state directory gives way to the old one.
                let _ = fs::remove_dir(&state);
                fs::rename(&path, &state).is_ok() || put_back(&place, &bytes)
            })
        } else {
            sound(&path).is_some_and(|bytes| put_back(&place, &bytes))
        };
        if found {
            return true;
        }
    }
    false
}

fn put_back(place: &Path, bytes: &[u8]) -> bool {
    let folder = place.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).and_then(|()| mesh_sys::file::write_atomic(place, bytes, 0o640)).is_ok()
}

/// Reads the identity, if there is one, then writes and removes a file.
pub(crate) fn try_use(target: &Path) -> io::Result<()> {
    match fs::read(state_dir(target).join(identity::FILE_NAME)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let probe = target.join(".p2pmesh-probe");
    let result = (|| {
        let mut file = File::create(&probe)?;
        file.write_all(b"usable?\n")?;
        file.sync_all()
    })();
    let removed = fs::remove_file(&probe);
    match result {
        Err(e) if e.kind() == io::ErrorKind::StorageFull => Ok(()),
        Err(e) => Err(e),
        Ok(()) => removed,
    }
}

/// Runs e2fsck on `device`.
pub(crate) fn check(device: &Path, depth: Depth) -> Check {
    let mut command = Command::new("e2fsck");
    match depth {
        Depth::Preen => command.arg("-p"),
        Depth::Full => command.args(["-f", "-y"]),
        Depth::FromBackup(block) => command.args(["-f", "-y", "-B", "4096", "-b"]).arg(block.to_string()),
    };
    // e2fsck(8): 1 mended, 2 restart (only for a mounted root), 4 and 8 not mended, 16 and more: not run.
    match run(command.arg(device)) {
        Ok((0, _)) => Check::Good(false),
        Ok((code @ 1..=3, _)) => Check::Good(code & 1 != 0),
        Ok((4..=15, _)) => Check::Hopeless,
        Ok((code, text)) => Check::NotRun(format!("e2fsck ended with {code}: {text}")),
        Err(e) => Check::NotRun(format!("e2fsck: {e}")),
    }
}

/// Makes a new ext4 on `device`.
pub(crate) fn format(device: &Path) -> Result<(), String> {
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-i", "32768", "-m", "2", "-L", "p2pmesh-data"]);
    // Checksums make it safe to leave inode tables and journal unwritten: what lies there from before is
    // known to be old. Without that, formatting a large card takes minutes.
    command.args(["-O", "metadata_csum,64bit", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"]);
    let large = disk::size(device).is_ok_and(|size| size >= 512 << 20);
    if large {
        command.args(["-J", "size=16"]);
    }
    match run(command.arg(device)) {
        Ok((0, _)) => Ok(()),
        Ok((code, text)) => Err(format!("mke2fs ended with {code}: {text}")),
        Err(e) => Err(format!("mke2fs: {e}")),
    }
}

/// Runs a tool to its end; its code (−1 for a signal) and the last of what it printed.
fn run(command: &mut Command) -> io::Result<(i32, String)> {
    let output = command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()?;
    let text: Vec<u8> = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    for line in text.lines().filter(|l| !l.trim().is_empty()).take(40) {
        log::info!("{}: {line}", command.get_program().to_string_lossy());
    }
    let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default().to_owned();
    Ok((output.status.code().unwrap_or(-1), last))
}

//! The data partition, with the real e2fsprogs on files in place of a card, and power cuts at every step.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::OnceLock;

use mesh_sys::{identity, mount, process};

use super::card;
use super::data::{Check, Depth, Machine, Outcome, prepare};
use super::mbr::{self, Part, SECTOR};

const MIB: u64 = 1 << 20;
pub(super) const IDENTITY: &[u8] = b"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";
/// First byte of the data partition on the test's card.
const START: u64 = 4 * MIB;

/// What the host lacks for these tests, if anything.
pub(super) fn missing() -> Option<&'static str> {
    static ANSWER: OnceLock<Option<&'static str>> = OnceLock::new();
    *ANSWER.get_or_init(look_for_missing)
}

fn look_for_missing() -> Option<&'static str> {
    let there = |tool: &str| {
        Command::new(tool).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("-V").output().is_ok()
    };
    if !["mke2fs", "e2fsck", "debugfs"].iter().all(|t| there(t)) {
        return Some("e2fsprogs is not installed");
    }
    if !process::is_root() {
        return Some("mounting needs root");
    }
    let dir = std::env::temp_dir().join(format!("mesh-supervisor-loop-{}", std::process::id()));
    let mut card = FileCard::new(&dir, 16);
    let works = card.format().is_ok() && card.mount().is_ok();
    drop(card);
    (!works).then_some("no loop device can be mounted here")
}

macro_rules! needs_tools {
    () => {
        if let Some(why) = missing() {
            eprintln!("SKIPPED: the data partition is not tested: {why}");
            return;
        }
    };
}

/// A card in a folder: `disk` holds the table, `data` the data partition as long as the kernel was told.
pub(super) struct FileCard {
    dir: PathBuf,
    card_mib: u64,
    /// The power goes at this operation (counted from 1), after that part of it (of 256) was done.
    pub(super) cut: Option<(u32, u8)>,
    pub(super) operations: u32,
    pub(super) said: Vec<String>,
    /// The power is gone; for what else is on the card.
    pub(super) off: Rc<Cell<bool>>,
}

impl FileCard {
    fn new(dir: &Path, card_mib: u64) -> Self {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir.join("mnt")).unwrap();
        let card = Self {
            dir: dir.into(),
            card_mib,
            cut: None,
            operations: 0,
            said: Vec::new(),
            off: Rc::default(),
        };
        let sectors = |mib: u32| mib * 2048;
        let table = mbr::tests::table([
            (0x0c, sectors(1), sectors(1)),
            (0xda, sectors(2), sectors(1)),
            (0xda, sectors(3), sectors(1)),
            (0x83, sectors(4), sectors(4)),
        ]);
        fs::write(card.disk(), table).unwrap();
        File::create(card.data()).unwrap().set_len(4 * MIB).unwrap();
        card
    }

    fn disk(&self) -> PathBuf {
        self.dir.join("disk")
    }
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }
    pub(super) fn mnt(&self) -> PathBuf {
        self.dir.join("mnt")
    }

    /// Runs the preparation, with a power cut in it or to its end.
    pub(super) fn boot(&mut self, cut: Option<(u32, u8)>) -> Outcome {
        (self.cut, self.operations) = (cut, 0);
        let outcome = prepare(self);
        self.cut = None;
        outcome
    }

    /// Unmounts, if it is mounted. Another test's fork may hold a file of ours open until its exec.
    fn leave(&self) -> io::Result<()> {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            match mount::unmount(&self.mnt()) {
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy && std::time::Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                result => return result,
            }
        }
    }

    /// The data file as the card would be found after a cut at this very moment.
    pub(super) fn snapshot(&self) {
        let cut = self.dir.join("cut");
        run("cp", &["--sparse=always", &self.data().to_string_lossy(), &cut.to_string_lossy()]);
        let _ = self.leave();
        fs::rename(cut, self.data()).unwrap();
    }

    /// Counts an operation that changes the card; `None`: the power is gone before it.
    pub(super) fn power(&mut self) -> Option<Option<u8>> {
        self.operations += 1;
        let left = match self.cut {
            Some((at, _)) if self.operations > at => None,
            Some((at, part)) if self.operations == at => Some(Some(part)),
            _ => Some(None),
        };
        self.off.set(left != Some(None));
        left
    }

    fn overwrite(&self, offset: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.data()).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }

    pub(super) fn put(&self, name: &str, content: &[u8]) {
        let path = self.mnt().join("p2pmesh").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(path).unwrap();
        file.write_all(content).unwrap();
        file.sync_all().unwrap();
    }

    pub(super) fn get(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.mnt().join("p2pmesh").join(name)).ok()
    }

    fn size_mib(&self) -> u64 {
        mesh_sys::disk::free(&self.mnt()).unwrap().1 / MIB
    }
}

impl Drop for FileCard {
    fn drop(&mut self) {
        let _ = self.leave();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn gone<T>() -> io::Result<T> {
    Err(io::Error::other("the power is gone"))
}

impl Machine for FileCard {
    fn read_table(&mut self) -> io::Result<[u8; SECTOR]> {
        let mut sector = [0; SECTOR];
        File::open(self.disk())?.read_exact(&mut sector)?;
        Ok(sector)
    }
    fn card_sectors(&mut self) -> io::Result<u64> {
        Ok(self.card_mib * 2048)
    }
    fn write_table(&mut self, sector: &[u8; SECTOR]) -> io::Result<()> {
        match self.power() {
            // A sector is written whole or not at all.
            None | Some(Some(0..128)) => gone(),
            _ => fs::write(self.disk(), sector),
        }
    }
    fn announce(&mut self, part: Part) -> io::Result<()> {
        assert_eq!(part.start * 512, START);
        if self.power().is_none() {
            return gone();
        }
        OpenOptions::new().write(true).open(self.data())?.set_len(part.sectors * 512)
    }
    fn read(&mut self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.data())?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
    fn check(&mut self, depth: Depth) -> Check {
        match self.power() {
            None => Check::NotRun("the power is gone".into()),
            Some(None) => card::check(&self.data(), depth),
            Some(Some(part)) => {
                torn(&self.data(), part, |copy| drop(card::check(copy, depth)));
                Check::NotRun("the power is gone".into())
            }
        }
    }
    fn format(&mut self) -> Result<(), String> {
        match self.power() {
            None => Err("the power is gone".into()),
            Some(None) => card::format(&self.data()),
            Some(Some(part)) => {
                torn(&self.data(), part, |copy| card::format(copy).unwrap());
                Err("the power is gone".into())
            }
        }
    }
    fn mount(&mut self) -> io::Result<()> {
        if self.power().is_none() {
            return gone();
        }
        let out = Command::new("mount")
            .args(["-t", "ext4", "-o", "loop,errors=remount-ro"])
            .args([self.data(), self.mnt()])
            .output()?;
        // mount(8) tells what the kernel said only in words.
        if out.status.success() { Ok(()) } else { Err(io::Error::from_raw_os_error(22)) }
    }
    fn unmount(&mut self) -> io::Result<()> {
        self.leave()
    }
    fn try_use(&mut self) -> io::Result<()> {
        if self.power().is_none() {
            return gone();
        }
        card::try_use(&self.mnt())
    }
    fn grow(&mut self, blocks: u64) -> io::Result<()> {
        if self.power().is_none() {
            return gone();
        }
        match mesh_sys::disk::grow_ext4(&self.mnt(), blocks) {
            // Root in a container may mount and not grow; the tool needs no capability.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("growing a mounted file system needs CAP_SYS_RESOURCE; done by resize2fs instead");
                self.unmount()?;
                run("e2fsck", &["-f", "-p", &self.data().to_string_lossy()]);
                run("resize2fs", &[&self.data().to_string_lossy()]);
                self.operations -= 1;
                self.mount()
            }
            result => result,
        }
    }
    fn rescue(&mut self) -> Vec<(String, Vec<u8>)> {
        let mounted = Command::new("mount")
            .args(["-t", "ext4", "-o", "loop,ro,noload"])
            .args([self.data(), self.mnt()])
            .output();
        if !mounted.is_ok_and(|o| o.status.success()) {
            return Vec::new();
        }
        let files = card::rescue_files(&self.mnt());
        self.unmount().unwrap();
        files
    }
    fn restore(&mut self, files: &[(String, Vec<u8>)]) -> io::Result<()> {
        if self.power().is_none() {
            return gone();
        }
        card::restore_files(&self.mnt(), files)
    }
    fn recover_lost(&mut self) -> bool {
        self.power().is_some() && card::recover_lost(&self.mnt())
    }
    fn has_identity(&mut self) -> bool {
        self.get(identity::FILE_NAME).is_some()
    }
    fn free(&mut self) -> io::Result<u64> {
        Ok(mesh_sys::disk::free(&self.mnt())?.0)
    }
    fn note(&mut self, name: &str) -> Option<String> {
        card::note(&self.mnt(), name)
    }
    fn set_note(&mut self, name: &str, text: Option<&str>) -> io::Result<()> {
        if self.power().is_none() {
            return gone();
        }
        card::set_note(&self.mnt(), name, text)
    }
    fn say(&mut self, text: &str) {
        self.said.push(text.into());
    }
}

/// Does `work` on a copy of `file`, then takes over only about `part`/256 of the blocks that it changed,
/// in no order: what a card keeps of a tool's writes that were never flushed.
fn torn(file: &Path, part: u8, work: impl FnOnce(&Path)) {
    let copy = file.with_extension("torn");
    run("cp", &["--sparse=always", &file.to_string_lossy(), &copy.to_string_lossy()]);
    work(&copy);
    let (old, new) = (fs::read(file).unwrap(), fs::read(&copy).unwrap());
    let target = OpenOptions::new().write(true).open(file).unwrap();
    let mut random = 0x1234_5678_9abc_def1u64 ^ u64::from(part);
    for (i, (before, after)) in old.chunks(4096).zip(new.chunks(4096)).enumerate() {
        if before != after {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (random >> 56) as u8 <= part {
                target.write_all_at(after, i as u64 * 4096).unwrap();
            }
        }
    }
    fs::remove_file(copy).unwrap();
}

fn dir(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("mesh-supervisor-card-{name}-{}", std::process::id()))
}

/// A card that has been in use, unmounted.
pub(super) fn used(name: &str, card_mib: u64) -> FileCard {
    let mut card = FileCard::new(&dir(name), card_mib);
    assert_eq!(card.boot(None), Outcome { mounted: true, problems: vec![] });
    card.put(identity::FILE_NAME, IDENTITY);
    card.put("mesh-store/block", &[7; 100_000]);
    card.unmount().unwrap();
    card
}

#[test]
fn first_boot_formats_and_later_ones_do_not() {
    needs_tools!();
    let mut card = used("first", 68);
    assert!(card.said.iter().any(|s| s.contains("gets 64 MiB")), "{:?}", card.said);
    for _ in 0..3 {
        card.said.clear();
        assert_eq!(card.boot(None), Outcome { mounted: true, problems: vec![] });
        assert_eq!(card.get(identity::FILE_NAME).as_deref(), Some(IDENTITY));
        assert_eq!(card.said, Vec::<String>::new());
        card.snapshot(); // the plug, every time
    }
    card.boot(None);
    assert!(card.size_mib() > 55, "{}", card.size_mib());
}

#[test]
fn a_copy_on_a_larger_card_is_grown() {
    needs_tools!();
    let mut card = used("larger", 68);
    card.card_mib = 204;
    assert_eq!(card.boot(None), Outcome { mounted: true, problems: vec![] });
    assert!(card.size_mib() > 180, "{}", card.size_mib());
    assert_eq!(card.get("mesh-store/block").map(|b| b.len()), Some(100_000));
}

#[test]
fn a_copy_on_a_smaller_card_is_formatted_and_says_so() {
    needs_tools!();
    let mut card = used("smaller", 204);
    card.card_mib = 68;
    let outcome = card.boot(None);
    assert!(outcome.mounted);
    assert!(outcome.problems.iter().any(|p| p.contains("beyond repair")), "{outcome:?}");
}

#[test]
fn rubbish_is_formatted_and_says_so() {
    needs_tools!();
    for (i, rubbish) in [vec![0x5a; 3 << 20], b"FAT, perhaps".to_vec()].into_iter().enumerate() {
        let mut card = FileCard::new(&dir(&format!("rubbish{i}")), 68);
        card.overwrite(0, &rubbish);
        let outcome = card.boot(None);
        assert!(outcome.mounted && outcome.problems.len() == 1, "{outcome:?}");
        assert!(outcome.problems[0].contains("it was formatted"), "{outcome:?}");
        card.unmount().unwrap();
        assert_eq!(card.boot(None), Outcome { mounted: true, problems: vec![] });
    }
}

type Damage = fn(&FileCard);

#[test]
fn a_damaged_file_system_is_repaired_and_keeps_what_is_good() {
    needs_tools!();
    // The kernel found a mistake while it was in use; an inode table block was overwritten; the first block
    // was overwritten; the journal was.
    let damages: [(&str, Damage); 6] = [
        // What has no name any more is found again: the folder, or the file alone.
        ("root", |c| drop(run("debugfs", &["-w", "-R", "clri <2>", &c.data().to_string_lossy()]))),
        ("folder", |c| drop(run("debugfs", &["-w", "-R", "clri p2pmesh", &c.data().to_string_lossy()]))),
        ("flagged", |c| drop(run("debugfs", &["-w", "-R", "ssv state 3", &c.data().to_string_lossy()]))),
        ("bitmaps", |c| {
            let text = run("debugfs", &["-R", "stats", &c.data().to_string_lossy()]);
            let at = text.split("block bitmap at ").nth(1).and_then(|t| t.split([',', ' ']).next()).unwrap();
            c.overwrite(at.parse::<u64>().unwrap() * 4096, &[0xa5; 4096]);
        }),
        ("start", |c| c.overwrite(0, &[0xa5; 4096])),
        ("journal", |c| {
            let text = run("debugfs", &["-R", "blocks <8>", &c.data().to_string_lossy()]);
            let at = text.split_whitespace().next().unwrap().parse::<u64>().unwrap();
            c.overwrite(at * 4096, &[0xa5; 4096]);
        }),
    ];
    for (name, damage) in damages {
        let mut card = used(name, 204);
        damage(&card);
        let outcome = card.boot(None);
        assert!(outcome.mounted, "{name}: {outcome:?} {:?}", card.said);
        assert_eq!(card.get(identity::FILE_NAME).as_deref(), Some(IDENTITY), "{name}: {outcome:?}");
        card.unmount().unwrap();
        assert_eq!(card.boot(None), Outcome { mounted: true, problems: vec![] }, "{name}: only once");
    }
}

#[test]
fn a_full_partition_is_mounted_and_says_so() {
    needs_tools!();
    let mut card = used("full", 36);
    card.boot(None);
    let mut file = File::create(card.mnt().join("big")).unwrap();
    while file.write_all(&[1; 65_536]).is_ok() {}
    drop(file);
    card.unmount().unwrap();
    let outcome = card.boot(None);
    assert!(outcome.mounted && outcome.problems.len() == 1, "{outcome:?}");
    assert!(outcome.problems[0].contains("is full"), "{outcome:?}");
}

#[test]
fn a_card_that_can_not_be_written_is_not_formatted() {
    needs_tools!();
    let mut card = used("readonly", 68);
    // The power is gone at the first operation: everything fails, nothing is changed.
    let before = fs::read(card.data()).unwrap();
    let outcome = card.boot(Some((0, 0)));
    assert!(!outcome.mounted && outcome.problems.iter().any(|p| p.starts_with("no data partition")));
    assert_eq!(fs::read(card.data()).unwrap(), before);
}

/// Cuts the power in every operation, at several depths; the next boot must always succeed, and what was
/// there before must still be there.
fn cut_everywhere(name: &str, make: impl Fn() -> FileCard, keeps: bool) {
    for at in 1..40 {
        let mut finished = 0;
        for part in [0, 100, 180, 255] {
            let mut card = make();
            card.boot(Some((at, part)));
            finished += u32::from(card.operations < at);
            card.snapshot();
            for boot in 0..2 {
                let outcome = card.boot(None);
                let what = format!("{name}: cut {at}/{part}, boot {boot}: {outcome:?} {:?}", card.said);
                assert!(outcome.mounted, "{what}");
                if keeps {
                    assert_eq!(card.get(identity::FILE_NAME).as_deref(), Some(IDENTITY), "{what}");
                }
                assert!(card.size_mib() > 50, "{what}: {} MiB", card.size_mib());
                card.snapshot();
            }
        }
        if finished == 4 {
            assert!(at > 3, "{name}: only {at} operations");
            return; // every operation was cut
        }
    }
    panic!("{name}: it never comes to an end");
}

#[test]
fn power_cuts_on_the_first_boot() {
    needs_tools!();
    cut_everywhere("first", || FileCard::new(&dir("cut-first"), 68), false);
}

#[test]
fn power_cuts_while_rubbish_is_formatted() {
    needs_tools!();
    let make = || {
        let card = FileCard::new(&dir("cut-rubbish"), 68);
        card.overwrite(0, &vec![0x5a; 3 << 20]);
        card
    };
    cut_everywhere("rubbish", make, false);
}

#[test]
fn power_cuts_while_a_file_system_is_grown() {
    needs_tools!();
    let make = || {
        let mut card = used("cut-grow", 68);
        card.card_mib = 132;
        card
    };
    cut_everywhere("grow", make, true);
}

#[test]
fn power_cuts_while_a_damaged_file_system_is_repaired() {
    needs_tools!();
    let make = || {
        let card = used("cut-repair", 68);
        run("debugfs", &["-w", "-R", "ssv state 3", &card.data().to_string_lossy()]);
        card
    };
    cut_everywhere("repair", make, true);
}

//! The data partition, from whatever is on the card to a usable file system.
//!
//! Every step may be the last one before a power cut; the next boot starts from what it finds, so that no
//! step needs to know how far the last boot came. What is good is never formatted: an ext4 is checked, then
//! repaired, and only when nothing can mount it is it given up, after the few files that can't be replaced
//! were read out of it.

use std::io;

use super::ext4::{self, Found, Superblock};
use super::mbr::{self, Part, Plan};

/// Less free space than this (in bytes) is said.
const LOW: u64 = 8 << 20;

/// How a check of the file system ended.
#[derive(Debug)]
pub(crate) enum Check {
    /// It is good, or good again; true if something was mended.
    Good(bool),
    /// It can't be mended.
    Hopeless,
    /// The check itself could not run.
    NotRun(String),
}

/// How thorough a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Only what is safe without asking.
    Preen,
    /// Whatever it takes.
    Full,
    /// The same, with the copy of the superblock in that block.
    FromBackup(u64),
}

/// The card and the tools; a test puts a file in its place.
pub(crate) trait Machine {
    fn read_table(&mut self) -> io::Result<[u8; mbr::SECTOR]>;
    fn card_sectors(&mut self) -> io::Result<u64>;
    /// Writes the table's sector and waits until it is on the card.
    fn write_table(&mut self, sector: &[u8; mbr::SECTOR]) -> io::Result<()>;
    /// Makes the kernel see the data partition as in the table.
    fn announce(&mut self, part: Part) -> io::Result<()>;
    /// Reads `length` bytes of the data partition; fewer at its end.
    fn read(&mut self, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    fn check(&mut self, depth: Depth) -> Check;
    fn format(&mut self) -> Result<(), String>;
    fn mount(&mut self) -> io::Result<()>;
    fn unmount(&mut self) -> io::Result<()>;
    /// Writes and removes a file on the mounted file system. A full one is usable.
    fn try_use(&mut self) -> io::Result<()>;
    /// Grows the mounted file system to that many blocks.
    fn grow(&mut self, blocks: u64) -> io::Result<()>;
    /// Reads the files that can't be replaced out of a file system that can't be used any more.
    fn rescue(&mut self) -> Vec<(String, Vec<u8>)>;
    /// Puts them into the new one.
    fn restore(&mut self, files: &[(String, Vec<u8>)]) -> io::Result<()>;
    /// Looks for the identity among what a repair found without a name.
    fn recover_lost(&mut self) -> bool;
    /// The mounted file system holds the node's identity.
    fn has_identity(&mut self) -> bool;
    /// Free bytes of the mounted file system.
    fn free(&mut self) -> io::Result<u64>;
    /// A note at the top of the mounted file system.
    fn note(&mut self, name: &str) -> Option<String>;
    /// Writes or removes one, and waits until that is on the card.
    fn set_note(&mut self, name: &str, text: Option<&str>) -> io::Result<()>;
    /// Tells the person at the console.
    fn say(&mut self, text: &str);
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The data partition is mounted.
    pub(crate) mounted: bool,
    /// What a person should know.
    pub(crate) problems: Vec<String>,
}

/// Brings the data partition up. Never fails: without one the node runs on memory, and says so.
pub(crate) fn prepare(machine: &mut dyn Machine) -> Outcome {
    let mut problems = Vec::new();
    let result = Preparation { machine, problems: &mut problems }.run();
    if let Err(why) = &result {
        problems.push(format!(
            "no data partition: {why}. What this node learns and stores now is lost when it goes off."
        ));
    }
    for problem in &problems {
        machine.say(problem);
    }
    Outcome { mounted: result.is_ok(), problems }
}

/// Makes the data partition anew, whatever is on it; of its files only `kept` stay (as far as they can be read).
/// `before` is how [`prepare`] ended: where that found no partition at all, nothing can be made.
pub(crate) fn make_anew(machine: &mut dyn Machine, before: Outcome, kept: &[&str]) -> Outcome {
    if before.mounted
        && let Err(e) = machine.unmount()
    {
        let mut outcome = before;
        outcome.problems.push(format!("the data partition can't be unmounted: {e}; the node was not reset"));
        return outcome;
    }
    let mut problems = Vec::new();
    let mut files = machine.rescue();
    files.retain(|(name, _)| kept.contains(&name.as_str()));
    let result = Preparation { machine, problems: &mut problems }.anew(&files);
    if let Err(why) = &result {
        problems.push(format!(
            "no data partition after the factory reset: {why}. What this node learns and stores now is lost when it goes off."
        ));
    }
    for problem in &problems {
        machine.say(problem);
    }
    Outcome { mounted: result.is_ok(), problems }
}

/// Why a file system can't be used.
struct MountFailure {
    why: String,
    /// What is on the card is at fault, not the kernel or the card itself.
    content: bool,
}

/// EINVAL: no such superblock; EUCLEAN and EBADMSG: found damage; EROFS and EIO: so the kernel answers after
/// it has found damage in use.
fn blames_content(e: &io::Error) -> bool {
    const EUCLEAN: i32 = 117;
    const EBADMSG: i32 = 74;
    const EINVAL: i32 = 22;
    const EROFS: i32 = 30;
    const EIO: i32 = 5;
    matches!(e.raw_os_error(), Some(EUCLEAN | EBADMSG | EINVAL | EROFS | EIO))
}

struct Preparation<'a> {
    machine: &'a mut dyn Machine,
    problems: &'a mut Vec<String>,
}

impl Preparation<'_> {
    fn run(mut self) -> Result<(), String> {
        let part = self.partition()?;
        let superblock = self.file_system(part)?;
        let blocks = part.sectors * 512 / superblock.block_size;
        // A rest smaller than a block group may not be usable at all.
        if blocks > superblock.blocks + (16 << 20) / superblock.block_size {
            match self.machine.grow(blocks) {
                Ok(()) => self.machine.say("the data file system was grown to the size of the card"),
                Err(e) => self.problems.push(format!(
                    "the data file system could not be grown to the size of the card: {e}; it works as it is"
                )),
            }
        }
        match self.machine.free() {
            Ok(free) if free < LOW => self.problems.push(format!(
                "the data partition is full ({} KiB free): new content and logs are refused; remove some content",
                free >> 10
            )),
            Ok(_) => {}
            Err(e) => self.problems.push(format!("the data partition's free space is unknown: {e}")),
        }
        Ok(())
    }

    /// A new file system, with these files.
    fn anew(mut self, files: &[(String, Vec<u8>)]) -> Result<(), String> {
        self.partition()?;
        self.make_new(files).map(drop)
    }

    /// The table is right and the kernel knows it.
    fn partition(&mut self) -> Result<Part, String> {
        let table = self.machine.read_table().map_err(|e| format!("the card can't be read: {e}"))?;
        let card = self.machine.card_sectors().map_err(|e| format!("the card's size is unknown: {e}"))?;
        let part = match mbr::plan(&table, card) {
            Plan::Keep(part) => part,
            Plan::Refuse(why) => return Err(why.to_string()),
            Plan::Write(sector, part) => {
                self.machine.say(&format!("the data partition gets {} MiB", part.sectors >> 11));
                self.machine.write_table(&sector).map_err(|e| {
                    format!("the partition table can't be written: {e}; is the card read-only?")
                })?;
                part
            }
        };
        self.machine
            .announce(part)
            .map_err(|e| format!("the kernel does not take the new partition: {e}"))?;
        Ok(part)
    }

    /// A mounted and usable file system, whatever it takes.
    fn file_system(&mut self, part: Part) -> Result<Superblock, String> {
        // An ext4 shows in its first blocks; only where there is none, more is looked at.
        let mut found = ext4::probe(&self.read(0, 4096)?);
        if !matches!(found, Found::Ext4(_)) {
            found = ext4::probe(&self.read(0, ext4::HEAD)?);
        }
        let rescued = match found {
            Found::Blank => Vec::new(),
            Found::Ext4(superblock) => match self.existing(superblock, part)? {
                Some(usable) => return Ok(usable),
                None => self.give_up_old(),
            },
            Found::Other => {
                if let Some(usable) = self.take_backup(part)? {
                    return Ok(usable);
                }
                self.problems.push(
                    "the data partition held nothing that a node can use; it was formatted. \
                     The node starts with a new identity, new addresses and without content"
                        .into(),
                );
                Vec::new()
            }
        };
        self.make_new(&rescued)
    }

    fn read(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        // A card that can't be read may still be good: it is never formatted for that.
        self.machine
            .read(offset, length)
            .map_err(|e| format!("the data partition can't be read: {e}; the card may be failing"))
    }

    /// Mounts an ext4 that is there, mended if need be; `None`: nothing helps.
    fn existing(&mut self, superblock: Superblock, part: Part) -> Result<Option<Superblock>, String> {
        let fits = superblock.blocks.saturating_mul(superblock.block_size) <= part.sectors * 512;
        let mut depth = Depth::Preen;
        // Checked only when something says that it is damaged: a check of a large card takes long.
        if !superblock.damaged && fits {
            match self.try_mount() {
                Ok(()) => return Ok(Some(superblock)),
                Err(failure) if !failure.content => return Err(failure.why),
                Err(failure) => {
                    log::warn!("the data file system: {}", failure.why);
                    depth = Depth::Full;
                }
            }
        }
        loop {
            if depth == Depth::Full {
                self.machine
                    .say("the data file system is damaged; it is being repaired, which may take minutes");
            }
            match self.machine.check(depth) {
                Check::Good(mended) => match self.try_mount() {
                    Ok(()) => return self.repaired(mended).map(Some),
                    Err(failure) if !failure.content => return Err(failure.why),
                    Err(failure) => log::error!("the data file system, checked: {}", failure.why),
                },
                Check::Hopeless => {}
                // Not to be formatted for want of a tool.
                Check::NotRun(why) => {
                    return Err(format!("its file system is damaged and can't be checked: {why}"));
                }
            }
            depth = match depth {
                Depth::Preen => Depth::Full,
                Depth::Full => Depth::FromBackup(ext4::BACKUPS[0]),
                Depth::FromBackup(_) => return Ok(None),
            };
        }
    }

    fn repaired(&mut self, mended: bool) -> Result<Superblock, String> {
        if mended {
            let identity = if self.machine.has_identity() || self.machine.recover_lost() {
                "The node's identity is safe; content that was lost is fetched again from other nodes when it \
                 is asked for"
            } else {
                "The node's identity was lost: it gets a new one, with new addresses"
            };
            self.problems.push(format!("the data file system was damaged and has been repaired. {identity}"));
        }
        self.mounted_superblock()
    }

    /// An ext4 whose first blocks were overwritten comes back by a copy of its superblock.
    fn take_backup(&mut self, part: Part) -> Result<Option<Superblock>, String> {
        for block in ext4::BACKUPS {
            let at = block * ext4::BLOCK;
            if at + ext4::BLOCK > part.sectors * 512 {
                break;
            }
            let copy = self.read(at, 1024)?;
            if ext4::superblock(&copy).is_none_or(|s| s.block_size != ext4::BLOCK) {
                continue;
            }
            self.machine.say("the start of the data partition is damaged; it is being repaired from a copy");
            match self.machine.check(Depth::FromBackup(block)) {
                Check::Good(_) if self.try_mount().is_ok() => return self.repaired(true).map(Some),
                Check::NotRun(why) => {
                    return Err(format!("its start is damaged and can't be repaired: {why}"));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn mounted_superblock(&mut self) -> Result<Superblock, String> {
        let head = self.read(0, 2048)?;
        head.get(1024..).and_then(ext4::superblock).ok_or_else(|| "its superblock can't be read".into())
    }

    /// Mounted and really usable.
    fn try_mount(&mut self) -> Result<(), MountFailure> {
        let told = |what: &str, e: io::Error| MountFailure {
            content: blames_content(&e),
            why: format!("{what}: {e}"),
        };
        self.machine.mount().map_err(|e| told("mount", e))?;
        let used = self.machine.try_use();
        let Err(e) = used else { return Ok(()) };
        if let Err(stuck) = self.machine.unmount() {
            log::error!("the data partition can't be unmounted: {stuck}");
        }
        Err(told("writing to it", e))
    }

    fn give_up_old(&mut self) -> Vec<(String, Vec<u8>)> {
        let rescued = self.machine.rescue();
        let kept = if rescued.iter().any(|(name, _)| name == mesh_sys::identity::FILE_NAME) {
            "Its identity was saved, its content is lost"
        } else {
            "Its identity and content are lost; it gets a new identity, with new addresses"
        };
        self.problems
            .push(format!("the data partition was damaged beyond repair and has been formatted. {kept}"));
        rescued
    }

    fn make_new(&mut self, rescued: &[(String, Vec<u8>)]) -> Result<Superblock, String> {
        self.machine.say("the data partition is being formatted");
        self.machine.format().map_err(|e| format!("it can't be formatted: {e}"))?;
        self.try_mount().map_err(|e| {
            format!("freshly formatted, it can't be used: {}; the card may be failing", e.why)
        })?;
        if let Err(e) = self.machine.restore(rescued) {
            self.problems
                .push(format!("what was saved from the old data partition could not be put back: {e}"));
        }
        self.mounted_superblock()
    }
}

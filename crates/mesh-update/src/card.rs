//! The card's slots: what is in them, and every change to the boot state.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use mesh_ipc::update as ipc;
use update_core::{
    BootState, Copies, Copy, MAX_TRIES, Partition, SectorError, Slot, SlotHeader, parse_mbr, partition_of,
    read_copies,
};

use crate::disk::Disk;

/// The card this system runs from.
pub(crate) struct Card {
    path: PathBuf,
    disk: Disk,
    running: Slot,
    partitions: [Option<Partition>; 4],
    copies: Copies,
    /// What was wrong with the boot state when the service started; it stays worth knowing after repair.
    found: Vec<String>,
}

/// Why the boot state could not be read or changed.
#[derive(Debug)]
pub(crate) enum CardError {
    /// The card or one of its sectors.
    Io(PathBuf, io::Error),
    /// There is nothing to go back to.
    Rollback(update_core::RollbackError),
    /// The values don't fit a sector; can't happen with values of ours.
    Encode(SectorError),
}

impl fmt::Display for CardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, e) => write!(
                f,
                "the boot state on {} can't be read or written: {e}; the running system goes on, but the next start \
                 may fall back to the other slot; check the rights of the user mesh-update, else replace the card",
                path.display()
            ),
            Self::Rollback(e) => write!(f, "{e}"),
            Self::Encode(e) => write!(f, "the boot state was not written: {e}"),
        }
    }
}

impl std::error::Error for CardError {}

impl Card {
    pub(crate) fn open(path: &Path, running: Slot) -> Result<Self, CardError> {
        let bad = |e| CardError::Io(path.to_path_buf(), e);
        let disk = Disk::open(path).map_err(bad)?;
        let partitions = parse_mbr(&disk.read(0).map_err(bad)?);
        let copies = read_state(&disk).map_err(bad)?;
        let found = describe(&copies, running);
        Ok(Self { path: path.to_path_buf(), disk, running, partitions, copies, found })
    }

    /// The running slot has all its tries.
    pub(crate) fn confirmed(&self) -> bool {
        self.copies.state.is_confirmed(self.running)
    }

    /// What a person should know about the boot state.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut list = self.found.clone();
        let other = self.running.other();
        if self.copies.state.left(other) == 0 && self.header(other).is_ok() {
            list.push(format!(
                "slot {other} has no tries left: its system did not prove good or is damaged; \
                 install a system there, or try it once more with meshctl update rollback"
            ));
        }
        list
    }

    /// Gives the running slot all its tries again.
    pub(crate) fn confirm(&mut self) -> Result<String, CardError> {
        let running = self.running;
        if self.confirmed() {
            return Ok(format!("slot {running} is confirmed already"));
        }
        self.change(|state| Ok(state.confirmed(running)))?;
        Ok(format!("slot {running} is confirmed: it has {MAX_TRIES} tries again"))
    }

    /// Makes the other slot the first choice.
    pub(crate) fn rollback(&mut self) -> Result<String, CardError> {
        let (running, other) = (self.running, self.running.other());
        let valid = self.header(other).is_ok();
        self.change(|state| state.rolled_back(running, valid).map_err(CardError::Rollback))?;
        Ok(format!(
            "the next boot starts slot {other}; restart the node when it suits (slot {running} stays as fallback)"
        ))
    }

    /// Where an installation writes.
    pub(crate) const fn disk(&mut self) -> &mut Disk {
        &mut self.disk
    }

    /// Reads the boot state anew, after an installation.
    pub(crate) fn refresh(&mut self) {
        if let Ok(copies) = read_state(&self.disk) {
            self.copies = copies;
        }
        self.disk.rest();
    }

    /// The slot that runs.
    pub(crate) const fn running(&self) -> Slot {
        self.running
    }

    /// The other slot would boot: it holds a system and has tries left.
    pub(crate) fn other_boots(&self) -> bool {
        let other = self.running.other();
        self.copies.state.left(other) > 0 && self.header(other).is_ok()
    }

    /// The other slot holds a system that was installed and not tried yet.
    pub(crate) fn other_waits(&self) -> bool {
        let other = self.running.other();
        let first = self.copies.state.order.first() == Some(&other);
        first && self.copies.state.left(other) == MAX_TRIES && self.header(other).is_ok()
    }

    /// Release and floor of the running system.
    pub(crate) fn release(&self) -> (u64, u64) {
        self.header(self.running).map_or((0, 0), |h| (h.release, h.floor))
    }

    /// Release in the other slot; 0 without one.
    pub(crate) fn other_release(&self) -> u64 {
        self.header(self.running.other()).map_or(0, |h| h.release)
    }

    /// Version of the running system.
    pub(crate) fn version(&self) -> String {
        self.header(self.running).map(|h| h.version).unwrap_or_default()
    }

    /// Where the slots lie; `None` on a card without them.
    pub(crate) fn partitions(&self) -> Option<[Partition; 2]> {
        let of = |slot| self.partitions.get(partition_of(slot) - 1).copied().flatten();
        Some([of(Slot::A)?, of(Slot::B)?])
    }

    /// Both slots as meshctl shows them.
    pub(crate) fn slots(&self) -> ipc::Slots {
        let slot = |s: Slot| {
            let header = self.header(s).unwrap_or_default();
            ipc::Slot {
                name: s.to_string(),
                version: header.version,
                release: header.release,
                tries_left: self.copies.state.left(s),
            }
        };
        ipc::Slots {
            running: self.running.to_string(),
            slots: vec![slot(Slot::A), slot(Slot::B)],
            order: self.copies.state.order_text(),
            confirmed: self.confirmed(),
            ..ipc::Slots::default()
        }
    }

    fn header(&self, slot: Slot) -> Result<SlotHeader, String> {
        let index = partition_of(slot) - 1;
        let partition = self.partitions.get(index).copied().flatten().ok_or("there is no such partition")?;
        let sector = self.disk.read(partition.start.into()).map_err(|e| e.to_string())?;
        let header = SlotHeader::parse(&sector).map_err(|e| e.to_string())?;
        if header.sectors() > partition.sectors.into() {
            return Err("it is longer than its partition".into());
        }
        Ok(header)
    }

    /// Reads both copies anew, changes the state, and writes it over the older copy.
    fn change(&mut self, f: impl FnOnce(BootState) -> Result<BootState, CardError>) -> Result<(), CardError> {
        let bad = |e| CardError::Io(self.path.clone(), e);
        let before = read_state(&self.disk).map_err(bad)?;
        let sector = f(before.state)?.encode().map_err(CardError::Encode)?;
        let written = self.disk.write(before.write_to.lba(), &sector);
        self.copies = read_state(&self.disk).map_err(bad)?;
        written.map_err(bad)
    }
}

fn read_state(disk: &Disk) -> io::Result<Copies> {
    // A sector that can't be read at all counts like a damaged one.
    let read = |copy: Copy| {
        disk.read(copy.lba()).or_else(|e| match e.raw_os_error() {
            Some(code) if code == rustix::io::Errno::IO.raw_os_error() => Ok([0xff; update_core::SECTOR]),
            _ => Err(e),
        })
    };
    Ok(read_copies(&read(Copy::First)?, &read(Copy::Second)?))
}

/// What the state at start tells about the past.
fn describe(copies: &Copies, running: Slot) -> Vec<String> {
    let mut list = Vec::new();
    let damaged = |c: &update_core::CopyState| matches!(c, Err(e) if *e != SectorError::Empty);
    let count = copies.copies.iter().filter(|c| damaged(c)).count();
    match count {
        0 => {}
        // The script writes one copy before anything of a slot runs: if that is its first, it had none.
        1 if copies.state.seq > 1 => {
            list.push("one of the two boot-state copies was damaged; it is written anew".into());
        }
        _ => list.push(
            "both boot-state copies were damaged: the node started from the defaults (slot A first); they are written anew"
                .into(),
        ),
    }
    if copies.state.order.first().is_some_and(|first| *first != running) {
        list.push(format!(
            "slot {} was to start and did not; this is its fallback, slot {running}",
            running.other()
        ));
    }
    list
}

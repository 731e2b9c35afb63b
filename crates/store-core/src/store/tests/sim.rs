//! A disk in memory: what was not synced is kept, lost or spoilt when its power is cut.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::disk::{Disk, DiskError};

/// splitmix64.
#[derive(Clone, Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// What the medium writes at once; when it is cut off meanwhile, anything may be there.
const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// A file's bytes as the system sees them and as the medium has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) now: Vec<u8>,
    synced: Vec<u8>,
    /// Pages written since the last sync.
    dirty: BTreeSet<usize>,
}

impl Inode {
    pub(super) fn settled(bytes: Vec<u8>) -> Self {
        Self { now: bytes.clone(), synced: bytes, dirty: BTreeSet::new() }
    }

    /// What is left of it after a power cut.
    fn after_cut(&self, rng: &mut Rng) -> Self {
        let (old, new) = (self.synced.len(), self.now.len());
        let size = match rng.below(3) {
            0 => old,
            1 => new,
            _ => old.min(new) + rng.below((old.abs_diff(new) + 1) as u64) as usize,
        };
        let mut kept = vec![0; size];
        let copy = |kept: &mut [u8], from: &[u8], start: usize, end: usize| {
            let end = end.min(kept.len()).min(from.len());
            if start < end {
                kept[start..end].copy_from_slice(&from[start..end]);
            }
        };
        copy(&mut kept, &self.synced, 0, size);
        for page in &self.dirty {
            let (start, end) = (page * PAGE, (page + 1) * PAGE);
            match rng.below(8) {
                0..3 => copy(&mut kept, &self.now, start, end),
                3..6 => {}
                6 => {
                    for sector in (start..end).step_by(SECTOR) {
                        if rng.below(2) == 0 {
                            copy(&mut kept, &self.now, sector, sector + SECTOR);
                        }
                    }
                }
                _ => {
                    let last = end.min(size);
                    kept.iter_mut().take(last).skip(start).for_each(|byte| *byte = rng.next() as u8);
                }
            }
        }
        Self::settled(kept)
    }
}

#[derive(Debug, Default)]
pub(super) struct Medium {
    pub(super) files: Vec<Inode>,
    /// Names as the system sees them, and as the medium has them.
    pub(super) names: BTreeMap<u32, usize>,
    synced_names: BTreeMap<u32, usize>,
    pub(super) capacity: u64,
    pub(super) fail_sync: bool,
    /// Operations until the power fails.
    pub(super) power: Option<u64>,
    /// Writes until one finds the disk full.
    pub(super) full_in: Option<u64>,
    pub(super) written: u64,
    pub(super) read: u64,
}

impl Medium {
    fn used(&self) -> u64 {
        self.names.values().map(|at| self.files[*at].now.len() as u64).sum()
    }

    fn file(&mut self, segment: u32) -> &mut Inode {
        let at = self.names[&segment];
        &mut self.files[at]
    }

    /// Whether the power is still there for one more change.
    fn change(&mut self) -> Result<(), DiskError> {
        match &mut self.power {
            Some(0) => Err(DiskError::Failed(5)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// A disk shared with the test, which may cut its power.
#[derive(Clone, Debug, Default)]
pub(super) struct SimDisk(pub(super) Rc<RefCell<Medium>>);

impl SimDisk {
    pub(super) fn new(capacity: u64) -> Self {
        let disk = Self::default();
        disk.0.borrow_mut().capacity = capacity;
        disk
    }

    /// A disk on which these segments lie.
    pub(super) fn with(segments: &[(u32, Vec<u8>)]) -> Self {
        let disk = Self::new(u64::MAX);
        let mut medium = disk.0.borrow_mut();
        for (number, bytes) in segments {
            let at = medium.files.len();
            medium.files.push(Inode::settled(bytes.clone()));
            medium.names.insert(*number, at);
            medium.synced_names.insert(*number, at);
        }
        drop(medium);
        disk
    }

    /// What was not synced is kept, lost or spoilt, as the dice say.
    pub(super) fn cut_power(&self, rng: &mut Rng) {
        let mut medium = self.0.borrow_mut();
        let numbers: BTreeSet<u32> = medium.names.keys().chain(medium.synced_names.keys()).copied().collect();
        let mut after = Vec::new();
        for number in numbers {
            let (now, old) = (medium.names.get(&number), medium.synced_names.get(&number));
            let which = if rng.below(2) == 0 { now } else { old };
            after.extend(which.map(|at| (number, medium.files[*at].after_cut(rng))));
        }
        medium.files.clear();
        medium.names.clear();
        for (at, (number, inode)) in after.into_iter().enumerate() {
            medium.files.push(inode);
            medium.names.insert(number, at);
        }
        medium.synced_names = medium.names.clone();
        medium.power = None;
        medium.full_in = None;
    }

    /// Flips a bit on the medium.
    pub(super) fn flip(&self, segment: u32, at: usize) {
        let mut medium = self.0.borrow_mut();
        let file = medium.file(segment);
        file.now[at] ^= 0x40;
        file.synced = file.now.clone();
    }

    pub(super) fn size_of(&self, segment: u32) -> usize {
        self.0.borrow_mut().file(segment).now.len()
    }
}

impl Disk for SimDisk {
    fn list(&mut self) -> Result<Vec<u32>, DiskError> {
        Ok(self.0.borrow().names.keys().copied().collect())
    }
    fn size(&mut self, segment: u32) -> Result<u64, DiskError> {
        Ok(self.0.borrow_mut().file(segment).now.len() as u64)
    }
    fn create(&mut self, segment: u32) -> Result<(), DiskError> {
        let mut medium = self.0.borrow_mut();
        medium.change()?;
        let at = medium.files.len();
        medium.files.push(Inode::default());
        medium.names.insert(segment, at);
        Ok(())
    }
    fn read(&mut self, segment: u32, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let mut medium = self.0.borrow_mut();
        medium.read += buffer.len() as u64;
        let from = offset as usize;
        let bytes = medium.file(segment).now.get(from..from + buffer.len()).ok_or(DiskError::Failed(5))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
    fn write(&mut self, segment: u32, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut medium = self.0.borrow_mut();
        let powered = medium.change();
        let room = medium.capacity.saturating_sub(medium.used()) as usize;
        let full = match &mut medium.full_in {
            Some(0) => {
                medium.full_in = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        let file = medium.file(segment);
        let offset = offset as usize;
        let grows = (offset + bytes.len()).saturating_sub(file.now.len());
        let mut fits = bytes.len() - grows.saturating_sub(room).min(bytes.len());
        if powered.is_err() || full {
            fits = bytes.len() / 3;
        }
        file.now.resize(file.now.len().max(offset + fits), 0);
        file.now[offset..offset + fits].copy_from_slice(&bytes[..fits]);
        file.dirty.extend(offset / PAGE..(offset + fits).div_ceil(PAGE));
        medium.written += fits as u64;
        powered?;
        if fits < bytes.len() { Err(DiskError::Full) } else { Ok(()) }
    }
    fn truncate(&mut self, segment: u32, size: u64) -> Result<(), DiskError> {
        let mut medium = self.0.borrow_mut();
        medium.change()?;
        let file = medium.file(segment);
        let size = size as usize;
        if !size.is_multiple_of(PAGE) && size < file.now.len() {
            // the system writes zeros behind the new end
            file.dirty.insert(size / PAGE);
        }
        file.now.truncate(size);
        Ok(())
    }
    fn sync(&mut self, segment: u32) -> Result<(), DiskError> {
        let mut medium = self.0.borrow_mut();
        medium.change()?;
        if medium.fail_sync {
            return Err(DiskError::Failed(5));
        }
        let file = medium.file(segment);
        file.synced = file.now.clone();
        file.dirty.clear();
        medium.synced_names = medium.names.clone();
        Ok(())
    }
    fn remove(&mut self, segment: u32) -> Result<(), DiskError> {
        let mut medium = self.0.borrow_mut();
        medium.change()?;
        medium.names.remove(&segment);
        Ok(())
    }
}

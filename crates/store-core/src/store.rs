//! The store: index and pins in memory, the log on the disk.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use content_id::{Block, Cid, Multihash};

use crate::disk::{Disk, DiskError};
use crate::gc::Collection;
use crate::index::{Index, Key, Place, USED, key, key_of};
use crate::listing::Naming;
use crate::log::Budget;
use crate::record::Kind;

/// The most pins; all of them fit one record.
pub const MAX_PINS: usize = 15_000;

/// Limits of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes all segments together may take.
    pub quota: u64,
    /// Bytes after which a new segment is begun; 4 MiB to 1 GiB.
    pub segment_size: u64,
    /// The most blocks; each takes about 56 bytes of memory.
    pub max_blocks: usize,
}

/// How much of a DAG a pin keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// The block only.
    Direct,
    /// The block and all below it.
    Recursive,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Blocks held.
    pub blocks: u64,
    /// Bytes of the segments.
    pub bytes: u64,
    /// Bytes they may take.
    pub quota: u64,
    /// Bytes of blocks that pins hold, as far as is known; the rest makes room when room is needed.
    pub kept: u64,
    /// Pins set.
    pub pins: u64,
    /// Blocks that did not hash to their CID when read, and were dropped.
    pub corrupt: u64,
}

/// What was found when a store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Blocks indexed.
    pub blocks: u64,
    /// Bytes cut off the end of the log: written before a power cut, never acknowledged.
    pub torn_bytes: u64,
    /// Damaged places skipped inside the log.
    pub damaged: u64,
    /// Full segments that were read record by record, since their index was missing or damaged.
    pub walked: u64,
}

/// Why the store did not do it. Nothing that was acknowledged is lost by any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The medium is full.
    DiskFull,
    /// The block would exceed the quota.
    QuotaExceeded {
        /// Bytes the store may take.
        quota: u64,
    },
    /// More blocks than the configuration allows.
    TooManyBlocks,
    /// More than [`MAX_PINS`] pins.
    TooManyPins,
    /// A block over 2 MiB.
    BlockTooLarge,
    /// A hash function blocks can't be stored under.
    UnsupportedHash,
    /// The segments are of a format that this build does not read; nothing was changed.
    OtherFormat,
    /// A sync failed earlier: what the medium holds is unknown, so nothing more is written.
    ReadOnly,
    /// The medium failed.
    Disk(DiskError),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFull => f.write_str(
                "the disk is full: nothing was stored; remove pins and collect garbage, or use a larger card",
            ),
            Self::QuotaExceeded { quota } => write!(
                f,
                "the store's quota of {} MiB is used up: nothing was stored; remove pins and collect \
                 garbage, or raise store.quota",
                quota >> 20
            ),
            Self::TooManyBlocks => f.write_str(
                "the store holds as many blocks as this node's memory allows; remove pins and collect garbage",
            ),
            Self::TooManyPins => f.write_str("too many pins: pin a directory around them instead"),
            Self::BlockTooLarge => f.write_str("a block over the limit of 2 MiB"),
            Self::UnsupportedHash => f.write_str("only blocks named by SHA2-256 can be stored"),
            Self::OtherFormat => f.write_str(
                "the blocks are in the format of another build, which this one does not read; move the folder \
                 away (a new one is made at the next start) and add the content again",
            ),
            Self::ReadOnly => f.write_str(
                "the disk failed to save data earlier; the store is read-only until the node restarts, \
                 and the card may be at its end",
            ),
            Self::Disk(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for StoreError {}

impl StoreError {
    /// Whether a collection might help.
    #[must_use]
    pub const fn is_lack_of_room(&self) -> bool {
        matches!(self, Self::DiskFull | Self::QuotaExceeded { .. } | Self::TooManyBlocks)
    }
}

impl From<DiskError> for StoreError {
    fn from(e: DiskError) -> Self {
        match e {
            DiskError::Full => Self::DiskFull,
            other => Self::Disk(other),
        }
    }
}

/// A block store over `D`.
#[derive(Debug)]
pub struct Store<D> {
    pub(crate) disk: D,
    pub(crate) config: Config,
    pub(crate) salt: u64,
    pub(crate) index: Index,
    pub(crate) pins: BTreeMap<Cid, Pin>,
    /// Bytes of [`Kind::AllPins`]' data for these pins.
    pub(crate) pin_bytes: usize,
    /// Where the records of each segment end; the last one is written to.
    pub(crate) segments: BTreeMap<u32, u64>,
    /// Bytes of the last segment that are on the medium.
    pub(crate) synced: u64,
    /// Blocks written to the last segment.
    pub(crate) entries: usize,
    /// Index and trailer of the last segment are written.
    pub(crate) sealed: bool,
    pub(crate) dirty: bool,
    pub(crate) read_only: bool,
    pub(crate) corrupt: u64,
    /// Where blocks were that have been moved since the last commit.
    pub(crate) moved: Vec<(Key, Place)>,
    pub(crate) collection: Option<Collection>,
    /// For those who want to know what collections drop.
    pub(crate) naming: Option<Naming>,
    /// Bytes of the blocks that pins held when the last collection looked,
    pub(crate) kept: Option<u64>,
    /// and of what was put since then by those who will pin it.
    pub(crate) put_for_pins: u64,
    /// A collection would not help while the segments have fewer bytes.
    pub(crate) quiet_until: u64,
    /// Bytes of the segments when sparse ones were looked for last.
    pub(crate) looked_at: u64,
    /// Those who asked that what they put and read is kept.
    users: usize,
    pub(crate) scratch: Vec<u8>,
}

impl<D: Disk> Store<D> {
    /// An empty store in memory; [`Store::open`] fills it.
    pub(crate) fn empty(disk: D, config: Config, salt: u64) -> Self {
        let segment_size = config.segment_size.clamp(4 << 20, 1 << 30);
        Self {
            disk,
            config: Config { segment_size, ..config },
            salt,
            index: BTreeMap::new(),
            pins: BTreeMap::new(),
            pin_bytes: 0,
            segments: BTreeMap::new(),
            synced: 0,
            entries: 0,
            sealed: false,
            dirty: false,
            read_only: false,
            corrupt: 0,
            moved: Vec::new(),
            collection: None,
            naming: None,
            kept: None,
            put_for_pins: 0,
            quiet_until: 0,
            looked_at: 0,
            users: 0,
            scratch: Vec::new(),
        }
    }

    /// Whether the block is held (or is inside its own CID).
    pub fn has(&self, cid: &Cid) -> bool {
        match cid.hash() {
            Multihash::Sha256(digest) => self.index.contains_key(&key(digest)),
            Multihash::Identity(_) => true,
            Multihash::Other { .. } => false,
        }
    }

    /// Bytes of the block, if it is held.
    pub fn block_size(&self, cid: &Cid) -> Option<u64> {
        match cid.hash() {
            Multihash::Sha256(digest) => self.index.get(&key(digest)).map(|place| u64::from(place.length())),
            Multihash::Identity(data) => Some(data.len() as u64),
            Multihash::Other { .. } => None,
        }
    }

    /// The block, verified. One that has gone bad on the medium is dropped and counted, and is then
    /// as if it had never been held.
    ///
    /// # Errors
    /// [`StoreError::Disk`] if the medium can't be read; the block stays indexed.
    pub fn get(&mut self, cid: &Cid) -> Result<Option<Vec<u8>>, StoreError> {
        let mut data = Vec::new();
        Ok(self.get_into(cid, &mut data)?.then_some(data))
    }

    /// As [`Store::get`], into `data` in place of what it held; `false`: the block is not held.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn get_into(&mut self, cid: &Cid, data: &mut Vec<u8>) -> Result<bool, StoreError> {
        if let Some(inline) = cid.inline() {
            data.clear();
            data.extend_from_slice(inline);
            return Ok(true);
        }
        if let Some(key) = key_of(cid) {
            self.touch(&key);
        }
        self.read(cid, data)
    }

    /// As [`Store::get_into`] for a block that is not inline, without noting that it was used.
    pub(crate) fn read(&mut self, cid: &Cid, data: &mut Vec<u8>) -> Result<bool, StoreError> {
        let Some(key) = key_of(cid) else { return Ok(false) };
        let Some(place) = self.index.get(&key).copied() else { return Ok(false) };
        let length = place.length() as usize;
        if data.capacity() < length {
            // fresh memory is zero already
            *data = vec![0; length];
        } else {
            data.resize(length, 0);
        }
        self.disk.read(place.segment, u64::from(place.offset), data)?;
        if cid.verify(data).is_ok() {
            return Ok(true);
        }
        self.index.remove(&key);
        self.corrupt += 1;
        Ok(false)
    }

    /// Whether the medium has these bytes at that place.
    pub(crate) fn holds(&mut self, place: Place, data: &[u8]) -> bool {
        if place.length() as usize != data.len() {
            return false;
        }
        let mut buffer = [0; 4096];
        let mut offset = u64::from(place.offset);
        for part in data.chunks(buffer.len()) {
            let Some(held) = buffer.get_mut(..part.len()) else { return false };
            if self.disk.read(place.segment, offset, held).is_err() || held != part {
                return false;
            }
            offset += part.len() as u64;
        }
        true
    }

    /// Writes a block, unless it is held already. It is durable after the next [`Store::commit`].
    /// `data` is trusted to belong to `cid`: verify what came from elsewhere first.
    ///
    /// # Errors
    /// See [`StoreError`]; the store is then as before.
    pub fn put(&mut self, cid: &Cid, data: &[u8]) -> Result<(), StoreError> {
        self.put_each(core::iter::once((cid, data)))
    }

    /// As [`Store::put`], all blocks in as few writes as possible.
    ///
    /// # Errors
    /// See [`StoreError`]; some of the blocks may be stored then.
    pub fn put_all(&mut self, blocks: &[Block]) -> Result<(), StoreError> {
        self.put_each(blocks.iter().map(|block| (&block.cid, block.data.as_slice())))
    }

    fn put_each<'a>(
        &mut self,
        blocks: impl Iterator<Item = (&'a Cid, &'a [u8])> + Clone,
    ) -> Result<(), StoreError> {
        for (cid, data) in blocks.clone() {
            if matches!(cid.hash(), Multihash::Other { .. }) {
                return Err(StoreError::UnsupportedHash);
            }
            if data.len() > content_id::MAX_BLOCK {
                return Err(StoreError::BlockTooLarge);
            }
        }
        let quota = self.config.quota;
        let room = quota.saturating_sub(self.bytes());
        let mut budget = Budget { left: room, quota };
        let result = self.append_blocks(blocks, &mut budget);
        if self.has_users() {
            self.put_for_pins = self.put_for_pins.saturating_add(room - budget.left);
        }
        result
    }

    /// What is put or read from here on survives collections until [`Store::end_use`], pinned or not: a
    /// writer that has not set its pin yet calls this first.
    pub fn begin_use(&mut self) {
        self.users += 1;
    }

    /// Ends one [`Store::begin_use`].
    pub fn end_use(&mut self) {
        self.users = self.users.saturating_sub(1);
    }

    /// Whether somebody asked for protection.
    pub(crate) const fn has_users(&self) -> bool {
        self.users > 0
    }

    /// Notes that a block is in use, if anybody asks.
    pub(crate) fn touch(&mut self, key: &Key) {
        if (self.users > 0 || self.collection.is_some())
            && let Some(place) = self.index.get_mut(key)
        {
            place.set(USED);
        }
    }

    /// Sets a pin; durable after the next [`Store::commit`].
    ///
    /// # Errors
    /// See [`StoreError`]; the pins are then as before.
    pub fn pin(&mut self, cid: &Cid, pin: Pin) -> Result<(), StoreError> {
        let before = self.pins.get(cid);
        if before == Some(&pin) {
            return Ok(());
        }
        let added = if before.is_none() { pin_length(cid) } else { 0 };
        if self.pins.len() >= MAX_PINS || self.pin_bytes + added > content_id::MAX_BLOCK {
            return Err(StoreError::TooManyPins);
        }
        self.append(Kind::Pin, Some(cid), &[pin_code(pin)])?;
        self.pins.insert(cid.clone(), pin);
        self.pin_bytes += added;
        self.mark_new_pin(cid, pin);
        Ok(())
    }

    /// Removes a pin; durable after the next [`Store::commit`]. `false`: it was not set.
    ///
    /// # Errors
    /// See [`StoreError`]; the pins are then as before.
    pub fn unpin(&mut self, cid: &Cid) -> Result<bool, StoreError> {
        if !self.pins.contains_key(cid) {
            return Ok(false);
        }
        self.append(Kind::Unpin, Some(cid), &[])?;
        self.pins.remove(cid);
        self.quiet_until = 0;
        self.pin_bytes -= pin_length(cid).min(self.pin_bytes);
        Ok(true)
    }

    /// The pins, by CID.
    pub fn pins(&self) -> impl Iterator<Item = (&Cid, Pin)> {
        self.pins.iter().map(|(cid, pin)| (cid, *pin))
    }

    /// The pin set on `cid` itself.
    pub fn pinned(&self, cid: &Cid) -> Option<Pin> {
        self.pins.get(cid).copied()
    }

    /// Figures.
    pub fn stat(&self) -> Stat {
        Stat {
            blocks: self.index.len() as u64,
            bytes: self.bytes(),
            quota: self.config.quota,
            kept: self
                .kept
                .map_or(self.bytes(), |kept| kept.saturating_add(self.put_for_pins).min(self.bytes())),
            pins: self.pins.len() as u64,
            corrupt: self.corrupt,
        }
    }

    /// Whether a failed sync has made the store read-only.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.values().sum()
    }
}

/// Bytes a pin takes in [`Kind::AllPins`]' data.
pub(crate) fn pin_length(cid: &Cid) -> usize {
    2 + cid.to_bytes().len()
}

pub(crate) const fn pin_code(pin: Pin) -> u8 {
    match pin {
        Pin::Direct => 1,
        Pin::Recursive => 2,
    }
}

pub(crate) const fn pin_of(code: u8) -> Option<Pin> {
    match code {
        1 => Some(Pin::Direct),
        2 => Some(Pin::Recursive),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

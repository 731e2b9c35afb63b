//! The store: index and pins in memory, the log on the disk.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use content_id::{Cid, Multihash};

use crate::disk::{Disk, DiskError};
use crate::record::{self, Kind};

/// The most pins; all of them fit one record.
pub const MAX_PINS: usize = 15_000;

/// Limits of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes all segments together may take.
    pub quota: u64,
    /// Bytes after which a new segment is begun; 4 MiB to 1 GiB.
    pub segment_size: u64,
    /// The most blocks; each takes about 70 bytes of memory.
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
            Self::ReadOnly => f.write_str(
                "the disk failed to save data earlier; the store is read-only until the node restarts, \
                 and the card may be at its end",
            ),
            Self::Disk(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for StoreError {}

impl From<DiskError> for StoreError {
    fn from(e: DiskError) -> Self {
        match e {
            DiskError::Full => Self::DiskFull,
            other => Self::Disk(other),
        }
    }
}

/// Where a block's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    /// Of the block's bytes.
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// A block store over `D`.
#[derive(Debug)]
pub struct Store<D> {
    pub(crate) disk: D,
    pub(crate) config: Config,
    pub(crate) salt: u64,
    pub(crate) index: BTreeMap<[u8; 32], Place>,
    pub(crate) pins: BTreeMap<Cid, Pin>,
    /// Sizes of all segments; the last one is written to.
    pub(crate) segments: BTreeMap<u32, u64>,
    /// Bytes of the last segment that are on the medium.
    pub(crate) synced: u64,
    pub(crate) dirty: bool,
    pub(crate) read_only: bool,
    pub(crate) corrupt: u64,
    scratch: Vec<u8>,
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
            segments: BTreeMap::new(),
            synced: 0,
            dirty: false,
            read_only: false,
            corrupt: 0,
            scratch: Vec::new(),
        }
    }

    /// Whether the block is held (or is inside its own CID).
    pub fn has(&self, cid: &Cid) -> bool {
        match cid.hash() {
            Multihash::Sha256(digest) => self.index.contains_key(digest),
            Multihash::Identity(_) => true,
            Multihash::Other { .. } => false,
        }
    }

    /// Bytes of the block, if it is held.
    pub fn block_size(&self, cid: &Cid) -> Option<u64> {
        match cid.hash() {
            Multihash::Sha256(digest) => self.index.get(digest).map(|place| u64::from(place.length)),
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
        if let Some(data) = cid.inline() {
            return Ok(Some(data.to_vec()));
        }
        let Some(digest) = cid.digest() else { return Ok(None) };
        let Some(place) = self.index.get(digest).copied() else { return Ok(None) };
        let mut data = vec![0; place.length as usize];
        self.disk.read(place.segment, u64::from(place.offset), &mut data)?;
        if cid.verify(&data).is_ok() {
            return Ok(Some(data));
        }
        self.index.remove(digest);
        self.corrupt += 1;
        Ok(None)
    }

    /// Writes a block, unless it is held already. It is durable after the next [`Store::commit`].
    /// `data` is trusted to belong to `cid`: verify what came from elsewhere first.
    ///
    /// # Errors
    /// See [`StoreError`]; the store is then as before.
    pub fn put(&mut self, cid: &Cid, data: &[u8]) -> Result<(), StoreError> {
        let digest = match cid.hash() {
            Multihash::Sha256(digest) => *digest,
            Multihash::Identity(_) => return Ok(()),
            Multihash::Other { .. } => return Err(StoreError::UnsupportedHash),
        };
        if data.len() > content_id::MAX_BLOCK {
            return Err(StoreError::BlockTooLarge);
        }
        if self.index.contains_key(&digest) {
            return Ok(());
        }
        if self.index.len() >= self.config.max_blocks {
            return Err(StoreError::TooManyBlocks);
        }
        let needed = record::length(cid.to_bytes().len(), data.len());
        if self.bytes().saturating_add(needed) > self.config.quota {
            return Err(StoreError::QuotaExceeded { quota: self.config.quota });
        }
        let place = self.append(Kind::Block, Some(cid), data)?;
        self.index.insert(digest, place);
        Ok(())
    }

    /// Sets a pin; durable after the next [`Store::commit`].
    ///
    /// # Errors
    /// See [`StoreError`]; the pins are then as before.
    pub fn pin(&mut self, cid: &Cid, pin: Pin) -> Result<(), StoreError> {
        if self.pins.get(cid) == Some(&pin) {
            return Ok(());
        }
        if self.pins.len() >= MAX_PINS {
            return Err(StoreError::TooManyPins);
        }
        self.append(Kind::Pin, Some(cid), &[pin_code(pin)])?;
        self.pins.insert(cid.clone(), pin);
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

    /// Returns once all that was put before is on the medium.
    ///
    /// # Errors
    /// The medium failed: what was put since the last commit is dropped, and the store is read-only
    /// from then on, since after a failed sync nobody knows what the medium holds.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        if self.read_only {
            return Err(StoreError::ReadOnly);
        }
        if !self.dirty {
            return Ok(());
        }
        let Some((&segment, &size)) = self.segments.last_key_value() else { return Ok(()) };
        if let Err(e) = self.disk.sync(segment) {
            self.read_only = true;
            let synced = self.synced;
            self.index.retain(|_, p| p.segment != segment || u64::from(p.offset) < synced);
            return Err(e.into());
        }
        self.synced = size;
        self.dirty = false;
        Ok(())
    }

    /// Figures.
    pub fn stat(&self) -> Stat {
        Stat {
            blocks: self.index.len() as u64,
            bytes: self.bytes(),
            quota: self.config.quota,
            pins: self.pins.len() as u64,
            corrupt: self.corrupt,
        }
    }

    /// Whether a failed sync has made the store read-only.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Bytes of all segments.
    fn bytes(&self) -> u64 {
        self.segments.values().sum()
    }

    /// Writes a record at the end of the log, in a new segment if the last one is full.
    pub(crate) fn append(&mut self, kind: Kind, cid: Option<&Cid>, data: &[u8]) -> Result<Place, StoreError> {
        if self.read_only {
            return Err(StoreError::ReadOnly);
        }
        let mut bytes = core::mem::take(&mut self.scratch);
        let result = self.append_with(&mut bytes, kind, cid, data);
        // a large block must not stay in memory as an empty buffer
        if bytes.capacity() <= 64 * 1024 {
            bytes.clear();
            self.scratch = bytes;
        }
        result
    }

    fn append_with(
        &mut self,
        bytes: &mut Vec<u8>,
        kind: Kind,
        cid: Option<&Cid>,
        data: &[u8],
    ) -> Result<Place, StoreError> {
        let head = (record::RECORD_HEADER + cid.map_or(0, |c| c.to_bytes().len())) as u64;
        let needed = (head + data.len() as u64).next_multiple_of(8);
        let last = self.segments.last_key_value().map(|(segment, size)| (*segment, *size));
        let usable = |size: u64| {
            size >= record::SEGMENT_HEADER as u64
                && size.is_multiple_of(8)
                && size + needed <= self.config.segment_size
        };
        let (segment, size) = match last {
            Some((segment, size)) if usable(size) => (segment, size),
            _ => self.begin_segment()?,
        };
        bytes.reserve_exact(needed as usize);
        record::encode(kind, cid, data, self.synced as u32, self.salt, bytes);
        if let Err(e) = self.disk.write(segment, size, bytes) {
            // part of it may be there; the next record overwrites it in any case
            let _ = self.disk.truncate(segment, size);
            return Err(e.into());
        }
        self.dirty = true;
        self.segments.insert(segment, size + needed);
        Ok(Place { segment, offset: (size + head) as u32, length: data.len() as u32 })
    }

    /// Syncs the last segment and begins the next one.
    pub(crate) fn begin_segment(&mut self) -> Result<(u32, u64), StoreError> {
        self.commit()?;
        let segment = self.segments.last_key_value().map_or(1, |(last, _)| last + 1);
        let header = record::segment_header(segment, self.salt);
        let made = self.disk.create(segment).and_then(|()| self.disk.write(segment, 0, &header));
        if let Err(e) = made {
            let _ = self.disk.remove(segment);
            return Err(e.into());
        }
        let size = header.len() as u64;
        self.segments.insert(segment, size);
        self.synced = 0;
        self.dirty = true;
        Ok((segment, size))
    }
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

//! The end of the log: records are appended, synced, and segments begun.

use alloc::vec::Vec;

use content_id::Cid;

use crate::disk::Disk;
use crate::index::{Place, key};
use crate::record::{self, Kind, PAGE, SEGMENT_START, Spot};
use crate::scan::{encode_all_pins, encode_index};
use crate::store::{Store, StoreError};

/// Blocks in a segment at most, so that its index is read at once.
pub(crate) const MAX_ENTRIES: usize = 16_384;
/// Blocks from this size on are written as they are, smaller ones are gathered.
const DIRECT: usize = 32 * 1024;
/// Bytes gathered before they are written.
const GATHER: usize = 64 * 1024;

/// Records on their way to one segment.
struct Batch {
    segment: u32,
    /// Where the first record begins.
    start: u64,
    /// Where the next record begins.
    end: u64,
    /// Bytes before that offset are written.
    written: u64,
    buffer: Vec<u8>,
    blocks: usize,
}

impl<D: Disk> Store<D> {
    /// Writes blocks that are not held yet, and enters them into the index.
    pub(crate) fn append_blocks<'a>(
        &mut self,
        blocks: impl Iterator<Item = (&'a Cid, &'a [u8])>,
        budget: &mut Budget,
    ) -> Result<(), StoreError> {
        let mut batch: Option<Batch> = None;
        for (cid, data) in blocks {
            if let Err(e) = self.append_block(&mut batch, cid, data, budget) {
                if let Some(batch) = batch.take() {
                    self.flush(batch)?;
                }
                return Err(e);
            }
        }
        batch.map_or(Ok(()), |batch| self.flush(batch))
    }

    fn append_block(
        &mut self,
        batch: &mut Option<Batch>,
        cid: &Cid,
        data: &[u8],
        budget: &mut Budget,
    ) -> Result<(), StoreError> {
        let Some(digest) = cid.digest() else { return Ok(()) };
        let key = key(digest);
        if let Some(place) = self.index.get(&key).copied() {
            let under_way = batch
                .as_ref()
                .is_some_and(|b| b.segment == place.segment && b.start <= u64::from(place.offset));
            if under_way || self.holds(place, data) {
                self.touch(&key);
                return Ok(());
            }
            // it has gone bad on the medium
            self.index.remove(&key);
            self.corrupt += 1;
        }
        if self.index.len() >= self.config.max_blocks {
            return Err(StoreError::TooManyBlocks);
        }
        let needed = record::length(cid.to_bytes().len(), data.len());
        budget.take(needed)?;
        let full = batch.as_ref().is_some_and(|b| {
            b.end + needed > self.config.segment_size || self.entries + b.blocks >= MAX_ENTRIES
        });
        if full && let Some(batch) = batch.take() {
            self.flush(batch)?;
        }
        let mut open = match batch.take() {
            Some(batch) => batch,
            None => {
                let (segment, start) = self.room(needed)?;
                let buffer = core::mem::take(&mut self.scratch);
                Batch { segment, start, end: start, written: start, buffer, blocks: 0 }
            }
        };
        match self.push(&mut open, cid, data) {
            Ok(()) => {
                *batch = Some(open);
                Ok(())
            }
            Err(e) => {
                self.undo(open);
                Err(e)
            }
        }
    }

    /// Encodes one block into the batch and writes what is large enough.
    fn push(&mut self, batch: &mut Batch, cid: &Cid, data: &[u8]) -> Result<(), StoreError> {
        let spot = Spot { salt: self.salt, segment: batch.segment, offset: batch.end as u32 };
        let before = batch.buffer.len();
        record::encode_block_head(cid, data.len() as u32, self.synced as u32, spot, &mut batch.buffer);
        let head = batch.buffer.len() - before;
        let place = Place::new(batch.segment, batch.end as u32 + head as u32, data.len() as u32);
        if data.len() >= DIRECT {
            self.drain(batch)?;
            self.disk.write(batch.segment, batch.written, data)?;
            batch.written += data.len() as u64;
        } else {
            batch.buffer.extend_from_slice(data);
        }
        batch.buffer.extend_from_slice(record::padding(head + data.len()));
        batch.end += record::length(head - record::RECORD_HEADER, data.len());
        batch.blocks += 1;
        if batch.buffer.len() >= GATHER {
            self.drain(batch)?;
        }
        let digest = cid.digest().map(key).unwrap_or_default();
        self.index.insert(digest, place);
        self.touch(&digest);
        Ok(())
    }

    fn drain(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        if !batch.buffer.is_empty() {
            self.disk.write(batch.segment, batch.written, &batch.buffer)?;
            batch.written += batch.buffer.len() as u64;
            batch.buffer.clear();
        }
        Ok(())
    }

    /// Ends a batch.
    fn flush(&mut self, mut batch: Batch) -> Result<(), StoreError> {
        if let Err(e) = self.drain(&mut batch) {
            self.undo(batch);
            return Err(e);
        }
        self.dirty = true;
        self.entries += batch.blocks;
        self.segments.insert(batch.segment, batch.end);
        self.scratch = batch.buffer;
        Ok(())
    }

    /// Takes a batch back: part of it may be on the disk, and the next records overwrite that in any case.
    fn undo(&mut self, batch: Batch) {
        let (segment, start) = (batch.segment, batch.start);
        self.index.retain(|_, p| p.segment != segment || u64::from(p.offset) < start);
        self.cut(segment, start);
        self.scratch = batch.buffer;
        self.scratch.clear();
    }

    /// Removes what a failed write left behind `start`. Not down to the end of the records: the system would write
    /// the page in which that lies again.
    fn cut(&mut self, segment: u32, start: u64) {
        let _ = self.disk.truncate(segment, start);
    }

    /// Writes a record about pins.
    pub(crate) fn append(&mut self, kind: Kind, cid: Option<&Cid>, data: &[u8]) -> Result<(), StoreError> {
        let needed = record::length(cid.map_or(0, |c| c.to_bytes().len()), data.len());
        let (segment, start) = self.room(needed)?;
        let mut bytes = core::mem::take(&mut self.scratch);
        let spot = Spot { salt: self.salt, segment, offset: start as u32 };
        record::encode(kind, cid, data, self.synced as u32, spot, &mut bytes);
        let written = self.disk.write(segment, start, &bytes);
        bytes.clear();
        self.scratch = bytes;
        if let Err(e) = written {
            self.cut(segment, start);
            return Err(e.into());
        }
        self.dirty = true;
        self.segments.insert(segment, start + needed);
        Ok(())
    }

    /// Segment and offset of the next record, which has `needed` bytes.
    fn room(&mut self, needed: u64) -> Result<(u32, u64), StoreError> {
        if self.read_only {
            return Err(StoreError::ReadOnly);
        }
        if let Some((&segment, &size)) = self.segments.last_key_value() {
            let start = self.next_offset(size);
            let fits = start + needed <= self.config.segment_size && self.entries < MAX_ENTRIES;
            if fits && size >= SEGMENT_START && !self.sealed {
                return Ok((segment, start));
            }
        }
        self.begin_segment()
    }

    /// A page that holds synced bytes is never written again.
    const fn next_offset(&self, size: u64) -> u64 {
        if size == self.synced { size.next_multiple_of(PAGE) } else { size }
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
            // what was moved is still where it was
            self.index.extend(self.moved.drain(..));
            return Err(e.into());
        }
        self.moved.clear();
        self.synced = size;
        self.dirty = false;
        Ok(())
    }

    /// Ends the last segment, syncs it, and begins the next one with all pins.
    pub(crate) fn begin_segment(&mut self) -> Result<(u32, u64), StoreError> {
        self.seal();
        self.commit()?;
        let segment = self.segments.last_key_value().map_or(1, |(last, _)| last + 1);
        let header = record::segment_header(segment, self.salt);
        let mut bytes = Vec::with_capacity(SEGMENT_START as usize + self.pin_bytes + 32);
        bytes.extend_from_slice(&header);
        bytes.resize(record::HEADER_COPY as usize, 0);
        bytes.extend_from_slice(&header);
        bytes.resize(SEGMENT_START as usize, 0);
        let spot = Spot { salt: self.salt, segment, offset: SEGMENT_START as u32 };
        record::encode(Kind::AllPins, None, &encode_all_pins(&self.pins), 0, spot, &mut bytes);
        let made = self.disk.create(segment).and_then(|()| self.disk.write(segment, 0, &bytes));
        if let Err(e) = made {
            let _ = self.disk.remove(segment);
            return Err(e.into());
        }
        let size = bytes.len() as u64;
        self.segments.insert(segment, size);
        self.synced = 0;
        self.sealed = false;
        self.entries = 0;
        self.dirty = true;
        Ok((segment, size))
    }

    /// Writes index and trailer behind the last segment's records. Without them the segment is read record
    /// by record when the store opens: no reason to fail.
    fn seal(&mut self) {
        let Some((&segment, &size)) = self.segments.last_key_value() else { return };
        if self.sealed || self.read_only {
            return;
        }
        let start = self.next_offset(size);
        let spot = Spot { salt: self.salt, segment, offset: start as u32 };
        let mut bytes = Vec::new();
        let entries = encode_index(&self.index, segment);
        if entries.len() > content_id::MAX_BLOCK || start + entries.len() as u64 + 64 > u64::from(u32::MAX) {
            return;
        }
        record::encode(Kind::Index, None, &entries, self.synced as u32, spot, &mut bytes);
        bytes.extend_from_slice(&record::trailer(spot));
        if self.disk.write(segment, start, &bytes).is_err() {
            self.cut(segment, start);
            return;
        }
        self.segments.insert(segment, start + bytes.len() as u64);
        self.sealed = true;
        self.dirty = true;
    }
}

/// Bytes that may still be written.
pub(crate) struct Budget {
    pub(crate) left: u64,
    pub(crate) quota: u64,
}

impl Budget {
    fn take(&mut self, bytes: u64) -> Result<(), StoreError> {
        self.left = self.left.checked_sub(bytes).ok_or(StoreError::QuotaExceeded { quota: self.quota })?;
        Ok(())
    }
}

//! Opening a store: the index and the pins are rebuilt from the log.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use content_id::Cid;

use crate::disk::{Disk, DiskError};
use crate::index::{Index, Place, key_of};
use crate::record::{
    self, HEADER_COPY, Head, Kind, MAX_HEAD, PAGE, RecordError, SEGMENT_HEADER, SEGMENT_START, SegmentHeader,
    Spot, TRAILER,
};
use crate::store::{Config, Pin, Recovery, Store, StoreError, pin_code, pin_length, pin_of};

/// Bytes read at once while walking from head to head.
const WINDOW: u64 = 16 * 1024;
/// Bytes looked at to know what lies at an offset: a head there, or at the beginning of the next page.
const SIGHT: u64 = PAGE + MAX_HEAD as u64;
/// Bytes of a block in an index record.
const ENTRY: usize = 24;

/// A view of one segment that reads ahead a little.
struct Walk<'a, D> {
    disk: &'a mut D,
    segment: u32,
    size: u64,
    salt: u64,
    start: u64,
    window: Vec<u8>,
}

/// What lies at an offset.
enum Found {
    Record(Head),
    /// Zeros behind what was synced; a record follows at this offset.
    Gap(u64),
    Damage,
    End,
}

impl<'a, D: Disk> Walk<'a, D> {
    fn new(disk: &'a mut D, segment: u32, size: u64, salt: u64) -> Self {
        Self { disk, segment, size, salt, start: 0, window: Vec::new() }
    }

    fn spot(&self, offset: u64) -> Spot {
        Spot { salt: self.salt, segment: self.segment, offset: offset as u32 }
    }

    /// The bytes at `offset`, [`SIGHT`] or more of them but for the end.
    fn peek(&mut self, offset: u64) -> Result<&[u8], DiskError> {
        let have = self.start + self.window.len() as u64;
        if offset < self.start || (offset + SIGHT).min(self.size) > have {
            self.look(offset)?;
        }
        let from = (offset - self.start) as usize;
        Ok(self.window.get(from..).unwrap_or(&[]))
    }

    fn look(&mut self, offset: u64) -> Result<(), DiskError> {
        let length = self.size.saturating_sub(offset).min(WINDOW);
        self.window.resize(length as usize, 0);
        self.start = offset;
        self.disk.read(self.segment, offset, &mut self.window)
    }

    fn record(&mut self, offset: u64) -> Result<Option<Head>, DiskError> {
        let (size, spot) = (self.size, self.spot(offset));
        Ok(match Head::parse(self.peek(offset)?, spot) {
            Ok(head) if offset + head.record_length() <= size => Some(head),
            Ok(_) | Err(RecordError::Short | RecordError::Bad) => None,
        })
    }

    fn at(&mut self, offset: u64) -> Result<Found, DiskError> {
        if offset >= self.size {
            return Ok(Found::End);
        }
        // first of all: behind the end of what was synced there may be remains of a write that was cut off
        let next = offset.next_multiple_of(PAGE);
        if next > offset && next < self.size {
            let in_page = (next - offset) as usize;
            let spot = self.spot(next);
            let bytes = self.peek(offset)?;
            let head = Head::parse(bytes.get(in_page..).unwrap_or(&[]), spot);
            if head.is_ok_and(|head| u64::from(head.durable_to) == offset) {
                return Ok(Found::Gap(next));
            }
        }
        Ok(self.record(offset)?.map_or(Found::Damage, Found::Record))
    }

    /// The next offset after damage at `offset` where a record's head is whole, or the end.
    fn resync(&mut self, offset: u64) -> Result<u64, DiskError> {
        let mut next = (offset + 8).next_multiple_of(8);
        while next < self.size {
            if self.peek(next)?.starts_with(record::RECORD_MAGIC) && self.record(next)?.is_some() {
                return Ok(next);
            }
            next += 8;
        }
        Ok(self.size)
    }

    fn data(&mut self, offset: u64, head: &Head) -> Result<Vec<u8>, DiskError> {
        let mut data = vec![0; head.data_length as usize];
        self.disk.read(self.segment, offset + u64::from(head.head_length), &mut data)?;
        Ok(data)
    }

    /// The data of a record that is no block, if its CRC fits.
    fn checked_data(&mut self, offset: u64, head: &Head) -> Result<Option<Vec<u8>>, DiskError> {
        let data = self.data(offset, head)?;
        let spot = self.spot(offset);
        let bytes = self.peek(offset)?;
        Ok(head.matches(bytes, &data, spot).then_some(data))
    }

    /// The blocks of a full segment, from the index at its end; `None` if that is missing or damaged.
    fn index(&mut self, into: &mut Index) -> Result<Option<()>, DiskError> {
        let Some(at) = self.size.checked_sub(TRAILER as u64).filter(|at| *at >= SEGMENT_START) else {
            return Ok(None);
        };
        self.look(self.size.saturating_sub(WINDOW))?;
        let trailer = self.window.last_chunk::<TRAILER>();
        let Some(spot) = trailer.and_then(|t| record::parse_trailer(t, self.segment, self.salt)) else {
            return Ok(None);
        };
        let offset = u64::from(spot.offset);
        let fits = |head: &Head| head.kind == Kind::Index && offset + head.record_length() == at;
        let Some(head) = (if offset < at { self.record(offset)? } else { None }).filter(fits) else {
            return Ok(None);
        };
        let Some(data) = self.checked_data(offset, &head)? else { return Ok(None) };
        for entry in data.chunks_exact(ENTRY) {
            let (Some(key), Some(&[o0, o1, o2, o3, l0, l1, l2, l3])) =
                (entry.first_chunk(), entry.last_chunk::<8>())
            else {
                continue;
            };
            let (at, length) = (u32::from_le_bytes([o0, o1, o2, o3]), u32::from_le_bytes([l0, l1, l2, l3]));
            if u64::from(at) + u64::from(length) <= offset && length as usize <= content_id::MAX_BLOCK {
                into.insert(*key, Place::new(self.segment, at, length));
            }
        }
        Ok(Some(()))
    }

    /// Reads all records: blocks into `index`, pins into `pins`. Damage before `durable` is skipped; behind it,
    /// it ends the log.
    fn records(
        &mut self,
        durable: u64,
        index: &mut Index,
        pins: &mut BTreeMap<Cid, Pin>,
    ) -> Result<Walked, DiskError> {
        let mut walked = Walked { end: SEGMENT_START, damaged: 0, blocks: 0, has_all_pins: false };
        let mut offset = SEGMENT_START;
        loop {
            let head = match self.at(offset)? {
                Found::Record(head) => head,
                Found::Gap(next) => {
                    offset = next;
                    continue;
                }
                Found::Damage if offset < durable => {
                    walked.damaged += 1;
                    offset = self.resync(offset)?;
                    if offset > durable.next_multiple_of(PAGE) {
                        // the first record behind what was synced is not whole
                        walked.end = durable;
                        break;
                    }
                    continue;
                }
                Found::Damage | Found::End => break,
            };
            let sound = match (head.kind, &head.cid) {
                (Kind::Block, Some(cid)) => {
                    let whole = offset < durable || cid.verify(&self.data(offset, &head)?).is_ok();
                    if let (true, Some(key)) = (whole, key_of(cid)) {
                        let at = offset as u32 + head.head_length;
                        index.insert(key, Place::new(self.segment, at, head.data_length));
                        walked.blocks += 1;
                    }
                    whole
                }
                _ => {
                    let data = self.checked_data(offset, &head)?;
                    let done = data.is_some_and(|data| apply_pins(pins, &head, &data));
                    walked.has_all_pins |= done && head.kind == Kind::AllPins;
                    done
                }
            };
            if !sound {
                if offset >= durable {
                    break;
                }
                walked.damaged += 1;
            }
            offset += head.record_length();
            // not behind a gap that nothing whole follows: the next commit's end would look like damage
            walked.end = offset;
        }
        walked.end = walked.end.max(durable).min(self.size);
        Ok(walked)
    }

    /// The largest synced length any record of the segment tells of.
    fn durable_to(&mut self) -> Result<u64, DiskError> {
        let mut offset = SEGMENT_START;
        let mut durable = 0;
        loop {
            offset = match self.at(offset)? {
                Found::Record(head) => {
                    durable = durable.max(u64::from(head.durable_to));
                    offset + head.record_length()
                }
                Found::Gap(next) => next,
                Found::Damage => self.resync(offset)?,
                Found::End => return Ok(durable),
            };
        }
    }
}

/// What was found in a segment.
struct Walked {
    /// Where its log ends.
    end: u64,
    damaged: u64,
    blocks: usize,
    /// The record with all pins is whole.
    has_all_pins: bool,
}

impl<D: Disk> Store<D> {
    /// Opens what lies on `disk`, or begins a new store there. `seed` is a random number; it salts
    /// a new store.
    ///
    /// # Errors
    /// The medium can't be read, or the segments are of an older format.
    pub fn open(mut disk: D, config: Config, seed: u64) -> Result<(Self, Recovery), StoreError> {
        let mut sizes = BTreeMap::new();
        let (mut salt, mut named) = (None, false);
        for number in disk.list()? {
            let size = disk.size(number)?.min(u64::from(u32::MAX));
            sizes.insert(number, size);
        }
        let newest = sizes.last_key_value().map(|(number, _)| *number);
        for (&number, &size) in &sizes {
            if salt.is_none() || Some(number) == newest {
                let header = header(&mut disk, number, size)?;
                salt = salt.or(header);
                named = header.is_some();
            }
        }
        let mut store = Self::empty(disk, config, salt.unwrap_or(seed));
        let mut recovery = Recovery::default();
        let last = sizes.last_key_value().map(|(number, size)| (*number, *size));
        for (number, size) in sizes {
            store.segments.insert(number, size);
            if Some((number, size)) != last {
                store.open_full(number, size, &mut recovery)?;
            }
        }
        if let Some((number, size)) = last {
            store.open_last(number, size, named, &mut recovery)?;
        }
        store.pin_bytes = store.pins.keys().map(pin_length).sum();
        recovery.blocks = store.index.len() as u64;
        Ok((store, recovery))
    }

    fn walk(&mut self, segment: u32, size: u64) -> Walk<'_, D> {
        Walk::new(&mut self.disk, segment, size, self.salt)
    }

    /// A segment before the last one was synced whole.
    fn open_full(&mut self, number: u32, size: u64, recovery: &mut Recovery) -> Result<(), StoreError> {
        let mut index = core::mem::take(&mut self.index);
        let mut walk = self.walk(number, size);
        let result = match walk.index(&mut index) {
            Ok(Some(())) => Ok(()),
            Ok(None) => {
                recovery.walked += 1;
                let walked = walk.records(size, &mut index, &mut BTreeMap::new());
                walked.map(|walked| recovery.damaged += walked.damaged)
            }
            Err(e) => Err(e),
        };
        self.index = index;
        Ok(result?)
    }

    /// The last segment may be torn: finds out how much of it was synced, then reads it.
    fn open_last(
        &mut self,
        number: u32,
        size: u64,
        named: bool,
        recovery: &mut Recovery,
    ) -> Result<(), StoreError> {
        let mut index = core::mem::take(&mut self.index);
        let mut pins = self.earlier_pins(number)?;
        let mut walk = self.walk(number, size);
        let durable = walk.durable_to()?;
        let walked = walk.records(durable, &mut index, &mut pins)?;
        (self.index, self.pins) = (index, pins);
        recovery.damaged += walked.damaged;
        let end = walked.end;
        if end <= SEGMENT_START {
            // torn before its first commit: the segment before is the last one, and was synced whole
            recovery.torn_bytes += size;
            self.disk.remove(number)?;
            self.segments.remove(&number);
            self.sealed = true;
            return Ok(());
        }
        if !named {
            self.disk.write(number, 0, &record::segment_header(number, self.salt))?;
        }
        // the page that the log ends in stays as it is
        let keep = end.next_multiple_of(PAGE).min(size);
        if keep < size {
            recovery.torn_bytes += size - end;
            self.disk.truncate(number, keep)?;
        }
        // also what lay behind the last commit and turned out whole is acknowledged from here on
        self.disk.sync(number)?;
        self.segments.insert(number, end);
        self.synced = end;
        self.entries = walked.blocks;
        Ok(())
    }

    /// The pins as they were when segment `number` was begun. It says so itself: the ones before are read only if
    /// it does not.
    fn earlier_pins(&mut self, number: u32) -> Result<BTreeMap<Cid, Pin>, StoreError> {
        let mut pins = BTreeMap::new();
        let mut before: Vec<(u32, u64)> = Vec::new();
        let mut at = number;
        loop {
            let size = self.segments.get(&at).copied().unwrap_or(0);
            let mut walk = self.walk(at, size);
            let first = if size > SEGMENT_START { walk.record(SEGMENT_START)? } else { None };
            if let Some(head) = first.filter(|head| head.kind == Kind::AllPins)
                && walk.checked_data(SEGMENT_START, &head)?.is_some()
            {
                break;
            }
            let Some((&earlier, &size)) = self.segments.range(..at).next_back() else { break };
            before.push((earlier, size));
            at = earlier;
        }
        while let Some((segment, size)) = before.pop() {
            self.walk(segment, size).records(size, &mut Index::new(), &mut pins)?;
        }
        Ok(pins)
    }
}

/// The salt in one of the two copies of a segment's header.
fn header<D: Disk>(disk: &mut D, number: u32, size: u64) -> Result<Option<u64>, StoreError> {
    let mut other = false;
    for offset in [0, HEADER_COPY] {
        let mut header = [0; SEGMENT_HEADER];
        if size < offset + SEGMENT_HEADER as u64 {
            continue;
        }
        disk.read(number, offset, &mut header)?;
        match record::parse_segment_header(&header, number) {
            SegmentHeader::Salt(salt) => return Ok(Some(salt)),
            SegmentHeader::Other => other = true,
            SegmentHeader::Bad => {}
        }
    }
    if other { Err(StoreError::OtherFormat) } else { Ok(None) }
}

/// Does what a record about pins says; `false` if it makes no sense.
fn apply_pins(pins: &mut BTreeMap<Cid, Pin>, head: &Head, data: &[u8]) -> bool {
    match (head.kind, &head.cid, data) {
        (Kind::Pin, Some(cid), [code]) => match pin_of(*code) {
            Some(pin) => {
                pins.insert(cid.clone(), pin);
                true
            }
            None => false,
        },
        (Kind::Unpin, Some(cid), []) => {
            pins.remove(cid);
            true
        }
        (Kind::AllPins, None, data) => match parse_all_pins(data) {
            Some(all) => {
                *pins = all;
                true
            }
            None => false,
        },
        (Kind::Index, None, _) => true,
        _ => false,
    }
}

/// The data of an [`Kind::AllPins`] record.
pub(crate) fn encode_all_pins(pins: &BTreeMap<Cid, Pin>) -> Vec<u8> {
    let mut out = Vec::with_capacity(pins.len() * 40);
    for (cid, pin) in pins {
        let cid = cid.to_bytes();
        out.push(pin_code(*pin));
        out.push(cid.len() as u8);
        out.extend_from_slice(&cid);
    }
    out
}

fn parse_all_pins(mut data: &[u8]) -> Option<BTreeMap<Cid, Pin>> {
    let mut pins = BTreeMap::new();
    while let [code, length, rest @ ..] = data {
        let (cid, rest) = rest.split_at_checked(usize::from(*length))?;
        pins.insert(Cid::from_bytes(cid).ok()?, pin_of(*code)?);
        data = rest;
    }
    data.is_empty().then_some(pins)
}

/// The data of an [`Kind::Index`] record for one segment.
pub(crate) fn encode_index(index: &Index, segment: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, place) in index.iter().filter(|(_, place)| place.segment == segment) {
        out.extend_from_slice(key);
        out.extend_from_slice(&place.offset.to_le_bytes());
        out.extend_from_slice(&place.length().to_le_bytes());
    }
    out
}

//! Opening a store: the index and the pins are rebuilt from the log.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use content_id::Cid;

use crate::disk::{Disk, DiskError};
use crate::record::{self, Head, Kind, MAX_HEAD, RecordError, SEGMENT_HEADER};
use crate::store::{Config, Pin, Place, Recovery, Store, StoreError, pin_code, pin_of};

/// Bytes read at once while walking from head to head.
const WINDOW: usize = 4096;

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
    Damage,
    End,
}

impl<'a, D: Disk> Walk<'a, D> {
    fn new(disk: &'a mut D, segment: u32, size: u64, salt: u64) -> Self {
        Self { disk, segment, size, salt, start: 0, window: Vec::new() }
    }

    /// Up to [`MAX_HEAD`] bytes at `offset`, fewer only at the end.
    fn peek(&mut self, offset: u64) -> Result<&[u8], DiskError> {
        let need = (self.size.saturating_sub(offset)).min(MAX_HEAD as u64);
        let held = self.start <= offset && offset + need <= self.start + self.window.len() as u64;
        if !held {
            let length = (self.size.saturating_sub(offset)).min(WINDOW as u64) as usize;
            self.window.resize(length, 0);
            self.start = offset;
            self.disk.read(self.segment, offset, &mut self.window)?;
        }
        let from = (offset - self.start) as usize;
        Ok(self.window.get(from..).unwrap_or(&[]))
    }

    fn at(&mut self, offset: u64) -> Result<Found, DiskError> {
        if offset >= self.size {
            return Ok(Found::End);
        }
        let (size, salt) = (self.size, self.salt);
        Ok(match Head::parse(self.peek(offset)?, salt) {
            Ok(head) if offset + head.record_length() <= size && u64::from(head.durable_to) <= offset => {
                Found::Record(head)
            }
            Ok(_) | Err(RecordError::Short | RecordError::Bad) => Found::Damage,
        })
    }

    /// The next offset after damage at `offset` where a record's head is whole, or the end.
    fn resync(&mut self, offset: u64) -> Result<u64, DiskError> {
        let mut next = (offset + 8).next_multiple_of(8);
        while next < self.size {
            if self.peek(next)?.starts_with(b"rec1") && matches!(self.at(next)?, Found::Record(_)) {
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

    /// The data of a record about pins, if its CRC fits.
    fn checked_data(&mut self, offset: u64, head: &Head) -> Result<Option<Vec<u8>>, DiskError> {
        let data = self.data(offset, head)?;
        let salt = self.salt;
        let bytes = self.peek(offset)?;
        Ok(head.matches(bytes, &data, salt).then_some(data))
    }
}

impl<D: Disk> Store<D> {
    /// Opens what lies on `disk`, or begins a new store there. `seed` is a random number; it salts
    /// a new store.
    ///
    /// # Errors
    /// The medium can't be read.
    pub fn open(mut disk: D, config: Config, seed: u64) -> Result<(Self, Recovery), StoreError> {
        let mut numbers = disk.list()?;
        numbers.sort_unstable();
        let mut sizes = BTreeMap::new();
        let mut salt = None;
        for &number in &numbers {
            let size = disk.size(number)?.min(u64::from(u32::MAX));
            let mut header = [0; SEGMENT_HEADER];
            if size >= SEGMENT_HEADER as u64 {
                disk.read(number, 0, &mut header)?;
                salt = salt.or(record::parse_segment_header(&header, number));
            }
            sizes.insert(number, size);
        }
        let mut store = Self::empty(disk, config, salt.unwrap_or(seed));
        let mut recovery = Recovery::default();
        let last = numbers.last().copied();
        for (number, size) in sizes {
            store.segments.insert(number, size);
            if Some(number) == last {
                store.open_last(number, size, &mut recovery)?;
            } else {
                store.walk(number, size, u64::MAX, &mut recovery)?;
            }
        }
        recovery.blocks = store.index.len() as u64;
        Ok((store, recovery))
    }

    /// The last segment may be torn: finds out how much of it was synced, then reads it.
    fn open_last(&mut self, number: u32, size: u64, recovery: &mut Recovery) -> Result<(), StoreError> {
        let durable = self.durable_to(number, size)?;
        let end = self.walk(number, size, durable, recovery)?;
        if end <= SEGMENT_HEADER as u64 {
            // torn before its first commit: the segment before is the last one, and was synced whole
            recovery.torn_bytes += size;
            self.disk.remove(number)?;
            self.segments.remove(&number);
            self.synced = self.segments.last_key_value().map_or(0, |(_, size)| *size);
            return Ok(());
        }
        self.disk.write(number, 0, &record::segment_header(number, self.salt))?;
        if end < size {
            recovery.torn_bytes += size - end;
            self.disk.truncate(number, end)?;
        }
        // also what lay behind the last commit and turned out whole is acknowledged from here on
        self.disk.sync(number)?;
        self.segments.insert(number, end);
        self.synced = end;
        Ok(())
    }

    /// The largest synced length any record of the segment tells of.
    fn durable_to(&mut self, number: u32, size: u64) -> Result<u64, StoreError> {
        let mut walk = Walk::new(&mut self.disk, number, size, self.salt);
        let mut offset = SEGMENT_HEADER as u64;
        let mut durable = 0;
        loop {
            offset = match walk.at(offset)? {
                Found::Record(head) => {
                    durable = durable.max(u64::from(head.durable_to));
                    offset + head.record_length()
                }
                Found::Damage => walk.resync(offset)?,
                Found::End => return Ok(durable),
            };
        }
    }

    /// Reads a segment into index and pins. Damage before `durable` is skipped; behind it, it ends
    /// the log. Returns where the log ends.
    fn walk(
        &mut self,
        number: u32,
        size: u64,
        durable: u64,
        recovery: &mut Recovery,
    ) -> Result<u64, StoreError> {
        let mut walk = Walk::new(&mut self.disk, number, size, self.salt);
        let (index, pins) = (&mut self.index, &mut self.pins);
        let mut offset = SEGMENT_HEADER as u64;
        loop {
            let head = match walk.at(offset)? {
                Found::Record(head) => head,
                Found::Damage if offset >= durable => return Ok(offset),
                Found::Damage => {
                    recovery.damaged += 1;
                    offset = walk.resync(offset)?;
                    continue;
                }
                Found::End => return Ok(offset.min(size)),
            };
            let sound = match (head.kind, &head.cid) {
                (Kind::Block, Some(cid)) => {
                    let whole = offset < durable || cid.verify(&walk.data(offset, &head)?).is_ok();
                    if let (true, Some(digest)) = (whole, cid.digest()) {
                        let place = Place {
                            segment: number,
                            offset: offset as u32 + head.head_length,
                            length: head.data_length,
                        };
                        index.insert(*digest, place);
                    }
                    whole
                }
                _ => {
                    let data = walk.checked_data(offset, &head)?;
                    data.is_some_and(|data| apply_pins(pins, &head, &data))
                }
            };
            if !sound {
                if offset >= durable {
                    return Ok(offset);
                }
                recovery.damaged += 1;
            }
            offset += head.record_length();
        }
    }
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

//! Garbage collection: what no pin holds is dropped, and sparse segments are rewritten. In steps, so that others get
//! their turn. [`Store::collection_due`] says when it is time for one without being asked.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use content_id::{Cid, Codec, export, sha256};

use crate::disk::Disk;
use crate::index::{Key, LIVE, MARKS, Place, USED, key, key_of, walked};
use crate::log::Budget;
use crate::record::length;
use crate::store::{Pin, Store, StoreError};

/// Bytes of garbage below which a segment is left alone.
const WORTH_IT: u64 = 64 * 1024;
/// Bytes read or moved in one step.
const STEP: usize = 1 << 20;
/// Blocks looked at in one step.
const STEP_BLOCKS: usize = 64;
/// Bytes of CID and padding taken for each block.
const HEAD: usize = 36;
/// Missing blocks that are told apart.
const MAX_MISSING: usize = 10_000;

/// Thousandths of the quota above which the oldest blocks without a pin make room,
const HIGH: u64 = 900;
/// and down to which they do.
const LOW: u64 = 750;

/// How far a collection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All that no pin holds is dropped.
    All,
    /// Of what no pin holds the oldest is dropped, until no more than this is left.
    Down {
        /// Bytes of all segments.
        bytes: u64,
        /// Blocks held.
        blocks: usize,
    },
    /// Nothing is dropped; segments that are mostly gaps and dropped blocks are rewritten.
    Compact,
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blocks dropped.
    pub blocks: u64,
    /// Bytes of the medium given back.
    pub bytes: u64,
    /// Blocks that pins ask for and the store does not have.
    pub missing: u64,
    /// Bytes of blocks that were written again.
    pub moved: u64,
}

/// A collection under way.
#[derive(Debug)]
pub(crate) struct Collection {
    extent: Extent,
    work: Work,
    /// Bytes of all segments when it began.
    bytes: u64,
    missing: BTreeSet<Key>,
    result: Collected,
}

#[derive(Debug)]
enum Work {
    /// Blocks whose links are still to be followed.
    Mark(Vec<Cid>),
    /// Dropped blocks that are still to be named, the first one last.
    Name(Vec<(Key, Place)>),
    Compact {
        /// Segments to rewrite, the next one last.
        segments: Vec<u32>,
        /// Blocks of the one at hand that are still to be moved.
        held: Vec<(Key, Place)>,
    },
}

impl<D: Disk> Store<D> {
    /// Drops blocks that no pin holds, as `extent` says, and gives back the space of segments that are mostly
    /// dropped blocks. What was put or read under [`Store::begin_use`] stays.
    ///
    /// # Errors
    /// The medium failed or is too full to move blocks; pinned blocks are all still there.
    pub fn collect(&mut self, extent: Extent) -> Result<Collected, StoreError> {
        loop {
            if let Some(result) = self.collect_step(extent)? {
                return Ok(result);
            }
        }
    }

    /// The collection that is due by itself: when the quota or the index is nearly used up, or when much room is
    /// lost in sparse segments. With `pressed` something could not be put a moment ago; little room is made then, but
    /// at once. `None` also where a collection did not help a moment ago.
    pub fn collection_due(&mut self, pressed: bool) -> Option<Extent> {
        let (bytes, blocks) = (self.bytes(), self.index.len());
        let of = |all: u64, thousandths: u64| (u128::from(all) * u128::from(thousandths) / 1000) as u64;
        let (quota, most) = (self.config.quota, self.config.max_blocks as u64);
        if self.read_only || bytes < self.quiet_until {
            return None;
        }
        if pressed {
            let room = (2 * self.config.segment_size).min(quota / 20).max(quota / 100);
            // a medium that is full is smaller than the quota
            let bytes = bytes.min(quota).saturating_sub(room);
            return Some(Extent::Down { bytes, blocks: blocks.saturating_sub(blocks / 20) });
        }
        // the first time earlier: then it is known what pins hold
        let high = if self.kept.is_some() { HIGH } else { LOW };
        if bytes > of(quota, high) || blocks as u64 > of(most, HIGH) {
            return Some(Extent::Down { bytes: of(quota, LOW), blocks: of(most, LOW) as usize });
        }
        if bytes < self.looked_at.saturating_add(self.config.segment_size / 4) {
            return None;
        }
        self.looked_at = bytes;
        let last = self.segments.last_key_value().map(|(number, _)| *number);
        let live = self.live_bytes();
        let sparse =
            self.segments.iter().filter(|(n, size)| Some(**n) != last && is_sparse(&live, **n, **size));
        let lost: u64 = sparse.map(|(n, size)| size - used(&live, *n)).sum();
        (lost >= self.config.segment_size.max(bytes / 8)).then_some(Extent::Compact)
    }

    /// Does a part of a collection, about a megabyte of reading or writing, and begins one if none is
    /// under way. Between steps the store may be used as always. `Some`: it is done. One of another extent that is
    /// under way is ended first.
    ///
    /// # Errors
    /// As [`Store::collect`]; the collection is then over.
    pub fn collect_step(&mut self, extent: Extent) -> Result<Option<Collected>, StoreError> {
        let mut collection = match self.collection.take() {
            Some(collection) => collection,
            None => self.begin_collection(extent)?,
        };
        let Collection { extent: begun, work, missing, result, bytes } = &mut collection;
        match work {
            Work::Mark(open) => {
                if !self.mark(open, missing)? {
                    result.missing = missing.len() as u64;
                    let (blocks, dropped) = self.sweep(*begun);
                    result.blocks = blocks;
                    *work = Work::Name(dropped);
                }
            }
            Work::Name(dropped) => {
                if !self.name_dropped(dropped) {
                    *work = Work::Compact { segments: self.sparse_segments()?, held: Vec::new() };
                }
            }
            Work::Compact { segments, held } => {
                if !self.compact(segments, held, &mut result.moved)? {
                    let left = self.bytes();
                    result.bytes = bytes.saturating_sub(left);
                    self.looked_at = left;
                    if let Extent::Down { bytes, .. } = *begun {
                        // where pins hold the rest, nothing changes until they do or more has come
                        let more = left.saturating_add(self.config.quota / 64);
                        self.quiet_until = if left > bytes { more } else { 0 };
                    }
                    return Ok((*begun == extent).then_some(*result));
                }
            }
        }
        self.collection = Some(collection);
        Ok(None)
    }

    fn begin_collection(&mut self, extent: Extent) -> Result<Collection, StoreError> {
        self.commit()?;
        let stale = if self.has_users() { MARKS } else { MARKS | USED };
        self.index.values_mut().for_each(|place| place.clear(stale));
        let recursive = self.pins.iter().filter(|(_, pin)| **pin == Pin::Recursive);
        let roots: Vec<Cid> = recursive.map(|(cid, _)| cid.clone()).collect();
        let mut begun = Collection {
            extent,
            work: Work::Mark(Vec::new()),
            bytes: self.bytes(),
            missing: BTreeSet::new(),
            result: Collected::default(),
        };
        if extent == Extent::Compact {
            begun.work = Work::Compact { segments: self.sparse_segments()?, held: Vec::new() };
            return Ok(begun);
        }
        for root in roots {
            self.meet(root, &mut begun);
        }
        Ok(begun)
    }

    /// A pin set while a collection is under way holds from then on.
    pub(crate) fn mark_new_pin(&mut self, cid: &Cid, pin: Pin) {
        if pin == Pin::Recursive
            && let Some(mut collection) = self.collection.take()
        {
            self.meet(cid.clone(), &mut collection);
            self.collection = Some(collection);
        }
    }

    fn meet(&mut self, cid: Cid, collection: &mut Collection) {
        let Collection { work, missing, .. } = collection;
        match work {
            Work::Mark(open) => self.meet_in(cid, open, missing),
            // the sweep is over: what is held now stays
            Work::Name(_) | Work::Compact { .. } => {}
        }
    }

    /// Marks a block that a pin holds. It is noted when first met: a node that links a million times to one
    /// child adds one entry.
    fn meet_in(&mut self, cid: Cid, open: &mut Vec<Cid>, missing: &mut BTreeSet<Key>) {
        let links = walked(cid.codec());
        if cid.inline().is_some() {
            if links.is_some() {
                open.push(cid);
            }
            return;
        }
        let Some(key) = key_of(&cid) else { return };
        let Some(place) = self.index.get_mut(&key) else {
            if missing.len() < MAX_MISSING {
                missing.insert(key);
            }
            return;
        };
        place.set(LIVE);
        if links.is_some_and(|mark| place.set(mark)) {
            open.push(cid);
        }
    }

    /// Follows the links of some blocks; `false`: there are no more.
    fn mark(&mut self, open: &mut Vec<Cid>, missing: &mut BTreeSet<Key>) -> Result<bool, StoreError> {
        let (mut read, mut block) = (0, Vec::new());
        for _ in 0..STEP_BLOCKS {
            let Some(cid) = open.pop() else { return Ok(false) };
            if read >= STEP {
                open.push(cid);
                break;
            }
            if let Some(inline) = cid.inline() {
                block.clear();
                block.extend_from_slice(inline);
            } else if self.is_leaf(&cid) {
                continue;
            } else if !self.read(&cid, &mut block)? {
                missing.extend(key_of(&cid).filter(|_| missing.len() < MAX_MISSING));
                continue;
            }
            read += block.len();
            for child in export::links(cid.codec(), &block).unwrap_or_default() {
                self.meet_in(child, open, missing);
            }
        }
        Ok(true)
    }

    /// Whether a dag-pb block is seen to have no links without reading it all: its first field is the data, and
    /// that reaches to its end.
    fn is_leaf(&mut self, cid: &Cid) -> bool {
        let Some(place) = key_of(cid).and_then(|key| self.index.get(&key).copied()) else { return false };
        let mut head = [0; 8];
        if cid.codec() != Codec::DAG_PB || place.length() < 64 {
            return false;
        }
        if self.disk.read(place.segment, u64::from(place.offset), &mut head).is_err() {
            return false;
        }
        let [0x0a, varint @ ..] = head else { return false };
        let (mut length, mut used) = (0u64, 1u64);
        for (at, byte) in varint.iter().take(5).enumerate() {
            length |= u64::from(byte & 0x7f) << (7 * at);
            used += 1;
            if byte & 0x80 == 0 {
                return used + length == u64::from(place.length());
            }
        }
        false
    }

    /// Drops what is neither marked nor in use, as `extent` says; how many blocks that are, and which, if anybody wants to
    /// know.
    fn sweep(&mut self, extent: Extent) -> (u64, Vec<(Key, Place)>) {
        for key in self.pins.keys().filter_map(key_of) {
            if let Some(place) = self.index.get_mut(&key) {
                place.set(LIVE);
            }
        }
        let before = self.index.len();
        let mut loose: BTreeMap<u32, (u64, usize)> = BTreeMap::new();
        let mut kept = 0;
        for place in self.index.values() {
            let bytes = length(HEAD, place.length() as usize);
            if place.has(LIVE | USED) {
                kept += bytes;
            } else {
                let entry = loose.entry(place.segment).or_default();
                *entry = (entry.0 + bytes, entry.1 + 1);
            }
        }
        (self.kept, self.put_for_pins) = (Some(kept), 0);
        if let Extent::Down { bytes, blocks } = extent {
            self.keep_young(&mut loose, bytes, blocks);
        }
        let mut dropped = Vec::new();
        let is_named = self.naming.is_some();
        self.index.retain(|key, place| {
            let stays = place.has(LIVE | USED) || !loose.contains_key(&place.segment);
            if !stays && is_named {
                dropped.push((*key, *place));
            }
            stays
        });
        dropped.sort_unstable_by_key(|(_, place)| core::cmp::Reverse((place.segment, place.offset)));
        ((before - self.index.len()) as u64, dropped)
    }

    /// Leaves in `loose` the oldest segments of which enough is dropped to come down to these limits. One of which
    /// little would be dropped is not worth its rewriting.
    fn keep_young(&self, loose: &mut BTreeMap<u32, (u64, usize)>, most_bytes: u64, most_blocks: usize) {
        let (mut bytes, mut blocks) = (self.bytes(), self.index.len());
        let live = self.live_bytes();
        loose.retain(|number, (dropped, count)| {
            let size = self.segments.get(number).copied().unwrap_or(0);
            let gives = size.saturating_sub(used(&live, *number)) + *dropped;
            let wanted = (bytes > most_bytes && gives > size / 4) || blocks > most_blocks;
            if wanted {
                bytes = bytes.saturating_sub(gives);
                blocks = blocks.saturating_sub(*count);
            }
            wanted
        });
    }

    /// Bytes of the records of indexed blocks in each segment.
    fn live_bytes(&self) -> BTreeMap<u32, u64> {
        let mut live: BTreeMap<u32, u64> = BTreeMap::new();
        for place in self.index.values() {
            *live.entry(place.segment).or_default() += length(HEAD, place.length() as usize);
        }
        live
    }

    /// Removes segments without a block that is held, and lists those of which less than three quarters are held
    /// blocks, if that is worth a rewrite. None of them is the last one.
    fn sparse_segments(&mut self) -> Result<Vec<u32>, StoreError> {
        let live = self.live_bytes();
        let sparse = |(number, size): (&u32, &u64)| is_sparse(&live, *number, *size).then_some(*number);
        let mut segments: Vec<u32> = self.segments.iter().filter_map(sparse).collect();
        let last = self.segments.last_key_value().map(|(number, _)| *number);
        // a full medium gets room before anything is written
        for number in segments.extract_if(.., |n| used(&live, *n) == 0 && Some(*n) != last) {
            self.remove_segment(number)?;
        }
        if last.is_some_and(|last| segments.contains(&last)) {
            // the next segment begins with all pins, so that those here may go
            self.begin_segment()?;
        }
        segments.reverse();
        Ok(segments)
    }

    /// Moves some blocks to the end of the log; `false`: there is nothing left to do.
    fn compact(
        &mut self,
        segments: &mut Vec<u32>,
        held: &mut Vec<(Key, Place)>,
        moved: &mut u64,
    ) -> Result<bool, StoreError> {
        let Some(&segment) = segments.last() else { return Ok(false) };
        if held.is_empty() {
            held.extend(self.index.iter().filter(|(_, p)| p.segment == segment).map(|(k, p)| (*k, *p)));
            held.sort_unstable_by_key(|(_, place)| core::cmp::Reverse(place.offset));
        }
        let mut bytes = 0;
        while bytes < STEP
            && let Some((key, place)) = held.pop()
        {
            match self.move_block(key, place) {
                Ok(n) => bytes += n,
                Err(StoreError::Disk(_)) if !self.read_only => {
                    // what can't be read may be there again another time
                    held.clear();
                    segments.pop();
                    return Ok(true);
                }
                Err(e) => return Err(e),
            }
        }
        *moved += bytes as u64;
        if held.is_empty() {
            self.commit()?;
            if !self.index.values().any(|place| place.segment == segment) {
                self.remove_segment(segment)?;
            }
            segments.pop();
        }
        Ok(true)
    }

    /// Writes a block again at the end of the log; its bytes, 0 if it is no longer at that place.
    fn move_block(&mut self, wanted: Key, from: Place) -> Result<usize, StoreError> {
        let same = |p: &Place| (p.segment, p.offset) == (from.segment, from.offset);
        let Some(place) = self.index.get(&wanted).copied().filter(same) else { return Ok(0) };
        let mut data = alloc::vec![0; place.length() as usize];
        self.disk.read(place.segment, u64::from(place.offset), &mut data)?;
        let digest = sha256(&data);
        self.index.remove(&wanted);
        if key(&digest) != wanted {
            self.corrupt += 1;
            return Ok(0);
        }
        // the codec does not matter to the index; raw names every block
        let cid = Cid::v1(Codec::RAW, digest);
        self.moved.push((wanted, place));
        let mut budget = Budget { left: u64::MAX, quota: u64::MAX };
        if let Err(e) = self.append_blocks(core::iter::once((&cid, data.as_slice())), &mut budget) {
            self.index.insert(wanted, place);
            return Err(e);
        }
        if let Some(now) = self.index.get_mut(&wanted) {
            *now = place.moved(*now);
        }
        Ok(data.len())
    }

    /// Removes a segment that is not the last one: all pins stand at the beginning of that, and are synced first.
    fn remove_segment(&mut self, segment: u32) -> Result<(), StoreError> {
        self.commit()?;
        self.disk.remove(segment)?;
        self.segments.remove(&segment);
        Ok(())
    }
}

/// Bytes of a segment that held blocks take.
fn used(live: &BTreeMap<u32, u64>, segment: u32) -> u64 {
    live.get(&segment).copied().unwrap_or(0)
}

/// Whether less than three quarters of a segment are held blocks, and a rewrite gives enough back.
fn is_sparse(live: &BTreeMap<u32, u64>, segment: u32, size: u64) -> bool {
    let used = used(live, segment);
    used < size / 4 * 3 && size - used > WORTH_IT
}

//! Blocks by name: the index has only half of each digest, the records on the medium have the rest. A block is
//! named as a raw one, whatever it was put as: the store knows bytes, not what they mean.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use content_id::{Cid, Codec};

use crate::disk::Disk;
use crate::index::{Key, Place, key};
use crate::record::{Head, Kind, RECORD_HEADER, Spot};
use crate::store::{Store, StoreError};

/// Records read in one step.
const STEP: usize = 256;
/// Names that wait to be taken.
const MAX_NAMES: usize = 4096;
/// The head of a block's record ends where the block begins, and records begin at multiples of 8. So where one begins
/// follows from the shortest heads there are (CID version 0), and those of eight bytes more (other codecs).
const SHORTEST: u32 = RECORD_HEADER as u32 + 34;

/// How far a listing of all blocks has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listed {
    /// Segment and offset of the next block, at the earliest.
    next: (u32, u32),
}

/// Names of what a collection drops, for those who asked ([`Store::begin_naming`]).
#[derive(Debug, Default)]
pub(crate) struct Naming {
    names: Vec<Cid>,
    unnamed: u64,
}

impl<D: Disk> Store<D> {
    /// The next blocks that are held, in the order in which they lie on the medium; `None`: there are no more. One that a
    /// collection moves meanwhile may come twice, one whose record has gone bad is left out.
    ///
    /// # Errors
    /// The medium can't be read.
    pub fn list(&mut self, listed: &mut Listed) -> Result<Option<Vec<Cid>>, StoreError> {
        let mut places = BTreeSet::new();
        for (key, place) in &self.index {
            let at = (place.segment, place.offset);
            if at >= listed.next
                && (places.len() < STEP || places.last().is_some_and(|last| (at, *key) < *last))
            {
                places.insert((at, *key));
                if places.len() > STEP {
                    places.pop_last();
                }
            }
        }
        let Some(((segment, offset), _)) = places.last().copied() else { return Ok(None) };
        listed.next = (segment, offset.saturating_add(1));
        let mut names = Vec::with_capacity(places.len());
        for ((segment, offset), wanted) in places {
            names.extend(self.name_at(segment, offset)?.filter(|digest| key(digest) == wanted));
        }
        Ok(Some(names.into_iter().map(|digest| Cid::v1(Codec::RAW, digest)).collect()))
    }

    /// From here on collections note what they drop: take it with [`Store::take_names`] after each step. Some thousand
    /// are kept until then.
    pub fn begin_naming(&mut self) {
        self.naming = Some(Naming::default());
    }

    /// What was dropped and not taken yet.
    pub fn take_names(&mut self) -> Vec<Cid> {
        self.naming.as_mut().map(|naming| core::mem::take(&mut naming.names)).unwrap_or_default()
    }

    /// Ends [`Store::begin_naming`]; how many blocks were dropped and could not be named.
    pub fn end_naming(&mut self) -> u64 {
        self.naming.take().map_or(0, |naming| naming.unnamed)
    }

    /// Names some of the blocks that were dropped, the last ones first; `false`: there are no more.
    pub(crate) fn name_dropped(&mut self, dropped: &mut Vec<(Key, Place)>) -> bool {
        let Some(mut naming) = self.naming.take() else { return false };
        for _ in 0..STEP {
            let Some((wanted, place)) = dropped.pop() else { break };
            let room = naming.names.len() < MAX_NAMES;
            match room.then(|| self.name_at(place.segment, place.offset)) {
                Some(Ok(Some(digest))) if key(&digest) == wanted => {
                    naming.names.push(Cid::v1(Codec::RAW, digest));
                }
                _ => naming.unnamed += 1,
            }
        }
        self.naming = Some(naming);
        !dropped.is_empty()
    }

    /// The digest in the record of the block whose bytes begin there.
    fn name_at(&mut self, segment: u32, offset: u32) -> Result<Option<[u8; 32]>, StoreError> {
        let head = SHORTEST + (offset.wrapping_sub(SHORTEST) % 8);
        for length in [head, head + 8] {
            let Some(start) = offset.checked_sub(length) else { break };
            let mut bytes = [0; SHORTEST as usize + 16];
            let Some(bytes) = bytes.get_mut(..length as usize) else { break };
            self.disk.read(segment, u64::from(start), bytes)?;
            let spot = Spot { salt: self.salt, segment, offset: start };
            let found = Head::parse(bytes, spot).ok();
            let found = found.filter(|found| found.kind == Kind::Block && found.head_length == length);
            if let Some(digest) = found.and_then(|found| found.cid?.digest().copied()) {
                return Ok(Some(digest));
            }
        }
        Ok(None)
    }
}

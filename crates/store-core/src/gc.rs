//! Garbage collection: what no pin holds is dropped, and sparse segments are rewritten.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use content_id::{Cid, Codec, export};

use crate::disk::Disk;
use crate::record::{Kind, SEGMENT_HEADER, length};
use crate::scan::encode_all_pins;
use crate::store::{Pin, Place, Store, StoreError};

/// Bytes of garbage below which a segment is left alone.
const WORTH_IT: u64 = 64 * 1024;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blocks dropped.
    pub blocks: u64,
    /// Bytes of the medium given back.
    pub bytes: u64,
    /// Blocks that pins ask for and the store does not have.
    pub missing: u64,
}

impl<D: Disk> Store<D> {
    /// Drops every block that no pin holds, and gives back the space of segments that are mostly
    /// dropped blocks. Must not run while an add whose root is not pinned yet is under way.
    ///
    /// # Errors
    /// The medium failed or is too full to move blocks; pinned blocks are all still there.
    pub fn collect(&mut self) -> Result<Collected, StoreError> {
        self.commit()?;
        let mut result = Collected::default();
        let live = self.mark(&mut result)?;
        let (blocks, bytes) = (self.index.len(), self.stat().bytes);
        self.index.retain(|digest, _| live.contains(digest));
        result.blocks = (blocks - self.index.len()) as u64;
        drop(live);
        let sparse = self.sparse_segments();
        if !sparse.is_empty() {
            self.begin_segment()?;
            // the records about pins in the segments that go are all replaced by this one
            let pins = encode_all_pins(&self.pins);
            self.append(Kind::AllPins, None, &pins)?;
            self.commit()?;
            for segment in sparse {
                self.empty_segment(segment)?;
            }
        }
        result.bytes = bytes.saturating_sub(self.stat().bytes);
        Ok(result)
    }

    /// The digests of all blocks that pins hold.
    fn mark(&mut self, result: &mut Collected) -> Result<BTreeSet<[u8; 32]>, StoreError> {
        let pinned = |wanted| self.pins.iter().filter(move |(_, pin)| **pin == wanted).map(|(cid, _)| cid);
        let mut open: Vec<Cid> = pinned(Pin::Recursive).cloned().collect();
        let direct: Vec<[u8; 32]> = pinned(Pin::Direct).filter_map(|cid| cid.digest().copied()).collect();
        let mut live: BTreeSet<[u8; 32]> = open.iter().filter_map(|cid| cid.digest().copied()).collect();
        while let Some(cid) = open.pop() {
            if cid.codec() == Codec::RAW {
                continue;
            }
            let Some(block) = self.get(&cid)? else {
                result.missing += 1;
                continue;
            };
            // noted when first met: a node that links a million times to one child adds one entry
            let children = export::links(cid.codec(), &block).unwrap_or_default();
            open.extend(
                children.into_iter().filter(|c| c.digest().is_some_and(|digest| live.insert(*digest))),
            );
        }
        live.extend(direct);
        Ok(live)
    }

    /// Segments of which less than three quarters are held blocks, if that is worth a rewrite.
    fn sparse_segments(&self) -> Vec<u32> {
        let mut live: BTreeMap<u32, u64> = BTreeMap::new();
        for place in self.index.values() {
            *live.entry(place.segment).or_default() += length(36, place.length as usize);
        }
        let sparse = |(number, size): (&u32, &u64)| {
            let used = live.get(number).copied().unwrap_or(0) + SEGMENT_HEADER as u64;
            (used < size / 4 * 3 && size - used > WORTH_IT).then_some(*number)
        };
        self.segments.iter().filter_map(sparse).collect()
    }

    /// Moves the held blocks of a segment to the end of the log, then removes it.
    fn empty_segment(&mut self, segment: u32) -> Result<(), StoreError> {
        let held: Vec<([u8; 32], Place)> =
            self.index.iter().filter(|(_, p)| p.segment == segment).map(|(d, p)| (*d, *p)).collect();
        for (digest, _) in held {
            // the codec does not matter to the index; raw names every block
            let cid = Cid::v1(Codec::RAW, digest);
            if let Some(data) = self.get(&cid)? {
                let place = self.append(Kind::Block, Some(&cid), &data)?;
                self.index.insert(digest, place);
            }
        }
        self.commit()?;
        self.disk.remove(segment)?;
        self.segments.remove(&segment);
        Ok(())
    }
}

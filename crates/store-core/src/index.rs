//! Where each block is: 28 bytes of it, about 56 with the tree around them and what it leaves free.

use alloc::collections::BTreeMap;

use content_id::{Cid, Codec};

/// The first half of a digest. Two blocks that share it would take 2^64 hashes to find, and a block is
/// checked against its whole digest when it is read.
pub(crate) type Key = [u8; 16];

pub(crate) type Index = BTreeMap<Key, Place>;

/// The key of a digest.
pub(crate) fn key(digest: &[u8; 32]) -> Key {
    digest.first_chunk().copied().unwrap_or_default()
}

/// The key of a CID that blocks can be stored under.
pub(crate) fn key_of(cid: &Cid) -> Option<Key> {
    cid.digest().map(key)
}

/// Where a block's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    /// Of the block's bytes.
    pub(crate) offset: u32,
    /// Length and marks.
    sized: u32,
}

const LENGTH: u32 = (1 << 24) - 1;
/// A pin holds it.
pub(crate) const LIVE: u32 = 1 << 24;
/// It was put or read while somebody asked for protection.
pub(crate) const USED: u32 = 1 << 25;
const WALKED_PB: u32 = 1 << 26;
const WALKED_CBOR: u32 = 1 << 27;
const WALKED_JSON: u32 = 1 << 28;
/// All marks of a collection.
pub(crate) const MARKS: u32 = LIVE | WALKED_PB | WALKED_CBOR | WALKED_JSON;

/// The mark of a block whose links were followed as that codec: the same bytes may be linked to as several.
pub(crate) const fn walked(codec: Codec) -> Option<u32> {
    match codec {
        Codec::DAG_PB => Some(WALKED_PB),
        Codec::DAG_CBOR => Some(WALKED_CBOR),
        Codec::DAG_JSON => Some(WALKED_JSON),
        _ => None,
    }
}

impl Place {
    pub(crate) const fn new(segment: u32, offset: u32, length: u32) -> Self {
        Self { segment, offset, sized: length & LENGTH }
    }

    /// Bytes of the block.
    pub(crate) const fn length(&self) -> u32 {
        self.sized & LENGTH
    }

    pub(crate) const fn has(&self, mark: u32) -> bool {
        self.sized & mark != 0
    }

    /// Sets a mark; `true` if it was not set.
    pub(crate) const fn set(&mut self, mark: u32) -> bool {
        let is_new = self.sized & mark != mark;
        self.sized |= mark;
        is_new
    }

    pub(crate) const fn clear(&mut self, marks: u32) {
        self.sized &= !marks;
    }

    /// The same marks at another place.
    pub(crate) const fn moved(self, to: Self) -> Self {
        Self { segment: to.segment, offset: to.offset, sized: self.sized }
    }
}

//! Blocks that a walk has met: 16 bytes for each, and a bound.

use std::collections::BTreeSet;

use content_id::export::ExportError;
use content_id::{Cid, sha256};

use crate::node::NodeError;

/// More blocks than a store holds, so no honest walk ends here.
const MAX_SEEN: usize = 300_000;

/// Two CIDs that are taken for one would take 2^64 hashes to find, and whoever finds them hides their own block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(BTreeSet<[u8; 16]>);

impl Seen {
    pub(crate) fn of(root: &Cid) -> Self {
        Self(BTreeSet::from([key(root)]))
    }

    /// Notes a block; `true` if it was not met before.
    ///
    /// # Errors
    /// Too many blocks were met.
    pub(crate) fn insert(&mut self, cid: &Cid) -> Result<bool, NodeError> {
        if self.0.len() >= MAX_SEEN {
            return Err(NodeError::Content(ExportError::TooLarge));
        }
        Ok(self.0.insert(key(cid)))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn contains(&self, cid: &Cid) -> bool {
        self.0.contains(&key(cid))
    }
}

fn key(cid: &Cid) -> [u8; 16] {
    sha256(&cid.to_bytes()).first_chunk().copied().unwrap_or_default()
}

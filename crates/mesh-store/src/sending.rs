//! A block on its way to a client, piece by piece.
//!
//! The pieces are copies: what a slow client has not taken yet of what was handed over is a piece or two, not the block.

use std::ops::Range;
use std::time::Duration;

use content_id::Cid;
use content_id::unixfs::Entry;
use hyper::body::Bytes;
use tokio::time::timeout;

use crate::ahead::Ahead;
use crate::memory::Loaded;
use crate::node::NodeError;

/// Time a client has for a piece before it counts as slow: nothing is read ahead for it then, and if others wait for
/// memory its block makes room.
const PATIENCE: Duration = Duration::from_millis(100);

/// Bytes of a block, or of the data in it.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) cid: Cid,
    /// `None` while it has made room for others.
    pub(crate) block: Option<Loaded>,
    /// The bytes are a part of the UnixFS data that the block, which links to others, has itself.
    pub(crate) own: bool,
    pub(crate) left: Range<usize>,
}

impl Part {
    /// All of a block.
    pub(crate) fn all(cid: &Cid, block: Loaded) -> Self {
        Self { cid: cid.clone(), left: 0..block.len(), block: Some(block), own: false }
    }

    /// These bytes of the data that the block has itself.
    ///
    /// # Errors
    /// The block is no UnixFS.
    pub(crate) fn own(cid: &Cid, block: Loaded, left: Range<usize>) -> Result<Self, NodeError> {
        Ok(Self { cid: cid.clone(), block: Some(own(cid, block)?), own: true, left })
    }

    /// The bytes, where they are taken at once.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.block.as_deref().and_then(|block| block.get(self.left.clone())).unwrap_or_default()
    }

    /// Waits until the client can take the next piece.
    pub(crate) async fn until<T>(&mut self, taken: impl Future<Output = T>, ahead: &mut Ahead) -> T {
        let mut taken = std::pin::pin!(taken);
        loop {
            if let Ok(result) = timeout(PATIENCE, &mut taken).await {
                return result;
            }
            ahead.pause();
            if ahead.node.storage.memory.is_wanted() {
                self.block = None;
            }
        }
    }

    /// The next piece, `most` bytes at most; `None` at the end.
    pub(crate) async fn piece(&mut self, most: usize, ahead: &Ahead) -> Result<Option<Bytes>, NodeError> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let block = match self.block.take() {
            Some(block) => block,
            None => {
                let block = ahead.read_again(&self.cid).await?;
                if self.own { own(&self.cid, block)? } else { block }
            }
        };
        let end = self.left.end.min(self.left.start + most);
        // the same bytes as before: the range is in them
        let piece = block.get(self.left.start..end).map(Bytes::copy_from_slice);
        self.left.start = end;
        self.block = Some(block).filter(|_| !self.left.is_empty());
        Ok(piece)
    }
}

/// The UnixFS data of a block.
fn own(cid: &Cid, block: Loaded) -> Result<Loaded, NodeError> {
    let data = Entry::parse(cid.codec(), &block)?.data.data.unwrap_or_default();
    Ok(block.with(data))
}

//! A block on its way to a client, piece by piece.
//!
//! The pieces are copies, but for those of a few blocks: what a slow client has not taken yet of what was handed over is a piece
//! or two, not the block.

use std::ops::Range;
use std::time::Duration;

use content_id::Cid;
use content_id::unixfs::Entry;
use hyper::body::Bytes;
use tokio::time::timeout;

use crate::ahead::Ahead;
use crate::memory::{Loaded, Memory};
use crate::node::NodeError;
use crate::pool;

/// Time a client has for a piece before it counts as slow: nothing is read ahead for it then, and if others wait for
/// memory its block makes room.
const PATIENCE: Duration = Duration::from_millis(100);

/// Bytes of a block, or of the data in it.
#[derive(Debug)]
pub(crate) struct Part {
    cid: Cid,
    bytes: Source,
    /// The bytes are a part of the UnixFS data that the block, which links to others, has itself.
    own: bool,
    pub(crate) left: Range<usize>,
}

#[derive(Debug)]
enum Source {
    /// It made room for others, or has not been read yet.
    Away,
    Here(Loaded),
    /// What is left; it is sent from where it is.
    Lent(Bytes),
}

impl Part {
    /// These bytes of a block. `None`: it is read when the first of them is wanted.
    pub(crate) fn of(cid: &Cid, block: Option<Loaded>, left: Range<usize>) -> Self {
        Self { cid: cid.clone(), bytes: block.map_or(Source::Away, Source::Here), own: false, left }
    }

    /// These bytes of the data that the block has itself.
    ///
    /// # Errors
    /// The block is no UnixFS.
    pub(crate) fn own(cid: &Cid, block: Loaded, left: Range<usize>) -> Result<Self, NodeError> {
        Ok(Self { own: true, ..Self::of(cid, Some(own(cid, block)?), left) })
    }

    /// The bytes, of a part that was just read.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Source::Here(block) => block.get(self.left.clone()).unwrap_or_default(),
            Source::Lent(bytes) => bytes,
            Source::Away => &[],
        }
    }

    /// Has it sent from where it is, if that can be: a client that keeps up saves copying.
    pub(crate) fn lend(&mut self, memory: &Memory) {
        self.bytes = match std::mem::replace(&mut self.bytes, Source::Away) {
            Source::Here(block) if self.left.end <= block.len() => match memory.lend(block) {
                Ok(bytes) => Source::Lent(bytes.slice(self.left.clone())),
                Err(block) => Source::Here(block),
            },
            other => other,
        };
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
                self.bytes = Source::Away;
            }
        }
    }

    /// The next piece, `most` bytes at most; `None` at the end.
    pub(crate) async fn piece(&mut self, most: usize, ahead: &Ahead) -> Result<Option<Bytes>, NodeError> {
        let end = self.left.end.min(self.left.start + most);
        if self.left.start >= end {
            return Ok(None);
        }
        let piece = self.left.start..end;
        let block = match std::mem::replace(&mut self.bytes, Source::Away) {
            Source::Lent(mut bytes) => {
                let piece = bytes.split_to(piece.len().min(bytes.len()));
                self.left.start = end;
                self.bytes = Source::Lent(bytes);
                return Ok(Some(piece));
            }
            Source::Here(block) => block,
            Source::Away => {
                let block = ahead.read_again(&self.cid).await?;
                if self.own { own(&self.cid, block)? } else { block }
            }
        };
        // the same bytes as before: the range is in them
        let piece = block.get(piece).map(pool::copy);
        self.left.start = end;
        if !self.left.is_empty() {
            self.bytes = Source::Here(block);
        }
        Ok(piece)
    }
}

/// The UnixFS data of a block.
fn own(cid: &Cid, block: Loaded) -> Result<Loaded, NodeError> {
    let data = Entry::parse(cid.codec(), &block)?.data.data.unwrap_or_default();
    Ok(block.with(data))
}

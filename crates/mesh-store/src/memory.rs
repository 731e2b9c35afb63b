//! How much memory blocks take: all that is read or fetched for somebody comes out of one account, and waits where that is empty.
//!
//! No wait is for ever, because nobody holds memory while he waits for more of it, or for a client:
//! - what is read before its turn leaves [`RESERVE`] to blocks whose turn it is;
//! - these are sent, and free, as soon as their client takes them. One that takes nothing for a while
//!   gives its block up if others wait ([`crate::sending`]); no more than [`LENT`] can't be given up;
//! - what comes from other nodes has an account of its own, and moves from there to this one when it is whole.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use content_id::MAX_BLOCK;
use hyper::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::pool;

/// Bytes of blocks in memory for readers.
const READ: usize = 10 << 20;
/// Of these, bytes that are not for blocks before their turn.
const RESERVE: usize = 2 * MAX_BLOCK;
/// Of these, bytes of blocks that are sent from where they are: they stay until their clients have taken them.
const LENT: usize = 2 << 20;
/// Bytes of blocks that other nodes are sending.
const COMING: usize = 4 << 20;
/// Bytes of blocks that wait to be written.
const WRITTEN: usize = 4 << 20;

/// The accounts.
#[derive(Clone)]
pub(crate) struct Memory {
    read: Arc<Semaphore>,
    lent: Arc<Semaphore>,
    coming: Arc<Semaphore>,
    written: Arc<Semaphore>,
    /// Readers that wait.
    waiting: Arc<AtomicUsize>,
}

/// A part of an account, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share(Option<OwnedSemaphorePermit>);

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            read: Arc::new(Semaphore::new(READ)),
            lent: Arc::new(Semaphore::new(LENT)),
            coming: Arc::new(Semaphore::new(COMING)),
            written: Arc::new(Semaphore::new(WRITTEN)),
            waiting: Arc::default(),
        }
    }

    /// Memory for a block whose turn it is, if there is some now.
    pub(crate) fn now(&self, size: usize) -> Option<Share> {
        attempt(&self.read, size)
    }

    /// A block to be sent from where it is, or the block itself if too many are.
    pub(crate) fn lend(&self, block: Loaded) -> Result<Bytes, Loaded> {
        match attempt(&self.lent, block.len()) {
            Some(share) => Ok(Bytes::from_owner(Lent { block, _share: share })),
            None => Err(block),
        }
    }

    /// Memory for a block before its turn.
    pub(crate) fn ahead(&self, size: usize) -> Option<Share> {
        if self.read.available_permits() >= RESERVE + size { self.now(size) } else { None }
    }

    /// Waits for memory for a block whose turn it is, `size` bytes of [`MAX_BLOCK`] at most. Who asks holds none.
    pub(crate) async fn wait(&self, size: usize) -> Share {
        let _waiting = Waiting::new(&self.waiting);
        take(&self.read, size).await
    }

    /// Whether somebody waits.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits for memory for a block that another node begins to send.
    pub(crate) async fn coming(&self, size: usize) -> Share {
        take(&self.coming, size).await
    }

    /// Waits for memory for blocks that are to be written. More than all there is counts as all there is.
    pub(crate) async fn written(&self, size: usize) -> Share {
        take(&self.written, size.min(WRITTEN)).await
    }

    /// Bytes in memory for readers.
    pub(crate) fn held(&self) -> usize {
        READ.saturating_sub(self.read.available_permits())
    }
}

fn attempt(account: &Arc<Semaphore>, size: usize) -> Option<Share> {
    Arc::clone(account).try_acquire_many_owned(permits(size)).ok().map(|permit| Share(Some(permit)))
}

async fn take(account: &Arc<Semaphore>, size: usize) -> Share {
    // none is ever closed
    Share(Arc::clone(account).acquire_many_owned(permits(size)).await.ok())
}

/// A permit a byte; no block is larger than [`MAX_BLOCK`].
fn permits(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// Counts one that waits, also one that gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A block in memory. Its buffer goes back to the pool, and its share to the account, when it is dropped.
#[derive(Debug)]
pub(crate) struct Loaded {
    data: Vec<u8>,
    share: Share,
}

impl Loaded {
    pub(crate) fn new(data: Vec<u8>, share: Share) -> Self {
        Self { data, share }
    }

    /// Other bytes, no more than these, by the same share.
    pub(crate) fn with(self, data: Vec<u8>) -> Self {
        let (buffer, share) = self.into_parts();
        pool::give(buffer);
        Self { data, share }
    }

    /// The bytes, and what they are accounted by.
    pub(crate) fn into_parts(mut self) -> (Vec<u8>, Share) {
        (std::mem::take(&mut self.data), Share(self.share.0.take()))
    }
}

impl Deref for Loaded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        pool::give(std::mem::take(&mut self.data));
    }
}

/// A block that is sent from where it is.
struct Lent {
    block: Loaded,
    _share: Share,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_ahead_leaves_room_for_what_is_read_now() {
        let memory = Memory::new();
        let ahead: Vec<Share> = std::iter::from_fn(|| memory.ahead(1 << 20)).collect();
        assert_eq!(memory.held(), READ - RESERVE);
        let now: Vec<Share> = std::iter::from_fn(|| memory.now(MAX_BLOCK)).collect();
        assert_eq!((now.len(), memory.held()), (RESERVE / MAX_BLOCK, READ));
        drop((ahead, now));
        let block = || Loaded::new(vec![7; 1 << 20], memory.now(1 << 20).unwrap());
        let lent: Vec<Bytes> = std::iter::from_fn(|| memory.lend(block()).ok()).collect();
        assert_eq!(memory.held(), LENT);
        drop(lent);
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn who_waits_is_seen_and_served_in_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let memory = Memory::new();
            let all = memory.now(READ).unwrap();
            let (first, second) = (memory.clone(), memory.clone());
            let first = tokio::spawn(async move { first.wait(MAX_BLOCK).await });
            let second = tokio::spawn(async move { second.wait(1).await });
            tokio::task::yield_now().await;
            assert!(memory.is_wanted());
            second.abort();
            assert!(second.await.is_err());
            drop(all);
            let share = first.await.unwrap();
            assert!(!memory.is_wanted());
            assert_eq!(memory.held(), MAX_BLOCK);
            drop(share);
            assert_eq!(memory.held(), 0);
        });
    }
}

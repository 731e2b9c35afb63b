//! The store on a thread of its own, so that a slow medium never stops the network.
//!
//! Commits that wait at the same time share one sync (group commit). What was cached without a
//! commit is synced when the store has been idle for a while. Garbage is collected when it is time for that
//! ([`Store::collection_due`]): a step after each group of jobs, and one after the other when there are none.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

use content_id::{Block, Cid};
use store_core::{Collected, Extent, Store, StoreError};
use tokio::sync::{Mutex, oneshot};

use crate::disk::FileDisk;
use crate::pool;

/// Idle time after which cached blocks are synced.
const IDLE: Duration = Duration::from_secs(5);
/// Jobs done at most before the commits that wait are answered.
const GROUP: usize = 64;

type Blocks = Store<FileDisk>;
type Answer = oneshot::Sender<Result<(), StoreError>>;

enum Job {
    Call(Box<dyn FnOnce(&mut Blocks) + Send>),
    Commit(Answer),
}

/// A handle on the store's thread; the thread ends, all synced, when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Storage {
    jobs: Sender<Job>,
    /// Held by the collection under way.
    collecting: Arc<Mutex<()>>,
}

/// An answer that is still to come.
pub(crate) struct Answered(oneshot::Receiver<Result<(), StoreError>>);

impl Answered {
    /// Waits for it.
    pub(crate) async fn wait(self) -> Result<(), StoreError> {
        self.0.await.map_err(|_| StoreError::ReadOnly)?
    }
}

/// While one is alive, no collection drops what is put or read: for those who will set a pin.
pub(crate) struct Protection(Sender<Job>);

impl Drop for Protection {
    fn drop(&mut self) {
        let _ = self.0.send(Job::Call(Box::new(|store: &mut Blocks| store.end_use())));
    }
}

impl Storage {
    /// Moves the store to its thread.
    pub(crate) fn start(store: Blocks) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new().name("blocks".into()).spawn(move || work(store, &queue))?;
        Ok((Self { jobs, collecting: Arc::default() }, thread))
    }

    /// Runs `job` on the store.
    pub(crate) async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Blocks) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        let (send, receive) = oneshot::channel();
        let boxed = Box::new(move |store: &mut Blocks| drop(send.send(job(store))));
        self.jobs.send(Job::Call(boxed)).map_err(|_| StoreError::ReadOnly)?;
        receive.await.map_err(|_| StoreError::ReadOnly)
    }

    /// The block, if it is held.
    pub(crate) async fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, StoreError> {
        let cid = cid.clone();
        let read = move |store: &mut Blocks| {
            let is_large = store.block_size(&cid).is_some_and(|size| size >= pool::LEAST as u64);
            let mut data = if is_large { pool::take() } else { Vec::new() };
            match store.get_into(&cid, &mut data) {
                Ok(true) => Ok(Some(data)),
                other => {
                    pool::give(data);
                    other.map(|_| None)
                }
            }
        };
        self.call(read).await?
    }

    /// Writes blocks; they are durable after a [`Storage::commit`].
    pub(crate) async fn put(&self, blocks: Vec<Block>) -> Result<(), StoreError> {
        self.call(move |store| put(store, &blocks)).await?
    }

    /// As [`Storage::put`], of one block: whether it was written, and its bytes back.
    pub(crate) async fn keep(&self, block: Block) -> Result<(Result<(), StoreError>, Vec<u8>), StoreError> {
        self.call(move |store| (store.put(&block.cid, &block.data), block.data)).await
    }

    /// As [`Storage::put`], without waiting: the answer comes later.
    pub(crate) fn begin_put(&self, blocks: Vec<Block>) -> Answered {
        let (send, receive) = oneshot::channel();
        let job = Box::new(move |store: &mut Blocks| {
            let _ = send.send(put(store, &blocks));
            // the next blocks are made in their memory
            blocks.into_iter().for_each(|block| pool::give(block.data));
        });
        // a store that is gone is noticed when the answer is missing
        let _ = self.jobs.send(Job::Call(job));
        Answered(receive)
    }

    /// Protects what is put and read from now on.
    pub(crate) fn protect(&self) -> Protection {
        let _ = self.jobs.send(Job::Call(Box::new(|store: &mut Blocks| store.begin_use())));
        Protection(self.jobs.clone())
    }

    /// Drops all that no pin holds; others get their turn meanwhile.
    pub(crate) async fn collect(&self) -> Result<Collected, StoreError> {
        let _turn = self.collecting.lock().await;
        loop {
            if let Some(done) = self.call(|store| store.collect_step(Extent::All)).await?? {
                return Ok(done);
            }
        }
    }

    /// Returns once all that was put before is on the medium.
    pub(crate) async fn commit(&self) -> Result<(), StoreError> {
        let (send, receive) = oneshot::channel();
        self.jobs.send(Job::Commit(send)).map_err(|_| StoreError::ReadOnly)?;
        receive.await.map_err(|_| StoreError::ReadOnly)?
    }
}

fn work(mut store: Blocks, queue: &Receiver<Job>) {
    let mut idle = true;
    let mut tidying = None;
    loop {
        let next = if tidying.is_some() {
            queue.try_recv().map_err(|e| match e {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            })
        } else if idle {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_timeout(IDLE)
        };
        match next {
            Ok(job) => {
                let waiting = group(&mut store, job, queue);
                idle = !waiting.is_empty();
                if idle {
                    let result = commit(&mut store);
                    for answer in waiting {
                        let _ = answer.send(result);
                    }
                }
                tidying = tidying.or_else(|| store.collection_due(false));
            }
            Err(RecvTimeoutError::Timeout) if tidying.is_none() => {
                let _ = commit(&mut store);
                idle = true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let _ = commit(&mut store);
                return;
            }
        }
        tidying = tidying.filter(|extent| tidy(&mut store, *extent));
    }
}

/// Does a step of a collection that is due by itself; `false`: it is over.
fn tidy(store: &mut Blocks, extent: Extent) -> bool {
    match store.collect_step(extent) {
        Ok(None) => true,
        Ok(Some(done)) => {
            log::info!(
                target: "store",
                "made room: {} blocks dropped, {} bytes given back, {} bytes written for that",
                done.blocks, done.bytes, done.moved
            );
            false
        }
        Err(e) => {
            log::warn!(target: "store", "room could not be made: {e}");
            false
        }
    }
}

/// Writes blocks. Where there is no room for them, the oldest ones that no pin holds make some.
fn put(store: &mut Blocks, blocks: &[Block]) -> Result<(), StoreError> {
    let result = store.put_all(blocks);
    if !result.is_err_and(|e| e.is_lack_of_room()) {
        return result;
    }
    let Some(extent) = store.collection_due(true) else { return result };
    while tidy(store, extent) {}
    store.put_all(blocks)
}

/// Does the jobs that are there; returns the commits among them.
fn group(store: &mut Blocks, first: Job, queue: &Receiver<Job>) -> Vec<Answer> {
    let mut waiting = Vec::new();
    let rest = std::iter::from_fn(|| queue.try_recv().ok());
    for job in std::iter::once(first).chain(rest).take(GROUP) {
        match job {
            Job::Call(job) => job(store),
            Job::Commit(answer) => waiting.push(answer),
        }
    }
    waiting
}

fn commit(store: &mut Blocks) -> Result<(), StoreError> {
    let was = store.is_read_only();
    let result = store.commit();
    if let (Err(e), false) = (&result, was) {
        log::error!(target: "store", "{e}");
    }
    result
}

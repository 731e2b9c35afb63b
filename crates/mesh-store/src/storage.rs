//! The store on a thread of its own, so that a slow medium never stops the network.
//!
//! Commits that wait at the same time share one sync (group commit). What was cached without a
//! commit is synced when the store has been idle for a while. Garbage is collected when it is time for that
//! ([`Store::collection_due`]): a step after each group of jobs, and one after the other when there are none. So is room
//! made for blocks that found none; only these wait for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

use content_id::{Block, Cid};
use store_core::{Collected, Extent, Store, StoreError};
use tokio::sync::{Mutex, MutexGuard, oneshot};

use crate::disk::FileDisk;
use crate::memory::{Loaded, Memory, Share};
use crate::pool;

/// Idle time after which cached blocks are synced.
const IDLE: Duration = Duration::from_secs(5);
/// Jobs done at most before the commits that wait are answered.
const GROUP: usize = 64;

type Blocks = Store<FileDisk>;
type Answer = oneshot::Sender<Result<(), StoreError>>;

enum Job {
    Call(Box<dyn FnOnce(&mut Blocks) + Send>),
    Put(Put),
    Commit(Answer),
}

/// Blocks to be written.
struct Put {
    blocks: Vec<Block>,
    share: Share,
    answer: Answer,
}

impl Put {
    fn done(self, result: Result<(), StoreError>) {
        // the next blocks are made in their memory
        self.blocks.into_iter().for_each(|block| pool::give(block.data));
        drop(self.share);
        let _ = self.answer.send(result);
    }
}

/// Blocks for which there is no room yet.
#[derive(Default)]
struct Pressed {
    /// The collection that makes some.
    extent: Option<Extent>,
    puts: VecDeque<Put>,
}

impl Pressed {
    /// Writes blocks. Where there is no room for them, the oldest ones that no pin holds make some.
    fn put(&mut self, store: &mut Blocks, put: Put) {
        let result = store.put_all(&put.blocks);
        if result.is_err_and(|e| e.is_lack_of_room()) {
            self.extent = self.extent.or_else(|| store.collection_due(true));
            if self.extent.is_some() {
                self.puts.push_back(put);
                return;
            }
        }
        put.done(result);
    }

    /// Makes some of the room. Each collection answers one put at least.
    fn make_room(&mut self, store: &mut Blocks) {
        let Some(extent) = self.extent else { return };
        if tidy(store, extent) {
            return;
        }
        self.extent = None;
        let mut puts = std::mem::take(&mut self.puts).into_iter();
        if let Some(put) = puts.next() {
            let result = store.put_all(&put.blocks);
            put.done(result);
        }
        puts.for_each(|put| self.put(store, put));
    }
}

/// A handle on the store's thread; the thread ends, all synced, when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Storage {
    jobs: Sender<Job>,
    /// What blocks may take.
    pub(crate) memory: Memory,
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
        Ok((Self { jobs, memory: Memory::new(), collecting: Arc::default() }, thread))
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

    /// The block, if it is held; waits for memory.
    pub(crate) async fn get(&self, cid: &Cid) -> Result<Option<Loaded>, StoreError> {
        let mut share = None;
        loop {
            let (cid, memory, had) = (cid.clone(), self.memory.clone(), share.take());
            let read = move |store: &mut Blocks| read(store, &cid, |size| had.or_else(|| memory.now(size)));
            match self.call(read).await?? {
                Read::Block(block) => return Ok(Some(block)),
                Read::Absent => return Ok(None),
                Read::NoMemory(size) => share = Some(self.memory.wait(size).await),
            }
        }
    }

    /// The block, if it is held and there is memory to read it before its turn.
    pub(crate) async fn get_ahead(&self, cid: &Cid) -> Result<Read, StoreError> {
        let (cid, memory) = (cid.clone(), self.memory.clone());
        self.call(move |store| read(store, &cid, |size| memory.ahead(size))).await?
    }

    /// Writes blocks; they are durable after a [`Storage::commit`].
    pub(crate) async fn put(&self, blocks: Vec<Block>) -> Result<(), StoreError> {
        self.begin_put(blocks).await.wait().await
    }

    /// As [`Storage::put`], of one block: whether it was written, and its bytes back.
    pub(crate) async fn keep(&self, block: Block) -> Result<(Result<(), StoreError>, Vec<u8>), StoreError> {
        self.call(move |store| (store.put(&block.cid, &block.data), block.data)).await
    }

    /// As [`Storage::put`], without waiting for more than memory: the answer comes later.
    pub(crate) async fn begin_put(&self, blocks: Vec<Block>) -> Answered {
        let share = self.memory.written(blocks.iter().map(|block| block.data.len()).sum()).await;
        let (answer, receive) = oneshot::channel();
        // a store that is gone is noticed when the answer is missing
        let _ = self.jobs.send(Job::Put(Put { blocks, share, answer }));
        Answered(receive)
    }

    /// Protects what is put and read from now on.
    pub(crate) fn protect(&self) -> Protection {
        let _ = self.jobs.send(Job::Call(Box::new(|store: &mut Blocks| store.begin_use())));
        Protection(self.jobs.clone())
    }

    /// Begins to drop all that no pin holds, and to name it if it is to be `named`.
    pub(crate) async fn collect(&self, named: bool) -> Collecting<'_> {
        let turn = self.collecting.lock().await;
        if named {
            let _ = self.jobs.send(Job::Call(Box::new(Blocks::begin_naming)));
        }
        Collecting { storage: self, _turn: turn, named }
    }

    /// Returns once all that was put before is on the medium.
    pub(crate) async fn commit(&self) -> Result<(), StoreError> {
        let (send, receive) = oneshot::channel();
        self.jobs.send(Job::Commit(send)).map_err(|_| StoreError::ReadOnly)?;
        receive.await.map_err(|_| StoreError::ReadOnly)?
    }
}

/// A collection that somebody asked for; others get their turn between its steps.
pub(crate) struct Collecting<'a> {
    storage: &'a Storage,
    _turn: MutexGuard<'a, ()>,
    named: bool,
}

/// What a step of a collection did.
pub(crate) enum Step {
    /// It goes on; these were dropped.
    Dropped(Vec<Cid>),
    /// It is done; so many of the dropped blocks could not be named.
    Done(Collected, u64),
}

impl Collecting<'_> {
    /// Goes on.
    pub(crate) async fn step(&mut self) -> Result<Step, StoreError> {
        let step = |store: &mut Blocks| match store.collect_step(Extent::All)? {
            Some(done) => Ok(Step::Done(done, store.end_naming())),
            None => Ok(Step::Dropped(store.take_names())),
        };
        self.storage.call(step).await?
    }
}

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        if self.named {
            let _ = self.storage.jobs.send(Job::Call(Box::new(|store| {
                store.end_naming();
            })));
        }
    }
}

/// What became of a block that was to be read.
pub(crate) enum Read {
    Block(Loaded),
    /// It is not held.
    Absent,
    /// There is no memory for its bytes now.
    NoMemory(usize),
}

fn read(
    store: &mut Blocks,
    cid: &Cid,
    share: impl FnOnce(usize) -> Option<Share>,
) -> Result<Read, StoreError> {
    let Some(size) = store.block_size(cid).map(|size| size as usize) else { return Ok(Read::Absent) };
    let Some(share) = share(size) else { return Ok(Read::NoMemory(size)) };
    let mut data = pool::take(size);
    match store.get_into(cid, &mut data) {
        Ok(true) => Ok(Read::Block(Loaded::new(data, share))),
        other => {
            pool::give(data);
            other.map(|_| Read::Absent)
        }
    }
}

fn work(mut store: Blocks, queue: &Receiver<Job>) {
    let mut idle = true;
    let mut tidying = None;
    let mut pressed = Pressed::default();
    loop {
        let next = if tidying.is_some() || pressed.extent.is_some() {
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
                let waiting = group(&mut store, job, queue, &mut pressed);
                idle = !waiting.is_empty();
                if idle {
                    let result = commit(&mut store);
                    for answer in waiting {
                        let _ = answer.send(result);
                    }
                }
                tidying = tidying.or_else(|| store.collection_due(false));
            }
            Err(RecvTimeoutError::Timeout) if tidying.is_none() && pressed.extent.is_none() => {
                let _ = commit(&mut store);
                idle = true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let _ = commit(&mut store);
                return;
            }
        }
        if pressed.extent.is_some() {
            pressed.make_room(&mut store);
            idle = false;
        } else {
            tidying = tidying.filter(|extent| tidy(&mut store, *extent));
        }
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

/// Does the jobs that are there; returns the commits among them.
fn group(store: &mut Blocks, first: Job, queue: &Receiver<Job>, pressed: &mut Pressed) -> Vec<Answer> {
    let mut waiting = Vec::new();
    let rest = std::iter::from_fn(|| queue.try_recv().ok());
    for job in std::iter::once(first).chain(rest).take(GROUP) {
        match job {
            Job::Call(job) => job(store),
            Job::Put(put) => pressed.put(store, put),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use content_id::import::{FileBuilder, Profile};
    use content_id::{Codec, Version};
    use store_core::{Config, Pin};

    use super::*;

    #[test]
    fn only_what_finds_no_room_waits_until_some_is_made() {
        let folder = std::env::temp_dir().join(format!("p2pmesh-room-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let config = Config { quota: 40 << 20, segment_size: 4 << 20, max_blocks: 100_000 };
        let (mut store, _) = Store::open(FileDisk::open(&folder).unwrap(), config, 7).unwrap();
        // a pin over so many blocks that following its links takes many steps
        let profile = Profile { chunk: 64, max_links: 2, ..Profile::V1_2025 };
        let mut file = FileBuilder::new(profile).unwrap();
        file.push(&(0..400_000u32).map(|at| (at / 64) as u8 ^ (at / 16_384) as u8).collect::<Vec<u8>>());
        let blocks: Vec<Block> = std::iter::from_fn(|| file.poll_block()).collect();
        let (top, rest) = file.finish();
        store.put_all(&blocks).unwrap();
        store.put_all(&Vec::from(rest)).unwrap();
        store.pin(&top.cid, Pin::Recursive).unwrap();
        let large = |seed: u32| {
            let data: Vec<u8> = (0..1u32 << 18).flat_map(|at| (at ^ (seed << 18)).to_le_bytes()).collect();
            Block { cid: Cid::of(Version::V1, Codec::RAW, &data), data }
        };
        let mut seed = 0;
        while store.put_all(&[large(seed)]).is_ok() {
            seed += 1;
        }
        store.commit().unwrap();
        let (storage, thread) = Storage::start(store).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut first = storage.begin_put(vec![large(seed)]).await;
            let second = storage.begin_put(vec![large(seed + 1)]).await;
            // on the store's own thread: the put before it has no answer yet
            let waits = storage.call(move |_| (first.0.try_recv().is_err(), first)).await.unwrap();
            assert!(waits.0, "reads waited for a collection");
            assert!(storage.get(&top.cid).await.unwrap().is_some());
            waits.1.wait().await.unwrap();
            second.wait().await.unwrap();
            storage.commit().await.unwrap();
            for seed in [seed, seed + 1] {
                assert!(storage.get(&large(seed).cid).await.unwrap().is_some());
            }
        });
        drop(storage);
        thread.join().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

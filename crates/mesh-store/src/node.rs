//! Blocks from here or from other nodes, and the walks over them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use content_id::dagpb::Link;
use content_id::export::{DirectoryReader, ExportError, FileReader, PathResolver, Piece, links};
use content_id::unixfs::Entry;
use content_id::{Block, Cid, VerifyError};
use store_core::StoreError;
use store_core::exchange::Missing;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::ahead::Ahead;
use crate::fetch::Fetcher;
use crate::memory::Loaded;
use crate::peers::Peers;
use crate::seen::Seen;
use crate::sending::Part;
use crate::storage::{Read, Storage};

/// Blocks that are got for all readers together before their turn.
const MAX_AHEAD: usize = 24;
/// Blocks of a DAG that are fetched at the same time.
const WIDE: usize = 16;

/// Where blocks may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// This node's store only.
    Local,
    /// Any node in reach.
    Mesh,
}

/// Why a walk did not end well.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NodeError {
    /// A block is not held here, and only this store was asked.
    NotLocal(Cid),
    /// No node in reach has a block.
    NotFound(Cid),
    /// Nodes that may have a block did not answer.
    NoAnswer(Cid),
    /// The block's hash function is not supported.
    Unverifiable(VerifyError),
    /// The content is not what the walk expects.
    Content(ExportError),
    /// The store failed.
    Store(StoreError),
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLocal(cid) => write!(f, "block {cid} is not held on this node"),
            Self::NotFound(cid) => write!(f, "no node in reach has block {cid}"),
            Self::NoAnswer(cid) => {
                write!(f, "block {cid} was not found: some nodes did not answer in time; try again later")
            }
            Self::Unverifiable(e) => e.fmt(f),
            Self::Content(e) => e.fmt(f),
            Self::Store(e) => e.fmt(f),
        }
    }
}

impl From<ExportError> for NodeError {
    fn from(e: ExportError) -> Self {
        Self::Content(e)
    }
}

impl From<content_id::unixfs::UnixFsError> for NodeError {
    fn from(e: content_id::unixfs::UnixFsError) -> Self {
        Self::Content(ExportError::UnixFs(e))
    }
}

impl From<StoreError> for NodeError {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

/// What has happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    /// Of them those that came where nodes are served.
    pub(crate) node_requests: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) fetched: AtomicU64,
    pub(crate) fetched_bytes: AtomicU64,
    pub(crate) not_fetched: AtomicU64,
}

/// Blocks of a DAG that are here by now.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) blocks: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Held {
    pub(crate) fn add(&self, bytes: usize) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Where nodes that should have a DAG serve nodes.
type Hints = Box<dyn Fn(&Cid) -> Vec<SocketAddr> + Send + Sync>;

/// The store of this node and the way to those of others.
pub(crate) struct Node {
    pub(crate) storage: Storage,
    pub(crate) peers: Arc<Peers>,
    pub(crate) fetcher: Arc<Fetcher>,
    /// Which nodes should have a DAG.
    hints: OnceLock<Hints>,
    /// Bounds the blocks that are got ahead.
    pub(crate) ahead: Arc<Semaphore>,
    pub(crate) counters: Counters,
    /// Blocks that are being fetched.
    fetching: Mutex<BTreeMap<Cid, Weak<tokio::sync::Mutex<()>>>>,
}

impl Node {
    /// `seed` spreads what many nodes would do at the same time.
    pub(crate) fn new(storage: Storage, peers: Peers, seed: u64) -> Self {
        let peers = Arc::new(peers);
        Self {
            peers: Arc::clone(&peers),
            fetcher: Arc::new(Fetcher::new(peers, storage.memory.clone(), seed)),
            hints: OnceLock::new(),
            ahead: Arc::new(Semaphore::new(MAX_AHEAD)),
            storage,
            counters: Counters::default(),
            fetching: Mutex::default(),
        }
    }

    /// Nodes that should have a DAG, by the catalogues.
    pub(crate) fn hints(&self, root: &Cid) -> Vec<SocketAddr> {
        self.hints.get().map(|hints| hints(root)).unwrap_or_default()
    }

    /// Sets, once, what tells which nodes should have a DAG.
    pub(crate) fn set_hints(&self, hints: impl Fn(&Cid) -> Vec<SocketAddr> + Send + Sync + 'static) {
        let _ = self.hints.set(Box::new(hints));
    }

    /// A block, verified. One that comes from another node is kept, if there is room. It waits for memory: who asks
    /// holds no other block, nor does he wait for anybody but the store while he holds this one.
    pub(crate) async fn block(&self, cid: &Cid, scope: Scope) -> Result<Loaded, NodeError> {
        self.block_of(cid, cid, scope).await
    }

    /// As [`Node::block`], of the DAG at `root`: who gave one of its blocks is asked for the others.
    pub(crate) async fn block_of(&self, root: &Cid, cid: &Cid, scope: Scope) -> Result<Loaded, NodeError> {
        self.block_from(root, cid, scope).await.map(|(data, _)| data)
    }

    /// As [`Node::block_of`]; `true` if it came from another node.
    pub(crate) async fn block_from(
        &self,
        root: &Cid,
        cid: &Cid,
        scope: Scope,
    ) -> Result<(Loaded, bool), NodeError> {
        supported(cid)?;
        if let Some(block) = self.storage.get(cid).await? {
            return Ok((block, false));
        }
        if scope == Scope::Local {
            return Err(NodeError::NotLocal(cid.clone()));
        }
        // whoever asks for the same block meanwhile waits for this fetch and then finds it stored
        let turn = self.fetch_turn(cid);
        let _turn = turn.lock().await;
        if let Some(block) = self.storage.get(cid).await? {
            return Ok((block, true));
        }
        let (data, _coming) = self.fetch(root, cid).await?.into_parts();
        let share = self.storage.memory.wait(data.len()).await;
        Ok((Loaded::new(data, share), true))
    }

    /// As [`Node::block_from`], of a block whose turn is still to come: `None` if there is no memory for it. Then it may
    /// be stored all the same.
    pub(crate) async fn block_ahead(
        &self,
        root: &Cid,
        cid: &Cid,
        scope: Scope,
    ) -> Result<Option<(Loaded, bool)>, NodeError> {
        supported(cid)?;
        match self.storage.get_ahead(cid).await? {
            Read::Block(block) => return Ok(Some((block, false))),
            Read::NoMemory(_) => return Ok(None),
            Read::Absent if scope == Scope::Local => return Err(NodeError::NotLocal(cid.clone())),
            Read::Absent => {}
        }
        let turn = self.fetch_turn(cid);
        let _turn = turn.lock().await;
        match self.storage.get_ahead(cid).await? {
            Read::Block(block) => return Ok(Some((block, true))),
            Read::NoMemory(_) => return Ok(None),
            Read::Absent => {}
        }
        let (data, _coming) = self.fetch(root, cid).await?.into_parts();
        Ok(self.storage.memory.ahead(data.len()).map(|share| (Loaded::new(data, share), true)))
    }

    /// The lock of a block that is being fetched.
    fn fetch_turn(&self, cid: &Cid) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = fetching.get(cid).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        fetching.insert(cid.clone(), Arc::downgrade(&turn));
        turn
    }

    async fn fetch(&self, root: &Cid, cid: &Cid) -> Result<Loaded, NodeError> {
        let hints = self.hints(root);
        match self.fetcher.fetch(root, cid, &hints).await {
            Ok(block) => {
                let (data, share) = block.into_parts();
                self.counters.fetched.fetch_add(1, Ordering::Relaxed);
                self.counters.fetched_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                let (kept, data) = self.storage.keep(Block { cid: cid.clone(), data }).await?;
                if let Err(e) = kept {
                    log::debug!(target: "fetch", "{cid} is passed on but not kept: {e}");
                }
                Ok(Loaded::new(data, share))
            }
            Err(e) => {
                self.counters.not_fetched.fetch_add(1, Ordering::Relaxed);
                Err(match e {
                    Missing::NobodyHas => NodeError::NotFound(cid.clone()),
                    Missing::NoAnswer => NodeError::NoAnswer(cid.clone()),
                })
            }
        }
    }

    /// Whether a block is held here.
    pub(crate) async fn has(&self, cid: &Cid) -> bool {
        let wanted = cid.clone();
        self.storage.call(move |store| store.has(&wanted)).await.unwrap_or(false)
    }

    /// Follows a path.
    pub(crate) async fn resolve(
        &self,
        root: &Cid,
        segments: &[String],
        scope: Scope,
    ) -> Result<Cid, NodeError> {
        let mut resolver = PathResolver::new(root.clone(), segments.iter().map(String::as_str))?;
        while let Some(cid) = resolver.want().cloned() {
            let block = self.block_of(root, &cid, scope).await?;
            resolver.provide(&block)?;
        }
        Ok(resolver.target().clone())
    }

    /// A UnixFS block, decoded.
    pub(crate) async fn entry(&self, cid: &Cid, scope: Scope) -> Result<Entry, NodeError> {
        self.entry_of(cid, cid, scope).await
    }

    /// As [`Node::entry`], of the DAG at `root`.
    pub(crate) async fn entry_of(&self, root: &Cid, cid: &Cid, scope: Scope) -> Result<Entry, NodeError> {
        let block = self.block_of(root, cid, scope).await?;
        Ok(Entry::parse(cid.codec(), &block)?)
    }

    /// All entries of a directory, by name, `limit` at most.
    pub(crate) async fn list(&self, cid: &Cid, limit: usize, scope: Scope) -> Result<Vec<Link>, NodeError> {
        let (root, mut reader) = (cid, DirectoryReader::new(cid.clone()));
        let mut entries = Vec::new();
        while let (Some(cid), true) = (reader.want().cloned(), entries.len() < limit) {
            let block = self.block_of(root, &cid, scope).await?;
            entries.extend(reader.provide(&block)?);
        }
        entries.truncate(limit);
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Reads bytes `start .. end` of a file.
    pub(crate) fn read(self: &Arc<Self>, root: Cid, start: u64, end: u64, scope: Scope) -> Reader {
        let ahead = Ahead::new(Arc::clone(self), root.clone(), scope);
        Reader { walk: FileReader::new(root, start, end), ahead }
    }

    /// Makes sure that a block and all below it are held here; the bytes of them all.
    pub(crate) async fn fetch_all(self: &Arc<Self>, root: &Cid) -> Result<u64, NodeError> {
        self.fetch_all_but(root, Seen::default(), &Held::default()).await
    }

    /// As [`Node::fetch_all`], without these blocks and what only they lead to; `counted` says how far it has come.
    pub(crate) async fn fetch_all_but(
        self: &Arc<Self>,
        root: &Cid,
        mut seen: Seen,
        counted: &Held,
    ) -> Result<u64, NodeError> {
        seen.insert(root)?;
        let mut open = vec![root.clone()];
        let mut coming = JoinSet::new();
        loop {
            while coming.len() < WIDE
                && let Some(cid) = open.pop()
            {
                let (node, root) = (Arc::clone(self), root.clone());
                coming.spawn(async move { node.hold(&root, &cid).await });
            }
            let Some(held) = coming.join_next().await else {
                return Ok(counted.bytes.load(Ordering::Relaxed));
            };
            let (size, children) = held.unwrap_or(Err(NodeError::Store(StoreError::ReadOnly)))?;
            counted.add(size);
            // noted when first met: a node that links a million times to one child adds one entry
            for child in children.into_iter().rev() {
                if seen.insert(&child)? {
                    open.push(child);
                }
            }
        }
    }

    /// Makes sure that a block is held here; its size and what it links to.
    async fn hold(&self, root: &Cid, cid: &Cid) -> Result<(usize, Vec<Cid>), NodeError> {
        let (block, remote) = self.block_from(root, cid, Scope::Mesh).await?;
        let (size, children) = (block.len(), links(cid.codec(), &block)?);
        if remote {
            // what could not be kept while it was fetched fails the pin
            let (data, _share) = block.into_parts();
            self.storage.put(vec![Block { cid: cid.clone(), data }]).await?;
        }
        Ok((size, children))
    }
}

fn supported(cid: &Cid) -> Result<(), NodeError> {
    match cid.hash() {
        content_id::Multihash::Other { code, .. } => {
            Err(NodeError::Unverifiable(VerifyError::UnsupportedHash(*code)))
        }
        _ => Ok(()),
    }
}

/// The bytes of a file, block by block; the next blocks are got meanwhile.
pub(crate) struct Reader {
    walk: FileReader,
    pub(crate) ahead: Ahead,
}

impl Reader {
    /// The next bytes; `None` at the end. Those before have been sent, or dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<Part>, NodeError> {
        while let Some(cid) = self.walk.want().cloned() {
            let block = self.ahead.block(&cid).await?;
            let piece = self.walk.look(&block)?;
            self.ahead.fill(self.walk.want().into_iter().chain(self.walk.upcoming()));
            let part = match piece {
                Piece::Within(left) => Part::of(&cid, Some(block), left),
                Piece::Own(left) => Part::own(&cid, block, left)?,
            };
            if !part.left.is_empty() {
                return Ok(Some(part));
            }
        }
        Ok(None)
    }
}

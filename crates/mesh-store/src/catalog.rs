//! The catalogues: this node's, which it publishes through the router, and those of all nodes in
//! reach; and the copies that nodes keep of what others publish.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use content_id::{Cid, Codec};
use mesh_ipc::router::{KIND_CATALOG, Record, RouterRequest, RouterResponse};
use mesh_ipc::store as ipc;
use mesh_ipc::{Request, Response};
use mesh_sys::clock;
use mesh_types::NodeId;
use store_core::catalog::{
    self, Catalog, Held, MAX_ABOUT, MAX_NAME, MAX_PAGES, NodeKey, PAGE, Published, Root,
};
use store_core::replicas::{self, Config, Input, Output, Replicas, View};
use store_core::{Pin, StoreError};
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore};

use crate::frames::Frames;
use crate::node::{Node, NodeError, Scope};
use crate::peers::{GATEWAY, PORT};
use crate::settings::libp2p_names;

/// Without a refresh a catalogue is forgotten after this, in milliseconds.
const VALIDITY_MS: u32 = 60_000;
/// The same for tests.
const FAST_VALIDITY_MS: u32 = 8_000;
/// Time between two attempts to reach the router, or to load a catalogue.
const RETRY: Duration = Duration::from_secs(2);
/// Changes of this node's catalogue are collected for that long.
const SETTLE: Duration = Duration::from_secs(1);
/// Catalogues loaded at the same time.
const MAX_LOADING: usize = 8;
/// The format of a record: this byte, then the root's CID.
const RECORD: u8 = 1;
/// How long a node that left counts as there, and a copy that others keep stays.
const SLOW: (mesh_types::Duration, mesh_types::Duration) = seconds(60, 600);
const FAST: (mesh_types::Duration, mesh_types::Duration) = seconds(3, 10);

const fn seconds(a: u64, b: u64) -> (mesh_types::Duration, mesh_types::Duration) {
    (mesh_types::Duration::from_secs(a), mesh_types::Duration::from_secs(b))
}

/// What the catalogues need beside the node.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) me: NodeId,
    /// This node's public key.
    pub(crate) key: [u8; 32],
    /// Holds the root of this node's catalogue.
    pub(crate) file: PathBuf,
    pub(crate) router: PathBuf,
    pub(crate) copies: usize,
    /// For tests: seconds instead of minutes.
    pub(crate) fast: bool,
}

/// All catalogues.
pub(crate) struct Catalogs {
    node: Arc<Node>,
    place: Place,
    inner: Mutex<Inner>,
    /// One change of this node's catalogue at a time.
    saving: tokio::sync::Mutex<()>,
    /// The root is another one now.
    changed: Notify,
    /// The copies have something to do.
    wake: Notify,
    loading: Semaphore,
}

struct Inner {
    own: Catalog,
    root: Option<Cid>,
    others: BTreeMap<NodeId, Other>,
    replicas: Replicas,
}

/// What is known of another node's catalogue.
struct Other {
    hops: u8,
    cid: Cid,
    /// `None` until it has been loaded.
    root: Option<Root>,
    /// Its peer identifier, if its catalogue has its key.
    peer_id: Option<String>,
    /// A task is loading it.
    busy: bool,
}

impl Catalogs {
    /// Reads this node's catalogue.
    pub(crate) async fn open(node: Arc<Node>, place: Place) -> Self {
        let key = *place.me.as_bytes();
        let (root, own) = match read_own(&node, &place).await {
            Ok(found) => found.unzip(),
            Err(e) => {
                log::error!(target: "catalog", "{}: {e}; this node publishes nothing now", place.file.display());
                (None, None)
            }
        };
        drop_strays(&node, &place, root.as_ref()).await;
        let own = own.unwrap_or_else(|| Catalog { node: key, ..Catalog::default() });
        let held = own.held.iter().map(|h| (h.root.clone(), h.publisher, h.size)).collect();
        let (grace, linger) = if place.fast { FAST } else { SLOW };
        let config = Config { me: key, copies: place.copies, grace, linger };
        let mut replicas = Replicas::new(config, held);
        replicas.set_own(clock::now(), own.published.iter().map(|p| p.root.clone()));
        let inner = Inner { own, root, others: BTreeMap::new(), replicas };
        Self {
            node,
            place,
            inner: Mutex::new(inner),
            saving: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            wake: Notify::new(),
            loading: Semaphore::new(MAX_LOADING),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs for ever: records to and from the router, copies for others.
    pub(crate) fn start(self: &Arc<Self>) {
        let hints = Arc::downgrade(self);
        self.node.set_hints(move |root| hints.upgrade().map(|all| all.holders(root)).unwrap_or_default());
        tokio::spawn(Arc::clone(self).records());
        tokio::spawn(Arc::clone(self).copies());
    }

    /// Peer identifiers of nodes and the addresses of their gateways.
    pub(crate) fn known_peers(&self) -> Vec<(String, SocketAddr)> {
        let inner = self.lock();
        let known = inner.others.iter().filter_map(|(node, other)| {
            Some((other.peer_id.clone()?, SocketAddr::new(node.ula_address().into(), GATEWAY)))
        });
        known.collect()
    }

    /// Where the nodes that should have a root serve nodes.
    pub(crate) fn holders(&self, root: &Cid) -> Vec<SocketAddr> {
        let inner = self.lock();
        let catalogs = inner.others.iter().filter(|(_, other)| other.cid == *root).map(|(node, _)| *node);
        let copies = inner.replicas.holders(root).map(NodeId::from_digest);
        let nodes: BTreeSet<NodeId> = catalogs.chain(copies).collect();
        nodes.into_iter().map(endpoint).collect()
    }

    /// Puts content that is held here into this node's catalogue.
    pub(crate) async fn publish(&self, root: &Cid, name: &str, about: &str) -> Result<(), String> {
        if name.is_empty() || name.len() > MAX_NAME || about.len() > MAX_ABOUT {
            return Err(format!("a name has 1 to {MAX_NAME} bytes, a description at most {MAX_ABOUT}"));
        }
        let _protection = self.node.storage.protect();
        let size = self.node.fetch_all(root).await.map_err(|e| e.to_string())?;
        let entry = Published { name: name.into(), about: about.into(), root: root.clone(), size };
        self.change(move |own| {
            own.published.retain(|p| p.name != entry.name);
            if own.published.len() >= PAGE * MAX_PAGES {
                return Err("the catalogue is full; publish a folder around the files".into());
            }
            own.published.push(entry);
            Ok(())
        })
        .await
    }

    /// Takes it out again.
    pub(crate) async fn unpublish(&self, what: &str) -> Result<(), String> {
        let cid = what.trim_start_matches("/ipfs/").parse::<Cid>().ok().map(|cid| cid.to_v1());
        self.change(move |own| {
            let before = own.published.len();
            own.published.retain(|p| p.name != what && Some(p.root.to_v1()) != cid);
            let found = own.published.len() < before;
            if found { Ok(()) } else { Err(format!("this node publishes nothing called {what:?}")) }
        })
        .await
    }

    /// Changes this node's catalogue; it is on the medium when this returns.
    async fn change(&self, change: impl FnOnce(&mut Catalog) -> Result<(), String>) -> Result<(), String> {
        let _turn = self.saving.lock().await;
        let _protection = self.node.storage.protect();
        let (mut own, old) = {
            let inner = self.lock();
            (inner.own.clone(), inner.root.clone())
        };
        change(&mut own)?;
        let blocks = own.encode();
        let Some(root) = blocks.first().map(|block| block.cid.clone()) else { return Ok(()) };
        if Some(&root) == old.as_ref() {
            return Ok(());
        }
        let failed = |e: StoreError| e.to_string();
        self.node.storage.put(blocks).await.map_err(failed)?;
        let pinned = root.clone();
        let pin = self.node.storage.call(move |store| store.pin(&pinned, Pin::Recursive)).await;
        pin.and_then(|done| done).map_err(failed)?;
        self.node.storage.commit().await.map_err(failed)?;
        mesh_sys::file::write_atomic(&self.place.file, format!("{root}\n").as_bytes(), 0o640)
            .map_err(|e| format!("{}: {e}", self.place.file.display()))?;
        {
            let mut inner = self.lock();
            inner.replicas.set_own(clock::now(), own.published.iter().map(|p| p.root.clone()));
            inner.root = Some(root);
            inner.own = own;
        }
        self.changed.notify_one();
        self.wake.notify_one();
        if let Some(old) = old {
            let unpin = self.node.storage.call(move |store| store.unpin(&old)).await;
            unpin.and_then(|done| done).map_err(failed)?;
        }
        Ok(())
    }

    /// What it publishes, what it keeps for others, and nodes whose catalogues are known.
    pub(crate) fn figures(&self) -> [(&'static str, u64); 3] {
        let inner = self.lock();
        let known = inner.others.values().filter(|other| other.root.is_some()).count();
        [
            ("published", inner.own.published.len() as u64),
            ("kept_for_others", inner.own.held.len() as u64),
            ("catalogs_known", known as u64),
        ]
    }

    /// The root of this node's catalogue: pinned, but by nobody.
    pub(crate) fn own_root(&self) -> Option<Cid> {
        self.lock().root.clone()
    }

    /// Everything that nodes in reach publish, by name.
    pub(crate) async fn list(&self) -> Vec<ipc::Published> {
        let (own, others) = {
            let inner = self.lock();
            let others: Vec<(NodeId, u8, Cid, Vec<Cid>)> = inner
                .others
                .iter()
                .filter_map(|(node, o)| Some((*node, o.hops, o.cid.clone(), o.root.as_ref()?.pages.clone())))
                .collect();
            (inner.own.published.clone(), others)
        };
        let hops = self.node.peers.hops().await;
        let mut all: Vec<ipc::Published> = own.into_iter().map(|p| self.shown(p, self.place.me, 0)).collect();
        for (node, far, root, pages) in others {
            let far = hops.get(&IpAddr::from(node.ula_address())).copied().unwrap_or(far);
            for page in pages {
                match self.page(&root, &page).await {
                    Ok(entries) => all.extend(entries.into_iter().map(|p| self.shown(p, node, far))),
                    Err(e) => log::warn!(target: "catalog", "a page of node {node} is missing: {e}"),
                }
            }
        }
        all.sort_by(|a, b| (&a.name, a.hops, a.node).cmp(&(&b.name, b.hops, b.node)));
        all
    }

    fn shown(&self, entry: Published, node: NodeId, hops: u8) -> ipc::Published {
        let inner = self.lock();
        let mut holders: BTreeSet<NodeKey> = inner.replicas.holders(&entry.root).collect();
        if inner.replicas.held().any(|(root, ..)| *root == entry.root) {
            holders.insert(*self.place.me.as_bytes());
        }
        holders.insert(*node.as_bytes());
        ipc::Published {
            name: entry.name,
            description: entry.about,
            size: entry.size,
            cid: entry.root.to_string(),
            node,
            hops,
            copies: holders.len() as u32,
        }
    }

    async fn page(&self, root: &Cid, page: &Cid) -> Result<Vec<Published>, String> {
        let block = self.node.block_of(root, page, Scope::Mesh).await.map_err(|e| e.to_string())?;
        catalog::read_published(&block).map_err(|e| e.to_string())
    }

    /// Records to and from the router, also when it starts again.
    async fn records(self: Arc<Self>) {
        loop {
            if let Err(e) = self.converse().await {
                log::debug!(target: "catalog", "mesh-router: {e}; it is tried again");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn converse(self: &Arc<Self>) -> io::Result<()> {
        let mut frames = Frames::new(UnixStream::connect(&self.place.router).await?);
        frames.write(&Request::Service(RouterRequest::Subscribe { kinds: vec![KIND_CATALOG] })).await?;
        let mut snapshot = Some(BTreeSet::new());
        self.change(|own| {
            own.node = *self.place.me.as_bytes();
            own.key = Some(self.place.key);
            Ok(())
        })
        .await
        .map_err(io::Error::other)?;
        self.announce(&mut frames).await?;
        loop {
            let answer =
                match either(frames.read::<Response<RouterResponse>>(), self.changed.notified()).await {
                    Either::First(answer) => answer?,
                    Either::Second(()) => {
                        tokio::time::sleep(SETTLE).await;
                        self.announce(&mut frames).await?;
                        continue;
                    }
                };
            match answer {
                Some(Response::Service(RouterResponse::Record(r))) if r.kind == KIND_CATALOG => {
                    if let Some(seen) = &mut snapshot {
                        seen.insert(r.node);
                    }
                    self.record(&r);
                }
                Some(Response::Service(RouterResponse::RecordGone { node, kind: KIND_CATALOG })) => {
                    self.gone(node);
                }
                Some(Response::Service(RouterResponse::SnapshotDone)) => {
                    let seen = snapshot.take().unwrap_or_default();
                    let known: Vec<NodeId> = self.lock().others.keys().copied().collect();
                    known.into_iter().filter(|node| !seen.contains(node)).for_each(|node| self.gone(node));
                }
                Some(Response::Error(e)) => log::warn!(target: "catalog", "mesh-router: {e}"),
                Some(_) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    async fn announce(&self, frames: &mut Frames) -> io::Result<()> {
        let Some(root) = self.own_root() else { return Ok(()) };
        let mut payload = vec![RECORD];
        root.write_to(&mut payload);
        let validity_ms = if self.place.fast { FAST_VALIDITY_MS } else { VALIDITY_MS };
        let publish = RouterRequest::Publish { kind: KIND_CATALOG, payload, validity_ms };
        frames.write(&Request::Service(publish)).await
    }

    fn record(self: &Arc<Self>, record: &Record) {
        let Some((&RECORD, cid)) = record.payload.split_first() else { return };
        let Ok(cid) = Cid::from_bytes(cid) else { return };
        if record.node == self.place.me {
            return;
        }
        let mut inner = self.lock();
        if inner.others.len() >= replicas::MAX_NODES && !inner.others.contains_key(&record.node) {
            return;
        }
        let other = inner.others.entry(record.node).or_insert(Other {
            hops: record.hops,
            cid: cid.clone(),
            root: None,
            peer_id: None,
            busy: false,
        });
        other.hops = record.hops;
        if other.cid != cid {
            (other.cid, other.root) = (cid, None);
        }
        if other.root.is_none() && !other.busy {
            other.busy = true;
            tokio::spawn(Arc::clone(self).load(record.node));
        }
    }

    fn gone(&self, node: NodeId) {
        let mut inner = self.lock();
        inner.others.remove(&node);
        inner.replicas.handle_input(clock::now(), Input::Gone(*node.as_bytes()));
        self.wake.notify_one();
    }

    /// Loads the catalogue of a node, until it is there or the node is gone.
    async fn load(self: Arc<Self>, node: NodeId) {
        loop {
            let wanted = self.lock().others.get(&node).filter(|o| o.root.is_none()).map(|o| o.cid.clone());
            let Some(cid) = wanted else { break };
            let loaded = {
                let Ok(_turn) = self.loading.acquire().await else { return };
                self.read(node, &cid).await
            };
            match loaded {
                Ok((root, view)) => {
                    let mut inner = self.lock();
                    let other = inner.others.get_mut(&node).filter(|other| other.cid == cid);
                    if let Some(other) = other {
                        other.peer_id = root.key.map(|key| libp2p_names(&key).0);
                        other.root = Some(root);
                        inner.replicas.handle_input(clock::now(), Input::Node(*node.as_bytes(), view));
                        self.wake.notify_one();
                    }
                }
                Err(why) => {
                    log::debug!(target: "catalog", "the catalogue of node {node}: {why}");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        if let Some(other) = self.lock().others.get_mut(&node) {
            other.busy = false;
        }
    }

    async fn read(&self, node: NodeId, cid: &Cid) -> Result<(Root, View), String> {
        let text = |e: NodeError| e.to_string();
        let wrong = |e: content_id::dag::DagError| format!("{e}; it is not in the format");
        let block = self.node.block_of(cid, cid, Scope::Mesh).await.map_err(text)?;
        let root = catalog::read_root(&block).map_err(wrong)?;
        if root.node != *node.as_bytes() {
            return Err("it is that of another node".into());
        }
        if root.key.is_some_and(|key| content_id::sha256(&key) != root.node) {
            return Err("it has the key of another node".into());
        }
        let mut view = View { full: root.full, ..View::default() };
        for page in &root.pages {
            let block = self.node.block_of(cid, page, Scope::Mesh).await.map_err(text)?;
            let entries = catalog::read_published(&block).map_err(wrong)?;
            view.published.extend(entries.into_iter().map(|p| (p.root, p.size)));
        }
        for page in &root.held {
            let block = self.node.block_of(cid, page, Scope::Mesh).await.map_err(text)?;
            let entries = catalog::read_held(&block).map_err(wrong)?;
            view.held.extend(entries.into_iter().map(|h| (h.root, h.publisher, h.size)));
        }
        Ok((root, view))
    }

    /// Copies for others, as [`Replicas`] says.
    async fn copies(self: Arc<Self>) {
        loop {
            self.room().await;
            let due = {
                let mut inner = self.lock();
                inner.replicas.handle_timeout(clock::now());
                inner.replicas.poll_timeout()
            };
            let mut changed = false;
            loop {
                let output = self.lock().replicas.poll_output();
                match output {
                    Some(Output::Changed) => changed = true,
                    Some(Output::Fetch { root, size, .. }) => {
                        log::info!(target: "catalog", "a copy of {root} ({size} bytes) is fetched for the mesh");
                        tokio::spawn(Arc::clone(&self).keep(root));
                    }
                    None => break,
                }
            }
            if changed {
                self.save_held().await;
            }
            let left = due.map(|due| Duration::from_micros(due.saturating_since(clock::now()).as_micros()));
            let woken = self.wake.notified();
            match left {
                Some(left) => drop(tokio::time::timeout(left, woken).await),
                None => woken.await,
            }
        }
    }

    /// Copies take at most half of the store, and leave a tenth of it free.
    async fn room(&self) {
        let Ok(stat) = self.node.storage.call(|store| store.stat()).await else { return };
        let (full, wanted) = {
            let mut inner = self.lock();
            let held: u64 = inner.replicas.held().map(|(.., size)| size).sum();
            // what no pin holds makes room
            let free = (stat.quota / 10 * 9).saturating_sub(stat.kept);
            let room = (stat.quota / 2).saturating_sub(held).min(free);
            inner.replicas.handle_input(clock::now(), Input::Room(room));
            let full = inner.own.full;
            (full, if full { room < stat.quota / 10 } else { room < stat.quota / 20 })
        };
        if wanted != full {
            let changed = self.change(|own| {
                own.full = wanted;
                Ok(())
            });
            if let Err(e) = changed.await {
                log::warn!(target: "catalog", "{e}");
            }
        }
    }

    async fn keep(self: Arc<Self>, root: Cid) {
        let _protection = self.node.storage.protect();
        let result = self.node.fetch_all(&root).await;
        if let Err(e) = &result {
            log::info!(target: "catalog", "no copy of {root} for now: {e}");
        }
        let fetched = Input::Fetched { root, whole: result.is_ok() };
        self.lock().replicas.handle_input(clock::now(), fetched);
        // its pin comes with the catalogue that names it
        self.save_held().await;
        self.wake.notify_one();
    }

    async fn save_held(&self) {
        let held: Vec<Held> = {
            let inner = self.lock();
            let held = inner.replicas.held();
            held.map(|(root, publisher, size)| Held { root: root.clone(), publisher, size }).collect()
        };
        let changed = self.change(|own| {
            own.held = held;
            Ok(())
        });
        if let Err(e) = changed.await {
            log::warn!(target: "catalog", "{e}");
        }
    }
}

fn endpoint(node: NodeId) -> SocketAddr {
    SocketAddr::new(node.ula_address().into(), PORT)
}

/// This node's catalogue, from the store; `None` if it never had one.
async fn read_own(node: &Arc<Node>, place: &Place) -> Result<Option<(Cid, Catalog)>, String> {
    let text = match mesh_sys::file::read_limited(&place.file, 200) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let text = String::from_utf8_lossy(&text);
    let cid: Cid = text.trim().parse().map_err(|e| format!("{text:?}: {e}"))?;
    let failed = |e: NodeError| e.to_string();
    let wrong = |e: content_id::dag::DagError| e.to_string();
    let root = catalog::read_root(&node.block(&cid, Scope::Local).await.map_err(failed)?).map_err(wrong)?;
    let mut own = Catalog { node: root.node, key: root.key, full: root.full, ..Catalog::default() };
    for page in &root.pages {
        let block = node.block(page, Scope::Local).await.map_err(failed)?;
        own.published.extend(catalog::read_published(&block).map_err(wrong)?);
    }
    for page in &root.held {
        let block = node.block(page, Scope::Local).await.map_err(failed)?;
        own.held.extend(catalog::read_held(&block).map_err(wrong)?);
    }
    Ok(Some((cid, own)))
}

/// Unpins catalogues of this node that a power cut left between their pin and their file.
async fn drop_strays(node: &Arc<Node>, place: &Place, root: Option<&Cid>) {
    let (me, keep) = (*place.me.as_bytes(), root.cloned());
    let dropped = node.storage.call(move |store| {
        let pinned: Vec<Cid> = store
            .pins()
            .filter(|(cid, _)| cid.codec() == Codec::DAG_CBOR && Some(*cid) != keep.as_ref())
            .map(|(cid, _)| cid.clone())
            .collect();
        for cid in pinned {
            let block = store.get(&cid)?;
            let ours = block.and_then(|block| catalog::read_root(&block).ok()).is_some_and(|r| r.node == me);
            if ours {
                store.unpin(&cid)?;
            }
        }
        Ok::<(), StoreError>(())
    });
    if let Err(e) = dropped.await.and_then(|done| done) {
        log::warn!(target: "catalog", "{e}");
    }
}

enum Either<A, B> {
    First(A),
    Second(B),
}

/// Whichever is done first; the other one is dropped.
async fn either<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> Either<A, B> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    std::future::poll_fn(move |context| {
        if let Poll::Ready(value) = a.as_mut().poll(context) {
            return Poll::Ready(Either::First(value));
        }
        b.as_mut().poll(context).map(Either::Second)
    })
    .await
}

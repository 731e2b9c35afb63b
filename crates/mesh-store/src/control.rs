//! The control socket: `<run-dir>/mesh-store.sock`.

mod pins;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use content_id::Cid;
use content_id::dagpb::Link;
use content_id::export::{DirectoryReader, links};
use content_id::ipns::Name;
use content_id::unixfs::Kind;
use mesh_ipc::store::{DATA_MAX, Entry, EntryKind, LIST_MAX, Stat, StoreRequest, StoreResponse};
use mesh_ipc::{Request, Response, ServiceStatus};
use store_core::Listed;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::add::Add;
use crate::ahead::Ahead;
use crate::car::{Export, Import};
use crate::catalog::Catalogs;
use crate::frames::Frames;
use crate::names::Names;
use crate::node::{Node, NodeError, Scope};
use crate::seen::Seen;
use crate::sending::Part;
use crate::storage::Step;
use crate::target::Target;

/// Clients at the same time.
const MAX_CLIENTS: usize = 32;
/// Time after which a client hears of long work.
const STILL_AT_IT: Duration = Duration::from_secs(5);
/// Links that wait to be followed while references are listed.
const MAX_OPEN: usize = 200_000;

/// What the control socket needs beside the node.
pub(crate) struct Control {
    pub(crate) node: Arc<Node>,
    /// `None` on a node without an identity.
    pub(crate) catalogs: Option<Arc<Catalogs>>,
    pub(crate) names: Arc<Names>,
    pub(crate) started: Instant,
    /// Peer identifier and public key as libp2p writes them.
    pub(crate) identity: Option<(String, String)>,
    pub(crate) addresses: Vec<String>,
    pub(crate) path: String,
    pub(crate) problems: Vec<String>,
}

type Reply = Response<StoreResponse>;

/// How a request ends: the client is gone, or is told why it failed.
enum End {
    Gone,
    Failed(String),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<NodeError> for End {
    fn from(e: NodeError) -> Self {
        Self::Failed(e.to_string())
    }
}

impl From<store_core::StoreError> for End {
    fn from(e: store_core::StoreError) -> Self {
        Self::Failed(e.to_string())
    }
}

/// Answers clients for ever.
pub(crate) async fn serve(listener: UnixListener, control: Arc<Control>) {
    let turns = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let control = Arc::clone(&control);
                tokio::spawn(async move {
                    control.client(socket).await;
                    drop(turn);
                });
            }
            Err(e) => {
                log::warn!(target: "control", "a client could not be accepted: {e}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

impl Control {
    async fn client(&self, socket: UnixStream) {
        let mut frames = Frames::new(socket);
        loop {
            let request = match frames.read::<Request<StoreRequest>>().await {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(e) => {
                    let _ = frames.write(&Reply::Error(e.to_string())).await;
                    return;
                }
            };
            let is_add = matches!(
                request,
                Request::Service(StoreRequest::AddBegin(_) | StoreRequest::CarBegin { .. })
            );
            let result = match request {
                Request::Status => frames.write(&Reply::Status(self.status().await)).await.map_err(End::from),
                Request::Service(request) => self.answer(&mut frames, request).await,
            };
            match result {
                Ok(()) => {}
                Err(End::Gone) => return,
                Err(End::Failed(why)) => {
                    // the rest of a failed add would be out of step
                    if frames.write(&Reply::Error(why)).await.is_err() || is_add {
                        return;
                    }
                }
            }
        }
    }

    async fn answer(&self, frames: &mut Frames, request: StoreRequest) -> Result<(), End> {
        match request {
            StoreRequest::AddBegin(options) => return self.add(frames, options).await,
            StoreRequest::AddEntry { .. }
            | StoreRequest::Meta { .. }
            | StoreRequest::Data(_)
            | StoreRequest::File
            | StoreRequest::AddEnd
            | StoreRequest::CarEnd => return Err(End::Failed("no add is under way".into())),
            StoreRequest::CarBegin { pin } => return self.import(frames, pin).await,
            StoreRequest::CarExport { path } => self.export(frames, &path).await?,
            StoreRequest::Publish { path, name, description } => {
                let (_, cid) = self.resolve(&path).await?;
                self.catalogs()?.publish(&cid, &name, &description).await.map_err(End::Failed)?;
            }
            StoreRequest::Unpublish { what } => {
                self.catalogs()?.unpublish(&what).await.map_err(End::Failed)?;
            }
            StoreRequest::Catalog => {
                for part in self.catalogs()?.list().await.chunks(LIST_MAX / 2) {
                    send(frames, StoreResponse::Catalog(part.to_vec())).await?;
                }
            }
            StoreRequest::Cat { path, offset, length } => {
                self.cat(frames, &path, offset, length).await?;
            }
            StoreRequest::Resolve { path } => {
                let (target, cid) = self.resolve(&path).await?;
                let entry = self.describe(target.name().to_owned(), &target.root, &cid, true).await?;
                return send(frames, StoreResponse::Entries(vec![entry])).await;
            }
            StoreRequest::Ls { path } => self.ls(frames, &path).await?,
            StoreRequest::Refs { path, recursive, unique } => {
                self.refs(frames, &path, recursive, unique).await?;
            }
            StoreRequest::PinAdd { path, recursive, progress } => {
                return self.pin(frames, &path, recursive, progress).await;
            }
            StoreRequest::PinRemove { path, recursive } => {
                return self.unpin(frames, &path, recursive).await;
            }
            StoreRequest::PinFind { path, kind } => return self.find_pin(frames, &path, kind).await,
            StoreRequest::PinList { indirect } => self.pins(frames, indirect).await?,
            StoreRequest::IpnsPut { name, record } => self.put_name(&name, record).await?,
            StoreRequest::Gc { list } => return self.collect(frames, list).await,
            StoreRequest::Local => {
                let mut listed = Listed::default();
                while let Some((at, names)) = self.list_local(listed).await? {
                    listed = at;
                    send(frames, refs_of(&names)).await?;
                }
            }
            StoreRequest::Stat => return send(frames, StoreResponse::Stat(self.stat().await?)).await,
            StoreRequest::Identity => {
                let Some((peer_id, public_key)) = self.identity.clone() else {
                    return Err(End::Failed("this node has no identity; see meshctl status".into()));
                };
                let addresses = self.addresses.clone();
                return send(frames, StoreResponse::Identity { peer_id, public_key, addresses }).await;
            }
            StoreRequest::Peers => {
                let peers = self.node.fetcher.nearest_first().await;
                let known = self.catalogs.as_ref().map(|all| all.known_peers()).unwrap_or_default();
                let name = |a: &std::net::SocketAddr| {
                    let id = known.iter().find(|(_, gateway)| gateway.ip() == a.ip());
                    id.map_or_else(|| multiaddr(*a), |(id, _)| format!("{}/p2p/{id}", multiaddr(*a)))
                };
                return send(frames, StoreResponse::Peers(peers.iter().map(name).collect())).await;
            }
        }
        send(frames, StoreResponse::Done).await
    }

    async fn add(&self, frames: &mut Frames, options: mesh_ipc::store::AddOptions) -> Result<(), End> {
        let mut add = Add::begin(Arc::clone(&self.node), options).map_err(End::Failed)?;
        loop {
            let done = match frames.read::<Request<StoreRequest>>().await? {
                Some(Request::Service(StoreRequest::AddEntry { path, kind })) => {
                    add.entry(&path, &kind).await
                }
                Some(Request::Service(StoreRequest::Meta { mode, mtime })) => {
                    add.meta(mode, mtime);
                    Ok(())
                }
                Some(Request::Service(StoreRequest::Data(bytes))) => add.data(&bytes).await,
                Some(Request::Service(StoreRequest::File)) => {
                    self.read(frames, &mut add).await?;
                    Ok(())
                }
                Some(Request::Service(StoreRequest::AddEnd)) => {
                    for answer in add.end().await.map_err(End::Failed)? {
                        send(frames, answer).await?;
                    }
                    return Ok(());
                }
                Some(_) => Err("another request in the middle of an add".into()),
                None => return Err(End::Gone),
            };
            done.map_err(End::Failed)?;
            while let Some(answer) = add.answers.pop_front() {
                send(frames, answer).await?;
            }
        }
    }

    /// Reads a file that the client passes.
    async fn read(&self, frames: &mut Frames, add: &mut Add) -> Result<(), End> {
        send(frames, StoreResponse::Taken(0)).await?;
        let file = frames.file().await.map_err(|e| End::Failed(format!("no file was passed: {e}")))?;
        let mut parts = add.begin_read(file).map_err(End::Failed)?;
        loop {
            let bytes = add.read_on(&mut parts).await.map_err(End::Failed)?;
            send(frames, StoreResponse::Taken(bytes)).await?;
            if bytes == 0 {
                return Ok(());
            }
        }
    }

    fn catalogs(&self) -> Result<&Catalogs, End> {
        let why = "this node has no identity, so it can't publish; see meshctl status";
        self.catalogs.as_deref().ok_or_else(|| End::Failed(why.into()))
    }

    async fn import(&self, frames: &mut Frames, pin: bool) -> Result<(), End> {
        let mut import = Import::begin(Arc::clone(&self.node), pin);
        loop {
            match frames.read::<Request<StoreRequest>>().await? {
                Some(Request::Service(StoreRequest::Data(bytes))) => {
                    import.data(&bytes).await.map_err(End::Failed)?;
                }
                Some(Request::Service(StoreRequest::CarEnd)) => {
                    return send(frames, import.end().await.map_err(End::Failed)?).await;
                }
                Some(_) => return Err(End::Failed("another request in the middle of an import".into())),
                None => return Err(End::Gone),
            }
        }
    }

    async fn export(&self, frames: &mut Frames, path: &str) -> Result<(), End> {
        let (_, cid) = self.resolve(path).await?;
        let mut export = Export::new(Arc::clone(&self.node), cid);
        send(frames, StoreResponse::Data(export.head())).await?;
        while let Some((frame, part)) = export.next().await? {
            send(frames, StoreResponse::Data(frame)).await?;
            send_part(frames, part, &mut export.blocks).await?;
        }
        Ok(())
    }

    async fn resolve(&self, path: &str) -> Result<(Target, Cid), End> {
        let target = Target::from_text(path).map_err(|e| End::Failed(e.to_string()))?;
        let cid = self.node.resolve(&target.root, &target.segments, Scope::Mesh).await?;
        Ok((target, cid))
    }

    async fn cat(
        &self,
        frames: &mut Frames,
        path: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<(), End> {
        let (_, cid) = self.resolve(path).await?;
        let end = length.map_or(u64::MAX, |n| offset.saturating_add(n));
        let mut reader = self.node.read(cid, offset, end, Scope::Mesh);
        while let Some(part) = reader.next().await? {
            send_part(frames, part, &mut reader.ahead).await?;
        }
        Ok(())
    }

    async fn ls(&self, frames: &mut Frames, path: &str) -> Result<(), End> {
        let (_, cid) = self.resolve(path).await?;
        let entry = self.node.entry(&cid, Scope::Mesh).await?;
        if !matches!(entry.data.kind, Kind::Directory | Kind::HamtShard) {
            return self.describe_all(frames, &cid, entry.links).await;
        }
        let mut reader = DirectoryReader::new(cid.clone());
        while let Some(wanted) = reader.want().cloned() {
            let block = self.node.block_of(&cid, &wanted, Scope::Mesh).await?;
            let entries = reader.provide(&block).map_err(NodeError::from)?;
            drop(block);
            self.describe_all(frames, &cid, entries).await?;
        }
        Ok(())
    }

    /// Sends what is known of links below `root`.
    async fn describe_all(&self, frames: &mut Frames, root: &Cid, links: Vec<Link>) -> Result<(), End> {
        for part in links.chunks(LIST_MAX) {
            let mut entries = Vec::with_capacity(part.len());
            for link in part {
                let name = link.name.clone().unwrap_or_default();
                entries.push(self.describe(name, root, &link.cid, false).await?);
            }
            send(frames, StoreResponse::Entries(entries)).await?;
        }
        Ok(())
    }

    /// What a CID below `root` leads to. A block that can't be had is an error if it is `needed`.
    async fn describe(&self, name: String, root: &Cid, cid: &Cid, needed: bool) -> Result<Entry, End> {
        let mut described =
            Entry { name, cid: cid.to_string(), size: 0, kind: None, mode: None, mtime: None };
        match self.node.entry_of(root, cid, Scope::Mesh).await {
            Ok(entry) => {
                described.size = entry.size;
                described.mode = entry.data.mode;
                described.mtime = entry.data.mtime.map(|time| (time.seconds, time.nanos));
                described.kind = Some(match entry.data.kind {
                    Kind::File | Kind::Raw => EntryKind::File,
                    Kind::Directory | Kind::HamtShard => EntryKind::Directory,
                    Kind::Symlink => {
                        let target = entry.data.data.unwrap_or_default();
                        EntryKind::Symlink(String::from_utf8_lossy(&target).into_owned())
                    }
                });
                Ok(described)
            }
            Err(e) if needed => Err(e.into()),
            Err(_) => Ok(described),
        }
    }

    /// Each link, and what is below it before the next one.
    async fn refs(&self, frames: &mut Frames, path: &str, recursive: bool, unique: bool) -> Result<(), End> {
        let (_, root) = self.resolve(path).await?;
        let mut seen = Seen::default();
        let mut open = self.children(&root, &root).await?;
        let mut found = Vec::new();
        while let Some(cid) = open.pop() {
            if unique && !seen.insert(&cid)? {
                continue;
            }
            found.push(cid.to_string());
            if recursive {
                let children = self.children(&root, &cid).await?;
                open.extend(children.into_iter().filter(|child| !unique || !seen.contains(child)));
            }
            if open.len() > MAX_OPEN {
                return Err(End::Failed("too many links to list; ask for unique ones (-u)".into()));
            }
            if found.len() >= LIST_MAX {
                send(frames, StoreResponse::Refs(std::mem::take(&mut found))).await?;
            }
        }
        send(frames, StoreResponse::Refs(found)).await
    }

    /// What a block links to, the first link last. A raw block has none and is not fetched for that.
    async fn children(&self, root: &Cid, cid: &Cid) -> Result<Vec<Cid>, End> {
        if cid.codec() == content_id::Codec::RAW {
            return Ok(Vec::new());
        }
        let block = self.node.block_of(root, cid, Scope::Mesh).await?;
        let mut children = links(cid.codec(), &block).map_err(NodeError::from)?;
        children.reverse();
        Ok(children)
    }

    async fn put_name(&self, name: &str, record: Vec<u8>) -> Result<(), End> {
        let name = Name::parse(name).ok_or_else(|| End::Failed(format!("{name:?} is no IPNS name")))?;
        self.names.put(name, record).await.map_err(|e| End::Failed(e.to_string()))?;
        Ok(())
    }

    async fn collect(&self, frames: &mut Frames, list: bool) -> Result<(), End> {
        let mut collecting = self.node.storage.collect(list).await;
        let mut told = Instant::now();
        loop {
            match collecting.step().await? {
                // an empty list now and then says that it goes on
                Step::Dropped(names) if !names.is_empty() || told.elapsed() >= STILL_AT_IT => {
                    told = Instant::now();
                    send(frames, refs_of(&names)).await?;
                }
                Step::Dropped(_) => {}
                Step::Done(done, unnamed) => {
                    log::info!(target: "store", "collected {} blocks, {} bytes given back", done.blocks, done.bytes);
                    let (blocks, bytes) = (done.blocks, done.bytes);
                    return send(frames, StoreResponse::Collected { blocks, bytes, unnamed }).await;
                }
            }
        }
    }

    async fn list_local(&self, mut listed: Listed) -> Result<Option<(Listed, Vec<Cid>)>, End> {
        let next = move |store: &mut store_core::Store<_>| {
            store.list(&mut listed).map(|names| names.map(|names| (listed, names)))
        };
        Ok(self.node.storage.call(next).await??)
    }

    async fn stat(&self) -> Result<Stat, End> {
        let stat = self.node.storage.call(|store| store.stat()).await?;
        Ok(Stat {
            blocks: stat.blocks,
            bytes: stat.bytes,
            quota: stat.quota,
            pins: stat.pins,
            path: self.path.clone(),
        })
    }

    async fn status(&self) -> ServiceStatus {
        let counters = &self.node.counters;
        let load = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
        let (stat, read_only) =
            self.node.storage.call(|s| (s.stat(), s.is_read_only())).await.unwrap_or_default();
        let mut problems = self.problems.clone();
        if read_only {
            problems.push(store_core::StoreError::ReadOnly.to_string());
        }
        if stat.quota > 0 && stat.kept > stat.quota / 10 * 9 {
            problems.push(
                "what is pinned fills more than 90 % of the store; remove pins, or raise store.quota".into(),
            );
        }
        if stat.corrupt > 0 {
            problems.push(format!(
                "{} blocks went bad on the disk and were dropped; the card may be at its end",
                stat.corrupt
            ));
        }
        let counter = |name: &str, value: u64| (name.to_owned(), value);
        let figures = self.catalogs.as_ref().map(|catalogs| catalogs.figures());
        let figures = figures.into_iter().flatten().map(|(name, value)| counter(name, value));
        ServiceStatus {
            service: "mesh-store".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            problems,
            counters: vec![
                counter("blocks", stat.blocks),
                counter("bytes", stat.bytes),
                counter("quota_bytes", stat.quota),
                counter("kept_bytes", stat.kept),
                counter("pins", stat.pins),
                counter("corrupt_blocks", stat.corrupt),
                counter("http_requests", load(&counters.requests)),
                counter("node_requests", load(&counters.node_requests)),
                counter("http_connections", load(&counters.connections)),
                counter("fetched_blocks", load(&counters.fetched)),
                counter("fetched_bytes", load(&counters.fetched_bytes)),
                counter("fetch_failures", load(&counters.not_fetched)),
                counter("memory_bytes", self.node.storage.memory.held() as u64),
            ]
            .into_iter()
            .chain(figures)
            .collect(),
        }
    }
}

/// An address of a gateway as libp2p writes it.
pub(crate) fn multiaddr(address: std::net::SocketAddr) -> String {
    let family = if address.is_ipv6() { "ip6" } else { "ip4" };
    format!("/{family}/{}/tcp/{}/http", address.ip(), address.port())
}

fn refs_of(cids: &[Cid]) -> StoreResponse {
    StoreResponse::Refs(cids.iter().map(Cid::to_string).collect())
}

/// Sends bytes of a block, which makes room for others meanwhile.
async fn send_part(frames: &mut Frames, mut part: Part, ahead: &mut Ahead) -> Result<(), End> {
    while let Some(piece) = part.piece(DATA_MAX, ahead).await? {
        part.until(send(frames, StoreResponse::Data(piece.into())), ahead).await?;
    }
    Ok(())
}

async fn send(frames: &mut Frames, response: StoreResponse) -> Result<(), End> {
    Ok(frames.write(&Reply::Service(response)).await?)
}

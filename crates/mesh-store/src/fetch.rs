//! Blocks from other nodes: [`store_core::exchange`] says whom to ask, here they are asked, over
//! HTTP, and what they send is verified.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use content_id::{Cid, MAX_BLOCK};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CACHE_CONTROL, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use mesh_sys::clock;
use mesh_types::Instant;
use store_core::exchange::{Answer, Ask, Exchange, Input, Missing, Output, RequestId, SessionId, WantId};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::body::Body;
use crate::memory::{Loaded, Memory};
use crate::node::Node;
use crate::peers::{self, Peers};
use crate::pool;

/// Time for a TCP connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Time for the head of an answer, and between pieces of a body.
const ANSWER: Duration = Duration::from_secs(5);
/// Blocks whose giver is remembered.
const RECENT: usize = 256;

/// Fetches blocks from the nodes in reach.
pub(crate) struct Fetcher {
    peers: Arc<Peers>,
    memory: Memory,
    state: Mutex<State>,
    /// The next timeout may have changed.
    changed: Notify,
}

struct State {
    core: Exchange,
    /// The nodes in reach as the core was told last.
    reach: Vec<SocketAddr>,
    waiting: BTreeMap<WantId, oneshot::Sender<Result<Loaded, Missing>>>,
    running: BTreeMap<RequestId, AbortHandle>,
    /// Who gave a block last: it will have what is below it, too.
    recent: VecDeque<(Cid, SocketAddr)>,
    next: u64,
    timer: bool,
}

/// Cancels a want that nobody waits for any more.
struct Waiting {
    fetcher: Arc<Fetcher>,
    want: WantId,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.fetcher.lock();
        if state.waiting.remove(&self.want).is_some() {
            self.fetcher.input(&mut state, Input::Cancel(self.want), None);
        }
    }
}

impl Fetcher {
    pub(crate) fn new(peers: Arc<Peers>, memory: Memory, seed: u64) -> Self {
        let state = State {
            core: Exchange::new(seed),
            reach: Vec::new(),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            recent: VecDeque::new(),
            next: 0,
            timer: false,
        };
        Self { peers, memory, state: Mutex::new(state), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of the DAG at `root`, verified. `hints` are nodes that should have that DAG.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        root: &Cid,
        cid: &Cid,
        hints: &[SocketAddr],
    ) -> Result<Loaded, Missing> {
        let reach = self.peers.candidates().await;
        let (send, receive) = oneshot::channel();
        let waiting = {
            let mut state = self.lock();
            if state.reach != reach {
                self.input(&mut state, Input::Reach(&reach), None);
                state.reach = reach;
            }
            let session = SessionId(session_of(root));
            let known = state.core.providers(session).next().is_some();
            let mut peers = hints.to_vec();
            if hints.is_empty() {
                // whoever gave the root has the rest; else whoever gave a block last is worth a try
                let gave = state.recent.iter().rev().find(|(block, _)| block == root);
                peers.extend(gave.or(state.recent.back()).map(|(_, peer)| *peer));
                peers.retain(|peer| state.reach.contains(peer));
            }
            // what was learnt since then is better than a hint
            if !known && !peers.is_empty() {
                self.input(&mut state, Input::Providers { session, peers: &peers }, None);
            }
            state.next += 1;
            let want = WantId(state.next);
            state.waiting.insert(want, send);
            let waiting = Waiting { fetcher: Arc::clone(self), want };
            if !self.input(&mut state, Input::Want { want, session, cid }, None) {
                state.waiting.remove(&want);
            }
            if !state.timer {
                state.timer = true;
                tokio::spawn(Arc::clone(self).timer());
            }
            waiting
        };
        let result = receive.await.unwrap_or(Err(Missing::NoAnswer));
        drop(waiting);
        result
    }

    /// The nodes in reach, the nearest first, and those that failed last.
    pub(crate) async fn nearest_first(&self) -> Vec<SocketAddr> {
        let reach = self.peers.candidates().await;
        let mut state = self.lock();
        let now = clock::now();
        if state.reach != reach && state.core.handle_input(now, Input::Reach(&reach)).is_ok() {
            state.reach = reach;
        }
        state.core.nearest_first(now)
    }

    /// Nodes in reach that gave this block, or others of the DAG that it is the root of.
    pub(crate) fn givers(&self, cid: &Cid) -> Vec<SocketAddr> {
        let state = self.lock();
        let gave = state.recent.iter().filter(|(block, _)| block == cid).map(|(_, peer)| *peer);
        gave.chain(state.core.providers(SessionId(session_of(cid)))).collect()
    }

    /// Nodes that gave a block lately, the last one first, each once; three at the most.
    pub(crate) fn last_givers(&self) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        for (_, peer) in self.lock().recent.iter().rev() {
            if all.len() < 3 && !all.contains(peer) {
                all.push(*peer);
            }
        }
        all
    }

    /// Hands an input to the core and does what it says. `data` is the block that came with it.
    fn input(self: &Arc<Self>, state: &mut State, input: Input<'_>, data: Option<Loaded>) -> bool {
        let taken = state.core.handle_input(clock::now(), input);
        if let Err(e) = &taken {
            log::warn!(target: "fetch", "{e}");
        }
        self.drain(state, data);
        taken.is_ok()
    }

    fn drain(self: &Arc<Self>, state: &mut State, mut data: Option<Loaded>) {
        while let Some(output) = state.core.poll_output() {
            match output {
                Output::Ask { request, peer, cid, ask } => {
                    let fetcher = Arc::clone(self);
                    let task = tokio::spawn(async move { fetcher.ask(request, peer, cid, ask).await });
                    state.running.insert(request, task.abort_handle());
                }
                Output::Abort(request) => {
                    if let Some(task) = state.running.remove(&request) {
                        task.abort();
                    }
                }
                Output::Done { want, result } => {
                    if let Some(waiting) = state.waiting.remove(&want) {
                        let _ = waiting.send(result.and_then(|()| data.take().ok_or(Missing::NoAnswer)));
                    }
                }
            }
        }
        self.changed.notify_one();
    }

    /// Does what the core has to do at a time.
    async fn timer(self: Arc<Self>) {
        loop {
            let due = self.lock().core.poll_timeout();
            let left = due.map(until);
            let changed = self.changed.notified();
            match left {
                None => changed.await,
                Some(left) => {
                    if timeout(left, changed).await.is_err() {
                        let mut state = self.lock();
                        state.core.handle_timeout(clock::now());
                        self.drain(&mut state, None);
                    }
                }
            }
        }
    }

    async fn ask(self: Arc<Self>, request: RequestId, peer: SocketAddr, cid: Cid, ask: Ask) {
        let (answer, data) = match ask_one(&self.peers, &self.memory, peer, (&cid, ask)).await {
            Ok((answer, data)) => (answer, data),
            Err(()) => (Answer::Failed, None),
        };
        match answer {
            Answer::Lied => {
                log::warn!(target: "fetch", "{peer} sent wrong bytes for {cid}; it is asked last for a while");
            }
            Answer::Failed => self.peers.forget_idle(peer),
            _ => {}
        }
        let mut state = self.lock();
        if state.running.remove(&request).is_none() {
            return;
        }
        if answer == Answer::Block {
            if state.recent.len() >= RECENT {
                state.recent.pop_front();
            }
            state.recent.push_back((cid, peer));
        }
        self.input(&mut state, Input::Answer { request, answer }, data);
    }
}

fn until(due: Instant) -> Duration {
    Duration::from_micros(due.saturating_since(clock::now()).as_micros())
}

/// Blocks of one DAG share a session.
fn session_of(root: &Cid) -> u64 {
    let start = root.digest().and_then(|digest| digest.first_chunk::<8>());
    start.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

type Outcome = Result<(Answer, Option<Loaded>), ()>;

/// Whether the node at `address` has a block; `false` also if it does not say so within `time`.
pub(crate) async fn has(node: &Node, address: SocketAddr, cid: &Cid, time: Duration) -> bool {
    let asked = ask_one(&node.peers, &node.storage.memory, address, (cid, Ask::Have));
    matches!(timeout(time, asked).await, Ok(Ok((Answer::Has, _))))
}

/// Asks one node; a connection left open is tried first.
async fn ask_one(peers: &Peers, memory: &Memory, address: SocketAddr, what: (&Cid, Ask)) -> Outcome {
    if let Some(mut connection) = peers.take_idle(address) {
        // it may have been closed meanwhile: then a new one is made
        if let Some(outcome) = exchange(&mut connection, memory, address, what).await {
            return keep(peers, address, connection, outcome);
        }
    }
    let mut connection = connect(address).await.ok_or(())?;
    let outcome = exchange(&mut connection, memory, address, what).await.ok_or(())?;
    keep(peers, address, connection, outcome)
}

fn keep(peers: &Peers, address: SocketAddr, connection: SendRequest<Body>, outcome: Outcome) -> Outcome {
    if matches!(outcome, Ok((Answer::Block | Answer::Has | Answer::Absent, _))) {
        peers.keep_idle(address, connection);
    }
    outcome
}

async fn connect(address: SocketAddr) -> Option<SendRequest<Body>> {
    let socket = timeout(CONNECT, peers::connect(address)).await.ok()?.ok()?;
    let _ = socket.set_nodelay(true);
    let (sender, connection) = handshake(TokioIo::new(socket)).await.ok()?;
    tokio::spawn(async move {
        // its end is seen by the next request
        let _ = connection.await;
    });
    Some(sender)
}

/// One request; `None` if the connection did not carry it.
async fn exchange(
    connection: &mut SendRequest<Body>,
    memory: &Memory,
    address: SocketAddr,
    (cid, ask): (&Cid, Ask),
) -> Option<Outcome> {
    timeout(ANSWER, connection.ready()).await.ok()?.ok()?;
    let method = if ask == Ask::Have { Method::HEAD } else { Method::GET };
    let request = Request::builder()
        .method(method)
        .uri(format!("/ipfs/{cid}?format=raw"))
        .header(HOST, address.to_string())
        .header(CACHE_CONTROL, "only-if-cached")
        .body(Body::Empty)
        .ok()?;
    let response = match timeout(ANSWER, connection.send_request(request)).await {
        Ok(response) => response.ok()?,
        Err(_) => return Some(Err(())),
    };
    match response.status() {
        StatusCode::OK if ask == Ask::Have => return Some(Ok((Answer::Has, None))),
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::PRECONDITION_FAILED => return Some(Ok((Answer::Absent, None))),
        _ => return Some(Err(())),
    }
    let Some(data) = collect(response.into_body(), memory).await else { return Some(Err(())) };
    let data = verified(cid.clone(), data).await;
    Some(Ok((if data.is_some() { Answer::Block } else { Answer::Lied }, data)))
}

/// The block, if it belongs to its CID. Large ones are hashed on threads of their own, so that others come in meanwhile.
async fn verified(cid: Cid, data: Loaded) -> Option<Loaded> {
    let is_large = data.len() >= pool::LEAST;
    let check = move || cid.verify(&data).is_ok().then_some(data);
    if is_large { tokio::task::spawn_blocking(check).await.ok().flatten() } else { check() }
}

/// The whole body, if it is a block's size and keeps coming.
async fn collect(mut body: Incoming, memory: &Memory) -> Option<Loaded> {
    let expected = body.size_hint().upper().unwrap_or(MAX_BLOCK as u64);
    if expected > MAX_BLOCK as u64 {
        return None;
    }
    // meanwhile the bytes wait at the other node
    let share = memory.coming(expected as usize).await;
    let length = body.size_hint().exact().unwrap_or(0) as usize;
    let mut data = pool::take(length);
    data.clear();
    data.reserve_exact(length);
    loop {
        let next = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        match timeout(ANSWER, next).await.ok()? {
            Some(frame) => {
                if let Ok(bytes) = frame.ok()?.into_data() {
                    if data.len() + bytes.len() > MAX_BLOCK {
                        return None;
                    }
                    data.extend_from_slice(&bytes);
                }
            }
            None => return Some(Loaded::new(data, share)),
        }
    }
}

//! Blocks from other nodes: asked nearest first, verified, a few at a time. A node that lies, stalls
//! or is dead costs time and nothing else.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use content_id::{Cid, MAX_BLOCK};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CACHE_CONTROL, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::body::Body;
use crate::peers::Peers;

/// Time for a TCP connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Time for the head of an answer, and between pieces of a body.
const ANSWER: Duration = Duration::from_secs(5);
/// Time for one block from one node.
const BLOCK: Duration = Duration::from_secs(30);
/// Time for one block from anyone.
pub(crate) const DEADLINE: Duration = Duration::from_secs(45);
/// A further node is asked when the ones asked have said nothing for that long.
const HEDGE: Duration = Duration::from_millis(400);
/// Nodes asked at the same time.
const WIDTH: usize = 3;
/// A node that failed is asked last for that long.
const FAILED: Duration = Duration::from_secs(10);
/// One that sent wrong bytes, for that long.
const LIED: Duration = Duration::from_secs(120);

/// Why no node gave the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FetchError {
    /// All nodes in reach say that they don't have it (or there are none).
    NobodyHas,
    /// Some did not answer.
    NoAnswer,
}

/// What one node did.
enum Outcome {
    Block(Vec<u8>),
    NotThere,
    Failed,
    Lied,
}

/// Asks the nodes in reach for a block.
pub(crate) async fn fetch(peers: &Arc<Peers>, cid: &Cid) -> Result<Vec<u8>, FetchError> {
    timeout(DEADLINE, ask_all(peers, cid)).await.unwrap_or(Err(FetchError::NoAnswer))
}

async fn ask_all(peers: &Arc<Peers>, cid: &Cid) -> Result<Vec<u8>, FetchError> {
    let candidates = peers.candidates().await;
    let alone = candidates.first().is_some_and(|first| peers.is_preferred(*first));
    let mut width = if alone { 1 } else { WIDTH };
    let mut waiting = candidates.into_iter();
    let mut asked = JoinSet::new();
    let mut verdict = FetchError::NobodyHas;
    loop {
        while asked.len() < width {
            let Some(address) = waiting.next() else { break };
            let (peers, cid) = (Arc::clone(peers), cid.clone());
            asked.spawn(async move { (address, ask(&peers, address, &cid).await) });
        }
        if asked.is_empty() {
            return Err(verdict);
        }
        let answer = match timeout(HEDGE, asked.join_next()).await {
            Ok(Some(Ok(answer))) => answer,
            Ok(_) => continue,
            Err(_) => {
                width = (width + 1).min(WIDTH + 2);
                continue;
            }
        };
        width = width.max(WIDTH);
        match answer {
            (address, Outcome::Block(data)) => {
                peers.served(address);
                return Ok(data);
            }
            (_, Outcome::NotThere) => {}
            (address, Outcome::Failed) => {
                peers.failed(address, FAILED);
                verdict = FetchError::NoAnswer;
            }
            (address, Outcome::Lied) => {
                log::warn!(target: "fetch", "{address} sent wrong bytes for {cid}; it is asked last for a while");
                peers.failed(address, LIED);
            }
        }
    }
}

/// Asks one node; a connection left open is tried first.
async fn ask(peers: &Peers, address: SocketAddr, cid: &Cid) -> Outcome {
    if let Some(mut connection) = peers.take_idle(address) {
        // it may have been closed meanwhile: then a new one is made
        if let Some(outcome) = exchange(peers, &mut connection, address, cid).await {
            return keep(peers, address, connection, outcome);
        }
    }
    let Some(mut connection) = connect(address).await else { return Outcome::Failed };
    match exchange(peers, &mut connection, address, cid).await {
        Some(outcome) => keep(peers, address, connection, outcome),
        None => Outcome::Failed,
    }
}

fn keep(peers: &Peers, address: SocketAddr, connection: SendRequest<Body>, outcome: Outcome) -> Outcome {
    if matches!(outcome, Outcome::Block(_) | Outcome::NotThere) {
        peers.keep_idle(address, connection);
    }
    outcome
}

async fn connect(address: SocketAddr) -> Option<SendRequest<Body>> {
    let socket = timeout(CONNECT, TcpStream::connect(address)).await.ok()?.ok()?;
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
    peers: &Peers,
    connection: &mut SendRequest<Body>,
    address: SocketAddr,
    cid: &Cid,
) -> Option<Outcome> {
    timeout(ANSWER, connection.ready()).await.ok()?.ok()?;
    let request = Request::get(format!("/ipfs/{cid}?format=raw"))
        .header(HOST, address.to_string())
        .header(CACHE_CONTROL, "only-if-cached")
        .body(Body::Empty)
        .ok()?;
    let response = match timeout(ANSWER, connection.send_request(request)).await {
        Ok(response) => response.ok()?,
        Err(_) => return Some(Outcome::Failed),
    };
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::PRECONDITION_FAILED => return Some(Outcome::NotThere),
        _ => return Some(Outcome::Failed),
    }
    let Ok(_turn) = peers.receiving.acquire().await else { return Some(Outcome::Failed) };
    let data = match timeout(BLOCK, collect(response.into_body())).await {
        Ok(Some(data)) => data,
        Ok(None) | Err(_) => return Some(Outcome::Failed),
    };
    Some(if cid.verify(&data).is_ok() { Outcome::Block(data) } else { Outcome::Lied })
}

/// The whole body, if it is a block's size and keeps coming.
async fn collect(mut body: Incoming) -> Option<Vec<u8>> {
    let expected = body.size_hint().upper().unwrap_or(MAX_BLOCK as u64);
    if expected > MAX_BLOCK as u64 {
        return None;
    }
    let mut data = Vec::with_capacity(body.size_hint().exact().unwrap_or(0) as usize);
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
            None => return Some(data),
        }
    }
}

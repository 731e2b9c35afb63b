//! Small questions to other nodes' gateways, each on a connection of its own.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use content_id::Cid;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::handshake;
use hyper::header::{CACHE_CONTROL, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::body::Body;
use crate::peers::Peers;

/// Time for the whole exchange.
const TIME: Duration = Duration::from_secs(3);

/// Nodes asked about one block, the nearest ones.
const MAX_ASKED: usize = 8;

/// What `path` holds on the node at `address`, from its own store; `None` if it has nothing, more than
/// `limit` bytes, or takes too long.
pub(crate) async fn get(address: SocketAddr, path: &str, limit: usize) -> Option<Vec<u8>> {
    timeout(TIME, exchange(Method::GET, address, path, limit)).await.ok()?
}

/// Whether one of the nearest nodes has a block.
pub(crate) async fn anyone_has(peers: &Arc<Peers>, cid: &Cid) -> bool {
    let path = format!("/ipfs/{cid}?format=raw");
    let mut asked = JoinSet::new();
    for address in peers.candidates().await.into_iter().take(MAX_ASKED) {
        let path = path.clone();
        asked.spawn(async move {
            timeout(TIME, exchange(Method::HEAD, address, &path, 0)).await.ok().flatten().is_some()
        });
    }
    while let Some(answer) = asked.join_next().await {
        if answer.unwrap_or(false) {
            return true;
        }
    }
    false
}

async fn exchange(method: Method, address: SocketAddr, path: &str, limit: usize) -> Option<Vec<u8>> {
    let socket = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = handshake(TokioIo::new(socket)).await.ok()?;
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, address.to_string())
        .header(CACHE_CONTROL, "only-if-cached")
        .body(Body::Empty)
        .ok()?;
    let response = sender.send_request(request).await;
    let data = match response {
        Ok(response) if response.status() == StatusCode::OK => collect(response.into_body(), limit).await,
        _ => None,
    };
    driver.abort();
    data
}

async fn collect(mut body: Incoming, limit: usize) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(bytes) = frame.ok()?.into_data() {
            if data.len() + bytes.len() > limit {
                return None;
            }
            data.extend_from_slice(&bytes);
        }
    }
    Some(data)
}

//! Small questions to other nodes' gateways, each on a connection of its own.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::handshake;
use hyper::header::{CACHE_CONTROL, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::body::Body;
use crate::peers;

/// Time for the whole exchange.
const TIME: Duration = Duration::from_secs(3);

/// What `path` holds on the node at `address`, from its own store; `None` if it has nothing, more than
/// `limit` bytes, or takes too long.
pub(crate) async fn get(address: SocketAddr, path: &str, limit: usize) -> Option<Vec<u8>> {
    timeout(TIME, exchange(address, path, limit)).await.ok()?
}

async fn exchange(address: SocketAddr, path: &str, limit: usize) -> Option<Vec<u8>> {
    let socket = peers::connect(address).await.ok()?;
    let (mut sender, connection) = handshake(TokioIo::new(socket)).await.ok()?;
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = Request::builder()
        .method(Method::GET)
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

//! Listening sockets and connections, all bounded: how many, how long, how much.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_config::{Workshop, workshop};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::body::Body;
use crate::gateway::{Endpoint, Gateway};
use crate::node::Node;

/// Connections at the same time, over all listeners; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// Time for a request's head; also how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(15);
/// Bytes a request's head may have; also the read buffer's size.
const MAX_HEAD: usize = 16 * 1024;
/// Header fields a request may have.
const MAX_FIELDS: usize = 64;
/// Time after which a busy port is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Time between two looks at who has the ports of web servers.
const LOOK: Duration = Duration::from_secs(2);

/// A listening socket; an IPv6 one does not take the IPv4 port.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

/// Serves the gateway on `address` for ever. A port in use is tried again: it is free once the
/// other program ends.
pub(crate) async fn serve(
    address: SocketAddr,
    endpoint: Endpoint,
    gateway: Arc<Gateway>,
    node: Arc<Node>,
    turns: Arc<Semaphore>,
) {
    let mut complained = false;
    let listener = loop {
        match listen(address) {
            Ok(listener) => break listener,
            Err(e) => {
                if !complained {
                    log::error!(target: "gateway", "can't listen on {address}: {e}; it is tried again every 5 s");
                    complained = true;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    let local = listener.local_addr().unwrap_or(address);
    match endpoint {
        Endpoint::Gateway => log::info!(target: "gateway", "serves http://{local}/ipfs/"),
        Endpoint::Peers => log::info!(target: "gateway", "serves nodes at http://{local}/ipfs/"),
    }
    loop {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let (gateway, node) = (Arc::clone(&gateway), Arc::clone(&node));
                tokio::spawn(async move {
                    node.counters.connections.fetch_add(1, Ordering::Relaxed);
                    connection(socket, endpoint, gateway).await;
                    node.counters.connections.fetch_sub(1, Ordering::Relaxed);
                    drop(turn);
                });
            }
            Err(e) => {
                log::warn!(target: "gateway", "a connection could not be accepted: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Tells whether a manual workshop has the ports of web servers; looked for every two seconds.
pub(crate) fn follow_workshop(run_dir: PathBuf, configured: Workshop) -> watch::Receiver<bool> {
    let manual = move || workshop::in_force(&run_dir, configured) == Workshop::Manual;
    let (tell, told) = watch::channel(manual());
    tokio::spawn(async move {
        while !tell.is_closed() {
            tokio::time::sleep(LOOK).await;
            let now = manual();
            tell.send_if_modified(|before| std::mem::replace(before, now) != now);
        }
    });
    told
}

/// As [`serve`], but the port is free while `manual` says so.
pub(crate) async fn serve_between(
    address: SocketAddr,
    gateway: Arc<Gateway>,
    node: Arc<Node>,
    turns: Arc<Semaphore>,
    mut manual: watch::Receiver<bool>,
) {
    loop {
        if manual.wait_for(|manual| !manual).await.is_err() {
            return;
        }
        let (gateway, node, turns) = (Arc::clone(&gateway), Arc::clone(&node), Arc::clone(&turns));
        let serving = tokio::spawn(serve(address, Endpoint::Gateway, gateway, node, turns));
        let ends = manual.wait_for(|manual| *manual).await.is_err();
        serving.abort();
        let _ = serving.await; // the port is free now
        if ends {
            return;
        }
        log::info!(target: "gateway", "manual workshop: {address} is left free");
    }
}

/// Bounds the connections of all listeners together.
pub(crate) fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_CONNECTIONS))
}

async fn connection(socket: TcpStream, endpoint: Endpoint, gateway: Arc<Gateway>) {
    let _ = socket.set_nodelay(true);
    let Ok(local) = socket.local_addr() else { return };
    let tunnel = Arc::new(Mutex::new(None));
    let (service_gateway, asked) = (Arc::clone(&gateway), Arc::clone(&tunnel));
    let service = service_fn(move |request| {
        let (gateway, asked) = (Arc::clone(&service_gateway), Arc::clone(&asked));
        async move {
            if *request.method() == Method::CONNECT && endpoint == Endpoint::Gateway {
                return Ok::<_, Infallible>(connect(request, &gateway, &asked));
            }
            Ok(gateway.handle(request, local, endpoint).await)
        }
    });
    let served = builder().serve_connection(TokioIo::new(socket), service).with_upgrades().await;
    if let Err(e) = served {
        log::debug!(target: "gateway", "a connection ended: {e}");
    }
    let upgrade = tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(upgrade) = upgrade {
        inside(upgrade, local, gateway).await;
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .half_close(false);
    builder
}

type Tunnel = Mutex<Option<OnUpgrade>>;

/// A client that takes this gateway for a proxy opens a tunnel. It leads back here, and only to the
/// gateway's own names.
fn connect(request: Request<Incoming>, gateway: &Gateway, tunnel: &Tunnel) -> Response<Body> {
    let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let mut response = Response::new(Body::Empty);
    if gateway.is_host(&host) {
        *tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(hyper::upgrade::on(request));
    } else {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    response
}

/// Serves what comes through a tunnel, as long as its connection lives.
async fn inside(upgrade: OnUpgrade, local: SocketAddr, gateway: Arc<Gateway>) {
    let Ok(Ok(io)) = tokio::time::timeout(HEAD, upgrade).await else { return };
    let service = service_fn(move |request| {
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(gateway.handle(request, local, Endpoint::Gateway).await) }
    });
    if let Err(e) = builder().serve_connection(io, service).await {
        log::debug!(target: "gateway", "a tunnel ended: {e}");
    }
}

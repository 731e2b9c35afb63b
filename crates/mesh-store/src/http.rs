//! Listening sockets and connections, all bounded: how many, how long, how much.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1::{self, UpgradeableConnection};
use hyper::service::{Service, service_fn};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_config::{Workshop, workshop};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::body::Body;
use crate::gateway::{Endpoint, Gateway};
use crate::node::Node;

/// Connections at the same time, over all listeners; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// Time for a request's head; also how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(15);
/// How often connections are asked to give way while all places are taken.
const CROWDED: Duration = Duration::from_secs(1);
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
    places: Arc<Places>,
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
        let Some(place) = places.take().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let (gateway, node, places) = (Arc::clone(&gateway), Arc::clone(&node), Arc::clone(&places));
                tokio::spawn(async move {
                    node.counters.connections.fetch_add(1, Ordering::Relaxed);
                    connection(socket, endpoint, gateway, &places).await;
                    node.counters.connections.fetch_sub(1, Ordering::Relaxed);
                    drop(place);
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
    places: Arc<Places>,
    mut manual: watch::Receiver<bool>,
) {
    loop {
        if manual.wait_for(|manual| !manual).await.is_err() {
            return;
        }
        let (gateway, node, places) = (Arc::clone(&gateway), Arc::clone(&node), Arc::clone(&places));
        let serving = tokio::spawn(serve(address, Endpoint::Gateway, gateway, node, places));
        let ends = manual.wait_for(|manual| *manual).await.is_err();
        serving.abort();
        let _ = serving.await; // the port is free now
        if ends {
            return;
        }
        log::info!(target: "gateway", "manual workshop: {address} is left free");
    }
}

/// The places for connections of all listeners of an endpoint together.
pub(crate) struct Places {
    free: Arc<Semaphore>,
    /// Told while none is free.
    wanted: Notify,
}

impl Places {
    pub(crate) fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(MAX_CONNECTIONS)), wanted: Notify::new() }
    }

    /// Waits for a place. Meanwhile connections between two requests give way.
    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(place);
        }
        loop {
            self.wanted.notify_waiters();
            if let Ok(place) = timeout(CROWDED, Arc::clone(&self.free).acquire_owned()).await {
                return place.ok();
            }
        }
    }

    /// Serves a connection to its end. Once its place is wanted that is when no answer is under way any more;
    /// a connection whose first request has not come keeps its place.
    async fn hold<I, S>(
        &self,
        connection: UpgradeableConnection<I, S>,
        used: &AtomicBool,
    ) -> Result<(), hyper::Error>
    where
        I: Read + Write + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    {
        let mut connection = pin!(connection);
        loop {
            let mut wanted = pin!(self.wanted.notified());
            let ended = std::future::poll_fn(|context| match connection.as_mut().poll(context) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => wanted.as_mut().poll(context).map(|()| None),
            });
            match ended.await {
                Some(result) => return result,
                None if used.load(Ordering::Relaxed) => connection.as_mut().graceful_shutdown(),
                None => {}
            }
        }
    }
}

async fn connection(socket: TcpStream, endpoint: Endpoint, gateway: Arc<Gateway>, places: &Places) {
    let _ = socket.set_nodelay(true);
    let Ok(local) = socket.local_addr() else { return };
    let tunnel = Mutex::new(None);
    let used = AtomicBool::new(false);
    let service = service_fn(|request| {
        used.store(true, Ordering::Relaxed);
        let (gateway, tunnel) = (&gateway, &tunnel);
        async move {
            if *request.method() == Method::CONNECT && endpoint == Endpoint::Gateway {
                return Ok(connect(request, gateway, local, tunnel));
            }
            Ok(gateway.handle(request, local, endpoint).await)
        }
    });
    let served = builder().serve_connection(TokioIo::new(socket), service).with_upgrades();
    if let Err(e) = places.hold(served, &used).await {
        log::debug!(target: "gateway", "a connection ended: {e}");
    }
    let upgrade = tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(upgrade) = upgrade {
        inside(upgrade, local, gateway, places).await;
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
/// gateway's own names and the address (`local`) that it was reached at, which some clients write for a name.
fn connect(
    request: Request<Incoming>,
    gateway: &Gateway,
    local: SocketAddr,
    tunnel: &Tunnel,
) -> Response<Body> {
    let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let mut response = Response::new(Body::Empty);
    if gateway.is_host(&host) || host.parse() == Ok(local) {
        *tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(hyper::upgrade::on(request));
    } else {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    response
}

/// Serves what comes through a tunnel, as long as its connection lives.
async fn inside(upgrade: OnUpgrade, local: SocketAddr, gateway: Arc<Gateway>, places: &Places) {
    let Ok(Ok(io)) = timeout(HEAD, upgrade).await else { return };
    let used = AtomicBool::new(false);
    let service = service_fn(|request| {
        used.store(true, Ordering::Relaxed);
        let gateway = &gateway;
        async move { Ok(gateway.handle(request, local, Endpoint::Gateway).await) }
    });
    let served = builder().serve_connection(io, service).with_upgrades();
    if let Err(e) = places.hold(served, &used).await {
        log::debug!(target: "gateway", "a tunnel ended: {e}");
    }
}

//! The nodes in reach, by the router's live topology, and the connections left open to them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;
use mesh_ipc::router::{Route, RouterRequest, RouterResponse};
use mesh_ipc::{Request, Response};
use store_core::exchange::MAX_PEERS;
use tokio::net::{TcpStream, UnixStream};

use crate::body::Body;
use crate::frames::Frames;

/// The port of every node's gateway, for people and tools.
pub(crate) const GATEWAY: u16 = 8080;
/// The port where nodes serve nodes out of their own store.
pub(crate) const PORT: u16 = 4080;
/// How long an answer of the router is good for.
const FRESH: Duration = Duration::from_secs(1);
/// The router answers within that time or is taken as gone.
const ROUTER_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections kept to one node.
const MAX_IDLE: usize = 8;
/// Idle connections kept in all.
const MAX_OPEN: usize = 64;

#[derive(Default)]
struct Inner {
    /// Nodes in reach, nearest first, as of `asked`.
    reach: Vec<SocketAddr>,
    asked: Option<Instant>,
    idle: BTreeMap<SocketAddr, Vec<SendRequest<Body>>>,
}

/// A TCP connection to a node. Earlier builds serve nodes on their gateway's port alone.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    match TcpStream::connect(address).await {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && address.port() == PORT => {
            TcpStream::connect(gateway_of(address)).await
        }
        other => other,
    }
}

/// The gateway of the node that serves nodes at `address`.
pub(crate) const fn gateway_of(address: SocketAddr) -> SocketAddr {
    let port = if address.port() == PORT { GATEWAY } else { address.port() };
    SocketAddr::new(address.ip(), port)
}

/// The nodes this one can ask.
pub(crate) struct Peers {
    fixed: Vec<SocketAddr>,
    router: PathBuf,
    inner: Mutex<Inner>,
}

impl Peers {
    /// Nodes named on the command line, and those the router at `router` knows.
    pub(crate) fn new(fixed: Vec<SocketAddr>, router: PathBuf) -> Self {
        Self { fixed, router, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those named on the command line, then those of the router, nearest first.
    pub(crate) async fn candidates(&self) -> Vec<SocketAddr> {
        let stale = self.lock().asked.is_none_or(|asked| asked.elapsed() > FRESH);
        if stale {
            // a router that is gone leaves the nodes known before
            let answer = tokio::time::timeout(ROUTER_TIMEOUT, self.ask_router()).await;
            let mut inner = self.lock();
            inner.asked = Some(Instant::now());
            if let Ok(Ok(routes)) = answer {
                inner.reach = nearest_first(&routes);
            }
        }
        let mut inner = self.lock();
        let mut all: Vec<SocketAddr> = self.fixed.clone();
        all.extend(inner.reach.iter().filter(|a| !self.fixed.contains(a)));
        all.truncate(MAX_PEERS);
        inner.idle.retain(|address, _| all.contains(address));
        all
    }

    /// A connection left open to `address`.
    pub(crate) fn take_idle(&self, address: SocketAddr) -> Option<SendRequest<Body>> {
        let mut inner = self.lock();
        let idle = inner.idle.get_mut(&address)?;
        while let Some(connection) = idle.pop() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for later.
    pub(crate) fn keep_idle(&self, address: SocketAddr, connection: SendRequest<Body>) {
        let mut inner = self.lock();
        if inner.idle.values().map(Vec::len).sum::<usize>() >= MAX_OPEN {
            inner.idle.pop_first();
        }
        let idle = inner.idle.entry(address).or_default();
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }

    /// Closes the connections left open to `address`: it failed.
    pub(crate) fn forget_idle(&self, address: SocketAddr) {
        self.lock().idle.remove(&address);
    }

    /// Hops to the routers in reach, by their addresses.
    pub(crate) async fn hops(&self) -> BTreeMap<IpAddr, u8> {
        let answer = tokio::time::timeout(ROUTER_TIMEOUT, self.ask_router()).await;
        let routes = answer.ok().and_then(Result::ok).unwrap_or_default();
        routes.into_iter().filter(|r| r.destination == r.originator).map(|r| (r.originator, r.hops)).collect()
    }

    async fn ask_router(&self) -> io::Result<Vec<Route>> {
        let mut frames = Frames::new(UnixStream::connect(&self.router).await?);
        frames.write(&Request::Service(RouterRequest::Routes)).await?;
        match frames.read::<Response<RouterResponse>>().await? {
            Some(Response::Service(RouterResponse::Routes(routes))) => Ok(routes),
            _ => Err(io::Error::other("the router gave no routes")),
        }
    }
}

/// Where the routers that `routes` lead to serve nodes, each once: IPv6 if there is any, fewest hops
/// and then lowest cost first.
fn nearest_first(routes: &[Route]) -> Vec<SocketAddr> {
    let mut best: BTreeMap<IpAddr, (u8, u32)> = BTreeMap::new();
    for route in routes {
        let cost = (route.hops, route.metric);
        let entry = best.entry(route.originator).or_insert(cost);
        *entry = cost.min(*entry);
    }
    if best.keys().any(IpAddr::is_ipv6) {
        best.retain(|address, _| address.is_ipv6());
    }
    let mut sorted: Vec<_> = best.into_iter().collect();
    sorted.sort_by_key(|(address, cost)| (*cost, *address));
    sorted.into_iter().take(MAX_PEERS).map(|(address, _)| SocketAddr::new(address, PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(originator: &str, hops: u8, metric: u32) -> Route {
        let originator: IpAddr = originator.parse().unwrap();
        Route {
            destination: originator,
            prefix_len: 128,
            next_hop: "fe80::1".parse().unwrap(),
            interface: "eth0".into(),
            metric,
            hops,
            originator,
        }
    }

    #[test]
    fn nearest_nodes_come_first_and_once() {
        let routes = [
            route("fd00:3::1", 3, 30),
            route("fd00:1::1", 1, 20),
            route("fd00:2::1", 1, 10),
            route("fd00:3::1", 2, 99),
            route("10.64.0.9", 1, 1),
        ];
        let order: Vec<String> = nearest_first(&routes).iter().map(|a| a.ip().to_string()).collect();
        assert_eq!(order, ["fd00:2::1", "fd00:1::1", "fd00:3::1"]);
        assert_eq!(nearest_first(&routes[4..]), ["10.64.0.9:4080".parse().unwrap()]);
    }

    /// A router that gives `routes` once, then ends.
    fn router(path: PathBuf, routes: Vec<Route>) -> std::thread::JoinHandle<()> {
        use std::io::{Read, Write};
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut received = Vec::new();
            while mesh_ipc::decode::<Request<RouterRequest>>(&mut received).unwrap().is_none() {
                let mut piece = [0; 64];
                let n = socket.read(&mut piece).unwrap();
                received.extend_from_slice(&piece[..n]);
            }
            let mut answer = Vec::new();
            let routes = RouterResponse::Routes(routes);
            mesh_ipc::encode(&Response::Service(routes), &mut answer).unwrap();
            socket.write_all(&answer).unwrap();
        })
    }

    #[test]
    fn the_router_is_asked_and_remembered_when_it_is_gone() {
        let path = std::env::temp_dir().join(format!("mesh-store-router-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let thread = router(path.clone(), vec![route("fd00:2::1", 2, 1), route("fd00:1::1", 1, 1)]);
        let fixed: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let (near, far) = ("[fd00:1::1]:4080".parse().unwrap(), "[fd00:2::1]:4080".parse().unwrap());
        let peers = Peers::new(vec![fixed], path.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let order = || runtime.block_on(peers.candidates());
        assert_eq!(order(), [fixed, near, far]);
        thread.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        peers.lock().asked = None;
        assert_eq!(order(), [fixed, near, far], "what was known before");
    }
}

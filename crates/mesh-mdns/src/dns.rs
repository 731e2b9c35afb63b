//! The sockets of unicast DNS clients: programs on this node, and clients of its access points.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use mesh_sys::poll::Poller;
use mesh_sys::udp::{Family, MulticastConfig, MulticastSocket, bind_shared};

/// At most this many clients are remembered; the oldest has given up by then.
const MAX_CLIENTS: usize = 512;
const PORT: u16 = 53;
/// Sockets on interfaces are numbered from here, two for each interface index.
const ON_LINKS: u64 = 1 << 16;

#[derive(Debug)]
enum Socket {
    /// On an address of `--dns`.
    Fixed(UdpSocket),
    /// On an access point's interface, and tied to it: the mesh and uplinks are not heard.
    OnLink(MulticastSocket),
}

/// Who asked, and how to answer.
#[derive(Debug)]
struct Client {
    number: u64,
    socket: u64,
    from: SocketAddr,
    /// The address that was asked; the answer comes from it.
    asked: Option<IpAddr>,
}

/// A query that arrived.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) client: u64,
    pub(crate) len: usize,
}

/// The sockets, and who asked through which.
#[derive(Debug)]
pub(crate) struct Dns {
    fixed: Vec<SocketAddr>,
    /// The access points: interface index and name.
    links: Vec<(u32, String)>,
    sockets: BTreeMap<u64, Socket>,
    clients: VecDeque<Client>,
    next_client: u64,
    /// Sockets that could not be opened, for people.
    pub(crate) problems: Vec<String>,
}

impl Dns {
    pub(crate) fn new(addresses: &[SocketAddr]) -> Self {
        Self {
            fixed: addresses.to_vec(),
            links: Vec::new(),
            sockets: BTreeMap::new(),
            clients: VecDeque::new(),
            next_client: 0,
            problems: Vec::new(),
        }
    }

    /// These are the access points now; sockets on others are closed.
    pub(crate) fn serve_links(&mut self, links: Vec<(u32, String)>, poller: &Poller, first_token: u64) {
        if links != self.links {
            self.links = links;
            let kept = |n: &u64| self.links.iter().any(|(i, _)| (*n - ON_LINKS) / 2 == u64::from(*i));
            self.sockets.retain(|n, _| *n < ON_LINKS || kept(n));
            self.open_missing(poller, first_token);
        }
    }

    /// Opens what is not open yet; token = `first_token` + the socket's number.
    pub(crate) fn open_missing(&mut self, poller: &Poller, first_token: u64) {
        self.problems.clear();
        for (number, address) in (0u64..).zip(&self.fixed) {
            if self.sockets.contains_key(&number) {
                continue;
            }
            match open(*address, poller, first_token + number) {
                Ok(socket) => drop(self.sockets.insert(number, Socket::Fixed(socket))),
                Err(e) => self.problems.push(format!(
                    "DNS on {address}: {e}; programs on this node find .local names only by other ways, \
                     it is tried again"
                )),
            }
        }
        for (index, name) in &self.links {
            for (at, family) in [Family::V6, Family::V4].into_iter().enumerate() {
                let number = ON_LINKS + u64::from(*index) * 2 + at as u64;
                if self.sockets.contains_key(&number) {
                    continue;
                }
                match open_on(name, *index, family, poller, first_token + number) {
                    Ok(socket) => drop(self.sockets.insert(number, Socket::OnLink(socket))),
                    Err(e) => self.problems.push(format!(
                        "DNS on {name} ({family:?}): {e}; clients of the access point get no answers there, \
                         it is tried again"
                    )),
                }
            }
        }
    }

    /// The next query on a socket, its bytes in `buffer`. Clients that are not `near` (on that interface, or on
    /// any) are passed over: this is no open resolver.
    pub(crate) fn receive(
        &mut self,
        number: u64,
        buffer: &mut [u8],
        near: impl Fn(Option<u32>, IpAddr) -> bool,
    ) -> Option<Query> {
        loop {
            let (len, from, asked, index) = match self.sockets.get(&number)? {
                Socket::Fixed(socket) => {
                    let (len, from) = socket.recv_from(buffer).ok()?;
                    (len, from, None, None)
                }
                Socket::OnLink(socket) => match socket.recv(buffer) {
                    Ok(r) => {
                        let r = r?;
                        (r.len, r.source, Some(r.destination), Some(socket.index()))
                    }
                    Err(e) => {
                        log::debug!("DNS socket: {e}");
                        self.sockets.remove(&number);
                        return None;
                    }
                },
            };
            // To a group or a broadcast address nobody asks for good reasons.
            if !near(index, from.ip()) || asked.is_some_and(|a| a.is_multicast()) {
                continue;
            }
            self.next_client += 1;
            let asked = asked.filter(|a| !a.is_unspecified());
            self.clients.push_back(Client { number: self.next_client, socket: number, from, asked });
            if self.clients.len() > MAX_CLIENTS {
                self.clients.pop_front();
            }
            return Some(Query { client: self.next_client, len });
        }
    }

    pub(crate) fn reply(&mut self, client: u64, payload: &[u8]) {
        let Some(at) = self.clients.iter().position(|c| c.number == client) else { return };
        let Some(client) = self.clients.remove(at) else { return };
        let sent = match self.sockets.get(&client.socket) {
            None => return,
            Some(Socket::Fixed(socket)) => socket.send_to(payload, client.from).map(drop),
            Some(Socket::OnLink(socket)) => socket.send_to(payload, client.from, client.asked),
        };
        if let Err(e) = sent {
            log::debug!("DNS reply to {}: {e}", client.from);
        }
    }
}

fn open(address: SocketAddr, poller: &Poller, token: u64) -> io::Result<UdpSocket> {
    let socket = bind_shared(address)?;
    poller.add(&socket, token, false)?;
    Ok(socket)
}

fn open_on(
    interface: &str,
    index: u32,
    family: Family,
    poller: &Poller,
    token: u64,
) -> io::Result<MulticastSocket> {
    let socket = MulticastSocket::open(&MulticastConfig {
        family,
        interface,
        index,
        port: PORT,
        groups: &[],
        hop_limit: 64,
        loopback: false,
        traffic_class: 0,
    })?;
    poller.add(&socket, token, false)?;
    Ok(socket)
}

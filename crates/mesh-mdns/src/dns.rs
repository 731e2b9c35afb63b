//! The sockets of unicast DNS clients, UDP and TCP: programs on this node, and clients of its access points.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use mesh_sys::poll::{Event, Poller};
use mesh_sys::tcp;
use mesh_sys::udp::{Family, MulticastConfig, MulticastSocket, bind_shared};
use mesh_types::Instant;

use crate::links::Links;
use crate::streams::Streams;

/// At most this many clients are remembered; the oldest has given up by then.
const MAX_CLIENTS: usize = 512;
const PORT: u16 = 53;
/// Sockets on interfaces are numbered from here, two for each interface index.
const ON_LINKS: u64 = 1 << 16;
/// A socket's number and this: the TCP listener beside it.
const LISTENERS: u64 = 1 << 34;
/// TCP connections are numbered from here.
const STREAMS: u64 = 1 << 36;

#[derive(Debug)]
enum Socket {
    /// On an address of `--dns`.
    Fixed(UdpSocket),
    /// On an access point's interface, and tied to it: the mesh and uplinks are not heard.
    OnLink(MulticastSocket),
}

/// Where clients are heard.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// An address of `--dns`.
    Address(SocketAddr),
    /// An access point: index and name of its interface.
    Link(u32, String, Family),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Link(_, name, family) => write!(f, "{name} ({family:?})"),
        }
    }
}

/// Who asked, and how to answer.
#[derive(Debug)]
struct Client {
    number: u64,
    way: Way,
}

/// The way back to a client.
#[derive(Debug)]
enum Way {
    Datagram {
        socket: u64,
        to: SocketAddr,
        /// The address that was asked; the answer comes from it.
        asked: Option<IpAddr>,
    },
    Stream(u64),
}

/// A query that arrived as a datagram.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) client: u64,
    pub(crate) len: usize,
}

/// The sockets, and who asked through which.
#[derive(Debug)]
pub(crate) struct Dns {
    places: BTreeMap<u64, Place>,
    sockets: BTreeMap<u64, Socket>,
    listeners: BTreeMap<u64, TcpListener>,
    streams: Streams,
    clients: VecDeque<Client>,
    next_client: u64,
    /// Sockets that could not be opened, for people.
    pub(crate) problems: Vec<String>,
}

impl Dns {
    pub(crate) fn new(addresses: &[SocketAddr]) -> Self {
        Self {
            places: (0..).zip(addresses.iter().copied().map(Place::Address)).collect(),
            sockets: BTreeMap::new(),
            listeners: BTreeMap::new(),
            streams: Streams::default(),
            clients: VecDeque::new(),
            next_client: 0,
            problems: Vec::new(),
        }
    }

    /// These are the access points now; sockets on others are closed.
    pub(crate) fn serve_links(&mut self, links: Vec<(u32, String)>, poller: &Poller, first_token: u64) {
        let mut places: BTreeMap<u64, Place> = BTreeMap::new();
        places.extend(self.places.range(..ON_LINKS).map(|(n, p)| (*n, p.clone())));
        for (index, name) in links {
            for (at, family) in (0..).zip([Family::V6, Family::V4]) {
                let number = ON_LINKS + u64::from(index) * 2 + at;
                places.insert(number, Place::Link(index, name.clone(), family));
            }
        }
        if places != self.places {
            let kept = |n: &u64| places.get(n) == self.places.get(n);
            self.sockets.retain(|n, _| kept(n));
            self.listeners.retain(|n, _| kept(n));
            self.places = places;
            self.open_missing(poller, first_token);
        }
    }

    /// Opens what is not open yet; token = `first_token` + the socket's number.
    pub(crate) fn open_missing(&mut self, poller: &Poller, first_token: u64) {
        self.problems.clear();
        for (number, place) in &self.places {
            let mut say = |what: &str, e: io::Error| {
                self.problems.push(format!(
                    "DNS on {place}, {what}: {e}; who asks there gets no answer, it is tried again"
                ));
            };
            if !self.sockets.contains_key(number) {
                match socket(place, poller, first_token + number) {
                    Ok(socket) => drop(self.sockets.insert(*number, socket)),
                    Err(e) => say("UDP", e),
                }
            }
            if !self.listeners.contains_key(number) {
                match listener(place, poller, first_token + LISTENERS + number) {
                    Ok(listener) => drop(self.listeners.insert(*number, listener)),
                    Err(e) => say("TCP", e),
                }
            }
        }
    }

    /// Whether the number is one of TCP.
    pub(crate) const fn is_stream(number: u64) -> bool {
        number >= LISTENERS
    }

    /// Something happened on a TCP listener or connection: queries, and who asks.
    pub(crate) fn receive_stream(
        &mut self,
        event: Event,
        poller: &Poller,
        first_token: u64,
        now: Instant,
        buffer: &mut [u8],
        links: &Links,
    ) -> Vec<(u64, Vec<u8>)> {
        let first = first_token + STREAMS;
        let Some(number) = event.token.checked_sub(first) else {
            let number = event.token - first_token - LISTENERS;
            if let (Some(listener), Some(place)) = (self.listeners.get(&number), self.places.get(&number)) {
                let index = match place {
                    Place::Address(_) => None,
                    Place::Link(index, ..) => Some(*index),
                };
                self.streams.accept(listener, poller, first, now, |ip| links.is_near(index, ip));
            }
            return Vec::new();
        };
        let queries = self.streams.handle(number, event, poller, now, buffer);
        queries.into_iter().map(|query| (self.remember(Way::Stream(number)), query)).collect()
    }

    fn remember(&mut self, way: Way) -> u64 {
        self.next_client += 1;
        self.clients.push_back(Client { number: self.next_client, way });
        if self.clients.len() > MAX_CLIENTS {
            self.clients.pop_front();
        }
        self.next_client
    }

    /// Ends TCP connections whose time is up.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.streams.expire(now);
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.streams.next_timeout()
    }

    /// The next query on a socket, its bytes in `buffer`. Clients that are not near (on that interface, or on
    /// any) are passed over: this is no open resolver.
    pub(crate) fn receive(&mut self, number: u64, buffer: &mut [u8], links: &Links) -> Option<Query> {
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
            if !links.is_near(index, from.ip()) || asked.is_some_and(|a| a.is_multicast()) {
                continue;
            }
            let asked = asked.filter(|a| !a.is_unspecified());
            let client = self.remember(Way::Datagram { socket: number, to: from, asked });
            return Some(Query { client, len });
        }
    }

    pub(crate) fn reply(&mut self, client: u64, payload: &[u8], poller: &Poller, first_token: u64) {
        let Some(at) = self.clients.iter().position(|c| c.number == client) else { return };
        let (socket, to, asked) = match self.clients.remove(at).map(|c| c.way) {
            Some(Way::Datagram { socket, to, asked }) => (socket, to, asked),
            Some(Way::Stream(number)) => {
                return self.streams.reply(number, poller, first_token + STREAMS, payload);
            }
            None => return,
        };
        let sent = match self.sockets.get(&socket) {
            None => return,
            Some(Socket::Fixed(socket)) => socket.send_to(payload, to).map(drop),
            Some(Socket::OnLink(socket)) => socket.send_to(payload, to, asked),
        };
        if let Err(e) = sent {
            log::debug!("DNS reply to {to}: {e}");
        }
    }
}

fn socket(place: &Place, poller: &Poller, token: u64) -> io::Result<Socket> {
    match place {
        Place::Address(address) => {
            let socket = bind_shared(*address)?;
            poller.add(&socket, token, false)?;
            Ok(Socket::Fixed(socket))
        }
        Place::Link(index, interface, family) => {
            let config = MulticastConfig {
                family: *family,
                interface,
                index: *index,
                port: PORT,
                groups: &[],
                hop_limit: 64,
                loopback: false,
                traffic_class: 0,
            };
            MulticastSocket::open_in(poller, token, &config).map(Socket::OnLink)
        }
    }
}

fn listener(place: &Place, poller: &Poller, token: u64) -> io::Result<TcpListener> {
    let listener = match place {
        Place::Address(address) => tcp::listen(*address)?,
        Place::Link(_, interface, family) => tcp::listen_on(interface, *family, PORT)?,
    };
    poller.add(&listener, token, false)?;
    Ok(listener)
}

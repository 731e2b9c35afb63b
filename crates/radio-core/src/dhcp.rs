//! DHCPv4 (RFC 2131), sans-IO: a server for the clients of an access point, and a [`Client`] for uplinks.
//!
//! The server is the only one on its link and knows all addresses there are, so it speaks with authority: a
//! client that comes with an address of another network, or with one that another client has, hears a NAK at
//! once, and one that comes with a free address of ours, from before a restart perhaps, keeps it. Which address a new
//! client is given follows from its identifier; so it gets the same one again, though nothing is kept on disk.
//!
//! There is one entry for each address of the pool, no more. Where the pool is full of clients that hardware
//! addresses were made up for, those that are not associated with the access point have to go
//! ([`Input::Associated`]): so nobody in range can keep others out, however many clients it pretends to be.
//! Messages of relays are not answered: there is no other network behind this one.

mod arp;
mod client;
mod packet;
mod wire;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddrV4};

use mesh_types::{Duration, Instant};

pub use arp::Arp;
pub use client::{
    Client, ClientConfig, ClientCounters, ClientInput, ClientOutput, LONGEST_LEASE, Lease, Loss,
    SHORTEST_LEASE,
};
pub use packet::{MAX_PACKET, unwrap, wrap};
pub use wire::{Answer, Kind, MAX_CLIENT_ID, Message, Network, StaticRoute, WireError};

use crate::Mac;

/// Where servers listen.
pub const SERVER_PORT: u16 = 67;
/// Where clients listen.
pub const CLIENT_PORT: u16 = 68;

/// How long an address that was offered is kept for the client.
const OFFER: Duration = Duration::from_secs(30);
/// How long an address that somebody else was found to use is left alone, and of how many that is believed.
const DECLINED: Duration = Duration::from_secs(600);
const MAX_DECLINED: usize = 16;

/// What the server is told once.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// What clients are told.
    pub network: Network,
    /// First and last address that is given out.
    pub pool: (Ipv4Addr, Ipv4Addr),
    /// How long an address is a client's, if it does not renew.
    pub lease: Duration,
    /// Changes which client gets which address.
    pub salt: u64,
}

/// What happened outside.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A datagram came to [`SERVER_PORT`].
    Datagram(&'a [u8]),
    /// These stations are associated with the access point now. Wanted before a datagram while [`Server::is_full`].
    Associated(&'a [Mac]),
}

/// A message to send from [`SERVER_PORT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// A client, or all of them.
    pub to: SocketAddrV4,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that came.
    pub messages: u64,
    /// Ones that were not for this server, or not DHCP.
    pub dropped: u64,
    /// ACKs.
    pub acks: u64,
    /// NAKs.
    pub naks: u64,
    /// Clients that got nothing because the pool was full.
    pub full: u64,
    /// Entries that had to go for others.
    pub evicted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Offered,
    Bound,
    Declined,
}

#[derive(Clone, Debug)]
struct Entry {
    client: Vec<u8>,
    mac: Mac,
    name: Option<String>,
    state: State,
    until: Instant,
}

/// A client that has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedClient<'a> {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub mac: Mac,
    /// What it calls itself; anybody can call themselves anything.
    pub name: Option<&'a str>,
    /// When the address is free again, if it does not renew.
    pub until: Instant,
}

/// The server.
#[derive(Debug)]
pub struct Server {
    config: Config,
    /// By address.
    entries: BTreeMap<u32, Entry>,
    associated: Vec<Mac>,
    outputs: VecDeque<Reply>,
    counters: Counters,
}

impl Server {
    /// A server without clients.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            entries: BTreeMap::new(),
            associated: Vec::new(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Takes one input.
    ///
    /// # Errors
    /// The datagram is not DHCP.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) -> Result<(), WireError> {
        match input {
            Input::Associated(macs) => self.associated = macs.to_vec(),
            Input::Datagram(bytes) => {
                self.counters.messages += 1;
                let message = Message::parse(bytes).inspect_err(|_| self.counters.dropped += 1)?;
                self.handle_timeout(now);
                self.take(now, &message);
            }
        }
        Ok(())
    }

    /// Forgets what has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.entries.retain(|_, e| e.until > now);
    }

    /// The next message to send; `None` when there is none.
    pub fn poll_output(&mut self) -> Option<Reply> {
        self.outputs.pop_front()
    }

    /// When [`Server::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.entries.values().map(|e| e.until).min()
    }

    /// No address is free.
    pub fn is_full(&self) -> bool {
        self.entries.len() as u64 >= self.size()
    }

    /// The addresses in use, and by whom.
    pub fn leases(&self) -> impl Iterator<Item = (Ipv4Addr, Mac)> {
        let bound = self.entries.iter().filter(|(_, e)| e.state == State::Bound);
        bound.map(|(ip, e)| (Ipv4Addr::from_bits(*ip), e.mac))
    }

    /// The same with what the clients call themselves, and how long each has its address.
    pub fn clients(&self) -> impl Iterator<Item = ServedClient<'_>> {
        let bound = self.entries.iter().filter(|(_, e)| e.state == State::Bound);
        bound.map(|(ip, e)| {
            let (address, name) = (Ipv4Addr::from_bits(*ip), e.name.as_deref());
            ServedClient { address, mac: e.mac, name, until: e.until }
        })
    }

    /// Counts since the start.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    fn first(&self) -> u32 {
        self.config.pool.0.to_bits()
    }

    fn size(&self) -> u64 {
        u64::from(self.config.pool.1.to_bits().saturating_sub(self.first())) + 1
    }

    fn in_pool(&self, ip: Ipv4Addr) -> bool {
        self.config.pool.0 <= ip && ip <= self.config.pool.1
    }

    fn take(&mut self, now: Instant, m: &Message<'_>) {
        let client = key(m);
        let ours = self.config.network.server;
        match m.kind {
            _ if !m.giaddr.is_unspecified() => self.counters.dropped += 1,
            Kind::Discover => self.discover(now, m, client),
            // Another server was chosen: the offer is free again.
            Kind::Request if m.server.is_some_and(|s| s != ours) => {
                self.entries.retain(|_, e| e.state != State::Offered || e.client != client);
            }
            Kind::Request => self.request(now, m, client),
            Kind::Decline if m.server == Some(ours) => self.decline(now, m, &client),
            Kind::Release => {
                let ip = m.ciaddr.to_bits();
                if self.holds(ip, &client) {
                    self.entries.remove(&ip);
                }
            }
            Kind::Inform if !m.ciaddr.is_unspecified() => {
                self.answer(m, Kind::Ack, Ipv4Addr::UNSPECIFIED, None);
            }
            _ => self.counters.dropped += 1,
        }
    }

    /// RFC 2131 §4.3.1: the client's own address, else the one it wants, else the one its identifier leads to.
    fn discover(&mut self, now: Instant, m: &Message<'_>, client: Vec<u8>) {
        let own = self.entries.iter().find(|(_, e)| e.client == client && e.state != State::Declined);
        let (ip, bound) = match own {
            Some((ip, entry)) => (Some(*ip), entry.state == State::Bound),
            None => {
                let wanted = m.requested.filter(|ip| self.in_pool(*ip)).map(Ipv4Addr::to_bits);
                (wanted.filter(|ip| !self.entries.contains_key(ip)).or_else(|| self.free(&client)), false)
            }
        };
        let Some(ip) = ip else {
            self.counters.full += 1;
            return;
        };
        if !bound {
            let (mac, name, until) = (m.mac, m.host_name.map(String::from), now + OFFER);
            self.entries.insert(ip, Entry { client, mac, name, state: State::Offered, until });
        }
        self.answer(m, Kind::Offer, Ipv4Addr::from_bits(ip), Some(self.lease()));
    }

    /// RFC 2131 §4.3.2, with authority.
    fn request(&mut self, now: Instant, m: &Message<'_>, client: Vec<u8>) {
        let wanted = if m.ciaddr.is_unspecified() { m.requested } else { Some(m.ciaddr) };
        let Some(ip) = wanted else {
            self.counters.dropped += 1;
            return;
        };
        let bits = ip.to_bits();
        let fits = self.in_pool(ip) && (self.holds(bits, &client) || !self.entries.contains_key(&bits));
        if !fits {
            return self.answer(m, Kind::Nak, Ipv4Addr::UNSPECIFIED, None);
        }
        // One address each.
        self.entries.retain(|at, e| *at == bits || e.client != client || e.state == State::Declined);
        let until = now + self.config.lease;
        let (mac, name) = (m.mac, m.host_name.map(String::from));
        self.entries.insert(bits, Entry { client, mac, name, state: State::Bound, until });
        self.answer(m, Kind::Ack, ip, Some(self.lease()));
    }

    /// Only the address that it holds, and not of all of the pool.
    fn decline(&mut self, now: Instant, m: &Message<'_>, client: &[u8]) {
        let Some(ip) = m.requested.map(Ipv4Addr::to_bits).filter(|ip| self.holds(*ip, client)) else {
            self.counters.dropped += 1;
            return;
        };
        let declined = || self.entries.iter().filter(|(_, e)| e.state == State::Declined);
        if declined().count() >= MAX_DECLINED
            && let Some(oldest) = declined().min_by_key(|(_, e)| e.until).map(|(at, _)| *at)
        {
            self.entries.remove(&oldest);
        }
        if let Some(entry) = self.entries.get_mut(&ip) {
            (entry.state, entry.until) = (State::Declined, now + DECLINED);
        }
    }

    fn holds(&self, ip: u32, client: &[u8]) -> bool {
        self.entries.get(&ip).is_some_and(|e| e.client == client && e.state != State::Declined)
    }

    /// The first free address from where the identifier leads to; makes room if there is none.
    fn free(&mut self, client: &[u8]) -> Option<u32> {
        if self.is_full() {
            self.make_room();
        }
        let start = hash(self.config.salt, client) % self.size();
        let places = (0..self.size()).map(|n| (start + n) % self.size());
        let mut addresses = places.filter_map(|n| self.first().checked_add(u32::try_from(n).ok()?));
        addresses.find(|ip| !self.entries.contains_key(ip))
    }

    /// Whoever is not there goes first: of those an offer, then who has not been heard for the longest time.
    fn make_room(&mut self) {
        let absent = self.entries.iter().filter(|(_, e)| !self.associated.contains(&e.mac));
        let last = absent.min_by_key(|(_, e)| (e.state != State::Offered, e.until)).map(|(ip, _)| *ip);
        if let Some(ip) = last {
            self.entries.remove(&ip);
            self.counters.evicted += 1;
        }
    }

    fn lease(&self) -> u32 {
        u32::try_from(self.config.lease.as_secs()).unwrap_or(u32::MAX)
    }

    /// RFC 2131 §4.1: to the address it has, else to all: without an address it can't be asked for by ARP.
    fn answer(&mut self, m: &Message<'_>, kind: Kind, yiaddr: Ipv4Addr, lease: Option<u32>) {
        match kind {
            Kind::Ack => self.counters.acks += 1,
            Kind::Nak => self.counters.naks += 1,
            _ => {}
        }
        let known = !m.ciaddr.is_unspecified() && kind != Kind::Nak;
        let to = SocketAddrV4::new(if known { m.ciaddr } else { Ipv4Addr::BROADCAST }, CLIENT_PORT);
        self.outputs
            .push_back(Reply { to, payload: wire::reply(m, kind, yiaddr, lease, &self.config.network) });
    }
}

/// RFC 2131 §4.2: the identifier it gives, else its hardware address.
fn key(m: &Message<'_>) -> Vec<u8> {
    m.client_id.map_or_else(|| [&[1], &m.mac[..]].concat(), <[u8]>::to_vec)
}

/// FNV-1a, its upper half folded in.
fn hash(salt: u64, bytes: &[u8]) -> u64 {
    let all = salt.to_be_bytes().into_iter().chain(bytes.iter().copied());
    let hash = all.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests;

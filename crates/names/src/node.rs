//! The whole: what a node does about names.

mod resolve;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use mesh_types::{Duration, Instant, NodeId, NodeName};

use crate::cache::Cache;
use crate::claim::{self, MAX_ADDRESSES, NameRecord, RecordError, is_reachable};
use crate::lookup::Lookups;
use crate::responder::{Destination, Event, InterfaceAddress, Responder, Rival, Role, Source, Transmit};
use crate::service::Service;
use crate::table::NameTable;
use crate::wire::{self, WireError};
use crate::{MDNS_GROUP_V4, MDNS_GROUP_V6, MDNS_PORT};

/// The name is claimed on the mesh this long after the start even if no link has one yet.
const CLAIM_WITHOUT_LINK: Duration = Duration::from_secs(2);

/// What a core starts with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name to try first.
    pub name: NodeName,
    /// Who this node is on the mesh; without it nothing is claimed there.
    pub node: Option<NodeId>,
    /// Services to announce on every link.
    pub services: Vec<Service>,
}

/// A datagram that arrived on port 5353.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Index of the interface it came through.
    pub interface: u32,
    /// Its sender.
    pub source: SocketAddr,
    /// The address it was sent to: a group or one of ours.
    pub destination: IpAddr,
    /// Its content.
    pub payload: &'a [u8],
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// An interface is up, or its addresses changed.
    Interface {
        /// Its index.
        index: u32,
        /// All its addresses, link-local ones included, tentative ones not.
        addresses: Vec<InterfaceAddress>,
        /// What it is for.
        role: Role,
    },
    /// An interface is gone or down.
    InterfaceGone(u32),
    /// Who this node is, if that was not known at the start.
    Identity(NodeId),
    /// The node's own addresses, valid on every link; mesh addresses first.
    NodeAddresses(Vec<IpAddr>),
    /// The services to announce, all of them.
    Services(Vec<Service>),
    /// A datagram on port 5353.
    Datagram(Datagram<'a>),
    /// A query of a unicast DNS client.
    Dns {
        /// Comes back with the reply.
        client: u64,
        /// It came over TCP: an answer of any length reaches the client (RFC 7766).
        stream: bool,
        /// The message.
        payload: &'a [u8],
    },
    /// A name record from the mesh, its signature verified.
    Record {
        /// Who signed it.
        node: NodeId,
        /// Hops to it.
        hops: u8,
        /// How long it is valid without a refresh.
        valid: Duration,
        /// The record.
        payload: &'a [u8],
    },
    /// A node's record has expired.
    RecordGone(NodeId),
    /// The router is connected and tells what expires, or is not.
    Router(bool),
    /// Whether there is anyone to ask about names beyond the mesh.
    Upstream(bool),
    /// A person asks for a name, without `.local`.
    Resolve {
        /// Comes back with the answer.
        token: u64,
        /// The name.
        name: NodeName,
    },
    /// A person asks whose address it is.
    ResolveAddress {
        /// Comes back with the answer.
        token: u64,
        /// The address.
        address: IpAddr,
    },
    /// The service ends: say goodbye.
    Shutdown,
}

/// What a node does.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this from port 5353, TTL 255.
    Transmit(Transmit),
    /// Answer a unicast DNS client.
    DnsReply {
        /// As given with the query.
        client: u64,
        /// The message.
        payload: Vec<u8>,
    },
    /// Hand a unicast DNS client's query on to the uplink's servers.
    Forward {
        /// As given with the query.
        client: u64,
        /// As given with the query.
        stream: bool,
        /// The message.
        payload: Vec<u8>,
    },
    /// Flood this as the node's name record, in place of the last.
    Publish(Vec<u8>),
    /// What a person asked for; `None`: nobody answers to it.
    Resolved {
        /// As given with the request.
        token: u64,
        /// What is known.
        known: Option<Known>,
    },
    /// Something to log.
    Event(Event),
}

/// Where a name was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// It is this node's.
    Own,
    /// By mDNS.
    Link,
    /// From a flooded record.
    Mesh,
}

/// A name and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Without `.local`.
    pub name: String,
    /// Its owner, if it is a node of the mesh.
    pub node: Option<NodeId>,
    /// Best first.
    pub addresses: Vec<IpAddr>,
    /// Hops to it, if it is a node of the mesh.
    pub hops: Option<u8>,
    /// How long ago it was heard of.
    pub age: Duration,
    /// How it is known.
    pub source: Provenance,
}

/// Why an input was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputError {
    /// It is no DNS message.
    Wire(WireError),
    /// It came from outside the link (RFC 6762 §5.5, §11).
    OffLink,
    /// A response that did not come from port 5353 (RFC 6762 §6).
    Port,
    /// A unicast response to no question of ours (RFC 6762 §6).
    Unasked,
    /// It came through an interface that is not served.
    Interface(u32),
    /// A mesh record that is none.
    Record(RecordError),
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(e) => write!(f, "no DNS message: {e}"),
            Self::OffLink => f.write_str("a message from outside the link"),
            Self::Port => f.write_str("a response that did not come from port 5353"),
            Self::Unasked => f.write_str("a unicast response that nobody asked for"),
            Self::Interface(i) => write!(f, "a message through interface {i}, which is not served"),
            Self::Record(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for InputError {}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// mDNS queries taken in.
    pub queries: u64,
    /// mDNS responses taken in.
    pub responses: u64,
    /// mDNS messages sent.
    pub sent: u64,
    /// Datagrams that are no DNS message.
    pub malformed: u64,
    /// Datagrams from outside the link, and unasked responses.
    pub foreign: u64,
    /// Unicast DNS queries.
    pub dns: u64,
    /// Mesh records that could not be read.
    pub bad_records: u64,
    /// Times the node took another name.
    pub renames: u64,
}

/// Who waits for a lookup.
#[derive(Debug)]
enum Who {
    Dns { client: u64, request: crate::dns::Request },
    Person { token: u64, name: NodeName },
    PersonAddress { token: u64, address: IpAddr },
}

/// The core.
#[derive(Debug)]
pub struct Names {
    node: Option<NodeId>,
    started: Instant,
    responder: Responder,
    cache: Cache,
    lookups: Lookups<Who>,
    /// Since when the present name is held.
    held_since: Option<Instant>,
    /// The level of the claim, as last looked at.
    level: u8,
    published: Option<Vec<u8>>,
    upstream: bool,
    counters: Counters,
    out: VecDeque<Output>,
}

impl Names {
    /// A node that starts now.
    pub fn new(config: Config, seed: u64, now: Instant) -> Self {
        Self {
            node: config.node,
            started: now,
            responder: Responder::new(config.name, config.services, seed),
            cache: Cache::default(),
            lookups: Lookups::default(),
            held_since: None,
            level: 0,
            published: None,
            upstream: false,
            counters: Counters::default(),
            out: VecDeque::new(),
        }
    }

    /// Takes an input in. Drain [`Names::poll_output`] afterwards.
    ///
    /// # Errors
    /// The input was passed over; nothing has changed but a counter.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) -> Result<(), InputError> {
        let result = self.take(now, input);
        match &result {
            Err(InputError::Wire(_)) => self.counters.malformed += 1,
            Err(InputError::Record(_)) => self.counters.bad_records += 1,
            Err(_) => self.counters.foreign += 1,
            Ok(_) => {}
        }
        if result? {
            self.settle(now);
        }
        Ok(())
    }

    /// Says whether more than answers may follow. Whoever asks by mDNS waits, and changes nothing.
    fn take(&mut self, now: Instant, input: Input<'_>) -> Result<bool, InputError> {
        match input {
            Input::Interface { index, addresses, role } => {
                self.responder.set_interface(now, index, addresses, role);
            }
            Input::InterfaceGone(index) => {
                self.responder.remove_interface(index);
                self.cache.forget_interface(index);
            }
            Input::Identity(node) => {
                self.responder.forget_node(&node);
                self.node = Some(node);
            }
            Input::NodeAddresses(addresses) => self.responder.set_node_addresses(now, addresses),
            Input::Services(services) => self.responder.set_services(now, services),
            Input::Datagram(datagram) => return self.datagram(now, datagram),
            Input::Dns { client, stream, payload } => self.dns(now, client, stream, payload),
            Input::Record { node, hops, valid, payload } => self.record(now, node, hops, valid, payload)?,
            Input::RecordGone(node) => self.responder.forget_node(&node),
            Input::Router(connected) => {
                self.responder.table.router_tells = connected;
                self.published = None;
            }
            Input::Upstream(any) => self.upstream = any,
            Input::Resolve { token, name } => self.resolve_for_person(now, token, name),
            Input::ResolveAddress { token, address } => self.reverse_for_person(now, token, address),
            Input::Shutdown => self.responder.shut_down(),
        }
        Ok(true)
    }

    /// The time has come that [`Names::poll_timeout`] gave.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.responder.handle_timeout(now);
        self.cache.expire(now);
        for node in self.responder.table.expired(now) {
            self.responder.forget_node(&node);
        }
        self.settle(now);
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(t) = self.responder.out.pop_front() {
            self.counters.sent += 1;
            return Some(Output::Transmit(t));
        }
        if let Some(e) = self.responder.events.pop_front() {
            return Some(Output::Event(e));
        }
        self.out.pop_front()
    }

    /// When [`Names::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let level = self.held_since.map(|since| since + claim::level_reached(self.level.saturating_add(1)));
        let first_claim = (self.held_since.is_none() && !self.responder.any_link())
            .then_some(self.started + CLAIM_WITHOUT_LINK);
        [
            self.responder.poll_timeout(),
            self.cache.next_expiry(),
            self.lookups.next_timeout(),
            self.responder.table.next_expiry(),
            level.filter(|_| self.node.is_some()),
            first_claim,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The name in use.
    pub fn name(&self) -> &NodeName {
        self.responder.name()
    }

    /// The name that was configured.
    pub fn configured_name(&self) -> &NodeName {
        self.responder.configured()
    }

    /// Whether the name is established on every link that has an address.
    pub fn is_settled(&self) -> bool {
        self.responder.settled()
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The mesh name table.
    pub fn table(&self) -> &NameTable {
        &self.responder.table
    }

    /// How many records of other responders are remembered.
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    /// Whether it was a response.
    fn datagram(&mut self, now: Instant, d: Datagram<'_>) -> Result<bool, InputError> {
        if !self.responder.interfaces().any(|(i, ..)| i == d.interface) {
            return Err(InputError::Interface(d.interface));
        }
        let multicast =
            d.destination == IpAddr::V4(MDNS_GROUP_V4) || d.destination == IpAddr::V6(MDNS_GROUP_V6);
        let ip = d.source.ip();
        let link_local = matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local());
        let on_link = link_local
            || self.responder.is_on_link(d.interface, ip)
            || self.responder.node_addresses().contains(&ip);
        if !multicast && !on_link {
            return Err(InputError::OffLink);
        }
        let header = wire::parse_header(d.payload).map_err(InputError::Wire)?;
        // RFC 6762 §18.3, §18.11.
        if header.opcode != 0 || header.rcode != 0 {
            return Ok(false);
        }
        let source = Source { interface: d.interface, address: d.source, multicast, on_link };
        if !header.response {
            let message = wire::parse(d.payload).map_err(InputError::Wire)?;
            self.counters.queries += 1;
            self.responder.handle_query(now, source, message);
            return Ok(false);
        }
        if d.source.port() != MDNS_PORT {
            return Err(InputError::Port);
        }
        if !multicast && !self.responder.expects_unicast(now, d.interface) {
            return Err(InputError::Unasked);
        }
        let message = wire::parse(d.payload).map_err(InputError::Wire)?;
        self.counters.responses += 1;
        let records = || message.answers.iter().chain(&message.additional);
        self.cache.learn(now, d.interface, records());
        if let Some(rival) = self.responder.handle_response(now, source, &message) {
            self.rename(now, rival);
        }
        Ok(true)
    }

    fn rename(&mut self, now: Instant, rival: Rival) {
        self.counters.renames += 1;
        self.held_since = None;
        self.responder.rename(now, rival);
    }

    fn record(
        &mut self,
        now: Instant,
        node: NodeId,
        hops: u8,
        valid: Duration,
        payload: &[u8],
    ) -> Result<(), InputError> {
        if self.node == Some(node) {
            return Ok(());
        }
        let record = NameRecord::decode(payload).map_err(InputError::Record)?;
        self.responder.learn_node(now, node, record, hops, valid);
        Ok(())
    }

    /// What follows from any change: claims, clashes, finished lookups, questions.
    fn settle(&mut self, now: Instant) {
        self.claim(now);
        let learnt = self.cache.take_changed();
        for (who, name, outcome) in self.lookups.finish(now, &self.cache, &learnt) {
            self.answer_waiter(now, who, &name, outcome);
        }
        let queries = self.lookups.queries(now, &self.cache);
        let links: Vec<u32> =
            self.responder.interfaces().filter(|(.., a)| !a.is_empty()).map(|(i, ..)| i).collect();
        for payload in queries {
            for interface in &links {
                self.responder.out.push_back(Transmit {
                    interface: *interface,
                    to: Destination::Multicast,
                    payload: payload.clone(),
                });
            }
        }
    }

    /// Claims the name on the mesh, or gives way to a node that keeps it.
    fn claim(&mut self, now: Instant) {
        let Some(me) = self.node else { return };
        if self.held_since.is_none() {
            let waited = now >= self.started + CLAIM_WITHOUT_LINK;
            let ready = self.responder.settled() && (self.responder.any_link() || waited);
            self.held_since = ready.then_some(now);
        }
        self.level = self.held_since.map_or(0, |since| claim::level(now.saturating_since(since)));
        let level = self.level;
        let rival = self.responder.table.lookup(self.responder.name()).map(|(n, e)| (e.record.level, n));
        if let Some(rival) = rival.filter(|r| claim::keeps(*r, (level, me))) {
            self.rename(now, Rival::Mesh(rival.1));
            return;
        }
        if self.held_since.is_none() {
            return;
        }
        let mut addresses = self.own_addresses(|role| role == Role::Mesh);
        addresses.truncate(MAX_ADDRESSES);
        let (name, services) = (self.responder.name().clone(), self.responder.services().to_vec());
        let payload = NameRecord { name, level, addresses, services }.encode();
        if self.published.as_ref() != Some(&payload) {
            self.published = Some(payload.clone());
            self.out.push_back(Output::Publish(payload));
        }
    }

    /// The addresses others can reach this node by: the node's own first, then those of interfaces.
    fn own_addresses(&self, of: impl Fn(Role) -> bool) -> Vec<IpAddr> {
        let mut out: Vec<IpAddr> = Vec::new();
        let interfaces = self.responder.interfaces().filter(|(_, role, _)| of(*role)).flat_map(|(.., a)| a);
        let all = self.responder.node_addresses().iter().copied().chain(interfaces.map(|a| a.address));
        for a in all.filter(|a| is_reachable(*a)) {
            if !out.contains(&a) {
                out.push(a);
            }
        }
        out
    }
}

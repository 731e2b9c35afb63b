//! The mDNS responder: what this node says on its links (RFC 6762 §§6–10).
//!
//! One [`Link`](link::Link) per interface, both address families together (§6.2); the name is one for all of
//! them, a conflict on any link renames the node everywhere.

mod answer;
mod conflict;
mod link;
mod proxy;
mod records;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use mesh_types::{Duration, Instant, NodeName};

use crate::rng::Rng;
use crate::service::Service;
use crate::table::NameTable;
use crate::wire::{Header, Message, Name, local_name};
use link::{Link, State};
use records::{Own, Records};

/// Lifetime of records that hold or lead to a host name, in seconds (RFC 6762 §10).
pub const TTL_HOST: u32 = 120;
/// Lifetime of all others.
pub const TTL_OTHER: u32 = 4500;
/// At most this many interfaces are served.
pub const MAX_LINKS: usize = 32;

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of its on-link prefix, in bits.
    pub prefix_len: u8,
}

impl InterfaceAddress {
    /// Whether `other` lies in this address' prefix (RFC 6762 §11).
    pub fn covers(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let bits = u32::from(self.prefix_len.min(32));
                a.to_bits().checked_shr(32 - bits).unwrap_or(0)
                    == b.to_bits().checked_shr(32 - bits).unwrap_or(0)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let bits = u32::from(self.prefix_len.min(128));
                a.to_bits().checked_shr(128 - bits).unwrap_or(0)
                    == b.to_bits().checked_shr(128 - bits).unwrap_or(0)
            }
            _ => false,
        }
    }
}

/// What an interface is for, as far as names go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It leads to other nodes: they reach its addresses, and through it the node's own.
    #[default]
    Mesh,
    /// Clients join through it: they reach the node's own addresses; its addresses are the same on every
    /// node and mean nothing to others.
    AccessPoint,
    /// It leads to a foreign network: who is there reaches its addresses alone, and nobody else does.
    Uplink,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// To 224.0.0.251 and ff02::fb, each if the interface has an address of that family.
    Multicast,
    /// To one host.
    Unicast(SocketAddr),
}

/// A message to send from port 5353.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Through this interface.
    pub interface: u32,
    /// To.
    pub to: Destination,
    /// The message.
    pub payload: Vec<u8>,
}

/// Why the node took another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// Another host on this link answers to it.
    Link {
        /// Through which interface.
        interface: u32,
        /// Who.
        address: IpAddr,
    },
    /// Another node of the mesh has held it longer.
    Mesh(mesh_types::NodeId),
}

/// Something worth a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The name is the node's own on this link.
    Established {
        /// The link.
        interface: u32,
        /// The name.
        name: NodeName,
    },
    /// Another host uses the name; it is probed again (RFC 6762 §9).
    Conflict {
        /// The name.
        name: NodeName,
        /// Who.
        rival: Rival,
    },
    /// The node took another name.
    Renamed {
        /// The old name.
        from: NodeName,
        /// The new one.
        to: NodeName,
        /// Who has the old one.
        rival: Rival,
    },
}

/// What came from a link, and from whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) interface: u32,
    pub(crate) address: SocketAddr,
    /// The message was sent to the mDNS group, not to us alone.
    pub(crate) multicast: bool,
    /// Its sender's address is in a prefix of the interface (RFC 6762 §11).
    pub(crate) on_link: bool,
}

/// The responder.
#[derive(Debug)]
pub(crate) struct Responder {
    configured: NodeName,
    name: NodeName,
    suffix: u32,
    host: Name,
    node_addresses: Vec<IpAddr>,
    services: Vec<Service>,
    /// Nodes that are answered for on access points.
    pub(crate) table: NameTable,
    links: BTreeMap<u32, Link>,
    /// When the last conflicts were (RFC 6762 §8.1: fifteen in ten seconds).
    conflicts: VecDeque<Instant>,
    /// They were too many: probes are far apart until the name is established.
    slow: bool,
    rng: Rng,
    pub(crate) out: VecDeque<Transmit>,
    pub(crate) events: VecDeque<Event>,
}

fn host_name(name: &NodeName) -> Name {
    // A node name is one legal label, so this is never the root.
    local_name(name.as_str()).unwrap_or_else(Name::root_vec)
}

impl Responder {
    pub(crate) fn new(name: NodeName, services: Vec<Service>, seed: u64) -> Self {
        Self {
            host: host_name(&name),
            configured: name.clone(),
            name,
            suffix: 1,
            node_addresses: Vec::new(),
            services,
            table: NameTable::default(),
            links: BTreeMap::new(),
            conflicts: VecDeque::new(),
            slow: false,
            rng: Rng::new(seed),
            out: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    pub(crate) fn name(&self) -> &NodeName {
        &self.name
    }

    pub(crate) fn configured(&self) -> &NodeName {
        &self.configured
    }

    pub(crate) fn host(&self) -> &Name {
        &self.host
    }

    /// What is announced beside the name. New instances are probed for first (RFC 6762 §8.1).
    pub(crate) fn set_services(&mut self, now: Instant, services: Vec<Service>) {
        if self.services != services {
            self.change(now, |r| r.services = services);
        }
    }

    pub(crate) fn services(&self) -> &[Service] {
        &self.services
    }

    pub(crate) fn node_addresses(&self) -> &[IpAddr] {
        &self.node_addresses
    }

    /// The interfaces and their addresses.
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = (u32, Role, &[InterfaceAddress])> {
        self.links.iter().map(|(i, l)| (*i, l.role, l.addresses.as_slice()))
    }

    /// Whether a unicast response on the link can answer something asked just now (RFC 6762 §6: within two
    /// seconds of a probe that asked for it).
    pub(crate) fn expects_unicast(&self, now: Instant, interface: u32) -> bool {
        let asked = self.links.get(&interface).and_then(|l| l.last_probe);
        asked.is_some_and(|at| now.saturating_since(at) <= Duration::from_secs(2))
    }

    /// Whether the name, and those of its services, are the node's own on every link that has one.
    pub(crate) fn settled(&self) -> bool {
        self.links.values().all(|l| matches!(l.state, State::Idle | State::Established { .. }))
    }

    pub(crate) fn any_link(&self) -> bool {
        self.links.values().any(|l| l.state != State::Idle)
    }

    pub(crate) fn is_on_link(&self, interface: u32, address: IpAddr) -> bool {
        self.links.get(&interface).is_some_and(|l| l.addresses.iter().any(|a| a.covers(address)))
    }

    /// An interface is there, or its addresses changed.
    pub(crate) fn set_interface(
        &mut self,
        now: Instant,
        index: u32,
        mut addresses: Vec<InterfaceAddress>,
        role: Role,
    ) {
        addresses
            .retain(|a| !(a.address.is_loopback() || a.address.is_multicast() || a.address.is_unspecified()));
        addresses.sort();
        addresses.dedup();
        if self.links.len() >= MAX_LINKS && !self.links.contains_key(&index) {
            return;
        }
        let before = self.links.entry(index).or_default();
        if before.addresses == addresses && before.role == role {
            return;
        }
        self.change(now, |r| {
            if let Some(link) = r.links.get_mut(&index) {
                (link.addresses, link.role) = (addresses, role);
            }
        });
    }

    /// The node's own addresses, valid on every link but uplinks.
    pub(crate) fn set_node_addresses(&mut self, now: Instant, addresses: Vec<IpAddr>) {
        if self.node_addresses != addresses {
            self.change(now, |r| r.node_addresses = addresses);
        }
    }

    /// An interface is gone or down.
    pub(crate) fn remove_interface(&mut self, index: u32) {
        self.links.remove(&index);
    }

    /// Does what `what` says, then tells every link about records that came and went (RFC 6762 §8.4); names that
    /// came are probed for before.
    fn change(&mut self, now: Instant, what: impl FnOnce(&mut Self)) {
        let old: Vec<_> = self.links.iter().map(|(i, l)| (*i, l.own().clone())).collect();
        what(self);
        self.renew_records();
        for (index, old) in old {
            let delay = self.rng.millis(0, 250);
            let Some(link) = self.links.get_mut(&index) else { continue };
            let (new, said) = (link.own().clone(), link.held().clone());
            let probed = |list: &[Own], name: &Name| list.iter().any(|o| o.probed && o.record.name == *name);
            link.set_held(said.iter().filter(|n| probed(&new, n)).cloned().collect());
            let unproven = |o: &&Own| o.probed && !link.held().contains(&o.record.name);
            let came = new.iter().filter(unproven).any(|o| !probed(&old, &o.record.name));
            let waits = new.iter().any(|o| unproven(&o));
            match link.state {
                _ if link.addresses.is_empty() => link.stop(),
                State::Idle => link.state = State::Waiting { until: now + delay },
                State::Probing { .. } | State::Established { .. } if came => {
                    link.state = State::Waiting { until: now + delay };
                }
                _ if !waits && old != new => {
                    link.state = State::Established { announcements: 2, next: Some(now) };
                }
                _ => {}
            }
            // Nothing is left to flush the old record: say goodbye (§10.1).
            let replaced = |o: &Own| match o.shared {
                true => new.contains(o),
                false => {
                    new.iter().any(|n| n.record.rtype == o.record.rtype && n.record.name == o.record.name)
                }
            };
            let was_said = |o: &Own| {
                let name = if o.probed { Some(o.record.name.clone()) } else { o.record.as_target() };
                name.is_none_or(|n| said.contains(&n) || !probed(&old, &n))
            };
            let gone = old.iter().filter(|o| !said.is_empty() && !replaced(o) && was_said(o));
            let gone = gone.map(Own::goodbye).collect();
            self.send_response(index, gone, Vec::new(), Destination::Multicast);
        }
    }

    /// Takes another name because `rival` keeps the present one, and none that the mesh knows.
    pub(crate) fn rename(&mut self, now: Instant, rival: Rival) {
        let lost_on = match rival {
            Rival::Link { interface, .. } => Some(interface),
            Rival::Mesh(_) => None,
        };
        for (index, said) in self.said_on_links() {
            if lost_on != Some(index) {
                // Without the cache-flush bit: another's records of that name must survive.
                let gone = said.iter().map(|o| crate::wire::Record { flush: false, ..o.goodbye() }).collect();
                self.send_response(index, gone, Vec::new(), Destination::Multicast);
            }
        }
        let from = self.name.clone();
        loop {
            self.suffix = self.suffix.saturating_add(1);
            self.name = self.configured.with_suffix(self.suffix);
            if self.suffix == u32::MAX || self.table.lookup(&self.name).is_none() {
                break;
            }
        }
        self.host = host_name(&self.name);
        self.renew_records();
        self.events.push_back(Event::Renamed { from, to: self.name.clone(), rival });
        self.probe_everywhere(now);
    }

    /// What may have been said on each link.
    fn said_on_links(&self) -> Vec<(u32, Records)> {
        self.links.iter().map(|(i, l)| (*i, l.proven().clone())).collect()
    }

    /// Says goodbye on every link and falls silent (RFC 6762 §10.1).
    pub(crate) fn shut_down(&mut self) {
        for (index, said) in self.said_on_links() {
            let gone = said.iter().map(Own::goodbye).collect();
            self.send_response(index, gone, Vec::new(), Destination::Multicast);
        }
        self.links.clear();
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.links.values().filter_map(Link::next_timeout).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for index in self.links.keys().copied().collect::<Vec<_>>() {
            self.run_deferred(now, index);
            self.run_state(now, index);
            self.flush(now, index);
        }
    }

    /// Probing and announcing (RFC 6762 §8).
    fn run_state(&mut self, now: Instant, index: u32) {
        let Some(link) = self.links.get_mut(&index) else { return };
        match link.state {
            State::Waiting { until } if until <= now => self.probe(now, index, 1),
            State::Probing { sent, next } if next <= now => {
                if sent < 3 {
                    self.probe(now, index, sent + 1);
                } else {
                    link.state = State::Established { announcements: 2, next: Some(now) };
                    if !link.held().contains(&self.host) {
                        let name = self.name.clone();
                        self.events.push_back(Event::Established { interface: index, name });
                    }
                    let probed = link.own().iter().filter(|o| o.probed).map(|o| o.record.name.clone());
                    link.set_held(probed.collect());
                    self.slow &= !self.settled();
                    self.run_state(now, index);
                }
            }
            State::Established { announcements, next: Some(next) } if next <= now => {
                let left = announcements.saturating_sub(1);
                let next = (left > 0).then_some(now + Duration::from_secs(1));
                link.state = State::Established { announcements: left, next };
                for key in link.own().clone().iter().map(Own::key) {
                    link.schedule(now, key, Duration::ZERO, link::SECOND, false);
                }
            }
            _ => {}
        }
    }

    /// Sends the probe of that number (RFC 6762 §8.1).
    fn probe(&mut self, now: Instant, index: u32, number: u8) {
        let message = self.probe_message(index);
        if let Some(link) = self.links.get_mut(&index) {
            link.last_probe = Some(now);
            link.state = State::Probing { sent: number, next: now + Duration::from_millis(250) };
        }
        let payload = crate::wire::emit(&message, crate::wire::MAX_SINGLE, false).bytes;
        self.out.push_back(Transmit { interface: index, to: Destination::Multicast, payload });
    }

    /// Sends records as an mDNS response, in as many messages as they need (RFC 6762 §17).
    fn send_response(
        &mut self,
        interface: u32,
        mut answers: Vec<crate::wire::Record>,
        additional: Vec<crate::wire::Record>,
        to: Destination,
    ) {
        let header = Header { response: true, authoritative: true, ..Default::default() };
        while !answers.is_empty() {
            let mut message =
                Message { header, answers, additional: additional.clone(), ..Default::default() };
            let mut emitted = crate::wire::emit(&message, crate::wire::MAX_PAYLOAD, false);
            if emitted.answers == 0 {
                // One record that fills more than a frame travels alone, in fragments.
                let rest = message.answers.split_off(1);
                emitted = crate::wire::emit(&message, crate::wire::MAX_SINGLE, false);
                answers = rest;
                if emitted.answers == 0 {
                    continue; // larger than any message may be
                }
            } else {
                answers = message.answers.split_off(emitted.answers);
            }
            self.out.push_back(Transmit { interface, to, payload: emitted.bytes });
        }
    }
}

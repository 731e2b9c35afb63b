//! Where a name's addresses come from: this node, the mesh, the links, in that order.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mesh_types::{Duration, Instant, NodeName};

use super::{Known, Names, Output, Provenance, Who};
use crate::claim::is_reachable;
use crate::dns::{self, Request, TTL_CLIENT};
use crate::lookup::Outcome;
use crate::responder::Role;
use crate::wire::{Name, Record, is_local, local_label, local_name, rcode, reverse_address, rtype};

/// At most this many names in one list.
const MAX_LISTED: usize = 2048;

fn link_local_v6(a: IpAddr) -> bool {
    matches!(a, IpAddr::V6(a) if a.is_unicast_link_local())
}

impl Names {
    pub(super) fn dns(&mut self, now: Instant, client: u64, stream: bool, payload: &[u8]) {
        self.counters.dns += 1;
        let request = match dns::parse(payload, stream) {
            Ok(request) => request,
            Err(Some(payload)) => return self.out.push_back(Output::DnsReply { client, payload }),
            Err(None) => return,
        };
        let name = request.question.name.clone();
        let answer = if !request.in_class() {
            Some((rcode::REFUSED, Vec::new()))
        } else if dns::is_localhost(&name) {
            let loopback = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
            Some((rcode::NOERROR, request.addresses(loopback.into_iter(), TTL_CLIENT)))
        } else if is_local(&name) {
            self.answer_local(now, &request)
        } else if let Some(address) = reverse_address(&name) {
            self.answer_reverse(now, &request, address)
        } else if dns::never_exists(&name) {
            Some((rcode::NXDOMAIN, Vec::new()))
        } else if dns::is_portal_probe(&name) {
            Some((rcode::NOERROR, request.addresses(self.portal_addresses().into_iter(), TTL_CLIENT)))
        } else {
            // Not ours to know, and nobody to ask.
            Some((rcode::REFUSED, Vec::new()))
        };
        match answer {
            Some((rcode::REFUSED, _)) if self.upstream && request.in_class() => {
                self.out.push_back(Output::Forward { client, stream, payload: payload.to_vec() });
            }
            Some((code, answers)) => {
                self.out.push_back(Output::DnsReply { client, payload: request.reply(code, answers) });
            }
            None if self.lookups.denied(now, &name) => {
                let payload = request.reply(rcode::NXDOMAIN, Vec::new());
                self.out.push_back(Output::DnsReply { client, payload });
            }
            None => self.ask_links(now, &name, Who::Dns { client, request }),
        }
    }

    /// Where clients find this node's pages: the access point's addresses, or any.
    fn portal_addresses(&self) -> Vec<IpAddr> {
        let access_points = self.responder.interfaces().filter(|(_, role, _)| *role == Role::AccessPoint);
        let addresses = access_points.flat_map(|(.., a)| a).map(|a| a.address);
        let of_access_point: Vec<IpAddr> = addresses.filter(|a| is_reachable(*a)).collect();
        if of_access_point.is_empty() { self.own().addresses } else { of_access_point }
    }

    /// The answer, or `None` if the links have to be asked.
    fn answer_local(&self, now: Instant, request: &Request) -> Option<(u8, Vec<Record>)> {
        let label = local_label(&request.question.name).and_then(|l| NodeName::new(l).ok());
        let Some(name) = label else { return Some((rcode::NXDOMAIN, Vec::new())) };
        if let Some(known) = self.own_or_mesh(now, &name) {
            return Some((rcode::NOERROR, request.addresses(known.addresses.into_iter(), TTL_CLIENT)));
        }
        let types = self.types(request);
        let known = types.iter().map(|t| crate::lookup::known(&self.cache, now, &request.question.name, *t));
        let known: Option<Vec<_>> = known.collect();
        known.map(|_| (rcode::NOERROR, self.link_answers(now, request)))
    }

    /// What to ask the links for.
    fn types(&self, request: &Request) -> Vec<u16> {
        match request.question.rtype {
            t @ (rtype::A | rtype::AAAA) => Vec::from([t]),
            _ if reverse_address(&request.question.name).is_some() => Vec::from([rtype::PTR]),
            // Of any other type there is nothing here, but whether the name exists matters.
            _ => Vec::from([rtype::A, rtype::AAAA]),
        }
    }

    fn answer_reverse(&self, now: Instant, request: &Request, address: IpAddr) -> Option<(u8, Vec<Record>)> {
        let target = if address.is_loopback() {
            crate::wire::name_from_labels([&b"localhost"[..]])
        } else if self.is_own(address) {
            Some(self.responder.host().clone())
        } else {
            self.responder.table.by_address(address).and_then(|(_, e)| local_name(e.record.name.as_str()))
        };
        if let Some(target) = target {
            return Some((rcode::NOERROR, request.pointer(&target, TTL_CLIENT)));
        }
        if crate::lookup::known(&self.cache, now, &request.question.name, rtype::PTR).is_some() {
            return Some((rcode::NOERROR, self.link_answers(now, request)));
        }
        let near = self.responder.interfaces().any(|(i, ..)| self.responder.is_on_link(i, address));
        if near {
            None
        } else if dns::is_private(address) {
            Some((rcode::NXDOMAIN, Vec::new()))
        } else {
            Some((rcode::REFUSED, Vec::new()))
        }
    }

    /// What the links said about the question.
    fn link_answers(&self, now: Instant, request: &Request) -> Vec<Record> {
        let q = &request.question;
        let mut out = Vec::new();
        for t in [rtype::AAAA, rtype::A, rtype::PTR] {
            if q.rtype != t && q.rtype != rtype::ANY {
                continue;
            }
            for c in self.cache.get(now, &q.name, t) {
                // Without an interface a link-local address is of no use to a client.
                if c.record.as_address().is_some_and(link_local_v6) {
                    continue;
                }
                let left = c.expires.saturating_since(now).as_secs().clamp(1, TTL_CLIENT.into());
                let record =
                    Record { ttl: left as u32, flush: false, name: q.name.clone(), ..c.record.clone() };
                if !out.contains(&record) {
                    out.push(record);
                }
            }
        }
        out
    }

    fn ask_links(&mut self, now: Instant, name: &Name, who: Who) {
        let types = match &who {
            Who::Dns { request, .. } => self.types(request),
            Who::Person { .. } => Vec::from([rtype::A, rtype::AAAA]),
            Who::PersonAddress { .. } => Vec::from([rtype::PTR]),
        };
        if let Err(who) = self.lookups.ask(now, name, &types, who) {
            // Too many wait already: a quick no is better than none.
            match who {
                Who::Dns { client, request } => {
                    let payload = request.reply(rcode::SERVFAIL, Vec::new());
                    self.out.push_back(Output::DnsReply { client, payload });
                }
                Who::Person { token, .. } | Who::PersonAddress { token, .. } => {
                    self.out.push_back(Output::Resolved { token, known: None });
                }
            }
        }
    }

    pub(super) fn answer_waiter(&mut self, now: Instant, who: Who, name: &Name, outcome: Outcome) {
        match who {
            Who::Dns { client, request } => {
                // It may have appeared on the mesh meanwhile.
                let mesh = local_label(name)
                    .and_then(|l| NodeName::new(l).ok())
                    .and_then(|n| self.own_or_mesh(now, &n));
                let (code, answers) = match (mesh, outcome) {
                    (Some(k), _) => (rcode::NOERROR, request.addresses(k.addresses.into_iter(), TTL_CLIENT)),
                    (None, Outcome::NoName) => (rcode::NXDOMAIN, Vec::new()),
                    (None, _) => (rcode::NOERROR, self.link_answers(now, &request)),
                };
                self.out.push_back(Output::DnsReply { client, payload: request.reply(code, answers) });
            }
            Who::Person { token, name } => {
                let known = self.own_or_mesh(now, &name).or_else(|| self.on_link(now, &name));
                self.out.push_back(Output::Resolved { token, known });
            }
            Who::PersonAddress { token, address } => {
                let known = self.whose(now, name, address);
                self.out.push_back(Output::Resolved { token, known });
            }
        }
    }

    /// What the links say of an address, whose reverse mapping is `reverse`.
    fn whose(&self, now: Instant, reverse: &Name, address: IpAddr) -> Option<Known> {
        let pointer = self.cache.get(now, reverse, rtype::PTR).into_iter().next()?;
        let target = pointer.record.as_target()?;
        let name = local_label(&target)?;
        let known = NodeName::new(name).ok().and_then(|n| self.on_link(now, &n));
        Some(known.unwrap_or_else(|| Known {
            name: name.to_string(),
            node: None,
            addresses: Vec::from([address]),
            hops: None,
            age: now.saturating_since(pointer.heard),
            source: Provenance::Link,
        }))
    }

    pub(super) fn resolve_for_person(&mut self, now: Instant, token: u64, name: NodeName) {
        if let Some(known) = self.own_or_mesh(now, &name) {
            self.out.push_back(Output::Resolved { token, known: Some(known) });
        } else if let Some(wire_name) = local_name(name.as_str()) {
            self.ask_links(now, &wire_name, Who::Person { token, name });
        }
    }

    pub(super) fn reverse_for_person(&mut self, now: Instant, token: u64, address: IpAddr) {
        let owner = match self.is_own(address) {
            true => Some(self.name().clone()),
            false => self.responder.table.by_address(address).map(|(_, e)| e.record.name.clone()),
        };
        let known = owner.and_then(|name| self.own_or_mesh(now, &name));
        let near = self.responder.interfaces().any(|(i, ..)| self.responder.is_on_link(i, address));
        match crate::wire::reverse_name(address).filter(|_| known.is_none() && near) {
            None => self.out.push_back(Output::Resolved { token, known }),
            Some(reverse) => self.ask_links(now, &reverse, Who::PersonAddress { token, address }),
        }
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.responder.node_addresses().contains(&address)
            || self.responder.interfaces().any(|(.., a)| a.iter().any(|a| a.address == address))
    }

    fn own(&self) -> Known {
        let mut addresses = self.own_addresses(|_| true);
        if addresses.is_empty() {
            addresses = Vec::from([Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
        }
        Known {
            name: self.name().to_string(),
            node: self.node,
            addresses,
            hops: Some(0),
            age: Duration::ZERO,
            source: Provenance::Own,
        }
    }

    fn own_or_mesh(&self, now: Instant, name: &NodeName) -> Option<Known> {
        if name == self.name() {
            return Some(self.own());
        }
        self.responder.table.lookup(name).map(|(node, e)| Known {
            name: name.to_string(),
            node: Some(node),
            addresses: e.record.addresses.clone(),
            hops: Some(e.hops),
            age: now.saturating_since(e.heard),
            source: Provenance::Mesh,
        })
    }

    fn on_link(&self, now: Instant, name: &NodeName) -> Option<Known> {
        let wire_name = local_name(name.as_str())?;
        let mut known = Known {
            name: name.to_string(),
            node: None,
            addresses: Vec::new(),
            hops: None,
            age: Duration::MAX,
            source: Provenance::Link,
        };
        for t in [rtype::AAAA, rtype::A] {
            for c in self.cache.get(now, &wire_name, t) {
                known.age = known.age.min(now.saturating_since(c.heard));
                known.addresses.extend(c.record.as_address().filter(|a| !known.addresses.contains(a)));
            }
        }
        known.addresses.sort_by_key(|a| link_local_v6(*a));
        (!known.addresses.is_empty()).then_some(known)
    }

    /// Every name known: this node's, the mesh's, and what the links said of themselves.
    pub fn list(&self, now: Instant) -> Vec<Known> {
        let mut out = Vec::from([self.own()]);
        out.extend(self.responder.table.iter().map(|(node, e)| Known {
            name: e.record.name.to_string(),
            node: Some(*node),
            addresses: e.record.addresses.clone(),
            hops: Some(e.hops),
            age: now.saturating_since(e.heard),
            source: Provenance::Mesh,
        }));
        let mut heard: Vec<NodeName> = self
            .cache
            .addresses(now)
            .filter_map(|c| local_label(&c.record.name).and_then(|l| NodeName::new(l).ok()))
            .collect();
        heard.sort();
        heard.dedup();
        heard.retain(|n| n != self.name() && self.responder.table.lookup(n).is_none());
        out.extend(heard.iter().filter_map(|n| self.on_link(now, n)));
        out.truncate(MAX_LISTED);
        out
    }
}

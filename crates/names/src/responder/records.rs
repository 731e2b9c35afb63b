//! The records that this node owns, and how they are referred to.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::link::Link;
use super::{Responder, Role, TTL_HOST, TTL_OTHER};
use crate::service::Service;
use crate::wire::{CLASS_IN, Header, Message, Name, Question, Record, name_from_labels, reverse_name, rtype};

/// A record set on a link: of unique records all of that name and type, of shared ones a single record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) name: Name,
    pub(crate) rtype: u16,
    /// Of shared records.
    pub(crate) rdata: Option<Vec<u8>>,
}

/// A record that this node owns on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) record: Record,
    /// Others may have records of that name and type too (RFC 6762 §2).
    pub(crate) shared: bool,
    /// It has to be probed for; a reverse mapping need not (RFC 6762 §8.1).
    pub(crate) probed: bool,
}

/// Records that are looked at much more often than they change.
pub(super) type Records = Arc<[Own]>;

impl Own {
    pub(crate) fn key(&self) -> Key {
        let rdata = self.shared.then(|| self.record.rdata.clone());
        Key { name: self.record.name.clone(), rtype: self.record.rtype, rdata }
    }

    /// The same record, to be forgotten (RFC 6762 §10.1).
    pub(crate) fn goodbye(&self) -> Record {
        Record { ttl: 0, ..self.record.clone() }
    }
}

fn unique(mut record: Record, probed: bool) -> Own {
    record.flush = true;
    Own { record, shared: false, probed }
}

/// The records of a host: its addresses and their reverse mappings, and its services.
pub(super) fn host_records(node: &str, host: &Name, addresses: &[IpAddr], services: &[Service]) -> Vec<Own> {
    let mut out = Vec::new();
    for a in addresses {
        out.push(unique(Record::address(host.clone(), TTL_HOST, *a), true));
        if let Some(reverse) = reverse_name(*a) {
            out.push(unique(Record::ptr(reverse, TTL_HOST, host), false));
        }
    }
    for s in services {
        service_records(s, node, host, &mut out);
    }
    out
}

/// RFC 6763 §4, §6, §9. Of two services of the same type and name the first counts.
fn service_records(s: &Service, node: &str, host: &Name, out: &mut Vec<Own>) {
    let (Some(kind), Some(instance), Some(all)) = (s.type_name(), s.instance_name(node), all_types()) else {
        return;
    };
    let shared = |record| Own { record, shared: true, probed: false };
    let pointer = shared(Record::ptr(kind.clone(), TTL_OTHER, &instance));
    if out.contains(&pointer) {
        return;
    }
    let listed = shared(Record::ptr(all, TTL_OTHER, &kind));
    if !out.contains(&listed) {
        out.push(listed);
    }
    out.push(pointer);
    let record = |rtype, ttl, rdata| {
        unique(Record { name: instance.clone(), rtype, class: CLASS_IN, flush: true, ttl, rdata }, true)
    };
    out.push(record(rtype::SRV, TTL_HOST, s.srv(host)));
    out.push(record(rtype::TXT, TTL_OTHER, s.txt()));
}

/// Those that may be said: their names, or what they lead to, are held.
pub(super) fn proven(own: &Records, held: &BTreeSet<Name>) -> Records {
    if held.is_empty() {
        return Records::default();
    }
    let unproven: BTreeSet<&Name> =
        own.iter().filter(|o| o.probed && !held.contains(&o.record.name)).map(|o| &o.record.name).collect();
    if unproven.is_empty() {
        return own.clone();
    }
    let may = |o: &&Own| match o.probed {
        true => held.contains(&o.record.name),
        false => o.record.as_target().is_none_or(|t| !unproven.contains(&t)),
    };
    own.iter().filter(may).cloned().collect()
}

/// RFC 6763 §9.
pub(super) fn all_types() -> Option<Name> {
    name_from_labels([&b"_services"[..], b"_dns-sd", b"_udp", b"local"])
}

impl Responder {
    /// Has every link hold the records that follow from the node's name, addresses and services.
    pub(super) fn renew_records(&mut self) {
        let renewed: Vec<Records> = self.links.values().map(|l| self.records_for(l)).collect();
        for (link, own) in self.links.values_mut().zip(renewed) {
            link.set_own(own);
        }
    }

    /// All records for that link: its addresses and the node's own, no other interface's (RFC 6762 §6.2).
    fn records_for(&self, link: &Link) -> Records {
        if link.addresses.is_empty() {
            return Records::default();
        }
        let mut addresses = if link.role == Role::Uplink { Vec::new() } else { self.node_addresses.clone() };
        addresses.extend(link.addresses.iter().map(|a| a.address));
        let mut once: Vec<IpAddr> = Vec::new();
        for a in addresses {
            if !once.contains(&a) {
                once.push(a);
            }
        }
        host_records(self.name.as_str(), &self.host, &once, &self.services).into()
    }

    /// The set's records, or the NSEC that says what its name has (RFC 6762 §6.1).
    pub(crate) fn set(own: &[Own], key: &Key) -> Vec<Record> {
        if key.rtype == rtype::NSEC {
            let mut of_name = own.iter().filter(|o| !o.shared && o.record.name == key.name).peekable();
            let Some(first) = of_name.peek() else { return Vec::new() };
            let ttl = first.record.ttl;
            let types: Vec<_> = of_name.map(|o| o.record.rtype).collect();
            let mut record = Record::nsec(key.name.clone(), ttl, &types);
            record.flush = true;
            return Vec::from([record]);
        }
        let members = own.iter().filter(|o| {
            o.record.rtype == key.rtype
                && o.record.name == key.name
                && key.rdata.as_ref().is_none_or(|d| *d == o.record.rdata)
        });
        // Several hosts may have the same shared record, which is then one.
        let most = if key.rdata.is_some() { 1 } else { usize::MAX };
        members.take(most).map(|o| o.record.clone()).collect()
    }

    /// The probe for every name that has to be probed and is not held yet (RFC 6762 §8.1, §8.2).
    pub(crate) fn probe_message(&self, interface: u32) -> Message {
        let mut message = Message { header: Header::default(), ..Default::default() };
        let Some(link) = self.links.get(&interface) else { return message };
        let unproven = |o: &&Own| o.probed && !link.held().contains(&o.record.name);
        for own in link.own().iter().filter(unproven) {
            if message.questions.iter().all(|q| q.name != own.record.name) {
                message.questions.push(Question {
                    name: own.record.name.clone(),
                    rtype: rtype::ANY,
                    class: CLASS_IN,
                    unicast: true,
                });
            }
            // The cache-flush bit belongs to responses alone (§10.2).
            message.authority.push(Record { flush: false, ..own.record.clone() });
        }
        message
    }
}

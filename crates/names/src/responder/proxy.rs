//! Other nodes of the mesh: answered for on access points, whose clients can't hear them (RFC 6762 needs them to
//! be on the link). Nothing is said of them on other links, and nothing unasked but that they are gone.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use mesh_types::{Duration, Instant, NodeId, NodeName};

use super::records::{self, Own, Records, host_records};
use super::{Destination, Responder, Role, Source};
use crate::claim::NameRecord;
use crate::wire::{Message, Name, Record, ends_with, local_label, local_name, reverse_address, rtype};

/// At most this many nodes in the answers to one message.
const MAX_ANSWERED: usize = 64;
/// At most this many names are remembered that hosts of one link have for themselves.
const MAX_CLAIMED: usize = 64;

fn records_of(record: &NameRecord) -> Vec<Own> {
    let Some(host) = local_name(record.name.as_str()) else { return Vec::new() };
    host_records(record.name.as_str(), &host, &record.addresses, &record.services)
}

/// Whether the name leads to a service of that record (RFC 6763 §4, §9).
fn is_of_service(record: &NameRecord, name: &Name, all_types: &Name) -> bool {
    let service = |s: &crate::Service| {
        s.type_name().is_some_and(|n| n == *name)
            || s.instance_name(record.name.as_str()).is_some_and(|n| n == *name)
    };
    !record.services.is_empty() && (name == all_types || record.services.iter().any(service))
}

impl Responder {
    /// The node's own records on that link, and on access points all records of the other nodes that `names`
    /// are about. A node that probes for itself, with `proposed`, is left alone.
    pub(super) fn answerable<'a>(
        &self,
        interface: u32,
        names: impl Iterator<Item = &'a Name>,
        proposed: &[Record],
    ) -> Records {
        let Some(link) = self.links.get(&interface) else { return Records::default() };
        if link.role != Role::AccessPoint {
            return link.proven().clone();
        }
        let nodes: BTreeSet<NodeId> = names.flat_map(|n| self.nodes_about(n)).take(MAX_ANSWERED).collect();
        let proposed: Vec<_> = proposed.iter().filter_map(Record::as_address).collect();
        let mut others: Vec<Own> = Vec::new();
        for (_, entry) in self.table.iter().filter(|(n, _)| nodes.contains(n)) {
            let record = &entry.record;
            let itself = record.addresses.iter().any(|a| proposed.contains(a));
            let claimed = local_name(record.name.as_str()).is_none_or(|n| link.claimed.contains_key(&n));
            if !itself && !claimed {
                others.extend(records_of(record));
            }
        }
        match others.is_empty() {
            true => link.proven().clone(),
            false => link.proven().iter().cloned().chain(others).collect(),
        }
    }

    /// The nodes that a name is about: as host, by address or by a service. Of several that claim one host name
    /// only the one that keeps it.
    fn nodes_about(&self, name: &Name) -> Vec<NodeId> {
        let keeps = |node: &NodeId, of: &NodeName| {
            *of != self.name && self.table.lookup(of).is_some_and(|(n, _)| n == *node)
        };
        let host = local_label(name).and_then(|l| NodeName::new(l).ok());
        if let Some(host) = host {
            let found = self.table.lookup(&host).filter(|_| host != self.name);
            return found.map(|(node, _)| node).into_iter().collect();
        }
        if let Some(address) = reverse_address(name) {
            let found = self.table.by_address(address).filter(|(n, e)| keeps(n, &e.record.name));
            return found.map(|(node, _)| node).into_iter().collect();
        }
        let Some(all) = records::all_types().filter(|_| ends_with(name, &[b"local"])) else {
            return Vec::new();
        };
        let of_service = self.table.iter().filter(|(_, e)| is_of_service(&e.record, name, &all));
        let kept = of_service.filter(|(n, e)| keeps(n, &e.record.name));
        kept.map(|(n, _)| *n).take(MAX_ANSWERED).collect()
    }

    /// Learns or renews another node's record.
    pub(crate) fn learn_node(
        &mut self,
        now: Instant,
        node: NodeId,
        record: NameRecord,
        hops: u8,
        valid: Duration,
    ) {
        let old = self.table.insert(now, node, record, hops, valid);
        if let Some(old) = old {
            self.say_goodbye_for(&old);
        }
    }

    /// Another node is gone.
    pub(crate) fn forget_node(&mut self, node: &NodeId) {
        if let Some(old) = self.table.remove(node) {
            self.say_goodbye_for(&old.record);
        }
    }

    /// What was said of a node on access points and is true no longer is taken back there (RFC 6762 §10.1):
    /// its clients would believe it for two minutes more.
    fn say_goodbye_for(&mut self, old: &NameRecord) {
        let now_true: Vec<Own> = match self.table.lookup(&old.name) {
            Some((_, e)) if e.record == *old => return,
            Some((_, e)) => records_of(&e.record),
            None => Vec::new(),
        };
        let gone: Vec<Own> = records_of(old).into_iter().filter(|o| !now_true.contains(o)).collect();
        for index in self.links.keys().copied().collect::<Vec<_>>() {
            let Some(link) = self.links.get_mut(&index).filter(|l| l.role == Role::AccessPoint) else {
                continue;
            };
            let said = |o: &&Own| {
                let ours = link.own().iter().any(|mine| mine.record.same_data(&o.record));
                !ours && link.sent.contains_key(&o.key())
            };
            // Without the cache-flush bit: what is still true of that name must survive.
            let goodbye = |o: &Own| Record { flush: false, ..o.goodbye() };
            let records: Vec<Record> = gone.iter().filter(said).map(goodbye).collect();
            for o in &gone {
                link.sent.remove(&o.key());
                link.pending.remove(&o.key());
            }
            self.send_response(index, records, Vec::new(), Destination::Multicast);
        }
    }

    /// A host on an access point's link that has the name of another node for itself answers for itself.
    pub(super) fn note_claims(&mut self, now: Instant, source: Source, response: &Message) {
        let Some(link) = self.links.get_mut(&source.interface).filter(|l| l.role == Role::AccessPoint) else {
            return;
        };
        link.claimed.retain(|_, until| *until > now);
        let all = || response.answers.iter().chain(&response.additional);
        for r in all().filter(|r| matches!(r.rtype, rtype::A | rtype::AAAA)) {
            let node = local_label(&r.name).and_then(|l| NodeName::new(l).ok());
            let Some((_, entry)) = node.and_then(|n| self.table.lookup(&n)) else { continue };
            // One address in common: it is that node, or another node that answers for it.
            let same = all().filter(|o| o.name == r.name).filter_map(Record::as_address);
            if same.into_iter().any(|a| entry.record.addresses.contains(&a)) {
                continue;
            }
            if r.ttl == 0 {
                link.claimed.remove(&r.name);
            } else if link.claimed.len() < MAX_CLAIMED {
                let ttl = Duration::from_secs(r.ttl.min(super::TTL_HOST).into());
                link.claimed.insert(r.name.clone(), now + ttl);
            }
        }
    }
}

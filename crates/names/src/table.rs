//! Names of nodes out of link range, from the records they flood.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant, NodeId, NodeName};

use crate::claim::{self, NameRecord};

/// At most this many nodes are remembered; then the one that expires first makes room.
pub const MAX_NODES: usize = 1024;

/// What is known of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its record.
    pub record: NameRecord,
    /// Hops to it.
    pub hops: u8,
    /// When its record came.
    pub heard: Instant,
    /// When it is forgotten unless the router says otherwise before.
    expires: Instant,
}

/// The mesh name table.
#[derive(Debug, Default)]
pub struct NameTable {
    nodes: BTreeMap<NodeId, Entry>,
    /// The router is connected and tells what expires; without it, entries expire by themselves.
    pub(crate) router_tells: bool,
}

impl NameTable {
    /// Learns or renews a node's record. Gives the record that it takes the place of: the node's last one, or
    /// another node's if the table is full.
    pub fn insert(
        &mut self,
        now: Instant,
        node: NodeId,
        record: NameRecord,
        hops: u8,
        valid: Duration,
    ) -> Option<NameRecord> {
        let mut evicted = None;
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&node) {
            let first = self.nodes.iter().min_by_key(|(_, e)| e.expires).map(|(n, _)| *n);
            evicted = first.and_then(|n| self.nodes.remove(&n));
        }
        let old = self.nodes.insert(node, Entry { record, hops, heard: now, expires: now + valid });
        old.or(evicted).map(|e| e.record)
    }

    /// Forgets a node.
    pub fn remove(&mut self, node: &NodeId) -> Option<Entry> {
        self.nodes.remove(node)
    }

    /// The nodes that have expired, if the router no longer tells.
    pub fn expired(&self, now: Instant) -> Vec<NodeId> {
        let gone = self.nodes.iter().filter(|(_, e)| !self.router_tells && e.expires <= now);
        gone.map(|(n, _)| *n).collect()
    }

    /// When [`NameTable::expired`] has something new.
    pub fn next_expiry(&self) -> Option<Instant> {
        if self.router_tells { None } else { self.nodes.values().map(|e| e.expires).min() }
    }

    /// Who holds the name; of several claims the one that keeps it.
    pub fn lookup(&self, name: &NodeName) -> Option<(NodeId, &Entry)> {
        let claims = self.nodes.iter().filter(|(_, e)| e.record.name == *name).map(|(n, e)| (*n, e));
        claims.reduce(
            |a, b| {
                if claim::keeps((b.1.record.level, b.0), (a.1.record.level, a.0)) { b } else { a }
            },
        )
    }

    /// Whose address it is.
    pub fn by_address(&self, address: IpAddr) -> Option<(NodeId, &Entry)> {
        self.nodes.iter().find(|(_, e)| e.record.addresses.contains(&address)).map(|(n, e)| (*n, e))
    }

    /// All nodes, in order of their identifiers.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Entry)> {
        self.nodes.iter()
    }

    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn record(name: &str, level: u8) -> NameRecord {
        NameRecord {
            name: NodeName::new(name).unwrap(),
            level,
            addresses: vec![IpAddr::from([10, 64, 0, level])],
            services: vec![],
        }
    }
    fn node(n: u8) -> NodeId {
        NodeId::from_digest([n; 32])
    }
    const VALID: Duration = Duration::from_secs(30);

    #[test]
    fn of_two_claims_the_one_that_keeps_the_name_is_given() {
        let mut t = NameTable::default();
        t.insert(Instant::ZERO, node(1), record("bloor", 0), 2, VALID);
        t.insert(Instant::ZERO, node(2), record("bloor", 4), 3, VALID);
        let name = NodeName::new("bloor").unwrap();
        assert_eq!(t.lookup(&name).unwrap().0, node(2));
        assert_eq!(t.by_address([10, 64, 0, 4].into()).unwrap().0, node(2));
        t.remove(&node(2));
        assert_eq!(t.lookup(&name).unwrap().0, node(1));
    }

    #[test]
    fn entries_expire_only_when_no_router_tells() {
        let mut t = NameTable { router_tells: true, ..Default::default() };
        t.insert(Instant::ZERO, node(1), record("a", 0), 1, VALID);
        assert_eq!(t.expired(Instant::FAR_FUTURE), []);
        t.router_tells = false;
        assert_eq!(t.next_expiry(), Some(Instant::ZERO + VALID));
        assert_eq!(t.expired(Instant::ZERO + VALID), [node(1)]);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut t = NameTable::default();
        for i in 0..(MAX_NODES as u32 + 10) {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&i.to_be_bytes());
            let valid = Duration::from_secs(u64::from(i) + 1);
            t.insert(Instant::ZERO, NodeId::from_digest(id), record("a", 0), 1, valid);
        }
        assert_eq!(t.len(), MAX_NODES);
        assert!(t.nodes.values().all(|e| e.expires > Instant::ZERO + Duration::from_secs(10)));
    }
}

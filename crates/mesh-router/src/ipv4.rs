//! The node's IPv4 address on the mesh and its duplicates.
//!
//! Addresses are hashed from NodeIds, so two nodes may have the same. Each node sees the others' in their
//! name records; of two with the same address the lower NodeId keeps it, the other takes the next of its
//! own that nobody else has. The choice is kept in a file: `<attempt>\n`, the argument of
//! [`NodeId::mesh_ipv4`].

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use mesh_sys::file;
use mesh_sys::identity::{IPV4_FILE, ipv4_attempt};
use mesh_types::{IPV4_ATTEMPTS as ATTEMPTS, NodeId};
use names::NameRecord;

/// Our address and those of others.
#[derive(Debug)]
pub(crate) struct Ipv4 {
    me: NodeId,
    path: PathBuf,
    attempt: u8,
    /// Mesh addresses in name records. As many nodes as the router keeps records of.
    claims: BTreeMap<NodeId, Vec<Ipv4Addr>>,
}

/// What a claim means for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Fine,
    /// The other has our address and has to move.
    Keep,
    /// The other keeps it; ours is now this one.
    Move(Ipv4Addr),
}

impl Ipv4 {
    /// With the attempt of the last run, which is kept in the services' state folder.
    pub(crate) fn load(me: NodeId, state_dir: &Path) -> Self {
        let attempt = ipv4_attempt(state_dir);
        Self { me, path: state_dir.join(IPV4_FILE), attempt, claims: BTreeMap::new() }
    }

    /// Our address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.me.mesh_ipv4(self.attempt)
    }

    /// Another node's name record came.
    pub(crate) fn claim(&mut self, node: NodeId, name_record: &[u8]) -> Verdict {
        let Ok(record) = NameRecord::decode(name_record) else { return Verdict::Fine };
        let v4 = record.addresses.iter().filter_map(|a| match a {
            IpAddr::V4(a) if in_pool(*a) => Some(*a),
            _ => None,
        });
        let theirs: Vec<Ipv4Addr> = v4.collect();
        let clash = node != self.me && theirs.contains(&self.address());
        self.claims.insert(node, theirs);
        match clash {
            false => Verdict::Fine,
            true if self.me < node => Verdict::Keep,
            true => self.next().map_or(Verdict::Keep, Verdict::Move),
        }
    }

    /// A node's name record is no more.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.claims.remove(&node);
    }

    /// Takes the next address that nobody claims; `None` if others have them all.
    fn next(&mut self) -> Option<Ipv4Addr> {
        let mut tries = (1..ATTEMPTS).map(|step| (self.attempt + step) % ATTEMPTS);
        let taken = |a: Ipv4Addr| self.claims.iter().any(|(n, claims)| *n != self.me && claims.contains(&a));
        let free = tries.find(|attempt| !taken(self.me.mesh_ipv4(*attempt)))?;
        self.attempt = free;
        Some(self.address())
    }

    /// Keeps the choice for the next start.
    pub(crate) fn save(&self) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        file::write_atomic(&self.path, format!("{}\n", self.attempt).as_bytes(), 0o640)
    }

    /// Who else has our address, the lowest first.
    pub(crate) fn rival(&self) -> Option<NodeId> {
        let mine = self.address();
        self.claims.iter().find(|(n, claims)| **n != self.me && claims.contains(&mine)).map(|(n, _)| *n)
    }
}

fn in_pool(address: Ipv4Addr) -> bool {
    let (base, len) = mesh_types::IPV4_POOL;
    (address.to_bits() ^ base.to_bits()) >> (32 - u32::from(len)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_types::NodeName;

    fn node(first: u8) -> NodeId {
        let mut digest = [7u8; 32];
        digest.iter_mut().enumerate().for_each(|(i, b)| *b = b.wrapping_mul(i as u8 + 3));
        digest[0] = first;
        NodeId::from_digest(digest)
    }

    fn record(addresses: &[Ipv4Addr]) -> Vec<u8> {
        let addresses = addresses.iter().map(|a| IpAddr::V4(*a)).collect();
        NameRecord { name: NodeName::new("x").unwrap(), level: 0, addresses, services: Vec::new() }.encode()
    }

    fn ours(first: u8) -> Ipv4 {
        Ipv4::load(node(first), Path::new("/nonexistent"))
    }

    #[test]
    fn the_lower_identifier_keeps_the_address() {
        let mut low = ours(1);
        let address = low.address();
        assert_eq!(ours(9).address(), address, "the first octet is no part of it");
        assert_eq!(low.claim(node(9), &record(&[address])), Verdict::Keep);
        assert_eq!((low.address(), low.rival()), (address, Some(node(9))));
        low.forget(node(9));
        assert_eq!(low.rival(), None);
    }

    #[test]
    fn the_higher_one_takes_the_next_that_is_free() {
        let mut high = ours(9);
        let address = high.address();
        assert_eq!(high.claim(node(2), &record(&[node(9).mesh_ipv4(1)])), Verdict::Fine);
        assert_eq!(high.claim(node(1), &record(&[address])), Verdict::Move(node(9).mesh_ipv4(2)));
        assert_eq!(high.claim(node(1), &record(&[address])), Verdict::Fine);
        assert_eq!(high.claim(node(9), &record(&[high.address()])), Verdict::Fine, "our own record");
    }

    #[test]
    fn what_is_no_mesh_address_or_no_record_is_no_claim() {
        let mut ipv4 = ours(9);
        assert_eq!(ipv4.claim(node(1), &record(&[Ipv4Addr::new(10, 0, 0, 1)])), Verdict::Fine);
        assert_eq!(ipv4.claim(node(1), b"\xff nonsense"), Verdict::Fine);
        assert!(in_pool(Ipv4Addr::new(10, 64, 0, 1)) && in_pool(Ipv4Addr::new(10, 127, 255, 254)));
        assert!(!in_pool(Ipv4Addr::new(10, 128, 0, 1)) && !in_pool(Ipv4Addr::new(10, 63, 0, 1)));
    }

    #[test]
    fn with_all_taken_it_stays() {
        let mut ipv4 = ours(9);
        for attempt in 1..ATTEMPTS {
            ipv4.claim(node(attempt + 20), &record(&[node(9).mesh_ipv4(attempt)]));
        }
        assert_eq!(ipv4.claim(node(1), &record(&[ipv4.address()])), Verdict::Keep);
    }

    #[test]
    fn the_choice_survives_a_restart() {
        let dir = std::env::temp_dir().join(format!("mesh-router-ipv4-{}", std::process::id()));
        let mut ipv4 = Ipv4::load(node(9), &dir);
        ipv4.claim(node(1), &record(&[ipv4.address()]));
        ipv4.save().unwrap();
        assert_eq!(Ipv4::load(node(9), &dir).address(), node(9).mesh_ipv4(1));
        for bad in ["6\n", "x", ""] {
            std::fs::write(dir.join(IPV4_FILE), bad).unwrap();
            assert_eq!(Ipv4::load(node(9), &dir).address(), node(9).mesh_ipv4(0), "{bad:?}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}

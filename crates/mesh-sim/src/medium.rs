//! Who hears whom: addresses, directed links with loss, and delays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use mesh_types::{Duration, NodeId};
use nhdp::Rng;
use olsrv2::NetAddr;

/// A node's interface: the node's index and the interface's number.
pub type Port = (usize, u32);

/// Everything between the nodes. It does not change while time passes.
#[derive(Debug)]
pub(crate) struct Medium {
    seed: u64,
    pub(crate) ipv4: bool,
    /// Shortest time from sending to hearing; also how far threads may run ahead of each other.
    pub(crate) delay: Duration,
    /// Up to so much is added, for each packet.
    pub(crate) jitter: Duration,
    /// By node: its outgoing links, ordered.
    links: Vec<Vec<Link>>,
    names: Vec<NodeId>,
    by_address: BTreeMap<IpAddr, usize>,
    /// Without power.
    dark: BTreeSet<usize>,
}

/// A directed link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link {
    pub(crate) interface: u32,
    pub(crate) to: Port,
    /// In 1/65536.
    pub(crate) loss: u16,
}

/// The node's own /64.
pub fn prefix(id: &NodeId) -> NetAddr {
    NetAddr::new(id.ula_prefix().into(), 64)
}

impl Medium {
    pub(crate) fn new(seed: u64, ipv4: bool, delay: Duration, jitter: Duration) -> Self {
        let (links, names, by_address) = (Vec::new(), Vec::new(), BTreeMap::new());
        // Threads may run ahead of each other by the delay, so there must be one.
        let delay = delay.max(Duration::from_micros(1));
        Self { seed, ipv4, delay, jitter, links, names, by_address, dark: BTreeSet::new() }
    }

    /// A newcomer without links; its index.
    pub(crate) fn add(&mut self) -> usize {
        let index = self.names.len();
        let mut rng = Rng::new(mix(&[self.seed, 0x6e61_6d65, index as u64]));
        let mut digest = [0; 32];
        digest.chunks_mut(8).for_each(|c| c.copy_from_slice(&rng.next_u64().to_be_bytes()));
        self.names.push(NodeId::from_digest(digest));
        self.links.push(Vec::new());
        self.by_address.insert(self.originator(index), index);
        for interface in 0..4 {
            self.by_address.insert(self.source((index, interface)), index);
        }
        index
    }

    pub(crate) fn id(&self, node: usize) -> &NodeId {
        &self.names[node]
    }

    /// As on a real node: from its identity.
    pub(crate) fn originator(&self, node: usize) -> IpAddr {
        let id = &self.names[node];
        if self.ipv4 { id.mesh_ipv4(0).into() } else { id.ula_address().into() }
    }

    /// The address packets come from. IPv4: the originator's, interfaces are unnumbered.
    pub(crate) fn source(&self, (node, interface): Port) -> IpAddr {
        if self.ipv4 {
            return self.originator(node);
        }
        let bytes = self.names[node].as_bytes();
        let word = |i: usize| u16::from_be_bytes([bytes[i], bytes[i + 1]]);
        let nic = word(16) & 0xfc00 | 0x0200 | interface as u16 & 0xff;
        Ipv6Addr::new(0xfe80, 0, 0, 0, nic, word(18) & 0xff00 | 0xff, 0xfe00 | word(20) & 0xff, word(22))
            .into()
    }

    /// Whose address that is.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    pub(crate) fn links(&self, node: usize) -> &[Link] {
        &self.links[node]
    }

    pub(crate) fn link(&self, from: Port, to: Port) -> Option<&Link> {
        self.links[from.0].iter().find(|l| l.interface == from.1 && l.to == to)
    }

    /// Both directions exist.
    pub(crate) fn is_two_way(&self, from: usize, link: &Link) -> bool {
        self.link(link.to, (from, link.interface)).is_some()
    }

    pub(crate) fn set_power(&mut self, node: usize, on: bool) {
        if on {
            self.dark.remove(&node)
        } else {
            self.dark.insert(node)
        };
    }

    /// Whether a unicast question from there to `address` is answered: loss does not matter, radios repeat
    /// until they hear an acknowledgement.
    pub(crate) fn answers(&self, from: Port, address: IpAddr) -> bool {
        let mut links = self.links[from.0].iter().filter(|l| l.interface == from.1);
        links.any(|l| {
            self.source(l.to) == address && self.is_two_way(from.0, l) && !self.dark.contains(&l.to.0)
        })
    }

    pub(crate) fn connect(&mut self, from: Port, to: Port, loss: u16) {
        let links = &mut self.links[from.0];
        links.retain(|l| (l.interface, l.to) != (from.1, to));
        links.push(Link { interface: from.1, to, loss });
        links.sort_unstable();
    }

    /// Keeps the links (from, link) for which `keep` says so; it may change their loss.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(usize, &mut Link) -> bool) {
        for (from, links) in self.links.iter_mut().enumerate() {
            links.retain_mut(|l| keep(from, l));
        }
    }

    /// All links, to put back later.
    pub(crate) fn snapshot(&self) -> Vec<Vec<Link>> {
        self.links.clone()
    }

    pub(crate) fn restore(&mut self, links: Vec<Vec<Link>>) {
        self.links = links;
        self.links.resize(self.names.len(), Vec::new());
    }

    /// Whether the n-th packet of `from` is lost on the way to `to`. A pure function of the seed, so that
    /// it does not matter who asks first.
    pub(crate) fn is_lost(&self, from: usize, number: u32, link: &Link) -> bool {
        let draw = mix(&[self.seed, from as u64, number.into(), link.to.0 as u64, 1]);
        link.loss > 0 && (draw & 0xffff) < u64::from(link.loss)
    }

    /// How long the n-th packet of `from` takes: the same for all who hear it, as on a radio channel.
    pub(crate) fn flight(&self, from: usize, number: u32) -> Duration {
        self.delay + Rng::new(mix(&[self.seed, from as u64, number.into(), 2])).up_to(self.jitter)
    }
}

/// One number out of several.
pub(crate) fn mix(words: &[u64]) -> u64 {
    words.iter().fold(0, |state, word| Rng::new(state ^ word.wrapping_mul(0xd6e8_feb8_6659_fd93)).next_u64())
}

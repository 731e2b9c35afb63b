//! A mesh of routers in one thread: an event heap, links with loss, and each node's kernel routes.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use mesh_types::{Duration, Instant};
use nhdp::Rng;
use olsrv2::{Config, Event, Input, NetAddr, Output, RouteChange, Router, Timing, Way, is_calm};
use rfc5444::{Packet, Tlv};

/// The interface every node has from its start.
pub const RADIO: u32 = 1;
/// A second one, where a test wants it.
pub const WIRE: u32 = 2;

pub struct Node {
    pub router: Router,
    /// What the kernel would hold.
    pub fib: BTreeMap<NetAddr, Way>,
    pub events: Vec<(Instant, Event)>,
    pub route_changes: usize,
    pub up: bool,
    /// What came as no news, and from whom: with [`Net::lazy`].
    waiting: VecDeque<(Instant, IpAddr, u32, Vec<u8>)>,
}

/// A packet on its way.
type Delivery = (Instant, u64, Port, Port, Vec<u8>);

/// A node's interface.
pub type Port = (usize, u32);

pub struct Net {
    pub now: Instant,
    pub seed: u64,
    pub nodes: Vec<Node>,
    /// Directed edges with their loss in 1/256; 255: all is lost.
    pub edges: BTreeMap<(Port, Port), u8>,
    /// IPv4 without interface addresses, or IPv6.
    pub ipv4: bool,
    heap: BinaryHeap<Reverse<Delivery>>,
    sent: u64,
    rng: Rng,
    pub packets: u64,
    pub bytes: u64,
    /// When the answer to a probe is there, or the kernel gave up: who asked whom.
    verdicts: BTreeMap<(Instant, u64), (Port, IpAddr)>,
    pub probes: u64,
    /// Every packet sent, if wanted, and where.
    pub tap: Option<Vec<(Port, Vec<u8>)>>,
    /// Nodes at rest read what comes as no news when something else is to be done, as mesh-router does.
    pub lazy: bool,
    /// HELLOs and TCs bear a TLV on arrival that means nothing and is never twice the same.
    pub salt: Option<u64>,
    /// How often a node had something to do.
    pub wakes: u64,
}

pub fn originator4(node: usize) -> IpAddr {
    IpAddr::from([10, 64, 3, node as u8 + 1])
}

pub fn originator(node: usize) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, node as u16 + 1))
}

pub fn link_local(node: usize) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0x2, 0xff, 0xfe00, node as u16 + 1))
}

/// The node's /64.
pub fn prefix(node: usize) -> NetAddr {
    NetAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd42, node as u16 + 1, 0, 0, 0, 0, 0, 0)), 64)
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self {
            now: Instant::from_millis(1000),
            seed,
            nodes: Vec::new(),
            edges: BTreeMap::new(),
            ipv4: false,
            heap: BinaryHeap::new(),
            sent: 0,
            rng: Rng::new(seed),
            verdicts: BTreeMap::new(),
            probes: 0,
            packets: 0,
            bytes: 0,
            tap: None,
            lazy: false,
            salt: None,
            wakes: 0,
        }
    }

    /// `n` nodes without links, all switched on now.
    pub fn with_nodes(seed: u64, n: usize, timing: Timing) -> Self {
        let mut net = Self::new(seed);
        for _ in 0..n {
            net.add(|c| c.timing = timing);
        }
        net
    }

    pub fn line(seed: u64, n: usize, timing: Timing) -> Self {
        let mut net = Self::with_nodes(seed, n, timing);
        (1..n).for_each(|i| net.connect(i - 1, i));
        net
    }

    pub fn ring(seed: u64, n: usize, timing: Timing) -> Self {
        let mut net = Self::line(seed, n, timing);
        net.connect(n - 1, 0);
        net
    }

    pub fn grid(seed: u64, side: usize, timing: Timing) -> Self {
        let mut net = Self::with_nodes(seed, side * side, timing);
        for i in 0..side * side {
            if i % side + 1 < side {
                net.connect(i, i + 1);
            }
            if i / side + 1 < side {
                net.connect(i, i + side);
            }
        }
        net
    }

    pub fn add(&mut self, change: impl FnOnce(&mut Config)) -> usize {
        let index = self.nodes.len();
        let mut config = Config::new(self.originator(index));
        change(&mut config);
        let router = Router::new(config, self.rng.next_u64(), self.now);
        self.nodes.push(Node {
            router,
            fib: BTreeMap::new(),
            events: Vec::new(),
            route_changes: 0,
            up: true,
            waiting: VecDeque::new(),
        });
        self.bring_up((index, RADIO));
        index
    }

    /// Switches a node off and on: it knows nothing but its numbers, and its kernel has no routes.
    pub fn restart(&mut self, node: usize) {
        let old = &self.nodes[node].router;
        let counter = old.config().counter + (1 << 32);
        let config = Config { sequences: Some(old.sequences()), counter, ..old.config().clone() };
        let n = &mut self.nodes[node];
        n.router = Router::new(config, self.rng.next_u64(), self.now);
        n.fib.clear();
        n.waiting.clear();
        self.bring_up((node, RADIO));
    }

    pub fn originator(&self, node: usize) -> IpAddr {
        if self.ipv4 { originator4(node) } else { originator(node) }
    }

    /// The address packets come from: the originator's where interfaces are unnumbered.
    pub fn source(&self, (node, interface): Port) -> IpAddr {
        match (self.ipv4, interface) {
            (true, _) => originator4(node),
            (false, RADIO) => link_local(node),
            (false, _) => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0xe, 0xff, 0xfe00, node as u16 + 1)),
        }
    }

    pub fn bring_up(&mut self, (node, interface): Port) {
        let address = [NetAddr::host(self.source((node, interface)))];
        let addresses = if self.ipv4 { &[][..] } else { &address };
        self.input(node, Input::InterfaceUp { interface, addresses });
    }

    pub fn connect(&mut self, a: usize, b: usize) {
        self.connect_ports((a, RADIO), (b, RADIO));
    }

    pub fn connect_ports(&mut self, a: Port, b: Port) {
        self.edges.insert((a, b), 0);
        self.edges.insert((b, a), 0);
    }

    pub fn cut(&mut self, a: usize, b: usize) {
        self.edges.retain(|((x, _), (y, _)), _| (*x, *y) != (a, b) && (*y, *x) != (a, b));
    }

    pub fn set_loss(&mut self, loss: u8) {
        self.edges.values_mut().for_each(|l| *l = loss);
    }

    pub fn input(&mut self, node: usize, input: Input<'_>) {
        self.catch_up(node);
        self.nodes[node].router.handle_input(self.now, input).unwrap();
        self.drain(node);
    }

    /// Reads what waited, as if it had been read when it came.
    pub fn catch_up(&mut self, node: usize) {
        self.wakes += 1;
        while let Some((came, source, interface, bytes)) = self.nodes[node].waiting.pop_front() {
            let packet = Input::Packet { interface, source, bytes: &bytes };
            let _ = self.nodes[node].router.handle_input(came, packet);
            self.drain(node);
        }
    }

    fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].router.poll_output() {
            match output {
                Output::Transmit { interface, bytes } => self.transmit((node, interface), bytes),
                Output::Carry { .. } => panic!("node {node} has no carrier"),
                Output::Probe { interface, address } => self.probe((node, interface), address),
                Output::Route(change) => self.apply(node, change),
                Output::Event(event) => self.nodes[node].events.push((self.now, event)),
            }
        }
    }

    fn apply(&mut self, node: usize, change: RouteChange) {
        let seed = self.seed;
        let n = &mut self.nodes[node];
        n.route_changes += 1;
        let RouteChange { prefix, old, new } = change;
        let before = match new {
            Some(new) => n.fib.insert(prefix, new),
            None => n.fib.remove(&prefix),
        };
        assert_eq!(before, old, "route change does not fit what was there, seed {seed}");
    }

    /// Unicast: repeated until it is acknowledged, so loss does not matter.
    fn probe(&mut self, from: Port, address: IpAddr) {
        self.probes += 1;
        // Three questions, a quarter of the time apart.
        let gives_up = self.nodes[from.0].router.config().timing.probe_timeout.times(3).divided_by(4);
        let wait = if self.reaches(from, address) { Duration::from_millis(5) } else { gives_up };
        self.verdicts.insert((self.now + wait, self.probes), (from, address));
    }

    fn reaches(&self, from: Port, address: IpAddr) -> bool {
        let to = |(a, b): &(Port, Port)| *a == from && self.source(*b) == address && self.nodes[b.0].up;
        self.edges.keys().any(|edge| to(edge) && self.edges.contains_key(&(edge.1, edge.0)))
    }

    fn verdict(&mut self, (node, interface): Port, address: IpAddr) {
        if self.nodes[node].up {
            self.catch_up(node);
            let input = match self.reaches((node, interface), address) {
                true => Input::ProbeAnswered { interface, address },
                false => Input::ProbeFailed { interface, address },
            };
            let _ = self.nodes[node].router.handle_input(self.now, input);
            self.drain(node);
        }
    }

    fn transmit(&mut self, from: Port, bytes: Vec<u8>) {
        self.packets += 1;
        self.bytes += bytes.len() as u64;
        if let Some(tap) = &mut self.tap {
            tap.push((from, bytes.clone()));
        }
        if !self.nodes[from.0].up {
            return;
        }
        let ends = self.edges.range((from, (0, 0))..=(from, (usize::MAX, 0)));
        let to: Vec<(Port, u8)> = ends.map(|((_, to), loss)| (*to, *loss)).collect();
        for (to, loss) in to {
            let lost = loss == u8::MAX || (self.rng.next_u64() & 0xff) < u64::from(loss);
            if !lost {
                let delay = Duration::from_micros(500) + self.rng.up_to(Duration::from_millis(2));
                self.sent += 1;
                self.heap.push(Reverse((self.now + delay, self.sent, from, to, bytes.clone())));
            }
        }
    }

    /// Lets time pass until `at`.
    pub fn run_until(&mut self, at: Instant) {
        loop {
            let timeout = (0..self.nodes.len())
                .filter(|i| self.nodes[*i].up)
                .filter_map(|i| Some((self.nodes[i].router.poll_timeout()?, i)))
                .min();
            let delivery = self.heap.peek().map(|Reverse(d)| d.0);
            let verdict = self.verdicts.first_key_value().map(|(at, _)| at.0);
            let next = [timeout.map(|t| t.0), delivery, verdict].into_iter().flatten().min();
            let Some(next) = next.filter(|t| *t <= at) else { break };
            self.now = self.now.max(next);
            if verdict == Some(next) {
                if let Some((_, (asker, address))) = self.verdicts.pop_first() {
                    self.verdict(asker, address);
                }
            } else if delivery == Some(next) {
                let Some(Reverse((_, _, from, to, bytes))) = self.heap.pop() else { break };
                if self.nodes[to.0].up && self.edges.contains_key(&(from, to)) {
                    let (node, source) = (to.0, self.source(from));
                    let bytes = self.salt.as_mut().map_or_else(|| bytes.clone(), |salt| salted(&bytes, salt));
                    if self.lazy && is_calm(&bytes) && self.nodes[node].router.is_calm(self.now) {
                        self.nodes[node].waiting.push_back((self.now, source, to.1, bytes));
                        continue;
                    }
                    self.catch_up(node);
                    let packet = Input::Packet { interface: to.1, source, bytes: &bytes };
                    // The interface may be down by now.
                    let _ = self.nodes[to.0].router.handle_input(self.now, packet);
                    self.drain(to.0);
                }
            } else if let Some((_, i)) = timeout {
                self.catch_up(i);
                self.nodes[i].router.handle_timeout(self.now);
                self.drain(i);
                let again = self.nodes[i].router.poll_timeout();
                assert!(again.is_none_or(|t| t > self.now), "node {i} would spin, seed {}", self.seed);
            }
        }
        self.now = at;
    }

    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    /// Lets time pass in steps until `done`, at most for `limit`; says how long it took.
    pub fn run_while_not(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            let spent = self.now.saturating_since(start);
            assert!(spent < limit, "not done after {spent}, seed {}\n{}", self.seed, self.describe());
            self.run_for(Duration::from_millis(10));
        }
        self.now.saturating_since(start)
    }

    /// Hops from `from` to everyone over links that work both ways.
    pub fn distances(&self, from: usize) -> Vec<Option<u8>> {
        let mut dist = vec![None; self.nodes.len()];
        dist[from] = Some(0);
        let mut queue = VecDeque::from([from]);
        while let Some(a) = queue.pop_front() {
            let ends = self.edges.range(((a, 0), (0, 0))..((a + 1, 0), (0, 0)));
            for (from, to) in ends.map(|(edge, _)| *edge) {
                let b = to.0;
                if dist[b].is_none() && self.nodes[b].up && self.edges.contains_key(&(to, from)) {
                    dist[b] = dist[a].map(|d| d + 1);
                    queue.push_back(b);
                }
            }
        }
        dist
    }

    /// Every node has a shortest route to every reachable one, and none to others.
    pub fn is_converged(&self) -> bool {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].up).all(|from| {
            let (dist, node) = (self.distances(from), &self.nodes[from]);
            let believed = node.router.routes().map(|r| (r.prefix, r.way()));
            assert!(node.fib.iter().map(|(p, way)| (*p, *way)).eq(believed), "seed {}", self.seed);
            (0..self.nodes.len()).filter(|to| *to != from).all(|to| {
                let route = node.router.route(NetAddr::host(self.originator(to)));
                route.map(|r| r.hops) == dist[to]
            })
        })
    }

    /// Follows next hops; the nodes passed, or `None` if the packet is lost or loops.
    pub fn trace(&self, from: usize, to: NetAddr) -> Option<Vec<usize>> {
        let mut path = vec![from];
        let mut at = from;
        while path.len() <= self.nodes.len() {
            if to.contains(self.originator(at)) || prefix(at) == to {
                return Some(path);
            }
            let route = self.nodes[at].fib.get(&to)?;
            let from = (at, route.interface);
            let ends = self.edges.range((from, (0, 0))..=(from, (usize::MAX, 0)));
            at = ends.map(|((_, to), _)| *to).find(|to| self.source(*to) == route.next_hop)?.0;
            path.push(at);
        }
        None
    }

    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (i, node) in self.nodes.iter().enumerate() {
            text += &format!("node {i}: {:?}\n", node.router.counters());
            for n in node.router.neighbors() {
                text += &format!("   {n:?}\n");
            }
            for r in node.router.routes() {
                text += &format!(
                    "   {} via {} hops {} metric {}\n",
                    r.prefix,
                    r.next_hop,
                    r.hops,
                    r.metric.value()
                );
            }
        }
        text
    }
}

const SALT: u8 = 230;

fn salted(bytes: &[u8], salt: &mut u64) -> Vec<u8> {
    let mut packet = Packet::parse(bytes).unwrap();
    for message in packet.messages.iter_mut().filter(|m| m.kind <= 1) {
        *salt += 1;
        message.tlvs.push(Tlv::new(SALT, &salt.to_be_bytes()));
    }
    packet.to_bytes().unwrap()
}

/// A packet without that.
pub fn unsalted(bytes: &[u8]) -> Packet {
    let mut packet = Packet::parse(bytes).unwrap();
    packet.messages.iter_mut().for_each(|m| m.tlvs.retain(|t| t.kind != SALT));
    packet
}

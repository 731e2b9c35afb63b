//! A mesh of routers in one thread: an event heap, links with loss, and each node's kernel routes.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use mesh_types::{Duration, Instant};
use nhdp::Rng;
use olsrv2::{Config, Event, Input, NetAddr, Output, Route, RouteChange, Router, Timing};

/// The one interface every node has.
pub const RADIO: u32 = 1;

pub struct Node {
    pub router: Router,
    /// What the kernel would hold.
    pub fib: BTreeMap<NetAddr, Route>,
    pub events: Vec<(Instant, Event)>,
    pub route_changes: usize,
    pub up: bool,
}

/// A packet on its way.
type Delivery = (Instant, u64, usize, usize, Vec<u8>);

pub struct Net {
    pub now: Instant,
    pub seed: u64,
    pub nodes: Vec<Node>,
    /// Directed edges with their loss in 1/256.
    pub edges: BTreeMap<(usize, usize), u8>,
    heap: BinaryHeap<Reverse<Delivery>>,
    sent: u64,
    rng: Rng,
    pub packets: u64,
    pub bytes: u64,
    /// Every packet sent, if wanted.
    pub tap: Option<Vec<Vec<u8>>>,
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
            heap: BinaryHeap::new(),
            sent: 0,
            rng: Rng::new(seed),
            packets: 0,
            bytes: 0,
            tap: None,
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
        let mut config = Config::new(originator(index));
        change(&mut config);
        let router = Router::new(config, self.rng.next_u64(), self.now);
        self.nodes.push(Node {
            router,
            fib: BTreeMap::new(),
            events: Vec::new(),
            route_changes: 0,
            up: true,
        });
        let addresses = [NetAddr::host(link_local(index))];
        self.input(index, Input::InterfaceUp { interface: RADIO, addresses: &addresses });
        index
    }

    pub fn connect(&mut self, a: usize, b: usize) {
        self.edges.insert((a, b), 0);
        self.edges.insert((b, a), 0);
    }

    pub fn cut(&mut self, a: usize, b: usize) {
        self.edges.remove(&(a, b));
        self.edges.remove(&(b, a));
    }

    pub fn set_loss(&mut self, loss: u8) {
        self.edges.values_mut().for_each(|l| *l = loss);
    }

    pub fn input(&mut self, node: usize, input: Input<'_>) {
        self.nodes[node].router.handle_input(self.now, input).unwrap();
        self.drain(node);
    }

    fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].router.poll_output() {
            match output {
                Output::Transmit { interface, bytes } => {
                    assert_eq!(interface, RADIO);
                    self.transmit(node, bytes);
                }
                Output::Route(change) => self.apply(node, change),
                Output::Event(event) => self.nodes[node].events.push((self.now, event)),
            }
        }
    }

    fn apply(&mut self, node: usize, change: RouteChange) {
        let seed = self.seed;
        let n = &mut self.nodes[node];
        n.route_changes += 1;
        let (prefix, old, new) = match change {
            RouteChange::Add(new) => (new.prefix, None, Some(new)),
            RouteChange::Replace { old, new } => (new.prefix, Some(old), Some(new)),
            RouteChange::Remove(old) => (old.prefix, Some(old), None),
        };
        let before = match new {
            Some(new) => n.fib.insert(prefix, new),
            None => n.fib.remove(&prefix),
        };
        assert_eq!(before, old, "route change does not fit what was there, seed {seed}");
    }

    fn transmit(&mut self, node: usize, bytes: Vec<u8>) {
        self.packets += 1;
        self.bytes += bytes.len() as u64;
        if let Some(tap) = &mut self.tap {
            tap.push(bytes.clone());
        }
        if !self.nodes[node].up {
            return;
        }
        let to: Vec<(usize, u8)> =
            self.edges.range((node, 0)..(node + 1, 0)).map(|((_, to), loss)| (*to, *loss)).collect();
        for (to, loss) in to {
            let lost = (self.rng.next_u64() & 0xff) < u64::from(loss);
            if !lost {
                let delay = Duration::from_micros(500) + self.rng.up_to(Duration::from_millis(2));
                self.sent += 1;
                self.heap.push(Reverse((self.now + delay, self.sent, node, to, bytes.clone())));
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
            let next = [timeout.map(|t| t.0), delivery].into_iter().flatten().min();
            let Some(next) = next.filter(|t| *t <= at) else { break };
            self.now = self.now.max(next);
            if delivery == Some(next) {
                let Some(Reverse((_, _, from, to, bytes))) = self.heap.pop() else { break };
                if self.nodes[to].up && self.edges.contains_key(&(from, to)) {
                    let source = link_local(from);
                    let packet = Input::Packet { interface: RADIO, source, bytes: &bytes };
                    // The interface may be down by now.
                    let _ = self.nodes[to].router.handle_input(self.now, packet);
                    self.drain(to);
                }
            } else if let Some((_, i)) = timeout {
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
            for (_, b) in self.edges.range((a, 0)..(a + 1, 0)).map(|(edge, _)| *edge) {
                if dist[b].is_none() && self.nodes[b].up && self.edges.contains_key(&(b, a)) {
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
            let dist = self.distances(from);
            (0..self.nodes.len()).filter(|to| *to != from).all(|to| {
                let route = self.nodes[from].fib.get(&NetAddr::host(originator(to)));
                route.map(|r| r.hops) == dist[to]
            })
        })
    }

    /// Follows next hops; the nodes passed, or `None` if the packet is lost or loops.
    pub fn trace(&self, from: usize, to: NetAddr) -> Option<Vec<usize>> {
        let mut path = vec![from];
        let mut at = from;
        while path.len() <= self.nodes.len() {
            if to.contains(originator(at)) || prefix(at) == to {
                return Some(path);
            }
            let route = self.nodes[at].fib.get(&to)?;
            at = (0..self.nodes.len()).find(|n| link_local(*n) == route.next_hop)?;
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
            for r in node.fib.values() {
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

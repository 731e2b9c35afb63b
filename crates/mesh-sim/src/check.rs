//! What must hold: routes are shortest paths, packets don't go round, tables are bounded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use olsrv2::{LinkStatus, NetAddr, Route};

use crate::Sim;

/// No way, or nobody.
const NONE: u16 = u16::MAX;

/// What became of packets from everyone to everyone, had they been sent at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Ordered pairs between which a way over links of both directions exists.
    pub possible: u64,
    /// Of these, how many packets would arrive.
    pub arrive: u64,
    /// Destinations towards which some packet would go round.
    pub loops: u64,
    /// The first of these.
    pub looping: Option<usize>,
}

impl Sim {
    /// Hops from `from` to everyone over links that work both ways between nodes that are up.
    pub fn distances(&self, from: usize) -> Vec<Option<u32>> {
        let mut dist = vec![None; self.len()];
        dist[from] = Some(0);
        let mut reached = vec![from];
        let mut next = 0;
        while let Some(a) = reached.get(next).copied() {
            next += 1;
            for link in self.medium.links(a) {
                let b = link.to.0;
                if dist[b].is_none() && self.node(b).up && self.medium.is_two_way(a, link) {
                    dist[b] = dist[a].map(|d: u32| d + 1);
                    reached.push(b);
                }
            }
        }
        dist
    }

    /// The graph as the routers see it, each its own links: (neighbour, outgoing cost). `None`: some router
    /// does not see exactly the links there are.
    fn own_graph(&self) -> Option<Vec<Vec<(usize, u32)>>> {
        (0..self.len()).map(|i| self.own_links(i)).collect()
    }

    fn own_links(&self, from: usize) -> Option<Vec<(usize, u32)>> {
        let node = self.node(from);
        if !node.up {
            return Some(Vec::new());
        }
        let mut seen: BTreeMap<usize, u32> = BTreeMap::new();
        for n in node.router.neighbors().filter(|n| n.status == LinkStatus::Symmetric) {
            let to = self.medium.owner(n.address)?;
            let cost = seen.entry(to).or_insert(u32::MAX);
            *cost = (*cost).min(n.metric_out.value());
        }
        let usable = |l: &&crate::medium::Link| self.node(l.to.0).up && self.medium.is_two_way(from, l);
        let mut there: Vec<usize> = self.medium.links(from).iter().filter(usable).map(|l| l.to.0).collect();
        there.sort_unstable();
        there.dedup();
        seen.keys().copied().eq(there).then(|| seen.into_iter().collect())
    }

    /// Every router sees its links, has a route of the least cost (in the routers' own metric) to every
    /// reachable node and none to others, and the kernel's routes are the router's.
    pub fn is_converged(&self) -> bool {
        let Some(graph) = self.own_graph() else { return false };
        // The farthest from each other first: they are the last to agree.
        (0..self.len()).rev().filter(|i| self.node(*i).up).all(|from| self.has_shortest_paths(from, &graph))
    }

    /// The router has a route to everyone to whom its own links and the costs that others advertise lead, and
    /// it costs no more than that way (it may know a better one: 2-hop neighbours say more than TCs).
    pub fn uses_what_it_knows(&self, from: usize) -> bool {
        let router = &self.node(from).router;
        let mut graph: Vec<Vec<(usize, u32)>> = vec![Vec::new(); self.len()];
        let usable = |n: &olsrv2::NeighborView| n.status == LinkStatus::Symmetric;
        for n in router.neighbors().filter(usable) {
            let to = n.originator.and_then(|o| self.medium.owner(o));
            graph[from].extend(to.map(|to| (to, n.metric_out.value())));
        }
        for edge in router.topology() {
            let ends = self.medium.owner(edge.from).zip(self.medium.owner(edge.to));
            let foreign = ends.filter(|(a, _)| *a != from);
            foreign.into_iter().for_each(|(a, b)| graph[a].push((b, edge.metric.value())));
        }
        graph[from].retain(|(_, cost)| *cost != u32::MAX);
        let mut have = vec![u32::MAX; self.len()];
        for route in router.routes() {
            if let Some(to) = self.node_of(&route) {
                have[to] = route.metric.value();
            }
        }
        let known = shortest(from, &graph);
        (0..self.len()).filter(|to| *to != from).all(|to| known[to].is_none_or(|cost| have[to] <= cost))
    }

    fn has_shortest_paths(&self, from: usize, graph: &[Vec<(usize, u32)>]) -> bool {
        let node = self.node(from);
        let want = shortest(from, graph);
        let mut missing = want.iter().filter(|d| d.is_some()).count() - 1;
        for route in node.router.routes() {
            let Some(to) = self.node_of(&route) else { continue };
            if want[to] != Some(route.metric.value()) {
                return false;
            }
            missing -= 1;
        }
        missing == 0 && node.kernel_agrees()
    }

    /// The node a host route leads to.
    fn node_of(&self, route: &Route) -> Option<usize> {
        let ip = route.prefix.ip();
        let to = self.medium.owner(ip).filter(|_| route.prefix.is_host())?;
        (self.originator(to) == ip).then_some(to)
    }

    /// Follows next hops; the nodes passed, or `None` if the packet is lost or goes round.
    pub fn trace(&self, from: usize, to: NetAddr) -> Option<Vec<usize>> {
        let mut path = vec![from];
        let mut at = from;
        while path.len() <= self.len() {
            if to.contains(self.originator(at)) || self.prefix(at) == to {
                return Some(path);
            }
            let route = self.route(at, to)?;
            let links = self.medium.links(at).iter().filter(|l| l.interface == route.interface);
            let mut links = links.filter(|l| self.source(l.to) == route.next_hop && self.node(l.to.0).up);
            at = links.next()?.to.0;
            path.push(at);
        }
        None
    }

    /// Where packets from everyone to everyone would go at this instant.
    ///
    /// # Panics
    /// A router's table is larger than its limit.
    pub fn sample(&self) -> Sample {
        let n = self.len();
        let next = self.next_hops();
        let piece = self.pieces();
        let mut sample = Sample::default();
        let mut size: BTreeMap<usize, u64> = BTreeMap::new();
        piece.iter().flatten().for_each(|p| *size.entry(*p).or_default() += 1);
        sample.possible = size.values().map(|s| s * (s - 1)).sum();
        let mut fate = vec![Fate::Unknown; n];
        for (to, home) in piece.iter().enumerate().filter_map(|(i, p)| Some((i, (*p)?))) {
            fate.fill(Fate::Unknown);
            fate[to] = Fate::Arrives;
            let mut looped = false;
            for from in 0..n {
                looped |= follow(from, to, n, &next, &mut fate);
            }
            sample.loops += u64::from(looped);
            sample.looping = sample.looping.or(looped.then_some(to));
            let arrived = (0..n).filter(|i| piece[*i] == Some(home) && fate[*i] == Fate::Arrives).count();
            sample.arrive += arrived as u64 - 1;
        }
        sample
    }

    /// By node and destination: the next node, over a link that exists.
    fn next_hops(&self) -> Vec<u16> {
        let n = self.len();
        let mut next = vec![NONE; n * n];
        for (from, node) in self.nodes().enumerate().filter(|(_, n)| n.up) {
            let limits = node.router.config().limits;
            assert!(node.router.neighbors().count() <= limits.links * limits.interfaces, "node {from}");
            for route in node.router.routes() {
                let Some(to) = self.node_of(&route) else { continue };
                let hop = self.medium.owner(route.next_hop).filter(|hop| {
                    let mut links = self.medium.links(from).iter();
                    self.node(*hop).up && links.any(|l| l.interface == route.interface && l.to.0 == *hop)
                });
                next[from * n + to] = hop.and_then(|h| u16::try_from(h).ok()).unwrap_or(NONE);
            }
        }
        next
    }

    /// By node: the piece of the graph it is in, `None` if it is down.
    fn pieces(&self) -> Vec<Option<usize>> {
        let mut piece = vec![None; self.len()];
        for start in 0..self.len() {
            if piece[start].is_some() || !self.node(start).up {
                continue;
            }
            for (i, _) in self.distances(start).iter().enumerate().filter(|(_, d)| d.is_some()) {
                piece[i] = Some(start);
            }
        }
        piece
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    OnTheWay,
    Arrives,
    Ends,
}

/// Settles the fate of a packet from `from` and of all it passes; whether it found a loop.
fn follow(from: usize, to: usize, n: usize, next: &[u16], fate: &mut [Fate]) -> bool {
    let mut at = from;
    while fate[at] == Fate::Unknown {
        fate[at] = Fate::OnTheWay;
        match next[at * n + to] {
            NONE => {
                fate[at] = Fate::Ends;
                break;
            }
            hop => at = hop.into(),
        }
    }
    let looped = fate[at] == Fate::OnTheWay;
    let end = if fate[at] == Fate::Arrives { Fate::Arrives } else { Fate::Ends };
    let mut at = from;
    while fate[at] == Fate::OnTheWay {
        fate[at] = end;
        at = next[at * n + to].into();
    }
    looped
}

/// Least cost from `from` to everyone.
fn shortest(from: usize, graph: &[Vec<(usize, u32)>]) -> Vec<Option<u32>> {
    let mut best: Vec<Option<u32>> = vec![None; graph.len()];
    let mut queue = BinaryHeap::from([Reverse((0u32, from))]);
    while let Some(Reverse((cost, at))) = queue.pop() {
        if best[at].is_some() {
            continue;
        }
        best[at] = Some(cost);
        let onward = graph[at].iter().filter(|(to, _)| best[*to].is_none());
        onward.for_each(|(to, step)| queue.push(Reverse((cost.saturating_add(*step), *to))));
    }
    best
}

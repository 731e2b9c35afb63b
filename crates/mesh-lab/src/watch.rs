//! Every node's routes in the kernel, followed as they change, whoever makes them; and whether they lead
//! anywhere.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use mesh_sys::netlink::{Route, RouteEvent, RouteFilter, RouteKind, RouteMonitor, Rtnetlink};

use crate::graph::Graph;
use crate::lab::{Lab, ROUTE_TABLES, Result, told};

/// The routes of all nodes to all nodes (IPv6 host routes of the main table and of mesh-router's).
#[derive(Debug)]
pub struct Watch {
    nodes: Vec<Seen>,
    owners: Owners,
    /// Who really hears whom now.
    truth: Graph,
    /// Nodes that run.
    alive: Vec<bool>,
    changed: bool,
    last: Verdict,
}

/// Whose an address is: the node's own, and those on its links.
#[derive(Debug, Default)]
struct Owners {
    own: BTreeMap<Ipv6Addr, usize>,
    on_links: BTreeMap<Ipv6Addr, usize>,
}

#[derive(Debug)]
struct Seen {
    monitor: RouteMonitor,
    kernel: Rtnetlink,
    /// By destination: the neighbour its packets go to.
    next: Vec<Option<usize>>,
    events: u64,
    unsure: bool,
}

/// Where the routes of all nodes lead, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Pairs of running nodes (in both directions) between which there is a way.
    pub possible: usize,
    /// Those of them whose routes lead there.
    pub reached: usize,
    /// Pairs, of all, whose routes lead in a circle.
    pub looping: usize,
}

impl Verdict {
    /// All that can reach each other do.
    pub const fn whole(&self) -> bool {
        self.reached == self.possible && self.looping == 0
    }
}

impl Watch {
    /// Watches all nodes of `lab`. `own` are their addresses, in order; those on their links are looked up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(lab: &Lab, graph: &Graph, own: &[Ipv6Addr]) -> Result<Self> {
        let mut owners =
            Owners { own: own.iter().enumerate().map(|(at, ip)| (*ip, at)).collect(), ..Owners::default() };
        let mut nodes = Vec::new();
        for at in 0..graph.nodes {
            let node = lab.at(at)?;
            let opened = node.inside(|| Ok((RouteMonitor::new()?, Rtnetlink::new()?)))?;
            let (monitor, mut kernel) =
                opened.map_err(|e: mesh_sys::netlink::Error| format!("kernel: {e}"))?;
            for address in kernel.addresses().map_err(told("addresses"))? {
                if let IpAddr::V6(ip) = address.ip
                    && ip.is_unicast_link_local()
                {
                    owners.on_links.insert(ip, at);
                }
            }
            nodes.push(Seen { monitor, kernel, next: vec![None; graph.nodes], events: 0, unsure: true });
        }
        let alive = vec![true; graph.nodes];
        Ok(Self { nodes, owners, truth: graph.clone(), alive, changed: true, last: Verdict::default() })
    }

    /// Says who hears whom from now on.
    pub fn set_truth(&mut self, graph: Graph) {
        self.truth = graph;
        self.changed = true;
    }

    /// Who hears whom.
    pub const fn truth(&self) -> &Graph {
        &self.truth
    }

    /// Says whether a node runs.
    pub fn set_alive(&mut self, at: usize, alive: bool) {
        if let Some(room) = self.alive.get_mut(at) {
            *room = alive;
        }
        self.changed = true;
    }

    /// Takes in what has changed since the last call, and judges.
    ///
    /// # Errors
    /// The kernel's.
    pub fn look(&mut self) -> Result<Verdict> {
        for seen in &mut self.nodes {
            self.changed |= seen.take(&self.owners)?;
        }
        if std::mem::take(&mut self.changed) {
            self.last = self.judge();
        }
        Ok(self.last)
    }

    /// Calls `done` with the verdict until it says yes (`Some`: when) or `patience` is over.
    ///
    /// # Errors
    /// The kernel's.
    pub fn until(
        &mut self,
        patience: Duration,
        mut done: impl FnMut(Verdict) -> bool,
    ) -> Result<Option<Instant>> {
        let deadline = Instant::now() + patience;
        loop {
            let verdict = self.look()?;
            let now = Instant::now();
            if done(verdict) {
                return Ok(Some(now));
            }
            if now >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Changes of next hops seen at all nodes so far.
    pub fn events(&self) -> u64 {
        self.nodes.iter().map(|n| n.events).sum()
    }

    /// The nodes on the way that the routes of `from` lead to `to`, both included.
    pub fn path(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        let mut path = vec![from];
        let mut at = from;
        while at != to {
            at = self.next(at, to).filter(|next| !path.contains(next))?;
            path.push(at);
        }
        Some(path)
    }

    /// The pairs that could reach each other and do not, for a failure.
    pub fn missing(&self, limit: usize) -> String {
        let mut text = String::new();
        let mut count = 0;
        for from in 0..self.truth.nodes {
            let hops = self.truth.hops(from);
            for to in (0..self.truth.nodes).filter(|to| *to != from && self.runs(from) && self.runs(*to)) {
                if hops.get(to).is_some_and(Option::is_some) && !self.leads(from, to) {
                    count += 1;
                    if count <= limit {
                        text.push_str(&format!("{from}→{to} "));
                    }
                }
            }
        }
        format!("{count} pairs without a way: {text}")
    }

    fn leads(&self, from: usize, to: usize) -> bool {
        self.path(from, to).is_some_and(|p| {
            p.windows(2)
                .all(|w| matches!(w, [a, b] if self.truth.edges.contains(&crate::graph::ordered((*a, *b)))))
        })
    }

    fn runs(&self, at: usize) -> bool {
        self.alive.get(at).copied().unwrap_or(false)
    }

    fn next(&self, at: usize, to: usize) -> Option<usize> {
        self.nodes.get(at)?.next.get(to).copied().flatten()
    }

    fn judge(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let neighbors: Vec<Vec<usize>> = (0..self.truth.nodes)
            .map(|at| self.truth.neighbors(at).filter(|n| self.runs(*n)).collect())
            .collect();
        for to in (0..self.truth.nodes).filter(|to| self.runs(*to)) {
            let component = reach(&neighbors, to);
            let fates = self.fates(&neighbors, to);
            for from in (0..self.truth.nodes).filter(|from| *from != to && self.runs(*from)) {
                let possible = component.get(from).copied().unwrap_or(false);
                verdict.possible += usize::from(possible);
                match fates.get(from) {
                    Some(Fate::Arrives) if possible => verdict.reached += 1,
                    Some(Fate::Circles) => verdict.looping += 1,
                    _ => {}
                }
            }
        }
        verdict
    }

    /// What becomes of a packet to `to` at each node.
    fn fates(&self, neighbors: &[Vec<usize>], to: usize) -> Vec<Fate> {
        let mut fates = vec![Fate::Unknown; self.truth.nodes];
        if let Some(room) = fates.get_mut(to) {
            *room = Fate::Arrives;
        }
        for start in 0..self.truth.nodes {
            let mut trail = Vec::new();
            let mut at = start;
            let fate = loop {
                match fates.get(at).copied().unwrap_or(Fate::Lost) {
                    Fate::Unknown => {}
                    Fate::OnTrail => break Fate::Circles,
                    known => break known,
                }
                if let Some(room) = fates.get_mut(at) {
                    *room = Fate::OnTrail;
                }
                trail.push(at);
                match self.next(at, to) {
                    Some(next) if neighbors.get(at).is_some_and(|n| n.contains(&next)) => at = next,
                    _ => break Fate::Lost,
                }
            };
            for at in trail {
                if let Some(room) = fates.get_mut(at) {
                    *room = fate;
                }
            }
        }
        fates
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    OnTrail,
    Arrives,
    Lost,
    Circles,
}

fn reach(neighbors: &[Vec<usize>], from: usize) -> Vec<bool> {
    let mut reached = vec![false; neighbors.len()];
    let mut stack = vec![from];
    while let Some(at) = stack.pop() {
        match reached.get_mut(at) {
            Some(room @ false) => *room = true,
            _ => continue,
        }
        stack.extend(neighbors.get(at).into_iter().flatten());
    }
    reached
}

impl Owners {
    /// The destination and the neighbour of a route between nodes; `None`: another kind of route.
    fn read(&self, route: &Route) -> Option<(usize, Option<usize>)> {
        let IpAddr::V6(prefix) = route.prefix else { return None };
        let to = self.own.get(&prefix).copied().filter(|_| route.prefix_len == 128)?;
        let next = match (route.kind, route.gateway) {
            (RouteKind::Unreachable | RouteKind::Tunnel | RouteKind::TunnelEnd, _) => None,
            (RouteKind::Unicast, None) => Some(to),
            (RouteKind::Unicast, Some(IpAddr::V6(ip))) => {
                self.on_links.get(&ip).or_else(|| self.own.get(&ip)).copied()
            }
            (RouteKind::Unicast, Some(IpAddr::V4(_))) => None,
        };
        Some((to, next))
    }
}

impl Seen {
    /// Takes in the changes; true if there are any.
    fn take(&mut self, owners: &Owners) -> Result<bool> {
        let before = self.events;
        let mut any = self.unsure;
        while let Some(event) = self.monitor.poll_event().map_err(told("routes"))? {
            match event {
                RouteEvent::Set(route) => {
                    if let Some((to, next)) = owners.read(&route) {
                        self.set(to, next);
                    }
                }
                // The old one of two, or the only one: the kernel knows.
                RouteEvent::Gone(route) => self.unsure |= owners.read(&route).is_some(),
                RouteEvent::Resync => self.unsure = true,
            }
        }
        any |= self.unsure || self.events != before;
        if self.unsure {
            self.list(owners)?;
        }
        Ok(any)
    }

    fn set(&mut self, to: usize, next: Option<usize>) {
        if let Some(room) = self.next.get_mut(to)
            && *room != next
        {
            *room = next;
            self.events += 1;
        }
    }

    fn list(&mut self, owners: &Owners) -> Result<()> {
        self.unsure = false;
        let mut present = vec![(u32::MAX, None); self.next.len()];
        let mut routes = Vec::new();
        for table in ROUTE_TABLES {
            let filter = RouteFilter { table, protocol: None };
            routes.extend(self.kernel.routes6(&filter).map_err(told("routes"))?);
        }
        for route in routes {
            if let Some((to, next)) = owners.read(&route)
                && let Some(room) = present.get_mut(to)
                && route.metric < room.0
            {
                *room = (route.metric, next);
            }
        }
        for (to, (_, next)) in present.into_iter().enumerate() {
            self.set(to, next);
        }
        Ok(())
    }
}

//! Routing Set calculation (RFC 7181 §19): from what is known to routes, and what changes in the kernel.
//!
//! Shortest paths between routers are kept with each one's predecessor. After TCs that changed a few
//! routers only what hangs on these is computed anew; the outcome is the same as that of a full run.

use alloc::collections::BinaryHeap;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::IpAddr;

use mesh_types::{Duration, Instant, Metric};
use rfc5444::NetAddr;

use crate::names::{Name, Names};
use crate::tc::is_routable;
use crate::topology::Topology;
use crate::{Route, RouteChange};

/// A symmetric neighbour with a usable link: edges X → Y and X → S.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FirstHop {
    /// Y: N_orig_addr.
    pub(crate) router: IpAddr,
    pub(crate) interface: u32,
    /// R: the address on the link.
    pub(crate) next_hop: IpAddr,
    pub(crate) metric: Metric,
    /// S: all its addresses.
    pub(crate) addresses: Vec<NetAddr>,
    /// Z and N2_out_metric: its neighbours; empty if it won't route.
    pub(crate) two_hops: Vec<(NetAddr, Metric)>,
}

impl FirstHop {
    /// What packets need of it.
    pub(crate) fn way(&self) -> (IpAddr, u32, IpAddr) {
        (self.router, self.interface, self.next_hop)
    }
}

/// The same with names.
#[derive(Clone, Debug)]
struct Hop {
    router: Name,
    interface: u32,
    next_hop: IpAddr,
    metric: Metric,
    addresses: Vec<Name>,
    two_hops: Vec<(Name, Metric)>,
}

/// A path's rank, and what is kept of it: metric, hops, index of the first hop, from the highest bits down.
/// Among ways of the same cost and hop count the earlier first hop wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Path(u64);

impl Path {
    const NONE: Self = Self(u64::MAX);

    fn new(metric: Metric, hops: u8, first: u16) -> Self {
        Self(u64::from(metric.value()) << 32 | u64::from(hops) << 16 | u64::from(first))
    }
    fn metric(self) -> Metric {
        Metric::new((self.0 >> 32) as u32)
    }
    fn hops(self) -> u8 {
        (self.0 >> 16) as u8
    }
    fn first(self) -> u16 {
        self.0 as u16
    }
    fn then(self, metric: Metric) -> Self {
        Self::new(self.metric().plus(metric), self.hops().saturating_add(1), self.first())
    }
}

/// Of a path that begins here.
const ROOT: Name = Name::MAX;

/// A Routing Tuple; its prefix is the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    metric: Metric,
    router: Name,
    first: u16,
    hops: u8,
    dist: u8,
}

const NO_ROUTE: Slot = Slot { metric: Metric::UNKNOWN, router: 0, first: u16::MAX, hops: 0, dist: 0 };

/// Where a route may come from; one of a higher source is never replaced (§19.2): a 2-hop neighbour known
/// from HELLOs only fills a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Nothing,
    LastResort,
    Other,
    Backbone,
    /// The prefix is ours and needs no route.
    Ours,
}

/// The Routing Set and the paths it comes from.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    hops: Vec<Hop>,
    /// Names the first hops hold.
    held: Vec<Name>,
    /// By router: the best path, and the router before it.
    paths: Vec<Path>,
    parents: Vec<Name>,
    /// By prefix.
    slots: Vec<Slot>,
    /// When they are computed next, if something changed, and the earliest time for changes that can wait.
    wanted: Option<Wanted>,
    not_before: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    Soon,
    AtOnce,
}

impl Routes {
    /// Something changed; whether it can't wait.
    pub(crate) fn want(&mut self, at_once: bool) {
        let new = if at_once { Wanted::AtOnce } else { Wanted::Soon };
        self.wanted = self.wanted.max(Some(new));
    }

    /// When [`Routes::update`] is wanted.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.wanted.map(|w| if w == Wanted::AtOnce { Instant::ZERO } else { self.not_before })
    }

    pub(crate) fn are_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// They are computed. The next changes that can wait wait for each other so long: TCs come in floods.
    pub(crate) fn done(&mut self, now: Instant, pause: Duration) {
        self.wanted = None;
        self.not_before = now + pause;
    }

    /// Computes the routes. `first_hops`: the neighbours in a stable order if they are not those of the
    /// last run; `ours`: prefixes that need no route; `choose` may put another route into the new set.
    pub(crate) fn update(
        &mut self,
        own: IpAddr,
        topology: &mut Topology,
        first_hops: Option<&[FirstHop]>,
        ours: impl Iterator<Item = NetAddr>,
        choose: impl FnOnce(&RoutingSet<'_>) -> Option<Route>,
    ) -> Vec<RouteChange> {
        let changed = topology.take_changed().filter(|_| first_hops.is_none());
        let old_hops = first_hops.map(|hops| {
            let old_held = core::mem::take(&mut self.held);
            let new = hops.iter().map(|hop| self.name(hop, &mut topology.names)).collect();
            old_held.into_iter().for_each(|name| topology.names.release(name));
            core::mem::replace(&mut self.hops, new)
        });
        let own = topology.names.find(NetAddr::host(own)).unwrap_or(ROOT);
        self.shortest_paths(own, topology, changed);
        let ours = ours.filter_map(|a| topology.names.find(a)).collect::<Vec<_>>();
        let mut new = self.fill(topology, &ours);
        if let Some(chosen) = choose(&RoutingSet { slots: &new, hops: &self.hops, topology }) {
            self.put(&mut new, &chosen, &topology.names);
        }
        let changes = self.diff(old_hops.as_deref(), &new, &topology.names);
        self.slots = new;
        topology.names.sweep();
        changes
    }

    fn name(&mut self, hop: &FirstHop, names: &mut Names) -> Hop {
        let mut hold = |address| {
            let name = names.hold(address);
            self.held.push(name);
            name
        };
        Hop {
            router: hold(NetAddr::host(hop.router)),
            interface: hop.interface,
            next_hop: hop.next_hop,
            metric: hop.metric,
            addresses: hop.addresses.iter().filter(|a| is_routable(a.ip())).map(|a| hold(*a)).collect(),
            two_hops: hop
                .two_hops
                .iter()
                .filter(|(a, _)| is_routable(a.ip()))
                .map(|(a, metric)| (hold(*a), *metric))
                .collect(),
        }
    }

    /// Paths over edges X → Y and W → U (Dijkstra), for all routers or for what hangs on the changed ones.
    fn shortest_paths(&mut self, own: Name, topology: &Topology, changed: Option<Vec<Name>>) {
        let n = topology.names.len();
        self.paths.resize(n, Path::NONE);
        self.parents.resize(n, ROOT);
        let (paths, parents) = (&mut self.paths, &mut self.parents);
        let mut search = Search { own, topology, paths, parents, queue: BinaryHeap::new() };
        match changed {
            None => {
                search.paths.fill(Path::NONE);
                search.start(&self.hops);
            }
            Some(changed) => {
                if search.cut(&changed) {
                    search.start(&self.hops);
                    topology.routers().for_each(|(router, _)| search.relax(router));
                }
                changed.iter().for_each(|router| search.relax(*router));
            }
        }
        search.run();
    }

    /// The Routing Set (§19.3 to §19.6).
    fn fill(&self, topology: &Topology, ours: &[Name]) -> Vec<Slot> {
        let mut set = Offers {
            slots: vec![NO_ROUTE; topology.names.len()],
            sources: vec![Source::Nothing; topology.names.len()],
        };
        for name in ours {
            if let Some(source) = set.sources.get_mut(*name as usize) {
                *source = Source::Ours;
            }
        }
        let reached = || {
            let all = self.paths.iter().enumerate().filter(|(_, p)| **p != Path::NONE);
            all.map(|(name, path)| (name as Name, *path))
        };
        for (router, path) in reached() {
            if topology.names.address(router).is_some_and(|a| is_routable(a.ip())) {
                set.offer(Source::Backbone, router, router, path, path.hops());
            }
        }
        for (name, path) in reached() {
            let Some(router) = topology.get(name) else { continue };
            for edge in router.neighbors.iter().filter(|e| e.is_routable()) {
                let path = path.then(edge.metric);
                set.offer(Source::Other, edge.to, name, path, path.hops());
            }
            for network in &router.networks {
                let metric = path.metric().plus(network.metric);
                let path = Path::new(metric, path.hops(), path.first());
                set.offer(
                    Source::Other,
                    network.prefix,
                    name,
                    path,
                    path.hops().saturating_add(network.dist),
                );
            }
        }
        for (first, hop) in (0u16..).zip(&self.hops) {
            let path = Path::new(hop.metric, 1, first);
            for address in &hop.addresses {
                set.offer(Source::Other, *address, hop.router, path, 1);
            }
            for (address, metric) in &hop.two_hops {
                set.offer(Source::LastResort, *address, *address, path.then(*metric), 2);
            }
        }
        set.slots
    }

    fn put(&self, slots: &mut [Slot], route: &Route, names: &Names) {
        let way = |hop: &Hop| (hop.interface, hop.next_hop) == (route.interface, route.next_hop);
        let first = self.hops.iter().position(way).and_then(|i| u16::try_from(i).ok());
        let name = names.find(route.prefix).zip(names.find(NetAddr::host(route.router)));
        let Some(((prefix, router), first)) = name.zip(first) else { return };
        if let Some(slot) = slots.get_mut(prefix as usize) {
            let Route { metric, hops, dist, .. } = *route;
            *slot = Slot { metric, router, first, hops, dist };
        }
    }

    /// What turns the present routes into `new`, make before break: near routes first so that next hops are
    /// there when far ones need them, removals last and far ones first.
    fn diff(&self, old_hops: Option<&[Hop]>, new: &[Slot], names: &Names) -> Vec<RouteChange> {
        // Old first hops by their new index.
        let same = |a: &Hop, b: &Hop| (a.next_hop, a.interface) == (b.next_hop, b.interface);
        let index =
            |old: &Hop| self.hops.iter().position(|new| same(old, new)).map_or(u16::MAX, |i| i as u16);
        let moved: Vec<u16> = match old_hops {
            Some(old) => old.iter().map(index).collect(),
            None => (0..).take(self.hops.len()).collect(),
        };
        let old_hops = old_hops.unwrap_or(&self.hops);
        // Removals?, rank, prefix: sorted before they are spelt out.
        let mut changes: Vec<(bool, Metric, Name)> = Vec::new();
        let before = |name: Name| self.slots.get(name as usize).copied().unwrap_or(NO_ROUTE);
        for (name, new) in (0..).zip(new) {
            let old = before(name);
            let first = moved.get(usize::from(old.first)).copied().unwrap_or(u16::MAX);
            if (Slot { first, ..old }) == *new {
                continue;
            }
            let gone = new.first == u16::MAX;
            let rank = if gone { Metric::new(u32::MAX - old.metric.value()) } else { new.metric };
            changes.push((gone, rank, name));
        }
        changes.sort_unstable();
        let spell_out = |(_, _, name): (bool, Metric, Name)| {
            let new = new.get(name as usize).copied().unwrap_or(NO_ROUTE);
            match (route(name, before(name), old_hops, names), route(name, new, &self.hops, names)) {
                (None, new) => new.map(RouteChange::Add),
                (Some(old), Some(new)) => Some(RouteChange::Replace { old, new }),
                (Some(old), None) => Some(RouteChange::Remove(old)),
            }
        };
        changes.into_iter().filter_map(spell_out).collect()
    }

    /// The longest route that fits an address.
    pub(crate) fn lookup(&self, address: IpAddr, names: &Names) -> Option<Route> {
        let host = NetAddr::host(address);
        (0..=host.prefix_len()).rev().find_map(|len| {
            let name = names.find(NetAddr::new(address, len).network())?;
            route(name, *self.slots.get(name as usize)?, &self.hops, names)
        })
    }

    /// All routes by prefix.
    pub(crate) fn iter<'a>(&'a self, names: &'a Names) -> impl Iterator<Item = Route> + 'a {
        names.iter().filter_map(|(name, _)| {
            let slot = self.slots.get(name as usize)?;
            route(name, *slot, &self.hops, names)
        })
    }
}

/// Routes about to be taken, to look at.
pub(crate) struct RoutingSet<'a> {
    slots: &'a [Slot],
    hops: &'a [Hop],
    pub(crate) topology: &'a Topology,
}

impl RoutingSet<'_> {
    pub(crate) fn get(&self, prefix: NetAddr) -> Option<Route> {
        let name = self.topology.names.find(prefix)?;
        route(name, *self.slots.get(name as usize)?, self.hops, &self.topology.names)
    }
}

fn route(prefix: Name, slot: Slot, hops: &[Hop], names: &Names) -> Option<Route> {
    let hop = hops.get(usize::from(slot.first))?;
    Some(Route {
        prefix: names.address(prefix)?,
        next_hop: hop.next_hop,
        interface: hop.interface,
        metric: slot.metric,
        hops: slot.hops,
        dist: slot.dist,
        router: names.address(slot.router)?.ip(),
    })
}

/// Routes being collected: the best of each prefix' best source.
struct Offers {
    slots: Vec<Slot>,
    sources: Vec<Source>,
}

impl Offers {
    fn offer(&mut self, source: Source, prefix: Name, router: Name, path: Path, dist: u8) {
        let at = prefix as usize;
        let (Some(slot), Some(present)) = (self.slots.get_mut(at), self.sources.get_mut(at)) else { return };
        if *present > source {
            return;
        }
        let new = Slot { metric: path.metric(), router, first: path.first(), hops: path.hops(), dist };
        let rank = |s: &Slot| (s.metric, s.dist, s.hops, s.first, s.router);
        if *present < source || rank(&new) < rank(slot) {
            (*present, *slot) = (source, new);
        }
    }
}

/// One search for shortest paths.
struct Search<'a> {
    own: Name,
    topology: &'a Topology,
    paths: &'a mut [Path],
    parents: &'a mut [Name],
    queue: BinaryHeap<Reverse<(Path, Name)>>,
}

impl Search<'_> {
    fn path(&self, name: Name) -> Path {
        self.paths.get(name as usize).copied().unwrap_or(Path::NONE)
    }

    fn better(&mut self, name: Name, path: Path, parent: Name) {
        let at = name as usize;
        let (Some(known), Some(before)) = (self.paths.get_mut(at), self.parents.get_mut(at)) else { return };
        if path < *known {
            (*known, *before) = (path, parent);
            self.queue.push(Reverse((path, name)));
        }
    }

    /// From here to the neighbours.
    fn start(&mut self, hops: &[Hop]) {
        for (first, hop) in (0u16..).zip(hops) {
            self.better(hop.router, Path::new(hop.metric, 1, first), ROOT);
        }
    }

    /// From a router to those it advertises.
    fn relax(&mut self, router: Name) {
        let (path, own, topology) = (self.path(router), self.own, self.topology);
        let Some(known) = topology.get(router).filter(|_| path != Path::NONE) else { return };
        for edge in known.neighbors.iter().filter(|e| e.is_router() && e.to != own) {
            self.better(edge.to, path.then(edge.metric), router);
        }
    }

    fn run(&mut self) {
        while let Some(Reverse((path, name))) = self.queue.pop() {
            if path == self.path(name) {
                self.relax(name);
            }
        }
    }

    /// Forgets paths that went over an edge which is no more as it was, and all that hang on them; whether
    /// there were any.
    fn cut(&mut self, changed: &[Name]) -> bool {
        let n = self.paths.len();
        let mut suspect = vec![false; n];
        for name in changed {
            if let Some(flag) = suspect.get_mut(*name as usize) {
                *flag = true;
            }
        }
        let stands = |search: &Self, name: usize| {
            let (Some(path), Some(parent)) = (search.paths.get(name), search.parents.get(name)) else {
                return true;
            };
            if *path == Path::NONE || suspect.get(*parent as usize) != Some(&true) {
                return true;
            }
            let before = search.path(*parent);
            let edges = search.topology.get(*parent).into_iter().flat_map(|r| &r.neighbors);
            let mut same = edges.filter(|e| e.to as usize == name && e.is_router());
            same.next().is_some_and(|e| before.then(e.metric) == *path)
        };
        let broken: Vec<usize> = (0..n).filter(|name| !stands(self, *name)).collect();
        if broken.is_empty() {
            return false;
        }
        let mut fate = vec![None; n];
        for name in broken {
            if let Some(f) = fate.get_mut(name) {
                *f = Some(true);
            }
        }
        let mut chain = Vec::new();
        for name in 0..n {
            let mut at = name;
            chain.clear();
            let lost = loop {
                match fate.get(at).copied() {
                    Some(Some(lost)) => break lost,
                    Some(None) if self.paths.get(at) != Some(&Path::NONE) => chain.push(at),
                    // At the root, or where no path is.
                    _ => break false,
                }
                at = self.parents.get(at).map_or(n, |p| *p as usize);
            };
            for at in &chain {
                if let Some(f) = fate.get_mut(*at) {
                    *f = Some(lost);
                }
            }
        }
        for (path, _) in self.paths.iter_mut().zip(&fate).filter(|(_, lost)| **lost == Some(true)) {
            *path = Path::NONE;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tc::{Advertised, Gateway, ORIGINATOR, ROUTABLE, Tc};
    use crate::topology::ANYONE;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n.into()])
    }

    fn net(n: u8) -> NetAddr {
        NetAddr::new(IpAddr::from([0xfd01, n.into(), 0, 0, 0, 0, 0, 0]), 64)
    }

    /// A TC of `from`: (neighbour, kind, metric) and (network, metric).
    fn tc(from: u8, ansn: u16, neighbors: &[(u8, u8, u32)], networks: &[(u8, u32)]) -> Tc {
        let neighbor = |(to, kind, metric): &(u8, u8, u32)| Advertised {
            address: NetAddr::host(ip(*to)),
            kind: *kind,
            metric: Some(Metric::new(*metric)),
        };
        let network = |(n, metric): &(u8, u32)| Gateway {
            prefix: net(*n),
            dist: 0,
            metric: Some(Metric::new(*metric)),
        };
        Tc {
            originator: ip(from),
            seq: 0,
            validity: Duration::from_secs(15),
            ansn: Some((ansn, true)),
            neighbors: neighbors.iter().filter(|n| n.0 != from).map(neighbor).collect(),
            gateways: networks.iter().map(network).collect(),
            notes: Vec::new(),
        }
    }

    fn hop(router: u8, metric: u32, two_hops: &[(u8, u32)]) -> FirstHop {
        FirstHop {
            router: ip(router),
            interface: 1,
            next_hop: IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, router.into()]),
            metric: Metric::new(metric),
            addresses: [NetAddr::host(ip(router))].into(),
            two_hops: two_hops.iter().map(|(n, m)| (NetAddr::host(ip(*n)), Metric::new(*m))).collect(),
        }
    }

    /// The kernel's routes after changes, which must fit what is there.
    fn apply(kernel: &mut BTreeMap<NetAddr, Route>, changes: Vec<RouteChange>) {
        for change in changes {
            let (prefix, old, new) = match change {
                RouteChange::Add(new) => (new.prefix, None, Some(new)),
                RouteChange::Replace { old, new } => (new.prefix, Some(old), Some(new)),
                RouteChange::Remove(old) => (old.prefix, Some(old), None),
            };
            let before = match new {
                Some(new) => kernel.insert(prefix, new),
                None => kernel.remove(&prefix),
            };
            assert_eq!(before, old);
            assert_ne!(old, new, "a change that changes nothing");
        }
    }

    /// §19 by plain repetition: the least (metric, hops, first hop) of each router.
    fn plain(own: IpAddr, topology: &Topology, hops: &[FirstHop]) -> BTreeMap<IpAddr, (Metric, u8, usize)> {
        let mut best: BTreeMap<IpAddr, (Metric, u8, usize)> = BTreeMap::new();
        let address = |name| topology.names.address(name).unwrap().ip();
        loop {
            let before = best.clone();
            let mut offer = |to: IpAddr, path: (Metric, u8, usize)| {
                let known = best.entry(to).or_insert(path);
                *known = path.min(*known);
            };
            hops.iter().enumerate().for_each(|(i, hop)| offer(hop.router, (hop.metric, 1, i)));
            for (from, router) in topology.routers() {
                let Some((metric, n, first)) = before.get(&address(from)).copied() else { continue };
                for e in router.neighbors.iter().filter(|e| e.is_router() && address(e.to) != own) {
                    offer(address(e.to), (metric.plus(e.metric), n + 1, first));
                }
            }
            if best == before {
                return best;
            }
        }
    }

    /// A neighbour, the cost to it, its neighbours and the costs to them.
    type Near = (u8, u32, Vec<(u8, u32)>);

    #[derive(Clone, Debug)]
    enum Step {
        Tc(u8, Vec<(u8, u8, u32)>, Vec<(u8, u32)>),
        Hops(Vec<Near>),
        Expire,
        Update,
    }

    fn step() -> impl Strategy<Value = Step> {
        let neighbors = proptest::collection::vec((0u8..12, 1u8..4, 1u32..9), 0..4);
        let networks = proptest::collection::vec((0u8..4, 1u32..4), 0..2);
        let two_hops = proptest::collection::vec((0u8..16, 1u32..9), 0..3);
        let hops = proptest::collection::btree_map(1u8..12, (1u32..9, two_hops), 0..4);
        let hops = hops.prop_map(|all| all.into_iter().map(|(r, (m, t))| (r, m, t)).collect());
        prop_oneof![
            6 => (1u8..12, neighbors, networks).prop_map(|(from, n, g)| Step::Tc(from, n, g)),
            1 => hops.prop_map(Step::Hops),
            1 => Just(Step::Expire),
            4 => Just(Step::Update),
        ]
    }

    proptest! {
        #[test]
        fn rfc7181_19_incremental_runs_equal_full_ones(steps in proptest::collection::vec(step(), 1..60)) {
            let own = ip(0);
            let mut now = Instant::from_millis(1);
            let mut topology = Topology::new(8);
            let mut routes = Routes::default();
            let mut kernel = BTreeMap::new();
            let mut hops: Vec<FirstHop> = Vec::new();
            let mut fresh = true;
            for (i, step) in steps.into_iter().chain([Step::Update]).enumerate() {
                now += Duration::from_millis(700);
                match step {
                    Step::Tc(from, n, g) => {
                        topology.apply(now, &tc(from, i as u16, &n, &g), &ANYONE, |a| a == NetAddr::host(own));
                    }
                    Step::Hops(new) => {
                        hops = new.iter().map(|(r, m, t)| hop(*r, *m, t)).collect();
                        fresh = true;
                    }
                    Step::Expire => {
                        topology.expire(now);
                    }
                    Step::Update => {
                        let ours = || [NetAddr::host(own), net(0)].into_iter();
                        let news = core::mem::take(&mut fresh).then_some(&hops[..]);
                        apply(&mut kernel, routes.update(own, &mut topology, news, ours(), |_| None));
                        let all: Vec<Route> = routes.iter(&topology.names).collect();
                        prop_assert!(kernel.values().copied().eq(all.iter().copied()));
                        let mut full = Routes::default();
                        full.update(own, &mut topology, Some(&hops), ours(), |_| None);
                        let full_all: Vec<Route> = full.iter(&topology.names).collect();
                        prop_assert_eq!(&all, &full_all);
                        for (router, (metric, n, first)) in plain(own, &topology, &hops) {
                            let route = kernel[&NetAddr::host(router)];
                            prop_assert_eq!((route.metric, route.hops), (metric, n));
                            prop_assert_eq!(route.next_hop, hops[first].next_hop);
                        }
                        prop_assert!(ours().all(|a| !kernel.contains_key(&a)));
                    }
                }
            }
        }
    }

    #[test]
    fn rfc7181_19_networks_and_two_hop_neighbours() {
        let mut topology = Topology::new(8);
        let mut routes = Routes::default();
        let both = ORIGINATOR | ROUTABLE;
        topology.apply(
            Instant::ZERO,
            &tc(1, 1, &[(2, both, 5), (9, ROUTABLE, 3)], &[(1, 7)]),
            &ANYONE,
            |_| false,
        );
        topology.apply(Instant::ZERO, &tc(2, 1, &[], &[(1, 1)]), &ANYONE, |_| false);
        let hops = [hop(1, 10, &[(2, 1), (3, 4)])];
        routes.update(ip(0), &mut topology, Some(&hops), [net(9)].into_iter(), |_| None);
        let got: Vec<_> =
            routes.iter(&topology.names).map(|r| (r.prefix, r.metric.value(), r.hops, r.router)).collect();
        let host = |n| NetAddr::host(ip(n));
        let want = [
            (host(1), 10, 1, ip(1)),
            (host(2), 15, 2, ip(2)),
            (host(3), 14, 2, ip(3)),
            (host(9), 13, 2, ip(1)),
            (net(1), 16, 2, ip(2)),
        ];
        assert_eq!(got, want, "a backbone path is kept although HELLOs tell a cheaper one");
    }
}

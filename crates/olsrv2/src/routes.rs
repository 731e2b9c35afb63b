//! Routing Set calculation (RFC 7181 §19): from what is known to routes, and what changes in the kernel.
//!
//! One entry for each address: how a router is reached, with the router before it, or the best route to
//! another prefix. After TCs that changed a little only what hangs on that is computed anew; the outcome is
//! the same as that of a full run.

mod search;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant, Metric};
use rfc5444::NetAddr;

use crate::names::{Name, Names};
use crate::tc::is_routable;
use crate::topology::Topology;
use crate::{Output, Route, RouteChange, Way};
use search::{Old, Run};

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
    way: Way,
    metric: Metric,
    /// In order.
    addresses: Vec<Name>,
    /// By name.
    two_hops: Vec<(Name, Metric)>,
}

/// A path's rank, and what is kept of it: metric, hops, index of the first hop, from the highest bits down.
/// Among ways of the same cost and hop count the earlier first hop wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Path(u64);

impl Path {
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

/// Names are smaller ([`Topology`] has uses for the highest bit).
const NAME_BITS: u32 = 31;

/// Before the first hop.
const ROOT: Name = Name::MAX;

/// How an address is reached; the address is the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    metric: Metric,
    /// Of a path: the router before this one. Of a route: the router that tells of the prefix.
    via: Name,
    /// What it is, and the index of the first hop.
    first: u16,
    hops: u8,
    dist: u8,
}

/// Of [`Entry::first`]: the address is a router's, and this the path to it. Such a route is never replaced by
/// one of another source (§19.2).
const PATH: u16 = 1 << 15;
/// The address is ours, or of a kind that gets no route; the path counts all the same.
const HIDDEN: u16 = 1 << 14;
/// While entries are mended: it was noted what this one was.
const NOTED: u16 = 1 << 13;
const INDEX: u16 = NOTED - 1;

const NOTHING: Entry =
    Entry { metric: Metric::UNKNOWN, via: ROOT, first: HIDDEN | INDEX, hops: u8::MAX, dist: u8::MAX };

impl Entry {
    /// The path to a router.
    fn path(self) -> Option<Path> {
        let path = Path::new(self.metric, self.hops, self.first & INDEX);
        (self.first & PATH != 0).then_some(path)
    }

    /// The index of a route's first hop.
    fn route(self) -> Option<u16> {
        (self.first & HIDDEN == 0).then_some(self.first & INDEX)
    }
}

/// The Routing Set and the paths it comes from.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    hops: Vec<Hop>,
    /// Names the first hops hold.
    held: Vec<Name>,
    entries: Vec<Entry>,
    /// Names that need no route, in order.
    ours: Vec<Name>,
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
    /// last run; `ours`: prefixes that need no route; `choose` may put another route to `everywhere` into the
    /// new set. What changes goes to `outputs`.
    #[allow(clippy::too_many_arguments)] // what it is computed from, and what comes of it
    pub(crate) fn update(
        &mut self,
        own: IpAddr,
        topology: &mut Topology,
        first_hops: Option<&[FirstHop]>,
        ours: impl Iterator<Item = NetAddr>,
        everywhere: NetAddr,
        choose: impl FnOnce(&RoutingSet<'_>) -> Option<Route>,
        outputs: &mut VecDeque<Output>,
    ) -> usize {
        let links = topology.take_changed().filter(|_| first_hops.is_none());
        let old_hops = first_hops.map(|hops| {
            let old_held = core::mem::take(&mut self.held);
            let names = &mut topology.names;
            let new = hops.iter().take(INDEX.into()).map(|hop| self.name(hop, names)).collect();
            old_held.into_iter().for_each(|name| names.release(name));
            core::mem::replace(&mut self.hops, new)
        });
        let mut ours: Vec<Name> = ours.filter_map(|a| topology.names.find(a)).collect();
        ours.sort_unstable();
        let links = links.filter(|_| ours == self.ours);
        self.ours = ours;
        let room = topology.names.len();
        if self.entries.len() < room {
            self.entries.reserve_exact(room - self.entries.len() + room / 16);
            self.entries.resize(room, NOTHING);
        }
        let own = topology.names.find(NetAddr::host(own)).unwrap_or(ROOT);
        let default = topology.names.find(everywhere);
        let run = Run { own, topology, hops: &self.hops, ours: &self.ours };
        let mut old = match links {
            Some(links) => run.mend(&mut self.entries, &links, default),
            None => {
                let new = run.full(room);
                Old::All(core::mem::replace(&mut self.entries, new))
            }
        };
        let set = RoutingSet { entries: &self.entries, hops: &self.hops, topology };
        if let Some((chosen, name)) = choose(&set).zip(default) {
            self.put(name, &chosen, &topology.names, &mut old);
        }
        let count = self.changes(old_hops.as_deref(), old, &topology.names, outputs);
        topology.names.sweep();
        count
    }

    fn name(&mut self, hop: &FirstHop, names: &mut Names) -> Hop {
        let mut hold = |address| {
            let name = names.hold(address);
            self.held.push(name);
            name
        };
        let good = |a: &NetAddr| is_routable(a.ip());
        let router = hold(NetAddr::host(hop.router));
        let mut addresses: Vec<Name> = hop.addresses.iter().filter(|a| good(a)).map(|a| hold(*a)).collect();
        let two_hops = hop.two_hops.iter().filter(|(a, _)| good(a));
        let mut two_hops: Vec<(Name, Metric)> = two_hops.map(|(a, metric)| (hold(*a), *metric)).collect();
        addresses.sort_unstable();
        two_hops.sort_unstable();
        let way = Way { next_hop: hop.next_hop, interface: hop.interface };
        Hop { router, way, metric: hop.metric, addresses, two_hops }
    }

    fn put(&mut self, name: Name, route: &Route, names: &Names, old: &mut Old) {
        let first = self.hops.iter().position(|hop| hop.way == route.way());
        let first = first.and_then(|i| u16::try_from(i).ok());
        let Some((first, via)) = first.zip(names.find(NetAddr::host(route.router))) else { return };
        if let Some(entry) = self.entries.get_mut(name as usize) {
            let Route { metric, hops, dist, .. } = *route;
            old.note(name, *entry);
            *entry = Entry { metric, via, first, hops, dist };
        }
    }

    /// What turns the old ways into the present ones, make before break: near routes first so that next
    /// hops are there when far ones need them, removals last and far ones first.
    fn changes(
        &self,
        old_hops: Option<&[Hop]>,
        old: Old,
        names: &Names,
        outputs: &mut VecDeque<Output>,
    ) -> usize {
        // Old first hops by their new index.
        let index = |old: &Hop| self.hops.iter().position(|new| new.way == old.way).map(|i| i as u16);
        let moved: Option<Vec<Option<u16>>> = old_hops.map(|old| old.iter().map(index).collect());
        let now = |first: u16| match &moved {
            Some(moved) => moved.get(usize::from(first)).copied().flatten(),
            None => Some(first),
        };
        let old_hops = old_hops.unwrap_or(&self.hops);
        let present = |name: Name| self.entries.get(name as usize).copied().unwrap_or(NOTHING);
        // Removal or not, rank and name in one number, and the old first hop: sorted before they are spelt out.
        let change = |(name, old): (Name, &Entry)| {
            let new = present(name);
            let (was, is) = (old.route(), new.route());
            match (was, is) {
                (None, None) => return None,
                (Some(was), Some(is)) if now(was) == Some(is) => return None,
                _ => {}
            }
            let gone = is.is_none();
            let rank = if gone { Metric::new(u32::MAX - old.metric.value()) } else { new.metric };
            let key = u64::from(gone) << (32 + NAME_BITS) | u64::from(rank.value()) << NAME_BITS;
            Some((key | u64::from(name), was))
        };
        let mut changes: Vec<(u64, Option<u16>)> = match old {
            Old::All(all) => (0..).zip(&all).filter_map(change).collect(),
            Old::Some(some) => some.iter().map(|(name, old)| (*name, old)).filter_map(change).collect(),
        };
        changes.sort_unstable_by_key(|(key, _)| *key);
        let way = |hops: &[Hop], first: Option<u16>| hops.get(usize::from(first?)).map(|hop| hop.way);
        let spell_out = |(key, was): (u64, Option<u16>)| {
            let name = (key & ((1 << NAME_BITS) - 1)) as Name;
            let (old, new) = (way(old_hops, was), way(&self.hops, present(name).route()));
            Some(RouteChange { prefix: names.address(name)?, old, new })
        };
        let before = outputs.len();
        outputs.reserve(changes.len());
        outputs.extend(changes.into_iter().filter_map(spell_out).map(Output::Route));
        outputs.len() - before
    }

    /// The longest route that fits an address.
    pub(crate) fn lookup(&self, address: IpAddr, names: &Names) -> Option<Route> {
        let host = NetAddr::host(address);
        (0..=host.prefix_len()).rev().find_map(|len| self.get(NetAddr::new(address, len).network(), names))
    }

    /// The route to a prefix.
    pub(crate) fn get(&self, prefix: NetAddr, names: &Names) -> Option<Route> {
        let name = names.find(prefix)?;
        route(name, prefix, *self.entries.get(name as usize)?, &self.hops, names)
    }

    /// All routes by prefix.
    pub(crate) fn iter<'a>(&'a self, names: &'a Names) -> impl Iterator<Item = Route> + 'a {
        names.iter().filter_map(|(name, prefix)| {
            let entry = self.entries.get(name as usize)?;
            route(name, prefix, *entry, &self.hops, names)
        })
    }
}

/// Routes about to be taken, to look at.
pub(crate) struct RoutingSet<'a> {
    entries: &'a [Entry],
    hops: &'a [Hop],
    pub(crate) topology: &'a Topology,
}

impl RoutingSet<'_> {
    pub(crate) fn get(&self, prefix: NetAddr) -> Option<Route> {
        let name = self.topology.names.find(prefix)?;
        route(name, prefix, *self.entries.get(name as usize)?, self.hops, &self.topology.names)
    }
}

/// `name`: of the prefix.
fn route(name: Name, prefix: NetAddr, entry: Entry, hops: &[Hop], names: &Names) -> Option<Route> {
    let Way { next_hop, interface } = hops.get(usize::from(entry.route()?))?.way;
    let Entry { metric, via, hops, dist, .. } = entry;
    let own = entry.first & PATH != 0 || via == name;
    let router = if own { prefix.ip() } else { names.address(via)?.ip() };
    Some(Route { prefix, next_hop, interface, metric, hops, dist, router })
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

    fn any() -> NetAddr {
        NetAddr::new(IpAddr::from([0u16; 8]), 0)
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
    fn apply(kernel: &mut BTreeMap<NetAddr, Way>, outputs: VecDeque<Output>) {
        for output in outputs {
            let Output::Route(change) = output else { panic!("{output:?}") };
            let RouteChange { prefix, old, new } = change;
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
                for e in router.edges().filter(|e| e.is_router() && address(e.to) != own) {
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
                        let mut changes = VecDeque::new();
                        routes.update(own, &mut topology, news, ours(), any(), |_| None, &mut changes);
                        apply(&mut kernel, changes);
                        let all: Vec<Route> = routes.iter(&topology.names).collect();
                        prop_assert!(kernel.iter().map(|(p, w)| (*p, *w)).eq(all.iter().map(|r| (r.prefix, r.way()))));
                        let mut full = Routes::default();
                        full.update(own, &mut topology, Some(&hops), ours(), any(), |_| None, &mut VecDeque::new());
                        let full_all: Vec<Route> = full.iter(&topology.names).collect();
                        prop_assert_eq!(&all, &full_all);
                        for (router, (metric, n, first)) in plain(own, &topology, &hops) {
                            let route = routes.get(NetAddr::host(router), &topology.names).unwrap();
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
        routes.update(
            ip(0),
            &mut topology,
            Some(&hops),
            [net(9)].into_iter(),
            any(),
            |_| None,
            &mut VecDeque::new(),
        );
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

//! Routing Set calculation (RFC 7181 §19): a pure function from what is known to routes.

use alloc::collections::{BTreeMap, BinaryHeap};
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::IpAddr;

use mesh_types::Metric;
use rfc5444::NetAddr;

use crate::tc::is_routable;
use crate::topology::Topology;
use crate::{Route, RouteChange};

/// A symmetric neighbour with a usable link: edges X → Y and X → S.
#[derive(Clone, Debug)]
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

/// The way to a router, so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Path {
    metric: Metric,
    hops: u8,
    /// Index of the first hop.
    first: usize,
}

type Routes = BTreeMap<NetAddr, Route>;

/// All routes. `first_hops` are in a stable order: among ways of the same cost and hop count the earlier
/// first hop wins. `skip` tells prefixes that are ours and need no route.
pub(crate) fn compute(
    own: IpAddr,
    first_hops: &[FirstHop],
    topology: &Topology,
    skip: impl Fn(NetAddr) -> bool,
) -> Routes {
    let paths = backbone(own, first_hops, topology);
    let mut backbone_routes = Routes::new();
    let mut others = Routes::new();
    let mut last_resort = Routes::new();
    let route = |prefix, router, path: Path, dist: u8| {
        let hop = first_hops.get(path.first)?;
        let (next_hop, interface) = (hop.next_hop, hop.interface);
        let Path { metric, hops, .. } = path;
        Some(Route { prefix, next_hop, interface, metric, hops, dist, router })
    };
    for (router, path) in &paths {
        let prefix = NetAddr::host(*router);
        if is_routable(*router) && !skip(prefix) {
            offer(&mut backbone_routes, route(prefix, *router, *path, path.hops));
        }
        let Some(known) = topology.get(*router) else { continue };
        for edge in known.neighbors.iter().filter(|e| e.is_routable() && !skip(e.to)) {
            let path =
                Path { metric: path.metric.plus(edge.metric), hops: path.hops.saturating_add(1), ..*path };
            offer(&mut others, route(edge.to, *router, path, path.hops));
        }
        for network in known.networks.iter().filter(|n| !skip(n.prefix)) {
            let path = Path { metric: path.metric.plus(network.metric), ..*path };
            offer(&mut others, route(network.prefix, *router, path, path.hops.saturating_add(network.dist)));
        }
    }
    for (first, hop) in first_hops.iter().enumerate() {
        let path = Path { metric: hop.metric, hops: 1, first };
        let wanted = |a: &NetAddr| is_routable(a.ip()) && !skip(*a);
        for address in hop.addresses.iter().copied().filter(wanted) {
            offer(&mut others, route(address, hop.router, path, 1));
        }
        for (address, metric) in hop.two_hops.iter().filter(|(a, _)| wanted(a)) {
            let path = Path { metric: path.metric.plus(*metric), hops: 2, first };
            offer(&mut last_resort, route(*address, address.ip(), path, 2));
        }
    }
    // A backbone path is never replaced; a 2-hop neighbour known from HELLOs only fills a gap (§19.2).
    let mut all = last_resort;
    all.append(&mut others);
    all.append(&mut backbone_routes);
    all
}

fn offer(routes: &mut Routes, route: Option<Route>) {
    let Some(route) = route else { return };
    let rank = |r: &Route| (r.metric, r.dist, r.hops);
    match routes.entry(route.prefix) {
        alloc::collections::btree_map::Entry::Vacant(slot) => {
            slot.insert(route);
        }
        alloc::collections::btree_map::Entry::Occupied(mut slot) => {
            if rank(&route) < rank(slot.get()) {
                slot.insert(route);
            }
        }
    }
}

/// Shortest paths to routers over edges X → Y and W → U (Dijkstra), nearest first.
fn backbone(own: IpAddr, first_hops: &[FirstHop], topology: &Topology) -> Vec<(IpAddr, Path)> {
    let mut index: BTreeMap<IpAddr, usize> = BTreeMap::new();
    let mut names: Vec<IpAddr> = Vec::new();
    let mut number = |ip: IpAddr, names: &mut Vec<IpAddr>| {
        *index.entry(ip).or_insert_with(|| {
            names.push(ip);
            names.len() - 1
        })
    };
    let mut queue: BinaryHeap<Reverse<(Path, usize)>> = BinaryHeap::new();
    for (first, hop) in first_hops.iter().enumerate() {
        let node = number(hop.router, &mut names);
        queue.push(Reverse((Path { metric: hop.metric, hops: 1, first }, node)));
    }
    let mut best: Vec<Option<Path>> = vec![None; names.len()];
    let mut done = Vec::new();
    while let Some(Reverse((path, node))) = queue.pop() {
        if best.len() < names.len() {
            best.resize(names.len(), None);
        }
        let (Some(slot), Some(name)) = (best.get_mut(node), names.get(node).copied()) else { continue };
        if slot.is_some() {
            continue;
        }
        *slot = Some(path);
        done.push((name, path));
        let Some(known) = topology.get(name) else { continue };
        for edge in known.neighbors.iter().filter(|e| e.is_router() && e.to.ip() != own) {
            let to = number(edge.to.ip(), &mut names);
            if best.get(to).is_none_or(Option::is_none) {
                let (metric, hops) = (path.metric.plus(edge.metric), path.hops.saturating_add(1));
                queue.push(Reverse((Path { metric, hops, ..path }, to)));
            }
        }
    }
    done
}

/// What turns `old` into `new`, make before break: near routes first so that next hops are there when
/// far ones need them, removals last and far ones first.
pub(crate) fn diff(old: &Routes, new: &Routes) -> Vec<RouteChange> {
    let mut changes: Vec<(bool, Metric, RouteChange)> = Vec::new();
    for (prefix, route) in new {
        match old.get(prefix) {
            None => changes.push((false, route.metric, RouteChange::Add(*route))),
            Some(before) if before != route => {
                changes.push((false, route.metric, RouteChange::Replace { old: *before, new: *route }));
            }
            Some(_) => {}
        }
    }
    for (prefix, route) in old {
        if !new.contains_key(prefix) {
            changes.push((true, Metric::new(u32::MAX - route.metric.value()), RouteChange::Remove(*route)));
        }
    }
    changes.sort_by_key(|(remove, rank, _)| (*remove, *rank));
    changes.into_iter().map(|(_, _, change)| change).collect()
}

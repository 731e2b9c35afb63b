//! What follows from a change (RFC 7181 §17): metrics, MPRs, advertised neighbours, routes.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mesh_types::{Duration, Instant, Metric};
use nhdp::{Link, LinkStatus, NeighborId};
use rfc5444::NetAddr;

use crate::ext::{NeighborExt, Olsr};
use crate::mpr::{Candidate, select};
use crate::router::Router;
use crate::routes::{FirstHop, RoutingSet};
use crate::tc::{Advertised, Gateway, ORIGINATOR, ROUTABLE, is_routable};

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// How many TC intervals a neighbour that chose other routing MPRs is advertised still.
const ADVERTISED_ON: u64 = 15;

/// With no more 2-hop neighbours MPRs follow each change at once.
const FEW: usize = 4096;

/// When MPRs are chosen.
#[derive(Debug, Default)]
pub(crate) struct MprPlan {
    wanted: bool,
    not_before: Instant,
}

impl MprPlan {
    /// When they want to be.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.wanted.then_some(self.not_before)
    }
}

/// A link that may carry traffic (§18.4, "reachable").
fn usable(link: &Link<Olsr>) -> bool {
    link.status() == LinkStatus::Symmetric && link.ext.metric_out != Metric::UNKNOWN
}

impl Router {
    pub(crate) fn update(&mut self, now: Instant) {
        self.neighborhood_dirty |= self.nhdp.take_changed();
        self.counters.table_full += self.nhdp.take_refused();
        let dirty = core::mem::take(&mut self.neighborhood_dirty);
        if dirty {
            self.round = self.round.wrapping_add(1);
            self.settle_links();
            self.settle_neighbors();
        }
        self.mprs.wanted |= dirty;
        if self.mprs.wanted && self.mprs.not_before <= now {
            let changed = self.select_mprs();
            self.mprs = MprPlan { wanted: false, not_before: now + self.mpr_rest() };
            if changed {
                self.round = self.round.wrapping_add(1);
                self.nhdp.trigger_all(now);
            }
        }
        if dirty {
            self.advertise(now);
            self.settle_first_hops();
        }
        if self.routes.are_due(now) {
            self.recompute_routes(now);
        }
    }

    /// How long until MPRs may be chosen again: with thousands of 2-hop neighbours that takes its time.
    fn mpr_rest(&self) -> Duration {
        let links = self.nhdp.interfaces().flat_map(|(_, i)| i.links());
        let two_hops: usize = links.map(|(_, l)| l.two_hops().count()).sum();
        if two_hops > FEW { Duration::from_micros(10 * two_hops as u64) } else { Duration::ZERO }
    }

    /// §17.2.
    fn settle_links(&mut self) {
        for (_, interface) in self.nhdp.interfaces_mut() {
            for (_, link) in interface.links_mut() {
                if link.status() != LinkStatus::Symmetric {
                    link.ext.mpr_selector = false;
                    link.ext.metric_out = Metric::UNKNOWN;
                }
            }
        }
    }

    /// §17.3.
    fn settle_neighbors(&mut self) {
        let mut best: BTreeMap<NeighborId, (Metric, Metric)> = BTreeMap::new();
        for (_, interface) in self.nhdp.interfaces() {
            for (_, link) in interface.links().filter(|(_, l)| l.status() == LinkStatus::Symmetric) {
                let Some(neighbor) = link.neighbor else { continue };
                let entry = best.entry(neighbor).or_insert((Metric::UNKNOWN, Metric::UNKNOWN));
                entry.0 = entry.0.min(link.ext.metric_in);
                entry.1 = entry.1.min(link.ext.metric_out);
            }
        }
        for (id, neighbor) in self.nhdp.neighbors_mut() {
            let (metric_in, metric_out) =
                best.get(&id).copied().unwrap_or((Metric::UNKNOWN, Metric::UNKNOWN));
            neighbor.ext.metric_in = metric_in;
            neighbor.ext.metric_out = metric_out;
            if !neighbor.symmetric {
                let NeighborExt { originator, will_flooding, will_routing, needs_tc, .. } = neighbor.ext;
                let default = NeighborExt::default();
                neighbor.ext = NeighborExt { originator, will_flooding, will_routing, needs_tc, ..default };
            }
        }
    }

    /// §18; `true` if a set changed.
    fn select_mprs(&mut self) -> bool {
        let mut flooding: Vec<NeighborId> = Vec::new();
        let interfaces: Vec<u32> = self.nhdp.interfaces().map(|(index, _)| index).collect();
        for interface in interfaces {
            self.flooding_mprs(interface, &mut flooding);
        }
        let routing = self.routing_mprs();
        let mut changed = false;
        for (id, neighbor) in self.nhdp.neighbors_mut() {
            let new = (flooding.contains(&id), routing.contains(&id));
            changed |= new != (neighbor.ext.flooding_mpr, neighbor.ext.routing_mpr);
            (neighbor.ext.flooding_mpr, neighbor.ext.routing_mpr) = new;
        }
        changed
    }

    /// §18.4 with option B: hops, not metrics. Those chosen for earlier interfaces are preferred.
    fn flooding_mprs(&self, interface: u32, chosen: &mut Vec<NeighborId>) {
        let Some(links) = self.nhdp.interface(interface) else { return };
        let mut near: Vec<NetAddr> = Vec::new();
        for link in links.links().map(|(_, l)| l).filter(|l| usable(l)) {
            near.extend(link.neighbor.and_then(|n| self.nhdp.neighbor(n)).iter().flat_map(|n| &n.addresses));
        }
        near.sort_unstable();
        let mut far: BTreeMap<NetAddr, usize> = BTreeMap::new();
        let mut names = Vec::new();
        let mut candidates = Vec::new();
        for link in links.links().map(|(_, l)| l).filter(|l| usable(l)) {
            let Some((id, n)) = link.neighbor.and_then(|id| Some((id, self.nhdp.neighbor(id)?))) else {
                continue;
            };
            if n.ext.will_flooding == 0 {
                continue;
            }
            let known = link.two_hops().filter(|(_, t)| t.ext.metric_out != Metric::UNKNOWN);
            // A 2-hop neighbour that is also a neighbour needs no MPR when hops are counted.
            let beyond = known.map(|(a, _)| *a).filter(|a| near.binary_search(a).is_err());
            let covers = beyond.map(|a| (number(&mut far, a), 1)).collect();
            let current = n.ext.flooding_mpr || chosen.contains(&id);
            candidates.push(Candidate { will: n.ext.will_flooding, distance: 1, covers, current });
            names.push(id);
        }
        let set = select(&candidates, &vec![None; far.len()]);
        chosen.extend(names.iter().zip(set).filter(|(_, is)| *is).map(|(id, _)| *id));
    }

    /// §18.5, with incoming metrics throughout (the RFC's "N2_out_metric" in d2 can only be meant as
    /// N2_in_metric: the set must keep the shortest ways towards us).
    fn routing_mprs(&self) -> Vec<NeighborId> {
        let mut direct: BTreeMap<NetAddr, Metric> = BTreeMap::new();
        let reachable = |n: &nhdp::Neighbor<Olsr>| n.symmetric && n.ext.metric_in != Metric::UNKNOWN;
        for (_, n) in self.nhdp.neighbors().filter(|(_, n)| reachable(n)) {
            for address in &n.addresses {
                direct.insert(*address, n.ext.metric_in);
            }
        }
        let mut covers: BTreeMap<NeighborId, BTreeMap<NetAddr, Metric>> = BTreeMap::new();
        for link in self.nhdp.interfaces().flat_map(|(_, i)| i.links()).map(|(_, l)| l) {
            let Some(id) = link.neighbor else { continue };
            let entry = covers.entry(id).or_default();
            for (address, two_hop) in link.two_hops().filter(|(_, t)| t.ext.metric_in != Metric::UNKNOWN) {
                let metric = entry.entry(*address).or_insert(two_hop.ext.metric_in);
                *metric = (*metric).min(two_hop.ext.metric_in);
            }
        }
        let mut far: BTreeMap<NetAddr, usize> = BTreeMap::new();
        let mut names = Vec::new();
        let mut candidates = Vec::new();
        for (id, n) in self.nhdp.neighbors().filter(|(_, n)| reachable(n) && n.ext.will_routing > 0) {
            let mine = covers.get(&id).into_iter().flatten();
            let covers = mine.map(|(a, metric)| (number(&mut far, *a), metric.value())).collect();
            candidates.push(Candidate {
                will: n.ext.will_routing,
                distance: n.ext.metric_in.value(),
                covers,
                current: n.ext.routing_mpr,
            });
            names.push(id);
        }
        let mut near = vec![None; far.len()];
        for (address, at) in &far {
            if let (Some(metric), Some(slot)) = (direct.get(address), near.get_mut(*at)) {
                *slot = Some(metric.value());
            }
        }
        let set = select(&candidates, &near);
        names.iter().zip(set).filter(|(_, is)| *is).map(|(id, _)| *id).collect()
    }

    /// §17.3, §17.4: what TCs say; a change counts up the ANSN and wants a TC.
    fn advertise(&mut self, now: Instant) {
        let hold = self.config.timing.tc_interval.times(ADVERTISED_ON);
        for (_, n) in self.nhdp.neighbors_mut() {
            let wanted = n.ext.mpr_selector || n.ext.needs_tc;
            let until = &mut n.ext.advertised_until;
            match (wanted && n.symmetric, *until) {
                (true, _) => *until = Some(Instant::FAR_FUTURE),
                // Who chose another router is advertised on: that one's TC may come later than ours, or get
                // lost, and the choice often comes back.
                (false, Some(Instant::FAR_FUTURE)) => *until = Some(now + hold),
                (false, _) => {}
            }
        }
        if self.compose() {
            self.trigger_tc(now);
        }
    }

    /// Before a periodic TC: ends the advertising of neighbours that chose others long ago.
    pub(crate) fn let_go(&mut self, now: Instant) {
        let mut some = false;
        for (_, n) in self.nhdp.neighbors_mut() {
            some |= n.ext.advertised_until.take_if(|until| *until <= now).is_some();
        }
        if some {
            self.compose();
        }
    }

    /// Puts together what TCs say; `true`, and the ANSN counts up, if that is not what they said.
    fn compose(&mut self) -> bool {
        let mut neighbors: BTreeMap<NetAddr, Advertised> = BTreeMap::new();
        let mut add = |address: NetAddr, kind: u8, metric: Metric| {
            let new = Advertised { address, kind: 0, metric: Some(metric) };
            neighbors.entry(address).or_insert(new).kind |= kind;
        };
        let limit = self.config.limits.per_router.saturating_sub(self.attached.len());
        for (_, n) in self.nhdp.neighbors().filter(|(_, n)| n.symmetric && n.ext.advertised_until.is_some()) {
            let Some(originator) = n.ext.originator.filter(|_| n.ext.metric_out != Metric::UNKNOWN) else {
                continue;
            };
            add(NetAddr::host(originator), ORIGINATOR, n.ext.metric_out);
            for address in n.addresses.iter().filter(|a| is_routable(a.ip())) {
                add(*address, ROUTABLE, n.ext.metric_out);
            }
        }
        let neighbors: Vec<Advertised> = neighbors.into_values().take(limit).collect();
        let gateway = |n: &crate::AttachedNetwork| {
            let metric = Metric::from_compressed(n.metric.to_compressed());
            Gateway { prefix: n.prefix, dist: n.dist, metric: Some(metric) }
        };
        // What is an address of ours is no network behind us (§7.2).
        let own = |n: &&crate::AttachedNetwork| n.prefix.is_host() && self.nhdp.is_ours(n.prefix);
        let gateways: Vec<Gateway> = self.attached.iter().filter(|n| !own(n)).map(gateway).collect();
        let attached = |(prefix, _): &&(NetAddr, crate::Note)| gateways.iter().any(|g| g.prefix == *prefix);
        let notes: Vec<_> = self.notes.iter().filter(attached).copied().collect();
        let changed =
            (&neighbors, &gateways, &notes) != (&self.tc.neighbors, &self.tc.gateways, &self.tc.notes);
        if changed {
            self.tc.notes = notes;
            self.tc.neighbors = neighbors;
            self.tc.gateways = gateways;
            self.sequences.ansn = self.sequences.ansn.wrapping_add(1);
        }
        changed
    }

    /// Looks which neighbours are first hops now. Routes over one that is gone, or to one that is new, can't
    /// wait.
    fn settle_first_hops(&mut self) {
        let new = self.first_hops();
        if new != self.first_hops {
            let ways = |hops: &[FirstHop]| hops.iter().map(FirstHop::way).collect::<Vec<_>>();
            self.routes.want(ways(&new) != ways(&self.first_hops));
            self.first_hops = new;
            self.first_hops_changed = true;
        }
    }

    /// §19.
    fn recompute_routes(&mut self, now: Instant) {
        self.counters.route_runs += 1;
        let hops = core::mem::take(&mut self.first_hops_changed).then_some(&self.first_hops[..]);
        let attached = self.attached.iter().map(|n| n.prefix);
        let ours = self.nhdp.our_addresses().chain(attached);
        let everywhere = NetAddr::new(if self.addr_len() == 4 { ANY4 } else { ANY6 }, 0);
        let choose = |set: &RoutingSet<'_>| {
            let (nearest, to) = (set.get(everywhere), |router| set.get(router));
            self.gateways.settle(now, nearest, to, set.topology, &self.first_hops)
        };
        let own = self.config.originator;
        let (topology, outputs) = (&mut self.topology, &mut self.outputs);
        let changes = self.routes.update(own, topology, hops, ours, everywhere, choose, outputs);
        self.counters.route_changes += changes as u64;
        self.routes.done(now, self.config.timing.trigger_jitter);
    }

    fn first_hops(&self) -> Vec<FirstHop> {
        let mut best: BTreeMap<NeighborId, (u32, &Link<Olsr>)> = BTreeMap::new();
        for (index, interface) in self.nhdp.interfaces() {
            for link in interface.links().map(|(_, l)| l).filter(|l| usable(l)) {
                let Some(id) = link.neighbor else { continue };
                let better = best.get(&id).is_none_or(|(_, old)| link.ext.metric_out < old.ext.metric_out);
                if better {
                    best.insert(id, (index, link));
                }
            }
        }
        let hop = |(id, (interface, link)): (&NeighborId, &(u32, &Link<Olsr>))| {
            let n = self.nhdp.neighbor(*id)?;
            let two_hops = link.two_hops().filter(|(_, t)| t.ext.metric_out != Metric::UNKNOWN);
            let two_hops = two_hops.filter(|_| n.ext.will_routing > 0).map(|(a, t)| (*a, t.ext.metric_out));
            Some(FirstHop {
                router: n.ext.originator?,
                interface: *interface,
                next_hop: link.addresses.first()?.ip(),
                metric: n.ext.metric_out,
                addresses: n.addresses.clone(),
                two_hops: two_hops.collect(),
            })
        };
        let mut hops: Vec<FirstHop> = best.iter().filter_map(hop).collect();
        hops.sort_unstable_by_key(|h| (h.router, h.interface, h.next_hop));
        hops
    }
}

fn number(all: &mut BTreeMap<NetAddr, usize>, address: NetAddr) -> usize {
    let next = all.len();
    *all.entry(address).or_insert(next)
}

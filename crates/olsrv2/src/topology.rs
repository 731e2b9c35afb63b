//! The Topology Information Base (RFC 7181 §9, §16.3.3, §16.3.4).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Instant, Metric};
use rfc5444::NetAddr;

use crate::names::{Name, Names};
use crate::tc::{ORIGINATOR, ROUTABLE, Tc, newer};

/// An Advertising Remote Router Tuple and all that hangs on it.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    /// AR_seq_number.
    ansn: u16,
    /// AR_time.
    expires: Instant,
    /// Router Topology and Routable Address Topology Tuples, by name.
    pub(crate) neighbors: Vec<Edge>,
    /// Attached Network Tuples, by name.
    pub(crate) networks: Vec<Network>,
}

/// A Router Topology Tuple ([`ORIGINATOR`]), a Routable Address Topology Tuple ([`ROUTABLE`]) or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) to: Name,
    pub(crate) metric: Metric,
    expires: Instant,
    pub(crate) kind: u8,
}

impl Edge {
    /// To a router.
    pub(crate) fn is_router(&self) -> bool {
        self.kind & ORIGINATOR != 0
    }
    /// To an address that wants a route.
    pub(crate) fn is_routable(&self) -> bool {
        self.kind & ROUTABLE != 0
    }
}

/// An Attached Network Tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) prefix: Name,
    pub(crate) metric: Metric,
    expires: Instant,
    pub(crate) dist: u8,
}

/// What an Edge and a Network have in common.
trait Tuple: Copy {
    fn name(&self) -> Name;
    fn expires(&self) -> Instant;
    /// All but the time.
    fn same(&self, other: &Self) -> bool;
}

impl Tuple for Edge {
    fn name(&self) -> Name {
        self.to
    }
    fn expires(&self) -> Instant {
        self.expires
    }
    fn same(&self, other: &Self) -> bool {
        (self.kind, self.metric) == (other.kind, other.metric)
    }
}

impl Tuple for Network {
    fn name(&self) -> Name {
        self.prefix
    }
    fn expires(&self) -> Instant {
        self.expires
    }
    fn same(&self, other: &Self) -> bool {
        (self.dist, self.metric) == (other.dist, other.metric)
    }
}

/// What a TC did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Routes must be computed anew.
    pub(crate) changed: bool,
    /// A newcomer pushed out another router for want of room.
    pub(crate) full: bool,
    /// The originator was not known before.
    pub(crate) new: bool,
}

/// All that TCs told.
#[derive(Debug)]
pub(crate) struct Topology {
    pub(crate) names: Names,
    /// By the originator's name.
    routers: Vec<Option<Box<Router>>>,
    count: usize,
    limit: usize,
    next_expiry: Instant,
    /// Routers of which something changed; `None`: of many.
    changed: Option<Vec<Name>>,
}

/// More changed routers than this are not told one by one.
const MANY: usize = 64;

impl Topology {
    pub(crate) fn new(limit: usize) -> Self {
        let (names, routers) = (Names::default(), Vec::new());
        Self { names, routers, count: 0, limit, next_expiry: Instant::FAR_FUTURE, changed: None }
    }

    /// All routers, by name.
    pub(crate) fn routers(&self) -> impl Iterator<Item = (Name, &Router)> {
        self.routers.iter().enumerate().filter_map(|(name, r)| Some((name as Name, &**r.as_ref()?)))
    }

    pub(crate) fn get(&self, originator: Name) -> Option<&Router> {
        self.routers.get(originator as usize)?.as_deref()
    }

    /// Nothing expires before this; `None` if nothing ever does.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        Some(self.next_expiry).filter(|t| *t != Instant::FAR_FUTURE)
    }

    /// Takes a valid TC in (§16.3.3, §16.3.4). `skip` tells addresses that are ours.
    pub(crate) fn apply(&mut self, now: Instant, tc: &Tc, skip: impl Fn(NetAddr) -> bool) -> Outcome {
        let mut outcome = Outcome::default();
        let Some((ansn, complete)) = tc.ansn else { return outcome };
        let known = self.names.find(NetAddr::host(tc.originator)).filter(|n| self.get(*n).is_some());
        if known.and_then(|n| self.get(n)).is_some_and(|r| newer(r.ansn, ansn)) {
            return outcome;
        }
        let expires = now + tc.validity;
        self.next_expiry = self.next_expiry.min(expires);
        let name = known.unwrap_or_else(|| {
            (outcome.changed, outcome.new) = (true, true);
            outcome.full = self.make_room();
            self.add(tc.originator)
        });
        let Some(router) = self.routers.get_mut(name as usize).and_then(Option::as_mut) else {
            return outcome;
        };
        (router.ansn, router.expires) = (ansn, expires);
        if complete {
            // What it does not name goes.
            router.neighbors.iter_mut().for_each(|e| e.expires = Instant::ZERO);
            router.networks.iter_mut().for_each(|n| n.expires = Instant::ZERO);
        }
        let names = &mut self.names;
        for n in tc.neighbors.iter().filter(|n| !skip(n.address)) {
            let edge = |to| Some(Edge { to, metric: n.metric?, expires, kind: n.kind });
            outcome.changed |= put(&mut router.neighbors, names, n.address, edge);
        }
        for g in tc.gateways.iter().filter(|g| !skip(g.prefix)) {
            let network = |prefix| Some(Network { prefix, metric: g.metric?, expires, dist: g.dist });
            outcome.changed |= put(&mut router.networks, names, g.prefix, network);
        }
        if complete {
            outcome.changed |= keep(&mut router.neighbors, names, |t| t != Instant::ZERO);
            outcome.changed |= keep(&mut router.networks, names, |t| t != Instant::ZERO);
        }
        if outcome.changed {
            router.neighbors.shrink_to_fit();
            router.networks.shrink_to_fit();
            self.touch(name);
        }
        outcome
    }

    fn touch(&mut self, name: Name) {
        match &mut self.changed {
            Some(changed) if changed.contains(&name) => {}
            Some(changed) if changed.len() < MANY => changed.push(name),
            changed => *changed = None,
        }
    }

    /// Routers of which something changed since the last call; `None`: it may be all.
    pub(crate) fn take_changed(&mut self) -> Option<Vec<Name>> {
        self.changed.replace(Vec::new())
    }

    fn add(&mut self, originator: IpAddr) -> Name {
        let name = self.names.hold(NetAddr::host(originator));
        self.routers.resize(self.names.len().max(self.routers.len()), None);
        let router = Router { ansn: 0, expires: Instant::ZERO, neighbors: Vec::new(), networks: Vec::new() };
        if let Some(slot) = self.routers.get_mut(name as usize) {
            *slot = Some(Box::new(router));
            self.count += 1;
        }
        name
    }

    /// Drops the router nothing was heard of for longest if there is no room for another.
    fn make_room(&mut self) -> bool {
        if self.count < self.limit {
            return false;
        }
        let oldest = self.routers().min_by_key(|(_, r)| r.expires).map(|(name, _)| name);
        oldest.into_iter().for_each(|name| self.remove(name));
        true
    }

    fn remove(&mut self, name: Name) {
        let Some(router) = self.routers.get_mut(name as usize).and_then(Option::take) else { return };
        self.count -= 1;
        self.touch(name);
        router.neighbors.iter().for_each(|e| self.names.release(e.to));
        router.networks.iter().for_each(|n| self.names.release(n.prefix));
        self.names.release(name);
    }

    /// A router says that links are lost before its TC does.
    pub(crate) fn unlink(&mut self, from: IpAddr, to: impl Iterator<Item = NetAddr>) -> bool {
        let Some(name) = self.names.find(NetAddr::host(from)) else { return false };
        let gone: Vec<Name> = to.filter_map(|address| self.names.find(address)).collect();
        let Some(router) = self.routers.get_mut(name as usize).and_then(Option::as_mut) else { return false };
        let before = router.neighbors.len();
        let names = &mut self.names;
        router.neighbors.retain(|e| {
            let lost = gone.contains(&e.to);
            if lost {
                names.release(e.to);
            }
            !lost
        });
        let changed = router.neighbors.len() != before;
        if changed {
            self.touch(name);
        }
        changed
    }

    /// Removes what has expired (§17.5); `true` if anything was.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        if self.next_expiry > now {
            return false;
        }
        let gone: Vec<Name> = self.routers().filter(|(_, r)| r.expires <= now).map(|(n, _)| n).collect();
        let mut changed = !gone.is_empty();
        gone.into_iter().for_each(|name| self.remove(name));
        let mut next = Instant::FAR_FUTURE;
        let mut thinner = Vec::new();
        for (name, router) in (0..).zip(&mut self.routers) {
            let Some(router) = router else { continue };
            let fewer = keep(&mut router.neighbors, &mut self.names, |t| t > now);
            if keep(&mut router.networks, &mut self.names, |t| t > now) || fewer {
                thinner.push(name);
            }
            let edges = router.neighbors.iter().map(|e| e.expires);
            let times = edges.chain(router.networks.iter().map(|n| n.expires));
            next = times.fold(router.expires.min(next), Instant::min);
        }
        self.next_expiry = next;
        changed |= !thinner.is_empty();
        thinner.into_iter().for_each(|name| self.touch(name));
        changed
    }
}

/// Up to here looking at each is faster than searching.
const FEW: usize = 16;

/// Puts what `make` makes of the address' name into the list, or removes what is there if it makes
/// nothing; `true` if that changed the content.
fn put<T: Tuple>(
    list: &mut Vec<T>,
    names: &mut Names,
    address: NetAddr,
    make: impl Fn(Name) -> Option<T>,
) -> bool {
    let at = if list.len() <= FEW {
        list.iter().position(|t| names.address(t.name()) == Some(address))
    } else {
        names.find(address).and_then(|name| list.binary_search_by_key(&name, T::name).ok())
    };
    let name = at.and_then(|at| list.get(at)).map_or(0, T::name);
    match (at, make(name)) {
        (Some(at), Some(new)) => list.get_mut(at).is_some_and(|old| {
            let changed = !old.same(&new);
            *old = new;
            changed
        }),
        (None, Some(_)) => {
            let name = names.hold(address);
            let at = list.binary_search_by_key(&name, T::name).unwrap_or_else(|at| at);
            make(name).into_iter().for_each(|new| list.insert(at, new));
            true
        }
        (Some(at), None) => {
            names.release(list.remove(at).name());
            true
        }
        (None, None) => false,
    }
}

/// Keeps the tuples whose time is good; `true` if one was not.
fn keep<T: Tuple>(list: &mut Vec<T>, names: &mut Names, good: impl Fn(Instant) -> bool) -> bool {
    let before = list.len();
    list.retain(|t| {
        let good = good(t.expires());
        if !good {
            names.release(t.name());
        }
        good
    });
    list.len() != before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tc::{Advertised, Gateway};
    use mesh_types::Duration;

    fn net(text: &str) -> NetAddr {
        NetAddr::host(text.parse().unwrap())
    }

    fn tc(ansn: u16, complete: bool, to: &[&str]) -> Tc {
        let neighbors = to.iter().map(|t| Advertised { address: net(t), kind: 3, metric: Some(Metric::MIN) });
        Tc {
            originator: "fd00::9".parse().unwrap(),
            seq: 0,
            validity: Duration::from_secs(15),
            ansn: Some((ansn, complete)),
            neighbors: neighbors.collect(),
            gateways: Vec::new(),
        }
    }

    fn edges(t: &Topology) -> usize {
        t.routers().map(|(_, r)| r.neighbors.len()).sum()
    }

    #[test]
    fn rfc7181_16_3_3_1_an_older_ansn_is_discarded() {
        let mut t = Topology::new(10);
        let now = Instant::from_millis(1);
        assert!(t.apply(now, &tc(5, true, &["fd00::1"]), |_| false).changed);
        assert!(!t.apply(now, &tc(4, true, &["fd00::2"]), |_| false).changed);
        assert!(!t.apply(now, &tc(5, true, &["fd00::1"]), |_| false).changed);
        assert_eq!(edges(&t), 1);
    }

    #[test]
    fn rfc7181_16_3_4_a_complete_tc_replaces_an_incomplete_one_adds() {
        let mut t = Topology::new(10);
        let now = Instant::from_millis(1);
        t.apply(now, &tc(5, true, &["fd00::1"]), |_| false);
        assert!(t.apply(now, &tc(6, false, &["fd00::2"]), |_| false).changed);
        assert_eq!(edges(&t), 2);
        assert!(t.apply(now, &tc(7, true, &["fd00::2"]), |_| false).changed);
        assert_eq!(edges(&t), 1);
        let mut gone = tc(8, false, &["fd00::2"]);
        gone.neighbors[0].metric = None;
        assert!(t.apply(now, &gone, |_| false).changed, "UNKNOWN_METRIC removes");
        assert_eq!(edges(&t), 0);
    }

    #[test]
    fn rfc7181_17_5_expiry_takes_everything() {
        let mut t = Topology::new(10);
        let mut with_net = tc(5, true, &["fd00::1"]);
        with_net.gateways.push(Gateway { prefix: net("fd01::"), dist: 0, metric: Some(Metric::MIN) });
        t.apply(Instant::ZERO, &with_net, |_| false);
        assert!(!t.expire(Instant::from_millis(14_999)));
        assert_eq!(t.next_expiry(), Some(Instant::from_millis(15_000)));
        assert!(t.expire(Instant::from_millis(15_000)));
        assert_eq!((t.routers().count(), t.next_expiry()), (0, None));
    }

    #[test]
    fn table_is_bounded_and_the_oldest_goes() {
        let mut t = Topology::new(2);
        for i in 1..=5u16 {
            let mut one = tc(1, true, &["fd00::1"]);
            one.originator = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, i]);
            let full = t.apply(Instant::from_millis(u64::from(i)), &one, |_| false).full;
            assert_eq!(full, i > 2);
        }
        assert_eq!(t.routers().count(), 2);
        let last = t.names.find(NetAddr::host([0xfd00, 0, 0, 0, 0, 0, 1, 5].into())).unwrap();
        assert!(t.get(last).is_some());
    }
}

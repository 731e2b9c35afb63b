//! The Topology Information Base (RFC 7181 §9, §16.3.3, §16.3.4).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Instant, Metric};
use rfc5444::NetAddr;

use crate::tc::{ORIGINATOR, ROUTABLE, Tc, newer};

/// An Advertising Remote Router Tuple and all that hangs on it.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    /// AR_seq_number.
    ansn: u16,
    /// AR_time.
    expires: Instant,
    /// Router Topology and Routable Address Topology Tuples, by address.
    pub(crate) neighbors: Vec<Edge>,
    /// Attached Network Tuples, by prefix.
    pub(crate) networks: Vec<Network>,
}

/// A Router Topology Tuple ([`ORIGINATOR`]), a Routable Address Topology Tuple ([`ROUTABLE`]) or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) to: NetAddr,
    pub(crate) kind: u8,
    pub(crate) metric: Metric,
    seq: u16,
    expires: Instant,
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
    pub(crate) prefix: NetAddr,
    pub(crate) dist: u8,
    pub(crate) metric: Metric,
    seq: u16,
    expires: Instant,
}

/// What a TC did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Routes must be computed anew.
    pub(crate) changed: bool,
    /// A newcomer pushed out another router for want of room.
    pub(crate) full: bool,
}

/// All that TCs told.
#[derive(Debug)]
pub(crate) struct Topology {
    routers: BTreeMap<IpAddr, Router>,
    limit: usize,
    next_expiry: Instant,
}

impl Topology {
    pub(crate) fn new(limit: usize) -> Self {
        Self { routers: BTreeMap::new(), limit, next_expiry: Instant::FAR_FUTURE }
    }

    pub(crate) fn routers(&self) -> impl Iterator<Item = (IpAddr, &Router)> {
        self.routers.iter().map(|(address, router)| (*address, router))
    }

    pub(crate) fn get(&self, originator: IpAddr) -> Option<&Router> {
        self.routers.get(&originator)
    }

    /// Nothing expires before this; `None` if nothing ever does.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        Some(self.next_expiry).filter(|t| *t != Instant::FAR_FUTURE)
    }

    /// Takes a valid TC in (§16.3.3, §16.3.4). `skip` tells addresses that are ours.
    pub(crate) fn apply(&mut self, now: Instant, tc: &Tc, skip: impl Fn(NetAddr) -> bool) -> Outcome {
        let mut outcome = Outcome::default();
        let Some((ansn, complete)) = tc.ansn else { return outcome };
        if self.routers.get(&tc.originator).is_some_and(|r| newer(r.ansn, ansn)) {
            return outcome;
        }
        if !self.routers.contains_key(&tc.originator) && self.routers.len() >= self.limit {
            outcome.full = true;
            let oldest = self.routers.iter().min_by_key(|(_, r)| r.expires).map(|(a, _)| *a);
            oldest.map(|a| self.routers.remove(&a));
        }
        let expires = now + tc.validity;
        self.next_expiry = self.next_expiry.min(expires);
        let router = self.routers.entry(tc.originator).or_insert_with(|| {
            outcome.changed = true;
            Router { ansn, expires, neighbors: Vec::new(), networks: Vec::new() }
        });
        router.ansn = ansn;
        router.expires = expires;
        for n in tc.neighbors.iter().filter(|n| !skip(n.address)) {
            let new = n.metric.map(|metric| Edge { to: n.address, kind: n.kind, metric, seq: ansn, expires });
            let at = router.neighbors.binary_search_by(|e| e.to.cmp(&n.address));
            let same = |a: &Edge, b: &Edge| a.kind == b.kind && a.metric == b.metric;
            outcome.changed |= put(&mut router.neighbors, at, new, same);
        }
        for g in tc.gateways.iter().filter(|g| !skip(g.prefix)) {
            let (prefix, dist) = (g.prefix, g.dist);
            let new = g.metric.map(|metric| Network { prefix, dist, metric, seq: ansn, expires });
            let at = router.networks.binary_search_by(|n| n.prefix.cmp(&prefix));
            let same = |a: &Network, b: &Network| a.dist == b.dist && a.metric == b.metric;
            outcome.changed |= put(&mut router.networks, at, new, same);
        }
        if complete {
            let before = (router.neighbors.len(), router.networks.len());
            router.neighbors.retain(|e| e.seq == ansn && e.expires == expires);
            router.networks.retain(|n| n.seq == ansn && n.expires == expires);
            outcome.changed |= before != (router.neighbors.len(), router.networks.len());
        }
        outcome
    }

    /// A router says that links are lost before its TC does.
    pub(crate) fn unlink(&mut self, from: IpAddr, to: impl Iterator<Item = NetAddr>) -> bool {
        let Some(router) = self.routers.get_mut(&from) else { return false };
        let before = router.neighbors.len();
        for address in to {
            if let Ok(at) = router.neighbors.binary_search_by(|e| e.to.cmp(&address)) {
                router.neighbors.remove(at);
            }
        }
        router.neighbors.len() != before
    }

    /// Removes what has expired (§17.5); `true` if anything was.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        if self.next_expiry > now {
            return false;
        }
        let mut changed = false;
        self.next_expiry = Instant::FAR_FUTURE;
        let next = &mut self.next_expiry;
        self.routers.retain(|_, router| {
            if router.expires <= now {
                changed = true;
                return false;
            }
            let before = (router.neighbors.len(), router.networks.len());
            router.neighbors.retain(|e| e.expires > now);
            router.networks.retain(|n| n.expires > now);
            changed |= before != (router.neighbors.len(), router.networks.len());
            let edges = router.neighbors.iter().map(|e| e.expires);
            let times = edges.chain(router.networks.iter().map(|n| n.expires));
            *next = times.fold(router.expires.min(*next), Instant::min);
            true
        });
        changed
    }
}

/// Puts `new` where the search ended, or removes what is there; `true` if that changed the content.
fn put<T>(
    list: &mut Vec<T>,
    at: Result<usize, usize>,
    new: Option<T>,
    same: impl Fn(&T, &T) -> bool,
) -> bool {
    match (at, new) {
        (Ok(at), Some(new)) => list.get_mut(at).is_some_and(|old| {
            let changed = !same(old, &new);
            *old = new;
            changed
        }),
        (Err(at), Some(new)) => {
            list.insert(at, new);
            true
        }
        (Ok(at), None) => {
            list.remove(at);
            true
        }
        (Err(_), None) => false,
    }
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
        assert!(t.get(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, 5])).is_some());
    }
}

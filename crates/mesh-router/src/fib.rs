//! The kernel's routes: what the instances want, applied idempotently, new before old.
//!
//! Every route of ours has one protocol number and one metric in one table, so the kernel replaces it in
//! place, ours are told from others' after a restart, and a route set by hand (metric 0 or 1024) wins.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mesh_sys::netlink::{Error, Route, RouteFilter, RouteKind, Rtnetlink, TABLE_MAIN};
use mesh_types::{Duration, Instant};
use olsrv2::NetAddr;

/// Our number among the kernel's route makers (`/etc/iproute2/rt_protos.d`: "p2pmesh").
pub(crate) const PROTOCOL: u8 = 107;
/// The kernel's metric of our routes.
const METRIC: u32 = 1990;
/// The metric of the route that answers for our own prefix where no interface has it.
const METRIC_UNREACHABLE: u32 = 0x7fff_ffff;
/// How often all routes are compared with the kernel's.
const CHECK: Duration = Duration::from_secs(60);
/// How soon after a route was refused.
const RETRY: Duration = Duration::from_secs(1);

/// What the kernel does for us; a trait so that tests can stand in for it.
pub(crate) trait Kernel {
    fn replace(&mut self, route: &Route) -> Result<(), Error>;
    fn remove(&mut self, route: &Route) -> Result<(), Error>;
    /// All routes of our protocol and table.
    fn list(&mut self) -> Result<Vec<Route>, Error>;
}

impl Kernel for Rtnetlink {
    fn replace(&mut self, route: &Route) -> Result<(), Error> {
        self.replace_route(route)
    }
    fn remove(&mut self, route: &Route) -> Result<(), Error> {
        self.remove_route(route)
    }
    fn list(&mut self) -> Result<Vec<Route>, Error> {
        self.routes(&RouteFilter { table: TABLE_MAIN, protocol: Some(PROTOCOL) })
    }
}

/// An instance's route as the kernel wants it. `source` is the instance's originator.
pub(crate) fn kernel_route(route: &olsrv2::Route, source: IpAddr) -> Route {
    let prefix = route.prefix.network();
    let to_neighbor = prefix.is_host() && prefix.ip() == route.next_hop;
    Route {
        kind: RouteKind::Unicast,
        prefix: prefix.ip(),
        prefix_len: prefix.prefix_len(),
        gateway: (!to_neighbor).then_some(route.next_hop),
        index: route.interface,
        source: Some(source),
        metric: METRIC,
        table: TABLE_MAIN,
        protocol: PROTOCOL,
    }
}

/// Answers "unreachable" for what is in our own prefix and nowhere, instead of sending it in circles.
pub(crate) fn own_prefix_route(prefix: NetAddr) -> Route {
    Route {
        kind: RouteKind::Unreachable,
        prefix: prefix.ip(),
        prefix_len: prefix.prefix_len(),
        gateway: None,
        index: 0,
        source: None,
        metric: METRIC_UNREACHABLE,
        table: TABLE_MAIN,
        protocol: PROTOCOL,
    }
}

type Key = (IpAddr, u8);

/// The routes wanted and the routes given to the kernel.
#[derive(Debug)]
pub(crate) struct Fib {
    wanted: BTreeMap<Key, Route>,
    installed: BTreeMap<Key, Route>,
    dirty: BTreeSet<Key>,
    /// Found at the start: kept until the instances have had time to learn the mesh again.
    inherited: BTreeSet<Route>,
    keep_inherited_until: Instant,
    next_check: Instant,
    /// Refused at the last try, with the kernel's words.
    refused: BTreeMap<Key, String>,
    /// Kernel calls that failed, since the start.
    pub(crate) failures: u64,
}

impl Fib {
    /// Takes over what an earlier run left; it stays for `grace` unless replaced.
    pub(crate) fn new(kernel: &mut impl Kernel, now: Instant, grace: Duration) -> Result<Self, Error> {
        let inherited: BTreeSet<Route> = kernel.list()?.into_iter().collect();
        let keep_inherited_until = now + grace;
        Ok(Self {
            wanted: BTreeMap::new(),
            installed: BTreeMap::new(),
            dirty: BTreeSet::new(),
            inherited,
            keep_inherited_until,
            next_check: keep_inherited_until,
            refused: BTreeMap::new(),
            failures: 0,
        })
    }

    /// Wants a route, in place of one for the same prefix; takes effect at [`Fib::commit`].
    pub(crate) fn set(&mut self, route: Route) {
        let key = (route.prefix, route.prefix_len);
        if self.wanted.insert(key, route) != Some(route) {
            self.dirty.insert(key);
        }
    }

    /// Wants no route for a prefix any more.
    pub(crate) fn unset(&mut self, prefix: NetAddr) {
        let prefix = prefix.network();
        let key = (prefix.ip(), prefix.prefix_len());
        if self.wanted.remove(&key).is_some() {
            self.dirty.insert(key);
        }
    }

    /// The number of routes wanted.
    pub(crate) fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Tells the kernel what changed: first what is new or different, then what is gone.
    pub(crate) fn commit(&mut self, kernel: &mut impl Kernel, now: Instant) {
        let dirty = std::mem::take(&mut self.dirty);
        for key in &dirty {
            if let Some(route) = self.wanted.get(key).copied() {
                self.install(kernel, *key, route, now);
            }
        }
        for key in dirty {
            if !self.wanted.contains_key(&key) {
                self.refused.remove(&key);
                if let Some(old) = self.installed.remove(&key) {
                    self.remove(kernel, &old);
                }
            }
        }
    }

    fn install(&mut self, kernel: &mut impl Kernel, key: Key, route: Route, now: Instant) {
        match kernel.replace(&route) {
            Ok(()) => {
                // With another metric (the unreachable one) it did not replace the old one.
                let old = self.installed.insert(key, route).filter(|old| old.metric != route.metric);
                if let Some(old) = old {
                    self.remove(kernel, &old);
                }
                self.inherited.retain(|r| (r.prefix, r.prefix_len, r.metric) != (key.0, key.1, route.metric));
                self.refused.remove(&key);
            }
            Err(e) => {
                self.failures += 1;
                self.next_check = self.next_check.min(now + RETRY);
                let text = format!("route to {}/{}: {e}", route.prefix, route.prefix_len);
                if self.refused.insert(key, text.clone()).is_none() {
                    log::warn!("{text}; it is tried again");
                }
            }
        }
    }

    fn remove(&mut self, kernel: &mut impl Kernel, route: &Route) {
        if let Err(e) = kernel.remove(route) {
            self.failures += 1;
            log::warn!("removing the route to {}/{}: {e}", route.prefix, route.prefix_len);
        }
    }

    /// When [`Fib::check`] is due.
    pub(crate) const fn next_check(&self) -> Instant {
        self.next_check
    }

    /// Asks for a comparison with the kernel at once.
    pub(crate) const fn check_soon(&mut self, now: Instant) {
        self.next_check = now;
    }

    /// Compares with the kernel: puts back what is missing, removes what is ours and not wanted. Routes
    /// that an earlier run left are spared until their time is over.
    pub(crate) fn check(&mut self, kernel: &mut impl Kernel, now: Instant) {
        self.next_check = now + CHECK;
        let present: BTreeSet<Route> = match kernel.list() {
            Ok(list) => list.into_iter().collect(),
            Err(e) => {
                self.failures += 1;
                log::warn!("listing the kernel's routes: {e}");
                return;
            }
        };
        let wanted: Vec<(Key, Route)> = self.wanted.iter().map(|(k, r)| (*k, *r)).collect();
        for (key, route) in wanted {
            if !present.contains(&route) {
                self.install(kernel, key, route, now);
            }
        }
        if now >= self.keep_inherited_until {
            self.inherited.clear();
        } else {
            self.next_check = self.next_check.min(self.keep_inherited_until);
        }
        for route in present {
            let ours =
                self.wanted.get(&(route.prefix, route.prefix_len)).is_some_and(|w| w.metric == route.metric);
            if !ours && !self.inherited.contains(&route) {
                self.remove(kernel, &route);
            }
        }
    }

    /// Removes everything of ours, also what an earlier run left.
    pub(crate) fn clear(&mut self, kernel: &mut impl Kernel) {
        self.wanted.clear();
        self.installed.clear();
        match kernel.list() {
            Ok(list) => list.iter().for_each(|r| self.remove(kernel, r)),
            Err(e) => log::warn!("listing the kernel's routes: {e}"),
        }
    }

    /// What the kernel refuses, for people.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &str> {
        self.refused.values().map(String::as_str)
    }
}

#[cfg(test)]
mod tests;

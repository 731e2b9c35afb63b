//! The kernel's routes: what the instances want, applied idempotently, new before old, many at a time.
//!
//! The routes of the mesh are asked from the instances whenever they matter: a copy of them would be a large part of
//! what a large mesh costs in memory. Every route of ours has one protocol number and is in one table of our own (`rules` says when the kernel
//! asks it), so it is replaced in place, ours are told from others' after a restart, and nobody else's
//! routes are touched.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mesh_sys::netlink::{Change, Error, Route, RouteFilter, RouteKind, Rtnetlink};
use mesh_types::{Duration, Instant};
use olsrv2::{NetAddr, Way};

use crate::instance::Instance;
use crate::rules::TABLE;
use crate::tunnels::{ENDS, OWN};

/// Our number among the kernel's route makers (`/etc/iproute2/rt_protos.d`: "p2pmesh").
pub(crate) const PROTOCOL: u8 = 107;
/// The kernel's metric of our routes.
pub(crate) const METRIC: u32 = 1024;
/// The metric of the route that answers for our own prefix where no interface has it.
pub(crate) const METRIC_UNREACHABLE: u32 = 0x7fff_ffff;
/// How often all routes are compared with the kernel's.
const CHECK: Duration = Duration::from_secs(60);
/// Whoever has neighbours is told of all routers by them, at once; so long after the last new route the mesh is
/// known again after a restart.
const CALM: Duration = Duration::from_secs(5);
/// So many changes are carried out at once.
const BATCH: usize = 100;
/// How soon after a route was refused.
const RETRY: Duration = Duration::from_secs(1);

/// What the kernel does for us; a trait so that tests can stand in for it.
pub(crate) trait Kernel {
    /// Carries out changes in their order; what became of each.
    fn apply(&mut self, changes: &[Change]) -> Result<Vec<Result<(), Error>>, Error>;
    /// Tells all routes of our protocol and tables; whether each came once only.
    fn list(&mut self, each: &mut dyn FnMut(Route)) -> Result<bool, Error>;
}

impl Kernel for Rtnetlink {
    fn apply(&mut self, changes: &[Change]) -> Result<Vec<Result<(), Error>>, Error> {
        self.change_routes(changes)
    }
    fn list(&mut self, each: &mut dyn FnMut(Route)) -> Result<bool, Error> {
        let mut once = true;
        for table in [TABLE, OWN, ENDS] {
            once &= self.each_route(&RouteFilter { table, protocol: Some(PROTOCOL) }, each)?;
        }
        Ok(once)
    }
}

/// Who knows which routes the mesh wants, one for each prefix.
pub(crate) trait Mesh {
    /// The one to that prefix.
    fn route(&self, prefix: NetAddr) -> Option<Route>;
    /// All of them.
    fn routes(&self) -> impl Iterator<Item = Route> + '_;
}

impl Mesh for Vec<Instance> {
    fn route(&self, prefix: NetAddr) -> Option<Route> {
        self.iter().find_map(|i| Some(kernel_route(prefix, i.router.route(prefix)?.way(), i.originator())))
    }
    fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.iter().flat_map(|i| i.router.routes().map(|r| kernel_route(r.prefix, r.way(), i.originator())))
    }
}

/// Prefix, its length, and table; all of ours have small numbers.
type Key = (IpAddr, u8, u8);

const fn key(route: &Route) -> Key {
    (route.prefix, route.prefix_len, route.table as u8)
}

/// An instance's route as the kernel wants it. `source` is the instance's originator.
pub(crate) fn kernel_route(prefix: NetAddr, way: Way, source: IpAddr) -> Route {
    let prefix = prefix.network();
    let to_neighbor = prefix.is_host() && prefix.ip() == way.next_hop;
    Route {
        kind: RouteKind::Unicast,
        prefix: prefix.ip(),
        prefix_len: prefix.prefix_len(),
        gateway: (!to_neighbor).then_some(way.next_hop),
        index: way.interface,
        source: Some(source),
        metric: METRIC,
        table: TABLE,
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
        table: TABLE,
        protocol: PROTOCOL,
    }
}

/// The routes wanted beside those of the mesh, and how what the kernel has differs from all that is wanted.
#[derive(Debug)]
pub(crate) struct Fib {
    /// A few.
    own: Vec<Route>,
    /// Where the kernel has not what is wanted: what it has, as far as is known.
    amiss: BTreeMap<Key, Option<Route>>,
    /// What changed since the last commit, in the order the core gave it: near before far for routes that
    /// come, far before near for those that go. What it changed and did not say yet may be carried out early.
    dirty: Vec<Key>,
    /// Found at the start: kept until the instances have had time to learn the mesh again.
    inherited: BTreeSet<Route>,
    keep_inherited_until: Instant,
    /// The latest that this can be.
    grace_ends: Instant,
    next_check: Instant,
    /// Refused at the last try, with the kernel's words.
    refused: BTreeMap<Key, String>,
    /// Kernel calls that failed, since the start.
    pub(crate) failures: u64,
}

impl Fib {
    /// Takes over what an earlier run left; what is not replaced stays until no new route has come for [`CALM`]
    /// after the first, for `grace` at the most.
    pub(crate) fn new(kernel: &mut impl Kernel, now: Instant, grace: Duration) -> Result<Self, Error> {
        let mut inherited = BTreeSet::new();
        kernel.list(&mut |route| inherited.extend([route]))?;
        let keep_inherited_until = now + grace;
        Ok(Self {
            own: Vec::new(),
            amiss: BTreeMap::new(),
            dirty: Vec::new(),
            inherited,
            keep_inherited_until,
            grace_ends: keep_inherited_until,
            next_check: keep_inherited_until,
            refused: BTreeMap::new(),
            failures: 0,
        })
    }

    /// Wants a route, in place of one for the same prefix; takes effect at [`Fib::commit`].
    pub(crate) fn set(&mut self, route: Route) {
        let (key, old) = (key(&route), self.take(&key(&route)));
        self.own.push(route);
        if old != Some(route) {
            self.changed(key, old);
        }
    }

    /// Wants no route in the place of that one any more.
    pub(crate) fn unset(&mut self, route: &Route) {
        let key = key(route);
        if let Some(old) = self.take(&key) {
            self.changed(key, Some(old));
        }
    }

    fn take(&mut self, place: &Key) -> Option<Route> {
        let at = self.own.iter().position(|route| key(route) == *place)?;
        Some(self.own.swap_remove(at))
    }

    /// The mesh wants another route to a prefix than that.
    pub(crate) fn mesh_changed(&mut self, prefix: NetAddr, old: Option<Route>) {
        let prefix = prefix.network();
        self.changed((prefix.ip(), prefix.prefix_len(), TABLE as u8), old);
    }

    fn wanted(&self, mesh: &impl Mesh, place: &Key) -> Option<Route> {
        let (prefix, len, table) = *place;
        let of_mesh = || mesh.route(NetAddr::new(prefix, len)).filter(|_| table == TABLE as u8);
        self.own.iter().find(|route| key(route) == *place).copied().or_else(of_mesh)
    }

    /// Whether the kernel has it, as far as is known.
    pub(crate) fn has(&self, mesh: &impl Mesh, route: &Route) -> bool {
        let key = key(route);
        self.amiss.get(&key).copied().unwrap_or_else(|| self.wanted(mesh, &key)) == Some(*route)
    }

    /// The route wanted is another now; the kernel has what was wanted before.
    fn changed(&mut self, key: Key, old: Option<Route>) {
        self.amiss.entry(key).or_insert(old);
        self.dirty.push(key);
    }

    /// The kernel says that a route of ours is gone. True if it should not be: commit puts it back.
    pub(crate) fn gone(&mut self, mesh: &impl Mesh, route: &Route) -> bool {
        let key = key(route);
        let ours = self.has(mesh, route) && self.wanted(mesh, &key) == Some(*route);
        if ours {
            self.amiss.insert(key, None);
            self.dirty.push(key);
        }
        ours
    }

    /// The number of routes wanted.
    pub(crate) fn count(&self, mesh: &impl Mesh) -> usize {
        self.own.len() + mesh.routes().count()
    }

    /// Tells the kernel what changed: first what is new or different, then what is gone.
    pub(crate) fn commit(&mut self, kernel: &mut impl Kernel, mesh: &impl Mesh, now: Instant) {
        if self.dirty.is_empty() {
            return;
        }
        let mut seen = BTreeSet::new();
        let dirty: Vec<Key> =
            std::mem::take(&mut self.dirty).into_iter().filter(|key| seen.insert(*key)).collect();
        let mut changes = Vec::new();
        let mut leftovers = Vec::new();
        for key in &dirty {
            let (Some(old), new) = (self.amiss.get(key).copied(), self.wanted(mesh, key)) else { continue };
            if old == new {
                self.amiss.remove(key);
                continue;
            }
            changes.extend(new.map(Change::Replace));
            // With another metric (the unreachable one) the new one does not replace it.
            let left = old.filter(|old| new.is_none_or(|new| new.metric != old.metric));
            leftovers.extend(left.map(Change::Remove));
            if new.is_none() {
                self.refused.remove(key);
            }
        }
        let learnt = |c: &Change| matches!(c, Change::Replace(r) if r.kind == RouteKind::Unicast);
        if !self.inherited.is_empty() && changes.iter().any(learnt) {
            self.keep_inherited_until = self.grace_ends.min(now + CALM);
            self.next_check = self.next_check.min(self.keep_inherited_until);
        }
        changes.append(&mut leftovers);
        self.apply(kernel, mesh, &changes, now);
    }

    /// Carries out changes and notes what became of them.
    fn apply(&mut self, kernel: &mut impl Kernel, mesh: &impl Mesh, changes: &[Change], now: Instant) {
        for batch in changes.chunks(BATCH) {
            match kernel.apply(batch) {
                Ok(results) => {
                    let results = batch.iter().zip(results);
                    results.for_each(|(change, result)| self.note(mesh, change, result, now));
                }
                Err(e) => {
                    self.failures += 1;
                    self.next_check = self.next_check.min(now + RETRY);
                    log::warn!(
                        "changing {} routes: {e}; they are compared with the kernel's soon",
                        batch.len()
                    );
                }
            }
        }
    }

    fn note(&mut self, mesh: &impl Mesh, change: &Change, result: Result<(), Error>, now: Instant) {
        match (change, result) {
            (Change::Replace(route), Ok(())) => {
                let key = key(route);
                self.amiss.remove(&key);
                self.inherited.retain(|r| (self::key(r), r.metric) != (key, route.metric));
                self.refused.remove(&key);
            }
            (Change::Replace(route), Err(e)) => self.was_refused(route, &e, now),
            (Change::Remove(route), result) => {
                let key = key(route);
                if self.amiss.get(&key) == Some(&Some(*route)) {
                    match self.wanted(mesh, &key) {
                        None => drop(self.amiss.remove(&key)),
                        Some(_) => drop(self.amiss.insert(key, None)),
                    }
                }
                if let Err(e) = result {
                    self.failures += 1;
                    log::warn!("removing the route to {}/{}: {e}", route.prefix, route.prefix_len);
                }
            }
        }
    }

    fn was_refused(&mut self, route: &Route, error: &Error, now: Instant) {
        self.failures += 1;
        self.next_check = self.next_check.min(now + RETRY);
        let text = format!("route to {}/{}: {error}", route.prefix, route.prefix_len);
        if self.refused.insert(key(route), text.clone()).is_none() {
            log::warn!("{text}; it is tried again");
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
    pub(crate) fn check(&mut self, kernel: &mut impl Kernel, mesh: &impl Mesh, now: Instant) {
        self.next_check = now + CHECK;
        if now >= self.keep_inherited_until {
            self.inherited.clear();
        } else {
            self.next_check = self.next_check.min(self.keep_inherited_until);
        }
        if let Err(e) = self.compare(kernel, mesh, now) {
            self.failures += 1;
            log::warn!("listing the kernel's routes: {e}");
        }
    }

    fn compare(&mut self, kernel: &mut impl Kernel, mesh: &impl Mesh, now: Instant) -> Result<(), Error> {
        // Nothing is kept of the routes that are as they should be: mostly all of them.
        let (mut right, mut wrong) = (0, Vec::new());
        let once = kernel.list(&mut |route| match self.wanted(mesh, &key(&route)) == Some(route) {
            true => right += 1,
            false => wrong.push(route),
        })?;
        self.amiss.clear();
        let mut changes = Vec::new();
        if !once || right != self.count(mesh) {
            let mut present = BTreeSet::new();
            kernel.list(&mut |route| present.extend([route]))?;
            let wanted = self.own.iter().copied().chain(mesh.routes());
            for route in wanted.filter(|route| !present.contains(route)) {
                let other = wrong.iter().find(|w| key(w) == key(&route));
                self.amiss.insert(key(&route), other.copied());
                changes.push(Change::Replace(route));
            }
        }
        let stays = |route: &Route| {
            let same_slot = self.wanted(mesh, &key(route)).is_some_and(|w| w.metric == route.metric);
            same_slot || self.inherited.contains(route)
        };
        changes.extend(wrong.into_iter().filter(|route| !stays(route)).map(Change::Remove));
        self.apply(kernel, mesh, &changes, now);
        Ok(())
    }

    /// Removes everything of ours, also what an earlier run left.
    pub(crate) fn clear(&mut self, kernel: &mut impl Kernel, mesh: &impl Mesh, now: Instant) {
        self.own.clear();
        self.amiss.clear();
        self.dirty.clear();
        let mut all = Vec::new();
        match kernel.list(&mut |route| all.push(Change::Remove(route))) {
            Ok(_) => self.apply(kernel, mesh, &all, now),
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

//! The Topology Information Base (RFC 7181 §9, §16.3.3, §16.3.4).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant, Metric};
use rfc5444::NetAddr;

use crate::names::{Name, Names};
use crate::shares::{Giver, Room, Shares};
use crate::tc::{ORIGINATOR, ROUTABLE, Tc, newer};
use crate::tunnel::{MAX_NOTES, Note, NoteView};

/// An Advertising Remote Router Tuple and all that hangs on it.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    /// AR_seq_number.
    ansn: u16,
    /// The neighbour whose share it is in.
    giver: Giver,
    /// When it came, counted in routers.
    born: u32,
    /// AR_time.
    expires: Instant,
    /// Router Topology and Routable Address Topology Tuples, by name.
    pub(crate) neighbors: Vec<Edge>,
    /// Attached Network Tuples, by name.
    pub(crate) networks: Vec<Network>,
}

impl Router {
    fn tuples(&self) -> usize {
        self.neighbors.len() + self.networks.len()
    }
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
    /// For want of room something is missing, or others had to go.
    pub(crate) full: bool,
    /// It was not let in at all.
    pub(crate) refused: bool,
    /// The originator was not known before.
    pub(crate) new: bool,
}

/// All that TCs told.
#[derive(Debug)]
pub(crate) struct Topology {
    pub(crate) names: Names,
    /// By the originator's name.
    routers: Vec<Option<Box<Router>>>,
    shares: Shares,
    born: u32,
    /// By originator, [`MAX_NOTES`] each: only gateways have any.
    notes: BTreeMap<Name, Vec<(NetAddr, Note)>>,
    next_expiry: Instant,
    /// Routers of which something changed; `None`: of many.
    changed: Option<Vec<Name>>,
}

/// More changed routers than this are not told one by one.
const MANY: usize = 64;
/// Tuples that every router has room for.
const TUPLES: usize = 16;
/// What a router weighs beside its tuples.
const ROUTER: usize = 8;
/// No TC is believed for longer, whatever it says.
pub(crate) const MAX_VALIDITY: Duration = Duration::from_secs(300);

/// What a router with so many tuples takes of the table.
fn weight(tuples: usize) -> u32 {
    u32::try_from(tuples.max(TUPLES) + ROUTER).unwrap_or(u32::MAX)
}

/// Who brought a TC, and who is there.
pub(crate) struct Brought<'a> {
    /// The symmetric neighbour that sent it: its originator address.
    pub(crate) by: IpAddr,
    /// Whether that is a symmetric neighbour now.
    pub(crate) alive: &'a dyn Fn(IpAddr) -> bool,
}

impl Topology {
    /// Room for `limit` routers with [`TUPLES`] tuples each, or for fewer larger ones.
    pub(crate) fn new(limit: usize) -> Self {
        let (names, routers) = (Names::default(), Vec::new());
        let capacity = weight(0).saturating_mul(u32::try_from(limit).unwrap_or(u32::MAX));
        let shares = Shares::new(capacity);
        let notes = BTreeMap::new();
        Self { names, routers, shares, notes, born: 0, next_expiry: Instant::FAR_FUTURE, changed: None }
    }

    /// All routers, by name.
    pub(crate) fn routers(&self) -> impl Iterator<Item = (Name, &Router)> {
        self.routers.iter().enumerate().filter_map(|(name, r)| Some((name as Name, &**r.as_ref()?)))
    }

    pub(crate) fn get(&self, originator: Name) -> Option<&Router> {
        self.routers.get(originator as usize)?.as_deref()
    }

    /// Who announces a network.
    pub(crate) fn announcers(&self, prefix: NetAddr) -> impl Iterator<Item = Name> {
        let wanted = self.names.find(prefix);
        let announces = move |r: &Router| r.networks.iter().any(|n| Some(n.prefix) == wanted);
        self.routers().filter(move |(_, r)| announces(r)).map(|(name, _)| name)
    }

    /// What is said of networks that are announced now.
    pub(crate) fn notes(&self) -> impl Iterator<Item = NoteView> {
        self.notes.iter().flat_map(move |(name, notes)| {
            let (router, networks) = (self.names.address(*name), self.get(*name).map(|r| &r.networks));
            notes.iter().filter_map(move |(prefix, note)| {
                networks?.iter().find(|n| self.names.address(n.prefix) == Some(*prefix))?;
                Some(NoteView { router: router?.ip(), prefix: *prefix, note: *note })
            })
        })
    }

    /// Nothing expires before this; `None` if nothing ever does.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        Some(self.next_expiry).filter(|t| *t != Instant::FAR_FUTURE)
    }

    /// Takes a valid TC in (§16.3.3, §16.3.4). `skip` tells addresses that are ours.
    pub(crate) fn apply(
        &mut self,
        now: Instant,
        tc: &Tc,
        brought: &Brought<'_>,
        skip: impl Fn(NetAddr) -> bool,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let Some((ansn, complete)) = tc.ansn else { return outcome };
        let expires = now + tc.validity.min(MAX_VALIDITY);
        let known = self.names.find(NetAddr::host(tc.originator)).filter(|n| self.get(*n).is_some());
        if known.and_then(|n| self.get(n)).is_some_and(|r| newer(r.ansn, ansn)) {
            // Somebody tells another story. If that is the router itself, what is believed was forged, and
            // keeps the truth out no longer than the router's own word holds.
            known.into_iter().for_each(|name| self.doubt(name, expires));
            return outcome;
        }
        let giver = self.shares.giver(brought.by);
        let Some((name, most)) = self.admit(tc, complete, known, giver, brought, &mut outcome) else {
            outcome.refused = true;
            return outcome;
        };
        self.next_expiry = self.next_expiry.min(expires);
        let Some(router) = self.routers.get_mut(name as usize).and_then(Option::as_mut) else {
            return outcome;
        };
        let before = weight(router.tuples());
        (router.ansn, router.expires) = (ansn, expires);
        if complete {
            // What it does not name goes.
            router.neighbors.iter_mut().for_each(|e| e.expires = Instant::ZERO);
            router.networks.iter_mut().for_each(|n| n.expires = Instant::ZERO);
        }
        let names = &mut self.names;
        for n in tc.neighbors.iter().filter(|n| !skip(n.address)) {
            let full = router.tuples() >= most;
            let edge = |to| Some(Edge { to, metric: n.metric?, expires, kind: n.kind });
            match put(&mut router.neighbors, names, n.address, full, edge) {
                Put::Changed => outcome.changed = true,
                Put::NoRoom => outcome.full = true,
                Put::Same => {}
            }
        }
        for g in tc.gateways.iter().filter(|g| !skip(g.prefix)) {
            let full = router.tuples() >= most;
            let network = |prefix| Some(Network { prefix, metric: g.metric?, expires, dist: g.dist });
            match put(&mut router.networks, names, g.prefix, full, network) {
                Put::Changed => outcome.changed = true,
                Put::NoRoom => outcome.full = true,
                Put::Same => {}
            }
        }
        if complete {
            outcome.changed |= keep(&mut router.neighbors, names, |t| t != Instant::ZERO);
            outcome.changed |= keep(&mut router.networks, names, |t| t != Instant::ZERO);
        }
        self.shares.change(router.giver, before, weight(router.tuples()));
        outcome.changed |= note(&mut self.notes, name, tc, complete);
        if outcome.changed {
            router.neighbors.shrink_to_fit();
            router.networks.shrink_to_fit();
            self.touch(name);
        }
        outcome
    }

    /// Finds room for what a TC brings: the router's name, and how many tuples it may have. `None`: none.
    fn admit(
        &mut self,
        tc: &Tc,
        complete: bool,
        known: Option<Name>,
        giver: Giver,
        brought: &Brought<'_>,
        outcome: &mut Outcome,
    ) -> Option<(Name, usize)> {
        let said = tc.neighbors.len() + tc.gateways.len();
        let own = tc.originator == brought.by;
        let Some(name) = known else {
            let room = self.shares.room(giver, weight(said), own, brought.alive);
            outcome.full = room != Room::Free;
            if !self.clear(room, None) {
                return None;
            }
            (outcome.changed, outcome.new) = (true, true);
            return Some((self.add(tc.originator, giver), usize::MAX));
        };
        if self.shares.crowded() {
            self.vouch(name, giver, brought);
        }
        let router = self.get(name)?;
        let (giver, before) = (router.giver, router.tuples());
        let after = if complete { said } else { said + before };
        let more = weight(after).saturating_sub(weight(before));
        let room = if more == 0 { Room::Free } else { self.shares.room(giver, more, own, brought.alive) };
        // A router that is there may always say a little.
        let most = if self.clear(room, Some(name)) { usize::MAX } else { TUPLES };
        Some((name, most))
    }

    /// A router counts for its giver's share until that one is gone, or has too much already and another
    /// neighbour, which brings it as well, has not.
    fn vouch(&mut self, name: Name, giver: Giver, brought: &Brought<'_>) {
        let Some(router) = self.routers.get_mut(name as usize).and_then(Option::as_mut) else { return };
        let (old, weight) = (router.giver, weight(router.tuples()));
        if old == giver {
            return;
        }
        let lost = !self.shares.is_alive(old, brought.alive);
        if lost || (self.shares.is_greedy(old) && self.shares.can_vouch(giver, weight)) {
            router.giver = giver;
            self.shares.change(old, weight, 0);
            self.shares.change(giver, 0, weight);
        }
    }

    /// A TC that was processed came from another neighbour as well.
    pub(crate) fn heard(&mut self, originator: IpAddr, brought: &Brought<'_>) {
        if !self.shares.crowded() {
            return;
        }
        if let Some(name) = self.names.find(NetAddr::host(originator)) {
            let giver = self.shares.giver(brought.by);
            self.vouch(name, giver, brought);
        }
    }

    /// What is known of a router holds until then at the most.
    fn doubt(&mut self, name: Name, until: Instant) {
        if let Some(router) = self.routers.get_mut(name as usize).and_then(Option::as_mut) {
            router.expires = router.expires.min(until);
            self.next_expiry = self.next_expiry.min(until);
        }
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

    fn add(&mut self, originator: IpAddr, giver: Giver) -> Name {
        let name = self.names.hold(NetAddr::host(originator));
        self.routers.resize(self.names.len().max(self.routers.len()), None);
        self.born = self.born.wrapping_add(1);
        let router = Router {
            ansn: 0,
            giver,
            born: self.born,
            expires: Instant::ZERO,
            neighbors: Vec::new(),
            networks: Vec::new(),
        };
        if let Some(slot) = self.routers.get_mut(name as usize) {
            *slot = Some(Box::new(router));
            self.shares.change(giver, 0, weight(0));
        }
        name
    }

    /// Makes the room that is wanted; `false` if there is none. `but` stays whatever happens.
    fn clear(&mut self, room: Room, but: Option<Name>) -> bool {
        let (from, least, most) = match room {
            Room::Free => return true,
            Room::Refused => return false,
            Room::From { giver, least, most } => (giver, least, most),
        };
        let theirs = self.routers().filter(|(name, r)| r.giver == from && Some(*name) != but);
        let mut theirs: Vec<(u32, Name, u32)> =
            theirs.map(|(name, r)| (r.born, name, weight(r.tuples()))).collect();
        theirs.sort_unstable();
        // Looking at all costs the same for one as for many.
        let enough = least.max(self.shares.share() / 64).min(most);
        let mut cleared = 0u32;
        while let Some((_, name, weight)) = theirs.pop().filter(|_| cleared < enough) {
            cleared = cleared.saturating_add(weight);
            self.remove(name);
        }
        cleared >= least
    }

    fn remove(&mut self, name: Name) {
        let Some(router) = self.routers.get_mut(name as usize).and_then(Option::take) else { return };
        self.shares.change(router.giver, weight(router.tuples()), 0);
        self.notes.remove(&name);
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
        let weighed = weight(router.tuples());
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
            self.shares.change(router.giver, weighed, weight(router.tuples()));
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
            let weighed = weight(router.tuples());
            let fewer = keep(&mut router.neighbors, &mut self.names, |t| t > now);
            if keep(&mut router.networks, &mut self.names, |t| t > now) || fewer {
                thinner.push(name);
                self.shares.change(router.giver, weighed, weight(router.tuples()));
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

/// For tests that are not about who brought what.
#[cfg(test)]
pub(crate) const ANYONE: Brought<'static> =
    Brought { by: IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), alive: &|_| true };

/// Keeps what a TC says of networks; `true` if that is news. What it does not say of one it names is taken
/// back, a complete TC takes back all else.
fn note(notes: &mut BTreeMap<Name, Vec<(NetAddr, Note)>>, router: Name, tc: &Tc, complete: bool) -> bool {
    let before = notes.remove(&router).unwrap_or_default();
    let stays = |(prefix, _): &&(NetAddr, Note)| !complete && tc.gateways.iter().all(|g| g.prefix != *prefix);
    let kept = before.iter().filter(stays).chain(&tc.notes);
    let after: Vec<(NetAddr, Note)> = kept.copied().take(MAX_NOTES).collect();
    let changed = after != before;
    if !after.is_empty() {
        notes.insert(router, after);
    }
    changed
}

/// Up to here looking at each is faster than searching.
const FEW: usize = 16;

/// What [`put`] did.
enum Put {
    Same,
    Changed,
    NoRoom,
}

/// Puts what `make` makes of the address' name into the list, or removes what is there if it makes
/// nothing. A `full` list takes nothing new.
fn put<T: Tuple>(
    list: &mut Vec<T>,
    names: &mut Names,
    address: NetAddr,
    full: bool,
    make: impl Fn(Name) -> Option<T>,
) -> Put {
    let at = if list.len() <= FEW {
        list.iter().position(|t| names.address(t.name()) == Some(address))
    } else {
        names.find(address).and_then(|name| list.binary_search_by_key(&name, T::name).ok())
    };
    let name = at.and_then(|at| list.get(at)).map_or(0, T::name);
    match (at, make(name)) {
        (Some(at), Some(new)) => {
            let same = list.get_mut(at).is_none_or(|old| {
                let same = old.same(&new);
                *old = new;
                same
            });
            if same { Put::Same } else { Put::Changed }
        }
        (None, Some(_)) if full => Put::NoRoom,
        (None, Some(_)) => {
            let name = names.hold(address);
            let at = list.binary_search_by_key(&name, T::name).unwrap_or_else(|at| at);
            make(name).into_iter().for_each(|new| list.insert(at, new));
            Put::Changed
        }
        (Some(at), None) => {
            names.release(list.remove(at).name());
            Put::Changed
        }
        (None, None) => Put::Same,
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
            notes: Vec::new(),
        }
    }

    fn edges(t: &Topology) -> usize {
        t.routers().map(|(_, r)| r.neighbors.len()).sum()
    }

    #[test]
    fn rfc7181_16_3_3_1_an_older_ansn_is_discarded() {
        let mut t = Topology::new(10);
        let now = Instant::from_millis(1);
        assert!(t.apply(now, &tc(5, true, &["fd00::1"]), &ANYONE, |_| false).changed);
        assert!(!t.apply(now, &tc(4, true, &["fd00::2"]), &ANYONE, |_| false).changed);
        assert!(!t.apply(now, &tc(5, true, &["fd00::1"]), &ANYONE, |_| false).changed);
        assert_eq!(edges(&t), 1);
    }

    #[test]
    fn rfc7181_16_3_4_a_complete_tc_replaces_an_incomplete_one_adds() {
        let mut t = Topology::new(10);
        let now = Instant::from_millis(1);
        t.apply(now, &tc(5, true, &["fd00::1"]), &ANYONE, |_| false);
        assert!(t.apply(now, &tc(6, false, &["fd00::2"]), &ANYONE, |_| false).changed);
        assert_eq!(edges(&t), 2);
        assert!(t.apply(now, &tc(7, true, &["fd00::2"]), &ANYONE, |_| false).changed);
        assert_eq!(edges(&t), 1);
        let mut gone = tc(8, false, &["fd00::2"]);
        gone.neighbors[0].metric = None;
        assert!(t.apply(now, &gone, &ANYONE, |_| false).changed, "UNKNOWN_METRIC removes");
        assert_eq!(edges(&t), 0);
    }

    #[test]
    fn rfc7181_17_5_expiry_takes_everything() {
        let mut t = Topology::new(10);
        let mut with_net = tc(5, true, &["fd00::1"]);
        with_net.gateways.push(Gateway { prefix: net("fd01::"), dist: 0, metric: Some(Metric::MIN) });
        t.apply(Instant::ZERO, &with_net, &ANYONE, |_| false);
        assert!(!t.expire(Instant::from_millis(14_999)));
        assert_eq!(t.next_expiry(), Some(Instant::from_millis(15_000)));
        assert!(t.expire(Instant::from_millis(15_000)));
        assert_eq!((t.routers().count(), t.next_expiry()), (0, None));
    }

    fn name(n: u16) -> IpAddr {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, n])
    }

    /// A TC of router `n` with so many tuples, brought by a neighbour; all neighbours are there.
    fn bring(t: &mut Topology, by: u8, n: u16, tuples: usize) -> Outcome {
        let to: Vec<alloc::string::String> = (0..tuples).map(|i| alloc::format!("fd01::{n}:{i:x}")).collect();
        let to: Vec<&str> = to.iter().map(|a| &**a).collect();
        let ansn = t.names.find(NetAddr::host(name(n))).and_then(|name| t.get(name)).map_or(0, |r| r.ansn);
        let tc = Tc { originator: name(n), ..tc(ansn.wrapping_add(1), true, &to) };
        let brought = Brought { by: IpAddr::from([10, 0, 0, by]), alive: &|_| true };
        t.apply(Instant::from_millis(1), &tc, &brought, |_| false)
    }

    fn has(t: &Topology, n: u16) -> bool {
        t.names.find(NetAddr::host(name(n))).is_some_and(|name| t.get(name).is_some())
    }

    #[test]
    fn a_full_table_lets_in_what_comes_by_another_neighbour_and_the_youngest_of_the_greedy_one_goes() {
        let mut t = Topology::new(64);
        for n in 0..64 {
            assert!(!bring(&mut t, 1, n, 0).full);
        }
        for n in 64..1000 {
            assert!(bring(&mut t, 1, n, 0).refused && !has(&t, n));
        }
        // A sixteenth is every neighbour's own.
        for (n, in_) in [(2000, true), (2001, true), (2002, true), (2003, true), (2004, false)] {
            let outcome = bring(&mut t, 2, n, 1);
            assert_eq!((!outcome.refused, has(&t, n)), (in_, in_), "{n}");
        }
        assert!((0..60).all(|n| has(&t, n)) && (60..64).all(|n| !has(&t, n)));
        assert_eq!(t.routers().count(), 64);
        for n in 0..60 {
            let again = bring(&mut t, 1, n, 0);
            assert!(!again.full && !again.refused, "who is there stays, whoever brings it");
        }
    }

    #[test]
    fn a_full_table_bounds_tuples_and_every_router_there_may_say_a_little() {
        let mut t = Topology::new(64);
        assert!(!bring(&mut t, 2, 5000, 1).full);
        let refused = (0..64).filter(|n| bring(&mut t, 1, *n, 500).refused).count();
        assert!(refused > 58 && edges(&t) <= 64 * 24);
        assert!((64..128).all(|n| !bring(&mut t, 3, n, 17).refused || has(&t, 64)));
        let grown = bring(&mut t, 2, 5000, 16);
        assert!(!grown.full && grown.changed);
        assert!(edges(&t) <= 64 * 24);
    }

    #[test]
    fn who_left_has_no_share_and_its_routers_go_over_to_those_who_bring_them() {
        let mut t = Topology::new(64);
        for n in 0..60 {
            bring(&mut t, 1, n, 0);
        }
        let brought =
            Brought { by: IpAddr::from([10, 0, 0, 2]), alive: &|a| a != IpAddr::from([10, 0, 0, 1]) };
        for n in 0..60 {
            t.heard(name(n), &brought);
        }
        let only = t.routers().map(|(_, r)| r.giver).max();
        assert!(t.routers().all(|(_, r)| Some(r.giver) == only));
    }

    #[test]
    fn a_neighbours_own_word_counts_whatever_else_it_brought() {
        let mut t = Topology::new(64);
        assert!((0..64).all(|n| !bring(&mut t, 1, n, 0).full));
        let own = Tc { originator: IpAddr::from([10, 0, 0, 1]), ..tc(1, true, &["fd00::1"]) };
        let brought = Brought { by: own.originator, alive: &|_| true };
        assert!(!t.apply(Instant::ZERO, &own, &brought, |_| false).refused);
        assert!(!has(&t, 63) && t.routers().count() == 64);
    }

    #[test]
    fn rfc7181_16_3_3_nothing_is_believed_for_longer_than_five_minutes() {
        let mut t = Topology::new(10);
        let long = Tc { validity: Duration::from_secs(4_000_000), ..tc(5, true, &["fd00::1"]) };
        t.apply(Instant::ZERO, &long, &ANYONE, |_| false);
        assert!(t.expire(Instant::ZERO + MAX_VALIDITY) && t.routers().count() == 0);
    }

    #[test]
    fn rfc7181_16_3_3_a_forged_ansn_lasts_no_longer_than_the_routers_own_word() {
        let mut t = Topology::new(10);
        let forged = Tc { validity: Duration::from_secs(4_000_000), ..tc(0x7000, true, &["fd00::7"]) };
        t.apply(Instant::from_millis(500), &tc(5, true, &["fd00::1"]), &ANYONE, |_| false);
        assert!(t.apply(Instant::from_millis(1000), &forged, &ANYONE, |_| false).changed);
        // Its own TCs say that they are good for 15 s.
        for ms in (5000..20_000).step_by(5000) {
            let own = tc(6, true, &["fd00::1"]);
            assert!(!t.apply(Instant::from_millis(ms), &own, &ANYONE, |_| false).changed, "{ms}");
        }
        assert!(t.expire(Instant::from_millis(20_000)));
        assert!(t.apply(Instant::from_millis(20_000), &tc(6, true, &["fd00::1"]), &ANYONE, |_| false).new);
    }
}

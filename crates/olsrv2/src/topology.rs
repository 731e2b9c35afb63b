//! The Topology Information Base (RFC 7181 §9, §16.3.3, §16.3.4).
//!
//! It is most of what a large mesh costs in memory, so it is packed: an Advertising Remote Router Tuple is a small
//! record, and all that hangs on it a list of small tuples that name addresses by number; they hold as long as the
//! router, where they don't a table says so. The lists of all routers are one. The way back, from an
//! address to those who advertise it, is found through what it advertises itself, as most links are
//! advertised by both ends; where they are not, one of them is remembered in the address' own place, if it
//! is no router, the others in a set.

mod list;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::Range;

use mesh_types::{Duration, Instant, Metric};
use rfc5444::NetAddr;

use crate::names::{Name, Names, make_room};
use crate::relay::Last;
use crate::shares::{Giver, Room, Shares};
use crate::tc::{ORIGINATOR, ROUTABLE, Tc, newer};
use crate::tick::Tick;
use crate::tunnel::{MAX_NOTES, Note, NoteView};
use list::List;

/// An Advertising Remote Router Tuple.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// AR_seq_number.
    ansn: u16,
    /// The neighbour whose share it is in.
    giver: Giver,
    /// When it came, counted in routers.
    born: u32,
    /// AR_time.
    expires: Tick,
    /// Where in [`Topology::tuples`] what hangs on it is, and how many they are.
    first: u32,
    count: u32,
    /// Where it all comes from, for newcomers.
    last: Last,
}

impl Record {
    fn tuples(&self) -> Range<usize> {
        let first = self.first as usize;
        first..first + self.count as usize
    }
}

/// An Advertising Remote Router Tuple and all that hangs on it, to look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Router<'a> {
    record: &'a Record,
    /// Router Topology, Routable Address Topology and Attached Network Tuples, in the order of
    /// [`Tuple::key`].
    tuples: &'a [Tuple],
}

impl<'a> Router<'a> {
    /// Where it all comes from, for newcomers.
    pub(crate) fn last(self) -> &'a Last {
        &self.record.last
    }

    pub(crate) fn ansn(self) -> u16 {
        self.record.ansn
    }

    /// Router Topology and Routable Address Topology Tuples, by name.
    pub(crate) fn edges(self) -> impl Iterator<Item = Edge> + 'a {
        self.tuples.iter().filter_map(|t| t.edge())
    }

    /// Attached Network Tuples, by name.
    pub(crate) fn networks(self) -> impl Iterator<Item = Network> + 'a {
        self.tuples.iter().filter_map(|t| t.network())
    }

    /// AR_time.
    pub(crate) fn expires(self) -> Tick {
        self.record.expires
    }

    /// All it tells of.
    pub(crate) fn names(self) -> impl Iterator<Item = Name> + 'a {
        self.tuples.iter().map(|t| t.name())
    }

    /// What it advertises of an address.
    pub(crate) fn edge(self, to: Name) -> Option<Edge> {
        self.tuple(to).and_then(|t| t.edge())
    }

    /// What it announces of a network.
    pub(crate) fn network(self, prefix: Name) -> Option<Network> {
        self.tuple(prefix | NETWORK).and_then(|t| t.network())
    }

    fn tuple(self, key: u32) -> Option<&'a Tuple> {
        self.tuples.get(self.tuples.binary_search_by_key(&key, |t| t.key).ok()?)
    }

    /// Whether it advertises an address or announces a network.
    fn tells_of(self, name: Name) -> bool {
        self.tuple(name).is_some() || self.tuple(name | NETWORK).is_some()
    }
}

/// A Router Topology Tuple ([`ORIGINATOR`]), a Routable Address Topology Tuple ([`ROUTABLE`]) or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) to: Name,
    pub(crate) metric: Metric,
    kind: u8,
}

impl Edge {
    /// [`ORIGINATOR`] and [`ROUTABLE`].
    pub(crate) fn kind(&self) -> u8 {
        self.kind
    }
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
    pub(crate) dist: u8,
}

/// One of them as it is kept.
#[derive(Clone, Copy, Debug)]
struct Tuple {
    /// A name, and [`NETWORK`].
    key: u32,
    /// The metric, and in the lowest octet the kind or the distance.
    value: u32,
}

/// With its time, while a router's list is changed.
#[derive(Clone, Copy, Debug)]
struct Timed {
    tuple: Tuple,
    expires: Tick,
}

/// Of a key: the tuple is an Attached Network Tuple.
const NETWORK: u32 = 1 << 31;
/// A key of no tuple.
const LITTER: u32 = u32::MAX;

impl Tuple {
    fn edge(self) -> Option<Edge> {
        let edge = Edge { to: self.key, metric: Metric::new(self.value >> 8), kind: self.value as u8 };
        (self.key & NETWORK == 0).then_some(edge)
    }

    fn network(self) -> Option<Network> {
        let (prefix, metric) = (self.key & !NETWORK, Metric::new(self.value >> 8));
        (self.key & NETWORK != 0).then_some(Network { prefix, metric, dist: self.value as u8 })
    }

    fn name(self) -> Name {
        self.key & !NETWORK
    }
}

fn value(metric: Metric, octet: u8) -> u32 {
    metric.min(Metric::MAX_LINK).value() << 8 | u32::from(octet)
}

fn find(tuples: &[Timed], key: u32) -> Result<usize, usize> {
    tuples.binary_search_by_key(&key, |t| t.tuple.key)
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
    /// By name: the place in `routers`, or with [`TELLER`] the name of a router that tells of it.
    places: Vec<u32>,
    routers: Vec<Option<Record>>,
    free: Vec<u32>,
    /// Those of all routers, and how many of them are no router's any more.
    tuples: Vec<Tuple>,
    litter: usize,
    /// When tuples expire, by originator, in their order: where incomplete TCs told of some only.
    times: BTreeMap<Name, Box<[Tick]>>,
    /// Last TCs that can't be written again.
    pub(crate) whole: BTreeMap<Name, Box<[u8]>>,
    /// Room for a list that is changed.
    scratch: Vec<Timed>,
    /// Whom a router tells of that does not tell of it, as far as `places` does not say so: (to, from).
    one_way: BTreeSet<(Name, Name)>,
    shares: Shares,
    born: u32,
    /// TCs that came before are read again when they come again.
    pub(crate) anew: Option<Tick>,
    /// By originator, [`MAX_NOTES`] each: only gateways have any.
    notes: BTreeMap<Name, Vec<(NetAddr, Note)>>,
    next_expiry: Instant,
    /// What changed, from whom and to whom; `None`: more than is worth noting.
    changed: Option<Vec<(Name, Name)>>,
}

/// More changes than this are not told one by one.
const MANY: usize = 512;
const NOWHERE: u32 = u32::MAX;
/// Of a place: it is none, the rest is a name.
const TELLER: u32 = 1 << 31;
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
        let capacity = weight(0).saturating_mul(u32::try_from(limit).unwrap_or(u32::MAX));
        Self {
            names: Names::default(),
            places: Vec::new(),
            routers: Vec::new(),
            free: Vec::new(),
            tuples: Vec::new(),
            litter: 0,
            times: BTreeMap::new(),
            whole: BTreeMap::new(),
            scratch: Vec::new(),
            one_way: BTreeSet::new(),
            shares: Shares::new(capacity),
            born: 0,
            anew: None,
            notes: BTreeMap::new(),
            next_expiry: Instant::FAR_FUTURE,
            changed: None,
        }
    }

    /// All routers, by name.
    pub(crate) fn routers(&self) -> impl Iterator<Item = (Name, Router<'_>)> {
        (0..).zip(&self.places).filter_map(|(name, place)| Some((name, self.at(*place)?)))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.routers.len() - self.free.len()
    }

    pub(crate) fn get(&self, originator: Name) -> Option<Router<'_>> {
        self.at(*self.places.get(originator as usize)?)
    }

    fn at(&self, place: u32) -> Option<Router<'_>> {
        let record = self.routers.get(place as usize)?.as_ref()?;
        Some(Router { record, tuples: self.tuples.get(record.tuples()).unwrap_or_default() })
    }

    fn get_mut(&mut self, originator: Name) -> Option<&mut Record> {
        self.routers.get_mut(*self.places.get(originator as usize)? as usize)?.as_mut()
    }

    pub(crate) fn last_mut(&mut self, originator: Name) -> Option<&mut Last> {
        self.get_mut(originator).map(|r| &mut r.last)
    }

    /// All that advertise an address or announce a network.
    pub(crate) fn tellers_of(&self, name: Name) -> impl Iterator<Item = (Name, Router<'_>)> {
        self.possible_tellers(name).filter_map(move |n| Some((n, self.get(n).filter(|r| r.tells_of(name))?)))
    }

    /// The same, and others.
    pub(crate) fn possible_tellers(&self, name: Name) -> impl Iterator<Item = Name> {
        let own = self.get(name).into_iter().flat_map(Router::names);
        let others = (!self.one_way.is_empty()).then(|| self.one_way.range((name, 0)..=(name, Name::MAX)));
        let others = others.into_iter().flatten().map(|(_, from)| *from);
        own.chain(self.teller(name)).chain(others)
    }

    /// The router that its place names.
    fn teller(&self, name: Name) -> Option<Name> {
        let place = self.places.get(name as usize).filter(|p| **p != NOWHERE && **p & TELLER != 0)?;
        Some(place & !TELLER)
    }

    /// Remembers a link of one direction.
    fn note_one_way(&mut self, to: Name, from: Name) {
        self.make_places();
        match self.places.get_mut(to as usize) {
            Some(place) if *place == NOWHERE => *place = from | TELLER,
            Some(place) if *place == from | TELLER => {}
            _ => drop(self.one_way.insert((to, from))),
        }
    }

    /// There is none any more.
    fn drop_one_way(&mut self, to: Name, from: Name) {
        let here = self.places.get_mut(to as usize).filter(|place| **place == from | TELLER);
        here.into_iter().for_each(|place| *place = NOWHERE);
        self.one_way.remove(&(to, from));
    }

    /// A place for every name.
    fn make_places(&mut self) {
        let room = self.names.len();
        if self.places.len() < room {
            self.places.reserve_exact(room - self.places.len() + room / 16);
            self.places.resize(room, NOWHERE);
        }
    }

    /// Who announces a network.
    pub(crate) fn announcers(&self, prefix: NetAddr) -> impl Iterator<Item = Name> {
        let tellers = self.names.find(prefix).into_iter().flat_map(|prefix| {
            self.tellers_of(prefix).filter(move |(_, router)| router.network(prefix).is_some())
        });
        tellers.map(|(name, _)| name)
    }

    /// What is said of networks that are announced now.
    pub(crate) fn notes(&self) -> impl Iterator<Item = NoteView> {
        self.notes.iter().flat_map(move |(name, notes)| {
            let (router, known) = (self.names.address(*name), self.get(*name));
            notes.iter().filter_map(move |(prefix, note)| {
                known?.network(self.names.find(*prefix)?)?;
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
        let expires = Tick::of(now + tc.validity.min(MAX_VALIDITY));
        let known = self.names.find(NetAddr::host(tc.originator)).filter(|n| self.get(*n).is_some());
        if known.and_then(|n| self.get(n)).is_some_and(|r| newer(r.ansn(), ansn)) {
            // Somebody tells another story. If that is the router itself, what is believed was forged, and
            // keeps the truth out no longer than the router's own word holds.
            known.into_iter().for_each(|name| self.doubt(now, name, expires));
            return outcome;
        }
        let giver = self.shares.giver(brought.by);
        let Some((name, most)) = self.admit(tc, complete, known, giver, brought, &mut outcome) else {
            outcome.refused = true;
            return outcome;
        };
        self.next_expiry = self.next_expiry.min(expires.instant(now));
        let tuples = self.open(name);
        let Some(router) = self.get_mut(name) else { return outcome };
        let before = core::mem::replace(&mut router.ansn, ansn);
        router.expires = expires;
        router.last.another(outcome.new || before != ansn);
        let giver = router.giver;
        let before = weight(tuples.len());
        let mut list = List { tuples, most, told: Vec::new(), full: false, expires, names: &mut self.names };
        if complete {
            list.doubt_all();
        }
        for n in tc.neighbors.iter().filter(|n| !skip(n.address)) {
            list.put(n.address, 0, n.metric.map(|m| value(m, n.kind)));
        }
        for g in tc.gateways.iter().filter(|g| !skip(g.prefix)) {
            list.put(g.prefix, NETWORK, g.metric.map(|m| value(m, g.dist)));
        }
        if complete {
            list.drop_doubtful();
        }
        let List { tuples, told, full, .. } = list;
        outcome.full |= full;
        outcome.changed |= !told.is_empty();
        self.shares.change(giver, before, weight(tuples.len()));
        outcome.changed |= take_notes(&mut self.notes, name, tc, complete);
        self.close(name, tuples);
        told.into_iter().for_each(|(to, what)| self.note(name, to, what));
        outcome
    }

    /// A TC's words are weighed when it comes.
    pub(crate) fn is_crowded(&self) -> bool {
        self.shares.crowded()
    }

    /// A router's tuples end at several times.
    pub(crate) fn has_mixed_times(&self, name: Name) -> bool {
        self.times.contains_key(&name)
    }

    /// AR_time and with it the time of all a router's tuples.
    pub(crate) fn put_off(&mut self, now: Instant, name: Name, until: Tick) {
        self.next_expiry = self.next_expiry.min(until.instant(now));
        self.get_mut(name).into_iter().for_each(|router| router.expires = until);
    }

    /// A router's tuples, to be changed and given to [`Topology::close`].
    fn open(&mut self, name: Name) -> Vec<Timed> {
        let mut list = core::mem::take(&mut self.scratch);
        list.clear();
        if let Some(router) = self.get(name) {
            let times = self.times.get(&name).map_or(&[][..], |times| times);
            let times = times.iter().copied().chain(core::iter::repeat(router.expires()));
            list.extend(
                router.tuples.iter().zip(times).map(|(tuple, expires)| Timed { tuple: *tuple, expires }),
            );
        }
        list
    }

    fn close(&mut self, name: Name, list: Vec<Timed>) {
        let Some(mut record) = self.get_mut(name).map(|r| *r) else { return };
        let mixed = list.iter().any(|t| t.expires != record.expires);
        let count = u32::try_from(list.len()).unwrap_or(u32::MAX);
        if count > record.count {
            self.drop_tuples(record.tuples());
            record.first = self.tuples.len() as u32;
            if self.tuples.capacity() < self.tuples.len() + list.len() {
                self.tuples.reserve_exact(list.len() + self.tuples.len() / 16);
            }
            self.tuples.extend(list.iter().map(|t| t.tuple));
        } else {
            let room = self.tuples.get_mut(record.tuples()).unwrap_or_default();
            room.iter_mut().zip(&list).for_each(|(old, new)| *old = new.tuple);
            let Range { start, end } = record.tuples();
            self.drop_tuples(start + list.len()..end);
        }
        record.count = count;
        self.get_mut(name).into_iter().for_each(|r| *r = record);
        if mixed {
            self.times.insert(name, list.iter().map(|t| t.expires).collect());
        } else if !self.times.is_empty() {
            self.times.remove(&name);
        }
        self.scratch = list;
        self.clean();
    }

    /// They are no router's any more.
    fn drop_tuples(&mut self, which: Range<usize>) {
        let gone = self.tuples.get_mut(which).unwrap_or_default();
        self.litter += gone.len();
        gone.iter_mut().for_each(|tuple| tuple.key = LITTER);
    }

    /// Closes the gaps between routers' tuples once they are a sixteenth of all.
    fn clean(&mut self) {
        if self.litter <= self.tuples.len() / 16 + TUPLES {
            return;
        }
        // The first tuple of each says whose it is for now, and the router what it said.
        for (place, record) in (0..).zip(&mut self.routers) {
            let first = record.as_mut().filter(|r| r.count > 0).map(|r| &mut r.first);
            if let Some(first) = first
                && let Some(tuple) = self.tuples.get_mut(*first as usize)
            {
                *first = core::mem::replace(&mut tuple.key, place);
            }
        }
        let (mut from, mut to) = (0, 0);
        while let Some(tuple) = self.tuples.get_mut(from) {
            let owner = if tuple.key == LITTER { NOWHERE } else { tuple.key };
            let Some(record) = self.routers.get_mut(owner as usize).and_then(Option::as_mut) else {
                from += 1;
                continue;
            };
            tuple.key = core::mem::replace(&mut record.first, to as u32);
            let end = self.tuples.len().min(from + record.count as usize);
            for at in from..end {
                self.tuples.swap(at, to);
                to += 1;
            }
            from = end;
        }
        self.tuples.truncate(to);
        self.tuples.shrink_to(2 * to);
        self.litter = 0;
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
        let (giver, before) = (router.record.giver, router.tuples.len());
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
        let Some((old, weight)) = self.get(name).map(|r| (r.record.giver, weight(r.tuples.len()))) else {
            return;
        };
        if old == giver {
            return;
        }
        let lost = !self.shares.is_alive(old, brought.alive);
        if lost || (self.shares.is_greedy(old) && self.shares.can_vouch(giver, weight)) {
            self.get_mut(name).into_iter().for_each(|router| router.giver = giver);
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
    fn doubt(&mut self, now: Instant, name: Name, until: Tick) {
        if let Some(router) = self.get_mut(name).filter(|r| until.after(r.expires) < 0) {
            router.expires = until;
            self.next_expiry = self.next_expiry.min(until.instant(now));
        }
    }

    /// A tuple from one to the other came, went or changed.
    fn note(&mut self, from: Name, to: Name, what: What) {
        let tells = |a: Name, b: Name| self.get(a).is_some_and(|r| r.tells_of(b));
        // With two tuples for one name the other one may still be there.
        match (what, tells(from, to), tells(to, from)) {
            (What::Changed, ..) | (What::Gone, true, _) => {}
            (What::New, _, false) => self.note_one_way(to, from),
            (What::New, _, true) => self.drop_one_way(from, to),
            (What::Gone, false, false) => self.drop_one_way(to, from),
            (What::Gone, false, true) => self.note_one_way(from, to),
        }
        match &mut self.changed {
            Some(changed) if changed.len() < MANY => changed.push((from, to)),
            changed => *changed = None,
        }
    }

    /// What changed since the last call, from whom and to whom; `None`: it may be all.
    pub(crate) fn take_changed(&mut self) -> Option<Vec<(Name, Name)>> {
        self.changed.replace(Vec::new())
    }

    /// Frees names that nobody holds any more. Otherwise this is done with the next routes, which are to know first.
    pub(crate) fn tidy(&mut self) {
        if self.names.dead() > MANY && self.changed.as_ref().is_some_and(Vec::is_empty) {
            self.names.sweep();
        }
    }

    fn add(&mut self, originator: IpAddr, giver: Giver) -> Name {
        let name = self.names.hold(NetAddr::host(originator));
        self.make_places();
        if let Some(teller) = self.teller(name) {
            self.one_way.insert((name, teller));
        }
        let place = self.free.pop().unwrap_or_else(|| {
            make_room(&mut self.routers);
            self.routers.push(None);
            (self.routers.len() - 1) as u32
        });
        self.born = self.born.wrapping_add(1);
        let (born, last) = (self.born, Last::NOTHING);
        let router = Record { ansn: 0, giver, born, expires: Tick::ZERO, first: 0, count: 0, last };
        if let Some((at, slot)) = self.places.get_mut(name as usize).zip(self.routers.get_mut(place as usize))
        {
            (*at, *slot) = (place, Some(router));
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
        let theirs = self.routers().filter(|(name, r)| r.record.giver == from && Some(*name) != but);
        let mut theirs: Vec<(u32, Name, u32)> =
            theirs.map(|(name, r)| (r.record.born, name, weight(r.tuples.len()))).collect();
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
        let place = self.places.get_mut(name as usize).filter(|p| **p & TELLER == 0);
        let Some(place) = place.map(|p| core::mem::replace(p, NOWHERE)) else { return };
        let Some(router) = self.routers.get_mut(place as usize).and_then(Option::take) else { return };
        self.free.push(place);
        self.shares.change(router.giver, weight(router.count as usize), 0);
        self.notes.remove(&name);
        self.times.remove(&name);
        self.whole.remove(&name);
        for at in router.tuples() {
            let Some(to) = self.tuples.get(at).map(|t| t.name()) else { break };
            self.names.release(to);
            self.note(name, to, What::Gone);
        }
        self.names.release(name);
        self.drop_tuples(router.tuples());
        self.clean();
    }

    /// A router says that links are lost before its TC does.
    pub(crate) fn unlink(&mut self, from: IpAddr, to: impl Iterator<Item = NetAddr>) -> bool {
        let Some(name) = self.names.find(NetAddr::host(from)) else { return false };
        let mut gone: Vec<Name> = to.filter_map(|address| self.names.find(address)).collect();
        gone.sort_unstable();
        !gone.is_empty() && self.retain(name, |t| gone.binary_search(&t.tuple.key).is_err())
    }

    /// Keeps a router's tuples that are good; `true` if one was not.
    fn retain(&mut self, name: Name, good: impl Fn(&Timed) -> bool) -> bool {
        let mut tuples = self.open(name);
        let gone: Vec<Name> = tuples.iter().filter(|t| !good(t)).map(|t| t.tuple.name()).collect();
        let before = weight(tuples.len());
        tuples.retain(|t| good(t));
        let after = weight(tuples.len());
        self.close(name, tuples);
        if let Some(router) = self.get_mut(name).filter(|_| !gone.is_empty()) {
            // It said more than is left.
            router.last.forget();
            let giver = router.giver;
            self.shares.change(giver, before, after);
            self.whole.remove(&name);
        }
        for to in &gone {
            self.names.release(*to);
            self.note(name, *to, What::Gone);
        }
        !gone.is_empty()
    }

    /// Removes what has expired (§17.5); `true` if anything was.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        if self.next_expiry > now {
            return false;
        }
        let tick = Tick::of(now);
        let gone: Vec<Name> =
            self.routers().filter(|(_, r)| r.expires().is_past(tick)).map(|(n, _)| n).collect();
        let mut changed = !gone.is_empty();
        gone.into_iter().for_each(|name| self.remove(name));
        let old = |times: &[Tick]| times.iter().any(|t| t.is_past(tick));
        let thinner: Vec<Name> = self.times.iter().filter(|(_, t)| old(t)).map(|(n, _)| *n).collect();
        for name in thinner {
            changed |= self.retain(name, |t| !t.expires.is_past(tick));
        }
        let times = self.routers().map(|(_, r)| r.expires()).chain(self.times.values().flatten().copied());
        let next = times.min_by_key(|t| t.after(tick));
        self.next_expiry = next.map_or(Instant::FAR_FUTURE, |t| t.instant(now));
        changed
    }
}

#[derive(Clone, Copy)]
enum What {
    New,
    Changed,
    Gone,
}

/// For tests that are not about who brought what.
#[cfg(test)]
pub(crate) const ANYONE: Brought<'static> =
    Brought { by: IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), alive: &|_| true };

/// Keeps what a TC says of networks; `true` if that is news. What it does not say of one it names is taken
/// back, a complete TC takes back all else.
fn take_notes(
    notes: &mut BTreeMap<Name, Vec<(NetAddr, Note)>>,
    router: Name,
    tc: &Tc,
    complete: bool,
) -> bool {
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

#[cfg(test)]
mod tests;

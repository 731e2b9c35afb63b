//! Shortest paths, and the routes that follow from them: all, or what hangs on a few changes.

use alloc::collections::{BTreeMap, BinaryHeap};
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use mesh_types::Metric;

use super::{Entry, HIDDEN, Hop, NOTED, NOTHING, PATH, Path, ROOT};
use crate::names::Name;
use crate::tc::is_routable;
use crate::topology::{Edge, Network, Router, Topology};

/// What entries were.
pub(super) enum Old {
    /// All of them.
    All(Vec<Entry>),
    /// Those that changed, each once.
    Some(Vec<(Name, Entry)>),
}

impl Old {
    /// One more changes.
    pub(super) fn note(&mut self, name: Name, entry: Entry) {
        if let Self::Some(some) = self
            && some.iter().all(|(n, _)| *n != name)
        {
            some.push((name, entry));
        }
    }
}

/// What a calculation starts from.
pub(super) struct Run<'a> {
    /// This router's own address.
    pub(super) own: Name,
    pub(super) topology: &'a Topology,
    pub(super) hops: &'a [Hop],
    /// Names that need no route, in order.
    pub(super) ours: &'a [Name],
}

impl Run<'_> {
    /// All entries, `room` of them.
    pub(super) fn full(&self, room: usize) -> Vec<Entry> {
        let mut entries = vec![NOTHING; room];
        let mut search = self.search(&mut entries, false);
        search.start(self.hops);
        search.run();
        self.routes(&mut entries);
        entries
    }

    fn search<'a>(&'a self, entries: &'a mut [Entry], notes: bool) -> Search<'a> {
        let (old, queue) = (Vec::new(), BinaryHeap::new());
        Search { own: self.own, topology: self.topology, entries, notes, old, queue }
    }

    /// From paths to the Routing Set (§19.3 to §19.6).
    fn routes(&self, entries: &mut [Entry]) {
        for name in 0..entries.len() as Name {
            let Some(entry) = entries.get_mut(name as usize) else { break };
            let Some(path) = entry.path() else { continue };
            if self.is_hidden(name) {
                entry.first |= HIDDEN;
            }
            let Some(router) = self.topology.get(name) else { continue };
            for edge in router.edges().filter(Edge::is_routable) {
                put(entries, edge.to, to_address(name, path, &edge));
            }
            for network in router.networks() {
                put(entries, network.prefix, to_network(name, path, &network));
            }
        }
        let mut last: BTreeMap<Name, Entry> = BTreeMap::new();
        for (first, hop) in (0u16..).zip(self.hops) {
            hop.addresses.iter().for_each(|a| put(entries, *a, to_neighbor(first, hop)));
        }
        for (first, hop) in (0u16..).zip(self.hops) {
            let gap = |a: Name| entries.get(a as usize) == Some(&NOTHING);
            for (address, metric) in hop.two_hops.iter().filter(|(a, _)| gap(*a)) {
                let new = to_two_hop(first, hop, *address, *metric);
                let best = last.entry(*address).or_insert(new);
                *best = better(*best, new);
            }
        }
        last.into_iter().for_each(|(address, entry)| put(entries, address, entry));
        for name in self.ours {
            let Some(entry) = entries.get_mut(*name as usize) else { continue };
            *entry = match entry.path() {
                Some(_) => Entry { first: entry.first | HIDDEN, ..*entry },
                None => NOTHING,
            };
        }
    }

    /// No route goes to such an address.
    fn is_hidden(&self, name: Name) -> bool {
        !self.topology.names.address(name).is_some_and(|a| is_routable(a.ip()))
    }

    /// Computes anew what hangs on links that changed, and the entry of `default` in any case; the outcome is
    /// that of [`Run::full`].
    pub(super) fn mend(&self, entries: &mut [Entry], links: &[(Name, Name)], default: Option<Name>) -> Old {
        let mut search = self.search(entries, true);
        let lost = search.cut(links);
        search.graft(&lost, self.hops);
        for (from, to) in links {
            search.relax_one(*from, *to);
        }
        search.run();
        let mut old = search.old;
        let routers = old.len();
        for at in 0..routers {
            let Some((name, was)) = old.get(at).copied() else { break };
            self.settle_noted(entries, name, was);
            // Routes to what it tells of; paths were found already.
            for told in self.topology.get(name).into_iter().flat_map(Router::names) {
                self.settle_beyond(entries, told, &mut old);
            }
        }
        for name in links.iter().map(|(_, to)| *to).chain(default) {
            self.settle_beyond(entries, name, &mut old);
        }
        for (name, _) in &old {
            entries.get_mut(*name as usize).into_iter().for_each(|entry| entry.first &= !NOTED);
        }
        Old::Some(old)
    }

    /// Makes a route of what the search left of an entry.
    fn settle_noted(&self, entries: &mut [Entry], name: Name, was: Entry) {
        let Some(entry) = entries.get(name as usize).copied() else { return };
        let first = match (entry.path(), was.path()) {
            (None, _) => return self.put(entries, name, self.settle(entries, name)),
            (Some(_), Some(_)) => entry.first & !HIDDEN | was.first & HIDDEN,
            (Some(_), None) => self.settle(entries, name).first,
        };
        self.put(entries, name, Entry { first, ..entry });
    }

    /// Computes an entry anew that has no path, unless that was done.
    fn settle_beyond(&self, entries: &mut [Entry], name: Name, old: &mut Vec<(Name, Entry)>) {
        let Some(entry) = entries.get(name as usize).filter(|e| e.first & (PATH | NOTED) == 0) else {
            return;
        };
        let new = self.settle(entries, name);
        if new != *entry {
            old.push((name, *entry));
            self.put(entries, name, new);
        }
    }

    fn put(&self, entries: &mut [Entry], name: Name, new: Entry) {
        let entry = entries.get_mut(name as usize);
        entry.into_iter().for_each(|e| *e = Entry { first: new.first | NOTED, ..new });
    }

    /// One entry as it follows from the paths.
    fn settle(&self, entries: &[Entry], name: Name) -> Entry {
        let present = entries.get(name as usize).copied().unwrap_or(NOTHING);
        let ours = self.ours.binary_search(&name).is_ok();
        if present.path().is_some() {
            let hidden = if ours || self.is_hidden(name) { HIDDEN } else { 0 };
            return Entry { first: present.first & !HIDDEN | hidden, ..present };
        }
        if ours {
            return NOTHING;
        }
        let mut best = NOTHING;
        for teller in self.topology.possible_tellers(name) {
            let Some(path) = entries.get(teller as usize).and_then(|e| e.path()) else { continue };
            let Some(router) = self.topology.get(teller) else { continue };
            if let Some(edge) = router.edge(name).filter(Edge::is_routable) {
                best = better(best, to_address(teller, path, &edge));
            }
            if let Some(network) = router.network(name) {
                best = better(best, to_network(teller, path, &network));
            }
        }
        let hops = || (0u16..).zip(self.hops);
        for (first, hop) in hops().filter(|(_, hop)| hop.addresses.binary_search(&name).is_ok()) {
            best = better(best, to_neighbor(first, hop));
        }
        if best != NOTHING {
            return best;
        }
        for (first, hop) in hops() {
            let at = hop.two_hops.partition_point(|(a, _)| *a < name);
            // The cheapest comes first.
            if let Some((_, metric)) = hop.two_hops.get(at).filter(|(a, _)| *a == name) {
                best = better(best, to_two_hop(first, hop, name, *metric));
            }
        }
        best
    }
}

fn to_address(teller: Name, path: Path, edge: &Edge) -> Entry {
    route(teller, path.then(edge.metric), 0)
}

fn to_network(teller: Name, path: Path, network: &Network) -> Entry {
    let path = Path::new(path.metric().plus(network.metric), path.hops(), path.first());
    route(teller, path, network.dist)
}

fn to_neighbor(first: u16, hop: &Hop) -> Entry {
    route(hop.router, Path::new(hop.metric, 1, first), 0)
}

fn to_two_hop(first: u16, hop: &Hop, address: Name, metric: Metric) -> Entry {
    route(address, Path::new(hop.metric, 1, first).then(metric), 0)
}

fn route(via: Name, path: Path, beyond: u8) -> Entry {
    let (hops, dist) = (path.hops(), path.hops().saturating_add(beyond));
    Entry { metric: path.metric(), via, first: path.first(), hops, dist }
}

/// The better of two routes from the same source.
fn better(a: Entry, b: Entry) -> Entry {
    let rank = |e: &Entry| (e.metric, e.dist, e.hops, e.first, e.via);
    if rank(&b) < rank(&a) { b } else { a }
}

/// Puts a route in if it is the better one; a path to a router stays.
fn put(entries: &mut [Entry], name: Name, new: Entry) {
    if let Some(entry) = entries.get_mut(name as usize).filter(|e| e.path().is_none()) {
        *entry = better(*entry, new);
    }
}

/// One search for shortest paths over edges X → Y and W → U (Dijkstra).
struct Search<'a> {
    own: Name,
    topology: &'a Topology,
    entries: &'a mut [Entry],
    /// Whether that is of interest: what entries were.
    notes: bool,
    old: Vec<(Name, Entry)>,
    queue: BinaryHeap<Reverse<(Path, Name)>>,
}

impl Search<'_> {
    fn path(&self, name: Name) -> Option<Path> {
        self.entries.get(name as usize).and_then(|e| e.path())
    }

    fn better(&mut self, name: Name, path: Path, via: Name) {
        let known = self.path(name);
        if known.is_none_or(|known| path < known) {
            let Entry { metric, hops, dist, .. } = route(via, path, 0);
            self.change(name, Entry { metric, via, first: PATH | path.first(), hops, dist });
            self.queue.push(Reverse((path, name)));
        }
    }

    fn change(&mut self, name: Name, new: Entry) {
        let Some(entry) = self.entries.get_mut(name as usize) else { return };
        if !self.notes {
            *entry = new;
            return;
        }
        if entry.first & NOTED == 0 {
            self.old.push((name, *entry));
        }
        *entry = Entry { first: new.first | NOTED, ..new };
    }

    /// From here to the neighbours.
    fn start(&mut self, hops: &[Hop]) {
        for (first, hop) in (0u16..).zip(hops) {
            self.better(hop.router, Path::new(hop.metric, 1, first), ROOT);
        }
    }

    /// From a router to those it advertises.
    fn relax(&mut self, router: Name) {
        let (own, topology) = (self.own, self.topology);
        let Some((path, known)) = self.path(router).zip(topology.get(router)) else { return };
        for edge in known.edges().filter(|e| e.is_router() && e.to != own) {
            self.better(edge.to, path.then(edge.metric), router);
        }
    }

    /// From a router to one of them.
    fn relax_one(&mut self, from: Name, to: Name) {
        let Some(path) = self.path(from).filter(|_| to != self.own) else { return };
        let edge = self.topology.get(from).and_then(|r| r.edge(to)).filter(Edge::is_router);
        if let Some(edge) = edge {
            self.better(to, path.then(edge.metric), from);
        }
    }

    fn run(&mut self) {
        while let Some(Reverse((path, name))) = self.queue.pop() {
            if self.path(name) == Some(path) {
                self.relax(name);
            }
        }
    }

    /// Forgets paths over links that are no more as they were, and all that hang on them: which.
    fn cut(&mut self, links: &[(Name, Name)]) -> Vec<Name> {
        let mut lost = Vec::new();
        for (from, to) in links {
            let edge = self.topology.get(*from).and_then(|r| r.edge(*to)).filter(Edge::is_router);
            let now = self.path(*from).zip(edge).map(|(path, edge)| path.then(edge.metric));
            if self.hangs(*from, *to) && self.path(*to) != now {
                self.forget(*to, &mut lost);
            }
        }
        let mut at = 0;
        while let Some(name) = lost.get(at).copied() {
            at += 1;
            for edge in self.topology.get(name).into_iter().flat_map(Router::edges) {
                if self.hangs(name, edge.to) {
                    self.forget(edge.to, &mut lost);
                }
            }
        }
        lost
    }

    /// Whether the path to one goes over the other last.
    fn hangs(&self, on: Name, name: Name) -> bool {
        self.entries.get(name as usize).is_some_and(|e| e.path().is_some() && e.via == on)
    }

    fn forget(&mut self, name: Name, lost: &mut Vec<Name>) {
        self.change(name, NOTHING);
        lost.push(name);
    }

    /// Finds the first links of new paths to routers that have none, from those that still have one.
    fn graft(&mut self, lost: &[Name], hops: &[Hop]) {
        let topology = self.topology;
        for name in lost {
            for (first, hop) in (0u16..).zip(hops).filter(|(_, hop)| hop.router == *name) {
                self.better(*name, Path::new(hop.metric, 1, first), ROOT);
            }
            for teller in topology.possible_tellers(*name) {
                self.relax_one(teller, *name);
            }
        }
    }
}

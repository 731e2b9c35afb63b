//! The core: interfaces, timers, and what follows from a change (RFC 6130 §9, §11, §13, §14).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant};
use rfc5444::NetAddr;

use crate::config::Config;
use crate::hello::{Hello, HelloEntry, LocalIf, Status};
use crate::rng::Rng;
use crate::tables::{Extension, Interface, Link, LinkId, LinkStatus, Neighbor, NeighborId};

/// Neighbourhood discovery of one router, one address family.
#[derive(Debug)]
pub struct Nhdp<X: Extension> {
    pub(crate) config: Config,
    pub(crate) interfaces: BTreeMap<u32, Interface<X>>,
    pub(crate) neighbors: BTreeMap<NeighborId, Neighbor<X>>,
    /// Lost Neighbor Set: NL_neighbor_addr and NL_time.
    pub(crate) lost: BTreeMap<NetAddr, Instant>,
    /// Removed Interface Address Set: IR_local_iface_addr and IR_time.
    removed: BTreeMap<NetAddr, Instant>,
    pub(crate) events: VecDeque<Event<X>>,
    pub(crate) changed: bool,
    pub(crate) refused: u64,
    /// How often what is ours changed.
    address_changes: u32,
    /// Nothing expires before this.
    pub(crate) next_expiry: Instant,
    next_id: u32,
    rng: Rng,
}

/// What the protocol on top must know.
#[derive(Clone, Debug)]
pub enum Event<X: Extension> {
    /// A HELLO is due on an interface: build it with [`Nhdp::generate`] and send it.
    HelloDue {
        /// Which.
        interface: u32,
    },
    /// A link became symmetric, or ceased to be.
    Link {
        /// Where.
        interface: u32,
        /// The neighbour's address on it.
        address: NetAddr,
        /// What it is now.
        symmetric: bool,
        /// The neighbour's part of the extension, if the neighbour was known.
        neighbor: Option<X::Neighbor>,
    },
    /// A neighbour fell silent: find out whether it is there, and say so with [`Nhdp::probe_answered`] or
    /// [`Nhdp::probe_failed`].
    Probe {
        /// Where.
        interface: u32,
        /// The neighbour's address on it.
        address: NetAddr,
    },
    /// A symmetric neighbour does not know us any more: most likely it was started anew. The link stays as
    /// it is (RFC 6130 §12.5), but the neighbour needs what a new one needs, a HELLO ([`Nhdp::trigger`])
    /// before all. It says so with each HELLO until it knows us.
    Forgotten {
        /// Where.
        interface: u32,
        /// The neighbour's address on it.
        address: NetAddr,
    },
}

impl<X: Extension> Nhdp<X> {
    /// No interfaces, no neighbours. `seed` feeds the jitter.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            interfaces: BTreeMap::new(),
            neighbors: BTreeMap::new(),
            lost: BTreeMap::new(),
            removed: BTreeMap::new(),
            events: VecDeque::new(),
            changed: false,
            refused: 0,
            address_changes: 0,
            next_expiry: Instant::FAR_FUTURE,
            next_id: 0,
            rng: Rng::new(seed),
        }
    }

    /// The next event. Drain to `None` after every call that takes `now`.
    pub fn poll_event(&mut self) -> Option<Event<X>> {
        self.events.pop_front()
    }

    /// Whether links, neighbours or 2-hop neighbours changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    /// How many entries were refused or pushed out for want of room since the last call.
    pub fn take_refused(&mut self) -> u64 {
        core::mem::take(&mut self.refused)
    }

    /// When [`Nhdp::handle_timeout`] is wanted next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let hello = self.interfaces.values().map(|i| i.hello_due).min();
        let links = self.interfaces.values().flat_map(|i| i.links.values());
        let signs = links.map(|l| l.signs.wanted(self.config.hello_lively));
        let expiry = signs.chain([self.next_expiry]).min().filter(|t| *t != Instant::FAR_FUTURE);
        hello.into_iter().chain(expiry).min()
    }

    /// When a neighbour's signs have to be looked at. Every packet puts its own off, so this is looked up and
    /// not kept: nobody wakes up for times that are no more.
    fn next_signs(&self) -> Instant {
        let links = self.interfaces.values().flat_map(|i| i.links.values());
        links.map(|l| l.signs.next()).min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// All interfaces in use.
    pub fn interfaces(&self) -> impl Iterator<Item = (u32, &Interface<X>)> {
        self.interfaces.iter().map(|(index, i)| (*index, i))
    }

    /// The same, to change the extension's parts.
    pub fn interfaces_mut(&mut self) -> impl Iterator<Item = (u32, &mut Interface<X>)> {
        self.interfaces.iter_mut().map(|(index, i)| (*index, i))
    }

    /// One interface.
    pub fn interface(&self, index: u32) -> Option<&Interface<X>> {
        self.interfaces.get(&index)
    }

    /// The Neighbor Set.
    pub fn neighbors(&self) -> impl Iterator<Item = (NeighborId, &Neighbor<X>)> {
        self.neighbors.iter().map(|(id, n)| (*id, n))
    }

    /// The same, to change the extension's part.
    pub fn neighbors_mut(&mut self) -> impl Iterator<Item = (NeighborId, &mut Neighbor<X>)> {
        self.neighbors.iter_mut().map(|(id, n)| (*id, n))
    }

    /// One neighbour.
    pub fn neighbor(&self, id: NeighborId) -> Option<&Neighbor<X>> {
        self.neighbors.get(&id)
    }

    /// One neighbour, to change the extension's part.
    pub fn neighbor_mut(&mut self, id: NeighborId) -> Option<&mut Neighbor<X>> {
        self.neighbors.get_mut(&id)
    }

    /// One link.
    pub fn link(&self, interface: u32, id: LinkId) -> Option<&Link<X>> {
        self.interfaces.get(&interface)?.links.get(&id)
    }

    /// One link, to change the extension's part.
    pub fn link_mut(&mut self, interface: u32, id: LinkId) -> Option<&mut Link<X>> {
        self.interfaces.get_mut(&interface)?.links.get_mut(&id)
    }

    /// An interface's links, to change the extension's part.
    pub fn links_mut(&mut self, interface: u32) -> impl Iterator<Item = &mut Link<X>> {
        self.interfaces.get_mut(&interface).into_iter().flat_map(|i| i.links.values_mut())
    }

    /// The link over which `address` sends.
    pub fn link_to(&self, interface: u32, address: IpAddr) -> Option<(LinkId, &Link<X>)> {
        let links = &self.interfaces.get(&interface)?.links;
        let found = links.iter().find(|(_, l)| l.addresses.iter().any(|a| a.contains(address)))?;
        Some((*found.0, found.1))
    }

    /// Whether an address is on one of our interfaces, is announced as OTHER_IF, or was until lately.
    pub fn is_ours(&self, address: NetAddr) -> bool {
        let own = self.interfaces.values().flat_map(|i| &i.addresses).chain(&self.config.other_addresses);
        own.chain(self.removed.keys()).any(|a| a.overlaps(address))
    }

    /// Counts up when that may be another answer for some address.
    pub fn address_changes(&self) -> u32 {
        self.address_changes
    }

    /// Every address for which [`Nhdp::is_ours`] says so, as they are.
    pub fn our_addresses(&self) -> impl Iterator<Item = NetAddr> + '_ {
        let own = self.interfaces.values().flat_map(|i| &i.addresses).chain(&self.config.other_addresses);
        own.chain(self.removed.keys()).copied()
    }

    /// Whether an address is in the Removed Interface Address Set.
    pub(crate) fn was_ours(&self, address: NetAddr) -> bool {
        self.removed.contains_key(&address)
    }

    /// Puts an interface into use, or changes its addresses (RFC 6130 §9). `false`: no room.
    pub fn set_interface(&mut self, now: Instant, index: u32, addresses: &[NetAddr]) -> bool {
        self.handle_timeout(now);
        let limits = self.config.limits;
        if !self.interfaces.contains_key(&index) && self.interfaces.len() >= limits.interfaces {
            self.refused += 1;
            return false;
        }
        let mut kept: Vec<NetAddr> = Vec::new();
        for address in addresses {
            if !kept.contains(address) && kept.len() < limits.neighbor_addresses {
                kept.push(*address);
            }
        }
        let known: Vec<NetAddr> = self.interfaces.get(&index).map_or_else(Vec::new, |i| i.addresses.clone());
        for address in kept.iter().filter(|a| !known.contains(a)) {
            self.claim_address(now, *address);
        }
        // The first HELLO goes out at once, give or take the jitter that keeps nodes apart which were
        // switched on together.
        let soon = now + self.rng.up_to(self.config.trigger_jitter);
        let fresh = Interface {
            addresses: Vec::new(),
            links: BTreeMap::new(),
            hello_due: soon,
            last_hello: None,
            lively: true,
        };
        let interface = self.interfaces.entry(index).or_insert(fresh);
        let old = core::mem::replace(&mut interface.addresses, kept);
        self.forget_addresses(now, &old);
        self.address_changes = self.address_changes.wrapping_add(1);
        self.changed = true;
        self.trigger_all(now);
        true
    }

    /// Takes an interface out of use; its links go at once (RFC 6130 §9.2).
    pub fn remove_interface(&mut self, now: Instant, index: u32) -> bool {
        self.handle_timeout(now);
        let Some(interface) = self.interfaces.get(&index) else { return false };
        let ids: Vec<LinkId> = interface.links.keys().copied().collect();
        for id in ids {
            self.remove_link(now, index, id);
        }
        if let Some(interface) = self.interfaces.remove(&index) {
            self.forget_addresses(now, &interface.addresses);
        }
        self.address_changes = self.address_changes.wrapping_add(1);
        self.changed = true;
        self.trigger_all(now);
        true
    }

    /// An address is ours from now on: nothing may call it a neighbour's (RFC 6130 §9.3).
    fn claim_address(&mut self, now: Instant, address: NetAddr) {
        self.removed.remove(&address);
        let theirs = |a: &NetAddr| a.overlaps(address);
        let matching = self.neighbors.iter().filter(|(_, n)| n.addresses.iter().any(theirs));
        let matching: Vec<NeighborId> = matching.map(|(id, _)| *id).collect();
        matching.into_iter().for_each(|id| self.remove_neighbor(now, id));
        let links = self.interfaces.iter().flat_map(|(index, i)| i.links.iter().map(move |l| (*index, l)));
        let links = links.filter(|(_, (_, l))| l.addresses.iter().any(theirs));
        let links: Vec<(u32, LinkId)> = links.map(|(index, (id, _))| (index, *id)).collect();
        links.into_iter().for_each(|(index, id)| self.remove_link(now, index, id));
        self.lost.retain(|a, _| !theirs(a));
        for link in self.interfaces.values_mut().flat_map(|i| i.links.values_mut()) {
            link.two_hops.retain(|a, _| !theirs(a));
        }
    }

    /// Remembers for a while that `old` addresses were ours (RFC 6130 §9.4), unless they still are.
    fn forget_addresses(&mut self, now: Instant, old: &[NetAddr]) {
        for address in old {
            let still = self.interfaces.values().any(|i| i.addresses.contains(address))
                || self.config.other_addresses.contains(address);
            if !still && self.removed.len() < self.config.limits.lost {
                let until = now + self.config.lost_hold;
                self.removed.insert(*address, until);
                self.next_expiry = self.next_expiry.min(until);
            }
        }
    }

    /// The radio says that a neighbour is gone: the link is lost now, not after its hold time.
    pub fn link_lost(&mut self, now: Instant, interface: u32, address: IpAddr) {
        self.handle_timeout(now);
        let Some((id, _)) = self.link_to(interface, address) else { return };
        let until = now + self.config.lost_hold;
        if let Some(link) = self.link_mut(interface, id) {
            link.symmetric_until = Instant::ZERO;
            link.heard_until = Instant::ZERO;
            link.expires = link.expires.min(until);
        }
        self.next_expiry = self.next_expiry.min(until);
        self.settle(now, interface, id);
    }

    /// All links are lost, and HELLOs say so at once: we are about to end.
    pub fn leave(&mut self, now: Instant) {
        self.handle_timeout(now);
        let all: Vec<(u32, IpAddr)> = self
            .interfaces
            .iter()
            .flat_map(|(index, i)| i.links.values().filter_map(|l| Some((*index, l.addresses.first()?.ip()))))
            .collect();
        all.into_iter().for_each(|(interface, address)| self.link_lost(now, interface, address));
        let interfaces: Vec<u32> = self.interfaces.keys().copied().collect();
        for interface in interfaces {
            self.schedule_periodic(now, interface);
            self.events.push_back(Event::HelloDue { interface });
        }
    }

    /// Link quality changed (RFC 6130 §14.3).
    pub fn set_quality(&mut self, now: Instant, interface: u32, id: LinkId, quality: u8) {
        self.handle_timeout(now);
        let thresholds = self.config.quality;
        let hold = self.config.lost_hold;
        let Some(link) = self.link_mut(interface, id) else { return };
        link.quality = quality;
        if quality >= thresholds.accept {
            link.pending = false;
            link.lost = false;
            if matches!(link.status_at(now), LinkStatus::Heard | LinkStatus::Symmetric) {
                link.expires = link.expires.max(link.heard_until + hold);
            }
        } else if quality < thresholds.reject && !link.pending && !link.lost {
            link.lost = true;
            link.expires = link.expires.min(now + hold);
        }
        let expires = link.expires;
        self.next_expiry = self.next_expiry.min(expires);
        self.settle(now, interface, id);
    }

    /// Ends what has expired and asks for HELLOs that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_expiry <= now {
            self.expire(now);
        } else if self.next_signs() <= now {
            let links =
                self.interfaces.iter().flat_map(|(index, i)| i.links.iter().map(move |l| (*index, l)));
            let due = links.filter(|(_, (_, l))| l.signs.next() <= now);
            let due: Vec<(u32, LinkId)> = due.map(|(index, (id, _))| (index, *id)).collect();
            for (interface, id) in due {
                self.check_signs(now, interface, id);
                self.settle(now, interface, id);
            }
        }
        if self.interfaces.values().all(|i| i.hello_due > now) {
            return;
        }
        let due: Vec<u32> =
            self.interfaces.iter().filter(|(_, i)| i.hello_due <= now).map(|(index, _)| *index).collect();
        for interface in due {
            self.schedule_periodic(now, interface);
            self.events.push_back(Event::HelloDue { interface });
        }
    }

    fn expire(&mut self, now: Instant) {
        let before = (self.lost.len(), self.removed.len());
        self.lost.retain(|_, until| *until > now);
        self.removed.retain(|_, until| *until > now);
        self.changed |= before != (self.lost.len(), self.removed.len());
        self.address_changes = self.address_changes.wrapping_add(u32::from(before.1 != self.removed.len()));
        let all: Vec<(u32, LinkId)> = self
            .interfaces
            .iter()
            .flat_map(|(index, i)| i.links.keys().map(move |id| (*index, *id)))
            .collect();
        for (interface, id) in all {
            let Some(link) = self.link_mut(interface, id) else { continue };
            if link.expires <= now {
                self.remove_link(now, interface, id);
                continue;
            }
            self.check_signs(now, interface, id);
            let Some(link) = self.link_mut(interface, id) else { continue };
            let before = link.two_hops.len();
            link.two_hops.retain(|_, t| t.expires > now);
            let fewer = link.two_hops.len() != before;
            self.changed |= fewer;
            self.settle(now, interface, id);
        }
        self.next_expiry = self.earliest_expiry(now);
    }

    fn earliest_expiry(&self, now: Instant) -> Instant {
        let links = self.interfaces.values().flat_map(|i| i.links.values());
        let times = links.flat_map(|l| {
            let two_hops = l.two_hops.values().map(|t| t.expires).min();
            [Some(l.heard_until), Some(l.symmetric_until), Some(l.expires), two_hops]
        });
        let times = times.flatten().chain(self.lost.values().copied()).chain(self.removed.values().copied());
        times.filter(|t| *t > now).min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// HELLO_INTERVAL of an interface as it is now.
    fn hello_interval(&self, index: u32) -> Duration {
        if self.is_lively(index) { self.config.hello_lively } else { self.config.hello_interval }
    }

    /// Whether an interface's HELLOs come at the shorter interval.
    pub fn is_lively(&self, index: u32) -> bool {
        self.interfaces.get(&index).is_none_or(|i| i.lively)
    }

    /// HP_MAXJITTER.
    fn hello_jitter(&self) -> Duration {
        self.config.hello_lively.divided_by(4)
    }

    /// There is something to tell, or others may have: HELLOs come at the shorter interval from now on, or no
    /// more (RFC 6130 §5.3.1 lets HELLO_INTERVAL change; each HELLO tells when the next one comes). New interfaces
    /// are lively.
    pub fn set_lively(&mut self, now: Instant, index: u32, lively: bool) {
        if self.interfaces.get(&index).is_none_or(|i| i.lively == lively) {
            return;
        }
        let jitter = self.rng.up_to(self.hello_jitter());
        let interval = self.config.hello_lively;
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        interface.lively = lively;
        if let Some(last) = interface.last_hello.filter(|_| lively) {
            let due = (last + interval).max(now + interval.divided_by(4)) - jitter;
            interface.hello_due = interface.hello_due.min(due);
        }
    }

    /// HELLO schedule after one is sent: HELLO_INTERVAL less jitter (RFC 6130 §11.2.1, RFC 5148 §5.1).
    fn schedule_periodic(&mut self, now: Instant, index: u32) {
        let interval = self.hello_interval(index);
        let jitter = self.rng.up_to(self.hello_jitter());
        if let Some(interface) = self.interfaces.get_mut(&index) {
            interface.last_hello = Some(now);
            interface.hello_due = now + interval.saturating_sub(jitter);
        }
    }

    /// Asks for a HELLO soon, not sooner than HELLO_MIN_INTERVAL (less jitter) after the last.
    pub fn trigger(&mut self, now: Instant, index: u32) {
        let min = self.config.hello_min_interval;
        let min = min.saturating_sub(self.rng.up_to(min.divided_by(4)));
        let soon = now + self.rng.up_to(self.config.trigger_jitter);
        if let Some(interface) = self.interfaces.get_mut(&index) {
            let earliest = interface.last_hello.map_or(Instant::ZERO, |last| last + min);
            interface.hello_due = interface.hello_due.min(soon.max(earliest));
        }
    }

    /// A packet leaves on that interface anyway: the next HELLO goes along if half of its interval has passed (RFC 5148
    /// §5.1 lets it come so early).
    pub fn hasten(&mut self, now: Instant, index: u32) {
        let early = self.hello_interval(index).divided_by(2);
        if let Some(interface) = self.interfaces.get_mut(&index)
            && interface.last_hello.is_some_and(|last| last + early <= now)
        {
            interface.hello_due = interface.hello_due.min(now);
        }
    }

    /// The next HELLO waits for its whole interval: something else, which has jitter, brings it forward.
    pub fn wait_for_company(&mut self, index: u32) {
        let interval = self.hello_interval(index);
        if let Some(interface) = self.interfaces.get_mut(&index)
            && let Some(last) = interface.last_hello
        {
            interface.hello_due = last + interval;
        }
    }

    /// When the next HELLO goes out on an interface, at the latest.
    pub fn next_hello(&self, index: u32) -> Option<Instant> {
        self.interfaces.get(&index).map(|i| i.hello_due)
    }

    /// [`Nhdp::trigger`] on every interface.
    pub fn trigger_all(&mut self, now: Instant) {
        let all: Vec<u32> = self.interfaces.keys().copied().collect();
        all.into_iter().for_each(|index| self.trigger(now, index));
    }

    pub(crate) fn new_id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// Removes a Link Tuple (RFC 6130 §13.2, then §13.3).
    pub(crate) fn remove_link(&mut self, now: Instant, interface: u32, id: LinkId) {
        let Some(link) = self.link_mut(interface, id) else { return };
        link.symmetric_until = Instant::ZERO;
        link.heard_until = Instant::ZERO;
        link.lost = true;
        self.settle(now, interface, id);
        if let Some(i) = self.interfaces.get_mut(&interface) {
            i.links.remove(&id);
        }
        self.changed = true;
    }

    /// Draws the consequences of whatever changed L_status or the times of a link (RFC 6130 §13).
    pub(crate) fn settle(&mut self, now: Instant, interface: u32, id: LinkId) {
        let Some(link) = self.link_mut(interface, id) else { return };
        let before = link.settled;
        let after = link.status_at(now);
        link.settled = after;
        link.proven |= after == LinkStatus::Symmetric;
        // RFC 7466 §4.3: kept while L_SYM_time lasts, hidden while the link's quality is too low.
        if link.symmetric_until <= now {
            link.two_hops.clear();
        }
        let heard = link.heard_until > now;
        let neighbor = link.neighbor;
        let address = link.addresses.first().copied();
        if before != after {
            self.changed = true;
            self.trigger(now, interface);
            let symmetric = after == LinkStatus::Symmetric;
            if let Some(address) = address.filter(|_| symmetric || before == LinkStatus::Symmetric) {
                let neighbor = neighbor.and_then(|n| self.neighbors.get(&n)).map(|n| n.ext.clone());
                self.events.push_back(Event::Link { interface, address, symmetric, neighbor });
            }
        }
        if let Some(neighbor) = neighbor {
            self.settle_neighbor(now, neighbor);
            if !heard {
                self.drop_unheard(now, neighbor);
            }
        }
    }

    fn links_of(&self, neighbor: NeighborId) -> impl Iterator<Item = &Link<X>> {
        let links = self.interfaces.values().flat_map(|i| i.links.values());
        links.filter(move |l| l.neighbor == Some(neighbor))
    }

    /// N_symmetric follows the links (RFC 6130 §13.1, §13.2).
    pub(crate) fn settle_neighbor(&mut self, now: Instant, id: NeighborId) {
        let symmetric = self.links_of(id).any(|l| l.settled == LinkStatus::Symmetric);
        let Some(neighbor) = self.neighbors.get_mut(&id) else { return };
        if neighbor.symmetric == symmetric {
            return;
        }
        neighbor.symmetric = symmetric;
        let addresses = neighbor.addresses.clone();
        if symmetric {
            addresses.iter().for_each(|a| {
                self.lost.remove(a);
            });
        } else {
            self.add_lost(now, &addresses);
        }
        self.changed = true;
        self.trigger_all(now);
    }

    pub(crate) fn add_lost(&mut self, now: Instant, addresses: &[NetAddr]) {
        let until = now + self.config.lost_hold;
        for address in addresses {
            if self.lost.len() < self.config.limits.lost {
                self.lost.insert(*address, until);
                self.next_expiry = self.next_expiry.min(until);
            }
        }
    }

    /// A neighbour without a heard link goes (RFC 6130 §13.3).
    fn drop_unheard(&mut self, now: Instant, id: NeighborId) {
        if self.links_of(id).any(|l| l.heard_until > now) {
            return;
        }
        self.neighbors.remove(&id);
        for link in self.interfaces.values_mut().flat_map(|i| i.links.values_mut()) {
            if link.neighbor == Some(id) {
                link.neighbor = None;
            }
        }
        self.changed = true;
    }

    /// Removes a neighbour and its links, as RFC 7181 §15.3.2 asks for one whose originator address moved.
    pub fn remove_neighbor(&mut self, now: Instant, id: NeighborId) {
        let all: Vec<(u32, LinkId)> = self
            .interfaces
            .iter()
            .flat_map(|(index, i)| i.links.iter().map(move |(link, l)| (*index, *link, l)))
            .filter(|(_, _, l)| l.neighbor == Some(id))
            .map(|(index, link, _)| (index, link))
            .collect();
        for (interface, link) in all {
            self.remove_link(now, interface, link);
        }
        self.neighbors.remove(&id);
        self.changed = true;
    }

    /// The HELLO for an interface (RFC 6130 §11.1), for the protocol on top to add to.
    pub fn generate(&self, index: u32) -> Option<Hello> {
        let interface = self.interfaces.get(&index)?;
        let mut entries: Vec<HelloEntry> = Vec::new();
        let mut known: BTreeMap<NetAddr, usize> = BTreeMap::new();
        let mut entry = |entries: &mut Vec<HelloEntry>, address: NetAddr| -> (usize, bool) {
            let at = *known.entry(address).or_insert(entries.len());
            let new = at == entries.len();
            if new {
                entries.push(HelloEntry::new(address));
            }
            (at, new)
        };
        let mut edit = |entries: &mut Vec<HelloEntry>, address, change: &dyn Fn(&mut HelloEntry, bool)| {
            let (at, new) = entry(entries, address);
            if let Some(e) = entries.get_mut(at) {
                change(e, new);
            }
        };
        for address in &interface.addresses {
            edit(&mut entries, *address, &|e, _| e.local_if = Some(LocalIf::This));
        }
        let others = self.interfaces.values().flat_map(|i| &i.addresses);
        for address in others.chain(&self.config.other_addresses) {
            edit(&mut entries, *address, &|e, _| {
                e.local_if.get_or_insert(LocalIf::Other);
            });
        }
        for (id, link) in &interface.links {
            let status = match link.settled {
                LinkStatus::Pending => continue,
                LinkStatus::Lost => Status::Lost,
                LinkStatus::Heard => Status::Heard,
                LinkStatus::Symmetric => Status::Symmetric,
            };
            for address in &link.addresses {
                edit(&mut entries, *address, &|e, _| {
                    if e.local_if.is_none() && e.link_status != Some(Status::Symmetric) {
                        e.link_status = Some(status);
                        e.link = Some(*id);
                        e.neighbor = link.neighbor;
                    }
                });
            }
        }
        for (id, neighbor) in self.neighbors.iter().filter(|(_, n)| n.symmetric) {
            for address in &neighbor.addresses {
                edit(&mut entries, *address, &|e, _| {
                    if e.local_if.is_none() && e.link_status != Some(Status::Symmetric) {
                        e.other_neighb = Some(Status::Symmetric);
                        e.neighbor = Some(*id);
                    }
                });
            }
        }
        for address in self.lost.keys() {
            edit(&mut entries, *address, &|e, new| {
                if new {
                    e.other_neighb = Some(Status::Lost);
                }
            });
        }
        let rank = |e: &HelloEntry| {
            let code = |s: Option<Status>| s.map_or(3, Status::code);
            let local = e.local_if.map_or(2, |l| u8::from(l == LocalIf::Other));
            (local, code(e.link_status), code(e.other_neighb))
        };
        entries.sort_by_key(rank);
        Some(Hello {
            originator: None,
            validity: self.config.hello_hold,
            interval: Some(self.hello_interval(index)),
            tlvs: Vec::new(),
            entries,
        })
    }
}

//! What a HELLO does to the tables (RFC 6130 §12.2 to §12.6).

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::Instant;
use rfc5444::NetAddr;

use crate::core::{Event, Nhdp};
use crate::hello::{Hello, HelloEntry, HelloError, LocalIf, Status};
use crate::liveness::Signs;
use crate::tables::{Extension, Link, LinkId, LinkStatus, Neighbor, NeighborId, TwoHop};

/// Addresses a neighbour has at the least when there are many, and neighbours' addresses for each link.
const EACH: usize = 8;
/// So many links may have all the 2-Hop Tuples that one may have; with more each has an equal part.
const TWO_HOPS: usize = 64;

impl<X: Extension> Nhdp<X> {
    /// Processes a HELLO that came from `source` over an interface. Returns the link and the neighbour it
    /// is about, for the protocol on top to read its own TLVs into.
    ///
    /// # Errors
    /// Why the HELLO was discarded; no table changed then.
    pub fn process(
        &mut self,
        now: Instant,
        interface: u32,
        source: IpAddr,
        hello: &Hello,
    ) -> Result<(LinkId, NeighborId), HelloError> {
        self.handle_timeout(now);
        let local = |which: Option<LocalIf>| {
            let own = hello.entries.iter().filter(move |e| match which {
                Some(w) => e.local_if == Some(w),
                None => e.local_if.is_some(),
            });
            own.map(|e| e.address)
        };
        let mut sending: Vec<NetAddr> = local(Some(LocalIf::This)).collect();
        if sending.is_empty() {
            sending = vec![NetAddr::host(source)];
        }
        // The address packets come from first: it is the next hop.
        sending.sort_by_key(|a| !a.contains(source));
        let mut all = sending.clone();
        all.extend(local(Some(LocalIf::Other)));
        self.check(now, interface, &sending, &all)?;

        let (neighbor, removed) = self.update_neighbor(now, &all);
        self.drop_addresses(now, &removed);
        let link = self.update_link(now, interface, sending, neighbor, hello);
        self.hello_from(now, interface, link, hello.interval.unwrap_or(hello.validity));
        self.update_two_hops(now, interface, link, &all, hello);
        self.doubt_lost(now, hello);
        self.next_expiry = self.next_expiry.min(now + hello.validity);
        Ok((link, neighbor))
    }

    /// §12.1, the part that needs our tables; makes room for a new link.
    fn check(
        &mut self,
        now: Instant,
        interface: u32,
        sending: &[NetAddr],
        all: &[NetAddr],
    ) -> Result<(), HelloError> {
        let limits = self.config.limits;
        let links = &self.interfaces.get(&interface).ok_or(HelloError::UnknownInterface)?.links;
        if all.len() > limits.neighbor_addresses || !self.has_room_for(all) {
            self.refused += 1;
            return Err(HelloError::TooManyAddresses);
        }
        if let Some(ours) = all.iter().find(|a| self.is_ours(**a)) {
            return Err(HelloError::OurAddress(*ours));
        }
        let matches = |l: &Link<X>| l.addresses.iter().any(|a| sending.contains(a));
        if links.len() >= limits.links && !links.values().any(matches) {
            // Time for our HELLO and an answer.
            let stay = self.config.hello_interval.times(2);
            let weak = links.iter().filter(|(_, l)| l.settled != LinkStatus::Symmetric);
            let weak = weak.filter(|(_, l)| l.since + stay <= now);
            let oldest = weak.min_by_key(|(_, l)| (l.proven, l.since)).map(|(id, _)| *id);
            self.refused += 1;
            let id = oldest.ok_or(HelloError::TooManyLinks)?;
            if let Some(i) = self.interfaces.get_mut(&interface) {
                i.links.remove(&id);
            }
            self.sweep_neighbors();
        }
        Ok(())
    }

    /// Whether a HELLO of ours can name all neighbours' addresses with these among them.
    fn has_room_for(&self, all: &[NetAddr]) -> bool {
        let links = self.config.limits.links;
        let others = self.neighbors.values().filter(|n| !n.addresses.iter().any(|a| all.contains(a)));
        let after = others.map(|n| n.addresses.len()).sum::<usize>() + all.len();
        after <= links * (EACH / 2) || (after <= links * EACH && all.len() <= EACH)
    }

    /// Forgets neighbours no link points to.
    fn sweep_neighbors(&mut self) {
        let interfaces = &self.interfaces;
        self.neighbors.retain(|id, _| {
            interfaces.values().flat_map(|i| i.links.values()).any(|l| l.neighbor == Some(*id))
        });
    }

    /// §12.3 and §12.4. Returns the Removed Address List.
    fn update_neighbor(&mut self, now: Instant, all: &[NetAddr]) -> (NeighborId, Vec<NetAddr>) {
        let overlaps = |n: &Neighbor<X>| n.addresses.iter().any(|a| all.iter().any(|b| a.overlaps(*b)));
        let matching: Vec<NeighborId> =
            self.neighbors.iter().filter(|(_, n)| overlaps(n)).map(|(id, _)| *id).collect();
        let mut removed = Vec::new();
        let mut lost = Vec::new();
        for neighbor in matching.iter().filter_map(|id| self.neighbors.get(id)) {
            for address in neighbor.addresses.iter().filter(|a| !all.contains(a)) {
                removed.push(*address);
                if neighbor.symmetric {
                    lost.push(*address);
                }
            }
        }
        let id = match matching[..] {
            [only] => only,
            _ => NeighborId(self.new_id()),
        };
        if matching.len() > 1 {
            for old in &matching {
                self.neighbors.remove(old);
            }
            for link in self.interfaces.values_mut().flat_map(|i| i.links.values_mut()) {
                if link.neighbor.is_some_and(|n| matching.contains(&n)) {
                    link.neighbor = Some(id);
                }
            }
        }
        let neighbor = self.neighbors.entry(id).or_insert_with(|| Neighbor {
            addresses: Vec::new(),
            symmetric: false,
            ext: X::Neighbor::default(),
        });
        if neighbor.addresses != all {
            neighbor.addresses = all.to_vec();
            self.changed = true;
        }
        if neighbor.symmetric {
            // An address that comes back is lost no more (Appendix B).
            self.lost.retain(|a, _| !all.contains(a));
        }
        self.add_lost(now, &lost);
        (id, removed)
    }

    /// §12.5, first part: addresses the neighbour has no more leave every link.
    fn drop_addresses(&mut self, now: Instant, removed: &[NetAddr]) {
        if removed.is_empty() {
            return;
        }
        let mut empty = Vec::new();
        for (index, interface) in &mut self.interfaces {
            for (id, link) in &mut interface.links {
                link.addresses.retain(|a| !removed.contains(a));
                if link.addresses.is_empty() {
                    empty.push((*index, *id));
                }
            }
        }
        for (interface, id) in empty {
            self.detach_and_remove(now, interface, id);
        }
    }

    /// Removes a link without the neighbour following (§12.5: "apply Section 13.2 but not 13.3").
    fn detach_and_remove(&mut self, now: Instant, interface: u32, id: LinkId) {
        let Some(neighbor) = self.link_mut(interface, id).and_then(|l| l.neighbor.take()) else { return };
        self.remove_link(now, interface, id);
        self.settle_neighbor(now, neighbor);
    }

    /// §12.5, second part: the link over which the HELLO came.
    fn update_link(
        &mut self,
        now: Instant,
        interface: u32,
        sending: Vec<NetAddr>,
        neighbor: NeighborId,
        hello: &Hello,
    ) -> LinkId {
        let matching: Vec<LinkId> = self.interfaces.get(&interface).map_or_else(Vec::new, |i| {
            let found = i.links.iter().filter(|(_, l)| l.addresses.iter().any(|a| sending.contains(a)));
            found.map(|(id, _)| *id).collect()
        });
        let id = match matching.as_slice() {
            [only] => *only,
            several => {
                for id in several {
                    self.detach_and_remove(now, interface, *id);
                }
                let id = LinkId(self.new_id());
                let link = self.new_link(now, hello);
                if let Some(i) = self.interfaces.get_mut(&interface) {
                    i.links.insert(id, link);
                }
                id
            }
        };
        let word = self.word_on_us(interface, hello);
        let hold = self.config.lost_hold;
        let Some(link) = self.link_mut(interface, id) else { return id };
        // Silence says so each time, until the link ends of it; "heard" only if it was more before.
        let unnamed = word.is_none() && hello.is_complete();
        let forgotten = link.status_at(now) == LinkStatus::Symmetric
            && (unnamed || word == Some(Status::Heard) && link.called_symmetric);
        if word.is_some() || unnamed {
            link.called_symmetric = word == Some(Status::Symmetric);
        }
        match word {
            Some(Status::Heard | Status::Symmetric) => link.symmetric_until = now + hello.validity,
            Some(Status::Lost) if link.symmetric_until > now => {
                link.symmetric_until = Instant::ZERO;
                if link.status_at(now) == LinkStatus::Heard {
                    link.expires = now + hold;
                }
            }
            _ => {}
        }
        let address = sending.first().copied().filter(|_| forgotten);
        link.addresses = sending;
        link.neighbor = Some(neighbor);
        link.heard_until = (now + hello.validity).max(link.symmetric_until);
        match link.status_at(now) {
            LinkStatus::Pending => link.expires = link.expires.max(link.heard_until),
            LinkStatus::Heard | LinkStatus::Symmetric => {
                link.expires = link.expires.max(link.heard_until + hold);
            }
            LinkStatus::Lost => {}
        }
        let (expires, symmetric_until) = (link.expires, link.symmetric_until);
        self.next_expiry = self.next_expiry.min(expires);
        if symmetric_until > now {
            self.next_expiry = self.next_expiry.min(symmetric_until);
        }
        self.settle(now, interface, id);
        self.events.extend(address.map(|address| Event::Forgotten { interface, address }));
        id
    }

    fn new_link(&self, now: Instant, hello: &Hello) -> Link<X> {
        let quality = self.config.quality;
        let pending = quality.initial < quality.accept;
        Link {
            addresses: Vec::new(),
            heard_until: Instant::ZERO,
            symmetric_until: Instant::ZERO,
            expires: now + hello.validity,
            quality: quality.initial,
            pending,
            lost: false,
            signs: Signs::new(),
            neighbor: None,
            ext: X::Link::default(),
            since: now,
            proven: false,
            called_symmetric: false,
            settled: LinkStatus::Pending,
            two_hops: BTreeMap::new(),
        }
    }

    /// What the sender says of the link to us: the best word on any of the receiving interface's addresses.
    pub(crate) fn word_on_us(&self, interface: u32, hello: &Hello) -> Option<Status> {
        let mut lost = None;
        for entry in self.entries_on_us(interface, hello) {
            match entry.link_status {
                Some(Status::Lost) => lost = Some(Status::Lost),
                Some(up) => return Some(up),
                None => {}
            }
        }
        lost
    }

    /// The entries of a HELLO about addresses of the receiving interface.
    pub fn entries_on_us<'h>(
        &self,
        interface: u32,
        hello: &'h Hello,
    ) -> impl Iterator<Item = &'h HelloEntry> + use<'_, 'h, X> {
        let ours = self.interfaces.get(&interface).map_or(&[][..], |i| &i.addresses);
        hello.entries.iter().filter(move |e| ours.contains(&e.address))
    }

    /// §12.6, with RFC 7466: the neighbours of the sender.
    fn update_two_hops(&mut self, now: Instant, interface: u32, id: LinkId, all: &[NetAddr], hello: &Hello) {
        let limit = self.two_hop_limit();
        let news: Vec<(NetAddr, bool)> = hello
            .entries
            .iter()
            .filter(|e| e.link_status.is_some() || e.other_neighb.is_some())
            .filter(|e| !all.contains(&e.address) && !self.is_exactly_ours(e.address))
            .map(|e| (e.address, e.is_symmetric()))
            .collect();
        let Some(link) = self.link_mut(interface, id).filter(|l| l.symmetric_until > now) else { return };
        let mut changed = false;
        let mut refused = 0;
        for (address, symmetric) in news {
            if !symmetric {
                changed |= link.two_hops.remove(&address).is_some();
                continue;
            }
            let expires = now + hello.validity;
            if let Some(known) = link.two_hops.get_mut(&address) {
                known.expires = expires;
            } else if link.two_hops.len() < limit {
                link.two_hops.insert(address, TwoHop { expires, ext: X::TwoHop::default() });
                changed = true;
            } else {
                refused += 1;
            }
        }
        self.changed |= changed;
        self.refused += refused;
    }

    /// Neighbours that the sender lost are asked whether they are there, unless they were heard just now: who is off
    /// the air is noticed by all at once, not by one after the other.
    fn doubt_lost(&mut self, now: Instant, hello: &Hello) {
        let lost = |e: &&HelloEntry| [e.link_status, e.other_neighb].contains(&Some(Status::Lost));
        let lost: Vec<NetAddr> = hello.entries.iter().filter(lost).map(|e| e.address).collect();
        if lost.is_empty() {
            return;
        }
        let recent = self.config.liveness.probe_timeout;
        let links = self.interfaces.iter().flat_map(|(index, i)| i.links.iter().map(move |l| (*index, l)));
        let silent = links
            .filter(|(_, (_, l))| l.settled == LinkStatus::Symmetric && l.signs.last_packet + recent <= now);
        let doubtful = silent.filter(|(_, (_, l))| l.addresses.iter().any(|a| lost.contains(a)));
        let doubtful: Vec<(u32, LinkId)> = doubtful.map(|(index, (id, _))| (index, *id)).collect();
        doubtful.into_iter().for_each(|(index, id)| self.probe(now, index, id));
    }

    /// How many 2-Hop Tuples a link may have now.
    fn two_hop_limit(&self) -> usize {
        let limit = self.config.limits.two_hops;
        let links = || self.interfaces.values().flat_map(|i| i.links.values());
        let total = limit * TWO_HOPS;
        let used: usize = links().map(|l| l.two_hops.len()).sum();
        if used < total { limit } else { limit.min(total / 2 / links().count().max(1)) }
    }

    pub(crate) fn is_exactly_ours(&self, address: NetAddr) -> bool {
        let own = self.interfaces.values().flat_map(|i| &i.addresses);
        own.chain(&self.config.other_addresses).any(|a| *a == address) || self.was_ours(address)
    }
}

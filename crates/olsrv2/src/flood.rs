//! Which messages were seen before: Processed, Received and Forwarded Sets (RFC 7181 §10, §14), in one
//! table.

use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant};
use rfc5444::NetAddr;

use crate::names::{Name, Names, make_room};
use crate::shares::{Giver, Room, Shares};
use crate::tick::{Tick, ticks};

/// What names a message: type, originator, sequence number.
pub(crate) type MessageKey = (u8, IpAddr, u16);

/// Most messages remembered of one originator: more than one can send in the hold time.
const PER_ORIGINATOR: usize = 512;

/// All three sets. Entries live for the hold time. When there is no room for another, the older half goes of
/// what the greediest neighbour brought, or of what this one brought if it has its share.
#[derive(Debug)]
pub(crate) struct SeenSet {
    /// Originators of whom there are entries.
    originators: Names,
    /// By originator: the place of its youngest entry.
    heads: Vec<u32>,
    /// A list for each originator, and one of the places that are free.
    entries: Vec<Seen>,
    free: u32,
    shares: Shares,
    hold: Duration,
    /// When originators of whom nothing comes any more are looked for.
    next_sweep: Instant,
}

/// What was done with one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    since: Tick,
    /// The place of the next older one.
    next: u32,
    seq: u16,
    /// A bit for each interface, by [`crate::router::Port::slot`].
    received: u16,
    /// Who brought the first copy.
    giver: Giver,
    kind: u8,
    /// [`PROCESSED`] and [`FORWARDED`].
    done: u8,
}

const PROCESSED: u8 = 1;
const FORWARDED: u8 = 2;
/// No place.
const NOWHERE: u32 = u32::MAX;

impl Seen {
    /// It is processed from now on; `false` if it was already.
    pub(crate) fn process(&mut self) -> bool {
        let news = self.done & PROCESSED == 0;
        self.done |= PROCESSED;
        news
    }

    /// It was not processed after all.
    pub(crate) fn process_later(&mut self) {
        self.done &= !PROCESSED;
    }

    pub(crate) fn forward(&mut self) {
        self.done |= FORWARDED;
    }

    pub(crate) fn is_forwarded(&self) -> bool {
        self.done & FORWARDED != 0
    }

    /// Notes that the message came over that interface; `false` if it had before.
    pub(crate) fn receive(&mut self, slot: u8) -> bool {
        let bit = 1u16.checked_shl(slot.into()).unwrap_or(0);
        let news = self.received & bit == 0;
        self.received |= bit;
        news
    }
}

impl SeenSet {
    pub(crate) fn new(hold: Duration, limit: usize) -> Self {
        Self {
            originators: Names::default(),
            heads: Vec::new(),
            entries: Vec::new(),
            free: NOWHERE,
            shares: Shares::new(u32::try_from(limit.max(2)).unwrap_or(u32::MAX)),
            hold,
            next_sweep: Instant::ZERO,
        }
    }

    /// What was done with a message so far; a new entry if it was never seen. `by`: the neighbour that sent
    /// it now.
    pub(crate) fn entry(
        &mut self,
        now: Instant,
        (kind, originator, seq): MessageKey,
        by: IpAddr,
    ) -> &mut Seen {
        if self.next_sweep <= now {
            self.sweep(now, self.hold, None);
            self.next_sweep = now + self.hold;
        }
        let (tick, most) = (Tick::of(now), ticks(self.hold));
        let host = NetAddr::host(originator);
        let known = self.originators.find(host);
        let found = known.and_then(|name| {
            self.release(name, |s| s.since.age(tick) > most);
            self.places(name).find(|(_, s)| (s.kind, s.seq) == (kind, seq)).map(|(at, _)| at)
        });
        let at = found.unwrap_or_else(|| {
            if self.shares.is_full() {
                let giver = self.shares.giver(by);
                self.make_room(now, giver);
            }
            let giver = self.shares.giver(by);
            let new = Seen { since: tick, next: NOWHERE, seq, received: 0, giver, kind, done: 0 };
            self.insert(host, new)
        });
        #[allow(clippy::indexing_slicing)] // found or put in just now
        &mut self.entries[at as usize]
    }

    /// An originator's entries and where they are, the youngest first.
    fn places(&self, name: Name) -> impl Iterator<Item = (u32, &Seen)> {
        let mut at = self.heads.get(name as usize).copied().unwrap_or(NOWHERE);
        core::iter::from_fn(move || {
            let (place, entry) = (at, self.entries.get(at as usize)?);
            at = entry.next;
            Some((place, entry))
        })
    }

    fn insert(&mut self, originator: NetAddr, new: Seen) -> u32 {
        // Held once.
        let known = self.originators.find(originator);
        let name = known.unwrap_or_else(|| self.originators.hold(originator));
        while self.heads.len() < self.originators.len() {
            make_room(&mut self.heads);
            self.heads.push(NOWHERE);
        }
        if self.places(name).count() >= PER_ORIGINATOR {
            // The oldest comes last.
            let oldest = self.places(name).last().map(|(at, _)| at);
            self.release_where(name, |at, _| Some(at) == oldest);
        }
        let Some(head) = self.heads.get_mut(name as usize) else { return NOWHERE };
        let new = Seen { next: *head, ..new };
        self.shares.change(new.giver, 0, 1);
        *head = match self.entries.get_mut(self.free as usize) {
            Some(entry) => {
                let place = core::mem::replace(&mut self.free, entry.next);
                *entry = new;
                place
            }
            None => {
                make_room(&mut self.entries);
                self.entries.push(new);
                (self.entries.len() - 1) as u32
            }
        };
        *head
    }

    /// How many messages of the same type and originator came in the last `window` first by the neighbour that
    /// brought this one first.
    pub(crate) fn lately(
        &self,
        now: Instant,
        (kind, originator, seq): MessageKey,
        window: Duration,
    ) -> usize {
        let Some(name) = self.originators.find(NetAddr::host(originator)) else { return 0 };
        let list = || self.places(name).map(|(_, s)| s);
        let giver = list().find(|s| (s.kind, s.seq) == (kind, seq)).map(|s| s.giver);
        let (tick, most) = (Tick::of(now), ticks(window));
        let fits = |s: &&Seen| s.kind == kind && Some(s.giver) == giver && s.since.age(tick) <= most;
        list().filter(fits).count()
    }

    fn make_room(&mut self, now: Instant, giver: Giver) {
        let from = match self.shares.room(giver, 1, false, |_| true) {
            Room::Free => return,
            Room::From { giver, .. } => Some(giver),
            Room::Refused => Some(giver).filter(|g| self.shares.has_its_share(*g)),
        };
        let mut hold = self.hold;
        while self.shares.is_full() && hold > Duration::ZERO {
            hold = hold.divided_by(2);
            self.sweep(now, hold, from);
        }
    }

    /// Forgets what is older than `hold`, of what one neighbour brought or of all.
    fn sweep(&mut self, now: Instant, hold: Duration, from: Option<Giver>) {
        let (tick, most) = (Tick::of(now), ticks(hold));
        for name in 0..self.heads.len() as Name {
            if self.places(name).next().is_none() {
                continue;
            }
            self.release(name, |s| {
                from.is_none_or(|g| s.giver == g) && (s.since.age(tick) > most || hold == Duration::ZERO)
            });
            if self.places(name).next().is_none() {
                self.originators.release(name);
            }
        }
        self.originators.sweep();
        self.pack();
    }

    /// After a flood most places may be free.
    fn pack(&mut self) {
        let used = self.shares.used() as usize;
        if self.entries.len() / 2 <= used {
            return;
        }
        let mut packed = Vec::with_capacity(used);
        for head in &mut self.heads {
            let mut next = self.entries.get(*head as usize);
            *head = if next.is_some() { packed.len() as u32 } else { NOWHERE };
            while let Some(entry) = next {
                next = self.entries.get(entry.next as usize);
                let following = if next.is_some() { packed.len() as u32 + 1 } else { NOWHERE };
                packed.push(Seen { next: following, ..*entry });
            }
        }
        (self.entries, self.free) = (packed, NOWHERE);
    }

    /// Forgets those of an originator that are to go.
    fn release(&mut self, name: Name, goes: impl Fn(&Seen) -> bool) {
        self.release_where(name, |_, s| goes(s));
    }

    fn release_where(&mut self, name: Name, goes: impl Fn(u32, &Seen) -> bool) {
        let mut before = NOWHERE;
        let mut at = self.heads.get(name as usize).copied().unwrap_or(NOWHERE);
        while let Some(entry) = self.entries.get_mut(at as usize) {
            let next = entry.next;
            if goes(at, entry) {
                self.shares.change(entry.giver, 1, 0);
                entry.next = core::mem::replace(&mut self.free, at);
                let link = match self.entries.get_mut(before as usize) {
                    Some(entry) => Some(&mut entry.next),
                    None => self.heads.get_mut(name as usize),
                };
                link.into_iter().for_each(|link| *link = next);
            } else {
                before = at;
            }
            at = next;
        }
    }

    /// An interface is gone: its Received Set, too.
    pub(crate) fn forget_interface(&mut self, slot: u8) {
        let bit = 1u16.checked_shl(slot.into()).unwrap_or(0);
        // Those that are free say nothing.
        self.entries.iter_mut().for_each(|s| s.received &= !bit);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        (0..self.heads.len() as Name).map(|name| self.places(name).count()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seq: u16) -> MessageKey {
        (1, IpAddr::from([10, 0, 0, 1]), seq)
    }

    const BY: IpAddr = IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED);

    fn process(set: &mut SeenSet, millis: u64, seq: u16) -> bool {
        set.entry(Instant::from_millis(millis), key(seq), BY).process()
    }

    #[test]
    fn rfc7181_10_entries_expire_and_are_bounded() {
        let mut set = SeenSet::new(Duration::from_secs(30), 8);
        assert!(process(&mut set, 0, 1));
        assert!(!process(&mut set, 29_990, 1));
        assert!(process(&mut set, 30_100, 1));
        for seq in 2..100 {
            assert!(process(&mut set, 30_000 + 100 * u64::from(seq), seq));
            assert!(set.len() <= 8 && set.len() == set.shares.used() as usize);
        }
        assert!(!process(&mut set, 40_000, 99));
        assert!(process(&mut set, 40_000, 2));
        for n in 0..100 {
            set.entry(Instant::from_millis(40_000), (1, IpAddr::from([10, 0, 1, n]), 1), BY);
            assert!(set.len() <= 8, "all at one instant");
        }
    }

    #[test]
    fn rfc7181_10_received_sets_are_per_interface() {
        let mut set = SeenSet::new(Duration::from_secs(30), 8);
        let seen = set.entry(Instant::ZERO, key(1), BY);
        assert!(seen.receive(0) && seen.receive(15) && !seen.receive(0));
        set.forget_interface(0);
        let seen = set.entry(Instant::ZERO, key(1), BY);
        assert!(seen.receive(0) && !seen.receive(15));
    }

    fn ip(a: u8, n: u16) -> IpAddr {
        let [high, low] = n.to_be_bytes();
        IpAddr::from([10, a, high, low])
    }

    #[test]
    fn rfc7181_14_a_flood_of_one_neighbours_makes_nothing_seen_twice_that_others_brought() {
        let mut set = SeenSet::new(Duration::from_secs(30), 1600);
        let real = |n: u16| (1, ip(1, n), 7);
        for n in 0..50 {
            assert!(set.entry(Instant::from_millis(n.into()), real(n), ip(0, 1)).process());
        }
        for n in 0..20_000u16 {
            let now = Instant::from_millis(100 + u64::from(n / 10));
            assert!(set.entry(now, (1, ip(2, n / 3), n), ip(0, 2)).process());
            assert!(set.len() <= 1600 && set.len() == set.shares.used() as usize);
        }
        for n in 0..100 {
            let news = set.entry(Instant::from_millis(3000), real(n), ip(0, 3)).process();
            assert_eq!(news, n >= 50, "{n}");
        }
        assert!(set.len() <= 1600);
    }

    #[test]
    fn rfc7181_10_one_originator_has_a_bounded_list() {
        let mut set = SeenSet::new(Duration::from_secs(30), 65_536);
        for seq in 0..10_000 {
            assert!(process(&mut set, 1, seq));
        }
        assert_eq!((set.len(), set.shares.used() as usize), (PER_ORIGINATOR, PER_ORIGINATOR));
    }

    #[test]
    fn messages_of_one_originator_are_counted_for_each_neighbour_that_brings_them() {
        let mut set = SeenSet::new(Duration::from_secs(30), 1000);
        let window = Duration::from_secs(10);
        for seq in 0..30u16 {
            let at = Instant::from_millis(u64::from(seq) * 1000);
            set.entry(at, key(seq), ip(0, seq % 3));
            assert_eq!(set.lately(at, key(seq), window), usize::from(seq / 3 + 1).min(4), "{seq}");
        }
        assert_eq!(set.lately(Instant::from_millis(30_000), (2, ip(0, 1), 1), window), 0);
    }
}

//! Which messages were seen before: Processed, Received and Forwarded Sets (RFC 7181 §10, §14), in one
//! table.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant};

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
    originators: BTreeMap<IpAddr, Vec<Seen>>,
    shares: Shares,
    hold: Duration,
    /// When originators of whom nothing comes any more are looked for.
    next_sweep: Instant,
}

/// What was done with one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    since: Tick,
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
        let shares = Shares::new(u32::try_from(limit.max(2)).unwrap_or(u32::MAX));
        Self { originators: BTreeMap::new(), shares, hold, next_sweep: Instant::ZERO }
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
        let same = |s: &Seen| (s.kind, s.seq) == (kind, seq);
        let giver = self.shares.giver(by);
        if self.shares.is_full() && !self.originators.get(&originator).is_some_and(|l| l.iter().any(same)) {
            self.make_room(now, giver);
        }
        let giver = self.shares.giver(by);
        let (tick, most) = (Tick::of(now), ticks(self.hold));
        let list = self.originators.entry(originator).or_default();
        // The oldest comes first.
        if list.first().is_some_and(|s| s.since.age(tick) > most) {
            release(&mut self.shares, list, |s| s.since.age(tick) > most);
        }
        let at = list.iter().position(same).unwrap_or_else(|| {
            if list.len() >= PER_ORIGINATOR {
                let oldest = list.remove(0);
                self.shares.change(oldest.giver, 1, 0);
            }
            if list.len() == list.capacity() {
                list.reserve_exact(list.len() / 2 + 1);
            }
            list.push(Seen { since: tick, seq, received: 0, giver, kind, done: 0 });
            self.shares.change(giver, 0, 1);
            list.len() - 1
        });
        #[allow(clippy::indexing_slicing)] // found or pushed just now
        &mut list[at]
    }

    /// How many messages of the same type and originator came in the last `window` first by the neighbour that
    /// brought this one first.
    pub(crate) fn lately(
        &self,
        now: Instant,
        (kind, originator, seq): MessageKey,
        window: Duration,
    ) -> usize {
        let Some(list) = self.originators.get(&originator) else { return 0 };
        let giver = list.iter().find(|s| (s.kind, s.seq) == (kind, seq)).map(|s| s.giver);
        let (tick, most) = (Tick::of(now), ticks(window));
        let fits = |s: &&Seen| s.kind == kind && Some(s.giver) == giver && s.since.age(tick) <= most;
        list.iter().filter(fits).count()
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
        let shares = &mut self.shares;
        self.originators.retain(|_, list| {
            release(shares, list, |s| {
                from.is_none_or(|g| s.giver == g) && (s.since.age(tick) > most || hold == Duration::ZERO)
            });
            !list.is_empty()
        });
    }

    /// An interface is gone: its Received Set, too.
    pub(crate) fn forget_interface(&mut self, slot: u8) {
        let bit = 1u16.checked_shl(slot.into()).unwrap_or(0);
        self.originators.values_mut().flatten().for_each(|s| s.received &= !bit);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.originators.values().map(Vec::len).sum()
    }
}

/// Forgets those that are to go.
fn release(shares: &mut Shares, list: &mut Vec<Seen>, goes: impl Fn(&Seen) -> bool) {
    list.retain(|s| {
        let goes = goes(s);
        if goes {
            shares.change(s.giver, 1, 0);
        }
        !goes
    });
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

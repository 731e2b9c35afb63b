//! Which messages were seen before: Processed, Received and Forwarded Sets (RFC 7181 §10, §14), in one
//! table.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant};

/// What names a message: type, originator, sequence number.
pub(crate) type MessageKey = (u8, IpAddr, u16);

/// All three sets. Entries live for the hold time; when full, the older half goes.
#[derive(Debug)]
pub(crate) struct SeenSet {
    originators: BTreeMap<IpAddr, Vec<Seen>>,
    count: usize,
    hold: Duration,
    limit: usize,
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
    kind: u8,
    pub(crate) processed: bool,
    pub(crate) forwarded: bool,
}

impl Seen {
    /// Notes that the message came over that interface; `false` if it had before.
    pub(crate) fn receive(&mut self, slot: u8) -> bool {
        let bit = 1u16.checked_shl(slot.into()).unwrap_or(0);
        let news = self.received & bit == 0;
        self.received |= bit;
        news
    }
}

/// Time in steps of 2^14 µs, 16 ms; wraps after two years, entries live for seconds.
#[derive(Clone, Copy, Debug)]
struct Tick(u32);

impl Tick {
    fn of(now: Instant) -> Self {
        Self((now.as_micros() >> 14) as u32)
    }
    fn age(self, now: Self) -> u32 {
        now.0.wrapping_sub(self.0)
    }
}

impl SeenSet {
    pub(crate) fn new(hold: Duration, limit: usize) -> Self {
        let limit = limit.max(2);
        Self { originators: BTreeMap::new(), count: 0, hold, limit, next_sweep: Instant::ZERO }
    }

    /// What was done with a message so far; a new entry if it was never seen.
    pub(crate) fn entry(&mut self, now: Instant, (kind, originator, seq): MessageKey) -> &mut Seen {
        if self.next_sweep <= now {
            self.sweep(now, self.hold);
            self.next_sweep = now + self.hold;
        }
        let mut hold = self.hold;
        while self.count >= self.limit && hold > Duration::ZERO {
            hold = hold.divided_by(2);
            self.sweep(now, hold);
        }
        let (tick, most) = (Tick::of(now), ticks(self.hold));
        let list = self.originators.entry(originator).or_default();
        let before = list.len();
        // The oldest comes first.
        if list.first().is_some_and(|s| s.since.age(tick) > most) {
            list.retain(|s| s.since.age(tick) <= most);
        }
        let at = list.iter().position(|s| (s.kind, s.seq) == (kind, seq)).unwrap_or_else(|| {
            if list.len() == list.capacity() {
                list.reserve_exact(list.len() / 2 + 1);
            }
            list.push(Seen { since: tick, seq, received: 0, kind, processed: false, forwarded: false });
            list.len() - 1
        });
        self.count = self.count + list.len() - before;
        #[allow(clippy::indexing_slicing)] // found or pushed just now
        &mut list[at]
    }

    /// Forgets what is older than `hold`.
    fn sweep(&mut self, now: Instant, hold: Duration) {
        let (tick, most) = (Tick::of(now), ticks(hold));
        self.count = 0;
        let count = &mut self.count;
        self.originators.retain(|_, list| {
            list.retain(|s| s.since.age(tick) <= most && hold > Duration::ZERO);
            *count += list.len();
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

fn ticks(span: Duration) -> u32 {
    u32::try_from(span.as_micros() >> 14).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seq: u16) -> MessageKey {
        (1, IpAddr::from([10, 0, 0, 1]), seq)
    }

    fn process(set: &mut SeenSet, millis: u64, seq: u16) -> bool {
        let seen = set.entry(Instant::from_millis(millis), key(seq));
        !core::mem::replace(&mut seen.processed, true)
    }

    #[test]
    fn rfc7181_10_entries_expire_and_are_bounded() {
        let mut set = SeenSet::new(Duration::from_secs(30), 8);
        assert!(process(&mut set, 0, 1));
        assert!(!process(&mut set, 29_990, 1));
        assert!(process(&mut set, 30_100, 1));
        for seq in 2..100 {
            assert!(process(&mut set, 30_000 + 100 * u64::from(seq), seq));
            assert!(set.len() <= 8 && set.len() == set.count);
        }
        assert!(!process(&mut set, 40_000, 99));
        assert!(process(&mut set, 40_000, 2));
        for n in 0..100 {
            set.entry(Instant::from_millis(40_000), (1, IpAddr::from([10, 0, 1, n]), 1));
            assert!(set.len() <= 8, "all at one instant");
        }
    }

    #[test]
    fn rfc7181_10_received_sets_are_per_interface() {
        let mut set = SeenSet::new(Duration::from_secs(30), 8);
        let seen = set.entry(Instant::ZERO, key(1));
        assert!(seen.receive(0) && seen.receive(15) && !seen.receive(0));
        set.forget_interface(0);
        let seen = set.entry(Instant::ZERO, key(1));
        assert!(seen.receive(0) && !seen.receive(15));
    }
}

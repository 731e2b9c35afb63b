//! Counters seen before: what keeps recorded messages from being played again (RFC 7183 §6.3.1, with the
//! counter of RFC 7182 §13.8 in place of a clock).
//!
//! A router numbers all its messages with one counter that never goes back. So:
//! - a HELLO has to be newer than the last one from that address on that interface;
//! - a record that a neighbour repeats has to be newer than that neighbour's last HELLO but one;
//! - a flooded message may come late, by another path: it has to be newer than what its originator had sent
//!   10 to 30 s ago (P_HOLD_TIME / 3), and what is newer than that is still in the Processed Set;
//! - a HELLO has to pass the flooded messages' rule for its originator, too.
//!
//! Only verified messages get here: without a key nobody fills these tables. When one is full, the
//! sender that has been silent longest makes room, if it has been silent for long.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use mesh_types::{Duration, Instant};

use crate::icv::Refusal;

/// Who was silent for less does not make room.
const SILENT: Duration = Duration::from_secs(600);

/// An originator's counters.
#[derive(Clone, Copy, Debug)]
struct Seen {
    newest: u64,
    /// The newest when the present period began.
    middle: u64,
    /// The newest when the period before began: nothing up to it is taken any more.
    floor: u64,
    since: Instant,
    heard: Instant,
}

impl Seen {
    /// Moves the floor up as time passes.
    fn age(&mut self, now: Instant, period: Duration) {
        let passed = now.saturating_since(self.since);
        if passed < period {
            return;
        }
        self.floor = if passed < period.times(2) { self.middle } else { self.newest };
        self.middle = self.newest;
        self.since = now;
    }
}

/// The counters of a sender's last two HELLOs.
#[derive(Clone, Copy, Debug)]
struct Hellos {
    last: u64,
    before: u64,
    heard: Instant,
}

/// All senders' counters.
#[derive(Debug)]
pub(crate) struct Replays {
    originators: BTreeMap<IpAddr, Seen>,
    /// By interface and the sender's address on it.
    links: BTreeMap<(u32, IpAddr), Hellos>,
    period: Duration,
    max_originators: usize,
    max_links: usize,
}

impl Replays {
    /// `hold` is P_HOLD_TIME.
    pub(crate) fn new(hold: Duration, max_originators: usize, max_links: usize) -> Self {
        Self {
            originators: BTreeMap::new(),
            links: BTreeMap::new(),
            period: hold.divided_by(3),
            max_originators,
            max_links,
        }
    }

    pub(crate) fn hello(
        &mut self,
        now: Instant,
        link: (u32, IpAddr),
        originator: Option<IpAddr>,
        counter: u64,
    ) -> Result<(), Refusal> {
        let before = self.links.get(&link).map_or(0, |h| h.last);
        if counter <= before {
            return Err(Refusal::Replayed);
        }
        if !has_room(&mut self.links, self.max_links, &link, now, |h| h.heard) {
            return Err(Refusal::Full);
        }
        if let Some(originator) = originator {
            self.flooded(now, originator, counter)?;
        }
        self.links.insert(link, Hellos { last: counter, before, heard: now });
        Ok(())
    }

    /// Of a message that a neighbour made for its own link, other than a HELLO.
    pub(crate) fn repeated(&self, link: (u32, IpAddr), counter: u64) -> Result<(), Refusal> {
        let newer = self.links.get(&link).is_some_and(|h| counter > h.before);
        if newer { Ok(()) } else { Err(Refusal::Replayed) }
    }

    /// Of a message that may have come a long way. Whether it was processed before is for the Processed Set
    /// to say.
    pub(crate) fn flooded(&mut self, now: Instant, originator: IpAddr, counter: u64) -> Result<(), Refusal> {
        if !has_room(&mut self.originators, self.max_originators, &originator, now, |s| s.heard) {
            return Err(Refusal::Full);
        }
        let fresh = Seen { newest: counter, middle: counter, floor: 0, since: now, heard: now };
        let seen = self.originators.entry(originator).or_insert(fresh);
        seen.age(now, self.period);
        if counter <= seen.floor {
            return Err(Refusal::Replayed);
        }
        seen.newest = seen.newest.max(counter);
        seen.heard = now;
        Ok(())
    }

    #[cfg(test)]
    fn len(&self) -> (usize, usize) {
        (self.originators.len(), self.links.len())
    }
}

/// Whether `key` is in the table or may be added; the longest silent one may have to go for it.
fn has_room<K: Ord + Copy, V>(
    table: &mut BTreeMap<K, V>,
    max: usize,
    key: &K,
    now: Instant,
    heard: impl Fn(&V) -> Instant,
) -> bool {
    if table.len() < max || table.contains_key(key) {
        return true;
    }
    let oldest = table.iter().map(|(k, v)| (heard(v), *k)).min();
    let Some((_, oldest)) = oldest.filter(|(at, _)| *at + SILENT <= now) else { return false };
    table.remove(&oldest);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    fn ip(n: u16) -> IpAddr {
        let [a, b] = n.to_be_bytes();
        IpAddr::from([10, 0, a, b])
    }

    #[test]
    fn rfc7183_6_3_1_a_hello_is_newer_than_the_last_of_its_sender() {
        let mut seen = Replays::new(HOLD, 8, 8);
        let link = (1, ip(1));
        for (counter, good) in [(5, true), (5, false), (4, false), (6, true), (1 << 32, true), (7, false)] {
            assert_eq!(seen.hello(at(0), link, Some(ip(9)), counter).is_ok(), good, "{counter}");
        }
        // The same HELLO on a second interface is no replay; neither is another router's number.
        assert!(seen.hello(at(0), (2, ip(1)), Some(ip(9)), 1 << 32).is_ok());
        assert!(seen.hello(at(0), (1, ip(2)), None, 3).is_ok());
        // It never ends: a sender that was away for a day goes on where it stopped.
        assert_eq!(seen.hello(at(86_400), link, Some(ip(9)), 1 << 32), Err(Refusal::Replayed));
        assert!(seen.hello(at(86_400), link, Some(ip(9)), (1 << 32) + 1).is_ok());
    }

    #[test]
    fn rfc7183_6_3_1_a_flood_may_come_late_but_not_as_late_as_the_processed_set_forgets() {
        let mut seen = Replays::new(HOLD, 8, 8);
        assert!(seen.flooded(at(0), ip(1), 100).is_ok());
        for (t, counter, good) in [
            (1, 105, true),
            (2, 104, true),  // overtaken
            (3, 100, true),  // again: the Processed Set knows it
            (11, 110, true), // the first ten seconds are over
            (12, 101, true),
            (12, 100, false),
            (22, 120, true),
            (22, 105, false),
            (22, 106, true),
            (60, 120, false), // silence: nothing old is taken
            (60, 121, true),
            (86_400, 121, false),
            (86_400, 1 << 32, true), // restarted
            (86_421, 200, false),
        ] {
            assert_eq!(seen.flooded(at(t), ip(1), counter).is_ok(), good, "{counter} at {t} s");
        }
    }

    #[test]
    fn rfc7183_6_3_1_what_passes_again_was_processed_within_p_hold_time() {
        // Any rhythm of one message a step: what is as old as P_HOLD_TIME is always refused.
        for step in [100, 900, 3_000, 9_999, 10_000, 15_000, 19_999, 20_000, 29_000] {
            let mut seen = Replays::new(HOLD, 8, 8);
            for n in 1..200u64 {
                let now = Instant::from_millis(n * step);
                assert!(seen.flooded(now, ip(1), n).is_ok());
                for old in (1..n).filter(|old| (n - old) * step >= 30_000) {
                    assert_eq!(seen.flooded(now, ip(1), old), Err(Refusal::Replayed), "{step} {n} {old}");
                }
            }
        }
    }

    #[test]
    fn rfc7183_8_2_a_moved_routers_old_hellos_are_known_by_its_floods() {
        let mut seen = Replays::new(HOLD, 8, 8);
        for n in 0..10 {
            assert!(seen.flooded(at(n * 5), ip(9), 1000 + n).is_ok());
        }
        assert_eq!(seen.hello(at(46), (1, ip(1)), Some(ip(9)), 990), Err(Refusal::Replayed));
        assert!(seen.hello(at(46), (1, ip(1)), Some(ip(9)), 1010).is_ok());
    }

    #[test]
    fn repeats_belong_to_the_last_hellos() {
        let mut seen = Replays::new(HOLD, 8, 8);
        assert_eq!(seen.repeated((1, ip(1)), 5), Err(Refusal::Replayed), "nothing was heard of it");
        assert!(seen.hello(at(0), (1, ip(1)), None, 5).is_ok());
        assert!(seen.hello(at(2), (1, ip(1)), None, 8).is_ok());
        assert!(seen.repeated((1, ip(1)), 9).is_ok());
        assert!(seen.repeated((1, ip(1)), 6).is_ok(), "overtaken by a HELLO");
        assert_eq!(seen.repeated((1, ip(1)), 5), Err(Refusal::Replayed));
        assert_eq!(seen.repeated((2, ip(1)), 6), Err(Refusal::Replayed));
    }

    #[test]
    fn full_tables_keep_whoever_is_there() {
        let mut seen = Replays::new(HOLD, 4, 4);
        for n in 0..4 {
            assert!(seen.hello(at(0), (1, ip(n)), Some(ip(n)), 7).is_ok());
        }
        for n in 4..1000 {
            assert_eq!(seen.hello(at(500), (1, ip(n)), Some(ip(n)), 7), Err(Refusal::Full));
            assert_eq!(seen.flooded(at(500), ip(n), 7), Err(Refusal::Full));
        }
        assert!((1..4).all(|n| seen.hello(at(500), (1, ip(n)), Some(ip(n)), 8).is_ok()));
        // Number 0 is silent for ten minutes: one newcomer takes its place, and only one.
        assert!(seen.hello(at(601), (1, ip(99)), Some(ip(99)), 1).is_ok());
        assert_eq!(seen.hello(at(601), (1, ip(98)), Some(ip(98)), 1), Err(Refusal::Full));
        assert_eq!(seen.len(), (4, 4));
        assert!((1..4).all(|n| seen.hello(at(602), (1, ip(n)), Some(ip(n)), 8) == Err(Refusal::Replayed)));
    }
}

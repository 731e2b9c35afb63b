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
//! Only verified messages get here: without a key nobody fills these tables. Who has one and invents originators
//! has its share of theirs ([`crate::shares`]); a place there is free again when nothing came for long. Of senders of
//! HELLOs that are no neighbours those are forgotten that were silent longest: their old HELLOs still have to
//! pass their originator's rule.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use mesh_types::{Duration, Instant};

use crate::icv::Refusal;
use crate::shares::{Giver, Room, Shares};
use crate::topology::Brought;

/// Who was silent for less does not make room.
const SILENT: Duration = Duration::from_secs(600);
/// In the place of a neighbour's originator address: all senders of HELLOs that are no neighbours.
const STRANGERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

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
    /// The neighbour whose share it is in.
    giver: Giver,
    /// When it came, counted in originators.
    born: u32,
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

/// Who is there.
pub(crate) struct Standing<'a> {
    /// Whether that is the originator address of a symmetric neighbour.
    pub(crate) alive: &'a dyn Fn(IpAddr) -> bool,
    /// Symmetric neighbours' addresses on our interfaces.
    pub(crate) near: &'a dyn Fn() -> BTreeSet<(u32, IpAddr)>,
}

/// All senders' counters.
#[derive(Debug)]
pub(crate) struct Replays {
    originators: BTreeMap<IpAddr, Seen>,
    /// By interface and the sender's address on it.
    links: BTreeMap<(u32, IpAddr), Hellos>,
    period: Duration,
    shares: Shares,
    born: u32,
    max_links: usize,
}

impl Replays {
    /// `hold` is P_HOLD_TIME.
    pub(crate) fn new(hold: Duration, max_originators: usize, max_links: usize) -> Self {
        Self {
            originators: BTreeMap::new(),
            links: BTreeMap::new(),
            period: hold.divided_by(3),
            shares: Shares::new(u32::try_from(max_originators).unwrap_or(u32::MAX)),
            born: 0,
            max_links,
        }
    }

    pub(crate) fn hello(
        &mut self,
        now: Instant,
        link: (u32, IpAddr),
        originator: Option<IpAddr>,
        standing: &Standing<'_>,
        counter: u64,
    ) -> Result<(), Refusal> {
        let before = self.links.get(&link).map_or(0, |h| h.last);
        if counter <= before {
            return Err(Refusal::Replayed);
        }
        let Standing { alive, near } = *standing;
        if self.links.len() >= self.max_links
            && !self.links.contains_key(&link)
            && !self.forget_strangers(&near())
        {
            return Err(Refusal::Full);
        }
        if let Some(originator) = originator {
            // Who is no neighbour yet shares one place with all others of its kind.
            let by = if alive(originator) { originator } else { STRANGERS };
            self.flooded(now, originator, &Brought { by, alive }, counter)?;
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
    pub(crate) fn flooded(
        &mut self,
        now: Instant,
        originator: IpAddr,
        brought: &Brought<'_>,
        counter: u64,
    ) -> Result<(), Refusal> {
        let known = self.originators.get(&originator).map(|s| s.giver);
        let giver = match known {
            Some(giver) if self.shares.is_alive(giver, brought.alive) => giver,
            _ => self.shares.giver(brought.by),
        };
        if known.is_none() {
            if !self.clear(self.room(giver, originator, brought), now) {
                return Err(Refusal::Full);
            }
            let giver = self.shares.giver(brought.by);
            self.shares.change(giver, 0, 1);
            self.born = self.born.wrapping_add(1);
            let born = self.born;
            let fresh =
                Seen { newest: counter, middle: counter, floor: 0, since: now, heard: now, giver, born };
            self.originators.insert(originator, fresh);
        }
        let Some(seen) = self.originators.get_mut(&originator) else { return Err(Refusal::Full) };
        seen.age(now, self.period);
        if counter <= seen.floor {
            return Err(Refusal::Replayed);
        }
        if known.is_some_and(|old| old != giver) {
            self.shares.change(seen.giver, 1, 0);
            self.shares.change(giver, 0, 1);
            seen.giver = giver;
        }
        seen.newest = seen.newest.max(counter);
        seen.heard = now;
        Ok(())
    }

    /// Whose place another originator may take.
    fn room(&self, giver: Giver, originator: IpAddr, brought: &Brought<'_>) -> Room {
        let stranger = brought.by == STRANGERS;
        match self.shares.room(giver, 1, stranger || originator == brought.by, brought.alive) {
            Room::Free => Room::Free,
            _ if stranger && self.shares.has_its_share(giver) => Room::From { giver, least: 1, most: 1 },
            room => room,
        }
    }

    /// Makes the room that is wanted; `false` if there is none.
    fn clear(&mut self, room: Room, now: Instant) -> bool {
        let victims: Vec<IpAddr> = match room {
            Room::Free => return true,
            Room::From { giver, least, most } => {
                let theirs = self.originators.iter().filter(|(_, s)| s.giver == giver);
                let mut theirs: Vec<(u32, IpAddr)> = theirs.map(|(a, s)| (s.born, *a)).collect();
                theirs.sort_unstable_by(|a, b| b.cmp(a));
                // Looking at all costs the same for one as for many.
                let enough = least.max(self.shares.share() / 64).min(most);
                theirs.into_iter().take(enough as usize).map(|(_, a)| a).collect()
            }
            Room::Refused => {
                let oldest = self.originators.iter().map(|(a, s)| (s.heard, *a)).min();
                oldest.filter(|(at, _)| *at + SILENT <= now).map(|(_, a)| a).into_iter().collect()
            }
        };
        for originator in &victims {
            if let Some(seen) = self.originators.remove(originator) {
                self.shares.change(seen.giver, 1, 0);
            }
        }
        !victims.is_empty()
    }

    /// Makes room in a full table of links; `false` if all are neighbours.
    fn forget_strangers(&mut self, near: &BTreeSet<(u32, IpAddr)>) -> bool {
        let strangers = self.links.iter().filter(|(link, _)| !near.contains(*link));
        let mut strangers: Vec<(Instant, (u32, IpAddr))> =
            strangers.map(|(link, h)| (h.heard, *link)).collect();
        strangers.sort_unstable();
        // Looking at all costs the same for one as for many.
        let enough = self.max_links / 64 + 1;
        for (_, link) in strangers.iter().take(enough) {
            self.links.remove(link);
        }
        !strangers.is_empty()
    }

    #[cfg(test)]
    fn len(&self) -> (usize, usize) {
        (self.originators.len(), self.links.len())
    }
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

    /// Everyone is a neighbour and nobody is near.
    const ANY: Standing<'static> = Standing { alive: &|_| true, near: &BTreeSet::new };
    const NOBODY: Standing<'static> = Standing { alive: &|_| false, near: &BTreeSet::new };

    /// By a neighbour of that number.
    fn brought(by: u16) -> Brought<'static> {
        Brought { by: ip(by), alive: &|_| true }
    }

    /// Brought by neighbour 0.
    fn flooded(seen: &mut Replays, now: Instant, originator: IpAddr, counter: u64) -> Result<(), Refusal> {
        seen.flooded(now, originator, &brought(0), counter)
    }

    #[test]
    fn rfc7183_6_3_1_a_hello_is_newer_than_the_last_of_its_sender() {
        let mut seen = Replays::new(HOLD, 8, 8);
        let link = (1, ip(1));
        for (counter, good) in [(5, true), (5, false), (4, false), (6, true), (1 << 32, true), (7, false)] {
            assert_eq!(seen.hello(at(0), link, Some(ip(9)), &ANY, counter).is_ok(), good, "{counter}");
        }
        // The same HELLO on a second interface is no replay; neither is another router's number.
        assert!(seen.hello(at(0), (2, ip(1)), Some(ip(9)), &ANY, 1 << 32).is_ok());
        assert!(seen.hello(at(0), (1, ip(2)), None, &ANY, 3).is_ok());
        // It never ends: a sender that was away for a day goes on where it stopped.
        assert_eq!(seen.hello(at(86_400), link, Some(ip(9)), &ANY, 1 << 32), Err(Refusal::Replayed));
        assert!(seen.hello(at(86_400), link, Some(ip(9)), &ANY, (1 << 32) + 1).is_ok());
    }

    #[test]
    fn rfc7183_6_3_1_a_flood_may_come_late_but_not_as_late_as_the_processed_set_forgets() {
        let mut seen = Replays::new(HOLD, 8, 8);
        assert!(flooded(&mut seen, at(0), ip(1), 100).is_ok());
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
            assert_eq!(flooded(&mut seen, at(t), ip(1), counter).is_ok(), good, "{counter} at {t} s");
        }
    }

    #[test]
    fn rfc7183_6_3_1_what_passes_again_was_processed_within_p_hold_time() {
        // Any rhythm of one message a step: what is as old as P_HOLD_TIME is always refused.
        for step in [100, 900, 3_000, 9_999, 10_000, 15_000, 19_999, 20_000, 29_000] {
            let mut seen = Replays::new(HOLD, 8, 8);
            for n in 1..200u64 {
                let now = Instant::from_millis(n * step);
                assert!(flooded(&mut seen, now, ip(1), n).is_ok());
                for old in (1..n).filter(|old| (n - old) * step >= 30_000) {
                    assert_eq!(
                        flooded(&mut seen, now, ip(1), old),
                        Err(Refusal::Replayed),
                        "{step} {n} {old}"
                    );
                }
            }
        }
    }

    #[test]
    fn rfc7183_8_2_a_moved_routers_old_hellos_are_known_by_its_floods() {
        let mut seen = Replays::new(HOLD, 8, 8);
        for n in 0..10 {
            assert!(flooded(&mut seen, at(n * 5), ip(9), 1000 + n).is_ok());
        }
        assert_eq!(seen.hello(at(46), (1, ip(1)), Some(ip(9)), &ANY, 990), Err(Refusal::Replayed));
        assert!(seen.hello(at(46), (1, ip(1)), Some(ip(9)), &ANY, 1010).is_ok());
    }

    #[test]
    fn repeats_belong_to_the_last_hellos() {
        let mut seen = Replays::new(HOLD, 8, 8);
        assert_eq!(seen.repeated((1, ip(1)), 5), Err(Refusal::Replayed), "nothing was heard of it");
        assert!(seen.hello(at(0), (1, ip(1)), None, &ANY, 5).is_ok());
        assert!(seen.hello(at(2), (1, ip(1)), None, &ANY, 8).is_ok());
        assert!(seen.repeated((1, ip(1)), 9).is_ok());
        assert!(seen.repeated((1, ip(1)), 6).is_ok(), "overtaken by a HELLO");
        assert_eq!(seen.repeated((1, ip(1)), 5), Err(Refusal::Replayed));
        assert_eq!(seen.repeated((2, ip(1)), 6), Err(Refusal::Replayed));
    }

    #[test]
    fn full_tables_keep_whoever_is_there() {
        let mut seen = Replays::new(HOLD, 4, 4);
        let near = || (0..4).map(|n| (1, ip(n))).collect();
        let standing = Standing { alive: &|a| (0..4).any(|n| ip(n) == a), near: &near };
        for n in 0..4 {
            assert!(seen.hello(at(0), (1, ip(n)), Some(ip(n)), &standing, 7).is_ok());
        }
        for n in 4..1000 {
            assert_eq!(seen.hello(at(500), (1, ip(n)), Some(ip(n)), &standing, 7), Err(Refusal::Full));
            assert_eq!(seen.flooded(at(500), ip(n), &brought(0), 7), Err(Refusal::Full));
        }
        assert!((1..4).all(|n| seen.hello(at(500), (1, ip(n)), Some(ip(n)), &standing, 8).is_ok()));
        // Number 0 is silent for ten minutes: one newcomer takes its place, and only one.
        assert!(seen.flooded(at(601), ip(99), &brought(1), 1).is_ok());
        assert_eq!(seen.flooded(at(601), ip(98), &brought(1), 1), Err(Refusal::Full));
        assert_eq!(seen.len(), (4, 4));
        let again = |n| seen.hello(at(602), (1, ip(n)), Some(ip(n)), &standing, 8);
        assert!((1..4).map(again).all(|r| r == Err(Refusal::Replayed)));
    }

    #[test]
    fn strangers_hellos_push_out_strangers_only() {
        let mut seen = Replays::new(HOLD, 160, 64);
        let near = || [(1, ip(1)), (1, ip(2))].into();
        let standing = Standing { alive: &|a| a == ip(1) || a == ip(2), near: &near };
        let hello = |seen: &mut Replays, t, n, counter| {
            seen.hello(at(t), (1, ip(n)), Some(ip(n)), &standing, counter)
        };
        assert!(hello(&mut seen, 0, 1, 7).is_ok() && hello(&mut seen, 0, 2, 7).is_ok());
        assert!(
            (100..240).all(|n| seen.flooded(at(0), ip(n), &brought(1), 7).is_ok()),
            "more than its share"
        );
        assert!((1000..5000).all(|n| hello(&mut seen, 1, n, 7).is_ok()), "nobody is refused");
        assert!(seen.len().0 <= 160 && seen.len().1 <= 64);
        assert!(hello(&mut seen, 2, 9999, 7).is_ok());
        assert!((1..3).all(|n| hello(&mut seen, 2, n, 7) == Err(Refusal::Replayed)), "neighbours are known");
        // All that a neighbour brought is as it was, up to what came beyond its share and is younger.
        let known = (100..240).filter(|n| seen.originators.contains_key(&ip(*n))).count();
        assert!(known >= 130, "{known}");
    }

    #[test]
    fn who_becomes_a_neighbour_leaves_the_strangers_place() {
        let mut seen = Replays::new(HOLD, 160, 64);
        assert!(seen.hello(at(0), (1, ip(5)), Some(ip(5)), &NOBODY, 1).is_ok());
        let standing = Standing { alive: &|a| a == ip(5), near: &BTreeSet::new };
        assert!(seen.hello(at(1), (1, ip(5)), Some(ip(5)), &standing, 2).is_ok());
        let strangers = seen.shares.giver(STRANGERS);
        assert_ne!(seen.originators[&ip(5)].giver, strangers);
    }

    #[test]
    fn who_has_the_key_and_invents_originators_keeps_nobody_out() {
        let mut seen = Replays::new(HOLD, 160, 8);
        let mut bring = |by: u16, n: u16, counter: u64| seen.flooded(at(1), ip(n), &brought(by), counter);
        assert!((100..110).all(|n| bring(1, n, 7).is_ok()), "real ones, first heard by the liar");
        assert_eq!((1000..3000).filter(|n| bring(1, *n, 7).is_ok()).count(), 150);
        assert!((200..210).all(|n| bring(2, n, 7).is_ok()), "a sixteenth");
        assert_eq!(bring(2, 210, 7), Err(Refusal::Full));
        assert!(bring(3, 3, 7).is_ok(), "a neighbour's own");
        assert!((100..110).chain(200..210).all(|n| bring(1, n, 8).is_ok()));
        assert_eq!(seen.len(), (160, 0));
    }
}

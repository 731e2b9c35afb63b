//! When a mesh point looks round for its mesh, and to which channel it moves then.
//!
//! Groups that began on different channels meet when somebody walks, or builds a node between them. So a mesh point with
//! peers looks round, too, every ten to fifteen minutes, which takes the radio away for less than a second; and moves to a
//! group on a channel that comes before its own in the order in which nodes choose: each moves in one direction
//! only, so none goes back and forth. Those whom it leaves have lost a peer, look round for that reason, and follow.

use alloc::collections::BTreeSet;

use mesh_types::{Duration, Instant};

use crate::radios::{HeardMesh, best_channel, rank};
use crate::random::Random;

/// Who looks round and is not heard of again has found nothing by then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(6);
/// First and longest pause before a mesh point without peers looks round again.
pub(crate) const ALONE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));
/// The shortest pause before one with peers does; up to half of it is added at random, because two that look
/// round in step never hear each other.
pub(crate) const AGAIN: Duration = Duration::from_secs(600);
/// One that has lost a peer waits so long, and up to so long more; and at least so long after it last looked.
const LOST: Duration = Duration::from_secs(3);
const RARELY: Duration = Duration::from_secs(60);

/// Whether a radio has looked for the mesh, and where it heard it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    state: State,
    /// The channel to mesh on, if one was heard.
    pub(crate) heard: Option<u32>,
    /// Its mesh point has no peers: when to look again, and after which pause.
    alone: Option<(Instant, Duration)>,
    /// It has: when.
    again: Option<Instant>,
    last: Option<Instant>,
    /// It left peers for this channel.
    moved: Option<u32>,
    /// It did, and found none there: nobody there has its password, or they are too far away.
    shunned: BTreeSet<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// It does not mesh.
    #[default]
    Never,
    /// It is to look once it has a mesh point. Until when that is waited for.
    Wanted(Instant),
    /// Until when an answer is waited for.
    Asked(Instant),
    Done,
}

impl Look {
    /// It meshes: it is to look, if it has not yet.
    pub(crate) fn wake(&mut self, now: Instant) {
        if self.state == State::Never {
            self.state = State::Wanted(now + PATIENCE);
        }
    }

    /// It is to look, and has not been asked to.
    pub(crate) const fn is_wanted(&self) -> bool {
        matches!(self.state, State::Wanted(_))
    }

    /// It has not finished.
    pub(crate) const fn is_looking(&self) -> bool {
        matches!(self.state, State::Wanted(_) | State::Asked(_))
    }

    /// It was asked to.
    pub(crate) fn asked(&mut self, now: Instant) {
        self.state = State::Asked(now + PATIENCE);
    }

    fn done(&mut self, now: Instant, random: &mut Random) {
        self.state = State::Done;
        self.last = Some(now);
        self.again = Some(now + AGAIN + random.below(AGAIN.divided_by(2)));
    }

    /// What it heard, on channels that it may use; `current`: where it meshes.
    pub(crate) fn found(
        &mut self,
        now: Instant,
        heard: &[HeardMesh],
        current: Option<u32>,
        random: &mut Random,
    ) {
        if !matches!(self.state, State::Asked(_)) {
            return;
        }
        let first = self.last.is_none();
        self.done(now, random);
        let Some(current) = current.filter(|_| !first) else {
            self.heard = best_channel(heard).or(self.heard);
            return;
        };
        let alone = self.alone.is_some();
        let is_better = |h: &&HeardMesh| match (h.frequency == current, rank(h.frequency) < rank(current)) {
            (true, _) => false,
            (_, true) if alone => true,
            (_, true) => h.peers && !self.shunned.contains(&h.frequency),
            (_, false) => alone && h.peers,
        };
        let better = heard.iter().filter(is_better).min_by_key(|h| (!h.peers, rank(h.frequency)));
        if let Some(better) = better {
            self.heard = Some(better.frequency);
            self.moved = Some(better.frequency).filter(|_| !alone);
        }
    }

    /// Its mesh point has no peers, or some.
    pub(crate) fn set_alone(&mut self, now: Instant, alone: bool) {
        match (alone, self.alone) {
            (false, _) => self.alone = None,
            (true, None) => self.alone = Some((now + ALONE.0, ALONE.0)),
            (true, Some(_)) => {}
        }
    }

    /// Its mesh point has lost a peer, which may have moved.
    pub(crate) fn lost_peer(&mut self, now: Instant, random: &mut Random) {
        let soon = now + LOST + random.below(LOST);
        let at = self.last.map_or(soon, |last| soon.max(last + RARELY));
        self.again = self.again.map(|again| again.min(at));
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, random: &mut Random) {
        if matches!(self.state, State::Wanted(until) | State::Asked(until) if until <= now) {
            self.done(now, random);
        }
        if let Some((at, pause)) = self.alone.filter(|(at, _)| *at <= now) {
            let pause = pause.times(2).min(ALONE.1);
            self.alone = Some((at.max(now) + pause, pause));
            self.shunned.extend(self.moved.take());
            self.state = State::Wanted(now + PATIENCE);
        }
        if self.again.is_some_and(|at| at <= now) {
            self.again = None;
            self.state = State::Wanted(now + PATIENCE);
        }
    }

    /// When [`Look::handle_timeout`] is wanted.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Wanted(until) | State::Asked(until) => Some(until),
            State::Never | State::Done => self.alone.map(|(at, _)| at).into_iter().chain(self.again).min(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(n)
    }

    fn heard(frequency: u32, peers: bool) -> HeardMesh {
        HeardMesh { frequency, noise: None, peers }
    }

    /// One that has looked round once, at time zero.
    fn looked(random: &mut Random) -> Look {
        let mut look = Look::default();
        look.wake(Instant::ZERO);
        look.asked(Instant::ZERO);
        look.found(Instant::ZERO, &[], None, random);
        look
    }

    /// It looks again, and hears that, on that channel: where it meshes then.
    fn looks(look: &mut Look, current: u32, all: &[HeardMesh], random: &mut Random) -> Option<u32> {
        let at = look.poll_timeout().unwrap();
        look.handle_timeout(at, random);
        assert!(look.is_wanted());
        look.asked(at);
        look.found(at, all, Some(current), random);
        look.heard
    }

    #[test]
    fn it_moves_to_a_group_on_a_channel_that_comes_first_and_to_any_when_alone() {
        // current, alone, heard, where then
        let table: [(u32, bool, &[HeardMesh], Option<u32>); 9] = [
            (2462, false, &[heard(2412, true)], Some(2412)),
            (2412, false, &[heard(2462, true)], None),
            (2462, false, &[heard(2412, false)], None),
            (2462, false, &[heard(2462, true)], None),
            (2462, false, &[heard(2437, true), heard(2412, false)], Some(2437)),
            (2412, true, &[heard(2462, true)], Some(2462)),
            (2412, true, &[heard(2462, false)], None),
            (2462, true, &[heard(2412, false)], Some(2412)),
            (5180, true, &[heard(2412, false), heard(5745, true)], Some(5745)),
        ];
        for (current, alone, all, want) in table {
            let random = &mut Random::new(1);
            let mut look = looked(random);
            look.set_alone(Instant::ZERO, alone);
            assert_eq!(looks(&mut look, current, all, random), want, "{current} {alone} {all:?}");
        }
    }

    #[test]
    fn with_peers_it_looks_rarely_and_out_of_step_and_sooner_when_one_is_lost() {
        let at = |seed| looked(&mut Random::new(seed)).poll_timeout().unwrap();
        assert!(at(7) != at(8));
        for seed in 1..50 {
            assert!((secs(600)..secs(900)).contains(&at(seed)));
            let random = &mut Random::new(seed);
            let mut look = looked(random);
            look.lost_peer(secs(10), random);
            assert_eq!(look.poll_timeout(), Some(secs(60)), "not twice a minute");
            let mut look = looked(random);
            look.lost_peer(secs(100), random);
            assert!((secs(103)..secs(106)).contains(&look.poll_timeout().unwrap()));
        }
    }

    #[test]
    fn where_it_found_no_peers_it_does_not_go_again() {
        let random = &mut Random::new(3);
        let mut look = looked(random);
        let others = [heard(2412, true)];
        assert_eq!(looks(&mut look, 2437, &others, random), Some(2412));
        look.set_alone(secs(1000), true);
        let own = [heard(2437, true), heard(2412, true)];
        assert_eq!(looks(&mut look, 2412, &own, random), Some(2437), "back to its own");
        look.set_alone(secs(2000), false);
        for _ in 0..5 {
            assert_eq!(looks(&mut look, 2437, &others, random), Some(2437), "shunned");
        }
    }

    #[test]
    fn an_answer_that_never_comes_is_no_end() {
        let random = &mut Random::new(3);
        let mut look = Look::default();
        look.wake(Instant::ZERO);
        for _ in 0..4 {
            look.asked(look.poll_timeout().unwrap());
            let at = look.poll_timeout().unwrap();
            look.handle_timeout(at, random);
            assert!(!look.is_looking());
            look.handle_timeout(look.poll_timeout().unwrap(), random);
            assert!(look.is_wanted());
        }
    }
}

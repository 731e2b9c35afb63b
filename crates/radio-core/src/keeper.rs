//! Keeps a daemon running: when it is started, ended, and started again after it failed.
//!
//! The driver starts and ends the process as [`Keeper::poll_output`] says, and tells when it serves and when
//! it is gone. Pauses double from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`]; they begin anew once it served for
//! [`STABLE`]. It is never given up: a node without an access point can't be reached by a phone.

use alloc::collections::VecDeque;

use mesh_types::{Duration, Instant};

/// The pause before the first new start.
pub const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// No pause is longer.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Who served so long had no trouble at the start.
pub const STABLE: Duration = Duration::from_secs(60);
/// Who does not serve by then is ended by force. A busy Pi that reads its card for the first time is slow.
pub const START_PATIENCE: Duration = Duration::from_secs(30);
/// Who was told to end and has not by then, too.
pub const END_PATIENCE: Duration = Duration::from_secs(2);
/// Who serves is asked whether it does so often, and is ended by force when it has not answered so many times in a row:
/// 3 s after it began to hang. Times are counted, and not the seconds, because a machine that stood still for a while
/// proves nothing.
const ASK: Duration = Duration::from_secs(1);
const UNANSWERED: u8 = 2;

/// What happened outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeeperInput {
    /// It is to run, with new settings if it runs already.
    Wanted,
    /// It is not to run.
    Unwanted,
    /// It does what it is for.
    Serves,
    /// It has answered.
    Answered,
    /// The process is gone, or could not be started.
    Ended,
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeeperOutput {
    /// Start the process; answer with [`KeeperInput::Ended`] if that fails.
    Start,
    /// Ask it whether it works; its answer is [`KeeperInput::Answered`], also where it can't be asked.
    Ask,
    /// Tell it to end.
    Terminate,
    /// End it by force.
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Starting { patience: Instant },
    Serving { since: Instant, ask: Instant, unanswered: u8 },
    Ending { patience: Instant },
    Pausing { until: Instant },
}

/// When the daemon runs.
#[derive(Debug)]
pub struct Keeper {
    state: State,
    wanted: bool,
    failures: u32,
    restarts: u64,
    outputs: VecDeque<KeeperOutput>,
}

impl Default for Keeper {
    fn default() -> Self {
        Self { state: State::Idle, wanted: false, failures: 0, restarts: 0, outputs: VecDeque::new() }
    }
}

impl Keeper {
    /// Takes one input.
    pub fn handle_input(&mut self, now: Instant, input: KeeperInput) {
        match (input, self.state) {
            (KeeperInput::Wanted, state) => {
                self.wanted = true;
                self.failures = 0;
                match state {
                    State::Idle | State::Pausing { .. } => self.start(now),
                    State::Starting { .. } | State::Serving { .. } => self.end(now),
                    State::Ending { .. } => {}
                }
            }
            (KeeperInput::Unwanted, state) => {
                self.wanted = false;
                match state {
                    State::Starting { .. } | State::Serving { .. } => self.end(now),
                    State::Pausing { .. } => self.state = State::Idle,
                    State::Idle | State::Ending { .. } => {}
                }
            }
            (KeeperInput::Serves, State::Starting { .. }) => {
                self.state = State::Serving { since: now, ask: now + ASK, unanswered: 0 };
            }
            (KeeperInput::Answered, State::Serving { since, ask, .. }) => {
                self.state = State::Serving { since, ask, unanswered: 0 };
            }
            (KeeperInput::Serves | KeeperInput::Answered, _) => {}
            (KeeperInput::Ended, State::Ending { .. }) if self.wanted => self.start(now),
            (KeeperInput::Ended, State::Ending { .. }) => self.state = State::Idle,
            (KeeperInput::Ended, State::Starting { .. }) => self.failed(now),
            (KeeperInput::Ended, State::Serving { since, .. }) => {
                if now.saturating_since(since) >= STABLE {
                    self.failures = 0;
                }
                self.failed(now);
            }
            (KeeperInput::Ended, State::Idle | State::Pausing { .. }) => {}
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Pausing { until } if until <= now => {
                self.restarts += 1;
                self.start(now);
            }
            State::Serving { since, ask, unanswered } if ask <= now && unanswered < UNANSWERED => {
                self.outputs.push_back(KeeperOutput::Ask);
                self.state = State::Serving { since, ask: now + ASK, unanswered: unanswered + 1 };
            }
            State::Serving { since, ask, unanswered } if ask <= now => {
                self.outputs.push_back(KeeperOutput::Kill);
                self.state = State::Serving { since, ask: now + END_PATIENCE, unanswered };
            }
            State::Starting { patience } if patience <= now => {
                self.outputs.push_back(KeeperOutput::Kill);
                self.state = State::Starting { patience: now + START_PATIENCE };
            }
            State::Ending { patience } if patience <= now => {
                self.outputs.push_back(KeeperOutput::Kill);
                self.state = State::Ending { patience: now + END_PATIENCE };
            }
            _ => {}
        }
    }

    /// What to do next; `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<KeeperOutput> {
        self.outputs.pop_front()
    }

    /// When [`Keeper::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle => None,
            State::Serving { ask, .. } => Some(ask),
            State::Starting { patience } | State::Ending { patience } => Some(patience),
            State::Pausing { until } => Some(until),
        }
    }

    /// It does what it is for.
    pub const fn serves(&self) -> bool {
        matches!(self.state, State::Serving { .. })
    }

    /// It was told to end, and has not yet: its end is no failure.
    pub const fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending { .. })
    }

    /// How often it failed in a row.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// How often it was started again after a failure.
    pub const fn restarts(&self) -> u64 {
        self.restarts
    }

    fn start(&mut self, now: Instant) {
        self.outputs.push_back(KeeperOutput::Start);
        self.state = State::Starting { patience: now + START_PATIENCE };
    }

    fn end(&mut self, now: Instant) {
        self.outputs.push_back(KeeperOutput::Terminate);
        self.state = State::Ending { patience: now + END_PATIENCE };
    }

    fn failed(&mut self, now: Instant) {
        let pause = FIRST_PAUSE.times(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Pausing { until: now + pause };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use KeeperInput::{Answered, Ended, Serves, Unwanted, Wanted};
    use KeeperOutput::{Ask, Kill, Start, Terminate};
    use alloc::vec::Vec;

    fn drain(k: &mut Keeper) -> Vec<KeeperOutput> {
        core::iter::from_fn(|| k.poll_output()).collect()
    }

    fn secs(n: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(n)
    }

    #[test]
    fn every_input_in_every_state() {
        type Row = (&'static [KeeperInput], KeeperInput, &'static [KeeperOutput], bool);
        let table: &[Row] = &[
            (&[], Wanted, &[Start], false),
            (&[], Unwanted, &[], false),
            (&[], Serves, &[], false),
            (&[], Answered, &[], false),
            (&[], Ended, &[], false),
            (&[Wanted], Answered, &[], false),
            (&[Wanted, Serves], Answered, &[], true),
            (&[Wanted, Serves, Wanted], Answered, &[], false),
            (&[Wanted, Ended], Answered, &[], false),
            (&[Wanted], Wanted, &[Terminate], false),
            (&[Wanted], Unwanted, &[Terminate], false),
            (&[Wanted], Serves, &[], true),
            (&[Wanted], Ended, &[], false),
            (&[Wanted, Serves], Wanted, &[Terminate], false),
            (&[Wanted, Serves], Unwanted, &[Terminate], false),
            (&[Wanted, Serves], Serves, &[], true),
            (&[Wanted, Serves], Ended, &[], false),
            (&[Wanted, Serves, Wanted], Ended, &[Start], false),
            (&[Wanted, Serves, Wanted], Unwanted, &[], false),
            (&[Wanted, Serves, Wanted], Serves, &[], false),
            (&[Wanted, Unwanted], Ended, &[], false),
            (&[Wanted, Unwanted], Wanted, &[], false),
            (&[Wanted, Unwanted, Wanted], Ended, &[Start], false),
            (&[Wanted, Ended], Wanted, &[Start], false),
            (&[Wanted, Ended], Unwanted, &[], false),
            (&[Wanted, Ended], Serves, &[], false),
            (&[Wanted, Ended], Ended, &[], false),
        ];
        for (before, input, want, serves) in table {
            let mut k = Keeper::default();
            before.iter().for_each(|i| k.handle_input(Instant::ZERO, *i));
            drain(&mut k);
            k.handle_input(Instant::ZERO, *input);
            assert_eq!((drain(&mut k).as_slice(), k.serves()), (*want, *serves), "{before:?} {input:?}");
        }
    }

    #[test]
    fn who_was_told_to_end_is_ending_until_it_has() {
        let mut k = Keeper::default();
        for (input, ending) in
            [(Wanted, false), (Serves, false), (Wanted, true), (Serves, true), (Ended, false)]
        {
            k.handle_input(Instant::ZERO, input);
            assert_eq!(k.is_ending(), ending, "{input:?}");
        }
        k.handle_input(Instant::ZERO, Ended);
        assert!(!k.is_ending(), "it failed");
    }

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew_after_a_good_time() {
        let mut k = Keeper::default();
        k.handle_input(Instant::ZERO, Wanted);
        let (mut now, mut pauses) = (Instant::ZERO, Vec::new());
        for _ in 0..12 {
            k.handle_input(now, Ended);
            let at = k.poll_timeout().unwrap();
            pauses.push(at.saturating_since(now));
            drain(&mut k);
            now = at;
            k.handle_timeout(now);
            assert_eq!(drain(&mut k), [Start]);
        }
        assert_eq!((pauses[0], pauses[11]), (FIRST_PAUSE, LONGEST_PAUSE));
        assert!(pauses.is_sorted());
        k.handle_input(now, Serves);
        now += STABLE;
        k.handle_input(now, Ended);
        assert_eq!(k.poll_timeout(), Some(now + FIRST_PAUSE));
        assert_eq!(k.restarts(), 12);
    }

    #[test]
    fn who_serves_is_asked_and_killed_when_it_does_not_answer() {
        let mut k = Keeper::default();
        k.handle_input(secs(0), Wanted);
        drain(&mut k);
        k.handle_input(secs(0), Serves);
        for n in 1..100 {
            assert_eq!(k.poll_timeout(), Some(secs(n)));
            k.handle_timeout(secs(n));
            assert_eq!(drain(&mut k), [Ask]);
            k.handle_input(secs(n), Answered);
        }
        k.handle_timeout(secs(100));
        // However long the machine stood still: one question more.
        k.handle_timeout(secs(500));
        assert_eq!(drain(&mut k), [Ask, Ask]);
        k.handle_timeout(secs(501));
        assert_eq!((drain(&mut k), k.poll_timeout()), (alloc::vec![Kill], Some(secs(503))));
        k.handle_timeout(secs(503));
        assert_eq!(drain(&mut k), [Kill], "again");
        k.handle_input(secs(503), Ended);
        assert_eq!(k.poll_timeout(), Some(secs(503) + FIRST_PAUSE), "a failure");
    }

    #[test]
    fn who_does_not_serve_or_end_is_killed() {
        let mut k = Keeper::default();
        k.handle_input(Instant::ZERO, Wanted);
        drain(&mut k);
        k.handle_timeout(secs(29));
        assert_eq!(drain(&mut k), []);
        k.handle_timeout(secs(30));
        assert_eq!(drain(&mut k), [Kill]);
        k.handle_input(secs(30), Unwanted);
        assert_eq!(drain(&mut k), [Terminate]);
        k.handle_timeout(secs(32));
        assert_eq!(drain(&mut k), [Kill]);
        k.handle_input(secs(32), Ended);
        assert_eq!((k.poll_timeout(), drain(&mut k).len()), (None, 0));
    }
}

//! The core's rules against a driver that does what it is told at once, on a clock that only the test moves.

use mesh_types::{Duration, Instant};

use crate::core::{Input, Member, Output, Policy, State, Supervisor};

/// What a fake service does.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Answers that many milliseconds after its start.
    Answers(u64),
    /// Runs and never answers.
    Mute,
    /// Can't be started.
    Missing,
    /// Ends that many milliseconds after its start.
    Dies(u64),
    /// Answers at once, then falls silent that many milliseconds after its start.
    FallsSilent(u64),
    /// Answers, and ignores SIGTERM.
    Stubborn,
}

struct Fake {
    core: Supervisor,
    now: Instant,
    ways: Vec<Way>,
    running: Vec<Option<Instant>>,
    asked: Vec<bool>,
    /// Everything the core wanted, with the time in milliseconds.
    log: Vec<(u64, Output)>,
}

fn member(name: &str) -> Member {
    Member { name: name.into(), answers: true, required: true, wanted: true }
}

impl Fake {
    fn new(ways: &[Way]) -> Self {
        Self::with(ways, Policy::default(), |_| ())
    }

    fn with(ways: &[Way], policy: Policy, change: impl FnOnce(&mut Vec<Member>)) -> Self {
        let mut members: Vec<_> = (0..ways.len()).map(|i| member(&format!("s{i}"))).collect();
        change(&mut members);
        let core = Supervisor::new(policy, members, Instant::ZERO);
        let mut new = Self {
            core,
            now: Instant::ZERO,
            ways: ways.to_vec(),
            running: vec![None; ways.len()],
            asked: vec![false; ways.len()],
            log: Vec::new(),
        };
        new.drain();
        new
    }

    fn age(&self, i: usize) -> u64 {
        self.running[i].map_or(0, |since| self.now.saturating_since(since).as_millis())
    }

    fn input(&mut self, input: Input) {
        self.core.handle_input(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.core.poll_output() {
            outputs += 1;
            assert!(outputs < 1000, "the core never stops wanting things");
            self.log.push((self.now.as_micros() / 1000, output.clone()));
            let input = match output {
                Output::Spawn(i) if self.ways[i] == Way::Missing => {
                    Some(Input::SpawnFailed(i, "no such file".into()))
                }
                Output::Spawn(i) => {
                    assert!(self.running[i].is_none(), "s{i} is started twice");
                    self.running[i] = Some(self.now);
                    Some(Input::Spawned(i))
                }
                Output::Terminate(i) if self.ways[i] == Way::Stubborn => None,
                Output::Terminate(i) | Output::Kill(i) if self.running[i].is_some() => {
                    self.running[i] = None;
                    Some(Input::Exited(i, "was ended (SIGTERM)".into()))
                }
                Output::Probe(i) => {
                    let age = self.age(i);
                    match self.ways[i] {
                        Way::Answers(after) if age >= after => Some(Input::Answered(i)),
                        Way::FallsSilent(after) if age < after => Some(Input::Answered(i)),
                        Way::FallsSilent(_) => {
                            self.asked[i] = true;
                            None
                        }
                        Way::Stubborn => Some(Input::Answered(i)),
                        _ => Some(Input::Silent(i)),
                    }
                }
                _ => None,
            };
            if let Some(input) = input {
                self.core.handle_input(self.now, input);
            }
        }
    }

    /// Lets the clock run to `ms`, stopping at every moment at which something is due.
    fn run_to(&mut self, ms: u64) {
        let end = Instant::from_millis(ms);
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 1_000_000, "the clock does not get on");
            let death = (0..self.ways.len())
                .filter_map(|i| match (self.ways[i], self.running[i]) {
                    (Way::Dies(after), Some(since)) => Some((since + Duration::from_millis(after), i)),
                    _ => None,
                })
                .min();
            let due = self.core.poll_timeout().unwrap_or(Instant::FAR_FUTURE);
            match death {
                Some((at, i)) if at <= due && at <= end => {
                    self.now = self.now.max(at);
                    self.running[i] = None;
                    self.input(Input::Exited(i, "ended with code 1".into()));
                }
                _ if due <= end => {
                    assert!(due > self.now || steps < 10_000, "busy loop at {}", self.now);
                    self.now = self.now.max(due);
                    self.core.handle_timeout(self.now);
                    self.drain();
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn times(&self, what: impl Fn(&Output) -> bool) -> Vec<u64> {
        self.log.iter().filter(|(_, o)| what(o)).map(|(at, _)| *at).collect()
    }

    fn spawns(&self, i: usize) -> Vec<u64> {
        self.times(|o| *o == Output::Spawn(i))
    }

    fn states(&self) -> Vec<State> {
        self.core.services().iter().map(|s| s.state).collect()
    }
}

#[test]
fn services_start_in_order_each_when_the_one_before_answers() {
    let mut f = Fake::new(&[Way::Answers(240), Way::Answers(0), Way::Answers(50)]);
    f.run_to(2_000);
    assert_eq!((f.spawns(0), f.spawns(1), f.spawns(2)), (vec![0], vec![250], vec![275]));
    assert_eq!(f.times(|o| *o == Output::Ready), [325]);
    f.run_to(1_000_000);
    assert_eq!(f.times(|o| matches!(o, Output::Ready | Output::NotReady(_))), [325], "said once");
}

#[test]
fn one_that_does_not_answer_holds_the_others_up_only_for_a_while() {
    for (way, second) in [(Way::Mute, 1_000), (Way::Missing, 0), (Way::Dies(100), 100)] {
        let mut f = Fake::new(&[way, Way::Answers(0), Way::Answers(0)]);
        f.run_to(20_000);
        assert_eq!(f.spawns(1), [second]);
        assert_eq!(f.spawns(2), [second + 25]);
        f.run_to(100_000);
        assert_eq!(f.times(|o| *o == Output::Ready), Vec::<u64>::new());
        let said: Vec<_> = f.log.iter().filter(|(_, o)| matches!(o, Output::NotReady(_))).collect();
        assert_eq!(said, [&(90_000, Output::NotReady(vec![0]))]);
    }
}

#[test]
fn what_is_not_required_or_not_wanted_does_not_count() {
    let mut f =
        Fake::with(&[Way::Missing, Way::Answers(0), Way::Answers(0), Way::Mute], Policy::default(), |m| {
            m[0].required = false;
            m[2].wanted = false;
            m[3].answers = false;
        });
    f.run_to(1_000);
    assert_eq!(f.times(|o| *o == Output::Ready).len(), 1);
    assert_eq!(f.spawns(2), Vec::<u64>::new());
    assert!(f.times(|o| *o == Output::Probe(3)).is_empty(), "it has no socket to ask");
}

#[test]
fn the_pause_doubles_up_to_its_limit() {
    let mut f = Fake::new(&[Way::Missing]);
    f.run_to(400_000);
    let starts = f.spawns(0);
    let pauses: Vec<_> = starts.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(pauses[..9], [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
    assert_eq!(f.times(|o| *o == Output::Failed(0)).len(), starts.len(), "each failure keeps the log's end");
}

#[test]
fn a_stable_time_makes_the_next_pause_the_first_again() {
    // Ready at once (no socket), dies after 59 or 60 s.
    for (life, pauses) in [(59_900, [500, 1_000, 2_000]), (60_000, [500, 500, 500])] {
        let mut f = Fake::with(&[Way::Dies(life)], Policy::default(), |m| m[0].answers = false);
        f.run_to(300_000);
        let starts = f.spawns(0);
        let got: Vec<_> = starts.windows(2).map(|w| w[1] - w[0] - life).collect();
        assert_eq!(got[..3], pauses);
    }
}

#[test]
fn a_silent_service_is_hung_after_three_questions_and_started_again() {
    let mut f = Fake::new(&[Way::FallsSilent(15_000)]);
    // Answers at 25 ms and 10.025 s; asked at 20.025, 40.025 and 60.025 s, each time 10 s too long.
    f.run_to(75_000);
    assert_eq!(f.times(|o| *o == Output::Unanswered(0)), [30_025, 50_025, 70_025]);
    assert_eq!(f.times(|o| *o == Output::Terminate(0)), [70_025]);
    assert_eq!(f.spawns(0), [0, 70_525]);
    assert!(f.core.services()[0].last_exit.contains("did not answer"), "{:?}", f.core.services()[0]);
    assert!(f.asked[0]);
}

#[test]
fn one_that_never_answers_is_hung_too() {
    let mut f = Fake::new(&[Way::Mute]);
    f.run_to(62_000);
    assert_eq!(f.times(|o| *o == Output::Terminate(0)), [60_000]);
    assert_eq!(f.spawns(0), [0, 60_500]);
}

#[test]
fn restart_on_request_is_no_failure() {
    let mut f = Fake::new(&[Way::Answers(0), Way::Missing]);
    f.run_to(5_000);
    f.input(Input::Restart(0));
    assert_eq!(f.spawns(0), [0, 5_000]);
    assert_eq!((f.core.services()[0].failures, f.core.services()[0].restarts), (0, 1));
    let before = f.spawns(1).len();
    f.input(Input::Restart(1));
    assert_eq!(f.spawns(1).len(), before + 1, "its pause is over at once");
    f.input(Input::Restart(99));
}

#[test]
fn they_end_in_reverse_order_and_the_stubborn_are_killed() {
    let mut f = Fake::new(&[Way::Answers(0), Way::Stubborn, Way::Answers(0), Way::Missing]);
    f.run_to(1_000);
    f.log.clear();
    f.input(Input::End);
    f.run_to(10_000);
    let ends: Vec<_> = f
        .log
        .iter()
        .filter(|(_, o)| {
            matches!(o, Output::Terminate(_) | Output::Kill(_) | Output::Ended | Output::Spawn(_))
        })
        .cloned()
        .collect();
    assert_eq!(
        ends,
        [
            (1_000, Output::Terminate(2)),
            (1_000, Output::Terminate(1)),
            (6_000, Output::Kill(1)),
            (6_000, Output::Terminate(0)),
            (6_000, Output::Ended),
        ]
    );
    assert!(f.states().iter().all(|s| *s == State::Stopped));
    assert_eq!(f.core.poll_timeout(), None);
    f.input(Input::Restart(0));
    f.input(Input::Answered(0));
    assert!(f.core.poll_output().is_none(), "nothing rises from the dead");
}

#[test]
fn ending_with_nothing_running_ends_at_once() {
    let mut f = Fake::new(&[]);
    f.input(Input::End);
    assert_eq!(f.times(|o| *o == Output::Ended), [0]);
}

#[test]
fn the_watchdog_is_fed_while_anything_required_works() {
    let mut f = Fake::new(&[Way::Answers(0), Way::Mute]);
    f.run_to(2_000_000);
    let fed = f.times(|o| *o == Output::Feed);
    assert!(fed.windows(2).all(|w| w[1] - w[0] <= 3_000) && *fed.last().unwrap() > 1_996_000);
}

#[test]
fn with_nothing_working_for_ten_minutes_it_is_not() {
    let mut f = Fake::new(&[Way::Mute, Way::Missing]);
    f.run_to(700_000);
    assert_eq!(*f.times(|o| *o == Output::Feed).last().unwrap(), 597_000);
    assert_eq!(f.times(|o| matches!(o, Output::Starve(_))), [600_000]);
    // A service that comes back in the last moment saves the node.
    f.ways[1] = Way::Answers(0);
    f.run_to(800_000);
    assert!(*f.times(|o| *o == Output::Feed).last().unwrap() > 790_000);
}

#[test]
fn a_slot_on_trial_must_prove_itself() {
    // What mesh-update says at 200 s: nothing, that the trial goes on, that it is over.
    for (word, fed_to) in [(None, 297_000), (Some(true), 297_000), (Some(false), 597_000)] {
        // That services run is not enough.
        for way in [Way::Mute, Way::Answers(0)] {
            let policy = Policy { trial_patience: Some(Duration::from_secs(300)), ..Policy::default() };
            let mut f = Fake::with(&[Way::Answers(0), way], policy, |_| ());
            f.run_to(200_000);
            if let Some(on) = word {
                f.input(Input::Trial(on));
            }
            f.run_to(599_000);
            assert_eq!(*f.times(|o| *o == Output::Feed).last().unwrap(), fed_to, "{word:?}");
            let starved = if fed_to < 300_000 { &[300_000][..] } else { &[] };
            assert_eq!(f.times(|o| matches!(o, Output::Starve(_))), starved);
        }
    }
    // A confirmed system is never given up for it, whatever is unplugged later.
    let mut f = Fake::new(&[Way::Answers(0), Way::Mute]);
    f.input(Input::Trial(true));
    f.run_to(2_000_000);
    assert!(f.times(|o| matches!(o, Output::Starve(_))).is_empty());
}

#[test]
fn inputs_in_any_state_and_order_break_nothing() {
    // A small deterministic generator: every input at every state, many times over.
    for seed in 0..200u64 {
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |n: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % n
        };
        let members = (0..3).map(|i| Member { answers: i != 2, required: i != 1, ..member("s") }).collect();
        let mut core = Supervisor::new(Policy::default(), members, Instant::ZERO);
        let mut now = Instant::ZERO;
        for _ in 0..500 {
            let i = next(4) as usize;
            now += Duration::from_millis(next(5_000));
            match next(9) {
                0 => core.handle_input(now, Input::Spawned(i)),
                1 => core.handle_input(now, Input::SpawnFailed(i, String::new())),
                2 => core.handle_input(now, Input::Exited(i, String::new())),
                3 => core.handle_input(now, Input::Answered(i)),
                4 => core.handle_input(now, Input::Silent(i)),
                5 => core.handle_input(now, Input::Restart(i)),
                6 if next(50) == 0 => core.handle_input(now, Input::End),
                7 => core.handle_input(now, Input::Trial(next(2) == 0)),
                _ => core.handle_timeout(now),
            }
            let mut outputs = 0;
            while core.poll_output().is_some() {
                outputs += 1;
                assert!(outputs < 50);
            }
            if let Some(at) = core.poll_timeout() {
                assert!(at > now, "seed {seed}: due at {at}, now {now}: a busy loop");
            }
        }
    }
}

//! The supervisor's rules, without any I/O: start order, readiness, back-off, hung services, clean end,
//! and whether the watchdog may be fed.
//!
//! Drain [`Supervisor::poll_output`] to `None` after every input, before the next one.

use std::collections::VecDeque;

use mesh_types::{Duration, Instant};

/// How patient the supervisor is.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Pause after the first failure; it doubles with each further one.
    pub(crate) first_pause: Duration,
    /// The longest pause.
    pub(crate) longest_pause: Duration,
    /// Ready that long counts as recovered: the next pause is the first one again.
    pub(crate) stable: Duration,
    /// The next service of the table is started that long after one that does not answer yet.
    pub(crate) start_patience: Duration,
    /// Started and silent that long means hung.
    pub(crate) answer_patience: Duration,
    /// Between questions to a service that does not answer yet.
    pub(crate) probe_starting: Duration,
    /// Between questions to a ready service, and how long each may take.
    pub(crate) probe_ready: Duration,
    /// That many unanswered questions in a row mean hung.
    pub(crate) missed: u32,
    /// Between SIGTERM and SIGKILL.
    pub(crate) end_patience: Duration,
    /// Not ready that long after the start is said on the console.
    pub(crate) boot_patience: Duration,
    /// With no required service ready that long, a reset is the best that can happen.
    pub(crate) dead_patience: Duration,
    /// A new system that is not confirmed that long after the start is left to the watchdog. `None`: no new system runs.
    pub(crate) trial_patience: Option<Duration>,
    /// Between feeds of the watchdog.
    pub(crate) feed: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
            stable: Duration::from_secs(60),
            start_patience: Duration::from_secs(1),
            answer_patience: Duration::from_secs(60),
            probe_starting: Duration::from_millis(25),
            probe_ready: Duration::from_secs(10),
            missed: 3,
            end_patience: Duration::from_secs(5),
            boot_patience: Duration::from_secs(90),
            dead_patience: Duration::from_secs(600),
            trial_patience: None,
            feed: Duration::from_secs(3),
        }
    }
}

impl Policy {
    /// Every delay a tenth, for tests that run real processes.
    pub(crate) fn quick(self) -> Self {
        let tenth = |d: Duration| d.divided_by(10);
        Self {
            first_pause: tenth(self.first_pause),
            longest_pause: tenth(self.longest_pause),
            stable: tenth(self.stable),
            start_patience: tenth(self.start_patience),
            answer_patience: tenth(self.answer_patience),
            probe_starting: tenth(self.probe_starting),
            probe_ready: tenth(self.probe_ready),
            missed: self.missed,
            end_patience: tenth(self.end_patience),
            boot_patience: tenth(self.boot_patience),
            dead_patience: tenth(self.dead_patience),
            trial_patience: self.trial_patience.map(tenth),
            feed: tenth(self.feed),
        }
    }
}

/// What the core needs to know of a service. Services are numbered by their place in the table.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// For messages.
    pub(crate) name: String,
    /// It is ready when its control socket answers; else as soon as it runs.
    pub(crate) answers: bool,
    /// The node is not ready without it.
    pub(crate) required: bool,
    /// It is to run at all.
    pub(crate) wanted: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// To [`Output::Spawn`]: it runs.
    Spawned(usize),
    /// To [`Output::Spawn`]: it could not be started, and why.
    SpawnFailed(usize, String),
    /// A process ended; how, for people.
    Exited(usize, String),
    /// To [`Output::Probe`]: it answered.
    Answered(usize),
    /// To [`Output::Probe`]: it can't be reached.
    Silent(usize),
    /// Whether a new system that is not confirmed yet runs, and there is another to go back to: mesh-update's word.
    Trial(bool),
    /// Somebody wants it ended and started again.
    Restart(usize),
    /// All services are to end, the last one of the table first.
    End,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Start it; answer with [`Input::Spawned`] or [`Input::SpawnFailed`].
    Spawn(usize),
    /// Ask it to end.
    Terminate(usize),
    /// End it.
    Kill(usize),
    /// Ask it how it is; answer with [`Input::Answered`] or [`Input::Silent`].
    Probe(usize),
    /// Its last [`Output::Probe`] took too long; an answer that still comes is not to be taken for a later one's.
    Unanswered(usize),
    /// It failed: keep the end of its log.
    Failed(usize),
    /// Every required service answers, for the first time.
    Ready,
    /// Patience is over and these are not ready.
    NotReady(Vec<usize>),
    /// Feed the watchdog.
    Feed,
    /// The watchdog is not fed any more, and why. Said once.
    Starve(&'static str),
    /// Every service has ended.
    Ended,
}

/// How far a service has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not yet its turn.
    Waiting,
    /// A process runs and does not answer yet.
    Starting {
        /// Since then.
        since: Instant,
    },
    /// It answers.
    Ready {
        /// Since then.
        since: Instant,
    },
    /// Told to end.
    Ending {
        /// Killed then.
        kill_at: Instant,
    },
    /// Ended by itself; started again then.
    BackOff {
        /// The end of the pause.
        until: Instant,
    },
    /// Not wanted, or ended for good.
    Stopped,
}

/// The question a running service was asked last, or is asked next.
#[derive(Clone, Copy, Debug)]
enum Question {
    Next(Instant),
    Open(Instant),
}

/// A service as the core sees it.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) member: Member,
    pub(crate) state: State,
    /// Failures since it was last stable.
    pub(crate) failures: u32,
    /// How many times it was started again.
    pub(crate) restarts: u32,
    /// How it last ended or why it could not start; empty if never.
    pub(crate) last_exit: String,
    question: Question,
    missed: u32,
}

impl Service {
    fn ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }
}

/// The supervisor's state.
#[derive(Debug)]
pub(crate) struct Supervisor {
    policy: Policy,
    services: Vec<Service>,
    outputs: VecDeque<Output>,
    started: Instant,
    /// The latest moment it was told.
    seen: Instant,
    said_ready: bool,
    said_not_ready: bool,
    starved: bool,
    on_trial: bool,
    last_any_ready: Instant,
    next_feed: Instant,
    ending: bool,
    ended: bool,
}

impl Supervisor {
    /// Starts with the first service's turn.
    pub(crate) fn new(policy: Policy, members: Vec<Member>, now: Instant) -> Self {
        let service = |member: Member| Service {
            state: if member.wanted { State::Waiting } else { State::Stopped },
            member,
            failures: 0,
            restarts: 0,
            last_exit: String::new(),
            question: Question::Next(now),
            missed: 0,
        };
        let mut new = Self {
            on_trial: policy.trial_patience.is_some(),
            policy,
            services: members.into_iter().map(service).collect(),
            outputs: VecDeque::new(),
            started: now,
            seen: now,
            said_ready: false,
            said_not_ready: false,
            starved: false,
            last_any_ready: now,
            next_feed: now,
            ending: false,
            ended: false,
        };
        new.advance(now);
        new
    }

    /// Services in the table's order.
    pub(crate) fn services(&self) -> &[Service] {
        &self.services
    }

    /// What is to be done next.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Supervisor::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let mut at = self.next_feed;
        if !self.said_ready && !self.said_not_ready && !self.ending {
            at = at.min(self.started + self.policy.boot_patience);
        }
        for (i, s) in self.services.iter().enumerate() {
            at = at.min(match s.state {
                State::Starting { since } => {
                    let mut at = since + self.policy.answer_patience;
                    // Only while somebody waits for its turn behind it.
                    let turn = since + self.policy.start_patience;
                    if turn > self.seen && self.anyone_waits_behind(i) {
                        at = at.min(turn);
                    }
                    at.min(self.question_at(s))
                }
                State::Ready { .. } => self.question_at(s),
                State::Ending { kill_at } => kill_at,
                State::BackOff { until } => until,
                State::Waiting | State::Stopped => Instant::FAR_FUTURE,
            });
        }
        Some(at)
    }

    fn anyone_waits_behind(&self, i: usize) -> bool {
        self.services.iter().skip(i + 1).any(|s| s.state == State::Waiting)
    }

    fn question_at(&self, service: &Service) -> Instant {
        match service.question {
            _ if !service.member.answers => Instant::FAR_FUTURE,
            Question::Next(at) => at,
            Question::Open(asked) => asked + self.policy.probe_ready,
        }
    }

    /// Takes what happened.
    pub(crate) fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Spawned(i) => self.spawned(now, i),
            Input::SpawnFailed(i, why) => self.failed(now, i, format!("could not be started: {why}")),
            Input::Exited(i, how) => self.exited(now, i, how),
            Input::Answered(i) => self.answered(now, i),
            Input::Silent(i) => self.silent(now, i),
            Input::Trial(on) => self.on_trial = on,
            Input::Restart(i) => self.restart(now, i),
            Input::End => self.ending = true,
        }
        self.advance(now);
    }

    /// Does what is due by `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }
}

/// One thing happened to one service.
impl Supervisor {
    fn spawned(&mut self, now: Instant, i: usize) {
        let Some(s) = self.services.get_mut(i) else { return };
        if !matches!(s.state, State::Starting { .. }) {
            return; // it was ended before it was there
        }
        s.missed = 0;
        s.question = Question::Next(now + self.policy.probe_starting);
        if !s.member.answers {
            s.state = State::Ready { since: now };
        }
    }

    fn exited(&mut self, now: Instant, i: usize, how: String) {
        let ending = self.ending;
        let Some(s) = self.services.get_mut(i) else { return };
        match s.state {
            State::Ending { .. } if ending => {
                s.state = State::Stopped;
                s.last_exit = how;
            }
            // Ended because it hung (its failure is already counted) or because somebody asked.
            State::Ending { .. } => {
                if s.last_exit.is_empty() {
                    s.last_exit = how;
                }
                s.state = State::BackOff { until: now + pause(&self.policy, s.failures) };
            }
            State::Starting { .. } | State::Ready { .. } => self.failed(now, i, how),
            State::Waiting | State::BackOff { .. } | State::Stopped => {}
        }
    }

    fn failed(&mut self, now: Instant, i: usize, how: String) {
        let policy = &self.policy;
        let Some(s) = self.services.get_mut(i) else { return };
        count_failure(policy, now, s);
        s.last_exit = how;
        s.state = if self.ending {
            State::Stopped
        } else {
            State::BackOff { until: now + pause(policy, s.failures) }
        };
        self.outputs.push_back(Output::Failed(i));
    }

    fn answered(&mut self, now: Instant, i: usize) {
        let Some(s) = self.services.get_mut(i) else { return };
        if let State::Starting { .. } = s.state {
            s.state = State::Ready { since: now };
        }
        s.missed = 0;
        s.question = Question::Next(now + self.policy.probe_ready);
    }

    fn silent(&mut self, now: Instant, i: usize) {
        let policy = &self.policy;
        let Some(s) = self.services.get_mut(i) else { return };
        match s.state {
            State::Starting { .. } => s.question = Question::Next(now + policy.probe_starting),
            State::Ready { .. } => {
                s.missed += 1;
                s.question = Question::Next(now + policy.probe_ready);
                if s.missed >= policy.missed {
                    self.hung(now, i, format!("did not answer {} times in a row", policy.missed));
                }
            }
            _ => {}
        }
    }

    fn hung(&mut self, now: Instant, i: usize, how: String) {
        let policy = &self.policy;
        let Some(s) = self.services.get_mut(i) else { return };
        count_failure(policy, now, s);
        s.last_exit = how;
        s.state = State::Ending { kill_at: now + policy.end_patience };
        self.outputs.push_back(Output::Failed(i));
        self.outputs.push_back(Output::Terminate(i));
    }

    fn restart(&mut self, now: Instant, i: usize) {
        let kill_at = now + self.policy.end_patience;
        let ending = self.ending;
        let Some(s) = self.services.get_mut(i) else { return };
        match s.state {
            State::Starting { .. } | State::Ready { .. } => {
                s.failures = 0;
                s.last_exit.clear();
                s.state = State::Ending { kill_at };
                self.outputs.push_back(Output::Terminate(i));
            }
            State::BackOff { .. } | State::Stopped if !ending && s.member.wanted => {
                s.failures = 0;
                s.state = State::BackOff { until: now };
            }
            _ => {}
        }
    }
}

/// Counts a failure, from the start again if the service had been ready long enough.
fn count_failure(policy: &Policy, now: Instant, s: &mut Service) {
    if let State::Ready { since } = s.state
        && now.saturating_since(since) >= policy.stable
    {
        s.failures = 0;
    }
    s.failures = s.failures.saturating_add(1);
}

/// The pause after that many failures in a row.
fn pause(policy: &Policy, failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => policy.first_pause.times(1 << (n - 1).min(20)).min(policy.longest_pause),
    }
}

/// What time brings.
impl Supervisor {
    fn advance(&mut self, now: Instant) {
        if self.ended {
            return;
        }
        self.seen = self.seen.max(now);
        for i in 0..self.services.len() {
            self.service_timers(now, i);
        }
        if self.ending {
            self.end_next(now);
        } else {
            self.start_next(now);
            self.say(now);
        }
        self.watchdog(now);
    }

    fn service_timers(&mut self, now: Instant, i: usize) {
        let policy = &self.policy;
        let Some(s) = self.services.get_mut(i) else { return };
        match s.state {
            State::Starting { since } if now >= since + policy.answer_patience => {
                let how =
                    format!("did not answer within {} s of its start", policy.answer_patience.as_secs());
                return self.hung(now, i, how);
            }
            State::Ending { kill_at } if now >= kill_at => {
                // Once more only if even that does not end it.
                s.state = State::Ending { kill_at: now + policy.end_patience };
                self.outputs.push_back(Output::Kill(i));
                return;
            }
            State::BackOff { until } if now >= until && !self.ending => {
                s.restarts = s.restarts.saturating_add(1);
                return self.spawn(now, i);
            }
            State::Starting { .. } | State::Ready { .. } if s.member.answers => {}
            _ => return,
        }
        match s.question {
            Question::Next(at) if now >= at => {
                s.question = Question::Open(now);
                self.outputs.push_back(Output::Probe(i));
            }
            Question::Open(asked) if now >= asked + policy.probe_ready => {
                self.outputs.push_back(Output::Unanswered(i));
                self.silent(now, i);
            }
            _ => {}
        }
    }

    fn spawn(&mut self, now: Instant, i: usize) {
        let Some(s) = self.services.get_mut(i) else { return };
        s.state = State::Starting { since: now };
        // No question before the driver says that it runs.
        s.question = Question::Next(Instant::FAR_FUTURE);
        self.outputs.push_back(Output::Spawn(i));
    }

    /// Starts services in order; one that does not answer holds up the others only for a while.
    fn start_next(&mut self, now: Instant) {
        for i in 0..self.services.len() {
            match self.services.get(i).map(|s| s.state) {
                Some(State::Waiting) => return self.spawn(now, i),
                Some(State::Starting { since }) if now < since + self.policy.start_patience => return,
                _ => {}
            }
        }
    }

    /// Ends services in reverse order, one at a time.
    fn end_next(&mut self, now: Instant) {
        for s in &mut self.services {
            if matches!(s.state, State::Waiting | State::BackOff { .. }) {
                s.state = State::Stopped;
            }
        }
        for i in (0..self.services.len()).rev() {
            let Some(s) = self.services.get_mut(i) else { continue };
            match s.state {
                State::Stopped | State::Waiting | State::BackOff { .. } => {}
                State::Ending { .. } => return,
                State::Starting { .. } | State::Ready { .. } => {
                    s.state = State::Ending { kill_at: now + self.policy.end_patience };
                    self.outputs.push_back(Output::Terminate(i));
                    return;
                }
            }
        }
        self.ended = true;
        self.outputs.push_back(Output::Ended);
    }

    fn say(&mut self, now: Instant) {
        let missing: Vec<usize> = (self.services.iter().enumerate())
            .filter(|(_, s)| s.member.required && s.member.wanted && !s.ready())
            .map(|(i, _)| i)
            .collect();
        if missing.is_empty() && !self.said_ready {
            self.said_ready = true;
            self.outputs.push_back(Output::Ready);
        }
        if !self.said_ready && !self.said_not_ready && now >= self.started + self.policy.boot_patience {
            self.said_not_ready = true;
            self.outputs.push_back(Output::NotReady(missing));
        }
    }

    /// A single broken service must not take the node down, so the watchdog goes hungry only when nothing
    /// at all works, or when a new system was not confirmed in time: its health gate did not open, or there is no
    /// mesh-update to say so.
    fn watchdog(&mut self, now: Instant) {
        let mut required = self.services.iter().filter(|s| s.member.required && s.member.wanted).peekable();
        if required.peek().is_none() || required.any(Service::ready) || self.ending {
            self.last_any_ready = now;
        }
        if now < self.next_feed {
            return;
        }
        self.next_feed = now + self.policy.feed;
        let patience = self.policy.trial_patience.filter(|_| self.on_trial && !self.ending);
        let trial_failed = patience.is_some_and(|p| now >= self.started + p);
        let why = if now.saturating_since(self.last_any_ready) >= self.policy.dead_patience {
            Some("no service has worked for a long time")
        } else if trial_failed {
            Some("the new system was not confirmed in time")
        } else {
            None
        };
        match why {
            None => {
                self.starved = false;
                self.outputs.push_back(Output::Feed);
            }
            Some(why) if !self.starved => {
                self.starved = true;
                self.outputs.push_back(Output::Starve(why));
            }
            Some(_) => {}
        }
    }
}

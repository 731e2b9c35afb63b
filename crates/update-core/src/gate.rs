//! The health gate: a freshly booted slot is confirmed once every listed service has answered, without a
//! gap, for a while. Until then it keeps asking, and can say what it waits for.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use mesh_types::{Duration, Instant};

/// At most that many services are watched; more in the configuration are not asked.
const MAX_SERVICES: usize = 32;

/// What the gate watches and how patiently.
#[derive(Clone, Debug)]
pub struct GateConfig {
    /// Names of the services that must answer.
    pub services: Vec<String>,
    /// Pause between two questions to a service.
    pub interval: Duration,
    /// How long all must have answered without a gap.
    pub stable: Duration,
}

/// What the driver found out.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The service answered.
    Answered(&'a str),
    /// The service did not: why, for people.
    Failed(&'a str, &'a str),
}

/// A report about a service that is not on the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError(pub String);

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a service the health gate watches", self.0)
    }
}

impl core::error::Error for InputError {}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask the service how it is and report the outcome.
    Probe(String),
    /// The gate opened; comes once. Confirm the slot.
    Open,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Health {
    Unknown,
    Up,
    Down(String),
}

/// See the module's text. Drain [`Gate::poll_output`] after every other call.
#[derive(Clone, Debug)]
pub struct Gate {
    services: Vec<(String, Health)>,
    interval: Duration,
    stable: Duration,
    next_probe: Instant,
    all_up_since: Option<Instant>,
    open: bool,
    outputs: VecDeque<Output>,
}

impl Gate {
    /// A closed gate that starts asking at once.
    pub fn new(config: GateConfig, now: Instant) -> Self {
        let mut services: Vec<(String, Health)> = Vec::new();
        for name in config.services.into_iter().take(MAX_SERVICES) {
            if !services.iter().any(|(n, _)| *n == name) {
                services.push((name, Health::Unknown));
            }
        }
        Self {
            services,
            interval: config.interval,
            stable: config.stable,
            next_probe: now,
            all_up_since: None,
            open: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes a report.
    ///
    /// # Errors
    /// [`InputError`] for a service that is not on the list; nothing changes then.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) -> Result<(), InputError> {
        let (name, health) = match input {
            Input::Answered(name) => (name, Health::Up),
            Input::Failed(name, why) => (name, Health::Down(why.to_string())),
        };
        let entry = self.services.iter_mut().find(|(n, _)| n == name);
        entry.ok_or_else(|| InputError(name.to_string()))?.1 = health;
        self.update(now);
        Ok(())
    }

    /// Asks again, and opens, when the time has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.open && now >= self.next_probe {
            self.next_probe = now + self.interval;
            self.outputs.extend(self.services.iter().map(|(n, _)| Output::Probe(n.clone())));
        }
        self.update(now);
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Gate::handle_timeout`] wants to be called; `None` once the gate is open.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.open {
            return None;
        }
        let opens = self.all_up_since.map(|t| t + self.stable);
        Some(opens.map_or(self.next_probe, |t| t.min(self.next_probe)))
    }

    /// It opened.
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// What it waits for, one line each, for people; empty once it is open.
    pub fn waiting_for(&self, now: Instant) -> Vec<String> {
        if self.open {
            return Vec::new();
        }
        let mut list: Vec<String> = self
            .services
            .iter()
            .filter_map(|(name, health)| match health {
                Health::Up => None,
                Health::Unknown => Some(format!("{name}: not asked yet")),
                Health::Down(why) => Some(format!("{name}: {why}")),
            })
            .collect();
        if let Some(since) = self.all_up_since {
            let left = (since + self.stable).saturating_since(now);
            list.push(format!(
                "all services answer; {} s more without a gap",
                left.as_millis().div_ceil(1000)
            ));
        }
        list
    }

    fn update(&mut self, now: Instant) {
        if self.open {
            return;
        }
        if !self.services.iter().all(|(_, h)| *h == Health::Up) {
            self.all_up_since = None;
            return;
        }
        let since = *self.all_up_since.get_or_insert(now);
        if now >= since + self.stable {
            self.open = true;
            self.outputs.clear();
            self.outputs.push_back(Output::Open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const fn s(secs: u64) -> Instant {
        Instant::from_millis(secs * 1000)
    }

    fn gate() -> Gate {
        let config = GateConfig {
            services: vec!["a".into(), "b".into(), "a".into()],
            interval: Duration::from_secs(2),
            stable: Duration::from_secs(10),
        };
        Gate::new(config, Instant::ZERO)
    }

    fn drain(g: &mut Gate) -> Vec<Output> {
        core::iter::from_fn(|| g.poll_output()).collect()
    }

    #[test]
    fn opens_once_after_all_answered_without_a_gap() {
        let mut g = gate();
        assert_eq!(g.poll_timeout(), Some(Instant::ZERO));
        g.handle_timeout(s(0));
        assert_eq!(drain(&mut g), [Output::Probe("a".into()), Output::Probe("b".into())]);
        g.handle_input(s(0), Input::Answered("a")).unwrap();
        g.handle_input(s(1), Input::Failed("b", "it is not running")).unwrap();
        assert_eq!(g.waiting_for(s(1)), ["b: it is not running"]);
        g.handle_input(s(2), Input::Answered("b")).unwrap();
        assert_eq!(g.waiting_for(s(5)), ["all services answer; 7 s more without a gap"]);
        // A gap starts the clock anew.
        g.handle_input(s(11), Input::Failed("a", "x")).unwrap();
        g.handle_timeout(s(12));
        assert!(!drain(&mut g).contains(&Output::Open));
        g.handle_input(s(13), Input::Answered("a")).unwrap();
        drain(&mut g);
        let mut now = s(13);
        while let Some(t) = g.poll_timeout() {
            assert!(t > now, "time moves on");
            now = t;
            g.handle_timeout(now);
            if now < s(23) {
                assert_eq!(drain(&mut g).len(), 2);
            }
        }
        assert_eq!(now, s(23));
        assert_eq!(drain(&mut g), [Output::Open]);
        assert!(g.is_open() && g.waiting_for(now).is_empty());
        g.handle_input(s(24), Input::Failed("a", "x")).unwrap();
        g.handle_timeout(s(25));
        assert!(drain(&mut g).is_empty() && g.is_open());
    }

    #[test]
    fn strangers_change_nothing() {
        let mut g = gate();
        assert_eq!(g.handle_input(s(0), Input::Answered("z")), Err(InputError("z".into())));
        assert_eq!(g.waiting_for(s(0)).len(), 2);
    }
}

//! The planner: keeps the plan up to date and says what has to be done for it.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::ToString;
use alloc::vec::Vec;

use mesh_types::{Duration, Instant};

use crate::rules::{decide, phy_reason};
use crate::{Link, Phy, Plan, PlannedInterface, PlannedPhy, Role, WiredRole};

/// More interfaces than this are not planned for; later ones are left alone and counted.
pub const MAX_INTERFACES: usize = 64;

/// First and longest pause before a step that failed is tried again, and after how many tries it is left.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const TRIES: u32 = 20;

/// What the planner is told once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `ethernet.role`
    pub wired: WiredRole,
    /// People drive the interfaces (`workshop = "manual"`); nothing is touched.
    pub released: bool,
}

/// What happened outside.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// All interfaces there are; others are gone.
    AllLinks(&'a [Link]),
    /// An interface is new or changed.
    Link(&'a Link),
    /// An interface is gone.
    LinkGone(u32),
    /// All radios there are.
    AllPhys(&'a [Phy]),
    /// [`Output::Prepare`] was not possible.
    Failed {
        /// Of which interface.
        index: u32,
    },
}

/// What has to be done or known, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Set the interface up and give it the settings of its role. Answer with [`Input::Failed`] if that
    /// does not work, or with nothing.
    Prepare {
        /// Which.
        index: u32,
        /// Its role.
        role: Role,
    },
    /// The plan is another one ([`Planner::plan`]).
    PlanChanged,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Plans made that differed from the one before.
    pub plans: u64,
    /// Steps given out.
    pub steps: u64,
    /// Steps that failed.
    pub failures: u64,
    /// Interfaces left out because there were too many.
    pub too_many: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    link: Link,
    /// The role it was last prepared for. An interface that people set down afterwards stays down.
    prepared: Option<Role>,
    tries: u32,
    retry_at: Option<Instant>,
}

/// The plan and what it rests on.
#[derive(Debug)]
pub struct Planner {
    config: Config,
    entries: BTreeMap<u32, Entry>,
    phys: Vec<Phy>,
    plan: Plan,
    outputs: VecDeque<Output>,
    counters: Counters,
}

impl Planner {
    /// A planner that knows of nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            entries: BTreeMap::new(),
            phys: Vec::new(),
            plan: Plan::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// The plan in force.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::AllLinks(links) => {
                self.entries.retain(|index, _| links.iter().any(|l| l.index == *index));
                links.iter().for_each(|l| self.take(l));
            }
            Input::Link(link) => self.take(link),
            Input::LinkGone(index) => drop(self.entries.remove(&index)),
            Input::AllPhys(phys) => self.phys = phys.to_vec(),
            Input::Failed { index } => self.failed(now, index),
        }
        self.replan();
    }

    /// Tries again what failed and is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            if entry.retry_at.is_some_and(|t| t <= now) {
                entry.retry_at = None;
                entry.prepared = None;
            }
        }
        self.replan();
    }

    /// What to do next; `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Planner::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.entries.values().filter_map(|e| e.retry_at).min()
    }

    fn take(&mut self, link: &Link) {
        let full = self.entries.len() >= MAX_INTERFACES;
        match self.entries.get_mut(&link.index) {
            Some(entry) => entry.link = link.clone(),
            None if full => self.counters.too_many += 1,
            None => {
                let entry = Entry { link: link.clone(), prepared: None, tries: 0, retry_at: None };
                self.entries.insert(link.index, entry);
            }
        }
    }

    fn failed(&mut self, now: Instant, index: u32) {
        self.counters.failures += 1;
        let Some(entry) = self.entries.get_mut(&index) else { return };
        entry.tries += 1;
        if entry.tries < TRIES {
            let pause = PAUSE.0.times(1 << entry.tries.min(6)).min(PAUSE.1);
            entry.retry_at = Some(now + pause);
        }
    }

    fn replan(&mut self) {
        let mut interfaces = Vec::new();
        for entry in self.entries.values_mut() {
            let Some(decision) = decide(&entry.link, self.config.wired, self.config.released) else {
                continue;
            };
            let link = &entry.link;
            interfaces.push(PlannedInterface {
                index: link.index,
                name: link.name.clone(),
                role: decision.role,
                running: link.up && link.carrier,
                reason: decision.reason.to_string(),
            });
            if entry.prepared != Some(decision.role) && entry.retry_at.is_none() {
                entry.prepared = Some(decision.role);
                if decision.role != Role::Unused {
                    self.counters.steps += 1;
                    self.outputs.push_back(Output::Prepare { index: link.index, role: decision.role });
                }
            }
        }
        let phys = self.phys.iter().map(|p| PlannedPhy { phy: p.clone(), reason: phy_reason(p) });
        let plan = Plan { interfaces, phys: phys.collect() };
        if plan != self.plan {
            self.plan = plan;
            self.counters.plans += 1;
            if !self.outputs.contains(&Output::PlanChanged) {
                self.outputs.push_back(Output::PlanChanged);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn link(index: u32, up: bool) -> Link {
        Link {
            index,
            name: alloc::format!("eth{index}"),
            hardware: 1,
            kind: None,
            enslaved: false,
            wifi: None,
            up,
            carrier: up,
        }
    }

    fn drain(p: &mut Planner) -> Vec<Output> {
        core::iter::from_fn(|| p.poll_output()).collect()
    }

    fn prepare(index: u32) -> Output {
        Output::Prepare { index, role: Role::Mesh }
    }

    #[test]
    fn a_new_interface_is_prepared_once_and_each_change_is_told() {
        let mut p = Planner::new(Config::default());
        p.handle_input(Instant::ZERO, Input::AllLinks(&[link(2, false)]));
        assert_eq!(drain(&mut p), [prepare(2), Output::PlanChanged]);
        assert!(!p.plan().interfaces[0].running);
        p.handle_input(Instant::ZERO, Input::Link(&link(2, true)));
        assert_eq!(drain(&mut p), [Output::PlanChanged]);
        assert!(p.plan().interfaces[0].running);
        p.handle_input(Instant::ZERO, Input::Link(&link(2, true)));
        assert_eq!(drain(&mut p), [], "no news");
        p.handle_input(Instant::ZERO, Input::Link(&link(2, false)));
        assert_eq!(drain(&mut p), [Output::PlanChanged], "set down by hand: not set up again");
        p.handle_input(Instant::ZERO, Input::LinkGone(2));
        assert_eq!(drain(&mut p), [Output::PlanChanged]);
        p.handle_input(Instant::ZERO, Input::Link(&link(2, false)));
        assert_eq!(drain(&mut p), [prepare(2), Output::PlanChanged], "plugged in again");
        assert_eq!(p.poll_timeout(), None);
    }

    #[test]
    fn a_bridge_port_is_released_and_taken_back() {
        let mut p = Planner::new(Config::default());
        p.handle_input(Instant::ZERO, Input::AllLinks(&[link(2, true)]));
        drain(&mut p);
        p.handle_input(Instant::ZERO, Input::Link(&Link { enslaved: true, ..link(2, true) }));
        assert_eq!(drain(&mut p), [Output::PlanChanged]);
        assert_eq!(p.plan().interfaces[0].role, Role::Unused);
        p.handle_input(Instant::ZERO, Input::Link(&link(2, true)));
        assert_eq!(drain(&mut p), [prepare(2), Output::PlanChanged]);
    }

    #[test]
    fn failures_are_tried_again_with_growing_pauses_and_not_for_ever() {
        let mut p = Planner::new(Config::default());
        p.handle_input(Instant::ZERO, Input::AllLinks(&[link(2, false)]));
        drain(&mut p);
        let mut now = Instant::ZERO;
        let mut pauses = Vec::new();
        loop {
            p.handle_input(now, Input::Failed { index: 2 });
            let Some(at) = p.poll_timeout() else { break };
            pauses.push(at.saturating_since(now));
            p.handle_timeout(now);
            assert_eq!(drain(&mut p), [], "not yet");
            now = at;
            p.handle_timeout(now);
            assert_eq!(drain(&mut p), [prepare(2)]);
        }
        assert_eq!(pauses.len(), TRIES as usize - 1);
        assert!(pauses.is_sorted() && pauses.last() == Some(&PAUSE.1));
    }

    #[test]
    fn released_interfaces_are_never_touched() {
        let mut p = Planner::new(Config { released: true, ..Config::default() });
        p.handle_input(Instant::ZERO, Input::AllLinks(&[link(2, false), link(3, true)]));
        assert_eq!(drain(&mut p), [Output::PlanChanged]);
        assert!(p.plan().interfaces.iter().all(|i| i.role == Role::Unused));
    }

    #[test]
    fn radios_are_listed_and_the_table_is_bounded() {
        let mut p = Planner::new(Config::default());
        let phy = Phy { name: "phy0".to_string(), modes: vec![crate::Mode::AccessPoint], bands: vec![] };
        p.handle_input(Instant::ZERO, Input::AllPhys(&[phy]));
        assert_eq!(drain(&mut p), [Output::PlanChanged]);
        assert_eq!(p.plan().phys.len(), 1);
        let many: Vec<Link> = (1..100).map(|i| link(i, true)).collect();
        p.handle_input(Instant::ZERO, Input::AllLinks(&many));
        assert_eq!(p.plan().interfaces.len(), MAX_INTERFACES);
        assert_eq!(p.counters().too_many, 99 - MAX_INTERFACES as u64);
    }
}

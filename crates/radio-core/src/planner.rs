//! The planner: keeps the plan up to date and says what has to be done for it.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use mesh_types::{Duration, Instant};

use crate::radios::{Assignment, RadioSettings, assign};
use crate::rules::{Work, decide, is_own_access_point, is_own_mesh_point};
use crate::{Cable, Link, Mode, Phy, Plan, PlannedInterface, PlannedPhy, Role, WiredRole};

/// More interfaces than this are not planned for; later ones are left alone and counted.
pub const MAX_INTERFACES: usize = 64;
/// More radios than this are not planned for.
pub const MAX_PHYS: usize = 16;

/// First and longest pause before a step that failed is tried again, and after how many tries it is left.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const TRIES: u32 = 20;

/// What the planner is told once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `ethernet.role`
    pub wired: WiredRole,
    /// `mesh.*` and `ap.*`
    pub radios: RadioSettings,
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
    /// A [`crate::Port`] found out what is on a cable.
    Cable {
        /// Of which interface.
        index: u32,
        /// What.
        cable: Cable,
    },
    /// [`Output::Prepare`] was not possible.
    Failed {
        /// Of which interface.
        index: u32,
    },
    /// [`Output::AddInterface`] was not possible.
    PhyFailed {
        /// Of which radio.
        phy: u32,
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
        /// It is ours, and is to mesh or to serve like this.
        work: Option<Work>,
    },
    /// Make an interface on a radio. Answer with [`Input::PhyFailed`] if that does not work; else it comes
    /// as an interface like any other.
    AddInterface {
        /// On which.
        phy: u32,
        /// What it is to be: a mesh point or an access point.
        mode: Mode,
        /// What it is to be called.
        name: String,
    },
    /// Remove an interface of ours: its radio is for something else now.
    Remove {
        /// Which.
        index: u32,
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
    cable: Cable,
    /// What it was last prepared for. An interface that people set down afterwards stays down.
    prepared: Option<(Role, Option<Work>)>,
    retry: Retry,
}

#[derive(Clone, Debug)]
struct PhyEntry {
    phy: Phy,
    /// A mesh point, and an access point, was asked for. One that people remove afterwards stays away.
    asked: [bool; 2],
    retry: Retry,
}

/// When a step that failed is tried again.
#[derive(Clone, Copy, Debug, Default)]
struct Retry {
    tries: u32,
    at: Option<Instant>,
}

impl Retry {
    fn failed(&mut self, now: Instant) {
        self.tries += 1;
        if self.tries < TRIES {
            let pause = PAUSE.0.times(1 << self.tries.min(6)).min(PAUSE.1);
            self.at = Some(now + pause);
        }
    }

    /// True once, when it is time.
    fn due(&mut self, now: Instant) -> bool {
        let due = self.at.is_some_and(|t| t <= now);
        if due {
            self.at = None;
        }
        due
    }
}

/// The plan and what it rests on.
#[derive(Debug)]
pub struct Planner {
    config: Config,
    entries: BTreeMap<u32, Entry>,
    phys: BTreeMap<u32, PhyEntry>,
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
            phys: BTreeMap::new(),
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
            Input::AllPhys(phys) => self.take_phys(phys),
            Input::Cable { index, cable } => {
                if let Some(entry) = self.entries.get_mut(&index) {
                    entry.cable = cable;
                }
            }
            Input::Failed { index } => {
                self.counters.failures += 1;
                if let Some(entry) = self.entries.get_mut(&index) {
                    entry.retry.failed(now);
                }
            }
            Input::PhyFailed { phy } => {
                self.counters.failures += 1;
                if let Some(entry) = self.phys.get_mut(&phy) {
                    entry.retry.failed(now);
                }
            }
        }
        self.replan();
    }

    /// Tries again what failed and is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for entry in self.entries.values_mut().filter_map(|e| e.retry.due(now).then_some(e)) {
            entry.prepared = None;
        }
        for entry in self.phys.values_mut().filter_map(|e| e.retry.due(now).then_some(e)) {
            entry.asked = [false; 2];
        }
        self.replan();
    }

    /// What to do next; `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Planner::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phys = self.phys.values().filter_map(|e| e.retry.at);
        self.entries.values().filter_map(|e| e.retry.at).chain(phys).min()
    }

    fn take(&mut self, link: &Link) {
        let full = self.entries.len() >= MAX_INTERFACES;
        match self.entries.get_mut(&link.index) {
            Some(entry) => entry.link = link.clone(),
            None if full => self.counters.too_many += 1,
            None => {
                let entry = Entry {
                    link: link.clone(),
                    cable: Cable::default(),
                    prepared: None,
                    retry: Retry::default(),
                };
                self.entries.insert(link.index, entry);
            }
        }
    }

    fn take_phys(&mut self, phys: &[Phy]) {
        self.phys.retain(|index, _| phys.iter().any(|p| p.index == *index));
        for phy in phys {
            let full = self.phys.len() >= MAX_PHYS;
            match self.phys.get_mut(&phy.index) {
                // A number that has another name is another radio.
                Some(entry) if entry.phy.name == phy.name => entry.phy = phy.clone(),
                None if full => self.counters.too_many += 1,
                _ => {
                    let entry = PhyEntry { phy: phy.clone(), asked: [false; 2], retry: Retry::default() };
                    self.phys.insert(phy.index, entry);
                }
            }
        }
    }

    fn replan(&mut self) {
        let phys: Vec<Phy> = self.phys.values().map(|e| e.phy.clone()).collect();
        let assigned = assign(&phys, self.config.radios, self.config.released);
        let assigned: BTreeMap<u32, Assignment> = self.phys.keys().copied().zip(assigned).collect();
        self.ask_for_interfaces(&assigned);
        let mut interfaces = Vec::new();
        for entry in self.entries.values_mut() {
            let link = &entry.link;
            let phy = link.wifi.and_then(|w| assigned.get(&w.phy));
            let config = &self.config;
            let Some(decision) = decide(link, phy, entry.cable, config.wired, config.released) else {
                continue;
            };
            let wanted = (decision.role, decision.work);
            if entry.prepared != Some(wanted) && entry.retry.at.is_none() {
                entry.prepared = Some(wanted);
                let (index, role, work) = (link.index, decision.role, decision.work);
                let step = match role {
                    Role::Unused if decision.remove => Some(Output::Remove { index }),
                    Role::Unused | Role::ByHand => None,
                    _ => Some(Output::Prepare { index, role, work }),
                };
                self.counters.steps += u64::from(step.is_some());
                self.outputs.extend(step);
            }
            interfaces.push(PlannedInterface {
                index: link.index,
                name: link.name.clone(),
                role: decision.role,
                running: link.up && link.carrier,
                reason: decision.reason,
                asks: decision.asks,
            });
        }
        let phys = phys.into_iter().map(|phy| {
            let assigned = assigned.get(&phy.index);
            let access_point = assigned.is_some_and(|a| a.access_point.is_some());
            let reason = assigned.map(|a| a.reason.clone()).unwrap_or_default();
            PlannedPhy { phy, access_point, reason }
        });
        let plan = Plan { interfaces, phys: phys.collect() };
        if plan != self.plan {
            self.plan = plan;
            self.counters.plans += 1;
            if !self.outputs.contains(&Output::PlanChanged) {
                self.outputs.push_back(Output::PlanChanged);
            }
        }
    }

    /// Every radio that is to mesh gets a mesh point, and one that is to serve an access point, unless it has one.
    fn ask_for_interfaces(&mut self, assigned: &BTreeMap<u32, Assignment>) {
        let mut taken: Vec<String> = self.entries.values().map(|e| e.link.name.clone()).collect();
        for output in &self.outputs {
            if let Output::AddInterface { name, .. } = output {
                taken.push(name.clone());
            }
        }
        for (index, entry) in &mut self.phys {
            let on = |e: &&Entry| e.link.wifi.is_some_and(|w| w.phy == *index);
            let has = |is: fn(&Link) -> bool| self.entries.values().filter(on).any(|e| is(&e.link));
            let (mesh, ap) =
                assigned.get(index).map_or((false, false), |a| (a.mesh.is_some(), a.access_point.is_some()));
            if !mesh && !ap {
                entry.retry = Retry::default();
            }
            let kinds = [
                (mesh, has(is_own_mesh_point), Mode::MeshPoint, "mesh"),
                (ap, has(is_own_access_point), Mode::AccessPoint, "ap"),
            ];
            for ((wanted, there, mode, word), asked) in kinds.into_iter().zip(&mut entry.asked) {
                if !wanted {
                    *asked = false;
                } else if !*asked && entry.retry.at.is_none() && !there {
                    let mut names = (0..=taken.len()).map(|n| format!("{word}{n}"));
                    let Some(name) = names.find(|n| !taken.contains(n)) else { continue };
                    taken.push(name.clone());
                    *asked = true;
                    self.counters.steps += 1;
                    self.outputs.push_back(Output::AddInterface { phy: *index, mode, name });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Channel, Wifi};
    use alloc::vec;

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
        Output::Prepare { index, role: Role::Mesh, work: None }
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
    fn a_port_follows_what_is_on_its_cable() {
        let mut p = Planner::new(Config::default());
        p.handle_input(Instant::ZERO, Input::AllLinks(&[link(2, true)]));
        drain(&mut p);
        let mut put = |cable| {
            p.handle_input(Instant::ZERO, Input::Cable { index: 2, cable });
            (drain(&mut p), p.plan().interfaces[0].role)
        };
        let uplink = Output::Prepare { index: 2, role: Role::Uplink, work: None };
        let router = Cable::Uplink { lease: None, router: true };
        assert_eq!(put(router), (vec![uplink, Output::PlanChanged], Role::Uplink));
        assert_eq!(put(router), (vec![], Role::Uplink), "no news");
        assert_eq!(put(Cable::ByHand), (vec![Output::PlanChanged], Role::ByHand), "nothing is touched");
        assert_eq!(put(Cable::Quiet), (vec![prepare(2), Output::PlanChanged], Role::Mesh));
        p.handle_input(Instant::ZERO, Input::Cable { index: 9, cable: router });
        assert_eq!(drain(&mut p), [], "unknown");
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

    const CHANNEL: Channel = Channel { frequency: 2412, ht: true };

    fn phy(index: u32, modes: &[Mode]) -> Phy {
        let limits = vec![(4, modes.to_vec())];
        Phy {
            index,
            name: format!("phy{index}"),
            modes: modes.to_vec(),
            bands: vec![crate::Band::Ghz2],
            most_clients: None,
            channels: vec![CHANNEL],
            combinations: vec![crate::Combination { limits, interfaces: 4, channels: 1 }],
        }
    }

    fn mesh_point(index: u32, name: &str, phy: u32) -> Link {
        Link { name: name.into(), wifi: Some(Wifi { phy, mode: Mode::MeshPoint }), ..link(index, false) }
    }

    fn add(phy: u32, name: &str) -> Output {
        let mode = if name.starts_with("ap") { Mode::AccessPoint } else { Mode::MeshPoint };
        Output::AddInterface { phy, mode, name: name.into() }
    }

    fn join(index: u32) -> Output {
        Output::Prepare { index, role: Role::Mesh, work: Some(Work { channel: CHANNEL, shared: false }) }
    }

    const MESH: &[Mode] = &[Mode::MeshPoint];
    const BOTH: &[Mode] = &[Mode::AccessPoint, Mode::MeshPoint];

    #[test]
    fn a_radio_gets_a_mesh_point_that_joins_and_is_not_made_twice() {
        let mut p = Planner::new(Config::default());
        p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, MESH)]));
        assert_eq!(drain(&mut p), [add(0, "mesh0"), Output::PlanChanged]);
        p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, MESH)]));
        assert_eq!(drain(&mut p), [], "asked for");
        p.handle_input(Instant::ZERO, Input::Link(&mesh_point(7, "mesh0", 0)));
        assert_eq!(drain(&mut p), [join(7), Output::PlanChanged]);
        assert!(p.plan().interfaces[0].reason.contains("2412 MHz"), "{:?}", p.plan());
        p.handle_input(Instant::ZERO, Input::LinkGone(7));
        assert_eq!(drain(&mut p), [Output::PlanChanged], "removed by hand: not made again");
        p.handle_input(Instant::ZERO, Input::AllPhys(&[]));
        p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(1, MESH)]));
        assert_eq!(drain(&mut p), [Output::PlanChanged, add(1, "mesh0")], "plugged in again");
    }

    #[test]
    fn what_an_earlier_run_left_is_used() {
        let mut p = Planner::new(Config::default());
        p.handle_input(Instant::ZERO, Input::AllLinks(&[mesh_point(7, "mesh0", 0)]));
        drain(&mut p);
        p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, BOTH), phy(1, BOTH), phy(2, BOTH)]));
        assert_eq!(drain(&mut p), [add(1, "ap0"), add(2, "mesh1"), join(7), Output::PlanChanged]);
    }

    #[test]
    fn a_radio_with_another_task_gives_its_mesh_point_up() {
        let mut p = Planner::new(Config::default());
        p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, BOTH)]));
        p.handle_input(Instant::ZERO, Input::Link(&mesh_point(7, "mesh0", 0)));
        drain(&mut p);
        let better = Phy { bands: vec![crate::Band::Ghz2, crate::Band::Ghz5], ..phy(1, BOTH) };
        p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, BOTH), better]));
        assert_eq!(drain(&mut p), [add(1, "mesh1"), Output::Remove { index: 7 }, Output::PlanChanged]);
        assert_eq!(p.plan().interfaces[0].role, Role::Unused);
    }

    #[test]
    fn a_radio_that_can_gets_an_access_point_too_and_gives_it_up() {
        let mut p = Planner::new(Config::default());
        p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, BOTH)]));
        assert_eq!(drain(&mut p), [add(0, "mesh0"), add(0, "ap0"), Output::PlanChanged]);
        let ap = Link {
            name: "ap0".into(),
            wifi: Some(Wifi { phy: 0, mode: Mode::AccessPoint }),
            ..link(8, false)
        };
        p.handle_input(Instant::ZERO, Input::Link(&ap));
        let serve = Output::Prepare {
            index: 8,
            role: Role::AccessPoint,
            work: Some(Work { channel: CHANNEL, shared: true }),
        };
        assert_eq!(drain(&mut p), [serve, Output::PlanChanged]);
        p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, BOTH), phy(1, &[Mode::AccessPoint])]));
        assert_eq!(drain(&mut p), [add(1, "ap1"), Output::Remove { index: 8 }, Output::PlanChanged]);
        assert_eq!(p.plan().interfaces[0].role, Role::Unused);
    }

    #[test]
    fn mesh_points_made_by_hand_mesh_and_are_left_as_they_are() {
        let mut p = Planner::new(Config::default());
        p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, &[Mode::MeshPoint])]));
        p.handle_input(Instant::ZERO, Input::Link(&mesh_point(7, "wlan0", 0)));
        let out = drain(&mut p);
        assert!(out.contains(&prepare(7)) && !out.contains(&Output::Remove { index: 7 }), "{out:?}");
    }

    #[test]
    fn a_mesh_point_that_cannot_be_made_is_tried_again_with_pauses() {
        let mut p = Planner::new(Config::default());
        p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, MESH)]));
        drain(&mut p);
        p.handle_input(Instant::ZERO, Input::PhyFailed { phy: 0 });
        assert_eq!(drain(&mut p), []);
        let at = p.poll_timeout().unwrap();
        p.handle_timeout(at);
        assert_eq!(drain(&mut p), [add(0, "mesh0")]);
        p.handle_input(at, Input::PhyFailed { phy: 9 });
        assert_eq!(p.poll_timeout(), None);
    }

    #[test]
    fn released_radios_and_a_secured_mesh_are_not_touched() {
        for config in [
            Config { released: true, ..Config::default() },
            Config {
                radios: RadioSettings { secured: true, ..RadioSettings::default() },
                ..Config::default()
            },
        ] {
            let mut p = Planner::new(config);
            p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, MESH)]));
            assert_eq!(drain(&mut p), [Output::PlanChanged]);
        }
    }

    #[test]
    fn the_tables_are_bounded() {
        let mut p = Planner::new(Config::default());
        let many: Vec<Link> = (1..100).map(|i| link(i, true)).collect();
        p.handle_input(Instant::ZERO, Input::AllLinks(&many));
        assert_eq!(p.plan().interfaces.len(), MAX_INTERFACES);
        assert_eq!(p.counters().too_many, 99 - MAX_INTERFACES as u64);
        let many: Vec<Phy> = (0..99).map(|i| phy(i, BOTH)).collect();
        p.handle_input(Instant::ZERO, Input::AllPhys(&many));
        assert_eq!(p.plan().phys.len(), MAX_PHYS);
    }
}

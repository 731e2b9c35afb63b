//! The planner: keeps the plan up to date and says what has to be done for it.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use mesh_types::{Duration, Instant};

use crate::radios::{Assignment, HeardMesh, RadioSettings, assign, best_channel};
use crate::rules::{Work, decide, is_own_access_point, is_own_mesh_point};
use crate::{Cable, Link, Mode, Phy, Plan, PlannedInterface, PlannedPhy, Role, WiredRole};

/// More interfaces than this are not planned for; later ones are left alone and counted.
pub const MAX_INTERFACES: usize = 64;
/// More radios than this are not planned for.
pub const MAX_PHYS: usize = 16;

/// First and longest pause before a step that failed is tried again, and after how many tries it is left.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const TRIES: u32 = 20;

/// Who looks round and is not heard of again has found nothing by then.
const LOOK_PATIENCE: Duration = Duration::from_secs(6);
/// First and longest pause before a mesh point without peers looks round again.
const ALONE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

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

impl Config {
    /// The channel of the mesh is found by looking for it.
    const fn looks(&self) -> bool {
        self.radios.mesh_frequency.is_none() && !self.released
    }
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
    /// The answer to [`Output::Look`]: where this node's mesh was heard; nothing if looking was not possible.
    Looked {
        /// Of which interface.
        index: u32,
        /// The channels.
        heard: &'a [HeardMesh],
    },
    /// The mesh points that have no peer at all.
    Alone(&'a [u32]),
    /// People drive the interfaces from now on (`true`), or do not any more.
    Released(bool),
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
    /// Set the mesh point up and look for the mesh on these channels. Answer with [`Input::Looked`].
    Look {
        /// Which.
        index: u32,
        /// The channels' centres in MHz.
        frequencies: Vec<u32>,
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
    look: Look,
}

/// Whether a radio has looked for the mesh, and where it heard it.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    state: LookState,
    heard: Option<u32>,
    /// Its mesh point has no peers: when to look again, and after which pause.
    alone: Option<(Instant, Duration)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LookState {
    /// It does not mesh.
    #[default]
    Never,
    /// It is to look once it has a mesh point. Until when that is waited for.
    Wanted(Instant),
    /// Until when an answer is waited for.
    Asked(Instant),
    Done,
}

impl LookState {
    const fn patience(self) -> Option<Instant> {
        match self {
            Self::Wanted(until) | Self::Asked(until) => Some(until),
            Self::Never | Self::Done => None,
        }
    }
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
            Input::Looked { index, heard } => self.looked(index, heard),
            Input::Alone(points) => self.alone(now, points),
            Input::Released(released) => self.config.released = released,
        }
        self.replan(now);
    }

    /// Whether people drive the interfaces.
    pub const fn released(&self) -> bool {
        self.config.released
    }

    fn phy_of(&mut self, index: u32) -> Option<&mut PhyEntry> {
        let phy = self.entries.get(&index)?.link.wifi?.phy;
        self.phys.get_mut(&phy)
    }

    fn looked(&mut self, index: u32, heard: &[HeardMesh]) {
        let Some(entry) = self.phy_of(index) else { return };
        if matches!(entry.look.state, LookState::Asked(_)) {
            entry.look.state = LookState::Done;
            let usable = |h: &&HeardMesh| entry.phy.channels.iter().any(|c| c.frequency == h.frequency);
            let usable: Vec<HeardMesh> = heard.iter().filter(usable).copied().collect();
            entry.look.heard = best_channel(&usable).or(entry.look.heard);
        }
    }

    fn alone(&mut self, now: Instant, points: &[u32]) {
        let points = points.iter().filter_map(|index| self.entries.get(index)?.link.wifi.map(|w| w.phy));
        let points: Vec<u32> = points.collect();
        for (index, entry) in &mut self.phys {
            match (points.contains(index), entry.look.alone) {
                (false, _) => entry.look.alone = None,
                (true, None) => entry.look.alone = Some((now + ALONE.0, ALONE.0)),
                (true, Some(_)) => {}
            }
        }
    }

    /// Tries again what failed and is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for entry in self.entries.values_mut().filter_map(|e| e.retry.due(now).then_some(e)) {
            entry.prepared = None;
        }
        for entry in self.phys.values_mut().filter_map(|e| e.retry.due(now).then_some(e)) {
            entry.asked = [false; 2];
        }
        for entry in self.phys.values_mut() {
            if entry.look.state.patience().is_some_and(|until| until <= now) {
                entry.look.state = LookState::Done;
            }
            if let Some((at, pause)) = entry.look.alone.filter(|(at, _)| *at <= now) {
                let pause = pause.times(2).min(ALONE.1);
                entry.look.alone = Some((at.max(now) + pause, pause));
                entry.look.state = LookState::Wanted(now + LOOK_PATIENCE);
            }
        }
        self.replan(now);
    }

    /// What to do next; `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Planner::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let looks = |e: &PhyEntry| {
            let alone = e.look.alone.map(|(at, _)| at);
            e.look.state.patience().or(alone).filter(|_| self.config.looks())
        };
        let phys = self.phys.values().flat_map(|e| [e.retry.at, looks(e)]).flatten();
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
                    let entry = PhyEntry {
                        phy: phy.clone(),
                        asked: [false; 2],
                        retry: Retry::default(),
                        look: Look::default(),
                    };
                    self.phys.insert(phy.index, entry);
                }
            }
        }
    }

    fn replan(&mut self, now: Instant) {
        let phys: Vec<Phy> = self.phys.values().map(|e| e.phy.clone()).collect();
        let heard = self.phys.iter().filter_map(|(i, e)| e.look.heard.map(|f| (*i, f))).collect();
        let assigned = assign(&phys, &heard, self.config.radios, self.config.released);
        let assigned: BTreeMap<u32, Assignment> = self.phys.keys().copied().zip(assigned).collect();
        self.ask_for_interfaces(&assigned);
        self.look_round(now, &assigned);
        let looking = self.is_looking();
        let mut interfaces = Vec::new();
        for entry in self.entries.values_mut() {
            let link = &entry.link;
            let phy = link.wifi.and_then(|w| assigned.get(&w.phy));
            let config = &self.config;
            let Some(decision) = decide(link, phy, entry.cable, config.wired, config.released) else {
                continue;
            };
            let wanted = (decision.role, decision.work);
            // Channels are not settled before all mesh points have looked round.
            let waits = looking && decision.work.is_some() && entry.prepared.is_none();
            if entry.prepared != Some(wanted) && entry.retry.at.is_none() && !waits {
                // What is ours goes when people take over; what they make stays.
                let ours = matches!(entry.prepared, Some((_, Some(_)))) && self.config.released;
                entry.prepared = Some(wanted);
                let (index, role, work) = (link.index, decision.role, decision.work);
                let step = match role {
                    Role::Unused if decision.remove || ours => Some(Output::Remove { index }),
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

    /// A mesh point that has not looked for the mesh is told to, if its channel is not given.
    fn look_round(&mut self, now: Instant, assigned: &BTreeMap<u32, Assignment>) {
        for (index, entry) in &mut self.phys {
            let meshes = assigned.get(index).is_some_and(|a| a.mesh.is_some());
            if !meshes || !self.config.looks() {
                entry.look = Look::default();
                continue;
            }
            if entry.look.state == LookState::Never {
                entry.look.state = LookState::Wanted(now + LOOK_PATIENCE);
            }
            let point = self
                .entries
                .values()
                .find(|e| e.link.wifi.is_some_and(|w| w.phy == *index) && is_own_mesh_point(&e.link));
            let (LookState::Wanted(_), Some(point)) = (entry.look.state, point) else { continue };
            entry.look.state = LookState::Asked(now + LOOK_PATIENCE);
            self.counters.steps += 1;
            let frequencies = entry.phy.channels.iter().map(|c| c.frequency).collect();
            self.outputs.push_back(Output::Look { index: point.link.index, frequencies });
        }
    }

    /// Some radio has not finished looking.
    fn is_looking(&self) -> bool {
        self.phys.values().any(|e| e.look.state.patience().is_some())
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
mod tests;

//! The planner: keeps the plan up to date and says what has to be done for it.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use mesh_types::{Duration, Instant};

use crate::look::Look;
use crate::radios::{Assignment, HeardMesh, RadioSettings, assign};
use crate::random::Random;
use crate::rules::{Work, decide, is_own_access_point, is_own_mesh_point};
use crate::{Cable, Link, Mode, Off, Phy, Plan, PlannedInterface, PlannedPhy, Role, WiredRole};

/// More interfaces than this are not planned for; later ones are left alone and counted.
pub const MAX_INTERFACES: usize = 64;
/// More radios than this are not planned for.
pub const MAX_PHYS: usize = 16;

/// First and longest pause before a step that failed is tried again, and after how many tries it is left.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const TRIES: u32 = 20;
/// Who failed last so long ago has worked since.
const RECOVERED: Duration = Duration::from_secs(120);

/// After so many failures in a row a radio counts as none, where another can do its work.
const STUCK: u32 = 2;
/// First and longest pause before it counts again.
const STUCK_PAUSE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));

/// What the planner is told once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `ethernet.role`
    pub wired: WiredRole,
    /// `mesh.*` and `ap.*`
    pub radios: RadioSettings,
    /// People drive the interfaces (`workshop = "manual"`); nothing is touched.
    pub released: bool,
    /// Keeps nodes out of step: another one on each.
    pub seed: u64,
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
    /// What serves or meshes on a radio does not start there, or hangs, again and again.
    Stuck {
        /// Which radio.
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
    /// A mesh point has lost a peer.
    PeerLost,
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
    /// Where it is to mesh, in MHz.
    channel: Option<u32>,
    stuck: Stuck,
}

/// Whether a radio does what it is told to.
#[derive(Clone, Copy, Debug, Default)]
struct Stuck {
    /// It does not.
    now: bool,
    times: u32,
    /// When it is tried again; never after too many times.
    until: Option<Instant>,
}

impl Stuck {
    fn begin(&mut self, now: Instant) {
        let pause = STUCK_PAUSE.0.times(1 << self.times.min(6)).min(STUCK_PAUSE.1);
        self.times += 1;
        self.now = true;
        self.until = Some(now + pause).filter(|_| self.times < TRIES);
    }

    /// True once, when it is time.
    fn ends(&mut self, now: Instant) -> bool {
        let due = self.until.is_some_and(|t| t <= now);
        if due {
            (self.now, self.until) = (false, None);
        }
        due
    }
}

/// When a step that failed is tried again.
#[derive(Clone, Copy, Debug, Default)]
struct Retry {
    tries: u32,
    last: Option<Instant>,
    at: Option<Instant>,
}

impl Retry {
    fn failed(&mut self, now: Instant) {
        if self.last.is_some_and(|last| now.saturating_since(last) >= RECOVERED) {
            self.tries = 0;
        }
        self.last = Some(now);
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
    random: Random,
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
            random: Random::new(config.seed),
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
                    let phy = entry.link.wifi.map(|w| w.phy).filter(|_| entry.retry.tries >= STUCK);
                    phy.into_iter().for_each(|phy| self.stuck(now, phy));
                }
            }
            Input::PhyFailed { phy } => {
                self.counters.failures += 1;
                if let Some(entry) = self.phys.get_mut(&phy) {
                    entry.retry.failed(now);
                    if entry.retry.tries >= STUCK {
                        self.stuck(now, phy);
                    }
                }
            }
            Input::Stuck { phy } => self.stuck(now, phy),
            Input::Looked { index, heard } => self.looked(now, index, heard),
            Input::Alone(points) => self.alone(now, points),
            Input::PeerLost => {
                self.phys.values_mut().for_each(|e| e.look.lost_peer(now, &mut self.random));
            }
            Input::Released(released) => self.config.released = released,
        }
        self.replan(now);
    }

    /// Whether people drive the interfaces.
    pub const fn released(&self) -> bool {
        self.config.released
    }

    /// The radio counts as none for a while, if there is another one of use.
    fn stuck(&mut self, now: Instant, phy: u32) {
        let of_use = |e: &PhyEntry| {
            let does = e.phy.modes.iter().any(|m| matches!(m, Mode::AccessPoint | Mode::MeshPoint));
            does && !e.phy.channels.is_empty() && e.phy.off.is_none() && !e.stuck.now
        };
        let other = self.phys.iter().any(|(index, e)| *index != phy && of_use(e));
        if let Some(entry) = self.phys.get_mut(&phy).filter(|e| other && !e.stuck.now) {
            entry.stuck.begin(now);
        }
    }

    fn looked(&mut self, now: Instant, index: u32, heard: &[HeardMesh]) {
        let Some(wifi) = self.entries.get(&index).and_then(|e| e.link.wifi) else { return };
        let Some(entry) = self.phys.get_mut(&wifi.phy) else { return };
        let usable = |h: &&HeardMesh| entry.phy.channels.iter().any(|c| c.frequency == h.frequency);
        let usable: Vec<HeardMesh> = heard.iter().filter(usable).copied().collect();
        entry.look.found(now, &usable, entry.channel, &mut self.random);
    }

    fn alone(&mut self, now: Instant, points: &[u32]) {
        let points = points.iter().filter_map(|index| self.entries.get(index)?.link.wifi.map(|w| w.phy));
        let points: Vec<u32> = points.collect();
        for (index, entry) in &mut self.phys {
            entry.look.set_alone(now, points.contains(index));
        }
    }

    /// Tries again what failed and is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for entry in self.entries.values_mut().filter_map(|e| e.retry.due(now).then_some(e)) {
            entry.prepared = None;
        }
        for entry in self.phys.values_mut() {
            if entry.retry.due(now) | entry.stuck.ends(now) {
                entry.asked = [false; 2];
            }
            entry.look.handle_timeout(now, &mut self.random);
        }
        self.replan(now);
    }

    /// What to do next; `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Planner::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let looks = |e: &PhyEntry| e.look.poll_timeout().filter(|_| self.config.looks());
        let phys = self.phys.values().flat_map(|e| [e.retry.at, e.stuck.until, looks(e)]).flatten();
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
                        channel: None,
                        stuck: Stuck::default(),
                    };
                    self.phys.insert(phy.index, entry);
                }
            }
        }
    }

    fn replan(&mut self, now: Instant) {
        let off = |e: &PhyEntry| e.phy.off.or(e.stuck.now.then_some(Off::Stuck));
        let phys: Vec<Phy> = self.phys.values().map(|e| Phy { off: off(e), ..e.phy.clone() }).collect();
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
            let denied = assigned.map(|a| a.denied.clone()).unwrap_or_default();
            PlannedPhy { phy, access_point, reason, denied }
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
            entry.channel = assigned.get(index).and_then(|a| a.mesh).map(|c| c.frequency);
            if entry.channel.is_none() || !self.config.looks() {
                entry.look = Look::default();
                continue;
            }
            entry.look.wake(now);
            let point = self
                .entries
                .values()
                .find(|e| e.link.wifi.is_some_and(|w| w.phy == *index) && is_own_mesh_point(&e.link));
            let Some(point) = point.filter(|_| entry.look.is_wanted()) else { continue };
            entry.look.asked(now);
            self.counters.steps += 1;
            let frequencies = entry.phy.channels.iter().map(|c| c.frequency).collect();
            self.outputs.push_back(Output::Look { index: point.link.index, frequencies });
        }
    }

    /// Some radio has not finished looking.
    fn is_looking(&self) -> bool {
        self.phys.values().any(|e| e.look.is_looking())
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

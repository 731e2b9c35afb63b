//! Whose turn it is: how a fleet takes an update without going dark, and stops where one node fares badly.
//!
//! Every node floods a [`Report`]. A node that has the new system in its other slot waits for its turn, claims it, waits until
//! its claim is known and no earlier one contradicts it, and restarts. Of the neighbours of any node never more than
//! a share are down at once, and never all (unless there is only one). The order is by a hash of release and
//! NodeId, so that no node is always the first. While a release runs nowhere yet, one node of all tries it.
//!
//! Once anybody reports that the new system failed, nobody takes a turn until a person resumes it, on any node. Failures of
//! a release are numbered (`stops`), and so is what a person answered (`resumed`): nodes pass on the larger of what they know
//! and what they hear, so that both outlive whoever said them, the order in which they arrive does not matter, and a failure
//! after a resumption stops the fleet again.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use mesh_types::{Duration, Instant, NodeId};
use sha2::{Digest, Sha256};

/// The most nodes a report is kept of.
pub const MAX_NODES: usize = 4096;
/// The most nodes that are remembered after their record expired.
const MAX_OFFLINE: usize = 512;
/// Bytes of a report.
const REPORT: usize = 22;

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing.
    Idle,
    /// It has the new system in its other slot and waits for its turn.
    Ready,
    /// It is about to restart.
    Claim,
    /// It is restarting, or its new system is on trial.
    Down,
    /// It gets a new system from others and writes it into its other slot.
    Fetch,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Idle, Self::Ready, Self::Claim, Self::Down, Self::Fetch];
}

/// What a node says of itself; flooded as an application record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it is doing.
    pub phase: Phase,
    /// How much of the new system is in its other slot, 0 to 100.
    pub percent: u8,
    /// The release that runs and is confirmed.
    pub running: u64,
    /// The release it is concerned with: takes, took, waits for, or went back from; 0: none.
    pub target: u64,
    /// So many failures of the target are known.
    pub stops: u8,
    /// So many of them a person has answered with going on.
    pub resumed: u8,
}

impl Report {
    /// Reads a report; `None` for what is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[2, phase, percent @ 0..=100, stops, resumed, 0], rest) = bytes.split_first_chunk::<6>()?
        else {
            return None;
        };
        let (numbers, rest) = rest.as_chunks::<8>();
        let (&[running, target], []) = (numbers, rest) else { return None };
        let phase = *Phase::ALL.get(usize::from(phase))?;
        let [running, target] = [running, target].map(u64::from_le_bytes);
        if resumed > stops {
            return None; // nobody answers a failure before it was
        }
        Some(Self { phase, percent, running, target, stops, resumed })
    }

    /// Writes it: version (2), phase (0 to 4), per cent, failures, answers, 0, then the two releases, little-endian.
    pub fn encode(&self) -> [u8; REPORT] {
        let mut out = [0; REPORT];
        let numbers = [self.running, self.target].map(u64::to_le_bytes);
        let head = [2, self.phase as u8, self.percent, self.stops, self.resumed, 0];
        out.iter_mut()
            .zip(head.into_iter().chain(numbers.into_iter().flatten()))
            .for_each(|(to, from)| *to = from);
        out
    }

    /// The target failed, and nobody has answered that yet. The last failure that can be counted stays unanswered.
    pub const fn is_stopped(&self) -> bool {
        self.stops > self.resumed || self.stops == u8::MAX
    }
}

/// How a fleet is updated.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// This node.
    pub me: NodeId,
    /// Of any node's neighbours, at most so many per cent are down at once (but one may always be). 1 to 100.
    pub share: u8,
    /// How long a claim is left standing before the restart; longer than a flood takes, twice.
    pub settle: Duration,
    /// A node that was down for that long has failed.
    pub patience: Duration,
}

/// What the driver found out.
#[derive(Clone, Debug)]
pub enum FleetInput<'a> {
    /// A node's report arrived, or changed.
    Report(NodeId, Report),
    /// A node's record expired. One that was down stays known as such.
    Gone(NodeId),
    /// The links of the mesh, each once or in both directions.
    Links(&'a [(NodeId, NodeId)]),
    /// There is a new system that this node wants, whether or not it can be had now.
    Wanted(u64),
    /// So many per cent of it are in the other slot.
    Fetching(u64, u8),
    /// It is not being fetched any more, and not there either.
    Paused,
    /// The new system is in this node's other slot.
    Installed(u64),
    /// This release runs here and is confirmed.
    Confirmed(u64),
    /// This release runs here and is on trial.
    OnTrial(u64),
    /// This node went back from this release: its failure of that number, from 1.
    WentBack(u64, u8),
    /// A person wants the fleet to go on with this release though it failed somewhere.
    Resume(u64),
}

/// What the driver has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FleetOutput {
    /// Flood this.
    Publish(Report),
    /// Restart into the new system.
    Restart,
}

/// See the module's text. Drain [`Fleet::poll_output`] after every other call.
#[derive(Clone, Debug)]
pub struct Fleet {
    config: FleetConfig,
    own: Report,
    /// What was published last.
    told: Option<Report>,
    others: BTreeMap<NodeId, Report>,
    /// Nodes whose record expired, with what they said last.
    offline: BTreeMap<NodeId, Report>,
    down_since: BTreeMap<NodeId, Instant>,
    neighbours: BTreeMap<NodeId, BTreeSet<NodeId>>,
    restart_at: Option<Instant>,
    outputs: VecDeque<FleetOutput>,
}

impl Fleet {
    /// Knows nobody yet.
    pub fn new(config: FleetConfig, _now: Instant) -> Self {
        Self {
            config,
            own: Report { phase: Phase::Idle, percent: 0, running: 0, target: 0, stops: 0, resumed: 0 },
            told: None,
            others: BTreeMap::new(),
            offline: BTreeMap::new(),
            down_since: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            restart_at: None,
            outputs: VecDeque::new(),
        }
    }

    /// What this node says of itself.
    pub const fn own(&self) -> &Report {
        &self.own
    }

    /// What all others said last, for people.
    pub fn others(&self) -> impl Iterator<Item = (&NodeId, &Report)> {
        self.others.iter()
    }

    /// What those said last that are not heard any more, for people.
    pub fn offline(&self) -> impl Iterator<Item = (&NodeId, &Report)> {
        self.offline.iter()
    }

    /// Failures of a release, and answers to them, as far as any node says.
    pub fn known(&self, release: u64) -> (u8, u8) {
        let all = self.others.values().chain([&self.own]).filter(|r| r.target == release);
        all.fold((0, 0), |(stops, resumed), r| (stops.max(r.stops), resumed.max(r.resumed)))
    }

    /// A release failed somewhere and nobody has answered that yet.
    pub fn is_stopped(&self, release: u64) -> bool {
        let (stops, resumed) = self.known(release);
        release != 0 && Report { stops, resumed, ..self.own }.is_stopped()
    }

    /// The release that failed somewhere and stops this node; `None`: nothing does.
    pub fn stopped_by(&self) -> Option<u64> {
        Some(self.own.target).filter(|release| self.is_stopped(*release))
    }

    /// Takes what happened.
    pub fn handle_input(&mut self, now: Instant, input: FleetInput<'_>) {
        match input {
            FleetInput::Report(node, report) => self.report(now, node, report),
            FleetInput::Gone(node) => {
                // A node that restarts is silent for a while: it is down, not gone.
                if !self.down_since.contains_key(&node)
                    && let Some(report) = self.others.remove(&node)
                {
                    self.keep_offline(node, report);
                }
            }
            FleetInput::Links(links) => {
                self.neighbours.clear();
                for &(a, b) in links.iter().take(MAX_NODES * 16).filter(|(a, b)| a != b) {
                    self.neighbours.entry(a).or_default().insert(b);
                    self.neighbours.entry(b).or_default().insert(a);
                }
            }
            FleetInput::Wanted(release) => {
                if self.own.phase == Phase::Idle {
                    self.take(Phase::Idle, 0, release);
                }
            }
            FleetInput::Fetching(release, percent) => self.take(Phase::Fetch, percent.min(100), release),
            FleetInput::Paused => {
                if self.own.phase == Phase::Fetch {
                    self.take(Phase::Idle, self.own.percent, self.own.target);
                }
            }
            FleetInput::Installed(release) => self.take(Phase::Ready, 100, release),
            FleetInput::Confirmed(release) => {
                self.own.running = release;
                self.take(Phase::Idle, 100, release);
            }
            FleetInput::OnTrial(release) => self.take(Phase::Down, 100, release),
            FleetInput::WentBack(release, number) => {
                self.take(Phase::Idle, 100, release);
                self.change(Report { stops: self.own.stops.max(number), ..self.own });
            }
            FleetInput::Resume(release) => {
                let (stops, _) = self.known(release);
                if self.own.phase == Phase::Idle {
                    self.take(Phase::Idle, self.own.percent, release);
                }
                if self.own.target == release {
                    self.change(Report { stops, resumed: stops, ..self.own });
                }
            }
        }
        self.update(now);
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        let patience = self.config.patience;
        let lost = self.down_since.iter().filter(|(_, since)| now >= **since + patience).map(|(n, _)| *n);
        for node in lost.collect::<Vec<_>>() {
            self.down_since.remove(&node);
            if let Some(report) = self.others.remove(&node) {
                self.keep_offline(node, report);
                // Of those that notice it only the first counts one more.
                if report.target == self.own.target && !self.is_stopped(report.target) {
                    self.change(Report { stops: self.own.resumed.saturating_add(1), ..self.own });
                }
            }
        }
        self.update(now);
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<FleetOutput> {
        self.outputs.pop_front()
    }

    /// When [`Fleet::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let lost = self.down_since.values().min().map(|t| *t + self.config.patience);
        [self.restart_at, lost].into_iter().flatten().min()
    }

    fn report(&mut self, now: Instant, node: NodeId, report: Report) {
        if node == self.config.me || (self.others.len() >= MAX_NODES && !self.others.contains_key(&node)) {
            return;
        }
        if matches!(report.phase, Phase::Claim | Phase::Down) {
            self.down_since.entry(node).or_insert(now);
        } else {
            self.down_since.remove(&node);
        }
        self.offline.remove(&node);
        self.others.insert(node, report);
        self.learn();
    }

    fn keep_offline(&mut self, node: NodeId, report: Report) {
        if self.offline.len() < MAX_OFFLINE {
            self.offline.insert(node, report);
        }
    }

    /// What others know of the target is passed on, so that it outlives whoever found out.
    fn learn(&mut self) {
        let (stops, resumed) = self.known(self.own.target);
        if self.own.target != 0 {
            self.change(Report { stops, resumed, ..self.own });
        }
    }

    /// This node's phase, and the release it is concerned with.
    fn take(&mut self, phase: Phase, percent: u8, target: u64) {
        let (stops, resumed) = self.known(target);
        self.restart_at = None;
        self.change(Report { phase, percent, target, stops, resumed, ..self.own });
    }

    fn change(&mut self, report: Report) {
        if self.own != report || self.told != Some(report) {
            self.own = report;
            self.told = Some(report);
            self.outputs.push_back(FleetOutput::Publish(report));
        }
    }

    /// The order in which nodes take releases: newer releases first, then by the hash.
    fn rank(node: &NodeId, target: u64) -> (u64, [u8; 32]) {
        let hash = Sha256::new().chain_update(target.to_le_bytes()).chain_update(node.as_bytes()).finalize();
        (u64::MAX - target, hash.into())
    }

    /// Of the nodes that share a neighbour with this one: whether it may go down, given those that are, and
    /// those before it.
    fn may_go(&self) -> bool {
        let me = self.config.me;
        let mine = Self::rank(&me, self.own.target);
        let before = |node: &NodeId| {
            *node != me
                && self.others.get(node).is_some_and(|r| match r.phase {
                    Phase::Down => true,
                    // Of claims the earlier in the order stands; who is ready and before this one goes first.
                    Phase::Claim | Phase::Ready => Self::rank(node, r.target) < mine,
                    Phase::Idle | Phase::Fetch => false,
                })
        };
        // While it runs nowhere yet, one node tries it for all.
        let target = self.own.target;
        if !self.others.values().chain([&self.own]).any(|r| r.running >= target)
            && self.others.iter().any(|(node, r)| r.target == target && before(node))
        {
            return false;
        }
        let Some(neighbours) = self.neighbours.get(&me) else { return true };
        neighbours.iter().filter_map(|y| self.neighbours.get(y)).all(|group| {
            let share = group.len() * usize::from(self.config.share) / 100;
            let limit = share.min(group.len().saturating_sub(1)).max(1);
            group.iter().filter(|n| before(n)).count() < limit
        })
    }

    fn update(&mut self, now: Instant) {
        let stopped = self.stopped_by().is_some();
        match self.own.phase {
            Phase::Ready if !stopped && self.may_go() => {
                self.restart_at = Some(now + self.config.settle);
                self.change(Report { phase: Phase::Claim, ..self.own });
            }
            Phase::Claim if stopped || !self.may_go() => {
                self.restart_at = None;
                self.change(Report { phase: Phase::Ready, ..self.own });
            }
            Phase::Claim if self.restart_at.is_some_and(|at| now >= at) => {
                self.restart_at = None;
                self.change(Report { phase: Phase::Down, ..self.own });
                self.outputs.push_back(FleetOutput::Restart);
            }
            _ => {}
        }
    }
}

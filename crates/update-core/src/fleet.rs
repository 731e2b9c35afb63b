//! Whose turn it is: how a fleet takes an update without going dark, and stops where one node fares badly.
//!
//! Every node floods a [`Report`]. A node that has the new system in its other slot waits for its turn, claims it, waits until
//! its claim is known and no earlier one contradicts it, and restarts. Of the neighbours of any node never more than
//! a share are down at once, and never all (unless there is only one). The order is by a hash of release and
//! NodeId, so that no node is always the first. Once anybody reports that the new system failed, nobody takes a turn
//! until a person resumes it.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use mesh_types::{Duration, Instant, NodeId};
use sha2::{Digest, Sha256};

/// The most nodes a report is kept of.
pub const MAX_NODES: usize = 4096;
/// Bytes of a report.
const REPORT: usize = 26;

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
}

/// What a node says of itself; flooded as an application record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it is doing.
    pub phase: Phase,
    /// The release that runs and is confirmed.
    pub running: u64,
    /// The release it is taking; 0: none.
    pub target: u64,
    /// The newest release that it knows to have failed somewhere; 0: none.
    pub failed: u64,
}

impl Report {
    /// Reads a report; `None` for what is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<2>()?;
        let (numbers, rest) = rest.as_chunks::<8>();
        let (&[running, target, failed], []) = (numbers, rest) else { return None };
        let phase = match head {
            [1, 0] => Phase::Idle,
            [1, 1] => Phase::Ready,
            [1, 2] => Phase::Claim,
            [1, 3] => Phase::Down,
            _ => return None,
        };
        let [running, target, failed] = [running, target, failed].map(u64::from_le_bytes);
        Some(Self { phase, running, target, failed })
    }

    /// Writes it: version (1), phase (0 to 3), then the three numbers, little-endian.
    pub fn encode(&self) -> [u8; REPORT] {
        let mut out = [0; REPORT];
        let numbers = [self.running, self.target, self.failed].map(u64::to_le_bytes);
        let all = [1, self.phase as u8].into_iter().chain(numbers.into_iter().flatten());
        out.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        out
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
    /// The new system is in this node's other slot.
    Installed(u64),
    /// This release runs here and is confirmed.
    Confirmed(u64),
    /// This release runs here and is on trial.
    OnTrial(u64),
    /// This node went back from this release.
    WentBack(u64),
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
    others: BTreeMap<NodeId, Report>,
    down_since: BTreeMap<NodeId, Instant>,
    neighbours: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// A release that a person let go on.
    resumed: u64,
    restart_at: Option<Instant>,
    outputs: VecDeque<FleetOutput>,
}

impl Fleet {
    /// Knows nobody yet.
    pub fn new(config: FleetConfig, _now: Instant) -> Self {
        Self {
            config,
            own: Report { phase: Phase::Idle, running: 0, target: 0, failed: 0 },
            others: BTreeMap::new(),
            down_since: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            resumed: 0,
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

    /// The release that failed somewhere and stops this node; `None`: nothing does.
    pub fn stopped_by(&self) -> Option<u64> {
        let failed = self.own.failed;
        (failed != 0 && failed == self.own.target && failed != self.resumed).then_some(failed)
    }

    /// Takes what happened.
    pub fn handle_input(&mut self, now: Instant, input: FleetInput<'_>) {
        match input {
            FleetInput::Report(node, report) => self.report(now, node, report),
            FleetInput::Gone(node) => {
                // A node that restarts is silent for a while: it is down, not gone.
                if !self.down_since.contains_key(&node) {
                    self.others.remove(&node);
                }
            }
            FleetInput::Links(links) => {
                self.neighbours.clear();
                for &(a, b) in links.iter().take(MAX_NODES * 16).filter(|(a, b)| a != b) {
                    self.neighbours.entry(a).or_default().insert(b);
                    self.neighbours.entry(b).or_default().insert(a);
                }
            }
            FleetInput::Installed(release) => {
                self.change(Report { phase: Phase::Ready, target: release, ..self.own })
            }
            FleetInput::Confirmed(release) => {
                self.change(Report { phase: Phase::Idle, running: release, target: release, ..self.own });
            }
            FleetInput::OnTrial(release) => {
                self.change(Report { phase: Phase::Down, target: release, ..self.own })
            }
            FleetInput::WentBack(release) => {
                let failed = self.own.failed.max(release);
                self.change(Report { phase: Phase::Idle, target: release, failed, ..self.own });
            }
            FleetInput::Resume(release) => self.resumed = release,
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
                self.failed(report.target);
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
        self.others.insert(node, report);
        self.failed(report.failed);
    }

    /// Somebody says that a release failed: that is passed on, so that it outlives whoever found out.
    fn failed(&mut self, release: u64) {
        if release > self.own.failed {
            self.change(Report { failed: release, ..self.own });
        }
    }

    fn change(&mut self, report: Report) {
        if self.own != report {
            self.own = report;
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
        let Some(neighbours) = self.neighbours.get(&me) else { return true };
        let before = |node: &NodeId| {
            *node != me
                && self.others.get(node).is_some_and(|r| match r.phase {
                    Phase::Down => true,
                    // Of claims the earlier in the order stands; who is ready and before this one goes first.
                    Phase::Claim | Phase::Ready => Self::rank(node, r.target) < mine,
                    Phase::Idle => false,
                })
        };
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

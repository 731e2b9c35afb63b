//! One run from power-on to figures: what the `mesh-sim` program does.

use std::fmt;
use std::time::Instant as Wall;

use mesh_types::Duration;
use olsrv2::{Config, Input, MetricMode, Timing};

use crate::{Field, Sample, Settings, Shape, Sim, Traffic};

/// What is run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Nodes that are switched on at the start.
    pub nodes: usize,
    /// Who hears whom.
    pub shape: Shape,
    /// Everything random follows from it.
    pub seed: u64,
    /// Mesh time from power-on to the end of the quiet phase; what [`Scenario::then`] takes comes on top.
    pub seconds: u64,
    /// Share of packets every link loses, 0 to 1.
    pub loss: f64,
    /// Instead: every direction of every link loses a share of its own, up to this one.
    pub uneven_loss: f64,
    /// Ranges per second at which nodes move (random waypoint; geometric graphs only).
    pub speed: f64,
    /// Clocks differ by up to so many parts per million.
    pub skew_ppm: u32,
    /// Nodes are switched on within this time, not at once.
    pub power_on: Duration,
    /// Timers.
    pub timing: Timing,
    /// How links are measured.
    pub metric: MetricMode,
    /// Hop limits of successive TCs; empty: all go all the way.
    pub tc_scopes: Vec<u8>,
    /// Threads; no influence on the outcome.
    pub threads: usize,
    /// What happens when the quiet phase is over, one after the other; each must settle.
    pub then: Vec<Event>,
}

/// Something that happens to a mesh that has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new node comes into range of node 0 (and of its neighbours in a full mesh).
    Join,
    /// The link between node 0 and its first neighbour fails, and nobody tells.
    Cut,
    /// That link comes back.
    Mend,
    /// It fails again, and the radios tell.
    Told,
    /// Node 0 is switched off and on; it keeps its sequence numbers.
    Restart,
    /// The same, and it has forgotten them.
    Amnesia,
    /// All nodes are switched off and on within a second.
    Storm,
    /// The mesh falls into two halves.
    Part,
    /// They find each other again.
    Heal,
}

impl Event {
    /// All, with the names they have on the command line.
    pub const NAMES: [(&'static str, Self); 9] = [
        ("join", Self::Join),
        ("cut", Self::Cut),
        ("mend", Self::Mend),
        ("told", Self::Told),
        ("restart", Self::Restart),
        ("amnesia", Self::Amnesia),
        ("storm", Self::Storm),
        ("part", Self::Part),
        ("heal", Self::Heal),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, e)| *e == self).map_or("", |(name, _)| name)
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    nodes: usize,
    /// Mesh time until every node had shortest paths to all; with loss or mobility until all packets
    /// would have arrived.
    pub cold_start: Option<Duration>,
    /// How long the quiet phase was measured.
    pub quiet: Duration,
    /// What was sent and changed in it.
    pub traffic: Traffic,
    /// Samples of all pairs in it.
    pub samples: u64,
    /// Those in which some packet would go round.
    pub loop_samples: u64,
    /// Longest time in a row towards one destination.
    pub longest_loop: Duration,
    /// Packets that would have arrived, of all samples' pairs.
    pub arrive: u64,
    /// Those pairs.
    pub possible: u64,
    /// Records flooded, and copies missing at the end.
    pub floods: (u64, u64),
    /// Each event, the time until the mesh had settled again, and bytes sent per node in it.
    pub settled: Vec<(&'static str, Option<Duration>, u64)>,
    /// Sum over the whole history; equal on any number of threads.
    pub digest: u64,
    /// Host time.
    pub wall: std::time::Duration,
    /// Host memory per node in bytes.
    pub memory: u64,
    /// Invariants that did not hold.
    pub broken: Vec<String>,
}

const SECOND: Duration = Duration::from_secs(1);
/// How long a mesh may take to settle.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one loop may last while things change: until all hold times have passed.
const LASTING: Duration = Duration::from_secs(25);
/// Kind of the records flooded as a test.
const KIND: u8 = 99;

impl Scenario {
    /// Timers by their names on the command line; the first is what nodes have.
    pub const TIMERS: [(&'static str, Timing); 3] =
        [("steady", Timing::STEADY), ("rfc", Timing::RFC7181), ("fast", Timing::FAST)];
    /// Metrics by their names on the command line; the first is what nodes have.
    pub const METRICS: [(&'static str, MetricMode); 2] =
        [("dat", MetricMode::Dat), ("hop", MetricMode::HopCount)];

    /// Standing, lossless, with the settings that nodes have, one thread.
    pub fn new(shape: Shape, nodes: usize, seed: u64, seconds: u64) -> Self {
        Self {
            nodes,
            shape,
            seed,
            seconds,
            loss: 0.0,
            uneven_loss: 0.0,
            speed: 0.0,
            skew_ppm: 0,
            power_on: Duration::ZERO,
            timing: Timing::STEADY,
            metric: MetricMode::Dat,
            tc_scopes: Vec::new(),
            threads: 1,
            then: Vec::new(),
        }
    }

    /// The command that repeats it.
    pub fn command(&self) -> String {
        let mut text =
            format!("mesh-sim --nodes {} --seed {} --seconds {}", self.nodes, self.seed, self.seconds);
        match self.shape {
            Shape::Line => text += " --graph line",
            Shape::Ring => text += " --graph ring",
            Shape::Grid => text += " --graph grid",
            Shape::Full => text += " --graph full",
            Shape::Geometric { degree } => text += &format!(" --graph rgg --degree {degree}"),
        }
        let numbers = [("loss", self.loss), ("uneven-loss", self.uneven_loss), ("mobility", self.speed)];
        for (flag, value) in numbers.into_iter().filter(|(_, v)| *v > 0.0) {
            text += &format!(" --{flag} {value}");
        }
        if self.skew_ppm > 0 {
            text += &format!(" --skew {}", self.skew_ppm);
        }
        if self.power_on > Duration::ZERO {
            text += &format!(" --power-on {}", self.power_on.as_secs());
        }
        let timers = Self::TIMERS.iter().skip(1).find(|(_, t)| *t == self.timing);
        text += &timers.map_or(String::new(), |(name, _)| format!(" --timers {name}"));
        let metric = Self::METRICS.iter().skip(1).find(|(_, m)| *m == self.metric);
        text += &metric.map_or(String::new(), |(name, _)| format!(" --metric {name}"));
        if !self.tc_scopes.is_empty() {
            let hops: Vec<String> = self.tc_scopes.iter().map(u8::to_string).collect();
            text += &format!(" --tc-scopes {}", hops.join(","));
        }
        if !self.then.is_empty() {
            let names: Vec<&str> = self.then.iter().map(|e| e.name()).collect();
            text += &format!(" --then {}", names.join(","));
        }
        text
    }

    /// What a node is told.
    fn configure(&self, config: &mut Config) {
        config.timing = self.timing;
        config.metric = self.metric;
        config.tc_scopes.clone_from(&self.tc_scopes);
    }

    /// Runs it.
    pub fn run(&self) -> Report {
        let start = Wall::now();
        let mut run = Run::new(self);
        run.cold_start();
        run.quiet();
        self.then.iter().for_each(|event| run.event(*event));
        let mut report = run.finish();
        report.wall = start.elapsed();
        report
    }

    /// Routes can be expected to be exactly the shortest.
    fn is_still(&self) -> bool {
        self.loss == 0.0 && self.uneven_loss == 0.0 && self.speed == 0.0
    }
}

struct Run<'a> {
    scenario: &'a Scenario,
    sim: Sim,
    field: Option<Field>,
    report: Report,
    /// By destination: when packets towards it began to go round.
    looping: (Option<usize>, Duration),
    cut: Option<(usize, usize)>,
    version: u32,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let settings = Settings {
            threads: scenario.threads,
            skew_ppm: scenario.skew_ppm,
            command: scenario.command(),
            ..Settings::new(scenario.seed)
        };
        let mut sim = Sim::new(settings);
        let first = sim.now;
        let steps = scenario.nodes.max(1) as u64;
        for i in 0..scenario.nodes {
            sim.run_until(first + Duration::from_micros(scenario.power_on.as_micros() * i as u64 / steps));
            sim.add(|c| scenario.configure(c));
            sim.attach(i);
        }
        let field = sim.lay_out(scenario.shape, scenario.loss);
        if scenario.uneven_loss > 0.0 {
            sim.set_random_loss(scenario.uneven_loss);
        }
        let report = Report { nodes: scenario.nodes, ..Report::default() };
        Self { scenario, sim, field, report, looping: (None, Duration::ZERO), cut: None, version: 0 }
    }

    fn settled(&self) -> bool {
        if self.scenario.is_still() {
            return self.sim.is_converged();
        }
        let Sample { possible, arrive, .. } = self.sim.sample();
        possible == arrive
    }

    /// Time passes; nodes move.
    fn step(&mut self, span: Duration) {
        if let Some(field) = self.field.as_mut().filter(|_| self.scenario.speed > 0.0) {
            field.walk(self.scenario.speed * span.as_micros() as f64 / 1e6);
            self.sim.move_to(field, self.scenario.loss);
        }
        self.sim.run_for(span);
    }

    /// How long until the mesh has settled, to a tenth of a second (a second if it is large).
    fn settle(&mut self, limit: Duration) -> Option<Duration> {
        let start = self.sim.now;
        let step = if self.sim.len() > 300 { SECOND } else { Duration::from_millis(100) };
        loop {
            let spent = self.sim.now.saturating_since(start);
            if self.settled() {
                return Some(spent);
            }
            if spent >= limit {
                return None;
            }
            self.step(step);
        }
    }

    fn cold_start(&mut self) {
        let limit = Duration::from_secs(self.scenario.seconds).min(PATIENCE);
        self.report.cold_start = self.settle(limit);
        if self.report.cold_start.is_none() && self.scenario.is_still() {
            self.report.broken.push(format!("not settled within {limit} of power-on"));
        }
        // Second thoughts of the first minutes are no part of the quiet phase.
        let end = Duration::from_secs(self.scenario.seconds);
        let spent = self.sim.now.saturating_since(mesh_types::Instant::from_millis(1000));
        let left = end.saturating_sub(spent);
        self.pass((SECOND.times(20)).min(left.divided_by(2)), false);
    }

    fn quiet(&mut self) {
        let spent = self.sim.now.saturating_since(mesh_types::Instant::from_millis(1000));
        let left = Duration::from_secs(self.scenario.seconds).saturating_sub(spent);
        let before = self.sim.traffic();
        self.pass(left.divided_by(2), true);
        self.report.traffic = self.sim.traffic().since(before);
        self.report.quiet = left.divided_by(2);
        // The test's own floods come after the counting of bytes.
        let floods = self.publish();
        self.pass(left.saturating_sub(left.divided_by(2)), true);
        self.check_floods(&floods);
        self.check_knowledge();
        if self.scenario.is_still() {
            if !self.settled() {
                self.report.broken.push("routes are not the shortest paths at the end".into());
            }
            if self.report.loop_samples > 0 {
                self.report.broken.push(format!("{} samples with loops", self.report.loop_samples));
            }
        }
    }

    /// Time passes, with a sample every second.
    fn pass(&mut self, span: Duration, count: bool) {
        let end = self.sim.now + span;
        // All pairs of a large mesh are many.
        let every = if self.sim.len() > 300 { SECOND.times(5) } else { SECOND };
        while self.sim.now < end {
            let part = every.min(end.saturating_since(self.sim.now));
            for _ in 0..part.as_millis() / 500 {
                self.step(Duration::from_millis(500));
            }
            self.sim.run_until(end.min(self.sim.now + Duration::from_micros(part.as_micros() % 500_000)));
            let sample = self.sim.sample();
            self.note_loop(&sample, part);
            if count {
                self.report.samples += 1;
                self.report.loop_samples += u64::from(sample.loops > 0);
                self.report.arrive += sample.arrive;
                self.report.possible += sample.possible;
            }
        }
    }

    fn note_loop(&mut self, sample: &Sample, part: Duration) {
        let (to, lasted) = self.looping;
        let lasts =
            if sample.looping.is_some() && sample.looping == to { lasted + part } else { Duration::ZERO };
        self.looping = (sample.looping, lasts);
        self.report.longest_loop = self.report.longest_loop.max(lasts);
        if lasts >= LASTING && lasted < LASTING {
            self.report.broken.push(format!("packets to node {to:?} go round for {lasts}"));
        }
    }

    /// Every hundredth node floods a record, at least three do.
    fn publish(&mut self) -> Vec<usize> {
        let n = self.sim.len();
        self.version += 1;
        let count = (n / 100).max(3).min(n);
        let from: Vec<usize> = (0..count).map(|i| i * n / count).collect();
        for i in &from {
            let (sequence, validity) = (self.version, Duration::from_secs(3600));
            self.sim.input(*i, Input::Publish { kind: KIND, sequence, payload: b"to all", validity });
        }
        from
    }

    /// Whatever gets lost: what a router knows it makes the best of, a moment later at the latest.
    fn check_knowledge(&mut self) {
        let step = (self.sim.len() / 50).max(1);
        let mut behind: Vec<usize> = (0..self.sim.len()).step_by(step).collect();
        for _ in 0..4 {
            behind.retain(|i| !self.sim.uses_what_it_knows(*i));
            if behind.is_empty() {
                return;
            }
            self.step(Duration::from_millis(500));
        }
        let text = format!("routes of nodes {behind:?} are not the shortest paths that they know of");
        self.report.broken.push(text);
    }

    fn check_floods(&mut self, from: &[usize]) {
        let mut missing = 0;
        for i in from {
            let originator = self.sim.originator(*i);
            let reached = self.sim.distances(*i);
            let without =
                reached.iter().enumerate().filter(|(to, d)| d.is_some() && to != i).filter(|(to, _)| {
                    let mut records = self.sim.node(*to).router.records();
                    !records
                        .any(|r| r.originator == originator && r.kind == KIND && r.sequence == self.version)
                });
            missing += without.count() as u64;
        }
        self.report.floods = (from.len() as u64, missing);
        if missing > 0 && self.scenario.is_still() {
            self.report.broken.push(format!("{missing} copies of {} floods are missing", from.len()));
        }
    }

    fn event(&mut self, event: Event) {
        let before = self.sim.traffic();
        let neighbor = self.sim.first_neighbor(0).unwrap_or(1);
        match event {
            Event::Join => {
                let scenario = self.scenario;
                let late = self.sim.add(|c| scenario.configure(c));
                self.sim.attach(late);
                self.sim.connect(late, 0);
            }
            Event::Cut | Event::Told => {
                self.sim.cut(0, neighbor);
                self.cut = Some((0, neighbor));
                if event == Event::Told {
                    self.sim.tell_lost(0, neighbor);
                }
            }
            Event::Mend => {
                let (a, b) = self.cut.take().unwrap_or((0, neighbor));
                self.sim.connect(a, b);
            }
            Event::Restart => self.sim.restart(0, true),
            Event::Amnesia => self.sim.restart(0, false),
            Event::Storm => self.storm(),
            Event::Part => {
                let half = self.sim.len() / 2;
                match self.field.clone() {
                    Some(field) => {
                        let known = self.scenario.nodes;
                        self.sim.part(|i| if i < known { field.is_left(i) } else { field.is_left(0) });
                    }
                    None => self.sim.part(|i| i < half),
                }
            }
            Event::Heal => self.sim.heal(),
        }
        let took = self.settle(PATIENCE);
        if took.is_none() {
            self.report.broken.push(format!("not settled within {PATIENCE} of: {}", event.name()));
        }
        let bytes = self.sim.traffic().since(before).bytes / self.sim.len().max(1) as u64;
        self.report.settled.push((event.name(), took, bytes));
        self.pass(SECOND.times(20), false);
    }

    fn storm(&mut self) {
        let n = self.sim.len();
        for i in 0..n {
            self.sim.restart(i, true);
            self.sim.run_for(Duration::from_micros(1_000_000 / n as u64));
        }
    }

    fn finish(mut self) -> Report {
        self.report.digest = self.sim.digest();
        self.report.memory = resident() / self.sim.len().max(1) as u64;
        if let Some((i, n)) = self.sim.nodes().enumerate().find(|(_, n)| n.router.counters().table_full > 0) {
            let full = n.router.counters().table_full;
            self.report.broken.push(format!("node {i} had a full table {full} times"));
        }
        self.report
    }
}

/// Resident memory of this process in bytes; zero where the kernel does not tell.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * 4096
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |t: Option<Duration>| t.map_or("never".to_string(), |t| t.to_string());
        let seconds = (self.quiet.as_micros() as f64 / 1e6).max(1e-6) * self.nodes.max(1) as f64;
        let Traffic { packets, bytes, route_changes, .. } = self.traffic;
        writeln!(f, "cold start           {}", time(self.cold_start))?;
        writeln!(f, "control bytes        {:.0} B/s per node (UDP payload)", bytes as f64 / seconds)?;
        writeln!(f, "control packets      {:.2} /s per node", packets as f64 / seconds)?;
        writeln!(f, "route events         {:.2} per node and minute", route_changes as f64 * 60.0 / seconds)?;
        let reach = 100.0 * self.arrive as f64 / self.possible.max(1) as f64;
        writeln!(f, "reachability         {reach:.3} %")?;
        writeln!(f, "samples with loops   {} of {}", self.loop_samples, self.samples)?;
        writeln!(f, "longest loop         {}", self.longest_loop)?;
        writeln!(f, "floods               {}, {} copies missing", self.floods.0, self.floods.1)?;
        for (name, took, bytes) in &self.settled {
            writeln!(f, "after {name:<14} {}, {bytes} B per node", time(*took))?;
        }
        writeln!(f, "memory               {} kB per node", self.memory / 1000)?;
        writeln!(f, "history              {:016x}", self.digest)?;
        writeln!(f, "wall time            {:.1} s", self.wall.as_secs_f64())
    }
}

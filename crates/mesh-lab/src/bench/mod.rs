//! `mesh-lab bench`: figures of the router beside those of others, same run, same graphs.

pub(crate) mod content;
pub(crate) mod names;
mod remotes;
mod scenarios;
mod table;
pub(crate) mod update;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mesh_lab::daemon::Daemon;
use mesh_lab::field::Field;
use mesh_lab::graph::Graph;
use mesh_lab::lab::{Lab, Result};
use mesh_lab::report::say;

use table::{Row, Table};

pub(crate) const USAGE: &str = "usage: mesh-lab bench [--bin-dir DIR] [--peers DIR] [--nodes N[,N…]] [--quick]
                      [--scenario NAME[,NAME…]] [--router NAME[,NAME…]]

Measures mesh-router beside babeld and BIRD on grids of N nodes (default 25,49,100) and on random geometric graphs.
  --bin-dir DIR    where mesh-router is (default: beside mesh-lab)
  --peers DIR      where babeld and bird are (default: the path)
  --quick          one grid of 25 (or --nodes), fewer rounds, shorter times: 3 minutes at most
  --scenario NAME  only these: cold idle cut death crash storm heal gateway carrier loss mobility,
                   and memory: what each router of a large mesh costs
  --router NAME    only these: p2pmesh p2pmesh-fast babeld bird-babel bird-ospf
The whole run takes about 70 minutes.";

/// A scenario of our router alone.
const REMOTES: &str = "memory";
/// The seed of the geometric graphs.
const SEED: u64 = 1;
/// No scenario is started after this with --quick.
const QUICK: Duration = Duration::from_secs(150);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    Cold,
    Idle,
    Cut,
    Death,
    Crash,
    Storm,
    Heal,
    Gateway,
    Carrier,
    Loss,
    Mobility,
}

/// On the grids, one after the other on the same mesh.
const ON_GRIDS: &[Scenario] = &[
    Scenario::Cold,
    Scenario::Idle,
    Scenario::Cut,
    Scenario::Death,
    Scenario::Crash,
    Scenario::Storm,
    Scenario::Heal,
    Scenario::Gateway,
];
/// On a grid of cables.
const ON_CABLES: &[Scenario] = &[Scenario::Carrier];
/// On a random geometric graph of 50 nodes.
const AT_RANDOM: &[Scenario] = &[Scenario::Cold, Scenario::Idle, Scenario::Loss, Scenario::Mobility];
/// What is worth its time with --quick.
const WHEN_QUICK: &[Scenario] = &[Scenario::Cold, Scenario::Idle, Scenario::Cut, Scenario::Carrier];

impl Scenario {
    const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Idle => "idle",
            Self::Cut => "cut",
            Self::Death => "death",
            Self::Crash => "crash",
            Self::Storm => "storm",
            Self::Heal => "heal",
            Self::Gateway => "gateway",
            Self::Carrier => "carrier",
            Self::Loss => "loss",
            Self::Mobility => "mobility",
        }
    }

    /// Whether a router with that set-up is worth measuring in it.
    fn wants(self, daemon: Daemon, quick: bool) -> bool {
        match daemon {
            Daemon::Mesh => true,
            Daemon::MeshFast if quick => self == Self::Cut,
            Daemon::MeshFast => matches!(self, Self::Idle | Self::Cut | Self::Death | Self::Carrier),
            Daemon::Babeld | Daemon::BirdBabel => self != Self::Carrier,
            Daemon::BirdOspf => self == Self::Carrier,
        }
    }
}

/// What is asked for, and what has been found.
pub(crate) struct Bench {
    binaries: PathBuf,
    peers: Option<PathBuf>,
    nodes: Vec<usize>,
    quick: bool,
    /// Empty: all.
    scenarios: Vec<String>,
    routers: Vec<Daemon>,
    table: Table,
    /// Of each router on each grid: nodes, and KiB of its own memory.
    memory: Vec<(Daemon, usize, u64)>,
    start: Instant,
    failed: bool,
}

impl Bench {
    /// Reads the words after `bench`.
    pub(crate) fn new(binaries: PathBuf, mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut bench = Self {
            binaries,
            peers: None,
            nodes: Vec::new(),
            quick: false,
            scenarios: Vec::new(),
            routers: Vec::new(),
            table: Table::default(),
            memory: Vec::new(),
            start: Instant::now(),
            failed: false,
        };
        while let Some(word) = words.next() {
            if word == "--quick" {
                bench.quick = true;
                continue;
            }
            let value =
                words.next().ok_or_else(|| format!("{word}: not known, or without a value\n{USAGE}"))?;
            let list = || value.split(',').map(str::to_owned);
            match word.as_str() {
                "--bin-dir" => bench.binaries = value.into(),
                "--peers" => bench.peers = Some(value.into()),
                "--nodes" => bench.nodes = list().map(|n| count(&n)).collect::<Result<_>>()?,
                "--scenario" => bench.scenarios = list().map(scenario).collect::<Result<_>>()?,
                "--router" => bench.routers = list().map(|n| router(&n)).collect::<Result<_>>()?,
                _ => return Err(format!("unknown flag {word}\n{USAGE}")),
            }
        }
        if bench.nodes.is_empty() {
            bench.nodes = if bench.quick { vec![25] } else { vec![25, 49, 100] };
        }
        if bench.routers.is_empty() {
            bench.routers = Daemon::ALL.into();
        }
        Ok(bench)
    }

    /// Measures everything; true if nothing failed.
    pub(crate) fn run(mut self) -> bool {
        self.start = Instant::now();
        self.routers = std::mem::take(&mut self.routers).into_iter().filter(|r| self.has(*r)).collect();
        for nodes in self.nodes.clone() {
            self.measure(&Graph::grid(nodes), false, ON_GRIDS);
        }
        let cables = self.nodes.iter().copied().min().unwrap_or(25);
        self.measure(&Graph::grid(cables), true, ON_CABLES);
        if !self.quick || !self.scenarios.is_empty() {
            self.measure(&Graph::geometric(50, SEED), false, AT_RANDOM);
        }
        self.remotes();
        self.say_memory();
        say(&format!("\nmeasured in {} s", self.start.elapsed().as_secs()));
        !self.failed
    }

    /// What each further node costs, from the smallest and the largest grid.
    fn say_memory(&self) {
        for router in &self.routers {
            let mut of: Vec<_> = self.memory.iter().filter(|(r, ..)| r == router).collect();
            of.sort_by_key(|(_, nodes, _)| *nodes);
            if let [(_, few, small), .., (_, many, large)] = of.as_slice() {
                let each = (*large as f64 - *small as f64) / (*many as f64 - *few as f64).max(1.0);
                let name = router.name();
                say(&format!(
                    "memory for each further node (goal 0.6), {name}: {each:.2} KiB ({few} to {many} nodes)"
                ));
            }
        }
    }

    /// Memory of our router as the mesh grows.
    fn remotes(&mut self) {
        let wanted = match self.scenarios.is_empty() {
            true => !self.quick,
            false => self.scenarios.iter().any(|n| n == REMOTES),
        };
        if !wanted || !self.routers.contains(&Daemon::Mesh) {
            return;
        }
        let binaries = self.binaries.clone();
        let lab = || {
            let root =
                std::env::temp_dir().join(format!("mesh-bench-{}", mesh_sys::clock::now().as_micros()));
            Lab::new(&root, &binaries)
        };
        if let Err(why) = remotes::measure(lab) {
            self.failed = true;
            say(&format!("FAILED: {REMOTES}: {why}"));
        }
    }

    fn has(&self, router: Daemon) -> bool {
        let Some(program) = router.program() else { return true };
        match Daemon::find(program, self.peers.as_ref()) {
            Ok(_) => true,
            Err(why) => {
                self.skip(&format!("{}: {why}", router.name()));
                false
            }
        }
    }

    fn measure(&mut self, graph: &Graph, wired: bool, scenarios: &[Scenario]) {
        let wanted = |s: &&Scenario| match self.scenarios.is_empty() {
            true => !self.quick || WHEN_QUICK.contains(s),
            false => self.scenarios.iter().any(|n| n == s.name()),
        };
        let scenarios: Vec<Scenario> = scenarios.iter().filter(wanted).copied().collect();
        self.table = Table::default();
        let mut any = false;
        for router in self.routers.clone() {
            let mine: Vec<Scenario> =
                scenarios.iter().copied().filter(|s| s.wants(router, self.quick)).collect();
            if mine.is_empty() {
                continue;
            }
            any = true;
            if let Err(why) = self.on_field(graph, wired, router, &mine) {
                self.failed = true;
                say(&format!("FAILED: {} on {}: {why}", router.name(), graph.name));
            }
        }
        if any {
            let how = if wired { ", cables" } else { ", radio" };
            self.table.print(&format!("{}{how}", graph.name));
        }
    }

    /// All scenarios on one mesh.
    fn on_field(&mut self, graph: &Graph, wired: bool, router: Daemon, scenarios: &[Scenario]) -> Result<()> {
        let root = std::env::temp_dir().join(format!("mesh-bench-{}", mesh_sys::clock::now().as_micros()));
        let mut lab = Lab::new(&root, &self.binaries)?;
        let mut field = Field::new(&mut lab, graph.clone(), wired, router, self.peers.clone())?;
        if scenarios.first() != Some(&Scenario::Cold) {
            field.start_all()?;
            field.settle(Duration::from_secs(90))?;
        }
        for scenario in scenarios {
            if self.quick && self.start.elapsed() > QUICK {
                self.skip(&format!("{} of {}: the time is over", scenario.name(), router.name()));
                continue;
            }
            say(&format!(
                "    [{:>4} s] {}: {}: {}",
                self.start.elapsed().as_secs(),
                graph.name,
                router.name(),
                scenario.name()
            ));
            scenarios::run(self, &mut field, *scenario)?;
        }
        Ok(())
    }

    fn note(&mut self, field: &Field<'_>, row: Row, value: f64) {
        say(&format!("        {}: {value:.3}", row.what.trim()));
        self.table.add(row, field.daemon(), value);
    }

    /// A time from `start`; without an end it is the time waited.
    fn note_time(&mut self, field: &Field<'_>, row: Row, start: Instant, end: Option<Instant>) {
        let end = end.unwrap_or_else(Instant::now);
        self.note(field, row, end.saturating_duration_since(start).as_secs_f64());
    }

    fn skip(&self, what: &str) {
        say(&format!("SKIPPED: {what}"));
    }

    const fn rounds(&self, daemon: Daemon) -> usize {
        match (self.quick, daemon.ours()) {
            (true, _) => 1,
            (false, true) => 3,
            (false, false) => 2,
        }
    }

    const fn cuts(&self, daemon: Daemon) -> usize {
        match (self.quick, daemon.ours()) {
            (false, true) => 5,
            (false, false) => 3,
            (true, true) => 2,
            (true, false) => 1,
        }
    }

    /// Longer than this no router is waited for.
    const fn patience(&self) -> Duration {
        Duration::from_secs(if self.quick { 20 } else { 60 })
    }

    const fn idle_time(&self) -> Duration {
        Duration::from_secs(if self.quick { 10 } else { 60 })
    }

    /// So long after the last change routers may still have something to tell.
    const fn aftermath(&self) -> Duration {
        Duration::from_secs(if self.quick { 0 } else { 20 })
    }

    const fn loss_time(&self) -> Duration {
        Duration::from_secs(if self.quick { 20 } else { 90 })
    }
}

fn count(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(n @ 4..=250) => Ok(n),
        _ => Err(format!("--nodes {text}: a number from 4 to 250 is wanted")),
    }
}

fn scenario(name: String) -> Result<String> {
    let all = [ON_GRIDS, ON_CABLES, AT_RANDOM].concat();
    if name == REMOTES || all.iter().any(|s| s.name() == name) {
        Ok(name)
    } else {
        Err(format!("no scenario {name}\n{USAGE}"))
    }
}

fn router(name: &str) -> Result<Daemon> {
    Daemon::ALL.into_iter().find(|d| d.name() == name).ok_or_else(|| format!("no router {name}\n{USAGE}"))
}

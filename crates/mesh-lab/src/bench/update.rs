//! `mesh-lab update`: how long a fleet takes from an announcement until every node runs the new system.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mesh_lab::fleet::{Fleet, Plan};
use mesh_lab::graph::Graph;
use mesh_lab::lab::{Lab, Result};
use mesh_lab::report::say;

pub(crate) const USAGE: &str = "usage: mesh-lab update [--bin-dir DIR] [--nodes N] [--mib N] [--settle S] [--share P]

A bundle is applied on one node in the middle of a grid; the others fetch it from their neighbours, install it and restart in
turns (a second of silence, then a boot whose health gate opens as soon as router and store answer).
  --bin-dir DIR  where the services are (default: beside mesh-lab)
  --nodes N      nodes (default 25)
  --mib N        size of the system, which has nothing in common with the one that runs (default 8)
  --settle S     update.settle, seconds (default 3)
  --share P      update.share, per cent (default 20)";

const RELEASE: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(900);

/// What is asked for.
pub(crate) struct Bench {
    binaries: PathBuf,
    nodes: usize,
    mib: usize,
    settle: u16,
    share: usize,
}

impl Bench {
    /// Reads the words after `update`.
    pub(crate) fn new(binaries: PathBuf, mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut bench = Self { binaries, nodes: 25, mib: 8, settle: 3, share: 20 };
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"))?;
            let number = || value.parse::<u16>().map_err(|_| format!("{value} is no number\n{USAGE}"));
            match word.as_str() {
                "--bin-dir" => bench.binaries = value.into(),
                "--nodes" => bench.nodes = number()?.max(2).into(),
                "--mib" => bench.mib = number()?.max(1).into(),
                "--settle" => bench.settle = number()?.max(1),
                "--share" => bench.share = number()?.clamp(1, 100).into(),
                _ => return Err(format!("unknown flag {word}\n{USAGE}")),
            }
        }
        Ok(bench)
    }

    /// Measures and prints. True if all nodes were updated and never too many were down.
    pub(crate) fn run(&self) -> bool {
        let root = std::env::temp_dir().join(format!("update-{}", std::process::id()));
        let mut lab = match Lab::new(&root, &self.binaries) {
            Ok(lab) => lab,
            Err(why) => {
                say(&format!("bench update: {why}"));
                return false;
            }
        };
        match self.measure(&mut lab) {
            Ok(()) => true,
            Err(why) => {
                say(&format!("bench update: {why}\n{}", lab.log_tails(5)));
                false
            }
        }
    }

    fn measure(&self, lab: &mut Lab) -> Result<()> {
        let Self { nodes, mib, settle, share, .. } = *self;
        let plan = Plan { graph: Graph::grid(nodes), size: mib << 20, share, settle };
        let mut fleet = Fleet::new(lab, plan)?;
        fleet.acquainted(PATIENCE)?;
        let bundle = fleet.bundle(RELEASE)?.display().to_string();
        let begun = Instant::now();
        fleet.meshctl(nodes / 2, &["apply", &bundle])?;
        let applied = Instant::now();
        let mut fetched = None;
        let all = fleet.drive("all nodes run it", PATIENCE, |fleet| {
            if fetched.is_none() && fleet.have(RELEASE) == nodes {
                fetched = Some(Instant::now());
            }
            let count = fleet.count(RELEASE);
            if count == nodes { Ok(()) } else { Err(format!("{count} of {nodes} run it")) }
        })?;
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        let (down, neighbours) = fleet.most_down;
        say(&format!(
            "{nodes} nodes in a grid, {mib} MiB, update.settle {settle} s, update.share {share} %, the services' --fast timers"
        ));
        say(&format!("  applied on one node and announced      {:6.1} s", since(begun, applied)));
        say(&format!(
            "  announced to in every other slot       {:6.1} s",
            since(applied, fetched.unwrap_or(all))
        ));
        say(&format!("  announced to running on all nodes      {:6.1} s", since(applied, all)));
        say(&format!("  down at once, at most: {down} nodes; of the neighbours of one node: {neighbours}"));
        Ok(())
    }
}

//! `mesh-lab names`: figures of the name service beside avahi's, same run, same links; and of names across five hops.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mesh_lab::foreign::{Foreign, Kind};
use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::mdns::{self, Listener, Sniffer};
use mesh_lab::probe;
use mesh_lab::report::say;
use mesh_sys::identity;

pub(crate) const USAGE: &str = "usage: mesh-lab names [--bin-dir DIR] [--peers DIR]

Measures mesh-mdns beside avahi-daemon on one cable, then names across six nodes in a line. Takes 3 minutes.
  --bin-dir DIR  where the services are (default: beside mesh-lab)
  --peers DIR    where avahi-daemon is; without it its column is empty";

/// Starts of each to take the median of.
const STARTS: usize = 5;
const QUESTIONS: usize = 500;
const MULTICASTS: usize = 21;
/// Nodes in the line.
const LINE: usize = 6;
const HERE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const AP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PHONE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

/// What is asked for.
pub(crate) struct Bench {
    binaries: PathBuf,
    peers: Option<PathBuf>,
}

/// What was measured of one implementation.
#[derive(Default)]
struct Figures {
    memory_kb: Option<u64>,
    announced: Option<Duration>,
    answer_us: Option<u64>,
    multicast_us: Option<u64>,
    conflict: Option<Duration>,
}

impl Bench {
    /// Reads the words after `names`.
    pub(crate) fn new(binaries: PathBuf, mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut bench = Self { binaries, peers: None };
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a folder\n{USAGE}"))?;
            match word.as_str() {
                "--bin-dir" => bench.binaries = value.into(),
                "--peers" => bench.peers = Some(value.into()),
                _ => return Err(format!("unknown flag {word}\n{USAGE}")),
            }
        }
        Ok(bench)
    }

    /// Measures, and prints the table. True if all could be measured.
    pub(crate) fn run(&self) -> bool {
        match self.measure() {
            Ok(()) => true,
            Err(why) => {
                say(&format!("bench names: {why}"));
                false
            }
        }
    }

    fn lab(&self, what: &str) -> Result<Lab> {
        let root = std::env::temp_dir().join(format!("names-{}-{what}", std::process::id()));
        Lab::new(&root, &self.binaries)
    }

    fn measure(&self) -> Result<()> {
        let ours = self.on_a_link(None)?;
        let theirs = match &self.peers {
            Some(peers) => self.on_a_link(Some(peers))?,
            None => {
                say("SKIPPED: avahi beside mesh-mdns: it could not be fetched");
                Figures::default()
            }
        };
        table(&ours, &theirs);
        self.across()
    }

    /// One cable: the one that is measured, and a host with ears that later holds the name, too.
    fn on_a_link(&self, peers: Option<&PathBuf>) -> Result<Figures> {
        let mut lab = self.lab(if peers.is_some() { "avahi" } else { "ours" })?;
        for name in ["here", "there"] {
            lab.add_node(name)?;
        }
        lab.plug(0, 1)?;
        for (at, address) in [HERE, THERE].into_iter().enumerate() {
            lab.at(at)?.join("eth0", address)?;
        }
        let process = if peers.is_some() { "host" } else { "mesh-mdns" };
        let mut figures = Figures::default();
        let mut spans = Vec::new();
        for _ in 0..STARTS {
            let listener = Listener::new(lab.at(1)?, THERE)?;
            let started = start(lab.node(0)?, peers, "bloor")?;
            spans.push(listener.response("bloor", Duration::from_secs(10))? - started);
            // The second announcement, or the next start would hear it.
            listener.response("bloor", Duration::from_secs(5))?;
            lab.node(0)?.stop(process)?;
        }
        figures.announced = median(spans);
        let listener = Listener::new(lab.at(1)?, THERE)?;
        start(lab.node(0)?, peers, "bloor")?;
        listener.response("bloor", Duration::from_secs(10))?;
        listener.response("bloor", Duration::from_secs(5))?;
        let wanted = ("bloor", HERE.into());
        figures.answer_us = median(mdns::ask(lab.at(1)?, THERE, wanted, HERE, QUESTIONS)?);
        figures.multicast_us = median(mdns::ask_everyone(lab.at(1)?, THERE, wanted, HERE, MULTICASTS)?);
        figures.memory_kb = memory(lab.at(0)?, process);
        lab.node(0)?.stop(process)?;
        // The name is taken on that link.
        let listener = Listener::new(lab.at(1)?, THERE)?;
        start(lab.node(1)?, None, "bloor")?;
        listener.response("bloor", Duration::from_secs(10))?;
        listener.response("bloor", Duration::from_secs(5))?;
        let started = start(lab.node(0)?, peers, "bloor")?;
        figures.conflict = Some(listener.response("bloor-2", Duration::from_secs(15))? - started);
        Ok(figures)
    }

    /// Six nodes in a line, a phone on the first one's access point.
    fn across(&self) -> Result<()> {
        let mut lab = self.lab("line")?;
        for at in 0..LINE {
            lab.add_node(&format!("node{at}"))?;
        }
        let phone = lab.add_node("phone")?;
        for at in 1..LINE {
            lab.plug(at - 1, at)?;
        }
        let ap = lab.plug(0, phone)?;
        lab.at(0)?.join(&ap, AP)?;
        lab.at(phone)?.join("eth0", PHONE)?;
        for at in 0..LINE {
            for i in 0..if at == 0 || at == LINE - 1 { 1 } else { 2 } {
                link_up(lab.at(at)?, &format!("eth{i}"))?;
            }
        }
        let far = format!("node{}", LINE - 1);
        let name = format!("{far}.local");
        // It hears the others' own names, too, which shows that it hears.
        let sniffer = Sniffer::start(lab.at(2)?, &far)?;
        // The mesh of the first five stands before the last one joins.
        for at in 0..LINE - 1 {
            start_node(
                lab.node(at)?,
                if at == 0 { &["eth0"] } else { &["eth0", "eth1"] },
                (at == 0).then_some(&ap),
            )?;
        }
        known(&lab, 0, LINE - 2, Duration::from_secs(60))?;
        let joined = Instant::now();
        start_node(lab.node(LINE - 1)?, &["eth0"], None)?;
        known(&lab, 0, LINE - 1, Duration::from_secs(60))?;
        let known_after = joined.elapsed();
        let server = SocketAddr::new(AP.into(), 53);
        let wanted = (far.as_str(), lab.at(LINE - 1)?.id()?.mesh_ipv4(0).into());
        let by_mdns = mdns::ask(lab.at(phone)?, PHONE, wanted, AP, QUESTIONS)?;
        let mut by_dns = Vec::new();
        for _ in 0..QUESTIONS {
            let asked = Instant::now();
            probe::resolve_at(lab.at(phone)?, server, &name, 1)?;
            by_dns.push(asked.elapsed().as_micros() as u64);
        }
        lab.node(LINE - 1)?.kill("mesh-mdns")?;
        lab.node(LINE - 1)?.kill("mesh-router")?;
        let died = Instant::now();
        wait_for("the dead node to be forgotten", Duration::from_secs(60), || {
            match probe::resolve_at(lab.at(phone)?, server, &name, 1) {
                Err(why) if why.contains("NXDOMAIN") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        let gone_after = died.elapsed();
        let (packets, about) = sniffer.counts();
        let slowest = |all: &[u64]| all.iter().max().copied().unwrap_or(0) as f64 / 1e3;
        let middle = |all: Vec<u64>| median(all).unwrap_or(0) as f64 / 1e3;
        say("\n| a name five hops away | mesh-mdns | goal |\n|---|---|---|");
        say(&format!("| known after the node starts | {:.1} s | ≤ 5 s |", known_after.as_secs_f64()));
        say(&format!("| gone after it dies | {:.1} s | ≤ 30 s |", gone_after.as_secs_f64()));
        let (worst, worst_dns) = (slowest(&by_mdns), slowest(&by_dns));
        say(&format!(
            "| found by mDNS on the access point, median (slowest) | {:.2} ({worst:.2}) ms | ≤ 50 ms |",
            middle(by_mdns)
        ));
        say(&format!(
            "| found by DNS on the access point, median (slowest) | {:.2} ({worst_dns:.2}) ms | ≤ 50 ms |",
            middle(by_dns)
        ));
        say(&format!("| mDNS packets about it on a mesh link (of {packets} in all) | {about} | 0 |"));
        Ok(())
    }
}

fn link_up(node: &Node, interface: &str) -> Result<()> {
    node.kernel(|nl| {
        let index = nl.link(interface)?.map_or(0, |l| l.index);
        nl.set_up(index, true)
    })
}

/// Starts ours or theirs; when that was.
fn start(node: &mut Node, peers: Option<&PathBuf>, name: &str) -> Result<Instant> {
    match peers {
        None => {
            // The identity is made on the first boot, not on each start.
            identity::load_or_create(&node.file("state")).map_err(told("identity"))?;
            let started = Instant::now();
            node.start("mesh-mdns", &["--interface", "eth0", "--name", name])?;
            Ok(started)
        }
        Some(peers) => Foreign::start_daemon(node, Path::new(peers), Kind::Avahi, name),
    }
}

fn start_node(node: &mut Node, interfaces: &[&str], ap: Option<&String>) -> Result<()> {
    let mut flags = vec!["--interface"];
    flags.extend(interfaces);
    node.start("mesh-router", &flags)?;
    let name = node.name().to_owned();
    flags.extend(["--name", &name]);
    if let Some(ap) = ap {
        flags.extend(["--access-point", ap]);
    }
    node.start("mesh-mdns", &flags)
}

/// Waits until the program on one node finds another by name.
fn known(lab: &Lab, at: usize, name: usize, patience: Duration) -> Result<()> {
    let node = lab.at(at)?;
    wait_for(&format!("node{name}.local"), patience, || {
        let found = probe::resolve(node, &format!("node{name}.local"))?;
        if found.is_empty() { Err("no address".into()) } else { Ok(()) }
    })
}

/// Resident memory of a process on a node, in kB.
fn memory(node: &Node, process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid(process)?)).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn median<T: Ord + Copy>(mut all: Vec<T>) -> Option<T> {
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}

fn table(ours: &Figures, theirs: &Figures) {
    let seconds = |d: Option<Duration>| d.map_or("-".into(), |d| format!("{:.2} s", d.as_secs_f64()));
    let millis = |us: Option<u64>| us.map_or("-".into(), |us| format!("{:.3} ms", us as f64 / 1e3));
    let memory = |kb: Option<u64>| kb.map_or("-".into(), |kb| format!("{:.1} MB", kb as f64 / 1024.0));
    let row = |what: &str, a: String, b: String, goal: &str| say(&format!("| {what} | {a} | {b} | {goal} |"));
    say("\n| on one link | mesh-mdns | avahi | goal |\n|---|---|---|---|");
    row("resident memory", memory(ours.memory_kb), memory(theirs.memory_kb), "≤ 2 MB");
    row("start → announced, median of 5", seconds(ours.announced), seconds(theirs.announced), "≤ 1.0 s");
    row("unique answer to one, median of 500", millis(ours.answer_us), millis(theirs.answer_us), "≤ 0.25 ms");
    let (to_all, their_all) = (millis(ours.multicast_us), millis(theirs.multicast_us));
    row("unique answer to all, median of 21", to_all, their_all, "≤ 0.25 ms");
    row("name taken → renamed and announced", seconds(ours.conflict), seconds(theirs.conflict), "≤ 2.5 s");
}

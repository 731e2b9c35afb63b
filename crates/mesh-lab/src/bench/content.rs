//! `mesh-lab content`: a file from the store three hops away beside iperf3 on the same path.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mesh_lab::lab::{Lab, Result, told, wait_for};
use mesh_lab::probe;
use mesh_lab::report::say;

pub(crate) const USAGE: &str = "usage: mesh-lab content [--bin-dir DIR] [--peers DIR] [--mib N]

A file is fetched by the store of a node three hops from the one that holds it; iperf3 sends over the same path.
Once on bare links, once on links of 100 Mbit/s with a queue of 50 ms, once where nodes drop what is more than 100 Mbit/s.
Medians of three, smallest and largest.
  --bin-dir DIR  where the services are (default: beside mesh-lab)
  --peers DIR    where iperf3 is; without it its column is empty
  --mib N        size of the file (default 200; on slow links a quarter)";

const RUNS: usize = 3;
const LINE: usize = 4;

/// What is asked for.
pub(crate) struct Bench {
    binaries: PathBuf,
    peers: Option<PathBuf>,
    mib: usize,
}

impl Bench {
    /// Reads the words after `content`.
    pub(crate) fn new(binaries: PathBuf, mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut bench = Self { binaries, peers: None, mib: 200 };
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"))?;
            match word.as_str() {
                "--bin-dir" => bench.binaries = value.into(),
                "--peers" => bench.peers = Some(value.into()),
                "--mib" => bench.mib = value.parse().map_err(|_| format!("{value} is no number\n{USAGE}"))?,
                _ => return Err(format!("unknown flag {word}\n{USAGE}")),
            }
        }
        Ok(bench)
    }

    /// Measures and prints. True if all could be measured.
    pub(crate) fn run(&self) -> bool {
        let root = std::env::temp_dir().join(format!("content-{}", std::process::id()));
        let mut lab = match Lab::new(&root, &self.binaries) {
            Ok(lab) => lab,
            Err(why) => {
                say(&format!("bench content: {why}"));
                return false;
            }
        };
        match self.measure(&mut lab) {
            Ok(()) => true,
            Err(why) => {
                say(&format!("bench content: {why}\n{}", lab.log_tails(5)));
                false
            }
        }
    }

    fn measure(&self, lab: &mut Lab) -> Result<()> {
        line(lab)?;
        say("a file over three hops, MB/s: median (smallest, largest)");
        let mut files = 0;
        for (what, links, mib) in [
            ("bare links", Links::Bare, self.mib),
            ("100 Mbit/s", Links::Queued, self.mib / 4),
            ("policed to 100 Mbit/s", Links::Policed, self.mib / 4),
        ] {
            if let Err(why) = links.set_up(lab) {
                say(&format!("SKIPPED: {what}: {why}"));
                continue;
            }
            let runs = (0..RUNS).map(|_| {
                files += 1;
                fetch(lab, mib.max(1), files)
            });
            let runs: Result<Vec<(f64, f64)>> = runs.collect();
            let (rates, busy): (Vec<f64>, Vec<f64>) = runs?.into_iter().unzip();
            let (ours, busy) = (figures(rates), figures(busy).0);
            let Some(peers) = &self.peers else {
                say("SKIPPED: iperf3 beside it: it could not be fetched");
                say(&format!("  {what:<21} mesh-store {}, cores {busy:.0} % busy", shown(ours)));
                continue;
            };
            let theirs: Result<Vec<f64>> = (0..RUNS).map(|_| iperf(lab, peers, links, mib.max(1))).collect();
            let theirs = figures(theirs?);
            let part = ours.0 / theirs.0 * 100.0;
            let met = match part {
                80.0.. => "met",
                // nothing can be faster then but by doing less: every byte is hashed at both ends
                _ if busy >= 90.0 => "missed: no core is free",
                _ => "missed",
            };
            say(&format!(
                "  {what:<21} mesh-store {}, cores {busy:.0} % busy   iperf3 {}   {part:.0} % (goal: 80 %: {met})",
                shown(ours),
                shown(theirs)
            ));
        }
        Ok(())
    }
}

/// Four nodes in a line, with routes from end to end.
fn line(lab: &mut Lab) -> Result<()> {
    for at in 0..LINE {
        lab.add_node(&format!("n{at}"))?;
    }
    for at in 1..LINE {
        lab.plug(at - 1, at)?;
    }
    for at in 0..LINE {
        let node = lab.node(at)?;
        for service in ["mesh-radio", "mesh-router", "mesh-store"] {
            node.start(service, if service == "mesh-radio" { &[] } else { &["--fast"] })?;
        }
    }
    let far = lab.at(LINE - 1)?.id()?.ula_address().into();
    wait_for("the route to the other end", Duration::from_secs(30), || {
        probe::ping(lab.at(0)?, far, Duration::from_secs(1)).map(drop)
    })
}

/// How fast the links are.
#[derive(Clone, Copy, PartialEq)]
enum Links {
    /// As fast as the machine copies.
    Bare,
    /// 100 Mbit/s, with a queue of 50 ms, as radios have.
    Queued,
    /// Nodes pass on 100 Mbit/s and drop what is more: nothing queues.
    Policed,
}

impl Links {
    fn set_up(self, lab: &mut Lab) -> Result<()> {
        match self {
            Self::Bare => Ok(()),
            Self::Queued => {
                shape(lab, &["replace", "root", "tbf", "rate", "100mbit", "burst", "64kb", "latency", "50ms"])
            }
            Self::Policed => {
                shape(lab, &["del", "root"])?;
                police(lab, 12_500)
            }
        }
    }
}

/// A queueing discipline on every interface: `words` of tc(8), the first before the interface, the others behind it.
fn shape(lab: &mut Lab, words: &[&str]) -> Result<()> {
    let (verb, rest) = words.split_at(words.len().min(1));
    for at in 0..LINE {
        let node = lab.at(at)?;
        for cable in 0..if at == 0 || at == LINE - 1 { 1 } else { 2 } {
            let mut command = Command::new("tc");
            command.arg("qdisc").args(verb).args(["dev", &format!("eth{cable}")]).args(rest);
            let out = node.inside(move || command.output())?.map_err(told("tc"))?;
            if !out.status.success() {
                return Err(format!("tc: {}", String::from_utf8_lossy(&out.stderr).trim()));
            }
        }
    }
    Ok(())
}

/// Lets each node pass on so many kB each second; more is dropped.
fn police(lab: &mut Lab, kbytes: u32) -> Result<()> {
    let rules = format!(
        "table ip6 slow {{ chain forward {{ type filter hook forward priority 0; \
         limit rate over {kbytes} kbytes/second burst 256 kbytes counter drop; }}; }}\n"
    );
    for at in 1..LINE - 1 {
        let node = lab.at(at)?;
        let file = node.file("slow.nft");
        std::fs::write(&file, &rules).map_err(told("slow.nft"))?;
        let mut command = Command::new("nft");
        command.arg("-f").arg(&file);
        let out = node.inside(move || command.output())?.map_err(told("nft"))?;
        if !out.status.success() {
            return Err(format!("nft: {}", String::from_utf8_lossy(&out.stderr).trim()));
        }
    }
    Ok(())
}

/// Adds a new file at one end and reads it at the other; MB/s, and how busy all cores were, in per cent.
fn fetch(lab: &mut Lab, mib: usize, seed: u64) -> Result<(f64, f64)> {
    let mut word = seed;
    let mut bytes = Vec::with_capacity(mib << 20);
    while bytes.len() < mib << 20 {
        // SplitMix64: no block like another
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bytes.extend_from_slice(&(z ^ (z >> 27)).to_le_bytes());
    }
    let node = lab.node(0)?;
    let run_dir = node.run_dir().display().to_string();
    let words = ["--run-dir", &run_dir, "ipfs", "add", "-Q", "--profile", "unixfs-v1-2025"];
    let cid = String::from_utf8_lossy(&node.run("meshctl", &words, &bytes)?).trim().to_owned();
    let node = lab.at(LINE - 1)?;
    std::thread::sleep(Duration::from_millis(1200)); // as for iperf3
    let gateway = (node.id()?.ula_address(), 8080).into();
    let before = cpu_time()?;
    let begun = Instant::now();
    let page = probe::http_get(node, gateway, &format!("/ipfs/{cid}"), Duration::from_secs(60))?;
    let took = begun.elapsed().as_secs_f64();
    let after = cpu_time()?;
    if page != bytes {
        return Err(format!("{} bytes came, others than the {} sent", page.len(), bytes.len()));
    }
    let (all, idle) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    Ok((bytes.len() as f64 / 1e6 / took, 100.0 - 100.0 * idle as f64 / all.max(1) as f64))
}

/// Time of all cores since the start, and of that what they were idle, in ticks (proc(5)).
fn cpu_time() -> Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat").map_err(told("/proc/stat"))?;
    let words = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
    // idle and waiting for the disk
    Ok((ticks.iter().sum(), ticks.iter().skip(3).take(2).sum()))
}

/// iperf3 sends from one end to the other, for four seconds; where a second's worth passes at once as many bytes as
/// the file has (it counts whole seconds then, so that it says too little of short runs). MB/s.
fn iperf(lab: &mut Lab, peers: &Path, links: Links, mib: usize) -> Result<f64> {
    // the limit on slow links lets a second's worth pass at once: it has to be full again, for each run
    std::thread::sleep(Duration::from_millis(1200));
    let program = peers.join("iperf3");
    let address = lab.at(LINE - 1)?.id()?.ula_address().to_string();
    let mut server = Command::new(&program);
    server.args(["-s", "-1", "-B", &address]);
    lab.node(LINE - 1)?.spawn("iperf3", server)?;
    let node = lab.at(0)?;
    let result = wait_for("iperf3", Duration::from_secs(20), || {
        let mut client = Command::new(&program);
        client.args(["-J", "-c", &address]);
        match links {
            Links::Bare | Links::Queued => client.args(["-t", "4"]),
            Links::Policed => client.args(["-n", &format!("{mib}M")]),
        };
        let out = node.inside(move || client.output())?.map_err(told("iperf3"))?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let received =
            text.split("\"sum_received\"").nth(1).and_then(|t| t.split("\"bits_per_second\":").nth(1));
        let figure = received.and_then(|t| t.split([',', '\n', '}']).next()?.trim().parse::<f64>().ok());
        figure.filter(|f| *f > 0.0).ok_or_else(|| text.lines().rev().take(3).collect())
    });
    let _ = lab.node(LINE - 1)?.kill("iperf3");
    Ok(result? / 8e6)
}

/// Median, smallest, largest.
fn figures(mut all: Vec<f64>) -> (f64, f64, f64) {
    all.sort_by(f64::total_cmp);
    let at = |i: usize| all.get(i).copied().unwrap_or(0.0);
    (at(all.len() / 2), at(0), at(all.len().saturating_sub(1)))
}

fn shown((median, smallest, largest): (f64, f64, f64)) -> String {
    format!("{median:.1} ({smallest:.1}, {largest:.1})")
}

//! `mesh-lab test [--bin-dir DIR] [--logs DIR] [--peers DIR] [--dig FILE] [--dnsmasq FILE] [NAME…]`: the tests on many nodes.
//! `mesh-lab radio …`: those that need radios; `mesh-lab radio-figures`: figures of them.
//! `mesh-lab bench …`: figures on many nodes. `mesh-lab content …`: of the content store. `mesh-lab names …`: those of the name service.
//! `mesh-lab cuts …`: what power cuts leave of a card.
//! `mesh-lab update …`: of a fleet that updates itself.

mod bench;
mod cuts;
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use mesh_lab::isolate;
use mesh_lab::lab::Lab;
use mesh_lab::report::{Report, say};
use mesh_sys::service::complain;

const USAGE: &str = "usage: mesh-lab test [--bin-dir DIR] [--logs DIR] [--peers DIR] [--dig FILE] [--dnsmasq FILE] [NAME…]

Runs the tests whose names contain one of NAME (default: all), each with real services in network namespaces.
  --bin-dir DIR  where the services are (default: beside mesh-lab)
  --logs DIR     where the logs of a test that failed are kept (default: they stay in the temporary folder)
  --peers DIR    where other mDNS implementations are (`ci/setup/private.py names`); without it they are skipped
  --dig FILE     where dig is (`ci/setup/private.py dns`); without it its tests are skipped
  --dnsmasq FILE where dnsmasq is (`ci/setup/private.py home`); without it the tests of wired ports are skipped
Works as root, or without where user namespaces are allowed.
mesh-lab radio takes the same flags and runs the tests that need simulated radios (ci/radio/vm.py has them).
Figures: mesh-lab bench --help, mesh-lab names --help, mesh-lab content --help, mesh-lab update --help
Power cuts of a card: mesh-lab cuts --help";

struct Options {
    binaries: PathBuf,
    logs: Option<PathBuf>,
    peers: Option<PathBuf>,
    dig: Option<PathBuf>,
    dnsmasq: Option<PathBuf>,
    names: Vec<String>,
    tests: &'static [(&'static str, tests::Test)],
}

enum Work {
    Test(Options),
    Bench(bench::Bench),
    Names(bench::names::Bench),
    Content(bench::content::Bench),
    Update(bench::update::Bench),
}

fn work() -> Result<Work, String> {
    let me = std::env::current_exe().map_err(|e| format!("own path: {e}"))?;
    let binaries = me.parent().unwrap_or(Path::new(".")).to_path_buf();
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some("test") => options(binaries, words, tests::ALL).map(Work::Test),
        Some("radio") => options(binaries, words, tests::RADIO).map(Work::Test),
        Some("radio-figures") => options(binaries, words, tests::RADIO_FIGURES).map(Work::Test),
        Some("bench") if std::env::args().any(|w| w == "--help") => Err(bench::USAGE.into()),
        Some("bench") => bench::Bench::new(binaries, words).map(Work::Bench),
        Some("names") if std::env::args().any(|w| w == "--help") => Err(bench::names::USAGE.into()),
        Some("names") => bench::names::Bench::new(binaries, words).map(Work::Names),
        Some("content") if std::env::args().any(|w| w == "--help") => Err(bench::content::USAGE.into()),
        Some("content") => bench::content::Bench::new(binaries, words).map(Work::Content),
        Some("update") if std::env::args().any(|w| w == "--help") => Err(bench::update::USAGE.into()),
        Some("update") => bench::update::Bench::new(binaries, words).map(Work::Update),
        _ => Err(USAGE.into()),
    }
}

fn options(
    binaries: PathBuf,
    mut words: impl Iterator<Item = String>,
    tests: &'static [(&'static str, tests::Test)],
) -> Result<Options, String> {
    let (names, tools) = (Vec::new(), None);
    let mut options = Options {
        binaries,
        logs: None,
        peers: tools.clone(),
        dig: tools.clone(),
        dnsmasq: tools,
        names,
        tests,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a path\n{USAGE}"));
        match word.as_str() {
            "--bin-dir" => options.binaries = value()?.into(),
            "--peers" => options.peers = Some(value()?.into()),
            "--dnsmasq" => options.dnsmasq = Some(value()?.into()),
            "--dig" => options.dig = Some(value()?.into()),
            "--logs" => options.logs = Some(value()?.into()),
            w if w.starts_with('-') => return Err(format!("unknown flag {w}\n{USAGE}")),
            _ => options.names.push(word),
        }
    }
    Ok(options)
}

/// Cards need no network.
fn cuts() -> Option<ExitCode> {
    let mut words = std::env::args().skip(1);
    words.next().filter(|w| w == "cuts")?;
    let me = std::env::current_exe().unwrap_or_default();
    Some(match cuts::Cuts::new(me.parent().unwrap_or(Path::new(".")).into(), words) {
        Ok(cuts) => {
            if cuts.run() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(text) => {
            complain(&text);
            ExitCode::from(2)
        }
    })
}

fn main() -> ExitCode {
    if let Some(code) = cuts() {
        return code;
    }
    let work = match work() {
        Ok(work) => work,
        Err(text) => {
            complain(&text);
            return ExitCode::from(2);
        }
    };
    if let Err(why) = isolate::enter() {
        say(&format!("SKIPPED: the tests in network namespaces: {why}"));
        return ExitCode::SUCCESS;
    }
    let limit = match &work {
        Work::Test(_) => 900,
        Work::Bench(_) => 3 * 3600,
        Work::Names(_) | Work::Content(_) | Work::Update(_) => 1800,
    };
    if let Err(e) = isolate::watch(Duration::from_secs(limit)) {
        complain(&format!("mesh-lab: signals: {e}"));
        return ExitCode::FAILURE;
    }
    let good = match work {
        Work::Test(options) => test(&options),
        Work::Bench(bench) => bench.run(),
        Work::Names(bench) => bench.run(),
        Work::Content(bench) => bench.run(),
        Work::Update(bench) => bench.run(),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn test(options: &Options) -> bool {
    let mut report = Report::default();
    for (name, test) in options.tests {
        if options.names.is_empty() || options.names.iter().any(|n| name.contains(n.as_str())) {
            run(options, name, *test, &mut report);
        }
    }
    report.finish()
}

fn run(options: &Options, name: &str, test: tests::Test, report: &mut Report) {
    let root = std::env::temp_dir().join(format!("mesh-lab-{}-{name}", mesh_sys::clock::now().as_micros()));
    let mut lab = match Lab::new(&root, &options.binaries) {
        Ok(lab) => lab,
        Err(why) => {
            report.test(name, || Err::<(), _>(why));
            return;
        }
    };
    lab.set_peers(options.peers.as_deref());
    lab.set_dig(options.dig.as_deref());
    lab.set_dnsmasq(options.dnsmasq.as_deref());
    let before = report.failures();
    say(&format!("\n== {name}"));
    test(&mut lab, report);
    if report.failures() > before {
        say(&lab.log_tails(30));
        let mut kept = lab.keep_files().to_path_buf();
        drop(lab);
        if let Some(logs) = &options.logs {
            let to = logs.join(name);
            match copy_logs(&kept, &to) {
                Ok(()) => kept = to,
                Err(e) => say(&format!("the logs can't be copied to {}: {e}", to.display())),
            }
        }
        say(&format!("the whole logs of {name} are in {}", kept.display()));
    }
}

/// Copies `<node>/<service>.log` and removes the rest.
fn copy_logs(from: &Path, to: &Path) -> std::io::Result<()> {
    for node in std::fs::read_dir(from)? {
        let node = node?;
        let into = to.join(node.file_name());
        std::fs::create_dir_all(&into)?;
        for file in std::fs::read_dir(node.path())? {
            let file = file?;
            if file.path().extension().is_some_and(|e| e == "log") {
                std::fs::copy(file.path(), into.join(file.file_name()))?;
            }
        }
    }
    std::fs::remove_dir_all(from)
}

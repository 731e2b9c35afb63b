//! `mesh-sim`: runs one simulated mesh and prints its figures.

use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;

use mesh_sim::Shape;
use mesh_sim::replay::{self, Replay};
use mesh_sim::scenario::{Event, Scenario};
use mesh_types::Duration;
use olsrv2::Key;

const USAGE: &str = "usage: mesh-sim [FLAG…]

Simulates a mesh of routers from power-on, prints figures, and checks what must always hold.
  --nodes N          how many (default 50)
  --graph G          line, ring, grid, full or rgg (random geometric; default)
  --degree D         neighbours on average, rgg only (default 10)
  --seed S           what all chance follows from (default 1)
  --seconds T        mesh time until the quiet phase ends (default 120)
  --loss P           every link loses this share of packets, 0 to 1
  --uneven-loss P    each direction of each link loses its own share, up to P
  --mobility V       nodes move at V ranges per second, rgg only
  --skew PPM         clocks differ by up to so many parts per million
  --power-on T       nodes are switched on within T seconds, not at once
  --timers T         steady (mesh-router's own: RFC 7181's, but repetitions are rarer; default), rfc or
                     fast (HELLO 0.5 s, TC 1 s)
  --metric M         dat (RFC 7779, mesh-router's own; default) or hop (all links cost the same)
  --tc-scopes H,H…   how many hops successive TCs go, as 255,4,4 (default: all go all the way)
  --then E,E…        then: join, cut, mend, told, restart, amnesia, storm, part, heal
  --threads K        no influence on the figures (default: as many as processors)
Or, with a recording that mesh-router --record made:
  --replay FILE      run the cores over it, print what they gave out and their routes at its end
  --trace            print every output, too
  --keys FILE        secrets of router.key, one a line, where the routers had keys
Exit status: 0; 1 if an invariant did not hold (the seed and the command are printed), or if
a recording is broken or the cores depart from it; 2 for a wrong flag.";

/// What the command line asks for.
enum Task {
    Simulate(Box<Scenario>),
    Replay { recording: String, keys: Option<String>, trace: bool },
}

fn main() -> ExitCode {
    let scenario = match options() {
        Ok(Task::Simulate(scenario)) => scenario,
        Ok(Task::Replay { recording, keys, trace }) => return replay(&recording, keys.as_deref(), trace),
        Err(text) => {
            let _ = writeln!(std::io::stderr(), "mesh-sim: {text}");
            return ExitCode::from(2);
        }
    };
    let report = scenario.run();
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{}\n{report}", scenario.command());
    for broken in &report.broken {
        let _ = writeln!(out, "BROKEN: {broken}");
    }
    if report.broken.is_empty() {
        return ExitCode::SUCCESS;
    }
    let _ = writeln!(out, "seed {}; to repeat it: {}", scenario.seed, scenario.command());
    ExitCode::FAILURE
}

fn replay(path: &str, keys: Option<&str>, trace: bool) -> ExitCode {
    let mut out = std::io::stdout();
    let complain = |text: &dyn std::fmt::Display| {
        let _ = writeln!(std::io::stderr(), "mesh-sim: {text}");
    };
    let read = |path: &str| std::fs::read(path).map_err(|e| complain(&format!("{path}: {e}")));
    let Ok(bytes) = read(path) else { return ExitCode::from(2) };
    let Ok(secrets) = keys.map_or(Ok(Vec::new()), read) else { return ExitCode::from(2) };
    let secrets = String::from_utf8_lossy(&secrets);
    let keys: Vec<Key> = secrets.lines().map(|l| Key::new(l.trim().as_bytes())).collect();
    let (replay, result) = Replay::run(&bytes, &keys, |who, now, output| {
        if trace {
            let _ = writeln!(out, "{now} router {who} {}", replay::line(output));
        }
    });
    let _ = write!(std::io::stdout(), "{replay}");
    if let Err(e) = &result {
        complain(&format!("{path}: {e}"));
    }
    let same = replay.routers.values().all(|r| r.departs.is_none());
    if result.is_ok() && same { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options() -> Result<Task, String> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
    let mut s = Scenario { threads, ..Scenario::new(Shape::from_str("rgg")?, 50, 1, 120) };
    let (mut recording, mut keys, mut trace) = (None, None, false);
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{flag} needs a value\n{USAGE}"));
        match flag.as_str() {
            "--nodes" => s.nodes = number(&flag, &value()?)?,
            "--graph" => s.shape = value()?.parse()?,
            "--degree" => s.shape = Shape::Geometric { degree: number(&flag, &value()?)? },
            "--seed" => s.seed = number(&flag, &value()?)?,
            "--seconds" => s.seconds = number(&flag, &value()?)?,
            "--loss" => s.loss = number(&flag, &value()?)?,
            "--uneven-loss" => s.uneven_loss = number(&flag, &value()?)?,
            "--mobility" => s.speed = number(&flag, &value()?)?,
            "--skew" => s.skew_ppm = number(&flag, &value()?)?,
            "--power-on" => s.power_on = Duration::from_secs(number(&flag, &value()?)?),
            "--timers" => s.timing = named(&flag, &value()?, &Scenario::TIMERS)?,
            "--metric" => s.metric = named(&flag, &value()?, &Scenario::METRICS)?,
            "--tc-scopes" => {
                let text = value()?;
                s.tc_scopes = text.split(',').map(|t| number(&flag, t)).collect::<Result<_, _>>()?;
                if !olsrv2::is_regular(&s.tc_scopes) {
                    return Err(format!("--tc-scopes {text}: no pattern that RFC 7181 §5.4.7 allows"));
                }
            }
            "--then" => {
                s.then = value()?
                    .split(',')
                    .map(|name| named(&flag, name, &Event::NAMES))
                    .collect::<Result<_, _>>()?
            }
            "--threads" => s.threads = number(&flag, &value()?)?,
            "--replay" => recording = Some(value()?),
            "--keys" => keys = Some(value()?),
            "--trace" => trace = true,
            "--help" | "-h" => return Err(USAGE.into()),
            _ => return Err(format!("unknown flag {flag}\n{USAGE}")),
        }
    }
    if let Some(recording) = recording {
        return Ok(Task::Replay { recording, keys, trace });
    }
    if s.nodes == 0 || s.nodes >= usize::from(u16::MAX) {
        return Err("--nodes: from 1 to 65534".into());
    }
    Ok(Task::Simulate(Box::new(s)))
}

fn number<T: FromStr>(flag: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{flag}: {text} is no number\n{USAGE}"))
}

fn named<T: Copy>(flag: &str, name: &str, all: &[(&str, T)]) -> Result<T, String> {
    let found = all.iter().find(|(n, _)| *n == name);
    found.map(|(_, v)| *v).ok_or_else(|| format!("{flag}: {name} is not known\n{USAGE}"))
}

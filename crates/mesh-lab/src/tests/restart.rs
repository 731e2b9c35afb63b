//! Restarts without a farewell, with the timers that ship: what the others knew of the last run does
//! not keep them from believing the new one.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mesh_lab::lab::{Lab, Result, wait_for};
use mesh_lab::report::{Report, say};

use super::common::{Step, addresses, bring_up, routes, secs};

const A: usize = 0;
const C: usize = 2;
const FLAGS: [&str; 3] = ["--interface", "eth0", "eth1"];

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 2] =
        [("start", start), ("rfc7181_5_4_1_the_first_tc_after_a_crash_counts", crash)];
    for (name, step) in steps {
        if report.test(&format!("restart::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

fn start(lab: &mut Lab) -> Result<()> {
    for name in ["a", "b", "c"] {
        lab.add_node(name)?;
    }
    lab.plug(0, 1)?;
    lab.plug(1, 2)?;
    for (at, name) in [(0, "eth0"), (1, "eth0"), (1, "eth1"), (2, "eth0")] {
        bring_up(lab.node(at)?, name)?;
    }
    for at in 0..3 {
        lab.node(at)?.start("mesh-router", &FLAGS)?;
    }
    let start = Instant::now();
    let to = addresses(lab.node(A)?)?;
    let c = lab.node(C)?;
    wait_for("c to reach a", secs(20), || {
        let all = routes(c)?;
        if to.iter().all(|ip| all.iter().any(|r| r.destination == *ip)) {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    })?;
    say(&format!("    routes after {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}

/// Kills a's router and starts one that announces other networks; how long until c has routes to them.
/// What c knows of the last run is valid for 160 s (T_HOLD_TIME) from its last TC.
fn again(lab: &mut Lab, round: u16) -> Result<Duration> {
    let prefixes = [format!("fd00:a{round:03}::/64"), format!("10.200.{round}.0/24")];
    let a = lab.node(A)?;
    a.kill("mesh-router")?;
    let start = Instant::now();
    let mut flags = FLAGS.to_vec();
    flags.push("--attach");
    flags.extend(prefixes.iter().map(String::as_str));
    a.start("mesh-router", &flags)?;
    let want: Vec<IpAddr> =
        prefixes.iter().filter_map(|p| p.split_once('/').and_then(|(ip, _)| ip.parse().ok())).collect();
    let c = lab.node(C)?;
    wait_for("c to route to the new networks", secs(25), || {
        let all = routes(c)?;
        if want.iter().all(|ip| all.iter().any(|r| r.destination == *ip)) {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    })?;
    Ok(start.elapsed())
}

fn crash(lab: &mut Lab) -> Result<()> {
    for round in 0..4 {
        let took = again(lab, round)?;
        say(&format!("    new networks known after {:.1} s", took.as_secs_f64()));
        if took > secs(8) {
            return Err(format!("{took:?}: the first TC did not count"));
        }
    }
    Ok(())
}

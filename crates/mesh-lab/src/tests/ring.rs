//! Five routers in a ring: each reaches each, by the shorter way; a cut turns the flow round.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mesh_lab::lab::{Lab, Result, wait_for};
use mesh_lab::probe;
use mesh_lab::report::{Report, say};

use super::common::{Step, addresses, bring_up, routes, secs};

const NODES: usize = 5;

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 3] = [
        ("rfc7181_19_each_reaches_each_by_the_shorter_way", start),
        ("a_cut_with_carrier_lost_costs_little", carrier),
        ("a_dead_router_is_routed_around", dead),
    ];
    for (name, step) in steps {
        if report.test(&format!("ring::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

/// Waits until `from` has routes to both addresses of `to`, of `hops` hops.
fn route(lab: &mut Lab, from: usize, to: usize, hops: usize) -> Result<()> {
    let there = addresses(lab.node(to)?)?;
    let node = lab.node(from)?;
    wait_for(&format!("{} to reach {to} in {hops} hops", node.name()), secs(30), || {
        let all = routes(node)?;
        let short = |ip: &IpAddr| all.iter().any(|r| r.destination == *ip && usize::from(r.hops) == hops);
        if there.iter().all(short) { Ok(()) } else { Err(format!("{all:?}")) }
    })
}

fn start(lab: &mut Lab) -> Result<()> {
    for at in 0..NODES {
        lab.add_node(&format!("n{at}"))?;
    }
    for at in 0..NODES {
        lab.plug(at, (at + 1) % NODES)?;
    }
    let start = Instant::now();
    for at in 0..NODES {
        for name in ["eth0", "eth1"] {
            bring_up(lab.node(at)?, name)?;
        }
        lab.node(at)?.start("mesh-router", &["--fast", "--interface", "eth0", "eth1"])?;
    }
    for from in 0..NODES {
        for to in (0..NODES).filter(|to| *to != from) {
            let around = (to + NODES - from) % NODES;
            route(lab, from, to, around.min(NODES - around))?;
        }
    }
    say(&format!("    all pairs after {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}

/// Sends echoes from node 0 to `to` until one comes back after `until` has passed without one; the longest
/// time without.
fn gap(lab: &mut Lab, to: usize) -> Result<Duration> {
    let ip = addresses(lab.node(to)?)?[0];
    let node = lab.node(0)?;
    let start = Instant::now();
    wait_for(&format!("echo of {ip}"), secs(20), || probe::ping(node, ip, Duration::from_millis(20)))?;
    Ok(start.elapsed())
}

fn carrier(lab: &mut Lab) -> Result<()> {
    // n0's first cable leads to n1.
    lab.unplug(0, "eth0")?;
    let gap = gap(lab, 1)?;
    say(&format!("    n0 reaches n1 the other way after {:.0} ms", gap.as_secs_f64() * 1e3));
    route(lab, 0, 1, NODES - 1)
}

fn dead(lab: &mut Lab) -> Result<()> {
    // Close the ring again, then let n1 die without a word.
    lab.plug(0, 1)?;
    for at in [0, 1] {
        bring_up(lab.node(at)?, "eth2")?;
        lab.node(at)?.stop("mesh-router")?;
        lab.node(at)?.start("mesh-router", &["--fast", "--interface", "eth0", "eth1", "eth2"])?;
    }
    route(lab, 0, 2, 2)?;
    // Silent: the cables keep their carrier, the kernel forwards no more.
    lab.node(1)?.kill("mesh-router")?;
    lab.node(1)?
        .inside(|| {
            let off = |family| mesh_sys::netlink::sysctl::set(family, "all", "forwarding", "0");
            off(mesh_sys::udp::Family::V6).and_then(|()| off(mesh_sys::udp::Family::V4))
        })?
        .map_err(|e| e.to_string())?;
    let gap = gap(lab, 2)?;
    say(&format!("    n0 reaches n2 around the dead n1 after {:.1} s", gap.as_secs_f64()));
    route(lab, 0, 2, 3)
}

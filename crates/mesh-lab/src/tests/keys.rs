//! Routers with `router.key`: those with the same key route, one with another and one with none don't;
//! keys are changed while echoes go on.

use std::net::IpAddr;
use std::time::Instant;

use mesh_ipc::router::LinkState;
use mesh_ipc::{Request, Response};
use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::probe;
use mesh_lab::report::{Report, say};

use super::common::{Step, addresses, bring_up, neighbors, routes, secs, symmetric_links};

const A: usize = 0;
const B: usize = 1;
const OTHER: usize = 2;
const NONE: usize = 3;
const OLD: &str = "\"the first key of it\"";
const BOTH: &str = "[\"the key that follows\", \"the first key of it\"]";
const NEW: &str = "\"the key that follows\"";

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 4] = [
        ("rfc7183_same_key_routes", start),
        ("rfc7183_4_other_and_no_key_are_left_alone", strangers),
        ("rfc7183_keys_change_without_losing_a_route", roll_over),
        ("rfc7183_8_2_a_crashed_router_is_believed_again", crash),
    ];
    for (name, step) in steps {
        if report.test(&format!("keys::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

fn set_key(node: &Node, key: Option<&str>) -> Result<()> {
    let text = key.map_or(String::new(), |k| format!("router.key = {k}\n"));
    std::fs::write(node.file("p2pmesh.toml"), text).map_err(told("p2pmesh.toml"))
}

/// A counter of mesh-router.
fn counter(node: &Node, name: &str) -> Result<u64> {
    match node.ask(Request::Status)? {
        Response::Status(s) if s.problems.iter().any(|p| p.contains("router.key")) => {
            Err(format!("a problem with the key: {:?}", s.problems))
        }
        Response::Status(s) => Ok(s.counters.iter().find(|(n, _)| n == name).map_or(0, |(_, v)| *v)),
        other => Err(format!("another answer: {other:?}")),
    }
}

/// All on one wire would do; here each pair has its own. B is in the middle.
fn start(lab: &mut Lab) -> Result<()> {
    for name in ["a", "b", "other", "none"] {
        lab.add_node(name)?;
    }
    for at in [A, OTHER, NONE] {
        lab.plug(B, at)?;
    }
    for (at, key) in [(A, Some(OLD)), (B, Some(OLD)), (OTHER, Some(NEW)), (NONE, None)] {
        let node = lab.node(at)?;
        set_key(node, key)?;
        let names: &[&str] = if at == B { &["eth0", "eth1", "eth2"] } else { &["eth0"] };
        names.iter().try_for_each(|name| bring_up(node, name))?;
        node.start("mesh-router", &[&["--fast", "--interface"], names].concat())?;
    }
    symmetric_links(lab.node(A)?, 2)?;
    symmetric_links(lab.node(B)?, 2)?;
    for ip in addresses(lab.node(B)?)? {
        let node = lab.node(A)?;
        wait_for(&format!("echo of {ip}"), secs(10), || probe::ping(node, ip, secs(1)))?;
    }
    match counter(lab.node(A)?, "router_keys")? {
        1 => Ok(()),
        n => Err(format!("{n} keys")),
    }
}

fn strangers(lab: &mut Lab) -> Result<()> {
    // Heard of in plenty, by B and by themselves, and yet no link.
    for (at, reason) in [
        (B, "ipv6_icv_missing"),
        (B, "ipv6_icv_unknown_key"),
        (B, "ipv4_icv_missing"),
        (OTHER, "ipv6_icv_unknown_key"),
    ] {
        let node = lab.node(at)?;
        wait_for(&format!("{reason} of {}", node.name()), secs(20), || match counter(node, reason)? {
            n if n >= 5 => Ok(()),
            n => Err(format!("{n}")),
        })?;
    }
    for at in [OTHER, NONE] {
        let node = lab.node(at)?;
        let links = neighbors(node)?;
        let all = routes(node)?;
        if links.iter().any(|n| n.state == LinkState::Symmetric) || !all.is_empty() {
            return Err(format!("{} is in: {links:?}, {all:?}", node.name()));
        }
    }
    symmetric_links(lab.node(B)?, 2)
}

/// Echoes for a while; every one must come back, and the routes must stay.
fn undisturbed(lab: &mut Lab, to: IpAddr, what: &str) -> Result<()> {
    let node = lab.node(A)?;
    let begun = Instant::now();
    // Longer than a link lives without a HELLO it can believe (1.5 s with --fast).
    while begun.elapsed() < secs(4) {
        probe::ping(node, to, secs(1)).map_err(|e| format!("{what}: {e}"))?;
        if !routes(node)?.iter().any(|r| r.destination == to) {
            return Err(format!("{what}: the route to {to} is gone"));
        }
    }
    Ok(())
}

fn roll_over(lab: &mut Lab) -> Result<()> {
    let [six, four] = addresses(lab.node(B)?)?;
    for (keys, count) in [(BOTH, 2), (NEW, 1)] {
        for at in [A, B] {
            let node = lab.node(at)?;
            set_key(node, Some(keys))?;
            let pid = node.pid("mesh-router").ok_or("mesh-router does not run")?;
            mesh_sys::process::hang_up(pid).map_err(told("SIGHUP"))?;
            wait_for("the keys to be read", secs(5), || match counter(node, "router_keys")? {
                n if n == count => Ok(()),
                n => Err(format!("{n} keys")),
            })?;
            undisturbed(lab, six, keys)?;
            let node = lab.node(A)?;
            probe::ping(node, four, secs(1))?;
        }
    }
    // And the one that has had the new key all the time is in.
    symmetric_links(lab.node(OTHER)?, 2)?;
    let [six, _] = addresses(lab.node(OTHER)?)?;
    let node = lab.node(A)?;
    wait_for("a route to the third", secs(10), || {
        let all = routes(node)?;
        all.iter().find(|r| r.destination == six && r.hops == 2).map(drop).ok_or_else(|| format!("{all:?}"))
    })
}

fn crash(lab: &mut Lab) -> Result<()> {
    let [six, _] = addresses(lab.node(OTHER)?)?;
    let node = lab.node(A)?;
    node.kill("mesh-router")?;
    let started = Instant::now();
    node.start("mesh-router", &["--fast", "--interface", "eth0"])?;
    // The control socket of the crashed run is still there until the new one has replaced it.
    wait_for("a's router", secs(10), || routes(node).map(drop))?;
    symmetric_links(node, 2)?;
    let there = addresses(lab.node(A)?)?[0];
    let node = lab.node(OTHER)?;
    wait_for("echoes to a", secs(10), || probe::ping(node, there, secs(1)))?;
    say(&format!("    believed again after {:.1} s", started.elapsed().as_secs_f64()));
    let node = lab.node(A)?;
    wait_for("the route back", secs(10), || {
        let all = routes(node)?;
        all.iter().find(|r| r.destination == six).map(drop).ok_or_else(|| format!("{all:?}"))
    })
}

//! Two nodes whose identifiers give the same IPv4 address, at the ends of a line: the lower identifier
//! keeps it, the other takes its next, and everybody follows.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use mesh_lab::lab::{Lab, Result, told, wait_for};
use mesh_lab::probe;
use mesh_lab::report::{Report, say};
use mesh_sys::identity::{self, Identity};

use super::common::{Step, routes, secs};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 3] = [
        ("the_higher_identifier_moves", start),
        ("addresses_routes_and_names_follow", follow),
        ("the_new_address_survives_a_crash", crash),
    ];
    for (name, step) in steps {
        if report.test(&format!("duplicate::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

/// Seeds of two identities with the same first address and different second ones; the lower first.
fn twins() -> Result<[[u8; 32]; 2]> {
    let mut seen: BTreeMap<Ipv4Addr, [u8; 32]> = BTreeMap::new();
    for n in 0u32..200_000 {
        let mut seed = [0x5a; 32];
        seed.iter_mut().zip(n.to_be_bytes()).for_each(|(to, from)| *to = from);
        let node = |seed: &[u8; 32]| Identity::from_seed(seed).node_id();
        let id = node(&seed);
        if let Some(other) = seen.insert(id.mesh_ipv4(0), seed) {
            return Ok(if id < node(&other) { [seed, other] } else { [other, seed] });
        }
    }
    Err("no two identities with the same address among many".into())
}

fn give(lab: &mut Lab, at: usize, seed: &[u8; 32]) -> Result<()> {
    let text: String = seed.iter().map(|b| format!("{b:02x}")).collect();
    let file = lab.node(at)?.file("state").join(identity::FILE_NAME);
    std::fs::write(file, text + "\n").map_err(told("identity"))
}

/// Waits until node `at` has that address, and not the other, on lo.
fn has(lab: &mut Lab, at: usize, address: Ipv4Addr, not: Option<Ipv4Addr>, patience: u64) -> Result<()> {
    let node = lab.node(at)?;
    wait_for(&format!("{} to have {address}", node.name()), secs(patience), || {
        let all = node.kernel(mesh_sys::netlink::Rtnetlink::addresses)?;
        let there = |a: Ipv4Addr| all.iter().any(|x| x.ip == IpAddr::V4(a));
        if there(address) && !not.is_some_and(there) { Ok(()) } else { Err(format!("{all:?}")) }
    })
}

fn start(lab: &mut Lab) -> Result<()> {
    let [low, high] = twins()?;
    for name in ["a", "b", "c"] {
        lab.add_node(name)?;
    }
    give(lab, A, &low)?;
    give(lab, C, &high)?;
    lab.plug(A, B)?;
    lab.plug(B, C)?;
    let start = Instant::now();
    for at in [A, B, C] {
        let node = lab.node(at)?;
        let name = node.name().to_owned();
        node.start("mesh-radio", &[])?;
        node.start("mesh-router", &["--fast"])?;
        node.start("mesh-mdns", &["--name", &name])?;
    }
    let (a, c) = (lab.node(A)?.id()?, lab.node(C)?.id()?);
    if a.mesh_ipv4(0) != c.mesh_ipv4(0) || a >= c {
        return Err("the identities do not clash".into());
    }
    has(lab, C, c.mesh_ipv4(1), Some(c.mesh_ipv4(0)), 30)?;
    say(&format!("    moved {:.1} s after the start", start.elapsed().as_secs_f64()));
    has(lab, A, a.mesh_ipv4(0), None, 0)
}

fn follow(lab: &mut Lab) -> Result<()> {
    let (a, c) = (lab.node(A)?.id()?.mesh_ipv4(0), lab.node(C)?.id()?.mesh_ipv4(1));
    for (from, to) in [(A, c), (B, c), (C, a), (B, a)] {
        let node = lab.node(from)?;
        wait_for(&format!("{} to reach {to}", node.name()), secs(20), || {
            let all = routes(node)?;
            all.iter().find(|r| r.destination == IpAddr::V4(to)).ok_or_else(|| format!("{all:?}"))?;
            probe::ping(node, to.into(), secs(1))
        })?;
    }
    let node = lab.node(A)?;
    wait_for("the name c.local to lead to the new address", secs(20), || {
        let found = probe::resolve(node, "c.local")?;
        let good = found.contains(&IpAddr::V4(c)) && !found.contains(&IpAddr::V4(a));
        if good { Ok(()) } else { Err(format!("{found:?}")) }
    })?;
    let c = lab.node(C)?;
    let run_dir = c.run_dir().display().to_string();
    let said = c.run("meshctl", &["--run-dir", &run_dir, "status"], b"");
    let said = said.map_or_else(|e| e, |out| String::from_utf8_lossy(&out).into_owned());
    if said.contains("the IPv4 address is") { Ok(()) } else { Err(format!("meshctl status: {said}")) }
}

fn crash(lab: &mut Lab) -> Result<()> {
    let id = lab.node(C)?.id()?;
    lab.node(C)?.kill("mesh-router")?;
    lab.node(C)?.start("mesh-router", &["--fast"])?;
    has(lab, C, id.mesh_ipv4(1), Some(id.mesh_ipv4(0)), 5)?;
    let (a, to) = (lab.node(A)?, IpAddr::V4(id.mesh_ipv4(1)));
    wait_for("a to reach c", secs(10), || probe::ping(a, to, secs(1))).map(drop)
}

//! Three routers in a line write down what happens to them; at the desk the same cores do the same again.

use std::fs;

use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::report::{Report, say};
use mesh_sim::replay::{Replay, ReplayError};
use olsrv2::Key;
use olsrv2::recording::{End, Problem, RecordingError};

use super::common::{Step, bring_up, routes, secs, symmetric_links};

const SECRET: &str = "the key of this mesh";

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 3] =
        [("line_records", start), ("a_stopped_router", stopped), ("a_killed_router", killed)];
    for (name, step) in steps {
        if report.test(&format!("recorded::{name}"), || step(lab)).is_none() {
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
    for at in 0..3 {
        let node = lab.node(at)?;
        let text = format!("router.key = \"{SECRET}\"\n");
        fs::write(node.file("p2pmesh.toml"), text).map_err(told("p2pmesh.toml"))?;
        let names: &[&str] = if at == 1 { &["eth0", "eth1"] } else { &["eth0"] };
        names.iter().try_for_each(|name| bring_up(node, name))?;
        let file = node.file("recording").display().to_string();
        node.start("mesh-router", &[&["--fast", "--record", &file, "--interface"], names].concat())?;
    }
    symmetric_links(lab.node(1)?, 4)?;
    let node = lab.node(0)?;
    // Addresses and networks of both others, in both families as far as there are.
    wait_for("all routes", secs(15), || match routes(node)?.len() {
        n if n >= 6 => Ok(()),
        n => Err(format!("{n} routes")),
    })
}

fn replay(node: &Node) -> Result<(Replay, std::result::Result<(), ReplayError>)> {
    let bytes = fs::read(node.file("recording")).map_err(told("recording"))?;
    let (replay, result) = Replay::run(&bytes, &[Key::new(SECRET.as_bytes())], |_, _, _| {});
    say(&format!("     {}: {} B of recording", node.name(), bytes.len()));
    for router in replay.routers.values() {
        if let Some((offset, now)) = router.departs {
            return Err(format!("departs at byte {offset}, {now}\n{replay}"));
        }
        if router.packets < 4 || router.route_changes < 2 {
            return Err(format!("that is not what happened\n{replay}"));
        }
    }
    match replay.routers.len() {
        2 => Ok((replay, result)),
        n => Err(format!("{n} routers")),
    }
}

fn stopped(lab: &mut Lab) -> Result<()> {
    lab.node(1)?.stop("mesh-router")?;
    let (replay, result) = replay(lab.node(1)?)?;
    result.map_err(told("replay"))?;
    match replay.end {
        Some(End::Stopped) => Ok(()),
        other => Err(format!("ends with {other:?}")),
    }
}

/// Its routes are those of the core that lived again.
fn killed(lab: &mut Lab) -> Result<()> {
    let node = lab.node(0)?;
    wait_for("no more routes", secs(15), || match routes(node)?.len() {
        0 => Ok(()),
        n => Err(format!("{n} routes")),
    })?;
    lab.node(1)?.start("mesh-router", &["--fast", "--interface", "eth0", "eth1"])?;
    let node = lab.node(0)?;
    let all = wait_for("all routes again", secs(15), || match routes(node)? {
        all if all.len() >= 6 => Ok(all),
        few => Err(format!("{} routes", few.len())),
    })?;
    node.kill("mesh-router")?;
    let (replay, result) = replay(node)?;
    match result {
        Err(ReplayError::Recording(RecordingError { problem: Problem::NoEnd, .. })) => {}
        other => return Err(format!("ends with {other:?}")),
    }
    let again = replay.routers.values().flat_map(|r| r.router.routes());
    let again: Vec<_> = again.map(|r| (r.prefix.ip(), r.prefix.prefix_len(), r.next_hop)).collect();
    let before: Vec<_> = all.iter().map(|r| (r.destination, r.prefix_len, r.next_hop)).collect();
    if again == before { Ok(()) } else { Err(format!("{before:?}\nthen {again:?}")) }
}

//! Two groups of nodes that grew on different channels, and meet. Needs a machine with simulated radios, see `ci/radio`.

use std::fs;
use std::time::Instant;

use mesh_lab::lab::{Lab, Result, told, wait_for};
use mesh_lab::report::{Report, say};

use super::common::{Step, secs, symmetric_links};
use super::wireless::{give, plan, planned, tool, tune};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const D: usize = 3;
/// Where the second group began, and it alone has its channel from its configuration.
const GUIDE: usize = 4;
const FIRST: u32 = 27;
const HERE: u32 = 0x20_0000;
const THERE: u32 = 0x40_0000;
const RADIOS: [(usize, u32); 5] = [(A, HERE), (B, HERE), (C, THERE), (D, THERE), (GUIDE, THERE)];

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 2] =
        [("each_grows_on_a_channel_of_its_own", grow), ("when_they_meet_one_moves", meet)];
    for (name, step) in steps {
        if report.test(&format!("groups::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

fn grow(lab: &mut Lab) -> Result<()> {
    for name in ["a", "b", "c", "d", "guide"] {
        let at = lab.add_node(name)?;
        let channel = if at == GUIDE { "mesh.channel = 11\n" } else { "" };
        let text = format!("hostname = \"{name}\"\nap.password = \"correct horse\"\n{channel}");
        fs::write(lab.at(at)?.file("p2pmesh.toml"), text).map_err(told("p2pmesh.toml"))?;
    }
    let radios = give(lab, FIRST, &RADIOS)?;
    for (at, words) in
        [(A, "2412 MHz"), (GUIDE, "2462 MHz as mesh.channel"), (B, "2412"), (C, "2462"), (D, "2462")]
    {
        lab.node(at)?.start("mesh-radio", &[])?;
        lab.node(at)?.start("mesh-router", &[])?;
        planned(lab.at(at)?, words)?;
        // The others find it on the air.
        wait_for("the mesh point to be up", secs(20), || {
            let plan = plan(lab.at(at)?)?;
            let up = plan.interfaces.iter().any(|i| i.name == "mesh0" && i.running);
            if up { Ok(()) } else { Err(format!("{plan:?}")) }
        })?;
    }
    for (at, neighbours) in [(A, 1), (B, 1), (C, 2), (D, 2)] {
        symmetric_links(lab.at(at)?, 2 * neighbours)?;
    }
    // From now on c hears all.
    let c = radios.get(C).ok_or("c has no radio")?;
    tune(*c, HERE | THERE)
}

/// One that has lost a peer looks round, finds the other group, and moves there; the next one follows.
fn meet(lab: &mut Lab) -> Result<()> {
    let begin = Instant::now();
    tool(lab.at(GUIDE)?, "ip", &["link", "set", "mesh0", "down"])?;
    for at in [C, D] {
        wait_for("the move to the other channel", secs(150), || {
            let plan = plan(lab.at(at)?)?;
            let moved = plan.phys.iter().any(|p| p.reason.contains("2412 MHz, where this mesh was heard"));
            if moved { Ok(()) } else { Err(format!("{:?}", plan.phys)) }
        })?;
        say(&format!(
            "    {} moved {:.1} s after a peer was gone",
            lab.at(at)?.name(),
            begin.elapsed().as_secs_f32()
        ));
    }
    for (at, neighbours) in [(A, 2), (B, 2), (C, 3), (D, 1)] {
        symmetric_links(lab.at(at)?, 2 * neighbours)?;
    }
    Ok(())
}

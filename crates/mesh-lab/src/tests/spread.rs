//! Twenty-five nodes in a grid take an update by themselves: it is applied on one and announced. The first one that tries it goes
//! back: the fleet stops. A person resumes it on another node; all others fetch it from their neighbours and restart in
//! turns, with nobody's neighbourhood darker than allowed.

use std::time::{Duration, Instant};

use mesh_lab::fleet::{Fleet, Plan};
use mesh_lab::graph::Graph;
use mesh_lab::lab::{Lab, Result};
use mesh_lab::report::{Report, say};

use super::common::secs;

const NODES: usize = 25;
const RELEASE: u64 = 2;
/// For a machine that has much else to do.
const PATIENCE: Duration = secs(120);
/// The service's rounds when nothing happens are 15 s apart; nothing that is to be done at once may wait for one.
const IDLE: Duration = secs(12);

type Step = fn(&mut Fleet<'_>) -> Result<()>;

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let plan = Plan { graph: Graph::grid(NODES), size: 2_000_000, share: 20, settle: 2 };
    let made = report.test("updates_of_25::nodes_know_one_another", || {
        let mut fleet = Fleet::new(lab, plan)?;
        fleet.acquainted(PATIENCE)?;
        Ok(fleet)
    });
    let Some(mut fleet) = made else { return };
    let steps: [(&str, Step); 2] = [
        ("a_bad_system_stops_where_it_was_tried_first", stop),
        ("resumed_on_one_node_all_others_fetch_it_and_restart_in_turns", resume),
    ];
    for (name, step) in steps {
        if report.test(&format!("updates_of_25::{name}"), || step(&mut fleet)).is_none() {
            return; // the rest builds on it
        }
    }
}

fn stop(fleet: &mut Fleet<'_>) -> Result<()> {
    fleet.set_bad(RELEASE);
    let bundle = fleet.bundle(RELEASE)?.display().to_string();
    let begun = Instant::now();
    say(&format!("    {}", fleet.meshctl(12, &["apply", &bundle])?.trim()));
    let took = begun.elapsed();
    say(&format!("    applied and announced in {:.1} s", took.as_secs_f64()));
    if took > IDLE {
        return Err("one step of it waited for the service's next round".into());
    }
    let begun = Instant::now();
    fleet.drive("all nodes are up and know of the failure", PATIENCE, |fleet| {
        let knows =
            |s: &mesh_ipc::update::Slots| s.confirmed && s.fleet.first().is_some_and(|n| n.failed == RELEASE);
        let not = (0..NODES).find(|at| !fleet.slots(*at).is_some_and(|s| knows(&s)));
        not.map_or(Ok(()), |at| Err(format!("n{at} does not: {:?}", fleet.slots(at))))
    })?;
    let tried = fleet.tried;
    // Nobody goes on, for longer than a claim stands.
    let calm = Instant::now() + secs(6);
    fleet.drive("calm", secs(10), |_| if Instant::now() > calm { Ok(()) } else { Err(String::new()) })?;
    say(&format!(
        "    all know that it failed {:.1} s after that; {} of {NODES} have it by then; it was started {tried} times",
        begun.elapsed().as_secs_f64() - 6.0,
        fleet.have(RELEASE)
    ));
    if fleet.tried != tried || fleet.count(1) != NODES {
        return Err(format!("{} starts, then {}; {} run release 1", tried, fleet.tried, fleet.count(1)));
    }
    // One node tries it for all.
    if tried == 3 { Ok(()) } else { Err(format!("the bad system was started {tried} times")) }
}

fn resume(fleet: &mut Fleet<'_>) -> Result<()> {
    let failed = fleet.tried / 3;
    fleet.set_bad(0);
    let begun = Instant::now();
    say(&format!("    {}", fleet.meshctl(24, &["resume"])?.trim()));
    let all = fleet.drive("all that did not fail run it", PATIENCE, |fleet| {
        let count = fleet.count(RELEASE);
        if count == NODES - failed { Ok(()) } else { Err(format!("{count} of {} run it", NODES - failed)) }
    })?;
    say(&format!(
        "    {} nodes updated {:.1} s after that; at most {} down at once, {} of one node's neighbours",
        NODES - failed,
        all.saturating_duration_since(begun).as_secs_f64(),
        fleet.most_down.0,
        fleet.most_down.1
    ));
    say(&format!("    {}", fleet.meshctl(3, &["status"])?.trim().replace('\n', "\n    ")));
    Ok(())
}

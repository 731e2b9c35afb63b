//! Twenty-five routers in a grid, over radio: all reach all after the start, after a link went silent, after
//! a node went off the air and came back, after a crash, after a power cut of all, and after a partition.
//!
//! Judged are the kernels' routes of all nodes together. The times are printed, not judged.

use std::time::{Duration, Instant};

use mesh_lab::daemon::Daemon;
use mesh_lab::field::Field;
use mesh_lab::graph::Graph;
use mesh_lab::lab::{Lab, Result};
use mesh_lab::report::{Report, say};

use super::common::secs;

const NODES: usize = 25;
const PERIOD: Duration = Duration::from_millis(20);
/// For a machine that has much else to do.
const PATIENCE: Duration = secs(60);

type Step = fn(&mut Field<'_>) -> Result<()>;

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let made = report.test("grid_of_25::nodes_on_radio", || {
        Field::new(lab, Graph::grid(NODES), false, Daemon::Mesh, None)
    });
    let Some(mut field) = made else { return };
    let steps: [(&str, Step); 7] = [
        ("cold_start_all_reach_all", start),
        ("a_silent_link_is_routed_around", cut),
        ("a_node_off_the_air_is_routed_around_and_comes_back", death),
        ("a_crashed_router_comes_back_unnoticed", crash),
        ("a_partition_heals", partition),
        ("a_power_cut_of_all", storm),
        ("routers_leave_no_routes", |field| field.stop_all()),
    ];
    for (name, step) in steps {
        if report.test(&format!("grid_of_25::{name}"), || step(&mut field)).is_none() {
            return; // the rest would only fail, slowly
        }
    }
}

fn told(what: &str, since: Instant, until: Instant) {
    say(&format!("    {what}: {:.2} s", until.saturating_duration_since(since).as_secs_f64()));
}

fn start(field: &mut Field<'_>) -> Result<()> {
    let begin = Instant::now();
    field.start_all()?;
    told("all pairs", begin, field.settle(PATIENCE)?);
    // The routes are the shortest ones in the end.
    let (from, to) = field.graph().corners();
    let hops = field.graph().hops(from).get(to).copied().flatten().unwrap_or(0);
    match field.watch.until(PATIENCE, |_| true).map(|_| field.watch.path(from, to))? {
        Some(path) if path.len() == hops + 1 => Ok(()),
        other => Err(format!("from corner to corner it is {hops} hops, not {other:?}")),
    }
}

/// A link in the middle of the way from corner to corner, or a node there.
fn middle(field: &Field<'_>) -> Result<(usize, usize)> {
    let (from, to) = field.graph().corners();
    let path = field.watch.path(from, to).ok_or("no way from corner to corner")?;
    match path.get(path.len() / 2 - 1..) {
        Some([a, b, ..]) => Ok((*a, *b)),
        _ => Err("a way without a middle".into()),
    }
}

/// Waits for all routes, and for echoes from corner to corner.
fn recovered(field: &mut Field<'_>, what: &str, since: Instant) -> Result<()> {
    told(what, since, field.settle(PATIENCE)?);
    let (from, to) = field.graph().corners();
    let stream = field.echoes(from, to, PERIOD)?;
    match field.watch.until(PATIENCE, |_| stream.flows(Duration::from_millis(200)))? {
        Some(_) => Ok(()),
        None => Err("the routes are right and no echo comes back".into()),
    }
}

fn cut(field: &mut Field<'_>) -> Result<()> {
    let link = middle(field)?;
    let (from, to) = field.graph().corners();
    let stream = field.echoes(from, to, PERIOD)?;
    field.watch.until(PATIENCE, |_| stream.flows(Duration::from_millis(200)))?;
    let cut = Instant::now();
    field.set_link(link, false)?;
    recovered(field, "routed around", cut)?;
    say(&format!("    gap between echoes: {:.2} s", stream.gap(cut).as_secs_f64()));
    let healed = Instant::now();
    field.set_link(link, true)?;
    recovered(field, "link back", healed)
}

fn death(field: &mut Field<'_>) -> Result<()> {
    let (_, node) = middle(field)?;
    let off = Instant::now();
    field.power(node, false)?;
    recovered(field, "routed around", off)?;
    let on = Instant::now();
    field.power(node, true)?;
    recovered(field, "known to all again", on)
}

fn crash(field: &mut Field<'_>) -> Result<()> {
    let (_, node) = middle(field)?;
    let (from, to) = field.graph().corners();
    let stream = field.echoes(from, to, PERIOD)?;
    field.watch.until(PATIENCE, |_| stream.flows(Duration::from_millis(200)))?;
    let crash = Instant::now();
    field.crash(node)?;
    field.start(node)?;
    field.observe(secs(5))?;
    let (sent, back) = stream.delivered(crash);
    say(&format!("    {back} of {sent} echoes came back"));
    recovered(field, "all pairs", crash)
}

fn partition(field: &mut Field<'_>) -> Result<()> {
    let cut = field.graph().middle();
    for link in &cut {
        field.set_link(*link, false)?;
    }
    // Until the other half is forgotten.
    let (from, to) = field.graph().corners();
    let begin = Instant::now();
    let gone = loop {
        field.watch.look()?;
        if field.watch.path(from, to).is_none() {
            break Instant::now();
        }
        if begin.elapsed() > PATIENCE {
            return Err("routes into the other half stay".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    told("the other half is forgotten", begin, gone);
    let healed = Instant::now();
    for link in &cut {
        field.set_link(*link, true)?;
    }
    recovered(field, "healed", healed)
}

fn storm(field: &mut Field<'_>) -> Result<()> {
    let begin = Instant::now();
    field.power_cycle_all()?;
    recovered(field, "all pairs", begin)
}

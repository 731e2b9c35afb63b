//! What befalls a mesh, and what is measured meanwhile.

use std::time::{Duration, Instant};

use mesh_lab::field::{Field, Used};
use mesh_lab::lab::Result;
use mesh_lab::stream::Stream;

use super::table::Row;
use super::{Bench, Scenario};

/// 50 Hz.
const PERIOD: Duration = Duration::from_millis(20);
/// Echoes that have to come back in a row before a gap counts as over.
const FLOW: Duration = Duration::from_millis(400);

const COLD: Row = Row { what: "cold start, all pairs, s", goal: "4 at 25, 6 to 100" };
const BYTES6: Row =
    Row { what: "idle, IPv6 control bytes/s/node", goal: "grid 49: 300, rgg 50: 180, grid 100: 600" };
const BYTES: Row = Row { what: "idle, all bytes/s/node (ours: +IPv4)", goal: "" };
const PACKETS6: Row = Row { what: "idle, IPv6 control packets/s/node", goal: "" };
const CPU: Row = Row { what: "idle, CPU s per node and 60 s", goal: "0.010" };
const RSS: Row = Row { what: "RSS of the largest, MB", goal: "1.5" };
const ANON: Row = Row { what: "  of it not shared with files, MB", goal: "" };
const EVENTS: Row = Row { what: "idle, route events/node/min", goal: "" };
const CUT: Row = Row { what: "silent cut, echo gap, s", goal: "4; fast 2" };
const CUT_WHOLE: Row = Row { what: "silent cut, all routes right after, s", goal: "" };
const CARRIER: Row = Row { what: "cut with carrier loss, echo gap, s", goal: "0.3" };
const DEATH: Row = Row { what: "node off the air, echo gap, s", goal: "4; fast 2" };
const JOIN: Row = Row { what: "late joiner, known to all after s", goal: "4" };
const CRASH: Row = Row { what: "router killed and started, echo gap, s", goal: "" };
const STORM: Row = Row { what: "all power-cycled, all pairs after s", goal: "as the cold start" };
const STORM_EVENTS: Row = Row { what: "  route events/node in 20 s", goal: "" };
const STORM_BYTES: Row = Row { what: "  IPv6 bytes/s/node in those 20 s", goal: "" };
const HEAL: Row = Row { what: "partition of 20 s healed, all pairs, s", goal: "" };
const GATEWAY: Row = Row { what: "gateway off the air, echo gap, s", goal: "4" };
const LOSS_EVENTS: Row = Row { what: "20 % multicast loss: events/node/min", goal: "20" };
const LOSS_REACH: Row = Row { what: "  pairs reachable, %", goal: "100" };
const LOSS_LOOPS: Row = Row { what: "  samples with a loop, of one a second, %", goal: "0" };
const MOBILITY: Row = Row { what: "all moved 50 m, echoes 15 s later, %", goal: "95" };

pub(super) fn run(bench: &mut Bench, field: &mut Field<'_>, scenario: Scenario) -> Result<()> {
    match scenario {
        Scenario::Cold => cold(bench, field),
        Scenario::Idle => idle(bench, field),
        Scenario::Cut => cuts(bench, field, CUT, Some(CUT_WHOLE)),
        Scenario::Carrier => cuts(bench, field, CARRIER, None),
        Scenario::Death => death(bench, field),
        Scenario::Crash => crash(bench, field),
        Scenario::Storm => storm(bench, field),
        Scenario::Heal => heal(bench, field),
        Scenario::Gateway => gateway(bench, field),
        Scenario::Loss => loss(bench, field),
        Scenario::Mobility => mobility(bench, field),
    }
}

/// All routers start at once, some times over; the last time they stay.
fn cold(bench: &mut Bench, field: &mut Field<'_>) -> Result<()> {
    for round in 0..bench.rounds(field.daemon()) {
        if round > 0 {
            field.stop_all()?;
        }
        let start = Instant::now();
        field.start_all()?;
        let settled = settled(bench, field)?;
        bench.note_time(field, COLD, start, settled);
    }
    Ok(())
}

/// When all was right, or `None` after the patience.
fn settled(bench: &Bench, field: &mut Field<'_>) -> Result<Option<Instant>> {
    field.watch.until(bench.patience(), |v| v.whole())
}

/// A pause in which the last scenario's changes end.
fn rest(bench: &Bench, field: &mut Field<'_>) -> Result<()> {
    settled(bench, field)?;
    field.calm(Duration::from_secs(3), Duration::from_secs(8))
}

fn idle(bench: &mut Bench, field: &mut Field<'_>) -> Result<()> {
    rest(bench, field)?;
    field.observe(bench.aftermath())?;
    let time = bench.idle_time();
    let before = field.used()?;
    field.observe(time)?;
    let after = field.used()?;
    let nodes = field.graph().nodes as f64;
    let per_second = |of: fn(&Used) -> f64| (of(&after) - of(&before)) / time.as_secs_f64() / nodes;
    bench.note(field, BYTES6, per_second(|u| u.bytes6 as f64));
    bench.note(field, BYTES, per_second(|u| u.bytes as f64));
    bench.note(field, PACKETS6, per_second(|u| u.packets6 as f64));
    bench.note(field, CPU, per_second(|u| u.cpu.as_secs_f64()) * 60.0);
    bench.note(field, EVENTS, per_second(|u| u.events as f64) * 60.0);
    bench.note(field, RSS, after.rss_kib as f64 / 1024.0);
    bench.note(field, ANON, after.anon_kib as f64 / 1024.0);
    if field.graph().name.starts_with("grid") {
        bench.memory.push((field.daemon(), field.graph().nodes, after.anon_kib));
    }
    Ok(())
}

/// Echoes from corner to corner, once they flow.
fn corner_to_corner(bench: &Bench, field: &mut Field<'_>) -> Result<(Stream, usize, usize)> {
    let (from, to) = field.graph().corners();
    rest(bench, field)?;
    let stream = field.echoes(from, to, PERIOD)?;
    field.watch.until(bench.patience(), |_| stream.flows(FLOW))?;
    Ok((stream, from, to))
}

/// A link on the way of the echoes is cut, in turn near the one end, the other, and the middle.
fn cuts(bench: &mut Bench, field: &mut Field<'_>, gap: Row, whole: Option<Row>) -> Result<()> {
    let (stream, from, to) = corner_to_corner(bench, field)?;
    let rounds = bench.cuts(field.daemon());
    // Others take up to a minute until the last route is right, though the echoes flow.
    let whole = whole.filter(|_| field.daemon().ours());
    for round in 0..rounds {
        if round > 0 {
            rest(bench, field)?;
        }
        let Some(path) = field.watch.path(from, to) else { return Err("no way to cut".into()) };
        let links = path.windows(2).filter_map(|w| <[usize; 2]>::try_from(w).ok());
        let spare: Vec<[usize; 2]> =
            links.filter(|[a, b]| field.graph().without((*a, *b)).is_connected()).collect();
        let at = (round * 2 + 1) * spare.len() / (rounds * 2);
        let Some([a, b]) = spare.get(at).copied() else { return Err("no link on the way can be cut".into()) };
        let cut = Instant::now();
        field.set_link((a, b), false)?;
        let mut right = None;
        field.watch.until(bench.patience(), |v| {
            right = right.or_else(|| v.whole().then(Instant::now));
            (right.is_some() || whole.is_none()) && cut.elapsed() > FLOW && stream.flows(FLOW)
        })?;
        bench.note(field, gap, stream.gap(cut).as_secs_f64());
        if let Some(row) = whole {
            bench.note_time(field, row, cut, right);
        }
        field.set_link((a, b), true)?;
    }
    Ok(())
}

/// A node in the middle of the way goes off the air; later it comes back, as a node that nobody knows.
fn death(bench: &mut Bench, field: &mut Field<'_>) -> Result<()> {
    let (stream, from, to) = corner_to_corner(bench, field)?;
    for _ in 0..bench.rounds(field.daemon()) {
        let path = field.watch.path(from, to).unwrap_or_default();
        let inner = path.get(1..path.len().saturating_sub(1)).unwrap_or_default();
        let spare: Vec<usize> = inner.iter().copied().filter(|n| field.graph().is_spare(*n)).collect();
        let Some(node) = spare.get(spare.len() / 2).copied() else {
            return Err("no node to turn off".into());
        };
        let off = Instant::now();
        field.power(node, false)?;
        field.watch.until(bench.patience(), |_| off.elapsed() > FLOW && stream.flows(FLOW))?;
        bench.note(field, DEATH, stream.gap(off).as_secs_f64());
        // Until it is forgotten everywhere.
        field.calm(Duration::from_secs(5), Duration::from_secs(20))?;
        let on = Instant::now();
        field.power(node, true)?;
        let settled = settled(bench, field)?;
        bench.note_time(field, JOIN, on, settled);
        rest(bench, field)?;
    }
    Ok(())
}

/// The router of a node on the way crashes and is started again after two seconds.
fn crash(bench: &mut Bench, field: &mut Field<'_>) -> Result<()> {
    let (stream, from, to) = corner_to_corner(bench, field)?;
    let path = field.watch.path(from, to).unwrap_or_default();
    let Some(node) = path.get(path.len() / 2).copied() else { return Err("no way".into()) };
    let start = Instant::now();
    field.crash(node)?;
    field.watch.until(Duration::from_secs(2), |_| false)?;
    field.start(node)?;
    field.watch.until(Duration::from_secs(10), |_| false)?;
    field.watch.until(bench.patience(), |_| stream.flows(FLOW))?;
    bench.note(field, CRASH, stream.gap(start).as_secs_f64());
    Ok(())
}

fn storm(bench: &mut Bench, field: &mut Field<'_>) -> Result<()> {
    rest(bench, field)?;
    let time = Duration::from_secs(20);
    let start = Instant::now();
    field.power_cycle_all()?;
    let (before, counting) = (field.used()?, Instant::now());
    let settled = settled(bench, field)?;
    bench.note_time(field, STORM, start, settled);
    field.observe(time.saturating_sub(counting.elapsed()))?;
    let after = field.used()?;
    let nodes = field.graph().nodes as f64;
    bench.note(field, STORM_EVENTS, (after.events - before.events) as f64 / nodes);
    let bytes = after.bytes6.saturating_sub(before.bytes6) as f64;
    bench.note(field, STORM_BYTES, bytes / counting.elapsed().as_secs_f64() / nodes);
    Ok(())
}

fn heal(bench: &mut Bench, field: &mut Field<'_>) -> Result<()> {
    rest(bench, field)?;
    let cut = field.graph().middle();
    for edge in &cut {
        field.set_link(*edge, false)?;
    }
    field.observe(Duration::from_secs(20))?;
    let healed = Instant::now();
    for edge in &cut {
        field.set_link(*edge, true)?;
    }
    let settled = settled(bench, field)?;
    bench.note_time(field, HEAL, healed, settled);
    Ok(())
}

/// Two gateways in the corners; a neighbour of the one uses it until it goes off the air.
fn gateway(bench: &mut Bench, field: &mut Field<'_>) -> Result<()> {
    rest(bench, field)?;
    let (near, far) = field.graph().corners();
    let user = field.graph().neighbors(near).next().ok_or("a corner without neighbours")?;
    for gateway in [near, far] {
        field.make_gateway(gateway)?;
    }
    let stream = field.echoes_outside(user, PERIOD)?;
    rest(bench, field)?;
    field.watch.until(bench.patience(), |_| stream.flows(FLOW))?;
    let off = Instant::now();
    field.power(near, false)?;
    field.watch.until(bench.patience(), |_| off.elapsed() > FLOW && stream.flows(FLOW))?;
    bench.note(field, GATEWAY, stream.gap(off).as_secs_f64());
    field.power(near, true)
}

fn loss(bench: &mut Bench, field: &mut Field<'_>) -> Result<()> {
    rest(bench, field)?;
    if let Err(why) = field.lose_multicast(20) {
        bench.skip(&format!("loss of multicast packets: {why}"));
        return Ok(());
    }
    let before = field.watch.events();
    let time = bench.loss_time();
    let samples = field.observe(time)?;
    let events = (field.watch.events() - before) as f64;
    field.lose_multicast(0)?;
    bench.note(field, LOSS_EVENTS, events / field.graph().nodes as f64 / time.as_secs_f64() * 60.0);
    let share = |v: &mesh_lab::watch::Verdict| v.reached as f64 / v.possible.max(1) as f64;
    let count = samples.len().max(1) as f64;
    bench.note(field, LOSS_REACH, samples.iter().map(share).sum::<f64>() / count * 100.0);
    bench.note(field, LOSS_LOOPS, samples.iter().filter(|v| v.looping > 0).count() as f64 / count * 100.0);
    Ok(())
}

/// meshnet-lab's *mobility2*: every node moves 50 m; 15 s later echoes are counted.
fn mobility(bench: &mut Bench, field: &mut Field<'_>) -> Result<()> {
    rest(bench, field)?;
    let mut graph = field.graph().clone();
    for round in 0..bench.rounds(field.daemon()) {
        graph = graph.moved(50.0, round as u64 + 7);
        field.become_graph(&graph)?;
        field.observe(Duration::from_secs(15))?;
        let start = Instant::now();
        let streams = (0..graph.nodes)
            .map(|from| {
                field.echoes(from, (from + graph.nodes / 2) % graph.nodes, Duration::from_millis(200))
            })
            .collect::<Result<Vec<_>>>()?;
        field.observe(Duration::from_secs(3))?;
        let sums = streams.iter().map(|s| s.delivered(start)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        bench.note(field, MOBILITY, sums.1 as f64 / sums.0.max(1) as f64 * 100.0);
    }
    Ok(())
}

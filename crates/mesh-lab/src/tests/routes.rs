//! The kernel's routes on a line a – b – c, later a triangle: their place among other people's, changes
//! without a gap, what comes back and what goes.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::probe;
use mesh_lab::report::{Report, say};
use mesh_sys::netlink::{Event, Monitor, Route, RouteKind, TABLE_MAIN};
use mesh_sys::udp::Family;

use super::common::{
    PROTOCOL, Step, addresses, bring_up, kernel_routes, routes, secs, start_router, step_name,
};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const FLAGS: [&str; 4] = ["--interface", "eth0", "eth1", "eth2"];

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 7] = [
        ("own_table_and_rules", start),
        ("nearer_routes_of_others_win_wider_ones_do_not", precedence),
        ("a_better_way_replaces_without_a_gap", replace),
        ("a_route_that_others_remove_comes_back", removed),
        ("an_interface_that_vanishes_takes_its_routes_along", vanish),
        ("what_went_while_the_router_was_down_is_forgotten", stale),
        ("nothing_stays_after_a_crash_and_a_clean_end", leave),
    ];
    for (name, step) in steps {
        if report.test(&step_name(lab, "routes", name), || step(lab)).is_none() {
            return;
        }
    }
}

/// Waits until `node`'s router has routes of that many hops to both addresses, and the kernel, too.
fn reach(node: &Node, to: [IpAddr; 2], hops: u8) -> Result<()> {
    wait_for(&format!("{} to reach {to:?} in {hops} hops", node.name()), secs(20), || {
        let all = routes(node)?;
        let kernel = kernel_routes(node)?;
        let good = |ip: &IpAddr| {
            all.iter().any(|r| r.destination == *ip && r.hops == hops)
                && kernel.iter().any(|r| r.prefix == *ip)
        };
        if to.iter().all(good) { Ok(()) } else { Err(format!("{all:?}; kernel {kernel:?}")) }
    })
}

/// Waits until `A` and `C` have each other through `B`: an echo needs the way back, too.
fn both_ways(lab: &mut Lab) -> Result<()> {
    let (a, c) = (addresses(lab.node(A)?)?, addresses(lab.node(C)?)?);
    reach(lab.node(A)?, c, 2)?;
    reach(lab.node(C)?, a, 2)
}

fn rules(node: &Node) -> Result<usize> {
    node.kernel(|nl| Ok(nl.rules(Family::V4, PROTOCOL)?.len() + nl.rules(Family::V6, PROTOCOL)?.len()))
}

fn start(lab: &mut Lab) -> Result<()> {
    for name in ["a", "b", "c"] {
        lab.add_node(name)?;
    }
    lab.plug(A, B)?;
    lab.plug(B, C)?;
    for (at, name) in [(A, "eth0"), (B, "eth0"), (B, "eth1"), (C, "eth0")] {
        bring_up(lab.node(at)?, name)?;
    }
    for at in [A, B, C] {
        start_router(lab, at, &FLAGS)?;
    }
    both_ways(lab)?;
    match rules(lab.node(A)?)? {
        14 => Ok(()),
        n => Err(format!("{n} rules instead of four, and one for each interface, for each family")),
    }
}

fn by_hand(prefix: &str, prefix_len: u8, kind: RouteKind, index: u32) -> Result<Route> {
    let prefix = prefix.parse().map_err(|_| "prefix")?;
    let index = if kind == RouteKind::Unicast { index } else { 0 };
    let metric = 50;
    let (gateway, source, protocol) = (None, None, 4);
    Ok(Route { kind, prefix, prefix_len, gateway, index, source, metric, table: TABLE_MAIN, protocol })
}

fn precedence(lab: &mut Lab) -> Result<()> {
    let c = addresses(lab.node(C)?)?;
    let a = lab.node(A)?;
    let eth0 = a.kernel(|nl| nl.link("eth0"))?.map_or(0, |l| l.index);
    // An uplink's network and a default route that would swallow the mesh.
    let mut wide = Vec::new();
    for (prefix, len) in [("10.0.0.0", 8), ("0.0.0.0", 0), ("fd00::", 8), ("::", 0)] {
        wide.push(by_hand(prefix, len, RouteKind::Unicast, eth0)?);
    }
    for route in &wide {
        a.kernel(|nl| nl.replace_route(route))?;
    }
    for ip in c {
        probe::ping(a, ip, secs(2)).map_err(|e| format!("a wider route hides the mesh: {e}"))?;
    }
    for ip in c {
        let near = by_hand(&ip.to_string(), if ip.is_ipv6() { 128 } else { 32 }, RouteKind::Unreachable, 0)?;
        a.kernel(|nl| nl.replace_route(&near))?;
        if probe::ping(a, ip, Duration::from_millis(200)).is_ok() {
            return Err(format!("the route to {ip} made by hand does not count"));
        }
        a.kernel(|nl| nl.remove_route(&near))?;
        probe::ping(a, ip, secs(2))?;
    }
    wide.iter().try_for_each(|route| a.kernel(|nl| nl.remove_route(route)))
}

/// Runs `change` while a second watcher looks for a moment without a route to `to`: by connecting all the
/// time, and in the kernel's notifications.
fn watched(node: &Node, to: [IpAddr; 2], change: impl FnOnce() -> Result<()>) -> Result<()> {
    let done = AtomicBool::new(false);
    let watch = || -> Result<usize> {
        let mut monitor = Monitor::with_routes(PROTOCOL).map_err(told("monitor"))?;
        let mut lookups = 0;
        while !done.load(Ordering::Relaxed) {
            for ip in to {
                let any: IpAddr = if ip.is_ipv6() { [0u16; 8].into() } else { [0u8; 4].into() };
                let socket = UdpSocket::bind((any, 0)).map_err(told("socket"))?;
                socket.connect((ip, 9)).map_err(|e| format!("no route to {ip} for a moment: {e}"))?;
                lookups += 1;
            }
            while let Some(event) = monitor.poll_event().map_err(told("monitor"))? {
                match event {
                    Event::RouteGone(r) if to.contains(&r.prefix) => {
                        return Err(format!("{r:?} was removed"));
                    }
                    Event::Resync => return Err("notifications were lost".into()),
                    _ => {}
                }
            }
        }
        Ok(lookups)
    };
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| node.inside(watch)?);
        let changed = change();
        done.store(true, Ordering::Relaxed);
        let lookups = watcher.join().map_err(|_| "the watcher panicked")??;
        say(&format!("    {lookups} lookups, a route each time"));
        changed
    })
}

fn replace(lab: &mut Lab) -> Result<()> {
    let c = addresses(lab.node(C)?)?;
    lab.plug(A, C)?;
    for (at, name) in [(A, "eth1"), (C, "eth1")] {
        bring_up(lab.node(at)?, name)?;
    }
    let a: &Node = lab.node(A)?;
    watched(a, c, || reach(a, c, 1))
}

fn removed(lab: &mut Lab) -> Result<()> {
    let c = addresses(lab.node(C)?)?;
    let a = lab.node(A)?;
    let ours = kernel_routes(a)?;
    for route in &ours {
        a.kernel(|nl| nl.remove_route(route))?;
    }
    wait_for("all routes to come back", secs(2), || {
        let now = kernel_routes(a)?;
        if ours.iter().all(|r| now.contains(r)) { Ok(()) } else { Err(format!("{now:?}")) }
    })?;
    reach(a, c, 1)
}

fn vanish(lab: &mut Lab) -> Result<()> {
    let c = addresses(lab.node(C)?)?;
    let gone = lab.node(A)?.kernel(|nl| nl.link("eth1"))?.map_or(0, |l| l.index);
    lab.unplug(A, "eth1")?;
    both_ways(lab)?;
    let a = lab.node(A)?;
    for ip in c {
        probe::ping(a, ip, secs(2))?;
    }
    match kernel_routes(a)?.iter().find(|r| r.index == gone) {
        None => Ok(()),
        Some(r) => Err(format!("{r:?} stays")),
    }
}

/// A router that is started after a crash takes its routes over; those to nowhere go once the mesh is known.
fn stale(lab: &mut Lab) -> Result<()> {
    let (b, c) = (addresses(lab.node(B)?)?, addresses(lab.node(C)?)?);
    lab.node(A)?.kill("mesh-router")?;
    lab.node(C)?.stop("mesh-router")?;
    let left = |node: &Node| Ok::<_, String>(kernel_routes(node)?.iter().any(|r| c.contains(&r.prefix)));
    if !left(lab.node(A)?)? {
        return Err("routes go with a crash".into());
    }
    let start = Instant::now();
    start_router(lab, A, &FLAGS)?;
    let a = lab.node(A)?;
    reach(a, b, 1)?;
    wait_for("leftover routes to go", secs(10), || if left(a)? { Err("they stay".into()) } else { Ok(()) })?;
    say(&format!("    they went after {:.1} s", start.elapsed().as_secs_f64()));
    reach(a, b, 1)?;
    start_router(lab, C, &FLAGS)?;
    both_ways(lab)
}

fn leave(lab: &mut Lab) -> Result<()> {
    let c = addresses(lab.node(C)?)?;
    let a = lab.node(A)?;
    a.kill("mesh-router")?;
    probe::ping(a, c[0], secs(2)).map_err(|e| format!("routes go with the crash: {e}"))?;
    start_router(lab, A, &FLAGS)?;
    let a = lab.node(A)?;
    reach(a, c, 2)?;
    a.stop("mesh-router")?;
    match (rules(a)?, kernel_routes(a)?.len()) {
        (0, 0) => Ok(()),
        (rules, routes) => Err(format!("{rules} rules and {routes} routes stay")),
    }
}

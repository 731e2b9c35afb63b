//! Two routers on one cable, told everything on the command line: flags, attached networks, a route set by
//! hand, and a crash with a changed mesh meanwhile.

use std::net::IpAddr;

use mesh_lab::lab::{Lab, Result, wait_for};
use mesh_lab::probe;
use mesh_lab::report::Report;
use mesh_sys::netlink::{Route, RouteFilter, RouteKind, TABLE_MAIN};

use super::common::{PROTOCOL, Step, TABLE, bring_up, kernel_routes, routes, secs, symmetric_links};

const A: usize = 0;
const B: usize = 1;
const ORIGINATORS: [[&str; 2]; 2] = [["fd00:a::1", "10.99.0.1"], ["fd00:b::1", "10.99.0.2"]];

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 4] = [
        ("flags_say_it_all", start),
        ("rfc7181_7_2_attached_networks_are_routed", attached),
        ("foreign_routes_stay", foreign),
        ("a_stale_route_goes_after_a_restart", stale),
    ];
    for (name, step) in steps {
        if report.test(&format!("pair::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

fn start_router(lab: &mut Lab, at: usize) -> Result<()> {
    let [six, four] = *ORIGINATORS.get(at).ok_or("no such node")?;
    let mut flags = vec!["--fast", "--interface", "eth0", "--originator", six, four];
    if at == B {
        flags.extend(["--attach", "192.168.7.0/24", "fd00:b::/64"]);
    }
    lab.node(at)?.start("mesh-router", &flags)
}

fn start(lab: &mut Lab) -> Result<()> {
    for name in ["a", "b"] {
        lab.add_node(name)?;
    }
    // The routers first: the interface comes later, as a dongle does.
    start_router(lab, A)?;
    start_router(lab, B)?;
    lab.plug(A, B)?;
    for at in [A, B] {
        bring_up(lab.node(at)?, "eth0")?;
    }
    for at in [A, B] {
        symmetric_links(lab.node(at)?, 2)?;
    }
    for [six, four] in ORIGINATORS {
        for ip in [six, four] {
            let ip: IpAddr = ip.parse().map_err(|_| "address")?;
            let node = lab.node(A)?;
            wait_for(&format!("echo of {ip}"), secs(10), || probe::ping(node, ip, secs(1)))?;
        }
    }
    Ok(())
}

fn attached(lab: &mut Lab) -> Result<()> {
    let node = lab.node(A)?;
    for (prefix, len) in [("192.168.7.0", 24), ("fd00:b::", 64)] {
        let prefix: IpAddr = prefix.parse().map_err(|_| "prefix")?;
        wait_for(&format!("route to {prefix}/{len}"), secs(15), || {
            let fits = |ip: IpAddr, l: u8| ip == prefix && l == len;
            let all = routes(node)?;
            let kernel = kernel_routes(node)?;
            match all.iter().any(|r| fits(r.destination, r.prefix_len))
                && kernel.iter().any(|r| fits(r.prefix, r.prefix_len) && r.kind == RouteKind::Unicast)
            {
                true => Ok(()),
                false => Err(format!("{all:?}; kernel {kernel:?}")),
            }
        })?;
    }
    Ok(())
}

/// A route out of eth0 that someone else made.
fn by_hand(lab: &mut Lab, prefix: &str, table: u32, protocol: u8) -> Result<Route> {
    let index = lab.node(A)?.kernel(|nl| nl.link("eth0"))?.map_or(0, |l| l.index);
    Ok(Route {
        kind: RouteKind::Unicast,
        prefix: prefix.parse().map_err(|_| "prefix")?,
        prefix_len: if prefix.contains(':') { 128 } else { 32 },
        gateway: None,
        index,
        source: None,
        metric: 77,
        table,
        protocol,
    })
}

fn foreign(lab: &mut Lab) -> Result<()> {
    // One of them to a destination that the router routes, too.
    for prefix in ["10.99.0.2", "fd00:b::1", "fd00:77::1"] {
        let route = by_hand(lab, prefix, TABLE_MAIN, 4)?;
        lab.node(A)?.kernel(|nl| nl.replace_route(&route))?;
    }
    lab.node(A)?.stop("mesh-router")?;
    let all = lab.node(A)?.kernel(|nl| nl.routes(&RouteFilter { table: TABLE_MAIN, protocol: Some(4) }))?;
    let left = kernel_routes(lab.node(A)?)?;
    match (all.len(), left.len()) {
        (3, 0) => Ok(()),
        _ => Err(format!("by hand: {all:?}; the router's: {left:?}")),
    }
}

fn stale(lab: &mut Lab) -> Result<()> {
    // As a run that crashed would have left it.
    let gone = by_hand(lab, "fd00:99::1", TABLE, PROTOCOL)?;
    lab.node(A)?.kernel(|nl| nl.replace_route(&gone))?;
    start_router(lab, A)?;
    let node = lab.node(A)?;
    symmetric_links(node, 2)?;
    wait_for("the stale route to go", secs(10), || {
        let all = kernel_routes(node)?;
        if all.iter().any(|r| r.prefix == gone.prefix) { Err(format!("{all:?}")) } else { Ok(()) }
    })?;
    node.stop("mesh-router")
}

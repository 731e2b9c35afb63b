//! What several tests ask of a node.

use std::net::IpAddr;
use std::time::Duration;

use mesh_ipc::router::{LinkState, Neighbor, Route, RouterRequest, RouterResponse};
use mesh_lab::lab::{Lab, Node, ROUTE_TABLES, Result, wait_for};
use mesh_sys::netlink::{self, RouteFilter};

/// mesh-router's number among the kernel's route makers, and its routing table.
pub(super) const PROTOCOL: u8 = 107;
pub(super) const TABLE: u32 = ROUTE_TABLES[0];

/// A part of a test.
pub(super) type Step = fn(&mut Lab) -> Result<()>;

pub(super) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Starts mesh-router with the timers that the test wants.
pub(super) fn start_router(lab: &mut Lab, at: usize, flags: &[&str]) -> Result<()> {
    let fast: &[&str] = if lab.is_steady() { &[] } else { &["--fast"] };
    lab.node(at)?.start("mesh-router", &[fast, flags].concat())
}

/// The name of a test's step in the report.
pub(super) fn step_name(lab: &Lab, test: &str, step: &str) -> String {
    format!("{test}{}::{step}", if lab.is_steady() { "_steady" } else { "" })
}

/// The node's addresses, IPv6 and IPv4.
pub(super) fn addresses(node: &Node) -> Result<[IpAddr; 2]> {
    let id = node.id()?;
    Ok([id.ula_address().into(), id.mesh_ipv4(0).into()])
}

pub(super) fn neighbors(node: &Node) -> Result<Vec<Neighbor>> {
    match node.ask_router(RouterRequest::Neighbors)? {
        RouterResponse::Neighbors(n) => Ok(n),
        other => Err(format!("another answer: {other:?}")),
    }
}

pub(super) fn routes(node: &Node) -> Result<Vec<Route>> {
    match node.ask_router(RouterRequest::Routes)? {
        RouterResponse::Routes(r) => Ok(r),
        other => Err(format!("another answer: {other:?}")),
    }
}

/// mesh-router's routes in the kernel.
pub(super) fn kernel_routes(node: &Node) -> Result<Vec<netlink::Route>> {
    node.kernel(|nl| nl.routes(&RouteFilter { table: TABLE, protocol: Some(PROTOCOL) }))
}

/// Waits until the node has that many symmetric links, over both families.
pub(super) fn symmetric_links(node: &Node, links: usize) -> Result<()> {
    wait_for(&format!("{links} symmetric links of {}", node.name()), secs(30), || {
        let all = neighbors(node)?;
        let good = all.iter().filter(|n| n.state == LinkState::Symmetric && n.originator.is_some());
        if good.count() == links { Ok(()) } else { Err(format!("{all:?}")) }
    })
}

/// Sets an interface up, as mesh-radio would.
pub(super) fn bring_up(node: &Node, name: &str) -> Result<()> {
    node.kernel(|nl| {
        let index = nl.link(name)?.map_or(0, |l| l.index);
        nl.set_up(index, true)
    })
}

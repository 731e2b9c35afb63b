//! Two gateways in a ring of five: n1 and n3 have uplinks to one "Internet", which knows no way back into
//! the mesh, so that only translated addresses get answers.

use std::net::IpAddr;
use std::time::Instant;

use mesh_lab::lab::{Lab, Node, Result, wait_for};
use mesh_lab::probe;
use mesh_lab::report::{Report, say};
use mesh_sys::netlink::{Route, RouteKind, Rtnetlink, TABLE_MAIN};
use mesh_sys::udp::Family;

use super::common::{PROTOCOL, Step, bring_up, kernel_routes, routes, secs, start_router, step_name};

const NODES: usize = 5;
const NET: usize = NODES;
const FLAGS: [&str; 3] = ["--interface", "eth0", "eth1"];
/// What a user notices of a gateway that comes or goes is over by then, in seconds.
const SOON: u64 = 5;
/// Somewhere in the Internet.
pub(super) const FAR: [&str; 2] = ["2001:db8::1", "192.0.2.1"];

/// A gateway: its node, its interface towards the Internet, and there the network's number.
#[derive(Clone, Copy)]
pub(super) struct Uplink {
    pub(super) node: usize,
    pub(super) interface: &'static str,
    /// On the Internet's side.
    pub(super) there: &'static str,
    /// Addresses, here and there.
    pub(super) six: [&'static str; 2],
    pub(super) four: [&'static str; 2],
    pub(super) networks: [&'static str; 2],
}

pub(super) const G1: Uplink = Uplink {
    node: 1,
    interface: "eth2",
    there: "eth0",
    six: ["2001:db8:1::2", "2001:db8:1::1"],
    four: ["198.51.100.2", "198.51.100.1"],
    networks: ["2001:db8:1::", "198.51.100.0"],
};
pub(super) const G3: Uplink = Uplink {
    node: 3,
    interface: "eth2",
    there: "eth1",
    six: ["2001:db8:3::2", "2001:db8:3::1"],
    four: ["203.0.113.2", "203.0.113.1"],
    networks: ["2001:db8:3::", "203.0.113.0"],
};
/// Of n2, not shared.
const G2: Uplink = Uplink {
    node: 2,
    interface: "eth2",
    there: "eth2",
    six: ["2001:db8:2::2", "2001:db8:2::1"],
    four: ["198.18.0.2", "198.18.0.1"],
    networks: ["2001:db8:2::", "198.18.0.0"],
};

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 6] = [
        ("the_nearest_gateway_is_used_and_translates", start),
        ("a_lost_uplink_is_left_at_once", lost),
        ("a_gateway_that_comes_back_takes_only_what_is_clearly_nearer", back),
        ("a_private_uplink_stays_private", private),
        ("a_dead_gateway_is_left", dead),
        ("nothing_stays", leave),
    ];
    for (name, step) in steps {
        if report.test(&step_name(lab, "gateways", name), || step(lab)).is_none() {
            return;
        }
    }
}

pub(super) fn ip(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| format!("{text} is no address"))
}

pub(super) fn index(nl: &mut Rtnetlink, name: &str) -> std::result::Result<u32, mesh_sys::netlink::Error> {
    Ok(nl.link(name)?.map_or(0, |l| l.index))
}

/// The default routes that DHCP and router advertisements would make.
fn defaults(uplink: Uplink, interface: u32) -> Result<[Route; 2]> {
    let route = |any: &str, via: &str| -> Result<Route> {
        Ok(Route {
            kind: RouteKind::Unicast,
            prefix: ip(any)?,
            prefix_len: 0,
            gateway: Some(ip(via)?),
            index: interface,
            source: None,
            metric: 100,
            table: TABLE_MAIN,
            protocol: 16,
        })
    };
    Ok([route("::", uplink.six[1])?, route("0.0.0.0", uplink.four[1])?])
}

/// Plugs the cable and gives both ends their addresses.
pub(super) fn connect(lab: &mut Lab, uplink: Uplink, net: usize) -> Result<()> {
    lab.plug(uplink.node, net)?;
    let ends = [(uplink.node, uplink.interface), (net, uplink.there)];
    for (((at, name), six), four) in ends.into_iter().zip(uplink.six).zip(uplink.four) {
        bring_up(lab.node(at)?, name)?;
        let both = [(six, uplink.networks[0], 64), (four, uplink.networks[1], 24)];
        for (address, network, len) in both {
            let (address, network) = (ip(address)?, ip(network)?);
            lab.node(at)?.kernel(|nl| {
                let index = index(nl, name)?;
                nl.add_address(index, address, len)?;
                // The link's own route is not made with the address.
                nl.replace_route(&Route {
                    kind: RouteKind::Unicast,
                    prefix: network,
                    prefix_len: len,
                    gateway: None,
                    index,
                    source: None,
                    metric: 256,
                    table: TABLE_MAIN,
                    protocol: 2,
                })
            })?;
        }
    }
    Ok(())
}

pub(super) fn set_defaults(lab: &mut Lab, uplink: Uplink, there: bool) -> Result<()> {
    let node = lab.node(uplink.node)?;
    let interface = node.kernel(|nl| index(nl, uplink.interface))?;
    for route in defaults(uplink, interface)? {
        node.kernel(|nl| if there { nl.replace_route(&route) } else { nl.remove_route(&route) })?;
    }
    Ok(())
}

/// The gateways whose default routes `node` uses, IPv6 and IPv4; and the kernel has them, too.
pub(super) fn gateways(node: &Node) -> Result<[Option<IpAddr>; 2]> {
    let (all, kernel) = (routes(node)?, kernel_routes(node)?);
    Ok([true, false].map(|six| {
        let found = all.iter().find(|r| r.prefix_len == 0 && r.destination.is_ipv6() == six)?;
        kernel.iter().any(|k| k.prefix_len == 0 && k.prefix.is_ipv6() == six).then_some(found.originator)
    }))
}

pub(super) fn uses(lab: &mut Lab, from: usize, gateway: usize, patience: u64) -> Result<()> {
    let id = lab.node(gateway)?.id()?;
    let want = [Some(id.ula_address().into()), Some(id.mesh_ipv4(0).into())];
    let node = lab.node(from)?;
    wait_for(&format!("n{from} to use the gateway n{gateway}"), secs(patience), || {
        let found = gateways(node)?;
        if found == want { Ok(()) } else { Err(format!("{found:?} instead of {want:?}")) }
    })
}

pub(super) fn online(lab: &mut Lab, from: usize) -> Result<()> {
    for far in FAR {
        let (node, far) = (lab.node(from)?, ip(far)?);
        wait_for(&format!("n{from} to reach {far}"), secs(3), || probe::ping(node, far, secs(1)))?;
    }
    Ok(())
}

/// Gives the Internet its addresses.
pub(super) fn far_away(net: &Node) -> Result<()> {
    net.kernel(|nl| {
        let lo = index(nl, "lo")?;
        nl.add_address(lo, [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1u16].into(), 128)?;
        nl.add_address(lo, [192, 0, 2, 1].into(), 32)
    })
}

/// So many seconds a gateway has to be clearly better until it is taken: two TC intervals, 10 s at the most.
fn dwell(lab: &Lab) -> u64 {
    if lab.is_steady() { 10 } else { 2 }
}

fn start(lab: &mut Lab) -> Result<()> {
    for at in 0..NODES {
        lab.add_node(&format!("n{at}"))?;
    }
    lab.add_node("net")?;
    for at in 0..NODES {
        lab.plug(at, (at + 1) % NODES)?;
    }
    for uplink in [G1, G3, G2] {
        connect(lab, uplink, NET)?;
    }
    far_away(lab.node(NET)?)?;
    set_defaults(lab, G1, true)?;
    let private = lab.node(G2.node)?.file("p2pmesh.toml");
    std::fs::write(&private, "[gateway]\nshare = false\n").map_err(|e| e.to_string())?;
    for at in 0..NODES {
        for name in ["eth0", "eth1"] {
            bring_up(lab.node(at)?, name)?;
        }
        start_router(lab, at, &FLAGS)?;
    }
    // One uplink was there before the routers, one comes while they run.
    uses(lab, 4, 1, 20)?;
    set_defaults(lab, G3, true)?;
    let came = Instant::now();
    // For n4 the new one is clearly nearer; it has to be so for a while.
    for (from, gateway) in [(0, 1), (4, 3)] {
        uses(lab, from, gateway, dwell(lab) + SOON)?;
        say(&format!(
            "    n{from} uses n{gateway} {:.2} s after n3 has an uplink",
            came.elapsed().as_secs_f64()
        ));
        online(lab, from)?;
    }
    for gateway in [G1, G3] {
        let found = gateways(lab.node(gateway.node)?)?;
        if found != [None, None] {
            return Err(format!("n{} has an uplink and uses the mesh's: {found:?}", gateway.node));
        }
        online(lab, gateway.node)?;
    }
    Ok(())
}

fn lost(lab: &mut Lab) -> Result<()> {
    let start = Instant::now();
    set_defaults(lab, G1, false)?;
    for from in [1, 0, 2] {
        uses(lab, from, 3, SOON)?;
        say(&format!("    n{from} uses n3 after {:.2} s", start.elapsed().as_secs_f64()));
    }
    online(lab, 0)?;
    online(lab, 1)
}

fn back(lab: &mut Lab) -> Result<()> {
    let start = Instant::now();
    set_defaults(lab, G1, true)?;
    // For n0 it is one hop instead of two; for n2, with one hop either way, there is no reason to change.
    uses(lab, 0, 1, dwell(lab) + SOON)?;
    say(&format!("    n0 is back at n1 after {:.2} s", start.elapsed().as_secs_f64()));
    online(lab, 0)?;
    uses(lab, 2, 3, 0)
}

/// Asks the kernel of a node with a private uplink where it would send a packet of the mesh.
fn stays_in_the_mesh(node: &Node, source: IpAddr, to: IpAddr) -> Result<()> {
    let (source, to) = (source.to_string(), to.to_string());
    let mut command = std::process::Command::new("ip");
    command.args(["route", "get", &to, "from", &source, "iif", "eth0"]);
    match node.inside(move || command.output())? {
        Err(e) => say(&format!("SKIPPED: where packets from the mesh go: ip does not start: {e}")),
        Ok(out) => {
            let said = String::from_utf8_lossy(&out.stdout).into_owned();
            if !out.status.success() || said.contains(G2.interface) || !said.contains(" dev eth") {
                return Err(format!("a packet from the mesh would go: {said} {:?}", out.stderr));
            }
        }
    }
    Ok(())
}

fn private(lab: &mut Lab) -> Result<()> {
    set_defaults(lab, G2, true)?;
    let node = lab.node(G2.node)?;
    // Four as everywhere, three for each mesh interface; both families.
    let rules =
        node.kernel(|nl| Ok(nl.rules(Family::V4, PROTOCOL)?.len() + nl.rules(Family::V6, PROTOCOL)?.len()))?;
    if rules != 2 * (4 + 3 * 2) {
        return Err(format!("{rules} rules"));
    }
    for (source, far) in
        [(lab.node(1)?.id()?.ula_address().into(), FAR[0]), (lab.node(1)?.id()?.mesh_ipv4(0).into(), FAR[1])]
    {
        stays_in_the_mesh(lab.node(G2.node)?, source, ip(far)?)?;
    }
    // Its own packets leave by its own uplink …
    online(lab, G2.node)?;
    // … and nobody else's do.
    for other in [0, 4] {
        let id = lab.node(G2.node)?.id()?.ula_address();
        let found = gateways(lab.node(other)?)?;
        if found[0] == Some(id.into()) {
            return Err(format!("n{other} uses a private uplink"));
        }
        online(lab, other)?;
    }
    Ok(())
}

fn dead(lab: &mut Lab) -> Result<()> {
    uses(lab, 4, 3, SOON)?;
    let start = Instant::now();
    lab.node(G3.node)?.kill("mesh-router")?;
    for name in ["eth0", "eth1"] {
        lab.unplug(G3.node, name)?;
    }
    uses(lab, 4, 1, SOON)?;
    say(&format!("    n4 uses n1 after {:.2} s", start.elapsed().as_secs_f64()));
    online(lab, 4)
}

fn leave(lab: &mut Lab) -> Result<()> {
    for at in [0, 1, 2, 4] {
        lab.node(at)?.stop("mesh-router")?;
    }
    let gateway = lab.node(G1.node)?;
    let left = gateway.inside(|| std::process::Command::new("nft").args(["list", "tables"]).output())?;
    match left {
        Ok(out) if out.stdout.is_empty() => Ok(()),
        Ok(out) => Err(format!("address translation stays: {}", String::from_utf8_lossy(&out.stdout))),
        Err(e) => {
            say(&format!("SKIPPED: that the address translation goes: nft does not start: {e}"));
            Ok(())
        }
    }
}

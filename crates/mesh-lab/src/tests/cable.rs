//! What is on a cable decides what a wired port is for, nobody configures anything: two nodes mesh, a home router
//! (dnsmasq, or one that only advertises itself) makes a gateway, an address set by hand leaves the port to people.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mesh_ipc::radio::{Interface, RadioRequest, RadioResponse, Role};
use mesh_ipc::{Request, Response};
use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::report::{Report, say};
use mesh_lab::{mdns, probe};
use mesh_sys::control::Client;
use mesh_sys::netlink::{RouteFilter, TABLE_MAIN};
use mesh_sys::packet::PacketSocket;
use mesh_sys::udp::{self, Family, MulticastConfig, MulticastSocket};
use mesh_types::Instant as CoreInstant;
use radio_core::dhcp::{Arp, Config, Input, Network, SERVER_PORT, Server};

use super::common::{Step, bring_up, secs, symmetric_links};
use super::gateways::{FAR, far_away, gateways, index, ip};

const A: usize = 0;
const B: usize = 1;
/// A home router with dnsmasq.
const HOME: usize = 2;
/// One that advertises itself, and has no DHCP.
const SIX: usize = 3;
/// One whose DHCP server falls silent.
const SILENT: usize = 4;
const HOME_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);
const SILENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 1);
/// Of the server that falls silent.
const LEASE: u64 = 10;

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 11] = [
        ("two_nodes_joined_by_a_cable_mesh", mesh),
        ("a_home_router_plugged_in_later_makes_a_gateway", uplink),
        ("no_hello_is_sent_to_the_home_network", quiet),
        ("a_pulled_cable_takes_all_back_and_the_same_address_comes_again", pulled),
        ("a_router_advertisement_alone_makes_a_gateway", router),
        ("a_silent_server_takes_the_uplink_back_when_the_lease_ends", silent),
        ("an_address_set_by_hand_leaves_the_port_alone_and_the_name_answers", by_hand),
        ("a_crash_leaves_the_address_and_the_next_run_has_it_again", crash),
        ("ethernet_role_uplink_never_meshes", fixed),
        ("sigterm_gives_the_address_back", ends),
        ("an_address_that_another_host_has_is_declined", declined),
    ];
    if lab.dnsmasq().is_none() {
        return say("SKIPPED: wired ports on a home network: dnsmasq could not be fetched");
    }
    for (name, step) in steps {
        if report.test(&format!("cable::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

fn ask(node: &Node, request: Request<RadioRequest>) -> Result<Response<RadioResponse>> {
    let mut client: Client<RadioRequest, RadioResponse> =
        Client::connect(&node.run_dir(), "mesh-radio", secs(5)).map_err(told("mesh-radio"))?;
    client.request(&request).map_err(told("mesh-radio"))
}

pub(super) fn interface(node: &Node, name: &str) -> Result<Interface> {
    let Response::Service(RadioResponse::Plan(plan)) = ask(node, Request::Service(RadioRequest::Plan))?
    else {
        return Err("another answer".into());
    };
    let found = plan.interfaces.into_iter().find(|i| i.name == name);
    found.ok_or_else(|| format!("{name} is not in the plan of {}", node.name()))
}

/// Waits for the role, and for a reason that says so; how long it took.
pub(super) fn becomes(node: &Node, name: &str, role: Role, why: &str, patience: u64) -> Result<Duration> {
    let start = Instant::now();
    wait_for(&format!("{}'s {name} to be {role:?} ({why})", node.name()), secs(patience), || {
        let found = interface(node, name)?;
        let fits = found.role == role && found.reason.contains(why);
        if fits { Ok(start.elapsed()) } else { Err(format!("{found:?}")) }
    })
}

/// The node's IPv4 addresses on an interface, with whether each has no end.
fn addresses(node: &Node, name: &str) -> Result<Vec<(IpAddr, bool)>> {
    node.kernel(|nl| {
        let index = index(nl, name)?;
        let here = nl.addresses()?.into_iter().filter(|a| a.index == index && a.ip.is_ipv4());
        Ok(here.map(|a| (a.ip, a.permanent)).collect())
    })
}

/// The default routes through an interface.
fn defaults(node: &Node, name: &str) -> Result<usize> {
    node.kernel(|nl| {
        let index = index(nl, name)?;
        let routes = nl.routes(&RouteFilter { table: TABLE_MAIN, protocol: None })?;
        Ok(routes.iter().filter(|r| r.index == index && r.prefix_len == 0).count())
    })
}

fn servers(node: &Node) -> String {
    let text = std::fs::read_to_string(node.run_dir().join("resolv.conf")).unwrap_or_default();
    text.lines().filter(|l| l.starts_with("nameserver")).collect::<Vec<_>>().join(",")
}

/// Nothing of an uplink is left on that interface.
fn nothing_left(node: &Node, name: &str) -> Result<()> {
    wait_for(&format!("{}'s {name} to be handed back", node.name()), secs(3), || {
        let left = (addresses(node, name)?, defaults(node, name)?, servers(node));
        if left == (Vec::new(), 0, String::new()) { Ok(()) } else { Err(format!("{left:?}")) }
    })
}

/// Starts dnsmasq on a node's eth0, with these flags.
pub(super) fn dnsmasq(node: &mut Node, program: &Path, flags: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--group=root"]);
    command.args(["--pid-file", "--no-resolv", "--no-hosts", "--no-ping", "--log-facility=-", "--log-dhcp"]);
    command.args(["--interface=eth0", "--bind-interfaces", "--dhcp-authoritative"]);
    command.arg(format!("--dhcp-leasefile={}", node.file("leases").display())).args(flags);
    node.spawn("dnsmasq", command)
}

const HOME_FLAGS: [&str; 2] = ["--dhcp-range=192.168.7.100,192.168.7.120,255.255.255.0,2m", "--port=0"];

/// RFC 3442: the default route, and another one through another router, which need not be there.
const OTHER_WAY: &str = "--dhcp-option=121,0.0.0.0/0,192.168.7.1,10.99.0.0/16,192.168.7.2";

pub(super) fn home(lab: &mut Lab, at: usize) -> Result<()> {
    let program = lab.dnsmasq().ok_or("no dnsmasq")?.to_path_buf();
    lab.node(at)?.join("eth0", HOME_ADDRESS)?;
    far_away(lab.at(at)?)?;
    dnsmasq(
        lab.node(at)?,
        &program,
        &[&HOME_FLAGS[..], &["--dhcp-option=option:dns-server,192.168.7.1", OTHER_WAY]].concat(),
    )
}

fn mesh(lab: &mut Lab) -> Result<()> {
    for name in ["a", "b", "home", "six", "silent"] {
        lab.add_node(name)?;
    }
    for (at, name) in [(A, "a"), (B, "b")] {
        let node = lab.node(at)?;
        std::fs::write(node.file("p2pmesh.toml"), format!("hostname = \"{name}\"\n"))
            .map_err(told("toml"))?;
        node.start("mesh-radio", &[])?;
        node.start("mesh-router", &["--fast"])?;
    }
    lab.plug(A, B)?;
    for at in [A, B] {
        let took = becomes(lab.at(at)?, "eth0", Role::Mesh, "a HELLO of another node", 20)?;
        say(&format!("    {}: HELLO heard after {:.2} s", lab.at(at)?.name(), took.as_secs_f64()));
        symmetric_links(lab.at(at)?, 2)?;
    }
    Ok(())
}

fn uplink(lab: &mut Lab) -> Result<()> {
    let plugged = lab.plug(A, HOME)?;
    home(lab, HOME)?;
    let (a, b) = (lab.at(A)?, lab.at(B)?);
    let took = becomes(a, &plugged, Role::Uplink, "the DHCP server 192.168.7.1 gave 192.168.7.1", 20)?;
    say(&format!("    uplink after {:.2} s", took.as_secs_f64()));
    let (found, routes, list) = (addresses(a, &plugged)?, defaults(a, &plugged)?, servers(a));
    match found.as_slice() {
        [(IpAddr::V4(ip), false)] if ip.octets().starts_with(&[192, 168, 7]) && routes == 1 => {}
        _ => return Err(format!("{found:?}, {routes} default routes")),
    }
    let other = a.kernel(|nl| {
        let index = index(nl, &plugged)?;
        let routes = nl.routes(&RouteFilter { table: TABLE_MAIN, protocol: None })?;
        Ok(routes.into_iter().find(|r| r.index == index && r.prefix == IpAddr::from([10, 99, 0, 0])))
    })?;
    if other.as_ref().and_then(|r| r.gateway) != Some([192, 168, 7, 2].into()) {
        return Err(format!("{other:?} is not what the server says of 10.99.0.0/16"));
    }
    if list != "nameserver 192.168.7.1" {
        return Err(list);
    }
    let leases = std::fs::read_to_string(lab.at(HOME)?.file("leases")).map_err(told("leases"))?;
    if !leases.contains(" a ") {
        return Err(format!("the home router does not know the node's name: {leases:?}"));
    }
    // Shared with the mesh, without a word of configuration.
    let far = ip(FAR[1])?;
    let start = Instant::now();
    wait_for("b to reach the world through a", secs(20), || probe::ping(b, far, secs(1)))?;
    say(&format!("    b reaches the world {:.2} s later", start.elapsed().as_secs_f64()));
    becomes(a, "eth0", Role::Mesh, "a HELLO", 1).map(drop)
}

/// The routers' port on a node's eth0.
fn listen(node: &Node) -> Result<MulticastSocket> {
    let socket = node.inside(|| {
        let index = mesh_sys::netlink::Rtnetlink::new().and_then(|mut nl| index(&mut nl, "eth0"));
        MulticastSocket::open(&MulticastConfig {
            family: Family::V6,
            interface: "eth0",
            index: index.map_err(std::io::Error::other)?,
            port: 269,
            groups: &["ff02::6d".parse().map_err(std::io::Error::other)?],
            hop_limit: 1,
            loopback: false,
            traffic_class: 0,
        })
    })?;
    socket.map_err(told("listening"))
}

fn quiet(lab: &mut Lab) -> Result<()> {
    let (home, b) = (listen(lab.at(HOME)?)?, listen(lab.at(B)?)?);
    let mut buffer = [0; 1500];
    let mut heard = 0;
    // As long as the mesh's own side needs for some.
    wait_for("HELLOs on the mesh", secs(20), || {
        while b.recv(&mut buffer).map_err(told("recv"))?.is_some() {
            heard += 1;
        }
        if heard >= 4 { Ok(()) } else { Err(format!("{heard}")) }
    })?;
    match home.recv(&mut buffer).map_err(told("recv"))? {
        None => Ok(()),
        Some(got) => Err(format!("{got:?} on the home network")),
    }
}

fn set_up(node: &Node, up: bool) -> Result<()> {
    node.kernel(|nl| {
        let index = index(nl, "eth0")?;
        nl.set_up(index, up)
    })
}

fn pulled(lab: &mut Lab) -> Result<()> {
    let before = addresses(lab.at(A)?, "eth1")?;
    let start = Instant::now();
    set_up(lab.at(HOME)?, false)?;
    let (a, b) = (lab.at(A)?, lab.at(B)?);
    becomes(a, "eth1", Role::Mesh, "nothing heard", 5)?;
    nothing_left(a, "eth1")?;
    wait_for("b to have no gateway", secs(10), || match gateways(b)? {
        [None, None] => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    say(&format!("    handed back after {:.2} s", start.elapsed().as_secs_f64()));
    lab.node(HOME)?.join("eth0", HOME_ADDRESS)?;
    let a = lab.at(A)?;
    let took = becomes(a, "eth1", Role::Uplink, "DHCP", 20)?;
    say(&format!("    uplink again after {:.2} s", took.as_secs_f64()));
    let after = addresses(a, "eth1")?;
    if before == after { Ok(()) } else { Err(format!("{before:?}, then {after:?}")) }
}

fn router(lab: &mut Lab) -> Result<()> {
    let plugged = lab.plug(A, SIX)?;
    let program = lab.dnsmasq().ok_or("no dnsmasq")?.to_path_buf();
    let six = lab.node(SIX)?;
    bring_up(six, "eth0")?;
    six.kernel(|nl| {
        let (eth0, lo) = (index(nl, "eth0")?, index(nl, "lo")?);
        let ip = |last: u16| IpAddr::from([0x2001, 0xdb8, 7, 0, 0, 0, 0, last]);
        nl.add_address(eth0, ip(1), 64)?;
        nl.add_address(lo, [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1u16].into(), 128)?;
        nl.replace_route(&mesh_sys::netlink::Route {
            kind: mesh_sys::netlink::RouteKind::Unicast,
            prefix: ip(0),
            prefix_len: 64,
            gateway: None,
            index: eth0,
            source: None,
            metric: 256,
            table: TABLE_MAIN,
            protocol: 2,
        })
    })?;
    let flags = [
        "--enable-ra",
        "--dhcp-range=2001:db8:7::,ra-only",
        "--port=0",
        "--dhcp-option=option6:dns-server,[2001:db8:7::1]",
    ];
    dnsmasq(six, &program, &flags)?;
    let (a, b) = (lab.at(A)?, lab.at(B)?);
    let took = becomes(a, &plugged, Role::Uplink, "a router advertises itself", 20)?;
    say(&format!("    uplink after {:.2} s", took.as_secs_f64()));
    let start = Instant::now();
    let far = ip(FAR[0])?;
    wait_for("b to reach the world over IPv6", secs(20), || probe::ping(b, far, secs(1)))?;
    say(&format!("    b reaches the world over IPv6 {:.2} s later", start.elapsed().as_secs_f64()));
    wait_for("its name server", secs(5), || match servers(a) {
        list if list == "nameserver 192.168.7.1,nameserver 2001:db8:7::1" => Ok(()),
        other => Err(other),
    })?;
    // Gone, and all that came of it.
    set_up(lab.at(SIX)?, false)?;
    becomes(a, &plugged, Role::Mesh, "nothing heard", 5)?;
    wait_for("what the router said to be forgotten", secs(3), || {
        let (routes, list) = (defaults(a, &plugged)?, servers(a));
        if routes == 0 && list == "nameserver 192.168.7.1" {
            Ok(())
        } else {
            Err(format!("{routes}, {list}"))
        }
    })
}

/// A DHCP server of the product's own core, that can be told to be silent.
fn serve(node: &Node, silent: Arc<AtomicBool>, end: Arc<AtomicBool>) -> Result<()> {
    let socket: UdpSocket =
        node.inside(|| udp::bind_broadcast("eth0", SERVER_PORT))?.map_err(told("DHCP server"))?;
    std::thread::spawn(move || {
        let [a, b, c, _] = SILENT_ADDRESS.octets();
        let pool = (Ipv4Addr::new(a, b, c, 10), Ipv4Addr::new(a, b, c, 20));
        let network = Network { server: SILENT_ADDRESS, prefix_len: 24, domain: "lan" };
        let lease = mesh_types::Duration::from_secs(LEASE);
        let mut server = Server::new(Config { network, pool, lease, salt: 1 });
        let mut buffer = [0; 1500];
        while !end.load(Ordering::Relaxed) {
            let Ok((len, _)) = socket.recv_from(&mut buffer) else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            if silent.load(Ordering::Relaxed) {
                continue;
            }
            let message = buffer.get(..len).unwrap_or_default();
            let _ = server.handle_input(CoreInstant::ZERO, Input::Datagram(message));
            while let Some(reply) = server.poll_output() {
                let _ = socket.send_to(&reply.payload, SocketAddr::from(reply.to));
            }
        }
    });
    Ok(())
}

fn silent(lab: &mut Lab) -> Result<()> {
    let plugged = lab.plug(A, SILENT)?;
    lab.node(SILENT)?.join("eth0", SILENT_ADDRESS)?;
    let (silent, end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    serve(lab.at(SILENT)?, silent.clone(), end.clone())?;
    let a = lab.at(A)?;
    becomes(a, &plugged, Role::Uplink, "192.168.9.1", 20)?;
    silent.store(true, Ordering::Relaxed);
    let took = becomes(a, &plugged, Role::Mesh, "nothing heard", LEASE + 5);
    end.store(true, Ordering::Relaxed);
    say(&format!(
        "    handed back {:.2} s after the last answer, of a lease of {LEASE} s",
        took?.as_secs_f64()
    ));
    match (addresses(a, &plugged)?, defaults(a, &plugged)?) {
        (left, 0) if left.is_empty() => Ok(()),
        other => Err(format!("{other:?} left")),
    }
}

fn by_hand(lab: &mut Lab) -> Result<()> {
    for (at, last) in [(A, 1), (B, 2)] {
        let node = lab.node(at)?;
        let name = node.name().to_owned();
        node.start("mesh-mdns", &["--name", &name])?;
        node.join("eth0", Ipv4Addr::new(192, 168, 0, last))?;
        becomes(node, "eth0", Role::ByHand, "by hand: it is left alone", 5)?;
    }
    let b = lab.at(B)?;
    wait_for("the neighbour to be left", secs(10), || match super::common::neighbors(b)?.as_slice() {
        [] => Ok(()),
        some if some.iter().all(|n| n.state == mesh_ipc::router::LinkState::Lost) => Ok(()),
        some => Err(format!("{some:?}")),
    })?;
    let one = Ipv4Addr::new(192, 168, 0, 1);
    wait_for("a.local on the link", secs(15), || {
        mdns::ask(b, Ipv4Addr::new(192, 168, 0, 2), ("a", one.into()), one, 1)
    })?;
    probe::ping(b, one.into(), secs(2))?;
    for at in [A, B] {
        let node = lab.node(at)?;
        node.stop("mesh-mdns")?;
        let last = if at == A { 1 } else { 2 };
        node.kernel(|nl| {
            let index = index(nl, "eth0")?;
            nl.remove_address(index, Ipv4Addr::new(192, 168, 0, last).into(), 24)
        })?;
    }
    symmetric_links(lab.at(B)?, 2)
}

fn crash(lab: &mut Lab) -> Result<()> {
    let before = addresses(lab.at(A)?, "eth1")?;
    let node = lab.node(A)?;
    node.kill("mesh-radio")?;
    if addresses(node, "eth1")? != before {
        return Err("the address has gone".into());
    }
    node.start("mesh-radio", &[])?;
    becomes(node, "eth1", Role::Uplink, "DHCP", 20)?;
    let after = addresses(node, "eth1")?;
    if before == after { Ok(()) } else { Err(format!("{before:?}, then {after:?}")) }
}

fn fixed(lab: &mut Lab) -> Result<()> {
    let node = lab.node(B)?;
    let path = node.file("p2pmesh.toml");
    let text = std::fs::read_to_string(&path).map_err(told("toml"))?;
    std::fs::write(&path, format!("{text}ethernet.role = \"uplink\"\n")).map_err(told("toml"))?;
    node.stop("mesh-radio")?;
    node.start("mesh-radio", &[])?;
    becomes(node, "eth0", Role::Uplink, "nothing heard", 10)?;
    wait_for("no neighbour", secs(10), || match super::common::neighbors(node)?.as_slice() {
        some if some.iter().all(|n| n.state == mesh_ipc::router::LinkState::Lost) => Ok(()),
        some => Err(format!("{some:?}")),
    })
}

fn ends(lab: &mut Lab) -> Result<()> {
    let leases = lab.at(HOME)?.file("leases");
    lab.node(A)?.stop("mesh-radio")?;
    nothing_left(lab.at(A)?, "eth1")?;
    wait_for("the server to have the address again", secs(5), || {
        let left = std::fs::read_to_string(&leases).map_err(told("leases"))?;
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    })
}

/// Another host on a node's eth0, which defends an address until `end`.
fn defend(node: &Node, address: Ipv4Addr, end: Arc<AtomicBool>) -> Result<()> {
    let eth0 = node.kernel(|nl| index(nl, "eth0"))?;
    let socket = node.inside(|| PacketSocket::open_arp(eth0))?.map_err(told("ARP"))?;
    std::thread::spawn(move || {
        let own = [2, 0, 0, 0, 0, 0x99];
        let mut buffer = [0; 64];
        while !end.load(Ordering::Relaxed) {
            let Ok(Some(len)) = socket.recv(&mut buffer) else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            let asked = Arp::parse(buffer.get(..len).unwrap_or_default());
            if let Some(asked) = asked.filter(|a| a.conflicts(own, address)) {
                let _ = socket.send_to_all(&Arp { mac: own, address, target: asked.address }.write());
            }
        }
    });
    Ok(())
}

/// Somebody has the very address that the home router gives.
fn declined(lab: &mut Lab) -> Result<()> {
    let uplink = |node: &Node| -> Result<Ipv4Addr> {
        becomes(node, "eth1", Role::Uplink, "DHCP", 30)?;
        match addresses(node, "eth1")?.as_slice() {
            [(IpAddr::V4(ip), false)] => Ok(*ip),
            other => Err(format!("{other:?}")),
        }
    };
    lab.node(A)?.start("mesh-radio", &[])?;
    let taken = uplink(lab.at(A)?)?;
    lab.node(A)?.stop("mesh-radio")?;
    nothing_left(lab.at(A)?, "eth1")?;
    let end = Arc::new(AtomicBool::new(false));
    defend(lab.at(HOME)?, taken, end.clone())?;
    let start = Instant::now();
    lab.node(A)?.start("mesh-radio", &[])?;
    let other = uplink(lab.at(A)?);
    end.store(true, Ordering::Relaxed);
    let other = other?;
    say(&format!("    {taken} is taken: {other} after {:.1} s", start.elapsed().as_secs_f64()));
    let Response::Status(status) = ask(lab.at(A)?, Request::Status)? else {
        return Err("another answer".into());
    };
    let declined = status.counters.iter().find(|(name, _)| name == "uplink_dhcp_declined").map(|(_, n)| *n);
    if other != taken && declined == Some(1) {
        Ok(())
    } else {
        Err(format!("{other}, {declined:?} declined"))
    }
}

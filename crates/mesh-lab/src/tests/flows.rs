//! Connections keep their gateway: c – d – e – a – b – g1 – g2, until a cable from a to g2 makes g2 nearer for
//! a, from where packets of c would leave there. For c, 4 hops instead of 5 are no reason to change.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::probe;
use mesh_lab::report::{Report, say};
use mesh_sys::netlink::{Route, RouteFilter, RouteKind, TABLE_MAIN, tunnels_possible};
use socket2::{Domain, Protocol, Socket, Type};

use super::common::{PROTOCOL, Step, bring_up, secs};
use super::gateways::{self, FAR, Uplink, connect, far_away, index, ip, online, set_defaults, uses};

const C: usize = 0;
const A: usize = 3;
const G1: Uplink = Uplink { node: 5, interface: "eth2", ..gateways::G1 };
const G2: Uplink = Uplink { node: 6, interface: "eth1", ..gateways::G3 };
const NET: usize = 7;
/// A client of c.
const PHONE: usize = 8;
const NAMES: [&str; 9] = ["c", "d", "e", "a", "b", "g1", "g2", "net", "phone"];

/// mesh-router's tables of tunnels: into them, and out of them.
const OWN: u32 = 108;
const ENDS: u32 = 109;
const PORT: u16 = 7000;
/// Longer than the tunnel's MTU many times.
const MUCH: usize = 300_000;

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    if let Err(e) = tunnels_possible() {
        say(&format!("SKIPPED: flows: the kernel takes no programs on routes here: {e}"));
        return;
    }
    let steps: [(&str, Step); 6] = [
        ("tunnels_lead_to_the_gateway_when_there_are_two", start),
        ("connections_survive_a_nearer_gateway_on_the_way", survive),
        ("packets_too_big_for_the_tunnel_are_told_so", big),
        ("tunnels_end_only_for_the_mesh_and_lead_only_out", ends),
        ("a_gateway_that_is_lost_is_left", lost),
        ("nothing_stays", leave),
    ];
    for (name, step) in steps {
        if report.test(&format!("flows::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

fn start(lab: &mut Lab) -> Result<()> {
    for name in NAMES {
        lab.add_node(name)?;
    }
    for at in 0..6 {
        lab.plug(at, at + 1)?;
    }
    connect(lab, G1, NET)?;
    connect(lab, G2, NET)?;
    far_away(lab.node(NET)?)?;
    lab.plug(C, PHONE)?;
    for at in 0..NET {
        let mesh: &[&str] = match at {
            C => &["eth0"],
            A => &["eth0", "eth1", "eth2"],
            6 => &["eth0", "eth2"],
            _ => &["eth0", "eth1"],
        };
        for name in mesh.iter().filter(|name| **name != "eth2") {
            bring_up(lab.node(at)?, name)?;
        }
        let flags = [&["--fast", "--interface"], mesh].concat();
        lab.node(at)?.start("mesh-router", &flags)?;
    }
    set_defaults(lab, G1, true)?;
    uses(lab, C, G1.node, 30)?;
    if tunnels(lab.node(C)?)? != 0 {
        return Err("a tunnel to the only gateway".into());
    }
    online(lab, C)?;
    set_defaults(lab, G2, true)?;
    let c = lab.node(C)?;
    wait_for("c to use tunnels", secs(10), || match tunnels(c)? {
        2 => Ok(()),
        n => Err(format!("{n} routes into tunnels")),
    })?;
    uses(lab, C, G1.node, 0)?;
    online(lab, C)
}

fn in_table(node: &Node, table: u32) -> Result<Vec<Route>> {
    node.kernel(|nl| nl.routes(&RouteFilter { table, protocol: Some(PROTOCOL) }))
}

/// The number of default routes into tunnels.
fn tunnels(node: &Node) -> Result<usize> {
    Ok(in_table(node, OWN)?.iter().filter(|r| r.kind == RouteKind::Tunnel && r.prefix_len == 0).count())
}

/// Sends back whatever comes over each connection, until told to end.
fn serve(listener: &TcpListener, end: &AtomicBool) -> Result<()> {
    listener.set_nonblocking(true).map_err(told("listen"))?;
    std::thread::scope(|scope| {
        while !end.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, from)) => drop(scope.spawn(move || send_back(stream, from))),
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
                Err(e) => return Err(e.to_string()),
            }
        }
        Ok(())
    })
}

/// First who is seen, in a line of its own; then what comes.
fn send_back(mut stream: TcpStream, from: SocketAddr) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(secs(20)))?;
    stream.write_all(format!("{}\n", from.ip()).as_bytes())?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(buffer.get(..n).unwrap_or_default())?,
        }
    }
}

/// A connection, and as whom the other side sees it.
fn call(from: &Node, far: IpAddr) -> Result<(TcpStream, String)> {
    from.inside(|| -> Result<(TcpStream, String)> {
        let to = SocketAddr::new(far, PORT);
        let mut stream = wait_for("a connection", secs(5), || {
            TcpStream::connect_timeout(&to, secs(3)).map_err(told("connect"))
        })?;
        stream.set_read_timeout(Some(secs(10))).map_err(told("socket"))?;
        let (mut seen, mut byte) = (Vec::new(), [0]);
        while stream.read(&mut byte).map_err(told("who I am"))? == 1 && byte != *b"\n" {
            seen.extend(byte);
        }
        Ok((stream, String::from_utf8_lossy(&seen).into_owned()))
    })?
}

fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).map_err(told("send"))?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).map_err(told("receive"))?;
    if back == bytes { Ok(()) } else { Err("other bytes came back".into()) }
}

/// Runs `work` while the Internet answers calls. What is opened inside a namespace stays there.
fn while_answered(lab: &mut Lab, work: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let open = |far: &str| {
        let to = (ip(far)?, PORT);
        lab.at(NET)?.inside(|| TcpListener::bind(to))?.map_err(told("listen"))
    };
    let listeners = FAR.iter().map(|far| open(far)).collect::<Result<Vec<TcpListener>>>()?;
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let servers: Vec<_> = listeners.iter().map(|l| scope.spawn(|| serve(l, &end))).collect();
        let done = work(lab);
        end.store(true, Ordering::Relaxed);
        let mut served =
            servers.into_iter().map(|s| s.join().unwrap_or_else(|_| Err("a server panicked".into())));
        done.and(served.find(Result::is_err).unwrap_or(Ok(())))
    })
}

fn survive(lab: &mut Lab) -> Result<()> {
    while_answered(lab, |lab| {
        let c = lab.node(C)?;
        let mut calls = FAR.iter().map(|far| call(c, ip(far)?)).collect::<Result<Vec<_>>>()?;
        for ((_, seen), who) in calls.iter().zip([G1.six, G1.four]) {
            if *seen != who[0] {
                return Err(format!("the call goes by {seen}, not {}", who[0]));
            }
        }
        let mut all = || calls.iter_mut().try_for_each(|(stream, _)| exchange(stream, b"still there?"));
        all()?;
        lab.plug(A, G2.node)?;
        for at in [A, G2.node] {
            bring_up(lab.node(at)?, "eth2")?;
        }
        // Every 20 ms, over the change and for long after it: a packet that took the other way would be
        // answered by a reset.
        let mut changed = None;
        let a = lab.at(A)?;
        let want = lab.at(G2.node)?.id()?.ula_address();
        for round in 0..400 {
            all().map_err(|e| format!("in round {round}, a changed in round {changed:?}: {e}"))?;
            if changed.is_none() && gateways::gateways(a)?[0] == Some(want.into()) {
                changed = Some(round);
            }
            if changed.is_some_and(|at| round >= at + 150) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        say(&format!("    a uses g2 from round {changed:?} on; {} connections live", FAR.len()));
        changed.ok_or("a does not use the nearer gateway")?;
        // Others leave by the nearer one: what passes through a has it as its nearest.
        let transit = in_table(lab.at(A)?, super::common::TABLE)?;
        let eth2 = lab.at(A)?.kernel(|nl| index(nl, "eth2"))?;
        if !transit.iter().filter(|r| r.prefix_len == 0).all(|r| r.index == eth2) {
            return Err(format!("what passes through a does not go to g2: {transit:?}"));
        }
        let c = lab.node(C)?;
        for (far, who) in FAR.iter().zip([G1.six, G1.four]) {
            let (_, seen) = call(c, ip(far)?)?;
            if seen != who[0] {
                return Err(format!("a new call goes by {seen}, not {}", who[0]));
            }
        }
        uses(lab, C, G1.node, 0)
    })
}

/// Gives c's client an address in c's own /64.
fn join(lab: &mut Lab) -> Result<()> {
    let prefix = lab.at(C)?.id()?.ula_prefix().segments();
    let [p, q, r, s, ..] = prefix;
    let [net, here, there] = [0, 2, 3].map(|last| IpAddr::from([p, q, r, s, 0, 0, 0, last]));
    for (at, name, address) in [(C, "eth1", here), (PHONE, "eth0", there)] {
        let node = lab.node(at)?;
        bring_up(node, name)?;
        let route = |prefix, prefix_len, gateway, index| Route {
            kind: RouteKind::Unicast,
            prefix,
            prefix_len,
            gateway,
            index,
            source: None,
            metric: 256,
            table: TABLE_MAIN,
            protocol: 2,
        };
        node.kernel(|nl| {
            let index = index(nl, name)?;
            nl.add_address(index, address, 64)?;
            nl.replace_route(&route(net, 64, None, index))?;
            if at == PHONE {
                nl.replace_route(&route(Ipv6Addr::UNSPECIFIED.into(), 0, Some(here), index))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn big(lab: &mut Lab) -> Result<()> {
    join(lab)?;
    while_answered(lab, |lab| {
        for (from, fars) in [(C, &FAR[..]), (PHONE, &FAR[..1])] {
            for far in fars {
                let node = lab.node(from)?;
                let (mut stream, _) = call(node, ip(far)?)?;
                let mut back = stream.try_clone().map_err(told("socket"))?;
                std::thread::scope(|scope| {
                    let much = vec![7; MUCH];
                    let sender = scope.spawn(move || stream.write_all(&much));
                    let mut got = vec![0; MUCH];
                    back.read_exact(&mut got).map_err(|e| format!("{} to {far}: {e}", node.name()))?;
                    sender.join().map_err(|_| "the sender panicked".to_owned())?.map_err(told("send"))
                })?;
            }
        }
        Ok(())
    })
}

/// Sends a tunnel packet by hand.
fn inject(from: &Node, end: Ipv6Addr, to: Ipv4Addr, what: &[u8]) -> Result<()> {
    let source = from.id()?.mesh_ipv4(0);
    let udp = 8 + what.len();
    let mut inner = vec![0x45, 0, 0, (20 + udp) as u8, 0, 0, 0, 0, 9, 17, 0, 0];
    inner.extend(source.octets().iter().chain(&to.octets()));
    let sum = probe::checksum(&inner);
    inner.splice(10..12, sum.to_be_bytes());
    inner.extend([PORT, PORT, udp as u16, 0].iter().flat_map(|n| n.to_be_bytes()));
    inner.extend(what);
    let sent = from.inside(|| -> std::io::Result<usize> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(4)))?;
        socket.send_to(&inner, &SocketAddr::new(end.into(), 0).into())
    })?;
    sent.map(drop).map_err(|e| format!("tunnel packet to {end} from {}: {e}", from.name()))
}

/// All datagrams that came, the last of which is `last`.
fn heard(socket: &UdpSocket, last: &[u8]) -> Result<Vec<Vec<u8>>> {
    socket.set_read_timeout(Some(secs(3))).map_err(told("socket"))?;
    let mut all = Vec::new();
    loop {
        let mut buffer = [0; 64];
        let n = socket.recv(&mut buffer).map_err(|e| format!("after {all:?}: {e}"))?;
        all.push(buffer.get(..n).unwrap_or_default().to_vec());
        if all.last().is_some_and(|l| l == last) {
            return Ok(all);
        }
    }
}

fn ends(lab: &mut Lab) -> Result<()> {
    let g2 = lab.at(G2.node)?;
    let at = |n: &Node| in_table(n, ENDS);
    let end =
        at(g2)?.iter().filter(|r| r.kind == RouteKind::TunnelEnd).find_map(|r| match (r.prefix, r.gateway) {
            (IpAddr::V6(end), Some(IpAddr::V4(_))) => Some(end),
            _ => None,
        });
    let end = end.ok_or_else(|| format!("no tunnel for IPv4 ends at g2: {:?}", at(g2)))?;
    if !at(lab.at(A)?)?.is_empty() {
        return Err("tunnels end at a, which is no gateway".into());
    }
    // The Internet knows a way to the end.
    lab.node(NET)?.kernel(|nl| {
        let index = index(nl, G2.there)?;
        let gateway = G2.six[0].parse().ok();
        nl.replace_route(&Route {
            kind: RouteKind::Unicast,
            prefix: end.into(),
            prefix_len: 128,
            gateway,
            index,
            source: None,
            metric: 256,
            table: TABLE_MAIN,
            protocol: 4,
        })
    })?;
    let listen = |lab: &Lab, at: usize, on: Ipv4Addr| {
        lab.at(at)?.inside(|| UdpSocket::bind((on, PORT)))?.map_err(told("listen"))
    };
    let far: Ipv4Addr = FAR[1].parse().map_err(|_| "no IPv4 address")?;
    let (c, own) = (lab.at(C)?.id()?.mesh_ipv4(0), lab.at(G2.node)?.id()?.mesh_ipv4(0));
    let (out, in_mesh, here) = (listen(lab, NET, far)?, listen(lab, C, c)?, listen(lab, G2.node, own)?);
    inject(lab.at(NET)?, end, far, b"from outside")?;
    inject(lab.at(A)?, end, c, b"back into the mesh")?;
    inject(lab.at(A)?, end, own, b"to the gateway itself")?;
    inject(lab.at(A)?, end, far, b"out")?;
    let all = heard(&out, b"out")?;
    if all.len() != 1 {
        return Err(format!("came out of the tunnel: {all:?}"));
    }
    for (socket, what) in [(&in_mesh, "c"), (&here, "g2")] {
        socket.set_nonblocking(true).map_err(told("socket"))?;
        if let Ok(n) = socket.recv(&mut [0; 64]) {
            return Err(format!("{n} bytes came to {what} out of a tunnel"));
        }
    }
    Ok(())
}

fn lost(lab: &mut Lab) -> Result<()> {
    set_defaults(lab, G1, false)?;
    uses(lab, C, G2.node, 5)?;
    let c = lab.node(C)?;
    wait_for("c to use no tunnel", secs(5), || match tunnels(c)? {
        0 => Ok(()),
        n => Err(format!("{n} routes into tunnels")),
    })?;
    if !in_table(lab.at(G1.node)?, ENDS)?.is_empty() {
        return Err("tunnels still end at g1".into());
    }
    online(lab, C)?;
    set_defaults(lab, G1, true)?;
    let c = lab.node(C)?;
    wait_for("tunnels again", secs(5), || if tunnels(c)? == 2 { Ok(()) } else { Err("none".into()) })?;
    uses(lab, C, G2.node, 0)?;
    online(lab, C)
}

fn leave(lab: &mut Lab) -> Result<()> {
    for at in 0..NET {
        lab.node(at)?.stop("mesh-router")?;
        for table in [OWN, ENDS] {
            let left = in_table(lab.at(at)?, table)?;
            if !left.is_empty() {
                return Err(format!("{left:?} stay"));
            }
        }
    }
    Ok(())
}

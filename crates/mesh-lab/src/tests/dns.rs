//! Unicast DNS on an access point: a phone asks its node over UDP and TCP, about the mesh, about addresses, about the
//! world with an uplink and without; nobody else is served.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::probe;
use mesh_lab::report::{Report, say};

use super::common::{Step, addresses, bring_up, secs};
use super::names::ip;

const A: usize = 0;
const B: usize = 1;
const PHONE: usize = 2;
const SERVER: usize = 3;
const AP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
/// Where the world's name server is.
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const UPLINK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// So many addresses do not fit into 512 bytes, nor into 1,232.
const MANY: u16 = 60;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 9] = [
        ("a_node_with_an_access_point_a_neighbour_and_a_phone", start),
        ("rfc7766_what_does_not_fit_into_a_datagram_comes_over_tcp", long_answers),
        ("dig_asks_again_over_tcp_by_itself", dig),
        ("names_of_captive_portal_probes_lead_to_the_node", portal),
        ("without_an_uplink_the_world_is_refused_at_once", refused),
        ("the_world_is_asked_over_udp_and_tcp", forwarded),
        ("cve_2024_52615_and_52616_ports_and_identifiers_can_not_be_guessed", unguessable),
        ("neither_the_mesh_nor_the_uplink_is_served", strangers),
        ("cve_2025_59529_idle_connections_keep_nobody_out", idle_connections),
    ];
    for (at, (name, step)) in steps.into_iter().enumerate() {
        if name.starts_with("dig") && lab.dig().is_none() {
            say("SKIPPED: DNS asked by dig: it could not be fetched");
            continue;
        }
        if report.test(&format!("dns::{name}"), || step(lab)).is_none() && at == 0 {
            return;
        }
    }
}

fn start(lab: &mut Lab) -> Result<()> {
    for name in ["a", "b", "phone", "server"] {
        lab.add_node(name)?;
    }
    lab.plug(A, B)?;
    let ap = lab.plug(A, PHONE)?;
    let uplink = lab.plug(A, SERVER)?;
    lab.node(A)?.join(&ap, AP)?;
    lab.node(PHONE)?.join("eth0", CLIENT)?;
    lab.node(A)?.join(&uplink, UPLINK)?;
    lab.node(SERVER)?.join("eth0", UPSTREAM)?;
    for at in [A, B] {
        let node = lab.node(at)?;
        bring_up(node, "eth0")?;
        node.start("mesh-router", &["--interface", "eth0"])?;
        let name = node.name().to_owned();
        let mut flags = vec!["--interface", "eth0", "--name", &name];
        if at == A {
            flags.extend(["--access-point", &ap]);
        }
        node.start("mesh-mdns", &flags)?;
    }
    let [_, of_b] = addresses(lab.at(B)?)?;
    wait_for("b.local on the access point", secs(30), || {
        let found = probe::resolve_at(lab.at(PHONE)?, server(), "b.local", TYPE_A)?;
        if found == [of_b] { Ok(()) } else { Err(format!("{found:?}")) }
    })
}

fn server() -> SocketAddr {
    SocketAddr::new(AP.into(), 53)
}

fn many() -> impl Iterator<Item = Ipv6Addr> {
    (1..=MANY).map(|n| Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, n))
}

fn long_answers(lab: &mut Lab) -> Result<()> {
    lab.at(A)?.kernel(|nl| {
        let lo = nl.link("lo")?.map_or(1, |l| l.index);
        many().try_for_each(|a| nl.add_address(lo, a.into(), 128))
    })?;
    let phone = lab.at(PHONE)?;
    wait_for("all addresses over TCP", secs(10), || {
        let found = probe::resolve_over_tcp(phone, server(), "a.local", TYPE_AAAA)?;
        let all = many().all(|a| found.contains(&IpAddr::V6(a)));
        if all { Ok(()) } else { Err(format!("{} addresses", found.len())) }
    })?;
    let cut = probe::resolve_at(phone, server(), "a.local", TYPE_AAAA)?;
    if cut.len() >= usize::from(MANY) {
        return Err(format!("{} addresses in 512 bytes", cut.len()));
    }
    match probe::resolve_over_tcp(phone, server(), "nobody.local", TYPE_A) {
        Err(why) if why.contains("NXDOMAIN") => {}
        other => return Err(format!("nobody.local over TCP: {other:?}")),
    }
    // A node's own programs, too.
    let own = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53);
    let found = probe::resolve_over_tcp(lab.at(A)?, own, "a.local", TYPE_AAAA)?;
    if found.len() > usize::from(MANY) { Ok(()) } else { Err(format!("{} addresses", found.len())) }
}

/// What dig says on the phone, short.
fn dig_says(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let program = lab.dig().ok_or("no dig")?.display().to_string();
    let at = format!("@{AP}");
    let all = [&[at.as_str(), "+time=3", "+tries=2"], arguments].concat();
    lab.at(PHONE)?.run(&program, &all, b"").map(|out| String::from_utf8_lossy(&out).into_owned())
}

fn dig(lab: &mut Lab) -> Result<()> {
    let [six, four] = addresses(lab.at(B)?)?;
    for (arguments, wanted) in [
        (vec!["+short", "b.local", "A"], format!("{four}\n")),
        (vec!["+short", "+tcp", "b.local", "AAAA"], six.to_string()),
        (vec!["+short", "-x", &four.to_string()], "b.local.\n".into()),
        (vec!["+short", "+tcp", "-x", &six.to_string()], "b.local.\n".into()),
        (vec!["+short", "+noedns", "a.local", "A"], AP.to_string()),
        (vec!["nobody.local", "A"], "status: NXDOMAIN".into()),
        (vec!["+tcp", "www.example.org", "A"], "status: REFUSED".into()),
        // Two questions on one connection.
        (vec!["+tcp", "+keepopen", "+short", "b.local", "A", "b.local", "AAAA"], six.to_string()),
    ] {
        let text = dig_says(lab, &arguments)?;
        if !text.contains(&wanted) {
            return Err(format!("dig {}: {text}", arguments.join(" ")));
        }
    }
    for size in ["+noedns", "+bufsize=1232"] {
        let text = dig_says(lab, &[size, "a.local", "AAAA"])?;
        let found = many().filter(|a| text.contains(&a.to_string())).count();
        if found != usize::from(MANY) || !text.contains("Truncated, retrying in TCP mode") {
            return Err(format!("dig {size} a.local: {found} addresses: {text}"));
        }
    }
    Ok(())
}

fn portal(lab: &mut Lab) -> Result<()> {
    for name in [
        "captive.apple.com",
        "connectivitycheck.gstatic.com",
        "www.msftconnecttest.com",
        "detectportal.firefox.com",
    ] {
        let found = probe::resolve_at(lab.at(PHONE)?, server(), name, TYPE_A)?;
        if found != [AP] {
            return Err(format!("{name}: {found:?}"));
        }
    }
    Ok(())
}

fn refused(lab: &mut Lab) -> Result<()> {
    let phone = lab.at(PHONE)?;
    for ask in [probe::resolve_at, probe::resolve_over_tcp] {
        let asked = Instant::now();
        match ask(phone, server(), "www.example.org", TYPE_A) {
            Err(why) if why.contains("DNS error 5") && asked.elapsed() < Duration::from_millis(500) => {}
            other => return Err(format!("after {:?}: {other:?}", asked.elapsed())),
        }
    }
    Ok(())
}

/// The world's name server: what was asked, with the port and the identifier.
struct World {
    datagrams: UdpSocket,
    streams: TcpListener,
}

const LONG: &[u8] = b"\x04long\x07example";

impl World {
    fn open(node: &Node) -> Result<Self> {
        let opened = node.inside(|| -> std::io::Result<Self> {
            let this = Self {
                datagrams: UdpSocket::bind((UPSTREAM, 53))?,
                streams: TcpListener::bind((UPSTREAM, 53))?,
            };
            this.datagrams.set_read_timeout(Some(Duration::from_millis(700)))?;
            Ok(this)
        })?;
        opened.map_err(told("name server"))
    }

    /// Answers one datagram with 192.0.2.7; names that are long only over TCP, with 192.0.2.8.
    fn serve(&self) -> Result<(u16, [u8; 2])> {
        let mut buffer = [0u8; 512];
        let (len, from) = self.datagrams.recv_from(&mut buffer).map_err(told("no question came"))?;
        let query = buffer.get(..len).unwrap_or_default();
        let long = query.windows(LONG.len()).any(|w| w == LONG);
        let reply = if long { with(query, &[0x83, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]) } else { answer(query, 7) };
        self.datagrams.send_to(&reply, from).map_err(told("answer"))?;
        if long {
            let (mut client, _) = self.streams.accept().map_err(told("no connection came"))?;
            let mut length = [0; 2];
            client.read_exact(&mut length).map_err(told("length"))?;
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            client.read_exact(&mut query).map_err(told("question"))?;
            let reply = answer(&query, 8);
            let framed = [&(reply.len() as u16).to_be_bytes(), &reply[..]].concat();
            client.write_all(&framed).map_err(told("answer"))?;
        }
        let id = query.first_chunk::<2>().copied().unwrap_or_default();
        Ok((from.port(), id))
    }
}

fn with(query: &[u8], head: &[u8]) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply.iter_mut().skip(2).zip(head).for_each(|(a, b)| *a = *b);
    reply
}

fn answer(query: &[u8], last: u8) -> Vec<u8> {
    let mut reply = with(query, &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02");
    reply.push(last);
    reply
}

type Ask = fn(&Node, SocketAddr, &str, u16) -> Result<Vec<IpAddr>>;

/// One question of the phone's, and what the world saw of it.
fn ask_the_world(lab: &Lab, world: &World, ask: Ask, name: &str) -> Result<(Vec<IpAddr>, u16, [u8; 2])> {
    let phone = lab.at(PHONE)?;
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| world.serve());
        let found = ask(phone, server(), name, TYPE_A);
        let (port, id) = serving.join().map_err(|_| "the name server ended")??;
        Ok((found?, port, id))
    })
}

fn forwarded(lab: &mut Lab) -> Result<()> {
    let list = lab.at(A)?.run_dir().join("resolv.conf");
    std::fs::write(&list, format!("nameserver {UPSTREAM}\n")).map_err(told("resolv.conf"))?;
    let world = World::open(lab.at(SERVER)?)?;
    // The list is read anew at most once a second.
    wait_for("the uplink to be used", secs(5), || {
        ask_the_world(lab, &world, probe::resolve_at, "first.example").map(drop)
    })?;
    let asks: [(Ask, &str, Option<&str>); 4] = [
        (probe::resolve_at, "www.example", Some("192.0.2.7")),
        (probe::resolve_over_tcp, "www.example", Some("192.0.2.7")),
        (probe::resolve_over_tcp, "long.example", Some("192.0.2.8")),
        // Over UDP a client is told that there is more.
        (probe::resolve_at, "cut.long.example", None),
    ];
    for (ask, name, wanted) in asks {
        if wanted.is_none() {
            let phone = lab.at(PHONE)?;
            let found = std::thread::scope(|scope| {
                let serving = scope.spawn(|| {
                    let mut buffer = [0u8; 512];
                    let (len, from) = world.datagrams.recv_from(&mut buffer).map_err(told("question"))?;
                    let cut = with(buffer.get(..len).unwrap_or_default(), &[0x83, 0x80, 0, 1, 0, 0]);
                    world.datagrams.send_to(&cut, from).map_err(told("answer"))
                });
                let found = ask(phone, server(), name, TYPE_A);
                serving.join().map_err(|_| "the name server ended")??;
                found
            })?;
            if !found.is_empty() {
                return Err(format!("{name}: {found:?}"));
            }
            continue;
        }
        let (found, ..) = ask_the_world(lab, &world, ask, name)?;
        let wanted = ip(wanted.unwrap_or_default())?;
        if found != [wanted] {
            return Err(format!("{name}: {found:?}"));
        }
    }
    Ok(())
}

fn unguessable(lab: &mut Lab) -> Result<()> {
    let world = World::open(lab.at(SERVER)?)?;
    let (mut ports, mut ids) = (Vec::new(), Vec::new());
    for number in 0..32 {
        let name = format!("n{number}.example");
        let (_, port, id) = ask_the_world(lab, &world, probe::resolve_at, &name)?;
        ports.push(port);
        ids.push(u16::from_be_bytes(id));
    }
    // Of the phone's own identifier nothing is seen, nor of an order.
    let steps = |all: &[u16]| all.windows(2).filter(|w| matches!(w, [a, b] if a.abs_diff(*b) <= 1)).count();
    let (ports_near, ids_near) = (steps(&ports), steps(&ids));
    ports.sort_unstable();
    ports.dedup();
    ids.sort_unstable();
    ids.dedup();
    let good = ports.len() >= 28 && ids.len() >= 28 && ports_near <= 3 && ids_near <= 3;
    if good { Ok(()) } else { Err(format!("ports {ports:?}, identifiers {ids:?}")) }
}

fn strangers(lab: &mut Lab) -> Result<()> {
    let [_, of_a] = addresses(lab.at(A)?)?;
    for (at, to) in [(SERVER, IpAddr::V4(UPLINK)), (B, of_a)] {
        for name in ["a.local", "www.example"] {
            match probe::resolve_at(lab.at(at)?, SocketAddr::new(to, 53), name, TYPE_A) {
                Err(why) if why.contains("no answer") => {}
                other => return Err(format!("{name} asked from {}: {other:?}", lab.at(at)?.name())),
            }
            match probe::resolve_over_tcp(lab.at(at)?, SocketAddr::new(to, 53), name, TYPE_A) {
                Err(why) if why.contains("no connection") => {}
                other => return Err(format!("{name} over TCP from {}: {other:?}", lab.at(at)?.name())),
            }
        }
    }
    // A phone that takes another address is no client of the access point.
    lab.at(PHONE)?.kernel(|nl| {
        let eth0 = nl.link("eth0")?.map_or(0, |l| l.index);
        nl.add_address(eth0, IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)), 24)
    })?;
    let asked = lab.at(PHONE)?.inside(|| -> std::io::Result<usize> {
        let socket = UdpSocket::bind("10.99.0.1:0")?;
        socket.set_read_timeout(Some(secs(1)))?;
        socket.send_to(b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\x05local\0\0\x01\0\x01", server())?;
        socket.recv(&mut [0; 512])
    })?;
    if asked.is_err() { Ok(()) } else { Err("a client from elsewhere is served".into()) }
}

fn idle_connections(lab: &mut Lab) -> Result<()> {
    let phone = lab.at(PHONE)?;
    let idle = phone.inside(|| {
        let connect = |_| std::net::TcpStream::connect_timeout(&server(), secs(2));
        (0..100).map(connect).filter_map(std::result::Result::ok).collect::<Vec<_>>()
    })?;
    if idle.is_empty() {
        return Err("no connection at all".into());
    }
    // Datagrams are answered all the time, a new connection once the idle ones have ended.
    probe::resolve_at(phone, server(), "a.local", TYPE_A)?;
    let waited = Instant::now();
    wait_for("a new connection to be served", secs(20), || {
        probe::resolve_over_tcp(phone, server(), "a.local", TYPE_A).map(drop)
    })?;
    say(&format!("    beside 100 idle connections served after {:.1} s", waited.elapsed().as_secs_f64()));
    // Programs of the node itself have never had to wait for those of others.
    let own = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53);
    probe::resolve_over_tcp(lab.at(A)?, own, "a.local", TYPE_A).map(drop)
}

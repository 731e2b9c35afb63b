//! A port scan from each side, TCP and UDP, IPv4 and IPv6, of a node on which something listens on every port that is
//! tried; and packets with sources that can't be. The first node's filter is mesh-radio's own; the second one's access
//! point is a cable, as there are no radios here, with the same openings.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mesh_ipc::radio::Role;
use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::report::{Report, say};
use mesh_sys::netlink::{self, Filter, Open, Zone, sysctl};
use mesh_sys::udp::Family;
use mesh_types::AP_NETWORK;
use radio_core::openings;
use socket2::{Domain, Protocol, Socket, Type};

use super::cable::{becomes, home};
use super::common::{Step, addresses, secs, symmetric_links};
use super::gateways::index;

const A: usize = 0;
const B: usize = 1;
const HOME: usize = 2;
const C: usize = 3;
const PHONE: usize = 4;
/// All that services of the image listen on but the routers' port, which mesh-radio has, and some that none does.
const PORTS: [u16; 15] = [22, 53, 67, 80, 111, 123, 443, 445, 546, 4080, 5201, 5353, 8080, 8443, 40_000];
/// Somebody is there, or nobody.
const PATIENCE: Duration = Duration::from_millis(600);
/// What people announce on the first node.
const ANNOUNCED: u16 = 8443;

pub(super) type Scan = BTreeSet<(bool, u16)>;
/// Sources and destination ports of what came.
type Came = Arc<Mutex<Vec<(IpAddr, u16)>>>;

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 7] = [
        ("a_node_between_a_home_network_and_another_node", start),
        ("from_the_uplink_nothing_comes_in", from_uplink),
        ("from_the_mesh_http_content_names_and_what_is_announced", from_mesh),
        ("spoofed_sources_come_in_from_neither", spoofed),
        ("nothing_leaves_by_the_uplink_untranslated", leaks),
        ("from_the_access_point_dns_and_dhcp_too", from_access_point),
        ("workshop_manual_filters_nothing", manual),
    ];
    if lab.dnsmasq().is_none() {
        return say("SKIPPED: port scans: dnsmasq could not be fetched");
    }
    for (name, step) in steps {
        if report.test(&format!("scan::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

/// Something that listens on all ports of a node; what comes over UDP is answered.
struct Listeners {
    came: Came,
    end: Arc<AtomicBool>,
    _tcp: Vec<TcpListener>,
}

impl Listeners {
    fn start(node: &Node) -> Result<Self> {
        type Both = (Vec<TcpListener>, Vec<UdpSocket>);
        let opened = node.inside(|| -> std::io::Result<Both> {
            let both = |port, kind| -> std::io::Result<Socket> {
                let socket = Socket::new(Domain::IPV6, kind, None)?;
                socket.set_only_v6(false)?;
                socket.set_reuse_address(true)?;
                socket.set_nonblocking(true)?;
                socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
                Ok(socket)
            };
            let (mut tcp, mut udp) = (Vec::new(), Vec::new());
            for port in PORTS {
                let socket = both(port, Type::STREAM)?;
                socket.listen(64)?;
                tcp.push(socket.into());
                udp.push(both(port, Type::DGRAM)?.into());
            }
            Ok((tcp, udp))
        })?;
        let (tcp, udp) = opened.map_err(told("listeners"))?;
        for socket in &udp {
            let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
            for name in ["eth0", "eth1"] {
                let here = node.kernel(|nl| index(nl, name))?;
                let _ = socket.join_multicast_v6(&group, here);
            }
        }
        let (came, end) = (Came::default(), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (came.clone(), end.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !ended.load(Ordering::Relaxed) {
                for (socket, port) in udp.iter().zip(PORTS) {
                    while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                        if let Ok(mut seen) = seen.lock() {
                            seen.push((from.ip().to_canonical(), port));
                        }
                        let _ = socket.send_to(buffer.get(..len).unwrap_or_default(), from);
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Ok(Self { came, end, _tcp: tcp })
    }

    fn heard(&self, source: IpAddr) -> bool {
        self.came.lock().is_ok_and(|came| came.iter().any(|(from, _)| *from == source))
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

fn answers(to: SocketAddr, tcp: bool) -> bool {
    if tcp {
        return TcpStream::connect_timeout(&to, PATIENCE).is_ok();
    }
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let Ok(socket) = UdpSocket::bind((any, 0)) else { return false };
    let mut buffer = [0; 64];
    socket.set_read_timeout(Some(PATIENCE)).is_ok()
        && socket.send_to(b"p2pmesh?", to).is_ok()
        && socket.recv_from(&mut buffer).is_ok()
}

/// The ports that answer.
fn scan(from: &Node, to: IpAddr, scope: u32) -> Result<Scan> {
    let at = |port| match to {
        IpAddr::V6(ip) => std::net::SocketAddrV6::new(ip, port, 0, scope).into(),
        IpAddr::V4(ip) => SocketAddr::from((ip, port)),
    };
    from.inside(|| {
        std::thread::scope(|scope| {
            let tries: Vec<_> = [true, false]
                .into_iter()
                .flat_map(|tcp| PORTS.map(|port| (tcp, port)))
                .map(|(tcp, port)| (scope.spawn(move || answers(at(port), tcp)), (tcp, port)))
                .collect();
            let open = tries.into_iter().filter_map(|(tried, place)| tried.join().ok()?.then_some(place));
            open.collect()
        })
    })
}

/// As many ports are tried at once: few enough for a process's files.
const BATCH: usize = 300;

/// Which of `ports` of `node` let in what `from` sends to `to`: on each of them something listens, over TCP and UDP, for as
/// long as it is tried. One that a service of the node has already is tried over TCP only.
pub(super) fn let_in(node: &Node, from: &Node, to: Ipv4Addr, ports: &[u16]) -> Result<Scan> {
    let mut open = Scan::new();
    let socket = |kind| -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, kind, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    for batch in ports.chunks(BATCH) {
        let listen = |port: u16, kind| -> std::io::Result<Socket> {
            let socket = socket(kind)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
            if kind == Type::STREAM {
                socket.listen(4)?;
            }
            Ok(socket)
        };
        let listeners =
            |kind| batch.iter().filter_map(|p| Some((*p, listen(*p, kind).ok()?))).collect::<Vec<_>>();
        let (tcp, udp) = node.inside(|| (listeners(Type::STREAM), listeners(Type::DGRAM)))?;
        let tries = from.inside(|| -> std::io::Result<Vec<(u16, Socket)>> {
            let sender = socket(Type::DGRAM)?;
            let mut tries = Vec::new();
            for port in batch {
                let at = SocketAddr::from((to, *port)).into();
                sender.send_to(b"p2pmesh?", &at)?;
                let tried = socket(Type::STREAM)?;
                let _ = tried.connect(&at); // under way
                tries.push((*port, tried));
            }
            Ok(tries)
        })?;
        let tries = tries.map_err(told("sending"))?;
        // Nothing says that nothing more will come; a connection is tried again after a second.
        std::thread::sleep(Duration::from_millis(1500));
        open.extend(
            tries.iter().filter(|(_, tried)| tried.peer_addr().is_ok()).map(|(port, _)| (true, *port)),
        );
        let mut buffer = [std::mem::MaybeUninit::uninit(); 64];
        open.extend(udp.iter().filter(|(_, s)| s.recv(&mut buffer).is_ok()).map(|(port, _)| (false, *port)));
        drop(tcp);
    }
    Ok(open)
}

/// Waits until exactly these ports answer; a busy machine may need a second try.
fn only(from: &Node, to: IpAddr, scope: u32, want: &[(bool, u16)]) -> Result<()> {
    let want: Scan = want.iter().copied().collect();
    wait_for(&format!("a scan of {to} from {}", from.name()), secs(6), || {
        let found = scan(from, to, scope)?;
        // One that answers though it should not is no accident.
        if found == want { Ok(()) } else { Err(format!("{found:?} instead of {want:?} answer")) }
    })
}

fn of_mesh() -> Vec<(bool, u16)> {
    let own = [(true, 80), (true, 8080), (true, 5201), (false, 5201), (false, 5353)];
    [&own[..], &[(true, 4080), (true, ANNOUNCED)]].concat()
}

fn start(lab: &mut Lab) -> Result<()> {
    for name in ["a", "b", "home", "c", "phone"] {
        lab.add_node(name)?;
    }
    let services = lab.at(A)?.file("state").join("services");
    std::fs::create_dir_all(&services).map_err(told("services"))?;
    let text = format!("type = \"_https._tcp\"\nport = {ANNOUNCED}\n");
    std::fs::write(services.join("library.toml"), text).map_err(told("services"))?;
    lab.plug(A, HOME)?;
    lab.plug(A, B)?;
    for at in [A, B] {
        lab.node(at)?.start("mesh-radio", &[])?;
        lab.node(at)?.start("mesh-router", &["--fast"])?;
    }
    home(lab, HOME)?;
    becomes(lab.at(A)?, "eth0", Role::Uplink, "DHCP", 20)?;
    symmetric_links(lab.at(A)?, 2)
}

/// The IPv4 and link-local addresses of a node's interface.
fn here(node: &Node, name: &str) -> Result<(Option<IpAddr>, IpAddr)> {
    let all = || {
        node.kernel(|nl| {
            let index = index(nl, name)?;
            let here = nl.addresses()?.into_iter().filter(|a| a.index == index && !a.tentative);
            Ok(here.map(|a| a.ip).collect::<Vec<_>>())
        })
    };
    // The kernel makes it a moment after the carrier came.
    wait_for(&format!("a link-local address on {name} of {}", node.name()), secs(5), || {
        let all = all()?;
        let near = all.iter().find(|ip| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
        Ok((all.iter().find(|ip| ip.is_ipv4()).copied(), *near.ok_or("none")?))
    })
}

fn scope(node: &Node, name: &str) -> Result<u32> {
    node.kernel(|nl| index(nl, name))
}

fn from_uplink(lab: &mut Lab) -> Result<()> {
    let a = lab.at(A)?;
    let _listeners = Listeners::start(a)?;
    let (four, near) = here(a, "eth0")?;
    let home = lab.at(HOME)?;
    only(home, four.ok_or("no address")?, 0, &[])?;
    only(home, near, scope(home, "eth0")?, &[])?;
    // Nor what has no address there, when the home network knows the way.
    let [six, four] = addresses(a)?;
    let (via4, via6) = (here(a, "eth0")?, scope(home, "eth0")?);
    for (to, via) in [(four, via4.0.ok_or("no address")?), (six, via4.1)] {
        home.kernel(|nl| nl.replace_route(&host_route(to, via, via6)))?;
        only(home, to, 0, &[])?;
    }
    // And nothing is passed on to other nodes from there.
    let b = lab.at(B)?;
    let _others = Listeners::start(b)?;
    let [_, four] = addresses(b)?;
    home.kernel(|nl| nl.replace_route(&host_route(four, via4.0.unwrap_or(four), via6)))?;
    only(home, four, 0, &[])
}

fn host_route(to: IpAddr, via: IpAddr, index: u32) -> netlink::Route {
    netlink::Route {
        kind: netlink::RouteKind::Unicast,
        prefix: to,
        prefix_len: if to.is_ipv4() { 32 } else { 128 },
        gateway: Some(via),
        index,
        source: None,
        metric: 1,
        table: netlink::TABLE_MAIN,
        protocol: 4,
    }
}

fn from_mesh(lab: &mut Lab) -> Result<()> {
    let _listeners = Listeners::start(lab.at(A)?)?;
    let (b, a) = (lab.at(B)?, lab.at(A)?);
    for to in addresses(a)? {
        only(b, to, 0, &of_mesh())?;
    }
    only(b, here(a, "eth1")?.1, scope(b, "eth0")?, &of_mesh())?;
    // SSH is open while it runs, for who is on the link.
    let wanted = a.run_dir().join("ssh-wanted");
    std::fs::write(&wanted, "").map_err(told("ssh-wanted"))?;
    let with_ssh = [&of_mesh()[..], &[(true, 22)]].concat();
    wait_for("SSH to be open on the link", secs(10), || {
        only(b, here(a, "eth1")?.1, scope(b, "eth0")?, &with_ssh)
    })?;
    addresses(a)?.into_iter().try_for_each(|to| only(b, to, 0, &of_mesh()))
}

/// Sends a datagram from an address that the sender makes its own.
fn send_as(node: &Node, source: IpAddr, to: SocketAddr, interface: &str) -> Result<()> {
    let lo = scope(node, "lo")?;
    let len = if source.is_ipv4() { 32 } else { 128 };
    node.kernel(|nl| nl.add_address(lo, source, len))?;
    let sent = node.inside(|| -> std::io::Result<()> {
        let kind = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
        kind.bind_device(Some(interface.as_bytes()))?;
        kind.bind(&SocketAddr::new(source, 0).into())?;
        kind.send_to(b"p2pmesh!", &to.into()).map(drop)
    })?;
    node.kernel(|nl| nl.remove_address(lo, source, len))?;
    sent.map_err(|e| format!("{source} to {to} by {interface}: {e}"))
}

/// Of these sources only the good one is heard.
fn heard_only(
    listeners: &Listeners,
    node: &Node,
    (to, interface): (SocketAddr, &str),
    good: IpAddr,
    bad: &[IpAddr],
) -> Result<()> {
    for source in bad {
        send_as(node, *source, to, interface)?;
    }
    // What came before it has been there by now.
    wait_for(&format!("a datagram of {good}"), secs(5), || {
        send_as(node, good, to, interface)?;
        std::thread::sleep(Duration::from_millis(20));
        if listeners.heard(good) { Ok(()) } else { Err("nothing came".into()) }
    })?;
    match bad.iter().find(|source| listeners.heard(**source)) {
        None => Ok(()),
        Some(source) => Err(format!("{source} was heard by {interface} of {}", node.name())),
    }
}

fn spoofed(lab: &mut Lab) -> Result<()> {
    let (a, b, home) = (lab.at(A)?, lab.at(B)?, lab.at(HOME)?);
    // So that no other filter decides.
    for name in ["all", "eth0", "eth1"] {
        let _ = a.inside(|| sysctl::set(Family::V4, name, "rp_filter", "0"))?;
    }
    let listeners = Listeners::start(a)?;
    let id = a.id()?;
    let [a6, a4] = addresses(a)?;
    let [b6, _] = addresses(b)?;
    let client4 = IpAddr::from([10, 0, 0, 77]);
    let mut client6 = id.ula_prefix().octets();
    client6[15] = 0x77;
    let client6 = IpAddr::from(client6);
    // A node of ours does not even send such a thing; it is another that does.
    let place = (SocketAddr::new(a4, 5201), "eth0");
    if send_as(b, client4, place.0, place.1).is_ok() {
        return Err(format!("{client4} left for the mesh"));
    }
    b.inside(|| netlink::filter(&Filter::default()))?.map_err(told("filter"))?;
    // In the mesh nobody is this node, or a client of its access point.
    let other: IpAddr = [10, 127, 255, 1].into();
    heard_only(&listeners, b, place, other, &[client4, a4])?;
    let other: IpAddr = "fd99::77".parse().map_err(told("address"))?;
    heard_only(&listeners, b, (SocketAddr::new(a6, 5201), "eth0"), other, &[client6, a6])?;
    // On the uplink nobody is in the mesh either. The one thing to hear there is mDNS.
    let group = SocketAddr::from(std::net::SocketAddrV6::new(
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb),
        5353,
        0,
        scope(home, "eth0")?,
    ));
    let good: IpAddr = "2001:db8:77::1".parse().map_err(told("address"))?;
    heard_only(&listeners, home, (group, "eth0"), good, &[client6, b6])?;
    Ok(())
}

fn leaks(lab: &mut Lab) -> Result<()> {
    let (b, home) = (lab.at(B)?, lab.at(HOME)?);
    let far = SocketAddr::from(([192, 0, 2, 1], 9));
    let opened = home.inside(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok::<_, std::io::Error>(socket)
    })?;
    let seen = opened.map_err(told("raw socket"))?;
    // A reset of no connection, from inside: no part of any, so nobody translates it.
    let stray = b.inside(|| -> std::io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
        let mut header = [0u8; 20];
        header[..4].copy_from_slice(&[0x30, 0x39, 0, 9]);
        (header[12], header[13]) = (0x50, 0x04);
        for _ in 0..3 {
            socket.send_to(&header, &far.into())?;
        }
        Ok(())
    })?;
    stray.map_err(told("stray packet"))?;
    // A connection after it, which is translated.
    let _ = b.inside(|| TcpStream::connect_timeout(&far, PATIENCE))?;
    let (mut sources, mut buffer, start) =
        (BTreeSet::new(), [std::mem::MaybeUninit::new(0u8); 64], Instant::now());
    while start.elapsed() < secs(1) {
        match seen.recv_from(&mut buffer) {
            Ok((_, from)) => sources.extend(from.as_socket().map(|s| s.ip())),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    let translated = here(lab.at(A)?, "eth0")?.0.ok_or("no address")?;
    let inside = sources.iter().find(|ip| matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 10));
    match inside {
        Some(ip) => Err(format!("{ip} was seen on the home network")),
        None if sources.contains(&translated) => Ok(()),
        None => Err(format!("the connection was not seen: {sources:?}")),
    }
}

fn from_access_point(lab: &mut Lab) -> Result<()> {
    lab.plug(C, PHONE)?;
    lab.node(C)?.join("eth0", AP_NETWORK.0)?;
    let phone4 = Ipv4Addr::new(10, 0, 0, 50);
    lab.node(PHONE)?.join("eth0", phone4)?;
    let (c, phone) = (lab.at(C)?, lab.at(PHONE)?);
    let open = |ssh| {
        let all = openings(radio_core::Role::AccessPoint, ssh, &[]).into_iter();
        all.map(|o| Open { zone: Zone::AccessPoint, tcp: o.tcp, port: o.port, on_link: o.on_link }).collect()
    };
    let id = c.id()?;
    let filter = |ssh| Filter {
        interfaces: vec![("eth0".into(), Zone::AccessPoint)],
        open: open(ssh),
        clients: vec![(AP_NETWORK.0.into(), AP_NETWORK.1), (id.ula_prefix().into(), 64)],
    };
    let put = |ssh| c.inside(|| netlink::filter(&filter(ssh)))?.map_err(told("filter"));
    put(false)?;
    let listeners = Listeners::start(c)?;
    let own = [(true, 80), (true, 8080), (true, 5201), (false, 5201), (false, 5353)];
    let want = [&own[..], &[(false, 53), (true, 53), (false, 67)]].concat();
    only(phone, AP_NETWORK.0.into(), 0, &want)?;
    let near = here(c, "eth0")?.1;
    only(phone, near, scope(phone, "eth0")?, &want)?;
    let place = (SocketAddr::from((AP_NETWORK.0, 5201)), "eth0");
    let bad = [[192, 0, 2, 99].into(), [10, 64, 1, 2].into(), [10, 0, 1, 50].into(), AP_NETWORK.0.into()];
    heard_only(&listeners, phone, place, [10, 0, 0, 51].into(), &bad)?;
    put(true)?;
    only(phone, AP_NETWORK.0.into(), 0, &[&want[..], &[(true, 22)]].concat())
}

/// The names of the tables that the node has.
fn tables(node: &Node) -> Result<String> {
    let listed = node.inside(|| Command::new("nft").args(["list", "tables"]).output())?;
    Ok(String::from_utf8_lossy(&listed.map_err(told("nft"))?.stdout).into_owned())
}

fn manual(lab: &mut Lab) -> Result<()> {
    let b = lab.node(B)?;
    std::fs::write(b.file("p2pmesh.toml"), "workshop = \"manual\"\n").map_err(told("toml"))?;
    b.stop("mesh-radio")?;
    match tables(b) {
        Ok(left) if left.contains("p2pmesh_filter") => {
            return Err(format!("after SIGTERM there is still {left}"));
        }
        Ok(_) => {}
        Err(e) => say(&format!("SKIPPED: that the filter goes: {e}")),
    }
    b.start("mesh-radio", &[])?;
    becomes(b, "eth0", Role::Unused, "manual", 10)?;
    let b = lab.at(B)?;
    let _listeners = Listeners::start(b)?;
    let all: Vec<(bool, u16)> = PORTS.iter().flat_map(|port| [(true, *port), (false, *port)]).collect();
    let near = here(b, "eth0")?.1;
    only(lab.at(A)?, near, scope(lab.at(A)?, "eth1")?, &all)
}

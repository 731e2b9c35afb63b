//! Three nodes in a line, a – b – c, and a phone on a's access point: it finds all of them by mDNS and by unicast
//! DNS, whatever it runs; nothing of that is seen on the mesh's links. Two nodes of one name, apart and joined.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use mesh_lab::foreign::{Foreign, Kind};
use mesh_lab::lab::{Lab, Result, told, wait_for};
use mesh_lab::mdns::{self, Sniffer};
use mesh_lab::probe;
use mesh_lab::report::{Report, say};

use super::common::{Step, addresses, bring_up, secs};
use super::names::{ip, status};

const A: usize = 0;
const C: usize = 2;
const PHONE: usize = 3;
const SERVER: usize = 4;
/// The access point's address is the same on every node.
const AP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 8] = [
        ("a_mesh_of_three_and_a_phone", start),
        ("a_phone_finds_a_far_node_by_mdns_and_none_of_it_is_on_the_mesh", by_mdns),
        ("a_phone_finds_a_far_node_by_dns", by_dns),
        ("avahi_on_the_access_point_finds_a_far_node_and_its_services", by_avahi),
        ("the_world_is_forwarded_with_an_uplink_and_the_mesh_is_not_served", forwarded),
        ("two_nodes_of_one_name_settle_when_their_meshes_join", clash),
        ("the_owner_of_a_taken_name_is_told_on_the_console_and_in_the_status", told_to_its_owner),
        ("a_dead_node_is_forgotten_by_its_phone_neighbours", gone),
    ];
    for (at, (name, step)) in steps.into_iter().enumerate() {
        if name.starts_with("avahi") && lab.peers().is_none() {
            say("SKIPPED: avahi on an access point: it could not be fetched");
            continue;
        }
        if report.test(&format!("names_across::{name}"), || step(lab)).is_none() && at == 0 {
            return;
        }
    }
}

fn start_node(lab: &mut Lab, at: usize, cables: usize, more: &[&str]) -> Result<()> {
    let node = lab.node(at)?;
    let name = node.name().to_owned();
    let interfaces: Vec<String> = (0..cables).map(|i| format!("eth{i}")).collect();
    for i in &interfaces {
        bring_up(node, i)?;
    }
    let mut flags = vec!["--interface"];
    flags.extend(interfaces.iter().map(String::as_str));
    node.start("mesh-router", &flags)?;
    flags.extend(["--name", &name]);
    flags.extend(more);
    node.start("mesh-mdns", &flags)
}

fn start(lab: &mut Lab) -> Result<()> {
    for name in ["a", "b", "c", "phone", "server"] {
        lab.add_node(name)?;
    }
    lab.plug(A, 1)?;
    lab.plug(1, C)?;
    // a's access point, and a name server behind it for later.
    let ap = lab.plug(A, PHONE)?;
    lab.node(A)?.join(&ap, AP)?;
    lab.node(PHONE)?.join("eth0", CLIENT)?;
    start_node(lab, A, 1, &["--access-point", &ap])?;
    start_node(lab, 1, 2, &[])?;
    start_node(lab, C, 1, &[])?;
    let started = Instant::now();
    let wanted = addresses(lab.at(C)?)?;
    let node = lab.at(A)?;
    wait_for("c.local on a", secs(30), || {
        let found = probe::resolve(node, "c.local")?;
        if wanted.iter().all(|w| found.contains(w)) { Ok(()) } else { Err(format!("{found:?}")) }
    })?;
    say(&format!("    known two hops away after {:.1} s", started.elapsed().as_secs_f64()));
    Ok(())
}

fn by_mdns(lab: &mut Lab) -> Result<()> {
    // b has both links of the mesh.
    let sniffer = Sniffer::start(lab.at(1)?, "c")?;
    // c says its own name on its own link, which is as it should be: what counts is after that.
    wait_for("the links to be quiet", secs(10), || {
        let before = sniffer.counts();
        std::thread::sleep(secs(2));
        if sniffer.counts() == before { Ok(()) } else { Err("there is still traffic".into()) }
    })?;
    let (_, before) = sniffer.counts();
    let [_, of_c] = addresses(lab.at(C)?)?;
    let took = mdns::ask(lab.at(PHONE)?, CLIENT, ("c", of_c), AP, 20)?;
    probe::resolve(lab.at(A)?, "c.local")?;
    let (_, after) = sniffer.counts();
    say(&format!("    the slowest of 20 answers took {} µs", took.iter().max().unwrap_or(&0)));
    if after == before { Ok(()) } else { Err(format!("{} mDNS packets about c on the mesh", after - before)) }
}

fn by_dns(lab: &mut Lab) -> Result<()> {
    let server = SocketAddr::new(AP.into(), 53);
    let phone = lab.at(PHONE)?;
    let [six, four] = addresses(lab.at(C)?)?;
    for (name, kind, wanted) in [("c.local", 28, six), ("c.local", 1, four), ("a.local", 1, AP.into())] {
        let found = probe::resolve_at(phone, server, name, kind)?;
        if !found.contains(&wanted) {
            return Err(format!("{name}: {found:?}"));
        }
    }
    let found = probe::resolve_at(phone, server, "captive.apple.com", 1)?;
    if found != [AP] {
        return Err(format!("captive.apple.com: {found:?}"));
    }
    for (name, code) in [("nobody.local", "NXDOMAIN"), ("www.example.org", "DNS error 5")] {
        let asked = Instant::now();
        match probe::resolve_at(phone, server, name, 1) {
            Err(why) if why.contains(code) && asked.elapsed() < secs(3) => {}
            other => return Err(format!("{name}: {other:?}")),
        }
    }
    Ok(())
}

fn by_avahi(lab: &mut Lab) -> Result<()> {
    let tools = lab.peers().ok_or("no peers")?.to_path_buf();
    let [_, four] = addresses(lab.at(C)?)?;
    let host = Foreign::start(lab.node(PHONE)?, &tools, Kind::Avahi, "phone")?;
    let phone = lab.at(PHONE)?;
    for (tool, arguments, wanted) in [
        ("avahi-resolve", vec!["-4", "-n", "c.local"], four.to_string()),
        ("avahi-resolve", vec!["-a", &four.to_string()], "c.local".into()),
        ("getent", vec!["ahostsv4", "c.local"], four.to_string()),
        ("avahi-browse", vec!["-rptk", "_http._tcp"], format!(";c;_http._tcp;local;c.local;{four};80;")),
    ] {
        wait_for(&format!("{wanted:?} from {tool}"), secs(15), || {
            let text = host.run(phone, tool, &arguments)?;
            if text.contains(&wanted) { Ok(()) } else { Err(text) }
        })?;
    }
    Ok(())
}

/// Answers one question about anything with 192.0.2.7.
fn serve_once(socket: &UdpSocket) -> Result<()> {
    socket.set_read_timeout(Some(secs(5))).map_err(told("socket"))?;
    let mut buffer = [0u8; 512];
    let (len, from) = socket.recv_from(&mut buffer).map_err(told("no question came"))?;
    let mut answer = buffer.get(..len).unwrap_or_default().to_vec();
    answer.iter_mut().skip(2).zip([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]).for_each(|(a, b)| *a = b);
    answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07");
    socket.send_to(&answer, from).map(drop).map_err(told("answer"))
}

fn forwarded(lab: &mut Lab) -> Result<()> {
    let uplink = lab.plug(A, SERVER)?;
    lab.node(A)?.join(&uplink, Ipv4Addr::new(203, 0, 113, 2))?;
    lab.node(SERVER)?.join("eth0", Ipv4Addr::new(203, 0, 113, 1))?;
    let list = lab.at(A)?.run_dir().join("resolv.conf");
    std::fs::write(&list, "nameserver 203.0.113.1\n").map_err(told("resolv.conf"))?;
    let ap = SocketAddr::new(AP.into(), 53);
    let server = lab.at(SERVER)?;
    let socket = server.inside(|| UdpSocket::bind("203.0.113.1:53"))?.map_err(told("name server"))?;
    let phone = lab.at(PHONE)?;
    let found = std::thread::scope(|scope| {
        let answering = scope.spawn(|| serve_once(&socket));
        let found =
            wait_for("www.example.org", secs(5), || probe::resolve_at(phone, ap, "www.example.org", 1));
        let _ = answering.join();
        found
    })?;
    if found != [ip("192.0.2.7")?] {
        return Err(format!("www.example.org: {found:?}"));
    }
    // From the uplink and from the mesh nobody gets as much as a refusal.
    let [_, four] = addresses(lab.at(A)?)?;
    for (at, to) in [(SERVER, ip("203.0.113.2")?), (C, four)] {
        match probe::resolve_at(lab.at(at)?, SocketAddr::new(to, 53), "a.local", 1) {
            Err(why) if why.contains("no answer") => {}
            other => return Err(format!("asked from {}: {other:?}", lab.at(at)?.name())),
        }
    }
    std::fs::remove_file(&list).map_err(told("resolv.conf"))
}

fn clash(lab: &mut Lab) -> Result<()> {
    // c is cut off, and starts anew with a's name there.
    lab.unplug(1, "eth1")?;
    lab.node(C)?.stop("mesh-mdns")?;
    let node = lab.at(A)?;
    wait_for("c.local to be gone", secs(40), || match probe::resolve(node, "c.local") {
        Err(why) if why.contains("NXDOMAIN") => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    lab.node(C)?.start("mesh-mdns", &["--name", "a", "--interface", "eth1"])?;
    let cable = lab.plug(1, C)?;
    for (at, interface) in [(1, cable.as_str()), (C, "eth1")] {
        bring_up(lab.node(at)?, interface)?;
    }
    for (at, name) in [(1, cable.as_str()), (C, "eth1")] {
        let flags: &[&str] = if at == 1 { &["--interface", "eth0", name] } else { &["--interface", name] };
        lab.node(at)?.stop("mesh-router")?;
        lab.node(at)?.start("mesh-router", flags)?;
    }
    let joined = Instant::now();
    let [[_, of_a], [_, of_c]] = [addresses(lab.at(A)?)?, addresses(lab.at(C)?)?];
    for at in [A, C] {
        let node = lab.at(at)?;
        wait_for(&format!("a.local and a-2.local on {}", node.name()), secs(40), || {
            let (first, second) = (probe::resolve(node, "a.local")?, probe::resolve(node, "a-2.local")?);
            match first.contains(&of_a) && second.contains(&of_c) {
                true => Ok(()),
                false => Err(format!("a.local {first:?}, a-2.local {second:?}")),
            }
        })?;
    }
    say(&format!("    settled {:.1} s after the cable", joined.elapsed().as_secs_f64()));
    let problems = status(lab.at(C)?)?.problems;
    let told = problems.iter().any(|p| p.contains("a-2.local") && p.contains("of the mesh"));
    if told { Ok(()) } else { Err(format!("not among the problems: {problems:?}")) }
}

/// The same with the supervisor over it, whose output is the console of a node.
fn told_to_its_owner(lab: &mut Lab) -> Result<()> {
    let (a, programs) = (lab.at(A)?.id()?, lab.binaries().display().to_string());
    let node = lab.node(C)?;
    node.stop("mesh-mdns")?;
    let table = node.file("services.conf").display().to_string();
    let entry = "[mesh-mdns]\nexec = mesh-mdns --name a --interface eth1\n";
    std::fs::write(&table, entry).map_err(told("table"))?;
    node.start("mesh-supervisor", &["--quick", "--services", &table, "--program-dir", &programs])?;
    let started = Instant::now();
    let line = format!(
        "the name a is taken by node {a} of the mesh: this node is called a-2 (a-2.local) now. \
         Give one of them another `hostname` in p2pmesh.toml"
    );
    let console = node.file("mesh-supervisor.log");
    wait_for("the line on the console", secs(40), || {
        let all = std::fs::read_to_string(&console).map_err(told("console"))?;
        let wanted = format!("p2pmesh: mesh-mdns: {line}");
        if all.lines().filter(|l| *l == wanted).count() == 1 { Ok(()) } else { Err(all) }
    })?;
    say(&format!("    told after {:.1} s", started.elapsed().as_secs_f64()));
    let run_dir = node.run_dir().display().to_string();
    let shown = node.run("meshctl", &["--run-dir", &run_dir, "status"], b"");
    let shown = shown.map_or_else(|e| e, |out| String::from_utf8_lossy(&out).into_owned());
    node.stop("mesh-supervisor")?;
    node.start("mesh-mdns", &["--name", "a", "--interface", "eth1"])?;
    // It may be broken over lines.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    if !words(&shown).contains(&words(&line)) {
        return Err(format!("meshctl status: {shown}"));
    }
    wait_for("the name to be a-2 once more", secs(40), || match status(node)?.problems {
        all if all.iter().any(|p| p.contains(&line)) => Ok(()),
        all => Err(format!("{all:?}")),
    })
}

fn gone(lab: &mut Lab) -> Result<()> {
    lab.node(C)?.kill("mesh-mdns")?;
    lab.node(C)?.kill("mesh-router")?;
    let died = Instant::now();
    let (phone, server) = (lab.at(PHONE)?, SocketAddr::new(AP.into(), 53));
    wait_for("a-2.local to be forgotten", secs(40), || {
        match probe::resolve_at(phone, server, "a-2.local", 1) {
            Err(why) if why.contains("NXDOMAIN") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    say(&format!("    forgotten after {:.1} s", died.elapsed().as_secs_f64()));
    match died.elapsed() <= secs(30) {
        true => Ok(()),
        false => Err(format!("only after {:.1} s", died.elapsed().as_secs_f64())),
    }
}

//! Ours beside the mDNS implementations of others, one cable to each, both directions: whom they find, whom we
//! find, two of one name, goodbyes.

use std::net::IpAddr;
use std::process::Command;
use std::time::Instant;

use mesh_lab::foreign::{Foreign, Kind};
use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::probe;
use mesh_lab::report::{Report, say};

use super::common::{Step, bring_up, secs};
use super::names::{add_address, ip, resolves, serve, status};

const OURS: usize = 0;
const AVAHI: usize = 1;
const RESOLVED: usize = 2;
const ZEROCONF: usize = 3;
const PEERS: [(usize, &str, Kind); 3] = [
    (AVAHI, "avahi", Kind::Avahi),
    (RESOLVED, "resolved", Kind::Resolved),
    (ZEROCONF, "zeroconf", Kind::Zeroconf),
];

/// Services that people added.
const FILES: [(&str, &str); 2] = [
    ("bad.toml", "type = \"_http._tcp\"\nport = \"eighty\"\n"),
    ("books.toml", "type = \"_http._tcp\"\nport = 8000\ntitle = \"Library\"\ntext = [\"path=/books/\"]\n"),
];

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    if lab.peers().is_none() {
        say(
            "SKIPPED: names beside avahi, nss-mdns, python-zeroconf and systemd-resolved: they could not be fetched",
        );
        return;
    }
    let steps: [(&str, Step); 14] = [
        ("all_start", start),
        ("avahi_finds_ours", avahi_finds_ours),
        ("nss_mdns_finds_ours", nss_mdns_finds_ours),
        ("resolved_finds_ours", resolved_finds_ours),
        ("python_zeroconf_finds_ours", zeroconf_finds_ours),
        ("rfc6763_4_and_9_avahi_browses_our_services", avahi_browses),
        ("rfc6763_5_and_6_resolved_and_python_zeroconf_find_our_services", they_find_services),
        ("services_of_people_are_followed_while_it_runs", services_followed),
        ("a_manual_workshop_takes_the_web_services_back_and_auto_gives_them", workshop_followed),
        ("ours_finds_avahi_and_resolved", ours_finds_them),
        ("ours_finds_python_zeroconf", ours_finds_zeroconf),
        ("ours_gives_way_to_avahi", ours_gives_way),
        ("avahi_gives_way_to_ours", avahi_gives_way),
        ("they_hear_our_goodbye", goodbye),
    ];
    for (at, (name, step)) in steps.into_iter().enumerate() {
        if report.test(&format!("interop::{name}"), || step(lab)).is_none() && at == 0 {
            return;
        }
    }
}

/// The address of ours, or of the other, on the cable to that peer.
fn on_cable(peer: usize, ours: bool) -> String {
    format!("192.168.{peer}.{}", if ours { 1 } else { 2 })
}

fn peer(lab: &mut Lab, at: usize, kind: Kind, name: &str) -> Result<Foreign> {
    let tools = lab.peers().ok_or("no peers")?.to_path_buf();
    Foreign::start(lab.node(at)?, &tools, kind, name)
}

fn start(lab: &mut Lab) -> Result<()> {
    lab.add_node("ours")?;
    for (at, name, _) in PEERS {
        lab.add_node(name)?;
        let here = lab.plug(OURS, at)?;
        for (node, interface, ours) in [(OURS, here.as_str(), true), (at, "eth0", false)] {
            let node = lab.node(node)?;
            bring_up(node, interface)?;
            add_address(node, interface, &on_cable(at, ours))?;
        }
    }
    for (at, name, kind) in PEERS {
        peer(lab, at, kind, name)?;
    }
    let folder = lab.node(OURS)?.file("state/services");
    std::fs::create_dir_all(&folder).map_err(told("services"))?;
    for (file, text) in FILES {
        std::fs::write(folder.join(file), text).map_err(told(file))?;
    }
    serve(lab.node(OURS)?, "ours", 3)
}

/// Runs a tool of a peer until its output has what is wanted.
fn says(lab: &Lab, at: usize, tool: &str, arguments: &[&str], wanted: &str) -> Result<()> {
    let host = Foreign::at(lab.peers().ok_or("no peers")?);
    let node = lab.at(at)?;
    wait_for(&format!("{wanted:?} from {tool} {}", arguments.join(" ")), secs(15), || {
        let text = host.run(node, tool, arguments)?;
        if text.contains(wanted) { Ok(()) } else { Err(text) }
    })
}

fn link_local(node: &Node, interface: &str) -> Result<IpAddr> {
    let all = node.kernel(|nl| {
        let index = nl.link(interface)?.map_or(0, |l| l.index);
        Ok(nl.addresses()?.into_iter().filter(|a| a.index == index).map(|a| a.ip).collect::<Vec<_>>())
    })?;
    let found = all.into_iter().find(|a| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local()));
    found.ok_or_else(|| format!("{interface} has no link-local address"))
}

fn avahi_finds_ours(lab: &mut Lab) -> Result<()> {
    let address = on_cable(AVAHI, true);
    says(lab, AVAHI, "avahi-resolve", &["-4", "-n", "ours.local"], &address)?;
    let six = link_local(lab.at(OURS)?, "eth0")?.to_string();
    says(lab, AVAHI, "avahi-resolve", &["-6", "-n", "ours.local"], &six)?;
    says(lab, AVAHI, "avahi-resolve", &["-a", &address], "ours.local")?;
    says(lab, AVAHI, "avahi-resolve", &["-a", &six], "ours.local")
}

fn nss_mdns_finds_ours(lab: &mut Lab) -> Result<()> {
    let six = link_local(lab.at(OURS)?, "eth0")?.to_string();
    says(lab, AVAHI, "getent", &["ahostsv4", "ours.local"], &on_cable(AVAHI, true))?;
    says(lab, AVAHI, "getent", &["ahostsv6", "ours.local"], &six)?;
    // Of addresses it asks for link-local ones alone.
    says(lab, AVAHI, "getent", &["hosts", &six], "ours.local")
}

fn resolved_finds_ours(lab: &mut Lab) -> Result<()> {
    let address = on_cable(RESOLVED, true);
    says(lab, RESOLVED, "resolvectl", &["query", "-4", "ours.local"], &address)?;
    let six = link_local(lab.at(OURS)?, "eth1")?.to_string();
    says(lab, RESOLVED, "resolvectl", &["query", "-6", "ours.local"], &six)?;
    says(lab, RESOLVED, "resolvectl", &["query", &address], "ours.local")
}

/// Prints the addresses of a name.
const FIND: &str = "
import sys, zeroconf
z = zeroconf.Zeroconf(interfaces=[sys.argv[1]])
r = zeroconf.AddressResolver(sys.argv[2])
print(r.request(z, 5000), r.parsed_addresses())
z.close()
";

/// Prints a service's target, port and text.
const FIND_SERVICE: &str = "
import sys, zeroconf
z = zeroconf.Zeroconf(interfaces=[sys.argv[1]])
i = z.get_service_info(sys.argv[2], sys.argv[3], 5000)
print(i and (i.server, i.port, i.properties, i.parsed_addresses()))
z.close()
";

/// Is a host with a service, until it is ended.
const SERVE: &str = "
import signal, sys, zeroconf
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
z = zeroconf.Zeroconf(interfaces=[sys.argv[1]])
z.register_service(zeroconf.ServiceInfo('_http._tcp.local.', 'snake._http._tcp.local.', port=80,
                                        parsed_addresses=[sys.argv[1]], server='snake.local.'))
signal.sigwait([signal.SIGTERM])
z.close()
";

fn zeroconf_finds_ours(lab: &mut Lab) -> Result<()> {
    let arguments = ["-c", FIND, &on_cable(ZEROCONF, false), "ours.local."];
    says(lab, ZEROCONF, "python3", &arguments, &on_cable(ZEROCONF, true))
}

fn avahi_browses(lab: &mut Lab) -> Result<()> {
    for (kind, wanted) in [
        ("_http._tcp", format!(";ours;_http._tcp;local;ours.local;{};80;", on_cable(AVAHI, true))),
        (
            "_http._tcp",
            format!(
                ";Library\\032on\\032ours;_http._tcp;local;ours.local;{};8000;\"path=/books/\"",
                on_cable(AVAHI, true)
            ),
        ),
        ("_ipfs-gateway._tcp", ";ours;_ipfs-gateway._tcp;local;ours.local;".into()),
        ("_p2pmesh._udp", ";ours;_p2pmesh._udp;local;ours.local;".into()),
        ("_workstation._tcp", ";ours;_workstation._tcp;local;ours.local;".into()),
    ] {
        says(lab, AVAHI, "avahi-browse", &["-rptk", kind], &wanted)?;
    }
    says(lab, AVAHI, "avahi-browse", &["-aptk"], ";ours;_ipfs-gateway._tcp;local")
}

fn they_find_services(lab: &mut Lab) -> Result<()> {
    says(
        lab,
        RESOLVED,
        "resolvectl",
        &["service", "Library on ours", "_http._tcp", "local"],
        "ours.local:8000",
    )?;
    let full = "Library on ours._http._tcp.local.";
    let arguments = ["-c", FIND_SERVICE, &on_cable(ZEROCONF, false), "_http._tcp.local.", full];
    let wanted = "('ours.local.', 8000, {b'path': b'/books/'}";
    says(lab, ZEROCONF, "python3", &arguments, wanted)?;
    // One of the two files was not good: its fault is told, and the other counts.
    let problems = status(lab.at(OURS)?)?.problems;
    let told = problems.iter().any(|p| p.contains("bad.toml: line 2, column 1: port:"));
    if told { Ok(()) } else { Err(format!("not among the problems: {problems:?}")) }
}

/// Waits until the list of a peer no longer has something: by a goodbye, its lifetime is 75 minutes.
fn says_no_more(lab: &Lab, kind: &str, unwanted: &str) -> Result<()> {
    let host = Foreign::at(lab.peers().ok_or("no peers")?);
    let node = lab.at(AVAHI)?;
    wait_for(&format!("{unwanted:?} to be gone from avahi's list"), secs(15), || {
        let text = host.run(node, "avahi-browse", &["-ptk", kind])?;
        if text.contains(unwanted) { Err(text) } else { Ok(()) }
    })
}

fn services_followed(lab: &mut Lab) -> Result<()> {
    let folder = lab.at(OURS)?.file("state/services");
    let write = |file: &str, text: &str| std::fs::write(folder.join(file), text).map_err(told(file));
    // One comes, and one whose fault is mended.
    write("news.toml", "type = \"_http._tcp\"\nport = 8001\ntitle = \"News\"\n")?;
    write("bad.toml", "type = \"_sip._udp\"\nport = 5060\n")?;
    let ours = on_cable(AVAHI, true);
    let list = |port: u16| format!(";News\\032on\\032ours;_http._tcp;local;ours.local;{ours};{port};");
    says(lab, AVAHI, "avahi-browse", &["-rptk", "_http._tcp"], &list(8001))?;
    says(lab, AVAHI, "avahi-browse", &["-rptk", "_sip._udp"], ";ours.local;")?;
    let problems = status(lab.at(OURS)?)?.problems;
    if problems.iter().any(|p| p.contains("bad.toml")) {
        return Err(format!("a mended file is still among the problems: {problems:?}"));
    }
    // It changes, breaks, and goes.
    write("news.toml", "type = \"_http._tcp\"\nport = 8002\ntitle = \"News\"\n")?;
    says(lab, AVAHI, "avahi-browse", &["-rptk", "_http._tcp"], &list(8002))?;
    write("bad.toml", "type = \"_sip._udp\"\nport = 506000\n")?;
    says_no_more(lab, "_sip._udp", ";ours;")?;
    let problems = status(lab.at(OURS)?)?.problems;
    if !problems.iter().any(|p| p.contains("bad.toml: line 2, column 1: port:")) {
        return Err(format!("not among the problems: {problems:?}"));
    }
    std::fs::remove_file(folder.join("news.toml")).map_err(told("news.toml"))?;
    says_no_more(lab, "_http._tcp", "News")
}

fn workshop_followed(lab: &mut Lab) -> Result<()> {
    let config = lab.at(OURS)?.file("p2pmesh.toml");
    let write = |text: &str| std::fs::write(&config, text).map_err(told("p2pmesh.toml"));
    write("workshop = \"manual\"\n")?;
    says_no_more(lab, "_ipfs-gateway._tcp", ";ours;")?;
    says_no_more(lab, "_http._tcp", ";ours;")?;
    // What people described themselves stays.
    says(lab, AVAHI, "avahi-browse", &["-ptk", "_http._tcp"], "Library")?;
    write("workshop = \"auto\"\n")?;
    says(lab, AVAHI, "avahi-browse", &["-ptk", "_http._tcp"], ";ours;")?;
    says(lab, AVAHI, "avahi-browse", &["-ptk", "_ipfs-gateway._tcp"], ";ours;")
}

fn ours_finds_them(lab: &mut Lab) -> Result<()> {
    for at in [AVAHI, RESOLVED] {
        let (name, address) = (format!("{}.local", lab.at(at)?.name()), on_cable(at, false));
        resolves(lab, OURS, &name, &address)?;
        let node = lab.at(OURS)?;
        let back = probe::reverse(node, ip(&address)?)?;
        if back != name {
            return Err(format!("{address} is {back}, not {name}"));
        }
    }
    Ok(())
}

fn ours_finds_zeroconf(lab: &mut Lab) -> Result<()> {
    let host = Foreign::at(lab.peers().ok_or("no peers")?);
    let address = on_cable(ZEROCONF, false);
    let node = lab.node(ZEROCONF)?;
    let command: Command = host.command(node, "python3", &["-c", SERVE, &address])?;
    node.spawn("snake", command)?;
    resolves(lab, OURS, "snake.local", &address)?;
    lab.node(ZEROCONF)?.stop("snake")
}

fn ours_gives_way(lab: &mut Lab) -> Result<()> {
    lab.node(OURS)?.stop("mesh-mdns")?;
    let started = Instant::now();
    serve(lab.node(OURS)?, "avahi", 3)?;
    say(&format!("    renamed and announced after {:.0} ms", started.elapsed().as_secs_f64() * 1e3));
    says(lab, AVAHI, "avahi-resolve", &["-4", "-n", "avahi-2.local"], &on_cable(AVAHI, true))?;
    says(lab, AVAHI, "avahi-resolve", &["-4", "-n", "avahi.local"], &on_cable(AVAHI, false))?;
    let problems = status(lab.at(OURS)?)?.problems;
    let told = problems.iter().any(|p| p.contains("avahi-2.local"));
    if told { Ok(()) } else { Err(format!("not among the problems: {problems:?}")) }
}

fn avahi_gives_way(lab: &mut Lab) -> Result<()> {
    lab.node(AVAHI)?.stop("host")?;
    lab.node(OURS)?.stop("mesh-mdns")?;
    serve(lab.node(OURS)?, "ours", 3)?;
    // Its own name counts as found, whatever it is called in the end.
    let tools = lab.peers().ok_or("no peers")?.to_path_buf();
    let node = lab.node(AVAHI)?;
    Foreign::start_as(node, &tools, Kind::Avahi, "ours", "ours-2").map(drop)?;
    resolves(lab, OURS, "ours-2.local", &on_cable(AVAHI, false))?;
    says(lab, AVAHI, "avahi-resolve", &["-4", "-n", "ours.local"], &on_cable(AVAHI, true))
}

fn goodbye(lab: &mut Lab) -> Result<()> {
    resolved_finds_ours(lab)?;
    lab.node(OURS)?.stop("mesh-mdns")?;
    let host = Foreign::at(lab.peers().ok_or("no peers")?);
    for (at, tool, arguments) in [
        (AVAHI, "avahi-resolve", ["-4", "-n", "ours.local"].as_slice()),
        (RESOLVED, "resolvectl", ["query", "-4", "ours.local"].as_slice()),
    ] {
        let node = lab.at(at)?;
        // Its records would live for two minutes more.
        wait_for("ours.local to be forgotten", secs(20), || match host.run(node, tool, arguments) {
            Err(_) => Ok(()),
            Ok(text) => Err(text),
        })?;
    }
    Ok(())
}

//! Two name services on one cable, without a router: found, renamed, followed and forgotten by mDNS alone.

use std::net::IpAddr;
use std::time::Instant;

use mesh_ipc::names::{NamesRequest, NamesResponse};
use mesh_ipc::{Request, Response, ServiceStatus};
use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::mdns;
use mesh_lab::probe;
use mesh_lab::report::{Report, say};
use mesh_sys::control::Client;
use socket2::Domain;

use super::common::{Step, bring_up, secs};

const A: usize = 0;
const B: usize = 1;
const ADDRESSES: [&str; 2] = ["192.168.1.1", "192.168.1.2"];

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 6] = [
        ("rfc6762_8_1_a_name_is_probed_and_announced", start),
        ("names_of_the_link_by_dns", found),
        ("the_address_family_that_asked_is_answered_first", first),
        ("rfc6762_8_4_a_new_address_is_followed", followed),
        ("rfc6762_9_the_second_of_a_name_is_renamed_and_says_so", renamed),
        ("rfc6762_10_1_goodbye", goodbye),
    ];
    for (name, step) in steps {
        if report.test(&format!("names::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

pub(super) fn ip(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| format!("{text}: no address"))
}

pub(super) fn ask(node: &Node, request: Request<NamesRequest>) -> Result<Response<NamesResponse>> {
    let mut client: Client<NamesRequest, NamesResponse> =
        Client::connect(&node.run_dir(), "mesh-mdns", secs(5)).map_err(told("mesh-mdns"))?;
    client.request(&request).map_err(told("mesh-mdns"))
}

pub(super) fn status(node: &Node) -> Result<ServiceStatus> {
    match ask(node, Request::Status)? {
        Response::Status(status) => Ok(status),
        other => Err(format!("another answer: {other:?}")),
    }
}

pub(super) fn serve(node: &mut Node, name: &str, links: u64) -> Result<()> {
    let interfaces: Vec<String> = (0..links).map(|i| format!("eth{i}")).collect();
    let mut flags = vec!["--name", name, "--interface"];
    flags.extend(interfaces.iter().map(String::as_str));
    node.start("mesh-mdns", &flags)?;
    wait_for(&format!("the name of {}", node.name()), secs(5), || {
        let s = status(node)?;
        let value = |n: &str| s.counters.iter().find(|(name, _)| name == n).map_or(0, |(_, v)| *v);
        // Probes and two announcements.
        match value("links") == links && value("established") == 1 && value("mdns_sent") >= 4 * links {
            true => Ok(()),
            false => Err(format!("{s:?}")),
        }
    })
}

fn start(lab: &mut Lab) -> Result<()> {
    for name in ["a", "b"] {
        lab.add_node(name)?;
    }
    lab.plug(A, B)?;
    for (at, address) in [A, B].into_iter().zip(ADDRESSES) {
        let node = lab.node(at)?;
        bring_up(node, "eth0")?;
        add_address(node, "eth0", address)?;
    }
    for at in [A, B] {
        let node = lab.node(at)?;
        let name = node.name().to_owned();
        let started = Instant::now();
        serve(node, &name, 1)?;
        say(&format!("    announced after {:.0} ms", started.elapsed().as_secs_f64() * 1e3));
    }
    Ok(())
}

pub(super) fn add_address(node: &Node, interface: &str, address: &str) -> Result<()> {
    let address = ip(address)?;
    node.kernel(|nl| {
        let index = nl.link(interface)?.map_or(0, |l| l.index);
        nl.add_address(index, address, 24)
    })
}

pub(super) fn resolves(lab: &mut Lab, on: usize, name: &str, to: &str) -> Result<()> {
    let to = ip(to)?;
    let node = lab.node(on)?;
    wait_for(&format!("{name} on {}", node.name()), secs(5), || {
        let all = probe::resolve(node, name)?;
        if all.contains(&to) { Ok(()) } else { Err(format!("{all:?}")) }
    })
}

fn found(lab: &mut Lab) -> Result<()> {
    resolves(lab, A, "b.local", ADDRESSES[B])?;
    resolves(lab, B, "a.local", ADDRESSES[A])?;
    resolves(lab, A, "A.LOCAL", ADDRESSES[A])?;
    let node = lab.node(A)?;
    match probe::resolve(node, "nobody.local") {
        Err(why) if why.contains("NXDOMAIN") => {}
        other => return Err(format!("nobody.local: {other:?}")),
    }
    match ask(node, Request::Service(NamesRequest::Resolve("b.local".into())))? {
        Response::Service(NamesResponse::Names(n)) if n.iter().any(|n| n.name == "b") => Ok(()),
        other => Err(format!("b.local: {other:?}")),
    }
}

fn first(lab: &mut Lab) -> Result<()> {
    let node = lab.node(B)?;
    for by in [Domain::IPV4, Domain::IPV6, Domain::IPV6, Domain::IPV4] {
        // Nothing is multicast twice within a second (RFC 6762 §6).
        std::thread::sleep(std::time::Duration::from_millis(1_100));
        let came = mdns::first_answer(node, "eth0", "a", by)?;
        if came != by {
            return Err(format!("asked by {by:?}, answered by {came:?}"));
        }
    }
    Ok(())
}

fn followed(lab: &mut Lab) -> Result<()> {
    add_address(lab.node(B)?, "eth0", "192.168.0.1")?;
    let added = Instant::now();
    resolves(lab, A, "b.local", "192.168.0.1")?;
    say(&format!("    followed after {:.0} ms", added.elapsed().as_secs_f64() * 1e3));
    Ok(())
}

fn renamed(lab: &mut Lab) -> Result<()> {
    lab.node(B)?.stop("mesh-mdns")?;
    let started = Instant::now();
    serve(lab.node(B)?, "a", 1)?;
    resolves(lab, A, "a-2.local", ADDRESSES[B])?;
    say(&format!("    renamed and announced after {:.0} ms", started.elapsed().as_secs_f64() * 1e3));
    resolves(lab, B, "a.local", ADDRESSES[A])?;
    let problems = status(lab.node(B)?)?.problems;
    match problems.iter().any(|p| p.contains("a-2.local") && p.contains("hostname")) {
        true => Ok(()),
        false => Err(format!("not among the problems: {problems:?}")),
    }
}

fn goodbye(lab: &mut Lab) -> Result<()> {
    lab.node(B)?.stop("mesh-mdns")?;
    let node = lab.node(A)?;
    // Its records would live for two minutes more.
    wait_for("a-2.local to be forgotten", secs(5), || match probe::resolve(node, "a-2.local") {
        Err(why) if why.contains("NXDOMAIN") => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

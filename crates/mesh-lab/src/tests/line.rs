//! Three nodes in a line, a – b – c: routes, names, a file over two hops, a cable pulled and plugged in
//! again, a router that crashes, routers that end.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::probe;
use mesh_lab::report::{Report, say};

use super::common::{Step, addresses, kernel_routes, routes, secs, symmetric_links};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const NAMES: [&str; 3] = ["a", "b", "c"];
const SERVICES: [&str; 4] = ["mesh-radio", "mesh-router", "mesh-mdns", "mesh-store"];
const TEXT: &[u8] = b"Hello World\n";
const TEXT_CID: &str = "QmWATWQ7fVPP2EFGu71UkfnqhYXDYH566qy47CnJDgvs8u";

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 10] = [
        ("services_start", start),
        ("neighbours_are_symmetric", symmetric),
        ("rfc7181_routes_over_two_hops", two_hops),
        ("echoes_over_two_hops", echoes),
        ("names_over_two_hops", names),
        ("a_file_over_two_hops", file),
        ("meshctl_shows_the_mesh", shown),
        ("a_pulled_cable_is_seen_at_once_and_a_new_one_used", cable),
        ("a_crashed_router_takes_its_routes_over", crash),
        ("routers_leave_nothing_behind", leave),
    ];
    for (name, step) in steps {
        if report.test(&format!("line_of_three::{name}"), || step(lab)).is_none()
            && matches!(name, "services_start" | "neighbours_are_symmetric")
        {
            return; // the rest would only fail, slowly
        }
    }
}

fn start(lab: &mut Lab) -> Result<()> {
    for name in NAMES {
        lab.add_node(name)?;
    }
    lab.plug(A, B)?;
    lab.plug(B, C)?;
    for at in [A, B, C] {
        let node = lab.node(at)?;
        let name = node.name().to_owned();
        node.start("mesh-radio", &[])?;
        node.start("mesh-router", &[])?;
        node.start("mesh-mdns", &["--name", &name])?;
        node.start("mesh-store", &[])?;
    }
    for at in [A, B, C] {
        let node = lab.node(at)?;
        for service in SERVICES {
            let socket = node.run_dir().join(format!("{service}.sock"));
            wait_for(&format!("{service} on {}", node.name()), secs(10), || {
                if let [ended, ..] = node.ended().as_slice() {
                    return Err(ended.clone());
                }
                std::os::unix::net::UnixStream::connect(&socket).map(drop).map_err(told("control socket"))
            })?;
        }
    }
    Ok(())
}

fn symmetric(lab: &mut Lab) -> Result<()> {
    for (at, links) in [(A, 2), (B, 4), (C, 2)] {
        symmetric_links(lab.node(at)?, links)?;
    }
    Ok(())
}

/// Waits until the router and the kernel of `at` have a route of `hops` hops to both addresses of `to`.
fn route(lab: &mut Lab, at: usize, to: usize, hops: u8, patience: Duration) -> Result<()> {
    let there = addresses(lab.node(to)?)?;
    let node = lab.node(at)?;
    for ip in there {
        wait_for(&format!("route of {} to {ip}", node.name()), patience, || {
            let all = routes(node)?;
            let found = all.iter().find(|r| r.destination == ip).ok_or_else(|| format!("{all:?}"))?;
            if found.hops != hops {
                return Err(format!("{} hops: {found:?}", found.hops));
            }
            let kernel = kernel_routes(node)?;
            let there =
                kernel.iter().any(|k| k.prefix == ip && k.gateway.is_some() == (hops > 1 || ip.is_ipv6()));
            if there { Ok(()) } else { Err(format!("the kernel has {kernel:?}")) }
        })?;
    }
    Ok(())
}

fn two_hops(lab: &mut Lab) -> Result<()> {
    route(lab, A, C, 2, secs(30))?;
    route(lab, C, A, 2, secs(30))?;
    route(lab, A, B, 1, secs(5))?;
    // The /64 of c, announced as an attached network.
    let prefix: IpAddr = lab.node(C)?.id()?.ula_prefix().into();
    let node = lab.node(A)?;
    wait_for(&format!("route to {prefix}/64"), secs(15), || {
        let all = routes(node)?;
        match all.iter().any(|r| r.destination == prefix && r.prefix_len == 64) {
            true => Ok(()),
            false => Err(format!("{all:?}")),
        }
    })
}

fn echoes(lab: &mut Lab) -> Result<()> {
    for (from, to) in [(A, C), (C, A), (A, B)] {
        for ip in addresses(lab.node(to)?)? {
            let node = lab.node(from)?;
            let time = wait_for(&format!("echo of {ip}"), secs(5), || probe::ping(node, ip, secs(1)))?;
            say(&format!("    {} → {ip}: {:.2} ms", node.name(), time.as_secs_f64() * 1e3));
        }
    }
    Ok(())
}

fn names(lab: &mut Lab) -> Result<()> {
    for (from, to) in [(A, C), (A, B), (C, A)] {
        let want = addresses(lab.node(to)?)?;
        let name = format!("{}.local", lab.node(to)?.name());
        let node = lab.node(from)?;
        wait_for(&format!("{name} on {}", node.name()), secs(30), || {
            let found = probe::resolve(node, &name)?;
            let all = want.iter().all(|w| found.contains(w));
            if all { Ok(()) } else { Err(format!("{found:?} instead of {want:?}")) }
        })?;
    }
    Ok(())
}

fn file(lab: &mut Lab) -> Result<()> {
    let run_dir = |node: &Node| node.run_dir().display().to_string();
    let a = lab.node(A)?;
    let added = a.run("meshctl", &["--run-dir", &run_dir(a), "ipfs", "add"], TEXT)?;
    let added = String::from_utf8_lossy(&added).into_owned();
    if !added.contains(TEXT_CID) {
        return Err(format!("ipfs add printed {added:?}, not {TEXT_CID}"));
    }
    let c = lab.node(C)?;
    let start = Instant::now();
    let text = c.run("meshctl", &["--run-dir", &run_dir(c), "ipfs", "cat", TEXT_CID], b"")?;
    say(&format!("    ipfs cat on c: {:.0} ms", start.elapsed().as_secs_f64() * 1e3));
    same(&text, TEXT)?;
    // Larger than one block; fetched by a web client on c from the gateway of c, and of b.
    let large: Vec<u8> = (0..1_500_000u32).map(|i| (i ^ (i >> 7)) as u8).collect();
    let a = lab.node(A)?;
    let added = a.run("meshctl", &["--run-dir", &run_dir(a), "ipfs", "add", "-Q"], &large)?;
    let cid = String::from_utf8_lossy(&added).trim().to_owned();
    for (at, gateway) in [(C, C), (C, B)] {
        let to = (addresses(lab.node(gateway)?)?[0], 8080).into();
        let start = Instant::now();
        let page = probe::http_get(lab.node(at)?, to, &format!("/ipfs/{cid}"), secs(20))?;
        say(&format!("    1.5 MB by HTTP: {:.0} ms", start.elapsed().as_secs_f64() * 1e3));
        same(&page, &large)?;
    }
    memory(lab)
}

fn shown(lab: &mut Lab) -> Result<()> {
    let there = addresses(lab.node(C)?)?;
    let node = lab.node(B)?;
    let run_dir = node.run_dir().display().to_string();
    let [six, four] = there.map(|ip| ip.to_string());
    for (command, parts) in [
        ("neighbors", [&six, &four, "eth1", "symmetric"]),
        ("routes", [&six, &four, "eth1", "/64"]),
        ("topology", [&six, &four, "COST", "FROM"]),
        ("radio", ["eth0", "eth1", "mesh", "wired"]),
        ("names", [&six, &four, "c.local", "a.local"]),
    ] {
        let out = node.run("meshctl", &["--run-dir", &run_dir, command], b"")?;
        let text = String::from_utf8_lossy(&out).into_owned();
        if let Some(missing) = parts.iter().find(|p| !text.contains(**p)) {
            return Err(format!("meshctl {command} does not show {missing}:\n{text}"));
        }
    }
    Ok(())
}

/// What the services of b use now (printed, not judged: debug builds are larger).
fn memory(lab: &mut Lab) -> Result<()> {
    let node = lab.node(B)?;
    let rss: Vec<(&str, u64)> =
        SERVICES.iter().map(|s| (*s, node.pid(s).map_or(0, mesh_sys::process::rss_kib))).collect();
    let parts: Vec<String> = rss.iter().map(|(s, kib)| format!("{s} {kib}")).collect();
    say(&format!(
        "    KiB of RSS on b: {}, together {}",
        parts.join(", "),
        rss.iter().map(|r| r.1).sum::<u64>()
    ));
    Ok(())
}

fn same(got: &[u8], want: &[u8]) -> Result<()> {
    match got == want {
        true => Ok(()),
        false => Err(format!("{} bytes came, other than the {} sent", got.len(), want.len())),
    }
}

fn cable(lab: &mut Lab) -> Result<()> {
    lab.unplug(C, "eth0")?;
    let cut = Instant::now();
    let gone = addresses(lab.node(C)?)?;
    let b = lab.node(B)?;
    wait_for("b to drop its routes to c", secs(2), || {
        let left = routes(b)?.into_iter().filter(|r| gone.contains(&r.destination)).count();
        if left == 0 { Ok(()) } else { Err(format!("{left} left")) }
    })?;
    say(&format!("    b drops c after {:.0} ms", cut.elapsed().as_secs_f64() * 1e3));
    let a = lab.node(A)?;
    wait_for("a to drop its routes to c", secs(20), || {
        let left = routes(a)?.into_iter().filter(|r| gone.contains(&r.destination)).count();
        if left == 0 { Ok(()) } else { Err(format!("{left} left")) }
    })?;
    say(&format!("    a drops c after {:.0} ms", cut.elapsed().as_secs_f64() * 1e3));
    lab.plug(B, C)?;
    let plugged = Instant::now();
    route(lab, A, C, 2, secs(30))?;
    echoes(lab)?;
    say(&format!("    a reaches c {:.1} s after the new cable", plugged.elapsed().as_secs_f64()));
    Ok(())
}

fn crash(lab: &mut Lab) -> Result<()> {
    let ip = addresses(lab.node(C)?)?[0];
    let a = lab.node(A)?;
    a.kill("mesh-router")?;
    probe::ping(a, ip, secs(1)).map_err(|e| format!("routes are gone with the crash: {e}"))?;
    a.start("mesh-router", &[])?;
    let listening = a.run_dir().join("mesh-router.sock");
    wait_for("mesh-router on a", secs(10), || {
        std::os::unix::net::UnixStream::connect(&listening).map(drop).map_err(told("control socket"))
    })?;
    let mut echoes = 0;
    wait_for("the route of a to c", secs(30), || {
        echoes += 1;
        probe::ping(a, ip, secs(1)).map_err(|e| format!("interrupted by the restart: {e}"))?;
        routes(a)?.iter().find(|r| r.destination == ip).map(drop).ok_or_else(|| "none yet".into())
    })?;
    say(&format!("    {echoes} echoes meanwhile"));
    names(lab)
}

fn leave(lab: &mut Lab) -> Result<()> {
    for at in [A, B, C] {
        let mine = addresses(lab.node(at)?)?;
        let node = lab.node(at)?;
        for service in ["mesh-store", "mesh-mdns", "mesh-router", "mesh-radio"] {
            node.stop(service)?;
        }
        let left = kernel_routes(node)?;
        if !left.is_empty() {
            return Err(format!("routes stay on {}: {left:?}", node.name()));
        }
        let left = node.kernel(mesh_sys::netlink::Rtnetlink::addresses)?;
        if let Some(a) = left.iter().find(|a| mine.contains(&a.ip)) {
            return Err(format!("{} stays on {}", a.ip, node.name()));
        }
        let sockets = std::fs::read_dir(node.run_dir()).map_err(told("run dir"))?.count();
        if sockets != 0 {
            return Err(format!("{sockets} files stay in the run folder of {}", node.name()));
        }
    }
    Ok(())
}

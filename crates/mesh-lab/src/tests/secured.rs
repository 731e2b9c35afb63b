//! Three nodes with simulated radios and `mesh.password`, one of them with another password: the two mesh by SAE,
//! through Debian's wpa_supplicant; the third gets no link, and both sides say why. Then its password is corrected.
//! Needs a machine with such radios, see `ci/radio`.

use std::fs;
use std::time::Instant;

use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::probe;
use mesh_lab::report::{Report, say};

use super::common::{Step, addresses, neighbors, secs, symmetric_links};
use super::wireless::{child, give, mesh_interface, problem, signal, tool, wifi};

const A: usize = 0;
const B: usize = 1;
const STRANGER: usize = 2;
const FIRST: u32 = 16;
const RADIOS: [(usize, u32); 3] = [(A, 0x2000), (B, 0x2000), (STRANGER, 0x2000)];
const COMPLAINT: &str = "mesh.password is another";

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 6] = [
        ("nodes_with_the_same_password_mesh_by_sae", start),
        ("the_stations_do_not_forward", forwarding),
        ("a_node_with_another_password_gets_no_link_and_says_why", stranger),
        ("a_corrected_password_is_enough", corrected),
        ("a_killed_wpa_supplicant_is_back", |lab| back(lab, "-9")),
        ("one_that_hangs_is_replaced", |lab| back(lab, "-STOP")),
    ];
    for (name, step) in steps {
        if report.test(&format!("secured::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

fn configure(node: &Node, password: &str) -> Result<()> {
    let text =
        format!("hostname = \"{}\"\nmesh.password = \"{}\"\n", node.name(), password.replace('"', "\\\""));
    fs::write(node.file("p2pmesh.toml"), text).map_err(told("p2pmesh.toml"))
}

fn start(lab: &mut Lab) -> Result<()> {
    for (name, password) in
        [("a", "battery \"staple\""), ("b", "battery \"staple\""), ("stranger", "battery stable")]
    {
        let at = lab.add_node(name)?;
        configure(lab.at(at)?, password)?;
    }
    give(lab, FIRST, &RADIOS)?;
    let start = Instant::now();
    for at in [A, B, STRANGER] {
        let node = lab.node(at)?;
        node.start("mesh-radio", &[])?;
        node.start("mesh-router", &[])?;
    }
    for at in [A, B] {
        symmetric_links(lab.at(at)?, 2)?;
    }
    say(&format!("    from the services' start to the links: {:.1} s", start.elapsed().as_secs_f32()));
    for ip in addresses(lab.at(B)?)? {
        wait_for(&format!("echo of {ip}"), secs(20), || probe::ping(lab.at(A)?, ip, secs(1)))?;
    }
    Ok(())
}

fn forwarding(lab: &mut Lab) -> Result<()> {
    for at in [A, B] {
        let node = lab.at(at)?;
        for (parameter, want) in
            [("mesh_fwding", "0"), ("mesh_hwmp_rootmode", "0"), ("mesh_gate_announcements", "0")]
        {
            let is = tool(node, "iw", &["dev", "mesh0", "get", "mesh_param", parameter])?;
            if is.trim() != want {
                return Err(format!("{parameter} is {} on {}", is.trim(), node.name()));
            }
        }
    }
    Ok(())
}

fn stranger(lab: &mut Lab) -> Result<()> {
    let start = Instant::now();
    problem(lab.at(STRANGER)?, COMPLAINT, true, secs(60))?;
    say(&format!("    said {:.1} s after the others had links", start.elapsed().as_secs_f32()));
    problem(lab.at(A)?, COMPLAINT, true, secs(60))?;
    let node = lab.at(STRANGER)?;
    let interface = mesh_interface(node)?;
    let peers = wifi(node, move |nl| nl.stations(interface))?;
    let established = |s: &mesh_sys::netlink::nl80211::Station| {
        s.peer_link == Some(mesh_sys::netlink::nl80211::PeerLink::Established)
    };
    if peers.iter().any(established) {
        return Err(format!("the stranger is a peer: {peers:?}"));
    }
    match neighbors(node)?.as_slice() {
        [] => {}
        some => return Err(format!("the stranger is a neighbour: {some:?}")),
    }
    let run_dir = node.run_dir().display().to_string();
    let shown =
        String::from_utf8_lossy(&node.run("meshctl", &["--run-dir", &run_dir, "radio"], b"")?).into_owned();
    if shown.contains("another mesh.password") { Ok(()) } else { Err(shown) }
}

fn corrected(lab: &mut Lab) -> Result<()> {
    configure(lab.at(STRANGER)?, "battery \"staple\"")?;
    lab.node(STRANGER)?.stop("mesh-radio")?;
    let start = Instant::now();
    lab.node(STRANGER)?.start("mesh-radio", &[])?;
    symmetric_links(lab.at(STRANGER)?, 4)?;
    problem(lab.at(A)?, COMPLAINT, false, secs(5))?;
    say(&format!("    links {:.1} s after mesh-radio started with it", start.elapsed().as_secs_f32()));
    Ok(())
}

const SUPPLICANT: &str = "wpa_supplicant";

fn back(lab: &mut Lab, how: &str) -> Result<()> {
    let pid = child(lab.at(B)?, SUPPLICANT)?;
    signal(pid, how)?;
    let start = Instant::now();
    wait_for("another wpa_supplicant", secs(5), || match child(lab.at(B)?, SUPPLICANT) {
        Ok(new) if new != pid => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let again = start.elapsed();
    symmetric_links(lab.at(B)?, 4)?;
    say(&format!(
        "    started again after {} ms, all links after {:.1} s",
        again.as_millis(),
        start.elapsed().as_secs_f32()
    ));
    Ok(())
}

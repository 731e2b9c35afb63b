//! Two nodes with two simulated radios each: the channel that a neighbour uses is found; a radio that is switched off
//! is said and planned for again; people take radios and ports over, mesh with the workshop's own commands, and give
//! all back. Last a country's channels. Needs a machine with such radios, see `ci/radio`.

use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::report::{Report, say};
use mesh_sys::netlink::Rtnetlink;

use super::common::{Step, secs, symmetric_links};
use super::wireless::{
    give, plan, planned, problem, serving, serving_on, start_with_switches, status, switch, tool, wifi,
};

const P: usize = 0;
const Q: usize = 1;
const ABROAD: usize = 2;
const FIRST: u32 = 19;
const RADIOS: [(usize, u32); 5] = [(P, 0x4000), (P, 0x8000), (Q, 0x4000), (Q, 0x1_0000), (ABROAD, 0x2_0000)];
const LOCAL: [u8; 4] = [127, 0, 0, 1];

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 6] = [
        ("the_channel_that_a_neighbour_uses_is_found", channel),
        ("a_radio_that_is_switched_off_is_said_and_planned_for_again", switched),
        ("a_radio_that_is_removed_leaves_its_tasks_to_the_other", removed),
        ("people_take_over", take_over),
        ("they_mesh_with_iw_and_give_back", by_hand),
        ("a_country_allows_its_channels", country),
    ];
    for (name, step) in steps {
        if report.test(&format!("byhand::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

fn configure(lab: &mut Lab, name: &str, text: &str) -> Result<()> {
    let at = lab.add_node(name)?;
    let text = format!("hostname = \"{name}\"\nap.password = \"correct horse\"\n{text}");
    fs::write(lab.at(at)?.file("p2pmesh.toml"), text).map_err(told("p2pmesh.toml"))
}

fn channel(lab: &mut Lab) -> Result<()> {
    configure(lab, "p", "mesh.channel = 11\n")?;
    configure(lab, "q", "")?;
    configure(lab, "abroad", "country = \"DE\"\nmesh.channel = 36\n")?;
    give(lab, FIRST, &RADIOS)?;
    let binaries = lab.binaries().to_path_buf();
    start_with_switches(lab.node(P)?, &binaries)?;
    lab.node(P)?.start("mesh-router", &[])?;
    lab.node(P)?.start("mesh-store", &[])?;
    planned(lab.at(P)?, "mesh point, 2462 MHz as mesh.channel says")?;
    serving(lab.at(P)?, secs(20))?;
    let start = Instant::now();
    lab.node(Q)?.start("mesh-radio", &[])?;
    lab.node(Q)?.start("mesh-router", &[])?;
    planned(lab.at(Q)?, "2462 MHz, where this mesh was heard")?;
    let looked = start.elapsed();
    symmetric_links(lab.at(Q)?, 2)?;
    say(&format!(
        "    found after {} ms, links after {:.1} s",
        looked.as_millis(),
        start.elapsed().as_secs_f32()
    ));
    serving(lab.at(Q)?, secs(20)).map(drop)
}

fn switched(lab: &mut Lab) -> Result<()> {
    let node = lab.at(P)?;
    let radio =
        plan(node)?.phys.iter().find(|p| p.reason.starts_with("access point")).map(|p| p.name.clone());
    let radio = radio.ok_or("p has no access point")?;
    let start = Instant::now();
    switch(node, &radio, true)?;
    problem(node, "switched off by software (rfkill)", true, secs(5))?;
    let said = start.elapsed();
    let both = serving_on(node, 2462)?;
    say(&format!(
        "    said after {} ms, the other radio is the access point, too, after {} ms: {both}",
        said.as_millis(),
        start.elapsed().as_millis()
    ));
    let start = Instant::now();
    switch(node, &radio, false)?;
    problem(node, "switched off", false, secs(5))?;
    serving_on(node, 2412)?;
    say(&format!("    switched on: on the air again after {} ms", start.elapsed().as_millis()));
    symmetric_links(node, 2)
}

fn removed(lab: &mut Lab) -> Result<()> {
    use std::os::fd::AsFd;
    let outside = fs::File::open("/proc/self/ns/net").map_err(told("own namespace"))?;
    let node = lab.at(P)?;
    let radio = wifi(node, |nl| nl.wiphys())?.first().map(|w| w.index).ok_or("p has no radio")?;
    let start = Instant::now();
    wifi(node, |nl| nl.set_namespace(radio, outside.as_fd()))?;
    planned(node, "mesh point and access point")?;
    serving_on(node, 2462)?;
    say(&format!(
        "    the mesh's radio unplugged: the other does both after {} ms",
        start.elapsed().as_millis()
    ));
    let mut nl = mesh_sys::netlink::nl80211::Nl80211::open().map_err(told("nl80211"))?.ok_or("no Wi-Fi")?;
    let start = Instant::now();
    nl.set_namespace(radio, node.namespace()).map_err(told("moving a radio"))?;
    serving_on(node, 2412)?;
    say(&format!("    plugged in again: replanned after {} ms", start.elapsed().as_millis()));
    symmetric_links(node, 2)?;
    let counters = status(node)?.counters;
    let failures = counters.iter().find(|(name, _)| name == "failures").map_or(0, |(_, n)| *n);
    if failures < 10 { Ok(()) } else { Err(format!("{failures} steps failed")) }
}

fn meshctl(node: &Node, arguments: &[&str]) -> Result<String> {
    let run_dir = node.run_dir().display().to_string();
    let all = [&["--run-dir", run_dir.as_str()], arguments].concat();
    node.run("meshctl", &all, b"").map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// Whether anybody listens on port 8080.
fn port_is_taken(node: &Node) -> Result<bool> {
    node.inside(|| std::net::TcpStream::connect(SocketAddr::from((LOCAL, 8080))).is_ok())
}

fn take_over(lab: &mut Lab) -> Result<()> {
    for at in [P, Q] {
        let node = lab.at(at)?;
        meshctl(node, &["workshop", "manual"])?;
        wait_for("mesh point and access point to be gone", secs(5), || {
            let links = node.kernel(Rtnetlink::links)?;
            let ours = links.iter().find(|l| l.name == "mesh0" || l.name == "ap0");
            ours.map_or(Ok(()), |l| Err(format!("{l:?}")))
        })?;
    }
    let node = lab.at(P)?;
    wait_for("port 8080 to be free", secs(10), || match port_is_taken(node)? {
        true => Err("somebody listens".into()),
        false => Ok(()),
    })?;
    node.inside(|| std::net::TcpListener::bind(SocketAddr::from(([0; 4], 8080))))?
        .map_err(told("port 8080"))?;
    let shown = meshctl(node, &["radio"])?;
    if shown.contains("manual workshop") { Ok(()) } else { Err(shown) }
}

/// The workshop's own commands (P15), on the interface that came with the first radio.
fn by_hand(lab: &mut Lab) -> Result<()> {
    let mut names = Vec::new();
    for at in [P, Q] {
        let node = lab.at(at)?;
        let radio = wifi(node, |nl| nl.wiphys())?.first().map(|w| w.index);
        let all = wifi(node, |nl| nl.interfaces())?;
        let index = all.iter().find(|i| Some(i.wiphy) == radio).map(|i| i.index).ok_or("no interface")?;
        let links = node.kernel(Rtnetlink::links)?;
        let name = links.into_iter().find(|l| l.index == index).map(|l| l.name).ok_or("no interface")?;
        tool(node, "iw", &["dev"])?;
        tool(node, "iw", &["dev", &name, "set", "type", "mp"])?;
        tool(node, "ip", &["link", "set", &name, "up"])?;
        tool(node, "iw", &["dev", &name, "mesh", "join", "workshop", "freq", "2437"])?;
        names.push(name);
    }
    for (at, name) in [P, Q].into_iter().zip(&names) {
        wait_for("station dump to show the peer", secs(20), || {
            let dump = tool(lab.at(at)?, "iw", &["dev", name, "station", "dump"])?;
            if dump.contains("ESTAB") { Ok(()) } else { Err(dump) }
        })?;
    }
    let start = Instant::now();
    for at in [P, Q] {
        meshctl(lab.at(at)?, &["workshop", "auto"])?;
    }
    for at in [P, Q] {
        serving(lab.at(at)?, secs(20))?;
        symmetric_links(lab.at(at)?, 2)?;
    }
    wait_for("the gateway on port 8080", secs(10), || match port_is_taken(lab.at(P)?)? {
        true => Ok(()),
        false => Err("nobody listens".into()),
    })?;
    say(&format!("    given back: access points and links {:.1} s after", start.elapsed().as_secs_f32()));
    Ok(())
}

/// Last, for it is the whole machine's.
fn country(lab: &mut Lab) -> Result<()> {
    lab.node(ABROAD)?.start("mesh-radio", &[])?;
    let node = lab.at(ABROAD)?;
    planned(node, "5180 MHz as mesh.channel says")?;
    problem(node, "country", false, secs(2))?;
    wait_for("the mesh point on channel 36", secs(20), || {
        let text = tool(node, "iw", &["dev", "mesh0", "info"])?;
        if text.contains("channel 36 (5180 MHz)") { Ok(()) } else { Err(text) }
    })
}

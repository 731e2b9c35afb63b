//! Figures of mesh-radio on two nodes with two simulated radios each: from its start to an access point on the air and
//! to a mesh link, how long it takes to plan anew, memory, size. Needs a machine with such radios, see `ci/radio`.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::time::Instant;

use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::report::{Report, say};
use mesh_sys::netlink::nl80211::{Mode, Nl80211, PeerLink};
use mesh_sys::process::rss_kib;

use super::common::secs;
use super::wireless::{
    child, crash, give, plan, planned, serving, serving_on, start_with_switches, switch, wifi,
};

const A: usize = 0;
const B: usize = 1;
const ROUNDS: usize = 5;
/// The first radio of each meshes, the second one is its access point.
const RADIOS: [(usize, u32); 4] = [(A, 1), (A, 2), (B, 1), (B, 4)];
const SECURED: &str = "mesh.password = \"battery staple\"\n";
/// Where a node's access point is on a radio of its own, and where it shares the mesh's.
const ALONE: u32 = 2437;
const SHARED: u32 = 2412;

type Part = fn(&mut Lab, &mut Table) -> Result<()>;

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let mut table = Table::default();
    let parts: [(&str, Part); 5] = [
        ("an_open_mesh", |lab, table| rounds(lab, table, "", "open")),
        ("a_secured_mesh", |lab, table| rounds(lab, table, SECURED, "SAE")),
        ("a_radio_unplugged_and_plugged_in", unplugged),
        ("hostapd_killed", killed),
        ("a_radio_switched_off_and_on", switched),
    ];
    if report.test("figures::nodes_with_radios", || nodes(lab)).is_none() {
        return;
    }
    for (name, part) in parts {
        if report.test(&format!("figures::{name}"), || part(lab, &mut table)).is_none() {
            return;
        }
    }
    table.print();
}

/// What was measured, and what it should be at most.
struct Row {
    what: String,
    unit: &'static str,
    goal: Option<f64>,
    values: Vec<f64>,
}

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn add(&mut self, what: &str, unit: &'static str, goal: Option<f64>, value: f64) {
        match self.0.iter_mut().find(|r| r.what == what) {
            Some(row) => row.values.push(value),
            None => self.0.push(Row { what: what.into(), unit, goal, values: vec![value] }),
        }
    }

    fn took(&mut self, what: &str, goal: Option<f64>, since: Instant) {
        self.add(what, "s", goal, since.elapsed().as_secs_f64());
    }

    fn print(mut self) {
        say("\n| what | median (smallest to largest) | goal | met |\n|---|---|---|---|");
        let mut missed = Vec::new();
        for row in &mut self.0 {
            row.values.sort_by(f64::total_cmp);
            let of = |at: usize| row.values.get(at).copied().unwrap_or(f64::NAN);
            let (median, least, most) =
                (of(row.values.len() / 2), of(0), of(row.values.len().saturating_sub(1)));
            let unit = row.unit;
            let goal = row.goal.map_or_else(|| "-".into(), |g| format!("<= {g} {unit}"));
            let met = row.goal.map_or("-", |g| if median <= g { "yes" } else { "no" });
            if met == "no" {
                missed.push(row.what.clone());
            }
            say(&format!("| {} | {median:.3} {unit} ({least:.3} to {most:.3}) | {goal} | {met} |", row.what));
        }
        let all = "all goals are met".into();
        say(&if missed.is_empty() { all } else { format!("goals missed: {}", missed.join(", ")) });
    }
}

fn nodes(lab: &mut Lab) -> Result<()> {
    for name in ["a", "b"] {
        lab.add_node(name)?;
    }
    give(lab, 0, &RADIOS).map(drop)
}

/// A mesh point of the node's has a peer, in the kernel's words.
fn linked(node: &Node) -> Result<()> {
    wait_for(&format!("a mesh link of {}", node.name()), secs(60), || {
        let mut seen = Vec::new();
        for point in wifi(node, Nl80211::interfaces)?.iter().filter(|i| i.mode == Mode::MeshPoint) {
            seen.extend(wifi(node, |nl| nl.stations(point.index))?);
        }
        let good = seen.iter().any(|s| s.peer_link == Some(PeerLink::Established));
        if good { Ok(()) } else { Err(format!("{seen:?}")) }
    })
}

/// From cold: no mesh-radio, and nothing of one on the radios.
fn cold(lab: &mut Lab) -> Result<()> {
    for at in [A, B] {
        let node = lab.node(at)?;
        if node.pid("mesh-radio").is_some() {
            node.stop("mesh-radio")?; // its mesh point would stay in the mesh
        }
        for point in wifi(node, Nl80211::interfaces)?.iter().filter(|i| i.mode == Mode::MeshPoint) {
            wifi(node, |nl| nl.remove_interface(point.index))?;
        }
    }
    Ok(())
}

fn rounds(lab: &mut Lab, table: &mut Table, settings: &str, kind: &str) -> Result<()> {
    for at in [A, B] {
        let node = lab.at(at)?;
        let text = format!("hostname = \"{}\"\nap.password = \"correct horse\"\n{settings}", node.name());
        fs::write(node.file("p2pmesh.toml"), text).map_err(told("p2pmesh.toml"))?;
    }
    for _ in 0..ROUNDS {
        cold(lab)?;
        let start = Instant::now();
        lab.node(A)?.start("mesh-radio", &[])?;
        serving(lab.at(A)?, secs(30))?;
        table.took(&format!("start to the access point on the air, {kind}"), None, start);
        let start = Instant::now();
        lab.node(B)?.start("mesh-radio", &[])?;
        linked(lab.at(B)?)?;
        table.took(&format!("start to a mesh link, {kind}, another node there"), None, start);
        serving(lab.at(B)?, secs(30))?;
        memory(lab.at(A)?, table, kind)?;
        cold(lab)?;
        let start = Instant::now();
        for at in [A, B] {
            lab.node(at)?.start("mesh-radio", &[])?;
        }
        linked(lab.at(A)?)?;
        linked(lab.at(B)?)?;
        table.took(&format!("two nodes started at once to their link, {kind}"), None, start);
    }
    Ok(())
}

fn memory(node: &Node, table: &mut Table, kind: &str) -> Result<()> {
    let megabytes = |pid| rss_kib(pid) as f64 * 1024.0 / 1e6;
    let own = node.pid("mesh-radio").ok_or("mesh-radio does not run")?;
    table.add(&format!("memory of mesh-radio (RSS), {kind}"), "MB", Some(2.0), megabytes(own));
    table.add("memory of its hostapd (RSS)", "MB", None, megabytes(child(node, "hostapd")?));
    if let Ok(supplicant) = child(node, "wpa_supplicant") {
        table.add("memory of its wpa_supplicant (RSS)", "MB", None, megabytes(supplicant));
    }
    Ok(())
}

/// The node's radio whose reason begins with these words: number and name.
fn radio(node: &Node, words: &str) -> Result<(u32, String)> {
    let plan = plan(node)?;
    let name = plan.phys.iter().find(|p| p.reason.starts_with(words)).map(|p| p.name.clone());
    let name = name.ok_or_else(|| format!("no radio is {words:?}: {plan:?}"))?;
    let all = wifi(node, Nl80211::wiphys)?;
    let index = all.iter().find(|w| w.name == name).map(|w| w.index);
    Ok((index.ok_or_else(|| format!("{name} is gone"))?, name))
}

/// The mesh's radio, as if it were a dongle: it comes back with its first interface only.
fn unplugged(lab: &mut Lab, table: &mut Table) -> Result<()> {
    let outside = File::open("/proc/self/ns/net").map_err(told("own namespace"))?;
    let node = lab.at(A)?;
    let mut nl = Nl80211::open().map_err(told("nl80211"))?.ok_or("no Wi-Fi")?;
    for _ in 0..ROUNDS {
        serving_on(node, ALONE)?;
        linked(node)?;
        let (index, _) = radio(node, "mesh point")?;
        let start = Instant::now();
        wifi(node, |nl| nl.set_namespace(index, outside.as_fd()))?;
        planned(node, "mesh point and access point")?;
        table.took("the mesh's radio unplugged to the new plan", Some(5.0), start);
        serving_on(node, SHARED)?;
        table.took("  to the access point beside the mesh point on the other", None, start);
        let there = nl.interfaces().map_err(told("interfaces"))?;
        for point in there.iter().filter(|i| i.wiphy == index && i.mode == Mode::MeshPoint) {
            nl.remove_interface(point.index).map_err(told("mesh point"))?;
        }
        let start = Instant::now();
        nl.set_namespace(index, node.namespace()).map_err(told("moving a radio"))?;
        planned(node, "another radio meshes")?;
        table.took("it is plugged in again to the new plan", Some(5.0), start);
        linked(node)?;
        table.took("  to a mesh link", None, start);
    }
    Ok(())
}

fn killed(lab: &mut Lab, table: &mut Table) -> Result<()> {
    for _ in 0..ROUNDS {
        cold(lab)?; // each time the first death, so that there is no longer pause before the next start
        lab.node(A)?.start("mesh-radio", &[])?;
        let node = lab.at(A)?;
        serving(node, secs(30))?;
        let before = child(node, "hostapd")?;
        let start = Instant::now();
        crash(before)?;
        wait_for("another hostapd", secs(10), || match child(node, "hostapd") {
            Ok(new) if new != before => serving(node, secs(10)),
            other => Err(format!("{other:?}")),
        })?;
        table.took("hostapd killed to the access point on the air", Some(5.0), start);
    }
    Ok(())
}

/// The access point's radio.
fn switched(lab: &mut Lab, table: &mut Table) -> Result<()> {
    cold(lab)?;
    let binaries = lab.binaries().to_path_buf();
    start_with_switches(lab.node(A)?, &binaries)?;
    let node = lab.at(A)?;
    for _ in 0..ROUNDS {
        serving(node, secs(30))?;
        serving_on(node, ALONE)?;
        let (_, name) = radio(node, "access point")?;
        let start = Instant::now();
        switch(node, &name, true)?;
        planned(node, "switched off by software (rfkill)")?;
        table.took("the access point's radio switched off (rfkill) to the new plan", Some(5.0), start);
        serving_on(node, SHARED)?;
        table.took("  to the access point on the other", None, start);
        let start = Instant::now();
        switch(node, &name, false)?;
        planned(node, "another radio meshes")?;
        table.took("it is switched on again to the new plan", Some(5.0), start);
        serving_on(node, ALONE)?;
        table.took("  to the access point on it", None, start);
    }
    let path = binaries.join("mesh-radio");
    let size = fs::metadata(&path).map_err(told("mesh-radio"))?.len();
    table.add("size of mesh-radio", "MB", Some(1.2), size as f64 / 1e6);
    Ok(())
}

//! Simulated radios (mac80211_hwsim), and what mesh-radio makes of them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mesh_ipc::radio::{AccessPoint, Plan, RadioRequest, RadioResponse};
use mesh_ipc::{Request, Response, ServiceStatus};
use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_sys::control::Client;
use mesh_sys::netlink::nl80211::{Mode, Nl80211};
use mesh_sys::netlink::{self, Rtnetlink};

use super::common::secs;

/// Lets a radio hear those of these groups (bits) only.
pub(super) fn tune(radio: u32, groups: u32) -> Result<()> {
    let path = format!("/sys/kernel/debug/ieee80211/phy{radio}/hwsim/group");
    fs::write(&path, groups.to_string()).map_err(told(&path))
}

/// Gives nodes radios, the first of them the one with number `first`: whose each is, and whom it hears (those with
/// a bit in common). Every test has radios of its own. Their numbers.
pub(super) fn give(lab: &Lab, first: u32, radios: &[(usize, u32)]) -> Result<Vec<u32>> {
    let mut nl = Nl80211::open().map_err(told("nl80211"))?.ok_or("this kernel has no Wi-Fi")?;
    let there: Vec<u32> = nl.wiphys().map_err(told("radios"))?.iter().map(|r| r.index).collect();
    let given: Vec<u32> = there.iter().copied().filter(|i| *i >= first).take(radios.len()).collect();
    if given.len() < radios.len() {
        return Err(format!(
            "{} radios are wanted from number {first} on, there are {there:?}",
            radios.len()
        ));
    }
    for (radio, (at, groups)) in given.iter().zip(radios) {
        tune(*radio, *groups)?;
        nl.set_namespace(*radio, lab.at(*at)?.namespace()).map_err(told("moving a radio"))?;
    }
    Ok(given)
}

/// Work with the node's radios.
pub(super) fn wifi<T: Send>(
    node: &Node,
    work: impl FnOnce(&mut Nl80211) -> std::result::Result<T, netlink::Error> + Send,
) -> Result<T> {
    let opened = node.inside(|| Nl80211::open()?.map(|mut nl| work(&mut nl)).transpose())?;
    opened.map_err(told("nl80211"))?.ok_or_else(|| "this kernel has no Wi-Fi".into())
}

fn ask(node: &Node, request: &Request<RadioRequest>) -> Result<Response<RadioResponse>> {
    let mut client: Client<RadioRequest, RadioResponse> =
        Client::connect(&node.run_dir(), "mesh-radio", secs(5)).map_err(told("mesh-radio"))?;
    client.request(request).map_err(told("mesh-radio"))
}

pub(super) fn plan(node: &Node) -> Result<Plan> {
    match ask(node, &Request::Service(RadioRequest::Plan))? {
        Response::Service(RadioResponse::Plan(plan)) => Ok(plan),
        other => Err(format!("another answer: {other:?}")),
    }
}

pub(super) fn status(node: &Node) -> Result<ServiceStatus> {
    match ask(node, &Request::Status)? {
        Response::Status(status) => Ok(status),
        other => Err(format!("another answer: {other:?}")),
    }
}

/// Waits for the access point.
pub(super) fn serving(node: &Node, patience: Duration) -> Result<AccessPoint> {
    wait_for(&format!("{}'s access point", node.name()), patience, || {
        let plan = plan(node)?;
        plan.access_point.clone().filter(|ap| ap.serving).ok_or_else(|| format!("{plan:?}"))
    })
}

/// Waits for the access point to be there, on that frequency in MHz; it offers WPA3 wherever it goes.
pub(super) fn serving_on(node: &Node, frequency: u32) -> Result<String> {
    wait_for(&format!("{}'s access point on {frequency} MHz", node.name()), secs(5), || {
        let plan = plan(node)?;
        let there = |ap: &&AccessPoint| ap.serving && ap.wpa3 && ap.frequency == frequency;
        let ap = plan.access_point.as_ref().filter(there);
        ap.map(|ap| ap.interface.clone()).ok_or_else(|| format!("{plan:?}"))
    })
}

/// Waits until the plan has a reason with these words.
pub(super) fn planned(node: &Node, words: &str) -> Result<()> {
    wait_for(&format!("a radio of {} with {words:?}", node.name()), secs(20), || {
        let plan = plan(node)?;
        if plan.phys.iter().any(|p| p.reason.contains(words)) { Ok(()) } else { Err(format!("{plan:?}")) }
    })
}

/// Waits for a problem of mesh-radio's with these words, or for there to be none.
pub(super) fn problem(node: &Node, words: &str, there: bool, patience: Duration) -> Result<()> {
    let not = if there { "" } else { "not " };
    wait_for(&format!("mesh-radio on {} {not}to complain of {words:?}", node.name()), patience, || {
        let all = status(node)?.problems;
        if all.iter().any(|p| p.contains(words)) == there { Ok(()) } else { Err(format!("{all:?}")) }
    })
}

pub(super) fn mesh_interface(node: &Node) -> Result<u32> {
    let all = wifi(node, Nl80211::interfaces)?;
    let found = all.iter().find(|i| i.mode == Mode::MeshPoint);
    found.map(|i| i.index).ok_or_else(|| format!("{} has no mesh point: {all:?}", node.name()))
}

/// The interface that came with a node's only radio, name and index: as a client's device has it.
pub(super) fn interface(node: &Node) -> Result<(String, u32)> {
    let all = wifi(node, Nl80211::interfaces)?;
    let index = all.first().map(|i| i.index).ok_or_else(|| format!("{} has no Wi-Fi", node.name()))?;
    let links = node.kernel(Rtnetlink::links)?;
    let name = links.into_iter().find(|l| l.index == index).map(|l| l.name);
    Ok((name.ok_or("the interface is gone")?, index))
}

/// A program that mesh-radio keeps running.
pub(super) fn child(node: &Node, program: &str) -> Result<u32> {
    let pid = node.pid("mesh-radio").ok_or("mesh-radio does not run")?;
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(&path).map_err(told(&path))?;
    let is = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.contains(program))
    };
    let found = children.split_whitespace().filter_map(|p| p.parse().ok()).find(is);
    found.ok_or_else(|| format!("{program} does not run"))
}

/// Ends a program as a crash does.
pub(super) fn crash(pid: u32) -> Result<()> {
    signal(pid, "-9")
}

/// Sends a program a signal, as kill(1) calls it.
pub(super) fn signal(pid: u32, how: &str) -> Result<()> {
    let sent = Command::new("kill").args([how, &pid.to_string()]).status().map_err(told("kill"))?;
    if sent.success() { Ok(()) } else { Err(format!("kill: {sent}")) }
}

/// Runs a program of the machine's in the node; what it printed.
pub(super) fn tool(node: &Node, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    let ended = node.inside(move || {
        mesh_sys::signal::unblock_all();
        command.output()
    })?;
    let out = ended.map_err(told(program))?;
    let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    let shown = format!("{program} {} on {}", arguments.join(" "), node.name());
    if out.status.success() { Ok(text) } else { Err(format!("{shown}: {}: {}", out.status, text.trim())) }
}

/// Writes to a radio's switch. It is seen only in the sysfs of the network namespace that has the radio.
pub(super) fn switch(node: &Node, radio: &str, soft: bool) -> Result<()> {
    let script = format!(
        "mount -t sysfs none /sys && for s in /sys/class/rfkill/*; do \
         [ \"$(cat $s/name)\" = {radio} ] && echo {} >$s/soft && exit 0; done; ls /sys/class/rfkill; exit 1",
        u8::from(soft)
    );
    tool(node, "unshare", &["-m", "sh", "-c", &script]).map(drop)
}

/// Starts mesh-radio where it sees the node's switches, as it does on a node.
pub(super) fn start_with_switches(node: &mut Node, binaries: &Path) -> Result<()> {
    let folder = |name| node.file(name).display().to_string();
    let script = format!(
        "mount -t sysfs none /sys && exec {} --config {} --state-dir {} --run-dir {}",
        binaries.join("mesh-radio").display(),
        folder("p2pmesh.toml"),
        folder("state"),
        folder("run"),
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]);
    node.spawn("mesh-radio", command)
}

/// Makes a client of an access point of a node's only interface, with wpa_supplicant and these settings of the
/// network.
pub(super) fn join_as_client(node: &mut Node, network: &str) -> Result<()> {
    let (name, _) = interface(node)?;
    let config = node.file("wpa_supplicant.conf");
    let text = format!("sae_pwe=2\nnetwork={{\n{network} scan_freq=2412 2437 2462\n}}\n");
    fs::write(&config, text).map_err(told("wpa_supplicant.conf"))?;
    let mut command = Command::new("wpa_supplicant");
    command.args(["-D", "nl80211", "-i", &name, "-c"]).arg(&config);
    node.spawn("wpa_supplicant", command)
}

/// Waits until the client's interface passes frames.
pub(super) fn joined(node: &Node, patience: Duration) -> Result<()> {
    let (_, index) = interface(node)?;
    wait_for(&format!("{} to be joined", node.name()), patience, || {
        let links = node.kernel(Rtnetlink::links)?;
        let link = links.into_iter().find(|l| l.index == index);
        if link.as_ref().is_some_and(mesh_sys::netlink::Link::running) {
            Ok(())
        } else {
            Err(format!("{link:?}"))
        }
    })
}

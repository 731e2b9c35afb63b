//! Four nodes in a line with simulated radios, the first with one for clients, and a phone that joins it with
//! Debian's wpa_supplicant and busybox's DHCP client: it gets addresses, finds the last node by its name, and
//! fetches a file from it. Needs a machine with such radios, see `ci/radio`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mesh_ipc::radio::{AccessPoint, Plan, RadioRequest, RadioResponse};
use mesh_ipc::{Request, Response};
use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::report::{Report, say};
use mesh_lab::{mdns, probe};
use mesh_sys::control::Client;
use mesh_sys::netlink::Rtnetlink;
use mesh_sys::netlink::nl80211::Nl80211;

use super::common::{Step, addresses, secs};

const A: usize = 0;
const D: usize = 3;
const PHONE: usize = 4;
/// The first radios are another test's.
const FIRST: usize = 3;
/// Whose each radio is, and whom it hears: those with a bit in common.
const RADIOS: [(usize, u32); 6] = [(0, 8), (0, 64), (1, 8 + 16), (2, 16 + 32), (3, 32), (PHONE, 64)];
const PASSWORD: &str = "correct horse";
const AP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 9] = [
        ("an_access_point_comes_up_without_being_asked", start),
        ("a_phone_joins_with_the_password", joins),
        ("it_gets_an_ipv4_address_by_dhcp", dhcp),
        ("it_gets_an_ipv6_address_and_a_router", router),
        ("it_finds_a_node_three_hops_away_and_fetches_a_file", fetches),
        ("what_is_not_for_clients_is_closed_to_them", closed),
        ("meshctl_shows_access_point_and_client", shown),
        ("a_killed_hostapd_is_back_and_so_is_the_phone", killed),
        ("hostapd_ends_with_mesh_radio_and_addresses_last", radio_dies),
    ];
    for (name, step) in steps {
        if report.test(&format!("phone::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

fn plan(node: &Node) -> Result<Plan> {
    let mut client: Client<RadioRequest, RadioResponse> =
        Client::connect(&node.run_dir(), "mesh-radio", secs(5)).map_err(told("mesh-radio"))?;
    match client.request(&Request::Service(RadioRequest::Plan)).map_err(told("mesh-radio"))? {
        Response::Service(RadioResponse::Plan(plan)) => Ok(plan),
        other => Err(format!("another answer: {other:?}")),
    }
}

fn serving(node: &Node, patience: Duration) -> Result<AccessPoint> {
    wait_for(&format!("{}'s access point", node.name()), patience, || {
        let plan = plan(node)?;
        plan.access_point.clone().filter(|ap| ap.serving).ok_or_else(|| format!("{plan:?}"))
    })
}

fn start(lab: &mut Lab) -> Result<()> {
    let mut nl = Nl80211::open().map_err(told("nl80211"))?.ok_or("this kernel has no Wi-Fi")?;
    let radios = nl.wiphys().map_err(told("radios"))?;
    let radios: Vec<u32> = radios.iter().map(|r| r.index).filter(|i| *i as usize >= FIRST).collect();
    if radios.len() < RADIOS.len() {
        return Err(format!("{} radios are wanted, there are {radios:?}", RADIOS.len()));
    }
    for name in ["a", "b", "c", "d", "phone"] {
        let at = lab.add_node(name)?;
        let text = format!("hostname = \"{name}\"\nap.password = \"{PASSWORD}\"\n");
        fs::write(lab.at(at)?.file("p2pmesh.toml"), text).map_err(told("p2pmesh.toml"))?;
    }
    for (radio, (at, groups)) in radios.iter().zip(RADIOS) {
        let path = format!("/sys/kernel/debug/ieee80211/phy{radio}/hwsim/group");
        fs::write(&path, groups.to_string()).map_err(told(&path))?;
        nl.set_namespace(*radio, lab.at(at)?.namespace()).map_err(told("moving a radio"))?;
    }
    let start = Instant::now();
    lab.node(A)?.start("mesh-radio", &[])?;
    let ap = serving(lab.at(A)?, secs(60))?;
    say(&format!(
        "    from the start of mesh-radio to the access point on the air: {} ms",
        start.elapsed().as_millis()
    ));
    if ap.ssid != "a" || ap.interface != "ap0" || ap.channel != Some(6) {
        return Err(format!("{ap:?}, not a on ap0, channel 6"));
    }
    let config = lab.at(A)?.run_dir().join("hostapd.conf");
    let mode = fs::metadata(&config).map_err(told("hostapd.conf"))?.permissions().mode();
    if mode & 0o777 != 0o600 {
        return Err(format!("hostapd.conf holds the password and has mode {mode:o}"));
    }
    for at in A..=D {
        let node = lab.node(at)?;
        let name = node.name().to_owned();
        if at != A {
            node.start("mesh-radio", &[])?;
        }
        node.start("mesh-router", &[])?;
        node.start("mesh-mdns", &["--name", &name])?;
    }
    for at in 1..=D {
        let ap = serving(lab.at(at)?, secs(60))?;
        if ap.channel != Some(1) {
            return Err(format!("{ap:?}: one radio, one channel: the mesh's"));
        }
    }
    Ok(())
}

/// The phone's interface: name and index.
fn interface(node: &Node) -> Result<(String, u32)> {
    let opened = node.inside(|| Nl80211::open()?.map(|mut nl| nl.interfaces()).transpose())?;
    let all = opened.map_err(told("nl80211"))?.unwrap_or_default();
    let index = all.first().map(|i| i.index).ok_or("the phone has no Wi-Fi")?;
    let links = node.kernel(Rtnetlink::links)?;
    let name = links.into_iter().find(|l| l.index == index).map(|l| l.name);
    Ok((name.ok_or("the phone's interface is gone")?, index))
}

fn joined(node: &Node, patience: Duration) -> Result<()> {
    let (_, index) = interface(node)?;
    wait_for("the phone to be joined", patience, || {
        let links = node.kernel(Rtnetlink::links)?;
        let link = links.into_iter().find(|l| l.index == index);
        if link.as_ref().is_some_and(mesh_sys::netlink::Link::running) {
            Ok(())
        } else {
            Err(format!("{link:?}"))
        }
    })
}

fn joins(lab: &mut Lab) -> Result<()> {
    let phone = lab.node(PHONE)?;
    let (name, _) = interface(phone)?;
    let config = phone.file("wpa_supplicant.conf");
    let text = format!("network={{\n ssid=\"a\"\n psk=\"{PASSWORD}\"\n key_mgmt=WPA-PSK\n}}\n");
    fs::write(&config, text).map_err(told("wpa_supplicant.conf"))?;
    let mut command = Command::new("wpa_supplicant");
    command.args(["-D", "nl80211", "-i", &name, "-c"]).arg(&config);
    let start = Instant::now();
    phone.spawn("wpa_supplicant", command)?;
    joined(phone, secs(60))?;
    say(&format!("    joined after {:.1} s, scans included", start.elapsed().as_secs_f32()));
    Ok(())
}

/// Sets what busybox's client got, and keeps it for the test.
const SCRIPT: &str = "#!/bin/sh
[ \"$1\" = bound ] || exit 0
ip addr add \"$ip/$mask\" dev \"$interface\" 2>/dev/null
ip route replace default via \"$router\" dev \"$interface\"
echo \"$ip $mask $router $dns $domain $lease $serverid\" >FILE
";

/// Asks for an address as a phone does; what it was told.
fn ask_for_address(node: &Node) -> Result<(Ipv4Addr, String)> {
    let (name, _) = interface(node)?;
    let (script, file) = (node.file("dhcp.sh"), node.file("dhcp.txt"));
    fs::write(&script, SCRIPT.replace("FILE", &file.display().to_string())).map_err(told("script"))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).map_err(told("script"))?;
    let _ = fs::remove_file(&file);
    let mut command = Command::new("udhcpc");
    command.args(["-f", "-n", "-q", "-t", "10", "-T", "1", "-i", &name, "-s"]).arg(&script);
    let out = node.inside(move || {
        mesh_sys::signal::unblock_all();
        command.output()
    })?;
    let out = out.map_err(told("udhcpc"))?;
    let told = fs::read_to_string(&file)
        .map_err(|e| format!("no address: {e}: {}", String::from_utf8_lossy(&out.stderr).trim()))?;
    let ip = told.split(' ').next().and_then(|t| t.parse().ok()).ok_or_else(|| told.clone())?;
    Ok((ip, told.trim().to_owned()))
}

fn dhcp(lab: &mut Lab) -> Result<()> {
    let phone = lab.at(PHONE)?;
    let start = Instant::now();
    let (ip, told) = ask_for_address(phone)?;
    say(&format!("    {ip} after {} ms", start.elapsed().as_millis()));
    let [a, b, c, host] = ip.octets();
    let good = [a, b, c] == [10, 0, 0] && (10..=250).contains(&host);
    if !good || !told.ends_with(" 24 10.0.0.1 10.0.0.1 local 3600 10.0.0.1") {
        return Err(told);
    }
    probe::ping(phone, AP.into(), secs(2)).map(drop)
}

fn router(lab: &mut Lab) -> Result<()> {
    let (phone, node) = (lab.at(PHONE)?, lab.at(A)?.id()?);
    let (_, index) = interface(phone)?;
    let wanted = node.ula_prefix().segments();
    wait_for("an address in the node's /64", secs(20), || {
        let all = phone.kernel(Rtnetlink::addresses)?;
        let ours = |ip: IpAddr| matches!(ip, IpAddr::V6(v6) if v6.segments()[..4] == wanted[..4]);
        if all.iter().any(|a| a.index == index && ours(a.ip) && !a.tentative) {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    })?;
    wait_for("an answer of the node's own address", secs(5), || {
        probe::ping(phone, node.ula_address().into(), secs(1)).map(drop)
    })
}

fn fetches(lab: &mut Lab) -> Result<()> {
    lab.node(D)?.start("mesh-store", &[])?;
    let run_dir = lab.at(D)?.run_dir().display().to_string();
    let content = b"from the other end of the mesh\n".repeat(2000);
    let added = wait_for("the store of d", secs(20), || {
        lab.at(D)?.run("meshctl", &["--run-dir", &run_dir, "ipfs", "add", "-Q"], &content)
    })?;
    let cid = String::from_utf8_lossy(&added).trim().to_owned();
    let there = addresses(lab.at(D)?)?;
    let phone = lab.at(PHONE)?;
    let server = SocketAddr::new(AP.into(), 53);
    let found = wait_for("d.local by DNS", secs(60), || {
        let mut found = probe::resolve_at(phone, server, "d.local", 28)?;
        found.extend(probe::resolve_at(phone, server, "d.local", 1)?);
        if there.iter().all(|ip| found.contains(ip)) { Ok(found) } else { Err(format!("{found:?}")) }
    })?;
    let (ip, _) = ask_for_address(phone)?;
    let four = there.into_iter().find(IpAddr::is_ipv4).ok_or("d has no IPv4 address")?;
    wait_for("d.local by mDNS", secs(20), || mdns::ask(phone, ip, ("d", four), AP, 1))?;
    for ip in found {
        let start = Instant::now();
        let page = wait_for(&format!("the file from {ip}"), secs(20), || {
            probe::http_get(phone, (ip, 8080).into(), &format!("/ipfs/{cid}"), secs(10))
        })?;
        if page != content {
            return Err(format!("{} bytes of {} from {ip}", page.len(), content.len()));
        }
        say(&format!(
            "    {} bytes from {ip}, three hops behind the access point: {} ms",
            page.len(),
            start.elapsed().as_millis()
        ));
    }
    Ok(())
}

fn closed(lab: &mut Lab) -> Result<()> {
    let (a, phone) = (lab.at(A)?, lab.at(PHONE)?);
    // Somebody is at both ports; one is for clients.
    let listen =
        |port| a.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?.map_err(told("listener"));
    let (open, closed) = (listen(8080)?, listen(9999)?);
    let answers = |listener: &TcpListener| {
        let port = listener.local_addr().map_err(told("port"))?.port();
        let to = SocketAddr::new(AP.into(), port);
        phone.inside(move || TcpStream::connect_timeout(&to, secs(1)).is_ok())
    };
    match (answers(&open)?, answers(&closed)?) {
        (true, false) => Ok(()),
        found => Err(format!("8080 and 9999 answer: {found:?}")),
    }
}

fn shown(lab: &mut Lab) -> Result<()> {
    let node = lab.at(A)?;
    let run_dir = node.run_dir().display().to_string();
    let text = node.run("meshctl", &["--run-dir", &run_dir, "radio"], b"")?;
    let text = String::from_utf8_lossy(&text).into_owned();
    for wanted in ["access point \"a\"", "channel 6", "1 client", "ap0", "LEASE", "10.0.0."] {
        if !text.contains(wanted) {
            return Err(format!("{wanted:?} is missing in:\n{text}"));
        }
    }
    Ok(())
}

/// The process that mesh-radio keeps running.
fn hostapd(node: &Node) -> Result<u32> {
    let pid = node.pid("mesh-radio").ok_or("mesh-radio does not run")?;
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(&path).map_err(told(&path))?;
    children.split_whitespace().find_map(|p| p.parse().ok()).ok_or_else(|| "hostapd does not run".into())
}

fn killed(lab: &mut Lab) -> Result<()> {
    let (node, phone) = (lab.at(A)?, lab.at(PHONE)?);
    let pid = hostapd(node)?;
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().map_err(told("kill"))?;
    if !killed.success() {
        return Err(format!("kill: {killed}"));
    }
    let start = Instant::now();
    let back = wait_for("another hostapd that serves", secs(5), || match hostapd(node) {
        Ok(new) if new != pid => serving(node, secs(1)),
        other => Err(format!("{other:?}")),
    });
    back?;
    say(&format!("    on the air again {} ms after hostapd was killed", start.elapsed().as_millis()));
    wait_for("the phone to reach the node again", secs(30), || probe::ping(phone, AP.into(), secs(1)))?;
    say(&format!("    the phone reaches it again {:.1} s after", start.elapsed().as_secs_f32()));
    Ok(())
}

fn radio_dies(lab: &mut Lab) -> Result<()> {
    let (before, _) = ask_for_address(lab.at(PHONE)?)?;
    let pid = hostapd(lab.at(A)?)?;
    lab.node(A)?.kill("mesh-radio")?;
    wait_for("hostapd to end with mesh-radio", secs(5), || {
        let gone = !Path::new(&format!("/proc/{pid}/exe")).exists();
        if gone { Ok(()) } else { Err(format!("process {pid} runs")) }
    })?;
    lab.node(A)?.start("mesh-radio", &[])?;
    serving(lab.at(A)?, secs(30))?;
    let phone = lab.at(PHONE)?;
    let after = wait_for("the same address again", secs(30), || {
        let (after, _) = ask_for_address(phone)?;
        if after == before { Ok(after) } else { Err(format!("{after}, not {before}")) }
    })?;
    wait_for("the phone to reach the node again", secs(10), || probe::ping(phone, AP.into(), secs(1)))?;
    say(&format!("    mesh-radio was killed and is back; {after} stays"));
    lab.node(A)?.stop("mesh-radio")?;
    let left = lab.at(A)?.kernel(Rtnetlink::links)?;
    match left.iter().find(|l| l.name == "ap0") {
        None => Ok(()),
        Some(link) => Err(format!("mesh-radio has ended, and {link:?} stays")),
    }
}

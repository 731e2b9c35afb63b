//! Seven nodes in a line, started from cold without any configuration of radios: five with two simulated radios
//! each, one with a single radio, one with none, on a cable. Each finds each by name, over as many hops as there
//! are. A phone joins the first one's access point with Debian's wpa_supplicant and busybox's DHCP client: it gets
//! addresses, finds a node four hops away by its name, and fetches a file from it. Needs a machine with such
//! radios, see `ci/radio`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::report::{Report, say};
use mesh_lab::{mdns, probe};
use mesh_sys::netlink::Rtnetlink;

use super::common::{Step, addresses, routes, secs};
use super::scan::{Scan, let_in};
use super::wireless::{child, crash, give, interface, join_as_client, joined, plan, serving};

const A: usize = 0;
const E: usize = 4;
/// Has one radio for both.
const F: usize = 5;
/// Has none, and a cable to f.
const G: usize = 6;
const PHONE: usize = 7;
const LAPTOP: usize = 8;
const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "phone", "laptop"];
/// The first radios are another test's.
const FIRST: u32 = 3;
/// Whose each radio is, and whom it hears: those with a bit in common. The line is bits 3 to 7, the clients and the
/// access point of a are bit 8.
const RADIOS: [(usize, u32); 13] = [
    (0, 0x8),
    (0, 0x100),
    (1, 0x18),
    (1, 0x200),
    (2, 0x30),
    (2, 0x400),
    (3, 0x60),
    (3, 0x800),
    (4, 0xc0),
    (4, 0x1000),
    (F, 0x80),
    (PHONE, 0x100),
    (LAPTOP, 0x100),
];
const PASSWORD: &str = "correct horse";
const AP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 11] = [
        ("access_points_come_up_without_being_asked", start),
        ("each_node_of_the_line_reaches_each_by_name", line),
        ("a_phone_joins_with_the_password", joins),
        ("a_laptop_that_knows_wpa3_only_joins_too", joins_with_sae),
        ("it_gets_an_ipv4_address_by_dhcp", dhcp),
        ("it_gets_an_ipv6_address_and_a_router", router),
        ("it_finds_a_node_four_hops_away_and_fetches_a_file", fetches),
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

fn start(lab: &mut Lab) -> Result<()> {
    for name in NAMES {
        let at = lab.add_node(name)?;
        let text = format!("hostname = \"{name}\"\nap.password = \"{PASSWORD}\"\n");
        fs::write(lab.at(at)?.file("p2pmesh.toml"), text).map_err(told("p2pmesh.toml"))?;
    }
    give(lab, FIRST, &RADIOS)?;
    lab.plug(F, G)?;
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
    for at in A..=G {
        let node = lab.node(at)?;
        let name = node.name().to_owned();
        if at != A {
            node.start("mesh-radio", &[])?;
        }
        node.start("mesh-router", &[])?;
        node.start("mesh-mdns", &["--name", &name])?;
    }
    for at in 1..=E {
        let ap = serving(lab.at(at)?, secs(60))?;
        if ap.channel != Some(6) {
            return Err(format!("{ap:?}: a radio of its own, off the mesh's channel"));
        }
    }
    let ap = serving(lab.at(F)?, secs(60))?;
    if ap.channel != Some(1) {
        return Err(format!("{ap:?}: one radio, one channel: the mesh's"));
    }
    match plan(lab.at(G)?)?.access_point {
        None => Ok(()),
        Some(ap) => Err(format!("{ap:?} without a radio")),
    }
}

/// Every pair, both ways: route, hops, name, echo.
fn line(lab: &mut Lab) -> Result<()> {
    let start = Instant::now();
    for (from, to) in (A..=G).flat_map(|from| (A..=G).map(move |to| (from, to))).filter(|(f, t)| f != t) {
        let there = addresses(lab.at(to)?)?;
        let (node, name) = (lab.at(from)?, format!("{}.local", lab.at(to)?.name()));
        let hops = from.abs_diff(to);
        wait_for(&format!("{name} on {}, {hops} hops away", node.name()), secs(90), || {
            let all = routes(node)?;
            for ip in there {
                let route =
                    all.iter().find(|r| r.destination == ip).ok_or_else(|| format!("no route to {ip}"))?;
                if usize::from(route.hops) != hops {
                    return Err(format!("{route:?}"));
                }
            }
            let found = probe::resolve(node, &name)?;
            match there.iter().all(|ip| found.contains(ip)) {
                true => probe::ping(node, there[0], secs(1)).map(drop),
                false => Err(format!("{found:?}")),
            }
        })?;
    }
    say(&format!(
        "    42 pairs of seven nodes, up to 6 hops, each by name: {:.1} s after the last access point was on the air",
        start.elapsed().as_secs_f32()
    ));
    Ok(())
}

fn joins(lab: &mut Lab) -> Result<()> {
    let phone = lab.node(PHONE)?;
    let start = Instant::now();
    join_as_client(phone, &format!(" ssid=\"a\"\n psk=\"{PASSWORD}\"\n key_mgmt=WPA-PSK\n"))?;
    joined(phone, secs(60))?;
    say(&format!("    joined after {:.1} s, scans included", start.elapsed().as_secs_f32()));
    Ok(())
}

/// One that knows WPA3 only, while the other stays.
fn joins_with_sae(lab: &mut Lab) -> Result<()> {
    let ap = serving(lab.at(A)?, secs(5))?;
    if !ap.wpa3 {
        return Err(format!("{ap:?}: the radio can do SAE"));
    }
    let laptop = lab.node(LAPTOP)?;
    let start = Instant::now();
    let network = format!(
        " ssid=\"a\"\n sae_password=\"{PASSWORD}\"\n key_mgmt=SAE\n ieee80211w=2\n pairwise=CCMP\n group=CCMP\n"
    );
    join_as_client(laptop, &network)?;
    joined(laptop, secs(60))?;
    let (ip, _) = ask_for_address(laptop)?;
    say(&format!("    joined by SAE, {ip} after {:.1} s, scans included", start.elapsed().as_secs_f32()));
    probe::ping(laptop, AP.into(), secs(2))?;
    joined(lab.at(PHONE)?, secs(1))
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
    lab.node(E)?.start("mesh-store", &[])?;
    let run_dir = lab.at(E)?.run_dir().display().to_string();
    let content = b"from the other end of the mesh\n".repeat(2000);
    let added = wait_for("the store of e", secs(20), || {
        lab.at(E)?.run("meshctl", &["--run-dir", &run_dir, "ipfs", "add", "-Q"], &content)
    })?;
    let cid = String::from_utf8_lossy(&added).trim().to_owned();
    let there = addresses(lab.at(E)?)?;
    let phone = lab.at(PHONE)?;
    let server = SocketAddr::new(AP.into(), 53);
    let found = wait_for("e.local by DNS", secs(60), || {
        let mut found = probe::resolve_at(phone, server, "e.local", 28)?;
        found.extend(probe::resolve_at(phone, server, "e.local", 1)?);
        if there.iter().all(|ip| found.contains(ip)) { Ok(found) } else { Err(format!("{found:?}")) }
    })?;
    let (ip, _) = ask_for_address(phone)?;
    let four = there.into_iter().find(IpAddr::is_ipv4).ok_or("e has no IPv4 address")?;
    wait_for("e.local by mDNS", secs(20), || mdns::ask(phone, ip, ("e", four), AP, 1))?;
    for ip in found {
        let start = Instant::now();
        let page = wait_for(&format!("the file from {ip}"), secs(20), || {
            probe::http_get(phone, (ip, 8080).into(), &format!("/ipfs/{cid}"), secs(10))
        })?;
        if page != content {
            return Err(format!("{} bytes of {} from {ip}", page.len(), content.len()));
        }
        say(&format!(
            "    {} bytes from {ip}, four hops behind the access point: {} ms",
            page.len(),
            start.elapsed().as_millis()
        ));
    }
    Ok(())
}

/// Every well-known port, and more: somebody is at each.
fn closed(lab: &mut Lab) -> Result<()> {
    let ports: Vec<u16> = (1..=1024).chain([4080, 5201, 5353, 8080, 8443, 9999, 40_000]).collect();
    let found = let_in(lab.at(A)?, lab.at(PHONE)?, AP, &ports)?;
    // DNS, DHCP and mDNS over UDP have their services, which answered above; so has the router's port, see the other scans.
    let want: Scan = [(true, 53), (true, 80), (true, 8080), (true, 5201), (false, 5201)].into();
    say(&format!("    {} ports over TCP and UDP, {} let in", ports.len(), found.len()));
    if found == want { Ok(()) } else { Err(format!("{found:?} instead of {want:?} let in")) }
}

fn shown(lab: &mut Lab) -> Result<()> {
    let node = lab.at(A)?;
    let run_dir = node.run_dir().display().to_string();
    let text = node.run("meshctl", &["--run-dir", &run_dir, "radio"], b"")?;
    let text = String::from_utf8_lossy(&text).into_owned();
    for wanted in ["access point \"a\"", "channel 6", "2 clients", "WPA2 and WPA3", "ap0", "LEASE", "10.0.0."]
    {
        if !text.contains(wanted) {
            return Err(format!("{wanted:?} is missing in:\n{text}"));
        }
    }
    Ok(())
}

fn killed(lab: &mut Lab) -> Result<()> {
    let (node, phone) = (lab.at(A)?, lab.at(PHONE)?);
    let pid = child(node, "hostapd")?;
    crash(pid)?;
    let start = Instant::now();
    let back = wait_for("another hostapd that serves", secs(5), || match child(node, "hostapd") {
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
    let pid = child(lab.at(A)?, "hostapd")?;
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

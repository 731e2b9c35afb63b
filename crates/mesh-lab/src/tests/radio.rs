//! Three nodes in a line, each with a simulated radio (mac80211_hwsim): mesh-radio makes an 802.11s mesh point
//! of it, and what the radio knows of its stations reaches the router. Needs a machine with such radios, see
//! `ci/radio`.

use std::fs::File;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mesh_ipc::router::LinkState;
use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::probe;
use mesh_lab::report::{Report, say};
use mesh_sys::netlink::nl80211::{self, MeshSetup, Nl80211};
use mesh_sys::netlink::{RouteEvent, RouteMonitor, Rtnetlink};

use super::common::{Step, TABLE, addresses, neighbors, secs, symmetric_links};
use super::wireless::{give, mesh_interface, wifi};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// Who hears whom: radios hear each other if they have a bit in common.
const LINE: [(usize, u32); 3] = [(A, 1), (B, 3), (C, 2)];

/// From the radio's word to the route's end (the kernel's own peering tells only who looks: see radio-core's
/// `POLL`, a quarter of a second more).
const AT_ONCE: Duration = Duration::from_millis(300);
const AFTER_A_LOOK: Duration = Duration::from_millis(600);

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 7] = [
        ("radios_become_mesh_points_and_find_each_other", start),
        ("routes_lead_over_two_hops", routes),
        ("signal_and_rates_reach_the_metric", figures),
        ("a_removed_station_is_a_lost_link_at_once", removed),
        ("a_neighbor_that_leaves_is_lost_at_once", leaves),
        ("a_radio_that_is_unplugged_and_comes_back_meshes_again", replugged),
        ("without_mesh_radio_links_stay_and_it_may_come_back", radio_restarts),
    ];
    for (name, step) in steps {
        if report.test(&format!("radio::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

fn start(lab: &mut Lab) -> Result<()> {
    for name in ["a", "b", "c"] {
        lab.add_node(name)?;
    }
    give(lab, 0, &LINE)?;
    for at in [A, B, C] {
        let node = lab.node(at)?;
        node.start("mesh-radio", &[])?;
        node.start("mesh-router", &[])?;
    }
    let start = Instant::now();
    all_links(lab)?;
    say(&format!("    from the services' start to all links: {:.1} s", start.elapsed().as_secs_f32()));
    Ok(())
}

/// Joins again by hand.
fn join(node: &Node) -> Result<()> {
    let interface = mesh_interface(node)?;
    let setup = MeshSetup {
        id: b"p2pmesh",
        frequency: 2412,
        ht: true,
        peer_timeout: 10,
        beacon_interval: 200,
        rssi_threshold: 0,
    };
    wifi(node, |nl| nl.join_mesh(interface, &setup))
}

fn all_links(lab: &mut Lab) -> Result<()> {
    for (at, links) in [(A, 2), (B, 4), (C, 2)] {
        symmetric_links(lab.node(at)?, links)?;
    }
    Ok(())
}

fn routes(lab: &mut Lab) -> Result<()> {
    let far = addresses(lab.node(C)?)?;
    for ip in far {
        let took = wait_for(&format!("echo of {ip}"), secs(20), || probe::ping(lab.at(A)?, ip, secs(1)))?;
        say(&format!("    a → b → c: {ip} answers after {} ms", took.as_millis()));
    }
    Ok(())
}

fn figures(lab: &mut Lab) -> Result<()> {
    let node = lab.at(B)?;
    let all = wait_for("signal and rate of every link of b", secs(15), || {
        for at in [A, C] {
            for ip in addresses(lab.at(at)?)? {
                let _ = probe::ping(node, ip, Duration::from_millis(200)); // unicast, for the rate
            }
        }
        let all = neighbors(node)?;
        let good = all.iter().filter(|n| n.signal.is_some() && n.bitrate_in.is_some()).count();
        if good == 4 { Ok(all) } else { Err(format!("{all:?}")) }
    })?;
    for n in &all {
        let (signal, rate) = (n.signal.unwrap_or(0), n.bitrate_in.unwrap_or(0));
        say(&format!("    b hears {}: {signal} dBm, {rate} bit/s, cost {}", n.address, n.metric_in));
    }
    let run_dir = node.run_dir();
    let flags = ["--run-dir", &run_dir.display().to_string(), "neighbors", "--json"];
    let shown = String::from_utf8_lossy(&node.run("meshctl", &flags, b"")?).into_owned();
    let signals = shown.matches("\"signal_dbm\": -").count();
    if signals == 4 && !shown.contains("\"bitrate_in\": null") { Ok(()) } else { Err(shown) }
}

/// What happens at the two ends of a link: the radio's word at `near`, and the ends of both routes.
struct Ends {
    radio: nl80211::Monitor,
    near: RouteMonitor,
    far: RouteMonitor,
    near_ip: Ipv6Addr,
    far_ip: Ipv6Addr,
}

/// Times since the cause.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    event: Option<Duration>,
    near: Option<Duration>,
    far: Option<Duration>,
}

impl Ends {
    fn watch(near: &Node, far: &Node) -> Result<Self> {
        let v6 = |node: &Node| node.id().map(|id| id.ula_address());
        let radio = near.inside(nl80211::Monitor::open)?.map_err(told("nl80211"))?;
        Ok(Self {
            radio: radio.ok_or("this kernel has no Wi-Fi")?,
            near: near.inside(RouteMonitor::new)?.map_err(told("routes"))?,
            far: far.inside(RouteMonitor::new)?.map_err(told("routes"))?,
            near_ip: v6(near)?,
            far_ip: v6(far)?,
        })
    }

    /// Looks until all of it was `seen` enough, or `patience` is over.
    fn until(&mut self, start: Instant, patience: Duration, enough: impl Fn(&Seen) -> bool) -> Result<Seen> {
        let mut seen = Seen::default();
        while !enough(&seen) && start.elapsed() < patience {
            while let Some(event) = self.radio.poll_event().map_err(told("nl80211"))? {
                if matches!(event, nl80211::Event::StationGone(_)) {
                    seen.event = seen.event.or(Some(start.elapsed()));
                }
            }
            for (monitor, ip, when) in
                [(&mut self.near, self.far_ip, &mut seen.near), (&mut self.far, self.near_ip, &mut seen.far)]
            {
                while let Some(event) = monitor.poll_event().map_err(told("routes"))? {
                    if matches!(event, RouteEvent::Gone(r) if r.prefix == IpAddr::V6(ip) && r.table == TABLE)
                    {
                        *when = when.or(Some(start.elapsed()));
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(seen)
    }
}

fn ms(time: Option<Duration>) -> String {
    time.map_or("never".into(), |t| format!("{} ms", t.as_millis()))
}

fn removed(lab: &mut Lab) -> Result<()> {
    let (a, b) = (lab.at(A)?, lab.at(B)?);
    let (interface, mac) = (mesh_interface(b)?, hardware_address(a)?);
    let mut ends = Ends::watch(b, a)?;
    let start = Instant::now();
    wifi(b, |nl| nl.remove_station(interface, mac))?;
    let seen = ends.until(start, secs(5), |s| s.event.is_some() && s.near.is_some())?;
    let v4 = addresses(a)?.into_iter().find(IpAddr::is_ipv4);
    let still = neighbors(b)?.into_iter().find(|n| Some(n.address) == v4 && n.state == LinkState::Symmetric);
    // The other end hears that the link was closed; where both are peers again before it looks, it loses none.
    let far = ends.until(start, AFTER_A_LOOK, |s| s.far.is_some())?.far.or(seen.far);
    let event = seen.event.ok_or("the radio told nothing")?;
    let near = seen.near.map(|t| t.saturating_sub(event));
    let far = far.map_or("none".into(), |t| format!("{} ms after it", t.saturating_sub(event).as_millis()));
    say(&format!(
        "    station removed at b: its route to a ends {} after the radio's word; a lost its to b: {far}",
        ms(near)
    ));
    if near.is_none_or(|t| t > AT_ONCE) {
        return Err(format!("{seen:?}"));
    }
    if let Some(n) = still {
        return Err(format!("the IPv4 link stays: {n:?}"));
    }
    all_links(lab)?;
    say(&format!("    peers again, all links back {:.1} s after", start.elapsed().as_secs_f32()));
    Ok(())
}

fn hardware_address(node: &Node) -> Result<[u8; 6]> {
    let interface = mesh_interface(node)?;
    let links = node.kernel(Rtnetlink::links)?;
    let mac = links.into_iter().find(|l| l.index == interface).and_then(|l| l.mac);
    mac.ok_or_else(|| format!("{}: no hardware address", node.name()))
}

fn leaves(lab: &mut Lab) -> Result<()> {
    let (a, b) = (lab.at(A)?, lab.at(B)?);
    let interface = mesh_interface(a)?;
    let mut ends = Ends::watch(b, a)?;
    let start = Instant::now();
    wifi(a, |nl| nl.leave_mesh(interface))?;
    let seen = ends.until(start, secs(10), |s| s.near.is_some())?;
    say(&format!("    a leaves the mesh: b's route to a ends after {}", ms(seen.near)));
    if seen.near.is_none_or(|t| t > AFTER_A_LOOK) {
        return Err(format!("{seen:?}"));
    }
    join(a)?;
    all_links(lab)
}

/// The radio of a node's mesh point.
fn radio_of(node: &Node) -> Result<u32> {
    let all = wifi(node, Nl80211::wiphys)?;
    all.first().map(|w| w.index).ok_or_else(|| format!("{} has no radio", node.name()))
}

fn replugged(lab: &mut Lab) -> Result<()> {
    let outside = File::open("/proc/self/ns/net").map_err(told("own namespace"))?;
    let (a, b) = (lab.at(A)?, lab.at(B)?);
    let radio = radio_of(a)?;
    let mut ends = Ends::watch(b, a)?;
    let start = Instant::now();
    wifi(a, |nl| nl.set_namespace(radio, outside.as_fd()))?;
    let seen = ends.until(start, secs(10), |s| s.near.is_some() && s.far.is_some())?;
    say(&format!(
        "    radio of a unplugged: its own route ends after {}, b's to a after {}",
        ms(seen.far),
        ms(seen.near)
    ));
    let mut nl = Nl80211::open().map_err(told("nl80211"))?.ok_or("this kernel has no Wi-Fi")?;
    nl.set_namespace(radio, a.namespace()).map_err(told("moving a radio"))?;
    let start = Instant::now();
    wait_for("the mesh point to run again", secs(5), || {
        let interface = mesh_interface(a)?;
        let all = a.kernel(Rtnetlink::links)?;
        let runs = all.iter().any(|l| l.index == interface && l.running());
        if runs { Ok(()) } else { Err(format!("{all:?}")) }
    })?;
    let replanned = start.elapsed();
    all_links(lab)?;
    say(&format!(
        "    plugged in again: mesh point runs after {} ms, all links {:.1} s after",
        replanned.as_millis(),
        start.elapsed().as_secs_f32()
    ));
    Ok(())
}

fn radio_restarts(lab: &mut Lab) -> Result<()> {
    lab.node(B)?.kill("mesh-radio")?;
    wait_for("b's router to say that mesh-radio is away", secs(10), || {
        match lab.at(B)?.ask(mesh_ipc::Request::Status)? {
            mesh_ipc::Response::Status(s) if s.problems.iter().any(|p| p.contains("mesh-radio")) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    all_links(lab)?;
    routes(lab)?;
    lab.node(B)?.start("mesh-radio", &[])?;
    wait_for("b's router to hear of both peers again", secs(20), || {
        match lab.at(B)?.ask(mesh_ipc::Request::Status)? {
            mesh_ipc::Response::Status(s) if s.counters.contains(&("radio_peers".into(), 2)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    removed(lab)
}

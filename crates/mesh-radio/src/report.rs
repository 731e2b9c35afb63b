//! What the service knows, in the words of the control socket.

use mesh_ipc::radio::{AccessPoint, Interface, MAX_STATIONS, Phy, Plan, Role, Station};
use radio_core::{Planner, Stations, channel_number};

use crate::ap;
use crate::clients::Clients;
use crate::ports::Ports;

pub(crate) fn plan(plan: &radio_core::Plan, ap: &ap::AccessPoint) -> Plan {
    let interfaces = plan.interfaces.iter().map(|i| Interface {
        name: i.name.clone(),
        index: i.index,
        role: match i.role {
            radio_core::Role::Mesh => Role::Mesh,
            radio_core::Role::AccessPoint => Role::AccessPoint,
            radio_core::Role::Uplink => Role::Uplink,
            radio_core::Role::ByHand => Role::ByHand,
            radio_core::Role::Unused => Role::Unused,
        },
        running: i.running,
        reason: i.reason.clone(),
    });
    let phys = plan.phys.iter().map(|p| Phy {
        name: p.phy.name.clone(),
        modes: p.phy.modes.iter().map(|m| m.name().to_owned()).collect(),
        bands: p.phy.bands.iter().map(|b| b.name().to_owned()).collect(),
        reason: p.reason.clone(),
    });
    let serving = plan.phys.iter().find(|p| p.access_point);
    let access_point = ap.target().map(|t| AccessPoint {
        interface: t.interface.clone(),
        ssid: ap.settings.ssid.clone(),
        frequency: t.work.channel.frequency,
        channel: channel_number(t.work.channel.frequency),
        serving: ap.serves(),
        most_clients: serving.and_then(|p| p.phy.most_clients),
    });
    Plan { interfaces: interfaces.collect(), phys: phys.collect(), access_point }
}

pub(crate) fn stations<'a>(
    plan: &radio_core::Plan,
    all: impl Iterator<Item = &'a radio_core::Station>,
) -> Vec<Station> {
    let name = |index: u32| plan.interfaces.iter().find(|i| i.index == index).map(|i| i.name.clone());
    let each = all.map(|s| Station {
        index: s.interface,
        interface: name(s.interface).unwrap_or_default(),
        mac: s.mac,
        peer: s.peer,
        signal: s.signal,
        tx_bitrate: s.tx_bitrate,
        rx_bitrate: s.rx_bitrate,
        expected_throughput: s.expected_throughput,
        inactive_ms: s.inactive_ms,
    });
    each.take(MAX_STATIONS).collect()
}

pub(crate) fn counters(
    planner: &Planner,
    stations: &Stations,
    ap: &ap::AccessPoint,
    clients: Option<&Clients>,
    ports: &Ports,
) -> Vec<(String, u64)> {
    let (c, s) = (planner.counters(), stations.counters());
    let dhcp = clients.map(|c| *c.counters()).unwrap_or_default();
    let (leases, client) = ports.counters();
    let plan = planner.plan();
    let running = plan.interfaces.iter().filter(|i| i.running && i.role == radio_core::Role::Mesh);
    let counters = [
        ("interfaces", plan.interfaces.len() as u64),
        ("mesh_running", running.count() as u64),
        ("phys", plan.phys.len() as u64),
        ("plans", c.plans),
        ("steps", c.steps),
        ("failures", c.failures),
        ("too_many", c.too_many),
        ("stations", stations.iter().count() as u64),
        ("peers", stations.iter().filter(|s| s.peer).count() as u64),
        ("peers_up", s.peers_up),
        ("peers_lost", s.peers_lost),
        ("station_lists", s.lists),
        ("stations_too_many", s.too_many),
        ("ap_serving", ap.serves().into()),
        ("ap_restarts", ap.restarts()),
        ("dhcp_leases", clients.map_or(0, Clients::leases) as u64),
        ("dhcp_messages", dhcp.messages),
        ("dhcp_dropped", dhcp.dropped),
        ("dhcp_acks", dhcp.acks),
        ("dhcp_naks", dhcp.naks),
        ("dhcp_full", dhcp.full),
        ("dhcp_evicted", dhcp.evicted),
        ("uplink_leases", leases),
        ("uplink_dhcp_sent", client.sent),
        ("uplink_dhcp_received", client.received),
        ("uplink_dhcp_dropped", client.dropped),
        ("uplink_dhcp_acks", client.acks),
        ("uplink_dhcp_naks", client.naks),
    ];
    counters.map(|(name, value)| (name.to_owned(), value)).into()
}

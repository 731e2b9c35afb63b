//! What the service knows, in the words of the control socket.

use mesh_ipc::radio::{AccessPoint, Interface, MAX_STATIONS, Phy, Plan, Role, Station};
use mesh_types::Instant;
use radio_core::{Planner, channel_number};

use crate::ap;
use crate::clients::Clients;
use crate::secured::Secured;
use crate::service::Service;

pub(crate) fn plan(now: Instant, planner: &Planner, ap: &ap::AccessPoint, secured: &Secured) -> Plan {
    let plan = planner.plan();
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
        reason: secured.strangers(now, i.index).fold(i.reason.clone(), |why, mac| {
            format!("{why}; no link with {}: another mesh.password", crate::wifi::text(*mac))
        }),
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
        wpa3: ap.offers_sae(),
        most_clients: serving.and_then(|p| p.phy.most_clients),
    });
    Plan { interfaces: interfaces.collect(), phys: phys.collect(), access_point, manual: planner.released() }
}

/// What is planned otherwise now, each with its reason; carrier alone is no plan.
pub(crate) fn changes(before: &radio_core::Plan, now: &radio_core::Plan) -> Vec<String> {
    let mut list = Vec::new();
    for p in &now.phys {
        let old = before.phys.iter().find(|o| o.phy.index == p.phy.index && o.phy.name == p.phy.name);
        if old.is_none_or(|o| o.reason != p.reason) {
            list.push(format!("{}: {}", p.phy.name, p.reason));
        }
    }
    let gone = |o: &&radio_core::PlannedPhy| now.phys.iter().all(|p| p.phy.name != o.phy.name);
    list.extend(before.phys.iter().filter(gone).map(|o| format!("{}: the radio is gone", o.phy.name)));
    for i in &now.interfaces {
        let old = before.interfaces.iter().find(|o| o.index == i.index && o.name == i.name);
        if old.is_none_or(|o| (o.role, &o.reason) != (i.role, &i.reason)) {
            list.push(format!("{}: {:?}: {}", i.name, i.role, i.reason));
        }
    }
    let gone = |o: &&radio_core::PlannedInterface| {
        now.interfaces.iter().all(|i| i.index != o.index || i.name != o.name)
    };
    list.extend(before.interfaces.iter().filter(gone).map(|o| format!("{}: the interface is gone", o.name)));
    list
}

/// The radios that can't be used at present, for people.
pub(crate) fn unusable(plan: &radio_core::Plan) -> impl Iterator<Item = String> + '_ {
    plan.phys.iter().filter(|p| p.phy.off.is_some()).map(|p| format!("radio {}: {}", p.phy.name, p.reason))
}

/// What the configuration wants and is not possible, for people; `place` is where a key stands.
pub(crate) fn denied(plan: &radio_core::Plan, place: impl Fn(&str) -> String) -> Vec<String> {
    let each = |p: &radio_core::PlannedPhy| {
        let name = p.phy.name.clone();
        let text = |d: &radio_core::Denied| format!("{}{}: {name} works on {}", place(d.key), d.key, d.why);
        p.denied.iter().map(text).collect::<Vec<_>>()
    };
    plan.phys.iter().flat_map(each).collect()
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

pub(crate) fn counters(service: &Service) -> Vec<(String, u64)> {
    let (planner, stations, ap) = (&service.planner, &service.wifi.stations, &service.ap);
    let clients = service.clients.as_ref();
    let (c, s) = (planner.counters(), stations.counters());
    let dhcp = clients.map(|c| *c.counters()).unwrap_or_default();
    let (leases, client) = service.ports.counters();
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
        ("secured_restarts", service.secured.restarts()),
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
        ("uplink_dhcp_declined", client.declined),
    ];
    counters.map(|(name, value)| (name.to_owned(), value)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use radio_core::{PlannedInterface, PlannedPhy};

    #[test]
    fn a_change_is_told_once_with_its_reason() {
        let phy = |name: &str| radio_core::Phy {
            index: 0,
            name: name.into(),
            modes: vec![],
            bands: vec![],
            channels: vec![],
            radar: vec![],
            combinations: vec![],
            most_clients: None,
            sae_ap: false,
            sae_mesh: false,
            off: None,
        };
        let phy = |name, reason: &str| PlannedPhy {
            phy: phy(name),
            access_point: false,
            reason: reason.into(),
            denied: vec![],
        };
        let interface = |role, running, reason: &str| PlannedInterface {
            index: 3,
            name: "mesh0".into(),
            role,
            running,
            asks: false,
            reason: reason.into(),
        };
        let plan = |phys, interfaces| radio_core::Plan { phys, interfaces };
        let none = plan(vec![], vec![]);
        let first =
            plan(vec![phy("phy0", "spare")], vec![interface(radio_core::Role::Mesh, false, "2412 MHz")]);
        assert_eq!(changes(&none, &first), ["phy0: spare", "mesh0: Mesh: 2412 MHz"]);
        let up = plan(first.phys.clone(), vec![interface(radio_core::Role::Mesh, true, "2412 MHz")]);
        assert_eq!(changes(&first, &up), [""; 0]);
        let other = plan(vec![phy("phy1", "spare")], up.interfaces.clone());
        assert_eq!(changes(&up, &other), ["phy1: spare", "phy0: the radio is gone"]);
        assert_eq!(changes(&up, &none), ["phy0: the radio is gone", "mesh0: the interface is gone"]);
        let why = "2412 MHz instead of 5260 MHz (mesh.channel), where radar has to be looked for".into();
        let wish = radio_core::Denied { key: "mesh.channel", why };
        let impossible = plan(vec![PlannedPhy { denied: vec![wish], ..phy("phy0", "mesh point") }], vec![]);
        let told = denied(&impossible, |_| "p2pmesh.toml: line 4: ".into());
        let want = "p2pmesh.toml: line 4: mesh.channel: phy0 works on 2412 MHz instead of 5260 MHz (mesh.channel), where radar \
                    has to be looked for";
        assert_eq!(told, [want]);
        assert_eq!(denied(&first, |_| String::new()), [""; 0]);
    }
}

//! The instances' tables in the words of the control socket.

use std::net::IpAddr;

use mesh_ipc::ServiceStatus;
use mesh_ipc::router::{Edge, LinkState, MessageTraffic, Neighbor, Route, Traffic};
use mesh_sys::udp::Family;
use mesh_types::Instant;
use olsrv2::{Counters, Kinds, LinkStatus, PortCounters};

use crate::instance::Instance;
use crate::links::Links;

fn name(links: &Links, index: u32) -> String {
    links.name(index).map_or_else(|| format!("interface {index}"), str::to_owned)
}

/// The links of both families.
pub(crate) fn neighbors(instances: &[Instance], links: &Links, now: Instant) -> Vec<Neighbor> {
    let each = instances.iter().flat_map(|i| i.router.neighbors());
    each.map(|n| Neighbor {
        interface: name(links, n.interface),
        address: n.address,
        originator: n.originator,
        state: match n.status {
            LinkStatus::Pending | LinkStatus::Heard => LinkState::Heard,
            LinkStatus::Symmetric if n.suspect => LinkState::Suspect,
            LinkStatus::Symmetric => LinkState::Symmetric,
            LinkStatus::Lost => LinkState::Lost,
        },
        metric_out: n.metric_out.value(),
        metric_in: n.metric_in.value(),
        flooding_mpr: n.mpr.0,
        routing_mpr: n.mpr.1,
        mpr_selector: n.mpr_selector.0 || n.mpr_selector.1,
        last_hello_ms: now.saturating_since(n.last_packet).as_millis(),
        signal: n.signal,
        bitrate_in: n.bitrate_in,
    })
    .collect()
}

/// The routes of both families.
pub(crate) fn routes(instances: &[Instance], links: &Links) -> Vec<Route> {
    // Where packets from here go, not those that pass through.
    let own = |i: &Instance, r: olsrv2::Route| {
        i.router.gateway().map_or(r, |c| if c.route.prefix == r.prefix { c.route } else { r })
    };
    let each = instances.iter().flat_map(|i| i.router.routes().map(move |r| own(i, r)));
    each.map(|r| Route {
        destination: r.prefix.ip(),
        prefix_len: r.prefix.prefix_len(),
        next_hop: r.next_hop,
        interface: name(links, r.interface),
        metric: r.metric.value(),
        hops: r.hops,
        originator: r.router,
    })
    .collect()
}

/// The links that others advertise and our own symmetric ones.
pub(crate) fn topology(instances: &[Instance]) -> Vec<Edge> {
    let mut edges = Vec::new();
    for instance in instances {
        let me = instance.originator();
        let symmetric = instance.router.neighbors().filter(|n| n.status == LinkStatus::Symmetric);
        edges.extend(
            symmetric
                .filter_map(|n| Some(Edge { from: me, to: n.originator?, metric: n.metric_out.value() })),
        );
        edges.extend(instance.router.topology().map(|e| Edge {
            from: e.from,
            to: e.to,
            metric: e.metric.value(),
        }));
    }
    edges
}

/// What went over the interfaces in use.
pub(crate) fn traffic(instances: &[Instance], links: &Links) -> Vec<Traffic> {
    let each = instances.iter().flat_map(|i| i.router.port_counters().map(move |(index, c)| (i, index, c)));
    each.map(|(instance, index, c)| {
        let socket = instance.port_traffic(index);
        Traffic {
            interface: name(links, index),
            ipv4: instance.family == Family::V4,
            packets_in: c.packets_in,
            bytes_in: c.bytes_in,
            packets_out: c.packets_out,
            bytes_out: c.bytes_out,
            packets_malformed: c.packets_malformed,
            packets_refused: socket.refused,
            packets_overflowed: socket.overflowed,
            packets_unsent: socket.send_failed,
            messages: messages(c).into(),
        }
    })
    .collect()
}

fn messages(c: &PortCounters) -> [MessageTraffic; 4] {
    type Of = fn(&Kinds) -> u64;
    let kinds: [(&str, Of); 4] =
        [("HELLO", |k| k.hellos), ("TC", |k| k.tcs), ("record", |k| k.records), ("other", |k| k.others)];
    kinds.map(|(kind, of)| MessageTraffic {
        kind: kind.into(),
        received: of(&c.received),
        refused: of(&c.refused),
        duplicates: of(&c.duplicates),
        sent: of(&c.sent),
        forwarded: of(&c.forwarded),
        queue_full: of(&c.queue_full),
    })
}

/// Hops to a router of the mesh; 255 while there is no route.
pub(crate) fn hops(instance: &Instance, originator: IpAddr) -> u8 {
    let mut routes = instance.router.routes();
    routes.find(|r| r.prefix.is_host() && r.prefix.ip() == originator).map_or(u8::MAX, |r| r.hops)
}

/// All counters, `ipv6_…` and `ipv4_…`.
pub(crate) fn counters(instances: &[Instance], status: &mut ServiceStatus) {
    for i in instances {
        let family = i.name().to_ascii_lowercase();
        let mut add = |name: &str, value: u64| status.counters.push((format!("{family}_{name}"), value));
        let symmetric = i.router.neighbors().filter(|n| n.status == LinkStatus::Symmetric).count();
        add("interfaces", i.interfaces() as u64);
        add("neighbors", symmetric as u64);
        add("routes", i.router.routes().count() as u64);
        add("records", i.router.records().count() as u64);
        core_counters(i.router.counters(), &mut add);
        add("packets_refused", i.counters.refused);
        add("packets_unsent", i.counters.send_failed);
    }
}

fn core_counters(c: &Counters, add: &mut impl FnMut(&str, u64)) {
    // Without `..`: one that is counted is shown.
    macro_rules! show {
        ($($name:ident),* $(,)?) => {
            let Counters { $($name),* } = c;
            $(add(stringify!($name), *$name);)*
        };
    }
    show!(
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
        packets_malformed,
        messages_invalid,
        icv_missing,
        icv_unknown_key,
        icv_wrong,
        timestamp_missing,
        replayed,
        not_symmetric,
        rate_limited,
        duplicates,
        not_mpr,
        hop_limit,
        own_returned,
        own_tcs_ahead,
        unknown_messages,
        table_full,
        queue_full,
        hellos_in,
        hellos_out,
        tcs_in,
        tc_changes,
        tcs_out,
        tcs_triggered,
        records_in,
        records_out,
        forwarded,
        relayed,
        links_up,
        links_down,
        probes,
        probes_answered,
        probes_failed,
        route_runs,
        route_changes,
    );
}

//! The instances' tables in the words of the control socket.

use std::net::IpAddr;

use mesh_ipc::ServiceStatus;
use mesh_ipc::router::{Edge, LinkState, Neighbor, Route};
use mesh_types::Instant;
use olsrv2::{Counters, LinkStatus};

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
    })
    .collect()
}

/// The routes of both families.
pub(crate) fn routes(instances: &[Instance], links: &Links) -> Vec<Route> {
    let each = instances.iter().flat_map(|i| i.router.routes());
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
    add("packets_in", c.packets_in);
    add("bytes_in", c.bytes_in);
    add("packets_out", c.packets_out);
    add("bytes_out", c.bytes_out);
    add("packets_malformed", c.packets_malformed);
    add("messages_invalid", c.messages_invalid);
    add("icv_missing", c.icv_missing);
    add("icv_unknown_key", c.icv_unknown_key);
    add("icv_wrong", c.icv_wrong);
    add("timestamp_missing", c.timestamp_missing);
    add("replayed", c.replayed);
    add("hellos_in", c.hellos_in);
    add("hellos_out", c.hellos_out);
    add("tcs_in", c.tcs_in);
    add("tc_changes", c.tc_changes);
    add("tcs_out", c.tcs_out);
    add("records_in", c.records_in);
    add("records_out", c.records_out);
    add("forwarded", c.forwarded);
    add("relayed", c.relayed);
    add("duplicates", c.duplicates);
    add("not_symmetric", c.not_symmetric);
    add("own_tcs_ahead", c.own_tcs_ahead);
    add("unknown_messages", c.unknown_messages);
    add("table_full", c.table_full);
    add("queue_full", c.queue_full);
    add("probes", c.probes);
    add("route_runs", c.route_runs);
    add("route_changes", c.route_changes);
}

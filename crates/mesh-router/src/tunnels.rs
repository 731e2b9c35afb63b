//! Tunnels to gateways: which of those told are true, the routes into them, and the routes out of ours.
//!
//! The node's own packets, and its clients', reach their gateway through a tunnel when there are several, so
//! that no node on the way sends them to another (docs/decisions/0003-routes-and-gateways.md). On the gateway
//! a packet that comes out is sent as if it were to an address that nobody has: by the node's own default
//! route, whatever its real destination, so nothing comes back into the mesh.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mesh_sys::netlink::{Route, RouteKind};
use olsrv2::{NetAddr, Note};

use crate::fib::{METRIC, METRIC_UNREACHABLE, PROTOCOL};
use crate::instance::Instance;

/// The table of default routes into tunnels, for what does not come from the mesh.
pub(crate) const OWN: u32 = 108;
/// The table of tunnels that end here, for what comes from the mesh.
pub(crate) const ENDS: u32 = 109;

/// Stand for "anywhere else" in [`ENDS`]: never a destination (RFC 6666 §4, RFC 7600 §4.8).
const ELSEWHERE: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8))];

/// Where a gateway's tunnels end within its /64, for IPv6 and IPv4 packets.
const ENDS_AT: [[u16; 2]; 2] = [[0xda, 6], [0xda, 4]];

/// Where tunnels for the family at that place (IPv6, IPv4) end in a /64.
pub(crate) fn end(prefix: Ipv6Addr, at: usize) -> Ipv6Addr {
    let [a, b, c, d, ..] = prefix.segments();
    let [e, f] = ENDS_AT.get(at).copied().unwrap_or_default();
    Ipv6Addr::new(a, b, c, d, 0, 0, e, f)
}

fn route(kind: RouteKind, prefix: IpAddr, gateway: Option<IpAddr>, index: u32, table: u32) -> Route {
    let prefix_len = NetAddr::host(prefix).prefix_len();
    Route {
        kind,
        prefix,
        prefix_len,
        gateway,
        index,
        source: None,
        metric: METRIC,
        table,
        protocol: PROTOCOL,
    }
}

/// The routes of a tunnel that ends here: out of it, and on to the uplink, interface `index`.
pub(crate) fn routes_out(prefix: Ipv6Addr, at: usize, via: Option<IpAddr>, index: u32) -> Option<[Route; 2]> {
    let elsewhere = *ELSEWHERE.get(at)?;
    Some([
        route(RouteKind::Unicast, elsewhere, via, index, ENDS),
        route(RouteKind::TunnelEnd, end(prefix, at).into(), Some(elsewhere), index, ENDS),
    ])
}

/// Gateways, and where the tunnel to each ends.
type Gateways = BTreeMap<IpAddr, Ipv6Addr>;

/// Tunnels that lead away from here.
#[derive(Debug)]
pub(crate) struct Tunnels {
    /// The kernel can make them.
    pub(crate) possible: bool,
    /// IPv6 and IPv4.
    known: [Gateways; 2],
    /// Runs of the instances' route calculations that were looked at.
    seen: Vec<u64>,
    /// Routes given out, all in [`OWN`].
    pub(crate) routes: Vec<Route>,
}

impl Tunnels {
    pub(crate) fn new(possible: bool) -> Self {
        Self { possible, known: Default::default(), seen: Vec::new(), routes: Vec::new() }
    }

    /// Whether there is something new since the last call.
    pub(crate) fn stale(&mut self, instances: &[Instance]) -> bool {
        let runs: Vec<u64> = instances.iter().map(|i| i.router.counters().route_runs).collect();
        let stale = self.possible && runs != self.seen;
        self.seen = runs;
        stale
    }

    /// Looks which gateways of a family have a tunnel; they, if that has changed.
    pub(crate) fn look(&mut self, instances: &[Instance], at: usize) -> Option<Vec<IpAddr>> {
        let new = gateways(instances, at);
        let known = self.known.get_mut(at)?;
        let change = new.keys().ne(known.keys());
        *known = new;
        change.then(|| known.keys().copied().collect())
    }

    /// The instance at that place is a new one, which has to be told again.
    pub(crate) fn forget(&mut self, at: usize) {
        self.known.get_mut(at).into_iter().for_each(Gateways::clear);
    }

    /// The default routes into tunnels that the instances want.
    pub(crate) fn wanted(&self, instances: &[Instance]) -> Vec<Route> {
        let Some(v6) = instances.first() else { return Vec::new() };
        let mut all = Vec::new();
        for (instance, known) in instances.iter().zip(&self.known) {
            let Some(choice) = instance.router.gateway().filter(|c| c.tunnel) else { continue };
            let Some(end) = known.get(&choice.route.router) else { continue };
            let end = IpAddr::from(*end);
            let Some(way) = v6.router.lookup(end) else { continue };
            let any = choice.route.prefix;
            all.push(Route {
                prefix: any.ip(),
                prefix_len: any.prefix_len(),
                source: Some(instance.originator()),
                ..route(RouteKind::Tunnel, any.ip(), Some(end), way.interface, OWN)
            });
            // A tunnel never goes into another, also while no route leads to its end.
            let metric = METRIC_UNREACHABLE;
            all.push(Route { metric, ..route(RouteKind::Unreachable, end, None, 0, OWN) });
        }
        all
    }
}

/// Whose word holds: the /64 where the tunnel is to end is routed to the very node that says so.
fn gateways(instances: &[Instance], at: usize) -> Gateways {
    let (Some(v6), Some(instance)) = (instances.first(), instances.get(at)) else { return Gateways::new() };
    let told = instance.router.notes().filter_map(|n| match n.note {
        Note::TunnelsEndIn(prefix) => Some((n.router, prefix)),
        Note::SameNode(_) => None,
    });
    let holds = |(gateway, prefix): &(IpAddr, Ipv6Addr)| {
        let way = v6.router.lookup(end(*prefix, at).into());
        let prefix = NetAddr::new((*prefix).into(), 64);
        let way = way.filter(|r| r.prefix == prefix);
        way.is_some_and(|way| match gateway {
            IpAddr::V6(_) => way.router == *gateway,
            IpAddr::V4(address) => v6
                .router
                .notes()
                .any(|n| (n.router, n.prefix, n.note) == (way.router, prefix, Note::SameNode(*address))),
        })
    };
    told.filter(holds).map(|(gateway, prefix)| (gateway, end(prefix, at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_in_the_gateways_own_prefix() {
        let prefix: Ipv6Addr = "fd01:2:3:4::".parse().unwrap();
        assert_eq!([0, 1].map(|at| end(prefix, at).to_string()), ["fd01:2:3:4::da:6", "fd01:2:3:4::da:4"]);
        let via = Some(IpAddr::from([198, 51, 100, 1]));
        let [on, out] = routes_out(prefix, 1, via, 7).unwrap();
        assert_eq!((on.gateway, on.prefix_len, on.index, on.table), (via, 32, 7, ENDS));
        assert_eq!((out.kind, out.gateway, out.prefix_len), (RouteKind::TunnelEnd, Some(on.prefix), 128));
        assert_eq!(routes_out(prefix, 2, via, 7), None);
    }
}

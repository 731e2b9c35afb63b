//! Which gateway the default route leads to: RFC 7181 §19 with a memory.
//!
//! A gateway translates addresses, so a default route that moves to another one breaks every connection.
//! Metrics wander; therefore the gateway once chosen is kept until another is clearly better for a while.
//!
//! *Packets that pass through*: each node on the way decides for itself, and others may not have chosen the
//! same. So that no packet goes in circles, whoever decides what, a gateway is kept only while the next hop
//! towards it is nearer to that gateway than this node is to its nearest (a "downstream" next hop, RFC 5286
//! §1.1, of the anycast destination "any gateway"): every hop then shortens the distance to the nearest
//! gateway, also over nodes that always take the shortest path.
//!
//! *This node's own packets*, and those of its clients, go through a tunnel where the gateway offers one and
//! there are others. The way to a tunnel's end is a shortest path like any other, so no node on it has a say,
//! and the gateway is kept wherever it is.

use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant, Metric};
use rfc5444::NetAddr;

use crate::Route;
use crate::routes::FirstHop;
use crate::topology::Topology;

/// A gateway is clearly better at or below this share of the present one's path metric: 3/4.
const BETTER: (u64, u64) = (3, 4);

/// Where this node's own packets, and those of its clients, leave the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayChoice {
    /// The default route; its next hop and metric are those of the way to the gateway.
    pub route: Route,
    /// Through a tunnel, so that they leave there whatever the nodes on the way choose. Else the routing set
    /// has this very route.
    pub tunnel: bool,
}

/// The choices of one instance.
#[derive(Debug)]
pub(crate) struct Gateways {
    /// Of packets that pass through.
    transit: Memory,
    /// Of this node's own.
    own: Memory,
    /// [`crate::Input::Tunnels`], sorted.
    tunnels: Vec<IpAddr>,
    choice: Option<GatewayChoice>,
}

/// One gateway in use.
#[derive(Debug)]
struct Memory {
    current: Option<IpAddr>,
    /// Since when the nearest one has been clearly better.
    better_since: Option<Instant>,
    /// For how long it has to be.
    dwell: Duration,
}

/// The way to the present gateway, were it kept.
struct Kept {
    route: Route,
    downstream: bool,
}

impl Gateways {
    pub(crate) fn new(dwell: Duration) -> Self {
        Self { transit: Memory::new(dwell), own: Memory::new(dwell), tunnels: Vec::new(), choice: None }
    }

    /// When the choices have to be looked at again though nothing else changes.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.transit.next().into_iter().chain(self.own.next()).min()
    }

    /// Gateways that a tunnel leads to; whether that is a change.
    pub(crate) fn set_tunnels(&mut self, gateways: &[IpAddr]) -> bool {
        let mut new = gateways.to_vec();
        new.sort_unstable();
        let change = new != self.tunnels;
        self.tunnels = new;
        change
    }

    pub(crate) fn choice(&self) -> Option<GatewayChoice> {
        self.choice
    }

    /// Decides. `nearest` is the default route of §19 (`None`: there is none, or the node is a gateway
    /// itself), `to` finds the route to a router. The route for the routing set; it differs from `nearest`
    /// only while the present gateway is kept.
    pub(crate) fn settle(
        &mut self,
        now: Instant,
        nearest: Option<Route>,
        to: impl Fn(NetAddr) -> Option<Route>,
        topology: &Topology,
        first_hops: &[FirstHop],
    ) -> Option<Route> {
        let Some(nearest) = nearest else {
            self.transit.forget();
            self.own.forget();
            self.choice = None;
            return None;
        };
        let way =
            |gateway: IpAddr| kept(gateway, &nearest, &to(NetAddr::host(gateway))?, topology, first_hops);
        let transit = self.transit.settle(now, nearest, |gateway| way(gateway).filter(|k| k.downstream));
        let tunnels = &self.tunnels;
        let tunnelled = |gateway: &IpAddr| tunnels.binary_search(gateway).is_ok();
        let own = self.own.settle(now, nearest, |gateway| way(gateway).filter(|_| tunnelled(&gateway)));
        let tunnel = tunnelled(&own.router) && topology.announcers(nearest.prefix).nth(1).is_some();
        let route = if tunnel { own } else { transit };
        self.own.current = Some(route.router);
        self.choice = Some(GatewayChoice { route, tunnel });
        Some(transit)
    }
}

impl Memory {
    const fn new(dwell: Duration) -> Self {
        Self { current: None, better_since: None, dwell }
    }

    fn next(&self) -> Option<Instant> {
        self.better_since.map(|since| since + self.dwell)
    }

    fn forget(&mut self) {
        (self.current, self.better_since) = (None, None);
    }

    /// The nearest, or the present one if there is a `way` to keep it and no clearly better one for long.
    fn settle(&mut self, now: Instant, nearest: Route, way: impl Fn(IpAddr) -> Option<Kept>) -> Route {
        let current = self.current.filter(|c| *c != nearest.router);
        match current.and_then(way) {
            Some(kept) if self.may_stay(now, nearest.metric, kept.route.metric) => kept.route,
            _ => {
                self.current = Some(nearest.router);
                self.better_since = None;
                nearest
            }
        }
    }

    fn may_stay(&mut self, now: Instant, nearest: Metric, present: Metric) -> bool {
        let clearly = u64::from(nearest.value()) * BETTER.1 <= u64::from(present.value()) * BETTER.0;
        if !clearly {
            self.better_since = None;
            return true;
        }
        now < *self.better_since.get_or_insert(now) + self.dwell
    }
}

fn kept(
    gateway: IpAddr,
    nearest: &Route,
    to: &Route,
    topology: &Topology,
    first_hops: &[FirstHop],
) -> Option<Kept> {
    let (name, prefix) = (topology.names.find(NetAddr::host(gateway))?, topology.names.find(nearest.prefix)?);
    let network = topology.get(name)?.network(prefix)?;
    let hop = first_hops.iter().find(|h| (h.interface, h.next_hop) == (to.interface, to.next_hop))?;
    let metric = to.metric.plus(network.metric);
    let route = Route {
        prefix: nearest.prefix,
        metric,
        dist: to.hops.saturating_add(network.dist),
        router: gateway,
        ..*to
    };
    let rest = metric.value().saturating_sub(hop.metric.value());
    Some(Kept { route, downstream: rest < nearest.metric.value() })
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::tc::{Gateway, Tc};
    use crate::topology::ANYONE;

    const G1: &str = "fd00:a::1";
    const G2: &str = "fd00:b::1";
    const COST: u32 = 256;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn default() -> NetAddr {
        NetAddr::new(ip("::"), 0)
    }

    /// Both gateways announce a default route at no cost.
    fn topology(gateways: &[&str]) -> Topology {
        let mut topology = Topology::new(10);
        for (at, gateway) in gateways.iter().enumerate() {
            let tc = Tc {
                originator: ip(gateway),
                seq: at as u16,
                validity: Duration::from_secs(1000),
                ansn: Some((1, true)),
                neighbors: Vec::new(),
                gateways: vec![Gateway { prefix: default(), dist: 1, metric: Some(Metric::MIN) }],
                notes: Vec::new(),
            };
            topology.apply(Instant::ZERO, &tc, &ANYONE, |_| false);
        }
        topology
    }

    /// Path metrics to the two gateways, over two neighbours whose links cost [`COST`]; G1's path first.
    struct View([u32; 2]);

    impl View {
        fn route(&self, at: usize) -> Route {
            let (gateway, next_hop) = if at == 0 { (G1, "fe80::a") } else { (G2, "fe80::b") };
            Route {
                prefix: NetAddr::host(ip(gateway)),
                next_hop: ip(next_hop),
                interface: 1,
                metric: Metric::new(self.0[at]),
                hops: 3,
                dist: 3,
                router: ip(gateway),
            }
        }

        fn settle(&self, gateways: &mut Gateways, now: Instant, topology: &Topology) -> Route {
            let routes = [self.route(0), self.route(1)];
            let best = usize::from(self.0[1] < self.0[0]);
            let nearest = Route {
                prefix: default(),
                metric: routes[best].metric.plus(Metric::MIN),
                dist: 4,
                ..routes[best]
            };
            let hop = |next_hop: &str| FirstHop {
                router: ip(next_hop),
                interface: 1,
                next_hop: ip(next_hop),
                metric: Metric::new(COST),
                addresses: Vec::new(),
                two_hops: Vec::new(),
            };
            let hops = [hop("fe80::a"), hop("fe80::b")];
            let to = |a: NetAddr| routes.iter().find(|r| r.prefix == a).copied();
            gateways.settle(now, Some(nearest), to, topology, &hops).unwrap()
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn rfc7181_19_the_nearest_first_and_kept_while_another_is_a_little_better() {
        let (both, mut g) = (topology(&[G1, G2]), Gateways::new(Duration::from_secs(10)));
        assert_eq!(View([700, 800]).settle(&mut g, at(0), &both).router, ip(G1));
        for second in 1..100 {
            let route = View([700, 600]).settle(&mut g, at(second), &both);
            assert_eq!((route.router, route.next_hop), (ip(G1), ip("fe80::a")));
            assert_eq!((route.prefix, route.metric.value(), route.dist), (default(), 701, 4));
        }
        assert_eq!(g.next(), None);
    }

    #[test]
    fn a_clearly_better_one_is_taken_after_a_while() {
        let (both, mut g) = (topology(&[G1, G2]), Gateways::new(Duration::from_secs(10)));
        View([400, 800]).settle(&mut g, at(0), &both);
        assert_eq!(View([400, 290]).settle(&mut g, at(1), &both).router, ip(G1));
        assert_eq!(g.next(), Some(at(11)));
        assert_eq!(View([400, 350]).settle(&mut g, at(5), &both).router, ip(G1), "no longer clearly");
        assert_eq!(View([400, 290]).settle(&mut g, at(6), &both).router, ip(G1));
        assert_eq!(View([400, 290]).settle(&mut g, at(15), &both).router, ip(G1));
        assert_eq!(View([400, 290]).settle(&mut g, at(16), &both).router, ip(G2));
        assert_eq!(View([290, 300]).settle(&mut g, at(17), &both).router, ip(G2), "the new one is kept");
    }

    #[test]
    fn rfc5286_1_1_a_next_hop_that_is_not_downstream_is_left_at_once() {
        let (both, mut g) = (topology(&[G1, G2]), Gateways::new(Duration::from_secs(10)));
        View([800, 900]).settle(&mut g, at(0), &both);
        // The next hop is 545 from G1; this node is 544 or less from G2.
        assert_eq!(View([800, 545]).settle(&mut g, at(1), &both).router, ip(G1));
        assert_eq!(View([800, 544]).settle(&mut g, at(1), &both).router, ip(G2));
    }

    #[test]
    fn a_lost_gateway_is_left_at_once() {
        let (both, mut g) = (topology(&[G1, G2]), Gateways::new(Duration::from_secs(10)));
        View([700, 800]).settle(&mut g, at(0), &both);
        assert_eq!(View([700, 690]).settle(&mut g, at(1), &both).router, ip(G1));
        assert_eq!(View([700, 690]).settle(&mut g, at(1), &topology(&[G2])).router, ip(G2));
        assert_eq!(g.settle(at(2), None, |_| None, &both, &[]), None);
        assert_eq!(View([700, 800]).settle(&mut g, at(2), &both).router, ip(G1), "nothing is remembered");
    }

    #[test]
    fn a_tunnel_keeps_a_gateway_wherever_it_is() {
        let (both, mut g) = (topology(&[G1, G2]), Gateways::new(Duration::from_secs(10)));
        assert!(g.set_tunnels(&[ip(G2), ip(G1)]) && !g.set_tunnels(&[ip(G1), ip(G2)]));
        View([800, 900]).settle(&mut g, at(0), &both);
        let own = |g: &Gateways| g.choice().map(|c| (c.route.router, c.route.next_hop, c.tunnel)).unwrap();
        assert_eq!(own(&g), (ip(G1), ip("fe80::a"), true), "through a tunnel from the start");
        assert_eq!(View([800, 544]).settle(&mut g, at(1), &both).router, ip(G2), "packets that pass through");
        assert_eq!(own(&g), (ip(G1), ip("fe80::a"), true));
        assert_eq!(g.next(), Some(at(11)), "544 is clearly better than 800");
        View([800, 700]).settle(&mut g, at(2), &both);
        assert_eq!((own(&g).0, g.next()), (ip(G1), None));
        View([800, 500]).settle(&mut g, at(3), &both);
        View([800, 500]).settle(&mut g, at(13), &both);
        assert_eq!(own(&g), (ip(G2), ip("fe80::b"), true));
        View([300, 500]).settle(&mut g, at(14), &topology(&[G1]));
        assert_eq!(own(&g), (ip(G1), ip("fe80::a"), false), "a lost one is left; one alone needs no tunnel");
    }

    #[test]
    fn without_a_tunnel_own_packets_go_the_way_of_the_others() {
        let (both, mut g) = (topology(&[G1, G2]), Gateways::new(Duration::from_secs(10)));
        View([800, 900]).settle(&mut g, at(0), &both);
        for (second, costs) in [(1, [800, 600]), (2, [800, 544]), (3, [800, 900])] {
            let transit = View(costs).settle(&mut g, at(second), &both);
            assert_eq!(g.choice(), Some(GatewayChoice { route: transit, tunnel: false }));
        }
        // One that offers none is left for one that does as for any other: when that is nearer.
        g.set_tunnels(&[ip(G1)]);
        View([800, 790]).settle(&mut g, at(4), &both);
        assert!(!g.choice().unwrap().tunnel);
        View([500, 790]).settle(&mut g, at(5), &both);
        View([500, 790]).settle(&mut g, at(15), &both);
        assert_eq!(g.choice().map(|c| (c.route.router, c.tunnel)), Some((ip(G1), true)));
    }

    /// Nodes with costs of links that wander, some of them gateways.
    struct World {
        rng: nhdp::Rng,
        /// `cost[a][b]`; `None`: no link.
        cost: Vec<Vec<Option<u32>>>,
        /// Cost behind each gateway, by node.
        gateways: alloc::collections::BTreeMap<usize, u32>,
    }

    const NODES: usize = 14;

    fn name(n: usize) -> IpAddr {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n as u16 + 1])
    }

    impl World {
        fn new(seed: u64) -> Self {
            let mut world = Self {
                rng: nhdp::Rng::new(seed),
                cost: vec![vec![None; NODES]; NODES],
                gateways: Default::default(),
            };
            for a in 0..NODES {
                for b in [(a + 1) % NODES, world.below(NODES), world.below(NODES)] {
                    if a != b {
                        world.cost[a][b] = Some(256);
                        world.cost[b][a] = Some(256);
                    }
                }
            }
            for at in [0, NODES / 3, 2 * NODES / 3] {
                world.gateways.insert(at, 1);
            }
            world
        }

        fn below(&mut self, n: usize) -> usize {
            (self.rng.next_u64() % n as u64) as usize
        }

        /// Some links become better or worse, each direction by itself; now and then a gateway goes.
        fn wander(&mut self) {
            for _ in 0..6 {
                let (a, b) = (self.below(NODES), self.below(NODES));
                let step = self.below(400) as u32;
                if let Some(cost) = &mut self.cost[a][b] {
                    *cost = (*cost + step).saturating_sub(200).clamp(100, 1500);
                }
            }
            let (at, cost) = (self.below(NODES), self.below(300) as u32 + 1);
            match self.below(40) {
                0 if self.gateways.len() > 1 => drop(self.gateways.remove(&at)),
                1 if self.gateways.len() < 4 => drop(self.gateways.insert(at, cost)),
                _ => {}
            }
        }

        /// `far[a][b]`: the least cost from a to b, over the next hop that comes with it.
        fn shortest(&self) -> Vec<Vec<(u32, usize)>> {
            let mut far = vec![vec![(u32::MAX / 4, 0); NODES]; NODES];
            for (n, row) in far.iter_mut().enumerate() {
                row[n] = (0, n);
            }
            for _ in 0..NODES {
                for a in 0..NODES {
                    for b in 0..NODES {
                        let Some(cost) = self.cost[a][b] else { continue };
                        let over: Vec<(u32, usize)> =
                            far[b].iter().map(|(rest, _)| (cost + rest, b)).collect();
                        far[a].iter_mut().zip(over).for_each(|(best, way)| *best = way.min(*best));
                    }
                }
            }
            far
        }

        fn topology(&self) -> Topology {
            let mut topology = Topology::new(NODES);
            for (at, cost) in &self.gateways {
                let tc = Tc {
                    originator: name(*at),
                    seq: 0,
                    validity: Duration::from_secs(1000),
                    ansn: Some((1, true)),
                    neighbors: Vec::new(),
                    gateways: vec![Gateway { prefix: default(), dist: 1, metric: Some(Metric::new(*cost)) }],
                    notes: Vec::new(),
                };
                topology.apply(Instant::ZERO, &tc, &ANYONE, |_| false);
            }
            topology
        }

        /// What node `me` decides: its next hop to the Internet, and whether that is not the shortest way.
        fn decide(
            &self,
            now: Instant,
            me: usize,
            far: &[Vec<(u32, usize)>],
            topology: &Topology,
            memory: &mut Gateways,
        ) -> (usize, bool) {
            let route = |to: usize| Route {
                prefix: NetAddr::host(name(to)),
                next_hop: name(far[me][to].1),
                interface: 1,
                metric: Metric::new(far[me][to].0),
                hops: 1,
                dist: 1,
                router: name(to),
            };
            let routes: Vec<Route> = self.gateways.keys().map(|g| route(*g)).collect();
            let nearest = self.gateways.iter().map(|(g, cost)| (far[me][*g].0 + cost, *g)).min().unwrap();
            let nearest = Route { prefix: default(), metric: Metric::new(nearest.0), ..route(nearest.1) };
            let hop = |(b, cost): (usize, &Option<u32>)| {
                Some(FirstHop {
                    router: name(b),
                    interface: 1,
                    next_hop: name(b),
                    metric: Metric::new((*cost)?),
                    addresses: Vec::new(),
                    two_hops: Vec::new(),
                })
            };
            let hops: Vec<FirstHop> = self.cost[me].iter().enumerate().filter_map(hop).collect();
            let to = |a: NetAddr| routes.iter().find(|r| r.prefix == a).copied();
            let tunnels: Vec<IpAddr> = self.gateways.keys().map(|g| name(*g)).skip(1).collect();
            memory.set_tunnels(&tunnels);
            let chosen = memory.settle(now, Some(nearest), to, topology, &hops).unwrap();
            let own = memory.choice().unwrap();
            assert!(if own.tunnel { tunnels.contains(&own.route.router) } else { own.route == chosen });
            let next = (0..NODES).find(|n| name(*n) == chosen.next_hop).unwrap();
            (next, chosen.router != nearest.router)
        }
    }

    #[test]
    fn packets_reach_a_gateway_whatever_each_node_keeps() {
        let (mut kept, mut plain) = (0, 0);
        for seed in 0..20 {
            let mut world = World::new(seed);
            let mut memory: Vec<Gateways> =
                (0..NODES).map(|_| Gateways::new(Duration::from_secs(10))).collect();
            for second in 0..150 {
                world.wander();
                let (far, topology) = (world.shortest(), world.topology());
                let next: Vec<(usize, bool)> = memory
                    .iter_mut()
                    .enumerate()
                    .map(|(me, memory)| match me % 5 {
                        // Every fifth is of another make: it has no memory.
                        4 => {
                            world.decide(at(second), me, &far, &topology, &mut Gateways::new(Duration::ZERO))
                        }
                        _ => world.decide(at(second), me, &far, &topology, memory),
                    })
                    .collect();
                kept += next.iter().filter(|(_, kept)| *kept).count();
                plain += next.iter().filter(|(_, kept)| !*kept).count();
                for start in 0..NODES {
                    let mut here = start;
                    for _ in 0..NODES {
                        if world.gateways.contains_key(&here) {
                            break;
                        }
                        here = next[here].0;
                    }
                    assert!(
                        world.gateways.contains_key(&here),
                        "seed {seed}, second {second}: packets of {start} go in circles: {next:?}"
                    );
                }
            }
        }
        assert!(kept > plain / 50, "the memory matters: {kept} kept, {plain} nearest");
    }
}

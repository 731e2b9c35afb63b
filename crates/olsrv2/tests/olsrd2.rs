//! Packets captured from olsrd2 lead to the right links and routes. We are fd00::2 in its line of five.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::IpAddr;

use mesh_types::{Duration, Instant, Metric};
use olsrv2::{Config, Input, LinkStatus, NetAddr, Output, RouteChange, Router};

const PACKETS: &str = include_str!("../../rfc5444/tests/data/olsrd2-captured.txt");

fn packet(name: &str) -> Vec<u8> {
    let line = PACKETS.lines().find(|l| !l.starts_with('#') && l.contains(name)).unwrap();
    let hex = line.split(' ').next().unwrap();
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

struct Us {
    router: Router,
    now: Instant,
}

impl Us {
    fn new() -> Self {
        let now = Instant::from_millis(1000);
        let mut router = Router::new(Config::new(ip("fd00::2")), 1, now);
        let addresses = [NetAddr::host(ip("fe80::ff:fe00:2"))];
        router.handle_input(now, Input::InterfaceUp { interface: 1, addresses: &addresses }).unwrap();
        Self { router, now }
    }

    /// Hands in a packet as if fd00::3 had sent it.
    fn hear(&mut self, name: &str) {
        let bytes = packet(name);
        let source = ip("fe80::ff:fe00:3");
        self.router.handle_input(self.now, Input::Packet { interface: 1, source, bytes: &bytes }).unwrap();
        // Changes that come soon after each other share a run of the route calculation.
        self.now += Duration::from_millis(100);
        self.router.handle_timeout(self.now);
    }

    fn status(&self) -> Option<LinkStatus> {
        self.router.neighbors().next().map(|n| n.status)
    }

    fn route(&self, to: &str) -> Option<(IpAddr, Metric, u8)> {
        let to = NetAddr::host(ip(to));
        self.router.routes().find(|r| r.prefix == to).map(|r| (r.next_hop, r.metric, r.hops))
    }
}

#[test]
fn rfc6130_olsrd2_hellos_make_a_symmetric_link() {
    let mut us = Us::new();
    us.hear("HELLO #1");
    assert_eq!(us.status(), Some(LinkStatus::Heard));
    assert_eq!(us.router.routes().count(), 0);
    us.hear("HELLO of fd00::3");
    assert_eq!(us.status(), Some(LinkStatus::Symmetric));
    let n = us.router.neighbors().next().unwrap();
    assert_eq!((n.originator, n.address), (Some(ip("fd00::3")), ip("fe80::ff:fe00:3")));
    assert_eq!((n.willingness, n.metric_out, n.two_hops), ((7, 7), Metric::MAX_LINK, 2));
    assert_eq!((n.mpr, n.mpr_selector), ((true, true), (false, false)));
    let next = ip("fe80::ff:fe00:3");
    assert_eq!(us.route("fd00::3"), Some((next, Metric::MAX_LINK, 1)));
    // The 2-hop neighbour is reachable before any TC.
    assert_eq!(us.route("fd00::4"), Some((next, Metric::MAX_LINK.plus(Metric::MAX_LINK), 2)));
    assert_eq!(us.router.counters().messages_invalid, 0);
}

#[test]
fn rfc7181_olsrd2_tcs_make_routes() {
    let mut us = Us::new();
    us.hear("TC of fd00::3");
    assert_eq!(us.router.topology().count(), 0, "not from a symmetric neighbour");
    us.hear("HELLO #1");
    us.hear("HELLO of fd00::3");
    us.hear("packet with 3 TC messages");
    let edges: Vec<(IpAddr, IpAddr)> = us.router.topology().map(|e| (e.from, e.to)).collect();
    let expected = [("fd00::3", "fd00::4"), ("fd00::4", "fd00::3"), ("fd00::4", "fd00::5")];
    assert_eq!(edges, expected.map(|(a, b)| (ip(a), ip(b))));
    let next = ip("fe80::ff:fe00:3");
    let cost = Metric::from_compressed(0xf38);
    assert_eq!(us.route("fd00::4"), Some((next, Metric::MAX_LINK.plus(cost), 2)));
    assert_eq!(us.route("fd00::5"), Some((next, Metric::MAX_LINK.plus(cost).plus(cost), 3)));
    assert_eq!(us.route("fd00::2"), None, "no route to ourselves");
    let c = us.router.counters();
    assert_eq!((c.tcs_in, c.forwarded, c.not_symmetric), (3, 0, 1), "we are not its MPR");
    us.hear("packet with 3 TC messages");
    assert_eq!(us.router.counters().tcs_in, 3, "once is enough");
}

/// All six, in the order in which they were captured.
#[test]
fn every_olsrd2_packet_is_understood() {
    let mut us = Us::new();
    let source = ip("fe80::ff:fe00:3");
    let expected = [
        ("HELLO #1", Some(LinkStatus::Heard), 0, 0),
        ("HELLO", Some(LinkStatus::Heard), 0, 0),
        ("TC early", Some(LinkStatus::Heard), 0, 0),
        ("HELLO of fd00::3", Some(LinkStatus::Symmetric), 2, 0),
        ("TC of fd00::3", Some(LinkStatus::Symmetric), 2, 1),
        ("packet with 3 TC", Some(LinkStatus::Symmetric), 2, 3),
    ];
    let lines: Vec<&str> = PACKETS.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    assert_eq!(lines.len(), expected.len());
    for (name, status, two_hops, edges) in expected {
        let line =
            lines.iter().find(|l| l.split_once(' ').is_some_and(|(_, n)| n == name || n.starts_with(name)));
        let hex = line.unwrap().split(' ').next().unwrap();
        let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        us.router.handle_input(us.now, Input::Packet { interface: 1, source, bytes: &bytes }).unwrap();
        let n = us.router.neighbors().next().unwrap();
        let seen = (Some(n.status), n.two_hops, us.router.topology().count());
        assert_eq!(seen, (status, two_hops, edges), "{name}");
    }
    assert_eq!(us.router.counters().messages_invalid, 0);
}

#[test]
fn rfc7181_17_5_routes_made_by_olsrd2_expire() {
    let mut us = Us::new();
    us.hear("HELLO #1");
    us.hear("HELLO of fd00::3");
    us.hear("packet with 3 TC messages");
    let mut fib = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        while let Some(output) = us.router.poll_output() {
            match output {
                Output::Route(RouteChange { prefix, new: Some(_), .. }) => drop(fib.insert(prefix)),
                Output::Route(RouteChange { prefix, .. }) => drop(fib.remove(&prefix)),
                _ => {}
            }
        }
        us.now = us.router.poll_timeout().unwrap();
        us.router.handle_timeout(us.now);
    }
    assert_eq!((fib.len(), us.router.neighbors().count(), us.router.topology().count()), (0, 0, 0));
}

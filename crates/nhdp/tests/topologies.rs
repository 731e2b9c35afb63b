//! RFC 6130 Appendix F: eleven topologies of three routers, and what A comes to know of each. Real HELLOs
//! travel between the three over the links of the picture until nothing changes any more.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use mesh_types::{Duration, Instant};
use nhdp::{Config, Event, Hello, Limits, LinkStatus, Liveness, Nhdp, Quality};
use rfc5444::{NetAddr, RawMessage};

type Addresses = BTreeSet<u8>;
/// Router (0: A) and interface (1: top, 2: bottom).
type Port = (usize, u32);

fn host(n: u8) -> NetAddr {
    NetAddr::host(IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)))
}

fn set(addresses: impl IntoIterator<Item = NetAddr>) -> Addresses {
    let last = |a: NetAddr| match a.ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => panic!("{ip} among IPv4 addresses"),
    };
    addresses.into_iter().map(last).collect()
}

fn config() -> Config {
    Config {
        addr_len: 4,
        other_addresses: Vec::new(),
        hello_interval: Duration::from_secs(2),
        hello_lively: Duration::from_secs(2),
        hello_min_interval: Duration::from_millis(500),
        hello_hold: Duration::from_secs(6),
        lost_hold: Duration::from_secs(6),
        trigger_jitter: Duration::from_millis(100),
        quality: Quality::OFF,
        liveness: Liveness::OFF,
        limits: Limits { interfaces: 4, links: 16, neighbor_addresses: 8, two_hops: 16, lost: 16 },
    }
}

/// What A knows: for each interface its links, each with the addresses behind it, and all neighbours.
#[derive(Debug, PartialEq, Eq)]
struct View {
    links: BTreeMap<u32, Vec<(Addresses, Addresses)>>,
    neighbors: Vec<Addresses>,
}

/// Runs A, B and C, with the addresses of each one's top and bottom interface, for ten seconds.
fn run(routers: [[&[u8]; 2]; 3], edges: &[(Port, Port)]) -> View {
    let mut now = Instant::from_millis(1000);
    let mut all: Vec<Nhdp<()>> = (0..3).map(|seed| Nhdp::new(config(), seed)).collect();
    for (router, interfaces) in all.iter_mut().zip(routers) {
        for (index, addresses) in (1..).zip(interfaces).filter(|(_, a)| !a.is_empty()) {
            let addresses: Vec<NetAddr> = addresses.iter().map(|n| host(*n)).collect();
            assert!(router.set_interface(now, index, &addresses));
        }
    }
    let end = now + Duration::from_secs(10);
    while let Some(at) = all.iter().filter_map(Nhdp::poll_timeout).min().filter(|t| *t <= end) {
        now = now.max(at);
        for from in 0..all.len() {
            all[from].handle_timeout(now);
            while let Some(event) = all[from].poll_event() {
                if let Event::HelloDue { interface } = event {
                    send(now, &mut all, (from, interface), edges);
                }
            }
        }
    }
    view(&all[0])
}

fn send(now: Instant, all: &mut [Nhdp<()>], from: Port, edges: &[(Port, Port)]) {
    let mut bytes = Vec::new();
    all[from.0].generate(from.1).unwrap().to_message(4).emit(&mut bytes).unwrap();
    let hello = Hello::parse(&RawMessage::parse(&bytes).unwrap().check().unwrap(), 4).unwrap();
    let source = all[from.0].interface(from.1).unwrap().addresses[0].ip();
    for (a, b) in edges {
        let to = if *a == from { b } else { a };
        if *a == from || *b == from {
            all[to.0].process(now, to.1, source, &hello).unwrap();
        }
    }
}

fn view(a: &Nhdp<()>) -> View {
    let mut links = BTreeMap::new();
    for (index, interface) in a.interfaces() {
        assert!(interface.links().all(|(_, l)| l.status() == LinkStatus::Symmetric));
        let each = interface
            .links()
            .map(|(_, l)| (set(l.addresses.iter().copied()), set(l.two_hops().map(|(address, _)| *address))));
        links.insert(index, each.collect());
    }
    assert!(a.neighbors().all(|(_, n)| n.symmetric));
    View { links, neighbors: a.neighbors().map(|(_, n)| set(n.addresses.iter().copied())).collect() }
}

/// Every interface has one link: the other end's addresses, and the 2-hop addresses.
fn expect(links: &[(u32, &[u8], &[u8])], neighbor: &[u8]) -> View {
    let set = |list: &[u8]| list.iter().copied().collect::<Addresses>();
    View {
        links: links.iter().map(|(index, to, behind)| (*index, vec![(set(to), set(behind))])).collect(),
        neighbors: vec![set(neighbor)],
    }
}

const TOP: u32 = 1;
const BOTTOM: u32 = 2;
const A_B: (Port, Port) = ((0, TOP), (1, TOP));
const B_C: (Port, Port) = ((1, TOP), (2, TOP));
const A_B_BELOW: (Port, Port) = ((0, BOTTOM), (1, BOTTOM));
const B_C_BELOW: (Port, Port) = ((1, BOTTOM), (2, BOTTOM));

#[test]
fn rfc6130_appendix_f_1_to_f_4_single_interfaces() {
    let cases: [([&[u8]; 3], View); 4] = [
        ([&[1], &[2], &[3]], expect(&[(TOP, &[2], &[3])], &[2])),
        ([&[1], &[2, 4], &[3]], expect(&[(TOP, &[2, 4], &[3])], &[2, 4])),
        ([&[1], &[2], &[3, 4]], expect(&[(TOP, &[2], &[3, 4])], &[2])),
        ([&[1, 5], &[2, 6], &[3, 4]], expect(&[(TOP, &[2, 6], &[3, 4])], &[2, 6])),
    ];
    for (i, (tops, expected)) in cases.into_iter().enumerate() {
        let view = run(tops.map(|top| [top, &[][..]]), &[A_B, B_C]);
        assert_eq!(view, expected, "F.{}", i + 1);
    }
}

#[test]
fn rfc6130_appendix_f_5_two_interfaces_on_the_2_hop_neighbour() {
    let view = run([[&[1], &[]], [&[2], &[]], [&[3], &[4]]], &[A_B, B_C]);
    assert_eq!(view, expect(&[(TOP, &[2], &[3, 4])], &[2]));
}

#[test]
fn rfc6130_appendix_f_6_two_interfaces_on_the_1_hop_neighbour() {
    let view = run([[&[1], &[]], [&[2], &[5]], [&[], &[4]]], &[A_B, B_C_BELOW]);
    assert_eq!(view, expect(&[(TOP, &[2], &[4])], &[2, 5]));
}

#[test]
fn rfc6130_appendix_f_7_two_interfaces_on_both_neighbours() {
    let view = run([[&[1], &[]], [&[2], &[5]], [&[3], &[4]]], &[A_B, B_C, B_C_BELOW]);
    assert_eq!(view, expect(&[(TOP, &[2], &[3, 4])], &[2, 5]));
}

#[test]
fn rfc6130_appendix_f_8_two_interfaces_here_and_on_the_1_hop_neighbour() {
    let view = run([[&[1], &[6]], [&[2], &[5]], [&[3], &[]]], &[A_B, B_C, A_B_BELOW]);
    assert_eq!(view, expect(&[(TOP, &[2], &[3]), (BOTTOM, &[5], &[3])], &[2, 5]));
}

#[test]
fn rfc6130_appendix_f_9_two_interfaces_everywhere() {
    let view = run([[&[1], &[6]], [&[2], &[5]], [&[3], &[4]]], &[A_B, B_C, A_B_BELOW, B_C_BELOW]);
    assert_eq!(view, expect(&[(TOP, &[2], &[3, 4]), (BOTTOM, &[5], &[3, 4])], &[2, 5]));
}

#[test]
fn rfc6130_appendix_f_10_two_addresses_on_two_interfaces_everywhere() {
    let routers: [[&[u8]; 2]; 3] = [[&[1, 2], &[3, 4]], [&[5, 6], &[7, 8]], [&[9, 10], &[11, 12]]];
    let view = run(routers, &[A_B, B_C, A_B_BELOW, B_C_BELOW]);
    let c: &[u8] = &[9, 10, 11, 12];
    assert_eq!(view, expect(&[(TOP, &[5, 6], c), (BOTTOM, &[7, 8], c)], &[5, 6, 7, 8]));
}

#[test]
fn rfc6130_appendix_f_11_two_interfaces_here_linked_to_one() {
    let view = run([[&[1], &[6]], [&[2], &[]], [&[3], &[]]], &[A_B, ((0, BOTTOM), (1, TOP)), B_C]);
    assert_eq!(view, expect(&[(TOP, &[2], &[3]), (BOTTOM, &[2], &[3])], &[2]));
}

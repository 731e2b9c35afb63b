//! Whole meshes: routes become shortest paths, cuts heal, floods and records reach all.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod net;

use mesh_types::{Duration, Metric};
use net::{Net, RADIO, WIRE, originator, prefix};
use olsrv2::{AttachedNetwork, Event, Input, LinkStatus, NetAddr, Note, Timing};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn rfc7181_two_nodes_have_a_route_within_a_second_and_a_half() {
    for seed in 0..50 {
        let mut net = Net::line(seed, 2, Timing::RFC7181);
        for i in 0..2 {
            let one = AttachedNetwork { prefix: prefix(i), dist: 0, metric: Metric::new(1) };
            net.input(i, Input::AttachedNetworks(&[one]));
        }
        let done = |net: &Net| net.is_converged() && net.nodes[0].fib.contains_key(&prefix(1));
        let took = net.run_while_not(Duration::from_millis(1500), done);
        assert!(took <= Duration::from_millis(1500), "{took}");
        let n = net.nodes[0].router.neighbors().next().unwrap();
        assert_eq!((n.status, n.originator), (LinkStatus::Symmetric, Some(originator(1))));
        let up = Event::NeighborUp {
            interface: RADIO,
            address: net::link_local(1),
            originator: Some(originator(1)),
        };
        assert!(net.nodes[0].events.iter().any(|(_, e)| *e == up));
    }
}

#[test]
fn rfc7181_19_routes_are_shortest_paths_on_line_ring_and_grid() {
    for seed in 0..2 {
        for mut net in [
            Net::line(seed, 8, Timing::RFC7181),
            Net::ring(seed, 9, Timing::RFC7181),
            Net::grid(seed, 5, Timing::RFC7181),
            Net::grid(seed, 5, Timing::FAST),
        ] {
            net.run_while_not(SECOND.times(20), Net::is_converged);
            // It stays so.
            for _ in 0..20 {
                net.run_for(SECOND);
                assert!(net.is_converged(), "seed {seed}\n{}", net.describe());
            }
            for from in 0..net.nodes.len() {
                for to in 0..net.nodes.len() {
                    assert!(net.trace(from, NetAddr::host(originator(to))).is_some());
                }
            }
        }
    }
}

#[test]
fn rfc7181_19_routes_come_despite_lost_packets() {
    for seed in 0..3 {
        let mut net = Net::grid(seed, 4, Timing::RFC7181);
        net.set_loss(26);
        net.run_while_not(SECOND.times(40), Net::is_converged);
    }
}

#[test]
fn rfc7181_17_a_cut_heals_the_other_way_round() {
    for (timing, limit) in [(Timing::RFC7181, 12), (Timing::FAST, 4)] {
        let mut net = Net::ring(7, 8, timing);
        net.run_while_not(SECOND.times(20), Net::is_converged);
        net.cut(0, 7);
        net.run_while_not(SECOND.times(limit), Net::is_converged);
        net.connect(0, 7);
        net.run_while_not(SECOND.times(limit), Net::is_converged);
    }
}

#[test]
fn rfc7181_17_a_dead_node_is_forgotten() {
    let mut net = Net::grid(3, 3, Timing::FAST);
    net.run_while_not(SECOND.times(10), Net::is_converged);
    net.nodes[4].up = false;
    net.run_while_not(SECOND.times(8), Net::is_converged);
    net.run_for(SECOND.times(5));
    assert!(net.nodes[0].router.topology().all(|e| e.from != originator(4) && e.to != originator(4)));
}

#[test]
fn rfc6130_13_a_link_the_radio_reports_lost_goes_at_once() {
    let mut net = Net::ring(1, 4, Timing::RFC7181);
    net.run_while_not(SECOND.times(20), Net::is_converged);
    net.cut(0, 1);
    net.input(0, Input::LinkLost { interface: RADIO, address: net::link_local(1) });
    net.input(1, Input::LinkLost { interface: RADIO, address: net::link_local(0) });
    assert!(net.nodes[0].fib.values().all(|r| r.next_hop != net::link_local(1)));
    let took = net.run_while_not(SECOND.times(3), Net::is_converged);
    assert!(took < SECOND.times(2), "{took}");
}

#[test]
fn rfc6130_9_an_interface_that_goes_takes_its_routes_and_comes_back() {
    let mut net = Net::line(1, 3, Timing::FAST);
    net.run_while_not(SECOND.times(10), Net::is_converged);
    net.input(1, Input::InterfaceDown { interface: RADIO });
    assert!(net.nodes[1].fib.is_empty());
    assert_eq!(net.nodes[1].router.neighbors().count(), 0);
    let addresses = [NetAddr::host(net::link_local(1))];
    net.run_for(SECOND);
    net.input(1, Input::InterfaceUp { interface: RADIO, addresses: &addresses });
    net.run_while_not(SECOND.times(10), Net::is_converged);
}

#[test]
fn rfc7181_15_3_a_neighbour_that_restarts_is_told_all_at_once() {
    for seed in 0..20 {
        let mut net = Net::line(seed, 3, Timing::RFC7181);
        for i in 0..3 {
            let one = AttachedNetwork { prefix: prefix(i), dist: 0, metric: Metric::new(1) };
            net.input(i, Input::AttachedNetworks(&[one]));
            net.input(
                i,
                Input::Publish { kind: 1, sequence: 1, payload: b"dundas", validity: SECOND.times(3600) },
            );
        }
        net.run_while_not(SECOND.times(20), Net::is_converged);
        net.run_for(SECOND.times(20) + Duration::from_millis(seed * 97));
        net.restart(1);
        let done = |net: &Net| {
            let node = &net.nodes[1];
            net.is_converged()
                && [0, 2].into_iter().all(|i| node.fib.contains_key(&prefix(i)))
                && node.router.records().count() == 2
        };
        // HELLO_MIN_INTERVAL, then TC_MIN_INTERVAL at most, and jitter.
        net.run_while_not(Duration::from_millis(2200), done);
    }
}

#[test]
fn rfc7181_16_3_3_4_attached_networks_are_routed_to() {
    let mut net = Net::line(5, 5, Timing::RFC7181);
    for i in 0..5 {
        let one = AttachedNetwork { prefix: prefix(i), dist: 0, metric: Metric::new(1) };
        net.input(i, Input::AttachedNetworks(&[one]));
    }
    let all = |net: &Net| (0..5).all(|a| (0..5).all(|b| net.trace(a, prefix(b)).is_some()));
    net.run_while_not(SECOND.times(20), all);
    assert_eq!(net.trace(0, prefix(4)).unwrap(), [0, 1, 2, 3, 4]);
    let route = net.nodes[0].router.route(prefix(4)).unwrap();
    assert_eq!((route.router, route.hops, route.dist), (originator(4), 4, 4));
    net.input(4, Input::AttachedNetworks(&[]));
    net.run_while_not(SECOND.times(10), |net| !net.nodes[0].fib.contains_key(&prefix(4)));
}

#[test]
fn rfc5444_6_4_notes_of_tunnels_come_with_the_network_and_go_with_it() {
    let mut net = Net::line(6, 4, Timing::RFC7181);
    let any = NetAddr::new("::".parse().unwrap(), 0);
    let end = Note::TunnelsEndIn("fd00:1::".parse().unwrap());
    let same = Note::SameNode([10, 64, 0, 1].into());
    let both = [any, prefix(0)].map(|prefix| AttachedNetwork { prefix, dist: 1, metric: Metric::new(1) });
    net.input(0, Input::AttachedNetworks(&both));
    net.input(0, Input::Notes(&[(any, end), (prefix(0), same), (prefix(3), same)]));
    net.input(3, Input::AttachedNetworks(&both[..1]));
    net.input(2, Input::Tunnels(&[originator(0), originator(3)]));
    let told =
        |net: &Net, at: usize| net.nodes[at].router.notes().map(|n| (n.router, n.prefix, n.note)).collect();
    let want = vec![(originator(0), any, end), (originator(0), prefix(0), same)];
    let known = |net: &Net| {
        (1..3).all(|at| {
            let mut found: Vec<_> = told(net, at);
            found.sort();
            found == want
        })
    };
    net.run_while_not(SECOND.times(20), known);
    net.run_while_not(SECOND.times(5), |net| net.nodes[2].router.gateway().is_some_and(|g| g.tunnel));
    assert_eq!(net.nodes[2].router.gateway().unwrap().route.router, originator(3), "the nearest");
    assert_eq!(net.nodes[0].router.gateway(), None, "a gateway itself");
    let mut address = prefix(0).ip();
    assert_eq!(net.nodes[2].router.lookup(address).unwrap().router, originator(0));
    address = "2001:db8::1".parse().unwrap();
    assert_eq!(net.nodes[2].router.lookup(address).unwrap().prefix, any);
    net.input(0, Input::Notes(&[(any, end)]));
    net.run_while_not(SECOND.times(5), |net| told(net, 2) == vec![(originator(0), any, end)]);
    net.input(0, Input::AttachedNetworks(&both[1..]));
    net.run_while_not(SECOND.times(5), |net| told(net, 2).is_empty());
    net.run_while_not(SECOND.times(5), |net| net.nodes[2].router.gateway().is_some_and(|g| !g.tunnel));
}

#[test]
fn rfc7181_14_3_every_flood_reaches_all_and_few_forward() {
    let mut net = Net::with_nodes(11, 13, Timing::RFC7181);
    // Everyone hears everyone: nobody needs to forward.
    for a in 0..13 {
        (0..a).for_each(|b| net.connect(a, b));
    }
    for i in 0..13 {
        let one = AttachedNetwork { prefix: prefix(i), dist: 0, metric: Metric::new(1) };
        net.input(i, Input::AttachedNetworks(&[one]));
    }
    net.run_while_not(SECOND.times(20), Net::is_converged);
    let before: u64 = net.nodes.iter().map(|n| n.router.counters().forwarded).sum();
    net.run_for(SECOND.times(30));
    let after: u64 = net.nodes.iter().map(|n| n.router.counters().forwarded).sum();
    assert_eq!(before, after, "a full mesh has no flooding MPRs");
    assert!(net.nodes.iter().all(|n| n.router.attached_networks().count() == 12));
}

#[test]
fn interfaces_counters_add_up_to_the_routers() {
    let mut net = Net::line(3, 4, Timing::RFC7181);
    let validity = SECOND.times(60);
    net.run_while_not(SECOND.times(20), Net::is_converged);
    net.input(0, Input::Publish { kind: 1, sequence: 1, payload: b"x", validity });
    let source = net::link_local(0);
    // A packet that is none, and an empty TC (with originator, hop limit, number) by a stranger.
    let far: std::net::Ipv6Addr = "fd00::99".parse().unwrap();
    let tc = [&[0, 1, 0xdf, 0, 25][..], &far.octets(), &[255, 0, 1, 0, 0]].concat();
    let junk = &[0xff, 0xff][..];
    for (bytes, source) in [(junk, source), (&tc[..], "fe80::77".parse().unwrap())] {
        let packet = Input::Packet { interface: RADIO, source, bytes };
        let _ = net.nodes[1].router.handle_input(net.now, packet);
    }
    net.run_for(SECOND.times(60));
    for (i, node) in net.nodes.iter().enumerate() {
        let all = node.router.counters();
        let (_, port) = node.router.port_counters().next().unwrap();
        let packets = (all.packets_in, all.bytes_in, all.packets_out, all.bytes_out, all.packets_malformed);
        let on_port =
            (port.packets_in, port.bytes_in, port.packets_out, port.bytes_out, port.packets_malformed);
        assert_eq!(packets, on_port);
        assert_eq!(all.hellos_in, port.received.hellos);
        assert_eq!((all.hellos_out, all.tcs_out), (port.sent.hellos, port.sent.tcs), "{all:?}");
        assert_eq!(all.refusals(), port.refused.hellos + port.refused.tcs + port.refused.records);
        assert_eq!(all.forwarded + all.relayed, port.forwarded.tcs + port.forwarded.records);
        assert!(all.tcs_triggered > 0 && all.tcs_triggered < all.tcs_out || all.tcs_out == 0);
        assert_eq!((all.links_up, all.links_down), (if i % 3 == 0 { 1 } else { 2 }, 0));
        assert_eq!(
            (all.packets_malformed, all.not_symmetric > 0),
            if i == 1 { (1, true) } else { (0, false) }
        );
    }
    assert!(net.nodes[1].router.counters().own_returned > 0, "{}", net.describe());
}

#[test]
fn records_reach_every_node_over_hops_and_expire() {
    let mut net = Net::line(2, 6, Timing::RFC7181);
    net.run_while_not(SECOND.times(20), Net::is_converged);
    let validity = SECOND.times(30);
    net.input(0, Input::Publish { kind: 1, sequence: 5, payload: b"bloor", validity });
    let has = |net: &Net, node: usize, what: &[u8]| {
        net.nodes[node]
            .router
            .records()
            .any(|r| r.originator == originator(0) && r.kind == 1 && r.payload == what)
    };
    let took = net.run_while_not(SECOND.times(5), |net| (1..6).all(|i| has(net, i, b"bloor")));
    assert!(took < SECOND.times(3), "{took}");
    net.input(0, Input::Publish { kind: 1, sequence: 6, payload: b"spadina", validity });
    net.run_while_not(SECOND.times(5), |net| (1..6).all(|i| has(net, i, b"spadina")));
    // It is refreshed as long as it is published …
    net.run_for(SECOND.times(100));
    assert!((1..6).all(|i| has(&net, i, b"spadina")));
    let news = |n: &net::Node| n.events.iter().filter(|(_, e)| matches!(e, Event::RecordReceived(_))).count();
    assert_eq!(news(&net.nodes[5]), 2, "refreshes are no news");
    // … and forgotten after.
    net.input(0, Input::Withdraw { kind: 1 });
    net.run_for(SECOND.times(36));
    assert!((1..6).all(|i| net.nodes[i].router.records().count() == 0));
    assert!(
        net.nodes[5]
            .events
            .iter()
            .any(|(_, e)| *e == Event::RecordExpired { originator: originator(0), kind: 1 })
    );
}

#[test]
fn records_reach_a_late_joiner_and_the_other_half_of_a_healed_mesh() {
    (0..10).for_each(join_and_heal);
}

fn join_and_heal(seed: u64) {
    let mut net = Net::line(seed, 6, Timing::RFC7181);
    net.cut(2, 3);
    for i in 0..6 {
        let payload = [i as u8; 900];
        net.input(
            i,
            Input::Publish { kind: 1, sequence: 1, payload: &payload, validity: SECOND.times(3600) },
        );
    }
    let known = |net: &Net, node: usize| net.nodes[node].router.records().count();
    net.run_while_not(SECOND.times(10), |net| (0..6).all(|i| known(net, i) == 2));
    net.run_for(SECOND.times(60));
    net.connect(2, 3);
    let took = net.run_while_not(SECOND.times(10), |net| (0..6).all(|i| known(net, i) == 5));
    assert!(took < SECOND.times(6), "{took}");
    let late = net.add(|_| {});
    net.connect(late, 0);
    let took = net.run_while_not(SECOND.times(10), |net| known(net, late) == 6);
    assert!(took < SECOND.times(4), "{took}");
    // A repeated record keeps the time it has left: nothing lives longer than it should.
    for r in net.nodes[late].router.records().filter(|r| r.originator != originator(0)) {
        let source = net.nodes[0].router.records().find(|o| o.originator == r.originator).unwrap();
        assert!(r.expires <= source.expires + SECOND);
    }
}

#[test]
fn ipv4_without_interface_addresses_works_like_ipv6() {
    let mut net = Net::new(6);
    net.ipv4 = true;
    (0..5).for_each(|_| {
        net.add(|_| {});
    });
    (1..5).for_each(|i| net.connect(i - 1, i));
    net.run_while_not(SECOND.times(20), Net::is_converged);
    let far = net.nodes[0].fib[&NetAddr::host(net.originator(4))];
    assert_eq!((far.next_hop, far.interface), (net.originator(1), RADIO));
    let near = net.nodes[0].fib[&NetAddr::host(net.originator(1))];
    assert_eq!(near.next_hop, net.originator(1), "on the link");
}

#[test]
fn rfc7181_a_chain_over_two_kinds_of_links_has_routes() {
    for ipv4 in [false, true] {
        // A –radio– B –wire– C –radio– D, as in the workshop.
        let mut net = Net::new(8);
        net.ipv4 = ipv4;
        (0..4).for_each(|_| {
            net.add(|_| {});
        });
        net.bring_up((1, WIRE));
        net.bring_up((2, WIRE));
        net.connect(0, 1);
        net.connect_ports((1, WIRE), (2, WIRE));
        net.connect(2, 3);
        net.run_while_not(SECOND.times(20), Net::is_converged);
        assert_eq!(net.trace(0, NetAddr::host(net.originator(3))).unwrap(), [0, 1, 2, 3]);
        assert_eq!(net.nodes[1].fib[&NetAddr::host(net.originator(3))].interface, WIRE);
        // The wire is unplugged: the carrier says so.
        net.cut(1, 2);
        net.input(1, Input::InterfaceDown { interface: WIRE });
        net.input(2, Input::InterfaceDown { interface: WIRE });
        let took = net.run_while_not(SECOND.times(3), Net::is_converged);
        assert!(took < SECOND.times(2), "{took}");
    }
}

#[test]
fn rfc7181_two_links_to_one_neighbour_back_each_other_up() {
    for ipv4 in [false, true] {
        let mut net = Net::new(9);
        net.ipv4 = ipv4;
        (0..2).for_each(|_| {
            net.add(|_| {});
        });
        net.bring_up((0, WIRE));
        net.bring_up((1, WIRE));
        net.connect(0, 1);
        net.connect_ports((0, WIRE), (1, WIRE));
        let both = |net: &Net| {
            net.nodes[0].router.neighbors().filter(|n| n.status == LinkStatus::Symmetric).count() == 2
        };
        net.run_while_not(SECOND.times(5), both);
        assert!(net.is_converged());
        let to = NetAddr::host(net.originator(1));
        let used = net.nodes[0].fib[&to].interface;
        net.input(0, Input::InterfaceDown { interface: used });
        net.input(1, Input::InterfaceDown { interface: used });
        assert_ne!(net.nodes[0].fib[&to].interface, used, "moves over at once");
        net.run_for(SECOND.times(20));
        assert!(net.is_converged());
    }
}

#[test]
fn the_same_seed_gives_the_same_packets() {
    let run = |seed| {
        let mut net = Net::grid(seed, 3, Timing::RFC7181);
        net.tap = Some(Vec::new());
        net.run_for(SECOND.times(20));
        net.tap.unwrap()
    };
    assert!(run(1) == run(1));
    assert!(run(1) != run(2));
}

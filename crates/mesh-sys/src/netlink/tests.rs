//! Against the kernel, in a network namespace of the test's own.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::*;

/// Puts this test's thread into a new network namespace; false (and says why) where that is not allowed.
fn own_namespace() -> bool {
    match NetNamespace::new().and_then(|n| n.enter()) {
        Ok(()) => true,
        Err(e) => {
            eprintln!("SKIPPED: no network namespace for this test: {e} (run as root or under unshare -rn)");
            false
        }
    }
}

fn loopback(nl: &mut Rtnetlink) -> Link {
    nl.link("lo").unwrap().expect("every namespace has lo")
}

fn wait_for(monitor: &mut Monitor, want: impl Fn(&Event) -> bool) -> Event {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match monitor.poll_event().unwrap() {
            Some(e) if want(&e) => return e,
            Some(_) => {}
            None => {
                assert!(Instant::now() < deadline, "no such event within 5 s");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

#[test]
fn links_and_addresses_change_and_are_heard_of() {
    if !own_namespace() {
        return;
    }
    let mut nl = Rtnetlink::new().unwrap();
    let mut monitor = Monitor::new().unwrap();
    let lo = loopback(&mut nl);
    assert!(lo.is_loopback() && !lo.up && lo.kind.is_none());
    nl.set_up(lo.index, true).unwrap();
    wait_for(&mut monitor, |e| matches!(e, Event::Link(l) if l.index == lo.index && l.running()));
    for (ip, len) in [("fd00::1", 128u8), ("10.64.0.1", 32)] {
        let ip: IpAddr = ip.parse().unwrap();
        for _ in 0..2 {
            nl.add_address(lo.index, ip, len).unwrap();
        }
        wait_for(&mut monitor, |e| matches!(e, Event::Address(a) if a.ip == ip && !a.tentative));
        assert_eq!(nl.addresses().unwrap().iter().filter(|a| a.ip == ip && a.prefix_len == len).count(), 1);
        for _ in 0..2 {
            nl.remove_address(lo.index, ip, len).unwrap();
        }
        wait_for(&mut monitor, |e| matches!(e, Event::AddressGone(a) if a.ip == ip));
        assert!(nl.addresses().unwrap().iter().all(|a| a.ip != ip));
    }
    assert_eq!(nl.set_up(9999, true).unwrap_err().errno(), Some(libc::ENODEV));
    assert!(nl.add_address(9999, "10.0.0.1".parse().unwrap(), 32).is_err());
}

#[test]
fn routes_are_replaced_listed_and_removed() {
    if !own_namespace() {
        return;
    }
    let mut nl = Rtnetlink::new().unwrap();
    let lo = loopback(&mut nl);
    nl.set_up(lo.index, true).unwrap();
    let filter = RouteFilter { table: TABLE_MAIN, protocol: Some(99) };
    assert_eq!(nl.routes(&filter).unwrap(), []);
    for (ip, len, me) in [("fd00:7::", 64u8, "fd00::1"), ("10.64.7.7", 32, "10.64.0.1")] {
        let me: IpAddr = me.parse().unwrap();
        nl.add_address(lo.index, me, if me.is_ipv6() { 128 } else { 32 }).unwrap();
        let route = Route {
            kind: RouteKind::Unicast,
            prefix: ip.parse().unwrap(),
            prefix_len: len,
            gateway: None,
            index: lo.index,
            source: Some(me),
            metric: 1990,
            table: TABLE_MAIN,
            protocol: 99,
        };
        let foreign = Route { metric: 5, protocol: 4, ..route };
        nl.replace_route(&foreign).unwrap();
        nl.replace_route(&Route { source: None, ..route }).unwrap();
        nl.replace_route(&route).unwrap();
        nl.replace_route(&route).unwrap();
        assert_eq!(nl.routes(&filter).unwrap(), [route]);
        nl.remove_route(&route).unwrap();
        nl.remove_route(&route).unwrap();
        assert_eq!(nl.routes(&filter).unwrap(), []);
        let all = nl.routes(&RouteFilter { table: TABLE_MAIN, protocol: None }).unwrap();
        assert!(all.contains(&foreign), "foreign routes stay: {all:?}");
        let unreachable = Route { kind: RouteKind::Unreachable, index: 0, source: None, ..route };
        nl.replace_route(&unreachable).unwrap();
        assert_eq!(nl.routes(&filter).unwrap(), [unreachable]);
        nl.remove_route(&unreachable).unwrap();
    }
    assert_eq!(nl.routes(&RouteFilter { table: 4711, protocol: None }).unwrap(), []);
}

#[test]
fn refusals_carry_the_kernels_words() {
    if !own_namespace() {
        return;
    }
    let mut nl = Rtnetlink::new().unwrap();
    let lo = loopback(&mut nl);
    let route = Route {
        kind: RouteKind::Unicast,
        prefix: "fd00:7::1".parse().unwrap(),
        prefix_len: 64, // host bits beyond the prefix
        gateway: Some("fe80::1".parse().unwrap()),
        index: lo.index,
        source: None,
        metric: 1,
        table: TABLE_MAIN,
        protocol: 99,
    };
    let error = nl.replace_route(&route).unwrap_err();
    assert!(error.errno().is_some(), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn veth_pairs_and_bridges_come_and_go() {
    if !own_namespace() {
        return;
    }
    let other = NetNamespace::new().unwrap();
    let mut nl = Rtnetlink::new().unwrap();
    let mut monitor = Monitor::new().unwrap();
    nl.add_veth("left", "right", other.as_fd()).unwrap();
    nl.add_bridge("br0").unwrap();
    assert_eq!(nl.add_bridge("br0").unwrap_err().errno(), Some(libc::EEXIST));
    let (left, bridge) = (nl.link("left").unwrap().unwrap(), nl.link("br0").unwrap().unwrap());
    assert_eq!((left.kind.as_deref(), bridge.kind.as_deref()), (Some("veth"), Some("bridge")));
    nl.set_master(left.index, Some(bridge.index)).unwrap();
    wait_for(
        &mut monitor,
        |e| matches!(e, Event::Link(l) if l.name == "left" && l.master == Some(bridge.index)),
    );
    nl.set_master(left.index, None).unwrap();
    nl.set_up(left.index, true).unwrap();
    let mut there = std::thread::scope(|s| {
        s.spawn(|| {
            other.enter().unwrap();
            Rtnetlink::new().unwrap()
        })
        .join()
        .unwrap()
    });
    let right = there.link("right").unwrap().unwrap();
    there.set_up(right.index, true).unwrap();
    wait_for(&mut monitor, |e| matches!(e, Event::Link(l) if l.name == "left" && l.running()));
    there.remove_link(right.index).unwrap();
    wait_for(&mut monitor, |e| matches!(e, Event::LinkGone(l) if l.name == "left"));
}

/// One datagram from `from` to everybody on the link; whether `to` hears it.
fn heard(to: &std::net::UdpSocket, from: &std::net::UdpSocket, scope: u32) -> bool {
    let everybody = std::net::SocketAddrV6::new("ff02::1".parse().unwrap(), 4711, 0, scope);
    let mut buffer = [0; 16];
    to.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    while to.recv(&mut buffer).is_ok() {} // of earlier tries
    from.send_to(b"x", everybody).unwrap();
    to.recv(&mut buffer).is_ok()
}

#[test]
fn a_silent_port_loses_frames_and_isolated_ports_do_not_hear_each_other() {
    if !own_namespace() {
        return;
    }
    let mut nl = Rtnetlink::new().unwrap();
    nl.add_bridge("br0").unwrap();
    let bridge = nl.link("br0").unwrap().unwrap().index;
    nl.set_snooping(bridge, false).unwrap();
    nl.set_up(bridge, true).unwrap();
    let mut ends = Vec::new();
    for name in ["p0", "p1"] {
        let other = NetNamespace::new().unwrap();
        nl.add_veth(name, "eth0", other.as_fd()).unwrap();
        let port = nl.link(name).unwrap().unwrap().index;
        nl.set_master(port, Some(bridge)).unwrap();
        nl.set_up(port, true).unwrap();
        let end = std::thread::scope(|s| {
            s.spawn(|| {
                other.enter().unwrap();
                sysctl::set(crate::udp::Family::V6, "default", "accept_dad", "0").unwrap();
                let mut nl = Rtnetlink::new().unwrap();
                let index = nl.link("eth0").unwrap().unwrap().index;
                nl.set_up(index, true).unwrap();
                nl.add_address(index, format!("fe80::{port}").parse().unwrap(), 64).unwrap();
                (std::net::UdpSocket::bind("[::]:4711").unwrap(), index)
            })
            .join()
            .unwrap()
        });
        ends.push((port, end.0, end.1));
    }
    let [(port, a, scope), (other_port, b, _)] = &ends[..] else { unreachable!() };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !heard(b, a, *scope) {
        assert!(std::time::Instant::now() < deadline, "nothing passes the bridge");
    }
    nl.set_forwarding(*port, false).unwrap();
    assert!(!heard(b, a, *scope));
    assert!(nl.link("p0").unwrap().unwrap().running());
    nl.set_forwarding(*port, true).unwrap();
    assert!(heard(b, a, *scope));
    nl.set_isolated(*port, true).unwrap();
    assert!(heard(b, a, *scope), "one of them is not isolated");
    nl.set_isolated(*other_port, true).unwrap();
    assert!(!heard(b, a, *scope));
}

#[test]
fn route_changes_are_heard() {
    if !own_namespace() {
        return;
    }
    let mut nl = Rtnetlink::new().unwrap();
    let lo = loopback(&mut nl);
    nl.set_up(lo.index, true).unwrap();
    let mut monitor = RouteMonitor::new().unwrap();
    let route = Route {
        kind: RouteKind::Unicast,
        prefix: "fd00:7::1".parse().unwrap(),
        prefix_len: 128,
        gateway: Some("fe80::1".parse().unwrap()),
        index: lo.index,
        source: None,
        metric: 1,
        table: TABLE_MAIN,
        protocol: 99,
    };
    // Its end goes with the namespace, and takes ours along.
    let other = NetNamespace::new().unwrap();
    nl.add_veth("left", "right", other.as_fd()).unwrap();
    let left = nl.link("left").unwrap().unwrap();
    nl.set_up(left.index, true).unwrap();
    let route = Route { index: left.index, ..route };
    nl.replace_route(&route).unwrap();
    nl.remove_route(&route).unwrap();
    let mut events = Vec::new();
    while let Some(event) = monitor.poll_event().unwrap() {
        events.push(event);
    }
    let of = |wanted: &RouteEvent| events.iter().filter(|e| *e == wanted).count();
    assert_eq!((of(&RouteEvent::Set(route)), of(&RouteEvent::Gone(route))), (1, 1), "{events:?}");
}

/// A cable from this namespace: its interface here, both ends up. `lo` has the addresses, as on a node.
fn cable(nl: &mut Rtnetlink, other: &NetNamespace) -> Link {
    let lo = loopback(nl);
    nl.set_up(lo.index, true).unwrap();
    nl.add_address(lo.index, "10.64.0.1".parse().unwrap(), 32).unwrap();
    nl.add_address(lo.index, "fd00::1".parse().unwrap(), 128).unwrap();
    nl.add_veth("left", "right", other.as_fd()).unwrap();
    let left = nl.link("left").unwrap().unwrap();
    nl.set_up(left.index, true).unwrap();
    std::thread::scope(|s| {
        s.spawn(|| {
            other.enter().unwrap();
            let mut there = Rtnetlink::new().unwrap();
            let right = there.link("right").unwrap().unwrap();
            there.set_up(right.index, true).unwrap();
        });
    });
    left
}

fn host_route(index: u32, to: IpAddr, via: &str) -> Route {
    Route {
        kind: RouteKind::Unicast,
        prefix: to,
        prefix_len: if to.is_ipv6() { 128 } else { 32 },
        gateway: Some(via.parse().unwrap()),
        index,
        source: None,
        metric: 1024,
        table: TABLE_MAIN,
        protocol: 99,
    }
}

#[test]
fn a_route_being_replaced_is_never_missing() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    if !own_namespace() {
        return;
    }
    let other = NetNamespace::new().unwrap();
    let mut nl = Rtnetlink::new().unwrap();
    let left = cable(&mut nl, &other);
    for (to, vias) in [("10.64.7.7", ["10.64.0.2", "10.64.0.3"]), ("fd00:7::7", ["fe80::2", "fe80::3"])] {
        let to: IpAddr = to.parse().unwrap();
        nl.replace_route(&host_route(left.index, to, vias[0])).unwrap();
        let mut monitor = Monitor::with_routes(99).unwrap();
        let (done, lookups) = (AtomicBool::new(false), AtomicUsize::new(0));
        let missing = std::thread::scope(|s| {
            let watcher = s.spawn(|| {
                let any: IpAddr = if to.is_ipv6() { "::" } else { "0.0.0.0" }.parse().unwrap();
                let socket = std::net::UdpSocket::bind((any, 0)).unwrap();
                let is_missing = || socket.connect((to, 9)).is_err();
                let mut missing = 0;
                while !done.load(Ordering::Relaxed) {
                    // A look-up that runs at that moment may hold the entry just replaced, which the kernel passes over
                    // (fib_table_lookup, fib_dead; ip6_rt_pcpu_alloc, fib6_info_hold_safe); the next one finds the new entry.
                    missing += usize::from(is_missing() && is_missing());
                    lookups.fetch_add(1, Ordering::Relaxed);
                }
                missing
            });
            let deadline = Instant::now() + Duration::from_secs(20);
            let mut round = 0;
            while round < 1000 || (lookups.load(Ordering::Relaxed) < 1000 && Instant::now() < deadline) {
                round += 1;
                nl.change_routes(&[Change::Replace(host_route(left.index, to, vias[round % 2]))]).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            watcher.join().unwrap()
        });
        assert_eq!(missing, 0, "of {} lookups of {to}", lookups.into_inner());
        loop {
            match monitor.poll_event().unwrap() {
                Some(Event::RouteGone(r)) => panic!("{r:?} was removed"),
                Some(_) => {}
                None => break,
            }
        }
        assert_eq!(nl.routes(&RouteFilter { table: TABLE_MAIN, protocol: Some(99) }).unwrap().len(), 1);
        nl.remove_route(&host_route(left.index, to, vias[0])).unwrap();
        nl.remove_route(&host_route(left.index, to, vias[1])).unwrap();
    }
}

#[test]
fn a_thousand_routes_go_in_at_once_and_a_lost_notification_is_noticed() {
    if !own_namespace() {
        return;
    }
    let other = NetNamespace::new().unwrap();
    let mut nl = Rtnetlink::new().unwrap();
    let left = cable(&mut nl, &other);
    let mut monitor = Monitor::with_routes(99).unwrap();
    let routes: Vec<Route> = (0..1000u32)
        .flat_map(|n| {
            let [.., high, low] = n.to_be_bytes();
            [
                host_route(left.index, IpAddr::from([10, 65, high, low]), "10.64.0.2"),
                host_route(left.index, IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n as u16 + 1]), "fe80::2"),
            ]
        })
        .collect();
    let mut changes: Vec<Change> = routes.iter().copied().map(Change::Replace).collect();
    // One that is refused, amid the others: bits behind the prefix.
    changes.insert(777, Change::Replace(Route { prefix_len: 24, ..routes[3 * 2] }));
    let start = Instant::now();
    let results = nl.change_routes(&changes).unwrap();
    let batched = start.elapsed();
    let refused: Vec<usize> = (0..results.len()).filter(|i| results[*i].is_err()).collect();
    assert_eq!(refused, [777]);
    let filter = RouteFilter { table: TABLE_MAIN, protocol: Some(99) };
    assert_eq!(nl.routes(&filter).unwrap().len(), routes.len());
    let start = Instant::now();
    routes.iter().for_each(|r| nl.replace_route(r).unwrap());
    let single = start.elapsed();
    let gone: Vec<Change> = routes.iter().copied().map(Change::Remove).collect();
    for _ in 0..2 {
        assert!(nl.change_routes(&gone).unwrap().iter().all(Result::is_ok), "gone already is fine");
    }
    assert_eq!(nl.routes(&filter).unwrap(), []);
    eprintln!("2000 routes: {batched:?} in batches, {single:?} one by one");
    // The monitor slept through more than its buffer holds.
    for _ in 0..3 {
        nl.change_routes(&changes).unwrap();
        nl.change_routes(&gone).unwrap();
    }
    wait_for(&mut monitor, |e| *e == Event::Resync);
}

#[test]
fn rules_are_added_listed_and_removed() {
    if !own_namespace() {
        return;
    }
    let mut nl = Rtnetlink::new().unwrap();
    for family in [Family::V4, Family::V6] {
        let rule = Rule {
            family,
            priority: 32_100,
            incoming: None,
            action: RuleAction::Lookup { table: TABLE_MAIN, suppress: Some(10) },
            protocol: 99,
        };
        let from_lo = Rule {
            priority: 32_101,
            incoming: Some("lo".into()),
            action: RuleAction::Unreachable,
            ..rule.clone()
        };
        for _ in 0..2 {
            nl.add_rule(&rule).unwrap();
            nl.add_rule(&from_lo).unwrap();
        }
        assert_eq!(nl.rules(family, 99).unwrap(), [rule.clone(), from_lo.clone()]);
        assert_eq!(nl.rules(family, 98).unwrap(), []);
        for _ in 0..2 {
            nl.remove_rule(&rule).unwrap();
        }
        assert!(nl.rules(family, 99).unwrap().iter().eq([&from_lo]));
        nl.remove_rule(&from_lo).unwrap();
    }
}

#[test]
fn foreign_default_routes_are_heard_of() {
    if !own_namespace() {
        return;
    }
    let other = NetNamespace::new().unwrap();
    let mut nl = Rtnetlink::new().unwrap();
    let left = cable(&mut nl, &other);
    let mut monitor = Monitor::with_routes(99).unwrap();
    for any in ["0.0.0.0", "::"] {
        let any: IpAddr = any.parse().unwrap();
        let via = if any.is_ipv6() { "fe80::9" } else { "192.168.1.1" };
        let foreign = Route { prefix_len: 0, protocol: 4, ..host_route(left.index, any, via) };
        nl.replace_route(&foreign).unwrap();
        wait_for(&mut monitor, |e| *e == Event::ForeignDefault);
        nl.remove_route(&foreign).unwrap();
        wait_for(&mut monitor, |e| *e == Event::ForeignDefault);
        let ours = Route { protocol: 99, ..foreign };
        nl.replace_route(&ours).unwrap();
        nl.remove_route(&ours).unwrap();
        wait_for(&mut monitor, |e| matches!(e, Event::RouteGone(r) if *r == ours));
    }
}

/// A cable from here to another namespace, both ends up: the index here, netlink there, the index there.
fn joined(nl: &mut Rtnetlink, other: &NetNamespace) -> (u32, Rtnetlink, u32) {
    nl.add_veth("left", "right", other.as_fd()).unwrap();
    let left = nl.link("left").unwrap().unwrap().index;
    nl.set_up(left, true).unwrap();
    let mut there = std::thread::scope(|s| {
        s.spawn(|| {
            other.enter().unwrap();
            Rtnetlink::new().unwrap()
        })
        .join()
        .unwrap()
    });
    let right = there.link("right").unwrap().unwrap().index;
    there.set_up(right, true).unwrap();
    (left, there, right)
}

#[test]
fn rfc4861_7_3_a_neighbour_that_is_sent_packets_is_watched_without_being_asked_for() {
    if !own_namespace() {
        return;
    }
    let other = NetNamespace::new().unwrap();
    let mut nl = Rtnetlink::new().unwrap();
    let mut monitor = Monitor::with_routes(99).unwrap();
    monitor.hear_answers(false);
    let (left, mut there, right) = joined(&mut nl, &other);
    let them: Ipv6Addr = "fe80::2".parse().unwrap();
    nl.add_address(left, "fe80::1".parse().unwrap(), 64).unwrap();
    there.add_address(right, them.into(), 64).unwrap();
    let millis = mesh_types::Duration::from_millis;
    let times = Detection { reachable: millis(200), delay: millis(20), retransmission: millis(50) };
    nl.set_detection(left, true, &times).unwrap();
    let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
    let news_within = |monitor: &mut Monitor, span: Duration| {
        let end = Instant::now() + span;
        while Instant::now() < end {
            let _ = socket.send_to(b"traffic", std::net::SocketAddrV6::new(them, 9, 0, left));
            while let Some(event) = monitor.poll_event().unwrap() {
                if let Event::Neighbor(n) = event
                    && n.ip == IpAddr::from(them)
                {
                    return Some(n.reachable);
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    };
    // It answers, again and again, and nobody is told.
    assert_eq!(news_within(&mut monitor, Duration::from_secs(1)), None);
    there.remove_address(right, them.into(), 64).unwrap();
    assert_eq!(news_within(&mut monitor, Duration::from_secs(2)), Some(false));
    monitor.hear_answers(true);
    there.add_address(right, them.into(), 64).unwrap();
    assert_eq!(news_within(&mut monitor, Duration::from_secs(2)), Some(true));
    nl.set_detection(left, true, &Detection::RFC4861).unwrap();
    nl.remove_link(left).unwrap();
    nl.set_detection(left, true, &Detection::RFC4861).unwrap();
}

#[test]
fn rfc4861_7_3_a_probe_finds_out_whether_a_neighbour_is_there() {
    if !own_namespace() {
        return;
    }
    let other = NetNamespace::new().unwrap();
    let mut nl = Rtnetlink::new().unwrap();
    let mut monitor = Monitor::with_routes(99).unwrap();
    let (left, mut there, right) = joined(&mut nl, &other);
    let pairs: [(IpAddr, IpAddr, u8); 2] = [
        ("fe80::1".parse().unwrap(), "fe80::2".parse().unwrap(), 64),
        ("10.64.0.1".parse().unwrap(), "10.64.0.2".parse().unwrap(), 32),
    ];
    for (us, them, len) in pairs {
        let retransmission = mesh_types::Duration::from_millis(50);
        nl.set_detection(left, us.is_ipv6(), &Detection { retransmission, ..Detection::RFC4861 }).unwrap();
        nl.add_address(left, us, len).unwrap();
        there.add_address(right, them, len).unwrap();
        // The second time it is known, and asked by unicast.
        for _ in 0..2 {
            nl.probe_neighbor(left, them).unwrap();
            wait_for(
                &mut monitor,
                |e| matches!(e, Event::Neighbor(n) if n.index == left && n.ip == them && n.reachable),
            );
        }
        let mac = there.link("right").unwrap().unwrap().mac.unwrap();
        assert!(nl.neighbors(left).unwrap().contains(&(them, mac)));
        assert_eq!(nl.neighbors(9999).unwrap_or_default(), []);
        there.remove_address(right, them, len).unwrap();
        nl.probe_neighbor(left, them).unwrap();
        let start = Instant::now();
        wait_for(
            &mut monitor,
            |e| matches!(e, Event::Neighbor(n) if n.index == left && n.ip == them && !n.reachable),
        );
        assert!(start.elapsed() < Duration::from_secs(2), "the set time counts: {:?}", start.elapsed());
    }
    assert!(nl.probe_neighbor(9999, pairs[0].1).is_err());
}

#[test]
fn tunnels_read_back_as_they_were_made() {
    if !own_namespace() {
        return;
    }
    if let Err(e) = tunnels_possible() {
        eprintln!("SKIPPED: tunnels in the kernel: no programs on routes: {e}");
        return;
    }
    let other = NetNamespace::new().unwrap();
    let mut nl = Rtnetlink::new().unwrap();
    let left = cable(&mut nl, &other);
    nl.set_tunnel_source("fd00::1".parse().unwrap());
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let tunnel = |any: &str, source: &str| Route {
        kind: RouteKind::Tunnel,
        prefix_len: 0,
        source: Some(ip(source)),
        table: 108,
        ..host_route(left.index, ip(any), "fd01::d4")
    };
    let end = |via: &str| Route { kind: RouteKind::TunnelEnd, ..host_route(left.index, ip("fd00::d6"), via) };
    for route in [
        tunnel("::", "fd00::1"),
        tunnel("0.0.0.0", "10.64.0.1"),
        end("100::1"),
        Route { prefix: ip("fd00::d4"), ..end("192.0.0.8") },
    ] {
        let filter = RouteFilter { table: route.table, protocol: Some(99) };
        nl.replace_route(&route).unwrap();
        assert!(nl.routes(&filter).unwrap().contains(&route), "{route:?} not in {:?}", nl.routes(&filter));
        // Another end in its place, and back.
        for gateway in [
            Some(if route.gateway.unwrap().is_ipv4() { ip("192.0.0.9") } else { ip("fd02::d4") }),
            route.gateway,
        ] {
            let moved = Route { gateway, ..route };
            nl.replace_route(&moved).unwrap();
            let there = nl.routes(&filter).unwrap();
            assert_eq!(there.iter().filter(|r| r.prefix == route.prefix).collect::<Vec<_>>(), [&moved]);
        }
        nl.remove_route(&route).unwrap();
        assert!(!nl.routes(&filter).unwrap().contains(&route));
    }
}

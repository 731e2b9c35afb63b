use super::*;
use crate::tc::{Advertised, Gateway};
use mesh_types::Duration;

fn net(text: &str) -> NetAddr {
    NetAddr::host(text.parse().unwrap())
}

fn tc(ansn: u16, complete: bool, to: &[&str]) -> Tc {
    let neighbors = to.iter().map(|t| Advertised { address: net(t), kind: 3, metric: Some(Metric::MIN) });
    Tc {
        originator: "fd00::9".parse().unwrap(),
        seq: 0,
        validity: Duration::from_secs(15),
        ansn: Some((ansn, complete)),
        neighbors: neighbors.collect(),
        gateways: Vec::new(),
        notes: Vec::new(),
    }
}

fn edges(t: &Topology) -> usize {
    t.routers().map(|(_, r)| r.edges().count()).sum()
}

#[test]
fn rfc7181_16_3_3_1_an_older_ansn_is_discarded() {
    let mut t = Topology::new(10);
    let now = Instant::from_millis(1);
    assert!(t.apply(now, &tc(5, true, &["fd00::1"]), &ANYONE, |_| false).changed);
    assert!(!t.apply(now, &tc(4, true, &["fd00::2"]), &ANYONE, |_| false).changed);
    assert!(!t.apply(now, &tc(5, true, &["fd00::1"]), &ANYONE, |_| false).changed);
    assert_eq!(edges(&t), 1);
}

#[test]
fn rfc7181_16_3_4_a_complete_tc_replaces_an_incomplete_one_adds() {
    let mut t = Topology::new(10);
    let now = Instant::from_millis(1);
    t.apply(now, &tc(5, true, &["fd00::1"]), &ANYONE, |_| false);
    assert!(t.apply(now, &tc(6, false, &["fd00::2"]), &ANYONE, |_| false).changed);
    assert_eq!(edges(&t), 2);
    assert!(t.apply(now, &tc(7, true, &["fd00::2"]), &ANYONE, |_| false).changed);
    assert_eq!(edges(&t), 1);
    let mut gone = tc(8, false, &["fd00::2"]);
    gone.neighbors[0].metric = None;
    assert!(t.apply(now, &gone, &ANYONE, |_| false).changed, "UNKNOWN_METRIC removes");
    assert_eq!(edges(&t), 0);
}

#[test]
fn rfc7181_17_5_expiry_takes_everything() {
    let mut t = Topology::new(10);
    let mut with_net = tc(5, true, &["fd00::1"]);
    with_net.gateways.push(Gateway { prefix: net("fd01::"), dist: 0, metric: Some(Metric::MIN) });
    t.apply(Instant::ZERO, &with_net, &ANYONE, |_| false);
    assert!(!t.expire(Instant::from_millis(14_997)));
    let end = t.next_expiry().unwrap();
    assert!(end > Instant::from_millis(14_997) && end <= Instant::from_millis(15_000));
    assert!(t.expire(end));
    assert_eq!((t.routers().count(), t.next_expiry()), (0, None));
}

fn name(n: u16) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, n])
}

/// A TC of router `n` with so many tuples, brought by a neighbour; all neighbours are there.
fn bring(t: &mut Topology, by: u8, n: u16, tuples: usize) -> Outcome {
    let to: Vec<alloc::string::String> = (0..tuples).map(|i| alloc::format!("fd01::{n}:{i:x}")).collect();
    let to: Vec<&str> = to.iter().map(|a| &**a).collect();
    let ansn = t.names.find(NetAddr::host(name(n))).and_then(|name| t.get(name)).map_or(0, |r| r.ansn());
    let tc = Tc { originator: name(n), ..tc(ansn.wrapping_add(1), true, &to) };
    let brought = Brought { by: IpAddr::from([10, 0, 0, by]), alive: &|_| true };
    t.apply(Instant::from_millis(1), &tc, &brought, |_| false)
}

fn has(t: &Topology, n: u16) -> bool {
    t.names.find(NetAddr::host(name(n))).is_some_and(|name| t.get(name).is_some())
}

#[test]
fn a_full_table_lets_in_what_comes_by_another_neighbour_and_the_youngest_of_the_greedy_one_goes() {
    let mut t = Topology::new(64);
    for n in 0..64 {
        assert!(!bring(&mut t, 1, n, 0).full);
    }
    for n in 64..1000 {
        assert!(bring(&mut t, 1, n, 0).refused && !has(&t, n));
    }
    // A sixteenth is every neighbour's own.
    for (n, in_) in [(2000, true), (2001, true), (2002, true), (2003, true), (2004, false)] {
        let outcome = bring(&mut t, 2, n, 1);
        assert_eq!((!outcome.refused, has(&t, n)), (in_, in_), "{n}");
    }
    assert!((0..60).all(|n| has(&t, n)) && (60..64).all(|n| !has(&t, n)));
    assert_eq!(t.routers().count(), 64);
    for n in 0..60 {
        let again = bring(&mut t, 1, n, 0);
        assert!(!again.full && !again.refused, "who is there stays, whoever brings it");
    }
}

#[test]
fn a_full_table_bounds_tuples_and_every_router_there_may_say_a_little() {
    let mut t = Topology::new(64);
    assert!(!bring(&mut t, 2, 5000, 1).full);
    let refused = (0..64).filter(|n| bring(&mut t, 1, *n, 500).refused).count();
    assert!(refused > 58 && edges(&t) <= 64 * 24);
    assert!((64..128).all(|n| !bring(&mut t, 3, n, 17).refused || has(&t, 64)));
    let grown = bring(&mut t, 2, 5000, 16);
    assert!(!grown.full && grown.changed);
    assert!(edges(&t) <= 64 * 24);
}

#[test]
fn who_left_has_no_share_and_its_routers_go_over_to_those_who_bring_them() {
    let mut t = Topology::new(64);
    for n in 0..60 {
        bring(&mut t, 1, n, 0);
    }
    let brought = Brought { by: IpAddr::from([10, 0, 0, 2]), alive: &|a| a != IpAddr::from([10, 0, 0, 1]) };
    for n in 0..60 {
        t.heard(name(n), &brought);
    }
    let only = t.routers().map(|(_, r)| r.record.giver).max();
    assert!(t.routers().all(|(_, r)| Some(r.record.giver) == only));
}

#[test]
fn a_neighbours_own_word_counts_whatever_else_it_brought() {
    let mut t = Topology::new(64);
    assert!((0..64).all(|n| !bring(&mut t, 1, n, 0).full));
    let own = Tc { originator: IpAddr::from([10, 0, 0, 1]), ..tc(1, true, &["fd00::1"]) };
    let brought = Brought { by: own.originator, alive: &|_| true };
    assert!(!t.apply(Instant::ZERO, &own, &brought, |_| false).refused);
    assert!(!has(&t, 63) && t.routers().count() == 64);
}

#[test]
fn rfc7181_16_3_3_nothing_is_believed_for_longer_than_five_minutes() {
    let mut t = Topology::new(10);
    let long = Tc { validity: Duration::from_secs(4_000_000), ..tc(5, true, &["fd00::1"]) };
    t.apply(Instant::ZERO, &long, &ANYONE, |_| false);
    assert!(t.expire(Instant::ZERO + MAX_VALIDITY) && t.routers().count() == 0);
}

#[test]
fn rfc7181_16_3_3_a_forged_ansn_lasts_no_longer_than_the_routers_own_word() {
    let mut t = Topology::new(10);
    let forged = Tc { validity: Duration::from_secs(4_000_000), ..tc(0x7000, true, &["fd00::7"]) };
    t.apply(Instant::from_millis(500), &tc(5, true, &["fd00::1"]), &ANYONE, |_| false);
    assert!(t.apply(Instant::from_millis(1000), &forged, &ANYONE, |_| false).changed);
    // Its own TCs say that they are good for 15 s.
    for ms in (5000..20_000).step_by(5000) {
        let own = tc(6, true, &["fd00::1"]);
        assert!(!t.apply(Instant::from_millis(ms), &own, &ANYONE, |_| false).changed, "{ms}");
    }
    let end = Instant::from_millis(20_000);
    assert!(t.expire(end));
    assert!(t.apply(end, &tc(6, true, &["fd00::1"]), &ANYONE, |_| false).new);
}

#[test]
fn lists_that_grow_shrink_and_go_keep_what_was_told_and_little_more() {
    let mut t = Topology::new(1000);
    let mut rng = nhdp::Rng::new(7);
    let mut told = [0; 50];
    for _ in 0..5000 {
        let (n, tuples) = (rng.next_u64() as u16 % 50, rng.next_u64() as usize % 30);
        if tuples > 25 {
            let name = t.names.find(NetAddr::host(name(n)));
            name.into_iter().for_each(|name| t.remove(name));
            told[usize::from(n)] = 0;
        } else {
            assert!(!bring(&mut t, 1, n, tuples).full);
            told[usize::from(n)] = tuples;
        }
        t.names.sweep();
        let room: usize = told.iter().sum::<usize>() * 16 / 15 + 2 * TUPLES;
        assert!(t.tuples.len() <= room, "{} of {room}", t.tuples.len());
    }
    for (n, tuples) in (0..).zip(told) {
        let known = t.names.find(NetAddr::host(name(n))).and_then(|name| t.get(name));
        let names = known.into_iter().flat_map(Router::names).filter_map(|to| t.names.address(to));
        let mut names: Vec<NetAddr> = names.collect();
        names.sort_unstable();
        let want: Vec<NetAddr> = (0..tuples).map(|i| net(&alloc::format!("fd01::{n}:{i:x}"))).collect();
        assert_eq!(names, want, "{n}");
    }
}

/// Most of what a router of a large IPv6 mesh takes in memory; routes are 12 octets more for each name.
#[test]
fn a_remote_router_takes_little() {
    const ROUTERS: u16 = 1000;
    let mut t = Topology::new(usize::from(ROUTERS));
    let mut seen = crate::flood::SeenSet::new(Duration::from_secs(130), 65_536);
    let ip = |n: u16| IpAddr::from([0xfd00, n, 0, 0, 0, 0, 0, 1]);
    for seq in 0..4 {
        for n in 0..ROUTERS {
            let near = [1, 2, ROUTERS - 2, ROUTERS - 1].map(|d| (n + d) % ROUTERS);
            let to =
                |n: &u16| Advertised { address: NetAddr::host(ip(*n)), kind: 3, metric: Some(Metric::MIN) };
            let prefix = NetAddr::new(ip(n), 64).network();
            let tc = Tc {
                originator: ip(n),
                neighbors: near.iter().map(to).collect(),
                gateways: [Gateway { prefix, dist: 0, metric: Some(Metric::MIN) }].into(),
                ..tc(1, true, &[])
            };
            seen.entry(&mut t.names, Instant::ZERO, (1, ip(n), seq), ANYONE.by).process();
            t.apply(Instant::ZERO, &tc, &ANYONE, |_| false);
        }
    }
    let table = [
        ("names of addresses", t.names.bytes()),
        ("where they are", 4 * t.places.capacity()),
        ("routers", size_of::<Option<Record>>() * t.routers.capacity()),
        ("what they tell of", size_of::<Tuple>() * t.tuples.capacity()),
        ("messages", seen.bytes()),
    ];
    let each = |bytes: usize| bytes.div_ceil(ROUTERS.into());
    let parts: Vec<_> = table.iter().map(|(what, bytes)| alloc::format!("{what} {}", each(*bytes))).collect();
    let all = each(table.iter().map(|(_, bytes)| *bytes).sum());
    assert!(all <= 190, "{all} octets: {}", parts.join(", "));
    assert!(t.one_way.is_empty() && t.times.is_empty() && t.whole.is_empty());
}

//! One neighbour with a valid link tells of 100,000 routers that are not there, while real ones come and go.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::{IpAddr, Ipv6Addr};

use mesh_types::{Duration, Instant, Metric};
use olsrv2::{Config, Input, NetAddr, Router};
use rfc5444::{Attribute, Attributed, Message, Packet, Tlv, pack};

/// Interface addresses and routers: 1 is us, 2 and 3 are honest, 666 is not.
const LIAR: u16 = 666;
/// Validity times: 15 s, and the longest there is, 45 days.
const SHORT: u8 = 0x6f;
const LONGEST: u8 = 0xff;

fn ip(group: u16, n: u32) -> IpAddr {
    let (high, low) = ((n >> 16) as u16, n as u16);
    IpAddr::V6(Ipv6Addr::new(group, 0, 0, 0, 0, 0, high, low))
}

fn entry(address: IpAddr, attributes: &[Attribute]) -> Attributed {
    Attributed { address: address.into(), attributes: attributes.to_vec() }
}

fn metric(kinds: u16, value: u32) -> Attribute {
    Attribute::new(7, &(kinds | Metric::new(value).to_compressed()).to_be_bytes())
}

fn hello(from: u16, mpr: u8, validity: u8) -> Message {
    let mut m = Message::new(0, 16);
    m.originator = Some(ip(0xfd00, from.into()).into());
    m.tlvs = vec![Tlv::new(1, &[validity]), Tlv::new(7, &[0x77])];
    let mut us = vec![Attribute::new(3, &[1]), metric(0xf000, 256)];
    us.extend((mpr != 0).then(|| Attribute::new(8, &[mpr])));
    m.blocks = pack(&[
        entry(ip(0xfe80, from.into()), &[Attribute::new(2, &[0])]),
        entry(ip(0xfe80, 1), &us),
        entry(ip(0xfd00, from.into()), &[Attribute::new(2, &[1])]),
    ]);
    m
}

/// A TC of router `from` with routers behind it.
fn tc(from: u32, seq: u16, validity: u8, to: &[u32]) -> Message {
    let mut m = Message::new(1, 16);
    m.originator = Some(ip(0xfd00, from).into());
    (m.hop_limit, m.hop_count, m.seq) = (Some(255), Some(0), Some(seq));
    m.tlvs = vec![Tlv::new(1, &[validity]), Tlv::new(8, &seq.to_be_bytes())];
    let said: Vec<Attributed> =
        to.iter().map(|n| entry(ip(0xfd00, *n), &[Attribute::new(9, &[3]), metric(0x1000, 256)])).collect();
    m.blocks = pack(&said);
    m
}

struct Us {
    router: Router,
    now: Instant,
    sent: Vec<Message>,
}

impl Us {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let now = Instant::from_millis(1000);
        let mut config = Config::new(ip(0xfd00, 1));
        change(&mut config);
        let mut us = Self { router: Router::new(config, 1, now), now, sent: Vec::new() };
        let addresses = [NetAddr::host(ip(0xfe80, 1))];
        us.router.handle_input(now, Input::InterfaceUp { interface: 1, addresses: &addresses }).unwrap();
        us
    }

    fn hear(&mut self, from: u16, messages: Vec<Message>) {
        let packet = Packet { seq: None, tlvs: None, messages };
        let (source, bytes) = (ip(0xfe80, from.into()), packet.to_bytes().unwrap());
        self.router.handle_input(self.now, Input::Packet { interface: 1, source, bytes: &bytes }).unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.router.poll_output() {
            if let olsrv2::Output::Transmit { bytes, .. } = output {
                self.sent.extend(Packet::parse(&bytes).unwrap().messages);
            }
        }
    }

    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.router.poll_timeout().filter(|t| *t <= end) {
            self.now = self.now.max(at);
            self.router.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn has_route(&self, to: u32) -> bool {
        self.router.routes().any(|r| r.prefix == NetAddr::host(ip(0xfd00, to)))
    }
}

/// The real mesh behind neighbour 2: a chain of routers, each with a leaf.
struct Chain {
    first: u32,
    length: u32,
    seq: u16,
}

impl Chain {
    fn routers(&self) -> impl Iterator<Item = u32> + use<> {
        self.first..self.first + self.length
    }

    fn leaf(router: u32) -> u32 {
        router + 0x4_0000
    }

    /// Everyone's next TC; `over` also are those neighbours that forward it, in that order.
    fn tcs(&mut self) -> Vec<Message> {
        self.seq += 1;
        let last = self.first + self.length - 1;
        let mut all = vec![tc(2, self.seq, SHORT, &[1, self.first])];
        for r in self.routers() {
            let next = if r < last { r + 1 } else { Self::leaf(last + 1) };
            let before = if r == self.first { 2 } else { r - 1 };
            all.push(tc(r, self.seq, SHORT, &[before, next, Self::leaf(r)]));
        }
        all
    }

    fn all_routed(&self, us: &Us) -> bool {
        self.routers().all(|r| us.has_route(r) && us.has_route(Self::leaf(r)))
    }
}

/// 100,000 invented routers, linked into a tree below the liar, as packets of 40 TCs.
fn lies(seq: u16) -> impl Iterator<Item = Vec<Message>> {
    const FIRST: u32 = 0x10_0000;
    let tree = (0..100_000u32).map(move |i| {
        let kids: Vec<u32> = (1..4).map(|k| FIRST + 3 * i + k).collect();
        tc(FIRST + i, seq, LONGEST, &kids)
    });
    let mut own = vec![tc(LIAR.into(), seq, LONGEST, &[1, FIRST])];
    own.extend(tree);
    let mut all = own.into_iter();
    std::iter::from_fn(move || Some(all.by_ref().take(40).collect::<Vec<_>>()).filter(|p| !p.is_empty()))
}

#[test]
fn a_hundred_thousand_invented_routers_push_out_nobody_and_keep_nobody_out() {
    let mut us = Us::new(|_| {});
    let greet = |us: &mut Us| {
        [2, 3].into_iter().for_each(|n| us.hear(n, vec![hello(n, 1, 0x64)]));
        us.hear(LIAR, vec![hello(LIAR, 1, LONGEST)]);
    };
    greet(&mut us);
    let mut mesh = Chain { first: 0x1000, length: 200, seq: 0 };
    // The liar is the fastest to forward what is real: first it brings all.
    let tcs = mesh.tcs();
    us.hear(LIAR, tcs.clone());
    us.hear(2, tcs);
    us.wait(Duration::from_secs(1));
    assert!(mesh.all_routed(&us));

    let mut slowest = std::time::Duration::ZERO;
    for (i, packet) in lies(1).enumerate() {
        let start = std::time::Instant::now();
        us.hear(LIAR, packet);
        slowest = slowest.max(start.elapsed());
        if i % 50 == 49 {
            us.wait(Duration::from_millis(1000));
            greet(&mut us);
        }
        if i % 250 == 249 {
            mesh.length += 1;
            let tcs = mesh.tcs();
            // Real routers' news come by the liar first, too.
            us.hear(LIAR, tcs.clone());
            us.hear(2, tcs);
            us.wait(Duration::from_millis(300));
            assert!(mesh.all_routed(&us), "packet {i}");
            assert!(us.router.topology().count() <= 24 * us.router.config().limits.routers);
        }
    }
    println!("the slowest packet of 40 TCs took {slowest:?}");
    assert!(us.router.counters().table_full > 50_000);

    // The mesh goes, another comes: a hundred newcomers behind 3.
    let mut late = Chain { first: 0x2000, length: 100, seq: 0 };
    let mut tcs = late.tcs();
    tcs[0] = tc(3, 9, SHORT, &[1, late.first]);
    us.hear(LIAR, tcs.clone());
    us.hear(3, tcs);
    us.wait(Duration::from_millis(300));
    assert!(late.all_routed(&us), "newcomers get in");
    assert!(mesh.all_routed(&us), "and nobody goes for them");

    // Lies that nobody repeats end, whatever was said of their validity.
    us.wait(Duration::from_secs(301));
    assert_eq!((us.router.topology().count(), us.router.routes().count()), (0, 0));
}

/// A neighbour that is not there: `own` addresses of its own and `others` of its neighbours, all far apart.
fn invented(n: u16, own: u64, others: u64) -> Message {
    let scattered = |kind: u64, i: u64| {
        let x = (u64::from(n) << 32 | kind << 24 | i).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let [a, b, c, d, ..] = [x, x >> 16, x >> 32, x >> 48].map(|x| x as u16);
        IpAddr::V6(Ipv6Addr::new(0xfd07, a, b, c, d, c ^ 0x5555, b ^ a, d ^ 0x1234))
    };
    let mut m = hello(n, 1, LONGEST);
    let mut entries = vec![
        entry(ip(0xfe80, n.into()), &[Attribute::new(2, &[0])]),
        entry(ip(0xfe80, 1), &[Attribute::new(3, &[1]), metric(0xf000, 256)]),
    ];
    entries.extend((1..own).map(|i| entry(scattered(1, i), &[Attribute::new(2, &[1])])));
    let said = [Attribute::new(4, &[1]), metric(0x3000, 300)];
    entries.extend((0..others).map(|i| entry(scattered(2, i), &said)));
    m.blocks = pack(&entries);
    m
}

/// Symmetric neighbours 2 and 3, and the liar.
fn greet(us: &mut Us) {
    [2, 3].into_iter().for_each(|n| us.hear(n, vec![hello(n, 1, 0x64)]));
    us.hear(LIAR, vec![hello(LIAR, 1, LONGEST)]);
}

fn is_symmetric(us: &Us, n: u16) -> bool {
    let symmetric = olsrv2::LinkStatus::Symmetric;
    us.router.neighbors().any(|v| v.address == ip(0xfe80, n.into()) && v.status == symmetric)
}

#[test]
fn invented_neighbours_leave_room_for_real_ones_in_our_hello() {
    let mut us = Us::new(|_| {});
    greet(&mut us);
    for n in 0..400 {
        us.hear(0x5000 + n, vec![invented(0x5000 + n, 32, 0)]);
    }
    for _ in 0..5 {
        us.sent.clear();
        greet(&mut us);
        us.wait(Duration::from_secs(2));
        assert!(is_symmetric(&us, 2) && is_symmetric(&us, 3));
    }
    assert!(us.sent.iter().any(|m| m.kind == 0), "HELLOs go out");
    // A change makes the next one name all neighbours.
    us.hear(LIAR, vec![hello(LIAR, 0, LONGEST)]);
    us.router.handle_input(us.now, Input::LinkLost { interface: 1, address: ip(0xfe80, 3) }).unwrap();
    us.wait(Duration::from_secs(3));
    let full = us.sent.iter().filter(|m| m.kind == 0).map(|m| {
        let mut bytes = Vec::new();
        m.emit(&mut bytes).unwrap();
        bytes.len()
    });
    let longest = full.max().unwrap();
    println!("the longest HELLO has {longest} bytes");
    assert!(longest > 1000, "it names them");
}

#[test]
fn a_newcomer_has_time_to_become_a_neighbour_among_strangers() {
    let mut us = Us::new(|_| {});
    greet(&mut us);
    let stranger = |us: &mut Us, n: u16| {
        let mut m = invented(n, 1, 0);
        m.blocks = pack(&[entry(ip(0xfe80, n.into()), &[Attribute::new(2, &[0])])]);
        us.hear(n, vec![m]);
    };
    for n in 0..500 {
        stranger(&mut us, 0x5000 + n);
    }
    // Places become free as strangers do not answer; whoever gets one keeps it for long enough.
    for _ in 0..5 {
        greet(&mut us);
        us.wait(Duration::from_secs(1));
    }
    let mut m = hello(4, 0, 0x64);
    m.blocks = pack(&[entry(ip(0xfe80, 4), &[Attribute::new(2, &[0])])]);
    us.hear(4, vec![m]);
    for n in 0..5000 {
        stranger(&mut us, 0x6000 + n);
    }
    us.wait(Duration::from_secs(1));
    us.hear(4, vec![hello(4, 0, 0x64)]);
    assert!(is_symmetric(&us, 4));
    for n in 0..5000 {
        stranger(&mut us, 0x8000 + n);
    }
    greet(&mut us);
    assert!([2, 3, 4].into_iter().all(|n| is_symmetric(&us, n)));
}

#[test]
fn thousands_of_two_hop_neighbours_stay_within_bounds() {
    let mut us = Us::new(|config| config.limits.two_hops = 128);
    greet(&mut us);
    us.hear(LIAR, vec![invented(LIAR, 1, 2600)]);
    let of = |us: &Us, n: u16| {
        us.router.neighbors().find(|v| v.address == ip(0xfe80, n.into())).map_or(0, |v| v.two_hops)
    };
    assert_eq!(of(&us, LIAR), us.router.config().limits.two_hops);
    let mut slowest = std::time::Duration::ZERO;
    for n in 0..90 {
        let start = std::time::Instant::now();
        us.hear(0x5000 + n, vec![invented(0x5000 + n, 1, 200)]);
        slowest = slowest.max(start.elapsed());
    }
    let all: usize = us.router.neighbors().map(|v| v.two_hops).sum();
    println!("{all} 2-hop neighbours; the slowest HELLO took {slowest:?}");
    assert!(all <= 96 * us.router.config().limits.two_hops);
    // One that comes late has its part.
    us.hear(4, vec![invented(4, 1, 40)]);
    assert_eq!(of(&us, 4), 40);
}

/// Choosing among so many takes its time; it is done seldom, and never forgotten.
#[test]
fn rfc7181_17_6_mprs_are_chosen_among_thousands_in_the_end() {
    let mut us = Us::new(|_| {});
    greet(&mut us);
    for n in 0..20 {
        us.hear(0x5000 + n, vec![invented(0x5000 + n, 1, 400)]);
    }
    us.wait(Duration::from_secs(2));
    let chosen = |us: &Us, n: u16| {
        let view = us.router.neighbors().find(|v| v.address == ip(0xfe80, n.into()));
        view.is_some_and(|v| v.mpr == (true, true))
    };
    // One change at once, the next after a rest.
    for n in 4..10 {
        us.hear(n, vec![invented(n, 1, 3)]);
    }
    assert!(!(4..10).all(|n| chosen(&us, n)), "not for each of them");
    us.wait(Duration::from_millis(200));
    assert!((4..10).all(|n| chosen(&us, n)));
}

#[test]
fn a_message_made_to_be_slow_is_not_read() {
    let block = |kind: u8| {
        let mut m = if kind == 0 { hello(LIAR, 1, 0x64) } else { tc(9, 9, SHORT, &[]) };
        let all: Vec<Attributed> = (0..250).map(|n| entry(ip(0xfd08, n), &[])).collect();
        m.blocks = pack(&all);
        let flag =
            rfc5444::AddressTlv { kind: 200, ext: 0, start: 0, stop: 249, multivalue: false, value: None };
        m.blocks[0].tlvs = vec![flag; 10_000];
        m
    };
    let mut us = Us::new(|_| {});
    greet(&mut us);
    for kind in [0, 1] {
        let invalid = us.router.counters().messages_invalid;
        us.hear(LIAR, vec![block(kind)]);
        assert_eq!(us.router.counters().messages_invalid, invalid + 1);
    }
}

#[test]
fn rfc7181_6_2_metrics_of_zero_and_of_maximum() {
    let mut us = Us::new(|_| {});
    greet(&mut us);
    // A chain longer than the sum of metrics can count, and than hops can.
    for n in 0..600u32 {
        let mut m = tc(if n == 0 { 2 } else { 0x1000 + n }, 1, SHORT, &[]);
        let said = [Attribute::new(9, &[3]), Attribute::new(7, &[0x1f, 0xff])];
        m.blocks = pack(&[entry(ip(0xfd00, 0x1000 + n + 1), &said)]);
        us.hear(2, vec![m]);
    }
    us.wait(Duration::from_secs(1));
    let cost = |us: &Us, n: u32| {
        us.router.routes().find(|r| r.prefix == NetAddr::host(ip(0xfd00, n))).map(|r| (r.metric, r.hops))
    };
    for n in 1..=255 {
        let (metric, hops) = cost(&us, 0x1000 + n).unwrap();
        let sum = 256 + u64::from(n) * u64::from(Metric::MAX_LINK.value());
        assert_eq!(u64::from(metric.value()), sum.min(u32::MAX.into()));
        assert_eq!(u32::from(hops), (n + 1).min(255));
    }
    // The least one told is 1, and twice zero is not less than once.
    let mut zero = tc(3, 1, SHORT, &[]);
    let said = [Attribute::new(9, &[3]), Attribute::new(7, &[0x10, 0x00])];
    zero.blocks = pack(&[entry(ip(0xfd00, 0x3000), &said)]);
    us.hear(3, vec![zero]);
    us.wait(Duration::from_secs(1));
    assert_eq!(cost(&us, 0x3000), Some((Metric::new(257), 2)));
}

#[test]
fn rfc5497_5_a_validity_of_zero_leaves_nothing_behind() {
    let mut us = Us::new(|_| {});
    us.hear(2, vec![hello(2, 1, 0)]);
    us.wait(Duration::from_millis(1));
    assert!(!is_symmetric(&us, 2));
    greet(&mut us);
    let mut record = tc(0x1000, 7, 0, &[]);
    record.kind = 224;
    record.tlvs = vec![Tlv::new(1, &[0]), Tlv::new(224, &[1, 0, 0, 0, 1, b'x'])];
    us.hear(2, vec![tc(0x1000, 8, 0, &[1, 2, 3]), record]);
    us.wait(Duration::from_millis(1));
    assert_eq!((us.router.topology().count(), us.router.records().count()), (0, 0));
    assert!(!us.has_route(0x1000));
}

#[test]
fn rfc7181_16_3_3_future_numbers_silence_a_router_no_longer_than_its_own_hold_time() {
    let mut us = Us::new(|_| {});
    greet(&mut us);
    let mut mesh = Chain { first: 0x1000, length: 3, seq: 0 };
    us.hear(2, mesh.tcs());
    // Told to us alone: the router itself never hears of it and can't go ahead of it.
    let mut forged = tc(0x1000, 0x7000, LONGEST, &[0x9999]);
    forged.hop_limit = Some(1);
    us.hear(LIAR, vec![forged]);
    us.wait(Duration::from_secs(1));
    assert!(!mesh.all_routed(&us), "it is believed");
    let mut silenced = 0;
    while !mesh.all_routed(&us) {
        greet(&mut us);
        us.hear(2, mesh.tcs());
        us.wait(Duration::from_secs(5));
        silenced += 5;
        assert!(silenced <= 20, "15 s, and an interval");
    }
    // The same with message numbers: the next ones are used up.
    for seq in mesh.seq + 1..mesh.seq + 100 {
        us.hear(LIAR, vec![tc(0x1001, seq, 0, &[])]);
    }
    let mut silenced = 0;
    us.wait(Duration::from_secs(5));
    while !mesh.all_routed(&us) {
        greet(&mut us);
        us.hear(2, mesh.tcs());
        us.wait(Duration::from_secs(5));
        silenced += 5;
        assert!(silenced <= 50, "30 s, what was told last, and an interval");
    }
}

/// A TC that announces networks at a cost of 1.
fn announce(from: u32, seq: u16, networks: &[NetAddr]) -> Message {
    let mut m = tc(from, seq, SHORT, &[]);
    let said = [Attribute::new(10, &[0]), metric(0x1000, 1)];
    let address = |n: &NetAddr| Attributed { address: (*n).into(), attributes: said.to_vec() };
    m.blocks = pack(&networks.iter().map(address).collect::<Vec<_>>());
    m
}

#[test]
fn rfc7181_19_claims_of_others_addresses_as_networks() {
    let mut us = Us::new(|_| {});
    let ours = NetAddr::new(ip(0xfda0, 0), 64);
    let attached = [olsrv2::AttachedNetwork { prefix: ours, dist: 0, metric: Metric::MIN }];
    us.router.handle_input(us.now, Input::AttachedNetworks(&attached)).unwrap();
    greet(&mut us);
    let mut mesh = Chain { first: 0x1000, length: 5, seq: 0 };
    us.hear(2, mesh.tcs());
    let host = |n: u32| NetAddr::host(ip(0xfd00, n));
    let everywhere = NetAddr::new(ip(0, 0), 0);
    let claims =
        [ours, everywhere, host(1), host(2), host(0x1000), host(0x1004), NetAddr::host(ip(0xfe80, 1))];
    us.hear(LIAR, vec![announce(LIAR.into(), 1, &claims)]);
    us.wait(Duration::from_secs(1));
    let next = |us: &Us, to: NetAddr| us.router.routes().find(|r| r.prefix == to).map(|r| r.next_hop);
    for n in [2, 0x1000, 0x1004] {
        assert_eq!(next(&us, host(n)), Some(ip(0xfe80, 2)), "a router is where TCs lead to, {n:x}");
    }
    assert_eq!([next(&us, ours), next(&us, host(1))], [None, None], "what is ours needs no route");
    assert_eq!(next(&us, everywhere), Some(ip(0xfe80, LIAR.into())), "the only gateway there is");
    // A real gateway is not left for one that says it is nearer, but for one that is clearly nearer only.
    assert!(us.router.routes().all(|r| r.prefix.prefix_len() == 0
        || r.next_hop != ip(0xfe80, LIAR.into())
        || r.prefix == host(LIAR.into())));
}

#[test]
fn rfc7181_14_a_neighbour_that_floods_does_not_keep_our_own_messages_or_others_from_going_out() {
    let mut us = Us::new(|_| {});
    greet(&mut us);
    us.wait(Duration::from_secs(1));
    us.sent.clear();
    for second in 0..10u16 {
        for n in 0..300u16 {
            let mut m = tc(0x9000 + u32::from(n), second, SHORT, &[]);
            m.kind = 99;
            m.tlvs = vec![Tlv { kind: 200, ext: 0, value: Some(vec![7; 1000]) }];
            us.hear(LIAR, vec![m]);
        }
        us.hear(2, vec![tc(0x1000, second, SHORT, &[2])]);
        greet(&mut us);
        us.wait(Duration::from_secs(1));
    }
    let real = us.sent.iter().filter(|m| m.kind == 1 && m.originator == Some(ip(0xfd00, 0x1000).into()));
    assert_eq!(real.count(), 10);
    assert!(us.sent.iter().filter(|m| m.kind == 0).count() >= 5);
    assert!(us.router.counters().queue_full > 1000);
}

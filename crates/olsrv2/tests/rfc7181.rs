//! The rules of RFC 7181, one by one: one router under test, its neighbours made by hand.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::{IpAddr, Ipv6Addr};

use mesh_types::{Duration, Instant, Metric};
use olsrv2::{AttachedNetwork, Config, Input, LinkStatus, NEEDS_NO_TC, NetAddr, Output, Router, Timing};
use rfc5444::{Attribute, Attributed, Message, Packet, Tlv, decode_time, pack};

const LOST: u8 = 0;
const SYMMETRIC: u8 = 1;
const HEARD: u8 = 2;
const ALL: u16 = 0xf000; // of LINK_METRIC
const LINK_OUT_ONLY: u16 = 0x4000;

fn ip(group: u16, n: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(group, 0, 0, 0, 0, 0, 0, n))
}

fn node(n: u16) -> IpAddr {
    ip(0xfd00, n)
}

fn on_link(n: u16) -> IpAddr {
    ip(0xfe80, n)
}

fn entry(address: IpAddr, attributes: &[Attribute]) -> Attributed {
    Attributed { address: address.into(), attributes: attributes.to_vec() }
}

fn metric(kinds: u16, metric: Metric) -> Attribute {
    Attribute::new(7, &(kinds | metric.to_compressed()).to_be_bytes())
}

/// A HELLO of a neighbour, to be changed before it is sent.
struct Neighbour {
    n: u16,
    status: u8,
    kinds: u16,
    cost: u32,
    mpr: u8,
    willing: Option<u8>,
    /// Its symmetric neighbours and their costs.
    others: Vec<(u16, u32)>,
}

impl Neighbour {
    fn new(n: u16) -> Self {
        Self { n, status: SYMMETRIC, kinds: ALL, cost: 256, mpr: 0, willing: Some(0x77), others: Vec::new() }
    }

    fn hello(&self) -> Message {
        let mut m = Message::new(0, 16);
        m.originator = Some(node(self.n).into());
        m.tlvs = vec![Tlv::new(1, &[0x64])];
        m.tlvs.extend(self.willing.map(|w| Tlv::new(7, &[w])));
        m.tlvs.push(Tlv { kind: NEEDS_NO_TC, ext: 0, value: None });
        let mut ours = vec![Attribute::new(3, &[self.status]), metric(self.kinds, Metric::new(self.cost))];
        if self.mpr != 0 {
            ours.push(Attribute::new(8, &[self.mpr]));
        }
        let mut entries = vec![entry(on_link(self.n), &[Attribute::new(2, &[0])]), entry(on_link(1), &ours)];
        entries.push(entry(node(self.n), &[Attribute::new(2, &[1])]));
        for (n, cost) in &self.others {
            let said = [Attribute::new(4, &[1]), metric(0x3000, Metric::new(*cost))];
            entries.push(entry(node(*n), &said));
        }
        m.blocks = pack(&entries);
        m
    }
}

fn tc(originator: u16, seq: u16) -> Message {
    let mut m = Message::new(1, 16);
    m.originator = Some(node(originator).into());
    (m.hop_limit, m.hop_count, m.seq) = (Some(255), Some(3), Some(seq));
    m.tlvs = vec![Tlv::new(1, &[0x6f]), Tlv::new(8, &seq.to_be_bytes())];
    m
}

/// We are fd00::1.
struct Us {
    router: Router,
    now: Instant,
    /// What was sent: when, where, what.
    sent: Vec<(Instant, u32, Message)>,
}

impl Us {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::seeded(9, change)
    }

    fn seeded(seed: u64, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(node(1));
        change(&mut config);
        let now = Instant::from_millis(5000);
        let mut us = Self { router: Router::new(config, seed, now), now, sent: Vec::new() };
        us.up(1);
        us
    }

    fn up(&mut self, interface: u32) {
        let address = [NetAddr::host(on_link(if interface == 1 { 1 } else { 0x100 }))];
        self.input(Input::InterfaceUp { interface, addresses: &address });
    }

    fn input(&mut self, input: Input<'_>) {
        self.router.handle_input(self.now, input).unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.router.poll_output() {
            if let Output::Transmit { interface, bytes } = output {
                let messages = Packet::parse(&bytes).unwrap().messages;
                self.sent.extend(messages.into_iter().map(|m| (self.now, interface, m)));
            }
        }
    }

    fn hear_on(&mut self, interface: u32, from: u16, message: &Message) {
        let packet = Packet { seq: None, tlvs: None, messages: vec![message.clone()] };
        let bytes = packet.to_bytes().unwrap();
        self.input(Input::Packet { interface, source: on_link(from), bytes: &bytes });
    }

    fn hear(&mut self, from: u16, message: &Message) {
        self.hear_on(1, from, message);
    }

    /// Makes a symmetric neighbour that has chosen us as MPR as told.
    fn meet(&mut self, n: u16, mpr: u8) {
        self.hear(n, &Neighbour { mpr, ..Neighbour::new(n) }.hello());
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

    fn status(&self, n: u16) -> Option<LinkStatus> {
        self.router.neighbors().find(|v| v.address == on_link(n)).map(|v| v.status)
    }

    fn forwarded(&mut self, originator: u16) -> usize {
        self.wait(Duration::from_secs(1));
        let theirs = |m: &Message| m.kind == 1 && m.originator == Some(node(originator).into());
        self.sent.iter().filter(|(_, _, m)| theirs(m)).count()
    }

    fn own(&self, kind: u8) -> Vec<&(Instant, u32, Message)> {
        self.sent.iter().filter(|(_, _, m)| m.kind == kind && m.originator == Some(node(1).into())).collect()
    }

    fn last_hello(&mut self) -> Message {
        self.wait(Duration::from_secs(2));
        self.own(0).last().unwrap().2.clone()
    }
}

/// The values of a TLV for an address.
fn said(message: &Message, address: IpAddr, kind: u8) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut bytes = Vec::new();
    message.emit(&mut bytes).unwrap();
    let raw = rfc5444::RawMessage::parse(&bytes).unwrap();
    for block in raw.check().unwrap().blocks() {
        for (i, _) in block.addresses().enumerate().filter(|(_, a)| *a == address.into()) {
            let i = u8::try_from(i).unwrap();
            all.extend(
                block.tlvs().filter(|t| t.kind == kind).filter_map(|t| t.value_at(i)).map(<[u8]>::to_vec),
            );
        }
    }
    all
}

#[test]
fn rfc7181_14_3_only_flooding_mprs_forward_and_once() {
    let mut us = Us::new();
    us.meet(2, 1);
    us.meet(3, 2);
    us.hear(2, &tc(50, 1));
    us.hear(2, &tc(50, 1));
    us.hear(3, &tc(50, 1));
    assert_eq!(us.forwarded(50), 1);
    us.hear(3, &tc(51, 1));
    assert_eq!(us.forwarded(51), 0, "a routing MPR does not flood");
    let copy = &us.sent.iter().find(|(_, _, m)| m.originator == Some(node(50).into())).unwrap().2;
    assert_eq!((copy.hop_limit, copy.hop_count), (Some(254), Some(4)));
}

#[test]
fn rfc7181_14_3_the_symmetric_sender_comes_before_the_received_set() {
    let mut us = Us::new();
    us.hear(3, &Neighbour { status: LOST, ..Neighbour::new(3) }.hello());
    us.meet(2, 1);
    assert_eq!(us.status(3), Some(LinkStatus::Heard));
    us.hear(3, &tc(50, 1));
    us.hear(9, &tc(50, 1));
    assert_eq!(us.router.counters().not_symmetric, 2);
    us.hear(2, &tc(50, 1));
    assert_eq!(us.forwarded(50), 1, "copies from strangers leave no trace");
}

#[test]
fn rfc7181_14_3_the_first_copy_over_each_interface_decides() {
    let mut us = Us::new();
    us.up(2);
    us.meet(2, 1);
    us.meet(3, 0);
    us.hear(3, &tc(50, 1));
    us.hear(2, &tc(50, 1));
    assert_eq!(us.forwarded(50), 0, "the first copy came from one that did not choose us");
    // Over another interface it is a first copy again.
    let mut there = Neighbour { mpr: 1, ..Neighbour::new(4) }.hello();
    for a in there.blocks.iter_mut().flat_map(|b| &mut b.addresses) {
        if *a == on_link(1).into() {
            *a = on_link(0x100).into();
        }
    }
    us.hear_on(2, 4, &there);
    us.hear_on(2, 4, &tc(50, 1));
    assert_eq!(us.forwarded(50), 2, "and then goes out on both");
    us.hear(2, &tc(52, 1));
    us.hear_on(2, 4, &tc(52, 1));
    assert_eq!(us.forwarded(52), 2, "once on each");
}

#[test]
fn rfc7181_14_1_hops_used_up_and_own_messages() {
    let mut us = Us::new();
    us.meet(2, 1);
    for (limit, count) in [(Some(1), Some(0)), (Some(0), Some(0)), (None, Some(0)), (Some(9), Some(255))] {
        let mut m = tc(50, 1);
        (m.hop_limit, m.hop_count) = (limit, count);
        us.hear(2, &m);
        assert_eq!(us.forwarded(50), 0, "{limit:?} {count:?}");
    }
    let mut plain = tc(53, 1);
    plain.hop_count = None;
    us.hear(2, &plain);
    assert_eq!(us.forwarded(53), 1, "a hop count is not needed");
    let before = us.router.counters().tcs_in;
    us.hear(2, &tc(1, 9));
    let own_seen = us.sent.iter().any(|(_, _, m)| m.kind == 1 && m.seq == Some(9));
    assert_eq!((us.router.counters().tcs_in, own_seen), (before, false));
}

#[test]
fn rfc7181_14_messages_of_unknown_types_are_flooded_by_the_same_rules() {
    let mut us = Us::new();
    us.meet(2, 1);
    us.meet(3, 0);
    let foreign = Message { kind: 200, ..tc(50, 1) };
    for from in [2, 2, 3, 9] {
        us.hear(from, &foreign);
    }
    us.hear(3, &Message { seq: Some(2), ..foreign.clone() });
    us.hear(2, &Message { seq: None, ..foreign.clone() });
    us.wait(Duration::from_secs(1));
    let copies: Vec<&Message> = us.sent.iter().map(|(_, _, m)| m).filter(|m| m.kind == 200).collect();
    assert_eq!(copies.len(), 1);
    let want = Message { hop_limit: Some(254), hop_count: Some(4), ..foreign };
    assert_eq!(*copies[0], want, "unchanged but for the hops");
    assert_eq!(us.router.counters().tcs_in, 0);
}

#[test]
fn rfc7181_16_3_3_a_tc_in_our_name_that_we_did_not_send_is_overtaken() {
    let mut us = Us::with(|c| c.sequences = Some(olsrv2::Sequences::default()));
    us.input(Input::AttachedNetworks(&[AttachedNetwork {
        prefix: NetAddr::new(ip(0xfdaa, 0), 64),
        dist: 0,
        metric: Metric::new(1),
    }]));
    us.meet(2, 1);
    us.wait(Duration::from_secs(2));
    let before = us.own(1).len();
    us.hear(9, &tc(1, 7000));
    assert_eq!(us.router.counters().own_tcs_ahead, 0, "a stranger");
    us.hear(2, &tc(1, 7000));
    us.hear(2, &tc(1, 7000));
    us.hear(2, &tc(1, 60_000));
    assert_eq!((us.router.counters().own_tcs_ahead, us.router.sequences().ansn), (1, 7001));
    us.wait(Duration::from_secs(2));
    let tcs = us.own(1);
    assert!(tcs.len() > before, "and told at once");
    let ansn = tcs.last().unwrap().2.tlvs.iter().find(|t| t.kind == 8).unwrap().value.clone();
    assert_eq!(ansn, Some(7001u16.to_be_bytes().to_vec()));
}

#[test]
fn rfc5148_forwarding_is_jittered_and_a_packet_stays_together() {
    let mut delays = std::collections::BTreeSet::new();
    for seq in 0..50 {
        let mut us = Us::seeded(seq.into(), |_| {});
        us.meet(2, 1);
        us.wait(Duration::from_millis(300));
        us.sent.clear();
        let start = us.now;
        let packet = Packet { seq: None, tlvs: None, messages: vec![tc(50, seq), tc(51, seq)] };
        let bytes = packet.to_bytes().unwrap();
        us.input(Input::Packet { interface: 1, source: on_link(2), bytes: &bytes });
        us.wait(Duration::from_secs(1));
        let at: Vec<Instant> = us.sent.iter().filter(|(_, _, m)| m.kind == 1).map(|s| s.0).collect();
        assert_eq!(at.len(), 2);
        assert_eq!(at[0], at[1]);
        assert!(at[0].saturating_since(start) <= Duration::from_millis(400));
        delays.insert(at[0].saturating_since(start));
    }
    assert!(delays.len() > 20, "{delays:?}");
}

#[test]
fn rfc7181_17_2_without_a_metric_from_its_end_a_link_is_not_symmetric() {
    let mut us = Us::new();
    us.hear(2, &Neighbour { kinds: LINK_OUT_ONLY, ..Neighbour::new(2) }.hello());
    assert_eq!(us.status(2), Some(LinkStatus::Heard));
    us.meet(2, 0);
    assert_eq!(us.status(2), Some(LinkStatus::Symmetric));
    us.hear(2, &Neighbour { kinds: LINK_OUT_ONLY, ..Neighbour::new(2) }.hello());
    assert_eq!(us.status(2), Some(LinkStatus::Heard));
    assert_eq!(us.router.routes().count(), 0);
}

#[test]
fn rfc7181_15_3_1_hellos_that_are_discarded() {
    type Case = (&'static str, fn(&mut Message));
    let cases: [Case; 6] = [
        ("two MPR_WILLING", |m| m.tlvs.push(Tlv::new(7, &[0]))),
        ("our interface address as its originator", |m| m.originator = Some(on_link(1).into())),
        ("our originator address", |m| m.originator = Some(node(1).into())),
        ("its own address as a neighbour", |m| {
            m.blocks.extend(pack(&[entry(node(2), &[Attribute::new(4, &[1])])]));
        }),
        ("two metrics of one kind", |m| {
            m.blocks.extend(pack(&[entry(on_link(1), &[metric(ALL, Metric::new(999))])]));
        }),
        ("an MPR that is not symmetric", |m| {
            m.blocks.extend(pack(&[entry(node(7), &[Attribute::new(8, &[1])])]));
        }),
    ];
    for (name, change) in cases {
        let mut us = Us::new();
        let mut hello = Neighbour::new(2).hello();
        change(&mut hello);
        us.hear(2, &hello);
        assert_eq!((us.status(2), us.router.counters().messages_invalid), (None, 1), "{name}");
    }
}

#[test]
fn rfc7181_15_3_1_metrics_of_addresses_that_nhdp_passes_over_may_differ() {
    let mut us = Us::new();
    let mut hello = Neighbour::new(2).hello();
    let odd = [metric(ALL, Metric::new(1)), metric(ALL, Metric::new(999))];
    hello.blocks.extend(pack(&[entry(node(77), &odd)]));
    us.hear(2, &hello);
    assert_eq!(us.status(2), Some(LinkStatus::Symmetric));
}

#[test]
fn rfc7181_15_3_2_3_an_mpr_is_named_by_any_of_its_interfaces() {
    let mut us = Us::new();
    us.up(2);
    // It hears both of our interfaces on its one, and says MPR with the other one's address only.
    let mut hello = Neighbour::new(2).hello();
    let there = [Attribute::new(3, &[SYMMETRIC]), metric(ALL, Metric::new(1)), Attribute::new(8, &[3])];
    hello.blocks.extend(pack(&[entry(on_link(0x100), &there)]));
    us.hear(2, &hello);
    let n = us.router.neighbors().next().unwrap();
    assert_eq!((n.mpr_selector, n.metric_out), ((true, true), Metric::new(256)));
    us.meet(2, 0);
    assert_eq!(us.router.neighbors().next().unwrap().mpr_selector, (false, false));
}

#[test]
fn rfc7181_16_3_1_a_tc_from_one_of_our_addresses_is_forwarded_unread() {
    let mut us = Us::new();
    us.meet(2, 1);
    let mut m = tc(50, 1);
    m.originator = Some(on_link(1).into());
    us.hear(2, &m);
    assert_eq!((us.router.counters().tcs_in, us.router.counters().messages_invalid), (0, 1));
}

#[test]
fn rfc7181_16_3_3_what_is_partly_ours_is_no_neighbour_of_others() {
    let mut us = Us::new();
    us.meet(2, 0);
    let wide = |n: u16, len| NetAddr::new(ip(0xfd00, n), len);
    let said =
        |kind: u8, value: u8| [Attribute::new(kind, &[value]), metric(0x1000, Metric::new(5))].to_vec();
    let mut m = tc(2, 1);
    m.blocks = pack(&[
        Attributed { address: wide(0, 64).into(), attributes: said(9, 2) },
        Attributed { address: wide(9, 128).into(), attributes: said(9, 2) },
        Attributed { address: wide(0, 56).into(), attributes: said(10, 0) },
        Attributed { address: wide(1, 128).into(), attributes: said(10, 0) },
    ]);
    us.hear(2, &m);
    us.wait(Duration::from_secs(1)); // route calculations may be put together
    let routes: Vec<NetAddr> = us.router.routes().map(|r| r.prefix).collect();
    assert!(routes.contains(&wide(9, 128)) && !routes.contains(&wide(0, 64)), "{routes:?}");
    assert!(routes.contains(&wide(0, 56)), "a network that only holds our address");
    assert_eq!(us.router.attached_networks().count(), 1, "our own address is no network of others");
}

#[test]
fn rfc7181_7_2_an_address_of_ours_is_no_attached_network() {
    let mut us = Us::new();
    us.meet(2, 2);
    let network = |prefix| AttachedNetwork { prefix, dist: 0, metric: Metric::MIN };
    let networks = [network(NetAddr::host(node(1))), network(NetAddr::new(ip(0xfd77, 0), 64))];
    us.input(Input::AttachedNetworks(&networks));
    us.wait(Duration::from_secs(10));
    let last = &us.own(1).last().unwrap().2;
    assert_eq!(said(last, node(1), 10), Vec::<Vec<u8>>::new());
    let prefixes = last.blocks.iter().flat_map(|b| &b.addresses).filter(|a| !a.is_host()).count();
    assert_eq!(prefixes, 1);
}

#[test]
fn records_over_their_rate_are_forwarded_from_no_copy() {
    let mut us = Us::new();
    us.up(2);
    us.meet(2, 1);
    for seq in 0..200 {
        us.hear(2, &record(50, seq, u32::from(seq), b"x"));
    }
    let once = us.router.counters().forwarded;
    assert!((1..200).contains(&once), "{once}");
    for seq in 0..200 {
        us.hear(2, &record(50, seq, u32::from(seq), b"x"));
    }
    assert_eq!(us.router.counters().forwarded, once);
}

#[test]
fn rfc7188_4_3_2_mpr_is_a_bit_field() {
    let mut us = Us::new();
    us.meet(2, 0xf1);
    us.meet(3, 0x82);
    // A zero says nothing, so it may stand with any address (olsrd2 does that).
    let mut zero = Neighbour { status: HEARD, ..Neighbour::new(4) }.hello();
    zero.blocks.extend(pack(&[entry(on_link(1), &[Attribute::new(8, &[0])])]));
    us.hear(4, &zero);
    let roles: Vec<_> = us.router.neighbors().map(|n| n.mpr_selector).collect();
    assert_eq!(roles, [(true, false), (false, true), (false, false)]);
    assert_eq!(us.status(4), Some(LinkStatus::Symmetric));
}

#[test]
fn rfc7188_4_nbr_addr_type_is_a_bit_field_and_strange_values_do_no_harm() {
    let mut us = Us::new();
    us.meet(2, 0);
    let types: [(u16, &[u8], bool); 6] = [
        (20, &[1], true),
        (21, &[0xfd], true),          // unknown bits beside ORIGINATOR
        (22, &[3, 99], true),         // over-long: cut
        (23, &[], false),             // short: filled up with zeros, which says nothing
        (24, &[0x80], false),         // only unknown bits
        (25, &[2, 0, 0, 0, 0], true), // ROUTABLE
    ];
    let mut m = tc(2, 7);
    let cost = metric(0x1000, Metric::new(256));
    for (n, value, _) in types {
        m.blocks.extend(pack(&[entry(node(n), &[Attribute::new(9, value), cost])]));
    }
    // LINK_METRIC without a kind, cut and filled up as well; an attached network's distance, over-long.
    m.blocks.extend(pack(&[entry(node(26), &[Attribute::new(9, &[3]), Attribute::new(7, &[0x10])])]));
    m.blocks.extend(pack(&[entry(node(27), &[Attribute::new(10, &[1, 77]), cost])]));
    us.hear(2, &m);
    us.wait(Duration::from_millis(100));
    assert_eq!(us.router.counters().messages_invalid, 0);
    for (n, value, there) in types {
        let route = us.router.routes().any(|r| r.prefix == NetAddr::host(node(n)));
        assert_eq!(route, there, "{value:?}");
    }
    assert!(us.router.routes().any(|r| r.prefix == NetAddr::host(node(26))));
    assert_eq!(us.router.routes().find(|r| r.prefix == NetAddr::host(node(27))).unwrap().dist, 2);
}

#[test]
fn rfc7181_5_4_7_scoped_tcs_come_regularly_and_news_go_all_the_way() {
    let mut us = Us::with(|c| c.tc_scopes = vec![255, 4, 4]);
    let network = |n: u16| AttachedNetwork {
        prefix: NetAddr::new(ip(0xfda0 + n, 0), 64),
        dist: 0,
        metric: Metric::new(1),
    };
    us.input(Input::AttachedNetworks(&[network(1)]));
    us.wait(Duration::from_secs(42));
    let limits = |us: &Us| -> Vec<u8> { us.own(1).iter().map(|(_, _, m)| m.hop_limit.unwrap()).collect() };
    assert!(limits(&us).chunks(3).all(|turn| [255, 4, 4].starts_with(turn)), "{:?}", limits(&us));
    assert!(limits(&us).len() >= 8);
    let times =
        |kind: u8| us.own(1)[0].2.tlvs.iter().find(|t| t.kind == kind).unwrap().value.clone().unwrap();
    let seconds = |code: u8| decode_time(code) / 1_000_000;
    assert_eq!((seconds(times(0)[0]), times(0)[1], seconds(times(0)[2])), (5, 4, 15), "INTERVAL_TIME");
    assert_eq!((seconds(times(1)[0]), times(1)[1]), (15, 4), "VALIDITY_TIME");
    assert!((45..=48).contains(&seconds(times(1)[2])));
    us.sent.clear();
    us.input(Input::AttachedNetworks(&[network(1), network(2)]));
    us.wait(Duration::from_secs(16));
    assert!(limits(&us).starts_with(&[255, 4, 4, 255]), "{:?}", limits(&us));
}

#[test]
fn rfc6130_14_a_neighbour_that_does_not_answer_a_probe_has_no_routes() {
    let mut us = Us::with(|c| c.metric = olsrv2::MetricMode::Dat);
    us.meet(2, 0);
    us.hear(3, &Neighbour { others: vec![(2, 256)], ..Neighbour::new(3) }.hello());
    let way = |us: &Us| us.router.routes().find(|r| r.prefix == NetAddr::host(node(2))).map(|r| r.next_hop);
    assert_eq!(way(&us), Some(on_link(2)));
    // These HELLOs tell no interval: their validity, 6 s, stands in for it.
    us.now += Duration::from_millis(5000);
    us.hear(3, &Neighbour { others: vec![(2, 256)], ..Neighbour::new(3) }.hello());
    us.input(Input::ProbeFailed { interface: 1, address: on_link(2) });
    assert_eq!(way(&us), Some(on_link(2)), "a suspicion");
    assert_eq!(us.router.counters().probes, 1);
    us.input(Input::ProbeFailed { interface: 1, address: on_link(2) });
    assert_eq!(us.status(2), Some(LinkStatus::Lost));
    assert_eq!(way(&us), Some(on_link(3)), "round it, at once");
}

#[test]
fn rfc7779_our_hello_tells_the_measured_metric() {
    let mut us = Us::with(|c| c.metric = olsrv2::MetricMode::Dat);
    us.input(Input::InterfaceBitrate { interface: 1, bits_per_second: Some(100_000_000) });
    us.meet(2, 0);
    let told = |us: &mut Us| {
        let values = said(&us.last_hello(), on_link(2), 7);
        let values = values.iter().map(|v| u16::from_be_bytes([v[0], v[1]])).find(|v| v & 0x8000 != 0);
        Metric::from_compressed(values.unwrap() & 0xfff).value()
    };
    assert_eq!(told(&mut us), 21);
    let news = olsrv2::LinkQuality { bitrate_in: Some(1_000_000), signal: Some(-70), ..Default::default() };
    us.input(Input::LinkQuality { interface: 1, address: on_link(2), quality: news });
    us.meet(2, 0);
    assert_eq!(told(&mut us), Metric::from_compressed(Metric::new(2097).to_compressed()).value());
    assert!(us.router.neighbors().all(|n| (n.signal, n.bitrate_in) == (Some(-70), Some(1_000_000))));
}

#[test]
fn rfc7181_15_1_our_hello_tells_metrics_willingness_and_mprs() {
    let mut us = Us::with(|c| (c.will_flooding, c.will_routing) = (3, 12));
    us.hear(2, &Neighbour { others: vec![(20, 256)], cost: 512, ..Neighbour::new(2) }.hello());
    us.hear(3, &Neighbour { status: LOST, ..Neighbour::new(3) }.hello());
    let hello = us.last_hello();
    assert_eq!(hello.originator, Some(node(1).into()));
    assert_eq!((hello.hop_limit, hello.hop_count), (None, None));
    let willing = hello.tlvs.iter().find(|t| t.kind == 7).unwrap();
    assert_eq!(willing.value, Some(vec![0x3c]));
    assert_eq!(said(&hello, on_link(2), 3), [[SYMMETRIC]]);
    assert_eq!(said(&hello, on_link(3), 3), [[HEARD]]);
    assert_eq!(said(&hello, on_link(2), 8), [[3]], "it is our only way to fd00::20");
    let code = |kinds: u16, m: u32| (kinds | Metric::new(m).to_compressed()).to_be_bytes().to_vec();
    let cost = |m: u32| Metric::from_compressed(Metric::new(m).to_compressed()).value();
    assert_eq!(said(&hello, on_link(2), 7), [code(0x8000, 256), code(0x4000, cost(512))]);
    assert_eq!(said(&hello, node(2), 7), [code(0x2000, 256), code(0x1000, cost(512))]);
    assert_eq!(said(&hello, on_link(3), 7), [code(0x8000, 256)], "heard: the incoming metric alone");
    assert_eq!(said(&hello, on_link(1), 2), [[0]]);
    assert_eq!(said(&hello, node(1), 2), [[1]]);
}

#[test]
fn rfc7181_18_willingness_of_never_is_respected() {
    let mut us = Us::new();
    us.hear(2, &Neighbour { others: vec![(20, 256)], willing: Some(0x00), ..Neighbour::new(2) }.hello());
    us.hear(3, &Neighbour { others: vec![(20, 4096)], willing: Some(0x11), ..Neighbour::new(3) }.hello());
    let mprs: Vec<_> = us.router.neighbors().map(|n| n.mpr).collect();
    assert_eq!(mprs, [(false, false), (true, true)]);
    let route = us.router.routes().find(|r| r.prefix == NetAddr::host(node(20))).unwrap();
    assert_eq!(route.next_hop, on_link(3), "no transit through the unwilling one");
}

#[test]
fn rfc7181_16_1_our_tc_tells_selectors_and_networks_with_outgoing_metrics() {
    let mut us = Us::new();
    let network =
        AttachedNetwork { prefix: NetAddr::new(ip(0xfdaa, 0), 64), dist: 2, metric: Metric::new(9) };
    us.input(Input::AttachedNetworks(&[network]));
    us.hear(2, &Neighbour { mpr: 2, cost: 512, ..Neighbour::new(2) }.hello());
    us.meet(3, 1);
    us.wait(Duration::from_secs(6));
    let tcs = us.own(1);
    let tc = &tcs.last().unwrap().2;
    assert_eq!((tc.hop_limit, tc.hop_count), (Some(255), Some(0)));
    let time = |kind: u8| tc.tlvs.iter().find(|t| t.kind == kind).and_then(|t| t.value.clone()).unwrap()[0];
    assert_eq!((decode_time(time(0)), decode_time(time(1))), (5_000_000, 15_000_000));
    let ansn = tc.tlvs.iter().find(|t| t.kind == 8).unwrap();
    assert_eq!((ansn.ext, ansn.value.as_ref().unwrap().len()), (0, 2), "complete");
    assert_eq!(said(tc, node(2), 9), [[3]], "originator and routable");
    let out = 0x1000 | Metric::new(512).to_compressed();
    assert_eq!(said(tc, node(2), 7), [out.to_be_bytes()]);
    assert!(said(tc, node(3), 9).is_empty(), "did not choose us as routing MPR");
    assert!(said(tc, on_link(2), 9).is_empty(), "not routable");
    let block = tc.blocks.iter().find(|b| b.addresses[0].prefix_len() == 64).unwrap();
    assert_eq!(block.tlvs.iter().find(|t| t.kind == 10).unwrap().value, Some(vec![2]));
}

#[test]
fn rfc7181_16_2_tcs_keep_their_intervals_and_empty_ones_follow() {
    let mut us = Us::new();
    us.wait(Duration::from_secs(20));
    assert_eq!(us.own(1).len(), 0, "nothing to tell");
    let start = us.now;
    let network = |n: u16| AttachedNetwork {
        prefix: NetAddr::new(ip(0xfda0 + n, 0), 64),
        dist: 0,
        metric: Metric::new(1),
    };
    for n in 0..40 {
        us.input(Input::AttachedNetworks(&[network(n)]));
        us.wait(Duration::from_millis(100));
    }
    let ansns = |us: &Us| -> Vec<u16> {
        let value = |m: &Message| m.tlvs.iter().find(|t| t.kind == 8).unwrap().value.clone().unwrap();
        us.own(1).iter().map(|(_, _, m)| u16::from_be_bytes(value(m).try_into().unwrap())).collect()
    };
    assert!(us.own(1)[0].0.saturating_since(start) <= Duration::from_millis(100));
    let numbers = ansns(&us);
    assert!(numbers.windows(2).all(|p| p[1].wrapping_sub(p[0]) > 5), "§17.4: one up for each change");
    us.wait(Duration::from_secs(30));
    for pair in us.own(1).windows(2) {
        let gap = pair[1].0.saturating_since(pair[0].0);
        assert!(gap >= Duration::from_millis(1250) && gap <= Duration::from_secs(5), "{gap}");
    }
    us.input(Input::AttachedNetworks(&[]));
    let gone = us.now;
    us.wait(Duration::from_secs(60));
    let empty: Vec<_> = us.own(1).into_iter().filter(|(at, _, _)| *at > gone).collect();
    assert!(empty.iter().all(|(_, _, m)| m.blocks.is_empty()));
    let last = empty.last().unwrap().0.saturating_since(gone);
    assert!(empty.len() >= 3 && last <= Duration::from_secs(15), "A_HOLD_TIME: {} until {last}", empty.len());
}

#[test]
fn rfc7181_16_2_tcs_go_on_after_a_time_without_interfaces() {
    let mut us = Us::new();
    us.input(Input::AttachedNetworks(&[AttachedNetwork {
        prefix: NetAddr::new(ip(0xfdaa, 0), 64),
        dist: 0,
        metric: Metric::new(1),
    }]));
    us.wait(Duration::from_secs(10));
    us.input(Input::InterfaceDown { interface: 1 });
    us.wait(Duration::from_secs(20));
    us.sent.clear();
    let start = us.now;
    us.up(1);
    us.wait(Duration::from_secs(20));
    let tcs = us.own(1);
    assert!(tcs.len() >= 4, "{} in 20 s", tcs.len());
    assert!(tcs[0].0.saturating_since(start) <= Duration::from_millis(100));
}

#[test]
fn rfc7181_21_a_restart_continues_the_numbers() {
    let mut us = Us::new();
    us.input(Input::AttachedNetworks(&[AttachedNetwork {
        prefix: NetAddr::new(ip(0xfdaa, 0), 64),
        dist: 0,
        metric: Metric::new(1),
    }]));
    us.wait(Duration::from_secs(20));
    let saved = us.router.sequences();
    let again = Us::with(|c| c.sequences = Some(saved));
    let ahead = |a: u16, b: u16| a.wrapping_sub(b) < 0x8000;
    assert!(ahead(again.router.sequences().message, saved.message));
    assert!(ahead(again.router.sequences().ansn, saved.ansn));
}

/// A record as others flood it: private TLV 224 holds kind, version and payload.
fn record(originator: u16, seq: u16, version: u32, payload: &[u8]) -> Message {
    let mut m = Message::new(224, 16);
    m.originator = Some(node(originator).into());
    (m.hop_limit, m.hop_count, m.seq) = (Some(255), Some(3), Some(seq));
    let value = [&[1], &version.to_be_bytes()[..], payload].concat();
    m.tlvs = vec![Tlv::new(1, &[0x6f]), Tlv::new(224, &value)];
    m
}

#[test]
fn a_record_judged_forged_gives_its_place_back() {
    let mut us = Us::new();
    us.meet(2, 0);
    let judge = |us: &mut Us, sequence: u32, genuine: bool| {
        us.input(Input::JudgeRecord { originator: node(3), kind: 1, sequence, genuine });
    };
    let versions = |us: &Us| -> Vec<u32> { us.router.records().map(|r| r.sequence).collect() };
    us.hear(2, &record(3, 1, u32::MAX, b"forged"));
    judge(&mut us, u32::MAX, false);
    assert_eq!(versions(&us), [], "nothing was there before");
    us.hear(2, &record(3, 2, 5, b"genuine"));
    judge(&mut us, 5, true);
    // Two in one packet: the first is not present any more when it is judged.
    us.hear(2, &record(3, 3, 1000, b"forged"));
    us.hear(2, &record(3, 4, 1001, b"forged"));
    assert_eq!(versions(&us), [1001]);
    judge(&mut us, 1000, false);
    judge(&mut us, 1001, false);
    assert_eq!(versions(&us), [5]);
    assert_eq!(us.router.records().next().unwrap().payload, b"genuine");
    us.hear(2, &record(3, 5, 6, b"genuine, too"));
    judge(&mut us, 6, true);
    judge(&mut us, 5, false);
    assert_eq!(versions(&us), [6], "that one is gone, whatever is said of it");
    // It expires as if nothing had been.
    us.hear(2, &record(3, 6, 1000, b"forged"));
    judge(&mut us, 1000, false);
    for _ in 0..200 {
        us.wait(Duration::from_secs(1));
    }
    assert_eq!(versions(&us), []);
}

#[test]
fn rfc7181_19_1_metrics_decide_not_hops() {
    let mut us = Us::new();
    us.hear(2, &Neighbour { others: vec![(3, 256)], ..Neighbour::new(2) }.hello());
    us.hear(3, &Neighbour { cost: 100_000, ..Neighbour::new(3) }.hello());
    let mut tc = tc(2, 1);
    let said = [Attribute::new(9, &[3]), metric(0x1000, Metric::new(256))];
    tc.blocks = pack(&[entry(node(3), &said)]);
    us.hear(2, &tc);
    us.wait(Duration::from_millis(100));
    let route = us.router.routes().find(|r| r.prefix == NetAddr::host(node(3))).unwrap();
    assert_eq!((route.next_hop, route.hops), (on_link(2), 2));
    assert_eq!(route.metric, Metric::new(512));
}

#[test]
fn rfc6130_5_3_1_hellos_between_refreshes_name_nobody_but_news_are_told_thrice() {
    let mut us = Us::with(|c| c.timing = Timing { hello_refresh: 4, ..Timing::STEADY });
    let mut hear = |seconds: u64, cost: u32| -> Vec<bool> {
        let from = us.own(0).len();
        for _ in 0..seconds {
            us.hear(2, &Neighbour { cost, ..Neighbour::new(2) }.hello());
            us.wait(Duration::from_secs(1));
        }
        for (_, _, hello) in us.own(0) {
            assert_eq!(
                said(hello, on_link(1), 2),
                [[0]],
                "RFC 6130 §11.1: our own addresses are always told"
            );
            assert!(said(hello, node(1), 2) == [[1]] && hello.tlvs.iter().any(|t| t.kind == 7));
        }
        us.own(0).iter().skip(from).map(|(_, _, m)| !said(m, on_link(2), 3).is_empty()).collect()
    };
    hear(20, 256);
    let quiet = hear(60, 256);
    assert!(quiet.windows(4).all(|w| w.iter().filter(|n| **n).count() == 1), "{quiet:?}");
    assert!((15..18).contains(&quiet.len()), "every 4 s, less jitter: {}", quiet.len());
    let news = hear(12, 512);
    let told = news.iter().skip_while(|n| !**n).take(4);
    assert!(told.eq(&[true, true, true, false]), "{news:?}");
}

#[test]
fn rfc6130_5_3_1_a_neighbour_that_leaves_us_out_has_not_forgotten_us_but_one_that_knows_nobody_has() {
    let mut us = Us::with(|c| c.timing = Timing::STEADY);
    let mut short = Neighbour::new(2).hello();
    let local = |a, which| entry(a, &[Attribute::new(2, &[which])]);
    short.blocks = pack(&[local(on_link(2), 0), local(node(2), 1)]);
    for known in [true, false] {
        us.meet(2, 0);
        us.wait(Duration::from_secs(1));
        if !known {
            short.tlvs.push(Tlv { kind: nhdp::COMPLETE, ext: 0, value: None });
        }
        let before = us.own(0).len() + 1;
        while us.own(0).len() < before {
            us.wait(Duration::from_millis(10));
        }
        us.wait(Duration::from_millis(600));
        us.hear(2, &short);
        us.wait(Duration::from_millis(110));
        assert_eq!(us.own(0).len() > before, !known);
        assert_eq!(us.status(2), Some(LinkStatus::Symmetric));
    }
    assert!(!said(&us.own(0).last().unwrap().2, on_link(2), 3).is_empty());
}

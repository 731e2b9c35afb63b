//! All the forms in which RFC 5444 lets a message say the same, and what else is legal though we would not send it: each
//! leads to the same links and routes. Packets are made octet by octet.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::IpAddr;

use mesh_types::{Duration, Instant, Metric};
use olsrv2::{Config, Input, LinkStatus, NetAddr, Output, Router};

/// We are 10.0.0.1; 10.0.0.2 is our neighbour, and knows 10.0.0.3.
const US: [u8; 4] = [10, 0, 0, 1];
const PEER: [u8; 4] = [10, 0, 0, 2];
const FAR: [u8; 4] = [10, 0, 0, 3];
const LOCAL_IF: u8 = 2;
const LINK_STATUS: u8 = 3;
const OTHER_NEIGHB: u8 = 4;
const LINK_METRIC: u8 = 7;
const MPR: u8 = 8;
const VALIDITY: &[u8] = &[1, 0x10, 1, 0x64];
const WILLING: &[u8] = &[7, 0x10, 1, 0x77];

struct Us {
    router: Router,
    now: Instant,
    sent: Vec<u8>,
}

impl Us {
    fn new() -> Self {
        let now = Instant::from_millis(1000);
        let router = Router::new(Config::new(US.into()), 3, now);
        let mut us = Self { router, now, sent: Vec::new() };
        us.router.handle_input(now, Input::InterfaceUp { interface: 1, addresses: &[] }).unwrap();
        us
    }

    fn hear(&mut self, packet: &[u8]) -> bool {
        let input = Input::Packet { interface: 1, source: PEER.into(), bytes: packet };
        let taken = self.router.handle_input(self.now, input).is_ok();
        self.wait(Duration::from_millis(200));
        taken
    }

    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            while let Some(output) = self.router.poll_output() {
                if let Output::Transmit { bytes, .. } = output {
                    self.sent.extend(bytes);
                }
            }
            let Some(at) = self.router.poll_timeout().filter(|t| *t <= end) else { break };
            self.now = self.now.max(at);
            self.router.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// Both directions and the way beyond, as the HELLOs here tell of them.
    fn assert_linked(&self, what: &str) {
        let n =
            self.router.neighbors().next().unwrap_or_else(|| panic!("{what}: {:?}", self.router.counters()));
        assert_eq!((n.status, n.address), (LinkStatus::Symmetric, IpAddr::from(PEER)), "{what}");
        assert_eq!((n.metric_out, n.mpr_selector), (Metric::new(512), (true, true)), "{what}");
        assert_eq!((n.originator, n.willingness), (Some(PEER.into()), (7, 7)), "{what}");
        assert_eq!((self.cost(PEER), self.cost(FAR)), (Some(512), Some(768)), "{what}");
    }

    fn cost(&self, to: [u8; 4]) -> Option<u32> {
        self.prefix_cost(NetAddr::host(to.into()))
    }

    fn prefix_cost(&self, prefix: NetAddr) -> Option<u32> {
        self.router.routes().find(|r| r.prefix == prefix).map(|r| r.metric.value())
    }
}

/// A TLV with its flags; the index, if any, and the length are in `rest`.
fn tlv(kind: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind, flags], rest].concat()
}

/// For all addresses of its block.
fn plain(kind: u8, value: &[u8]) -> Vec<u8> {
    tlv(kind, 0x10, &[&[value.len() as u8], value].concat())
}

/// For the address with that index.
fn at(index: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    tlv(kind, 0x50, &[&[index, value.len() as u8], value].concat())
}

fn block(addresses: &[u8], tlvs: &[Vec<u8>]) -> Vec<u8> {
    let tlvs = tlvs.concat();
    [addresses, &(tlvs.len() as u16).to_be_bytes(), &tlvs].concat()
}

/// A message with that header after its size.
fn message(kind: u8, flags: u8, header: &[u8], tlvs: &[&[u8]], blocks: &[Vec<u8>]) -> Vec<u8> {
    let tlvs = tlvs.concat();
    let body = [header, &(tlvs.len() as u16).to_be_bytes(), &tlvs, &blocks.concat()].concat();
    [&[kind, flags | 3], &(body.len() as u16 + 4).to_be_bytes()[..], &body].concat()
}

fn packet(messages: &[Vec<u8>]) -> Vec<u8> {
    [&[0][..], &messages.concat()].concat()
}

fn hello(blocks: &[Vec<u8>]) -> Vec<u8> {
    packet(&[message(0, 0x80, &PEER, &[VALIDITY, WILLING], blocks)])
}

fn metric(kinds: u16, cost: u32) -> [u8; 2] {
    (kinds | Metric::new(cost).to_compressed()).to_be_bytes()
}

/// Its own address, ours and that of its other neighbour, in one block without head and tail.
fn three() -> Vec<u8> {
    [&[3, 0][..], &PEER, &US, &FAR].concat()
}

/// What is said of them, in the simplest form.
fn simple() -> Vec<Vec<u8>> {
    vec![
        at(0, LOCAL_IF, &[0]),
        at(1, LINK_STATUS, &[1]),
        at(1, LINK_METRIC, &metric(0xf000, 512)),
        at(1, MPR, &[3]),
        at(2, OTHER_NEIGHB, &[1]),
        at(2, LINK_METRIC, &metric(0x3000, 256)),
    ]
}

#[test]
fn rfc5444_5_3_addresses_in_all_their_forms() {
    let forms: [(&str, Vec<u8>); 8] = [
        ("whole", three()),
        ("a head", [&[3, 0x80, 3, 10, 0, 0][..], &[2, 1, 3]].concat()),
        ("a head of no octets", [&[3, 0x80, 0][..], &PEER, &US, &FAR].concat()),
        ("a tail of no octets", [&[3, 0x40, 0][..], &PEER, &US, &FAR].concat()),
        ("a zero tail of no octets", [&[3, 0xa0, 2, 10, 0, 0][..], &[0, 2, 0, 1, 0, 3]].concat()),
        ("one prefix length", [&three()[..], &[32]].concat()),
        ("three prefix lengths", [&three()[..], &[32, 32, 32]].concat()),
        ("reserved flags", [&[3, 0x87, 3, 10, 0, 0][..], &[2, 1, 3]].concat()),
    ];
    for (name, mut addresses) in forms {
        addresses[1] |= match name {
            "one prefix length" => 0x10,
            "three prefix lengths" => 8,
            _ => 0,
        };
        let mut us = Us::new();
        assert!(us.hear(&hello(&[block(&addresses, &simple())])), "{name}");
        us.assert_linked(name);
    }
    // A full tail needs addresses with one.
    let mut us = Us::new();
    let (mids, tails) = ([10, 0, 0, 10, 0, 0], [1, 2]);
    let blocks = [
        block(&[&[1, 0xc0, 1, 10, 2, 0, tails[1], 0][..]].concat(), &[plain(LOCAL_IF, &[0])]),
        block(&[&[2, 0x40, 1, 1][..], &mids].concat(), &simple()[1..1]),
        block(
            &[&[1, 0x40, 2, 0, 1][..], &[10, 0]].concat(),
            &[plain(LINK_STATUS, &[1]), plain(LINK_METRIC, &metric(0xf000, 512)), plain(MPR, &[3])],
        ),
        block(
            &[&[1, 0][..], &FAR].concat(),
            &[plain(OTHER_NEIGHB, &[1]), plain(LINK_METRIC, &metric(0x3000, 256))],
        ),
    ];
    assert!(us.hear(&hello(&blocks)));
    us.assert_linked("tails");
}

#[test]
fn rfc5444_5_4_1_tlvs_in_all_their_forms() {
    let simple = simple();
    let wide = |kind: u8, index: u8, value: &[u8]| {
        tlv(kind, 0x58, &[&[index, 0, value.len() as u8], value].concat())
    };
    let in_out = [metric(0xf000, 512), metric(0x3000, 256)].concat();
    let forms: [(&str, Vec<Vec<u8>>); 9] = [
        ("as they come", simple.clone()),
        ("the other way round", simple.iter().rev().cloned().collect()),
        (
            "a range of one",
            vec![
                tlv(LOCAL_IF, 0x30, &[0, 0, 1, 0]),
                tlv(LINK_STATUS, 0x30, &[1, 1, 1, 1]),
                tlv(MPR, 0x30, &[1, 1, 1, 3]),
                tlv(OTHER_NEIGHB, 0x30, &[2, 2, 1, 1]),
                tlv(LINK_METRIC, 0x34, &[&[1, 2, 4][..], &in_out].concat()),
            ],
        ),
        (
            "one multivalue, RFC 7188's UNSPECIFIED where nothing is to be said",
            vec![
                tlv(LOCAL_IF, 0x34, &[0, 2, 3, 0, 255, 255]),
                tlv(LINK_STATUS, 0x34, &[0, 2, 3, 255, 1, 255]),
                tlv(OTHER_NEIGHB, 0x34, &[0, 2, 3, 255, 255, 1]),
                tlv(MPR, 0x34, &[0, 2, 3, 0, 3, 0]),
                tlv(LINK_METRIC, 0x34, &[&[0, 2, 6, 0x0f, 0xff][..], &in_out].concat()),
            ],
        ),
        (
            "lengths of two octets",
            vec![
                wide(LOCAL_IF, 0, &[0]),
                wide(LINK_STATUS, 1, &[1]),
                wide(MPR, 1, &[3]),
                wide(OTHER_NEIGHB, 2, &[1]),
                wide(LINK_METRIC, 1, &in_out[..2]),
                wide(LINK_METRIC, 2, &in_out[2..]),
            ],
        ),
        (
            "type extension 0 in full",
            vec![
                tlv(LOCAL_IF, 0xd0, &[0, 0, 1, 0]),
                tlv(LINK_STATUS, 0xd0, &[0, 1, 1, 1]),
                tlv(MPR, 0xd0, &[0, 1, 1, 3]),
                tlv(OTHER_NEIGHB, 0xd0, &[0, 2, 1, 1]),
                tlv(LINK_METRIC, 0xb4, &[&[0, 1, 2, 4][..], &in_out].concat()),
            ],
        ),
        (
            "longer values, RFC 7188 4.2",
            vec![
                at(0, LOCAL_IF, &[0, 9]),
                at(1, LINK_STATUS, &[1, 0, 7]),
                at(1, MPR, &[3, 255]),
                at(2, OTHER_NEIGHB, &[1, 1]),
                at(1, LINK_METRIC, &[&in_out[..2], &[1, 2, 3]].concat()),
                at(2, LINK_METRIC, &[&in_out[2..], &[0; 200]].concat()),
            ],
        ),
        (
            "one kind of metric and one MPR bit after the other, twice",
            vec![
                simple[0].clone(),
                simple[1].clone(),
                simple[1].clone(),
                at(1, LINK_METRIC, &metric(0x8000, 512)),
                at(1, LINK_METRIC, &metric(0x4000, 512)),
                at(1, LINK_METRIC, &metric(0x8000, 512)),
                at(1, LINK_METRIC, &metric(0x3000, 512)),
                at(1, MPR, &[1]),
                at(1, MPR, &[2]),
                at(2, OTHER_NEIGHB, &[1]),
                at(2, LINK_METRIC, &metric(0x1000, 256)),
                at(2, LINK_METRIC, &metric(0x2000, 256)),
            ],
        ),
        (
            "beside TLVs that nobody knows, with and without values",
            [
                vec![tlv(99, 0, &[]), tlv(100, 0x80, &[7]), tlv(7, 0xd0, &[5, 1, 2, 0xff, 0xff])],
                simple.clone(),
                vec![tlv(8, 0x90, &[1, 1, 3]), tlv(255, 0x38, &[0, 1, 1, 0]), vec![0; 256]],
            ]
            .concat(),
        ),
    ];
    for (name, tlvs) in forms {
        let mut us = Us::new();
        assert!(us.hear(&hello(&[block(&three(), &tlvs)])), "{name}");
        us.assert_linked(name);
    }
}

/// RFC 5444 §5.3 lets an address come again; RFC 6130 and RFC 7181 speak of "different address objects".
#[test]
fn rfc7181_15_3_what_is_said_of_one_address_may_stand_in_several_blocks() {
    let simple = simple();
    let one = |address: &[u8; 4], tlvs: &[&[u8]]| {
        let addresses = [&[1, 0][..], address].concat();
        block(&addresses, &tlvs.iter().map(|t| t.to_vec()).collect::<Vec<_>>())
    };
    let said = |kind, value: &[u8]| plain(kind, value);
    let blocks = [
        one(&US, &[&said(LINK_METRIC, &metric(0xf000, 512))]),
        one(&FAR, &[&said(LINK_METRIC, &metric(0x3000, 256))]),
        one(&US, &[]),
        one(&US, &[&said(MPR, &[2])]),
        one(&PEER, &[&said(LOCAL_IF, &[0])]),
        one(&FAR, &[&said(OTHER_NEIGHB, &[1])]),
        one(&US, &[&said(LINK_STATUS, &[1]), &said(MPR, &[1])]),
    ];
    let mut us = Us::new();
    assert!(us.hear(&hello(&blocks)));
    us.assert_linked("scattered");
    // And in one block twice.
    let twice = [&[5, 0][..], &PEER, &US, &FAR, &US, &FAR].concat();
    let tlvs = [
        vec![simple[0].clone(), simple[1].clone(), simple[4].clone()],
        vec![
            at(3, LINK_METRIC, &metric(0xf000, 512)),
            at(3, MPR, &[3]),
            at(4, LINK_METRIC, &metric(0x3000, 256)),
        ],
    ];
    let mut us = Us::new();
    assert!(us.hear(&hello(&[block(&twice, &tlvs.concat())])));
    us.assert_linked("twice");
}

#[test]
fn rfc6130_12_1_headers_and_message_tlvs_that_a_hello_may_have() {
    let blocks = [block(&three(), &simple())];
    let interval = [0, 0x10, 1, 0x58];
    // 2 s up to one hop, else one hour; without a hop count that is 255 (RFC 5497 §4).
    let pairs = [1, 0x10, 3, 0x58, 1, 0xaf];
    let long = [1, 0x18, 0, 1, 0x64];
    type Form<'a> = (&'a str, u8, Vec<u8>, Vec<&'a [u8]>);
    let forms: [Form<'_>; 9] = [
        ("originator", 0x80, PEER.to_vec(), vec![VALIDITY, WILLING]),
        ("no originator address, one address", 0, vec![], vec![VALIDITY, WILLING]),
        ("hop limit", 0xc0, [&PEER[..], &[1]].concat(), vec![VALIDITY, WILLING]),
        ("all header fields", 0xf0, [&PEER[..], &[1, 0, 0x12, 0x34]].concat(), vec![VALIDITY, WILLING]),
        ("interval, other order", 0x80, PEER.to_vec(), vec![WILLING, &interval, VALIDITY]),
        ("times by hops", 0xe0, [&PEER[..], &[1, 0]].concat(), vec![&pairs, WILLING]),
        ("times by hops, no hop count", 0x80, PEER.to_vec(), vec![&pairs, WILLING]),
        ("length of two octets", 0x80, PEER.to_vec(), vec![&long, WILLING]),
        (
            "TLVs of others",
            0x80,
            PEER.to_vec(),
            vec![&[7, 0x90, 1, 2, 0, 1], VALIDITY, &[7, 0x80, 2], &[7, 0x10, 2, 0x77, 0x33], &[200, 0]],
        ),
    ];
    for (name, flags, header, tlvs) in forms {
        let mut us = Us::new();
        assert!(us.hear(&packet(&[message(0, flags, &header, &tlvs, &blocks)])), "{name}");
        us.assert_linked(name);
        us.wait(Duration::from_secs(5));
        let linked = us.router.neighbors().any(|n| n.status == LinkStatus::Symmetric);
        assert_eq!(linked, name != "times by hops", "{name}");
    }
}

#[test]
fn rfc5444_5_1_packets_in_all_their_forms() {
    let message = message(0, 0x80, &PEER, &[VALIDITY, WILLING], &[block(&three(), &simple())]);
    let strange = [200, 3, 0, 6, 0, 0];
    let forms: [(&str, Vec<u8>); 8] = [
        ("no number", packet(std::slice::from_ref(&message))),
        ("a number", [&[8, 0xff, 0xff][..], &message].concat()),
        ("an empty TLV block", [&[4, 0, 0][..], &message].concat()),
        ("TLVs and a number", [&[12, 0, 7, 0, 9, 5, 0x90, 1, 1, 9, 77, 0, 78, 0][..], &message].concat()),
        ("reserved bits", [&[11, 0, 1][..], &message].concat()),
        ("behind a message nobody knows", [&[0][..], &strange, &message].concat()),
        ("twice", [&[0][..], &message, &message].concat()),
        (
            "before one of the other family",
            [&[0][..], &message, &[0, 15, 0, 10, 0, 4, 1, 0x10, 1, 9]].concat(),
        ),
    ];
    for (name, bytes) in forms {
        let mut us = Us::new();
        assert!(us.hear(&bytes), "{name}");
        us.assert_linked(name);
        assert_eq!(us.router.counters().messages_invalid, 0, "{name}");
    }
    let mut us = Us::new();
    assert!(!us.hear(&[&[0x10][..], &message].concat()), "another version");
    assert!(us.hear(&[0]) && us.hear(&[8, 0, 1]), "no message at all");
}

/// A TC of 10.0.0.3 with a hop limit and count, that ANSN and number, and VALIDITY_TIME.
fn tc((limit, count): (u8, u8), number: u16, validity: &[u8], ansn: &[u8], blocks: &[Vec<u8>]) -> Vec<u8> {
    let header = [&FAR[..], &[limit, count], &number.to_be_bytes()].concat();
    packet(&[message(1, 0xf0, &header, &[validity, ansn], blocks)])
}

/// Its neighbour 10.0.0.`n`.
fn neighbor(n: u8) -> Vec<u8> {
    block(&[1, 0, 10, 0, 0, n], &[plain(9, &[3]), plain(LINK_METRIC, &metric(0x1000, 256))])
}

/// Linked, and 10.0.0.2 has told that 10.0.0.3 is its neighbour.
fn linked() -> Us {
    let mut us = Us::new();
    assert!(us.hear(&hello(&[block(&three(), &simple())])));
    let header = [&PEER[..], &[255, 0, 0, 1]].concat();
    let tlvs: [&[u8]; 2] = [&[1, 0x10, 1, 0xaf], &[8, 0x10, 2, 0, 1]];
    us.hear(&packet(&[message(1, 0xf0, &header, &tlvs, &[neighbor(3)])]));
    us
}

#[test]
fn rfc7181_21_numbers_of_tcs_wrap_around() {
    let mut us = linked();
    let steps: [(u16, u16, u8); 4] =
        [(0xffff, 0xffff, 20), (0, 0, 21), (1, 0x7fff, 22), (0x8000, 0x7ffe, 23)];
    for (number, ansn, n) in steps {
        let told = [&[8, 0x90, 0, 2][..], &ansn.to_be_bytes()].concat();
        us.hear(&tc((255, 1), number, VALIDITY, &told, &[neighbor(n)]));
        assert_eq!(us.cost([10, 0, 0, n]).is_some(), n != 23, "{n}: the last is older than what we have");
    }
}

#[test]
fn rfc5497_6_validity_times_of_tcs_depend_on_hops() {
    // Up to 2 hops 1 s, up to 5 hops 6 s, else an hour. Hop counts in messages are one less (§4).
    let validity = [1, 0x10, 5, 0x50, 2, 0x64, 5, 0xaf];
    for (count, lasts) in [(1, [false, false]), (2, [true, false]), (4, [true, false]), (5, [true, true])] {
        let mut us = linked();
        us.hear(&tc((200, count), 9, &validity, &[8, 0x10, 2, 0, 1], &[neighbor(20)]));
        assert!(us.cost([10, 0, 0, 20]).is_some());
        let there = [2, 5].map(|seconds| {
            us.wait(Duration::from_secs(seconds));
            us.hear(&hello(&[block(&three(), &simple())]));
            us.cost([10, 0, 0, 20]).is_some()
        });
        assert_eq!(there, lasts, "{count}");
    }
}

#[test]
fn rfc7181_14_and_16_3_hop_limits_and_addresses_of_tcs() {
    let ansn = [8, 0x10, 2, 0, 1];
    // 255, 2 and 1 hops left; none told; no hop count.
    let forms: [(u8, Vec<u8>, bool); 5] = [
        (0xf0, vec![255, 0, 0, 9], true),
        (0xf0, vec![2, 254, 0, 9], true),
        (0xf0, vec![1, 3, 0, 9], false),
        (0x90, vec![0, 9], false),
        (0xd0, vec![200, 0, 9], true),
    ];
    for (flags, rest, goes_on) in forms {
        let mut us = linked();
        let header = [&FAR[..], &rest].concat();
        let m = message(1, flags, &header, &[VALIDITY, &ansn], &[neighbor(20)]);
        assert!(us.hear(&packet(&[m])));
        assert!(us.cost([10, 0, 0, 20]).is_some(), "{flags:x} {rest:?}");
        us.wait(Duration::from_secs(1));
        assert_eq!(us.router.counters().forwarded, 1 + u64::from(goes_on), "{flags:x} {rest:?}");
    }
    // Networks of all lengths, with and without bits behind the prefix; one without a metric can't be used.
    let mut us = linked();
    let gateway = |addresses: &[u8], tlvs: &[Vec<u8>]| block(addresses, &[&[plain(10, &[1])], tlvs].concat());
    let cost = [plain(LINK_METRIC, &metric(0x1000, 256))];
    let blocks = [
        gateway(&[1, 0x30, 4, 0], &cost),
        gateway(&[2, 0x88, 2, 172, 16, 1, 1, 5, 0, 16, 20], &cost),
        gateway(&[1, 0, 192, 0, 2, 7], &cost),
        gateway(&[1, 0x10, 198, 51, 100, 0, 24], &[]),
        block(&[1, 0, 203, 0, 113, 9], &cost),
    ];
    us.hear(&tc((255, 0), 9, VALIDITY, &ansn, &blocks));
    let net = |octets: [u8; 4], len| us.prefix_cost(NetAddr::new(octets.into(), len));
    assert_eq!(net([0; 4], 0), Some(1024));
    assert_eq!((net([172, 16, 0, 0], 16), net([172, 16, 0, 0], 20)), (Some(1024), Some(1024)));
    assert_eq!(net([192, 0, 2, 7], 32), Some(1024));
    assert_eq!((net([198, 51, 100, 0], 24), net([203, 0, 113, 9], 32)), (None, None));
}

/// Without keys signatures are others' affair: read over, and forwarded as they are.
#[test]
fn rfc7182_icvs_and_timestamps_are_passed_over_where_there_are_no_keys() {
    let signed = [&[5, 0x90, 1, 6, 3, 3, 0, 1, 2, 3][..], &[6, 0x90, 1, 4, 0, 0, 0, 9]].concat();
    let mut us = Us::new();
    let m = message(0, 0x80, &PEER, &[VALIDITY, &signed, WILLING], &[block(&three(), &simple())]);
    assert!(us.hear(&[&[4, 0, 6, 6, 0x10, 3, 0, 0, 1][..], &m].concat()));
    us.assert_linked("signed");
    let header = [&FAR[..], &[255, 0, 0, 9]].concat();
    let icv = vec![5, 0x90, 0, 1, 7];
    let far = block(&[1, 0, 10, 0, 0, 20], &[plain(9, &[3]), icv, plain(LINK_METRIC, &metric(0x1000, 256))]);
    let mut us = linked();
    let m = message(1, 0xf0, &header, &[&signed, VALIDITY, &[8, 0x10, 2, 0, 1]], &[far]);
    us.hear(&packet(std::slice::from_ref(&m)));
    assert!(us.cost([10, 0, 0, 20]).is_some());
    us.wait(Duration::from_secs(1));
    let mut copy = m;
    (copy[8], copy[9]) = (254, 1);
    assert!(us.sent.windows(copy.len()).any(|w| w == copy));
}

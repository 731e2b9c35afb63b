//! Beside olsrd2 (OONF): what it writes is understood, and what it reads of ours is what we mean. Its packets are made
//! here from what is known of its writer, and ours are read by the rules of its reader, where these are more than RFC
//! 5444's, 6130's and 7181's. docs/INTEROP.md has the list.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use mesh_types::{Duration, Instant, Metric};
use olsrv2::{
    AttachedNetwork, Config, Input, LinkStatus, MetricMode, NetAddr, Note, Output, RouteChange, Router,
    Timing,
};
use rfc5444::{Attribute, Attributed, Message, Packet, Tlv, pack};

const LOST: u8 = 0;
const SYMMETRIC: u8 = 1;
const HEARD: u8 = 2;
/// Our number.
const US: u8 = 100;
/// LINK_METRIC with all four kinds, and with the neighbour's two.
const ALL: u16 = 0xf000;
const NEIGHBOR: u16 = 0x3000;

/// The same world twice.
#[derive(Clone, Copy)]
struct World {
    v4: bool,
}

const BOTH: [World; 2] = [World { v4: false }, World { v4: true }];

impl World {
    fn originator(self, n: u8) -> IpAddr {
        match self.v4 {
            true => IpAddr::from([10, 0, 0, n]),
            false => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into())),
        }
    }

    /// What packets come from.
    fn source(self, n: u8) -> IpAddr {
        match self.v4 {
            true => self.originator(n),
            false => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, n.into())),
        }
    }

    /// An interface's addresses, in their order: olsrd2 has all of them in its HELLOs.
    fn on_interface(self, n: u8) -> Vec<IpAddr> {
        let mut all = vec![self.originator(n), self.source(n)];
        all.dedup();
        all
    }

    /// A network behind a node.
    fn network(self, n: u8) -> NetAddr {
        match self.v4 {
            true => NetAddr::new(IpAddr::from([192, 168, n, 0]), 24),
            false => NetAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd99, n.into(), 0, 0, 0, 0, 0, 0)), 64),
        }
    }

    fn everywhere(self) -> NetAddr {
        match self.v4 {
            true => NetAddr::new(IpAddr::from([0; 4]), 0),
            false => NetAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        }
    }

    fn addr_len(self) -> u8 {
        if self.v4 { 4 } else { 16 }
    }
}

/// An address of a neighbour, as olsrd2 writes it: OTHER_NEIGHB is always there, MPR wherever there is a link.
fn named(address: IpAddr, link: Option<u8>, mpr: u8, metrics: &[u16]) -> Attributed {
    let other = u8::from(link.is_none() && !metrics.is_empty());
    let mut attributes: Vec<Attribute> = link.iter().map(|l| Attribute::new(3, &[*l])).collect();
    attributes.push(Attribute::new(4, &[other]));
    attributes.extend(metrics.iter().map(|m| Attribute::new(7, &m.to_be_bytes())));
    attributes.extend(link.map(|_| Attribute::new(8, &[mpr])));
    Attributed { address: address.into(), attributes }
}

/// A HELLO of olsrd2 with number `n`; its interface has all its addresses.
fn hello(world: World, n: u8, neighbors: &[Attributed]) -> Message {
    let mut m = Message::new(0, world.addr_len());
    m.originator = Some(world.originator(n).into());
    m.tlvs = vec![Tlv::new(0, &[0x58]), Tlv::new(1, &[0x72]), Tlv::new(7, &[0x77])];
    if !world.v4 {
        m.tlvs.push(Tlv::new(226, &[10, 0, 0, n])); // its IPv4 originator
    }
    m.tlvs.push(Tlv::new(227, &[2, 0, 0, 0, 3, n])); // its hardware address
    let own = |a: IpAddr| Attributed { address: a.into(), attributes: vec![Attribute::new(2, &[0])] };
    let mut entries: Vec<Attributed> = world.on_interface(n).into_iter().map(own).collect();
    entries.extend_from_slice(neighbors);
    m.blocks = pack(&entries);
    m
}

/// What it says of us, on its link to us.
fn about_us(world: World, link: u8, mpr: u8, metrics: &[u16]) -> Attributed {
    named(world.source(US), Some(link), mpr, metrics)
}

/// Our originator address where that is another, and its other neighbours.
fn others(world: World, all: &[u8]) -> Vec<Attributed> {
    let metric = [NEIGHBOR | Metric::new(512).to_compressed()];
    let us = (!world.v4).then(|| named(world.originator(US), None, 0, &metric));
    us.into_iter().chain(all.iter().map(|n| named(world.originator(*n), None, 0, &metric))).collect()
}

/// A TC of olsrd2: `neighbors` by their originators, then networks with distance and outgoing metric.
fn tc(world: World, n: u8, seq: u16, neighbors: &[u8], networks: &[(NetAddr, u8, u32)]) -> Message {
    let mut m = Message::new(1, world.addr_len());
    m.originator = Some(world.originator(n).into());
    (m.hop_limit, m.hop_count, m.seq) = (Some(255), Some(0), Some(seq));
    m.tlvs = vec![Tlv::new(1, &[0x92]), Tlv::new(0, &[0x62])];
    m.tlvs.push(Tlv { kind: 7, ext: 2, value: None }); // it can do source-specific routing
    m.tlvs.push(Tlv { kind: 8, ext: 0, value: Some(seq.to_be_bytes().to_vec()) });
    // Both directions, as long as they differ in two TLVs.
    let incoming = Attribute::new(7, &(0x2000 | Metric::new(300).to_compressed()).to_be_bytes());
    let outgoing = |cost| Attribute::new(7, &(0x1000 | Metric::new(cost).to_compressed()).to_be_bytes());
    let neighbor = |n: &u8| Attributed {
        address: world.originator(*n).into(),
        attributes: vec![Attribute::new(9, &[3]), incoming, outgoing(512)],
    };
    let network = |(prefix, dist, cost): &(NetAddr, u8, u32)| Attributed {
        address: (*prefix).into(),
        attributes: vec![outgoing(*cost), Attribute::new(10, &[*dist])],
    };
    m.blocks = pack(&neighbors.iter().map(neighbor).chain(networks.iter().map(network)).collect::<Vec<_>>());
    m
}

struct Us {
    world: World,
    router: Router,
    now: Instant,
    sent: Vec<Message>,
    fib: BTreeSet<NetAddr>,
    packet: u16,
}

impl Us {
    fn new(world: World) -> Self {
        Self::with(world, |_| {})
    }

    fn with(world: World, change: impl FnOnce(&mut Config)) -> Self {
        let now = Instant::from_millis(1000);
        let mut config = Config { timing: Timing::STEADY, ..Config::new(world.originator(US)) };
        change(&mut config);
        let router = Router::new(config, 5, now);
        let mut us = Self { world, router, now, sent: Vec::new(), fib: BTreeSet::new(), packet: 0 };
        let address = [NetAddr::host(world.source(US))];
        let addresses = if world.v4 { &[][..] } else { &address };
        us.input(Input::InterfaceUp { interface: 1, addresses });
        us
    }

    fn input(&mut self, input: Input<'_>) {
        self.router.handle_input(self.now, input).unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.router.poll_output() {
            match output {
                Output::Transmit { bytes, .. } => {
                    assert_olsrd2_parses(&bytes);
                    self.sent.extend(Packet::parse(&bytes).unwrap().messages);
                }
                Output::Route(RouteChange { prefix, new: Some(_), .. }) => drop(self.fib.insert(prefix)),
                Output::Route(RouteChange { prefix, .. }) => drop(self.fib.remove(&prefix)),
                _ => {}
            }
        }
    }

    fn wait(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while let Some(at) = self.router.poll_timeout().filter(|t| *t <= end) {
            self.now = self.now.max(at);
            self.router.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn hear_packet(&mut self, from: u8, packet: &Packet) {
        let source = self.world.source(from);
        let bytes = packet.to_bytes().unwrap();
        self.input(Input::Packet { interface: 1, source, bytes: &bytes });
        self.wait(200);
    }

    fn hear(&mut self, from: u8, messages: &[Message]) {
        self.packet += 1;
        let packet = Packet { seq: Some(self.packet), tlvs: None, messages: messages.to_vec() };
        self.hear_packet(from, &packet);
    }

    /// A symmetric link to olsrd2 with number `n`, which says so and that it has chosen us as MPR as told.
    fn meet(&mut self, n: u8, mpr: u8, far: &[u8]) {
        let cost = ALL | Metric::new(512).to_compressed();
        let mut all = vec![about_us(self.world, SYMMETRIC, mpr, &[cost])];
        all.extend(others(self.world, far));
        self.hear(n, &[hello(self.world, n, &all)]);
    }

    fn status(&self, n: u8) -> Option<LinkStatus> {
        let source = self.world.source(n);
        self.router.neighbors().find(|v| v.address == source).map(|v| v.status)
    }

    fn last(&self, kind: u8) -> Option<&Message> {
        let own = Some(self.world.originator(US).into());
        self.sent.iter().rev().find(|m| m.kind == kind && m.originator == own)
    }

    /// The cost and the hops of the route to a prefix, and the first of them.
    fn route(&self, prefix: NetAddr) -> Option<(IpAddr, u32, u8)> {
        let route = self.router.routes().find(|r| r.prefix == prefix)?;
        Some((route.next_hop, route.metric.value(), route.hops))
    }

    fn route_to(&self, n: u8) -> Option<(IpAddr, u32, u8)> {
        self.route(NetAddr::host(self.world.originator(n)))
    }
}

/// Where olsrd2's parser is stricter than RFC 5444: heads and tails have 1 to address-length - 1 octets, whatever
/// follows a message that is not so is lost with it.
fn assert_olsrd2_parses(packet: &[u8]) {
    let word = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    let mut at = 1 + if packet[0] & 8 != 0 { 2 } else { 0 };
    at += if packet[0] & 4 != 0 { 2 + word(at) } else { 0 };
    while at < packet.len() {
        let (flags, end) = (packet[at + 1], at + word(at + 2));
        let len = usize::from(flags & 15) + 1;
        let fields = [(0x80, len), (0x40, 1), (0x20, 1), (0x10, 2)];
        at += 4 + fields.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, n)| n).sum::<usize>();
        at += 2 + word(at);
        while at < end {
            let (count, flags) = (usize::from(packet[at]), packet[at + 1]);
            assert!(count > 0);
            at += 2;
            let mut mid = len;
            if flags & 0x80 != 0 {
                let head = usize::from(packet[at]);
                assert!((1..len).contains(&head), "head of {head} octets");
                (at, mid) = (at + 1 + head, mid - head);
            }
            if flags & 0x60 != 0 {
                let tail = usize::from(packet[at]);
                assert!(flags & 0x40 == 0 || (1..len).contains(&tail), "tail of {tail} octets");
                (at, mid) = (at + 1 + if flags & 0x40 != 0 { tail } else { 0 }, mid - tail);
            }
            at += count * mid;
            at += if flags & 0x10 != 0 { 1 } else { 0 } + if flags & 8 != 0 { count } else { 0 };
            at += 2 + word(at);
        }
        assert_eq!(at, end);
    }
}

/// What olsrd2 takes from a HELLO or TC of ours: address by address, in their order.
#[derive(Debug, Default, PartialEq)]
struct Taken {
    /// It is named as heard or symmetric.
    heard: bool,
    /// The metric towards us; `None`: infinite.
    metric_out: Option<u16>,
    /// Chosen as flooding MPR, as routing MPR.
    mpr: (bool, bool),
    /// Originators that an address block TLV calls neighbours, and the outgoing neighbour metric.
    neighbors: BTreeMap<IpAddr, Option<u16>>,
}

/// Of an address: the values of its TLVs, by their type.
type Values = BTreeMap<u8, Vec<Vec<u8>>>;

fn values(message: &Message) -> Vec<(NetAddr, Values)> {
    let mut bytes = Vec::new();
    message.emit(&mut bytes).unwrap();
    let raw = rfc5444::RawMessage::parse(&bytes).unwrap();
    let mut all = Vec::new();
    for block in raw.check().unwrap().blocks() {
        for (i, address) in (0..block.count()).zip(block.addresses()) {
            let mut said = Values::new();
            for t in block.tlvs().filter(|t| t.ext == 0) {
                t.value_at(i).into_iter().for_each(|v| said.entry(t.kind).or_default().push(v.to_vec()));
            }
            all.push((address.net_addr().unwrap(), said));
        }
    }
    all
}

/// olsrd2 with these interface addresses reads a HELLO. Whatever it knew of the link's metric and of its being MPR it
/// forgets at each of its own addresses that is named, and takes what stands there.
fn read_hello(message: &Message, own: &[IpAddr]) -> Taken {
    let one = |kind| message.tlvs.iter().filter(|t| t.kind == kind && t.ext == 0).count() == 1;
    assert!(message.originator.is_some() && one(0) && one(1) && one(7));
    let mut taken = Taken::default();
    for (address, said) in values(message) {
        let first = |kind| said.get(&kind).map(|all| all[0][0]);
        assert!(said.get(&7).is_none_or(|all| all.iter().all(|v| v.len() == 2)), "metrics have two octets");
        let metrics = |bit: u8| {
            let of = said.get(&7).into_iter().flatten().find(|v| v[0] & bit != 0);
            of.map(|v| u16::from_be_bytes([v[0] & 0xf, v[1]]))
        };
        if first(3).is_none() && first(4).is_none() {
            continue;
        }
        if own.contains(&address.ip()) {
            taken.heard |= first(3).is_some_and(|s| s != LOST);
            taken.metric_out = metrics(0x80);
            taken.mpr = first(8).map_or((false, false), |v| (v & 1 != 0, v & 2 != 0));
        } else if first(3) == Some(SYMMETRIC) || first(4) == Some(SYMMETRIC) {
            taken.neighbors.insert(address.ip(), metrics(0x10));
        }
    }
    taken
}

const fn code(cost: u32) -> Option<u16> {
    Some(Metric::new(cost).to_compressed())
}

#[test]
fn olsrd2_and_we_become_neighbours_and_mprs_of_each_other() {
    for world in BOTH {
        let mut us = Us::new(world);
        us.hear(2, &[hello(world, 2, &[])]);
        assert_eq!(us.status(2), Some(LinkStatus::Heard));
        us.wait(1000);
        let own = world.on_interface(2);
        let taken = read_hello(us.last(0).unwrap(), &own);
        assert_eq!((taken.heard, taken.metric_out, taken.mpr), (true, code(256), (false, false)));
        // It has no metric for us yet: so it does not say one.
        us.hear(2, &[hello(world, 2, &[about_us(world, HEARD, 0, &[])])]);
        assert_eq!(us.status(2), Some(LinkStatus::Heard));
        us.meet(2, 0, &[3]);
        assert_eq!(us.status(2), Some(LinkStatus::Symmetric));
        assert_eq!(us.route_to(2), Some((world.source(2), 512, 1)));
        assert_eq!(us.route_to(3), Some((world.source(2), 1024, 2)), "named in its HELLO");
        us.wait(1000);
        let taken = read_hello(us.last(0).unwrap(), &own);
        assert_eq!(
            (taken.heard, taken.metric_out, taken.mpr),
            (true, code(256), (true, true)),
            "on the way to 3"
        );
        // Its TCs: a neighbour's network, a gateway.
        let lan = (world.network(2), 2, 1);
        us.hear(2, &[tc(world, 2, 7, &[3], &[lan, (world.everywhere(), 2, 1)])]);
        let mut far = tc(world, 3, 9, &[2], &[(world.network(3), 2, 1)]);
        (far.hop_limit, far.hop_count) = (Some(254), Some(1));
        us.hear(2, &[far.clone()]);
        assert_eq!(us.route(lan.0), Some((world.source(2), 513, 1)));
        assert_eq!(us.route(world.network(3)), Some((world.source(2), 1025, 2)));
        assert_eq!(us.route(world.everywhere()), Some((world.source(2), 513, 1)));
        assert!(us.fib.contains(&lan.0) && us.fib.contains(&world.everywhere()));
        assert_eq!(us.router.counters().forwarded, 0, "it has not chosen us");
        // It does: we forward, and advertise it.
        us.hear(4, &[hello(world, 4, &[])]);
        us.meet(4, 0, &[]);
        us.meet(2, 3, &[3]);
        assert_eq!(
            us.router.neighbors().find(|n| n.address == world.source(2)).unwrap().mpr_selector,
            (true, true)
        );
        (far.seq, far.tlvs[3]) = (Some(10), Tlv::new(8, &[0, 10]));
        us.sent.clear();
        us.hear(2, &[far.clone()]);
        us.wait(5000);
        let copy = us.sent.iter().find(|m| m.originator == far.originator && m.kind == 1).unwrap();
        assert_eq!((copy.hop_limit, copy.hop_count, copy.seq), (Some(253), Some(2), Some(10)));
        assert_eq!((&copy.tlvs, &copy.blocks), (&far.tlvs, &far.blocks), "else as it came");
        assert_eq!((us.router.counters().messages_invalid, us.router.counters().packets_malformed), (0, 0));
    }
}

/// It resets what it knows of a link at each of its addresses, so metrics and MPRs have to be on all.
#[test]
fn olsrd2_finds_metrics_and_mprs_on_whatever_address_it_looks_last() {
    let world = BOTH[0];
    let mut us = Us::new(world);
    us.hear(2, &[hello(world, 2, &[])]);
    us.meet(2, 3, &[3]);
    us.wait(1000);
    let message = us.last(0).unwrap().clone();
    let of_link: Vec<_> = values(&message).into_iter().filter(|(_, said)| said.contains_key(&3)).collect();
    assert_eq!(of_link.len(), 2, "both addresses of its interface");
    for (address, said) in of_link {
        assert_eq!(said.get(&8), Some(&vec![vec![3]]), "{address}");
        assert!(read_hello(&message, &[address.ip()]).metric_out.is_some());
    }
    // For third parties it is one 2-hop neighbour: only one address has neighbour metrics.
    let third = read_hello(&message, &[world.source(9)]).neighbors;
    let counted: Vec<_> = third.iter().filter(|(_, m)| m.is_some()).map(|(a, _)| *a).collect();
    assert_eq!(counted, [world.originator(2)]);
}

/// olsrd2 routes to a neighbour only if it has heard of it in TCs.
#[test]
fn rfc7181_17_3_neighbours_of_other_makes_are_advertised_so_that_they_get_tcs() {
    for world in BOTH {
        let mut us = Us::new(world);
        us.hear(2, &[hello(world, 2, &[])]);
        us.wait(3000);
        assert!(us.last(1).is_none(), "the link is not symmetric");
        us.meet(2, 0, &[]);
        us.wait(2000);
        let said = values(us.last(1).unwrap());
        let of: Vec<_> = said.iter().filter(|(_, s)| s.get(&9).is_some_and(|t| t[0][0] & 1 != 0)).collect();
        assert_eq!(of.len(), 1);
        assert_eq!(of[0].0.ip(), world.originator(2));
        let metric = 0x1000 | Metric::new(512).to_compressed();
        assert_eq!(of[0].1.get(&7), Some(&vec![metric.to_be_bytes().to_vec()]));
        // Ours say that they need none.
        let mut us = Us::new(world);
        for link in [None, Some(about_us(world, SYMMETRIC, 0, &[ALL]))] {
            let mut m = hello(world, 2, &link.into_iter().collect::<Vec<_>>());
            m.tlvs.push(Tlv { kind: olsrv2::NEEDS_NO_TC, ext: 0, value: None });
            us.hear(2, &[m]);
        }
        us.wait(3000);
        assert_eq!((us.status(2), us.last(1)), (Some(LinkStatus::Symmetric), None));
        assert!(us.last(0).unwrap().tlvs.iter().any(|t| t.kind == olsrv2::NEEDS_NO_TC && t.value.is_none()));
    }
}

/// Where everybody is its MPR, or a router is MPR over another interface, bits stand with links that are not symmetric.
#[test]
fn olsrd2_sets_mpr_bits_of_neighbours_that_it_only_hears_or_has_lost() {
    for world in BOTH {
        let mut us = Us::new(world);
        us.hear(2, &[hello(world, 2, &[about_us(world, HEARD, 3, &[])])]);
        assert_eq!(us.status(2), Some(LinkStatus::Heard));
        us.meet(2, 3, &[3]);
        let selector = |us: &Us| us.router.neighbors().next().unwrap().mpr_selector;
        assert_eq!((us.status(2), selector(&us)), (Some(LinkStatus::Symmetric), (true, true)));
        // It loses somebody else.
        let cost = ALL | Metric::new(512).to_compressed();
        let gone = named(world.source(7), Some(LOST), 3, &[]);
        us.hear(2, &[hello(world, 2, &[about_us(world, SYMMETRIC, 3, &[cost]), gone])]);
        assert_eq!((us.status(2), selector(&us)), (Some(LinkStatus::Symmetric), (true, true)));
        // It loses us.
        us.hear(2, &[hello(world, 2, &[about_us(world, LOST, 3, &[])])]);
        assert_eq!((us.status(2), selector(&us)), (Some(LinkStatus::Heard), (false, false)));
        assert_eq!(us.router.counters().messages_invalid, 0);
    }
}

/// RFC 7722: one more octet or nibble for each topology, and metrics of other type extensions; the first is ours.
#[test]
fn olsrd2_with_several_topologies_is_understood_in_the_first() {
    let world = BOTH[0];
    let mut us = Us::new(world);
    let types = Tlv { kind: 7, ext: 1, value: Some(vec![0, 1]) };
    let cost = ALL | Metric::new(512).to_compressed();
    let other = Attribute::with_ext(7, 1, &(ALL | Metric::new(9).to_compressed()).to_be_bytes());
    let mut about = about_us(world, SYMMETRIC, 7, &[cost]);
    about.attributes.push(other);
    for all in [vec![], vec![about]] {
        let mut m = hello(world, 2, &all);
        m.tlvs[2] = Tlv::new(7, &[0x77, 0x07]);
        m.tlvs.insert(2, types.clone());
        us.hear(2, &[m]);
    }
    let n = us.router.neighbors().next().unwrap();
    assert_eq!(
        (n.status, n.mpr_selector, n.metric_out),
        (LinkStatus::Symmetric, (true, true), Metric::new(512))
    );
    assert_eq!(n.willingness, (7, 7));
    let mut m = tc(world, 2, 7, &[], &[(world.network(2), 2, 1)]);
    m.tlvs.insert(2, types);
    for block in &mut m.blocks {
        let far = Attribute::with_ext(7, 1, &[0x10, 5]);
        let whole = |kind, ext, value: &[u8]| {
            let value = Some(value.to_vec());
            rfc5444::AddressTlv { kind, ext, start: 0, stop: 0, multivalue: false, value }
        };
        block.tlvs.retain(|t| t.kind != 10);
        block.tlvs.push(whole(10, 0, &[2, 4]));
        block.tlvs.push(whole(7, 1, far.value()));
    }
    us.hear(2, &[m]);
    let route = us.router.routes().find(|r| r.prefix == world.network(2)).unwrap();
    assert_eq!((route.metric.value(), route.dist), (513, 3));
}

/// Routes for packets from certain sources: not ours to make, and not to be taken for routes of all packets.
#[test]
fn olsrd2_routes_of_certain_sources_are_left_alone() {
    for world in BOTH {
        let mut us = Us::new(world);
        us.hear(2, &[hello(world, 2, &[])]);
        us.meet(2, 0, &[]);
        let mut m = tc(world, 2, 7, &[], &[(world.network(2), 2, 1)]);
        let outgoing = Attribute::new(7, &[0x10, 1]);
        let with = |prefix: NetAddr, attributes: &[Attribute]| {
            let attributes = [&[outgoing], attributes].concat();
            Attributed { address: prefix.into(), attributes }
        };
        // Source and destination; a default route for a source, whose prefix is the address.
        let source: Vec<u8> = [&[24][..], &[10, 1, 1]].concat();
        let both = [Attribute::with_ext(10, 1, &[2]), Attribute::new(224, &source)];
        m.blocks.extend(pack(&[with(world.network(5), &both)]));
        m.blocks.extend(pack(&[with(world.network(6), &[Attribute::with_ext(10, 2, &[2])])]));
        us.hear(2, &[m]);
        assert!(us.route(world.network(2)).is_some());
        for n in [5, 6] {
            assert_eq!(us.route(world.network(n)), None);
        }
        assert_eq!(us.route(world.everywhere()), None);
        assert_eq!((us.router.counters().messages_invalid, us.router.notes().count()), (0, 0));
    }
}

/// olsrd2 takes address block TLV 224 for a source prefix, and refuses blocks whose head is a whole address.
#[test]
fn olsrd2_reads_our_gateway_for_all_sources() {
    for world in BOTH {
        let mut us = Us::new(world);
        let own = world.network(2);
        let wide = NetAddr::new(own.ip(), if world.v4 { 23 } else { 32 });
        let prefixes = [world.everywhere(), own, wide];
        let attached = prefixes.map(|prefix| AttachedNetwork { prefix, dist: 0, metric: Metric::new(1) });
        us.input(Input::AttachedNetworks(&attached));
        let end = Note::TunnelsEndIn(Ipv6Addr::new(0xfd99, 2, 0, 0, 0, 0, 0, 0));
        let same = Note::SameNode([10, 64, 0, 1].into());
        us.input(Input::Notes(&[(world.everywhere(), end), (own, same)]));
        us.wait(3000);
        let said = values(us.last(1).unwrap());
        assert_eq!(said.len(), 3);
        for (prefix, said) in said {
            assert!(prefixes.contains(&prefix));
            assert_eq!(said.get(&10), Some(&vec![vec![0]]));
            assert_eq!(said.get(&7), Some(&vec![vec![0x10, 0]]), "a metric of 1: {prefix}");
            assert!(!said.contains_key(&224), "{prefix}");
        }
    }
}

/// Larger ones than a packet holds leave it in parts: all of them incomplete, of one ANSN.
#[test]
fn rfc7181_16_3_3_tcs_of_olsrd2_in_parts_are_put_together() {
    for world in BOTH {
        let mut us = Us::new(world);
        us.hear(2, &[hello(world, 2, &[])]);
        us.meet(2, 0, &[]);
        let part = |seq: u16, neighbors: &[u8]| {
            let mut m = tc(world, 2, seq, neighbors, &[]);
            m.tlvs[3] = Tlv { kind: 8, ext: 1, value: Some(vec![0, 40]) };
            m
        };
        us.hear(2, &[part(8, &[11, 12]), part(9, &[13]), tc(world, 12, 3, &[2], &[])]);
        assert_eq!(us.router.topology().count(), 4);
        for n in [11, 12, 13] {
            assert_eq!(us.route_to(n), Some((world.source(2), 1024, 2)));
        }
        // Complete again, and smaller.
        let mut whole = tc(world, 2, 10, &[13], &[]);
        whole.tlvs[3] = Tlv::new(8, &[0, 41]);
        us.hear(2, &[whole]);
        assert_eq!((us.route_to(11), us.route_to(13).is_some()), (None, true));
    }
}

/// The same of a HELLO: its own addresses are in each part.
#[test]
fn rfc6130_11_1_hellos_of_olsrd2_in_parts_keep_the_link() {
    for world in BOTH {
        let mut us = Us::new(world);
        us.hear(2, &[hello(world, 2, &[])]);
        us.meet(2, 0, &[3]);
        for _ in 0..10 {
            let cost = ALL | Metric::new(512).to_compressed();
            let first = hello(world, 2, &[about_us(world, SYMMETRIC, 0, &[cost])]);
            us.hear(2, &[first, hello(world, 2, &others(world, &[3, 4]))]);
            us.wait(1800);
        }
        assert_eq!(us.status(2), Some(LinkStatus::Symmetric));
        assert!(us.route_to(3).is_some() && us.route_to(4).is_some());
    }
}

/// Packets without numbers; and probes for one neighbour alone, with numbers of their own and a message without header.
#[test]
fn rfc7779_9_3_probes_and_packets_without_numbers_do_not_spoil_the_metric() {
    let world = BOTH[0];
    let cost = ALL | Metric::new(512).to_compressed();
    for numbered in [true, false] {
        let mut us = Us::with(world, |c| c.metric = MetricMode::Dat);
        let mut metrics = BTreeSet::new();
        for round in 0..40u16 {
            let about = about_us(world, if round == 0 { HEARD } else { SYMMETRIC }, 0, &[cost]);
            let messages = vec![hello(world, 2, &[about])];
            us.hear_packet(2, &Packet { seq: numbered.then_some(round), tlvs: None, messages });
            let mut probe = Message::new(253, 16);
            probe.tlvs = vec![Tlv::new(253, &[0; 200])];
            us.hear_packet(2, &Packet { seq: Some(40_000 + 7 * round), tlvs: None, messages: vec![probe] });
            us.wait(1600);
            if round > 3 {
                metrics.insert(us.router.neighbors().next().unwrap().metric_in);
            }
        }
        assert_eq!(metrics.len(), 1, "nothing is lost: {metrics:?}");
        assert!(metrics.first() < Some(&Metric::new(1000)), "{metrics:?}");
        let c = us.router.counters();
        assert_eq!((c.messages_invalid, c.unknown_messages), (0, 40));
    }
}

/// Without addresses of its own, or before it has an originator address, its HELLOs have none.
#[test]
fn rfc7181_15_3_2_olsrd2_without_an_originator_address_is_a_neighbour() {
    for world in BOTH {
        let mut us = Us::new(world);
        let mut m = hello(world, 2, &[]);
        m.originator = None;
        us.hear(2, &[m.clone()]);
        assert_eq!(us.status(2), Some(LinkStatus::Heard));
        let cost = ALL | Metric::new(512).to_compressed();
        m.blocks = hello(world, 2, &[about_us(world, SYMMETRIC, 0, &[cost])]).blocks;
        us.hear(2, &[m]);
        assert_eq!(us.status(2), Some(LinkStatus::Symmetric));
        // One local address is the originator address; of two nobody knows which.
        assert_eq!(us.route_to(2).is_some(), world.v4);
        us.meet(2, 0, &[]);
        assert!(us.route_to(2).is_some(), "later it has one");
    }
}

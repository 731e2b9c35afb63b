//! IPv4 messages in packets of a carrier: two IPv4 routers that hear each other only so.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::IpAddr;

use mesh_types::{Duration, Instant};
use olsrv2::{Config, Input, Key, LinkStatus, NetAddr, Output, Router, Timing};
use rfc5444::{Message, Packet, Tlv};

const LINK: [&str; 2] = ["fe80::1", "fe80::2"];
const OWN: [&str; 2] = ["10.64.0.1", "10.64.0.2"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What a node sent.
#[derive(Debug, PartialEq)]
enum Sent {
    /// Messages for the carrier.
    Carried(Vec<Vec<u8>>),
    Alone(Vec<u8>),
}

struct Node {
    router: Router,
    sent: Vec<Sent>,
}

impl Node {
    fn new(n: usize, now: Instant, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { share_packets: true, timing: Timing::STEADY, ..Config::new(ip(OWN[n])) };
        change(&mut config);
        let mut node = Self { router: Router::new(config, n as u64 + 1, now), sent: Vec::new() };
        node.input(now, Input::InterfaceUp { interface: 1, addresses: &[NetAddr::host(ip(OWN[n]))] });
        node.input(now, Input::Carrier { interface: 1, on: true });
        node
    }

    fn input(&mut self, now: Instant, input: Input<'_>) {
        self.router.handle_input(now, input).unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.router.poll_output() {
            match output {
                Output::Carry { messages, .. } => self.sent.push(Sent::Carried(messages)),
                Output::Transmit { bytes, .. } => self.sent.push(Sent::Alone(bytes)),
                _ => {}
            }
        }
    }

    fn hears(&self) -> bool {
        self.router.neighbors().any(|n| n.status == LinkStatus::Symmetric)
    }
}

/// Packet 7 of the carrier, with a message of its own family in front.
fn packet(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut six = Message::new(0, 16);
    six.originator = Some(ip("fd00::1").into());
    six.tlvs = vec![Tlv::new(1, &[0x64]), Tlv::new(7, &[0x77])];
    let mut bytes = Packet { seq: Some(7), tlvs: None, messages: vec![six] }.to_bytes().unwrap();
    messages.iter().for_each(|m| bytes.extend_from_slice(m));
    bytes
}

/// Both run; what one sends the other gets.
fn run(nodes: &mut [Node; 2], now: &mut Instant, seconds: u64) {
    let end = *now + Duration::from_secs(seconds);
    while *now < end {
        *now += Duration::from_millis(10);
        for from in 0..2 {
            nodes[from].router.handle_timeout(*now);
            nodes[from].drain();
            for sent in std::mem::take(&mut nodes[from].sent) {
                let (source, bytes) = match sent {
                    Sent::Carried(messages) => (ip(LINK[from]), packet(&messages)),
                    Sent::Alone(bytes) => (ip(OWN[from]), bytes),
                };
                nodes[1 - from].input(*now, Input::Packet { interface: 1, source, bytes: &bytes });
            }
        }
    }
}

fn pair(change: impl Fn(&mut Config)) -> ([Node; 2], Instant) {
    let now = Instant::from_millis(5000);
    ([Node::new(0, now, &change), Node::new(1, now, &change)], now)
}

#[test]
fn rfc6130_12_1_messages_of_the_other_length_are_passed_over_ours_are_taken() {
    let (mut nodes, mut now) = pair(|_| {});
    run(&mut nodes, &mut now, 5);
    for (n, node) in nodes.iter().enumerate() {
        let other = node.router.neighbors().next().unwrap();
        assert_eq!((other.address, other.status), (ip(OWN[1 - n]), LinkStatus::Symmetric));
        assert_eq!((node.router.counters().messages_invalid, node.router.counters().packets_out), (0, 0));
        assert!(node.router.routes().any(|r| r.prefix == NetAddr::host(ip(OWN[1 - n]))));
    }
    // A packet in which nothing is for us still shows that the neighbour is there; a stranger's says nothing.
    run(&mut nodes, &mut now, 20);
    for source in [LINK[1], "fe80::66"] {
        nodes[0].input(now, Input::Packet { interface: 1, source: ip(source), bytes: &packet(&[]) });
    }
    assert_eq!(nodes[0].router.neighbors().count(), 1);
}

#[test]
fn a_router_that_speaks_ipv4_only_is_answered_in_ipv4_for_a_while() {
    let (mut nodes, mut now) = pair(|_| {});
    run(&mut nodes, &mut now, 5);
    let stranger = Packet { seq: Some(1), tlvs: None, messages: Vec::new() }.to_bytes().unwrap();
    nodes[0].input(now, Input::Packet { interface: 1, source: ip("10.64.0.9"), bytes: &stranger });
    let kinds = |nodes: &mut [Node; 2], now: &mut Instant, seconds: u64| -> Vec<bool> {
        let mut alone = Vec::new();
        for _ in 0..seconds * 10 {
            *now += Duration::from_millis(100);
            nodes[0].router.handle_timeout(*now);
            nodes[0].drain();
            for sent in std::mem::take(&mut nodes[0].sent) {
                alone.push(matches!(sent, Sent::Alone(_)));
                let (source, bytes) = match sent {
                    Sent::Carried(messages) => (ip(LINK[0]), packet(&messages)),
                    Sent::Alone(bytes) => (ip(OWN[0]), bytes),
                };
                nodes[1].input(*now, Input::Packet { interface: 1, source, bytes: &bytes });
            }
            nodes[1].router.handle_timeout(*now);
            nodes[1].drain();
        }
        alone
    };
    let during = kinds(&mut nodes, &mut now, 10);
    assert!(during.len() >= 3 && during.iter().all(|alone| *alone), "{during:?}");
    assert!(nodes[1].hears(), "whoever can share hears both");
    let theirs = std::mem::take(&mut nodes[1].sent);
    assert!(theirs.iter().all(|s| matches!(s, Sent::Carried(_))), "it knows that the other is no stranger");
    kinds(&mut nodes, &mut now, 25);
    assert!(kinds(&mut nodes, &mut now, 10).iter().all(|alone| !alone), "the stranger is gone");
}

#[test]
fn rfc7182_signed_hellos_cover_their_source_and_travel_alone() {
    let (mut nodes, mut now) = pair(|c| c.keys = vec![Key::new(b"secret")]);
    run(&mut nodes, &mut now, 5);
    assert!(nodes.iter().all(Node::hears));
    assert!(nodes.iter().all(|n| n.router.counters().packets_out > 0));
    let mut other = Node::new(1, now, |_| {});
    other.router.handle_timeout(now + Duration::from_secs(1));
    other.drain();
    let [Sent::Carried(unsigned)] = other.sent.as_slice() else { panic!("no HELLO") };
    nodes[0].input(now, Input::Packet { interface: 1, source: ip(LINK[1]), bytes: &packet(unsigned) });
    assert_eq!(nodes[0].router.counters().icv_missing, 1);
}

#[test]
fn a_carriers_packet_takes_along_what_waits_and_a_hello_that_is_soon_due() {
    let now = Instant::from_millis(5000);
    let mut node = Node::new(0, now, |_| {});
    let mut at = now;
    let mut joined = |node: &mut Node, millis: u64| {
        at += Duration::from_millis(millis);
        node.router.handle_timeout(at);
        node.drain();
        node.sent.clear();
        node.input(at, Input::Join { interface: 1 });
        node.sent.len()
    };
    assert_eq!(joined(&mut node, 100), 0, "the first HELLO went out");
    assert_eq!(joined(&mut node, 1600), 1, "1.6 of 2 s");
    assert_eq!(joined(&mut node, 500), 0);
    // The carrier itself: what it is handed goes out at once, its own HELLO with it.
    let mut six = Router::new(Config { timing: Timing::STEADY, ..Config::new(ip("fd00::1")) }, 1, now);
    six.handle_input(now, Input::InterfaceUp { interface: 1, addresses: &[NetAddr::host(ip(LINK[0]))] })
        .unwrap();
    let mut sizes = |at: Instant| -> Vec<usize> {
        six.handle_timeout(at);
        while six.poll_output().is_some() {}
        six.handle_input(at, Input::Carry { interface: 1, messages: &[vec![0, 3, 0, 4]] }).unwrap();
        let packets = core::iter::from_fn(|| six.poll_output());
        packets
            .filter_map(|o| if let Output::Transmit { bytes, .. } = o { Some(bytes.len()) } else { None })
            .collect()
    };
    assert_eq!(sizes(now + Duration::from_millis(200)), [7]);
    let both = sizes(now + Duration::from_millis(1700));
    assert!(both.len() == 1 && both[0] > 50, "{both:?}");
}

//! RFC 7183 with the counter of RFC 7182 §13.8: meshes with keys, and what someone without them can do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod net;

use mesh_types::{Duration, Metric};
use net::{Net, Port, RADIO, originator, prefix};
use olsrv2::{AttachedNetwork, Config, Counters, Input, Key, LinkStatus, NetAddr, Timing};
use rfc5444::{Message, Packet, PacketView, RawMessage, Tlv};

const SECOND: Duration = Duration::from_secs(1);
const ICV: u8 = 5;
const TIMESTAMP: u8 = 6;

fn key(name: &str) -> Key {
    Key::new(name.as_bytes())
}

fn with_keys(seed: u64, nodes: usize, change: impl Fn(usize, &mut Config)) -> Net {
    let mut net = Net::new(seed);
    for n in 0..nodes {
        net.add(|c| {
            c.timing = Timing::FAST;
            c.keys = vec![key("mesh")];
            c.counter = 1 << 32;
            change(n, c);
        });
        // So that everyone has something to say in TCs.
        let one = AttachedNetwork { prefix: prefix(n), dist: 0, metric: Metric::new(1) };
        net.input(n, Input::AttachedNetworks(&[one]));
    }
    net
}

fn line(seed: u64, nodes: usize) -> Net {
    let mut net = with_keys(seed, nodes, |_, _| {});
    (1..nodes).for_each(|n| net.connect(n - 1, n));
    net
}

fn counters(net: &Net, node: usize) -> Counters {
    *net.nodes[node].router.counters()
}

fn refused(net: &Net, node: usize) -> u64 {
    let c = counters(net, node);
    c.icv_missing + c.icv_unknown_key + c.icv_wrong + c.timestamp_missing + c.replayed
}

fn symmetric(net: &Net, node: usize) -> usize {
    net.nodes[node].router.neighbors().filter(|n| n.status == LinkStatus::Symmetric).count()
}

fn publish(net: &mut Net, node: usize, sequence: u32, payload: &[u8]) {
    let validity = SECOND.times(3600);
    net.input(node, Input::Publish { kind: 1, sequence, payload, validity });
}

/// What a node receives from the address of `from`, whoever sends it.
fn inject(net: &mut Net, from: Port, to: Port, bytes: &[u8]) {
    let source = net.source(from);
    let interface = to.1;
    net.input(to.0, Input::Packet { interface, source, bytes });
}

fn packet(message: Message) -> Vec<u8> {
    Packet { seq: None, tlvs: None, messages: vec![message] }.to_bytes().unwrap()
}

/// All messages of a type that a node sent.
fn sent(net: &Net, node: usize, kind: u8) -> Vec<Message> {
    let packets = net.tap.iter().flatten().filter(|(from, _)| from.0 == node);
    let messages = packets.flat_map(|(_, bytes)| Packet::parse(bytes).unwrap().messages);
    messages.filter(|m| m.kind == kind).collect()
}

#[test]
fn rfc7183_6_a_mesh_with_keys_works_like_one_without() {
    for seed in 0..3 {
        let mut net = with_keys(seed, 9, |_, _| {});
        for n in 0..9 {
            if n % 3 < 2 {
                net.connect(n, n + 1);
            }
            if n < 6 {
                net.connect(n, n + 3);
            }
            publish(&mut net, n, 1, &[n as u8; 300]);
        }
        let all = |net: &Net| net.is_converged() && net.nodes.iter().all(|n| n.router.records().count() == 8);
        net.run_while_not(SECOND.times(10), all);
        net.run_for(SECOND.times(60));
        assert!(all(&net));
        // A late joiner is told the records by its neighbour, whose key covers them.
        let late = net.add(|c| {
            c.timing = Timing::FAST;
            c.keys = vec![key("mesh")];
            c.counter = 1 << 32;
        });
        net.connect(late, 0);
        let knows = |net: &Net| net.is_converged() && net.nodes[late].router.records().count() == 9;
        net.run_while_not(SECOND.times(3), knows);
        assert!(
            (0..10).all(|n| refused(&net, n) == 0),
            "{:?}",
            (0..10).map(|n| counters(&net, n)).collect::<Vec<_>>()
        );
    }
}

#[test]
fn rfc7183_6_1_messages_have_the_tlvs_they_must_have() {
    let mut net = line(1, 3);
    net.tap = Some(Vec::new());
    publish(&mut net, 1, 1, b"bloor");
    net.run_for(SECOND.times(5));
    let mut last = 0;
    for kind in [0, 1, 224] {
        let all = sent(&net, 1, kind);
        assert!(!all.is_empty(), "type {kind}");
        for m in all.iter().filter(|m| m.originator == Some(originator(1).into())) {
            let repeated = kind == 224 && m.hop_limit == Some(1);
            let icvs: Vec<&Tlv> = m.tlvs.iter().filter(|t| t.kind == ICV).collect();
            let [icv] = icvs[..] else { panic!("{m:?}") };
            assert_eq!(icv.ext, if kind == 0 || repeated { 2 } else { 1 }, "{m:?}");
            assert_eq!(icv.value.as_ref().unwrap()[..7], [&[3, 3, 4][..], &key("mesh").id()].concat());
            assert_eq!(m.tlvs.last(), Some(icv), "after all that it covers");
            let stamps: Vec<&Tlv> = m.tlvs.iter().filter(|t| t.kind == TIMESTAMP).collect();
            let [stamp] = stamps[..] else { panic!("{m:?}") };
            let counter = stamp.value.iter().flatten().fold(0u64, |n, o| n << 8 | u64::from(*o));
            assert!(stamp.ext == 0 && counter > 1 << 32 && counter != last);
            last = counter;
        }
    }
}

#[test]
fn rfc7183_4_with_and_without_keys_are_two_meshes() {
    let mut net = with_keys(2, 6, |n, c| match n {
        0 | 1 => c.keys = Vec::new(),
        4 | 5 => c.keys = vec![key("another")],
        _ => {}
    });
    // All hear all.
    (0..6).for_each(|a| (0..a).for_each(|b| net.connect(a, b)));
    (0..6).for_each(|n| publish(&mut net, n, 1, b"name"));
    net.run_for(SECOND.times(30));
    for n in 0..6 {
        let twin = n ^ 1;
        let c = counters(&net, n);
        assert_eq!(symmetric(&net, n), 1, "{}", net.describe());
        let routes: Vec<NetAddr> = net.nodes[n].fib.keys().copied().collect();
        assert_eq!(routes, [NetAddr::host(originator(twin)), prefix(twin)]);
        let records: Vec<_> = net.nodes[n].router.records().map(|r| r.originator).collect();
        assert_eq!(records, [originator(twin)]);
        assert_eq!(c.icv_missing > 50, n >= 2);
        assert_eq!(c.icv_unknown_key > 50, n >= 2);
        assert_eq!((c.icv_wrong, c.timestamp_missing, c.replayed), (0, 0, 0));
    }
}

#[test]
fn rfc7182_4_without_keys_icvs_are_passed_over_and_forwarded_as_they_are() {
    let mut net = Net::line(3, 3, Timing::FAST);
    net.run_while_not(SECOND.times(10), Net::is_converged);
    net.run_for(SECOND.times(2));
    net.tap = Some(Vec::new());
    let mut tc = Message::new(1, 16);
    tc.originator = Some(net::originator(77).into());
    (tc.hop_limit, tc.hop_count, tc.seq) = (Some(9), Some(0), Some(1));
    let icv = Tlv { kind: ICV, ext: 1, value: Some(vec![3, 3, 0, 1, 2, 3, 4, 5]) };
    tc.tlvs = vec![icv, Tlv::new(1, &[0x64]), Tlv::new(TIMESTAMP, &[0, 9]), Tlv::new(8, &[0, 1])];
    tc.tlvs.push(Tlv { kind: ICV, ext: 2, value: None });
    inject(&mut net, (0, RADIO), (1, RADIO), &packet(tc.clone()));
    net.run_for(SECOND);
    let of_77 = sent(&net, 1, 1).into_iter().filter(|m| m.originator == tc.originator);
    let forwarded: Vec<Message> = of_77.collect();
    (tc.hop_limit, tc.hop_count) = (Some(8), Some(1));
    assert_eq!(forwarded, [tc]);
    assert_eq!(refused(&net, 1), 0);
}

#[test]
fn rfc7183_6_3_forged_messages_do_nothing_and_keep_no_ones_place() {
    let mut net = line(4, 3);
    publish(&mut net, 0, 1, b"genuine");
    net.run_while_not(SECOND.times(10), Net::is_converged);
    net.run_for(SECOND);
    let before = net.nodes[1].router.topology().count();
    // Every number that node 0 will use soon, by someone without the key, from node 0's address.
    for seq in 0..=u16::MAX {
        let mut tc = Message::new(1, 16);
        tc.originator = Some(originator(0).into());
        (tc.hop_limit, tc.hop_count, tc.seq) = (Some(255), Some(0), Some(seq));
        tc.tlvs = vec![Tlv::new(1, &[0xff]), Tlv::new(8, &[0x7f, 0xff]), Tlv::new(TIMESTAMP, &[0xff; 8])];
        if seq % 2 == 0 {
            let value = [&[3, 3, 4][..], &key("mesh").id(), &[0; 16]].concat();
            tc.tlvs.push(Tlv { kind: ICV, ext: 1, value: Some(value) });
        }
        inject(&mut net, (0, RADIO), (1, RADIO), &packet(tc));
    }
    let c = counters(&net, 1);
    assert_eq!((c.icv_missing, c.icv_wrong, c.duplicates > 1000), (32768, 32768, false));
    assert_eq!(net.nodes[1].router.topology().count(), before);
    let tcs = c.tcs_in;
    publish(&mut net, 0, 2, b"newer");
    net.run_for(SECOND.times(3));
    assert!(counters(&net, 1).tcs_in > tcs, "its own numbers were not taken");
    assert!(net.nodes[2].router.records().any(|r| r.payload == b"newer"));
    assert!(net.is_converged());
}

#[test]
fn rfc7183_8_1_3_recorded_packets_are_refused() {
    let mut net = line(5, 3);
    net.tap = Some(Vec::new());
    publish(&mut net, 0, 1, b"old");
    net.run_for(SECOND.times(10));
    // Node 0 goes away. Whatever it said, in its order, again and again, does not bring it back.
    let recorded: Vec<_> = net.tap.take().unwrap().into_iter().filter(|(from, _)| from.0 == 0).collect();
    net.nodes[0].up = false;
    let gone = |net: &Net| net.is_converged() && symmetric(net, 1) == 1;
    net.run_while_not(SECOND.times(5), gone);
    for wait in [0, 1, 40, 3600] {
        net.run_for(SECOND.times(wait));
        let replayed = counters(&net, 1).replayed;
        for (from, bytes) in &recorded {
            inject(&mut net, *from, (1, RADIO), bytes);
            net.run_for(Duration::from_millis(5));
        }
        assert!(counters(&net, 1).replayed > replayed + 10);
        assert_eq!(symmetric(&net, 1), 1, "{}", net.describe());
        assert!(net.is_converged());
    }
    // It comes back, and is welcome.
    net.nodes[0].up = true;
    net.run_while_not(SECOND.times(5), Net::is_converged);
}

#[test]
fn rfc7183_8_1_3_replays_do_not_disturb_those_who_are_there() {
    for seed in 0..3 {
        let mut net = line(seed, 4);
        net.tap = Some(Vec::new());
        (0..4).for_each(|n| publish(&mut net, n, 1, &[7; 100]));
        net.run_for(SECOND.times(5));
        // Someone plays everything back to everyone who can hear it, at once and ten seconds later.
        let recorded = net.tap.take().unwrap();
        for wait in [0, 10, 60] {
            net.run_for(SECOND.times(wait));
            for (from, bytes) in &recorded {
                for to in [from.0.wrapping_sub(1), from.0 + 1].into_iter().filter(|n| *n < 4) {
                    inject(&mut net, *from, (to, RADIO), bytes);
                }
                net.run_for(Duration::from_millis(1));
                assert!(net.is_converged(), "seed {seed}\n{}", net.describe());
            }
        }
        net.run_for(SECOND.times(20));
        assert!(net.is_converged());
    }
}

#[test]
fn rfc7183_8_1_3_neither_a_moved_routers_hellos_nor_another_interface_help() {
    let mut net = line(6, 4);
    net.tap = Some(Vec::new());
    net.run_while_not(SECOND.times(10), Net::is_converged);
    net.run_for(SECOND.times(5));
    let recorded: Vec<_> = net.tap.take().unwrap().into_iter().filter(|(from, _)| from.0 == 0).collect();
    // Node 0 moves from node 1 to node 3; node 2 never heard a HELLO of it. Its floods are known there.
    net.cut(0, 1);
    net.connect(0, 3);
    net.run_while_not(SECOND.times(10), Net::is_converged);
    net.run_for(SECOND.times(40));
    for to in [1, 2] {
        let replayed = counters(&net, to).replayed;
        for (from, bytes) in &recorded {
            inject(&mut net, *from, (to, RADIO), bytes);
        }
        assert!(counters(&net, to).replayed > replayed + 10);
        assert!(net.nodes[to].router.neighbors().all(|n| n.address != net.source((0, RADIO))));
    }
    // From another address the ICV does not fit, fresh or not.
    let wrong = counters(&net, 2).icv_wrong;
    for (_, bytes) in &recorded {
        inject(&mut net, (1, RADIO), (2, RADIO), bytes);
    }
    assert!(counters(&net, 2).icv_wrong > wrong);
    net.run_for(SECOND.times(5));
    assert!(net.is_converged());
}

#[test]
fn rfc7183_8_2_restarts_of_sender_and_receiver() {
    let mut net = line(7, 3);
    (0..3).for_each(|n| publish(&mut net, n, 1, b"name"));
    net.run_while_not(SECOND.times(10), Net::is_converged);
    for node in [0, 1, 2, 1] {
        net.run_for(SECOND.times(20));
        // It starts with empty tables and a higher number of starts.
        net.restart(node);
        publish(&mut net, node, 2, b"name");
        net.run_while_not(SECOND.times(4), Net::is_converged);
    }
    // One that lost count is not believed until it is past its old numbers: that is the price.
    let mut config = net.nodes[0].router.config().clone();
    config.counter = 1 << 32;
    net.nodes[0].router = olsrv2::Router::new(config, 99, net.now);
    net.nodes[0].fib.clear();
    net.bring_up((0, RADIO));
    net.run_for(SECOND.times(10));
    assert_eq!(symmetric(&net, 0), 0);
    assert!(counters(&net, 1).replayed > 0);
}

#[test]
fn rfc7183_6_3_an_older_tc_by_a_slower_path_breaks_nothing() {
    let mut net = line(8, 3);
    net.tap = Some(Vec::new());
    net.run_for(SECOND.times(6));
    // The TCs of node 0 as node 1 forwarded them, to node 2, in reverse order, some of them twice.
    let tcs: Vec<Message> =
        sent(&net, 1, 1).into_iter().filter(|m| m.originator == Some(originator(0).into())).collect();
    assert!(tcs.len() > 4);
    let before = counters(&net, 2);
    for tc in tcs.iter().rev().chain(&tcs) {
        inject(&mut net, (1, RADIO), (2, RADIO), &packet(tc.clone()));
    }
    assert!(net.is_converged());
    assert_eq!(counters(&net, 2).tcs_in, before.tcs_in, "each was processed once");
    net.run_for(SECOND.times(5));
    assert!(net.is_converged());
}

#[test]
fn rfc7182_12_1_1_what_covers_one_link_is_not_forwarded() {
    let mut net = line(9, 2);
    publish(&mut net, 0, 1, b"name");
    net.run_while_not(SECOND.times(10), |net| net.nodes[1].router.records().count() == 1);
    net.tap = Some(Vec::new());
    let late = net.add(|c| {
        c.timing = Timing::FAST;
        c.keys = vec![key("mesh")];
    });
    net.connect(late, 1);
    net.run_while_not(SECOND.times(5), |net| net.nodes[late].router.records().count() == 1);
    let repeated: Vec<Message> = sent(&net, 1, 224).into_iter().filter(|m| m.hop_limit == Some(1)).collect();
    assert!(repeated.iter().all(|m| m.tlvs.iter().any(|t| t.kind == ICV && t.ext == 2)));
    assert!(!repeated.is_empty());
    // Hop limit and count are not covered; whoever raises them gains nothing.
    let forwarded = counters(&net, 0).forwarded;
    for mut m in repeated {
        (m.hop_limit, m.seq) = (Some(200), m.seq);
        inject(&mut net, (1, RADIO), (0, RADIO), &packet(m));
    }
    assert_eq!(counters(&net, 0).forwarded, forwarded);
}

#[test]
fn rfc7183_3_keys_are_changed_without_losing_a_route() {
    let (old, new) = (key("old"), key("new"));
    let mut net = with_keys(10, 9, |_, c| c.keys = vec![key("old")]);
    for n in 0..9 {
        if n % 3 < 2 {
            net.connect(n, n + 1);
        }
        if n < 6 {
            net.connect(n, n + 3);
        }
    }
    net.run_while_not(SECOND.times(10), Net::is_converged);
    for keys in [vec![new.clone(), old.clone()], vec![new.clone()]] {
        for n in 0..9 {
            net.input(n, Input::Keys(&keys));
            for _ in 0..20 {
                net.run_for(SECOND.divided_by(10));
                assert!(net.is_converged(), "node {n} has {keys:?}\n{}", net.describe());
            }
        }
    }
    let before = refused(&net, 0);
    // Whoever has the old key only is out, once answered probes keep silent links no longer (6 s).
    net.input(4, Input::Keys(&[old]));
    net.run_while_not(SECOND.times(10), |net| symmetric(net, 4) == 0);
    assert!(refused(&net, 1) > before && counters(&net, 4).icv_unknown_key > 0);
}

#[test]
fn rfc7183_1_works_for_ipv4_without_interface_addresses() {
    let mut net = Net::new(11);
    net.ipv4 = true;
    for _ in 0..3 {
        net.add(|c| {
            c.timing = Timing::FAST;
            c.keys = vec![key("mesh")];
        });
    }
    net.connect(0, 1);
    net.connect(1, 2);
    net.run_while_not(SECOND.times(10), Net::is_converged);
    assert!((0..3).all(|n| refused(&net, n) == 0));
}

#[test]
fn rfc7181_13_2_what_protection_costs_on_the_air() {
    let bytes = |keys: &[Key]| {
        let mut net = with_keys(12, 25, |_, c| {
            c.timing = Timing::RFC7181;
            c.keys = keys.to_vec();
        });
        for n in 0..25 {
            if n % 5 < 4 {
                net.connect(n, n + 1);
            }
            if n < 20 {
                net.connect(n, n + 5);
            }
        }
        net.run_for(SECOND.times(30));
        let before = net.bytes;
        net.run_for(SECOND.times(60));
        assert!(net.is_converged());
        (net.bytes - before) / 60 / 25
    };
    let (open, one, two) = (bytes(&[]), bytes(&[key("a")]), bytes(&[key("a"), key("b")]));
    println!("bytes/s per node, grid of 25: {open} without keys, {one} with one, {two} with two");
    // 8 octets of timestamp and 27 of each ICV.
    assert!(open < one && one < two && one < open * 2);
}

#[test]
fn rfc7182_2_every_sent_message_reads_as_one() {
    let mut net = line(13, 3);
    net.tap = Some(Vec::new());
    publish(&mut net, 1, 1, &[1; 1024]);
    net.run_for(SECOND.times(5));
    for (_, bytes) in net.tap.take().unwrap() {
        let view = PacketView::parse(&bytes).unwrap();
        for raw in view.messages() {
            assert!(RawMessage::parse(raw.bytes()).unwrap().check().is_ok());
        }
    }
}

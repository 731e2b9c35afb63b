//! What a neighbour missed is noticed and repeated; what it pretends to have missed is not repeated for ever.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod net;

use mesh_types::{Duration, Metric};
use net::{Net, RADIO, link_local, originator, prefix};
use olsrv2::{AttachedNetwork, Config, Input, LinkStatus, MetricMode, Timing};
use rfc5444::{Attribute, Attributed, Message, Packet, Tlv, pack};

const SECOND: Duration = Duration::from_secs(1);
/// Message TLV type of a HELLO's summary.
const SUMMARY: u8 = 225;

fn steady(c: &mut Config) {
    c.timing = Timing::STEADY;
    c.metric = MetricMode::Dat;
}

fn line(seed: u64, n: usize) -> Net {
    let mut net = Net::new(seed);
    (0..n).for_each(|_| {
        net.add(steady);
    });
    (1..n).for_each(|i| net.connect(i - 1, i));
    net
}

/// HELLOs sent since the tap was opened, and how many bore a summary.
fn hellos(net: &mut Net) -> (usize, usize) {
    let packets = net.tap.replace(Vec::new()).unwrap();
    let messages = packets.iter().flat_map(|(_, bytes)| Packet::parse(bytes).unwrap().messages);
    let all: Vec<Message> = messages.filter(|m| m.kind == 0).collect();
    let bear = all.iter().filter(|m| m.tlvs.iter().any(|t| t.kind == SUMMARY)).count();
    (all.len(), bear)
}

#[test]
fn a_mesh_in_which_nothing_changes_tells_no_summaries() {
    let mut net = line(1, 4);
    net.run_for(SECOND.times(60));
    net.tap = Some(Vec::new());
    net.run_for(SECOND.times(300));
    let (all, bear) = hellos(&mut net);
    assert!(all > 300 && bear == 0, "{bear} of {all}");
    let before: u64 = net.nodes.iter().map(|n| n.router.counters().relayed).sum();
    net.run_for(SECOND.times(100));
    assert_eq!(net.nodes.iter().map(|n| n.router.counters().relayed).sum::<u64>(), before);
}

#[test]
fn a_lost_tc_is_repeated_long_before_the_next() {
    for seed in 0..10 {
        let mut net = line(seed, 4);
        net.run_for(SECOND.times(60));
        let (one, two) = ((1, RADIO), (2, RADIO));
        net.edges.insert((one, two), 255);
        let networks = [AttachedNetwork { prefix: prefix(0), dist: 0, metric: Metric::MIN }];
        net.input(0, Input::AttachedNetworks(&networks));
        let knows = |net: &Net, i: usize| net.nodes[i].fib.contains_key(&prefix(0));
        net.run_while_not(SECOND, |net| knows(net, 1));
        // News, their copy and the TC after.
        net.run_for(SECOND.times(5));
        assert!(!knows(&net, 2) && !knows(&net, 3), "seed {seed}");
        net.edges.insert((one, two), 0);
        let took = net.run_while_not(SECOND.times(12), |net| knows(net, 2) && knows(net, 3));
        let relayed = net.nodes[1].router.counters().relayed;
        assert!(took < SECOND.times(12) && relayed > 0, "seed {seed}: {took}, {relayed} repeated");
    }
}

#[test]
fn a_router_whose_tcs_get_lost_for_long_does_not_expire() {
    // A fifth of all multicasts gets lost, for an hour: without repetition four TCs in a row fail to arrive now and then.
    let mut net = line(3, 6);
    net.run_for(SECOND.times(60));
    net.set_loss(51);
    let mut gone = 0;
    for _ in 0..360 {
        net.run_for(SECOND.times(10));
        gone += usize::from(net.trace(0, olsrv2::NetAddr::host(originator(5))).is_none());
    }
    assert!(gone <= 2, "{gone} of 360");
}

/// A HELLO of node 1's, without neighbours, that says so.
fn forgetful() -> Message {
    let mut m = Message::new(0, 16);
    m.originator = Some(originator(1).into());
    let complete = Tlv { kind: nhdp::COMPLETE, ext: 0, value: None };
    m.tlvs = vec![Tlv::new(1, &[0x64]), Tlv::new(7, &[0x77]), complete];
    let entry = |address: std::net::IpAddr, which| Attributed {
        address: address.into(),
        attributes: vec![Attribute::new(2, &[which])],
    };
    m.blocks = pack(&[entry(link_local(1), 0), entry(originator(1), 1)]);
    m
}

#[test]
fn a_neighbour_that_forgets_us_again_and_again_gets_everything_ever_more_seldom() {
    let mut net = line(5, 8);
    net.connect(0, 2);
    net.run_for(SECOND.times(60));
    let bytes = Packet { seq: None, tlvs: None, messages: vec![forgetful()] }.to_bytes().unwrap();
    let relayed = |net: &Net| net.nodes[0].router.counters().relayed;
    let mut times = Vec::new();
    let mut before = relayed(&net);
    let start = net.nodes[0].router.counters().hellos_out;
    for i in 0..1200 {
        net.input(0, Input::Packet { interface: RADIO, source: link_local(1), bytes: &bytes });
        net.run_for(Duration::from_millis(500));
        let now = relayed(&net);
        if now != before {
            times.push(i / 2);
        }
        before = now;
    }
    let link = net.nodes[0].router.neighbors().find(|n| n.address == link_local(1)).unwrap();
    assert_eq!(link.status, LinkStatus::Symmetric, "the real one speaks as well");
    assert!(!times.is_empty() && times.len() <= 20, "{times:?}");
    assert!(net.nodes[0].router.counters().hellos_out - start < 400, "HELLOs keep their rhythm");
}

#[test]
fn summaries_that_always_differ_have_little_repeated() {
    let mut net = line(6, 8);
    net.run_for(SECOND.times(60));
    let mut hello = forgetful();
    let us = Attributed {
        address: link_local(0).into(),
        attributes: vec![Attribute::new(3, &[1]), Attribute::new(7, &[0xf1, 0x00])],
    };
    hello.tlvs.retain(|t| t.kind != nhdp::COMPLETE);
    hello.blocks.extend(pack(&[us]));
    let before = net.nodes[0].router.counters().relayed;
    for i in 0..1200u16 {
        let mut lie = hello.clone();
        lie.tlvs.push(Tlv::new(SUMMARY, &[i.to_be_bytes(); 64].concat()));
        let bytes = Packet { seq: None, tlvs: None, messages: vec![lie] }.to_bytes().unwrap();
        net.input(0, Input::Packet { interface: RADIO, source: link_local(1), bytes: &bytes });
        net.run_for(Duration::from_millis(250));
    }
    let relayed = net.nodes[0].router.counters().relayed - before;
    // Seven routers, 300 s: about one in ten seconds of each.
    assert!(relayed > 0 && relayed < 7 * 40, "{relayed}");
    // What is no summary is nothing.
    for bad in [&[][..], &[1; 31], &[1; 48], &[1; 129], &[1; 255]] {
        let mut odd = hello.clone();
        odd.tlvs.push(Tlv::new(SUMMARY, bad));
        let bytes = Packet { seq: None, tlvs: None, messages: vec![odd] }.to_bytes().unwrap();
        net.input(0, Input::Packet { interface: RADIO, source: link_local(1), bytes: &bytes });
    }
}

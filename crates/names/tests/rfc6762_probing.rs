//! RFC 6762 §§8–10: claiming a name, keeping it, giving it up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

mod common;

use common::*;
use mesh_types::{Instant, NodeName};
use names::wire::{self, CLASS_IN, Message, Question, Record, rtype};
use names::{Destination, Event, Input, Rival, Role};
use std::net::IpAddr;

fn probe_of(name: &str, records: Vec<Record>) -> Message {
    let q = Question { name: local(name), rtype: rtype::ANY, class: CLASS_IN, unicast: true };
    let authority = records.into_iter().map(|r| Record { flush: false, ..r }).collect();
    Message { questions: vec![q], authority, ..Default::default() }
}

#[test]
fn rfc6762_8_1_first_probe_after_a_random_delay_of_up_to_250_ms() {
    let mut delays: Vec<u64> = (0..200)
        .map(|seed| {
            let mut h = Host::starting(seed);
            h.run_until_sent(1_000)
        })
        .collect();
    delays.sort_unstable();
    assert!(delays[0] < 15 && delays[199] > 235 && delays[199] <= 251, "{delays:?}");
    assert!((90..=160).contains(&delays[100]), "not uniform: {delays:?}");
}

#[test]
fn rfc6762_8_1_three_probes_250_ms_apart_of_type_any_asking_for_unicast() {
    let mut h = Host::starting(3);
    h.run_for(1_200);
    let probes: Vec<_> = h.sent.iter().filter(|s| s.is_probe()).collect();
    assert_eq!(probes.len(), 3);
    assert_eq!(probes[1].ms - probes[0].ms, 250);
    assert_eq!(probes[2].ms - probes[1].ms, 250);
    for p in &probes {
        assert!(p.multicast());
        let [q] = p.message.questions.as_slice() else { panic!("{:?}", p.message) };
        assert_eq!((&q.name, q.rtype, q.class, q.unicast), (&local("bloor"), rtype::ANY, CLASS_IN, true));
        // §8.2: all the proposed records, without the cache-flush bit.
        let proposed: Vec<_> = p.message.authority.iter().filter_map(Record::as_address).collect();
        assert_eq!(proposed, ["192.168.1.1".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
        assert!(p.message.authority.iter().all(|r| !r.flush));
        assert!(p.message.answers.is_empty());
    }
    let announced = h.sent.iter().find(|s| s.message.header.response).unwrap();
    assert_eq!(announced.ms - probes[2].ms, 250);
    assert!(announced.ms <= 1_000);
}

#[test]
fn rfc6762_8_1_answers_before_the_first_probe_and_from_the_cache_are_ignored() {
    let mut h = Host::starting(4);
    h.hear(PEER, &response(vec![a("bloor", "192.168.1.9", 120)])).unwrap();
    h.run_for(2_500);
    assert_eq!(h.core.name().as_str(), "bloor");
    assert!(h.events.iter().any(|e| matches!(e, Event::Established { .. })));
}

#[test]
fn rfc6762_8_1_conflict_while_probing_renames_and_probes_again() {
    // Any type of that name is a conflict.
    let mut txt = a("bloor", "192.168.1.9", 120);
    (txt.rtype, txt.rdata) = (rtype::TXT, vec![0]);
    for taken in [a("bloor", "192.168.1.9", 120), txt] {
        let mut h = Host::starting(5);
        h.run_until_sent(300);
        h.take();
        h.hear(PEER, &response(vec![taken])).unwrap();
        let [Event::Renamed { from, to, rival }] = h.events.as_slice() else { panic!("{:?}", h.events) };
        assert_eq!((from.as_str(), to.as_str()), ("bloor", "bloor-2"));
        assert_eq!(*rival, Rival::Link { interface: LINK, address: [192, 168, 1, 9].into() });
        h.run_for(2_500);
        let sent = h.take();
        assert_eq!(sent.iter().filter(|s| s.is_probe()).count(), 3);
        assert!(
            sent.iter().filter(|s| s.is_probe()).all(|s| s.message.questions[0].name == local("bloor-2"))
        );
        assert!(sent.iter().any(|s| s.message.header.response && !s.answers_of(A).is_empty()));
    }
}

#[test]
fn rfc6762_8_1_unicast_defence_counts_while_probing_and_only_then() {
    let mut h = Host::starting(5);
    h.run_until_sent(300);
    let me: IpAddr = [192, 168, 1, 1].into();
    h.hear_at(PEER, me, &response(vec![a("bloor", "192.168.1.9", 120)])).unwrap();
    assert_eq!(h.core.name().as_str(), "bloor-2");
    let mut h = Host::established();
    h.hear_at(PEER, me, &response(vec![a("bloor", "192.168.1.9", 120)])).unwrap_err();
    assert!(h.events.is_empty());
}

#[test]
fn rfc6762_8_1_fifteen_conflicts_in_ten_seconds_slow_down() {
    let mut h = Host::starting(6);
    let mut waits = Vec::new();
    for _ in 0..20 {
        let waited = h.run_until_sent(7_000);
        waits.push(waited);
        let name = h.core.name().as_str().to_owned();
        h.hear(PEER, &response(vec![a(&name, "192.168.1.9", 120)])).unwrap();
    }
    assert!(waits[..15].iter().all(|w| *w <= 251), "{waits:?}");
    assert!(waits[15..].iter().all(|w| *w >= 5_000), "{waits:?}");
    assert_eq!(h.core.name().as_str(), "bloor-21");
}

#[test]
fn rfc6762_8_2_the_lexicographically_earlier_probe_waits_a_second() {
    // 192.168.1.9 is later than 192.168.1.1: we lose, and try again.
    let mut h = Host::starting(7);
    h.run_until_sent(300);
    h.take();
    h.hear(PEER, &probe_of("bloor", vec![a("bloor", "192.168.1.9", 120)])).unwrap();
    assert_eq!(h.run_until_sent(3_000), 1_000);
    assert!(h.sent[0].is_probe());
    h.run_for(2_000);
    assert_eq!(h.core.name().as_str(), "bloor", "the other probe was stale");
    assert!(h.core.is_settled());
}

#[test]
fn rfc6762_8_2_the_later_probe_and_an_equal_one_go_on() {
    let ours = || vec![a("bloor", "192.168.1.1", 120), a("bloor", "fe80::1", 120)];
    for theirs in [vec![a("bloor", "192.168.0.200", 120)], ours(), vec![a("bloor", "192.168.1.1", 120)]] {
        let mut h = Host::starting(8);
        h.run_until_sent(300);
        h.hear(PEER, &probe_of("bloor", theirs)).unwrap();
        h.run_for(800);
        assert_eq!(h.sent.iter().filter(|s| s.is_probe()).count(), 3);
        assert!(h.core.is_settled());
    }
}

#[test]
fn rfc6762_8_2_bytes_compare_unsigned_and_types_before_data() {
    // AAAA is a higher type than A: with only an AAAA the other list is later at its first record.
    for (theirs, lose) in [
        ("192.168.200.1", true), // 200 > 1 unsigned
        ("fd00::1", true),
        ("1.255.255.255", false),
    ] {
        let mut h = Host::starting(9);
        h.run_until_sent(300);
        h.take();
        h.hear(PEER, &probe_of("bloor", vec![a("bloor", theirs, 120)])).unwrap();
        assert_eq!(h.run_until_sent(3_000) >= 999, lose, "{theirs}");
    }
}

#[test]
fn rfc6762_8_2_names_in_data_compare_uncompressed() {
    // Ours: SRV 0 0 80 bloor.local. Theirs points to "aaa.local", compressed on the wire: it is earlier,
    // though its compressed bytes (0x03 …, then a pointer 0xc0..) might not be.
    let mut h = Host::bare(1, vec![http()]);
    h.addresses(&["192.168.1.1/24"]);
    h.run_until_sent(300);
    h.take();
    let name = wire::name_from_labels([&b"bloor"[..], b"_http", b"_tcp", b"local"]).unwrap();
    let mut rdata = vec![0, 0, 0, 0, 0, 80];
    rdata.extend_from_slice(local("aaa").as_slice());
    let txt = Record {
        name: name.clone(),
        rtype: rtype::TXT,
        class: CLASS_IN,
        flush: false,
        ttl: 4500,
        rdata: b"\x06path=/".to_vec(),
    };
    let srv = Record { rtype: rtype::SRV, rdata, ..txt.clone() };
    let q = Question { name, rtype: rtype::ANY, class: CLASS_IN, unicast: true };
    let message = Message { questions: vec![q], authority: vec![srv, txt], ..Default::default() };
    h.hear(PEER, &message).unwrap();
    assert!(h.run_until_sent(3_000) <= 250, "earlier data must not win");
}

#[test]
fn rfc6762_8_3_two_announcements_one_second_apart_and_never_again() {
    let mut h = Host::starting(10);
    h.run_for(3_600_000);
    let announced: Vec<_> = h.sent.iter().filter(|s| s.message.header.response).collect();
    assert_eq!(announced.len(), 2, "{announced:?}");
    assert_eq!(announced[1].ms - announced[0].ms, 1_000);
    for s in announced {
        assert!(s.multicast() && s.message.questions.is_empty());
        assert_eq!(s.addresses().len(), 2);
        assert_eq!(s.answers_of(rtype::PTR).len(), 2, "the reverse mappings");
        // §10: 120 s; §10.2: the cache-flush bit on unique records.
        assert!(s.message.answers.iter().all(|r| r.flush && r.ttl == 120));
    }
}

#[test]
fn rfc6762_8_4_address_change_is_announced_without_probing() {
    let mut h = Host::established();
    h.addresses(&["192.168.1.1/24", "192.168.0.1/24", "fe80::1/64"]);
    h.run_for(5_000);
    let sent = h.take();
    assert!(sent.iter().all(|s| !s.is_probe()));
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].ms, 60_000, "at once");
    assert_eq!(sent[1].ms - sent[0].ms, 1_000);
    assert!(sent[1].addresses().contains(&[192, 168, 0, 1].into()));
    // The node's own addresses count too.
    h.input(Input::NodeAddresses(vec!["fd01::1".parse().unwrap()])).unwrap();
    h.run_for(5_000);
    assert!(h.take()[0].addresses().contains(&"fd01::1".parse().unwrap()));
}

#[test]
fn rfc6762_10_1_removed_address_gets_a_goodbye_if_nothing_replaces_it() {
    let mut h = Host::established();
    h.addresses(&["fe80::1/64"]);
    h.run_for(3_000);
    let sent = h.take();
    let gone: Vec<_> = sent[0].message.answers.iter().filter(|r| r.ttl == 0).collect();
    assert_eq!(gone.len(), 2, "A and its reverse mapping: {gone:?}");
    assert_eq!(gone[0].as_address(), Some([192, 168, 1, 1].into()));
    let last = sent.last().unwrap();
    assert_eq!(last.addresses(), ["fe80::1".parse::<IpAddr>().unwrap()]);
}

#[test]
fn rfc6762_10_1_goodbye_at_the_end() {
    let mut h = Host::established();
    h.input(Input::Shutdown).unwrap();
    let sent = h.take();
    assert_eq!(sent.len(), 1);
    assert!(sent[0].message.answers.iter().all(|r| r.ttl == 0));
    assert_eq!(sent[0].addresses().len(), 2);
    h.run_for(10_000);
    assert!(h.take().is_empty());
}

#[test]
fn rfc6762_10_1_goodbye_of_another_is_no_conflict() {
    let mut h = Host::established();
    h.hear(PEER, &response(vec![a("bloor", "192.168.1.9", 0)])).unwrap();
    assert!(h.events.is_empty() && h.core.is_settled());
}

#[test]
fn rfc6762_9_a_later_conflict_goes_back_to_probing_and_may_be_lost() {
    let mut h = Host::established();
    h.hear(PEER, &response(vec![a("bloor", "192.168.1.9", 120)])).unwrap();
    assert!(matches!(h.events[..], [Event::Conflict { .. }]));
    assert!(!h.core.is_settled());
    h.run_until_sent(300);
    assert!(h.sent[0].is_probe());
    assert_eq!(h.sent[0].message.questions[0].name, local("bloor"));
    // The other defends itself: it keeps the name.
    h.hear(PEER, &response(vec![a("bloor", "192.168.1.9", 120)])).unwrap();
    let start = h.ms();
    h.run_for(1_200);
    assert_eq!(h.core.name().as_str(), "bloor-2");
    assert!(h.core.is_settled(), "settled within {} ms", h.ms() - start);
}

#[test]
fn rfc6762_9_identical_records_and_other_types_are_no_conflict() {
    let mut h = Host::established();
    let mut txt = a("bloor", "192.168.1.1", 120);
    (txt.rtype, txt.rdata) = (rtype::TXT, vec![0]);
    h.hear(PEER, &response(vec![a("bloor", "192.168.1.1", 120), txt])).unwrap();
    assert!(h.events.is_empty() && h.core.is_settled());
}

#[test]
fn rfc6762_10_2_own_announcement_heard_on_another_link_is_no_conflict() {
    let mut h = Host::established();
    let other = vec![address("10.9.9.1/24")];
    h.input(Input::Interface { index: 8, addresses: other, role: Role::Mesh }).unwrap();
    h.run_for(5_000);
    h.events.clear();
    // What was said on link 8 comes back on link 7.
    h.hear("10.9.9.1:5353", &response(vec![a("bloor", "10.9.9.1", 120)])).unwrap();
    assert!(h.events.is_empty() && h.core.is_settled());
}

#[test]
fn rfc6762_6_6_ours_with_too_short_a_life_is_corrected() {
    let mut h = Host::established();
    h.hear(PEER, &response(vec![a("bloor", "192.168.1.1", 59)])).unwrap();
    h.run_for(10);
    assert_eq!(h.take().len(), 1);
    h.hear(PEER, &response(vec![a("bloor", "192.168.1.1", 60)])).unwrap();
    h.run_for(5_000);
    assert!(h.take().is_empty());
}

#[test]
fn rename_says_goodbye_on_other_links_and_keeps_one_name_for_all() {
    let mut h = Host::established();
    let other = vec![address("10.9.9.1/24")];
    h.input(Input::Interface { index: 8, addresses: other, role: Role::Mesh }).unwrap();
    h.run_for(5_000);
    h.take();
    h.hear(PEER, &response(vec![a("bloor", "192.168.1.9", 120)])).unwrap();
    h.run_until_sent(300);
    h.take();
    h.hear(PEER, &response(vec![a("bloor", "192.168.1.9", 120)])).unwrap();
    let sent = h.take();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].interface, 8);
    // Without the cache-flush bit, or it would hurt the winner's records.
    assert!(sent[0].message.answers.iter().all(|r| r.ttl == 0 && !r.flush));
    h.run_for(2_000);
    assert_eq!(h.core.name(), &NodeName::new("bloor-2").unwrap());
    assert!(h.take().iter().filter(|s| s.is_probe()).any(|s| s.interface == 8));
    assert_eq!(h.core.configured_name().as_str(), "bloor");
}

#[test]
fn two_nodes_of_one_name_settle_it_within_two_and_a_half_seconds() {
    // One has the name; the other comes up and asks for it.
    let mut first = Host::established();
    let mut second = Host::bare(77, Vec::new());
    second.now = first.now;
    second.addresses(&["192.168.1.2/24", "fe80::2/64"]);
    let start = first.ms();
    let (mut seen_a, mut seen_b) = (0, 0);
    while !(second.core.is_settled() && second.core.name().as_str() == "bloor-2") {
        first.run_for(1);
        second.run_for(1);
        // Each hears the other, and itself.
        for (i, host_is_first) in [(seen_a, true), (seen_b, false)] {
            let sent = if host_is_first { first.sent[i..].to_vec() } else { second.sent[i..].to_vec() };
            let from = if host_is_first { "192.168.1.1:5353" } else { "192.168.1.2:5353" };
            for s in sent {
                let to = match s.to {
                    Destination::Multicast => IpAddr::V4(names::MDNS_GROUP_V4),
                    Destination::Unicast(to) => to.ip(),
                };
                if s.multicast() || !host_is_first {
                    let _ = first.hear_bytes(from, to, &s.bytes);
                }
                if s.multicast() || host_is_first {
                    let _ = second.hear_bytes(from, to, &s.bytes);
                }
            }
        }
        // What each sent in answer to the above is delivered in the next round.
        seen_a = first.sent.len().min(seen_a.max(first.sent.iter().filter(|s| s.ms < first.ms()).count()));
        seen_b = second.sent.len().min(seen_b.max(second.sent.iter().filter(|s| s.ms < second.ms()).count()));
        assert!(second.ms() - start < 2_500, "not settled: {}", second.core.name());
    }
    assert_eq!(first.core.name().as_str(), "bloor");
    assert!(first.core.is_settled());
    assert!(first.now > Instant::ZERO);
}

//! Other nodes' names, addresses and services on an access point's link, and on no other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

mod common;

use std::net::IpAddr;

use common::{Host, LINK, PEER, a, address, local, node, query, question, response};
use mesh_types::{Duration, NodeName};
use names::wire::{Question, Record, rtype};
use names::{Input, NameRecord, Role, Service};

/// The link of the access point.
const AP: u32 = 9;
const CLIENT: &str = "10.0.0.77:5353";

fn far() -> NameRecord {
    NameRecord {
        name: NodeName::new("far").unwrap(),
        level: 1,
        addresses: vec!["fd09::1".parse().unwrap(), "10.64.0.9".parse().unwrap()],
        services: vec![
            Service::new("_http", true, 80),
            Service { title: Some("Library".into()), ..Service::new("_http", true, 8000) },
        ],
    }
}

fn learn(h: &mut Host, n: u8, record: &NameRecord) {
    let valid = Duration::from_secs(24);
    h.input(Input::Record { node: node(n), hops: 5, valid, payload: &record.encode() }).unwrap();
}

/// `bloor` with a mesh link and an access point, which knows `far`.
fn bloor() -> Host {
    let mut h = Host::established();
    h.input(Input::Router(true)).unwrap();
    h.input(Input::Interface { index: AP, addresses: vec![address("10.0.0.1/24")], role: Role::AccessPoint })
        .unwrap();
    h.run_for(10_000);
    learn(&mut h, 9, &far());
    h.run_for(5_000);
    h.sent.clear();
    h.events.clear();
    h
}

fn ask(name: &str, rtype: u16) -> Vec<Question> {
    vec![question(&local(name), rtype)]
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|a| a.parse().unwrap()).collect()
}

#[test]
fn a_mesh_name_is_answered_at_once_on_the_access_point_and_nowhere_else() {
    let mut h = bloor();
    h.hear_on(AP, CLIENT, &query(ask("far", rtype::A)));
    let [answer] = h.sent.as_slice() else { panic!("{:?}", h.sent) };
    assert!(answer.multicast() && answer.interface == AP);
    assert_eq!(answer.addresses(), ips(&["10.64.0.9"]));
    assert!(answer.message.answers.iter().all(|r| r.flush && r.ttl == 120));
    let other: Vec<_> = answer.message.additional.iter().filter_map(Record::as_address).collect();
    assert_eq!(other, ips(&["fd09::1"]));
    h.sent.clear();
    h.run_for(2_000);
    h.hear_on(LINK, PEER, &query(ask("far", rtype::A)));
    h.run_for(2_000);
    assert!(h.sent.is_empty(), "{:?}", h.sent);
}

#[test]
fn nothing_is_said_of_other_nodes_unasked() {
    let mut h = bloor();
    learn(&mut h, 8, &NameRecord { name: NodeName::new("other").unwrap(), ..far() });
    h.run_for(60_000);
    h.input(Input::RecordGone(node(8))).unwrap();
    assert!(h.sent.is_empty(), "{:?}", h.sent);
}

#[test]
fn reverse_mappings_negative_answers_and_known_answers() {
    let mut h = bloor();
    let reverse = names::wire::reverse_name("10.64.0.9".parse().unwrap()).unwrap();
    h.hear_on(AP, CLIENT, &query(vec![question(&reverse, rtype::PTR)]));
    assert_eq!(h.sent[0].message.answers[0].as_target(), Some(local("far")));
    h.sent.clear();
    h.run_for(2_000);
    h.hear_on(AP, CLIENT, &query(ask("far", rtype::TXT)));
    assert_eq!(h.sent[0].answers_of(rtype::NSEC)[0].nsec_has(rtype::A), Some(true));
    h.sent.clear();
    h.run_for(2_000);
    let mut asked = query(ask("far", rtype::A));
    asked.answers = vec![a("far", "10.64.0.9", 100)];
    h.hear_on(AP, CLIENT, &asked);
    assert!(h.sent.is_empty(), "{:?}", h.sent);
}

#[test]
fn rfc6763_4_services_of_other_nodes_are_listed_with_all_they_need() {
    let mut h = bloor();
    let kind = names::wire::name_from_labels([&b"_http"[..], b"_tcp", b"local"]).unwrap();
    h.hear_on(AP, CLIENT, &query(vec![question(&kind, rtype::PTR)]));
    h.run_for(200);
    let [answer] = h.sent.as_slice() else { panic!("{:?}", h.sent) };
    assert!((15..=200).contains(&(answer.ms % 1_000)));
    let targets: Vec<_> = answer.message.answers.iter().filter_map(Record::as_target).collect();
    assert_eq!(targets.len(), 2);
    assert!(targets.iter().any(|t| t.to_string().contains("Library")), "{targets:?}");
    let extra = &answer.message.additional;
    assert_eq!(extra.iter().filter(|r| r.rtype == rtype::SRV).count(), 2);
    assert_eq!(extra.iter().filter(|r| r.rtype == rtype::TXT).count(), 2);
    assert_eq!(extra.iter().filter_map(Record::as_address).count(), 2);
}

#[test]
fn a_client_that_wants_the_name_is_told_that_it_is_taken() {
    let mut h = bloor();
    let mut probe = query(vec![Question { unicast: true, ..question(&local("far"), rtype::ANY) }]);
    probe.authority = vec![Record { flush: false, ..a("far", "10.0.0.77", 120) }];
    h.hear_on(AP, CLIENT, &probe);
    assert!(
        h.sent.iter().any(|s| !s.multicast() && s.addresses() == ips(&["fd09::1", "10.64.0.9"])),
        "{:?}",
        h.sent
    );
}

#[test]
fn a_node_that_joins_an_access_point_itself_is_left_alone() {
    let mut h = bloor();
    let mut probe = query(vec![Question { unicast: true, ..question(&local("far"), rtype::ANY) }]);
    probe.authority = vec![a("far", "10.0.0.77", 120), a("far", "10.64.0.9", 120)];
    h.hear_on(AP, CLIENT, &probe);
    h.run_for(1_000);
    assert!(h.sent.is_empty(), "{:?}", h.sent);
}

#[test]
fn a_host_of_the_link_that_has_the_name_answers_for_itself() {
    let mut h = bloor();
    h.hear_on(AP, CLIENT, &response(vec![a("far", "10.0.0.77", 120)]));
    h.hear_on(AP, CLIENT, &query(ask("far", rtype::A)));
    assert!(h.sent.is_empty(), "{:?}", h.sent);
    h.hear_on(AP, CLIENT, &response(vec![a("far", "10.0.0.77", 0)]));
    h.hear_on(AP, CLIENT, &query(ask("far", rtype::A)));
    assert_eq!(h.sent.len(), 1);
}

#[test]
fn identical_answers_of_two_overlapping_access_points_are_no_conflict() {
    let (mut h, mut other) = (bloor(), bloor());
    other.hear_on(AP, CLIENT, &query(ask("far", rtype::A)));
    let said = other.sent.pop().unwrap();
    h.hear_on(AP, "10.0.0.2:5353", &said.message);
    h.hear_on(AP, CLIENT, &query(ask("far", rtype::A)));
    assert_eq!(h.sent.last().unwrap().message, said.message);
    h.run_for(10_000);
    assert!(h.events.is_empty() && h.core.name().as_str() == "bloor", "{:?}", h.events);
    assert!(h.core.table().lookup(&NodeName::new("far").unwrap()).is_some());
}

#[test]
fn dns_of_the_world_is_forwarded_with_an_uplink_and_refused_without() {
    let mut h = bloor();
    let name = |labels: &[&str]| names::wire::name_from_labels(labels.iter().map(|l| l.as_bytes())).unwrap();
    let world = name(&["www", "example", "org"]);
    assert_eq!(h.dns(&world, rtype::A).header.rcode, 5);
    h.input(Input::Upstream(true)).unwrap();
    let mut asked = query(vec![question(&world, rtype::A)]);
    asked.header.id = 7;
    let payload = names::wire::emit(&asked, 512, true).bytes;
    h.input(Input::Dns { client: 1, stream: false, payload: &payload }).unwrap();
    assert_eq!(h.forwarded, [(1, payload)]);
    assert!(h.replies.is_empty());
    // What is ours to know, or nobody's, is never asked outside.
    h.forwarded.clear();
    let private = names::wire::reverse_name("192.168.77.1".parse().unwrap()).unwrap();
    for name in [
        name(&["nobody", "local"]),
        name(&["a", "b", "local"]),
        name(&["x", "test"]),
        name(&["host"]),
        private,
    ] {
        assert_eq!(h.dns(&name, rtype::A).header.rcode, 3, "{name}");
    }
    assert_eq!(h.dns(&local("far"), rtype::A).answers.len(), 1);
    assert!(h.forwarded.is_empty());
}

#[test]
fn probes_for_a_captive_portal_find_this_node() {
    let mut h = bloor();
    h.input(Input::Upstream(true)).unwrap();
    let name = names::wire::name_from_labels([&b"Captive"[..], b"apple", b"com"]).unwrap();
    let answer = h.dns(&name, rtype::A);
    assert_eq!(answer.answers.iter().filter_map(Record::as_address).collect::<Vec<_>>(), ips(&["10.0.0.1"]));
    let below = names::wire::name_from_labels([&b"x"[..], b"captive", b"apple", b"com"]).unwrap();
    h.input(Input::Upstream(false)).unwrap();
    assert_eq!(h.dns(&below, rtype::A).header.rcode, 5);
}

#[test]
fn what_was_said_of_a_node_is_taken_back_when_it_is_gone_or_changes() {
    let mut h = bloor();
    h.hear_on(AP, CLIENT, &query(ask("far", rtype::A)));
    h.sent.clear();
    h.run_for(2_000);
    let moved = NameRecord { addresses: ips(&["fd09::1", "10.64.0.10"]), ..far() };
    learn(&mut h, 9, &moved);
    let [goodbye] = h.sent.as_slice() else { panic!("{:?}", h.sent) };
    assert_eq!((goodbye.addresses(), goodbye.message.answers[0].ttl), (ips(&["10.64.0.9"]), 0));
    h.sent.clear();
    h.hear_on(AP, CLIENT, &query(ask("far", rtype::A)));
    h.sent.clear();
    h.input(Input::RecordGone(node(9))).unwrap();
    let gone: Vec<IpAddr> = h.sent.iter().flat_map(common::Sent::addresses).collect();
    assert!(gone.contains(&"10.64.0.10".parse().unwrap()), "{:?}", h.sent);
    assert!(h.sent.iter().all(|s| s.interface == AP && s.message.answers.iter().all(|r| r.ttl == 0)));
    h.sent.clear();
    h.hear_on(AP, CLIENT, &query(ask("far", rtype::A)));
    assert!(h.sent.is_empty());
}

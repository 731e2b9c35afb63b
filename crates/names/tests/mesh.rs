//! Names across the mesh, and what unicast DNS clients see of all of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

mod common;

use common::*;
use mesh_types::{Duration, NodeName};
use names::wire::{self, Header, Message, Record, rcode, rtype};
use names::{Event, Input, NameRecord, Provenance, Rival, Role};
use std::net::IpAddr;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn record(name: &str, level: u8, addresses: &[&str]) -> Vec<u8> {
    let name = NodeName::new(name).unwrap();
    NameRecord { name, level, addresses: addresses.iter().map(|a| ip(a)).collect(), services: vec![] }
        .encode()
}

fn learn(h: &mut Host, n: u8, hops: u8, payload: &[u8]) {
    let valid = Duration::from_secs(30);
    h.input(Input::Record { node: node(n), hops, valid, payload }).unwrap();
}

fn published(h: &Host) -> NameRecord {
    NameRecord::decode(h.published.last().expect("a record was published")).unwrap()
}

#[test]
fn the_own_record_is_published_once_the_name_is_ours_and_follows_addresses() {
    let mut h = Host::starting(1);
    h.input(Input::NodeAddresses(vec![ip("fd05::1"), ip("10.64.0.5")])).unwrap();
    assert!(h.published.is_empty());
    h.run_for(1_001);
    let r = published(&h);
    assert_eq!((r.name.as_str(), r.level), ("bloor", 0));
    // Mesh addresses first, no link-local ones.
    assert_eq!(r.addresses, [ip("fd05::1"), ip("10.64.0.5"), ip("192.168.1.1")]);
    h.addresses(&["192.168.1.1/24", "192.168.0.1/24"]);
    assert!(published(&h).addresses.contains(&ip("192.168.0.1")));
    // An access point's addresses are the same on every node.
    let addresses = vec![address("10.0.0.1/24")];
    h.input(Input::Interface { index: 9, addresses, role: Role::AccessPoint }).unwrap();
    h.run_for(2_000);
    // An uplink's belong to another network, where they may be someone else's.
    let addresses = vec![address("192.168.178.20/24")];
    h.input(Input::Interface { index: 10, addresses, role: Role::Uplink }).unwrap();
    h.run_for(2_000);
    let known = published(&h).addresses;
    assert!(!known.contains(&ip("10.0.0.1")) && !known.contains(&ip("192.168.178.20")), "{known:?}");
}

#[test]
fn the_claims_level_rises_with_time_and_only_then_is_it_published_again() {
    let mut h = Host::starting(1);
    h.run_for(3_600_000);
    let levels: Vec<u8> = h.published.iter().map(|p| NameRecord::decode(p).unwrap().level).collect();
    assert_eq!(levels, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_node_without_any_link_still_claims_its_name() {
    let mut h = Host::bare(1, Vec::new());
    h.input(Input::NodeAddresses(vec![ip("fd05::1")])).unwrap();
    h.run_for(2_500);
    assert_eq!(published(&h).addresses, [ip("fd05::1")]);
}

#[test]
fn an_identity_found_late_claims_the_name() {
    let config = names::Config { name: NodeName::new("bloor").unwrap(), node: None, services: Vec::new() };
    let mut h = Host::starting(1);
    h.core = names::Names::new(config, 1, h.now);
    h.addresses(&["192.168.1.1/24"]);
    h.run_for(5_000);
    assert!(h.published.is_empty());
    h.input(Input::Identity(node(5))).unwrap();
    assert_eq!(published(&h).name.as_str(), "bloor");
}

#[test]
fn a_router_that_comes_back_gets_the_record_again() {
    let mut h = Host::established();
    h.input(Input::Router(false)).unwrap();
    h.published.clear();
    h.input(Input::Router(true)).unwrap();
    assert_eq!(h.published.len(), 1);
}

#[test]
fn the_later_claim_renames_and_the_earlier_keeps() {
    // Ours is a minute old.
    let mut h = Host::established();
    learn(&mut h, 9, 3, &record("bloor", 0, &["fd09::1"]));
    h.run_for(1_000);
    assert!(h.events.is_empty(), "theirs is younger");
    // Theirs is older.
    learn(&mut h, 9, 3, &record("bloor", 7, &["fd09::1"]));
    let [Event::Renamed { to, rival, .. }] = h.events.as_slice() else { panic!("{:?}", h.events) };
    assert_eq!((to.as_str(), *rival), ("bloor-2", Rival::Mesh(node(9))));
    h.run_for(2_000);
    assert_eq!(published(&h).name.as_str(), "bloor-2");
    assert_eq!(published(&h).level, 0, "a new claim");
    // The old name is now the other's.
    assert_eq!(h.dns(&local("bloor"), AAAA).answers[0].as_address(), Some(ip("fd09::1")));
}

#[test]
fn a_rename_passes_over_names_the_mesh_knows() {
    let mut h = Host::established();
    learn(&mut h, 8, 1, &record("bloor-2", 0, &["fd08::1"]));
    learn(&mut h, 9, 1, &record("bloor", 20, &["fd09::1"]));
    assert_eq!(h.core.name().as_str(), "bloor-3");
}

#[test]
fn partitions_that_heal_with_a_clash_settle_the_same_way_on_both_sides() {
    for (level_a, level_b) in [(0, 0), (4, 4), (5, 4), (0, 9)] {
        // Node 5 is every Host's identity; node 9 is the other. Lower identifier wins among equals.
        let mut h = Host::starting(1);
        h.run_for(2_000 + names::level_reached(level_a).as_micros() / 1_000);
        let ours = published(&h).level;
        assert_eq!(ours, level_a);
        learn(&mut h, 9, 2, &record("bloor", level_b, &["fd09::1"]));
        h.run_for(2_000);
        let we_keep = h.core.name().as_str() == "bloor";
        assert_eq!(we_keep, names::keeps((ours, node(5)), (level_b, node(9))));
    }
}

#[test]
fn expired_and_departed_nodes_are_forgotten() {
    let mut h = Host::established();
    h.input(Input::Router(true)).unwrap();
    learn(&mut h, 9, 2, &record("far", 1, &["fd09::1"]));
    h.run_for(100_000);
    assert_eq!(h.core.table().len(), 1, "the router says what expires");
    h.input(Input::RecordGone(node(9))).unwrap();
    assert!(h.core.table().is_empty());
    learn(&mut h, 9, 2, &record("far", 1, &["fd09::1"]));
    h.input(Input::Router(false)).unwrap();
    h.run_for(29_000);
    assert_eq!(h.core.table().len(), 1);
    h.run_for(2_000);
    assert!(h.core.table().is_empty(), "without it they expire by themselves");
}

#[test]
fn bad_records_are_counted_and_change_nothing() {
    let mut h = Host::established();
    let valid = Duration::from_secs(30);
    h.input(Input::Record { node: node(9), hops: 1, valid, payload: &[1, 2, 3] }).unwrap_err();
    assert_eq!(h.core.counters().bad_records, 1);
    assert!(h.core.table().is_empty());
}

#[test]
fn dns_own_name_in_both_families_and_reverse() {
    let mut h = Host::established();
    h.input(Input::NodeAddresses(vec![ip("fd05::1"), ip("10.64.0.5")])).unwrap();
    let r = h.dns(&local("Bloor"), A);
    assert_eq!(
        r.header,
        Header {
            id: 0x4242,
            response: true,
            authoritative: true,
            recursion_desired: true,
            ..Default::default()
        }
    );
    let got: Vec<_> = r.answers.iter().filter_map(Record::as_address).collect();
    assert_eq!(got, [ip("10.64.0.5"), ip("192.168.1.1")]);
    let r = h.dns(&local("bloor"), AAAA);
    assert_eq!(r.answers[0].as_address(), Some(ip("fd05::1")));
    assert_eq!(r.answers.len(), 1, "link-local addresses are of no use without an interface");
    for a in ["192.168.1.1", "10.64.0.5", "fd05::1", "fe80::1"] {
        let r = h.dns(&wire::reverse_name(ip(a)).unwrap(), rtype::PTR);
        assert_eq!(r.answers[0].as_target(), Some(local("bloor")), "{a}");
    }
}

#[test]
fn dns_a_name_without_that_family_exists_nevertheless() {
    let mut h = Host::established();
    learn(&mut h, 9, 2, &record("far", 1, &["fd09::1"]));
    for (name, t) in [("far", A), ("far", rtype::TXT), ("far", 65), ("bloor", 65)] {
        let r = h.dns(&local(name), t);
        assert_eq!((r.header.rcode, r.answers.len()), (rcode::NOERROR, 0), "{name} {t}");
        assert!(r.header.authoritative, "or glibc asks elsewhere");
    }
}

#[test]
fn dns_mesh_names_are_answered_at_once_and_reversed() {
    let mut h = Host::established();
    learn(&mut h, 9, 7, &record("far", 1, &["fd09::1", "10.64.0.9"]));
    let before = h.ms();
    let r = h.dns(&local("far"), AAAA);
    assert_eq!((h.ms(), r.answers[0].as_address()), (before, Some(ip("fd09::1"))));
    assert!(r.answers[0].ttl <= 10);
    let r = h.dns(&wire::reverse_name(ip("10.64.0.9")).unwrap(), rtype::PTR);
    assert_eq!(r.answers[0].as_target(), Some(local("far")));
    assert!(h.take().is_empty(), "nothing is said on the link");
}

/// Answers as a neighbour would.
fn neighbour(h: &mut Host, name: &str, address: &str, until: u64) {
    let end = h.ms() + until;
    while h.ms() < end {
        for s in h.take() {
            for q in &s.message.questions {
                let known = a(name, address, 120);
                let wanted = q.rtype == rtype::ANY || q.rtype == known.rtype;
                if q.name == local(name) && wanted {
                    h.hear(PEER, &response(vec![known])).unwrap();
                }
            }
        }
        h.run_for(1);
    }
}

#[test]
fn dns_link_names_are_asked_for_by_mdns() {
    let mut h = Host::established();
    let q = wire::emit(&query(vec![question(&local("printer"), A)]), 512, true).bytes;
    h.input(Input::Dns { client: 1, stream: false, payload: &q }).unwrap();
    assert_eq!(h.sent.len(), 1);
    // RFC 6762 §18: ID 0, no flags; one question, for multicast answers.
    assert_eq!(h.sent[0].message.header, Header::default());
    assert!(h.sent[0].multicast() && !h.sent[0].message.questions[0].unicast);
    neighbour(&mut h, "printer", "192.168.1.9", 5);
    let (client, r) = h.replies.pop().expect("answered within 5 ms");
    assert_eq!((client, r.answers[0].as_address()), (1, Some(ip("192.168.1.9"))));
    assert!(!r.answers[0].flush && r.answers[0].ttl <= 10);
    // From then on from the cache, in both senses.
    assert_eq!(h.dns(&local("printer"), A).answers.len(), 1);
    assert!(h.take().is_empty());
}

#[test]
fn dns_both_families_asked_in_parallel_as_libc_does() {
    let mut h = Host::established();
    for (client, t) in [(1, A), (2, AAAA)] {
        let q = wire::emit(&query(vec![question(&local("printer"), t)]), 512, true).bytes;
        h.input(Input::Dns { client, stream: false, payload: &q }).unwrap();
    }
    neighbour(&mut h, "printer", "192.168.1.9", 400);
    let codes: Vec<_> = h.replies.iter().map(|(c, r)| (*c, r.header.rcode, r.answers.len())).collect();
    assert_eq!(codes, [(1, rcode::NOERROR, 1), (2, rcode::NOERROR, 0)], "never NXDOMAIN");
}

#[test]
fn dns_an_unknown_name_is_denied_soon_after_two_tries() {
    let mut h = Host::established();
    let before = h.ms();
    let r = h.dns(&local("nobody"), A);
    assert_eq!(r.header.rcode, rcode::NXDOMAIN);
    assert!(h.ms() - before <= 1_510);
    // RFC 6762 §5.2: a second apart.
    let sent = h.take();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[1].ms - sent[0].ms, 1_000);
    // libc asks for the other family next: that is denied at once, for a while.
    let before = h.ms();
    assert_eq!(h.dns(&local("nobody"), AAAA).header.rcode, rcode::NXDOMAIN);
    assert_eq!(h.ms(), before);
    h.hear(PEER, &response(vec![a("nobody", "192.168.1.9", 120)])).unwrap();
    assert_eq!(h.dns(&local("nobody"), A).answers.len(), 1, "unless it turns up");
}

#[test]
fn dns_an_nsec_answers_at_once() {
    let mut h = Host::established();
    let mut m = response(vec![a("printer", "192.168.1.9", 120)]);
    let nsec = Record { flush: true, ..Record::nsec(local("printer"), 120, &[A]) };
    m.additional.push(nsec);
    h.hear(PEER, &m).unwrap();
    let before = h.ms();
    let r = h.dns(&local("printer"), AAAA);
    assert_eq!((r.header.rcode, r.answers.len(), h.ms()), (rcode::NOERROR, 0, before));
}

#[test]
fn dns_everything_else_is_refused_or_denied_quickly() {
    let mut h = Host::established();
    let name = |text: &str| text.parse::<wire::Name>().unwrap();
    let before = h.ms();
    for (n, t, code) in [
        ("example.com.", A, rcode::REFUSED),
        ("www.example.org.", AAAA, rcode::REFUSED),
        ("local.", rtype::SOA, rcode::NXDOMAIN),
        ("bloor.", A, rcode::NXDOMAIN),
        ("a.b.local.", A, rcode::NXDOMAIN),
        ("x.onion.", A, rcode::NXDOMAIN),
        ("1.1.168.192.in-addr.arpa.", A, rcode::NOERROR),
        ("8.8.8.8.in-addr.arpa.", rtype::PTR, rcode::REFUSED),
        ("1.2.3.10.in-addr.arpa.", rtype::PTR, rcode::NXDOMAIN),
        ("localhost.", A, rcode::NOERROR),
        (".", rtype::NS, rcode::NXDOMAIN),
    ] {
        assert_eq!(h.dns(&name(n), t).header.rcode, code, "{n}");
    }
    assert_eq!(h.ms(), before);
    assert_eq!(h.dns(&name("localhost."), A).answers[0].as_address(), Some(ip("127.0.0.1")));
}

#[test]
fn dns_queries_that_are_none_are_answered_as_rfc1035_says_or_not_at_all() {
    let mut h = Host::established();
    let mut send = |m: &Message| {
        let payload = wire::emit(m, 512, true).bytes;
        h.input(Input::Dns { client: 1, stream: false, payload: &payload }).unwrap();
        h.replies.pop().map(|(_, r)| r.header.rcode)
    };
    let one = query(vec![question(&local("bloor"), A)]);
    assert_eq!(send(&query(Vec::new())), Some(rcode::FORMERR));
    assert_eq!(send(&query(vec![question(&local("bloor"), A); 2])), Some(rcode::FORMERR));
    let notify = Message { header: Header { opcode: 4, ..Default::default() }, ..one.clone() };
    assert_eq!(send(&notify), Some(rcode::NOTIMP));
    // A response is never answered, or two servers would talk for ever.
    assert_eq!(send(&Message { header: Header { response: true, ..Default::default() }, ..one }), None);
    h.input(Input::Dns { client: 1, stream: false, payload: &[1, 2, 3] }).unwrap();
    assert!(h.replies.is_empty());
}

#[test]
fn dns_large_answers_are_truncated_to_what_the_client_takes() {
    let mut h = Host::established();
    let many: Vec<String> = (1..60).map(|i| format!("fd00::{i:x}/64")).collect();
    h.addresses(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let r = h.dns(&local("bloor"), AAAA);
    assert!(r.header.truncated && r.answers.len() >= 15);
    let mut q = query(vec![question(&local("bloor"), AAAA)]);
    q.additional.push(Record {
        name: wire::Name::root_vec(),
        rtype: rtype::OPT,
        class: 1232,
        flush: false,
        ttl: 0,
        rdata: Vec::new(),
    });
    let payload = wire::emit(&q, 512, true).bytes;
    h.input(Input::Dns { client: 1, stream: false, payload: &payload }).unwrap();
    let (_, r) = h.replies.pop().unwrap();
    assert!(r.answers.len() > 30);
    assert!(r.additional.iter().any(|r| r.rtype == rtype::OPT) || r.header.truncated);
}

#[test]
fn people_are_told_all_names_and_their_source() {
    let mut h = Host::established();
    learn(&mut h, 9, 4, &record("far", 1, &["fd09::1"]));
    h.hear(PEER, &response(vec![a("printer", "192.168.1.9", 120), a("far", "192.168.1.8", 120)])).unwrap();
    h.run_for(5_000);
    let list = h.core.list(h.now);
    let seen: Vec<_> = list.iter().map(|k| (k.name.as_str(), k.source, k.hops)).collect();
    assert_eq!(
        seen,
        [
            ("bloor", Provenance::Own, Some(0)),
            ("far", Provenance::Mesh, Some(4)),
            ("printer", Provenance::Link, None),
        ]
    );
    assert_eq!((list[1].node, list[1].age), (Some(node(9)), Duration::from_secs(5)));
    let name = NodeName::new("printer").unwrap();
    h.input(Input::Resolve { token: 3, name }).unwrap();
    h.run_for(300);
    let (3, Some(known)) = h.resolved.pop().unwrap() else { panic!() };
    assert_eq!(known.addresses, [ip("192.168.1.9")]);
    h.input(Input::Resolve { token: 4, name: NodeName::new("nobody").unwrap() }).unwrap();
    h.run_for(1_600);
    assert_eq!(h.resolved.pop().unwrap(), (4, None));
}

#[test]
fn people_are_told_whose_an_address_is() {
    let mut h = Host::established();
    learn(&mut h, 9, 4, &record("far", 1, &["fd09::1", "10.64.0.9"]));
    let asked = |h: &mut Host, address: &str| {
        let before = h.ms();
        h.input(Input::ResolveAddress { token: 8, address: ip(address) }).unwrap();
        while h.resolved.is_empty() && h.ms() < before + 2_000 {
            h.run_for(10);
        }
        h.resolved.pop().expect("an answer").1
    };
    let far = asked(&mut h, "10.64.0.9").unwrap();
    assert_eq!((far.name.as_str(), far.hops, far.source), ("far", Some(4), Provenance::Mesh));
    assert_eq!(asked(&mut h, "fe80::1").unwrap().name, "bloor");
    assert_eq!(asked(&mut h, "8.8.8.8"), None);
    assert!(h.take().is_empty(), "the link is not asked about addresses that are not on it");
    assert_eq!(asked(&mut h, "192.168.1.9"), None);
    assert_eq!(h.take().len(), 2, "asked twice, a second apart");
    let reverse = wire::reverse_name(ip("192.168.1.9")).unwrap();
    let pointer = Record { flush: true, ..Record::ptr(reverse, 120, &local("printer")) };
    h.hear(PEER, &response(vec![pointer.clone()])).unwrap();
    let printer = asked(&mut h, "192.168.1.9").unwrap();
    assert_eq!((printer.name.as_str(), printer.source), ("printer", Provenance::Link));
    assert_eq!(printer.addresses, [ip("192.168.1.9")]);
    h.hear(PEER, &response(vec![a("printer", "192.168.1.9", 120), a("printer", "192.168.1.10", 120)]))
        .unwrap();
    assert_eq!(asked(&mut h, "192.168.1.9").unwrap().addresses.len(), 2);
}

#[test]
fn rfc7766_over_tcp_an_answer_is_whole() {
    let mut h = Host::established();
    let many: Vec<String> = (1..300).map(|i| format!("fd00::{i:x}/64")).collect();
    h.addresses(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let payload = wire::emit(&query(vec![question(&local("bloor"), AAAA)]), 512, true).bytes;
    for (stream, whole) in [(false, false), (true, true)] {
        h.input(Input::Dns { client: 1, stream, payload: &payload }).unwrap();
        let (_, r) = h.replies.pop().unwrap();
        assert_eq!((!r.header.truncated, r.answers.len() == 299), (whole, whole));
    }
}

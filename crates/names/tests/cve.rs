//! What has hurt other responders, one test each: it does not hurt this one. Those of sockets and of the control socket
//! are in `mesh-mdns` and `mesh-sys`; CVE-2017-6519 is in `rfc6762_answering.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

mod common;

use common::*;
use mesh_types::NodeName;
use names::wire::{self, Record, WireError, rcode, rtype};
use names::{InputError, NameRecord, RecordError, Service};
use std::net::IpAddr;

const GROUP: IpAddr = IpAddr::V4(names::MDNS_GROUP_V4);

/// The node still has its name and answers to it.
fn works(h: &mut Host) {
    h.run_for(5_000);
    h.take();
    let name = h.core.name().as_str().to_owned();
    assert_eq!(name, "bloor");
    h.hear("192.168.1.8:5353", &query(vec![question(&local(&name), A)])).unwrap();
    h.run_for(1_500);
    assert!(h.take().iter().any(|s| !s.answers_of(A).is_empty()));
}

/// avahi took a packet without content for more to come, for ever.
#[test]
fn cve_2011_1002_empty_packets_cost_nothing() {
    let mut h = Host::established();
    for _ in 0..1_000 {
        assert_eq!(h.hear_bytes(PEER, GROUP, &[]), Err(InputError::Wire(WireError::Short)));
    }
    h.hear_bytes(PEER, GROUP, &[0; 12]).unwrap();
    h.run_for(1_000);
    assert!(h.take().is_empty());
    works(&mut h);
}

/// avahi's reflector took its own legacy queries for those of others and multicast them again and again.
#[test]
fn cve_2009_0758_legacy_queries_are_answered_once_and_to_the_asker_alone() {
    let mut h = Host::established();
    // As if they were this node's own, and from others; each comes back from a reflector as often as it can.
    for from in ["192.168.1.1:40000", "192.168.1.1:59155", "192.168.1.9:40000"] {
        for _ in 0..100 {
            h.hear(from, &query(vec![question(&local("bloor"), A), question(&local("other"), A)])).unwrap();
        }
        let sent = h.take();
        assert!(sent.len() <= 100 && sent.iter().all(|s| !s.multicast()), "{} messages", sent.len());
    }
    h.run_for(10_000);
    assert!(h.take().is_empty(), "nothing is ever passed on");
}

#[test]
fn cve_2009_0758_a_reflector_of_our_own_packets_makes_no_storm() {
    let mut h = Host::with_http();
    h.hear(PEER, &query(vec![question(&local("bloor"), rtype::ANY)])).unwrap();
    let mut packets = h.take();
    let mut total = 0;
    // Everything sent comes back twice, from another host.
    for _ in 0..200 {
        for p in std::mem::take(&mut packets) {
            total += 1;
            for _ in 0..2 {
                let _ = h.hear_bytes("192.168.1.8:5353", GROUP, &p.bytes);
            }
        }
        h.run_for(50);
        packets = h.take();
    }
    assert!(total <= 3, "{total} packets in 10 s");
    works(&mut h);
}

/// avahi ended where a badly formatted host name was to be resolved; what people type is in mesh-mdns' `answers.rs`.
#[test]
fn cve_2021_3502_badly_formatted_host_names_get_an_answer() {
    let mut h = Host::established();
    let name = |labels: &[&str]| wire::name_from_labels(labels.iter().map(|l| l.as_bytes())).unwrap();
    for labels in [&["a"][..], &["a", "b"], &["a..b", "local"], &[".", "local"], &["", "local"], &["local"]] {
        // The empty label is no label.
        let Some(asked) = wire::name_from_labels(labels.iter().map(|l| l.as_bytes())) else { continue };
        for t in [A, AAAA, rtype::ANY, rtype::PTR] {
            let code = h.dns(&asked, t).header.rcode;
            assert!(matches!(code, rcode::NXDOMAIN | rcode::REFUSED), "{asked} {t}: {code}");
        }
        let _ = h.hear(PEER, &query(vec![question(&asked, A)]));
    }
    assert_eq!(h.dns(&name(&["bloor", "local"]), A).answers.len(), 1);
    works(&mut h);
}

/// avahi ended where a record was to be written whose data were too long for any message.
#[test]
fn cve_2023_38469_records_too_long_to_be_written() {
    for texts in [35, 255, 300] {
        let text = vec!["A ".repeat(127); texts];
        let mut h = Host::bare(1, vec![Service { text, ..Service::new("_qotd", true, 22) }]);
        h.addresses(&["192.168.1.1/24", "fe80::1/64"]);
        h.run_for(10_000);
        assert!(h.core.is_settled());
        assert!(h.take().iter().all(|s| s.bytes.len() <= wire::MAX_SINGLE));
        assert!(NameRecord::decode(h.published.last().unwrap()).unwrap().services.is_empty());
        let kind = wire::name_from_labels([&b"_qotd"[..], b"_tcp", b"local"]).unwrap();
        h.hear(PEER, &query(vec![question(&kind, rtype::PTR)])).unwrap();
        h.hear("192.168.1.9:40000", &query(vec![question(&kind, rtype::ANY)])).unwrap();
        works(&mut h);
    }
    // One that comes in.
    let mut h = Host::established();
    let txt = Record { rtype: rtype::TXT, rdata: vec![1; 8_800], ..a("bloor", "192.168.1.1", 120) };
    h.hear(PEER, &response(vec![txt])).unwrap();
    works(&mut h);
}

/// avahi ended where a label grew beyond its buffer when its dots and control characters were escaped.
#[test]
fn cve_2023_38470_labels_that_grow_when_they_are_escaped() {
    let mut h = Host::established();
    for byte in [b'.', b'\\', 0, 7, 0xff, b'}'] {
        let label = [byte; 63];
        for labels in [vec![&label[..], b"local"], vec![&label[..61], &label, &label, &label[..53], b"local"]]
        {
            let name = wire::name_from_labels(labels).unwrap();
            let record = Record { name: name.clone(), ..a("x", "192.168.1.9", 120) };
            let pointer = Record::ptr(wire::reverse_name([192, 168, 1, 9].into()).unwrap(), 120, &name);
            h.hear(PEER, &response(vec![record, pointer])).unwrap();
            h.hear(PEER, &query(vec![question(&name, rtype::ANY)])).unwrap();
            h.dns(&name, A);
            let address = [192, 168, 1, 9].into();
            h.input(names::Input::ResolveAddress { token: 1, address }).unwrap();
            assert_eq!(h.core.list(h.now).len(), 1, "no host has such a name");
        }
    }
    works(&mut h);
}

/// avahi ended where it was told to take a name that is none: `A\.B`.
#[test]
fn cve_2023_38471_a_host_name_that_is_none_is_never_taken() {
    for bad in ["A\\.B", "A.B", "", ".", "foo\\", "-", "a\u{0}", "a b", &"x".repeat(64)] {
        assert!(NodeName::new(bad).is_err(), "{bad:?}");
        // Nor from another node.
        let bytes = [&[1, 0, bad.len() as u8], bad.as_bytes(), &[0, 0]].concat();
        assert_eq!(NameRecord::decode(&bytes), Err(RecordError::Name), "{bad:?}");
    }
}

/// avahi ended where a record had no data at all.
#[test]
fn cve_2023_38472_records_without_data() {
    let mut h = Host::with_http();
    let srv = wire::name_from_labels([&b"bloor"[..], b"_http", b"_tcp", b"local"]).unwrap();
    for name in [local("bloor"), local("other"), srv, wire::Name::root_vec()] {
        for rtype in (0..=260).chain([0x8001, 65_535]) {
            let empty = Record { name: name.clone(), rtype, rdata: Vec::new(), ..a("x", "1.2.3.4", 120) };
            // As known answer, as probe, as answer.
            let mut known = query(vec![question(&name, rtype)]);
            known.answers = vec![empty.clone()];
            let _ = h.hear(PEER, &known);
            let mut probe = query(vec![question(&name, rtype::ANY)]);
            probe.authority = vec![empty.clone()];
            let _ = h.hear(PEER, &probe);
            if name != local("bloor") {
                let _ = h.hear(PEER, &response(vec![empty]));
            }
        }
        h.run_for(1_000);
        h.take();
    }
    works(&mut h);
}

/// avahi ended where it made another name out of one that was long, or ended in something odd.
#[test]
fn cve_2023_38473_every_alternative_name_is_a_name() {
    let long = "x".repeat(63);
    let ends = format!("{}-{}", "x".repeat(60), "yz");
    for name in ["a", "a-2", "a-", "9", "a--9", &long, &long[..62], &ends] {
        let Ok(name) = NodeName::new(name) else { continue };
        for suffix in [2, 3, 9, 10, 99, 1_000, u32::MAX] {
            let other = name.with_suffix(suffix);
            assert_eq!(NodeName::new(other.as_str()).as_ref(), Ok(&other));
            assert_ne!(other, name);
        }
    }
    // The same in the responder, with a service whose label has to keep the name.
    let titled = Service { title: Some("Ü".repeat(20)), ..Service::new("_http", true, 80) };
    let config = names::Config { name: NodeName::new(&long).unwrap(), node: None, services: vec![titled] };
    let mut h = Host::bare(1, Vec::new());
    h.core = names::Names::new(config, 1, h.now);
    h.addresses(&["192.168.1.1/24"]);
    for _ in 0..12 {
        h.run_until_sent(7_000);
        let name = h.core.name().as_str().to_owned();
        h.hear(PEER, &response(vec![a(&name, "192.168.1.9", 120)])).unwrap();
    }
    h.run_for(20_000);
    assert!(h.core.is_settled() && h.core.name().as_str().ends_with("x-13"), "{}", h.core.name());
}

/// avahi ended where a lookup beyond the link was asked for while it was told to do none.
#[test]
fn cve_2025_68276_lookups_of_the_world_without_anyone_to_ask() {
    let mut h = Host::established();
    let world = wire::name_from_labels([&b"yo"[..], b"example", b"org"]).unwrap();
    let reverse = wire::reverse_name([8, 8, 8, 8].into()).unwrap();
    for t in [A, AAAA, rtype::PTR, rtype::CNAME, rtype::ANY, rtype::SRV] {
        assert_eq!(h.dns(&world, t).header.rcode, rcode::REFUSED);
        assert_eq!(h.dns(&reverse, t).header.rcode, rcode::REFUSED);
    }
    h.input(names::Input::ResolveAddress { token: 7, address: [8, 8, 8, 8].into() }).unwrap();
    assert_eq!(h.resolved.pop(), Some((7, None)));
    assert!(h.take().is_empty() && h.forwarded.is_empty(), "and the link is not asked");
    works(&mut h);
}

fn cname(from: &str, to: &str, ttl: u32) -> Record {
    Record { rtype: rtype::CNAME, ..Record::ptr(local(from), ttl, &local(to)) }
}

/// avahi followed aliases of aliases until its stack was full, and held on to ones that had expired.
#[test]
fn cname_recursion_aliases_are_not_followed() {
    let mut h = Host::established();
    // To itself, to each other, in a long chain, to this node and from it; again as they expire.
    let mut all = vec![cname("h", "h", 10), cname("x", "y", 10), cname("y", "x", 10), cname("z", "bloor", 2)];
    all.extend((0..50).map(|i| cname(&format!("c{i}"), &format!("c{}", i + 1), 1)));
    for _ in 0..3 {
        h.hear(PEER, &response(all.clone())).unwrap();
        for name in ["h", "x", "c0", "z"] {
            assert_eq!(h.dns(&local(name), A).header.rcode, rcode::NXDOMAIN, "{name}");
        }
        h.run_for(2_000);
    }
    assert_eq!(h.core.cached(), 0);
    works(&mut h);
}

/// Records that no responder should send, and questions that no querier should ask.
#[test]
fn odd_records_and_questions() {
    let mut h = Host::established();
    let root = wire::Name::root_vec();
    let record = |rtype, rdata: Vec<u8>| Record { rtype, rdata, ..a("bloor", "1.2.3.4", 120) };
    let odd = vec![
        Record { name: root.clone(), ..a("x", "1.2.3.4", 120) },
        record(rtype::TXT, vec![0xff; 300]),
        record(rtype::OPT, vec![0; 9]),
        record(rtype::CNAME, local("bloor").as_slice().to_vec()),
        record(255, vec![1]),
        record(65_535, vec![0; 1000]),
    ];
    h.hear(PEER, &response(odd)).unwrap();
    for name in [&root, &local("."), &local("a.b"), &local("\\"), &local("\u{0}")] {
        for t in [0, A, rtype::ANY, rtype::OPT, 65_535] {
            h.hear(PEER, &query(vec![question(name, t)])).unwrap();
            h.dns(name, t);
        }
    }
    works(&mut h);
}

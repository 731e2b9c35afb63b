//! Hostile and broken input: RFC 9267's list, floods, and sequences of anything. What has hurt other responders by
//! name is in `cve.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

mod common;

use common::*;
use mesh_types::{Duration, Instant};
use names::wire::{self, Message, Record, WireError, rtype};
use names::{Input, MAX_CACHED, NameRecord};
use proptest::prelude::*;
use std::net::IpAddr;

const GROUP: IpAddr = IpAddr::V4(names::MDNS_GROUP_V4);

/// A query with one question whose name is these bytes.
fn with_name(name: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], name, &[0, 1, 0, 1]].concat()
}

#[test]
fn rfc9267_2_compression_pointers_only_go_back() {
    for name in [
        &[0xc0, 12][..],                        // to itself
        &[0xc0, 14, 0xc0, 12],                  // to each other
        &[4, b't', b'e', b's', b't', 0xc0, 12], // a label, then back to it, for ever
        &[0xff, 0xff],                          // past the end
        &[0xc0],                                // cut short
        &[0xc0, 20],                            // forward
        &[0x41, 0],                             // reserved label types
        &[0x80, 0],
    ] {
        assert_eq!(wire::parse(&with_name(name)), Err(WireError::Malformed), "{name:x?}");
    }
}

#[test]
fn rfc9267_3_and_4_lengths_of_labels_and_names() {
    let label = |n: u8| [vec![n], vec![b'x'; n.into()]].concat();
    let long = [label(63), label(63), label(63), label(61), vec![0]].concat();
    assert_eq!(long.len(), 255);
    assert!(wire::parse(&with_name(&long)).is_ok());
    let longer = [label(63), label(63), label(63), label(62), vec![0]].concat();
    assert_eq!(wire::parse(&with_name(&longer)), Err(WireError::Malformed));
    // No end.
    let endless = with_name(&label(63).repeat(3));
    assert_eq!(wire::parse(&endless[..endless.len() - 4]), Err(WireError::Malformed));
}

#[test]
fn rfc9267_3_a_name_grown_by_pointers_is_limited_too() {
    // Each name is a label of 60 bytes and a pointer to the one before.
    let mut bytes = vec![0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0];
    let mut before: Option<u16> = None;
    for _ in 0..6 {
        let at = bytes.len() as u16;
        bytes.push(60);
        bytes.extend([b'x'; 60]);
        match before {
            None => bytes.push(0),
            Some(p) => bytes.extend((0xc000u16 | p).to_be_bytes()),
        }
        bytes.extend([0, 1, 0, 1]);
        before = Some(at);
    }
    assert_eq!(wire::parse(&bytes), Err(WireError::Malformed));
}

#[test]
fn rfc9267_5_and_6_record_lengths_and_counts() {
    let good = wire::emit(&response(vec![a("x", "1.2.3.4", 120)]), 512, false).bytes;
    assert!(wire::parse(&good).is_ok());
    for cut in 0..good.len() {
        assert!(wire::parse(&good[..cut]).is_err(), "cut at {cut}");
    }
    for count in [5, 7, 9, 11] {
        let mut more = good.clone();
        more[count] += 1;
        assert_eq!(wire::parse(&more), Err(WireError::Malformed));
    }
    let mut many = good.clone();
    many[6] = 0xff;
    assert_eq!(wire::parse(&many), Err(WireError::TooMany));
    // A SRV that is shorter than its fixed part.
    let mut srv = a("x", "1.2.3.4", 120);
    srv.rtype = rtype::SRV;
    assert!(wire::parse(&wire::emit(&response(vec![srv]), 512, false).bytes).is_err());
    // An A record of five bytes is no address, and no crash.
    let mut odd = a("x", "1.2.3.4", 120);
    odd.rdata.push(5);
    let parsed = wire::parse(&wire::emit(&response(vec![odd]), 512, false).bytes).unwrap();
    assert_eq!(parsed.answers[0].as_address(), None);
}

#[test]
fn floods_fill_no_table_beyond_its_bound() {
    let mut h = Host::established();
    for i in 0..3_000u32 {
        let ip = format!("10.0.{}.{}", i / 250, i % 250);
        h.hear(PEER, &response(vec![a(&format!("h{i}"), &ip, 4_500)])).unwrap();
        let mut truncated = query(vec![question(&local("bloor"), A)]);
        truncated.header.truncated = true;
        h.hear(&format!("192.168.1.{}:5353", i % 250), &truncated).unwrap();
        let q = wire::emit(&query(vec![question(&local(&format!("q{i}")), A)]), 512, true).bytes;
        h.input(Input::Dns { client: i.into(), stream: false, payload: &q }).unwrap();
    }
    assert!(h.core.cached() <= MAX_CACHED);
    // All that could not wait were told so at once, the others once it was clear.
    h.run_for(2_000);
    assert_eq!(h.replies.len(), 3_000);
    h.run_for(5_000_000);
    assert_eq!(h.core.cached(), 0);
}

#[test]
fn a_hostile_conflict_stream_does_not_flood_the_link() {
    let mut h = Host::established();
    for _ in 0..10_000 {
        let name = h.core.name().as_str().to_owned();
        h.hear(PEER, &response(vec![a(&name, "192.168.1.9", 120)])).unwrap();
        h.run_for(10);
    }
    assert!(h.sent.len() < 150, "{} messages in 100 s", h.sent.len());
}

/// What a fuzzer may do to a node.
#[derive(Clone, Debug)]
enum Step {
    Bytes(Vec<u8>),
    /// One of our own messages with some bytes changed.
    Mutated(usize, Vec<(usize, u8)>),
    Message(Vec<(u8, u16, bool)>, Vec<(u8, u16, u32, Vec<u8>)>, bool, bool),
    Wait(u64),
    Addresses(u8),
    Dns(Vec<u8>),
    Record(u8, Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let types = prop_oneof![Just(1u16), Just(28), Just(12), Just(47), Just(33), Just(255), any::<u16>()];
    let q = (0..4u8, types.clone(), any::<bool>());
    let r = (0..4u8, types, 0..200u32, proptest::collection::vec(any::<u8>(), 0..20));
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100).prop_map(Step::Bytes),
        (any::<usize>(), proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4))
            .prop_map(|(a, b)| Step::Mutated(a, b)),
        (
            proptest::collection::vec(q, 0..4),
            proptest::collection::vec(r, 0..4),
            any::<bool>(),
            any::<bool>()
        )
            .prop_map(|(q, r, b, t)| Step::Message(q, r, b, t)),
        (0..2_000u64).prop_map(Step::Wait),
        any::<u8>().prop_map(Step::Addresses),
        proptest::collection::vec(any::<u8>(), 0..60).prop_map(Step::Dns),
        (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(n, p)| Step::Record(n, p)),
    ]
}

fn name_of(which: u8, current: &str) -> wire::Name {
    match which {
        0 => local(current),
        1 => wire::reverse_name([192, 168, 1, 1].into()).unwrap(),
        2 => wire::name_from_labels([&b"_http"[..], b"_tcp", b"local"]).unwrap(),
        _ => local("other"),
    }
}

fn run(steps: Vec<Step>) {
    let mut h = Host::bare(1, vec![http()]);
    h.addresses(&["192.168.1.1/24", "fe80::1/64"]);
    let mut all = Vec::new();
    for s in steps {
        match s {
            Step::Bytes(b) => {
                let _ = h.hear_bytes(PEER, GROUP, &b);
            }
            Step::Mutated(which, changes) => {
                all.append(&mut h.sent);
                if all.is_empty() {
                    continue;
                }
                let mut b = all[which % all.len()].bytes.clone();
                let len = b.len();
                for (at, to) in changes {
                    b[at % len] = to;
                }
                let _ = h.hear_bytes(PEER, GROUP, &b);
            }
            Step::Message(qs, rs, is_response, truncated) => {
                let current = h.core.name().as_str().to_owned();
                let questions = qs
                    .iter()
                    .map(|(n, t, u)| wire::Question { unicast: *u, ..question(&name_of(*n, &current), *t) });
                let records: Vec<_> = rs
                    .into_iter()
                    .map(|(n, rtype, ttl, rdata)| Record {
                        name: name_of(n, &current),
                        rtype,
                        class: 1,
                        flush: true,
                        ttl,
                        rdata,
                    })
                    .collect();
                let mut m = Message { questions: questions.collect(), ..Default::default() };
                m.header.response = is_response;
                m.header.truncated = truncated;
                if truncated {
                    m.answers = records
                } else {
                    m.authority = records
                }
                let _ = h.hear(PEER, &m);
            }
            Step::Wait(ms) => h.run_for(ms),
            Step::Addresses(n) => {
                h.addresses(if n % 3 == 0 { &[] } else { &["192.168.1.1/24", "10.1.1.1/8"] })
            }
            Step::Dns(b) => h.input(Input::Dns { client: 1, stream: false, payload: &b }).unwrap(),
            Step::Record(n, payload) => {
                let valid = Duration::from_secs(n.into());
                let _ = h.input(Input::Record { node: node(n), hops: 1, valid, payload: &payload });
            }
        }
        // A timer never spins: what is due lies ahead or has been done.
        h.run_for(0);
        assert!(h.core.poll_timeout().is_none_or(|t| t > h.now || t == Instant::FAR_FUTURE));
    }
    h.run_for(20_000);
    // In the end it has a name and answers to it.
    h.addresses(&["192.168.1.1/24"]);
    h.run_for(20_000);
    assert!(h.core.is_settled());
    h.take();
    let name = h.core.name().as_str().to_owned();
    h.hear(PEER, &query(vec![question(&local(&name), A)])).unwrap();
    h.run_for(1_500);
    assert!(h.sent.iter().any(|s| !s.answers_of(A).is_empty()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn parse_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = wire::parse(&bytes);
    }

    #[test]
    fn what_parses_survives_emit_and_parse(bytes in proptest::collection::vec(any::<u8>(), 12..200)) {
        if let Ok(m) = wire::parse(&bytes) {
            let again = wire::emit(&m, 65_000, false);
            prop_assert_eq!(again.answers, m.answers.len());
            prop_assert_eq!(wire::parse(&again.bytes).unwrap(), m);
        }
    }

    #[test]
    fn any_sequence_of_packets_and_time_leaves_a_working_responder(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        run(steps);
    }

    #[test]
    fn records_of_the_mesh_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = NameRecord::decode(&payload);
    }
}

//! RFC 6762 §§5–7, 11, 17, 18: what is answered, how, when, and to whom.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

mod common;

use common::*;
use names::wire::{self, CLASS_ANY, Header, Message, Question, Record, rtype};
use names::{Destination, Input, InputError, NameRecord, Role};
use std::net::IpAddr;

fn ask(name: &str, rtype: u16) -> Message {
    query(vec![question(&local(name), rtype)])
}

fn qu(name: &str, rtype: u16) -> Message {
    query(vec![Question { unicast: true, ..question(&local(name), rtype) }])
}

fn type_name() -> wire::Name {
    wire::name_from_labels([&b"_http"[..], b"_tcp", b"local"]).unwrap()
}

fn instance() -> wire::Name {
    wire::name_from_labels([&b"bloor"[..], b"_http", b"_tcp", b"local"]).unwrap()
}

fn peer() -> Destination {
    Destination::Unicast(PEER.parse().unwrap())
}

#[test]
fn rfc6762_6_unique_answer_is_undelayed_with_the_whole_set_and_the_other_family() {
    let mut h = Host::established();
    h.hear(PEER, &ask("BLOOR", A)).unwrap();
    let sent = h.take();
    assert_eq!(sent.len(), 1, "at once");
    let m = &sent[0].message;
    assert!(sent[0].multicast());
    // §18: ID 0, QR and AA set, no questions.
    assert_eq!(m.header, Header { response: true, authoritative: true, ..Default::default() });
    assert!(m.questions.is_empty());
    assert_eq!(sent[0].addresses(), ["192.168.1.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(m.answers[0].ttl, 120);
    assert!(m.answers[0].flush);
    // §6.2
    assert_eq!(
        m.additional.iter().filter_map(Record::as_address).collect::<Vec<_>>(),
        ["fe80::1".parse::<IpAddr>().unwrap()]
    );
    h.run_for(5_000);
    assert!(h.take().is_empty());
}

#[test]
fn rfc6762_6_nothing_is_answered_before_the_name_is_ours() {
    let mut h = Host::starting(1);
    h.run_for(600);
    h.take();
    h.hear(PEER, &ask("bloor", A)).unwrap();
    assert!(h.take().is_empty());
}

#[test]
fn rfc6762_6_a_record_is_multicast_at_most_once_a_second() {
    let mut h = Host::established();
    for _ in 0..50 {
        h.hear(PEER, &ask("bloor", A)).unwrap();
        h.run_for(100);
    }
    let times: Vec<_> = h.take().iter().map(|s| s.ms).collect();
    assert!(times.windows(2).all(|w| w[1] - w[0] >= 1_000), "{times:?}");
    assert!(times.len() >= 5);
}

#[test]
fn rfc6762_6_a_probe_is_defended_at_once_even_just_after_a_multicast() {
    let mut h = Host::established();
    h.hear(PEER, &ask("bloor", rtype::ANY)).unwrap();
    h.take();
    let mut probe = qu("bloor", rtype::ANY);
    probe.authority = vec![Record { flush: false, ..a("bloor", "192.168.1.9", 120) }];
    h.hear(PEER, &probe).unwrap();
    let sent = h.take();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].to, peer());
    assert_eq!(sent[0].addresses().len(), 2);
    assert!(sent[0].message.answers.iter().all(|r| r.flush));
    // Long after the last multicast the others hear it too.
    h.run_for(120_000);
    h.take();
    h.hear(PEER, &probe).unwrap();
    assert_eq!(h.take().iter().map(|s| s.to).collect::<Vec<_>>(), [peer(), Destination::Multicast]);
}

#[test]
fn rfc6762_6_a_probe_that_wants_multicast_is_defended_after_250_ms_at_most() {
    let mut h = Host::established();
    h.hear(PEER, &ask("bloor", rtype::ANY)).unwrap();
    h.take();
    let mut probe = ask("bloor", rtype::ANY);
    probe.authority = vec![Record { flush: false, ..a("bloor", "192.168.1.9", 120) }];
    h.hear(PEER, &probe).unwrap();
    assert_eq!(h.run_until_sent(1_000), 250);
    assert!(h.sent[0].multicast());
}

#[test]
fn rfc6762_6_shared_answers_wait_20_to_120_ms() {
    let mut waits = Vec::new();
    let mut h = Host::with_http();
    for _ in 0..100 {
        h.hear(PEER, &query(vec![question(&type_name(), rtype::PTR)])).unwrap();
        waits.push(h.run_until_sent(2_000));
        let sent = h.take();
        let [ptr] = sent[0].message.answers.as_slice() else { panic!() };
        // §10.2: never on a shared record; §10: 75 minutes.
        assert!(!ptr.flush && ptr.ttl == 4500);
        h.run_for(5_000);
        h.take();
    }
    waits.sort_unstable();
    assert!(waits[0] >= 20 && waits[0] < 30 && waits[99] <= 121 && waits[99] > 110, "{waits:?}");
}

#[test]
fn rfc6762_6_responses_from_other_ports_and_answers_from_the_cache_are_none() {
    let mut h = Host::established();
    let from_elsewhere = h.hear("192.168.1.9:4000", &response(vec![a("bloor", "192.168.1.9", 120)]));
    assert_eq!(from_elsewhere, Err(InputError::Port));
    assert!(h.core.is_settled());
    // Another's records are never repeated.
    h.hear(PEER, &response(vec![a("other", "192.168.1.9", 120)])).unwrap();
    h.hear("192.168.1.8:5353", &ask("other", A)).unwrap();
    h.run_for(2_000);
    assert!(h.take().is_empty());
    assert_eq!(h.core.cached(), 1);
}

#[test]
fn rfc6762_6_1_nsec_for_a_type_the_name_does_not_have() {
    let mut h = Host::bare(1, Vec::new());
    h.addresses(&["192.168.1.1/24"]);
    h.run_for(60_000);
    h.take();
    h.hear(PEER, &ask("bloor", AAAA)).unwrap();
    let sent = h.take();
    let [nsec] = sent[0].message.answers.as_slice() else { panic!("{sent:?}") };
    assert_eq!((nsec.rtype, nsec.ttl, nsec.flush, &nsec.name), (rtype::NSEC, 120, true, &local("bloor")));
    assert_eq!(nsec.nsec_has(A), Some(true));
    assert_eq!(nsec.nsec_has(AAAA), Some(false));
    assert_eq!(nsec.nsec_has(rtype::NSEC), Some(false));
    // The next domain name is the record's own name, in two bytes.
    assert!(sent[0].bytes.windows(5).any(|w| w[..3] == [0, 5, 0xc0] && w[3] == 12));
    // §6.2: with the A record, as additional.
    h.run_for(2_000);
    h.hear(PEER, &ask("bloor", A)).unwrap();
    assert_eq!(h.take()[0].message.additional[0].rtype, rtype::NSEC);
    // And for reverse mappings, which are ours by nature.
    let reverse = wire::reverse_name([192, 168, 1, 1].into()).unwrap();
    h.hear(PEER, &query(vec![question(&reverse, rtype::TXT)])).unwrap();
    assert_eq!(h.take()[0].message.answers[0].nsec_has(rtype::PTR), Some(true));
}

#[test]
fn rfc6762_6_1_a_strange_nsec_does_not_kill_the_message() {
    let mut h = Host::established();
    let mut bad = a("other", "192.168.1.9", 120);
    (bad.rtype, bad.rdata) = (rtype::NSEC, vec![0xc0, 0xff, 0, 1]);
    let mut two_blocks = a("other", "192.168.1.9", 120);
    two_blocks.rtype = rtype::NSEC;
    two_blocks.rdata = [local("other").as_slice(), &[0, 1, 0x40, 1, 1, 0x80]].concat();
    let message = response(vec![bad, two_blocks, a("other", "192.168.1.9", 120)]);
    let bytes = wire::emit(&message, 9000, false).bytes;
    let group = IpAddr::V4(names::MDNS_GROUP_V4);
    h.hear_bytes(PEER, group, &bytes).unwrap();
    let reply = h.dns(&local("other"), A);
    assert_eq!(reply.answers[0].as_address(), Some([192, 168, 1, 9].into()));
}

#[test]
fn rfc6762_6_2_only_addresses_of_that_interface_and_the_node() {
    let mut h = Host::established();
    let other = vec![address("10.9.9.1/24")];
    h.input(Input::Interface { index: 8, addresses: other, role: Role::Mesh }).unwrap();
    h.input(Input::NodeAddresses(vec!["fd01::1".parse().unwrap(), "10.64.0.1".parse().unwrap()])).unwrap();
    h.run_for(60_000);
    h.take();
    h.hear(PEER, &ask("bloor", rtype::ANY)).unwrap();
    let sent = h.take();
    assert_eq!(sent[0].interface, LINK);
    let mut found = sent[0].addresses();
    found.sort();
    let expected = ["10.64.0.1", "192.168.1.1", "fd01::1", "fe80::1"].map(|a| a.parse::<IpAddr>().unwrap());
    assert_eq!(found, expected);
    // On an uplink nobody reaches the node's own.
    let addresses = vec![address("192.168.1.1/24")];
    h.input(Input::Interface { index: LINK, addresses, role: Role::Uplink }).unwrap();
    h.run_for(10_000);
    h.take();
    h.hear(PEER, &ask("bloor", rtype::ANY)).unwrap();
    assert_eq!(h.take()[0].addresses(), ["192.168.1.1".parse::<IpAddr>().unwrap()]);
}

#[test]
fn rfc6762_6_3_several_questions_are_all_answered_after_20_to_120_ms() {
    let mut h = Host::established();
    let reverse = wire::reverse_name([192, 168, 1, 1].into()).unwrap();
    let m = query(vec![
        question(&local("bloor"), A),
        question(&local("nobody"), A),
        question(&reverse, rtype::PTR),
    ]);
    h.hear(PEER, &m).unwrap();
    let waited = h.run_until_sent(1_000);
    assert!((20..=121).contains(&waited));
    let sent = h.take();
    assert_eq!(sent.len(), 1, "one message (§6.4)");
    assert_eq!((sent[0].answers_of(A).len(), sent[0].answers_of(rtype::PTR).len()), (1, 1));
}

#[test]
fn rfc6762_6_4_answers_share_a_message() {
    let mut h = Host::with_http();
    h.hear(PEER, &query(vec![question(&type_name(), rtype::PTR)])).unwrap();
    h.run_for(10);
    let all = wire::name_from_labels([&b"_services"[..], b"_dns-sd", b"_udp", b"local"]).unwrap();
    h.hear("192.168.1.8:5353", &query(vec![question(&all, rtype::PTR)])).unwrap();
    h.run_for(700);
    let sent = h.take();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].answers_of(rtype::PTR).len(), 2);
}

#[test]
fn rfc6762_6_5_any_type_and_any_class_give_all_records() {
    let mut h = Host::with_http();
    let mut q = question(&instance(), rtype::ANY);
    q.class = CLASS_ANY;
    h.hear(PEER, &query(vec![q])).unwrap();
    let sent = h.take();
    assert_eq!((sent[0].answers_of(rtype::SRV).len(), sent[0].answers_of(rtype::TXT).len()), (1, 1));
    // RFC 6763 §12.2: the target's addresses.
    assert_eq!(sent[0].message.additional.iter().filter_map(Record::as_address).count(), 2);
    let mut other_class = question(&local("bloor"), A);
    other_class.class = 3;
    h.run_for(5_000);
    h.hear(PEER, &query(vec![other_class])).unwrap();
    h.run_for(1_000);
    assert!(h.take().is_empty());
}

#[test]
fn rfc6762_6_7_legacy_query_gets_a_conventional_answer() {
    let mut h = Host::with_http();
    let mut m = ask("bloor", A);
    m.header.id = 0xbeef;
    h.hear("192.168.1.9:40000", &m).unwrap();
    let sent = h.take();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].to, Destination::Unicast("192.168.1.9:40000".parse().unwrap()));
    let r = &sent[0].message;
    assert_eq!((r.header.id, &r.questions), (0xbeef, &m.questions));
    assert!(r.answers.iter().chain(&r.additional).all(|r| !r.flush && r.ttl <= 10));
    assert_eq!(sent[0].addresses(), ["192.168.1.1".parse::<IpAddr>().unwrap()]);
    // §18.14: the SRV's target uncompressed.
    let srv = query(vec![question(&instance(), rtype::SRV)]);
    h.hear("192.168.1.9:40000", &srv).unwrap();
    let sent = h.take();
    let target = local("bloor");
    let at = sent[0].bytes.windows(target.len()).position(|w| w == target.as_slice());
    assert!(at.is_some());
    // Names of others: silence.
    h.hear("192.168.1.9:40000", &ask("nobody", A)).unwrap();
    assert!(h.take().is_empty());
}

#[test]
fn rfc6762_5_4_qu_is_answered_by_unicast_if_all_heard_it_lately() {
    let mut h = Host::established();
    // Last multicast 58 s ago, more than a quarter of 120 s: everybody hears it again.
    h.hear(PEER, &qu("bloor", A)).unwrap();
    assert_eq!(h.take().iter().map(|s| s.to).collect::<Vec<_>>(), [Destination::Multicast]);
    h.run_for(20_000);
    h.hear(PEER, &qu("bloor", A)).unwrap();
    let sent = h.take();
    assert_eq!(sent.iter().map(|s| s.to).collect::<Vec<_>>(), [peer()]);
    assert_eq!(sent[0].message.header.id, 0);
    assert!(sent[0].message.answers[0].flush && sent[0].message.answers[0].ttl == 120);
}

#[test]
fn rfc6762_7_1_known_answers_are_not_repeated() {
    let mut h = Host::established();
    let mut m = ask("bloor", A);
    m.answers = vec![a("bloor", "192.168.1.1", 60)];
    h.hear(PEER, &m).unwrap();
    h.run_for(2_000);
    assert!(h.take().is_empty());
    // Less than half its life left: it is.
    m.answers = vec![a("bloor", "192.168.1.1", 59)];
    h.hear(PEER, &m).unwrap();
    assert_eq!(h.take().len(), 1);
    // Other data is no known answer.
    h.run_for(5_000);
    m.answers = vec![a("bloor", "192.168.1.7", 120)];
    h.hear(PEER, &m).unwrap();
    assert_eq!(h.take().len(), 1);
}

#[test]
fn rfc6762_7_1_known_answers_are_not_cached() {
    let mut h = Host::established();
    let mut m = ask("other", A);
    m.answers = vec![a("other", "192.168.1.9", 120)];
    h.hear(PEER, &m).unwrap();
    assert_eq!(h.core.cached(), 0);
}

#[test]
fn rfc6762_7_2_a_truncated_query_waits_400_to_500_ms_for_its_known_answers() {
    let mut waits = Vec::new();
    for _ in 0..20 {
        let mut h = Host::established();
        let mut m = ask("bloor", A);
        m.header.truncated = true;
        h.hear(PEER, &m).unwrap();
        waits.push(h.run_until_sent(1_000));
    }
    assert!(waits.iter().all(|w| (400..=501).contains(w)), "{waits:?}");
}

#[test]
fn rfc6762_7_2_later_packets_suppress_and_extend() {
    let mut h = Host::established();
    let mut m = ask("bloor", A);
    m.header.truncated = true;
    h.hear(PEER, &m).unwrap();
    h.run_for(300);
    let mut more = query(Vec::new());
    more.header.truncated = true;
    h.hear(PEER, &more).unwrap();
    h.run_for(300);
    assert!(h.take().is_empty(), "the wait starts again");
    // One from another host is not part of it.
    let mut last = query(Vec::new());
    last.answers = vec![a("bloor", "192.168.1.1", 120)];
    h.hear("192.168.1.8:5353", &last).unwrap();
    h.run_for(50);
    h.hear(PEER, &last).unwrap();
    h.run_for(2_000);
    assert!(h.take().is_empty(), "known after all");
}

#[test]
fn rfc6762_7_4_the_same_answer_of_another_replaces_ours() {
    let mut h = Host::with_http();
    let ptr = Record::ptr(type_name(), 4500, &instance());
    h.hear(PEER, &query(vec![question(&type_name(), rtype::PTR)])).unwrap();
    h.hear("192.168.1.8:5353", &response(vec![ptr.clone()])).unwrap();
    h.run_for(2_000);
    assert!(h.take().is_empty());
    // With a shorter life it does not count.
    h.hear(PEER, &query(vec![question(&type_name(), rtype::PTR)])).unwrap();
    h.hear("192.168.1.8:5353", &response(vec![Record { ttl: 4000, ..ptr }])).unwrap();
    h.run_for(2_000);
    assert_eq!(h.take().len(), 1);
}

#[test]
fn cve_2017_6519_rfc6762_11_and_5_5_unicast_from_off_link_is_ignored() {
    let mut h = Host::established();
    let me: IpAddr = [192, 168, 1, 1].into();
    assert_eq!(h.hear_at("8.8.8.8:5353", me, &ask("bloor", A)), Err(InputError::OffLink));
    assert_eq!(h.hear_at("8.8.8.8:999", me, &ask("bloor", A)), Err(InputError::OffLink));
    // A forged sender of a multicast gets nothing, so that nobody is flooded through us.
    h.hear("8.8.8.8:999", &ask("bloor", A)).unwrap();
    assert!(h.take().is_empty());
    // §11: to a strange sender on the link the answer is multicast.
    h.run_for(5_000);
    h.hear("8.8.8.8:5353", &ask("bloor", A)).unwrap();
    h.run_for(5_000);
    h.hear("8.8.8.8:5353", &qu("bloor", A)).unwrap();
    assert!(h.take().iter().all(common::Sent::multicast));
    // A direct unicast query from the link is answered by unicast.
    h.run_for(2_000);
    h.hear_at(PEER, me, &ask("bloor", A)).unwrap();
    assert_eq!(h.take()[0].to, peer());
}

#[test]
fn rfc6762_18_nonzero_opcode_and_rcode_are_ignored() {
    let mut h = Host::established();
    let mut m = ask("bloor", A);
    m.header.opcode = 5;
    h.hear(PEER, &m).unwrap();
    m.header.opcode = 0;
    m.header.rcode = 3;
    h.hear(PEER, &m).unwrap();
    let mut r = response(vec![a("bloor", "192.168.1.9", 120)]);
    r.header.rcode = 1;
    h.hear(PEER, &r).unwrap();
    h.run_for(2_000);
    assert!(h.take().is_empty() && h.core.is_settled());
    // An ID, and the bits that have no meaning here, do not matter.
    m.header = Header { id: 7, recursion_desired: true, authoritative: true, ..Default::default() };
    h.hear(PEER, &m).unwrap();
    assert_eq!(h.take()[0].message.header.id, 0);
}

#[test]
fn rfc6762_18_1_to_18_13_bits_of_what_is_sent() {
    let mut h = Host::with_http();
    // §18.1–18.11: ID 0, QR and AA, nothing else; no questions.
    h.hear(PEER, &ask("bloor", A)).unwrap();
    let sent = h.take();
    assert_eq!(sent[0].bytes[..6], [0, 0, 0x84, 0, 0, 0]);
    // The answer to a simple resolver differs by its ID and question alone (§6.7).
    let mut legacy = ask("bloor", A);
    legacy.header.id = 0xbeef;
    h.hear("192.168.1.9:40000", &legacy).unwrap();
    assert_eq!(h.take()[0].bytes[..6], [0xbe, 0xef, 0x84, 0, 0, 1]);
    // A question of ours: all zero, and §18.12: no unicast answer is asked for.
    let q = wire::emit(&ask("printer", A), 512, true).bytes;
    h.input(Input::Dns { client: 1, stream: false, payload: &q }).unwrap();
    let sent = h.take();
    assert_eq!(sent[0].bytes[..6], [0, 0, 0, 0, 0, 1]);
    assert!(sent[0].bytes.ends_with(&[0, 1, 0, 1]));
    // §18.13: the top bit of the class of a unique record.
    h.run_for(3_000);
    h.take();
    h.hear(PEER, &ask("bloor", A)).unwrap();
    assert!(h.take()[0].bytes.windows(4).any(|w| w == [0, 1, 0x80, 1]));
}

#[test]
fn rfc6762_18_2_to_18_10_bits_without_meaning_are_ignored() {
    let mut h = Host::established();
    let mut bytes = wire::emit(&ask("bloor", A), 512, false).bytes;
    // An ID, AA, RD, RA, Z, AD and CD.
    bytes[..4].copy_from_slice(&[0x12, 0x34, 0x05, 0xf0]);
    h.hear_bytes(PEER, IpAddr::V4(names::MDNS_GROUP_V4), &bytes).unwrap();
    assert_eq!(h.take().len(), 1);
}

#[test]
fn rfc6762_18_14_names_are_compressed_in_rdata_too() {
    let mut h = Host::with_http();
    h.hear(PEER, &query(vec![question(&type_name(), rtype::PTR)])).unwrap();
    h.run_for(200);
    let sent = h.take();
    let m = &sent[0].message;
    assert_eq!(m.answers.len() + m.additional.len(), 5, "PTR + SRV, TXT, A, AAAA");
    let local = sent[0].bytes.windows(6).filter(|w| *w == b"\x05local").count();
    assert_eq!(local, 1);
    assert!(sent[0].bytes.len() < 170, "{}", sent[0].bytes.len());
}

#[test]
fn rfc6762_17_many_addresses_are_split_into_messages_that_fit() {
    let mut h = Host::bare(1, Vec::new());
    let many: Vec<String> = (0..200).map(|i| format!("fd00::{i:x}/64")).collect();
    h.addresses(&many.iter().map(String::as_str).collect::<Vec<_>>());
    h.run_for(60_000);
    for s in h.take() {
        let limit = if s.is_probe() { 9_000 - 48 } else { 1_452 };
        assert!(s.bytes.len() <= limit, "{}", s.bytes.len());
    }
    // §10.2: the whole set, in a burst.
    h.hear(PEER, &ask("bloor", AAAA)).unwrap();
    let sent = h.take();
    assert!(sent.len() > 1 && sent.iter().all(|s| s.ms == 60_000));
    assert_eq!(sent.iter().map(|s| s.addresses().len()).sum::<usize>(), 200);
}

#[test]
fn rfc6762_17_one_large_record_travels_alone_in_at_most_9000_bytes() {
    let mut large = http();
    large.text = vec!["x".repeat(250); 12];
    let mut h = Host::bare(1, vec![large]);
    h.addresses(&["192.168.1.1/24"]);
    h.run_for(60_000);
    h.take();
    h.hear(PEER, &query(vec![question(&instance(), rtype::ANY)])).unwrap();
    let sent = h.take();
    let alone = sent.iter().find(|s| !s.answers_of(rtype::TXT).is_empty()).expect("it is sent");
    assert_eq!(alone.message.answers.len(), 1);
    assert!((3_000..=9_000 - 48).contains(&alone.bytes.len()));
}

#[test]
fn rfc6762_10_and_10_2_lifetimes_and_the_cache_flush_bit() {
    let mut h = Host::with_http();
    let all = wire::name_from_labels([&b"_services"[..], b"_dns-sd", b"_udp", b"local"]).unwrap();
    let reverse = wire::reverse_name([192, 168, 1, 1].into()).unwrap();
    // What holds or leads to a host name lives two minutes, all else 75; shared records never flush.
    for (name, t, ttl, flush) in [
        (local("bloor"), A, 120, true),
        (local("bloor"), AAAA, 120, true),
        (reverse, rtype::PTR, 120, true),
        (instance(), rtype::SRV, 120, true),
        (instance(), rtype::TXT, 4500, true),
        (type_name(), rtype::PTR, 4500, false),
        (all, rtype::PTR, 4500, false),
    ] {
        h.run_for(5_000);
        h.take();
        h.hear(PEER, &query(vec![question(&name, t)])).unwrap();
        h.run_for(500);
        let sent = h.take();
        let [r] = sent[0].message.answers.as_slice() else { panic!("{sent:?}") };
        assert_eq!((r.ttl, r.flush), (ttl, flush), "{name} {t}");
        // §6, §10.2: with each unique set all of it, also where it is an additional record.
        let additional = &sent[0].message.additional;
        assert!(additional.iter().all(|r| r.flush), "{additional:?}");
    }
}

#[test]
fn rfc6762_10_2_a_set_is_sent_whole_though_one_record_of_it_was_asked_for_as_known() {
    let mut h = Host::bare(1, Vec::new());
    h.addresses(&["192.168.1.1/24", "192.168.0.1/24"]);
    h.run_for(60_000);
    h.take();
    let mut m = ask("bloor", A);
    m.answers = vec![a("bloor", "192.168.1.1", 120)];
    h.hear(PEER, &m).unwrap();
    assert_eq!(h.take()[0].addresses().len(), 2, "or the cache-flush bit would remove the other");
}

#[test]
fn rfc6762_16_names_are_utf8_and_fold_only_ascii_case() {
    let mut h = Host::established();
    h.hear(PEER, &response(vec![a("Zürich", "192.168.1.9", 120)])).unwrap();
    h.hear(PEER, &response(vec![a("ZÜRICH", "192.168.1.8", 120)])).unwrap();
    assert_eq!(h.core.cached(), 2, "Ü and ü are two names");
    h.hear(PEER, &response(vec![a("zürich", "192.168.1.9", 120)])).unwrap();
    assert_eq!(h.core.cached(), 2, "Z and z are one");
}

#[test]
fn names_of_the_mesh_are_never_said_on_a_link() {
    let mut h = Host::established();
    let name = mesh_types::NodeName::new("far").unwrap();
    let payload =
        NameRecord { name, level: 0, addresses: vec!["fd09::1".parse().unwrap()], services: vec![] }.encode();
    let valid = mesh_types::Duration::from_secs(30);
    h.input(Input::Record { node: node(9), hops: 5, valid, payload: &payload }).unwrap();
    h.hear(PEER, &ask("far", AAAA)).unwrap();
    let reply = h.dns(&local("far"), AAAA);
    assert_eq!(reply.answers.len(), 1);
    h.run_for(10_000);
    assert!(h.take().is_empty());
}

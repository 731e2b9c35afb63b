//! Services that come, change and go while the node runs (RFC 6762 §8, §10.1; RFC 6763).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

mod common;

use common::*;
use names::wire::{self, CLASS_IN, Message, Name, Question, Record, rtype};
use names::{Event, Input, NameRecord, Service};

fn named(labels: &[&str]) -> Name {
    wire::name_from_labels(labels.iter().map(|l| l.as_bytes())).unwrap()
}

fn kind() -> Name {
    named(&["_http", "_tcp", "local"])
}

fn instance() -> Name {
    named(&["Library on bloor", "_http", "_tcp", "local"])
}

fn library(port: u16) -> Service {
    Service { title: Some("Library".into()), ..Service::new("_http", true, port) }
}

/// `bloor` with a web server of its own; then a library comes.
fn with_library() -> Host {
    let mut h = Host::with_http();
    h.input(Input::Services(vec![library(8000), http()])).unwrap();
    h
}

fn pointers(h: &mut Host) -> Vec<Name> {
    h.run_for(2_000);
    h.take();
    h.hear(PEER, &query(vec![question(&kind(), rtype::PTR)])).unwrap();
    h.run_for(500);
    h.take().iter().flat_map(|s| s.answers_of(rtype::PTR)).filter_map(Record::as_target).collect()
}

#[test]
fn rfc6762_8_1_a_service_that_comes_is_probed_for_and_announced() {
    let mut h = with_library();
    h.run_for(5_000);
    let sent = h.take();
    let probes: Vec<_> = sent.iter().filter(|s| s.is_probe()).collect();
    assert_eq!(probes.len(), 3);
    for p in probes {
        // Nothing else is probed for again.
        let [q] = p.message.questions.as_slice() else { panic!("{:?}", p.message) };
        assert_eq!((&q.name, q.rtype, q.unicast), (&instance(), rtype::ANY, true));
        assert!(p.message.authority.iter().all(|r| r.name == instance()));
    }
    let announced: Vec<_> = sent.iter().filter(|s| s.message.header.response).collect();
    assert_eq!(announced.len(), 2);
    assert_eq!(announced[1].ms - announced[0].ms, 1_000);
    assert!(announced[0].message.answers.iter().any(|r| r.as_target() == Some(instance())));
    // The name was there all the time.
    assert!(h.events.is_empty(), "{:?}", h.events);
    assert_eq!(pointers(&mut h).len(), 2);
}

#[test]
fn rfc6762_8_1_while_a_service_is_probed_for_the_rest_is_answered_for_and_defended() {
    let mut h = with_library();
    while !h.sent.iter().any(common::Sent::is_probe) {
        h.run_for(1);
    }
    h.take();
    h.hear(PEER, &query(vec![question(&local("bloor"), A)])).unwrap();
    assert_eq!(h.take()[0].addresses().len(), 1);
    h.hear(PEER, &query(vec![question(&instance(), rtype::SRV)])).unwrap();
    h.hear(PEER, &query(vec![question(&kind(), rtype::PTR)])).unwrap();
    let mut probe = query(vec![Question { unicast: true, ..question(&local("bloor"), rtype::ANY) }]);
    probe.authority = vec![Record { flush: false, ..a("bloor", "192.168.1.9", 120) }];
    h.hear(PEER, &probe).unwrap();
    h.run_for(150);
    let sent = h.take();
    assert!(sent.iter().any(|s| !s.multicast() && s.addresses().len() == 2), "defended: {sent:?}");
    let said: Vec<_> = sent.iter().filter(|s| s.message.header.response).collect();
    let about = |r: &Record| r.name == instance() || r.as_target() == Some(instance());
    assert!(!said.iter().any(|s| s.message.answers.iter().chain(&s.message.additional).any(about)));
    assert!(said.iter().any(|s| !s.answers_of(rtype::PTR).is_empty()), "the old service is answered for");
}

#[test]
fn rfc6762_8_1_a_service_whose_name_is_taken_renames_the_node() {
    let mut h = with_library();
    while !h.sent.iter().any(common::Sent::is_probe) {
        h.run_for(1);
    }
    let mut rdata = vec![0, 0, 0, 0, 0, 80];
    rdata.extend_from_slice(local("other").as_slice());
    let taken = Record { name: instance(), rtype: rtype::SRV, rdata, ..a("x", "1.2.3.4", 120) };
    h.hear(PEER, &response(vec![taken])).unwrap();
    assert!(matches!(h.events.as_slice(), [Event::Renamed { .. }]), "{:?}", h.events);
    h.run_for(5_000);
    assert!(h.core.is_settled());
    let renamed = named(&["Library on bloor-2", "_http", "_tcp", "local"]);
    assert!(pointers(&mut h).contains(&renamed));
}

#[test]
fn rfc6762_8_2_a_tie_over_a_new_service_leaves_the_name_alone() {
    let mut h = with_library();
    while !h.sent.iter().any(common::Sent::is_probe) {
        h.run_for(1);
    }
    h.take();
    let rdata = [&[0xff, 0, 0, 0, 0, 80][..], local("zzz").as_slice()].concat();
    let theirs =
        Record { name: instance(), rtype: rtype::SRV, rdata, flush: false, ..a("x", "1.2.3.4", 120) };
    let q = Question { name: instance(), rtype: rtype::ANY, class: CLASS_IN, unicast: true };
    h.hear(PEER, &Message { questions: vec![q], authority: vec![theirs], ..Default::default() }).unwrap();
    assert_eq!(h.run_until_sent(3_000), 1_000, "ours waits a second");
    assert!(h.sent[0].is_probe() && h.events.is_empty());
}

#[test]
fn rfc6762_10_1_a_service_that_goes_says_goodbye_and_the_others_of_its_type_stay() {
    let mut h = with_library();
    h.run_for(10_000);
    h.take();
    h.input(Input::Services(vec![http()])).unwrap();
    let sent = h.take();
    let gone: Vec<_> = sent[0].message.answers.iter().collect();
    assert!(gone.iter().all(|r| r.ttl == 0));
    let types: Vec<_> = gone.iter().map(|r| r.rtype).collect();
    assert_eq!(types, [rtype::PTR, rtype::SRV, rtype::TXT], "{gone:?}");
    assert_eq!(gone[0].as_target(), Some(instance()));
    assert_eq!(pointers(&mut h), [named(&["bloor", "_http", "_tcp", "local"])]);
    h.hear(PEER, &query(vec![question(&instance(), rtype::ANY)])).unwrap();
    h.run_for(1_000);
    assert!(h.take().is_empty());
    // The last of its type takes the type back, too.
    h.input(Input::Services(Vec::new())).unwrap();
    let all = h.take();
    let all: Vec<_> = all.iter().flat_map(|s| &s.message.answers).filter(|r| r.ttl == 0).collect();
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(all.iter().any(|r| r.as_target() == Some(kind())));
}

#[test]
fn rfc6762_8_4_a_service_that_changes_is_announced_without_probing() {
    let mut h = with_library();
    h.run_for(10_000);
    h.take();
    let text = vec!["path=/new/".into()];
    h.input(Input::Services(vec![Service { text, ..library(8001) }, http()])).unwrap();
    h.run_for(5_000);
    let sent = h.take();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|s| s.message.header.response && s.message.answers.iter().all(|r| r.ttl > 0)));
    let srv = sent[0].answers_of(rtype::SRV).into_iter().find(|r| r.name == instance()).unwrap();
    assert!(srv.flush && srv.rdata[4..6] == 8001u16.to_be_bytes());
}

#[test]
fn a_service_that_goes_before_it_was_announced_leaves_no_trace() {
    let mut h = with_library();
    h.run_for(300);
    h.take();
    h.input(Input::Services(vec![http()])).unwrap();
    h.run_for(10_000);
    for s in h.take() {
        assert!(
            !s.is_probe() && s.message.answers.iter().all(|r| r.name != instance() && r.ttl > 0),
            "{s:?}"
        );
    }
    assert!(h.core.is_settled());
    assert_eq!(pointers(&mut h).len(), 1);
}

#[test]
fn the_record_of_the_mesh_follows_the_services() {
    let mut h = with_library();
    let known = |h: &Host| NameRecord::decode(h.published.last().unwrap()).unwrap().services;
    assert_eq!(known(&h), [library(8000), http()]);
    h.input(Input::Services(vec![http()])).unwrap();
    assert_eq!(known(&h), [http()]);
}

#[test]
fn the_same_services_again_say_nothing() {
    let mut h = with_library();
    h.run_for(10_000);
    h.take();
    h.input(Input::Services(vec![library(8000), http()])).unwrap();
    h.run_for(10_000);
    assert!(h.take().is_empty());
}

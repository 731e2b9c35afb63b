//! The binary itself, with a file as card and a thread as the other service.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::fs;
use std::process::Command;

use common::*;
use mesh_ipc::update::{Slots, UpdateRequest, UpdateResponse};
use mesh_ipc::{Request, Response};
use update_core::{BootState, SECTOR, Slot, read_copies};

#[test]
fn a_healthy_node_confirms_its_slot_and_only_then() {
    let lab = Lab::new("confirm");
    lab.card(["1.0", ""]);
    lab.write(0, &state(1, 3, 3));
    assert_eq!(lab.boot(), Slot::A);
    let before = lab.copies();
    let running = lab.start_on_card("A");
    let slots = running.slots_when("a reason", |s| s.waiting_for == ["mesh-test: it is not running"]);
    assert!(!slots.confirmed);
    assert_eq!((slots.running.as_str(), slots.order.as_str()), ("A", "A B"));
    assert_eq!((slots.slots[0].version.as_str(), slots.slots[0].tries_left), ("1.0", 2));
    assert_eq!((slots.slots[1].version.as_str(), slots.slots[1].tries_left), ("", 3));
    assert_eq!(lab.copies(), before, "nothing is written before the gate opens");

    let fake = Fake::start(&lab.dir);
    let slots = running.slots_when("the confirmation", |s| s.confirmed);
    assert_eq!((slots.slots[0].tries_left, slots.waiting_for.len()), (3, 0));
    assert_eq!(lab.state(), BootState { seq: 3, ..BootState::default() });
    // The newer copy of before is untouched: one write, one sector.
    assert_eq!(lab.copies()[1], before[1]);
    drop(fake);
    running.stop();
}

#[test]
fn rollback_makes_the_other_slot_first_if_it_holds_a_system() {
    let lab = Lab::new("rollback");
    lab.card(["2.0", "1.0"]);
    lab.write(0, &state(1, 3, 0));
    assert_eq!(lab.boot(), Slot::A);
    let running = lab.start_on_card("A");
    assert!(running.status().problems.iter().any(|p| p.contains("slot B has no tries left")));
    let answer = running.ask(&Request::Service(UpdateRequest::Rollback));
    assert!(matches!(answer, Response::Service(UpdateResponse::Done(t)) if t.contains("starts slot B")));
    assert_eq!(lab.state().order, [Slot::B, Slot::A]);
    running.stop();
    assert_eq!(lab.boot(), Slot::B);

    let lab = Lab::new("rollback-empty");
    lab.card(["2.0", ""]);
    lab.write(0, &state(1, 3, 3));
    lab.boot();
    let before = lab.copies();
    let running = lab.start_on_card("A");
    let answer = running.ask(&Request::Service(UpdateRequest::Rollback));
    assert!(
        matches!(&answer, Response::Error(t) if t.contains("slot B holds no valid system")),
        "{answer:?}"
    );
    assert_eq!(lab.copies(), before);
}

#[test]
fn a_person_can_confirm_without_the_gate() {
    let lab = Lab::new("by-hand");
    lab.card(["1.0", "1.0"]);
    lab.write(1, &state(8, 1, 3));
    let running = lab.start_on_card("A");
    for part in ["slot A is confirmed: it has 3 tries", "confirmed already"] {
        let answer = running.ask(&Request::Service(UpdateRequest::Confirm));
        assert!(
            matches!(&answer, Response::Service(UpdateResponse::Done(t)) if t.contains(part)),
            "{answer:?}"
        );
    }
    assert_eq!(lab.state(), BootState { seq: 9, ..BootState::default() });
    running.stop();
}

#[test]
fn damage_is_told_and_repaired() {
    let lab = Lab::new("damage");
    lab.card(["1.0", "1.0"]);
    for copy in 0..2 {
        lab.write(copy, &[0x5a; SECTOR]);
    }
    assert_eq!(lab.boot(), Slot::A);
    let _fake = Fake::start(&lab.dir);
    let running = lab.start_on_card("A");
    running.slots_when("the confirmation", |s| s.confirmed);
    assert!(running.status().problems.iter().any(|p| p.contains("both boot-state copies were damaged")));
    let [a, b] = lab.copies();
    assert!(read_copies(&a, &b).copies.iter().all(Result::is_ok), "both copies are good again");
    running.stop();
    // The next start has nothing to complain about.
    lab.boot();
    let running = lab.start_on_card("A");
    assert_eq!(running.status().problems, [""; 0]);
}

#[test]
fn a_fallback_is_told() {
    let lab = Lab::new("fallback");
    lab.card(["2.0", "1.0"]);
    lab.write(0, &state(5, 0, 3));
    assert_eq!(lab.boot(), Slot::B);
    let running = lab.start_on_card("B");
    let problems = running.status().problems;
    assert!(problems.iter().any(|p| p.contains("slot A was to start and did not")), "{problems:?}");
}

#[test]
fn without_slots_or_without_a_card_it_still_answers() {
    let lab = Lab::new("none");
    let running = lab.start(&[]);
    assert_eq!(running.slots(), Slots::default());
    assert_eq!(running.status().problems, [""; 0]);
    let answer = running.ask(&Request::Service(UpdateRequest::Confirm));
    assert!(matches!(answer, Response::Error(t) if t.contains("no boot slots here")));
    running.stop();

    for content in [None, Some(vec![0u8; 4096])] {
        if let Some(c) = content {
            fs::write(lab.disk(), c).unwrap();
        }
        let running = lab.start_on_card("A");
        let problems = running.status().problems;
        assert!(problems.len() == 1 && problems[0].contains("can't be read or written"), "{problems:?}");
        running.stop();
    }
}

#[test]
fn check_config_ends_with_one_for_a_bad_file() {
    let lab = Lab::new("check");
    let file = lab.dir.join("p2pmesh.toml");
    for (text, code, part) in
        [("hostname = \"a\"\n", 0, "good"), ("hostnam = \"a\"\n", 1, "did you mean hostname?")]
    {
        fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_mesh-update"))
            .args(["--check-config", "--config", file.to_str().unwrap()])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert!(String::from_utf8_lossy(&output.stdout).contains(part));
    }
}

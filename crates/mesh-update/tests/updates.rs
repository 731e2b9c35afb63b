//! Bundles through the service: from a client as meshctl is one, and out of a store.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

#[path = "../../update-core/tests/common/mod.rs"]
mod bundles;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bundles::{public, sign, slot};
use common::*;
use mesh_ipc::router::{Record, RouterRequest, RouterResponse};
use mesh_ipc::store::{DATA_MAX, Entry, EntryKind, StoreRequest, StoreResponse};
use mesh_ipc::update::{UpdateRequest, UpdateResponse};
use mesh_ipc::{Request, Response};
use mesh_sys::clock;
use mesh_sys::control::{Client, Server, ServerEvent};
use mesh_sys::poll::Poller;
use update_core::make::{Choices, make, signed_part};
use update_core::{Offer, Phase, Policy, Report, Signed, Slot, SlotHeader, test_keys};

/// A system of some `len` bytes.
fn slot_image(release: u64, len: usize) -> Vec<u8> {
    slot(release, [5_000, len / 4, len * 3 / 4 / 4096])
}

fn bundle_for(board: &str, slot: &[u8]) -> Vec<u8> {
    make(slot, &Choices { boards: vec![board.into()], ..Choices::default() }).unwrap()
}

fn signed(slot: &[u8], keys: &[u8]) -> Vec<u8> {
    sign(&bundle_for("brcm,bcm2837", slot), keys)
}

/// A card with release 1 in slot A, confirmed, and a service that takes updates by two of three test keys.
fn lab(name: &str) -> (Lab, Vec<u8>) {
    let lab = Lab::new(name);
    let old = slot_image(1, 200_000);
    lab.card(["", ""]);
    lab.put_slot_a(&old);
    lab.write(0, &state(1, 3, 0));
    let hex = |key: [u8; 32]| key.map(|b| format!("{b:02x}")).concat();
    let keys = [public(1), public(2), test_keys()[0]].map(|k| format!("\"{}\"", hex(k)));
    fs::write(lab.dir.join("p2pmesh.toml"), format!("update.keys = [{}]\n", keys.join(", "))).unwrap();
    (lab, old)
}

/// Passes a bundle as meshctl does.
fn pass(running: &Running, file: &Path, check_only: bool) -> Result<String, String> {
    let mut client = running.connect();
    let request = Request::Service(UpdateRequest::OfferFile { check_only });
    client.send_with(&request, &fs::File::open(file).unwrap()).unwrap();
    loop {
        match client.receive().unwrap() {
            Response::Service(UpdateResponse::Done(text)) => return Ok(text),
            Response::Service(UpdateResponse::Progress(_)) => {}
            Response::Error(e) => return Err(e),
            other => panic!("{other:?}"),
        }
    }
}

/// Sends a bundle as it is sent from a USB stick.
fn offer(running: &Running, bundle: &[u8], check_only: bool) -> Result<String, String> {
    let mut client = running.connect();
    let size = bundle.len() as u64;
    client.send(&Request::Service(UpdateRequest::Offer { size, check_only })).unwrap();
    loop {
        match client.receive().unwrap() {
            Response::Service(UpdateResponse::Done(text)) => return Ok(text),
            Response::Service(UpdateResponse::Want { offset, len }) => {
                let from = (offset as usize).min(bundle.len());
                let to = (from + len as usize).min(bundle.len());
                let data = UpdateRequest::Data(bundle[from..to].to_vec());
                client.send(&Request::Service(data)).unwrap();
            }
            Response::Service(UpdateResponse::Progress(_)) => {}
            Response::Error(e) => return Err(e),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_bundle_goes_into_the_other_slot_and_is_confirmed_after_its_boot() {
    let (lab, _) = lab("apply");
    let new = slot_image(2, 3_000_000);
    let bundle = signed(&new, &[1, 2]);
    assert_eq!(lab.boot(), Slot::A);
    let running = lab.start_on_card("A");
    assert!(offer(&running, &bundle, false).unwrap_err().contains("still on trial"));
    running.ask(&Request::Service(UpdateRequest::Confirm));
    let before = fs::read(lab.disk()).unwrap();
    assert!(offer(&running, &bundle, true).unwrap().contains("would install it"));
    assert!(fs::read(lab.disk()).unwrap() == before, "a check changes nothing");
    let done = offer(&running, &bundle, false).unwrap();
    assert!(done.contains("version 1.2 (release 2) is in slot B"), "{done}");
    assert_eq!(lab.slot_bytes(Slot::B, new.len()), new);
    assert_eq!(lab.state().order, [Slot::B, Slot::A]);
    let peak = running.peak_rss();
    assert!(peak < 8 * 1024, "{peak} KiB");
    running.stop();

    // It boots, is healthy, and is confirmed: from then on release 1 is too old.
    assert_eq!(lab.boot(), Slot::B);
    let fake = Fake::start(&lab.dir);
    let running = lab.start_on_card("B");
    let slots = running.slots_when("the confirmation", |s| s.confirmed);
    assert_eq!((slots.floor, slots.slots[1].release, slots.notes.len()), (2, 2, 0));
    let old = signed(&slot_image(1, 100_000), &[1, 2]);
    assert!(offer(&running, &old, false).unwrap_err().contains("downgrade: it is release 1"));
    drop(fake);
}

#[test]
fn a_file_that_is_passed_goes_into_the_other_slot() {
    let (lab, _) = lab("passed");
    let new = slot_image(2, 3_000_000);
    let file = lab.dir.join("new.bundle");
    fs::write(&file, signed(&new, &[1, 2])).unwrap();
    let running = lab.start_on_card("A");
    let before = fs::read(lab.disk()).unwrap();
    assert!(pass(&running, &file, true).unwrap().contains("would install it"));
    assert!(fs::read(lab.disk()).unwrap() == before, "a check changes nothing");
    let done = pass(&running, &file, false).unwrap();
    assert!(done.contains("version 1.2 (release 2) is in slot B"), "{done}");
    assert_eq!(lab.slot_bytes(Slot::B, new.len()), new);
    let peak = running.peak_rss();
    assert!(peak < 8 * 1024, "{peak} KiB");

    let before = fs::read(lab.disk()).unwrap();
    assert!(pass(&running, &lab.dir, false).unwrap_err().contains("a regular file"));
    let request = Request::Service(UpdateRequest::OfferFile { check_only: false });
    assert_eq!(running.ask(&request), Response::Error("a bundle has to be a regular file".into()));
    // Who leaves at once gets nothing, and is in nobody's way.
    running.connect().send_with(&request, &fs::File::open(&file).unwrap()).unwrap();
    running.slots_when("its end", |s| s.installing.is_none());
    assert!(fs::read(lab.disk()).unwrap() == before);
}

#[test]
fn bad_bundles_are_refused_with_their_reason_and_the_node_is_as_it_was() {
    let (lab, old) = lab("refused");
    let new = slot_image(2, 200_000);
    let good = signed(&new, &[1, 2]);
    let running = lab.start_on_card("A");
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 4;
        bad
    };
    for (bad, reason) in [
        (signed(&new, &[1]), "not enough signatures: 2 of this node's update.keys have to sign, 1 did"),
        (signed(&new, &[1, 7]), "1 by keys that this node does not know"),
        (flipped(20), "wrong signature"),
        (sign(&bundle_for("raspberrypi,5-model-b", &new), &[1, 2]), "wrong board"),
        (signed(&slot_image(0, 90_000), &[1, 2]), "downgrade"),
        (good[..good.len() - 9].to_vec(), "truncated"),
        ([good.as_slice(), b"x"].concat(), "oversize"),
        (signed(&slot_image(3, 9_000_000), &[1, 2]), "oversize: the system needs"),
        (b"hello, this is no bundle at all".to_vec(), "no update bundle"),
    ] {
        let before = fs::read(lab.disk()).unwrap();
        let file = lab.dir.join("bad.bundle");
        fs::write(&file, &bad).unwrap();
        for error in [offer(&running, &bad, false), pass(&running, &file, false)] {
            let error = error.unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(fs::read(lab.disk()).unwrap() == before, "{reason}: the card is as it was");
    }
    let last = good.len() - 1;
    assert!(offer(&running, &flipped(last), false).unwrap_err().contains("damaged: chunk"));
    assert_eq!(lab.state().order, [Slot::A, Slot::B]);
    assert_eq!(lab.slot_bytes(Slot::A, old.len()), old);
    let problems = running.status().problems;
    assert!(problems.iter().any(|p| p.contains("test key")), "{problems:?}");
    // What was refused is no hindrance.
    offer(&running, &good, false).unwrap();
    assert_eq!(lab.slot_bytes(Slot::B, new.len()), new);
}

#[test]
fn an_installation_that_was_cut_off_goes_on_where_it_was() {
    let (lab, _) = lab("resume");
    let new = slot_image(2, 2_000_000);
    let bundle = signed(&new, &[1, 2]);
    let running = lab.start_on_card("A");
    let mut client = running.connect();
    let size = bundle.len() as u64;
    client.send(&Request::Service(UpdateRequest::Offer { size, check_only: false })).unwrap();
    let mut most = 0;
    while most < size / 2 {
        if let Response::Service(UpdateResponse::Want { offset, len }) = client.receive().unwrap() {
            most = offset;
            let data = bundle[offset as usize..offset as usize + len as usize].to_vec();
            client.send(&Request::Service(UpdateRequest::Data(data))).unwrap();
        }
    }
    // Half a MiB may lie in memory; what the thread at the card has been given is written.
    let written = || {
        let there = lab.slot_bytes(Slot::B, new.len());
        (512..new.len()).find(|&n| there[n] != new[n]).unwrap_or(new.len()) as u64
    };
    let end = std::time::Instant::now() + DEADLINE;
    while written() + 300_000 < most {
        assert!(std::time::Instant::now() < end, "{} of {most}", written());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    running.kill();
    // The boot script sees no header there.
    assert!(SlotHeader::parse(lab.slot_bytes(Slot::B, 512)[..].try_into().unwrap()).is_err());
    let running = lab.start_on_card("A");
    let mut first_chunk = None;
    let mut client = running.connect();
    client.send(&Request::Service(UpdateRequest::Offer { size, check_only: false })).unwrap();
    let done = loop {
        match client.receive().unwrap() {
            Response::Service(UpdateResponse::Want { offset, len }) => {
                if offset > 100_000 {
                    first_chunk.get_or_insert(offset);
                }
                let data = bundle[offset as usize..offset as usize + len as usize].to_vec();
                client.send(&Request::Service(UpdateRequest::Data(data))).unwrap();
            }
            Response::Service(UpdateResponse::Done(text)) => break text,
            Response::Service(UpdateResponse::Progress(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(done.contains("slot B"));
    assert!(first_chunk.unwrap() + 300_000 > most, "{first_chunk:?} of {most}");
    assert_eq!(lab.slot_bytes(Slot::B, new.len()), new);
}

/// What the store calls what is added to it.
const KEPT: &str = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";

/// A store with one file, until dropped.
struct FakeStore {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl FakeStore {
    fn start(dir: &Path, file: Vec<u8>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (dir, ends) = (dir.to_path_buf(), stop.clone());
        let thread = std::thread::spawn(move || {
            let poller = Poller::new().unwrap();
            let mut server: Server<StoreRequest, StoreResponse> =
                Server::bind(&dir, "mesh-store", &poller, 0).unwrap();
            let mut events = Vec::new();
            let mut given = 0;
            let mut added = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                poller.wait(Some(clock::now() + mesh_types::Duration::from_millis(20)), &mut events).unwrap();
                for event in events.drain(..) {
                    for what in server.handle(&poller, event) {
                        let ServerEvent::Request(id, Request::Service(request)) = what else { continue };
                        let mut send = |answer| assert!(server.send(&poller, id, &Response::Service(answer)));
                        match request {
                            StoreRequest::Resolve { path } => {
                                let size = file.len() as u64;
                                let kind = Some(EntryKind::File);
                                let entry = Entry {
                                    name: String::new(),
                                    cid: path,
                                    size,
                                    kind,
                                    mode: None,
                                    mtime: None,
                                };
                                send(StoreResponse::Entries(vec![entry]));
                            }
                            StoreRequest::Cat { offset, length, .. } => {
                                let rest = file.get(offset as usize..).unwrap_or_default();
                                let rest = &rest[..rest.len().min(length.unwrap() as usize)];
                                given += rest.len() as u64;
                                for piece in rest.chunks(DATA_MAX) {
                                    send(StoreResponse::Data(piece.to_vec()));
                                }
                                send(StoreResponse::Done);
                            }
                            StoreRequest::Data(bytes) => added.extend(bytes),
                            StoreRequest::AddEnd => {
                                fs::write(dir.join("added"), std::mem::take(&mut added)).unwrap();
                                let (path, cid) = (String::new(), KEPT.to_owned());
                                send(StoreResponse::Added { path, cid, size: 0 });
                                send(StoreResponse::Done);
                            }
                            _ => {}
                        }
                    }
                }
            }
            given
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends it; how many bytes it gave.
    fn given(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

#[test]
fn a_bundle_out_of_the_store_takes_from_the_running_slot_what_that_has() {
    let (lab, old) = lab("store");
    // The same system with another few bytes in the middle of its root image.
    let mut new = old.clone();
    let header = SlotHeader::parse(old.first_chunk().unwrap()).unwrap();
    let at = (header.image.offset * 512 + header.image.sectors * 256) as usize;
    new[at..at + 16].copy_from_slice(b"a changed servic");
    let changed =
        make(&new, &Choices { boards: vec!["brcm,bcm2837".into()], release: Some(2), ..Choices::default() });
    let bundle = sign(&changed.unwrap(), &[1, 2]);
    let running = lab.start_on_card("A");
    let fetch = |check_only| {
        let mut client = running.connect();
        client.send(&Request::Service(UpdateRequest::Fetch { path: "bafy/x".into(), check_only })).unwrap();
        loop {
            match client.receive().unwrap() {
                Response::Service(UpdateResponse::Done(text)) => return Ok(text),
                Response::Service(UpdateResponse::Progress(_)) => {}
                Response::Error(e) => return Err(e),
                other => panic!("{other:?}"),
            }
        }
    };
    assert!(fetch(false).unwrap_err().contains("mesh-store is not running"));
    let store = FakeStore::start(&lab.dir, bundle[..bundle.len() - 1].to_vec());
    wait_for_store(&lab.dir);
    assert!(fetch(false).unwrap_err().contains("truncated"));
    store.given();
    let store = FakeStore::start(&lab.dir, bundle.clone());
    wait_for_store(&lab.dir);
    assert!(fetch(true).unwrap().contains("would install it"));
    assert!(store.given() >= bundle.len() as u64, "a check reads all");
    let store = FakeStore::start(&lab.dir, bundle.clone());
    wait_for_store(&lab.dir);
    let done = fetch(false).unwrap();
    assert!(done.contains("bytes came from the running slot"), "{done}");
    assert_eq!(lab.slot_bytes(Slot::B, new.len())[512..], new[512..]);
    let given = store.given();
    assert!(given < bundle.len() as u64 + 600_000, "{given} of {}", bundle.len());
}

fn wait_for_store(dir: &Path) {
    let end = std::time::Instant::now() + DEADLINE;
    while Client::<StoreRequest, StoreResponse>::connect(dir, "mesh-store", DEADLINE).is_err() {
        assert!(std::time::Instant::now() < end, "the store never came");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Kind and payload of a record.
type Published = (u8, Vec<u8>);

/// A router that knows some records of other nodes, and hears what this one publishes.
struct FakeRouter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Published>>>,
}

impl FakeRouter {
    fn start(dir: &Path, records: Vec<Record>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, ends) = (dir.to_path_buf(), stop.clone());
        let thread = std::thread::spawn(move || {
            let poller = Poller::new().unwrap();
            let mut server: Server<RouterRequest, RouterResponse> =
                Server::bind(&path, "mesh-router", &poller, 0).unwrap();
            let (mut events, mut published) = (Vec::new(), Vec::new());
            while !ends.load(Ordering::Relaxed) {
                poller.wait(Some(clock::now() + mesh_types::Duration::from_millis(20)), &mut events).unwrap();
                for event in events.drain(..) {
                    for what in server.handle(&poller, event) {
                        let ServerEvent::Request(id, Request::Service(request)) = what else { continue };
                        let answers = match request {
                            RouterRequest::Publish { kind, payload, .. } => {
                                published.push((kind, payload));
                                vec![RouterResponse::Published]
                            }
                            RouterRequest::Subscribe { kinds } => {
                                assert_eq!(kinds, [3, 4]);
                                records.iter().cloned().map(RouterResponse::Record).collect()
                            }
                            RouterRequest::Topology => vec![RouterResponse::Topology(Vec::new())],
                            _ => vec![RouterResponse::Neighbors(Vec::new())],
                        };
                        for answer in answers {
                            server.send(&poller, id, &Response::Service(answer));
                        }
                    }
                }
            }
            published
        });
        let end = std::time::Instant::now() + DEADLINE;
        while !dir.join("mesh-router.sock").exists() {
            assert!(std::time::Instant::now() < end);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Self { stop, thread: Some(thread) }
    }

    /// Ends it; what was published.
    fn published(mut self) -> Vec<Published> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

const OTHER: mesh_types::NodeId = mesh_types::NodeId::from_digest([7; 32]);

fn record(kind: u8, payload: Vec<u8>) -> Record {
    Record { node: OTHER, kind, seq: 1, hops: 1, valid_ms: 9000, payload }
}

fn staged(lab: &Lab) {
    let config = fs::read_to_string(lab.dir.join("p2pmesh.toml")).unwrap();
    fs::write(lab.dir.join("p2pmesh.toml"), config + "update.auto = \"staged\"\n").unwrap();
}

/// With a router that has another node's report: this node tells its own, shows both, and claims its turn.
#[test]
fn the_fleet_is_shown_and_a_staged_node_claims_its_turn() {
    let (lab, _) = lab("fleet");
    staged(&lab);
    let report = Report { phase: Phase::Idle, percent: 100, running: 1, target: 1, stops: 0, resumed: 0 };
    let router = FakeRouter::start(&lab.dir, vec![record(3, report.encode().to_vec())]);
    let running = lab.start_on_card("A");
    let slots = running.slots_when("the other node", |s| s.fleet.len() == 2);
    assert_eq!((slots.fleet[1].node, slots.fleet[1].running), (OTHER, 1));
    let new = slot_image(2, 100_000);
    offer(&running, &signed(&new, &[1, 2]), false).unwrap();
    // Nobody is in the way: it claims its turn at once. (The restart follows when the claim has stood for 20 s.)
    running.slots_when("the claim", |s| s.fleet[0].phase == "is about to restart" && s.fleet[0].target == 2);
    assert!(matches!(running.ask(&Request::Service(UpdateRequest::Resume)), Response::Error(_)));
    running.stop();
    let published = router.published();
    let reports: Vec<Report> =
        published.iter().filter(|(kind, _)| *kind == 3).map(|(_, p)| Report::parse(p).unwrap()).collect();
    assert_eq!(reports.first().unwrap().running, 1);
    assert_eq!(reports.last().unwrap().phase, Phase::Claim);
}

/// A bundle's announcement, as another node makes it.
fn announcement(bundle: &[u8], release: u64) -> Offer {
    let (manifest, signatures) = signed_part(bundle).unwrap();
    let keys = vec![public(1), public(2), test_keys()[0]];
    let policy = Policy { keys, ..Policy::default() };
    let signed = Signed { manifest, signatures: &signatures, release, version: "1.2" };
    Offer::new(&policy, &signed, KEPT).unwrap()
}

#[test]
fn what_is_announced_is_fetched_by_itself_and_passed_on() {
    let (lab, _) = lab("announced");
    staged(&lab);
    let new = slot_image(2, 1_500_000);
    let bundle = signed(&new, &[1, 2]);
    let good = announcement(&bundle, 2);
    let mut forged = good.clone();
    forged.release = 7;
    forged.signatures[1].1[0] ^= 1;
    let mut lie = good.clone();
    lie.release = 9;
    for (bad, what) in [(forged, "offers_bad"), (lie, "offers_good")] {
        let router = FakeRouter::start(&lab.dir, vec![record(4, bad.encode())]);
        let store = FakeStore::start(&lab.dir, bundle.clone());
        wait_for_store(&lab.dir);
        let before = fs::read(lab.disk()).unwrap();
        let running = lab.start_on_card("A");
        let counted = |running: &Running| running.status().counters.iter().any(|(n, v)| n == what && *v == 1);
        let end = std::time::Instant::now() + DEADLINE;
        while !counted(&running) {
            assert!(std::time::Instant::now() < end, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        if what == "offers_good" {
            running.slots_when("the refusal", |s| {
                s.offered.is_none()
                    && s.notes.iter().any(|n| n.contains("not what was announced: it is release 2"))
            });
        }
        assert!(fs::read(lab.disk()).unwrap() == before);
        running.stop();
        assert!(router.published().iter().all(|(kind, _)| *kind == 3));
        // Nothing is fetched of what is not signed.
        assert!(store.given() == 0 || what == "offers_good");
    }
    let router = FakeRouter::start(&lab.dir, vec![record(4, good.encode())]);
    let store = FakeStore::start(&lab.dir, bundle.clone());
    wait_for_store(&lab.dir);
    let running = lab.start_on_card("A");
    let slots =
        running.slots_when("the new system", |s| s.kept == KEPT && s.fleet[0].phase.contains("restart"));
    assert!(slots.offered.is_none() && slots.slots[1].release == 2, "{slots:?}");
    assert_eq!(lab.slot_bytes(Slot::B, new.len()), new);
    assert!(fs::read(lab.dir.join("added")).unwrap() == bundle, "the same bundle is in the store");
    running.stop();
    let published = router.published();
    assert!(published.contains(&(4, good.encode())), "it is announced here, too");
    let percent = |p: &Vec<u8>| Report::parse(p).unwrap().percent;
    let steps: Vec<u8> = published.iter().filter(|(k, _)| *k == 3).map(|(_, p)| percent(p)).collect();
    assert!(steps.contains(&0) && steps.contains(&50) && steps.last() == Some(&100), "{steps:?}");
    store.given();

    // What waits for its boot is known as such after the service started again, and is announced again.
    let router = FakeRouter::start(&lab.dir, Vec::new());
    let running = lab.start_on_card("A");
    running.slots_when("the claim", |s| s.fleet[0].phase == "is about to restart" && s.fleet[0].target == 2);
    running.stop();
    assert!(router.published().contains(&(4, good.encode())));
}

#[test]
fn who_is_only_to_tell_tells_and_fetches_nothing() {
    let (lab, _) = lab("notify");
    let bundle = signed(&slot_image(2, 100_000), &[1, 2]);
    let router = FakeRouter::start(&lab.dir, vec![record(4, announcement(&bundle, 2).encode())]);
    let running = lab.start_on_card("A");
    let slots = running.slots_when("the announcement", |s| s.offered.is_some());
    let offered = slots.offered.unwrap();
    assert_eq!((offered.release, offered.cid.as_str(), offered.nodes), (2, KEPT, 1));
    assert!(slots.installing.is_none() && slots.notes.is_empty());
    running.stop();
    router.published();
}

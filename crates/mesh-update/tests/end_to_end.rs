//! The binary itself, with a file as card and a thread as the other service.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mesh_ipc::update::{Slots, UpdateRequest, UpdateResponse};
use mesh_ipc::{Request, Response, ServiceStatus};
use mesh_sys::clock;
use mesh_sys::control::{Client, Server, ServerEvent};
use mesh_sys::poll::Poller;
use update_core::{BootState, COPY_LBA, Extent, Part, SECTOR, Slot, SlotHeader, pick, read_copies};

const DEADLINE: Duration = Duration::from_secs(30);
const SLOT_LBA: [u32; 2] = [0x8000, 0x9000];

struct Lab {
    dir: PathBuf,
}

impl Lab {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("mesh-update-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self { dir }
    }

    fn disk(&self) -> PathBuf {
        self.dir.join("card")
    }

    /// A card with an MBR and the two slots' headers; both boot-state copies empty.
    fn card(&self, versions: [&str; 2]) {
        let file = fs::File::create(self.disk()).unwrap();
        file.set_len(u64::from(SLOT_LBA[1] + 0x1000) * 512).unwrap();
        let mut mbr = [0u8; SECTOR];
        for (i, start) in SLOT_LBA.iter().enumerate() {
            let at = 446 + 16 * (i + 1);
            mbr[at + 4] = 0xda;
            mbr[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            mbr[at + 12..at + 16].copy_from_slice(&0x1000u32.to_le_bytes());
        }
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        file.write_all_at(&mbr, 0).unwrap();
        for (start, version) in SLOT_LBA.iter().zip(versions).filter(|(_, v)| !v.is_empty()) {
            let part = Part { offset: 8, sectors: 8, len: 4096, crc: 1 };
            let header = SlotHeader {
                version: version.into(),
                kernel: part,
                initramfs: part,
                image: Extent { offset: 16, sectors: 8 },
                tree: Extent { offset: 24, sectors: 8 },
                root: "ab".repeat(32),
                ..SlotHeader::default()
            };
            file.write_all_at(&header.encode().unwrap(), u64::from(*start) * 512).unwrap();
        }
    }

    fn write(&self, copy: usize, sector: &[u8]) {
        let file = fs::OpenOptions::new().write(true).open(self.disk()).unwrap();
        file.write_all_at(sector, COPY_LBA[copy] * 512).unwrap();
    }

    fn copies(&self) -> [[u8; SECTOR]; 2] {
        let file = fs::File::open(self.disk()).unwrap();
        COPY_LBA.map(|lba| {
            let mut sector = [0; SECTOR];
            file.read_exact_at(&mut sector, lba * 512).unwrap();
            sector
        })
    }

    fn state(&self) -> BootState {
        let [a, b] = self.copies();
        read_copies(&a, &b).state
    }

    /// What the boot script does: picks a slot and writes the older copy.
    fn boot(&self) -> Slot {
        let [a, b] = self.copies();
        let read = read_copies(&a, &b);
        let picked = pick(&read.state, |_| true);
        let copy = usize::from(read.write_to == update_core::Copy::Second);
        self.write(copy, &picked.after.encode().unwrap());
        picked.slot.unwrap()
    }

    fn start(&self, extra: &[&str]) -> Running {
        let log = fs::File::create(self.dir.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_mesh-update"))
            .args(["--run-dir", self.dir.to_str().unwrap(), "--gate", "mesh-test", "--stable", "0"])
            .args(extra)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Running { child, dir: self.dir.clone() }
    }

    fn start_on_card(&self, slot: &str) -> Running {
        self.start(&["--slot", slot, "--disk", self.disk().to_str().unwrap()])
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("log:\n{log}").as_bytes());
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

struct Running {
    child: Child,
    dir: PathBuf,
}

impl Running {
    fn ask(&self, request: &Request<UpdateRequest>) -> Response<UpdateResponse> {
        let end = Instant::now() + DEADLINE;
        loop {
            let client = Client::<UpdateRequest, UpdateResponse>::connect(&self.dir, "mesh-update", DEADLINE);
            match client {
                Ok(mut client) => return client.request(request).unwrap(),
                Err(e) if Instant::now() > end => panic!("it never answered: {e}"),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn slots(&self) -> Slots {
        match self.ask(&Request::Service(UpdateRequest::Slots)) {
            Response::Service(UpdateResponse::Slots(slots)) => slots,
            other => panic!("{other:?}"),
        }
    }

    fn slots_when(&self, what: &str, good: impl Fn(&Slots) -> bool) -> Slots {
        let end = Instant::now() + DEADLINE;
        loop {
            let slots = self.slots();
            if good(&slots) {
                return slots;
            }
            assert!(Instant::now() < end, "{what} never came: {slots:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn status(&self) -> ServiceStatus {
        match self.ask(&Request::Status) {
            Response::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Ends it by SIGTERM; it must end well and take its socket along.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        assert!(!self.dir.join("mesh-update.sock").exists());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A service that answers `Status` until dropped.
struct Fake {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    fn start(dir: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (dir, ends) = (dir.to_path_buf(), stop.clone());
        let thread = std::thread::spawn(move || {
            let poller = Poller::new().unwrap();
            let mut server: Server<(), ()> = Server::bind(&dir, "mesh-test", &poller, 0).unwrap();
            let mut events = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                poller.wait(Some(clock::now() + mesh_types::Duration::from_millis(20)), &mut events).unwrap();
                for event in events.drain(..) {
                    for what in server.handle(&poller, event) {
                        if let ServerEvent::Request(id, _) = what {
                            server.send(&poller, id, &Response::Status(ServiceStatus::default()));
                        }
                    }
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn state(seq: u64, a_left: u32, b_left: u32) -> [u8; SECTOR] {
    BootState { seq, a_left, b_left, ..BootState::default() }.encode().unwrap()
}

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

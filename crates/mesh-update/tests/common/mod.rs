//! A card in a file, the service on it, and a thread as the other service, for the tests.

#![allow(dead_code, unreachable_pub)] // each test uses a part of it
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

pub const DEADLINE: Duration = Duration::from_secs(30);
/// Where the slots begin, and their sectors (8 MiB).
const SLOT_LBA: [u32; 2] = [0x8000, 0xc000];
const SLOT_SECTORS: u32 = 0x4000;

pub struct Lab {
    pub dir: PathBuf,
}

impl Lab {
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("mesh-update-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self { dir }
    }

    pub fn disk(&self) -> PathBuf {
        self.dir.join("card")
    }

    /// A card with an MBR and the two slots' headers; both boot-state copies empty.
    pub fn card(&self, versions: [&str; 2]) {
        let file = fs::File::create(self.disk()).unwrap();
        file.set_len(u64::from(SLOT_LBA[1] + SLOT_SECTORS) * 512).unwrap();
        let mut mbr = [0u8; SECTOR];
        for (i, start) in SLOT_LBA.iter().enumerate() {
            let at = 446 + 16 * (i + 1);
            mbr[at + 4] = 0xda;
            mbr[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            mbr[at + 12..at + 16].copy_from_slice(&SLOT_SECTORS.to_le_bytes());
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

    pub fn write(&self, copy: usize, sector: &[u8]) {
        let file = fs::OpenOptions::new().write(true).open(self.disk()).unwrap();
        file.write_all_at(sector, COPY_LBA[copy] * 512).unwrap();
    }

    pub fn copies(&self) -> [[u8; SECTOR]; 2] {
        let file = fs::File::open(self.disk()).unwrap();
        COPY_LBA.map(|lba| {
            let mut sector = [0; SECTOR];
            file.read_exact_at(&mut sector, lba * 512).unwrap();
            sector
        })
    }

    pub fn state(&self) -> BootState {
        let [a, b] = self.copies();
        read_copies(&a, &b).state
    }

    /// What the boot script does: picks a slot and writes the older copy.
    pub fn boot(&self) -> Slot {
        let [a, b] = self.copies();
        let read = read_copies(&a, &b);
        let picked = pick(&read.state, |_| true);
        let copy = usize::from(read.write_to == update_core::Copy::Second);
        self.write(copy, &picked.after.encode().unwrap());
        picked.slot.unwrap()
    }

    /// Bytes of a slot.
    pub fn slot_bytes(&self, slot: Slot, len: usize) -> Vec<u8> {
        let file = fs::File::open(self.disk()).unwrap();
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, u64::from(SLOT_LBA[usize::from(slot == Slot::B)]) * 512).unwrap();
        bytes
    }

    /// Puts a whole system into slot A.
    pub fn put_slot_a(&self, bytes: &[u8]) {
        let file = fs::OpenOptions::new().write(true).open(self.disk()).unwrap();
        file.write_all_at(bytes, u64::from(SLOT_LBA[0]) * 512).unwrap();
    }

    pub fn start(&self, extra: &[&str]) -> Running {
        let log = fs::File::create(self.dir.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_mesh-update"))
            .args(["--run-dir", self.dir.to_str().unwrap(), "--gate", "mesh-test", "--stable", "0"])
            .args(["--state-dir", self.dir.join("state").to_str().unwrap(), "--board", "brcm,bcm2837"])
            .args(["--config", self.dir.join("p2pmesh.toml").to_str().unwrap()])
            .args(extra)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Running { child, dir: self.dir.clone() }
    }

    pub fn start_on_card(&self, slot: &str) -> Running {
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

pub struct Running {
    child: Child,
    pub dir: PathBuf,
}

impl Running {
    pub fn ask(&self, request: &Request<UpdateRequest>) -> Response<UpdateResponse> {
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

    pub fn slots(&self) -> Slots {
        match self.ask(&Request::Service(UpdateRequest::Slots)) {
            Response::Service(UpdateResponse::Slots(slots)) => slots,
            other => panic!("{other:?}"),
        }
    }

    pub fn slots_when(&self, what: &str, good: impl Fn(&Slots) -> bool) -> Slots {
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

    pub fn status(&self) -> ServiceStatus {
        match self.ask(&Request::Status) {
            Response::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    pub fn connect(&self) -> Client<UpdateRequest, UpdateResponse> {
        self.status();
        Client::connect(&self.dir, "mesh-update", DEADLINE).unwrap()
    }

    /// The most memory it ever had, in KiB.
    pub fn peak_rss(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Pulls the plug.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it by SIGTERM; it must end well and take its socket along.
    pub fn stop(mut self) {
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
pub struct Fake {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub fn start(dir: &Path) -> Self {
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

pub fn state(seq: u64, a_left: u32, b_left: u32) -> [u8; SECTOR] {
    BootState { seq, a_left, b_left, ..BootState::default() }.encode().unwrap()
}

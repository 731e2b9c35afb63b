//! A fleet that updates itself: on every node a router, a store and the update service, with a file as card. What a board would
//! do, switching off and booting, is played here: the boot script's choice is `update_core::pick`'s.
//!
//! It watches that never more neighbours of any node are down than allowed, from the moment a node asks for its restart until
//! its system is confirmed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mesh_ipc::supervisor::{SupervisorRequest, SupervisorResponse};
use mesh_ipc::update::{Slots, UpdateRequest, UpdateResponse};
use mesh_ipc::{Request, Response};
use mesh_sys::clock;
use mesh_sys::control::{Client, Server, ServerEvent};
use mesh_sys::poll::Poller;
use update_core::{
    BootState, COPY_LBA, Copy, Extent, Part, SECTOR, Slot, SlotHeader, crc32, pick, read_copies, test_keys,
};

use crate::air::{Air, INTERFACE};
use crate::field::{set_up, settle};
use crate::graph::Graph;
use crate::lab::{Lab, Result, told, wait_for};

/// Where slot A begins on a card, in sectors.
const SLOT_A: u32 = 0x8000;
/// How long a node is silent when it starts again.
const SILENCE: Duration = Duration::from_secs(1);
/// What a node is called in a bundle.
const BOARD: &str = "brcm,bcm2837";

/// How the fleet is set up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who hears whom.
    pub graph: Graph,
    /// Bytes of a system, about.
    pub size: usize,
    /// `update.share`, in per cent.
    pub share: usize,
    /// `update.settle`, in seconds.
    pub settle: u16,
}

/// The fleet; its nodes are the lab's.
#[derive(Debug)]
pub struct Fleet<'a> {
    lab: &'a mut Lab,
    plan: Plan,
    _air: Air,
    cards: Vec<Card>,
    down: Vec<Down>,
    supervisors: Supervisors,
    /// A release whose systems never prove good.
    bad: u64,
    /// The most nodes that were down at once, and the most neighbours of one.
    pub most_down: (usize, usize),
    /// Starts of a release that is bad.
    pub tried: usize,
}

/// What a node is doing, as the board sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    Up,
    /// Off, until then.
    Off(Instant),
    /// On again, its system not confirmed yet.
    Trial,
}

impl<'a> Fleet<'a> {
    /// Nodes that run release 1, confirmed; all services run and know one another.
    ///
    /// # Errors
    /// The kernel's, or a service does not start.
    pub fn new(lab: &'a mut Lab, plan: Plan) -> Result<Self> {
        let nodes = plan.graph.nodes;
        for at in 0..nodes {
            lab.add_node(&format!("n{at}"))?;
            lab.at(at)?.inside(settle)?;
        }
        let air = Air::new(lab, &plan.graph)?;
        let old = system(1, plan.size);
        let mut cards = Vec::new();
        for at in 0..nodes {
            set_up(lab.at(at)?, &[INTERFACE.into()])?;
            cards.push(Card::new(lab.at(at)?.file("card"), &old, plan.size)?);
            let keys = test_keys().map(|k| format!("\"{}\"", k.map(|b| format!("{b:02x}")).concat()));
            let config = format!(
                "update.keys = [{}]\nupdate.auto = \"staged\"\nupdate.share = {}\nupdate.settle = {}\n",
                keys.join(", "),
                plan.share,
                plan.settle
            );
            fs::write(lab.at(at)?.file("p2pmesh.toml"), config).map_err(told("p2pmesh.toml"))?;
        }
        let dirs = (0..nodes).map(|at| Ok(lab.at(at)?.run_dir())).collect::<Result<Vec<_>>>()?;
        let supervisors = Supervisors::start(dirs)?;
        let down = vec![Down::Up; nodes];
        let (most_down, tried) = ((0, 0), 0);
        let mut fleet = Self { lab, plan, _air: air, cards, down, supervisors, bad: 0, most_down, tried };
        for at in 0..nodes {
            fleet.boot(at)?;
        }
        Ok(fleet)
    }

    /// The nodes.
    pub const fn lab(&mut self) -> &mut Lab {
        self.lab
    }

    /// From now on systems of this release never prove good (0: all do).
    pub const fn set_bad(&mut self, release: u64) {
        self.bad = release;
    }

    /// Makes a bundle of a release, signed by two of the three keys, with the tool that people use.
    ///
    /// # Errors
    /// The tool's.
    pub fn bundle(&mut self, release: u64) -> Result<PathBuf> {
        let node = self.lab.at(0)?;
        let file = |name: String| node.file(&name).display().to_string();
        let (slot, bundle) = (file(format!("{release}.slot")), file(format!("{release}.bundle")));
        fs::write(&slot, system(release, self.plan.size)).map_err(told("slot"))?;
        node.run("mesh-bundle", &["make", &slot, "-o", &bundle, "--board", BOARD], b"")?;
        for n in ["1", "2"] {
            let key = file(format!("key{release}{n}"));
            node.run("mesh-bundle", &["keygen", &key, "--test", n], b"")?;
            node.run("mesh-bundle", &["sign", &bundle, "--key", &key], b"")?;
        }
        Ok(bundle.into())
    }

    /// `meshctl update` on a node.
    ///
    /// # Errors
    /// What it says.
    pub fn meshctl(&self, at: usize, words: &[&str]) -> Result<String> {
        let node = self.lab.at(at)?;
        let run_dir = node.run_dir().display().to_string();
        let words: Vec<&str> =
            ["--run-dir", &run_dir, "update"].into_iter().chain(words.iter().copied()).collect();
        Ok(String::from_utf8_lossy(&node.run("meshctl", &words, b"")?).into_owned())
    }

    /// What the update service of a node says; `None` while it does not answer.
    pub fn slots(&self, at: usize) -> Option<Slots> {
        let dir = self.lab.at(at).ok()?.run_dir();
        let patience = Duration::from_secs(5);
        let mut client: Client<UpdateRequest, UpdateResponse> =
            Client::connect(&dir, "mesh-update", patience).ok()?;
        match client.request(&Request::Service(UpdateRequest::Slots)).ok()? {
            Response::Service(UpdateResponse::Slots(slots)) => Some(slots),
            _ => None,
        }
    }

    /// The release that runs on a node and is confirmed; 0: none.
    pub fn running(&self, at: usize) -> u64 {
        let slots = self.slots(at).filter(|s| s.confirmed).unwrap_or_default();
        slots.slots.iter().find(|s| s.name == slots.running).map_or(0, |s| s.release)
    }

    /// How many nodes run a release.
    pub fn count(&self, release: u64) -> usize {
        (0..self.plan.graph.nodes).filter(|at| self.running(*at) == release).count()
    }

    /// How many nodes have all of a release in a slot, as the best informed one knows.
    pub fn have(&self, release: u64) -> usize {
        let know = |at: usize| {
            let all = self.slots(at)?.fleet;
            Some(all.iter().filter(|n| n.target == release && n.percent == 100).count())
        };
        (0..self.plan.graph.nodes).filter_map(know).max().unwrap_or(0)
    }

    /// Plays the boards until `done` says so; when that was.
    ///
    /// # Errors
    /// It did not within `patience`; too many were down at once; a service did not start.
    pub fn drive(
        &mut self,
        what: &str,
        patience: Duration,
        mut done: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<Instant> {
        let end = Instant::now() + patience;
        loop {
            while let Ok(at) = self.supervisors.asked.try_recv() {
                self.switch_off(at)?;
            }
            for at in 0..self.down.len() {
                match self.down.get(at) {
                    Some(Down::Off(until)) if Instant::now() >= *until => self.boot(at)?,
                    Some(Down::Trial) if self.running(at) != 0 => self.set(at, Down::Up),
                    _ => {}
                }
            }
            match done(self) {
                Ok(()) => return Ok(Instant::now()),
                Err(why) if Instant::now() > end => {
                    return Err(format!("{what}: not within {} s: {why}", patience.as_secs()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Waits until each node knows that many nodes (itself included).
    ///
    /// # Errors
    /// Some do not.
    pub fn acquainted(&mut self, patience: Duration) -> Result<()> {
        let nodes = self.plan.graph.nodes;
        let known = |fleet: &mut Self| {
            let few = (0..nodes).find(|at| {
                fleet.slots(*at).is_none_or(|s| s.fleet.iter().filter(|n| !n.offline).count() < nodes)
            });
            few.map_or(Ok(()), |at| Err(format!("n{at} does not know all")))
        };
        self.drive("all nodes know all", patience, known).map(drop)
    }

    fn set(&mut self, at: usize, down: Down) {
        if let Some(place) = self.down.get_mut(at) {
            *place = down;
        }
    }

    /// A node asked for its restart: it goes off without another word.
    fn switch_off(&mut self, at: usize) -> Result<()> {
        for service in ["mesh-update", "mesh-router", "mesh-store"] {
            self.lab.node(at)?.kill(service)?;
        }
        self.set(at, Down::Off(Instant::now() + SILENCE));
        self.check()
    }

    fn boot(&mut self, at: usize) -> Result<()> {
        let card = self.cards.get(at).ok_or("no such node")?;
        let slot = card.boot().map_err(told("card"))?;
        let bad = self.bad != 0 && card.release(slot) == self.bad;
        self.tried += usize::from(bad);
        let (name, disk) = (slot.to_string(), card.path.display().to_string());
        let node = self.lab.node(at)?;
        node.start("mesh-router", &["--fast", "--interface", INTERFACE])?;
        node.start("mesh-store", &["--fast"])?;
        let flags =
            ["--slot", &name, "--disk", &disk, "--board", BOARD, "--stable", "0", "--gate", "mesh-router"];
        // A service that is not there never answers.
        let gate: &[&str] =
            if bad { &["--gate", "mesh-nothing", "--patience", "2"] } else { &["--gate", "mesh-store"] };
        node.start("mesh-update", &[&flags[..], gate].concat())?;
        self.set(at, Down::Trial);
        Ok(())
    }

    /// Nobody has more neighbours down than allowed.
    fn check(&mut self) -> Result<()> {
        let is_down = |at: &usize| self.down.get(*at).is_some_and(|d| *d != Down::Up);
        let mut most = 0;
        for at in 0..self.plan.graph.nodes {
            let all: Vec<usize> = self.plan.graph.neighbors(at).collect();
            let down: Vec<usize> = all.iter().copied().filter(|n| is_down(n)).collect();
            let limit = (all.len() * self.plan.share / 100).min(all.len().saturating_sub(1)).max(1);
            most = most.max(down.len());
            if down.len() > limit {
                return Err(format!("of n{at}'s neighbours {all:?} these are down at once: {down:?}"));
            }
        }
        let all = (0..self.plan.graph.nodes).filter(is_down).count();
        self.most_down = (self.most_down.0.max(all), self.most_down.1.max(most));
        Ok(())
    }
}

/// A system of some `size` bytes, which no other release has anything in common with.
fn system(release: u64, size: usize) -> Vec<u8> {
    let mut seed = release;
    let mut noise = |len: usize| {
        let words = std::iter::repeat_with(|| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (z ^ (z >> 27)).to_le_bytes()
        });
        words.flatten().take(len).collect::<Vec<u8>>()
    };
    let blocks = |len: usize| len.next_multiple_of(4096);
    let parts = [noise(4096 * 2), noise(blocks(size / 4)), noise(blocks(size * 3 / 4)), noise(4096)];
    let mut bytes = vec![0; 4096];
    let places: Vec<u32> = parts
        .iter()
        .map(|part| {
            let at = (bytes.len() / SECTOR) as u32;
            bytes.extend_from_slice(part);
            at
        })
        .collect();
    let [initramfs, kernel, root, tree] = parts;
    let place = |n: usize| places.get(n).copied().unwrap_or(0);
    let sectors = |part: &[u8]| (part.len() / SECTOR) as u32;
    let loaded = |n: usize, part: &[u8]| Part {
        offset: place(n),
        sectors: sectors(part),
        len: part.len() as u32,
        crc: crc32(part),
    };
    let header = SlotHeader {
        version: format!("1.{release}"),
        initramfs: loaded(0, &initramfs),
        kernel: loaded(1, &kernel),
        image: Extent { offset: place(2), sectors: sectors(&root) },
        tree: Extent { offset: place(3), sectors: sectors(&tree) },
        root: "ab".repeat(32),
        salt: String::new(),
        release,
        floor: 1,
    };
    if let (Ok(sector), Some(head)) = (header.encode(), bytes.first_chunk_mut()) {
        *head = sector;
    }
    bytes
}

/// A card in a file.
#[derive(Debug)]
struct Card {
    path: PathBuf,
    /// Sectors of a slot.
    sectors: u32,
}

impl Card {
    fn new(path: PathBuf, old: &[u8], size: usize) -> Result<Self> {
        let sectors = ((size + (1 << 20)).next_multiple_of(1 << 20) / SECTOR) as u32;
        let card = Self { path, sectors };
        card.write(old).map_err(told("card"))?;
        Ok(card)
    }

    fn write(&self, old: &[u8]) -> io::Result<()> {
        let file = File::create(&self.path)?;
        file.set_len(u64::from(SLOT_A + 2 * self.sectors) * SECTOR as u64)?;
        // The partition table: 2 and 3 are the slots.
        for (entry, start) in [(1, SLOT_A), (2, SLOT_A + self.sectors)] {
            let at = 446 + 16 * entry;
            file.write_all_at(&[0xda], at + 4)?;
            file.write_all_at(&[start.to_le_bytes(), self.sectors.to_le_bytes()].concat(), at + 8)?;
        }
        file.write_all_at(&[0x55, 0xaa], 510)?;
        file.write_all_at(old, u64::from(SLOT_A) * SECTOR as u64)?;
        let state = BootState { seq: 1, b_left: 0, ..BootState::default() };
        let sector = state.encode().map_err(io::Error::other)?;
        file.write_all_at(&sector, sector_at(COPY_LBA.first().copied().unwrap_or(0)))
    }

    fn sector(&self, lba: u64) -> io::Result<[u8; SECTOR]> {
        let mut sector = [0; SECTOR];
        File::open(&self.path)?.read_exact_at(&mut sector, sector_at(lba))?;
        Ok(sector)
    }

    fn header(&self, slot: Slot) -> Option<SlotHeader> {
        let start = if slot == Slot::A { SLOT_A } else { SLOT_A + self.sectors };
        SlotHeader::parse(&self.sector(start.into()).ok()?).ok()
    }

    fn release(&self, slot: Slot) -> u64 {
        self.header(slot).map_or(0, |h| h.release)
    }

    /// What the boot script does: picks a slot, takes a try off it, writes the older copy.
    fn boot(&self) -> io::Result<Slot> {
        let [first, second] = COPY_LBA;
        let read = read_copies(&self.sector(first)?, &self.sector(second)?);
        let picked = pick(&read.state, |slot| self.header(slot).is_some());
        let lba = if read.write_to == Copy::Second { second } else { first };
        let sector = picked.after.encode().map_err(io::Error::other)?;
        OpenOptions::new().write(true).open(&self.path)?.write_all_at(&sector, sector_at(lba))?;
        picked.slot.ok_or_else(|| io::Error::other("no slot boots"))
    }
}

const fn sector_at(lba: u64) -> u64 {
    lba * SECTOR as u64
}

/// What stands for mesh-supervisor on all nodes: it hears who wants to be started again.
#[derive(Debug)]
struct Supervisors {
    asked: Receiver<usize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Supervisors {
    fn start(dirs: Vec<PathBuf>) -> Result<Self> {
        let (send, asked) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let ends = stop.clone();
        let last = dirs.last().cloned();
        let thread = Some(std::thread::spawn(move || supervise(&dirs, &send, &ends)));
        let all = Self { asked, stop, thread };
        wait_for("the supervisors", Duration::from_secs(10), || {
            let there = last.as_ref().is_none_or(|dir| dir.join("mesh-supervisor.sock").exists());
            there.then_some(()).ok_or_else(|| "not yet".into())
        })?;
        Ok(all)
    }
}

impl Drop for Supervisors {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn supervise(dirs: &[PathBuf], asked: &Sender<usize>, ends: &AtomicBool) -> io::Result<()> {
    let poller = Poller::new()?;
    let bind = |(at, dir): (usize, &PathBuf)| {
        let token = (at as u64) << 20;
        Server::<SupervisorRequest, SupervisorResponse>::bind(
            Path::new(dir),
            "mesh-supervisor",
            &poller,
            token,
        )
    };
    let mut servers = dirs.iter().enumerate().map(bind).collect::<io::Result<Vec<_>>>()?;
    let mut events = Vec::new();
    while !ends.load(Ordering::Relaxed) {
        poller.wait(Some(clock::now() + mesh_types::Duration::from_millis(50)), &mut events)?;
        for event in events.drain(..) {
            let owner = servers.iter_mut().enumerate().rev().find(|(_, s)| s.owns(event.token));
            let Some((at, server)) = owner else { continue };
            for what in server.handle(&poller, event) {
                let ServerEvent::Request(client, request) = what else { continue };
                server.send(&poller, client, &Response::Service(SupervisorResponse::Done));
                if request == Request::Service(SupervisorRequest::Reboot) {
                    let _ = asked.send(at); // nobody listens any more at the end
                }
            }
        }
    }
    Ok(())
}

//! The store against a model, on a disk that loses power and runs full.

use super::*;
use crate::gc::Collected;
use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use content_id::import::{DirectoryBuilder, FileBuilder, Profile};
use content_id::{Block, Codec, Version};
use core::cell::RefCell;
use proptest::prelude::*;

/// splitmix64.
#[derive(Clone, Debug)]
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

const SECTOR: usize = 512;

/// A file as the system sees it and as the medium has it.
#[derive(Clone, Debug, Default)]
struct File {
    now: Vec<u8>,
    /// `None`: the name is not on the medium yet.
    synced: Option<Vec<u8>>,
    /// Removed, but perhaps not on the medium.
    removed: bool,
}

#[derive(Debug, Default)]
struct Medium {
    files: BTreeMap<u32, File>,
    capacity: u64,
    fail_sync: bool,
    syncs: u64,
}

/// A disk shared with the test, which may cut its power.
#[derive(Clone, Debug, Default)]
struct SimDisk(Rc<RefCell<Medium>>);

impl SimDisk {
    fn new(capacity: u64) -> Self {
        let disk = Self::default();
        disk.0.borrow_mut().capacity = capacity;
        disk
    }

    /// What was not synced is kept or lost, sector by sector, as the dice say.
    fn cut_power(&self, rng: &mut Rng) {
        let mut medium = self.0.borrow_mut();
        let files = core::mem::take(&mut medium.files);
        for (number, file) in files {
            let was = file.synced.clone();
            if file.removed && (was.is_none() || rng.below(2) == 0) {
                continue;
            }
            if was.is_none() && rng.below(3) == 0 {
                continue;
            }
            let old = was.unwrap_or_default();
            let mut bytes = if rng.below(2) == 0 { file.now.len() } else { old.len() };
            if bytes > old.len() && rng.below(2) == 0 {
                bytes = old.len() + rng.below((bytes - old.len()) as u64 + 1) as usize;
            }
            let mut kept = vec![0; bytes];
            for start in (0..bytes).step_by(SECTOR) {
                let source = if rng.below(2) == 0 { &file.now } else { &old };
                let end = (start + SECTOR).min(bytes);
                for (at, byte) in kept[start..end].iter_mut().enumerate() {
                    *byte = source.get(start + at).or(old.get(start + at)).copied().unwrap_or(0);
                }
            }
            medium.files.insert(number, File { now: kept.clone(), synced: Some(kept), removed: false });
        }
    }

    fn flip(&self, segment: u32, at: usize) {
        let mut medium = self.0.borrow_mut();
        let file = medium.files.get_mut(&segment).unwrap();
        file.now[at] ^= 0x40;
        file.synced = Some(file.now.clone());
    }
}

fn used(medium: &Medium) -> u64 {
    medium.files.values().filter(|f| !f.removed).map(|f| f.now.len() as u64).sum()
}

impl Disk for SimDisk {
    fn list(&mut self) -> Result<Vec<u32>, DiskError> {
        Ok(self.0.borrow().files.iter().filter(|(_, f)| !f.removed).map(|(n, _)| *n).collect())
    }
    fn size(&mut self, segment: u32) -> Result<u64, DiskError> {
        Ok(self.0.borrow().files[&segment].now.len() as u64)
    }
    fn create(&mut self, segment: u32) -> Result<(), DiskError> {
        let mut medium = self.0.borrow_mut();
        let file = medium.files.entry(segment).or_default();
        file.now.clear();
        file.removed = false;
        Ok(())
    }
    fn read(&mut self, segment: u32, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let medium = self.0.borrow();
        let from = offset as usize;
        let bytes = medium.files[&segment].now.get(from..from + buffer.len()).ok_or(DiskError::Failed(5))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
    fn write(&mut self, segment: u32, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut medium = self.0.borrow_mut();
        let room = (medium.capacity.saturating_sub(used(&medium))) as usize;
        let file = medium.files.get_mut(&segment).unwrap();
        let offset = offset as usize;
        let grows = (offset + bytes.len()).saturating_sub(file.now.len());
        let fits = if grows > room { bytes.len() - (grows - room) } else { bytes.len() };
        file.now.resize(file.now.len().max(offset + fits), 0);
        file.now[offset..offset + fits].copy_from_slice(&bytes[..fits]);
        if fits < bytes.len() { Err(DiskError::Full) } else { Ok(()) }
    }
    fn truncate(&mut self, segment: u32, size: u64) -> Result<(), DiskError> {
        self.0.borrow_mut().files.get_mut(&segment).unwrap().now.truncate(size as usize);
        Ok(())
    }
    fn sync(&mut self, segment: u32) -> Result<(), DiskError> {
        let mut medium = self.0.borrow_mut();
        medium.syncs += 1;
        if medium.fail_sync {
            return Err(DiskError::Failed(5));
        }
        let file = medium.files.get_mut(&segment).unwrap();
        file.synced = Some(file.now.clone());
        Ok(())
    }
    fn remove(&mut self, segment: u32) -> Result<(), DiskError> {
        if let Some(file) = self.0.borrow_mut().files.get_mut(&segment) {
            file.removed = true;
        }
        Ok(())
    }
}

const CONFIG: Config = Config { quota: 1 << 30, segment_size: 4 << 20, max_blocks: 100_000 };

fn open(disk: &SimDisk) -> (Store<SimDisk>, Recovery) {
    Store::open(disk.clone(), CONFIG, 0x5eed).unwrap()
}

fn raw(data: &[u8]) -> Block {
    Block { cid: Cid::of(Version::V1, Codec::RAW, data), data: data.to_vec() }
}

fn random_block(rng: &mut Rng) -> Block {
    let length = match rng.below(10) {
        0 => rng.below(200_000),
        1..4 => rng.below(5_000),
        _ => rng.below(300),
    };
    raw(&(0..length).map(|_| rng.next() as u8).collect::<Vec<u8>>())
}

/// A file of many blocks; returns the root and all blocks.
fn tree(rng: &mut Rng) -> (Cid, Vec<Block>) {
    let profile = Profile { chunk: 100, max_links: 3, ..Profile::V1_2025 };
    let mut file = FileBuilder::new(profile).unwrap();
    let bytes: Vec<u8> = (0..rng.below(3000)).map(|_| rng.next() as u8).collect();
    file.push(&bytes);
    let mut blocks: Vec<Block> = core::iter::from_fn(|| file.poll_block()).collect();
    let (file, rest) = file.finish();
    blocks.extend(rest);
    let mut directory = DirectoryBuilder::new();
    directory.insert("file", file).unwrap();
    let root = directory.finish(&profile, |b| blocks.push(b)).unwrap();
    (root.cid, blocks)
}

#[test]
fn blocks_and_pins_come_back_after_a_restart() {
    let disk = SimDisk::new(u64::MAX);
    let (mut store, _) = open(&disk);
    let block = raw(b"hello");
    store.put(&block.cid, &block.data).unwrap();
    store.put(&block.cid, &block.data).unwrap();
    store.pin(&block.cid, Pin::Recursive).unwrap();
    store.commit().unwrap();
    let bytes = store.stat().bytes;
    let (mut store, recovery) = open(&disk);
    assert_eq!(recovery, Recovery { blocks: 1, torn_bytes: 0, damaged: 0 });
    assert_eq!(store.stat().bytes, bytes);
    assert_eq!(store.get(&block.cid).unwrap().unwrap(), b"hello");
    assert_eq!(store.pinned(&block.cid), Some(Pin::Recursive));
    assert_eq!(store.get(&raw(b"other").cid).unwrap(), None);
    let inline: Cid = "bafkqaaa".parse().unwrap();
    assert_eq!(store.get(&inline).unwrap().unwrap(), b"");
}

#[test]
fn damage_is_never_served_and_costs_only_what_it_hit() {
    let disk = SimDisk::new(u64::MAX);
    let (mut store, _) = open(&disk);
    let mut rng = Rng(1);
    let blocks: Vec<Block> = (0..50).map(|_| random_block(&mut rng)).collect();
    for block in &blocks {
        store.put(&block.cid, &block.data).unwrap();
        store.commit().unwrap();
    }
    let size = store.segments[&1] as usize;
    for _ in 0..200 {
        let at = 32 + rng.below(size as u64 - 32) as usize;
        disk.flip(1, at);
        let (mut store, recovery) = open(&disk);
        let mut lost = 0;
        for block in &blocks {
            match store.get(&block.cid).unwrap() {
                Some(data) => assert_eq!(data, block.data),
                None => lost += 1,
            }
        }
        assert!(lost <= 1, "one flipped byte lost {lost} blocks");
        assert!(recovery.torn_bytes == 0 || at + 300_000 > size, "a flip inside ended the log");
        // restore for the next round: an opened store may have cut a damaged tail
        if disk.0.borrow().files[&1].now.len() == size {
            disk.flip(1, at);
        } else {
            return;
        }
    }
}

#[test]
fn a_block_that_looks_like_records_is_just_a_block() {
    let disk = SimDisk::new(u64::MAX);
    let (mut store, _) = open(&disk);
    let fake = raw(b"not really there");
    let mut data = Vec::new();
    for _ in 0..20 {
        record::encode(Kind::Block, Some(&fake.cid), b"something else..", 0, 0, &mut data);
    }
    let hostile = raw(&data);
    store.put(&hostile.cid, &hostile.data).unwrap();
    store.commit().unwrap();
    disk.flip(1, 33);
    let (mut store, _) = open(&disk);
    assert_eq!(store.get(&fake.cid).unwrap(), None);
    assert!(!store.has(&fake.cid));
}

#[test]
fn quota_and_full_disk_lose_nothing() {
    for (capacity, quota) in [(20_000, 1 << 30), (1 << 30, 20_000)] {
        let disk = SimDisk::new(capacity);
        let (mut store, _) = Store::open(disk.clone(), Config { quota, ..CONFIG }, 1).unwrap();
        let mut rng = Rng(3);
        let mut kept = Vec::new();
        let error = loop {
            let block = random_block(&mut rng);
            match store.put(&block.cid, &block.data) {
                Ok(()) => kept.push(block),
                Err(e) => break e,
            }
        };
        let full = StoreError::DiskFull;
        assert!(error == full || error == StoreError::QuotaExceeded { quota }, "{error}");
        let small = raw(b"s");
        if store.put(&small.cid, &small.data).is_ok() {
            kept.push(small);
        }
        store.commit().unwrap();
        disk.cut_power(&mut rng);
        let (mut store, recovery) = open(&disk);
        assert_eq!(recovery.blocks, kept.len() as u64);
        for block in kept {
            assert_eq!(store.get(&block.cid).unwrap().unwrap(), block.data);
        }
    }
}

#[test]
fn a_failed_sync_makes_the_store_read_only() {
    let disk = SimDisk::new(u64::MAX);
    let (mut store, _) = open(&disk);
    let (first, second) = (raw(b"first"), raw(b"second"));
    store.put(&first.cid, &first.data).unwrap();
    store.commit().unwrap();
    store.put(&second.cid, &second.data).unwrap();
    disk.0.borrow_mut().fail_sync = true;
    assert_eq!(store.commit(), Err(StoreError::Disk(DiskError::Failed(5))));
    assert!(store.is_read_only());
    assert_eq!(store.put(&second.cid, &second.data), Err(StoreError::ReadOnly));
    assert_eq!(store.get(&second.cid).unwrap(), None);
    assert_eq!(store.get(&first.cid).unwrap().unwrap(), b"first");
}

#[test]
fn collection_keeps_what_pins_hold() {
    let disk = SimDisk::new(u64::MAX);
    let (mut store, _) = open(&disk);
    let mut rng = Rng(7);
    let (root, blocks) = tree(&mut rng);
    let direct = raw(b"direct");
    for block in blocks.iter().chain([&direct]) {
        store.put(&block.cid, &block.data).unwrap();
    }
    store.pin(&root, Pin::Recursive).unwrap();
    store.pin(&direct.cid, Pin::Direct).unwrap();
    for _ in 0..300 {
        let block = random_block(&mut rng);
        store.put(&block.cid, &block.data).unwrap();
    }
    store.commit().unwrap();
    let Collected { blocks: dropped, bytes, missing } = store.collect().unwrap();
    assert!(dropped >= 299 && bytes > 1_000_000 && missing == 0, "{dropped} {bytes} {missing}");
    for mut store in [store, open(&disk).0] {
        for block in blocks.iter().chain([&direct]) {
            assert_eq!(store.get(&block.cid).unwrap().unwrap(), block.data);
        }
        assert_eq!(store.pins().count(), 2);
    }
}

/// What the model knows: acknowledged, and what was under way at the cut.
#[derive(Default)]
struct Model {
    blocks: BTreeMap<Cid, Vec<u8>>,
    pins: BTreeMap<Cid, Pin>,
    /// Pins changed since the last commit: both states are right after a cut.
    loose: BTreeSet<Cid>,
    fresh: Vec<Block>,
    /// After a collection only what pins hold is promised.
    all: BTreeMap<Cid, Vec<u8>>,
}

impl Model {
    fn acknowledge(&mut self) {
        self.blocks.extend(self.fresh.drain(..).map(|b| (b.cid, b.data)));
        self.loose.clear();
    }
}

fn power_cuts(seed: u64, rounds: u32) {
    let mut rng = Rng(seed);
    let disk = SimDisk::new(u64::MAX);
    let mut model = Model::default();
    for round in 0..rounds {
        let (mut store, _) = open(&disk);
        for (cid, data) in &model.blocks {
            assert_eq!(store.get(cid).unwrap().as_ref(), Some(data), "seed {seed} round {round}");
        }
        for (cid, data) in &model.all {
            let held = store.get(cid).unwrap();
            assert!(held.is_none() || held.as_ref() == Some(data));
        }
        for cid in model.loose.iter().cloned().collect::<Vec<_>>() {
            match store.pinned(&cid) {
                Some(pin) => model.pins.insert(cid, pin),
                None => model.pins.remove(&cid),
            };
        }
        let pins: BTreeMap<Cid, Pin> = store.pins().map(|(c, p)| (c.clone(), p)).collect();
        assert_eq!(pins, model.pins, "seed {seed} round {round}");
        model.fresh.clear();
        model.loose.clear();
        for _ in 0..rng.below(30) {
            step(&mut store, &mut model, &mut rng);
        }
        drop(store);
        disk.cut_power(&mut rng);
    }
}

fn step(store: &mut Store<SimDisk>, model: &mut Model, rng: &mut Rng) {
    match rng.below(12) {
        0..5 => {
            let block = random_block(rng);
            store.put(&block.cid, &block.data).unwrap();
            model.all.insert(block.cid.clone(), block.data.clone());
            model.fresh.push(block);
        }
        5..7 => {
            store.commit().unwrap();
            model.acknowledge();
        }
        7..9 => {
            // the blocks are acknowledged before the pin, as an add does it
            let (root, blocks) = tree(rng);
            for block in blocks {
                store.put(&block.cid, &block.data).unwrap();
                model.all.insert(block.cid.clone(), block.data.clone());
                model.fresh.push(block);
            }
            store.commit().unwrap();
            model.acknowledge();
            store.pin(&root, Pin::Recursive).unwrap();
            model.pins.insert(root.clone(), Pin::Recursive);
            model.loose.insert(root);
        }
        9..11 => {
            let Some(cid) = model.pins.keys().nth(rng.below(model.pins.len() as u64) as usize).cloned()
            else {
                return;
            };
            assert!(store.unpin(&cid).unwrap());
            model.pins.remove(&cid);
            model.loose.insert(cid);
        }
        _ => {
            // it commits first, then holds only what pins hold
            store.collect().unwrap();
            model.acknowledge();
            model.blocks.retain(|cid, _| store.has(cid));
            for cid in model.pins.keys() {
                assert!(store.has(cid), "a pinned root was collected");
            }
        }
    }
}

#[test]
fn power_cuts_lose_nothing_acknowledged() {
    for seed in 0..40 {
        power_cuts(seed, 12);
    }
}

proptest! {
    #[test]
    fn records_of_any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..100), salt: u64) {
        let _ = record::Head::parse(&bytes, salt);
    }

    #[test]
    fn any_bytes_on_the_disk_open(bytes in proptest::collection::vec(any::<u8>(), 0..2000), twice: bool) {
        let disk = SimDisk::new(u64::MAX);
        {
            let mut medium = disk.0.borrow_mut();
            let file = File { now: bytes.clone(), synced: Some(bytes.clone()), removed: false };
            medium.files.insert(3, file.clone());
            if twice {
                medium.files.insert(9, file);
            }
        }
        let (mut store, _) = open(&disk);
        let block = raw(b"hello");
        store.put(&block.cid, &block.data).unwrap();
        store.commit().unwrap();
        let (mut store, _) = open(&disk);
        prop_assert_eq!(store.get(&block.cid).unwrap().unwrap(), b"hello");
    }
}

//! Random work against a model, cut off at random operations of the disk.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use std::eprintln;

use content_id::{Block, Cid};

use super::sim::{Rng, SimDisk};
use super::{CONFIG, random_block, tree};
use crate::{Config, DiskError, Extent, Pin, Recovery, Store, StoreError};

/// Cut points: [`SEEDS`] stores, each cut off so often.
const CUTS: u64 = 25;
const SEEDS: u64 = 420;

/// What is known of a store.
#[derive(Default)]
struct Model {
    /// Blocks that were acknowledged and have to be there.
    blocks: BTreeMap<Cid, Vec<u8>>,
    /// All blocks there ever were.
    all: BTreeMap<Cid, Vec<u8>>,
    /// What each root holds.
    trees: BTreeMap<Cid, Vec<Cid>>,
    pins: BTreeMap<Cid, Pin>,
    /// Pins changed since the last commit: both states are right after a cut.
    loose: BTreeSet<Cid>,
    fresh: Vec<Cid>,
    /// An add under way: its root and the blocks it still has to put.
    adding: Option<(Cid, Vec<Block>)>,
    /// A collection is under way.
    collecting: Option<Extent>,
}

impl Model {
    /// A collection begins: from then on only what pins or adds hold is promised, if it drops anything.
    fn begin_collection(&mut self, extent: Extent) {
        if self.collecting.is_none() && extent != Extent::Compact {
            let held = self.held();
            self.blocks.retain(|cid, _| held.contains(cid));
        }
        self.collecting = self.collecting.or(Some(extent));
    }

    /// Whether one is under way that drops blocks.
    fn is_dropping(&self) -> bool {
        self.collecting.is_some_and(|extent| extent != Extent::Compact)
    }

    fn acknowledge(&mut self) {
        for cid in core::mem::take(&mut self.fresh) {
            let data = self.all[&cid].clone();
            self.blocks.insert(cid, data);
        }
        self.loose.clear();
    }

    /// What pins hold, and what nobody can have pinned yet.
    fn held(&self) -> BTreeSet<Cid> {
        let mut held: BTreeSet<Cid> = self.pins.keys().cloned().collect();
        for (root, pin) in &self.pins {
            if *pin == Pin::Recursive {
                held.extend(self.trees.get(root).into_iter().flatten().cloned());
            }
        }
        if let Some((root, left)) = &self.adding {
            let left: BTreeSet<&Cid> = left.iter().map(|b| &b.cid).collect();
            held.extend(self.trees[root].iter().filter(|cid| !left.contains(cid)).cloned());
        }
        held
    }

    fn note(&mut self, block: &Block) {
        self.all.insert(block.cid.clone(), block.data.clone());
        self.fresh.push(block.cid.clone());
    }
}

fn open(disk: &SimDisk, config: Config) -> (Store<SimDisk>, Recovery) {
    let (mut store, recovery) = Store::open(disk.clone(), config, 0x5eed).unwrap();
    store.config.segment_size = 48 * 1024;
    (store, recovery)
}

/// The store is as the model says.
fn check(store: &mut Store<SimDisk>, model: &mut Model, what: &str) {
    for cid in core::mem::take(&mut model.loose) {
        match store.pinned(&cid) {
            Some(pin) => model.pins.insert(cid, pin),
            None => model.pins.remove(&cid),
        };
    }
    let pins: BTreeMap<Cid, Pin> = store.pins().map(|(c, p)| (c.clone(), p)).collect();
    assert_eq!(pins, model.pins, "{what}: pins");
    let held = model.held();
    for (cid, data) in &model.all {
        let found = store.get(cid).unwrap();
        if model.blocks.contains_key(cid) || held.contains(cid) {
            assert!(found.is_some(), "{what}: lost {cid}");
        }
        if let Some(found) = found {
            assert!(found == *data, "{what}: {cid} is served damaged");
        }
    }
}

/// One step; an error is one of the disk or of a limit.
fn step(store: &mut Store<SimDisk>, model: &mut Model, rng: &mut Rng) -> Result<(), StoreError> {
    match rng.below(24) {
        // a block that was fetched
        0..6 => {
            let block = random_block(rng, 6_000);
            store.put(&block.cid, &block.data)?;
            model.note(&block);
        }
        6..9 => {
            store.commit()?;
            model.acknowledge();
        }
        // an add at one go: one commit for blocks and pin
        9..12 => {
            let (root, blocks) = tree(rng);
            store.put_all(&blocks)?;
            blocks.iter().for_each(|b| model.note(b));
            model.trees.insert(root.clone(), blocks.iter().map(|b| b.cid.clone()).collect());
            let before = model.loose.insert(root.clone());
            if let Err(e) = store.pin(&root, Pin::Recursive) {
                if before && store.pinned(&root).is_none() && e == StoreError::DiskFull {
                    model.loose.remove(&root);
                }
                return Err(e);
            }
            model.pins.insert(root, Pin::Recursive);
            if rng.below(2) == 0 {
                store.commit()?;
                model.acknowledge();
            }
        }
        // an add whose blocks come one by one, with other work between them
        12..16 => match model.adding.take() {
            None => {
                let (root, blocks) = tree(rng);
                model.trees.insert(root.clone(), blocks.iter().map(|b| b.cid.clone()).collect());
                store.begin_use();
                model.adding = Some((root, blocks));
            }
            Some((root, mut left)) => match left.pop() {
                Some(block) => {
                    let put = store.put(&block.cid, &block.data);
                    match put {
                        Ok(()) => model.note(&block),
                        Err(_) => left.push(block),
                    }
                    model.adding = Some((root, left));
                    put?;
                }
                None => {
                    model.loose.insert(root.clone());
                    let pinned = store.pin(&root, Pin::Recursive).and_then(|()| store.commit());
                    store.end_use();
                    pinned?;
                    model.pins.insert(root, Pin::Recursive);
                    model.acknowledge();
                }
            },
        },
        16..18 => {
            let Some(cid) = model.all.keys().nth(rng.below(model.all.len() as u64) as usize).cloned() else {
                return Ok(());
            };
            if !model.pins.contains_key(&cid) && model.blocks.contains_key(&cid) {
                model.loose.insert(cid.clone());
                store.pin(&cid, Pin::Direct)?;
                model.pins.insert(cid, Pin::Direct);
            }
        }
        18..20 => {
            let nth = rng.below(model.pins.len() as u64) as usize;
            let Some(cid) = model.pins.keys().nth(nth).cloned() else { return Ok(()) };
            model.loose.insert(cid.clone());
            assert!(store.unpin(&cid)?);
            model.pins.remove(&cid);
            // a collection under way may drop it already
            if model.is_dropping() && !model.held().contains(&cid) {
                model.blocks.remove(&cid);
            }
        }
        _ => {
            let extent = match (model.collecting, rng.below(4)) {
                (Some(extent), _) => extent,
                (None, 0) => Extent::All,
                (None, 1) => Extent::Compact,
                (None, 2) => Extent::Down { bytes: rng.below(300_000), blocks: rng.below(200) as usize },
                // what is due by itself, if anything
                _ => match store.collection_due(rng.below(2) == 0) {
                    Some(extent) => extent,
                    None => return Ok(()),
                },
            };
            if model.collecting.is_none() {
                // it commits first
                store.commit()?;
                model.acknowledge();
            }
            model.begin_collection(extent);
            let done = store.collect_step(extent);
            model.collecting = model.collecting.filter(|_| matches!(done, Ok(None)));
            done?;
        }
    }
    Ok(())
}

/// Work until the power fails, `cuts` times.
fn cut_off(seed: u64, cuts: u64) -> u64 {
    let mut rng = Rng(seed);
    let disk = SimDisk::new(u64::MAX);
    let mut model = Model::default();
    let (mut steps, mut torn) = (0, 0);
    for cut in 0..cuts {
        // the power may also fail while the store opens
        let opening = rng.below(8) == 0;
        if opening {
            disk.0.borrow_mut().power = Some(rng.below(4));
            let _ = Store::open(disk.clone(), CONFIG, 1);
            disk.cut_power(&mut rng);
        }
        let (mut store, recovery) = open(&disk, CONFIG);
        torn += u64::from(recovery.torn_bytes > 0);
        model.adding = None;
        model.collecting = None;
        check(&mut store, &mut model, &std::format!("seed {seed} cut {cut}"));
        model.fresh.clear();
        disk.0.borrow_mut().power = Some(rng.below(60));
        while step(&mut store, &mut model, &mut rng).is_ok() {
            steps += 1;
        }
        drop(store);
        disk.cut_power(&mut rng);
    }
    assert!(steps > 0);
    torn
}

#[test]
fn power_cuts_lose_nothing_acknowledged() {
    let mut torn = 0;
    let first = std::env::var("STORE_SEED").ok().and_then(|s| s.parse().ok());
    for seed in first.map_or(0..SEEDS, |seed: u64| seed..seed + 1) {
        torn += cut_off(seed, CUTS);
    }
    eprintln!("{} power cuts (seeds 0 to {}), {torn} left a torn log", CUTS * SEEDS, SEEDS - 1);
    assert!(first.is_some() || torn > CUTS * SEEDS / 10, "{torn}: hardly anything was torn");
}

/// Makes room, also when the medium fails meanwhile.
fn pressed(store: &mut Store<SimDisk>, model: &mut Model, extent: Extent) {
    if store.commit().is_err() {
        return;
    }
    model.acknowledge();
    // one that is under way ends, and the next one begins
    model.collecting = None;
    model.begin_collection(Extent::All);
    model.collecting = None;
    let _ = store.collect(extent);
}

/// Goes on after every error; nothing acknowledged is lost, and the store works again.
fn limits(seed: u64, quota: u64, full: bool) -> u64 {
    let mut rng = Rng(seed);
    let disk = SimDisk::new(u64::MAX);
    let config = Config { quota, ..CONFIG };
    let (mut store, _) = open(&disk, config);
    let mut model = Model::default();
    let mut refused = 0;
    for round in 0..300 {
        if full && rng.below(4) == 0 {
            disk.0.borrow_mut().full_in = Some(rng.below(4));
        }
        match step(&mut store, &mut model, &mut rng) {
            Ok(()) => {}
            Err(StoreError::DiskFull | StoreError::QuotaExceeded { .. }) => {
                refused += 1;
                // as a service does: room is made at once, by another collection's end if need be
                if rng.below(2) == 0
                    && let Some(extent) = store.collection_due(true)
                {
                    pressed(&mut store, &mut model, extent);
                }
            }
            Err(e) => panic!("seed {seed} round {round}: {e}"),
        }
        if round % 50 == 49 {
            disk.0.borrow_mut().full_in = None;
            check(&mut store, &mut model, &std::format!("seed {seed} round {round}"));
            if rng.below(2) == 0 {
                store.commit().unwrap();
                model.acknowledge();
                drop(store);
                disk.cut_power(&mut rng);
                store = open(&disk, config).0;
                model.adding = None;
                model.collecting = None;
                check(&mut store, &mut model, &std::format!("seed {seed} round {round}, opened again"));
            }
        }
    }
    refused
}

#[test]
fn a_full_disk_at_any_write_loses_nothing() {
    let refused: u64 = (0..60).map(|seed| limits(seed, 1 << 30, true)).sum();
    assert!(refused > 300, "{refused}");
}

#[test]
fn the_quota_at_any_write_loses_nothing() {
    let refused: u64 = (0..60).map(|seed| limits(seed, 60_000 + seed * 1000, false)).sum();
    assert!(refused > 300, "{refused}");
}

/// Random bytes of the medium change between two runs: what is served is right, and what was not hit is there.
#[test]
fn rot_anywhere_is_never_served() {
    for seed in 0..150 {
        let mut rng = Rng(seed);
        let disk = SimDisk::new(u64::MAX);
        let (mut store, _) = open(&disk, CONFIG);
        let mut model = Model::default();
        for _ in 0..120 {
            step(&mut store, &mut model, &mut rng).unwrap();
        }
        store.commit().unwrap();
        drop(store);
        let flips = 1 + rng.below(3);
        for _ in 0..flips {
            let numbers: Vec<u32> = disk.0.borrow().names.keys().copied().collect();
            let number = numbers[rng.below(numbers.len() as u64) as usize];
            let size = disk.size_of(number) as u64;
            disk.flip(number, rng.below(size) as usize);
        }
        let (mut store, _) = open(&disk, CONFIG);
        for (cid, data) in &model.all {
            if let Some(found) = store.get(cid).unwrap() {
                assert_eq!(found, *data, "seed {seed}");
            }
        }
        // it can be mended: what is put again is there again
        for (cid, data) in &model.all {
            store.put(cid, data).unwrap();
        }
        store.commit().unwrap();
        drop(store);
        let (mut store, _) = open(&disk, CONFIG);
        for (cid, data) in &model.all {
            assert_eq!(store.get(cid).unwrap().as_ref(), Some(data), "seed {seed}");
        }
    }
}

#[test]
fn a_failed_sync_drops_only_what_it_should_have_saved() {
    for seed in 0..40 {
        let mut rng = Rng(seed);
        let disk = SimDisk::new(u64::MAX);
        let (mut store, _) = open(&disk, CONFIG);
        let mut model = Model::default();
        for _ in 0..rng.below(150) {
            step(&mut store, &mut model, &mut rng).unwrap();
        }
        disk.0.borrow_mut().fail_sync = true;
        let error = loop {
            if let Err(e) = step(&mut store, &mut model, &mut rng) {
                break e;
            }
        };
        assert!(matches!(error, StoreError::Disk(DiskError::Failed(5)) | StoreError::ReadOnly));
        let held = model.held();
        for (cid, data) in &model.blocks {
            // moved blocks are still where they were
            if held.contains(cid) || !model.is_dropping() {
                assert_eq!(store.get(cid).unwrap().as_ref(), Some(data), "seed {seed}");
            }
        }
    }
}

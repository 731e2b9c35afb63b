//! The store's operations against a model, over a disk in memory whose bytes may rot: each byte of the input is an
//! operation or its argument.
#![no_main]
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::OnceLock;

use content_id::{Cid, Codec, Version};
use libfuzzer_sys::fuzz_target;
use store_core::{Config, Disk, DiskError, Extent, Pin, Store};

#[derive(Clone, Default)]
struct Memory(Rc<RefCell<BTreeMap<u32, Vec<u8>>>>);

impl Disk for Memory {
    fn list(&mut self) -> Result<Vec<u32>, DiskError> {
        Ok(self.0.borrow().keys().copied().collect())
    }
    fn size(&mut self, segment: u32) -> Result<u64, DiskError> {
        self.0.borrow().get(&segment).map(|file| file.len() as u64).ok_or(DiskError::Failed(2))
    }
    fn create(&mut self, segment: u32) -> Result<(), DiskError> {
        self.0.borrow_mut().insert(segment, Vec::new());
        Ok(())
    }
    fn read(&mut self, segment: u32, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let files = self.0.borrow();
        let from = offset as usize;
        let bytes = files.get(&segment).and_then(|file| file.get(from..from + buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(DiskError::Failed(5))?);
        Ok(())
    }
    fn write(&mut self, segment: u32, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut files = self.0.borrow_mut();
        let file = files.get_mut(&segment).ok_or(DiskError::Failed(2))?;
        let end = offset as usize + bytes.len();
        file.resize(file.len().max(end), 0);
        file[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }
    fn truncate(&mut self, segment: u32, size: u64) -> Result<(), DiskError> {
        self.0.borrow_mut().get_mut(&segment).ok_or(DiskError::Failed(2))?.resize(size as usize, 0);
        Ok(())
    }
    fn sync(&mut self, _: u32) -> Result<(), DiskError> {
        Ok(())
    }
    fn remove(&mut self, segment: u32) -> Result<(), DiskError> {
        self.0.borrow_mut().remove(&segment);
        Ok(())
    }
}

/// Four large blocks and a few others fill a segment, and little more the quota.
const CONFIG: Config = Config { quota: 6 << 20, segment_size: 4 << 20, max_blocks: 60 };
const LARGE: usize = 1_200_000;
/// Blocks that link to others, each to a small one and to the one before.
const NODES: std::ops::Range<usize> = 192..224;

struct Block {
    cid: Cid,
    data: Vec<u8>,
    links: Vec<usize>,
}

/// All blocks there are, made once: small ones of 0 to 800 bytes, nodes, and four large ones.
fn blocks() -> &'static [Block] {
    static BLOCKS: OnceLock<Vec<Block>> = OnceLock::new();
    BLOCKS.get_or_init(|| {
        let mut all: Vec<Block> = Vec::new();
        for seed in 0..256 {
            let links = match seed {
                192 => vec![7],
                _ if NODES.contains(&seed) => vec![seed * 5 % 192, seed - 1],
                _ => Vec::new(),
            };
            let (codec, data) = if links.is_empty() {
                let size = if seed < 252 { seed * 4 % 800 } else { LARGE + seed };
                (Codec::RAW, (0..size).map(|at| seed as u8 ^ at as u8).collect())
            } else {
                // a list of the number and the links
                let mut data = vec![0x81 + links.len() as u8, 0x18, seed as u8];
                for link in &links {
                    data.extend([0xd8, 0x2a, 0x58, 37, 0]);
                    data.extend(all[*link].cid.to_bytes());
                }
                (Codec::DAG_CBOR, data)
            };
            all.push(Block { cid: Cid::of(Version::V1, codec, &data), data, links });
        }
        all
    })
}

/// What the store should be.
struct Model {
    held: [bool; 256],
    pins: BTreeMap<&'static Cid, (usize, Pin)>,
    /// Put or read under protection.
    used: [bool; 256],
    users: usize,
    /// A collection may be under way.
    collecting: bool,
}

impl Model {
    /// What pins and users hold of what is there.
    fn kept(&self) -> [bool; 256] {
        let mut kept = if self.users > 0 { self.used } else { [false; 256] };
        let mut open = Vec::new();
        for (seed, pin) in self.pins.values() {
            kept[*seed] = true;
            if *pin == Pin::Recursive {
                open.push(*seed);
            }
        }
        let mut met = [false; 256];
        while let Some(seed) = open.pop() {
            kept[seed] = true;
            if self.held[seed] && !std::mem::replace(&mut met[seed], true) {
                open.extend(&blocks()[seed].links);
            }
        }
        std::array::from_fn(|seed| kept[seed] && self.held[seed])
    }

    /// After a collection, or a step of one: what is kept is there. What else is gone, is.
    fn collected(&mut self, store: &Store<Memory>, kept: &[bool; 256]) {
        for (seed, block) in blocks().iter().enumerate() {
            let has = store.has(&block.cid);
            assert!(has || !kept[seed], "{seed} was collected");
            assert!(!has || self.held[seed], "{seed} came back");
            self.held[seed] = has;
        }
    }

    fn check(&self, store: &Store<Memory>) {
        assert_eq!(store.stat().blocks as usize, self.held.iter().filter(|held| **held).count());
        assert!(self.pins.iter().map(|(cid, (_, pin))| (*cid, *pin)).eq(store.pins()));
    }

    fn check_all(&self, store: &Store<Memory>) {
        self.check(store);
        assert!(blocks().iter().zip(self.held).all(|(block, held)| store.has(&block.cid) == held));
    }
}

/// What a collection is asked for.
fn extent(store: &mut Store<Memory>, argument: u8) -> Option<Extent> {
    match argument % 4 {
        0 => Some(Extent::All),
        1 => Some(Extent::Compact),
        2 => Some(Extent::Down { bytes: u64::from(argument) << 15, blocks: usize::from(argument) / 4 }),
        _ => store.collection_due(argument & 8 != 0),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let disk = Memory::default();
    let Ok((mut store, _)) = Store::open(disk.clone(), CONFIG, 1) else { return };
    let mut model =
        Model { held: [false; 256], pins: BTreeMap::new(), used: [false; 256], users: 0, collecting: false };
    let mut rotten = false;
    for pair in bytes.chunks_exact(2).take(400) {
        let (operation, argument) = (pair[0], pair[1]);
        let seed = usize::from(argument);
        let Block { cid, data, .. } = &blocks()[seed];
        match operation % 12 {
            0 | 1 => {
                let result = store.put(cid, data);
                // what there is no room for is as it was
                assert!(rotten || result.is_ok() || !model.held[seed]);
                if result.is_ok() {
                    model.held[seed] = true;
                    model.used[seed] |= model.users > 0;
                }
            }
            2 => {
                let found = store.get(cid).unwrap();
                assert!(found.as_ref().is_none_or(|found| found == data));
                assert!(rotten || found.is_some() == model.held[seed]);
                model.used[seed] |= model.users > 0;
            }
            3 => {
                let pin = if operation / 12 % 2 == 0 { Pin::Direct } else { Pin::Recursive };
                if store.pin(cid, pin).is_ok() {
                    model.pins.insert(cid, (seed, pin));
                }
            }
            4 => {
                if let Ok(was) = store.unpin(cid) {
                    assert!(rotten || was == model.pins.contains_key(cid));
                    model.pins.remove(cid);
                }
            }
            5 => {
                let Some(extent) = extent(&mut store, argument) else { continue };
                let kept = model.kept();
                let done = store.collect(extent).is_ok();
                if !rotten {
                    model.collected(&store, &kept);
                    // nothing else is left where nothing else can have been marked meanwhile
                    let exact = done && extent == Extent::All && model.users == 0 && !model.collecting;
                    assert!(!exact || kept == model.held);
                }
                model.collecting = false;
            }
            6 => {
                let Some(extent) = extent(&mut store, argument) else { continue };
                let kept = model.kept();
                model.collecting = !matches!(store.collect_step(extent), Ok(Some(_)));
                if !rotten {
                    model.collected(&store, &kept);
                }
            }
            7 => {
                let _ = store.commit();
            }
            8 => {
                let _ = store.commit();
                drop(store);
                store = Store::open(disk.clone(), CONFIG, u64::from(argument)).unwrap().0;
                (model.users, model.collecting) = (0, false);
                // dropped blocks may be back until the next collection
                for (block, held) in blocks().iter().zip(&mut model.held) {
                    let has = store.has(&block.cid);
                    assert!(rotten || has || !*held);
                    *held = has;
                }
            }
            9 => {
                if model.users == 0 {
                    model.used = [false; 256];
                }
                store.begin_use();
                model.users += 1;
            }
            10 => {
                store.end_use();
                model.users = model.users.saturating_sub(1);
            }
            // rare: from here on little can be said
            _ if operation == 11 => {
                let mut files = disk.0.borrow_mut();
                if let Some(file) = files.values_mut().last().filter(|file| !file.is_empty()) {
                    let at = seed * 97 % file.len();
                    file[at] ^= 1 << (argument % 8);
                    rotten = true;
                }
            }
            _ => {}
        }
        match operation % 12 {
            _ if rotten => {}
            5..=8 => model.check_all(&store),
            _ => model.check(&store),
        }
    }
    for (block, held) in blocks().iter().zip(model.held).filter(|_| !rotten) {
        // the large ones take time
        if block.data.len() < LARGE {
            assert_eq!(store.get(&block.cid).unwrap().is_some(), held);
        }
    }
});

//! The store's operations against a model, over a disk in memory whose bytes may rot: each byte of the input is an
//! operation or its argument.
#![no_main]
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

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

const CONFIG: Config = Config { quota: 1 << 20, segment_size: 4 << 20, max_blocks: 200 };

fn block(seed: u8) -> (Cid, Vec<u8>) {
    let data: Vec<u8> = (0..usize::from(seed) * 40).map(|at| seed ^ at as u8).collect();
    (Cid::of(Version::V1, Codec::RAW, &data), data)
}

fuzz_target!(|bytes: &[u8]| {
    let disk = Memory::default();
    let Ok((mut store, _)) = Store::open(disk.clone(), CONFIG, 1) else { return };
    let mut blocks: BTreeMap<Cid, Vec<u8>> = BTreeMap::new();
    let mut pins: BTreeMap<Cid, Pin> = BTreeMap::new();
    let mut rotten = false;
    for pair in bytes.chunks_exact(2).take(400) {
        let (operation, argument) = (pair[0], pair[1]);
        let (cid, data) = block(argument);
        match operation % 9 {
            0 | 1 => {
                if store.put(&cid, &data).is_ok() {
                    blocks.insert(cid, data);
                }
            }
            2 => {
                let found = store.get(&cid).unwrap();
                assert!(found.as_ref().is_none_or(|found| *found == data));
                assert!(rotten || found.is_some() == blocks.contains_key(&cid));
            }
            3 => {
                let pin = if argument.is_multiple_of(2) { Pin::Direct } else { Pin::Recursive };
                if store.pin(&cid, pin).is_ok() {
                    pins.insert(cid, pin);
                }
            }
            4 => {
                if let Ok(was) = store.unpin(&cid) {
                    assert!(rotten || was == pins.contains_key(&cid));
                    pins.remove(&cid);
                }
            }
            5 => {
                let down =
                    Extent::Down { bytes: u64::from(argument) << 12, blocks: usize::from(argument) / 2 };
                let due = || store.collection_due(argument & 8 != 0);
                let extent = [Some(Extent::All), Some(Extent::Compact), Some(down)];
                let Some(extent) = extent.get(usize::from(argument % 4)).copied().unwrap_or_else(due) else {
                    continue;
                };
                let done = store.collect(extent).is_ok();
                match extent {
                    Extent::All if done => blocks.retain(|cid, _| pins.contains_key(cid)),
                    Extent::Compact => {}
                    _ => blocks.retain(|cid, _| pins.contains_key(cid) || store.has(cid)),
                }
            }
            6 => {
                let _ = store.commit();
            }
            7 => {
                let _ = store.commit();
                drop(store);
                store = Store::open(disk.clone(), CONFIG, u64::from(argument)).unwrap().0;
                // dropped blocks may be back until the next collection
                for seed in 0..=255 {
                    let (cid, data) = block(seed);
                    if store.has(&cid) {
                        blocks.entry(cid).or_insert(data);
                    }
                }
            }
            _ => {
                let mut files = disk.0.borrow_mut();
                if let Some(file) = files.values_mut().last().filter(|file| !file.is_empty()) {
                    let at = usize::from(argument) * 97 % file.len();
                    file[at] ^= 1 << (operation / 9 % 8);
                    rotten = true;
                }
            }
        }
        if !rotten {
            assert!(store.pins().map(|(cid, pin)| (cid.clone(), pin)).eq(pins.clone()));
            assert!(blocks.keys().all(|cid| store.has(cid)));
        }
    }
});

//! The store on a disk that loses power, runs full and rots.

mod crash;
mod figures;
mod sim;

use super::*;
use crate::gc::{Collected, Extent};
use crate::record;
use alloc::vec::Vec;
use content_id::import::{DirectoryBuilder, FileBuilder, Profile};
use content_id::{Block, Codec, Version};
use proptest::prelude::*;
use sim::{Rng, SimDisk};

const CONFIG: Config = Config { quota: 1 << 30, segment_size: 4 << 20, max_blocks: 100_000 };

fn open(disk: &SimDisk) -> (Store<SimDisk>, Recovery) {
    Store::open(disk.clone(), CONFIG, 0x5eed).unwrap()
}

fn raw(data: &[u8]) -> Block {
    Block { cid: Cid::of(Version::V1, Codec::RAW, data), data: data.to_vec() }
}

fn random_block(rng: &mut Rng, most: u64) -> Block {
    let length = match rng.below(10) {
        0 => rng.below(most),
        1..4 => rng.below(most / 3),
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
    directory.insert("file", &file).unwrap();
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
    assert_eq!(recovery, Recovery { blocks: 1, torn_bytes: 0, damaged: 0, walked: 0 });
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
    let blocks: Vec<Block> = (0..50).map(|_| random_block(&mut rng, 200_000)).collect();
    for block in &blocks {
        store.put(&block.cid, &block.data).unwrap();
        store.commit().unwrap();
    }
    let size = store.segments[&1] as usize;
    for _ in 0..200 {
        let at = 4096 + rng.below(size as u64 - 4096) as usize;
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
        if disk.size_of(1) == size {
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
        let spot = record::Spot { salt: 0, segment: 1, offset: 4096 + 24 + 56 + data.len() as u32 };
        record::encode(Kind::Block, Some(&fake.cid), b"something else..", 0, spot, &mut data);
    }
    let hostile = raw(&data);
    store.put(&hostile.cid, &hostile.data).unwrap();
    store.commit().unwrap();
    disk.flip(1, 4096 + 24 + 3);
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
            let block = random_block(&mut rng, 200_000);
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
        let block = random_block(&mut rng, 200_000);
        store.put(&block.cid, &block.data).unwrap();
    }
    store.commit().unwrap();
    let Collected { blocks: dropped, bytes, missing, .. } = store.collect(Extent::All).unwrap();
    assert!(dropped >= 299 && bytes > 1_000_000 && missing == 0, "{dropped} {bytes} {missing}");
    for mut store in [store, open(&disk).0] {
        for block in blocks.iter().chain([&direct]) {
            assert_eq!(store.get(&block.cid).unwrap().unwrap(), block.data);
        }
        assert_eq!(store.pins().count(), 2);
    }
}

#[test]
fn blocks_are_named_when_they_are_listed_and_when_they_are_dropped() {
    let disk = SimDisk::new(u64::MAX);
    let (mut store, _) = open(&disk);
    let mut rng = Rng(11);
    // heads of every length: version 0, codecs of one, two and nine bytes
    let codecs = [Codec::RAW, Codec::DAG_PB, Codec::DAG_JSON, Codec(1 << 62)];
    let mut put = |store: &mut Store<SimDisk>, count: u64| {
        let names = (0..count).map(|at| {
            let Block { cid, data } = random_block(&mut rng, 60_000);
            let digest = *cid.digest().unwrap();
            let cid = match codecs.get(at as usize % 5) {
                Some(codec) => Cid::v1(*codec, digest),
                None => Cid::v0(digest),
            };
            store.put(&cid, &data).unwrap();
            Cid::v1(Codec::RAW, digest)
        });
        names.collect::<alloc::collections::BTreeSet<Cid>>()
    };
    let kept = put(&mut store, 300);
    for cid in &kept {
        store.pin(cid, Pin::Direct).unwrap();
    }
    let loose = put(&mut store, 900);
    store.commit().unwrap();
    let all = |store: &mut Store<SimDisk>| {
        let mut listed = crate::Listed::default();
        let mut names = Vec::new();
        while let Some(more) = store.list(&mut listed).unwrap() {
            assert!(more.len() <= 256);
            names.extend(more);
        }
        names
    };
    let names = all(&mut store);
    assert_eq!(names.len(), kept.len() + loose.len());
    assert_eq!(names.into_iter().collect::<alloc::collections::BTreeSet<_>>(), &kept | &loose);
    store.begin_naming();
    let mut dropped = Vec::new();
    let done = loop {
        let step = store.collect_step(Extent::All).unwrap();
        dropped.extend(store.take_names());
        if let Some(done) = step {
            break done;
        }
    };
    assert_eq!((store.end_naming(), dropped.len() as u64), (0, done.blocks));
    assert_eq!(dropped.into_iter().collect::<alloc::collections::BTreeSet<_>>(), loose);
    assert_eq!(all(&mut store).into_iter().collect::<alloc::collections::BTreeSet<_>>(), kept);
    // a collection whose names nobody takes goes on, and says how many are missing
    put(&mut store, 5000);
    store.begin_naming();
    let done = store.collect(Extent::All).unwrap();
    let names = store.take_names().len() as u64;
    assert_eq!(names + store.end_naming(), done.blocks);
    assert_eq!(names, 4096);
    assert_eq!(store.collect(Extent::All).unwrap().blocks, 0);
    assert!(store.take_names().is_empty());
}

proptest! {
    #[test]
    fn records_of_any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..100), salt: u64) {
        let _ = record::Head::parse(&bytes, record::Spot { salt, segment: 1, offset: 4096 });
    }

    #[test]
    fn any_bytes_on_the_disk_open(bytes in proptest::collection::vec(any::<u8>(), 0..2000), twice: bool) {
        let mut segments = Vec::from([(3, bytes.clone())]);
        if twice {
            segments.push((9, bytes));
        }
        let disk = SimDisk::with(&segments);
        let (mut store, _) = open(&disk);
        let block = raw(b"hello");
        store.put(&block.cid, &block.data).unwrap();
        store.commit().unwrap();
        let (mut store, _) = open(&disk);
        prop_assert_eq!(store.get(&block.cid).unwrap().unwrap(), b"hello");
    }
}

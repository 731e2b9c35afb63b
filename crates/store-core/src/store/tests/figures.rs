//! What the store costs: bytes written and read, measured on the disk in memory.

use alloc::vec::Vec;
use std::eprintln;

use content_id::Block;

use super::sim::{Rng, SimDisk};
use super::{CONFIG, open, random_block, raw};
use crate::{Config, Extent, Pin, Store};

fn large_block(rng: &mut Rng) -> Block {
    raw(&(0..1 << 15).flat_map(|_| rng.next().to_le_bytes()).collect::<Vec<u8>>())
}

#[test]
fn opening_reads_indexes_and_not_blocks() {
    let disk = SimDisk::new(u64::MAX);
    let (mut store, _) = open(&disk);
    let mut rng = Rng(11);
    let blocks: Vec<Block> = (0..80).map(|_| large_block(&mut rng)).collect();
    for some in blocks.chunks(7) {
        store.put_all(some).unwrap();
        store.commit().unwrap();
    }
    let segments = store.segments.len();
    drop(store);
    assert!(segments > 4, "{segments}");
    disk.0.borrow_mut().read = 0;
    let (store, recovery) = open(&disk);
    let (read, size) = (disk.0.borrow().read, store.stat().bytes);
    eprintln!("{read} bytes of {size} are read to open {segments} segments");
    assert_eq!((recovery.walked, recovery.damaged, recovery.blocks), (0, 0, 80));
    // the last segment's last commit is hashed
    assert!(read < size / 8, "{read} of {size}");
    // an index that has rotted costs time and no block
    let first = disk.size_of(1);
    disk.flip(1, first - 3);
    disk.flip(2, first / 2);
    let (mut store, recovery) = open(&disk);
    assert_eq!((recovery.walked, recovery.blocks), (1, 80));
    let lost = blocks.iter().filter(|b| store.get(&b.cid).unwrap().is_none()).count();
    assert_eq!(lost, 1);
}

#[test]
fn little_more_is_written_than_was_put() {
    for (what, count, limit) in [("256 KiB", 60, 101), ("up to 6 kB", 3000, 110)] {
        let disk = SimDisk::new(u64::MAX);
        let (mut store, _) = open(&disk);
        let mut rng = Rng(12);
        let blocks: Vec<Block> = (0..count)
            .map(|_| if count == 60 { large_block(&mut rng) } else { random_block(&mut rng, 6000) })
            .collect();
        let put: u64 = blocks.iter().map(|b| b.data.len() as u64).sum();
        for some in blocks.chunks(64) {
            store.put_all(some).unwrap();
            store.commit().unwrap();
        }
        let written = disk.0.borrow().written;
        eprintln!("blocks of {what}: {written} bytes written for {put}");
        assert!(written * 100 <= put * limit, "{what}: {written} for {put}");
    }
}

/// Writes and drops, round after round: the space stays bounded, and so does what is written for it.
#[test]
fn space_comes_back_for_bounded_writing() {
    let disk = SimDisk::new(u64::MAX);
    let (mut store, _) = Store::open(disk.clone(), CONFIG, 5).unwrap();
    store.config.segment_size = 1 << 20;
    let mut rng = Rng(13);
    let (mut put, mut freed, mut moved) = (0, 0, 0);
    let mut kept: Vec<Block> = Vec::new();
    for _ in 0..12 {
        for _ in 0..40 {
            let block = random_block(&mut rng, 200_000);
            put += block.data.len() as u64;
            store.put(&block.cid, &block.data).unwrap();
            store.pin(&block.cid, Pin::Direct).unwrap();
            kept.push(block);
        }
        store.commit().unwrap();
        while kept.len() > 60 {
            let gone = kept.swap_remove(rng.below(kept.len() as u64) as usize);
            store.unpin(&gone.cid).unwrap();
        }
        let done = store.collect(Extent::All).unwrap();
        freed += done.bytes;
        moved += done.moved;
        let live: u64 = kept.iter().map(|b| b.data.len() as u64).sum();
        let bytes = store.stat().bytes;
        assert!(bytes < live * 3 / 2 + (2 << 20), "{bytes} bytes for {live}");
    }
    let written = disk.0.borrow().written;
    eprintln!(
        "{put} bytes put, {freed} given back, {moved} moved for that; written {:.2} times what was put",
        written as f64 / put as f64
    );
    assert!(moved <= freed * 3, "{moved} moved for {freed}");
    for block in &kept {
        assert_eq!(store.get(&block.cid).unwrap().as_ref(), Some(&block.data));
    }
}

/// Does what is due by itself, as a service does after each commit.
fn tidy(store: &mut Store<SimDisk>) -> u64 {
    let mut moved = 0;
    while let Some(extent) = store.collection_due(false) {
        moved += store.collect(extent).unwrap().moved;
    }
    moved
}

/// A stream of blocks that nobody pins goes through a store that is partly pinned: the quota is never reached, nothing
/// pinned goes, what came last is still there.
#[test]
fn a_cache_stays_below_its_quota_for_bounded_writing() {
    for pinned_tenths in [0, 3, 6] {
        let disk = SimDisk::new(u64::MAX);
        let config = Config { quota: 24 << 20, ..CONFIG };
        let (mut store, _) = Store::open(disk.clone(), config, 5).unwrap();
        store.config.segment_size = 1 << 20;
        let mut rng = Rng(14);
        let (mut put, mut moved, mut pinned) = (0u64, 0, Vec::new());
        let mut pinned_bytes = 0;
        let mut last = Vec::new();
        for round in 0..4000 {
            let block = random_block(&mut rng, 200_000);
            put += block.data.len() as u64;
            store.put(&block.cid, &block.data).unwrap();
            if pinned_bytes < config.quota / 10 * pinned_tenths && round % 2 == 0 {
                store.pin(&block.cid, Pin::Direct).unwrap();
                pinned_bytes += block.data.len() as u64;
                pinned.push(block);
            } else {
                last.push(block);
            }
            if round % 8 == 7 {
                store.commit().unwrap();
                moved += tidy(&mut store);
                assert!(store.stat().bytes <= config.quota / 10 * 9 + (2 << 20), "{:?}", store.stat());
            }
        }
        let written = disk.0.borrow().written;
        eprintln!(
            "{}0 % pinned: {put} bytes put, {moved} moved; written {:.2} times what was put",
            pinned_tenths,
            written as f64 / put as f64
        );
        assert!(put > 3 * config.quota && written < put * 2, "{written} for {put}");
        for block in pinned.iter().chain(last.iter().rev().take(20)) {
            assert_eq!(store.get(&block.cid).unwrap().as_ref(), Some(&block.data));
        }
    }
}

/// Many tiny commits leave gaps; they are given back in the background.
#[test]
fn gaps_of_tiny_commits_come_back() {
    let disk = SimDisk::new(u64::MAX);
    let (mut store, _) = Store::open(disk.clone(), CONFIG, 5).unwrap();
    store.config.segment_size = 1 << 20;
    let mut rng = Rng(15);
    let (mut put, mut moved, mut most) = (0u64, 0, 0);
    let mut blocks = Vec::new();
    for _ in 0..4000 {
        let block = raw(&(0..40).flat_map(|_| rng.next().to_le_bytes()).collect::<Vec<u8>>());
        put += block.data.len() as u64;
        store.put(&block.cid, &block.data).unwrap();
        store.commit().unwrap();
        moved += tidy(&mut store);
        most = most.max(store.stat().bytes);
        blocks.push(block);
    }
    let written = disk.0.borrow().written;
    let bytes = store.stat().bytes;
    eprintln!(
        "4000 commits of 320 bytes: {put} bytes put, {written} written, {moved} of them moved; {bytes} taken, {most} at most"
    );
    assert!(moved <= put * 3, "{moved} moved for {put}");
    assert!(most < 6 << 20, "{most}");
    for block in &blocks {
        assert_eq!(store.get(&block.cid).unwrap().as_ref(), Some(&block.data));
    }
}

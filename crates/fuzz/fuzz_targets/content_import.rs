//! What is imported in pieces comes out again, whatever the chunks, widths and mode; directories list what was put in.
#![no_main]
use std::collections::{BTreeMap, BTreeSet};

use content_id::Version;
use content_id::export::{DirectoryReader, FileReader, PathResolver};
use content_id::import::{DirectoryBuilder, FileBuilder, Profile, ShardBy};
use content_id::unixfs::{Meta, Mtime};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[chunk, links, flags, piece], rest)) = bytes.split_first_chunk::<4>() else { return };
    let profile = Profile {
        version: if flags & 1 == 0 { Version::V0 } else { Version::V1 },
        raw_leaves: flags & 2 != 0,
        chunk: usize::from(chunk) + 1,
        max_links: usize::from(links % 8) + 2,
        shard_by: if flags & 4 == 0 { ShardBy::LinkBytes } else { ShardBy::BlockBytes },
    };
    let meta = if flags & 8 == 0 {
        Meta::default()
    } else {
        Meta { mode: Some(u32::from(chunk)), mtime: Some(Mtime { seconds: -1, nanos: u32::from(links) }) }
    };
    let mut blocks = BTreeMap::new();
    let mut file = FileBuilder::with_meta(profile, meta).unwrap();
    for part in rest.chunks(usize::from(piece) + 1) {
        file.push(part);
        blocks.extend(std::iter::from_fn(|| file.poll_block()).map(|b| (b.cid, b.data)));
    }
    let (added, ready) = file.finish();
    blocks.extend(ready.into_iter().map(|b| (b.cid, b.data)));
    assert_eq!(added.size, rest.len() as u64);
    let mut reader = FileReader::new(added.cid.clone(), 0, u64::MAX);
    let mut out = Vec::new();
    while let Some(cid) = reader.want() {
        let block = blocks[cid].clone();
        assert_eq!(cid.verify(&block), Ok(()));
        out.extend(reader.provide(block).unwrap());
    }
    assert_eq!(out, rest);

    // names out of the bytes; long ones, repeated, until the directory is sharded
    let mut directory = DirectoryBuilder::with_meta(meta).unwrap();
    let mut names = BTreeSet::new();
    let (repeat, length) = if flags & 16 == 0 { (1, 0) } else { (1200 / (rest.len() / 4 + 1) + 1, 240) };
    for round in 0..repeat {
        for part in rest.chunks(4) {
            let name = format!("{}{round:x>length$}", String::from_utf8_lossy(part));
            // one name twice is told when the directory ends
            if !names.contains(&name) && directory.insert(&name, &added).is_ok() {
                names.insert(name);
            }
        }
    }
    let root = directory.finish(&profile, |b| drop(blocks.insert(b.cid, b.data))).unwrap();
    let mut listed = Vec::new();
    let mut reader = DirectoryReader::new(root.cid.clone());
    while let Some(cid) = reader.want() {
        let block = blocks[cid].clone();
        listed.extend(reader.provide(&block).unwrap().into_iter().filter_map(|l| l.name));
    }
    listed.sort();
    let names = Vec::from_iter(names);
    assert_eq!(listed, names);
    if let Some(name) = names.last() {
        let mut resolver = PathResolver::new(root.cid, [name.as_str()]).unwrap();
        while let Some(cid) = resolver.want() {
            let block = blocks[cid].clone();
            resolver.provide(&block).unwrap();
        }
        assert_eq!(resolver.target(), &added.cid);
    }
});

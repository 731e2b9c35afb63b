//! How fast bytes become blocks and blocks bytes: `cargo bench -p content-id` (in `crates/`).
//!
//! Everything happens in memory, on one thread; medians of several runs. SHA-256 alone is the limit
//! of all that hashes.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing)]

use std::hint::black_box;
use std::time::Instant;

use content_id::car::{CarItem, CarReader, frame, header};
use content_id::export::FileReader;
use content_id::import::{Added, DirectoryBuilder, FileBuilder, Profile};
use content_id::{Block, Cid, Codec, MAX_BLOCK, dag, sha256};

const MB: usize = 1_000_000;
const FILE: usize = 200 * MB;
const RUNS: usize = 7;

fn main() {
    let bytes: Vec<u8> =
        (0..FILE as u64 / 8).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    for (name, piece) in [("64 B", 64), ("256 KiB", 256 * 1024)] {
        let part = &bytes[..20 * MB];
        rate(&format!("SHA-256, messages of {name}"), part.len(), || {
            part.chunks(piece).for_each(|p| {
                black_box(sha256(p));
            });
        });
    }
    for (name, profile) in [("unixfs-v0-2015", Profile::V0_2015), ("unixfs-v1-2025", Profile::V1_2025)] {
        rate(&format!("import of one file, {name}"), FILE, || {
            import(profile, &bytes, |block| {
                black_box(&block);
            });
        });
    }
    let mut blocks = Vec::new();
    let root = import(Profile::V0_2015, &bytes, |block| blocks.push(block)).cid;
    export(&root, &blocks);
    car(&blocks);
    directories();
    codecs();
}

fn import(profile: Profile, bytes: &[u8], mut out: impl FnMut(Block)) -> Added {
    let mut file = FileBuilder::new(profile).unwrap();
    for piece in bytes.chunks(256 * 1024) {
        file.push(piece);
        while let Some(block) = file.poll_block() {
            out(block);
        }
    }
    let (added, rest) = file.finish();
    rest.into_iter().for_each(out);
    added
}

fn export(root: &Cid, blocks: &[Block]) {
    let index: std::collections::BTreeMap<&Cid, &Vec<u8>> =
        blocks.iter().map(|b| (&b.cid, &b.data)).collect();
    for verify in [false, true] {
        let name = if verify { "export of the file, each block verified" } else { "export of the file" };
        rate(name, FILE, || {
            let mut reader = FileReader::new(root.clone(), 0, u64::MAX);
            while let Some(cid) = reader.want() {
                let block = index[cid].clone();
                if verify {
                    cid.verify(&block).unwrap();
                }
                black_box(reader.provide(block).unwrap());
            }
        });
    }
}

fn car(blocks: &[Block]) {
    let mut file = Vec::with_capacity(FILE + FILE / 100);
    rate("CAR written", FILE, || {
        file.clear();
        file.extend(header(&[]));
        for block in blocks {
            file.extend(frame(&block.cid, block.data.len()));
            file.extend_from_slice(&block.data);
        }
    });
    rate("CAR read, each block verified", FILE, || {
        let mut reader = CarReader::new();
        for mut piece in file.chunks(64 * 1024) {
            while let Some(item) = reader.push(&mut piece).unwrap() {
                if let CarItem::Block(block) = item {
                    black_box(block);
                }
            }
        }
        reader.finish().unwrap();
    });
}

fn directories() {
    for count in [6_000, 100_000] {
        let names: Vec<String> = (0..count).map(|n| format!("file-{n:08}.txt")).collect();
        let child = import(Profile::V0_2015, b"x", |_| ());
        let start = Instant::now();
        let mut directory = DirectoryBuilder::new();
        for name in &names {
            directory.insert(name, &child).unwrap();
        }
        let mut blocks = 0;
        directory.finish(&Profile::V0_2015, |_| blocks += 1).unwrap();
        let each = start.elapsed().as_secs_f64() * 1e6 / f64::from(count);
        println!("directory of {count} entries: {each:.2} µs each, {blocks} blocks");
    }
    let small = [7; 1000];
    let start = Instant::now();
    for _ in 0..60_000 {
        import(Profile::V0_2015, &small, |block| {
            black_box(&block);
        });
    }
    println!("small files (1 kB): {:.2} µs each", start.elapsed().as_secs_f64() * 1e6 / 60_000.0);
}

fn codecs() {
    let entry = br#"{"name":"a file","size":123456,"cid":{"/":"bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"},"tags":[1,2.5,null,true]}"#;
    let mut json = vec![b'['];
    while json.len() + entry.len() + 2 < MAX_BLOCK {
        json.extend_from_slice(entry);
        json.push(b',');
    }
    *json.last_mut().unwrap() = b']';
    let cbor = dag::convert(Codec::DAG_JSON, &json, Codec::DAG_CBOR).unwrap();
    rate("dag-json to dag-cbor", json.len(), || {
        black_box(dag::convert(Codec::DAG_JSON, &json, Codec::DAG_CBOR).unwrap());
    });
    rate("dag-cbor to dag-json", cbor.len(), || {
        black_box(dag::convert(Codec::DAG_CBOR, &cbor, Codec::DAG_JSON).unwrap());
    });
    rate("links of dag-cbor", cbor.len(), || {
        black_box(dag::links(Codec::DAG_CBOR, &cbor).unwrap());
    });
}

/// Prints the median rate of `work` on `bytes` bytes.
fn rate(name: &str, bytes: usize, mut work: impl FnMut()) {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{name}: {:.0} MB/s", bytes as f64 / times[RUNS / 2] / 1e6);
}

//! Walks over hostile blocks: files, paths, directories, sharded or not.
//!
//! The input is cut into blocks (a length of two bytes before each); a link leads to the block that its digest's first byte
//! chooses, so that blocks are each other's children and their own.
#![no_main]
use content_id::export::{DirectoryReader, ExportError, FileReader, MAX_STEPS, PathResolver, links};
use content_id::{Cid, Codec};
use libfuzzer_sys::fuzz_target;

const STEPS: usize = 300;

struct Blocks<'a>(Vec<&'a [u8]>);

impl<'a> Blocks<'a> {
    fn cut(mut bytes: &'a [u8]) -> Self {
        let mut blocks = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
            let (block, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
            blocks.push(block);
            bytes = rest;
        }
        Self(blocks)
    }

    fn get(&self, cid: &Cid) -> &'a [u8] {
        let first = cid.digest().map_or(0, |d| usize::from(d[0]));
        self.0[first % self.0.len()]
    }
}

fuzz_target!(|bytes: &[u8]| {
    let blocks = Blocks::cut(bytes);
    if blocks.0.is_empty() {
        return;
    }
    for codec in [Codec::DAG_PB, Codec::DAG_CBOR, Codec::DAG_JSON, Codec::RAW] {
        let root = Cid::v1(codec, [0; 32]);
        let (start, end) = (3, 1 << 20);
        let mut file = FileReader::new(root.clone(), start, end);
        let mut read = 0;
        for _ in 0..STEPS {
            let Some(block) = file.want().map(|cid| blocks.get(cid).to_vec()) else { break };
            match file.provide(block) {
                Ok(part) => read += part.len() as u64,
                Err(_) => break,
            }
        }
        assert!(read <= end - start);
        for path in [&["a", "index.html", "b"][..], &["0", "Links", "0", "Hash"], &["a", "..", "b", ".", "c"]]
        {
            let mut resolver = PathResolver::new(root.clone(), path.iter().copied()).unwrap();
            let mut steps = 0;
            while let Some(cid) = resolver.want() {
                steps += 1;
                assert!(steps <= MAX_STEPS + 1);
                let block = blocks.get(cid);
                if resolver.provide(block).is_err() {
                    break;
                }
            }
        }
        assert_eq!(PathResolver::new(root.clone(), ["a", "..", ".."]).err(), Some(ExportError::AboveRoot));
        let mut directory = DirectoryReader::new(root);
        for _ in 0..STEPS {
            let Some(block) = directory.want().map(|cid| blocks.get(cid)) else { break };
            match directory.provide(block) {
                Ok(entries) => assert!(entries.iter().all(|e| e.name.is_some())),
                Err(_) => break,
            }
        }
        for block in &blocks.0 {
            let _ = links(codec, block);
        }
    }
});

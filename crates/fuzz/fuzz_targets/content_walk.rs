//! Walks over one hostile block: files, paths, directories.
#![no_main]
use content_id::export::{DirectoryReader, FileReader, PathResolver, links};
use content_id::{Cid, Codec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let cid = Cid::v0([0; 32]);
    // the same block again and again, as if it were its own child
    let mut file = FileReader::new(cid.clone(), 3, 1 << 40);
    for _ in 0..100 {
        if file.want().is_none() || file.provide(bytes.to_vec()).is_err() {
            break;
        }
    }
    if let Ok(mut path) = PathResolver::new(cid.clone(), ["a", "index.html", "b"]) {
        while path.want().is_some() && path.provide(bytes).is_ok() {}
    }
    let mut directory = DirectoryReader::new(cid);
    for _ in 0..100 {
        if directory.want().is_none() || directory.provide(bytes).is_err() {
            break;
        }
    }
    let _ = links(Codec::DAG_PB, bytes);
});

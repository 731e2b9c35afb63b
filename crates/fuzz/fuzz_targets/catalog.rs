//! Blocks of other nodes' catalogues.
#![no_main]
use libfuzzer_sys::fuzz_target;
use store_core::catalog::{Catalog, read_held, read_published, read_root};

fuzz_target!(|bytes: &[u8]| {
    let _ = read_root(bytes);
    // what is read is within the limits, and is read again when it is written
    if let Ok(published) = read_published(bytes) {
        let blocks = Catalog { published: published.clone(), ..Catalog::default() }.encode();
        let again = blocks.iter().skip(1).flat_map(|b| read_published(&b.data).unwrap_or_default());
        assert_eq!(again.collect::<Vec<_>>(), published);
    }
    if let Ok(held) = read_held(bytes) {
        let blocks = Catalog { held: held.clone(), ..Catalog::default() }.encode();
        let again = blocks.iter().skip(1).flat_map(|b| read_held(&b.data).unwrap_or_default());
        assert_eq!(again.collect::<Vec<_>>(), held);
    }
});

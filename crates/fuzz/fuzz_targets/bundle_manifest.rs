//! Bundles' manifests, prefixes and tables: what parses is written again to the same bytes.
#![no_main]
use libfuzzer_sys::fuzz_target;
use update_core::SECTOR;
use update_core::bundle::{ENTRY, Entry, Manifest, PREFIX, Prefix, Signature};
use update_core::crc32;

fuzz_target!(|bytes: &[u8]| {
    if let Some(Ok(prefix)) = bytes.first_chunk::<PREFIX>().map(Prefix::parse) {
        assert_eq!(&prefix.encode(), &bytes[..PREFIX]);
    }
    for entry in bytes.as_chunks::<ENTRY>().0 {
        if let Ok(parsed) = Entry::parse(entry) {
            assert_eq!(&parsed.encode(), entry);
        }
    }
    for (parsed, bytes) in Signature::parse_all(bytes).iter().zip(bytes.chunks(96)) {
        assert_eq!(parsed.encode(), bytes);
    }
    // Half of the inputs get a slot header with the right checksum.
    let mut bytes = bytes.to_vec();
    if bytes.len() % 2 == 0 && bytes.len() > SECTOR {
        let sum = crc32(&bytes[4..SECTOR]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
    }
    if let Ok(manifest) = Manifest::parse(&bytes) {
        assert_eq!(manifest.encode(), bytes);
        manifest.slot_header().expect("a manifest that parses has a slot header");
    }
});

//! CIDs in bytes and text, dag-pb nodes, UnixFS data.
#![no_main]
use content_id::{Cid, Codec, dagpb, unixfs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(cid) = Cid::from_bytes(bytes) {
        assert_eq!(cid.to_bytes(), bytes);
        assert_eq!(cid.to_string().parse::<Cid>(), Ok(cid));
    }
    if let Ok(text) = core::str::from_utf8(bytes) {
        let _ = text.parse::<Cid>();
    }
    let _ = dagpb::Node::parse(bytes);
    let _ = unixfs::Data::parse(bytes);
    for codec in [Codec::RAW, Codec::DAG_PB] {
        let _ = unixfs::Entry::parse(codec, bytes);
    }
});

//! IPNS names and records. Nothing that was not signed passes.
#![no_main]
use content_id::ipns::{Name, Record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = core::str::from_utf8(bytes)
        && let Some(name) = Name::parse(text)
    {
        assert_eq!(Name::parse(&name.to_string()), Some(name));
    }
    // the name of the key that the first bytes are
    let (key, record) = bytes.split_at(bytes.len().min(32));
    let mut cid = vec![1, 0x72, 0, 36, 8, 1, 0x12, 0x20];
    cid.extend_from_slice(key);
    cid.resize(40, 0);
    let name = content_id::Cid::from_bytes(&cid).ok().and_then(|cid| Name::parse(&cid.to_string()));
    if let Some(name) = name {
        let _ = Record::verify(&name, record, Some(0));
    }
});

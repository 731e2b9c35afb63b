//! Records and segment headers of the store's log.
#![no_main]
use libfuzzer_sys::fuzz_target;
use store_core::record::{Head, encode, parse_segment_header, segment_header};

fuzz_target!(|bytes: &[u8]| {
    let Some((salt, rest)) = bytes.split_first_chunk::<8>() else { return };
    let salt = u64::from_le_bytes(*salt);
    if let Some(salt) = parse_segment_header(rest, 1) {
        assert_eq!(segment_header(1, salt)[..], rest[..32]);
    }
    let Ok(head) = Head::parse(rest, salt) else { return };
    let start = head.head_length as usize;
    let Some(data) = rest.get(start..start + head.data_length as usize) else { return };
    let mut again = Vec::new();
    encode(head.kind, head.cid.as_ref(), data, head.durable_to, salt, &mut again);
    assert_eq!(again.len() as u64, head.record_length());
});

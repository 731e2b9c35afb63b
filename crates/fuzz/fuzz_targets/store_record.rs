//! Records, segment headers and trailers of the store's log.
#![no_main]
use libfuzzer_sys::fuzz_target;
use store_core::record::{
    Head, SegmentHeader, Spot, encode, parse_segment_header, parse_trailer, segment_header, trailer,
};

fuzz_target!(|bytes: &[u8]| {
    let Some((salt, rest)) = bytes.split_first_chunk::<8>() else { return };
    let salt = u64::from_le_bytes(*salt);
    if let SegmentHeader::Salt(salt) = parse_segment_header(rest, 1) {
        assert_eq!(segment_header(1, salt)[..], rest[..32]);
    }
    if let Some(bytes) = rest.first_chunk()
        && let Some(spot) = parse_trailer(bytes, 1, salt)
    {
        assert_eq!(trailer(spot), *bytes);
    }
    let spot = Spot { salt, segment: 1, offset: 1 << 30 };
    let Ok(head) = Head::parse(rest, spot) else { return };
    let start = head.head_length as usize;
    let Some(data) = rest.get(start..start + head.data_length as usize) else { return };
    let mut again = Vec::new();
    encode(head.kind, head.cid.as_ref(), data, head.durable_to, spot, &mut again);
    assert_eq!(again.len() as u64, head.record_length());
});

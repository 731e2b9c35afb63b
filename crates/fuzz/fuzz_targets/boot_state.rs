//! Boot-state sectors and slot headers: what parses is written again and parses to the same.
#![no_main]
use libfuzzer_sys::fuzz_target;
use update_core::{BootState, SECTOR, SlotHeader, crc32, parse_mbr};

fuzz_target!(|bytes: &[u8]| {
    let mut sector = [0u8; SECTOR];
    for (to, from) in sector.iter_mut().zip(bytes) {
        *to = *from;
    }
    let _ = parse_mbr(&sector);
    // Half of the inputs get the right checksum, or the fuzzer would stop there.
    if bytes.len() % 2 == 0 {
        let sum = crc32(&sector[4..]);
        sector[..4].copy_from_slice(&sum.to_le_bytes());
    }
    if let Ok(state) = BootState::parse(&sector) {
        let again = state.encode().expect("what was read fits a sector");
        assert_eq!(BootState::parse(&again), Ok(state));
    }
    let _ = SlotHeader::parse(&sector);
});

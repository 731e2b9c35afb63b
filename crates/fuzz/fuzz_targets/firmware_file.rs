//! Files with boot firmware: what parses is written again to the same bytes, and no more is taken than was signed.
#![no_main]
use libfuzzer_sys::fuzz_target;
use update_core::Policy;
use update_core::bundle::SIGNATURE;
use update_core::firmware::{Firmware, check, head, rank, split};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(firmware) = Firmware::parse(bytes) {
        assert_eq!(firmware.encode(), bytes);
        assert!(firmware.files.iter().all(|f| rank(&f.name).is_some()));
    }
    if let Ok((manifest, signatures, end)) = split(bytes) {
        assert_eq!(end, 16 + manifest.len() + signatures.len() * SIGNATURE);
        assert_eq!(head(manifest, &signatures), &bytes[..end]);
    }
    // Nobody can sign for this key.
    let policy = Policy { keys: vec![[7; 32]], boards: vec!["brcm,bcm2837".into()], ..Policy::default() };
    assert!(check(bytes, &policy, 0).is_err());
});

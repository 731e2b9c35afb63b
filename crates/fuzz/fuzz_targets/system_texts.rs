//! What the system side reads from files and from the kernel: the identity, announcements of devices.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mesh_sys::{identity, uevent};

fuzz_target!(|bytes: &[u8]| {
    if let Some(seed) = identity::parse(bytes) {
        let text: String = seed.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(identity::parse(text.as_bytes()), Some(seed));
    }
    if let Some(event) = uevent::parse(bytes) {
        assert!(!event.action.is_empty());
    }
});

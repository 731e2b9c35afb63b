//! A DNS message that parses is written again within the limit.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = names::wire::parse(bytes) {
        let _ = names::wire::emit(&message, 9000, false);
    }
});

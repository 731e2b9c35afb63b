//! A recording of a router's inputs is read to its end or to an error inside it; its inputs can be handed on.
#![no_main]
use libfuzzer_sys::fuzz_target;
use olsrv2::recording::{Recording, What};

fuzz_target!(|bytes: &[u8]| {
    let Ok(recording) = Recording::open(bytes) else { return };
    let mut before = 0;
    for entry in recording {
        match entry {
            Ok(entry) => {
                assert!(entry.offset > before && entry.offset < bytes.len());
                before = entry.offset;
                if let What::Input(input) = entry.what {
                    input.with(&[], |input| assert!(!format!("{input:?}").is_empty()));
                }
            }
            Err(e) => assert!(e.offset <= bytes.len()),
        }
    }
});

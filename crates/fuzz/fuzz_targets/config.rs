//! Whatever stands in p2pmesh.toml, there is a configuration, and the problems have lines.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = mesh_config::parse(bytes);
});

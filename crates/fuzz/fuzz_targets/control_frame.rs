//! Control frames of every service, as a server reads them.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mesh_ipc::{Request, decode, names, radio, router, store, supervisor, update};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode::<Request<router::RouterRequest>>(&mut bytes.to_vec());
    let _ = decode::<Request<radio::RadioRequest>>(&mut bytes.to_vec());
    let _ = decode::<Request<names::NamesRequest>>(&mut bytes.to_vec());
    let _ = decode::<Request<store::StoreRequest>>(&mut bytes.to_vec());
    let _ = decode::<Request<supervisor::SupervisorRequest>>(&mut bytes.to_vec());
    let _ = decode::<Request<update::UpdateRequest>>(&mut bytes.to_vec());
});

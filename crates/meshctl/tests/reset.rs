//! `meshctl factory-reset`: it asks, leaves its file on the FAT partition, and starts the node again.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::Node;
use mesh_ipc::Response;
use mesh_ipc::supervisor::{SupervisorRequest, SupervisorResponse};

#[test]
fn it_asks_and_it_tells_when_the_node_does_not_start_again() {
    if !mesh_sys::process::is_root() {
        eprintln!("SKIPPED: factory-reset: only root may do that");
        return;
    }
    let mut node = Node::new("reset");
    let file = node.dir.join("factory-reset");
    assert!(node.bad(&["factory-reset"], 2).contains("--yes"));
    assert!(!file.exists());
    // Without a supervisor the file is there all the same.
    assert!(node.bad(&["factory-reset", "--yes"], 1).contains("reset at its next start"));
    let first = fs::read(&file).unwrap();
    node.service("mesh-supervisor", |request: SupervisorRequest| {
        assert_eq!(request, SupervisorRequest::Reboot);
        vec![Response::Service(SupervisorResponse::Done)]
    });
    assert!(node.good(&["factory-reset", "--yes"]).contains("starts again"));
    assert_ne!(fs::read(&file).unwrap(), first, "each wish is another one");
}

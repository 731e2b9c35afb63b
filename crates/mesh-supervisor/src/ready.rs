//! The line that says that the node is ready.

use std::fs;

use mesh_sys::{identity, process};

use crate::options::Options;

/// `node is ready: bloor, fd…::1, 10.64.3.9 (12.3 s after power-on)`.
pub(crate) fn announcement(options: &Options) -> String {
    let name = process::hostname();
    let addresses = match identity::load_or_create(&options.state_dir) {
        Ok(id) => {
            let (node, attempt) = (id.node_id(), identity::ipv4_attempt(&options.state_dir));
            format!("{}, {}", node.ula_address(), node.mesh_ipv4(attempt))
        }
        Err(e) => format!("no identity: {e}"),
    };
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split_whitespace().next().unwrap_or("?");
    format!("node is ready: {} {addresses} ({seconds} s after the kernel's start)", name)
}

//! The mesh router: two OLSRv2 instances (IPv6 and IPv4, RFC 7181) around the machine's interfaces, the
//! kernel's routes and the control socket (level 4).
//!
//! Where to look: `settings` command line and configuration · `links` which interfaces are usable ·
//! `instance` one address family's core and sockets · `fib` the kernel's routes, `rules` when it asks them ·
//! `uplink` the node's own way to the Internet · `tunnels` to gateways · `ipv4` the IPv4 address and its duplicates · `records`
//! signed application records · `answers` replies on the control socket · `numbers` sequence numbers over
//! restarts · `stations` what radios say of neighbours · `service` the driver loop.
//! `recording` writes down what happens, for a replay.
//!
//! Needs `CAP_NET_ADMIN` (addresses, routes, forwarding) and `CAP_NET_BIND_SERVICE` (UDP 269); `CAP_BPF` for
//! tunnels.

mod answers;
mod fib;
mod instance;
mod ipv4;
mod links;
mod numbers;
mod recording;
mod records;
mod rules;
mod service;
mod settings;
mod stations;
mod tunnels;
mod uplink;

use std::process::ExitCode;

use mesh_sys::service::{self as common, About, Args, Failure};

const ABOUT: About = About {
    name: "mesh-router",
    version: env!("CARGO_PKG_VERSION"),
    what: "routes packets across the mesh (OLSRv2)",
    flags: settings::FLAGS,
    check: mesh_config::check,
};

fn main() -> ExitCode {
    common::main(&ABOUT, run)
}

fn run(args: &Args) -> Result<(), Failure> {
    let settings = settings::Settings::new(args).map_err(Failure::Start)?;
    service::Service::new(settings).and_then(|mut s| s.run()).map_err(Failure::Run)
}

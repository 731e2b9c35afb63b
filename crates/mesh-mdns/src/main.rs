//! The name service: mDNS on the links, names of the whole mesh by unicast DNS (level 4).
//!
//! Where to look: `settings` command line and identity · `announced` services · `links` interfaces and their sockets ·
//! `dns` clients on port 53, `streams` those over TCP · `forward` their questions about the world · `router` records
//! to and from the mesh · `answers` replies on the control socket · `service` the driver loop. What is said, and when, is decided in the `names` crate.
//!
//! Needs `CAP_NET_BIND_SERVICE` for port 53 and nothing else: the sockets on port 5353 are tied to their
//! interfaces with `SO_BINDTODEVICE`, which a socket that is not tied yet may do unprivileged.

mod announced;
mod answers;
mod dns;
mod forward;
mod links;
mod pipe;
mod router;
mod service;
mod settings;
mod streams;

use std::process::ExitCode;

use mesh_sys::service::{self as common, About, Args, Failure};

const ABOUT: About = About {
    name: "mesh-mdns",
    version: env!("CARGO_PKG_VERSION"),
    what: "answers for <name>.local on every link and across the mesh",
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

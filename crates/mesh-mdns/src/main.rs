//! The name service: mDNS on the links, names of the whole mesh by unicast DNS (level 4).
//!
//! Where to look: `settings` command line and configuration · `links` interfaces and their sockets · `dns`
//! clients on port 53 · `router` records to and from the mesh · `answers` replies on the control socket ·
//! `service` the driver loop. What is said, and when, is decided in the `names` crate.
//!
//! Needs `CAP_NET_BIND_SERVICE` for port 53 and nothing else: the sockets on port 5353 are tied to their
//! interfaces with `SO_BINDTODEVICE`, which a socket that is not tied yet may do unprivileged.

mod answers;
mod dns;
mod links;
mod router;
mod service;
mod settings;

use std::process::ExitCode;

use mesh_sys::service::{Args, Start, complain, parse, print, start_log};

fn main() -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    let about = "answers for <name>.local on every link and across the mesh";
    match parse("mesh-mdns", version, about, settings::FLAGS, std::env::args_os().skip(1)) {
        Start::Print(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Start::Wrong(text) => {
            complain(&text);
            ExitCode::from(2)
        }
        Start::Run(args) => run(&args),
    }
}

fn run(args: &Args) -> ExitCode {
    if args.check_config {
        let (good, text) = mesh_config::check(&args.config);
        print(&text);
        return if good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    start_log();
    let settings = match settings::Settings::new(args) {
        Ok(settings) => settings,
        Err(text) => {
            complain(&format!("mesh-mdns: {text}"));
            return ExitCode::from(2);
        }
    };
    match service::Service::new(settings).and_then(|mut s| s.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            log::error!("{text}");
            ExitCode::FAILURE
        }
    }
}

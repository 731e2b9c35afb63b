//! The mesh router: two OLSRv2 instances (IPv6 and IPv4, RFC 7181) around the machine's interfaces, the
//! kernel's routes and the control socket (level 4).
//!
//! Where to look: `settings` command line and configuration · `links` which interfaces are usable ·
//! `instance` one address family's core and sockets · `fib` the kernel's routes, `rules` when it asks them ·
//! `uplink` the node's own way to the Internet · `ipv4` the IPv4 address and its duplicates · `records`
//! signed application records · `answers` replies on the control socket · `numbers` sequence numbers over
//! restarts · `service` the driver loop.
//!
//! Needs `CAP_NET_ADMIN` (addresses, routes, forwarding) and `CAP_NET_BIND_SERVICE` (UDP 269).

mod answers;
mod fib;
mod instance;
mod ipv4;
mod links;
mod numbers;
mod records;
mod rules;
mod service;
mod settings;
mod uplink;

use std::process::ExitCode;

use mesh_sys::service::{Args, Start, complain, parse, print, start_log};

fn main() -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    let about = "routes packets across the mesh (OLSRv2)";
    match parse("mesh-router", version, about, settings::FLAGS, std::env::args_os().skip(1)) {
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
            complain(&format!("mesh-router: {text}"));
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

//! The radio service: brings wired interfaces up, gives each interface its role, and tells whoever watches
//! (level 4). The rules are in `radio-core`.
//!
//! Where to look: `service` the driver loop · `kernel` from the kernel's words to the planner's and back.
//!
//! Needs `CAP_NET_ADMIN`.

mod kernel;
mod service;

use std::process::ExitCode;

use mesh_sys::service::{Args, Start, complain, parse, print, start_log};

fn main() -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    let about = "gives every network interface its role and brings it up";
    match parse(service::NAME, version, about, &[], std::env::args_os().skip(1)) {
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
    match service::Service::new(args).and_then(|mut s| s.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            log::error!("{text}");
            ExitCode::FAILURE
        }
    }
}

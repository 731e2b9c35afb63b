//! `mesh-update`: reads the slots and confirms the running one once the node is healthy (level 4).
//!
//! Rules are in `update-core`; here are the card (`disk.rs`, `card.rs`), the questions to the other services
//! (`probe.rs`) and the driver loop.
//!
//! Rights: the service runs as the user `mesh-update` without capabilities. It must read the card's first
//! sector, the slots' first sectors and the two boot-state sectors, and write one of the latter at a time;
//! they lie outside every partition, so it is given the card's device node (`root:disk 0660`, with the group
//! `disk` as supplementary group of this user alone) and nothing else.

mod card;
mod disk;
mod probe;
mod service;

use std::process::ExitCode;

use mesh_sys::service::{self as common, Flag, Start};

const NAME: &str = "mesh-update";
const ABOUT: &str = "reads the slots and confirms the running one";
const FLAGS: &[Flag] = &[
    Flag {
        name: "--disk",
        value: Some("FILE"),
        many: false,
        help: "the card (default: the one that is running)",
    },
    Flag {
        name: "--slot",
        value: Some("A|B"),
        many: false,
        help: "the running slot (default: as the kernel was told)",
    },
    Flag {
        name: "--gate",
        value: Some("SERVICE"),
        many: true,
        help: "services that must answer before the slot is confirmed",
    },
    Flag {
        name: "--stable",
        value: Some("SECONDS"),
        many: false,
        help: "for how long they must (default 10)",
    },
];

fn main() -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    let args = match common::parse(NAME, version, ABOUT, FLAGS, std::env::args_os().skip(1)) {
        Start::Run(args) => args,
        Start::Print(text) => {
            common::print(&text);
            return ExitCode::SUCCESS;
        }
        Start::Wrong(text) => {
            common::complain(&text);
            return ExitCode::from(2);
        }
    };
    if args.check_config {
        let (good, text) = mesh_config::check(&args.config);
        common::print(&text);
        return if good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    common::start_log();
    let options = match service::Options::from_args(&args) {
        Ok(options) => options,
        Err(text) => {
            common::complain(&format!("{NAME}: {text}"));
            return ExitCode::from(2);
        }
    };
    match service::run(&args.run_dir, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!("{e}");
            ExitCode::FAILURE
        }
    }
}

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

use mesh_sys::service::{self as common, About, Args, Failure, Flag};

const NAME: &str = "mesh-update";
const ABOUT: About = About {
    name: NAME,
    version: env!("CARGO_PKG_VERSION"),
    what: "reads the slots and confirms the running one",
    flags: FLAGS,
    check: mesh_config::check,
};
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
    common::main(&ABOUT, run)
}

fn run(args: &Args) -> Result<(), Failure> {
    let options = service::Options::from_args(args).map_err(Failure::Start)?;
    service::run(&args.run_dir, options).map_err(|e| Failure::Run(e.to_string()))
}

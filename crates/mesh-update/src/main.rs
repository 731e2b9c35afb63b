//! `mesh-update`: installs update bundles, and confirms the running slot once the node is healthy (level 4).
//!
//! Rules are in `update-core`; here are the card (`disk.rs`, `card.rs`), the questions to the other services
//! (`probe.rs`), USB sticks (`stick.rs`), boot firmware (`firmware.rs`), installations under way (`job.rs`), their bytes from
//! the store (`fetch.rs`) and back into it for others (`share.rs`), what is kept from boot to boot (`notes.rs`), the thread at
//! the card (`stream.rs`), what the other nodes say and announce (`turns.rs`), and the driver loop.
//!
//! Rights: the service runs as the user `mesh-update` without capabilities. It must read the card's first
//! sector and the slots, and write the slot that does not run and the two boot-state sectors; the latter
//! lie outside every partition, so it is given the card's device node (`root:disk 0660`, with the group
//! `disk` as supplementary group of this user alone) and nothing else.

mod card;
mod disk;
mod fetch;
mod firmware;
mod job;
mod notes;
mod probe;
mod service;
mod share;
mod stick;
mod stream;
mod turns;

use std::process::ExitCode;

use mesh_sys::service::{self as common, About, Args, Failure, Flag};

const NAME: &str = "mesh-update";
const ABOUT: About = About {
    name: NAME,
    version: env!("CARGO_PKG_VERSION"),
    what: "installs updates and confirms the running slot",
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
        name: "--patience",
        value: Some("SECONDS"),
        many: false,
        help: "for how long a new system may fail to prove good before the node starts again (default 600)",
    },
    Flag {
        name: "--board",
        value: Some("NAME"),
        many: true,
        help: "what this board is (default: the device tree's compatible)",
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
    Flag {
        name: "--stick",
        value: Some("DEVICE"),
        many: false,
        help: "install the newest bundle of a USB stick, and end; for root",
    },
    Flag {
        name: "--firmware",
        value: Some("FILE"),
        many: false,
        help: "install boot firmware and U-Boot on the FAT partition, and end; for root",
    },
    Flag {
        name: "--firmware-restore",
        value: None,
        many: false,
        help: "bring back the boot firmware that was there before, and end; for root",
    },
];

fn main() -> ExitCode {
    common::main(&ABOUT, run)
}

fn run(args: &Args) -> Result<(), Failure> {
    if let Some(device) = args.one("--stick") {
        return stick::run(args, device.as_ref()).map_err(Failure::Run);
    }
    if args.has("--firmware") || args.has("--firmware-restore") {
        return firmware::run(args, args.one("--firmware")).map_err(Failure::Start);
    }
    let options = service::Options::from_args(args).map_err(Failure::Start)?;
    service::run(&args.run_dir, options).map_err(|e| Failure::Run(e.to_string()))
}

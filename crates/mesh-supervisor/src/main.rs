//! The first and the last process of a node's own: sets the card and the system up, runs the services, ends
//! them (level 4).
//!
//! `setup` runs once, early, from busybox init; `run` is kept running by it; `finish` is called when the
//! machine goes down. The rules are in `core.rs` (services) and `setup/` (card); the rest is their drivers.

mod accounts;
mod board;
mod complaints;
mod console;
mod control;
mod core;
#[cfg(test)]
mod core_tests;
mod hotplug;
mod kept;
mod logger;
mod options;
mod problems;
mod ready;
mod ring;
mod run;
mod service;
mod setup;
mod sticks;
mod table;

use std::process::ExitCode;

use mesh_sys::service::{About, begin, complain};

use options::Options;

const ABOUT: About = About {
    name: run::NAME,
    version: env!("CARGO_PKG_VERSION"),
    what: "set-up and supervision of a node; the first word is what to do: setup, run or finish",
    flags: options::FLAGS,
    check: mesh_config::check,
};

fn main() -> ExitCode {
    let mut argv = std::env::args_os().skip(1).peekable();
    let word = argv.next_if(|w| !w.as_encoded_bytes().starts_with(b"-"));
    let word = word.and_then(|w| w.into_string().ok()).unwrap_or_else(|| "run".into());
    let args = match begin(&ABOUT, argv) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let options = Options::new(&args);
    let result = match word.as_str() {
        // Starts the log itself, once there is memory to keep it in.
        "setup" => setup::setup(&options),
        "run" => {
            logger::start(&options);
            run::run(options)
        }
        "finish" => {
            logger::start(&options);
            setup::finish(&options)
        }
        other => {
            complain(&format!("mesh-supervisor: {other:?} is neither setup, run nor finish"));
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            log::error!("{why}");
            complain(&format!("mesh-supervisor: {why}"));
            ExitCode::FAILURE
        }
    }
}

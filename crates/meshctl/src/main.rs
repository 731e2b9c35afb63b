//! The command line of a node; also reached as `ipfs` (level 4).
//!
//! `cli` holds the one table of commands and flags, and what is made from it: parsing, help, man page and
//! completions. `commands` holds one file per group of commands, `ipfs` those of the workshop; `adder` and `fetch` are what
//! both do with files. Everything a command knows it asks the
//! services for, over their control sockets.

mod adder;
mod cli;
mod client;
mod commands;
mod failure;
mod fetch;
mod ipfs;
mod json;
mod out;
mod progress;
mod system;
mod table;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use failure::Failure;
use out::Out;

fn main() -> ExitCode {
    let mut argv = std::env::args_os();
    let name = argv.next().unwrap_or_default();
    let args: Vec<OsString> = argv.collect();
    let called = Path::new(&name).file_name().unwrap_or_default();
    if called.as_encoded_bytes().ends_with(b"ipfs") {
        return ipfs::main(args, Path::new(cli::RUN_DIR));
    }
    let mut out = Out::stdout();
    let result = match cli::parse(args) {
        Ok(cli::Parsed::Ipfs { run_dir, args }) => return ipfs::main(args, &run_dir),
        Ok(cli::Parsed::Run(call)) => (call.command.run)(&call.context, &call.args, &mut out),
        Ok(cli::Parsed::Print(text)) => out.text(&text),
        Err(failure) => Err(failure),
    };
    finish(result.and_then(|()| out.flush()))
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        // Whoever read our output had enough: `meshctl routes | head`.
        Ok(()) | Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(Failure::Silent) => ExitCode::from(1),
        Err(Failure::Failed(text)) => {
            out::complain(&format!("meshctl: {text}"));
            ExitCode::from(1)
        }
        Err(Failure::Usage(text)) => {
            out::complain(&format!("meshctl: {text}"));
            ExitCode::from(2)
        }
    }
}

//! `ipfs add`.

use std::path::Path;

use mesh_ipc::store::AddOptions;

use super::Context;
use super::args::{Args, Flag};
use super::text::shown;
use crate::adder::{self, Added, Adder, Walk};
use crate::client;
use crate::failure::Failure;
use crate::progress::Progress;

pub(super) const FLAGS: &[Flag] = &[
    Flag { name: "recursive", short: "r", value: None, help: "add folders with all that is in them" },
    Flag { name: "quiet", short: "q", value: None, help: "print CIDs only" },
    Flag { name: "quieter", short: "Q", value: None, help: "print the last CID only" },
    Flag { name: "silent", short: "", value: None, help: "print nothing" },
    Flag { name: "progress", short: "p", value: None, help: "show progress on a terminal (default true)" },
    Flag { name: "only-hash", short: "n", value: None, help: "compute CIDs, store nothing" },
    Flag { name: "wrap-with-directory", short: "w", value: None, help: "put all into a folder" },
    Flag {
        name: "chunker",
        short: "s",
        value: Some("size-N"),
        help: "bytes of a block (default size-262144)",
    },
    Flag { name: "raw-leaves", short: "", value: None, help: "leaves are bare blocks" },
    Flag { name: "cid-version", short: "", value: Some("0|1"), help: "version of the CIDs (default 0)" },
    Flag {
        name: "profile",
        short: "",
        value: Some("NAME"),
        help: "unixfs-v0-2015 (default) or unixfs-v1-2025",
    },
    Flag { name: "pin", short: "", value: None, help: "keep what was added (default true)" },
    Flag {
        name: "dereference-args",
        short: "",
        value: None,
        help: "a link on the command line means what it points to",
    },
    Flag { name: "hidden", short: "H", value: None, help: "also files whose name begins with a dot" },
    Flag { name: "preserve-mode", short: "", value: None, help: "keep permissions; they change the CIDs" },
    Flag {
        name: "preserve-mtime",
        short: "",
        value: None,
        help: "keep times of change; they change the CIDs",
    },
    Flag { name: "hash", short: "", value: Some("sha2-256"), help: "the only one there is" },
    Flag { name: "stdin-name", short: "", value: Some("NAME"), help: "name of standard input's file" },
];

fn options(args: &Args) -> Result<AddOptions, Failure> {
    let chunk_size = match args.text("chunker") {
        None => None,
        Some("default") => Some(262_144),
        Some(chunker) => {
            let size = chunker.strip_prefix("size-").and_then(|n| n.parse().ok());
            Some(size.filter(|n| (1..=1_048_576).contains(n)).ok_or_else(|| {
                Failure::Usage(format!(
                    "chunker {chunker:?} is not known here; use size-N, N from 1 to 1048576"
                ))
            })?)
        }
    };
    let version = args.number("cid-version")?;
    Ok(AddOptions {
        profile: args.text("profile").unwrap_or("unixfs-v0-2015").to_owned(),
        cid_version: version.map(|v| u8::try_from(v).unwrap_or(u8::MAX)),
        raw_leaves: args.switch("raw-leaves"),
        chunk_size,
        only_hash: args.on("only-hash"),
        wrap: args.on("wrap-with-directory"),
        pin: args.switch("pin").unwrap_or(true),
    })
}

pub(super) fn run(context: &mut Context) -> Result<(), Failure> {
    let options = options(&context.args)?;
    let Context { args, out, .. } = context;
    let walk = Walk {
        recursive: args.on("recursive"),
        hidden: args.on("hidden"),
        follow: args.on("dereference-args"),
        mode: args.on("preserve-mode"),
        mtime: args.on("preserve-mtime"),
    };
    if args.text("hash").is_some_and(|hash| !hash.eq_ignore_ascii_case("sha2-256")) {
        return Err(Failure::Usage("only --hash=sha2-256 is known here".into()));
    }
    adder::look(&args.operands, walk.recursive)?;
    let quieter = args.on("quieter");
    let quiet = quieter || args.on("quiet");
    let silent = args.on("silent");
    let mut progress = Progress::new(args.switch("progress").unwrap_or(!quiet && !silent), None);
    if progress.is_shown() && !args.operands.iter().any(|path| path == "-") && !args.operands.is_empty() {
        let sizes = args.operands.iter().map(|path| adder::size_of(Path::new(path), walk.hidden));
        progress.set_total(Some(sizes.sum()));
    }
    let mut last = None;
    // folders are shown after everything else, as kubo does
    let mut folders = Vec::new();
    let mut show = |name: &str, cid: &str| {
        if quieter || silent {
            last = Some(cid.to_owned());
            Ok(())
        } else if quiet {
            out.line(cid)
        } else {
            out.line(&format!("added {cid} {}", shown(name)))
        }
    };
    let mut take = |Added { path, cid, is_folder, .. }: Added, progress: &mut Progress| {
        if is_folder {
            folders.push((path, cid));
            return Ok(());
        }
        progress.clear();
        show(if path.is_empty() { &cid } else { &path }, &cid)
    };
    let mut adder = Adder::begin(client::store(&context.run_dir)?, options, walk, progress, &mut take)?;
    let stdin_name = args.text("stdin-name").unwrap_or("");
    if args.operands.is_empty() {
        adder.stdin(stdin_name)?;
    }
    for operand in &args.operands {
        if operand == "-" {
            adder.stdin(stdin_name)?;
        } else {
            adder.path(Path::new(operand))?;
        }
    }
    adder.end()?;
    folders.iter().try_for_each(|(name, cid)| show(name, cid))?;
    match last.filter(|_| quieter && !silent) {
        Some(cid) => out.line(&cid),
        None => Ok(()),
    }
}

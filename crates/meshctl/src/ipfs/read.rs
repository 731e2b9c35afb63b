//! `ipfs cat` and `ipfs get`.

use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;

use mesh_ipc::store::{Entry, EntryKind, StoreRequest};

use super::Context;
use super::args::Flag;
use crate::failure::Failure;
use crate::fetch;
use crate::progress::Progress;

pub(super) const CAT_FLAGS: &[Flag] = &[
    Flag { name: "offset", short: "o", value: Some("N"), help: "bytes to skip" },
    Flag { name: "length", short: "l", value: Some("N"), help: "bytes to write at most" },
    Flag { name: "progress", short: "p", value: None, help: "show progress on a terminal (default true)" },
];
pub(super) const GET_FLAGS: &[Flag] = &[
    Flag { name: "output", short: "o", value: Some("PATH"), help: "where to save it" },
    Flag { name: "progress", short: "p", value: None, help: "show progress on a terminal (default true)" },
];

/// Skips and limits what all files make together.
pub(super) fn cat(context: &mut Context) -> Result<(), Failure> {
    let paths = context.args.some_operands("ipfs-path")?;
    let mut offset = context.args.number("offset")?.unwrap_or(0);
    let mut left = context.args.number("length")?;
    let mut store = context.store()?;
    // on a terminal the bytes themselves are what is seen
    let wanted = context.args.switch("progress").unwrap_or(true) && !std::io::stdout().is_terminal();
    let mut progress = Progress::new(wanted, None);
    for path in &paths {
        if left == Some(0) {
            break;
        }
        if offset > 0 && paths.len() > 1 {
            let size = fetch::resolve(&mut store, path)?.size;
            if offset > size {
                offset -= size;
                continue;
            }
        }
        let mut written = 0;
        let request = StoreRequest::Cat { path: path.clone(), offset, length: left };
        fetch::bytes(&mut store, request, &mut progress, &mut |bytes| {
            written += bytes.len() as u64;
            context.out.bytes(bytes)
        })?;
        offset = 0;
        left = left.map(|left| left.saturating_sub(written));
    }
    Ok(())
}

pub(super) fn get(context: &mut Context) -> Result<(), Failure> {
    let paths = context.args.some_operands("ipfs-path")?;
    let [path] = paths.as_slice() else {
        return Err(Failure::Usage("ipfs get takes one path".into()));
    };
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
    let target = context.args.text("output").filter(|target| !target.is_empty()).unwrap_or(name);
    let mut target = PathBuf::from(target);
    let mut store = context.store()?;
    let entry = fetch::resolve(&mut store, path)?;
    context.out.line(&format!("Saving file(s) to {}", target.display()))?;
    context.out.flush()?;
    // a folder becomes the one that is there, anything else goes into it; a link to one is not followed
    if entry.kind != Some(EntryKind::Directory) && fs::symlink_metadata(&target).is_ok_and(|m| m.is_dir()) {
        target.push(name);
    }
    let whole = matches!(entry.kind, Some(EntryKind::File)).then_some(entry.size);
    let mut progress = Progress::new(context.args.switch("progress").unwrap_or(true), whole);
    // by its path: that says more about where it may be
    let entry = Entry { cid: path.clone(), ..entry };
    fetch::save(&mut store, &entry, &target, true, &mut progress)
}

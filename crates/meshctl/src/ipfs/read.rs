//! `ipfs cat`, `get`, `ls`, `refs`.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::PathBuf;

use mesh_ipc::store::{Entry, EntryKind, StoreRequest, StoreResponse};

use super::Context;
use super::args::Flag;
use super::tab::{columns, shown};
use crate::client::Store;
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
pub(super) const LS_FLAGS: &[Flag] = &[
    Flag { name: "headers", short: "v", value: None, help: "print a head line" },
    Flag { name: "size", short: "", value: None, help: "print sizes (default true)" },
    Flag { name: "resolve-type", short: "", value: None, help: "accepted; types are always shown" },
    Flag { name: "stream", short: "s", value: None, help: "accepted" },
];
pub(super) const REFS_FLAGS: &[Flag] = &[
    Flag { name: "recursive", short: "r", value: None, help: "also what is below" },
    Flag { name: "unique", short: "u", value: None, help: "each CID once" },
    Flag { name: "edges", short: "e", value: None, help: "print '<from> -> <to>'" },
    Flag {
        name: "format",
        short: "",
        value: Some("TEXT"),
        help: "print TEXT with <src>, <dst> and <linkname>",
    },
    Flag { name: "max-depth", short: "", value: Some("N"), help: "so many levels below at most, with -r" },
];

/// Links that wait to be followed while references are listed.
const MAX_OPEN: usize = 200_000;

pub(super) fn cat(context: &mut Context) -> Result<(), Failure> {
    let paths = context.args.some_operands("ipfs-path")?;
    let (offset, length) = (context.args.number("offset")?, context.args.number("length")?);
    let mut store = context.store()?;
    // on a terminal the bytes themselves are what is seen
    let wanted = context.args.switch("progress").unwrap_or(true) && !std::io::stdout().is_terminal();
    let mut progress = Progress::new(wanted, None);
    for path in paths {
        let request = StoreRequest::Cat { path, offset: offset.unwrap_or(0), length };
        fetch::bytes(&mut store, request, &mut progress, &mut |bytes| context.out.bytes(bytes))?;
    }
    Ok(())
}

pub(super) fn get(context: &mut Context) -> Result<(), Failure> {
    let paths = context.args.some_operands("ipfs-path")?;
    let [path] = paths.as_slice() else {
        return Err(Failure::Usage("ipfs get takes one path".into()));
    };
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
    let mut target = context.args.text("output").map_or_else(|| PathBuf::from(name), PathBuf::from);
    if context.args.text("output").is_some() && target.is_dir() {
        target.push(name);
    }
    let mut store = context.store()?;
    let entry = fetch::resolve(&mut store, path)?;
    context.out.line(&format!("Saving file(s) to {}", target.display()))?;
    context.out.flush()?;
    let whole = matches!(entry.kind, Some(EntryKind::File)).then_some(entry.size);
    let mut progress = Progress::new(context.args.switch("progress").unwrap_or(true), whole);
    // by its path: that says more about where it may be
    let entry = Entry { cid: path.clone(), ..entry };
    fetch::save(&mut store, &entry, &target, true, &mut progress)
}

pub(super) fn ls(context: &mut Context) -> Result<(), Failure> {
    let paths = context.args.some_operands("ipfs-path")?;
    let mut store = context.store()?;
    let sizes = context.args.switch("size").unwrap_or(true);
    let several = paths.len() > 1;
    for (at, path) in paths.iter().enumerate() {
        let mut rows = Vec::new();
        if context.args.on("headers") {
            let head = if sizes { vec!["Hash", "Size", "Name"] } else { vec!["Hash", "Name"] };
            rows.push(head.into_iter().map(str::to_owned).collect());
        }
        for entry in fetch::list(&mut store, path)? {
            let (size, slash) = match entry.kind {
                Some(EntryKind::Directory) => ("-".to_owned(), "/"),
                _ => (entry.size.to_string(), ""),
            };
            let mut row = vec![entry.cid];
            if sizes {
                row.push(size);
            }
            row.push(format!("{}{slash}", shown(&entry.name)));
            rows.push(row);
        }
        if several {
            context.out.line(&format!("{path}:"))?;
        }
        context.out.text(&columns(&rows))?;
        if several && at + 1 < paths.len() {
            context.out.line("")?;
        }
    }
    Ok(())
}

pub(super) fn refs(context: &mut Context) -> Result<(), Failure> {
    let paths = context.args.some_operands("ipfs-path")?;
    let mut store = context.store()?;
    let edges = context.args.on("edges").then_some("<src> -> <dst>");
    let format = context.args.text("format").or(edges).map(str::to_owned);
    if format.as_ref().is_some_and(|format| format.contains("<linkname>")) {
        return Err(Failure::Usage("<linkname> is not known here; use <src> and <dst>".into()));
    }
    let (recursive, unique) = (context.args.on("recursive"), context.args.on("unique"));
    let levels = match (recursive, context.args.number("max-depth")?) {
        (false, _) => 1,
        (true, levels) => levels.unwrap_or(u64::MAX),
    };
    for path in paths {
        if format.is_some() || (recursive && levels != u64::MAX) {
            let format = format.as_deref().unwrap_or("<dst>");
            walk(context, &mut store, &path, (format, levels, unique))?;
        } else {
            links(&mut store, path, recursive, unique, &mut |cid| context.out.line(&cid))?;
        }
    }
    Ok(())
}

/// Links of a block and, if `recursive`, of all below it.
fn links(
    store: &mut Store,
    path: String,
    recursive: bool,
    unique: bool,
    take: &mut dyn FnMut(String) -> Result<(), Failure>,
) -> Result<(), Failure> {
    store.send(StoreRequest::Refs { path, recursive, unique })?;
    loop {
        match store.receive()? {
            StoreResponse::Refs(cids) => cids.into_iter().try_for_each(&mut *take)?,
            StoreResponse::Done => return Ok(()),
            _ => return Err(store.odd()),
        }
    }
}

/// Block by block: where the store's own list says too little.
fn walk(
    context: &mut Context,
    store: &mut Store,
    path: &str,
    (format, levels, unique): (&str, u64, bool),
) -> Result<(), Failure> {
    let root = fetch::resolve(store, path)?.cid;
    let mut seen = BTreeSet::new();
    let mut open = vec![(String::new(), root, 0)];
    while let Some((from, cid, level)) = open.pop() {
        if level > 0 {
            if unique && !seen.insert(cid.clone()) {
                continue;
            }
            context.out.line(&format.replace("<src>", &from).replace("<dst>", &cid))?;
        }
        if level < levels {
            let mut below = Vec::new();
            links(store, cid.clone(), false, false, &mut |child| {
                below.push((cid.clone(), child, level + 1));
                Ok(())
            })?;
            if open.len() + below.len() > MAX_OPEN {
                return Err(Failure::new("too many links to list; ask for unique ones (-u)"));
            }
            open.extend(below.into_iter().rev());
        }
    }
    Ok(())
}

//! `ipfs refs` and `ipfs refs local`.

use std::collections::BTreeMap;

use mesh_ipc::store::{StoreRequest, StoreResponse};

use super::Context;
use super::args::Flag;
use crate::client::Store;
use crate::failure::Failure;
use crate::fetch;
use crate::json::object;

pub(super) const FLAGS: &[Flag] = &[
    Flag { name: "recursive", short: "r", value: None, help: "also what is below" },
    Flag { name: "unique", short: "u", value: None, help: "each CID once" },
    Flag { name: "edges", short: "e", value: None, help: "print '<from> -> <to>'" },
    Flag { name: "format", short: "", value: Some("TEXT"), help: "print TEXT with <src> and <dst>" },
    Flag {
        name: "max-depth",
        short: "",
        value: Some("N"),
        help: "so many levels below at most, with -r (default -1: all)",
    },
];

/// Links that wait to be followed.
const MAX_OPEN: usize = 200_000;

/// What is followed how far, and what was met on which level.
struct Walk {
    format: String,
    levels: u64,
    unique: bool,
    seen: BTreeMap<String, u64>,
}

pub(super) fn run(context: &mut Context) -> Result<(), Failure> {
    let paths = context.args.some_operands("ipfs-path")?;
    let args = &context.args;
    let format = args.text("format").filter(|format| !matches!(*format, "" | "<dst>"));
    if args.on("edges") && format.is_some() {
        return Err(Failure::new("using format argument with edges is not allowed"));
    }
    if format.is_some_and(|format| format.contains("<linkname>")) {
        return Err(Failure::Usage("<linkname> is not known here; use <src> and <dst>".into()));
    }
    let format = format.or(args.on("edges").then_some("<src> -> <dst>")).map(str::to_owned);
    let (recursive, unique) = (args.on("recursive"), args.on("unique"));
    let levels = match args.text("max-depth") {
        _ if !recursive => 1,
        Some(depth) if depth.starts_with('-') && depth.parse::<i64>().is_ok() => u64::MAX,
        _ => args.number("max-depth")?.unwrap_or(u64::MAX),
    };
    let mut store = context.store()?;
    // the store's own list knows nothing of formats, levels and other roots
    if format.is_none() && (!recursive || levels == u64::MAX) && !(unique && paths.len() > 1) {
        return paths.into_iter().try_for_each(|path| {
            let request = StoreRequest::Refs { path, recursive, unique };
            each(&mut store, request, &mut |cid| show(context, &cid))
        });
    }
    let format = format.unwrap_or_else(|| "<dst>".to_owned());
    let mut walk = Walk { format, levels, unique, seen: BTreeMap::new() };
    paths.iter().try_for_each(|path| walk.below(context, &mut store, path))
}

pub(super) fn local(context: &mut Context) -> Result<(), Failure> {
    let mut store = context.store()?;
    each(&mut store, StoreRequest::Local, &mut |cid| show(context, &cid))
}

fn show(context: &mut Context, text: &str) -> Result<(), Failure> {
    context.show(text, || object! { "Ref" => text, "Err" => "" })
}

/// CIDs that a request brings.
fn each(
    store: &mut Store,
    request: StoreRequest,
    take: &mut dyn FnMut(String) -> Result<(), Failure>,
) -> Result<(), Failure> {
    store.send(request)?;
    loop {
        match store.receive()? {
            StoreResponse::Refs(cids) => cids.into_iter().try_for_each(&mut *take)?,
            StoreResponse::Done => return Ok(()),
            _ => return Err(store.odd()),
        }
    }
}

impl Walk {
    /// Block by block, each with all that is below it.
    fn below(&mut self, context: &mut Context, store: &mut Store, path: &str) -> Result<(), Failure> {
        let root = fetch::resolve(store, path)?.cid;
        let mut open = vec![(String::new(), root, 0)];
        while let Some((from, cid, level)) = open.pop() {
            let (is_shown, is_followed) = self.visit(&cid, level);
            if is_shown && level > 0 {
                show(context, &self.format.replace("<src>", &from).replace("<dst>", &cid))?;
            }
            if !is_followed {
                continue;
            }
            let mut below = Vec::new();
            let request = StoreRequest::Refs { path: cid.clone(), recursive: false, unique: false };
            each(store, request, &mut |child| {
                below.push((cid.clone(), child, level + 1));
                Ok(())
            })?;
            if open.len() + below.len() > MAX_OPEN {
                return Err(Failure::new("too many links to list; ask for unique ones (-u)"));
            }
            open.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// Whether a block is shown, and whether it is followed: with `unique`, one that was met on a lower level is
    /// followed again, since more of what is below it is wanted now.
    fn visit(&mut self, cid: &str, level: u64) -> (bool, bool) {
        if level == 0 || !self.unique {
            return (level <= self.levels, level < self.levels);
        }
        let before = self.seen.get(cid).copied();
        if level > self.levels || before.is_some_and(|before| self.levels == u64::MAX || before <= level) {
            return (false, false);
        }
        self.seen.insert(cid.to_owned(), level);
        (before.is_none(), level < self.levels)
    }
}

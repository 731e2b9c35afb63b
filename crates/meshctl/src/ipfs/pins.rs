//! `ipfs pin add|rm|ls`.

use mesh_ipc::store::{PinEntry, PinKind, StoreRequest, StoreResponse};

use super::Context;
use super::args::Flag;
use crate::failure::Failure;

pub(super) const ADD_FLAGS: &[Flag] = &[
    Flag { name: "recursive", short: "r", value: None, help: "also all that is below (default true)" },
    Flag { name: "progress", short: "", value: None, help: "accepted; no progress is shown" },
];
pub(super) const RM_FLAGS: &[Flag] = &[Flag { name: "recursive", short: "r", value: None, help: "accepted" }];
pub(super) const LS_FLAGS: &[Flag] = &[
    Flag {
        name: "type",
        short: "t",
        value: Some("KIND"),
        help: "direct, indirect, recursive or all (default)",
    },
    Flag { name: "quiet", short: "q", value: None, help: "print CIDs only" },
    Flag { name: "stream", short: "s", value: None, help: "accepted" },
];

pub(super) fn add(context: &mut Context) -> Result<(), Failure> {
    let recursive = context.args.switch("recursive").unwrap_or(true);
    let how = if recursive { "recursively" } else { "directly" };
    change(context, |path| StoreRequest::PinAdd { path, recursive }, |cid| format!("pinned {cid} {how}"))
}

pub(super) fn rm(context: &mut Context) -> Result<(), Failure> {
    change(context, |path| StoreRequest::PinRemove { path }, |cid| format!("unpinned {cid}"))
}

fn change(
    context: &mut Context,
    request: impl Fn(String) -> StoreRequest,
    line: impl Fn(&str) -> String,
) -> Result<(), Failure> {
    let mut store = context.store()?;
    for path in context.args.some_operands("ipfs-path")? {
        let StoreResponse::Pins(pins) = store.request(request(path))? else { return Err(store.odd()) };
        pins.iter().try_for_each(|pin| context.out.line(&line(&pin.cid)))?;
    }
    Ok(())
}

const fn word(kind: PinKind) -> &'static str {
    match kind {
        PinKind::Direct => "direct",
        PinKind::Recursive => "recursive",
        PinKind::Indirect => "indirect",
    }
}

pub(super) fn ls(context: &mut Context) -> Result<(), Failure> {
    let wanted = context.args.text("type").unwrap_or("all").to_owned();
    if !matches!(wanted.as_str(), "all" | "direct" | "indirect" | "recursive") {
        return Err(Failure::Usage(format!(
            "there is no pin type {wanted:?}; use direct, indirect, recursive or all"
        )));
    }
    let mut store = context.store()?;
    store.send(StoreRequest::PinList { indirect: matches!(wanted.as_str(), "all" | "indirect") })?;
    let mut asked: Vec<(String, bool)> = context
        .args
        .operands
        .iter()
        .map(|path| (path.trim_start_matches("/ipfs/").to_owned(), false))
        .collect();
    loop {
        match store.receive()? {
            StoreResponse::Pins(pins) => {
                for PinEntry { cid, kind } in pins {
                    let named = asked.iter_mut().find(|(path, _)| *path == cid);
                    let shown = match named {
                        Some((_, found)) => {
                            *found = true;
                            true
                        }
                        None => asked.is_empty(),
                    };
                    if !shown || (wanted != "all" && wanted != word(kind)) {
                        continue;
                    }
                    let kind =
                        if context.args.on("quiet") { String::new() } else { format!(" {}", word(kind)) };
                    context.out.line(&format!("{cid}{kind}"))?;
                }
            }
            StoreResponse::Done => break,
            _ => return Err(store.odd()),
        }
    }
    match asked.iter().find(|(_, found)| !found) {
        Some((path, _)) => {
            context.out.flush()?;
            Err(Failure::new(format!("path '{path}' is not pinned")))
        }
        None => Ok(()),
    }
}

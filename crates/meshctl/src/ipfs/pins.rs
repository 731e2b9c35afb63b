//! `ipfs pin add|rm|ls`.

use mesh_ipc::store::{PinEntry, PinKind, StoreRequest, StoreResponse};

use super::Context;
use super::args::Flag;
use super::text;
use crate::failure::Failure;
use crate::json::{Json, object};
use crate::progress::Line;

pub(super) const ADD_FLAGS: &[Flag] = &[
    Flag { name: "recursive", short: "r", value: None, help: "also all that is below (default true)" },
    Flag { name: "progress", short: "", value: None, help: "show progress on a terminal" },
];
pub(super) const RM_FLAGS: &[Flag] = &[Flag {
    name: "recursive",
    short: "r",
    value: None,
    help: "also what is pinned with all below it (default true)",
}];
pub(super) const LS_FLAGS: &[Flag] = &[
    Flag {
        name: "type",
        short: "t",
        value: Some("KIND"),
        help: "direct, indirect, recursive or all (default)",
    },
    Flag { name: "quiet", short: "q", value: None, help: "print CIDs only" },
    Flag { name: "stream", short: "s", value: None, help: "JSON: an object for each pin" },
    Flag { name: "names", short: "", value: None, help: "accepted; pins have no names here" },
];

pub(super) fn add(context: &mut Context) -> Result<(), Failure> {
    let recursive = context.args.switch("recursive").unwrap_or(true);
    let how = if recursive { "recursively" } else { "directly" };
    let shown = context.args.on("progress");
    // asked for in any case: whoever hears something knows that it goes on
    let request = |path| StoreRequest::PinAdd { path, recursive, progress: true };
    change(context, request, shown, |cid| format!("pinned {cid} {how}"))
}

pub(super) fn rm(context: &mut Context) -> Result<(), Failure> {
    let recursive = context.args.switch("recursive").unwrap_or(true);
    let request = |path| StoreRequest::PinRemove { path, recursive };
    change(context, request, false, |cid| format!("unpinned {cid}"))
}

/// Prints when all is done.
fn change(
    context: &mut Context,
    request: impl Fn(String) -> StoreRequest,
    shown: bool,
    line: impl Fn(&str) -> String,
) -> Result<(), Failure> {
    let mut store = context.store()?;
    let mut progress = Line::new(shown);
    let mut done: Vec<String> = Vec::new();
    let (mut blocks, mut bytes) = (0, 0);
    for path in context.args.some_operands("ipfs-path")? {
        store.send(request(path))?;
        let (mut now_blocks, mut now_bytes) = (0, 0);
        loop {
            match store.receive()? {
                StoreResponse::Fetched { blocks: more, bytes: more_bytes } => {
                    (now_blocks, now_bytes) = (more, more_bytes);
                    progress.write(&fetched(blocks + now_blocks, bytes + now_bytes));
                }
                StoreResponse::Pins(pins) => {
                    done.extend(pins.into_iter().map(|pin| pin.cid));
                    break;
                }
                _ => return Err(store.odd()),
            }
        }
        (blocks, bytes) = (blocks + now_blocks, bytes + now_bytes);
    }
    drop(progress);
    if context.json {
        return context.json(&object! { "Pins" => done.as_slice() });
    }
    done.iter().try_for_each(|cid| context.out.line(&line(cid)))
}

fn fetched(blocks: u64, bytes: u64) -> String {
    format!("Fetched/Processed {blocks} nodes ({})", text::size(bytes))
}

const fn word(kind: PinKind) -> &'static str {
    match kind {
        PinKind::Direct => "direct",
        PinKind::Recursive => "recursive",
        PinKind::Indirect => "indirect",
    }
}

pub(super) fn ls(context: &mut Context) -> Result<(), Failure> {
    let kind = match context.args.text("type").unwrap_or("all") {
        "all" => None,
        "direct" => Some(PinKind::Direct),
        "indirect" => Some(PinKind::Indirect),
        "recursive" => Some(PinKind::Recursive),
        other => {
            return Err(Failure::new(format!(
                "invalid type '{other}', must be one of {{direct, indirect, recursive, all}}"
            )));
        }
    };
    let mut list = List { context, first: true };
    if list.context.args.operands.is_empty() {
        list.all(kind)?
    } else {
        list.named(kind)?
    }
    list.end()
}

/// Pins on their way out.
struct List<'a> {
    context: &'a mut Context,
    first: bool,
}

impl List<'_> {
    fn all(&mut self, kind: Option<PinKind>) -> Result<(), Failure> {
        let mut store = self.context.store()?;
        let indirect = kind.is_none_or(|kind| kind == PinKind::Indirect);
        store.send(StoreRequest::PinList { indirect })?;
        loop {
            match store.receive()? {
                StoreResponse::Pins(pins) => {
                    let wanted = |pin: &&PinEntry| kind.is_none_or(|kind| kind == pin.kind);
                    pins.iter().filter(wanted).try_for_each(|pin| self.show(pin))?;
                }
                StoreResponse::Done => return Ok(()),
                _ => return Err(store.odd()),
            }
        }
    }

    fn named(&mut self, kind: Option<PinKind>) -> Result<(), Failure> {
        let mut store = self.context.store()?;
        let mut found = Vec::new();
        for path in self.context.args.operands.clone() {
            match store.request(StoreRequest::PinFind { path: path.clone(), kind })? {
                StoreResponse::Pins(pins) if pins.is_empty() => {
                    return Err(Failure::new(format!("path '{path}' is not pinned")));
                }
                StoreResponse::Pins(pins) => found.extend(pins),
                _ => return Err(store.odd()),
            }
        }
        found.iter().try_for_each(|pin| self.show(pin))
    }

    fn show(&mut self, pin: &PinEntry) -> Result<(), Failure> {
        let how = match &pin.through {
            Some(root) => format!("indirect through {root}"),
            None => word(pin.kind).to_owned(),
        };
        let quiet = self.context.args.on("quiet");
        if !self.context.json {
            let line = if quiet { pin.cid.clone() } else { format!("{} {how}", pin.cid) };
            return self.context.out.line(&line);
        }
        if self.context.args.on("stream") {
            return self.context.json(&object! { "Cid" => &pin.cid, "Type" => how });
        }
        // as one object, written as it comes
        let before = if std::mem::take(&mut self.first) { "{\"Keys\":{" } else { "," };
        let value = text::json(&object! { "Type" => how, "Name" => "" });
        let name = text::json(&Json::Text(pin.cid.clone()));
        self.context.out.text(&format!("{before}{name}:{value}"))
    }

    fn end(self) -> Result<(), Failure> {
        if !self.context.json || self.context.args.on("stream") {
            return Ok(());
        }
        self.context.out.line(if self.first { "{}" } else { "}}" })
    }
}

//! `add`, `get`, `ls`, `pin`, `gc`, and the catalogue.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use mesh_ipc::store::{AddOptions, DATA_MAX, Entry, EntryKind, PinKind, StoreRequest, StoreResponse};

use crate::adder::{self, Added, Adder, Walk};
use crate::cli::{Args, Context};
use crate::client::{self, Store};
use crate::failure::Failure;
use crate::fetch;
use crate::json::{Json, object};
use crate::out::{Out, complain};
use crate::progress::Progress;
use crate::table::{Table, clean};

fn connect(ctx: &Context) -> Result<Store, Failure> {
    client::store(&ctx.run_dir)
}

/// Everything that is named, links on the command line followed.
const ALL: Walk = Walk { recursive: true, hidden: true, follow: true, mode: false, mtime: false };

pub(crate) fn add(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    adder::look(&args.operands, true)?;
    for operand in &args.operands {
        let options = AddOptions {
            profile: args.text("--profile").unwrap_or("unixfs-v0-2015").to_owned(),
            cid_version: None,
            raw_leaves: None,
            chunk_size: None,
            only_hash: false,
            wrap: false,
            pin: true,
        };
        let total = fs::metadata(operand).ok().filter(fs::Metadata::is_file).map(|file| file.len());
        let mut added = Vec::new();
        let mut take = |one: Added, progress: &mut Progress| {
            if !ctx.json {
                // printed as it comes: nobody keeps a list of all that a wide folder has
                progress.clear();
                out.line(&format!("{} {}", one.cid, clean(&one.path)))?;
                added.clear();
            }
            added.push(one);
            Ok(())
        };
        let mut adder = Adder::begin(connect(ctx)?, options, ALL, Progress::new(true, total), &mut take)?;
        if operand == "-" {
            adder.stdin("-")?;
        } else {
            adder.path(Path::new(operand))?;
        }
        adder.end()?;
        if args.has("--publish")
            && let Some(top) = added.last()
        {
            let name = args.text("--name").unwrap_or(if top.path == "-" { &top.cid } else { &top.path });
            publish_as(ctx, args, &top.cid, name)?;
        }
        if ctx.json {
            let json =
                Json::list(&added, |a| object! { "path" => &a.path, "cid" => &a.cid, "size" => a.size });
            out.line(&json.to_string())?;
        }
    }
    Ok(())
}

fn publish_as(ctx: &Context, args: &Args, path: &str, name: &str) -> Result<(), Failure> {
    let description = args.text("--description").unwrap_or_default().to_owned();
    let request = StoreRequest::Publish { path: path.to_owned(), name: name.to_owned(), description };
    done(ctx, request)
}

/// A request that is only done.
fn done(ctx: &Context, request: StoreRequest) -> Result<(), Failure> {
    let mut store = connect(ctx)?;
    match store.request(request)? {
        StoreResponse::Done => Ok(()),
        _ => Err(store.odd()),
    }
}

pub(crate) fn publish(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let path = args.operand(0)?;
    let name = args.text("--name").unwrap_or(path);
    publish_as(ctx, args, path, name)?;
    out.line(&format!("published {}", clean(name)))
}

pub(crate) fn unpublish(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let what = args.operand(0)?;
    done(ctx, StoreRequest::Unpublish { what: what.to_owned() })?;
    out.line(&format!("{} is not published any more", clean(what)))
}

pub(crate) fn catalog(ctx: &Context, _: &Args, out: &mut Out) -> Result<(), Failure> {
    let mut store = connect(ctx)?;
    store.send(StoreRequest::Catalog)?;
    let mut all = Vec::new();
    loop {
        match store.receive()? {
            StoreResponse::Catalog(more) => all.extend(more),
            StoreResponse::Done => break,
            _ => return Err(store.odd()),
        }
    }
    let names = super::mesh::fetch_names(ctx).unwrap_or_default();
    let name_of = |node: &mesh_types::NodeId| {
        let address = node.ula_address().into();
        names.iter().find(|n| n.addresses.contains(&address)).map(|n| n.name.clone())
    };
    if ctx.json {
        let json = Json::list(&all, |p| {
            object! {
                "name" => &p.name, "description" => &p.description, "size" => p.size, "cid" => &p.cid,
                "node" => p.node, "node_name" => name_of(&p.node), "hops" => p.hops,
                "copies" => p.copies,
            }
        });
        return out.line(&json.to_string());
    }
    if all.is_empty() {
        return out.line("nobody in reach publishes anything yet; meshctl add --publish FILE does");
    }
    let mut table = Table::new(&["NAME", "SIZE", "NODE", "HOPS", "COPIES", "CID", "DESCRIPTION"]);
    for p in &all {
        let node = name_of(&p.node).unwrap_or_else(|| p.node.to_string().chars().take(12).collect());
        let hops = if p.hops == u8::MAX { "?".into() } else { p.hops.to_string() };
        let (size, copies) = (crate::table::bytes(p.size), p.copies.to_string());
        table.row([p.name.clone(), size, node, hops, copies, p.cid.clone(), p.description.clone()]);
    }
    out.text(&table.lines(""))
}

pub(crate) fn car(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    match args.operand(0)? {
        "import" => import(ctx, Path::new(&args.operand(1)?), !args.has("--no-pin"), out),
        "export" => export(ctx, args, args.operand(1)?, out),
        other => Err(Failure::Usage(format!("car {other}: write car import FILE or car export CID"))),
    }
}

fn import(ctx: &Context, path: &Path, pin: bool, out: &mut Out) -> Result<(), Failure> {
    let stdin = path == Path::new("-");
    let mut from: Box<dyn Read> = if stdin {
        Box::new(io::stdin().lock())
    } else {
        Box::new(
            File::open(path).map_err(|e| Failure::new(format!("{} can't be read: {e}", path.display())))?,
        )
    };
    let total = fs::metadata(path).ok().filter(|_| !stdin).map(|file| file.len());
    let mut progress = Progress::new(true, total);
    let mut store = connect(ctx)?;
    store.send(StoreRequest::CarBegin { pin })?;
    let bad = |e: io::Error| Failure::new(format!("{} can't be read: {e}", path.display()));
    client::read_in_parts(&mut *from, DATA_MAX, bad, &mut |part| {
        if let Err(lost) = store.send(StoreRequest::Data(part.to_vec())) {
            // the store says why before it hangs up
            return Err(store.receive().err().unwrap_or(lost));
        }
        progress.more(part.len() as u64);
        Ok(())
    })?;
    drop(progress);
    let answer = store.send(StoreRequest::CarEnd).and_then(|()| store.receive());
    let StoreResponse::Imported { roots, blocks, bytes, left_out } = answer? else { return Err(store.odd()) };
    if left_out > 0 {
        complain(&format!(
            "meshctl: {left_out} of the file's blocks are left out: only CIDs with SHA2-256 can be checked here"
        ));
    }
    if ctx.json {
        let (roots, left) = (roots.as_slice(), left_out);
        return out.line(
            &object! { "roots" => roots, "blocks" => blocks, "bytes" => bytes, "left_out" => left }
                .to_string(),
        );
    }
    roots.iter().try_for_each(|root| out.line(root))
}

fn export(ctx: &Context, args: &Args, path: &str, out: &mut Out) -> Result<(), Failure> {
    let Some(target) = args.path("--output") else {
        if io::stdout().is_terminal() {
            return Err(Failure::Usage("a CAR file is not for a terminal; write it with -o FILE".into()));
        }
        let mut progress = Progress::new(true, None);
        let request = StoreRequest::CarExport { path: path.to_owned() };
        return fetch::bytes(&mut connect(ctx)?, request, &mut progress, &mut |data| out.bytes(data));
    };
    let mut progress = Progress::new(true, None);
    fetch::whole_file(target, |file| {
        let bad = |e: io::Error| Failure::write(&target.display().to_string(), &e);
        let request = StoreRequest::CarExport { path: path.to_owned() };
        fetch::bytes(&mut connect(ctx)?, request, &mut progress, &mut |data| {
            file.write_all(data).map_err(bad)
        })
    })
}

pub(crate) fn get(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let path = args.operand(0)?;
    let mut store = connect(ctx)?;
    let entry = fetch::resolve(&mut store, path)?;
    let whole = matches!(entry.kind, Some(EntryKind::File)).then_some(entry.size);
    // on a terminal the bytes themselves are what is seen
    let wanted = args.path("--output").is_some() || !io::stdout().is_terminal();
    let mut progress = Progress::new(wanted, whole);
    match args.path("--output") {
        None if entry.kind == Some(EntryKind::Directory) => Err(Failure::new(format!(
            "{path} is a folder; write it to one with -o DIR, or look into it with meshctl ls {path}"
        ))),
        None => fetch::bytes(&mut store, fetch::cat(path), &mut progress, &mut |data| out.bytes(data)),
        Some(target) if fs::symlink_metadata(target).is_ok_and(|m| m.is_dir()) => Err(Failure::new(format!(
            "{} is a folder that is there already; name a new file or folder",
            target.display()
        ))),
        // by its path: that says more about where it may be
        Some(target) => {
            let entry = Entry { cid: path.to_owned(), ..entry };
            fetch::save(&mut store, &entry, target, false, &mut progress)
        }
    }
}

fn kind(kind: Option<&EntryKind>) -> &'static str {
    match kind {
        Some(EntryKind::File) => "file",
        Some(EntryKind::Directory) => "directory",
        Some(EntryKind::Symlink(_)) => "symlink",
        None => "unknown",
    }
}

pub(crate) fn ls(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let entries = fetch::list(&mut connect(ctx)?, args.operand(0)?)?;
    if ctx.json {
        let json = Json::list(&entries, |e| {
            object! {
                "name" => &e.name, "cid" => &e.cid, "size" => e.size, "kind" => kind(e.kind.as_ref()),
            }
        });
        return out.line(&json.to_string());
    }
    let mut table = Table::new(&["CID", "SIZE", "NAME"]);
    for e in &entries {
        let (size, slash) = match e.kind {
            Some(EntryKind::File) => (crate::table::bytes(e.size), ""),
            Some(EntryKind::Directory) => ("-".into(), "/"),
            Some(EntryKind::Symlink(_)) => ("-".into(), "@"),
            None => ("?".into(), ""),
        };
        table.row([e.cid.clone(), size, format!("{}{slash}", e.name)]);
    }
    if table.is_empty() { Ok(()) } else { out.text(&table.lines("")) }
}

pub(crate) fn pin(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let (verb, path) = (args.operand(0)?, args.operand(1)?.to_owned());
    let request = match (verb, path.is_empty()) {
        ("" | "ls", true) => return list_pins(ctx, out),
        ("add", false) => StoreRequest::PinAdd { path, recursive: true, progress: true },
        ("rm", false) => StoreRequest::PinRemove { path, recursive: true },
        ("add" | "rm", true) => return Err(Failure::Usage(format!("pin {verb} needs a CID"))),
        _ => return Err(Failure::Usage(format!("pin ls takes no operand; {path:?} is one word too many"))),
    };
    let mut store = connect(ctx)?;
    store.send(request)?;
    let pins = loop {
        match store.receive()? {
            StoreResponse::Fetched { .. } => {}
            StoreResponse::Pins(pins) => break pins,
            _ => return Err(store.odd()),
        }
    };
    let pinned = verb == "add";
    if ctx.json {
        let json = Json::list(&pins, |p| object! { "cid" => &p.cid, "pinned" => pinned });
        return out.line(&json.to_string());
    }
    pins.iter()
        .try_for_each(|p| out.line(&format!("{} {}", if pinned { "pinned" } else { "unpinned" }, p.cid)))
}

fn list_pins(ctx: &Context, out: &mut Out) -> Result<(), Failure> {
    let mut store = connect(ctx)?;
    store.send(StoreRequest::PinList { indirect: false })?;
    let mut pins = Vec::new();
    loop {
        match store.receive()? {
            StoreResponse::Pins(more) => pins.extend(more),
            StoreResponse::Done => break,
            _ => return Err(store.odd()),
        }
    }
    let kind = |k| match k {
        PinKind::Direct => "direct",
        PinKind::Recursive => "recursive",
        PinKind::Indirect => "indirect",
    };
    if ctx.json {
        let json = Json::list(&pins, |p| object! { "cid" => &p.cid, "kind" => kind(p.kind) });
        return out.line(&json.to_string());
    }
    pins.iter().try_for_each(|p| out.line(&format!("{} {}", p.cid, kind(p.kind))))
}

pub(crate) fn gc(ctx: &Context, _: &Args, out: &mut Out) -> Result<(), Failure> {
    let (blocks, bytes, _) = fetch::collect(&mut connect(ctx)?, false, &mut |_| Ok(()))?;
    if ctx.json {
        return out.line(&object! { "blocks" => blocks, "bytes" => bytes }.to_string());
    }
    out.line(&format!("removed {blocks} blocks, {} are free again", crate::table::bytes(bytes)))
}

//! `add`, `get`, `ls`, `pin`, `gc`, and the catalogue.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_ipc::store::{
    AddOptions, DATA_MAX, Entry, EntryKind, PASSED_MIN, PinKind, StoreRequest, StoreResponse,
};

use crate::cli::{Args, Context};
use crate::client::Service;
use crate::failure::Failure;
use crate::json::{Json, object};
use crate::out::Out;
use crate::progress::Progress;
use crate::table::{Table, clean};

type Store = Service<StoreRequest, StoreResponse>;

/// Content may have to be fetched over many hops before the first byte comes.
const PATIENCE: Duration = Duration::from_secs(120);
/// So many entries may be under way before an answer is waited for; more would fill the socket both ways.
const WINDOW: usize = 32;
/// Folders nest no deeper.
const MAX_DEPTH: usize = 64;

fn connect(ctx: &Context) -> Result<Store, Failure> {
    Service::connect(&ctx.run_dir, "mesh-store", PATIENCE)
}

struct Added {
    path: String,
    cid: String,
    size: u64,
}

/// An add under way.
struct Adding {
    store: Store,
    waiting: usize,
    /// Bytes of a passed file that the store has read, as it said last.
    taken: Option<u64>,
    added: Vec<Added>,
    progress: Progress,
}

pub(crate) fn add(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    // Looked at first: an add that fails half-way for a slip of the pen helps nobody.
    for path in args.operands.iter().filter(|p| *p != "-") {
        fs::symlink_metadata(path).map_err(|e| cannot_read(Path::new(path), &e))?;
    }
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
        let progress = Progress::new(true, total);
        let mut adding =
            Adding { store: connect(ctx)?, waiting: 0, taken: None, added: Vec::new(), progress };
        adding.store.send(StoreRequest::AddBegin(options))?;
        if operand == "-" {
            adding.entry("-", EntryKind::File)?;
            adding.content(&mut io::stdin().lock(), Path::new("standard input"))?;
        } else {
            let path = Path::new(operand);
            let name = fs::canonicalize(path).ok().and_then(|p| p.file_name().map(OsStr::to_owned));
            adding.tree(path, &text_name(&name.unwrap_or_else(|| "root".into()))?, 0)?;
        }
        let added = adding.end()?;
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
        } else {
            added.iter().try_for_each(|a| out.line(&format!("{} {}", a.cid, clean(&a.path))))?;
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
        "import" => import(ctx, Path::new(&args.operand(1)?), out),
        "export" => export(ctx, args, args.operand(1)?, out),
        other => Err(Failure::Usage(format!("car {other}: write car import FILE or car export CID"))),
    }
}

fn import(ctx: &Context, path: &Path, out: &mut Out) -> Result<(), Failure> {
    let stdin = path == Path::new("-");
    let mut from: Box<dyn Read> = if stdin {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|e| cannot_read(path, &e))?)
    };
    let total = fs::metadata(path).ok().filter(|_| !stdin).map(|file| file.len());
    let mut progress = Progress::new(true, total);
    let mut store = connect(ctx)?;
    store.send(StoreRequest::CarBegin { pin: true })?;
    let mut chunk = vec![0; DATA_MAX];
    loop {
        let n = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(cannot_read(path, &e)),
        };
        if let Err(lost) = store.send(StoreRequest::Data(chunk.get(..n).unwrap_or_default().to_vec())) {
            // the store says why before it hangs up
            return Err(store.receive().err().unwrap_or(lost));
        }
        progress.more(n as u64);
    }
    drop(progress);
    let answer = store.send(StoreRequest::CarEnd).and_then(|()| store.receive());
    let StoreResponse::Imported { roots, blocks, bytes } = answer? else { return Err(store.odd()) };
    if ctx.json {
        return out.line(
            &object! { "roots" => roots.as_slice(), "blocks" => blocks, "bytes" => bytes }.to_string(),
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
        return receive(ctx, request, &mut progress, &mut |data| out.bytes(data));
    };
    let mut progress = Progress::new(true, None);
    whole_file(target, |file| {
        let bad = |e: io::Error| Failure::write(&target.display().to_string(), &e);
        let request = StoreRequest::CarExport { path: path.to_owned() };
        receive(ctx, request, &mut progress, &mut |data| file.write_all(data).map_err(bad))
    })
}

impl Adding {
    fn entry(&mut self, path: &str, kind: EntryKind) -> Result<(), Failure> {
        while self.waiting >= WINDOW {
            self.answer()?;
        }
        // A folder's CID is known only at the end; it must not hold up the window.
        if kind != EntryKind::Directory {
            self.waiting += 1;
        }
        self.store.send(StoreRequest::AddEntry { path: path.to_owned(), kind })
    }

    fn content(&mut self, from: &mut dyn Read, path: &Path) -> Result<(), Failure> {
        let mut chunk = vec![0; DATA_MAX];
        loop {
            let n = match from.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(cannot_read(path, &e)),
            };
            let data = chunk.get(..n).unwrap_or_default().to_vec();
            if let Err(lost) = self.store.send(StoreRequest::Data(data)) {
                // The store says why before it hangs up.
                return Err(self.drain().err().unwrap_or(lost));
            }
            self.progress.more(n as u64);
        }
    }

    fn tree(&mut self, path: &Path, name: &str, depth: usize) -> Result<(), Failure> {
        let bad = |e: &io::Error| cannot_read(path, e);
        let kind = fs::symlink_metadata(path).map_err(|e| bad(&e))?.file_type();
        if kind.is_symlink() && depth > 0 {
            let target = fs::read_link(path).map_err(|e| bad(&e))?;
            return self.entry(name, EntryKind::Symlink(text_name(target.as_os_str())?));
        }
        // A link named on the command line means what it points to.
        if fs::metadata(path).map_err(|e| bad(&e))?.is_dir() {
            if depth >= MAX_DEPTH {
                return Err(Failure::new(format!(
                    "{}: folders nest deeper than {MAX_DEPTH}; nothing was added",
                    path.display()
                )));
            }
            self.entry(name, EntryKind::Directory)?;
            let listed: io::Result<Vec<_>> = fs::read_dir(path).map_err(|e| bad(&e))?.collect();
            let mut entries = listed.map_err(|e| bad(&e))?;
            entries.sort_by_key(fs::DirEntry::file_name);
            return entries.iter().try_for_each(|e| {
                let child = format!("{name}/{}", text_name(&e.file_name())?);
                self.tree(&e.path(), &child, depth + 1)
            });
        }
        if !fs::metadata(path).map_err(|e| bad(&e))?.is_file() {
            return Err(Failure::new(format!(
                "{} is neither a file nor a folder nor a link; nothing was added",
                path.display()
            )));
        }
        let mut file = File::open(path).map_err(|e| bad(&e))?;
        self.entry(name, EntryKind::File)?;
        let is_large = file.metadata().is_ok_and(|file| file.len() >= PASSED_MIN);
        if is_large { self.pass(&file) } else { self.content(&mut file, path) }
    }

    /// The store reads the file itself.
    fn pass(&mut self, file: &File) -> Result<(), Failure> {
        self.store.send(StoreRequest::File)?;
        self.next_taken()?;
        self.store.pass(file)?;
        loop {
            match self.next_taken()? {
                0 => return Ok(()),
                bytes => self.progress.more(bytes),
            }
        }
    }

    fn next_taken(&mut self) -> Result<u64, Failure> {
        loop {
            match self.taken.take() {
                Some(bytes) => return Ok(bytes),
                None => drop(self.answer()?),
            }
        }
    }

    /// Takes one answer; true at the end.
    fn answer(&mut self) -> Result<bool, Failure> {
        match self.store.receive()? {
            StoreResponse::Added { path, cid, size } => {
                self.waiting = self.waiting.saturating_sub(1);
                self.added.push(Added { path, cid, size });
                Ok(false)
            }
            StoreResponse::Taken(bytes) => {
                self.taken = Some(bytes);
                Ok(false)
            }
            StoreResponse::Done => Ok(true),
            _ => Err(self.store.odd()),
        }
    }

    fn drain(&mut self) -> Result<(), Failure> {
        while !self.answer()? {}
        Ok(())
    }

    fn end(mut self) -> Result<Vec<Added>, Failure> {
        self.store.send(StoreRequest::AddEnd)?;
        self.drain()?;
        Ok(self.added)
    }
}

fn cannot_read(path: &Path, e: &io::Error) -> Failure {
    Failure::new(format!("{} can't be read: {e}; nothing of it was added", path.display()))
}

fn text_name(name: &OsStr) -> Result<String, Failure> {
    let text = name.to_str();
    text.map(str::to_owned)
        .ok_or_else(|| Failure::new(format!("the name {name:?} is not UTF-8; rename it first")))
}

pub(crate) fn get(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let path = args.operand(0)?;
    let entry = resolve(ctx, path)?;
    let whole = matches!(entry.kind, Some(EntryKind::File)).then_some(entry.size);
    // on a terminal the bytes themselves are what is seen
    let wanted = args.path("--output").is_some() || !io::stdout().is_terminal();
    let mut progress = Progress::new(wanted, whole);
    let kind = entry.kind;
    match (args.path("--output"), kind) {
        (None, Some(EntryKind::Directory)) => Err(Failure::new(format!(
            "{path} is a folder; write it to one with -o DIR, or look into it with meshctl ls {path}"
        ))),
        (None, _) => cat(ctx, path, &mut progress, &mut |data| out.bytes(data)),
        (Some(target), _) if fs::symlink_metadata(target).is_ok_and(|m| m.is_dir()) => Err(Failure::new(
            format!("{} is a folder that is there already; name a new file or folder", target.display()),
        )),
        (Some(target), kind) => save(ctx, path, kind, target, &mut progress, 0),
    }
}

/// What a path leads to.
fn resolve(ctx: &Context, path: &str) -> Result<Entry, Failure> {
    let mut store = connect(ctx)?;
    let answer = store.request(StoreRequest::Resolve { path: path.to_owned() })?;
    let StoreResponse::Entries(entries) = answer else { return Err(store.odd()) };
    entries.into_iter().next().ok_or_else(|| store.odd())
}

fn cat(
    ctx: &Context,
    path: &str,
    progress: &mut Progress,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let request = StoreRequest::Cat { path: path.to_owned(), offset: 0, length: None };
    receive(ctx, request, progress, take)
}

/// Takes all bytes that a request brings.
fn receive(
    ctx: &Context,
    request: StoreRequest,
    progress: &mut Progress,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut store = connect(ctx)?;
    store.send(request)?;
    loop {
        match store.receive()? {
            StoreResponse::Data(data) => {
                take(&data)?;
                progress.more(data.len() as u64);
            }
            StoreResponse::Done => return Ok(()),
            _ => return Err(store.odd()),
        }
    }
}

/// Fetches a file, folder or link to `target`.
fn save(
    ctx: &Context,
    path: &str,
    kind: Option<EntryKind>,
    target: &Path,
    progress: &mut Progress,
    depth: usize,
) -> Result<(), Failure> {
    match kind {
        Some(EntryKind::Directory) => save_folder(ctx, path, target, progress, depth),
        Some(EntryKind::Symlink(to)) => std::os::unix::fs::symlink(to, target)
            .map_err(|e| Failure::write(&target.display().to_string(), &e)),
        Some(EntryKind::File) | None => save_file(ctx, path, target, progress),
    }
}

/// Fetches a file to `target`, which appears when it is whole.
fn save_file(ctx: &Context, path: &str, target: &Path, progress: &mut Progress) -> Result<(), Failure> {
    whole_file(target, |file| {
        let bad = |e: io::Error| Failure::write(&target.display().to_string(), &e);
        cat(ctx, path, progress, &mut |data| file.write_all(data).map_err(bad))
    })
}

/// A file that appears at `target` when `write` has done all of it.
fn whole_file(target: &Path, write: impl FnOnce(&mut File) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut beside = target.as_os_str().to_owned();
    beside.push(format!(".part{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let bad = |e: io::Error| Failure::write(&target.display().to_string(), &e);
    let mut file = File::create_new(&beside).map_err(bad)?;
    let result = write(&mut file).and_then(|()| fs::rename(&beside, target).map_err(bad));
    if result.is_err() {
        let _ = fs::remove_file(&beside);
    }
    result
}

fn save_folder(
    ctx: &Context,
    path: &str,
    target: &Path,
    progress: &mut Progress,
    depth: usize,
) -> Result<(), Failure> {
    if depth >= MAX_DEPTH {
        return Err(Failure::new(format!(
            "{path}: folders nest deeper than {MAX_DEPTH}; the rest was not fetched"
        )));
    }
    let entries = list(ctx, path)?;
    fs::create_dir(target).map_err(|e| Failure::write(&target.display().to_string(), &e))?;
    for entry in entries {
        // The names come from whoever made the content.
        if entry.name.is_empty()
            || entry.name == "."
            || entry.name == ".."
            || entry.name.contains(['/', '\0'])
        {
            return Err(Failure::new(format!(
                "{path} has an entry {:?}, which is no file name; it was not written",
                entry.name
            )));
        }
        save(ctx, &entry.cid, entry.kind, &target.join(&entry.name), progress, depth + 1)?;
    }
    Ok(())
}

fn list(ctx: &Context, path: &str) -> Result<Vec<Entry>, Failure> {
    let mut store = connect(ctx)?;
    store.send(StoreRequest::Ls { path: path.to_owned() })?;
    let mut entries = Vec::new();
    loop {
        match store.receive()? {
            StoreResponse::Entries(more) => entries.extend(more),
            StoreResponse::Done => return Ok(entries),
            _ => return Err(store.odd()),
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
    let entries = list(ctx, args.operand(0)?)?;
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
        ("add", false) => StoreRequest::PinAdd { path, recursive: true },
        ("rm", false) => StoreRequest::PinRemove { path },
        ("add" | "rm", true) => return Err(Failure::Usage(format!("pin {verb} needs a CID"))),
        _ => return Err(Failure::Usage(format!("pin ls takes no operand; {path:?} is one word too many"))),
    };
    let mut store = connect(ctx)?;
    let StoreResponse::Pins(pins) = store.request(request)? else { return Err(store.odd()) };
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
    let mut store = connect(ctx)?;
    let StoreResponse::Collected { blocks, bytes } = store.request(StoreRequest::Gc)? else {
        return Err(store.odd());
    };
    if ctx.json {
        return out.line(&object! { "blocks" => blocks, "bytes" => bytes }.to_string());
    }
    out.line(&format!("removed {blocks} blocks, {} are free again", crate::table::bytes(bytes)))
}

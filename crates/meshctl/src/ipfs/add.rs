//! `ipfs add`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mesh_ipc::store::{AddOptions, DATA_MAX, EntryKind, PASSED_MIN, StoreRequest, StoreResponse};

use super::args::{Args, Flag};
use super::tab::shown;
use super::{Context, Store};
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
    Flag { name: "hidden", short: "H", value: None, help: "also files whose name begins with a dot" },
    Flag { name: "preserve-mode", short: "", value: None, help: "keep permissions; they change the CIDs" },
    Flag {
        name: "preserve-mtime",
        short: "",
        value: None,
        help: "keep times of change; they change the CIDs",
    },
    Flag { name: "stdin-name", short: "", value: Some("NAME"), help: "name of standard input's file" },
];

/// So many entries may be under way before an answer is waited for; more would fill the socket both ways.
const WINDOW: usize = 32;
/// Folders nest no deeper.
const MAX_DEPTH: usize = 100;

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

/// An add under way.
struct Adding<'a> {
    context: &'a mut Context,
    store: Store,
    recursive: bool,
    hidden: bool,
    waiting: usize,
    /// Bytes of a passed file that the store has read, as it said last.
    taken: Option<u64>,
    /// Folders are shown after everything else, as kubo does.
    folders: Vec<(String, String)>,
    is_folder: std::collections::BTreeSet<String>,
    last: Option<String>,
    progress: Progress,
}

pub(super) fn run(context: &mut Context) -> Result<(), Failure> {
    let options = options(&context.args)?;
    let operands = context.args.operands.clone();
    // looked at first: an add that fails half-way for a slip of the pen helps nobody
    let recursive = context.args.on("recursive");
    for path in operands.iter().filter(|p| *p != "-") {
        let kind = fs::symlink_metadata(path).map_err(|e| cannot_read(Path::new(path), &e))?;
        if kind.is_dir() && !recursive {
            return Err(Failure::new(format!(
                "{path:?} is a directory, use the '-r' flag to specify directories"
            )));
        }
    }
    let mut store = context.store()?;
    store.send(StoreRequest::AddBegin(options))?;
    let hidden = context.args.on("hidden");
    let wanted = context.args.switch("progress").unwrap_or(!context.args.on("silent"));
    let mut progress = Progress::new(wanted, None);
    if progress.is_shown() && !operands.iter().any(|path| path == "-") && !operands.is_empty() {
        progress.set_total(Some(operands.iter().map(|path| size_of(Path::new(path), hidden, 0)).sum()));
    }
    let stdin_name = context.args.text("stdin-name").unwrap_or("").to_owned();
    let mut adding = Adding {
        context,
        store,
        recursive,
        hidden,
        waiting: 0,
        taken: None,
        folders: Vec::new(),
        is_folder: std::collections::BTreeSet::new(),
        last: None,
        progress,
    };
    if operands.is_empty() {
        adding.stdin(&stdin_name)?;
    }
    for operand in &operands {
        if operand == "-" {
            adding.stdin(&stdin_name)?;
        } else {
            let path = Path::new(operand);
            adding.tree(path, &base_name(path)?, 0)?;
        }
    }
    adding.end()
}

/// Bytes of the files below `path`, as far as they can be seen.
fn size_of(path: &Path, hidden: bool, depth: usize) -> u64 {
    let Ok(kind) = fs::symlink_metadata(path) else { return 0 };
    if !kind.is_dir() || depth >= MAX_DEPTH {
        return if kind.is_file() { kind.len() } else { 0 };
    }
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let wanted = |name: &OsStr| hidden || !name.as_encoded_bytes().starts_with(b".");
    let entries = entries.flatten().filter(|entry| wanted(&entry.file_name()));
    entries.map(|entry| size_of(&entry.path(), hidden, depth + 1)).sum()
}

/// The name a path is added under: its last part, for `.` and `..` that of the folder meant.
fn base_name(path: &Path) -> Result<String, Failure> {
    let name = match path.file_name() {
        Some(name) => name.to_owned(),
        None => {
            let whole = fs::canonicalize(path).map_err(|e| cannot_read(path, &e))?;
            whole.file_name().unwrap_or(OsStr::new("root")).to_owned()
        }
    };
    text_name(&name)
}

impl Adding<'_> {
    fn stdin(&mut self, name: &str) -> Result<(), Failure> {
        self.entry(name, EntryKind::File)?;
        self.content(&mut io::stdin().lock(), Path::new("standard input"))
    }

    fn entry(&mut self, path: &str, kind: EntryKind) -> Result<(), Failure> {
        while self.waiting >= WINDOW {
            self.answer()?;
        }
        if kind == EntryKind::Directory {
            // its CID is known only at the end; it must not hold up the window
            self.is_folder.insert(path.to_owned());
        } else {
            self.waiting += 1;
        }
        self.send(StoreRequest::AddEntry { path: path.to_owned(), kind })
    }

    /// Sends a request; if the store has hung up, says why it did.
    fn send(&mut self, request: StoreRequest) -> Result<(), Failure> {
        match self.store.send(request) {
            Ok(()) => Ok(()),
            Err(lost) => loop {
                match self.answer() {
                    Ok(_) => {}
                    Err(Failure::Failed(why)) if !why.contains("mesh-store") => {
                        return Err(Failure::Failed(why));
                    }
                    Err(_) => return Err(lost),
                }
            },
        }
    }

    fn content(&mut self, from: &mut dyn Read, path: &Path) -> Result<(), Failure> {
        let mut chunk = vec![0; DATA_MAX];
        loop {
            match from.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    self.send(StoreRequest::Data(chunk.get(..n).unwrap_or_default().to_vec()))?;
                    self.progress.more(n as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(cannot_read(path, &e)),
            }
        }
    }

    /// The store reads the file itself.
    fn pass(&mut self, file: &File) -> Result<(), Failure> {
        self.send(StoreRequest::File)?;
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

    /// Announces mode and time of the next entry, as far as they are to be kept. A symlink has no mode of its own.
    fn meta(&mut self, of: &fs::Metadata) -> Result<(), Failure> {
        let (mode, mtime) = (self.context.args.on("preserve-mode"), self.context.args.on("preserve-mtime"));
        if !mode && !mtime {
            return Ok(());
        }
        self.send(StoreRequest::Meta {
            mode: (mode && !of.is_symlink()).then(|| of.mode() & 0o7777),
            mtime: mtime.then(|| (of.mtime(), of.mtime_nsec() as u32)),
        })
    }

    fn tree(&mut self, path: &Path, name: &str, depth: usize) -> Result<(), Failure> {
        let bad = |e: io::Error| cannot_read(path, &e);
        let metadata = fs::symlink_metadata(path).map_err(bad)?;
        let kind = metadata.file_type();
        if kind.is_symlink() {
            let target = fs::read_link(path).map_err(bad)?;
            self.meta(&metadata)?;
            return self.entry(name, EntryKind::Symlink(text_name(target.as_os_str())?));
        }
        if kind.is_file() {
            let mut file = File::open(path).map_err(bad)?;
            self.meta(&metadata)?;
            self.entry(name, EntryKind::File)?;
            return if metadata.len() >= PASSED_MIN {
                self.pass(&file)
            } else {
                self.content(&mut file, path)
            };
        }
        if !kind.is_dir() {
            return Err(Failure::new(format!("{}: unrecognized file type", path.display())));
        }
        if depth >= MAX_DEPTH || !self.recursive {
            return Err(Failure::new(format!("{}: folders nest too deeply", path.display())));
        }
        self.meta(&metadata)?;
        self.entry(name, EntryKind::Directory)?;
        let mut names: Vec<_> = fs::read_dir(path)
            .and_then(|entries| entries.map(|e| e.map(|e| e.file_name())).collect::<io::Result<_>>())
            .map_err(bad)?;
        names.sort();
        for child in names {
            let child_name = text_name(&child)?;
            if self.hidden || !child_name.starts_with('.') {
                self.tree(&path.join(&child), &format!("{name}/{child_name}"), depth + 1)?;
            }
        }
        Ok(())
    }

    /// Takes one answer; true at the end.
    fn answer(&mut self) -> Result<bool, Failure> {
        match self.store.receive()? {
            StoreResponse::Added { path, cid, .. } => {
                if self.is_folder.contains(&path) || (path.is_empty() && self.waiting == 0) {
                    self.folders.push((path, cid));
                } else {
                    self.waiting = self.waiting.saturating_sub(1);
                    let name = if path.is_empty() { cid.clone() } else { path };
                    self.show(&name, &cid)?;
                }
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

    fn show(&mut self, name: &str, cid: &str) -> Result<(), Failure> {
        self.last = Some(cid.to_owned());
        self.progress.clear();
        let args = &self.context.args;
        if args.on("quieter") || args.on("silent") {
            Ok(())
        } else if args.on("quiet") {
            self.context.out.line(cid)
        } else {
            self.context.out.line(&format!("added {cid} {}", shown(name)))
        }
    }

    fn end(mut self) -> Result<(), Failure> {
        self.send(StoreRequest::AddEnd)?;
        while !self.answer()? {}
        for (name, cid) in std::mem::take(&mut self.folders) {
            self.show(&name, &cid)?;
        }
        match self.last.take() {
            Some(cid) if self.context.args.on("quieter") && !self.context.args.on("silent") => {
                self.context.out.line(&cid)
            }
            _ => Ok(()),
        }
    }
}

fn cannot_read(path: &Path, e: &io::Error) -> Failure {
    Failure::new(format!("{} can't be read: {e}; nothing was added", path.display()))
}

fn text_name(name: &OsStr) -> Result<String, Failure> {
    let text = name.to_str();
    text.map(str::to_owned)
        .ok_or_else(|| Failure::new(format!("the name {name:?} is not UTF-8; rename it first")))
}

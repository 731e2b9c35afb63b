//! Files and folders on their way into the store: the walk over them, and the conversation with mesh-store about it
//! ([`mesh_ipc::store`]). `meshctl add` and `ipfs add` differ in what they take along and in what they print.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mesh_ipc::store::{AddOptions, DATA_MAX, EntryKind, PASSED_MIN, StoreRequest, StoreResponse};

use crate::client::{Store, read_in_parts};
use crate::failure::Failure;
use crate::progress::Progress;

/// So many entries may be under way before an answer is waited for; more would fill the socket both ways.
const WINDOW: usize = 32;
/// Folders nest no deeper.
const MAX_DEPTH: usize = 100;

/// What is taken along.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    /// Folders with all that is in them.
    pub(crate) recursive: bool,
    /// In folders also what begins with a dot.
    pub(crate) hidden: bool,
    /// A link that is named itself means what it points to.
    pub(crate) follow: bool,
    /// Permissions; they change the CIDs.
    pub(crate) mode: bool,
    /// Times of change; they change the CIDs.
    pub(crate) mtime: bool,
}

/// What has its CID.
#[derive(Debug)]
pub(crate) struct Added {
    /// As it was announced; empty for the wrapping folder.
    pub(crate) path: String,
    pub(crate) cid: String,
    pub(crate) size: u64,
    pub(crate) is_folder: bool,
}

/// Gets what was added as its CID is known: files at once, folders behind all that is in them.
type Take<'a> = dyn FnMut(Added, &mut Progress) -> Result<(), Failure> + 'a;

/// An add under way.
pub(crate) struct Adder<'a> {
    store: Store,
    walk: Walk,
    /// Files and links without an answer yet.
    waiting: usize,
    /// Bytes of a passed file that the store has read, as it said last.
    taken: Option<u64>,
    /// Folders without an answer yet.
    folders: BTreeSet<String>,
    progress: Progress,
    take: &'a mut Take<'a>,
}

impl<'a> Adder<'a> {
    pub(crate) fn begin(
        mut store: Store,
        options: AddOptions,
        walk: Walk,
        progress: Progress,
        take: &'a mut Take<'a>,
    ) -> Result<Self, Failure> {
        store.send(StoreRequest::AddBegin(options))?;
        Ok(Self { store, walk, waiting: 0, taken: None, folders: BTreeSet::new(), progress, take })
    }

    /// Adds standard input under `name`.
    pub(crate) fn stdin(&mut self, name: &str) -> Result<(), Failure> {
        self.entry(name, EntryKind::File)?;
        self.content(&mut io::stdin().lock(), Path::new("standard input"))
    }

    /// Adds what `path` names.
    pub(crate) fn path(&mut self, path: &Path) -> Result<(), Failure> {
        let metadata = if self.walk.follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
        self.tree(path, &base_name(path)?, &metadata.map_err(|e| cannot_read(path, &e))?, 0)
    }

    /// Ends it: everything is on the medium when this returns.
    pub(crate) fn end(mut self) -> Result<(), Failure> {
        self.send(StoreRequest::AddEnd)?;
        while !self.answer()? {}
        Ok(())
    }

    fn tree(&mut self, path: &Path, name: &str, what: &fs::Metadata, depth: usize) -> Result<(), Failure> {
        let bad = |e: io::Error| cannot_read(path, &e);
        if what.is_symlink() {
            let target = fs::read_link(path).map_err(bad)?;
            self.meta(what)?;
            return self.entry(name, EntryKind::Symlink(text_name(target.as_os_str())?));
        }
        if what.is_file() {
            let mut file = File::open(path).map_err(bad)?;
            self.meta(what)?;
            self.entry(name, EntryKind::File)?;
            return if what.len() >= PASSED_MIN { self.pass(&file) } else { self.content(&mut file, path) };
        }
        let path_shown = path.display();
        if !what.is_dir() {
            return Err(Failure::new(format!(
                "{path_shown} is neither a file nor a folder nor a link; nothing was added"
            )));
        }
        if !self.walk.recursive {
            return Err(needs_recursive(path));
        }
        if depth >= MAX_DEPTH {
            let why = format!("{path_shown}: folders nest deeper than {MAX_DEPTH}; nothing was added");
            return Err(Failure::new(why));
        }
        self.meta(what)?;
        self.entry(name, EntryKind::Directory)?;
        let names = fs::read_dir(path).and_then(|all| all.map(|e| e.map(|e| e.file_name())).collect());
        let mut names: Vec<_> = names.map_err(bad)?;
        names.retain(|child| self.walk.hidden || !is_hidden(child));
        names.sort_unstable();
        for child in &names {
            let (below, child_name) = (path.join(child), format!("{name}/{}", text_name(child)?));
            let metadata = fs::symlink_metadata(&below).map_err(|e| cannot_read(&below, &e))?;
            self.tree(&below, &child_name, &metadata, depth + 1)?;
        }
        Ok(())
    }

    /// Announces an entry.
    fn entry(&mut self, path: &str, kind: EntryKind) -> Result<(), Failure> {
        while self.waiting >= WINDOW {
            self.answer()?;
        }
        if kind == EntryKind::Directory {
            // its CID is known only at the end; it must not hold up the window
            self.folders.insert(path.to_owned());
        } else {
            self.waiting += 1;
        }
        self.send(StoreRequest::AddEntry { path: path.to_owned(), kind })
    }

    /// Announces mode and time of the next entry, as far as they are to be kept. A symlink has no mode of its own.
    fn meta(&mut self, of: &fs::Metadata) -> Result<(), Failure> {
        if !self.walk.mode && !self.walk.mtime {
            return Ok(());
        }
        self.send(StoreRequest::Meta {
            mode: (self.walk.mode && !of.is_symlink()).then(|| of.mode() & 0o7777),
            mtime: self.walk.mtime.then(|| (of.mtime(), of.mtime_nsec() as u32)),
        })
    }

    fn content(&mut self, from: &mut dyn Read, path: &Path) -> Result<(), Failure> {
        let bad = |e: io::Error| cannot_read(path, &e);
        read_in_parts(from, DATA_MAX, bad, &mut |part| {
            self.send(StoreRequest::Data(part.to_vec()))?;
            self.progress.more(part.len() as u64);
            Ok(())
        })
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

    /// Sends a request; if the store has hung up, says why it did.
    fn send(&mut self, request: StoreRequest) -> Result<(), Failure> {
        let Err(lost) = self.store.send(request) else { return Ok(()) };
        loop {
            match self.answer() {
                Ok(_) => {}
                Err(Failure::Failed(why)) if !why.contains("mesh-store") => return Err(Failure::Failed(why)),
                Err(_) => return Err(lost),
            }
        }
    }

    /// Takes one answer; true at the end.
    fn answer(&mut self) -> Result<bool, Failure> {
        match self.store.receive()? {
            StoreResponse::Added { path, cid, size } => {
                // nothing but the wrapping folder is answered without having been announced
                let is_folder = self.folders.remove(&path) || (path.is_empty() && self.waiting == 0);
                if !is_folder {
                    self.waiting = self.waiting.saturating_sub(1);
                }
                (self.take)(Added { path, cid, size, is_folder }, &mut self.progress)?;
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
}

/// Looks at all paths but `-`: an add that fails half-way for a slip of the pen helps nobody.
pub(crate) fn look(paths: &[impl AsRef<OsStr>], recursive: bool) -> Result<(), Failure> {
    for path in paths.iter().map(|path| Path::new(path.as_ref())).filter(|path| *path != Path::new("-")) {
        let what = fs::symlink_metadata(path).map_err(|e| cannot_read(path, &e))?;
        if what.is_dir() && !recursive {
            return Err(needs_recursive(path));
        }
    }
    Ok(())
}

/// Bytes of the files below `path`, as far as they can be seen.
pub(crate) fn size_of(path: &Path, hidden: bool) -> u64 {
    size_below(path, hidden, 0)
}

fn size_below(path: &Path, hidden: bool, depth: usize) -> u64 {
    let Ok(what) = fs::symlink_metadata(path) else { return 0 };
    if !what.is_dir() || depth >= MAX_DEPTH {
        return if what.is_file() { what.len() } else { 0 };
    }
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let entries = entries.flatten().filter(|entry| hidden || !is_hidden(&entry.file_name()));
    entries.map(|entry| size_below(&entry.path(), hidden, depth + 1)).sum()
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
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

fn text_name(name: &OsStr) -> Result<String, Failure> {
    let text = name.to_str();
    text.map(str::to_owned)
        .ok_or_else(|| Failure::new(format!("the name {name:?} is not UTF-8; rename it first")))
}

fn needs_recursive(path: &Path) -> Failure {
    Failure::new(format!("'{}' is a directory, use the '-r' flag to specify directories", path.display()))
}

fn cannot_read(path: &Path, e: &io::Error) -> Failure {
    Failure::new(format!("{} can't be read: {e}; nothing was added", path.display()))
}

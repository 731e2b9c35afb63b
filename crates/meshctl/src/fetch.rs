//! Content on its way out of the store: bytes, lists, files and folders that are saved, and what is dropped.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mesh_ipc::store::{Entry, EntryKind, StoreRequest, StoreResponse};

use crate::client::Store;
use crate::failure::Failure;
use crate::progress::Progress;

/// Folders nest no deeper.
const MAX_DEPTH: usize = 100;

/// Takes all bytes that a request brings.
pub(crate) fn bytes(
    store: &mut Store,
    request: StoreRequest,
    progress: &mut Progress,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
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

/// All bytes of a file.
pub(crate) fn cat(path: &str) -> StoreRequest {
    StoreRequest::Cat { path: path.to_owned(), offset: 0, length: None }
}

/// What a path leads to.
pub(crate) fn resolve(store: &mut Store, path: &str) -> Result<Entry, Failure> {
    let answer = store.request(StoreRequest::Resolve { path: path.to_owned() })?;
    let StoreResponse::Entries(entries) = answer else { return Err(store.odd()) };
    entries.into_iter().next().ok_or_else(|| store.odd())
}

/// The entries of a folder, by name.
pub(crate) fn list(store: &mut Store, path: &str) -> Result<Vec<Entry>, Failure> {
    store.send(StoreRequest::Ls { path: path.to_owned() })?;
    let mut entries = Vec::new();
    loop {
        match store.receive()? {
            StoreResponse::Entries(more) => entries.extend(more),
            StoreResponse::Done => break,
            _ => return Err(store.odd()),
        }
    }
    // parts of a file have no names, and an order
    entries.sort_by(|a: &Entry, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Saves an entry at `target`. A file that is there is replaced; a folder that is there is filled up if `fill`, else it
/// is an error.
pub(crate) fn save(
    store: &mut Store,
    entry: &Entry,
    target: &Path,
    fill: bool,
    progress: &mut Progress,
) -> Result<(), Failure> {
    save_below(store, entry, target, fill, progress, 0)
}

fn save_below(
    store: &mut Store,
    entry: &Entry,
    target: &Path,
    fill: bool,
    progress: &mut Progress,
    depth: usize,
) -> Result<(), Failure> {
    let bad = |e: io::Error| Failure::write(&target.display().to_string(), &e);
    match &entry.kind {
        Some(EntryKind::Directory) => {
            if depth >= MAX_DEPTH {
                let target = target.display();
                let why = format!("{target}: folders nest deeper than {MAX_DEPTH}; the rest was not fetched");
                return Err(Failure::new(why));
            }
            if !(fill && fs::symlink_metadata(target).is_ok_and(|there| there.is_dir())) {
                fs::create_dir(target).map_err(bad)?;
            }
            for child in list(store, &entry.cid)? {
                let below = target.join(file_name(&entry.cid, &child.name)?);
                save_below(store, &child, &below, fill, progress, depth + 1)?;
            }
            Ok(())
        }
        Some(EntryKind::Symlink(to)) => std::os::unix::fs::symlink(to, target).map_err(bad),
        Some(EntryKind::File) => whole_file(target, |file| {
            bytes(store, cat(&entry.cid), progress, &mut |data| file.write_all(data).map_err(bad))
        }),
        None => Err(Failure::new(format!("{} can't be fetched: no node in reach has it", entry.cid))),
    }
}

/// The names come from whoever made the content.
fn file_name<'a>(folder: &str, name: &'a str) -> Result<&'a str, Failure> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        let why = format!("{folder} has an entry {name:?}, which is no file name; it was not written");
        return Err(Failure::new(why));
    }
    Ok(name)
}

/// A file that appears at `target` when `write` has done all of it; a link at its place is replaced, not followed.
pub(crate) fn whole_file(
    target: &Path,
    write: impl FnOnce(&mut File) -> Result<(), Failure>,
) -> Result<(), Failure> {
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

/// Collects garbage; `take` gets the CIDs of what is dropped, if they are to be listed. How many blocks were dropped, how
/// many bytes that gave back, and how many blocks could not be named.
pub(crate) fn collect(
    store: &mut Store,
    list: bool,
    take: &mut dyn FnMut(String) -> Result<(), Failure>,
) -> Result<(u64, u64, u64), Failure> {
    store.send(StoreRequest::Gc { list })?;
    loop {
        match store.receive()? {
            StoreResponse::Refs(cids) => cids.into_iter().try_for_each(&mut *take)?,
            StoreResponse::Collected { blocks, bytes, unnamed } => return Ok((blocks, bytes, unnamed)),
            _ => return Err(store.odd()),
        }
    }
}

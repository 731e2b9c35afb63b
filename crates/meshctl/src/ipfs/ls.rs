//! `ipfs ls`.

use std::time::SystemTime;

use mesh_ipc::store::{Entry, EntryKind, StoreRequest, StoreResponse};

use super::Context;
use super::args::{Args, Flag};
use super::text;
use crate::client::{self, Store};
use crate::failure::Failure;
use crate::fetch;

pub(super) const FLAGS: &[Flag] = &[
    Flag { name: "headers", short: "v", value: None, help: "print a head line" },
    Flag { name: "size", short: "", value: None, help: "print sizes (default true)" },
    Flag { name: "long", short: "l", value: None, help: "also mode and time, where the content has them" },
    Flag { name: "human", short: "H", value: None, help: "sizes for people" },
    Flag { name: "sort-size", short: "S", value: None, help: "the largest first" },
    Flag { name: "stream", short: "s", value: None, help: "print entries as they come, without sorting" },
    Flag { name: "resolve-type", short: "", value: None, help: "accepted; types are always shown" },
];

/// Characters of a column where the next rows are not known yet.
const STREAMED: usize = 10;

/// How a list is written.
struct Style {
    headers: bool,
    sizes: bool,
    long: bool,
    human: bool,
    now: i64,
}

pub(super) fn run(context: &mut Context) -> Result<(), Failure> {
    let Context { args, out, run_dir, .. } = context;
    let style = Style::of(args);
    let (stream, by_size) = (args.on("stream"), args.on("sort-size"));
    if by_size && stream {
        return Err(Failure::new("cannot use --sort-size with --stream"));
    }
    if by_size && !style.sizes {
        return Err(Failure::new("cannot use --sort-size with --size=false"));
    }
    let paths = args.some_operands("ipfs-path")?;
    let mut store = client::store(run_dir)?;
    for (at, path) in paths.iter().enumerate() {
        let head: Vec<Vec<String>> = style.head().into_iter().collect();
        if stream {
            title(&mut |line| out.line(line), &paths, at)?;
            out.text(&text::columns(&head, STREAMED))?;
            each(&mut store, path, &mut |entry| out.text(&text::columns(&[style.row(&entry)], STREAMED)))?;
            continue;
        }
        let mut entries = fetch::list(&mut store, path)?;
        if by_size {
            entries.sort_by_key(|entry| std::cmp::Reverse(size_of(entry)));
        }
        // an error comes before anything of this folder is printed
        title(&mut |line| out.line(line), &paths, at)?;
        let rows: Vec<_> = head.into_iter().chain(entries.iter().map(|entry| style.row(entry))).collect();
        out.text(&text::columns(&rows, 1))?;
    }
    Ok(())
}

/// The line before a folder, if there are several.
fn title(
    line: &mut dyn FnMut(&str) -> Result<(), Failure>,
    paths: &[String],
    at: usize,
) -> Result<(), Failure> {
    let Some(path) = paths.get(at).filter(|_| paths.len() > 1) else { return Ok(()) };
    if at > 0 {
        line("")?;
    }
    line(&format!("{path}:"))
}

fn each(
    store: &mut Store,
    path: &str,
    take: &mut dyn FnMut(Entry) -> Result<(), Failure>,
) -> Result<(), Failure> {
    store.send(StoreRequest::Ls { path: path.to_owned() })?;
    loop {
        match store.receive()? {
            StoreResponse::Entries(more) => more.into_iter().try_for_each(&mut *take)?,
            StoreResponse::Done => return Ok(()),
            _ => return Err(store.odd()),
        }
    }
}

/// A symlink is as long as its target.
fn size_of(entry: &Entry) -> u64 {
    match &entry.kind {
        Some(EntryKind::Symlink(target)) => target.len() as u64,
        _ => entry.size,
    }
}

impl Style {
    fn of(args: &Args) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            headers: args.on("headers"),
            sizes: args.switch("size").unwrap_or(true),
            long: args.on("long"),
            human: args.on("human"),
            now: i64::try_from(now.as_secs()).unwrap_or(0),
        }
    }

    fn cells(&self, [mode, cid, size, time, name]: [String; 5]) -> Vec<String> {
        let mut cells = vec![cid];
        if self.sizes {
            cells.push(size);
        }
        if self.long {
            cells.insert(0, mode);
            cells.push(time);
        }
        cells.push(name);
        cells
    }

    fn head(&self) -> Option<Vec<String>> {
        let head = ["Mode", "Hash", "Size", "ModTime", "Name"].map(str::to_owned);
        self.headers.then(|| self.cells(head))
    }

    fn row(&self, entry: &Entry) -> Vec<String> {
        let (letter, slash) = match entry.kind {
            Some(EntryKind::Directory) => ('d', "/"),
            Some(EntryKind::Symlink(_)) => ('l', ""),
            _ => ('-', ""),
        };
        let size = match size_of(entry) {
            _ if letter == 'd' => "-".to_owned(),
            bytes if self.human => text::size(bytes),
            bytes => bytes.to_string(),
        };
        self.cells([
            text::mode(entry.mode, letter),
            entry.cid.clone(),
            size,
            text::time(entry.mtime.map(|(seconds, _)| seconds), self.now),
            format!("{}{slash}", text::shown(&entry.name)),
        ])
    }
}

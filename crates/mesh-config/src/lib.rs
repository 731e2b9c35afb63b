//! `p2pmesh.toml` into valid types (level 3).
//!
//! The file lies on the card's FAT partition and is edited by hand, often on Windows: a byte-order
//! mark, CRLF and even UTF-16 are read. Every mistake becomes a [`Problem`] with line, column, key,
//! meaning and advice; the statement it stands in is ignored and **the rest of the file still counts**.
//!
//! Where to look: `parse.rs` cuts bytes into statements, `keys.rs` is the one table of keys, `types.rs`
//! holds what they become; `services.rs` reads the files of services to announce. To add a key: a field in `types.rs`, a row and a function in `keys.rs`.

mod keys;
mod parse;
mod problem;
pub mod services;
mod types;
pub mod workshop;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

pub use keys::{KEYS, Key};
pub use problem::Problem;
pub use types::{
    Ap, Channel, Config, Console, Country, DEFAULT_AP_PASSWORD, DEFAULT_MESH_ID, Ethernet, EthernetRole,
    Gateway, Mesh, Reset, Router, Secret, Ssh, Store, Update, UpdateAuto, Workshop,
};

/// Where the file is on a node.
pub const DEFAULT_PATH: &str = "/boot/p2pmesh.toml";
/// The longest file that is read, in bytes. A longer one is refused as a whole.
pub const MAX_BYTES: usize = 64 * 1024;
/// After that many problems the rest of the file is not looked at.
pub const MAX_PROBLEMS: usize = 50;

/// A configuration and what was wrong with the file it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The valid part of the file; defaults for the rest.
    pub config: Config,
    /// Everything that was ignored, in the file's order.
    pub problems: Vec<Problem>,
    /// Old names of keys that were understood, in the file's order.
    pub notes: Vec<Problem>,
    /// Nothing in the file could be used (not text, too long, unreadable): the configuration is all
    /// defaults, unless it came from the last good copy.
    pub hopeless: bool,
    /// The file the configuration came from; `None` if there was none.
    pub source: Option<PathBuf>,
    /// Where each key stands that counts, from 1.
    lines: Vec<(String, u32)>,
}

impl Loaded {
    /// The line of a key, as `mesh.channel`, from 1; `None` if it is not in the file.
    pub fn line_of(&self, key: &str) -> Option<u32> {
        self.lines.iter().find(|(k, _)| k == key).map(|(_, line)| *line)
    }

    /// Each problem as one line, with the file's name before it.
    pub fn problem_lines(&self, path: &Path) -> Vec<String> {
        self.problems.iter().map(|p| format!("{}: {p}", path.display())).collect()
    }

    /// The same for [`Loaded::notes`].
    pub fn note_lines(&self, path: &Path) -> Vec<String> {
        self.notes.iter().map(|p| format!("{}: {p}", path.display())).collect()
    }
}

/// Reads a configuration from the bytes of a file. Never fails: what can't be used is in the problems.
pub fn parse(bytes: &[u8]) -> Loaded {
    let mut problems = Vec::new();
    let mut config = Config::default();
    let text = match parse::decode(bytes, &mut problems) {
        Ok(text) => text,
        Err(problem) => {
            let (problems, lines, notes) = (vec![problem], Vec::new(), Vec::new());
            return Loaded { config, problems, notes, hopeless: true, source: None, lines };
        }
    };
    let mut entries = parse::entries(&text, &mut problems);
    let notes = keys::rename(&mut entries, keys::RENAMED, &mut problems);
    keys::apply_all(&mut config, &entries, &mut problems);
    problems.sort_by_key(|p| (p.line, p.column));
    if problems.len() > MAX_PROBLEMS {
        problems.truncate(MAX_PROBLEMS);
    }
    let lines = entries.into_iter().map(|e| (e.key, e.line)).collect();
    Loaded { config, problems, notes, hopeless: false, source: None, lines }
}

/// Reads the file at `path`. No file at all is no problem: every key has a default.
pub fn load(path: &Path) -> Loaded {
    match read_limited(path) {
        Ok(bytes) => Loaded { source: Some(path.to_path_buf()), ..parse(&bytes) },
        Err(e) if e.kind() == ErrorKind::NotFound => Loaded {
            config: Config::default(),
            problems: Vec::new(),
            notes: Vec::new(),
            hopeless: false,
            source: None,
            lines: Vec::new(),
        },
        Err(e) => Loaded {
            config: Config::default(),
            problems: vec![Problem::whole_file(
                format!("the file can't be read: {e}"),
                "check the card on a computer; the node uses its last good configuration or defaults",
            )],
            notes: Vec::new(),
            hopeless: true,
            source: None,
            lines: Vec::new(),
        },
    }
}

/// Reads the file at `path`; where nothing of it can be used, takes the `last_good` copy instead and says
/// so. `source` tells which one it was.
pub fn load_or_last_good(path: &Path, last_good: &Path) -> Loaded {
    let mut first = load(path);
    if !first.hopeless {
        return first;
    }
    let copy = load(last_good);
    if copy.hopeless || copy.source.is_none() {
        return first;
    }
    first.problems.push(Problem::whole_file(
        format!("the last good configuration is used instead ({})", last_good.display()),
        "repair the file on the card and restart the node",
    ));
    Loaded { problems: first.problems, hopeless: true, ..copy }
}

/// What `--check-config` of every service does: whether the file is free of problems, and the text to
/// print (one line a problem, or that all is well).
pub fn check(path: &Path) -> (bool, String) {
    let loaded = load(path);
    if !loaded.problems.is_empty() {
        let lines = loaded.problem_lines(path);
        return (false, lines.iter().map(|l| format!("{l}\n")).collect());
    }
    let what = if loaded.source.is_some() { "good" } else { "no such file; every key has its default" };
    (true, format!("{}: {what}\n", path.display()))
}

fn read_limited(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed, so that `parse` sees that the file is too long.
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

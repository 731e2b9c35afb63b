//! Blocks become bytes again: paths, directories and file ranges.
//!
//! All walkers share one grammar: `want` names the block that is needed next (`None`: done),
//! `provide` takes its bytes, which the caller has verified. `upcoming` lists blocks worth
//! fetching ahead.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use crate::dag::{self, Found};
use crate::dagpb::Link;
use crate::hamt::{name_hash, prefix_length, slot_of};
use crate::unixfs::{Entry, Kind, UnixFsError, leaf_content};
use crate::{Cid, Codec};

/// The deepest tree that is walked; a balanced file of 2^63 bytes needs far less.
pub const MAX_DEPTH: usize = 64;
/// The most parts a path may have.
pub const MAX_SEGMENTS: usize = 256;
/// The most blocks that are read on the way along a path.
pub const MAX_STEPS: usize = 16 * MAX_SEGMENTS;
/// The most entries that are listed of one directory.
pub const MAX_LISTED: usize = crate::import::MAX_ENTRIES;

/// Why a walk ends early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportError {
    /// A block is not what UnixFS allows.
    UnixFs(UnixFsError),
    /// A file was expected here.
    NotAFile(Kind),
    /// A directory was expected here: the name of what isn't one, empty for the root.
    NotADirectory(String),
    /// The directory has no entry of that name.
    NoSuchEntry(String),
    /// Deeper than [`MAX_DEPTH`], longer than [`MAX_SEGMENTS`] or wider than [`MAX_LISTED`].
    TooLarge,
    /// A path with more `..` than parts before them.
    AboveRoot,
    /// A block was provided though none was wanted.
    NotWanted,
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnixFs(e) => e.fmt(f),
            Self::NotAFile(Kind::Directory | Kind::HamtShard) => f.write_str("this dag node is a directory"),
            Self::NotAFile(_) => f.write_str("this dag node is a symlink"),
            Self::NotADirectory(name) if name.is_empty() => f.write_str("this is not a directory"),
            Self::NotADirectory(name) => write!(f, "\"{name}\" is not a directory"),
            Self::NoSuchEntry(name) => write!(f, "no link named \"{name}\""),
            Self::TooLarge => f.write_str("the tree is deeper or wider than this node walks"),
            Self::AboveRoot => f.write_str("the path leads above its root"),
            Self::NotWanted => f.write_str("a block was provided that was not wanted"),
        }
    }
}

impl core::error::Error for ExportError {}

impl From<UnixFsError> for ExportError {
    fn from(e: UnixFsError) -> Self {
        Self::UnixFs(e)
    }
}

/// The CIDs a block links to, in the order they stand in it; none for codecs without links.
pub fn links(codec: Codec, block: &[u8]) -> Result<Vec<Cid>, UnixFsError> {
    Ok(dag::links(codec, block)?)
}

/// Reads a range of a file.
#[derive(Debug)]
pub struct FileReader {
    start: u64,
    end: u64,
    /// Parts still to read, the next one last.
    stack: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    cid: Cid,
    offset: u64,
    /// What the parent says; unknown for the root.
    size: Option<u64>,
    depth: usize,
}

impl FileReader {
    /// Reads bytes `start .. end` of the file at `root`; an `end` beyond the file means to its end.
    pub fn new(root: Cid, start: u64, end: u64) -> Self {
        let stack = if start < end {
            Vec::from([Part { cid: root, offset: 0, size: None, depth: 0 }])
        } else {
            Vec::new()
        };
        Self { start, end, stack }
    }

    /// The block needed next.
    pub fn want(&self) -> Option<&Cid> {
        self.stack.last().map(|part| &part.cid)
    }

    /// Blocks needed after that one, as far as they are known.
    pub fn upcoming(&self) -> impl Iterator<Item = &Cid> {
        self.stack.iter().rev().skip(1).map(|part| &part.cid)
    }

    /// Takes the block wanted and returns the bytes of the range that lie in it, perhaps none.
    pub fn provide(&mut self, mut block: Vec<u8>) -> Result<Vec<u8>, ExportError> {
        let codec = self.want().map_or(Codec::RAW, Cid::codec);
        Ok(match self.look(&block)? {
            Piece::Within(range) => {
                block.truncate(range.end);
                block.drain(..range.start);
                block
            }
            Piece::Own(range) => {
                let entry = Entry::parse(codec, &block)?;
                entry.data.data.unwrap_or_default().get(range).unwrap_or_default().to_vec()
            }
        })
    }

    /// As [`FileReader::provide`], and says where in the block the bytes are instead of moving them.
    pub fn look(&mut self, block: &[u8]) -> Result<Piece, ExportError> {
        let part = self.stack.pop().ok_or(ExportError::NotWanted)?;
        let leaf = match part.cid.codec() {
            Codec::RAW => Some(0..block.len()),
            codec => leaf_content(codec, block),
        };
        if let Some(content) = leaf {
            if part.size.is_some_and(|size| size != content.len() as u64) {
                return Err(UnixFsError::BadSizes.into());
            }
            let range = self.clip(content.len(), part.offset);
            return Ok(Piece::Within(content.start + range.start..content.start + range.end));
        }
        let entry = Entry::parse(part.cid.codec(), block)?;
        if !matches!(entry.data.kind, Kind::File | Kind::Raw) {
            return Err(ExportError::NotAFile(entry.data.kind));
        }
        if part.size.is_some_and(|size| size != entry.size) {
            return Err(UnixFsError::BadSizes.into());
        }
        if part.depth >= MAX_DEPTH && !entry.links.is_empty() {
            return Err(ExportError::TooLarge);
        }
        let own = entry.data.data.map_or(0, |data| data.len());
        let mut offset = part.offset.saturating_add(own as u64);
        let below = self.stack.len();
        for (link, size) in entry.links.into_iter().zip(entry.data.blocksizes) {
            let end = offset.saturating_add(size);
            // empty parts can hold nothing, and would let a small tree ask for endless blocks
            if size > 0 && offset < self.end && end > self.start {
                self.stack.push(Part { cid: link.cid, offset, size: Some(size), depth: part.depth + 1 });
            }
            offset = end;
        }
        if let Some(children) = self.stack.get_mut(below..) {
            children.reverse();
        }
        Ok(Piece::Own(self.clip(own, part.offset)))
    }

    /// What of `length` bytes, which lie at `offset` of the file, is in the range.
    fn clip(&self, length: usize, offset: u64) -> Range<usize> {
        let last = self.end.saturating_sub(offset).min(length as u64);
        let first = self.start.saturating_sub(offset).min(last);
        first as usize..last as usize
    }
}

/// Bytes of a file that a block holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These of the block.
    Within(Range<usize>),
    /// These of the UnixFS data of a block, which links to others as well.
    Own(Range<usize>),
}

/// Follows a path of names from a root: through directories, sharded or not, and through the maps
/// and lists of dag-cbor and dag-json blocks.
#[derive(Debug)]
pub struct PathResolver {
    cid: Cid,
    segments: VecDeque<String>,
    /// Inside a HAMT: hash of the name looked for, bits of it used so far.
    trie: Option<([u8; 8], u32)>,
    last: String,
    /// The rest of the path lies inside the block.
    inside: bool,
    /// Blocks taken.
    blocks: usize,
}

impl PathResolver {
    /// Starts at `root`. Empty segments and `.` are skipped, `..` takes back the segment before it.
    pub fn new<'a>(root: Cid, path: impl IntoIterator<Item = &'a str>) -> Result<Self, ExportError> {
        let mut segments = VecDeque::new();
        for segment in path {
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop_back().ok_or(ExportError::AboveRoot)?;
                }
                _ if segments.len() >= MAX_SEGMENTS => return Err(ExportError::TooLarge),
                _ => segments.push_back(String::from(segment)),
            }
        }
        Ok(Self { cid: root, segments, trie: None, last: String::new(), inside: false, blocks: 0 })
    }

    /// The block needed next; `None` once the path is at its end.
    pub fn want(&self) -> Option<&Cid> {
        self.segments.front().filter(|_| !self.inside).map(|_| &self.cid)
    }

    /// The block that the path names or ends in; the right answer once [`PathResolver::want`] gives
    /// `None`.
    pub fn target(&self) -> &Cid {
        &self.cid
    }

    /// Where in that block the path ends: keys and positions, see [`dag::follow`]. None if it names
    /// the whole block, as it does in files and directories.
    pub fn remainder(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(String::as_str)
    }

    /// Takes the block wanted and goes one step down.
    pub fn provide(&mut self, block: &[u8]) -> Result<(), ExportError> {
        let name = self.segments.front().ok_or(ExportError::NotWanted)?.clone();
        // links that lead to links use up no segment
        self.blocks += 1;
        if self.blocks > MAX_STEPS {
            return Err(ExportError::TooLarge);
        }
        if matches!(self.cid.codec(), Codec::DAG_CBOR | Codec::DAG_JSON | Codec::CBOR | Codec::JSON) {
            return self.follow(block);
        }
        let entry = Entry::parse(self.cid.codec(), block)?;
        let found = match entry.data.kind {
            Kind::Directory if self.trie.is_none() => {
                entry.links.into_iter().find(|link| link.name.as_deref() == Some(name.as_str()))
            }
            Kind::HamtShard => return self.descend(&name, entry),
            _ => return Err(ExportError::NotADirectory(core::mem::take(&mut self.last))),
        };
        self.arrive(name, found)
    }

    fn follow(&mut self, block: &[u8]) -> Result<(), ExportError> {
        match dag::follow(self.cid.codec(), block, self.segments.make_contiguous())
            .map_err(UnixFsError::from)?
        {
            Found::Link(cid, used) => {
                self.cid = cid;
                if let Some(last) = self.segments.drain(..used).next_back() {
                    self.last = last;
                }
            }
            Found::Value => self.inside = true,
            Found::Nothing(used) => {
                return Err(ExportError::NoSuchEntry(self.segments.remove(used).unwrap_or_default()));
            }
        }
        Ok(())
    }

    fn descend(&mut self, name: &str, entry: Entry) -> Result<(), ExportError> {
        let (hash, used) = self.trie.unwrap_or_else(|| (name_hash(name), 0));
        let fanout = entry.data.fanout.unwrap_or(1);
        let width = fanout.trailing_zeros();
        let slot = slot_of(hash, used, width).ok_or(UnixFsError::BadShard)?;
        let digits = prefix_length(fanout);
        let prefix = alloc::format!("{slot:0digits$X}");
        let in_slot = |link: &Link| -> Option<String> {
            link.name.as_deref().and_then(|n| n.strip_prefix(prefix.as_str())).map(String::from)
        };
        let found = entry.links.into_iter().find_map(|link| in_slot(&link).map(|rest| (link, rest)));
        match found {
            Some((link, rest)) if rest.is_empty() => {
                self.trie = Some((hash, used + width));
                self.cid = link.cid;
                Ok(())
            }
            Some((link, rest)) if rest == name => self.arrive(rest, Some(link)),
            _ => self.arrive(name.into(), None),
        }
    }

    fn arrive(&mut self, name: String, found: Option<Link>) -> Result<(), ExportError> {
        match found {
            Some(link) => {
                self.cid = link.cid;
                self.trie = None;
                self.segments.pop_front();
                self.last = name;
                Ok(())
            }
            None => Err(ExportError::NoSuchEntry(name)),
        }
    }
}

/// Lists a directory, sharded or not.
#[derive(Debug)]
pub struct DirectoryReader {
    /// Blocks still to read, the next one last, with the hash bits used above them.
    stack: Vec<(Cid, u32)>,
    /// Entries and shards so far: a trie of shards alone would have no end.
    listed: usize,
    at_root: bool,
}

impl DirectoryReader {
    /// Lists the directory at `root`.
    pub fn new(root: Cid) -> Self {
        Self { stack: Vec::from([(root, 0)]), listed: 0, at_root: true }
    }

    /// The block needed next.
    pub fn want(&self) -> Option<&Cid> {
        self.stack.last().map(|(cid, _)| cid)
    }

    /// Takes the block wanted and returns the entries in it; every link has a name.
    pub fn provide(&mut self, block: &[u8]) -> Result<Vec<Link>, ExportError> {
        let (cid, used) = self.stack.pop().ok_or(ExportError::NotWanted)?;
        let entry = Entry::parse(cid.codec(), block)?;
        let entries = match entry.data.kind {
            Kind::Directory if self.at_root => entry.links,
            Kind::HamtShard => self.shard(entry, used)?,
            _ => return Err(ExportError::NotADirectory(String::new())),
        };
        self.at_root = false;
        self.listed = self.listed.saturating_add(entries.len() + 1);
        if self.listed > 2 * MAX_LISTED {
            return Err(ExportError::TooLarge);
        }
        Ok(entries.into_iter().map(|l| Link { name: Some(l.name.unwrap_or_default()), ..l }).collect())
    }

    fn shard(&mut self, entry: Entry, used: u32) -> Result<Vec<Link>, ExportError> {
        let fanout = entry.data.fanout.unwrap_or(1);
        let used = used.saturating_add(fanout.trailing_zeros());
        let prefix = prefix_length(fanout);
        let mut entries = Vec::new();
        for link in entry.links {
            let name = link.name.as_deref().and_then(|n| n.get(prefix..)).ok_or(UnixFsError::BadShard)?;
            if name.is_empty() {
                // the hash is used up below this: no honest trie goes on
                if used >= 64 || self.stack.len() > MAX_LISTED {
                    return Err(ExportError::TooLarge);
                }
                self.stack.push((link.cid, used));
            } else {
                entries.push(Link { name: Some(name.into()), ..link });
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests;

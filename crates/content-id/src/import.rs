//! Bytes become blocks: fixed-size chunks, balanced trees, directories (kubo's layouts).
//!
//! [`FileBuilder`] is fed bytes and hands out blocks; it holds one chunk and one row of links per
//! level, whatever the file's size. [`TreeBuilder`] nests directories, files and symlinks the way a walk over a folder meets them.

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::dagpb::{Link, encode};
use crate::unixfs::{Data, Kind, Meta};
use crate::{Block, Cid, Codec, Version};

mod directory;
mod file;

pub use directory::{Closing, DirectoryBuilder};
pub use file::FileBuilder;

/// The most entries one directory may have.
pub const MAX_ENTRIES: usize = 262_144;
/// The deepest nesting of directories.
pub const MAX_NESTING: usize = 128;
/// The longest symlink target, in bytes (Linux's `PATH_MAX`).
pub const MAX_TARGET: usize = 4096;
/// Chunk sizes that are accepted, in bytes.
pub const CHUNK_RANGE: core::ops::RangeInclusive<usize> = 1..=1024 * 1024;

/// How a directory's size is measured against the sharding threshold of 256 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardBy {
    /// Bytes of names and CIDs.
    LinkBytes,
    /// Bytes of the encoded block.
    BlockBytes,
}

/// Everything that decides which CID some bytes get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// CID version of dag-pb nodes.
    pub version: Version,
    /// Leaves are raw blocks, not dag-pb nodes.
    pub raw_leaves: bool,
    /// Bytes of a leaf; in [`CHUNK_RANGE`].
    pub chunk: usize,
    /// Most links of an inner node, 2 or more.
    pub max_links: usize,
    /// When a directory becomes a HAMT.
    pub shard_by: ShardBy,
}

impl Profile {
    /// `unixfs-v0-2015`: kubo's default.
    pub const V0_2015: Self = Self {
        version: Version::V0,
        raw_leaves: false,
        chunk: 256 * 1024,
        max_links: 174,
        shard_by: ShardBy::LinkBytes,
    };
    /// `unixfs-v1-2025` (IPIP-499).
    pub const V1_2025: Self = Self {
        version: Version::V1,
        raw_leaves: true,
        chunk: 1024 * 1024,
        max_links: 1024,
        shard_by: ShardBy::BlockBytes,
    };

    /// The profile of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "unixfs-v0-2015" => Some(Self::V0_2015),
            "unixfs-v1-2025" => Some(Self::V1_2025),
            _ => None,
        }
    }

    /// Whether the numbers make sense.
    pub fn is_valid(&self) -> bool {
        CHUNK_RANGE.contains(&self.chunk) && (2..=crate::dagpb::MAX_LINKS).contains(&self.max_links)
    }
}

/// What an import made: the root of a file, a directory or a symlink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Its name.
    pub cid: Cid,
    /// Bytes of content, 0 for directories and symlinks.
    pub size: u64,
    /// Bytes of all blocks, repeated ones counted each time.
    pub tsize: u64,
}

impl Added {
    fn link(self, name: String) -> Link {
        Link { cid: self.cid, name: Some(name), tsize: Some(self.tsize) }
    }
}

/// Why an import can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportError {
    /// A name that is empty, `.`, `..`, or has `/` or NUL in it.
    BadName,
    /// Two entries of one directory have the same name.
    DuplicateName,
    /// More than [`MAX_ENTRIES`] entries, or names made to collide in a HAMT.
    TooManyEntries,
    /// More than [`MAX_NESTING`] directories in one another.
    TooDeep,
    /// A symlink target that is empty or longer than [`MAX_TARGET`].
    BadTarget,
    /// The calls do not nest: bytes outside a file, an end without a start, more than one root.
    Unbalanced,
    /// A [`Profile`] whose numbers make no sense, or a time that can't be.
    BadProfile,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadName => "a name that can't stand in a directory (empty, '.', '..', or with '/' in it)",
            Self::DuplicateName => "two entries of one directory have the same name",
            Self::TooManyEntries => "a directory with too many entries",
            Self::TooDeep => "directories are nested too deeply",
            Self::BadTarget => "a symlink whose target is empty or too long",
            Self::Unbalanced => "files and directories are not nested properly",
            Self::BadProfile => "chunk size, link count or time out of range",
        })
    }
}

impl core::error::Error for ImportError {}

/// A symlink to `target`.
pub fn symlink(profile: &Profile, target: &str, meta: Meta) -> Result<(Added, Block), ImportError> {
    if target.is_empty() || target.len() > MAX_TARGET {
        return Err(ImportError::BadTarget);
    }
    if !meta.is_valid() {
        return Err(ImportError::BadProfile);
    }
    let message = Data { data: Some(target.into()), ..Data::with_meta(Kind::Symlink, meta) };
    let data = encode(&[], Some(&message.encode()));
    let cid = Cid::of(profile.version, Codec::DAG_PB, &data);
    Ok((Added { cid: cid.clone(), size: 0, tsize: data.len() as u64 }, Block { cid, data }))
}

/// What a walk over a folder meets, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeItem<'a> {
    /// Mode and time of the entry that begins next.
    Meta(Meta),
    /// A directory begins; what follows is inside it.
    OpenDirectory(&'a str),
    /// The innermost directory ends.
    CloseDirectory,
    /// A file begins; [`TreeItem::Bytes`] follow.
    OpenFile(&'a str),
    /// Bytes of the open file.
    Bytes(&'a [u8]),
    /// The open file ends.
    CloseFile,
    /// A symlink: name and target.
    Symlink(&'a str, &'a str),
}

/// Builds a tree of directories, files and symlinks around a nameless top directory.
#[derive(Debug)]
pub struct TreeBuilder {
    profile: Profile,
    /// What lies at the top is entered into a directory of its own.
    wrap: bool,
    /// Open directories from the top; the name is the entry in the one before.
    stack: Vec<(String, DirectoryBuilder)>,
    file: Option<(String, FileBuilder)>,
    /// Of the entry that begins next.
    meta: Meta,
    ready: VecDeque<Block>,
    /// The directory that was closed last: its name, and its blocks that were not polled yet.
    closing: Option<(String, Closing)>,
}

impl TreeBuilder {
    /// An empty tree. With `wrap` the top itself becomes a directory when the tree ends; without,
    /// what lies at the top are roots of their own, and names may repeat there.
    pub fn new(profile: Profile, wrap: bool) -> Result<Self, ImportError> {
        if !profile.is_valid() {
            return Err(ImportError::BadProfile);
        }
        Ok(Self {
            profile,
            wrap,
            stack: Vec::from([(String::new(), DirectoryBuilder::new())]),
            file: None,
            meta: Meta::default(),
            ready: VecDeque::new(),
            closing: None,
        })
    }

    /// Takes the next item. Returns what it completed: a file or a symlink, as it is entered into its directory. What
    /// has no name is entered under its CID.
    /// Drain [`TreeBuilder::poll_block`] afterwards; then [`TreeBuilder::poll_directory`] has the directory that it
    /// completed.
    pub fn handle(&mut self, item: TreeItem<'_>) -> Result<Option<Added>, ImportError> {
        // blocks that nobody polled
        while let Some(block) = self.poll_closing() {
            self.ready.push_back(block);
        }
        self.poll_directory()?;
        let meta = match item {
            TreeItem::Meta(meta) => {
                self.meta = meta;
                return Ok(None);
            }
            _ => core::mem::take(&mut self.meta),
        };
        match (item, &mut self.file) {
            (TreeItem::Bytes(bytes), Some((_, file))) => {
                file.push(bytes);
                while let Some(block) = file.poll_block() {
                    self.ready.push_back(block);
                }
                Ok(None)
            }
            (TreeItem::CloseFile, Some(_)) => {
                let Some((name, file)) = self.file.take() else { return Err(ImportError::Unbalanced) };
                let (added, blocks) = file.finish();
                self.ready.extend(blocks);
                self.enter(&name, added).map(Some)
            }
            (TreeItem::OpenFile(name), None) => {
                self.file = Some((name.into(), FileBuilder::with_meta(self.profile, meta)?));
                Ok(None)
            }
            (TreeItem::OpenDirectory(name), None) if self.stack.len() <= MAX_NESTING => {
                self.stack.push((name.into(), DirectoryBuilder::with_meta(meta)?));
                Ok(None)
            }
            (TreeItem::OpenDirectory(_), None) => Err(ImportError::TooDeep),
            (TreeItem::CloseDirectory, None) if self.stack.len() > 1 => {
                let Some((name, directory)) = self.stack.pop() else { return Err(ImportError::Unbalanced) };
                self.closing = Some((name, directory.close(&self.profile)?));
                Ok(None)
            }
            (TreeItem::Symlink(name, target), None) => {
                let (added, block) = symlink(&self.profile, target, meta)?;
                self.ready.push_back(block);
                self.enter(name, added).map(Some)
            }
            _ => Err(ImportError::Unbalanced),
        }
    }

    /// Bytes of a full leaf.
    pub const fn chunk(&self) -> usize {
        self.profile.chunk
    }

    /// As [`FileBuilder::room`], of the open file; none if no file is open.
    pub fn room(&mut self, memory: impl FnOnce() -> Vec<u8>) -> &mut [u8] {
        self.file.as_mut().map_or(&mut [], |(_, file)| file.room(memory))
    }

    /// As [`FileBuilder::advance`]. Drain [`TreeBuilder::poll_block`] afterwards.
    pub fn advance(&mut self, bytes: usize) {
        if let Some((_, file)) = &mut self.file {
            file.advance(bytes);
            while let Some(block) = file.poll_block() {
                self.ready.push_back(block);
            }
        }
    }

    fn enter(&mut self, name: &str, added: Added) -> Result<Added, ImportError> {
        let at_top = self.stack.len() == 1;
        let (_, directory) = self.stack.last_mut().ok_or(ImportError::Unbalanced)?;
        if self.wrap || !at_top {
            let nameless = if name.is_empty() { Some(added.cid.to_string()) } else { None };
            directory.insert(nameless.as_deref().unwrap_or(name), &added)?;
        }
        Ok(added)
    }

    /// The next finished block.
    pub fn poll_block(&mut self) -> Option<Block> {
        self.ready.pop_front().or_else(|| self.poll_closing())
    }

    fn poll_closing(&mut self) -> Option<Block> {
        self.closing.as_mut()?.1.poll_block()
    }

    /// The directory that the last item closed, once its blocks are polled: it is entered into its own directory now.
    pub fn poll_directory(&mut self) -> Result<Option<Added>, ImportError> {
        let Some((name, closing)) = self.closing.take() else { return Ok(None) };
        let added = closing.added().ok_or(ImportError::Unbalanced)?;
        self.enter(&name, added).map(Some)
    }

    /// Ends the tree: the top directory, if there is one, and the blocks not polled yet.
    pub fn finish(mut self) -> Result<(Option<Added>, VecDeque<Block>), ImportError> {
        while let Some(block) = self.poll_closing() {
            self.ready.push_back(block);
        }
        self.poll_directory()?;
        match (self.file, self.stack.pop()) {
            (None, Some(_)) if self.stack.is_empty() && !self.wrap => Ok((None, self.ready)),
            (None, Some((_, top))) if self.stack.is_empty() => {
                let added = top.finish(&self.profile, |block| self.ready.push_back(block))?;
                Ok((Some(added), self.ready))
            }
            _ => Err(ImportError::Unbalanced),
        }
    }

    /// Whether nothing is open but the top directory.
    pub fn is_balanced(&self) -> bool {
        self.file.is_none() && self.stack.len() == 1
    }
}

#[cfg(test)]
mod tests;

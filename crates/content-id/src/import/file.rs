//! One file: fixed-size chunks under a balanced tree.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::{Added, ImportError, Profile};
use crate::dagpb::{Link, encode};
use crate::unixfs::{Data, Kind, Meta};
use crate::{Block, Cid, Codec, varint};

/// Builds one file.
#[derive(Debug)]
pub struct FileBuilder {
    profile: Profile,
    meta: Meta,
    /// The chunk that is being filled, behind the bytes that a full leaf begins with.
    buffer: Vec<u8>,
    /// Bytes of the chunk so far; what the buffer has behind them is of no meaning.
    filled: usize,
    /// A whole chunk before that one, of which it is not known yet whether it is the last.
    full: Option<Vec<u8>>,
    /// What stands before and after the bytes of a full leaf.
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Finished children by level, leaves first, waiting for a parent.
    levels: Vec<Vec<Added>>,
    ready: VecDeque<Block>,
}

impl FileBuilder {
    /// An empty file.
    pub fn new(profile: Profile) -> Result<Self, ImportError> {
        Self::with_meta(profile, Meta::default())
    }

    /// An empty file with mode and time of the last change. They stand in its root, which is never a
    /// raw block then.
    pub fn with_meta(profile: Profile, meta: Meta) -> Result<Self, ImportError> {
        if !profile.is_valid() || !meta.is_valid() {
            return Err(ImportError::BadProfile);
        }
        let (head, tail) = if profile.raw_leaves { Default::default() } else { leaf_frame(profile.chunk) };
        let (buffer, filled, full, levels, ready) = Default::default();
        Ok(Self { profile, meta, buffer, filled, full, head, tail, levels, ready })
    }

    /// Appends bytes. Drain [`FileBuilder::poll_block`] afterwards.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.goes_on();
            if self.filled == self.profile.chunk {
                self.full_leaf();
            }
            let room = self.profile.chunk - self.filled;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.trim();
            if self.buffer.is_empty() {
                // most files are small: a whole chunk's memory is taken only for what goes on
                self.buffer.reserve_exact(self.head.len() + now.len() + self.tail.len());
                self.buffer.extend_from_slice(&self.head);
            } else {
                self.buffer.reserve_exact(room + self.tail.len());
            }
            self.buffer.extend_from_slice(now);
            self.filled += now.len();
            bytes = later;
        }
    }

    /// Room for the next bytes, one at least, to be read into from where they are; [`FileBuilder::advance`] then says
    /// how many there are. `memory` gives a buffer for a chunk that begins, perhaps an empty one.
    pub fn room(&mut self, memory: impl FnOnce() -> Vec<u8>) -> &mut [u8] {
        if self.filled == self.profile.chunk {
            self.full = Some(self.take());
        }
        let start = self.head.len();
        let end = start + self.profile.chunk;
        if self.buffer.is_empty() {
            self.buffer = memory();
            if self.buffer.capacity() < end + self.tail.len() {
                // fresh memory is zero already
                self.buffer = vec![0; end + self.tail.len()];
            }
        }
        self.buffer.resize(end, 0);
        if let (0, Some(head)) = (self.filled, self.buffer.get_mut(..start)) {
            head.copy_from_slice(&self.head);
        }
        self.buffer.get_mut(start + self.filled..).unwrap_or_default()
    }

    /// So many bytes are in the room that was given last. Drain [`FileBuilder::poll_block`] afterwards.
    pub fn advance(&mut self, bytes: usize) {
        let room = self.buffer.len().saturating_sub(self.head.len() + self.filled);
        if bytes.min(room) > 0 {
            self.goes_on();
            self.filled += bytes.min(room);
        }
    }

    /// The next finished block. The last chunk is kept back until more bytes come or the file ends.
    pub fn poll_block(&mut self) -> Option<Block> {
        self.ready.pop_front()
    }

    /// Ends the file and returns its root; blocks may still wait in the second value.
    pub fn finish(mut self) -> (Added, VecDeque<Block>) {
        if let Some(full) = self.full.take() {
            (self.buffer, self.filled) = (full, self.profile.chunk);
        }
        if self.levels.is_empty() && self.meta != Meta::default() {
            let root = self.only_leaf();
            return (root, self.ready);
        }
        match self.filled {
            filled if filled == self.profile.chunk => self.full_leaf(),
            0 if !self.levels.is_empty() => {}
            _ => self.short_leaf(),
        }
        let mut level = 0;
        loop {
            let is_top = level + 1 >= self.levels.len();
            match self.levels.get_mut(level).map(|row| (row.len(), row.pop())) {
                Some((1, Some(root))) if is_top => return (root, self.ready),
                Some((_, Some(last))) => {
                    if let Some(row) = self.levels.get_mut(level) {
                        row.push(last);
                    }
                    let meta = if is_top { self.meta } else { Meta::default() };
                    self.collapse(level, meta);
                }
                // never: each row that is reached has a child in it
                _ => self.short_leaf(),
            }
            level += 1;
        }
    }

    /// Links and bytes held, and blocks that wait.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize, usize) {
        (self.levels.iter().map(Vec::len).sum(), self.buffer.capacity(), self.ready.len())
    }

    /// More bytes come: the chunk before is not the last one.
    fn goes_on(&mut self) {
        if let Some(data) = self.full.take() {
            self.whole_leaf(data);
        }
    }

    /// Takes from the buffer what is of no meaning.
    fn trim(&mut self) {
        self.buffer.truncate(if self.filled > 0 { self.head.len() + self.filled } else { 0 });
    }

    /// The chunk, behind what a full leaf begins with; the next one is empty.
    fn take(&mut self) -> Vec<u8> {
        self.trim();
        self.filled = 0;
        core::mem::take(&mut self.buffer)
    }

    /// A leaf of a whole chunk: the buffer is its block.
    fn full_leaf(&mut self) {
        let data = self.take();
        self.whole_leaf(data);
    }

    fn whole_leaf(&mut self, mut data: Vec<u8>) {
        data.extend_from_slice(&self.tail);
        self.leaf(self.profile.chunk, data);
    }

    /// The last leaf, or the only one of an empty file.
    fn short_leaf(&mut self) {
        let buffer = self.take();
        let content = buffer.get(self.head.len()..).unwrap_or_default();
        let size = content.len();
        let data = if self.profile.raw_leaves {
            buffer
        } else {
            let (mut data, tail) = leaf_frame(size);
            data.reserve_exact(size + tail.len());
            data.extend_from_slice(content);
            data.extend_from_slice(&tail);
            data
        };
        self.leaf(size, data);
    }

    fn leaf(&mut self, size: usize, data: Vec<u8>) {
        let codec = if self.profile.raw_leaves { Codec::RAW } else { Codec::DAG_PB };
        let added = self.emit(codec, data, size as u64, 0);
        self.place(0, added);
    }

    /// A file of one chunk with mode or time.
    fn only_leaf(&mut self) -> Added {
        let buffer = self.take();
        let content = buffer.get(self.head.len()..).unwrap_or_default();
        let message = Data {
            data: Some(content.into()).filter(|c: &Vec<u8>| !c.is_empty()),
            filesize: Some(content.len() as u64),
            ..Data::with_meta(Kind::File, self.meta)
        };
        let size = content.len() as u64;
        self.emit(Codec::DAG_PB, encode(&[], Some(&message.encode())), size, 0)
    }

    /// Puts a child into a row, making room first.
    fn place(&mut self, level: usize, child: Added) {
        if self.levels.len() <= level {
            self.levels.push(Vec::new());
        }
        if self.levels.get(level).is_some_and(|row| row.len() >= self.profile.max_links) {
            self.collapse(level, Meta::default());
        }
        if let Some(row) = self.levels.get_mut(level) {
            row.push(child);
        }
    }

    /// Turns a row into one node of the next level.
    fn collapse(&mut self, level: usize, meta: Meta) {
        let row = self.levels.get_mut(level).map(core::mem::take).unwrap_or_default();
        let blocksizes: Vec<u64> = row.iter().map(|c| c.size).collect();
        let size = blocksizes.iter().sum();
        let below: u64 = row.iter().map(|c| c.tsize).sum();
        let links: Vec<Link> = row.into_iter().map(|c| c.link(String::new())).collect();
        let message = Data { filesize: Some(size), blocksizes, ..Data::with_meta(Kind::File, meta) };
        let added = self.emit(Codec::DAG_PB, encode(&links, Some(&message.encode())), size, below);
        self.place(level + 1, added);
    }

    /// Hands out a block: `size` bytes of the file lie in and below it, blocks below it have `below` bytes.
    fn emit(&mut self, codec: Codec, data: Vec<u8>, size: u64, below: u64) -> Added {
        let cid = Cid::of(self.profile.version, codec, &data);
        let tsize = below + data.len() as u64;
        self.ready.push_back(Block { cid: cid.clone(), data });
        Added { cid, size, tsize }
    }
}

/// What stands before and after the `size` bytes of a dag-pb leaf: the same bytes as [`encode`] makes
/// of a [`Data`], without copying the content twice.
fn leaf_frame(size: usize) -> (Vec<u8>, Vec<u8>) {
    let mut tail = Vec::from([3 << 3]);
    varint::write(size as u64, &mut tail);
    let mut message = Vec::from([1 << 3, 2]);
    if size > 0 {
        message.push((2 << 3) | 2);
        varint::write(size as u64, &mut message);
    }
    let mut head = Vec::from([(1 << 3) | 2]);
    varint::write((message.len() + size + tail.len()) as u64, &mut head);
    head.extend_from_slice(&message);
    (head, tail)
}

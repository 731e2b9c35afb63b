//! Directories: entries are packed as they come, and blocks handed out one by one at the end, so that a directory of
//! hundreds of thousands of entries takes little more memory than their names and CIDs.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Added, ImportError, MAX_ENTRIES, MAX_TARGET, Profile, ShardBy};
use crate::dagpb::{Link, encode, field_length, link_length};
use crate::hamt::{FANOUT, HASH_BYTES, name_hash};
use crate::unixfs::{Data, HAMT_HASH, Kind, Meta};
use crate::{Block, Cid, Codec};

/// Bytes of names and CIDs in one directory.
const MAX_PACKED: usize = 64 << 20;
/// Bytes of encoded links, or of names and CIDs, above which a directory is sharded.
const SHARD_THRESHOLD: usize = 256 * 1024;
/// Bytes packed into one piece of memory, so that none of them is ever copied to grow.
const PIECE: usize = 64 * 1024;
/// Bytes before name and CID: their lengths, and the size.
const PACKED_HEAD: usize = 12;

/// Builds one directory; entries may come in any order.
#[derive(Debug, Default)]
pub struct DirectoryBuilder {
    meta: Meta,
    entries: Entries,
    /// Bytes of names and CIDs.
    plain: usize,
    /// Bytes of encoded links.
    encoded: usize,
}

impl DirectoryBuilder {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty directory with mode and time of the last change.
    pub fn with_meta(meta: Meta) -> Result<Self, ImportError> {
        if meta.is_valid() { Ok(Self { meta, ..Self::default() }) } else { Err(ImportError::BadProfile) }
    }

    /// Adds an entry. Whether another one has its name shows when the directory ends.
    pub fn insert(&mut self, name: &str, child: &Added) -> Result<(), ImportError> {
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) || name.len() > MAX_TARGET {
            return Err(ImportError::BadName);
        }
        let cid = child.cid.byte_length();
        if self.entries.order.len() >= MAX_ENTRIES || self.plain + name.len() + cid > MAX_PACKED {
            return Err(ImportError::TooManyEntries);
        }
        self.plain += name.len() + cid;
        self.encoded += link_length(cid, Some(name.len()), Some(child.tsize));
        self.entries.push(name, child);
        Ok(())
    }

    /// Bytes of memory its entries take.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let pieces: usize = self.entries.pieces.iter().map(Vec::capacity).sum();
        pieces + self.entries.order.capacity() * size_of::<(u64, u32)>()
    }

    /// Ends the directory. [`Closing`] hands out its blocks.
    pub fn close(mut self, profile: &Profile) -> Result<Closing, ImportError> {
        let data = Data::with_meta(Kind::Directory, self.meta).encode();
        let size = match profile.shard_by {
            ShardBy::LinkBytes => self.plain,
            ShardBy::BlockBytes => self.encoded + field_length(data.len()),
        };
        let sharded = size > SHARD_THRESHOLD;
        self.entries.sort(sharded)?;
        let work = if sharded {
            Work::Shards(Vec::from([Shard::new(0, self.entries.order.len())]))
        } else {
            Work::Flat(data)
        };
        Ok(Closing { entries: self.entries, meta: self.meta, profile: *profile, next: 0, work })
    }

    /// Ends the directory; its blocks go to `out`, the root last.
    pub fn finish(self, profile: &Profile, mut out: impl FnMut(Block)) -> Result<Added, ImportError> {
        let mut closing = self.close(profile)?;
        while let Some(block) = closing.poll_block() {
            out(block);
        }
        closing.added().ok_or(ImportError::TooManyEntries)
    }
}

/// A directory that has all its entries.
#[derive(Debug)]
pub struct Closing {
    entries: Entries,
    meta: Meta,
    profile: Profile,
    /// Entries before this one are in a shard.
    next: usize,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// One block with that data field.
    Flat(Vec<u8>),
    /// The shard at hand and those it is below.
    Shards(Vec<Shard>),
    Done(Added),
}

/// A shard that is being filled: the entries up to `end`, whose hashes agree in the first bytes.
#[derive(Debug)]
struct Shard {
    /// Slot in the shard above.
    slot: u8,
    end: usize,
    bits: [u8; (FANOUT / 8) as usize],
    links: Vec<Link>,
}

impl Shard {
    const fn new(slot: u8, end: usize) -> Self {
        Self { slot, end, bits: [0; (FANOUT / 8) as usize], links: Vec::new() }
    }

    fn take(&mut self, slot: u8) {
        // the field is one big-endian number: slot 0 is the lowest bit of the last byte
        if let Some(byte) = self.bits.iter_mut().rev().nth(usize::from(slot / 8)) {
            *byte |= 1 << (slot % 8);
        }
    }
}

impl Closing {
    /// The next block, children before their parents; `None`: there are no more.
    pub fn poll_block(&mut self) -> Option<Block> {
        match &mut self.work {
            Work::Done(_) => None,
            Work::Flat(data) => {
                let data = core::mem::take(data);
                let links: Vec<Link> =
                    (0..self.entries.order.len()).filter_map(|n| self.entries.link(n)).collect();
                Some(self.block(&links, &data))
            }
            Work::Shards(_) => self.poll_shard(),
        }
    }

    /// What the directory is, once all its blocks were handed out.
    pub fn added(self) -> Option<Added> {
        match self.work {
            Work::Done(added) => Some(added),
            _ => None,
        }
    }

    fn poll_shard(&mut self) -> Option<Block> {
        loop {
            let Work::Shards(open) = &mut self.work else { return None };
            let depth = open.len().checked_sub(1)?;
            let shard = open.last_mut()?;
            if self.next >= shard.end {
                let shard = open.pop()?;
                return Some(self.end_shard(shard));
            }
            let slot = self.entries.slot(self.next, depth)?;
            let same =
                (self.next..shard.end).take_while(|n| self.entries.slot(*n, depth) == Some(slot)).count();
            if same == 1 {
                let link = self.entries.link(self.next)?;
                let name = format!("{slot:02X}{}", link.name.as_deref().unwrap_or_default());
                shard.take(slot);
                shard.links.push(Link { name: Some(name), ..link });
                self.next += 1;
            } else if open.len() < HASH_BYTES {
                open.push(Shard::new(slot, self.next + same));
            } else {
                // not after `Entries::sort`
                return None;
            }
        }
    }

    /// Encodes a shard and enters it into the one above.
    fn end_shard(&mut self, shard: Shard) -> Block {
        let Shard { slot, bits, links, .. } = shard;
        let is_root = matches!(&self.work, Work::Shards(open) if open.is_empty());
        let significant: Vec<u8> = bits.into_iter().skip_while(|b| *b == 0).collect();
        let data = Data {
            data: Some(significant),
            hash_type: Some(HAMT_HASH),
            fanout: Some(FANOUT),
            ..Data::with_meta(Kind::HamtShard, if is_root { self.meta } else { Meta::default() })
        };
        let block = encode_block(&links, &data.encode(), &self.profile);
        let size = total(&links, &block);
        match &mut self.work {
            Work::Shards(open) if !is_root => {
                if let Some(above) = open.last_mut() {
                    above.take(slot);
                    let name = Some(format!("{slot:02X}"));
                    above.links.push(Link { cid: block.cid.clone(), name, tsize: Some(size) });
                }
            }
            _ => self.work = Work::Done(Added { cid: block.cid.clone(), size: 0, tsize: size }),
        }
        block
    }

    fn block(&mut self, links: &[Link], data: &[u8]) -> Block {
        let block = encode_block(links, data, &self.profile);
        self.work = Work::Done(Added { cid: block.cid.clone(), size: 0, tsize: total(links, &block) });
        block
    }
}

fn encode_block(links: &[Link], data: &[u8], profile: &Profile) -> Block {
    let data = encode(links, Some(data));
    Block { cid: Cid::of(profile.version, Codec::DAG_PB, &data), data }
}

/// Bytes of a block and all below it.
fn total(links: &[Link], block: &Block) -> u64 {
    links.iter().fold(block.data.len() as u64, |sum, l| sum.saturating_add(l.tsize.unwrap_or(0)))
}

/// Names, CIDs and sizes, one behind the other.
#[derive(Debug, Default)]
struct Entries {
    pieces: Vec<Vec<u8>>,
    /// Hash of the name, and where the entry is: piece in the upper half, offset in the lower one.
    order: Vec<(u64, u32)>,
}

impl Entries {
    fn push(&mut self, name: &str, child: &Added) {
        let cid = child.cid.to_bytes();
        let length = PACKED_HEAD + name.len() + cid.len();
        if self.pieces.last().is_none_or(|piece| piece.len() + length > PIECE) {
            // most directories are small: the first piece grows
            let room = if self.pieces.is_empty() { 0 } else { PIECE };
            self.pieces.push(Vec::with_capacity(room));
        }
        let number = self.pieces.len() - 1;
        let Some(piece) = self.pieces.last_mut() else { return };
        self.order.push((u64::from_be_bytes(name_hash(name)), (number << 16 | piece.len()) as u32));
        piece.extend_from_slice(&(name.len() as u16).to_le_bytes());
        piece.extend_from_slice(&(cid.len() as u16).to_le_bytes());
        piece.extend_from_slice(&child.tsize.to_le_bytes());
        piece.extend_from_slice(name.as_bytes());
        piece.extend_from_slice(&cid);
    }

    /// By hash if the directory is `sharded`, else by name.
    fn sort(&mut self, sharded: bool) -> Result<(), ImportError> {
        let mut order = core::mem::take(&mut self.order);
        order.sort_unstable_by(|a, b| match sharded {
            true => a.0.cmp(&b.0).then_with(|| self.name(a.1).cmp(self.name(b.1))),
            false => self.name(a.1).cmp(self.name(b.1)),
        });
        self.order = order;
        for pair in self.order.windows(2) {
            let [a, b] = pair else { continue };
            if a.0 == b.0 && self.name(a.1) == self.name(b.1) {
                return Err(ImportError::DuplicateName);
            }
            if sharded && a.0 == b.0 {
                // names made to collide
                return Err(ImportError::TooManyEntries);
            }
        }
        Ok(())
    }

    /// Byte `depth` of the hash of an entry.
    fn slot(&self, entry: usize, depth: usize) -> Option<u8> {
        self.order.get(entry)?.0.to_be_bytes().get(depth).copied()
    }

    fn packed(&self, at: u32) -> Option<(&[u8], &[u8], u64)> {
        let piece = self.pieces.get((at >> 16) as usize)?.get((at & 0xffff) as usize..)?;
        let (lengths, rest) = piece.split_first_chunk::<4>()?;
        let (tsize, rest) = rest.split_first_chunk::<8>()?;
        let [a, b, c, d] = *lengths;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([a, b])))?;
        Some((name, rest.get(..usize::from(u16::from_le_bytes([c, d])))?, u64::from_le_bytes(*tsize)))
    }

    fn name(&self, at: u32) -> &[u8] {
        self.packed(at).map(|(name, ..)| name).unwrap_or_default()
    }

    fn link(&self, entry: usize) -> Option<Link> {
        let (name, cid, tsize) = self.packed(self.order.get(entry)?.1)?;
        let cid = Cid::from_bytes(cid).ok()?;
        Some(Link { cid, name: Some(String::from_utf8_lossy(name).to_string()), tsize: Some(tsize) })
    }
}

//! The UnixFS message inside a dag-pb node (the UnixFS specification).

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use crate::dag::DagError;
use crate::dagpb::{DagPbError, Field, Link, MAX_LINKS, Node, field, put_bytes, put_varint};
use crate::{Block, Codec, varint};

/// The widest HAMT shard that is read.
pub const MAX_FANOUT: u64 = 1024;
/// Multicodec of murmur3-x64-64, the only hash of HAMT directories.
pub const HAMT_HASH: u64 = 0x22;

/// What a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A leaf of a file in old imports: bytes without meaning of their own.
    Raw,
    /// A directory whose links are its entries.
    Directory,
    /// A file or a part of one.
    #[default]
    File,
    /// A symlink; the data is its target.
    Symlink,
    /// One shard of a large directory.
    HamtShard,
}

/// When a file was last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtime {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Nanoseconds, 0 ..= 999_999_999.
    pub nanos: u32,
}

/// What an entry may carry beside its content. Profiles leave it out unless it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, the lowest twelve; none is the same as 0.
    pub mode: Option<u32>,
    /// Time of the last change.
    pub mtime: Option<Mtime>,
}

impl Meta {
    /// Whether the time can be written.
    pub fn is_valid(&self) -> bool {
        self.mtime.is_none_or(|time| time.nanos <= MAX_NANOS)
    }
}

const MAX_NANOS: u32 = 999_999_999;

/// The UnixFS message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// What the node is.
    pub kind: Kind,
    /// File bytes, symlink target or HAMT bit field.
    pub data: Option<Vec<u8>>,
    /// Bytes of the file below this node, its own data included.
    pub filesize: Option<u64>,
    /// Bytes of the file below each link.
    pub blocksizes: Vec<u64>,
    /// HAMT: hash function.
    pub hash_type: Option<u64>,
    /// HAMT: width of a shard.
    pub fanout: Option<u64>,
    /// Permission bits, the lowest twelve.
    pub mode: Option<u32>,
    /// Time of the last change.
    pub mtime: Option<Mtime>,
}

/// Why a block is not UnixFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixFsError {
    /// The block is no dag-pb node.
    DagPb(DagPbError),
    /// The block can't be read as its codec says.
    Dag(DagError),
    /// The codec of the CID has no files and directories.
    NotUnixFs(Codec),
    /// The node has no data, or its message is broken.
    BadMessage,
    /// A type that is not known.
    UnknownKind(u64),
    /// Sizes that contradict each other.
    BadSizes,
    /// A HAMT shard with a hash, fan-out or bit field that can't be.
    BadShard,
    /// A file's part that has a name.
    NamedPart,
    /// A time with nanoseconds outside 1 ..= 999,999,999.
    BadTime,
}

impl fmt::Display for UnixFsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DagPb(e) => e.fmt(f),
            Self::Dag(e) => e.fmt(f),
            Self::NotUnixFs(codec) => write!(f, "codec 0x{:x} has no files and directories", codec.0),
            Self::BadMessage => f.write_str("not a UnixFS node"),
            Self::UnknownKind(kind) => write!(f, "a UnixFS node of unknown type {kind}"),
            Self::BadSizes => f.write_str("a UnixFS file whose sizes contradict each other"),
            Self::BadShard => f.write_str("a damaged UnixFS directory shard"),
            Self::NamedPart => f.write_str("a UnixFS file with named parts"),
            Self::BadTime => f.write_str("a UnixFS node with an impossible time"),
        }
    }
}

impl core::error::Error for UnixFsError {}

impl From<DagError> for UnixFsError {
    fn from(e: DagError) -> Self {
        Self::Dag(e)
    }
}

impl From<DagPbError> for UnixFsError {
    fn from(e: DagPbError) -> Self {
        Self::DagPb(e)
    }
}

impl Data {
    /// A message of `kind` and nothing else.
    pub fn new(kind: Kind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// A message of `kind` with mode and time.
    pub fn with_meta(kind: Kind, meta: Meta) -> Self {
        let mode = meta.mode.map(|mode| mode & 0o7777).filter(|mode| *mode != 0);
        Self { kind, mode, mtime: meta.mtime, ..Self::default() }
    }

    /// Decodes a message. Fields this version does not know are skipped.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, UnixFsError> {
        let mut out = Self::default();
        let mut kind = None;
        while !bytes.is_empty() {
            let (number, value, rest) = field(bytes).ok_or(UnixFsError::BadMessage)?;
            match (number, value) {
                (1, Field::Varint(v)) => kind = Some(kind_of(v)?),
                (2, Field::Bytes(v)) => out.data = Some(v.into()),
                (3, Field::Varint(v)) => out.filesize = Some(v),
                (4, Field::Varint(v)) => out.push_blocksize(v)?,
                (4, Field::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        let (v, rest) = varint::protobuf(packed).ok_or(UnixFsError::BadMessage)?;
                        out.push_blocksize(v)?;
                        packed = rest;
                    }
                }
                (5, Field::Varint(v)) => out.hash_type = Some(v),
                (6, Field::Varint(v)) => out.fanout = Some(v),
                (7, Field::Varint(v)) => out.mode = Some((v as u32) & 0o7777),
                (8, Field::Bytes(v)) => out.mtime = Some(parse_mtime(v)?),
                (1..=8, _) => return Err(UnixFsError::BadMessage),
                _ => {}
            }
            bytes = rest;
        }
        out.kind = kind.ok_or(UnixFsError::BadMessage)?;
        Ok(out)
    }

    fn push_blocksize(&mut self, size: u64) -> Result<(), UnixFsError> {
        if self.blocksizes.len() >= MAX_LINKS {
            return Err(UnixFsError::BadSizes);
        }
        self.blocksizes.push(size);
        Ok(())
    }

    /// The canonical encoding: fields in ascending order, block sizes unpacked.
    pub fn encode(&self) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(self.data.as_ref().map_or(0, Vec::len) + self.blocksizes.len() * 5 + 24);
        put_varint(1, number_of(self.kind), &mut out);
        if let Some(data) = &self.data {
            put_bytes(2, data, &mut out);
        }
        if let Some(size) = self.filesize {
            put_varint(3, size, &mut out);
        }
        for size in &self.blocksizes {
            put_varint(4, *size, &mut out);
        }
        for (number, value) in [(5, self.hash_type), (6, self.fanout), (7, self.mode.map(u64::from))] {
            if let Some(value) = value {
                put_varint(number, value, &mut out);
            }
        }
        if let Some(mtime) = self.mtime {
            put_bytes(8, &encode_mtime(mtime), &mut out);
        }
        out
    }

    /// Checks this message against the node's links and returns the file's size in bytes.
    /// Directories and symlinks have size 0.
    pub fn check(&self, links: &[Link]) -> Result<u64, UnixFsError> {
        match self.kind {
            Kind::File | Kind::Raw => self.check_file(links),
            Kind::HamtShard => self.check_shard(links).map(|()| 0),
            Kind::Symlink if !links.is_empty() || self.data.is_none() => Err(UnixFsError::BadSizes),
            Kind::Directory | Kind::Symlink => Ok(0),
        }
    }

    fn check_file(&self, links: &[Link]) -> Result<u64, UnixFsError> {
        if self.blocksizes.len() != links.len() {
            return Err(UnixFsError::BadSizes);
        }
        if links.iter().any(|link| link.name.as_ref().is_some_and(|name| !name.is_empty())) {
            return Err(UnixFsError::NamedPart);
        }
        let own = self.data.as_ref().map_or(0, Vec::len) as u64;
        let total = self
            .blocksizes
            .iter()
            .try_fold(own, |sum, size| sum.checked_add(*size))
            .filter(|total| *total <= i64::MAX as u64)
            .ok_or(UnixFsError::BadSizes)?;
        match self.filesize {
            Some(claimed) if claimed != total => Err(UnixFsError::BadSizes),
            _ => Ok(total),
        }
    }

    fn check_shard(&self, links: &[Link]) -> Result<(), UnixFsError> {
        let fanout = self.fanout.unwrap_or(0);
        let bits = self.data.as_deref().unwrap_or(&[]);
        let set: u32 = bits.iter().map(|b| b.count_ones()).sum();
        let sane = self.hash_type == Some(HAMT_HASH)
            && (8..=MAX_FANOUT).contains(&fanout)
            && fanout.is_power_of_two()
            && bits.len() as u64 <= fanout / 8
            && set as usize == links.len();
        if sane { Ok(()) } else { Err(UnixFsError::BadShard) }
    }
}

/// A UnixFS block, decoded and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The message; for a raw leaf a file with all its bytes in `data`.
    pub data: Data,
    /// Links to children.
    pub links: Vec<Link>,
    /// Size of the file in bytes, 0 for other kinds.
    pub size: u64,
}

impl Entry {
    /// Decodes and checks a block whose bytes have been verified. Raw blocks are files.
    pub fn parse(codec: Codec, bytes: &[u8]) -> Result<Self, UnixFsError> {
        match codec {
            Codec::RAW => {
                let size = bytes.len() as u64;
                let data = Data { data: Some(bytes.into()), filesize: Some(size), ..Data::new(Kind::File) };
                Ok(Self { data, links: Vec::new(), size })
            }
            Codec::DAG_PB => {
                let node = Node::parse(bytes)?;
                let data = Data::parse(node.data.as_deref().ok_or(UnixFsError::BadMessage)?)?;
                let size = data.check(&node.links)?;
                Ok(Self { data, links: node.links, size })
            }
            other => Err(UnixFsError::NotUnixFs(other)),
        }
    }

    /// [`Entry::parse`] of a [`Block`].
    pub fn of(block: &Block) -> Result<Self, UnixFsError> {
        Self::parse(block.cid.codec(), &block.data)
    }
}

/// Where the content lies in a dag-pb leaf as importers write it (kind, content, size, nothing else). `None` for any
/// other block, also a valid one: [`Entry::parse`] tells.
pub(crate) fn leaf_content(codec: Codec, block: &[u8]) -> Option<Range<usize>> {
    if codec != Codec::DAG_PB {
        return None;
    }
    let (1, Field::Bytes(message), []) = field(block)? else { return None };
    let (1, Field::Varint(0 | 2), rest) = field(message)? else { return None };
    let (2, Field::Bytes(content), tail) = field(rest)? else { return None };
    let (3, Field::Varint(size), []) = field(tail)? else { return None };
    // the message is the end of the block, and `tail` the end of the message
    let end = block.len() - tail.len();
    (size == content.len() as u64).then_some(end - content.len()..end)
}

fn kind_of(number: u64) -> Result<Kind, UnixFsError> {
    Ok(match number {
        0 => Kind::Raw,
        1 => Kind::Directory,
        2 => Kind::File,
        4 => Kind::Symlink,
        5 => Kind::HamtShard,
        // 3 (metadata) was specified and never used
        other => return Err(UnixFsError::UnknownKind(other)),
    })
}

const fn number_of(kind: Kind) -> u64 {
    match kind {
        Kind::Raw => 0,
        Kind::Directory => 1,
        Kind::File => 2,
        Kind::Symlink => 4,
        Kind::HamtShard => 5,
    }
}

fn parse_mtime(mut bytes: &[u8]) -> Result<Mtime, UnixFsError> {
    let mut seconds = None;
    let mut nanos = 0;
    while !bytes.is_empty() {
        let (number, value, rest) = field(bytes).ok_or(UnixFsError::BadMessage)?;
        match (number, value) {
            (1, Field::Varint(v)) => seconds = Some(v as i64),
            // 0 is not written
            (2, Field::Fixed32(v @ 1..=MAX_NANOS)) => nanos = v,
            (2, Field::Fixed32(_)) => return Err(UnixFsError::BadTime),
            (1..=2, _) => return Err(UnixFsError::BadMessage),
            _ => {}
        }
        bytes = rest;
    }
    Ok(Mtime { seconds: seconds.ok_or(UnixFsError::BadMessage)?, nanos })
}

fn encode_mtime(mtime: Mtime) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(1, mtime.seconds as u64, &mut out);
    if mtime.nanos > 0 {
        varint::write((2 << 3) | 5, &mut out);
        out.extend_from_slice(&mtime.nanos.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_content_of_a_leaf_is_where_the_parser_finds_it(
            content in proptest::collection::vec(any::<u8>(), 1..300),
            change in proptest::option::of((0usize..320, any::<u8>())),
        ) {
            let filesize = Some(content.len() as u64);
            let data = Data { data: Some(content.clone()), filesize, ..Data::new(Kind::File) };
            let mut block = crate::dagpb::encode(&[], Some(&data.encode()));
            if let Some((at, byte)) = change && let Some(to) = block.get_mut(at) {
                *to = byte;
            }
            match leaf_content(Codec::DAG_PB, &block) {
                Some(range) => {
                    let entry = Entry::parse(Codec::DAG_PB, &block).unwrap();
                    prop_assert_eq!(entry.data.data.as_deref(), block.get(range));
                    prop_assert_eq!((entry.size, entry.links.len()), (content.len() as u64, 0));
                }
                None => prop_assert!(change.is_some()),
            }
        }
    }

    #[test]
    fn all_fields_round_trip() {
        let data = Data {
            kind: Kind::File,
            data: Some(vec![1, 2]),
            filesize: Some(7),
            blocksizes: vec![5],
            hash_type: Some(HAMT_HASH),
            fanout: Some(256),
            mode: Some(0o644),
            mtime: Some(Mtime { seconds: -5, nanos: 12 }),
        };
        assert_eq!(Data::parse(&data.encode()).unwrap(), data);
    }

    #[test]
    fn packed_block_sizes_are_read() {
        assert_eq!(Data::parse(&[8, 2, 0x22, 3, 1, 0x80, 1]).unwrap().blocksizes, [1, 128]);
    }

    #[test]
    fn contradictions_are_refused() {
        let leaf = Link { cid: crate::Cid::v0([0; 32]), name: None, tsize: None };
        let file = |filesize, blocksizes: &[u64]| Data {
            filesize,
            blocksizes: blocksizes.into(),
            ..Data::new(Kind::File)
        };
        assert_eq!(file(Some(5), &[5]).check(core::slice::from_ref(&leaf)), Ok(5));
        assert_eq!(file(Some(6), &[5]).check(core::slice::from_ref(&leaf)), Err(UnixFsError::BadSizes));
        assert_eq!(file(None, &[5]).check(&[]), Err(UnixFsError::BadSizes));
        assert_eq!(
            file(None, &[u64::MAX, 2]).check(&[leaf.clone(), leaf.clone()]),
            Err(UnixFsError::BadSizes)
        );
        let shard = |fanout, bits: &[u8]| Data {
            fanout: Some(fanout),
            hash_type: Some(HAMT_HASH),
            data: Some(bits.into()),
            ..Data::new(Kind::HamtShard)
        };
        assert_eq!(shard(256, &[1]).check(core::slice::from_ref(&leaf)), Ok(0));
        assert_eq!(shard(256, &[3]).check(core::slice::from_ref(&leaf)), Err(UnixFsError::BadShard));
        assert_eq!(shard(2048, &[1]).check(core::slice::from_ref(&leaf)), Err(UnixFsError::BadShard));
        assert_eq!(shard(100, &[1]).check(core::slice::from_ref(&leaf)), Err(UnixFsError::BadShard));
        assert_eq!(Data::parse(&[8, 3]), Err(UnixFsError::UnknownKind(3)));
        assert_eq!(Data::parse(&[]), Err(UnixFsError::BadMessage));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Data::parse(&bytes);
            let _ = Entry::parse(Codec::DAG_PB, &bytes);
        }
    }
}

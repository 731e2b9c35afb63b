//! CARv1: a header with roots, then blocks, each with its CID (the CARv1 specification).
//!
//! [`CarReader`] is fed bytes as they come and gives out blocks that belong to their CIDs; it holds
//! one block at most. To write: [`header`], then for every block [`frame`] and the block's bytes.
//!
//! ```
//! use content_id::car::{CarItem, CarReader, frame, header};
//! use content_id::{Cid, Codec, Version};
//! let cid = Cid::of(Version::V1, Codec::RAW, b"hello");
//! let mut file = header(&[cid.clone()]);
//! file.extend(frame(&cid, 5));
//! file.extend(b"hello");
//!
//! let mut reader = CarReader::new();
//! let mut bytes = &file[..];
//! let Some(CarItem::Roots(roots)) = reader.push(&mut bytes).unwrap() else { panic!() };
//! assert_eq!(roots, [cid]);
//! let Some(CarItem::Block(block)) = reader.push(&mut bytes).unwrap() else { panic!() };
//! assert_eq!(block.data, b"hello");
//! assert_eq!(reader.push(&mut bytes), Ok(None));
//! reader.finish().unwrap();
//! ```

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use crate::dag::{CborWriter, DagErrorKind, Event, Sink};
use crate::{Block, Cid, CidError, Codec, MAX_BLOCK, MAX_DIGEST, VerifyError, dag, varint};

/// The largest header that is read, in bytes.
pub const MAX_HEADER: usize = 64 * 1024;
/// The longest CID: version, codec, hash function and length of nine bytes each, and a digest.
const MAX_CID: usize = 4 * 9 + MAX_DIGEST;

/// Why a CAR ends early, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarError {
    /// Byte of the file where the header or the frame that is wrong begins.
    pub offset: u64,
    /// What is wrong.
    pub kind: CarErrorKind,
}

/// What is wrong with a CAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarErrorKind {
    /// It ends inside the header or a block.
    Truncated,
    /// A length that is no varint in its shortest form, or 0.
    BadLength,
    /// A header over [`MAX_HEADER`].
    HeaderTooLarge(u64),
    /// A frame with a block over [`MAX_BLOCK`].
    BlockTooLarge(u64),
    /// The header is not dag-cbor.
    BadHeader(DagErrorKind),
    /// The header is not a map of `roots` and `version`, or a root is no CID.
    NotAHeader,
    /// A version other than 1.
    BadVersion(u64),
    /// A block's CID is broken, or longer than its frame.
    BadCid(CidError),
    /// A block that does not belong to its CID.
    BadBlock(VerifyError),
}

impl fmt::Display for CarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            CarErrorKind::Truncated => f.write_str("the CAR ends inside a header or block that begins"),
            CarErrorKind::BadLength => f.write_str("not a CAR: no length"),
            CarErrorKind::HeaderTooLarge(n) => write!(f, "a CAR header of {n} bytes is over the limit"),
            CarErrorKind::BlockTooLarge(n) => write!(f, "a frame of {n} bytes is over the limit of 2 MiB"),
            CarErrorKind::BadHeader(e) => write!(f, "not a CAR: its header is not dag-cbor: {e}"),
            CarErrorKind::NotAHeader => f.write_str("not a CAR: its header has no roots or no version"),
            CarErrorKind::BadVersion(v) => write!(f, "a CAR of version {v}; only version 1 is read"),
            CarErrorKind::BadCid(e) => write!(f, "a damaged CAR: {e}"),
            CarErrorKind::BadBlock(e) => write!(f, "a damaged CAR: {e}"),
        }?;
        write!(f, " (at byte {})", self.offset)
    }
}

impl core::error::Error for CarError {}

/// The header of a CAR with these roots.
pub fn header(roots: &[Cid]) -> Vec<u8> {
    let mut writer = CborWriter::new();
    let key = |name: &'static str| Event::Key(Cow::Borrowed(name));
    let events = [Event::Map, key("roots"), Event::List]
        .into_iter()
        .chain(roots.iter().cloned().map(Event::Link))
        .chain([Event::End, key("version"), Event::Integer(1), Event::End]);
    for event in events {
        // a map of two keys in a fixed form: nothing in it can be refused
        let _ = writer.event(event);
    }
    let body = writer.finish();
    let mut out = Vec::with_capacity(body.len() + 9);
    varint::write(body.len() as u64, &mut out);
    out.extend_from_slice(&body);
    out
}

/// What stands before a block of `length` bytes: the frame's length and the CID.
pub fn frame(cid: &Cid, length: usize) -> Vec<u8> {
    let cid = cid.to_bytes();
    let mut out = Vec::with_capacity(cid.len() + 9);
    varint::write((cid.len() + length) as u64, &mut out);
    out.extend_from_slice(&cid);
    out
}

/// What a CAR holds, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CarItem {
    /// The roots of the header; always first.
    Roots(Vec<Cid>),
    /// A block, verified.
    Block(Block),
    /// A block that can't be verified, for its CID names a hash function not known here. Its bytes are dropped.
    Unverifiable(Cid),
}

enum State {
    /// The length of the header or of a frame, as far as it came.
    Length(Vec<u8>),
    Header {
        left: usize,
        bytes: Vec<u8>,
    },
    /// The start of a frame, until its CID is whole.
    Cid {
        left: usize,
        bytes: Vec<u8>,
    },
    Data {
        cid: Cid,
        left: usize,
        data: Vec<u8>,
    },
    Failed(CarError),
}

/// Reads a CAR piece by piece.
pub struct CarReader {
    state: State,
    /// Bytes taken so far.
    taken: u64,
    /// Where the header or frame that is being read begins.
    start: u64,
    has_roots: bool,
}

impl Default for CarReader {
    fn default() -> Self {
        Self::new()
    }
}

impl CarReader {
    /// At the start of a CAR.
    pub const fn new() -> Self {
        Self { state: State::Length(Vec::new()), taken: 0, start: 0, has_roots: false }
    }

    /// Takes bytes off the front of `bytes` until an item is complete or none are left (`None`: more
    /// are needed). After an error nothing more is taken, and the error is given again.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Result<Option<CarItem>, CarError> {
        loop {
            match self.step(bytes) {
                Ok(Some(item)) => {
                    self.start = self.taken;
                    return Ok(Some(item));
                }
                Ok(None) if bytes.is_empty() && !self.is_complete() => return Ok(None),
                Ok(None) => {}
                Err(kind) => {
                    let error = match self.state {
                        State::Failed(error) => error,
                        _ => CarError { offset: self.start, kind },
                    };
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
        }
    }

    /// The CAR ends here.
    pub fn finish(&self) -> Result<(), CarError> {
        match &self.state {
            State::Failed(error) => Err(*error),
            State::Length(length) if length.is_empty() && self.has_roots => Ok(()),
            _ => Err(CarError { offset: self.start, kind: CarErrorKind::Truncated }),
        }
    }

    /// Bytes of the file that were taken.
    pub const fn offset(&self) -> u64 {
        self.taken
    }

    /// Whether the next step needs no more bytes (empty blocks and headers).
    const fn is_complete(&self) -> bool {
        matches!(
            self.state,
            State::Header { left: 0, .. } | State::Cid { left: 0, .. } | State::Data { left: 0, .. }
        )
    }

    fn step(&mut self, bytes: &mut &[u8]) -> Result<Option<CarItem>, CarErrorKind> {
        match &mut self.state {
            State::Length(length) => {
                let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
                length.push(*first);
                *bytes = rest;
                self.taken += 1;
                if *first < 0x80 || length.len() >= 9 {
                    let (value, _) = varint::strict(length).ok_or(CarErrorKind::BadLength)?;
                    self.state = self.begin(value)?;
                }
                Ok(None)
            }
            State::Header { left, bytes: header } => {
                self.taken += take(bytes, left, header);
                if *left > 0 {
                    return Ok(None);
                }
                let roots = read_header(header)?;
                self.has_roots = true;
                self.state = State::Length(Vec::new());
                Ok(Some(CarItem::Roots(roots)))
            }
            State::Cid { left, bytes: head } => {
                let whole = head.len() + *left;
                let mut want = (*left).min(MAX_CID.saturating_sub(head.len()));
                *left -= want;
                self.taken += take(bytes, &mut want, head);
                *left += want;
                if *left > 0 && head.len() < MAX_CID {
                    return Ok(None);
                }
                let (cid, rest) = Cid::split(head).map_err(CarErrorKind::BadCid)?;
                let length = whole - (head.len() - rest.len());
                if length > MAX_BLOCK {
                    return Err(CarErrorKind::BlockTooLarge(whole as u64));
                }
                let mut data = Vec::with_capacity(length);
                data.extend_from_slice(rest);
                self.state = State::Data { cid, left: *left, data };
                Ok(None)
            }
            State::Data { cid, left, data } => {
                self.taken += take(bytes, left, data);
                if *left > 0 {
                    return Ok(None);
                }
                let item = match cid.verify(data) {
                    Ok(()) => CarItem::Block(Block { cid: cid.clone(), data: core::mem::take(data) }),
                    Err(VerifyError::UnsupportedHash(_)) => CarItem::Unverifiable(cid.clone()),
                    Err(e) => return Err(CarErrorKind::BadBlock(e)),
                };
                self.state = State::Length(Vec::new());
                Ok(Some(item))
            }
            State::Failed(error) => Err(error.kind),
        }
    }

    /// The state after a length.
    fn begin(&self, length: u64) -> Result<State, CarErrorKind> {
        let left = usize::try_from(length).unwrap_or(usize::MAX);
        match (self.has_roots, left) {
            (_, 0) => Err(CarErrorKind::BadLength),
            (false, ..=MAX_HEADER) => Ok(State::Header { left, bytes: Vec::new() }),
            (false, _) => Err(CarErrorKind::HeaderTooLarge(length)),
            (true, n) if n <= MAX_BLOCK + MAX_CID => Ok(State::Cid { left, bytes: Vec::new() }),
            (true, _) => Err(CarErrorKind::BlockTooLarge(length)),
        }
    }
}

/// Moves up to `left` bytes from the front of `bytes` to the end of `to`, and counts them.
fn take(bytes: &mut &[u8], left: &mut usize, to: &mut Vec<u8>) -> u64 {
    let (now, later) = bytes.split_at(bytes.len().min(*left));
    to.extend_from_slice(now);
    *bytes = later;
    *left -= now.len();
    now.len() as u64
}

fn read_header(bytes: &[u8]) -> Result<Vec<Cid>, CarErrorKind> {
    let mut header = Header::default();
    dag::read(Codec::DAG_CBOR, bytes, &mut header).map_err(|e| CarErrorKind::BadHeader(e.kind))?;
    match (header.version, header.roots, header.broken) {
        (Some(1), Some(roots), false) => Ok(roots),
        (Some(version), _, _) if version != 1 => Err(CarErrorKind::BadVersion(version)),
        _ => Err(CarErrorKind::NotAHeader),
    }
}

/// Collects what a header says. Keys that are not known are refused, like a root that is no link.
#[derive(Default)]
struct Header {
    key: Option<Key>,
    depth: usize,
    roots: Option<Vec<Cid>>,
    version: Option<u64>,
    broken: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Roots,
    Version,
}

impl Sink for Header {
    fn event(&mut self, event: Event<'_>) -> Result<(), DagErrorKind> {
        match (self.depth, self.key, event) {
            (0, _, Event::Map) => self.depth = 1,
            (1, _, Event::Key(key)) => {
                self.key = match &*key {
                    "roots" => Some(Key::Roots),
                    "version" => Some(Key::Version),
                    _ => None,
                };
                self.broken |= self.key.is_none();
            }
            (1, Some(Key::Version), Event::Integer(version)) => self.version = u64::try_from(version).ok(),
            (1, Some(Key::Roots), Event::List) => {
                self.depth = 2;
                self.roots = Some(Vec::new());
            }
            (2, Some(Key::Roots), Event::Link(cid)) => self.roots.get_or_insert_default().push(cid),
            (1.., _, Event::End) => self.depth -= 1,
            (_, _, other) => {
                self.broken = true;
                self.depth += usize::from(matches!(other, Event::List | Event::Map));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

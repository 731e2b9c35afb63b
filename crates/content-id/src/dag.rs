//! Blocks of the IPLD data model: dag-cbor, dag-json, dag-pb and their plain kin, read into one
//! stream of [`Event`]s and written from it. Read first: the IPLD specifications of the data model,
//! DAG-CBOR, DAG-JSON and DAG-PB.
//!
//! No tree of values is built: [`read`] drives a [`Sink`] over a block, so memory is the block, what
//! is written, and one small record for each entry of the maps that are open. Nesting ends at
//! [`MAX_DEPTH`], blocks at [`crate::MAX_BLOCK`]. What is written is always canonical.
//!
//! ```
//! use content_id::{Codec, dag};
//! let cbor = dag::convert(Codec::DAG_JSON, br#"{"b": 1, "a": {"/": {"bytes": "oQ"}}}"#, Codec::DAG_CBOR).unwrap();
//! assert_eq!(cbor, [0xa2, 0x61, b'a', 0x41, 0xa1, 0x61, b'b', 1]);
//! ```

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use crate::dagpb::DagPbError;
use crate::unixfs::leaf_content;
use crate::{Cid, CidError, Codec};

mod cbor;
mod follow;
mod json;
mod nest;
mod pb;

pub use cbor::{CborWriter, Strictness};
pub use follow::{Found, follow};
pub use json::JsonWriter;
pub use pb::PbWriter;

/// The deepest nesting of lists and maps in one block.
pub const MAX_DEPTH: usize = 128;

/// One step through a block. A map is `Map`, then `Key` and value in turn, then `End`; a list is
/// `List`, its values, `End`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// The null value.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer, from -2^64 to 2^64 - 1.
    Integer(i128),
    /// A number with a fraction; never infinite, never NaN.
    Float(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// A link to another block.
    Link(Cid),
    /// A list begins.
    List,
    /// A map begins.
    Map,
    /// Key of the value that follows.
    Key(Cow<'a, str>),
    /// The innermost list or map ends.
    End,
}

/// Whatever takes the events of a block.
pub trait Sink {
    /// Takes the next one.
    fn event(&mut self, event: Event<'_>) -> Result<(), DagErrorKind>;
}

/// Why a block can't be read, or not be written in another codec, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DagError {
    /// Byte of the block that was being read.
    pub offset: usize,
    /// What is wrong there.
    pub kind: DagErrorKind,
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DagErrorKind {
    /// The block ends inside a value.
    Truncated,
    /// Bytes follow the value.
    TrailingBytes,
    /// More than [`crate::MAX_BLOCK`] bytes.
    TooLarge,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// A codec that has no values here.
    UnknownCodec(Codec),
    /// Not the canonical form: a number or length not as short as possible, a float of fewer than 64 bits.
    NotCanonical,
    /// Map keys not in canonical order.
    KeyOrder,
    /// The same key twice.
    DuplicateKey,
    /// A key that is not text.
    BadKey,
    /// Indefinite lengths, tags other than 42, undefined and other simple values.
    NotAllowed,
    /// Text that is not UTF-8.
    BadText,
    /// Infinite, or not a number.
    BadFloat,
    /// An integer beyond 64 bits.
    BadInteger,
    /// A link that is no CID.
    BadLink(CidError),
    /// JSON syntax.
    Syntax,
    /// A map in the form that dag-json keeps for links and bytes, but neither.
    Reserved,
    /// Bytes that are not base64.
    BadBase64,
    /// Not a dag-pb node.
    DagPb(DagPbError),
    /// A value that dag-pb can't hold: only `Links` (of `Hash`, `Name`, `Tsize`) and `Data`.
    NotPb,
}

impl fmt::Display for DagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.kind, self.offset)
    }
}

impl fmt::Display for DagErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the block ends inside a value",
            Self::TrailingBytes => "bytes follow the value",
            Self::TooLarge => "a block over the limit of 2 MiB",
            Self::TooDeep => "lists and maps are nested too deeply",
            Self::UnknownCodec(codec) => return write!(f, "codec 0x{:x} is not known here", codec.0),
            Self::NotCanonical => "a number or length is not in its canonical form",
            Self::KeyOrder => "map keys are not in canonical order",
            Self::DuplicateKey => "a map has the same key twice",
            Self::BadKey => "a map key that is not text",
            Self::NotAllowed => "a tag, simple value or indefinite length that dag-cbor does not allow",
            Self::BadText => "text that is not UTF-8",
            Self::BadFloat => "a number that is infinite or none",
            Self::BadInteger => "an integer beyond 64 bits",
            Self::BadLink(e) => return write!(f, "a link that is no CID: {e}"),
            Self::Syntax => "not JSON",
            Self::Reserved => "a map in the form that dag-json keeps for links and bytes, but neither",
            Self::BadBase64 => "bytes that are not base64",
            Self::DagPb(e) => return e.fmt(f),
            Self::NotPb => "a value that dag-pb can't hold",
        })
    }
}

impl core::error::Error for DagError {}

/// Whether blocks of `codec` can be read here.
pub const fn is_known(codec: Codec) -> bool {
    matches!(
        codec,
        Codec::RAW | Codec::DAG_PB | Codec::DAG_CBOR | Codec::CBOR | Codec::DAG_JSON | Codec::JSON
    )
}

/// Drives `sink` over a block. A raw block is one value of bytes. Forms that the specifications let
/// a reader forgive are forgiven (see [`Strictness::Relaxed`]); [`check`] forgives nothing.
pub fn read(codec: Codec, block: &[u8], sink: &mut impl Sink) -> Result<(), DagError> {
    read_as(codec, block, Strictness::Relaxed, sink)
}

/// Whether a dag-cbor block is canonical to the letter; blocks of other codecs are only read.
pub fn check(codec: Codec, block: &[u8]) -> Result<(), DagError> {
    struct Ignore;
    impl Sink for Ignore {
        fn event(&mut self, _: Event<'_>) -> Result<(), DagErrorKind> {
            Ok(())
        }
    }
    read_as(codec, block, Strictness::Canonical, &mut Ignore)
}

fn read_as(codec: Codec, block: &[u8], strict: Strictness, sink: &mut impl Sink) -> Result<(), DagError> {
    if block.len() > crate::MAX_BLOCK {
        return Err(DagError { offset: crate::MAX_BLOCK, kind: DagErrorKind::TooLarge });
    }
    match codec {
        Codec::RAW => {
            sink.event(Event::Bytes(block.into())).map_err(|kind| DagError { offset: block.len(), kind })
        }
        Codec::DAG_PB => pb::read(block, sink),
        Codec::DAG_CBOR | Codec::CBOR => {
            let mut reader = cbor::Reader::new(block, strict);
            drive(|| reader.next(), sink).map_err(|kind| DagError { offset: reader.offset(), kind })
        }
        Codec::DAG_JSON | Codec::JSON => {
            let mut reader = json::Reader::new(block, codec == Codec::DAG_JSON);
            drive(|| reader.next(), sink).map_err(|kind| DagError { offset: reader.offset(), kind })
        }
        other => Err(DagError { offset: 0, kind: DagErrorKind::UnknownCodec(other) }),
    }
}

fn drive<'a>(
    mut next: impl FnMut() -> Result<Option<Event<'a>>, DagErrorKind>,
    sink: &mut impl Sink,
) -> Result<(), DagErrorKind> {
    while let Some(event) = next()? {
        sink.event(event)?;
    }
    Ok(())
}

/// Writes a block in another codec: dag-cbor, dag-json or dag-pb. Plain CBOR and JSON are written as
/// their dag- forms, which they can be read as.
pub fn convert(from: Codec, block: &[u8], to: Codec) -> Result<Vec<u8>, DagError> {
    match to {
        Codec::DAG_CBOR | Codec::CBOR => {
            let mut writer = CborWriter::new();
            read(from, block, &mut writer)?;
            Ok(writer.finish())
        }
        Codec::DAG_JSON | Codec::JSON => {
            let mut writer = JsonWriter::new();
            read(from, block, &mut writer)?;
            Ok(writer.finish())
        }
        Codec::DAG_PB => {
            let mut writer = PbWriter::new();
            read(from, block, &mut writer)?;
            writer.finish().map_err(|kind| DagError { offset: block.len(), kind })
        }
        other => Err(DagError { offset: 0, kind: DagErrorKind::UnknownCodec(other) }),
    }
}

/// The CIDs a block links to, in the order they stand in it, repeated ones included. Raw blocks and
/// blocks of codecs that are not known have none.
pub fn links(codec: Codec, block: &[u8]) -> Result<Vec<Cid>, DagError> {
    struct Links(Vec<Cid>);
    impl Sink for Links {
        fn event(&mut self, event: Event<'_>) -> Result<(), DagErrorKind> {
            if let Event::Link(cid) = event {
                self.0.push(cid);
            }
            Ok(())
        }
    }
    let mut found = Links(Vec::new());
    // most blocks are leaves: their content is not copied to find no link
    let is_leaf = leaf_content(codec, block).is_some();
    if !is_leaf && is_known(codec) && !matches!(codec, Codec::RAW | Codec::CBOR | Codec::JSON) {
        read(codec, block, &mut found)?;
    }
    Ok(found.0)
}

#[cfg(test)]
mod tests;

//! DAG-CBOR: RFC 8949 as the IPLD specification narrows it.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::nest::{Nest, ValueKind};
use super::{DagErrorKind, Event, MAX_DEPTH, Sink};
use crate::Cid;

/// How much a reader forgives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Nothing: the same value has one encoding.
    Canonical,
    /// What the specification lets a reader forgive in old data: any order of keys, numbers and
    /// lengths longer than needed, floats of 16 and 32 bits.
    Relaxed,
}

const TAG_CID: u64 = 42;

/// Major types (RFC 8949 §3.1).
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// A list or map that is open.
struct Open<'a> {
    /// Items still to come; a map's keys and values each count.
    left: u64,
    map: bool,
    last_key: Option<&'a str>,
}

/// Reads one value, event by event.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    strict: Strictness,
    open: Vec<Open<'a>>,
    done: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], strict: Strictness) -> Self {
        Self { bytes, at: 0, strict, open: Vec::new(), done: false }
    }

    /// The byte that is read next.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    /// The next event; `None` after the value's end, which must be the block's.
    pub(super) fn next(&mut self) -> Result<Option<Event<'a>>, DagErrorKind> {
        match self.open.last_mut() {
            None if self.done && self.at < self.bytes.len() => return Err(DagErrorKind::TrailingBytes),
            None if self.done => return Ok(None),
            None => self.done = true,
            Some(open) if open.left == 0 => {
                self.open.pop();
                return Ok(Some(Event::End));
            }
            Some(open) => {
                open.left -= 1;
                // pairs: a key comes when an even number was left
                if open.map && open.left % 2 == 1 {
                    return self.key().map(Some);
                }
            }
        }
        self.value().map(Some)
    }

    fn key(&mut self) -> Result<Event<'a>, DagErrorKind> {
        let (TEXT, length) = self.head()? else { return Err(DagErrorKind::BadKey) };
        let key = self.text(length)?;
        if let Some(open) = self.open.last_mut() {
            let order =
                open.last_key.map_or(Ordering::Less, |last| key_order(last.as_bytes(), key.as_bytes()));
            match order {
                Ordering::Equal => return Err(DagErrorKind::DuplicateKey),
                Ordering::Greater if self.strict == Strictness::Canonical => {
                    return Err(DagErrorKind::KeyOrder);
                }
                _ => open.last_key = Some(key),
            }
        }
        Ok(Event::Key(Cow::Borrowed(key)))
    }

    fn value(&mut self) -> Result<Event<'a>, DagErrorKind> {
        if let Some(simple) = self.simple()? {
            return Ok(simple);
        }
        let (major, argument) = self.head()?;
        Ok(match major {
            UNSIGNED => Event::Integer(i128::from(argument)),
            NEGATIVE => Event::Integer(-1 - i128::from(argument)),
            BYTES => Event::Bytes(Cow::Borrowed(self.take(argument)?)),
            TEXT => Event::Text(Cow::Borrowed(self.text(argument)?)),
            LIST => self.begin(argument, false)?,
            MAP => self.begin(argument.checked_mul(2).ok_or(DagErrorKind::Truncated)?, true)?,
            TAG if argument == TAG_CID => Event::Link(self.link()?),
            _ => return Err(DagErrorKind::NotAllowed),
        })
    }

    /// A list or map of `items`, each of which takes a byte at least.
    fn begin(&mut self, items: u64, map: bool) -> Result<Event<'a>, DagErrorKind> {
        if items > (self.bytes.len() - self.at) as u64 {
            return Err(DagErrorKind::Truncated);
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(DagErrorKind::TooDeep);
        }
        self.open.push(Open { left: items, map, last_key: None });
        Ok(if map { Event::Map } else { Event::List })
    }

    /// Major type 7: floats, truth values, null.
    fn simple(&mut self) -> Result<Option<Event<'a>>, DagErrorKind> {
        let first = *self.bytes.get(self.at).ok_or(DagErrorKind::Truncated)?;
        let event = match first {
            0xf4 => Event::Bool(false),
            0xf5 => Event::Bool(true),
            0xf6 => Event::Null,
            0xf9..=0xfb => return self.float(first).map(Some),
            0xe0.. => return Err(DagErrorKind::NotAllowed),
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(event))
    }

    fn float(&mut self, first: u8) -> Result<Event<'a>, DagErrorKind> {
        if first != 0xfb && self.strict == Strictness::Canonical {
            return Err(DagErrorKind::NotCanonical);
        }
        let width = 1u64 << (first - 0xf8);
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        let bits = rest.get(..width as usize).ok_or(DagErrorKind::Truncated)?;
        let bits = bits.iter().fold(0u64, |all, byte| (all << 8) | u64::from(*byte));
        let value = match first {
            0xf9 => half(bits as u16),
            0xfa => f64::from(f32::from_bits(bits as u32)),
            _ => f64::from_bits(bits),
        };
        if !value.is_finite() {
            return Err(DagErrorKind::BadFloat);
        }
        self.at += 1 + width as usize;
        Ok(Event::Float(value))
    }

    /// Initial byte and argument (RFC 8949 §3) of major types 0 to 6.
    fn head(&mut self) -> Result<(u8, u64), DagErrorKind> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (first, rest) = rest.split_first().ok_or(DagErrorKind::Truncated)?;
        let (major, low) = (first >> 5, first & 31);
        let width = match low {
            0..24 => 0,
            24..28 => 1usize << (low - 24),
            _ => return Err(DagErrorKind::NotAllowed),
        };
        let argument = if width == 0 {
            u64::from(low)
        } else {
            let bytes = rest.get(..width).ok_or(DagErrorKind::Truncated)?;
            bytes.iter().fold(0u64, |all, byte| (all << 8) | u64::from(*byte))
        };
        if width + 1 != head_length(argument) && self.strict == Strictness::Canonical {
            return Err(DagErrorKind::NotCanonical);
        }
        self.at += 1 + width;
        Ok((major, argument))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DagErrorKind> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = usize::try_from(length).map_err(|_| DagErrorKind::Truncated)?;
        let taken = rest.get(..length).ok_or(DagErrorKind::Truncated)?;
        self.at += length;
        Ok(taken)
    }

    fn text(&mut self, length: u64) -> Result<&'a str, DagErrorKind> {
        core::str::from_utf8(self.take(length)?).map_err(|_| DagErrorKind::BadText)
    }

    /// The byte string under tag 42: a zero byte, then the CID.
    fn link(&mut self) -> Result<Cid, DagErrorKind> {
        let (BYTES, length) = self.head()? else { return Err(DagErrorKind::NotAllowed) };
        match self.take(length)?.split_first() {
            Some((0, cid)) => Cid::from_bytes(cid).map_err(DagErrorKind::BadLink),
            _ => Err(DagErrorKind::BadLink(crate::CidError::Truncated)),
        }
    }
}

/// The value of an IEEE 754 number of 16 bits.
fn half(bits: u16) -> f64 {
    let exponent = i32::from((bits >> 10) & 31);
    let fraction = f64::from(bits & 0x3ff);
    // 2^n for the few n there are, without a maths library
    let power = |n: i32| f64::from_bits(((1023 + n) as u64) << 52);
    let size = match exponent {
        0 => fraction * power(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * power(exponent - 25),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

/// Canonical order of keys: by length, then by bytes.
fn key_order(a: &[u8], b: &[u8]) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Bytes of an initial byte and its argument, in the shortest form.
const fn head_length(argument: u64) -> usize {
    match argument {
        0..24 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// An initial byte and its argument, in the shortest form.
fn head(major: u8, argument: u64) -> impl Iterator<Item = u8> + Clone {
    let width = head_length(argument) - 1;
    let low = match width {
        0 => argument as u8,
        1 => 24,
        2 => 25,
        4 => 26,
        _ => 27,
    };
    let bytes = argument.to_be_bytes().into_iter().skip(8 - width);
    core::iter::once((major << 5) | low).chain(bytes)
}

/// Writes canonical dag-cbor.
pub struct CborWriter {
    out: Vec<u8>,
    nest: Nest,
}

impl Default for CborWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl CborWriter {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self { out: Vec::new(), nest: Nest::new(key_order) }
    }

    /// What was written: one value, if [`Sink::event`] got the events of one.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    fn put(&mut self, major: u8, argument: u64, bytes: &[u8]) {
        self.out.extend(head(major, argument));
        self.out.extend_from_slice(bytes);
    }
}

impl Sink for CborWriter {
    fn event(&mut self, event: Event<'_>) -> Result<(), DagErrorKind> {
        match event {
            Event::Null => self.out.push(0xf6),
            Event::Bool(value) => self.out.push(0xf4 + u8::from(value)),
            Event::Integer(value) if value >= 0 => {
                let value = u64::try_from(value).map_err(|_| DagErrorKind::BadInteger)?;
                self.put(UNSIGNED, value, &[]);
            }
            Event::Integer(value) => {
                let value = u64::try_from(-1 - value).map_err(|_| DagErrorKind::BadInteger)?;
                self.put(NEGATIVE, value, &[]);
            }
            Event::Float(value) => {
                self.out.push(0xfb);
                self.out.extend_from_slice(&value.to_bits().to_be_bytes());
            }
            Event::Text(text) => self.put(TEXT, text.len() as u64, text.as_bytes()),
            Event::Bytes(bytes) => self.put(BYTES, bytes.len() as u64, &bytes),
            Event::Link(cid) => {
                let cid = cid.to_bytes();
                self.put(TAG, TAG_CID, &[]);
                self.put(BYTES, cid.len() as u64 + 1, &[0]);
                self.out.extend_from_slice(&cid);
            }
            Event::List | Event::Map => {
                return self.nest.open(event == Event::Map, self.out.len());
            }
            Event::Key(key) => {
                self.nest.key(&key, self.out.len());
                self.put(TEXT, key.len() as u64, key.as_bytes());
                return Ok(());
            }
            Event::End => {
                let closed = self.nest.close(&mut self.out)?;
                let major = if closed.map { MAP } else { LIST };
                self.out.splice(closed.start..closed.start, head(major, closed.count));
            }
        }
        self.nest.value(ValueKind::Other);
        Ok(())
    }
}

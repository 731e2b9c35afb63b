//! IPNS names and records (the IPNS record specification): a key that says, signed, which content its
//! name stands for.
//!
//! Only the V2 signature counts. Keys are Ed25519 or, old ones, RSA; ECDSA and secp256k1 are refused by
//! name. A record's end is a time of day: without a clock that can be trusted it is not looked at, and of two
//! records the one with the higher sequence number wins.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ed25519_dalek::{Signature, VerifyingKey};

use crate::dag::{self, DagErrorKind, Event, Sink};
use crate::dagpb::{Field, field, put_bytes};
use crate::{Cid, Codec, Multihash, Version, base, varint};

mod rsa;

/// The largest record, in bytes.
pub const MAX_RECORD: usize = 10 * 1024;
/// What is signed stands behind this.
const PREFIX: &[u8] = b"ipns-signature:";

/// A name: the multihash of a public key, as a CID of codec libp2p-key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Cid);

impl Name {
    /// From a CID of any codec, or a bare multihash in base58 (`12D3KooW…`, `Qm…`). `None`: no key's name.
    pub fn parse(text: &str) -> Option<Self> {
        if text.starts_with('1') || text.starts_with("Qm") {
            let hash = base::from_base58(text)?;
            return Self::of_multihash(&hash);
        }
        let cid: Cid = text.parse().ok()?;
        let bytes = cid.to_bytes();
        let hash = match cid.version() {
            Version::V0 => &bytes,
            Version::V1 => varint::strict(&bytes).and_then(|(_, rest)| varint::strict(rest))?.1,
        };
        Self::of_multihash(hash)
    }

    fn of_multihash(hash: &[u8]) -> Option<Self> {
        let mut bytes = Vec::with_capacity(hash.len() + 2);
        varint::write(1, &mut bytes);
        varint::write(Codec::LIBP2P_KEY.0, &mut bytes);
        bytes.extend_from_slice(hash);
        let cid = Cid::from_bytes(&bytes).ok()?;
        matches!(cid.hash(), Multihash::Sha256(_) | Multihash::Identity(_)).then_some(Self(cid))
    }

    /// As a CID; its text is base36.
    pub const fn cid(&self) -> &Cid {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The content path it stands for, as `/ipfs/bafy…`.
    pub value: String,
    /// When it ends: nanoseconds since 1970-01-01 UTC.
    pub ends: i128,
    /// The higher one wins.
    pub sequence: u64,
    /// How long it may be cached, in nanoseconds.
    pub ttl: u64,
}

/// Why a record is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Over [`MAX_RECORD`].
    TooLarge(usize),
    /// Not the protobuf message, or a field is broken.
    BadMessage,
    /// No V2 signature or no data that it signs: records of before 2021 are not believed.
    NoSignature,
    /// The data is not dag-cbor, or lacks a field.
    BadData,
    /// The key is not in the name and not in the record, or does not belong to the name.
    NoKey,
    /// A key of another type than Ed25519 and RSA: the type's number.
    KeyType(u64),
    /// The signature is wrong.
    BadSignature,
    /// A field beside the data says something else than the data.
    Mismatch,
    /// A kind of validity other than an end.
    ValidityType,
    /// The end is not a time as RFC 3339 writes it.
    BadTime,
    /// Its end is past.
    Expired,
    /// The value is not a path below `/ipfs/` or `/ipns/`.
    BadValue,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge(n) => return write!(f, "an IPNS record of {n} bytes is over the limit of 10 KiB"),
            Self::BadMessage => "not an IPNS record",
            Self::NoSignature => "the IPNS record has no V2 signature",
            Self::BadData => "the IPNS record's data is damaged",
            Self::NoKey => "the IPNS record's public key is missing or does not belong to the name",
            Self::KeyType(kind) => {
                let name = match kind {
                    2 => "secp256k1",
                    3 => "ECDSA",
                    _ => "unknown",
                };
                return write!(f, "IPNS keys of type {name} are not supported, only Ed25519 and RSA are");
            }
            Self::BadSignature => "the IPNS record's signature is wrong",
            Self::Mismatch => "the IPNS record's fields contradict its signed data",
            Self::ValidityType => "the IPNS record's validity type is not known",
            Self::BadTime => "the IPNS record's end is not a time",
            Self::Expired => "the IPNS record is expired",
            Self::BadValue => "the IPNS record's value is not a content path",
        })
    }
}

impl core::error::Error for RecordError {}

/// The protobuf message.
#[derive(Default)]
struct Message<'a> {
    value: Option<&'a [u8]>,
    signature_v1: Option<&'a [u8]>,
    validity_type: Option<u64>,
    validity: Option<&'a [u8]>,
    sequence: Option<u64>,
    ttl: Option<u64>,
    key: Option<&'a [u8]>,
    signature: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
}

impl<'a> Message<'a> {
    fn parse(mut bytes: &'a [u8]) -> Option<Self> {
        let mut out = Self::default();
        while !bytes.is_empty() {
            let (number, value, rest) = field(bytes)?;
            match (number, value) {
                (1, Field::Bytes(v)) => out.value = Some(v),
                (2, Field::Bytes(v)) => out.signature_v1 = Some(v),
                (3, Field::Varint(v)) => out.validity_type = Some(v),
                (4, Field::Bytes(v)) => out.validity = Some(v),
                (5, Field::Varint(v)) => out.sequence = Some(v),
                (6, Field::Varint(v)) => out.ttl = Some(v),
                (7, Field::Bytes(v)) => out.key = Some(v),
                (8, Field::Bytes(v)) => out.signature = Some(v),
                (9, Field::Bytes(v)) => out.data = Some(v),
                (1..=9, _) => return None,
                _ => {}
            }
            bytes = rest;
        }
        Some(out)
    }
}

/// The signed data.
#[derive(Default)]
struct Data {
    value: Option<Vec<u8>>,
    validity: Option<Vec<u8>>,
    validity_type: Option<u64>,
    sequence: Option<u64>,
    ttl: Option<u64>,
    /// Key of the value that comes next, at the top.
    key: Option<String>,
    depth: usize,
}

impl Sink for Data {
    fn event(&mut self, event: Event<'_>) -> Result<(), DagErrorKind> {
        match event {
            Event::Key(key) if self.depth == 1 => self.key = Some(key.into_owned()),
            Event::Map | Event::List => self.depth += 1,
            Event::End => self.depth = self.depth.saturating_sub(1),
            Event::Bytes(bytes) if self.depth == 1 => match self.key.as_deref() {
                Some("Value") => self.value = Some(bytes.into_owned()),
                Some("Validity") => self.validity = Some(bytes.into_owned()),
                _ => {}
            },
            Event::Integer(number) if self.depth == 1 => {
                let number = u64::try_from(number).ok();
                match self.key.as_deref() {
                    Some("ValidityType") => self.validity_type = number,
                    Some("Sequence") => self.sequence = number,
                    Some("TTL") => self.ttl = number,
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Record {
    /// Reads a record and checks that it is by `name`. `now` is nanoseconds since 1970-01-01 UTC, where
    /// the time is known.
    pub fn verify(name: &Name, bytes: &[u8], now: Option<i128>) -> Result<Self, RecordError> {
        if bytes.len() > MAX_RECORD {
            return Err(RecordError::TooLarge(bytes.len()));
        }
        let message = Message::parse(bytes).ok_or(RecordError::BadMessage)?;
        let (signature, data) = match (message.signature, message.data) {
            (Some(signature), Some(data)) if !signature.is_empty() && !data.is_empty() => (signature, data),
            _ => return Err(RecordError::NoSignature),
        };
        let key = public_key(name, message.key)?;
        check_signature(&key, data, signature)?;
        let mut fields = Data::default();
        dag::read(Codec::DAG_CBOR, data, &mut fields).map_err(|_| RecordError::BadData)?;
        check_copies(&message, &fields)?;
        if fields.validity_type != Some(0) {
            return Err(RecordError::ValidityType);
        }
        let ends = parse_time(fields.validity.as_deref().unwrap_or(&[])).ok_or(RecordError::BadTime)?;
        if now.is_some_and(|now| now >= ends) {
            return Err(RecordError::Expired);
        }
        let value = String::from_utf8(fields.value.unwrap_or_default()).map_err(|_| RecordError::BadValue)?;
        if !value.starts_with("/ipfs/") && !value.starts_with("/ipns/") {
            return Err(RecordError::BadValue);
        }
        let (Some(sequence), ttl) = (fields.sequence, fields.ttl.unwrap_or(0)) else {
            return Err(RecordError::BadData);
        };
        Ok(Self { value, ends, sequence, ttl })
    }

    /// Whether this one replaces `other` (the specification's rule: sequence, then end).
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.sequence, self.ends) > (other.sequence, other.ends)
    }
}

/// The public key of a name.
enum Key {
    Ed25519([u8; 32]),
    Rsa(rsa::PublicKey),
}

/// The key of a name: inside it, or in the record under its digest.
fn public_key(name: &Name, in_record: Option<&[u8]>) -> Result<Key, RecordError> {
    let message = match (name.cid().hash(), in_record) {
        (Multihash::Identity(inline), _) => &**inline,
        (Multihash::Sha256(digest), Some(key)) if crate::sha256(key) == *digest => key,
        _ => return Err(RecordError::NoKey),
    };
    let (mut kind, mut key) = (None, None);
    let mut rest = message;
    while !rest.is_empty() {
        let (number, value, left) = field(rest).ok_or(RecordError::NoKey)?;
        match (number, value) {
            (1, Field::Varint(v)) => kind = Some(v),
            (2, Field::Bytes(v)) => key = Some(v),
            _ => {}
        }
        rest = left;
    }
    let key = key.ok_or(RecordError::NoKey)?;
    match kind {
        Some(0) => rsa::PublicKey::from_der(key).map(Key::Rsa).ok_or(RecordError::NoKey),
        Some(1) => key.try_into().map(Key::Ed25519).map_err(|_| RecordError::NoKey),
        Some(kind) => Err(RecordError::KeyType(kind)),
        None => Err(RecordError::NoKey),
    }
}

fn check_signature(key: &Key, data: &[u8], signature: &[u8]) -> Result<(), RecordError> {
    let signed = [PREFIX, data].concat();
    let good = match key {
        Key::Ed25519(key) => {
            let key = VerifyingKey::from_bytes(key).map_err(|_| RecordError::NoKey)?;
            Signature::from_slice(signature).is_ok_and(|s| key.verify_strict(&signed, &s).is_ok())
        }
        Key::Rsa(key) => key.verify(&signed, signature),
    };
    if good { Ok(()) } else { Err(RecordError::BadSignature) }
}

/// Where the fields of the first version are present they must say the same.
fn check_copies(message: &Message<'_>, data: &Data) -> Result<(), RecordError> {
    if message.signature_v1.is_none() && message.value.is_none() {
        return Ok(());
    }
    let same = message.value == data.value.as_deref()
        && message.validity == data.validity.as_deref()
        && message.validity_type.unwrap_or(0) == data.validity_type.unwrap_or(0)
        && message.sequence.unwrap_or(0) == data.sequence.unwrap_or(0)
        && message.ttl.unwrap_or(0) == data.ttl.unwrap_or(0);
    if same { Ok(()) } else { Err(RecordError::Mismatch) }
}

/// RFC 3339 in UTC (`2033-05-18T03:33:20.000000001Z`) to nanoseconds since 1970.
fn parse_time(text: &[u8]) -> Option<i128> {
    let text = core::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let number = |text: &str, digits: usize| -> Option<i64> {
        let plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten()
    };
    let mut parts = date.split('-');
    let (year, month, day) =
        (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut clock = time.split(':');
    let (hour, minute, second) =
        (number(clock.next()?, 2)?, number(clock.next()?, 2)?, number(clock.next()?, 2)?);
    let whole = parts.next().is_none() && clock.next().is_none();
    let sane =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !whole || !sane || fraction.len() > 9 {
        return None;
    }
    let nanos = if fraction.is_empty() { 0 } else { number(fraction, fraction.len())? };
    let nanos = i128::from(nanos) * 10i128.pow(9 - fraction.len() as u32);
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(i128::from(seconds) * 1_000_000_000 + nanos)
}

/// Days from 1970-01-01 in the Gregorian calendar; years begin in March, so that leap days come last.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// A record as bytes: the data, what signs it, and nothing of the first version.
pub fn encode(signature: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(signature.len() + data.len() + 8);
    put_bytes(8, signature, &mut out);
    put_bytes(9, data, &mut out);
    out
}

#[cfg(test)]
mod tests;

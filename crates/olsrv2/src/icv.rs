//! Integrity check values and timestamps of messages (RFC 7182; RFC 7183 §6): made and verified.
//!
//! HMAC-SHA-256, cut to its first 16 octets, under a key of the mesh. The timestamp is a counter of the
//! sender's (type extension 0), for nodes have no clock; `replay` says what it is compared with.

use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use rfc5444::{Message, MessageView, RawMessage, Tlv};
use sha2::Sha256;

/// ICV message TLV type (RFC 7182 §13.3).
const ICV: u8 = 5;
/// TIMESTAMP message TLV type.
const TIMESTAMP: u8 = 6;
/// SHA-256 (§13.11) and HMAC (§13.12): the first octets of an ICV.
const ALGORITHM: [u8; 2] = [3, 3];
const ID: usize = 4;
/// Octets of an ICV that we send, and the fewest that we accept.
const LENGTH: usize = 16;
/// From what the key identifier is made.
const ID_LABEL: &[u8] = b"RFC 7182 key-id";

/// A secret that all routers of a mesh share.
///
/// Its identifier (RFC 7182 §12.1, `<key-id>`) is the first four octets of the HMAC-SHA-256, under the
/// secret, of the text `RFC 7182 key-id`: both ends find it without being told.
#[derive(Clone)]
pub struct Key {
    mac: Hmac<Sha256>,
    id: [u8; ID],
}

impl Key {
    /// From the shared octets. HMAC takes any number; fewer than 16 random ones are no protection.
    pub fn new(secret: &[u8]) -> Self {
        // HMAC pads short keys and hashes long ones: no length is wrong.
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret)
            .unwrap_or_else(|_| Hmac::new(&hmac::digest::Key::<Hmac<Sha256>>::default()));
        let full = mac.clone().chain_update(ID_LABEL).finalize().into_bytes();
        let id = full.first_chunk().copied().unwrap_or_default();
        Self { mac, id }
    }

    /// The identifier that goes with each ICV; not secret.
    pub const fn id(&self) -> [u8; ID] {
        self.id
    }

    /// HMAC over what RFC 7182 §12.2.2 lists.
    fn over(&self, message: &MessageView<'_>, source: Option<IpAddr>) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        match source {
            Some(IpAddr::V4(a)) => [&[4][..], &a.octets()].iter().for_each(|p| mac.update(p)),
            Some(IpAddr::V6(a)) => [&[16][..], &a.octets()].iter().for_each(|p| mac.update(p)),
            None => {}
        }
        mac.update(&ALGORITHM);
        mac.update(&[ID as u8]);
        mac.update(&self.id);
        message.without_tlvs(ICV, |part| mac.update(part));
        mac
    }

    /// Compares in constant time.
    fn fits(&self, icv: &[u8], message: &MessageView<'_>, source: Option<IpAddr>) -> bool {
        (LENGTH..=32).contains(&icv.len()) && self.over(message, source).verify_truncated_left(icv).is_ok()
    }
}

impl PartialEq for Key {
    /// By identifier.
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.id;
        write!(f, "Key({a:02x}{b:02x}{c:02x}{d:02x})")
    }
}

/// What an ICV covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cover {
    /// The message, wherever it comes from: it may be forwarded (type extension 1).
    Message,
    /// The datagram's source address as well: it goes one hop (type extension 2).
    Link(IpAddr),
}

impl Cover {
    const fn ext(self) -> u8 {
        match self {
            Self::Message => 1,
            Self::Link(_) => 2,
        }
    }

    const fn source(self) -> Option<IpAddr> {
        match self {
            Self::Message => None,
            Self::Link(source) => Some(source),
        }
    }
}

/// Why a message is invalid for processing and forwarding (RFC 7183 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No ICV of the kind that belongs there.
    NoIcv,
    /// ICVs, but none under a key of ours.
    UnknownKey,
    /// An ICV that differs, is too short, or stands twice.
    WrongIcv,
    /// Not exactly one counter.
    NoTimestamp,
    /// The counter was there before.
    Replayed,
    /// No room to remember another sender.
    Full,
}

/// Adds a timestamp and, under each key, an ICV (RFC 7183 §6.2).
pub(crate) fn sign(keys: &[Key], message: &mut Message, counter: u64, cover: Cover) {
    let octets = counter.to_be_bytes();
    let zeros = counter.leading_zeros() as usize / 8;
    message.tlvs.push(Tlv::new(TIMESTAMP, octets.get(zeros.min(7)..).unwrap_or_default()));
    let mut bytes = Vec::new();
    if message.emit(&mut bytes).is_err() {
        return; // too long; whoever sends it finds out, too
    }
    let Ok(view) = RawMessage::parse(&bytes).and_then(|raw| raw.check()) else { return };
    for key in keys {
        let full = key.over(&view, cover.source()).finalize().into_bytes();
        let mut value = Vec::with_capacity(ALGORITHM.len() + 1 + ID + LENGTH);
        value.extend_from_slice(&ALGORITHM);
        value.push(ID as u8);
        value.extend_from_slice(&key.id);
        value.extend(full.iter().take(LENGTH));
        message.tlvs.push(Tlv { kind: ICV, ext: cover.ext(), value: Some(value) });
    }
}

/// The counter of a message that has a valid ICV under one of the keys (RFC 7183 §6.3).
pub(crate) fn verify(keys: &[Key], message: &MessageView<'_>, cover: Cover) -> Result<u64, Refusal> {
    let icvs = || {
        let all = message.tlvs().filter(|t| t.kind == ICV && t.ext == cover.ext());
        all.filter_map(|t| split(t.value?))
    };
    let mut refusal = if icvs().next().is_some() { Refusal::UnknownKey } else { Refusal::NoIcv };
    for key in keys {
        let mut its = icvs().filter(|(id, _)| *id == key.id);
        match (its.next(), its.next()) {
            (None, _) => continue,
            (Some((_, icv)), None) if key.fits(icv, message, cover.source()) => {
                return counter(message).ok_or(Refusal::NoTimestamp);
            }
            _ => refusal = Refusal::WrongIcv,
        }
    }
    Err(refusal)
}

/// Whether a message has an ICV that covers the source address.
pub(crate) fn is_for_one_hop(message: &MessageView<'_>) -> bool {
    message.tlvs().any(|t| t.kind == ICV && t.ext == 2)
}

/// Key identifier and ICV data of a TLV of our algorithm.
fn split(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let ([hash, function, id_len], rest) = value.split_first_chunk::<3>()?;
    ([*hash, *function] == ALGORITHM).then(|| rest.split_at_checked((*id_len).into()))?
}

/// RFC 7182 §13.8, type extension 0: an unsigned number, big-endian; up to eight octets are taken.
fn counter(message: &MessageView<'_>) -> Option<u64> {
    let mut all = message.tlvs().filter(|t| t.kind == TIMESTAMP && t.ext == 0);
    let (only, None) = (all.next()?, all.next()) else { return None };
    let octets = only.value.filter(|v| (1..=8).contains(&v.len()))?;
    Some(octets.iter().fold(0, |n, o| n << 8 | u64::from(*o)))
}

#[cfg(test)]
mod tests;

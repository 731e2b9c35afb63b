//! Names and meanings of what RFC 5444 packets hold.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use mesh_types::{Duration, Metric};
use rfc5444::decode_time;

/// Where a TLV stands; the three have registries of their own (RFC 5444 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a packet header.
    Packet,
    /// In a message's TLV block.
    Message,
    /// In an address block's TLV block.
    Address,
}

/// Message type of the mesh's application records (RFC 5444 §6.2, private use).
const RECORD: u8 = 224;

/// A message type's name.
pub const fn message(kind: u8) -> Option<&'static str> {
    match kind {
        0 => Some("HELLO"),
        1 => Some("TC"),
        RECORD => Some("RECORD"),
        _ => None,
    }
}

/// A TLV type's name; `message` is the type of the message it is in.
pub const fn tlv(place: Place, message: u8, kind: u8) -> Option<&'static str> {
    match (place, kind) {
        (_, 5) => Some("ICV"),
        (_, 6) => Some("TIMESTAMP"),
        (Place::Message | Place::Address, 0) => Some("INTERVAL_TIME"),
        (Place::Message | Place::Address, 1) => Some("VALIDITY_TIME"),
        (Place::Message, 7) => Some("MPR_WILLING"),
        (Place::Message, 8) => Some("CONT_SEQ_NUM"),
        (Place::Message, 224) if message == RECORD => Some("CONTENT"),
        (Place::Address, 2) => Some("LOCAL_IF"),
        (Place::Address, 3) => Some("LINK_STATUS"),
        (Place::Address, 4) => Some("OTHER_NEIGHB"),
        (Place::Address, 7) => Some("LINK_METRIC"),
        (Place::Address, 8) => Some("MPR"),
        (Place::Address, 9) => Some("NBR_ADDR_TYPE"),
        (Place::Address, 10) => Some("GATEWAY"),
        _ => None,
    }
}

/// What a value means; `None` if that is not known. Short values are filled up with zeros, as routers read
/// them (RFC 7188 §4.2).
pub fn value(place: Place, message: u8, (kind, ext): (u8, u8), value: &[u8]) -> Option<String> {
    let name = tlv(place, message, kind)?;
    let first = value.first().copied().unwrap_or(0);
    let pair = u16::from_be_bytes([first, value.get(1).copied().unwrap_or(0)]);
    match (name, ext) {
        ("ICV", _) => icv(ext, value),
        ("TIMESTAMP", _) => timestamp(ext, value),
        ("CONT_SEQ_NUM", 0) => Some(format!("{pair} complete")),
        ("CONT_SEQ_NUM", 1) => Some(format!("{pair} incomplete")),
        ("LINK_METRIC", 0 | 1) => Some(metric(pair)),
        (_, 1..) => None,
        ("INTERVAL_TIME" | "VALIDITY_TIME", _) => time(value),
        ("MPR_WILLING", _) => Some(format!("flooding {}, routing {}", first >> 4, first & 0xf)),
        ("CONTENT", _) => content(value),
        ("LOCAL_IF", _) => one_of(first, &["this", "other"]),
        ("LINK_STATUS", _) => one_of(first, &["lost", "symmetric", "heard"]),
        ("OTHER_NEIGHB", _) => one_of(first, &["lost", "symmetric"]),
        ("MPR", _) => Some(bits(first, &["flooding", "routing"])),
        ("NBR_ADDR_TYPE", _) => Some(bits(first, &["originator", "routable"])),
        ("GATEWAY", _) => Some(format!("{first} hops")),
        _ => None,
    }
}

fn one_of(value: u8, words: &[&str]) -> Option<String> {
    words.get(usize::from(value)).map(|w| (*w).to_owned())
}

/// The names of the bits that are set, the lowest first.
fn bits(value: u8, names: &[&str]) -> String {
    let set = (0..8u8).filter(|bit| value & (1 << bit) != 0);
    let set: Vec<String> = set
        .map(|bit| names.get(usize::from(bit)).map_or_else(|| format!("bit {bit}"), |n| (*n).to_owned()))
        .collect();
    if set.is_empty() { "none".to_owned() } else { set.join("+") }
}

/// RFC 7181 §13.3.2.
fn metric(bits: u16) -> String {
    let kinds =
        [(0x8000, "link in"), (0x4000, "link out"), (0x2000, "neighbor in"), (0x1000, "neighbor out")];
    let kinds: Vec<&str> = kinds.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    let metric = Metric::from_compressed(bits & 0xfff);
    if kinds.is_empty() { "nothing".to_owned() } else { format!("{} {}", metric.value(), kinds.join("+")) }
}

/// RFC 5497 §6: one time, or times up to numbers of hops.
fn time(value: &[u8]) -> Option<String> {
    let (last, pairs) = value.split_last()?;
    let (pairs, odd) = pairs.as_chunks::<2>();
    if !odd.is_empty() {
        return None;
    }
    let mut text = String::new();
    for [code, hops] in pairs {
        text.push_str(&format!("{} up to {hops} hops, then ", seconds(*code)));
    }
    text.push_str(&seconds(*last));
    Some(text)
}

fn seconds(code: u8) -> String {
    Duration::from_micros(decode_time(code)).to_string()
}

/// Ours: kind, version, then what the application says.
fn content(value: &[u8]) -> Option<String> {
    let (prefix, rest) = value.split_first_chunk::<5>()?;
    let [kind, version @ ..] = *prefix;
    Some(format!("kind {kind}, version {}, {} bytes", u32::from_be_bytes(version), rest.len()))
}

/// RFC 7182 §12.
fn icv(ext: u8, value: &[u8]) -> Option<String> {
    if ext == 0 {
        return Some(format!("{} bytes", value.len()));
    }
    let (head, rest) = value.split_first_chunk::<3>().filter(|_| ext <= 2)?;
    let [hash, function, id_len] = *head;
    let (id, icv) = rest.split_at_checked(id_len.into())?;
    let hashes = ["none", "SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512"];
    let functions = ["none", "RSA", "DSA", "HMAC", "3DES", "AES", "ECDSA"];
    let name = |names: &[&str], n: u8| one_of(n, names).unwrap_or_else(|| n.to_string());
    let source = if ext == 2 { ", over the source address as well" } else { "" };
    let key = if id.is_empty() { String::new() } else { format!(", key {}", hex(id)) };
    let (function, hash) = (name(&functions, function), name(&hashes, hash));
    Some(format!("{function} {hash}{key}, {} bytes{source}", icv.len()))
}

/// RFC 7182 §13.
fn timestamp(ext: u8, value: &[u8]) -> Option<String> {
    let number = value.iter().fold(0u64, |n, b| (n << 8) | u64::from(*b));
    match ext {
        0 if value.len() <= 8 => Some(format!("counter {number}")),
        1 if value.len() == 4 => Some(format!("{number} s since 1970")),
        2 => Some("NTP".to_owned()),
        _ => None,
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_known_types() {
        use Place::{Address, Message, Packet};
        type Case = (Place, u8, u8, &'static [u8], Option<&'static str>);
        let cases: [Case; 26] = [
            (Message, 0, 0, &[0x58], Some("2.000s")),
            (Message, 1, 0, &[0x58, 2, 0x64], Some("2.000s up to 2 hops, then 6.000s")),
            (Message, 1, 0, &[0x58, 2], None),
            (Message, 7, 0, &[0x7f], Some("flooding 7, routing 15")),
            (Message, 7, 1, &[0x7f], None),
            (Message, 8, 0, &[1, 2], Some("258 complete")),
            (Message, 8, 1, &[1, 2], Some("258 incomplete")),
            (Address, 2, 0, &[0], Some("this")),
            (Address, 2, 0, &[2], None),
            (Address, 3, 0, &[2], Some("heard")),
            (Address, 4, 0, &[1], Some("symmetric")),
            (Address, 4, 0, &[2], None),
            (Address, 7, 0, &[0xf0, 0xff], Some("256 link in+link out+neighbor in+neighbor out")),
            (Address, 7, 0, &[0x0f, 0xff], Some("nothing")),
            (Address, 8, 0, &[3], Some("flooding+routing")),
            (Address, 8, 0, &[], Some("none")),
            (Address, 9, 0, &[6], Some("routable+bit 2")),
            (Address, 10, 0, &[2], Some("2 hops")),
            (Message, 5, 1, &[3, 3, 1, 9, 0xaa, 0xbb], Some("HMAC SHA-256, key 09, 2 bytes")),
            (Message, 5, 2, &[3, 9, 0, 0], Some("9 SHA-256, 1 bytes, over the source address as well")),
            (Message, 5, 1, &[3, 3, 9], None),
            (Packet, 6, 0, &[1, 0], Some("counter 256")),
            (Packet, 6, 1, &[0, 0, 1, 0], Some("256 s since 1970")),
            (Message, 224, 0, &[2, 0, 0, 1, 0, 0xff], Some("kind 2, version 256, 1 bytes")),
            (Message, 2, 0, &[0], None),
            (Packet, 0, 0, &[0], None),
        ];
        for (place, kind, ext, bytes, meaning) in cases {
            assert_eq!(
                value(place, RECORD, (kind, ext), bytes).as_deref(),
                meaning,
                "{place:?} {kind} {ext}"
            );
        }
        assert_eq!((message(0), message(2), tlv(Message, 0, 224)), (Some("HELLO"), None, None));
    }
}

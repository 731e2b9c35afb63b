//! Netlink's wire format (netlink(7)): messages of a 16-byte header and a body, attributes of a 4-byte
//! header and a value, both padded to 4 bytes, in the machine's byte order.

use super::Error;

/// Flags of a message.
pub(super) mod flags {
    pub(in crate::netlink) const REQUEST: u16 = 0x1;
    pub(in crate::netlink) const ACK: u16 = 0x4;
    pub(in crate::netlink) const DUMP: u16 = 0x300;
    pub(in crate::netlink) const REPLACE: u16 = 0x100;
    pub(in crate::netlink) const EXCLUSIVE: u16 = 0x200;
    pub(in crate::netlink) const CREATE: u16 = 0x400;
    /// In an answer: the dump is inconsistent, the table changed meanwhile.
    pub(in crate::netlink) const DUMP_INTERRUPTED: u16 = 0x10;
    /// In an error message: attributes follow.
    pub(in crate::netlink) const ACK_TLVS: u16 = 0x200;
    /// In an error message: the request is not repeated.
    pub(in crate::netlink) const CAPPED: u16 = 0x100;
}

const HEADER: usize = 16;

/// One message as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// The bytes `at..at + N`, if they are there.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_ne_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_ne_bytes)
}

/// A 32-bit attribute's value.
pub(super) fn u32_of(value: &[u8]) -> Result<u32, Error> {
    value.try_into().map(u32::from_ne_bytes).map_err(|_| Error::Malformed("32-bit attribute"))
}

/// A text attribute's value, up to its NUL.
pub(super) fn text_of(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// The messages of one datagram.
pub(super) fn messages(bytes: &[u8]) -> impl Iterator<Item = Result<Message<'_>, Error>> {
    pieces(bytes, |rest| {
        let len = u32_at(rest, 0)? as usize;
        let body = rest.get(HEADER..len)?;
        let message =
            Message { kind: u16_at(rest, 4)?, flags: u16_at(rest, 6)?, sequence: u32_at(rest, 8)?, body };
        Some((message, len))
    })
    .map(|piece| piece.ok_or(Error::Malformed("message header")))
}

/// The attributes in `bytes`: type without its two flag bits, and value.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Error>> {
    pieces(bytes, |rest| {
        let len = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..len)?;
        Some(((u16_at(rest, 2)? & 0x3fff, value), len))
    })
    .map(|piece| piece.ok_or(Error::Malformed("attribute header")))
}

/// Cuts padded pieces off the front until nothing is left; `None` once, and the end, where one is broken.
fn pieces<'a, T>(
    bytes: &'a [u8],
    cut: impl Fn(&'a [u8]) -> Option<(T, usize)>,
) -> impl Iterator<Item = Option<T>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let piece = cut(rest);
        rest = match &piece {
            Some((_, len)) => rest.get(len.next_multiple_of(4)..).unwrap_or_default(),
            None => &[],
        };
        Some(piece.map(|(p, _)| p))
    })
}

/// The kernel's own words in an error message (NLMSGERR_ATTR_MSG of extended ACKs), if there are any.
pub(super) fn error_text(message: &Message<'_>) -> Option<String> {
    if message.flags & flags::ACK_TLVS == 0 {
        return None;
    }
    // errno, then the request (only its header if capped), then attributes
    let request = if message.flags & flags::CAPPED != 0 { HEADER } else { u32_at(message.body, 4)? as usize };
    let rest = message.body.get(4usize.checked_add(request.next_multiple_of(4))?..)?;
    attributes(rest).filter_map(Result::ok).find(|(kind, _)| *kind == 1).map(|(_, v)| text_of(v))
}

/// A request being written.
#[derive(Debug)]
pub(super) struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    /// A request of that type; `fixed` is the family's own header.
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | flags::REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        pad(&mut bytes);
        Self { bytes }
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        push_attribute(&mut self.bytes, kind, value);
    }

    pub(super) fn attribute_u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// The message's bytes, with `extra` flags and that sequence number.
    pub(super) fn finish(mut self, extra: u16, sequence: u32) -> Vec<u8> {
        let flags = u16_at(&self.bytes, 6).unwrap_or(0) | extra;
        let len = (self.bytes.len() as u32).to_ne_bytes();
        let fields = [(0, len.as_slice()), (6, &flags.to_ne_bytes()), (8, &sequence.to_ne_bytes())];
        for (at, field) in fields {
            if let Some(room) = self.bytes.get_mut(at..at + field.len()) {
                room.copy_from_slice(field);
            }
        }
        self.bytes
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = (value.len() + 4) as u16; // ours are short
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    pad(bytes);
}

/// The value of an attribute that holds attributes.
#[derive(Clone, Debug, Default)]
pub(super) struct Nest {
    bytes: Vec<u8>,
}

impl Nest {
    /// One that begins with a header of its own.
    pub(super) fn with_header(fixed: &[u8]) -> Self {
        Self { bytes: fixed.to_vec() }
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        push_attribute(&mut self.bytes, kind, value);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut b = Builder::new(24, flags::CREATE, &[1, 2, 3]);
        b.attribute(3, b"eth0\0");
        b.attribute_u32(0x8004, 77);
        b.finish(flags::ACK, 9)
    }

    #[test]
    fn what_is_built_reads_back() {
        let bytes = sample();
        let all: Vec<_> = messages(&bytes).collect::<Result<_, _>>().unwrap();
        let [m] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((m.kind, m.sequence), (24, 9));
        assert_eq!(m.flags, flags::REQUEST | flags::CREATE | flags::ACK);
        let attrs: Vec<_> = attributes(&m.body[4..]).collect::<Result<_, _>>().unwrap();
        assert_eq!(attrs.len(), 2);
        assert_eq!((attrs[0].0, text_of(attrs[0].1)), (3, "eth0".into()));
        assert_eq!((attrs[1].0, u32_of(attrs[1].1).unwrap()), (4, 77));
    }

    #[test]
    fn lies_about_lengths_are_errors_and_end_the_walk() {
        let bytes = sample();
        for cut in 1..bytes.len() {
            assert!(messages(&bytes[..cut]).all(|m| m.is_err()), "cut at {cut}");
        }
        for len in [0u32, 3, 15, 4096, u32::MAX] {
            let mut bytes = sample();
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(messages(&bytes).filter(Result::is_err).count(), 1, "length {len}");
        }
        for len in [0u16, 3, 200, u16::MAX] {
            let bad = [len.to_ne_bytes(), [1, 0]].concat();
            assert_eq!(attributes(&bad).filter(Result::is_err).count(), 1, "length {len}");
        }
    }

    #[test]
    fn extended_ack_text_is_found() {
        let mut body = (-22i32).to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; 16]);
        body.extend_from_slice(&[8, 0, 1, 0]);
        body.extend_from_slice(b"why\0");
        let m = Message { kind: 2, flags: flags::CAPPED | flags::ACK_TLVS, sequence: 0, body: &body };
        if cfg!(target_endian = "little") {
            assert_eq!(error_text(&m).as_deref(), Some("why"));
        }
        assert_eq!(error_text(&Message { flags: flags::CAPPED, ..m }), None);
        assert_eq!(error_text(&Message { body: &body[..6], ..m }), None);
    }
}

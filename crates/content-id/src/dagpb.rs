//! The dag-pb codec: a node is links and data (the DAG-PB specification).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::{Cid, varint};

/// The most links a node may have here: more than fit in a block of [`crate::MAX_BLOCK`] bytes with
/// digests of 32 bytes, so that old directories that should have been sharded are read, too.
pub const MAX_LINKS: usize = 65_536;

/// A link to a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The child.
    pub cid: Cid,
    /// The link's name; absent and empty are different on the wire.
    pub name: Option<String>,
    /// Claimed size of the child and all below it in bytes, not verified.
    pub tsize: Option<u64>,
}

/// A decoded node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Links in wire order.
    pub links: Vec<Link>,
    /// The data, for UnixFS one [`crate::unixfs::Data`] message.
    pub data: Option<Vec<u8>>,
}

/// Why bytes are not a dag-pb node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DagPbError {
    /// The bytes end inside a field.
    Truncated,
    /// A field that does not exist, or of the wrong type.
    BadField(u64),
    /// A field that comes twice, or too late.
    BadOrder,
    /// A link without a CID, or with a broken one.
    BadLink,
    /// A name that is not UTF-8.
    BadName,
    /// More than [`MAX_LINKS`] links.
    TooManyLinks,
    /// More than [`crate::MAX_BLOCK`] bytes.
    TooLarge,
}

impl fmt::Display for DagPbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "not a dag-pb node: it is cut short",
            Self::BadField(_) => "not a dag-pb node: unknown field",
            Self::BadOrder => "not a dag-pb node: fields are repeated or out of order",
            Self::BadLink => "not a dag-pb node: a link has no valid CID",
            Self::BadName => "not a dag-pb node: a link's name is not UTF-8",
            Self::TooManyLinks => "a dag-pb node with too many links",
            Self::TooLarge => "a dag-pb node over the limit of 2 MiB",
        })
    }
}

impl core::error::Error for DagPbError {}

/// One protobuf field.
pub(crate) enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
    Fixed64,
}

/// Splits one field off a protobuf message: number, value, rest.
pub(crate) fn field(bytes: &[u8]) -> Option<(u64, Field<'_>, &[u8])> {
    let (key, rest) = varint::protobuf(bytes)?;
    let (value, rest) = match key & 7 {
        0 => varint::protobuf(rest).map(|(v, rest)| (Field::Varint(v), rest))?,
        1 => rest.split_first_chunk::<8>().map(|(_, rest)| (Field::Fixed64, rest))?,
        2 => {
            let (length, rest) = varint::protobuf(rest)?;
            let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            (Field::Bytes(value), rest)
        }
        5 => rest.split_first_chunk().map(|(v, rest)| (Field::Fixed32(u32::from_le_bytes(*v)), rest))?,
        _ => return None,
    };
    Some((key >> 3, value, rest))
}

/// Appends a varint field.
pub(crate) fn put_varint(number: u64, value: u64, out: &mut Vec<u8>) {
    varint::write(number << 3, out);
    varint::write(value, out);
}

/// Appends a length-delimited field.
pub(crate) fn put_bytes(number: u64, value: &[u8], out: &mut Vec<u8>) {
    varint::write((number << 3) | 2, out);
    varint::write(value.len() as u64, out);
    out.extend_from_slice(value);
}

impl Node {
    /// Decodes a block. The data may come before or after the links, but not between them.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, DagPbError> {
        if bytes.len() > crate::MAX_BLOCK {
            return Err(DagPbError::TooLarge);
        }
        let mut node = Self::default();
        let mut links_done = false;
        while !bytes.is_empty() {
            let (number, value, rest) = field(bytes).ok_or(DagPbError::Truncated)?;
            match (number, value) {
                (1, Field::Bytes(_)) if node.data.is_some() => return Err(DagPbError::BadOrder),
                (1, Field::Bytes(data)) => {
                    node.data = Some(data.into());
                    links_done = !node.links.is_empty();
                }
                (2, Field::Bytes(_)) if links_done => return Err(DagPbError::BadOrder),
                (2, Field::Bytes(_)) if node.links.len() >= MAX_LINKS => {
                    return Err(DagPbError::TooManyLinks);
                }
                (2, Field::Bytes(link)) => node.links.push(Link::parse(link)?),
                (number, _) => return Err(DagPbError::BadField(number)),
            }
            bytes = rest;
        }
        Ok(node)
    }

    /// The canonical encoding: links in the order given, then the data.
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.links, self.data.as_deref())
    }
}

/// The canonical encoding of a node.
pub fn encode(links: &[Link], data: Option<&[u8]>) -> Vec<u8> {
    let length = |l: &Link| link_length(l.cid.byte_length(), l.name.as_ref().map(String::len), l.tsize);
    let total: usize = links.iter().map(length).sum();
    let mut out = Vec::with_capacity(total + data.map_or(0, |d| field_length(d.len())));
    for link in links {
        put_bytes(2, &link.encode(), &mut out);
    }
    if let Some(data) = data {
        put_bytes(1, data, &mut out);
    }
    out
}

impl Link {
    fn parse(mut bytes: &[u8]) -> Result<Self, DagPbError> {
        let (mut cid, mut name, mut tsize, mut last) = (None, None, None, 0);
        while !bytes.is_empty() {
            let (number, value, rest) = field(bytes).ok_or(DagPbError::Truncated)?;
            if number <= last {
                return Err(DagPbError::BadOrder);
            }
            match (number, value) {
                (1, Field::Bytes(v)) => cid = Some(Cid::from_bytes(v).map_err(|_| DagPbError::BadLink)?),
                (2, Field::Bytes(v)) => {
                    name = Some(core::str::from_utf8(v).map_err(|_| DagPbError::BadName)?.into());
                }
                (3, Field::Varint(v)) => tsize = Some(v),
                (number, _) => return Err(DagPbError::BadField(number)),
            }
            last = number;
            bytes = rest;
        }
        Ok(Self { cid: cid.ok_or(DagPbError::BadLink)?, name, tsize })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        put_bytes(1, &self.cid.to_bytes(), &mut out);
        if let Some(name) = &self.name {
            put_bytes(2, name.as_bytes(), &mut out);
        }
        if let Some(tsize) = self.tsize {
            put_varint(3, tsize, &mut out);
        }
        out
    }
}

/// Bytes that a length-delimited field takes.
pub(crate) const fn field_length(length: usize) -> usize {
    1 + varint::length(length as u64) + length
}

/// Bytes that a link takes in an encoded node, given the lengths of its CID and name.
pub(crate) fn link_length(cid: usize, name: Option<usize>, tsize: Option<u64>) -> usize {
    let name = name.map_or(0, field_length);
    let tsize = tsize.map_or(0, |size| 1 + varint::length(size));
    field_length(field_length(cid) + name + tsize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Codec, Version};
    use alloc::vec;
    use proptest::prelude::*;

    fn link(name: &str) -> Link {
        Link { cid: Cid::of(Version::V1, Codec::RAW, b"x"), name: Some(name.into()), tsize: Some(1) }
    }

    #[test]
    fn order_of_fields_is_checked() {
        let node = Node { links: vec![link("a"), link("b")], data: Some(vec![8, 1]) };
        let bytes = node.encode();
        assert_eq!(Node::parse(&bytes).unwrap(), node);
        let length = |l: &Link| link_length(l.cid.byte_length(), l.name.as_ref().map(String::len), l.tsize);
        assert_eq!(bytes.len(), node.links.iter().map(length).sum::<usize>() + 4);
        let mut data_first = vec![0x0a, 2, 8, 1];
        data_first.extend_from_slice(&bytes[..bytes.len() - 4]);
        assert_eq!(Node::parse(&data_first).unwrap(), node);
        let one = Node { links: vec![link("a")], data: Some(vec![]) }.encode();
        let split = [&one[..], &one[..one.len() - 2]].concat();
        assert_eq!(Node::parse(&split), Err(DagPbError::BadOrder));
        assert_eq!(Node::parse(&[0x0a, 0, 0x0a, 0]), Err(DagPbError::BadOrder));
        assert_eq!(Node::parse(&[0x12, 0]), Err(DagPbError::BadLink));
        assert_eq!(Node::parse(&[0x1a, 0]), Err(DagPbError::BadField(3)));
        assert_eq!(Node::parse(&[0x0a, 5, 0]), Err(DagPbError::Truncated));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Node::parse(&bytes);
        }

        #[test]
        fn parse_after_encode_is_identity(names in proptest::collection::vec(".{0,12}", 0..6), data: Option<Vec<u8>>) {
            let node = Node { links: names.iter().map(|n| link(n)).collect(), data };
            prop_assert_eq!(Node::parse(&node.encode()).unwrap(), node);
        }
    }
}

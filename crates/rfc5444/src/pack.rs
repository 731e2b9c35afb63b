//! From "these addresses, each with these attributes" to few, short address blocks.

use alloc::vec::Vec;

use crate::{Address, AddressBlock, AddressTlv};

/// One attribute of one address: a TLV type, extension and a short value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// TLV type.
    pub kind: u8,
    /// TLV type extension.
    pub ext: u8,
    len: u8,
    bytes: [u8; 8],
}

impl Attribute {
    /// With extension 0. Values are cut after eight octets; those of OLSRv2 have one or two.
    pub fn new(kind: u8, value: &[u8]) -> Self {
        Self::with_ext(kind, 0, value)
    }

    /// With an extension.
    pub fn with_ext(kind: u8, ext: u8, value: &[u8]) -> Self {
        let mut bytes = [0; 8];
        let len = value.len().min(bytes.len());
        bytes.iter_mut().zip(value).for_each(|(to, from)| *to = *from);
        Self { kind, ext, len: len as u8, bytes }
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// An address and all that is said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributed {
    /// The address.
    pub address: Address,
    /// Its attributes. Two of one type and extension need different values; they become two TLVs.
    pub attributes: Vec<Attribute>,
}

/// Packs addresses into blocks: those with the same first octet share one, in the order given; attributes
/// become TLVs over ranges, multivalued where that is shorter. Put addresses with like attributes together.
pub fn pack(entries: &[Attributed]) -> Vec<AddressBlock> {
    let mut firsts: Vec<u8> = Vec::new();
    for entry in entries {
        let first = first_octet(&entry.address);
        if !firsts.contains(&first) {
            firsts.push(first);
        }
    }
    let mut blocks = Vec::new();
    for first in firsts {
        let group: Vec<&Attributed> = entries.iter().filter(|e| first_octet(&e.address) == first).collect();
        blocks.extend(group.chunks(255).map(block));
    }
    blocks
}

fn first_octet(address: &Address) -> u8 {
    address.octets().first().copied().unwrap_or(0)
}

fn block(entries: &[&Attributed]) -> AddressBlock {
    let addresses = entries.iter().map(|e| e.address).collect();
    // The n-th attribute of a type is a column of its own.
    let mut columns: Vec<(u8, u8, usize)> = Vec::new();
    for entry in entries {
        for (i, a) in entry.attributes.iter().enumerate() {
            let nth = entry.attributes.iter().take(i).filter(|b| same_type(a, b)).count();
            if !columns.contains(&(a.kind, a.ext, nth)) {
                columns.push((a.kind, a.ext, nth));
            }
        }
    }
    let mut tlvs = Vec::new();
    for (kind, ext, nth) in columns {
        let column: Vec<Option<&Attribute>> = entries
            .iter()
            .map(|e| e.attributes.iter().filter(|a| a.kind == kind && a.ext == ext).nth(nth))
            .collect();
        column_tlvs(&column, &mut tlvs);
    }
    AddressBlock { addresses, tlvs }
}

fn same_type(a: &Attribute, b: &Attribute) -> bool {
    a.kind == b.kind && a.ext == b.ext
}

/// The TLVs of one column: runs of addresses that have the attribute.
fn column_tlvs(column: &[Option<&Attribute>], out: &mut Vec<AddressTlv>) {
    let mut at = 0;
    for run in column.chunk_by(|a, b| match (a, b) {
        (Some(a), Some(b)) => a.len == b.len,
        (None, None) => true,
        _ => false,
    }) {
        let values: Vec<&Attribute> = run.iter().filter_map(|a| *a).collect();
        if let Some(first) = values.first() {
            let pieces = values.chunk_by(|a, b| a == b).count();
            let piece_cost = 4 + usize::from(first.len);
            let multi_cost = 5 + usize::from(first.len) * values.len();
            if pieces > 1 && multi_cost < pieces * piece_cost {
                let value = values.iter().flat_map(|a| a.value().iter().copied()).collect();
                out.push(tlv(first, at, values.len(), true, value));
            } else {
                let mut start = at;
                for piece in values.chunk_by(|a, b| a == b) {
                    let value = piece.first().map(|a| a.value().to_vec()).unwrap_or_default();
                    out.push(tlv(first, start, piece.len(), false, value));
                    start += piece.len();
                }
            }
        }
        at += run.len();
    }
}

fn tlv(like: &Attribute, start: usize, count: usize, multivalue: bool, value: Vec<u8>) -> AddressTlv {
    let index = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    AddressTlv {
        kind: like.kind,
        ext: like.ext,
        start: index(start),
        stop: index(start + count - 1),
        multivalue,
        value: Some(value),
    }
}

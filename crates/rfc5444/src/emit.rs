//! Values to bytes. Address blocks are compressed; flags are chosen as RFC 5444 demands.

use alloc::vec::Vec;

use crate::view::flag;
use crate::{Address, AddressBlock, AddressTlv, EmitError, Message, Packet, Tlv};

impl Packet {
    /// The packet's bytes.
    ///
    /// # Errors
    /// [`EmitError`] names what RFC 5444 has no room for.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EmitError> {
        let mut out = Vec::new();
        packet_header(self.seq, self.tlvs.as_deref(), &mut out)?;
        for message in &self.messages {
            message.emit(&mut out)?;
        }
        Ok(out)
    }
}

/// Appends a packet header (RFC 5444 §5.1); messages follow as they are.
///
/// # Errors
/// The TLVs are too long.
pub fn packet_header(seq: Option<u16>, tlvs: Option<&[Tlv]>, out: &mut Vec<u8>) -> Result<(), EmitError> {
    let seq_flag = if seq.is_some() { flag::PKT_SEQ } else { 0 };
    let tlv_flag = if tlvs.is_some() { flag::PKT_TLV } else { 0 };
    out.push(seq_flag | tlv_flag);
    if let Some(seq) = seq {
        out.extend_from_slice(&seq.to_be_bytes());
    }
    tlvs.map_or(Ok(()), |tlvs| tlv_block(tlvs, out))
}

impl Message {
    /// Appends the message's bytes. After an error `out` holds rubbish.
    ///
    /// # Errors
    /// [`EmitError`] names what RFC 5444 has no room for.
    pub fn emit(&self, out: &mut Vec<u8>) -> Result<(), EmitError> {
        let start = out.len();
        let addr_len = self.addr_len.clamp(1, 16);
        let flags = [
            (self.originator.is_some(), flag::MSG_ORIG),
            (self.hop_limit.is_some(), flag::MSG_HOP_LIMIT),
            (self.hop_count.is_some(), flag::MSG_HOP_COUNT),
            (self.seq.is_some(), flag::MSG_SEQ),
        ];
        let flags = flags.iter().filter(|(on, _)| *on).fold(0, |all, (_, bit)| all | bit);
        out.extend_from_slice(&[self.kind, flags | (addr_len - 1), 0, 0]);
        if let Some(originator) = self.originator {
            check_len(&originator, addr_len)?;
            out.extend_from_slice(originator.octets());
        }
        out.extend(self.hop_limit);
        out.extend(self.hop_count);
        if let Some(seq) = self.seq {
            out.extend_from_slice(&seq.to_be_bytes());
        }
        tlv_block(&self.tlvs, out)?;
        for block in &self.blocks {
            address_block(block, addr_len, out)?;
        }
        let size = out.len() - start;
        let size16 = u16::try_from(size).map_err(|_| EmitError::MessageTooLong(size))?;
        put_u16(out, start + 2, size16);
        Ok(())
    }
}

fn check_len(address: &Address, addr_len: u8) -> Result<(), EmitError> {
    match u8::try_from(address.octets().len()) {
        Ok(n) if n == addr_len => Ok(()),
        n => Err(EmitError::AddressLength(n.unwrap_or(u8::MAX))),
    }
}

fn put_u16(out: &mut [u8], at: usize, value: u16) {
    if let Some(field) = out.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Appends a length field, runs `body`, then fills the field in.
fn with_length(
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EmitError>,
) -> Result<(), EmitError> {
    let at = out.len();
    out.extend_from_slice(&[0, 0]);
    body(out)?;
    let len = out.len() - at - 2;
    put_u16(out, at, u16::try_from(len).map_err(|_| EmitError::TlvTooLong(len))?);
    Ok(())
}

fn tlv_block(tlvs: &[Tlv], out: &mut Vec<u8>) -> Result<(), EmitError> {
    with_length(out, |out| tlvs.iter().try_for_each(|t| tlv(t.kind, t.ext, &[], 0, t.value.as_deref(), out)))
}

/// One TLV; `index` holds no, one or two indices.
fn tlv(
    kind: u8,
    ext: u8,
    index: &[u8],
    flags: u8,
    value: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Result<(), EmitError> {
    let len = value.map_or(0, <[u8]>::len);
    let len16 = u16::try_from(len).map_err(|_| EmitError::TlvTooLong(len))?;
    let mut flags = flags;
    flags |= if ext != 0 { flag::TLV_EXT } else { 0 };
    flags |= match index.len() {
        0 => 0,
        1 => flag::TLV_SINGLE_INDEX,
        _ => flag::TLV_MULTI_INDEX,
    };
    flags |= if value.is_some() { flag::TLV_VALUE } else { 0 };
    flags |= if len > 255 { flag::TLV_EXT_LEN } else { 0 };
    out.extend_from_slice(&[kind, flags]);
    if ext != 0 {
        out.push(ext);
    }
    out.extend_from_slice(index);
    if let Some(value) = value {
        let [high, low] = len16.to_be_bytes();
        if len > 255 {
            out.push(high);
        }
        out.push(low);
        out.extend_from_slice(value);
    }
    Ok(())
}

fn address_tlv(t: &AddressTlv, count: u8, out: &mut Vec<u8>) -> Result<(), EmitError> {
    if t.start > t.stop || t.stop >= count {
        return Err(EmitError::TlvIndex(t.stop));
    }
    let values = usize::from(t.stop - t.start) + 1;
    let multivalue = t.multivalue && values > 1 && t.value.is_some();
    if multivalue && t.value.as_ref().is_some_and(|v| v.len() % values != 0) {
        return Err(EmitError::TlvIndex(t.stop));
    }
    let pair = [t.start, t.stop];
    let index: &[u8] = if multivalue {
        &pair // §5.4.1: tismultivalue needs thasmultiindex, even for the whole block
    } else if t.start == 0 && t.stop == count - 1 {
        &[]
    } else if t.start == t.stop {
        &pair[..1]
    } else {
        &pair
    };
    let flags = if multivalue { flag::TLV_MULTIVALUE } else { 0 };
    tlv(t.kind, t.ext, index, flags, t.value.as_deref(), out)
}

fn address_block(block: &AddressBlock, addr_len: u8, out: &mut Vec<u8>) -> Result<(), EmitError> {
    let count = u8::try_from(block.addresses.len()).ok().filter(|n| *n > 0);
    let count = count.ok_or(EmitError::AddressCount(block.addresses.len()))?;
    block.addresses.iter().try_for_each(|a| check_len(a, addr_len))?;
    let shape = Shape::of(&block.addresses, addr_len);
    let flags_at = out.len() + 1;
    out.extend_from_slice(&[count, shape.flags()]);
    let first = block.addresses.first().map(Address::octets).unwrap_or_default();
    let len = usize::from(addr_len);
    if shape.head > 0 {
        out.push(shape.head as u8);
        out.extend_from_slice(first.get(..shape.head).unwrap_or_default());
    }
    if shape.tail > 0 {
        out.push(shape.tail as u8);
        if !shape.zero_tail {
            out.extend_from_slice(first.get(len - shape.tail..).unwrap_or_default());
        }
    }
    for address in &block.addresses {
        out.extend_from_slice(address.octets().get(shape.head..len - shape.tail).unwrap_or_default());
    }
    let prefix = block.addresses.first().map_or(0, Address::prefix_len);
    if block.addresses.iter().any(|a| a.prefix_len() != prefix) {
        set_flag(out, flags_at, flag::ADDR_MULTI_PREFIX);
        out.extend(block.addresses.iter().map(Address::prefix_len));
    } else if prefix != addr_len * 8 {
        set_flag(out, flags_at, flag::ADDR_SINGLE_PREFIX);
        out.push(prefix);
    }
    with_length(out, |out| block.tlvs.iter().try_for_each(|t| address_tlv(t, count, out)))
}

fn set_flag(out: &mut [u8], at: usize, bit: u8) {
    if let Some(byte) = out.get_mut(at) {
        *byte |= bit;
    }
}

/// How a block's addresses are cut into head, mid and tail.
struct Shape {
    head: usize,
    tail: usize,
    zero_tail: bool,
}

impl Shape {
    /// The cut that takes the fewest bytes.
    fn of(addresses: &[Address], addr_len: u8) -> Self {
        let len = usize::from(addr_len);
        let Some((first, rest)) = addresses.split_first() else {
            return Self { head: 0, tail: 0, zero_tail: false };
        };
        let first = first.octets();
        let common = |a: &mut dyn Iterator<Item = (&u8, &u8)>| a.take_while(|(x, y)| x == y).count();
        // A mid is empty only before a zero tail: some routers refuse a head as long as the address.
        let mut head = len.saturating_sub(1);
        let mut tail = len;
        for other in rest.iter().map(Address::octets) {
            head = head.min(common(&mut first.iter().zip(other)));
            tail = tail.min(common(&mut first.iter().rev().zip(other.iter().rev())));
        }
        let zeros = first.iter().rev().take(tail).take_while(|b| **b == 0).count();
        if rest.is_empty() {
            // One address: only zeros at its end are worth a length field.
            let tail = if zeros > 1 { zeros } else { 0 };
            return Self { head: 0, tail, zero_tail: tail > 0 };
        }
        tail = tail.min(len - head);
        let zeros = zeros.min(tail);
        let tail = tail.min(len.saturating_sub(head + 1));
        // Each octet of head or tail saves one per further address and costs one field.
        let saved = |octets: usize, sent: usize| octets * addresses.len() > 1 + sent;
        if !saved(head, head) {
            head = 0;
        }
        let zero_gain = (zeros * addresses.len()).saturating_sub(1);
        let full_gain = (tail * rest.len()).saturating_sub(1);
        if zero_gain == 0 && full_gain == 0 {
            Self { head, tail: 0, zero_tail: false }
        } else if zero_gain >= full_gain {
            Self { head, tail: zeros, zero_tail: true }
        } else {
            Self { head, tail, zero_tail: false }
        }
    }

    fn flags(&self) -> u8 {
        let head = if self.head > 0 { flag::ADDR_HEAD } else { 0 };
        let tail = match (self.tail, self.zero_tail) {
            (0, _) => 0,
            (_, true) => flag::ADDR_ZERO_TAIL,
            (_, false) => flag::ADDR_FULL_TAIL,
        };
        head | tail
    }
}

//! The checked view: everything is verified once, then iterators read without allocating.

use crate::cursor::Cursor;
use crate::{Address, Error, ErrorKind};

pub(crate) mod flag {
    pub(crate) const PKT_SEQ: u8 = 0x08;
    pub(crate) const PKT_TLV: u8 = 0x04;
    pub(crate) const MSG_ORIG: u8 = 0x80;
    pub(crate) const MSG_HOP_LIMIT: u8 = 0x40;
    pub(crate) const MSG_HOP_COUNT: u8 = 0x20;
    pub(crate) const MSG_SEQ: u8 = 0x10;
    pub(crate) const ADDR_HEAD: u8 = 0x80;
    pub(crate) const ADDR_FULL_TAIL: u8 = 0x40;
    pub(crate) const ADDR_ZERO_TAIL: u8 = 0x20;
    pub(crate) const ADDR_SINGLE_PREFIX: u8 = 0x10;
    pub(crate) const ADDR_MULTI_PREFIX: u8 = 0x08;
    pub(crate) const TLV_EXT: u8 = 0x80;
    pub(crate) const TLV_SINGLE_INDEX: u8 = 0x40;
    pub(crate) const TLV_MULTI_INDEX: u8 = 0x20;
    pub(crate) const TLV_VALUE: u8 = 0x10;
    pub(crate) const TLV_EXT_LEN: u8 = 0x08;
    pub(crate) const TLV_MULTIVALUE: u8 = 0x04;
}

/// A packet (RFC 5444 §5.1) whose header, packet TLVs and message framing are right.
#[derive(Clone, Copy, Debug)]
pub struct PacketView<'a> {
    seq: Option<u16>,
    tlvs: Option<Cursor<'a>>,
    messages: Cursor<'a>,
}

impl<'a> PacketView<'a> {
    /// Checks the packet header, its TLVs and that messages tile the rest exactly. The messages' bodies
    /// are checked one by one ([`RawMessage::check`]): one bad message does not spoil the others (§5.5).
    ///
    /// # Errors
    /// What is malformed and where; the whole packet must then be dropped.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let packet = Self::header(bytes)?;
        let mut cursor = packet.messages;
        while !cursor.is_empty() {
            raw_message(&mut cursor)?;
        }
        Ok(packet)
    }

    fn header(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut cursor = Cursor::new(bytes, 0);
        let first = cursor.u8()?;
        if first >> 4 != 0 {
            return Err(Error { kind: ErrorKind::Version(first >> 4), offset: 0 });
        }
        let seq = if first & flag::PKT_SEQ != 0 { Some(cursor.u16()?) } else { None };
        let tlvs = if first & flag::PKT_TLV != 0 { Some(tlv_block(&mut cursor, None)?) } else { None };
        Ok(Self { seq, tlvs, messages: cursor })
    }

    /// The same for a person's eyes: the messages before the first whose header is malformed, and what is
    /// wrong with that. A router must not use it.
    ///
    /// # Errors
    /// The packet header is malformed.
    pub fn salvage(bytes: &'a [u8]) -> Result<(Self, Option<Error>), Error> {
        let mut packet = Self::header(bytes)?;
        let mut cursor = packet.messages;
        while !cursor.is_empty() {
            let good = cursor.offset() - packet.messages.offset();
            if let Err(e) = raw_message(&mut cursor) {
                packet.messages = packet.messages.sub(good)?;
                return Ok((packet, Some(e)));
            }
        }
        Ok((packet, None))
    }

    /// Packet sequence number.
    pub fn seq(&self) -> Option<u16> {
        self.seq
    }

    /// Whether the packet has a TLV block, be it empty.
    pub fn has_tlvs(&self) -> bool {
        self.tlvs.is_some()
    }

    /// Packet TLVs.
    pub fn tlvs(&self) -> TlvIter<'a> {
        TlvIter { cursor: self.tlvs.unwrap_or(Cursor::new(&[], 0)), last: None }
    }

    /// The messages, in order.
    pub fn messages(&self) -> MessageIter<'a> {
        MessageIter { cursor: self.messages }
    }
}

/// The messages of a packet.
#[derive(Clone, Debug)]
pub struct MessageIter<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Iterator for MessageIter<'a> {
    type Item = RawMessage<'a>;
    fn next(&mut self) -> Option<RawMessage<'a>> {
        raw_message(&mut self.cursor).ok()
    }
}

/// A message (RFC 5444 §5.2) of which only the header is checked.
#[derive(Clone, Copy, Debug)]
pub struct RawMessage<'a> {
    kind: u8,
    addr_len: u8,
    originator: Option<Address>,
    hop_limit: Option<u8>,
    hop_count: Option<u8>,
    seq: Option<u16>,
    whole: Cursor<'a>,
    body: Cursor<'a>,
}

impl<'a> RawMessage<'a> {
    /// One message on its own; `bytes` must hold it exactly.
    ///
    /// # Errors
    /// What is malformed and where.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut cursor = Cursor::new(bytes, 0);
        let message = raw_message(&mut cursor)?;
        if cursor.is_empty() {
            return Ok(message);
        }
        let size = u16::try_from(message.bytes().len()).unwrap_or(u16::MAX);
        Err(Error { kind: ErrorKind::MessageSize(size), offset: 2 })
    }

    /// Message type.
    pub fn kind(&self) -> u8 {
        self.kind
    }
    /// Length of all addresses in the message, 1 ..= 16 octets.
    pub fn addr_len(&self) -> u8 {
        self.addr_len
    }
    /// Originator address.
    pub fn originator(&self) -> Option<Address> {
        self.originator
    }
    /// Hop limit.
    pub fn hop_limit(&self) -> Option<u8> {
        self.hop_limit
    }
    /// Hop count.
    pub fn hop_count(&self) -> Option<u8> {
        self.hop_count
    }
    /// Message sequence number.
    pub fn seq(&self) -> Option<u16> {
        self.seq
    }
    /// The message as received, header included.
    pub fn bytes(&self) -> &'a [u8] {
        self.whole.rest()
    }
    /// Where it begins, in bytes from the start of the packet.
    pub fn offset(&self) -> usize {
        self.whole.offset()
    }

    /// Checks the message TLVs and every address block.
    ///
    /// # Errors
    /// What is malformed and where; the message must then be neither processed nor forwarded (§5.5).
    pub fn check(&self) -> Result<MessageView<'a>, Error> {
        let mut cursor = self.body;
        let tlvs = tlv_block(&mut cursor, None)?;
        let blocks = cursor;
        while !cursor.is_empty() {
            address_block(&mut cursor, self.addr_len)?;
        }
        Ok(MessageView { header: *self, tlvs, blocks })
    }

    /// The offset of the hop limit, if present, and of the hop count, if present.
    fn hop_offsets(&self) -> (Option<usize>, Option<usize>) {
        let after = 4 + if self.originator.is_some() { usize::from(self.addr_len) } else { 0 };
        let limit = self.hop_limit.map(|_| after);
        let count = self.hop_count.map(|_| after + usize::from(self.hop_limit.is_some()));
        (limit, count)
    }

    /// Appends the message to `out` as a router forwards it: hop limit one less, hop count one more, all
    /// else untouched (RFC 7181 §14.3). `false`, and nothing is appended, if the hops are used up or the
    /// message has no hop limit.
    pub fn forward(&self, out: &mut alloc::vec::Vec<u8>) -> bool {
        let Some(limit) = self.hop_limit.filter(|n| *n > 1) else { return false };
        if self.hop_count == Some(u8::MAX) {
            return false;
        }
        let (limit_at, count_at) = self.hop_offsets();
        let start = out.len();
        out.extend_from_slice(self.bytes());
        if let Some(byte) = limit_at.and_then(|at| out.get_mut(start + at)) {
            *byte = limit - 1;
        }
        if let Some(byte) = count_at.and_then(|at| out.get_mut(start + at)) {
            *byte = byte.saturating_add(1);
        }
        true
    }
}

/// A message that is right throughout.
#[derive(Clone, Copy, Debug)]
pub struct MessageView<'a> {
    header: RawMessage<'a>,
    tlvs: Cursor<'a>,
    blocks: Cursor<'a>,
}

impl<'a> MessageView<'a> {
    /// The header and the raw bytes.
    pub fn header(&self) -> &RawMessage<'a> {
        &self.header
    }
    /// Message TLVs.
    pub fn tlvs(&self) -> TlvIter<'a> {
        TlvIter { cursor: self.tlvs, last: None }
    }
    /// Address blocks.
    pub fn blocks(&self) -> BlockIter<'a> {
        BlockIter { cursor: self.blocks, addr_len: self.header.addr_len }
    }

    /// How often an address and a TLV of its block have to be looked at together: what it costs to read all.
    /// 64 kB can hold millions of such pairs.
    pub fn pairs(&self) -> usize {
        self.blocks().map(|b| usize::from(b.count()) * b.tlvs().count()).sum()
    }

    /// Hands the message to `part`, piece by piece, as it is without its message TLVs of type `kind`, all
    /// sizes made to fit, and with hop limit and hop count 0: what an ICV covers (RFC 7182 §9.1).
    pub fn without_tlvs(&self, kind: u8, mut part: impl FnMut(&[u8])) {
        let kept = || self.tlvs_with_bytes().filter(|(t, _)| t.kind != kind).map(|(_, bytes)| bytes);
        // Never more than what was there, which fits 16 bits.
        let kept_len = kept().map(<[u8]>::len).sum::<usize>() as u16;
        let size = (self.header.bytes().len() - self.tlvs.rest().len()) as u16 + kept_len;
        let mut header = [0; 24];
        let header_len = self.header.body.offset() - self.header.whole.offset();
        header.iter_mut().zip(self.header.bytes()).take(header_len).for_each(|(to, from)| *to = *from);
        let (limit, count) = self.header.hop_offsets();
        for at in [limit, count].into_iter().flatten() {
            if let Some(byte) = header.get_mut(at) {
                *byte = 0;
            }
        }
        if let Some(field) = header.get_mut(2..4) {
            field.copy_from_slice(&size.to_be_bytes());
        }
        part(header.get(..header_len).unwrap_or_default());
        part(&kept_len.to_be_bytes());
        kept().for_each(&mut part);
        part(self.blocks.rest());
    }

    /// Message TLVs, each with its own bytes.
    fn tlvs_with_bytes(&self) -> impl Iterator<Item = (TlvView<'a>, &'a [u8])> + use<'a> {
        let mut cursor = self.tlvs;
        core::iter::from_fn(move || {
            let before = cursor.rest();
            let tlv = tlv(&mut cursor, None).ok()?;
            before.get(..before.len() - cursor.rest().len()).map(|bytes| (tlv, bytes))
        })
    }
}

/// The address blocks of a message.
#[derive(Clone, Debug)]
pub struct BlockIter<'a> {
    cursor: Cursor<'a>,
    addr_len: u8,
}

impl<'a> Iterator for BlockIter<'a> {
    type Item = AddressBlockView<'a>;
    fn next(&mut self) -> Option<AddressBlockView<'a>> {
        address_block(&mut self.cursor, self.addr_len).ok()
    }
}

/// An address block and its TLVs (RFC 5444 §5.3).
#[derive(Clone, Copy, Debug)]
pub struct AddressBlockView<'a> {
    count: u8,
    addr_len: u8,
    head: &'a [u8],
    /// Empty for a zero tail.
    tail: &'a [u8],
    mid_len: usize,
    mids: &'a [u8],
    /// None, one, or one per address.
    prefixes: &'a [u8],
    tlvs: Cursor<'a>,
}

impl<'a> AddressBlockView<'a> {
    /// How many addresses, 1 ..= 255.
    pub fn count(&self) -> u8 {
        self.count
    }

    /// The address at `index`, head, mid and tail put together.
    pub fn address(&self, index: u8) -> Option<Address> {
        if index >= self.count {
            return None;
        }
        let index = usize::from(index);
        let mid = self.mids.get(index * self.mid_len..(index + 1) * self.mid_len)?;
        let mut octets = [0u8; 16];
        let parts = self.head.iter().chain(mid);
        octets.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        let tail_at = usize::from(self.addr_len) - self.tail.len();
        octets.iter_mut().skip(tail_at).zip(self.tail).for_each(|(to, from)| *to = *from);
        let prefix = match self.prefixes {
            [] => self.addr_len * 8,
            [one] => *one,
            each => *each.get(index)?,
        };
        Address::new(octets.get(..usize::from(self.addr_len))?, prefix)
    }

    /// All addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Address> + 'a {
        let block = *self;
        (0..block.count).filter_map(move |i| block.address(i))
    }

    /// The block's TLVs.
    pub fn tlvs(&self) -> TlvIter<'a> {
        TlvIter { cursor: self.tlvs, last: Some(self.count - 1) }
    }
}

/// The TLVs of a block.
#[derive(Clone, Debug)]
pub struct TlvIter<'a> {
    cursor: Cursor<'a>,
    last: Option<u8>,
}

impl<'a> Iterator for TlvIter<'a> {
    type Item = TlvView<'a>;
    fn next(&mut self) -> Option<TlvView<'a>> {
        tlv(&mut self.cursor, self.last).ok()
    }
}

/// One TLV (RFC 5444 §5.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlvView<'a> {
    /// Type.
    pub kind: u8,
    /// Type extension, 0 if absent.
    pub ext: u8,
    /// First address it applies to (0 for packet and message TLVs).
    pub start: u8,
    /// Last address it applies to.
    pub stop: u8,
    /// Each address has its own equal share of the value.
    pub multivalue: bool,
    /// The value; `None` if the TLV has none, which is not the same as an empty one.
    pub value: Option<&'a [u8]>,
}

impl<'a> TlvView<'a> {
    /// The value for the address at `index`: `None` if the TLV does not apply to it, else its value
    /// (empty if there is none).
    pub fn value_at(&self, index: u8) -> Option<&'a [u8]> {
        if !(self.start..=self.stop).contains(&index) {
            return None;
        }
        let Some(value) = self.value else { return Some(&[]) };
        if !self.multivalue {
            return Some(value);
        }
        let each = value.len() / (usize::from(self.stop - self.start) + 1);
        let at = usize::from(index - self.start) * each;
        value.get(at..at + each)
    }
}

fn raw_message<'a>(cursor: &mut Cursor<'a>) -> Result<RawMessage<'a>, Error> {
    let start = *cursor;
    let kind = cursor.u8()?;
    let flags = cursor.u8()?;
    let size_at = *cursor;
    let size = cursor.u16()?;
    let bad_size = size_at.error(ErrorKind::MessageSize(size));
    let mut whole = start;
    let whole = whole.sub(size.into()).map_err(|_| bad_size)?;
    let mut inner = Cursor::new(whole.rest().get(4..).ok_or(bad_size)?, whole.offset() + 4);
    let addr_len = (flags & 0x0f) + 1;
    let originator = if flags & flag::MSG_ORIG != 0 {
        Address::new(inner.take(addr_len.into())?, addr_len * 8)
    } else {
        None
    };
    let hop_limit = if flags & flag::MSG_HOP_LIMIT != 0 { Some(inner.u8()?) } else { None };
    let hop_count = if flags & flag::MSG_HOP_COUNT != 0 { Some(inner.u8()?) } else { None };
    let seq = if flags & flag::MSG_SEQ != 0 { Some(inner.u16()?) } else { None };
    let mut rest = start;
    rest.take(size.into())?;
    *cursor = rest;
    Ok(RawMessage { kind, addr_len, originator, hop_limit, hop_count, seq, whole, body: inner })
}

/// A TLV block; `last` is the last address' index in an address block.
fn tlv_block<'a>(cursor: &mut Cursor<'a>, last: Option<u8>) -> Result<Cursor<'a>, Error> {
    let len = cursor.u16()?;
    let block = cursor.sub(len.into())?;
    let mut check = block;
    while !check.is_empty() {
        tlv(&mut check, last)?;
    }
    Ok(block)
}

fn tlv<'a>(cursor: &mut Cursor<'a>, last: Option<u8>) -> Result<TlvView<'a>, Error> {
    let kind = cursor.u8()?;
    let at = *cursor;
    let flags = cursor.u8()?;
    let bad_flags = at.error(ErrorKind::TlvFlags(flags));
    let has = |bit: u8| flags & bit != 0;
    let single = has(flag::TLV_SINGLE_INDEX);
    let multi = has(flag::TLV_MULTI_INDEX);
    let indexed = single || multi;
    // §5.4.1 also forbids tismultivalue without thasmultiindex; but olsrd2 sends it, RFC 7181 Appendix D
    // shows it, and its meaning is clear.
    if (single && multi)
        || (has(flag::TLV_EXT_LEN) && !has(flag::TLV_VALUE))
        || (has(flag::TLV_MULTIVALUE) && (last.is_none() || !has(flag::TLV_VALUE)))
        || (indexed && last.is_none())
    {
        return Err(bad_flags);
    }
    let ext = if has(flag::TLV_EXT) { cursor.u8()? } else { 0 };
    let index_at = *cursor;
    let start = if indexed { cursor.u8()? } else { 0 };
    let stop = match (single, multi) {
        (true, _) => start,
        (_, true) => cursor.u8()?,
        _ => last.unwrap_or(0),
    };
    if start > stop || stop > last.unwrap_or(0) {
        return Err(index_at.error(ErrorKind::TlvIndex(stop)));
    }
    let value_at = *cursor;
    let value = if has(flag::TLV_VALUE) {
        let len = if has(flag::TLV_EXT_LEN) { cursor.u16()? } else { cursor.u8()?.into() };
        if has(flag::TLV_MULTIVALUE) && len % (u16::from(stop - start) + 1) != 0 {
            return Err(value_at.error(ErrorKind::TlvMultivalue(len)));
        }
        Some(cursor.take(len.into())?)
    } else {
        None
    };
    Ok(TlvView { kind, ext, start, stop, multivalue: has(flag::TLV_MULTIVALUE), value })
}

fn address_block<'a>(cursor: &mut Cursor<'a>, addr_len: u8) -> Result<AddressBlockView<'a>, Error> {
    let start = *cursor;
    let count = cursor.u8()?;
    if count == 0 {
        return Err(start.error(ErrorKind::NoAddresses));
    }
    let flags_at = *cursor;
    let flags = cursor.u8()?;
    let has = |bit: u8| flags & bit != 0;
    if (has(flag::ADDR_FULL_TAIL) && has(flag::ADDR_ZERO_TAIL))
        || (has(flag::ADDR_SINGLE_PREFIX) && has(flag::ADDR_MULTI_PREFIX))
    {
        return Err(flags_at.error(ErrorKind::AddressFlags(flags)));
    }
    let lengths_at = *cursor;
    let mut head: &[u8] = &[];
    if has(flag::ADDR_HEAD) {
        let len = cursor.u8()?;
        head = cursor.take(len.into())?;
    }
    let mut tail: &[u8] = &[];
    let mut tail_len = 0;
    if has(flag::ADDR_FULL_TAIL) || has(flag::ADDR_ZERO_TAIL) {
        tail_len = usize::from(cursor.u8()?);
        if has(flag::ADDR_FULL_TAIL) {
            tail = cursor.take(tail_len)?;
        }
    }
    let mid_len = usize::from(addr_len)
        .checked_sub(head.len() + tail_len)
        .ok_or(lengths_at.error(ErrorKind::AddressLength))?;
    let mids = cursor.take(mid_len * usize::from(count))?;
    let prefixes_at = *cursor;
    let prefixes = cursor.take(match (has(flag::ADDR_SINGLE_PREFIX), has(flag::ADDR_MULTI_PREFIX)) {
        (true, _) => 1,
        (_, true) => count.into(),
        _ => 0,
    })?;
    if let Some(p) = prefixes.iter().find(|p| **p > addr_len * 8) {
        return Err(prefixes_at.error(ErrorKind::PrefixLength(*p)));
    }
    let tlvs = tlv_block(cursor, Some(count - 1))?;
    Ok(AddressBlockView { count, addr_len, head, tail, mid_len, mids, prefixes, tlvs })
}

//! Owned values: what a view holds, to keep, change and write.

use alloc::vec::Vec;

use crate::view::{AddressBlockView, MessageView, PacketView, TlvView};
use crate::{Address, Error};

/// A packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Packet sequence number.
    pub seq: Option<u16>,
    /// Packet TLVs; an empty block is kept apart from none.
    pub tlvs: Option<Vec<Tlv>>,
    /// The messages.
    pub messages: Vec<Message>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Message type.
    pub kind: u8,
    /// Octets of every address, 1 ..= 16.
    pub addr_len: u8,
    /// Originator address.
    pub originator: Option<Address>,
    /// Hop limit.
    pub hop_limit: Option<u8>,
    /// Hop count.
    pub hop_count: Option<u8>,
    /// Message sequence number.
    pub seq: Option<u16>,
    /// Message TLVs.
    pub tlvs: Vec<Tlv>,
    /// Address blocks.
    pub blocks: Vec<AddressBlock>,
}

impl Message {
    /// A message of that type with addresses of `addr_len` octets and nothing else.
    pub fn new(kind: u8, addr_len: u8) -> Self {
        Self {
            kind,
            addr_len,
            originator: None,
            hop_limit: None,
            hop_count: None,
            seq: None,
            tlvs: Vec::new(),
            blocks: Vec::new(),
        }
    }
}

/// A packet or message TLV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlv {
    /// Type.
    pub kind: u8,
    /// Type extension.
    pub ext: u8,
    /// Value, if the TLV has one.
    pub value: Option<Vec<u8>>,
}

impl Tlv {
    /// With type extension 0 and a value.
    pub fn new(kind: u8, value: &[u8]) -> Self {
        Self { kind, ext: 0, value: Some(value.to_vec()) }
    }
}

/// Addresses and what is said about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressBlock {
    /// 1 to 255 addresses.
    pub addresses: Vec<Address>,
    /// Their TLVs.
    pub tlvs: Vec<AddressTlv>,
}

/// An address block TLV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressTlv {
    /// Type.
    pub kind: u8,
    /// Type extension.
    pub ext: u8,
    /// First address.
    pub start: u8,
    /// Last address.
    pub stop: u8,
    /// The value is divided equally among the addresses. Only where there are two or more.
    pub multivalue: bool,
    /// Value, if the TLV has one.
    pub value: Option<Vec<u8>>,
}

impl Packet {
    /// Parses a whole packet, every message included.
    ///
    /// # Errors
    /// The first malformed element and where it is.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let view = PacketView::parse(bytes)?;
        let messages =
            view.messages().map(|m| m.check().map(|m| Message::from(&m))).collect::<Result<_, _>>()?;
        let tlvs = view.has_tlvs().then(|| view.tlvs().map(|t| Tlv::from(&t)).collect());
        Ok(Self { seq: view.seq(), tlvs, messages })
    }
}

impl From<&MessageView<'_>> for Message {
    fn from(view: &MessageView<'_>) -> Self {
        let header = view.header();
        Self {
            kind: header.kind(),
            addr_len: header.addr_len(),
            originator: header.originator(),
            hop_limit: header.hop_limit(),
            hop_count: header.hop_count(),
            seq: header.seq(),
            tlvs: view.tlvs().map(|t| Tlv::from(&t)).collect(),
            blocks: view.blocks().map(|b| AddressBlock::from(&b)).collect(),
        }
    }
}

impl From<&TlvView<'_>> for Tlv {
    fn from(view: &TlvView<'_>) -> Self {
        Self { kind: view.kind, ext: view.ext, value: view.value.map(<[u8]>::to_vec) }
    }
}

impl From<&AddressBlockView<'_>> for AddressBlock {
    fn from(view: &AddressBlockView<'_>) -> Self {
        let tlvs = view.tlvs().map(|t| AddressTlv {
            kind: t.kind,
            ext: t.ext,
            start: t.start,
            stop: t.stop,
            multivalue: t.multivalue && t.start < t.stop,
            value: t.value.map(<[u8]>::to_vec),
        });
        Self { addresses: view.addresses().collect(), tlvs: tlvs.collect() }
    }
}

//! HELLO messages as values (RFC 6130 §10 to §12.1).

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use mesh_types::Duration;
use rfc5444::{
    Attribute, Attributed, INTERVAL_TIME, Message, MessageView, NetAddr, Tlv, VALIDITY_TIME, decode_time,
    encode_time, pack, time_code_at,
};

use crate::tables::{LinkId, NeighborId};

/// HELLO message type (RFC 6130 §18.2).
pub const HELLO: u8 = 0;
/// No HELLO is believed for longer, whatever it says.
pub const MAX_VALIDITY: Duration = Duration::from_secs(300);
/// More pairs of addresses and TLVs ([`MessageView::pairs`]) are not read. A HELLO that fills a UDP datagram
/// with neighbours has a tenth of it.
pub const MAX_PAIRS: usize = 1 << 18;
/// LOCAL_IF address block TLV type.
pub const LOCAL_IF: u8 = 2;
/// LINK_STATUS address block TLV type.
pub const LINK_STATUS: u8 = 3;
/// OTHER_NEIGHB address block TLV type.
pub const OTHER_NEIGHB: u8 = 4;

/// A message TLV of ours, of a type for experiments (RFC 5444 §6.2), without a value: the HELLO names no
/// neighbours because the sender has none, not because it leaves them out (RFC 6130 §5.3.1).
pub const COMPLETE: u8 = 224;

/// LOCAL_IF's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalIf {
    /// THIS_IF: of the interface the HELLO was sent on.
    This,
    /// OTHER_IF: of another interface of the sender.
    Other,
}

/// LINK_STATUS' and OTHER_NEIGHB's values (the latter is never heard).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// LOST.
    Lost,
    /// SYMMETRIC.
    Symmetric,
    /// HEARD.
    Heard,
}

impl Status {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Lost => 0,
            Self::Symmetric => 1,
            Self::Heard => 2,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Lost),
            1 => Some(Self::Symmetric),
            2 => Some(Self::Heard),
            _ => None,
        }
    }
}

/// One address of a HELLO and what the sender says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloEntry {
    /// Which.
    pub address: NetAddr,
    /// It is the sender's own.
    pub local_if: Option<LocalIf>,
    /// It is the other end of a link on the sending interface.
    pub link_status: Option<Status>,
    /// It is of a neighbour over whatever interface.
    pub other_neighb: Option<Status>,
    /// Further TLVs, for the protocol on top.
    pub attributes: Vec<Attribute>,
    /// Generated HELLOs only: the link it comes from.
    pub link: Option<LinkId>,
    /// Generated HELLOs only: the neighbour it comes from.
    pub neighbor: Option<NeighborId>,
}

impl HelloEntry {
    /// An address nothing is said about yet.
    pub fn new(address: NetAddr) -> Self {
        Self {
            address,
            local_if: None,
            link_status: None,
            other_neighb: None,
            attributes: Vec::new(),
            link: None,
            neighbor: None,
        }
    }

    /// The sender calls it an address of a symmetric neighbour (LINK_STATUS stands in for OTHER_NEIGHB,
    /// RFC 6130 §10.1.1).
    pub fn is_symmetric(&self) -> bool {
        self.link_status == Some(Status::Symmetric) || self.other_neighb == Some(Status::Symmetric)
    }

    /// The value of the first further TLV of that type, type extension 0.
    pub fn attribute(&self, kind: u8) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.kind == kind && a.ext == 0)
    }
}

/// A HELLO's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Message originator address, if told.
    pub originator: Option<NetAddr>,
    /// VALIDITY_TIME; in a parsed HELLO at most [`MAX_VALIDITY`].
    pub validity: Duration,
    /// INTERVAL_TIME.
    pub interval: Option<Duration>,
    /// Further message TLVs.
    pub tlvs: Vec<Tlv>,
    /// Addresses; in a parsed HELLO each appears once, in ascending order.
    pub entries: Vec<HelloEntry>,
}

/// Why a HELLO is not valid (RFC 6130 §12.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloError {
    /// Addresses of another length than ours.
    AddressLength(u8),
    /// A hop limit other than 1 or a hop count other than 0.
    Hops,
    /// Not exactly one VALIDITY_TIME or more than one INTERVAL_TIME, or one that can't be read.
    Time,
    /// An address has contradicting TLVs.
    Contradiction(NetAddr),
    /// The sender claims one of our addresses.
    OurAddress(NetAddr),
    /// More addresses than a table takes.
    TooManyAddresses,
    /// No room for another link.
    TooManyLinks,
    /// It came over an interface that is not in use.
    UnknownInterface,
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressLength(n) => write!(f, "addresses of {n} octets"),
            Self::Hops => f.write_str("it claims to have been forwarded"),
            Self::Time => f.write_str("no usable validity or interval time"),
            Self::Contradiction(a) => write!(f, "contradicting TLVs for {a}"),
            Self::OurAddress(a) => write!(f, "the sender claims our address {a}"),
            Self::TooManyAddresses => f.write_str("more addresses than a neighbour may have"),
            Self::TooManyLinks => f.write_str("no room for another link"),
            Self::UnknownInterface => f.write_str("the interface is not in use"),
        }
    }
}

impl core::error::Error for HelloError {}

impl Hello {
    /// Reads a HELLO and checks all that needs no table (RFC 6130 §12.1; RFC 7188 §4: unknown values are
    /// ignored, over-long ones cut, short ones filled up with zeros).
    ///
    /// # Errors
    /// Why the message must be discarded.
    pub fn parse(message: &MessageView<'_>, addr_len: u8) -> Result<Self, HelloError> {
        let header = message.header();
        if header.addr_len() != addr_len {
            return Err(HelloError::AddressLength(header.addr_len()));
        }
        if message.pairs() > MAX_PAIRS {
            return Err(HelloError::TooManyAddresses);
        }
        if header.hop_limit().is_some_and(|n| n != 1) || header.hop_count().is_some_and(|n| n != 0) {
            return Err(HelloError::Hops);
        }
        // Without a hop count it is taken to be 255 (RFC 5497 §4), which selects the default time.
        let hops = header.hop_count().map_or(u8::MAX, |n| n.saturating_add(1));
        let mut validity = None;
        let mut interval = None;
        let mut tlvs = Vec::new();
        for t in message.tlvs() {
            let slot = match (t.kind, t.ext) {
                (VALIDITY_TIME, 0) => &mut validity,
                (INTERVAL_TIME, 0) => &mut interval,
                _ => {
                    tlvs.push(Tlv::from(&t));
                    continue;
                }
            };
            let code = time_code_at(t.value.unwrap_or_default(), hops).ok_or(HelloError::Time)?;
            let time = Duration::from_micros(decode_time(code)).min(MAX_VALIDITY);
            if slot.replace(time).is_some() {
                return Err(HelloError::Time);
            }
        }
        let originator = header.originator().and_then(|a| a.net_addr());
        let entries = entries(message)?;
        Ok(Self { originator, validity: validity.ok_or(HelloError::Time)?, interval, tlvs, entries })
    }

    /// The message to send: no sequence number, no hop limit (it goes one hop only).
    pub fn to_message(&self, addr_len: u8) -> Message {
        let mut message = Message::new(HELLO, addr_len);
        message.originator = self.originator.map(Into::into);
        message.tlvs = vec![Tlv::new(VALIDITY_TIME, &[encode_time(self.validity.as_micros())])];
        if let Some(interval) = self.interval {
            message.tlvs.push(Tlv::new(INTERVAL_TIME, &[encode_time(interval.as_micros())]));
        }
        message.tlvs.extend(self.tlvs.iter().cloned());
        let attributed: Vec<Attributed> = self.entries.iter().map(attributed).collect();
        message.blocks = pack(&attributed);
        message
    }

    /// Whether the sender names neighbours, or says that it has none: whom it does not name it does not know.
    pub(crate) fn is_complete(&self) -> bool {
        self.entries.iter().any(|e| e.local_if.is_none()) || self.tlvs.iter().any(|t| t.kind == COMPLETE)
    }

    /// The value of the only message TLV of that type (type extension 0); `Err` if there are more.
    ///
    /// # Errors
    /// There is more than one.
    pub fn message_tlv(&self, kind: u8) -> Result<Option<&[u8]>, HelloError> {
        let mut found = self.tlvs.iter().filter(|t| t.kind == kind && t.ext == 0);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(HelloError::Time),
            (first, None) => Ok(first.map(|t| t.value.as_deref().unwrap_or_default())),
        }
    }
}

fn attributed(entry: &HelloEntry) -> Attributed {
    let mut attributes = Vec::new();
    if let Some(local_if) = entry.local_if {
        attributes.push(Attribute::new(LOCAL_IF, &[u8::from(local_if == LocalIf::Other)]));
    }
    for (kind, status) in [(LINK_STATUS, entry.link_status), (OTHER_NEIGHB, entry.other_neighb)] {
        attributes.extend(status.map(|s| Attribute::new(kind, &[s.code()])));
    }
    attributes.extend_from_slice(&entry.attributes);
    Attributed { address: entry.address.into(), attributes }
}

fn entries(message: &MessageView<'_>) -> Result<Vec<HelloEntry>, HelloError> {
    let mut all: BTreeMap<NetAddr, HelloEntry> = BTreeMap::new();
    for block in message.blocks() {
        for (i, address) in (0..block.count()).filter_map(|i| Some((i, block.address(i)?.net_addr()?))) {
            let entry = all.entry(address).or_insert_with(|| HelloEntry::new(address));
            for t in block.tlvs() {
                if let Some(value) = t.value_at(i) {
                    note(entry, t.kind, t.ext, value)?;
                }
            }
        }
    }
    for entry in all.values() {
        if entry.local_if.is_some() && (entry.link_status.is_some() || entry.other_neighb.is_some()) {
            return Err(HelloError::Contradiction(entry.address));
        }
    }
    Ok(all.into_values().collect())
}

/// Adds one TLV's word on an address; two different words of NHDP's own TLVs are an error.
fn note(entry: &mut HelloEntry, kind: u8, ext: u8, value: &[u8]) -> Result<(), HelloError> {
    let code = value.first().copied().unwrap_or(0);
    let address = entry.address;
    let agree = |old: bool| if old { Ok(()) } else { Err(HelloError::Contradiction(address)) };
    match (kind, ext) {
        (LOCAL_IF, 0) => {
            let new = match code {
                0 => LocalIf::This,
                1 => LocalIf::Other,
                _ => return Ok(()),
            };
            agree(*entry.local_if.get_or_insert(new) == new)
        }
        (LINK_STATUS, 0) => {
            let Some(new) = Status::from_code(code) else { return Ok(()) };
            agree(*entry.link_status.get_or_insert(new) == new)
        }
        (OTHER_NEIGHB, 0) => match Status::from_code(code) {
            None | Some(Status::Heard) => Ok(()),
            Some(new) => agree(*entry.other_neighb.get_or_insert(new) == new),
        },
        _ => {
            let attribute = Attribute::with_ext(kind, ext, value);
            if !entry.attributes.contains(&attribute) && entry.attributes.len() < 16 {
                entry.attributes.push(attribute);
            }
            Ok(())
        }
    }
}

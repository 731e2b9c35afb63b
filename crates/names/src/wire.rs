//! DNS messages as values, both directions (RFC 1035 §4, RFC 6762 §18).
//!
//! The bytes are read and written by NLnet Labs' `domain`; this module keeps what a responder needs: names
//! compared without case, record data with every name in it uncompressed, so that two records are equal when
//! their bytes are (RFC 6762 §8.2), and the top bit of a class as a flag of its own.

use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::message::RecordSection;
use domain::base::message_builder::{HashCompressor, MessageBuilder};
use domain::base::name::{NameBuilder, ParsedName, ToName};
use domain::base::rdata::{ComposeRecordData, ParseRecordData, RecordData};
use domain::base::wire::{Composer, ParseError};
use domain::base::{Record as DomainRecord, Ttl};
use domain::dep::octseq::{Octets, Parser};

/// A domain name; compared without case.
pub type Name = domain::base::Name<Vec<u8>>;

/// Record types by number.
pub mod rtype {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Name server.
    pub const NS: u16 = 2;
    /// Alias.
    pub const CNAME: u16 = 5;
    /// Start of authority.
    pub const SOA: u16 = 6;
    /// Pointer.
    pub const PTR: u16 = 12;
    /// Text.
    pub const TXT: u16 = 16;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
    /// Service location.
    pub const SRV: u16 = 33;
    /// EDNS (a pseudo-record).
    pub const OPT: u16 = 41;
    /// Which types exist (RFC 6762 §6.1).
    pub const NSEC: u16 = 47;
    /// Question: all types.
    pub const ANY: u16 = 255;
}

/// The Internet class.
pub const CLASS_IN: u16 = 1;
/// Question: all classes.
pub const CLASS_ANY: u16 = 255;

/// Response codes by number.
pub mod rcode {
    /// No error.
    pub const NOERROR: u8 = 0;
    /// The query does not parse.
    pub const FORMERR: u8 = 1;
    /// It failed here.
    pub const SERVFAIL: u8 = 2;
    /// The name does not exist.
    pub const NXDOMAIN: u8 = 3;
    /// Not implemented.
    pub const NOTIMP: u8 = 4;
    /// Not answered by policy.
    pub const REFUSED: u8 = 5;
}

/// What fits into one datagram on a link with an MTU of 1500 bytes over IPv6.
pub const MAX_PAYLOAD: usize = 1452;
/// The largest payload of all, for a single record (RFC 6762 §17: 9000 bytes with IP and UDP headers).
pub const MAX_SINGLE: usize = 9000 - 48;
/// Messages with more questions and records than this are dropped.
pub const MAX_RECORDS: usize = 600;

/// Header fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Query identifier.
    pub id: u16,
    /// A response, not a query.
    pub response: bool,
    /// Operation; 0 is a standard query.
    pub opcode: u8,
    /// Authoritative answer.
    pub authoritative: bool,
    /// Truncated; in an mDNS query: more known answers follow.
    pub truncated: bool,
    /// Recursion desired.
    pub recursion_desired: bool,
    /// Response code.
    pub rcode: u8,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked about.
    pub name: Name,
    /// Type, or [`rtype::ANY`].
    pub rtype: u16,
    /// Class without its top bit, or [`CLASS_ANY`].
    pub class: u16,
    /// The top bit of the class: a unicast response is welcome (RFC 6762 §5.4).
    pub unicast: bool,
}

/// A resource record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Owner name.
    pub name: Name,
    /// Type.
    pub rtype: u16,
    /// Class without its top bit.
    pub class: u16,
    /// The top bit of the class: cache-flush (RFC 6762 §10.2).
    pub flush: bool,
    /// Time to live, in seconds.
    pub ttl: u32,
    /// Data, the names in it uncompressed.
    pub rdata: Vec<u8>,
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Header fields.
    pub header: Header,
    /// Question section.
    pub questions: Vec<Question>,
    /// Answer section.
    pub answers: Vec<Record>,
    /// Authority section.
    pub authority: Vec<Record>,
    /// Additional section.
    pub additional: Vec<Record>,
}

/// Why bytes are no DNS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Shorter than a header.
    Short,
    /// More than [`MAX_RECORDS`] questions and records.
    TooMany,
    /// A section does not hold what its count says, or a name, pointer or length is wrong.
    Malformed,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "shorter than a DNS header",
            Self::TooMany => "more records than any honest message has",
            Self::Malformed => "a section, name or length is wrong",
        })
    }
}

impl core::error::Error for WireError {}

impl From<ParseError> for WireError {
    fn from(_: ParseError) -> Self {
        Self::Malformed
    }
}

impl Record {
    /// An A or AAAA record.
    pub fn address(name: Name, ttl: u32, address: IpAddr) -> Self {
        let (rtype, rdata) = match address {
            IpAddr::V4(a) => (rtype::A, a.octets().to_vec()),
            IpAddr::V6(a) => (rtype::AAAA, a.octets().to_vec()),
        };
        Self { name, rtype, class: CLASS_IN, flush: false, ttl, rdata }
    }

    /// A PTR record.
    pub fn ptr(name: Name, ttl: u32, target: &Name) -> Self {
        let rdata = target.as_slice().to_vec();
        Self { name, rtype: rtype::PTR, class: CLASS_IN, flush: false, ttl, rdata }
    }

    /// The restricted NSEC of RFC 6762 §6.1: of the types below 256 the name has these and no other.
    pub fn nsec(name: Name, ttl: u32, types: &[u16]) -> Self {
        let mut bitmap = [0u8; 32];
        let mut used = 1;
        for t in types {
            let at = usize::from(t / 8);
            if let Some(byte) = bitmap.get_mut(at) {
                *byte |= 0x80 >> (t % 8);
                used = used.max(at + 1);
            }
        }
        let mut rdata = name.as_slice().to_vec();
        rdata.extend([0, used as u8]);
        rdata.extend(bitmap.iter().take(used));
        Self { name, rtype: rtype::NSEC, class: CLASS_IN, flush: false, ttl, rdata }
    }

    /// The address in an A or AAAA record.
    pub fn as_address(&self) -> Option<IpAddr> {
        match self.rtype {
            rtype::A => <[u8; 4]>::try_from(self.rdata.as_slice()).ok().map(|o| Ipv4Addr::from(o).into()),
            rtype::AAAA => <[u8; 16]>::try_from(self.rdata.as_slice()).ok().map(|o| Ipv6Addr::from(o).into()),
            _ => None,
        }
    }

    /// The target of a PTR, CNAME or SRV record.
    pub fn as_target(&self) -> Option<Name> {
        let skipped = match self.rtype {
            rtype::PTR | rtype::CNAME => 0,
            rtype::SRV => 6,
            _ => return None,
        };
        Name::from_octets(self.rdata.get(skipped..)?.to_vec()).ok()
    }

    /// Whether an NSEC record of the restricted form says that the name has `rtype`; `None` if the record
    /// is of another form (RFC 6762 §6.1 lets us pass over it).
    pub fn nsec_has(&self, rtype: u16) -> Option<bool> {
        if self.rtype != self::rtype::NSEC {
            return None;
        }
        let mut parser = Parser::from_ref(self.rdata.as_slice());
        domain::base::Name::<&[u8]>::parse(&mut parser).ok()?;
        let rest = self.rdata.get(parser.pos()..)?;
        let [0, length @ 1..=32, bitmap @ ..] = rest else { return None };
        if bitmap.len() != usize::from(*length) {
            return None;
        }
        Some(bitmap.get(usize::from(rtype / 8)).is_some_and(|b| b & (0x80 >> (rtype % 8)) != 0))
    }

    /// Same name, type, class and data; lifetime and cache-flush bit aside.
    pub fn same_data(&self, other: &Self) -> bool {
        self.rtype == other.rtype
            && self.class == other.class
            && self.rdata == other.rdata
            && self.name == other.name
    }
}

/// Where names lie in a type's data: bytes before the first name, and how many names. What follows is
/// opaque. These are the types of RFC 6762 §18.14.
fn layout(rtype: u16) -> Option<(usize, usize)> {
    Some(match rtype {
        // NS, CNAME, PTR, DNAME, NSEC
        2 | 5 | 12 | 39 | 47 => (0, 1),
        // SOA, RP
        6 | 17 => (0, 2),
        // MX, AFSDB, RT, KX
        15 | 18 | 21 | 36 => (2, 1),
        // PX
        26 => (2, 2),
        // SRV
        33 => (6, 1),
        _ => return None,
    })
}

/// Record data on its way in.
struct Incoming {
    rtype: Rtype,
    /// `None`: an NSEC that does not parse.
    bytes: Option<Vec<u8>>,
}

impl RecordData for Incoming {
    fn rtype(&self) -> Rtype {
        self.rtype
    }
}

fn expand<Octs: Octets + ?Sized>(rtype: u16, parser: &mut Parser<'_, Octs>) -> Result<Vec<u8>, ParseError> {
    let mut bytes = Vec::with_capacity(parser.remaining());
    if let Some((before, names)) = layout(rtype) {
        bytes.extend_from_slice(parser.parse_octets(before)?.as_ref());
        for _ in 0..names {
            let name = ParsedName::parse_ref(parser)?;
            bytes.extend_from_slice(name.to_vec().as_slice());
        }
    }
    let rest = parser.remaining();
    bytes.extend_from_slice(parser.parse_octets(rest)?.as_ref());
    Ok(bytes)
}

impl<'a, Octs: Octets + ?Sized> ParseRecordData<'a, Octs> for Incoming {
    fn parse_rdata(rtype: Rtype, parser: &mut Parser<'a, Octs>) -> Result<Option<Self>, ParseError> {
        let bytes = match expand(rtype.to_int(), parser) {
            Ok(bytes) => Some(bytes),
            // RFC 6762 §6.1: an NSEC that cannot be read is no reason to drop the message.
            Err(_) if rtype == Rtype::NSEC => {
                let rest = parser.remaining();
                parser.advance(rest)?;
                None
            }
            Err(e) => return Err(e),
        };
        Ok(Some(Self { rtype, bytes }))
    }
}

fn section(from: RecordSection<'_, [u8]>) -> Result<Vec<Record>, WireError> {
    let mut out = Vec::new();
    for parsed in from {
        let Some(r) = parsed?.into_record::<Incoming>()? else { continue };
        // An OPT's class is a size, all sixteen bits of it (RFC 6762 §10.2).
        let class = r.class().to_int();
        let (class, flush) =
            if r.rtype() == Rtype::OPT { (class, false) } else { (class & 0x7fff, class & 0x8000 != 0) };
        let (name, rtype, ttl) = (r.owner().to_vec(), r.rtype().to_int(), r.ttl().as_secs());
        let Some(rdata) = r.into_data().bytes else { continue };
        out.push(Record { name, rtype, class, flush, ttl, rdata });
    }
    Ok(out)
}

/// Reads the header alone.
///
/// # Errors
/// [`WireError::Short`].
pub fn parse_header(bytes: &[u8]) -> Result<Header, WireError> {
    let message = domain::base::Message::from_slice(bytes).map_err(|_| WireError::Short)?;
    let h = message.header();
    Ok(Header {
        id: h.id(),
        response: h.qr(),
        opcode: h.opcode().to_int(),
        authoritative: h.aa(),
        truncated: h.tc(),
        recursion_desired: h.rd(),
        rcode: h.rcode().to_int(),
    })
}

/// Reads a whole message; an NSEC record that cannot be read is left out, any other fault drops the message
/// (RFC 9267 §6).
///
/// # Errors
/// See [`WireError`].
pub fn parse(bytes: &[u8]) -> Result<Message, WireError> {
    let header = parse_header(bytes)?;
    let message = domain::base::Message::from_slice(bytes).map_err(|_| WireError::Short)?;
    let c = message.header_counts();
    let total = [c.qdcount(), c.ancount(), c.nscount(), c.arcount()].map(usize::from).iter().sum::<usize>();
    if total > MAX_RECORDS {
        return Err(WireError::TooMany);
    }
    let mut questions = Vec::new();
    for q in message.question() {
        let q = q?;
        let class = q.qclass().to_int();
        questions.push(Question {
            name: q.qname().to_vec(),
            rtype: q.qtype().to_int(),
            class: class & 0x7fff,
            unicast: class & 0x8000 != 0,
        });
    }
    if c.ancount() == 0 && c.nscount() == 0 && c.arcount() == 0 {
        // Most questions come alone, and somebody waits.
        return Ok(Message { header, questions, ..Default::default() });
    }
    Ok(Message {
        header,
        questions,
        answers: section(message.answer()?)?,
        authority: section(message.authority()?)?,
        additional: section(message.additional()?)?,
    })
}

/// Record data on its way out.
struct Outgoing<'a> {
    record: &'a Record,
    /// For an ordinary DNS client: fewer types are compressed (RFC 6762 §18.14, RFC 3597 §4).
    conventional: bool,
}

impl RecordData for Outgoing<'_> {
    fn rtype(&self) -> Rtype {
        Rtype::from_int(self.record.rtype)
    }
}

impl ComposeRecordData for Outgoing<'_> {
    fn rdlen(&self, _: bool) -> Option<u16> {
        None
    }

    fn compose_rdata<T: Composer + ?Sized>(&self, target: &mut T) -> Result<(), T::AppendError> {
        let bytes = self.record.rdata.as_slice();
        let plain = self.conventional && matches!(self.record.rtype, rtype::SRV | rtype::NSEC);
        let Some((before, names)) = layout(self.record.rtype).filter(|_| !plain) else {
            return target.append_slice(bytes);
        };
        let Some((head, _)) = bytes.split_at_checked(before) else { return target.append_slice(bytes) };
        target.append_slice(head)?;
        let mut parser = Parser::from_ref(bytes);
        let mut at = before;
        for _ in 0..names {
            if parser.seek(at).is_err() {
                break;
            }
            let Ok(name) = domain::base::Name::<&[u8]>::parse(&mut parser) else { break };
            target.append_compressed_name(&name)?;
            at = parser.pos();
        }
        target.append_slice(bytes.get(at..).unwrap_or_default())
    }

    fn compose_canonical_rdata<T: Composer + ?Sized>(&self, target: &mut T) -> Result<(), T::AppendError> {
        target.append_slice(&self.record.rdata)
    }
}

/// A message as bytes, and how much of it found room.
#[derive(Debug)]
pub struct Emitted {
    /// The message.
    pub bytes: Vec<u8>,
    /// How many of the answers are in it.
    pub answers: usize,
}

fn outgoing(record: &Record, conventional: bool) -> DomainRecord<&Name, Outgoing<'_>> {
    let flush = if record.flush && !conventional { 0x8000 } else { 0 };
    let (class, ttl) = (Class::from_int(record.class | flush), Ttl::from_secs(record.ttl));
    DomainRecord::new(&record.name, class, ttl, Outgoing { record, conventional })
}

/// Data that no record can have (RFC 1035 §3.2.1: two bytes of length).
fn too_long(record: &Record) -> bool {
    record.rdata.len() > usize::from(u16::MAX)
}

/// Writes `message` with names compressed, in at most `limit` bytes.
///
/// Answers that do not fit are left out, from the first one that does not; the caller sends them in another
/// message. Authority and additional records are then left out too. `conventional` writes for an ordinary
/// DNS client: no cache-flush bits, SRV uncompressed.
pub fn emit(message: &Message, limit: usize, conventional: bool) -> Emitted {
    write(message, limit, conventional).unwrap_or(Emitted { bytes: Vec::new(), answers: 0 })
}

fn write(message: &Message, limit: usize, conventional: bool) -> Option<Emitted> {
    let h = message.header;
    let mut builder = MessageBuilder::from_target(HashCompressor::new(Vec::with_capacity(512))).ok()?;
    builder.set_push_limit(limit);
    {
        let out = builder.header_mut();
        out.set_id(h.id);
        out.set_qr(h.response);
        out.set_opcode(Opcode::from_int(h.opcode));
        out.set_aa(h.authoritative);
        out.set_tc(h.truncated);
        out.set_rd(h.recursion_desired);
        out.set_rcode(Rcode::masked_from_int(h.rcode));
    }
    let mut section = builder.question();
    for q in &message.questions {
        let class = Class::from_int(q.class | if q.unicast { 0x8000 } else { 0 });
        section.push((&q.name, Rtype::from_int(q.rtype), class)).ok()?;
    }
    let mut section = section.answer();
    let mut answers = 0;
    for r in &message.answers {
        if too_long(r) || section.push(outgoing(r, conventional)).is_err() {
            return Some(Emitted { bytes: section.finish().into_target(), answers });
        }
        answers += 1;
    }
    let mut section = section.authority();
    for r in &message.authority {
        if too_long(r) || section.push(outgoing(r, conventional)).is_err() {
            break;
        }
    }
    let mut section = section.additional();
    for r in &message.additional {
        if too_long(r) || section.push(outgoing(r, conventional)).is_err() {
            break;
        }
    }
    Some(Emitted { bytes: section.finish().into_target(), answers })
}

/// Builds a name from labels; `None` if it would not be a legal one.
pub fn name_from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Name> {
    let mut builder = NameBuilder::new_vec();
    for label in labels {
        builder.append_label(label).ok()?;
    }
    builder.into_name().ok()
}

/// `<label>.local`.
pub fn local_name(label: &str) -> Option<Name> {
    name_from_labels([label.as_bytes(), b"local"])
}

/// The one label before `.local`, as text, if the name is of that form.
pub fn local_label(name: &Name) -> Option<&str> {
    let mut labels = name.iter();
    let (first, second, third) = (labels.next()?, labels.next()?, labels.next()?);
    let local = second.as_slice().eq_ignore_ascii_case(b"local") && third.is_root();
    core::str::from_utf8(first.as_slice()).ok().filter(|_| local)
}

/// Whether the name ends in `local`.
pub fn is_local(name: &Name) -> bool {
    ends_with(name, &[b"local"])
}

/// Whether the name's last labels are these.
pub fn ends_with(name: &Name, suffix: &[&[u8]]) -> bool {
    let labels = name.label_count().saturating_sub(1);
    labels >= suffix.len()
        && name
            .iter()
            .skip(labels - suffix.len())
            .zip(suffix)
            .all(|(a, b)| a.as_slice().eq_ignore_ascii_case(b))
}

/// The name of the address' reverse mapping (RFC 1035 §3.5, RFC 3596 §2.5).
pub fn reverse_name(address: IpAddr) -> Option<Name> {
    Name::reverse_from_addr(address).ok()
}

/// The address a reverse-mapping name is about.
pub fn reverse_address(name: &Name) -> Option<IpAddr> {
    let labels = || name.iter().map(|l| l.as_slice());
    if ends_with(name, &[b"in-addr", b"arpa"]) && name.label_count() == 7 {
        let mut octets = [0u8; 4];
        for (to, label) in octets.iter_mut().rev().zip(labels()) {
            *to = core::str::from_utf8(label).ok()?.parse().ok()?;
        }
        return Some(Ipv4Addr::from(octets).into());
    }
    if ends_with(name, &[b"ip6", b"arpa"]) && name.label_count() == 35 {
        let mut bits = 0u128;
        for (i, label) in labels().take(32).enumerate() {
            let [digit] = label else { return None };
            let digit = char::from(*digit).to_digit(16)?;
            bits |= u128::from(digit) << (4 * i);
        }
        return Some(Ipv6Addr::from_bits(bits).into());
    }
    None
}

//! Ordinary DNS messages of local clients: what is asked, and how an answer looks (RFC 1035, RFC 6891).

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::wire::{
    self, CLASS_ANY, CLASS_IN, Header, MAX_PAYLOAD, Message, Name, Question, Record, ends_with, rcode, rtype,
};

/// Lifetime of every answer, at most, in seconds: clients do not hear of changes.
pub(crate) const TTL_CLIENT: u32 = 10;
/// What a client without EDNS takes.
const PLAIN_SIZE: usize = 512;
/// What fits between two lengths of a stream (RFC 7766 §8).
const STREAM_SIZE: usize = u16::MAX as usize;
/// What this server says it takes.
const EDNS_SIZE: u16 = 1232;

/// A client's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    id: u16,
    recursion_desired: bool,
    pub(crate) question: Question,
    /// The payload size the client takes, if it speaks EDNS.
    edns: Option<u16>,
    /// It came over TCP.
    stream: bool,
}

/// Reads a query. `Err(Some(…))` is what to answer instead, `Err(None)`: nothing.
pub(crate) fn parse(bytes: &[u8], stream: bool) -> Result<Request, Option<Vec<u8>>> {
    let header = wire::parse_header(bytes).map_err(|_| None)?;
    if header.response {
        return Err(None);
    }
    let refuse = |code| {
        let header = Header { response: true, rcode: code, ..header };
        Err(Some(wire::emit(&Message { header, ..Default::default() }, PLAIN_SIZE, true).bytes))
    };
    if header.opcode != 0 {
        return refuse(rcode::NOTIMP);
    }
    let Ok(message) = wire::parse(bytes) else { return refuse(rcode::FORMERR) };
    let [question] = message.questions.as_slice() else { return refuse(rcode::FORMERR) };
    let edns = message.additional.iter().find(|r| r.rtype == rtype::OPT).map(|r| r.class);
    Ok(Request {
        id: header.id,
        recursion_desired: header.recursion_desired,
        question: Question { unicast: false, ..question.clone() },
        edns,
        stream,
    })
}

impl Request {
    /// The answer as bytes.
    pub(crate) fn reply(&self, code: u8, answers: Vec<Record>) -> Vec<u8> {
        let header = Header {
            id: self.id,
            response: true,
            // glibc passes over an empty answer that is not authoritative.
            authoritative: code != rcode::REFUSED,
            recursion_desired: self.recursion_desired,
            rcode: code,
            ..Default::default()
        };
        let opt = self.edns.map(|_| Record {
            name: Name::root_vec(),
            rtype: rtype::OPT,
            class: EDNS_SIZE,
            flush: false,
            ttl: 0,
            rdata: Vec::new(),
        });
        let limit = match self.edns {
            _ if self.stream => STREAM_SIZE,
            Some(size) => usize::from(size).clamp(PLAIN_SIZE, MAX_PAYLOAD),
            None => PLAIN_SIZE,
        };
        let mut message = Message {
            header,
            questions: Vec::from([self.question.clone()]),
            answers,
            authority: Vec::new(),
            additional: opt.into_iter().collect(),
        };
        let emitted = wire::emit(&message, limit, true);
        if emitted.answers == message.answers.len() {
            return emitted.bytes;
        }
        message.header.truncated = true;
        message.answers.truncate(emitted.answers);
        wire::emit(&message, limit, true).bytes
    }

    /// Those of the addresses that were asked for, as answers.
    pub(crate) fn addresses(&self, addresses: impl Iterator<Item = IpAddr>, ttl: u32) -> Vec<Record> {
        let records = addresses.map(|a| Record::address(self.question.name.clone(), ttl, a));
        records.filter(|r| self.question.rtype == rtype::ANY || self.question.rtype == r.rtype).collect()
    }

    /// The target as answer, if a pointer was asked for.
    pub(crate) fn pointer(&self, target: &Name, ttl: u32) -> Vec<Record> {
        let wanted = matches!(self.question.rtype, rtype::PTR | rtype::ANY);
        let record = wanted.then(|| Record::ptr(self.question.name.clone(), ttl, target));
        record.into_iter().collect()
    }

    pub(crate) fn in_class(&self) -> bool {
        matches!(self.question.class, CLASS_IN | CLASS_ANY)
    }
}

/// Whether the name is one that never exists in the DNS at large (RFC 6761, RFC 7686), or no domain at all.
pub(crate) fn never_exists(name: &Name) -> bool {
    let special: [&[u8]; 4] = [b"test", b"invalid", b"onion", b"local"];
    special.iter().any(|s| ends_with(name, &[s])) || name.label_count() <= 2
}

/// What devices look up to find out whether a network leads to the Internet or to a page of its own; such a page
/// is what there is here.
const PORTAL_PROBES: [&[&[u8]]; 10] = [
    &[b"captive", b"apple", b"com"],
    &[b"connectivitycheck", b"gstatic", b"com"],
    &[b"connectivitycheck", b"android", b"com"],
    &[b"clients3", b"google", b"com"],
    &[b"www", b"msftconnecttest", b"com"],
    &[b"ipv6", b"msftconnecttest", b"com"],
    &[b"detectportal", b"firefox", b"com"],
    &[b"nmcheck", b"gnome", b"org"],
    &[b"network-test", b"debian", b"org"],
    &[b"connectivity-check", b"ubuntu", b"com"],
];

/// Whether the name is one of those by which devices look for a captive portal.
pub(crate) fn is_portal_probe(name: &Name) -> bool {
    PORTAL_PROBES.iter().any(|p| name.label_count() == p.len() + 1 && ends_with(name, p))
}

/// Whether the name is `localhost` or below it (RFC 6761 §6.3).
pub(crate) fn is_localhost(name: &Name) -> bool {
    ends_with(name, &[b"localhost"])
}

/// Whether an address is of a private network, so that nobody else knows its name.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_private() || a.is_link_local() || a.is_loopback(),
        IpAddr::V6(a) => a.is_unique_local() || a.is_unicast_link_local() || a.is_loopback(),
    }
}

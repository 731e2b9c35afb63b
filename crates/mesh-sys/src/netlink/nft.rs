//! nf_tables' words (nfnetlink's subsystem 10, `linux/netfilter/nf_tables.h`): tables, chains, rules and the
//! expressions that rules are made of. A table is replaced as a whole, both address families at once.

use std::net::{IpAddr, Ipv6Addr};

use rustix::net::netlink::NETFILTER;

use super::Error;
use super::codec::{Builder, Nest, flags};
use super::socket::Socket;

const SUBSYSTEM: u8 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u8 = 0;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
/// NLM_F_APPEND
const APPEND: u16 = 0x800;

/// NFPROTO_INET: both families.
const INET: u8 = 1;
/// NFT_META_…: incoming and outgoing interface, address family, transport protocol, unicast or not
const INCOMING_NAME: u32 = 6;
const OUTGOING_NAME: u32 = 7;
const PROTOCOL_FAMILY: u32 = 15;
const TRANSPORT: u32 = 16;
const PACKET_TYPE: u32 = 19;
/// NFT_PAYLOAD_…_HEADER
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// NFT_FIB_RESULT_…, and NFTA_FIB_F_SADDR
const FIB_NAME: u32 = 2;
const FIB_TYPE: u32 = 3;
const FIB_SOURCE: u32 = 1;
/// NFT_REG_1, of 16 octets: as long as an interface's name or an address may be.
const REGISTER: u32 = 1;

const NESTED: u16 = 0x8000;

/// NF_INET_…, the place on a packet's way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hook {
    PreRouting = 0,
    Input = 1,
    Forward = 2,
    PostRouting = 4,
}

/// What a rule does with a packet that fits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict<'a> {
    Drop,
    Accept,
    /// Back to the chain that jumped here.
    Return,
    Jump(&'a str),
}

/// A table of ours, and its chains and rules.
#[derive(Debug)]
pub(super) struct Table {
    name: &'static str,
    parts: Vec<Builder>,
}

impl Table {
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, parts: Vec::new() }
    }

    /// A chain that packets pass at that place; what no rule decides goes on.
    pub(super) fn base_chain(&mut self, name: &str, kind: &str, hook: Hook, priority: i32) {
        let mut place = Nest::default();
        place.attribute(1, &(hook as u32).to_be_bytes()); // NFTA_HOOK_HOOKNUM
        place.attribute(2, &priority.to_be_bytes()); // NFTA_HOOK_PRIORITY
        let mut b = self.named(NEW_CHAIN, name, 3); // NFTA_CHAIN_NAME
        b.attribute(4 | NESTED, place.bytes()); // NFTA_CHAIN_HOOK
        b.attribute(7, &text(kind)); // NFTA_CHAIN_TYPE
        self.parts.push(b);
    }

    /// A chain that others jump to; it has to be there before they do.
    pub(super) fn chain(&mut self, name: &str) {
        let b = self.named(NEW_CHAIN, name, 3);
        self.parts.push(b);
    }

    /// Appends a rule to a chain.
    pub(super) fn rule(&mut self, chain: &str, expressions: &[Vec<Nest>]) {
        let mut all = Nest::default();
        for expression in expressions.iter().flatten() {
            all.attribute(1 | NESTED, expression.bytes()); // NFTA_LIST_ELEM
        }
        let mut b = Builder::new(kind(NEW_RULE), flags::CREATE | APPEND, &[INET, 0, 0, 0]);
        b.attribute(1, &text(self.name)); // NFTA_RULE_TABLE
        b.attribute(2, &text(chain)); // NFTA_RULE_CHAIN
        b.attribute(4 | NESTED, all.bytes()); // NFTA_RULE_EXPRESSIONS
        self.parts.push(b);
    }

    fn named(&self, what: u8, name: &str, attribute: u16) -> Builder {
        let mut b = Builder::new(kind(what), flags::CREATE, &[INET, 0, 0, 0]);
        b.attribute(1, &text(self.name));
        b.attribute(attribute, &text(name));
        b
    }

    /// Puts the table in place of the one of that name, atomically; an empty one takes it away.
    pub(super) fn replace(self) -> Result<(), Error> {
        let mut socket = Socket::open(Some(NETFILTER), 0)?;
        let table = |what: u8, how: u16| {
            let mut b = Builder::new(kind(what), how, &[INET, 0, 0, 0]);
            b.attribute(1, &text(self.name)); // NFTA_TABLE_NAME
            b
        };
        // One that is not there can't be deleted.
        let mut messages = vec![edge(BATCH_BEGIN), table(NEW_TABLE, flags::CREATE), table(DELETE_TABLE, 0)];
        if !self.parts.is_empty() {
            messages.push(table(NEW_TABLE, flags::CREATE));
        }
        messages.extend(self.parts);
        socket.transact(messages, edge(BATCH_END))
    }
}

fn edge(kind: u16) -> Builder {
    Builder::new(kind, 0, &[0, 0, 0, SUBSYSTEM])
}

const fn kind(what: u8) -> u16 {
    u16::from_be_bytes([SUBSYSTEM, what])
}

/// As nf_tables wants names.
fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// An expression of that name.
pub(super) fn expression(name: &str, data: &Nest) -> Nest {
    let mut expression = Nest::default();
    expression.attribute(1, &text(name)); // NFTA_EXPR_NAME
    expression.attribute(2 | NESTED, data.bytes()); // NFTA_EXPR_DATA
    expression
}

fn value(bytes: &[u8]) -> Nest {
    let mut value = Nest::default();
    value.attribute(1, bytes); // NFTA_DATA_VALUE
    value
}

/// Two numbers as the attributes 1 and 2.
fn pair(first: u32, second: u32) -> Nest {
    let mut nest = Nest::default();
    nest.attribute(1, &first.to_be_bytes());
    nest.attribute(2, &second.to_be_bytes());
    nest
}

/// Goes on if the register holds these bytes, or if not.
fn compare(bytes: &[u8], equal: bool) -> Nest {
    let mut compare = pair(REGISTER, u32::from(!equal)); // NFTA_CMP_SREG, NFTA_CMP_OP
    compare.attribute(3 | NESTED, value(bytes).bytes()); // NFTA_CMP_DATA
    expression("cmp", &compare)
}

fn mask(mask: &[u8]) -> Nest {
    let mut masked = pair(REGISTER, REGISTER); // NFTA_BITWISE_SREG, NFTA_BITWISE_DREG
    masked.attribute(3, &(mask.len() as u32).to_be_bytes()); // NFTA_BITWISE_LEN
    masked.attribute(4 | NESTED, value(mask).bytes()); // NFTA_BITWISE_MASK
    masked.attribute(5 | NESTED, value(&vec![0; mask.len()]).bytes()); // NFTA_BITWISE_XOR
    expression("bitwise", &masked)
}

fn meta(key: u32) -> Nest {
    expression("meta", &pair(REGISTER, key)) // NFTA_META_DREG, NFTA_META_KEY
}

fn payload(header: u32, offset: u32, len: u32) -> Nest {
    let mut payload = pair(REGISTER, header); // NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_BASE
    payload.attribute(3, &offset.to_be_bytes()); // NFTA_PAYLOAD_OFFSET
    payload.attribute(4, &len.to_be_bytes()); // NFTA_PAYLOAD_LEN
    expression("payload", &payload)
}

fn fib(result: u32) -> Nest {
    let mut fib = pair(REGISTER, result); // NFTA_FIB_DREG, NFTA_FIB_RESULT
    fib.attribute(3, &FIB_SOURCE.to_be_bytes()); // NFTA_FIB_FLAGS
    expression("fib", &fib)
}

fn name(interface: &str) -> [u8; 16] {
    let mut name = [0u8; 16];
    name.iter_mut().zip(interface.bytes().take(15)).for_each(|(to, from)| *to = from);
    name
}

/// `iifname "…"`
pub(super) fn coming_by(interface: &str) -> Vec<Nest> {
    vec![meta(INCOMING_NAME), compare(&name(interface), true)]
}

/// `oifname "…"`
pub(super) fn leaving_by(interface: &str) -> Vec<Nest> {
    vec![meta(OUTGOING_NAME), compare(&name(interface), true)]
}

/// `meta nfproto ipv4` or `ipv6`
pub(super) fn of_family(v6: bool) -> Vec<Nest> {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    vec![meta(PROTOCOL_FAMILY), compare(&[family as u8], true)]
}

/// `ip saddr …/…` or `ip6 saddr …/…`
pub(super) fn from_network(network: IpAddr, prefix_len: u8) -> Vec<Nest> {
    let (bytes, offset, bits) = match network {
        IpAddr::V4(ip) => (ip.octets().to_vec(), 12, 32),
        IpAddr::V6(ip) => (ip.octets().to_vec(), 8, 128),
    };
    let ones = u128::MAX.checked_shl(128 - u32::from(prefix_len.min(bits))).unwrap_or(0);
    let ones: Vec<u8> = Ipv6Addr::from_bits(ones).octets().into_iter().take(bytes.len()).collect();
    let wanted: Vec<u8> = bytes.iter().zip(&ones).map(|(byte, ones)| byte & ones).collect();
    let load = payload(NETWORK_HEADER, offset, bytes.len() as u32);
    [of_family(network.is_ipv6()), vec![load, mask(&ones), compare(&wanted, true)]].concat()
}

/// `meta l4proto …`
pub(super) fn of_transport(protocol: u8) -> Vec<Nest> {
    vec![meta(TRANSPORT), compare(&[protocol], true)]
}

/// `tcp dport …` or `udp dport …`
pub(super) fn to_port(tcp: bool, port: u16) -> Vec<Nest> {
    let protocol = if tcp { libc::IPPROTO_TCP } else { libc::IPPROTO_UDP };
    let load = payload(TRANSPORT_HEADER, 2, 2);
    [of_transport(protocol as u8), vec![load, compare(&port.to_be_bytes(), true)]].concat()
}

/// `icmpv6 type …`
pub(super) fn of_icmp6(kind: u8) -> Vec<Nest> {
    let load = payload(TRANSPORT_HEADER, 0, 1);
    [of_family(true), of_transport(libc::IPPROTO_ICMPV6 as u8), vec![load, compare(&[kind], true)]].concat()
}

/// `meta pkttype host`, or any but that
pub(super) fn to_one(unicast: bool) -> Vec<Nest> {
    vec![meta(PACKET_TYPE), compare(&[0], unicast)]
}

/// `fib saddr type local`, or any but that
pub(super) fn from_this_node(own: bool) -> Vec<Nest> {
    vec![fib(FIB_TYPE), compare(&u32::from(libc::RTN_LOCAL).to_ne_bytes(), own)]
}

/// `fib saddr oifname "…"`: answers would go there
pub(super) fn from_behind(interface: &str) -> Vec<Nest> {
    vec![fib(FIB_NAME), compare(&name(interface), true)]
}

/// `ct state established,related`
pub(super) fn answers() -> Vec<Nest> {
    // NFTA_CT_DREG, NFTA_CT_KEY: the state, as bits
    let state = expression("ct", &pair(REGISTER, 0));
    vec![state, mask(&6u32.to_ne_bytes()), compare(&[0; 4], false)]
}

/// What to do with a packet that fits.
pub(super) fn verdict(verdict: Verdict<'_>) -> Vec<Nest> {
    let (code, chain) = match verdict {
        Verdict::Drop => (0i32, None),
        Verdict::Accept => (1, None),
        Verdict::Return => (-5, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
    };
    let mut what = Nest::default();
    what.attribute(1, &code.to_be_bytes()); // NFTA_VERDICT_CODE
    if let Some(chain) = chain {
        what.attribute(2, &text(chain)); // NFTA_VERDICT_CHAIN
    }
    let mut data = Nest::default();
    data.attribute(2 | NESTED, what.bytes()); // NFTA_DATA_VERDICT
    immediate(0, &data)
}

/// Puts these bytes into the register.
pub(super) fn load(bytes: &[u8]) -> Vec<Nest> {
    immediate(REGISTER, &value(bytes))
}

fn immediate(register: u32, data: &Nest) -> Vec<Nest> {
    let mut immediate = Nest::default();
    immediate.attribute(1, &register.to_be_bytes()); // NFTA_IMMEDIATE_DREG
    immediate.attribute(2 | NESTED, data.bytes()); // NFTA_IMMEDIATE_DATA
    vec![expression("immediate", &immediate)]
}

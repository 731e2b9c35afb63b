//! Address translation towards an uplink, and of an access point's clients towards the mesh: one nftables table
//! of ours, replaced as a whole (nfnetlink's subsystem 10, `linux/netfilter/nf_tables.h`).
//!
//! What it says, as `nft list table inet p2pmesh_uplink` shows it:
//! `chain uplink { type nat hook postrouting priority srcnat; oifname "eth0" masquerade
//! oifname "mesh0" ip saddr 10.0.0.0/24 snat ip to 10.64.1.2 }`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

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

/// NFPROTO_INET: both families.
const INET: u8 = 1;
/// NF_INET_POST_ROUTING
const POSTROUTING: u32 = 4;
/// NF_IP_PRI_NAT_SRC
const SOURCE_NAT: u32 = 100;
/// NFT_META_OIFNAME
const OUTGOING_NAME: u32 = 7;
/// NFT_META_NFPROTO
const PROTOCOL_FAMILY: u32 = 15;
/// NFT_REG_1, of 16 octets: as long as an interface's name may be.
const REGISTER: u32 = 1;

const NESTED: u16 = 0x8000;
const TABLE: &[u8] = b"p2pmesh_uplink\0";
const CHAIN: &[u8] = b"uplink\0";

/// Clients of an access point, whose IPv4 addresses mean nothing beyond it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// Any address of their network, and the length of its prefix.
    pub network: (Ipv4Addr, u8),
    /// The address that the mesh is to see in place of theirs.
    pub source: Ipv4Addr,
    /// What leaves by these interfaces is translated.
    pub towards: BTreeSet<String>,
}

/// Masquerades what leaves by `uplinks` (RFC 3022 for IPv4; for IPv6, too: unique local addresses
/// mean nothing beyond the mesh), and what `clients` send into the mesh, and nothing else; nothing at all takes
/// the table away. Both families at once, atomically.
///
/// # Errors
/// `EOPNOTSUPP` or `ENOENT` if the kernel lacks nf_tables or its NAT; `EPERM` without `CAP_NET_ADMIN`.
pub fn translate<'a>(uplinks: impl Iterator<Item = &'a str>, clients: Option<&Clients>) -> Result<(), Error> {
    let mut socket = Socket::open(Some(NETFILTER), 0)?;
    let mut messages = vec![edge(BATCH_BEGIN), table(NEW_TABLE, flags::CREATE), table(DELETE_TABLE, 0)];
    let masquerade = || vec![expression(b"masq\0", &Nest::default())];
    let mut rules: Vec<Builder> =
        uplinks.map(|name| rule(&[leaving_by(name), masquerade()].concat())).collect();
    if let Some(clients) = clients {
        for name in &clients.towards {
            let parts = [leaving_by(name), from_network(clients.network), new_source(clients.source)];
            rules.push(rule(&parts.concat()));
        }
    }
    if !rules.is_empty() {
        messages.push(table(NEW_TABLE, flags::CREATE));
        messages.push(chain());
        messages.extend(rules);
    }
    socket.transact(messages, edge(BATCH_END))
}

fn edge(kind: u16) -> Builder {
    Builder::new(kind, 0, &[0, 0, 0, SUBSYSTEM])
}

fn message(kind: u8, how: u16) -> Builder {
    Builder::new(u16::from_be_bytes([SUBSYSTEM, kind]), how, &[INET, 0, 0, 0])
}

fn table(kind: u8, how: u16) -> Builder {
    let mut b = message(kind, how);
    b.attribute(1, TABLE); // NFTA_TABLE_NAME
    b
}

fn chain() -> Builder {
    let mut b = message(NEW_CHAIN, flags::CREATE);
    b.attribute(1, TABLE); // NFTA_CHAIN_TABLE
    b.attribute(3, CHAIN); // NFTA_CHAIN_NAME
    let mut hook = Nest::default();
    hook.attribute(1, &POSTROUTING.to_be_bytes()); // NFTA_HOOK_HOOKNUM
    hook.attribute(2, &SOURCE_NAT.to_be_bytes()); // NFTA_HOOK_PRIORITY
    b.attribute(4 | NESTED, hook.bytes()); // NFTA_CHAIN_HOOK
    b.attribute(7, b"nat\0"); // NFTA_CHAIN_TYPE
    b
}

fn expression(name: &[u8], data: &Nest) -> Nest {
    let mut expression = Nest::default();
    expression.attribute(1, name); // NFTA_EXPR_NAME
    expression.attribute(2 | NESTED, data.bytes()); // NFTA_EXPR_DATA
    expression
}

fn value(bytes: &[u8]) -> Nest {
    let mut value = Nest::default();
    value.attribute(1, bytes); // NFTA_DATA_VALUE
    value
}

/// Goes on if the register holds these bytes.
fn is(bytes: &[u8]) -> Nest {
    let mut equal = Nest::default();
    equal.attribute(1, &REGISTER.to_be_bytes()); // NFTA_CMP_SREG
    equal.attribute(2, &0u32.to_be_bytes()); // NFTA_CMP_OP: equal
    equal.attribute(3 | NESTED, value(bytes).bytes()); // NFTA_CMP_DATA
    expression(b"cmp\0", &equal)
}

fn meta(key: u32) -> Nest {
    let mut meta = Nest::default();
    meta.attribute(1, &REGISTER.to_be_bytes()); // NFTA_META_DREG
    meta.attribute(2, &key.to_be_bytes()); // NFTA_META_KEY
    expression(b"meta\0", &meta)
}

/// `oifname "…"`
fn leaving_by(interface: &str) -> Vec<Nest> {
    let mut name = [0u8; 16];
    name.iter_mut().zip(interface.bytes().take(15)).for_each(|(to, from)| *to = from);
    vec![meta(OUTGOING_NAME), is(&name)]
}

/// `ip saddr …/…`
fn from_network((network, prefix_len): (Ipv4Addr, u8)) -> Vec<Nest> {
    let mut source = Nest::default();
    source.attribute(1, &REGISTER.to_be_bytes()); // NFTA_PAYLOAD_DREG
    source.attribute(2, &1u32.to_be_bytes()); // NFTA_PAYLOAD_BASE: network header
    source.attribute(3, &12u32.to_be_bytes()); // NFTA_PAYLOAD_OFFSET
    source.attribute(4, &4u32.to_be_bytes()); // NFTA_PAYLOAD_LEN
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0);
    let mut masked = Nest::default();
    masked.attribute(1, &REGISTER.to_be_bytes()); // NFTA_BITWISE_SREG
    masked.attribute(2, &REGISTER.to_be_bytes()); // NFTA_BITWISE_DREG
    masked.attribute(3, &4u32.to_be_bytes()); // NFTA_BITWISE_LEN
    masked.attribute(4 | NESTED, value(&mask.to_be_bytes()).bytes()); // NFTA_BITWISE_MASK
    masked.attribute(5 | NESTED, value(&[0; 4]).bytes()); // NFTA_BITWISE_XOR
    vec![
        meta(PROTOCOL_FAMILY),
        is(&[libc::AF_INET as u8]),
        expression(b"payload\0", &source),
        expression(b"bitwise\0", &masked),
        is(&(network.to_bits() & mask).to_be_bytes()),
    ]
}

/// `snat ip to …`
fn new_source(source: Ipv4Addr) -> Vec<Nest> {
    let mut address = Nest::default();
    address.attribute(1, &REGISTER.to_be_bytes()); // NFTA_IMMEDIATE_DREG
    address.attribute(2 | NESTED, value(&source.octets()).bytes()); // NFTA_IMMEDIATE_DATA
    let mut nat = Nest::default();
    nat.attribute(1, &0u32.to_be_bytes()); // NFTA_NAT_TYPE: source
    nat.attribute(2, &(libc::AF_INET as u32).to_be_bytes()); // NFTA_NAT_FAMILY
    nat.attribute(3, &REGISTER.to_be_bytes()); // NFTA_NAT_REG_ADDR_MIN
    vec![expression(b"immediate\0", &address), expression(b"nat\0", &nat)]
}

fn rule(expressions: &[Nest]) -> Builder {
    let mut all = Nest::default();
    for expression in expressions {
        all.attribute(1 | NESTED, expression.bytes()); // NFTA_LIST_ELEM
    }
    let mut b = message(NEW_RULE, flags::CREATE | APPEND);
    b.attribute(1, TABLE); // NFTA_RULE_TABLE
    b.attribute(2, CHAIN); // NFTA_RULE_CHAIN
    b.attribute(4 | NESTED, all.bytes()); // NFTA_RULE_EXPRESSIONS
    b
}

/// NLM_F_APPEND
const APPEND: u16 = 0x800;

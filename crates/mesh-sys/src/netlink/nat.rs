//! Address translation towards an uplink: one nftables table of ours, replaced as a whole
//! (nfnetlink's subsystem 10, `linux/netfilter/nf_tables.h`).
//!
//! What it says, as `nft list table inet p2pmesh_uplink` shows it:
//! `chain uplink { type nat hook postrouting priority srcnat; oifname "eth0" masquerade }`.

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
/// NFT_REG_1, of 16 octets: as long as an interface's name may be.
const REGISTER: u32 = 1;

const NESTED: u16 = 0x8000;
const TABLE: &[u8] = b"p2pmesh_uplink\0";
const CHAIN: &[u8] = b"uplink\0";

/// Masquerades what leaves by these interfaces (RFC 3022 for IPv4; for IPv6, too: unique local addresses
/// mean nothing beyond the mesh), and nothing else; none takes the table away. Both families at once,
/// atomically.
///
/// # Errors
/// `EOPNOTSUPP` or `ENOENT` if the kernel lacks nf_tables or its NAT; `EPERM` without `CAP_NET_ADMIN`.
pub fn masquerade<'a>(interfaces: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut socket = Socket::open(Some(NETFILTER), 0)?;
    let mut messages = vec![edge(BATCH_BEGIN), table(NEW_TABLE, flags::CREATE), table(DELETE_TABLE, 0)];
    let mut interfaces = interfaces.peekable();
    if interfaces.peek().is_some() {
        messages.push(table(NEW_TABLE, flags::CREATE));
        messages.push(chain());
        messages.extend(interfaces.map(rule));
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

fn rule(interface: &str) -> Builder {
    let mut meta = Nest::default();
    meta.attribute(1, &REGISTER.to_be_bytes()); // NFTA_META_DREG
    meta.attribute(2, &OUTGOING_NAME.to_be_bytes()); // NFTA_META_KEY
    let mut name = [0u8; 16];
    name.iter_mut().zip(interface.bytes().take(15)).for_each(|(to, from)| *to = from);
    let mut value = Nest::default();
    value.attribute(1, &name); // NFTA_DATA_VALUE
    let mut equal = Nest::default();
    equal.attribute(1, &REGISTER.to_be_bytes()); // NFTA_CMP_SREG
    equal.attribute(2, &0u32.to_be_bytes()); // NFTA_CMP_OP: equal
    equal.attribute(3 | NESTED, value.bytes()); // NFTA_CMP_DATA
    let mut all = Nest::default();
    for (name, data) in [(&b"meta\0"[..], &meta), (&b"cmp\0"[..], &equal), (&b"masq\0"[..], &Nest::default())]
    {
        let mut expression = Nest::default();
        expression.attribute(1, name); // NFTA_EXPR_NAME
        expression.attribute(2 | NESTED, data.bytes()); // NFTA_EXPR_DATA
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

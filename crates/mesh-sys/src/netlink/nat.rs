//! Address translation towards an uplink, and of an access point's clients towards the mesh: one nftables table
//! of ours, replaced as a whole.
//!
//! What it says, as `nft list table inet p2pmesh_uplink` shows it:
//! `chain uplink { type nat hook postrouting priority srcnat; oifname "eth0" masquerade
//! oifname "mesh0" ip saddr 10.0.0.0/24 snat ip to 10.64.1.2 }`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::Error;
use super::codec::Nest;
use super::nft::{self, Hook, Table};

/// NF_IP_PRI_NAT_SRC
const SOURCE_NAT: i32 = 100;
const CHAIN: &str = "uplink";

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
    let masquerade = || vec![nft::expression("masq", &Nest::default())];
    let mut rules: Vec<_> =
        uplinks.map(|name| [nft::leaving_by(name), masquerade()]).map(Vec::from).collect();
    if let Some(clients) = clients {
        let (network, len) = clients.network;
        for name in &clients.towards {
            let from = nft::from_network(network.into(), len);
            rules.push(vec![nft::leaving_by(name), from, new_source(clients.source)]);
        }
    }
    let mut table = Table::new("p2pmesh_uplink");
    if !rules.is_empty() {
        table.base_chain(CHAIN, "nat", Hook::PostRouting, SOURCE_NAT);
        rules.iter().for_each(|rule| table.rule(CHAIN, rule));
    }
    table.replace()
}

/// `snat ip to …`
fn new_source(source: Ipv4Addr) -> Vec<Nest> {
    let mut nat = Nest::default();
    nat.attribute(1, &0u32.to_be_bytes()); // NFTA_NAT_TYPE: source
    nat.attribute(2, &(libc::AF_INET as u32).to_be_bytes()); // NFTA_NAT_FAMILY
    nat.attribute(3, &1u32.to_be_bytes()); // NFTA_NAT_REG_ADDR_MIN: where it was loaded to
    [nft::load(&source.octets()), vec![nft::expression("nat", &nat)]].concat()
}

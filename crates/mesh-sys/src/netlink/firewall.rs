//! The packet filter: what may come in by which interface, and with which source. One nftables table of ours,
//! `p2pmesh_filter`, replaced as a whole; `nft list table inet p2pmesh_filter` shows it.
//!
//! Four places on a packet's way: `sources` (before routing) drops what can't come from where it came, `input` what
//! this node does not offer there, `forward` what an uplink would begin, `leaving` (after address translation)
//! what must not be seen outside. Interfaces that are not named are not filtered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Error;
use super::nft::{self, Hook, Table, Verdict};

/// NF_IP_PRI_RAW, NF_IP_PRI_FILTER, NF_IP_PRI_LAST less some: behind the address translation's 100
const BEFORE_ALL: i32 = -300;
const FILTER: i32 = 0;
const LAST: i32 = 300;

/// ICMPv6 types that a link needs (RFC 4861, RFC 2710, RFC 3810): multicast listeners, neighbours, routers.
const LINK: [u8; 5] = [130, 131, 134, 135, 136];
const IGMP: u8 = 2;
const MDNS: u16 = 5353;

/// What an interface is, to the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Zone {
    /// Nothing comes in but answers.
    Uplink,
    /// Clients of this node.
    AccessPoint,
    /// Other nodes.
    Mesh,
}

/// A port that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Open {
    /// In which zone.
    pub zone: Zone,
    /// TCP, not UDP.
    pub tcp: bool,
    /// Its number.
    pub port: u16,
    /// Only for hosts on the link, that is from link-local IPv6 addresses.
    pub on_link: bool,
}

/// The whole filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Names of interfaces and what they are.
    pub interfaces: Vec<(String, Zone)>,
    /// Ports that are open; echo and what links need always are, but for an uplink's echo.
    pub open: Vec<Open>,
    /// The access point's networks: its clients' only sources, and nobody else's. Any address of each, with the
    /// length of its prefix.
    pub clients: Vec<(IpAddr, u8)>,
}

/// Puts the filter into force, atomically in place of the last one; without interfaces it takes it away.
///
/// # Errors
/// `EOPNOTSUPP` or `ENOENT` if the kernel lacks nf_tables, its connection tracking or its route look-up (`fib`);
/// `EPERM` without `CAP_NET_ADMIN`.
pub fn filter(filter: &Filter) -> Result<(), Error> {
    let mut table = Table::new("p2pmesh_filter");
    if !filter.interfaces.is_empty() {
        sources(&mut table, filter);
        input(&mut table, filter);
        forward(&mut table, filter);
        leaving(&mut table, filter);
    }
    table.replace()
}

const fn word(zone: Zone) -> &'static str {
    match zone {
        Zone::Uplink => "uplink",
        Zone::AccessPoint => "access_point",
        Zone::Mesh => "mesh",
    }
}

/// A chain for each zone, and the jumps there from the base chain `base`.
fn by_zone(table: &mut Table, filter: &Filter, base: &str, zones: &[Zone]) {
    for zone in zones {
        table.chain(&format!("{base}_{}", word(*zone)));
    }
    for (name, zone) in filter.interfaces.iter().filter(|(_, zone)| zones.contains(zone)) {
        let chain = format!("{base}_{}", word(*zone));
        table.rule(base, &[nft::coming_by(name), nft::verdict(Verdict::Jump(&chain))]);
    }
}

fn sources(table: &mut Table, filter: &Filter) {
    let drop = || nft::verdict(Verdict::Drop);
    table.base_chain("sources", "filter", Hook::PreRouting, BEFORE_ALL);
    by_zone(table, filter, "sources", &[Zone::Uplink, Zone::AccessPoint, Zone::Mesh]);
    for zone in [Zone::Uplink, Zone::AccessPoint, Zone::Mesh] {
        // Multicasts of this node's own come back to it.
        let chain = format!("sources_{}", word(zone));
        table.rule(&chain, &[nft::to_one(true), nft::from_this_node(true), drop()]);
    }
    // What lies in the mesh or behind the access point, by the routes that there are, does not come from outside.
    for (name, _) in filter.interfaces.iter().filter(|(_, zone)| *zone != Zone::Uplink) {
        table.rule("sources_uplink", &[nft::from_behind(name), drop()]);
    }
    for (network, len) in &filter.clients {
        table.rule("sources_uplink", &[nft::from_network(*network, *len), drop()]);
        table.rule("sources_mesh", &[nft::from_network(*network, *len), drop()]);
    }
    // Clients have addresses of the access point's networks, link-local ones, or none yet.
    let none = [(Ipv4Addr::UNSPECIFIED.into(), 32), (Ipv6Addr::UNSPECIFIED.into(), 128)];
    let chain = "sources_access_point";
    for (network, len) in filter.clients.iter().chain(&none).chain(&[LINK_LOCAL]) {
        table.rule(chain, &[nft::from_network(*network, *len), nft::verdict(Verdict::Return)]);
    }
    table.rule(chain, &[drop()]);
}

const LINK_LOCAL: (IpAddr, u8) = (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10);

fn input(table: &mut Table, filter: &Filter) {
    let accept = || nft::verdict(Verdict::Accept);
    let zones = [Zone::Uplink, Zone::AccessPoint, Zone::Mesh];
    table.base_chain("input", "filter", Hook::Input, FILTER);
    by_zone(table, filter, "input", &zones);
    for zone in zones {
        let chain = format!("input_{}", word(zone));
        table.rule(&chain, &[nft::answers(), accept()]);
        table.rule(&chain, &[nft::of_transport(IGMP), accept()]);
        if zone == Zone::Uplink {
            LINK.iter().for_each(|kind| table.rule(&chain, &[nft::of_icmp6(*kind), accept()]));
            // The name is defended there, and answered for to all, as RFC 6762 has it; nobody is served alone.
            table.rule(&chain, &[nft::to_one(false), nft::to_port(false, MDNS), accept()]);
        } else {
            table.rule(
                &chain,
                &[nft::of_family(false), nft::of_transport(libc::IPPROTO_ICMP as u8), accept()],
            );
            table.rule(
                &chain,
                &[nft::of_family(true), nft::of_transport(libc::IPPROTO_ICMPV6 as u8), accept()],
            );
        }
        for open in filter.open.iter().filter(|o| o.zone == zone) {
            let near = if open.on_link { nft::from_network(LINK_LOCAL.0, LINK_LOCAL.1) } else { Vec::new() };
            table.rule(&chain, &[near, nft::to_port(open.tcp, open.port), accept()]);
        }
        table.rule(&chain, &[nft::verdict(Verdict::Drop)]);
    }
}

fn forward(table: &mut Table, filter: &Filter) {
    table.base_chain("forward", "filter", Hook::Forward, FILTER);
    by_zone(table, filter, "forward", &[Zone::Uplink]);
    table.rule("forward_uplink", &[nft::answers(), nft::verdict(Verdict::Accept)]);
    table.rule("forward_uplink", &[nft::verdict(Verdict::Drop)]);
}

fn leaving(table: &mut Table, filter: &Filter) {
    let drop = || nft::verdict(Verdict::Drop);
    table.base_chain("leaving", "filter", Hook::PostRouting, LAST);
    for (name, zone) in &filter.interfaces {
        match zone {
            // Translation leaves out what it takes for no part of any connection.
            Zone::Uplink => {
                let none = nft::from_network(Ipv6Addr::UNSPECIFIED.into(), 128);
                table.rule("leaving", &[nft::leaving_by(name), none, nft::verdict(Verdict::Accept)]);
                table.rule("leaving", &[nft::leaving_by(name), nft::from_this_node(false), drop()]);
            }
            Zone::Mesh => {
                let four = filter.clients.iter().filter(|(network, _)| network.is_ipv4());
                for (network, len) in four {
                    table
                        .rule("leaving", &[nft::leaving_by(name), nft::from_network(*network, *len), drop()]);
                }
            }
            Zone::AccessPoint => {}
        }
    }
}

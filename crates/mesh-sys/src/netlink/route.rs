//! Routes (RTM_NEWROUTE and its kin).

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;

use super::codec::{Builder, attributes, u32_at, u32_of};
use super::tunnel::{self, RTA_ENCAP, RTA_ENCAP_TYPE};
use super::{Error, family_of, ip_of, push_ip};

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;

/// The next hop is on the link even where no prefix there says so.
const RTNH_F_ONLINK: u32 = 4;

/// The table that packets are looked up in by default.
pub const TABLE_MAIN: u32 = libc::RT_TABLE_MAIN as u32;

/// `struct rtmsg`: family, destination length, source length, TOS, table, protocol, scope, type, flags
const HEADER: usize = 12;

/// What a route does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Sends them on.
    Unicast,
    /// Answers "unreachable".
    Unreachable,
    /// Puts them into a tunnel (RFC 2473) that ends at `gateway`, an IPv6 address. The interface's MTU, less the
    /// outer header, is that of the tunnel.
    Tunnel,
    /// Takes what comes out of a tunnel here, IPv4 or IPv6 as `gateway` is, and sends it on as if it were to
    /// `gateway`: by the route there, which has to have a next hop.
    TunnelEnd,
}

/// A route with one next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// What it does.
    pub kind: RouteKind,
    /// Destination prefix.
    pub prefix: IpAddr,
    /// Its length in bits.
    pub prefix_len: u8,
    /// Next hop, of the same family, taken to be on the link whatever the addresses there; `None`: the
    /// destination itself is on the link. For tunnels see [`RouteKind`].
    pub gateway: Option<IpAddr>,
    /// Kernel index of the interface; 0 (none) for [`RouteKind::Unreachable`].
    pub index: u32,
    /// Source address for packets that have none yet.
    pub source: Option<IpAddr>,
    /// The kernel's metric: the smallest wins among equal prefixes. IPv6 turns 0 into 1024.
    pub metric: u32,
    /// Routing table.
    pub table: u32,
    /// Who made it (`linux/rtnetlink.h` RTPROT_…).
    pub protocol: u8,
}

/// One step of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Puts a route in, atomically in place of one with the same prefix, metric and table.
    Replace(Route),
    /// Removes a route: the one with this prefix, metric, table, protocol, interface and gateway.
    Remove(Route),
}

/// Which routes to list.
#[derive(Clone, Copy, Debug)]
pub struct RouteFilter {
    /// In this table.
    pub table: u32,
    /// Made by this protocol; `None`: by any.
    pub protocol: Option<u8>,
}

impl RouteFilter {
    pub(super) fn fits(&self, route: &Route) -> bool {
        route.table == self.table && self.protocol.is_none_or(|p| p == route.protocol)
    }
}

/// Whether an RTM_NEWROUTE or RTM_DELROUTE is about a default route that another than `protocol` made.
pub(super) fn is_foreign_default(body: &[u8], protocol: u8) -> bool {
    matches!(body, [_, 0, _, _, _, p, ..] if *p != protocol)
}

/// Whether it is about a route that `protocol` made.
pub(super) fn is_of(body: &[u8], protocol: u8) -> bool {
    body.get(5) == Some(&protocol)
}

pub(super) fn dump_request(family: u8, filter: &RouteFilter) -> Builder {
    let mut b = Builder::new(
        libc::RTM_GETROUTE,
        0,
        &[family, 0, 0, 0, 0, filter.protocol.unwrap_or(0), 0, 0, 0, 0, 0, 0],
    );
    b.attribute_u32(RTA_TABLE, filter.table);
    b
}

/// What a route into a tunnel needs besides: the address that the node's tunnels come from, and the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct TunnelParts<'a> {
    pub(super) source: Ipv6Addr,
    pub(super) program: Option<&'a OwnedFd>,
}

impl TunnelParts<'_> {
    /// To remove a route, and for all others.
    pub(super) const NONE: Self = Self { source: Ipv6Addr::UNSPECIFIED, program: None };
}

pub(super) fn change_request(kind: u16, how: u16, route: &Route, parts: TunnelParts<'_>) -> Builder {
    let next_hop = route.gateway.filter(|_| route.kind == RouteKind::Unicast);
    let (scope, what) = match (route.kind, next_hop) {
        (RouteKind::Unreachable, _) => (libc::RT_SCOPE_UNIVERSE, libc::RTN_UNREACHABLE),
        (_, Some(_)) => (libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST),
        (_, None) => (libc::RT_SCOPE_LINK, libc::RTN_UNICAST),
    };
    let onlink = if next_hop.is_some() { RTNH_F_ONLINK } else { 0 };
    let [f0, f1, f2, f3] = onlink.to_ne_bytes();
    let table = u8::try_from(route.table).unwrap_or(0);
    let family = family_of(&route.prefix);
    let fixed = [family, route.prefix_len, 0, 0, table, route.protocol, scope, what, f0, f1, f2, f3];
    let mut b = Builder::new(kind, how, &fixed);
    push_ip(&mut b, RTA_DST, route.prefix);
    b.attribute_u32(RTA_TABLE, route.table);
    b.attribute_u32(RTA_PRIORITY, route.metric);
    if route.index != 0 {
        b.attribute_u32(RTA_OIF, route.index);
    }
    if let Some(gateway) = next_hop {
        push_ip(&mut b, RTA_GATEWAY, gateway);
    }
    if let Some(source) = route.source {
        push_ip(&mut b, RTA_PREFSRC, source);
    }
    tunnel::push(&mut b, route, parts.source, parts.program);
    b
}

/// Reads the body of an RTM_NEWROUTE or RTM_DELROUTE; `None` for multipath, multicast, cached and other
/// routes that [`Route`] does not describe.
pub(super) fn parse(body: &[u8]) -> Result<Option<Route>, Error> {
    let bad = || Error::Malformed("route");
    let Some((fixed, rest)) = body.split_first_chunk::<HEADER>() else { return Err(bad()) };
    let [family, prefix_len, source_len, _, table, protocol, _, what, ..] = *fixed;
    let kind = match what {
        libc::RTN_UNICAST => RouteKind::Unicast,
        libc::RTN_UNREACHABLE => RouteKind::Unreachable,
        _ => return Ok(None),
    };
    let cloned = u32_at(fixed, 8).is_some_and(|f| f & libc::RTM_F_CLONED != 0);
    let any = match i32::from(family) {
        libc::AF_INET => IpAddr::from([0u8; 4]),
        libc::AF_INET6 => IpAddr::from([0u8; 16]),
        _ => return Ok(None),
    };
    if cloned || source_len != 0 {
        return Ok(None);
    }
    let (gateway, source) = (None, None);
    let mut route = Route {
        kind,
        prefix: any,
        prefix_len,
        gateway,
        index: 0,
        source,
        metric: 0,
        table: table.into(),
        protocol,
    };
    let (mut encap_type, mut encap) = (None, None);
    for attribute in attributes(rest) {
        match attribute? {
            (RTA_DST, v) => route.prefix = ip_of(v)?,
            (RTA_OIF, v) => route.index = u32_of(v)?,
            (RTA_GATEWAY, v) => route.gateway = Some(ip_of(v)?),
            (RTA_PRIORITY, v) => route.metric = u32_of(v)?,
            (RTA_PREFSRC, v) => route.source = Some(ip_of(v)?),
            (RTA_TABLE, v) => route.table = u32_of(v)?,
            (RTA_MULTIPATH, _) => return Ok(None),
            (RTA_ENCAP_TYPE, v) => encap_type = Some(v),
            (RTA_ENCAP, v) => encap = Some(v),
            _ => {}
        }
    }
    if let Some((encap_type, encap)) = encap_type.zip(encap)
        && let Some((kind, end)) = tunnel::parse(encap_type, encap)?
    {
        (route.kind, route.gateway) = (kind, Some(end));
    }
    if kind == RouteKind::Unreachable {
        route.index = 0; // IPv6 reports lo
    }
    if family_of(&route.prefix) == family { Ok(Some(route)) } else { Err(bad()) }
}

/// The body of a route with several next hops.
pub(super) fn is_multipath(body: &[u8]) -> bool {
    let rest = body.get(HEADER..).unwrap_or_default();
    attributes(rest).any(|a| a.is_ok_and(|(kind, _)| kind == RTA_MULTIPATH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::codec;

    fn sample(v6: bool) -> Route {
        let ip = |a: &str, b: &str| if v6 { b.parse().unwrap() } else { a.parse().unwrap() };
        Route {
            kind: RouteKind::Unicast,
            prefix: ip("10.64.0.7", "fd00:1::"),
            prefix_len: if v6 { 64 } else { 32 },
            gateway: Some(ip("10.64.0.2", "fe80::2")),
            index: 4,
            source: Some(ip("10.64.0.1", "fd00::1")),
            metric: 1990,
            table: 1000,
            protocol: 99,
        }
    }

    #[test]
    fn what_is_asked_for_reads_back() {
        let kind = RouteKind::TunnelEnd;
        let via = Some(IpAddr::from([192, 0, 0, 8]));
        for route in [
            sample(false),
            sample(true),
            Route { gateway: None, ..sample(false) },
            Route { kind, ..sample(true) },
            Route { kind, gateway: via, ..sample(true) },
        ] {
            let bytes = change_request(libc::RTM_NEWROUTE, 0, &route, TunnelParts::NONE).finish(0, 1);
            let message = codec::messages(&bytes).next().unwrap().unwrap();
            assert_eq!(parse(message.body).unwrap(), Some(route));
            for cut in 0..message.body.len() {
                let _ = parse(&message.body[..cut]);
            }
        }
    }

    #[test]
    fn filters_by_table_and_protocol() {
        let route = sample(true);
        let fits = |table, protocol| RouteFilter { table, protocol }.fits(&route);
        assert!(fits(1000, Some(99)) && fits(1000, None));
        assert!(!fits(254, Some(99)) && !fits(1000, Some(4)));
    }
}

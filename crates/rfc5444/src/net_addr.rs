//! IP network addresses: what OLSRv2's tables hold.

use core::cmp::Ordering;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network address in RFC 6130's sense: an IP address and a prefix length in bits.
/// Bits behind the prefix are kept as given ([`NetAddr::network`] clears them).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetAddr {
    ip: IpAddr,
    prefix_len: u8,
}

impl Ord for NetAddr {
    /// As by its parts, IPv4 first; most of what tables of thousands of addresses cost is this.
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |a: &Self| match a.ip {
            IpAddr::V4(ip) => (false, u128::from(ip.to_bits()), a.prefix_len),
            IpAddr::V6(ip) => (true, ip.to_bits(), a.prefix_len),
        };
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for NetAddr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl NetAddr {
    /// An address with a prefix length; a length over the address' width counts as the width.
    pub fn new(ip: IpAddr, prefix_len: u8) -> Self {
        Self { ip, prefix_len: prefix_len.min(width(ip)) }
    }

    /// One host: maximal prefix length.
    pub fn host(ip: IpAddr) -> Self {
        Self { ip, prefix_len: width(ip) }
    }

    /// The address part.
    pub fn ip(self) -> IpAddr {
        self.ip
    }

    /// The prefix length in bits, 0 ..= 32 or 0 ..= 128.
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// Whether the prefix length is maximal.
    pub fn is_host(self) -> bool {
        self.prefix_len == width(self.ip)
    }

    /// The address length in octets, 4 or 16.
    pub fn octets_len(self) -> u8 {
        width(self.ip) / 8
    }

    /// The same prefix with all bits behind it cleared.
    #[must_use]
    pub fn network(self) -> Self {
        let ip = match self.ip {
            IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & mask32(self.prefix_len))),
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & mask128(self.prefix_len))),
        };
        Self { ip, prefix_len: self.prefix_len }
    }

    /// Whether the prefix covers `ip`.
    pub fn contains(self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(n), IpAddr::V4(a)) => (n.to_bits() ^ a.to_bits()) & mask32(self.prefix_len) == 0,
            (IpAddr::V6(n), IpAddr::V6(a)) => (n.to_bits() ^ a.to_bits()) & mask128(self.prefix_len) == 0,
            _ => false,
        }
    }

    /// Whether the two ranges have an address in common (RFC 6130 §3, "overlaps").
    pub fn overlaps(self, other: Self) -> bool {
        if self.prefix_len <= other.prefix_len { self.contains(other.ip) } else { other.contains(self.ip) }
    }
}

impl From<IpAddr> for NetAddr {
    fn from(ip: IpAddr) -> Self {
        Self::host(ip)
    }
}

impl fmt::Display for NetAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_len)
    }
}

const fn width(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn mask32(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32u32.saturating_sub(prefix_len.into())).unwrap_or(0)
}

fn mask128(prefix_len: u8) -> u128 {
    u128::MAX.checked_shl(128u32.saturating_sub(prefix_len.into())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str, len: u8) -> NetAddr {
        NetAddr::new(text.parse().unwrap(), len)
    }

    #[test]
    fn prefixes_cover_and_overlap() {
        assert!(net("10.64.0.0", 10).contains("10.127.1.2".parse().unwrap()));
        assert!(!net("10.64.0.0", 10).contains("10.128.0.1".parse().unwrap()));
        assert!(net("::", 0).contains("fd00::1".parse().unwrap()));
        assert!(!net("::", 0).contains("10.0.0.1".parse().unwrap()));
        assert!(net("fd00::", 64).overlaps(net("fd00::1", 128)));
        assert!(net("fd00::1", 128).overlaps(net("fd00::", 64)));
        assert!(!net("fd00::1", 128).overlaps(net("fd00::2", 128)));
        assert_eq!(net("10.1.2.3", 24).network(), net("10.1.2.0", 24));
        assert_eq!(net("10.1.2.3", 99).prefix_len(), 32);
    }
}

//! Address objects of any length.

use core::fmt;
use core::net::IpAddr;

use crate::NetAddr;

/// An address object (RFC 5444 §5.3): 1 to 16 octets and a prefix length in bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    octets: [u8; 16],
    len: u8,
    prefix_len: u8,
}

impl Address {
    /// From 1 to 16 octets and a prefix length of at most their width; `None` for others.
    pub fn new(octets: &[u8], prefix_len: u8) -> Option<Self> {
        let len = u8::try_from(octets.len()).ok().filter(|n| (1..=16).contains(n))?;
        if prefix_len > len * 8 {
            return None;
        }
        let mut all = [0; 16];
        all.get_mut(..octets.len())?.copy_from_slice(octets);
        Some(Self { octets: all, len, prefix_len })
    }

    /// The octets.
    pub fn octets(&self) -> &[u8] {
        self.octets.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Prefix length in bits.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether the prefix length is maximal: an address, not a prefix.
    pub fn is_host(&self) -> bool {
        self.prefix_len == self.len * 8
    }

    /// As an IP network address, if it has 4 or 16 octets.
    pub fn net_addr(&self) -> Option<NetAddr> {
        let ip = match self.len {
            4 => IpAddr::from(<[u8; 4]>::try_from(self.octets()).ok()?),
            16 => IpAddr::from(self.octets),
            _ => return None,
        };
        Some(NetAddr::new(ip, self.prefix_len))
    }
}

impl From<NetAddr> for Address {
    fn from(net: NetAddr) -> Self {
        let mut octets = [0; 16];
        let len = match net.ip() {
            IpAddr::V4(ip) => {
                for (to, from) in octets.iter_mut().zip(ip.octets()) {
                    *to = from;
                }
                4
            }
            IpAddr::V6(ip) => {
                octets = ip.octets();
                16
            }
        };
        Self { octets, len, prefix_len: net.prefix_len() }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        Self::from(NetAddr::host(ip))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(net) = self.net_addr() {
            return if net.is_host() { net.ip().fmt(f) } else { net.fmt(f) };
        }
        for (i, octet) in self.octets().iter().enumerate() {
            write!(f, "{}{octet:02x}", if i == 0 { "" } else { ":" })?;
        }
        if self.is_host() { Ok(()) } else { write!(f, "/{}", self.prefix_len) }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

//! Who a node is, and the addresses that follow from it.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// The mesh's IPv4 pool, `10.64.0.0/10`: base address and prefix length.
pub const IPV4_POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 64, 0, 0), 10);

/// The node on its own access point, the same on every node: address and prefix length.
pub const AP_NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 0, 1), 24);

/// How many IPv4 addresses a node has to choose from ([`NodeId::mesh_ipv4`]).
pub const IPV4_ATTEMPTS: u8 = 6;

/// SHA-256 of the node's Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// From the SHA-256 digest of the public key.
    pub const fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The node's own ULA /64: `fd` and the first 56 bits of the identifier (RFC 4193 §3.1).
    pub const fn ula_prefix(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f, g, ..] = self.0;
        Ipv6Addr::from_octets([0xfd, a, b, c, d, e, f, g, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// The node's own address, `::1` in its /64.
    pub const fn ula_address(&self) -> Ipv6Addr {
        let mut octets = self.ula_prefix().octets();
        octets[15] = 1;
        Ipv6Addr::from_octets(octets)
    }

    /// The node's IPv4 address on the mesh, out of [`IPV4_POOL`]: the identifier's bytes 8..11 on the
    /// first try, the following ones after a duplicate. Never the pool's first or last address.
    /// `attempt` wraps after [`IPV4_ATTEMPTS`] tries.
    pub fn mesh_ipv4(&self, attempt: u8) -> Ipv4Addr {
        const HOST_BITS: u32 = 32 - IPV4_POOL.1 as u32;
        let at = 8 + usize::from(attempt % IPV4_ATTEMPTS) * 4;
        let word = self.0.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
        let size = 1u32 << HOST_BITS;
        let host = 1 + word % (size - 2);
        Ipv4Addr::from_bits(IPV4_POOL.0.to_bits() | host)
    }
}

impl fmt::Display for NodeId {
    /// 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "NodeId({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_from_the_identifier() {
        let id = NodeId::from_digest(core::array::from_fn(|i| i as u8 + 1));
        assert_eq!(id.ula_prefix(), "fd01:203:405:607::".parse::<Ipv6Addr>().unwrap());
        assert_eq!(id.ula_address(), "fd01:203:405:607::1".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn ipv4_stays_inside_the_pool() {
        for byte in [0u8, 1, 0x7f, 0xff] {
            for attempt in 0..=u8::MAX {
                let ip = NodeId::from_digest([byte; 32]).mesh_ipv4(attempt);
                assert_eq!(ip.to_bits() >> 22, IPV4_POOL.0.to_bits() >> 22, "{ip}");
                assert!(ip.to_bits() & 0x3f_ffff != 0 && ip.to_bits() & 0x3f_ffff != 0x3f_ffff);
            }
        }
    }
}

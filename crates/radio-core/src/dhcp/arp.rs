//! ARP on Ethernet (RFC 826), for whether an address is in use (RFC 5227 §2.1, §2.3).

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use crate::Mac;

/// Hardware type Ethernet, protocol type IPv4, lengths of their addresses.
const HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;

/// Who says what of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Who sent it.
    pub mac: Mac,
    /// The address that it has; unspecified in a probe.
    pub address: Ipv4Addr,
    /// The address that it asks for.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Reads one; what stands behind it is Ethernet's padding. `None`: it is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<6>()?;
        let (_, rest) = rest.split_first_chunk::<2>()?;
        let (mac, rest) = rest.split_first_chunk::<6>()?;
        let (address, rest) = rest.split_first_chunk::<4>()?;
        let (_, rest) = rest.split_first_chunk::<6>()?;
        let target = rest.first_chunk::<4>()?;
        let all = Self { mac: *mac, address: (*address).into(), target: (*target).into() };
        (*header == HEADER).then_some(all)
    }

    /// A request with these, to be sent to all: a probe if its address is unspecified, an announcement if the address is
    /// its target.
    pub fn write(&self) -> Vec<u8> {
        [
            &HEADER[..],
            &REQUEST.to_be_bytes(),
            &self.mac,
            &self.address.octets(),
            &[0; 6],
            &self.target.octets(),
        ]
        .concat()
    }

    /// Whether it says that `address` is, or is about to be, another's than `own`'s (RFC 5227 §2.1.1).
    pub fn conflicts(&self, own: Mac, address: Ipv4Addr) -> bool {
        let probes = self.address.is_unspecified() && self.target == address;
        self.mac != own && (self.address == address || probes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5227_what_is_a_conflict() {
        let (own, other) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let (none, here, there) =
            (Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(192, 168, 7, 100), Ipv4Addr::new(192, 168, 7, 9));
        let table = [
            (other, here, there, true),
            (other, here, here, true),
            (other, none, here, true),
            (other, there, here, false),
            (other, none, there, false),
            (own, none, here, false),
            (own, here, here, false),
        ];
        for (mac, address, target, conflict) in table {
            let arp = Arp { mac, address, target };
            assert_eq!(arp.conflicts(own, here), conflict, "{arp:?}");
            let bytes = arp.write();
            assert_eq!(Arp::parse(&bytes), Some(arp));
            assert_eq!(Arp::parse(&[&bytes[..], &[0; 18]].concat()), Some(arp), "padded");
            for cut in 0..bytes.len() {
                assert_eq!(Arp::parse(&bytes[..cut]), None);
            }
            for at in 0..HEADER.len() {
                let mut foreign = bytes.clone();
                foreign[at] ^= 2;
                assert_eq!(Arp::parse(&foreign), None);
            }
        }
    }
}

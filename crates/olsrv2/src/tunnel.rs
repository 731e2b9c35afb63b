//! What gateways say of tunnels: a private address block TLV beside GATEWAY in TCs (RFC 5444 §6.4 leaves
//! types 224 to 255 to experiments; routers of other makes pass it over). Not 224: olsrd2 takes that for the source
//! prefix of a route.
//!
//! With a tunnel no router on the way has a say in which gateway a packet goes to. The TLV's value tells
//! what it is: eight octets on a default route, [`Note::TunnelsEndIn`]; four octets on another network,
//! [`Note::SameNode`]. Values of other lengths mean nothing.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rfc5444::NetAddr;

/// Address block TLV type of a [`Note`].
pub(crate) const NOTE: u8 = 250;
/// The most notes kept of one router; it needs two.
pub(crate) const MAX_NOTES: usize = 4;

/// What an originator says of one of its attached networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// Of a default route: packets in tunnels that end in this /64 (the lower half is zero) go out there. The
    /// /64 has to be routed to the same node, or the note is a lie.
    TunnelsEndIn(Ipv6Addr),
    /// Of a /64: its node is that router in the IPv4 mesh. Only if both sides say so is it true.
    SameNode(Ipv4Addr),
}

impl Note {
    /// Reads a TLV's value; `None`: it means nothing here.
    pub(crate) fn read(prefix: NetAddr, value: &[u8]) -> Option<Self> {
        match (prefix.prefix_len(), value) {
            (0, [a, b, c, d, e, f, g, h]) => {
                let octets = [*a, *b, *c, *d, *e, *f, *g, *h, 0, 0, 0, 0, 0, 0, 0, 0];
                Some(Self::TunnelsEndIn(octets.into()))
            }
            (1.., [a, b, c, d]) => Some(Self::SameNode([*a, *b, *c, *d].into())),
            _ => None,
        }
    }

    /// The TLV's value.
    pub(crate) fn value(&self) -> Vec<u8> {
        match self {
            Self::TunnelsEndIn(prefix) => prefix.octets().into_iter().take(8).collect(),
            Self::SameNode(address) => address.octets().into(),
        }
    }
}

/// A note, of whom and of which of its networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoteView {
    /// Who says it.
    pub router: IpAddr,
    /// Of which attached network.
    pub prefix: NetAddr,
    /// What.
    pub note: Note,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_told_by_prefix_and_length() {
        let net = |text: &str, len| NetAddr::new(text.parse().unwrap(), len);
        let end = Note::TunnelsEndIn("fd01:203:405:607::".parse().unwrap());
        assert_eq!(end.value(), [0xfd, 1, 2, 3, 4, 5, 6, 7]);
        for any in [net("::", 0), net("0.0.0.0", 0)] {
            assert_eq!(Note::read(any, &end.value()), Some(end));
            assert_eq!(Note::read(any, &[10, 64, 0, 1]), None);
        }
        let same = Note::SameNode([10, 64, 0, 1].into());
        assert_eq!(Note::read(net("fd01::", 64), &same.value()), Some(same));
        assert_eq!(Note::read(net("fd01::", 64), &end.value()), None);
        assert_eq!(Note::read(net("::", 0), &[]), None);
    }
}

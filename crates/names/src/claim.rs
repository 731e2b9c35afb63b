//! The name record that a node floods over the mesh, and who keeps a name that two nodes claim.

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mesh_types::{Duration, NodeId, NodeName};

use crate::service::{MAX_SERVICES, Service};

/// The format's version, the record's first byte.
const VERSION: u8 = 1;
/// A record carries at most this many addresses.
pub const MAX_ADDRESSES: usize = 16;
/// A record is at most this long, in bytes: the router carries 1 KiB with its own header.
const MAX_RECORD: usize = 960;

/// A node's claim to a name, as flooded: the owner is known from the signature around it.
///
/// Bytes: version (1) · level · length and text of the name · number of addresses · each as 4 or 6 and its
/// octets · number of services · services (see [`Service`]). What follows is for later versions and passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRecord {
    /// Without `.local`.
    pub name: NodeName,
    /// How long the node has held the name, see [`level`].
    pub level: u8,
    /// Where it is reached, best first.
    pub addresses: Vec<IpAddr>,
    /// What it offers.
    pub services: Vec<Service>,
}

/// Why bytes are no name record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Another version of the format.
    Version(u8),
    /// It ends too early, or an address is of no known family.
    Malformed,
    /// The name is not a node name.
    Name,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(v) => write!(f, "name record of version {v}; this node knows {VERSION}"),
            Self::Malformed => f.write_str("name record cut short or with an unknown address family"),
            Self::Name => f.write_str("name record with a name that is none"),
        }
    }
}

impl core::error::Error for RecordError {}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], RecordError> {
    let (head, tail) = bytes.split_at_checked(n).ok_or(RecordError::Malformed)?;
    *bytes = tail;
    Ok(head)
}

fn byte(bytes: &mut &[u8]) -> Result<u8, RecordError> {
    take(bytes, 1)?.first().copied().ok_or(RecordError::Malformed)
}

impl NameRecord {
    /// As bytes; addresses beyond [`MAX_ADDRESSES`] are left out, and services for which there is no room.
    pub fn encode(&self) -> Vec<u8> {
        let name = self.name.as_str().as_bytes();
        let addresses = self.addresses.get(..MAX_ADDRESSES).unwrap_or(&self.addresses);
        let mut out = Vec::from([VERSION, self.level, name.len() as u8]);
        out.extend_from_slice(name);
        out.push(addresses.len() as u8);
        for a in addresses {
            match a {
                IpAddr::V4(a) => {
                    out.push(4);
                    out.extend(a.octets());
                }
                IpAddr::V6(a) => {
                    out.push(6);
                    out.extend(a.octets());
                }
            }
        }
        let (count_at, mut count) = (out.len(), 0u8);
        out.push(0);
        for service in self.services.iter().take(MAX_SERVICES) {
            let before = out.len();
            service.encode(&mut out);
            if out.len() > MAX_RECORD {
                out.truncate(before);
            } else {
                count += 1;
            }
        }
        if let Some(at) = out.get_mut(count_at) {
            *at = count;
        }
        out
    }

    /// From bytes. Addresses that no other node can use (unspecified, loopback, multicast, link-local) are
    /// left out, and so are those beyond [`MAX_ADDRESSES`]; services end where one can't be read.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn decode(mut bytes: &[u8]) -> Result<Self, RecordError> {
        let at = &mut bytes;
        match byte(at)? {
            VERSION => {}
            v => return Err(RecordError::Version(v)),
        }
        let level = byte(at)?;
        let length = byte(at)?;
        let text = core::str::from_utf8(take(at, length.into())?).map_err(|_| RecordError::Name)?;
        let name = NodeName::new(text).map_err(|_| RecordError::Name)?;
        let mut addresses = Vec::new();
        for _ in 0..byte(at)? {
            let address = match byte(at)? {
                4 => IpAddr::V4(Ipv4Addr::from(take(at, 4)?.first_chunk::<4>().copied().unwrap_or_default())),
                6 => {
                    IpAddr::V6(Ipv6Addr::from(take(at, 16)?.first_chunk::<16>().copied().unwrap_or_default()))
                }
                _ => return Err(RecordError::Malformed),
            };
            if is_reachable(address) && !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
                addresses.push(address);
            }
        }
        let count = usize::from(byte(at).unwrap_or(0)).min(MAX_SERVICES);
        let services = (0..count).map_while(|_| Service::decode(at)).collect();
        Ok(Self { name, level, addresses, services })
    }
}

/// Whether an address means something beyond one link.
pub fn is_reachable(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast() || a.octets().first() == Some(&0),
        IpAddr::V6(a) => a.is_unicast_link_local() || a.to_ipv4_mapped().is_some(),
    };
    !(local || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// The level of a name held for so long: 0 below 10 s, then one more each time that span doubles.
///
/// Two nodes that claim one name compare levels and not times, because no clock is common to them.
pub fn level(held: Duration) -> u8 {
    let tens = held.as_secs() / 10;
    (u64::BITS - tens.leading_zeros()) as u8
}

/// How long a name must have been held to reach `level`.
pub fn level_reached(level: u8) -> Duration {
    match level.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => Duration::from_secs(10u64.checked_shl(doublings.into()).unwrap_or(u64::MAX)),
    }
}

/// Whether claim `a` keeps the name against claim `b`: the higher level does, the lower identifier among
/// equals.
///
/// A claim's level only rises, so what a node knows of another is never better than the truth: at most one
/// of two rivals gives way, and once both know each other's last record exactly one has.
pub fn keeps(a: (u8, NodeId), b: (u8, NodeId)) -> bool {
    match a.0.cmp(&b.0) {
        Ordering::Greater => true,
        Ordering::Less => false,
        Ordering::Equal => a.1 < b.1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn a_record_survives_the_way_there_and_back() {
        let record = NameRecord {
            name: NodeName::new("bloor").unwrap(),
            level: 3,
            addresses: vec!["fd01::1".parse().unwrap(), "10.64.1.2".parse().unwrap()],
            services: vec![Service::new("_http", true, 80), Service::new("_ipfs-gateway", true, 8080)],
        };
        assert_eq!(NameRecord::decode(&record.encode()), Ok(record.clone()));
        let mut longer = record.encode();
        longer.extend([9, 9, 9]);
        assert_eq!(NameRecord::decode(&longer), Ok(record));
    }

    #[test]
    fn a_record_has_no_more_services_than_fit() {
        let long =
            |n| Service { text: vec!["x=".to_owned() + &"y".repeat(200)], ..Service::new("_http", true, n) };
        let record = NameRecord {
            name: NodeName::new("bloor").unwrap(),
            level: 0,
            addresses: vec![],
            services: (1..20).map(long).collect(),
        };
        let bytes = record.encode();
        assert!(bytes.len() <= MAX_RECORD);
        let read = NameRecord::decode(&bytes).unwrap().services;
        assert!(read.len() >= 4 && record.services.starts_with(&read));
    }

    #[test]
    fn bad_records_are_named() {
        let e = |b: &[u8]| NameRecord::decode(b).unwrap_err();
        assert_eq!(e(&[]), RecordError::Malformed);
        assert_eq!(e(&[2]), RecordError::Version(2));
        assert_eq!(e(&[1, 0, 1, b'-', 0]), RecordError::Name);
        assert_eq!(e(&[1, 0, 1, b'a', 1, 5]), RecordError::Malformed);
        assert_eq!(e(&[1, 0, 1, b'a', 2, 4, 10, 0, 0, 1]), RecordError::Malformed);
    }

    #[test]
    fn addresses_of_no_use_to_others_are_left_out() {
        let bytes = [1, 0, 1, b'a', 3, 4, 127, 0, 0, 1, 4, 169, 254, 0, 1, 4, 10, 64, 0, 1];
        assert_eq!(NameRecord::decode(&bytes).unwrap().addresses, [IpAddr::V4(Ipv4Addr::new(10, 64, 0, 1))]);
    }

    #[test]
    fn levels_rise_with_each_doubling() {
        for l in 0..40u8 {
            assert_eq!(level(level_reached(l)), l);
            if l > 0 {
                assert_eq!(level(level_reached(l).saturating_sub(Duration::from_micros(1))), l - 1);
            }
        }
        assert_eq!(level(Duration::MAX), level(Duration::MAX));
    }

    proptest! {
        #[test]
        fn decode_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = NameRecord::decode(&bytes);
        }

        #[test]
        fn of_two_rivals_exactly_one_keeps_the_name(a in any::<(u8, [u8; 32])>(), b in any::<(u8, [u8; 32])>()) {
            let a = (a.0, NodeId::from_digest(a.1));
            let b = (b.0, NodeId::from_digest(b.1));
            prop_assume!(a.1 != b.1);
            prop_assert!(keeps(a, b) != keeps(b, a));
        }

        #[test]
        fn a_stale_view_never_makes_both_give_way(
            a in any::<(u8, [u8; 32])>(), b in any::<(u8, [u8; 32])>(), older in any::<(u8, u8)>()
        ) {
            let (a, b) = ((a.0, NodeId::from_digest(a.1)), (b.0, NodeId::from_digest(b.1)));
            prop_assume!(a.1 != b.1);
            let a_seen = (a.0.saturating_sub(older.0), a.1);
            let b_seen = (b.0.saturating_sub(older.1), b.1);
            prop_assert!(!(keeps(b_seen, a) && keeps(a_seen, b)));
        }
    }
}

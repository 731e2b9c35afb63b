//! Ancillary data: packet information out, packet information and hop limit in (RFC 3542 §6).
//!
//! Written and read as bytes: a header of one native word (length) and two `int`s (level, type), data
//! behind it, the whole padded to a native word. The same on every Linux C library.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Family;

const WORD: usize = size_of::<usize>();
const HEADER: usize = WORD + 8;

/// Room for more than the kernel sends with the options we set.
#[repr(C, align(8))]
pub(crate) struct Control {
    pub(super) bytes: [u8; 128],
    pub(super) len: usize,
}

/// What [`parse`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PacketInfo {
    pub(super) destination: Option<IpAddr>,
    pub(super) interface: u32,
    pub(super) hop_limit: Option<u8>,
    /// When it came, in microseconds by the clock that people set.
    pub(super) stamp: Option<i64>,
}

impl Control {
    pub(super) const fn empty() -> Self {
        Self { bytes: [0; 128], len: 0 }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Appends one message; the few we send always fit.
    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let space = (HEADER + data.len()).next_multiple_of(WORD);
        let Some(room) = self.bytes.get_mut(self.len..self.len + space) else { return };
        let (len, level, kind) =
            ((HEADER + data.len()).to_ne_bytes(), level.to_ne_bytes(), kind.to_ne_bytes());
        let message = len.iter().chain(&level).chain(&kind).chain(data);
        room.iter_mut().zip(message).for_each(|(to, from)| *to = *from);
        self.len += space;
    }
}

/// The message that fixes the interface, and the source if there is one (of the same family).
pub(crate) fn pktinfo(family: Family, index: u32, source: Option<IpAddr>) -> Control {
    let mut control = Control::empty();
    match family {
        Family::V4 => {
            // in_pktinfo: ipi_ifindex, ipi_spec_dst (the source), ipi_addr (ignored on output)
            let mut data = [0u8; 12];
            let source = match source {
                Some(IpAddr::V4(s)) => s.octets(),
                _ => [0; 4],
            };
            let fields = index.to_ne_bytes().into_iter().chain(source);
            data.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
            control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &data);
        }
        Family::V6 => {
            // in6_pktinfo: ipi6_addr (the source), ipi6_ifindex
            let mut data = [0u8; 20];
            let source = match source {
                Some(IpAddr::V6(s)) => s.octets(),
                _ => [0; 16],
            };
            let fields = source.into_iter().chain(index.to_ne_bytes());
            data.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
            control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data);
        }
    }
    control
}

/// Reads what the kernel attached. Unknown, short or cut-off messages are passed over.
pub(super) fn parse(mut rest: &[u8]) -> PacketInfo {
    let mut info = PacketInfo::default();
    while let Some((level, kind, data, next)) = split(rest) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                if let (Some(index), Some(to)) = (array::<4>(data, 0), array::<4>(data, 8)) {
                    info.interface = u32::from_ne_bytes(index);
                    info.destination = Some(Ipv4Addr::from_octets(to).into());
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let (Some(to), Some(index)) = (array::<16>(data, 0), array::<4>(data, 16)) {
                    info.interface = u32::from_ne_bytes(index);
                    info.destination = Some(Ipv6Addr::from_octets(to).into());
                }
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                info.hop_limit = array::<4>(data, 0).and_then(|v| u8::try_from(i32::from_ne_bytes(v)).ok());
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                let time = array::<8>(data, 0).zip(array::<8>(data, 8));
                let micros = |(s, ns)| {
                    i64::from_ne_bytes(s).checked_mul(1_000_000)?.checked_add(i64::from_ne_bytes(ns) / 1_000)
                };
                info.stamp = time.and_then(micros);
            }
            _ => {}
        }
        rest = next;
    }
    info
}

fn array<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn split(bytes: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let len = usize::from_ne_bytes(array(bytes, 0)?);
    let level = i32::from_ne_bytes(array(bytes, WORD)?);
    let kind = i32::from_ne_bytes(array(bytes, WORD + 4)?);
    let data = bytes.get(HEADER..len)?;
    let next = bytes.get(len.next_multiple_of(WORD)..).unwrap_or_default();
    Some((level, kind, data, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3542_6_2_what_goes_out_reads_back() {
        let source: IpAddr = "fe80::1".parse().unwrap();
        let info = parse(pktinfo(Family::V6, 7, Some(source)).as_slice());
        assert_eq!(info, PacketInfo { destination: Some(source), interface: 7, ..PacketInfo::default() });
        let info = parse(pktinfo(Family::V4, 9, Some("10.64.0.1".parse().unwrap())).as_slice());
        assert_eq!((info.interface, info.destination), (9, Some(Ipv4Addr::UNSPECIFIED.into())));
    }

    #[test]
    fn two_messages_and_every_cut_of_them() {
        let mut control = pktinfo(Family::V6, 3, None);
        control.push(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &255i32.to_ne_bytes());
        assert_eq!(parse(control.as_slice()).hop_limit, Some(255));
        for cut in 0..control.len {
            let _ = parse(&control.bytes[..cut]);
        }
        let _ = parse(&[0xff; 64]);
        assert_eq!(parse(&[0; 64]), PacketInfo::default());
    }
}

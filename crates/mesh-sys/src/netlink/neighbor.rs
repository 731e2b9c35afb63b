//! Neighbours on the link as the kernel sees them (RTM_NEWNEIGH and its kin): ARP, and RFC 4861 neighbour
//! unreachability detection.

use std::net::IpAddr;

use mesh_types::Duration;
use socket2::SockFilter;

use super::codec::{Builder, Nest, attributes, flags, u16_at, u32_at};
use super::{Error, family_of, ip_of, push_ip};

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_IFINDEX: u16 = 8;
const NDTA_NAME: u16 = 1;
const NDTA_PARMS: u16 = 6;
const NDTPA_IFINDEX: u16 = 1;
const NDTPA_BASE_REACHABLE_TIME: u16 = 4;
const NDTPA_RETRANS_TIME: u16 = 5;
const NDTPA_DELAY_PROBE_TIME: u16 = 7;

const NUD_REACHABLE: u16 = 0x02;
const NUD_PROBE: u16 = 0x10;
const NUD_FAILED: u16 = 0x20;
/// Resolve and probe as if there were a packet to send.
const NTF_USE: u8 = 0x01;

/// `struct ndmsg`: family, padding (3), index, state (2), flags, type
const HEADER: usize = 12;

/// What the kernel found out about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Kernel index of the interface.
    pub index: u32,
    /// The neighbour's address.
    pub ip: IpAddr,
    /// It answered just now; or it did not, however often it was asked.
    pub reachable: bool,
}

fn request(index: u32, ip: IpAddr, how: u16, state: u16, with: u8) -> Builder {
    let ([i0, i1, i2, i3], [s0, s1]) = (index.to_ne_bytes(), state.to_ne_bytes());
    let fixed: [u8; HEADER] = [family_of(&ip), 0, 0, 0, i0, i1, i2, i3, s0, s1, with, 0];
    let mut b = Builder::new(libc::RTM_NEWNEIGH, how, &fixed);
    push_ip(&mut b, NDA_DST, ip);
    b
}

/// Asks a known neighbour, by unicast, whether it is still there.
pub(super) fn probe_request(index: u32, ip: IpAddr) -> Builder {
    request(index, ip, flags::REPLACE, NUD_PROBE, 0)
}

/// Asks for a neighbour of which no hardware address is known, by multicast.
pub(super) fn use_request(index: u32, ip: IpAddr) -> Builder {
    request(index, ip, flags::CREATE | flags::REPLACE, 0, NTF_USE)
}

/// Times of neighbour unreachability detection (RFC 4861 §7.3, §10; the kernel does the same with ARP). Only a
/// neighbour that is sent packets is ever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detection {
    /// ReachableTime: how long an answer holds, on average; it is half as long to one and a half times.
    pub reachable: Duration,
    /// DELAY_FIRST_PROBE_TIME: between the first packet after that and the first question.
    pub delay: Duration,
    /// RetransTimer: between two questions.
    pub retransmission: Duration,
}

impl Detection {
    /// RFC 4861's own, which are also the kernel's.
    pub const RFC4861: Self = Self {
        reachable: Duration::from_secs(30),
        delay: Duration::from_secs(5),
        retransmission: Duration::from_secs(1),
    };
}

/// Sets the times of an interface.
pub(super) fn detection_request(index: u32, v6: bool, times: &Detection) -> Builder {
    let (family, table): (_, &[u8]) =
        if v6 { (libc::AF_INET6, b"ndisc_cache\0") } else { (libc::AF_INET, b"arp_cache\0") };
    let mut b = Builder::new(libc::RTM_SETNEIGHTBL, 0, &[family as u8, 0, 0, 0]);
    b.attribute(NDTA_NAME, table);
    let mut parameters = Nest::default();
    parameters.attribute(NDTPA_IFINDEX, &index.to_ne_bytes());
    for (kind, time) in [
        (NDTPA_BASE_REACHABLE_TIME, times.reachable),
        (NDTPA_DELAY_PROBE_TIME, times.delay),
        (NDTPA_RETRANS_TIME, times.retransmission),
    ] {
        parameters.attribute(kind, &time.as_millis().to_ne_bytes());
    }
    b.attribute(NDTA_PARMS, parameters.bytes());
    b
}

/// Asks for what is known of the neighbours on an interface (where the kernel heeds that), both families.
pub(super) fn dump_request(index: u32) -> Builder {
    let mut b = Builder::new(libc::RTM_GETNEIGH, 0, &[0; HEADER]);
    b.attribute_u32(NDA_IFINDEX, index);
    b
}

/// The address and hardware address in the body of an RTM_NEWNEIGH about `index`; `None` if it is about
/// another interface, or the hardware address is not known or not of 6 bytes.
pub(super) fn parse_entry(body: &[u8], index: u32) -> Result<Option<(IpAddr, [u8; 6])>, Error> {
    let bad = || Error::Malformed("neighbour");
    if u32_at(body, 4).ok_or_else(bad)? != index {
        return Ok(None);
    }
    let (mut ip, mut mac) = (None, None);
    for attribute in attributes(body.get(HEADER..).ok_or_else(bad)?) {
        match attribute? {
            (NDA_DST, value) => ip = ip_of(value).ok(),
            (NDA_LLADDR, value) => mac = value.try_into().ok(),
            _ => {}
        }
    }
    Ok(ip.zip(mac))
}

/// A filter for notifications: of those about neighbours only the ones that [`parse`] makes something of, without
/// `answers` only of those that did not answer.
pub(super) fn verdicts_only(answers: bool) -> [SockFilter; 7] {
    let states = if answers { NUD_REACHABLE | NUD_FAILED } else { NUD_FAILED };
    // A classic BPF program reads in network order what stands there in the machine's.
    let as_read = |n: u16| u32::from(u16::from_be_bytes(n.to_ne_bytes()));
    let load = |at: u32| SockFilter::new((libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16, 0, 0, at);
    let jump = |how: u32, yes: u8, no: u8, n: u16| {
        SockFilter::new((libc::BPF_JMP | how | libc::BPF_K) as u16, yes, no, as_read(n))
    };
    let end = |octets: u32| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, octets);
    [
        load(4), // nlmsg_type
        jump(libc::BPF_JEQ, 1, 0, libc::RTM_NEWNEIGH),
        jump(libc::BPF_JEQ, 3, 2, libc::RTM_DELNEIGH),
        load(24), // ndm_state, behind 16 octets of header
        jump(libc::BPF_JSET, 0, 1, states),
        end(u32::MAX),
        end(0),
    ]
}

/// Reads the body of an RTM_NEWNEIGH; `None` if it is no verdict.
pub(super) fn parse(body: &[u8]) -> Result<Option<Neighbor>, Error> {
    let bad = || Error::Malformed("neighbour");
    let family = *body.first().ok_or_else(bad)?;
    if ![libc::AF_INET as u8, libc::AF_INET6 as u8].contains(&family) {
        return Ok(None);
    }
    let index = u32_at(body, 4).ok_or_else(bad)?;
    let state = u16_at(body, 8).ok_or_else(bad)?;
    if state & (NUD_REACHABLE | NUD_FAILED) == 0 {
        return Ok(None);
    }
    let mut ip = None;
    for attribute in attributes(body.get(HEADER..).ok_or_else(bad)?) {
        if let (NDA_DST, value) = attribute? {
            ip = Some(ip_of(value)?);
        }
    }
    let ip = ip.filter(|ip| family_of(ip) == family).ok_or_else(bad)?;
    Ok(Some(Neighbor { index, ip, reachable: state & NUD_REACHABLE != 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::codec;

    #[test]
    fn verdicts_read_back_and_lies_are_errors() {
        for (text, state, expected) in [
            ("fe80::2", NUD_REACHABLE, Some(true)),
            ("10.64.1.2", NUD_FAILED, Some(false)),
            ("fe80::2", NUD_PROBE, None),
        ] {
            let ip: IpAddr = text.parse().unwrap();
            let bytes = request(7, ip, 0, state, 0).finish(0, 1);
            let message = codec::messages(&bytes).next().unwrap().unwrap();
            let got = parse(message.body).unwrap();
            assert_eq!(got, expected.map(|reachable| Neighbor { index: 7, ip, reachable }));
            for cut in 0..message.body.len() {
                let _ = parse(&message.body[..cut]);
            }
        }
        assert_eq!(parse(&[libc::AF_BRIDGE as u8]).unwrap(), None);
        let mut odd = [0u8; HEADER];
        odd[0] = libc::AF_INET as u8;
        odd[8..10].copy_from_slice(&NUD_FAILED.to_ne_bytes());
        assert!(parse(&odd).is_err(), "no address");
    }

    #[test]
    fn entries_of_one_interface_with_a_hardware_address() {
        let entry = |index: u32, mac: &[u8]| {
            let mut b = request(index, "10.64.1.2".parse().unwrap(), 0, NUD_REACHABLE, 0);
            b.attribute(NDA_LLADDR, mac);
            let bytes = b.finish(0, 1);
            codec::messages(&bytes).next().unwrap().unwrap().body.to_vec()
        };
        let mac = [2, 0, 0, 0, 1, 0];
        let whole = entry(7, &mac);
        assert_eq!(parse_entry(&whole, 7).unwrap(), Some(("10.64.1.2".parse().unwrap(), mac)));
        assert_eq!(parse_entry(&whole, 8).unwrap(), None);
        assert_eq!(parse_entry(&entry(7, &[1; 20]), 7).unwrap(), None, "InfiniBand");
        for cut in 0..whole.len() {
            let _ = parse_entry(&whole[..cut], 7);
        }
    }
}

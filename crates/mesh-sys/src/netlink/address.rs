//! Addresses of interfaces (RTM_NEWADDR and its kin).

use std::net::IpAddr;

use super::codec::{Builder, attributes, u32_at, u32_of};
use super::{Error, family_of, flags, ip_of, push_ip};

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;

const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_PERMANENT: u32 = 0x80;
const IFA_F_DADFAILED: u32 = 0x08;

/// `struct ifaddrmsg`: family, prefix length, flags, scope, index
const HEADER: usize = 8;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Kernel index of the interface.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// Length of the prefix on the link, in bits.
    pub prefix_len: u8,
    /// Not usable yet, or not at all: duplicate address detection runs or failed (RFC 4862 §5.4).
    pub tentative: bool,
    /// It has no end: neither DHCP nor a router advertisement gave it.
    pub permanent: bool,
}

pub(super) fn dump_request() -> Builder {
    Builder::new(libc::RTM_GETADDR, 0, &[0; HEADER])
}

/// `lifetime` in seconds; `None`: for ever.
pub(super) fn change_request(
    add: bool,
    index: u32,
    ip: IpAddr,
    prefix_len: u8,
    lifetime: Option<u32>,
) -> Builder {
    let mut fixed = [family_of(&ip), prefix_len, IFA_F_NODAD as u8, 0, 0, 0, 0, 0];
    if let Some(room) = fixed.get_mut(4..) {
        room.copy_from_slice(&index.to_ne_bytes());
    }
    let (kind, how) =
        if add { (libc::RTM_NEWADDR, flags::CREATE | flags::REPLACE) } else { (libc::RTM_DELADDR, 0) };
    let mut b = Builder::new(kind, how, &fixed);
    push_ip(&mut b, IFA_LOCAL, ip);
    push_ip(&mut b, IFA_ADDRESS, ip);
    if add {
        b.attribute_u32(IFA_FLAGS, IFA_F_NODAD | IFA_F_NOPREFIXROUTE);
        if let Some(seconds) = lifetime {
            // `struct ifa_cacheinfo`: preferred, valid, and two times that the kernel fills in
            let times = [seconds.to_ne_bytes(), seconds.to_ne_bytes(), [0; 4], [0; 4]];
            b.attribute(IFA_CACHEINFO, times.as_flattened());
        }
    }
    b
}

/// Reads the body of an RTM_NEWADDR or RTM_DELADDR; `None` for other families.
pub(super) fn parse(body: &[u8]) -> Result<Option<Address>, Error> {
    let bad = || Error::Malformed("address");
    let (Some(&family), Some(&prefix_len), Some(&state)) = (body.first(), body.get(1), body.get(2)) else {
        return Err(bad());
    };
    if ![libc::AF_INET as u8, libc::AF_INET6 as u8].contains(&family) {
        return Ok(None);
    }
    let index = u32_at(body, 4).ok_or_else(bad)?;
    let (mut local, mut peer, mut state) = (None, None, u32::from(state));
    for attribute in attributes(body.get(HEADER..).ok_or_else(bad)?) {
        match attribute? {
            (IFA_LOCAL, v) => local = Some(ip_of(v)?),
            (IFA_ADDRESS, v) => peer = Some(ip_of(v)?),
            (IFA_FLAGS, v) => state = u32_of(v)?,
            _ => {}
        }
    }
    // On point-to-point links IFA_ADDRESS is the other end; IPv6 gives IFA_LOCAL only there.
    let ip = local.or(peer).filter(|ip| family_of(ip) == family).ok_or_else(bad)?;
    let is = |flags| state & flags != 0;
    let (tentative, permanent) = (is(IFA_F_TENTATIVE | IFA_F_DADFAILED), is(IFA_F_PERMANENT));
    Ok(Some(Address { index, ip, prefix_len, tentative, permanent }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::codec;

    #[test]
    fn what_is_asked_for_reads_back() {
        for (ip, len) in [("10.64.1.2", 32u8), ("fd00::1", 128)] {
            let ip: IpAddr = ip.parse().unwrap();
            let bytes = change_request(true, 5, ip, len, Some(9)).finish(0, 1);
            let message = codec::messages(&bytes).next().unwrap().unwrap();
            let got = parse(message.body).unwrap().unwrap();
            assert_eq!(got, Address { index: 5, ip, prefix_len: len, tentative: false, permanent: false });
            for cut in 0..message.body.len() {
                let _ = parse(&message.body[..cut]);
            }
        }
        assert_eq!(parse(&[200; 8]).unwrap(), None);
        assert!(parse(&[libc::AF_INET as u8, 24, 0, 0, 1, 0, 0, 0]).is_err());
    }
}

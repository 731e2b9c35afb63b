//! From a captured frame to the datagram inside: link layers, IP, UDP.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::capture::Content;

/// RFC 5498: the `manet` port and protocol.
const PORT: u16 = 269;
const PROTOCOL: u8 = 138;
const UDP: u8 = 17;

/// What a frame of that link type holds.
pub(crate) fn content(link: u32, frame: &[u8], cut: bool) -> Content<'_> {
    match ip_of(link, frame) {
        Ok(Some(ip)) => match datagram(ip, cut) {
            Ok(content) => content,
            Err(Short) if cut => Content::Unreadable("the capture holds too little of the frame"),
            Err(Short) => Content::Unreadable("the frame ends within its IP or UDP header"),
        },
        Ok(None) => Content::Other,
        Err(Short) => Content::Other,
    }
}

/// The frame ends too early.
struct Short;

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Short> {
    let two = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>).ok_or(Short)?;
    Ok(u16::from_be_bytes(*two))
}

fn from(bytes: &[u8], at: usize) -> Result<&[u8], Short> {
    bytes.get(at..).ok_or(Short)
}

/// The IP packet in a frame; `None`: another protocol, or a link type that is not known.
fn ip_of(link: u32, frame: &[u8]) -> Result<Option<&[u8]>, Short> {
    let is_ip = |kind: u16| kind == 0x0800 || kind == 0x86dd;
    match link {
        // Ethernet, with any number of VLAN tags.
        1 => {
            let mut at = 12;
            while matches!(u16_at(frame, at)?, 0x8100 | 0x88a8) {
                at += 4;
            }
            let ip = from(frame, at + 2)?;
            Ok(is_ip(u16_at(frame, at)?).then_some(ip))
        }
        // Linux cooked, versions 1 and 2.
        113 => Ok(is_ip(u16_at(frame, 14)?).then_some(from(frame, 16)?)),
        276 => Ok(is_ip(u16_at(frame, 0)?).then_some(from(frame, 20)?)),
        // BSD loopback: an address family in the host's order.
        0 | 108 => Ok(Some(from(frame, 4)?)),
        // Raw IP.
        12 | 14 | 101 | 228 | 229 => Ok(Some(frame)),
        _ => Ok(None),
    }
}

fn datagram(ip: &[u8], cut: bool) -> Result<Content<'_>, Short> {
    match ip.first().ok_or(Short)? >> 4 {
        4 => ipv4(ip, cut),
        6 => ipv6(ip, cut),
        _ => Ok(Content::Other),
    }
}

fn ipv4(ip: &[u8], cut: bool) -> Result<Content<'_>, Short> {
    let header = usize::from(ip.first().ok_or(Short)? & 0xf) * 4;
    let total = usize::from(u16_at(ip, 2)?);
    let fragment = u16_at(ip, 6)? & 0x3fff != 0;
    let protocol = *ip.get(9).ok_or(Short)?;
    let address = |at: usize| ip.get(at..).and_then(<[u8]>::first_chunk::<4>).ok_or(Short);
    let addresses = (IpAddr::V4(Ipv4Addr::from(*address(12)?)), IpAddr::V4(Ipv4Addr::from(*address(16)?)));
    // What is behind the packet's end is the link's padding. Zero: segmentation was left to the card.
    let end = if total == 0 { ip.len() } else { total.min(ip.len()) };
    let payload = ip.get(header.max(20)..end).ok_or(Short)?;
    inner(protocol, payload, addresses, fragment, cut)
}

fn ipv6(ip: &[u8], cut: bool) -> Result<Content<'_>, Short> {
    let len = usize::from(u16_at(ip, 4)?);
    let mut protocol = *ip.get(6).ok_or(Short)?;
    let address = |at: usize| ip.get(at..).and_then(<[u8]>::first_chunk::<16>).ok_or(Short);
    let addresses = (IpAddr::V6(Ipv6Addr::from(*address(8)?)), IpAddr::V6(Ipv6Addr::from(*address(24)?)));
    let end = if len == 0 { ip.len() } else { (40 + len).min(ip.len()) };
    let mut rest = ip.get(40..end).ok_or(Short)?;
    let mut fragment = false;
    // Extension headers (RFC 8200 §4): hop-by-hop, routing, fragment, destination options.
    while let 0 | 43 | 44 | 60 = protocol {
        let [next, size] = *rest.first_chunk::<2>().ok_or(Short)?;
        let size = if protocol == 44 { 8 } else { usize::from(size) * 8 + 8 };
        if protocol == 44 {
            fragment |= u16_at(rest, 2)? & 0xfff9 != 0;
        }
        rest = from(rest, size)?;
        protocol = next;
        if fragment {
            break;
        }
    }
    inner(protocol, rest, addresses, fragment, cut)
}

fn inner<'a>(
    protocol: u8,
    payload: &'a [u8],
    addresses: (IpAddr, IpAddr),
    fragment: bool,
    cut: bool,
) -> Result<Content<'a>, Short> {
    if protocol != UDP && protocol != PROTOCOL {
        return Ok(Content::Other);
    }
    let manet = |a: IpAddr| match a {
        IpAddr::V4(a) => a == Ipv4Addr::new(224, 0, 0, 109),
        IpAddr::V6(a) => a == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x6d),
    };
    if fragment {
        // Only the first one has ports.
        let ours = protocol == PROTOCOL || manet(addresses.1);
        let text = "an IP fragment; fragments are not put together";
        return Ok(if ours { Content::Unreadable(text) } else { Content::Other });
    }
    let (bytes, cut) = if protocol == PROTOCOL {
        (payload, cut)
    } else {
        if u16_at(payload, 0)? != PORT && u16_at(payload, 2)? != PORT {
            return Ok(Content::Other);
        }
        let len = usize::from(u16_at(payload, 4)?);
        let end = if len == 0 { payload.len() } else { len.min(payload.len()) };
        (payload.get(8..end).ok_or(Short)?, cut || len > payload.len())
    };
    Ok(Content::Packet { addresses: Some(addresses), bytes: bytes.into(), cut })
}

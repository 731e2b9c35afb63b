//! Interfaces (RTM_NEWLINK and its kin).

use std::os::fd::{AsRawFd, BorrowedFd};

use super::Error;
use super::codec::{Builder, Nest, attributes, flags, text_of, u16_at, u32_at, u32_of};

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
pub(super) const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
/// Leave the statistics out of dumps.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// `struct ifinfomsg`
const HEADER: usize = 16;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Hardware type, as in `linux/if_arp.h`: 1 Ethernet (and Wi-Fi), 772 loopback, 65534 none, …
    pub hardware: u16,
    /// Administratively up.
    pub up: bool,
    /// The driver has carrier (IFF_LOWER_UP); means nothing while not up.
    pub carrier: bool,
    /// The kernel's driver kind of a virtual interface: `veth`, `bridge`, `tun`, …; `None` for hardware.
    pub kind: Option<String>,
    /// Index of the bridge or bond it belongs to.
    pub master: Option<u32>,
    /// Hardware address of 6 bytes, where it has one.
    pub mac: Option<[u8; 6]>,
    /// Largest packet in bytes.
    pub mtu: u32,
}

impl Link {
    /// Up and with carrier.
    pub const fn running(&self) -> bool {
        self.up && self.carrier
    }
    /// It is the loopback interface.
    pub const fn is_loopback(&self) -> bool {
        self.hardware == libc::ARPHRD_LOOPBACK
    }
}

pub(super) fn dump_request() -> Builder {
    let mut b = Builder::new(libc::RTM_GETLINK, 0, &[0; HEADER]);
    b.attribute_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    b
}

pub(super) fn set_up_request(index: u32, up: bool) -> Builder {
    let mut fixed = about(index);
    let mask = libc::IFF_UP as u32;
    for (room, word) in fixed.chunks_exact_mut(4).skip(2).zip([if up { mask } else { 0 }, mask]) {
        room.copy_from_slice(&word.to_ne_bytes());
    }
    Builder::new(libc::RTM_NEWLINK, 0, &fixed)
}

/// An `ifinfomsg` about that interface and nothing else.
pub(super) fn about(index: u32) -> [u8; HEADER] {
    let mut fixed = [0; HEADER];
    for (room, byte) in fixed.iter_mut().skip(4).zip(index.to_ne_bytes()) {
        *room = byte;
    }
    fixed
}

fn name_value(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// A request for a new interface of that kind; `data` holds the kind's own attributes.
fn new_request(name: &str, kind: &str, data: Option<&Nest>) -> Builder {
    let mut b = Builder::new(libc::RTM_NEWLINK, flags::CREATE | flags::EXCLUSIVE, &about(0));
    b.attribute(IFLA_IFNAME, &name_value(name));
    let mut info = Nest::default();
    info.attribute(IFLA_INFO_KIND, kind.as_bytes());
    if let Some(data) = data {
        info.attribute(IFLA_INFO_DATA, data.bytes());
    }
    b.attribute(IFLA_LINKINFO, info.bytes());
    b
}

pub(super) fn veth_request(name: &str, peer: &str, peer_in: BorrowedFd<'_>) -> Builder {
    let mut other = Nest::with_header(&about(0));
    other.attribute(IFLA_IFNAME, &name_value(peer));
    other.attribute(IFLA_NET_NS_FD, &peer_in.as_raw_fd().to_ne_bytes());
    let mut data = Nest::default();
    data.attribute(VETH_INFO_PEER, other.bytes());
    new_request(name, "veth", Some(&data))
}

pub(super) fn bridge_request(name: &str) -> Builder {
    new_request(name, "bridge", None)
}

pub(super) fn remove_request(index: u32) -> Builder {
    Builder::new(libc::RTM_DELLINK, 0, &about(index))
}

/// Reads the body of an RTM_NEWLINK or RTM_DELLINK.
pub(super) fn parse(body: &[u8]) -> Result<Link, Error> {
    let bad = || Error::Malformed("interface");
    let state = u32_at(body, 8).ok_or_else(bad)?;
    let mut link = Link {
        index: u32_at(body, 4).filter(|i| *i != 0).ok_or_else(bad)?,
        name: String::new(),
        hardware: u16_at(body, 2).ok_or_else(bad)?,
        up: state & libc::IFF_UP as u32 != 0,
        carrier: state & libc::IFF_LOWER_UP as u32 != 0,
        kind: None,
        master: None,
        mac: None,
        mtu: 0,
    };
    for attribute in attributes(body.get(HEADER..).ok_or_else(bad)?) {
        let (kind, value) = attribute?;
        match kind {
            IFLA_IFNAME => link.name = text_of(value),
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_MTU => link.mtu = u32_of(value)?,
            IFLA_MASTER => link.master = Some(u32_of(value)?),
            IFLA_LINKINFO => {
                for inner in attributes(value) {
                    if let (IFLA_INFO_KIND, v) = inner? {
                        link.kind = Some(text_of(v));
                    }
                }
            }
            _ => {}
        }
    }
    if link.name.is_empty() { Err(Error::Malformed("interface without a name")) } else { Ok(link) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::codec;

    #[test]
    fn link_flags_kind_and_master_are_read() {
        let mut fixed = [0u8; HEADER];
        fixed[2..4].copy_from_slice(&1u16.to_ne_bytes());
        fixed[4..8].copy_from_slice(&7u32.to_ne_bytes());
        fixed[8..12].copy_from_slice(&(libc::IFF_UP as u32 | libc::IFF_LOWER_UP as u32).to_ne_bytes());
        let mut b = Builder::new(libc::RTM_NEWLINK, 0, &fixed);
        b.attribute(IFLA_IFNAME, b"veth1\0");
        b.attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]);
        b.attribute_u32(IFLA_MASTER, 3);
        b.attribute(IFLA_LINKINFO, &[9, 0, 1, 0, b'v', b'e', b't', b'h', 0, 0, 0, 0]);
        let bytes = b.finish(0, 1);
        let message = codec::messages(&bytes).next().unwrap().unwrap();
        let link = parse(message.body).unwrap();
        assert!(link.running() && !link.is_loopback());
        assert_eq!((link.index, link.name.as_str(), link.master), (7, "veth1", Some(3)));
        if cfg!(target_endian = "little") {
            assert_eq!(link.kind.as_deref(), Some("veth"));
        }
        for cut in 0..message.body.len() {
            let _ = parse(&message.body[..cut]);
        }
        assert!(parse(&[0; HEADER]).is_err(), "index zero");
    }
}

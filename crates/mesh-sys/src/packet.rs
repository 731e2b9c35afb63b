//! IPv4 packets on a wired interface that has no address yet: those for a DHCP client, and ones to all; and ARP, for whether an
//! address is in use.
//!
//! Needs `CAP_NET_RAW`. The packet filter of the machine does not see them.
#![allow(unsafe_code)]

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, SockAddr, SockFilter, Socket, Type};

/// UDP's number, and a DHCP client's port.
const UDP: u32 = 17;
const CLIENT_PORT: u32 = 68;

/// A non-blocking socket on one interface. Packets begin with their own header, not with Ethernet's.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
    all: SockAddr,
}

impl PacketSocket {
    /// Opens one for the packets of a DHCP client.
    ///
    /// # Errors
    /// The kernel's: no such interface, no `CAP_NET_RAW`, …
    pub fn open(index: u32) -> io::Result<Self> {
        Self::of(index, libc::ETH_P_IP, Some(&dhcp_client_only()))
    }

    /// Opens one for ARP.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_arp(index: u32) -> io::Result<Self> {
        Self::of(index, libc::ETH_P_ARP, None)
    }

    fn of(index: u32, protocol: i32, filter: Option<&[SockFilter]>) -> io::Result<Self> {
        // Of no protocol it hears nothing until it is bound.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
        if let Some(filter) = filter {
            socket.attach_filter(filter)?;
        }
        socket.set_nonblocking(true)?;
        let all = link_address(index, protocol, [0xff; 6])?;
        socket.bind(&all)?;
        Ok(Self { socket, all })
    }

    /// Sends a packet to all hosts on the link.
    ///
    /// # Errors
    /// The kernel's: interface down, …
    pub fn send_to_all(&self, packet: &[u8]) -> io::Result<()> {
        self.socket.send_to(packet, &self.all).map(drop)
    }

    /// The next packet's length in `buf`, cut to that; `None` when there is none.
    ///
    /// # Errors
    /// The kernel's, such as `ENETDOWN` after the interface went down.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.socket).read(buf) {
            Ok(len) => Ok(Some(len)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn link_address(index: u32, protocol: i32, mac: [u8; 6]) -> io::Result<SockAddr> {
    let sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    let [a, b, c, d, e, f] = mac;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (protocol as u16).to_be(),
        sll_ifindex,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [a, b, c, d, e, f, 0, 0],
    };
    // SAFETY: the storage is larger than a sockaddr_ll, which is all that is written to it, and its length is told.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            *len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

/// Whole UDP datagrams for port 68; nobody is woken up for other packets.
fn dhcp_client_only() -> [SockFilter; 9] {
    let step = |code: u32, k: u32| SockFilter::new(code as u16, 0, 0, k);
    let unless = |how: u32, yes: u8, no: u8, k: u32| {
        SockFilter::new((libc::BPF_JMP | how | libc::BPF_K) as u16, yes, no, k)
    };
    [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 9),
        unless(libc::BPF_JEQ, 0, 6, UDP),
        step(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 6),
        unless(libc::BPF_JSET, 4, 0, 0x3fff), // a part of a datagram
        step(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0), // how long the header is
        step(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 2),
        unless(libc::BPF_JEQ, 0, 1, CLIENT_PORT),
        step(libc::BPF_RET | libc::BPF_K, u32::MAX),
        step(libc::BPF_RET | libc::BPF_K, 0),
    ]
}

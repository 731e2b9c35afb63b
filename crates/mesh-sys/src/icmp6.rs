//! The socket of a router on one interface: hears router solicitations and sends advertisements (RFC 4861).
//!
//! Needs `CAP_NET_RAW`. The kernel makes and checks the checksums.
#![allow(unsafe_code)]

use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::udp::{Family, cmsg, recv_msg, send_msg, set_option};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ROUTER_SOLICITATION: u32 = 133;
/// ICMP6_FILTER
const FILTER: i32 = 1;

/// A non-blocking ICMPv6 socket on one interface.
#[derive(Debug)]
pub struct RouterSocket {
    socket: Socket,
    index: u32,
}

impl RouterSocket {
    /// Opens it and joins the routers' group.
    ///
    /// # Errors
    /// The kernel's: no such interface, no `CAP_NET_RAW`, …
    pub fn open(interface: &str, index: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        // Before it can hear anything: a set bit blocks its type.
        let mut blocked = [u32::MAX; 8];
        if let Some(word) = blocked.get_mut((ROUTER_SOLICITATION / 32) as usize) {
            *word &= !(1 << (ROUTER_SOLICITATION % 32));
        }
        set_option(socket.as_raw_fd(), libc::IPPROTO_ICMPV6, FILTER, &blocked)?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_hops_v6(255)?;
        socket.set_unicast_hops_v6(255)?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_recv_hoplimit_v6(true)?;
        socket.join_multicast_v6(&ALL_ROUTERS, index)?;
        Ok(Self { socket, index })
    }

    /// Sends an ICMPv6 message to all nodes on the link, from the interface's link-local address.
    ///
    /// # Errors
    /// The kernel's: interface down, no address yet, …
    pub fn send_to_all(&self, message: &[u8]) -> io::Result<()> {
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, self.index).into();
        send_msg(self.socket.as_raw_fd(), message, &to, &cmsg::pktinfo(Family::V6, self.index, None))
    }

    /// The next solicitation's length in `buf`, and its hop limit; `None` when there is none.
    ///
    /// # Errors
    /// The kernel's, such as `ENODEV` or `ENETDOWN` after the interface went away.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Option<(usize, Option<u8>)>> {
        match recv_msg(self.socket.as_raw_fd(), Family::V6, buf) {
            Ok(r) => Ok(Some((r.len, r.hop_limit))),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for RouterSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

//! The sockets of a router and of a host on one interface (RFC 4861): one hears router solicitations and sends
//! advertisements, the other the reverse.
//!
//! Needs `CAP_NET_RAW`. The kernel makes and checks the checksums.
#![allow(unsafe_code)]

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::udp::{Family, cmsg, recv_msg, send_msg, set_option};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ROUTER_SOLICITATION: u32 = 133;
const ROUTER_ADVERTISEMENT: u32 = 134;
/// ICMP6_FILTER
const FILTER: i32 = 1;

/// Which side a [`NeighborSocket`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Hears solicitations, speaks to all nodes.
    Router,
    /// Hears advertisements, speaks to all routers.
    Host,
}

/// A non-blocking ICMPv6 socket on one interface.
#[derive(Debug)]
pub struct NeighborSocket {
    socket: Socket,
    index: u32,
    to: Ipv6Addr,
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its length in the buffer.
    pub len: usize,
    /// Who sent it.
    pub source: Ipv6Addr,
    /// As it arrived; `None` if the kernel did not say.
    pub hop_limit: Option<u8>,
}

impl NeighborSocket {
    /// Opens it and joins its group.
    ///
    /// # Errors
    /// The kernel's: no such interface, no `CAP_NET_RAW`, …
    pub fn open(interface: &str, index: u32, side: Side) -> io::Result<Self> {
        let (hears, group, to) = match side {
            Side::Router => (ROUTER_SOLICITATION, ALL_ROUTERS, ALL_NODES),
            Side::Host => (ROUTER_ADVERTISEMENT, ALL_NODES, ALL_ROUTERS),
        };
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        // Before it can hear anything: a set bit blocks its type.
        let mut blocked = [u32::MAX; 8];
        if let Some(word) = blocked.get_mut((hears / 32) as usize) {
            *word &= !(1 << (hears % 32));
        }
        set_option(socket.as_raw_fd(), libc::IPPROTO_ICMPV6, FILTER, &blocked)?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_hops_v6(255)?;
        socket.set_unicast_hops_v6(255)?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_recv_hoplimit_v6(true)?;
        socket.join_multicast_v6(&group, index)?;
        Ok(Self { socket, index, to })
    }

    /// Sends an ICMPv6 message to all of the other side on the link, from the interface's link-local address.
    ///
    /// # Errors
    /// The kernel's: interface down, no address yet, …
    pub fn send_to_all(&self, message: &[u8]) -> io::Result<()> {
        let to = SocketAddrV6::new(self.to, 0, 0, self.index).into();
        send_msg(self.socket.as_raw_fd(), message, &to, &cmsg::pktinfo(Family::V6, self.index, None))
    }

    /// The next message in `buf`; `None` when there is none.
    ///
    /// # Errors
    /// The kernel's, such as `ENODEV` or `ENETDOWN` after the interface went away.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Option<Heard>> {
        match recv_msg(self.socket.as_raw_fd(), Family::V6, buf) {
            Ok(r) => {
                let IpAddr::V6(source) = r.source.ip() else { return Ok(None) };
                Ok(Some(Heard { len: r.len, source, hop_limit: r.hop_limit }))
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for NeighborSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

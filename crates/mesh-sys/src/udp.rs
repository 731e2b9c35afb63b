//! Multicast UDP sockets, one per interface and address family: what the router (UDP 269) and the mDNS
//! responder (UDP 5353) speak through.
//!
//! A socket is tied to its interface twice: by `SO_BINDTODEVICE`, so that it hears nothing else, and by an
//! interface index on every datagram it sends. It never blocks. Each datagram comes with where it was sent
//! to and the hop limit it arrived with.
//!
//! Privileges: none for ports from 1024 up; `CAP_NET_BIND_SERVICE` for 269 (5353 needs none).
//! `SO_BINDTODEVICE` on a fresh socket needs no capability since Linux 5.7.
#![allow(unsafe_code)]

pub(crate) mod cmsg;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockFilter, Socket, Type};

use mesh_types::Duration;

use crate::poll::Poller;

/// The largest UDP payload.
pub const MAX_DATAGRAM: usize = 65_527;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// The kernel's number for it (AF_INET, AF_INET6).
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => libc::AF_INET as u8,
            Self::V6 => libc::AF_INET6 as u8,
        }
    }

    /// The family of `addr`.
    pub const fn of(addr: &IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// What a [`MulticastSocket`] is to be.
#[derive(Clone, Copy, Debug)]
pub struct MulticastConfig<'a> {
    /// Address family.
    pub family: Family,
    /// The interface's name (for `SO_BINDTODEVICE`).
    pub interface: &'a str,
    /// The interface's index, not zero.
    pub index: u32,
    /// Local port; other sockets may share it.
    pub port: u16,
    /// Groups to join on the interface; those of the other family are ignored.
    pub groups: &'a [IpAddr],
    /// TTL or hop limit of everything sent, unicast and multicast: 1 for the router (RFC 5498 leaves it to
    /// the protocol), 255 for mDNS (RFC 6762 §11).
    pub hop_limit: u8,
    /// Whether this host's own sockets hear the multicasts sent here.
    pub loopback: bool,
    /// TOS or traffic class octet: 0xc0 (CS6, network control) for the router, 0 otherwise.
    pub traffic_class: u8,
}

/// A UDP socket on `address`, which sockets tied to one interface may share its port with.
///
/// # Errors
/// The kernel's: the address is not ours, the port is taken or below 1024, …
pub fn bind_shared(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// An IPv4 UDP socket on all addresses of one interface, for broadcasts in both directions (DHCP). It never
/// blocks.
///
/// # Errors
/// The kernel's: no such interface, the port is taken, or below 1024 without `CAP_NET_BIND_SERVICE`, …
pub fn bind_broadcast(interface: &str, port: u16) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    Ok(socket.into())
}

/// A datagram from `from`, an address of `interface`, that is sent out there. What comes to the socket, which is
/// returned, nobody needs: it only keeps the port, so that the answer is not refused.
///
/// # Errors
/// The kernel's: the address is not there, the port is below 1024 and `CAP_NET_BIND_SERVICE` is missing, …
pub fn send_once(
    interface: &str,
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload: &[u8],
) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddr::from(from).into())?;
    socket.send_to(payload, &SocketAddr::from(to).into())?;
    Ok(socket.into())
}

/// What came with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Length of the payload in the buffer.
    pub len: usize,
    /// The payload was longer than the buffer; what is there is its beginning.
    pub truncated: bool,
    /// Who sent it (an IPv6 link-local address has its scope set).
    pub source: SocketAddr,
    /// The address it was sent to: a group, or one of ours. Unspecified if the kernel did not say.
    pub destination: IpAddr,
    /// Index of the interface it came in on; zero if the kernel did not say.
    pub interface: u32,
    /// TTL or hop limit on arrival; `None` if the kernel did not say.
    pub hop_limit: Option<u8>,
    /// How long it lay in the queue of a socket that nobody watched ([`MulticastSocket::open_beside`]); zero if the
    /// kernel did not say, or the clock was set meanwhile.
    pub waited: Duration,
}

/// Longer than this nobody leaves a datagram in the queue.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A non-blocking UDP socket on one interface.
#[derive(Debug)]
pub struct MulticastSocket {
    socket: Socket,
    family: Family,
    index: u32,
    port: u16,
}

impl MulticastSocket {
    /// Opens, binds, joins. The interface has to exist; it need not be up, and needs no address, but a
    /// multicast sent before it has one fails with `AddrNotAvailable` or `NetworkUnreachable`.
    ///
    /// # Errors
    /// Whatever the kernel refuses: no such interface, port below 1024 without `CAP_NET_BIND_SERVICE`, …
    pub fn open(config: &MulticastConfig<'_>) -> io::Result<Self> {
        Self::open_at(config, None)
    }

    /// A second socket beside this one, which was opened with `config`: from now on what is sent to the first of the
    /// groups, and whose payload has certain octets, comes there and all else here. `octets`: places, masks and the
    /// values of what the masks leave. What lies in the second one's queue knows how long ([`Received::waited`]).
    ///
    /// # Errors
    /// As [`MulticastSocket::open`]; all comes to the first one then.
    pub fn open_beside(&self, config: &MulticastConfig<'_>, octets: &[(usize, u8, u8)]) -> io::Result<Self> {
        let group = config.groups.iter().find(|g| Family::of(g) == config.family);
        let group = group.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "no group"))?;
        let beside = Self::open_at(config, Some(*group))?;
        set_flag(beside.socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)?;
        beside.socket.attach_filter(&filter(octets, true))?;
        // What it took in before it had a filter is here as well.
        while beside.recv(&mut [0; 1])?.is_some() {}
        self.socket.attach_filter(&filter(octets, false))?;
        Ok(beside)
    }

    fn open_at(config: &MulticastConfig<'_>, to: Option<IpAddr>) -> io::Result<Self> {
        if config.index == 0 {
            return Err(io::Error::new(ErrorKind::InvalidInput, "interface index zero"));
        }
        let domain = match config.family {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind_device(Some(config.interface.as_bytes()))?;
        match config.family {
            Family::V4 => prepare_v4(&socket, config)?,
            Family::V6 => prepare_v6(&socket, config)?,
        }
        let at: SocketAddr = match to {
            None if config.family == Family::V4 => {
                SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, config.port).into()
            }
            None => SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, config.port, 0, 0).into(),
            Some(IpAddr::V4(group)) => SocketAddrV4::new(group, config.port).into(),
            Some(IpAddr::V6(group)) => SocketAddrV6::new(group, config.port, 0, config.index).into(),
        };
        socket.bind(&at.into())?;
        let this = Self { socket, family: config.family, index: config.index, port: config.port };
        for group in config.groups {
            this.join(*group)?;
        }
        Ok(this)
    }

    /// [`MulticastSocket::open`], and has `poller` wait for it to be readable, under `token`.
    ///
    /// # Errors
    /// As those of [`MulticastSocket::open`] and [`Poller::add`].
    pub fn open_in(poller: &Poller, token: u64, config: &MulticastConfig<'_>) -> io::Result<Self> {
        let socket = Self::open(config)?;
        poller.add(&socket, token, false)?;
        Ok(socket)
    }

    /// Joins one more group; one that is joined already is fine, one of the other family is ignored.
    ///
    /// # Errors
    /// The kernel's: not a multicast address, no such device, no more room.
    pub fn join(&self, group: IpAddr) -> io::Result<()> {
        let joined = match (self.family, group) {
            (Family::V4, IpAddr::V4(g)) => {
                self.socket.join_multicast_v4_n(&g, &InterfaceIndexOrAddress::Index(self.index))
            }
            (Family::V6, IpAddr::V6(g)) => self.socket.join_multicast_v6(&g, self.index),
            _ => Ok(()),
        };
        match joined {
            Err(e) if e.kind() == ErrorKind::AddrInUse => Ok(()),
            other => other,
        }
    }

    /// The interface's index.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// The address family.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The local port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Sends `payload` to a group on this interface, port [`MulticastSocket::port`]. `source` chooses the
    /// sender's address, which may sit on another interface (such as `lo`); `None` leaves it to the kernel
    /// (IPv6: the interface's link-local address).
    ///
    /// # Errors
    /// `WouldBlock` when the queue is full; otherwise the kernel's (interface down, no address, …).
    pub fn send_to_group(&self, payload: &[u8], group: IpAddr, source: Option<IpAddr>) -> io::Result<()> {
        self.send_to(payload, SocketAddr::new(group, self.port), source)
    }

    /// Sends `payload` to `to`, out of this interface. An IPv6 scope of zero is filled in.
    ///
    /// # Errors
    /// As [`MulticastSocket::send_to_group`]; `InvalidInput` for an address of the other family.
    pub fn send_to(&self, payload: &[u8], to: SocketAddr, source: Option<IpAddr>) -> io::Result<()> {
        let to = match (self.family, to) {
            (Family::V4, SocketAddr::V4(_)) => to,
            (Family::V6, SocketAddr::V6(v6)) if v6.scope_id() == 0 && needs_scope(v6.ip()) => {
                SocketAddrV6::new(*v6.ip(), v6.port(), v6.flowinfo(), self.index).into()
            }
            (Family::V6, SocketAddr::V6(_)) => to,
            _ => return Err(io::Error::new(ErrorKind::InvalidInput, "address of the other family")),
        };
        if source.is_some_and(|s| Family::of(&s) != self.family) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "source of the other family"));
        }
        let control = cmsg::pktinfo(self.family, self.index, source);
        send_msg(self.socket.as_raw_fd(), payload, &to, &control)
    }

    /// Takes the next datagram into `buf`; `None` when there is none. Errors that the network left on the
    /// socket (an ICMP answer to something sent earlier) are skipped.
    ///
    /// # Errors
    /// The kernel's, such as `ENODEV` or `ENETDOWN` after the interface went away.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Option<Received>> {
        // Bounded: each pass takes one pending error off the socket.
        for _ in 0..16 {
            match recv_msg(self.socket.as_raw_fd(), self.family, buf) {
                Ok(received) => return Ok(Some(received)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::Interrupted
                            | ErrorKind::ConnectionRefused
                            | ErrorKind::HostUnreachable
                            | ErrorKind::NetworkUnreachable
                    ) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }
}

impl MulticastSocket {
    /// Datagrams that the kernel dropped since the socket was opened, because its queue was full or their
    /// checksum wrong. Zero if it does not say (before Linux 4.12).
    pub fn overflowed(&self) -> u64 {
        // The kernel's `SK_MEMINFO_VARS` words; the last one counts drops.
        let mut words = [0u32; 9];
        let mut len = size_of_val(&words) as libc::socklen_t;
        let fd = self.socket.as_raw_fd();
        let to = (&raw mut words).cast();
        // SAFETY: the kernel writes at most `len` bytes to `words` and the new length to `len`.
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, to, &raw mut len) };
        words[8].into()
    }
}

impl AsFd for MulticastSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether an IPv6 destination means nothing without an interface: link-local, or multicast of
/// interface-local or link-local scope (RFC 4291 §2.7).
fn needs_scope(ip: &Ipv6Addr) -> bool {
    let [a, b, ..] = ip.octets();
    ip.is_unicast_link_local() || (a == 0xff && matches!(b & 0x0f, 1 | 2))
}

fn prepare_v4(socket: &Socket, config: &MulticastConfig<'_>) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    socket.set_ttl_v4(config.hop_limit.into())?;
    socket.set_multicast_ttl_v4(config.hop_limit.into())?;
    socket.set_multicast_loop_v4(config.loopback)?;
    socket.set_multicast_all_v4(false)?;
    socket.set_tos_v4(config.traffic_class.into())?;
    set_multicast_interface_v4(fd, config.index)?;
    set_flag(fd, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
    set_flag(fd, libc::IPPROTO_IP, libc::IP_RECVTTL)
}

fn prepare_v6(socket: &Socket, config: &MulticastConfig<'_>) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    socket.set_only_v6(true)?;
    socket.set_unicast_hops_v6(config.hop_limit.into())?;
    socket.set_multicast_hops_v6(config.hop_limit.into())?;
    socket.set_multicast_loop_v6(config.loopback)?;
    socket.set_multicast_all_v6(false)?;
    socket.set_tclass_v6(config.traffic_class.into())?;
    socket.set_multicast_if_v6(config.index)?;
    socket.set_recv_hoplimit_v6(true)?;
    set_flag(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
}

pub(crate) fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

pub(crate) fn set_option<T>(fd: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` is a live, plain C struct or integer of `len` bytes, which the kernel only reads.
    let result = unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), len) };
    check(result as isize).map(drop)
}

fn set_flag(fd: RawFd, level: i32, name: i32) -> io::Result<()> {
    set_option(fd, level, name, &1i32)
}

/// By index: the interface may have no IPv4 address at all.
fn set_multicast_interface_v4(fd: RawFd, index: u32) -> io::Result<()> {
    let none = libc::in_addr { s_addr: 0 };
    let imr_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    let request = libc::ip_mreqn { imr_multiaddr: none, imr_address: none, imr_ifindex };
    set_option(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)
}

pub(crate) fn send_msg(
    fd: RawFd,
    payload: &[u8],
    to: &SocketAddr,
    control: &cmsg::Control,
) -> io::Result<()> {
    let to = socket2::SockAddr::from(*to);
    let mut piece = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    // SAFETY: all-zero is a valid msghdr; its layout differs between C libraries, hence no literal.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = to.as_ptr().cast_mut().cast();
    message.msg_namelen = to.len();
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes.as_ptr().cast_mut().cast();
    message.msg_controllen = control.len as _;
    // SAFETY: every pointer in `message` outlives the call, and sendmsg only reads through them.
    let sent = check(unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL) })?;
    if sent == payload.len() { Ok(()) } else { Err(io::Error::other("datagram sent in part")) }
}

pub(crate) fn recv_msg(fd: RawFd, family: Family, buf: &mut [u8]) -> io::Result<Received> {
    let mut control = cmsg::Control::empty();
    // SAFETY: all-zero is a valid value for both structs.
    let (mut name, mut message): (libc::sockaddr_storage, libc::msghdr) = unsafe { std::mem::zeroed() };
    let mut piece = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = size_of_val(&name) as libc::socklen_t;
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes.as_mut_ptr().cast();
    message.msg_controllen = control.bytes.len() as _;
    // SAFETY: the buffers are ours alone, as long as stated, and outlive the call.
    let len = check(unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) })?;
    #[allow(clippy::unnecessary_cast)] // musl's is a u32
    let control_len = message.msg_controllen as usize;
    control.len = control_len.min(control.bytes.len());
    let info = cmsg::parse(control.as_slice());
    Ok(Received {
        len: len.min(buf.len()),
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        source: source_of(&name, family)?,
        destination: info.destination.unwrap_or(match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }),
        interface: info.interface,
        hop_limit: info.hop_limit,
        waited: info.stamp.map_or(Duration::ZERO, since),
    })
}

/// The time since then, in microseconds by the clock that people set.
fn since(stamp: i64) -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let micros =
        now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000).saturating_sub(stamp);
    let waited = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    if waited > LONGEST_WAIT { Duration::ZERO } else { waited }
}

/// Lets datagrams pass whose payload has these octets, or all others.
fn filter(octets: &[(usize, u8, u8)], with: bool) -> Vec<SockFilter> {
    const HEADER: usize = 8; // of UDP, which the kernel shows, too
    let op = |code: u32, yes: usize, no: usize, k: usize| {
        SockFilter::new(code as u16, u8::try_from(yes).unwrap_or(0), u8::try_from(no).unwrap_or(0), k as u32)
    };
    let last = octets.iter().map(|(at, ..)| *at).max().unwrap_or(0);
    // Steps from behind a test to the end of the program, where all else goes.
    let rest = |done: usize| 3 * (octets.len() - done);
    let mut program = vec![
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 0, rest(0) + 1, HEADER + last),
    ];
    for (done, (at, mask, value)) in (1..).zip(octets) {
        program.extend([
            op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, HEADER + at),
            op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, (*mask).into()),
            op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, rest(done) + 1, (*value).into()),
        ]);
    }
    let end = |pass: bool| op(libc::BPF_RET | libc::BPF_K, 0, 0, if pass { u32::MAX as usize } else { 0 });
    program.extend([end(with), end(!with)]);
    program
}

fn source_of(name: &libc::sockaddr_storage, family: Family) -> io::Result<SocketAddr> {
    let wrong = || io::Error::new(ErrorKind::InvalidData, "sender's address of an unknown family");
    match (family, i32::from(name.ss_family)) {
        (Family::V4, libc::AF_INET) => {
            // SAFETY: the kernel filled the storage, which is larger, with a sockaddr_in.
            let sin: libc::sockaddr_in = unsafe { std::ptr::read(std::ptr::from_ref(name).cast()) };
            let ip = Ipv4Addr::from(u32::from_be(sin.sin_addr.s_addr));
            Ok(SocketAddrV4::new(ip, u16::from_be(sin.sin_port)).into())
        }
        (Family::V6, libc::AF_INET6) => {
            // SAFETY: the kernel filled the storage, which is larger, with a sockaddr_in6.
            let sin: libc::sockaddr_in6 = unsafe { std::ptr::read(std::ptr::from_ref(name).cast()) };
            let ip = Ipv6Addr::from_octets(sin.sin6_addr.s6_addr);
            Ok(SocketAddrV6::new(ip, u16::from_be(sin.sin6_port), 0, sin.sin6_scope_id).into())
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests;

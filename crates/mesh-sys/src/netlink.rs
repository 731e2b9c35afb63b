//! The kernel's network configuration over rtnetlink(7) and nl80211, without shelling out.
//!
//! [`Rtnetlink`] asks and changes, one request at a time; [`Monitor`] hears of changes; [`nl80211`] lists
//! Wi-Fi radios. All act in the network namespace of the calling process. Changing anything needs
//! `CAP_NET_ADMIN`; reading needs nothing.
//!
//! The wire format (netlink(7), rtnetlink(7)) is read and written by the pure functions of `codec` and of
//! the modules for each kind of object. A message that lies about its lengths is an error, never a guess.

mod address;
mod bridge;
mod codec;
mod firewall;
mod link;
mod monitor;
mod namespace;
mod nat;
mod neighbor;
mod nft;
pub mod nl80211;
mod route;
mod rule;
mod socket;
mod speed;
pub mod sysctl;
mod tunnel;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{BorrowedFd, OwnedFd};

pub use address::Address;
pub use firewall::{Filter, Open, Zone, filter};
pub use link::Link;
pub use monitor::{Event, Monitor, RouteEvent, RouteMonitor};
pub use namespace::NetNamespace;
pub use nat::{Clients, translate};
pub use neighbor::{Detection, Neighbor};
pub use route::{Change, Route, RouteFilter, RouteKind, TABLE_MAIN};
pub use rule::{Rule, RuleAction};
pub use speed::wired_bitrate;
pub use tunnel::tunnels_possible;

use codec::{Builder, flags};
use route::TunnelParts;
use socket::Socket;

use crate::udp::Family;

/// Why a netlink request failed.
#[derive(Debug)]
pub enum Error {
    /// The socket itself failed.
    Io(io::Error),
    /// The kernel refused.
    Kernel {
        /// Its errno, positive.
        errno: i32,
        /// Its own words, where it has some.
        message: Option<String>,
    },
    /// An answer that does not parse: where.
    Malformed(&'static str),
    /// The tables changed under every try to read them, or no answer came.
    Unsettled,
}

impl Error {
    /// A capability is missing.
    pub const fn is_permission(&self) -> bool {
        matches!(self, Self::Kernel { errno: libc::EPERM | libc::EACCES, .. })
    }

    /// The kernel's errno, where it refused.
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => write!(f, "netlink: {e}"),
            Self::Kernel { errno, message } => {
                write!(f, "the kernel refused: {}", io::Error::from_raw_os_error(*errno))?;
                message.as_deref().map_or(Ok(()), |m| write!(f, ": {m}"))
            }
            Self::Malformed(what) => write!(f, "netlink: an answer of the kernel does not parse ({what})"),
            Self::Unsettled => f.write_str("netlink: the kernel's tables change too fast to be read"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(e: rustix::io::Errno) -> Self {
        Self::Io(e.into())
    }
}

/// The most objects a dump may return; a larger table is an error, not endless memory.
pub const MAX_OBJECTS: usize = 65_536;

/// A socket for requests to rtnetlink(7). Each call waits for the kernel's answer (5 s at most).
#[derive(Debug)]
pub struct Rtnetlink {
    socket: Socket,
    tunnel_source: Ipv6Addr,
}

impl Rtnetlink {
    /// Opens it.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(None, 0)?, tunnel_source: Ipv6Addr::UNSPECIFIED })
    }

    /// Sets the address that tunnels come from whose routes are made from now on ([`RouteKind::Tunnel`]).
    pub const fn set_tunnel_source(&mut self, source: Ipv6Addr) {
        self.tunnel_source = source;
    }

    /// All interfaces, by index.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut links = Vec::new();
        self.socket.dump(link::dump_request(), |kind, body| {
            if kind == libc::RTM_NEWLINK {
                links.push(link::parse(body)?);
            }
            bounded(links.len())
        })?;
        links.sort_unstable_by_key(|l: &Link| l.index);
        Ok(links)
    }

    /// One interface by name; `None` if there is none of that name.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        Ok(self.links()?.into_iter().find(|l| l.name == name))
    }

    /// Sets an interface up or down (administratively).
    ///
    /// # Errors
    /// `ENODEV` if it is gone; `EPERM` without `CAP_NET_ADMIN`.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), Error> {
        self.socket.request(link::set_up_request(index, up))
    }

    /// Makes a pair of virtual Ethernet interfaces: `name` here, `peer` in the namespace `peer_in`.
    ///
    /// # Errors
    /// `EEXIST` if one of the names is taken; `EPERM` without `CAP_NET_ADMIN` in both namespaces.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_in: BorrowedFd<'_>) -> Result<(), Error> {
        self.socket.request(link::veth_request(name, peer, peer_in))
    }

    /// Makes a bridge.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken; `EPERM` without `CAP_NET_ADMIN`.
    pub fn add_bridge(&mut self, name: &str) -> Result<(), Error> {
        self.socket.request(link::bridge_request(name))
    }

    /// Removes a virtual interface (and its peer).
    ///
    /// # Errors
    /// `ENODEV` if it is gone; `EOPNOTSUPP` for hardware.
    pub fn remove_link(&mut self, index: u32) -> Result<(), Error> {
        self.socket.request(link::remove_request(index))
    }

    /// Puts an interface into a bridge; `None` takes it out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_master(&mut self, index: u32, bridge: Option<u32>) -> Result<(), Error> {
        self.socket.request(bridge::master_request(index, bridge.unwrap_or(0)))
    }

    /// Turns a bridge's snooping of multicast membership on or off; without it multicast goes everywhere.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_snooping(&mut self, bridge: u32, on: bool) -> Result<(), Error> {
        self.socket.request(bridge::snooping_request(bridge, on))
    }

    /// Isolates a port of a bridge: nothing passes from one isolated port to another.
    ///
    /// # Errors
    /// `EOPNOTSUPP` or `EINVAL` if it is no port.
    pub fn set_isolated(&mut self, port: u32, on: bool) -> Result<(), Error> {
        self.socket.request(bridge::isolated_request(port, on))
    }

    /// Lets a port of a bridge forward, or lose every frame; the interface keeps its carrier.
    ///
    /// # Errors
    /// `ENETDOWN` if it is down, `EOPNOTSUPP` or `EINVAL` if it is no port.
    pub fn set_forwarding(&mut self, port: u32, on: bool) -> Result<(), Error> {
        self.socket.request(bridge::forwarding_request(port, on))
    }

    /// All addresses of all interfaces, both families.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let mut found = Vec::new();
        self.socket.dump(address::dump_request(), |kind, body| {
            if kind == libc::RTM_NEWADDR {
                found.extend(address::parse(body)?);
            }
            bounded(found.len())
        })?;
        Ok(found)
    }

    /// Adds an address, or leaves it if it is there. An IPv6 address is usable at once (no duplicate
    /// address detection).
    ///
    /// # Errors
    /// `ENODEV` if the interface is gone; `EPERM` without `CAP_NET_ADMIN`.
    pub fn add_address(&mut self, index: u32, ip: IpAddr, prefix_len: u8) -> Result<(), Error> {
        self.socket.request(address::change_request(true, index, ip, prefix_len, None))
    }

    /// The same for an address that is there for some seconds; one that is there already gets that time anew.
    ///
    /// # Errors
    /// As [`Rtnetlink::add_address`].
    pub fn lease_address(
        &mut self,
        index: u32,
        ip: IpAddr,
        prefix_len: u8,
        seconds: u32,
    ) -> Result<(), Error> {
        self.socket.request(address::change_request(true, index, ip, prefix_len, Some(seconds.max(1))))
    }

    /// Removes an address; one that is not there is fine.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`.
    pub fn remove_address(&mut self, index: u32, ip: IpAddr, prefix_len: u8) -> Result<(), Error> {
        let result = self.socket.request(address::change_request(false, index, ip, prefix_len, None));
        ignore(result, &[libc::EADDRNOTAVAIL, libc::ENODEV])
    }

    /// Has the kernel ask a neighbour whether it is there (RFC 4861 §7.3; ARP in IPv4): three times at most.
    /// A [`Monitor`] that hears of neighbours tells the answer.
    ///
    /// # Errors
    /// `ENODEV` if the interface is gone; `EPERM` without `CAP_NET_ADMIN`.
    pub fn probe_neighbor(&mut self, index: u32, ip: IpAddr) -> Result<(), Error> {
        match self.socket.request(neighbor::probe_request(index, ip)) {
            // No entry, or none with a hardware address.
            Err(Error::Kernel { errno: libc::ENOENT | libc::EINVAL, .. }) => self.use_neighbor(index, ip),
            other => other,
        }
    }

    /// Has the kernel find out a neighbour's hardware address, if it does not know it yet.
    ///
    /// # Errors
    /// As [`Rtnetlink::probe_neighbor`].
    pub fn use_neighbor(&mut self, index: u32, ip: IpAddr) -> Result<(), Error> {
        self.socket.request(neighbor::use_request(index, ip))
    }

    /// The neighbours on an interface whose hardware address (of 6 bytes) is known, both families.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn neighbors(&mut self, index: u32) -> Result<Vec<(IpAddr, [u8; 6])>, Error> {
        let mut found = Vec::new();
        self.socket.dump(neighbor::dump_request(index), |kind, body| {
            if kind == libc::RTM_NEWNEIGH {
                found.extend(neighbor::parse_entry(body, index)?);
            }
            bounded(found.len())
        })?;
        Ok(found)
    }

    /// Sets the times of neighbour unreachability detection on an interface, of one family. An interface that is
    /// gone took them along: no error.
    ///
    /// # Errors
    /// As [`Rtnetlink::probe_neighbor`].
    pub fn set_detection(&mut self, index: u32, v6: bool, times: &Detection) -> Result<(), Error> {
        ignore(self.socket.request(neighbor::detection_request(index, v6, times)), &[libc::ENOENT])
    }

    /// Puts a route in, atomically in place of one with the same prefix, metric and table.
    ///
    /// # Errors
    /// `ENETUNREACH` or `ENETDOWN` if the interface is down, `EINVAL` if the source is not ours, `EPERM` for a
    /// tunnel without `CAP_BPF`, …
    pub fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        self.change_one(Change::Replace(*route))
    }

    /// Removes a route: the one with this prefix, metric, table, protocol, interface and gateway. One that
    /// is not there is fine.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`.
    pub fn remove_route(&mut self, route: &Route) -> Result<(), Error> {
        self.change_one(Change::Remove(*route))
    }

    fn change_one(&mut self, change: Change) -> Result<(), Error> {
        self.change_routes(&[change])?.pop().unwrap_or(Ok(()))
    }

    /// Carries out many changes in their order, many to a system call. The result says what became of each;
    /// removing what is not there is fine. `Err` if the socket failed: then nobody knows.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn change_routes(&mut self, changes: &[Change]) -> Result<Vec<Result<(), Error>>, Error> {
        let mut results = Vec::with_capacity(changes.len());
        for part in changes.chunks(socket::BATCH) {
            // The kernel holds a program itself once a route has it.
            let programs: Vec<_> = part.iter().map(|change| self.program(change)).collect();
            let requests = part.iter().zip(&programs).map(|(change, program)| match change {
                Change::Replace(route) => {
                    let how = flags::CREATE | flags::REPLACE;
                    let program = program.as_ref().ok().and_then(Option::as_ref);
                    let parts = TunnelParts { source: self.tunnel_source, program };
                    route::change_request(libc::RTM_NEWROUTE, how, route, parts)
                }
                Change::Remove(route) => {
                    route::change_request(libc::RTM_DELROUTE, 0, route, TunnelParts::NONE)
                }
            });
            let requests: Vec<Builder> = requests.collect();
            let done = self.socket.request_all(requests.into_iter())?;
            let done = done.into_iter().zip(programs).map(|(result, program)| program.and(result));
            results.extend(done.zip(part).map(|(result, change)| match change {
                Change::Replace(_) => result,
                Change::Remove(_) => ignore(result, GONE),
            }));
        }
        Ok(results)
    }

    fn program(&self, change: &Change) -> Result<Option<OwnedFd>, Error> {
        match change {
            Change::Replace(route) => tunnel::program(route, self.tunnel_source),
            Change::Remove(_) => Ok(None),
        }
    }

    /// Adds a rule; one that is there is fine.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the kernel has one table only; `EPERM` without `CAP_NET_ADMIN`.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        let how = flags::CREATE | flags::EXCLUSIVE;
        let result = self.socket.request(rule::change_request(libc::RTM_NEWRULE, how, rule));
        ignore(result, &[libc::EEXIST])
    }

    /// Removes a rule; one that is not there is fine.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`.
    pub fn remove_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        let result = self.socket.request(rule::change_request(libc::RTM_DELRULE, 0, rule));
        ignore(result, &[libc::ENOENT])
    }

    /// The rules of a family made by `protocol`, in their order.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn rules(&mut self, family: Family, protocol: u8) -> Result<Vec<Rule>, Error> {
        let mut found = Vec::new();
        self.socket.dump(rule::dump_request(family), |kind, body| {
            if kind == libc::RTM_NEWRULE {
                found.extend(rule::parse(body)?.filter(|r| r.protocol == protocol));
            }
            bounded(found.len())
        })?;
        Ok(found)
    }

    /// The routes of both families that fit `filter`; multipath routes are left out.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn routes(&mut self, filter: &RouteFilter) -> Result<Vec<Route>, Error> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            self.add_routes(family, filter, &mut found)?;
        }
        Ok(found)
    }

    /// Tells the routes of both families that fit `filter` as they are listed, without keeping them; multipath
    /// routes are left out. `Ok(true)`: each came once. `Ok(false)`: they changed meanwhile; each that is there
    /// came at least once, and some that are gone may have come, too.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn each_route(&mut self, filter: &RouteFilter, each: &mut dyn FnMut(Route)) -> Result<bool, Error> {
        let mut once = true;
        for family in [libc::AF_INET, libc::AF_INET6] {
            let result = self.socket.stream(route::dump_request(family as u8, filter), |kind, body| {
                if kind == libc::RTM_NEWROUTE {
                    route::parse(body)?.filter(|r| filter.fits(r)).into_iter().for_each(&mut *each);
                }
                Ok(())
            });
            match result {
                Ok(whole) => once &= whole,
                Err(e) => ignore(Err(e), NO_ROUTES)?,
            }
        }
        Ok(once)
    }

    /// As [`Rtnetlink::routes`], IPv6 only.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn routes6(&mut self, filter: &RouteFilter) -> Result<Vec<Route>, Error> {
        let mut found = Vec::new();
        self.add_routes(libc::AF_INET6, filter, &mut found)?;
        Ok(found)
    }

    fn add_routes(&mut self, family: i32, filter: &RouteFilter, found: &mut Vec<Route>) -> Result<(), Error> {
        let request = route::dump_request(family as u8, filter);
        let result = self.socket.dump(request, |kind, body| {
            if kind == libc::RTM_NEWROUTE {
                // The kernel filters in strict mode; older ones do not.
                found.extend(route::parse(body)?.filter(|r| filter.fits(r)));
            }
            bounded(found.len())
        });
        ignore(result, NO_ROUTES)
    }
}

/// Strict checks: a table that has no route yet does not exist. No IPv6 in the kernel: none.
const NO_ROUTES: &[i32] = &[libc::ENOENT, libc::EAFNOSUPPORT, libc::EOPNOTSUPP];

/// What a removal says of a route that went before it, alone or with its interface.
const GONE: &[i32] = &[libc::ESRCH, libc::ENODEV, libc::ENETDOWN];

fn bounded(count: usize) -> Result<(), Error> {
    if count > MAX_OBJECTS { Err(Error::Malformed("more objects than can be")) } else { Ok(()) }
}

fn ignore(result: Result<(), Error>, harmless: &[i32]) -> Result<(), Error> {
    match result {
        Err(Error::Kernel { errno, .. }) if harmless.contains(&errno) => Ok(()),
        other => other,
    }
}

/// An address attribute's value.
fn ip_of(bytes: &[u8]) -> Result<IpAddr, Error> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).map_err(|_| Error::Malformed("address of a strange length"))
}

fn push_ip(builder: &mut Builder, kind: u16, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => builder.attribute(kind, &v4.octets()),
        IpAddr::V6(v6) => builder.attribute(kind, &v6.octets()),
    }
}

const fn family_of(ip: &IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

#[cfg(test)]
mod tests;

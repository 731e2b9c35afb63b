//! Changes of interfaces, addresses and routes as they happen.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use super::socket::Socket;
use super::{Address, Error, Link, Route, TABLE_MAIN, address, codec, link, route};

/// RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// RTMGRP_IPV6_ROUTE
const ROUTES6: u32 = 0x400;

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interface is new or changed.
    Link(Link),
    /// An interface is gone (or moved to another namespace).
    LinkGone(Link),
    /// An address is new or changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// Changes were lost; list everything anew.
    Resync,
}

/// A socket that hears of changes.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    waiting: VecDeque<Event>,
}

impl Monitor {
    /// Starts to listen. List the present state after this call, and nothing is missed.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn new() -> Result<Self, Error> {
        let socket = Socket::open(None, GROUPS)?;
        Ok(Self { socket, waiting: VecDeque::new() })
    }

    /// The next change, without waiting; `None` when there is none. Notifications that do not parse, and
    /// ones lost to a full queue, come out as [`Event::Resync`].
    ///
    /// # Errors
    /// The socket itself failed; open a new one.
    pub fn poll_event(&mut self) -> Result<Option<Event>, Error> {
        // Bounded, though every pass takes something off the socket.
        for _ in 0..64 {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            match self.socket.poll() {
                Ok(None) => return Ok(None),
                Ok(Some(bytes)) => read(bytes, &mut self.waiting),
                Err(Error::Io(e)) if e.raw_os_error() != Some(libc::ENOBUFS) => return Err(Error::Io(e)),
                Err(_) => return Ok(Some(Event::Resync)),
            }
        }
        Ok(None)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What changed among the IPv6 routes of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteEvent {
    /// A route is new or changed.
    Set(Route),
    /// A route is gone.
    Gone(Route),
    /// Changes were lost, or are not of the kind [`Route`] describes; list everything anew.
    Resync,
}

/// A socket that hears of changes of IPv6 routes, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct RouteMonitor {
    socket: Socket,
    waiting: VecDeque<RouteEvent>,
}

impl RouteMonitor {
    /// Starts to listen.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(None, ROUTES6)?, waiting: VecDeque::new() })
    }

    /// The next change, without waiting; `None` when there is none.
    ///
    /// # Errors
    /// The socket itself failed; open a new one.
    pub fn poll_event(&mut self) -> Result<Option<RouteEvent>, Error> {
        for _ in 0..64 {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            match self.socket.poll() {
                Ok(None) => return Ok(None),
                Ok(Some(bytes)) => read_routes(bytes, &mut self.waiting),
                Err(Error::Io(e)) if e.raw_os_error() != Some(libc::ENOBUFS) => return Err(Error::Io(e)),
                Err(_) => return Ok(Some(RouteEvent::Resync)),
            }
        }
        Ok(None)
    }
}

impl AsFd for RouteMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn read_routes(bytes: &[u8], events: &mut VecDeque<RouteEvent>) {
    for message in codec::messages(bytes) {
        let event = message.and_then(|m| {
            let make: fn(Route) -> RouteEvent = match m.kind {
                libc::RTM_NEWROUTE => RouteEvent::Set,
                libc::RTM_DELROUTE => RouteEvent::Gone,
                _ => return Ok(None),
            };
            Ok(match route::parse(m.body)? {
                Some(route) if route.table == TABLE_MAIN => Some(make(route)),
                Some(_) => None,
                None => route::is_multipath(m.body).then_some(RouteEvent::Resync),
            })
        });
        events.extend(event.unwrap_or(Some(RouteEvent::Resync)));
    }
}

/// Turns one datagram of notifications into events.
fn read(bytes: &[u8], events: &mut VecDeque<Event>) {
    for message in codec::messages(bytes) {
        let event = message.and_then(|m| match m.kind {
            libc::RTM_NEWLINK | libc::RTM_DELLINK if bridge_port(m.body) => Ok(None),
            libc::RTM_NEWLINK => link::parse(m.body).map(Event::Link).map(Some),
            libc::RTM_DELLINK => link::parse(m.body).map(Event::LinkGone).map(Some),
            libc::RTM_NEWADDR => address::parse(m.body).map(|a| a.map(Event::Address)),
            libc::RTM_DELADDR => address::parse(m.body).map(|a| a.map(Event::AddressGone)),
            _ => Ok(None),
        });
        events.extend(event.unwrap_or(Some(Event::Resync)));
    }
}

/// Bridges tell of their ports in messages of the same types: a "deleted" port is still an interface.
fn bridge_port(body: &[u8]) -> bool {
    body.first() == Some(&(libc::AF_BRIDGE as u8))
}

//! Changes of interfaces, addresses and routes as they happen.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use super::socket::Socket;
use super::{Address, Error, Link, Neighbor, Route, address, codec, link, neighbor, route};

/// RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// RTMGRP_NEIGH
const NEIGHBORS: u32 = 0x4;
/// RTMGRP_IPV4_ROUTE
const ROUTES4: u32 = 0x40;
/// RTMGRP_IPV6_ROUTE
const ROUTES6: u32 = 0x400;
/// Of this node's own addresses; no route anybody makes.
const TABLE_LOCAL: u32 = libc::RT_TABLE_LOCAL as u32;

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
    /// A route of the protocol given to [`Monitor::with_routes`] is gone, whoever removed it.
    RouteGone(Route),
    /// A default route of another protocol is new, changed or gone.
    ForeignDefault,
    /// The kernel found out whether a neighbour is there; only with [`Monitor::with_routes`], see
    /// [`Monitor::hear_answers`].
    Neighbor(Neighbor),
    /// Changes were lost; list everything anew.
    Resync,
}

/// A socket that hears of changes.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    waiting: VecDeque<Event>,
    /// Whose routes are of interest.
    protocol: Option<u8>,
}

impl Monitor {
    /// Starts to listen. List the present state after this call, and nothing is missed.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(None, GROUPS)?, waiting: VecDeque::new(), protocol: None })
    }

    /// The same, which also hears when routes of `protocol` go, of default routes of other protocols, and of
    /// neighbours.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn with_routes(protocol: u8) -> Result<Self, Error> {
        let socket = Socket::open(None, GROUPS | ROUTES4 | ROUTES6 | NEIGHBORS)?;
        // Most of what happens to neighbours is no verdict: nobody is woken up for that.
        let _ = socket.filter(&neighbor::verdicts_only(true));
        Ok(Self { socket, waiting: VecDeque::new(), protocol: Some(protocol) })
    }

    /// Hears of neighbours that answered, or only of those that did not: those that are sent packets answer all the
    /// time ([`super::Detection`]).
    pub fn hear_answers(&mut self, on: bool) {
        // Without a filter more is heard, which does no harm.
        let _ = self.socket.filter(&neighbor::verdicts_only(on));
    }

    /// The next change, without waiting; `None` when there is none. Notifications that do not parse, and
    /// ones lost to a full queue, come out as [`Event::Resync`].
    ///
    /// # Errors
    /// The socket itself failed; open a new one.
    pub fn poll_event(&mut self) -> Result<Option<Event>, Error> {
        let protocol = self.protocol;
        let read = |bytes: &[u8], events: &mut VecDeque<Event>| read(bytes, protocol, events);
        self.socket.next_event(&mut self.waiting, Event::Resync, read)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What changed among the IPv6 routes of all tables but the local one.
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
        self.socket.next_event(&mut self.waiting, RouteEvent::Resync, read_routes)
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
                Some(route) if route.table != TABLE_LOCAL => Some(make(route)),
                Some(_) => None,
                None => route::is_multipath(m.body).then_some(RouteEvent::Resync),
            })
        });
        events.extend(event.unwrap_or(Some(RouteEvent::Resync)));
    }
}

/// Turns one datagram of notifications into events.
fn read(bytes: &[u8], protocol: Option<u8>, events: &mut VecDeque<Event>) {
    for message in codec::messages(bytes) {
        let event = message.and_then(|m| match m.kind {
            libc::RTM_NEWLINK | libc::RTM_DELLINK if bridge_port(m.body) => Ok(None),
            libc::RTM_NEWLINK => link::parse(m.body).map(Event::Link).map(Some),
            libc::RTM_DELLINK => link::parse(m.body).map(Event::LinkGone).map(Some),
            libc::RTM_NEWADDR => address::parse(m.body).map(|a| a.map(Event::Address)),
            libc::RTM_DELADDR => address::parse(m.body).map(|a| a.map(Event::AddressGone)),
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => match protocol {
                Some(ours) if route::is_foreign_default(m.body, ours) => Ok(Some(Event::ForeignDefault)),
                Some(ours) if m.kind == libc::RTM_DELROUTE && route::is_of(m.body, ours) => {
                    route::parse(m.body).map(|r| r.map(Event::RouteGone))
                }
                _ => Ok(None),
            },
            libc::RTM_NEWNEIGH => neighbor::parse(m.body).map(|n| n.map(Event::Neighbor)),
            _ => Ok(None),
        });
        let event = event.unwrap_or(Some(Event::Resync));
        // One is enough, however many default routes change.
        if event != Some(Event::ForeignDefault) || events.back() != Some(&Event::ForeignDefault) {
            events.extend(event);
        }
    }
}

/// Bridges tell of their ports in messages of the same types: a "deleted" port is still an interface.
fn bridge_port(body: &[u8]) -> bool {
    body.first() == Some(&(libc::AF_BRIDGE as u8))
}

//! What radios tell by themselves: stations that come and go, interfaces and radios that change.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use super::station::{self, Station};
use super::{ATTR_IFINDEX, CMD_DEL_STATION, CMD_NEW_STATION, Family, HEADER};
use crate::netlink::socket::Socket;
use crate::netlink::{Error, codec};

const CMD_NEW_WIPHY: u8 = 3;
const CMD_DEL_WIPHY: u8 = 4;
const CMD_SET_INTERFACE: u8 = 6;
const CMD_NEW_INTERFACE: u8 = 7;
const CMD_DEL_INTERFACE: u8 = 8;
const CMD_NEW_SCAN_RESULTS: u8 = 34;
const CMD_SCAN_ABORTED: u8 = 35;
const CMD_REG_CHANGE: u8 = 36;
const CMD_WIPHY_REG_CHANGE: u8 = 113;

/// What a radio told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A station is new.
    Station(Station),
    /// A station is gone: it left, or it was not heard for too long. Its last figures.
    StationGone(Station),
    /// An interface has looked round, or was kept from it.
    Scanned {
        /// Its kernel index.
        interface: u32,
    },
    /// A radio, what one of its interfaces is, or which channels are allowed has changed; list them.
    Changed,
    /// Notifications were lost or do not parse; list everything anew.
    Resync,
}

/// A socket that hears the radios of this network namespace.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    family: u16,
    waiting: VecDeque<Event>,
}

impl Monitor {
    /// Starts to listen; `None` if this kernel has no nl80211 yet. List the present state after this call,
    /// and nothing is missed.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open() -> Result<Option<Self>, Error> {
        let Some(family) = Family::find()? else { return Ok(None) };
        let mut socket = Socket::open(Some(rustix::net::netlink::GENERIC), 0)?;
        for name in ["mlme", "config", "scan", "regulatory"] {
            let group = family.group(name).ok_or(Error::Malformed("nl80211's notification groups"))?;
            socket.listen(group)?;
        }
        Ok(Some(Self { socket, family: family.id, waiting: VecDeque::new() }))
    }

    /// The next event, without waiting; `None` when there is none.
    ///
    /// # Errors
    /// The socket itself failed; open a new one.
    pub fn poll_event(&mut self) -> Result<Option<Event>, Error> {
        let family = self.family;
        let read = |bytes: &[u8], events: &mut VecDeque<Event>| read(bytes, family, events);
        self.socket.next_event(&mut self.waiting, Event::Resync, read)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Turns one datagram of notifications into events.
pub(super) fn read(bytes: &[u8], family: u16, events: &mut VecDeque<Event>) {
    for message in codec::messages(bytes) {
        let event = message.and_then(|m| {
            let command = if m.kind == family { m.body.first().copied() } else { None };
            Ok(match command {
                Some(CMD_NEW_STATION) => Some(Event::Station(station::parse(m.body)?)),
                Some(CMD_DEL_STATION) => Some(Event::StationGone(station::parse(m.body)?)),
                Some(CMD_NEW_SCAN_RESULTS | CMD_SCAN_ABORTED) => scanned(m.body)?,
                Some(
                    CMD_NEW_WIPHY | CMD_DEL_WIPHY | CMD_SET_INTERFACE | CMD_NEW_INTERFACE | CMD_DEL_INTERFACE
                    | CMD_REG_CHANGE | CMD_WIPHY_REG_CHANGE,
                ) => Some(Event::Changed),
                _ => None,
            })
        });
        let event = event.unwrap_or(Some(Event::Resync));
        // One is enough, however much of a radio changes.
        if event != Some(Event::Changed) || events.back() != Some(&Event::Changed) {
            events.extend(event);
        }
    }
}

/// `None` for an interface that is no network device.
fn scanned(body: &[u8]) -> Result<Option<Event>, Error> {
    for attribute in codec::attributes(body.get(HEADER..).ok_or(Error::Malformed("scan"))?) {
        if let (ATTR_IFINDEX, v) = attribute? {
            return Ok(Some(Event::Scanned { interface: codec::u32_of(v)? }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::ATTR_MAC;
    use super::*;
    use crate::netlink::codec::Builder;

    const FAMILY: u16 = 28;

    fn message(kind: u16, command: u8, build: impl FnOnce(&mut Builder)) -> Vec<u8> {
        let mut b = Builder::new(kind, 0, &[command, 1, 0, 0]);
        build(&mut b);
        b.finish(0, 0)
    }

    fn about(b: &mut Builder) {
        b.attribute_u32(ATTR_IFINDEX, 5);
        b.attribute(ATTR_MAC, &[2, 0, 0, 0, 1, 0]);
    }

    fn events(bytes: &[u8]) -> Vec<Event> {
        let mut events = VecDeque::new();
        read(bytes, FAMILY, &mut events);
        events.into()
    }

    #[test]
    fn stations_come_and_go() {
        let bytes =
            [message(FAMILY, CMD_NEW_STATION, about), message(FAMILY, CMD_DEL_STATION, about)].concat();
        let [Event::Station(new), Event::StationGone(gone)] = events(&bytes)[..] else { panic!() };
        assert_eq!((new.interface, new.mac), (gone.interface, gone.mac));
        for cut in 0..bytes.len() {
            events(&bytes[..cut]);
        }
    }

    #[test]
    fn changes_are_told_once_and_other_families_and_commands_not_at_all() {
        let change = message(FAMILY, CMD_NEW_WIPHY, |_| {});
        let bytes = [
            change.clone(),
            change,
            message(FAMILY, 33, |_| {}), // a scan begins
            message(FAMILY, CMD_NEW_SCAN_RESULTS, |_| {}),
            message(FAMILY + 1, CMD_DEL_STATION, about),
        ]
        .concat();
        assert_eq!(events(&bytes), [Event::Changed]);
    }

    #[test]
    fn a_scan_that_ends_and_another_country_are_told() {
        let end = message(FAMILY, CMD_SCAN_ABORTED, about);
        assert_eq!(events(&end), [Event::Scanned { interface: 5 }]);
        assert_eq!(events(&message(FAMILY, CMD_REG_CHANGE, |_| {})), [Event::Changed]);
    }

    #[test]
    fn nonsense_asks_for_a_fresh_look() {
        assert_eq!(events(&message(FAMILY, CMD_DEL_STATION, |_| {})), [Event::Resync]);
        assert_eq!(events(&[1, 2, 3]), [Event::Resync]);
        assert_eq!(events(&message(FAMILY, CMD_DEL_STATION, about)[..30]), [Event::Resync]);
    }
}

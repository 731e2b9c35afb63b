//! Wi-Fi radios, over generic netlink and nl80211: [`Nl80211`] asks and changes, [`Monitor`] hears.

mod events;
mod mesh;
mod scan;
mod station;
mod wiphy;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use super::codec::{Builder, attributes, text_of, u16_at, u32_of};
use super::socket::Socket;
use super::{Error, bounded};

pub use events::{Event, Monitor};
pub use mesh::MeshSetup;
pub use scan::HeardMesh;
pub use station::{PeerLink, Station};
pub use wiphy::{Combination, WifiChannel, Wiphy};

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

const CMD_GET_WIPHY: u8 = 1;
const CMD_GET_INTERFACE: u8 = 5;
const CMD_GET_STATION: u8 = 17;
const CMD_NEW_STATION: u8 = 19;
const CMD_DEL_STATION: u8 = 20;
const CMD_REQ_SET_REG: u8 = 27;
const CMD_GET_REG: u8 = 31;
const CMD_GET_SCAN: u8 = 32;
const CMD_GET_SURVEY: u8 = 50;
const ATTR_WIPHY: u16 = 1;
const ATTR_IFINDEX: u16 = 3;
const ATTR_IFTYPE: u16 = 5;
const ATTR_MAC: u16 = 6;
const ATTR_REG_ALPHA2: u16 = 33;
const ATTR_SPLIT_WIPHY_DUMP: u16 = 174;

/// What [`Nl80211::join_mesh`] fails with where the interface is in a mesh.
pub const ALREADY_JOINED: i32 = libc::EALREADY;

/// `struct genlmsghdr`
const HEADER: usize = 4;

/// What a Wi-Fi interface can be (`enum nl80211_iftype`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Ad hoc.
    Ibss,
    /// Client of an access point.
    Station,
    /// Access point.
    AccessPoint,
    /// 802.11s mesh point.
    MeshPoint,
    /// Listens only.
    Monitor,
    /// One that we have no use for.
    Other(u16),
}

impl Mode {
    /// From the kernel's number.
    pub const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Ibss,
            2 => Self::Station,
            3 => Self::AccessPoint,
            6 => Self::Monitor,
            7 => Self::MeshPoint,
            n => Self::Other(n),
        }
    }

    /// The kernel's number.
    pub const fn number(self) -> u16 {
        match self {
            Self::Ibss => 1,
            Self::Station => 2,
            Self::AccessPoint => 3,
            Self::Monitor => 6,
            Self::MeshPoint => 7,
            Self::Other(n) => n,
        }
    }
}

/// A Wi-Fi interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WifiInterface {
    /// Kernel index of the interface.
    pub index: u32,
    /// Kernel index of its radio.
    pub wiphy: u32,
    /// What it is now.
    pub mode: Mode,
}

/// nl80211 as generic netlink knows it.
#[derive(Debug, Default)]
struct Family {
    id: u16,
    /// Its notification groups, by name.
    groups: Vec<(String, u32)>,
}

impl Family {
    /// `None` if this kernel has no nl80211.
    fn find() -> Result<Option<Self>, Error> {
        let mut socket = match Socket::open(Some(rustix::net::netlink::GENERIC), 0) {
            Ok(socket) => socket,
            Err(Error::Io(e)) if e.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut request = Builder::new(GENL_ID_CTRL, 0, &[CTRL_CMD_GETFAMILY, 1, 0, 0]);
        request.attribute(CTRL_ATTR_FAMILY_NAME, b"nl80211\0");
        let mut family = Self::default();
        let asked = socket.ask(request, |_, body| {
            family = Self::parse(body)?;
            Ok(())
        });
        match asked {
            Err(Error::Kernel { errno: libc::ENOENT, .. }) => Ok(None),
            Err(e) => Err(e),
            Ok(()) => Ok(Some(family).filter(|f| f.id != 0)),
        }
    }

    fn parse(body: &[u8]) -> Result<Self, Error> {
        let mut family = Self::default();
        for attribute in attributes(body.get(HEADER..).unwrap_or_default()) {
            match attribute? {
                (CTRL_ATTR_FAMILY_ID, v) => family.id = u16_at(v, 0).unwrap_or(0),
                (CTRL_ATTR_MCAST_GROUPS, v) => {
                    for group in attributes(v) {
                        let (mut name, mut id) = (String::new(), 0);
                        for part in attributes(group?.1) {
                            match part? {
                                (CTRL_ATTR_MCAST_GRP_NAME, v) => name = text_of(v),
                                (CTRL_ATTR_MCAST_GRP_ID, v) => id = u32_of(v)?,
                                _ => {}
                            }
                        }
                        family.groups.push((name, id));
                    }
                }
                _ => {}
            }
        }
        Ok(family)
    }

    fn group(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|(n, id)| n == name && *id != 0).map(|(_, id)| *id)
    }
}

/// A socket for requests to nl80211.
#[derive(Debug)]
pub struct Nl80211 {
    socket: Socket,
    family: u16,
}

impl Nl80211 {
    /// Opens it; `None` if this kernel has no nl80211 (no Wi-Fi driver is loaded).
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open() -> Result<Option<Self>, Error> {
        let Some(family) = Family::find()? else { return Ok(None) };
        let socket = Socket::open(Some(rustix::net::netlink::GENERIC), 0)?;
        Ok(Some(Self { socket, family: family.id }))
    }

    /// All radios of this namespace, by index.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn wiphys(&mut self) -> Result<Vec<Wiphy>, Error> {
        let mut found: BTreeMap<u32, Wiphy> = BTreeMap::new();
        let mut request = Builder::new(self.family, 0, &[CMD_GET_WIPHY, 0, 0, 0]);
        request.attribute(ATTR_SPLIT_WIPHY_DUMP, &[]);
        self.socket.dump(request, |_, body| {
            wiphy::merge(body, &mut found)?;
            bounded(found.len())
        })?;
        Ok(found.into_values().collect())
    }

    /// All Wi-Fi interfaces of this namespace.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn interfaces(&mut self) -> Result<Vec<WifiInterface>, Error> {
        let mut found = Vec::new();
        self.socket.dump(Builder::new(self.family, 0, &[CMD_GET_INTERFACE, 0, 0, 0]), |_, body| {
            found.extend(parse_interface(body)?);
            bounded(found.len())
        })?;
        Ok(found)
    }

    /// The stations of an interface.
    ///
    /// # Errors
    /// `ENODEV` if it is gone or no Wi-Fi interface.
    pub fn stations(&mut self, interface: u32) -> Result<Vec<Station>, Error> {
        let mut request = Builder::new(self.family, 0, &[CMD_GET_STATION, 0, 0, 0]);
        request.attribute_u32(ATTR_IFINDEX, interface);
        let mut found = Vec::new();
        self.socket.dump(request, |_, body| {
            found.push(station::parse(body)?);
            bounded(found.len())
        })?;
        Ok(found)
    }

    /// Removes a station, which may come back; a mesh point tells it that the peer link is closed.
    ///
    /// # Errors
    /// `ENOENT` if it is not there; `EPERM` without `CAP_NET_ADMIN`, as with all that follow.
    pub fn remove_station(&mut self, interface: u32, mac: [u8; 6]) -> Result<(), Error> {
        self.socket.request(mesh::remove_station(self.family, interface, mac))
    }

    /// Makes an interface on a radio.
    ///
    /// # Errors
    /// `ENFILE` or `EEXIST` if the name is taken; `EOPNOTSUPP` if the radio can't be that.
    pub fn add_interface(&mut self, wiphy: u32, name: &str, mode: Mode) -> Result<(), Error> {
        self.socket.request(mesh::add_interface(self.family, wiphy, name, mode))
    }

    /// Makes something else of an interface, which has to be down.
    ///
    /// # Errors
    /// `EBUSY` if it is up; `EOPNOTSUPP` if the radio can't be that.
    pub fn set_mode(&mut self, interface: u32, mode: Mode) -> Result<(), Error> {
        self.socket.request(mesh::set_mode(self.family, interface, mode))
    }

    /// Removes an interface from its radio.
    ///
    /// # Errors
    /// `ENODEV` if it is gone.
    pub fn remove_interface(&mut self, interface: u32) -> Result<(), Error> {
        self.socket.request(mesh::remove_interface(self.family, interface))
    }

    /// Joins an open mesh; the interface has to be a mesh point and up. Peers are found from then on.
    ///
    /// # Errors
    /// `EINVAL` for a frequency that the radio or the country does not allow; `EALREADY` if it has joined one.
    pub fn join_mesh(&mut self, interface: u32, setup: &MeshSetup<'_>) -> Result<(), Error> {
        self.socket.request(mesh::join(self.family, interface, setup))
    }

    /// Leaves the mesh.
    ///
    /// # Errors
    /// `ENOTCONN` if it is in none.
    pub fn leave_mesh(&mut self, interface: u32) -> Result<(), Error> {
        self.socket.request(mesh::leave(self.family, interface))
    }

    /// Switches forwarding, root mode and gate announcements off where another program joined the mesh, and
    /// sets the signal in dBm (-255 to 0) below which no peer link is opened.
    ///
    /// # Errors
    /// `ENOTCONN` if it is in none.
    pub fn configure_mesh(&mut self, interface: u32, rssi_threshold: i32) -> Result<(), Error> {
        self.socket.request(mesh::configure(self.family, interface, rssi_threshold))
    }

    /// Begins to look round on these channels (centres in MHz) for mesh points of that mesh; the interface has
    /// to be up. [`Event::Scanned`] tells when it is done.
    ///
    /// # Errors
    /// `EBUSY` while it looks; `EINVAL` for a channel that it does not have.
    pub fn look_round(&mut self, interface: u32, frequencies: &[u32], mesh_id: &[u8]) -> Result<(), Error> {
        self.socket.request(scan::trigger(self.family, interface, frequencies, mesh_id))
    }

    /// The mesh points that the radio of an interface heard lately, of whatever mesh.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn heard_meshes(&mut self, interface: u32) -> Result<Vec<HeardMesh>, Error> {
        let mut request = Builder::new(self.family, 0, &[CMD_GET_SCAN, 0, 0, 0]);
        request.attribute_u32(ATTR_IFINDEX, interface);
        let mut found = Vec::new();
        self.socket.dump(request, |_, body| {
            found.extend(scan::parse(body)?);
            bounded(found.len())
        })?;
        Ok(found)
    }

    /// The noise on the channels (centres in MHz) that the radio of an interface was on, in dBm; empty if the
    /// driver does not measure it.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if it knows no surveys.
    pub fn noise(&mut self, interface: u32) -> Result<BTreeMap<u32, i8>, Error> {
        let mut request = Builder::new(self.family, 0, &[CMD_GET_SURVEY, 0, 0, 0]);
        request.attribute_u32(ATTR_IFINDEX, interface);
        let mut found = BTreeMap::new();
        self.socket.dump(request, |_, body| {
            scan::noise(body, &mut found)?;
            bounded(found.len())
        })?;
        Ok(found)
    }

    /// Asks for the rules of a country (ISO 3166-1 alpha-2) for all radios; [`Event::Changed`] follows, unless
    /// the kernel knows no such country, or has no rules at all.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_country(&mut self, country: [u8; 2]) -> Result<(), Error> {
        let mut request = Builder::new(self.family, 0, &[CMD_REQ_SET_REG, 0, 0, 0]);
        let [a, b] = country;
        request.attribute(ATTR_REG_ALPHA2, &[a, b, 0]);
        self.socket.request(request)
    }

    /// The country whose rules are in force; `00` is the world's, allowed everywhere.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn country(&mut self) -> Result<String, Error> {
        let mut country = String::new();
        self.socket.ask(Builder::new(self.family, 0, &[CMD_GET_REG, 0, 0, 0]), |_, body| {
            for attribute in attributes(body.get(HEADER..).unwrap_or_default()) {
                if let (ATTR_REG_ALPHA2, v) = attribute? {
                    country = text_of(v);
                }
            }
            Ok(())
        })?;
        Ok(country)
    }

    /// Moves a radio with all its interfaces into another network namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_namespace(&mut self, wiphy: u32, namespace: BorrowedFd<'_>) -> Result<(), Error> {
        self.socket.request(mesh::set_namespace(self.family, wiphy, namespace))
    }
}

/// What notifications in `bytes`, one datagram, tell; `family` is nl80211's number. For fuzzing.
pub fn read_events(bytes: &[u8], family: u16) -> Vec<Event> {
    let mut events = std::collections::VecDeque::new();
    events::read(bytes, family, &mut events);
    events.into()
}

/// What the answers in `bytes`, one datagram, tell of radios and interfaces. For fuzzing.
///
/// # Errors
/// [`Error::Malformed`].
pub fn read_radios(bytes: &[u8]) -> Result<(Vec<Wiphy>, Vec<WifiInterface>), Error> {
    let (mut wiphys, mut interfaces) = (BTreeMap::new(), Vec::new());
    for message in super::codec::messages(bytes) {
        let body = message?.body;
        wiphy::merge(body, &mut wiphys)?;
        interfaces.extend(parse_interface(body)?);
        Family::parse(body)?;
        scan::parse(body)?;
        scan::noise(body, &mut BTreeMap::new())?;
    }
    Ok((wiphys.into_values().collect(), interfaces))
}

/// `None` for an interface that is no network device (P2P device).
fn parse_interface(body: &[u8]) -> Result<Option<WifiInterface>, Error> {
    let (mut index, mut wiphy, mut mode) = (None, None, Mode::Other(0));
    for attribute in attributes(body.get(HEADER..).ok_or(Error::Malformed("Wi-Fi interface"))?) {
        match attribute? {
            (ATTR_IFINDEX, v) => index = Some(u32_of(v)?),
            (ATTR_WIPHY, v) => wiphy = Some(u32_of(v)?),
            (ATTR_IFTYPE, v) => mode = Mode::from_number(u32_of(v)? as u16),
            _ => {}
        }
    }
    Ok(index.zip(wiphy).map(|(index, wiphy)| WifiInterface { index, wiphy, mode }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::codec;

    pub(super) fn body(build: impl FnOnce(&mut Builder)) -> Vec<u8> {
        let mut b = Builder::new(28, 0, &[3, 1, 0, 0]);
        build(&mut b);
        let bytes = b.finish(0, 1);
        codec::messages(&bytes).next().unwrap().unwrap().body.to_vec()
    }

    #[test]
    fn the_family_tells_its_number_and_groups() {
        let group = |name: &[u8], id: u32| {
            let mut g = codec::Nest::default();
            g.attribute(CTRL_ATTR_MCAST_GRP_NAME, name);
            g.attribute(CTRL_ATTR_MCAST_GRP_ID, &id.to_ne_bytes());
            g
        };
        let all = body(|b| {
            b.attribute(CTRL_ATTR_FAMILY_ID, &28u16.to_ne_bytes());
            let mut groups = codec::Nest::default();
            groups.attribute(1, group(b"config\0", 4).bytes());
            groups.attribute(2, group(b"mlme\0", 7).bytes());
            groups.attribute(3, group(b"none\0", 0).bytes());
            b.attribute(CTRL_ATTR_MCAST_GROUPS, groups.bytes());
        });
        let family = Family::parse(&all).unwrap();
        assert_eq!((family.id, family.group("mlme"), family.group("config")), (28, Some(7), Some(4)));
        assert_eq!((family.group("none"), family.group("scan")), (None, None));
        for cut in 0..all.len() {
            let _ = Family::parse(&all[..cut]);
        }
    }

    #[test]
    fn an_interface_needs_an_index() {
        let all = body(|b| {
            b.attribute_u32(ATTR_IFINDEX, 9);
            b.attribute_u32(ATTR_WIPHY, 3);
            b.attribute_u32(ATTR_IFTYPE, 7);
        });
        let want = WifiInterface { index: 9, wiphy: 3, mode: Mode::MeshPoint };
        assert_eq!(parse_interface(&all).unwrap(), Some(want));
        assert_eq!(parse_interface(&body(|b| b.attribute_u32(ATTR_WIPHY, 3))).unwrap(), None);
    }

    #[test]
    fn a_kernel_without_wifi_is_no_error() {
        match Nl80211::open().unwrap() {
            None => {}
            Some(mut nl) => {
                let wiphys = nl.wiphys().unwrap();
                assert!(nl.interfaces().unwrap().iter().all(|i| wiphys.iter().any(|w| w.index == i.wiphy)));
            }
        }
    }
}

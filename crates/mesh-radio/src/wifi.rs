//! Wi-Fi: the radios, what their interfaces are, and the stations of mesh points, over nl80211.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mesh_sys::netlink::Error;
use mesh_sys::netlink::nl80211::{self, Event, MeshSetup, Nl80211, PeerLink};
use mesh_sys::poll::Poller;
use mesh_sys::rfkill::{self, Block};
use mesh_types::Instant;
use radio_core::{
    Band, Channel, Combination, HeardMesh, Mode, Off, Phy, Role, Station, StationInput, StationOutput,
    Stations, Wifi as Interface, Work,
};

/// A peer that was not heard for so many seconds is removed; it beacons every second.
const PEER_TIMEOUT: u32 = 10;
/// No peer link is opened with who is heard with less, in dBm: it would carry the lowest rate, if any, and every
/// broadcast is sent at that rate.
pub(crate) const RSSI_THRESHOLD: i32 = -87;

/// What the kernel's Wi-Fi stack knows, and the sockets to it.
#[derive(Debug, Default)]
pub(crate) struct Wifi {
    /// For requests; opened when there is a Wi-Fi stack.
    nl: Option<Nl80211>,
    /// For notifications.
    monitor: Option<nl80211::Monitor>,
    /// What the interfaces of radios are.
    pub(crate) interfaces: BTreeMap<u32, Interface>,
    pub(crate) stations: Stations,
    /// How the interfaces in a mesh were joined to it.
    joined: BTreeMap<u32, Work>,
    /// Whose rules to ask for, as soon as there is a Wi-Fi stack; then to have.
    country: Option<[u8; 2]>,
    country_asked: bool,
}

/// What the radios told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing that the planner has to know.
    Other,
    /// Radios or interfaces have changed; list them.
    Changed,
    /// A mesh point has looked round.
    Looked(u32),
}

impl Wifi {
    /// `country`: two capital letters; `None` leaves what is in force, the world's rules at the start.
    pub(crate) fn new(country: Option<[u8; 2]>) -> Self {
        Self { country, ..Self::default() }
    }

    /// The radios there are; also takes in what their interfaces are. None if there is no Wi-Fi in this
    /// kernel. `token` is for the notifications.
    pub(crate) fn list(&mut self, now: Instant, poller: &Poller, token: u64) -> Result<Vec<Phy>, Error> {
        let phys = self.ask(poller, token);
        if phys.is_err() {
            self.nl = None; // the next question opens it anew
        }
        let points: BTreeSet<u32> =
            self.interfaces.iter().filter(|(_, i)| i.mode == Mode::MeshPoint).map(|(i, _)| *i).collect();
        self.stations.handle_input(now, StationInput::MeshPoints(&points));
        phys
    }

    fn ask(&mut self, poller: &Poller, token: u64) -> Result<Vec<Phy>, Error> {
        // The kernel would load its Wi-Fi stack for the question alone, which takes half a second. A driver
        // brings it along.
        if self.nl.is_none() && !may_have_radios(Path::new("/sys/class")) {
            return Ok(Vec::new());
        }
        // First the ear, then the question: nothing is missed between them.
        if self.monitor.is_none() {
            self.monitor = nl80211::Monitor::open()?;
            if let Some(monitor) = &self.monitor {
                poller.add(monitor, token, false)?;
            }
        }
        if self.nl.is_none() {
            self.nl = Nl80211::open()?;
        }
        let Some(nl) = &mut self.nl else { return Ok(Vec::new()) };
        if let (Some(country), false) = (self.country, self.country_asked) {
            self.country_asked = true;
            match nl.set_country(country) {
                Ok(()) => wait_for_country(nl, country),
                Err(e) => log::warn!("asking for the rules of the configured country: {e}"),
            }
        }
        let off = rfkill::blocked(Path::new(rfkill::CLASS));
        let phys = nl.wiphys()?.into_iter().map(|w| phy(w, &off)).collect();
        let interface = |i: nl80211::WifiInterface| (i.index, Interface { phy: i.wiphy, mode: mode(i.mode) });
        self.interfaces = nl.interfaces()?.into_iter().map(interface).collect();
        self.joined.retain(|index, _| self.interfaces.contains_key(index));
        Ok(phys)
    }

    /// Makes a mesh point or an access point on a radio.
    pub(crate) fn add_interface(&mut self, phy: u32, name: &str, kind: Mode) -> Result<(), Error> {
        let kind =
            if kind == Mode::MeshPoint { nl80211::Mode::MeshPoint } else { nl80211::Mode::AccessPoint };
        self.ready()?.add_interface(phy, name, kind)
    }

    /// The stations of an access point now.
    pub(crate) fn clients(&mut self, index: u32) -> Vec<Station> {
        let listed = self.ready().and_then(|nl| nl.stations(index));
        listed.map(|all| all.iter().map(station).collect()).unwrap_or_else(|e| {
            log::debug!("listing the stations of interface {index}: {e}");
            Vec::new()
        })
    }

    /// Removes an interface from its radio.
    pub(crate) fn remove(&mut self, index: u32) -> Result<(), Error> {
        self.ready()?.remove_interface(index)
    }

    /// Joins the mesh of that ID; one that has joined already stays where it is, unless this service joined it
    /// otherwise.
    pub(crate) fn join(&mut self, index: u32, id: &str, work: Work) -> Result<(), Error> {
        let setup = MeshSetup {
            id: id.as_bytes(),
            frequency: work.channel.frequency,
            ht: work.channel.ht,
            peer_timeout: PEER_TIMEOUT,
            rssi_threshold: RSSI_THRESHOLD,
            beacon_interval: work.beacon_interval(Role::Mesh),
        };
        let before = self.joined.insert(index, work);
        let nl = self.ready()?;
        let joined = nl.join_mesh(index, &setup);
        match joined.as_ref().err().and_then(Error::errno) {
            Some(nl80211::ALREADY_JOINED) if before.is_none_or(|b| b == work) => Ok(()),
            Some(nl80211::ALREADY_JOINED) => {
                nl.leave_mesh(index)?;
                nl.join_mesh(index, &setup)
            }
            _ => joined,
        }
    }

    /// Makes an ordinary interface of one that is down.
    pub(crate) fn make_station(&mut self, index: u32) -> Result<(), Error> {
        self.ready()?.set_mode(index, nl80211::Mode::Station)
    }

    /// Switches off what the router does better, where another program joined the mesh.
    pub(crate) fn configure_mesh(&mut self, index: u32) -> Result<(), Error> {
        self.ready()?.configure_mesh(index, RSSI_THRESHOLD)
    }

    /// Begins to look for the mesh; [`Heard::Looked`] tells when it is done.
    pub(crate) fn look(&mut self, index: u32, frequencies: &[u32], id: &str) -> Result<(), Error> {
        self.ready()?.look_round(index, frequencies, id.as_bytes())
    }

    /// Where that mesh was heard lately, each channel once. `secured`: with a password.
    pub(crate) fn heard(&mut self, index: u32, id: &str, secured: bool) -> Vec<HeardMesh> {
        let Some(nl) = &mut self.nl else { return Vec::new() };
        let heard = nl.heard_meshes(index).unwrap_or_else(|e| {
            log::debug!("what interface {index} heard: {e}");
            Vec::new()
        });
        // By channel: whether one of those there may become a peer.
        let mut channels: BTreeMap<u32, bool> = BTreeMap::new();
        for m in heard.iter().filter(|m| m.id == id.as_bytes()) {
            let near = m.signal.is_none_or(|signal| i32::from(signal) >= RSSI_THRESHOLD);
            *channels.entry(m.frequency).or_default() |= near && m.peers > 0 && m.authenticates == secured;
        }
        let noise = nl.noise(index).unwrap_or_default();
        let heard =
            |(frequency, peers)| HeardMesh { frequency, noise: noise.get(&frequency).copied(), peers };
        channels.into_iter().map(heard).collect()
    }

    /// What is wrong with the country, for people.
    pub(crate) fn country_problem(&mut self) -> Option<String> {
        let wanted = String::from_utf8_lossy(&self.country?).into_owned();
        let now = self.nl.as_mut()?.country().ok()?;
        (now != wanted).then(|| {
            format!(
                "country = \"{wanted}\": the kernel has no such rules, those of {now:?} are in force (00: what is allowed \
                 everywhere)"
            )
        })
    }

    fn ready(&mut self) -> Result<&mut Nl80211, Error> {
        self.nl.as_mut().ok_or(Error::Malformed("no Wi-Fi in this kernel"))
    }

    /// Takes the next notification; `None`: there is none.
    pub(crate) fn hear(&mut self, now: Instant, poller: &Poller) -> Option<Heard> {
        let monitor = self.monitor.as_mut()?;
        match monitor.poll_event() {
            Ok(None) => return None,
            Ok(Some(Event::Station(s))) => self.stations.handle_input(now, StationInput::New(station(&s))),
            Ok(Some(Event::StationGone(s))) => {
                log::debug!("interface {}: the radio removed station {}", s.interface, text(s.mac));
                let gone = StationInput::Gone { interface: s.interface, mac: s.mac };
                self.stations.handle_input(now, gone);
            }
            Ok(Some(Event::Scanned { interface })) => return Some(Heard::Looked(interface)),
            Ok(Some(Event::Changed)) => return Some(Heard::Changed),
            Ok(Some(Event::Resync)) => {
                self.stations.handle_input(now, StationInput::Resync);
                return Some(Heard::Changed);
            }
            Err(e) => {
                log::warn!("the radios' notifications: {e}; starting anew");
                let _ = poller.remove(&*monitor); // it would only report its error for ever
                self.monitor = None;
                return Some(Heard::Changed);
            }
        }
        Some(Heard::Other)
    }

    /// Does what the stations' core asks for. True if those who want to know have to be told.
    pub(crate) fn drain(&mut self, now: Instant) -> bool {
        let mut tell = false;
        // Bounded: a list asks for no other list.
        while let Some(output) = self.stations.poll_output() {
            match output {
                StationOutput::List { interface } => self.list_stations(now, interface),
                StationOutput::Tell => tell = true,
            }
        }
        tell
    }

    /// Brings the stations of all mesh points up to date now.
    pub(crate) fn refresh_stations(&mut self, now: Instant) {
        for interface in self.stations.mesh_points().clone() {
            self.list_stations(now, interface);
        }
    }

    fn list_stations(&mut self, now: Instant, interface: u32) {
        let Some(nl) = &mut self.nl else { return };
        match nl.stations(interface) {
            Ok(list) => {
                let stations: Vec<Station> = list.iter().map(station).collect();
                self.stations.handle_input(now, StationInput::All { interface, stations: &stations });
            }
            // An interface that has just gone; the notifications tell.
            Err(e) => log::debug!("listing the stations of interface {interface}: {e}"),
        }
    }
}

/// The kernel works on it beside us. Before it is done, the first plan would be for another country; where it is
/// never done, a later notification makes up for it.
fn wait_for_country(nl: &mut Nl80211, country: [u8; 2]) {
    for _ in 0..20 {
        if nl.country().is_ok_and(|c| c.as_bytes() == country) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// As people write it.
pub(crate) fn text(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

/// False if the Wi-Fi stack is not loaded. Where nothing can be told, it may be.
fn may_have_radios(classes: &Path) -> bool {
    classes.join("ieee80211").exists() || !classes.join("net").exists()
}

fn station(s: &nl80211::Station) -> Station {
    Station {
        interface: s.interface,
        mac: s.mac,
        // Without peer links, as in ad hoc networks, whoever is there is a peer.
        peer: s.peer_link.is_none_or(|l| l == PeerLink::Established),
        signal: s.signal,
        tx_bitrate: s.tx_bitrate,
        rx_bitrate: s.rx_bitrate,
        expected_throughput: s.expected_throughput,
        inactive_ms: s.inactive_ms,
    }
}

const fn mode(mode: nl80211::Mode) -> Mode {
    match mode {
        nl80211::Mode::Ibss => Mode::Ibss,
        nl80211::Mode::Station => Mode::Station,
        nl80211::Mode::AccessPoint => Mode::AccessPoint,
        nl80211::Mode::MeshPoint => Mode::MeshPoint,
        nl80211::Mode::Monitor => Mode::Monitor,
        nl80211::Mode::Other(_) => Mode::Other,
    }
}

fn phy(wiphy: nl80211::Wiphy, off: &[(String, Block)]) -> Phy {
    let band = |b: &u16| match b {
        0 => Some(Band::Ghz2),
        1 => Some(Band::Ghz5),
        2 => Some(Band::Ghz60),
        3 => Some(Band::Ghz6),
        4 => Some(Band::Ghz0),
        _ => None,
    };
    let may_begin = wiphy.channels.iter().filter(|c| c.may_begin);
    let combination = |c: &nl80211::Combination| Combination {
        limits: c
            .limits
            .iter()
            .map(|(most, modes)| (*most, modes.iter().map(|m| mode(*m)).collect()))
            .collect(),
        interfaces: c.interfaces,
        channels: c.channels,
    };
    Phy {
        index: wiphy.index,
        modes: wiphy.modes.iter().map(|m| mode(*m)).filter(|m| *m != Mode::Other).collect(),
        bands: wiphy.bands.iter().filter_map(band).collect(),
        channels: may_begin
            .map(|c| Channel { frequency: c.frequency, ht: wiphy.ht_bands.contains(&c.band) })
            .collect(),
        radar: wiphy.channels.iter().filter(|c| c.radar).map(|c| c.frequency).collect(),
        combinations: wiphy.combinations.iter().map(combination).collect(),
        most_clients: wiphy.max_ap_stations,
        // Where the device authenticates clients itself, hostapd can't do SAE.
        sae_ap: wiphy.protects_management && !wiphy.authenticates,
        sae_mesh: wiphy.protects_management && wiphy.mesh_auth,
        off: off.iter().find(|(name, _)| *name == wiphy.name).map(|(_, block)| match block {
            Block::Soft => Off::Soft,
            Block::Hard => Off::Hard,
        }),
        name: wiphy.name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_wifi_stack_nobody_is_asked() {
        let classes = std::env::temp_dir().join(format!("mesh-radio-class-{}", std::process::id()));
        assert!(may_have_radios(&classes), "no sysfs");
        std::fs::create_dir_all(classes.join("net")).unwrap();
        assert!(!may_have_radios(&classes));
        std::fs::create_dir_all(classes.join("ieee80211")).unwrap();
        assert!(may_have_radios(&classes));
        std::fs::remove_dir_all(&classes).unwrap();
    }

    #[test]
    fn a_peer_is_a_station_with_an_open_link_or_where_there_are_none() {
        let of = |peer_link| nl80211::Station {
            interface: 3,
            mac: [2, 0, 0, 0, 0, 1],
            inactive_ms: None,
            signal: None,
            tx_bitrate: None,
            rx_bitrate: None,
            expected_throughput: None,
            peer_link,
        };
        let peer = |link| station(&of(link)).peer;
        assert!(peer(None) && peer(Some(PeerLink::Established)));
        assert!(!peer(Some(PeerLink::Other(0))) && !peer(Some(PeerLink::Other(5))), "listening, holding");
    }
}

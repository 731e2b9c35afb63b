//! The stations of mesh points: kept up to date from the radio's notifications and from lists asked for now
//! and then, and told on when it matters.
//!
//! A radio notifies when a station comes or is removed, but neither when a peer link opens or closes (with
//! the kernel's own peering, IEEE 802.11-2020 §14.3) nor of signal and rates. So the stations are listed
//! several times a second, though only while somebody wants to know and there are any.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use mesh_types::{Duration, Instant};

/// More stations than this are not followed; later ones are left out and counted.
pub const MAX_STATIONS: usize = 256;

/// Between two lists while there are stations: how late a closed peer link is noticed.
pub const POLL: Duration = Duration::from_millis(250);
/// Between two reports of figures, and between two lists while there is no station.
pub const FIGURES: Duration = Duration::from_secs(2);

/// A station's hardware address.
pub type Mac = [u8; 6];

/// A station in reach. A figure that is `None` is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Kernel index of our interface.
    pub interface: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// Frames pass: its peer link is established.
    pub peer: bool,
    /// Received signal in dBm.
    pub signal: Option<i8>,
    /// Rate of what is sent to it, in bit/s.
    pub tx_bitrate: Option<u64>,
    /// Rate of what comes from it, in bit/s.
    pub rx_bitrate: Option<u64>,
    /// What is expected to get through to it, in bit/s.
    pub expected_throughput: Option<u64>,
    /// Milliseconds since anything came from it.
    pub inactive_ms: Option<u32>,
}

/// What happened outside.
#[derive(Clone, Copy, Debug)]
pub enum StationInput<'a> {
    /// The mesh points there are, by kernel index.
    MeshPoints(&'a BTreeSet<u32>),
    /// Somebody wants to know; or nobody any more.
    Watched(bool),
    /// The whole list of an interface, as asked for by [`StationOutput::List`].
    All {
        /// Whose.
        interface: u32,
        /// All its stations.
        stations: &'a [Station],
    },
    /// The radio tells of a new station.
    New(Station),
    /// The radio tells that a station is gone.
    Gone {
        /// From which interface.
        interface: u32,
        /// Which.
        mac: Mac,
    },
    /// Notifications were lost.
    Resync,
}

/// What has to be done, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StationOutput {
    /// Ask for the stations of an interface and answer with [`StationInput::All`]; with nothing if that
    /// does not work.
    List {
        /// Of which.
        interface: u32,
    },
    /// Tell those who want to know ([`Stations::iter`]).
    Tell,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StationCounters {
    /// Peers that came.
    pub peers_up: u64,
    /// Peers that were lost.
    pub peers_lost: u64,
    /// Lists asked for.
    pub lists: u64,
    /// Stations left out because there were too many.
    pub too_many: u64,
}

/// The stations of all mesh points.
#[derive(Debug, Default)]
pub struct Stations {
    mesh_points: BTreeSet<u32>,
    known: BTreeMap<(u32, Mac), Station>,
    /// Since somebody wants to know: when the next list and the next figures are due.
    due: Option<(Instant, Instant)>,
    outputs: VecDeque<StationOutput>,
    counters: StationCounters,
}

impl Stations {
    /// All stations, by interface.
    pub fn iter(&self) -> impl Iterator<Item = &Station> {
        self.known.values()
    }

    /// The mesh points.
    pub const fn mesh_points(&self) -> &BTreeSet<u32> {
        &self.mesh_points
    }

    /// Counts since the start.
    pub const fn counters(&self) -> &StationCounters {
        &self.counters
    }

    /// Takes one input. What it says of interfaces that are no mesh points is passed over.
    pub fn handle_input(&mut self, now: Instant, input: StationInput<'_>) {
        let before = self.peers();
        match input {
            StationInput::MeshPoints(points) => {
                if self.mesh_points != *points {
                    self.mesh_points = points.clone();
                    self.known.retain(|(interface, _), _| points.contains(interface));
                    self.look_by(now);
                }
            }
            StationInput::Watched(false) => self.due = None,
            StationInput::Watched(true) => {
                if self.due.is_none() {
                    self.due = Some((now, now));
                }
            }
            StationInput::All { interface, stations } => {
                let listed = |mac: &Mac| stations.iter().any(|s| s.mac == *mac && s.interface == interface);
                self.known.retain(|(of, mac), _| *of != interface || listed(mac));
                stations.iter().filter(|s| s.interface == interface).for_each(|s| self.take(*s));
            }
            StationInput::New(station) => {
                self.take(station);
                self.look_by(now);
            }
            StationInput::Gone { interface, mac } => drop(self.known.remove(&(interface, mac))),
            StationInput::Resync => self.look_by(now),
        }
        if !self.known.is_empty() {
            self.look_by(now + POLL);
        }
        let after = self.peers();
        if before != after {
            self.counters.peers_up += after.difference(&before).count() as u64;
            self.counters.peers_lost += before.difference(&after).count() as u64;
            self.tell();
        }
    }

    /// Asks for what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some((list, figures)) = self.due else { return };
        if list > now && figures > now {
            return;
        }
        for interface in self.mesh_points.iter().copied() {
            self.outputs.push_back(StationOutput::List { interface });
            self.counters.lists += 1;
        }
        let again = if self.known.is_empty() { FIGURES } else { POLL };
        let mut next = figures;
        if figures <= now {
            self.tell();
            next = now + FIGURES;
        }
        self.due = Some((now + again, next));
    }

    /// What to do next; `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<StationOutput> {
        self.outputs.pop_front()
    }

    /// When [`Stations::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.filter(|_| !self.mesh_points.is_empty()).map(|(list, figures)| list.min(figures))
    }

    fn take(&mut self, station: Station) {
        let key = (station.interface, station.mac);
        if !self.mesh_points.contains(&station.interface) {
            return;
        }
        if self.known.len() >= MAX_STATIONS && !self.known.contains_key(&key) {
            self.counters.too_many += 1;
            return;
        }
        self.known.insert(key, station);
    }

    fn peers(&self) -> BTreeSet<(u32, Mac)> {
        self.known.iter().filter(|(_, s)| s.peer).map(|(key, _)| *key).collect()
    }

    fn look_by(&mut self, at: Instant) {
        if let Some((list, _)) = &mut self.due {
            *list = (*list).min(at);
        }
    }

    /// Once is enough for all that happened since; a list that was asked for before it comes first.
    fn tell(&mut self) {
        if self.due.is_some() && !self.outputs.contains(&StationOutput::Tell) {
            self.outputs.push_back(StationOutput::Tell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const MESH: u32 = 3;
    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 2];

    fn station(mac: Mac, peer: bool) -> Station {
        Station {
            interface: MESH,
            mac,
            peer,
            signal: Some(-60),
            tx_bitrate: None,
            rx_bitrate: Some(54_000_000),
            expected_throughput: None,
            inactive_ms: Some(10),
        }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_millis(1000 + ms)
    }

    fn drain(s: &mut Stations) -> Vec<StationOutput> {
        core::iter::from_fn(|| s.poll_output()).collect()
    }

    const LIST: StationOutput = StationOutput::List { interface: MESH };
    use StationOutput::Tell;

    /// Watched, with one peer that has been told of.
    fn with_peer() -> Stations {
        let mut s = Stations::default();
        s.handle_input(at(0), StationInput::MeshPoints(&[MESH].into()));
        s.handle_input(at(0), StationInput::Watched(true));
        s.handle_timeout(at(0));
        assert_eq!(drain(&mut s), [LIST, Tell]);
        s.handle_input(at(0), StationInput::All { interface: MESH, stations: &[station(A, true)] });
        assert_eq!(drain(&mut s), [Tell], "a peer is told of at once");
        s
    }

    #[test]
    fn nobody_is_asked_while_nobody_wants_to_know_or_nothing_is_there() {
        let mut s = Stations::default();
        s.handle_input(at(0), StationInput::MeshPoints(&[MESH].into()));
        s.handle_timeout(at(10_000));
        assert_eq!((s.poll_timeout(), drain(&mut s)), (None, Vec::new()));
        s.handle_input(at(0), StationInput::MeshPoints(&BTreeSet::new()));
        s.handle_input(at(0), StationInput::Watched(true));
        assert_eq!(s.poll_timeout(), None, "no mesh point");
        let mut s = with_peer();
        s.handle_input(at(1), StationInput::Watched(false));
        assert_eq!(s.poll_timeout(), None);
    }

    #[test]
    fn lists_are_frequent_only_with_stations_and_figures_come_in_their_own_time() {
        let mut s = with_peer();
        s.handle_timeout(s.poll_timeout().unwrap());
        drain(&mut s);
        let mut tells = Vec::new();
        let mut lists = 0;
        while let Some(t) = s.poll_timeout().filter(|t| *t < at(9_000)) {
            s.handle_timeout(t);
            let out = drain(&mut s);
            lists += out.iter().filter(|o| **o == LIST).count();
            if out.contains(&Tell) {
                tells.push(t);
            }
            s.handle_input(t, StationInput::All { interface: MESH, stations: &[station(A, true)] });
        }
        assert!((30..=45).contains(&lists), "{lists}");
        assert!(
            tells.windows(2).all(|w| w[1].saturating_since(w[0]) == FIGURES) && tells.len() == 4,
            "{tells:?}"
        );
        s.handle_input(at(9_000), StationInput::Gone { interface: MESH, mac: A });
        s.handle_timeout(at(9_000));
        drain(&mut s);
        s.handle_timeout(s.poll_timeout().unwrap());
        assert!(s.poll_timeout().unwrap().saturating_since(at(9_000)) > POLL, "nobody is left");
    }

    #[test]
    fn every_way_to_lose_a_peer_is_told_at_once_and_once() {
        type Way = fn(&mut Stations);
        let ways: [(&str, Way); 4] = [
            ("removed", |s| s.handle_input(at(5), StationInput::Gone { interface: MESH, mac: A })),
            ("not in the list", |s| {
                s.handle_input(at(5), StationInput::All { interface: MESH, stations: &[] })
            }),
            ("closing", |s| {
                let all = [station(A, false)];
                s.handle_input(at(5), StationInput::All { interface: MESH, stations: &all });
            }),
            ("the interface is none", |s| s.handle_input(at(5), StationInput::MeshPoints(&BTreeSet::new()))),
        ];
        for (name, lose) in ways {
            let mut s = with_peer();
            lose(&mut s);
            assert_eq!(drain(&mut s), [Tell], "{name}");
            assert!(s.iter().all(|x| !x.peer), "{name}");
            lose(&mut s);
            assert_eq!(drain(&mut s), [], "{name}");
            assert_eq!((s.counters().peers_up, s.counters().peers_lost), (1, 1), "{name}");
        }
    }

    #[test]
    fn a_new_station_is_looked_at_at_once() {
        let mut s = with_peer();
        s.handle_timeout(s.poll_timeout().unwrap());
        drain(&mut s);
        s.handle_input(at(20), StationInput::New(station(B, false)));
        assert_eq!(drain(&mut s), [], "only heard");
        assert_eq!(s.poll_timeout(), Some(at(20)));
        s.handle_input(at(30), StationInput::Resync);
        s.handle_timeout(at(30));
        assert_eq!(drain(&mut s), [LIST]);
    }

    #[test]
    fn other_interfaces_and_a_crowd_do_no_harm() {
        let mut s = with_peer();
        let other = Station { interface: 9, ..station(B, true) };
        s.handle_input(at(1), StationInput::New(other));
        s.handle_input(at(1), StationInput::All { interface: 9, stations: &[other] });
        s.handle_input(at(1), StationInput::All { interface: MESH, stations: &[station(A, true), other] });
        s.handle_input(at(1), StationInput::Gone { interface: 9, mac: A });
        assert_eq!((drain(&mut s), s.iter().count()), (Vec::new(), 1));
        let crowd: Vec<Station> =
            (0..2000u16).map(|n| station([6, 0, 0, 0, (n >> 8) as u8, n as u8], true)).collect();
        let all: Vec<Station> = crowd.into_iter().chain([station(A, true)]).collect();
        s.handle_input(at(2), StationInput::All { interface: MESH, stations: &all });
        assert_eq!(s.iter().count(), MAX_STATIONS);
        assert!(s.iter().any(|x| x.mac == A), "who was there stays");
        assert_eq!(s.counters().too_many, 2001 - MAX_STATIONS as u64);
        assert_eq!(drain(&mut s), [Tell]);
    }
}

//! What radios say of their stations, as news for the cores: a peer that is no longer one is a lost link, and
//! its figures are the metric's.
//!
//! Reports name hardware addresses, the cores name neighbours by their addresses on the link. The kernel's
//! neighbour table leads from one to the other; where it knows nothing yet, a link-local address made from the
//! hardware address (RFC 4291 Appendix A) does.

use std::collections::BTreeSet;
use std::net::IpAddr;

use mesh_ipc::radio::{MAX_STATIONS, Station};
use olsrv2::LinkQuality;

/// A station's hardware address.
pub(crate) type Mac = [u8; 6];

/// No radio is faster, in bit/s.
const FASTEST: u64 = 1_000_000_000_000;

/// Peers as last reported.
#[derive(Debug, Default)]
pub(crate) struct Stations {
    peers: BTreeSet<(u32, Mac)>,
    pub(crate) counters: StationCounters,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StationCounters {
    /// Reports that came.
    pub(crate) reports: u64,
    /// Peers that a report no longer had.
    pub(crate) lost: u64,
    /// Stations passed over: of an interface that is not the mesh's, or too many.
    pub(crate) ignored: u64,
}

/// What a report means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Peers that are gone.
    pub(crate) lost: Vec<(u32, Mac)>,
    /// What is known of those that are there.
    pub(crate) quality: Vec<(u32, Mac, LinkQuality)>,
}

impl Stations {
    /// Takes a report: all stations there are. `ours` tells whether an interface is the mesh's, by index
    /// and name (an index that has another name by now is another interface).
    pub(crate) fn take(&mut self, report: &[Station], ours: impl Fn(u32, &str) -> bool) -> News {
        self.counters.reports += 1;
        let mut news = News::default();
        let mut peers = BTreeSet::new();
        for station in report {
            if !ours(station.index, &station.interface) || peers.len() >= MAX_STATIONS {
                self.counters.ignored += 1;
            } else if station.peer && peers.insert((station.index, station.mac)) {
                news.quality.push((station.index, station.mac, quality(station)));
            }
        }
        news.lost = self.peers.difference(&peers).copied().collect();
        self.counters.lost += news.lost.len() as u64;
        self.peers = peers;
        news
    }

    /// The reports have ended: the next one is a first one, from which nobody is missing.
    pub(crate) fn forget(&mut self) {
        self.peers.clear();
    }

    /// The number of peers.
    pub(crate) fn peers(&self) -> usize {
        self.peers.len()
    }
}

fn quality(station: &Station) -> LinkQuality {
    // The metric is of the incoming direction (RFC 7779 §6). Until a data frame came in, the rate of the
    // other one is the best guess: rate control on both sides sees the same path.
    let rate = station.rx_bitrate.or(station.tx_bitrate);
    LinkQuality {
        bitrate_in: rate.filter(|r| (1..=FASTEST).contains(r)),
        signal: station.signal.filter(|s| *s < 0),
        ..LinkQuality::default()
    }
}

/// Whether the neighbour `address` of an interface is the station `mac`. `table` is what the kernel knows of
/// that interface's neighbours.
pub(crate) fn is_station(address: IpAddr, mac: Mac, table: &[(IpAddr, Mac)]) -> bool {
    match table.iter().find(|(ip, _)| *ip == address) {
        Some((_, known)) => *known == mac,
        None => {
            matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local() && ip.octets().ends_with(&eui64(mac)))
        }
    }
}

/// The modified EUI-64 interface identifier.
const fn eui64([a, b, c, d, e, f]: Mac) -> [u8; 8] {
    [a ^ 2, b, c, 0xff, 0xfe, d, e, f]
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [2, 0, 0, 0, 1, 0];
    const B: Mac = [2, 0, 0, 0, 2, 0];

    fn station(index: u32, mac: Mac) -> Station {
        Station {
            index,
            interface: format!("mesh{index}"),
            mac,
            peer: true,
            signal: Some(-60),
            tx_bitrate: Some(6_000_000),
            rx_bitrate: Some(54_000_000),
            expected_throughput: None,
            inactive_ms: Some(3),
        }
    }

    fn ours(index: u32, name: &str) -> bool {
        index == 3 && name == "mesh3"
    }

    #[test]
    fn who_was_a_peer_and_is_none_is_lost_once() {
        let mut stations = Stations::default();
        let both = [station(3, A), station(3, B)];
        let news = stations.take(&both, ours);
        assert_eq!((news.lost.len(), news.quality.len()), (0, 2));
        let closing = [Station { peer: false, ..station(3, A) }, station(3, B)];
        assert_eq!(stations.take(&closing, ours).lost, [(3, A)]);
        assert_eq!(stations.take(&closing, ours).lost, []);
        assert_eq!(stations.take(&[], ours).lost, [(3, B)]);
        stations.take(&both, ours);
        stations.forget();
        assert_eq!(stations.take(&[], ours), News::default(), "a first report");
        assert_eq!(stations.counters.lost, 2);
    }

    #[test]
    fn reports_about_other_interfaces_and_too_many_are_passed_over() {
        let mut stations = Stations::default();
        let renamed = Station { interface: "eth0".into(), ..station(3, A) };
        let news = stations.take(&[station(4, A), renamed], ours);
        assert_eq!((news, stations.counters.ignored), (News::default(), 2));
        let many: Vec<Station> =
            (0..1000u16).map(|n| station(3, [2, 0, 0, 0, (n >> 8) as u8, n as u8])).collect();
        assert_eq!(stations.take(&many, ours).quality.len(), MAX_STATIONS);
        assert_eq!(stations.peers(), MAX_STATIONS);
        let twice = [station(3, A), station(3, A)];
        assert_eq!(stations.take(&twice, ours).quality.len(), 1);
    }

    #[test]
    fn figures_that_cannot_be_are_left_out() {
        let of = |s: Station| quality(&s);
        let good = of(station(3, A));
        assert_eq!((good.bitrate_in, good.signal), (Some(54_000_000), Some(-60)));
        let outgoing = Station { rx_bitrate: None, ..station(3, A) };
        assert_eq!(of(outgoing).bitrate_in, Some(6_000_000));
        for rate in [0, u64::MAX] {
            assert_eq!(of(Station { rx_bitrate: Some(rate), ..station(3, A) }).bitrate_in, None);
        }
        assert_eq!(of(Station { signal: Some(12), ..station(3, A) }).signal, None);
    }

    #[test]
    fn rfc4291_a_the_kernels_table_comes_before_the_address() {
        let ip = |t: &str| t.parse::<IpAddr>().unwrap();
        let table = [(ip("fe80::77"), A), (ip("10.64.0.7"), A), (ip("fe80::ff:fe00:200"), A)];
        assert!(is_station(ip("fe80::77"), A, &table) && is_station(ip("10.64.0.7"), A, &table));
        assert!(!is_station(ip("fe80::77"), B, &table));
        assert!(is_station(ip("fe80::ff:fe00:100"), A, &table), "not in the table");
        assert!(!is_station(ip("fe80::ff:fe00:200"), B, &table), "in the table, as another one");
        assert!(!is_station(ip("fd00::ff:fe00:100"), A, &table), "not of the link");
        assert!(!is_station(ip("10.64.0.8"), A, &table));
    }
}

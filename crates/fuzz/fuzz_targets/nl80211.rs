//! What radios tell: notifications of stations, and the answers about radios and interfaces.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mesh_sys::netlink::nl80211::{Event, read_events, read_radios};

/// The corpus has this number for nl80211; the kernel chooses it at run time.
const FAMILY: u16 = 28;

fuzz_target!(|bytes: &[u8]| {
    for event in read_events(bytes, FAMILY) {
        if let Event::Station(s) | Event::StationGone(s) = event {
            assert!(s.interface != 0 && s.signal.is_none_or(|signal| signal < 0));
            assert!(s.rx_bitrate.is_none_or(|rate| rate > 0));
        }
    }
    if let Ok((radios, _)) = read_radios(bytes) {
        assert!(radios.is_sorted_by_key(|r| r.index));
    }
});

//! What nodes flood of updates: what parses is written again to the same bytes, and whatever comes, in whatever order, the
//! tables stay within bounds.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mesh_types::{Duration, Instant, NodeId};
use update_core::{Fleet, FleetConfig, FleetInput, Offer, Offers, Policy, Report, test_keys};

fuzz_target!(|bytes: &[u8]| {
    if let Some(report) = Report::parse(bytes) {
        assert_eq!(&report.encode()[..], bytes);
    }
    if let Some(offer) = Offer::parse(bytes) {
        assert_eq!(offer.encode(), bytes);
    }
    let (me, mut now) = (NodeId::from_digest([1; 32]), Instant::ZERO);
    let (share, settle, patience) = (20, Duration::from_secs(6), Duration::from_secs(300));
    let mut fleet = Fleet::new(FleetConfig { me, share, settle, patience }, now);
    let mut offers = Offers::new(me, Policy { keys: test_keys().to_vec(), ..Policy::default() }, now);
    // Each record: from which node, after how many seconds, how long it is.
    let mut rest = bytes;
    while let Some((&[node, pause, high, low], more)) = rest.split_first_chunk::<4>() {
        let (payload, more) = more.split_at(usize::from(u16::from_be_bytes([high, low])).min(more.len()));
        rest = more;
        now = now + Duration::from_secs(pause.into());
        let node = NodeId::from_digest([node; 32]);
        match payload {
            [] => fleet.handle_input(now, FleetInput::Gone(node)),
            [b'i', release] => fleet.handle_input(now, FleetInput::Installed((*release).into())),
            [b'b', release, n] => fleet.handle_input(now, FleetInput::WentBack((*release).into(), *n)),
            [b'r', release] => fleet.handle_input(now, FleetInput::Resume((*release).into())),
            [b'h', release] => offers.set_have((*release).into()),
            _ => {}
        }
        if let Some(report) = Report::parse(payload) {
            fleet.handle_input(now, FleetInput::Report(node, report));
        }
        offers.came(now, node, payload);
        fleet.handle_timeout(now);
        offers.handle_timeout(now);
        if let Some(best) = offers.best(now).cloned() {
            if pause % 2 == 0 { offers.failed(now, &best) } else { offers.refused(&best, Some(u64::from(pause))) }
        }
        while fleet.poll_output().is_some() {}
        assert!(fleet.own().resumed <= fleet.own().stops);
    }
});

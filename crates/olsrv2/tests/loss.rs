//! Lost multicasts and silent cuts: steady where links are good, quick where they are gone. Whole meshes that
//! lose packets: mesh-sim/tests/loss.rs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod net;

use mesh_types::Duration;
use net::{Net, originator};
use olsrv2::{Config, Input, LinkStatus, MetricMode, NetAddr, Timing};

const SECOND: Duration = Duration::from_secs(1);

fn dat(timing: Timing) -> impl Fn(&mut Config) {
    move |c| {
        c.timing = timing;
        c.metric = MetricMode::Dat;
    }
}

#[test]
fn a_link_is_kept_while_half_of_its_hellos_are_lost() {
    for seed in 0..5 {
        let mut net = Net::new(seed);
        for _ in 0..2 {
            net.add(dat(Timing::RFC7181));
        }
        net.connect(0, 1);
        net.run_for(SECOND.times(20));
        net.set_loss(102);
        for _ in 0..600 {
            net.run_for(SECOND);
            assert!(
                net.nodes[0].router.neighbors().all(|n| n.status == LinkStatus::Symmetric),
                "{}",
                net.describe()
            );
        }
        assert!(net.probes > 0);
    }
}

/// Times from a cut that nobody reports to the new routes, over all seeds.
fn cut_times(timing: Timing, seeds: u64) -> Vec<Duration> {
    let mut all = Vec::new();
    for seed in 0..seeds {
        let mut net = Net::new(seed);
        for _ in 0..8 {
            net.add(dat(timing));
        }
        (0..8).for_each(|i| net.connect(i, (i + 1) % 8));
        net.run_for(SECOND.times(15) + Duration::from_millis(seed * 137));
        assert!(net.is_converged());
        net.cut(3, 4);
        let ends = |net: &Net| {
            net.trace(3, NetAddr::host(originator(4))).is_some()
                && net.trace(4, NetAddr::host(originator(3))).is_some()
        };
        all.push(net.run_while_not(SECOND.times(30), ends));
    }
    all.sort();
    all
}

#[test]
fn a_silent_cut_is_noticed_in_four_seconds_and_in_two_with_the_fast_profile() {
    for (timing, limit) in [(Timing::RFC7181, 4000), (Timing::FAST, 2000)] {
        let times = cut_times(timing, 100);
        let p95 = times[times.len() * 95 / 100 - 1];
        assert!(p95 <= Duration::from_millis(limit), "{times:?}");
    }
}

#[test]
fn a_node_that_leaves_is_missed_at_once() {
    let mut net = Net::new(4);
    for _ in 0..8 {
        net.add(dat(Timing::RFC7181));
    }
    (0..8).for_each(|i| net.connect(i, (i + 1) % 8));
    net.run_for(SECOND.times(15));
    net.input(3, Input::Leave);
    net.nodes[3].up = false;
    let way = |net: &Net| net.trace(2, NetAddr::host(originator(4))).is_some_and(|path| !path.contains(&3));
    let took = net.run_while_not(SECOND.times(30), way);
    assert!(took <= SECOND.times(2), "{took}");
}

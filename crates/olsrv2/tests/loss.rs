//! Lost multicasts and silent cuts: steady where links are good, quick where they are gone.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod net;

use mesh_types::Duration;
use net::{Net, originator};
use nhdp::Rng;
use olsrv2::{Config, Input, LinkStatus, MetricMode, NetAddr, Timing};

const SECOND: Duration = Duration::from_secs(1);

/// Random places, ten neighbours on average away from the border, connected.
fn geometric(seed: u64, n: usize, change: impl Fn(&mut Config)) -> Net {
    let mut rng = Rng::new(seed);
    let mut unit = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let side = (n as f64 * std::f64::consts::PI / 10.0).sqrt();
    loop {
        let places: Vec<(f64, f64)> = (0..n).map(|_| (unit() * side, unit() * side)).collect();
        let near = |a: usize, b: usize| (places[a].0 - places[b].0).hypot(places[a].1 - places[b].1) <= 1.0;
        let mut net = Net::new(seed);
        for _ in 0..n {
            net.add(&change);
        }
        (0..n)
            .flat_map(|b| (0..b).map(move |a| (a, b)))
            .filter(|(a, b)| near(*a, *b))
            .for_each(|(a, b)| net.connect(a, b));
        if net.distances(0).iter().all(Option::is_some) {
            return net;
        }
    }
}

fn dat(timing: Timing) -> impl Fn(&mut Config) {
    move |c| {
        c.timing = timing;
        c.metric = MetricMode::Dat;
    }
}

#[derive(Debug, Default)]
struct Figures {
    /// Route changes per node and minute.
    events: f64,
    /// Pairs with a way, of all pairs in all samples.
    reached: f64,
    /// Samples in which a packet would have gone in a circle.
    loops: usize,
}

fn circles(net: &Net, from: usize, to: usize) -> bool {
    // A trace that does not end where a route is missing has gone round.
    let to = NetAddr::host(originator(to));
    let mut at = from;
    for _ in 0..=net.nodes.len() {
        let Some(route) = net.nodes[at].fib.get(&to) else { return false };
        let Some(next) = (0..net.nodes.len()).find(|n| net::link_local(*n) == route.next_hop) else {
            return false;
        };
        at = next;
        if to.contains(originator(at)) {
            return false;
        }
    }
    true
}

fn watch(net: &mut Net, seconds: u64) -> Figures {
    let n = net.nodes.len();
    let before: usize = net.nodes.iter().map(|n| n.route_changes).sum();
    let mut f = Figures::default();
    let mut pairs = 0usize;
    let mut reached = 0usize;
    for _ in 0..seconds {
        net.run_for(SECOND);
        let mut circle = false;
        for from in 0..n {
            for to in (0..n).filter(|to| *to != from) {
                pairs += 1;
                let there = net.trace(from, NetAddr::host(originator(to))).is_some();
                reached += usize::from(there);
                circle |= !there && circles(net, from, to);
            }
        }
        f.loops += usize::from(circle);
    }
    let after: usize = net.nodes.iter().map(|n| n.route_changes).sum();
    let minutes = seconds as f64 / 60.0 * n as f64;
    f.events = (after - before) as f64 / minutes;
    f.reached = reached as f64 / pairs as f64;
    f
}

#[test]
fn a_fifth_of_all_multicasts_lost_leaves_routes_as_they_are() {
    let mut net = geometric(2, 25, dat(Timing::RFC7181));
    net.run_for(SECOND.times(20));
    net.set_loss(51);
    let f = watch(&mut net, 60);
    assert!(f.events <= 20.0 && f.reached > 0.999 && f.loops == 0, "{f:?}");
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
        let times = cut_times(timing, 20);
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

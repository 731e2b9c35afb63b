//! A fifth of all multicasts lost, on many graphs: what holds on average, and what in the worst case.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use mesh_sim::Shape;
use mesh_sim::scenario::Scenario;

/// Seeds, each another graph and other losses.
const SEEDS: u64 = 12;

/// From power-on in the midst of the losses; measured from 20 s after all had routes to all (or after a minute
/// if they never had) until 140 s. Where a TC is lost on its way to a router at the edge, that router waits for
/// the next, 40 s: that is the worst case.
#[test]
fn a_fifth_of_all_multicasts_lost_leaves_routes_as_they_are() {
    let mut all = Vec::new();
    for seed in 1..=SEEDS {
        let shape = Shape::Geometric { degree: 10.0 };
        let report = Scenario { loss: 0.2, ..Scenario::new(shape, 25, seed, 140) }.run();
        assert!(report.broken.is_empty(), "seed {seed}: {:?}", report.broken);
        let reached = report.arrive as f64 / report.possible as f64;
        let minutes = report.quiet.as_micros() as f64 / 60e6 * 25.0;
        all.push((reached, report.traffic.route_changes as f64 / minutes, report.loop_samples, seed));
    }
    let mean = |of: fn(&(f64, f64, u64, u64)) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    let (reached, events) = (mean(|r| r.0), mean(|r| r.1));
    let complete = all.iter().filter(|r| r.0 == 1.0).count();
    println!(
        "mean reach {reached:.5}, {complete} of {SEEDS} complete, mean route events {events:.2}: {all:?}"
    );
    // Measured over 30 seeds: mean 0.9995, worst 0.989, 26 complete, events 1.4 on average, 7.7 at the most.
    assert!(reached > 0.997 && complete >= 9, "{reached} {complete} {all:?}");
    assert!(all.iter().all(|r| r.0 > 0.97), "{all:?}");
    assert!(all.iter().all(|r| r.1 <= 20.0) && events < 4.0, "{events} {all:?}");
    assert!(all.iter().all(|r| r.2 == 0), "loops: {all:?}");
}

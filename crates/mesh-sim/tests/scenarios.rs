//! Whole meshes, small enough for a debug build. The large ones run in the stage `sim` (ci/run-tests).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use mesh_sim::scenario::{Event, Report, Scenario};
use mesh_sim::{Field, RADIO, Settings, Shape, Sim};
use mesh_types::Duration;
use olsrv2::{MetricMode, Timing};

const SECOND: Duration = Duration::from_secs(1);
const RGG: Shape = Shape::Geometric { degree: 9.0 };

fn sound(scenario: &Scenario) -> Report {
    let report = scenario.run();
    assert!(report.broken.is_empty(), "{:?}\n{report}{}", report.broken, scenario.command());
    report
}

#[test]
fn every_shape_settles_and_stays_on_shortest_paths() {
    for (shape, n) in [(Shape::Line, 12), (Shape::Ring, 12), (Shape::Grid, 16), (Shape::Full, 8), (RGG, 25)] {
        for seed in 0..2 {
            let report = sound(&Scenario::new(shape, n, seed, 40));
            assert_eq!(report.arrive, report.possible);
            assert_eq!(report.traffic.route_changes, 0, "nothing changes in a mesh that stands still");
        }
    }
}

#[test]
fn every_event_settles() {
    let (dat, hop) = (MetricMode::Dat, MetricMode::HopCount);
    for (shape, timing, metric) in [
        (RGG, Timing::STEADY, dat),
        (RGG, Timing::RFC7181, hop),
        (Shape::Ring, Timing::STEADY, hop),
        (Shape::Grid, Timing::FAST, dat),
    ] {
        let then = Event::NAMES.iter().map(|(_, e)| *e).collect();
        let report = sound(&Scenario { timing, metric, then, ..Scenario::new(shape, 16, 3, 30) });
        assert!(report.settled.iter().all(|(_, took, _)| took.is_some()));
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let run = |threads, seed| {
        let then = vec![Event::Storm, Event::Part, Event::Heal];
        let scenario = Scenario { threads, loss: 0.1, speed: 0.02, then, ..Scenario::new(RGG, 15, seed, 20) };
        scenario.run().digest
    };
    let one = run(1, 7);
    assert_eq!(one, run(2, 7));
    assert_eq!(one, run(3, 7));
    assert_ne!(one, run(1, 8));
}

#[test]
fn clocks_that_differ_and_staggered_starts_do_no_harm() {
    let power_on = SECOND.times(5);
    sound(&Scenario { skew_ppm: 50_000, power_on, ..Scenario::new(RGG, 20, 5, 60) });
}

#[test]
fn no_lasting_loop_while_nodes_move_and_packets_get_lost() {
    let moving = Scenario { speed: 0.05, uneven_loss: 0.2, ..Scenario::new(RGG, 25, 2, 60) };
    sound(&moving);
}

#[test]
fn a_link_that_works_one_way_only_carries_nothing() {
    let mut sim = Sim::build(Settings::new(4), Shape::Line, 3, Timing::RFC7181);
    sim.connect_one_way((0, RADIO), (2, RADIO), 0.0);
    sim.run_while_not(SECOND.times(20), Sim::is_converged);
    let to = olsrv2::NetAddr::host(sim.originator(2));
    assert_eq!(sim.trace(0, to).unwrap(), [0, 1, 2]);
}

#[test]
fn a_field_is_the_same_for_the_same_seed() {
    assert_eq!(Field::new(1, 30, 8.0).edges(), Field::new(1, 30, 8.0).edges());
}

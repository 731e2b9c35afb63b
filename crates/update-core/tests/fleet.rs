//! Simulated fleets: every node gets a good update while no neighbourhood goes dark; a bad one stops where it began.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;

use common::Random;
use mesh_types::{Duration, Instant, NodeId};
use update_core::{Fleet, FleetConfig, FleetInput, FleetOutput, Phase, Report};

const SHARE: usize = 20;
const TICK_MS: u64 = 200;

/// What becomes of a node that restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Good,
    /// It comes back with the old system.
    GoesBack,
    /// It never comes back.
    Dies,
}

struct Node {
    id: NodeId,
    fleet: Fleet,
    installed_at: u64,
    /// Down, until then.
    back_at: Option<u64>,
    running: u64,
    tried: u64,
    /// The number that a failure of its present try has.
    attempt: u8,
}

struct Sim {
    now: u64,
    nodes: Vec<Node>,
    links: Vec<(usize, usize)>,
    /// Reports on their way: when, to whom, from whom.
    floods: Vec<(u64, usize, usize, Report)>,
    random: Random,
    most_down: usize,
}

impl Sim {
    fn new(seed: u64, count: usize) -> Self {
        let mut random = Random(seed);
        // Nodes strewn over a square; each is linked to those near it, and to the one before, so that all are joined.
        let places: Vec<(i64, i64)> =
            (0..count).map(|_| (random.below(1000) as i64, random.below(1000) as i64)).collect();
        let near = |a: (i64, i64), b: (i64, i64)| (a.0 - b.0).pow(2) + (a.1 - b.1).pow(2) < 220 * 220;
        let mut links = Vec::new();
        for a in 0..count {
            links.extend(
                (a + 1..count).filter(|b| *b == a + 1 || near(places[a], places[*b])).map(|b| (a, b)),
            );
        }
        let ids: Vec<NodeId> = (0..count as u64)
            .map(|_| NodeId::from_digest(std::array::from_fn(|_| random.next() as u8)))
            .collect();
        let named: Vec<(NodeId, NodeId)> = links.iter().map(|(a, b)| (ids[*a], ids[*b])).collect();
        let nodes = ids.iter().map(|id| {
            let config = FleetConfig {
                me: *id,
                share: SHARE as u8,
                settle: Duration::from_secs(6),
                patience: Duration::from_secs(300),
            };
            let mut fleet = Fleet::new(config, Instant::ZERO);
            fleet.handle_input(Instant::ZERO, FleetInput::Confirmed(1));
            fleet.handle_input(Instant::ZERO, FleetInput::Links(&named));
            Node {
                id: *id,
                fleet,
                installed_at: 10_000 + random.below(120_000),
                back_at: None,
                running: 1,
                tried: 0,
                attempt: 0,
            }
        });
        let nodes = nodes.collect();
        Self { now: 0, nodes, links, floods: Vec::new(), random, most_down: 0 }
    }

    fn input(&mut self, at: usize, input: FleetInput<'_>) {
        self.nodes[at].fleet.handle_input(Instant::from_millis(self.now), input);
        self.drain(at);
    }

    fn drain(&mut self, at: usize) {
        while let Some(output) = self.nodes[at].fleet.poll_output() {
            match output {
                FleetOutput::Publish(report) => {
                    assert_eq!(Report::parse(&report.encode()), Some(report));
                    for to in 0..self.nodes.len() {
                        let when = self.now + 50 + self.random.below(2_500);
                        self.floods.push((when, to, at, report));
                    }
                }
                FleetOutput::Restart => {
                    self.nodes[at].back_at = Some(self.now + 20_000 + self.random.below(60_000));
                    self.nodes[at].tried += 1;
                    self.nodes[at].attempt = self.nodes[at].fleet.known(2).0 + 1;
                }
            }
        }
    }

    /// Nobody has more neighbours down than allowed.
    fn check(&mut self) {
        for y in 0..self.nodes.len() {
            let group: BTreeSet<usize> = self
                .links
                .iter()
                .filter_map(|(a, b)| {
                    if *a == y {
                        Some(*b)
                    } else if *b == y {
                        Some(*a)
                    } else {
                        None
                    }
                })
                .collect();
            let down = group.iter().filter(|n| self.nodes[**n].back_at.is_some()).count();
            let limit = (group.len() * SHARE / 100).max(1);
            assert!(
                down <= limit,
                "{down} of {} neighbours of node {y} are down at {} ms",
                group.len(),
                self.now
            );
            assert!(down < group.len() || group.len() < 2, "all neighbours of node {y} are down");
        }
        let down = self.nodes.iter().filter(|n| n.back_at.is_some()).count();
        self.most_down = self.most_down.max(down);
    }

    fn step(&mut self, fate: &dyn Fn(usize) -> Fate) {
        self.now += TICK_MS;
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.floods).into_iter().partition(|f| f.0 <= now);
        self.floods = later;
        let mut due: Vec<(u64, usize, usize, Report)> = due;
        due.sort_by_key(|f| (f.0, f.1, f.2));
        for (_, to, from, report) in due {
            let id = self.nodes[from].id;
            // Of a node's reports the newest counts: an old one that comes late is dropped, as the router does.
            if to != from && *self.nodes[from].fleet.own() == report && self.nodes[to].back_at.is_none() {
                self.input(to, FleetInput::Report(id, report));
            }
        }
        for at in 0..self.nodes.len() {
            if (1..=now).contains(&self.nodes[at].installed_at) {
                self.nodes[at].installed_at = 0;
                self.input(at, FleetInput::Installed(2));
            }
            if self.nodes[at].fleet.poll_timeout().is_some_and(|t| t <= Instant::from_millis(now)) {
                self.nodes[at].fleet.handle_timeout(Instant::from_millis(now));
                self.drain(at);
            }
            if self.nodes[at].back_at.is_some_and(|t| t <= now) {
                let fate = fate(at);
                if fate == Fate::Dies {
                    continue;
                }
                self.nodes[at].back_at = None;
                // It hears again what all others said last.
                for other in 0..self.nodes.len() {
                    let (id, report) = (self.nodes[other].id, *self.nodes[other].fleet.own());
                    self.input(at, FleetInput::Report(id, report));
                }
                if fate == Fate::Good {
                    self.nodes[at].running = 2;
                    self.input(at, FleetInput::Confirmed(2));
                } else {
                    self.input(at, FleetInput::WentBack(2, self.nodes[at].attempt));
                }
            }
        }
        self.check();
    }

    fn run(&mut self, until: u64, fate: &dyn Fn(usize) -> Fate) {
        while self.now < until && self.nodes.iter().any(|n| n.running != 2) {
            self.step(fate);
        }
    }

    fn updated(&self) -> usize {
        self.nodes.iter().filter(|n| n.running == 2).count()
    }
}

#[test]
fn a_good_update_reaches_all_and_no_neighbourhood_goes_dark() {
    for (seed, count) in [(1, 60), (2, 25), (3, 2), (4, 40)] {
        let mut sim = Sim::new(seed, count);
        sim.run(4 * 3_600_000, &|_| Fate::Good);
        assert_eq!(sim.updated(), count, "seed {seed} at {} ms", sim.now);
        assert!(sim.nodes.iter().all(|n| n.tried == 1 && n.fleet.stopped_by().is_none()));
        eprintln!("{count} nodes: {} s, at most {} down at once", sim.now / 1000, sim.most_down);
        assert!(count < 20 || sim.most_down > 1, "it is no procession of one");
    }
}

#[test]
fn a_bad_update_stops_where_it_began_until_a_person_resumes_it() {
    for (seed, fate) in [(5, Fate::GoesBack), (6, Fate::Dies), (7, Fate::GoesBack)] {
        let mut sim = Sim::new(seed, 50);
        sim.run(3_600_000, &|_| fate);
        let tried = sim.nodes.iter().filter(|n| n.tried > 0).count();
        eprintln!("{fate:?}: {tried} of 50 tried");
        assert!(sim.updated() == 0 && tried <= 3, "{tried} nodes tried a bad update");
        let tried_at = sim.now;
        let alive: Vec<usize> = (0..50).filter(|n| sim.nodes[*n].back_at.is_none()).collect();
        for at in &alive {
            assert_eq!(sim.nodes[*at].fleet.stopped_by(), Some(2), "everybody knows");
            assert_ne!(sim.nodes[*at].fleet.own().phase, Phase::Claim);
        }
        if fate == Fate::GoesBack {
            // A person says on one node that it goes on; it fails again, and everybody stops again.
            sim.input(alive[0], FleetInput::Resume(2));
            sim.run(tried_at + 3_600_000, &|_| fate);
            let again = sim.nodes.iter().filter(|n| n.tried > 0).count();
            assert!(again > tried && again <= tried + 3 && sim.updated() == 0, "{again} after {tried}");
            assert!(alive.iter().all(|at| sim.nodes[*at].fleet.stopped_by() == Some(2)));
            // It was a mistake: all others take it now.
            sim.input(alive[1], FleetInput::Resume(2));
            sim.run(tried_at + 4 * 3_600_000, &|_| Fate::Good);
            assert_eq!(sim.updated() + again, 50);
        }
    }
}

#[test]
fn reports_that_are_none() {
    let report = Report { phase: Phase::Fetch, percent: 100, running: 1, target: 2, stops: 4, resumed: 3 };
    let bytes = report.encode();
    assert_eq!(Report::parse(&bytes), Some(report));
    for bad in [
        &bytes[..21],
        &[],
        &[bytes.as_slice(), &[0]].concat(),
        &[&[2, 5], &bytes[2..]].concat(),
        &[&[1, 1], &bytes[2..]].concat(),
        &[&[2, 1, 101], &bytes[3..]].concat(),
        &[&[2, 1, 7, 0, 0, 1], &bytes[6..]].concat(),
        &[&[2, 1, 7, 1, 2, 0], &bytes[6..]].concat(),
    ] {
        assert_eq!(Report::parse(bad), None);
    }
}

/// Of releases that nobody wants here nothing is kept, and whoever counts failures to the end stops the fleet and
/// silences nobody.
#[test]
fn a_liar_can_stop_a_release_and_no_more() {
    let config = FleetConfig {
        me: NodeId::from_digest([1; 32]),
        share: 20,
        settle: Duration::from_secs(6),
        patience: Duration::from_secs(300),
    };
    let (liar, mut fleet) = (NodeId::from_digest([2; 32]), Fleet::new(config, Instant::ZERO));
    fleet.handle_input(Instant::ZERO, FleetInput::Installed(2));
    let report =
        Report { phase: Phase::Idle, percent: 0, running: 1, target: u64::MAX, stops: 9, resumed: 0 };
    fleet.handle_input(Instant::ZERO, FleetInput::Report(liar, report));
    assert_eq!((fleet.own().stops, fleet.stopped_by()), (0, None));
    let report = Report { target: 2, stops: 255, resumed: 255, ..report };
    fleet.handle_input(Instant::ZERO, FleetInput::Report(liar, report));
    assert_eq!(fleet.stopped_by(), Some(2));
    fleet.handle_input(Instant::ZERO, FleetInput::Gone(liar));
    assert_eq!(fleet.offline().count(), 1);
}

//! The tests, each a list of steps on nodes of its own.

mod across;
mod byhand;
mod cable;
mod common;
mod content;
mod dns;
mod duplicate;
mod figures;
mod flows;
mod gateways;
mod grid;
mod groups;
mod interop;
mod keys;
mod line;
mod names;
mod pair;
mod phone;
mod radio;
mod recorded;
mod records;
mod restart;
mod ring;
mod routes;
mod scan;
mod secured;
mod spread;
mod wedged;
mod wireless;

use mesh_lab::lab::Lab;
use mesh_lab::report::Report;

/// A test: builds what it needs in the lab and reports its steps.
pub(crate) type Test = fn(&mut Lab, &mut Report);

/// The same with the timers that ship.
fn steady(lab: &mut Lab, report: &mut Report, test: Test) {
    lab.set_steady();
    test(lab, report);
}

/// Every test, in the order they run.
pub(crate) const ALL: &[(&str, Test)] = &[
    ("names", names::run),
    ("interop", interop::run),
    ("across", across::run),
    ("dns", dns::run),
    ("pair", pair::run),
    ("routes", routes::run),
    ("routes-steady", |lab, report| steady(lab, report, routes::run)),
    ("gateways", gateways::run),
    ("gateways-steady", |lab, report| steady(lab, report, gateways::run)),
    ("flows", flows::run),
    ("cable", cable::run),
    ("scan", scan::run),
    ("duplicate", duplicate::run),
    ("records", records::run),
    ("replayed", recorded::run),
    ("restart", restart::run),
    ("keys", keys::run),
    ("ring", ring::run),
    ("line-of-three", line::run),
    ("content", content::run),
    ("grid-of-25", grid::run),
    ("updates-of-25", spread::run),
];

/// Those that need radios, see `ci/radio`.
pub(crate) const RADIO: &[(&str, Test)] = &[
    ("radio", radio::run),
    ("phone", phone::run),
    ("secured", secured::run),
    ("wedged", wedged::run),
    ("groups", groups::run),
    ("byhand", byhand::run),
];

/// Figures of radios, likewise.
pub(crate) const RADIO_FIGURES: &[(&str, Test)] = &[("figures", figures::run)];

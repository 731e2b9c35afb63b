//! Namespace lab: many nodes on one host, each in a network namespace of its own, running the real
//! binaries (test tool, level 5).
//!
//! [`isolate::enter`] starts the program again inside a PID and user namespace, so that everything it
//! starts ends with it whatever happens. A [`lab::Lab`] makes nodes and cables; [`probe`] looks from inside
//! a node; [`report`] prints results the way `cargo test` does. The tests themselves are in the binary,
//! under `src/tests/`.

pub mod isolate;
pub mod lab;
pub mod probe;
pub mod report;

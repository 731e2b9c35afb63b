//! Namespace lab: many nodes on one host, each in a network namespace of its own, running the real
//! binaries (test tool, level 5).
//!
//! [`isolate::enter`] starts the program again inside a PID and user namespace, so that everything it
//! starts ends with it whatever happens. A [`lab::Lab`] makes nodes and cables; [`probe`] looks from inside
//! a node; [`report`] prints results the way `cargo test` does. The tests themselves are in the binary,
//! under `src/tests/`.
//!
//! For many nodes: a [`field::Field`] puts a [`graph`] of nodes on [`air`] (or on cables), with a router
//! ([`daemon`]) on each, follows all their routes ([`watch`]) and sends echoes across ([`stream`]).
//!
//! A [`fleet::Fleet`] updates itself: cards in files, restarts that are played.
//!
//! [`foreign`] puts mDNS implementations of others on a link with ours; [`mdns`] hears what is said there.

pub mod air;
pub mod daemon;
pub mod field;
pub mod fleet;
pub mod foreign;
pub mod graph;
pub mod isolate;
pub mod lab;
pub mod mdns;
pub mod probe;
pub mod report;
pub mod stream;
pub mod watch;

//! Real mesh-store processes on loopback: adding, reading, fetching from each other and from nodes
//! that lie, stall or are dead, and what clients do wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that can not go on fails"
)]

mod catalog;
mod conformance;
mod content;
mod hostile;
mod memory;
mod support;

//! Simulator of a mesh: the very router cores, an event queue, radio-like links (test tool, level 5).
//!
//! [`replay`] is the other way into the cores: what was recorded on a device happens again.
//!
//! Seeded and deterministic: the same seed gives the same packets, on one thread or on several. Start at
//! [`Sim`]; [`scenario`] is what the `mesh-sim` program runs.
// Nodes are named by their index; an index out of range is a wrong test, and ends it.
#![allow(clippy::indexing_slicing)]

mod check;
mod clock;
mod engine;
mod graph;
mod medium;
mod node;
mod place;
pub mod replay;
pub mod scenario;
mod sim;

pub use check::Sample;
pub use clock::Clock;
pub use graph::Shape;
pub use medium::{Port, prefix};
pub use node::{Node, Traffic};
pub use place::Field;
pub use sim::{RADIO, Settings, Sim, WIRE};

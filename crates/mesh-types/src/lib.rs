//! Time, identity, name and metric types shared by every crate (level 0).
//!
//! Nothing here does I/O, reads a clock or draws a random number.
#![no_std]

extern crate alloc;

mod metric;
mod name;
mod node;
mod time;

pub use metric::Metric;
pub use name::{NodeName, NodeNameError};
pub use node::{AP_NETWORK, IPV4_ATTEMPTS, IPV4_POOL, NodeId};
pub use time::{Duration, Instant};

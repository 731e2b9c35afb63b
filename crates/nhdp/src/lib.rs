//! RFC 6130 neighbourhood discovery, sans-IO (level 2).
//!
//! Read RFC 6130 first, and RFC 7466 (2-hop neighbours of a link of poor quality), which is built in. A
//! protocol on top keeps its own part of each tuple through [`Extension`], adds to the HELLOs that
//! [`Nhdp::generate`] makes and reads its TLVs from those that [`Nhdp::process`] took in.
#![no_std]

extern crate alloc;

mod again;
mod config;
mod core;
mod hello;
mod liveness;
mod process;
mod rng;
mod tables;

pub use crate::core::{Event, Nhdp};
pub use again::Again;
pub use config::{Config, Limits, Quality};
pub use hello::{
    COMPLETE, HELLO, Hello, HelloEntry, HelloError, LINK_STATUS, LOCAL_IF, LocalIf, MAX_PAIRS, MAX_VALIDITY,
    OTHER_NEIGHB, Status,
};
pub use liveness::{Liveness, Signs};
pub use rng::Rng;
pub use tables::{Extension, Interface, Link, LinkId, LinkStatus, Neighbor, NeighborId, TwoHop};

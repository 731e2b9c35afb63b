//! The node's names, without I/O (level 2): an mDNS responder and querier (RFC 6762), the mesh name table, and
//! the answers to unicast DNS.
//!
//! Read RFC 6762 §§6–10 first. [`Names`] is the whole; it is driven as every core is: hand it inputs and the
//! time, then drain [`Names::poll_output`] until it is empty, then wait until [`Names::poll_timeout`].
//!
//! No mDNS packet ever crosses the mesh: a node's name travels as a signed [`NameRecord`], and each node
//! answers for the others on its access point, by mDNS and by unicast DNS.
#![no_std]

extern crate alloc;

mod cache;
mod claim;
mod dns;
mod lookup;
mod node;
mod responder;
mod rng;
mod service;
pub mod stream;
mod table;
pub mod upstream;
pub mod wire;

pub use cache::MAX_CACHED;
pub use claim::{MAX_ADDRESSES, NameRecord, RecordError, is_reachable, keeps, level, level_reached};
pub use lookup::{DEADLINE, MAX_LOOKUPS};
pub use node::{Config, Counters, Datagram, Input, InputError, Known, Names, Output, Provenance};
pub use responder::{
    Destination, Event, InterfaceAddress, MAX_LINKS, Rival, Role, TTL_HOST, TTL_OTHER, Transmit,
};
pub use service::{MAX_SERVICES, Service};
pub use table::{Entry, MAX_NODES, NameTable};

/// The port of mDNS.
pub const MDNS_PORT: u16 = 5353;
/// The IPv4 group of mDNS.
pub const MDNS_GROUP_V4: core::net::Ipv4Addr = core::net::Ipv4Addr::new(224, 0, 0, 251);
/// The IPv6 group of mDNS.
pub const MDNS_GROUP_V6: core::net::Ipv6Addr = core::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

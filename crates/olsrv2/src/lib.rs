//! RFC 7181 OLSRv2 routing, sans-IO (level 2).
//!
//! Read RFC 7181 first, §1.3 and §4 for the overview. One [`Router`] serves one address family. The driver's
//! law: after every [`Router::handle_input`] and [`Router::handle_timeout`], drain [`Router::poll_output`] to
//! `None`, then sleep until [`Router::poll_timeout`] or the next input.
#![no_std]

extern crate alloc;

mod again;
mod config;
mod counters;
mod dat;
mod ext;
mod flood;
mod gateway;
mod generate;
mod icv;
mod io;
mod metric;
mod mpr;
mod names;
mod outbox;
mod receive;
pub mod recording;
mod records;
mod relay;
mod replay;
mod router;
mod routes;
mod scope;
mod security;
mod share;
mod shares;
mod summary;
mod tc;
mod tick;
mod topology;
mod tunnel;
mod update;
mod views;

pub use config::{
    Config, DEFAULT_BITRATE, DEFAULT_METRIC, Limits, MetricMode, QualityThresholds, Sequences, Timing,
};
pub use counters::{Counters, Kinds, PortCounters};
pub use ext::NEEDS_NO_TC;
pub use gateway::GatewayChoice;
pub use icv::Key;
pub use io::{
    AttachedNetwork, AttachedView, Event, Input, InputError, LinkQuality, LinkStatus, NeighborView, Output,
    Record, Route, RouteChange, TopologyEdge, Way,
};
pub use rfc5444::NetAddr;
pub use router::Router;
pub use scope::is_regular;
pub use share::{CALM_AT, hurry, is_calm};
pub use tunnel::{Note, NoteView};

/// RFC 5444 message type of application records (RFC 5444 §6.2, private use).
pub const RECORD_MESSAGE: u8 = 224;
/// Longest record payload in bytes.
pub const MAX_RECORD: usize = 1024;

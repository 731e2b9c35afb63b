//! Parameters (RFC 6130 §5).

use alloc::vec::Vec;

use mesh_types::Duration;
use rfc5444::NetAddr;

use crate::liveness::Liveness;

/// What neighbourhood discovery is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Octets of the instance's addresses: 4 or 16.
    pub addr_len: u8,
    /// Addresses of this router that are on no MANET interface but are announced as OTHER_IF, such as an
    /// originator address on the loopback interface.
    pub other_addresses: Vec<NetAddr>,
    /// HELLO_INTERVAL while nothing changes.
    pub hello_interval: Duration,
    /// HELLO_INTERVAL of an interface that is lively ([`crate::Nhdp::set_lively`]), not longer. HP_MAXJITTER is a
    /// quarter of it (§5.3.4, RFC 5148).
    pub hello_lively: Duration,
    /// HELLO_MIN_INTERVAL, not less than a quarter of `hello_lively`.
    pub hello_min_interval: Duration,
    /// H_HOLD_TIME.
    pub hello_hold: Duration,
    /// L_HOLD_TIME, N_HOLD_TIME and I_HOLD_TIME.
    pub lost_hold: Duration,
    /// HT_MAXJITTER: longest delay of a triggered HELLO.
    pub trigger_jitter: Duration,
    /// Link quality thresholds (§14).
    pub quality: Quality,
    /// Probes of neighbours that fell silent.
    pub liveness: Liveness,
    /// Most entries of tables.
    pub limits: Limits,
}

/// Link quality parameters (RFC 6130 §14), in steps of 1/255.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// HYST_ACCEPT.
    pub accept: u8,
    /// HYST_REJECT, not above `accept`.
    pub reject: u8,
    /// INITIAL_QUALITY. Links start pending if it is below `accept` (§14.2).
    pub initial: u8,
}

impl Quality {
    /// Link quality is not used (§14.1).
    pub const OFF: Self = Self { accept: 0, reject: 0, initial: 255 };
}

/// Most entries of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Interfaces.
    pub interfaces: usize,
    /// Link Tuples per interface. A newcomer pushes out the oldest link that is not symmetric, one that never
    /// was before one that is lost, and none that had no time yet to become so.
    pub links: usize,
    /// Addresses one neighbour may claim; a HELLO with more is dropped. Of all neighbours together there are
    /// at most eight times as many as links, so that a HELLO can name them; once there are half as many, a
    /// newcomer may have eight.
    pub neighbor_addresses: usize,
    /// 2-Hop Tuples per link; more are ignored. Once all links together have 64 times as many, each has an equal
    /// part of half of that: with 256 links there are at most 110 times as many.
    pub two_hops: usize,
    /// Lost Neighbor Tuples and Removed Interface Address Tuples; more are not remembered.
    pub lost: usize,
}

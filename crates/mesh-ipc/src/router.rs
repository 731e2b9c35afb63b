//! Requests to `mesh-router` and its answers.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::NodeId;
use serde::{Deserialize, Serialize};

/// The kind of application record that carries a node's name.
pub const KIND_NAME: u8 = 1;
/// The kind that carries the root of a node's content catalogue.
pub const KIND_CATALOG: u8 = 2;
/// The kind that says what a node does about updates.
pub const KIND_UPDATE: u8 = 3;
/// The kind that announces a new system.
pub const KIND_OFFER: u8 = 4;

/// The largest application payload, in bytes (the record as flooded stays below 1 KiB).
pub const MAX_PAYLOAD: usize = 880;

/// What can be asked of the router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RouterRequest {
    /// One [`RouterResponse::Neighbors`].
    Neighbors,
    /// One [`RouterResponse::Routes`].
    Routes,
    /// One [`RouterResponse::Topology`].
    Topology,
    /// Floods a record of this node, in place of its last one of that kind, until replaced or until this
    /// connection ends; one [`RouterResponse::Published`].
    Publish {
        /// What it is about.
        kind: u8,
        /// At most [`MAX_PAYLOAD`] bytes.
        payload: Vec<u8>,
        /// How long other nodes keep it without a refresh, in ms (the router refreshes it in time).
        validity_ms: u32,
    },
    /// The records known, one [`RouterResponse::Record`] each, then [`RouterResponse::SnapshotDone`], then
    /// every change as it happens, until the connection ends.
    Subscribe {
        /// Kinds of interest.
        kinds: Vec<u8>,
    },
    /// One [`RouterResponse::Traffic`].
    Traffic,
}

/// What the router answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RouterResponse {
    /// The neighbours over all interfaces and both address families.
    Neighbors(Vec<Neighbor>),
    /// The routes in use, both address families.
    Routes(Vec<Route>),
    /// The links of the known mesh.
    Topology(Vec<Edge>),
    /// The record is on its way.
    Published,
    /// A record arrived or was refreshed with new content.
    Record(Record),
    /// A record expired or its node left.
    RecordGone {
        /// Whose it was.
        node: NodeId,
        /// Its kind.
        kind: u8,
    },
    /// All records known at the time of the subscription have been sent.
    SnapshotDone,
    /// What went over each interface, each address family by itself.
    Traffic(Vec<Traffic>),
}

/// How far a link has come (RFC 6130 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkState {
    /// Heard, not yet known to hear us.
    Heard,
    /// Both hear each other.
    Symmetric,
    /// Gone, remembered for a while.
    Lost,
    /// In use, but it was not heard when it should have been: it is being probed.
    Suspect,
}

/// A neighbour on one interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbor {
    /// Interface it is heard on.
    pub interface: String,
    /// Its address on the link (for IPv6 the link-local one).
    pub address: IpAddr,
    /// Its originator address, once known.
    pub originator: Option<IpAddr>,
    /// State of the link.
    pub state: LinkState,
    /// Cost towards it, RFC 7181 §6.2.
    pub metric_out: u32,
    /// Cost from it.
    pub metric_in: u32,
    /// It is this node's flooding MPR.
    pub flooding_mpr: bool,
    /// It is this node's routing MPR.
    pub routing_mpr: bool,
    /// It chose this node as MPR.
    pub mpr_selector: bool,
    /// Milliseconds since its last packet.
    pub last_hello_ms: u64,
    /// Received signal in dBm, where a radio told.
    pub signal: Option<i8>,
    /// Bit rate of what comes from it as the metric uses it, in bit/s, where a radio told.
    pub bitrate_in: Option<u64>,
}

/// A route in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Destination prefix.
    pub destination: IpAddr,
    /// Its length in bits.
    pub prefix_len: u8,
    /// Next hop on the link.
    pub next_hop: IpAddr,
    /// Through this interface.
    pub interface: String,
    /// Path cost.
    pub metric: u32,
    /// Path length in hops.
    pub hops: u8,
    /// Originator address of the router that owns the destination.
    pub originator: IpAddr,
}

/// A directed link of the known mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// Originator that reports it.
    pub from: IpAddr,
    /// The other end's originator.
    pub to: IpAddr,
    /// Cost in that direction.
    pub metric: u32,
}

/// What went over an interface in one address family since the router put it into use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// The interface.
    pub interface: String,
    /// IPv4; otherwise IPv6.
    pub ipv4: bool,
    /// Packets received.
    pub packets_in: u64,
    /// Their bytes (UDP payload).
    pub bytes_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Packets received that are not RFC 5444.
    pub packets_malformed: u64,
    /// Packets received that came from afar or were cut short.
    pub packets_refused: u64,
    /// Packets that the kernel dropped because they were not fetched in time.
    pub packets_overflowed: u64,
    /// Packets that the kernel did not take.
    pub packets_unsent: u64,
    /// Messages by type.
    pub messages: Vec<MessageTraffic>,
}

/// Messages of one type on an interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MessageTraffic {
    /// `HELLO`, `TC`, `record`, or `other`.
    pub kind: String,
    /// Received.
    pub received: u64,
    /// Of these, refused: malformed, badly signed, played again, from a stranger; the service's counters
    /// ([`crate::ServiceStatus`]) tell the reasons apart.
    pub refused: u64,
    /// Of these, dealt with before.
    pub duplicates: u64,
    /// This node's own, queued to be sent.
    pub sent: u64,
    /// Others', queued to be sent on.
    pub forwarded: u64,
    /// Dropped because the sending queue was full.
    pub queue_full: u64,
}

/// An application record as it arrived, its signature verified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Whose it is.
    pub node: NodeId,
    /// What it is about.
    pub kind: u8,
    /// Sequence number; larger is newer.
    pub seq: u64,
    /// Hops to its node (0: this one; 255: no route is known yet).
    pub hops: u8,
    /// Milliseconds left until it expires without a refresh.
    pub valid_ms: u64,
    /// The content.
    pub payload: Vec<u8>,
}

//! Requests to `mesh-mdns` and its answers.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::NodeId;
use serde::{Deserialize, Serialize};

/// What can be asked of the name service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NamesRequest {
    /// One [`NamesResponse::Names`].
    List,
    /// Looks a name up (`bloor` or `bloor.local`), or whose an address is, asking the links if need be; one
    /// [`NamesResponse::Names`] with one entry, or an error.
    Resolve(String),
}

/// What the name service answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NamesResponse {
    /// Names known.
    Names(Vec<Name>),
}

/// Where a name was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// This node's own.
    Own,
    /// By mDNS on a link.
    Link,
    /// From a flooded record.
    Mesh,
}

/// A name and what it stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Name {
    /// Without `.local`.
    pub name: String,
    /// Its owner, where known.
    pub node: Option<NodeId>,
    /// Best first.
    pub addresses: Vec<IpAddr>,
    /// Hops away, where known (0: this node).
    pub hops: Option<u8>,
    /// Milliseconds since it was last heard of.
    pub age_ms: u64,
    /// Where it was learnt.
    pub source: Source,
}

//! Requests to `mesh-store` and its answers.
//!
//! An add is a conversation: [`StoreRequest::AddBegin`], then for each entry (parents before children)
//! [`StoreRequest::AddEntry`] and, for a file, [`StoreRequest::Data`] as often as needed, then
//! [`StoreRequest::AddEnd`]. The service answers [`StoreResponse::Added`] for each entry as its CID is
//! known and [`StoreResponse::Done`] at the end.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// The most bytes of a file in one frame, either way.
pub const DATA_MAX: usize = 256 * 1024;

/// What can be asked of the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StoreRequest {
    /// Starts an add.
    AddBegin(AddOptions),
    /// The next file, directory or symbolic link.
    AddEntry {
        /// Path below the add's root, `/` between parts.
        path: String,
        /// What it is.
        kind: EntryKind,
    },
    /// The next bytes of the file last announced, at most [`DATA_MAX`].
    Data(Vec<u8>),
    /// Ends the add.
    AddEnd,
    /// The bytes of a file: [`StoreResponse::Data`] as often as needed, then [`StoreResponse::Done`].
    Cat {
        /// `CID[/path]` or `/ipfs/CID[/path]`.
        path: String,
    },
    /// Entries of a directory (or links of a file): one [`StoreResponse::Entries`].
    Ls {
        /// As in `Cat`.
        path: String,
    },
    /// Keeps a DAG: fetched whole, then kept; one [`StoreResponse::Done`].
    PinAdd(String),
    /// Lets it go; one [`StoreResponse::Done`].
    PinRemove(String),
    /// One [`StoreResponse::Pins`].
    PinList,
    /// Drops what no pin holds; one [`StoreResponse::Collected`].
    Gc,
    /// One [`StoreResponse::Stat`].
    Stat,
    /// One [`StoreResponse::Identity`].
    Identity,
}

/// How to import.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddOptions {
    /// `unixfs-v0-2015` or `unixfs-v1-2025`; the fields below override it.
    pub profile: String,
    /// 0 or 1.
    pub cid_version: Option<u8>,
    /// Leaves as raw blocks.
    pub raw_leaves: Option<bool>,
    /// Bytes per leaf.
    pub chunk_size: Option<u32>,
    /// Compute CIDs, store nothing.
    pub only_hash: bool,
    /// Wrap all in a directory.
    pub wrap: bool,
    /// Keep what was added.
    pub pin: bool,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A file; its bytes follow.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(String),
}

/// What the store answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StoreResponse {
    /// An entry has its CID.
    Added {
        /// Path as announced; empty for the wrapping directory.
        path: String,
        /// Its CID.
        cid: String,
        /// Its bytes.
        size: u64,
    },
    /// Bytes of a file.
    Data(Vec<u8>),
    /// Entries of a directory.
    Entries(Vec<Entry>),
    /// CIDs kept.
    Pins(Vec<String>),
    /// Garbage collection: blocks and bytes dropped.
    Collected {
        /// Blocks dropped.
        blocks: u64,
        /// Bytes freed.
        bytes: u64,
    },
    /// Figures of the store.
    Stat(Stat),
    /// Who this node is, in libp2p's terms.
    Identity {
        /// Peer identifier, `12D3KooW…`.
        peer_id: String,
        /// Public key, protobuf, base64.
        public_key: String,
        /// Addresses it is reached at, as multiaddrs.
        addresses: Vec<String>,
    },
    /// The request is done.
    Done,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Name in the directory.
    pub name: String,
    /// What it leads to.
    pub cid: String,
    /// Bytes below it.
    pub size: u64,
    /// It is a directory.
    pub directory: bool,
}

/// Figures of the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stat {
    /// Blocks held.
    pub blocks: u64,
    /// Bytes they take on the disk.
    pub bytes: u64,
    /// Bytes they may take.
    pub quota: u64,
    /// Where they are.
    pub path: String,
}

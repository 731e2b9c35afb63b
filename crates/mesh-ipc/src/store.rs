//! Requests to `mesh-store` and its answers.
//!
//! An add is a conversation: [`StoreRequest::AddBegin`], then for each entry (parents before children, all
//! that is in a directory right behind it) [`StoreRequest::AddEntry`] and, for a file, [`StoreRequest::Data`]
//! as often as needed or one [`StoreRequest::File`], then [`StoreRequest::AddEnd`]. The service answers [`StoreResponse::Added`] for each
//! entry as its CID is known and [`StoreResponse::Done`] at the end, when all is on the medium. A failed add
//! is answered by one error, and the connection is closed.

use alloc::string::String;
use alloc::vec::Vec;

use mesh_types::NodeId;
use serde::{Deserialize, Serialize};

/// The most bytes of a file in one frame, either way.
pub const DATA_MAX: usize = 256 * 1024;
/// Files from this size on are passed to the store ([`StoreRequest::File`]) rather than sent, in bytes.
pub const PASSED_MIN: u64 = 1 << 20;
/// The most entries, pins or links in one frame.
pub const LIST_MAX: usize = 1024;

/// What can be asked of the store. A `path` is `CID[/path]` or `/ipfs/CID[/path]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StoreRequest {
    /// Starts an add.
    AddBegin(AddOptions),
    /// The next file, directory or symbolic link.
    AddEntry {
        /// Path below the add's root, `/` between parts; empty for a file without a name.
        path: String,
        /// What it is.
        kind: EntryKind,
    },
    /// The next bytes of the file last announced, at most [`DATA_MAX`].
    Data(#[serde(with = "crate::bytes")] Vec<u8>),
    /// Ends the add.
    AddEnd,
    /// The bytes of a file: [`StoreResponse::Data`] as often as needed, then [`StoreResponse::Done`].
    Cat {
        /// Which file.
        path: String,
        /// Bytes to skip.
        offset: u64,
        /// Bytes to send at most; `None` for all.
        length: Option<u64>,
    },
    /// What a path leads to: one [`StoreResponse::Entries`] with one entry.
    Resolve {
        /// Which.
        path: String,
    },
    /// Entries of a directory, in the order in which its blocks have them: [`StoreResponse::Entries`] as often as
    /// needed, then [`StoreResponse::Done`].
    Ls {
        /// Which directory.
        path: String,
    },
    /// CIDs a block links to: [`StoreResponse::Refs`] as often as needed, then [`StoreResponse::Done`].
    Refs {
        /// Which block.
        path: String,
        /// All below it, too.
        recursive: bool,
        /// Each CID only once.
        unique: bool,
    },
    /// Keeps a DAG: fetched whole, then kept; [`StoreResponse::Fetched`] twice a second and at the end, if that is asked
    /// for, then one [`StoreResponse::Pins`].
    PinAdd {
        /// Its root.
        path: String,
        /// All below it, too.
        recursive: bool,
        /// Tell how far it has come.
        progress: bool,
    },
    /// Lets it go; one [`StoreResponse::Pins`].
    PinRemove {
        /// Its root.
        path: String,
        /// Also if it is kept with all below it.
        recursive: bool,
    },
    /// [`StoreResponse::Pins`] as often as needed, then [`StoreResponse::Done`].
    PinList {
        /// Also what recursive pins hold.
        indirect: bool,
    },
    /// Keeps an IPNS record, once it is verified; [`StoreResponse::Done`].
    IpnsPut {
        /// The name it belongs to, in any form.
        name: String,
        /// The record's bytes, 10 KiB at most.
        record: Vec<u8>,
    },
    /// Drops what no pin holds; one [`StoreResponse::Collected`].
    Gc {
        /// Before that, name all that was dropped, as raw blocks: [`StoreResponse::Refs`] as often as needed.
        list: bool,
    },
    /// One [`StoreResponse::Stat`].
    Stat,
    /// One [`StoreResponse::Identity`].
    Identity,
    /// Stores of other nodes, nearest first: one [`StoreResponse::Peers`].
    Peers,
    /// All blocks of a DAG as a CARv1 file, fetched where needed: [`StoreResponse::Data`] as often as needed,
    /// then [`StoreResponse::Done`].
    CarExport {
        /// Its root.
        path: String,
    },
    /// Starts the import of a CARv1 file: [`StoreRequest::Data`] as often as needed, then
    /// [`StoreRequest::CarEnd`]. A failed import is answered by one error, and the connection is closed.
    CarBegin {
        /// Keep what is below the roots.
        pin: bool,
    },
    /// Ends it; one [`StoreResponse::Imported`], when all is on the medium.
    CarEnd,
    /// Puts content that is held here into this node's catalogue, for all nodes to see; in place of what has
    /// that name. One [`StoreResponse::Done`], when it will outlast a power cut.
    Publish {
        /// Its root.
        path: String,
        /// 1 to 255 bytes.
        name: String,
        /// At most 1,024 bytes.
        description: String,
    },
    /// Takes it out again, by name or CID; one [`StoreResponse::Done`].
    Unpublish {
        /// Which.
        what: String,
    },
    /// Everything in the catalogues of all nodes in reach: [`StoreResponse::Catalog`] as often as needed,
    /// then [`StoreResponse::Done`].
    Catalog,
    /// Mode (permission bits) and time of the last change (seconds since 1970 and nanoseconds) of the
    /// entry announced next.
    Meta {
        /// The lowest twelve bits count.
        mode: Option<u32>,
        /// Nanoseconds are below 1,000,000,000.
        mtime: Option<(i64, u32)>,
    },
    /// In place of [`StoreRequest::Data`]: the service reads the file last announced by itself. It answers
    /// [`StoreResponse::Taken`] of 0 bytes; then the client sends one byte that carries a descriptor of a regular file
    /// (`SCM_RIGHTS`), which is read from where it stands to its end: [`StoreResponse::Taken`] as often as needed, the
    /// last one of 0 bytes again.
    File,
    /// All blocks held here, as raw ones: [`StoreResponse::Refs`] as often as needed, then [`StoreResponse::Done`].
    /// One that is moved meanwhile may be named twice.
    Local,
    /// How a block is kept: one [`StoreResponse::Pins`], without an entry if it is not.
    PinFind {
        /// Which block.
        path: String,
        /// Only if it is kept like that.
        kind: Option<PinKind>,
    },
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
    Data(#[serde(with = "crate::bytes")] Vec<u8>),
    /// Entries of a directory.
    Entries(Vec<Entry>),
    /// CIDs.
    Refs(Vec<String>),
    /// CIDs kept.
    Pins(Vec<PinEntry>),
    /// Multiaddrs of the stores of other nodes.
    Peers(Vec<String>),
    /// Garbage collection: blocks and bytes dropped.
    Collected {
        /// Blocks dropped.
        blocks: u64,
        /// Bytes freed.
        bytes: u64,
        /// Blocks dropped that were to be named and could not be.
        unnamed: u64,
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
    /// What a CAR file held.
    Imported {
        /// Its roots.
        roots: Vec<String>,
        /// Blocks read.
        blocks: u64,
        /// Their bytes.
        bytes: u64,
        /// Further blocks, which are not stored: they can't be verified here.
        left_out: u64,
    },
    /// Entries of catalogues.
    Catalog(Vec<Published>),
    /// So many more bytes of a passed file were read.
    Taken(u64),
    /// What is to be kept and is here by now.
    Fetched {
        /// Blocks looked at.
        blocks: u64,
        /// Their bytes.
        bytes: u64,
    },
}

/// An entry of a node's catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// What people call it.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Its bytes, roughly.
    pub size: u64,
    /// Its root.
    pub cid: String,
    /// Who publishes it.
    pub node: NodeId,
    /// Hops to that node (0: this one; 255: no route is known).
    pub hops: u8,
    /// Nodes that say that they have it, that one included.
    pub copies: u32,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Name in the directory.
    pub name: String,
    /// What it leads to.
    pub cid: String,
    /// Bytes of the file; 0 for what is no file.
    pub size: u64,
    /// What it is; `None` if its block can't be had.
    pub kind: Option<EntryKind>,
    /// Permission bits, if the content has them.
    pub mode: Option<u32>,
    /// Time of the last change (seconds since 1970 and nanoseconds), if the content has it.
    pub mtime: Option<(i64, u32)>,
}

/// A pin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PinEntry {
    /// What is kept.
    pub cid: String,
    /// How.
    pub kind: PinKind,
    /// The recursive pin above it, if it is kept by one and that was asked for.
    pub through: Option<String>,
}

/// How something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PinKind {
    /// The block only.
    Direct,
    /// The block and all below it.
    Recursive,
    /// It is below a recursive pin.
    Indirect,
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
    /// Pins set.
    pub pins: u64,
    /// Where they are.
    pub path: String,
}

//! What happened to a router, written down so that it can happen again (record and replay of inputs).
//!
//! A router is a function of its configuration, its seed and its inputs with their times. [`Recorder`] writes
//! them down while it runs; [`Recording`] reads them back, for [`crate::Router`]s on any machine to live
//! through the same. What routers gave out stands in the recording as digests only, at the places where it
//! was taken, so that a replay shows where it departs. Keys are named, never written.
//!
//! The format, version 1: [`MAGIC`], its version, a text (which program made it), then
//! blocks. A block is the number of a router (0 to 254; there are several in one file, each for itself), a
//! length, and so many octets of entries; a last block, [`END`], says why it ends. Numbers are in LEB128,
//! addresses are their family (4 or 16) and octets. An entry is its kind, for all but the digests the time
//! since the router's last entry in microseconds, then its values in the order of [`crate::Input`]'s fields.

mod config;
mod read;
mod write;

pub use read::{Entry, Problem, Recorded, Recording, RecordingError, What};
pub use write::{Digest, Recorder, block, end, header};

/// What a recording begins with; [`VERSION`] follows.
pub const MAGIC: [u8; 7] = *b"P2PMREC";

/// The format's version.
pub const VERSION: u8 = 2;

/// The number of no router: the recording's end.
pub const END: u8 = 255;

/// Why a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The program ended.
    Stopped,
    /// The recording had grown to the size allowed; the routers went on.
    Full,
}

/// Kinds of entries.
mod kind {
    pub(super) const START: u8 = 1;
    pub(super) const PACKET: u8 = 2;
    pub(super) const INTERFACE_UP: u8 = 3;
    pub(super) const INTERFACE_DOWN: u8 = 4;
    pub(super) const ADDRESSES_CHANGED: u8 = 5;
    pub(super) const LINK_LOST: u8 = 6;
    pub(super) const LINK_QUALITY: u8 = 7;
    pub(super) const INTERFACE_BITRATE: u8 = 8;
    pub(super) const PROBE_ANSWERED: u8 = 9;
    pub(super) const PROBE_FAILED: u8 = 10;
    pub(super) const LEAVE: u8 = 11;
    pub(super) const ATTACHED_NETWORKS: u8 = 12;
    pub(super) const KEYS: u8 = 13;
    pub(super) const PUBLISH: u8 = 14;
    pub(super) const JUDGE_RECORD: u8 = 15;
    pub(super) const WITHDRAW: u8 = 16;
    pub(super) const TIMEOUT: u8 = 17;
    pub(super) const OUTPUTS: u8 = 18;
    pub(super) const NOTES: u8 = 19;
    pub(super) const TUNNELS: u8 = 20;
    pub(super) const CARRIER: u8 = 21;
    pub(super) const JOIN: u8 = 22;
    pub(super) const CARRY: u8 = 23;
}

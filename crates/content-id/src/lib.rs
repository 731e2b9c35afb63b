//! Content identifiers and the data behind them (level 1). Read first: the CID, dag-pb and UnixFS
//! pages of the IPFS and IPLD specifications.
//!
//! - [`Cid`]: versions 0 and 1, SHA-256 and identity digests are verified, others only carried.
//! - [`dag`]: dag-cbor, dag-json and dag-pb blocks read event by event: links, paths, conversion.
//! - [`car`]: CARv1, read piece by piece and written.
//! - [`dagpb`], [`unixfs`]: the two protobuf messages of a UnixFS block, decoded strictly, encoded canonically.
//! - [`import`]: bytes, directories and symlinks become blocks, with kubo's CIDs.
//! - [`export`]: paths, directories and byte ranges are walked block by block.
//!
//! Nothing here does I/O: importers queue blocks, exporters ask for them by CID. Every block that
//! comes in is bounded by [`MAX_BLOCK`]; every walk by [`export::MAX_DEPTH`].
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod base;
pub mod car;
mod cid;
pub mod dag;
pub mod dagpb;
pub mod export;
mod hamt;
pub mod import;
pub mod ipns;
pub mod unixfs;
mod varint;

pub use cid::{Block, Cid, CidError, Codec, MAX_DIGEST, Multihash, VerifyError, Version, sha256};
pub use hamt::murmur3_x64_64;

/// The largest block that is accepted from anyone, in bytes (the Bitswap limit).
pub const MAX_BLOCK: usize = 2 * 1024 * 1024;

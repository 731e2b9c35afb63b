//! The block store: an append-only log of blocks and pins over a [`Disk`] (level 2, sans-IO).
//!
//! Blocks lie in numbered segments; the index is rebuilt from them when the store opens.
//! `record` has the format, `scan` rebuilds, `gc` drops what no pin holds, `listing` names blocks;
//! `exchange` says which node is asked for which block, `catalog` reads and
//! writes what nodes publish, `replicas` says who keeps a copy of it.
//!
//! **What is promised.** After [`Store::commit`] returns, every block and pin put before it is on
//! the medium. After a power cut the store opens unattended, has all of them, and serves no byte
//! that does not hash to its CID.
//!
//! **Why it holds.** A segment is only appended to, and synced before the next one is begun, so
//! only the tail of the last segment can be torn; what was synced shares no page with what is
//! written later. Each record says how far its segment was synced when it was written; records
//! beyond that point are checked against their hash when the store opens, and the first bad one
//! ends the log: nothing behind it was acknowledged. Everything else is checked against its hash
//! when it is read. Each segment begins with all pins, and ends, when it is full, with an index of
//! its blocks: opening reads those and the last segment. docs/STORE.md has the argument in full.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod catalog;
mod crc;
mod disk;
pub mod exchange;
mod gc;
mod index;
mod listing;
mod log;
pub mod record;
pub mod replicas;
mod scan;
mod store;

pub use disk::{Disk, DiskError};
pub use gc::{Collected, Extent};
pub use listing::Listed;
pub use store::{Config, MAX_PINS, Pin, Recovery, Stat, Store, StoreError};

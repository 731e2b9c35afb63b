//! The block store: an append-only log of blocks and pins over a [`Disk`] (level 2, sans-IO).
//!
//! Blocks lie in numbered segments; the index is rebuilt from them when the store opens.
//! `record` has the format, `scan` rebuilds, `gc` drops what no pin holds.
//!
//! **What is promised.** After [`Store::commit`] returns, every block and pin put before it is on
//! the medium. After a power cut the store opens unattended, has all of them, and serves no byte
//! that does not hash to its CID.
//!
//! **Why it holds.** A segment is only appended to, and synced before the next one is begun, so
//! only the tail of the last segment can be torn. Each record says how far its segment was synced
//! when it was written; records beyond that point are checked against their hash when the store
//! opens, and the first bad one ends the log: nothing behind it was acknowledged. Everything else
//! is checked against its hash when it is read.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod crc;
mod disk;
mod gc;
pub mod record;
mod scan;
mod store;

pub use disk::{Disk, DiskError};
pub use gc::Collected;
pub use store::{Config, MAX_PINS, Pin, Recovery, Stat, Store, StoreError};

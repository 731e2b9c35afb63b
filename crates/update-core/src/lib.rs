//! Boot-state sectors, slot headers, the slot state machine, the health gate, update bundles, their installation, what is
//! announced of them in the mesh and whose turn it is, sans-IO (level 2).
//!
//! The card has two raw slots, A and B, and two one-sector copies of the boot state. The boot script
//! (`board/raspberrypi/boot.cmd`) and the update service both read and write that state; this crate is
//! the one place that knows its format on the Linux side, and [`pick`] says what the script will do.
//! The byte layout is in `docs/UPDATE.md`; `tests/boot_script.rs` ties both sides together.
//!
//! ```text
//!            boot (script: one try less)             gate opens (service: 3 tries again)
//! untried ────────────────────────────────▶ on trial ────────────────────────────────▶ confirmed
//!    ▲                                         │ three boots without the gate             │ rollback
//!    └───────── order changes, tries = 3 ──────┴─▶ no tries left: the other slot boots ◀──┘
//! ```
#![no_std]

extern crate alloc;

pub mod bundle;
mod chunk;
mod crc32;
pub mod firmware;
mod fleet;
mod gate;
mod header;
mod install;
pub mod make;
mod mbr;
mod medium;
mod offer;
mod policy;
mod rebuild;
mod refusal;
mod reuse;
mod sector;
mod state;
pub mod stick;
mod trial;

pub use chunk::{Unpacker, cut, pack};
pub use crc32::crc32;
pub use fleet::{Fleet, FleetConfig, FleetInput, FleetOutput, MAX_NODES, Phase, Report};
pub use gate::{Gate, GateConfig, Input, InputError, Output};
pub use header::{Extent, Part, SlotHeader};
pub use install::{Install, InstallConfig, InstallError, Next, Stage};
pub use mbr::{Partition, parse_mbr};
pub use medium::{Medium, StateError, read_state, write_state};
pub use offer::{MAX_OFFER, MAX_OFFERED, Offer, OfferCounts, Offers, Signed};
pub use policy::{Policy, test_keys, test_seed};
pub use rebuild::{Rebuild, RebuildError};
pub use refusal::Refusal;
pub use sector::{SECTOR, SectorError, Vars};
pub use state::{
    BootState, COPY_LBA, Copies, Copy, CopyState, MAX_TRIES, Pick, RollbackError, Slot, pick, read_copies,
};
pub use trial::{TRIAL_NOTE, TrialLine};

/// The MBR partition (from 1) that holds a slot.
pub const fn partition_of(slot: Slot) -> usize {
    match slot {
        Slot::A => 2,
        Slot::B => 3,
    }
}

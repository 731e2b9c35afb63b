//! Requests to `mesh-update` and its answers.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// What can be asked of the update service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum UpdateRequest {
    /// One [`UpdateResponse::Slots`].
    Slots,
    /// Confirms the running slot now, without the health gate; one [`UpdateResponse::Done`].
    Confirm,
    /// Makes the other slot the first choice of the next boot; one [`UpdateResponse::Done`].
    Rollback,
}

/// What the update service answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum UpdateResponse {
    /// Both slots and the trial.
    Slots(Slots),
    /// It is done: what was changed, for people.
    Done(String),
}

/// The slots and how the running one is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slots {
    /// `A` or `B`; empty where there are no slots (not booted from a card).
    pub running: String,
    /// Both slots, A first; empty where there are none.
    pub slots: Vec<Slot>,
    /// First choice first, as `A B`.
    pub order: String,
    /// The running slot was confirmed since boot.
    pub confirmed: bool,
    /// What the health gate waits for, for people; empty when it is open.
    pub waiting_for: Vec<String>,
}

/// One slot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// `A` or `B`.
    pub name: String,
    /// Version in its header; empty without a valid header.
    pub version: String,
    /// Tries left before the boot script passes it over.
    pub tries_left: u32,
}

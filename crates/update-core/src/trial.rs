//! The note about a new system that is on trial, which is kept on the data partition from boot to boot.

use crate::state::Slot;

/// Where the note is, below the node's state directory.
pub const TRIAL_NOTE: &str = "mesh-update/trial";

/// The first line of the note: `SLOT VERSION`, and ` neighbour` behind it if the node had one when that system was
/// installed. What follows is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialLine<'a> {
    /// The slot that is or was on trial.
    pub slot: Slot,
    /// Its version.
    pub version: &'a str,
    /// There was a neighbour.
    pub neighbour: bool,
}

impl<'a> TrialLine<'a> {
    /// Reads a note; `None` if it is none.
    pub fn parse(note: &'a str) -> Option<Self> {
        let (slot, version) = note.lines().next()?.split_once(' ')?;
        let (version, neighbour) =
            version.split_once(' ').map_or((version, false), |(v, word)| (v, word == "neighbour"));
        Some(Self { slot: Slot::from_name(slot)?, version, neighbour })
    }
}

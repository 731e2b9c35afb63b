//! The card as bytes, and the boot state on it.

use core::fmt;

use crate::sector::{SECTOR, SectorError};
use crate::state::{BootState, Copies, Copy, read_copies};

/// A block device. Offsets and lengths are multiples of 512. What was written is on the medium after [`Medium::sync`]
/// and not sooner; until then any part of it may be there. A sector that is being written when power fails may
/// hold anything.
pub trait Medium {
    /// What goes wrong.
    type Error;
    /// Fills `bytes` from the medium, past any cache that could hide what is really there.
    ///
    /// # Errors
    /// The device's.
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), Self::Error>;
    /// Writes.
    ///
    /// # Errors
    /// The device's.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Self::Error>;
    /// Waits until all that was written is on the medium.
    ///
    /// # Errors
    /// The device's.
    fn sync(&mut self) -> Result<(), Self::Error>;
}

/// Why the boot state was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateError<E> {
    /// The device's error.
    Medium(E),
    /// The medium gives back something else than was written.
    ReadBack,
    /// The values don't fit a sector; can't happen with values of ours.
    Encode(SectorError),
}

impl<E: fmt::Display> fmt::Display for StateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Medium(e) => write!(f, "{e}"),
            Self::ReadBack => f.write_str("the card gives back something else than was written"),
            Self::Encode(e) => write!(f, "the boot state was not written: {e}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for StateError<E> {}

/// Reads both copies of the boot state. One that can't be read counts as damaged if the medium's error says so
/// (`damaged`), else it is this call's error.
///
/// # Errors
/// The device's.
pub fn read_state<M: Medium>(
    medium: &mut M,
    damaged: impl Fn(&M::Error) -> bool,
) -> Result<Copies, M::Error> {
    let mut read = |copy: Copy| {
        let mut sector = [0; SECTOR];
        match medium.read(copy.lba() * SECTOR as u64, &mut sector) {
            Err(e) if damaged(&e) => Ok([0xff; SECTOR]),
            Err(e) => Err(e),
            Ok(()) => Ok(sector),
        }
    };
    Ok(read_copies(&read(Copy::First)?, &read(Copy::Second)?))
}

/// Writes a state over the copy that does not count, waits for the medium, and compares.
///
/// # Errors
/// See [`StateError`].
pub fn write_state<M: Medium>(
    medium: &mut M,
    to: Copy,
    state: &BootState,
) -> Result<(), StateError<M::Error>> {
    let sector = state.encode().map_err(StateError::Encode)?;
    let offset = to.lba() * SECTOR as u64;
    medium.write(offset, &sector).and_then(|()| medium.sync()).map_err(StateError::Medium)?;
    let mut back = [0; SECTOR];
    medium.read(offset, &mut back).map_err(StateError::Medium)?;
    if back == sector { Ok(()) } else { Err(StateError::ReadBack) }
}

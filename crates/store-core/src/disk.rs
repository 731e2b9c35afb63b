//! What the store asks of a medium.

use alloc::vec::Vec;
use core::fmt;

/// Why the medium did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// No space left.
    Full,
    /// Anything else: the system's error number.
    Failed(i32),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the disk is full"),
            Self::Failed(code) => write!(f, "the disk failed (error {code})"),
        }
    }
}

impl core::error::Error for DiskError {}

/// Numbered files. Nothing but [`Disk::sync`] makes anything durable; until then a power cut may
/// keep any part of what was done, in any order, down to single sectors.
pub trait Disk {
    /// The numbers of all segments.
    fn list(&mut self) -> Result<Vec<u32>, DiskError>;
    /// Bytes of a segment.
    fn size(&mut self, segment: u32) -> Result<u64, DiskError>;
    /// Makes an empty segment.
    fn create(&mut self, segment: u32) -> Result<(), DiskError>;
    /// Fills `buffer` from `offset`; bytes beyond the end are an error.
    fn read(&mut self, segment: u32, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError>;
    /// Writes all of `bytes` at `offset`, extending the segment if need be. After an error any part
    /// of them may have been written.
    fn write(&mut self, segment: u32, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// Cuts a segment to `size` bytes.
    fn truncate(&mut self, segment: u32, size: u64) -> Result<(), DiskError>;
    /// Returns once the segment's bytes, size and name are on the medium.
    fn sync(&mut self, segment: u32) -> Result<(), DiskError>;
    /// Removes a segment.
    fn remove(&mut self, segment: u32) -> Result<(), DiskError>;
}

//! How a command ends other than well.

use std::io;

/// Why a command did not do what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Exit 1: what happened, what it means, what to do.
    Failed(String),
    /// Exit 1, and all has been said already.
    Silent,
    /// Exit 2: the command line is wrong.
    Usage(String),
    /// Nobody reads our output any more; no error.
    BrokenPipe,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// An error while writing to `what`.
    pub(crate) fn write(what: &str, e: &io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            io::ErrorKind::StorageFull => {
                Self::Failed(format!("{what}: the disk is full; free some space and try again"))
            }
            _ => Self::Failed(format!("{what}: can't be written: {e}")),
        }
    }
}

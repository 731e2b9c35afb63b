//! A reading position that knows how far it is from the start.

use crate::{Error, ErrorKind};

/// Bytes still to read, and where they lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    /// Reads `bytes`, which lie at `offset` of what is parsed.
    pub(crate) const fn new(bytes: &'a [u8], offset: usize) -> Self {
        Self { rest: bytes, offset }
    }

    pub(crate) const fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// An error at the present position.
    pub(crate) const fn error(&self, kind: ErrorKind) -> Error {
        Error { kind, offset: self.offset }
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(self.error(ErrorKind::Truncated))?;
        self.rest = rest;
        self.offset += n;
        Ok(taken)
    }

    /// The next `n` bytes as a cursor of their own.
    pub(crate) fn sub(&mut self, n: usize) -> Result<Self, Error> {
        let offset = self.offset;
        Ok(Self::new(self.take(n)?, offset))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        let (first, rest) = self.rest.split_first().ok_or(self.error(ErrorKind::Truncated))?;
        self.rest = rest;
        self.offset += 1;
        Ok(*first)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        let (two, rest) = self.rest.split_first_chunk::<2>().ok_or(self.error(ErrorKind::Truncated))?;
        self.rest = rest;
        self.offset += 2;
        Ok(u16::from_be_bytes(*two))
    }
}

//! The bundle of an installed system, made again out of the slot, so that a node hands on what it took without having kept or
//! fetched what it had already.

use alloc::vec::Vec;
use core::fmt;

use crate::bundle::{BLOCK, ENTRY, Entry, Manifest, Prefix, SIGNATURE, Signature, sha256};
use crate::chunk::pack;
use crate::medium::Medium;
use crate::offer::Signed;

/// Why a bundle can't be made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RebuildError<E> {
    /// The medium failed.
    Medium(E),
    /// The slot holds something else by now.
    Changed,
    /// Whoever made the bundle packed it in another way than this system does.
    Packed,
}

impl<E: fmt::Display> fmt::Display for RebuildError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Medium(e) => write!(f, "the card can't be read: {e}"),
            Self::Changed => f.write_str("the slot holds something else by now"),
            Self::Packed => f.write_str("it was packed in another way than this system packs"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for RebuildError<E> {}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Rebuild {
    /// Where the slot begins on the medium.
    start: u64,
    manifest: Manifest,
    /// Manifest and signatures as they were.
    signed: Vec<u8>,
    table: Vec<Entry>,
    began: bool,
    /// The next chunk, and its place in its part.
    chunk: usize,
    part: usize,
    in_part: u32,
    at: u64,
}

impl Rebuild {
    pub(crate) const fn new(start: u64, manifest: Manifest, signed: Vec<u8>, table: Vec<Entry>) -> Self {
        Self { start, manifest, signed, table, began: false, chunk: 0, part: 0, in_part: 0, at: 0 }
    }

    /// Bytes of the whole bundle.
    pub fn len(&self) -> u64 {
        let stored: u64 = self.table.iter().map(|e| u64::from(e.stored)).sum();
        (crate::bundle::PREFIX + self.signed.len() + self.table.len() * ENTRY) as u64 + stored
    }

    /// Never; clippy wants to know.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What an offer of it is made of, with its signatures in `signatures`.
    pub fn signed<'a>(
        &'a self,
        signatures: &'a mut Vec<Signature>,
        version: &'a str,
        release: u64,
    ) -> Signed<'a> {
        let (manifest, rest) = self.signed.split_at(self.manifest_len());
        *signatures = Signature::parse_all(rest);
        Signed { manifest, signatures, release, version }
    }

    fn manifest_len(&self) -> usize {
        self.manifest.encode().len().min(self.signed.len())
    }

    /// The bundle's next bytes, at most some 330 kB (the table) or 128 KiB (a chunk); `None` at its end.
    ///
    /// # Errors
    /// See [`RebuildError`].
    pub fn next<M: Medium>(&mut self, medium: &mut M) -> Result<Option<Vec<u8>>, RebuildError<M::Error>> {
        if !self.began {
            self.began = true;
            let manifest = self.manifest_len();
            let signatures = (self.signed.len() - manifest) / SIGNATURE;
            let mut head = Prefix { manifest, signatures }.encode().to_vec();
            head.extend_from_slice(&self.signed);
            self.table.iter().for_each(|e| head.extend_from_slice(&e.encode()));
            return Ok(Some(head));
        }
        let Some(entry) = self.table.get(self.chunk).copied() else { return Ok(None) };
        let header = self.manifest.slot_header().map_err(|_| RebuildError::Changed)?;
        while self.manifest.parts.get(self.part).is_some_and(|p| self.in_part >= p.chunks) {
            (self.part, self.in_part, self.at) = (self.part + 1, 0, 0);
        }
        let part = self.manifest.parts.get(self.part).ok_or(RebuildError::Changed)?;
        let at = part.kind.place(&header).0 + self.at;
        let skip = (at % BLOCK as u64) as usize;
        let mut bytes = alloc::vec![0; (skip + entry.size as usize).next_multiple_of(BLOCK)];
        medium.read(self.start + at - skip as u64, &mut bytes).map_err(RebuildError::Medium)?;
        bytes.truncate(skip + entry.size as usize);
        bytes.drain(..skip);
        if sha256(&bytes) != entry.sha256 {
            return Err(RebuildError::Changed);
        }
        self.chunk += 1;
        self.in_part += 1;
        self.at += u64::from(entry.size);
        if entry.stored == entry.size {
            return Ok(Some(bytes));
        }
        let (packed, bytes) = pack(&bytes);
        if packed.stored == entry.stored { Ok(Some(bytes)) } else { Err(RebuildError::Packed) }
    }
}

//! Which chunks the running slot has already: it is cut as bundles are, and found by hash.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::bundle::{BLOCK, Entry, MAX_CHUNK, MAX_CHUNKS, PartKind, sha256};
use crate::chunk::cut;
use crate::header::SlotHeader;
use crate::mbr::Partition;
use crate::medium::Medium;
use crate::sector::SECTOR;

/// The running slot's chunks.
pub(crate) struct Reuse {
    start: u64,
    sectors: u32,
    /// Parts that were not read yet: place and length; the last one is read now.
    parts: Option<Vec<(u64, u64)>>,
    /// Where each chunk begins on the medium, and its length.
    chunks: BTreeMap<[u8; 32], (u64, u32)>,
}

impl Reuse {
    pub(crate) fn new(running: Partition) -> Self {
        let start = u64::from(running.start) * SECTOR as u64;
        Self { start, sectors: running.sectors, parts: None, chunks: BTreeMap::new() }
    }

    pub(crate) fn find(&self, sha256: &[u8; 32]) -> Option<(u64, u32)> {
        self.chunks.get(sha256).copied()
    }

    /// Reads the next chunk; false when there is none. What can't be read or understood is not reused.
    pub(crate) fn step<M: Medium>(&mut self, medium: &mut M, buffer: &mut Vec<u8>) -> Result<bool, M::Error> {
        let Some(parts) = &mut self.parts else {
            let mut sector = [0; SECTOR];
            medium.read(self.start, &mut sector)?;
            let known = SlotHeader::parse(&sector).ok().filter(|h| h.sectors() <= self.sectors.into());
            self.parts = Some(known.map_or_else(Vec::new, |h| PartKind::ALL.map(|k| k.place(&h)).to_vec()));
            return Ok(true);
        };
        let Some((at, left)) = parts.last_mut() else { return Ok(false) };
        if *left == 0 || self.chunks.len() >= MAX_CHUNKS as usize {
            parts.pop();
            return Ok(true);
        }
        let (here, len) = (self.start + *at, (*left).min(MAX_CHUNK as u64) as usize);
        let bytes = read(medium, here, len, buffer)?;
        let size = cut(bytes);
        let hash = sha256(bytes.get(..size).unwrap_or_default());
        self.chunks.insert(hash, (here, size as u32));
        *at += size as u64;
        *left -= size as u64;
        Ok(true)
    }

    /// The bytes of a chunk, if the medium still gives them; else it is forgotten.
    pub(crate) fn fetch<'a, M: Medium>(
        &mut self,
        medium: &mut M,
        entry: &Entry,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, M::Error> {
        let Some((at, size)) = self.find(&entry.sha256) else { return Ok(None) };
        let bytes = read(medium, at, size as usize, buffer)?;
        if size == entry.size && sha256(bytes) == entry.sha256 {
            return Ok(Some(bytes));
        }
        self.chunks.remove(&entry.sha256);
        Ok(None)
    }
}

/// Reads `len` bytes (at most [`MAX_CHUNK`]) from anywhere on the medium.
fn read<'a, M: Medium>(
    medium: &mut M,
    at: u64,
    len: usize,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], M::Error> {
    let skip = (at % BLOCK as u64) as usize;
    buffer.resize(MAX_CHUNK + 2 * BLOCK, 0);
    let span = (skip + len).next_multiple_of(BLOCK);
    medium.read(at - skip as u64, buffer.get_mut(..span).unwrap_or_default())?;
    Ok(buffer.get(skip..skip + len).unwrap_or_default())
}

//! Cutting parts into chunks, packing them, and unpacking within bounds.
//!
//! The cuts follow the content (a gear hash over the last 64 bytes), so that bytes put in at one place move no cut far
//! away: what did not change between two versions is the same chunks in both.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

use crate::bundle::{Entry, MAX_CHUNK, sha256};
use crate::refusal::Refusal;

/// No cut comes sooner.
const MIN_CHUNK: usize = 32 * 1024;
/// Behind that, every 32 KiB on average.
const MASK: u64 = (32 * 1024 - 1) << 49;

/// The gear hash's random numbers: splitmix64 of the byte.
const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut z = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        #[allow(clippy::indexing_slicing)] // at compile time
        {
            table[i] = z ^ (z >> 31);
        }
        i += 1;
    }
    table
};

/// Length of the chunk that `bytes` begins with: at most [`MAX_CHUNK`], all of `bytes` if there is no cut. The
/// caller gives at least [`MAX_CHUNK`] bytes, or all that the part has left.
pub fn cut(bytes: &[u8]) -> usize {
    let end = bytes.len().min(MAX_CHUNK);
    let mut hash = 0u64;
    // What lies before the last 64 bytes is shifted out, so hashing begins that much before the first cut.
    let from = MIN_CHUNK - 64;
    for (at, byte) in bytes.iter().enumerate().take(end).skip(from) {
        hash = (hash << 1).wrapping_add(GEAR.get(usize::from(*byte)).copied().unwrap_or(0));
        if at + 1 >= MIN_CHUNK && hash & MASK == 0 {
            return at + 1;
        }
    }
    end
}

/// Packs one chunk: deflate where that makes it smaller, else as it is.
pub fn pack(chunk: &[u8]) -> (Entry, Vec<u8>) {
    let packed = miniz_oxide::deflate::compress_to_vec(chunk, 9);
    let stored = if packed.len() < chunk.len() { packed } else { chunk.to_vec() };
    let entry = Entry { sha256: sha256(chunk), size: chunk.len() as u32, stored: stored.len() as u32 };
    (entry, stored)
}

/// Unpacks chunks; holds its memory (140 kB) from one to the next.
pub struct Unpacker {
    inflate: Box<DecompressorOxide>,
    out: Vec<u8>,
}

impl core::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

impl Default for Unpacker {
    fn default() -> Self {
        Self { inflate: Box::default(), out: vec![0; MAX_CHUNK] }
    }
}

impl Unpacker {
    /// The chunk's bytes, if they are the ones that were signed. Never writes more than the entry's size.
    ///
    /// # Errors
    /// [`Refusal::Bomb`] or [`Refusal::Chunk`], with `number`.
    pub fn unpack<'a>(
        &'a mut self,
        number: u32,
        entry: &Entry,
        stored: &'a [u8],
    ) -> Result<&'a [u8], Refusal> {
        if stored.len() != entry.stored as usize {
            return Err(Refusal::Chunk(number));
        }
        let bytes = if entry.stored == entry.size {
            stored
        } else {
            let out = self.out.get_mut(..entry.size as usize).ok_or(Refusal::Chunk(number))?;
            self.inflate.init();
            let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
            let (status, read, written) = decompress(&mut self.inflate, stored, out, 0, flags);
            match status {
                TINFLStatus::Done if written == out.len() && read == stored.len() => &*out,
                TINFLStatus::HasMoreOutput => return Err(Refusal::Bomb(number)),
                _ => return Err(Refusal::Chunk(number)),
            }
        };
        if sha256(bytes) == entry.sha256 { Ok(bytes) } else { Err(Refusal::Chunk(number)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, mut seed: u64) -> Vec<u8> {
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    fn chunks(mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut list = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(cut(bytes));
            list.push(chunk);
            bytes = rest;
        }
        list
    }

    #[test]
    fn an_insertion_moves_few_cuts() {
        let old = noise(4 << 20, 1);
        let mut new = old.clone();
        new.splice(1_000_000..1_000_000, *b"a few more bytes");
        let (a, b) = (chunks(&old), chunks(&new));
        assert!(
            a.iter().all(|c| c.len() <= MAX_CHUNK) && a.iter().rev().skip(1).all(|c| c.len() >= MIN_CHUNK)
        );
        let average = old.len() / a.len();
        assert!((48_000..90_000).contains(&average), "{average}");
        let fresh: usize = b.iter().filter(|c| !a.contains(c)).map(|c| c.len()).sum();
        assert!(fresh <= 3 * MAX_CHUNK, "{fresh}");
        assert_eq!(cut(&old), cut(&old[..MAX_CHUNK]), "what follows the longest chunk does not matter");
    }

    #[test]
    fn chunks_come_out_as_they_went_in_or_not_at_all() {
        let mut unpacker = Unpacker::default();
        for chunk in [noise(70_000, 3), vec![7; MAX_CHUNK], b"x".to_vec()] {
            let (entry, stored) = pack(&chunk);
            assert_eq!(unpacker.unpack(0, &entry, &stored), Ok(&*chunk));
            for at in [0, stored.len() / 2, stored.len() - 1] {
                let mut bad = stored.clone();
                bad[at] ^= 1;
                assert!(unpacker.unpack(5, &entry, &bad).is_err());
            }
            assert_eq!(unpacker.unpack(5, &entry, &stored[1..]), Err(Refusal::Chunk(5)));
        }
        let (entry, stored) = pack(&vec![0; MAX_CHUNK]);
        let small = Entry { size: 4096, ..entry };
        assert_eq!(unpacker.unpack(6, &small, &stored), Err(Refusal::Bomb(6)));
    }
}

//! Sharded directories: a hash array mapped trie over the entries' names (the UnixFS specification).

use alloc::format;

/// Slots of a shard that is made here: one byte of the hash each.
pub(crate) const FANOUT: u64 = 256;
/// Bytes of the hash: the deepest a trie can get.
pub(crate) const HASH_BYTES: usize = 8;

/// The hash of a name as the trie consumes it: murmur3-x64-64, most significant byte first.
pub(crate) fn name_hash(name: &str) -> [u8; HASH_BYTES] {
    murmur3_x64_64(name.as_bytes()).to_be_bytes()
}

/// Hexadecimal digits a shard of that fan-out puts before each link's name.
pub(crate) fn prefix_length(fanout: u64) -> usize {
    format!("{:X}", fanout.saturating_sub(1)).len()
}

/// The slot of `hash` in a shard of 2^`width` slots, after `used` bits were consumed above it.
pub(crate) fn slot_of(hash: [u8; HASH_BYTES], used: u32, width: u32) -> Option<u64> {
    let left = 64u32.checked_sub(used + width)?;
    Some((u64::from_be_bytes(hash) >> left) & ((1 << width) - 1))
}

/// The first 64 bits of MurmurHash3 x64 128 with seed 0.
pub fn murmur3_x64_64(data: &[u8]) -> u64 {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mix1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |w, b| (w << 8) | u64::from(*b));
    let (mut h1, mut h2) = (0u64, 0u64);
    let mut blocks = data.chunks_exact(16);
    for block in &mut blocks {
        let (low, high) = block.split_at(8);
        h1 =
            (h1 ^ mix1(word(low))).rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 = (h2 ^ mix2(word(high)))
            .rotate_left(31)
            .wrapping_add(h1)
            .wrapping_mul(5)
            .wrapping_add(0x3849_5ab5);
    }
    let tail = blocks.remainder();
    let (low, high) = tail.split_at(tail.len().min(8));
    h2 ^= mix2(word(high));
    h1 ^= mix1(word(low));
    h1 ^= data.len() as u64;
    h2 ^= data.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    finish(h1).wrapping_add(finish(h2))
}

/// Murmur's finalizer.
const fn finish(mut h: u64) -> u64 {
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur3_reference_values() {
        assert_eq!(murmur3_x64_64(b""), 0);
        assert_eq!(murmur3_x64_64(b"hello"), 0xcbd8_a7b3_41bd_9b02);
        assert_eq!(murmur3_x64_64(b"The quick brown fox jumps over the lazy dog"), 0xe34b_bc7b_bc07_1b6c);
    }

    #[test]
    fn slots_are_taken_from_the_top() {
        let hash = 0x1234_5678_9abc_def0u64.to_be_bytes();
        assert_eq!(slot_of(hash, 0, 8), Some(0x12));
        assert_eq!(slot_of(hash, 8, 4), Some(0x3));
        assert_eq!(slot_of(hash, 56, 8), Some(0xf0));
        assert_eq!(slot_of(hash, 64, 8), None);
        assert_eq!(prefix_length(256), 2);
        assert_eq!(prefix_length(1024), 3);
        assert_eq!(prefix_length(16), 1);
    }
}

//! What is on a partition, told from its first bytes.

/// That many bytes from the start are looked at.
pub(crate) const HEAD: usize = 64 * 1024;
/// Blocks (of 4096 bytes) that hold a copy of the superblock in a file system of ours.
pub(crate) const BACKUPS: [u64; 2] = [32_768, 98_304];
/// Bytes of a block.
pub(crate) const BLOCK: u64 = 4096;

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing was ever written: all zero, or erased flash.
    Blank,
    /// An ext4.
    Ext4(Superblock),
    /// Something else.
    Other,
}

/// What the superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Blocks in all.
    pub(crate) blocks: u64,
    /// Bytes of a block.
    pub(crate) block_size: u64,
    /// The kernel or e2fsck found mistakes in it.
    pub(crate) damaged: bool,
}

/// Tells what begins with `head`.
pub(crate) fn probe(head: &[u8]) -> Found {
    if let Some(superblock) = head.get(1024..2048).and_then(superblock) {
        return Found::Ext4(superblock);
    }
    let first = head.first().copied().unwrap_or(0);
    if (first == 0 || first == 0xff) && head.iter().all(|b| *b == first) {
        Found::Blank
    } else {
        Found::Other
    }
}

/// Reads a superblock (1024 bytes).
pub(crate) fn superblock(bytes: &[u8]) -> Option<Superblock> {
    let u16_at = |at: usize| bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes);
    let u32_at = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    if u16_at(0x38)? != 0xef53 {
        return None;
    }
    let shift = u32_at(0x18)?;
    let wide = u32_at(0x60)? & 0x80 != 0; // 64-bit block numbers
    let high = if wide { u64::from(u32_at(0x150)?) } else { 0 };
    let blocks = high << 32 | u64::from(u32_at(0x04)?);
    if shift > 6 || blocks == 0 {
        return None;
    }
    // 1: cleanly unmounted, 2: mistakes were found. A journal to replay is no damage.
    let state = u16_at(0x3a)?;
    Some(Superblock { blocks, block_size: 1024 << shift, damaged: state & 2 != 0 || state & 1 == 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut head = vec![0; HEAD];
        head[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
        head[1024 + 0x18] = 2;
        head[1024 + 0x3a] = 1;
        head[1024 + 4..1024 + 8].copy_from_slice(&1000u32.to_le_bytes());
        change(&mut head);
        head
    }

    #[test]
    fn what_is_there() {
        let good = Superblock { blocks: 1000, block_size: 4096, damaged: false };
        assert_eq!(probe(&head(|_| ())), Found::Ext4(good));
        assert_eq!(probe(&head(|h| h[1024 + 0x3a] = 3)), Found::Ext4(Superblock { damaged: true, ..good }));
        assert_eq!(probe(&head(|h| h[1024 + 0x3a] = 0)), Found::Ext4(Superblock { damaged: true, ..good }));
        let wide = head(|h| {
            h[1024 + 0x60] = 0x80;
            h[1024 + 0x150] = 1;
        });
        assert_eq!(probe(&wide), Found::Ext4(Superblock { blocks: (1 << 32) + 1000, ..good }));
        assert_eq!(probe(&head(|h| h[1024 + 0x18] = 7)), Found::Other);
        assert_eq!(probe(&head(|h| h[1024 + 4..1024 + 8].fill(0))), Found::Other);
        assert_eq!(probe(&[0; HEAD]), Found::Blank);
        assert_eq!(probe(&[0xff; HEAD]), Found::Blank);
        assert_eq!(probe(&[7; HEAD]), Found::Other);
        assert_eq!(probe(b"short"), Found::Other);
        assert_eq!(probe(b""), Found::Blank);
    }
}

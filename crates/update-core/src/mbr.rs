//! The partition table in the card's first sector, as far as finding the slots needs it.

use crate::sector::SECTOR;

/// A primary partition, in sectors of 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// First sector.
    pub start: u32,
    /// Number of sectors.
    pub sectors: u32,
}

/// The four primary partitions; `None` for an unused entry. `None` in all if the sector has no MBR's mark.
pub fn parse_mbr(sector: &[u8; SECTOR]) -> [Option<Partition>; 4] {
    let mut table = [None; 4];
    if !sector.ends_with(&[0x55, 0xaa]) {
        return table;
    }
    let entries = sector.get(446..510).unwrap_or_default().as_chunks::<16>().0;
    for (slot, entry) in table.iter_mut().zip(entries) {
        let [_, _, _, _, kind, _, _, _, s0, s1, s2, s3, n0, n1, n2, n3] = *entry;
        let (start, sectors) = (u32::from_le_bytes([s0, s1, s2, s3]), u32::from_le_bytes([n0, n1, n2, n3]));
        if kind != 0 && sectors != 0 {
            *slot = Some(Partition { start, sectors });
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_partitions() {
        let mut s = [0; SECTOR];
        assert_eq!(parse_mbr(&s), [None; 4]);
        s[510] = 0x55;
        s[511] = 0xaa;
        s[446 + 16 + 4] = 0xda;
        s[446 + 16 + 8..446 + 32].copy_from_slice(&[0, 0, 2, 0, 0, 0, 2, 0]);
        assert_eq!(parse_mbr(&s), [None, Some(Partition { start: 0x20000, sectors: 0x20000 }), None, None]);
    }
}

//! The card's partition table (MBR): how the data partition gets the rest of the card.
//!
//! The whole change is one sector, so that a power cut leaves the old table or the new one.

use std::fmt;

/// Bytes of the sector that holds the table.
pub(crate) const SECTOR: usize = 512;
/// The data partition.
pub(crate) const DATA: usize = 4;
/// Linux.
const TYPE_LINUX: u8 = 0x83;
/// The end is rounded down to this many sectors (1 MiB).
const ALIGN: u64 = 2048;
/// Less than this many sectors (8 MiB) is not worth a change.
const WORTH: u64 = 16 * 1024;

/// One entry of the table, in sectors of 512 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Type; 0: unused.
    pub(crate) kind: u8,
    pub(crate) start: u64,
    pub(crate) sectors: u64,
}

impl Part {
    const fn used(&self) -> bool {
        self.kind != 0 && self.sectors != 0
    }
    const fn end(&self) -> u64 {
        self.start + self.sectors
    }
}

/// What to do with the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It is right; the data partition is this.
    Keep(Part),
    /// Write this sector; the data partition is then this.
    Write(Box<[u8; SECTOR]>, Part),
    /// Hands off, and why.
    Refuse(Refusal),
}

/// Why the table is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It has no signature.
    NoTable,
    /// The partitions before the data partition are not there.
    NotOurs,
    /// The data partition overlaps another one.
    Overlap,
    /// There is no room behind the slots.
    NoRoom,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTable => "the card has no partition table",
            Self::NotOurs => "the card's partition table is not that of a p2pmesh card",
            Self::Overlap => "the data partition overlaps another one",
            Self::NoRoom => "the card has no room for a data partition",
        })
    }
}

const fn entry_at(number: usize) -> usize {
    446 + (number - 1) * 16
}

/// The four entries; `None` without the table's signature.
fn parse(sector: &[u8; SECTOR]) -> Option<[Part; 4]> {
    if !sector.ends_with(&[0x55, 0xaa]) {
        return None;
    }
    let part = |number| {
        let at = entry_at(number);
        let word = |at: usize| {
            let bytes = sector.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or_default();
            u64::from(u32::from_le_bytes(bytes))
        };
        Part { kind: sector.get(at + 4).copied().unwrap_or(0), start: word(at + 8), sectors: word(at + 12) }
    };
    Some([part(1), part(2), part(3), part(4)])
}

/// What to do so that the data partition reaches to the end of a card of `card_sectors`.
pub(crate) fn plan(sector: &[u8; SECTOR], card_sectors: u64) -> Plan {
    let Some([boot, a, b, data]) = parse(sector) else { return Plan::Refuse(Refusal::NoTable) };
    if ![boot, a, b].iter().all(Part::used) {
        return Plan::Refuse(Refusal::NotOurs);
    }
    let behind = boot.end().max(a.end()).max(b.end());
    if data.used() && data.start < behind {
        return Plan::Refuse(Refusal::Overlap);
    }
    let start = if data.used() { data.start } else { behind.next_multiple_of(ALIGN) };
    // An MBR counts to 2^32 sectors (2 TiB).
    let end = card_sectors.min(u64::from(u32::MAX)) / ALIGN * ALIGN;
    if end <= start {
        return Plan::Refuse(Refusal::NoRoom);
    }
    let wanted = Part { kind: TYPE_LINUX, start, sectors: end - start };
    // Never smaller, unless it reaches past the end of the card (a copy of a larger card).
    if data.used() && data.end() + WORTH > wanted.end() && data.end() <= card_sectors {
        return Plan::Keep(data);
    }
    let mut new = Box::new(*sector);
    // 0xfffffe as cylinder, head and sector: "see the sector numbers".
    let mut entry = vec![0, 0xfe, 0xff, 0xff, wanted.kind, 0xfe, 0xff, 0xff];
    entry.extend((wanted.start as u32).to_le_bytes());
    entry.extend((wanted.sectors as u32).to_le_bytes());
    let at = entry_at(DATA);
    if let Some(place) = new.get_mut(at..at + 16) {
        place.copy_from_slice(&entry);
    }
    Plan::Write(new, wanted)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A table with these partitions (type, start, length in sectors).
    pub(crate) fn table(parts: [(u8, u32, u32); 4]) -> [u8; SECTOR] {
        let mut sector = [0xc3; SECTOR]; // the boot code and signature must survive
        for (i, (kind, start, length)) in parts.into_iter().enumerate() {
            let at = entry_at(i + 1);
            sector[at..at + 16].fill(0);
            sector[at + 4] = kind;
            sector[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            sector[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    const MIB: u32 = 2048;
    const BOOT: (u8, u32, u32) = (0x0c, 16 * MIB, 48 * MIB);
    const A: (u8, u32, u32) = (0xda, 64 * MIB, 64 * MIB);
    const B: (u8, u32, u32) = (0xda, 128 * MIB, 64 * MIB);
    const NONE: (u8, u32, u32) = (0, 0, 0);
    const GIB: u64 = 1024 * MIB as u64;

    fn data(start_mib: u32, mib: u32) -> (u8, u32, u32) {
        (0x83, start_mib * MIB, mib * MIB)
    }

    fn part(start_mib: u32, mib: u32) -> Part {
        Part { kind: 0x83, start: u64::from(start_mib * MIB), sectors: u64::from(mib * MIB) }
    }

    #[test]
    fn the_decision_table() {
        let grow = |p: Part| Some(p);
        for (what, parts, card, want) in [
            ("placeholder", [BOOT, A, B, data(192, 4)], GIB, grow(part(192, 832))),
            ("no entry yet", [BOOT, A, B, NONE], GIB, grow(part(192, 832))),
            ("larger card", [BOOT, A, B, data(192, 832)], 2 * GIB, grow(part(192, 1856))),
            ("past the end of the card", [BOOT, A, B, data(192, 1856)], GIB, grow(part(192, 832))),
            ("done", [BOOT, A, B, data(192, 832)], GIB, None),
            ("done, odd end", [BOOT, A, B, data(192, 832)], GIB + 100, None),
            ("not worth it", [BOOT, A, B, data(192, 830)], GIB, None),
            ("somewhere else, by hand", [BOOT, A, B, data(300, 724)], GIB, None),
        ] {
            match (plan(&table(parts), card), want) {
                (Plan::Keep(p), None) => {
                    assert_eq!(p, part(p.start as u32 / MIB, p.sectors as u32 / MIB), "{what}")
                }
                (Plan::Write(new, p), Some(w)) => {
                    assert_eq!(p, w, "{what}");
                    assert_eq!(parse(&new).unwrap()[3], w, "{what}");
                    assert_eq!(plan(&new, card), Plan::Keep(w), "{what}: again");
                    let same =
                        |r: std::ops::Range<usize>| assert_eq!(new[r.clone()], table(parts)[r], "{what}");
                    same(0..entry_at(4));
                    same(510..512);
                }
                (other, _) => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        for (parts, card, want) in [
            ([BOOT, A, NONE, data(192, 4)], GIB, Refusal::NotOurs),
            ([NONE, NONE, NONE, NONE], GIB, Refusal::NotOurs),
            ([BOOT, A, B, data(100, 4)], GIB, Refusal::Overlap),
            ([BOOT, A, B, NONE], 192 * u64::from(MIB), Refusal::NoRoom),
            ([BOOT, A, B, NONE], 0, Refusal::NoRoom),
        ] {
            assert_eq!(plan(&table(parts), card), Plan::Refuse(want));
        }
        let mut sector = table([BOOT, A, B, NONE]);
        sector[511] = 0;
        assert_eq!(plan(&sector, GIB), Plan::Refuse(Refusal::NoTable));
    }

    #[test]
    fn a_card_above_two_tebibytes_is_used_up_to_there() {
        let Plan::Write(_, p) = plan(&table([BOOT, A, B, NONE]), 1 << 33) else { panic!() };
        assert_eq!(p.end(), (1 << 32) - ALIGN);
    }

    #[test]
    fn rubbish_never_panics() {
        for byte in 0..=255u8 {
            let mut sector = [byte; SECTOR];
            sector[510..].copy_from_slice(&[0x55, 0xaa]);
            let _ = plan(&sector, u64::MAX);
            let _ = plan(&sector, 0);
        }
    }
}

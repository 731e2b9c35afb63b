//! A card as power left it: which slot the boot script takes, and whether all of that slot is there.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mesh_lab::lab::Result;
use update_core::bundle::{PartKind, sha256};
use update_core::{
    BootState, Copy, Partition, SECTOR, Slot, SlotHeader, crc32, parse_mbr, partition_of, pick, read_copies,
};

/// The systems that a card may boot: version, and the bytes of the slot.
pub(super) struct Systems(BTreeMap<String, [[u8; 32]; 4]>);

impl Systems {
    /// Reads slots as the build or a test wrote them.
    pub(super) fn read(files: &[PathBuf]) -> Result<Self> {
        let mut systems = BTreeMap::new();
        for path in files {
            let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let header = bytes.first_chunk().ok_or("a slot without a header")?;
            let header = SlotHeader::parse(header).map_err(|e| format!("{}: {e}", path.display()))?;
            let part = |kind: PartKind| {
                let (at, len) = kind.place(&header);
                bytes.get(at as usize..(at + len) as usize).map(sha256).ok_or("a slot that is cut off")
            };
            let [i, k, r, h] = PartKind::ALL.map(part);
            systems.insert(header.version, [i?, k?, r?, h?]);
        }
        Ok(Self(systems))
    }
}

/// What is known of a slot until it is written again.
#[derive(Clone, Default)]
struct Known {
    bootable: Option<bool>,
    whole: Option<Result<String>>,
}

/// See the module's text.
pub(super) struct Card {
    file: File,
    slots: [Partition; 2],
    known: [Known; 2],
    /// Sectors of the data partition were written since that was looked at.
    pub(super) data_changed: bool,
}

impl Card {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|e| format!("{}: {e}", path.display()))?;
        let mut card = Self {
            file,
            slots: [Partition { start: 0, sectors: 0 }; 2],
            known: Default::default(),
            data_changed: true,
        };
        let table = parse_mbr(&card.sector(0)?);
        let of = |slot| table.get(partition_of(slot) - 1).copied().flatten().ok_or("no slots on the card");
        card.slots = [of(Slot::A)?, of(Slot::B)?];
        Ok(card)
    }

    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).map_err(|e| e.to_string())?];
        self.file.read_exact_at(&mut bytes, at).map_err(|e| format!("the card at {at}: {e}"))?;
        Ok(bytes)
    }

    pub(super) fn sector(&self, lba: u64) -> Result<[u8; SECTOR]> {
        let mut sector = [0; SECTOR];
        self.file
            .read_exact_at(&mut sector, lba * SECTOR as u64)
            .map_err(|e| format!("sector {lba}: {e}"))?;
        Ok(sector)
    }

    pub(super) fn write(&mut self, lba: u64, sector: &[u8; SECTOR]) -> Result<()> {
        self.file.write_all_at(sector, lba * SECTOR as u64).map_err(|e| format!("sector {lba}: {e}"))?;
        let [a, b] = &mut self.known;
        for (partition, known) in self.slots.iter().zip([a, b]) {
            if (u64::from(partition.start)..u64::from(partition.start) + u64::from(partition.sectors))
                .contains(&lba)
            {
                *known = Known::default();
            }
        }
        let end = self.slots.map(|p| u64::from(p.start) + u64::from(p.sectors)).into_iter().max();
        self.data_changed |= Some(lba) >= end;
        Ok(())
    }

    /// Whether a sector decides what boots: a copy of the boot state, or a slot's header.
    pub(super) fn decides(&self, lba: u64) -> bool {
        [Copy::First.lba(), Copy::Second.lba()].contains(&lba)
            || self.slots.iter().any(|p| u64::from(p.start) == lba)
    }

    /// The first byte of the data partition and its length, as the partition table says now.
    pub(super) fn data(&self) -> Result<(u64, u64)> {
        let table = parse_mbr(&self.sector(0)?);
        let p = table.get(3).copied().flatten().ok_or("no data partition")?;
        Ok((u64::from(p.start) * SECTOR as u64, u64::from(p.sectors) * SECTOR as u64))
    }

    /// The data partition's bytes into a file of its own.
    pub(super) fn copy_data(&self, to: &Path) -> Result<()> {
        let (at, len) = self.data()?;
        let out = File::create(to).and_then(|f| f.set_len(len).map(|()| f));
        let out = out.map_err(|e| format!("{}: {e}", to.display()))?;
        let mut done = 0;
        while done < len {
            let piece = self.read(at + done, (len - done).min(1 << 20))?;
            if piece.iter().any(|b| *b != 0) {
                out.write_all_at(&piece, done).map_err(|e| format!("{}: {e}", to.display()))?;
            }
            done += piece.len() as u64;
        }
        Ok(())
    }

    fn place(&self, slot: Slot) -> u64 {
        let [a, b] = self.slots;
        u64::from(if slot == Slot::A { a.start } else { b.start }) * SECTOR as u64
    }

    fn header(&self, slot: Slot) -> Option<SlotHeader> {
        SlotHeader::parse(&self.sector(self.place(slot) / SECTOR as u64).ok()?).ok()
    }

    /// What the boot script checks.
    fn bootable(&self, slot: Slot) -> bool {
        let Some(header) = self.header(slot) else { return false };
        [header.initramfs, header.kernel].iter().all(|part| {
            let at = self.place(slot) + u64::from(part.offset) * SECTOR as u64;
            self.read(at, part.len.into()).is_ok_and(|bytes| crc32(&bytes) == part.crc)
        })
    }

    /// Its version, if every byte of every part is as that version's.
    fn whole(&self, slot: Slot, systems: &Systems) -> Result<String> {
        let header = self.header(slot).ok_or("no header")?;
        let version = header.version.clone();
        let want =
            systems.0.get(&version).ok_or_else(|| format!("slot {slot} has a strange version {version}"))?;
        for (kind, want) in PartKind::ALL.into_iter().zip(want) {
            let (at, len) = kind.place(&header);
            if sha256(&self.read(self.place(slot) + at, len)?) != *want {
                return Err(format!("slot {slot} boots, and its {} is not version {version}'s", kind.name()));
            }
        }
        Ok(version)
    }

    /// The state that counts.
    pub(super) fn state(&self) -> Result<BootState> {
        let copies = read_copies(&self.sector(Copy::First.lba())?, &self.sector(Copy::Second.lba())?);
        if copies.copies.iter().all(std::result::Result::is_err) {
            return Err("both copies of the boot state are damaged".into());
        }
        Ok(copies.state)
    }

    /// The slot that boots next and its version, after a check of all of it.
    pub(super) fn boots(&mut self, systems: &Systems) -> Result<(Slot, String)> {
        let state = self.state()?;
        let index = |slot| usize::from(slot == Slot::B);
        let mut known = std::mem::take(&mut self.known);
        for slot in [Slot::A, Slot::B] {
            if let Some(k) = known.get_mut(index(slot)) {
                k.bootable.get_or_insert_with(|| self.bootable(slot));
            }
        }
        let picked = pick(&state, |slot| known.get(index(slot)).and_then(|k| k.bootable).unwrap_or(false));
        let result = match picked.slot {
            None => Err(format!("no slot boots (order {})", state.order_text())),
            Some(slot) => match known.get_mut(index(slot)) {
                Some(k) => {
                    let whole = k.whole.get_or_insert_with(|| self.whole(slot, systems)).clone();
                    whole.map(|version| (slot, version))
                }
                None => Err("no such slot".into()),
            },
        };
        self.known = known;
        result
    }
}

//! Sector 0 of a slot: what lies in it, where, with which checksum.

use alloc::format;
use alloc::string::{String, ToString};

use crate::sector::{SECTOR, SectorError, Vars};

/// A stretch of the slot that the boot script loads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// First sector, counted from the slot's start.
    pub offset: u32,
    /// Sectors it takes.
    pub sectors: u32,
    /// Its length in bytes.
    pub len: u32,
    /// CRC-32 of those bytes.
    pub crc: u32,
}

/// A stretch of the slot that dm-verity checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// First sector, counted from the slot's start.
    pub offset: u32,
    /// Sectors it takes.
    pub sectors: u32,
}

/// A slot's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotHeader {
    /// Version of the system in the slot.
    pub version: String,
    /// The kernel (`S_K…`).
    pub kernel: Part,
    /// The initramfs (`S_I…`).
    pub initramfs: Part,
    /// The root image (`S_R…`).
    pub image: Extent,
    /// Its dm-verity tree (`S_H…`).
    pub tree: Extent,
    /// The tree's root hash, 64 hexadecimal digits; also `p2pmesh.root=` on the kernel's command line.
    pub root: String,
    /// The tree's salt, hexadecimal.
    pub salt: String,
    /// Number of the release (`S_REL`): grows from release to release; 0 where the header has none.
    pub release: u64,
    /// Once this release has proved good on a node, nothing older than this is installed there (`S_FLOOR`).
    pub floor: u64,
}

impl SlotHeader {
    /// Reads a header.
    ///
    /// # Errors
    /// The sector's, and [`SectorError::Key`] for a missing or impossible value.
    pub fn parse(sector: &[u8; SECTOR]) -> Result<Self, SectorError> {
        let vars = Vars::parse(sector)?;
        let number = |key: &'static str| {
            vars.number(key).and_then(|n| u32::try_from(n).ok()).ok_or(SectorError::Key(key))
        };
        let version =
            vars.get("S_VER").filter(|v| !v.is_empty()).ok_or(SectorError::Key("S_VER"))?.to_string();
        let kernel = Part {
            offset: number("S_KOFF")?,
            sectors: number("S_KCNT")?,
            len: number("S_KLEN")?,
            crc: number("S_KCRC")?,
        };
        let initramfs = Part {
            offset: number("S_IOFF")?,
            sectors: number("S_ICNT")?,
            len: number("S_ILEN")?,
            crc: number("S_ICRC")?,
        };
        let fits = |p: &Part| p.offset > 0 && u64::from(p.len) <= u64::from(p.sectors) * SECTOR as u64;
        if !fits(&kernel) {
            return Err(SectorError::Key("S_KLEN"));
        }
        if !fits(&initramfs) {
            return Err(SectorError::Key("S_ILEN"));
        }
        let image = Extent { offset: number("S_ROFF")?, sectors: number("S_RCNT")? };
        let tree = Extent { offset: number("S_HOFF")?, sectors: number("S_HCNT")? };
        let hex = |key: &'static str, digits| {
            let usable = |v: &&str| {
                v.len().is_multiple_of(2) && v.len() <= 64 && v.chars().all(|c| c.is_ascii_hexdigit())
            };
            let value = vars.get(key).unwrap_or_default();
            Some(value)
                .filter(usable)
                .filter(|v| v.len() >= digits)
                .map(ToString::to_string)
                .ok_or(SectorError::Key(key))
        };
        Ok(Self {
            version,
            kernel,
            initramfs,
            image,
            tree,
            root: hex("S_ROOT", 64)?,
            salt: hex("S_SALT", 0)?,
            release: vars.number("S_REL").unwrap_or(0),
            floor: vars.number("S_FLOOR").unwrap_or(0),
        })
    }

    /// Sectors from the slot's start to the end of its last part.
    pub fn sectors(&self) -> u64 {
        let end = |offset: u32, sectors: u32| u64::from(offset) + u64::from(sectors);
        let loaded = [&self.kernel, &self.initramfs].into_iter().map(|p| end(p.offset, p.sectors));
        let checked = [&self.image, &self.tree].into_iter().map(|e| end(e.offset, e.sectors));
        loaded.chain(checked).max().unwrap_or(0)
    }

    /// Writes a header.
    ///
    /// # Errors
    /// [`SectorError::TooLong`] if version and root hash don't fit.
    pub fn encode(&self) -> Result<[u8; SECTOR], SectorError> {
        let mut vars = Vars::default();
        vars.set("S_VER", &self.version);
        vars.set("S_ROOT", &self.root);
        vars.set("S_SALT", &self.salt);
        for (name, number) in [("S_REL", self.release), ("S_FLOOR", self.floor)] {
            if number > 0 {
                vars.set(name, &format!("{number:x}"));
            }
        }
        for (letter, extent) in [('R', &self.image), ('H', &self.tree)] {
            vars.set(&format!("S_{letter}OFF"), &format!("{:x}", extent.offset));
            vars.set(&format!("S_{letter}CNT"), &format!("{:x}", extent.sectors));
        }
        for (letter, part) in [('K', &self.kernel), ('I', &self.initramfs)] {
            for (name, value) in
                [("OFF", part.offset), ("CNT", part.sectors), ("LEN", part.len), ("CRC", part.crc)]
            {
                vars.set(&format!("S_{letter}{name}"), &format!("{value:x}"));
            }
        }
        vars.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> SlotHeader {
        SlotHeader {
            version: "0.1.0+g1234567".into(),
            kernel: Part { offset: 0x1800, sectors: 0x6800, len: 0xcf_f801, crc: 0xdead_beef },
            initramfs: Part { offset: 1, sectors: 0x1000, len: 0x1f_ff00, crc: 7 },
            image: Extent { offset: 0x8000, sectors: 0x7000 },
            tree: Extent { offset: 0xf000, sectors: 0x800 },
            root: "ab".repeat(32),
            salt: "70327020".into(),
            release: 0x6920_1234,
            floor: 0x6910_0000,
        }
    }

    #[test]
    fn headers_round_trip_and_name_what_is_missing() {
        let h = sample();
        assert_eq!(SlotHeader::parse(&h.encode().unwrap()), Ok(h.clone()));
        assert_eq!(h.sectors(), 0xf800);
        assert_eq!(SlotHeader::parse(&[0; SECTOR]), Err(SectorError::Empty));
        let mut no_version = h.clone();
        no_version.version.clear();
        assert_eq!(SlotHeader::parse(&no_version.encode().unwrap()), Err(SectorError::Key("S_VER")));
        let mut short = h.clone();
        short.kernel.sectors = 1;
        assert_eq!(SlotHeader::parse(&short.encode().unwrap()), Err(SectorError::Key("S_KLEN")));
        let mut no_hash = h.clone();
        no_hash.root = "g".repeat(64);
        assert_eq!(SlotHeader::parse(&no_hash.encode().unwrap()), Err(SectorError::Key("S_ROOT")));
        let mut over_header = h;
        over_header.initramfs.offset = 0;
        assert_eq!(SlotHeader::parse(&over_header.encode().unwrap()), Err(SectorError::Key("S_ILEN")));
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), SECTOR - 4)) {
            let mut sector = crate::crc32(&bytes).to_le_bytes().to_vec();
            sector.extend(bytes);
            let _ = SlotHeader::parse(&sector.try_into().unwrap());
        }
    }
}

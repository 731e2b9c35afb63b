//! From the slot's header to device-mapper's tables.

use std::fmt;

use update_core::{SECTOR, SectorError, SlotHeader};

/// Sectors in one block of the root image and of its verity tree (4096 bytes).
const BLOCK_SECTORS: u32 = 8;

/// Why a header can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// The sector is no header.
    Sector(SectorError),
    /// The root image or its tree does not lie on whole blocks.
    Blocks,
    /// The parts do not fit into a slot of this many sectors.
    Size(u64),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Sector(error) => write!(f, "the slot's header can't be used: {error}"),
            HeaderError::Blocks => f.write_str("the slot's root image does not lie on whole blocks"),
            HeaderError::Size(sectors) => write!(f, "the slot's parts do not fit into its {sectors} sectors"),
        }
    }
}

/// A slot's root image, ready to be mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RootImage(SlotHeader);

impl RootImage {
    /// Reads the header of a slot that is `slot_sectors` long.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub(crate) fn parse(sector: &[u8; SECTOR], slot_sectors: u64) -> Result<Self, HeaderError> {
        let header = SlotHeader::parse(sector).map_err(HeaderError::Sector)?;
        let whole = |n: u32| n.is_multiple_of(BLOCK_SECTORS);
        if header.image.sectors == 0 || !whole(header.image.sectors) || !whole(header.tree.offset) {
            return Err(HeaderError::Blocks);
        }
        if header.sectors() > slot_sectors {
            return Err(HeaderError::Size(slot_sectors));
        }
        Ok(RootImage(header))
    }

    /// The slot's version, for people.
    pub(crate) fn version(&self) -> &str {
        &self.0.version
    }

    /// dm-verity's root hash, hexadecimal.
    pub(crate) fn root_hash(&self) -> &str {
        &self.0.root
    }

    /// Length of the root image in sectors.
    pub(crate) fn sectors(&self) -> u64 {
        self.0.image.sectors.into()
    }

    /// The parameters of the dm-linear target that cuts the root image out of the slot's `partition`.
    pub(crate) fn linear(&self, partition: &str) -> String {
        format!("{partition} {}", self.0.image.offset)
    }

    /// The parameters of the dm-verity target over the root image `image`, with the tree in `partition`.
    /// A block that fails its hash restarts the machine.
    pub(crate) fn verity(&self, image: &str, partition: &str) -> String {
        // The tree follows its superblock, which takes one block.
        let tree = self.0.tree.offset / BLOCK_SECTORS + 1;
        let blocks = self.0.image.sectors / BLOCK_SECTORS;
        // dm-verity's word for no salt is "-".
        let salt = if self.0.salt.is_empty() { "-" } else { &self.0.salt };
        format!(
            "1 {image} {partition} 4096 4096 {blocks} {tree} sha256 {} {salt} 1 restart_on_corruption",
            self.0.root
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use update_core::{Extent, Part};

    fn header() -> SlotHeader {
        SlotHeader {
            version: "1.2".into(),
            kernel: Part { offset: 0x100, sectors: 2, len: 1000, crc: 1 },
            initramfs: Part { offset: 8, sectors: 2, len: 1000, crc: 2 },
            image: Extent { offset: 0x800, sectors: 0x10 },
            tree: Extent { offset: 0x810, sectors: 0x10 },
            root: "ab".repeat(32),
            salt: "00ff".into(),
            ..SlotHeader::default()
        }
    }

    fn parse(header: &SlotHeader, slot_sectors: u64) -> Result<RootImage, HeaderError> {
        RootImage::parse(&header.encode().unwrap(), slot_sectors)
    }

    #[test]
    fn a_header_becomes_device_mapper_tables() {
        let image = parse(&header(), 0x820).unwrap();
        assert_eq!(image.version(), "1.2");
        assert_eq!(image.sectors(), 16);
        assert_eq!(image.linear("/dev/p2"), "/dev/p2 2048");
        let hash = "ab".repeat(32);
        assert_eq!(
            image.verity("/dev/dm-0", "/dev/p2"),
            format!("1 /dev/dm-0 /dev/p2 4096 4096 2 259 sha256 {hash} 00ff 1 restart_on_corruption")
        );
        let unsalted = parse(&SlotHeader { salt: String::new(), ..header() }, 0x820).unwrap();
        assert!(
            unsalted.verity("/dev/dm-0", "/dev/p2").ends_with(&format!("{hash} - 1 restart_on_corruption"))
        );
    }

    #[test]
    fn damaged_and_empty_headers_are_refused() {
        let mut bytes = header().encode().unwrap();
        bytes[40] ^= 4;
        assert_eq!(RootImage::parse(&bytes, 0x820), Err(HeaderError::Sector(SectorError::Checksum)));
        assert_eq!(RootImage::parse(&[0; SECTOR], 0x820), Err(HeaderError::Sector(SectorError::Empty)));
    }

    #[test]
    fn parts_off_the_block_grid_or_outside_of_the_slot_are_refused() {
        for (image, tree) in [((0x800, 0x11), 0x810), ((0x800, 0), 0x810), ((0x800, 0x10), 0x811)] {
            let header = SlotHeader {
                image: Extent { offset: image.0, sectors: image.1 },
                tree: Extent { offset: tree, sectors: 0x10 },
                ..header()
            };
            assert_eq!(parse(&header, 0x10000), Err(HeaderError::Blocks), "{header:?}");
        }
        assert_eq!(parse(&header(), 0x81f), Err(HeaderError::Size(0x81f)));
        let far = SlotHeader { image: Extent { offset: u32::MAX, sectors: 0x10 }, ..header() };
        assert_eq!(parse(&far, 0x820), Err(HeaderError::Size(0x820)));
    }
}

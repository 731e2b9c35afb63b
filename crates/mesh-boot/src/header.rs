//! The slot header: one sector in U-Boot's environment format, written by the image assembler and the
//! update service, read by the boot script and here.

use std::fmt;

/// Size of the header, in bytes.
pub(crate) const SECTOR: usize = 512;
/// Sectors in one block of the root image and of its verity tree (4096 bytes).
const BLOCK_SECTORS: u64 = 8;

/// Where a slot's root image lies and how it is verified. Offsets and counts in sectors of 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotHeader {
    /// Version of the slot's contents, for people.
    pub(crate) version: String,
    /// First sector of the root image, from the slot's start.
    pub(crate) root_offset: u64,
    /// Sectors of the root image.
    pub(crate) root_sectors: u64,
    /// First sector of the verity superblock, from the slot's start.
    pub(crate) tree_offset: u64,
    /// dm-verity's root hash, hexadecimal.
    pub(crate) root_hash: String,
    /// dm-verity's salt, hexadecimal.
    pub(crate) salt: String,
}

/// Why a header can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// The checksum is wrong, or the sector is short.
    Checksum,
    /// A field is missing or malformed.
    Field(&'static str),
    /// The parts do not fit into a slot of this many sectors.
    Size(u64),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Checksum => write!(f, "the slot's header is damaged (checksum)"),
            HeaderError::Field(name) => write!(f, "the slot's header has no usable {name}"),
            HeaderError::Size(sectors) => write!(f, "the slot's parts do not fit into its {sectors} sectors"),
        }
    }
}

impl SlotHeader {
    /// Parses a header sector of a slot that is `slot_sectors` long.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub(crate) fn parse(sector: &[u8], slot_sectors: u64) -> Result<Self, HeaderError> {
        let body = environment(sector).ok_or(HeaderError::Checksum)?;
        let number = |name| hex_number(body, name).ok_or(HeaderError::Field(name));
        let digest =
            |name| lookup(body, name).filter(|v| v.len() <= 128 && is_hex(v)).ok_or(HeaderError::Field(name));
        let header = SlotHeader {
            version: lookup(body, "S_VER").ok_or(HeaderError::Field("S_VER"))?.to_owned(),
            root_offset: number("S_ROFF")?,
            root_sectors: number("S_RCNT")?,
            tree_offset: number("S_HOFF")?,
            root_hash: digest("S_ROOT")?.to_owned(),
            salt: digest("S_SALT")?.to_owned(),
        };
        header.check(number("S_HCNT")?, slot_sectors)?;
        Ok(header)
    }

    fn check(&self, tree_sectors: u64, slot_sectors: u64) -> Result<(), HeaderError> {
        if self.root_sectors == 0 || !self.root_sectors.is_multiple_of(BLOCK_SECTORS) {
            return Err(HeaderError::Field("S_RCNT"));
        }
        if !self.tree_offset.is_multiple_of(BLOCK_SECTORS) {
            return Err(HeaderError::Field("S_HOFF"));
        }
        if self.root_hash.len() != 64 {
            return Err(HeaderError::Field("S_ROOT"));
        }
        let fits = |at: u64, count: u64| at.checked_add(count).is_some_and(|end| end <= slot_sectors);
        if fits(self.root_offset, self.root_sectors) && fits(self.tree_offset, tree_sectors) {
            Ok(())
        } else {
            Err(HeaderError::Size(slot_sectors))
        }
    }

    /// The parameters of the dm-linear target that cuts the root image out of the slot's `partition`.
    pub(crate) fn linear(&self, partition: &str) -> String {
        format!("{partition} {}", self.root_offset)
    }

    /// The parameters of the dm-verity target over the root image `image`, with the tree in `partition`.
    /// A block that fails its hash restarts the machine.
    pub(crate) fn verity(&self, image: &str, partition: &str) -> String {
        // The tree follows its superblock, which takes one block.
        let tree = self.tree_offset / BLOCK_SECTORS + 1;
        let blocks = self.root_sectors / BLOCK_SECTORS;
        format!(
            "1 {image} {partition} 4096 4096 {blocks} {tree} sha256 {} {} 1 restart_on_corruption",
            self.root_hash, self.salt
        )
    }
}

/// The body of an environment sector whose checksum is right.
fn environment(sector: &[u8]) -> Option<&[u8]> {
    let sector = sector.get(..SECTOR)?;
    let (crc, body) = sector.split_first_chunk::<4>()?;
    (crc32(body) == u32::from_le_bytes(*crc)).then_some(body)
}

/// The value of `name` in an environment.
fn lookup<'a>(body: &'a [u8], name: &str) -> Option<&'a str> {
    body.split(|b| *b == 0)
        .take_while(|item| !item.is_empty())
        .filter_map(|item| std::str::from_utf8(item).ok()?.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn hex_number(body: &[u8], name: &str) -> Option<u64> {
    let text = lookup(body, name)?;
    if is_hex(text) { u64::from_str_radix(text, 16).ok() } else { None }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// CRC-32 as in zlib and U-Boot, bit by bit: it runs over 508 bytes.
fn crc32(data: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
    };
    !data.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(text: &str) -> Vec<u8> {
        let mut body: Vec<u8> = text.bytes().map(|b| if b == b'\n' { 0 } else { b }).collect();
        body.resize(SECTOR - 4, 0);
        let mut sector = crc32(&body).to_le_bytes().to_vec();
        sector.extend(body);
        sector
    }

    fn good() -> String {
        format!(
            "S_VER=1.2\nS_ROFF=800\nS_RCNT=10\nS_HOFF=810\nS_HCNT=10\nS_ROOT={}\nS_SALT=00ff\n",
            "ab".repeat(32)
        )
    }

    #[test]
    fn crc_agrees_with_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_header_becomes_device_mapper_tables() {
        let header = SlotHeader::parse(&sector(&good()), 0x820).unwrap();
        assert_eq!(header.version, "1.2");
        assert_eq!(header.linear("/dev/p2"), "/dev/p2 2048");
        let hash = "ab".repeat(32);
        assert_eq!(
            header.verity("/dev/dm-0", "/dev/p2"),
            format!("1 /dev/dm-0 /dev/p2 4096 4096 2 259 sha256 {hash} 00ff 1 restart_on_corruption")
        );
    }

    #[test]
    fn a_flipped_bit_and_a_short_sector_are_noticed() {
        let mut bytes = sector(&good());
        bytes[40] ^= 4;
        assert_eq!(SlotHeader::parse(&bytes, 0x820), Err(HeaderError::Checksum));
        assert_eq!(SlotHeader::parse(&bytes[..100], 0x820), Err(HeaderError::Checksum));
        assert_eq!(SlotHeader::parse(&[], 0x820), Err(HeaderError::Checksum));
    }

    #[test]
    fn missing_and_malformed_fields_are_named() {
        for (from, to, name) in [
            ("S_RCNT=10", "S_RCNT=11", "S_RCNT"),
            ("S_RCNT=10", "S_RCNT=0", "S_RCNT"),
            ("S_HOFF=810", "S_HOFF=811", "S_HOFF"),
            ("S_ROFF=800", "S_ROFF=+800", "S_ROFF"),
            ("S_ROOT=ab", "S_ROOT=", "S_ROOT"),
            ("S_SALT=00ff", "S_SALT=; rm", "S_SALT"),
            ("S_VER=1.2\n", "", "S_VER"),
        ] {
            let text = good().replace(from, to);
            assert_eq!(SlotHeader::parse(&sector(&text), 0x820), Err(HeaderError::Field(name)), "{to}");
        }
    }

    #[test]
    fn parts_that_leave_the_slot_are_refused() {
        assert_eq!(SlotHeader::parse(&sector(&good()), 0x81f), Err(HeaderError::Size(0x81f)));
        let text = good().replace("S_ROFF=800", "S_ROFF=fffffffffffffff0");
        assert_eq!(SlotHeader::parse(&sector(&text), 0x820), Err(HeaderError::Size(0x820)));
    }
}

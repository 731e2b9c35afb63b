//! One sector of `key=value` texts, in U-Boot's environment format: little-endian CRC-32 of bytes 4..511,
//! then `key=value\0…\0\0`, padded with zeros.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::fmt;

use crate::crc32;

/// Bytes in a sector.
pub const SECTOR: usize = 512;

/// Why a sector can't be read or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectorError {
    /// Nothing but zeros: it was never written.
    Empty,
    /// The checksum does not fit the content.
    Checksum,
    /// The checksum fits, but a needed key is missing or has no usable value.
    Key(&'static str),
    /// The texts don't fit one sector.
    TooLong,
}

impl fmt::Display for SectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it was never written"),
            Self::Checksum => f.write_str("its checksum is wrong"),
            Self::Key(key) => write!(f, "its key {key} is missing or has no usable value"),
            Self::TooLong => f.write_str("the values don't fit one sector"),
        }
    }
}

impl core::error::Error for SectorError {}

/// The keys of a sector and their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vars(BTreeMap<String, String>);

impl Vars {
    /// Reads a sector. Texts that are not UTF-8 or have no `=` are passed over, as U-Boot does; of a key
    /// given twice the last counts.
    ///
    /// # Errors
    /// [`SectorError::Empty`] or [`SectorError::Checksum`].
    pub fn parse(sector: &[u8; SECTOR]) -> Result<Self, SectorError> {
        if sector.iter().all(|b| *b == 0) {
            return Err(SectorError::Empty);
        }
        let (sum, body) = sector.split_first_chunk::<4>().ok_or(SectorError::Checksum)?;
        if u32::from_le_bytes(*sum) != crc32(body) {
            return Err(SectorError::Checksum);
        }
        let texts = body.split(|b| *b == 0).take_while(|t| !t.is_empty());
        let pairs = texts.filter_map(|t| core::str::from_utf8(t).ok()?.split_once('='));
        Ok(Self(pairs.map(|(k, v)| (k.into(), v.into())).collect()))
    }

    /// Writes a sector, keys in alphabetical order as U-Boot's `env export` does; a key with an empty value
    /// is left out.
    ///
    /// # Errors
    /// [`SectorError::TooLong`].
    pub fn encode(&self) -> Result<[u8; SECTOR], SectorError> {
        let mut sector = [0; SECTOR];
        let mut at = 4;
        for (key, value) in self.0.iter().filter(|(_, v)| !v.is_empty()) {
            for part in [key.as_bytes(), b"=", value.as_bytes(), b"\0"] {
                // The last byte stays zero: it ends the list.
                let room = sector.get_mut(at..SECTOR - 1).ok_or(SectorError::TooLong)?;
                room.get_mut(..part.len()).ok_or(SectorError::TooLong)?.copy_from_slice(part);
                at += part.len();
            }
        }
        let sum = crc32(sector.get(4..).unwrap_or_default());
        if let Some(head) = sector.first_chunk_mut::<4>() {
            *head = sum.to_le_bytes();
        }
        Ok(sector)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Sets a key. Zero bytes and, in the key, `=` would break the format and are dropped.
    pub fn set(&mut self, key: &str, value: &str) {
        let key = key.chars().filter(|c| !matches!(c, '\0' | '=')).collect();
        self.0.insert(key, value.chars().filter(|c| *c != '\0').collect());
    }

    /// The value of a key as the script understands it: leading hexadecimal digits count, anything else is
    /// zero. `None` if there is no such key or no text.
    pub fn number(&self, key: &str) -> Option<u64> {
        let text = self.get(key).filter(|t| !t.is_empty())?;
        let digits = text.chars().map_while(|c| c.to_digit(16));
        Some(digits.fold(0u64, |n, d| n.saturating_mul(16).saturating_add(d.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_no_sector() {
        assert_eq!(Vars::parse(&[0; SECTOR]), Err(SectorError::Empty));
        assert_eq!(Vars::parse(&[0xff; SECTOR]), Err(SectorError::Checksum));
        let mut vars = Vars::default();
        vars.set("A", &"x".repeat(504));
        assert!(vars.encode().is_ok());
        vars.set("A", &"x".repeat(505));
        assert_eq!(vars.encode(), Err(SectorError::TooLong));
    }

    #[test]
    fn numbers_are_hexadecimal_and_lenient() {
        let mut vars = Vars::default();
        for (text, value) in
            [("10", 16), ("a", 10), ("3x", 3), ("zz", 0), ("0x5", 0), ("ffffffffffffffffff", u64::MAX)]
        {
            vars.set("N", text);
            assert_eq!(vars.number("N"), Some(value), "{text}");
        }
        vars.set("N", "");
        assert_eq!((vars.number("N"), vars.number("M")), (None, None));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(pairs in proptest::collection::btree_map("[A-Z_]{1,12}", "[ -~]{1,20}", 0..8)) {
            let mut vars = Vars::default();
            for (k, v) in &pairs { vars.set(k, v); }
            if pairs.is_empty() { return Ok(()); }
            prop_assert_eq!(Vars::parse(&vars.encode().unwrap()), Ok(vars));
        }

        #[test]
        fn every_flipped_bit_is_seen(at in 0usize..SECTOR, bit in 0u32..8) {
            let mut vars = Vars::default();
            vars.set("BS_SEQ", "1f");
            let mut sector = vars.encode().unwrap();
            sector[at] ^= 1 << bit;
            prop_assert_eq!(Vars::parse(&sector), Err(SectorError::Checksum));
        }

        #[test]
        fn any_body_with_a_right_checksum_parses(body in proptest::collection::vec(any::<u8>(), SECTOR - 4)) {
            let mut sector: Vec<u8> = crc32(&body).to_le_bytes().to_vec();
            sector.extend(body);
            let vars = Vars::parse(&sector.try_into().unwrap());
            prop_assert!(vars.is_ok());
        }
    }
}

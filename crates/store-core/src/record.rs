//! The format of segments, to the byte.
//!
//! A segment begins with a header of 32 bytes, then come records, each at a multiple of 8.
//! All numbers are little-endian.
//!
//! | segment header | bytes | |
//! |---|---|---|
//! | magic | 0..8 | `P2PMSEG1` |
//! | salt | 8..16 | random, the same in all segments of a store |
//! | number | 16..20 | the segment's own |
//! | zero | 20..28 | |
//! | CRC | 28..32 | CRC-32 of bytes 0..28 |
//!
//! | record | bytes | |
//! |---|---|---|
//! | magic | 0..4 | `rec1` |
//! | kind | 4 | 1 block, 2 pin, 3 unpin, 4 all pins |
//! | CID length | 5 | bytes, 0 for kind 4 |
//! | zero | 6..8 | |
//! | data length | 8..12 | bytes |
//! | durable to | 12..16 | all bytes of this segment before that offset were synced when this was written |
//! | CRC | 16..20 | CRC-32 of salt, bytes 0..16, CID, and the data unless it is a block |
//! | CID | 20.. | binary form |
//! | data | | block: its bytes; pin: one byte, 1 direct or 2 recursive; all pins: repeated kind, CID length, CID |
//! | padding | | zeros to a multiple of 8 |
//!
//! The salt keeps a block's bytes from passing as records: whoever makes a block can't know it.

use alloc::vec::Vec;

use content_id::Cid;

use crate::crc::crc32;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 32;
/// Bytes of a record before its CID.
pub const RECORD_HEADER: usize = 20;
/// Bytes a record's header and CID can take at most.
pub const MAX_HEAD: usize = RECORD_HEADER + 255;

const SEGMENT_MAGIC: &[u8; 8] = b"P2PMSEG1";
const RECORD_MAGIC: &[u8; 4] = b"rec1";

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A block.
    Block,
    /// A pin is set.
    Pin,
    /// A pin is removed.
    Unpin,
    /// All pins there are; earlier records about pins are void.
    AllPins,
}

/// A record without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it holds.
    pub kind: Kind,
    /// What it is about; `None` for [`Kind::AllPins`].
    pub cid: Option<Cid>,
    /// Bytes of data.
    pub data_length: u32,
    /// Bytes of the segment that were synced before this was written.
    pub durable_to: u32,
    /// Bytes before the data.
    pub head_length: u32,
    crc: u32,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// More bytes are needed.
    Short,
    /// They are something else, or damaged.
    Bad,
}

/// Encodes a segment's header.
pub fn segment_header(number: u32, salt: u64) -> [u8; SEGMENT_HEADER] {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER);
    bytes.extend_from_slice(SEGMENT_MAGIC);
    bytes.extend_from_slice(&salt.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    let crc = crc32(&[&bytes]);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.first_chunk().copied().unwrap_or([0; SEGMENT_HEADER])
}

/// The salt of a segment's header, if it is one of that number.
pub fn parse_segment_header(bytes: &[u8], number: u32) -> Option<u64> {
    let bytes: &[u8; SEGMENT_HEADER] = bytes.first_chunk()?;
    let salt = u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
    (*bytes == segment_header(number, salt)).then_some(salt)
}

/// Appends a record to `out`.
pub fn encode(kind: Kind, cid: Option<&Cid>, data: &[u8], durable_to: u32, salt: u64, out: &mut Vec<u8>) {
    let cid = cid.map(Cid::to_bytes).unwrap_or_default();
    let start = out.len();
    out.extend_from_slice(RECORD_MAGIC);
    out.push(kind as u8 + 1);
    out.push(cid.len() as u8);
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    out.extend_from_slice(&durable_to.to_le_bytes());
    let summed = if kind == Kind::Block { &[] } else { data };
    let crc = crc32(&[&salt.to_le_bytes(), out.get(start..).unwrap_or(&[]), &cid, summed]);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&cid);
    out.extend_from_slice(data);
    let padding = (start.wrapping_sub(out.len())) % 8;
    out.extend_from_slice([0; 8].get(..padding).unwrap_or(&[]));
}

/// Bytes a record takes, padding included.
pub fn length(cid_length: usize, data_length: usize) -> u64 {
    ((RECORD_HEADER + cid_length + data_length) as u64).next_multiple_of(8)
}

impl Head {
    /// Reads a record's head from the start of `bytes`. The CRC of kinds other than blocks also
    /// covers their data: check it with [`Head::matches`].
    pub fn parse(bytes: &[u8], salt: u64) -> Result<Self, RecordError> {
        let short = |have: &[u8]| {
            let prefix = have.len().min(4);
            let like = have.get(..prefix) == RECORD_MAGIC.get(..prefix);
            if like { RecordError::Short } else { RecordError::Bad }
        };
        let Some((fixed, rest)) = bytes.split_first_chunk::<RECORD_HEADER>() else {
            return Err(short(bytes));
        };
        let [m0, m1, m2, m3, kind, cid_length, 0, 0, l0, l1, l2, l3, d0, d1, d2, d3, crc @ ..] = *fixed
        else {
            return Err(RecordError::Bad);
        };
        let kind = match kind {
            1 => Kind::Block,
            2 => Kind::Pin,
            3 => Kind::Unpin,
            4 => Kind::AllPins,
            _ => return Err(RecordError::Bad),
        };
        if [m0, m1, m2, m3] != *RECORD_MAGIC || (kind == Kind::AllPins) != (cid_length == 0) {
            return Err(RecordError::Bad);
        }
        let cid = rest.get(..usize::from(cid_length)).ok_or(RecordError::Short)?;
        let head = Self {
            kind,
            cid: match cid {
                [] => None,
                bytes => Some(Cid::from_bytes(bytes).map_err(|_| RecordError::Bad)?),
            },
            data_length: u32::from_le_bytes([l0, l1, l2, l3]),
            durable_to: u32::from_le_bytes([d0, d1, d2, d3]),
            head_length: RECORD_HEADER as u32 + u32::from(cid_length),
            crc: u32::from_le_bytes(crc),
        };
        let fits = head.data_length as usize <= content_id::MAX_BLOCK;
        let sound = kind != Kind::Block || head.matches(bytes, &[], salt);
        if fits && sound { Ok(head) } else { Err(RecordError::Bad) }
    }

    /// Whether the CRC fits `head`, the record's own bytes, and `data` (empty for blocks).
    pub fn matches(&self, head: &[u8], data: &[u8], salt: u64) -> bool {
        let fixed = head.get(..16).unwrap_or(&[]);
        let cid = head.get(RECORD_HEADER..self.head_length as usize).unwrap_or(&[]);
        crc32(&[&salt.to_le_bytes(), fixed, cid, data]) == self.crc
    }

    /// Bytes of the whole record, padding included.
    pub fn record_length(&self) -> u64 {
        (u64::from(self.head_length) + u64::from(self.data_length)).next_multiple_of(8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use content_id::{Codec, Version};

    #[test]
    fn segment_headers_round_trip() {
        let header = segment_header(7, 0x1234_5678_9abc_def0);
        assert_eq!(parse_segment_header(&header, 7), Some(0x1234_5678_9abc_def0));
        assert_eq!(parse_segment_header(&header, 8), None);
        assert_eq!(parse_segment_header(&header[..31], 7), None);
    }

    #[test]
    fn records_round_trip_and_every_flipped_bit_of_the_head_is_seen() {
        let cid = Cid::of(Version::V1, Codec::RAW, b"hello");
        for (kind, cid, data) in [
            (Kind::Block, Some(&cid), &b"hello"[..]),
            (Kind::Pin, Some(&cid), &[2][..]),
            (Kind::AllPins, None, &[][..]),
        ] {
            let mut bytes = Vec::new();
            encode(kind, cid, data, 64, 99, &mut bytes);
            let head = Head::parse(&bytes, 99).unwrap();
            assert_eq!((head.kind, head.cid.as_ref()), (kind, cid));
            assert_eq!(head.record_length(), bytes.len() as u64);
            assert_eq!(head.record_length(), length(cid.map_or(0, |c| c.to_bytes().len()), data.len()));
            let summed = if kind == Kind::Block { &[] } else { data };
            assert!(head.matches(&bytes, summed, 99));
            let good = |b: &[u8], salt| Head::parse(b, salt).is_ok_and(|h| h.matches(b, summed, salt));
            assert!(!good(&bytes, 98));
            for bit in 0..head.head_length as usize * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(!good(&bad, 99), "bit {bit}");
            }
        }
    }
}

//! The format of segments, to the byte (docs/STORE.md has the whole story).
//!
//! A segment begins with a page of 4096 bytes that has its header at 0 and again at 2048; the rest of that page is
//! zero. Then come records, each at a multiple of 8, and zeros from the end of what was synced to the
//! next page. A segment that is full ends with a record of kind 5 and a trailer.
//! All numbers are little-endian.
//!
//! | segment header | bytes | |
//! |---|---|---|
//! | magic | 0..8 | `P2PMSEG2` |
//! | salt | 8..16 | random, the same in all segments of a store |
//! | number | 16..20 | the segment's own |
//! | zero | 20..28 | |
//! | CRC | 28..32 | CRC-32 of bytes 0..28 |
//!
//! | record | bytes | |
//! |---|---|---|
//! | magic | 0..4 | `rec2` |
//! | kind | 4 | 1 block, 2 pin, 3 unpin, 4 all pins, 5 index |
//! | CID length | 5 | bytes, 0 for kinds 4 and 5 |
//! | zero | 6..8 | |
//! | data length | 8..12 | bytes |
//! | durable to | 12..16 | all bytes of this segment before that offset were synced when this was written |
//! | CRC | 16..20 | CRC-32 of salt, segment number, offset of the record (4 bytes each), bytes 0..16, CID, and the data unless it is a block |
//! | CID | 20.. | binary form |
//! | data | | block: its bytes; pin: one byte, 1 direct or 2 recursive; all pins: repeated kind, CID length, CID; index: repeated first 16 bytes of the digest, offset of the block's bytes, their length |
//! | padding | | zeros to a multiple of 8 |
//!
//! | trailer | bytes | |
//! |---|---|---|
//! | magic | 0..8 | `P2PMEND2` |
//! | offset | 8..12 | of the index record; the trailer lies right behind it, at the end of the file |
//! | CRC | 12..16 | CRC-32 of salt, segment number and bytes 0..12 |
//!
//! The salt keeps a block's bytes from passing as records: whoever makes a block can't know it. Number and offset in
//! the CRC keep what an old file left on the medium from passing as records of a new one.

use alloc::vec::Vec;

use content_id::Cid;

use crate::crc::crc32;

/// Bytes the medium is taken to write at once: none that holds synced bytes is ever written again.
pub const PAGE: u64 = 4096;
/// Bytes before a segment's first record.
pub const SEGMENT_START: u64 = PAGE;
/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 32;
/// Where the header's second copy lies.
pub const HEADER_COPY: u64 = 2048;
/// Bytes of the trailer of a full segment.
pub const TRAILER: usize = 16;
/// Bytes of a record before its CID.
pub const RECORD_HEADER: usize = 20;
/// Bytes a record's header and CID can take at most.
pub const MAX_HEAD: usize = RECORD_HEADER + 255;

const SEGMENT_MAGIC: &[u8; 8] = b"P2PMSEG2";
/// What all formats of segments begin with; the eighth byte is the format. The rest of the header and its checksum are the
/// same in all of them, for ever, so that what another build wrote is known as such.
const ANY_SEGMENT: &[u8] = b"P2PMSEG";
const TRAILER_MAGIC: &[u8; 8] = b"P2PMEND2";
/// The first bytes of a record.
pub(crate) const RECORD_MAGIC: &[u8; 4] = b"rec2";

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
    /// The blocks of this segment.
    Index,
}

/// Where a record lies: its CRC covers that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The store's salt.
    pub salt: u64,
    /// The segment's number.
    pub segment: u32,
    /// Offset in the segment, in bytes.
    pub offset: u32,
}

impl Spot {
    fn bytes(&self) -> [u8; 16] {
        let mut out = [0; 16];
        let fields = self.salt.to_le_bytes().into_iter().chain(self.segment.to_le_bytes());
        for (to, from) in out.iter_mut().zip(fields.chain(self.offset.to_le_bytes())) {
            *to = from;
        }
        out
    }
}

/// A record without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it holds.
    pub kind: Kind,
    /// What it is about; `None` for [`Kind::AllPins`] and [`Kind::Index`].
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

/// What the first bytes of a segment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentHeader {
    /// A header, with the store's salt.
    Salt(u64),
    /// A header of a format that this build does not read.
    Other,
    /// Something else.
    Bad,
}

/// Encodes a segment's header.
pub fn segment_header(number: u32, salt: u64) -> [u8; SEGMENT_HEADER] {
    header(SEGMENT_MAGIC, number, salt)
}

fn header(magic: &[u8; 8], number: u32, salt: u64) -> [u8; SEGMENT_HEADER] {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER);
    bytes.extend_from_slice(magic);
    bytes.extend_from_slice(&salt.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    let crc = crc32(&[&bytes]);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.first_chunk().copied().unwrap_or([0; SEGMENT_HEADER])
}

/// Reads a segment's header, which has to be one of that number.
pub fn parse_segment_header(bytes: &[u8], number: u32) -> SegmentHeader {
    let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER>() else { return SegmentHeader::Bad };
    let Some(salt) = bytes.get(8..).and_then(<[u8]>::first_chunk) else { return SegmentHeader::Bad };
    let salt = u64::from_le_bytes(*salt);
    if *bytes == segment_header(number, salt) {
        SegmentHeader::Salt(salt)
    } else if bytes.starts_with(ANY_SEGMENT)
        && bytes.first_chunk().is_some_and(|magic| *bytes == header(magic, number, salt))
    {
        SegmentHeader::Other
    } else {
        SegmentHeader::Bad
    }
}

/// Encodes the trailer of a segment whose index record lies at `spot`.
pub fn trailer(spot: Spot) -> [u8; TRAILER] {
    let mut bytes = Vec::with_capacity(TRAILER);
    bytes.extend_from_slice(TRAILER_MAGIC);
    bytes.extend_from_slice(&spot.offset.to_le_bytes());
    let crc = crc32(&[&spot.salt.to_le_bytes(), &spot.segment.to_le_bytes(), &bytes]);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.first_chunk().copied().unwrap_or([0; TRAILER])
}

/// The spot of the index record that a trailer tells of.
pub fn parse_trailer(bytes: &[u8; TRAILER], segment: u32, salt: u64) -> Option<Spot> {
    let offset = u32::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
    let spot = Spot { salt, segment, offset };
    (*bytes == trailer(spot)).then_some(spot)
}

/// Appends a record's head to `out`; `summed` is its data, empty for a block.
fn encode_head(
    kind: Kind,
    cid: Option<&Cid>,
    length: u32,
    summed: &[u8],
    durable_to: u32,
    spot: Spot,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    out.extend_from_slice(RECORD_MAGIC);
    out.extend_from_slice(&[kind as u8 + 1, 0, 0, 0]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&durable_to.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    if let Some(cid) = cid {
        cid.write_to(out);
    }
    let cid_length = out.len() - start - RECORD_HEADER;
    if let Some(byte) = out.get_mut(start + 5) {
        *byte = cid_length as u8;
    }
    let part = |from: usize, to: usize| out.get(start + from..start + to).unwrap_or(&[]);
    let crc = crc32(&[&spot.bytes(), part(0, 16), part(RECORD_HEADER, RECORD_HEADER + cid_length), summed]);
    if let Some(field) = out.get_mut(start + 16..start + RECORD_HEADER) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Appends the head of a block's record to `out`: the block's bytes and [`padding`] have to follow.
pub fn encode_block_head(cid: &Cid, length: u32, durable_to: u32, spot: Spot, out: &mut Vec<u8>) {
    encode_head(Kind::Block, Some(cid), length, &[], durable_to, spot, out);
}

/// Appends a record to `out`.
pub fn encode(kind: Kind, cid: Option<&Cid>, data: &[u8], durable_to: u32, spot: Spot, out: &mut Vec<u8>) {
    let start = out.len();
    let summed = if kind == Kind::Block { &[] } else { data };
    encode_head(kind, cid, data.len() as u32, summed, durable_to, spot, out);
    out.extend_from_slice(data);
    out.extend_from_slice(padding(out.len() - start));
}

/// The zeros behind `length` bytes of a record.
pub fn padding(length: usize) -> &'static [u8] {
    [0; 8].get(..length.wrapping_neg() % 8).unwrap_or(&[])
}

/// Bytes a record takes, padding included.
pub fn length(cid_length: usize, data_length: usize) -> u64 {
    ((RECORD_HEADER + cid_length + data_length) as u64).next_multiple_of(8)
}

impl Head {
    /// Reads a record's head from the start of `bytes`, which lie at `spot`. The CRC of kinds other
    /// than blocks also covers their data: check it with [`Head::matches`].
    pub fn parse(bytes: &[u8], spot: Spot) -> Result<Self, RecordError> {
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
            5 => Kind::Index,
            _ => return Err(RecordError::Bad),
        };
        let nameless = matches!(kind, Kind::AllPins | Kind::Index);
        if [m0, m1, m2, m3] != *RECORD_MAGIC || nameless != (cid_length == 0) {
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
        let fits = head.data_length as usize <= content_id::MAX_BLOCK && head.durable_to <= spot.offset;
        let sound = kind != Kind::Block || head.matches(bytes, &[], spot);
        if fits && sound { Ok(head) } else { Err(RecordError::Bad) }
    }

    /// Whether the CRC fits `head`, the record's own bytes, and `data` (empty for blocks).
    pub fn matches(&self, head: &[u8], data: &[u8], spot: Spot) -> bool {
        let fixed = head.get(..16).unwrap_or(&[]);
        let cid = head.get(RECORD_HEADER..self.head_length as usize).unwrap_or(&[]);
        crc32(&[&spot.bytes(), fixed, cid, data]) == self.crc
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
        let salt = 0x1234_5678_9abc_def0;
        let header = segment_header(7, salt);
        assert_eq!(parse_segment_header(&header, 7), SegmentHeader::Salt(salt));
        assert_eq!(parse_segment_header(&header, 8), SegmentHeader::Bad);
        assert_eq!(parse_segment_header(&header[..31], 7), SegmentHeader::Bad);
        for other in [b"P2PMSEG1", b"P2PMSEG3", b"P2PMSEGx"] {
            assert_eq!(parse_segment_header(&super::header(other, 7, salt), 7), SegmentHeader::Other);
        }
        assert_eq!(parse_segment_header(&super::header(b"P2PMLOG2", 7, salt), 7), SegmentHeader::Bad);
    }

    #[test]
    fn trailers_round_trip_and_every_flipped_bit_is_seen() {
        let spot = Spot { salt: 5, segment: 3, offset: 4096 };
        let bytes = trailer(spot);
        assert_eq!(parse_trailer(&bytes, 3, 5), Some(spot));
        assert_eq!(parse_trailer(&bytes, 4, 5), None);
        assert_eq!(parse_trailer(&bytes, 3, 6), None);
        for bit in 0..TRAILER * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_trailer(&bad, 3, 5), None, "bit {bit}");
        }
    }

    #[test]
    fn records_round_trip_and_every_flipped_bit_of_the_head_is_seen() {
        let cid = Cid::of(Version::V1, Codec::RAW, b"hello");
        let spot = Spot { salt: 99, segment: 2, offset: 4096 };
        for (kind, cid, data) in [
            (Kind::Block, Some(&cid), &b"hello"[..]),
            (Kind::Pin, Some(&cid), &[2][..]),
            (Kind::AllPins, None, &[][..]),
            (Kind::Index, None, &[1, 2, 3][..]),
        ] {
            let mut bytes = Vec::new();
            encode(kind, cid, data, 64, spot, &mut bytes);
            let head = Head::parse(&bytes, spot).unwrap();
            assert_eq!((head.kind, head.cid.as_ref()), (kind, cid));
            assert_eq!(head.record_length(), bytes.len() as u64);
            assert_eq!(head.record_length(), length(cid.map_or(0, |c| c.to_bytes().len()), data.len()));
            let summed = if kind == Kind::Block { &[] } else { data };
            assert!(head.matches(&bytes, summed, spot));
            let good = |b: &[u8], spot| Head::parse(b, spot).is_ok_and(|h| h.matches(b, summed, spot));
            assert!(!good(&bytes, Spot { salt: 98, ..spot }));
            assert!(!good(&bytes, Spot { segment: 3, ..spot }));
            assert!(!good(&bytes, Spot { offset: 8192, ..spot }));
            for bit in 0..head.head_length as usize * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(!good(&bad, spot), "bit {bit}");
            }
        }
    }
}

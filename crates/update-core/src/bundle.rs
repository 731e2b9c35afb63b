//! The bundle: one file that carries a system. Its signed manifest, the table of its chunks, its signatures.
//!
//! ```text
//! prefix (16) · manifest · signatures (96 each) · table (40 a chunk) · the chunks' stored bytes, in order
//! ```
//! All numbers are little-endian. The layout to the byte is in `docs/UPDATE.md`.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::header::SlotHeader;
use crate::refusal::Refusal;
use crate::sector::SECTOR;

/// The first bytes of a bundle; the last one is the format's version.
pub const MAGIC: [u8; 8] = *b"P2PMUPD1";
/// Bytes of the prefix.
pub const PREFIX: usize = 16;
/// Bytes of a signature with its key.
pub const SIGNATURE: usize = 96;
/// Bytes of an entry of the table.
pub const ENTRY: usize = 40;
/// The longest manifest, in bytes.
pub const MAX_MANIFEST: usize = 4096;
/// The most signatures; also the most entries of `update.keys`.
pub const MAX_SIGNATURES: usize = 32;
/// The most chunks.
pub const MAX_CHUNKS: u32 = 8192;
/// The largest chunk, in bytes, unpacked.
pub const MAX_CHUNK: usize = 128 * 1024;
/// The most boards a bundle names, and the longest name.
const MAX_BOARDS: usize = 16;
const MAX_NAME: usize = 64;
/// Slots are written in blocks of this size; every part begins on one.
pub const BLOCK: usize = 4096;

/// What is signed: this, then the SHA-256 of the manifest. No other program of ours signs anything that begins so.
const CONTEXT: &[u8; 24] = b"p2pmesh update manifest\0";

/// The message that an update key signs: 56 bytes.
pub fn signed_message(manifest: &[u8]) -> Vec<u8> {
    signed_hash(&sha256(manifest))
}

/// The same, of the manifest's SHA-256.
pub(crate) fn signed_hash(manifest: &[u8; 32]) -> Vec<u8> {
    [CONTEXT.as_slice(), manifest].concat()
}

/// SHA-256 (FIPS 180-4) of all of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// One of the slot's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartKind {
    /// `I`: initramfs.
    Initramfs,
    /// `K`: kernel, gzip.
    Kernel,
    /// `R`: root image.
    Root,
    /// `H`: dm-verity tree.
    Tree,
}

impl PartKind {
    /// All of them; a bundle has each once.
    pub const ALL: [Self; 4] = [Self::Initramfs, Self::Kernel, Self::Root, Self::Tree];

    /// As in the slot header's keys.
    pub const fn letter(self) -> u8 {
        match self {
            Self::Initramfs => b'I',
            Self::Kernel => b'K',
            Self::Root => b'R',
            Self::Tree => b'H',
        }
    }

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initramfs => "initramfs",
            Self::Kernel => "kernel",
            Self::Root => "root image",
            Self::Tree => "verity tree",
        }
    }

    fn from_letter(letter: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.letter() == letter)
    }

    /// Where the header puts it: first byte and length, from the slot's start.
    pub fn place(self, header: &SlotHeader) -> (u64, u64) {
        let sector = SECTOR as u64;
        let loaded = |p: &crate::Part| (u64::from(p.offset) * sector, u64::from(p.len));
        let checked = |e: &crate::Extent| (u64::from(e.offset) * sector, u64::from(e.sectors) * sector);
        match self {
            Self::Initramfs => loaded(&header.initramfs),
            Self::Kernel => loaded(&header.kernel),
            Self::Root => checked(&header.image),
            Self::Tree => checked(&header.tree),
        }
    }
}

/// A part as the manifest describes it. Its place is in the slot header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundlePart {
    /// Which.
    pub kind: PartKind,
    /// Bytes, unpacked.
    pub size: u32,
    /// Chunks it is cut into.
    pub chunks: u32,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// What the keys sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Sector 0 of the slot, as it will be written: version, release, floor, places.
    pub header: [u8; SECTOR],
    /// The release that must run at least (0: any).
    pub needs: u64,
    /// The exception from the floor: nodes whose floor is this or lower install it though it is older (0: none).
    pub excepts: u64,
    /// SHA-256 of the table.
    pub table: [u8; 32],
    /// CID of the manifest of the build; empty where there is none.
    pub build: String,
    /// What it runs on: entries of a device tree's root `compatible`.
    pub boards: Vec<String>,
    /// The parts, in the order in which they lie in the slot.
    pub parts: Vec<BundlePart>,
}

impl Manifest {
    /// Reads a manifest and checks all that can be checked without a node.
    ///
    /// # Errors
    /// [`Refusal::Format`], saying what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut r = Reader(bytes);
        let header = r.array::<SECTOR>()?;
        let (needs, excepts, table) = (r.u64()?, r.u64()?, r.array::<32>()?);
        let build = r.text(MAX_NAME * 2)?;
        let count = usize::from(r.u8()?);
        if count == 0 || count > MAX_BOARDS {
            return Err(Refusal::Format("it names no board, or too many"));
        }
        let mut boards = Vec::new();
        for _ in 0..count {
            boards.push(
                Some(r.text(MAX_NAME)?)
                    .filter(|b| !b.is_empty())
                    .ok_or(Refusal::Format("a board without a name"))?,
            );
        }
        if usize::from(r.u8()?) != PartKind::ALL.len() {
            return Err(Refusal::Format("it does not have four parts"));
        }
        let mut parts = Vec::new();
        for _ in PartKind::ALL {
            let kind = PartKind::from_letter(r.u8()?).ok_or(Refusal::Format("a part of an unknown kind"))?;
            parts.push(BundlePart { kind, size: r.u32()?, chunks: r.u32()?, sha256: r.array()? });
        }
        if !r.0.is_empty() {
            return Err(Refusal::Format("bytes behind the manifest's end"));
        }
        let manifest = Self { header, needs, excepts, table, build, boards, parts };
        manifest.check()?;
        Ok(manifest)
    }

    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.header.to_vec();
        out.extend_from_slice(&self.needs.to_le_bytes());
        out.extend_from_slice(&self.excepts.to_le_bytes());
        out.extend_from_slice(&self.table);
        let text = |t: &str, out: &mut Vec<u8>| {
            out.push(t.len() as u8);
            out.extend_from_slice(t.as_bytes());
        };
        text(&self.build, &mut out);
        out.push(self.boards.len() as u8);
        self.boards.iter().for_each(|b| text(b, &mut out));
        out.push(self.parts.len() as u8);
        for part in &self.parts {
            out.push(part.kind.letter());
            out.extend_from_slice(&part.size.to_le_bytes());
            out.extend_from_slice(&part.chunks.to_le_bytes());
            out.extend_from_slice(&part.sha256);
        }
        out
    }

    /// The slot header in it.
    ///
    /// # Errors
    /// [`Refusal::Format`]; never for a manifest that [`Manifest::parse`] made.
    pub fn slot_header(&self) -> Result<SlotHeader, Refusal> {
        SlotHeader::parse(&self.header).map_err(|_| Refusal::Format("its slot header is damaged"))
    }

    /// All its chunks.
    pub fn chunks(&self) -> u32 {
        self.parts.iter().fold(0, |sum, p| sum.saturating_add(p.chunks))
    }

    /// Bytes of all parts, unpacked.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|p| u64::from(p.size)).sum()
    }

    fn check(&self) -> Result<(), Refusal> {
        let header = self.slot_header()?;
        if self.chunks() > MAX_CHUNKS {
            return Err(Refusal::Format("too many chunks"));
        }
        let mut end = BLOCK as u64;
        for part in &self.parts {
            let (offset, len) = part.kind.place(&header);
            if len != u64::from(part.size) || len == 0 || part.chunks == 0 {
                return Err(Refusal::Format("a part has another size than the slot header says"));
            }
            if !offset.is_multiple_of(BLOCK as u64) || offset < end {
                return Err(Refusal::Format("a part does not begin on a block, or overlaps another"));
            }
            end = (offset + len).next_multiple_of(BLOCK as u64);
        }
        let mut kinds: Vec<PartKind> = self.parts.iter().map(|p| p.kind).collect();
        kinds.sort_unstable();
        if kinds != PartKind::ALL {
            return Err(Refusal::Format("a part is there twice"));
        }
        Ok(())
    }
}

/// The bundle's first 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Bytes of the manifest.
    pub manifest: usize,
    /// Number of signatures.
    pub signatures: usize,
}

impl Prefix {
    /// Reads it.
    ///
    /// # Errors
    /// [`Refusal::NotABundle`] and [`Refusal::Format`].
    pub fn parse(bytes: &[u8; PREFIX]) -> Result<Self, Refusal> {
        let mut r = Reader(bytes);
        if r.array::<8>()? != MAGIC {
            return Err(Refusal::NotABundle);
        }
        let manifest = r.u32()? as usize;
        let [s0, s1, z0, z1] = r.array::<4>()?;
        let signatures = usize::from(u16::from_le_bytes([s0, s1]));
        if manifest == 0 || manifest > MAX_MANIFEST || signatures > MAX_SIGNATURES || [z0, z1] != [0, 0] {
            return Err(Refusal::Format("its first 16 bytes say impossible things"));
        }
        Ok(Self { manifest, signatures })
    }

    /// Writes it.
    pub fn encode(&self) -> [u8; PREFIX] {
        let mut out = [0; PREFIX];
        let manifest = (self.manifest as u32).to_le_bytes();
        let signatures = (self.signatures as u16).to_le_bytes();
        let all = MAGIC.iter().chain(&manifest).chain(&signatures);
        out.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        out
    }

    /// Bytes of manifest and signatures.
    pub const fn signed_part(&self) -> usize {
        self.manifest + self.signatures * SIGNATURE
    }
}

/// A signature and whose it is. Not checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Public key (RFC 8032 §5.1.5).
    pub key: [u8; 32],
    /// Signature of [`signed_message`] (RFC 8032 §5.1.6).
    pub signature: [u8; 64],
}

impl Signature {
    /// Reads one after the other; bytes that are left over don't count.
    pub fn parse_all(bytes: &[u8]) -> Vec<Self> {
        let mut r = Reader(bytes);
        core::iter::from_fn(|| Some(Self { key: r.array().ok()?, signature: r.array().ok()? })).collect()
    }

    /// Writes it.
    pub fn encode(&self) -> [u8; SIGNATURE] {
        let mut out = [0; SIGNATURE];
        out.iter_mut().zip(self.key.iter().chain(&self.signature)).for_each(|(to, from)| *to = *from);
        out
    }
}

/// A chunk as the table describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// SHA-256 of its unpacked bytes.
    pub sha256: [u8; 32],
    /// Bytes, unpacked: 1 to [`MAX_CHUNK`].
    pub size: u32,
    /// Bytes in the bundle; as many as `size`: stored as they are; fewer: deflate (RFC 1951).
    pub stored: u32,
}

impl Entry {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`Refusal::Format`] for impossible sizes.
    pub fn parse(bytes: &[u8; ENTRY]) -> Result<Self, Refusal> {
        let mut r = Reader(bytes);
        let entry = Self { sha256: r.array()?, size: r.u32()?, stored: r.u32()? };
        let possible = entry.size as usize <= MAX_CHUNK && entry.stored > 0 && entry.stored <= entry.size;
        if possible { Ok(entry) } else { Err(Refusal::Format("a chunk of an impossible size")) }
    }

    /// Writes it.
    pub fn encode(&self) -> [u8; ENTRY] {
        let mut out = [0; ENTRY];
        let (size, stored) = (self.size.to_le_bytes(), self.stored.to_le_bytes());
        let all = self.sha256.iter().chain(&size).chain(&stored);
        out.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        out
    }
}

/// Reads a manifest from its start.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Refusal::Format("its manifest ends early"))?;
        self.0 = rest;
        Ok(*head)
    }
    pub(crate) fn u8(&mut self) -> Result<u8, Refusal> {
        let [byte] = self.array()?;
        Ok(byte)
    }
    pub(crate) fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_le_bytes)
    }
    pub(crate) fn u64(&mut self) -> Result<u64, Refusal> {
        self.array().map(u64::from_le_bytes)
    }
    /// Printable ASCII, its length in front.
    pub(crate) fn text(&mut self, max: usize) -> Result<String, Refusal> {
        let len = usize::from(self.u8()?);
        let (head, rest) = self.0.split_at_checked(len).ok_or(Refusal::Format("its manifest ends early"))?;
        self.0 = rest;
        let text = core::str::from_utf8(head)
            .ok()
            .filter(|t| t.len() <= max && t.bytes().all(|b| b.is_ascii_graphic()));
        Ok(text.ok_or(Refusal::Format("a text that is none"))?.to_string())
    }
}

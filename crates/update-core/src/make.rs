//! Making bundles, for the tool and for tests.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::bundle::{
    BundlePart, Entry, MAX_CHUNK, Manifest, PREFIX, PartKind, Prefix, SIGNATURE, Signature, sha256,
};
use crate::chunk::{cut, pack};
use crate::header::SlotHeader;
use crate::refusal::Refusal;
use crate::sector::{SECTOR, SectorError};

/// What the maker of a bundle decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// Number of the release; `None`: as the slot says.
    pub release: Option<u64>,
    /// Nothing older is installed once this one has proved good; `None`: this release.
    pub floor: Option<u64>,
    /// See [`Manifest::needs`].
    pub needs: u64,
    /// See [`Manifest::excepts`].
    pub excepts: u64,
    /// See [`Manifest::boards`].
    pub boards: Vec<String>,
    /// See [`Manifest::build`].
    pub build: String,
}

/// Why there is no bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MakeError {
    /// The slot's header.
    Header(SectorError),
    /// A part lies outside the slot's bytes.
    Short(PartKind),
    /// A part's checksum is not the header's: the boot script would not boot it.
    Checksum(PartKind),
    /// Nodes would refuse it.
    Refused(Refusal),
    /// The file is no bundle.
    NotABundle,
}

impl fmt::Display for MakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(e) => write!(f, "the slot's header: {e}"),
            Self::Short(kind) => write!(f, "the slot ends before its {} does", kind.name()),
            Self::Checksum(kind) => write!(f, "the {}'s checksum is not the header's", kind.name()),
            Self::Refused(r) => write!(f, "{r}"),
            Self::NotABundle => f.write_str("it is no update bundle"),
        }
    }
}

impl core::error::Error for MakeError {}

/// Makes a bundle without signatures out of the bytes of a slot.
///
/// # Errors
/// See [`MakeError`].
pub fn make(slot: &[u8], choices: &Choices) -> Result<Vec<u8>, MakeError> {
    let sector: &[u8; SECTOR] = slot.first_chunk().ok_or(MakeError::Header(SectorError::Empty))?;
    let mut header = SlotHeader::parse(sector).map_err(MakeError::Header)?;
    header.release = choices.release.unwrap_or(header.release);
    header.floor = choices.floor.unwrap_or(header.release);
    let mut kinds = PartKind::ALL;
    kinds.sort_by_key(|k| k.place(&header).0);
    let (mut parts, mut table, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
    for kind in kinds {
        let (at, len) = kind.place(&header);
        let bytes = usize::try_from(at)
            .ok()
            .zip(usize::try_from(len).ok())
            .and_then(|(at, len)| slot.get(at..)?.get(..len));
        let bytes = bytes.ok_or(MakeError::Short(kind))?;
        let wanted = match kind {
            PartKind::Kernel => Some(header.kernel.crc),
            PartKind::Initramfs => Some(header.initramfs.crc),
            PartKind::Root | PartKind::Tree => None,
        };
        if wanted.is_some_and(|crc| crc != crate::crc32(bytes)) {
            return Err(MakeError::Checksum(kind));
        }
        let count = pack_part(bytes, &mut table, &mut chunks);
        parts.push(BundlePart { kind, size: bytes.len() as u32, chunks: count, sha256: sha256(bytes) });
    }
    let manifest = Manifest {
        header: header.encode().map_err(MakeError::Header)?,
        needs: choices.needs,
        excepts: choices.excepts,
        table: sha256(&table),
        build: choices.build.clone(),
        boards: choices.boards.clone(),
        parts,
    };
    let manifest = manifest.encode();
    // What nodes would refuse is found here.
    Manifest::parse(&manifest).map_err(MakeError::Refused)?;
    let mut bundle = Prefix { manifest: manifest.len(), signatures: 0 }.encode().to_vec();
    bundle.extend_from_slice(&manifest);
    bundle.extend_from_slice(&table);
    bundle.extend_from_slice(&chunks);
    Ok(bundle)
}

fn pack_part(mut bytes: &[u8], table: &mut Vec<u8>, chunks: &mut Vec<u8>) -> u32 {
    let mut count = 0;
    while !bytes.is_empty() {
        let (chunk, rest) = bytes.split_at(cut(bytes).min(MAX_CHUNK));
        let (entry, stored): (Entry, Vec<u8>) = pack(chunk);
        table.extend_from_slice(&entry.encode());
        chunks.extend_from_slice(&stored);
        count += 1;
        bytes = rest;
    }
    count
}

/// The manifest of a bundle (only its beginning need be there) and its signatures, none of them checked.
///
/// # Errors
/// [`MakeError::NotABundle`].
pub fn signed_part(bundle: &[u8]) -> Result<(&[u8], Vec<Signature>), MakeError> {
    let (prefix, rest) = bundle.split_first_chunk::<PREFIX>().ok_or(MakeError::NotABundle)?;
    let prefix = Prefix::parse(prefix).map_err(MakeError::Refused)?;
    let (manifest, rest) = rest.split_at_checked(prefix.manifest).ok_or(MakeError::NotABundle)?;
    let signatures = rest.get(..prefix.signatures * SIGNATURE).ok_or(MakeError::NotABundle)?;
    Ok((manifest, Signature::parse_all(signatures)))
}

/// The first bytes of a bundle (prefix, manifest, signatures) with these signatures in place of those it has, and how
/// many bytes of the bundle they stand for. What follows stays as it is.
///
/// # Errors
/// [`MakeError::NotABundle`].
pub fn with_signatures(bundle: &[u8], signatures: &[Signature]) -> Result<(Vec<u8>, usize), MakeError> {
    let (manifest, old) = signed_part(bundle)?;
    let mut head = Prefix { manifest: manifest.len(), signatures: signatures.len() }.encode().to_vec();
    head.extend_from_slice(manifest);
    signatures.iter().for_each(|s| head.extend_from_slice(&s.encode()));
    Ok((head, PREFIX + manifest.len() + old.len() * SIGNATURE))
}

//! Boot firmware and U-Boot: the signed file that carries them, and the order in which they are exchanged.
//!
//! ```text
//! prefix (16) · manifest · signatures (96 each) · the files' bytes, in the manifest's order
//! ```
//! All numbers are little-endian. The layout to the byte is in `docs/UPDATE.md`.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::bundle::{MAGIC as BUNDLE_MAGIC, PREFIX, Prefix, Reader, SIGNATURE, Signature, sha256};
use crate::policy::Policy;
use crate::refusal::Refusal;

/// The first bytes; the last one is the format's version.
pub const MAGIC: [u8; 8] = *b"P2PMFRM1";
/// The most files, and the most bytes of all of them.
pub const MAX_FILES: usize = 40;
/// See [`MAX_FILES`].
pub const MAX_BYTES: u64 = 16 << 20;
/// The longest file name, version and board, in bytes.
const MAX_TEXT: usize = 64;
const MAX_BOARDS: usize = 16;
/// Stands before the manifest when it is signed as a bundle's manifest is, so that neither can be taken for the other.
const CONTEXT: &[u8] = b"p2pmesh firmware manifest\0";

/// One file of the FAT partition's top folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareFile {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u32,
    /// SHA-256 of them.
    pub sha256: [u8; 32],
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// Number of the release.
    pub release: u64,
    /// For people.
    pub version: String,
    /// What it is for: entries of a device tree's root `compatible`.
    pub boards: Vec<String>,
    /// The files, in the order in which they are exchanged.
    pub files: Vec<FirmwareFile>,
}

/// When a file's turn is; `None`: it is no part of the firmware. What is needed last in a start comes first, and the two
/// halves of a pair follow each other at once.
pub fn rank(name: &str) -> Option<(u8, String)> {
    let name = name.to_ascii_lowercase();
    if name.is_empty()
        || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        || name.starts_with('.')
    {
        return None;
    }
    let pair =
        |stem: &str, ending: &str| name.strip_prefix(stem)?.strip_suffix(ending).map(ToString::to_string);
    Some(match name.as_str() {
        "licence.firmware.txt" => (0, name),
        "boot.scr" => (2, name),
        "uboot.env" => (3, name),
        "u-boot.bin" => (4, name),
        "config.txt" => (5, name),
        // Last, and as near to each other as can be: firmware that does not fit its other half may not start.
        "bootcode.bin" => (7, name),
        n if n.ends_with(".dtb") => (1, name),
        _ => match (pair("start", ".elf"), pair("fixup", ".dat")) {
            (Some(which), _) => (6, which + "1"),
            (_, Some(which)) => (6, which + "2"),
            _ => return None,
        },
    })
}

/// What the keys sign: this goes where a bundle's manifest would.
pub fn to_sign(manifest: &[u8]) -> Vec<u8> {
    [CONTEXT, manifest].concat()
}

impl Firmware {
    /// Describes these files, and puts them into their order.
    pub fn of(release: u64, version: &str, boards: &[String], files: &[(String, Vec<u8>)]) -> Self {
        let describe = |(name, bytes): &(String, Vec<u8>)| FirmwareFile {
            name: name.clone(),
            size: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            sha256: sha256(bytes),
        };
        let mut files: Vec<_> = files.iter().map(describe).collect();
        files.sort_by_key(|f| rank(&f.name));
        Self { release, version: version.to_string(), boards: boards.to_vec(), files }
    }

    /// Reads a manifest and checks all that can be checked without a node.
    ///
    /// # Errors
    /// [`Refusal::Format`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut r = Reader(bytes);
        let (release, version) = (r.u64()?, text(&mut r)?);
        let boards = (0..count(&mut r, MAX_BOARDS)?).map(|_| text(&mut r)).collect::<Result<_, _>>()?;
        let mut files = Vec::new();
        for _ in 0..count(&mut r, MAX_FILES)? {
            files.push(FirmwareFile { name: text(&mut r)?, size: r.u32()?, sha256: r.array()? });
        }
        if !r.0.is_empty() {
            return Err(Refusal::Format("its manifest goes on behind its end"));
        }
        let ranks: Option<Vec<_>> = files.iter().map(|f| rank(&f.name)).collect();
        let ranks = ranks.ok_or(Refusal::Format("it holds a file that is no part of the firmware"))?;
        if !ranks.is_sorted_by(|a, b| a < b) {
            return Err(Refusal::Format("its files are not in order, or one is there twice"));
        }
        let firmware = Self { release, version, boards, files };
        if firmware.bytes() > MAX_BYTES || firmware.files.iter().any(|f| f.size == 0) {
            return Err(Refusal::Format("a file of an impossible size"));
        }
        Ok(firmware)
    }

    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.release.to_le_bytes().to_vec();
        let text = |out: &mut Vec<u8>, t: &str| {
            out.push(u8::try_from(t.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(t.as_bytes());
        };
        text(&mut out, &self.version);
        out.push(u8::try_from(self.boards.len()).unwrap_or(u8::MAX));
        self.boards.iter().for_each(|b| text(&mut out, b));
        out.push(u8::try_from(self.files.len()).unwrap_or(u8::MAX));
        for file in &self.files {
            text(&mut out, &file.name);
            out.extend_from_slice(&file.size.to_le_bytes());
            out.extend_from_slice(&file.sha256);
        }
        out
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| u64::from(f.size)).sum()
    }
}

/// Splits the beginning of a firmware file into manifest, signatures, and where the files' bytes begin.
///
/// # Errors
/// [`Refusal::NotABundle`], [`Refusal::Format`], [`Refusal::Truncated`].
pub fn split(bytes: &[u8]) -> Result<(&[u8], Vec<Signature>, usize), Refusal> {
    let prefix: &[u8; PREFIX] = bytes.first_chunk().ok_or(Refusal::NotABundle)?;
    let mut like_a_bundle = *prefix;
    let Some((magic, _)) = like_a_bundle.split_first_chunk_mut::<8>() else {
        return Err(Refusal::NotABundle);
    };
    if *magic != MAGIC {
        return Err(Refusal::NotABundle);
    }
    *magic = BUNDLE_MAGIC;
    let prefix = Prefix::parse(&like_a_bundle)?;
    let end = PREFIX + prefix.signed_part();
    let short = Refusal::Truncated { has: bytes.len() as u64, needed: end as u64 };
    let signed = bytes.get(PREFIX..end).ok_or(short)?;
    let (manifest, signatures) = signed.split_at_checked(prefix.manifest).unwrap_or_default();
    Ok((manifest, Signature::parse_all(signatures), end))
}

/// The file's beginning with these signatures in place of those it has.
pub fn head(manifest: &[u8], signatures: &[Signature]) -> Vec<u8> {
    let mut out = Prefix { manifest: manifest.len(), signatures: signatures.len() }.encode().to_vec();
    if let Some(magic) = out.first_chunk_mut() {
        *magic = MAGIC;
    }
    out.extend_from_slice(manifest);
    signatures.iter().for_each(|s| out.extend_from_slice(&s.encode()));
    debug_assert_eq!(out.len(), PREFIX + manifest.len() + signatures.len() * SIGNATURE);
    out
}

/// Checks a whole firmware file as a node with this policy does (of which keys, threshold and boards count) and returns
/// what it says with the content of its files.
///
/// # Errors
/// Why the node does not take it; `running` is the release of the firmware it has.
pub fn check<'a>(
    bytes: &'a [u8],
    policy: &Policy,
    running: u64,
) -> Result<(Firmware, Vec<&'a [u8]>), Refusal> {
    let (manifest, signatures, mut at) = split(bytes)?;
    policy.check_signatures(&to_sign(manifest), &signatures)?;
    let firmware = Firmware::parse(manifest)?;
    if !firmware.boards.iter().any(|b| policy.boards.contains(b)) {
        return Err(Refusal::Board { bundle: firmware.boards, node: policy.boards.clone() });
    }
    if firmware.release < running {
        return Err(Refusal::Downgrade { release: firmware.release, floor: running });
    }
    let needed = at as u64 + firmware.bytes();
    let has = bytes.len() as u64;
    if has < needed {
        return Err(Refusal::Truncated { has, needed });
    }
    if has > needed {
        return Err(Refusal::Trailing { extra: has - needed });
    }
    let mut contents = Vec::new();
    for (n, file) in (0..).zip(&firmware.files) {
        let content = bytes.get(at..at + file.size as usize).unwrap_or_default();
        if sha256(content) != file.sha256 {
            return Err(Refusal::Chunk(n));
        }
        contents.push(content);
        at += file.size as usize;
    }
    Ok((firmware, contents))
}

/// SHA-256, for who compares files with a manifest.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    sha256(bytes)
}

/// A number of things that there have to be, up to `max`.
fn count(r: &mut Reader<'_>, max: usize) -> Result<usize, Refusal> {
    let n = usize::from(r.u8()?);
    if (1..=max).contains(&n) { Ok(n) } else { Err(Refusal::Format("too few or too many boards or files")) }
}

fn text(r: &mut Reader<'_>) -> Result<String, Refusal> {
    Some(r.text(MAX_TEXT)?).filter(|t| !t.is_empty()).ok_or(Refusal::Format("a text that is empty"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn the_order_of_files() {
        let mut names = vec![
            "bootcode.bin",
            "start4.elf",
            "config.txt",
            "fixup.dat",
            "u-boot.bin",
            "start.elf",
            "fixup4.dat",
            "boot.scr",
            "bcm2711-rpi-4-b.dtb",
            "uboot.env",
            "LICENCE.firmware.txt",
        ];
        names.sort_by_key(|n| rank(n));
        assert_eq!(
            names,
            [
                "LICENCE.firmware.txt",
                "bcm2711-rpi-4-b.dtb",
                "boot.scr",
                "uboot.env",
                "u-boot.bin",
                "config.txt",
                "start.elf",
                "fixup.dat",
                "start4.elf",
                "fixup4.dat",
                "bootcode.bin",
            ]
        );
        for bad in [
            "p2pmesh.toml",
            "boot-extra.txt",
            "factory-reset",
            "../u-boot.bin",
            "a/b.dtb",
            "",
            ".dtb",
            "start.dat",
        ] {
            assert_eq!(rank(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_nothing_else_is() {
        let files = [("u-boot.bin".to_string(), vec![1; 10]), ("boot.scr".to_string(), vec![2; 5])];
        let firmware = Firmware::of(7, "1.0", &["brcm,bcm2837".to_string()], &files);
        let bytes = firmware.encode();
        assert_eq!(Firmware::parse(&bytes), Ok(firmware));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0xff;
            let _ = Firmware::parse(&bad);
            assert!(Firmware::parse(&bytes[..at]).is_err());
        }
        let mut twice = Firmware::of(7, "1.0", &["b".to_string()], &files);
        twice.files.push(twice.files[0].clone());
        assert!(Firmware::parse(&twice.encode()).is_err());
        let mut other = Firmware::of(7, "1.0", &["b".to_string()], &[("p2pmesh.toml".to_string(), vec![1])]);
        assert!(Firmware::parse(&other.encode()).is_err());
        other.files.clear();
        assert!(Firmware::parse(&other.encode()).is_err());
    }
}

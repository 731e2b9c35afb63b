//! Content identifiers (the CID specification, versions 0 and 1).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use sha2::{Digest, Sha256};

use crate::{base, varint};

/// The longest digest a CID may carry, in bytes; identity CIDs hold their data in it.
pub const MAX_DIGEST: usize = 128;

/// Multihash code of SHA2-256.
const SHA2_256: u64 = 0x12;

/// CID version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// A bare SHA2-256 multihash, base58btc, always dag-pb (`Qm…`).
    V0,
    /// Codec and multihash, with a multibase prefix as text.
    V1,
}

/// What the bytes of a block mean: a multicodec code point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Codec(pub u64);

impl Codec {
    /// Bytes as they are.
    pub const RAW: Self = Self(0x55);
    /// MerkleDAG protobuf, the blocks of UnixFS.
    pub const DAG_PB: Self = Self(0x70);
    /// DAG-CBOR.
    pub const DAG_CBOR: Self = Self(0x71);
    /// A libp2p public key (IPNS names).
    pub const LIBP2P_KEY: Self = Self(0x72);
    /// DAG-JSON.
    pub const DAG_JSON: Self = Self(0x0129);
    /// Plain CBOR, without links.
    pub const CBOR: Self = Self(0x51);
    /// Plain JSON, without links.
    pub const JSON: Self = Self(0x0200);
}

/// A hash function and its digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Multihash {
    /// SHA2-256: the only function blocks are stored under.
    Sha256([u8; 32]),
    /// The data itself, at most [`MAX_DIGEST`] bytes.
    Identity(Box<[u8]>),
    /// Any other function; such a block can't be verified here.
    Other {
        /// Multihash code.
        code: u64,
        /// Its digest, at most [`MAX_DIGEST`] bytes.
        digest: Box<[u8]>,
    },
}

/// A content identifier.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cid {
    version: Version,
    codec: Codec,
    hash: Multihash,
}

/// A block and its name. Whoever makes one has verified that they belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its name.
    pub cid: Cid,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// Why something is not a CID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CidError {
    /// The text is in no known base, or has characters outside it.
    BadText,
    /// The bytes end too early, or a number is not in its shortest form.
    Truncated,
    /// Bytes follow the digest.
    TrailingBytes,
    /// A version other than 0 and 1.
    BadVersion(u64),
    /// A digest whose length does not fit its function, or is over [`MAX_DIGEST`].
    BadDigestLength(u64),
    /// A version 0 CID with a multibase prefix.
    PrefixedV0,
}

impl fmt::Display for CidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadText => f.write_str("not a CID: wrong characters, or a base that is not known"),
            Self::Truncated => f.write_str("not a CID: it is cut short"),
            Self::TrailingBytes => f.write_str("not a CID: bytes follow the digest"),
            Self::BadVersion(v) => write!(f, "a CID of version {v}; only 0 and 1 are known"),
            Self::BadDigestLength(n) => write!(f, "a CID with a digest of {n} bytes, which does not fit"),
            Self::PrefixedV0 => f.write_str("a CID of version 0 takes no base prefix"),
        }
    }
}

impl core::error::Error for CidError {}

/// Why a block does not belong to a CID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// The bytes hash to something else.
    Mismatch,
    /// The CID uses a hash function other than SHA2-256 and identity.
    UnsupportedHash(u64),
    /// More than [`crate::MAX_BLOCK`] bytes.
    TooLarge(usize),
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch => f.write_str("the bytes do not belong to this CID"),
            Self::UnsupportedHash(code) => {
                write!(f, "hash function 0x{code:x} is not supported, only SHA2-256 and identity are")
            }
            Self::TooLarge(n) => write!(f, "a block of {n} bytes is over the limit of 2 MiB"),
        }
    }
}

impl core::error::Error for VerifyError {}

/// SHA2-256 of `data`.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

impl Cid {
    /// A version 0 CID from a SHA2-256 digest.
    pub const fn v0(digest: [u8; 32]) -> Self {
        Self { version: Version::V0, codec: Codec::DAG_PB, hash: Multihash::Sha256(digest) }
    }

    /// A version 1 CID from a SHA2-256 digest.
    pub const fn v1(codec: Codec, digest: [u8; 32]) -> Self {
        Self { version: Version::V1, codec, hash: Multihash::Sha256(digest) }
    }

    /// The name of `data`. Version 0 exists for dag-pb only; other codecs get version 1.
    pub fn of(version: Version, codec: Codec, data: &[u8]) -> Self {
        let version = if codec == Codec::DAG_PB { version } else { Version::V1 };
        Self { version, codec, hash: Multihash::Sha256(sha256(data)) }
    }

    /// Its version.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// What the block's bytes mean.
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// Hash function and digest.
    pub const fn hash(&self) -> &Multihash {
        &self.hash
    }

    /// The SHA2-256 digest, if that is the function.
    pub const fn digest(&self) -> Option<&[u8; 32]> {
        match &self.hash {
            Multihash::Sha256(digest) => Some(digest),
            _ => None,
        }
    }

    /// The block itself, if the CID holds it (identity hash).
    pub fn inline(&self) -> Option<&[u8]> {
        match &self.hash {
            Multihash::Identity(data) => Some(data),
            _ => None,
        }
    }

    /// Bytes of the binary form.
    pub(crate) fn byte_length(&self) -> usize {
        let (code, digest) = match &self.hash {
            Multihash::Sha256(_) => (SHA2_256, 32),
            Multihash::Identity(data) => (0, data.len()),
            Multihash::Other { code, digest } => (*code, digest.len()),
        };
        let head = match self.version {
            Version::V0 => 0,
            Version::V1 => 1 + varint::length(self.codec.0),
        };
        head + varint::length(code) + varint::length(digest as u64) + digest
    }

    /// The text dag-json wants: base32 for version 1 whatever the codec, base58 for version 0.
    pub(crate) fn to_text_base32(&self) -> String {
        match self.version {
            Version::V0 => base::base58(&self.to_bytes()),
            Version::V1 => String::from("b") + &base::base32(&self.to_bytes()),
        }
    }

    /// The same content as a version 1 CID.
    #[must_use]
    pub fn to_v1(&self) -> Self {
        Self { version: Version::V1, codec: self.codec, hash: self.hash.clone() }
    }

    /// Checks that `data` is the block this CID names.
    pub fn verify(&self, data: &[u8]) -> Result<(), VerifyError> {
        if data.len() > crate::MAX_BLOCK {
            return Err(VerifyError::TooLarge(data.len()));
        }
        let same = match &self.hash {
            Multihash::Sha256(digest) => sha256(data) == *digest,
            Multihash::Identity(inline) => **inline == *data,
            Multihash::Other { code, .. } => return Err(VerifyError::UnsupportedHash(*code)),
        };
        if same { Ok(()) } else { Err(VerifyError::Mismatch) }
    }

    /// The binary form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        self.write_to(&mut out);
        out
    }

    /// Appends the binary form.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        if self.version == Version::V1 {
            varint::write(1, out);
            varint::write(self.codec.0, out);
        }
        let (code, digest): (u64, &[u8]) = match &self.hash {
            Multihash::Sha256(digest) => (SHA2_256, digest),
            Multihash::Identity(data) => (0, data),
            Multihash::Other { code, digest } => (*code, digest),
        };
        varint::write(code, out);
        varint::write(digest.len() as u64, out);
        out.extend_from_slice(digest);
    }

    /// Reads a CID that fills `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CidError> {
        match Self::split(bytes)? {
            (cid, []) => Ok(cid),
            _ => Err(CidError::TrailingBytes),
        }
    }

    /// Reads a CID at the start of `bytes` and returns the rest, too.
    pub fn split(bytes: &[u8]) -> Result<(Self, &[u8]), CidError> {
        if let Some(rest) = bytes.strip_prefix(&[0x12, 0x20]) {
            let (digest, rest) = rest.split_first_chunk::<32>().ok_or(CidError::Truncated)?;
            return Ok((Self::v0(*digest), rest));
        }
        let (version, rest) = varint::strict(bytes).ok_or(CidError::Truncated)?;
        if version != 1 {
            return Err(CidError::BadVersion(version));
        }
        let (codec, rest) = varint::strict(rest).ok_or(CidError::Truncated)?;
        let (code, rest) = varint::strict(rest).ok_or(CidError::Truncated)?;
        let (length, rest) = varint::strict(rest).ok_or(CidError::Truncated)?;
        if length > MAX_DIGEST as u64 || (code == SHA2_256 && length != 32) {
            return Err(CidError::BadDigestLength(length));
        }
        let (digest, rest) = rest.split_at_checked(length as usize).ok_or(CidError::Truncated)?;
        let hash = match (code, <[u8; 32]>::try_from(digest)) {
            (SHA2_256, Ok(digest)) => Multihash::Sha256(digest),
            (0, _) => Multihash::Identity(digest.into()),
            _ => Multihash::Other { code, digest: digest.into() },
        };
        Ok((Self { version: Version::V1, codec: Codec(codec), hash }, rest))
    }
}

impl FromStr for Cid {
    type Err = CidError;

    fn from_str(text: &str) -> Result<Self, CidError> {
        if text.len() == 46 && text.starts_with("Qm") {
            let bytes = base::from_base58(text).ok_or(CidError::BadText)?;
            return Self::from_bytes(&bytes);
        }
        let bytes = base::from_multibase(text).ok_or(CidError::BadText)?;
        let cid = Self::from_bytes(&bytes)?;
        if cid.version == Version::V0 { Err(CidError::PrefixedV0) } else { Ok(cid) }
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.to_bytes();
        let (prefix, text): (&str, String) = match self.version {
            Version::V0 => ("", base::base58(&bytes)),
            Version::V1 if self.codec == Codec::LIBP2P_KEY => ("k", base::base36(&bytes)),
            Version::V1 => ("b", base::base32(&bytes)),
        };
        f.write_str(prefix)?;
        f.write_str(&text)
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn texts_of_both_versions_round_trip() {
        for text in [
            "QmWATWQ7fVPP2EFGu71UkfnqhYXDYH566qy47CnJDgvs8u",
            "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
            "bafkqaaa",
        ] {
            let cid: Cid = text.parse().unwrap();
            assert_eq!(cid.to_string(), text);
            assert_eq!(Cid::from_bytes(&cid.to_bytes()).unwrap(), cid);
        }
        assert_eq!("bafkqaaa".parse::<Cid>().unwrap().inline(), Some(&[][..]));
    }

    #[test]
    fn every_mistake_has_its_name() {
        let parse = |t: &str| t.parse::<Cid>().unwrap_err();
        assert_eq!(parse(""), CidError::BadText);
        assert_eq!(parse("hello"), CidError::BadText);
        assert_eq!(parse("zQmWATWQ7fVPP2EFGu71UkfnqhYXDYH566qy47CnJDgvs8u"), CidError::PrefixedV0);
        assert_eq!(Cid::from_bytes(&[2, 0x55, 0x12, 0]), Err(CidError::BadVersion(2)));
        assert_eq!(Cid::from_bytes(&[1, 0x55, 0x12, 5, 0, 0, 0, 0, 0]), Err(CidError::BadDigestLength(5)));
        assert_eq!(Cid::from_bytes(&[1, 0x55, 0, 0x81, 0x01]), Err(CidError::BadDigestLength(129)));
        assert_eq!(Cid::from_bytes(&[1, 0x55, 0, 1]), Err(CidError::Truncated));
        assert_eq!(Cid::from_bytes(&[1, 0x55, 0, 0, 9]), Err(CidError::TrailingBytes));
        assert_eq!(Cid::from_bytes(&[0x12, 0x20, 1]), Err(CidError::Truncated));
    }

    #[test]
    fn blocks_are_verified() {
        let cid = Cid::of(Version::V1, Codec::RAW, b"hello world");
        assert_eq!(cid.verify(b"hello world"), Ok(()));
        assert_eq!(cid.verify(b"hello worlD"), Err(VerifyError::Mismatch));
        assert_eq!(
            cid.verify(&vec![0; crate::MAX_BLOCK + 1]),
            Err(VerifyError::TooLarge(crate::MAX_BLOCK + 1))
        );
        let blake = Cid::from_bytes(&[1, 0x55, 0x1e, 1, 7]).unwrap();
        assert_eq!(blake.verify(b""), Err(VerifyError::UnsupportedHash(0x1e)));
    }

    proptest! {
        #[test]
        fn any_bytes_and_text_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..160), text in ".{0,80}") {
            if let Ok(cid) = Cid::from_bytes(&bytes) {
                prop_assert_eq!(cid.byte_length(), bytes.len());
                prop_assert_eq!(cid.to_bytes(), bytes);
                prop_assert_eq!(cid.to_string().parse::<Cid>().unwrap(), cid);
            }
            let _ = text.parse::<Cid>();
        }
    }
}

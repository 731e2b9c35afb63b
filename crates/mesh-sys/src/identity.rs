//! The node's identity: one Ed25519 key (RFC 8032), made once and kept for ever.
//!
//! `<state-dir>/identity` holds the 32-byte seed as 64 hexadecimal digits and a newline. It is written
//! beside its place, synced, and linked into it, so that it is never half there and of several processes
//! that make one at the same time exactly one wins and all use that one.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use mesh_types::NodeId;
use sha2::{Digest, Sha256};

use crate::{entropy, file};

/// The file's name in the state directory.
pub const FILE_NAME: &str = "identity";

/// The key and what follows from it.
pub struct Identity {
    key: SigningKey,
    node_id: NodeId,
}

impl fmt::Debug for Identity {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity of a seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let node_id = node_id_of(key.verifying_key().as_bytes());
        Self { key, node_id }
    }

    /// SHA-256 of the public key.
    pub const fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The public key (RFC 8032 §5.1.5).
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// Signs `message` (RFC 8032 §5.1.6).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

/// The NodeId of a public key.
pub fn node_id_of(public_key: &[u8; 32]) -> NodeId {
    NodeId::from_digest(Sha256::digest(public_key).into())
}

/// True if `signature` over `message` is by `public_key` (RFC 8032 §5.1.7; small-order keys are refused).
pub fn verify(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(public_key)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

/// Why there is no identity.
#[derive(Debug)]
pub enum IdentityError {
    /// The file is there and is not 64 hexadecimal digits.
    Damaged(PathBuf),
    /// It can't be read or made.
    Io(PathBuf, io::Error),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(path) => write!(
                f,
                "{} is damaged (64 hexadecimal digits expected); restore it, or remove it to get a new \
                 identity and with it new addresses",
                path.display()
            ),
            Self::Io(path, e) => {
                write!(f, "identity {}: {e}; is the data partition mounted and not full?", path.display())
            }
        }
    }
}

impl std::error::Error for IdentityError {}

/// Reads the seed out of the file's content; white space at the end is no matter.
pub fn parse(content: &[u8]) -> Option<[u8; 32]> {
    let digits = content.trim_ascii_end();
    if digits.len() != 64 {
        return None;
    }
    let mut seed = [0; 32];
    for (byte, pair) in seed.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
    }
    Some(seed)
}

/// Where mesh-router keeps which of its IPv4 addresses a node has, below the state folder.
pub const IPV4_FILE: &str = "mesh-router/ipv4";

/// Which of its IPv4 addresses the node has: the argument of [`NodeId::mesh_ipv4`]. Zero, the first, unless
/// mesh-router found that another node has that one.
pub fn ipv4_attempt(state_dir: &Path) -> u8 {
    let text = file::read_limited(&state_dir.join(IPV4_FILE), 16).unwrap_or_default();
    let number = std::str::from_utf8(&text).ok().and_then(|t| t.trim().parse().ok());
    number.filter(|n| *n < mesh_types::IPV4_ATTEMPTS).unwrap_or(0)
}

/// Loads the node's identity, or makes it if there is none. Safe against other processes doing the same,
/// and against a power cut.
///
/// # Errors
/// See [`IdentityError`]. A damaged file is never replaced here.
pub fn load_or_create(state_dir: &Path) -> Result<Identity, IdentityError> {
    load_or_create_for(state_dir, None)
}

/// As [`load_or_create`]; a file that is made belongs to `group` before anyone can see it.
///
/// # Errors
/// See [`IdentityError`].
pub fn load_or_create_for(state_dir: &Path, group: Option<u32>) -> Result<Identity, IdentityError> {
    let path = state_dir.join(FILE_NAME);
    if let Some(identity) = load(&path)? {
        return Ok(identity);
    }
    create(state_dir, &path, group).map_err(|e| IdentityError::Io(path.clone(), e))?;
    load(&path)?.ok_or_else(|| IdentityError::Io(path, ErrorKind::NotFound.into()))
}

fn load(path: &Path) -> Result<Option<Identity>, IdentityError> {
    match file::read_limited(path, 4096) {
        Ok(content) => match parse(&content) {
            Some(seed) => Ok(Some(Identity::from_seed(&seed))),
            None => Err(IdentityError::Damaged(path.into())),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == ErrorKind::FileTooLarge => Err(IdentityError::Damaged(path.into())),
        Err(e) => Err(IdentityError::Io(path.into(), e)),
    }
}

fn create(state_dir: &Path, path: &Path, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(state_dir)?;
    let mut seed = [0; 32];
    entropy::fill(&mut seed)?;
    let mut text: String = seed.iter().map(|b| format!("{b:02x}")).collect();
    text.push('\n');
    // The name is this process's own even among threads that race.
    let beside = state_dir.join(format!("{FILE_NAME}.new.{:016x}", entropy::seed()?));
    let result = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&beside)?;
        if let Some(gid) = group {
            std::os::unix::fs::fchown(&file, None, Some(gid))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // Unlike rename, link fails when another process was first.
        match fs::hard_link(&beside, path) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    })();
    let _ = fs::remove_file(&beside);
    result?;
    File::open(state_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("mesh-sys-identity-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let digit = |i: usize| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
        std::array::from_fn(digit)
    }

    #[test]
    fn rfc8032_7_1_test_2() {
        let id =
            Identity::from_seed(&bytes("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"));
        let public = bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let signature = bytes(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        );
        assert_eq!(id.public_key(), public);
        assert_eq!(id.sign(&[0x72]), signature);
        assert!(verify(&public, &[0x72], &signature) && !verify(&public, &[0x73], &signature));
        assert_eq!(id.node_id(), node_id_of(&public));
    }

    #[test]
    fn it_is_made_once_and_kept() {
        let dir = dir("once");
        let first = load_or_create(&dir).unwrap();
        assert_eq!(load_or_create(&dir).unwrap().node_id(), first.node_id());
        let meta = fs::metadata(dir.join(FILE_NAME)).unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o137), (65, 0));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing is left beside it");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_damaged_file_is_an_error_and_is_kept() {
        let dir = dir("bad");
        fs::create_dir_all(&dir).unwrap();
        for bad in ["", "00\n", &"g".repeat(64), &"0".repeat(65), &"0".repeat(10_000)] {
            fs::write(dir.join(FILE_NAME), bad).unwrap();
            assert!(matches!(load_or_create(&dir), Err(IdentityError::Damaged(_))), "{bad:.70}");
            assert_eq!(fs::read(dir.join(FILE_NAME)).unwrap(), bad.as_bytes());
        }
        fs::write(dir.join(FILE_NAME), "Ab".repeat(32) + "\r\n").unwrap();
        assert!(load_or_create(&dir).is_ok());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn many_at_once_agree_on_one() {
        for round in 0..20 {
            let dir = dir(&format!("race-{round}"));
            let ids: BTreeSet<_> = std::thread::scope(|s| {
                let racers: Vec<_> =
                    (0..16).map(|_| s.spawn(|| load_or_create(&dir).unwrap().node_id())).collect();
                racers.into_iter().map(|r| r.join().unwrap()).collect()
            });
            assert_eq!(ids.len(), 1);
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
            fs::remove_dir_all(&dir).unwrap();
        }
    }
}

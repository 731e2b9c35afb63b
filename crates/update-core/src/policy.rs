//! What a node asks of a bundle before it touches anything: signatures, board, age, size.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use ed25519_dalek::{SigningKey, VerifyingKey};

use crate::bundle::{BLOCK, Manifest, Signature, sha256, signed_hash};
use crate::refusal::Refusal;

/// Secret seeds of the test keys, number 1 to 3: everybody knows them. Nodes that accept them say so loudly.
pub fn test_seed(number: u8) -> [u8; 32] {
    sha256(format!("p2pmesh update test key {number}: never for a node that matters").as_bytes())
}

/// Public keys of the test keys.
pub fn test_keys() -> [[u8; 32]; 3] {
    [1, 2, 3].map(|n| SigningKey::from_bytes(&test_seed(n)).verifying_key().to_bytes())
}

/// The node's side of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `update.keys`.
    pub keys: Vec<[u8; 32]>,
    /// How many of them have to sign; `None`: more than half.
    pub threshold: Option<usize>,
    /// What this board is: the device tree's root `compatible`.
    pub boards: Vec<String>,
    /// The release that runs.
    pub running: u64,
    /// Nothing older is installed.
    pub floor: u64,
    /// Bytes of a slot.
    pub slot: u64,
}

impl Policy {
    /// The different keys there are, and how many of them have to sign.
    fn keys_and_threshold(&self) -> Result<(Vec<[u8; 32]>, usize), Refusal> {
        let mut keys = self.keys.clone();
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return Err(Refusal::NoKeys);
        }
        let needed = self.threshold.unwrap_or(keys.len() / 2 + 1).max(1);
        if needed > keys.len() {
            return Err(Refusal::Threshold { needed, keys: keys.len() });
        }
        Ok((keys, needed))
    }

    /// Checks that enough of the node's keys signed these bytes.
    ///
    /// # Errors
    /// [`Refusal::NoKeys`], [`Refusal::Threshold`], [`Refusal::BadSignature`], [`Refusal::TooFewSignatures`].
    pub fn check_signatures(&self, manifest: &[u8], signatures: &[Signature]) -> Result<(), Refusal> {
        self.check_hash(&sha256(manifest), signatures)
    }

    /// How many keys have to sign.
    ///
    /// # Errors
    /// [`Refusal::NoKeys`], [`Refusal::Threshold`].
    pub fn needed(&self) -> Result<usize, Refusal> {
        self.keys_and_threshold().map(|(_, needed)| needed)
    }

    /// As [`Policy::check_signatures`], where only the manifest's SHA-256 is there yet.
    ///
    /// # Errors
    /// The same.
    pub fn check_hash(&self, manifest: &[u8; 32], signatures: &[Signature]) -> Result<(), Refusal> {
        let (keys, needed) = self.keys_and_threshold()?;
        let message = signed_hash(manifest);
        let (mut signed, mut strangers) = (Vec::new(), 0);
        for s in signatures {
            if !keys.contains(&s.key) {
                strangers += 1;
                continue;
            }
            let good = VerifyingKey::from_bytes(&s.key).is_ok_and(|k| {
                k.verify_strict(&message, &ed25519_dalek::Signature::from_bytes(&s.signature)).is_ok()
            });
            if !good {
                return Err(Refusal::BadSignature { key: s.key });
            }
            // A key that signs twice is one key.
            if !signed.contains(&s.key) {
                signed.push(s.key);
            }
        }
        let good = signed.len();
        if good < needed { Err(Refusal::TooFewSignatures { good, needed, strangers }) } else { Ok(()) }
    }

    /// Checks that the bundle is for this node. Its signatures come first.
    ///
    /// # Errors
    /// [`Refusal::Board`], [`Refusal::Downgrade`], [`Refusal::Needs`], [`Refusal::Oversize`].
    pub fn check_manifest(&self, manifest: &Manifest) -> Result<(), Refusal> {
        let header = manifest.slot_header()?;
        if !manifest.boards.iter().any(|b| self.boards.contains(b)) {
            return Err(Refusal::Board { bundle: manifest.boards.clone(), node: self.boards.clone() });
        }
        if header.release < self.floor && manifest.excepts < self.floor {
            return Err(Refusal::Downgrade { release: header.release, floor: self.floor });
        }
        if self.running < manifest.needs {
            return Err(Refusal::Needs { needs: manifest.needs, running: self.running });
        }
        let needed = (header.sectors() * crate::SECTOR as u64).next_multiple_of(BLOCK as u64);
        if needed > self.slot { Err(Refusal::Oversize { needed, slot: self.slot }) } else { Ok(()) }
    }
}

//! Key files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use mesh_sys::identity::{self, Identity};
use mesh_sys::{entropy, file};

/// An update key with its secret.
pub(crate) struct Key {
    seed: [u8; 32],
    identity: Identity,
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Key {
    fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed, identity: Identity::from_seed(&seed) }
    }

    /// A fresh one.
    pub(crate) fn new() -> io::Result<Self> {
        let mut seed = [0; 32];
        entropy::fill(&mut seed)?;
        Ok(Self::from_seed(seed))
    }

    /// One of the test keys.
    pub(crate) fn test(number: u8) -> Self {
        Self::from_seed(update_core::test_seed(number))
    }

    /// Reads a key file.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let bytes = file::read_limited(path, 4096).map_err(|e| format!("{}: {e}", path.display()))?;
        let seed = identity::parse(&bytes).ok_or_else(|| {
            format!("{}: a key file is 64 hexadecimal digits and a newline", path.display())
        })?;
        Ok(Self::from_seed(seed))
    }

    /// Writes a key file and the public key beside it; never over one that is there.
    pub(crate) fn store(&self, path: &Path) -> Result<(), String> {
        let bad = |e: io::Error| format!("{}: {e}", path.display());
        let mut secret =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(bad)?;
        secret
            .write_all(format!("{}\n", hex(&self.seed)).as_bytes())
            .and_then(|()| secret.sync_all())
            .map_err(bad)?;
        let mut public = path.as_os_str().to_os_string();
        public.push(".pub");
        fs::write(public, format!("{}\n", hex(&self.public()))).map_err(bad)
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.identity.public_key()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.identity.sign(message)
    }
}

//! Which bundle of a USB stick is installed: a stick may be forgotten in the node, for years.

use alloc::string::String;
use core::fmt;

use crate::bundle::{Manifest, Signature};
use crate::policy::Policy;
use crate::refusal::Refusal;

/// At most that many bundles of a stick are looked at.
pub const MAX_LOOKED_AT: usize = 16;
/// The longest name, in bytes.
const MAX_NAME: usize = 128;

/// True for the name of a file that may be a bundle: `….bundle`, printable ASCII, no hidden file (macOS puts one with
/// other content beside each).
pub fn is_bundle_name(name: &str) -> bool {
    let ends = name.len() > 7 && name.to_ascii_lowercase().ends_with(".bundle");
    let plain = name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'/');
    ends && plain && name.len() <= MAX_NAME && !name.starts_with('.')
}

/// What is in the slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The release that runs.
    pub running: u64,
    /// The one in the other slot; 0: none.
    pub other: u64,
    /// Whether the other slot has tries left.
    pub other_boots: bool,
}

/// Why a good bundle of a stick is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It is what runs, or older.
    NotNewer(u64),
    /// It is in the other slot already and waits for the next boot.
    Waits(u64),
    /// It was in the other slot, and did not prove good.
    Failed(u64),
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNewer(release) => write!(
                f,
                "release {release} is not newer than what runs here (an older one is installed only by meshctl update apply)"
            ),
            Self::Waits(release) => {
                write!(f, "release {release}, or a newer one, is installed and starts with the next boot")
            }
            Self::Failed(release) => {
                write!(
                    f,
                    "release {release} did not prove good here; meshctl update apply installs it all the same"
                )
            }
        }
    }
}

/// Checks what of a bundle lies before its table: signatures, board, age. Returns its release and version.
///
/// # Errors
/// The reason why this node would not take it.
pub fn look(policy: &Policy, manifest: &[u8], signatures: &[u8]) -> Result<(u64, String), Refusal> {
    policy.check_signatures(manifest, &Signature::parse_all(signatures))?;
    let manifest = Manifest::parse(manifest)?;
    policy.check_manifest(&manifest)?;
    let header = manifest.slot_header()?;
    Ok((header.release, header.version))
}

/// Whether a bundle of that release is installed from a stick: only what is newer than what runs, and not what the
/// other slot has or had.
///
/// # Errors
/// Why it is left alone.
pub const fn worth(release: u64, present: Present) -> Result<(), Left> {
    if release <= present.running {
        return Err(Left::NotNewer(release));
    }
    if present.other_boots && present.other >= release {
        return Err(Left::Waits(release));
    }
    if present.other == release { Err(Left::Failed(release)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_here() {
        let present = |running, other, other_boots| Present { running, other, other_boots };
        for (release, slots, answer) in [
            (5, present(4, 0, false), Ok(())),
            (5, present(4, 3, true), Ok(())),
            (5, present(5, 4, true), Err(Left::NotNewer(5))),
            (4, present(5, 3, true), Err(Left::NotNewer(4))),
            (5, present(4, 5, true), Err(Left::Waits(5))),
            (5, present(4, 6, true), Err(Left::Waits(5))),
            (5, present(4, 5, false), Err(Left::Failed(5))),
            // A newer one failed: the one between is worth a try.
            (5, present(4, 6, false), Ok(())),
            // Releases of a system that has none.
            (0, present(0, 0, false), Err(Left::NotNewer(0))),
        ] {
            assert_eq!(worth(release, slots), answer, "{release} {slots:?}");
        }
    }

    #[test]
    fn names_of_bundles() {
        for (name, good) in [
            ("p2pmesh-rpi-arm64-1.bundle", true),
            ("A.BUNDLE", true),
            ("my update.bundle", true),
            ("._p2pmesh.bundle", false),
            (".bundle", false),
            ("x.bundle.txt", false),
            ("a/b.bundle", false),
            ("\u{1b}[2J.bundle", false),
            ("\u{e9}.bundle", false),
        ] {
            assert_eq!(is_bundle_name(name), good, "{name:?}");
        }
        assert!(!is_bundle_name(&("x".repeat(122) + ".bundle")));
    }
}

//! Why a bundle is not installed; for people.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::bundle::PartKind;

/// The reason. Every one but [`Refusal::Chunk`], [`Refusal::Bomb`] and [`Refusal::Part`] is found before
/// anything is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not begin as a bundle does.
    NotABundle,
    /// It breaks the format.
    Format(&'static str),
    /// The node has no `update.keys`.
    NoKeys,
    /// `update.threshold` is more than there are keys.
    Threshold {
        /// Signatures that are asked for.
        needed: usize,
        /// Keys there are.
        keys: usize,
    },
    /// A signature in the name of one of the node's keys is wrong.
    BadSignature {
        /// The key.
        key: [u8; 32],
    },
    /// Not enough of the node's keys signed.
    TooFewSignatures {
        /// Good signatures by keys of the node.
        good: usize,
        /// Signatures that are asked for.
        needed: usize,
        /// Signatures by keys the node does not know.
        strangers: usize,
    },
    /// It is for other boards.
    Board {
        /// The bundle's boards.
        bundle: Vec<String>,
        /// What this one is.
        node: Vec<String>,
    },
    /// It is not what was announced.
    NotOffered {
        /// It has the manifest that was announced, so only the release was a lie.
        same: bool,
        /// The release it is.
        release: u64,
    },
    /// It is older than the node's floor.
    Downgrade {
        /// The bundle's release.
        release: u64,
        /// The node's floor.
        floor: u64,
    },
    /// Another release has to be installed first.
    Needs {
        /// The release that must run at least.
        needs: u64,
        /// The one that runs.
        running: u64,
    },
    /// The running system is on trial: the other slot may be the only good one.
    OnTrial,
    /// The system does not fit the slot.
    Oversize {
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        slot: u64,
    },
    /// The file ends before the bundle does.
    Truncated {
        /// Bytes there are.
        has: u64,
        /// Bytes there should be.
        needed: u64,
    },
    /// The file goes on behind the bundle's end.
    Trailing {
        /// Bytes too many.
        extra: u64,
    },
    /// The table is not the one that was signed.
    Table,
    /// A chunk is not the one that was signed.
    Chunk(u32),
    /// A chunk unpacks to more than was signed.
    Bomb(u32),
    /// A part as a whole is not the one that was signed.
    Part(PartKind),
}

impl Refusal {
    /// The same bytes may be taken another time: this node will have changed.
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::OnTrial | Self::Needs { .. } | Self::NoKeys | Self::Threshold { .. })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotABundle => f.write_str("it is no update bundle (or of a format that this version does not know)"),
            Self::Format(what) => write!(f, "the bundle breaks its format: {what}"),
            Self::NoKeys => f.write_str(
                "this node accepts nobody's updates: put the public keys of those who may update it into update.keys in p2pmesh.toml",
            ),
            Self::Threshold { needed, keys } => write!(
                f,
                "update.threshold asks for {needed} signatures, but update.keys has {keys} different keys; mend p2pmesh.toml"
            ),
            Self::BadSignature { key } => write!(f, "wrong signature: the one by key {} does not fit", Short(key)),
            Self::TooFewSignatures { good, needed, strangers } => {
                write!(f, "not enough signatures: {needed} of this node's update.keys have to sign, {good} did")?;
                if *strangers > 0 { write!(f, " ({strangers} by keys that this node does not know)") } else { Ok(()) }
            }
            Self::Board { bundle, node } => {
                write!(f, "wrong board: it is for {}; this is ", bundle.join(", "))?;
                if node.is_empty() { f.write_str("an unknown one") } else { f.write_str(&node.join(", ")) }
            }
            Self::NotOffered { release, .. } => {
                write!(f, "not what was announced: it is release {release}")
            }
            Self::Downgrade { release, floor } => write!(
                f,
                "downgrade: it is release {release}, and this node installs nothing older than {floor} (an exception has to be signed into the bundle)"
            ),
            Self::Needs { needs, running } => write!(
                f,
                "it needs release {needs} to be running, and this is {running}; install that one first"
            ),
            Self::OnTrial => f.write_str(
                "the running system is still on trial, and the other slot is what the node goes back to: wait until it is confirmed (meshctl update status)",
            ),
            Self::Oversize { needed, slot } => {
                write!(f, "oversize: the system needs {needed} bytes, a slot has {slot}")
            }
            Self::Truncated { has, needed } => {
                write!(f, "truncated: the bundle has {needed} bytes, {has} of them are here; fetch it again")
            }
            Self::Trailing { extra } => write!(f, "oversize: {extra} bytes follow the bundle's end"),
            Self::Table => f.write_str("damaged: the table of chunks is not the signed one; fetch it again"),
            Self::Chunk(n) => write!(f, "damaged: chunk {n} is not the signed one; fetch the bundle again"),
            Self::Bomb(n) => write!(f, "damaged: chunk {n} unpacks to more than was signed; fetch the bundle again"),
            Self::Part(kind) => write!(f, "the {} as a whole is not the signed one", kind.name()),
        }
    }
}

impl core::error::Error for Refusal {}

/// The first eight digits of a key.
pub(crate) struct Short<'a>(pub(crate) &'a [u8; 32]);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str("…")
    }
}

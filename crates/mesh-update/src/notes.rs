//! What the service keeps from boot to boot: the floor, and how the last trial went.
//!
//! `<state-dir>/mesh-update/floor` is a decimal number. `trial` says which slot is or was on trial: its name, a space, the
//! version, and `neighbour` behind it if the node had one; each further line is what the health gate waited for when it was last heard of.
//! `attempt` is the release that the node restarted into when its turn came, a space, and how many failures of it were known
//! then. `offer` is the announcement of the bundle that the store keeps for others.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use mesh_sys::file;
use update_core::{Offer, Slot, TrialLine};

/// The longest note, in bytes.
const MAX: u64 = 8192;

pub(crate) struct Notes {
    dir: PathBuf,
}

/// A trial, as it was when it was last heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trial {
    pub(crate) slot: Slot,
    pub(crate) version: String,
    /// The node had a neighbour when this system was installed.
    pub(crate) neighbour: bool,
    /// What the gate waited for; empty if it never came to the gate.
    pub(crate) waited_for: Vec<String>,
}

impl Notes {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("mesh-update") }
    }

    /// Nothing older than this is installed.
    pub(crate) fn floor(&self) -> u64 {
        self.read("floor").and_then(|t| t.trim().parse().ok()).unwrap_or(0)
    }

    /// Raises the floor; it never falls.
    pub(crate) fn raise_floor(&self, floor: u64) -> io::Result<()> {
        if floor <= self.floor() { Ok(()) } else { self.write("floor", &format!("{floor}\n")) }
    }

    /// The trial that is under way or failed.
    pub(crate) fn trial(&self) -> Option<Trial> {
        let text = self.read("trial")?;
        let TrialLine { slot, version, neighbour } = TrialLine::parse(&text)?;
        let waited_for = text.lines().skip(1).map(str::to_owned).collect();
        Some(Trial { slot, version: version.into(), neighbour, waited_for })
    }

    /// Keeps it; nothing is written if that is what is kept already.
    pub(crate) fn keep_trial(&self, trial: &Trial) -> io::Result<()> {
        if self.trial().as_ref() == Some(trial) {
            return Ok(());
        }
        let neighbour = if trial.neighbour { " neighbour" } else { "" };
        let mut text = format!("{} {}{neighbour}\n", trial.slot, trial.version);
        for line in &trial.waited_for {
            text.extend(line.chars().filter(|c| !c.is_control()));
            text.push('\n');
        }
        text.truncate(text.floor_char_boundary(MAX as usize - 1));
        self.write("trial", &text)
    }

    /// The trial ended well.
    pub(crate) fn forget_trial(&self) -> io::Result<()> {
        match fs::remove_file(self.dir.join("trial")) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Which number a failure of that release on this node has.
    pub(crate) fn failure(&self, release: u64) -> u8 {
        let text = self.read("attempt").unwrap_or_default();
        let known = text.trim().split_once(' ').filter(|(r, _)| r.parse() == Ok(release));
        known.and_then(|(_, n)| n.parse::<u8>().ok()).unwrap_or(0).saturating_add(1)
    }

    /// The node restarts into that release; so many failures of it are known.
    pub(crate) fn keep_attempt(&self, release: u64, failures: u8) -> io::Result<()> {
        self.write("attempt", &format!("{release} {failures}\n"))
    }

    /// The announcement of what the store keeps for others.
    pub(crate) fn offer(&self) -> Option<Offer> {
        Offer::parse(&file::read_limited(&self.dir.join("offer"), MAX).ok()?)
    }

    /// Keeps it.
    pub(crate) fn keep_offer(&self, offer: &Offer) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        file::write_atomic(&self.dir.join("offer"), &offer.encode(), 0o640)
    }

    fn read(&self, name: &str) -> Option<String> {
        String::from_utf8(file::read_limited(&self.dir.join(name), MAX).ok()?).ok()
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        file::write_atomic(&self.dir.join(name), text.as_bytes(), 0o640)
    }
}

impl Trial {
    /// Why the node went back, for people.
    pub(crate) fn why(&self) -> String {
        let Self { slot, version, waited_for, .. } = self;
        let reason = if waited_for.is_empty() {
            "it never came as far as its health gate (it hung, or its kernel or start failed)".into()
        } else {
            format!("when it was last heard of it waited for: {}", waited_for.join("; "))
        };
        format!("the node went back from version {version} in slot {slot}: {reason}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_kept_and_never_fall() {
        let dir = std::env::temp_dir().join(format!("mesh-update-notes-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let notes = Notes::new(&dir);
        assert_eq!((notes.floor(), notes.trial()), (0, None));
        for (floor, kept) in [(5, 5), (3, 5), (7, 7)] {
            notes.raise_floor(floor).unwrap();
            assert_eq!(notes.floor(), kept);
        }
        assert_eq!((notes.failure(7), notes.offer()), (1, None));
        notes.keep_attempt(7, 2).unwrap();
        assert_eq!((notes.failure(7), notes.failure(8)), (3, 1));
        let mut trial =
            Trial { slot: Slot::B, version: "1.2+g3".into(), neighbour: true, waited_for: Vec::new() };
        notes.keep_trial(&trial).unwrap();
        assert_eq!(notes.trial(), Some(trial.clone()));
        assert!(trial.why().contains("never came as far"));
        trial.waited_for = vec!["mesh-router: it is not running".into(), "é".repeat(9000)];
        notes.keep_trial(&trial).unwrap();
        assert!(notes.trial().unwrap().why().contains("mesh-router: it is not running"));
        notes.forget_trial().unwrap();
        notes.forget_trial().unwrap();
        assert_eq!(notes.trial(), None);
        fs::write(dir.join("mesh-update/trial"), "nonsense").unwrap();
        assert_eq!(notes.trial(), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}

//! The factory reset on a real ext4 in a file, with power cuts at every step.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use mesh_sys::identity;

use super::data::{Machine, Outcome};
use super::reset::{BUTTON, DONE, Order, Wish, prepare};
use super::tests::{FileCard, IDENTITY, missing, used};

/// The FAT partition, of which only the one file matters.
#[derive(Default)]
struct Fat {
    file: Option<String>,
    read_only: bool,
    written: u32,
    off: Rc<Cell<bool>>,
}

impl Order for Fat {
    fn write(&mut self) -> io::Result<String> {
        if self.read_only || self.off.get() {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.written += 1;
        Ok(self.file.insert(format!("written {}", self.written)).clone())
    }

    fn remove(&mut self) -> io::Result<()> {
        if self.read_only || self.off.get() {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.file = None;
        Ok(())
    }
}

impl Fat {
    fn with(text: &str) -> Self {
        Self { file: Some(text.into()), ..Self::default() }
    }

    /// A start of the node; `held`: the button is.
    fn boot(&mut self, card: &mut FileCard, held: bool) -> Outcome {
        (card.cut, card.operations) = (None, 0);
        card.off.set(false);
        self.go_on(card, held)
    }

    fn go_on(&mut self, card: &mut FileCard, held: bool) -> Outcome {
        let wish = match &self.file {
            Some(text) => Wish::File(text.clone()),
            None if held => Wish::Button(26),
            None => Wish::None,
        };
        prepare(card, &wish, self)
    }
}

fn lived_in(name: &str) -> FileCard {
    let mut card = used(name, 68);
    assert!(card.boot(None).mounted);
    card.put("mesh-update/floor", b"7\n");
    card.put("p2pmesh.toml", b"hostname = \"old\"\n");
    card.unmount().unwrap();
    card
}

fn is_new(card: &FileCard) -> bool {
    let kept = card.get("mesh-update/floor").as_deref() == Some(b"7\n".as_slice());
    kept && ["p2pmesh.toml", identity::FILE_NAME, "mesh-store/block"].iter().all(|f| card.get(f).is_none())
}

/// The services of the new node have run.
fn live(card: &mut FileCard, identity: &[u8]) {
    card.put(identity::FILE_NAME, identity);
    card.unmount().unwrap();
}

#[test]
fn a_file_makes_the_partition_anew_once() {
    if let Some(why) = missing() {
        eprintln!("SKIPPED: the factory reset is not tested: {why}");
        return;
    }
    let (mut card, mut fat) = (lived_in("reset-once"), Fat::with("a"));
    let outcome = fat.boot(&mut card, false);
    assert!(outcome.mounted && outcome.problems.is_empty(), "{outcome:?}");
    assert!(is_new(&card) && fat.file.is_none() && card.note(DONE).is_none());
    assert!(card.said.iter().any(|s| s.starts_with("FACTORY RESET")), "{:?}", card.said);
    live(&mut card, b"new");
    fat.boot(&mut card, false);
    assert_eq!(card.get(identity::FILE_NAME).as_deref(), Some(b"new".as_slice()));
}

#[test]
fn a_file_that_can_not_be_removed_resets_only_once() {
    if missing().is_some() {
        return;
    }
    let (mut card, mut fat) = (lived_in("reset-stuck"), Fat { read_only: true, ..Fat::with("a") });
    assert!(fat.boot(&mut card, false).problems.iter().any(|p| p.contains("can't be removed")));
    live(&mut card, b"new");
    for _ in 0..2 {
        assert!(fat.boot(&mut card, false).problems.iter().any(|p| p.contains("earlier start")));
        assert_eq!(card.get(identity::FILE_NAME).as_deref(), Some(b"new".as_slice()));
        card.unmount().unwrap();
    }
    // Another file of that name counts.
    fat.file = Some("b".into());
    fat.boot(&mut card, false);
    assert!(card.get(identity::FILE_NAME).is_none());
    card.unmount().unwrap();
    (fat.file, fat.read_only) = (None, false);
    fat.boot(&mut card, false);
    assert!(card.note(DONE).is_none());
}

#[test]
fn a_button_that_stays_held_resets_only_once() {
    if missing().is_some() {
        return;
    }
    let (mut card, mut fat) = (lived_in("reset-button"), Fat::default());
    assert_eq!(fat.boot(&mut card, true).problems, Vec::<String>::new());
    assert!(is_new(&card) && fat.file.is_none() && fat.written == 1);
    live(&mut card, b"new");
    for _ in 0..2 {
        assert!(fat.boot(&mut card, true).problems.iter().any(|p| p.contains("short circuit")));
        assert_eq!(card.get(identity::FILE_NAME).as_deref(), Some(b"new".as_slice()));
        card.unmount().unwrap();
    }
    fat.boot(&mut card, false);
    assert!(card.note(BUTTON).is_none());
    card.unmount().unwrap();
    // Released and held again; the FAT partition can't be written this time.
    fat.read_only = true;
    fat.boot(&mut card, true);
    assert!(card.get(identity::FILE_NAME).is_none() && card.note(BUTTON).is_some());
}

#[test]
fn a_damaged_partition_is_reset_all_the_same() {
    if missing().is_some() {
        return;
    }
    let (mut card, mut fat) = (lived_in("reset-damaged"), Fat::with("a"));
    std::fs::write(card.data(), vec![0x5a; 64 << 20]).unwrap();
    let outcome = fat.boot(&mut card, false);
    assert!(outcome.mounted && outcome.problems.is_empty(), "{outcome:?}");
    assert!(card.get(identity::FILE_NAME).is_none() && fat.file.is_none());
}

#[test]
fn power_cuts_during_a_reset() {
    if missing().is_some() {
        return;
    }
    for at in 1..40 {
        let mut finished = 0;
        for part in [0, 128, 255] {
            let (mut card, mut fat) = (lived_in("reset-cut"), Fat::with("a"));
            (card.cut, card.operations) = (Some((at, part)), 0);
            fat.off = Rc::clone(&card.off);
            fat.go_on(&mut card, false);
            finished += u32::from(card.operations < at);
            card.snapshot();
            let cut_after = fat.file.is_none();
            let outcome = fat.boot(&mut card, false);
            let what = format!("cut {at}/{part}: {outcome:?} {:?}", card.said);
            assert!(outcome.mounted, "{what}");
            // The wish is never lost, and never comes back.
            assert!(fat.file.is_none() && card.note(DONE).is_none(), "{what}");
            assert!(card.get(identity::FILE_NAME).is_none(), "{what}");
            assert!(!cut_after || outcome.problems.is_empty(), "{what}");
            live(&mut card, IDENTITY);
            fat.boot(&mut card, false);
            assert_eq!(card.get(identity::FILE_NAME).as_deref(), Some(IDENTITY), "{what}");
        }
        if finished == 3 {
            assert!(at > 5, "only {at} operations");
            return;
        }
    }
    panic!("it never comes to an end");
}

//! Factory reset: the data partition is made anew. A file on the FAT partition asks for it, or a button.
//!
//! The order: the partition is made; a note in it says for which file that was; the file is removed; then the note.
//! A power cut before the note repeats the reset, one behind it only the removal. A file that can't be removed
//! resets the node once, not at every start. A button that is held becomes such a file first, and a button that
//! stays held (a short circuit) does nothing until it was seen released.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use mesh_sys::{entropy, file, gpio, mount};

use super::data::{self, Machine, Outcome};
use crate::board::{self, Light};
use crate::console::Console;

/// Names of the file; computers like to add an ending.
const NAMES: [&str; 2] = ["factory-reset", "factory-reset.txt"];
/// Notes at the top of the data partition: for which file the last reset was; that it was the button's.
pub(crate) const DONE: &str = ".factory-reset";
pub(crate) const BUTTON: &str = ".reset-button";
/// What a reset does not take: an older system could else be installed, and a trial would lose its end.
const KEPT: [&str; 2] = ["mesh-update/floor", "mesh-update/trial"];
/// How long the button has to be held.
const HOLD: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(50);

/// Who asks for a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Nobody.
    None,
    /// A file; the text tells it from others of the same name.
    File(String),
    /// The button of this GPIO.
    Button(u8),
}

/// The file on the FAT partition; a test puts another folder in its place.
pub(crate) trait Order {
    /// Makes one; returns what tells it from others.
    fn write(&mut self) -> io::Result<String>;
    /// Removes it.
    fn remove(&mut self) -> io::Result<()>;
}

/// The files in this folder.
pub(crate) struct Files(pub(crate) PathBuf);

impl Files {
    /// What asks for a reset here, if anything does.
    pub(crate) fn find(&self) -> Option<String> {
        self.paths().iter().find_map(|p| stamp(p))
    }

    fn paths(&self) -> Vec<PathBuf> {
        NAMES.iter().map(|n| self.0.join(n)).collect()
    }
}

/// What tells a file from another of its name: its time and the start of its content, on one line.
fn stamp(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    let time = meta.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let head = file::read_limited(path, 256).unwrap_or_default();
    let hex: String = head.iter().map(|b| format!("{b:02x}")).collect();
    Some(format!("{time} {} {hex}", meta.len()))
}

impl Order for Files {
    fn write(&mut self) -> io::Result<String> {
        let path = self.0.join(NAMES[0]);
        let text = format!("{:016x}\n", entropy::seed()?);
        mount::while_writable(&self.0, || file::write_atomic(&path, text.as_bytes(), 0o640))?;
        stamp(&path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove(&mut self) -> io::Result<()> {
        let paths = self.paths();
        mount::while_writable(&self.0, || {
            paths.iter().try_for_each(|p| match fs::remove_file(p) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            })
        })
    }
}

/// Asks the button, if there is one: true if it was held for long enough.
pub(crate) fn held(gpio: u8, console: Console) -> Result<bool, String> {
    let bad =
        |e: io::Error| format!("reset.gpio = {gpio}: the line can't be read: {e}; the button is not served");
    let chips = gpio::chips(Path::new("/dev")).map_err(bad)?;
    let own = |p: &&PathBuf| gpio::label(p).is_ok_and(|l| l.starts_with("pinctrl-bcm2"));
    let chip = chips.iter().find(own).ok_or_else(|| {
        format!("reset.gpio = {gpio}: this board's GPIO controller was not found; the button is not served")
    })?;
    let button = gpio::Button::open(chip, gpio).map_err(bad)?;
    let start = Instant::now();
    let mut tell = || {
        console.say(&format!("the reset button (GPIO {gpio}) is held: go on for 5 s to set the node back"));
        board::show(Path::new("/sys/class/leds"), Light::Trouble);
    };
    let answer = hold(&mut || button.pressed(), &mut || start.elapsed(), &mut tell).map_err(bad);
    board::show(Path::new("/sys/class/leds"), Light::Starting);
    answer
}

/// True if it is pressed from the start on for as long as it takes.
fn hold(
    pressed: &mut dyn FnMut() -> io::Result<bool>,
    elapsed: &mut dyn FnMut() -> Duration,
    tell: &mut dyn FnMut(),
) -> io::Result<bool> {
    let mut told = false;
    while pressed()? {
        if !std::mem::replace(&mut told, true) {
            tell();
        }
        if elapsed() >= HOLD {
            return Ok(true);
        }
        std::thread::sleep(TICK);
    }
    Ok(false)
}

/// Brings the data partition up, anew where that is wished for.
pub(crate) fn prepare(machine: &mut dyn Machine, wish: &Wish, order: &mut dyn Order) -> Outcome {
    let before = data::prepare(machine);
    let note = if before.mounted { machine.note(DONE) } else { None };
    let stuck = before.mounted && machine.note(BUTTON).is_some();
    let stamp = match wish {
        Wish::None => {
            forget(machine, before.mounted, &[DONE, BUTTON]);
            return before;
        }
        Wish::File(stamp) if note.as_ref() == Some(stamp) => {
            return remove(machine, order, before, "it was reset at an earlier start");
        }
        Wish::File(stamp) => stamp.clone(),
        Wish::Button(gpio) if stuck => {
            let mut outcome = before;
            let problem = format!(
                "the reset button (GPIO {gpio}) is held since the last reset; nothing was reset. Release it, or look for a short circuit"
            );
            machine.say(&problem);
            outcome.problems.push(problem);
            return outcome;
        }
        // A power cut from here on finds the file.
        Wish::Button(gpio) => order.write().unwrap_or_else(|e| {
            log::warn!("the reset can't be noted on the FAT partition: {e}");
            format!("gpio {gpio}")
        }),
    };
    machine.say(
        "FACTORY RESET: the data partition is made anew; identity, content and logs of this node are removed",
    );
    let mut outcome = data::make_anew(machine, before, &KEPT);
    if !outcome.mounted {
        return outcome;
    }
    let button =
        if matches!(wish, Wish::Button(_)) { machine.set_note(BUTTON, Some("held\n")) } else { Ok(()) };
    if let Err(e) = button.and_then(|()| machine.set_note(DONE, Some(&stamp))) {
        outcome.problems.push(format!("the factory reset can't be noted: {e}"));
    }
    machine.say("FACTORY RESET: done");
    remove(machine, order, outcome, "the node was reset")
}

/// Removes the file, then the note about it.
fn remove(machine: &mut dyn Machine, order: &mut dyn Order, mut outcome: Outcome, what: &str) -> Outcome {
    match order.remove() {
        Ok(()) => forget(machine, outcome.mounted, &[DONE]),
        Err(e) => outcome.problems.push(format!(
            "{what}, but the file factory-reset can't be removed from the FAT partition: {e}; remove it on a computer"
        )),
    }
    outcome
}

fn forget(machine: &mut dyn Machine, mounted: bool, names: &[&str]) {
    for name in names {
        if mounted
            && machine.note(name).is_some()
            && let Err(e) = machine.set_note(name, None)
        {
            log::warn!("the note {name} can't be removed: {e}");
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_button_counts_when_it_is_held_from_the_start_on() {
        // Pressed that often, time that passes with each look (in ms): held for long enough?
        for (presses, step, answer, tells) in
            [(0, 1000, false, 0), (3, 1000, false, 1), (9, 1000, true, 1), (1, 5000, true, 1)]
        {
            let (mut left, mut now, mut told) = (presses, 0, 0);
            let mut pressed = || {
                left -= 1;
                Ok(left >= 0)
            };
            let mut elapsed = || {
                now += step;
                Duration::from_millis(now)
            };
            assert_eq!(hold(&mut pressed, &mut elapsed, &mut || told += 1).unwrap(), answer);
            assert_eq!(told, tells);
        }
        let mut broken = || Err(io::Error::other("gone"));
        assert!(hold(&mut broken, &mut || HOLD, &mut || ()).is_err());
    }

    #[test]
    fn files_of_both_names_are_found_told_apart_and_removed() {
        let dir = std::env::temp_dir().join(format!("mesh-supervisor-reset-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let mut files = Files(dir.clone());
        assert_eq!(files.find(), None);
        let first = files.write().unwrap();
        assert_eq!(files.find(), Some(first.clone()));
        let second = files.write().unwrap();
        assert_ne!(first, second);
        fs::write(dir.join("factory-reset.txt"), "").unwrap();
        files.remove().unwrap();
        files.remove().unwrap();
        assert_eq!(files.find(), None);
        fs::write(dir.join("factory-reset.txt"), "").unwrap();
        assert!(files.find().is_some());
        fs::remove_dir_all(&dir).unwrap();
    }
}

//! USB sticks: for each that appears, one at a time, `mesh-update --stick` looks whether there is an update on it.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use mesh_sys::poll::{Event, Poller};
use mesh_sys::process::{Child, Spec};
use mesh_sys::uevent::Uevent;

use crate::console::Console;
use crate::options::Options;
use crate::service::find_program;

/// At most that many wait; what comes when so many do is left alone.
const MAX_WAITING: usize = 8;
/// Of its private memory.
const MEMORY: u64 = 32 << 20;
/// A longer line is cut, and so is what a program prints without an end of line.
const MAX_LINE: usize = 400;

/// The sticks that wait and the one that is looked at.
#[derive(Debug)]
pub(crate) struct Sticks {
    token: u64,
    /// The disk the node runs from is no stick, whatever it is plugged into.
    own: Option<PathBuf>,
    waiting: VecDeque<String>,
    running: Option<(Child, Vec<u8>)>,
}

impl Sticks {
    /// Uses `token` and the next one.
    pub(crate) fn new(token: u64, own: Option<PathBuf>) -> Self {
        Self { token, own, waiting: VecDeque::new(), running: None }
    }

    /// True if `token` is one of ours.
    pub(crate) const fn owns(&self, token: u64) -> bool {
        token == self.token || token == self.token + 1
    }

    /// Looks at those that are there already.
    pub(crate) fn look(&mut self, options: &Options, poller: &Poller) {
        let class = Path::new("/sys/class/block");
        let mut names: Vec<_> =
            fs::read_dir(class).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        names.sort();
        for name in names {
            self.want(class, &name.to_string_lossy());
        }
        self.go_on(options, poller);
    }

    /// A device came.
    pub(crate) fn came(&mut self, event: &Uevent, options: &Options, poller: &Poller) {
        if event.subsystem == "block" && event.action == "add" {
            self.want(Path::new("/sys/class/block"), &event.name);
            self.go_on(options, poller);
        }
    }

    fn want(&mut self, class: &Path, name: &str) {
        if !is_stick(class, name, self.own.as_deref()) || self.waiting.iter().any(|w| w == name) {
            return;
        }
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(name.to_owned());
        } else {
            log::warn!("USB stick {name}: left alone, too many wait");
        }
    }

    fn go_on(&mut self, options: &Options, poller: &Poller) {
        while self.running.is_none() {
            let Some(name) = self.waiting.pop_front() else { return };
            if let Err(why) = self.start(&name, options, poller) {
                log::error!("USB stick {name}: {why}");
            }
        }
    }

    fn start(&mut self, name: &str, options: &Options, poller: &Poller) -> Result<(), String> {
        let mut args = vec!["--stick".into(), Path::new("/dev").join(name).into()];
        for (flag, path) in [
            ("--config", &options.config),
            ("--state-dir", &options.state_dir),
            ("--run-dir", &options.run_dir),
        ] {
            args.extend([flag.into(), path.into()]);
        }
        let program = find_program("mesh-update", &options.program_dir)?;
        // It mounts, so it stays root.
        let spec = Spec { program, args, data_limit: Some(MEMORY), ..Spec::default() };
        let child = Child::spawn(&spec).map_err(|e| e.to_string())?;
        let added = poller
            .add(&child, self.token, false)
            .and_then(|()| poller.add(child.output(), self.token + 1, false));
        if let Err(e) = added {
            child.kill();
            return Err(format!("can't be watched: {e}"));
        }
        self.running = Some((child, Vec::new()));
        Ok(())
    }

    /// Takes what the program prints, and its end.
    pub(crate) fn handle(&mut self, event: Event, console: Console, options: &Options, poller: &Poller) {
        let Some((child, said)) = &mut self.running else { return };
        let open = child.read_output(said).unwrap_or(false);
        for line in lines(said) {
            // What is for people; the rest is its log.
            if line.starts_with("USB stick ") {
                console.say(&line);
            } else {
                log::info!("{line}");
            }
        }
        if event.token == self.token {
            if matches!(child.try_wait(), Ok(None)) {
                return;
            }
            self.running = None;
            self.go_on(options, poller);
        } else if !open {
            let _ = poller.remove(child.output());
        }
    }

    /// Ends the one that is looked at.
    pub(crate) fn end(&mut self) {
        self.waiting.clear();
        if let Some((child, _)) = self.running.take() {
            child.kill();
        }
    }
}

/// Takes the whole lines out of `said`, harmless for a terminal.
fn lines(said: &mut Vec<u8>) -> Vec<String> {
    let end = match said.iter().rposition(|b| *b == b'\n') {
        Some(at) => at + 1,
        None if said.len() > MAX_LINE => said.len(),
        None => 0,
    };
    let whole: Vec<u8> = said.drain(..end).collect();
    let text = String::from_utf8_lossy(&whole);
    let clean = |l: &str| l.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect::<String>();
    text.lines().map(clean).filter(|l| !l.is_empty()).collect()
}

/// A partition of a USB disk, or a USB disk without partitions; not of the disk `own`.
fn is_stick(class: &Path, name: &str, own: Option<&Path>) -> bool {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !plain {
        return false;
    }
    let link = class.join(name);
    let Ok(place) = fs::canonicalize(&link) else { return false };
    if !place.components().any(|c| c.as_os_str().as_encoded_bytes().starts_with(b"usb")) {
        return false;
    }
    let own = own.and_then(Path::file_name);
    let of_own = |p: &Path| own.is_some() && p.file_name() == own;
    if link.join("partition").exists() {
        return !place.parent().is_some_and(of_own);
    }
    let has_partitions =
        fs::read_dir(&place).into_iter().flatten().flatten().any(|e| {
            e.file_name().to_string_lossy().starts_with(name) && e.path().join("partition").exists()
        });
    !has_partitions && !of_own(&place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn partitions_of_usb_disks_and_usb_disks_without_any() {
        let dir = std::env::temp_dir().join(format!("mesh-supervisor-sticks-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let class = dir.join("class");
        fs::create_dir_all(&class).unwrap();
        let device = |place: &str, partition: bool| {
            let at = dir.join("devices").join(place);
            fs::create_dir_all(&at).unwrap();
            if partition {
                fs::write(at.join("partition"), "1\n").unwrap();
            }
            symlink(&at, class.join(at.file_name().unwrap())).unwrap();
        };
        device("usb1/1-1/sda", false);
        device("usb1/1-1/sda/sda1", true);
        device("usb1/1-2/sdb", false);
        device("soc/mmcblk0", false);
        device("soc/mmcblk0/mmcblk0p1", true);
        device("usb1/1-3/sdc", false);
        device("usb1/1-3/sdc/sdc4", true);
        let own = Path::new("/dev/sdc");
        let found = ["sda", "sda1", "sdb", "mmcblk0", "mmcblk0p1", "sdc", "sdc4", "", "..", "../sda1", "sdz"]
            .map(|n| is_stick(&class, n, Some(own)));
        assert_eq!(found, [false, true, true, false, false, false, false, false, false, false, false]);
        assert!(is_stick(&class, "sdc4", None));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_whole_lines_without_control_characters() {
        let mut said = b"USB stick sda1: a\x1b[2J\n\nlog\nhal".to_vec();
        assert_eq!(lines(&mut said), ["USB stick sda1: a[2J", "log"]);
        assert_eq!(said, b"hal");
        said.extend_from_slice(&[b'x'; 500]);
        assert_eq!(lines(&mut said)[0].len(), MAX_LINE);
        assert!(said.is_empty());
    }
}

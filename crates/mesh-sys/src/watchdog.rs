//! Hardware and software watchdogs: a device that resets the machine unless it is fed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::ioctl;

/// A watchdog that the kernel offers. Looking does not arm it; opening does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// As `/dev/watchdog0`.
    pub device: PathBuf,
    /// What its driver calls itself, as `Software Watchdog`.
    pub identity: String,
}

/// The watchdogs listed in `sys` (normally `/sys/class/watchdog`), lowest number first.
pub fn offers(sys: &Path) -> Vec<Offer> {
    let mut found: Vec<(u32, Offer)> = Vec::new();
    for entry in fs::read_dir(sys).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(number) = name.strip_prefix("watchdog").and_then(|n| n.parse().ok()) else { continue };
        let identity = fs::read_to_string(entry.path().join("identity")).unwrap_or_default();
        let offer = Offer { device: Path::new("/dev").join(name), identity: identity.trim().to_owned() };
        found.push((number, offer));
    }
    found.sort_unstable_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, offer)| offer).collect()
}

/// An armed watchdog. Dropping it does not disarm it: who holds it must come back in time, or the machine
/// is reset.
#[derive(Debug)]
pub struct Watchdog {
    file: File,
    timeout_s: u32,
}

impl Watchdog {
    /// Opens and so arms `device`; asks for `timeout_s` seconds. A plain file (in tests) only collects the
    /// feeds.
    ///
    /// # Errors
    /// What open(2) says. A device that keeps its own timeout is no error; see [`Watchdog::timeout_s`].
    pub fn arm(device: &Path, timeout_s: u32) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(device)?;
        let mut timeout_s = timeout_s;
        if file.metadata()?.file_type().is_char_device() {
            timeout_s = set_timeout(&file, timeout_s).unwrap_or(timeout_s);
        }
        let mut armed = Self { file, timeout_s };
        armed.feed()?;
        Ok(armed)
    }

    /// The seconds within which it must be fed.
    pub const fn timeout_s(&self) -> u32 {
        self.timeout_s
    }

    /// Feeds it.
    ///
    /// # Errors
    /// What write(2) says.
    pub fn feed(&mut self) -> io::Result<()> {
        // Any byte but the magic `V`, which would disarm it on close.
        self.file.write_all(b"\n")
    }
}

/// WDIOC_SETTIMEOUT; the driver answers with what it took.
#[allow(unsafe_code)]
fn set_timeout(file: &File, seconds: u32) -> io::Result<u32> {
    const SET_TIMEOUT: ioctl::Opcode = ioctl::opcode::read_write::<i32>(b'W', 6);
    let mut value = i32::try_from(seconds).unwrap_or(i32::MAX);
    // SAFETY: the opcode takes a pointer to an int and writes an int back.
    unsafe { ioctl::ioctl(file, ioctl::Updater::<SET_TIMEOUT, i32>::new(&mut value))? };
    Ok(u32::try_from(value).unwrap_or(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_listed_in_order_and_not_opened() {
        let dir = std::env::temp_dir().join(format!("mesh-sys-watchdog-{}", std::process::id()));
        for (name, identity) in [("watchdog10", "Ten\n"), ("watchdog2", "Two"), ("other", "x")] {
            fs::create_dir_all(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("identity"), identity).unwrap();
        }
        let names: Vec<_> = offers(&dir).into_iter().map(|o| (o.device, o.identity)).collect();
        assert_eq!(
            names,
            [("/dev/watchdog2".into(), "Two".to_owned()), ("/dev/watchdog10".into(), "Ten".to_owned())]
        );
        fs::remove_dir_all(&dir).unwrap();
        assert!(offers(&dir).is_empty());
    }

    #[test]
    fn feeding_never_disarms() {
        let path = std::env::temp_dir().join(format!("mesh-sys-watchdog-file-{}", std::process::id()));
        fs::write(&path, "").unwrap();
        let mut dog = Watchdog::arm(&path, 15).unwrap();
        dog.feed().unwrap();
        assert_eq!(dog.timeout_s(), 15);
        drop(dog);
        assert_eq!(fs::read(&path).unwrap(), b"\n\n");
        fs::remove_file(&path).unwrap();
    }
}

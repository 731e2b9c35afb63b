//! One GPIO line as an input, through the kernel's character device (linux/gpio.h, version 2).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// Bytes of `struct gpiochip_info`; the label is in its middle third.
const CHIP_INFO: usize = 68;
const LABEL: std::ops::Range<usize> = 32..64;
/// Bytes of `struct gpio_v2_line_request`, and where its fields are.
const REQUEST: usize = 592;
const CONSUMER_AT: usize = 256;
const FLAGS_AT: usize = 288;
const LINES_AT: usize = 560;
const FD_AT: usize = 588;
/// `GPIO_V2_LINE_FLAG_…`: low is 1, an input, pulled up.
const FLAGS: u64 = 1 << 1 | 1 << 2 | 1 << 8;

/// An input that is pulled up, so that a button to ground pulls it down.
#[derive(Debug)]
pub struct Button {
    line: OwnedFd,
}

/// The GPIO controllers in `dev` (normally `/dev`), by name.
///
/// # Errors
/// What opendir(3) says.
pub fn chips(dev: &Path) -> io::Result<Vec<PathBuf>> {
    let is_chip = |p: &PathBuf| {
        let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.strip_prefix("gpiochip").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut found: Vec<PathBuf> = fs::read_dir(dev)?.flatten().map(|e| e.path()).filter(is_chip).collect();
    found.sort();
    Ok(found)
}

/// What a controller calls itself, as `pinctrl-bcm2835`.
///
/// # Errors
/// What open(2) and ioctl(2) say.
pub fn label(chip: &Path) -> io::Result<String> {
    let file = File::open(chip)?;
    let mut info = [0u8; CHIP_INFO];
    // _IOR(0xb4, 1, struct gpiochip_info)
    ioctl(file.as_raw_fd(), 2 << 30 | (CHIP_INFO as u32) << 16 | 0xb401, &mut info)?;
    let text = info.get(LABEL).unwrap_or_default().split(|b| *b == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

impl Button {
    /// Takes line `number` of `chip`.
    ///
    /// # Errors
    /// What open(2) and ioctl(2) say: `EBUSY` if the line is taken, `EINVAL` if there is none.
    #[allow(unsafe_code)]
    pub fn open(chip: &Path, number: u8) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(chip)?;
        let mut request = line_request(number);
        // _IOWR(0xb4, 7, struct gpio_v2_line_request)
        ioctl(file.as_raw_fd(), 3 << 30 | (REQUEST as u32) << 16 | 0xb407, &mut request)?;
        let fd = request.get(FD_AT..).and_then(|b| b.try_into().ok()).map_or(-1, RawFd::from_ne_bytes);
        if fd < 0 {
            return Err(io::Error::other("the kernel gave no line"));
        }
        // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
        Ok(Self { line: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// True while it is pressed.
    ///
    /// # Errors
    /// What ioctl(2) says.
    pub fn pressed(&self) -> io::Result<bool> {
        let mut values = [0u8; 16]; // bits, mask
        if let Some(mask) = values.get_mut(8..) {
            mask.copy_from_slice(&1u64.to_ne_bytes());
        }
        // _IOWR(0xb4, 14, struct gpio_v2_line_values)
        ioctl(self.line.as_raw_fd(), 3 << 30 | 16 << 16 | 0xb40e, &mut values)?;
        Ok(values.first_chunk().is_some_and(|bits| u64::from_ne_bytes(*bits) & 1 != 0))
    }
}

/// The `gpio_v2_line_request` for one button.
fn line_request(number: u8) -> [u8; REQUEST] {
    let mut request = [0u8; REQUEST];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(field) = request.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    put(0, &u32::from(number).to_ne_bytes());
    put(CONSUMER_AT, b"p2pmesh reset");
    put(FLAGS_AT, &FLAGS.to_ne_bytes());
    put(LINES_AT, &1u32.to_ne_bytes());
    request
}

/// Runs an ioctl whose number says how many bytes the kernel reads and writes.
#[allow(unsafe_code)]
fn ioctl(fd: RawFd, request: u32, buffer: &mut [u8]) -> io::Result<()> {
    debug_assert_eq!(buffer.len(), (request >> 16 & 0x3fff) as usize);
    // SAFETY: `buffer` has exactly the size that the request's number tells the kernel, and lives through the call.
    let result = unsafe { libc::ioctl(fd, request as _, buffer.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_kernels_layout() {
        let request = line_request(26);
        assert_eq!(request[..4], 26u32.to_ne_bytes());
        assert_eq!(&request[256..269], b"p2pmesh reset");
        assert_eq!(request[288..296], 0x106u64.to_ne_bytes());
        assert_eq!(request[560..564], 1u32.to_ne_bytes());
        assert_eq!(request[588..], [0; 4]);
    }

    #[test]
    fn only_controllers_are_chips() {
        let dir = std::env::temp_dir().join(format!("mesh-sys-gpio-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for name in ["gpiochip1", "gpiochip0", "gpiochip", "gpiochipx", "gpiomem"] {
            fs::write(dir.join(name), "").unwrap();
        }
        assert_eq!(chips(&dir).unwrap(), [dir.join("gpiochip0"), dir.join("gpiochip1")]);
        assert!(label(&dir.join("gpiochip0")).is_err());
        assert!(Button::open(&dir.join("gpiochip0"), 5).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}

//! Device-mapper: building read-only devices with the ioctls of `/dev/mapper/control`.
//!
//! Only what the boot needs: create a device, load a table, resume it. The kernel's interface is
//! `include/uapi/linux/dm-ioctl.h`, version 4; the buffer is built by [`table`], a pure function.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// Size of the kernel's `struct dm_ioctl`.
const HEADER: usize = 312;
/// Size of the kernel's `struct dm_target_spec`.
const SPEC: usize = 40;
const NAME_AT: usize = 48;
const NAME_MAX: usize = 127;
const FLAG_READ_ONLY: u32 = 1;
const DEV_CREATE: u32 = 3;
const DEV_SUSPEND: u32 = 6;
const TABLE_LOAD: u32 = 9;

/// One line of a table: `sectors` sectors from `start` are served by the target `kind` with `parameters`,
/// in the words of `dmsetup` (for example `linear` and `/dev/mmcblk0p2 2048`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// First sector (512 bytes) of the new device that this line covers.
    pub start: u64,
    /// How many sectors it covers.
    pub sectors: u64,
    /// The target's name, at most 15 bytes.
    pub kind: &'a str,
    /// The target's parameters.
    pub parameters: &'a str,
}

/// An open `/dev/mapper/control`.
#[derive(Debug)]
pub struct DeviceMapper {
    control: File,
}

impl DeviceMapper {
    /// Opens the control device.
    ///
    /// # Errors
    /// The module `dm_mod` is not loaded, or the caller is not root.
    pub fn open() -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/mapper/control")?;
        Ok(DeviceMapper { control })
    }

    /// Creates the read-only device `name` with `targets` and returns its node, `/dev/dm-N`.
    ///
    /// # Errors
    /// The name or a target is too long (`InvalidInput`), the name exists, or a target refuses its
    /// parameters: the kernel's log says which and why.
    pub fn create_read_only(&self, name: &str, targets: &[Target<'_>]) -> io::Result<PathBuf> {
        let device = self.call(DEV_CREATE, request(name, 0)?)?;
        self.call(TABLE_LOAD, table(name, targets)?)?;
        // "Suspend" without the suspend flag resumes: the loaded table becomes the live one.
        self.call(DEV_SUSPEND, request(name, FLAG_READ_ONLY)?)?;
        Ok(PathBuf::from(format!("/dev/dm-{}", minor(device))))
    }

    /// Runs one ioctl on `buffer` and returns the device number that the kernel filled in.
    fn call(&self, command: u32, mut buffer: Vec<u8>) -> io::Result<u64> {
        // _IOWR(0xfd, command, struct dm_ioctl)
        let request = (3 << 30) | ((HEADER as u32) << 16) | (0xfd << 8) | command;
        // SAFETY: `buffer` is a valid dm_ioctl whose data_size field (set by `request`/`table`) equals its
        // length, so the kernel reads and writes inside of it only; it lives until the call returns.
        #[allow(unsafe_code)]
        let result = unsafe { libc::ioctl(self.control.as_raw_fd(), request as _, buffer.as_mut_ptr()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let number = buffer.get(40..48).and_then(|b| <[u8; 8]>::try_from(b).ok());
        Ok(number.map_or(0, u64::from_ne_bytes))
    }
}

/// The minor number of the kernel's packed device number.
fn minor(device: u64) -> u64 {
    (device & 0xff) | ((device >> 12) & 0xf_ff00)
}

/// A `dm_ioctl` without a payload for the device `name`.
fn request(name: &str, flags: u32) -> io::Result<Vec<u8>> {
    if name.is_empty() || name.len() > NAME_MAX || name.contains('/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "device-mapper name is empty or too long"));
    }
    let mut buffer = Vec::with_capacity(HEADER);
    for field in [4_u32, 0, 0, HEADER as u32, HEADER as u32, 0, 0, flags, 0, 0] {
        buffer.extend_from_slice(&field.to_ne_bytes());
    }
    buffer.resize(NAME_AT, 0);
    buffer.extend_from_slice(name.as_bytes());
    buffer.resize(HEADER, 0);
    Ok(buffer)
}

/// The `dm_ioctl` that loads `targets` as the read-only table of the device `name`.
///
/// # Errors
/// `InvalidInput` when a name is too long or a text contains a zero byte.
pub fn table(name: &str, targets: &[Target<'_>]) -> io::Result<Vec<u8>> {
    let mut buffer = request(name, FLAG_READ_ONLY)?;
    for target in targets {
        if target.kind.len() > 15 || target.kind.contains('\0') || target.parameters.contains('\0') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "device-mapper target is malformed"));
        }
        let next = (SPEC + target.parameters.len() + 1).next_multiple_of(8);
        let end = buffer.len() + next;
        buffer.extend_from_slice(&target.start.to_ne_bytes());
        buffer.extend_from_slice(&target.sectors.to_ne_bytes());
        buffer.extend_from_slice(&0_i32.to_ne_bytes());
        buffer.extend_from_slice(&(next as u32).to_ne_bytes());
        let kind_at = buffer.len();
        buffer.extend_from_slice(target.kind.as_bytes());
        buffer.resize(kind_at + 16, 0);
        buffer.extend_from_slice(target.parameters.as_bytes());
        buffer.resize(end, 0);
    }
    let total = buffer.len() as u32;
    let count = targets.len() as u32;
    for (at, value) in [(12, total), (20, count)] {
        if let Some(field) = buffer.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_ne_bytes());
        }
    }
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(buffer: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(buffer[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn a_table_has_the_kernels_layout() {
        let targets = [
            Target { start: 0, sectors: 8, kind: "linear", parameters: "/dev/x 4096" },
            Target { start: 8, sectors: 16, kind: "zero", parameters: "" },
        ];
        let buffer = table("root", &targets).unwrap();
        assert_eq!(field(&buffer, 0), 4, "version");
        assert_eq!(field(&buffer, 12) as usize, buffer.len(), "data_size");
        assert_eq!(field(&buffer, 16) as usize, HEADER, "data_start");
        assert_eq!(field(&buffer, 20), 2, "target_count");
        assert_eq!(&buffer[NAME_AT..NAME_AT + 5], b"root\0");
        let next = field(&buffer, HEADER + 20) as usize;
        assert_eq!(next % 8, 0);
        assert_eq!(&buffer[HEADER + 24..HEADER + 31], b"linear\0");
        assert_eq!(&buffer[HEADER + SPEC..HEADER + SPEC + 12], b"/dev/x 4096\0");
        assert_eq!(&buffer[HEADER + next + 24..HEADER + next + 29], b"zero\0");
        assert_eq!(buffer.len(), HEADER + next + 48);
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        assert!(table(&"n".repeat(128), &[]).is_err());
        assert!(table("a/b", &[]).is_err());
        let long = Target { start: 0, sectors: 1, kind: "sixteen-bytes-xx", parameters: "" };
        assert!(table("a", &[long]).is_err());
        let zero = Target { start: 0, sectors: 1, kind: "linear", parameters: "a\0b" };
        assert!(table("a", &[zero]).is_err());
    }

    #[test]
    fn minors_above_255_are_unpacked() {
        assert_eq!(minor(0xfe00), 0);
        assert_eq!(minor(0xfe03), 3);
        assert_eq!(minor((1 << 20) | 0xfe05), 0x105);
    }
}

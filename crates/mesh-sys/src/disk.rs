//! Block devices: their size, their partitions as the kernel sees them, growing a mounted ext4.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::Path;

use rustix::ioctl;

/// A partition as the kernel is told of it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// From 1.
    pub number: i32,
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub length: u64,
}

/// Length of a block device or file in bytes.
///
/// # Errors
/// What open(2) and lseek(2) say.
pub fn size(device: &Path) -> io::Result<u64> {
    File::open(device)?.seek(SeekFrom::End(0))
}

/// Start and length in bytes of a partition as the kernel knows it now, from `/sys/class/block/<name>`;
/// `None` if it knows none of that name.
pub fn known(sys_class_block: &Path, name: &str) -> Option<(u64, u64)> {
    let read = |file: &str| -> Option<u64> {
        fs::read_to_string(sys_class_block.join(name).join(file))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()?
            .checked_mul(512)
    };
    Some((read("start")?, read("size")?))
}

/// Tells the kernel of a partition that it does not know yet. The disk may be in use.
///
/// # Errors
/// What BLKPG says: `EBUSY` if it overlaps another one.
pub fn add_partition(disk: &File, partition: Partition) -> io::Result<()> {
    blkpg(disk, 1, partition)
}

/// Tells the kernel the new length of a partition, which may be in use.
///
/// # Errors
/// What BLKPG says.
pub fn resize_partition(disk: &File, partition: Partition) -> io::Result<()> {
    blkpg(disk, 3, partition)
}

#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    names: [u8; 128],
}

#[repr(C)]
struct BlkpgArgument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut BlkpgPartition,
}

#[allow(unsafe_code)]
fn blkpg(disk: &File, operation: i32, partition: Partition) -> io::Result<()> {
    const BLKPG: ioctl::Opcode = ioctl::opcode::none(0x12, 105);
    let bytes = |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let mut data = BlkpgPartition {
        start: bytes(partition.start)?,
        length: bytes(partition.length)?,
        number: partition.number,
        names: [0; 128],
    };
    let argument = BlkpgArgument {
        operation,
        flags: 0,
        length: size_of::<BlkpgPartition>() as i32,
        data: &raw mut data,
    };
    // SAFETY: BLKPG reads one blkpg_ioctl_arg and the blkpg_partition it points to; both live through the call.
    unsafe { Ok(ioctl::ioctl(disk, ioctl::Setter::<BLKPG, BlkpgArgument>::new(argument))?) }
}

/// Makes the kernel refuse every write to a block device, or allow them again. A file system that is mounted read-only
/// may still write: an ext4 notes the mistakes found in it.
///
/// # Errors
/// What open(2) and BLKROSET say; only root may.
#[allow(unsafe_code)]
pub fn set_read_only(device: &Path, read_only: bool) -> io::Result<()> {
    const BLKROSET: ioctl::Opcode = ioctl::opcode::none(0x12, 93);
    let device = File::open(device)?;
    // SAFETY: BLKROSET reads one int.
    unsafe { Ok(ioctl::ioctl(&device, ioctl::Setter::<BLKROSET, i32>::new(read_only.into()))?) }
}

/// Grows the mounted ext4 that holds `folder` to `blocks` of its blocks. The kernel's journal makes it safe
/// against a power cut.
///
/// # Errors
/// What EXT4_IOC_RESIZE_FS says.
#[allow(unsafe_code)]
pub fn grow_ext4(folder: &Path, blocks: u64) -> io::Result<()> {
    const RESIZE: ioctl::Opcode = ioctl::opcode::write::<u64>(b'f', 16);
    let folder = File::open(folder)?;
    // SAFETY: the opcode reads one u64.
    unsafe { Ok(ioctl::ioctl(&folder, ioctl::Setter::<RESIZE, u64>::new(blocks))?) }
}

/// Bytes free to everybody and in all on the file system of `folder`.
///
/// # Errors
/// What statvfs(3) says.
pub fn free(folder: &Path) -> io::Result<(u64, u64)> {
    let s = rustix::fs::statvfs(folder)?;
    Ok((s.f_bavail.saturating_mul(s.f_frsize), s.f_blocks.saturating_mul(s.f_frsize)))
}

/// Writes out everything that is buffered.
pub fn sync_all() {
    rustix::fs::sync();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_knows_of_a_partition() {
        let dir = std::env::temp_dir().join(format!("mesh-sys-disk-{}", std::process::id()));
        fs::create_dir_all(dir.join("mmcblk0p4")).unwrap();
        fs::write(dir.join("mmcblk0p4/start"), "100\n").unwrap();
        assert_eq!(known(&dir, "mmcblk0p4"), None);
        fs::write(dir.join("mmcblk0p4/size"), "8\n").unwrap();
        assert_eq!(known(&dir, "mmcblk0p4"), Some((51_200, 4_096)));
        assert_eq!(known(&dir, "mmcblk0p3"), None);
        fs::write(dir.join("file"), [0; 1000]).unwrap();
        assert_eq!(size(&dir.join("file")).unwrap(), 1000);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn other_file_systems_refuse_to_grow() {
        assert!(grow_ext4(Path::new("/proc"), 1).is_err());
        assert!(set_read_only(Path::new("/dev/null"), true).is_err());
        let file = File::open("/dev/null").unwrap();
        assert!(resize_partition(&file, Partition { number: 4, start: 0, length: 512 }).is_err());
    }
}

//! The card as sectors, and which device it is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, OFlags, fadvise};
use update_core::{Medium, SECTOR};

use crate::stream::Stream;

/// One sector in memory, aligned as direct I/O wants it.
#[repr(align(4096))]
struct Aligned([u8; SECTOR]);

/// A card, or a file that stands for one.
pub(crate) struct Disk {
    file: Arc<File>,
    direct: bool,
    /// Only there while something is installed.
    stream: Option<Stream>,
}

impl Disk {
    /// Opens the card past the page cache, so that one sector is written and no more, and what is read back
    /// comes from the medium. Where a file system has no such access, the cache is used, and synced.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let open = |flags: OFlags| {
            OpenOptions::new().read(true).write(true).custom_flags(flags.bits().cast_signed()).open(path)
        };
        if let Ok(file) = open(OFlags::DIRECT | OFlags::CLOEXEC) {
            let disk = Self { file: Arc::new(file), direct: true, stream: None };
            if disk.read(0).is_ok() {
                return Ok(disk);
            }
        }
        Ok(Self { file: Arc::new(open(OFlags::CLOEXEC)?), direct: false, stream: None })
    }

    /// Reads a sector.
    pub(crate) fn read(&self, lba: u64) -> io::Result<[u8; SECTOR]> {
        let mut buffer = Aligned([0; SECTOR]);
        self.file.read_exact_at(&mut buffer.0, lba.saturating_mul(SECTOR as u64))?;
        Ok(buffer.0)
    }

    /// Writes a sector, waits until the medium has it, and compares.
    pub(crate) fn write(&self, lba: u64, sector: &[u8; SECTOR]) -> io::Result<()> {
        let buffer = Aligned(*sector);
        self.file.write_all_at(&buffer.0, lba.saturating_mul(SECTOR as u64))?;
        self.file.sync_all()?;
        if self.read(lba)? != *sector {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "the card gives back something else than was written",
            ));
        }
        Ok(())
    }

    /// Gives back memory and thread of an installation.
    pub(crate) fn rest(&mut self) {
        self.stream = None;
    }

    fn stream(&mut self) -> &mut Stream {
        self.stream.get_or_insert_with(|| Stream::new(self.file.clone()))
    }
}

impl Medium for Disk {
    type Error = io::Error;

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.stream().read(offset, bytes)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.stream().write(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.stream().settle()?;
        self.file.sync_all()?;
        if !self.direct {
            // What is read next comes from the medium, as far as there is one.
            fadvise(&*self.file, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }
}

/// The device of the card this system runs from: the disk below the mount of `/`, `/boot` or `/data`.
pub(crate) fn find() -> Option<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let points = ["/", "/boot", "/data"];
    let disk =
        points.iter().find_map(|p| disk_below(Path::new("/sys/dev/block"), device_of(&mountinfo, p)?))?;
    Some(Path::new("/dev").join(disk))
}

/// `major:minor` of what is mounted at `point`; of several mounts the last one is seen.
fn device_of<'a>(mountinfo: &'a str, point: &str) -> Option<&'a str> {
    let fields = mountinfo.lines().rev().map(|l| l.split(' ').collect::<Vec<_>>());
    let found = fields.into_iter().find(|f| f.get(4) == Some(&point))?;
    found.get(2).copied()
}

/// Follows device-mapper targets down to a partition, and the partition to its disk.
fn disk_below(sys_dev_block: &Path, device: &str) -> Option<String> {
    let mut here = fs::canonicalize(sys_dev_block.join(device)).ok()?;
    // Root image, verity and linear targets lie three deep.
    for _ in 0..8 {
        if here.join("partition").exists() {
            here = here.parent()?.to_path_buf();
        }
        let below = fs::read_dir(here.join("slaves")).ok().and_then(|mut d| d.next());
        match below {
            Some(entry) => here = fs::canonicalize(entry.ok()?.path()).ok()?,
            None => return Some(here.file_name()?.to_str()?.to_owned()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_disk_is_found_through_device_mapper_and_partition() {
        let dir = std::env::temp_dir().join(format!("mesh-update-sys-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let (dev, block) = (dir.join("dev"), dir.join("devices/mmc/block"));
        fs::create_dir_all(block.join("mmcblk0/mmcblk0p2")).unwrap();
        fs::create_dir_all(block.join("mmcblk0/slaves")).unwrap();
        fs::write(block.join("mmcblk0/mmcblk0p2/partition"), "2\n").unwrap();
        fs::create_dir_all(&dev).unwrap();
        for (dm, below) in [("dm-0", "mmcblk0/mmcblk0p2"), ("dm-1", "dm-0")] {
            fs::create_dir_all(block.join(dm).join("slaves")).unwrap();
            symlink(block.join(below), block.join(dm).join("slaves/x")).unwrap();
        }
        symlink(block.join("dm-1"), dev.join("254:1")).unwrap();
        symlink(block.join("mmcblk0/mmcblk0p2"), dev.join("179:2")).unwrap();
        let info = "1 0 0:2 / / rw - rootfs x rw\n21 1 254:1 / / ro - erofs /dev/dm-1 ro\n22 21 0:5 / /data rw - tmpfs x rw\n";
        assert_eq!(device_of(info, "/"), Some("254:1"));
        assert_eq!(device_of(info, "/boot"), None);
        assert_eq!(disk_below(&dev, "254:1").as_deref(), Some("mmcblk0"));
        assert_eq!(disk_below(&dev, "179:2").as_deref(), Some("mmcblk0"));
        assert_eq!(disk_below(&dev, "0:5"), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}

//! Files that are whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces `path` with `bytes` so that after a power cut it is either the old or the new file: written
/// beside it, synced, renamed, and the folder synced. `mode` as in chmod(2).
///
/// # Errors
/// Any step's; the old file is then still there.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".new.{}", std::process::id()));
    let beside = folder.join(name);
    let result = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    })();
    if result.is_err() {
        let _ = fs::remove_file(&beside);
    }
    result
}

/// Reads a file of at most `max` bytes.
///
/// # Errors
/// `FileTooLarge` above the limit; else what open(2) and read(2) say.
pub fn read_limited(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{} is larger than {max} bytes", path.display()),
        ));
    }
    Ok(bytes)
}

/// Bytes an unprivileged process may still write on the file system that holds `path`.
///
/// # Errors
/// What statvfs(3) says.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Lets two names on one file system change what they name, in one step.
///
/// # Errors
/// What renameat2(2) says: both have to be there; `EINVAL` where the file system can't.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// Writes out all that the file system of `folder` has in memory.
///
/// # Errors
/// What open(2) and syncfs(2) say.
pub fn sync_file_system(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

/// Drops what the system remembers of a file's content (which has to be written out), so that the medium is asked the next time.
///
/// # Errors
/// What posix_fadvise(2) says.
pub fn forget_cached(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// Asks the system to begin writing these bytes of a file to the medium, and does not wait for it: a later sync has
/// less to do. Says nothing about when they are there.
///
/// # Errors
/// What sync_file_range(2) says.
#[allow(unsafe_code)]
pub fn start_writeback(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let (offset, length) = (offset.cast_signed(), length.cast_signed());
    // SAFETY: no memory is handed over, and the descriptor is open as long as `file` is borrowed.
    let result =
        unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files_and_limits_reads() {
        let dir = std::env::temp_dir().join(format!("mesh-sys-file-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("x");
        write_atomic(&path, b"one", 0o640).unwrap();
        write_atomic(&path, b"three", 0o640).unwrap();
        assert_eq!(read_limited(&path, 5).unwrap(), b"three");
        assert_eq!(read_limited(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        write_atomic(&dir.join("y"), b"two", 0o640).unwrap();
        exchange(&path, &dir.join("y")).unwrap();
        assert_eq!(
            (fs::read(&path).unwrap().as_slice(), fs::read(dir.join("y")).unwrap().as_slice()),
            (&b"two"[..], &b"three"[..])
        );
        assert!(exchange(&path, &dir.join("z")).is_err());
        sync_file_system(&dir).unwrap();
        forget_cached(&File::open(&path).unwrap()).unwrap();
        start_writeback(&File::open(&path).unwrap(), 0, 5).unwrap();
        assert!(write_atomic(&dir.join("no/such"), b"", 0o600).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}

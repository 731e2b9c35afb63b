//! Mounting, the change to the real root, and restarting the machine.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_move, mount_remount,
};
use rustix::system::RebootCommand;

/// What a file system is mounted with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Nothing may be written.
    pub read_only: bool,
    /// Device nodes on it are only files.
    pub no_devices: bool,
    /// Set-user-ID bits on it have no effect.
    pub no_suid: bool,
    /// Nothing on it may be executed.
    pub no_exec: bool,
    /// Reading a file does not write its time of access.
    pub no_atime: bool,
}

impl Options {
    /// For kernel file systems and data: no devices, no set-user-ID, no programs.
    pub const DATA: Options =
        Options { read_only: false, no_devices: true, no_suid: true, no_exec: true, no_atime: false };

    fn flags(self) -> MountFlags {
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::RDONLY, self.read_only);
        flags.set(MountFlags::NODEV, self.no_devices);
        flags.set(MountFlags::NOSUID, self.no_suid);
        flags.set(MountFlags::NOEXEC, self.no_exec);
        flags.set(MountFlags::NOATIME, self.no_atime);
        flags
    }
}

/// Mounts `source` of type `kind` on the folder `target`; `data` is the file system's own option string.
///
/// # Errors
/// What mount(2) says; a zero byte in `data` is `InvalidInput`.
pub fn mount_at(source: &Path, target: &Path, kind: &str, options: Options, data: &str) -> io::Result<()> {
    let data = CString::new(data)?;
    Ok(mount(source, target, kind, options.flags(), Some(data.as_c_str()))?)
}

/// Lays a writable layer over the read-only folder `target`: what is written goes to `scratch`, which must
/// be a folder on a writable file system.
///
/// # Errors
/// The two folders can't be made in `scratch`, a path contains `,` or `:`, or mount(2) fails.
pub fn overlay(target: &Path, scratch: &Path) -> io::Result<()> {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    for path in [target, &upper, &work] {
        if path.as_os_str().as_bytes().iter().any(|b| matches!(b, b',' | b':' | b'\\')) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "path can't be part of overlay options"));
        }
    }
    std::fs::create_dir_all(&upper)?;
    std::fs::create_dir_all(&work)?;
    let data =
        format!("lowerdir={},upperdir={},workdir={}", target.display(), upper.display(), work.display());
    mount_at(Path::new("overlay"), target, "overlay", Options::default(), &data)
}

/// From here on, what this process mounts is seen by it and its children alone, and is gone with them.
///
/// # Errors
/// What unshare(2) and mount(2) say; only root may.
#[allow(unsafe_code)]
pub fn private_namespace() -> io::Result<()> {
    // SAFETY: only the mount namespace is unshared, which leaves descriptors and memory as they are.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)? };
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Shows the folder `from` also at `to`.
///
/// # Errors
/// What mount(2) says.
pub fn bind(from: &Path, to: &Path) -> io::Result<()> {
    Ok(mount_bind(from, to)?)
}

/// Ends the mount on `target`.
///
/// # Errors
/// What umount(2) says: `EBUSY` while a process uses it.
pub fn unmount(target: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(target, UnmountFlags::empty())?)
}

/// Makes the mount on `target` read-only, so that nothing on it is lost however the machine goes down.
///
/// # Errors
/// What mount(2) says: `EBUSY` while a file on it is open for writing.
pub fn make_read_only(target: &Path) -> io::Result<()> {
    Ok(mount_remount(target, MountFlags::RDONLY, "")?)
}

/// Does `work` while the file system that holds `folder` may be written, then writes all of it out. A file system that
/// is mounted read-only becomes so again; `folder` must then be where it is mounted.
///
/// # Errors
/// `work`'s; what mount(2) and syncfs(2) say.
pub fn while_writable<T>(folder: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let was = rustix::fs::statvfs(folder)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    // A remount sets all flags anew.
    if was {
        mount_remount(folder, Options::DATA.flags(), "")?;
    }
    let result = work().and_then(|done| {
        crate::file::sync_file_system(folder)?;
        Ok(done)
    });
    if was {
        let again = Options { read_only: true, ..Options::DATA };
        mount_remount(folder, again.flags(), "")?;
    }
    result
}

/// Moves the mount on `from` to `to`.
///
/// # Errors
/// What mount(2) says.
pub fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    Ok(mount_move(from, to)?)
}

/// Makes the mount on `new_root` the root of the file system for this process and its children. What
/// should stay reachable must have been moved below it before.
///
/// # Errors
/// What chdir(2), mount(2) and chroot(2) say.
pub fn switch_root(new_root: &Path) -> io::Result<()> {
    rustix::process::chdir(new_root)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Writes out what is buffered and restarts the machine.
///
/// # Errors
/// The caller may not (it returns only then).
pub fn restart() -> io::Error {
    rustix::fs::sync();
    match rustix::system::reboot(RebootCommand::Restart) {
        Ok(()) => io::Error::other("the kernel did not restart the machine"),
        Err(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_refuses_paths_that_would_change_its_options() {
        let error = overlay(Path::new("/a,upperdir=/etc"), Path::new("/tmp")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}

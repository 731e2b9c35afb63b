//! Network namespaces: many nodes on one host.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// A network namespace, which lives as long as this handle, a process or a thread in it.
#[derive(Debug)]
pub struct NetNamespace {
    fd: OwnedFd,
}

impl NetNamespace {
    /// A new, empty one: `lo`, which is down.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN` in the user namespace.
    pub fn new() -> io::Result<Self> {
        // A thread of its own, so that the caller stays where it is.
        let made = std::thread::spawn(|| -> io::Result<OwnedFd> {
            unshare_network()?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let fd = made.join().map_err(|_| io::Error::other("the thread that makes a namespace ended"))??;
        Ok(Self { fd })
    }

    /// Moves the calling thread into it; threads and processes started from then on are in it, too.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`.
    pub fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

impl AsFd for NetNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[allow(unsafe_code)]
fn unshare_network() -> io::Result<()> {
    // SAFETY: unsafe because of flags that split memory or file descriptors between threads; this one does not.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

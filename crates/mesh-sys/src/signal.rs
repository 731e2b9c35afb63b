//! Signals as readable events (signalfd(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A signal that a service acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: end cleanly.
    Terminate,
    /// SIGHUP.
    HangUp,
    /// SIGCHLD: a child ended.
    Child,
    /// SIGUSR1 or SIGUSR2 (busybox init's halt and power-off).
    User(u8),
}

/// The signals of this process, as one file descriptor to poll.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

const HANDLED: [libc::c_int; 6] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD, libc::SIGUSR1, libc::SIGUSR2];

#[allow(unsafe_code)]
fn mask() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data; sigemptyset initialises it before use.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for s in HANDLED {
            libc::sigaddset(&mut set, s);
        }
        set
    }
}

/// Lets the handled signals through again, as a child expects them before exec.
#[allow(unsafe_code)]
pub fn unblock_all() {
    // SAFETY: the set lives through the call.
    unsafe {
        libc::sigprocmask(libc::SIG_UNBLOCK, &mask(), std::ptr::null_mut());
    }
}

impl Signals {
    /// Blocks the handled signals and opens the descriptor. Call it before any thread starts; a broken pipe
    /// is an error of the write from then on, not a signal.
    ///
    /// # Errors
    /// What sigprocmask(2) or signalfd(2) say.
    #[allow(unsafe_code)]
    pub fn new() -> io::Result<Self> {
        let set = mask();
        // SAFETY: the set lives through the calls; the descriptor is new and ours.
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self { fd: OwnedFd::from_raw_fd(fd) })
        }
    }

    /// The next signal that arrived, if any.
    #[allow(unsafe_code)]
    pub fn next(&self) -> Option<Signal> {
        // SAFETY: signalfd_siginfo is plain data and the buffer is as large as the kernel is told.
        let number = unsafe {
            let mut info: libc::signalfd_siginfo = std::mem::zeroed();
            let size = size_of::<libc::signalfd_siginfo>();
            let n = libc::read(self.fd.as_raw_fd(), (&raw mut info).cast(), size);
            if n != size as isize {
                return None;
            }
            info.ssi_signo as libc::c_int
        };
        match number {
            libc::SIGTERM | libc::SIGINT => Some(Signal::Terminate),
            libc::SIGHUP => Some(Signal::HangUp),
            libc::SIGCHLD => Some(Signal::Child),
            libc::SIGUSR1 => Some(Signal::User(1)),
            libc::SIGUSR2 => Some(Signal::User(2)),
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

//! The poll loop: epoll, level-triggered, with the caller's numbers as tokens.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use mesh_types::Instant;
use rustix::event::{Timespec, epoll};

use crate::clock;

/// What happened to a registered file descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The number it was registered under.
    pub token: u64,
    /// It can be read, or the other end is gone (reading tells).
    pub readable: bool,
    /// It can be written.
    pub writable: bool,
}

/// A set of file descriptors to wait for.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

fn flags(write: bool) -> epoll::EventFlags {
    if write { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN }
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// What epoll_create1(2) says.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Waits for `fd` to be readable, and also writable if `write`. Closing `fd` removes it.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub fn add(&self, fd: impl AsFd, token: u64, write: bool) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags(write))?)
    }

    /// Changes what is waited for.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub fn modify(&self, fd: impl AsFd, token: u64, write: bool) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token), flags(write))?)
    }

    /// Waits for nothing but errors of `fd`, until [`Poller::modify`].
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub fn pause(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let none = epoll::EventFlags::empty();
        Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token), none)?)
    }

    /// No longer waits for `fd`.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits until something happens or `deadline` (`None`: for ever), and puts what happened in `events`
    /// (at most 32 at a time; the rest comes with the next call).
    ///
    /// # Errors
    /// What epoll_wait(2) says; an interruption by a signal is no error.
    pub fn wait(&self, deadline: Option<Instant>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        let timeout = deadline.map(|at| {
            let left = at.saturating_since(clock::now()).as_micros();
            // Rounded up, or the loop would spin through the last fraction of a millisecond.
            let millis = left.div_ceil(1_000).min(86_400_000);
            Timespec { tv_sec: (millis / 1_000) as i64, tv_nsec: ((millis % 1_000) * 1_000_000) as i64 }
        });
        let mut ready: [epoll::Event; 32] =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 32];
        let count = match epoll::wait(&self.epoll, &mut ready, timeout.as_ref()) {
            Ok(n) => n,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let bad = epoll::EventFlags::HUP | epoll::EventFlags::ERR | epoll::EventFlags::RDHUP;
        events.extend(ready.iter().take(count).map(|e| {
            let flags = e.flags;
            Event {
                token: e.data.u64(),
                readable: flags.intersects(epoll::EventFlags::IN | bad),
                writable: flags.contains(epoll::EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

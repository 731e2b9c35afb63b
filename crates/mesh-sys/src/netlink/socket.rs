//! A netlink socket that asks one thing at a time.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size, set_socket_timeout};
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use socket2::{SockFilter, SockRef};

use super::Error;
use super::codec::{self, Builder, Message, flags};

/// The kernel cuts dumps into datagrams of at most 32 KiB.
const BUFFER: usize = 32 * 1024;
/// How often a dump is asked for again when the table changed under it.
const TRIES: usize = 8;

/// How many requests go to the kernel at once: their errors must fit into the receive buffer.
pub(super) const BATCH: usize = 100;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket of `protocol` (`None`: rtnetlink, which is number 0) that hears the multicast `groups` (a bit mask).
    pub(super) fn open(protocol: Option<Protocol>, groups: u32) -> Result<Self, Error> {
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        if groups == 0 {
            set_socket_timeout(&fd, Timeout::Recv, Some(Duration::from_secs(5)))?;
        } else {
            // A burst of changes must fit; what does not is a resync, not an error.
            set_socket_recv_buffer_size(&fd, 512 * 1024)?;
        }
        // Kernels too old for these work without.
        let _ = set_flag(&fd, libc::NETLINK_EXT_ACK);
        let _ = set_flag(&fd, libc::NETLINK_CAP_ACK);
        let _ = set_flag(&fd, libc::NETLINK_GET_STRICT_CHK);
        net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Hears a multicast group, too; one with a number that the bit mask has no room for.
    pub(super) fn listen(&mut self, group: u32) -> Result<(), Error> {
        set_socket_recv_buffer_size(&self.fd, 512 * 1024)?;
        Ok(set_option(&self.fd, libc::NETLINK_ADD_MEMBERSHIP, group.cast_signed())?)
    }

    /// Lets only that through, of what comes from now on.
    pub(super) fn filter(&self, program: &[SockFilter]) -> io::Result<()> {
        SockRef::from(&self.fd).attach_filter(program)
    }

    /// Sends a request and waits for its acknowledgement.
    pub(super) fn request(&mut self, request: Builder) -> Result<(), Error> {
        let sequence = self.send(request, flags::ACK)?;
        self.collect(sequence, |_, _| Ok(())).map(drop)
    }

    /// Sends up to [`BATCH`] requests in one datagram, which the kernel carries out in their order; what
    /// became of each. Only the last is acknowledged: the others say something if they fail.
    pub(super) fn request_all(
        &mut self,
        requests: impl ExactSizeIterator<Item = Builder>,
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let count = requests.len();
        let mut bytes = Vec::new();
        // Sequence numbers are never zero, also not within a batch.
        if self.sequence > u32::MAX - BATCH as u32 {
            self.sequence = 0;
        }
        let first = self.sequence + 1;
        for (at, request) in requests.enumerate() {
            let how = if at + 1 == count { flags::ACK } else { 0 };
            bytes.extend(request.finish(how, first + at as u32));
        }
        let mut results: Vec<Result<(), Error>> = (0..count).map(|_| Ok(())).collect();
        if count == 0 {
            return Ok(results);
        }
        self.sequence += count as u32;
        net::sendto(&self.fd, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        loop {
            let bytes = match receive(&self.fd, &mut self.buffer, RecvFlags::empty()) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => return Err(Error::Unsettled),
                Err(e) => return Err(e), // with ENOBUFS an error may have been lost
            };
            for message in codec::messages(bytes) {
                let message = message?;
                let Some(at) = message.sequence.checked_sub(first).map(|n| n as usize) else { continue };
                let Some(result) = results.get_mut(at).filter(|_| message.kind == NLMSG_ERROR) else {
                    continue;
                };
                *result = verdict(&message);
                if at + 1 == count {
                    return Ok(results);
                }
            }
        }
    }

    /// Sends `requests` as one transaction (nfnetlink's): between a begin, the first of them, and `end`, all
    /// or none are carried out. The first refusal is the error.
    pub(super) fn transact(&mut self, requests: Vec<Builder>, end: Builder) -> Result<(), Error> {
        let mut bytes = Vec::new();
        let count = requests.len() as u32;
        if self.sequence > u32::MAX - count - 2 {
            self.sequence = 0;
        }
        let first = self.sequence + 1;
        let last = first + count - 1;
        for (sequence, request) in (first..).zip(requests) {
            let how = if sequence == last { flags::ACK } else { 0 };
            bytes.extend(request.finish(how, sequence));
        }
        bytes.extend(end.finish(0, last + 1));
        self.sequence = last + 1;
        net::sendto(&self.fd, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        loop {
            let bytes = match receive(&self.fd, &mut self.buffer, RecvFlags::empty()) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => return Err(Error::Unsettled),
                Err(e) => return Err(e),
            };
            for message in codec::messages(bytes) {
                let message = message?;
                if message.kind == NLMSG_ERROR && (first..=last + 1).contains(&message.sequence) {
                    verdict(&message)?;
                    if message.sequence == last {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sends a request that has one answer, and hands over its body.
    pub(super) fn ask(
        &mut self,
        request: Builder,
        mut each: impl FnMut(u16, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let sequence = self.send(request, flags::ACK)?;
        self.collect(sequence, &mut each).map(drop)
    }

    /// Sends a dump request and hands over every object; asks again (and hands over again) when the table
    /// changed meanwhile. Objects may therefore come twice.
    pub(super) fn dump(
        &mut self,
        request: Builder,
        mut each: impl FnMut(u16, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let bytes = request.finish(flags::DUMP, 0);
        for _ in 0..TRIES {
            // Objects of a broken round are dropped: a whole round is kept, then handed over.
            let mut round: Vec<(u16, Vec<u8>)> = Vec::new();
            let sequence = self.send_bytes(&bytes)?;
            let whole = self.collect(sequence, |kind, body| {
                round.push((kind, body.to_vec()));
                super::bounded(round.len())
            })?;
            if whole {
                return round.iter().try_for_each(|(kind, body)| each(*kind, body));
            }
        }
        Err(Error::Unsettled)
    }

    /// As [`Socket::dump`], but nothing is kept: when the table changes meanwhile, objects come several times, and
    /// some that are no more. Whether each came once.
    pub(super) fn stream(
        &mut self,
        request: Builder,
        mut each: impl FnMut(u16, &[u8]) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let bytes = request.finish(flags::DUMP, 0);
        for round in 0..TRIES {
            let sequence = self.send_bytes(&bytes)?;
            let mut count = 0;
            let whole = self.collect(sequence, |kind, body| {
                count += 1;
                super::bounded(count)?;
                each(kind, body)
            })?;
            if whole {
                return Ok(round == 0);
            }
        }
        Err(Error::Unsettled)
    }

    fn send(&mut self, request: Builder, extra: u16) -> Result<u32, Error> {
        let bytes = request.finish(extra, 0);
        self.send_bytes(&bytes)
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Result<u32, Error> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let mut bytes = bytes.to_vec();
        if let Some(room) = bytes.get_mut(8..12) {
            room.copy_from_slice(&self.sequence.to_ne_bytes());
        }
        net::sendto(&self.fd, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(self.sequence)
    }

    /// Takes answers to `sequence` until the last one. `Ok(false)`: they contradict one another, ask again.
    fn collect(
        &mut self,
        sequence: u32,
        mut each: impl FnMut(u16, &[u8]) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let mut whole = true;
        loop {
            let bytes = match receive(&self.fd, &mut self.buffer, RecvFlags::empty()) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => return Err(Error::Unsettled),
                Err(Error::Io(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    whole = false;
                    continue;
                }
                Err(e) => return Err(e),
            };
            for message in codec::messages(bytes) {
                let message = message?;
                if message.sequence != sequence {
                    continue; // the tail of an answer that was given up
                }
                whole &= message.flags & flags::DUMP_INTERRUPTED == 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => return verdict(&message).map(|()| whole),
                    kind => each(kind, message.body)?,
                }
            }
        }
    }

    /// The next datagram that is there, without waiting; `None`: none (or one that is not the kernel's).
    pub(super) fn poll(&mut self) -> Result<Option<&[u8]>, Error> {
        match receive(&self.fd, &mut self.buffer, RecvFlags::DONTWAIT) {
            Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other,
        }
    }

    /// The next event of those that notifications tell, without waiting; `None` when there is none. `read` turns a
    /// datagram into events; what is lost or can't be read is a `resync`. An error: the socket itself failed.
    pub(super) fn next_event<E>(
        &mut self,
        waiting: &mut VecDeque<E>,
        resync: E,
        read: impl Fn(&[u8], &mut VecDeque<E>),
    ) -> Result<Option<E>, Error> {
        // Bounded, though every pass takes something off the socket.
        for _ in 0..64 {
            if let Some(event) = waiting.pop_front() {
                return Ok(Some(event));
            }
            match self.poll() {
                Ok(None) => return Ok(None),
                Ok(Some(bytes)) => read(bytes, waiting),
                Err(Error::Io(e)) if e.raw_os_error() != Some(libc::ENOBUFS) => return Err(Error::Io(e)),
                Err(_) => return Ok(Some(resync)),
            }
        }
        Ok(None)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One datagram from the kernel; `None` for one that another process sent, or an interruption.
fn receive<'a>(fd: &OwnedFd, buffer: &'a mut [u8], how: RecvFlags) -> Result<Option<&'a [u8]>, Error> {
    let (len, full, from) = match net::recvfrom(fd, &mut *buffer, how | RecvFlags::TRUNC) {
        Ok(received) => received,
        Err(Errno::INTR) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    if from.and_then(|a| SocketAddrNetlink::try_from(a).ok()).is_none_or(|a| a.pid() != 0) {
        return Ok(None);
    }
    if full > len {
        return Err(Error::Malformed("a datagram longer than 32 KiB"));
    }
    Ok(buffer.get(..len))
}

/// Whether an error or end-of-dump message means success.
fn verdict(message: &Message<'_>) -> Result<(), Error> {
    let code = match codec::array(message.body, 0).map(i32::from_ne_bytes) {
        Some(code) => code,
        None if message.kind == NLMSG_DONE => 0,
        None => return Err(Error::Malformed("error message")),
    };
    match code {
        0.. => Ok(()),
        _ => Err(Error::Kernel { errno: code.saturating_neg(), message: codec::error_text(message) }),
    }
}

fn set_flag(fd: &OwnedFd, name: i32) -> io::Result<()> {
    set_option(fd, name, 1)
}

#[allow(unsafe_code)]
fn set_option(fd: &OwnedFd, name: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one int, which lives through the call.
    let result = unsafe {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, name, (&raw const value).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

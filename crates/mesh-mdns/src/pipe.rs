//! One TCP connection that carries DNS messages, without waiting (RFC 7766).

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use mesh_sys::poll::Poller;
use names::stream::{Frames, framed};

/// What waits to be sent at most, in bytes; who reads slower is cut off.
const MAX_UNSENT: usize = 256 * 1024;
/// Taken from one connection before others have their turn.
const BURST: usize = 8;

/// A connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    socket: TcpStream,
    frames: Frames,
    unsent: Vec<u8>,
    /// The other end sends no more.
    pub(crate) ended: bool,
}

impl Pipe {
    /// Around a socket that does not block, for messages of at most `most` bytes.
    pub(crate) fn new(socket: TcpStream, most: usize) -> Self {
        Self { socket, frames: Frames::new(most), unsent: Vec::new(), ended: false }
    }

    /// Takes what came and gives the messages that are whole. At the end the poller is told to wait no longer.
    pub(crate) fn fill(&mut self, poller: &Poller, buffer: &mut [u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut messages = Vec::new();
        for _ in 0..BURST {
            match self.socket.read(buffer) {
                Ok(0) => {
                    self.ended = true;
                    poller.remove(&self.socket)?;
                    break;
                }
                Ok(len) => self.frames.push(buffer.get(..len).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            while let Some(message) = self.frames.take().map_err(io::Error::other)? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    /// Adds a message to what is to be sent.
    pub(crate) fn queue(&mut self, message: &[u8]) -> io::Result<()> {
        let bytes = framed(message).ok_or(ErrorKind::InvalidInput)?;
        if self.unsent.len() + bytes.len() > MAX_UNSENT {
            return Err(ErrorKind::OutOfMemory.into());
        }
        self.unsent.extend(bytes);
        Ok(())
    }

    /// Sends what goes out now; for the rest the poller waits.
    pub(crate) fn flush(&mut self, poller: &Poller, token: u64) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        match self.ended {
            // Nobody would call again.
            true if !self.unsent.is_empty() => Err(ErrorKind::BrokenPipe.into()),
            true => Ok(()),
            false => poller.modify(&self.socket, token, !self.unsent.is_empty()),
        }
    }
}

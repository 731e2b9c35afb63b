//! Control frames over a tokio stream.

use std::fs::File;
use std::io::{self, ErrorKind};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// A stream of frames.
#[derive(Debug)]
pub(crate) struct Frames {
    socket: UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
}

impl Frames {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket, received: Vec::new(), unsent: Vec::new() }
    }

    /// The next message; `None` when the other end is done.
    pub(crate) async fn read<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(message) = mesh_ipc::decode(&mut self.received).map_err(io::Error::other)? {
                return Ok(Some(message));
            }
            if self.received.is_empty() && self.received.capacity() > 64 * 1024 {
                self.received = Vec::new();
            }
            self.received.reserve(mesh_ipc::missing(&self.received).max(16 * 1024));
            if self.socket.read_buf(&mut self.received).await? == 0 {
                let whole = self.received.is_empty();
                return if whole { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The file whose descriptor the other end passes next.
    pub(crate) async fn file(&mut self) -> io::Result<File> {
        if !self.received.is_empty() {
            return Err(io::Error::new(ErrorKind::InvalidData, "bytes before the descriptor"));
        }
        let receive = || mesh_sys::control::receive_file(&self.socket);
        self.socket.async_io(Interest::READABLE, receive).await
    }

    pub(crate) async fn write<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        self.unsent.clear();
        mesh_ipc::encode(message, &mut self.unsent).map_err(io::Error::other)?;
        self.socket.write_all(&self.unsent).await
    }
}

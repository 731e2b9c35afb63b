//! The body of a response: nothing, bytes, or bytes that come from a task.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::sync::mpsc::Permit;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use crate::ahead::Ahead;
use crate::node::NodeError;
use crate::sending::Part;

/// A client that takes nothing for that long is cut off.
const STALL: Duration = Duration::from_secs(30);
/// Bytes handed over at once: with [`STALL`] the slowest rate that is served. A body that nobody takes holds two of these.
const SLICE: usize = 64 * 1024;

/// What a response carries.
#[derive(Debug)]
pub(crate) enum Body {
    Empty,
    Full(Bytes),
    Stream {
        bytes: mpsc::Receiver<io::Result<Bytes>>,
        left: u64,
    },
    /// Of a length that is not known before: it is whole when the writer says so.
    Endless {
        bytes: mpsc::Receiver<io::Result<Bytes>>,
        ended: bool,
    },
}

/// The writing end of a stream. Dropped early, it breaks the connection off: the client sees that
/// the body is not whole.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: mpsc::Sender<io::Result<Bytes>>,
    _permit: OwnedSemaphorePermit,
}

impl Body {
    /// A body of `length` bytes that a task writes. `permit` bounds how many there are.
    pub(crate) fn stream(length: u64, permit: OwnedSemaphorePermit) -> (Self, Writer) {
        let (send, bytes) = mpsc::channel(1);
        (Self::Stream { bytes, left: length }, Writer { bytes: send, _permit: permit })
    }
}

impl Body {
    /// A body of unknown length; [`Writer::finish`] ends it.
    pub(crate) fn endless(permit: OwnedSemaphorePermit) -> (Self, Writer) {
        let (send, bytes) = mpsc::channel(1);
        (Self::Endless { bytes, ended: false }, Writer { bytes: send, _permit: permit })
    }
}

impl Writer {
    /// Hands bytes over; `false` when the client is gone or too slow.
    pub(crate) async fn write(&self, bytes: impl Into<Bytes>) -> bool {
        let mut bytes = bytes.into();
        while !bytes.is_empty() {
            let Some(place) = self.place().await else { return false };
            place.send(Ok(bytes.split_to(bytes.len().min(SLICE))));
        }
        true
    }

    /// As [`Writer::write`], of a part of a block, which makes room for others meanwhile.
    pub(crate) async fn part(&self, mut part: Part, ahead: &mut Ahead) -> Result<bool, NodeError> {
        part.lend(&ahead.node.storage.memory);
        while !part.left.is_empty() {
            let Some(place) = part.until(self.place(), ahead).await else { return Ok(false) };
            match part.piece(SLICE, ahead).await? {
                Some(piece) => place.send(Ok(piece)),
                None => break,
            }
        }
        Ok(true)
    }

    /// Waits for a place for the next slice.
    async fn place(&self) -> Option<Permit<'_, io::Result<Bytes>>> {
        timeout(STALL, self.bytes.reserve()).await.ok()?.ok()
    }

    /// Ends a body of unknown length.
    pub(crate) async fn finish(self) {
        // no bytes: the mark of the end
        let _ = tokio::time::timeout(STALL, self.bytes.send(Ok(Bytes::new()))).await;
    }

    /// Breaks the connection off.
    pub(crate) async fn fail(self, reason: String) {
        let _ = tokio::time::timeout(STALL, self.bytes.send(Err(io::Error::other(reason)))).await;
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                let frame = if bytes.is_empty() { None } else { Some(Ok(Frame::data(bytes))) };
                Poll::Ready(frame)
            }
            Self::Stream { left: 0, .. } | Self::Endless { ended: true, .. } => Poll::Ready(None),
            Self::Endless { bytes, ended } => match std::task::ready!(bytes.poll_recv(context)) {
                Some(Ok(bytes)) if bytes.is_empty() => {
                    *ended = true;
                    Poll::Ready(None)
                }
                Some(Ok(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Err(e)) => Poll::Ready(Some(Err(e))),
                None => Poll::Ready(Some(Err(io::Error::other("the body ended early")))),
            },
            Self::Stream { bytes, left } => match std::task::ready!(bytes.poll_recv(context)) {
                Some(Ok(bytes)) => {
                    *left = left.saturating_sub(bytes.len() as u64);
                    Poll::Ready(Some(Ok(Frame::data(bytes))))
                }
                Some(Err(e)) => Poll::Ready(Some(Err(e))),
                None => Poll::Ready(Some(Err(io::Error::other("the body ended early")))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream { left, .. } => *left == 0,
            Self::Endless { ended, .. } => *ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream { left, .. } => SizeHint::with_exact(*left),
            Self::Endless { .. } => SizeHint::default(),
        }
    }
}

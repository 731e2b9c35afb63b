//! The control-socket protocol: length-prefixed, versioned postcard (level 1).
//!
//! A frame is `length: u32 LE` (of what follows) · `version: u8` · postcard body. A client sends
//! [`Request`]s over a Unix stream socket; the service answers each with one or more [`Response`]s
//! (which, each service's module says). Every service answers [`Request::Status`].
#![no_std]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

mod bytes;
pub mod names;
pub mod radio;
pub mod router;
pub mod store;
pub mod supervisor;
pub mod update;

/// The protocol's version; the two ends must agree.
pub const VERSION: u8 = 1;

/// The largest frame body, version byte included, in bytes.
pub const MAX_FRAME: usize = 1 << 20;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request<T> {
    /// How the service is; answered at once with [`Response::Status`].
    Status,
    /// A request of the service's own kind.
    Service(T),
}

/// What a service answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response<T> {
    /// To [`Request::Status`].
    Status(ServiceStatus),
    /// The request failed: what happened, what it means and what to do, for people.
    Error(String),
    /// An answer of the service's own kind.
    Service(T),
}

/// How a service is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The binary's name, as `mesh-router`.
    pub service: String,
    /// Its version.
    pub version: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// What a person should know and do something about; empty when all is well.
    pub problems: Vec<String>,
    /// Named counters and gauges, in a fixed order.
    pub counters: Vec<(String, u64)>,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The length field is zero or above [`MAX_FRAME`].
    Length(u32),
    /// The other end speaks another version.
    Version(u8),
    /// The body is not what the type says.
    Body,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(n) => write!(f, "a control frame of {n} bytes; 1 to {MAX_FRAME} are allowed"),
            Self::Version(v) => write!(
                f,
                "the other end speaks control protocol {v}, this one {VERSION}; use binaries of one image"
            ),
            Self::Body => f.write_str("a control message that does not parse"),
        }
    }
}

impl core::error::Error for FrameError {}

/// Appends `message` to `out` as one frame.
///
/// # Errors
/// [`FrameError::Length`] if it would be larger than [`MAX_FRAME`] (then `out` is as before);
/// [`FrameError::Body`] if the message can't be written at all (then `out` is empty).
pub fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, VERSION]);
    *out = postcard::to_extend(message, core::mem::take(out)).map_err(|_| FrameError::Body)?;
    let length = out.len() - start - 4;
    if length > MAX_FRAME {
        out.truncate(start);
        return Err(FrameError::Length(u32::try_from(length).unwrap_or(u32::MAX)));
    }
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&(length as u32).to_le_bytes());
    }
    Ok(())
}

/// Bytes missing of the frame that `buffer` begins with, as far as that is known; 0 when it is whole or wrong.
pub fn missing(buffer: &[u8]) -> usize {
    let Some(prefix) = buffer.first_chunk::<4>() else { return 4usize.saturating_sub(buffer.len()) };
    let size = u32::from_le_bytes(*prefix) as usize;
    if size > MAX_FRAME { 0 } else { (4 + size).saturating_sub(buffer.len()) }
}

/// Takes the first whole frame off the front of `buffer`.
///
/// `None`: more bytes are needed. After an error the stream is out of step; close it.
///
/// # Errors
/// See [`FrameError`].
pub fn decode<T: DeserializeOwned>(buffer: &mut Vec<u8>) -> Result<Option<T>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix);
    let size = length as usize;
    if size == 0 || size > MAX_FRAME {
        return Err(FrameError::Length(length));
    }
    // The version is checked as soon as it is there, before a long body is waited for.
    match buffer.get(4) {
        Some(&v) if v != VERSION => return Err(FrameError::Version(v)),
        _ => {}
    }
    let Some(body) = buffer.get(5..4 + size) else { return Ok(None) };
    let message = postcard::from_bytes(body).map_err(|_| FrameError::Body)?;
    buffer.drain(..4 + size);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Req = Request<router::RouterRequest>;

    #[test]
    fn frames_survive_any_split() {
        let messages = [
            Req::Status,
            Req::Service(router::RouterRequest::Publish {
                kind: 1,
                payload: alloc::vec![7; 300],
                validity_ms: 9,
            }),
        ];
        let mut bytes = Vec::new();
        for m in &messages {
            encode(m, &mut bytes).unwrap();
        }
        let mut buffer = Vec::new();
        let mut seen = Vec::new();
        for b in bytes {
            buffer.push(b);
            while let Some(m) = decode::<Req>(&mut buffer).unwrap() {
                seen.push(m);
            }
        }
        assert_eq!(seen, messages);
        assert!(buffer.is_empty());
    }

    #[test]
    fn bad_frames_are_named() {
        let err = |bytes: &[u8]| decode::<Req>(&mut bytes.to_vec()).unwrap_err();
        assert_eq!(err(&[0, 0, 0, 0]), FrameError::Length(0));
        assert_eq!(err(&[0, 0, 0, 1]), FrameError::Length(1 << 24));
        assert_eq!(err(&[2, 0, 0, 0, 9]), FrameError::Version(9));
        assert_eq!(err(&[2, 0, 0, 0, VERSION, 99]), FrameError::Body);
    }
}

//! DNS over TCP: each message has its length before it (RFC 1035 §4.2.2, RFC 7766 §8).

use alloc::vec::Vec;
use core::fmt;

/// A message that is longer than the receiver takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong(pub usize);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a message of {} bytes is longer than any that is wanted", self.0)
    }
}

impl core::error::Error for TooLong {}

/// Cuts what comes from a stream into messages.
#[derive(Clone, Debug)]
pub struct Frames {
    received: Vec<u8>,
    most: usize,
}

impl Frames {
    /// For messages of at most `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { received: Vec::new(), most }
    }

    /// More bytes of the stream. Take all messages out before the next.
    pub fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next message, if it is there whole.
    ///
    /// # Errors
    /// A message is too long; nothing after it can be read.
    pub fn take(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let Some((length, rest)) = self.received.split_first_chunk::<2>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > self.most {
            return Err(TooLong(length));
        }
        let Some(message) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.received.drain(..length + 2);
        Ok(Some(message))
    }

    /// How many bytes wait for the rest of their message.
    pub fn waiting(&self) -> usize {
        self.received.len()
    }
}

/// A message with its length before it; `None` if it is too long for that.
pub fn framed(message: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(message.len()).ok()?;
    Some([&length.to_be_bytes(), message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc7766_8_messages_come_out_whole_however_they_arrive() {
        let bytes = [framed(b"one").unwrap(), framed(b"").unwrap(), framed(&[7; 300]).unwrap()].concat();
        for size in [1, 2, 3, 7, bytes.len()] {
            let mut frames = Frames::new(512);
            let mut found = Vec::new();
            for part in bytes.chunks(size) {
                frames.push(part);
                while let Some(message) = frames.take().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, [b"one".to_vec(), Vec::new(), [7; 300].to_vec()], "by {size}");
            assert_eq!(frames.waiting(), 0);
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_an_error_before_it_is_all_there() {
        let mut frames = Frames::new(512);
        frames.push(&[2]);
        assert_eq!(frames.take(), Ok(None));
        frames.push(&[1]);
        assert_eq!(frames.take(), Err(TooLong(513)));
        assert_eq!(framed(&[0; 65_536]), None);
    }
}

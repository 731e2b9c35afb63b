//! Large buffers that go round: a block is read into memory that the last one has just left, not into fresh pages that the
//! system has to find and clear.

use std::sync::{Mutex, PoisonError};

use hyper::body::Bytes;

/// Smaller buffers are not worth it.
pub(crate) const LEAST: usize = 64 * 1024;
/// Bytes kept in all.
const MOST: usize = 2 << 20;

static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A buffer, perhaps an empty one. What is in it is of no meaning.
pub(crate) fn take() -> Vec<u8> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
}

/// Gives a buffer back.
pub(crate) fn give(buffer: Vec<u8>) {
    if buffer.capacity() < LEAST {
        return;
    }
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let held: usize = free.iter().map(Vec::capacity).sum();
    if held + buffer.capacity() <= MOST {
        free.push(buffer);
    }
}

/// Bytes that give their buffer back when the last of them has been sent.
pub(crate) fn bytes(buffer: Vec<u8>) -> Bytes {
    if buffer.capacity() < LEAST { Bytes::from(buffer) } else { Bytes::from_owner(Lent(buffer)) }
}

struct Lent(Vec<u8>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_are_bounded() {
        let all: Vec<Bytes> = (0..40).map(|_| bytes(vec![7; 300_000])).collect();
        assert_eq!(all.first().map(|b| b.slice(5..7)).as_deref(), Some(&[7, 7][..]));
        drop(all);
        let mut held = 0;
        while let Some(buffer) = Some(take()).filter(|b| b.capacity() > 0) {
            held += buffer.capacity();
        }
        assert!((300_000..=MOST).contains(&held), "{held}");
    }
}

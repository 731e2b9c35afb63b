//! Large buffers that go round: a block is read into memory that the last one has just left, not into fresh pages that the
//! system has to find and clear.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use hyper::body::Bytes;

/// Smaller buffers are not worth it.
pub(crate) const LEAST: usize = 64 * 1024;
/// Bytes kept in all.
const MOST: usize = 2 << 20;

static FREE: Mutex<VecDeque<Vec<u8>>> = Mutex::new(VecDeque::new());

/// A buffer for `size` bytes and not many more, or an empty one. What is in it is of no meaning.
pub(crate) fn take(size: usize) -> Vec<u8> {
    if size < LEAST {
        return Vec::new();
    }
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |buffer: &Vec<u8>| (size..=size + size / 4).contains(&buffer.capacity());
    let found = free.iter().rposition(fits);
    found.and_then(|at| free.remove(at)).unwrap_or_default()
}

/// Gives a buffer back. Those that nobody has taken for the longest time make room.
pub(crate) fn give(buffer: Vec<u8>) {
    if !(LEAST..=MOST).contains(&buffer.capacity()) {
        return;
    }
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut held: usize = free.iter().map(Vec::capacity).sum();
    while held + buffer.capacity() > MOST
        && let Some(oldest) = free.pop_front()
    {
        held -= oldest.capacity();
    }
    free.push_back(buffer);
}

/// A copy, in a buffer that comes back when the copy has been sent.
pub(crate) fn copy(bytes: &[u8]) -> Bytes {
    let mut buffer = take(bytes.len());
    buffer.clear();
    buffer.extend_from_slice(bytes);
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
        let given = |size: usize| {
            let taken = std::iter::from_fn(|| Some(take(size)).filter(|buffer| buffer.capacity() > 0));
            taken.map(|buffer| buffer.capacity()).sum::<usize>()
        };
        (0..40).for_each(|_| give(vec![7; 300_000]));
        // a small block does not sit in a large buffer
        assert_eq!(given(100_000), 0);
        let held = given(290_000);
        assert!((300_000..=MOST).contains(&held), "{held}");
        (0..40).for_each(|_| assert!(*copy(&[7; 80_000]) == [7; 80_000]));
        assert_eq!(given(80_000), 80_000, "the same one went round");
        // buffers of another size don't stay for ever
        (0..40).for_each(|_| give(vec![7; 300_000]));
        give(vec![7; 1_000_000]);
        assert_eq!(given(1_000_000), 1_000_000);
    }
}

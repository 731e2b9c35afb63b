//! Which messages were seen before: Processed, Received and Forwarded Sets (RFC 7181 §10, §14).

use alloc::collections::{BTreeSet, VecDeque};
use core::net::IpAddr;

use mesh_types::{Duration, Instant};

/// What names a message: type, originator, sequence number.
pub(crate) type MessageKey = (u8, IpAddr, u16);

/// One of the sets. Entries live for the hold time; when full, the oldest goes.
#[derive(Debug)]
pub(crate) struct SeenSet {
    keys: BTreeSet<MessageKey>,
    order: VecDeque<(Instant, MessageKey)>,
    hold: Duration,
    limit: usize,
}

impl SeenSet {
    pub(crate) fn new(hold: Duration, limit: usize) -> Self {
        Self { keys: BTreeSet::new(), order: VecDeque::new(), hold, limit: limit.max(1) }
    }

    /// Forgets what is older than the hold time.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((until, key)) = self.order.front() {
            if *until > now {
                break;
            }
            self.keys.remove(key);
            self.order.pop_front();
        }
    }

    pub(crate) fn contains(&mut self, now: Instant, key: &MessageKey) -> bool {
        self.expire(now);
        self.keys.contains(key)
    }

    /// Adds a message; `false` if it was there.
    pub(crate) fn insert(&mut self, now: Instant, key: MessageKey) -> bool {
        self.expire(now);
        if !self.keys.insert(key) {
            return false;
        }
        if self.order.len() >= self.limit
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        self.order.push_back((now + self.hold, key));
        true
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.keys.len().max(self.order.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seq: u16) -> MessageKey {
        (1, IpAddr::from([10, 0, 0, 1]), seq)
    }

    #[test]
    fn rfc7181_10_entries_expire_and_are_bounded() {
        let mut set = SeenSet::new(Duration::from_secs(30), 3);
        assert!(set.insert(Instant::ZERO, key(1)));
        assert!(!set.insert(Instant::from_millis(29_999), key(1)));
        assert!(set.insert(Instant::from_millis(30_000), key(1)));
        for seq in 2..100 {
            set.insert(Instant::from_millis(30_000), key(seq));
        }
        assert_eq!(set.len(), 3);
        assert!(set.contains(Instant::from_millis(30_000), &key(99)));
        assert!(!set.contains(Instant::from_millis(30_000), &key(1)));
    }
}

//! Messages waiting to be sent on one interface, and their packing (RFC 7181 §13.2).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::Instant;
use rfc5444::{Tlv, packet_header};

/// One interface's queue.
#[derive(Debug)]
pub(crate) struct Outbox {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    /// How many of them each neighbour brought.
    brought: Vec<(IpAddr, usize)>,
    due: Option<Instant>,
    packet_seq: u16,
    /// Something in it is not to wait where it arrives.
    urgent: bool,
}

/// When a message goes, at the latest.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Due {
    /// Where it arrives it is not to wait.
    News(Instant),
    /// It says nothing new.
    Calm(Instant),
}

/// What one neighbour may have forwarded however long the queue is: this part of its limit.
const SHARE: usize = 16;
/// Our own messages have room up to so many times the limit.
const OURS: usize = 2;

impl Outbox {
    pub(crate) fn new(packet_seq: u16) -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
            brought: Vec::new(),
            due: None,
            packet_seq,
            urgent: false,
        }
    }

    /// When the first message wants to go.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The number the last packet had.
    pub(crate) fn packet_seq(&self) -> u16 {
        self.packet_seq
    }

    /// Something in it is not to wait where it arrives.
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Queues a message: ours, or one `of` a neighbour's. `false`, and it is dropped, if the queue holds `limit`
    /// bytes already and that neighbour's part is not small.
    pub(crate) fn push(&mut self, message: Vec<u8>, due: Due, limit: usize, of: Option<IpAddr>) -> bool {
        let after = self.bytes + message.len();
        let fits = |limit: usize| after <= limit || self.messages.is_empty();
        match of {
            None if !fits(limit.saturating_mul(OURS)) => return false,
            None => {}
            Some(by) => {
                let known = self.brought.iter().position(|(who, _)| *who == by);
                let held = known.and_then(|at| self.brought.get(at)).map_or(0, |(_, held)| *held);
                let held = held + message.len();
                if !fits(limit) && held > limit / SHARE {
                    return false;
                }
                match known.and_then(|at| self.brought.get_mut(at)) {
                    Some(holder) => holder.1 = held,
                    None => self.brought.push((by, held)),
                }
            }
        }
        let due = match due {
            Due::News(at) => {
                self.urgent = true;
                at
            }
            Due::Calm(at) => at,
        };
        self.bytes = after;
        self.messages.push_back(message);
        self.due = Some(self.due.map_or(due, |d| d.min(due)));
        true
    }

    /// Whatever is queued need not wait.
    pub(crate) fn hasten(&mut self, now: Instant) {
        self.due = self.due.map(|due| due.min(now));
    }

    /// Everything queued, for someone else to send.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        self.bytes = 0;
        self.brought.clear();
        self.due = None;
        self.urgent = false;
        self.messages.drain(..).collect()
    }

    /// Everything queued as packets of at most `mtu` bytes; a longer message has one to itself. Those not
    /// yet due go along: that is what keeps the number of packets small.
    pub(crate) fn flush(&mut self, mtu: usize, tlvs: Option<&[Tlv]>) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut packet: Vec<u8> = Vec::new();
        for message in self.messages.drain(..) {
            if !packet.is_empty() && packet.len() + message.len() > mtu {
                packets.push(core::mem::take(&mut packet));
            }
            if packet.is_empty() {
                self.packet_seq = self.packet_seq.wrapping_add(1);
                // A header with so few TLVs can't fail.
                let _ = packet_header(Some(self.packet_seq), tlvs, &mut packet);
            }
            packet.extend_from_slice(&message);
        }
        if !packet.is_empty() {
            packets.push(packet);
        }
        self.bytes = 0;
        self.brought.clear();
        self.due = None;
        self.urgent = false;
        packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn rfc7181_13_2_messages_share_packets_up_to_the_mtu() {
        let mut out = Outbox::new(9);
        for n in [10, 20, 30, 500, 5] {
            assert!(out.push(vec![0; n], Due::News(Instant::from_millis(n as u64)), 10_000, None));
        }
        assert_eq!(out.due(), Some(Instant::from_millis(5)));
        let sizes: Vec<usize> = out.flush(63, None).iter().map(Vec::len).collect();
        assert_eq!(sizes, [63, 503, 8]);
        assert_eq!((out.due(), out.packet_seq()), (None, 12));
        assert!(out.push(vec![0; 600], Due::News(Instant::ZERO), 100, None), "one always fits");
        assert!(!out.push(vec![0; 1], Due::Calm(Instant::ZERO), 100, None));
    }

    #[test]
    fn a_neighbour_that_fills_the_queue_keeps_out_neither_ours_nor_others() {
        let mut out = Outbox::new(0);
        let mut push = |n: u8, bytes: usize| {
            let of = Some(IpAddr::from([10, 0, 0, n])).filter(|_| n > 0);
            out.push(vec![0; bytes], Due::News(Instant::ZERO), 16_000, of)
        };
        let greedy = (0..1000).filter(|_| push(1, 100)).count();
        assert_eq!(greedy, 160);
        assert!((0..10).all(|_| push(2, 100)) && !push(2, 100), "a sixteenth");
        assert!((0..100).all(|_| push(0, 100)));
        assert_eq!((0..1000).filter(|_| push(0, 100)).count(), 50, "a bound for all that");
        out.flush(1000, None);
        assert!(out.push(vec![0; 100], Due::News(Instant::ZERO), 100, Some([10, 0, 0, 1].into())));
    }
}

//! Messages waiting to be sent on one interface, and their packing (RFC 7181 §13.2).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use mesh_types::Instant;
use rfc5444::packet_header;

/// One interface's queue.
#[derive(Debug)]
pub(crate) struct Outbox {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    due: Option<Instant>,
    packet_seq: u16,
}

/// Bytes of a packet header with a sequence number.
const HEADER: usize = 3;

impl Outbox {
    pub(crate) fn new(packet_seq: u16) -> Self {
        Self { messages: VecDeque::new(), bytes: 0, due: None, packet_seq }
    }

    /// When the first message wants to go.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The number the last packet had.
    pub(crate) fn packet_seq(&self) -> u16 {
        self.packet_seq
    }

    /// Queues a message to go at `due` at the latest; `false`, and it is dropped, if the queue holds
    /// `limit` bytes already.
    pub(crate) fn push(&mut self, message: Vec<u8>, due: Instant, limit: usize) -> bool {
        if self.bytes + message.len() > limit && !self.messages.is_empty() {
            return false;
        }
        self.bytes += message.len();
        self.messages.push_back(message);
        self.due = Some(self.due.map_or(due, |d| d.min(due)));
        true
    }

    /// Everything queued as packets of at most `mtu` bytes; a longer message has one to itself. Those not
    /// yet due go along: that is what keeps the number of packets small.
    pub(crate) fn flush(&mut self, mtu: usize) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut packet: Vec<u8> = Vec::new();
        for message in self.messages.drain(..) {
            if packet.len() > HEADER && packet.len() + message.len() > mtu {
                packets.push(core::mem::take(&mut packet));
            }
            if packet.is_empty() {
                self.packet_seq = self.packet_seq.wrapping_add(1);
                // A header without TLVs can't fail.
                let _ = packet_header(Some(self.packet_seq), None, &mut packet);
            }
            packet.extend_from_slice(&message);
        }
        if !packet.is_empty() {
            packets.push(packet);
        }
        self.bytes = 0;
        self.due = None;
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
            assert!(out.push(vec![0; n], Instant::from_millis(n as u64), 10_000));
        }
        assert_eq!(out.due(), Some(Instant::from_millis(5)));
        let sizes: Vec<usize> = out.flush(63).iter().map(Vec::len).collect();
        assert_eq!(sizes, [63, 503, 8]);
        assert_eq!((out.due(), out.packet_seq()), (None, 12));
        assert!(out.push(vec![0; 600], Instant::ZERO, 100), "one always fits");
        assert!(!out.push(vec![0; 1], Instant::ZERO, 100));
    }
}

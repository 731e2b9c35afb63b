//! The last TC of every router, kept as it came: a neighbour that is new hears all of them at once, one hop
//! far, and does not wait for everybody's next (RFC 7181 §14 allows messages to be forwarded late).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant};
use rfc5444::RawMessage;

/// Longer TCs are left to the flood.
const LONGEST: usize = 1024;

#[derive(Clone, Debug)]
struct Kept {
    seq: u16,
    bytes: Vec<u8>,
    /// When it was processed.
    came: Instant,
    /// When and where a copy was last heard: whoever was there then has it.
    heard: (Instant, u32),
}

#[derive(Debug)]
pub(crate) struct Relay {
    kept: BTreeMap<IpAddr, Kept>,
    limit: usize,
    /// A TC may be repeated this long; others must remember its number longer.
    fresh: Duration,
}

impl Relay {
    pub(crate) const fn new(limit: usize, fresh: Duration) -> Self {
        Self { kept: BTreeMap::new(), limit, fresh }
    }

    /// A TC was processed.
    pub(crate) fn keep(
        &mut self,
        now: Instant,
        interface: u32,
        (originator, seq): (IpAddr, u16),
        raw: &RawMessage<'_>,
    ) {
        if raw.bytes().len() > LONGEST {
            self.kept.remove(&originator);
            return;
        }
        if !self.kept.contains_key(&originator) && self.kept.len() >= self.limit {
            let fresh = self.fresh;
            self.kept.retain(|_, k| k.came + fresh > now);
            if self.kept.len() >= self.limit {
                return;
            }
        }
        let bytes = raw.bytes().to_vec();
        self.kept.insert(originator, Kept { seq, bytes, came: now, heard: (now, interface) });
    }

    /// Another copy came.
    pub(crate) fn heard(&mut self, now: Instant, interface: u32, (originator, seq): (IpAddr, u16)) {
        if let Some(kept) = self.kept.get_mut(&originator).filter(|k| k.seq == seq) {
            kept.heard = (now, interface);
        }
    }

    /// What someone who came on `interface` at `since` has not heard, ready to be forwarded.
    pub(crate) fn missed_by(&mut self, now: Instant, interface: u32, since: Instant) -> Vec<Vec<u8>> {
        let fresh = self.fresh;
        self.kept.retain(|_, k| k.came + fresh > now);
        let mut all = Vec::new();
        for kept in self.kept.values_mut().filter(|k| k.heard.0 < since || k.heard.1 != interface) {
            let mut copy = Vec::with_capacity(kept.bytes.len());
            if RawMessage::parse(&kept.bytes).is_ok_and(|raw| raw.forward(&mut copy)) {
                kept.heard = (now, interface);
                all.push(copy);
            }
        }
        all
    }
}

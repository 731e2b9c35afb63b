//! Counters for `meshctl` and for tests. Of what happens to messages, [`Counters`] has the reasons and
//! [`PortCounters`] the places and the kinds.

use nhdp::HELLO;

use crate::RECORD_MESSAGE;
use crate::tc::TC;

/// Counts since the start; they wrap at `u64::MAX`, that is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets received on interfaces in use.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Packets given out to send.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Packets that were not RFC 5444.
    pub packets_malformed: u64,
    /// Messages dropped as malformed or invalid for processing.
    pub messages_invalid: u64,
    /// Messages refused because they had no ICV of the kind that belongs there (RFC 7183 §6.3); this and the
    /// next four only where keys are set.
    pub icv_missing: u64,
    /// ... because every ICV was made with another key.
    pub icv_unknown_key: u64,
    /// ... because the ICV did not fit the message, was too short or stood there twice.
    pub icv_wrong: u64,
    /// ... because there was not exactly one counter (TIMESTAMP).
    pub timestamp_missing: u64,
    /// ... because they were no newer than what had come before.
    pub replayed: u64,
    /// HELLOs processed.
    pub hellos_in: u64,
    /// HELLOs sent.
    pub hellos_out: u64,
    /// TCs processed (new ones).
    pub tcs_in: u64,
    /// TCs that changed the known topology.
    pub tc_changes: u64,
    /// Own TCs generated.
    pub tcs_out: u64,
    /// Of these, TCs that told news; the others repeated the last.
    pub tcs_triggered: u64,
    /// Record messages processed (new ones).
    pub records_in: u64,
    /// Own record messages generated.
    pub records_out: u64,
    /// Messages forwarded, once per message.
    pub forwarded: u64,
    /// TCs of others repeated for a neighbour that is new or missed them.
    pub relayed: u64,
    /// Messages not forwarded because they came before on that interface or were forwarded already.
    pub duplicates: u64,
    /// First copies not forwarded because their sender did not choose us to (RFC 7181 §14.3).
    pub not_mpr: u64,
    /// Messages not forwarded because their hop limit let them come no farther.
    pub hop_limit: u64,
    /// Our own messages that neighbours forwarded back to us.
    pub own_returned: u64,
    /// Messages of others dropped because the sender is no symmetric neighbour.
    pub not_symmetric: u64,
    /// TCs in our name with an ANSN that we have not come to: somebody else's.
    pub own_tcs_ahead: u64,
    /// Messages of unknown types.
    pub unknown_messages: u64,
    /// Entries refused or dropped because a table was full.
    pub table_full: u64,
    /// Messages dropped because a sending queue was full.
    pub queue_full: u64,
    /// Records dropped because their originator sent more than its share.
    pub rate_limited: u64,
    /// Links that became symmetric.
    pub links_up: u64,
    /// Symmetric links that ended.
    pub links_down: u64,
    /// Neighbours that fell silent and were probed.
    pub probes: u64,
    /// Probes answered.
    pub probes_answered: u64,
    /// Neighbours found unreachable, by a probe or by the kernel itself.
    pub probes_failed: u64,
    /// Shortest-path runs.
    pub route_runs: u64,
    /// Route changes given out: to, from, or to another next hop.
    pub route_changes: u64,
}

impl Counters {
    /// Messages refused, for whatever reason.
    pub fn refusals(&self) -> u64 {
        let icv = self.icv_missing + self.icv_unknown_key + self.icv_wrong + self.timestamp_missing;
        icv + self.replayed + self.messages_invalid + self.not_symmetric + self.rate_limited
    }
}

/// Messages by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// HELLO.
    pub hellos: u64,
    /// TC.
    pub tcs: u64,
    /// Application records.
    pub records: u64,
    /// Types that are not ours to understand.
    pub others: u64,
}

impl Kinds {
    /// One more of RFC 5444 message type `kind`, if `happened`.
    pub(crate) fn add(&mut self, kind: u8, happened: bool) {
        let count = match kind {
            HELLO => &mut self.hellos,
            TC => &mut self.tcs,
            RECORD_MESSAGE => &mut self.records,
            _ => &mut self.others,
        };
        *count += u64::from(happened);
    }
}

/// Counts of one interface, since it was put into use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Packets received.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Packets given out to send.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Packets received that were not RFC 5444.
    pub packets_malformed: u64,
    /// Messages in the packets received.
    pub received: Kinds,
    /// Of these, messages refused ([`Counters::refusals`]).
    pub refused: Kinds,
    /// Of these, messages that had been dealt with before ([`Counters::duplicates`]).
    pub duplicates: Kinds,
    /// Our own messages put into the sending queue.
    pub sent: Kinds,
    /// Messages of others put into the sending queue: forwarded, and TCs repeated for a new neighbour.
    pub forwarded: Kinds,
    /// Messages dropped because the sending queue was full.
    pub queue_full: Kinds,
}

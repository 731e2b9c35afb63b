//! Counters for `meshctl` and for tests.

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
    /// Record messages processed (new ones).
    pub records_in: u64,
    /// Own record messages generated.
    pub records_out: u64,
    /// Messages forwarded, once per message.
    pub forwarded: u64,
    /// TCs of others repeated for a new neighbour.
    pub relayed: u64,
    /// Messages not forwarded because they came before on that interface or were forwarded already.
    pub duplicates: u64,
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
    /// Neighbours that fell silent and were probed.
    pub probes: u64,
    /// Shortest-path runs.
    pub route_runs: u64,
    /// Route changes given out.
    pub route_changes: u64,
}

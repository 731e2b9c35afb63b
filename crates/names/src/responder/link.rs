//! What is going on one link: its state, and answers that wait for their moment.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use mesh_types::{Duration, Instant};

use super::records::{Key, Records, proven};
use super::{InterfaceAddress, Role};
use crate::wire::{Name, Question, Record};

pub(super) const SECOND: Duration = Duration::from_secs(1);
/// How long an answer may wait to share a message with later ones (RFC 6762 §6.4).
const AGGREGATION: Duration = Duration::from_millis(500);
/// Truncated queries held at once; more are answered as if complete.
pub(super) const MAX_DEFERRED: usize = 16;
/// Known answers kept per truncated query.
pub(super) const MAX_KNOWN: usize = 512;
/// Unicast answers that wait; more are not sent.
pub(super) const MAX_UNICAST: usize = 32;
/// How long the time of a record's last multicast is of interest: a quarter of the longest lifetime.
const REMEMBERED: Duration = Duration::from_secs(super::TTL_OTHER as u64 / 4);

/// How far the name is established on a link (RFC 6762 §8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// No address, nothing to say.
    #[default]
    Idle,
    /// The first probe goes out at `until`.
    Waiting { until: Instant },
    /// `sent` probes are out; at `next` the following one, or success.
    Probing { sent: u8, next: Instant },
    /// All names are ours; `announcements` are left, the next at `next`.
    Established { announcements: u8, next: Option<Instant> },
}

/// An answer that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) due: Instant,
    /// It may wait until then to go with others.
    latest: Instant,
}

/// A unicast answer that waits.
#[derive(Debug)]
pub(super) struct PendingUnicast {
    pub(super) due: Instant,
    pub(super) to: SocketAddr,
    pub(super) keys: Vec<Key>,
}

/// A query whose known answers are still coming (RFC 6762 §7.2).
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) due: Instant,
    pub(super) from: SocketAddr,
    pub(super) multicast: bool,
    pub(super) on_link: bool,
    pub(super) questions: Vec<Question>,
    pub(super) known: Vec<Record>,
}

/// One interface.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) addresses: Vec<InterfaceAddress>,
    pub(super) role: Role,
    pub(super) state: State,
    /// All records that this node has here; built when something changes, not for each question.
    own: Records,
    /// The names that were probed for here and nobody objected to. While a new one is probed for, the others stay.
    held: BTreeSet<Name>,
    /// Those of `own` that may be said.
    proven: Records,
    /// When the last probe went out, which asks for unicast answers.
    pub(super) last_probe: Option<Instant>,
    pub(super) pending: BTreeMap<Key, Pending>,
    pub(super) unicast: Vec<PendingUnicast>,
    pub(super) deferred: Vec<Deferred>,
    /// Names of other nodes that a host on this link has for itself, and until when.
    pub(super) claimed: BTreeMap<Name, Instant>,
    /// When each record set was last multicast.
    pub(super) sent: BTreeMap<Key, Instant>,
}

impl Link {
    /// Forgets everything that was to be said.
    pub(super) fn stop(&mut self) {
        self.state = State::Idle;
        self.start_over();
    }

    /// All records that this node has here, those that are not proven yet included.
    pub(super) fn own(&self) -> &Records {
        &self.own
    }

    /// Those of [`Link::own`] that may be said: their names, or what they lead to, are held.
    pub(super) fn proven(&self) -> &Records {
        &self.proven
    }

    /// The node has these records here from now on.
    pub(super) fn set_own(&mut self, own: Records) {
        self.own = own;
        self.proven = proven(&self.own, &self.held);
    }

    pub(super) fn held(&self) -> &BTreeSet<Name> {
        &self.held
    }

    /// These names are held from now on.
    pub(super) fn set_held(&mut self, held: BTreeSet<Name>) {
        self.held = held;
        self.proven = proven(&self.own, &self.held);
    }

    /// Forgets that any name is held, and what was to be said.
    pub(super) fn start_over(&mut self) {
        self.set_held(BTreeSet::new());
        self.pending.clear();
        self.unicast.clear();
        self.deferred.clear();
    }

    /// Whether the set was multicast less than `span` ago.
    pub(super) fn sent_within(&self, now: Instant, key: &Key, span: Duration) -> bool {
        self.sent.get(key).is_some_and(|at| now.saturating_since(*at) < span)
    }

    /// Plans a multicast of the set after `delay`, and not before `spacing` after its last one. `patient`
    /// ones wait for others to go with.
    pub(super) fn schedule(
        &mut self,
        now: Instant,
        key: Key,
        delay: Duration,
        spacing: Duration,
        patient: bool,
    ) {
        let allowed = self.sent.get(&key).map_or(Instant::ZERO, |at| *at + spacing);
        let due = (now + delay).max(allowed);
        let latest = if patient { due + AGGREGATION } else { due };
        let slot = self.pending.entry(key).or_insert(Pending { due, latest });
        slot.due = slot.due.min(due);
        slot.latest = slot.latest.min(latest).max(slot.due);
    }

    /// When the next multicast goes out: with the last answer that none of the others need wait too long for.
    pub(super) fn flush_at(&self) -> Option<Instant> {
        let limit = self.pending.values().map(|p| p.latest).min()?;
        self.pending.values().map(|p| p.due).filter(|d| *d <= limit).max()
    }

    /// Takes the sets that are due.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Key> {
        let mut due = Vec::new();
        if self.flush_at().is_some_and(|at| at <= now) {
            self.pending.retain(|key, p| {
                if p.due <= now {
                    due.push(key.clone());
                }
                p.due > now
            });
        }
        due
    }

    /// Notes that a set goes out now.
    pub(super) fn mark_sent(&mut self, now: Instant, key: Key) {
        self.sent.retain(|_, at| now.saturating_since(*at) < REMEMBERED);
        self.sent.insert(key, now);
    }

    /// A truncated query of that host that waits.
    pub(super) fn deferred_from(&mut self, host: IpAddr) -> Option<&mut Deferred> {
        self.deferred.iter_mut().find(|d| d.from.ip() == host)
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let state = match self.state {
            State::Idle => None,
            State::Waiting { until } => Some(until),
            State::Probing { next, .. } => Some(next),
            State::Established { next, .. } => next,
        };
        let unicast = self.unicast.iter().map(|u| u.due).min();
        let deferred = self.deferred.iter().map(|d| d.due).min();
        [state, self.flush_at(), unicast, deferred].into_iter().flatten().min()
    }
}

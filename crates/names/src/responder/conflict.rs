//! Conflicts: tie-breaks, defence, and what other responders say about our names (RFC 6762 §6.6, §7.4, §8.2,
//! §9).

use alloc::vec::Vec;

use mesh_types::{Duration, Instant};

use super::link::{Link, SECOND, State};
use super::records::Own;
use super::{Event, Responder, Rival, Source};
use crate::wire::{CLASS_ANY, CLASS_IN, Message, Name, Record, rtype};

/// So many conflicts …
const CONFLICTS: usize = 15;
/// … within this time …
const CONFLICT_WINDOW: Duration = Duration::from_secs(10);
/// … and each further attempt waits so long (RFC 6762 §8.1).
const CONFLICT_PAUSE: Duration = Duration::from_secs(5);

/// What a response means for our names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// While probing: the name is taken.
    Taken,
    /// While established: another has a record that contradicts ours.
    Conflict,
}

impl Responder {
    /// Whether the record is one of ours come back, whatever the link (RFC 6762 §10.2).
    fn is_ours(&self, r: &Record) -> bool {
        self.links.values().flat_map(|l| l.own().iter()).any(|o| o.record.same_data(r))
    }

    /// Another host probes for a name that we probe for (RFC 6762 §8.2).
    pub(super) fn tiebreak(&mut self, now: Instant, source: Source, query: &Message) {
        let probing = |l: &&Link| matches!(l.state, State::Probing { .. });
        let Some(link) = self.links.get(&source.interface).filter(probing) else { return };
        if query.authority.is_empty() {
            return;
        }
        let unproven = |o: &&Own| o.probed && !link.held().contains(&o.record.name);
        let own: Vec<&Own> = link.own().iter().filter(unproven).collect();
        let names: Vec<&Name> = query
            .questions
            .iter()
            .filter(|q| matches!(q.class, CLASS_IN | CLASS_ANY))
            .map(|q| &q.name)
            .filter(|n| own.iter().any(|o| o.record.name == **n))
            .collect();
        let lost = names.into_iter().any(|name| {
            let theirs: Vec<&Record> = query.authority.iter().filter(|r| r.name == *name).collect();
            let ours: Vec<&Record> =
                own.iter().filter(|o| o.record.name == *name).map(|o| &o.record).collect();
            let foreign = theirs.iter().any(|r| !self.is_ours(r));
            foreign && sorted(&ours) < sorted(&theirs)
        });
        if let Some(link) = self.links.get_mut(&source.interface).filter(|_| lost) {
            link.state = State::Waiting { until: now + SECOND };
        }
    }

    /// Another responder spoke. Returns who took the name, if it is taken: the caller renames.
    pub(crate) fn handle_response(
        &mut self,
        now: Instant,
        source: Source,
        response: &Message,
    ) -> Option<Rival> {
        let own = self.links.get(&source.interface)?.own().clone();
        let all = || response.answers.iter().chain(&response.authority).chain(&response.additional);
        self.note_same_answers(now, source, &own, all());
        self.note_claims(now, source, response);
        let link = self.links.get(&source.interface)?;
        if !all().any(|r| own.iter().any(|o| o.probed && o.record.name == r.name)) {
            return None;
        }
        let verdict = all().map(|r| self.judge(link, r)).max_by_key(|v| match v {
            Verdict::Fine => 0,
            Verdict::Conflict => 1,
            Verdict::Taken => 2,
        })?;
        let rival = Rival::Link { interface: source.interface, address: source.address.ip() };
        match verdict {
            Verdict::Fine => None,
            Verdict::Taken => {
                self.note_conflict(now);
                Some(rival)
            }
            Verdict::Conflict => {
                self.note_conflict(now);
                let until = now + self.conflict_delay();
                if let Some(link) = self.links.get_mut(&source.interface) {
                    link.start_over();
                    link.state = State::Waiting { until };
                }
                self.events.push_back(Event::Conflict { name: self.name.clone(), rival });
                None
            }
        }
    }

    /// Others gave the answers we were about to give (RFC 6762 §7.4), or ours with too short a life (§6.6).
    fn note_same_answers<'a>(
        &mut self,
        now: Instant,
        source: Source,
        own: &[Own],
        records: impl Iterator<Item = &'a Record>,
    ) {
        let Some(link) = self.links.get_mut(&source.interface) else { return };
        if link.held().is_empty() || !source.multicast {
            return;
        }
        let mut seen = Vec::new();
        for r in records {
            let Some(o) = own.iter().find(|o| o.record.same_data(r)) else { continue };
            if r.ttl.saturating_mul(2) < o.record.ttl {
                link.schedule(now, o.key(), Duration::ZERO, SECOND, false);
            } else if r.ttl >= o.record.ttl {
                seen.push(o);
            }
        }
        for key in seen.iter().map(|o| o.key()) {
            let whole = own.iter().filter(|o| o.key() == key).all(|o| seen.contains(&o));
            if whole {
                link.pending.remove(&key);
            }
        }
    }

    /// Starts over on every link, as after a new name.
    pub(super) fn probe_everywhere(&mut self, now: Instant) {
        for index in self.links.keys().copied().collect::<Vec<_>>() {
            let until = now + self.conflict_delay();
            let Some(link) = self.links.get_mut(&index) else { continue };
            link.start_over();
            link.sent.clear();
            if link.state != State::Idle {
                link.state = State::Waiting { until };
            }
        }
    }

    fn judge(&self, link: &Link, r: &Record) -> Verdict {
        // A goodbye claims nothing; nor does a list of types.
        if r.ttl == 0 || r.class != CLASS_IN || matches!(r.rtype, rtype::NSEC | rtype::OPT) {
            return Verdict::Fine;
        }
        let mut ours = link.own().iter().filter(|o| o.probed && o.record.name == r.name).peekable();
        if ours.peek().is_none() || self.is_ours(r) {
            return Verdict::Fine;
        }
        match link.state {
            _ if link.held().contains(&r.name) => match ours.any(|o| o.record.rtype == r.rtype) {
                true => Verdict::Conflict,
                false => Verdict::Fine,
            },
            State::Probing { .. } => Verdict::Taken,
            // Before the first probe it may be a stale packet (RFC 6762 §8.1).
            _ => Verdict::Fine,
        }
    }

    fn note_conflict(&mut self, now: Instant) {
        self.conflicts.push_back(now);
        while self.conflicts.len() > CONFLICTS {
            self.conflicts.pop_front();
        }
        self.slow |= self.conflicts.len() >= CONFLICTS
            && self.conflicts.front().is_some_and(|at| now.saturating_since(*at) <= CONFLICT_WINDOW);
    }

    fn conflict_delay(&mut self) -> Duration {
        let delay = self.rng.millis(0, 250);
        if self.slow { CONFLICT_PAUSE + delay } else { delay }
    }
}

/// In the order of RFC 6762 §8.2.1; the cache-flush bit is no part of the class.
fn sorted<'a>(records: &[&'a Record]) -> Vec<(u16, u16, &'a [u8])> {
    let mut list: Vec<_> = records.iter().map(|r| (r.class, r.rtype, r.rdata.as_slice())).collect();
    list.sort_unstable();
    list
}

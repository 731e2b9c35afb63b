//! Answering queries (RFC 6762 §5.4, §6, §7).

use alloc::vec::Vec;

use mesh_types::{Duration, Instant};

use super::link::{Deferred, MAX_DEFERRED, MAX_KNOWN, MAX_UNICAST, PendingUnicast, SECOND};
use super::records::{Key, Own};
use super::{Destination, Responder, Source, Transmit};
use crate::wire::{self, CLASS_ANY, CLASS_IN, Header, Message, Question, Record, rtype};

/// Lifetime in answers to simple resolvers, at most, in seconds (RFC 6762 §6.7).
const TTL_LEGACY: u32 = 10;
/// The port of a full mDNS implementation.
pub(crate) const MDNS_PORT: u16 = 5353;
/// A record is multicast to defend it at most this often (RFC 6762 §6).
const DEFENCE_SPACING: Duration = Duration::from_millis(250);

/// One set that answers a question.
struct Answer {
    key: Key,
    shared: bool,
    /// The question was a probe.
    probe: bool,
    /// The asker welcomes a unicast response.
    unicast: bool,
}

impl Responder {
    /// A query came.
    pub(crate) fn handle_query(&mut self, now: Instant, source: Source, query: Message) {
        self.tiebreak(now, source, &query);
        let legacy = source.address.port() != MDNS_PORT;
        let pause = self.rng.millis(400, 500);
        let Some(link) = self.links.get_mut(&source.interface) else { return };
        if link.held().is_empty() {
            return;
        }
        if query.questions.is_empty() {
            // More known answers of an earlier query (RFC 6762 §7.2).
            if let Some(d) = link.deferred_from(source.address.ip()) {
                let room = MAX_KNOWN.saturating_sub(d.known.len());
                d.known.extend(query.answers.into_iter().take(room));
                if query.header.truncated {
                    d.due = now + pause;
                }
            }
            return;
        }
        if query.header.truncated && !legacy && link.deferred.len() < MAX_DEFERRED {
            let mut known = query.answers;
            known.truncate(MAX_KNOWN);
            link.deferred.push(Deferred {
                due: now + pause,
                from: source.address,
                multicast: source.multicast,
                on_link: source.on_link,
                questions: query.questions,
                known,
            });
            return;
        }
        if legacy {
            self.answer_legacy(source, &query);
            return;
        }
        self.answer(now, source, &query.questions, &query.answers, &query.authority, false);
    }

    /// Answers the truncated queries whose known answers are all there.
    pub(super) fn run_deferred(&mut self, now: Instant, interface: u32) {
        let Some(link) = self.links.get_mut(&interface) else { return };
        let mut ready = Vec::new();
        let mut i = 0;
        while let Some(d) = link.deferred.get(i) {
            if d.due <= now {
                ready.push(link.deferred.swap_remove(i));
            } else {
                i += 1;
            }
        }
        for d in ready {
            let source = Source { interface, address: d.from, multicast: d.multicast, on_link: d.on_link };
            self.answer(now, source, &d.questions, &d.known, &[], true);
        }
    }

    /// The sets that answer one question (RFC 6762 §6: class and type as asked, or all of them).
    fn matching(own: &[Own], q: &Question) -> Vec<(Key, bool)> {
        let mut found: Vec<(Key, bool)> = Vec::new();
        if q.class != CLASS_IN && q.class != CLASS_ANY {
            return found;
        }
        let mut owned = false;
        for o in own.iter().filter(|o| o.record.name == q.name) {
            owned |= !o.shared;
            let wanted = q.rtype == rtype::ANY || q.rtype == o.record.rtype;
            let key = o.key();
            if wanted && found.iter().all(|(k, _)| *k != key) {
                found.push((key, o.shared));
            }
        }
        if found.is_empty() && owned {
            // The name is ours alone and has no such record (§6.1).
            found.push((Key { name: q.name.clone(), rtype: rtype::NSEC, rdata: None }, false));
        }
        found
    }

    /// Whether the asker has every record of the set, for at least half its lifetime (RFC 6762 §7.1).
    fn is_known(own: &[Own], key: &Key, known: &[Record]) -> bool {
        Self::set(own, key)
            .iter()
            .all(|r| known.iter().any(|k| k.same_data(r) && k.ttl.saturating_mul(2) >= r.ttl))
    }

    fn collect(
        &self,
        source: Source,
        questions: &[Question],
        known: &[Record],
        proposed: &[Record],
    ) -> Vec<Answer> {
        let own = self.answerable(source.interface, questions.iter().map(|q| &q.name), proposed);
        let mut answers: Vec<Answer> = Vec::new();
        for q in questions {
            // A probe has a record in its authority section that answers its question (RFC 6762 §6).
            let probe = proposed.iter().any(|r| r.name == q.name);
            for (key, shared) in Self::matching(&own, q) {
                if !probe && Self::is_known(&own, &key, known) {
                    continue;
                }
                // A direct unicast query counts as one that asks for unicast (§5.5); a sender that seems to
                // be elsewhere would ignore a unicast response (§11).
                let unicast = (q.unicast || !source.multicast) && source.on_link;
                match answers.iter_mut().find(|a| a.key == key) {
                    Some(a) => {
                        a.probe |= probe;
                        a.unicast &= unicast;
                    }
                    None => answers.push(Answer { key, shared, probe, unicast }),
                }
            }
        }
        answers
    }

    fn answer(
        &mut self,
        now: Instant,
        source: Source,
        questions: &[Question],
        known: &[Record],
        proposed: &[Record],
        waited: bool,
    ) {
        let answers = self.collect(source, questions, known, proposed);
        // Undelayed if no other host can have an answer (§6), and only to a single question (§6.3).
        let wait = !waited && (questions.len() > 1 || answers.iter().any(|a| a.shared));
        let delay = if wait { self.rng.millis(20, 120) } else { Duration::ZERO };
        let Some(link) = self.links.get_mut(&source.interface) else { return };
        let mut unicast_now = Vec::new();
        let mut unicast_later = Vec::new();
        for a in answers {
            let ttl = if a.shared { super::TTL_OTHER } else { super::TTL_HOST };
            let recent = link.sent_within(now, &a.key, Duration::from_secs(u64::from(ttl) / 4));
            let (delay, spacing) = if a.probe { (Duration::ZERO, DEFENCE_SPACING) } else { (delay, SECOND) };
            if a.unicast && (a.probe || recent) {
                let list = if a.probe { &mut unicast_now } else { &mut unicast_later };
                list.push(a.key.clone());
                if recent {
                    continue; // the others have it (§5.4)
                }
            }
            link.schedule(now, a.key, delay, spacing, delay != Duration::ZERO);
        }
        if !unicast_later.is_empty() && link.unicast.len() < MAX_UNICAST {
            link.unicast.push(PendingUnicast { due: now + delay, to: source.address, keys: unicast_later });
        }
        self.send_sets(source.interface, &unicast_now, Destination::Unicast(source.address), now);
        self.flush(now, source.interface);
    }

    /// Sends what is due on the link.
    pub(super) fn flush(&mut self, now: Instant, interface: u32) {
        let Some(link) = self.links.get_mut(&interface) else { return };
        let due = link.take_due(now);
        let mut unicast = Vec::new();
        let mut i = 0;
        while let Some(u) = link.unicast.get(i) {
            if u.due <= now {
                unicast.push(link.unicast.swap_remove(i));
            } else {
                i += 1;
            }
        }
        self.send_sets(interface, &due, Destination::Multicast, now);
        for u in unicast {
            self.send_sets(interface, &u.keys, Destination::Unicast(u.to), now);
        }
    }

    /// Sends whole sets, with what belongs to them as additional records (RFC 6762 §6.2, RFC 6763 §12).
    fn send_sets(&mut self, interface: u32, keys: &[Key], to: Destination, now: Instant) {
        if keys.is_empty() {
            return;
        }
        let own = self.answerable(interface, keys.iter().map(|k| &k.name), &[]);
        let answers: Vec<Record> = keys.iter().flat_map(|k| Self::set(&own, k)).collect();
        let multicast = to == Destination::Multicast;
        let Some(link) = self.links.get_mut(&interface) else { return };
        let mut extra = Self::companions(&own, keys);
        if multicast {
            extra.retain(|k| !link.sent_within(now, k, SECOND));
            for k in keys.iter().chain(&extra) {
                link.pending.remove(k);
                link.mark_sent(now, k.clone());
            }
        }
        let additional = extra.iter().flat_map(|k| Self::set(&own, k)).collect();
        self.send_response(interface, answers, additional, to);
    }

    /// The sets that go with these: the other address family or its absence, a service's target.
    fn companions(own: &[Own], keys: &[Key]) -> Vec<Key> {
        let mut extra: Vec<Key> = Vec::new();
        let has =
            |name: &wire::Name, t: u16| own.iter().any(|o| o.record.rtype == t && o.record.name == *name);
        let add = |list: &mut Vec<Key>, name: &wire::Name, rtype: u16| {
            let key = Key { name: name.clone(), rtype, rdata: None };
            if !list.contains(&key) && !keys.contains(&key) {
                list.push(key);
            }
        };
        let addresses = |list: &mut Vec<Key>, name: &wire::Name| {
            for t in [rtype::A, rtype::AAAA] {
                add(list, name, if has(name, t) { t } else { rtype::NSEC });
            }
        };
        for key in keys {
            match key.rtype {
                rtype::A | rtype::AAAA => addresses(&mut extra, &key.name),
                rtype::PTR if key.rdata.is_some() => {
                    for o in Self::set(own, key).iter().filter_map(Record::as_target) {
                        if has(&o, rtype::SRV) {
                            add(&mut extra, &o, rtype::SRV);
                            add(&mut extra, &o, rtype::TXT);
                        }
                    }
                }
                _ => {}
            }
        }
        let services: Vec<Key> =
            keys.iter().chain(&extra).filter(|k| k.rtype == rtype::SRV).cloned().collect();
        for target in services.iter().flat_map(|k| Self::set(own, k)).filter_map(|r| r.as_target()) {
            addresses(&mut extra, &target);
        }
        extra
    }

    /// Answers a simple resolver as an ordinary DNS server would (RFC 6762 §6.7).
    fn answer_legacy(&mut self, source: Source, query: &Message) {
        // An asker elsewhere may be a victim whose address was forged (§5.5).
        if !source.on_link {
            return;
        }
        let own = self.answerable(source.interface, query.questions.iter().map(|q| &q.name), &[]);
        let mut keys: Vec<Key> = Vec::new();
        for q in &query.questions {
            for (key, _) in Self::matching(&own, q) {
                if !keys.contains(&key) && !Self::is_known(&own, &key, &query.answers) {
                    keys.push(key);
                }
            }
        }
        if keys.is_empty() {
            return;
        }
        let short = |mut r: Record| {
            r.ttl = r.ttl.min(TTL_LEGACY);
            r.flush = false;
            r
        };
        let sets = |keys: &[Key]| keys.iter().flat_map(|k| Self::set(&own, k)).map(short).collect::<Vec<_>>();
        // A query of ours has no class with its top bit set in what it echoes.
        let questions = query.questions.iter().cloned().map(|q| Question { unicast: false, ..q }).collect();
        let mut message = Message {
            header: Header { id: query.header.id, response: true, authoritative: true, ..Default::default() },
            questions,
            answers: sets(&keys),
            authority: Vec::new(),
            additional: sets(&Self::companions(&own, &keys)),
        };
        let mut emitted = wire::emit(&message, wire::MAX_PAYLOAD, true);
        if emitted.answers < message.answers.len() {
            message.header.truncated = true;
            emitted = wire::emit(&message, wire::MAX_PAYLOAD, true);
        }
        if !emitted.bytes.is_empty() {
            let to = Destination::Unicast(source.address);
            self.out.push_back(Transmit { interface: source.interface, to, payload: emitted.bytes });
        }
    }
}

//! Application records: small signed notes flooded to every node (private message type 224).
//!
//! A record travels two ways. Its originator floods it by MPRs when it changes and every third of its
//! validity. And a node that gets a new neighbour repeats what it knows one hop far, with the validity that
//! is left; whoever learns something new from that repeats it in turn. So a late joiner, or the other
//! half of a healed mesh, knows everything soon, without a flood through those who know it already.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant};
use rfc5444::{Message, MessageView, Tlv, VALIDITY_TIME, decode_time, encode_time, time_code_at};

use crate::{InputError, Limits, MAX_RECORD, RECORD_MESSAGE, Record};

/// Message TLV type of a record's content, in the range for private use.
const CONTENT: u8 = 224;
/// Octets of kind and sequence number before the payload.
const PREFIX: usize = 5;
/// Longest validity believed.
const MAX_VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// New messages taken from one originator per [`WINDOW`]: its floods, and repetitions for a new neighbour.
const RATE: u32 = 64;
/// Floods of our own per [`WINDOW`]; what does not fit waits.
const OWN_RATE: u32 = 16;
const WINDOW: Duration = Duration::from_secs(10);
/// Least time between two floods of one kind: of what is published faster only the last goes out.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// A record message's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content<'a> {
    pub(crate) kind: u8,
    pub(crate) sequence: u32,
    pub(crate) validity: Duration,
    pub(crate) payload: &'a [u8],
}

/// The message header's part that a record keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) seq: u16,
    pub(crate) hop_limit: u8,
    pub(crate) hop_count: u8,
}

impl<'a> Content<'a> {
    /// `None`: not a record.
    pub(crate) fn parse(message: &MessageView<'a>) -> Option<Self> {
        let mut content = None;
        let mut validity = None;
        for t in message.tlvs().filter(|t| t.ext == 0) {
            match t.kind {
                CONTENT => content = t.value,
                VALIDITY_TIME => {
                    let hops = message.header().hop_count().map_or(u8::MAX, |n| n.saturating_add(1));
                    validity = time_code_at(t.value?, hops);
                }
                _ => {}
            }
        }
        let (prefix, payload) = content?.split_first_chunk::<PREFIX>()?;
        let [kind, sequence @ ..] = *prefix;
        let validity = Duration::from_micros(decode_time(validity?)).min(MAX_VALIDITY);
        let fits = payload.len() <= MAX_RECORD;
        fits.then_some(Self { kind, sequence: u32::from_be_bytes(sequence), validity, payload })
    }

    pub(crate) fn to_message(&self, originator: IpAddr, header: Header) -> Message {
        let mut message = Message::new(RECORD_MESSAGE, if originator.is_ipv4() { 4 } else { 16 });
        message.originator = Some(originator.into());
        message.hop_limit = Some(header.hop_limit);
        message.hop_count = Some(header.hop_count);
        message.seq = Some(header.seq);
        let mut value = vec![self.kind];
        value.extend_from_slice(&self.sequence.to_be_bytes());
        value.extend_from_slice(self.payload);
        // Never promise more than is left: round down.
        let micros = self.validity.as_micros();
        let code = encode_time(micros);
        let code = if decode_time(code) > micros { code.saturating_sub(1) } else { code };
        message.tlvs = vec![Tlv::new(VALIDITY_TIME, &[code]), Tlv::new(CONTENT, &value)];
        message
    }
}

/// A record of someone else.
#[derive(Clone, Debug)]
struct Stored {
    record: Record,
    message_seq: u16,
    hop_count: u8,
    /// Where and when it was last heard; repeating it there would be in vain.
    heard: (u32, Instant),
    /// It came one hop far and was news: repeat it.
    push: bool,
    /// The caller called it genuine.
    genuine: bool,
    /// The genuine one it took the place of, until the caller has judged this one.
    before: Option<Box<Stored>>,
}

impl Stored {
    fn bytes(&self) -> usize {
        self.record.payload.len() + self.before.as_ref().map_or(0, |b| b.bytes())
    }
}

/// A record of ours.
#[derive(Clone, Debug)]
struct Own {
    sequence: u32,
    payload: Vec<u8>,
    validity: Duration,
    next: Instant,
    /// When it was last flooded.
    last: Option<Instant>,
}

/// How many messages came in the present window, and when that began.
#[derive(Clone, Copy, Debug)]
struct Rate {
    start: Instant,
    count: u32,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { start: now, count: 0 }
    }

    fn end(self) -> Instant {
        self.start + WINDOW
    }

    /// Counts one more; `false` if that is too many.
    fn admit(&mut self, now: Instant, limit: u32) -> bool {
        if self.end() <= now {
            *self = Self::new(now);
        }
        self.count = self.count.saturating_add(1);
        self.count <= limit
    }
}

/// All records.
#[derive(Debug)]
pub(crate) struct Records {
    stored: BTreeMap<(IpAddr, u8), Stored>,
    stored_bytes: usize,
    own: BTreeMap<u8, Own>,
    own_rate: Rate,
    rates: BTreeMap<IpAddr, Rate>,
    limits: Limits,
    /// Nothing is due and nothing expires before this.
    next: Instant,
}

/// What became of a record message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is new or newer.
    News(Record),
    /// Known; its time may have been extended.
    Known,
    /// No room.
    Full,
}

impl Records {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            stored: BTreeMap::new(),
            stored_bytes: 0,
            own: BTreeMap::new(),
            own_rate: Rate::new(Instant::ZERO),
            rates: BTreeMap::new(),
            limits,
            next: Instant::FAR_FUTURE,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.stored.values().map(|s| &s.record)
    }

    pub(crate) fn publish(
        &mut self,
        now: Instant,
        kind: u8,
        sequence: u32,
        payload: &[u8],
        validity: Duration,
    ) -> Result<(), InputError> {
        if payload.len() > MAX_RECORD {
            return Err(InputError::RecordTooLong(payload.len()));
        }
        match self.own.get(&kind) {
            Some(old) if old.sequence >= sequence => return Err(InputError::RecordOutdated(sequence)),
            None if self.own.len() >= self.limits.records_per_originator => {
                return Err(InputError::TooManyRecords);
            }
            _ => {}
        }
        let validity = validity.min(MAX_VALIDITY).max(Duration::from_secs(1));
        let last = self.own.get(&kind).and_then(|old| old.last);
        let next = last.map_or(now, |last| now.max(last + MIN_INTERVAL));
        self.own.insert(kind, Own { sequence, payload: payload.to_vec(), validity, next, last });
        self.next = self.next.min(next);
        Ok(())
    }

    pub(crate) fn withdraw(&mut self, kind: u8) {
        self.own.remove(&kind);
    }

    /// Our records that are due for a flood; each is put off for a third of its validity less `jitter`.
    pub(crate) fn due(&mut self, now: Instant, jitter: impl Fn(Duration) -> Duration) -> Vec<u8> {
        let mut due = Vec::new();
        if self.next > now {
            return due;
        }
        for (kind, own) in self.own.iter_mut().filter(|(_, own)| own.next <= now) {
            if !self.own_rate.admit(now, OWN_RATE) {
                own.next = self.own_rate.end();
                continue;
            }
            own.last = Some(now);
            let third = own.validity.divided_by(3);
            own.next = now + third.saturating_sub(jitter(third.divided_by(4)));
            due.push(*kind);
        }
        let expiry = self.stored.values().map(|s| s.record.expires);
        self.next = self.own.values().map(|o| o.next).chain(expiry).fold(Instant::FAR_FUTURE, Instant::min);
        due
    }

    /// One of ours as content to send.
    pub(crate) fn own(&self, kind: u8) -> Option<Content<'_>> {
        let own = self.own.get(&kind)?;
        Some(Content { kind, sequence: own.sequence, validity: own.validity, payload: &own.payload })
    }

    /// Kinds of ours.
    pub(crate) fn own_kinds(&self) -> Vec<u8> {
        self.own.keys().copied().collect()
    }

    /// Whether another new message of that originator is within its rate.
    pub(crate) fn within_rate(&mut self, now: Instant, originator: IpAddr) -> bool {
        if self.rates.len() >= self.limits.routers {
            self.rates.retain(|_, rate| rate.end() > now);
        }
        if self.rates.len() >= self.limits.routers && !self.rates.contains_key(&originator) {
            return false;
        }
        self.rates.entry(originator).or_insert_with(|| Rate::new(now)).admit(now, RATE)
    }

    /// Notes that a record was heard again, so that it need not be repeated there.
    pub(crate) fn heard(&mut self, now: Instant, interface: u32, originator: IpAddr, seq: u16) {
        for (_, stored) in self.stored.range_mut((originator, 0)..=(originator, u8::MAX)) {
            if stored.message_seq == seq {
                stored.heard = (interface, now);
            }
        }
    }

    /// Takes a record of another node in.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        interface: u32,
        originator: IpAddr,
        header: Header,
        content: &Content<'_>,
    ) -> Taken {
        let key = (originator, content.kind);
        let expires = now + content.validity;
        self.next = self.next.min(expires);
        if let Some(old) = self.stored.get_mut(&key) {
            if content.sequence < old.record.sequence {
                return Taken::Known;
            }
            old.heard = (interface, now);
            old.message_seq = header.seq;
            if content.sequence == old.record.sequence {
                old.record.expires = old.record.expires.max(expires);
                return Taken::Known;
            }
        } else if !self.has_room(originator, content.payload.len()) {
            return Taken::Full;
        }
        let Content { kind, sequence, payload, .. } = *content;
        let record = Record { originator, kind, sequence, expires, payload: payload.to_vec() };
        let before = self.stored.remove(&key).and_then(|old| {
            self.stored_bytes -= old.bytes();
            if old.genuine { Some(Box::new(old)) } else { old.before }
        });
        let stored = Stored {
            record: record.clone(),
            message_seq: header.seq,
            hop_count: header.hop_count,
            heard: (interface, now),
            push: header.hop_limit <= 1,
            genuine: false,
            before,
        };
        self.stored_bytes += stored.bytes();
        self.stored.insert(key, stored);
        Taken::News(record)
    }

    /// The caller's word on a record: a forged one goes, and the genuine one before it comes back. `true`
    /// if that one has expired meanwhile. Nothing happens if the record is not the present one any more.
    pub(crate) fn judge(&mut self, now: Instant, key: (IpAddr, u8), sequence: u32, genuine: bool) -> bool {
        let Some(stored) = self.stored.get_mut(&key).filter(|s| s.record.sequence == sequence) else {
            return false;
        };
        self.stored_bytes -= stored.bytes();
        let before = stored.before.take();
        if genuine {
            stored.genuine = true;
            self.stored_bytes += stored.bytes();
            return false;
        }
        self.stored.remove(&key);
        let Some(before) = before else { return false };
        if before.record.expires <= now {
            return true;
        }
        self.next = self.next.min(before.record.expires);
        self.stored_bytes += before.bytes();
        self.stored.insert(key, *before);
        false
    }

    fn has_room(&self, originator: IpAddr, bytes: usize) -> bool {
        let of_originator = self.stored.range((originator, 0)..=(originator, u8::MAX)).count();
        of_originator < self.limits.records_per_originator
            && self.stored.len() < self.limits.records
            && self.stored_bytes + bytes <= self.limits.record_bytes
    }

    /// What to repeat one hop far on an interface: all that is marked as news, and with `since` all
    /// that was not heard there since then. The hop count tells how far the receiver is from the originator.
    pub(crate) fn repeats(
        &self,
        now: Instant,
        interface: u32,
        since: Option<Instant>,
    ) -> impl Iterator<Item = Message> + '_ {
        let wanted = move |s: &&Stored| match since {
            Some(since) => s.push || s.heard.0 != interface || s.heard.1 < since,
            None => s.push,
        };
        self.stored.values().filter(wanted).map(move |s| {
            let Record { originator, kind, sequence, expires, ref payload } = s.record;
            let validity = expires.saturating_since(now);
            let hop_count = s.hop_count.saturating_add(1);
            let header = Header { seq: s.message_seq, hop_limit: 1, hop_count };
            Content { kind, sequence, validity, payload }.to_message(originator, header)
        })
    }

    /// All news have been repeated.
    pub(crate) fn clear_push(&mut self) {
        self.stored.values_mut().for_each(|s| s.push = false);
    }

    /// Removes what has expired. [`Records::due`] must follow.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(IpAddr, u8)> {
        let mut gone = Vec::new();
        if self.next > now {
            return gone;
        }
        let bytes = &mut self.stored_bytes;
        self.stored.retain(|key, s| {
            let keep = s.record.expires > now;
            if !keep {
                *bytes -= s.bytes();
                gone.push(*key);
            }
            keep
        });
        gone
    }

    /// When something is due or expires, at the earliest.
    pub(crate) fn next(&self) -> Option<Instant> {
        Some(self.next).filter(|t| *t != Instant::FAR_FUTURE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn no_jitter(_: Duration) -> Duration {
        Duration::ZERO
    }

    #[test]
    fn of_what_is_published_too_fast_only_the_last_goes_out() {
        let mut records = Records::new(Limits::DEFAULT);
        let mut floods = Vec::new();
        for n in 0..=100u32 {
            let now = Instant::from_millis(u64::from(n) * 30);
            records.publish(now, 1, n + 1, &n.to_be_bytes(), MINUTE).unwrap();
            for kind in records.due(now, no_jitter) {
                floods.push((30 * n, records.own(kind).unwrap().sequence));
            }
        }
        assert_eq!(floods, [(0, 1), (1020, 35), (2040, 69)]);
        let last = records.next().unwrap();
        assert!(records.due(last, no_jitter) == [1] && records.own(1).unwrap().sequence == 101);
    }

    #[test]
    fn floods_of_one_node_are_bounded_and_none_is_forgotten() {
        let mut records = Records::new(Limits { records_per_originator: 40, ..Limits::DEFAULT });
        let start = Instant::from_millis(50_000);
        for kind in 0..40 {
            records.publish(start, kind, 1, b"x", MINUTE.times(10)).unwrap();
        }
        let (mut now, mut sent) = (start, Vec::new());
        while sent.len() < 40 {
            let due = records.due(now, no_jitter);
            assert!(due.len() <= OWN_RATE as usize);
            sent.extend(due);
            assert!(now < start + WINDOW.times(4));
            now = records.next().unwrap();
        }
        sent.sort_unstable();
        assert!(sent.iter().copied().eq(0..40));
    }

    #[test]
    fn messages_of_one_originator_are_bounded_whatever_others_do() {
        let mut records = Records::new(Limits { routers: 2, ..Limits::DEFAULT });
        let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
        let taken =
            |records: &mut Records, n: u8, at: u64| records.within_rate(Instant::from_millis(at), ip(n));
        assert_eq!((0..200).filter(|_| taken(&mut records, 1, 0)).count(), RATE as usize);
        assert!(taken(&mut records, 2, 0), "another one");
        assert!(!taken(&mut records, 3, 0), "no room to count it");
        assert!(taken(&mut records, 3, 10_000) && taken(&mut records, 1, 10_000));
    }
}

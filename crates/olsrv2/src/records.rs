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

use crate::shares::{Giver, Room, Shares};
use crate::topology::Brought;
use crate::{InputError, Limits, MAX_RECORD, RECORD_MESSAGE, Record};

/// Message TLV type of a record's content, in the range for private use.
const CONTENT: u8 = 224;
/// Octets of kind and sequence number before the payload.
const PREFIX: usize = 5;
/// Longest validity believed.
const MAX_VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// New messages taken from one originator by one neighbour per [`WINDOW`]: its floods, and repetitions for a
/// new neighbour.
pub(crate) const RATE: usize = 64;
/// Floods of our own per [`WINDOW`]; what does not fit waits.
const OWN_RATE: u32 = 16;
pub(crate) const WINDOW: Duration = Duration::from_secs(10);
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
    /// The neighbour whose share it is in.
    giver: Giver,
    /// When it came, counted in records.
    born: u32,
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
    shares: Shares,
    /// Least that a record takes of its giver's share.
    least: usize,
    born: u32,
    /// Records that had to go for others.
    pushed_out: Vec<(IpAddr, u8)>,
    own: BTreeMap<u8, Own>,
    own_rate: Rate,
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
    /// Its originator has too many.
    Full,
    /// The neighbour that brought it has brought too much.
    NoRoom,
}

impl Records {
    pub(crate) fn new(limits: Limits) -> Self {
        let least = (limits.record_bytes / limits.records.max(1)).max(1);
        let capacity = least.saturating_mul(limits.records).min(limits.record_bytes);
        Self {
            stored: BTreeMap::new(),
            shares: Shares::new(u32::try_from(capacity).unwrap_or(u32::MAX)),
            least,
            born: 0,
            pushed_out: Vec::new(),
            own: BTreeMap::new(),
            own_rate: Rate::new(Instant::ZERO),
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

    /// Notes that a record was heard again, so that it need not be repeated there.
    pub(crate) fn heard(&mut self, now: Instant, interface: u32, originator: IpAddr, seq: u16) {
        for (_, stored) in self.stored.range_mut((originator, 0)..=(originator, u8::MAX)) {
            if stored.message_seq == seq {
                stored.heard = (interface, now);
            }
        }
    }

    /// What so many bytes take of a share.
    fn weight(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.max(self.least)).unwrap_or(u32::MAX)
    }

    /// Takes a record of another node in.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        interface: u32,
        (originator, brought): (IpAddr, &Brought<'_>),
        header: Header,
        content: &Content<'_>,
    ) -> Taken {
        let key = (originator, content.kind);
        let expires = now + content.validity;
        let mut held = 0;
        let mut giver = self.shares.giver(brought.by);
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
            held = old.bytes();
            giver = old.giver;
        } else if self.stored.range((originator, 0)..=(originator, u8::MAX)).count()
            >= self.limits.records_per_originator
        {
            return Taken::Full;
        }
        // The one that is there may have to be kept besides.
        let before = if held == 0 { 0 } else { self.weight(held) };
        let more = self.weight(held + content.payload.len()).saturating_sub(before);
        let own = originator == brought.by;
        if !self.clear(self.shares.room(giver, more, own, brought.alive), key) {
            return Taken::NoRoom;
        }
        self.next = self.next.min(expires);
        let Content { kind, sequence, payload, .. } = *content;
        let record = Record { originator, kind, sequence, expires, payload: payload.to_vec() };
        let old = self.remove(key);
        let born = old.as_ref().map_or_else(|| self.next_born(), |old| old.born);
        let stored = Stored {
            record: record.clone(),
            message_seq: header.seq,
            hop_count: header.hop_count,
            heard: (interface, now),
            push: header.hop_limit <= 1,
            genuine: false,
            giver,
            born,
            before: old.and_then(|old| if old.genuine { Some(Box::new(old)) } else { old.before }),
        };
        self.insert(key, stored);
        Taken::News(record)
    }

    fn next_born(&mut self) -> u32 {
        self.born = self.born.wrapping_add(1);
        self.born
    }

    fn insert(&mut self, key: (IpAddr, u8), stored: Stored) {
        self.shares.change(stored.giver, 0, self.weight(stored.bytes()));
        self.stored.insert(key, stored);
    }

    fn remove(&mut self, key: (IpAddr, u8)) -> Option<Stored> {
        let stored = self.stored.remove(&key)?;
        self.shares.change(stored.giver, self.weight(stored.bytes()), 0);
        Some(stored)
    }

    /// Makes the room that is wanted; `false` if there is none. `but` stays whatever happens.
    fn clear(&mut self, room: Room, but: (IpAddr, u8)) -> bool {
        let (from, least, most) = match room {
            Room::Free => return true,
            Room::Refused => return false,
            Room::From { giver, least, most } => (giver, least, most),
        };
        let theirs = self.stored.iter().filter(|(key, s)| s.giver == from && **key != but);
        let mut theirs: Vec<_> = theirs.map(|(key, s)| (s.born, *key, self.weight(s.bytes()))).collect();
        theirs.sort_unstable();
        // Looking at all costs the same for one as for many.
        let enough = least.max(self.shares.share() / 64).min(most);
        let mut cleared = 0u32;
        while let Some((_, key, weight)) = theirs.pop().filter(|_| cleared < enough) {
            cleared = cleared.saturating_add(weight);
            self.remove(key);
            self.pushed_out.push(key);
        }
        cleared >= least
    }

    /// The caller's word on a record: a forged one goes, and the genuine one before it comes back. `true`
    /// if that one has expired meanwhile. Nothing happens if the record is not the present one any more.
    pub(crate) fn judge(&mut self, now: Instant, key: (IpAddr, u8), sequence: u32, genuine: bool) -> bool {
        if self.stored.get(&key).is_none_or(|s| s.record.sequence != sequence) {
            return false;
        }
        let Some(mut stored) = self.remove(key) else { return false };
        let before = stored.before.take();
        if genuine {
            stored.genuine = true;
            self.insert(key, stored);
            return false;
        }
        let Some(before) = before else { return false };
        if before.record.expires <= now {
            return true;
        }
        self.next = self.next.min(before.record.expires);
        self.insert(key, *before);
        false
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

    /// Removes what has expired, and tells what had to go for others. [`Records::due`] must follow.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(IpAddr, u8)> {
        let mut gone = core::mem::take(&mut self.pushed_out);
        if self.next > now {
            return gone;
        }
        let expired = self.stored.iter().filter(|(_, s)| s.record.expires <= now).map(|(key, _)| *key);
        let expired: Vec<(IpAddr, u8)> = expired.collect();
        for key in expired {
            self.remove(key);
            gone.push(key);
        }
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

    fn take(records: &mut Records, by: u8, n: u16, sequence: u32, payload: &[u8]) -> Taken {
        let [high, low] = n.to_be_bytes();
        let brought = Brought { by: IpAddr::from([10, 0, 0, by]), alive: &|_| true };
        let content = Content { kind: 1, sequence, validity: MINUTE, payload };
        let header = Header { seq: 1, hop_limit: 9, hop_count: 0 };
        let from = (IpAddr::from([10, 1, high, low]), &brought);
        records.take(Instant::ZERO, 1, from, header, &content)
    }

    #[test]
    fn a_neighbour_that_floods_records_pushes_out_nobody_elses_and_keeps_none_out() {
        let limits = Limits { records: 64, record_bytes: 6400, ..Limits::DEFAULT };
        let mut records = Records::new(limits);
        assert!(matches!(take(&mut records, 2, 1, 1, b"real"), Taken::News(_)));
        for n in 100..163 {
            assert!(matches!(take(&mut records, 1, n, 1, b"lie"), Taken::News(_)));
        }
        assert_eq!(take(&mut records, 1, 999, 1, b"lie"), Taken::NoRoom);
        for (n, room) in [(2, true), (3, true), (4, true), (5, false)] {
            assert_eq!(take(&mut records, 2, n, 1, b"real") != Taken::NoRoom, room, "{n}");
        }
        assert_eq!(records.expire(Instant::ZERO).len(), 3, "who subscribes hears of it");
        // What is there may not grow beyond its giver's share either.
        assert_eq!(take(&mut records, 1, 100, 2, &[0; 1000]), Taken::NoRoom);
        assert_eq!(take(&mut records, 2, 1, 2, &[0; 1000]), Taken::NoRoom);
        assert!(records.iter().count() <= 64);
        assert!(records.iter().map(|r| r.payload.len()).sum::<usize>() <= 6400);
        assert_eq!(records.expire(Instant::ZERO + MINUTE).len(), 64);
        assert!((100..164).all(|n| matches!(take(&mut records, 1, n, 1, b"x"), Taken::News(_))));
    }
}

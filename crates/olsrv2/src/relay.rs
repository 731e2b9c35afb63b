//! The last TC of every router: a neighbour that is new hears all of them at once, one hop far, and does not
//! wait for everybody's next (RFC 7181 §14 allows messages to be forwarded late).
//!
//! A message is passed on as it came. But most say just what the topology keeps of them, in the words in
//! which this router would say it: then only their header is kept, and the same bytes are written again.

use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant};
use rfc5444::{INTERVAL_TIME, MessageView, NetAddr, RawMessage, VALIDITY_TIME, decode_time};

use crate::names::Name;
use crate::summary::{PAUSE, PAUSES, Summary, is_among};
use crate::tc::{Advertised, CONT_SEQ_NUM, Gateway, Tc};
use crate::tick::{Tick, ticks};
use crate::topology::{MAX_VALIDITY, Router, Topology};

/// Longer TCs are left to the flood.
const LONGEST: usize = 1024;

/// A router's last TC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    /// Of all but its number and hop count, if it can be written again.
    digest: u32,
    /// When it was processed.
    came: Tick,
    /// When and where a copy was last heard: whoever was there then has it.
    heard: Tick,
    slot: Slot,
    what: What,
    header: Header,
}

/// An interface's slot, and in the upper three bits how often the TC was repeated since it said something new.
#[derive(Clone, Copy, Debug)]
struct Slot(u8);

impl Slot {
    const COUNT: u32 = 5;

    fn is(self, slot: u8) -> bool {
        (self.0 ^ slot) << (8 - Self::COUNT) == 0
    }

    fn set(&mut self, slot: u8) {
        self.0 = self.mended() << Self::COUNT | (slot << (8 - Self::COUNT)) >> (8 - Self::COUNT);
    }

    fn mended(self) -> u8 {
        self.0 >> Self::COUNT
    }

    fn set_mended(&mut self, count: u8) {
        let slot = self.0;
        self.0 = count.min(PAUSES) << Self::COUNT;
        self.set(slot);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Nothing,
    /// The message is in [`Topology::whole`].
    Whole,
    /// It can be written again.
    Again,
}

/// What differs between TCs that say the same.
#[derive(Clone, Copy, Debug, Default)]
struct Header {
    seq: u16,
    hop_limit: u8,
    hop_count: u8,
    /// RFC 5497 time codes.
    interval: u8,
    validity: u8,
}

impl Header {
    /// `None`: there is more to it.
    fn of(message: &MessageView<'_>) -> Option<Self> {
        let raw = message.header();
        let time = |kind: u8| {
            let value = message.tlvs().find(|t| (t.kind, t.ext) == (kind, 0))?.value?;
            if let [code] = value { Some(*code) } else { None }
        };
        Some(Self {
            seq: raw.seq()?,
            hop_limit: raw.hop_limit()?,
            hop_count: raw.hop_count()?,
            interval: time(INTERVAL_TIME)?,
            validity: time(VALIDITY_TIME)?,
        })
    }
}

impl Last {
    pub(crate) const NOTHING: Self = Self {
        digest: 0,
        came: Tick::ZERO,
        heard: Tick::ZERO,
        slot: Slot(0),
        what: What::Nothing,
        header: Header { seq: 0, hop_limit: 0, hop_count: 0, interval: 0, validity: 0 },
    };

    /// The next TC is there, perhaps with something new.
    pub(crate) fn another(&mut self, news: bool) {
        self.slot.set_mended(if news { 0 } else { self.slot.mended().saturating_sub(2) });
    }

    /// It can't be passed on any more.
    pub(crate) fn forget(&mut self) {
        self.what = What::Nothing;
    }

    /// Half of its validity is over: the next was missed, and the one after.
    fn is_overdue(&self, now: Tick, expires: Tick) -> bool {
        i64::from(self.came.age(now)) > i64::from(expires.after(now))
    }
}

impl Topology {
    /// A TC came over the interface of that slot and was processed.
    pub(crate) fn keep_last(
        &mut self,
        now: Instant,
        slot: u8,
        originator: IpAddr,
        message: &MessageView<'_>,
    ) {
        let Some(name) = self.names.find(NetAddr::host(originator)) else { return };
        let bytes = message.header().bytes();
        let (header, digest) = (Header::of(message), digest(bytes, message.header().addr_len()));
        let Some(last) = self.last_mut(name) else { return };
        let known = (last.what, last.digest) == (What::Again, digest) && header.is_some();
        let now = Tick::of(now);
        let seq = message.header().seq().unwrap_or(0);
        (last.came, last.heard) = (now, now);
        last.slot.set(slot);
        last.header = header.unwrap_or(Header { seq, ..Header::default() });
        if known {
            return;
        }
        let same = header.is_some() && self.write_last(name).is_some_and(|again| *again == *bytes);
        let what = match same {
            true => What::Again,
            false if bytes.len() <= LONGEST => What::Whole,
            false => What::Nothing,
        };
        if what == What::Whole {
            self.whole.insert(name, bytes.into());
        } else if !self.whole.is_empty() {
            self.whole.remove(&name);
        }
        if let Some(last) = self.last_mut(name) {
            (last.what, last.digest) = (what, digest);
        }
    }

    /// Addresses of ours changed: what TCs say is taken in another way from now on.
    pub(crate) fn read_anew(&mut self, now: Instant) {
        self.anew = Some(Tick::of(now));
    }

    /// A TC that says what the last one said, and that is all there in the words in which this router would say it
    /// (§5.2: an ANSN stands for one content): its time is put off, nothing else would change. `false`: it has to be
    /// read.
    pub(crate) fn said_again(
        &mut self,
        now: Instant,
        slot: u8,
        originator: IpAddr,
        message: &MessageView<'_>,
    ) -> bool {
        let Some(name) = self.names.find(NetAddr::host(originator)) else { return false };
        if self.is_crowded() || self.has_mixed_times(name) {
            return false;
        }
        let (anew, tick) = (self.anew, Tick::of(now));
        let Some(router) = self.get(name).filter(|r| r.last().what == What::Again) else { return false };
        let Some(header) = Header::of(message) else { return false };
        let complete = message.tlvs().find(|t| (t.kind, t.ext) == (CONT_SEQ_NUM, 0)).and_then(|t| t.value);
        if complete != Some(&router.ansn().to_be_bytes())
            || anew.is_some_and(|anew| router.last().came.after(anew) <= 0)
            || router.last().digest != digest(message.header().bytes(), message.header().addr_len())
        {
            return false;
        }
        let validity = Duration::from_micros(decode_time(header.validity)).min(MAX_VALIDITY);
        self.put_off(now, name, Tick::of(now + validity));
        if let Some(last) = self.last_mut(name) {
            last.another(false);
            (last.came, last.heard, last.header) = (tick, tick, header);
            last.slot.set(slot);
        }
        true
    }

    /// Another copy came.
    pub(crate) fn heard_last(&mut self, now: Instant, slot: u8, originator: IpAddr, seq: u16) {
        let Some(name) = self.names.find(NetAddr::host(originator)) else { return };
        if let Some(last) = self.last_mut(name).filter(|l| l.header.seq == seq) {
            last.heard = Tick::of(now);
            last.slot.set(slot);
        }
    }

    /// What someone who came on the interface of that slot at `since` has not heard, of what came in the
    /// time `fresh`, ready to be forwarded: others must remember its number longer.
    pub(crate) fn missed_by(
        &mut self,
        now: Instant,
        slot: u8,
        since: Instant,
        fresh: Duration,
    ) -> Vec<Vec<u8>> {
        let (tick, since, fresh) = (Tick::of(now), Tick::of(since), ticks(fresh));
        let missed = |l: &Last| l.came.age(tick) < fresh && (l.heard.after(since) < 0 || !l.slot.is(slot));
        let names: Vec<Name> = self.routers().filter(|(_, r)| missed(r.last())).map(|(n, _)| n).collect();
        self.repeat_last(tick, slot, names)
    }

    /// What is known; whose TCs are overdue does not count, so that it is missed before it has expired.
    pub(crate) fn summary(&self, now: Instant) -> Summary {
        let now = Tick::of(now);
        let mut summary = Summary::NOTHING;
        for (name, router) in self.routers().filter(|(_, r)| !r.last().is_overdue(now, r.expires())) {
            if let Some(originator) = self.names.address(name) {
                summary.toggle(originator.ip(), router.ansn());
            }
        }
        summary
    }

    /// What neighbours whose summaries differ in those buckets may have missed, not more than `most`: of what came
    /// in the time `fresh`, and was not heard a moment ago.
    pub(crate) fn missed_in(
        &mut self,
        now: Instant,
        slot: u8,
        mask: u64,
        fresh: Duration,
        most: usize,
    ) -> Vec<Vec<u8>> {
        let (tick, fresh) = (Tick::of(now), ticks(fresh));
        let rested = |l: &Last| l.heard.age(tick) >= ticks(PAUSE) << l.slot.mended();
        let meant = |(name, router): &(Name, Router<'_>)| {
            let address = self.names.address(*name);
            router.last().came.age(tick) < fresh
                && rested(router.last())
                && address.is_some_and(|a| is_among(mask, a.ip()))
        };
        let names: Vec<Name> = self.routers().filter(meant).map(|(name, _)| name).take(most).collect();
        for name in &names {
            self.last_mut(*name).into_iter().for_each(|l| l.slot.set_mended(l.slot.mended() + 1));
        }
        self.repeat_last(tick, slot, names)
    }

    /// Last TCs, ready to be forwarded.
    fn repeat_last(&mut self, tick: Tick, slot: u8, names: Vec<Name>) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for name in names {
            let bytes = match self.get(name).map(|r| r.last().what) {
                Some(What::Whole) => self.whole.get(&name).map(|bytes| bytes.to_vec()).unwrap_or_default(),
                Some(What::Again) => self.write_last(name).unwrap_or_default(),
                _ => continue,
            };
            let mut copy = Vec::with_capacity(bytes.len());
            if RawMessage::parse(&bytes).is_ok_and(|raw| raw.forward(&mut copy)) {
                all.push(copy);
                if let Some(last) = self.last_mut(name) {
                    last.heard = tick;
                    last.slot.set(slot);
                }
            }
        }
        all
    }

    /// The last TC as this router would write it.
    fn write_last(&self, name: Name) -> Option<Vec<u8>> {
        let (router, originator) = (self.get(name)?, self.names.address(name)?.ip());
        let address = |name: Name| self.names.address(name);
        let neighbors = router.edges().filter_map(|e| {
            Some(Advertised { address: address(e.to)?, kind: e.kind(), metric: Some(e.metric) })
        });
        let gateways = router.networks().filter_map(|n| {
            Some(Gateway { prefix: address(n.prefix)?, dist: n.dist, metric: Some(n.metric) })
        });
        let header = router.last().header;
        let mut tc = Tc {
            originator,
            seq: header.seq,
            validity: Duration::ZERO,
            ansn: Some((router.ansn(), true)),
            neighbors: neighbors.collect(),
            gateways: gateways.collect(),
            notes: Vec::new(),
        };
        tc.neighbors.sort_unstable();
        tc.gateways.sort_unstable();
        let mut message = tc.with_times(header.hop_limit, &[header.interval], &[header.validity]);
        message.hop_count = Some(header.hop_count);
        let mut bytes = Vec::new();
        message.emit(&mut bytes).ok().map(|()| bytes)
    }
}

/// FNV-1a over a message but for hop limit, hop count and number, which follow the originator.
fn digest(message: &[u8], addr_len: u8) -> u32 {
    let start = 4 + usize::from(addr_len);
    let counts = |(at, _): &(usize, &u8)| !(start..start + 4).contains(at);
    let octets = message.iter().enumerate().filter(counts);
    octets.fold(0x811c_9dc5, |hash, (_, octet)| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Scopes;
    use crate::topology::ANYONE;
    use alloc::vec;
    use mesh_types::Metric;
    use rfc5444::{Message, Tlv};

    const FRESH: Duration = Duration::from_secs(15);

    fn tc(seq: u16, v6: bool) -> Tc {
        let ip = |n: u8| match v6 {
            true => IpAddr::from([0xfd, n, 7, n, 0, 0, 0, n, 0, 0, 0, 0, 0, 0, 0, 1]),
            false => IpAddr::from([10, 64, n, n]),
        };
        let neighbor = |n: u8| Advertised {
            address: NetAddr::host(ip(n)),
            kind: 1 + n % 3,
            metric: Some(Metric::from_compressed(u16::from(n) * 40)),
        };
        let gateway = |n: u8| Gateway {
            prefix: NetAddr::new(ip(n), if v6 { 64 } else { 24 }).network(),
            dist: n % 2,
            metric: Some(Metric::MIN),
        };
        Tc {
            originator: ip(99),
            seq,
            validity: Duration::from_secs(160),
            ansn: Some((7, true)),
            neighbors: [3, 4, 9, 12, 40].map(neighbor).into(),
            gateways: [99, 100].map(gateway).into(),
            notes: Vec::new(),
        }
    }

    fn bytes(tc: &Tc, change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = tc.to_message(255, Duration::from_secs(40), &Scopes::uniform(255));
        (message.hop_limit, message.hop_count) = (Some(250), Some(5));
        change(&mut message);
        let mut bytes = Vec::new();
        message.emit(&mut bytes).unwrap();
        bytes
    }

    /// Takes it in; `skip`: the address that is ours.
    fn take(t: &mut Topology, now: Instant, slot: u8, bytes: &[u8], skip: Option<NetAddr>) {
        let message = RawMessage::parse(bytes).unwrap().check().unwrap();
        let tc = Tc::parse(&message, message.header().addr_len(), 100).unwrap();
        t.apply(now, &tc, &ANYONE, |a| Some(a) == skip);
        t.keep_last(now, slot, tc.originator, &message);
    }

    fn forwarded(bytes: &[u8]) -> Vec<u8> {
        let mut copy = Vec::new();
        assert!(RawMessage::parse(bytes).unwrap().forward(&mut copy));
        copy
    }

    fn is_again(t: &Topology, originator: IpAddr) -> bool {
        let name = t.names.find(NetAddr::host(originator)).unwrap();
        t.get(name).unwrap().last().what == What::Again
    }

    #[test]
    fn rfc5444_a_message_is_passed_on_as_it_came_whether_it_is_kept_or_written_again() {
        let at = |s: u64| Instant::from_millis(s * 1000);
        for v6 in [true, false] {
            let plain = tc(5, v6);
            let ours = plain.neighbors[1].address;
            let cases = [
                (bytes(&plain, |_| {}), None, true),
                (bytes(&plain, |_| {}), Some(ours), false),
                (bytes(&plain, |m| m.tlvs.push(Tlv::new(200, &[1]))), None, false),
                (bytes(&plain, |m| m.tlvs[0] = Tlv::new(INTERVAL_TIME, &[100, 4, 110])), None, false),
                (bytes(&plain, |m| m.tlvs.swap(0, 1)), None, false),
                (bytes(&plain, |m| m.blocks.swap(0, 1)), None, false),
            ];
            for (i, (first, skip, again)) in cases.into_iter().enumerate() {
                let mut t = Topology::new(8);
                take(&mut t, at(1), 0, &first, skip);
                assert_eq!(is_again(&t, plain.originator), again, "case {i}");
                assert_eq!(t.missed_by(at(2), 0, at(0), FRESH), [&[][..]; 0], "it was there");
                assert_eq!(t.missed_by(at(2), 1, at(0), FRESH), [forwarded(&first)], "case {i}");
                assert_eq!(t.missed_by(at(2), 1, at(0), FRESH), [&[][..]; 0], "once is enough");
                assert_eq!(t.missed_by(at(6), 1, at(5), FRESH), [forwarded(&first)], "a newcomer");
                assert_eq!(t.missed_by(at(17), 0, at(16), FRESH), [&[][..]; 0], "it is too old");
                t.heard_last(at(7), 0, plain.originator, 5);
                assert_eq!(t.missed_by(at(8), 0, at(6), FRESH), [&[][..]; 0]);
            }
        }
    }

    #[test]
    fn a_slot_and_a_count_share_an_octet() {
        assert_eq!(size_of::<Last>(), 20, "large meshes have many of them");
        let mut held = Slot(0);
        for (slot, count) in [(0, 0), (15, 3), (1, 5), (31, 1), (7, 0)] {
            held.set(slot);
            held.set_mended(count);
            held.set(slot);
            assert!(held.is(slot) && !held.is(slot + 1) && held.mended() == count);
        }
        held.set_mended(9);
        assert_eq!((held.is(7), held.mended()), (true, PAUSES));
    }

    #[test]
    fn each_tc_that_says_the_same_goes_on_with_its_own_number() {
        let now = Instant::from_millis(1000);
        let mut t = Topology::new(8);
        for seq in 5..9 {
            let mut said = tc(seq, true);
            if seq == 8 {
                said.neighbors.pop();
                said.ansn = Some((8, true));
            }
            let first = bytes(&said, |m| m.hop_count = Some(seq as u8));
            take(&mut t, now, 0, &first, None);
            assert!(is_again(&t, said.originator));
            assert_eq!(t.missed_by(now, 1, now, FRESH), [forwarded(&first)]);
        }
    }

    #[test]
    fn what_is_no_more_as_it_was_said_is_not_written_again() {
        let now = Instant::from_millis(1000);
        let mut t = Topology::new(8);
        let said = tc(5, true);
        let first = bytes(&said, |_| {});
        take(&mut t, now, 0, &first, None);
        assert!(t.unlink(said.originator, vec![said.neighbors[0].address].into_iter()));
        assert!(t.missed_by(now, 1, now, FRESH).is_empty());
        // The next says it again, or not.
        let next = bytes(&Tc { seq: 6, ..said.clone() }, |_| {});
        take(&mut t, now, 0, &next, None);
        assert_eq!(t.missed_by(now, 1, now, FRESH), [forwarded(&next)]);
    }
}

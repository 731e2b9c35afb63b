//! What a router knows, told in few octets, so that a neighbour that missed a TC gets it before its originator's
//! next (docs/decisions/0006-bytes.md).
//!
//! All originators whose TCs are known fall into buckets, and a bucket's digest follows from their addresses and
//! ANSNs. While something changes, HELLOs bear the digests in a message TLV of ours; while nothing does, they do
//! not. Where a neighbour's digests differ twice in a row, the last TCs of those buckets are repeated as for a new
//! neighbour ([`crate::relay`]). Whoever knows better than most of its neighbours goes first.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant};
use nhdp::{Hello, LinkId, LinkStatus};
use rfc5444::Tlv;

use crate::outbox::Due;
use crate::router::Router;

/// Message TLV type of HELLOs, for experiments (RFC 5444 §6.2): two octets for each of 16, 32 or 64 buckets.
pub(crate) const SUMMARY: u8 = 225;
/// Buckets as they are kept.
const BUCKETS: usize = 64;
/// Buckets told in a small mesh.
const FEWEST: usize = 16;
/// Originators for each bucket told, where more buckets can be told.
const CROWD: usize = 16;
/// So many HELLOs after a change bear a summary.
const TOLD: u8 = 5;
/// A summary that differs is answered so long, if another does not follow.
const ASKED: Duration = Duration::from_secs(20);
/// Longest delay of a repetition, so that not all neighbours repeat the same.
const SPREAD: Duration = Duration::from_millis(400);
/// Added where most neighbours differ: then it is more likely this router that missed something.
const DEFER: Duration = Duration::from_millis(1500);
/// Least time between a TC's last copy on the air and its repetition; doubled each time nothing changed.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// How often it is doubled.
pub(crate) const PAUSES: u8 = 5;
/// Most TCs repeated at a time.
const MOST: usize = 32;

/// Digests of all TCs that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary([u16; BUCKETS]);

impl Summary {
    pub(crate) const NOTHING: Self = Self([0; BUCKETS]);

    /// An originator's TC comes or goes.
    pub(crate) fn toggle(&mut self, originator: IpAddr, ansn: u16) {
        let (bucket, digest) = (bucket(originator), mixed(digest(originator), ansn));
        if let Some(slot) = self.0.get_mut(bucket) {
            *slot ^= digest;
        }
    }

    fn folded(&self, count: usize) -> Vec<u16> {
        let fold = |i| self.0.iter().skip(i).step_by(count).fold(0, |all, bucket| all ^ bucket);
        (0..count).map(fold).collect()
    }

    /// The TLV's value where so many originators are known.
    fn value(&self, originators: usize) -> Vec<u8> {
        let wanted = originators.div_ceil(CROWD).next_power_of_two();
        self.folded(wanted.clamp(FEWEST, BUCKETS)).into_iter().flat_map(u16::to_be_bytes).collect()
    }

    /// The buckets in which it differs, a bit for each; `None`: that is no summary.
    fn differences(&self, told: &[u8]) -> Option<u64> {
        let count = told.len() / 2;
        if !told.len().is_multiple_of(2) || !(FEWEST..=BUCKETS).contains(&count) || !count.is_power_of_two() {
            return None;
        }
        let theirs = told.as_chunks().0.iter().map(|b| u16::from_be_bytes(*b));
        let differ = self.folded(count).into_iter().zip(theirs).map(|(a, b)| u64::from(a != b));
        let few = (0..).zip(differ).fold(0, |mask, (i, bit): (u32, u64)| mask | bit << i);
        let mut all = few;
        (1..BUCKETS / count).for_each(|i| all |= few << (i * count));
        Some(all)
    }
}

fn digest(originator: IpAddr) -> u32 {
    let fnv = |octets: &[u8]| {
        octets
            .iter()
            .fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193))
    };
    match originator {
        IpAddr::V4(ip) => fnv(&ip.octets()),
        IpAddr::V6(ip) => fnv(&ip.octets()),
    }
}

/// An originator's bucket.
fn bucket(originator: IpAddr) -> usize {
    let digest = digest(originator);
    ((digest ^ digest >> 16) % BUCKETS as u32) as usize
}

fn mixed(digest: u32, ansn: u16) -> u16 {
    let mut hash = (digest ^ u32::from(ansn)).wrapping_mul(0x9e37_79b1);
    hash ^= hash >> 15;
    hash = hash.wrapping_mul(0x85eb_ca77);
    (hash >> 16) as u16
}

/// Whether an originator is in one of those buckets.
pub(crate) fn is_among(mask: u64, originator: IpAddr) -> bool {
    mask >> bucket(originator) & 1 == 1
}

/// A neighbour's last summary, while it differs.
#[derive(Clone, Debug)]
pub(crate) struct Differing {
    told: Box<[u8]>,
    at: Instant,
    now: u64,
    /// The same buckets differed in the one before.
    lasting: u64,
}

/// When an interface's HELLOs bear a summary, and when something is repeated on it.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    last: Option<Summary>,
    left: u8,
    pub(crate) mend_at: Option<Instant>,
}

impl Telling {
    /// The next HELLOs bear one.
    pub(crate) const fn is_on(&self) -> bool {
        self.left > 0
    }
}

impl Router {
    /// What this router knows, its own TC included.
    fn summary(&self, now: Instant) -> Summary {
        let mut summary = self.topology.summary(now);
        let holds = |last: Instant| now < last + self.config.timing.tc_hold.divided_by(2);
        if let Some((ansn, _)) = self.tc.told.as_ref().filter(|_| self.tc.last.is_some_and(holds)) {
            summary.toggle(self.config.originator, *ansn);
        }
        summary
    }

    /// The summary for a HELLO that is sent now, if one is wanted.
    pub(crate) fn summary_tlv(&mut self, now: Instant, interface: u32) -> Option<Tlv> {
        if !self.tells_twice() {
            return None;
        }
        let (summary, known) = (self.summary(now), self.topology.count());
        let links = self.nhdp.interface(interface)?.links();
        let mut asked = links.filter_map(|(_, l)| l.ext.differing.as_ref()).filter(|d| now < d.at + ASKED);
        let differs = asked.any(|d| summary.differences(&d.told) != Some(0));
        let telling = &mut self.ports.get_mut(&interface)?.telling;
        if telling.last.as_ref() != Some(&summary) {
            telling.left = TOLD;
        }
        telling.left = telling.left.max(u8::from(differs));
        telling.left = telling.left.checked_sub(1)?;
        let value = summary.value(known);
        telling.last = Some(summary);
        Some(Tlv::new(SUMMARY, &value))
    }

    /// Looks at a neighbour's summary.
    pub(crate) fn compare(&mut self, now: Instant, interface: u32, id: LinkId, hello: &Hello) {
        if !self.tells_twice() {
            return;
        }
        let Ok(Some(told)) = hello.message_tlv(SUMMARY) else { return };
        let Some(differs) = self.summary(now).differences(told) else { return };
        let Some(link) = self.nhdp.link_mut(interface, id).filter(|l| l.status() == LinkStatus::Symmetric)
        else {
            return;
        };
        let before = link.ext.differing.take().map_or(0, |d| d.now);
        if differs == 0 {
            return;
        }
        let lasting = before & differs;
        let told = told.into();
        link.ext.differing = Some(Box::new(Differing { told, at: now, now: differs, lasting }));
        if lasting != 0 {
            self.plan_mending(now, interface, lasting);
        }
    }

    fn plan_mending(&mut self, now: Instant, interface: u32, lasting: u64) {
        let Some(i) = self.nhdp.interface(interface) else { return };
        let links = i.links().filter(|(_, l)| l.status() == LinkStatus::Symmetric);
        let (mut like, mut unlike) = (0, 0);
        for (_, link) in links {
            match link.ext.differing.as_ref().is_some_and(|d| d.now & lasting != 0) {
                true => unlike += 1,
                false => like += 1,
            }
        }
        let defer = if unlike > like { DEFER } else { Duration::ZERO };
        let at = now + self.jitter(SPREAD) + defer;
        if let Some(port) = self.ports.get_mut(&interface) {
            port.telling.mend_at = Some(port.telling.mend_at.map_or(at, |due| due.min(at)));
        }
    }

    /// Repeats what neighbours seem to have missed, where it is time.
    pub(crate) fn mend(&mut self, now: Instant) {
        let due = |p: &crate::router::Port| p.telling.mend_at.is_some_and(|at| at <= now);
        let due: Vec<u32> = self.ports.iter().filter(|(_, p)| due(p)).map(|(index, _)| *index).collect();
        for interface in due {
            self.mend_on(now, interface);
        }
    }

    fn mend_on(&mut self, now: Instant, interface: u32) {
        let summary = self.summary(now);
        let Some((port, i)) = self.ports.get_mut(&interface).zip(self.nhdp.interface(interface)) else {
            return;
        };
        port.telling.mend_at = None;
        let differing = i.links().filter_map(|(_, l)| l.ext.differing.as_ref());
        let mask = differing.fold(0, |mask, d| mask | d.lasting & summary.differences(&d.told).unwrap_or(0));
        if mask == 0 {
            return;
        }
        let (own, limit) = (self.config.originator, self.config.limits.forward_queue);
        let fresh = self.config.timing.message_hold.divided_by(2);
        let mut messages = self.topology.missed_in(now, port.slot, mask, fresh, MOST);
        self.counters.relayed += messages.len() as u64;
        if let Some((_, bytes)) = self.tc.told.as_ref().filter(|_| is_among(mask, own)) {
            let pause = PAUSE.times(1 << self.tc.mended.min(PAUSES));
            if self.tc.last.max(self.tc.mended_at).is_some_and(|at| at + pause <= now && now < at + fresh) {
                self.tc.mended = self.tc.mended.saturating_add(1);
                self.tc.mended_at = Some(now);
                messages.push(bytes.clone());
            }
        }
        for bytes in messages {
            if !port.push(bytes, Due::News(now), limit, Some(own)) {
                self.counters.queue_full += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u16) -> IpAddr {
        IpAddr::from([0xfd00, 1, n, n, 0, 0, 0, 1])
    }

    #[test]
    fn summaries_of_any_size_can_be_compared_and_tell_the_bucket() {
        let mut here = Summary::NOTHING;
        (0..1000).for_each(|n| here.toggle(ip(n), n));
        let mut there = here.clone();
        for (known, octets) in [(0, 32), (50, 32), (256, 32), (257, 64), (513, 128), (9999, 128)] {
            assert_eq!(here.value(known).len(), octets);
            assert_eq!(there.differences(&here.value(known)), Some(0));
        }
        for n in [3, 77] {
            there.toggle(ip(n), n);
            there.toggle(ip(n), n + 1);
        }
        for known in [50, 300, 9999] {
            let mask = there.differences(&here.value(known)).unwrap();
            assert!(is_among(mask, ip(3)) && is_among(mask, ip(77)));
            assert!(mask.count_ones() <= 8, "{mask:x}");
            assert_eq!(here.differences(&there.value(known)), Some(mask));
        }
        for bad in [0, 1, 16, 31, 33, 48, 256] {
            assert_eq!(here.differences(&alloc::vec![0; bad]), None, "{bad} octets");
        }
    }

    #[test]
    fn originators_fall_into_all_buckets() {
        let mut counts = [0; BUCKETS];
        (0..6400).for_each(|n| counts[bucket(ip(n))] += 1);
        assert!(counts.iter().all(|n| (40..200).contains(n)), "{counts:?}");
    }
}

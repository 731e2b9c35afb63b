//! What other responders said on the links, for as long as they said (RFC 6762 §10).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use mesh_types::{Duration, Instant};

use crate::wire::{CLASS_IN, Name, Record, ends_with, is_local, rtype};

/// At most this many records are kept; then the one that expires first makes room.
pub const MAX_CACHED: usize = 1024;
/// At most this many records of one name and type.
const MAX_PER_SET: usize = 32;
/// No lifetime is believed beyond this, in seconds.
const TTL_CEILING: u32 = 4500;

/// A record and its times.
#[derive(Clone, Debug)]
pub(crate) struct Cached {
    pub(crate) record: Record,
    pub(crate) heard: Instant,
    pub(crate) expires: Instant,
}

/// Name, type, interface.
type Key = (Name, u16, u32);

/// Records heard.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    sets: BTreeMap<Key, Vec<Cached>>,
    count: usize,
    /// The names about which something was learnt since [`Cache::take_changed`].
    changed: Vec<Name>,
}

/// Whether a record is of use here: addresses, what does not exist, and reverse mappings.
fn wanted(r: &Record) -> bool {
    let reverse = || ends_with(&r.name, &[b"arpa"]);
    r.class == CLASS_IN
        && match r.rtype {
            rtype::A | rtype::AAAA => is_local(&r.name),
            rtype::PTR => reverse(),
            rtype::NSEC => is_local(&r.name) || reverse(),
            _ => false,
        }
}

impl Cache {
    /// Takes the records of one response. Never those of a query (RFC 6762 §7.1).
    pub(crate) fn learn<'a>(
        &mut self,
        now: Instant,
        interface: u32,
        records: impl Iterator<Item = &'a Record> + Clone,
    ) {
        let second = Duration::from_secs(1);
        for r in records.clone().filter(|r| wanted(r)) {
            if self.changed.last() != Some(&r.name) && self.changed.len() < MAX_CACHED {
                self.changed.push(r.name.clone());
            }
        }
        for r in records.clone().filter(|r| wanted(r) && r.flush && r.ttl > 0) {
            // Older ones of that set are no longer true, in a second (§10.2).
            let Some(set) = self.sets.get_mut(&(r.name.clone(), r.rtype, interface)) else { continue };
            for c in set.iter_mut().filter(|c| now.saturating_since(c.heard) > second) {
                c.expires = c.expires.min(now + second);
            }
        }
        for r in records.filter(|r| wanted(r)) {
            let key = (r.name.clone(), r.rtype, interface);
            let known =
                self.sets.get_mut(&key).and_then(|s| s.iter_mut().find(|c| c.record.rdata == r.rdata));
            if r.ttl == 0 {
                // A goodbye leaves others a second to object (§10.1).
                if let Some(c) = known {
                    c.expires = c.expires.min(now + second);
                }
                continue;
            }
            let expires = now + Duration::from_secs(r.ttl.min(TTL_CEILING).into());
            let fresh = Cached { record: r.clone(), heard: now, expires };
            if let Some(c) = known {
                *c = fresh;
                continue;
            }
            if self.count >= MAX_CACHED {
                self.evict();
            }
            let set = self.sets.entry(key).or_default();
            if set.len() < MAX_PER_SET {
                set.push(fresh);
                self.count += 1;
            }
        }
    }

    fn evict(&mut self) {
        let oldest = |s: &Vec<Cached>| s.iter().map(|c| c.expires).min();
        let Some(key) = self.sets.iter().min_by_key(|(_, s)| oldest(s)).map(|(k, _)| k.clone()) else {
            return;
        };
        if let Some(set) = self.sets.get_mut(&key)
            && let Some(at) = (0..set.len()).min_by_key(|i| set.get(*i).map(|c| c.expires))
        {
            set.swap_remove(at);
            self.count = self.count.saturating_sub(1);
        }
        self.drop_empty();
    }

    fn drop_empty(&mut self) {
        self.sets.retain(|_, s| !s.is_empty());
        self.count = self.sets.values().map(Vec::len).sum();
    }

    /// Forgets what has expired.
    pub(crate) fn expire(&mut self, now: Instant) {
        for set in self.sets.values_mut() {
            set.retain(|c| c.expires > now);
        }
        self.drop_empty();
    }

    /// Forgets what was heard on an interface that is gone.
    pub(crate) fn forget_interface(&mut self, interface: u32) {
        self.sets.retain(|(_, _, i), _| *i != interface);
        self.drop_empty();
    }

    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.sets.values().flatten().map(|c| c.expires).min()
    }

    /// The live records of that name and type, on any interface.
    pub(crate) fn get(&self, now: Instant, name: &Name, rtype: u16) -> Vec<&Cached> {
        let sets = self.sets.range((name.clone(), rtype, 0)..=(name.clone(), rtype, u32::MAX));
        sets.flat_map(|(_, s)| s).filter(|c| c.expires > now).collect()
    }

    /// Whether the owner of the name said that it has no record of that type (RFC 6762 §6.1).
    pub(crate) fn denies(&self, now: Instant, name: &Name, rtype: u16) -> bool {
        let nsec = self.get(now, name, rtype::NSEC);
        !nsec.is_empty() && nsec.iter().all(|c| c.record.nsec_has(rtype) == Some(false))
    }

    /// All live addresses.
    pub(crate) fn addresses(&self, now: Instant) -> impl Iterator<Item = &Cached> {
        let live = move |c: &&Cached| c.expires > now;
        self.sets.values().flatten().filter(live).filter(|c| matches!(c.record.rtype, rtype::A | rtype::AAAA))
    }

    /// The names about which something was learnt since the last call.
    pub(crate) fn take_changed(&mut self) -> Vec<Name> {
        core::mem::take(&mut self.changed)
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::local_name;
    use core::net::IpAddr;

    fn a(name: &str, last: u8, ttl: u32, flush: bool) -> Record {
        let mut r = Record::address(local_name(name).unwrap(), ttl, IpAddr::from([10, 0, 0, last]));
        r.flush = flush;
        r
    }
    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }
    fn known(c: &Cache, ms: u64, name: &str) -> usize {
        c.get(at(ms), &local_name(name).unwrap(), rtype::A).len()
    }

    #[test]
    fn rfc6762_10_2_cache_flush_drops_older_records_after_a_second() {
        let mut c = Cache::default();
        c.learn(at(0), 1, [a("x", 1, 120, false)].iter());
        c.learn(at(5000), 1, [a("x", 2, 120, true)].iter());
        assert_eq!(known(&c, 5999, "x"), 2);
        assert_eq!(known(&c, 6000, "x"), 1);
        // On another interface it stays.
        c.learn(at(7000), 2, [a("x", 3, 120, true)].iter());
        assert_eq!(known(&c, 9000, "x"), 2);
    }

    #[test]
    fn rfc6762_10_2_a_burst_within_a_second_is_one_set() {
        let mut c = Cache::default();
        c.learn(at(0), 1, [a("x", 1, 120, true)].iter());
        c.learn(at(300), 1, [a("x", 2, 120, true)].iter());
        assert_eq!(known(&c, 3000, "x"), 2);
    }

    #[test]
    fn rfc6762_10_1_goodbye_leaves_one_second() {
        let mut c = Cache::default();
        c.learn(at(0), 1, [a("x", 1, 120, true)].iter());
        c.learn(at(2000), 1, [a("x", 1, 0, true)].iter());
        assert_eq!((known(&c, 2999, "x"), known(&c, 3000, "x")), (1, 0));
        c.expire(at(3000));
        assert_eq!(c.len(), 0);
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut c = Cache::default();
        for i in 0..(MAX_CACHED as u32 + 50) {
            let name = alloc::format!("h{i}");
            c.learn(at(u64::from(i)), 1, [a(&name, 1, 120, true)].iter());
        }
        assert_eq!(c.len(), MAX_CACHED);
        assert_eq!(known(&c, 2000, "h0"), 0);
        for i in 0..100u8 {
            c.learn(at(5000), 1, [a("many", i, 120, false)].iter());
        }
        assert_eq!(known(&c, 5000, "many"), MAX_PER_SET);
    }

    #[test]
    fn only_names_of_links_are_kept() {
        let mut c = Cache::default();
        let mut r = a("x", 1, 120, true);
        r.name = crate::wire::name_from_labels([&b"example"[..], b"com"]).unwrap();
        c.learn(at(0), 1, [r].iter());
        assert_eq!(c.len(), 0);
    }
}

//! One-shot questions to the links, on behalf of unicast DNS clients and `meshctl resolve` (RFC 6762 §5.2).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use mesh_types::{Duration, Instant};

use crate::cache::Cache;
use crate::wire::{CLASS_IN, Header, MAX_PAYLOAD, Message, Name, Question, emit, rtype};

/// At most this many names are asked for at once.
pub const MAX_LOOKUPS: usize = 64;
/// At most this many clients wait for one name.
const MAX_WAITERS: usize = 16;
/// An answer that has not come by then does not come.
pub const DEADLINE: Duration = Duration::from_millis(1_500);
/// The second try (RFC 6762 §5.2: not before a second).
const RETRY: Duration = Duration::from_secs(1);
/// A second type is asked for only if the first one's answer did not bring it along.
const OTHER_TYPE: Duration = Duration::from_millis(30);
/// Once a name is known to exist, a type that has not come by then is taken not to.
const GRACE: Duration = Duration::from_millis(250);

/// A name that nobody answered to is denied at once for so long: libc asks for each family in turn.
const DENIED: Duration = Duration::from_secs(2);

/// How a lookup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The cache has it.
    Found,
    /// The name exists, but has no record of that type.
    NoData,
    /// Nobody answers to it.
    NoName,
}

#[derive(Debug)]
struct Waiter<W> {
    types: Vec<u16>,
    who: W,
}

#[derive(Debug)]
struct Asked {
    rtype: u16,
    next: Instant,
}

#[derive(Debug)]
struct Lookup<W> {
    name: Name,
    started: Instant,
    asked: Vec<Asked>,
    waiters: Vec<Waiter<W>>,
    /// Since when any record of the name is known.
    exists: Option<Instant>,
}

/// The names that are being asked for.
#[derive(Debug)]
pub(crate) struct Lookups<W> {
    list: Vec<Lookup<W>>,
    denied: VecDeque<(Name, Instant)>,
}

impl<W> Default for Lookups<W> {
    fn default() -> Self {
        Self { list: Vec::new(), denied: VecDeque::new() }
    }
}

impl<W> Lookup<W> {
    fn next_timeout(&self) -> Instant {
        let asked = self.asked.iter().map(|a| a.next).min().unwrap_or(Instant::FAR_FUTURE);
        let grace = self.exists.map_or(Instant::FAR_FUTURE, |at| at + GRACE);
        asked.min(grace).min(self.started + DEADLINE)
    }
}

/// What the cache says about one type.
pub(crate) fn known(cache: &Cache, now: Instant, name: &Name, rtype: u16) -> Option<Outcome> {
    if !cache.get(now, name, rtype).is_empty() {
        Some(Outcome::Found)
    } else if cache.denies(now, name, rtype) {
        Some(Outcome::NoData)
    } else {
        None
    }
}

/// Of several types asked together, one is enough to have found the name, and all are needed to say no.
fn together(cache: &Cache, now: Instant, name: &Name, types: &[u16]) -> Option<Outcome> {
    let each: Option<Vec<_>> = types.iter().map(|t| known(cache, now, name, *t)).collect();
    each.map(|all| if all.contains(&Outcome::Found) { Outcome::Found } else { Outcome::NoData })
}

impl<W> Lookups<W> {
    /// Asks for `types` of `name`; `Err` gives `who` back if too many are waiting.
    pub(crate) fn ask(&mut self, now: Instant, name: &Name, types: &[u16], who: W) -> Result<(), W> {
        let waiter = Waiter { types: types.to_vec(), who };
        if self.list.iter().all(|l| l.name != *name) {
            if self.list.len() >= MAX_LOOKUPS {
                return Err(waiter.who);
            }
            self.list.push(Lookup {
                name: name.clone(),
                started: now,
                asked: Vec::new(),
                waiters: Vec::new(),
                exists: None,
            });
        }
        let Some(lookup) = self.list.iter_mut().find(|l| l.name == *name) else { return Err(waiter.who) };
        if lookup.waiters.len() >= MAX_WAITERS {
            return Err(waiter.who);
        }
        for rtype in types {
            if lookup.asked.iter().all(|a| a.rtype != *rtype) {
                let next = if lookup.asked.is_empty() { now } else { (lookup.started + OTHER_TYPE).max(now) };
                lookup.asked.push(Asked { rtype: *rtype, next });
            }
        }
        lookup.waiters.push(waiter);
        Ok(())
    }

    /// The clients that have waited long enough, with what became of it. `learnt`: the names about which the
    /// cache has news.
    pub(crate) fn finish(&mut self, now: Instant, cache: &Cache, learnt: &[Name]) -> Vec<(W, Name, Outcome)> {
        let mut done = Vec::new();
        for lookup in &mut self.list {
            if lookup.next_timeout() > now && !learnt.contains(&lookup.name) {
                continue;
            }
            let is_known = |t: &u16| !cache.get(now, &lookup.name, *t).is_empty();
            let exists = [rtype::A, rtype::AAAA, rtype::PTR, rtype::NSEC].iter().any(is_known);
            if exists && lookup.exists.is_none() {
                lookup.exists = Some(now);
            }
            let late = now >= lookup.started + DEADLINE;
            let graced = lookup.exists.is_some_and(|at| now >= at + GRACE);
            let mut i = 0;
            while let Some(w) = lookup.waiters.get(i) {
                let any = w.types.iter().any(|t| known(cache, now, &lookup.name, *t) == Some(Outcome::Found));
                let outcome = together(cache, now, &lookup.name, &w.types).or(match (late || graced, any) {
                    (true, true) => Some(Outcome::Found),
                    (true, false) if exists => Some(Outcome::NoData),
                    (true, false) => Some(Outcome::NoName),
                    (false, _) => None,
                });
                match outcome {
                    Some(outcome) => {
                        done.push((lookup.waiters.swap_remove(i).who, lookup.name.clone(), outcome));
                    }
                    None => i += 1,
                }
            }
        }
        self.list.retain(|l| !l.waiters.is_empty());
        for (_, name, _) in done.iter().filter(|(.., outcome)| *outcome == Outcome::NoName) {
            self.denied.push_back((name.clone(), now + DENIED));
            if self.denied.len() > MAX_LOOKUPS {
                self.denied.pop_front();
            }
        }
        done
    }

    /// Whether nobody answered to the name just now.
    pub(crate) fn denied(&self, now: Instant, name: &Name) -> bool {
        self.denied.iter().any(|(n, until)| *until > now && n == name)
    }

    /// The questions to multicast on every link now.
    pub(crate) fn queries(&mut self, now: Instant, cache: &Cache) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for lookup in &mut self.list {
            let (name, deadline) = (&lookup.name, lookup.started + DEADLINE);
            for asked in lookup.asked.iter_mut().filter(|a| a.next <= now) {
                asked.next = now + RETRY;
                if asked.next >= deadline {
                    asked.next = Instant::FAR_FUTURE;
                }
                if known(cache, now, name, asked.rtype).is_some() {
                    continue;
                }
                let question =
                    Question { name: name.clone(), rtype: asked.rtype, class: CLASS_IN, unicast: false };
                let message = Message {
                    header: Header::default(),
                    questions: Vec::from([question]),
                    ..Default::default()
                };
                out.push(emit(&message, MAX_PAYLOAD, false).bytes);
            }
        }
        out
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.list.iter().map(Lookup::next_timeout).min()
    }
}

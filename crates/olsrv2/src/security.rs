//! Where integrity checks meet the router (RFC 7183 §4): on what goes out, and on what comes in before it is
//! processed or forwarded. Without keys nothing is added and nothing is asked for.

use alloc::collections::BTreeSet;
use core::net::IpAddr;

use mesh_types::Instant;
use nhdp::{HELLO, LinkStatus, Nhdp};
use rfc5444::{Message, MessageView};

use crate::ext::Olsr;
use crate::icv::{self, Cover, Refusal};
use crate::receive::alive;
use crate::replay::{Replays, Standing};
use crate::router::Router;
use crate::topology::Brought;
use crate::{Config, Counters, Key, RECORD_MESSAGE};

/// Keys for a change of keys: the new one and the old.
const MAX_KEYS: usize = 2;

/// The keys, our own counter and those of others.
#[derive(Debug)]
pub(crate) struct Security {
    keys: alloc::vec::Vec<Key>,
    /// Of the last message signed.
    counter: u64,
    seen: Replays,
}

impl Security {
    pub(crate) fn new(config: &Config) -> Self {
        let limits = config.limits;
        let seen =
            Replays::new(config.timing.message_hold, limits.routers, limits.interfaces * limits.links * 2);
        let mut security = Self { keys: alloc::vec::Vec::new(), counter: config.counter, seen };
        security.set_keys(&config.keys);
        security
    }

    pub(crate) fn set_keys(&mut self, keys: &[Key]) {
        self.keys.clear();
        for key in keys {
            if !self.keys.contains(key) && self.keys.len() < MAX_KEYS {
                self.keys.push(key.clone());
            }
        }
    }

    /// A message of ours with timestamp and ICVs, if there are keys.
    pub(crate) fn sealed(&mut self, message: &Message, cover: Cover) -> Option<Message> {
        if self.keys.is_empty() {
            return None;
        }
        self.counter = self.counter.saturating_add(1);
        let mut sealed = message.clone();
        icv::sign(&self.keys, &mut sealed, self.counter, cover);
        Some(sealed)
    }
}

impl Router {
    /// What the ICV of a message of ours covers: one that goes out on a single interface goes one hop.
    pub(crate) fn cover(&self, interface: Option<u32>) -> Cover {
        let Some(interface) = interface else { return Cover::Message };
        let first = self.nhdp.interface(interface).and_then(|i| i.addresses.first());
        Cover::Link(first.map_or(self.config.originator, |a| a.ip()))
    }

    pub(crate) fn has_keys(&self) -> bool {
        !self.security.keys.is_empty()
    }

    /// Whether a HELLO may be processed.
    pub(crate) fn admits_hello(
        &mut self,
        now: Instant,
        interface: u32,
        source: IpAddr,
        message: &MessageView<'_>,
    ) -> bool {
        debug_assert_eq!(message.header().kind(), HELLO);
        let Security { keys, seen, .. } = &mut self.security;
        if keys.is_empty() {
            return true;
        }
        let standing = Standing { alive: &alive(&self.nhdp), near: &|| near(&self.nhdp) };
        let originator = message.header().originator().and_then(|a| a.net_addr()).map(|a| a.ip());
        let admitted = icv::verify(keys, message, Cover::Link(source))
            .and_then(|counter| seen.hello(now, (interface, source), originator, &standing, counter));
        admitted.map_err(|refusal| self.counters.refused(refusal)).is_ok()
    }

    /// Whether a TC or record that the neighbour `by` sent may be processed, and whether also forwarded; `None`:
    /// neither.
    pub(crate) fn admits_flooded(
        &mut self,
        now: Instant,
        interface: u32,
        (source, by): (IpAddr, IpAddr),
        message: &MessageView<'_>,
        originator: IpAddr,
    ) -> Option<bool> {
        let Security { keys, seen, .. } = &mut self.security;
        if keys.is_empty() {
            return Some(true);
        }
        // A record that a neighbour repeats is signed by the neighbour, for this link only.
        let one_hop = message.header().kind() == RECORD_MESSAGE && icv::is_for_one_hop(message);
        let admitted = if one_hop {
            icv::verify(keys, message, Cover::Link(source))
                .and_then(|counter| seen.repeated((interface, source), counter))
        } else {
            let alive = alive(&self.nhdp);
            icv::verify(keys, message, Cover::Message)
                .and_then(|counter| seen.flooded(now, originator, &Brought { by, alive: &alive }, counter))
        };
        admitted.map_err(|refusal| self.counters.refused(refusal)).ok().map(|()| !one_hop)
    }
}

impl Router {
    /// Whether a message that bears our name may be somebody else's: one with a number that we have come to is
    /// one of our own, played again.
    pub(crate) fn admits_own(&mut self, message: &MessageView<'_>) -> bool {
        if self.security.keys.is_empty() {
            return true;
        }
        match icv::verify(&self.security.keys, message, Cover::Message) {
            // Not counted when it is old: neighbours forward what is ours all the time.
            Ok(counter) => counter > self.security.counter,
            Err(refusal) => {
                self.counters.refused(refusal);
                false
            }
        }
    }

    /// The number of the last message signed ([`Config::counter`]), for another router of the same node.
    pub fn counter(&self) -> u64 {
        self.security.counter
    }
}

/// Addresses of symmetric neighbours on our interfaces.
fn near(nhdp: &Nhdp<Olsr>) -> BTreeSet<(u32, IpAddr)> {
    let links = nhdp.interfaces().flat_map(|(index, i)| i.links().map(move |(_, l)| (index, l)));
    let symmetric = links.filter(|(_, l)| l.status() == LinkStatus::Symmetric);
    symmetric.flat_map(|(index, l)| l.addresses.iter().map(move |a| (index, a.ip()))).collect()
}

impl Counters {
    fn refused(&mut self, refusal: Refusal) {
        let counter = match refusal {
            Refusal::NoIcv => &mut self.icv_missing,
            Refusal::UnknownKey => &mut self.icv_unknown_key,
            Refusal::WrongIcv => &mut self.icv_wrong,
            Refusal::NoTimestamp => &mut self.timestamp_missing,
            Refusal::Replayed => &mut self.replayed,
            Refusal::Full => &mut self.table_full,
        };
        *counter += 1;
    }
}

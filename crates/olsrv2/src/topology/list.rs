//! One router's tuples while its TC is read.

use alloc::vec::Vec;

use rfc5444::NetAddr;

use super::{NETWORK, Timed, Tuple, What, find};
use crate::names::{Name, Names};
use crate::tick::Tick;

/// A router's tuples while its TC is read.
pub(super) struct List<'a> {
    pub(super) tuples: Vec<Timed>,
    /// The list takes no more than that.
    pub(super) most: usize,
    /// What became of which name.
    pub(super) told: Vec<(Name, What)>,
    /// Something found no room.
    pub(super) full: bool,
    pub(super) expires: Tick,
    pub(super) names: &'a mut Names,
}

/// Up to here looking at each is faster than searching.
const FEW: usize = 16;

impl List<'_> {
    /// Where the address' tuple is, if it has one. `kind`: [`NETWORK`] or zero.
    fn position(&self, address: NetAddr, kind: u32) -> Option<usize> {
        if self.tuples.len() <= FEW {
            let fits = |t: &Tuple| t.key & NETWORK == kind && self.names.is(t.name(), address);
            return self.tuples.iter().position(|t| fits(&t.tuple));
        }
        find(&self.tuples, self.names.find(address)? | kind).ok()
    }

    /// Marks all tuples, with a time that none can have.
    pub(super) fn doubt_all(&mut self) {
        self.tuples.iter_mut().for_each(|t| t.expires = self.expires.opposite());
    }

    /// What was not put since [`List::doubt_all`] goes.
    pub(super) fn drop_doubtful(&mut self) {
        let doubtful = self.expires.opposite();
        self.tuples.retain(|t| {
            let good = t.expires != doubtful;
            if !good {
                self.names.release(t.tuple.name());
                self.told.push((t.tuple.name(), What::Gone));
            }
            good
        });
    }

    /// Puts a value in, or takes out what is there.
    pub(super) fn put(&mut self, address: NetAddr, kind: u32, value: Option<u32>) {
        match (self.position(address, kind), value) {
            (Some(at), Some(value)) => {
                let Some(Timed { tuple, expires }) = self.tuples.get_mut(at) else { return };
                *expires = self.expires;
                if core::mem::replace(&mut tuple.value, value) != value {
                    self.told.push((tuple.name(), What::Changed));
                }
            }
            (None, Some(_)) if self.tuples.len() >= self.most => self.full = true,
            (None, Some(value)) => {
                let name = self.names.hold(address);
                let key = name | kind;
                let at = find(&self.tuples, key).unwrap_or_else(|at| at);
                self.tuples.insert(at, Timed { tuple: Tuple { key, value }, expires: self.expires });
                self.told.push((name, What::New));
            }
            (Some(at), None) => {
                let name = self.tuples.remove(at).tuple.name();
                self.names.release(name);
                self.told.push((name, What::Gone));
            }
            (None, None) => {}
        }
    }
}

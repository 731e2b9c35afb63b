//! HELLOs that say again what they said ([`nhdp::Again`]): at rest nearly all. They are known by their octets, and
//! neither read nor compared with the tables.

use alloc::boxed::Box;
use core::net::IpAddr;

use mesh_types::Instant;
use nhdp::{Again, Hello, LinkId};
use rfc5444::RawMessage;

use crate::router::Router;
use crate::summary::SUMMARY;

/// HELLOs remembered for each link: the one that names all neighbours and the one that names nobody.
const MOST: usize = 2;
/// Longer ones are read each time: neighbours may be many.
const LONGEST: usize = 512;

/// A HELLO and what it did.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    bytes: Box<[u8]>,
    source: IpAddr,
    /// [`Router::round`] when it came.
    round: u64,
    again: Again,
}

impl Said {
    /// Whether it is that message, and where it came from.
    pub(crate) fn source_of(&self, raw: &RawMessage<'_>) -> Option<IpAddr> {
        (*self.bytes == *raw.bytes()).then_some(self.source)
    }
}

impl Router {
    /// Nothing is to be drawn from the tables yet.
    pub(crate) fn is_settled(&self) -> bool {
        !self.neighborhood_dirty && !self.nhdp.is_changed()
    }

    /// Processes a HELLO that was processed before, if nothing but times can change; `false`: it must be processed as
    /// any other. With keys no HELLO comes twice.
    pub(crate) fn hello_again(
        &mut self,
        now: Instant,
        interface: u32,
        source: IpAddr,
        raw: &RawMessage<'_>,
    ) -> bool {
        let Some((id, link)) = self.nhdp.link_to(interface, source) else { return false };
        let same = |s: &&Said| s.round == self.round && s.source_of(raw) == Some(source);
        let Some(again) = link.ext.said.iter().find(same).map(|s| s.again) else { return false };
        let done = !self.has_keys()
            && self.is_settled()
            && self.nhdp.process_again(now, interface, id, source, again);
        if done {
            self.counters.hellos_in += 1;
            self.note_hello(now, interface, id);
        }
        done
    }

    /// A HELLO was processed.
    pub(crate) fn remember_hello(
        &mut self,
        now: Instant,
        (interface, id): (u32, LinkId),
        source: IpAddr,
        raw: &RawMessage<'_>,
        hello: &Hello,
    ) {
        let bytes = raw.bytes();
        let summary = hello.tlvs.iter().any(|t| t.kind == SUMMARY);
        if bytes.len() > LONGEST || summary || self.has_keys() || !self.is_settled() {
            return;
        }
        let Some(again) = self.nhdp.would_do_again(now, interface, id, source, hello) else { return };
        let round = self.round;
        let Some(said) = self.nhdp.link_mut(interface, id).map(|l| &mut l.ext.said) else { return };
        said.retain(|s| s.round == round && *s.bytes != *bytes);
        if said.len() >= MOST {
            said.remove(0);
        }
        said.push(Said { bytes: bytes.into(), source, round, again });
    }
}

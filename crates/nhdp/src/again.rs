//! A HELLO that says again what it said: most HELLOs do.
//!
//! What a HELLO does to the tables follows from its octets and from what stands there. If it changed nothing but times
//! when it was processed, and nothing but times has changed since, it changes nothing but times again.

use core::net::IpAddr;

use mesh_types::{Duration, Instant};

use crate::core::Nhdp;
use crate::hello::{Hello, Status};
use crate::tables::{Extension, Link, LinkId, LinkStatus};

/// The times that a HELLO puts off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    validity: Duration,
    interval: Duration,
    /// L_SYM_time, too: it calls us symmetric.
    names_us: bool,
    /// N2_time of all 2-Hop Tuples of the link, too; else of none.
    names_two_hops: bool,
}

impl<X: Extension> Nhdp<X> {
    /// Whether links, neighbours or 2-hop neighbours changed since [`Nhdp::take_changed`].
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// What a HELLO that was processed just now, for that link, would do if it came again; `None`: more than putting off
    /// times.
    pub fn would_do_again(
        &self,
        now: Instant,
        interface: u32,
        id: LinkId,
        source: IpAddr,
        hello: &Hello,
    ) -> Option<Again> {
        let link = self.link(interface, id).filter(|l| !self.changed && l.is_settled(now, source))?;
        let own = &self.neighbor(link.neighbor?)?.addresses;
        let mut two_hops = 0;
        for entry in &hello.entries {
            let said = [entry.link_status, entry.other_neighb];
            if said.contains(&Some(Status::Lost)) {
                return None; // others are asked, and topology is told
            }
            let ours = own.contains(&entry.address) || self.is_exactly_ours(entry.address);
            two_hops += usize::from(entry.is_symmetric() && !ours);
        }
        let names_us = match self.word_on_us(interface, hello) {
            Some(Status::Symmetric) => true,
            None if !hello.is_complete() => false,
            _ => return None, // it is asked to look again
        };
        if two_hops > 0 && two_hops != link.two_hops.len() {
            return None;
        }
        let interval = hello.interval.unwrap_or(hello.validity);
        Some(Again { validity: hello.validity, interval, names_us, names_two_hops: two_hops > 0 })
    }

    /// That HELLO came again from `source`, and nothing changed since but times. `false`: something did, and it has to be
    /// processed as any other.
    pub fn process_again(
        &mut self,
        now: Instant,
        interface: u32,
        id: LinkId,
        source: IpAddr,
        again: Again,
    ) -> bool {
        self.handle_timeout(now);
        let hold = self.config.lost_hold;
        let Again { validity, interval, names_us, names_two_hops } = again;
        let until = now + validity;
        if self.changed {
            return false;
        }
        let Some(link) = self.link_mut(interface, id).filter(|l| l.is_settled(now, source)) else {
            return false;
        };
        if names_us {
            link.called_symmetric = true;
            link.symmetric_until = until;
        }
        link.heard_until = until.max(link.symmetric_until);
        link.expires = link.expires.max(link.heard_until + hold);
        if names_two_hops {
            link.two_hops.values_mut().for_each(|t| t.expires = until);
        }
        let next = link.expires.min(link.symmetric_until).min(until);
        self.next_expiry = self.next_expiry.min(next);
        self.hello_from(now, interface, id, interval);
        true
    }
}

impl<X: Extension> Link<X> {
    /// Symmetric, and `source` is the address that packets to it go to.
    fn is_settled(&self, now: Instant, source: IpAddr) -> bool {
        let symmetric = LinkStatus::Symmetric;
        self.settled == symmetric
            && self.status_at(now) == symmetric
            && self.addresses.first().is_some_and(|a| a.ip() == source)
    }
}

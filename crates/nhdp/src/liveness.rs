//! Whether a silent neighbour is gone, or only its HELLOs are lost.
//!
//! HELLOs are multicast: a radio sends them once, at its lowest rate, and nobody acknowledges them. A
//! neighbour that was not heard in time is therefore only *suspect*. A probe (unicast, which radios repeat
//! until it is acknowledged) decides: if it is answered, the link is kept without HELLOs for a while; if not,
//! its quality is zero, so L_lost is set (RFC 6130 §14.3). Without a verdict the times of RFC 6130 hold.

use core::net::IpAddr;

use mesh_types::{Duration, Instant};

use crate::core::{Event, Nhdp};
use crate::tables::{Extension, Link, LinkId, LinkStatus};

/// A neighbour that claims to send HELLOs more often than this does not make us look more often.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// How suspects are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// How long a verdict on a probe is waited for. Zero: nobody is ever suspected.
    pub probe_timeout: Duration,
    /// How long answered probes can keep a link from which nothing comes. Not less than H_HOLD_TIME.
    pub silence_hold: Duration,
}

impl Liveness {
    /// Only HELLOs count, as in RFC 6130.
    pub const OFF: Self = Self { probe_timeout: Duration::ZERO, silence_hold: Duration::ZERO };
}

/// What is known of a link's neighbour besides its HELLOs' content; the names in capitals are RFC 7779's.
#[derive(Clone, Debug)]
pub struct Signs {
    /// L_DAT_hello_interval: the neighbour's HELLO interval, or its validity time if it tells none.
    pub hello_interval: Duration,
    /// L_DAT_packet_time: a packet has to come before this.
    pub(crate) packet_due: Instant,
    /// L_DAT_lost_packet_intervals: HELLO intervals without a packet, up to now.
    pub silent_intervals: u32,
    /// The same, counted since the link is there.
    pub silent_intervals_ever: u32,
    /// When the last packet came.
    pub last_packet: Instant,
    /// L_SYM_time ends soon, though other packets may come: the last time to probe.
    pub(crate) last_chance: Instant,
    /// A probe is out; its verdict is waited for until then.
    pub(crate) probing: Option<Instant>,
    /// The last probe was not answered.
    pub unreachable: bool,
}

impl Signs {
    pub(crate) const fn new() -> Self {
        Self {
            hello_interval: Duration::ZERO,
            packet_due: Instant::FAR_FUTURE,
            silent_intervals: 0,
            silent_intervals_ever: 0,
            last_packet: Instant::ZERO,
            last_chance: Instant::FAR_FUTURE,
            probing: None,
            unreachable: false,
        }
    }

    /// When something has to be looked at.
    pub(crate) fn next(&self) -> Instant {
        let due = self.packet_due.min(self.last_chance);
        self.probing.map_or(due, |until| until.min(due))
    }

    /// When it should be, if nothing else has to be done before. Of a neighbour at rest, whose HELLOs come less often
    /// than every `lively`, nobody needs to know to the second that it is silent.
    pub(crate) fn wanted(&self, lively: Duration) -> Instant {
        let slack = if self.hello_interval > lively { lively.divided_by(2) } else { Duration::ZERO };
        let due = (self.packet_due + slack).min(self.last_chance);
        self.probing.map_or(due, |until| until.min(due))
    }

    /// The neighbour was heard. DAT_HELLO_TIMEOUT_FACTOR is 1.1: HELLOs come early, never late (RFC 5148).
    fn heard(&mut self, now: Instant) {
        self.last_packet = now;
        self.silent_intervals = 0;
        if self.hello_interval > Duration::ZERO {
            self.packet_due = now + self.hello_interval.times(11).divided_by(10);
        }
        // Someone who did not answer still has to.
        if !self.unreachable {
            self.probing = None;
        }
    }

    /// L_DAT_packet_time has passed: counts the intervals since.
    fn missed(&mut self, now: Instant) {
        let step = self.hello_interval.max(SHORTEST_INTERVAL);
        let late = now.saturating_since(self.packet_due).as_micros() / step.as_micros();
        let intervals = late.saturating_add(1);
        self.packet_due += step.times(intervals);
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        self.silent_intervals = self.silent_intervals.saturating_add(intervals);
        self.silent_intervals_ever = self.silent_intervals_ever.wrapping_add(intervals);
    }
}

impl<X: Extension> Link<X> {
    /// It is in use, but the neighbour was not heard when it should have been.
    pub fn is_suspect(&self) -> bool {
        let in_doubt = self.signs.silent_intervals > 0 || self.signs.probing.is_some();
        self.settled == LinkStatus::Symmetric && in_doubt
    }
}

impl<X: Extension> Nhdp<X> {
    /// A packet came from `source`, whatever is in it (RFC 7779 §9.3 steps 4 and 5).
    pub fn packet_from(&mut self, now: Instant, interface: u32, source: IpAddr) {
        let Some((id, _)) = self.link_to(interface, source) else { return };
        self.link_mut(interface, id).into_iter().for_each(|link| link.signs.heard(now));
    }

    /// A HELLO came (RFC 7779 §9.4). Of a neighbour that did not answer it is no proof: it is probed again.
    pub(crate) fn hello_from(&mut self, now: Instant, interface: u32, id: LinkId, interval: Duration) {
        let Some(link) = self.link_mut(interface, id) else { return };
        link.signs.hello_interval = interval.max(SHORTEST_INTERVAL);
        link.signs.heard(now);
        self.plan_last_chance(now, interface, id);
        if self.link(interface, id).is_some_and(|l| l.signs.unreachable) {
            self.probe(now, interface, id);
        }
    }

    /// Looks at a link whose time has come (RFC 7779 §10.1).
    pub(crate) fn check_signs(&mut self, now: Instant, interface: u32, id: LinkId) {
        let Some(link) = self.link_mut(interface, id) else { return };
        if link.signs.probing.is_some_and(|until| until <= now) {
            // No verdict: what RFC 6130 says holds.
            link.signs.probing = None;
            link.signs.unreachable = false;
        }
        if link.signs.packet_due.min(link.signs.last_chance) > now {
            return;
        }
        if link.signs.last_chance <= now {
            link.signs.last_chance = Instant::FAR_FUTURE;
        }
        if link.signs.packet_due <= now {
            link.signs.missed(now);
        }
        if link.status_at(now) == LinkStatus::Symmetric {
            self.probe(now, interface, id);
        }
    }

    /// L_SYM_time was put off.
    fn plan_last_chance(&mut self, now: Instant, interface: u32, id: LinkId) {
        let timeout = self.config.liveness.probe_timeout;
        let Some(link) = self.link_mut(interface, id) else { return };
        let at = link.symmetric_until - timeout;
        link.signs.last_chance = if timeout > Duration::ZERO && at > now { at } else { Instant::FAR_FUTURE };
    }

    pub(crate) fn probe(&mut self, now: Instant, interface: u32, id: LinkId) {
        let timeout = self.config.liveness.probe_timeout;
        if timeout == Duration::ZERO {
            return;
        }
        let Some(link) = self.link_mut(interface, id).filter(|l| l.signs.probing.is_none()) else { return };
        let Some(address) = link.addresses.first().copied() else { return };
        link.signs.probing = Some(now + timeout);
        self.events.push_back(Event::Probe { interface, address });
    }

    /// The neighbour answered a probe: it is there, and both directions work.
    pub fn probe_answered(&mut self, now: Instant, interface: u32, address: IpAddr) {
        self.handle_timeout(now);
        let Some((id, _)) = self.link_to(interface, address) else { return };
        let config = self.config.liveness;
        let hold = self.config.lost_hold;
        let Some(link) = self.link_mut(interface, id) else { return };
        if link.signs.probing.take().is_none() {
            return;
        }
        link.signs.unreachable = false;
        if link.status_at(now) == LinkStatus::Symmetric {
            // Until the next probe had its time, and never for ever: a router may be dead on a live host.
            let next = link.signs.packet_due + config.probe_timeout.times(3);
            let until = next.min(link.signs.last_packet + config.silence_hold);
            link.symmetric_until = link.symmetric_until.max(until);
            link.heard_until = link.heard_until.max(link.symmetric_until);
            link.expires = link.expires.max(link.heard_until + hold);
            for two_hop in link.two_hops.values_mut() {
                two_hop.expires = two_hop.expires.max(until);
            }
        }
        self.plan_last_chance(now, interface, id);
        self.settle(now, interface, id);
    }

    /// The neighbour did not answer a probe: the link is lost now, whatever its times say. Without a probe
    /// (the kernel noticed by itself) one is asked for.
    pub fn probe_failed(&mut self, now: Instant, interface: u32, address: IpAddr) {
        self.handle_timeout(now);
        let Some((id, _)) = self.link_to(interface, address) else { return };
        let hold = self.config.lost_hold;
        let Some(link) = self.link_mut(interface, id) else { return };
        if link.signs.probing.take().is_none() {
            // Nobody asked: a suspicion, no verdict.
            if link.status_at(now) == LinkStatus::Symmetric {
                self.probe(now, interface, id);
            }
            return;
        }
        link.signs.unreachable = true;
        link.expires = link.expires.min(now + hold);
        let expires = link.expires;
        self.next_expiry = self.next_expiry.min(expires);
        self.settle(now, interface, id);
    }
}

//! A DHCP client on one interface (RFC 2131 §4.4), sans-IO: figure 5's states, but that the first offer is taken.
//!
//! An address that is new to it is probed for before it is used (RFC 5227 §2.1), in less time than that wants: three
//! probes in 0.6 s, not 7 s, because who has it answers within milliseconds, and a node that waits is one without the
//! Internet. One that somebody else has is declined.
//!
//! It never stops to ask: whoever turns a network on after this node gets asked within a minute. An address that
//! it had before the cable was pulled is asked for first (INIT-REBOOT); then a server that knows it answers at once.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddrV4};

use mesh_types::{Duration, Instant};

use super::arp::Arp;
use super::wire::{self, Answer, Ask, StaticRoute};
use super::{CLIENT_PORT, Kind, SERVER_PORT, WireError};
use crate::Mac;
use crate::random::Random;

/// A shorter lease is none: it would be renewed all the time.
pub const SHORTEST_LEASE: Duration = Duration::from_secs(10);
/// A longer lease is taken to be this long.
pub const LONGEST_LEASE: Duration = Duration::from_secs(86_400);

/// RFC 2131 §4.1: pauses double from the first to the longest, give or take a second.
const PAUSE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(64));
const JITTER: Duration = Duration::from_secs(1);
/// Nodes that are powered on together do not all ask in the same moment.
const START: Duration = Duration::from_millis(200);
/// How often an offer is asked for, and an address from before.
const TRIES: (u32, u32) = (4, 2);
/// How often an address is probed for, and how long an answer is waited for each time (RFC 5227 §1.1: PROBE_NUM, PROBE_MIN).
const PROBES: u32 = 3;
const PROBE_PAUSE: Duration = Duration::from_millis(200);
/// RFC 2131 §3.1.5: after an address was declined.
const DECLINED: Duration = Duration::from_secs(10);
/// RFC 2131 §4.4.5: between two requests for more time.
const RENEW_PAUSE: Duration = Duration::from_secs(60);

/// What the client is told once.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Of the interface.
    pub mac: Mac,
    /// For the lists of home routers; empty: not told.
    pub host_name: String,
}

/// What happened outside.
#[derive(Clone, Copy, Debug)]
pub enum ClientInput<'a> {
    /// The interface has carrier now, or has it no more.
    Carrier(bool),
    /// A datagram came to [`CLIENT_PORT`].
    Datagram(&'a [u8]),
    /// An ARP packet came.
    Arp(&'a [u8]),
    /// The address is given back, and nothing more asked for until there is carrier anew.
    Release,
}

/// What has to be done or known, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOutput {
    /// Send it from 0.0.0.0 to all, see [`super::wrap`].
    Broadcast(Vec<u8>),
    /// Send this ARP packet to all; from the first one on others' are of interest, until the address is bound, or another
    /// one is asked for.
    Arp(Vec<u8>),
    /// Send it from the address in use.
    Unicast {
        /// The address in use, port [`CLIENT_PORT`].
        from: SocketAddrV4,
        /// A server.
        to: SocketAddrV4,
        /// Its bytes.
        payload: Vec<u8>,
    },
    /// The address is this node's, newly or for longer.
    Bound(Lease),
    /// It is not any more.
    Lost(Lease, Loss),
}

/// An address, for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The node's.
    pub address: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix_len: u8,
    /// The way out.
    pub router: Option<Ipv4Addr>,
    /// Ways to parts of the world, sixteen at the most.
    pub routes: Vec<StaticRoute>,
    /// Name servers, three at the most.
    pub dns: Vec<Ipv4Addr>,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// When it ends, if it is not renewed.
    pub until: Instant,
}

/// Why an address is not this node's any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// No server renewed it.
    Expired,
    /// The server took it back.
    Refused,
    /// The interface has no carrier.
    Carrier,
    /// It was given back.
    Released,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounters {
    /// Messages sent.
    pub sent: u64,
    /// Messages that came for this client.
    pub received: u64,
    /// Ones that were not, or made no sense.
    pub dropped: u64,
    /// Addresses taken or renewed.
    pub acks: u64,
    /// Requests that were refused.
    pub naks: u64,
    /// Addresses that somebody else had.
    pub declined: u64,
}

/// RFC 2131 figure 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No carrier.
    Off,
    Selecting,
    Requesting {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
    Rebooting {
        address: Ipv4Addr,
    },
    /// Whether the address is another's.
    Probing,
    Bound,
    Renewing,
    Rebinding,
}

/// The client.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    state: State,
    xid: [u8; 4],
    /// When this exchange began.
    began: Instant,
    tries: u32,
    /// Refusals since the last address.
    refusals: u32,
    next: Option<Instant>,
    lease: Option<Lease>,
    /// Probed for.
    new: Option<Lease>,
    /// T1 and T2.
    renewals: (Instant, Instant),
    /// The last one.
    address: Option<Ipv4Addr>,
    random: Random,
    outputs: VecDeque<ClientOutput>,
    counters: ClientCounters,
}

impl Client {
    /// A client on an interface without carrier.
    pub fn new(config: ClientConfig, seed: u64) -> Self {
        Self {
            config,
            state: State::Off,
            xid: [0; 4],
            began: Instant::ZERO,
            tries: 0,
            refusals: 0,
            next: None,
            lease: None,
            new: None,
            renewals: (Instant::ZERO, Instant::ZERO),
            address: None,
            random: Random::new(seed),
            outputs: VecDeque::new(),
            counters: ClientCounters::default(),
        }
    }

    /// The address in use.
    pub const fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Counts since the start.
    pub const fn counters(&self) -> &ClientCounters {
        &self.counters
    }

    /// Takes one input.
    ///
    /// # Errors
    /// The datagram is not DHCP.
    pub fn handle_input(&mut self, now: Instant, input: ClientInput<'_>) -> Result<(), WireError> {
        match input {
            ClientInput::Carrier(true) if self.state == State::Off => {
                let state = self.address.map_or(State::Selecting, |address| State::Rebooting { address });
                let pause = self.random.below(START);
                self.begin(now, state, pause);
            }
            ClientInput::Carrier(true) => {}
            ClientInput::Carrier(false) => self.stop(Loss::Carrier),
            ClientInput::Release => {
                if let Some(lease) = &self.lease {
                    let (ciaddr, server) = (lease.address, lease.server);
                    self.began = now;
                    self.xid =
                        (self.random.word() >> 32).to_be_bytes().last_chunk().copied().unwrap_or_default();
                    let ask = Ask { server: Some(server), ..self.ask(now, Kind::Release, ciaddr) };
                    let payload = wire::request(&ask);
                    self.unicast(ciaddr, server, payload);
                }
                self.stop(Loss::Released);
                self.address = None;
            }
            ClientInput::Arp(bytes) => {
                let mac = self.config.mac;
                let conflict =
                    |l: &&mut Lease| Arp::parse(bytes).is_some_and(|a| a.conflicts(mac, l.address));
                if self.state == State::Probing
                    && let Some(lease) = self.new.as_mut().filter(conflict).map(|l| l.clone())
                {
                    self.decline(now, &lease);
                }
            }
            ClientInput::Datagram(bytes) => {
                let answer = Answer::parse(bytes).inspect_err(|_| self.counters.dropped += 1)?;
                if answer.xid == self.xid && answer.mac == self.config.mac {
                    self.counters.received += 1;
                    self.take(now, answer);
                } else {
                    self.counters.dropped += 1;
                }
            }
        }
        Ok(())
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next.is_none_or(|at| at > now) {
            return;
        }
        let until = self.lease.as_ref().map_or(Instant::ZERO, |l| l.until);
        let (_, rebind_at) = self.renewals;
        match self.state {
            State::Off => self.next = None,
            State::Probing if self.tries < PROBES => {
                self.tries += 1;
                self.next = Some(now + PROBE_PAUSE);
                self.arp(Ipv4Addr::UNSPECIFIED);
            }
            State::Probing => match self.new.take().filter(|l| l.until > now) {
                Some(lease) => {
                    self.arp(lease.address);
                    self.use_address(lease);
                }
                None => self.begin(now, State::Selecting, Duration::ZERO),
            },
            State::Requesting { .. } if self.tries >= TRIES.0 => {
                self.begin(now, State::Selecting, Duration::ZERO)
            }
            State::Rebooting { .. } if self.tries >= TRIES.1 => {
                self.begin(now, State::Selecting, Duration::ZERO)
            }
            State::Bound | State::Renewing | State::Rebinding if now >= until => {
                self.lose(now, Loss::Expired)
            }
            State::Bound | State::Renewing if now >= rebind_at => {
                self.begin(now, State::Rebinding, Duration::ZERO)
            }
            State::Bound => self.begin(now, State::Renewing, Duration::ZERO),
            _ => {
                self.send(now);
                self.tries = self.tries.saturating_add(1);
                self.next = Some(match self.state {
                    State::Renewing => again(now, rebind_at),
                    State::Rebinding => again(now, until),
                    _ => now + self.backoff(),
                });
            }
        }
        // What has begun and is due now goes out now; each state sends only once for one time.
        if self.next.is_some_and(|at| at <= now) {
            self.handle_timeout(now);
        }
    }

    /// What to do next; `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<ClientOutput> {
        self.outputs.pop_front()
    }

    /// When [`Client::handle_timeout`] is wanted.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// A new exchange.
    fn begin(&mut self, now: Instant, state: State, pause: Duration) {
        self.state = state;
        self.tries = 0;
        self.began = now;
        self.xid = (self.random.word() >> 32).to_be_bytes().last_chunk().copied().unwrap_or_default();
        self.next = Some(now + pause);
    }

    fn stop(&mut self, why: Loss) {
        (self.state, self.next, self.new) = (State::Off, None, None);
        if let Some(lease) = self.lease.take() {
            self.outputs.push_back(ClientOutput::Lost(lease, why));
        }
    }

    fn lose(&mut self, now: Instant, why: Loss) {
        self.stop(why);
        let pause = match why {
            // Whoever refuses again and again is asked ever more seldom.
            Loss::Refused => {
                self.address = None;
                self.refusals = self.refusals.saturating_add(1);
                let pause = JITTER.times(1 << self.refusals.min(6));
                if self.refusals == 1 { Duration::ZERO } else { pause }
            }
            _ => Duration::ZERO,
        };
        self.begin(now, State::Selecting, pause);
    }

    fn backoff(&mut self) -> Duration {
        let pause = PAUSE.0.times(1 << self.tries.saturating_sub(1).min(6)).min(PAUSE.1);
        pause.saturating_sub(JITTER) + self.random.below(JITTER.times(2))
    }

    fn ask(&self, now: Instant, kind: Kind, ciaddr: Ipv4Addr) -> Ask<'_> {
        Ask {
            kind,
            xid: self.xid,
            secs: u16::try_from(now.saturating_since(self.began).as_secs()).unwrap_or(u16::MAX),
            ciaddr,
            mac: self.config.mac,
            requested: None,
            server: None,
            host_name: &self.config.host_name,
        }
    }

    /// RFC 2131 §4.3.6: what each state says.
    fn send(&mut self, now: Instant) {
        let none = Ipv4Addr::UNSPECIFIED;
        let held = self.lease.as_ref().map(|l| (l.address, l.server));
        let ask = match (self.state, held) {
            (State::Selecting, _) => Ask { requested: self.address, ..self.ask(now, Kind::Discover, none) },
            (State::Requesting { address, server }, _) => {
                let ask = self.ask(now, Kind::Request, none);
                Ask { requested: Some(address), server: Some(server), ..ask }
            }
            (State::Rebooting { address }, _) => {
                Ask { requested: Some(address), ..self.ask(now, Kind::Request, none) }
            }
            (State::Renewing | State::Rebinding, Some((ciaddr, _))) => self.ask(now, Kind::Request, ciaddr),
            _ => return,
        };
        let payload = wire::request(&ask);
        match held.filter(|_| self.state == State::Renewing) {
            Some((address, server)) => self.unicast(address, server, payload),
            None => {
                self.counters.sent += 1;
                self.outputs.push_back(ClientOutput::Broadcast(payload));
            }
        }
    }

    fn unicast(&mut self, from: Ipv4Addr, to: Ipv4Addr, payload: Vec<u8>) {
        self.counters.sent += 1;
        let from = SocketAddrV4::new(from, CLIENT_PORT);
        let to = SocketAddrV4::new(to, SERVER_PORT);
        self.outputs.push_back(ClientOutput::Unicast { from, to, payload });
    }

    fn take(&mut self, now: Instant, answer: Answer) {
        let held = self.lease.as_ref().map(|l| l.server);
        let right = |server: Option<Ipv4Addr>| match self.state {
            // Only those who were asked.
            State::Requesting { server: chosen, .. } => server == Some(chosen),
            State::Renewing => server.is_none() || server == held,
            State::Rebooting { .. } | State::Rebinding => true,
            State::Off | State::Selecting | State::Probing | State::Bound => false,
        };
        match (answer.kind, self.state) {
            (Kind::Offer, State::Selecting) => match answer.server.filter(|s| is_host(*s)) {
                Some(server) if is_host(answer.yiaddr) && length(&answer).is_some() => {
                    self.state = State::Requesting { address: answer.yiaddr, server };
                    // The same exchange, of the same number (RFC 2131 §4.4.1).
                    (self.tries, self.next) = (0, Some(now));
                }
                _ => self.counters.dropped += 1,
            },
            (Kind::Ack, _) if right(answer.server) => self.bind(now, answer),
            (Kind::Nak, _) if right(answer.server) => {
                self.counters.naks += 1;
                self.lose(now, Loss::Refused);
            }
            _ => self.counters.dropped += 1,
        }
    }

    fn bind(&mut self, now: Instant, answer: Answer) {
        let asked = match self.state {
            State::Requesting { address, .. } | State::Rebooting { address } => Some(address),
            _ => self.lease.as_ref().map(|l| l.address),
        };
        let server = answer.server.or_else(|| self.lease.as_ref().map(|l| l.server));
        let (Some(length), Some(server), true) =
            (length(&answer), server, asked == Some(answer.yiaddr) && is_host(answer.yiaddr))
        else {
            self.counters.dropped += 1;
            return;
        };
        let seconds = |n: Option<u32>| n.map(|n| Duration::from_secs(n.into()));
        let [_, t1, t2] = answer.times;
        // RFC 2131 §4.4.5
        let t2 = seconds(t2).filter(|t| *t < length).unwrap_or(length.times(7).divided_by(8));
        let t1 =
            seconds(t1).filter(|t| *t < t2 && *t > Duration::ZERO).unwrap_or(length.divided_by(2).min(t2));
        self.renewals = (now + t1, now + t2);
        self.refusals = 0;
        self.counters.acks += 1;
        let other = |ip: Ipv4Addr| is_host(ip) && ip != answer.yiaddr;
        let mut routes = answer.routes.unwrap_or_else(|| {
            let default = |router| StaticRoute { prefix: Ipv4Addr::UNSPECIFIED, prefix_len: 0, router };
            answer.router.map(default).into_iter().collect()
        });
        routes.retain(|r| (r.router.is_unspecified() && r.prefix_len > 0) || other(r.router));
        let default = routes.iter().find(|r| r.prefix_len == 0).map(|r| r.router);
        routes.retain(|r| r.prefix_len > 0);
        let lease = Lease {
            address: answer.yiaddr,
            prefix_len: answer.prefix_len.filter(|l| (8..=32).contains(l)).unwrap_or(24),
            router: default,
            routes,
            dns: answer.dns.into_iter().filter(|ip| other(*ip)).collect(),
            server,
            until: now + length,
        };
        if matches!(self.state, State::Requesting { .. }) {
            (self.state, self.tries, self.next, self.new) = (State::Probing, 0, Some(now), Some(lease));
        } else {
            self.use_address(lease);
        }
    }

    fn use_address(&mut self, lease: Lease) {
        let (renew_at, _) = self.renewals;
        (self.state, self.tries, self.next) = (State::Bound, 0, Some(renew_at));
        self.address = Some(lease.address);
        self.lease = Some(lease.clone());
        self.outputs.push_back(ClientOutput::Bound(lease));
    }

    /// Asks who has the address that is probed for, or says that it has it (`own`).
    fn arp(&mut self, own: Ipv4Addr) {
        let target = self.new.as_ref().map_or(own, |l| l.address);
        let packet = Arp { mac: self.config.mac, address: own, target }.write();
        self.outputs.push_back(ClientOutput::Arp(packet));
    }

    /// RFC 2131 §3.1.5, §4.4.4: another host has it.
    fn decline(&mut self, now: Instant, lease: &Lease) {
        self.counters.declined += 1;
        let ask = Ask {
            requested: Some(lease.address),
            server: Some(lease.server),
            ..self.ask(now, Kind::Decline, Ipv4Addr::UNSPECIFIED)
        };
        let payload = wire::request(&ask);
        self.counters.sent += 1;
        self.outputs.push_back(ClientOutput::Broadcast(payload));
        (self.new, self.address) = (None, None);
        self.begin(now, State::Selecting, DECLINED);
    }
}

/// How long an address is offered for, within bounds; `None`: not long enough.
fn length(answer: &Answer) -> Option<Duration> {
    let [seconds, ..] = answer.times;
    let length = Duration::from_secs(seconds?.into());
    (length >= SHORTEST_LEASE).then_some(length.min(LONGEST_LEASE))
}

/// RFC 2131 §4.4.5: half of what is left, a minute at the least.
fn again(now: Instant, end: Instant) -> Instant {
    let half = end.saturating_since(now).divided_by(2);
    (now + half.max(RENEW_PAUSE)).min(end)
}

/// It can be one host's.
fn is_host(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    first != 0 && first < 224 && !ip.is_loopback()
}

#[cfg(test)]
mod tests;

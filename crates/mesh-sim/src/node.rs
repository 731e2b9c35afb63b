//! One simulated node: a router, its clock, and what it did.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use mesh_types::Instant;
use olsrv2::{Event, Output, RouteChange, Router, Way};

use crate::Clock;
use crate::medium::mix;

/// A router and what is around it.
#[derive(Debug)]
pub struct Node {
    /// The core.
    pub router: Router,
    /// Powered on.
    pub up: bool,
    /// Its own idea of time.
    pub clock: Clock,
    /// What it sent and changed, since its first start.
    pub traffic: Traffic,
    /// News it gave out, by the simulator's time, if [`crate::Settings::keep_events`].
    pub events: Vec<(Instant, Event)>,
    pub(crate) keep_events: bool,
    /// Number of the last packet.
    pub(crate) sent: u32,
    /// Probes that the router wants, by interface and address.
    pub(crate) asked: Vec<(u32, IpAddr)>,
    /// How many there were.
    pub(crate) probes: u32,
    /// Simulator time of the timer that is set.
    pub(crate) armed: Option<Instant>,
    /// When its last packet arrives: a radio sends one after the other.
    pub(crate) on_air: Instant,
    /// What the kernel's routes add up to, by the changes given out.
    pub(crate) kernel: u64,
    /// Sum over all packets: equal sums, equal histories.
    pub(crate) digest: u64,
}

/// Counts of one node or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets sent.
    pub packets: u64,
    /// Their UDP payload in bytes.
    pub bytes: u64,
    /// Kernel route changes: to, from, or to another next hop.
    pub route_changes: u64,
    /// Records that were news.
    pub records: u64,
}

impl Traffic {
    /// What was added since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
            route_changes: self.route_changes - before.route_changes,
            records: self.records - before.records,
        }
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            route_changes: self.route_changes + other.route_changes,
            records: self.records + other.records,
        }
    }
}

/// A packet that left a node.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) interface: u32,
    pub(crate) number: u32,
    pub(crate) bytes: Vec<u8>,
}

impl Node {
    pub(crate) fn new(router: Router, clock: Clock, keep_events: bool) -> Self {
        Self {
            router,
            up: true,
            clock,
            traffic: Traffic::default(),
            events: Vec::new(),
            keep_events,
            sent: 0,
            asked: Vec::new(),
            probes: 0,
            armed: None,
            on_air: Instant::ZERO,
            kernel: 0,
            digest: 0,
        }
    }

    /// Takes all outputs; packets go to `send`.
    pub(crate) fn drain(&mut self, now: Instant, mut send: impl FnMut(Sent)) {
        while let Some(output) = self.router.poll_output() {
            match output {
                Output::Transmit { interface, bytes } => {
                    self.sent = self.sent.wrapping_add(1);
                    self.traffic.packets += 1;
                    self.traffic.bytes += bytes.len() as u64;
                    let sum = mix(&[now.as_micros(), self.sent.into(), hash(&bytes)]);
                    self.digest = self.digest.wrapping_add(sum);
                    send(Sent { interface, number: self.sent, bytes });
                }
                Output::Probe { interface, address } => {
                    self.probes = self.probes.wrapping_add(1);
                    self.asked.push((interface, address));
                }
                // One family only: nobody has a carrier.
                Output::Carry { .. } => {}
                Output::Route(change) => self.apply(change),
                Output::Event(event) => {
                    self.traffic.records += u64::from(matches!(event, Event::RecordReceived(_)));
                    if self.keep_events {
                        self.events.push((now, event));
                    }
                }
            }
        }
    }

    fn apply(&mut self, change: RouteChange) {
        self.traffic.route_changes += 1;
        let RouteChange { prefix, old, new } = change;
        let value = |way: Option<Way>| way.map_or(0, |way| hash(&(prefix, way)));
        self.kernel = self.kernel.wrapping_sub(value(old)).wrapping_add(value(new));
    }

    /// The changes given out lead to the routes that the router believes in.
    pub(crate) fn kernel_agrees(&self) -> bool {
        self.router.routes().fold(0u64, |sum, r| sum.wrapping_add(hash(&(r.prefix, r.way())))) == self.kernel
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

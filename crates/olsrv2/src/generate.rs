//! Messages out: HELLO (RFC 7181 §15.1), TC (§16.1, §16.2), records, and their packing into packets.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant};
use nhdp::{COMPLETE, HELLO, Hello, LinkId, LinkStatus, NeighborId};
use rfc5444::{INTERVAL_TIME, Message, NetAddr, Tlv};

use crate::ext::{Metrics, NEEDS_NO_TC, mpr_attribute, willing_tlv};
use crate::outbox::Due;
use crate::records::Header;
use crate::router::{Made, Router};
use crate::share::{company, marks};
use crate::tc::Tc;
use crate::{Event, Output};

/// Least time between two repetitions of all records on an interface.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// So many HELLOs in a row tell news; packets get lost.
const HELLO_REPEATS: u8 = 3;
/// How often all records are repeated for a new neighbour; packets get lost.
const SYNC_ROUNDS: u8 = 2;

impl Router {
    /// Queues every message that is due.
    pub(crate) fn generate(&mut self, now: Instant) {
        while let Some(event) = self.nhdp.poll_event() {
            match event {
                nhdp::Event::HelloDue { interface } => self.send_hello(now, interface),
                nhdp::Event::Probe { interface, address } => {
                    self.counters.probes += 1;
                    self.outputs.push_back(Output::Probe { interface, address: address.ip() });
                }
                nhdp::Event::Forgotten { interface, address } => {
                    if self.may_sync(now, interface, address.ip()) {
                        self.nhdp.trigger(now, interface);
                        self.name_all(interface);
                        self.plan_sync(now, interface);
                    }
                }
                nhdp::Event::Link { interface, address, symmetric, neighbor } => {
                    let originator = neighbor.and_then(|n| n.originator);
                    self.link_event(now, interface, address.ip(), symmetric, originator);
                }
            }
        }
        if self.tc.due.is_some_and(|due| due <= now) {
            self.send_tc(now);
        }
        self.mend(now);
        self.send_records(now);
    }

    fn link_event(
        &mut self,
        now: Instant,
        interface: u32,
        address: IpAddr,
        symmetric: bool,
        originator: Option<IpAddr>,
    ) {
        // When a link comes up, the originator is learnt from the same HELLO, after the event was noted.
        let known = self.nhdp.link_to(interface, address).and_then(|(_, l)| self.nhdp.neighbor(l.neighbor?));
        let originator = known.and_then(|n| n.ext.originator).or(originator);
        let event = if symmetric {
            Event::NeighborUp { interface, address, originator }
        } else {
            Event::NeighborDown { interface, address, originator }
        };
        self.outputs.push_back(Output::Event(event));
        let count = if symmetric { &mut self.counters.links_up } else { &mut self.counters.links_down };
        *count += 1;
        if symmetric && self.may_sync(now, interface, address) {
            self.plan_sync(now, interface);
        }
    }

    /// Whether a neighbour may want everything again: the more often it does, the longer it waits.
    fn may_sync(&mut self, now: Instant, interface: u32, address: IpAddr) -> bool {
        let id = self.nhdp.link_to(interface, address).map(|(id, _)| id);
        let link = id.and_then(|id| self.nhdp.link_mut(interface, id));
        link.is_none_or(|l| l.ext.wishes.grant(now))
    }

    /// Someone on that interface knows nothing: the next HELLOs bring all records, the first a TC as well.
    fn plan_sync(&mut self, now: Instant, interface: u32) {
        if let Some(port) = self.ports.get_mut(&interface) {
            port.sync = Some((SYNC_ROUNDS, now));
        }
    }

    fn send_hello(&mut self, now: Instant, interface: u32) {
        // A signature is never twice the same.
        let lasting = !self.has_keys() && self.is_settled();
        let when = (self.round, self.nhdp.is_lively(interface));
        let Some(made) = self.ports.get_mut(&interface).map(|p| p.hello.made.take()) else { return };
        let mut made = made.filter(|m| lasting && m.when == when);
        let mut composed = None;
        let digest = match &made {
            Some(made) => made.digest,
            None => {
                let Some(hello) = self.compose_hello(interface) else { return };
                digest(&composed.insert(hello).to_message(self.addr_len()))
            }
        };
        let all = self.names_all_now(interface, digest);
        let summary = self.summary_tlv(now, interface);
        self.counters.hellos_out += 1;
        let known = made.as_ref().filter(|_| summary.is_none());
        let known = known.and_then(|m| if all { Some(&m.whole) } else { m.short.as_ref() }).cloned();
        if let Some(bytes) = known {
            debug_assert!(self.is_as_composed(interface, all, &bytes));
            self.push_to(now, Some(interface), &bytes, (Duration::ZERO, false));
        } else if let Some(mut hello) = composed.or_else(|| self.compose_hello(interface)) {
            if !all {
                hello.entries.retain(|e| e.local_if.is_some());
            }
            let mut message = hello.to_message(self.addr_len());
            let plain = summary.is_none() && lasting;
            message.tlvs.extend(summary);
            let bytes = self.queue_for(now, Some(interface), &message, (Duration::ZERO, false));
            match (bytes.filter(|_| plain), &mut made) {
                (Some(whole), None) if all => made = Some(Made { when, digest, whole, short: None }),
                (Some(bytes), Some(made)) if !all => made.short = Some(bytes),
                _ => {}
            }
        }
        self.ports.get_mut(&interface).into_iter().for_each(|p| p.hello.made = made.take());
        let limit = self.config.limits.forward_queue;
        if let Some(port) = self.ports.get_mut(&interface) {
            port.repeat_news(now, limit);
        }
        if self.may_share() && self.ports.get(&interface).is_some_and(|p| p.rides(now)) {
            self.nhdp.wait_for_company(interface);
        }
        let wishes = self.nhdp.links_mut(interface).filter(|l| l.status() == LinkStatus::Symmetric);
        // All of them, though one is enough.
        if wishes.map(|l| l.ext.wishes.grant_late(now)).filter(|granted| *granted).count() > 0 {
            self.plan_sync(now, interface);
        }
        self.sync_records(now, interface);
    }

    /// What is sent again would be made again.
    fn is_as_composed(&self, interface: u32, all: bool, bytes: &[u8]) -> bool {
        let mut made = Vec::new();
        let hello = self.compose_hello(interface).map(|mut hello| {
            hello.entries.retain(|e| all || e.local_if.is_some());
            hello.to_message(self.addr_len())
        });
        hello.is_some_and(|h| h.emit(&mut made).is_ok()) && made == bytes
    }

    /// A HELLO that names all neighbours.
    fn compose_hello(&self, interface: u32) -> Option<Hello> {
        let mut hello = self.nhdp.generate(interface)?;
        hello.originator = Some(NetAddr::host(self.config.originator));
        hello.tlvs.push(willing_tlv(self.config.will_flooding, self.config.will_routing));
        hello.tlvs.push(Tlv { kind: NEEDS_NO_TC, ext: 0, value: None });
        self.add_metrics_and_mprs(interface, &mut hello);
        if hello.entries.iter().all(|e| e.local_if.is_some()) {
            hello.tlvs.push(Tlv { kind: COMPLETE, ext: 0, value: None });
        }
        Some(hello)
    }

    /// The next HELLOs name all neighbours.
    fn name_all(&mut self, interface: u32) {
        if let Some(port) = self.ports.get_mut(&interface) {
            port.hello.news = HELLO_REPEATS;
        }
    }

    /// Whether this HELLO has to go out as it is, with all neighbours: it is other than the last one, or those
    /// since could have been lost, or it is time (REFRESH_INTERVAL).
    fn names_all_now(&mut self, interface: u32, digest: u64) -> bool {
        let refresh = self.config.timing.hello_refresh;
        let Some(plan) = self.ports.get_mut(&interface).map(|p| &mut p.hello) else { return true };
        if core::mem::replace(&mut plan.digest, digest) != digest {
            plan.news = HELLO_REPEATS;
        }
        let all = plan.news > 0 || plan.short.saturating_add(1) >= refresh;
        plan.news = plan.news.saturating_sub(1);
        plan.short = if all { 0 } else { plan.short.saturating_add(1) };
        all
    }

    /// §15.1: the link metrics and MPR roles on all addresses of a link, since olsrd2 goes by the last that it
    /// finds; the neighbour metrics on one.
    fn add_metrics_and_mprs(&self, interface: u32, hello: &mut Hello) {
        let Some(port) = self.nhdp.interface(interface) else { return };
        let mut places: BTreeMap<LinkId, Vec<usize>> = BTreeMap::new();
        for (at, entry) in hello.entries.iter().enumerate().filter(|(_, e)| e.link_status.is_some()) {
            if let Some(link) = entry.link {
                places.entry(link).or_default().push(at);
            }
        }
        for (id, link) in port.links() {
            let status = link.status();
            let Some(all) = places.get(&id) else { continue };
            if !matches!(status, LinkStatus::Heard | LinkStatus::Symmetric) {
                continue;
            }
            let symmetric = status == LinkStatus::Symmetric;
            let neighbor = link.neighbor.filter(|_| symmetric).and_then(|n| self.nhdp.neighbor(n));
            let is_originator = |at: &&usize| {
                let address = hello.entries.get(**at).map(|e| e.address.ip());
                address.is_some() && address == neighbor.and_then(|n| n.ext.originator)
            };
            // Where all addresses are the link's, the neighbour metrics share its TLVs.
            let only = neighbor.filter(|n| n.addresses.iter().all(|a| link.addresses.contains(a)));
            let chief = only.and_then(|_| all.iter().find(is_originator).or(all.first())).copied();
            for at in all {
                let Some(entry) = hello.entries.get_mut(*at) else { continue };
                let here = only.filter(|_| chief == Some(*at));
                let metrics = Metrics {
                    link_in: Some(link.ext.metric_in),
                    link_out: symmetric.then_some(link.ext.metric_out),
                    neighbor_in: here.map(|n| n.ext.metric_in),
                    neighbor_out: here.map(|n| n.ext.metric_out),
                };
                if let Some(n) = neighbor {
                    entry.attributes.extend(mpr_attribute(n.ext.flooding_mpr, n.ext.routing_mpr));
                }
                entry.attributes.extend(metrics.attributes());
            }
        }
        self.add_neighbor_metrics(hello);
    }

    /// The neighbour metrics go on the originator address if that is among those told, so that a 2-hop
    /// neighbour counts once.
    fn add_neighbor_metrics(&self, hello: &mut Hello) {
        let mut places: BTreeMap<NeighborId, (bool, usize)> = BTreeMap::new();
        for (at, entry) in hello.entries.iter().enumerate().filter(|(_, e)| e.is_symmetric()) {
            let known = entry.neighbor.and_then(|id| Some((id, self.nhdp.neighbor(id)?)));
            let Some((id, n)) = known.filter(|(_, n)| n.symmetric) else { continue };
            let better = (Some(entry.address.ip()) == n.ext.originator, at);
            let place = places.entry(id).or_insert(better);
            if better.0 && !place.0 {
                *place = better;
            }
        }
        for (id, (_, at)) in places {
            let metrics = self.nhdp.neighbor(id).map(|n| (n.ext.metric_in, n.ext.metric_out));
            let Some((entry, (metric_in, metric_out))) = hello.entries.get_mut(at).zip(metrics) else {
                continue;
            };
            let already = Metrics::of(entry).is_some_and(|m| m.neighbor_in.is_some());
            if !already {
                let (neighbor_in, neighbor_out) = (Some(metric_in), Some(metric_out));
                let metrics = Metrics { neighbor_in, neighbor_out, ..Metrics::default() };
                entry.attributes.extend(metrics.attributes());
            }
        }
    }

    /// §16.2: sends a complete TC and plans the next.
    fn send_tc(&mut self, now: Instant) {
        let timing = self.config.timing;
        self.tc.due = None;
        if !self.tc.news {
            self.let_go(now);
        }
        let empty = self.tc.neighbors.is_empty() && self.tc.gateways.is_empty();
        if !empty {
            self.tc.empty_until = Some(now + timing.advertise_hold);
        } else if self.tc.empty_until.is_none_or(|until| until <= now) {
            self.tc.empty_until = None;
            return;
        }
        if self.ports.is_empty() {
            // The first interface that comes up plans the next.
            return;
        }
        let tc = Tc {
            originator: self.config.originator,
            seq: self.next_message_seq(),
            validity: timing.tc_hold,
            ansn: Some((self.sequences.ansn, true)),
            neighbors: self.tc.neighbors.clone(),
            gateways: self.tc.gateways.clone(),
            notes: self.tc.notes.clone(),
        };
        let news = core::mem::take(&mut self.tc.news);
        let turn = if news { 0 } else { self.tc.turn };
        self.tc.repeats = if news { 0 } else { self.tc.repeats.saturating_add(1) };
        self.tc.turn = turn.wrapping_add(1);
        let hop_limit = self.scopes.hop_limit(turn);
        let message = tc.to_message(hop_limit, timing.tc_interval, &self.scopes);
        self.counters.tcs_out += 1;
        self.counters.tcs_triggered += u64::from(news);
        let wait = if news { Duration::ZERO } else { self.patience(now) };
        let bytes = self.queue_for(now, None, &message, (wait, news));
        if self.tc.told.as_ref().is_none_or(|(ansn, _)| *ansn != self.sequences.ansn) {
            self.tc.mended = 0;
        }
        self.tc.told = bytes.map(|bytes| (self.sequences.ansn, bytes));
        self.tc.last = Some(now);
        // News may be lost on their way, so they are repeated sooner.
        let interval = if self.tc.repeats == 0 { timing.tc_repeat } else { timing.tc_interval };
        let jitter = self.jitter(interval.divided_by(4));
        self.tc.due = Some(now + interval.saturating_sub(jitter).max(timing.tc_min_interval));
    }

    /// Wants a TC soon, TC_MIN_INTERVAL after the last at the earliest (§16.2).
    pub(crate) fn trigger_tc(&mut self, now: Instant) {
        self.tc.news = true;
        self.note_change(now);
        let soon = now + self.jitter(self.config.timing.trigger_jitter);
        let min = self.config.timing.tc_min_interval;
        let earliest = self.tc.last.map_or(Instant::ZERO, |last| last + min);
        let at = soon.max(earliest);
        self.tc.due = Some(self.tc.due.map_or(at, |due| due.min(at)));
    }

    fn send_records(&mut self, now: Instant) {
        let mut due = Vec::new();
        if self.records.next().is_some_and(|at| at <= now) {
            let draw = self.rng.next_u64();
            due = self.records.due(now, |max| nhdp::Rng::new(draw).up_to(max));
        }
        for kind in due {
            if self.ports.is_empty() {
                break;
            }
            let header =
                Header { seq: self.next_message_seq(), hop_limit: self.config.tc_hop_limit, hop_count: 0 };
            let message = self.records.own(kind).map(|c| c.to_message(self.config.originator, header));
            if let Some(message) = message {
                self.counters.records_out += 1;
                self.queue(now, None, &message);
            }
        }
        if self.push_at.is_some_and(|at| at <= now) {
            self.push_at = None;
            let all: Vec<u32> = self.ports.keys().copied().collect();
            all.into_iter().for_each(|interface| self.repeat_records(now, interface, None));
            self.end_push();
        }
    }

    /// News were repeated. A neighbour that still waits for its first HELLO could not take them: for it
    /// they stay marked.
    fn end_push(&mut self) {
        if self.push_at.is_none() && self.ports.values().all(|p| p.sync.is_none()) {
            self.records.clear_push();
        }
    }

    /// Repeats all records behind a HELLO, if a new neighbour is waiting for them.
    fn sync_records(&mut self, now: Instant, interface: u32) {
        let Some(port) = self.ports.get_mut(&interface) else { return };
        let Some((rounds, since)) = port.sync else { return };
        if port.last_sync.is_some_and(|last| last + SYNC_INTERVAL > now) {
            return;
        }
        port.last_sync = Some(now);
        let first = rounds == SYNC_ROUNDS;
        port.sync = if rounds > 1 { Some((rounds - 1, since)) } else { None };
        self.repeat_records(now, interface, Some(since));
        if first {
            self.relay_tcs(now, interface, since);
        }
        self.end_push();
        if first && !(self.tc.neighbors.is_empty() && self.tc.gateways.is_empty()) {
            // What we advertise is new to it as well, and our last TC came too early to be taken.
            self.trigger_tc(now);
        }
    }

    /// Tells a new neighbour of the routers beyond.
    fn relay_tcs(&mut self, now: Instant, interface: u32, since: Instant) {
        let limit = self.config.limits.forward_queue;
        let own = self.config.originator;
        let Some(port) = self.ports.get_mut(&interface) else { return };
        let fresh = self.config.timing.message_hold.divided_by(2);
        let messages = self.topology.missed_by(now, port.slot, since, fresh);
        for bytes in messages {
            self.counters.relayed += 1;
            if !port.push(bytes, Due::News(now), limit, Some(own)) {
                self.counters.queue_full += 1;
            }
        }
    }

    /// Repeats records one hop far; ours among them if a new neighbour is the reason.
    fn repeat_records(&mut self, now: Instant, interface: u32, since: Option<Instant>) {
        let mut messages: Vec<Message> = self.records.repeats(now, interface, since).collect();
        if since.is_some() {
            for kind in self.records.own_kinds() {
                let seq = self.next_message_seq();
                let header = Header { seq, hop_limit: 1, hop_count: 0 };
                let own = self.records.own(kind);
                messages.extend(own.map(|c| c.to_message(self.config.originator, header)));
            }
        }
        messages.iter().for_each(|m| self.queue(now, Some(interface), m));
    }

    /// Queues a message of ours on one interface or on all, to go now.
    fn queue(&mut self, now: Instant, interface: Option<u32>, message: &Message) {
        self.queue_for(now, interface, message, (Duration::ZERO, false));
    }

    /// The same; it waits for company, at most that long. News are sent a second time. Returns its bytes.
    fn queue_for(
        &mut self,
        now: Instant,
        interface: Option<u32>,
        message: &Message,
        (wait, news): (Duration, bool),
    ) -> Option<Vec<u8>> {
        let cover = self.cover(interface);
        let sealed = self.security.sealed(message, cover);
        let message = sealed.as_ref().unwrap_or(message);
        let mut bytes = Vec::new();
        if message.emit(&mut bytes).is_err() {
            // More than 65,535 bytes: the tables' limits keep it from happening.
            self.counters.queue_full += 1;
            return None;
        }
        self.push_to(now, interface, &bytes, (wait, news));
        Some(bytes)
    }

    /// Queues a message's bytes, on one interface or on all.
    fn push_to(
        &mut self,
        now: Instant,
        interface: Option<u32>,
        bytes: &[u8],
        (wait, news): (Duration, bool),
    ) {
        let limit = self.config.limits.forward_queue;
        let told_twice = news && self.tells_twice();
        // A HELLO with news is told apart by [`Port::has_news`].
        let calm = bytes.first() == Some(&HELLO) || wait > Duration::ZERO;
        for (index, port) in &mut self.ports {
            if interface.is_some_and(|i| i != *index) {
                continue;
            }
            let due = company(&self.nhdp, now, *index, wait);
            let due = if calm { Due::Calm(due) } else { Due::News(due) };
            let queued = port.push(bytes.to_vec(), due, limit, None);
            self.counters.queue_full += u64::from(!queued);
            if told_twice {
                port.note_news(bytes, limit);
            }
        }
    }

    /// Gives out the packets of every interface with a message that is due.
    pub(crate) fn flush(&mut self, now: Instant) {
        let (may_share, may_rest) = (self.may_share(), self.may_rest(now));
        let shares = self.config.share_packets;
        for (interface, port) in &mut self.ports {
            if port.outbox.due().is_none_or(|due| due > now) {
                continue;
            }
            port.news.iter_mut().for_each(|(told, _)| *told = true);
            if may_share && port.rides(now) {
                let messages = port.outbox.take();
                let bytes = messages.iter().map(|m| m.len() as u64).sum::<u64>();
                self.counters.bytes_out += bytes;
                port.counters.bytes_out += bytes;
                self.outputs.push_back(Output::Carry { interface: *interface, messages });
                continue;
            }
            let calm = may_rest && !port.has_news() && !port.outbox.is_urgent();
            let marks = marks(calm, shares);
            for bytes in port.outbox.flush(self.config.mtu, marks.as_deref()) {
                self.counters.packets_out += 1;
                self.counters.bytes_out += bytes.len() as u64;
                port.counters.packets_out += 1;
                port.counters.bytes_out += bytes.len() as u64;
                self.outputs.push_back(Output::Transmit { interface: *interface, bytes });
            }
            self.sequences.packet = port.outbox.packet_seq();
        }
    }
}

/// FNV-1a over the message's bytes; when the next one comes is no news.
fn digest(message: &Message) -> u64 {
    let mut bytes = Vec::new();
    let mut message = message.clone();
    message.tlvs.retain(|t| t.kind != INTERVAL_TIME);
    // One that is too long is never sent, either.
    let _ = message.emit(&mut bytes);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

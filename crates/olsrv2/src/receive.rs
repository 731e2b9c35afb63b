//! Packets in: HELLO processing (RFC 7181 §15.3), flooding (§14) and what floods carry.

use core::net::IpAddr;

use mesh_types::{Duration, Instant, Metric};
use nhdp::{HELLO, Hello, HelloEntry, LinkId, LinkStatus, NeighborId, Status};
use rfc5444::{MessageView, NetAddr, PacketView, RawMessage};

use crate::ext::{Checked, Metrics, NEEDS_NO_TC, Olsr, TwoHopExt, check_hello, mpr_roles};
use crate::flood::{MessageKey, Seen};
use crate::outbox::Due;
use crate::records::{Content, Header, RATE, Taken, WINDOW};
use crate::router::{Port, Router};
use crate::share::company;
use crate::tc::{TC, Tc, newer};
use crate::topology::Brought;
use crate::{Event, InputError, Output, RECORD_MESSAGE};

/// How often a TC of ours that we have not sent makes us answer at once.
const OWN_TCS_BELIEVED: u64 = 3;
/// How much sooner a TC is forwarded that changed something.
const NEWS_FACTOR: u64 = 8;

impl Router {
    pub(crate) fn packet(
        &mut self,
        now: Instant,
        interface: u32,
        source: IpAddr,
        bytes: &[u8],
    ) -> Result<(), InputError> {
        let shared = source.is_ipv4() != self.config.originator.is_ipv4();
        let may_share = self.config.share_packets;
        let port = self.ports.get_mut(&interface).ok_or(InputError::UnknownInterface(interface))?;
        if shared && !may_share {
            return Err(InputError::WrongFamily);
        }
        if !shared {
            self.counters.packets_in += 1;
            self.counters.bytes_in += bytes.len() as u64;
            port.counters.packets_in += 1;
            port.counters.bytes_in += bytes.len() as u64;
        }
        let packet = match PacketView::parse(bytes) {
            Ok(packet) => packet,
            Err(e) => {
                self.counters.packets_malformed += 1;
                port.counters.packets_malformed += 1;
                return Err(InputError::Packet(e));
            }
        };
        if shared && self.has_keys() {
            self.refuse_shared(&packet);
            return Ok(());
        }
        let from = source;
        let mut read = None;
        let Some(source) = self.sender(now, interface, from, &packet, &mut read) else { return Ok(()) };
        // One delay for all messages of a packet, so that they stay together (§13.2).
        let jitter = self.jitter(self.config.timing.forward_jitter);
        let mut proven = !self.has_keys();
        let addr_len = self.addr_len();
        for raw in packet.messages().filter(|m| m.addr_len() == addr_len) {
            let before = (self.counters.refusals(), self.counters.duplicates);
            match raw.kind() {
                HELLO => {
                    proven |= self.hello(now, interface, source, &raw, read.take());
                    self.note_carrier(interface, from, source);
                }
                TC | RECORD_MESSAGE => self.flooded(now, interface, source, &raw, jitter),
                _ => {
                    // Extensions of others may use the same flooding (§14); what they say is not ours to know.
                    self.counters.unknown_messages += 1;
                    if raw.originator().is_some() && raw.seq().is_some() {
                        self.flooded(now, interface, source, &raw, jitter);
                    }
                }
            }
            let after = (self.counters.refusals(), self.counters.duplicates);
            if let Some(Port { counters, .. }) = self.ports.get_mut(&interface) {
                counters.received.add(raw.kind(), true);
                counters.refused.add(raw.kind(), before.0 != after.0);
                counters.duplicates.add(raw.kind(), before.1 != after.1);
            }
        }
        // Only the ICV of a HELLO covers the source address; nothing covers the packet's number.
        if proven {
            let seq = packet.seq().filter(|_| !self.has_keys() && !is_aside(&packet));
            self.note_packet(now, interface, source, seq);
        }
        Ok(())
    }

    /// Whether the HELLO is admitted: with keys, whether it is known to come from its source. `read`: its content,
    /// if it was read before.
    fn hello(
        &mut self,
        now: Instant,
        interface: u32,
        source: IpAddr,
        raw: &RawMessage<'_>,
        read: Option<Hello>,
    ) -> bool {
        if self.hello_again(now, interface, source, raw) {
            return true;
        }
        let Ok(message) = raw.check() else {
            self.counters.messages_invalid += 1;
            return false;
        };
        if !self.admits_hello(now, interface, source, &message) {
            return false;
        }
        let parsed = read.or_else(|| Hello::parse(&message, self.addr_len()).ok());
        if parsed.and_then(|hello| self.process_hello(now, interface, source, raw, hello)).is_some() {
            self.counters.hellos_in += 1;
        } else {
            self.counters.messages_invalid += 1;
        }
        true
    }

    /// §15.3; `None` if the HELLO is discarded.
    fn process_hello(
        &mut self,
        now: Instant,
        interface: u32,
        source: IpAddr,
        raw: &RawMessage<'_>,
        mut hello: Hello,
    ) -> Option<()> {
        let here = self.nhdp.interface(interface)?.addresses.clone();
        let checked = check_hello(&hello, &here, |a| self.nhdp.is_ours(a)).ok()?;
        withhold_unmetered(&mut hello, &here);
        let (link, neighbor) = self.nhdp.process(now, interface, source, &hello).ok()?;
        self.note_hello(now, interface, link);
        if let Some(originator) = well_defined_originator(&hello, source)
            && checked.willing.is_some()
        {
            self.adopt(now, interface, link, neighbor, originator, checked, &hello);
            self.unlink(originator, &hello);
            self.compare(now, interface, link, &hello);
        }
        self.remember_hello(now, (interface, link), source, raw, &hello);
        Some(())
    }

    /// §15.3.2 step 1.
    #[allow(clippy::too_many_arguments)] // the RFC's "current" tuples and the message's parts
    fn adopt(
        &mut self,
        now: Instant,
        interface: u32,
        link: LinkId,
        neighbor: NeighborId,
        originator: IpAddr,
        checked: Checked,
        hello: &Hello,
    ) {
        let double = |(id, n): (NeighborId, &nhdp::Neighbor<crate::ext::Olsr>)| {
            (id != neighbor && n.ext.originator == Some(originator)).then_some(id)
        };
        let doubles: alloc::vec::Vec<NeighborId> = self.nhdp.neighbors().filter_map(double).collect();
        doubles.into_iter().for_each(|id| self.nhdp.remove_neighbor(now, id));

        let mut on_us = OnUs::default();
        for entry in self.nhdp.entries_on_us(interface, hello) {
            on_us.note_metric(entry);
        }
        // A neighbour that hears several of our interfaces names its MPRs by any of their addresses.
        for (any, _) in self.nhdp.interfaces() {
            self.nhdp.entries_on_us(any, hello).for_each(|entry| on_us.note_mpr(entry));
        }
        let dirty = self.nhdp.link_mut(interface, link).is_some_and(|l| {
            let before = (l.ext.metric_out, l.ext.mpr_selector);
            if l.status() == LinkStatus::Symmetric && on_us.present {
                l.ext.metric_out = on_us.metric.unwrap_or(Metric::UNKNOWN);
            }
            if let Some((flooding, _)) = on_us.mpr {
                l.ext.mpr_selector = flooding;
            }
            let mut dirty = before != (l.ext.metric_out, l.ext.mpr_selector);
            for (address, two_hop) in l.two_hops_mut() {
                let Ok(at) = hello.entries.binary_search_by(|e| e.address.cmp(address)) else { continue };
                let Some(metrics) = hello.entries.get(at).and_then(Metrics::of) else { continue };
                let new = TwoHopExt {
                    metric_in: metrics.neighbor_in.unwrap_or(Metric::UNKNOWN),
                    metric_out: metrics.neighbor_out.unwrap_or(Metric::UNKNOWN),
                };
                dirty |= core::mem::replace(&mut two_hop.ext, new) != new;
            }
            dirty
        });
        self.neighborhood_dirty |= dirty;
        if let Some(n) = self.nhdp.neighbor_mut(neighbor) {
            let before = n.ext;
            n.ext.originator = Some(originator);
            n.ext.needs_tc = hello.tlvs.iter().all(|t| t.kind != NEEDS_NO_TC);
            if let Some((flooding, routing)) = checked.willing {
                (n.ext.will_flooding, n.ext.will_routing) = (flooding, routing);
            }
            if let Some((_, routing)) = on_us.mpr {
                n.ext.mpr_selector = routing && n.symmetric;
            }
            self.neighborhood_dirty |= before != n.ext;
        }
    }

    /// A neighbour's HELLO is younger than its last TC: what it calls lost is lost, and no packet goes there
    /// and back until its next TC comes.
    fn unlink(&mut self, originator: IpAddr, hello: &Hello) {
        let lost = |e: &&HelloEntry| {
            !e.is_symmetric() && [e.link_status, e.other_neighb].contains(&Some(Status::Lost))
        };
        let gone = hello.entries.iter().filter(lost).map(|e| e.address);
        if self.topology.unlink(originator, gone) {
            self.routes.want(true);
        }
    }

    /// §14.1 to §14.3. The order matters: is the sender a symmetric neighbour, did the message come over
    /// this interface before, was it forwarded before. So the first copy over each interface decides, and
    /// copies from strangers don't count.
    fn flooded(
        &mut self,
        now: Instant,
        interface: u32,
        source: IpAddr,
        raw: &RawMessage<'_>,
        jitter: Duration,
    ) {
        let Some((originator, seq)) = raw.originator().and_then(|a| a.net_addr()).zip(raw.seq()) else {
            self.counters.messages_invalid += 1;
            return;
        };
        if originator.ip() == self.config.originator {
            self.counters.own_returned += 1;
            self.own_message(now, interface, source, raw);
            return;
        }
        let key = (raw.kind(), originator.ip(), seq);
        let link = self.nhdp.link_to(interface, source);
        let Some((_, link)) = link.filter(|(_, l)| l.status() == LinkStatus::Symmetric) else {
            self.counters.not_symmetric += 1;
            return;
        };
        let mpr_selector = link.ext.mpr_selector;
        let by = link.neighbor.and_then(|n| self.nhdp.neighbor(n)?.ext.originator).unwrap_or(source);
        let Some(slot) = self.ports.get(&interface).map(|p| p.slot) else { return };
        let Ok(message) = raw.check() else {
            self.counters.messages_invalid += 1;
            return;
        };
        let Some(mut forward) = self.admits_flooded(now, interface, (source, by), &message, originator.ip())
        else {
            return;
        };
        let (mut jitter, mut news) = (Some(jitter), false);
        if !matches!(raw.kind(), TC | RECORD_MESSAGE) {
            // Nothing to process.
        } else if self.seen(now, key, by).process() {
            let (tcs, changes) = (self.counters.tcs_in, self.counters.tc_changes);
            let again = raw.kind() == TC && self.topology.said_again(now, slot, originator.ip(), &message);
            let verdict = match again {
                true => Verdict::Good,
                false => self.process_flooded(now, interface, by, &message, key),
            };
            forward &= verdict == Verdict::Good;
            if again {
                self.counters.tcs_in += 1;
            } else if self.counters.tcs_in != tcs {
                self.topology.keep_last(now, slot, originator.ip(), &message);
            }
            if self.counters.tc_changes != changes {
                // News travel fast, what is only repeated waits for company.
                jitter = jitter.map(|j| j.divided_by(NEWS_FACTOR));
                news = self.tells_twice();
                self.note_change(now);
            } else if raw.kind() == TC {
                jitter = jitter.filter(|_| self.patience(now) == Duration::ZERO);
            }
            match verdict {
                Verdict::Good => {}
                // No later copy is forwarded, either.
                Verdict::Bad => self.seen(now, key, by).forward(),
                Verdict::NoRoom => self.seen(now, key, by).process_later(),
            }
        } else if raw.kind() == RECORD_MESSAGE {
            self.records.heard(now, interface, originator.ip(), seq);
        } else {
            self.topology.heard_last(now, slot, originator.ip(), seq);
            let alive = alive(&self.nhdp);
            self.topology.heard(originator.ip(), &Brought { by, alive: &alive });
        }
        let hops_left = raw.hop_limit().is_some_and(|n| n > 1) && raw.hop_count() != Some(u8::MAX);
        self.counters.hop_limit += u64::from(forward && !hops_left);
        if forward && hops_left {
            self.consider_forwarding(now, slot, raw, (key, by), mpr_selector, (jitter, news));
        }
    }

    /// What was done with a message.
    fn seen(&mut self, now: Instant, key: MessageKey, by: IpAddr) -> Seen<'_> {
        self.seen.entry(&mut self.topology.names, now, key, by)
    }

    /// A message of ours that comes back says nothing new, unless it is a TC with an ANSN that we have not
    /// come to yet: somebody else uses our address. The others would take our own for old until that one
    /// expires (§16.3.3); so we go on from there.
    fn own_message(&mut self, now: Instant, interface: u32, source: IpAddr, raw: &RawMessage<'_>) {
        let link = self.nhdp.link_to(interface, source);
        if raw.kind() != TC || link.is_none_or(|(_, l)| l.status() != LinkStatus::Symmetric) {
            return;
        }
        let genuine = raw.check().ok().filter(|m| self.admits_own(m));
        let tc = genuine.and_then(|m| Tc::parse(&m, self.addr_len(), self.config.limits.per_router).ok());
        let Some((ansn, _)) = tc.and_then(|tc| tc.ansn) else { return };
        if newer(ansn, self.sequences.ansn) {
            self.counters.own_tcs_ahead += 1;
            self.sequences.ansn = ansn.wrapping_add(1);
            // Two that share an address must not drive each other.
            if self.counters.own_tcs_ahead <= OWN_TCS_BELIEVED {
                self.trigger_tc(now);
            }
        }
    }

    /// Processes a message seen for the first time that the neighbour `by` sent.
    fn process_flooded(
        &mut self,
        now: Instant,
        interface: u32,
        by: IpAddr,
        message: &MessageView<'_>,
        key: MessageKey,
    ) -> Verdict {
        if message.header().kind() == RECORD_MESSAGE {
            return self.record(now, interface, by, message, key);
        }
        let tc = Tc::parse(message, self.addr_len(), self.config.limits.per_router);
        let Some(mut tc) = tc.ok().filter(|tc| !self.nhdp.is_ours(NetAddr::host(tc.originator))) else {
            self.counters.messages_invalid += 1;
            return Verdict::Good;
        };
        // Partially owned (§13); of a prefix that only holds an address of ours the rest is not ours.
        tc.neighbors.retain(|n| !self.nhdp.is_ours(n.address));
        let own = self.config.originator;
        let nhdp = &self.nhdp;
        let brought = Brought { by, alive: &alive(nhdp) };
        let skip = |a: NetAddr| (a.is_host() && nhdp.is_ours(a)) || a == NetAddr::host(own);
        let outcome = self.topology.apply(now, &tc, &brought, skip);
        self.counters.table_full += u64::from(outcome.full);
        if outcome.refused {
            return Verdict::NoRoom;
        }
        self.counters.tcs_in += 1;
        if outcome.changed {
            self.routes.want(false);
            self.counters.tc_changes += 1;
        }
        Verdict::Good
    }

    fn record(
        &mut self,
        now: Instant,
        interface: u32,
        by: IpAddr,
        message: &MessageView<'_>,
        key: MessageKey,
    ) -> Verdict {
        let Some(content) = Content::parse(message) else {
            self.counters.messages_invalid += 1;
            return Verdict::Bad;
        };
        if self.seen.lately(&self.topology.names, now, key, WINDOW) > RATE {
            self.counters.rate_limited += 1;
            return Verdict::Bad;
        }
        self.counters.records_in += 1;
        let raw = message.header();
        let (hop_limit, hop_count) = (raw.hop_limit().unwrap_or(1), raw.hop_count().unwrap_or(0));
        let header = Header { seq: key.2, hop_limit, hop_count };
        let taken = {
            let brought = Brought { by, alive: &alive(&self.nhdp) };
            self.records.take(now, interface, (key.1, &brought), header, &content)
        };
        match taken {
            Taken::News(record) => {
                self.outputs.push_back(Output::Event(Event::RecordReceived(record)));
                if hop_limit <= 1 && self.push_at.is_none() {
                    let delay = self.jitter(self.config.timing.trigger_jitter);
                    self.push_at = Some(now + delay);
                }
            }
            Taken::Known => {}
            Taken::Full => self.counters.table_full += 1,
            Taken::NoRoom => {
                self.counters.table_full += 1;
                return Verdict::NoRoom;
            }
        }
        Verdict::Good
    }

    /// §14.3. Without `jitter` the copy waits for company; with `news` it is sent a second time.
    fn consider_forwarding(
        &mut self,
        now: Instant,
        slot: u8,
        raw: &RawMessage<'_>,
        (key, by): (MessageKey, IpAddr),
        mpr_selector: bool,
        (jitter, news): (Option<Duration>, bool),
    ) {
        let mut seen = self.seen(now, key, by);
        if !seen.receive(slot) || seen.is_forwarded() {
            self.counters.duplicates += 1;
            return;
        }
        if !mpr_selector {
            self.counters.not_mpr += 1;
            return;
        }
        let mut copy = alloc::vec::Vec::with_capacity(raw.bytes().len());
        if !raw.forward(&mut copy) {
            return;
        }
        self.seen(now, key, by).forward();
        self.counters.forwarded += 1;
        let limit = self.config.limits.forward_queue;
        let wait = self.config.timing.company_wait;
        for (index, port) in &mut self.ports {
            let due = match jitter {
                Some(jitter) => Due::News(now + jitter),
                None => Due::Calm(company(&self.nhdp, now, *index, wait)),
            };
            let queued = port.push(copy.clone(), due, limit, Some(by));
            self.counters.queue_full += u64::from(!queued);
            if news {
                port.note_news(&copy, limit);
            }
        }
    }
}

/// Whether a packet is none of those that all neighbours get: olsrd2 probes its neighbours one by one with packets that
/// have numbers of their own, and in them messages that are nobody's.
fn is_aside(packet: &PacketView<'_>) -> bool {
    let nobodys = |m: RawMessage<'_>| m.kind() != HELLO && m.originator().is_none();
    packet.messages().next().is_some() && packet.messages().all(nobodys)
}

/// What becomes of a message that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is forwarded as the rules say.
    Good,
    /// Neither this nor any other copy is forwarded.
    Bad,
    /// The neighbour that brought it has brought too much: not forwarded, and another's copy is looked at anew.
    NoRoom,
}

/// Tells the originator addresses of symmetric neighbours.
pub(crate) fn alive(nhdp: &nhdp::Nhdp<Olsr>) -> impl Fn(IpAddr) -> bool {
    |by| nhdp.neighbors().any(|(_, n)| n.symmetric && n.ext.originator == Some(by))
}

/// What a HELLO says of the link to us and of our role.
#[derive(Default)]
struct OnUs {
    present: bool,
    metric: Option<Metric>,
    /// Flooding and routing MPR; `None` if the HELLO is silent on it (§15.3.2.3).
    mpr: Option<(bool, bool)>,
}

impl OnUs {
    fn note_metric(&mut self, entry: &HelloEntry) {
        self.present = true;
        let metric = Metrics::of(entry).and_then(|m| m.link_in);
        self.metric = self.metric.or(metric);
    }

    fn note_mpr(&mut self, entry: &HelloEntry) {
        if entry.link_status == Some(Status::Symmetric) {
            let (flooding, routing) = mpr_roles(entry);
            let (f, r) = self.mpr.unwrap_or_default();
            self.mpr = Some((f || flooding, r || routing));
        }
    }
}

/// §17.2: without an incoming metric from its other end a link must not count as symmetric. A HELLO that
/// names us but gives none is therefore read as if the link were lost to its sender.
fn withhold_unmetered(hello: &mut Hello, ours: &[NetAddr]) {
    let on_us = |e: &&mut HelloEntry| ours.contains(&e.address);
    let metered =
        hello.entries.iter_mut().filter(on_us).any(|e| Metrics::of(e).is_some_and(|m| m.link_in.is_some()));
    if metered {
        return;
    }
    for entry in hello.entries.iter_mut().filter(on_us) {
        if matches!(entry.link_status, Some(Status::Heard | Status::Symmetric)) {
            entry.link_status = Some(Status::Lost);
        }
    }
}

/// §15.1, §15.3.2: told in the header, or the only local address, or the sending address.
fn well_defined_originator(hello: &Hello, source: IpAddr) -> Option<IpAddr> {
    if let Some(originator) = hello.originator {
        return Some(originator.ip());
    }
    let mut local = hello.entries.iter().filter(|e| e.local_if.is_some());
    match (local.next(), local.next()) {
        (None, _) => Some(source),
        (Some(only), None) if only.address.is_host() => Some(only.address.ip()),
        _ => None,
    }
}

//! The router: one address family's whole OLSRv2 state, its inputs and its clock.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant};
use nhdp::{Nhdp, Rng};
use rfc5444::NetAddr;

use crate::ext::Olsr;
use crate::flood::SeenSet;
use crate::gateway::Gateways;
use crate::outbox::{Due, Outbox};
use crate::records::Records;
use crate::routes::{FirstHop, Routes};
use crate::scope::Scopes;
use crate::security::Security;
use crate::share::Sharing;
use crate::summary::Telling;
use crate::tc::{Advertised, Gateway};
use crate::topology::Topology;
use crate::tunnel::MAX_NOTES;
use crate::update::MprPlan;
use crate::{
    AttachedNetwork, Config, Counters, Event, Input, InputError, Note, Output, PortCounters, Sequences,
};

/// A better gateway has to stay better for two TC intervals, and for no longer than this.
const GATEWAY_MEMORY: Duration = Duration::from_secs(10);

/// So long after the last change nothing waits for company.
const LIVELY: Duration = Duration::from_secs(10);

/// One OLSRv2 router. The rules live in the modules beside this one: `receive` (packets in), `generate`
/// (messages out), `update` (what follows from a change), `views` (what can be asked).
#[derive(Debug)]
pub struct Router {
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    pub(crate) rng: Rng,
    pub(crate) nhdp: Nhdp<Olsr>,
    pub(crate) topology: Topology,
    pub(crate) records: Records,
    pub(crate) security: Security,
    /// Per interface: its queue and its Received Set.
    pub(crate) ports: BTreeMap<u32, Port>,
    pub(crate) seen: SeenSet,
    pub(crate) attached: Vec<AttachedNetwork>,
    pub(crate) notes: Vec<(NetAddr, Note)>,
    pub(crate) routes: Routes,
    pub(crate) first_hops: Vec<FirstHop>,
    /// The routes were not computed with these yet.
    pub(crate) first_hops_changed: bool,
    pub(crate) gateways: Gateways,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) sequences: Sequences,
    pub(crate) tc: TcSchedule,
    pub(crate) scopes: Scopes,
    /// Something changed here or beyond lately: nothing waits for company before this.
    pub(crate) lively_until: Instant,
    /// Neighbourhood changed: metrics, MPRs, advertised neighbours and routes must be looked at.
    pub(crate) neighborhood_dirty: bool,
    /// Counts up with each change of what HELLOs tell, and of what follows from those of others.
    pub(crate) round: u64,
    pub(crate) mprs: MprPlan,
    /// [`Nhdp::address_changes`] that the topology knows of.
    pub(crate) address_changes: u32,
    /// When metrics are looked at again, at the earliest.
    pub(crate) metrics_due: Instant,
    /// When records that were news are repeated.
    pub(crate) push_at: Option<Instant>,
}

/// What is kept per interface besides NHDP's part.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) outbox: Outbox,
    pub(crate) counters: PortCounters,
    /// [`Input::InterfaceBitrate`].
    pub(crate) bitrate: Option<u64>,
    /// Which bit of [`crate::flood::Seen`] is its own.
    pub(crate) slot: u8,
    pub(crate) hello: HelloPlan,
    pub(crate) telling: Telling,
    pub(crate) sharing: Sharing,
    /// TCs with news, to be sent again with the next HELLO, and whether they were sent once.
    pub(crate) news: Vec<(bool, Vec<u8>)>,
    /// All records are repeated for a new neighbour after each of the next so many HELLOs (which make the
    /// link symmetric for it, too), except those heard since it is there.
    pub(crate) sync: Option<(u8, Instant)>,
    pub(crate) last_sync: Option<Instant>,
}

impl Port {
    /// Queues a message, ours or forwarded for that neighbour; `false` if there is no room.
    pub(crate) fn push(&mut self, message: Vec<u8>, due: Due, limit: usize, of: Option<IpAddr>) -> bool {
        let kind = message.first().copied().unwrap_or_default();
        let queued = self.outbox.push(message, due, limit, of);
        let c = &mut self.counters;
        match (queued, of) {
            (false, _) => c.queue_full.add(kind, true),
            (true, None) => c.sent.add(kind, true),
            (true, Some(_)) => c.forwarded.add(kind, true),
        }
        queued
    }

    /// What was just queued is sent a second time, with the HELLO after: a multicast packet is sent once and never
    /// acknowledged, and a flood that dies here is not known beyond before the originator's next. Whoever has
    /// it passes the copy over.
    pub(crate) fn note_news(&mut self, message: &[u8], limit: usize) {
        let held: usize = self.news.iter().map(|(_, m)| m.len()).sum();
        if held + message.len() <= limit / 4 {
            self.news.push((false, message.to_vec()));
        }
    }

    /// The next HELLOs have something to tell, or something goes with them.
    pub(crate) fn has_news(&self) -> bool {
        self.hello.news > 0 || self.telling.is_on() || !self.news.is_empty() || self.sync.is_some()
    }

    /// A HELLO was queued.
    pub(crate) fn repeat_news(&mut self, now: Instant, limit: usize) {
        for (told, message) in core::mem::take(&mut self.news) {
            if told {
                // Without room it was sent once.
                let _ = self.outbox.push(message, Due::News(now), limit, None);
            } else {
                self.news.push((told, message));
            }
        }
    }
}

/// Which of an interface's HELLOs name the neighbours (RFC 6130 §11.1, REFRESH_INTERVAL).
#[derive(Debug, Default)]
pub(crate) struct HelloPlan {
    /// Of the last one's content.
    pub(crate) digest: u64,
    /// So many more have something to tell that could have been missed.
    pub(crate) news: u8,
    /// How many named nobody since one named all.
    pub(crate) short: u32,
    /// They are the same until something changes.
    pub(crate) made: Option<Made>,
}

/// HELLOs as they go out.
#[derive(Debug)]
pub(crate) struct Made {
    /// [`Router::round`], and at which interval they came.
    pub(crate) when: (u64, bool),
    pub(crate) digest: u64,
    /// That names all neighbours.
    pub(crate) whole: Vec<u8>,
    /// That names nobody, once there was one.
    pub(crate) short: Option<Vec<u8>>,
}

/// When TCs go out and what the last one said (§16.2, §17.4).
#[derive(Debug, Default)]
pub(crate) struct TcSchedule {
    pub(crate) due: Option<Instant>,
    pub(crate) last: Option<Instant>,
    /// It has something to tell that the last one had not: it goes as far as it can.
    pub(crate) news: bool,
    /// How many went out since there were news.
    pub(crate) repeats: u32,
    /// Where in the pattern of hop limits the next one is.
    pub(crate) turn: usize,
    pub(crate) neighbors: Vec<Advertised>,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) notes: Vec<(NetAddr, Note)>,
    /// The ANSN of the last one and how it went out.
    pub(crate) told: Option<(u16, Vec<u8>)>,
    /// How often and when it was repeated for neighbours that missed it.
    pub(crate) mended: u8,
    pub(crate) mended_at: Option<Instant>,
    /// Until when empty TCs follow (A_HOLD_TIME).
    pub(crate) empty_until: Option<Instant>,
}

impl Router {
    /// A router without interfaces. `seed` feeds jitter and first sequence numbers; two nodes need
    /// different ones.
    pub fn new(config: Config, seed: u64, now: Instant) -> Self {
        let mut rng = Rng::new(seed);
        let sequences = config.sequences.unwrap_or_else(|| {
            let mut draw = || (rng.next_u64() >> 48) as u16;
            Sequences { message: draw(), ansn: draw(), packet: draw() }
        });
        let nhdp = Nhdp::new(nhdp_config(&config), rng.next_u64());
        let hold = config.timing.message_hold;
        Self {
            counters: Counters::default(),
            nhdp,
            topology: Topology::new(config.limits.routers),
            records: Records::new(config.limits),
            security: Security::new(&config),
            ports: BTreeMap::new(),
            seen: SeenSet::new(hold, config.limits.messages),
            attached: Vec::new(),
            notes: Vec::new(),
            routes: Routes::default(),
            first_hops: Vec::new(),
            first_hops_changed: false,
            gateways: Gateways::new(config.timing.tc_interval.times(2).min(GATEWAY_MEMORY)),
            outputs: VecDeque::new(),
            sequences,
            tc: TcSchedule::default(),
            scopes: Scopes::new(&config.tc_scopes, config.tc_hop_limit)
                .unwrap_or_else(|| Scopes::uniform(config.tc_hop_limit)),
            lively_until: now + LIVELY,
            neighborhood_dirty: false,
            round: 0,
            mprs: MprPlan::default(),
            address_changes: 0,
            metrics_due: now,
            push_at: None,
            rng,
            config,
        }
    }

    /// Takes one input. On an error nothing changed, except that a malformed packet is counted.
    ///
    /// # Errors
    /// [`InputError`] says which input is no good; the router stays usable.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) -> Result<(), InputError> {
        match input {
            Input::Packet { interface, source, bytes } => self.packet(now, interface, source, bytes)?,
            Input::Carrier { interface, on } => {
                let port = self.ports.get_mut(&interface).ok_or(InputError::UnknownInterface(interface))?;
                port.sharing.carrier = on;
            }
            Input::Join { interface } => {
                self.known(interface)?;
                self.join(now, interface);
            }
            Input::Carry { interface, messages } => {
                self.known(interface)?;
                self.carry(now, interface, messages);
            }
            Input::InterfaceUp { interface, addresses }
            | Input::AddressesChanged { interface, addresses } => {
                self.interface_up(now, interface, addresses)?;
            }
            Input::InterfaceDown { interface } => {
                self.nhdp.remove_interface(now, interface);
                let port = self.ports.remove(&interface).ok_or(InputError::UnknownInterface(interface))?;
                self.seen.forget_interface(port.slot);
                self.routes.want(true);
            }
            Input::LinkLost { interface, address } => {
                self.known(interface)?;
                self.nhdp.link_lost(now, interface, address);
            }
            Input::LinkQuality { interface, address, quality } => {
                self.known(interface)?;
                self.link_quality(now, interface, address, quality);
            }
            Input::InterfaceBitrate { interface, bits_per_second } => {
                self.known(interface)?;
                if let Some(port) = self.ports.get_mut(&interface) {
                    port.bitrate = bits_per_second;
                }
            }
            Input::ProbeAnswered { interface, address } => {
                self.known(interface)?;
                self.counters.probes_answered += 1;
                self.nhdp.probe_answered(now, interface, address);
            }
            Input::ProbeFailed { interface, address } => {
                self.known(interface)?;
                self.counters.probes_failed += 1;
                self.nhdp.probe_failed(now, interface, address);
            }
            Input::Leave => self.nhdp.leave(now),
            Input::AttachedNetworks(networks) => self.set_attached(networks)?,
            Input::Notes(notes) => self.set_notes(notes),
            Input::Tunnels(gateways) => {
                if self.gateways.set_tunnels(gateways) {
                    self.routes.want(true);
                }
            }
            Input::Keys(keys) => self.security.set_keys(keys),
            Input::Publish { kind, sequence, payload, validity } => {
                self.records.publish(now, kind, sequence, payload, validity)?;
            }
            Input::JudgeRecord { originator, kind, sequence, genuine } => {
                if self.records.judge(now, (originator, kind), sequence, genuine) {
                    self.outputs.push_back(Output::Event(Event::RecordExpired { originator, kind }));
                }
            }
            Input::Withdraw { kind } => self.records.withdraw(kind),
        }
        self.run(now);
        Ok(())
    }

    /// Does what is due at `now`. Calling it too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.run(now);
    }

    /// The next output, `None` when there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() {
            // A first run in a large mesh gives out more than all that follows.
            self.outputs.shrink_to(64);
        }
        output
    }

    /// When [`Router::handle_timeout`] is wanted next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ports = self.ports.values().flat_map(|p| [p.outbox.due(), p.telling.mend_at]);
        let rest = [
            self.nhdp.poll_timeout(),
            self.topology.next_expiry(),
            self.records.next(),
            self.tc.due,
            self.mprs.due(),
            self.push_at,
            self.gateways.next(),
            self.routes.due(),
        ];
        ports.chain(rest).flatten().min()
    }

    /// Everything that follows from an input or from time passing, in the order of RFC 7181 §17.
    fn run(&mut self, now: Instant) {
        self.pace_hellos(now);
        self.nhdp.handle_timeout(now);
        if core::mem::replace(&mut self.address_changes, self.nhdp.address_changes()) != self.address_changes
        {
            self.topology.read_anew(now);
        }
        self.refresh_metrics(now);
        if self.topology.expire(now) {
            self.routes.want(false);
        }
        self.topology.tidy();
        if self.gateways.next().is_some_and(|at| at <= now) {
            self.routes.want(true);
        }
        for (originator, kind) in self.records.expire(now) {
            self.outputs.push_back(Output::Event(Event::RecordExpired { originator, kind }));
        }
        self.update(now);
        self.generate(now);
        self.flush(now);
    }

    /// HELLOs come seldom while there is nothing to tell.
    fn pace_hellos(&mut self, now: Instant) {
        let changing = now < self.lively_until;
        for (interface, port) in &self.ports {
            self.nhdp.set_lively(now, *interface, changing || port.has_news());
        }
    }

    fn known(&self, interface: u32) -> Result<(), InputError> {
        if self.ports.contains_key(&interface) {
            Ok(())
        } else {
            Err(InputError::UnknownInterface(interface))
        }
    }

    fn interface_up(
        &mut self,
        now: Instant,
        interface: u32,
        addresses: &[NetAddr],
    ) -> Result<(), InputError> {
        let family = self.config.originator.is_ipv4();
        if addresses.iter().any(|a| a.ip().is_ipv4() != family) {
            return Err(InputError::WrongFamily);
        }
        let own = [NetAddr::host(self.config.originator)];
        let hosts: Vec<NetAddr> = addresses.iter().map(|a| NetAddr::host(a.ip())).collect();
        let addresses = if hosts.is_empty() { &own[..] } else { &hosts };
        if !self.nhdp.set_interface(now, interface, addresses) {
            return Err(InputError::TooManyInterfaces);
        }
        if !self.ports.contains_key(&interface) {
            self.trigger_tc(now);
        }
        self.routes.want(false);
        let packet_seq = self.sequences.packet;
        let taken = |slot: &u8| self.ports.values().any(|p| p.slot == *slot);
        let slot = (0..u8::MAX).find(|slot| !taken(slot)).unwrap_or(u8::MAX);
        self.ports.entry(interface).or_insert_with(|| Port {
            outbox: Outbox::new(packet_seq),
            counters: PortCounters::default(),
            bitrate: None,
            slot,
            hello: HelloPlan::default(),
            telling: Telling::default(),
            sharing: Sharing::default(),
            news: Vec::new(),
            sync: None,
            last_sync: None,
        });
        Ok(())
    }

    fn set_attached(&mut self, networks: &[AttachedNetwork]) -> Result<(), InputError> {
        let family = self.config.originator.is_ipv4();
        if networks.iter().any(|n| n.prefix.ip().is_ipv4() != family) {
            return Err(InputError::WrongFamily);
        }
        let mut new: Vec<AttachedNetwork> = networks
            .iter()
            .map(|n| AttachedNetwork { prefix: n.prefix.network(), ..*n })
            .take(self.config.limits.per_router)
            .collect();
        new.sort_unstable();
        new.dedup_by_key(|n| n.prefix);
        if new != self.attached {
            self.attached = new;
            self.neighborhood_dirty = true;
            self.routes.want(false);
        }
        Ok(())
    }

    fn set_notes(&mut self, notes: &[(NetAddr, Note)]) {
        let notes = notes.iter().take(MAX_NOTES);
        let new: Vec<(NetAddr, Note)> = notes.map(|(prefix, note)| (prefix.network(), *note)).collect();
        if new != self.notes {
            self.notes = new;
            self.neighborhood_dirty = true;
        }
    }

    /// Something changed. Others may have missed it, and what is no news here is news for them.
    pub(crate) fn note_change(&mut self, now: Instant) {
        self.lively_until = now + LIVELY;
    }

    /// How long what says nothing new may wait for company.
    pub(crate) fn patience(&self, now: Instant) -> Duration {
        if now < self.lively_until { Duration::ZERO } else { self.config.timing.company_wait }
    }

    /// Nothing changed for a while, and nothing waits to be told: what comes marked as calm ([`crate::is_calm`]) need
    /// not be looked at before something else is to be done.
    pub fn is_calm(&self, now: Instant) -> bool {
        let quiet = |p: &Port| !p.has_news() && !p.outbox.is_urgent();
        self.may_rest(now) && self.ports.values().all(quiet)
    }

    /// What goes out may say of itself that it is no news.
    pub(crate) fn may_rest(&self, now: Instant) -> bool {
        self.patience(now) > Duration::ZERO
    }

    /// Whether news are sent a second time: not where all is told often anyway.
    pub(crate) fn tells_twice(&self) -> bool {
        self.config.timing.company_wait > Duration::ZERO
    }

    /// A random part of `max`.
    pub(crate) fn jitter(&mut self, max: Duration) -> Duration {
        self.rng.up_to(max)
    }

    /// The next message sequence number (RFC 7181 §5.4.8 wants one counter per router).
    pub(crate) fn next_message_seq(&mut self) -> u16 {
        self.sequences.message = self.sequences.message.wrapping_add(1);
        self.sequences.message
    }

    pub(crate) fn addr_len(&self) -> u8 {
        if self.config.originator.is_ipv4() { 4 } else { 16 }
    }
}

fn nhdp_config(config: &Config) -> nhdp::Config {
    let (t, l) = (config.timing, config.limits);
    nhdp::Config {
        addr_len: if config.originator.is_ipv4() { 4 } else { 16 },
        other_addresses: [NetAddr::host(config.originator)].into(),
        hello_interval: t.hello_interval,
        hello_lively: t.hello_lively,
        hello_min_interval: t.hello_min_interval,
        hello_hold: t.hello_hold,
        lost_hold: t.lost_hold,
        trigger_jitter: t.trigger_jitter,
        liveness: nhdp::Liveness {
            probe_timeout: t.probe_timeout,
            silence_hold: t.silence_hold.max(t.hello_hold),
        },
        quality: nhdp::Quality {
            accept: config.quality.accept,
            reject: config.quality.reject,
            initial: config.quality.initial,
        },
        limits: nhdp::Limits {
            interfaces: l.interfaces,
            links: l.links,
            neighbor_addresses: l.neighbor_addresses,
            two_hops: l.two_hops,
            lost: l.links * 2,
        },
    }
}

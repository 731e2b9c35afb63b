//! Interfaces, packets, and what the cores say about them.

use std::net::IpAddr;

use mesh_ipc::router::{KIND_NAME, RouterResponse};
use mesh_sys::netlink::{Detection, Event, Monitor, Neighbor, sysctl};
use mesh_sys::udp::Family;
use mesh_types::{Duration, Instant};
use olsrv2::{Input, RouteChange, Timing, hurry};

use super::{MONITOR, SOCKETS, Service, V4, V6};
use crate::fib;
use crate::instance::{Effect, Instance};

impl Service {
    pub(super) fn hear_kernel(&mut self, now: Instant) {
        let mut look = false;
        loop {
            match self.monitor.poll_event() {
                Ok(None) => break,
                Ok(Some(Event::Neighbor(neighbor))) => self.verdict(now, &neighbor),
                // Every step reaches the cores, so that a short loss of carrier is seen, too.
                Ok(Some(Event::RouteGone(route))) => {
                    if self.fib.gone(&self.instances, &route) {
                        log::info!(
                            "the route to {}/{} was removed; putting it back",
                            route.prefix,
                            route.prefix_len
                        );
                        self.fib.commit(&mut self.kernel, &self.instances, now);
                    }
                }
                Ok(Some(Event::ForeignDefault)) => look = true,
                Ok(Some(event)) => {
                    look |= matches!(event, Event::Link(_) | Event::LinkGone(_));
                    match self.links.apply(event) {
                        true => self.sync(now),
                        false => self.reload(now),
                    }
                }
                Err(e) => {
                    log::warn!("kernel notifications: {e}; starting anew");
                    self.monitor_broken = true;
                    return self.reopen_monitor(now);
                }
            }
        }
        if look {
            self.look_for_uplinks(now);
        }
    }

    /// A socket that failed is replaced; if that fails, too, later.
    pub(super) fn reopen_monitor(&mut self, now: Instant) {
        let _ = self.poller.remove(&self.monitor); // it would only report its error for ever
        match Monitor::with_routes(fib::PROTOCOL) {
            Ok(monitor) if self.poller.add(&monitor, MONITOR, false).is_ok() => {
                self.monitor = monitor;
                self.monitor_broken = false;
                self.monitor.hear_answers(self.asked_until.is_some());
            }
            _ => log::warn!("kernel notifications can't be heard now"),
        }
        self.reload(now);
    }

    /// Lists interfaces, addresses and routes anew.
    pub(super) fn reload(&mut self, now: Instant) {
        let listed = self.kernel.links().and_then(|l| Ok((l, self.kernel.addresses()?)));
        match listed {
            Ok((links, addresses)) => self.links.replace(links, addresses),
            Err(e) => log::warn!("listing interfaces: {e}"),
        }
        self.sync(now);
        self.look_for_uplinks(now);
        self.fib.check_soon(now);
    }

    /// Brings the instances in step with the interfaces.
    pub(super) fn sync(&mut self, now: Instant) {
        // IPv4 asks for less, so it sees every interface first.
        self.renew_rules();
        let usable = self.links.usable(Family::V4);
        let left: Vec<u32> = self.prepared.iter().filter(|i| !usable.contains_key(*i)).copied().collect();
        for index in left {
            self.prepared.remove(&index);
            if self.links.name(index).is_some() {
                self.watch_neighbors(index, &Detection::RFC4861);
            }
        }
        for (index, interface) in &usable {
            if self.prepared.insert(*index) {
                prepare(&interface.name);
                self.watch_neighbors(*index, &detection(&self.settings.timing));
            }
        }
        for at in 0..self.instances.len() {
            let Some(instance) = self.instances.get_mut(at) else { continue };
            let usable = self.links.usable(instance.family);
            instance.sync(now, &usable, &self.poller, |index| token(index, at));
            self.drain(now, at);
        }
        if let [six, four] = self.instances.as_mut_slice() {
            four.set_carrier(now, |index| six.uses(index));
            self.drain(now, V4);
        }
    }

    /// Sets how the kernel watches the neighbours on an interface.
    pub(super) fn watch_neighbors(&mut self, index: u32, times: &Detection) {
        for v6 in [true, false] {
            if let Err(e) = self.kernel.set_detection(index, v6, times) {
                log::warn!("interface {index}: times of neighbour unreachability detection: {e}");
            }
        }
    }

    /// Asks a neighbour, and hears the answer.
    fn probe(&mut self, now: Instant, interface: u32, address: IpAddr) {
        if self.asked_until.replace(now + self.settings.timing.probe_timeout).is_none() {
            self.monitor.hear_answers(true);
        }
        if let Err(e) = self.kernel.probe_neighbor(interface, address) {
            log::debug!("probing {address}: {e}"); // the hold times decide
        }
    }

    /// Nobody is asked any more.
    pub(super) fn end_asking(&mut self, now: Instant) {
        if self.asked_until.take_if(|until| *until <= now).is_some() {
            self.monitor.hear_answers(false);
        }
    }

    /// The kernel found out whether a neighbour is there.
    fn verdict(&mut self, now: Instant, n: &Neighbor) {
        let Some(at) = self.instances.iter().position(|i| i.family == Family::of(&n.ip)) else { return };
        let (interface, address) = (n.index, n.ip);
        let input = match n.reachable {
            true => Input::ProbeAnswered { interface, address },
            false => Input::ProbeFailed { interface, address },
        };
        if let Some(instance) = self.instances.get_mut(at).filter(|i| i.uses(interface)) {
            instance.input(now, input);
            self.drain(now, at);
        }
    }

    pub(super) fn receive(&mut self, now: Instant, token: u64) {
        let Some(socket) = token.checked_sub(SOCKETS) else { return };
        let (index, at) = ((socket / 2) as u32, (socket % 2) as usize);
        let (mut effects, mut others) = (Vec::new(), Vec::new());
        let [six, four] = self.instances.as_mut_slice() else { return };
        if at == V6 {
            let overheard = |source, bytes: &[u8]| {
                four.overhear(now, index, (source, bytes), |_, effect| others.push(effect));
            };
            six.receive(now, index, &mut self.buffer, |_, effect| effects.push(effect), overheard);
        } else {
            four.receive(now, index, &mut self.buffer, |_, effect| effects.push(effect), |_, _| {});
        }
        self.carry_out(now, at, effects);
        self.carry_out(now, V4, others);
    }

    /// Takes what came as no news since the last time.
    pub(super) fn catch_up(&mut self, now: Instant) {
        let mut count = 0;
        let mut past = self.past;
        let (mut effects, mut others, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        let [six, four] = self.instances.as_mut_slice() else { return };
        let overheard = |came, index, source, bytes: &[u8]| {
            four.overhear(came, index, (source, bytes), |_, effect| others.push(effect));
        };
        count += six.receive_calm(now, &mut past, &mut self.buffer, |_, e| effects.push(e), overheard);
        let nobody = |_, _, _, _: &[u8]| {};
        count += four.receive_calm(now, &mut past, &mut self.buffer, |_, e| alone.push(e), nobody);
        for (at, effects) in [(V6, effects), (V4, others), (V4, alone)] {
            if !effects.is_empty() {
                self.carry_out(now, at, effects);
            }
        }
        // So that the queues do not overflow.
        let soon = now.saturating_since(self.past).times(HANDFUL).divided_by(count.max(1));
        self.calm_until = now + if count < HANDFUL { CALM } else { soon.min(CALM) };
    }

    /// What comes as no news waits while nothing else happens.
    pub(super) fn rest(&mut self, now: Instant) {
        self.past = now;
        let calm = self.instances.iter().all(|i| i.is_calm(now));
        for (at, instance) in self.instances.iter_mut().enumerate() {
            instance.rest(&self.poller, calm, |index| token(index, at));
        }
    }

    /// Sends a packet, with whatever of the other family can go along.
    fn transmit(&mut self, now: Instant, at: usize, interface: u32, mut bytes: Vec<u8>) {
        let [six, four] = self.instances.as_mut_slice() else { return };
        if at != V6 {
            return four.transmit(interface, &bytes);
        }
        let mtu = six.router.config().mtu;
        let mut rest = Vec::new();
        if four.uses(interface) {
            let mut calm = four.is_calm(now);
            four.input(now, Input::Join { interface });
            four.drain(now, &mut |_, effect| match effect {
                Effect::Carry { interface: there, messages } if there == interface => {
                    let (fit, more) = fitting(messages, mtu.saturating_sub(bytes.len()));
                    fit.iter().for_each(|m| bytes.extend_from_slice(m));
                    if !more.is_empty() {
                        rest.push(Effect::Carry { interface, messages: more });
                    }
                }
                effect => rest.push(effect),
            });
            calm &= four.is_calm(now);
            if !calm {
                hurry(&mut bytes);
            }
        }
        six.transmit(interface, &bytes);
        self.carry_out(now, V4, rest);
    }

    /// Messages of the IPv4 instance leave with the IPv6 one's next packet, now.
    fn carry(&mut self, now: Instant, interface: u32, messages: &[Vec<u8>]) {
        if let Some(six) = self.instances.get_mut(V6) {
            six.input(now, Input::Carry { interface, messages });
            self.drain(now, V6);
        }
    }

    pub(super) fn drain(&mut self, now: Instant, at: usize) {
        self.take(now, at);
        self.steer(now);
        self.fib.commit(&mut self.kernel, &self.instances, now);
    }

    fn carry_out(&mut self, now: Instant, at: usize, effects: Vec<Effect>) {
        self.apply(now, at, effects);
        self.steer(now);
        self.fib.commit(&mut self.kernel, &self.instances, now);
    }

    /// Does what an instance wants; routes wait for the commit.
    pub(super) fn apply(&mut self, now: Instant, at: usize, effects: Vec<Effect>) {
        let Some(source) = self.instances.get(at).map(Instance::originator) else { return };
        for effect in effects {
            match effect {
                Effect::Transmit { interface, bytes } => self.transmit(now, at, interface, bytes),
                Effect::Carry { interface, messages } => self.carry(now, interface, &messages),
                Effect::Probe { interface, address } => self.probe(now, interface, address),
                Effect::Route(RouteChange { prefix, old, .. }) => {
                    self.fib.mesh_changed(prefix, old.map(|way| fib::kernel_route(prefix, way, source)));
                }
                Effect::Event(event) => self.tell(at, event),
                Effect::Record(node, record) if at == V6 => self.record_came(now, node, record),
                Effect::Record(..) => {}
            }
        }
    }

    pub(super) fn tell(&mut self, at: usize, event: olsrv2::Event) {
        use olsrv2::Event;

        let name = |index: u32| self.links.name(index).unwrap_or("?").to_owned();
        match event {
            Event::NeighborUp { interface, address, originator } => {
                log::info!("{}: neighbour {address} is up{}", name(interface), known_as(originator));
                // With its hardware address known, probes are unicast from the start.
                if let Err(e) = self.kernel.use_neighbor(interface, address) {
                    log::debug!("resolving {address}: {e}");
                }
            }
            Event::NeighborDown { interface, address, originator } => {
                log::info!("{}: neighbour {address} is down{}", name(interface), known_as(originator));
            }
            Event::RecordExpired { originator, kind } if at == V6 => {
                if let Some((node, _)) = self.board.verified.remove(&(originator, kind)) {
                    if kind == KIND_NAME {
                        self.ipv4.forget(node);
                    }
                    self.broadcast(kind, &RouterResponse::RecordGone { node, kind });
                }
            }
            Event::RecordReceived(_) | Event::RecordExpired { .. } => {}
        }
    }
}

/// Of an interface's sockets, of the instance with that number.
fn token(index: u32, at: usize) -> u64 {
    SOCKETS + u64::from(index) * 2 + at as u64
}

/// So long what comes as no news waits at the most.
const CALM: Duration = Duration::from_secs(4);
/// So many at a time are no crowd.
const HANDFUL: u64 = 64;
/// So long an answer of a neighbour holds that is sent packets, on average.
const WATCH: Duration = Duration::from_secs(1);
/// How soon a packet after that is followed by a question.
const WATCH_DELAY: Duration = Duration::from_millis(100);

/// How the kernel watches neighbours: it asks three times, a quarter of the time apart that a verdict is waited for.
/// Where silence is noticed late, it asks whoever is sent packets by itself.
fn detection(timing: &Timing) -> Detection {
    let retransmission = timing.probe_timeout.divided_by(4);
    match timing.hello_interval > WATCH.times(2) {
        true => Detection { reachable: WATCH, delay: WATCH_DELAY, retransmission },
        false => Detection { retransmission, ..Detection::RFC4861 },
    }
}

/// Settings without which routing over an interface does not work: a packet may come in where its answer
/// would not go out, and go out where it came in.
fn prepare(interface: &str) {
    for (family, key) in [
        (Family::V4, "rp_filter"),
        (Family::V4, "send_redirects"),
        (Family::V4, "accept_redirects"),
        (Family::V6, "accept_redirects"),
    ] {
        if let Err(e) = sysctl::set(family, interface, key, "0") {
            log::warn!("{interface}: {key}: {e}");
        }
    }
}

fn known_as(originator: Option<IpAddr>) -> String {
    originator.map_or_else(String::new, |o| format!(" (node {o})"))
}

/// Messages parted into those that fit into `room` octets, and all from the first that does not.
fn fitting(mut messages: Vec<Vec<u8>>, room: usize) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut taken = 0;
    let over = messages.iter().position(|m| {
        taken += m.len();
        taken > room
    });
    let more = messages.split_off(over.unwrap_or(messages.len()));
    (messages, more)
}

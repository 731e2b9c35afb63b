//! One address family: an OLSRv2 core and the sockets it speaks through.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mesh_sys::netlink::wired_bitrate;
use mesh_sys::poll::Poller;
use mesh_sys::udp::{Family, MulticastConfig, MulticastSocket, Received};
use mesh_types::{Duration, Instant, NodeId};
use olsrv2::recording::Recorder;
use olsrv2::{CALM_AT, Config, Event, Input, InputError, Output, Record, RouteChange, Router};

use crate::links::Usable;
use crate::records::check;

/// RFC 5498 §2: the `manet` port.
const PORT: u16 = 269;
/// RFC 5498 §2: LL-MANET-Routers.
const GROUP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x6d));
const GROUP4: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 109));
/// RFC 4594 §3.1: network control.
const CS6: u8 = 0xc0;
/// Datagrams taken from one socket before others have their turn.
const BURST: usize = 64;
/// More than a socket's queue holds.
const QUEUE: usize = 1024;

/// Packets that come faster than this are taken together.
const RUSH: Duration = Duration::from_millis(5);

/// What the driver has to do after an instance moved.
pub(crate) enum Effect {
    /// Send a packet.
    Transmit { interface: u32, bytes: Vec<u8> },
    /// Send messages in packets of the other instance.
    Carry { interface: u32, messages: Vec<Vec<u8>> },
    /// Ask a neighbour whether it is there.
    Probe { interface: u32, address: IpAddr },
    /// Change the kernel's routes.
    Route(RouteChange),
    /// Tell who asked.
    Event(Event),
    /// The same for a record, whose signature is good.
    Record(NodeId, Record),
}

/// Packets that never reached the core or the wire.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketCounters {
    /// Not from the link, not to the group, or cut short.
    pub(crate) refused: u64,
    pub(crate) send_failed: u64,
    /// Records that are not signed by their originator.
    pub(crate) bad_signatures: u64,
}

/// What a socket in use counts, beside the core.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PortTraffic {
    pub(crate) refused: u64,
    pub(crate) send_failed: u64,
    /// Datagrams that the kernel dropped.
    pub(crate) overflowed: u64,
}

#[derive(Debug)]
struct Port {
    socket: MulticastSocket,
    /// Where packets go that say that nothing in them is news; `None`: to the other one.
    calm: Option<Calm>,
    usable: Usable,
    traffic: PortTraffic,
    /// The last packet could not be sent; said once.
    failing: bool,
    /// When the last packets were taken.
    taken: Instant,
}

#[derive(Debug)]
struct Calm {
    socket: MulticastSocket,
    /// Nobody waits for what comes there.
    paused: bool,
}

/// An OLSRv2 instance with its sockets.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) family: Family,
    /// Read from here; what changes it goes through the instance's own functions, so that it is recorded.
    pub(crate) router: Router,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) counters: SocketCounters,
    originator: IpAddr,
    ports: BTreeMap<u32, Port>,
    /// Interfaces whose socket does not open, with the kernel's words.
    broken: BTreeMap<u32, String>,
}

impl Instance {
    pub(crate) fn new(config: Config, seed: u64, now: Instant, record: bool) -> Self {
        let originator = config.originator;
        Self {
            family: Family::of(&originator),
            recorder: record.then(|| Recorder::new(&config, seed, now)),
            router: Router::new(config, seed, now),
            counters: SocketCounters::default(),
            originator,
            ports: BTreeMap::new(),
            broken: BTreeMap::new(),
        }
    }

    pub(crate) const fn originator(&self) -> IpAddr {
        self.originator
    }

    /// Interfaces in use.
    pub(crate) fn interfaces(&self) -> usize {
        self.ports.len()
    }

    /// Whether an interface is among them.
    pub(crate) fn uses(&self, index: u32) -> bool {
        self.ports.contains_key(&index)
    }

    /// What the socket of an interface counted.
    pub(crate) fn port_traffic(&self, index: u32) -> PortTraffic {
        let port = self.ports.get(&index);
        let overflowed = |p: &Port| {
            let calm = p.calm.as_ref().map_or(0, |c| c.socket.overflowed());
            PortTraffic { overflowed: p.socket.overflowed() + calm, ..p.traffic }
        };
        port.map(overflowed).unwrap_or_default()
    }

    /// What keeps interfaces from being used, for people.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &str> {
        self.broken.values().map(String::as_str)
    }

    /// Opens and closes sockets until they are those of `usable`, and tells the core. `token` names each
    /// interface's socket to the poller.
    pub(crate) fn sync(
        &mut self,
        now: Instant,
        usable: &BTreeMap<u32, Usable>,
        poller: &Poller,
        token: impl Fn(u32) -> u64,
    ) {
        // An index that has another name is another interface.
        let same = |index: u32, p: &Port| usable.get(&index).is_some_and(|u| u.name == p.usable.name);
        let gone: Vec<u32> = self.ports.iter().filter(|(i, p)| !same(**i, p)).map(|(i, _)| *i).collect();
        for index in gone {
            self.close(now, index);
        }
        self.broken.retain(|index, _| usable.contains_key(index));
        for (index, usable) in usable {
            match self.ports.get_mut(index) {
                Some(port) if port.usable == *usable => {}
                Some(port) => {
                    port.usable = usable.clone();
                    let input = Input::AddressesChanged { interface: *index, addresses: &usable.addresses };
                    self.input(now, input);
                }
                None => self.open(now, *index, usable, poller, token(*index)),
            }
        }
    }

    fn open(&mut self, now: Instant, index: u32, usable: &Usable, poller: &Poller, token: u64) {
        let config = MulticastConfig {
            family: self.family,
            interface: &usable.name,
            index,
            port: PORT,
            groups: &[GROUP6, GROUP4],
            hop_limit: 1,
            loopback: false,
            traffic_class: CS6,
        };
        match MulticastSocket::open_in(poller, token, &config) {
            Ok(socket) => {
                log::info!("{}: routing {} here", usable.name, self.name());
                self.broken.remove(&index);
                let traffic = PortTraffic::default();
                let calm = self.open_calm(&socket, &config, poller, token);
                let (name, taken) = (usable.clone(), Instant::ZERO);
                let port = Port { socket, calm, usable: name, traffic, failing: false, taken };
                self.ports.insert(index, port);
                self.input(now, Input::InterfaceUp { interface: index, addresses: &usable.addresses });
                let bits_per_second = wired_bitrate(&usable.name);
                self.input(now, Input::InterfaceBitrate { interface: index, bits_per_second });
            }
            Err(e) => {
                let hint = match e.kind() {
                    ErrorKind::PermissionDenied => " (UDP 269 needs CAP_NET_BIND_SERVICE)",
                    _ => "",
                };
                let text = format!("{}: no {} socket: {e}{hint}", usable.name, self.name());
                if self.broken.insert(index, text.clone()).as_ref() != Some(&text) {
                    log::warn!("{text}");
                }
            }
        }
    }

    /// Without it everything comes to the one socket, and wakes us up.
    fn open_calm(
        &self,
        socket: &MulticastSocket,
        config: &MulticastConfig<'_>,
        poller: &Poller,
        token: u64,
    ) -> Option<Calm> {
        if self.router.config().timing.company_wait == Duration::ZERO {
            return None; // nobody says that it has no news
        }
        let opened = socket.open_beside(config, &CALM_AT);
        match opened.and_then(|beside| poller.add(&beside, token, false).map(|()| beside)) {
            Ok(socket) => Some(Calm { socket, paused: false }),
            Err(e) => {
                log::debug!("{}: no second {} socket: {e}", config.interface, self.name());
                None
            }
        }
    }

    /// Whether what comes as no news may wait until something else is to be done.
    pub(crate) fn is_calm(&self, now: Instant) -> bool {
        self.router.is_calm(now)
    }

    /// Lets it wait, or no longer. `token` names each interface's sockets to the poller.
    pub(crate) fn rest(&mut self, poller: &Poller, on: bool, token: impl Fn(u32) -> u64) {
        for (index, port) in &mut self.ports {
            let Some(calm) = port.calm.as_mut().filter(|c| c.paused != on) else { continue };
            let done = match on {
                true => poller.pause(&calm.socket, token(*index)),
                false => poller.modify(&calm.socket, token(*index), false),
            };
            match done {
                Ok(()) => calm.paused = on,
                Err(e) => log::debug!("{}: {e}", port.usable.name),
            }
        }
    }

    fn close(&mut self, now: Instant, index: u32) {
        if let Some(port) = self.ports.remove(&index) {
            log::info!("{}: no more {} here", port.usable.name, self.name());
            self.input(now, Input::InterfaceDown { interface: index });
        }
    }

    /// Hands the core one input. Refusals are counted by the core; the log keeps the details.
    pub(crate) fn input(&mut self, now: Instant, input: Input<'_>) {
        if let Err(e) = self.try_input(now, input) {
            log::debug!("{}: {e}", self.name());
        }
    }

    /// The same, for those who want to know.
    pub(crate) fn try_input(&mut self, now: Instant, input: Input<'_>) -> Result<(), InputError> {
        if let Some(recorder) = &mut self.recorder {
            recorder.input(now, &input);
        }
        self.router.handle_input(now, input)
    }

    /// Lets the core do what is due; true if something was.
    pub(crate) fn timeout(&mut self, now: Instant) -> bool {
        let due = self.router.poll_timeout().is_some_and(|t| t <= now);
        if due {
            self.recorder.iter_mut().for_each(|r| r.timeout(now));
            self.router.handle_timeout(now);
        }
        due
    }

    fn output(&mut self) -> Option<Output> {
        let output = self.router.poll_output()?;
        self.recorder.iter_mut().for_each(|r| r.output(&output));
        Some(output)
    }

    /// Takes what arrived on an interface. After each packet `done` gets what follows from it, and `others` the
    /// packet.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        index: u32,
        buffer: &mut [u8],
        mut done: impl FnMut(&mut Self, Effect),
        mut others: impl FnMut(IpAddr, &[u8]),
    ) {
        let Some(port) = self.ports.get_mut(&index) else { return };
        // A packet mostly comes alone, and the poller tells of another: one look less at the socket.
        let rush = std::mem::replace(&mut port.taken, now) + RUSH > now;
        for _ in 0..if rush { BURST } else { 1 } {
            let Some(port) = self.ports.get_mut(&index) else { return };
            let Some(got) = heard(&port.socket, &port.usable.name, buffer) else { return };
            let source = got.source.ip();
            if got.truncated || !from_the_link(source, got.destination) {
                self.counters.refused += 1;
                port.traffic.refused += 1;
                continue;
            }
            let bytes = buffer.get(..got.len).unwrap_or_default();
            self.input(now, Input::Packet { interface: index, source, bytes });
            self.drain(now, &mut done);
            others(source, bytes);
        }
    }

    /// Takes what came as no news and waited: as if it were taken when it came, and one after the other. `past`: that
    /// far the cores' time has come. `done` and `others`: as for [`Instance::receive`]; both get the time. Returns how
    /// many there were.
    pub(crate) fn receive_calm(
        &mut self,
        now: Instant,
        past: &mut Instant,
        buffer: &mut [u8],
        mut done: impl FnMut(&mut Self, Effect),
        mut others: impl FnMut(Instant, u32, IpAddr, &[u8]),
    ) -> u64 {
        let mut count = 0;
        let indices: Vec<u32> =
            self.ports.iter().filter(|(_, p)| p.calm.is_some()).map(|(i, _)| *i).collect();
        for index in indices {
            for _ in 0..QUEUE {
                let Some(port) = self.ports.get_mut(&index) else { break };
                let Some(calm) = &port.calm else { break };
                let Some(got) = heard(&calm.socket, &port.usable.name, buffer) else { break };
                let source = got.source.ip();
                count += 1;
                if got.truncated || !from_the_link(source, got.destination) {
                    self.counters.refused += 1;
                    port.traffic.refused += 1;
                    continue;
                }
                let came = (now - got.waited).max(*past);
                *past = came;
                let bytes = buffer.get(..got.len).unwrap_or_default();
                self.input(came, Input::Packet { interface: index, source, bytes });
                self.drain(came, &mut done);
                others(came, index, source, bytes);
            }
        }
        count
    }

    /// Takes a packet of the other family, with which messages of this one may have come.
    pub(crate) fn overhear(
        &mut self,
        now: Instant,
        index: u32,
        (source, bytes): (IpAddr, &[u8]),
        mut done: impl FnMut(&mut Self, Effect),
    ) {
        if self.uses(index) {
            self.input(now, Input::Packet { interface: index, source, bytes });
            self.drain(now, &mut done);
        }
    }

    /// Says on which interfaces the other instance takes messages along.
    pub(crate) fn set_carrier(&mut self, now: Instant, other: impl Fn(u32) -> bool) {
        let all: Vec<u32> = self.ports.keys().copied().collect();
        for interface in all {
            self.input(now, Input::Carrier { interface, on: other(interface) });
        }
    }

    /// Sends what the core gives out, and hands the rest to `done`, until the core is empty.
    pub(crate) fn drain(&mut self, now: Instant, done: &mut impl FnMut(&mut Self, Effect)) {
        while let Some(output) = self.output() {
            match output {
                Output::Transmit { interface, bytes } => done(self, Effect::Transmit { interface, bytes }),
                Output::Carry { interface, messages } => done(self, Effect::Carry { interface, messages }),
                Output::Probe { interface, address } => done(self, Effect::Probe { interface, address }),
                Output::Route(change) => done(self, Effect::Route(change)),
                Output::Event(Event::RecordReceived(record)) => {
                    if let Some(node) = self.judge(now, &record) {
                        done(self, Effect::Record(node, record));
                    }
                }
                Output::Event(event) => done(self, Effect::Event(event)),
            }
        }
    }

    /// Whose record it is; the core forgets one that is not signed by its originator.
    fn judge(&mut self, now: Instant, record: &Record) -> Option<NodeId> {
        let Record { originator, kind, sequence, ref payload, .. } = *record;
        let node = check(originator, kind, sequence, payload);
        if node.is_none() {
            self.counters.bad_signatures += 1;
            log::debug!("a record of {originator} is not signed by it; ignored");
        }
        self.input(now, Input::JudgeRecord { originator, kind, sequence, genuine: node.is_some() });
        node
    }

    /// Sends a packet.
    pub(crate) fn transmit(&mut self, index: u32, bytes: &[u8]) {
        let (group, fallback) = match self.family {
            Family::V6 => (GROUP6, None),
            Family::V4 => (GROUP4, Some(self.originator)),
        };
        let Some(port) = self.ports.get_mut(&index) else { return };
        let source = port.usable.addresses.first().map(|a| a.ip()).or(fallback);
        match port.socket.send_to_group(bytes, group, source) {
            Ok(()) => port.failing = false,
            Err(e) => {
                self.counters.send_failed += 1;
                port.traffic.send_failed += 1;
                if !std::mem::replace(&mut port.failing, true) {
                    log::warn!("{}: sending failed: {e}", port.usable.name);
                }
            }
        }
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// The next datagram.
fn heard(socket: &MulticastSocket, interface: &str, buffer: &mut [u8]) -> Option<Received> {
    // The monitor tells what became of the interface.
    socket.recv(buffer).unwrap_or_else(|e| {
        log::debug!("{interface}: {e}");
        None
    })
}

/// RFC 5444 packets between routers stay on the link: they go to the group, which nobody forwards, or come from an
/// IPv6 link-local address. Anything else was sent from afar.
fn from_the_link(source: IpAddr, destination: IpAddr) -> bool {
    match source {
        IpAddr::V6(source) => source.is_unicast_link_local() || destination == GROUP6,
        IpAddr::V4(_) => destination == GROUP4,
    }
}

#[cfg(test)]
mod tests {
    use mesh_sys::identity::Identity;
    use mesh_types::Duration;
    use olsrv2::NetAddr;

    use super::*;
    use crate::records::sign;

    #[test]
    fn rfc5498_packets_from_afar_are_refused() {
        let ok = |s: &str, d: &str| from_the_link(s.parse().unwrap(), d.parse().unwrap());
        assert!(ok("fe80::1", "ff02::6d") && ok("fe80::1", "fe80::2") && ok("10.64.0.1", "224.0.0.109"));
        assert!(ok("fd00::1", "ff02::6d"), "no rule has the source be link-local");
        assert!(!ok("fd00::1", "fd00::2") && !ok("10.64.0.1", "10.64.0.2"));
    }

    /// `from` and `to` are neighbours; what `from` sends arrives, `seconds` long.
    fn talk(now: &mut Instant, from: &mut Router, to: &mut Instance, seconds: u64) {
        let addresses: [IpAddr; 2] = ["fe80::1".parse().unwrap(), "fe80::2".parse().unwrap()];
        let end = *now + Duration::from_secs(seconds);
        while *now < end {
            from.handle_timeout(*now);
            to.router.handle_timeout(*now);
            while let Some(output) = to.router.poll_output() {
                if let Output::Transmit { bytes, .. } = output {
                    let packet = Input::Packet { interface: 1, source: addresses[1], bytes: &bytes };
                    from.handle_input(*now, packet).unwrap();
                }
            }
            while let Some(output) = from.poll_output() {
                if let Output::Transmit { bytes, .. } = output {
                    to.input(*now, Input::Packet { interface: 1, source: addresses[0], bytes: &bytes });
                    to.drain(*now, &mut |_, _| {});
                }
            }
            *now += Duration::from_millis(10);
        }
    }

    #[test]
    fn rfc8032_a_forged_record_does_not_take_the_genuine_ones_place() {
        let mut now = Instant::from_millis(1000);
        let identity = Identity::from_seed(&[7; 32]);
        let owner = IpAddr::V6(identity.node_id().ula_address());
        let mut sender = Router::new(Config::new(owner), 1, now);
        let mut us = Instance::new(Config::new("fd00::2".parse().unwrap()), 2, now, false);
        let up = |address: &str| [NetAddr::host(address.parse().unwrap())];
        sender.handle_input(now, Input::InterfaceUp { interface: 1, addresses: &up("fe80::1") }).unwrap();
        us.input(now, Input::InterfaceUp { interface: 1, addresses: &up("fe80::2") });
        talk(&mut now, &mut sender, &mut us, 5);
        let genuine = sign(&identity, 1, 5, b"hello");
        let validity = Duration::from_secs(600);
        for (sequence, payload) in [(5, genuine.clone()), (1_000_000, vec![1; 200])] {
            let input = Input::Publish { kind: 1, sequence, payload: &payload, validity };
            sender.handle_input(now, input).unwrap();
            talk(&mut now, &mut sender, &mut us, 1);
            assert!(us.router.records().map(|r| &r.payload).eq([&genuine]), "version {sequence}");
        }
        assert!(us.counters.bad_signatures > 0);
    }
}

//! Wired ports: the sockets through which is found out what is on their cables, and what a network there gave: an
//! address and routes in the kernel, name servers in `resolv.conf`.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::PathBuf;

use mesh_sys::icmp6::{NeighborSocket, Side};
use mesh_sys::netlink::{self, Route, RouteFilter, RouteKind, Rtnetlink, TABLE_MAIN, sysctl};
use mesh_sys::packet::PacketSocket;
use mesh_sys::poll::Poller;
use mesh_sys::udp::{self, Family, MulticastConfig, MulticastSocket};
use mesh_sys::{entropy, file};
use mesh_types::{Duration, Instant};
use radio_core::dhcp::{ClientConfig, ClientCounters, Lease, MAX_PACKET};
use radio_core::{Cable, Plan, PlannedInterface, Port, PortInput, PortOutput};

/// So many ports are looked after; of the others nothing is found out.
const MAX_PORTS: usize = 16;
/// Sockets of each port: packets, router advertisements, routers over IPv6 and over IPv4.
const SOCKETS: u64 = 4;
/// What does not work is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// No more at once: others wait, too.
const BURST: usize = 64;
/// RTPROT_RA and RTPROT_DHCP
const BY_ROUTER: u8 = 9;
const BY_DHCP: u8 = 16;
/// Of routes through the first interface; less than what the kernel gives those that a router advertised.
const METRIC: u32 = 100;
/// RFC 5498
const MANET_PORT: u16 = 269;
const MANET_GROUPS: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x6d)), IpAddr::V4(Ipv4Addr::new(224, 0, 0, 109))];
/// By this a file of ours is known.
const MARK: &str = "# name servers of the uplink, written by mesh-radio\n";

/// All wired ports whose role is to be found out.
#[derive(Debug)]
pub(crate) struct Ports {
    all: BTreeMap<u32, Wired>,
    host_name: String,
    /// Where the name servers are written, and what stands there.
    list: PathBuf,
    listed: Vec<IpAddr>,
    list_problem: Option<String>,
    first_token: u64,
    serves: bool,
}

#[derive(Debug)]
struct Wired {
    index: u32,
    name: String,
    port: Port,
    running: bool,
    packets: Option<PacketSocket>,
    /// While an address is probed for; read when the port's time has come.
    arp: Option<PacketSocket>,
    advertisements: Option<NeighborSocket>,
    manet: [Option<MulticastSocket>; 2],
    /// Keeps the port of the last request.
    unicast: Option<UdpSocket>,
    /// In the kernel.
    lease: Option<Lease>,
    problem: Option<String>,
    retry: Option<Instant>,
}

/// What the planner is to be told.
pub(crate) type News = Vec<(u32, Cable)>;

impl Ports {
    /// None yet. `list` is the file for name servers.
    pub(crate) fn new(host_name: String, list: PathBuf, first_token: u64) -> Self {
        // Of a run that did not end well.
        if std::fs::read_to_string(&list).is_ok_and(|text| text.starts_with(MARK)) {
            let _ = std::fs::remove_file(&list);
        }
        let (all, listed) = (BTreeMap::new(), Vec::new());
        Self { all, host_name, list, listed, list_problem: None, first_token, serves: false }
    }

    /// What people should know.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        let each = self.all.values().flat_map(|w| {
            let conflict = w.port.problem().map(|p| format!("{}: {p}", w.name));
            w.problem.clone().into_iter().chain(conflict)
        });
        each.chain(self.list_problem.clone())
    }

    /// Addresses from DHCP, and what the clients counted.
    pub(crate) fn counters(&self) -> (u64, ClientCounters) {
        let leases = self.all.values().filter(|w| w.lease.is_some()).count() as u64;
        let sum = self.all.values().map(|w| w.port.counters()).fold(ClientCounters::default(), |a, b| {
            ClientCounters {
                sent: a.sent + b.sent,
                received: a.received + b.received,
                dropped: a.dropped + b.dropped,
                acks: a.acks + b.acks,
                naks: a.naks + b.naks,
                declined: a.declined + b.declined,
            }
        });
        (leases, sum)
    }

    /// Takes over what the plan says of wired ports. `serves`: this node has an access point.
    pub(crate) fn follow(
        &mut self,
        now: Instant,
        plan: &Plan,
        serves: bool,
        nl: &mut Rtnetlink,
        poller: &Poller,
    ) -> News {
        let mut news = News::new();
        let asks = |index: u32| plan.interfaces.iter().any(|i| i.index == index && i.asks);
        let gone: Vec<u32> = self.all.keys().copied().filter(|index| !asks(*index)).collect();
        for index in gone {
            if let Some(wired) = self.all.get_mut(&index) {
                wired.port.handle_input(now, PortInput::End);
                wired.carry_out(nl);
                wired.heed_routers(false);
            }
            self.all.remove(&index);
            // Whoever looks after it next begins with nothing, too.
            news.push((index, Cable::Quiet));
        }
        let new = |i: &&PlannedInterface| i.asks && !self.all.contains_key(&i.index);
        let new: Vec<&PlannedInterface> = plan.interfaces.iter().filter(new).collect();
        let any = !new.is_empty();
        for interface in new {
            if self.all.len() < MAX_PORTS
                && let Some(wired) = Wired::new(interface, &self.host_name, nl)
            {
                self.all.insert(interface.index, wired);
            }
        }
        self.serves = serves;
        if any {
            self.look_at_addresses(now, nl);
        }
        for wired in self.all.values_mut() {
            wired.port.handle_input(now, PortInput::Serves(serves));
            let running = plan.interfaces.iter().any(|i| i.index == wired.index && i.running);
            if running && !wired.running {
                wired.open(now, poller, self.first_token);
            }
            wired.running = running;
            wired.port.handle_input(now, PortInput::Running(running));
        }
        news.extend(self.settle(nl));
        news
    }

    /// Addresses have changed: people may have set some.
    pub(crate) fn addresses_changed(&mut self, now: Instant, nl: &mut Rtnetlink) -> News {
        self.look_at_addresses(now, nl);
        self.settle(nl)
    }

    fn look_at_addresses(&mut self, now: Instant, nl: &mut Rtnetlink) {
        let all = match nl.addresses() {
            Ok(all) => all,
            Err(e) => return log::warn!("listing addresses: {e}"),
        };
        let link_local = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        for wired in self.all.values_mut() {
            let by_hand = all.iter().any(|a| a.index == wired.index && a.permanent && !link_local(a.ip));
            wired.port.handle_input(now, PortInput::ByHand(by_hand));
        }
    }

    /// The kernel was given the settings of another role.
    pub(crate) fn prepared(&mut self, index: u32) {
        if let Some(wired) = self.all.get(&index) {
            wired.heed_routers(wired.port.cable() != Cable::ByHand);
        }
    }

    /// Whether a poller token is one of a port's.
    pub(crate) fn owns(&self, token: u64) -> bool {
        self.place(token).is_some()
    }

    fn place(&self, token: u64) -> Option<(u32, u64)> {
        let offset = token.checked_sub(self.first_token)?;
        let index = u32::try_from(offset / SOCKETS).ok()?;
        self.all.contains_key(&index).then_some((index, offset % SOCKETS))
    }

    /// Something came.
    pub(crate) fn hear(&mut self, now: Instant, token: u64, nl: &mut Rtnetlink) -> News {
        if let Some((index, socket)) = self.place(token)
            && let Some(wired) = self.all.get_mut(&index)
        {
            let mut buffer = [0; MAX_PACKET];
            for _ in 0..BURST {
                match wired.hear(now, socket, &mut buffer) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(e) => {
                        log::debug!("{}: {e}; its sockets are opened anew", wired.name);
                        wired.close();
                        wired.retry = Some(now + RETRY);
                        break;
                    }
                }
            }
        }
        self.settle(nl)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.all.values().flat_map(|w| [w.port.poll_timeout(), w.retry]).flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, nl: &mut Rtnetlink, poller: &Poller) -> News {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return News::new();
        }
        for wired in self.all.values_mut() {
            wired.hear_arp(now);
            wired.port.handle_timeout(now);
            if wired.retry.is_some_and(|at| at <= now) {
                wired.open(now, poller, self.first_token);
            }
        }
        self.settle(nl)
    }

    /// Gives everything back.
    pub(crate) fn end(&mut self, now: Instant, nl: &mut Rtnetlink) {
        for wired in self.all.values_mut() {
            wired.port.handle_input(now, PortInput::End);
        }
        self.settle(nl);
        self.all.values().for_each(|w| w.heed_routers(false));
    }

    /// Does what the ports want.
    fn settle(&mut self, nl: &mut Rtnetlink) -> News {
        let mut news = News::new();
        for wired in self.all.values_mut() {
            if wired.carry_out(nl) {
                news.push((wired.index, wired.port.cable()));
            }
        }
        self.list_servers();
        news
    }

    fn list_servers(&mut self) {
        let mut servers: Vec<IpAddr> = Vec::new();
        for server in self.all.values().flat_map(|w| w.port.servers()) {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        if servers == self.listed {
            return;
        }
        let done = if servers.is_empty() {
            std::fs::remove_file(&self.list).or_else(|e| match e.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(e),
            })
        } else {
            let lines = servers.iter().map(|s| format!("nameserver {s}\n"));
            let text: String = std::iter::once(MARK.to_owned()).chain(lines).collect();
            file::write_atomic(&self.list, text.as_bytes(), 0o644)
        };
        self.list_problem =
            done.err().map(|e| format!("{}: {e}: names of the world are unknown", self.list.display()));
        self.list_problem.iter().for_each(|p| log::warn!("{p}"));
        self.listed = servers;
    }
}

impl Wired {
    /// `None` if it is gone, or has no hardware address.
    fn new(interface: &PlannedInterface, host_name: &str, nl: &mut Rtnetlink) -> Option<Self> {
        let links = nl.links().inspect_err(|e| log::warn!("listing interfaces: {e}")).ok()?;
        let mac = links.into_iter().find(|l| l.index == interface.index)?.mac?;
        let seed = entropy::seed().inspect_err(|e| log::warn!("random numbers: {e}")).ok()?;
        let config = ClientConfig { mac, host_name: host_name.to_owned() };
        let wired = Self {
            index: interface.index,
            name: interface.name.clone(),
            port: Port::new(config, seed),
            running: false,
            packets: None,
            arp: None,
            advertisements: None,
            manet: [None, None],
            unicast: None,
            lease: None,
            problem: None,
            retry: None,
        };
        wired.heed_routers(true);
        Some(wired)
    }

    /// Whether the kernel makes addresses and routes of router advertisements there, though it routes itself.
    fn heed_routers(&self, on: bool) {
        if let Err(e) = sysctl::set(Family::V6, &self.name, "accept_ra", if on { "2" } else { "0" }) {
            log::debug!("{}: accept_ra: {e}", self.name);
        }
    }

    /// Opens what is not open; what fails is tried again.
    fn open(&mut self, now: Instant, poller: &Poller, first_token: u64) {
        let token = first_token + u64::from(self.index) * SOCKETS;
        let failed = self.try_open(poller, token).err().map(|e| {
            format!("{}: {e}: what is on the cable is not known; mesh-radio needs CAP_NET_RAW", self.name)
        });
        if failed != self.problem {
            failed.iter().for_each(|p| log::warn!("{p}; it is tried again"));
            self.problem = failed;
        }
        self.retry = self.problem.is_some().then_some(now + RETRY);
    }

    fn try_open(&mut self, poller: &Poller, token: u64) -> io::Result<()> {
        if self.packets.is_none() {
            let socket = PacketSocket::open(self.index)?;
            poller.add(&socket, token, false)?;
            self.packets = Some(socket);
        }
        if self.advertisements.is_none() {
            let socket = NeighborSocket::open(&self.name, self.index, Side::Host)?;
            poller.add(&socket, token + 1, false)?;
            self.advertisements = Some(socket);
        }
        for ((family, token), room) in
            [(Family::V6, token + 2), (Family::V4, token + 3)].into_iter().zip(&mut self.manet)
        {
            if room.is_none() {
                let config = MulticastConfig {
                    family,
                    interface: &self.name,
                    index: self.index,
                    port: MANET_PORT,
                    groups: &MANET_GROUPS,
                    hop_limit: 1,
                    loopback: false,
                    traffic_class: 0,
                };
                *room = Some(MulticastSocket::open_in(poller, token, &config)?);
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        (self.packets, self.advertisements, self.manet) = (None, None, [None, None]);
    }

    /// What was said of addresses since the last probe.
    fn hear_arp(&mut self, now: Instant) {
        let mut buffer = [0; 64];
        for _ in 0..16 * BURST {
            let Some(Ok(Some(len))) = self.arp.as_ref().map(|s| s.recv(&mut buffer)) else { return };
            self.port.handle_input(now, PortInput::Arp(buffer.get(..len).unwrap_or_default()));
        }
    }

    fn send_arp(&mut self, packet: &[u8]) -> io::Result<()> {
        let socket = match self.arp.take() {
            Some(socket) => socket,
            None => PacketSocket::open_arp(self.index)?,
        };
        self.arp.insert(socket).send_to_all(packet)
    }

    /// Takes one packet from a socket; false: there is none.
    fn hear(&mut self, now: Instant, socket: u64, buffer: &mut [u8]) -> io::Result<bool> {
        match (socket, &self.packets, &self.advertisements, &self.manet) {
            (0, Some(socket), ..) => {
                let Some(len) = socket.recv(buffer)? else { return Ok(false) };
                let packet = buffer.get(..len).unwrap_or_default();
                self.port.handle_input(now, PortInput::Packet(packet));
            }
            (1, _, Some(socket), _) => {
                let Some(heard) = socket.recv(buffer)? else { return Ok(false) };
                let message = buffer.get(..heard.len).unwrap_or_default();
                let (source, hop_limit) = (heard.source, heard.hop_limit);
                self.port.handle_input(now, PortInput::Icmp { message, source, hop_limit });
            }
            (2, _, _, [Some(socket), _]) | (3, _, _, [_, Some(socket)]) => {
                let Some(received) = socket.recv(buffer)? else { return Ok(false) };
                self.port.handle_input(now, PortInput::Manet(buffer.get(..received.len).unwrap_or_default()));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// True if what is known of the cable has changed.
    fn carry_out(&mut self, nl: &mut Rtnetlink) -> bool {
        let mut changed = false;
        // Bounded: nothing in here asks the port for more.
        while let Some(output) = self.port.poll_output() {
            let what = format!("{output:?}");
            let done = match output {
                PortOutput::Broadcast(packet) => {
                    self.arp = None;
                    let sent = self.packets.as_ref().map_or(Ok(()), |s| s.send_to_all(&packet));
                    sent.map_err(|e| e.to_string())
                }
                PortOutput::Arp(packet) => self.send_arp(&packet).map_err(|e| e.to_string()),
                PortOutput::Solicit(message) => {
                    let sent = self.advertisements.as_ref().map_or(Ok(()), |s| s.send_to_all(&message));
                    sent.map_err(|e| e.to_string())
                }
                PortOutput::Unicast { from, to, payload } => udp::send_once(&self.name, from, to, &payload)
                    .map(|socket| self.unicast = Some(socket))
                    .map_err(|e| e.to_string()),
                PortOutput::Take(lease) => {
                    self.arp = None;
                    self.take(nl, lease).map_err(|e| e.to_string())
                }
                PortOutput::Drop(lease, why) => {
                    log::info!("{}: {}/{} is given up: {why:?}", self.name, lease.address, lease.prefix_len);
                    self.give_up(nl).map_err(|e| e.to_string())
                }
                PortOutput::Withdraw => self.withdraw(nl).map_err(|e| e.to_string()),
                PortOutput::Changed => {
                    changed = true;
                    if self.port.cable() == Cable::ByHand {
                        self.heed_routers(false);
                    }
                    Ok(())
                }
            };
            if let Err(e) = done {
                log::debug!("{}: {e}: {what}", self.name);
            }
        }
        changed
    }

    /// The routes that go with an address: to its network, the default, and others that the server named.
    fn routes(&self, lease: &Lease) -> impl Iterator<Item = Route> + use<> {
        let mask = u32::MAX.checked_shl(32 - u32::from(lease.prefix_len.min(32))).unwrap_or(0);
        let network = Route {
            kind: RouteKind::Unicast,
            prefix: Ipv4Addr::from_bits(lease.address.to_bits() & mask).into(),
            prefix_len: lease.prefix_len,
            gateway: None,
            index: self.index,
            source: Some(lease.address.into()),
            metric: METRIC.saturating_add(self.index),
            table: TABLE_MAIN,
            protocol: BY_DHCP,
        };
        let out = lease.router.map(|router| Route {
            prefix: Ipv4Addr::UNSPECIFIED.into(),
            prefix_len: 0,
            gateway: Some(router.into()),
            ..network
        });
        let gateway = |ip: Ipv4Addr| (!ip.is_unspecified()).then_some(ip.into());
        let others: Vec<Route> = lease
            .routes
            .iter()
            .map(|r| Route {
                prefix: r.prefix.into(),
                prefix_len: r.prefix_len,
                gateway: gateway(r.router),
                ..network
            })
            .collect();
        std::iter::once(network).chain(out).chain(others)
    }

    fn take(&mut self, nl: &mut Rtnetlink, lease: Lease) -> Result<(), netlink::Error> {
        let same = |old: &Lease| {
            (old.address, old.prefix_len, old.router, &old.routes)
                == (lease.address, lease.prefix_len, lease.router, &lease.routes)
        };
        if self.lease.as_ref().is_some_and(|old| !same(old)) {
            self.give_up(nl)?;
        }
        let left = lease.until.saturating_since(mesh_sys::clock::now()).as_secs();
        let seconds = u32::try_from(left).unwrap_or(u32::MAX);
        let (address, len) = (lease.address.into(), lease.prefix_len);
        let routes: Vec<Route> = self.routes(&lease).collect();
        self.lease = Some(lease);
        nl.lease_address(self.index, address, len, seconds)?;
        routes.iter().try_for_each(|route| nl.replace_route(route))
    }

    fn give_up(&mut self, nl: &mut Rtnetlink) -> Result<(), netlink::Error> {
        self.unicast = None;
        let Some(lease) = self.lease.take() else { return Ok(()) };
        // Those that are gone already went with the carrier.
        let routes: Vec<Route> = self.routes(&lease).collect();
        routes.iter().rev().for_each(|route| drop(nl.remove_route(route)));
        nl.remove_address(self.index, lease.address.into(), lease.prefix_len)
    }

    /// Removes what the kernel made of router advertisements.
    fn withdraw(&self, nl: &mut Rtnetlink) -> Result<(), netlink::Error> {
        let by_router = RouteFilter { table: TABLE_MAIN, protocol: Some(BY_ROUTER) };
        for route in nl.routes(&by_router)?.iter().filter(|r| r.index == self.index) {
            nl.remove_route(route)?;
        }
        for a in nl.addresses()?.iter().filter(|a| a.index == self.index && !a.permanent && a.ip.is_ipv6()) {
            nl.remove_address(self.index, a.ip, a.prefix_len)?;
        }
        Ok(())
    }
}

//! What the access point's clients get: the node's addresses on the interface, DHCP, router advertisements.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use mesh_sys::entropy;
use mesh_sys::icmp6::{NeighborSocket, Side};
use mesh_sys::netlink::{self, Route, RouteKind, Rtnetlink, TABLE_MAIN, sysctl};
use mesh_sys::poll::Poller;
use mesh_sys::udp::{self, Family};
use mesh_types::{AP_NETWORK, Duration, Instant, NodeId};
use radio_core::Mac;
use radio_core::dhcp::{Config, Counters, Input, Network, SERVER_PORT, Server};
use radio_core::ra::{Advertised, Advertiser};

const POOL: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 0, 0, 10), Ipv4Addr::new(10, 0, 0, 250));
const LEASE: Duration = Duration::from_secs(3600);
/// What does not work is tried again after this.
const RETRY: Duration = Duration::from_secs(2);
/// As on Ethernet; no DHCP message or solicitation is longer.
const BUFFER: usize = 1500;
/// No more at once: others wait, too.
const BURST: usize = 64;
/// RTPROT_STATIC
const STATIC: u8 = 4;

/// The services on one interface.
#[derive(Debug)]
pub(crate) struct Clients {
    index: u32,
    interface: String,
    node: Option<NodeId>,
    mac: Option<Mac>,
    /// Poller tokens: DHCP, router solicitations.
    tokens: [u64; 2],
    dhcp: Option<UdpSocket>,
    server: Server,
    router: Option<(NeighborSocket, Advertiser)>,
    problems: Vec<String>,
    retry: Option<Instant>,
}

impl Clients {
    /// Of an interface that is there; [`Clients::ensure`] does the rest.
    pub(crate) fn new(index: u32, interface: &str, node: Option<NodeId>, tokens: [u64; 2]) -> Self {
        let salt = node.and_then(|n| n.as_bytes().first_chunk().copied()).map_or(0, u64::from_be_bytes);
        let network = Network { server: AP_NETWORK.0, prefix_len: AP_NETWORK.1, domain: "local" };
        Self {
            index,
            interface: interface.into(),
            node,
            mac: None,
            tokens,
            dhcp: None,
            server: Server::new(Config { network, pool: POOL, lease: LEASE, salt }),
            router: None,
            problems: Vec::new(),
            retry: None,
        }
    }

    pub(crate) const fn index(&self) -> u32 {
        self.index
    }

    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Who has an address.
    pub(crate) fn list(&self, now: Instant) -> Vec<mesh_ipc::radio::Client> {
        let each = self.server.clients().map(|c| mesh_ipc::radio::Client {
            address: c.address,
            mac: c.mac,
            name: c.name.map(str::to_owned),
            remaining_s: c.until.saturating_since(now).as_secs(),
        });
        each.collect()
    }

    pub(crate) fn leases(&self) -> usize {
        self.server.leases().count()
    }

    pub(crate) const fn counters(&self) -> &Counters {
        self.server.counters()
    }

    /// The addresses are there, and the sockets open; what is not is tried again. To be called whenever the
    /// interface changes: one that was set down has lost its IPv6 addresses and its routes.
    pub(crate) fn ensure(&mut self, now: Instant, nl: &mut Rtnetlink, poller: &Poller) {
        let before = std::mem::take(&mut self.problems);
        let Ok(Some(link)) = nl.links().map(|all| all.into_iter().find(|l| l.index == self.index)) else {
            return; // gone; the planner hears of it
        };
        self.mac = link.mac;
        if link.up {
            if let Err(e) = self.put_addresses(nl) {
                self.problems.push(format!("{}: its addresses can't be set: {e}", self.interface));
            }
            if let Err(e) = self.open_dhcp(poller) {
                self.problems
                    .push(format!("{}: DHCP (port 67): {e}; clients get no IPv4 address", self.interface));
            }
        }
        if link.running()
            && let Err(e) = self.open_router(now, poller)
        {
            self.problems
                .push(format!("{}: router advertisements: {e}; clients get no IPv6 address", self.interface));
        }
        self.problems
            .iter()
            .filter(|p| !before.contains(p))
            .for_each(|p| log::warn!("{p}; it is tried again"));
        self.retry = (!self.problems.is_empty()).then_some(now + RETRY);
    }

    /// Addresses, each with the prefix that it is on the link with.
    fn addresses(&self) -> Vec<(IpAddr, IpAddr, u8)> {
        let [a, b, c, _] = AP_NETWORK.0.octets();
        let network = Ipv4Addr::new(a, b, c, 0);
        let six = self.node.map(|n| (n.ula_address().into(), n.ula_prefix().into(), 64));
        [Some((AP_NETWORK.0.into(), network.into(), AP_NETWORK.1)), six].into_iter().flatten().collect()
    }

    fn put_addresses(&self, nl: &mut Rtnetlink) -> Result<(), netlink::Error> {
        for (address, prefix, prefix_len) in self.addresses() {
            nl.add_address(self.index, address, prefix_len)?;
            let v4 = address.is_ipv4();
            nl.replace_route(&Route {
                kind: RouteKind::Unicast,
                prefix,
                prefix_len,
                gateway: None,
                index: self.index,
                source: v4.then_some(address),
                metric: 0,
                table: TABLE_MAIN,
                protocol: STATIC,
            })?;
        }
        Ok(())
    }

    fn open_dhcp(&mut self, poller: &Poller) -> io::Result<()> {
        if self.dhcp.is_none() {
            let socket = udp::bind_broadcast(&self.interface, SERVER_PORT)?;
            poller.add(&socket, self.tokens[0], false)?;
            self.dhcp = Some(socket);
        }
        Ok(())
    }

    fn open_router(&mut self, now: Instant, poller: &Poller) -> io::Result<()> {
        if self.router.is_none() && self.node.is_some() {
            let socket = NeighborSocket::open(&self.interface, self.index, Side::Router)?;
            poller.add(&socket, self.tokens[1], false)?;
            self.router = Some((socket, Advertiser::new(entropy::seed()?, now)));
        }
        Ok(())
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let advertiser = self.router.as_ref().map(|(_, a)| a.poll_timeout());
        [self.server.poll_timeout(), advertiser, self.retry].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, nl: &mut Rtnetlink, poller: &Poller) {
        if self.server.poll_timeout().is_some_and(|t| t <= now) {
            self.server.handle_timeout(now);
        }
        if self.retry.is_some_and(|t| t <= now) {
            self.ensure(now, nl, poller);
        }
        if let Some((_, advertiser)) = &mut self.router {
            advertiser.handle_timeout(now);
            if advertiser.poll_output() {
                self.advertise(false);
            }
        }
    }

    /// DHCP messages came. `associated` lists the stations that are there, if it is asked for.
    pub(crate) fn hear_dhcp(&mut self, now: Instant, mut associated: impl FnMut() -> Vec<Mac>) {
        let mut buffer = [0; BUFFER];
        for _ in 0..BURST {
            let Some(socket) = &self.dhcp else { return };
            let len = match socket.recv_from(&mut buffer) {
                Ok((len, _)) => len,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    return;
                }
                Err(e) => {
                    log::debug!("{}: DHCP: {e}", self.interface);
                    (self.dhcp, self.retry) = (None, Some(now + RETRY));
                    return;
                }
            };
            if self.server.is_full() {
                let _ = self.server.handle_input(now, Input::Associated(&associated()));
            }
            let message = buffer.get(..len).unwrap_or_default();
            if let Err(e) = self.server.handle_input(now, Input::Datagram(message)) {
                log::debug!("{}: {e}", self.interface);
            }
            while let Some(reply) = self.server.poll_output() {
                if let Some(Err(e)) = self.dhcp.as_ref().map(|s| s.send_to(&reply.payload, reply.to)) {
                    log::debug!("{}: DHCP to {}: {e}", self.interface, reply.to);
                }
            }
        }
    }

    /// Router solicitations came.
    pub(crate) fn hear_solicitations(&mut self, now: Instant) {
        let mut buffer = [0; BUFFER];
        for _ in 0..BURST {
            let Some((socket, advertiser)) = &mut self.router else { return };
            match socket.recv(&mut buffer) {
                Ok(Some(heard)) => {
                    let message = buffer.get(..heard.len).unwrap_or_default();
                    advertiser.handle_input(now, message, heard.hop_limit);
                }
                Ok(None) => return,
                Err(e) => {
                    log::debug!("{}: router solicitations: {e}", self.interface);
                    (self.router, self.retry) = (None, Some(now + RETRY));
                    return;
                }
            }
        }
    }

    fn advertise(&self, leaving: bool) {
        let (Some((socket, _)), Some(node)) = (&self.router, self.node) else { return };
        let routes = sysctl::get(Family::V6, "all", "forwarding").is_ok_and(|v| v == "1");
        let advertised =
            Advertised { prefix: node.ula_prefix(), dns: node.ula_address(), mac: self.mac, routes };
        if let Err(e) = socket.send_to_all(&advertised.message(leaving)) {
            log::debug!("{}: router advertisement: {e}", self.interface);
        }
    }

    /// Says goodbye; addresses and routes go with the interface.
    pub(crate) fn end(&mut self) {
        self.advertise(true);
        self.router = None;
    }
}

//! What is on the cable of a wired port, found out by asking: a network with a DHCP server or a router (RFC 2131,
//! RFC 4861), which leads out, or other nodes (RFC 7181), or nobody. Sans-IO.
//!
//! A port whose cable says nothing meshes: so two nodes joined by a cable find each other whichever is plugged in
//! first, and a home network hears a few HELLOs, one datagram every two seconds, before its server has answered. A
//! server or a router wins over HELLOs: two nodes on one home network are two gateways, also when the network's router
//! comes up after them.
//!
//! A port to which people have given an address is theirs: nothing is asked for there.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

use mesh_types::{AP_NETWORK, Duration, Instant};
use rfc5444::PacketView;

use crate::dhcp::{self, Client, ClientConfig, ClientCounters, ClientInput, ClientOutput, Lease, Loss};
use crate::ra::{self, Heard};
use crate::random::Random;

/// A neighbour that has not been heard for so long is gone: the hold time of nodes that talk little.
const HELLO_HOLD: Duration = Duration::from_secs(20);
/// RFC 4861 §10: MAX_RTR_SOLICITATIONS, RTR_SOLICITATION_INTERVAL, MAX_RTR_SOLICITATION_DELAY (less: others
/// answer with a delay of their own).
const SOLICITATIONS: u32 = 3;
const SOLICITATION_PAUSE: Duration = Duration::from_secs(4);
const SOLICITATION_DELAY: Duration = Duration::from_millis(100);
/// Of how many routers on one link is taken note.
const MAX_ROUTERS: usize = 8;
/// As resolv.conf(5) has it.
const MAX_SERVERS: usize = 3;
/// RFC 5444: the message type of HELLOs.
const HELLO: u8 = 0;

/// What is on a cable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cable {
    /// Nothing that was heard yet.
    #[default]
    Quiet,
    /// Other nodes.
    Mesh,
    /// A network that leads out.
    Uplink {
        /// The address that its server gave, with the length of its prefix, and the server.
        lease: Option<(Ipv4Addr, u8, Ipv4Addr)>,
        /// A router advertises itself.
        router: bool,
    },
    /// People have given the port an address.
    ByHand,
}

/// What happened outside.
#[derive(Clone, Copy, Debug)]
pub enum PortInput<'a> {
    /// The port is up with carrier now, or is not any more.
    Running(bool),
    /// It has an address that people gave it, or none any more.
    ByHand(bool),
    /// The node has an access point, whose network ([`AP_NETWORK`]) can't be anywhere else then.
    Serves(bool),
    /// An IPv4 packet came that is for a DHCP client, perhaps.
    Packet(&'a [u8]),
    /// An ARP packet came.
    Arp(&'a [u8]),
    /// An ICMPv6 message came, its checksum right.
    Icmp {
        /// Its bytes.
        message: &'a [u8],
        /// Who sent it.
        source: Ipv6Addr,
        /// As it arrived.
        hop_limit: Option<u8>,
    },
    /// A datagram came to the routers' port (RFC 5498).
    Manet(&'a [u8]),
    /// Nothing is to be asked for any more, and what was given is given back.
    End,
}

/// What has to be done or known, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortOutput {
    /// Send this IPv4 packet to all on the link.
    Broadcast(Vec<u8>),
    /// Send this ARP packet to all on the link. Others' are of interest from then on, until [`Self::Take`] or
    /// [`Self::Broadcast`].
    Arp(Vec<u8>),
    /// Send it over UDP.
    Unicast {
        /// The node's address on the port.
        from: SocketAddrV4,
        /// A DHCP server.
        to: SocketAddrV4,
        /// Its bytes.
        payload: Vec<u8>,
    },
    /// Send this ICMPv6 message, without its checksum, to all routers on the link.
    Solicit(Vec<u8>),
    /// Put the address and its routes there, or have them for longer.
    Take(Lease),
    /// Take them away again.
    Drop(Lease, Loss),
    /// Take away what the kernel learned from routers on the link.
    Withdraw,
    /// [`Port::cable`] or [`Port::servers`] say something else.
    Changed,
}

/// One wired port.
#[derive(Debug)]
pub struct Port {
    client: Client,
    mac: crate::Mac,
    running: bool,
    by_hand: bool,
    serves: bool,
    ended: bool,
    /// The lease is in use.
    taken: bool,
    /// Until when each router leads out.
    routers: BTreeMap<Ipv6Addr, Instant>,
    dns: Vec<(Ipv6Addr, Instant)>,
    hello_until: Option<Instant>,
    solicited: u32,
    solicit_at: Option<Instant>,
    random: Random,
    /// What was told last.
    told: (Cable, Vec<IpAddr>),
    outputs: VecDeque<PortOutput>,
}

impl Port {
    /// A port without carrier.
    pub fn new(config: ClientConfig, seed: u64) -> Self {
        let mac = config.mac;
        Self {
            client: Client::new(config, seed),
            mac,
            running: false,
            by_hand: false,
            serves: false,
            ended: false,
            taken: false,
            routers: BTreeMap::new(),
            dns: Vec::new(),
            hello_until: None,
            solicited: 0,
            solicit_at: None,
            random: Random::new(seed.rotate_left(32)),
            told: (Cable::Quiet, Vec::new()),
            outputs: VecDeque::new(),
        }
    }

    /// What is on the cable.
    pub fn cable(&self) -> Cable {
        let lease = self.client.lease().map(|l| (l.address, l.prefix_len, l.server));
        let router = !self.routers.is_empty();
        match () {
            () if self.by_hand => Cable::ByHand,
            () if lease.is_some() || router => Cable::Uplink { lease, router },
            () if self.hello_until.is_some() => Cable::Mesh,
            () => Cable::Quiet,
        }
    }

    /// The name servers there, three at the most.
    pub fn servers(&self) -> Vec<IpAddr> {
        let of_lease =
            self.client.lease().filter(|_| self.taken).map(|l| l.dns.as_slice()).unwrap_or_default();
        let of_routers = self.dns.iter().map(|(ip, _)| IpAddr::from(*ip));
        of_lease.iter().map(|ip| IpAddr::from(*ip)).chain(of_routers).take(MAX_SERVERS).collect()
    }

    /// Why an address that was given is not in use, for people.
    pub fn problem(&self) -> Option<String> {
        let lease = self.client.lease().filter(|_| !self.taken)?;
        Some(format!(
            "the network there, {}/{}, is the access point's own ({}/{}): no IPv4 through it; give that network \
             another range",
            lease.address, lease.prefix_len, AP_NETWORK.0, AP_NETWORK.1
        ))
    }

    /// Of its DHCP client.
    pub const fn counters(&self) -> &ClientCounters {
        self.client.counters()
    }

    /// Takes one input. What is not for it, or makes no sense, changes nothing.
    pub fn handle_input(&mut self, now: Instant, input: PortInput<'_>) {
        let active = self.active();
        match input {
            PortInput::Running(running) => self.running = running,
            PortInput::ByHand(by_hand) => self.by_hand = by_hand,
            PortInput::Serves(serves) => self.serves = serves,
            PortInput::End => self.ended = true,
            PortInput::Packet(packet) if active => {
                if let Some(datagram) = dhcp::unwrap(packet) {
                    let _ = self.client.handle_input(now, ClientInput::Datagram(datagram));
                }
            }
            PortInput::Icmp { message, source, hop_limit } if active => {
                if let Some(heard) = Heard::parse(message, source, hop_limit) {
                    self.advertised(now, source, &heard);
                }
            }
            PortInput::Manet(bytes) if active => {
                let mut packet = PacketView::parse(bytes).into_iter().flat_map(|p| p.messages());
                if packet.any(|m| m.kind() == HELLO) {
                    self.hello_until = Some(now + HELLO_HOLD);
                }
            }
            PortInput::Arp(packet) if active => {
                let _ = self.client.handle_input(now, ClientInput::Arp(packet));
            }
            PortInput::Packet(_) | PortInput::Arp(_) | PortInput::Icmp { .. } | PortInput::Manet(_) => {}
        }
        match (active, self.active()) {
            (false, true) => {
                let _ = self.client.handle_input(now, ClientInput::Carrier(true));
                self.solicited = 0;
                self.solicit_at = Some(now + self.random.below(SOLICITATION_DELAY));
            }
            (true, false) => {
                let end = if self.running { ClientInput::Release } else { ClientInput::Carrier(false) };
                let _ = self.client.handle_input(now, end);
                (self.hello_until, self.solicit_at) = (None, None);
                self.dns.clear();
                self.routers.clear();
                self.outputs.push_back(PortOutput::Withdraw);
            }
            _ => {}
        }
        self.settle(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now);
        self.hello_until = self.hello_until.filter(|at| *at > now);
        if self.solicit_at.is_some_and(|at| at <= now) {
            self.solicited += 1;
            self.solicit_at = (self.solicited < SOLICITATIONS).then_some(now + SOLICITATION_PAUSE);
            self.outputs.push_back(PortOutput::Solicit(ra::solicitation(Some(self.mac))));
        }
        let routers = self.routers.len();
        self.routers.retain(|_, until| *until > now);
        self.dns.retain(|(_, until)| *until > now);
        if routers > 0 && self.routers.is_empty() {
            self.outputs.push_back(PortOutput::Withdraw);
        }
        self.settle(now);
    }

    /// What to do next; `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<PortOutput> {
        self.outputs.pop_front()
    }

    /// When [`Port::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let others = [self.client.poll_timeout(), self.hello_until, self.solicit_at];
        let routers = self.routers.values().chain(self.dns.iter().map(|(_, until)| until));
        others.into_iter().flatten().chain(routers.copied()).min()
    }

    const fn active(&self) -> bool {
        self.running && !self.by_hand && !self.ended
    }

    fn advertised(&mut self, now: Instant, source: Ipv6Addr, heard: &Heard) {
        if heard.lifetime == Duration::ZERO {
            self.routers.remove(&source);
        } else if self.routers.contains_key(&source) || self.routers.len() < MAX_ROUTERS {
            self.routers.insert(source, now + heard.lifetime);
            self.solicit_at = None; // RFC 4861 §6.3.7: it was heard
        }
        for (server, lifetime) in &heard.dns {
            self.dns.retain(|(ip, _)| ip != server);
            // A link-local one means nothing in a list of addresses.
            if *lifetime > Duration::ZERO && !server.is_unicast_link_local() && self.dns.len() < MAX_SERVERS {
                self.dns.push((*server, now + *lifetime));
            }
        }
        if self.routers.is_empty() {
            self.outputs.push_back(PortOutput::Withdraw);
        }
    }

    /// Passes on what the client says, and tells what changed.
    fn settle(&mut self, now: Instant) {
        if self.client.poll_timeout().is_some_and(|at| at <= now) {
            self.client.handle_timeout(now);
        }
        while let Some(output) = self.client.poll_output() {
            let output = match output {
                ClientOutput::Broadcast(payload) => PortOutput::Broadcast(dhcp::wrap(&payload)),
                ClientOutput::Arp(packet) => PortOutput::Arp(packet),
                ClientOutput::Unicast { from, to, payload } => PortOutput::Unicast { from, to, payload },
                ClientOutput::Bound(lease) if self.fits(&lease) => {
                    self.taken = true;
                    PortOutput::Take(lease)
                }
                ClientOutput::Bound(_) => continue,
                ClientOutput::Lost(lease, why) if core::mem::take(&mut self.taken) => {
                    PortOutput::Drop(lease, why)
                }
                ClientOutput::Lost(..) => continue,
            };
            self.outputs.push_back(output);
        }
        // The access point came or went.
        if let Some(lease) = self.client.lease().cloned().filter(|l| self.fits(l) != self.taken) {
            self.taken = !self.taken;
            let take = self.taken;
            self.outputs.push_back(if take {
                PortOutput::Take(lease)
            } else {
                PortOutput::Drop(lease, Loss::Refused)
            });
        }
        let telling = (self.cable(), self.servers());
        if telling != self.told {
            self.told = telling;
            self.outputs.push_back(PortOutput::Changed);
        }
    }

    /// It is no network that is somewhere else on this node.
    fn fits(&self, lease: &Lease) -> bool {
        let shift = 32 - u32::from(lease.prefix_len.min(AP_NETWORK.1));
        let network = |ip: Ipv4Addr| ip.to_bits().checked_shr(shift).unwrap_or(0);
        !self.serves || network(lease.address) != network(AP_NETWORK.0)
    }
}

#[cfg(test)]
mod tests;

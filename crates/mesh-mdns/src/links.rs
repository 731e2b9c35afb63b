//! Which interfaces are served, their addresses, and the sockets on them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use mesh_sys::netlink::{self, Rtnetlink};
use mesh_sys::poll::Poller;
use mesh_sys::udp::{Family, MulticastConfig, MulticastSocket, Received};
use names::{Destination, InterfaceAddress, MDNS_GROUP_V4, MDNS_GROUP_V6, MDNS_PORT, Role, Transmit};

const FAMILIES: [Family; 2] = [Family::V6, Family::V4];
const GROUPS: [IpAddr; 2] = [IpAddr::V6(MDNS_GROUP_V6), IpAddr::V4(MDNS_GROUP_V4)];

/// An interface that is served, as it is now.
#[derive(Debug)]
pub(crate) struct Served {
    name: String,
    role: Role,
    addresses: Vec<InterfaceAddress>,
    sockets: [Option<MulticastSocket>; 2],
}

impl Served {
    fn has(&self, family: Family) -> bool {
        self.addresses.iter().any(|a| Family::of(&a.address) == family)
    }
}

/// A change to tell the core of.
#[derive(Debug, PartialEq)]
pub(crate) enum Change {
    Present { index: u32, addresses: Vec<InterfaceAddress>, role: Role },
    Gone(u32),
    Own(Vec<IpAddr>),
}

/// The interfaces and their sockets.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Names of the interfaces to serve, and what they are for.
    wanted: BTreeMap<String, Role>,
    served: BTreeMap<u32, Served>,
    own: Vec<IpAddr>,
    /// Which of [`FAMILIES`] was heard last.
    heard: usize,
    /// Sockets that could not be opened, for people.
    pub(crate) problems: Vec<String>,
}

impl Links {
    pub(crate) fn want(&mut self, wanted: BTreeMap<String, Role>) {
        self.wanted = wanted;
    }

    /// Looks at the kernel's interfaces and addresses anew and says what changed. Each poller token is
    /// `first_token` + twice the index, + 1 for IPv4.
    pub(crate) fn refresh(
        &mut self,
        kernel: &mut Rtnetlink,
        poller: &Poller,
        first_token: u64,
    ) -> Result<Vec<Change>, netlink::Error> {
        let links = kernel.links()?;
        let addresses = kernel.addresses()?;
        let of = |index| {
            let usable = addresses.iter().filter(move |a| a.index == index && !a.tentative);
            usable.map(|a| InterfaceAddress { address: a.ip, prefix_len: a.prefix_len })
        };
        let mut changes = Vec::new();
        let mut seen = BTreeSet::new();
        self.problems.clear();
        for link in &links {
            if link.is_loopback() {
                let mut own: Vec<IpAddr> =
                    of(link.index).map(|a| a.address).filter(|a| names::is_reachable(*a)).collect();
                own.sort_by_key(|a| (a.is_ipv4(), *a));
                if own != self.own {
                    self.own.clone_from(&own);
                    changes.push(Change::Own(own));
                }
                continue;
            }
            let Some(role) = self.wanted.get(&link.name).copied().filter(|_| link.running()) else {
                continue;
            };
            seen.insert(link.index);
            let mut addresses: Vec<_> = of(link.index).collect();
            addresses.sort();
            if let Some(old) = self.served.get_mut(&link.index)
                && old.name == link.name
            {
                if old.addresses != addresses || old.role != role {
                    (old.addresses, old.role) = (addresses.clone(), role);
                    changes.push(Change::Present { index: link.index, addresses, role });
                }
            } else {
                let served = Served {
                    name: link.name.clone(),
                    role,
                    addresses: addresses.clone(),
                    sockets: [None, None],
                };
                self.served.insert(link.index, served);
                changes.push(Change::Present { index: link.index, addresses, role });
            }
        }
        for index in self.served.keys().copied().filter(|i| !seen.contains(i)).collect::<Vec<_>>() {
            self.served.remove(&index);
            changes.push(Change::Gone(index));
        }
        self.open_missing(poller, first_token);
        Ok(changes)
    }

    fn open_missing(&mut self, poller: &Poller, first_token: u64) {
        for (index, served) in &mut self.served {
            for (at, family) in FAMILIES.into_iter().enumerate() {
                if !served.has(family) || served.sockets.get(at).is_none_or(Option::is_some) {
                    continue;
                }
                let token = first_token + u64::from(*index) * 2 + at as u64;
                match MulticastSocket::open_in(poller, token, &config(&served.name, *index, family)) {
                    Ok(socket) => {
                        if let Some(slot) = served.sockets.get_mut(at) {
                            *slot = Some(socket);
                        }
                    }
                    Err(e) => self.problems.push(format!(
                        "mDNS on {} ({family:?}): {e}; the name is not answered for there, it is tried again",
                        served.name
                    )),
                }
            }
        }
    }

    /// Takes a datagram from the socket of that token, if there is one: through which interface, and what
    /// [`MulticastSocket::recv`] says.
    pub(crate) fn receive(
        &mut self,
        offset: u64,
        buffer: &mut [u8],
    ) -> Option<(u32, io::Result<Option<Received>>)> {
        let (index, at) = (u32::try_from(offset / 2).ok()?, (offset % 2) as usize);
        let socket = self.served.get(&index)?.sockets.get(at)?.as_ref()?;
        self.heard = at;
        Some((index, socket.recv(buffer)))
    }

    /// Closes a socket that failed; the next refresh opens it again.
    pub(crate) fn close(&mut self, offset: u64) {
        let index = u32::try_from(offset / 2).unwrap_or(u32::MAX);
        if let Some(slot) = self.served.get_mut(&index).and_then(|s| s.sockets.get_mut((offset % 2) as usize))
        {
            *slot = None;
        }
    }

    /// Sends over both families, or to one host. The one that was heard last comes first: who asked waits for the
    /// answer. Failures pass: mDNS repeats what matters.
    pub(crate) fn send(&self, t: &Transmit) {
        let Some(served) = self.served.get(&t.interface) else { return };
        let mut ways = [0, 1];
        ways.rotate_left(self.heard);
        for (socket, group) in ways.into_iter().filter_map(|at| served.sockets.get(at).zip(GROUPS.get(at))) {
            let Some(socket) = socket.as_ref().filter(|s| served.has(s.family())) else { continue };
            let result = match t.to {
                Destination::Multicast => socket.send_to_group(&t.payload, *group, None),
                Destination::Unicast(to) if Family::of(&to.ip()) == socket.family() => {
                    socket.send_to(&t.payload, to, None)
                }
                Destination::Unicast(_) => continue,
            };
            if let Err(e) = result {
                log::debug!("{}: sending {:?}: {e}", served.name, t.to);
            }
        }
    }

    /// Whether the address is in a prefix of that interface (`None`: of any that is served), or this machine's.
    pub(crate) fn is_near(&self, index: Option<u32>, address: IpAddr) -> bool {
        let mut served = self.served.iter().filter(|(i, _)| index.is_none_or(|wanted| wanted == **i));
        served.any(|(_, s)| s.addresses.iter().any(|a| a.covers(address)))
            || (index.is_none() && address.is_loopback())
            || self.own.contains(&address)
    }

    /// The interfaces on which clients are served, if they have an address.
    pub(crate) fn access_points(&self) -> Vec<(u32, String)> {
        let serving = |s: &Served| s.role == Role::AccessPoint && !s.addresses.is_empty();
        self.served.iter().filter(|(_, s)| serving(s)).map(|(i, s)| (*i, s.name.clone())).collect()
    }

    pub(crate) fn name_of(&self, index: u32) -> &str {
        self.served.get(&index).map_or("a link", |s| &s.name)
    }

    pub(crate) fn count(&self) -> usize {
        self.served.len()
    }
}

fn config(interface: &str, index: u32, family: Family) -> MulticastConfig<'_> {
    MulticastConfig {
        family,
        interface,
        index,
        port: MDNS_PORT,
        groups: &GROUPS,
        // RFC 6762 §11.
        hop_limit: 255,
        // Other responders and clients on this machine hear us too (RFC 6762 §15).
        loopback: true,
        traffic_class: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_types::{Duration, Instant};

    fn next(poller: &Poller, socket: &MulticastSocket) -> mesh_sys::udp::Received {
        let mut events = Vec::new();
        let end = mesh_sys::clock::now() + Duration::from_secs(5);
        loop {
            if let Some(r) = socket.recv(&mut [0; 100]).unwrap() {
                return r;
            }
            assert!(mesh_sys::clock::now() < end, "nothing came");
            poller.wait(Some(end), &mut events).unwrap();
        }
    }

    /// Two responders on one machine: both have the port, both hear a question, which arrives as it has to.
    #[test]
    fn rfc6762_15_1_the_port_is_shared_and_11_the_hop_limit_is_255() {
        let poller = Poller::new().unwrap();
        let open = |token| MulticastSocket::open_in(&poller, token, &config("lo", 1, Family::V4)).unwrap();
        let (ours, other) = (open(1), open(2));
        assert!(mesh_sys::clock::now() > Instant::ZERO);
        ours.send_to_group(b"a question of this test", GROUPS[1], None).unwrap();
        for socket in [&ours, &other] {
            let r = next(&poller, socket);
            assert_eq!((r.len, r.hop_limit, r.source.port()), (23, Some(255), MDNS_PORT));
            assert_eq!(r.destination, GROUPS[1]);
        }
    }
}

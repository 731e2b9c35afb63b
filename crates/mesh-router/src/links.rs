//! Which interfaces can carry the mesh right now, and with which addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mesh_sys::netlink::{Address, Event, Link};
use mesh_sys::udp::Family;
use olsrv2::NetAddr;

/// The kernel's interfaces and addresses as last heard, and which of them are to be used.
#[derive(Debug, Default)]
pub(crate) struct Links {
    wanted: BTreeSet<String>,
    links: BTreeMap<u32, Link>,
    /// By interface, address and prefix length: whether it is tentative.
    addresses: BTreeMap<(u32, IpAddr, u8), bool>,
}

/// An interface that an instance can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Usable {
    pub(crate) name: String,
    /// In the instance's family, the one to send from first; empty: unnumbered.
    pub(crate) addresses: Vec<NetAddr>,
}

impl Links {
    /// Uses the interfaces of these names from now on, present or not. True if that is a change.
    pub(crate) fn want(&mut self, names: BTreeSet<String>) -> bool {
        let change = self.wanted != names;
        self.wanted = names;
        change
    }

    /// Forgets all and takes the listed state.
    pub(crate) fn replace(&mut self, links: Vec<Link>, addresses: Vec<Address>) {
        self.links = links.into_iter().map(|l| (l.index, l)).collect();
        self.addresses = addresses.into_iter().map(entry).collect();
    }

    /// Takes one change; false: something was lost, list everything.
    pub(crate) fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::Link(link) => drop(self.links.insert(link.index, link)),
            Event::LinkGone(link) => {
                self.links.remove(&link.index);
                self.addresses.retain(|(index, ..), _| *index != link.index);
            }
            Event::Address(address) => {
                let (key, tentative) = entry(address);
                self.addresses.insert(key, tentative);
            }
            Event::AddressGone(address) => drop(self.addresses.remove(&entry(address).0)),
            Event::RouteGone(_) | Event::ForeignDefault | Event::Neighbor(_) => {}
            Event::Resync => return false,
        }
        true
    }

    /// The name of an interface.
    pub(crate) fn name(&self, index: u32) -> Option<&str> {
        self.links.get(&index).map(|l| l.name.as_str())
    }

    /// The interfaces to be used, present or not.
    pub(crate) const fn wanted(&self) -> &BTreeSet<String> {
        &self.wanted
    }

    /// The name of an interface that can be an uplink: it runs, and is neither loopback nor the mesh's.
    pub(crate) fn uplink(&self, index: u32) -> Option<&str> {
        let link = self.links.get(&index).filter(|l| l.running() && !l.is_loopback())?;
        (!self.wanted.contains(&link.name)).then_some(link.name.as_str())
    }

    /// The interfaces that `family` can use: wanted, up, with carrier; for IPv6 also with a link-local
    /// address that is not tentative. IPv4 is unnumbered on the mesh: it sends from the originator.
    pub(crate) fn usable(&self, family: Family) -> BTreeMap<u32, Usable> {
        let running = self.links.values().filter(|l| l.running() && !l.is_loopback());
        let wanted = running.filter(|l| self.wanted.contains(&l.name));
        let with_addresses = wanted.map(|l| (l, self.sending_addresses(family, l.index)));
        with_addresses
            .filter(|(_, addresses)| family == Family::V4 || !addresses.is_empty())
            .map(|(l, addresses)| (l.index, Usable { name: l.name.clone(), addresses }))
            .collect()
    }

    fn sending_addresses(&self, family: Family, index: u32) -> Vec<NetAddr> {
        if family == Family::V4 {
            return Vec::new();
        }
        let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local());
        let here = self
            .addresses
            .iter()
            .filter(|((i, ip, _), tentative)| *i == index && !**tentative && link_local(ip));
        here.map(|((_, ip, _), _)| NetAddr::host(*ip)).collect()
    }
}

fn entry(a: Address) -> ((u32, IpAddr, u8), bool) {
    ((a.index, a.ip, a.prefix_len), a.tentative)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.into(),
            hardware: 1,
            up: true,
            carrier: true,
            kind: None,
            master: None,
            mac: None,
            mtu: 1500,
        }
    }

    fn address(index: u32, ip: &str, tentative: bool) -> Address {
        Address { index, ip: ip.parse().unwrap(), prefix_len: 64, tentative, permanent: true }
    }

    fn indices(links: &Links, family: Family) -> Vec<u32> {
        links.usable(family).into_keys().collect()
    }

    #[test]
    fn only_wanted_running_interfaces_with_a_link_local_address() {
        let mut links = Links::default();
        assert!(links.want(["eth0".to_owned(), "mesh0".to_owned()].into()));
        assert!(!links.want(["eth0".to_owned(), "mesh0".to_owned()].into()));
        links.replace(
            vec![link(2, "eth0"), link(3, "wlan0"), Link { carrier: false, ..link(4, "mesh0") }],
            vec![address(2, "fe80::2", true), address(3, "fe80::3", false), address(2, "fd00::2", false)],
        );
        assert_eq!(indices(&links, Family::V4), [2]);
        assert_eq!(indices(&links, Family::V6), [0u32; 0], "tentative");
        assert!(links.apply(Event::Address(address(2, "fe80::2", false))));
        assert_eq!(links.usable(Family::V6)[&2].addresses, [NetAddr::host("fe80::2".parse().unwrap())]);
        assert!(links.apply(Event::Link(link(4, "mesh0"))));
        assert_eq!(indices(&links, Family::V4), [2, 4]);
        assert!(links.apply(Event::Link(Link { up: false, ..link(2, "eth0") })));
        assert_eq!(indices(&links, Family::V6), [0u32; 0]);
        assert!(links.apply(Event::Link(link(2, "renamed"))));
        assert_eq!(indices(&links, Family::V4), [4]);
        assert!(links.apply(Event::LinkGone(link(4, "mesh0"))));
        assert!(links.usable(Family::V4).is_empty());
        assert!(!links.apply(Event::Resync));
    }
}

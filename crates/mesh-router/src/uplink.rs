//! The node's own uplinks: default routes that others made (DHCP, router advertisements, people), out of
//! interfaces that are no mesh interfaces. And the translation of addresses, there and for the access point's clients.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mesh_sys::netlink::{
    Clients, Error, Route, RouteFilter, RouteKind, Rtnetlink, TABLE_MAIN, sysctl, translate,
};
use mesh_sys::udp::Family;
use mesh_types::{AP_NETWORK, Metric};
use olsrv2::{AttachedNetwork, NetAddr};

use crate::fib::PROTOCOL;
use crate::links::Links;
use crate::tunnels;

/// A way out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Uplink {
    name: String,
    index: u32,
    gateway: Option<IpAddr>,
}

/// The uplinks in use and whether the mesh may use them.
#[derive(Debug)]
pub(crate) struct Uplinks {
    /// `gateway.share`
    share: bool,
    /// The node's own /64, in which tunnels may end.
    prefix: Option<Ipv6Addr>,
    /// For IPv6 and for IPv4.
    found: [Option<Uplink>; 2],
    /// The access point's clients towards the mesh, if there is an access point.
    clients: Option<Clients>,
    /// Where packets leave with translated addresses, and which clients have theirs translated; `None`: an
    /// earlier run may have left something.
    translated: Option<Translation>,
    /// Why addresses are not translated though they should be, for people.
    problem: Option<String>,
    /// What comes out of tunnels is translated as well.
    from_tunnels: bool,
}

type Translation = (BTreeSet<String>, Option<Clients>);

impl Uplinks {
    pub(crate) fn new(share: bool, prefix: Option<Ipv6Addr>) -> Self {
        let found = [None, None];
        Self { share, prefix, found, clients: None, translated: None, problem: None, from_tunnels: false }
    }

    /// Looks at the kernel's default routes. True if something changed.
    pub(crate) fn look(&mut self, kernel: &mut Rtnetlink, links: &Links) -> Result<bool, Error> {
        let routes = kernel.routes(&RouteFilter { table: TABLE_MAIN, protocol: None })?;
        let found = [Family::V6, Family::V4].map(|family| best(&routes, family, links));
        if found == self.found {
            // What failed is tried again.
            let before = self.problem.is_some();
            self.translate();
            return Ok(before && self.problem.is_none());
        }
        for (family, (old, new)) in ["IPv6", "IPv4"].iter().zip(self.found.iter().zip(&found)) {
            let name = |uplink: &Option<Uplink>| uplink.as_ref().map(|u| u.name.clone());
            match (name(old), name(new)) {
                (old, Some(new)) if old.as_ref() != Some(&new) => log::info!("{new}: uplink for {family}"),
                (Some(old), None) => log::info!("{old}: no uplink for {family} any more"),
                _ => {}
            }
        }
        self.found = found;
        self.translate();
        Ok(true)
    }

    /// There is an access point, and the mesh is on these interfaces; its clients are seen there as `source`.
    pub(crate) fn serve(&mut self, access_point: bool, mesh: &BTreeSet<String>, source: Ipv4Addr) {
        self.clients = (access_point && !mesh.is_empty()).then(|| Clients {
            network: AP_NETWORK,
            source,
            towards: mesh.clone(),
        });
        self.translate();
    }

    /// Translates addresses where the mesh's packets leave; a gateway without that would swallow them. So
    /// would the mesh those of an access point's clients: each has the same network.
    fn translate(&mut self) {
        let names = self.found.iter().flatten().map(|u| u.name.clone());
        let wanted: BTreeSet<String> = names.filter(|_| self.share).collect();
        let wanted = (wanted, self.clients.clone());
        if Some(&wanted) == self.translated.as_ref() {
            return;
        }
        let nothing = wanted.0.is_empty() && wanted.1.is_none();
        self.from_tunnels = !wanted.0.is_empty() && self.prefix.is_some() && from_tunnels();
        match translate(wanted.0.iter().map(String::as_str), wanted.1.as_ref()) {
            Ok(()) => (self.translated, self.problem) = (Some(wanted), None),
            // A kernel without address translation has nothing to remove.
            Err(_) if nothing => (self.translated, self.problem) = (Some(wanted), None),
            Err(e) => {
                let what = if wanted.0.is_empty() {
                    "clients of the access point reach no other node over IPv4"
                } else {
                    "the uplink is not shared"
                };
                let text = format!("{what}: address translation (nf_tables): {e}");
                if self.problem.as_ref() != Some(&text) {
                    log::warn!("{text}");
                }
                (self.translated, self.problem) = (None, Some(text));
            }
        }
    }

    /// Takes the translation away, at the end.
    pub(crate) fn clear(&mut self) {
        if self.translated.take().is_some_and(|(uplinks, clients)| !uplinks.is_empty() || clients.is_some())
            && let Err(e) = translate(std::iter::empty(), None)
        {
            log::warn!("removing the address translation: {e}");
        }
    }

    /// What is announced for the family at that place (IPv6, IPv4): a default route, while there is an
    /// uplink to share. One hop behind this node, at no cost.
    pub(crate) fn announced(&self, at: usize) -> Option<AttachedNetwork> {
        let interface = &self.found.get(at)?.as_ref()?.name;
        let any = if at == 0 { [0u16; 8].into() } else { [0u8; 4].into() };
        let network = AttachedNetwork { prefix: NetAddr::new(any, 0), dist: 1, metric: Metric::MIN };
        self.translated.as_ref().is_some_and(|(uplinks, _)| uplinks.contains(interface)).then_some(network)
    }

    /// The routes of tunnels that end here and lead on to what is announced.
    pub(crate) fn routes_out(&self) -> Vec<Route> {
        let Some(prefix) = self.prefix.filter(|_| self.from_tunnels) else { return Vec::new() };
        let shared = |at: &usize| self.announced(*at).is_some();
        let routes = |at: usize| {
            let uplink = self.found.get(at)?.as_ref()?;
            tunnels::routes_out(prefix, at, uplink.gateway, uplink.index)
        };
        [0, 1].into_iter().filter(shared).filter_map(routes).flatten().collect()
    }

    /// Whether packets of the mesh must not leave by the node's own default route.
    pub(crate) fn is_private(&self) -> bool {
        !self.share
    }

    /// Whether there is an uplink for the family at that place, shared or not.
    pub(crate) fn has(&self, at: usize) -> bool {
        self.found.get(at).is_some_and(Option::is_some)
    }

    /// Why addresses are not translated, for people.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

/// Without this what comes out of a tunnel would leave untranslated.
fn from_tunnels() -> bool {
    sysctl::filter_tunnels()
        .inspect_err(|e| log::warn!("no tunnels end here: nf_hooks_lwtunnel: {e}"))
        .is_ok()
}

/// The best default route that is an uplink's.
fn best(routes: &[Route], family: Family, links: &Links) -> Option<Uplink> {
    let fits = |r: &&Route| {
        r.prefix_len == 0
            && Family::of(&r.prefix) == family
            && r.kind == RouteKind::Unicast
            && r.protocol != PROTOCOL
    };
    let uplink = |r: &Route| {
        let name = links.uplink(r.index)?.to_owned();
        Some((r.metric, Uplink { name, index: r.index, gateway: r.gateway }))
    };
    let uplinks = routes.iter().filter(fits).filter_map(uplink);
    uplinks.min_by(|(a, left), (b, right)| (a, &left.name).cmp(&(b, &right.name))).map(|(_, uplink)| uplink)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_sys::netlink::Link;

    fn route(prefix: &str, index: u32, metric: u32) -> Route {
        Route {
            kind: RouteKind::Unicast,
            prefix: prefix.parse().unwrap(),
            prefix_len: 0,
            gateway: Some(if prefix == "::" { "fe80::1" } else { "192.168.1.1" }.parse().unwrap()),
            index,
            source: None,
            metric,
            table: TABLE_MAIN,
            protocol: 16,
        }
    }

    fn links() -> Links {
        let link = |index: u32, name: &str| Link {
            index,
            name: name.into(),
            hardware: 1,
            up: true,
            carrier: true,
            kind: None,
            master: None,
            mac: None,
            mtu: 1500,
        };
        let mut links = Links::default();
        links.want(["mesh0".to_owned()].into());
        links.replace(
            vec![
                link(2, "eth0"),
                link(3, "mesh0"),
                Link { carrier: false, ..link(4, "usb0") },
                link(5, "wwan0"),
            ],
            Vec::new(),
        );
        links
    }

    #[test]
    fn an_uplink_is_a_foreign_default_route_beside_the_mesh() {
        let links = links();
        let found = |routes: &[Route]| best(routes, Family::V4, &links).map(|u| u.name);
        assert_eq!(found(&[route("0.0.0.0", 2, 100)]).as_deref(), Some("eth0"));
        let both = [route("0.0.0.0", 2, 100), route("0.0.0.0", 5, 50)];
        assert_eq!(found(&both).as_deref(), Some("wwan0"), "the kernel's best");
        assert_eq!(found(&[route("0.0.0.0", 3, 0)]), None, "a mesh interface");
        assert_eq!(found(&[route("0.0.0.0", 4, 0)]), None, "no carrier");
        assert_eq!(found(&[route("0.0.0.0", 9, 0)]), None, "no such interface");
        assert_eq!(found(&[route("::", 2, 0)]), None, "the other family");
        assert_eq!(found(&[Route { protocol: PROTOCOL, ..route("0.0.0.0", 2, 0) }]), None, "our own");
        assert_eq!(found(&[Route { prefix_len: 1, ..route("0.0.0.0", 2, 0) }]), None, "no default");
        assert_eq!(found(&[Route { kind: RouteKind::Unreachable, ..route("0.0.0.0", 2, 0) }]), None);
    }

    #[test]
    fn only_a_shared_and_translated_uplink_is_announced() {
        let mut uplinks = Uplinks::new(true, "fd01::".parse().ok());
        let uplink = Uplink { name: "eth0".into(), index: 2, gateway: None };
        uplinks.found = [None, Some(uplink)];
        assert_eq!(uplinks.announced(1), None, "not translated");
        uplinks.translated = Some((["eth0".to_owned()].into(), None));
        assert_eq!(uplinks.announced(0), None);
        assert_eq!(uplinks.announced(1).unwrap().prefix, NetAddr::new([0u8; 4].into(), 0));
        assert_eq!(uplinks.routes_out(), [], "what comes out would not be translated");
        uplinks.from_tunnels = true;
        assert_eq!(uplinks.routes_out(), tunnels::routes_out("fd01::".parse().unwrap(), 1, None, 2).unwrap());
        assert!(uplinks.has(1) && !uplinks.has(0) && !uplinks.has(2) && !uplinks.is_private());
    }
}

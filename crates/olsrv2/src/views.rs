//! What can be asked of a router.

use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::Metric;
use rfc5444::NetAddr;

use crate::router::Router;
use crate::{
    AttachedNetwork, AttachedView, Config, Counters, GatewayChoice, LinkStatus, NeighborView, NoteView,
    PortCounters, Record, Route, Sequences, TopologyEdge,
};

impl Router {
    /// The configuration it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Every link, by interface.
    pub fn neighbors(&self) -> impl Iterator<Item = NeighborView> + '_ {
        let links = self.nhdp.interfaces().flat_map(|(index, i)| i.links().map(move |(_, l)| (index, l)));
        links.filter_map(|(interface, link)| {
            let neighbor = link.neighbor.and_then(|n| self.nhdp.neighbor(n)).map(|n| n.ext);
            let ext = neighbor.unwrap_or_default();
            Some(NeighborView {
                interface,
                address: link.addresses.first()?.ip(),
                originator: ext.originator,
                status: link.status().into(),
                suspect: link.is_suspect(),
                quality: link.quality,
                signal: link.ext.signal,
                bitrate_in: link.ext.dat.as_ref().and_then(|d| d.bitrate_in()),
                metric_in: link.ext.metric_in,
                metric_out: link.ext.metric_out,
                willingness: (ext.will_flooding, ext.will_routing),
                mpr: (ext.flooding_mpr, ext.routing_mpr),
                mpr_selector: (link.ext.mpr_selector, ext.mpr_selector),
                two_hops: link.two_hops().filter(|(_, t)| t.ext.metric_out != Metric::UNKNOWN).count(),
                last_packet: link.signs.last_packet,
                expires: link.heard_until,
            })
        })
    }

    /// The routing set, by prefix.
    pub fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.routes.iter(&self.topology.names)
    }

    /// The route to just that prefix; of the other family there is none.
    pub fn route(&self, prefix: NetAddr) -> Option<Route> {
        let ours = prefix.ip().is_ipv4() == self.config.originator.is_ipv4();
        self.routes.get(prefix, &self.topology.names).filter(|_| ours)
    }

    /// The route a packet to that address takes, the longest that fits.
    pub fn lookup(&self, address: IpAddr) -> Option<Route> {
        self.routes.lookup(address, &self.topology.names)
    }

    /// Where this node's own packets leave the mesh; `None`: nowhere, or it is a gateway itself.
    pub fn gateway(&self) -> Option<GatewayChoice> {
        self.gateways.choice()
    }

    /// What others say of their attached networks. None of it is verified.
    pub fn notes(&self) -> impl Iterator<Item = NoteView> + '_ {
        self.topology.notes()
    }

    /// Links between routers as advertised in TCs; our own links are in [`Router::neighbors`].
    pub fn topology(&self) -> impl Iterator<Item = TopologyEdge> + '_ {
        let names = &self.topology.names;
        let edges = self.topology.routers().flat_map(|(from, router)| {
            let from = names.address(from).map(|a| a.ip());
            router.edges().filter(|e| e.is_router()).filter_map(move |e| {
                Some(TopologyEdge { from: from?, to: names.address(e.to)?.ip(), metric: e.metric })
            })
        });
        let mut edges: Vec<TopologyEdge> = edges.collect();
        edges.sort_unstable();
        edges.into_iter()
    }

    /// Networks announced by others.
    pub fn attached_networks(&self) -> impl Iterator<Item = AttachedView> + '_ {
        let names = &self.topology.names;
        self.topology.routers().flat_map(move |(router, known)| {
            known.networks().filter_map(move |n| {
                let prefix = names.address(n.prefix)?;
                let network = AttachedNetwork { prefix, dist: n.dist, metric: n.metric };
                Some(AttachedView { router: names.address(router)?.ip(), network })
            })
        })
    }

    /// Records of others that are valid now, by originator and kind.
    pub fn records(&self) -> impl Iterator<Item = &Record> + '_ {
        self.records.iter()
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The same of every interface in use.
    pub fn port_counters(&self) -> impl Iterator<Item = (u32, &PortCounters)> {
        self.ports.iter().map(|(interface, port)| (*interface, &port.counters))
    }

    /// Numbers to save for the next start ([`Config::sequences`]).
    pub fn sequences(&self) -> Sequences {
        self.sequences
    }
}

impl From<nhdp::LinkStatus> for LinkStatus {
    fn from(status: nhdp::LinkStatus) -> Self {
        match status {
            nhdp::LinkStatus::Pending => Self::Pending,
            nhdp::LinkStatus::Lost => Self::Lost,
            nhdp::LinkStatus::Heard => Self::Heard,
            nhdp::LinkStatus::Symmetric => Self::Symmetric,
        }
    }
}

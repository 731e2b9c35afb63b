//! Radio, made of bridges: one interface for each node, and what it sends reaches exactly those in range.
//!
//! In a namespace of its own stands a bridge for each node, with one port that leads to the node (its
//! `mesh0`) and one that leads to the bridge of each node in range. The latter are isolated: what comes in
//! there goes to the node and nowhere else. A port that stops forwarding is a link that goes silent.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

use mesh_sys::netlink::{NetNamespace, Rtnetlink};

use crate::graph::{Edge, Graph, ordered};
use crate::lab::{Lab, Result, told};

/// The interface of a node.
pub const INTERFACE: &str = "mesh0";

/// The bridges and their ports.
#[derive(Debug)]
pub struct Air {
    namespace: NetNamespace,
    kernel: Rtnetlink,
    bridges: Vec<u32>,
    /// The port of each node.
    nodes: Vec<u32>,
    /// One end of each link; the other follows it.
    links: BTreeMap<Edge, u32>,
}

impl Air {
    /// Gives every node of the lab its interface, which is down yet, and joins those that hear each other.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(lab: &Lab, graph: &Graph) -> Result<Self> {
        let namespace = NetNamespace::new().map_err(told("network namespace"))?;
        let kernel = inside(&namespace, || {
            quiet();
            Rtnetlink::new()
        })?
        .map_err(told("air"))?;
        let mut air =
            Self { namespace, kernel, bridges: Vec::new(), nodes: Vec::new(), links: BTreeMap::new() };
        let nodes = 0..graph.nodes;
        for at in nodes.clone() {
            air.kernel.add_bridge(&format!("air{at}")).map_err(told("bridge"))?;
            let there = lab.at(at)?.namespace();
            air.kernel.add_veth(&format!("node{at}"), INTERFACE, there).map_err(told("port of a node"))?;
        }
        for edge in &graph.edges {
            air.add_pair(*edge)?;
        }
        let index = air.indices()?;
        for at in nodes {
            let bridge = found(&index, &format!("air{at}"))?;
            let port = found(&index, &format!("node{at}"))?;
            air.kernel.set_snooping(bridge, false).map_err(told("bridge"))?;
            air.join(port, bridge)?;
            air.kernel.set_up(bridge, true).map_err(told("bridge"))?;
            air.bridges.push(bridge);
            air.nodes.push(port);
        }
        for edge in &graph.edges {
            air.join_pair(*edge, &index)?;
        }
        Ok(air)
    }

    fn indices(&mut self) -> Result<BTreeMap<String, u32>> {
        Ok(self.kernel.links().map_err(told("air"))?.into_iter().map(|l| (l.name, l.index)).collect())
    }

    fn add_pair(&mut self, edge: Edge) -> Result<()> {
        let [here, there] = names(edge);
        self.kernel.add_veth(&here, &there, self.namespace.as_fd()).map_err(told("link"))
    }

    fn join_pair(&mut self, edge: Edge, index: &BTreeMap<String, u32>) -> Result<()> {
        for (name, at) in names(edge).iter().zip([edge.0, edge.1]) {
            let bridge = *self.bridges.get(at).ok_or("no such node")?;
            let port = found(index, name)?;
            self.join(port, bridge)?;
            self.kernel.set_isolated(port, true).map_err(told("isolated port"))?;
            self.links.insert(edge, port);
        }
        Ok(())
    }

    fn join(&mut self, port: u32, bridge: u32) -> Result<()> {
        self.kernel.set_master(port, Some(bridge)).map_err(told("port"))?;
        self.kernel.set_up(port, true).map_err(told("port"))
    }

    /// Lets a link carry frames, or none. The interfaces do not notice.
    ///
    /// # Errors
    /// There is no such link, or the kernel's.
    pub fn link(&mut self, edge: Edge, on: bool) -> Result<()> {
        let port = *self.links.get(&ordered(edge)).ok_or_else(|| format!("no link {edge:?}"))?;
        self.kernel.set_forwarding(port, on).map_err(told("link"))
    }

    /// Lets a node be heard and hear, or not. Its interface does not notice.
    ///
    /// # Errors
    /// There is no such node, or the kernel's.
    pub fn node(&mut self, at: usize, on: bool) -> Result<()> {
        let port = *self.nodes.get(at).ok_or_else(|| format!("no node {at}"))?;
        self.kernel.set_forwarding(port, on).map_err(told("node"))
    }

    /// From now on exactly the links of `graph` carry frames; those that did not exist are made.
    ///
    /// # Errors
    /// The kernel's.
    pub fn become_graph(&mut self, graph: &Graph) -> Result<()> {
        let new: Vec<Edge> = graph.edges.iter().copied().filter(|e| !self.links.contains_key(e)).collect();
        for edge in &new {
            self.add_pair(*edge)?;
        }
        if !new.is_empty() {
            let index = self.indices()?;
            new.iter().try_for_each(|edge| self.join_pair(*edge, &index))?;
        }
        let all: Vec<Edge> = self.links.keys().copied().collect();
        all.into_iter().try_for_each(|edge| self.link(edge, graph.edges.contains(&edge)))
    }
}

/// The two ends of a link.
fn names((a, b): Edge) -> [String; 2] {
    [format!("l{a}-{b}"), format!("l{b}-{a}")]
}

fn found(index: &BTreeMap<String, u32>, name: &str) -> Result<u32> {
    index.get(name).copied().ok_or_else(|| format!("no interface {name}"))
}

/// No addresses on bridges and ports, and no firewall between them.
fn quiet() {
    for (file, value) in [
        ("ipv6/conf/default/disable_ipv6", "1"),
        ("bridge/bridge-nf-call-iptables", "0"),
        ("bridge/bridge-nf-call-ip6tables", "0"),
        ("bridge/bridge-nf-call-arptables", "0"),
    ] {
        let _ = std::fs::write(Path::new("/proc/sys/net").join(file), value); // older kernels lack some
    }
}

/// Runs `work` on a thread inside a namespace.
fn inside<T: Send>(namespace: &NetNamespace, work: impl FnOnce() -> T + Send) -> Result<T> {
    let done = std::thread::scope(|s| s.spawn(|| namespace.enter().map(|()| work())).join());
    done.map_err(|_| "a thread panicked".to_owned())?.map_err(told("entering a namespace"))
}

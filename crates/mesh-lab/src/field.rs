//! A mesh of many nodes with a router on each, and what can befall it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use mesh_sys::netlink::sysctl;
use mesh_sys::udp::Family;

use crate::air::{Air, INTERFACE};
use crate::daemon::{Daemon, OUTSIDE, Setting};
use crate::graph::{Edge, Graph, ordered};
use crate::lab::{Lab, Node, ROUTE_TABLES, Result, told, wait_for};
use crate::stream::Stream;
use crate::watch::{Verdict, Watch};

/// Nodes on a graph, over radio or cables.
#[derive(Debug)]
pub struct Field<'a> {
    lab: &'a mut Lab,
    /// `None`: cables.
    air: Option<Air>,
    /// The graph as it was made.
    graph: Graph,
    settings: Vec<Setting>,
    daemon: Daemon,
    /// Where the programs of others are.
    peers: Option<PathBuf>,
    /// What the routes of all nodes do.
    pub watch: Watch,
}

/// What the routers of all nodes have used and sent, together, since they started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Processor time.
    pub cpu: Duration,
    /// Resident memory of the largest, in KiB.
    pub rss_kib: u64,
    /// The same, of it what is not shared with files.
    pub anon_kib: u64,
    /// IPv6 bytes sent, headers included.
    pub bytes6: u64,
    /// IPv6 packets sent.
    pub packets6: u64,
    /// All bytes sent, as Ethernet frames.
    pub bytes: u64,
    /// Changes of next hops.
    pub events: u64,
}

/// The node's addresses.
pub fn addresses(at: usize) -> (Ipv6Addr, Ipv4Addr) {
    let [high, low] = (at as u16 + 1).to_be_bytes();
    (Ipv6Addr::new(0xfd6d, 0x6573, 0x68, 0, 0, 0, 0, at as u16 + 1), Ipv4Addr::new(10, 99, high, low))
}

impl<'a> Field<'a> {
    /// Nodes joined as `graph` says, their interfaces up, with no router yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(
        lab: &'a mut Lab,
        graph: Graph,
        wired: bool,
        daemon: Daemon,
        peers: Option<PathBuf>,
    ) -> Result<Self> {
        for at in 0..graph.nodes {
            lab.add_node(&format!("n{at}"))?;
            lab.at(at)?.inside(settle)?;
        }
        let air = if wired { None } else { Some(Air::new(lab, &graph)?) };
        let mut interfaces = vec![Vec::new(); graph.nodes];
        if wired {
            for (a, b) in &graph.edges {
                let here = lab.plug(*a, *b)?;
                let there = format!("eth{}", interfaces.get(*b).map_or(0, Vec::len));
                for (at, name) in [(a, here), (b, there)] {
                    interfaces.get_mut(*at).ok_or("no such node")?.push(name);
                }
            }
        } else {
            interfaces.iter_mut().for_each(|names| names.push(INTERFACE.into()));
        }
        for (at, names) in interfaces.iter().enumerate() {
            set_up(lab.at(at)?, names)?;
        }
        let on_links =
            (0..graph.nodes).map(|at| link_locals(lab.at(at)?, &interfaces)).collect::<Result<Vec<_>>>()?;
        let setting = |(number, interfaces): (usize, Vec<String>)| Setting {
            interfaces,
            addresses: addresses(number),
            number,
            neighbors: graph.neighbors(number).filter_map(|n| on_links.get(n)).flatten().copied().collect(),
            wired,
            gateway: false,
        };
        let settings = interfaces.into_iter().enumerate().map(setting).collect();
        let own: Vec<Ipv6Addr> = (0..graph.nodes).map(|at| addresses(at).0).collect();
        let watch = Watch::new(lab, &graph, &own)?;
        Ok(Self { lab, air, graph, settings, daemon, peers, watch })
    }

    /// The graph as it was made.
    pub const fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The nodes.
    pub const fn lab(&mut self) -> &mut Lab {
        self.lab
    }

    /// Its router.
    pub const fn daemon(&self) -> Daemon {
        self.daemon
    }

    /// Starts the router of one node.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&mut self, at: usize) -> Result<()> {
        let setting = self.settings.get(at).ok_or("no such node")?;
        if !self.daemon.ours() {
            // Ours puts its addresses itself.
            let ip = IpAddr::V6(setting.addresses.0);
            self.lab.at(at)?.kernel(|nl| {
                let lo = nl.link("lo")?.map_or(1, |l| l.index);
                nl.add_address(lo, ip, 128)
            })?;
        }
        self.daemon.start(self.lab.node(at)?, setting, self.peers.as_ref())?;
        self.watch.set_alive(at, true);
        Ok(())
    }

    /// From now on a node has [`OUTSIDE`], and its router says so; it is started anew.
    ///
    /// # Errors
    /// The kernel's; the router does not end or start.
    pub fn make_gateway(&mut self, at: usize) -> Result<()> {
        self.settings.get_mut(at).ok_or("no such node")?.gateway = true;
        self.lab.at(at)?.kernel(|nl| {
            let lo = nl.link("lo")?.map_or(1, |l| l.index);
            nl.add_address(lo, OUTSIDE.into(), 128)
        })?;
        self.lab.node(at)?.stop(self.daemon.process())?;
        self.start(at)
    }

    /// Starts all routers; when the last one was started.
    ///
    /// # Errors
    /// One does not start.
    pub fn start_all(&mut self) -> Result<Instant> {
        for at in 0..self.graph.nodes {
            self.start(at)?;
            self.watch.look()?;
        }
        Ok(Instant::now())
    }

    /// Ends all routers and waits until their routes are gone.
    ///
    /// # Errors
    /// Routes stay.
    pub fn stop_all(&mut self) -> Result<()> {
        for at in 0..self.graph.nodes {
            let _ = self.lab.node(at)?.stop(self.daemon.process());
        }
        match self.watch.until(Duration::from_secs(20), |v| v.reached == 0)? {
            Some(_) => Ok(()),
            None => Err("routes stay after all routers have ended".into()),
        }
    }

    /// Kills the router of a node, as a crash does; the kernel goes on forwarding.
    ///
    /// # Errors
    /// It does not run.
    pub fn crash(&mut self, at: usize) -> Result<()> {
        self.lab.node(at)?.kill(self.daemon.process())
    }

    /// A link goes silent, or comes back. With cables it is the carrier that goes.
    ///
    /// # Errors
    /// There is no such link.
    pub fn set_link(&mut self, edge: Edge, on: bool) -> Result<()> {
        match &mut self.air {
            Some(air) => air.link(edge, on)?,
            None => self.set_cable(edge, on)?,
        }
        let mut truth = self.watch.truth().clone();
        match on {
            true => truth.edges.insert(ordered(edge)),
            false => truth.edges.remove(&ordered(edge)),
        };
        self.watch.set_truth(truth);
        Ok(())
    }

    fn set_cable(&self, edge: Edge, on: bool) -> Result<()> {
        let (a, b) = ordered(edge);
        // Cables were plugged in the order of the edges.
        let at =
            self.graph.edges.iter().take_while(|e| **e != (a, b)).filter(|(x, y)| *x == a || *y == a).count();
        let name = format!("eth{at}");
        self.lab.at(a)?.kernel(|nl| {
            let index = nl.link(&name)?.map_or(0, |l| l.index);
            nl.set_up(index, on)
        })
    }

    /// The node goes off the air without a word, its router with it; its routes stay behind in a kernel that
    /// nobody hears. Turned on again, it starts without routes.
    ///
    /// # Errors
    /// Only radio nodes can.
    pub fn power(&mut self, at: usize, on: bool) -> Result<()> {
        let air = self.air.as_mut().ok_or("only with radio")?;
        air.node(at, on)?;
        let graph = &self.graph;
        let mut truth = self.watch.truth().clone();
        if on {
            truth.edges.extend(graph.neighbors(at).map(|n| ordered((at, n))));
            self.watch.set_truth(truth);
            self.forget_routes(at)?;
            return self.start(at);
        }
        self.watch.set_truth(truth.without_node(at));
        self.watch.set_alive(at, false);
        self.crash(at)
    }

    /// A node that starts has no routes, whatever its last run left.
    fn forget_routes(&self, at: usize) -> Result<()> {
        let index = self.settings.get(at).map(|s| s.addresses.0);
        self.lab.at(at)?.kernel(|nl| {
            let mut routes = Vec::new();
            for table in ROUTE_TABLES {
                routes.extend(nl.routes(&mesh_sys::netlink::RouteFilter { table, protocol: None })?);
            }
            let learnt = |r: &&mesh_sys::netlink::Route| {
                r.prefix_len == 128 && Some(r.prefix) != index.map(IpAddr::V6) || r.prefix_len == 32
            };
            routes.iter().filter(learnt).try_for_each(|r| nl.remove_route(r))
        })
    }

    /// All links change at once.
    ///
    /// # Errors
    /// Only radio nodes can; the kernel's.
    pub fn become_graph(&mut self, graph: &Graph) -> Result<()> {
        self.air.as_mut().ok_or("only with radio")?.become_graph(graph)?;
        self.watch.set_truth(graph.clone());
        Ok(())
    }

    /// Each node loses that share of the multicast packets that reach it (0: none), at random.
    ///
    /// # Errors
    /// nft is not there or refuses.
    pub fn lose_multicast(&mut self, percent: u8) -> Result<()> {
        let rules = format!(
            "table inet lab {{ }}\ndelete table inet lab\ntable inet lab {{ chain in {{ type filter hook prerouting \
             priority -300; meta pkttype multicast numgen random mod 100 < {percent} counter drop; }}; }}\n"
        );
        for at in 0..self.graph.nodes {
            let file = self.lab.at(at)?.file("loss.nft");
            fs::write(&file, &rules).map_err(told("loss.nft"))?;
            let mut command = Command::new("nft");
            command.arg("-f").arg(&file);
            let out = self.lab.at(at)?.inside(move || {
                mesh_sys::signal::unblock_all();
                command.output()
            })?;
            let out = out.map_err(told("nft"))?;
            if !out.status.success() {
                return Err(format!("nft: {}", String::from_utf8_lossy(&out.stderr).trim()));
            }
        }
        Ok(())
    }

    /// Echoes from one node to another, one each `period`.
    ///
    /// # Errors
    /// No raw socket.
    pub fn echoes(&self, from: usize, to: usize, period: Duration) -> Result<Stream> {
        Stream::start(self.lab, from, addresses(from).0, addresses(to).0, period)
    }

    /// Echoes from a node to whatever gateway it uses.
    ///
    /// # Errors
    /// No raw socket.
    pub fn echoes_outside(&self, from: usize, period: Duration) -> Result<Stream> {
        Stream::start(self.lab, from, addresses(from).0, OUTSIDE, period)
    }

    /// Kills all routers and makes all nodes forget their routes, then starts all anew: a power cut and its
    /// end. When the last one was started.
    ///
    /// # Errors
    /// The kernel's; one does not start.
    pub fn power_cycle_all(&mut self) -> Result<Instant> {
        for at in 0..self.graph.nodes {
            self.crash(at)?;
        }
        for at in 0..self.graph.nodes {
            self.forget_routes(at)?;
        }
        self.watch.until(Duration::from_secs(5), |v| v.reached == 0)?;
        self.start_all()
    }

    /// Waits until no next hop has changed for `calm`, at most `patience`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn calm(&mut self, calm: Duration, patience: Duration) -> Result<()> {
        let (end, mut seen, mut since) = (Instant::now() + patience, self.watch.events(), Instant::now());
        while Instant::now() < end && since.elapsed() < calm {
            self.watch.until(Duration::from_millis(50), |_| false)?;
            if self.watch.events() != seen {
                (seen, since) = (self.watch.events(), Instant::now());
            }
        }
        Ok(())
    }

    /// Waits until all that can reach each other do.
    ///
    /// # Errors
    /// Which pairs did not within `patience`.
    pub fn settle(&mut self, patience: Duration) -> Result<Instant> {
        match self.watch.until(patience, |v: Verdict| v.whole())? {
            Some(at) => Ok(at),
            None => {
                let ended: Vec<String> = (0..self.graph.nodes).flat_map(|at| self.ended(at)).collect();
                let missing = self.watch.missing(6);
                Err(format!("not whole within {} s: {missing}{}", patience.as_secs(), ended.join(", ")))
            }
        }
    }

    fn ended(&mut self, at: usize) -> Vec<String> {
        self.lab.node(at).map_or_else(|_| Vec::new(), Node::ended)
    }

    /// Follows the routes for that long; what was seen each second.
    ///
    /// # Errors
    /// The kernel's.
    pub fn observe(&mut self, time: Duration) -> Result<Vec<Verdict>> {
        let end = Instant::now() + time;
        let mut samples = Vec::new();
        while Instant::now() < end {
            self.watch
                .until(Duration::from_secs(1).min(end.saturating_duration_since(Instant::now())), |_| {
                    false
                })?;
            samples.push(self.watch.look()?);
        }
        Ok(samples)
    }

    /// What all routers have used until now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn used(&mut self) -> Result<Used> {
        self.watch.look()?;
        let mut used = Used { events: self.watch.events(), ..Used::default() };
        for (at, setting) in self.settings.iter().enumerate() {
            let Some(pid) = self.lab.at(at)?.pid(self.daemon.process()) else { continue };
            used.cpu += cpu(pid);
            let kib = |key: &str| status_kib(pid, key);
            used.rss_kib = used.rss_kib.max(kib("VmRSS:"));
            used.anon_kib = used.anon_kib.max(kib("RssAnon:"));
            for name in &setting.interfaces {
                let counts = read(&format!("/proc/{pid}/net/dev_snmp6/{name}"));
                let value = |key: &str| {
                    let line = counts.lines().find(|l| l.split_whitespace().next() == Some(key));
                    line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
                };
                used.bytes6 += value("Ip6OutOctets");
                used.packets6 += value("Ip6OutRequests");
                used.bytes += sent_bytes(&read(&format!("/proc/{pid}/net/dev")), name);
            }
        }
        Ok(used)
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// From `/proc/<pid>/net/dev`.
fn sent_bytes(text: &str, interface: &str) -> u64 {
    let line = text.lines().find_map(|l| l.trim().strip_prefix(interface)?.strip_prefix(':'));
    line.and_then(|l| l.split_whitespace().nth(8)?.parse().ok()).unwrap_or(0)
}

fn status_kib(pid: u32, key: &str) -> u64 {
    let status = read(&format!("/proc/{pid}/status"));
    let value =
        status.lines().find_map(|l| l.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse().ok());
    value.unwrap_or(0)
}

/// Processor time of a process with one thread, to the nanosecond where the kernel counts it.
fn cpu(pid: u32) -> Duration {
    let text = read(&format!("/proc/{pid}/schedstat"));
    let nanos = text.split_whitespace().next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Inside a new node: it forwards, its addresses are usable at once, and it asks for no router.
pub(crate) fn settle() {
    for name in ["all", "default"] {
        for (family, key, value) in [
            (Family::V6, "forwarding", "1"),
            (Family::V4, "forwarding", "1"),
            (Family::V6, "accept_dad", "0"),
            (Family::V6, "router_solicitations", "0"),
            (Family::V4, "rp_filter", "0"),
            (Family::V4, "send_redirects", "0"),
        ] {
            let _ = sysctl::set(family, name, key, value);
        }
    }
}

pub(crate) fn set_up(node: &Node, names: &[String]) -> Result<()> {
    node.kernel(|nl| {
        let links = nl.links()?;
        links.iter().filter(|l| names.contains(&l.name)).try_for_each(|l| nl.set_up(l.index, true))
    })
}

/// The link-local addresses of a node, once it has one on each interface.
fn link_locals(node: &Node, interfaces: &[Vec<String>]) -> Result<Vec<Ipv6Addr>> {
    let number: usize = node.name().trim_start_matches('n').parse().unwrap_or(0);
    let want = interfaces.get(number).map_or(0, Vec::len);
    wait_for("link-local addresses", Duration::from_secs(20), || {
        let all = node.kernel(mesh_sys::netlink::Rtnetlink::addresses)?;
        let good: Vec<Ipv6Addr> = all
            .iter()
            .filter(|a| !a.tentative)
            .filter_map(|a| match a.ip {
                IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(ip),
                _ => None,
            })
            .collect();
        if good.len() >= want { Ok(good) } else { Err(format!("{} of {want}", good.len())) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sent_bytes_are_the_ninth_number() {
        let text =
            "Inter-|   Receive\n face |bytes\n  mesh0: 1 2 3 4 5 6 7 8 900 10 0 0 0 0 0 0\n    lo: 5 0";
        assert_eq!(sent_bytes(text, "mesh0"), 900);
        assert_eq!(sent_bytes(text, "eth0"), 0);
    }

    #[test]
    fn addresses_differ() {
        assert_eq!(addresses(0).1.to_string(), "10.99.0.1");
        assert_eq!(addresses(255).1.to_string(), "10.99.1.0");
        assert_eq!(addresses(9).0.to_string(), "fd6d:6573:68::a");
    }
}

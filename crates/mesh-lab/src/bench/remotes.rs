//! What each router of a large mesh costs a real mesh-router in memory: one neighbour tells of them all.
//!
//! The neighbour is no router: it sends the HELLOs and TCs that one in the corner of a grid would, in both
//! families, every TC each ten seconds with a new number, as from a mesh that stands still.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use mesh_ipc::router::{RouterRequest, RouterResponse};
use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::report::say;
use mesh_sys::udp::{Family, MulticastConfig, MulticastSocket};
use rfc5444::{
    Attribute, Attributed, INTERVAL_TIME, Message, NetAddr, Packet, Tlv, VALIDITY_TIME, encode_time, pack,
};

/// How many routers there are, in turn; the difference tells what each costs.
const NODES: [usize; 2] = [100, 1000];
/// Long enough for message numbers to be forgotten and for the router to compare its routes with the kernel's.
const TIME: Duration = Duration::from_secs(45);
/// Between two TCs of one router.
const ROUND: Duration = Duration::from_secs(10);
/// Steps of a round.
const STEPS: usize = 100;
/// The step of the first TC; by then the link is there.
const FIRST_TC: usize = 50;
const PORT: u16 = 269;
const GROUPS: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x6d)), IpAddr::V4(Ipv4Addr::new(224, 0, 0, 109))];

/// Prints the table.
pub(super) fn measure(lab: impl Fn() -> Result<Lab>) -> Result<()> {
    let mut figures = Vec::new();
    for nodes in NODES {
        let mut lab = lab()?;
        let memory = one(&mut lab, nodes)?;
        say(&format!(
            "    a mesh of {nodes:>4}, both families: RSS {:.2} MB, of it not shared with files {:.2} MB, most ever {:.2} MB",
            memory.rss as f64 / 1024.0,
            memory.own as f64 / 1024.0,
            memory.peak as f64 / 1024.0
        ));
        figures.push((nodes, memory));
    }
    if let [(few, small), (many, large)] = figures.as_slice() {
        let each = (large.own as f64 - small.own as f64) * 1024.0 / (many - few) as f64;
        say(&format!("memory for each further remote node, both families (goal 600): {each:.0} bytes"));
    }
    Ok(())
}

/// In KiB.
struct Memory {
    rss: u64,
    own: u64,
    peak: u64,
}

fn one(lab: &mut Lab, nodes: usize) -> Result<Memory> {
    let (us, them) = (lab.add_node("us")?, lab.add_node("them")?);
    lab.plug(us, them)?;
    let mut links = Vec::new();
    for at in [us, them] {
        links.push(lab.node(at)?.kernel(|nl| {
            let index = nl.link("eth0")?.map_or(0, |l| l.index);
            nl.set_up(index, true).map(|()| index)
        })?);
    }
    let &[here, index] = links.as_slice() else { return Err("two ends".into()) };
    let on_link = |at: usize, index: u32| {
        let node = lab.at(at)?;
        wait_for("a link-local address", Duration::from_secs(10), || link_local(node, index))
    };
    let (ours, theirs) = (on_link(us, here)?, on_link(them, index)?);
    lab.at(them)?.kernel(|nl| nl.add_address(index, ip(false, 1), 32))?;
    let (six, four) = (ip(true, 0).to_string(), ip(false, 0).to_string());
    lab.node(us)?.start("mesh-router", &["--interface", "eth0", "--originator", &six, &four])?;
    let mut mesh = Mesh::new(nodes, ours, theirs);
    lab.at(them)?.inside(|| mesh.speak(index))??;
    let node = lab.at(us)?;
    // Before it is asked for its routes: the answer takes room, too.
    let pid = node.pid("mesh-router").ok_or("mesh-router does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(told("memory"))?;
    let kib = |key: &str| {
        let line = status.lines().find(|l| l.starts_with(key));
        line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
    };
    let memory = Memory { rss: kib("VmRSS:"), own: kib("RssAnon:"), peak: kib("VmHWM:") };
    let routes = match node.ask_router(RouterRequest::Routes)? {
        RouterResponse::Routes(routes) => routes.iter().map(|r| (r.destination, r.prefix_len)).collect(),
        _ => BTreeSet::new(),
    };
    // Each has an IPv6 address and prefix and an IPv4 address.
    if routes.len() != 3 * (nodes - 1) {
        return Err(format!("{} routes, not {}", routes.len(), 3 * (nodes - 1)));
    }
    lab.node(us)?.stop("mesh-router")?;
    Ok(memory)
}

fn link_local(node: &Node, index: u32) -> Result<IpAddr> {
    let all = node.kernel(|nl| nl.addresses())?;
    let mut mine = all.iter().filter(|a| a.index == index).map(|a| a.ip);
    mine.find(|a| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local())).ok_or_else(|| "none".into())
}

/// A router's address: as random as a real one, whose first bytes come from a digest.
fn ip(v6: bool, node: usize) -> IpAddr {
    let mix = (node as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let [a, b, c, d, e, f, g, ..] = mix.to_be_bytes();
    match v6 {
        true => IpAddr::from([0xfd, a, b, c, d, e, f, g, 0, 0, 0, 0, 0, 0, 0, 1]),
        // A bijection of the lower 22 bits, as the real ones lie in a /10.
        false => {
            let n = (node as u32 + 1).wrapping_mul(0x9_e375) & 0x3f_ffff;
            IpAddr::from((0x0a40_0000u32 | n).to_be_bytes())
        }
    }
}

/// What the neighbour tells.
struct Mesh {
    nodes: usize,
    side: usize,
    links: [Link; 2],
    seq: u16,
}

/// One family's part.
#[derive(Clone, Copy)]
struct Link {
    v6: bool,
    group: IpAddr,
    /// Addresses on the link.
    ours: IpAddr,
    theirs: IpAddr,
}

impl Mesh {
    fn new(nodes: usize, ours: IpAddr, theirs: IpAddr) -> Self {
        let side = (1..nodes).find(|s| s * s >= nodes).unwrap_or(1);
        let [group6, group4] = GROUPS;
        let links = [
            Link { v6: true, group: group6, ours, theirs },
            Link { v6: false, group: group4, ours: ip(false, 0), theirs: ip(false, 1) },
        ];
        Self { nodes, side, links, seq: 0 }
    }

    /// Sends from the interface of that index for [`TIME`].
    fn speak(&mut self, index: u32) -> Result<()> {
        let open = |link: Link| {
            let config = MulticastConfig {
                family: Family::of(&link.group),
                interface: "eth0",
                index,
                port: PORT,
                groups: &GROUPS,
                hop_limit: 1,
                loopback: false,
                traffic_class: 0,
            };
            Ok((link, MulticastSocket::open(&config).map_err(told("socket"))?))
        };
        let links = self.links.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        let (start, step) = (Instant::now(), ROUND / STEPS as u32);
        for turn in 0.. {
            if start.elapsed() >= TIME {
                break;
            }
            for (link, socket) in &links {
                for messages in self.turn(*link, turn).chunks(6) {
                    let packet = Packet { seq: None, tlvs: None, messages: messages.to_vec() };
                    let bytes = packet.to_bytes().map_err(|e| format!("packet: {e:?}"))?;
                    let sent = socket.send_to_group(&bytes, link.group, Some(link.theirs));
                    // At first the address may still be tentative.
                    sent.or_else(|e| if turn < FIRST_TC { Ok(()) } else { Err(e) })
                        .map_err(told("sending"))?;
                }
            }
            std::thread::sleep((step * (turn as u32 + 1)).saturating_sub(start.elapsed()));
        }
        Ok(())
    }

    /// A HELLO each second; after the first ones, which make the link, a share of the TCs.
    fn turn(&mut self, link: Link, turn: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        messages.extend(turn.is_multiple_of(10).then(|| self.hello(link)));
        if turn >= FIRST_TC {
            let share = |at: usize| 1 + at * (self.nodes - 1) / STEPS;
            let (first, end) = (share(turn % STEPS), share(turn % STEPS + 1));
            messages.extend((first..end).map(|node| self.tc(link, node)));
        }
        messages
    }

    fn message(&mut self, kind: u8, link: Link, originator: usize) -> Message {
        self.seq = self.seq.wrapping_add(1);
        let mut message = Message::new(kind, if link.v6 { 16 } else { 4 });
        message.originator = Some(ip(link.v6, originator).into());
        message.seq = Some(self.seq);
        message
    }

    /// The link is symmetric, and we are its MPR.
    fn hello(&mut self, link: Link) -> Message {
        let mut message = self.message(0, link, 1);
        message.tlvs = vec![time(VALIDITY_TIME, 6), time(INTERVAL_TIME, 1), Tlv::new(7, &[0x77])];
        let us = vec![Attribute::new(3, &[1]), metric(0xf000), Attribute::new(8, &[3])];
        message.blocks = pack(&[
            entry(NetAddr::host(link.theirs), vec![Attribute::new(2, &[0])]),
            entry(NetAddr::host(link.ours), us),
        ]);
        message
    }

    /// All links of a node of the grid and, in IPv6, its prefix, as mesh-router would write it: a TC in other words
    /// is kept whole.
    fn tc(&mut self, link: Link, node: usize) -> Message {
        let (row, column) = (node / self.side, node % self.side);
        let mut near = Vec::new();
        near.extend((column > 0).then(|| node - 1));
        near.extend((column + 1 < self.side).then_some(node + 1));
        near.extend((row > 0).then(|| node - self.side));
        near.push(node + self.side);
        near.retain(|n| *n < self.nodes);
        let mut message = self.message(1, link, node);
        message.hop_limit = Some(240);
        message.hop_count = Some((row + column).min(15) as u8);
        message.tlvs = vec![time(INTERVAL_TIME, 10), time(VALIDITY_TIME, 60), Tlv::new(8, &[0, 1])];
        // In the order in which mesh-router tells them.
        near.sort_by_key(|n| ip(link.v6, *n));
        let to = |n| entry(NetAddr::host(ip(link.v6, n)), vec![Attribute::new(9, &[3]), metric(0x1000)]);
        message.blocks = pack(&near.into_iter().map(to).collect::<Vec<_>>());
        if link.v6 {
            let prefix = NetAddr::new(ip(true, node), 64).network();
            message.blocks.extend(pack(&[entry(prefix, vec![Attribute::new(10, &[0]), metric(0x1000)])]));
        }
        message
    }
}

fn time(kind: u8, seconds: u64) -> Tlv {
    Tlv::new(kind, &[encode_time(seconds * 1_000_000)])
}

/// LINK_METRIC of those kinds: 256.
fn metric(kinds: u16) -> Attribute {
    Attribute::new(7, &(kinds | 0xff).to_be_bytes())
}

fn entry(address: NetAddr, attributes: Vec<Attribute>) -> Attributed {
    Attributed { address: address.into(), attributes }
}

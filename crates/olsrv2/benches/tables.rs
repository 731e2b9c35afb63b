//! Time of route calculations and TCs, and memory, in one router: `cargo bench -p olsrv2 --bench tables`.
//!
//! The router is a corner of a square grid of 1,000 or 10,000 nodes whose links have costs drawn at random;
//! it hears everyone's TC: all links, both originator and routable, and one /64.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration as Span, Instant as Wall};

use mesh_types::{Duration, Instant, Metric, NodeId};
use nhdp::Rng;
use olsrv2::{Config, Input, NetAddr, Router};
use rfc5444::{
    Attribute, Attributed, INTERVAL_TIME, Message, NetAddr as Net, Packet, Tlv, VALIDITY_TIME, encode_time,
    pack,
};

fn main() {
    // The largest first: only then does the process' memory grow by what the mesh needs.
    for nodes in [10_000, 1_000] {
        let before = resident();
        let mut mesh = Mesh::new(nodes);
        let start = Wall::now();
        (1..nodes).for_each(|n| mesh.tc(n));
        let news = start.elapsed() / nodes as u32;
        mesh.wait(Duration::from_millis(500));
        let routes = mesh.router.routes().count();
        assert_eq!(routes, 2 * (nodes - 1), "a route to everyone and to everyone's prefix");
        let memory = (resident() - before - mesh.own_bytes()) as f64 / nodes as f64;

        let same: Vec<Span> = (0..500).map(|i| timed(|| mesh.tc(1 + i % (nodes - 1))).0).collect();
        let runs = mesh.router.counters().route_runs;
        mesh.wait(Duration::from_millis(200));
        assert_eq!(mesh.router.counters().route_runs, runs, "nothing changed");

        let mut one = Vec::new();
        for _ in 0..5 {
            // Nothing is believed for longer than 300 s, 1,000 changes.
            mesh.refresh();
            one.extend((0..400).map(|_| mesh.change_one_link()));
        }
        mesh.refresh();
        let full: Vec<Span> = (0..50).map(|i| mesh.change_two_hop(i)).collect();
        let all: Vec<Span> = (0..50).map(|i| mesh.change_first_hop(i)).collect();
        println!(
            "{nodes} nodes: full run {:.3} ms (best {:.3}), when half the routes change {:.3} ms, after one link {:.1} µs (p95 {:.1}, p99 {:.1}), new TC {:.2} µs, \
             known TC {:.2} µs{}",
            micros(&full, 0.5) / 1000.0,
            micros(&full, 0.0) / 1000.0,
            micros(&all, 0.5) / 1000.0,
            micros(&one, 0.5),
            micros(&one, 0.95),
            micros(&one, 0.99),
            news.as_secs_f64() * 1e6,
            micros(&same, 0.5),
            if nodes == 10_000 { format!(", {memory:.0} bytes per node") } else { String::new() },
        );
    }
}

struct Mesh {
    router: Router,
    now: Instant,
    rng: Rng,
    ids: Vec<NodeId>,
    /// By node: its neighbours and the costs towards them.
    links: Vec<Vec<(usize, u32)>>,
    seq: u16,
}

impl Mesh {
    fn new(nodes: usize) -> Self {
        let mut rng = Rng::new(nodes as u64);
        let side = (1..).find(|s| s * s >= nodes).unwrap();
        let ids = (0..nodes).map(|_| {
            let mut digest = [0; 32];
            digest.chunks_mut(8).for_each(|c| c.copy_from_slice(&rng.next_u64().to_be_bytes()));
            NodeId::from_digest(digest)
        });
        let ids: Vec<NodeId> = ids.collect();
        let mut links = vec![Vec::new(); nodes];
        let right = (1..nodes).filter(|n| n % side > 0).map(|n| (n - 1, n));
        for (a, b) in right.chain((side..nodes).map(|n| (n - side, n))) {
            links[a].push((b, cost(&mut rng)));
            links[b].push((a, cost(&mut rng)));
        }
        let now = Instant::from_millis(1000);
        let mut router = Router::new(Config::new(ids[0].ula_address().into()), 1, now);
        let own = [NetAddr::host(on_link(0))];
        router.handle_input(now, Input::InterfaceUp { interface: 1, addresses: &own }).unwrap();
        let mut mesh = Self { router, now, rng, ids, links, seq: 0 };
        for (to, cost) in mesh.links[0].clone() {
            mesh.hello(to, cost, &[]);
            mesh.hello(to, cost, &[]);
        }
        mesh
    }

    /// What the test itself keeps.
    fn own_bytes(&self) -> u64 {
        (self.ids.len() * 32 + self.links.iter().map(|l| l.capacity() * 16 + 24).sum::<usize>()) as u64
    }

    /// Everyone says the same again.
    fn refresh(&mut self) {
        for (to, cost) in self.links[0].clone() {
            self.hello(to, cost, &[]);
        }
        (1..self.ids.len()).for_each(|n| self.tc(n));
    }

    fn ip(&self, node: usize) -> IpAddr {
        self.ids[node].ula_address().into()
    }

    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.router.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.router.handle_timeout(self.now);
            while self.router.poll_output().is_some() {}
        }
        self.now = end;
    }

    fn send(&mut self, from: usize, message: Message) {
        let bytes = Packet { seq: None, tlvs: None, messages: vec![message] }.to_bytes().unwrap();
        let packet = Input::Packet { interface: 1, source: on_link(from), bytes: &bytes };
        self.router.handle_input(self.now, packet).unwrap();
        while let Some(output) = self.router.poll_output() {
            black_box(output);
        }
    }

    /// A neighbour's HELLO, valid for a long time: it hears us at that cost, and those others.
    fn hello(&mut self, from: usize, cost: u32, others: &[usize]) {
        let mut message = Message::new(0, 16);
        message.originator = Some(self.ip(from).into());
        message.tlvs = vec![Tlv::new(VALIDITY_TIME, &[encode_time(3_600_000_000)]), Tlv::new(7, &[0x77])];
        let us = vec![Attribute::new(3, &[1]), metric(0xf000, cost)];
        let mut entries = vec![
            entry(Net::host(on_link(from)), vec![Attribute::new(2, &[0])]),
            entry(Net::host(on_link(0)), us),
        ];
        let symmetric = || vec![Attribute::new(4, &[1]), metric(0x3000, 700)];
        entries.extend(others.iter().map(|n| entry(Net::host(self.ip(*n)), symmetric())));
        message.blocks = pack(&entries);
        self.send(from, message);
    }

    /// A node's TC, heard from our first neighbour.
    fn tc(&mut self, node: usize) {
        self.seq += 1;
        let mut message = Message::new(1, 16);
        message.originator = Some(self.ip(node).into());
        message.hop_limit = Some(255);
        message.hop_count = Some(9);
        message.seq = Some(self.seq);
        message.tlvs = vec![
            Tlv::new(INTERVAL_TIME, &[encode_time(40_000_000)]),
            Tlv::new(VALIDITY_TIME, &[encode_time(3_600_000_000)]),
            Tlv::new(8, &self.seq.to_be_bytes()),
        ];
        let links = self.links[node].iter().map(|(to, cost)| {
            let said = vec![Attribute::new(9, &[3]), metric(0x1000, *cost)];
            entry(Net::host(self.ip(*to)), said)
        });
        // In the order in which this router tells them.
        let mut links: Vec<Attributed> = links.collect();
        links.sort_by_key(|e| e.address);
        message.blocks = pack(&links);
        let prefix = Net::new(self.ids[node].ula_prefix().into(), 64);
        message.blocks.extend(pack(&[entry(prefix, vec![Attribute::new(10, &[0]), metric(0x1000, 1)])]));
        self.send(self.links[0][0].0, message);
    }

    /// Time of the run after the cost of one link somewhere changed.
    fn change_one_link(&mut self) -> Span {
        // Neither a neighbour of ours nor the one of [`Mesh::touch`].
        let far = 2 * self.ids.len() / 3;
        let node = far / 2 + self.rng.next_u64() as usize % far.div_ceil(2);
        let at = self.rng.next_u64() as usize % self.links[node].len();
        let old = self.links[node][at].1;
        while self.links[node][at].1 == old {
            self.links[node][at].1 = cost(&mut self.rng);
        }
        self.wait(Duration::from_millis(200));
        self.touch();
        self.tc(node);
        self.timed_run()
    }

    /// A run happens now, so that the next change is put off.
    fn touch(&mut self) {
        let last = self.ids.len() - 1;
        self.links[last][0].1 ^= 1 << 9;
        self.tc(last);
    }

    fn change_first_hop(&mut self, turn: u32) -> Span {
        self.wait(Duration::from_millis(200));
        self.touch();
        let to = self.links[0][0].0;
        self.hello(to, if turn.is_multiple_of(2) { 300 } else { 1_000 }, &[]);
        self.timed_run()
    }

    /// A full run that changes (nearly) nothing.
    fn change_two_hop(&mut self, turn: u32) -> Span {
        self.wait(Duration::from_millis(200));
        self.touch();
        let (to, cost) = self.links[0][0];
        let far = self.ids.len() / 2;
        self.hello(to, cost, &[far + turn as usize]);
        self.timed_run()
    }

    fn timed_run(&mut self) -> Span {
        let runs = self.router.counters().route_runs;
        self.now += Duration::from_millis(100);
        let (span, ()) = timed(|| self.router.handle_timeout(self.now));
        while self.router.poll_output().is_some() {}
        assert_eq!(self.router.counters().route_runs, runs + 1);
        span
    }
}

fn cost(rng: &mut Rng) -> u32 {
    Metric::from_compressed(Metric::new(256 + (rng.next_u64() % 1000) as u32).to_compressed()).value()
}

fn metric(kind: u16, cost: u32) -> Attribute {
    Attribute::new(7, &(kind | Metric::new(cost).to_compressed()).to_be_bytes())
}

fn entry(address: Net, attributes: Vec<Attribute>) -> Attributed {
    Attributed { address: address.into(), attributes }
}

fn on_link(node: usize) -> IpAddr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0x2, 0xff, 0xfe00, node as u16).into()
}

fn timed<T>(work: impl FnOnce() -> T) -> (Span, T) {
    let start = Wall::now();
    let value = work();
    (start.elapsed(), value)
}

fn micros(spans: &[Span], part: f64) -> f64 {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    sorted[((sorted.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

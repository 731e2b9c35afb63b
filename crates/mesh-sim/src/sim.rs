//! The mesh as a test sees it.

use std::net::IpAddr;

use mesh_types::{Duration, Instant};
use nhdp::Rng;
use olsrv2::{AttachedNetwork, Config, Input, NetAddr, Route, Router, Timing};

use crate::engine::{self, Mail, Shard};
use crate::medium::{Link, Medium, Port, prefix};
use crate::node::{Node, Traffic};
use crate::{Clock, Field, Shape};

/// The interface every node has from its start.
pub const RADIO: u32 = 1;
/// A second one, where a test wants it.
pub const WIRE: u32 = 2;

/// What a simulation is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Everything random follows from it.
    pub seed: u64,
    /// Threads to run on; the outcome is the same with any number.
    pub threads: usize,
    /// IPv4 without interface addresses, or IPv6.
    pub ipv4: bool,
    /// Shortest time from sending to hearing.
    pub delay: Duration,
    /// Up to so much more, drawn for each packet.
    pub jitter: Duration,
    /// Clocks differ by up to so many parts per million, and start anywhere within a day.
    pub skew_ppm: u32,
    /// Keep what routers tell as events, with the time.
    pub keep_events: bool,
    /// The command that repeats the run, for failures; empty: only the seed is told.
    pub command: String,
}

impl Settings {
    /// One thread, IPv6, packets take 0.5 to 2.5 ms, one clock for all.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            threads: 1,
            ipv4: false,
            delay: Duration::from_micros(500),
            jitter: Duration::from_millis(2),
            skew_ppm: 0,
            keep_events: false,
            command: String::new(),
        }
    }
}

/// A mesh of routers.
#[derive(Debug)]
pub struct Sim {
    /// The simulator's time.
    pub now: Instant,
    settings: Settings,
    shards: Vec<Shard>,
    pub(crate) medium: Medium,
    rng: Rng,
    parted: Option<Vec<Vec<Link>>>,
}

/// Tells how to repeat a run that ends in a panic.
struct Repeat<'a>(&'a Settings, Instant);

impl Drop for Repeat<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            use std::io::Write;
            let Settings { seed, command, .. } = self.0;
            let _ = writeln!(std::io::stderr(), "failed after {}, seed {seed} {command}", self.1);
        }
    }
}

impl Sim {
    /// No nodes yet.
    pub fn new(settings: Settings) -> Self {
        let threads = settings.threads.max(1);
        Self {
            now: Instant::from_millis(1000),
            shards: (0..threads).map(|n| Shard::new(n, threads)).collect(),
            medium: Medium::new(settings.seed, settings.ipv4, settings.delay, settings.jitter),
            rng: Rng::new(settings.seed),
            parted: None,
            settings,
        }
    }

    /// `n` nodes in a shape, all switched on now.
    pub fn build(settings: Settings, shape: Shape, n: usize, timing: Timing) -> Self {
        let mut sim = Self::new(settings);
        (0..n).for_each(|_| {
            sim.add(|c| c.timing = timing);
        });
        sim.lay_out(shape, 0.0);
        sim
    }

    /// Connects the nodes there are in a shape; the field, if it has one.
    pub fn lay_out(&mut self, shape: Shape, loss: f64) -> Option<Field> {
        let n = self.len();
        let field = match shape {
            Shape::Geometric { degree } => Some(Field::new(self.settings.seed, n, degree)),
            _ => None,
        };
        let edges = shape.edges(n).into_iter();
        let near = field.iter().flat_map(|f| f.edges()).map(|(a, b, _)| (a, b));
        edges.chain(near).for_each(|(a, b)| self.connect(a, b));
        self.set_loss(loss);
        field
    }

    /// Puts the links where the field's nodes are now. Links that stay keep their loss.
    pub fn move_to(&mut self, field: &Field, loss: f64) {
        let old = self.medium.snapshot();
        self.medium.retain(|_, _| false);
        for (a, b, _) in field.edges() {
            for (from, to) in [(a, b), (b, a)] {
                let known = old[from].iter().find(|l| l.to == (to, RADIO) && l.interface == RADIO);
                let loss = known.map_or(share(loss), |l| l.loss);
                self.medium.connect((from, RADIO), (to, RADIO), loss);
            }
        }
    }

    /// Nodes so far.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.nodes.len()).sum()
    }

    /// No nodes so far.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One node.
    pub fn node(&self, index: usize) -> &Node {
        &self.shards[index % self.shards.len()].nodes[index / self.shards.len()]
    }

    fn node_mut(&mut self, index: usize) -> &mut Node {
        let of = self.shards.len();
        &mut self.shards[index % of].nodes[index / of]
    }

    /// All nodes in order.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        (0..self.len()).map(|i| self.node(i))
    }

    /// A new node, switched on, its radio up.
    pub fn add(&mut self, change: impl FnOnce(&mut Config)) -> usize {
        let index = self.medium.add();
        let mut config = Config::new(self.originator(index));
        change(&mut config);
        let clock = self.draw_clock();
        let seed = self.rng.next_u64();
        let router = Router::new(config, seed, clock.local(self.now));
        let node = Node::new(router, clock, self.settings.keep_events);
        let of = self.shards.len();
        self.shards[index % of].nodes.push(node);
        self.bring_up((index, RADIO));
        index
    }

    fn draw_clock(&mut self) -> Clock {
        let ppm = self.settings.skew_ppm;
        if ppm == 0 {
            return Clock::default();
        }
        let span = Duration::from_micros(2 * u64::from(ppm));
        let drawn = self.rng.up_to(span).as_micros() as i64 - i64::from(ppm);
        let offset = self.rng.up_to(Duration::from_secs(86_400)).as_micros();
        Clock { offset, ppm: i32::try_from(drawn).unwrap_or(0) }
    }

    /// Attaches a network to a node: its /64.
    pub fn attach(&mut self, node: usize) {
        let one = AttachedNetwork { prefix: self.prefix(node), dist: 0, metric: mesh_types::Metric::MIN };
        self.input(node, Input::AttachedNetworks(&[one]));
    }

    /// Switches a node off and on: its kernel has no routes, and it knows nothing but, with `keep`, its
    /// sequence numbers.
    pub fn restart(&mut self, node: usize, keep: bool) {
        let old = &self.node(node).router;
        let sequences = Some(old.sequences()).filter(|_| keep);
        let config = Config { sequences, ..old.config().clone() };
        let seed = self.rng.next_u64();
        let now = self.now;
        let n = self.node_mut(node);
        n.router = Router::new(config, seed, n.clock.local(now));
        n.kernel = 0;
        n.up = true;
        n.armed = None;
        self.medium.set_power(node, true);
        self.bring_up((node, RADIO));
    }

    /// Pulls a node's plug.
    pub fn kill(&mut self, node: usize) {
        self.node_mut(node).up = false;
        self.medium.set_power(node, false);
    }

    /// The node's originator address.
    pub fn originator(&self, node: usize) -> IpAddr {
        self.medium.originator(node)
    }

    /// The node's /64.
    pub fn prefix(&self, node: usize) -> NetAddr {
        prefix(self.medium.id(node))
    }

    /// The address packets come from on an interface.
    pub fn source(&self, port: Port) -> IpAddr {
        self.medium.source(port)
    }

    /// Puts an interface into use.
    pub fn bring_up(&mut self, (node, interface): Port) {
        let address = [NetAddr::host(self.source((node, interface)))];
        let addresses = if self.settings.ipv4 { &[][..] } else { &address };
        self.input(node, Input::InterfaceUp { interface, addresses });
    }

    /// Two nodes hear each other by radio.
    pub fn connect(&mut self, a: usize, b: usize) {
        self.connect_ports((a, RADIO), (b, RADIO));
    }

    /// Two interfaces hear each other.
    pub fn connect_ports(&mut self, a: Port, b: Port) {
        self.medium.connect(a, b, 0);
        self.medium.connect(b, a, 0);
    }

    /// `from` is heard by `to` with that loss (0 to 1); the other direction stays as it is.
    pub fn connect_one_way(&mut self, from: Port, to: Port, loss: f64) {
        self.medium.connect(from, to, share(loss));
    }

    /// Two nodes hear each other no more.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.medium.retain(|from, l| (from, l.to.0) != (a, b) && (from, l.to.0) != (b, a));
    }

    /// The radios at both ends report the neighbour gone.
    pub fn tell_lost(&mut self, a: usize, b: usize) {
        for (at, gone) in [(a, b), (b, a)] {
            let address = self.source((gone, RADIO));
            self.input(at, Input::LinkLost { interface: RADIO, address });
        }
    }

    /// Whom a node hears and is heard by, the lowest index.
    pub fn first_neighbor(&self, node: usize) -> Option<usize> {
        self.medium.links(node).iter().find(|l| self.medium.is_two_way(node, l)).map(|l| l.to.0)
    }

    /// Every link loses that share of its packets (0 to 1).
    pub fn set_loss(&mut self, loss: f64) {
        self.medium.retain(|_, l| {
            l.loss = share(loss);
            true
        });
    }

    /// Every direction of every link gets a loss of its own between 0 and `most`.
    pub fn set_random_loss(&mut self, most: f64) {
        let mut rng = Rng::new(self.settings.seed ^ 0x006c_6f73_7365_7300);
        self.medium.retain(|_, l| {
            l.loss = ((u64::from(share(most)) * (rng.next_u64() >> 48)) >> 16) as u16;
            true
        });
    }

    /// Cuts every link between nodes on different sides.
    pub fn part(&mut self, side: impl Fn(usize) -> bool) {
        self.parted = Some(self.medium.snapshot());
        self.medium.retain(|from, l| side(from) == side(l.to.0));
    }

    /// Puts back the links there were before [`Sim::part`].
    pub fn heal(&mut self) {
        if let Some(links) = self.parted.take() {
            self.medium.restore(links);
        }
    }

    /// Hands an input to a node.
    ///
    /// # Panics
    /// The router refuses it.
    pub fn input(&mut self, index: usize, input: Input<'_>) {
        let now = self.now;
        let of = self.shards.len();
        let node = self.node_mut(index);
        let local = node.clock.local(now);
        let taken = node.router.handle_input(local, input);
        assert!(taken.is_ok(), "node {index} refuses an input: {taken:?}, seed {}", self.settings.seed);
        let mut mail = Mail::default();
        self.shards[index % of].follow_up(now, index, &self.medium, &mut mail);
        for other in (0..of).filter(|n| *n != index % of) {
            self.shards[other].take_mail(&mail);
        }
    }

    /// Lets time pass until `at`.
    pub fn run_until(&mut self, at: Instant) {
        let repeat = Repeat(&self.settings, self.now);
        engine::run(&mut self.shards, &self.medium, at);
        drop(repeat);
        self.now = self.now.max(at);
    }

    /// Lets time pass.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    /// Lets time pass in steps of 10 ms until `done`, at most for `limit`; says how long it took.
    ///
    /// # Panics
    /// Not done within the limit; tells the seed.
    pub fn run_while_not(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            let spent = self.now.saturating_since(start);
            assert!(
                spent < limit,
                "not done after {spent}, seed {}\n{}",
                self.settings.seed,
                self.describe()
            );
            self.run_for(Duration::from_millis(10));
        }
        self.now.saturating_since(start)
    }

    /// What all nodes sent and changed.
    pub fn traffic(&self) -> Traffic {
        self.nodes().fold(Traffic::default(), |sum, n| sum.plus(n.traffic))
    }

    /// Equal numbers, equal histories.
    pub fn digest(&self) -> u64 {
        self.nodes().fold(0, |sum, n| sum.wrapping_mul(31).wrapping_add(n.digest))
    }

    /// The node's route to exactly that prefix.
    pub fn route(&self, node: usize, prefix: NetAddr) -> Option<Route> {
        self.node(node).router.routes().find(|r| r.prefix == prefix)
    }

    /// Everything, for a failed test; the first 20 nodes.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (i, node) in self.nodes().enumerate().take(20) {
            text += &format!("node {i} {}: {:?}\n", self.originator(i), node.router.counters());
            for n in node.router.neighbors() {
                text += &format!("   {n:?}\n");
            }
            for r in node.router.routes().take(100) {
                let (next, hops, metric) = (r.next_hop, r.hops, r.metric.value());
                text += &format!("   {} via {next} hops {hops} metric {metric}\n", r.prefix);
            }
        }
        text
    }
}

/// 0 to 1 in 1/65536.
fn share(loss: f64) -> u16 {
    (loss.clamp(0.0, 1.0) * 65_535.0) as u16
}

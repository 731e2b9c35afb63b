//! One node on simulated time: what it is told, and all it sends, with the millisecond.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::net::{IpAddr, SocketAddr};

use mesh_types::{Duration, Instant, NodeId, NodeName};
use names::wire::{self, CLASS_IN, Header, Message, Name, Question, Record, rtype};
use names::{
    Config, Datagram, Destination, Event, Input, InputError, InterfaceAddress, MDNS_GROUP_V4, Names, Output,
    Role, Service,
};

/// Something the node sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub ms: u64,
    pub interface: u32,
    pub to: Destination,
    pub message: Message,
    pub bytes: Vec<u8>,
}

impl Sent {
    pub fn multicast(&self) -> bool {
        self.to == Destination::Multicast
    }
    pub fn is_probe(&self) -> bool {
        !self.message.header.response && !self.message.authority.is_empty()
    }
    /// Data of the answers of that type, as addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.message.answers.iter().filter_map(Record::as_address).collect()
    }
    pub fn answers_of(&self, rtype: u16) -> Vec<&Record> {
        self.message.answers.iter().filter(|r| r.rtype == rtype).collect()
    }
}

pub const LINK: u32 = 7;
/// A neighbour.
pub const PEER: &str = "192.168.1.9:5353";

pub struct Host {
    pub core: Names,
    pub now: Instant,
    pub sent: Vec<Sent>,
    pub events: Vec<Event>,
    pub replies: Vec<(u64, Message)>,
    pub forwarded: Vec<(u64, Vec<u8>)>,
    pub published: Vec<Vec<u8>>,
    pub resolved: Vec<(u64, Option<names::Known>)>,
}

pub fn node(n: u8) -> NodeId {
    NodeId::from_digest([n; 32])
}

pub fn address(text: &str) -> InterfaceAddress {
    let (a, p) = text.split_once('/').unwrap();
    InterfaceAddress { address: a.parse().unwrap(), prefix_len: p.parse().unwrap() }
}

pub fn http() -> Service {
    Service { text: vec!["path=/".into()], ..Service::new("_http", true, 80) }
}

pub fn local(label: &str) -> Name {
    wire::local_name(label).unwrap()
}

pub fn question(name: &Name, rtype: u16) -> Question {
    Question { name: name.clone(), rtype, class: CLASS_IN, unicast: false }
}

pub fn query(questions: Vec<Question>) -> Message {
    Message { questions, ..Default::default() }
}

pub fn response(answers: Vec<Record>) -> Message {
    let header = Header { response: true, authoritative: true, ..Default::default() };
    Message { header, answers, ..Default::default() }
}

pub fn a(name: &str, ip: &str, ttl: u32) -> Record {
    Record { flush: true, ..Record::address(local(name), ttl, ip.parse().unwrap()) }
}

impl Host {
    /// `bloor` with services, no interface yet.
    pub fn bare(seed: u64, services: Vec<Service>) -> Self {
        let config = Config { name: NodeName::new("bloor").unwrap(), node: Some(node(5)), services };
        Self {
            core: Names::new(config, seed, Instant::ZERO),
            now: Instant::ZERO,
            sent: Vec::new(),
            events: Vec::new(),
            replies: Vec::new(),
            forwarded: Vec::new(),
            published: Vec::new(),
            resolved: Vec::new(),
        }
    }

    /// `bloor` with 192.168.1.1/24 and fe80::1/64 on one link, at the time it comes up.
    pub fn starting(seed: u64) -> Self {
        let mut h = Self::bare(seed, Vec::new());
        h.addresses(&["192.168.1.1/24", "fe80::1/64"]);
        h
    }

    /// The same after it has probed and announced and all is quiet: 10 s later.
    pub fn established() -> Self {
        Self::quiet(Self::starting(1))
    }

    /// With a web server announced.
    pub fn with_http() -> Self {
        let mut h = Self::bare(1, vec![http()]);
        h.addresses(&["192.168.1.1/24", "fe80::1/64"]);
        Self::quiet(h)
    }

    fn quiet(mut h: Self) -> Self {
        h.run_for(60_000);
        h.sent.clear();
        h.events.clear();
        h
    }

    pub fn ms(&self) -> u64 {
        self.now.as_micros() / 1_000
    }

    pub fn input(&mut self, input: Input<'_>) -> Result<(), InputError> {
        let result = self.core.handle_input(self.now, input);
        self.drain();
        result
    }

    pub fn addresses(&mut self, list: &[&str]) {
        let addresses = list.iter().map(|a| address(a)).collect();
        self.input(Input::Interface { index: LINK, addresses, role: Role::Mesh }).unwrap();
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Transmit(t) => self.sent.push(Sent {
                    ms: self.ms(),
                    interface: t.interface,
                    to: t.to,
                    message: wire::parse(&t.payload).expect("what is sent parses"),
                    bytes: t.payload,
                }),
                Output::Event(e) => self.events.push(e),
                Output::DnsReply { client, payload } => {
                    self.replies.push((client, wire::parse(&payload).expect("what is sent parses")));
                }
                Output::Forward { client, payload, .. } => self.forwarded.push((client, payload)),
                Output::Publish(p) => self.published.push(p),
                Output::Resolved { token, known } => self.resolved.push((token, known)),
            }
        }
    }

    /// Lets that many milliseconds pass.
    pub fn run_for(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        let mut steps = 0;
        while let Some(at) = self.core.poll_timeout().filter(|t| *t <= end) {
            assert!(at >= self.now || steps < 100_000, "time stands still at {}", self.now);
            self.now = at.max(self.now);
            self.core.handle_timeout(self.now);
            self.drain();
            steps += 1;
            assert!(steps < 200_000, "too many timeouts before {end}: a spinning timer at {}", self.now);
        }
        self.now = end;
    }

    /// Until something was sent, at most `ms`; returns how long that took.
    pub fn run_until_sent(&mut self, ms: u64) -> u64 {
        let start = self.ms();
        let before = self.sent.len();
        while self.sent.len() == before && self.ms() < start + ms {
            self.run_for(1);
        }
        self.ms() - start
    }

    /// A datagram of `from` to the group.
    pub fn hear(&mut self, from: &str, message: &Message) -> Result<(), InputError> {
        self.hear_at(from, IpAddr::V4(MDNS_GROUP_V4), message)
    }

    pub fn hear_at(&mut self, from: &str, to: IpAddr, message: &Message) -> Result<(), InputError> {
        let payload = wire::emit(message, wire::MAX_SINGLE, false).bytes;
        self.hear_bytes(from, to, &payload)
    }

    pub fn hear_bytes(&mut self, from: &str, to: IpAddr, payload: &[u8]) -> Result<(), InputError> {
        let source: SocketAddr = from.parse().unwrap();
        self.input(Input::Datagram(Datagram { interface: LINK, source, destination: to, payload }))
    }

    /// A datagram of `from` to the group, through that interface.
    pub fn hear_on(&mut self, interface: u32, from: &str, message: &Message) {
        let payload = wire::emit(message, wire::MAX_SINGLE, false).bytes;
        let (source, destination) = (from.parse().unwrap(), IpAddr::V4(MDNS_GROUP_V4));
        self.input(Input::Datagram(Datagram { interface, source, destination, payload: &payload })).unwrap();
    }

    /// Takes what was sent so far.
    pub fn take(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// Asks over unicast DNS; the reply, at once or within two seconds.
    pub fn dns(&mut self, name: &Name, rtype: u16) -> Message {
        let mut q = query(vec![question(name, rtype)]);
        q.header.id = 0x4242;
        q.header.recursion_desired = true;
        let payload = wire::emit(&q, 512, true).bytes;
        self.input(Input::Dns { client: 99, stream: false, payload: &payload }).unwrap();
        let end = self.ms() + 2_000;
        while self.replies.is_empty() && self.ms() < end {
            self.run_for(10);
        }
        self.replies.pop().expect("a reply").1
    }
}

pub const A: u16 = rtype::A;
pub const AAAA: u16 = rtype::AAAA;

//! A neighbour that lies about everything: nothing panics, every table stays within its limit, and what
//! we send stays well-formed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::{IpAddr, Ipv6Addr};

use mesh_types::{Duration, Instant, Metric};
use olsrv2::{Config, Input, Limits, LinkQuality, MetricMode, NetAddr, Output, QualityThresholds, Router};
use proptest::collection::vec;
use proptest::prelude::*;
use rfc5444::{Attribute, Attributed, Message, Packet, Tlv, pack};

const VECTORS: &str = include_str!("../../rfc5444/tests/data/olsrd2-captured.txt");

const LIMITS: Limits = Limits {
    interfaces: 2,
    links: 4,
    neighbor_addresses: 4,
    two_hops: 6,
    routers: 5,
    per_router: 6,
    messages: 10,
    forward_queue: 4096,
    records: 6,
    records_per_originator: 2,
    record_bytes: 2000,
};

fn ip(group: u16, n: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(group, 0, 0, 0, 0, 0, 0, n.into()))
}

#[derive(Clone, Debug)]
enum Step {
    Bytes(u8, Vec<u8>),
    Vector(u8, prop::sample::Index, Vec<(prop::sample::Index, u8)>),
    Hello { from: u8, on_us: u8, others: Vec<(u8, u8, u16)>, willing: u8, validity: u8 },
    Tc { from: u8, originator: u8, seq: u16, ansn: u16, complete: bool, to: Vec<(u8, u8, u16)>, validity: u8 },
    Record { from: u8, originator: u8, seq: u16, content: Vec<u8>, validity: u8 },
    Lost(u8),
    Quality(u8, u8, u32),
    Down,
    Up(u8),
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let few = || 0u8..12;
    let said = || vec((few(), any::<u8>(), any::<u16>()), 0..10);
    prop_oneof![
        2 => (few(), vec(any::<u8>(), 0..80)).prop_map(|(f, b)| Step::Bytes(f, b)),
        4 => (few(), any::<prop::sample::Index>(), vec((any::<prop::sample::Index>(), any::<u8>()), 0..4))
            .prop_map(|(f, i, h)| Step::Vector(f, i, h)),
        8 => (few(), 0u8..6, said(), any::<u8>(), any::<u8>())
            .prop_map(|(from, on_us, others, willing, validity)| Step::Hello { from, on_us, others, willing, validity }),
        8 => (few(), few(), any::<u16>(), any::<u16>(), any::<bool>(), said(), any::<u8>()).prop_map(
            |(from, originator, seq, ansn, complete, to, validity)| Step::Tc { from, originator, seq, ansn, complete, to, validity }),
        4 => (few(), few(), any::<u16>(), vec(any::<u8>(), 0..900), any::<u8>())
            .prop_map(|(from, originator, seq, content, validity)| Step::Record { from, originator, seq, content, validity }),
        1 => few().prop_map(Step::Lost),
        1 => (few(), any::<u8>(), any::<u32>()).prop_map(|(f, q, m)| Step::Quality(f, q, m)),
        1 => Just(Step::Down),
        1 => any::<u8>().prop_map(Step::Up),
        6 => prop_oneof![0u32..3000, any::<u32>()].prop_map(Step::Wait),
    ]
}

fn message(kind: u8, originator: IpAddr, seq: Option<u16>) -> Message {
    let mut m = Message::new(kind, 16);
    m.originator = Some(originator.into());
    m.seq = seq;
    if seq.is_some() {
        (m.hop_limit, m.hop_count) = (Some(255), Some(0));
    }
    m
}

fn entry(address: IpAddr, attributes: Vec<Attribute>) -> Attributed {
    Attributed { address: address.into(), attributes }
}

fn metric(bits: u16) -> Attribute {
    Attribute::new(7, &bits.to_be_bytes())
}

fn hello(from: u8, on_us: u8, others: &[(u8, u8, u16)], willing: u8, validity: u8) -> Message {
    let mut m = message(0, ip(0xfd00, from), None);
    m.tlvs = vec![Tlv::new(1, &[validity]), Tlv::new(7, &[willing])];
    let mut entries = vec![entry(ip(0xfe80, from), vec![Attribute::new(2, &[0])])];
    let status = Attribute::new(3, &[on_us % 3]);
    let mut ours = vec![status, metric(0xf123)];
    if on_us == 4 {
        ours = vec![Attribute::new(3, &[1]), metric(0xf123), Attribute::new(8, &[3])];
    }
    entries.push(entry(ip(0xfe80, 0), ours));
    for (n, kind, bits) in others {
        entries
            .push(entry(ip(0xfd00, *n), vec![Attribute::new(3 + kind % 2, &[kind / 2 % 4]), metric(*bits)]));
    }
    m.blocks = pack(&entries);
    m
}

fn tc(originator: u8, seq: u16, ansn: (u16, bool), to: &[(u8, u8, u16)], validity: u8) -> Message {
    let mut m = message(1, ip(0xfd00, originator), Some(seq));
    let value = Some(ansn.0.to_be_bytes().to_vec());
    m.tlvs = vec![Tlv::new(1, &[validity]), Tlv { kind: 8, ext: u8::from(!ansn.1), value }];
    let said = |(n, kind, bits): &(u8, u8, u16)| {
        entry(ip(0xfd00, *n), vec![Attribute::new(9 + kind % 2, &[kind / 2]), metric(*bits)])
    };
    m.blocks = pack(&to.iter().map(said).collect::<Vec<_>>());
    m
}

struct Victim {
    router: Router,
    now: Instant,
}

impl Victim {
    fn new() -> Self {
        let now = Instant::from_millis(1);
        let mut config = Config::new(ip(0xfd00, 0));
        config.limits = LIMITS;
        config.metric = MetricMode::External;
        config.quality = QualityThresholds { accept: 100, reject: 50, initial: 100 };
        let mut victim = Self { router: Router::new(config, 3, now), now };
        victim.up(0);
        victim
    }

    fn up(&mut self, n: u8) {
        let addresses = [NetAddr::host(ip(0xfe80, 0)), NetAddr::host(ip(0xfd01, n))];
        let up = Input::InterfaceUp { interface: 1, addresses: &addresses[..1 + usize::from(n % 2)] };
        self.router.handle_input(self.now, up).unwrap();
    }

    fn hear(&mut self, from: u8, bytes: &[u8]) {
        let packet = Input::Packet { interface: 1, source: ip(0xfe80, from), bytes };
        let _ = self.router.handle_input(self.now, packet);
    }

    fn say(&mut self, from: u8, message: Message) {
        let packet = Packet { seq: Some(1), tlvs: None, messages: vec![message] };
        self.hear(from, &packet.to_bytes().unwrap());
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Bytes(from, bytes) => self.hear(*from, bytes),
            Step::Vector(from, which, hits) => {
                let lines: Vec<&str> = VECTORS.lines().filter(|l| !l.starts_with('#')).collect();
                let hex = lines[which.index(lines.len())].split(' ').next().unwrap();
                let bytes =
                    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap());
                let mut bytes: Vec<u8> = bytes.collect();
                for (at, value) in hits {
                    let at = at.index(bytes.len());
                    bytes[at] = *value;
                }
                self.hear(*from, &bytes);
            }
            Step::Hello { from, on_us, others, willing, validity } => {
                self.say(*from, hello(*from, *on_us, others, *willing, *validity));
            }
            Step::Tc { from, originator, seq, ansn, complete, to, validity } => {
                self.say(*from, tc(*originator, *seq, (*ansn, *complete), to, *validity));
            }
            Step::Record { from, originator, seq, content, validity } => {
                let mut m = message(224, ip(0xfd00, *originator), Some(*seq));
                m.tlvs = vec![Tlv::new(1, &[*validity]), Tlv::new(224, content)];
                self.say(*from, m);
            }
            Step::Lost(n) => {
                let lost = Input::LinkLost { interface: 1, address: ip(0xfe80, *n) };
                let _ = self.router.handle_input(self.now, lost);
            }
            Step::Quality(n, quality, metric) => {
                let quality = LinkQuality {
                    quality: Some(*quality),
                    metric_in: Some(Metric::new(*metric)),
                    ..LinkQuality::default()
                };
                let news = Input::LinkQuality { interface: 1, address: ip(0xfe80, *n), quality };
                let _ = self.router.handle_input(self.now, news);
            }
            Step::Down => {
                let _ = self.router.handle_input(self.now, Input::InterfaceDown { interface: 1 });
            }
            Step::Up(n) => self.up(*n),
            Step::Wait(ms) => self.wait(Duration::from_millis((*ms).into())),
        }
        self.check();
    }

    /// Runs timeouts, at most two hundred: a long wait is cut short, as after a suspended clock.
    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..200 {
            let Some(next) = self.router.poll_timeout().filter(|t| *t <= end) else { break };
            self.now = self.now.max(next);
            self.router.handle_timeout(self.now);
            assert!(self.router.poll_timeout().is_none_or(|t| t > self.now), "spins");
            self.check();
        }
        self.now = end;
        self.router.handle_timeout(end);
    }

    fn check(&mut self) {
        while let Some(output) = self.router.poll_output() {
            if let Output::Transmit { bytes, .. } = output {
                let packet = Packet::parse(&bytes).unwrap();
                assert!(bytes.len() <= self.router.config().mtu || packet.messages.len() == 1);
            }
        }
        let r = &self.router;
        assert!(r.neighbors().count() <= LIMITS.links);
        assert!(r.neighbors().all(|n| n.two_hops <= LIMITS.two_hops));
        assert!(r.topology().count() <= LIMITS.routers * LIMITS.per_router);
        assert!(r.attached_networks().count() <= LIMITS.routers * LIMITS.per_router);
        assert!(r.records().count() <= LIMITS.records);
        assert!(r.records().map(|r| r.payload.len()).sum::<usize>() <= LIMITS.record_bytes);
        let most = LIMITS.links * (LIMITS.two_hops + LIMITS.neighbor_addresses + 1)
            + LIMITS.routers * 2 * (LIMITS.per_router + 1);
        assert!(r.routes().count() <= most);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]
    #[test]
    fn lies_do_not_panic_and_tables_stay_bounded(steps in vec(step(), 1..120)) {
        let mut victim = Victim::new();
        for step in &steps {
            victim.step(step);
        }
        // Left alone, it forgets all (validity can be claimed to last for days).
        victim.now += Duration::from_secs(10_000_000);
        victim.router.handle_timeout(victim.now);
        victim.check();
        prop_assert_eq!(victim.router.routes().count(), 0);
        prop_assert_eq!(victim.router.neighbors().count(), 0);
    }
}

#[test]
fn a_crowd_of_strangers_does_not_push_out_a_real_neighbour() {
    let mut victim = Victim::new();
    victim.say(1, hello(1, 0, &[], 0x77, 0x64));
    victim.say(1, hello(1, 1, &[], 0x77, 0x64));
    for n in 2..200 {
        victim.say(n, hello(n, 5, &[], 0x77, 0xff));
        victim.check();
    }
    let real = victim.router.neighbors().find(|n| n.address == ip(0xfe80, 1)).unwrap();
    assert_eq!(real.status, olsrv2::LinkStatus::Symmetric);
    assert!(victim.router.counters().table_full > 100);
}

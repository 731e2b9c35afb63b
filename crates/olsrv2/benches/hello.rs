//! The worst HELLOs that neighbours can send: `cargo bench -p olsrv2 --bench hello`.
//!
//! 250 neighbours with eight addresses each, and as many 2-hop neighbours as they are allowed, all different.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration as Span, Instant as Wall};

use mesh_types::{Duration, Instant, Metric};
use olsrv2::{Config, Input, NetAddr, Output, Router, Timing};
use rfc5444::{Attribute, Attributed, Message, Packet, Tlv, pack};

const NEIGHBOURS: u16 = 250;

fn ip(group: u16, n: u32) -> IpAddr {
    let (high, low) = ((n >> 16) as u16, n as u16);
    IpAddr::V6(Ipv6Addr::new(group, 0, 0, 0, 0, 0, high, low))
}

fn metric(kinds: u16, value: u32) -> Attribute {
    Attribute::new(7, &(kinds | Metric::new(value).to_compressed()).to_be_bytes())
}

/// Of neighbour `n`, with eight addresses and `others` 2-hop neighbours; `cost` of the first of these.
fn hello(n: u16, others: u32, status: u8, cost: u32) -> Vec<u8> {
    let entry = |address: IpAddr, attributes: &[Attribute]| Attributed {
        address: address.into(),
        attributes: attributes.to_vec(),
    };
    let mut m = Message::new(0, 16);
    m.originator = Some(ip(0xfd00, n.into()).into());
    m.tlvs = vec![Tlv::new(1, &[0x8f]), Tlv::new(7, &[0x77])];
    let us = [Attribute::new(3, &[1]), metric(0xf000, 256), Attribute::new(8, &[3])];
    let mut all = vec![
        entry(ip(0xfe80, n.into()), &[Attribute::new(2, &[0])]),
        entry(ip(0xfe80, 1), &us),
        entry(ip(0xfd00, n.into()), &[Attribute::new(2, &[1])]),
    ];
    all.extend((0..6).map(|i| entry(ip(0xfd01, u32::from(n) << 8 | i), &[Attribute::new(2, &[1])])));
    all.extend((0..others).map(|i| {
        let said = [Attribute::new(4, &[status]), metric(0x3000, if i == 0 { cost } else { 300 })];
        entry(ip(0xfd02, u32::from(n) << 14 | i), &said)
    }));
    m.blocks = pack(&all);
    Packet { seq: None, tlvs: None, messages: vec![m] }.to_bytes().unwrap()
}

struct Us {
    router: Router,
    now: Instant,
}

impl Us {
    fn hear(&mut self, n: u16, bytes: &[u8]) -> Span {
        let start = Wall::now();
        let source = ip(0xfe80, n.into());
        self.router.handle_input(self.now, Input::Packet { interface: 1, source, bytes }).unwrap();
        self.drain();
        start.elapsed()
    }

    fn drain(&mut self) {
        while let Some(output) = self.router.poll_output() {
            if let Output::Transmit { bytes, .. } = output {
                std::hint::black_box(bytes);
            }
        }
    }

    /// The longest that a timer took.
    fn wait(&mut self, span: Duration) -> Span {
        let end = self.now + span;
        let mut longest = Span::ZERO;
        while let Some(at) = self.router.poll_timeout().filter(|t| *t <= end) {
            self.now = self.now.max(at);
            let start = Wall::now();
            self.router.handle_timeout(self.now);
            self.drain();
            longest = longest.max(start.elapsed());
        }
        self.now = end;
        longest
    }
}

fn main() {
    let now = Instant::from_millis(1000);
    let mut config = Config::new(ip(0xfd00, 1));
    config.timing = Timing::STEADY;
    let mut us = Us { router: Router::new(config, 1, now), now };
    let addresses = [NetAddr::host(ip(0xfe80, 1))];
    us.router.handle_input(now, Input::InterfaceUp { interface: 1, addresses: &addresses }).unwrap();
    let ms = |s: Span| s.as_secs_f64() * 1000.0;
    let mut slowest = Span::ZERO;
    for n in 2..2 + NEIGHBOURS {
        slowest = slowest.max(us.hear(n, &hello(n, 1024, 1, 300)));
    }
    let two_hops: usize = us.router.neighbors().map(|v| v.two_hops).sum();
    println!(
        "{} neighbours, {two_hops} 2-hop neighbours: slowest HELLO {:.1} ms",
        us.router.neighbors().count(),
        ms(slowest)
    );
    println!("slowest timer {:.1} ms", ms(us.wait(Duration::from_secs(3))));
    let same = us.hear(7, &hello(7, 1024, 1, 300));
    let other = us.hear(7, &hello(7, 1024, 1, 301));
    let status = us.hear(7, &hello(7, 1024, 0, 301));
    let huge = hello(8, 2600, 1, 300);
    let long = us.hear(8, &huge);
    println!(
        "HELLO with 1024 that says the same {:.1} ms, another metric {:.1} ms, all lost {:.1} ms, of {} bytes {:.1} ms",
        ms(same),
        ms(other),
        ms(status),
        huge.len(),
        ms(long)
    );
    println!("slowest timer {:.1} ms", ms(us.wait(Duration::from_secs(3))));
}

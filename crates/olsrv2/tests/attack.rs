//! One neighbour with a valid link tells of 100,000 routers that are not there, while real ones come and go.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::{IpAddr, Ipv6Addr};

use mesh_types::{Duration, Instant, Metric};
use olsrv2::{Config, Input, NetAddr, Router};
use rfc5444::{Attribute, Attributed, Message, Packet, Tlv, pack};

/// Interface addresses and routers: 1 is us, 2 and 3 are honest, 666 is not.
const LIAR: u16 = 666;
/// Validity times: 15 s, and the longest there is, 45 days.
const SHORT: u8 = 0x6f;
const LONGEST: u8 = 0xff;

fn ip(group: u16, n: u32) -> IpAddr {
    let (high, low) = ((n >> 16) as u16, n as u16);
    IpAddr::V6(Ipv6Addr::new(group, 0, 0, 0, 0, 0, high, low))
}

fn entry(address: IpAddr, attributes: &[Attribute]) -> Attributed {
    Attributed { address: address.into(), attributes: attributes.to_vec() }
}

fn metric(kinds: u16, value: u32) -> Attribute {
    Attribute::new(7, &(kinds | Metric::new(value).to_compressed()).to_be_bytes())
}

fn hello(from: u16, mpr: u8, validity: u8) -> Message {
    let mut m = Message::new(0, 16);
    m.originator = Some(ip(0xfd00, from.into()).into());
    m.tlvs = vec![Tlv::new(1, &[validity]), Tlv::new(7, &[0x77])];
    let mut us = vec![Attribute::new(3, &[1]), metric(0xf000, 256)];
    us.extend((mpr != 0).then(|| Attribute::new(8, &[mpr])));
    m.blocks = pack(&[
        entry(ip(0xfe80, from.into()), &[Attribute::new(2, &[0])]),
        entry(ip(0xfe80, 1), &us),
        entry(ip(0xfd00, from.into()), &[Attribute::new(2, &[1])]),
    ]);
    m
}

/// A TC of router `from` with routers behind it.
fn tc(from: u32, seq: u16, validity: u8, to: &[u32]) -> Message {
    let mut m = Message::new(1, 16);
    m.originator = Some(ip(0xfd00, from).into());
    (m.hop_limit, m.hop_count, m.seq) = (Some(255), Some(0), Some(seq));
    m.tlvs = vec![Tlv::new(1, &[validity]), Tlv::new(8, &seq.to_be_bytes())];
    let said: Vec<Attributed> =
        to.iter().map(|n| entry(ip(0xfd00, *n), &[Attribute::new(9, &[3]), metric(0x1000, 256)])).collect();
    m.blocks = pack(&said);
    m
}

struct Us {
    router: Router,
    now: Instant,
    sent: Vec<Message>,
}

impl Us {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let now = Instant::from_millis(1000);
        let mut config = Config::new(ip(0xfd00, 1));
        change(&mut config);
        let mut us = Self { router: Router::new(config, 1, now), now, sent: Vec::new() };
        let addresses = [NetAddr::host(ip(0xfe80, 1))];
        us.router.handle_input(now, Input::InterfaceUp { interface: 1, addresses: &addresses }).unwrap();
        us
    }

    fn hear(&mut self, from: u16, messages: Vec<Message>) {
        let packet = Packet { seq: None, tlvs: None, messages };
        let (source, bytes) = (ip(0xfe80, from.into()), packet.to_bytes().unwrap());
        self.router.handle_input(self.now, Input::Packet { interface: 1, source, bytes: &bytes }).unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.router.poll_output() {
            if let olsrv2::Output::Transmit { bytes, .. } = output {
                self.sent.extend(Packet::parse(&bytes).unwrap().messages);
            }
        }
    }

    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.router.poll_timeout().filter(|t| *t <= end) {
            self.now = self.now.max(at);
            self.router.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn has_route(&self, to: u32) -> bool {
        self.router.routes().any(|r| r.prefix == NetAddr::host(ip(0xfd00, to)))
    }
}

/// The real mesh behind neighbour 2: a chain of routers, each with a leaf.
struct Chain {
    first: u32,
    length: u32,
    seq: u16,
}

impl Chain {
    fn routers(&self) -> impl Iterator<Item = u32> + use<> {
        self.first..self.first + self.length
    }

    fn leaf(router: u32) -> u32 {
        router + 0x4_0000
    }

    /// Everyone's next TC; `over` also are those neighbours that forward it, in that order.
    fn tcs(&mut self) -> Vec<Message> {
        self.seq += 1;
        let last = self.first + self.length - 1;
        let mut all = vec![tc(2, self.seq, SHORT, &[1, self.first])];
        for r in self.routers() {
            let next = if r < last { r + 1 } else { Self::leaf(last + 1) };
            let before = if r == self.first { 2 } else { r - 1 };
            all.push(tc(r, self.seq, SHORT, &[before, next, Self::leaf(r)]));
        }
        all
    }

    fn all_routed(&self, us: &Us) -> bool {
        self.routers().all(|r| us.has_route(r) && us.has_route(Self::leaf(r)))
    }
}

/// 100,000 invented routers, linked into a tree below the liar, as packets of 40 TCs.
fn lies(seq: u16) -> impl Iterator<Item = Vec<Message>> {
    const FIRST: u32 = 0x10_0000;
    let tree = (0..100_000u32).map(move |i| {
        let kids: Vec<u32> = (1..4).map(|k| FIRST + 3 * i + k).collect();
        tc(FIRST + i, seq, LONGEST, &kids)
    });
    let mut own = vec![tc(LIAR.into(), seq, LONGEST, &[1, FIRST])];
    own.extend(tree);
    let mut all = own.into_iter();
    std::iter::from_fn(move || Some(all.by_ref().take(40).collect::<Vec<_>>()).filter(|p| !p.is_empty()))
}

#[test]
fn a_hundred_thousand_invented_routers_push_out_nobody_and_keep_nobody_out() {
    let mut us = Us::new(|_| {});
    let greet = |us: &mut Us| {
        [2, 3].into_iter().for_each(|n| us.hear(n, vec![hello(n, 1, 0x64)]));
        us.hear(LIAR, vec![hello(LIAR, 1, LONGEST)]);
    };
    greet(&mut us);
    let mut mesh = Chain { first: 0x1000, length: 200, seq: 0 };
    // The liar is the fastest to forward what is real: first it brings all.
    let tcs = mesh.tcs();
    us.hear(LIAR, tcs.clone());
    us.hear(2, tcs);
    us.wait(Duration::from_secs(1));
    assert!(mesh.all_routed(&us));

    let mut slowest = std::time::Duration::ZERO;
    for (i, packet) in lies(1).enumerate() {
        let start = std::time::Instant::now();
        us.hear(LIAR, packet);
        slowest = slowest.max(start.elapsed());
        if i % 50 == 49 {
            us.wait(Duration::from_millis(1000));
            greet(&mut us);
        }
        if i % 250 == 249 {
            mesh.length += 1;
            let tcs = mesh.tcs();
            // Real routers' news come by the liar first, too.
            us.hear(LIAR, tcs.clone());
            us.hear(2, tcs);
            us.wait(Duration::from_millis(300));
            assert!(mesh.all_routed(&us), "packet {i}");
            assert!(us.router.topology().count() <= 24 * us.router.config().limits.routers);
        }
    }
    println!("the slowest packet of 40 TCs took {slowest:?}");
    assert!(us.router.counters().table_full > 50_000);

    // The mesh goes, another comes: a hundred newcomers behind 3.
    let mut late = Chain { first: 0x2000, length: 100, seq: 0 };
    let mut tcs = late.tcs();
    tcs[0] = tc(3, 9, SHORT, &[1, late.first]);
    us.hear(LIAR, tcs.clone());
    us.hear(3, tcs);
    us.wait(Duration::from_millis(300));
    assert!(late.all_routed(&us), "newcomers get in");
    assert!(mesh.all_routed(&us), "and nobody goes for them");

    // Lies that nobody repeats end, whatever was said of their validity.
    us.wait(Duration::from_secs(301));
    assert_eq!((us.router.topology().count(), us.router.routes().count()), (0, 0));
}

//! HELLOs and TCs that say again what they said are not read again; what follows is what would follow if they were. A
//! TLV that means nothing and is never twice the same makes each be read.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod net;

use mesh_types::{Duration, Instant, Metric};
use net::{Net, RADIO, WIRE, unsalted};
use nhdp::Rng;
use olsrv2::{AttachedNetwork, Config, Input, LinkQuality, MetricMode, NetAddr, Timing};

const SECOND: Duration = Duration::from_secs(1);
const NODES: u64 = 9;

struct Chance(Rng);

impl Chance {
    fn below(&mut self, n: u64) -> usize {
        (self.0.next_u64() % n) as usize
    }
}

/// Something befalls the mesh.
fn befall(net: &mut Net, chance: &mut Chance) {
    let (a, b) = (chance.below(NODES), chance.below(NODES));
    let interface = RADIO;
    let address = net.source((b, RADIO));
    match chance.below(10) {
        0 if a != b => net.connect(a, b),
        1 => net.cut(a, b),
        2 => {
            net.edges.remove(&((a, RADIO), (b, RADIO)));
        }
        3 => net.set_loss([0, 40, 90][chance.below(3)]),
        4 => net.input(a, Input::LinkLost { interface, address }),
        5 => {
            let quality = Some([0, 120, 255][chance.below(3)]);
            let quality = LinkQuality { quality, ..LinkQuality::default() };
            net.input(a, Input::LinkQuality { interface, address, quality });
        }
        6 => net.restart(a),
        7 => {
            let addresses = [net.source((a, RADIO)), net.source((a, WIRE))].map(NetAddr::host);
            net.input(a, Input::AddressesChanged { interface, addresses: &addresses[..1 + chance.below(2)] });
        }
        8 => {
            let prefix = net::prefix(b);
            let networks = [AttachedNetwork { prefix, dist: 0, metric: Metric::MIN }];
            if !net.ipv4 {
                net.input(a, Input::AttachedNetworks(&networks[..chance.below(2)]));
            }
        }
        _ => {
            net.bring_up((a, WIRE));
            if a != b {
                net.connect_ports((a, WIRE), (b, RADIO));
            }
        }
    }
}

/// What each node sent, believes and told after a while of this, at several times.
fn history(seed: u64, salt: Option<u64>, timing: Timing, ipv4: bool) -> Vec<String> {
    let mut net = Net::new(seed);
    (net.salt, net.ipv4) = (salt, ipv4);
    for _ in 0..NODES {
        net.add(|c: &mut Config| {
            c.timing = timing;
            // With the TLV messages are longer.
            (c.mtu, c.limits.forward_queue) = (30_000, 1 << 20);
            c.metric = if seed.is_multiple_of(3) { MetricMode::HopCount } else { MetricMode::Dat };
        });
    }
    (0..NODES as usize).for_each(|i| net.connect(i, (i + 1) % NODES as usize));
    net.connect(0, 4);
    let mut chance = Chance(Rng::new(seed ^ 0x5a17));
    let mut all = Vec::new();
    for _ in 0..14 {
        net.tap = Some(Vec::new());
        let calm = [2, 9, 30, 70][chance.below(4)];
        net.run_for(SECOND.times(calm) + Duration::from_millis(chance.below(1000) as u64));
        let sent = net.tap.take().unwrap();
        let sent: Vec<_> = sent.iter().map(|(from, bytes)| (from, unsalted(bytes))).collect();
        let of = |n: &net::Node| {
            let neighbors: Vec<_> = n.router.neighbors().collect();
            let routes: Vec<_> = n.router.routes().collect();
            format!("{neighbors:?} {routes:?} {:?} {:?} {:?}", n.fib, n.events, n.router.poll_timeout())
        };
        let state: Vec<String> = net.nodes.iter().map(of).collect();
        all.push(format!("{:?} {sent:?} {state:?}", net.now.saturating_since(Instant::ZERO)));
        befall(&mut net, &mut chance);
    }
    all
}

#[test]
fn what_is_not_read_again_does_what_it_would_do_if_it_were() {
    for seed in 0..5 {
        let timing = [Timing::STEADY, Timing::STEADY, Timing::RFC7181, Timing::FAST][seed as usize % 4];
        let run = |salt| history(seed, salt, timing, seed.is_multiple_of(5));
        let (known, read) = (run(None), run(Some(0)));
        for (at, (a, b)) in known.iter().zip(&read).enumerate() {
            let first = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
            let near =
                |text: &str| text.chars().skip(first.saturating_sub(600)).take(1200).collect::<String>();
            assert!(a == b, "seed {seed}, part {at}\n{}\n\n{}", near(a), near(b));
        }
    }
}

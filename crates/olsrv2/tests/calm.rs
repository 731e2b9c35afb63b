//! What is no news says so, and may be read when something else is to be done: nothing becomes other than if it
//! were read at once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod net;

use mesh_types::{Duration, Metric};
use net::{Net, RADIO, prefix};
use olsrv2::{AttachedNetwork, Config, Input, MetricMode, NetAddr, Timing, hurry, is_calm};
use rfc5444::PacketView;

const SECOND: Duration = Duration::from_secs(1);

fn steady(c: &mut Config) {
    c.timing = Timing::STEADY;
    c.metric = MetricMode::Dat;
}

/// A ring with one chord and a tail.
fn mesh(seed: u64, lazy: bool) -> Net {
    let mut net = Net::new(seed);
    net.lazy = lazy;
    (0..10).for_each(|_| {
        net.add(steady);
    });
    (0..8).for_each(|i| net.connect(i, (i + 1) % 8));
    net.connect(1, 5);
    net.connect(8, 2);
    net.connect(8, 9);
    net
}

fn attach(net: &mut Net, node: usize) {
    let one = AttachedNetwork { prefix: prefix(node), dist: 0, metric: Metric::MIN };
    net.input(node, Input::AttachedNetworks(&[one]));
}

/// What was sent, and whether it is no news.
fn tapped(net: &mut Net, span: Duration) -> Vec<(usize, bool)> {
    net.tap = Some(Vec::new());
    net.run_for(span);
    net.tap.take().unwrap().iter().map(|(from, bytes)| (from.0, is_calm(bytes))).collect()
}

#[test]
fn only_who_has_no_news_says_so() {
    let mut net = mesh(3, false);
    let young = tapped(&mut net, SECOND.times(10));
    assert!(young.iter().all(|(_, calm)| !calm), "nothing is told once only");
    net.run_for(SECOND.times(50));
    let old = tapped(&mut net, SECOND.times(60));
    assert!(old.len() > 100 && old.iter().all(|(_, calm)| *calm));
    attach(&mut net, 9);
    let news = tapped(&mut net, SECOND.times(2));
    assert!((0..10).all(|node| news.contains(&(node, false))), "{news:?}");
    assert!(!news.iter().any(|(from, calm)| *from == 9 && *calm));
    net.run_for(SECOND.times(40));
    assert!(tapped(&mut net, SECOND.times(20)).iter().all(|(_, calm)| *calm));
    let (kind, sequence, validity) = (1, 1, SECOND.times(600));
    net.input(4, Input::Publish { kind, sequence, payload: b"new", validity });
    let record = tapped(&mut net, SECOND);
    assert!(record.len() > 4 && !record.contains(&(4, true)), "a record is news: {record:?}");
    assert!(net.nodes[9].router.records().count() == 1);
}

#[test]
fn with_fast_timers_nobody_rests() {
    let mut net = Net::with_nodes(1, 2, Timing::FAST);
    net.connect(0, 1);
    net.run_for(SECOND.times(60));
    assert!(tapped(&mut net, SECOND.times(10)).iter().all(|(_, calm)| !calm));
    assert!(!net.nodes[0].router.is_calm(net.now));
}

/// What a run sent and came to: packets of each node in their order, neighbours, routes.
fn history(net: &mut Net) -> Vec<String> {
    let of = |node: usize, net: &Net| {
        let n = &net.nodes[node];
        let sent = net.tap.iter().flatten().filter(|(from, _)| from.0 == node).map(|(_, bytes)| bytes);
        let neighbors: Vec<_> = n.router.neighbors().collect();
        let routes: Vec<_> = n.router.routes().collect();
        format!(
            "{:?}\n{:?}\n{neighbors:?}\n{:?}\n{routes:?}\n{:?}",
            sent.collect::<Vec<_>>(),
            n.events,
            n.fib,
            n.router.counters()
        )
    };
    (0..net.nodes.len()).for_each(|node| net.catch_up(node));
    (0..net.nodes.len()).map(|node| of(node, net)).collect()
}

#[test]
fn what_is_read_late_changes_nothing() {
    for seed in 0..12 {
        let run = |lazy: bool| {
            let mut net = mesh(seed, lazy);
            net.tap = Some(Vec::new());
            net.run_for(SECOND.times(100));
            attach(&mut net, seed as usize % 10);
            net.run_for(SECOND.times(70));
            let address = net.source(((seed as usize + 1) % 8, RADIO));
            net.input(seed as usize % 8, Input::LinkLost { interface: RADIO, address });
            net.run_for(SECOND.times(130));
            let wakes = net.wakes;
            (history(&mut net), wakes)
        };
        let ((at_once, often), (late, seldom)) = (run(false), run(true));
        for (node, (a, b)) in at_once.iter().zip(&late).enumerate() {
            assert!(a == b, "seed {seed}, node {node}\n{a}\n\n{b}");
        }
        assert!(seldom * 4 < often * 3, "{seldom} of {often}");
    }
}

#[test]
fn silence_is_noticed_while_nobody_reads() {
    for seed in 0..10 {
        let mut net = mesh(seed, true);
        net.run_for(SECOND.times(60) + Duration::from_millis(seed * 377));
        net.cut(8, 9);
        let gone = |net: &Net| net.trace(0, NetAddr::host(net.originator(9))).is_none();
        let took = net.run_while_not(SECOND.times(8), gone);
        assert!(took < SECOND.times(7), "{took}");
    }
}

#[test]
fn the_mark_comes_off() {
    let mut net = mesh(1, false);
    net.run_for(SECOND.times(60));
    net.tap = Some(Vec::new());
    net.run_for(SECOND.times(10));
    for (_, bytes) in net.tap.take().unwrap() {
        assert!(is_calm(&bytes));
        let mut plain = bytes.clone();
        hurry(&mut plain);
        assert!(!is_calm(&plain) && plain.len() == bytes.len() - 4);
        let (a, b) = (PacketView::parse(&bytes).unwrap(), PacketView::parse(&plain).unwrap());
        assert_eq!((a.seq(), b.has_tlvs()), (b.seq(), false));
        let bodies = |p: &PacketView<'_>| p.messages().map(|m| m.bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(bodies(&a), bodies(&b));
        let again = plain.clone();
        hurry(&mut plain);
        assert_eq!(plain, again);
    }
    for short in 0..8 {
        hurry(&mut vec![0x0c; short]);
        assert!(!is_calm(&vec![0x0c; short]));
    }
}

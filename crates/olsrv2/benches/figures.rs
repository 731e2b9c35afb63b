//! Figures to look at, not to pass or fail: `cargo bench -p olsrv2`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "../tests/net/mod.rs"]
mod net;

use mesh_types::{Duration, Instant, Metric};
use net::{Net, RADIO, prefix};
use olsrv2::{AttachedNetwork, Input, Timing};

fn main() {
    grids();
    time_spent();
}

fn grid(side: usize, seed: u64, timing: Timing) -> Net {
    let mut net = Net::grid(seed, side, timing);
    for i in 0..side * side {
        let one = AttachedNetwork { prefix: prefix(i), dist: 0, metric: Metric::new(1) };
        net.input(i, Input::AttachedNetworks(&[one]));
    }
    net
}

fn grids() {
    for (name, timing) in [("rfc", Timing::RFC7181), ("fast", Timing::FAST)] {
        for side in [5, 7, 10] {
            let n = side * side;
            let mut net = grid(side, 1, timing);
            let cold = net.run_while_not(Duration::from_secs(60), Net::is_converged);
            net.run_for(Duration::from_secs(10));
            let (packets, bytes, at) = (net.packets, net.bytes, net.now);
            net.run_for(Duration::from_secs(60));
            let per = |x: u64| x as f64 / 60.0 / n as f64;
            assert_eq!(net.now.saturating_since(at), Duration::from_secs(60));
            let late = net.add(|c| c.timing = timing);
            net.connect(late, 0);
            let (p, b) = (net.packets - packets, net.bytes - bytes);
            let join = net.run_while_not(Duration::from_secs(60), Net::is_converged);
            net.cut(0, 1);
            let cut = net.run_while_not(Duration::from_secs(60), Net::is_converged);
            net.connect(0, 1);
            net.run_while_not(Duration::from_secs(60), Net::is_converged);
            net.cut(0, 1);
            let (a, b1) = (net::link_local(1), net::link_local(0));
            net.input(0, Input::LinkLost { interface: RADIO, address: a });
            net.input(1, Input::LinkLost { interface: RADIO, address: b1 });
            let told = net.run_while_not(Duration::from_secs(60), Net::is_converged);
            println!(
                "{name} {n}: cold {cold} join {join} cut {cut} told {told} | {:.2} packets/s {:.0} bytes/s per node",
                per(p),
                per(b)
            );
        }
    }
}

fn time_spent() {
    let start = std::time::Instant::now();
    let mut net = grid(10, 1, Timing::RFC7181);
    net.run_until(Instant::from_millis(61_000));
    let runs: u64 = net.nodes.iter().map(|n| n.router.counters().route_runs).sum();
    println!("100 nodes, 60 s: {:?} of CPU in all, {runs} route runs", start.elapsed());
}

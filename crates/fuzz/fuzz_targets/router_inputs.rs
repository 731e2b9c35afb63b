//! Packets and time steps: the router takes whatever neighbours send and what it sends itself parses.
//!
//! Input (an odd number of bytes: with the timers that ship): records of one byte with half the length (its top bit: wait first), one byte for the sender, then the packet.
#![no_main]
use core::net::{IpAddr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use mesh_types::{Duration, Instant};
use olsrv2::{Config, Input, NetAddr, Output, Router, Timing};

fn address(group: u16, n: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(group, 0, 0, 0, 0, 0, 0, n.into()))
}

fn drain(router: &mut Router) {
    while let Some(output) = router.poll_output() {
        if let Output::Transmit { bytes, .. } = output {
            assert!(rfc5444::Packet::parse(&bytes).is_ok());
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut now = Instant::from_millis(1);
    let mut config = Config::new(address(0xfd00, 0));
    if bytes.len() % 2 == 1 {
        config.timing = Timing::STEADY;
    }
    config.limits.links = 4;
    config.limits.routers = 8;
    config.limits.records = 8;
    let mut router = Router::new(config, 1, now);
    let own = [NetAddr::host(address(0xfe80, 0))];
    let _ = router.handle_input(now, Input::InterfaceUp { interface: 1, addresses: &own });
    let mut rest = bytes;
    while let [head, sender, more @ ..] = rest {
        let len = (2 * usize::from(head & 0x7f)).min(more.len());
        let (packet, after) = more.split_at(len);
        rest = after;
        if head & 0x80 != 0 {
            now += Duration::from_millis(u64::from(*sender) * 50);
            for _ in 0..100 {
                match router.poll_timeout() {
                    Some(at) if at <= now => router.handle_timeout(at),
                    _ => break,
                }
                drain(&mut router);
            }
        }
        let source = address(0xfe80, *sender);
        let _ = router.handle_input(now, Input::Packet { interface: 1, source, bytes: packet });
        drain(&mut router);
        assert!(router.neighbors().count() <= 4 && router.records().count() <= 8);
    }
});

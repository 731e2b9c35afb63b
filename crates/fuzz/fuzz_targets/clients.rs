//! What an access point's clients send: DHCP messages and router solicitations, with time between them. The server
//! answers at most once, never gives one address to two, and keeps to its pool.
//!
//! Input: records of two bytes (length in units of four bytes; seconds before it, in units of eight), then the message.
#![no_main]
use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use mesh_types::{Duration, Instant};
use radio_core::dhcp::{CLIENT_PORT, Config, Input, Network, Server};
use radio_core::ra::Advertiser;

/// Small, so that it is full now and then.
const POOL: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 0, 0, 10), Ipv4Addr::new(10, 0, 0, 13));

fuzz_target!(|bytes: &[u8]| {
    let network = Network { server: Ipv4Addr::new(10, 0, 0, 1), prefix_len: 24, domain: "local" };
    let config = Config { network, pool: POOL, lease: Duration::from_secs(600), salt: 1 };
    let (mut server, mut now) = (Server::new(config), Instant::ZERO);
    let mut advertiser = Advertiser::new(1, now);
    let mut rest = bytes;
    while let [len, wait, tail @ ..] = rest {
        let (message, tail) = tail.split_at(tail.len().min(usize::from(*len) * 4));
        rest = tail;
        now += Duration::from_secs(u64::from(*wait) * 8);
        if server.is_full() {
            let _ = server.handle_input(now, Input::Associated(&[[2, 0, 0, 0, 0, 1]]));
        }
        let _ = server.handle_input(now, Input::Datagram(message));
        let reply = server.poll_output();
        assert!(server.poll_output().is_none());
        if let Some(reply) = reply {
            assert!(
                reply.to.port() == CLIENT_PORT && reply.payload.len() >= 300 && reply.payload.len() < 576
            );
        }
        let leases: Vec<_> = server.leases().collect();
        assert!(leases.iter().all(|(ip, _)| POOL.0 <= *ip && *ip <= POOL.1));
        server.handle_timeout(now);
        assert!(server.poll_timeout().is_none_or(|at| at > now));
        advertiser.handle_input(now, message, Some(255));
        advertiser.handle_timeout(now);
        advertiser.poll_output();
        assert!(advertiser.poll_timeout() > now);
    }
});

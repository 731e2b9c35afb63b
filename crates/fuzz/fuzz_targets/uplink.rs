//! What comes by the cable of a wired port: DHCP servers' answers, router advertisements, routers' packets, with time and
//! carrier changes between them. An address is taken before it is dropped, lasts for a bounded time, and is put to use
//! with at most three name servers; nothing is due in the past.
//!
//! Input: records of three bytes (what, length in units of four bytes, seconds before it), then the message. Of a DHCP
//! answer number and hardware address are made the client's, so that most get through.
#![no_main]
use std::net::Ipv6Addr;

use libfuzzer_sys::fuzz_target;
use mesh_types::{Duration, Instant};
use radio_core::dhcp::{CLIENT_PORT, ClientConfig, LONGEST_LEASE, wrap};
use radio_core::{Port, PortInput, PortOutput};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

fuzz_target!(|bytes: &[u8]| {
    let mut port = Port::new(ClientConfig { mac: MAC, host_name: "bloor".into() }, 1);
    let (mut now, mut taken, mut xid) = (Instant::ZERO, false, [0; 4]);
    let (mut running, mut by_hand, mut serves) = (false, false, false);
    let mut rest = bytes;
    while let [what, len, wait, tail @ ..] = rest {
        let (message, tail) = tail.split_at(tail.len().min(usize::from(*len) * 4));
        rest = tail;
        now += Duration::from_secs((*wait).into());
        port.handle_timeout(now);
        match what % 8 {
            0 => port.handle_input(now, PortInput::Packet(message)),
            1 => {
                let mut payload = message.to_vec();
                for (at, bytes) in [(4, &xid[..]), (28, &MAC)] {
                    payload.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
                }
                let mut packet = wrap(&payload);
                packet[22..24].copy_from_slice(&CLIENT_PORT.to_be_bytes());
                port.handle_input(now, PortInput::Packet(&packet));
            }
            2 => {
                let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, message.len() as u16);
                port.handle_input(now, PortInput::Icmp { message, source, hop_limit: Some(255) });
            }
            3 => port.handle_input(now, PortInput::Manet(message)),
            4 => {
                running = !running;
                port.handle_input(now, PortInput::Running(running));
            }
            5 => {
                by_hand = !by_hand;
                port.handle_input(now, PortInput::ByHand(by_hand));
            }
            6 => {
                serves = !serves;
                port.handle_input(now, PortInput::Serves(serves));
            }
            _ => port.handle_input(now, PortInput::Arp(message)),
        }
        port.handle_timeout(now);
        let outputs: Vec<PortOutput> = std::iter::from_fn(|| port.poll_output()).collect();
        assert!(outputs.len() <= 16, "{outputs:?}");
        for output in outputs {
            match output {
                PortOutput::Broadcast(packet) => xid.copy_from_slice(&packet[32..36]),
                PortOutput::Unicast { payload, .. } => xid.copy_from_slice(&payload[4..8]),
                PortOutput::Take(lease) => {
                    taken = true;
                    assert!((8..=32).contains(&lease.prefix_len) && lease.until > now);
                    assert!(lease.until <= now + LONGEST_LEASE && lease.dns.len() <= 3);
                    assert!(lease.routes.len() <= 16);
                    assert!(!lease.address.is_unspecified() && !lease.address.is_multicast());
                }
                PortOutput::Drop(..) => assert!(std::mem::take(&mut taken), "dropped, but never taken"),
                _ => {}
            }
        }
        assert!(port.servers().len() <= 3);
        assert!(port.poll_timeout().is_none_or(|at| at > now));
    }
});

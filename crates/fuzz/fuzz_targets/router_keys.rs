//! A router with a key: whatever arrives unsigned leaves no trace, whatever is signed may lie.
//!
//! Input: records of one byte with half the length (its top bit: sign it), one byte for the sender (its top
//! bit: wait first), then the packet. The counter of a signed message grows with what has been read.
#![no_main]
use core::net::{IpAddr, Ipv6Addr};

use hmac::{Hmac, KeyInit, Mac};
use libfuzzer_sys::fuzz_target;
use mesh_types::{Duration, Instant};
use olsrv2::{Config, Input, Key, NetAddr, Output, Router};
use rfc5444::{Message, Packet, RawMessage, Tlv};
use sha2::Sha256;

const SECRET: &[u8] = b"the key";

fn address(group: u16, n: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(group, 0, 0, 0, 0, 0, 0, n.into()))
}

fn drain(router: &mut Router) {
    while let Some(output) = router.poll_output() {
        if let Output::Transmit { bytes, .. } = output {
            assert!(
                Packet::parse(&bytes)
                    .is_ok_and(|p| p.messages.iter().all(|m| m.tlvs.iter().any(|t| t.kind == 5)))
            );
        }
    }
}

/// RFC 7182 §12.2.2, with the source for HELLOs and records that go one hop.
fn sign(message: &mut Message, source: u8, counter: u16) {
    let link = message.kind == 0 || (message.kind == 224 && message.hop_limit == Some(1));
    message.tlvs.push(Tlv::new(6, &counter.to_be_bytes()));
    let mut bytes = Vec::new();
    if message.emit(&mut bytes).is_err() {
        return;
    }
    let Ok(view) = RawMessage::parse(&bytes).and_then(|m| m.check()) else { return };
    let head = [&[3, 3, 4][..], &Key::new(SECRET).id()].concat();
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(SECRET).expect("any length");
    if let (true, IpAddr::V6(a)) = (link, address(0xfe80, source)) {
        mac.update(&[16]);
        mac.update(&a.octets());
    }
    mac.update(&head);
    view.without_tlvs(5, |part| mac.update(part));
    let icv = [&head[..], &mac.finalize().into_bytes()[..16]].concat();
    message.tlvs.push(Tlv { kind: 5, ext: 1 + u8::from(link), value: Some(icv) });
}

fuzz_target!(|bytes: &[u8]| {
    let mut now = Instant::from_millis(1);
    let mut config = Config::new(address(0xfd00, 0));
    config.keys = vec![Key::new(SECRET)];
    config.limits.links = 4;
    config.limits.routers = 8;
    config.limits.records = 8;
    let mut router = Router::new(config, 1, now);
    let own = [NetAddr::host(address(0xfe80, 0))];
    let _ = router.handle_input(now, Input::InterfaceUp { interface: 1, addresses: &own });
    let mut signed = false;
    let mut rest = bytes;
    while let [head, sender, more @ ..] = rest {
        let len = (2 * usize::from(head & 0x7f)).min(more.len());
        let (packet, after) = more.split_at(len);
        rest = after;
        if sender & 0x80 != 0 {
            now += Duration::from_millis(u64::from(sender & 0x7f) * 100);
            for _ in 0..100 {
                match router.poll_timeout() {
                    Some(at) if at <= now => router.handle_timeout(at),
                    _ => break,
                }
                drain(&mut router);
            }
        }
        let sender = sender & 0x0f;
        let mut packet = packet.to_vec();
        if head & 0x80 != 0
            && let Ok(mut parsed) = Packet::parse(&packet)
        {
            let counter = u16::try_from(1000 + bytes.len() - rest.len()).unwrap_or(u16::MAX);
            parsed.messages.iter_mut().for_each(|m| sign(m, sender, counter));
            if let Ok(bytes) = parsed.to_bytes() {
                packet = bytes;
                signed = true;
            }
        }
        let source = address(0xfe80, sender);
        let _ = router.handle_input(now, Input::Packet { interface: 1, source, bytes: &packet });
        drain(&mut router);
        assert!(router.neighbors().count() <= 4 && router.records().count() <= 8);
        if !signed {
            let c = router.counters();
            assert!(router.neighbors().count() == 0 && router.topology().count() == 0);
            assert_eq!((c.hellos_in, c.tcs_in, c.records_in, c.forwarded), (0, 0, 0, 0));
        }
    }
});

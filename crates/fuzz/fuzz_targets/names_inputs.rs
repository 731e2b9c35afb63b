//! Packets, DNS clients and time steps: the whole responder takes whatever comes, what it sends parses, and its timers
//! never spin.
//!
//! Input: records of one byte with the length (its top bit: wait first), one byte for the kind and the sender, then
//! the content.
#![no_main]
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use mesh_types::{Duration, Instant, NodeId, NodeName};
use names::{
    Config, Datagram, Input, InterfaceAddress, MAX_CACHED, MAX_NODES, MDNS_GROUP_V4, Names, Output, Role,
    Service,
};

fn drain(core: &mut Names) {
    while let Some(output) = core.poll_output() {
        match output {
            Output::Transmit(t) => assert!(names::wire::parse(&t.payload).is_ok()),
            Output::DnsReply { payload, .. } => assert!(names::wire::parse(&payload).is_ok()),
            _ => {}
        }
    }
}

fn pass(core: &mut Names, now: &mut Instant, span: Duration) {
    let end = *now + span;
    for _ in 0..10_000 {
        match core.poll_timeout() {
            Some(at) if at <= end => {
                *now = at.max(*now);
                core.handle_timeout(*now);
                drain(core);
            }
            _ => {
                *now = end;
                return;
            }
        }
    }
    panic!("a timer spins");
}

fuzz_target!(|bytes: &[u8]| {
    let mut now = Instant::from_millis(1);
    let name = NodeName::new("bloor").expect("a name");
    let web = Service::new("_http", true, 80);
    let me = NodeId::from_digest([5; 32]);
    let mut core = Names::new(Config { name, node: Some(me), services: vec![web] }, 1, now);
    let own = InterfaceAddress { address: [192, 168, 1, 1].into(), prefix_len: 24 };
    let up = |addresses| Input::Interface { index: 1, addresses, role: Role::Mesh };
    let _ = core.handle_input(now, up(vec![own]));
    let mut rest = bytes;
    while let [head, kind, more @ ..] = rest {
        let len = usize::from(head & 0x7f).min(more.len());
        let (content, after) = more.split_at(len);
        rest = after;
        if head & 0x80 != 0 {
            pass(&mut core, &mut now, Duration::from_millis(u64::from(*kind) * 20));
        }
        let host = Ipv4Addr::new(192, 168, 1, kind >> 4);
        let port = if kind & 8 == 0 { 5353 } else { 4000 };
        let destination = if kind & 4 == 0 { IpAddr::V4(MDNS_GROUP_V4) } else { own.address };
        let input = match kind & 3 {
            0 | 1 => Input::Datagram(Datagram {
                interface: 1,
                source: SocketAddr::new(host.into(), port),
                destination,
                payload: content,
            }),
            2 => Input::Dns { client: u64::from(*kind), payload: content },
            _ if content.is_empty() => up(if kind & 4 == 0 { vec![own] } else { Vec::new() }),
            _ => Input::Record {
                node: NodeId::from_digest([kind >> 2; 32]),
                hops: 1,
                valid: Duration::from_secs(30),
                payload: content,
            },
        };
        let _ = core.handle_input(now, input);
        drain(&mut core);
        assert!(core.cached() <= MAX_CACHED && core.table().len() <= MAX_NODES);
    }
    pass(&mut core, &mut now, Duration::from_secs(10));
});

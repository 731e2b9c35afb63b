//! Packets, DNS clients, records of the mesh, changes and time steps: the whole responder takes whatever comes, on a
//! mesh link and on an access point; what it sends parses, and its timers never spin.
//!
//! Input: records of one byte with the length (its top bit: wait first), one byte for the kind and the sender, then
//! the content.
#![no_main]
use core::net::{IpAddr, SocketAddr};

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

/// What happens without any content.
fn change(kind: u8, links: &[Link; 2]) -> Input<'static> {
    let link = &links[usize::from(kind & 8 != 0)];
    match kind >> 4 {
        0..=3 => link.up(kind & 4 == 0),
        4 => Input::InterfaceGone(link.index),
        5 => Input::Upstream(kind & 4 != 0),
        6 => Input::Router(kind & 4 != 0),
        7 => Input::RecordGone(NodeId::from_digest([kind & 12; 32])),
        8 => Input::NodeAddresses(if kind & 4 == 0 { Vec::new() } else { vec![[10, 64, 0, 1].into()] }),
        9 => Input::Resolve { token: 1, name: NodeName::new("other").expect("a name") },
        10 => Input::ResolveAddress { token: 2, address: [192, 168, 1, kind & 12].into() },
        11 => Input::Shutdown,
        _ => {
            let title = (kind & 8 != 0).then(|| "Library".into());
            let service = Service { title, ..Service::new("_http", kind & 4 == 0, 8000) };
            Input::Services(vec![service; usize::from(kind >> 4 & 3)])
        }
    }
}

struct Link {
    index: u32,
    own: InterfaceAddress,
    role: Role,
}

impl Link {
    fn up(&self, has_address: bool) -> Input<'static> {
        let addresses = if has_address { vec![self.own] } else { Vec::new() };
        Input::Interface { index: self.index, addresses, role: self.role }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut now = Instant::from_millis(1);
    let name = NodeName::new("bloor").expect("a name");
    let web = Service::new("_http", true, 80);
    let me = NodeId::from_digest([5; 32]);
    let mut core = Names::new(Config { name, node: Some(me), services: vec![web] }, 1, now);
    let address = |ip: [u8; 4]| InterfaceAddress { address: ip.into(), prefix_len: 24 };
    let links = [
        Link { index: 1, own: address([192, 168, 1, 1]), role: Role::Mesh },
        Link { index: 2, own: address([10, 0, 0, 1]), role: Role::AccessPoint },
    ];
    for link in &links {
        let _ = core.handle_input(now, link.up(true));
    }
    let mut rest = bytes;
    while let [head, kind, more @ ..] = rest {
        let len = usize::from(head & 0x7f).min(more.len());
        let (content, after) = more.split_at(len);
        rest = after;
        if head & 0x80 != 0 {
            pass(&mut core, &mut now, Duration::from_millis(u64::from(*kind) * 20));
        }
        // Hosts 8 to 15 are clients of the access point.
        let on_access_point = kind & 0x80 != 0;
        let link = &links[usize::from(on_access_point)];
        let host: [u8; 4] = if on_access_point { [10, 0, 0, kind >> 4] } else { [192, 168, 1, kind >> 4] };
        let port = if kind & 8 == 0 { 5353 } else { 4000 };
        let destination = if kind & 4 == 0 { IpAddr::V4(MDNS_GROUP_V4) } else { link.own.address };
        let input = match kind & 3 {
            0 | 1 => Input::Datagram(Datagram {
                interface: link.index,
                source: SocketAddr::new(host.into(), port),
                destination,
                payload: content,
            }),
            2 => Input::Dns { client: u64::from(*kind), stream: kind & 4 != 0, payload: content },
            _ if content.is_empty() => change(*kind, &links),
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

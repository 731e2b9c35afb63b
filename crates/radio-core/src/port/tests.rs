use alloc::string::ToString;

use super::*;
use crate::dhcp::{Config, Input, Kind, Message, Network, SERVER_PORT, Server};
use crate::ra::Advertised;

const MAC: crate::Mac = [2, 0, 0, 0, 0, 7];
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

fn at(n: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(n)
}

fn port() -> Port {
    Port::new(ClientConfig { mac: MAC, host_name: "bloor".to_string() }, 3)
}

fn server(first: [u8; 3], lease: u64) -> Server {
    let ip = |last| Ipv4Addr::new(first[0], first[1], first[2], last);
    let network = Network { server: ip(1), prefix_len: 24, domain: "lan" };
    Server::new(Config { network, pool: (ip(10), ip(20)), lease: Duration::from_secs(lease), salt: 1 })
}

/// As the server's answers arrive at the port.
fn packet(payload: &[u8]) -> Vec<u8> {
    let mut packet = dhcp::wrap(payload);
    packet[22..24].copy_from_slice(&dhcp::CLIENT_PORT.to_be_bytes());
    packet
}

fn drain(p: &mut Port) -> Vec<PortOutput> {
    core::iter::from_fn(|| p.poll_output()).collect()
}

/// Runs to `end`, with a server on the cable; what the port wants besides messages of DHCP.
fn run(p: &mut Port, mut s: Option<&mut Server>, now: Instant, end: Instant) -> Vec<PortOutput> {
    let (mut said, mut now) = (Vec::new(), now);
    loop {
        while let Some(output) = p.poll_output() {
            let asked = match &output {
                PortOutput::Broadcast(packet) => &packet[28..],
                PortOutput::Unicast { payload, .. } => payload,
                _ => {
                    said.push(output);
                    continue;
                }
            };
            let Some(server) = s.as_mut() else { continue };
            server.handle_input(now, Input::Datagram(asked)).unwrap();
            while let Some(reply) = server.poll_output() {
                p.handle_input(now, PortInput::Packet(&packet(&reply.payload)));
            }
        }
        match p.poll_timeout() {
            Some(next) if next <= end => now = next.max(now),
            _ => return said,
        }
        p.handle_timeout(now);
    }
}

fn advertisement(leaving: bool) -> Vec<u8> {
    let prefix = "fd01:203:405:607::".parse().unwrap();
    Advertised { prefix, dns: "fd01:203:405:607::1".parse().unwrap(), mac: None, routes: true }
        .message(leaving)
}

fn hear(p: &mut Port, now: Instant, message: &[u8]) {
    p.handle_input(now, PortInput::Icmp { message, source: ROUTER, hop_limit: Some(255) });
}

/// A packet with one message of that type: no originator, no addresses.
fn manet(kind: u8) -> [u8; 7] {
    [0, kind, 3, 0, 6, 0, 0]
}

#[test]
fn a_dhcp_answer_means_uplink_and_a_pulled_cable_takes_it_back() {
    let (mut p, mut s) = (port(), server([192, 168, 1], 3600));
    p.handle_input(at(0), PortInput::Running(true));
    let said = run(&mut p, Some(&mut s), at(0), at(1));
    let lease = p.client.lease().unwrap().clone();
    assert!(
        said.contains(&PortOutput::Take(lease.clone())) && said.ends_with(&[PortOutput::Changed]),
        "{said:?}"
    );
    let got = Cable::Uplink { lease: Some((lease.address, 24, lease.server)), router: false };
    assert_eq!((p.cable(), p.servers()), (got, alloc::vec![IpAddr::from([192, 168, 1, 1])]));
    p.handle_input(at(9), PortInput::Running(false));
    let why = Loss::Carrier;
    assert_eq!(drain(&mut p), [PortOutput::Withdraw, PortOutput::Drop(lease, why), PortOutput::Changed]);
    assert_eq!((p.cable(), p.servers(), p.poll_timeout()), (Cable::Quiet, Vec::new(), None));
    // What comes while it is not running is not believed.
    hear(&mut p, at(9), &advertisement(false));
    p.handle_input(at(9), PortInput::Manet(&manet(HELLO)));
    assert_eq!(p.cable(), Cable::Quiet);
}

#[test]
fn a_server_that_falls_silent_is_no_uplink_in_the_end() {
    let (mut p, mut s) = (port(), server([192, 168, 1], 600));
    p.handle_input(at(0), PortInput::Running(true));
    run(&mut p, Some(&mut s), at(0), at(1));
    run(&mut p, Some(&mut s), at(1), at(5000));
    assert!(matches!(p.cable(), Cable::Uplink { .. }), "renewed");
    let said = run(&mut p, None, at(5000), at(5601));
    assert!(matches!(said[..], [PortOutput::Drop(_, Loss::Expired), PortOutput::Changed]), "{said:?}");
    assert_eq!(p.cable(), Cable::Quiet);
    // It comes back.
    run(&mut p, Some(&mut s), at(5601), at(5700));
    assert!(matches!(p.cable(), Cable::Uplink { .. }));
}

#[test]
fn rfc4861_6_3_7_routers_are_asked_for_three_times_and_not_after_one_was_heard() {
    let mut p = port();
    p.handle_input(at(0), PortInput::Running(true));
    let solicit = PortOutput::Solicit(ra::solicitation(Some(MAC)));
    assert_eq!(run(&mut p, None, at(0), at(100)), [solicit.clone(), solicit.clone(), solicit.clone()]);
    let mut p = port();
    p.handle_input(at(0), PortInput::Running(true));
    assert_eq!(run(&mut p, None, at(0), at(1)), [solicit]);
    hear(&mut p, at(1), &advertisement(false));
    assert_eq!(run(&mut p, None, at(1), at(100)), [PortOutput::Changed]);
}

#[test]
fn a_router_advertisement_means_uplink_until_its_lifetime_ends_or_it_says_so() {
    let mut p = port();
    p.handle_input(at(0), PortInput::Running(true));
    run(&mut p, None, at(0), at(1));
    hear(&mut p, at(1), &advertisement(false));
    assert_eq!(p.cable(), Cable::Uplink { lease: None, router: true });
    assert_eq!(p.servers(), ["fd01:203:405:607::1".parse::<IpAddr>().unwrap()]);
    let said = run(&mut p, None, at(1), at(1801));
    assert!(said.contains(&PortOutput::Withdraw), "{said:?}");
    assert_eq!((p.cable(), p.servers()), (Cable::Quiet, Vec::new()));
    hear(&mut p, at(1900), &advertisement(false));
    drain(&mut p);
    hear(&mut p, at(1901), &advertisement(true));
    assert_eq!(drain(&mut p), [PortOutput::Withdraw, PortOutput::Changed]);
    assert_eq!(p.cable(), Cable::Quiet);
}

#[test]
fn one_router_of_two_may_leave_and_many_are_bounded() {
    let mut p = port();
    p.handle_input(at(0), PortInput::Running(true));
    for n in 1..100 {
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n);
        let message = advertisement(false);
        p.handle_input(at(1), PortInput::Icmp { message: &message, source, hop_limit: Some(255) });
    }
    assert_eq!(p.routers.len(), MAX_ROUTERS);
    hear(&mut p, at(2), &advertisement(true));
    assert_eq!(p.cable(), Cable::Uplink { lease: None, router: true });
}

#[test]
fn a_hello_means_mesh_and_a_server_wins_over_it() {
    let mut p = port();
    p.handle_input(at(0), PortInput::Running(true));
    p.handle_input(at(0), PortInput::Manet(&manet(1)));
    p.handle_input(at(0), PortInput::Manet(b"\0\0rubbish"));
    assert_eq!(p.cable(), Cable::Quiet, "no HELLO");
    p.handle_input(at(0), PortInput::Manet(&manet(HELLO)));
    assert_eq!(p.cable(), Cable::Mesh);
    run(&mut p, None, at(0), at(19));
    assert_eq!(p.cable(), Cable::Mesh);
    p.handle_input(at(19), PortInput::Manet(&manet(HELLO)));
    // The home router comes up after the nodes; it is asked within a minute.
    let mut s = server([192, 168, 1], 3600);
    run(&mut p, Some(&mut s), at(19), at(19 + 65));
    assert!(matches!(p.cable(), Cable::Uplink { .. }), "{:?}", p.cable());
}

#[test]
fn a_neighbour_that_is_gone_is_forgotten() {
    let mut p = port();
    p.handle_input(at(0), PortInput::Running(true));
    p.handle_input(at(0), PortInput::Manet(&manet(HELLO)));
    run(&mut p, None, at(0), at(20));
    assert_eq!(p.cable(), Cable::Quiet);
}

#[test]
fn an_address_set_by_hand_gives_the_port_to_people() {
    let (mut p, mut s) = (port(), server([192, 168, 1], 3600));
    p.handle_input(at(0), PortInput::Running(true));
    run(&mut p, Some(&mut s), at(0), at(1));
    p.handle_input(at(2), PortInput::ByHand(true));
    assert_eq!(p.cable(), Cable::ByHand);
    let said = run(&mut p, Some(&mut s), at(2), at(500));
    let withdrawn = [PortOutput::Withdraw];
    assert!(
        said.starts_with(&withdrawn) && matches!(said[1], PortOutput::Drop(_, Loss::Released)),
        "{said:?}"
    );
    assert_eq!(s.leases().count(), 0, "given back");
    assert_eq!(p.poll_timeout(), None, "nothing is asked for");
    p.handle_input(at(500), PortInput::ByHand(false));
    run(&mut p, Some(&mut s), at(500), at(501));
    assert!(matches!(p.cable(), Cable::Uplink { .. }));
}

#[test]
fn the_end_gives_the_address_back() {
    let (mut p, mut s) = (port(), server([192, 168, 1], 3600));
    p.handle_input(at(0), PortInput::Running(true));
    run(&mut p, Some(&mut s), at(0), at(1));
    p.handle_input(at(2), PortInput::End);
    let out = drain(&mut p);
    let released = |o: &PortOutput| match o {
        PortOutput::Unicast { to, payload, .. } => {
            to.port() == SERVER_PORT && Message::parse(payload).unwrap().kind == Kind::Release
        }
        _ => false,
    };
    assert!(out.iter().any(released), "{out:?}");
    assert_eq!(p.poll_timeout(), None);
}

#[test]
fn the_access_points_own_network_is_not_taken_from_a_server() {
    let (mut p, mut s) = (port(), server([10, 0, 0], 3600));
    p.handle_input(at(0), PortInput::Serves(true));
    p.handle_input(at(0), PortInput::Running(true));
    let said = run(&mut p, Some(&mut s), at(0), at(1));
    assert!(!said.iter().any(|o| matches!(o, PortOutput::Take(_))), "{said:?}");
    assert!(matches!(p.cable(), Cable::Uplink { lease: Some(_), .. }), "it is no mesh either");
    assert_eq!(p.servers(), [] as [IpAddr; 0]);
    let problem = p.problem().unwrap();
    assert!(problem.contains("the access point's own (10.0.0.1/24)"), "{problem}");
    p.handle_input(at(2), PortInput::Serves(false));
    assert!(matches!(drain(&mut p)[..], [PortOutput::Take(_), PortOutput::Changed]));
    assert_eq!(p.problem(), None);
    p.handle_input(at(3), PortInput::Serves(true));
    assert!(matches!(drain(&mut p)[..], [PortOutput::Drop(..), PortOutput::Changed]));
    // A wider one overlaps as well, the neighbouring one does not.
    let lease = |address: [u8; 4], prefix_len| {
        let until = at(9);
        let server = Ipv4Addr::UNSPECIFIED;
        Lease {
            address: address.into(),
            prefix_len,
            router: None,
            routes: Vec::new(),
            dns: Vec::new(),
            server,
            until,
        }
    };
    assert!(!p.fits(&lease([10, 0, 77, 1], 16)) && !p.fits(&lease([10, 0, 0, 200], 30)));
    assert!(p.fits(&lease([10, 0, 1, 1], 24)) && p.fits(&lease([192, 168, 0, 1], 8)));
}

use std::time::{Duration, Instant};

use super::*;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 77, 77);

fn wait_for(socket: &MulticastSocket, want: &[u8]) -> Received {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut buf = [0u8; 64];
    while Instant::now() < deadline {
        if let Some(received) = socket.recv(&mut buf).unwrap()
            && &buf[..received.len] == want
        {
            return received;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("nothing received within 5 s");
}

#[test]
fn multicast_on_loopback_tells_destination_and_ttl() {
    let groups = [IpAddr::V4(GROUP)];
    let config = MulticastConfig {
        family: Family::V4,
        interface: "lo",
        index: 1,
        port: 37_269,
        groups: &groups,
        hop_limit: 255,
        loopback: true,
        traffic_class: 0,
    };
    let socket = MulticastSocket::open(&config).unwrap();
    let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
    socket.send_to_group(b"hello", GROUP.into(), Some(source)).unwrap();
    let got = wait_for(&socket, b"hello");
    assert_eq!(got.destination, IpAddr::V4(GROUP));
    assert_eq!(got.source, SocketAddr::new(source, 37_269));
    assert_eq!((got.interface, got.hop_limit, got.truncated), (1, Some(255), false));
    let mut short = [0u8; 2];
    socket.send_to(b"long", SocketAddr::new(source, 37_269), Some(source)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let got = loop {
        if let Some(got) = socket.recv(&mut short).unwrap() {
            break got;
        }
        assert!(Instant::now() < deadline);
    };
    assert!(got.truncated && got.len == 2);
    assert_eq!(socket.overflowed(), 0);
    // Nobody fetches these; the queue holds some hundred.
    for _ in 0..3000 {
        let _ = socket.send_to(&[0; 1000], SocketAddr::new(source, 37_269), Some(source));
    }
    assert!(socket.overflowed() > 0);
}

#[test]
fn unicast_v6_on_loopback_tells_destination_and_hop_limit() {
    let config = MulticastConfig {
        family: Family::V6,
        interface: "lo",
        index: 1,
        port: 37_270,
        groups: &[IpAddr::V4(GROUP)], // the other family's: ignored
        hop_limit: 1,
        loopback: false,
        traffic_class: 0xc0,
    };
    let socket = match MulticastSocket::open(&config) {
        Ok(s) => s,
        Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            eprintln!("SKIPPED: UDP over IPv6: this kernel has no IPv6");
            return;
        }
        Err(e) => panic!("{e}"),
    };
    let me = IpAddr::V6(Ipv6Addr::LOCALHOST);
    socket.send_to(b"six", SocketAddr::new(me, 37_270), None).unwrap();
    let got = wait_for(&socket, b"six");
    assert_eq!((got.destination, got.interface, got.hop_limit), (me, 1, Some(1)));
    let other = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1);
    assert_eq!(socket.send_to(b"", other, None).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn opening_on_a_missing_interface_is_an_error() {
    let config = MulticastConfig {
        family: Family::V6,
        interface: "nosuchif0",
        index: 4242,
        port: 37_271,
        groups: &[],
        hop_limit: 1,
        loopback: false,
        traffic_class: 0,
    };
    assert!(MulticastSocket::open(&config).is_err());
    assert!(MulticastSocket::open(&MulticastConfig { index: 0, ..config }).is_err());
}

#[test]
fn rfc4291_2_7_which_destinations_need_a_scope() {
    for (text, expected) in
        [("fe80::1", true), ("ff02::6d", true), ("ff01::1", true), ("ff05::1", false), ("fd00::1", false)]
    {
        assert_eq!(needs_scope(&text.parse().unwrap()), expected, "{text}");
    }
}

#[test]
fn a_socket_beside_takes_what_has_certain_octets_and_knows_how_long_it_waited() {
    let groups = [IpAddr::V4(Ipv4Addr::new(239, 255, 77, 78))];
    let config = MulticastConfig {
        family: Family::V4,
        interface: "lo",
        index: 1,
        port: 37_272,
        groups: &groups,
        hop_limit: 1,
        loopback: true,
        traffic_class: 0,
    };
    let socket = MulticastSocket::open(&config).unwrap();
    let beside = socket.open_beside(&config, &[(0, 0xf0, 0x50), (3, 0xff, 7)]).unwrap();
    let source = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let [calm, other, short, nearly] =
        [&[0x5f, 1, 2, 7, 9][..], &[0x6f, 1, 2, 7], &[0x5f, 1, 2], &[0x50, 7, 7, 8]];
    for payload in [calm, other, short, nearly, calm] {
        socket.send_to_group(payload, groups[0], source).unwrap();
    }
    let mut buf = [0; 64];
    for want in [other, short, nearly] {
        assert_eq!(wait_for(&socket, want).waited, mesh_types::Duration::ZERO);
    }
    assert_eq!(socket.recv(&mut buf).unwrap(), None);
    for want in [calm, calm] {
        wait_for(&beside, want);
    }
    // The kernel does not begin to note the time at once.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        socket.send_to_group(calm, groups[0], source).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        if wait_for(&beside, calm).waited >= mesh_types::Duration::from_millis(20) {
            break;
        }
        assert!(Instant::now() < deadline, "no time was noted");
    }
    assert_eq!(beside.recv(&mut buf).unwrap(), None);
    // Sent to the host itself it has nowhere else to go, whatever is in it.
    socket.send_to(other, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 37_272), source).unwrap();
    wait_for(&socket, other);
}

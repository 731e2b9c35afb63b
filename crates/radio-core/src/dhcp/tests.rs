use alloc::vec;

use super::wire::sample::{message, options};
use super::*;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const LEASE: Duration = Duration::from_secs(3600);

fn server() -> Server {
    Server::new(Config {
        network: Network { server: SERVER, prefix_len: 24, domain: "local" },
        pool: (Ipv4Addr::new(10, 0, 0, 10), Ipv4Addr::new(10, 0, 0, 250)),
        lease: LEASE,
        salt: 7,
    })
}

fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    [2, 0, a, b, c, d]
}

fn at(secs: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(secs)
}

/// What the server answers: kind, address given, where it goes.
fn ask(s: &mut Server, now: Instant, bytes: &[u8]) -> Option<(Kind, Ipv4Addr, Ipv4Addr)> {
    s.handle_input(now, Input::Datagram(bytes)).unwrap();
    let reply = s.poll_output()?;
    assert_eq!(s.poll_output(), None, "one answer");
    assert_eq!(reply.to.port(), CLIENT_PORT);
    let kind = options(&reply.payload).into_iter().find(|(c, _)| *c == 53).map(|(_, v)| v[0]).unwrap();
    let ip: [u8; 4] = reply.payload[16..20].try_into().unwrap();
    Some((Kind::from_number(kind), ip.into(), *reply.to.ip()))
}

fn discover(s: &mut Server, now: Instant, n: u32) -> Option<Ipv4Addr> {
    ask(s, now, &message(Kind::Discover, mac(n), &[])).map(|(kind, ip, to)| {
        assert_eq!((kind, to), (Kind::Offer, Ipv4Addr::BROADCAST));
        ip
    })
}

fn select(s: &mut Server, now: Instant, n: u32, ip: Ipv4Addr) -> Option<Kind> {
    let options: [(u8, &[u8]); 2] = [(50, &ip.octets()), (54, &SERVER.octets())];
    ask(s, now, &message(Kind::Request, mac(n), &options)).map(|(kind, ..)| kind)
}

fn join(s: &mut Server, now: Instant, n: u32) -> Option<Ipv4Addr> {
    let ip = discover(s, now, n)?;
    assert_eq!(select(s, now, n, ip), Some(Kind::Ack));
    Some(ip)
}

/// With `ciaddr`, as when renewing.
fn with_address(mut bytes: Vec<u8>, ip: Ipv4Addr) -> Vec<u8> {
    bytes[12..16].copy_from_slice(&ip.octets());
    bytes
}

#[test]
fn a_client_gets_an_address_renews_it_and_gives_it_back() {
    let mut s = server();
    let ip = join(&mut s, at(0), 1).unwrap();
    assert!(s.in_pool(ip));
    assert_eq!(s.leases().collect::<Vec<_>>(), [(ip, mac(1))]);
    let renew = with_address(message(Kind::Request, mac(1), &[]), ip);
    assert_eq!(ask(&mut s, at(1800), &renew), Some((Kind::Ack, ip, ip)), "by unicast");
    assert_eq!(s.poll_timeout(), Some(at(1800) + LEASE));
    assert_eq!(discover(&mut s, at(1900), 1), Some(ip), "asked anew");
    let inform = with_address(message(Kind::Inform, mac(1), &[]), ip);
    s.handle_input(at(1900), Input::Datagram(&inform)).unwrap();
    let reply = s.poll_output().unwrap();
    assert!(
        options(&reply.payload).iter().all(|(c, _)| ![51, 58, 59].contains(c)),
        "no lease: RFC 2131 §4.3.5"
    );
    assert_eq!(&reply.payload[16..20], &[0; 4]);
    assert_eq!(ask(&mut s, at(1901), &with_address(message(Kind::Release, mac(2), &[]), ip)), None);
    assert_eq!(s.leases().count(), 1, "not the other's to give back");
    assert_eq!(ask(&mut s, at(1901), &with_address(message(Kind::Release, mac(1), &[]), ip)), None);
    assert_eq!((s.leases().count(), s.poll_timeout()), (0, None));
}

#[test]
fn a_restart_gives_the_same_addresses() {
    let (mut before, mut after) = (server(), server());
    let first: Vec<_> = (0..30).map(|n| join(&mut before, at(0), n)).collect();
    assert_eq!(first, (0..30).map(|n| join(&mut after, at(9), n)).collect::<Vec<_>>());
    // One that does not ask anew but goes on is believed, if nobody has the address.
    let mut s = server();
    let ip = first[3].unwrap();
    assert_eq!(
        ask(&mut s, at(0), &with_address(message(Kind::Request, mac(3), &[]), ip)),
        Some((Kind::Ack, ip, ip))
    );
    let reboot = message(Kind::Request, mac(3), &[(50, &ip.octets())]);
    assert_eq!(ask(&mut s, at(1), &reboot), Some((Kind::Ack, ip, Ipv4Addr::BROADCAST)));
}

#[test]
fn rfc2131_4_3_2_wrong_addresses_are_refused() {
    let mut s = server();
    let ip = join(&mut s, at(0), 1).unwrap();
    let nak = Some((Kind::Nak, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
    for other in
        [ip, Ipv4Addr::new(192, 168, 1, 7), SERVER, Ipv4Addr::new(10, 0, 0, 251), Ipv4Addr::BROADCAST]
    {
        let reboot = message(Kind::Request, mac(2), &[(50, &other.octets())]);
        assert_eq!(ask(&mut s, at(0), &reboot), nak, "{other}");
        let renew = with_address(message(Kind::Request, mac(2), &[]), other);
        assert_eq!(ask(&mut s, at(0), &renew), nak, "{other}");
    }
    assert_eq!(ask(&mut s, at(0), &message(Kind::Request, mac(2), &[])), None, "it says nothing");
    assert_eq!(s.counters().naks, 10);
}

#[test]
fn what_it_asks_for_is_taken_into_account_and_another_servers_is_let_go() {
    let mut s = server();
    let wish = Ipv4Addr::new(10, 0, 0, 200);
    let with = |n| message(Kind::Discover, mac(n), &[(50, &wish.octets())]);
    assert_eq!(ask(&mut s, at(0), &with(1)).map(|(_, ip, _)| ip), Some(wish));
    assert_ne!(ask(&mut s, at(0), &with(2)).map(|(_, ip, _)| ip), Some(wish), "offered to another");
    let elsewhere = message(Kind::Request, mac(1), &[(50, &wish.octets()), (54, &[10, 0, 0, 9])]);
    assert_eq!(ask(&mut s, at(0), &elsewhere), None);
    assert_eq!(ask(&mut s, at(0), &with(3)).map(|(_, ip, _)| ip), Some(wish), "free again");
    let mut relayed = with(4);
    relayed[24] = 10;
    assert_eq!(ask(&mut s, at(0), &relayed), None);
}

#[test]
fn offers_and_leases_expire() {
    let mut s = server();
    discover(&mut s, at(0), 1);
    join(&mut s, at(0), 2);
    assert_eq!(s.poll_timeout(), Some(at(30)));
    s.handle_timeout(at(30));
    assert_eq!(s.poll_timeout(), Some(at(0) + LEASE));
    s.handle_timeout(at(0) + LEASE);
    assert_eq!((s.entries.len(), s.poll_timeout()), (0, None));
}

#[test]
fn a_declined_address_is_left_alone_and_only_by_its_holder() {
    let mut s = server();
    let ip = join(&mut s, at(0), 1).unwrap();
    let decline =
        |n, ip: Ipv4Addr| message(Kind::Decline, mac(n), &[(50, &ip.octets()), (54, &SERVER.octets())]);
    assert_eq!(ask(&mut s, at(0), &decline(2, ip)), None);
    assert_eq!(s.leases().count(), 1);
    ask(&mut s, at(0), &decline(1, ip));
    let second = join(&mut s, at(0), 1).unwrap();
    assert_ne!(second, ip);
    for n in 100..200 {
        let ip = join(&mut s, at(1), n).unwrap();
        ask(&mut s, at(1), &decline(n, ip));
    }
    assert_eq!(s.entries.values().filter(|e| e.state == State::Declined).count(), MAX_DECLINED);
    s.handle_timeout(at(601));
    assert_eq!(s.entries.len(), 1);
}

#[test]
fn thousands_of_made_up_clients_keep_nobody_out() {
    let mut s = server();
    let good: Vec<_> = (0..20).map(|n| join(&mut s, at(0), n).unwrap()).collect();
    let associated: Vec<Mac> = (0..21).map(mac).collect();
    for n in 1000..6000 {
        if s.is_full() {
            s.handle_input(at(1), Input::Associated(&associated)).unwrap();
        }
        join(&mut s, at(1), n);
        assert!(s.entries.len() <= 241);
    }
    assert!(s.is_full());
    s.handle_input(at(2), Input::Associated(&associated)).unwrap();
    assert!(join(&mut s, at(2), 20).is_some(), "a newcomer that is there");
    for (n, ip) in (0..).zip(&good) {
        let renew = with_address(message(Kind::Request, mac(n), &[]), *ip);
        assert_eq!(
            ask(&mut s, at(3), &renew),
            Some((Kind::Ack, *ip, *ip)),
            "those that are there keep theirs"
        );
    }
    assert!(s.counters().evicted > 4000);
    // A pool that is full of clients that are there is full.
    let mut s = server();
    let all: Vec<Mac> = (0..241).map(mac).collect();
    for n in 0..241 {
        assert!(join(&mut s, at(0), n).is_some());
    }
    s.handle_input(at(0), Input::Associated(&all)).unwrap();
    assert_eq!((discover(&mut s, at(0), 999), s.counters().full), (None, 1));
}

#[test]
fn identifiers_tell_clients_apart_and_nonsense_is_counted() {
    let mut s = server();
    let with = |id: &[u8]| message(Kind::Discover, mac(1), &[(61, id)]);
    let one = ask(&mut s, at(0), &with(&[255, 1, 2])).map(|(_, ip, _)| ip);
    let other = ask(&mut s, at(0), &with(&[255, 1, 3])).map(|(_, ip, _)| ip);
    assert!(one.is_some() && one != other);
    assert_eq!(s.handle_input(at(0), Input::Datagram(&vec![0; 400])), Err(WireError::Foreign));
    assert_eq!(s.counters().dropped, 1);
}

#[test]
fn rfc2132_3_14_what_clients_call_themselves_is_known_with_their_leases() {
    let mut s = server();
    let ip = discover(&mut s, at(0), 1).unwrap().octets();
    let options: [(u8, &[u8]); 3] = [(50, &ip), (54, &[10, 0, 0, 1]), (12, b"phone-7")];
    assert!(ask(&mut s, at(1), &message(Kind::Request, mac(1), &options)).is_some());
    let got: Vec<_> = s.clients().collect();
    assert_eq!(
        got,
        [ServedClient { address: ip.into(), mac: mac(1), name: Some("phone-7"), until: at(1) + LEASE }]
    );
}

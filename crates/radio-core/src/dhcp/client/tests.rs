use alloc::string::ToString;
use alloc::vec;

use super::super::wire::sample::options;
use super::super::{Config, Input, Message, Network, Server};
use super::*;

const MAC: Mac = [2, 0, 0, 0, 0, 7];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn at(n: u64) -> Instant {
    Instant::ZERO + secs(n)
}

fn client() -> Client {
    Client::new(ClientConfig { mac: MAC, host_name: "bloor".to_string() }, 5)
}

fn server(lease: u64) -> Server {
    Server::new(Config {
        network: Network { server: SERVER, prefix_len: 24, domain: "local" },
        pool: (Ipv4Addr::new(10, 0, 0, 10), Ipv4Addr::new(10, 0, 0, 250)),
        lease: secs(lease),
        salt: 7,
    })
}

fn drain(c: &mut Client) -> Vec<ClientOutput> {
    core::iter::from_fn(|| c.poll_output()).collect()
}

/// The message in an output, and whether all hear it.
fn message(output: &ClientOutput) -> Option<(&[u8], bool)> {
    match output {
        ClientOutput::Broadcast(payload) => Some((payload, true)),
        ClientOutput::Unicast { payload, .. } => Some((payload, false)),
        _ => None,
    }
}

/// Sends its probes, which nobody answers, and takes its address.
fn probed(c: &mut Client, mut now: Instant) -> Instant {
    while c.state == State::Probing {
        now = c.poll_timeout().unwrap();
        c.handle_timeout(now);
    }
    now
}

/// Runs client and server together to `end`; what the client said besides messages, and the time of each message
/// with its kind.
fn run(
    c: &mut Client,
    s: Option<&mut Server>,
    now: Instant,
    end: Instant,
) -> (Vec<ClientOutput>, Vec<(Instant, Kind)>) {
    let (mut server, mut said, mut sent, mut now) = (s, Vec::new(), Vec::new(), now);
    loop {
        while let Some(output) = c.poll_output() {
            if matches!(output, ClientOutput::Arp(_)) {
                continue;
            }
            let Some((payload, _)) = message(&output) else {
                said.push(output);
                continue;
            };
            sent.push((now, Message::parse(payload).unwrap().kind));
            let Some(server) = server.as_mut() else { continue };
            server.handle_input(now, Input::Datagram(payload)).unwrap();
            while let Some(reply) = server.poll_output() {
                c.handle_input(now, ClientInput::Datagram(&reply.payload)).unwrap();
            }
        }
        match c.poll_timeout() {
            Some(next) if next <= end => now = next.max(now),
            _ => return (said, sent),
        }
        c.handle_timeout(now);
    }
}

/// A client that has an address since about zero.
fn bound(s: &mut Server) -> Client {
    let mut c = client();
    c.handle_input(at(0), ClientInput::Carrier(true)).unwrap();
    let (said, sent) = run(&mut c, Some(s), at(0), at(1));
    assert!(matches!(said[..], [ClientOutput::Bound(_)]), "{said:?}");
    assert_eq!(sent.iter().map(|(_, k)| *k).collect::<Vec<_>>(), [Kind::Discover, Kind::Request]);
    c
}

/// An answer of `SERVER` to the client's last message, with these options.
fn answer(c: &Client, kind: Kind, yiaddr: Ipv4Addr, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut b = super::super::wire::sample::message(kind, MAC, options);
    b[0] = 2;
    b[4..8].copy_from_slice(&c.xid);
    b[16..20].copy_from_slice(&yiaddr.octets());
    b
}

#[test]
fn rfc2131_3_1_a_client_finds_a_server_and_takes_its_address() {
    let mut s = server(3600);
    let c = bound(&mut s);
    let lease = c.lease().unwrap();
    assert_eq!((lease.prefix_len, lease.router, lease.server), (24, Some(SERVER), SERVER));
    assert_eq!(lease.dns, [SERVER]);
    assert_eq!(s.leases().collect::<Vec<_>>(), [(lease.address, MAC)]);
    let left = lease.until.saturating_since(at(0));
    assert!(left >= secs(3600) && left < secs(3601), "{left}");
    assert_eq!(c.counters().acks, 1);
}

#[test]
fn rfc2131_4_4_1_what_is_asked_says_who_asks_and_what_it_wants() {
    let mut c = client();
    c.handle_input(at(0), ClientInput::Carrier(true)).unwrap();
    c.handle_timeout(at(1));
    let out = drain(&mut c);
    let [ClientOutput::Broadcast(discover)] = &out[..] else { panic!("{out:?}") };
    assert!(discover.len() >= 300 && discover[12..28].iter().all(|b| *b == 0));
    let of = |code| options(discover).into_iter().find(|(c, _)| *c == code).map(|(_, v)| v);
    assert_eq!(of(12).as_deref(), Some(&b"bloor"[..]));
    assert_eq!(of(61), Some(vec![1, 2, 0, 0, 0, 0, 7]));
    assert_eq!(of(57), Some(vec![5, 220]));
    assert_eq!(of(55), Some(vec![1, 121, 3, 6, 51, 58, 59]));
    assert_eq!((of(50), of(54)), (None, None));
}

#[test]
fn rfc2131_4_1_pauses_double_up_to_a_minute_and_it_never_gives_up() {
    let mut c = client();
    c.handle_input(at(0), ClientInput::Carrier(true)).unwrap();
    let (said, sent) = run(&mut c, None, at(0), at(3600));
    assert_eq!(said, []);
    assert!(sent.iter().all(|(_, k)| *k == Kind::Discover));
    let pauses: Vec<Duration> = sent.windows(2).map(|w| w[1].0.saturating_since(w[0].0)).collect();
    for (pause, want) in pauses.iter().zip([4, 8, 16, 32, 64, 64, 64]) {
        assert!(*pause >= secs(want - 1) && *pause <= secs(want + 1), "{pauses:?}");
    }
    assert!(pauses.iter().all(|p| *p <= secs(65)) && pauses.len() > 50);
    let other = {
        let mut c = Client::new(ClientConfig { mac: MAC, host_name: String::new() }, 6);
        c.handle_input(at(0), ClientInput::Carrier(true)).unwrap();
        run(&mut c, None, at(0), at(3600)).1
    };
    assert_ne!(sent, other, "out of step");
}

#[test]
fn rfc2131_4_4_5_renewed_at_half_time_from_the_one_server() {
    let mut s = server(3600);
    let mut c = bound(&mut s);
    let address = c.lease().unwrap().address;
    let t1 = c.poll_timeout().unwrap();
    assert!(t1.saturating_since(at(0)) >= secs(1800) && t1 <= at(1801));
    c.handle_timeout(t1);
    let out = drain(&mut c);
    let [ClientOutput::Unicast { from, to, payload }] = &out[..] else { panic!("{out:?}") };
    assert_eq!((*from.ip(), *to.ip(), to.port()), (address, SERVER, 67));
    let asked = Message::parse(payload).unwrap();
    // Table 5: the address stands in ciaddr, and in no option.
    assert_eq!((asked.ciaddr, asked.requested, asked.server), (address, None, None));
    s.handle_input(t1, Input::Datagram(payload)).unwrap();
    c.handle_input(t1, ClientInput::Datagram(&s.poll_output().unwrap().payload)).unwrap();
    let out = drain(&mut c);
    let [ClientOutput::Bound(lease)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((lease.address, lease.until), (address, t1 + secs(3600)));
}

#[test]
fn rfc2131_4_4_5_a_silent_server_is_asked_then_all_then_the_address_is_gone() {
    let mut s = server(3600);
    let mut c = bound(&mut s);
    let lease = c.lease().unwrap().clone();
    let (said, sent) = run(&mut c, None, at(1), lease.until);
    assert_eq!(said, [ClientOutput::Lost(lease.clone(), Loss::Expired)]);
    let (before, last) = sent.split_at(sent.len() - 1);
    assert_eq!(last[0].1, Kind::Discover, "it begins anew at once");
    assert!(before.iter().all(|(_, k)| *k == Kind::Request) && before.len() < 20, "{before:?}");
    for pair in before.windows(2) {
        assert!(pair[1].0.saturating_since(pair[0].0) >= secs(60) || pair[1].0 >= c.renewals.1, "{before:?}");
    }
    assert_eq!(c.lease(), None);
}

#[test]
fn rfc2131_4_4_5_any_server_may_help_in_the_end() {
    let mut c = bound(&mut server(3600));
    let rebind_at = c.renewals.1;
    let (_, sent) = run(&mut c, None, at(1), rebind_at);
    assert!(sent.len() >= 2);
    let address = c.lease().unwrap().address;
    let other = Ipv4Addr::new(10, 0, 0, 2).octets();
    let ack =
        answer(&c, Kind::Ack, address, &[(54, &other), (51, &[0, 0, 14, 16]), (1, &[255, 255, 255, 0])]);
    c.handle_input(rebind_at, ClientInput::Datagram(&ack)).unwrap();
    let out = drain(&mut c);
    assert!(
        matches!(&out[..], [ClientOutput::Bound(l)] if l.server == Ipv4Addr::new(10, 0, 0, 2)),
        "{out:?}"
    );
}

#[test]
fn rfc2131_4_4_2_after_a_pulled_cable_the_old_address_is_asked_for_first() {
    let mut s = server(3600);
    let mut c = bound(&mut s);
    let lease = c.lease().unwrap().clone();
    c.handle_input(at(10), ClientInput::Carrier(false)).unwrap();
    assert_eq!(drain(&mut c), [ClientOutput::Lost(lease.clone(), Loss::Carrier)]);
    assert_eq!(c.poll_timeout(), None);
    c.handle_input(at(20), ClientInput::Carrier(true)).unwrap();
    let (said, sent) = run(&mut c, Some(&mut s), at(20), at(21));
    assert!(matches!(&said[..], [ClientOutput::Bound(l)] if l.address == lease.address), "{said:?}");
    assert_eq!(sent.len(), 1, "one message: {sent:?}");
}

#[test]
fn rfc2131_4_4_2_in_another_network_it_begins_anew() {
    let mut c = bound(&mut server(3600));
    c.handle_input(at(10), ClientInput::Carrier(false)).unwrap();
    drain(&mut c);
    let mut other = Server::new(Config {
        network: Network { server: Ipv4Addr::new(192, 168, 1, 1), prefix_len: 24, domain: "lan" },
        pool: (Ipv4Addr::new(192, 168, 1, 10), Ipv4Addr::new(192, 168, 1, 20)),
        lease: secs(600),
        salt: 1,
    });
    c.handle_input(at(20), ClientInput::Carrier(true)).unwrap();
    let (said, sent) = run(&mut c, Some(&mut other), at(20), at(22));
    let kinds: Vec<Kind> = sent.iter().map(|(_, k)| *k).collect();
    assert_eq!(kinds, [Kind::Request, Kind::Discover, Kind::Request], "refused, then anew");
    assert!(
        matches!(&said[..], [ClientOutput::Bound(l)] if l.address.octets()[..3] == [192, 168, 1]),
        "{said:?}"
    );
    // One where nobody answers: not for ever.
    c.handle_input(at(30), ClientInput::Carrier(false)).unwrap();
    c.handle_input(at(40), ClientInput::Carrier(true)).unwrap();
    drain(&mut c);
    let (_, sent) = run(&mut c, None, at(40), at(60));
    assert_eq!(sent.iter().filter(|(_, k)| *k == Kind::Request).count(), TRIES.1 as usize);
    assert_eq!(sent.last().unwrap().1, Kind::Discover);
}

#[test]
fn rfc2131_4_4_6_an_address_is_given_back() {
    let mut s = server(3600);
    let mut c = bound(&mut s);
    let lease = c.lease().unwrap().clone();
    c.handle_input(at(10), ClientInput::Release).unwrap();
    let out = drain(&mut c);
    let [ClientOutput::Unicast { to, payload, .. }, ClientOutput::Lost(_, Loss::Released)] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(*to.ip(), SERVER);
    let said = Message::parse(payload).unwrap();
    assert_eq!((said.kind, said.ciaddr, said.server), (Kind::Release, lease.address, Some(SERVER)));
    s.handle_input(at(10), Input::Datagram(payload)).unwrap();
    assert_eq!(s.leases().count(), 0);
    assert_eq!((c.poll_timeout(), c.lease()), (None, None));
}

#[test]
fn rfc2131_3_1_whoever_refuses_again_and_again_is_asked_ever_more_seldom() {
    let mut c = client();
    c.handle_input(at(0), ClientInput::Carrier(true)).unwrap();
    let (mut now, mut requests) = (at(0), Vec::new());
    while now < at(600) {
        c.handle_timeout(now);
        while let Some(output) = c.poll_output() {
            let (payload, _) = message(&output).unwrap();
            let (kind, server) = (Message::parse(payload).unwrap().kind, SERVER.octets());
            let reply = match kind {
                Kind::Discover => answer(
                    &c,
                    Kind::Offer,
                    Ipv4Addr::new(10, 0, 0, 9),
                    &[(54, &server), (51, &[0, 0, 14, 16])],
                ),
                _ => {
                    requests.push(now);
                    answer(&c, Kind::Nak, Ipv4Addr::UNSPECIFIED, &[(54, &server)])
                }
            };
            c.handle_input(now, ClientInput::Datagram(&reply)).unwrap();
            c.handle_timeout(now);
        }
        now = c.poll_timeout().unwrap();
    }
    assert!((5..20).contains(&requests.len()), "{requests:?}");
}

#[test]
fn rfc2131_4_4_only_sound_answers_of_those_who_were_asked_count() {
    let mut c = client();
    c.handle_input(at(0), ClientInput::Carrier(true)).unwrap();
    c.handle_timeout(at(1));
    drain(&mut c);
    let hour: (u8, &[u8]) = (51, &[0, 0, 14, 16]);
    let (ip, server) = (Ipv4Addr::new(10, 0, 0, 9), SERVER.octets());
    let from: (u8, &[u8]) = (54, &server);
    let mut other_xid = answer(&c, Kind::Offer, ip, &[hour, from]);
    other_xid[4] ^= 1;
    let mut other_mac = answer(&c, Kind::Offer, ip, &[hour, from]);
    other_mac[33] ^= 1;
    for bad in [
        other_xid,
        other_mac,
        answer(&c, Kind::Offer, ip, &[hour]),
        answer(&c, Kind::Offer, ip, &[from]),
        answer(&c, Kind::Offer, ip, &[(51, &[0, 0, 0, 9]), from]),
        answer(&c, Kind::Offer, Ipv4Addr::BROADCAST, &[hour, from]),
        answer(&c, Kind::Offer, Ipv4Addr::LOCALHOST, &[hour, from]),
        answer(&c, Kind::Offer, Ipv4Addr::new(224, 0, 0, 1), &[hour, from]),
        answer(&c, Kind::Offer, Ipv4Addr::UNSPECIFIED, &[hour, from]),
        answer(&c, Kind::Ack, ip, &[hour, from]),
        answer(&c, Kind::Nak, ip, &[from]),
    ] {
        c.handle_input(at(1), ClientInput::Datagram(&bad)).unwrap();
        assert_eq!(c.state, State::Selecting);
    }
    let good = answer(&c, Kind::Offer, ip, &[hour, from]);
    for cut in 0..good.len() {
        let _ = Answer::parse(&good[..cut]);
    }
    c.handle_input(at(1), ClientInput::Datagram(&good)).unwrap();
    c.handle_timeout(at(1));
    assert_eq!(c.state, State::Requesting { address: ip, server: SERVER });
    drain(&mut c);
    let stranger: (u8, &[u8]) = (54, &[10, 0, 0, 66]);
    for bad in [
        answer(&c, Kind::Ack, ip, &[hour, stranger]),
        answer(&c, Kind::Nak, ip, &[stranger]),
        answer(&c, Kind::Ack, Ipv4Addr::new(10, 0, 0, 10), &[hour, from]),
        answer(&c, Kind::Ack, ip, &[from]),
    ] {
        c.handle_input(at(1), ClientInput::Datagram(&bad)).unwrap();
        assert!(matches!(c.state, State::Requesting { .. }));
    }
    assert_eq!(drain(&mut c), []);
}

#[test]
fn rfc2131_3_3_leases_are_bounded_and_odd_times_are_put_right() {
    let lease = |options: &[(u8, &[u8])]| {
        let mut c = client();
        c.handle_input(at(0), ClientInput::Carrier(true)).unwrap();
        c.handle_timeout(at(1));
        let (ip, server) = (Ipv4Addr::new(10, 0, 0, 9), SERVER.octets());
        let from: (u8, &[u8]) = (54, &server);
        let all = [&[from], options].concat();
        for kind in [Kind::Offer, Kind::Ack] {
            let message = answer(&c, kind, ip, &all);
            c.handle_input(at(1), ClientInput::Datagram(&message)).unwrap();
            c.handle_timeout(at(1));
        }
        probed(&mut c, at(1));
        let lease = c.lease().unwrap().clone();
        let (t1, t2) = c.renewals;
        (
            lease.clone(),
            lease.until.saturating_since(at(1)),
            t1.saturating_since(at(1)),
            t2.saturating_since(at(1)),
        )
    };
    let (_, length, t1, t2) = lease(&[(51, &[255; 4])]);
    assert_eq!((length, t1, t2), (LONGEST_LEASE, secs(43_200), secs(75_600)), "for ever");
    let (_, _, t1, t2) = lease(&[(51, &[0, 0, 14, 16]), (58, &[0, 0, 14, 15]), (59, &[0, 0, 0, 7])]);
    assert_eq!((t1, t2), (secs(3).max(t1), secs(7)), "the first is after the second");
    let (_, _, t1, t2) = lease(&[(51, &[0, 0, 14, 16]), (58, &[0; 4]), (59, &[255; 4])]);
    assert_eq!((t1, t2), (secs(1800), secs(3150)), "not within the lease");
    let hour: (u8, &[u8]) = (51, &[0, 0, 14, 16]);
    let (l, ..) =
        lease(&[hour, (1, &[255, 0, 255, 0]), (3, &[0, 0, 0, 0]), (6, &[8, 8, 8, 8, 10, 0, 0, 9, 1])]);
    assert_eq!((l.prefix_len, l.router, l.dns), (24, None, vec![Ipv4Addr::new(8, 8, 8, 8)]));
    let (l, ..) = lease(&[hour, (1, &[255, 255, 252, 0]), (3, &[10, 0, 0, 1, 10, 0, 0, 2])]);
    assert_eq!((l.prefix_len, l.router), (22, Some(SERVER)));
}

/// A client to which that address was given just now, with these options besides.
fn given(ip: Ipv4Addr, more: &[(u8, &[u8])]) -> (Client, Vec<ClientOutput>) {
    let mut c = client();
    c.handle_input(at(0), ClientInput::Carrier(true)).unwrap();
    c.handle_timeout(at(1));
    let lease = 3600u32.to_be_bytes();
    let own: [(u8, &[u8]); 2] = [(51, &lease), (54, &SERVER.octets())];
    let options = [&own[..], more].concat();
    for kind in [Kind::Offer, Kind::Ack] {
        let bytes = answer(&c, kind, ip, &options);
        c.handle_input(at(1), ClientInput::Datagram(&bytes)).unwrap();
        c.handle_timeout(at(1));
    }
    let out = drain(&mut c);
    (c, out)
}

#[test]
fn rfc5227_an_address_is_probed_for_then_announced() {
    let ip = Ipv4Addr::new(10, 0, 0, 44);
    let (mut c, mut out) = given(ip, &[]);
    assert!(c.lease().is_none(), "not yet");
    let end = probed(&mut c, at(1));
    assert_eq!(end.saturating_since(at(1)), PROBE_PAUSE.times(PROBES.into()));
    out.extend(drain(&mut c));
    let said = |address, target| ClientOutput::Arp(Arp { mac: MAC, address, target }.write());
    let probe = said(Ipv4Addr::UNSPECIFIED, ip);
    let own: Vec<_> = out.iter().filter(|o| message(o).is_none()).cloned().collect();
    let lease = c.lease().unwrap().clone();
    assert_eq!(own, [probe.clone(), probe.clone(), probe, said(ip, ip), ClientOutput::Bound(lease)]);
}

#[test]
fn rfc2131_3_1_5_an_address_that_another_host_has_is_declined() {
    let ip = Ipv4Addr::new(10, 0, 0, 44);
    let other = [2, 0, 0, 0, 0, 9];
    let (mut c, _) = given(ip, &[]);
    for harmless in
        [Arp { mac: MAC, address: ip, target: ip }, Arp { mac: other, address: SERVER, target: ip }]
    {
        c.handle_input(at(1), ClientInput::Arp(&harmless.write())).unwrap();
        assert_eq!((drain(&mut c), c.state), (vec![], State::Probing));
    }
    let answer = Arp { mac: other, address: ip, target: Ipv4Addr::UNSPECIFIED };
    c.handle_input(at(1), ClientInput::Arp(&answer.write())).unwrap();
    let out = drain(&mut c);
    let [ClientOutput::Broadcast(decline)] = &out[..] else { panic!("{out:?}") };
    assert_eq!(Message::parse(decline).unwrap().kind, Kind::Decline);
    let of = |code| options(decline).into_iter().find(|(c, _)| *c == code).map(|(_, v)| v);
    assert_eq!((of(50), of(54)), (Some(ip.octets().to_vec()), Some(SERVER.octets().to_vec())));
    assert_eq!((of(12), of(55), &decline[12..16]), (None, None, &[0; 4][..]));
    assert_eq!((c.counters().declined, c.poll_timeout()), (1, Some(at(1) + DECLINED)));
    c.handle_timeout(at(1) + DECLINED);
    let out = drain(&mut c);
    let [ClientOutput::Broadcast(discover)] = &out[..] else { panic!("{out:?}") };
    assert!(options(discover).iter().all(|(code, _)| *code != 50), "that one is not asked for again");
    c.handle_input(at(20), ClientInput::Arp(&answer.write())).unwrap();
    assert_eq!(drain(&mut c), [], "nothing is probed for");
}

#[test]
fn rfc3442_the_routes_that_the_server_names_count_before_the_router() {
    let ip = Ipv4Addr::new(192, 168, 7, 44);
    let (out, inside) = (Ipv4Addr::new(192, 168, 7, 1), Ipv4Addr::new(192, 168, 7, 2));
    // RFC 3442's own examples of how a prefix is written, then the default route.
    let routes = [
        &[8, 10][..],
        &inside.octets(),
        &[25, 10, 27, 129, 0x80],
        &[0, 0, 0, 0],
        &[0],
        &out.octets(),
        &[16, 172, 30],
        &ip.octets(),
    ]
    .concat();
    let other = Ipv4Addr::new(192, 168, 7, 99).octets();
    let (mut c, _) = given(ip, &[(3, &other), (121, &routes)]);
    probed(&mut c, at(1));
    let lease = c.lease().unwrap();
    let route =
        |prefix: [u8; 4], prefix_len, router| StaticRoute { prefix: prefix.into(), prefix_len, router };
    assert_eq!(lease.router, Some(out));
    let want = [route([10, 0, 0, 0], 8, inside), route([10, 27, 129, 128], 25, Ipv4Addr::UNSPECIFIED)];
    assert_eq!(lease.routes, want, "not through itself");
    let (mut c, _) = given(ip, &[(3, &other), (121, &[8, 10, 192, 168, 7, 2])]);
    probed(&mut c, at(1));
    assert_eq!(c.lease().unwrap().router, None, "the router means nothing then");
    for cut in [1, 3, 5] {
        let bad = answer(&c, Kind::Offer, ip, &[(121, &routes[..cut])]);
        assert!(Answer::parse(&bad).is_err(), "{cut}");
    }
    assert!(Answer::parse(&answer(&c, Kind::Offer, ip, &[(121, &[33, 1, 2, 3, 4, 5, 6, 7, 8, 9])])).is_err());
    let many = [8, 10, 1, 2, 3, 4].repeat(40);
    let all = Answer::parse(&answer(&c, Kind::Offer, ip, &[(121, &many)])).unwrap().routes;
    assert_eq!(all.map(|r| r.len()), Some(16));
}

//! What was recorded happens again; broken recordings say where they break.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use mesh_sim::replay::{Replay, ReplayError};
use mesh_types::{Duration, Instant, Metric};
use olsrv2::recording::{self, End, Problem, Recorder, RecordingError};
use olsrv2::{
    AttachedNetwork, Config, Event, Input, Key, LinkQuality, MetricMode, NetAddr, Note, Output, Router,
    Sequences,
};

struct Node {
    router: Router,
    recorder: Recorder,
    heard: Vec<Vec<u8>>,
}

impl Node {
    fn input(&mut self, now: Instant, input: Input<'_>) {
        self.recorder.input(now, &input);
        let _ = self.router.handle_input(now, input);
        self.drain(now);
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.router.poll_output() {
            self.recorder.output(&output);
            match output {
                Output::Transmit { bytes, .. } => self.heard.push(bytes),
                // Judged before the next output is taken, as mesh-router does.
                Output::Event(Event::RecordReceived(r)) => {
                    let (originator, kind, sequence) = (r.originator, r.kind, r.sequence);
                    let verdict = Input::JudgeRecord { originator, kind, sequence, genuine: kind != 9 };
                    self.recorder.input(now, &verdict);
                    self.router.handle_input(now, verdict).unwrap();
                }
                _ => {}
            }
        }
    }
}

fn address(group: u16, n: u16) -> std::net::IpAddr {
    std::net::Ipv6Addr::new(group, 0, 0, 0, 0, 0, 0, n).into()
}

fn keys() -> Vec<Key> {
    vec![Key::new(b"what all of the mesh share")]
}

/// Two neighbours with all kinds of inputs; the recording and the routers as they were at its end.
fn recorded() -> (Vec<u8>, [Router; 2]) {
    let mut now = Instant::from_millis(77);
    let mut nodes = [1, 2].map(|n| {
        let config = Config {
            metric: MetricMode::Dat,
            tc_scopes: vec![255, 4, 4],
            sequences: (n == 1).then_some(Sequences { message: 9, ansn: 8, packet: 7 }),
            keys: keys(),
            ..Config::new(address(0xfd00, n))
        };
        let recorder = Recorder::new(&config, n.into(), now);
        Node { router: Router::new(config, n.into(), now), recorder, heard: Vec::new() }
    });
    let mut file = Vec::new();
    recording::header("a test", &mut file);
    for (n, node) in (1..).zip(&mut nodes) {
        let own = [NetAddr::host(address(0xfe80, n))];
        node.input(now, Input::InterfaceUp { interface: 3, addresses: &own });
        node.input(now, Input::InterfaceBitrate { interface: 3, bits_per_second: Some(54_000_000) });
        let prefix = NetAddr::new(address(0xfd10 + n, 0), 64);
        let network = AttachedNetwork { prefix, dist: 1, metric: Metric::new(4) };
        node.input(now, Input::AttachedNetworks(&[network]));
    }
    for step in 0..3000 {
        now += Duration::from_millis(10);
        for at in 0..2 {
            let other = address(0xfe80, 2 - at as u16);
            for bytes in std::mem::take(&mut nodes[1 - at].heard) {
                nodes[at].input(now, Input::Packet { interface: 3, source: other, bytes: &bytes });
            }
            let node = &mut nodes[at];
            if node.router.poll_timeout().is_some_and(|t| t <= now) {
                node.recorder.timeout(now);
                node.router.handle_timeout(now);
                node.drain(now);
            }
            let here = (3, other);
            match step + at {
                500 => {
                    let (validity, payload) = (Duration::from_secs(60), &b"bloor"[..]);
                    [1, 9].into_iter().for_each(|kind| {
                        node.input(now, Input::Publish { kind, sequence: 5, payload, validity });
                    });
                }
                600 => {
                    let (quality, metric_in) = (Some(200), Some(Metric::new(77)));
                    let quality =
                        LinkQuality { quality, metric_in, bitrate_in: Some(6_000_000), signal: Some(-70) };
                    node.input(now, Input::LinkQuality { interface: 3, address: other, quality });
                }
                700 => node.input(now, Input::ProbeFailed { interface: here.0, address: here.1 }),
                800 => node.input(now, Input::ProbeAnswered { interface: here.0, address: here.1 }),
                900 => node.input(now, Input::LinkLost { interface: here.0, address: here.1 }),
                1000 => node.input(now, Input::Withdraw { kind: 1 }),
                1100 => node.input(now, Input::Keys(&keys())),
                1200 => {
                    let own = [1, 2].map(|n| NetAddr::host(address(0xfe80, n + 0x10 * at as u16)));
                    node.input(now, Input::AddressesChanged { interface: 3, addresses: &own });
                }
                1250 => {
                    let own = [
                        (NetAddr::new(address(0, 0), 0), Note::TunnelsEndIn([0xfd; 16].into())),
                        (NetAddr::new(address(0xfd11, 0), 64), Note::SameNode([10, 64, 0, 1].into())),
                    ];
                    node.input(now, Input::Notes(&own));
                    node.input(now, Input::Tunnels(&[address(0xfd00, 2)]));
                }
                1300 => node.input(now, Input::InterfaceDown { interface: 77 }),
                _ => {}
            }
        }
        if step % 100 == 0 {
            for (who, node) in (0..).zip(&mut nodes) {
                recording::block(who, &node.recorder.take(), &mut file);
            }
        }
    }
    nodes[0].input(now, Input::Leave);
    for (who, node) in (0..).zip(&mut nodes) {
        recording::block(who, &node.recorder.take(), &mut file);
    }
    recording::end(End::Stopped, &mut file);
    (file, nodes.map(|n| n.router))
}

#[test]
fn routers_do_again_what_they_did() {
    let (file, routers) = recorded();
    let mut lines = 0;
    let (replay, result) = Replay::run(&file, &keys(), |_, _, _| lines += 1);
    result.unwrap();
    assert_eq!((replay.program.as_str(), replay.end), ("a test", Some(End::Stopped)));
    for (router, again) in routers.iter().zip(replay.routers.values()) {
        assert_eq!(again.departs, None);
        assert_eq!(router.counters(), again.router.counters());
        assert!(router.routes().eq(again.router.routes()));
        assert!(router.neighbors().eq(again.router.neighbors()));
        assert!(again.packets > 30 && again.route_changes > 1 && again.outputs > again.packets);
    }
    assert_eq!(lines, replay.routers.values().map(|r| r.outputs).sum::<u64>());
    assert!(format!("{replay}").contains("the same as was recorded"));
    // 30 s of two routers.
    assert!(file.len() < 40_000, "{}", file.len());
}

#[test]
fn a_router_that_does_something_else_is_found_out() {
    let (mut file, _) = recorded();
    // The seed, 1, stands behind the kind and the time of the first entry.
    let program = recording::MAGIC.len() + 1 + 1 + "a test".len();
    let at = program + file[program..].windows(5).position(|w| w[..2] == [1, 200] && w[4] == 1).unwrap() + 4;
    file[at] = 3;
    let (replay, result) = Replay::run(&file, &keys(), |_, _, _| {});
    result.unwrap();
    let (offset, when) = replay.routers[&0].departs.unwrap();
    assert!(offset < 2000 && when < Instant::from_millis(5000), "{offset} {when}");
    assert_eq!(replay.routers[&1].departs, None);
    assert!(format!("{replay}").contains(&format!("NOT what was recorded, from byte {offset} on")));
}

#[test]
fn a_cut_or_broken_recording_says_where() {
    let (file, _) = recorded();
    let run = |bytes: &[u8]| Replay::run(bytes, &keys(), |_, _, _| {});
    for len in (0..600).chain(file.len() - 300..file.len()) {
        let (replay, result) = run(&file[..len]);
        let Err(ReplayError::Recording(RecordingError { offset, problem })) = result else { panic!("{len}") };
        assert!(offset <= len && replay.end.is_none());
        let whole = matches!(problem, Problem::Cut | Problem::NoEnd | Problem::NoRecording);
        assert!(whole, "{len}: {problem:?}");
        assert!(len < 300 || replay.routers.values().all(|r| r.departs.is_none()));
    }
    let text = |bytes: &[u8]| run(bytes).1.unwrap_err().to_string();
    assert_eq!(text(b"\xd4\xc3\xb2\xa1"), "byte 0: this is no recording of a router's inputs");
    let mut other = file.clone();
    other[7] = 3;
    assert_eq!(text(&other), "byte 7: recording of format 3; this program reads format 2");
    let mut longer = file.clone();
    longer.push(0);
    assert!(text(&longer).contains("there is more behind"));
    let mut unknown = file[..15].to_vec();
    recording::block(4, &[99], &mut unknown);
    assert_eq!(text(&unknown), "byte 17: router 4 has not been started");
    assert!(Replay::run(&file, &[], |_, _, _| {}).1.unwrap_err().to_string().contains("give it with --keys"));
}

#[test]
fn damage_is_an_error_and_no_panic() {
    let (file, _) = recorded();
    let mut rng = nhdp::Rng::new(1);
    for _ in 0..20_000 {
        let mut bytes = file[..3000].to_vec();
        for _ in 0..1 + rng.next_u64() % 4 {
            let at = (rng.next_u64() % 3000) as usize;
            bytes[at] = rng.next_u64() as u8;
        }
        let Ok(recording) = recording::Recording::open(&bytes) else { continue };
        let mut before = 0;
        for entry in recording {
            match entry {
                Ok(entry) => assert!(std::mem::replace(&mut before, entry.offset) < entry.offset),
                Err(e) => assert!(e.offset <= bytes.len()),
            }
        }
    }
}

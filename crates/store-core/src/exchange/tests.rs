//! Simulated meshes: nodes that have blocks, and nodes that die, lie, stall or never end.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;
use std::println;

use content_id::{Codec, Version};

use super::*;

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Honest,
    /// Has the blocks until then.
    Dies(Instant),
    /// Sends other bytes.
    Liar,
    /// Takes what it is asked and says nothing.
    Silent,
    /// Says that it has everything, then says nothing.
    Tease,
    /// Refuses connections.
    Closed,
    /// Refuses them until then.
    Back(Instant),
}

#[derive(Clone, Debug)]
struct Server {
    kind: Kind,
    has: BTreeSet<Cid>,
    latency: Duration,
    /// For one block, one after the other.
    takes: Duration,
    free_at: Instant,
    questions: usize,
    blocks: usize,
}

struct Mesh {
    now: Instant,
    core: Exchange,
    servers: Vec<Server>,
    /// Answers on their way.
    coming: BTreeMap<(Instant, RequestId), (usize, Cid, Answer)>,
    done: BTreeMap<WantId, (Instant, Result<(), Missing>)>,
    most_blocks: usize,
    most_questions: usize,
    asks: usize,
}

fn address(n: usize) -> SocketAddr {
    SocketAddr::new(core::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, n as u16, 1).into(), 8080)
}

fn index(peer: SocketAddr) -> usize {
    match peer {
        SocketAddr::V6(a) => usize::from(a.ip().segments()[6]),
        SocketAddr::V4(_) => unreachable!(),
    }
}

fn cid(n: usize) -> Cid {
    Cid::of(Version::V1, Codec::RAW, format!("block {n}").as_bytes())
}

fn server(kind: Kind, has: impl IntoIterator<Item = usize>) -> Server {
    Server {
        kind,
        has: has.into_iter().map(cid).collect(),
        latency: MS.times(5),
        takes: MS.times(10),
        free_at: Instant::ZERO,
        questions: 0,
        blocks: 0,
    }
}

impl Mesh {
    fn new(servers: Vec<Server>, seed: u64) -> Self {
        let mut core = Exchange::new(seed);
        let reach: Vec<_> = (0..servers.len()).map(address).collect();
        core.handle_input(Instant::ZERO, Input::Reach(&reach)).unwrap();
        Self {
            now: Instant::ZERO,
            core,
            servers,
            coming: BTreeMap::new(),
            done: BTreeMap::new(),
            most_blocks: 0,
            most_questions: 0,
            asks: 0,
        }
    }

    fn want(&mut self, id: usize, session: u64, block: usize) {
        let (want, session) = (WantId(id as u64), SessionId(session));
        self.core.handle_input(self.now, Input::Want { want, session, cid: &cid(block) }).unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Ask { request, peer, cid, ask } => self.ask(request, peer, cid, ask),
                Output::Abort(id) => self.coming.retain(|(_, request), _| *request != id),
                Output::Done { want, result } => {
                    assert!(self.done.insert(want, (self.now, result)).is_none(), "{want:?} twice");
                }
            }
        }
        self.most_blocks = self.most_blocks.max(self.core.blocks);
        self.most_questions = self.most_questions.max(self.core.questions);
        assert!(self.core.requests.len() <= MAX_BLOCKS + MAX_QUESTIONS);
    }

    fn ask(&mut self, request: RequestId, peer: SocketAddr, cid: Cid, ask: Ask) {
        self.asks += 1;
        let at = index(peer);
        let server = &mut self.servers[at];
        match ask {
            Ask::Have => server.questions += 1,
            Ask::Block => server.blocks += 1,
        }
        let has = server.has.contains(&cid);
        let good = match (ask, has) {
            (_, false) => Answer::Absent,
            (Ask::Have, true) => Answer::Has,
            (Ask::Block, true) => Answer::Block,
        };
        let answer = match (server.kind, ask) {
            (Kind::Silent, _) | (Kind::Tease, Ask::Block) => return,
            (Kind::Tease, Ask::Have) | (Kind::Liar, Ask::Have) => Answer::Has,
            (Kind::Liar, Ask::Block) => Answer::Lied,
            (Kind::Closed, _) => Answer::Failed,
            (Kind::Dies(when), _) if self.now >= when => Answer::Failed,
            (Kind::Back(when), _) if self.now < when => Answer::Failed,
            _ => good,
        };
        let mut when = self.now + server.latency;
        if ask == Ask::Block && answer == Answer::Block {
            server.free_at = server.free_at.max(when) + server.takes;
            when = server.free_at;
        }
        self.coming.insert((when, request), (at, cid, answer));
    }

    /// Runs until all wants and questions are over.
    fn run(&mut self) {
        let mut steps = 0;
        while !self.core.wants.is_empty() || !self.core.requests.is_empty() {
            steps += 1;
            assert!(steps < 200_000, "it goes on and on at {:?}", self.now);
            self.step();
        }
        assert!(self.core.requests.is_empty() && self.core.blocks == 0 && self.core.questions == 0);
    }

    /// To the next answer or timeout.
    fn step(&mut self) {
        let answer = self.coming.keys().next().map(|(when, _)| *when);
        let timer = self.core.poll_timeout();
        let next = answer.into_iter().chain(timer).min().expect("wants without a timer");
        assert!(next >= self.now, "time goes back");
        self.now = next;
        match self.coming.first_entry() {
            Some(first) if first.key().0 == next => {
                let ((_, request), (at, _, mut answer)) = first.remove_entry();
                if matches!(self.servers[at].kind, Kind::Dies(when) if when <= next) {
                    answer = Answer::Failed;
                }
                self.core.handle_input(next, Input::Answer { request, answer }).unwrap();
            }
            _ => self.core.handle_timeout(next),
        }
        self.drain();
    }

    /// As many blocks of one session as may be, then all others; the time until the last one came.
    fn fetch(&mut self, blocks: usize) -> Duration {
        let start = self.now;
        for n in 0..blocks {
            self.want(n, 1, n);
        }
        self.run();
        let late = (0..blocks).map(|n| {
            let (when, result) = self.done[&WantId(n as u64)];
            assert_eq!(result, Ok(()), "block {n}");
            when
        });
        late.max().unwrap().saturating_since(start)
    }
}

#[test]
fn the_nearest_node_that_has_it_is_asked() {
    let mut mesh = Mesh::new(
        [server(Kind::Honest, []), server(Kind::Honest, 0..9), server(Kind::Honest, 0..9)].into(),
        1,
    );
    mesh.want(0, 1, 0);
    mesh.run();
    assert_eq!(mesh.done[&WantId(0)].1, Ok(()));
    let blocks: Vec<_> = mesh.servers.iter().map(|s| s.blocks).collect();
    assert_eq!(blocks, [0, 1, 0]);
}

#[test]
fn blocks_come_from_several_nodes_at_the_same_time() {
    let one = Mesh::new([server(Kind::Honest, 0..200)].into(), 1).fetch(200);
    let mut mesh = Mesh::new((0..4).map(|_| server(Kind::Honest, 0..200)).collect(), 1);
    // all four should be known to have it: the catalogue says so
    let peers: Vec<_> = (0..4).map(address).collect();
    let hint = Input::Providers { session: SessionId(1), peers: &peers };
    mesh.core.handle_input(Instant::ZERO, hint).unwrap();
    let four = mesh.fetch(200);
    println!("200 blocks: {} ms from one node, {} ms from four", one.as_millis(), four.as_millis());
    assert!(four.times(3) < one, "{four:?} instead of {one:?}");
    assert!(mesh.servers.iter().all(|s| s.blocks > 20));
    assert_eq!(mesh.servers.iter().map(|s| s.questions).sum::<usize>(), 0, "hints save the search");
    assert!(mesh.most_blocks <= MAX_BLOCKS);
}

#[test]
fn who_answers_after_the_first_block_has_come_gives_the_next_ones() {
    let mut mesh = Mesh::new((0..2).map(|_| server(Kind::Honest, 0..40)).collect(), 1);
    mesh.servers[1].latency = MS.times(40);
    mesh.want(40, 1, 0);
    mesh.run();
    mesh.fetch(40);
    assert!(mesh.servers.iter().all(|s| s.blocks >= 5), "{:?}", mesh.servers);
}

#[test]
fn a_node_that_dies_lies_or_stalls_costs_only_time() {
    let dies = Kind::Dies(Instant::ZERO + MS.times(300));
    for kind in [dies, Kind::Liar, Kind::Silent, Kind::Tease, Kind::Closed] {
        let mut servers: Vec<_> = (0..3).map(|_| server(kind, 0..100)).collect();
        servers.push(server(Kind::Honest, 0..100));
        let mut mesh = Mesh::new(servers, 3);
        let took = mesh.fetch(100);
        println!("{kind:?}: {} ms, {} asks", took.as_millis(), mesh.asks);
        assert!(took < Duration::from_secs(12), "{kind:?}: {took:?}");
        let wasted: usize = mesh.servers.iter().take(3).map(|s| s.blocks).sum();
        assert!(kind == dies || wasted <= 40, "{kind:?}: {wasted} blocks asked of bad nodes");
    }
}

#[test]
fn what_a_dead_provider_had_comes_when_it_is_back() {
    let mut mesh = Mesh::new([server(Kind::Honest, 0..50)].into(), 1);
    mesh.want(0, 1, 0);
    mesh.run();
    mesh.servers[0].kind = Kind::Back(mesh.now + MS.times(1500));
    mesh.want(1, 1, 1);
    mesh.run();
    assert_eq!(mesh.done[&WantId(1)].1, Ok(()));
}

#[test]
fn a_large_mesh_is_not_flooded() {
    // only the farthest of 500 nodes has it
    let mut servers: Vec<_> = (0..500).map(|_| server(Kind::Honest, [])).collect();
    servers[499] = server(Kind::Honest, 0..100);
    let mut mesh = Mesh::new(servers, 1);
    let took = mesh.fetch(100);
    println!("100 blocks that one of 500 nodes has: {} ms, {} asks", took.as_millis(), mesh.asks);
    assert!(mesh.most_questions <= MAX_QUESTIONS);
    let questions: usize = mesh.servers.iter().map(|s| s.questions).sum();
    assert!(questions < 500 * 18, "{questions} questions");
    assert!(took < Duration::from_secs(8), "{took:?}");
    // once it is known, nobody else is asked
    let before = mesh.asks;
    mesh.want(1000, 1, 50);
    mesh.run();
    assert_eq!(mesh.asks, before + 1);
}

#[test]
fn what_nobody_has_is_told_from_what_nobody_answers() {
    let mut mesh = Mesh::new([server(Kind::Honest, []), server(Kind::Honest, [])].into(), 1);
    mesh.want(0, 1, 7);
    mesh.run();
    assert_eq!(mesh.done[&WantId(0)], (mesh.now, Err(Missing::NobodyHas)));
    let mut mesh = Mesh::new([server(Kind::Honest, []), server(Kind::Silent, [])].into(), 1);
    mesh.want(0, 1, 7);
    mesh.run();
    assert_eq!(mesh.done[&WantId(0)].1, Err(Missing::NoAnswer));
    let mut alone = Mesh::new(Vec::new(), 1);
    alone.want(0, 1, 7);
    assert_eq!(alone.done[&WantId(0)].1, Err(Missing::NobodyHas));
}

#[test]
fn wants_are_bounded_and_may_be_cancelled() {
    let mut mesh = Mesh::new([server(Kind::Silent, [])].into(), 1);
    for n in 0..MAX_WANTS {
        mesh.want(n, 1, n);
    }
    let (now, block) = (mesh.now, cid(1));
    let more = |want| Input::Want { want: WantId(want), session: SessionId(1), cid: &block };
    assert_eq!(mesh.core.handle_input(now, more(MAX_WANTS as u64)), Err(InputError::TooManyWants));
    for n in 0..MAX_WANTS {
        mesh.core.handle_input(now, Input::Cancel(WantId(n as u64))).unwrap();
    }
    mesh.drain();
    assert!(mesh.core.wants.is_empty() && mesh.core.requests.is_empty() && mesh.core.blocks == 0);
    mesh.core.handle_input(now, more(1)).unwrap();
    assert_eq!(mesh.core.handle_input(now, more(1)), Err(InputError::KnownWant));
}

#[test]
fn whatever_nodes_do_every_want_ends_in_time() {
    for seed in 0..50u64 {
        let mut random = Exchange::new(seed);
        let count = 1 + random.random() as usize % 12;
        let servers: Vec<_> = (0..count)
            .map(|_| {
                let when = Instant::ZERO + MS.times(random.random() % 2000);
                let kinds =
                    [Kind::Honest, Kind::Dies(when), Kind::Liar, Kind::Silent, Kind::Tease, Kind::Closed];
                let kind = kinds[random.random() as usize % kinds.len()];
                let has: Vec<_> = (0..60).filter(|_| !random.random().is_multiple_of(3)).collect();
                let mut one = server(kind, has);
                one.latency = MS.times(random.random() % 200);
                one.takes = MS.times(random.random() % 100);
                one
            })
            .collect();
        let honest: BTreeSet<Cid> =
            servers.iter().filter(|s| s.kind == Kind::Honest).flat_map(|s| s.has.clone()).collect();
        let mut mesh = Mesh::new(servers, seed);
        for n in 0..60 {
            mesh.want(n, n as u64 % 3, n);
        }
        mesh.run();
        for n in 0..60 {
            let (when, result) = mesh.done[&WantId(n as u64)];
            assert!(when.saturating_since(Instant::ZERO) <= DEADLINE, "seed {seed}: {when:?}");
            let there = honest.contains(&cid(n));
            assert!(!there || result == Ok(()), "seed {seed}: block {n} was there: {result:?} at {when:?}");
        }
    }
}

/// Tells the core that these nodes should have the blocks of session 1.
fn hint(mesh: &mut Mesh, nodes: &[usize]) {
    let peers: Vec<_> = nodes.iter().map(|n| address(*n)).collect();
    let input = Input::Providers { session: SessionId(1), peers: &peers };
    mesh.core.handle_input(mesh.now, input).unwrap();
}

/// Wants one block after the other, 16 at a time, as somebody who reads a file; the time it takes.
fn read(mesh: &mut Mesh, blocks: usize) -> Duration {
    let start = mesh.now;
    for n in 0..blocks {
        mesh.want(n, 1, n);
        while mesh.core.wants.len() >= 16 {
            mesh.step();
        }
    }
    mesh.run();
    let done: Vec<_> = (0..blocks).map(|n| mesh.done[&WantId(n as u64)]).collect();
    assert!(done.iter().all(|(_, result)| *result == Ok(())));
    done.iter().map(|(when, _)| *when).max().unwrap_or(start).saturating_since(start)
}

#[test]
fn a_hint_that_works_is_joined_by_nodes_that_are_asked() {
    let alone = {
        let mut mesh = Mesh::new([server(Kind::Honest, 0..200)].into(), 1);
        hint(&mut mesh, &[0]);
        read(&mut mesh, 200)
    };
    let mut servers: Vec<_> = (0..12).map(|_| server(Kind::Honest, [])).collect();
    for at in [2, 5, 11] {
        servers[at] = server(Kind::Honest, 0..200);
    }
    let mut mesh = Mesh::new(servers, 1);
    hint(&mut mesh, &[11]);
    let took = read(&mut mesh, 200);
    println!("200 blocks: {} ms by the hint alone, {} ms with two more", alone.as_millis(), took.as_millis());
    assert!(took.times(2) < alone, "{took:?} instead of {alone:?}");
    assert!([2, 5, 11].iter().all(|at| mesh.servers[*at].blocks > 30), "{:?}", mesh.servers);
    let questions: usize = mesh.servers.iter().map(|s| s.questions).sum();
    assert!(questions <= LOOKS, "{questions} questions");
}

#[test]
fn a_hint_that_is_slow_or_dies_costs_little() {
    let slow = |takes: u64| Server { takes: MS.times(takes), ..server(Kind::Honest, 0..100) };
    let dies = server(Kind::Dies(Instant::ZERO + MS.times(200)), 0..100);
    for (what, first) in [("300 ms each", slow(300)), ("1 s each", slow(1000)), ("dies", dies)] {
        let mut servers: Vec<_> = (0..30).map(|_| server(Kind::Honest, [])).collect();
        servers[0] = first;
        servers[20] = server(Kind::Honest, 0..100);
        let mut mesh = Mesh::new(servers, 1);
        hint(&mut mesh, &[0]);
        let took = read(&mut mesh, 100);
        println!("a hint that {what}: 100 blocks in {} ms, {} asks", took.as_millis(), mesh.asks);
        assert!(took < Duration::from_secs(5), "{what}: {took:?}");
    }
}

#[test]
fn hints_that_stall_cost_seconds_at_most() {
    for count in [1, 2, 3, 6] {
        for kind in [Kind::Silent, Kind::Tease, Kind::Liar, Kind::Closed] {
            let mut servers: Vec<_> = (0..count).map(|_| server(kind, 0..100)).collect();
            servers.push(server(Kind::Honest, 0..100));
            let mut mesh = Mesh::new(servers, 1);
            hint(&mut mesh, &(0..count).collect::<Vec<_>>());
            let took = read(&mut mesh, 100);
            println!("{count} hints {kind:?}: 100 blocks in {} ms, {} asks", took.as_millis(), mesh.asks);
            assert!(took < Duration::from_secs(6), "{count} {kind:?}: {took:?}");
        }
    }
}

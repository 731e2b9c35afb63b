//! Simulated meshes: nodes publish, come, go and fill up.

use alloc::format;
use alloc::vec;
use std::println;

use content_id::{Codec, Version};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(60);
const LINGER: Duration = Duration::from_secs(600);

fn key(n: usize) -> NodeKey {
    content_id::sha256(format!("node {n}").as_bytes())
}

fn root(n: usize) -> Cid {
    Cid::of(Version::V0, Codec::DAG_PB, format!("root {n}").as_bytes())
}

struct Node {
    core: Replicas,
    published: Vec<(Cid, u64)>,
    room: u64,
    alive: bool,
    fetching: Option<(Instant, Cid, bool)>,
    fetches: usize,
    drops: usize,
}

impl Node {
    fn view(&self) -> View {
        let held = self.core.held().map(|(root, by, size)| (root.clone(), by, size)).collect();
        View { full: self.room < 100, published: self.published.clone(), held }
    }
}

struct Mesh {
    now: Instant,
    nodes: Vec<Node>,
}

impl Mesh {
    fn new(count: usize, copies: usize) -> Self {
        let node = |n| {
            let config = Config { me: key(n), copies, grace: GRACE, linger: LINGER };
            let mut core = Replicas::new(config, Vec::new());
            core.handle_input(Instant::ZERO, Input::Room(1_000_000));
            Node {
                core,
                published: Vec::new(),
                room: 1_000_000,
                alive: true,
                fetching: None,
                fetches: 0,
                drops: 0,
            }
        };
        let mut mesh = Self { now: Instant::ZERO, nodes: (0..count).map(node).collect() };
        (0..count).for_each(|n| mesh.tell(n));
        mesh
    }

    /// The catalogue of `from` reaches all others.
    fn tell(&mut self, from: usize) {
        let view = self.nodes[from].view();
        for to in 0..self.nodes.len() {
            if to != from && self.nodes[to].alive && self.nodes[from].alive {
                self.nodes[to].core.handle_input(self.now, Input::Node(key(from), view.clone()));
            }
        }
    }

    fn publish(&mut self, node: usize, what: usize, size: u64) {
        self.nodes[node].published.push((root(what), size));
        self.own(node);
    }

    fn own(&mut self, node: usize) {
        let own: Vec<Cid> = self.nodes[node].published.iter().map(|(root, _)| root.clone()).collect();
        self.nodes[node].core.set_own(self.now, own);
        self.tell(node);
    }

    fn leave(&mut self, node: usize) {
        self.nodes[node].alive = false;
        for n in 0..self.nodes.len() {
            self.nodes[n].core.handle_input(self.now, Input::Gone(key(node)));
        }
    }

    fn come_back(&mut self, node: usize) {
        self.nodes[node].alive = true;
        for n in 0..self.nodes.len() {
            self.tell(n);
        }
    }

    /// Second by second.
    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += SECOND;
            for n in 0..self.nodes.len() {
                self.step(n);
            }
        }
    }

    fn step(&mut self, n: usize) {
        let (now, node) = (self.now, &mut self.nodes[n]);
        if !node.alive {
            return;
        }
        if let Some((_, root, whole)) = node.fetching.take_if(|(when, ..)| *when <= now) {
            node.core.handle_input(now, Input::Fetched { root, whole });
        }
        node.core.handle_timeout(now);
        let mut changed = false;
        let before = node.core.held().count();
        while let Some(output) = self.nodes[n].core.poll_output() {
            match output {
                Output::Changed => changed = true,
                Output::Fetch { root, from, size, .. } => {
                    let whole =
                        from.iter().any(|f| self.nodes.iter().any(|o| o.alive && o.core.config.me == *f));
                    let node = &mut self.nodes[n];
                    assert!(node.fetching.is_none() && size <= node.room);
                    node.fetches += 1;
                    if whole {
                        node.room -= size;
                    }
                    node.fetching = Some((now + SECOND.times(2), root, whole));
                }
            }
        }
        if changed {
            self.nodes[n].drops += usize::from(self.nodes[n].core.held().count() < before);
            let room = self.nodes[n].room;
            self.nodes[n].core.handle_input(now, Input::Room(room));
            self.tell(n);
        }
    }

    /// Nodes that are there and have a root.
    fn copies(&self, what: usize) -> Vec<usize> {
        let has = |node: &Node| {
            node.published.iter().any(|(r, _)| *r == root(what)) || node.core.mine.contains_key(&root(what))
        };
        (0..self.nodes.len()).filter(|n| self.nodes[*n].alive && has(&self.nodes[*n])).collect()
    }

    fn fetches(&self) -> usize {
        self.nodes.iter().map(|n| n.fetches).sum()
    }
}

#[test]
fn what_is_published_is_kept_on_so_many_nodes_and_spread() {
    for (count, copies) in [(1, 3), (2, 3), (3, 3), (8, 3), (30, 3), (8, 1), (8, 5)] {
        let mut mesh = Mesh::new(count, copies);
        for what in 0..40 {
            mesh.publish(what % count, what, 1000);
        }
        mesh.run(400);
        for what in 0..40 {
            assert_eq!(mesh.copies(what).len(), copies.min(count), "{count} nodes: root {what}");
        }
        let kept: Vec<usize> = mesh.nodes.iter().map(|n| n.core.held().count()).collect();
        println!("{count} nodes, {copies} copies: kept {kept:?}");
        assert_eq!(mesh.fetches(), 40 * (copies.min(count) - 1), "nobody fetches what is not its own");
        assert!(mesh.nodes.iter().all(|n| n.drops == 0));
    }
}

#[test]
fn copies_are_made_again_when_nodes_leave() {
    let mut mesh = Mesh::new(6, 3);
    mesh.publish(0, 0, 1000);
    mesh.run(30);
    let keeper = *mesh.copies(0).iter().find(|n| **n != 0).unwrap();
    let before = mesh.fetches();
    mesh.leave(keeper);
    mesh.run(50);
    assert_eq!((mesh.copies(0).len(), mesh.fetches()), (2, before), "not at once");
    mesh.run(30);
    assert_eq!(mesh.copies(0).len(), 3);
    // its publisher leaves: others keep it, and make up for it
    mesh.leave(0);
    mesh.run(90);
    assert_eq!(mesh.copies(0).len(), 3);
    // and again, as long as one is left
    let one = mesh.copies(0)[0];
    mesh.leave(one);
    mesh.run(90);
    assert_eq!(mesh.copies(0).len(), 3);
}

#[test]
fn a_node_that_blinks_causes_no_copying() {
    let mut mesh = Mesh::new(6, 3);
    for what in 0..20 {
        mesh.publish(0, what, 1000);
    }
    mesh.run(200);
    let before = mesh.fetches();
    for _ in 0..10 {
        for node in 0..6 {
            mesh.leave(node);
            mesh.run(20);
            mesh.come_back(node);
            mesh.run(20);
        }
    }
    assert_eq!(mesh.fetches(), before);
    assert!(mesh.nodes.iter().all(|n| n.drops == 0));
}

#[test]
fn a_copy_moves_to_a_node_that_came_and_only_then_goes() {
    let mut mesh = Mesh::new(12, 3);
    (6..12).for_each(|n| mesh.leave(n));
    mesh.run(100);
    for what in 0..30 {
        mesh.publish(0, what, 1000);
    }
    mesh.run(300);
    for node in 6..12 {
        mesh.come_back(node);
    }
    for _ in 0..1000 {
        mesh.run(1);
        assert!((0..30).all(|what| mesh.copies(what).len() >= 3));
    }
    mesh.run(600);
    let sum: usize = (0..30).map(|what| mesh.copies(what).len()).sum();
    assert_eq!(sum, 90, "what is spare has gone");
    assert!(mesh.nodes.iter().skip(6).any(|n| n.core.held().count() > 0));
}

#[test]
fn what_is_unpublished_is_let_go() {
    let mut mesh = Mesh::new(5, 3);
    mesh.publish(0, 0, 1000);
    mesh.publish(0, 1, 1000);
    mesh.run(60);
    mesh.nodes[0].published.remove(0);
    mesh.own(0);
    mesh.run(30);
    assert_eq!(mesh.copies(0).len(), 2, "not at once: it may have been a mistake");
    mesh.run(60);
    assert_eq!((mesh.copies(0).len(), mesh.copies(1).len()), (0, 3));
    // its publisher was away meanwhile: the same
    let mut mesh = Mesh::new(5, 3);
    mesh.publish(0, 0, 1000);
    mesh.run(60);
    mesh.leave(0);
    mesh.run(100);
    assert_eq!(mesh.copies(0).len(), 3);
    mesh.nodes[0].published.clear();
    mesh.come_back(0);
    mesh.run(200);
    assert_eq!(mesh.copies(0).len(), 0);
}

#[test]
fn nodes_without_room_are_left_out() {
    let mut mesh = Mesh::new(6, 3);
    for n in 1..4 {
        mesh.nodes[n].room = 50;
        mesh.nodes[n].core.handle_input(mesh.now, Input::Room(50));
        mesh.tell(n);
    }
    for what in 0..20 {
        mesh.publish(0, what, 1000);
    }
    mesh.run(200);
    assert!((0..20).all(|what| mesh.copies(what) == [0, 4, 5]));
    // more than fits anywhere is not even tried
    mesh.publish(0, 99, 10_000_000);
    let before = mesh.fetches();
    mesh.run(100);
    assert_eq!((mesh.copies(99), mesh.fetches()), (vec![0], before));
}

#[test]
fn what_can_not_be_fetched_is_tried_again_less_and_less_often() {
    let config = Config { me: key(0), copies: 3, grace: GRACE, linger: LINGER };
    let mut core = Replicas::new(config, Vec::new());
    core.handle_input(Instant::ZERO, Input::Room(1 << 30));
    let view = View { published: vec![(root(0), 10)], ..View::default() };
    core.handle_input(Instant::ZERO, Input::Node(key(1), view));
    let (mut now, mut tries) = (Instant::ZERO, 0);
    while now < Instant::ZERO + SECOND.times(3600) {
        now = core.poll_timeout().unwrap();
        core.handle_timeout(now);
        while let Some(output) = core.poll_output() {
            let Output::Fetch { root, .. } = output else { panic!() };
            tries += 1;
            core.handle_input(now + SECOND, Input::Fetched { root, whole: false });
        }
    }
    assert!((5..12).contains(&tries), "{tries} tries in an hour");
}

#[test]
fn tables_are_bounded() {
    let config = Config { me: key(0), copies: 3, grace: GRACE, linger: LINGER };
    let mut core = Replicas::new(config, Vec::new());
    for n in 1..=MAX_NODES + 10 {
        let published = (0..50).map(|i| (root(n * 100 + i), 1)).collect();
        core.handle_input(Instant::ZERO, Input::Node(key(n), View { published, ..View::default() }));
    }
    assert_eq!(core.others.len(), MAX_NODES);
    let roots: usize = core.others.values().map(|o| o.view.published.len()).sum();
    assert_eq!(roots, MAX_ROOTS);
}

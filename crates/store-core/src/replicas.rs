//! Which published content a node keeps for others (sans-IO).
//!
//! Every node knows the catalogues of all nodes in reach. What is published is kept by its publisher
//! and by the nodes that score highest for it (rendezvous hashing), so that `copies` nodes have it;
//! each node finds out by itself whether it is one of them. A node that leaves counts as there for a
//! while: one that only blinks causes no copying. A copy that is not this node's to keep any more is
//! dropped only when those whose it is have had it for a while. What was published by a node that is
//! gone is known from the catalogues of those that keep it.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use content_id::Cid;
use mesh_types::{Duration, Instant};

use crate::catalog::NodeKey;

/// Roots known at the same time, over all nodes; what is beyond is left out.
pub const MAX_ROOTS: usize = 20_000;
/// Nodes known at the same time.
pub const MAX_NODES: usize = 1024;
/// Time between two looks at everything.
const PERIOD: Duration = Duration::from_secs(2);
/// Time after which a root that could not be fetched is tried again; doubled each time.
const RETRY: Duration = Duration::from_secs(30);
/// The doublings at most.
const MAX_DOUBLINGS: u32 = 6;

/// How a node keeps copies.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// This node.
    pub me: NodeKey,
    /// Nodes that should have each root, its publisher included; 1 for the publisher only.
    pub copies: usize,
    /// How long a node that left counts as there.
    pub grace: Duration,
    /// How long a copy that others are to keep stays here.
    pub linger: Duration,
}

/// What a node has, as its catalogue says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// It keeps nothing more for others.
    pub full: bool,
    /// What it publishes, with its bytes.
    pub published: Vec<(Cid, u64)>,
    /// What it keeps for others: root, publisher, bytes.
    pub held: Vec<(Cid, NodeKey, u64)>,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Input {
    /// The catalogue of another node, in place of its last one.
    Node(NodeKey, View),
    /// A node is out of reach, or its catalogue has expired.
    Gone(NodeKey),
    /// A [`Output::Fetch`] is over.
    Fetched {
        /// Which root.
        root: Cid,
        /// All of it is here.
        whole: bool,
    },
    /// Bytes that copies for others may still take here.
    Room(u64),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Fetch all of a root; one at a time.
    Fetch {
        /// Which.
        root: Cid,
        /// Who published it.
        publisher: NodeKey,
        /// Its bytes.
        size: u64,
        /// Nodes that say that they have it.
        from: Vec<NodeKey>,
    },
    /// What is kept for others has changed: see [`Replicas::held`].
    Changed,
}

#[derive(Clone, Debug)]
struct Other {
    view: View,
    gone: Option<Instant>,
}

/// What this node keeps for another.
#[derive(Clone, Copy, Debug)]
struct Mine {
    publisher: NodeKey,
    size: u64,
    /// Since when it is others' to keep.
    spare: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    times: u32,
    again: Instant,
}

/// A root that should be kept.
struct Target {
    publisher: NodeKey,
    size: u64,
    /// Its publisher is there.
    owned: bool,
}

/// The copies of one node.
///
/// Drain [`Replicas::poll_output`] to `None` after every input, before the next one.
#[derive(Debug)]
pub struct Replicas {
    config: Config,
    others: BTreeMap<NodeKey, Other>,
    /// What this node publishes itself.
    own: BTreeSet<Cid>,
    mine: BTreeMap<Cid, Mine>,
    room: u64,
    fetching: Option<(Cid, Mine)>,
    failures: BTreeMap<Cid, Failure>,
    due: Option<Instant>,
    out: VecDeque<Output>,
}

impl Replicas {
    /// A node that keeps `held` from before (root, publisher, bytes).
    #[must_use]
    pub fn new(config: Config, held: Vec<(Cid, NodeKey, u64)>) -> Self {
        let keep = |(root, publisher, size)| (root, Mine { publisher, size, spare: None });
        Self {
            config,
            others: BTreeMap::new(),
            own: BTreeSet::new(),
            mine: held.into_iter().take(MAX_ROOTS).map(keep).collect(),
            room: 0,
            fetching: None,
            failures: BTreeMap::new(),
            due: None,
            out: VecDeque::new(),
        }
    }

    /// Takes an input.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Node(node, view) if node != self.config.me => self.node(node, view),
            Input::Node(..) => {}
            Input::Gone(node) => {
                if let Some(other) = self.others.get_mut(&node) {
                    other.gone = other.gone.or(Some(now));
                }
            }
            Input::Fetched { root, whole } => self.fetched(now, root, whole),
            Input::Room(bytes) => {
                self.room = bytes;
                return;
            }
        }
        let soon = now + PERIOD;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// What this node publishes itself, in place of what was said before.
    pub fn set_own(&mut self, now: Instant, own: impl IntoIterator<Item = Cid>) {
        self.own = own.into_iter().collect();
        self.due = Some(self.due.map_or(now + PERIOD, |due| due.min(now + PERIOD)));
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.look(now);
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Replicas::handle_timeout`] is due.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// What this node keeps for others: root, publisher, bytes.
    pub fn held(&self) -> impl Iterator<Item = (&Cid, NodeKey, u64)> {
        self.mine.iter().map(|(root, mine)| (root, mine.publisher, mine.size))
    }

    /// Nodes that say that they have a root.
    pub fn holders<'a>(&'a self, root: &'a Cid) -> impl Iterator<Item = NodeKey> + 'a {
        let there = self.others.iter().filter(|(_, other)| other.gone.is_none());
        there.filter(|(_, other)| other.has(root)).map(|(node, _)| *node)
    }

    fn node(&mut self, node: NodeKey, mut view: View) {
        if self.others.len() >= MAX_NODES && !self.others.contains_key(&node) {
            return;
        }
        let elsewhere = self.others.iter().filter(|(other, _)| **other != node);
        let taken: usize =
            elsewhere.map(|(_, other)| other.view.published.len() + other.view.held.len()).sum();
        view.published.truncate(MAX_ROOTS.saturating_sub(taken));
        view.held.truncate(MAX_ROOTS.saturating_sub(taken + view.published.len()));
        view.published.sort();
        view.held.sort();
        self.others.insert(node, Other { view, gone: None });
    }

    fn fetched(&mut self, now: Instant, root: Cid, whole: bool) {
        let Some((_, mine)) = self.fetching.take_if(|(fetching, _)| *fetching == root) else { return };
        if whole {
            self.failures.remove(&root);
            self.room = self.room.saturating_sub(mine.size);
            self.mine.insert(root, mine);
            self.out.push_back(Output::Changed);
        } else {
            let times = self.failures.get(&root).map_or(0, |f| f.times);
            let again = now + RETRY.times(1 << times.min(MAX_DOUBLINGS));
            if self.failures.len() < MAX_ROOTS {
                self.failures.insert(root, Failure { times: times + 1, again });
            }
        }
    }

    /// Decides about everything.
    fn look(&mut self, now: Instant) {
        self.due = None;
        let grace = self.config.grace;
        self.others.retain(|_, other| other.gone.is_none_or(|gone| now < gone + grace));
        let mut next = self.others.values().filter_map(|other| Some(other.gone? + grace)).min();
        let targets = self.targets();
        let mut fetch = None;
        for (root, target) in &targets {
            if self.own.contains(root) {
                continue;
            }
            let chosen = self.is_chosen(root, target);
            match self.mine.get_mut(root) {
                Some(mine) if chosen => mine.spare = None,
                Some(_) => {}
                None if chosen && fetch.is_none() && self.fetching.is_none() => {
                    let again = self.failures.get(root).map(|f| f.again);
                    match again.filter(|again| *again > now) {
                        Some(again) => next = Some(next.map_or(again, |n| n.min(again))),
                        None if target.size <= self.room => {
                            fetch = Some((root.clone(), target.publisher, target.size));
                        }
                        None => {}
                    }
                }
                None => {}
            }
        }
        let dropped = self.spare(now, &targets, &mut next);
        for root in &dropped {
            self.mine.remove(root);
        }
        if !dropped.is_empty() {
            self.out.push_back(Output::Changed);
        }
        if let Some((root, publisher, size)) = fetch {
            let from = self.holders(&root).collect();
            self.fetching = Some((root.clone(), Mine { publisher, size, spare: None }));
            self.out.push_back(Output::Fetch { root, publisher, size, from });
        }
        self.failures.retain(|_, failure| failure.again + RETRY.times(1 << MAX_DOUBLINGS) > now);
        self.due = next.map(|next| next.max(now + PERIOD));
    }

    /// What should be kept, and for whom.
    fn targets(&self) -> BTreeMap<Cid, Target> {
        let mut targets = BTreeMap::new();
        for (node, other) in &self.others {
            for (root, size) in &other.view.published {
                targets.insert(root.clone(), Target { publisher: *node, size: *size, owned: true });
            }
        }
        // of publishers that are gone: whatever somebody keeps
        let held = self.others.values().flat_map(|other| other.view.held.iter().map(|(r, p, s)| (r, *p, *s)));
        for (root, publisher, size) in held.chain(self.held()) {
            let gone = publisher != self.config.me && !self.others.contains_key(&publisher);
            if gone && targets.len() < MAX_ROOTS {
                targets.entry(root.clone()).or_insert(Target { publisher, size, owned: false });
            }
        }
        targets
    }

    /// Whether this node is one of those that keep a root.
    fn is_chosen(&self, root: &Cid, target: &Target) -> bool {
        let needed = self.config.copies.saturating_sub(usize::from(target.owned));
        let mine = score(root, &self.config.me);
        let better = self.others.iter().filter(|(node, other)| {
            **node != target.publisher && (!other.view.full || other.has(root)) && score(root, node) > mine
        });
        better.take(needed).count() < needed
    }

    /// Copies to drop now: those that are not published any more, and those that others keep.
    fn spare(
        &mut self,
        now: Instant,
        targets: &BTreeMap<Cid, Target>,
        next: &mut Option<Instant>,
    ) -> Vec<Cid> {
        let mut dropped = Vec::new();
        let roots: Vec<Cid> = self.mine.keys().cloned().collect();
        for root in roots {
            let (spare, wait) = match targets.get(&root) {
                // unpublished, or published here now
                None => (true, self.config.grace),
                Some(_) if self.own.contains(&root) => (true, self.config.grace),
                Some(target) => {
                    let needed = self.config.copies.saturating_sub(usize::from(target.owned));
                    let holders = self.others.iter().filter(|(node, other)| {
                        **node != target.publisher && other.gone.is_none() && other.has(&root)
                    });
                    let kept = holders.count() >= needed && !self.is_chosen(&root, target);
                    (kept, self.config.linger)
                }
            };
            let Some(mine) = self.mine.get_mut(&root) else { continue };
            if !spare {
                mine.spare = None;
                continue;
            }
            let since = *mine.spare.get_or_insert(now);
            if now >= since + wait {
                dropped.push(root);
            } else {
                *next = Some(next.map_or(since + wait, |n| n.min(since + wait)));
            }
        }
        dropped
    }
}

impl Other {
    fn has(&self, root: &Cid) -> bool {
        self.view.published.binary_search_by(|(cid, _)| cid.cmp(root)).is_ok()
            || self.view.held.binary_search_by(|(cid, _, _)| cid.cmp(root)).is_ok()
    }
}

/// How well a node suits a root: the same on every node, and spread evenly.
fn score(root: &Cid, node: &NodeKey) -> (u64, NodeKey) {
    let word = |bytes: &[u8; 32]| bytes.first_chunk::<8>().map_or(0, |start| u64::from_le_bytes(*start));
    let mut z = word(root.digest().unwrap_or(&[0; 32])) ^ word(node).rotate_left(32);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31), *node)
}

#[cfg(test)]
mod tests;

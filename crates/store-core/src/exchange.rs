//! Which node is asked for which block, and when (sans-IO).
//!
//! Blocks are wanted in *sessions*, one for each DAG. A session learns its providers from hints (the
//! catalogue), and by asking nodes in reach whether they have a block, nearest first, a few at a time.
//! Its blocks are then asked of the providers in parallel, each of whoever should be done first. A
//! node that fails is left alone for a while, longer each time; one that lied, for long. A block that
//! is late is asked of a second node; whoever is outrun and has given nothing meanwhile has failed. A
//! session with few nodes that give looks for more among the nearest while its blocks come. So nodes that
//! die, lie or stall cost time and nothing else.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use content_id::Cid;
use mesh_types::{Duration, Instant};

mod peer;

use peer::Peer;

/// Wants at the same time.
pub const MAX_WANTS: usize = 1024;
/// Nodes known at the same time, nearest first.
pub const MAX_PEERS: usize = 512;
/// Blocks on their way at the same time, from all nodes together.
pub const MAX_BLOCKS: usize = 12;
/// Questions whether a node has a block, at the same time.
pub const MAX_QUESTIONS: usize = 16;
/// Sessions remembered.
const MAX_SESSIONS: usize = 64;
/// Providers remembered in one session.
const MAX_PROVIDERS: usize = 16;
/// Nodes asked at first whether they have a block.
const FIRST_WIDTH: usize = 3;
/// A block is asked of a further node, and one more node whether it has it, after that long.
const HEDGE: Duration = Duration::from_millis(400);
/// Time for an answer to a question.
const QUESTION: Duration = Duration::from_secs(4);
/// Time for a block from one node.
const BLOCK: Duration = Duration::from_secs(30);
/// A block that takes longer gives way when there is no room for more.
const STALE: Duration = Duration::from_secs(5);
/// A block that takes longer may give way to a further node's; twice as long each time for the same want.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time for a block from anyone.
pub const DEADLINE: Duration = Duration::from_secs(45);
/// Tries of a block with a node that has shown to have it.
const TRIES: u8 = 3;
/// Nodes that one block is on its way from at the most.
const COPIES: usize = 3;
/// Blocks in a row that a provider does not have, after which it is none any more.
const MISSES: u8 = 8;
/// A session that has so many blocks looks for further nodes that have them,
const LOOK_AFTER: u32 = 8;
/// until so many give blocks,
const ENOUGH: usize = 3;
/// among so many, the nearest ones,
const LOOKS: usize = 8;
/// again after that long.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// A block that somebody waits for; named by the caller, unique among those under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantId(pub u64);

/// The DAG a block belongs to; named by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// One question to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What a node is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Whether it has the block.
    Have,
    /// For the block.
    Block,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The block, verified.
    Block,
    /// It has the block.
    Has,
    /// It does not have the block.
    Absent,
    /// It could not be reached, answered nonsense, or broke off.
    Failed,
    /// It sent other bytes than the block's.
    Lied,
}

/// What happens to the exchange.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The nodes in reach, nearest first; in place of what was said before.
    Reach(&'a [SocketAddr]),
    /// Nodes that should have the blocks of a session.
    Providers {
        /// Which session.
        session: SessionId,
        /// Which nodes.
        peers: &'a [SocketAddr],
    },
    /// A block is wanted.
    Want {
        /// Its name here.
        want: WantId,
        /// The DAG it belongs to.
        session: SessionId,
        /// Which block.
        cid: &'a Cid,
    },
    /// Nobody waits for it any more.
    Cancel(WantId),
    /// A node answered.
    Answer {
        /// Which question.
        request: RequestId,
        /// What.
        answer: Answer,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask a node; its answer comes back as [`Input::Answer`].
    Ask {
        /// This question's name.
        request: RequestId,
        /// Whom.
        peer: SocketAddr,
        /// About which block.
        cid: Cid,
        /// What.
        ask: Ask,
    },
    /// The answer to a question is of no interest any more.
    Abort(RequestId),
    /// A want is over: its block came with the answer handled last, or it can't be had.
    Done {
        /// Which want.
        want: WantId,
        /// Why not.
        result: Result<(), Missing>,
    },
}

/// Why a block can't be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// All nodes in reach say that they don't have it (or there are none).
    NobodyHas,
    /// Some did not answer.
    NoAnswer,
}

/// Why an input is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputError {
    /// [`MAX_WANTS`] wants are under way.
    TooManyWants,
    /// A want of that name is under way.
    KnownWant,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyWants => "too many blocks are wanted at the same time",
            Self::KnownWant => "a want of that name is under way",
        })
    }
}

impl core::error::Error for InputError {}

#[derive(Clone, Debug, Default)]
struct Session {
    /// Nodes that have its blocks, with the blocks in a row that they did not have.
    providers: BTreeMap<SocketAddr, u8>,
    used: Instant,
    /// Blocks that came.
    blocks: u32,
    /// Nodes nearer than the one with this rank were asked whether they have its blocks.
    looked: usize,
    /// When that begins anew.
    look_again: Instant,
}

/// How far a node has come with a want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    /// It has been asked and has not answered.
    Waiting,
    /// It says that it has it.
    Has,
    /// Not so.
    Absent,
    /// It failed that often.
    Failed(u8),
    Lied,
}

#[derive(Clone, Debug)]
struct Want {
    cid: Cid,
    session: SessionId,
    tried: BTreeMap<SocketAddr, Tried>,
    requests: BTreeSet<RequestId>,
    /// Questions on their way.
    questions: usize,
    /// Blocks on their way.
    blocks: usize,
    /// Blocks that may be on their way.
    allowed: usize,
    /// Questions that may be on their way.
    width: usize,
    hedge_at: Instant,
    /// A block that is on its way for longer gives way when there is no room for more.
    patience: Duration,
    deadline: Instant,
    /// When a provider that is left alone may be asked again.
    again_at: Option<Instant>,
    unanswered: bool,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    want: WantId,
    session: SessionId,
    peer: SocketAddr,
    ask: Ask,
    sent: Instant,
    expires: Instant,
}

/// The exchange of one node.
///
/// Drain [`Exchange::poll_output`] to `None` after every input, before the next one.
#[derive(Debug)]
pub struct Exchange {
    random: u64,
    peers: BTreeMap<SocketAddr, Peer>,
    sessions: BTreeMap<SessionId, Session>,
    wants: BTreeMap<WantId, Want>,
    requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    blocks: usize,
    questions: usize,
    out: VecDeque<Output>,
}

impl Exchange {
    /// An exchange that knows nobody. `seed` spreads what would otherwise happen at the same time on
    /// many nodes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: seed,
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            wants: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            blocks: 0,
            questions: 0,
            out: VecDeque::new(),
        }
    }

    /// Takes an input.
    ///
    /// # Errors
    /// A want that can't be taken; nothing has changed then.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) -> Result<(), InputError> {
        match input {
            Input::Reach(peers) => self.reach(now, peers),
            Input::Providers { session, peers } => {
                for peer in peers {
                    self.provides(now, session, *peer);
                }
            }
            Input::Want { want, session, cid } => self.want(now, want, session, cid)?,
            Input::Cancel(want) => self.end(now, want, None),
            Input::Answer { request, answer } => self.answer(now, request, answer),
        }
        self.schedule(now);
        Ok(())
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = self.requests.iter().filter(|(_, r)| r.expires <= now).map(|(id, _)| *id);
        let late: Vec<RequestId> = late.collect();
        for request in late {
            self.out.push_back(Output::Abort(request));
            self.answer(now, request, Answer::Failed);
        }
        if self.blocks >= MAX_BLOCKS {
            // nodes that stall must not take all the room
            let blocks = self.requests.iter().filter(|(_, r)| r.ask == Ask::Block && r.sent + STALE <= now);
            if let Some((request, _)) = blocks.min_by_key(|(_, r)| r.sent) {
                let request = *request;
                self.out.push_back(Output::Abort(request));
                self.answer(now, request, Answer::Failed);
            }
        }
        // only now: what is scheduled below may search, the time of the next look is set after it
        let late: Vec<WantId> =
            self.wants.iter().filter(|(_, w)| w.hedge_at <= now).map(|(id, _)| *id).collect();
        for id in &late {
            self.give_way(now, *id);
            if let Some(want) = self.wants.get_mut(id) {
                want.allowed = (want.blocks + 1).min(COPIES);
                want.width = (want.width + 1).min(MAX_QUESTIONS);
            }
        }
        self.schedule(now);
        for id in late {
            if let Some(want) = self.wants.get_mut(&id) {
                want.hedge_at = want.hedge_at.max(now + HEDGE);
            }
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Exchange::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let wants = self
            .wants
            .values()
            .flat_map(|want| want.again_at.into_iter().chain([want.deadline, want.hedge_at]));
        wants.chain(self.requests.values().map(|r| r.expires)).min()
    }

    /// Nodes that have shown to have blocks of a session.
    pub fn providers(&self, session: SessionId) -> impl Iterator<Item = SocketAddr> {
        self.sessions.get(&session).into_iter().flat_map(|s| s.providers.keys().copied())
    }

    /// The nodes in reach, nearest first, those that are left alone last.
    #[must_use]
    pub fn nearest_first(&self, now: Instant) -> Vec<SocketAddr> {
        let mut all: Vec<_> = self.peers.iter().filter(|(_, p)| p.in_reach).collect();
        all.sort_by_key(|(_, peer)| (peer.avoid_until > now, peer.rank));
        all.into_iter().map(|(address, _)| *address).collect()
    }

    /// Nodes that should have a block and may be asked for it, now or later.
    fn candidates<'a>(&'a self, want: &'a Want) -> impl Iterator<Item = &'a SocketAddr> {
        let known = self.sessions.get(&want.session).into_iter().flat_map(|s| s.providers.keys());
        let said = want.tried.iter().filter(|(_, t)| **t == Tried::Has).map(|(peer, _)| peer);
        known.chain(said).filter(|address| match want.tried.get(*address) {
            None | Some(Tried::Has) => true,
            Some(Tried::Failed(n)) => *n < TRIES,
            Some(_) => false,
        })
    }

    fn reach(&mut self, now: Instant, peers: &[SocketAddr]) {
        for peer in self.peers.values_mut() {
            (peer.in_reach, peer.rank) = (false, usize::MAX);
        }
        for (rank, address) in peers.iter().enumerate().take(MAX_PEERS) {
            let peer = self.peers.entry(*address).or_insert(Peer::NEW);
            if !peer.in_reach {
                (peer.in_reach, peer.rank) = (true, rank);
            }
        }
        // one that comes and goes is not forgiven for that
        self.peers.retain(|_, peer| peer.in_reach || peer.in_flight > 0 || peer.avoid_until > now);
        while self.peers.len() > 2 * MAX_PEERS {
            let gone = self.peers.iter().find(|(_, p)| !p.in_reach && p.in_flight == 0).map(|(a, _)| *a);
            let Some(gone) = gone else { break };
            self.peers.remove(&gone);
        }
    }

    /// Ends the oldest request for a block if that is on its way from as many nodes as may be, and there is somebody
    /// else to ask.
    fn give_way(&mut self, now: Instant, id: WantId) {
        let Some(want) = self.wants.get(&id).filter(|want| want.blocks >= COPIES) else { return };
        let sent = |id: &RequestId| self.requests.get(id).filter(|r| r.ask == Ask::Block).map(|r| r.sent);
        let oldest = want.requests.iter().filter_map(|id| Some((sent(id)?, *id))).min();
        let Some((_, request)) = oldest.filter(|(sent, _)| *sent + want.patience <= now) else { return };
        let others = matches!(self.best_provider(now, want), Choice::Now(_));
        if others || self.next_untried(now, want, 0).0.is_some() {
            self.out.push_back(Output::Abort(request));
            self.answer(now, request, Answer::Failed);
            if let Some(want) = self.wants.get_mut(&id) {
                want.patience = want.patience.times(2);
            }
        }
    }

    fn session(&mut self, now: Instant, id: SessionId) -> &mut Session {
        if !self.sessions.contains_key(&id) && self.sessions.len() >= MAX_SESSIONS {
            let oldest = self.sessions.iter().min_by_key(|(_, s)| s.used).map(|(id, _)| *id);
            oldest.and_then(|id| self.sessions.remove(&id));
        }
        let session = self.sessions.entry(id).or_default();
        session.used = now;
        if session.look_again <= now {
            (session.looked, session.look_again) = (0, now + LOOK_AGAIN);
        }
        session
    }

    fn provides(&mut self, now: Instant, session: SessionId, peer: SocketAddr) {
        let session = self.session(now, session);
        if session.providers.len() < MAX_PROVIDERS || session.providers.contains_key(&peer) {
            session.providers.insert(peer, 0);
        }
    }

    fn want(&mut self, now: Instant, id: WantId, session: SessionId, cid: &Cid) -> Result<(), InputError> {
        if self.wants.len() >= MAX_WANTS {
            return Err(InputError::TooManyWants);
        }
        if self.wants.contains_key(&id) {
            return Err(InputError::KnownWant);
        }
        self.session(now, session);
        let want = Want {
            cid: cid.clone(),
            session,
            tried: BTreeMap::new(),
            requests: BTreeSet::new(),
            questions: 0,
            blocks: 0,
            allowed: 1,
            width: FIRST_WIDTH,
            hedge_at: now + HEDGE,
            patience: PATIENCE,
            deadline: now + DEADLINE,
            again_at: None,
            unanswered: false,
        };
        self.wants.insert(id, want);
        Ok(())
    }

    /// Takes a request off the books.
    fn close(&mut self, id: RequestId) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        let want = self.wants.get_mut(&request.want);
        match request.ask {
            Ask::Have => self.questions = self.questions.saturating_sub(1),
            Ask::Block => {
                self.blocks = self.blocks.saturating_sub(1);
                if let Some(peer) = self.peers.get_mut(&request.peer) {
                    peer.in_flight = peer.in_flight.saturating_sub(1);
                }
            }
        }
        if let Some(want) = want {
            want.requests.remove(&id);
            match request.ask {
                Ask::Have => want.questions = want.questions.saturating_sub(1),
                Ask::Block => want.blocks = want.blocks.saturating_sub(1),
            }
        }
        Some(request)
    }

    /// Ends a want and what was asked for it. Whether others have a block that came is still of
    /// interest: its session needs them for the next ones.
    fn end(&mut self, now: Instant, id: WantId, result: Option<Result<(), Missing>>) {
        let Some(want) = self.wants.get(&id) else { return };
        let came = result == Some(Ok(()));
        for request in want.requests.clone() {
            let of_use = self.requests.get(&request).is_some_and(|r| r.ask == Ask::Have);
            if of_use && came {
                continue;
            }
            let closed = self.close(request);
            self.out.push_back(Output::Abort(request));
            // a node that lets others outrun it and gives nothing at all stalls
            let Some(outrun) = closed.filter(|r| came && r.sent + HEDGE <= now) else { continue };
            let spread = self.random();
            if let Some(peer) = self.peers.get_mut(&outrun.peer).filter(|p| p.gave_at < Some(outrun.sent)) {
                peer.outrun(now, spread);
            }
        }
        self.wants.remove(&id);
        if let Some(result) = result {
            self.out.push_back(Output::Done { want: id, result });
        }
    }

    fn answer(&mut self, now: Instant, id: RequestId, answer: Answer) {
        let Some(request) = self.close(id) else { return };
        let took = now.saturating_since(request.sent);
        let session = request.session;
        self.judge(now, &request, answer, took);
        match answer {
            Answer::Block | Answer::Has => {
                self.provides(now, session, request.peer);
                self.session(now, session).blocks += u32::from(answer == Answer::Block);
            }
            Answer::Lied => {
                for session in self.sessions.values_mut() {
                    session.providers.remove(&request.peer);
                }
            }
            Answer::Absent => {
                let providers = &mut self.session(now, session).providers;
                if let Some(misses) = providers.get_mut(&request.peer) {
                    *misses += 1;
                    if *misses >= MISSES {
                        providers.remove(&request.peer);
                    }
                }
            }
            Answer::Failed => {}
        }
        let Some(want) = self.wants.get_mut(&request.want) else { return };
        let before = want.tried.get(&request.peer).copied();
        let tried = match answer {
            Answer::Block => return self.end(now, request.want, Some(Ok(()))),
            Answer::Has => {
                if want.blocks == 0 {
                    want.hedge_at = now + HEDGE;
                }
                Tried::Has
            }
            Answer::Absent => {
                want.width = (want.width + 1).min(MAX_QUESTIONS);
                Tried::Absent
            }
            Answer::Lied => Tried::Lied,
            Answer::Failed => {
                want.unanswered = true;
                match before {
                    Some(Tried::Failed(n)) => Tried::Failed(n.saturating_add(1)),
                    _ => Tried::Failed(1),
                }
            }
        };
        want.tried.insert(request.peer, tried);
    }

    /// What an answer says about the node that gave it.
    fn judge(&mut self, now: Instant, request: &Request, answer: Answer, took: Duration) {
        let spread = self.random();
        let Some(peer) = self.peers.get_mut(&request.peer) else { return };
        match answer {
            Answer::Block => peer.gave(now, took),
            Answer::Has | Answer::Absent => peer.answered(),
            Answer::Failed => peer.failed(now, request.ask, spread),
            Answer::Lied => peer.lied(now),
        }
    }

    /// SplitMix64.
    const fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Asks whoever is to be asked now, for the oldest want first.
    fn schedule(&mut self, now: Instant) {
        let wants: Vec<WantId> = self.wants.keys().copied().collect();
        // of each session one want searches; the others profit from what it finds
        let mut searching = BTreeSet::new();
        for id in wants {
            if self.wants.get(&id).is_some_and(|want| want.deadline <= now) {
                self.end(now, id, Some(Err(Missing::NoAnswer)));
                continue;
            }
            if let Some(want) = self.wants.get_mut(&id) {
                want.again_at = None;
            }
            while self.ask_next(now, id, &mut searching) {}
        }
        self.look_around(now);
    }

    /// Sessions with few nodes that give their blocks ask some near ones whether they have them, while blocks come.
    fn look_around(&mut self, now: Instant) {
        let mut seen = BTreeSet::new();
        let on_their_way = self.wants.iter().filter(|(_, want)| want.blocks > 0);
        let first: Vec<WantId> =
            on_their_way.filter(|(_, want)| seen.insert(want.session)).map(|(id, _)| *id).collect();
        for id in first {
            while let Some(peer) = self.whom_to_look_at(now, id) {
                self.ask(now, id, peer, Ask::Have);
            }
        }
    }

    fn whom_to_look_at(&self, now: Instant, id: WantId) -> Option<SocketAddr> {
        let want = self.wants.get(&id)?;
        let session = self.sessions.get(&want.session)?;
        let late = want.allowed > 1;
        let asked =
            self.requests.values().filter(|r| r.session == want.session && r.ask == Ask::Have).count();
        if session.looked >= LOOKS
            || (session.blocks < LOOK_AFTER && !late)
            || asked >= FIRST_WIDTH
            || self.questions >= MAX_QUESTIONS
        {
            return None;
        }
        let gives = |address: &&SocketAddr| self.peers.get(*address).is_some_and(|p| p.gives(now));
        if session.providers.keys().filter(gives).count() >= ENOUGH {
            return None;
        }
        let fits = |(address, peer): &(&SocketAddr, &Peer)| {
            (session.looked..LOOKS).contains(&peer.rank)
                && peer.avoid_until <= now
                && !session.providers.contains_key(*address)
                && !want.tried.contains_key(*address)
        };
        let near = self.peers.iter().filter(fits).min_by_key(|(_, peer)| peer.rank);
        near.map(|(address, _)| *address)
    }

    /// Asks one node about a want, if there is one to ask; ends a want for which there is none.
    fn ask_next(&mut self, now: Instant, id: WantId, searching: &mut BTreeSet<SessionId>) -> bool {
        let Some(want) = self.wants.get(&id) else { return false };
        if want.blocks >= want.allowed {
            return false;
        }
        let choice = self.best_provider(now, want);
        // while somebody gives its blocks, a session asks each node once in a while
        let looked = self.sessions.get(&want.session).map_or(0, |session| session.looked);
        let from = if matches!(choice, Choice::Full { gives: true }) { looked } else { 0 };
        let again_at = match choice {
            Choice::Now(peer) => {
                return self.blocks < MAX_BLOCKS && self.ask(now, id, peer, Ask::Block);
            }
            // full windows empty themselves, or their node stalls
            Choice::Full { .. } if now < want.hedge_at => return false,
            Choice::Full { .. } => Some(want.deadline),
            // worth to wait for only while nobody else may have the block
            Choice::Later(when) => Some(when),
            Choice::Nobody => None,
        };
        if searching.contains(&want.session) && want.requests.is_empty() {
            return false;
        }
        let untried = self.next_untried(now, want, from);
        // one that has nobody left to ask does not keep others from it
        if untried.0.is_some() || want.questions > 0 {
            searching.insert(want.session);
        }
        if want.questions >= want.width || self.questions >= MAX_QUESTIONS {
            return false;
        }
        match untried {
            // the only one there is may as well send the block at once
            (Some(peer), false) if want.requests.is_empty() && again_at.is_none() => {
                return self.blocks < MAX_BLOCKS && self.ask(now, id, peer, Ask::Block);
            }
            (Some(peer), _) => return self.ask(now, id, peer, Ask::Have),
            (None, _) => {}
        }
        let over = want.requests.is_empty() && again_at.is_none();
        let why = if want.unanswered { Missing::NoAnswer } else { Missing::NobodyHas };
        if let Some(want) = self.wants.get_mut(&id) {
            want.again_at = again_at;
        }
        if over {
            self.end(now, id, Some(Err(why)));
        }
        false
    }

    /// The provider that should be done with the block first.
    fn best_provider(&self, now: Instant, want: &Want) -> Choice {
        let (mut best, mut full, mut later) = (None, None, None);
        for address in self.candidates(want) {
            let peer = self.peers.get(address).unwrap_or(&Peer::NEW);
            if peer.avoid_until > now {
                // one that is left alone for longer is as good as gone
                let again = Some(peer.avoid_until).filter(|when| *when < want.deadline);
                later = later.into_iter().chain(again).min();
            } else if peer.in_flight >= peer.window {
                full = Some(full.unwrap_or(false) || peer.gives(now));
            } else {
                let rank = (peer.expected(), peer.rank, *address);
                if best.is_none_or(|b| rank < b) {
                    best = Some(rank);
                }
            }
        }
        match (best, full) {
            (Some((_, _, address)), _) => Choice::Now(address),
            (None, Some(gives)) => Choice::Full { gives },
            (None, None) => later.map_or(Choice::Nobody, Choice::Later),
        }
    }

    /// The nearest node from rank `from` on that has not been asked, and whether there are more.
    fn next_untried(&self, now: Instant, want: &Want, from: usize) -> (Option<SocketAddr>, bool) {
        let mut untried = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.in_reach && peer.rank >= from)
            .filter(|(address, _)| !want.tried.contains_key(*address))
            .map(|(address, peer)| ((peer.avoid_until > now, peer.rank), *address));
        let Some(first) = untried.next() else { return (None, false) };
        let (mut best, mut more) = (first, false);
        for other in untried {
            more = true;
            best = best.min(other);
        }
        (Some(best.1), more)
    }

    fn ask(&mut self, now: Instant, id: WantId, address: SocketAddr, ask: Ask) -> bool {
        let Some(want) = self.wants.get_mut(&id) else { return false };
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let peer = self.peers.entry(address).or_insert(Peer::NEW);
        let patience = match ask {
            Ask::Have => {
                want.questions += 1;
                self.questions += 1;
                if let Some(session) = self.sessions.get_mut(&want.session).filter(|_| peer.in_reach) {
                    session.looked = session.looked.max(peer.rank + 1);
                }
                QUESTION
            }
            Ask::Block => {
                want.blocks += 1;
                self.blocks += 1;
                peer.in_flight += 1;
                want.allowed = want.allowed.min(want.blocks);
                // late is what takes much longer than it took before
                let usual = peer.takes.map_or(HEDGE, |takes| takes.times(4)).max(HEDGE);
                want.hedge_at = now + usual;
                BLOCK
            }
        };
        if !matches!(want.tried.get(&address), Some(Tried::Failed(_))) {
            want.tried.insert(address, Tried::Waiting);
        }
        want.again_at = None;
        if want.requests.is_empty() {
            want.hedge_at = want.hedge_at.max(now + HEDGE);
        }
        want.requests.insert(request);
        let expires = now + patience;
        let (session, cid) = (want.session, want.cid.clone());
        self.requests.insert(request, Request { want: id, session, peer: address, ask, sent: now, expires });
        self.out.push_back(Output::Ask { request, peer: address, cid, ask });
        true
    }
}

/// Whom to ask for a block.
enum Choice {
    Now(SocketAddr),
    /// Providers have as much to do as they may; some of them give blocks.
    Full {
        gives: bool,
    },
    /// Providers are left alone until then.
    Later(Instant),
    Nobody,
}

#[cfg(test)]
mod tests;

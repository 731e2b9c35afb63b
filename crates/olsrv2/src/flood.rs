//! Which messages were seen before: Processed, Received and Forwarded Sets (RFC 7181 §10, §14), in one
//! table.
//!
//! With one message in memory for each TC of the hold time it is a large part of what a mesh costs, so it is packed: what
//! was done with messages is the same for most of them, and is a number.

use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant};
use rfc5444::NetAddr;

use crate::names::{Name, Names, make_room};
use crate::shares::{Giver, Room, Shares};

/// What names a message: type, originator, sequence number.
pub(crate) type MessageKey = (u8, IpAddr, u16);

/// Most messages remembered of one originator: more than one can send in the hold time.
const PER_ORIGINATOR: usize = 512;
/// Most messages: as many states can differ.
const MOST: usize = NO_STATE as usize;

/// All three sets. Entries live for the hold time. When there is no room for another, the older half goes of
/// what the greediest neighbour brought, or of what this one brought if it has its share.
#[derive(Debug)]
pub(crate) struct SeenSet {
    /// By the originator's name, which is held while it has one: its first block.
    heads: Vec<u32>,
    /// A list for each originator, and one of those that are free.
    blocks: Vec<Block>,
    free: u32,
    states: States,
    shares: Shares,
    hold: Duration,
    /// Times are counted in steps of so many bits of a microsecond.
    shift: u32,
    /// When originators of whom nothing comes any more are looked for.
    next_sweep: Instant,
}

/// As many as a router's TCs that are remembered while its mesh is at rest.
const BLOCK: usize = 4;

/// Messages of one originator, in no order.
#[derive(Clone, Copy, Debug)]
struct Block {
    messages: [Message; BLOCK],
    /// The place of the next one.
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    since: u16,
    seq: u16,
    /// Of [`States`]; [`NO_STATE`]: there is no message.
    state: u16,
}

const NOTHING: Message = Message { since: 0, seq: 0, state: NO_STATE };
const NO_STATE: u16 = u16::MAX;
/// No place.
const NOWHERE: u32 = u32::MAX;

/// What was done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    /// A bit for each interface, by [`crate::router::Port::slot`].
    received: u16,
    /// Who brought the first copy.
    giver: Giver,
    kind: u8,
    /// [`PROCESSED`] and [`FORWARDED`].
    done: u8,
}

const PROCESSED: u8 = 1;
const FORWARDED: u8 = 2;

/// States by number, and how many messages are in them: not more differ than there are messages.
#[derive(Debug, Default)]
struct States {
    list: Vec<(State, u32)>,
    /// Numbers in the order of what they stand for.
    sorted: Vec<u16>,
    free: Vec<u16>,
}

impl States {
    fn get(&self, number: u16) -> Option<State> {
        self.list.get(usize::from(number)).map(|(state, _)| *state)
    }

    /// One more message is in that state.
    fn hold(&mut self, state: State) -> u16 {
        let at = match self.search(&state) {
            Ok(at) => {
                let number = self.sorted.get(at).copied().unwrap_or(NO_STATE);
                self.list.get_mut(usize::from(number)).into_iter().for_each(|(_, count)| *count += 1);
                return number;
            }
            Err(at) => at,
        };
        let number = self.free.pop().unwrap_or(self.list.len().min(MOST) as u16);
        match self.list.get_mut(usize::from(number)) {
            Some(slot) => *slot = (state, 1),
            None if number == NO_STATE => return NO_STATE,
            None => self.list.push((state, 1)),
        }
        self.sorted.insert(at, number);
        number
    }

    fn search(&self, state: &State) -> Result<usize, usize> {
        self.sorted.binary_search_by(|number| self.get(*number).as_ref().cmp(&Some(state)))
    }

    /// One less.
    fn release(&mut self, number: u16) {
        let Some((state, count)) = self.list.get_mut(usize::from(number)) else { return };
        *count = count.saturating_sub(1);
        let state = *state;
        if *count == 0
            && let Ok(at) = self.search(&state)
        {
            self.free.push(self.sorted.remove(at));
        }
    }
}

/// What was done with one message, to look at and to change.
pub(crate) struct Seen<'a> {
    set: &'a mut SeenSet,
    at: Place,
    state: State,
}

/// A block and the place in it.
type Place = (u32, usize);

impl Seen<'_> {
    fn change(&mut self, state: State) {
        let SeenSet { blocks, states, .. } = &mut *self.set;
        if self.state != state
            && let Some(message) = message_mut(blocks, self.at)
        {
            states.release(message.state);
            message.state = states.hold(state);
        }
        self.state = state;
    }

    /// It is processed from now on; `false` if it was already.
    pub(crate) fn process(&mut self) -> bool {
        let news = self.state.done & PROCESSED == 0;
        self.change(State { done: self.state.done | PROCESSED, ..self.state });
        news
    }

    /// It was not processed after all.
    pub(crate) fn process_later(&mut self) {
        self.change(State { done: self.state.done & !PROCESSED, ..self.state });
    }

    pub(crate) fn forward(&mut self) {
        self.change(State { done: self.state.done | FORWARDED, ..self.state });
    }

    pub(crate) fn is_forwarded(&self) -> bool {
        self.state.done & FORWARDED != 0
    }

    /// Notes that the message came over that interface; `false` if it had before.
    pub(crate) fn receive(&mut self, slot: u8) -> bool {
        let bit = 1u16.checked_shl(slot.into()).unwrap_or(0);
        let news = self.state.received & bit == 0;
        self.change(State { received: self.state.received | bit, ..self.state });
        news
    }
}

impl SeenSet {
    pub(crate) fn new(hold: Duration, limit: usize) -> Self {
        // Four hold times before a time comes again.
        let shift = (11..63).find(|shift| hold.as_micros() >> shift < 1 << 14).unwrap_or(63);
        Self {
            heads: Vec::new(),
            blocks: Vec::new(),
            free: NOWHERE,
            states: States::default(),
            shares: Shares::new(limit.clamp(2, MOST) as u32),
            hold,
            shift,
            next_sweep: Instant::ZERO,
        }
    }

    /// What was done with a message so far; a new entry if it was never seen. `by`: the neighbour that sent
    /// it now.
    pub(crate) fn entry(
        &mut self,
        names: &mut Names,
        now: Instant,
        (kind, originator, seq): MessageKey,
        by: IpAddr,
    ) -> Seen<'_> {
        if self.next_sweep <= now {
            // What is older than that can't be told from what is young.
            let all = self.next_sweep + self.hold < now;
            self.sweep(names, now, if all { Duration::ZERO } else { self.hold }, None);
            self.next_sweep = now + self.hold;
        }
        let host = NetAddr::host(originator);
        let known = names.find(host);
        let found = known.and_then(|name| {
            let (tick, most) = (self.tick(now), self.steps(self.hold));
            self.release(names, name, |m, _| tick.wrapping_sub(m.since) > most);
            self.messages(name).find(|(_, m, s)| (s.kind, m.seq) == (kind, seq)).map(|(at, _, s)| (at, s))
        });
        let (at, state) = found.unwrap_or_else(|| {
            if self.shares.is_full() {
                let giver = self.shares.giver(by);
                self.make_room(names, now, giver);
            }
            let state = State { received: 0, giver: self.shares.giver(by), kind, done: 0 };
            (self.insert(names, now, host, seq, state), state)
        });
        Seen { set: self, at, state }
    }

    /// Steps in that time.
    fn steps(&self, span: Duration) -> u16 {
        (span.as_micros() >> self.shift).min(u16::MAX.into()) as u16
    }

    fn tick(&self, now: Instant) -> u16 {
        (now.as_micros() >> self.shift) as u16
    }

    /// An originator's messages and where they are.
    fn messages(&self, name: Name) -> impl Iterator<Item = (Place, Message, State)> {
        let (mut at, mut place) = (self.heads.get(name as usize).copied().unwrap_or(NOWHERE), 0);
        core::iter::from_fn(move || {
            loop {
                let block = self.blocks.get(at as usize)?;
                let here = (at, place);
                match block.messages.get(place) {
                    None => (at, place) = (block.next, 0),
                    Some(message) => {
                        place += 1;
                        if let Some(state) = self.states.get(message.state) {
                            return Some((here, *message, state));
                        }
                    }
                }
            }
        })
    }

    fn insert(&mut self, names: &mut Names, now: Instant, host: NetAddr, seq: u16, state: State) -> Place {
        // Held once.
        let known = names.find(host).filter(|n| self.heads.get(*n as usize).is_some_and(|h| *h != NOWHERE));
        let name = known.unwrap_or_else(|| names.hold(host));
        if self.heads.len() < names.len() {
            self.heads.reserve_exact(names.len() - self.heads.len() + names.len() / 16);
            self.heads.resize(names.len(), NOWHERE);
        }
        if self.messages(name).count() >= PER_ORIGINATOR {
            let tick = self.tick(now);
            let oldest = self.messages(name).max_by_key(|(_, m, _)| tick.wrapping_sub(m.since));
            oldest.into_iter().for_each(|(at, ..)| self.forget(at));
        }
        let at = self.room(name);
        let new = Message { since: self.tick(now), seq, state: self.states.hold(state) };
        if let Some(message) = message_mut(&mut self.blocks, at) {
            *message = new;
            self.shares.change(state.giver, 0, 1);
        }
        at
    }

    /// A place for another of an originator's messages.
    fn room(&mut self, name: Name) -> Place {
        let mut next = self.heads.get(name as usize).copied().unwrap_or(NOWHERE);
        while let Some(block) = self.blocks.get(next as usize) {
            if let Some(at) = block.messages.iter().position(|m| m.state == NO_STATE) {
                return (next, at);
            }
            next = block.next;
        }
        let Some(head) = self.heads.get_mut(name as usize) else { return (NOWHERE, 0) };
        let new = Block { messages: [NOTHING; BLOCK], next: *head };
        *head = match self.blocks.get_mut(self.free as usize) {
            Some(block) => {
                let place = core::mem::replace(&mut self.free, block.next);
                *block = new;
                place
            }
            None => {
                make_room(&mut self.blocks);
                self.blocks.push(new);
                (self.blocks.len() - 1) as u32
            }
        };
        (*head, 0)
    }

    /// How many messages of the same type and originator came in the last `window` first by the neighbour that
    /// brought this one first.
    pub(crate) fn lately(
        &self,
        names: &Names,
        now: Instant,
        (kind, originator, seq): MessageKey,
        window: Duration,
    ) -> usize {
        let Some(name) = names.find(NetAddr::host(originator)) else { return 0 };
        let list = || self.messages(name).filter(|(_, _, s)| s.kind == kind);
        let giver = list().find(|(_, m, _)| m.seq == seq).map(|(_, _, s)| s.giver);
        let (tick, most) = (self.tick(now), self.steps(window));
        list().filter(|(_, m, s)| Some(s.giver) == giver && tick.wrapping_sub(m.since) <= most).count()
    }

    fn make_room(&mut self, names: &mut Names, now: Instant, giver: Giver) {
        let from = match self.shares.room(giver, 1, false, |_| true) {
            Room::Free => return,
            Room::From { giver, .. } => Some(giver),
            Room::Refused => Some(giver).filter(|g| self.shares.has_its_share(*g)),
        };
        let mut hold = self.hold;
        while self.shares.is_full() && hold > Duration::ZERO {
            hold = hold.divided_by(2);
            self.sweep(names, now, hold, from);
        }
    }

    /// Forgets what is older than `hold`, of what one neighbour brought or of all.
    fn sweep(&mut self, names: &mut Names, now: Instant, hold: Duration, from: Option<Giver>) {
        let (tick, most) = (self.tick(now), self.steps(hold));
        for name in 0..self.heads.len() as Name {
            self.release(names, name, |m, s| {
                let old = tick.wrapping_sub(m.since) > most || hold == Duration::ZERO;
                old && from.is_none_or(|g| s.giver == g)
            });
        }
        self.pack();
    }

    /// After a flood most places may be free.
    fn pack(&mut self) {
        let used = self.shares.used() as usize;
        if self.blocks.len() / 2 <= used / BLOCK + self.heads.iter().filter(|h| **h != NOWHERE).count() {
            return;
        }
        let old = core::mem::take(&mut self.blocks);
        self.free = NOWHERE;
        for name in 0..self.heads.len() {
            let head = self.heads.get_mut(name).map(|h| core::mem::replace(h, NOWHERE));
            let mut next = head.unwrap_or(NOWHERE);
            while let Some(block) = old.get(next as usize) {
                for message in block.messages.iter().filter(|m| m.state != NO_STATE) {
                    let at = self.room(name as Name);
                    message_mut(&mut self.blocks, at).into_iter().for_each(|m| *m = *message);
                }
                next = block.next;
            }
        }
    }

    /// A message is forgotten; its place is free.
    fn forget(&mut self, at: Place) {
        let Some(message) = message_mut(&mut self.blocks, at) else { return };
        let state = core::mem::replace(message, NOTHING).state;
        if let Some(State { giver, .. }) = self.states.get(state) {
            self.shares.change(giver, 1, 0);
            self.states.release(state);
        }
    }

    /// Forgets those of an originator that are to go.
    fn release(&mut self, names: &mut Names, name: Name, goes: impl Fn(&Message, &State) -> bool) {
        let mut before = NOWHERE;
        let mut at = self.heads.get(name as usize).copied().unwrap_or(NOWHERE);
        let some = at != NOWHERE;
        while let Some(block) = self.blocks.get(at as usize).copied() {
            let mut empty = true;
            for (place, message) in block.messages.iter().enumerate() {
                let Some(state) = self.states.get(message.state) else { continue };
                match goes(message, &state) {
                    true => self.forget((at, place)),
                    false => empty = false,
                }
            }
            if empty && let Some(left) = self.blocks.get_mut(at as usize) {
                left.next = core::mem::replace(&mut self.free, at);
                let link = match self.blocks.get_mut(before as usize) {
                    Some(block) => Some(&mut block.next),
                    None => self.heads.get_mut(name as usize),
                };
                link.into_iter().for_each(|link| *link = block.next);
            } else {
                before = at;
            }
            at = block.next;
        }
        if some && self.heads.get(name as usize) == Some(&NOWHERE) {
            names.release(name);
        }
    }

    /// An interface is gone: its Received Set, too.
    pub(crate) fn forget_interface(&mut self, slot: u8) {
        let bit = 1u16.checked_shl(slot.into()).unwrap_or(0);
        for message in self.blocks.iter_mut().flat_map(|block| &mut block.messages) {
            let state = self.states.get(message.state).filter(|s| s.received & bit != 0);
            if let Some(state) = state {
                self.states.release(message.state);
                message.state = self.states.hold(State { received: state.received & !bit, ..state });
            }
        }
    }

    /// Octets on the heap.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        4 * self.heads.capacity() + size_of::<Block>() * self.blocks.capacity()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        (0..self.heads.len() as Name).map(|name| self.messages(name).count()).sum()
    }
}

fn message_mut(blocks: &mut [Block], (block, at): Place) -> Option<&mut Message> {
    blocks.get_mut(block as usize)?.messages.get_mut(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seq: u16) -> MessageKey {
        (1, IpAddr::from([10, 0, 0, 1]), seq)
    }

    const BY: IpAddr = IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED);

    /// The set, and names as they are held for it.
    struct Set(SeenSet, Names);

    impl Set {
        fn new(limit: usize) -> Self {
            Self(SeenSet::new(Duration::from_secs(30), limit), Names::default())
        }
        fn entry(&mut self, now: Instant, key: MessageKey, by: IpAddr) -> Seen<'_> {
            self.0.entry(&mut self.1, now, key, by)
        }
        fn len(&self) -> usize {
            assert_eq!(self.0.len(), self.0.shares.used() as usize);
            assert_eq!(self.0.states.list.iter().map(|(_, n)| *n as usize).sum::<usize>(), self.0.len());
            self.0.len()
        }
        fn lately(&self, now: Instant, key: MessageKey, window: Duration) -> usize {
            self.0.lately(&self.1, now, key, window)
        }
    }

    fn process(set: &mut Set, millis: u64, seq: u16) -> bool {
        set.entry(Instant::from_millis(millis), key(seq), BY).process()
    }

    #[test]
    fn rfc7181_10_entries_expire_and_are_bounded() {
        let mut set = Set::new(8);
        assert!(process(&mut set, 0, 1));
        assert!(!process(&mut set, 29_990, 1));
        assert!(process(&mut set, 30_100, 1));
        for seq in 2..100 {
            assert!(process(&mut set, 30_000 + 100 * u64::from(seq), seq));
            assert!(set.len() <= 8);
        }
        assert!(!process(&mut set, 40_000, 99));
        assert!(process(&mut set, 40_000, 2));
        for n in 0..100 {
            set.entry(Instant::from_millis(40_000), (1, IpAddr::from([10, 0, 1, n]), 1), BY);
            assert!(set.len() <= 8, "all at one instant");
        }
    }

    #[test]
    fn rfc7181_10_received_sets_are_per_interface() {
        let mut set = Set::new(8);
        let mut seen = set.entry(Instant::ZERO, key(1), BY);
        assert!(seen.receive(0) && seen.receive(15) && !seen.receive(0));
        set.0.forget_interface(0);
        let mut seen = set.entry(Instant::ZERO, key(1), BY);
        assert!(seen.receive(0) && !seen.receive(15));
    }

    fn ip(a: u8, n: u16) -> IpAddr {
        let [high, low] = n.to_be_bytes();
        IpAddr::from([10, a, high, low])
    }

    #[test]
    fn rfc7181_14_a_flood_of_one_neighbours_makes_nothing_seen_twice_that_others_brought() {
        let mut set = Set::new(1600);
        let real = |n: u16| (1, ip(1, n), 7);
        for n in 0..50 {
            assert!(set.entry(Instant::from_millis(n.into()), real(n), ip(0, 1)).process());
        }
        for n in 0..20_000u16 {
            let now = Instant::from_millis(100 + u64::from(n / 10));
            assert!(set.entry(now, (1, ip(2, n / 3), n), ip(0, 2)).process());
            assert!(set.len() <= 1600);
        }
        for n in 0..100 {
            let news = set.entry(Instant::from_millis(3000), real(n), ip(0, 3)).process();
            assert_eq!(news, n >= 50, "{n}");
        }
        assert!(set.len() <= 1600);
    }

    #[test]
    fn rfc7181_10_one_originator_has_a_bounded_list() {
        let mut set = Set::new(65_536);
        for seq in 0..10_000 {
            assert!(process(&mut set, 1, seq));
        }
        assert_eq!(set.len(), PER_ORIGINATOR);
    }

    #[test]
    fn messages_of_one_originator_are_counted_for_each_neighbour_that_brings_them() {
        let mut set = Set::new(1000);
        let window = Duration::from_secs(10);
        for seq in 0..30u16 {
            let at = Instant::from_millis(u64::from(seq) * 1000);
            set.entry(at, key(seq), ip(0, seq % 3));
            assert_eq!(set.lately(at, key(seq), window), usize::from(seq / 3 + 1).min(4), "{seq}");
        }
        assert_eq!(set.lately(Instant::from_millis(30_000), (2, ip(0, 1), 1), window), 0);
    }

    #[test]
    fn who_has_no_message_left_has_no_name_and_a_long_silence_is_one() {
        let mut set = Set::new(1000);
        for n in 0..200 {
            set.entry(Instant::from_millis(n.into()), (1, ip(1, n), 7), BY).process();
        }
        // As old as if it had just come, if one counts steps alone.
        let again = (1u64 << 16 << set.0.shift) / 1000;
        assert!(set.entry(Instant::from_millis(again + 5), (1, ip(1, 5), 7), BY).process());
        assert_eq!(set.len(), 1);
        set.1.sweep();
        assert_eq!(set.1.iter().count(), 1);
        for n in 0..200 {
            set.entry(Instant::from_millis(again + 1000), (1, ip(2, n), 7), BY).process();
        }
        assert_eq!((set.len(), set.0.states.list.len()), (201, 2));
    }
}

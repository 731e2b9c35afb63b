//! Who may fill a table (docs/decisions/0005-places.md): places are held by the neighbour that brought what
//! stands there.
//!
//! While there is room everyone is let in. When there is none, each neighbour has a share of its own, one
//! [`PARTS`]th, that nothing of what others bring can touch. What it holds beyond is lent: it goes, the
//! youngest first, when a neighbour that has less than its share needs room.

use alloc::vec::Vec;
use core::net::IpAddr;

/// Shares of a table. So few that one neighbour's is large enough for all nodes behind it in any mesh that
/// half fills the table, so many that it takes as many greedy neighbours to leave no room for another.
const PARTS: u32 = 16;

/// The number of a neighbour in a table, for as long as it holds something there.
pub(crate) type Giver = u16;

#[derive(Clone, Copy, Debug)]
struct Holder {
    neighbor: IpAddr,
    weight: u32,
}

/// How a table's places are held.
#[derive(Debug)]
pub(crate) struct Shares {
    holders: Vec<Holder>,
    used: u32,
    capacity: u32,
}

/// Whether something may be put into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is room.
    Free,
    /// If that much weight of what this one brought goes at least, the youngest first; at most so much may go.
    From { giver: Giver, least: u32, most: u32 },
    /// Whoever brings it has its share.
    Refused,
}

impl Shares {
    pub(crate) fn new(capacity: u32) -> Self {
        Self { holders: Vec::new(), used: 0, capacity }
    }

    /// What a neighbour may always hold.
    pub(crate) fn share(&self) -> u32 {
        self.capacity / PARTS
    }

    /// Three quarters of the table are in use: worth the while to look closely.
    pub(crate) fn crowded(&self) -> bool {
        self.used >= self.capacity / 4 * 3
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used >= self.capacity
    }

    /// The number of a neighbour; it lasts while the neighbour holds something.
    pub(crate) fn giver(&mut self, neighbor: IpAddr) -> Giver {
        let position = |is: &dyn Fn(&Holder) -> bool| self.holders.iter().position(is);
        if let Some(at) = position(&|h| h.neighbor == neighbor) {
            return at as Giver;
        }
        let free = position(&|h| h.weight == 0);
        // With more neighbours than there are numbers some share the last one.
        let at = free.unwrap_or(self.holders.len().min(usize::from(Giver::MAX)));
        let holder = Holder { neighbor, weight: 0 };
        match self.holders.get_mut(at) {
            Some(slot) if free.is_some() => *slot = holder,
            Some(_) => {}
            None => self.holders.push(holder),
        }
        at as Giver
    }

    fn weight(&self, giver: Giver) -> u32 {
        self.holders.get(usize::from(giver)).map_or(0, |h| h.weight)
    }

    /// It holds more than its share.
    pub(crate) fn is_greedy(&self, giver: Giver) -> bool {
        self.weight(giver) > self.share()
    }

    /// It holds all of its share or more.
    pub(crate) fn has_its_share(&self, giver: Giver) -> bool {
        self.weight(giver) >= self.share()
    }

    /// Whether the neighbour is one of `alive`.
    pub(crate) fn is_alive(&self, giver: Giver, alive: impl Fn(IpAddr) -> bool) -> bool {
        self.holders.get(usize::from(giver)).is_some_and(|h| alive(h.neighbor))
    }

    /// It has room for that much within half its share: the other half is for what it alone brings.
    pub(crate) fn can_vouch(&self, giver: Giver, weight: u32) -> bool {
        self.weight(giver).saturating_add(weight) <= self.share() / 2
    }

    /// Whether `weight` more has room. `own`: it is the neighbour's own word, which counts whatever else it
    /// brought. A neighbour that is not `alive` any more has no share.
    pub(crate) fn room(&self, giver: Giver, weight: u32, own: bool, alive: impl Fn(IpAddr) -> bool) -> Room {
        let least = self.used.saturating_add(weight).saturating_sub(self.capacity);
        if least == 0 {
            return Room::Free;
        }
        if !own && self.weight(giver).saturating_add(weight) > self.share() {
            return Room::Refused;
        }
        let surplus = |h: &Holder| h.weight.saturating_sub(if alive(h.neighbor) { self.share() } else { 0 });
        let greediest = (0..=Giver::MAX).zip(&self.holders).map(|(giver, h)| (surplus(h), giver)).max();
        match greediest {
            Some((most, giver)) if most >= least => Room::From { giver, least, most },
            _ => Room::Refused,
        }
    }

    /// Something of `giver`'s weighs more or less than before.
    pub(crate) fn change(&mut self, giver: Giver, before: u32, after: u32) {
        let adjust = |n: u32| n.saturating_sub(before).saturating_add(after);
        self.used = adjust(self.used);
        if let Some(holder) = self.holders.get_mut(usize::from(giver)) {
            holder.weight = adjust(holder.weight);
        }
    }

    /// The weight of all there is.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn room_comes_from_whoever_has_most_beyond_its_share() {
        let mut shares = Shares::new(160);
        let all = |_: IpAddr| true;
        assert_eq!(shares.giver(ip(9)), 0);
        let a = shares.giver(ip(1));
        assert_eq!(a, 0, "who holds nothing keeps no number");
        shares.change(a, 0, 100);
        let b = shares.giver(ip(2));
        shares.change(b, 0, 55);
        let c = shares.giver(ip(3));
        assert_eq!(shares.room(c, 5, false, all), Room::Free);
        assert_eq!(shares.room(c, 6, false, all), Room::From { giver: a, least: 1, most: 90 });
        assert_eq!(shares.room(c, 11, false, all), Room::Refused, "more than its share");
        assert_eq!(shares.room(a, 6, false, all), Room::Refused);
        assert_eq!(shares.room(a, 6, true, all), Room::From { giver: a, least: 1, most: 90 });
        assert_eq!(
            shares.room(c, 6, false, |n| n == ip(1)),
            Room::From { giver: a, least: 1, most: 90 },
            "still the most"
        );
        shares.change(a, 100, 10);
        shares.change(c, 0, 90);
        assert!(shares.is_greedy(c) && !shares.is_greedy(a) && shares.crowded());
    }

    #[test]
    fn nobody_within_its_share_makes_room_unless_it_is_gone() {
        let mut shares = Shares::new(160);
        for n in 0..16 {
            let giver = shares.giver(ip(n));
            shares.change(giver, 0, 10);
        }
        let late = shares.giver(ip(99));
        assert_eq!(shares.room(late, 1, false, |_| true), Room::Refused);
        assert_eq!(shares.room(late, 1, false, |n| n != ip(7)), Room::From { giver: 7, least: 1, most: 10 });
        assert_eq!(shares.used(), 160);
    }
}

//! The boot state: which slot first, how many tries each has left; two copies of it, and every change.

use alloc::format;
use alloc::vec::Vec;
use core::fmt;

use crate::sector::{SECTOR, SectorError, Vars};

/// Tries a slot has before the boot script passes it over.
pub const MAX_TRIES: u32 = 3;
/// Where the two copies are, in sectors of 512 bytes.
pub const COPY_LBA: [u64; 2] = [0x2000, 0x4000];

/// One of the two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// Partition 2.
    A,
    /// Partition 3.
    B,
}

impl Slot {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
    /// `A` or `B` as the kernel's command line names it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "A" => Some(Self::A),
            "B" => Some(Self::B),
            _ => None,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// What one copy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootState {
    /// Grows by one with every write; of two valid copies the larger counts.
    pub seq: u64,
    /// Slots in the order in which they are tried; at most two.
    pub order: Vec<Slot>,
    /// Tries left of slot A.
    pub a_left: u32,
    /// Tries left of slot B.
    pub b_left: u32,
}

impl Default for BootState {
    /// What the script assumes where no copy is valid.
    fn default() -> Self {
        Self { seq: 0, order: [Slot::A, Slot::B].into(), a_left: MAX_TRIES, b_left: MAX_TRIES }
    }
}

impl BootState {
    /// Reads a copy; keys other than the sequence number have the script's defaults.
    ///
    /// # Errors
    /// The sector's, and [`SectorError::Key`] without a sequence number.
    pub fn parse(sector: &[u8; SECTOR]) -> Result<Self, SectorError> {
        let vars = Vars::parse(sector)?;
        let default = Self::default();
        let left = |key| vars.number(key).map_or(MAX_TRIES, |n| u32::try_from(n).unwrap_or(u32::MAX));
        // To the script every word that is not "A" is slot B.
        let named = |w| if w == "A" { Slot::A } else { Slot::B };
        let order = match vars.get("BOOT_ORDER").filter(|t| !t.is_empty()) {
            None => default.order,
            Some(text) => {
                let mut order: Vec<Slot> = Vec::new();
                for slot in text.split_whitespace().map(named) {
                    if !order.contains(&slot) {
                        order.push(slot);
                    }
                }
                // Nothing but spaces: the script would boot nothing, so this never comes from a boot.
                if order.is_empty() { default.order } else { order }
            }
        };
        let seq = vars.number("BS_SEQ").ok_or(SectorError::Key("BS_SEQ"))?;
        Ok(Self { seq, order, a_left: left("BOOT_A_LEFT"), b_left: left("BOOT_B_LEFT") })
    }

    /// Writes a copy as the script's `env export` does.
    pub fn encode(&self) -> Result<[u8; SECTOR], SectorError> {
        let mut vars = Vars::default();
        vars.set("BS_SEQ", &format!("{:x}", self.seq));
        vars.set("BOOT_ORDER", &self.order_text());
        vars.set("BOOT_A_LEFT", &format!("{:x}", self.a_left));
        vars.set("BOOT_B_LEFT", &format!("{:x}", self.b_left));
        vars.encode()
    }

    /// The order as text, `A B`.
    pub fn order_text(&self) -> alloc::string::String {
        match self.order.as_slice() {
            [] => "A B".into(),
            [one] => format!("{one}"),
            [one, two, ..] => format!("{one} {two}"),
        }
    }

    /// Tries left of a slot.
    pub const fn left(&self, slot: Slot) -> u32 {
        match slot {
            Slot::A => self.a_left,
            Slot::B => self.b_left,
        }
    }

    fn with_left(mut self, slot: Slot, left: u32) -> Self {
        match slot {
            Slot::A => self.a_left = left,
            Slot::B => self.b_left = left,
        }
        self
    }

    fn next(mut self) -> Self {
        self.seq = self.seq.saturating_add(1);
        self
    }

    /// Whether [`BootState::confirmed`] would change nothing.
    pub const fn is_confirmed(&self, slot: Slot) -> bool {
        self.left(slot) >= MAX_TRIES
    }

    /// After `slot` proved good: all its tries are back. The order stays.
    #[must_use]
    pub fn confirmed(self, slot: Slot) -> Self {
        self.with_left(slot, MAX_TRIES).next()
    }

    /// After `slot` proved bad, or before it is overwritten: it is not tried any more.
    #[must_use]
    pub fn marked_bad(self, slot: Slot) -> Self {
        self.with_left(slot, 0).next()
    }

    /// `slot` is tried first from the next boot on, with all its tries; the other one is its fallback.
    #[must_use]
    pub fn activated(mut self, slot: Slot) -> Self {
        self.order = [slot, slot.other()].into();
        self.with_left(slot, MAX_TRIES).next()
    }

    /// Back to the slot that does not run, if it has a valid header.
    ///
    /// # Errors
    /// [`RollbackError`] if there is nothing to go back to.
    pub fn rolled_back(self, running: Slot, other_header_valid: bool) -> Result<Self, RollbackError> {
        let other = running.other();
        if other_header_valid { Ok(self.activated(other)) } else { Err(RollbackError(other)) }
    }
}

/// The slot to go back to holds no system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollbackError(pub Slot);

impl fmt::Display for RollbackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "slot {} holds no valid system, so there is nothing to go back to; nothing was changed. \
             Install a system there first, or flash the card",
            self.0
        )
    }
}

impl core::error::Error for RollbackError {}

/// One of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// At the first of [`COPY_LBA`].
    First,
    /// At the second.
    Second,
}

impl Copy {
    /// Where it is, in sectors.
    pub const fn lba(self) -> u64 {
        match self {
            Self::First => COPY_LBA[0],
            Self::Second => COPY_LBA[1],
        }
    }
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// A copy as read.
pub type CopyState = Result<BootState, SectorError>;

/// Both copies as read, and which one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copies {
    /// The state that counts: the newest valid copy's, or the defaults.
    pub state: BootState,
    /// Where the next state goes: the copy that does not count.
    pub write_to: Copy,
    /// Both copies, first and second.
    pub copies: [CopyState; 2],
}

/// Reads both copies; the newest valid one counts, the first one if they are of an age.
pub fn read_copies(first: &[u8; SECTOR], second: &[u8; SECTOR]) -> Copies {
    let copies = [BootState::parse(first), BootState::parse(second)];
    let (state, write_to) = match &copies {
        [Ok(a), Ok(b)] if b.seq > a.seq => (b.clone(), Copy::First),
        [Ok(a), _] => (a.clone(), Copy::Second),
        [Err(_), Ok(b)] => (b.clone(), Copy::First),
        [Err(_), Err(_)] => (BootState::default(), Copy::Second),
    };
    Copies { state, write_to, copies }
}

/// What the boot script does with a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The slot it boots; `None`: it refills the tries and resets.
    pub slot: Option<Slot>,
    /// The state it writes before it boots.
    pub after: BootState,
}

/// The boot script's decision, for tests and for telling what the next boot will do. `bootable` says
/// whether header, kernel and initramfs of a slot are whole.
pub fn pick(state: &BootState, bootable: impl Fn(Slot) -> bool) -> Pick {
    let mut after = state.clone();
    let mut picked = None;
    for &slot in &state.order {
        if picked.is_some() || after.left(slot) == 0 {
            continue;
        }
        if bootable(slot) {
            picked = Some(slot);
        } else {
            after = after.with_left(slot, 0);
        }
    }
    after = match picked {
        Some(slot) => {
            let left = after.left(slot) - 1;
            after.with_left(slot, left)
        }
        // An order that names only a bad slot must not keep the other from being tried.
        None => BootState { seq: after.seq, ..BootState::default() },
    };
    Pick { slot: picked, after: after.next() }
}

#[cfg(test)]
mod tests {
    use super::Slot::{A, B};
    use super::*;
    use proptest::prelude::*;

    fn state(seq: u64, order: &[Slot], a_left: u32, b_left: u32) -> BootState {
        BootState { seq, order: order.into(), a_left, b_left }
    }

    #[test]
    fn the_newest_valid_copy_counts_and_the_other_is_written() {
        let garbage = [0xa5; SECTOR];
        let empty = [0; SECTOR];
        let s = |seq| state(seq, &[A, B], 3, 3).encode().unwrap();
        for (first, second, seq, write_to) in [
            (s(1), s(2), 2, Copy::First),
            (s(2), s(1), 2, Copy::Second),
            (s(7), s(7), 7, Copy::Second),
            (s(0x0f), s(0x10), 0x10, Copy::First),
            (s(9), garbage, 9, Copy::Second),
            (garbage, s(9), 9, Copy::First),
            (s(0), empty, 0, Copy::Second),
            (empty, garbage, 0, Copy::Second),
        ] {
            let read = read_copies(&first, &second);
            assert_eq!((read.state.seq, read.write_to), (seq, write_to));
        }
    }

    /// The whole transition table: state in, what is done, state out.
    #[test]
    fn every_transition() {
        let from = state(5, &[A, B], 1, 2);
        assert_eq!(from.clone().confirmed(A), state(6, &[A, B], 3, 2));
        assert_eq!(from.clone().confirmed(B), state(6, &[A, B], 1, 3));
        assert_eq!(from.clone().marked_bad(A), state(6, &[A, B], 0, 2));
        assert_eq!(from.clone().activated(B), state(6, &[B, A], 1, 3));
        assert_eq!(from.clone().activated(A), state(6, &[A, B], 3, 2));
        assert_eq!(from.clone().rolled_back(A, true), Ok(state(6, &[B, A], 1, 3)));
        assert_eq!(from.clone().rolled_back(B, true), Ok(state(6, &[A, B], 3, 2)));
        assert_eq!(from.rolled_back(A, false), Err(RollbackError(B)));
    }

    #[test]
    fn the_script_picks() {
        let all = |_| true;
        let only = |s| move |x| x == s;
        for (from, bootable, slot, after) in [
            (state(0, &[A, B], 3, 3), &all as &dyn Fn(Slot) -> bool, Some(A), state(1, &[A, B], 2, 3)),
            (state(0, &[B, A], 3, 3), &all, Some(B), state(1, &[B, A], 3, 2)),
            (state(0, &[A, B], 0, 3), &all, Some(B), state(1, &[A, B], 0, 2)),
            (state(0, &[A, B], 0, 0), &all, None, state(1, &[A, B], 3, 3)),
            (state(0, &[A, B], 3, 3), &only(B), Some(B), state(1, &[A, B], 0, 2)),
            (state(0, &[A, B], 3, 0), &only(B), None, state(1, &[A, B], 3, 3)),
            (state(0, &[B], 3, 0), &all, None, state(1, &[A, B], 3, 3)),
        ] {
            assert_eq!(pick(&from, bootable), Pick { slot, after }, "{from:?}");
        }
    }

    #[test]
    fn a_slot_that_never_proves_good_loses_to_the_other_after_three_tries() {
        let mut s = state(0, &[A, B], 3, 3).activated(B);
        let mut booted = Vec::new();
        for _ in 0..5 {
            let p = pick(&s, |_| true);
            booted.push(p.slot.unwrap());
            s = p.after;
            if p.slot == Some(A) {
                s = s.confirmed(A); // only A's gate ever opens
            }
        }
        assert_eq!(booted, [B, B, B, A, A]);
    }

    #[test]
    fn odd_values_are_read_as_the_script_reads_them() {
        let read = |pairs: &[(&str, &str)]| {
            let mut vars = Vars::default();
            for (k, v) in pairs {
                vars.set(k, v);
            }
            BootState::parse(&vars.encode().unwrap())
        };
        assert_eq!(read(&[("BS_SEQ", "a")]), Ok(state(10, &[A, B], 3, 3)));
        assert_eq!(read(&[("BOOT_ORDER", "A B")]), Err(SectorError::Key("BS_SEQ")));
        assert_eq!(
            read(&[
                ("BS_SEQ", "1"),
                ("BOOT_ORDER", "X A B A"),
                ("BOOT_A_LEFT", "zz"),
                ("BOOT_B_LEFT", "fffffffff")
            ]),
            Ok(state(1, &[B, A], 0, u32::MAX))
        );
        assert_eq!(read(&[("BS_SEQ", "1"), ("BOOT_ORDER", "  ")]), Ok(state(1, &[A, B], 3, 3)));
    }

    prop_compose! {
        fn any_state()(seq in 0u64..1 << 40, b_first: bool, a in 0u32..4, b in 0u32..4) -> BootState {
            state(seq, if b_first { &[B, A] } else { &[A, B] }, a, b)
        }
    }

    proptest! {
        #[test]
        fn states_round_trip(s in any_state()) {
            prop_assert_eq!(BootState::parse(&s.encode().unwrap()), Ok(s));
        }

        /// A write cut off after any byte leaves the old state or the new one, never anything else.
        #[test]
        fn a_torn_write_is_the_old_state_or_the_new(old in any_state(), cut in 0usize..=SECTOR, b: bool) {
            let other = state(old.seq.saturating_sub(1), &[A, B], 1, 1).encode().unwrap();
            let copies = if b { [old.encode().unwrap(), other] } else { [other, old.encode().unwrap()] };
            let before = read_copies(&copies[0], &copies[1]);
            let new = before.state.clone().confirmed(A);
            let bytes = new.encode().unwrap();
            let mut torn = copies;
            let target = usize::from(before.write_to == Copy::Second);
            torn[target][..cut].copy_from_slice(&bytes[..cut]);
            let after = read_copies(&torn[0], &torn[1]).state;
            prop_assert!(after == before.state || after == new, "{after:?}");
        }

        /// Whatever the state, the next boot starts a bootable slot or makes the one after it able to.
        #[test]
        fn some_slot_boots_within_two_tries(s in any_state(), a: bool, b: bool) {
            prop_assume!(a || b);
            let bootable = |slot| if slot == A { a } else { b };
            let first = pick(&s, bootable);
            let slot = first.slot.or_else(|| pick(&first.after, bootable).slot);
            prop_assert!(slot.is_some_and(bootable));
        }
    }
}

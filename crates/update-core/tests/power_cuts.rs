//! A card's whole life, with the plug pulled during any write: never a state that is neither old nor new.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::collection::vec;
use proptest::prelude::*;
use update_core::{BootState, Copies, Copy, SECTOR, Slot, pick, read_copies};

#[derive(Clone, Copy, Debug)]
enum Act {
    Boot,
    Confirm,
    Rollback,
}

/// How a write ends.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// All of it arrives.
    No,
    /// Only so many bytes arrive.
    After(usize),
    /// The sector holds nonsense: this byte everywhere.
    Nonsense(u8),
}

fn act() -> impl Strategy<Value = (Act, Cut)> {
    let act = prop_oneof![4 => Just(Act::Boot), 2 => Just(Act::Confirm), 1 => Just(Act::Rollback)];
    let cut = prop_oneof![
        3 => Just(Cut::No),
        2 => (0..SECTOR).prop_map(Cut::After),
        1 => any::<u8>().prop_map(Cut::Nonsense),
    ];
    (act, cut)
}

struct Card {
    copies: [[u8; SECTOR]; 2],
    running: Slot,
}

impl Card {
    fn read(&self) -> Copies {
        read_copies(&self.copies[0], &self.copies[1])
    }

    fn write(&mut self, to: Copy, state: &BootState, cut: Cut) {
        let sector = state.encode().unwrap();
        let target = &mut self.copies[usize::from(to == Copy::Second)];
        match cut {
            Cut::No => *target = sector,
            Cut::After(n) => target[..n].copy_from_slice(&sector[..n]),
            Cut::Nonsense(byte) => *target = [byte; SECTOR],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_cut_leaves_the_old_state_or_the_new(acts in vec(act(), 1..60), only_b: bool) {
        let first = BootState::default();
        let mut card = Card { copies: [first.encode().unwrap(), [0; SECTOR]], running: Slot::A };
        for (act, cut) in acts {
            let before = card.read();
            let wanted = match act {
                Act::Boot => {
                    let picked = pick(&before.state, |s| s == Slot::B || !only_b);
                    if let (Some(slot), Cut::No) = (picked.slot, cut) {
                        card.running = slot;
                    }
                    picked.after
                }
                Act::Confirm => before.state.clone().confirmed(card.running),
                Act::Rollback => before.state.clone().rolled_back(card.running, true).unwrap(),
            };
            card.write(before.write_to, &wanted, cut);
            let after = card.read();
            prop_assert!(after.state == before.state || after.state == wanted, "{act:?} {cut:?}: {after:?}");
            if matches!(cut, Cut::No) {
                prop_assert_eq!(&after.state, &wanted);
            }
            // One copy is always good, so there is always a slot to boot.
            prop_assert!(after.copies.iter().any(Result::is_ok));
            let next = pick(&after.state, |s| s == Slot::B || !only_b);
            let slot = next.slot.or_else(|| pick(&next.after, |s| s == Slot::B || !only_b).slot);
            prop_assert!(slot.is_some());
        }
    }
}

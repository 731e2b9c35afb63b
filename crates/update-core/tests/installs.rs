//! A node that is updated again and again while power fails: during writing, during the changes of the boot state, at
//! boot, while it confirms. It always boots a complete slot, and the one that the story so far asks for.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use update_core::bundle::PartKind;
use update_core::{
    Install, InstallConfig, InstallError, MAX_TRIES, SECTOR, Slot, SlotHeader, crc32, pick, read_state,
    write_state,
};

/// Power cuts to live through. `UPDATE_SEED=N` repeats one seed.
const CUTS: u64 = 10_000;
const SEEDS: u64 = 8;

/// What the boot script checks: header, initramfs, kernel.
fn bootable(disk: &SimDisk, slot: Slot) -> bool {
    let Ok(header) = SlotHeader::parse(on_card(disk, slot, SECTOR)[..].try_into().unwrap()) else {
        return false;
    };
    [header.initramfs, header.kernel].iter().all(|part| {
        let bytes = on_card(disk, slot, part.offset as usize * SECTOR + part.len as usize);
        crc32(&bytes[part.offset as usize * SECTOR..]) == part.crc
    })
}

struct Node {
    disk: SimDisk,
    random: Random,
    cuts: u64,
    /// Of each slot, the release it was last meant to hold, and whether it was installed whole.
    slots: [(u64, bool); 2],
    resumed: u64,
}

fn image(release: u64) -> Vec<u8> {
    small(release)
}

impl Node {
    fn index(slot: Slot) -> usize {
        usize::from(slot == Slot::B)
    }

    fn cut_somewhere(&mut self, most: u64) {
        self.disk.left = Some(self.random.below(most));
    }

    /// Power fails if it was to fail; true if so.
    fn lights_out(&mut self) -> bool {
        let off = self.disk.off;
        if off {
            self.cuts += 1;
        }
        self.disk.left = None;
        off
    }

    /// Boots until a slot runs; power fails during some boots. Returns the slot.
    fn boot(&mut self) -> Slot {
        for _ in 0..100 {
            self.disk.power_on(&mut self.random);
            let copies = read_state(&mut self.disk, |_| false).unwrap();
            assert!(copies.copies.iter().any(Result::is_ok), "one copy of the boot state is always good");
            let picked = pick(&copies.state, |s| bootable(&self.disk, s));
            if self.random.below(6) == 0 {
                self.cut_somewhere(2);
            }
            let written = write_state(&mut self.disk, copies.write_to, &picked.after);
            if self.lights_out() {
                continue;
            }
            written.unwrap();
            let Some(slot) = picked.slot else { continue };
            // Whatever happened: what runs is whole, every byte of every part (not what lies between them).
            let (release, installed) = self.slots[Self::index(slot)];
            assert!(installed, "slot {slot} boots and was never installed whole");
            let want = image(release);
            let there = on_card(&self.disk, slot, want.len());
            let header = SlotHeader::parse(want.first_chunk().unwrap()).unwrap();
            let parts =
                PartKind::ALL.map(|k| k.place(&header)).map(|(at, len)| at as usize..(at + len) as usize);
            for range in parts.into_iter().chain(std::iter::once(0..SECTOR)) {
                assert!(
                    there[range.clone()] == want[range],
                    "slot {slot} boots and is not release {release}"
                );
            }
            return slot;
        }
        panic!("no slot boots");
    }

    /// The service after the health gate; false if power failed.
    fn confirm(&mut self, slot: Slot) -> bool {
        if self.random.below(4) == 0 {
            self.cut_somewhere(3);
        }
        let copies = read_state(&mut self.disk, |_| false).unwrap();
        let result = write_state(&mut self.disk, copies.write_to, &copies.state.confirmed(slot));
        if self.lights_out() {
            return false;
        }
        result.unwrap();
        true
    }

    /// Installs a release into the slot that does not run; false if power failed.
    fn install(&mut self, running: Slot, release: u64, bundle: &[u8], most: u64) -> bool {
        let other = Self::index(running.other());
        let before = self.disk.state();
        let cut = self.random.below(50) != 0;
        if cut {
            self.cut_somewhere(most);
        }
        let mut asked = 0;
        let reuse = self.random.below(4) == 0;
        let mut install = Install::new(InstallConfig { reuse, ..config(running, bundle) });
        let result = drive(&mut install, &mut self.disk, bundle, &mut asked);
        self.resumed += u64::from(asked < bundle.len() as u64 && result.is_ok());
        // From here on that slot may hold this release; whether it does is what the header says.
        let header = on_card(&self.disk, running.other(), SECTOR);
        let whole = header == image(release)[..SECTOR];
        if self.lights_out() {
            assert!(matches!(result, Err(InstallError::Medium(PowerCut))));
            self.disk.power_on(&mut self.random);
            let now = self.disk.state();
            let named = now.order[0] != running && now.left(running.other()) > 0;
            assert!(!named || whole || now == before, "the boot state names a slot that is not whole");
            assert_eq!(now.left(running), MAX_TRIES, "the running slot keeps its tries");
            // The header may have arrived, or not: what it says counts.
            let header = on_card(&self.disk, running.other(), SECTOR);
            if header == image(release)[..SECTOR] {
                self.slots[other] = (release, true);
            } else if header != image(self.slots[other].0)[..SECTOR] {
                self.slots[other].1 = false;
            }
            return false;
        }
        result.unwrap();
        self.slots[other] = (release, true);
        let state = self.disk.state();
        assert_eq!(state.order, [running.other(), running]);
        assert_eq!((state.a_left, state.b_left), (MAX_TRIES, MAX_TRIES));
        true
    }
}

fn live(seed: u64, cuts: u64) -> (u64, u64, u64, u64) {
    let mut node = Node {
        disk: card(&image(1)),
        random: Random(seed),
        cuts: 0,
        slots: [(1, true), (0, false)],
        resumed: 0,
    };
    // How many sector writes an installation takes.
    let probe = bundle(&image(2));
    let mut disk = node.disk.clone();
    drive(&mut Install::new(config(Slot::A, &probe)), &mut disk, &probe, &mut 0).unwrap();
    let most = disk.operations + 1;
    let (mut updates, mut fallbacks, mut release) = (0, 0, 1);
    while node.cuts < cuts {
        let running = node.boot();
        // A new system is bad now and then: it never gets as far as the health gate.
        let on_trial = node.slots[Node::index(running)].0;
        if on_trial % 5 == 4 && node.slots[Node::index(running.other())].1 {
            let mut boots = 1;
            while node.boot() == running {
                boots += 1;
                assert!(boots <= MAX_TRIES, "three tries, not more");
            }
            fallbacks += 1;
            release = release.max(on_trial);
            continue;
        }
        if !node.confirm(running) {
            continue;
        }
        release += 1;
        let bundle = bundle(&image(release));
        // Power fails again and again; each time the node comes up with what ran, or with the new system.
        let mut runs = running;
        while !node.install(runs, release, &bundle, most) {
            let up = node.boot();
            if up != running {
                // The header was whole and the boot state written: it is updated.
                assert_eq!(node.slots[Node::index(up)], (release, true));
                break;
            }
            runs = up;
            while !node.confirm(runs) {
                runs = node.boot();
            }
            if runs != running || node.cuts >= cuts {
                break;
            }
        }
        updates += 1;
    }
    (node.cuts, updates, fallbacks, node.resumed)
}

#[test]
fn ten_thousand_power_cuts() {
    if let Ok(seed) = std::env::var("UPDATE_SEED") {
        live(seed.parse().unwrap(), CUTS / SEEDS);
        return;
    }
    let lives: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SEEDS).map(|seed| scope.spawn(move || live(seed, CUTS / SEEDS))).collect();
        threads
            .into_iter()
            .enumerate()
            .map(|(seed, t)| t.join().unwrap_or_else(|_| panic!("UPDATE_SEED={seed}")))
            .collect()
    });
    let sum = |f: fn(&(u64, u64, u64, u64)) -> u64| lives.iter().map(f).sum::<u64>();
    let (cuts, updates, fallbacks, resumed) = (sum(|l| l.0), sum(|l| l.1), sum(|l| l.2), sum(|l| l.3));
    eprintln!(
        "{cuts} power cuts, {updates} updates, {fallbacks} fallbacks, {resumed} installations taken up"
    );
    assert!(cuts >= CUTS && updates > 100 && fallbacks > 5 && resumed > 50);
}

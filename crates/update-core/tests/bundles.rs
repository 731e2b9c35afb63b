//! Bundles that are installed, and bundles that are refused, each with its reason.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use update_core::bundle::{ENTRY, Entry, MAX_CHUNK, Manifest, PREFIX, Prefix, SIGNATURE};
use update_core::make::{Choices, make, signed_part};
use update_core::{Install, InstallConfig, InstallError, Policy, Refusal, Slot, pack};

/// Installs on a fresh card and says what became of it: the error, and the card before and after.
fn try_install(
    bundle: &[u8],
    config: InstallConfig,
) -> (Result<(), InstallError<PowerCut>>, SimDisk, SimDisk) {
    let before = card(&small(1));
    let mut after = before.clone();
    let mut install = Install::new(config);
    let result = drive(&mut install, &mut after, bundle, &mut 0);
    (result, before, after)
}

fn refusal(bundle: &[u8], config: InstallConfig) -> Refusal {
    let (result, before, mut after) = try_install(bundle, config);
    let Err(InstallError::Refused(refusal)) = result else { panic!("{result:?}") };
    let late = matches!(refusal, Refusal::Chunk(_) | Refusal::Bomb(_) | Refusal::Part(_));
    if late {
        assert_eq!(
            on_card(&after, Slot::A, 100_000),
            on_card(&before, Slot::A, 100_000),
            "the running slot is as it was"
        );
        assert_eq!(after.state().order, [Slot::A, Slot::B]);
        assert_eq!(after.state().left(Slot::B), 0);
    } else {
        assert_eq!(after.operations, 0, "nothing was written");
    }
    refusal
}

fn refused(bundle: &[u8]) -> Refusal {
    refusal(bundle, config(Slot::A, bundle))
}

fn with_policy(bundle: &[u8], change: impl Fn(&mut Policy)) -> Refusal {
    let mut config = config(Slot::A, bundle);
    change(&mut config.policy);
    refusal(bundle, config)
}

/// Where the table begins, and where the chunks begin.
fn places(bundle: &[u8]) -> (usize, usize) {
    let prefix = Prefix::parse(bundle.first_chunk().unwrap()).unwrap();
    let manifest = Manifest::parse(signed_part(bundle).unwrap().0).unwrap();
    let table = PREFIX + prefix.manifest + prefix.signatures * SIGNATURE;
    (table, table + manifest.chunks() as usize * ENTRY)
}

/// The same bundle with another manifest and table, signed anew: what a key holder could do wrong.
fn resigned(bundle: &[u8], change: impl Fn(&mut Manifest, &mut Vec<u8>, &mut Vec<u8>)) -> Vec<u8> {
    let mut manifest = Manifest::parse(signed_part(bundle).unwrap().0).unwrap();
    let (table_at, chunks_at) = places(bundle);
    let (mut table, mut chunks) = (bundle[table_at..chunks_at].to_vec(), bundle[chunks_at..].to_vec());
    change(&mut manifest, &mut table, &mut chunks);
    use sha2::Digest;
    manifest.table = sha2::Sha256::digest(&table).into();
    let bytes = manifest.encode();
    let mut out = Prefix { manifest: bytes.len(), signatures: 0 }.encode().to_vec();
    for part in [bytes, table, chunks] {
        out.extend(part);
    }
    sign(&out, &[1, 2])
}

#[test]
fn a_good_bundle_makes_the_other_slot_the_same_bytes_and_the_first_choice() {
    for (running, reuse) in [(Slot::A, false), (Slot::B, false), (Slot::A, true)] {
        let (old, new) = (small(1), small(2));
        let bundle = bundle(&new);
        let mut disk = card(&old);
        if running == Slot::B {
            disk.put(u64::from(PARTITIONS[1].start) * 512, &old);
            let state = disk.state().activated(Slot::B);
            disk.put(update_core::Copy::Second.lba() * 512, &state.encode().unwrap());
        }
        let mut install = Install::new(InstallConfig { reuse, ..config(running, &bundle) });
        let mut asked = 0;
        drive(&mut install, &mut disk, &bundle, &mut asked).unwrap();
        assert_eq!(on_card(&disk, running.other(), new.len()), new);
        assert_eq!(asked, bundle.len() as u64, "every byte once");
        let state = disk.state();
        assert_eq!(state.order, [running.other(), running]);
        assert_eq!((state.a_left, state.b_left), (3, 3));
        assert_eq!(install.header().version, "1.2");
        assert_eq!(install.manifest().unwrap().build, "bafkqaaa");
    }
}

#[test]
fn a_check_reads_all_and_writes_nothing() {
    let bundle = bundle(&small(2));
    let check = InstallConfig { check_only: true, ..config(Slot::A, &bundle) };
    let (result, _, after) = try_install(&bundle, check.clone());
    assert_eq!((result, after.operations), (Ok(()), 0));
    let mut bad = bundle;
    *bad.last_mut().unwrap() ^= 1;
    let (result, _, after) = try_install(&bad, check);
    assert!(matches!(result, Err(InstallError::Refused(Refusal::Chunk(_)))));
    assert_eq!(after.operations, 0);
}

#[test]
fn signatures_count_once_and_only_by_the_nodes_keys() {
    let unsigned = make(&small(2), &choices()).unwrap();
    let too_few = |good, strangers| Refusal::TooFewSignatures { good, needed: 2, strangers };
    assert_eq!(refused(&unsigned), too_few(0, 0));
    assert_eq!(refused(&sign(&unsigned, &[1])), too_few(1, 0), "m-1");
    assert_eq!(refused(&sign(&unsigned, &[1, 1, 1])), too_few(1, 0), "one key three times");
    assert_eq!(refused(&sign(&unsigned, &[1, 8, 9])), too_few(1, 2), "strangers");
    for keys in [&[1, 2][..], &[3, 1], &[9, 2, 3]] {
        let bundle = sign(&unsigned, keys);
        assert_eq!(try_install(&bundle, config(Slot::A, &bundle)).0, Ok(()));
    }
    let good = sign(&unsigned, &[1, 2]);
    let mut wrong = good.clone();
    let (table, _) = places(&good);
    wrong[table - 1] ^= 1;
    assert_eq!(refused(&wrong), Refusal::BadSignature { key: public(2) });
    assert_eq!(with_policy(&good, |p| p.keys.clear()), Refusal::NoKeys);
    assert_eq!(with_policy(&good, |p| p.threshold = Some(4)), Refusal::Threshold { needed: 4, keys: 3 });
    assert_eq!(
        with_policy(&good, |p| p.threshold = Some(3)),
        Refusal::TooFewSignatures { good: 2, needed: 3, strangers: 0 }
    );
    // A key that is listed twice is one key.
    assert_eq!(
        with_policy(&sign(&unsigned, &[1]), |p| p.keys = vec![public(1), public(1), public(2)]),
        too_few(1, 0)
    );
    // The signature is of the manifest: another manifest with it is refused.
    let mut changed = good;
    changed[PREFIX + 10] ^= 1;
    assert_eq!(refused(&changed), Refusal::BadSignature { key: public(1) });
}

#[test]
fn boards_ages_and_sizes() {
    let good = bundle(&small(2));
    let pi5 = Policy { boards: vec!["raspberrypi,5-model-b".into()], ..policy() };
    assert_eq!(
        with_policy(&good, |p| p.boards = pi5.boards.clone()),
        Refusal::Board { bundle: vec!["brcm,bcm2837".into()], node: pi5.boards.clone() }
    );
    assert_eq!(with_policy(&good, |p| p.floor = 3), Refusal::Downgrade { release: 2, floor: 3 });
    let signed = |c: Choices| sign(&make(&small(2), &c).unwrap(), &[1, 2]);
    // The exception holds for the floors it names, and no longer once the floor has risen above.
    let excepted = signed(Choices { excepts: 5, ..choices() });
    for (floor, good) in [(3, true), (5, true), (6, false)] {
        let mut config = config(Slot::A, &excepted);
        config.policy.floor = floor;
        assert_eq!(try_install(&excepted, config).0.is_ok(), good, "{floor}");
    }
    assert_eq!(refused(&signed(Choices { needs: 2, ..choices() })), Refusal::Needs { needs: 2, running: 1 });
    let big = bundle(&slot(2, [5000, 40_001, 200]));
    assert!(matches!(refused(&big), Refusal::Oversize { slot: 524_288, .. }));
    let mut disk = card(&small(1));
    let on_trial = update_core::BootState { seq: 7, a_left: 2, ..Default::default() };
    disk.put(update_core::Copy::Second.lba() * 512, &on_trial.encode().unwrap());
    let result = drive(&mut Install::new(config(Slot::A, &good)), &mut disk, &good, &mut 0);
    assert_eq!(result, Err(InstallError::Refused(Refusal::OnTrial)));
    assert_eq!(disk.operations, 0);
}

#[test]
fn damaged_files() {
    let good = bundle(&small(2));
    let (table, chunks) = places(&good);
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        bad
    };
    assert_eq!(refused(b"not a bundle, but long enough for one"), Refusal::NotABundle);
    assert_eq!(refused(&flipped(0)), Refusal::NotABundle);
    assert!(matches!(refused(&flipped(table)), Refusal::Table));
    assert_eq!(refused(&flipped(chunks)), Refusal::Chunk(0));
    assert!(matches!(refused(&flipped(good.len() - 1)), Refusal::Chunk(n) if n > 2));
    let mut longer = good.clone();
    longer.extend(*b"more");
    assert_eq!(refused(&longer), Refusal::Trailing { extra: 4 });
    // Wherever it ends, it is told so before anything is written, if the length is known...
    for len in [0, 1, PREFIX, PREFIX + 5, table, table + 41, chunks, chunks + 1, good.len() - 1] {
        assert!(
            matches!(refused(&good[..len]), Refusal::Truncated { has, .. } if has == len as u64),
            "{len}"
        );
    }
    // ... and where it ends, if it is not.
    let cut = &good[..good.len() - 1];
    let (result, _, mut after) = try_install(cut, InstallConfig { total: None, ..config(Slot::A, &good) });
    assert!(matches!(result, Err(InstallError::Refused(Refusal::Truncated { .. }))), "{result:?}");
    assert_eq!(after.state().order, [Slot::A, Slot::B]);
}

/// Every bit of what comes before the chunks is under a signature or checked: no flip gets through.
#[test]
fn no_flipped_bit_gets_through() {
    let good = bundle(&small(2));
    let (_, chunks) = places(&good);
    let mut random = Random(5);
    for round in 0..600 {
        let at =
            if round < 400 { random.below(chunks as u64) } else { random.below(good.len() as u64) } as usize;
        let mut bad = good.clone();
        bad[at] ^= 1 << random.below(8);
        let (result, _, mut after) = try_install(&bad, config(Slot::A, &bad));
        assert!(matches!(result, Err(InstallError::Refused(_))), "byte {at}: {result:?}");
        assert_eq!(after.state().order, [Slot::A, Slot::B]);
    }
}

/// What only a key holder can do: manifests that promise what the chunks don't hold.
#[test]
fn bombs_and_lies_that_are_signed() {
    let good = bundle(&small(2));
    // A chunk that unpacks to more than its entry says.
    let bomb = resigned(&good, |manifest, table, chunks| {
        let (_, stored) = pack(&vec![0; MAX_CHUNK]);
        let first: Entry = Entry::parse(table.first_chunk().unwrap()).unwrap();
        let entry = Entry { stored: stored.len() as u32, ..first };
        table[..ENTRY].copy_from_slice(&entry.encode());
        chunks.splice(..first.stored as usize, stored);
        manifest.needs = 0;
    });
    assert_eq!(refused(&bomb), Refusal::Bomb(0));
    type Lie = fn(&mut Manifest, &mut Vec<u8>, &mut Vec<u8>);
    let lies: [Lie; 5] = [
        |m, _, _| m.parts[1].size += 1,
        |m, _, _| m.parts[1].chunks += 1,
        |m, _, _| m.parts.swap(0, 1),
        |m, _, _| m.boards.clear(),
        |_, table, _| table[32] ^= 1,
    ];
    for lie in lies {
        let refusal = refused(&resigned(&good, lie));
        assert!(matches!(refusal, Refusal::Format(_) | Refusal::Truncated { .. }), "{refusal:?}");
    }
    let part = resigned(&good, |m, _, _| m.parts[2].sha256[0] ^= 1);
    let (result, _, mut after) = try_install(&part, config(Slot::A, &part));
    assert_eq!(result, Err(InstallError::ReadBack("root image")));
    assert_eq!(after.state().order, [Slot::A, Slot::B]);
}

#[test]
fn what_the_running_slot_has_is_not_asked_for() {
    let old = slot(1, [5000, 90_000, 60]);
    // The same system with one block changed in the root image.
    let mut new = old.clone();
    let header = update_core::SlotHeader::parse(old.first_chunk().unwrap()).unwrap();
    let at = header.image.offset as usize * 512 + 100_000;
    new[at..at + 4000].copy_from_slice(&Random(9).bytes(4000));
    let bundle = sign(&make(&new, &Choices { release: Some(2), ..choices() }).unwrap(), &[1, 2]);
    let mut disk = card(&old);
    let mut install = Install::new(InstallConfig { reuse: true, ..config(Slot::A, &bundle) });
    let mut asked = 0;
    drive(&mut install, &mut disk, &bundle, &mut asked).unwrap();
    assert_eq!(on_card(&disk, Slot::B, new.len())[512..], new[512..]);
    assert!(install.reused() > 200_000 && asked < 150_000, "{} reused, {asked} asked for", install.reused());
}

#[test]
fn prints_every_reason() {
    let good = bundle(&small(2));
    for (refusal, part) in [
        (
            with_policy(&good, |p| p.boards.clear()),
            "wrong board: it is for brcm,bcm2837; this is an unknown one",
        ),
        (with_policy(&good, |p| p.floor = 3), "downgrade: it is release 2"),
        (with_policy(&good, |p| p.keys.clear()), "put the public keys"),
        (refused(&good[..700]), "truncated: the bundle has"),
    ] {
        assert!(refusal.to_string().contains(part), "{refusal}");
    }
}

//! Announcements: what passes, what does not, and what it may cost; bundles made again out of a slot.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::*;
use mesh_types::{Duration, Instant, NodeId};
use update_core::bundle::Signature;
use update_core::make::signed_part;
use update_core::{
    Install, InstallConfig, InstallError, MAX_OFFER, Offer, OfferCounts, Offers, Policy, Refusal, Signed,
    Slot, SlotHeader,
};

const CID: &str = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";

fn node(n: u8) -> NodeId {
    NodeId::from_digest([n; 32])
}

/// An offer of a bundle, in the view of a node that knows `policy`'s keys.
fn offer(bundle: &[u8], policy: &Policy, cid: &str) -> Option<Offer> {
    let (manifest, signatures) = signed_part(bundle).unwrap();
    let header = SlotHeader::parse(manifest.first_chunk().unwrap()).unwrap();
    let signed =
        Signed { manifest, signatures: &signatures, release: header.release, version: &header.version };
    Offer::new(policy, &signed, cid)
}

fn offers(now: Instant) -> Offers {
    let mut offers = Offers::new(node(1), policy(), now);
    offers.set_have(1);
    offers
}

#[test]
fn offers_round_trip_and_everything_else_is_none() {
    let offer = offer(&bundle(&small(2)), &policy(), CID).unwrap();
    assert_eq!((offer.release, offer.version.as_str(), offer.signatures.len()), (2, "1.2", 2));
    let bytes = offer.encode();
    assert_eq!(Offer::parse(&bytes), Some(offer));
    for cut in 0..bytes.len() {
        assert_eq!(Offer::parse(&bytes[..cut]), None);
    }
    assert_eq!(Offer::parse(&[bytes.as_slice(), &[0]].concat()), None);
    // The longest one fits a record.
    let keys: Vec<[u8; 32]> = (1..=12).map(public).collect();
    let policy = |threshold| Policy { keys: keys.clone(), threshold: Some(threshold), ..policy() };
    let signed = sign(&bundle(&small(2)), &(1..=12).collect::<Vec<u8>>());
    let (cid, long) = ("b".repeat(100), "v".repeat(40));
    let (manifest, signatures) = signed_part(&signed).unwrap();
    let signed = Signed { manifest, signatures: &signatures, release: 2, version: &long };
    let longest = Offer::new(&policy(10), &signed, &cid).unwrap().encode();
    assert!(longest.len() <= MAX_OFFER && MAX_OFFER <= 880, "{}", longest.len());
    assert_eq!(Offer::new(&policy(11), &signed, &cid), None, "more signatures than fit");
    assert_eq!(Offer::new(&policy(2), &signed, "../etc"), None);
}

#[test]
fn only_what_enough_keys_signed_is_good() {
    let now = Instant::ZERO;
    let mut offers = offers(now);
    let good = offer(&bundle(&small(2)), &policy(), CID).unwrap();
    let mut forged = good.clone();
    forged.signatures[0].1[9] ^= 1;
    let mut few = good.clone();
    few.signatures.pop();
    let mut twice = few.clone();
    twice.signatures.push(few.signatures[0]);
    let mut other = good.clone();
    other.manifest[0] ^= 1;
    for (n, bad) in [forged, few, twice, other].iter().enumerate() {
        offers.came(now, node(10 + n as u8), &bad.encode());
        offers.came(now, node(50 + n as u8), &bad.encode());
        assert_eq!(offers.newest(), None, "{n}");
    }
    assert_eq!(offers.counts(), OfferCounts { bad: 4, ..OfferCounts::default() }, "each is checked once");
    // An old one, played again, and one that is no newer.
    let old = Offer { release: 0, ..offer(&bundle(&small(1)), &policy(), CID).unwrap() };
    offers.came(now, node(3), &old.encode());
    assert_eq!((offers.newest(), offers.counts().old), (None, 1));
    offers.came(now, node(4), &good.encode());
    offers.came(now, node(5), &good.encode());
    assert_eq!((offers.best(now), offers.holders(&good)), (Some(&good), 2));
    offers.set_have(2);
    assert_eq!(offers.newest(), None);
}

#[test]
fn a_flood_of_forgeries_costs_no_more_than_it_may_and_hides_nothing() {
    let now = Instant::from_millis(1000);
    let mut offers = offers(now);
    let good = offer(&bundle(&small(2)), &policy(), CID).unwrap();
    let mut random = Random(7);
    let id = |random: &mut Random| NodeId::from_digest(std::array::from_fn(|_| random.next() as u8));
    for n in 0..5000u64 {
        let mut forged = good.clone();
        forged.release = 1000 + n;
        forged.signatures[0].1[..8].copy_from_slice(&n.to_le_bytes());
        offers.came(now, id(&mut random), &forged.encode());
    }
    let counts = offers.counts();
    assert!(counts.bad <= 15 && counts.good == 0, "{counts:?}");
    assert!(counts.dropped >= 4900, "{counts:?}");
    // The genuine one is there again with its announcer's next record, and is checked when its turn has come.
    let mut at = now;
    while offers.newest().is_none() {
        at = offers.poll_timeout().unwrap().max(at);
        offers.handle_timeout(at);
        offers.came(at, node(9), &good.encode());
    }
    assert!(at < now + Duration::from_secs(30), "{at:?}");
    assert_eq!(offers.best(at), Some(&good));
}

#[test]
fn lies_about_release_and_place_are_found_out_and_remembered() {
    let now = Instant::ZERO;
    let mut offers = offers(now);
    let good = offer(&bundle(&small(3)), &policy(), CID).unwrap();
    let lie = Offer { release: 99, ..offer(&bundle(&small(2)), &policy(), CID).unwrap() };
    let nowhere = Offer { cid: "bafkqaaa".into(), ..good.clone() };
    for (n, o) in [&lie, &nowhere, &good].into_iter().enumerate() {
        offers.came(now, node(20 + n as u8), &o.encode());
    }
    assert_eq!(offers.best(now), Some(&lie), "its signatures are genuine");
    offers.refused(&lie, Some(2));
    let again = Offer { cid: "bafkqaab".into(), ..lie };
    offers.came(now, node(30), &again.encode());
    assert_ne!(offers.newest(), Some(&again), "the manifest is known by now");
    // Nobody has what is behind a false CID: the other one's turn comes, and then again the first.
    let first = offers.best(now).unwrap().clone();
    offers.failed(now, &first);
    let second = offers.best(now).unwrap().clone();
    assert!(first != second && second.release == 3);
    offers.failed(now, &second);
    assert_eq!(offers.best(now), None);
    assert!(offers.best(offers.poll_timeout().unwrap()).is_some());
}

#[test]
fn some_nodes_announce_and_not_all() {
    let now = Instant::ZERO;
    let good = offer(&bundle(&small(2)), &policy(), CID).unwrap();
    let mut all: Vec<Offers> = (0..40).map(|n| Offers::new(node(n), policy(), now)).collect();
    // The first one has it, all others get it from there.
    all.iter_mut().for_each(|o| o.came(now, node(0), &good.encode()));
    all.iter_mut().for_each(|o| {
        o.set_have(2);
        o.set_own(Some(good.clone()));
    });
    // Floods until nothing changes.
    for _ in 0..5 {
        let said: Vec<bool> = all.iter().map(|o| o.announced().is_some()).collect();
        for o in &mut all {
            for (n, says) in said.iter().enumerate() {
                o.came(now, node(n as u8), &if *says { good.encode() } else { Vec::new() });
            }
        }
    }
    assert_eq!(all.iter().filter(|o| o.announced().is_some()).count(), 3);
    // A newer one makes them silent.
    let newer = offer(&bundle(&small(3)), &policy(), CID).unwrap();
    for o in &mut all {
        o.came(now, node(77), &newer.encode());
    }
    assert!(all.iter().all(|o| o.announced().is_none()));
}

#[test]
fn a_bundle_is_made_again_out_of_the_slot_to_the_byte() {
    for (n, sizes) in [(2, [5000, 40_001, 12]), (4, [300_000, 700_000, 20])] {
        let new = slot(n, sizes);
        let bundle = bundle(&new);
        let mut disk = card(&small(1));
        let mut install = Install::new(config(Slot::A, &bundle));
        if new.len() > 512 * 0x400 {
            continue;
        }
        assert!(install.rebuild().is_none());
        drive(&mut install, &mut disk, &bundle, &mut 0).unwrap();
        let mut rebuild = install.rebuild().unwrap();
        let (mut made, len) = (Vec::new(), rebuild.len());
        let mut signatures: Vec<Signature> = Vec::new();
        assert_eq!(rebuild.signed(&mut signatures, "x", n).signatures.len(), 2);
        while let Some(piece) = rebuild.next(&mut disk).unwrap() {
            made.extend(piece);
        }
        assert!(made == bundle && len == bundle.len() as u64);
    }
}

#[test]
fn what_is_read_ahead_is_what_will_be_asked_for() {
    let bundle = bundle(&small(2));
    let mut disk = card(&small(1));
    let mut install = Install::new(config(Slot::A, &bundle));
    loop {
        match install.next() {
            update_core::Next::Done => break,
            update_core::Next::Work => {
                assert!(install.wants(0, 1 << 20).is_none_or(|(_, len)| len > 0));
                install.work(&mut disk).unwrap();
            }
            update_core::Next::Want { offset, len } => {
                let (at, run) = install.wants(offset, 1 << 20).unwrap();
                assert!(at == offset && run >= len, "{at} {run} for {offset} {len}");
                if let Some((next, _)) = install.wants(offset + len as u64, 1 << 20) {
                    assert!(next >= offset + len as u64);
                }
                install.feed(&mut disk, &bundle[offset as usize..offset as usize + len]).unwrap();
            }
        }
    }
}

#[test]
fn only_what_was_announced_is_installed() {
    let bundle = bundle(&small(2));
    let (manifest, _) = signed_part(&bundle).unwrap();
    let hash: [u8; 32] = sha2_of(manifest);
    for (only, reason) in [
        ((hash, 2), None),
        ((hash, 3), Some(Refusal::NotOffered { same: true, release: 2 })),
        (([0; 32], 2), Some(Refusal::NotOffered { same: false, release: 2 })),
    ] {
        let mut disk = card(&small(1));
        let mut install = Install::new(InstallConfig { only: Some(only), ..config(Slot::A, &bundle) });
        let ended = drive(&mut install, &mut disk, &bundle, &mut 0);
        assert_eq!(ended, reason.map_or(Ok(()), |r| Err(InstallError::Refused(r))));
    }
}

fn sha2_of(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

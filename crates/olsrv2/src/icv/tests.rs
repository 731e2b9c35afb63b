//! Bytes made elsewhere (tests/data/rfc7182.py), and what can be wrong with an ICV.

use alloc::vec;

use super::*;
use crate::config::Config;
use crate::router::Router;

const VECTORS: &str = include_str!("../../tests/data/rfc7182.txt");
const SECRET: &[u8] = b"correct horse battery staple";
const LINK: Cover = Cover::Link(IpAddr::V6(core::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2)));

fn vector(name: &str) -> Vec<u8> {
    let line = VECTORS.lines().find_map(|l| Some(l.strip_suffix(name)?.trim_end())).unwrap();
    (0..line.len()).step_by(2).map(|i| u8::from_str_radix(&line[i..i + 2], 16).unwrap()).collect()
}

fn check(keys: &[Key], bytes: &[u8], cover: Cover) -> Result<u64, Refusal> {
    verify(keys, &RawMessage::parse(bytes).unwrap().check().unwrap(), cover)
}

/// The vector with its TLVs changed.
fn changed(name: &str, change: impl FnOnce(&mut Vec<Tlv>)) -> Vec<u8> {
    let bytes = vector(name);
    let mut message = Message::from(&RawMessage::parse(&bytes).unwrap().check().unwrap());
    change(&mut message.tlvs);
    let mut out = Vec::new();
    message.emit(&mut out).unwrap();
    out
}

fn tc(change: impl FnOnce(&mut Vec<Tlv>)) -> Result<u64, Refusal> {
    check(&[Key::new(SECRET)], &changed("tc", change), Cover::Message)
}

fn icv(tlvs: &mut [Tlv]) -> &mut Tlv {
    tlvs.iter_mut().find(|t| t.kind == ICV).unwrap()
}

#[test]
fn rfc7182_12_2_2_vectors_made_elsewhere_are_valid() {
    let key = [Key::new(SECRET)];
    assert_eq!(key[0].id(), [0x19, 0xf5, 0x8d, 0xc6]);
    assert_eq!(alloc::format!("{key:?}"), "[Key(19f58dc6)]", "the secret is not shown");
    assert_eq!(check(&key, &vector("hello"), LINK), Ok(1 << 32 | 5));
    assert_eq!(check(&key, &vector("tc"), Cover::Message), Ok(1 << 32 | 6));
    assert_eq!(check(&key, &vector("hello4"), Cover::Link([10, 0, 0, 1].into())), Ok(77));
    // The figure of §12.3 has no timestamp; its ICV is good.
    assert_eq!(vector("example").len(), 82);
    assert_eq!(check(&key, &vector("example"), Cover::Message), Err(Refusal::NoTimestamp));
}

#[test]
fn rfc7183_6_2_we_sign_as_others_do() {
    for (name, counter, cover) in [("hello", 1 << 32 | 5, LINK), ("tc", 1 << 32 | 6, Cover::Message)] {
        let theirs = vector(name);
        let theirs = Message::from(&RawMessage::parse(&theirs).unwrap().check().unwrap());
        let mut ours = theirs.clone();
        ours.tlvs.retain(|t| t.kind != ICV && t.kind != TIMESTAMP);
        sign(&[Key::new(SECRET)], &mut ours, counter, cover);
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn rfc7182_9_1_all_but_the_hops_is_covered() {
    let key = [Key::new(SECRET)];
    // And but the two reserved flags of the ICV TLV itself, which mean nothing.
    for (name, cover, hops, flags) in [("hello", LINK, 0..0, 39), ("tc", Cover::Message, 20..22, 44)] {
        let bytes = vector(name);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut forged = bytes.clone();
                forged[at] ^= 1 << bit;
                let Ok(view) = RawMessage::parse(&forged).and_then(|m| m.check()) else { continue };
                let free = hops.contains(&at) || (at == flags && bit < 2);
                assert_eq!(verify(&key, &view, cover).is_ok(), free, "{name} {at}.{bit}");
            }
        }
    }
}

#[test]
fn rfc7182_12_1_type_extension_2_covers_the_source() {
    let key = [Key::new(SECRET)];
    let other = Cover::Link("fe80::3".parse().unwrap());
    assert_eq!(check(&key, &vector("hello"), other), Err(Refusal::WrongIcv));
    assert_eq!(check(&key, &vector("hello"), Cover::Message), Err(Refusal::NoIcv), "wrong extension");
    assert_eq!(check(&key, &vector("tc"), LINK), Err(Refusal::NoIcv));
    let v4 = Cover::Link([10, 0, 0, 2].into());
    assert_eq!(check(&key, &vector("hello4"), v4), Err(Refusal::WrongIcv));
}

#[test]
fn rfc7183_6_3_every_kind_of_bad_icv_is_refused() {
    assert!(tc(|_| {}).is_ok());
    assert_eq!(tc(|t| t.retain(|t| t.kind != ICV)), Err(Refusal::NoIcv));
    assert_eq!(tc(|t| icv(t).value = None), Err(Refusal::NoIcv));
    for n in 0..23 {
        let refusal = tc(|t| icv(t).value.as_mut().unwrap().truncate(n)).unwrap_err();
        let expected = if n < 7 { Refusal::NoIcv } else { Refusal::WrongIcv };
        assert_eq!(refusal, expected, "{n} octets");
    }
    let with = |at: usize, octet: u8| move |t: &mut Vec<Tlv>| icv(t).value.as_mut().unwrap()[at] = octet;
    assert_eq!(tc(with(0, 1)), Err(Refusal::NoIcv), "SHA-1");
    assert_eq!(tc(with(0, 0)), Err(Refusal::NoIcv), "no hash function");
    assert_eq!(tc(with(1, 0)), Err(Refusal::NoIcv), "no cryptographic function");
    assert_eq!(tc(with(1, 5)), Err(Refusal::NoIcv), "AES");
    assert_eq!(tc(with(2, 0)), Err(Refusal::UnknownKey), "no key identifier");
    assert_eq!(tc(with(2, 3)), Err(Refusal::UnknownKey));
    assert_eq!(tc(with(2, 255)), Err(Refusal::NoIcv), "a key identifier longer than the value");
    assert_eq!(tc(with(3, 0)), Err(Refusal::UnknownKey));
    assert_eq!(tc(with(7, 0)), Err(Refusal::WrongIcv));
    for ext in [0, 2, 3, 252] {
        assert_eq!(tc(|t| icv(t).ext = ext), Err(Refusal::NoIcv), "extension {ext}");
    }
    // Longer than the hash, or with octets behind it.
    assert_eq!(tc(|t| icv(t).value.as_mut().unwrap().push(0)), Err(Refusal::WrongIcv));
    assert_eq!(tc(|t| icv(t).value.as_mut().unwrap().extend([0; 300])), Err(Refusal::WrongIcv));
    // §6.3 step 2: exactly one of the algorithm and key.
    let twice = |t: &mut Vec<Tlv>| {
        let copy = icv(t).clone();
        t.push(copy);
    };
    assert_eq!(tc(twice), Err(Refusal::WrongIcv));
}

#[test]
fn rfc7182_9_1_other_icvs_are_stripped_whatever_they_are() {
    let strange = |t: &mut Vec<Tlv>| {
        t.insert(0, Tlv { kind: ICV, ext: 0, value: Some(vec![9; 300]) });
        t.insert(2, Tlv { kind: ICV, ext: 1, value: Some(vec![1, 6, 0, 1, 2]) });
        t.push(Tlv { kind: ICV, ext: 2, value: None });
        t.push(Tlv { kind: ICV, ext: 1, value: Some(vec![3, 3, 0, 1, 2, 3, 4, 5]) });
    };
    assert_eq!(tc(strange), Ok(1 << 32 | 6));
    // Anything else is covered.
    assert_eq!(tc(|t| t.push(Tlv { kind: 200, ext: 0, value: None })), Err(Refusal::WrongIcv));
    assert_eq!(tc(|t| t.swap(0, 1)), Err(Refusal::WrongIcv));
}

#[test]
fn rfc7182_12_1_whole_icvs_are_taken_too() {
    let key = Key::new(SECRET);
    let bytes = vector("tc");
    let full = key.over(&RawMessage::parse(&bytes).unwrap().check().unwrap(), None).finalize().into_bytes();
    for n in 16..=32 {
        let longer = tc(|t| {
            let value = icv(t).value.as_mut().unwrap();
            value.truncate(7);
            value.extend_from_slice(&full[..n]);
        });
        assert!(longer.is_ok(), "{n} octets");
    }
}

#[test]
fn rfc7183_6_3_exactly_one_counter() {
    let signed = |stamps: &[(u8, &[u8])]| {
        let mut message = Message::new(1, 16);
        message.tlvs = stamps
            .iter()
            .map(|(ext, v)| Tlv { kind: TIMESTAMP, ext: *ext, value: Some(v.to_vec()) })
            .collect();
        let keys = [Key::new(SECRET)];
        let mut bytes = Vec::new();
        message.emit(&mut bytes).unwrap();
        let view = RawMessage::parse(&bytes).unwrap().check().unwrap();
        let full = keys[0].over(&view, None).finalize().into_bytes();
        let value = [&ALGORITHM[..], &[4], &keys[0].id, &full[..]].concat();
        message.tlvs.push(Tlv { kind: ICV, ext: 1, value: Some(value) });
        bytes.clear();
        message.emit(&mut bytes).unwrap();
        check(&keys, &bytes, Cover::Message)
    };
    assert_eq!(signed(&[(0, &[1, 2])]), Ok(0x0102));
    assert_eq!(signed(&[(0, &[0xff; 8])]), Ok(u64::MAX));
    assert_eq!(signed(&[(1, &[9; 4]), (0, &[7])]), Ok(7), "another version beside it");
    for bad in [&[][..], &[(0, &[1][..]), (0, &[2][..])], &[(1, &[9; 4])], &[(0, &[])], &[(0, &[1; 9])]] {
        assert_eq!(signed(bad), Err(Refusal::NoTimestamp), "{bad:?}");
    }
}

#[test]
fn rfc7183_4_two_keys_sign_two_icvs_and_either_is_enough() {
    let (old, new, other) = (Key::new(b"old key, 16 bytes"), Key::new(SECRET), Key::new(b"another"));
    let mut message = Message::new(1, 16);
    sign(&[new.clone(), old.clone()], &mut message, 3, Cover::Message);
    assert_eq!(message.tlvs.iter().filter(|t| t.kind == ICV).count(), 2);
    let mut bytes = Vec::new();
    message.emit(&mut bytes).unwrap();
    for keys in
        [vec![old.clone()], vec![new.clone()], vec![new.clone(), old.clone()], vec![other.clone(), old]]
    {
        assert_eq!(check(&keys, &bytes, Cover::Message), Ok(3), "{keys:?}");
    }
    assert_eq!(check(&[other], &bytes, Cover::Message), Err(Refusal::UnknownKey));
    assert_eq!(check(&[], &bytes, Cover::Message), Err(Refusal::UnknownKey));
}

#[test]
fn rfc2104_keys_of_any_length() {
    let ids: Vec<_> = [0, 1, 64, 65, 500].iter().map(|n| Key::new(&vec![7; *n]).id()).collect();
    assert!((1..ids.len()).all(|i| !ids[..i].contains(&ids[i])));
    // The same key twice is one; more than two are not taken.
    let mut config = Config::new("fd00::1".parse().unwrap());
    config.keys = vec![Key::new(b"a"), Key::new(b"a"), Key::new(b"b"), Key::new(b"c")];
    let router = Router::new(config, 1, mesh_types::Instant::ZERO);
    assert_eq!(alloc::format!("{:?}", router.security).matches("Key(").count(), 2);
}

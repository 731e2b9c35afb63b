//! Records of every kind of wrongness.

use super::*;
use crate::dag::CborWriter;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn name_of(key: &SigningKey) -> Name {
    let mut hash = vec![0, 36, 8, 1, 0x12, 0x20];
    hash.extend_from_slice(key.verifying_key().as_bytes());
    Name::of_multihash(&hash).unwrap()
}

fn data(value: &str, validity: &str, sequence: i128) -> Vec<u8> {
    let mut writer = CborWriter::new();
    let key = |name: &'static str| Event::Key(Cow::Borrowed(name));
    let bytes = |text: &str| Event::Bytes(Cow::Owned(text.as_bytes().to_vec()));
    for event in [
        Event::Map,
        key("TTL"),
        Event::Integer(300_000_000_000),
        key("Value"),
        bytes(value),
        key("Sequence"),
        Event::Integer(sequence),
        key("Validity"),
        bytes(validity),
        key("ValidityType"),
        Event::Integer(0),
        Event::End,
    ] {
        writer.event(event).unwrap();
    }
    writer.finish()
}

fn sign(key: &SigningKey, data: &[u8]) -> Vec<u8> {
    key.sign(&[PREFIX, data].concat()).to_bytes().to_vec()
}

const VALUE: &str = "/ipfs/bafkqaddwgevxmmraojswg33smq";
const END: &str = "2123-05-14T12:34:56.000000001Z";

fn good() -> Vec<u8> {
    let data = data(VALUE, END, 3);
    encode(&sign(&key(), &data), &data)
}

/// A field of the message, behind what is there.
fn with(mut record: Vec<u8>, number: u64, value: &[u8]) -> Vec<u8> {
    put_bytes(number, value, &mut record);
    record
}

#[test]
fn a_good_record_is_read() {
    let record = Record::verify(&name_of(&key()), &good(), Some(0)).unwrap();
    assert_eq!((record.value.as_str(), record.sequence, record.ttl), (VALUE, 3, 300_000_000_000));
    assert_eq!(record.ends, 4_839_741_296_000_000_001);
    let newer = Record { sequence: 4, ..record.clone() };
    assert!(newer.is_newer_than(&record) && !record.is_newer_than(&newer) && !record.is_newer_than(&record));
}

#[test]
fn wrong_records_are_refused_by_name() {
    let name = name_of(&key());
    let verify = |bytes: &[u8]| Record::verify(&name, bytes, None).unwrap_err();
    assert_eq!(verify(&vec![0; MAX_RECORD + 1]), RecordError::TooLarge(MAX_RECORD + 1));
    assert_eq!(verify(&[0xff]), RecordError::BadMessage);
    assert_eq!(verify(&[]), RecordError::NoSignature);
    // signed as before 2021: not believed
    assert_eq!(verify(&with(vec![], 1, VALUE.as_bytes())), RecordError::NoSignature);
    let other = SigningKey::from_bytes(&[8; 32]);
    let data_ = data(VALUE, END, 3);
    assert_eq!(verify(&encode(&sign(&other, &data_), &data_)), RecordError::BadSignature);
    assert_eq!(verify(&encode(&[1; 64], &data_)), RecordError::BadSignature);
    assert_eq!(verify(&encode(&[1; 3], &data_)), RecordError::BadSignature);
    // the old fields say something else
    assert_eq!(verify(&with(good(), 1, b"/ipfs/bafkqaaa")), RecordError::Mismatch);
    let signed = |data: Vec<u8>| verify(&encode(&sign(&key(), &data), &data));
    assert_eq!(signed(vec![0xa0]), RecordError::ValidityType);
    assert_eq!(signed(vec![0xff]), RecordError::BadData);
    assert_eq!(signed(data(VALUE, "tomorrow", 3)), RecordError::BadTime);
    assert_eq!(signed(data("bafkqaaa", END, 3)), RecordError::BadValue);
    assert_eq!(signed(data(VALUE, END, -1)), RecordError::BadData);
}

#[test]
fn the_end_counts_where_there_is_a_clock() {
    let data = data(VALUE, "2000-01-01T00:00:00Z", 3);
    let record = encode(&sign(&key(), &data), &data);
    let name = name_of(&key());
    assert!(Record::verify(&name, &record, None).is_ok());
    assert_eq!(Record::verify(&name, &record, Some(946_684_800_000_000_000)), Err(RecordError::Expired));
    assert!(Record::verify(&name, &record, Some(946_684_799_999_999_999)).is_ok());
}

#[test]
fn a_copy_of_the_fields_may_stand_beside_the_data() {
    let mut record = with(with(good(), 1, VALUE.as_bytes()), 2, b"an old signature, wrong");
    record = with(record, 4, END.as_bytes());
    for (number, value) in [(3, 0), (5, 3), (6, 300_000_000_000)] {
        crate::dagpb::put_varint(number, value, &mut record);
    }
    assert_eq!(Record::verify(&name_of(&key()), &record, None).unwrap().value, VALUE);
}

#[test]
fn other_keys_are_refused_clearly() {
    for (kind, word) in [(2, "secp256k1"), (3, "ECDSA"), (9, "unknown")] {
        let message = [&[8, kind, 0x12, 0x20][..], &[1; 32]].concat();
        let mut hash = vec![0x12, 0x20];
        hash.extend_from_slice(&crate::sha256(&message));
        let name = Name::of_multihash(&hash).unwrap();
        assert_eq!(Record::verify(&name, &good(), None), Err(RecordError::NoKey));
        let why = Record::verify(&name, &with(good(), 7, &message), None).unwrap_err();
        assert_eq!(why, RecordError::KeyType(u64::from(kind)));
        assert!(why.to_string().contains(word), "{why}");
    }
}

#[test]
fn a_key_may_stand_in_the_record_under_its_digest() {
    let mut message = vec![8, 1, 0x12, 0x20];
    message.extend_from_slice(key().verifying_key().as_bytes());
    let mut hash = vec![0x12, 0x20];
    hash.extend_from_slice(&crate::sha256(&message));
    let name = Name::of_multihash(&hash).unwrap();
    assert_eq!(Record::verify(&name, &with(good(), 7, &message), None).unwrap().value, VALUE);
}

#[test]
fn names_in_every_form() {
    let name = name_of(&key());
    let text = name.to_string();
    assert!(text.starts_with("k51qzi5uqu5d") && text.len() == 62, "{text}");
    let bytes = name.cid().to_bytes();
    let forms = [
        text.clone(),
        text.to_uppercase(),
        format!("b{}", base::base32(&bytes)),
        base::base58(&bytes[2..]),
        format!("k{}", base::base36(&[&[1, 0x70], &bytes[2..]].concat())),
    ];
    assert!(forms[3].starts_with("12D3KooW"));
    for form in forms {
        assert_eq!(Name::parse(&form), Some(name.clone()), "{form}");
    }
    let rsa = Name::parse("QmcJM7PRfkSbcM5cf1QugM5R37TLRKyJGgBEhXjLTB8uA2").unwrap();
    assert_eq!(rsa.to_string(), "k2k4r8ol4m8kkcqz509c1rcjwunebj02gcnm5excpx842u736nja8ger");
    let peer = Name::parse("12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK").unwrap();
    assert_eq!(peer.to_string(), "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8");
    for wrong in ["", "example.org", "1", "Qm", "bafy", "k"] {
        assert_eq!(Name::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn rfc3339_times() {
    for (text, nanos) in [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("1970-01-01T00:00:00.000000001Z", Some(1)),
        ("1970-01-02T00:00:00.5Z", Some(86_400_500_000_000)),
        ("2000-02-29T12:00:00Z", Some(951_825_600_000_000_000)),
        ("2033-05-18T03:33:20Z", Some(2_000_000_000_000_000_000)),
        ("0001-01-01T00:00:00Z", Some(-62_135_596_800_000_000_000)),
        ("1970-01-01T00:00:00", None),
        ("1970-01-01T00:00:00+01:00", None),
        ("1970-13-01T00:00:00Z", None),
        ("1970-01-01T24:00:00Z", None),
        ("1970-01-01T00:00:00.0000000001Z", None),
        ("+970-01-01T00:00:00Z", None),
        ("1970-01-01-01T00:00:00Z", None),
        ("", None),
    ] {
        assert_eq!(parse_time(text.as_bytes()), nanos, "{text}");
    }
}

proptest! {
    #[test]
    fn any_bytes_and_text_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,80}") {
        let _ = Record::verify(&name_of(&key()), &bytes, Some(0));
        let _ = Name::parse(&text);
        let _ = parse_time(text.as_bytes());
    }

    #[test]
    fn no_flipped_bit_passes(at in 0usize..200, bit in 0u8..8) {
        let mut record = good();
        if let Some(byte) = record.get_mut(at) {
            *byte ^= 1 << bit;
            prop_assert!(Record::verify(&name_of(&key()), &record, None).is_err());
        }
    }
}

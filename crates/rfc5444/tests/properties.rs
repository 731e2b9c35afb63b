//! parse ∘ emit = identity, and no input makes the parser panic or read past the end.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use rfc5444::{Address, AddressBlock, AddressTlv, Message, Packet, PacketView, RawMessage, Tlv};

fn tlv() -> impl Strategy<Value = Tlv> {
    let value = of(prop_oneof![9 => vec(any::<u8>(), 0..8), 1 => vec(any::<u8>(), 250..300)]);
    (any::<u8>(), any::<u8>(), value).prop_map(|(kind, ext, value)| Tlv { kind, ext, value })
}

fn address(len: u8) -> impl Strategy<Value = Address> {
    // Few different octets, so that heads and tails are common.
    (vec(prop_oneof![Just(0u8), Just(0xfd), any::<u8>()], usize::from(len)), 0..=len * 8, any::<bool>())
        .prop_map(move |(octets, prefix, host)| {
            Address::new(&octets, if host { len * 8 } else { prefix }).unwrap()
        })
}

fn address_tlv(count: u8) -> impl Strategy<Value = AddressTlv> {
    (any::<u8>(), any::<u8>(), 0..count, 0..count, any::<bool>(), of(vec(any::<u8>(), 0..4))).prop_map(
        |(kind, ext, a, b, multi, value)| {
            let (start, stop) = (a.min(b), a.max(b));
            let multivalue = multi && start < stop && value.is_some();
            let times = if multivalue { usize::from(stop - start) + 1 } else { 1 };
            AddressTlv { kind, ext, start, stop, multivalue, value: value.map(|v| v.repeat(times)) }
        },
    )
}

fn block(len: u8) -> impl Strategy<Value = AddressBlock> {
    (1u8..20).prop_flat_map(move |count| {
        (vec(address(len), usize::from(count)), vec(address_tlv(count), 0..4))
            .prop_map(|(addresses, tlvs)| AddressBlock { addresses, tlvs })
    })
}

fn message() -> impl Strategy<Value = Message> {
    (1u8..=16).prop_flat_map(|len| {
        let header = (any::<u8>(), of(address(len)), of(any::<u8>()), of(any::<u8>()), of(any::<u16>()));
        (header, vec(tlv(), 0..4), vec(block(len), 0..4)).prop_map(move |(h, tlvs, blocks)| Message {
            kind: h.0,
            addr_len: len,
            originator: h.1.and_then(|a| Address::new(a.octets(), len * 8)),
            hop_limit: h.2,
            hop_count: h.3,
            seq: h.4,
            tlvs,
            blocks,
        })
    })
}

fn packet() -> impl Strategy<Value = Packet> {
    (of(any::<u16>()), of(vec(tlv(), 0..3)), vec(message(), 0..4)).prop_map(|(seq, tlvs, messages)| Packet {
        seq,
        tlvs,
        messages,
    })
}

/// Some routers refuse a head as long as an address; a zero tail may be.
#[test]
fn rfc5444_5_3_the_middle_of_addresses_is_not_empty() {
    let one = |octets: [u8; 4], lens: &[u8]| {
        let addresses = lens.iter().map(|len| Address::new(&octets, *len).unwrap()).collect();
        let blocks = vec![AddressBlock { addresses, tlvs: Vec::new() }];
        let message = Message { blocks, ..Message::new(1, 4) };
        let mut bytes = Vec::new();
        message.emit(&mut bytes).unwrap();
        let view = RawMessage::parse(&bytes).unwrap();
        assert_eq!(Message::from(&view.check().unwrap()), message);
        bytes[6..].to_vec()
    };
    assert_eq!(one([10, 1, 1, 9], &[30, 31, 32]), [3, 0x88, 3, 10, 1, 1, 9, 9, 9, 30, 31, 32, 0, 0]);
    assert_eq!(one([10, 0, 0, 0], &[8, 16]), [2, 0xa8, 3, 10, 0, 0, 1, 8, 16, 0, 0]);
    assert_eq!(one([0; 4], &[0]), [1, 0x30, 4, 0, 0, 0]);
}

/// Touches everything a view offers.
fn walk(bytes: &[u8]) {
    let Ok(view) = PacketView::parse(bytes) else { return };
    view.tlvs().for_each(drop);
    for raw in view.messages() {
        let mut copy = Vec::new();
        let forwarded = raw.forward(&mut copy);
        assert_eq!(forwarded, !copy.is_empty());
        let Ok(message) = raw.check() else { continue };
        assert!(message.tlvs().all(|t| t.start == 0 && t.stop == 0));
        for block in message.blocks() {
            assert_eq!(block.addresses().count(), usize::from(block.count()));
            for t in block.tlvs() {
                assert!((t.start..=t.stop).all(|i| t.value_at(i).is_some()));
            }
        }
    }
}

proptest! {
    #[test]
    fn rfc5444_parse_of_emit_is_identity(packet in packet()) {
        let bytes = packet.to_bytes().unwrap();
        prop_assert_eq!(Packet::parse(&bytes).unwrap(), packet);
        walk(&bytes);
    }

    #[test]
    fn rfc5444_random_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..200)) {
        walk(&bytes);
        let _ = Packet::parse(&bytes);
        let _ = RawMessage::parse(&bytes).map(|m| m.check().is_ok());
    }

    #[test]
    fn rfc5444_mutated_packets_do_not_panic(
        packet in packet(), hits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()
    ) {
        let mut bytes = packet.to_bytes().unwrap();
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        walk(&bytes);
        walk(&bytes[..cut.index(bytes.len())]);
        // What parses can be written again and means the same.
        if let Ok(packet) = Packet::parse(&bytes) {
            prop_assert_eq!(Packet::parse(&packet.to_bytes().unwrap()).unwrap(), packet);
        }
    }

    #[test]
    fn rfc7181_14_3_forwarding_changes_only_the_hops(message in message()) {
        let mut bytes = Vec::new();
        message.emit(&mut bytes).unwrap();
        let mut out = vec![7];
        let raw = RawMessage::parse(&bytes).unwrap();
        if raw.forward(&mut out) {
            let mut expected = message.clone();
            expected.hop_limit = message.hop_limit.map(|n| n - 1);
            expected.hop_count = message.hop_count.map(|n| n + 1);
            prop_assert_eq!(Message::from(&RawMessage::parse(&out[1..]).unwrap().check().unwrap()), expected);
        } else {
            prop_assert!(message.hop_limit.unwrap_or(0) <= 1 || message.hop_count == Some(255));
            prop_assert_eq!(out, vec![7]);
        }
    }

    #[test]
    fn rfc7182_9_1_stripped_bytes_are_those_of_the_message_without_the_tlvs(message in message(), kind in 0u8..4) {
        let mut with = message.clone();
        with.tlvs.iter_mut().for_each(|t| t.kind %= 4);
        let mut without = with.clone();
        without.tlvs.retain(|t| t.kind != kind);
        (without.hop_limit, without.hop_count) = (with.hop_limit.map(|_| 0), with.hop_count.map(|_| 0));
        let (mut bytes, mut expected, mut stripped) = (Vec::new(), Vec::new(), Vec::new());
        with.emit(&mut bytes).unwrap();
        without.emit(&mut expected).unwrap();
        let view = RawMessage::parse(&bytes).unwrap().check().unwrap();
        view.without_tlvs(kind, |part| stripped.extend_from_slice(part));
        prop_assert_eq!(stripped, expected);
    }
}

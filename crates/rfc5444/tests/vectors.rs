//! Packets made by other implementations: bytes → values → bytes → values.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use rfc5444::{Packet, PacketView};

const OLSRD2: &str = include_str!("data/olsrd2-captured.txt");
const INTEROP: &str = include_str!("data/rfc5444-interop2010.txt");

fn vectors(text: &str) -> Vec<(String, Vec<u8>)> {
    let lines = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    let packets: Vec<_> = lines
        .map(|line| {
            let (hex, name) = line.split_once(' ').unwrap();
            let bytes = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap());
            (name.to_string(), bytes.collect())
        })
        .collect();
    assert!(packets.len() > 5, "vector file is cut short");
    packets
}

#[test]
fn rfc5444_every_vector_parses_and_survives_reencoding() {
    for (name, bytes) in vectors(OLSRD2).into_iter().chain(vectors(INTEROP)) {
        let packet = Packet::parse(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let again = packet.to_bytes().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(Packet::parse(&again).unwrap(), packet, "{name}");
    }
}

#[test]
fn rfc5444_messages_of_vectors_are_kept_byte_for_byte() {
    for (name, bytes) in vectors(OLSRD2).into_iter().chain(vectors(INTEROP)) {
        let view = PacketView::parse(&bytes).unwrap();
        let raw: usize = view.messages().map(|m| m.bytes().len()).sum();
        let header = bytes.len() - raw;
        let mut copy = bytes[..header].to_vec();
        view.messages().for_each(|m| copy.extend_from_slice(m.bytes()));
        assert_eq!(copy, bytes, "{name}");
    }
}

/// Where the original is as short as can be, so are we. (Interop packets exercise odd forms on purpose,
/// and olsrd2 leaves out indices of a multivalue TLV, which RFC 5444 §5.4.1 does not allow.)
#[test]
fn rfc5444_reencoding_is_not_longer_than_olsrd2() {
    for (name, bytes) in vectors(OLSRD2) {
        let packet = Packet::parse(&bytes).unwrap();
        let again = packet.to_bytes().unwrap();
        let tlvs = packet.messages.iter().flat_map(|m| &m.blocks).flat_map(|b| &b.tlvs);
        let indices = 2 * tlvs.filter(|t| t.multivalue).count();
        assert!(again.len() <= bytes.len() + indices, "{name}: {} > {}", again.len(), bytes.len());
    }
}

#[test]
fn rfc5444_olsrd2_tc_reads_as_expected() {
    let (_, bytes) = vectors(OLSRD2).into_iter().find(|(n, _)| n.starts_with("TC of fd00::3")).unwrap();
    let packet = Packet::parse(&bytes).unwrap();
    let [message] = &packet.messages[..] else { panic!("one message") };
    assert_eq!(message.kind, 1);
    assert_eq!(message.originator.unwrap().to_string(), "fd00::3");
    assert_eq!((message.hop_limit, message.hop_count, message.seq), (Some(255), Some(0), Some(0x4b55)));
    let addresses: Vec<_> = message.blocks[0].addresses.iter().map(|a| a.to_string()).collect();
    assert_eq!(addresses, ["fd00::2", "fd00::4"]);
}

//! Packets made by other implementations: bytes → values → bytes → values.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use rfc5444::{Packet, PacketView};

const OLSRD2: &str = include_str!("data/olsrd2-captured.txt");
const EXAMPLES: &str = include_str!("data/rfc-examples.txt");
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
    assert!(packets.len() > 2, "vector file is cut short");
    packets
}

fn all() -> impl Iterator<Item = (String, Vec<u8>)> {
    [OLSRD2, INTEROP, EXAMPLES].into_iter().flat_map(vectors)
}

fn example(name: &str) -> Packet {
    let (_, bytes) = vectors(EXAMPLES).into_iter().find(|(n, _)| n == name).unwrap();
    Packet::parse(&bytes).unwrap()
}

#[test]
fn rfc5444_appendix_e_reads_as_described() {
    let packet = example("RFC 5444 Appendix E");
    let [message] = &packet.messages[..] else { panic!("one message") };
    let addresses: Vec<String> =
        message.blocks.iter().flat_map(|b| &b.addresses).map(|a| a.to_string()).collect();
    assert_eq!(addresses, ["10.1.0.0/16", "10.2.0.0/16", "192.168.0.1", "192.168.0.2", "192.168.0.3"]);
    let tlvs = &message.blocks[1].tlvs;
    assert_eq!((tlvs[0].start, tlvs[0].stop, tlvs[0].value.as_deref()), (0, 2, Some(&[0xaa, 0xbb][..])));
    assert_eq!((tlvs[1].start, tlvs[1].stop, tlvs[1].value.as_deref()), (1, 2, None));
}

#[test]
fn rfc6130_appendix_c_is_written_as_in_the_picture() {
    let (_, bytes) = vectors(EXAMPLES).into_iter().find(|(n, _)| n.contains("6130")).unwrap();
    assert_eq!(Packet::parse(&bytes).unwrap().to_bytes().unwrap(), bytes);
}

#[test]
fn rfc5444_every_vector_parses_and_survives_reencoding() {
    for (name, bytes) in all() {
        let packet = Packet::parse(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let again = packet.to_bytes().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(Packet::parse(&again).unwrap(), packet, "{name}");
    }
}

#[test]
fn rfc5444_messages_of_vectors_are_kept_byte_for_byte() {
    for (name, bytes) in all() {
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

//! Every kind of malformed element is named, with its place.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use rfc5444::{ErrorKind, Packet, PacketView};

fn error(bytes: &[u8]) -> (ErrorKind, usize) {
    let e = Packet::parse(bytes).unwrap_err();
    assert!(e.to_string().contains("at byte"));
    (e.kind, e.offset)
}

#[test]
fn rfc5444_5_1_packet_header() {
    assert_eq!(error(&[]), (ErrorKind::Truncated, 0));
    assert_eq!(error(&[0x10]), (ErrorKind::Version(1), 0));
    assert_eq!(error(&[0x08, 0]), (ErrorKind::Truncated, 1));
    assert_eq!(error(&[0x04, 0, 3, 1, 0]), (ErrorKind::Truncated, 3));
}

#[test]
fn rfc5444_5_2_message_size() {
    assert_eq!(error(&[0, 1, 3, 0, 2, 0, 0]), (ErrorKind::MessageSize(2), 3));
    assert_eq!(error(&[0, 1, 3, 0, 7, 0, 0]), (ErrorKind::MessageSize(7), 3));
    assert_eq!(error(&[0, 1, 3, 0]), (ErrorKind::Truncated, 3));
    assert_eq!(error(&[0, 1, 0x83, 0, 6, 0, 0]), (ErrorKind::Truncated, 5));
}

#[test]
fn rfc5444_5_3_address_blocks() {
    let block = |body: &[u8]| {
        let mut bytes = vec![0, 1, 3, 0, 6 + body.len() as u8, 0, 0];
        bytes.extend_from_slice(body);
        error(&bytes)
    };
    assert_eq!(block(&[0, 0, 0, 0]), (ErrorKind::NoAddresses, 7));
    assert_eq!(block(&[1, 0x60, 0, 0]), (ErrorKind::AddressFlags(0x60), 8));
    assert_eq!(block(&[1, 0x18, 0, 0]), (ErrorKind::AddressFlags(0x18), 8));
    assert_eq!(block(&[1, 0xa0, 3, 1, 2, 3, 2, 0, 0]), (ErrorKind::AddressLength, 9));
    assert_eq!(block(&[1, 0x10, 1, 2, 3, 4, 33, 0, 0]), (ErrorKind::PrefixLength(33), 13));
}

#[test]
fn rfc5444_5_4_tlvs() {
    let message_tlv = |tlv: &[u8]| {
        let mut bytes = vec![0, 1, 3, 0, 6 + tlv.len() as u8, 0, tlv.len() as u8];
        bytes.extend_from_slice(tlv);
        error(&bytes)
    };
    assert_eq!(message_tlv(&[1, 0x40, 0]), (ErrorKind::TlvFlags(0x40), 8));
    assert_eq!(message_tlv(&[1, 0x14, 1, 0]), (ErrorKind::TlvFlags(0x14), 8));
    assert_eq!(message_tlv(&[1, 0x08]), (ErrorKind::TlvFlags(0x08), 8));
    let address_tlv = |tlv: &[u8]| {
        let len = tlv.len() as u8;
        let mut bytes = vec![0, 1, 0, 0, 12 + len, 0, 0, 2, 0, 1, 2, 0, len];
        bytes.extend_from_slice(tlv);
        error(&bytes)
    };
    assert_eq!(address_tlv(&[1, 0x60, 0, 1]), (ErrorKind::TlvFlags(0x60), 14));
    assert_eq!(address_tlv(&[1, 0x40, 2]), (ErrorKind::TlvIndex(2), 15));
    assert_eq!(address_tlv(&[1, 0x20, 1, 0]), (ErrorKind::TlvIndex(0), 15));
    assert_eq!(address_tlv(&[1, 0x34, 0, 1, 3, 0, 0, 0]), (ErrorKind::TlvMultivalue(3), 17));
}

#[test]
fn what_comes_before_a_bad_message_can_be_salvaged() {
    let bytes = [0, 1, 3, 0, 6, 0, 0, 2, 3, 0, 99, 0, 0];
    assert_eq!(error(&bytes), (ErrorKind::MessageSize(99), 9));
    let (view, problem) = PacketView::salvage(&bytes).unwrap();
    assert_eq!(view.messages().map(|m| (m.kind(), m.offset())).collect::<Vec<_>>(), [(1, 1)]);
    assert_eq!(problem.unwrap().offset, 9);
    assert!(PacketView::salvage(&bytes[..7]).unwrap().1.is_none());
    assert!(PacketView::salvage(&[0x10]).is_err());
}

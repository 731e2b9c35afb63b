//! A packet that parses is written again and parses to the same.
#![no_main]
use libfuzzer_sys::fuzz_target;
use rfc5444::{Packet, PacketView};

fuzz_target!(|bytes: &[u8]| {
    let Ok(view) = PacketView::parse(bytes) else { return };
    for tlv in view.tlvs() {
        let _ = tlv;
    }
    for message in view.messages() {
        let Ok(message) = message.check() else { continue };
        for block in message.blocks() {
            for (index, address) in (0..block.count()).zip(block.addresses()) {
                assert_eq!(block.address(index), Some(address));
            }
            for tlv in block.tlvs() {
                let _ = tlv.value_at(0);
            }
        }
    }
    let _ = Packet::parse(bytes);
});

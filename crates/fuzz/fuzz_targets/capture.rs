//! A capture is read to its end; what its packets hold is explained.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mesh_trace::capture::{Capture, Content};
use mesh_trace::explain::{self, Place};
use rfc5444::PacketView;

fuzz_target!(|bytes: &[u8]| {
    let Ok(capture) = Capture::open(bytes) else { return };
    for frame in capture.flatten() {
        let Content::Packet { bytes, .. } = frame.content else { continue };
        let Ok((packet, problem)) = PacketView::salvage(&bytes) else { continue };
        assert_eq!(PacketView::parse(&bytes).err(), problem);
        for t in packet.tlvs() {
            let _ = explain::value(Place::Packet, 0, (t.kind, t.ext), t.value.unwrap_or_default());
        }
        for raw in packet.messages() {
            let Ok(message) = raw.check() else { continue };
            for t in message.tlvs() {
                let value = t.value.unwrap_or_default();
                let _ = explain::value(Place::Message, raw.kind(), (t.kind, t.ext), value);
            }
            for t in message.blocks().flat_map(|b| b.tlvs()) {
                let value = t.value_at(t.start).unwrap_or_default();
                let _ = explain::value(Place::Address, raw.kind(), (t.kind, t.ext), value);
            }
        }
    }
});

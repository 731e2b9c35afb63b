//! One packet for both families. RFC 5444 lets messages with addresses of different lengths share a packet, and
//! a router takes only those of its own length (RFC 6130 §12.1, RFC 7181 §16.3.1): so the messages of a node's
//! IPv4 instance travel in the packets of its IPv6 instance, the *carrier*.
//!
//! A router that only speaks IPv4 would not hear them. Packets in IPv4 of nodes that can share therefore bear a
//! packet TLV; while one without it was heard lately on an interface, a stranger is there, and IPv4 messages go
//! out there in packets of their own.

use core::net::IpAddr;

use mesh_types::{Duration, Instant};
use nhdp::{HELLO, Hello, LocalIf, Nhdp};
use rfc5444::{PacketView, Tlv};

use crate::ext::Olsr;
use crate::outbox::Due;
use crate::router::{Port, Router};

/// Packet TLV type of ours, for experiments (RFC 5444 §6.2): the sender also takes what comes by a carrier.
const SHARES: u8 = 224;
/// Packet TLV type of ours: nothing in the packet is news, so it need not be read before its receiver has something
/// else to do. It is the first TLV.
const CALM: u8 = 225;
/// Of a packet's first octet (RFC 5444 §5.1): it has a sequence number, and TLVs.
const PACKET_SEQ: u8 = 8;
const PACKET_TLVS: u8 = 4;
/// Octets of a packet, by their place from its beginning: of each the bits of a mask have a value if nothing in the
/// packet is news.
pub const CALM_AT: [(usize, u8, u8); 2] =
    [(0, 0xf0 | PACKET_SEQ | PACKET_TLVS, PACKET_SEQ | PACKET_TLVS), (5, 0xff, CALM)];
/// How long packets of their own follow a stranger's last one.
const STRANGER_HOLD: Duration = Duration::from_secs(30);

/// What an interface knows of its carrier.
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    /// There is one.
    pub(crate) carrier: bool,
    /// When a packet of a router came that would not hear it.
    stranger: Option<Instant>,
}

/// When something that can wait goes out: with the interface's next HELLO, after `wait` at the latest.
pub(crate) fn company(nhdp: &Nhdp<Olsr>, now: Instant, interface: u32, wait: Duration) -> Instant {
    nhdp.next_hello(interface).map_or(now, |hello| hello.min(now + wait))
}

/// The packet TLVs, for the packet header.
pub(crate) fn marks(calm: bool, shares: bool) -> Option<alloc::vec::Vec<Tlv>> {
    let mark = |kind| Tlv { kind, ext: 0, value: None };
    let all = [(calm, CALM), (shares, SHARES)].into_iter().filter(|(on, _)| *on);
    (calm || shares).then(|| all.map(|(_, kind)| mark(kind)).collect())
}

/// Whether a packet of ours says that it holds no news. Where [`CALM_AT`] says, so that a filter in the kernel finds
/// it, too.
pub fn is_calm(packet: &[u8]) -> bool {
    let marked = |(at, mask, value): &(usize, u8, u8)| packet.get(*at).is_some_and(|b| b & mask == *value);
    CALM_AT.iter().all(marked)
}

/// Takes that mark off a packet.
pub fn hurry(packet: &mut alloc::vec::Vec<u8>) {
    // The block's length, then its first TLV.
    if let Some(room) = packet.get(3..5).filter(|_| is_calm(packet)) {
        match room {
            [0, 2] => {
                drop(packet.drain(3..7));
                packet.first_mut().into_iter().for_each(|flags| *flags &= !PACKET_TLVS);
            }
            _ => {
                packet.get_mut(4).into_iter().for_each(|len| *len = len.wrapping_sub(2));
                drop(packet.drain(5..7));
            }
        }
    }
}

impl Port {
    /// Whether messages go out by the carrier, if they may at all.
    pub(crate) fn rides(&self, now: Instant) -> bool {
        let Sharing { carrier, stranger } = self.sharing;
        carrier && stranger.is_none_or(|at| at + STRANGER_HOLD < now)
    }
}

impl Router {
    /// HELLOs with signatures cover the address they come from, so they stay in packets of their own.
    pub(crate) fn may_share(&self) -> bool {
        self.config.share_packets && !self.has_keys()
    }

    /// [`crate::Input::Join`].
    pub(crate) fn join(&mut self, now: Instant, interface: u32) {
        if !self.may_share() || !self.ports.get(&interface).is_some_and(|p| p.rides(now)) {
            return;
        }
        self.nhdp.hasten(now, interface);
        if let Some(port) = self.ports.get_mut(&interface) {
            port.outbox.hasten(now);
        }
    }

    /// [`crate::Input::Carry`].
    pub(crate) fn carry(&mut self, now: Instant, interface: u32, messages: &[alloc::vec::Vec<u8>]) {
        self.nhdp.hasten(now, interface);
        let limit = self.config.limits.forward_queue;
        let Some(port) = self.ports.get_mut(&interface) else { return };
        for message in messages {
            if !port.outbox.push(message.clone(), Due::News(now), limit, None) {
                self.counters.queue_full += 1;
            }
        }
    }

    /// Whose messages a packet from `source` holds, in this router's family; `None`: nobody's that is known. If a
    /// HELLO had to tell, it is in `read`.
    pub(crate) fn sender(
        &mut self,
        now: Instant,
        interface: u32,
        source: IpAddr,
        packet: &PacketView<'_>,
        read: &mut Option<Hello>,
    ) -> Option<IpAddr> {
        if source.is_ipv4() == self.config.originator.is_ipv4() {
            if self.config.share_packets
                && !packet.tlvs().any(|t| t.kind == SHARES)
                && let Some(port) = self.ports.get_mut(&interface)
            {
                port.sharing.stranger = Some(now);
            }
            return Some(source);
        }
        let ours = |m: &rfc5444::RawMessage<'_>| m.kind() == HELLO && m.addr_len() == self.addr_len();
        if let Some(raw) = packet.messages().find(ours) {
            let links = self.nhdp.interface(interface)?.links().map(|(_, l)| l);
            let carried = links.filter(|l| l.ext.carrier == Some(source)).flat_map(|l| &l.ext.said);
            if let Some(known) = carried.filter_map(|said| said.source_of(&raw)).next() {
                return Some(known);
            }
            let hello = read.insert(Hello::parse(&raw.check().ok()?, self.addr_len()).ok()?);
            let here = hello.entries.iter().find(|e| e.local_if == Some(LocalIf::This))?;
            return Some(here.address.ip());
        }
        let mut links = self.nhdp.interface(interface)?.links().map(|(_, l)| l);
        Some(links.find(|l| l.ext.carrier == Some(source))?.addresses.first()?.ip())
    }

    /// Whoever has the key sends packets of its own: what came by a carrier is not signed.
    pub(crate) fn refuse_shared(&mut self, packet: &PacketView<'_>) {
        let addr_len = self.addr_len();
        let count = packet.messages().filter(|m| m.addr_len() == addr_len).count();
        self.counters.icv_missing += count as u64;
    }

    /// A HELLO came in a packet from `source`: later packets from there are from the same neighbour.
    pub(crate) fn note_carrier(&mut self, interface: u32, source: IpAddr, sender: IpAddr) {
        let carrier = Some(source).filter(|s| *s != sender);
        let Some((id, link)) = self.nhdp.link_to(interface, sender) else { return };
        if link.ext.carrier != carrier
            && let Some(link) = self.nhdp.link_mut(interface, id)
        {
            link.ext.carrier = carrier;
        }
    }
}

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
use crate::router::{Port, Router};

/// Packet TLV type of ours, for experiments (RFC 5444 §6.2): the sender also takes what comes by a carrier.
const SHARES: u8 = 224;
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

/// The packet TLV, for the packet header.
pub(crate) fn mark() -> [Tlv; 1] {
    [Tlv { kind: SHARES, ext: 0, value: None }]
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
            if !port.outbox.push(message.clone(), now, limit, None) {
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

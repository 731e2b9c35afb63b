//! Writing a recording.

use alloc::vec::Vec;
use core::convert::Infallible;
use core::net::IpAddr;

use mesh_types::Instant;
use rfc5444::NetAddr;

use super::config::{Fields, walk};
use super::{END, End, MAGIC, VERSION, kind};
use crate::{Config, Event, Input, Note, Output, Record, RouteChange};

/// Takes down what happens to one router. Every input, timeout and output has to be told, in order.
#[derive(Debug)]
pub struct Recorder {
    out: Bytes,
    last: Instant,
    /// Outputs since the last entry, and their digest.
    taken: u64,
    digest: Digest,
}

impl Recorder {
    /// For a router made of these.
    pub fn new(config: &Config, seed: u64, now: Instant) -> Self {
        let mut out = Bytes::default();
        out.byte(kind::START);
        out.num(now.as_micros());
        out.num(seed);
        // Writing can't fail.
        let _ = walk(&mut out, &mut config.clone());
        out.num(config.keys.len() as u64);
        config.keys.iter().for_each(|k| out.0.extend(k.id()));
        Self { out, last: now, taken: 0, digest: Digest::default() }
    }

    fn entry(&mut self, now: Instant, kind: u8) -> &mut Bytes {
        self.settle();
        self.out.byte(kind);
        self.out.num(now.saturating_since(self.last).as_micros());
        self.last = self.last.max(now);
        &mut self.out
    }

    /// Before [`crate::Router::handle_timeout`].
    pub fn timeout(&mut self, now: Instant) {
        self.entry(now, kind::TIMEOUT);
    }

    /// Before [`crate::Router::handle_input`].
    pub fn input(&mut self, now: Instant, input: &Input<'_>) {
        let at = |this: &mut Self, kind, interface: u32| this.entry(now, kind).num(interface.into());
        match *input {
            Input::Packet { interface, source, bytes } => {
                at(self, kind::PACKET, interface);
                self.out.ip(source);
                self.out.bytes(bytes);
            }
            Input::InterfaceUp { interface, addresses } => {
                at(self, kind::INTERFACE_UP, interface);
                self.out.prefixes(addresses);
            }
            Input::AddressesChanged { interface, addresses } => {
                at(self, kind::ADDRESSES_CHANGED, interface);
                self.out.prefixes(addresses);
            }
            Input::Carrier { interface, on } => {
                at(self, kind::CARRIER, interface);
                self.out.byte(on.into());
            }
            Input::Join { interface } => at(self, kind::JOIN, interface),
            Input::Carry { interface, messages } => {
                at(self, kind::CARRY, interface);
                self.out.num(messages.len() as u64);
                messages.iter().for_each(|m| self.out.bytes(m));
            }
            Input::InterfaceDown { interface } => at(self, kind::INTERFACE_DOWN, interface),
            Input::LinkLost { interface, address } => {
                at(self, kind::LINK_LOST, interface);
                self.out.ip(address);
            }
            Input::LinkQuality { interface, address, quality: q } => {
                at(self, kind::LINK_QUALITY, interface);
                self.out.ip(address);
                self.out.maybe(q.quality.map(u64::from));
                self.out.maybe(q.metric_in.map(|m| m.value().into()));
                self.out.maybe(q.bitrate_in);
                self.out.maybe(q.signal.map(|s| u64::from(s.cast_unsigned())));
            }
            Input::InterfaceBitrate { interface, bits_per_second } => {
                at(self, kind::INTERFACE_BITRATE, interface);
                self.out.maybe(bits_per_second);
            }
            Input::ProbeAnswered { interface, address } => {
                at(self, kind::PROBE_ANSWERED, interface);
                self.out.ip(address);
            }
            Input::ProbeFailed { interface, address } => {
                at(self, kind::PROBE_FAILED, interface);
                self.out.ip(address);
            }
            Input::Leave => drop(self.entry(now, kind::LEAVE)),
            Input::AttachedNetworks(networks) => {
                let out = self.entry(now, kind::ATTACHED_NETWORKS);
                out.num(networks.len() as u64);
                for n in networks {
                    out.prefix(n.prefix);
                    out.byte(n.dist);
                    out.num(n.metric.value().into());
                }
            }
            Input::Notes(notes) => {
                let out = self.entry(now, kind::NOTES);
                out.num(notes.len() as u64);
                for (prefix, note) in notes {
                    out.prefix(*prefix);
                    // The family tells them apart.
                    out.ip(match note {
                        Note::TunnelsEndIn(net) => (*net).into(),
                        Note::SameNode(address) => (*address).into(),
                    });
                }
            }
            Input::Tunnels(gateways) => {
                let out = self.entry(now, kind::TUNNELS);
                out.num(gateways.len() as u64);
                gateways.iter().for_each(|g| out.ip(*g));
            }
            Input::Keys(keys) => {
                let out = self.entry(now, kind::KEYS);
                out.num(keys.len() as u64);
                keys.iter().for_each(|k| out.0.extend(k.id()));
            }
            Input::Publish { kind: which, sequence, payload, validity } => {
                let out = self.entry(now, kind::PUBLISH);
                out.byte(which);
                out.num(sequence.into());
                out.bytes(payload);
                out.num(validity.as_micros());
            }
            Input::JudgeRecord { originator, kind: which, sequence, genuine } => {
                let out = self.entry(now, kind::JUDGE_RECORD);
                out.ip(originator);
                out.byte(which);
                out.num(sequence.into());
                out.byte(genuine.into());
            }
            Input::Withdraw { kind: which } => self.entry(now, kind::WITHDRAW).byte(which),
        }
    }

    /// After [`crate::Router::poll_output`] gave something.
    pub fn output(&mut self, output: &Output) {
        self.taken += 1;
        self.digest.add(output);
    }

    /// Closes the count of outputs.
    fn settle(&mut self) {
        if self.taken > 0 {
            self.out.byte(kind::OUTPUTS);
            self.out.num(self.taken);
            self.out.0.extend(self.digest.value().to_le_bytes());
            self.taken = 0;
        }
    }

    /// The entries since the last call; to be put into a [`block`].
    pub fn take(&mut self) -> Vec<u8> {
        self.settle();
        core::mem::take(&mut self.out.0)
    }
}

/// Running digest of all that a router gave out: FNV-1a, 32 bits. Not against malice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u32);

impl Default for Digest {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Digest {
    /// Takes one more output.
    pub fn add(&mut self, output: &Output) {
        let mut bytes = Bytes::default();
        bytes.output(output);
        for byte in bytes.0 {
            self.0 = (self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }

    /// Of all taken so far.
    pub const fn value(self) -> u32 {
        self.0
    }
}

/// The beginning of a recording, as made by `program`.
pub fn header(program: &str, out: &mut Vec<u8>) {
    out.extend(MAGIC);
    out.push(VERSION);
    let mut text = Bytes::default();
    text.bytes(program.as_bytes());
    out.append(&mut text.0);
}

/// Puts entries of router `who` (below [`END`]) into a block.
pub fn block(who: u8, entries: &[u8], out: &mut Vec<u8>) {
    let mut block = Bytes::default();
    block.byte(who);
    block.bytes(entries);
    out.append(&mut block.0);
}

/// The last block.
pub fn end(why: End, out: &mut Vec<u8>) {
    block(END, &[if why == End::Full { 1 } else { 0 }], out);
}

#[derive(Debug, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn num(&mut self, mut n: u64) {
        while n > 0x7f {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn maybe(&mut self, n: Option<u64>) {
        self.byte(n.is_some().into());
        n.into_iter().for_each(|n| self.num(n));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.num(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(a) => self.bytes(&a.octets()),
            IpAddr::V6(a) => self.bytes(&a.octets()),
        }
    }

    fn prefix(&mut self, net: NetAddr) {
        self.ip(net.ip());
        self.byte(net.prefix_len());
    }

    fn prefixes(&mut self, nets: &[NetAddr]) {
        self.num(nets.len() as u64);
        nets.iter().for_each(|n| self.prefix(*n));
    }

    fn output(&mut self, output: &Output) {
        match output {
            Output::Transmit { interface, bytes } => {
                self.byte(0);
                self.num((*interface).into());
                self.bytes(bytes);
            }
            Output::Probe { interface, address } => {
                self.byte(1);
                self.num((*interface).into());
                self.ip(*address);
            }
            Output::Route(change) => {
                let RouteChange { prefix, old, new } = change;
                self.byte(if old.is_none() {
                    2
                } else if new.is_some() {
                    3
                } else {
                    4
                });
                self.prefix(*prefix);
                for way in old.iter().chain(new) {
                    self.ip(way.next_hop);
                    self.num(way.interface.into());
                }
            }
            Output::Carry { interface, messages } => {
                self.byte(255);
                self.num((*interface).into());
                self.num(messages.len() as u64);
                messages.iter().for_each(|m| self.bytes(m));
            }
            Output::Event(event) => self.event(event),
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::NeighborUp { interface, address, originator }
            | Event::NeighborDown { interface, address, originator } => {
                self.byte(if matches!(event, Event::NeighborUp { .. }) { 5 } else { 6 });
                self.num((*interface).into());
                self.ip(*address);
                originator.iter().for_each(|o| self.ip(*o));
            }
            Event::RecordReceived(record) => {
                let Record { originator, kind, sequence, expires, payload } = record;
                self.byte(7);
                self.ip(*originator);
                self.byte(*kind);
                self.num((*sequence).into());
                self.num(expires.as_micros());
                self.bytes(payload);
            }
            Event::RecordExpired { originator, kind } => {
                self.byte(8);
                self.ip(*originator);
                self.byte(*kind);
            }
        }
    }
}

impl Fields for Bytes {
    type Error = Infallible;
    fn number(&mut self, value: &mut u64) -> Result<(), Infallible> {
        self.num(*value);
        Ok(())
    }
    fn address(&mut self, value: &mut IpAddr) -> Result<(), Infallible> {
        self.ip(*value);
        Ok(())
    }
    fn octets(&mut self, value: &mut Vec<u8>) -> Result<(), Infallible> {
        self.bytes(value);
        Ok(())
    }
}

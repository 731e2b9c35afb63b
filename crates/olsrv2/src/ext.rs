//! What OLSRv2 keeps with NHDP's tuples (RFC 7181 §8) and how it speaks in HELLOs (§15).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Instant, Metric};
use nhdp::{Extension, Hello, HelloEntry};
use rfc5444::{Attribute, NetAddr, Tlv};

use crate::again::Said;
use crate::dat::Dat;
use crate::summary::Differing;

/// MPR_WILLING message TLV type.
const MPR_WILLING: u8 = 7;
/// A message TLV of ours in HELLOs, of a type for experiments (RFC 5444 §6.2), without a value: the sender has routes to
/// its neighbours whether they send TCs or not (RFC 7181 §19.1). olsrd2 has none to a neighbour without TCs; who does
/// not say so is advertised, so that there are some (§17.3 point 5).
pub const NEEDS_NO_TC: u8 = 230;
/// LINK_METRIC address block TLV type; LINK_METRIC_TYPE is extension 0.
pub(crate) const LINK_METRIC: u8 = 7;
/// MPR address block TLV type; its value is a bit field (RFC 7188 §4.3.2).
const MPR: u8 = 8;
const FLOODING: u8 = 1;
const ROUTING: u8 = 2;

/// Marks NHDP's tuples as OLSRv2's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Olsr;

impl Extension for Olsr {
    type Link = LinkExt;
    type Neighbor = NeighborExt;
    type TwoHop = TwoHopExt;
}

/// RFC 7181 §8.1.
#[derive(Clone, Debug)]
pub(crate) struct LinkExt {
    /// L_in_metric.
    pub(crate) metric_in: Metric,
    /// L_out_metric.
    pub(crate) metric_out: Metric,
    /// L_mpr_selector.
    pub(crate) mpr_selector: bool,
    /// What L_in_metric is measured from, with [`crate::MetricMode::Dat`].
    pub(crate) dat: Option<Box<Dat>>,
    /// L_in_metric was measured at least once.
    pub(crate) measured: bool,
    /// Received signal in dBm, if the radio told.
    pub(crate) signal: Option<i8>,
    /// The neighbour's messages come in packets of the other family, from this address.
    pub(crate) carrier: Option<IpAddr>,
    /// How often it wanted everything.
    pub(crate) wishes: Wishes,
    /// Its last HELLOs that only put off times.
    pub(crate) said: Vec<Said>,
    /// Its last summary, if that was other than ours.
    pub(crate) differing: Option<Box<Differing>>,
}

impl Default for LinkExt {
    fn default() -> Self {
        Self {
            metric_in: crate::DEFAULT_METRIC,
            metric_out: Metric::UNKNOWN,
            mpr_selector: false,
            dat: None,
            measured: false,
            signal: None,
            carrier: None,
            wishes: Wishes::default(),
            said: Vec::new(),
            differing: None,
        }
    }
}

/// A neighbour that wants all TCs and records, since it is new or was started anew.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wishes {
    granted: u8,
    /// A wish came too early.
    waiting: bool,
    next: Instant,
}

/// Between the first two times that a neighbour gets everything, at the least; then twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How often the wait is doubled.
const DOUBLED: u8 = 6;
/// Who wants nothing for so long begins anew.
const CONTENT: Duration = Duration::from_secs(60);

impl Wishes {
    /// Whether it gets what it wants; if it does, the next time is later.
    pub(crate) fn grant(&mut self, now: Instant) -> bool {
        self.waiting = now < self.next;
        if self.waiting {
            return false;
        }
        if now >= self.next + CONTENT {
            self.granted = 0;
        }
        self.next = now + FIRST_WAIT.times(1 << self.granted);
        self.granted = (self.granted + 1).min(DOUBLED);
        true
    }

    /// Whether a wish that came too early is granted now.
    pub(crate) fn grant_late(&mut self, now: Instant) -> bool {
        self.waiting && now >= self.next && self.grant(now)
    }
}

/// RFC 7181 §8.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NeighborExt {
    /// N_orig_addr.
    pub(crate) originator: Option<IpAddr>,
    /// N_in_metric.
    pub(crate) metric_in: Metric,
    /// N_out_metric.
    pub(crate) metric_out: Metric,
    /// N_will_flooding.
    pub(crate) will_flooding: u8,
    /// N_will_routing.
    pub(crate) will_routing: u8,
    /// N_flooding_mpr.
    pub(crate) flooding_mpr: bool,
    /// N_routing_mpr.
    pub(crate) routing_mpr: bool,
    /// N_mpr_selector.
    pub(crate) mpr_selector: bool,
    /// It may have no route to us without a TC of ours.
    pub(crate) needs_tc: bool,
    /// N_advertised, if it is not let go at the first periodic TC after that time (§17.3 point 5).
    pub(crate) advertised_until: Option<Instant>,
}

impl Default for NeighborExt {
    fn default() -> Self {
        Self {
            originator: None,
            metric_in: Metric::UNKNOWN,
            metric_out: Metric::UNKNOWN,
            will_flooding: 0,
            will_routing: 0,
            flooding_mpr: false,
            routing_mpr: false,
            mpr_selector: false,
            needs_tc: false,
            advertised_until: None,
        }
    }
}

/// RFC 7181 §8.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TwoHopExt {
    /// N2_in_metric.
    pub(crate) metric_in: Metric,
    /// N2_out_metric.
    pub(crate) metric_out: Metric,
}

impl Default for TwoHopExt {
    fn default() -> Self {
        Self { metric_in: Metric::UNKNOWN, metric_out: Metric::UNKNOWN }
    }
}

/// The four metrics an address may carry (RFC 7181 §13.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metrics {
    pub(crate) link_in: Option<Metric>,
    pub(crate) link_out: Option<Metric>,
    pub(crate) neighbor_in: Option<Metric>,
    pub(crate) neighbor_out: Option<Metric>,
}

impl Metrics {
    /// Adds one LINK_METRIC value (short ones are filled up with zeros, RFC 7188 §4); `false` if it
    /// contradicts what was there.
    pub(crate) fn add(&mut self, value: &[u8]) -> bool {
        let byte = |i: usize| value.get(i).copied().unwrap_or(0);
        let bits = u16::from_be_bytes([byte(0), byte(1)]);
        let metric = Metric::from_compressed(bits & 0xfff);
        let slots = [&mut self.link_in, &mut self.link_out, &mut self.neighbor_in, &mut self.neighbor_out];
        let mut agree = true;
        for (slot, bit) in slots.into_iter().zip([0x8000u16, 0x4000, 0x2000, 0x1000]) {
            if bits & bit != 0 {
                agree &= *slot.get_or_insert(metric) == metric;
            }
        }
        agree
    }

    /// The metrics of a HELLO's address; `None` if they contradict each other.
    pub(crate) fn of(entry: &HelloEntry) -> Option<Self> {
        let mut metrics = Self::default();
        let own = entry.attributes.iter().filter(|a| a.kind == LINK_METRIC && a.ext == 0);
        own.into_iter().all(|a| metrics.add(a.value())).then_some(metrics)
    }

    /// The TLVs that say this, one per distinct value.
    pub(crate) fn attributes(&self) -> Vec<Attribute> {
        let all = [
            (self.link_in, 0x8000u16),
            (self.link_out, 0x4000),
            (self.neighbor_in, 0x2000),
            (self.neighbor_out, 0x1000),
        ];
        let mut values: Vec<u16> = Vec::new();
        for (metric, bit) in all {
            let Some(metric) = metric.filter(|m| *m != Metric::UNKNOWN) else { continue };
            let code = metric.to_compressed();
            match values.iter_mut().find(|v| **v & 0xfff == code) {
                Some(same) => *same |= bit,
                None => values.push(bit | code),
            }
        }
        values.iter().map(|v| Attribute::new(LINK_METRIC, &v.to_be_bytes())).collect()
    }
}

/// The MPR TLV for these roles, if any.
pub(crate) fn mpr_attribute(flooding: bool, routing: bool) -> Option<Attribute> {
    let bits = (if flooding { FLOODING } else { 0 }) | (if routing { ROUTING } else { 0 });
    (bits != 0).then(|| Attribute::new(MPR, &[bits]))
}

/// What an address' MPR TLVs say: selected as flooding MPR, as routing MPR.
pub(crate) fn mpr_roles(entry: &HelloEntry) -> (bool, bool) {
    let own = entry.attributes.iter().filter(|a| a.kind == MPR && a.ext == 0);
    let bits = own.fold(0, |bits, a| bits | a.value().first().copied().unwrap_or(0));
    (bits & FLOODING != 0, bits & ROUTING != 0)
}

/// The MPR_WILLING TLV.
pub(crate) fn willing_tlv(flooding: u8, routing: u8) -> Tlv {
    Tlv::new(MPR_WILLING, &[(flooding.min(15) << 4) | routing.min(15)])
}

/// OLSRv2's view of a HELLO that may be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Willingness, if the sender runs OLSRv2 at all.
    pub(crate) willing: Option<(u8, u8)>,
}

/// Why OLSRv2 refuses a HELLO (RFC 7181 §15.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// RFC 7181 §15.3.1. `here` are the receiving interface's addresses, `owned` tells whether an address is
/// partially owned by this router.
pub(crate) fn check_hello(
    hello: &Hello,
    here: &[NetAddr],
    owned: impl Fn(NetAddr) -> bool,
) -> Result<Checked, Invalid> {
    let willing = hello.message_tlv(MPR_WILLING).map_err(|_| Invalid)?;
    if let Some(sender) = hello.originator {
        if owned(sender) {
            return Err(Invalid);
        }
        let names_itself = |e: &HelloEntry| e.link_status.is_some() || e.other_neighb.is_some();
        if hello.entries.iter().any(|e| names_itself(e) && e.address.overlaps(sender)) {
            return Err(Invalid);
        }
    }
    let mut on_us = Metrics::default();
    for entry in &hello.entries {
        // Of addresses that NHDP passes over, metrics may say what they like.
        let processed =
            entry.local_if.is_some() || entry.link_status.is_some() || entry.other_neighb.is_some();
        let metrics = match Metrics::of(entry) {
            None if processed => return Err(Invalid),
            other => other.unwrap_or_default(),
        };
        if here.contains(&entry.address) && !merge(&mut on_us, &metrics) {
            return Err(Invalid);
        }
        // RFC 7188: a bit that is clear says nothing, so a value of zero is no association. olsrd2 sets bits of
        // neighbours that it has lost, or only hears; there they mean nothing.
        let neighbor = entry.link_status.is_some() || entry.other_neighb.is_some();
        if mpr_roles(entry) != (false, false) && !neighbor {
            return Err(Invalid);
        }
    }
    let willing = willing.map(|v| v.first().copied().unwrap_or(0)).map(|v| (v >> 4, v & 0x0f));
    Ok(Checked { willing })
}

fn merge(into: &mut Metrics, from: &Metrics) -> bool {
    let pairs = [
        (&mut into.link_in, from.link_in),
        (&mut into.link_out, from.link_out),
        (&mut into.neighbor_in, from.neighbor_in),
        (&mut into.neighbor_out, from.neighbor_out),
    ];
    pairs.into_iter().all(|(slot, value)| value.is_none_or(|v| *slot.get_or_insert(v) == v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc7181_13_3_2_metric_bits_and_values() {
        let mut m = Metrics::default();
        assert!(m.add(&[0x3f, 0xff]));
        assert_eq!(
            (m.link_in, m.neighbor_in, m.neighbor_out),
            (None, Some(Metric::MAX_LINK), Some(Metric::MAX_LINK))
        );
        assert!(m.add(&[0x80, 0x00]));
        assert_eq!(m.link_in, Some(Metric::MIN));
        assert!(!m.add(&[0x80, 0x01]), "a second value of the same kind");
        let mut back = Metrics::default();
        for a in (Metrics { link_in: Some(Metric::MIN), ..m }).attributes() {
            assert!(back.add(a.value()));
        }
        assert_eq!(back, Metrics { link_in: Some(Metric::MIN), ..m });
    }

    #[test]
    fn whoever_wants_everything_again_and_again_waits_longer_each_time() {
        let mut wishes = Wishes::default();
        let at = |s| Instant::from_millis(1000 + s * 500);
        let granted: Vec<u64> = (0..1000).filter(|s| wishes.grant(at(*s))).collect();
        assert_eq!(granted, [0, 2, 6, 14, 30, 62, 126, 254, 382, 510, 638, 766, 894]);
        assert!(wishes.grant(at(894 + 128 + 120)) && !wishes.grant(at(894 + 128 + 121)), "it was content");
        assert!(
            !wishes.grant_late(at(894 + 128 + 121)) && wishes.grant_late(at(894 + 128 + 122)),
            "not forgotten"
        );
        assert!(!wishes.grant_late(at(2000)), "nothing is wanted");
    }

    #[test]
    fn rfc7188_4_metric_value_without_kind_says_nothing() {
        let mut m = Metrics::default();
        assert!(m.add(&[0x0f, 0xff]) && m.add(&[]) && m.add(&[0x00]));
        assert_eq!(m, Metrics::default());
    }
}

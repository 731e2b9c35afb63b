//! TC messages as values (RFC 7181 §16.1, §16.3.1).

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Metric};
use rfc5444::{
    Attribute, Attributed, INTERVAL_TIME, Message, MessageView, NetAddr, Tlv, VALIDITY_TIME, decode_time,
    pack, time_code_at,
};

use nhdp::MAX_PAIRS;

use crate::ext::{LINK_METRIC, Metrics};
use crate::scope::Scopes;
use crate::tunnel::{NOTE, Note};

/// TC message type (RFC 7181 §24.2).
pub(crate) const TC: u8 = 1;
/// CONT_SEQ_NUM message TLV type; extension 0 is COMPLETE, 1 INCOMPLETE.
pub(crate) const CONT_SEQ_NUM: u8 = 8;
/// NBR_ADDR_TYPE address block TLV type; a bit field (RFC 7188 §4.3.2).
const NBR_ADDR_TYPE: u8 = 9;
/// GATEWAY address block TLV type.
const GATEWAY: u8 = 10;
/// NBR_ADDR_TYPE: the address is an originator address.
pub(crate) const ORIGINATOR: u8 = 1;
/// NBR_ADDR_TYPE: the address is routable.
pub(crate) const ROUTABLE: u8 = 2;

/// One advertised neighbour address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Advertised {
    pub(crate) address: NetAddr,
    /// [`ORIGINATOR`] and [`ROUTABLE`].
    pub(crate) kind: u8,
    /// Outgoing neighbour metric; `None` is UNKNOWN_METRIC.
    pub(crate) metric: Option<Metric>,
}

/// One attached network; a metric of `None` is UNKNOWN_METRIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Gateway {
    pub(crate) prefix: NetAddr,
    pub(crate) dist: u8,
    pub(crate) metric: Option<Metric>,
}

/// A TC's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tc {
    pub(crate) originator: IpAddr,
    pub(crate) seq: u16,
    pub(crate) validity: Duration,
    /// ANSN and whether the TC is complete.
    pub(crate) ansn: Option<(u16, bool)>,
    pub(crate) neighbors: Vec<Advertised>,
    pub(crate) gateways: Vec<Gateway>,
    /// What is said of some of the gateways' prefixes.
    pub(crate) notes: Vec<(NetAddr, Note)>,
}

/// The TC is invalid (§16.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// What is said of one address, all its copies taken together.
#[derive(Default)]
struct Said {
    kind: u8,
    dist: Option<u8>,
    metrics: Metrics,
    note: Option<Note>,
    /// It has two different outgoing neighbour metrics.
    two_metrics: bool,
}

impl Tc {
    /// Reads a TC and checks all that needs no table. `max` bounds the addresses taken.
    pub(crate) fn parse(message: &MessageView<'_>, addr_len: u8, max: usize) -> Result<Self, Invalid> {
        let header = message.header();
        if header.addr_len() != addr_len {
            return Err(Invalid);
        }
        let originator = header.originator().and_then(|a| a.net_addr()).ok_or(Invalid)?;
        let seq = header.seq().ok_or(Invalid)?;
        if message.pairs() > MAX_PAIRS {
            return Err(Invalid);
        }
        let mut validity = None;
        let mut interval = None;
        let mut ansn = None;
        for t in message.tlvs() {
            let value = t.value.unwrap_or_default();
            match (t.kind, t.ext) {
                (VALIDITY_TIME, 0) => once(&mut validity, time(value, header.hop_count())?)?,
                (INTERVAL_TIME, 0) => once(&mut interval, time(value, header.hop_count())?)?,
                (CONT_SEQ_NUM, ext @ (0 | 1)) => {
                    // RFC 7188 §4.2: the one value that is not filled up with zeros.
                    let number = value.first_chunk::<2>().ok_or(Invalid)?;
                    once(&mut ansn, (u16::from_be_bytes(*number), ext == 0))?;
                }
                _ => {}
            }
        }
        let said = said(message, max)?;
        let mut tc = Self {
            originator: originator.ip(),
            seq,
            validity: validity.ok_or(Invalid)?,
            ansn,
            neighbors: Vec::new(),
            gateways: Vec::new(),
            notes: Vec::new(),
        };
        for (address, said) in said {
            tc.add(address, &said, originator)?;
        }
        let empty = tc.neighbors.is_empty() && tc.gateways.is_empty();
        if tc.ansn.is_none() && !empty { Err(Invalid) } else { Ok(tc) }
    }

    fn add(&mut self, address: NetAddr, said: &Said, originator: NetAddr) -> Result<(), Invalid> {
        let metric = said.metrics.neighbor_out;
        if said.kind == 0 && said.dist.is_none() {
            return Ok(());
        }
        if (said.kind != 0 && said.dist.is_some()) || address == originator || said.two_metrics {
            return Err(Invalid);
        }
        if let Some(dist) = said.dist {
            // A route to link-local, multicast or loopback addresses would do harm; a default route is fine.
            if address.prefix_len() == 0 || is_routable(address.ip()) {
                self.gateways.push(Gateway { prefix: address.network(), dist, metric });
                self.notes.extend(said.note.map(|note| (address.network(), note)));
            }
            return Ok(());
        }
        let routable = said.kind & ROUTABLE == 0 || is_routable(address.ip());
        let host = said.kind & ORIGINATOR == 0 || address.is_host();
        if !routable || !host {
            return Err(Invalid);
        }
        self.neighbors.push(Advertised { address, kind: said.kind, metric });
        Ok(())
    }

    /// The message to send, with that hop limit.
    pub(crate) fn to_message(&self, hop_limit: u8, interval: Duration, scopes: &Scopes) -> Message {
        self.with_times(hop_limit, &scopes.times(interval), &scopes.times(self.validity))
    }

    /// The same with the values of its INTERVAL_TIME and VALIDITY_TIME TLVs.
    pub(crate) fn with_times(&self, hop_limit: u8, interval: &[u8], validity: &[u8]) -> Message {
        let mut message = Message::new(TC, if self.originator.is_ipv4() { 4 } else { 16 });
        message.originator = Some(self.originator.into());
        message.hop_limit = Some(hop_limit);
        message.hop_count = Some(0);
        message.seq = Some(self.seq);
        message.tlvs = vec![Tlv::new(INTERVAL_TIME, interval), Tlv::new(VALIDITY_TIME, validity)];
        if let Some((ansn, complete)) = self.ansn {
            let value = Some(ansn.to_be_bytes().to_vec());
            message.tlvs.push(Tlv { kind: CONT_SEQ_NUM, ext: u8::from(!complete), value });
        }
        let metric = |m: Option<Metric>| Metrics { neighbor_out: m, ..Metrics::default() }.attributes();
        let neighbors = self.neighbors.iter().map(|n| {
            let mut attributes = vec![Attribute::new(NBR_ADDR_TYPE, &[n.kind])];
            attributes.extend(metric(n.metric));
            Attributed { address: n.address.into(), attributes }
        });
        let gateways = self.gateways.iter().map(|g| {
            let mut attributes = vec![Attribute::new(GATEWAY, &[g.dist])];
            attributes.extend(metric(g.metric));
            let notes = self.notes.iter().filter(|(prefix, _)| *prefix == g.prefix);
            attributes.extend(notes.map(|(_, note)| Attribute::new(NOTE, &note.value())));
            Attributed { address: g.prefix.into(), attributes }
        });
        message.blocks = pack(&neighbors.collect::<Vec<_>>());
        message.blocks.extend(pack(&gateways.collect::<Vec<_>>()));
        message
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Invalid> {
    if slot.replace(value).is_some() { Err(Invalid) } else { Ok(()) }
}

fn time(value: &[u8], hop_count: Option<u8>) -> Result<Duration, Invalid> {
    if hop_count.is_none() && value.len() > 1 {
        return Err(Invalid);
    }
    let hops = hop_count.map_or(u8::MAX, |n| n.saturating_add(1));
    let code = time_code_at(value, hops).ok_or(Invalid)?;
    Ok(Duration::from_micros(decode_time(code)))
}

fn said(message: &MessageView<'_>, max: usize) -> Result<BTreeMap<NetAddr, Said>, Invalid> {
    let mut all: BTreeMap<NetAddr, Said> = BTreeMap::new();
    for block in message.blocks() {
        for (i, address) in (0..block.count()).filter_map(|i| Some((i, block.address(i)?.net_addr()?))) {
            if !all.contains_key(&address) && all.len() >= max {
                return Err(Invalid);
            }
            let said = all.entry(address).or_default();
            for t in block.tlvs().filter(|t| t.ext == 0) {
                let Some(value) = t.value_at(i) else { continue };
                let first = value.first().copied().unwrap_or(0);
                match t.kind {
                    NBR_ADDR_TYPE => said.kind |= first & (ORIGINATOR | ROUTABLE),
                    NOTE => said.note = Note::read(address, value).or(said.note),
                    GATEWAY if *said.dist.get_or_insert(first) != first => return Err(Invalid),
                    LINK_METRIC => {
                        let first = said.metrics.neighbor_out;
                        let mut this = Metrics::default();
                        this.add(value);
                        said.two_metrics |=
                            this.neighbor_out.is_some_and(|new| first.is_some_and(|m| m != new));
                        said.metrics.add(value);
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(all)
}

/// Whether an address may be a destination beyond its link (RFC 7181 §2, "routable address").
pub(crate) fn is_routable(ip: IpAddr) -> bool {
    let local = match ip {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    !(local || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

/// RFC 7181 §21: `a` is newer than `b`.
pub(crate) const fn newer(a: u16, b: u16) -> bool {
    let ahead = a.wrapping_sub(b);
    ahead != 0 && ahead < 0x8000
}

#[cfg(test)]
mod tests {
    use super::*;
    use rfc5444::RawMessage;

    fn sample() -> Tc {
        let a = |text: &str, len| NetAddr::new(text.parse().unwrap(), len);
        Tc {
            originator: "fd00::1".parse().unwrap(),
            seq: 7,
            validity: Duration::from_secs(15),
            ansn: Some((0xfffe, true)),
            neighbors: vec![
                Advertised { address: a("fd00::2", 128), kind: 3, metric: Some(Metric::new(256)) },
                Advertised { address: a("fd00:2::2", 128), kind: 2, metric: Some(Metric::new(1)) },
            ],
            gateways: vec![Gateway { prefix: a("fd01::", 64), dist: 0, metric: Some(Metric::new(1)) }],
            notes: vec![(a("fd01::", 64), Note::SameNode([10, 64, 0, 1].into()))],
        }
    }

    fn reparse(tc: &Tc, change: impl FnOnce(&mut Message)) -> Result<Tc, Invalid> {
        let mut message = tc.to_message(255, Duration::from_secs(5), &Scopes::uniform(255));
        change(&mut message);
        let mut bytes = Vec::new();
        message.emit(&mut bytes).unwrap();
        Tc::parse(&RawMessage::parse(&bytes).unwrap().check().unwrap(), 16, 100)
    }

    #[test]
    fn rfc7181_16_1_a_tc_survives_the_wire() {
        let mut tc = sample();
        let back = reparse(&tc, |_| {}).unwrap();
        assert_eq!(back.neighbors.len(), 2);
        tc.neighbors.sort();
        tc.validity = back.validity;
        assert_eq!(back, tc);
    }

    #[test]
    fn rfc7181_16_3_1_invalid_tcs() {
        let bad: [fn(&mut Message); 6] = [
            |m| m.tlvs.retain(|t| t.kind != VALIDITY_TIME),
            |m| m.tlvs.push(Tlv::new(VALIDITY_TIME, &[9])),
            |m| m.tlvs.push(Tlv::new(CONT_SEQ_NUM, &[0, 1])),
            |m| m.tlvs.retain(|t| t.kind != CONT_SEQ_NUM),
            |m| m.seq = None,
            |m| m.originator = None,
        ];
        for (i, change) in bad.into_iter().enumerate() {
            assert_eq!(reparse(&sample(), change), Err(Invalid), "case {i}");
        }
        let mut own = sample();
        own.neighbors[0].address = NetAddr::host(own.originator);
        assert_eq!(reparse(&own, |_| {}), Err(Invalid));
        let mut link_local = sample();
        link_local.neighbors[0].address = NetAddr::host("fe80::1".parse().unwrap());
        assert_eq!(reparse(&link_local, |_| {}), Err(Invalid));
    }

    /// Its multivalue TLV has no indices, which RFC 5444 §5.4.1 would not allow: all the more reason to
    /// read it.
    #[test]
    fn rfc7181_appendix_d_is_understood() {
        let examples = include_str!("../../rfc5444/tests/data/rfc-examples.txt");
        let hex = examples.lines().find(|l| l.contains("RFC 7181")).unwrap().split(' ').next().unwrap();
        let digits = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        let bytes: Vec<u8> = (2..hex.len()).step_by(2).map(digits).collect();
        let tc = Tc::parse(&RawMessage::parse(&bytes).unwrap().check().unwrap(), 4, 10).unwrap();
        assert_eq!((tc.ansn, tc.neighbors.len()), (Some((5, true)), 3));
        let metrics: Vec<_> = tc.neighbors.iter().map(|n| n.metric.unwrap().to_compressed()).collect();
        assert_eq!(metrics, [0x100, 0x200, 0x300]);
        let prefix = NetAddr::new("10.0.0.0".parse().unwrap(), 16);
        let metric = Some(Metric::from_compressed(5));
        assert_eq!(tc.gateways, [Gateway { prefix, dist: 2, metric }]);
    }

    #[test]
    fn rfc7181_21_sequence_numbers_wrap() {
        assert!(newer(1, 0) && newer(0, 0xffff) && newer(0x7fff, 0));
        assert!(!newer(0, 0) && !newer(0, 1) && !newer(0xffff, 0));
    }

    #[test]
    fn rfc7181_16_3_1_only_metrics_that_are_used_must_agree() {
        let with = |address: &str, values: &[u16]| {
            let attributes = values.iter().map(|v| Attribute::new(LINK_METRIC, &v.to_be_bytes())).collect();
            let address = NetAddr::host(address.parse().unwrap()).into();
            pack(&[Attributed { address, attributes }])
        };
        let add = |blocks| reparse(&sample(), |m| m.blocks.extend(blocks));
        assert!(add(with("fd00::2", &[0x8001, 0x8002])).is_ok(), "link metrics mean nothing in a TC");
        assert!(add(with("fd00::7", &[0x1001, 0x1002])).is_ok(), "nothing is said of fd00::7");
        assert_eq!(add(with("fd00::2", &[0x1fff])), Err(Invalid));
        assert_eq!(add(with("fd00:2::2", &[0x3001, 0x1000])), Err(Invalid));
    }

    #[test]
    fn rfc7188_4_2_a_short_cont_seq_num_is_an_error_a_long_one_is_cut() {
        let set = |value: &'static [u8]| {
            reparse(&sample(), |m| {
                m.tlvs
                    .iter_mut()
                    .filter(|t| t.kind == CONT_SEQ_NUM)
                    .for_each(|t| t.value = Some(value.to_vec()));
            })
        };
        assert_eq!(set(&[1]), Err(Invalid));
        assert_eq!(set(&[1, 2, 3]).unwrap().ansn, Some((0x0102, true)));
    }

    #[test]
    fn routable_addresses() {
        for (text, routable) in [
            ("fe80::1", false),
            ("fd00::1", true),
            ("10.64.0.1", true),
            ("169.254.1.1", false),
            ("::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_routable(text.parse().unwrap()), routable, "{text}");
        }
    }
}

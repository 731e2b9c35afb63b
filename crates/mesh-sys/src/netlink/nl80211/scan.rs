//! Looking round: which meshes are there, and how noisy channels are.

use std::collections::BTreeMap;

use super::{ATTR_IFINDEX, HEADER};
use crate::netlink::Error;
use crate::netlink::codec::{Builder, Nest, attributes, u32_of};

const CMD_TRIGGER_SCAN: u8 = 33;
const ATTR_IE: u16 = 42;
const ATTR_SCAN_FREQUENCIES: u16 = 44;
const ATTR_SCAN_SSIDS: u16 = 45;
const ATTR_BSS: u16 = 47;
const ATTR_SURVEY_INFO: u16 = 84;
const BSS_FREQUENCY: u16 = 2;
const BSS_ELEMENTS: u16 = 6;
const BSS_SIGNAL_MBM: u16 = 7;
const BSS_BEACON_ELEMENTS: u16 = 11;
const SURVEY_FREQUENCY: u16 = 1;
const SURVEY_NOISE: u16 = 2;
const NESTED: u16 = 0x8000;
/// IEEE 802.11-2020 §9.4.2.97, §9.4.2.98
const ELEMENT_MESH_CONFIGURATION: u8 = 113;
const ELEMENT_MESH_ID: u8 = 114;
/// Authentication protocol identifiers (§9.4.2.97.6).
const AUTHENTICATION_NONE: u8 = 0;

/// A mesh point that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardMesh {
    /// Mesh ID, 1 to 32 bytes.
    pub id: Vec<u8>,
    /// Channel's centre in MHz.
    pub frequency: u32,
    /// In dBm.
    pub signal: Option<i8>,
    /// It authenticates its peers.
    pub authenticates: bool,
    /// How many peers it has, at most 63 (§9.4.2.97.7).
    pub peers: u8,
}

/// What a mesh point says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Elements {
    id: Option<Vec<u8>>,
    authenticates: bool,
    peers: u8,
}

/// Mesh points answer a probe request that asks for their mesh and for no network (§11.1.4.3.4).
pub(super) fn trigger(family: u16, interface: u32, frequencies: &[u32], mesh_id: &[u8]) -> Builder {
    let mut b = Builder::new(family, 0, &[CMD_TRIGGER_SCAN, 0, 0, 0]);
    b.attribute_u32(ATTR_IFINDEX, interface);
    let mut list = Nest::default();
    for (number, frequency) in (1..).zip(frequencies) {
        list.attribute(number, &frequency.to_ne_bytes());
    }
    b.attribute(ATTR_SCAN_FREQUENCIES | NESTED, list.bytes());
    let mut any = Nest::default();
    any.attribute(1, &[]);
    b.attribute(ATTR_SCAN_SSIDS | NESTED, any.bytes());
    let id = mesh_id.get(..32).unwrap_or(mesh_id);
    b.attribute(ATTR_IE, &[&[ELEMENT_MESH_ID, id.len() as u8], id].concat());
    b
}

/// Reads the body of one answer to NL80211_CMD_GET_SCAN; `None` for what is no mesh point.
pub(super) fn parse(body: &[u8]) -> Result<Option<HeardMesh>, Error> {
    let bss = body.get(HEADER..).ok_or(Error::Malformed("scan result"))?;
    let (mut found, mut frequency, mut signal) = (Elements::default(), None, None);
    for attribute in attributes(bss) {
        let (ATTR_BSS, inner) = attribute? else { continue };
        for part in attributes(inner) {
            match part? {
                (BSS_FREQUENCY, v) => frequency = Some(u32_of(v)?),
                // Of a probe response, where there is one, which is the newer.
                (BSS_ELEMENTS | BSS_BEACON_ELEMENTS, v) if found.id.is_none() => found = elements(v),
                (BSS_SIGNAL_MBM, v) => signal = i8::try_from(u32_of(v)?.cast_signed() / 100).ok(),
                _ => {}
            }
        }
    }
    let Elements { id, authenticates, peers } = found;
    let told = id.zip(frequency);
    Ok(told.map(|(id, frequency)| HeardMesh { id, frequency, signal, authenticates, peers }))
}

/// What one sent is all that is known of it: elements that do not parse are the end of them.
fn elements(mut elements: &[u8]) -> Elements {
    let mut found = Elements::default();
    while let Some((&[kind, len], rest)) = elements.split_first_chunk() {
        let Some((value, rest)) = rest.split_at_checked(len.into()) else { break };
        match (kind, value) {
            (ELEMENT_MESH_ID, _) if (1..=32).contains(&len) && found.id.is_none() => {
                found.id = Some(value.to_vec());
            }
            (ELEMENT_MESH_CONFIGURATION, [_, _, _, _, authentication, formation, ..]) => {
                found.authenticates = *authentication != AUTHENTICATION_NONE;
                found.peers = formation >> 1 & 0x3f;
            }
            _ => {}
        }
        elements = rest;
    }
    found
}

/// Adds the noise of one channel, in dBm, from the body of one answer to NL80211_CMD_GET_SURVEY.
pub(super) fn noise(body: &[u8], found: &mut BTreeMap<u32, i8>) -> Result<(), Error> {
    for attribute in attributes(body.get(HEADER..).ok_or(Error::Malformed("survey"))?) {
        let (ATTR_SURVEY_INFO, inner) = attribute? else { continue };
        let (mut frequency, mut noise) = (None, None);
        for part in attributes(inner) {
            match part? {
                (SURVEY_FREQUENCY, v) => frequency = Some(u32_of(v)?),
                (SURVEY_NOISE, v) => noise = v.first().map(|b| b.cast_signed()).filter(|n| *n < 0),
                _ => {}
            }
        }
        found.extend(frequency.zip(noise));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::body;
    use super::*;
    use crate::netlink::codec;

    fn bss(elements: &[u8]) -> Vec<u8> {
        body(|b| {
            let mut bss = Nest::default();
            bss.attribute(BSS_FREQUENCY, &2462u32.to_ne_bytes());
            bss.attribute(BSS_SIGNAL_MBM, &(-5550i32).to_ne_bytes());
            bss.attribute(BSS_ELEMENTS, elements);
            b.attribute(ATTR_BSS, bss.bytes());
        })
    }

    #[test]
    fn mesh_points_are_told_from_other_senders() {
        let heard = bss(b"\0\0\x01\x02\x82\x84\x72\x07p2pmesh\x03\x01\x0b");
        let want = HeardMesh {
            id: b"p2pmesh".to_vec(),
            frequency: 2462,
            signal: Some(-55),
            authenticates: false,
            peers: 0,
        };
        assert_eq!(parse(&heard).unwrap(), Some(want.clone()));
        // Three peers and a gate; authenticated by SAE.
        let busy = bss(b"\x72\x07p2pmesh\x71\x07\x01\x01\x00\x01\x01\x07\x09");
        assert_eq!(parse(&busy).unwrap(), Some(HeardMesh { authenticates: true, peers: 3, ..want }));
        for other in [&b"\0\x05bloor"[..], b"", b"\x72", b"\x72\x00", b"\x72\x09p2p", b"\0\xff\x72\x01a"] {
            assert_eq!(parse(&bss(other)).unwrap(), None, "{other:?}");
        }
        for cut in 0..heard.len() {
            let _ = parse(&heard[..cut]);
        }
    }

    #[test]
    fn noise_is_by_channel() {
        let all = body(|b| {
            let mut info = Nest::default();
            info.attribute(SURVEY_FREQUENCY, &2412u32.to_ne_bytes());
            info.attribute(SURVEY_NOISE, &[(-92i8).cast_unsigned()]);
            b.attribute(ATTR_SURVEY_INFO, info.bytes());
            let mut none = Nest::default();
            none.attribute(SURVEY_FREQUENCY, &2437u32.to_ne_bytes());
            b.attribute(ATTR_SURVEY_INFO, none.bytes());
        });
        let mut found = BTreeMap::new();
        noise(&all, &mut found).unwrap();
        assert_eq!(found, [(2412, -92)].into());
        for cut in 0..all.len() {
            let _ = noise(&all[..cut], &mut found);
        }
    }

    #[test]
    fn the_question_names_the_mesh_and_the_channels() {
        let bytes = trigger(28, 5, &[2412, 2462], b"p2pmesh").finish(0, 1);
        let message = codec::messages(&bytes).next().unwrap().unwrap();
        assert_eq!(message.body[0], CMD_TRIGGER_SCAN);
        let all: Vec<_> = codec::attributes(&message.body[4..]).map(Result::unwrap).collect();
        assert!(all.contains(&(ATTR_IE, &b"\x72\x07p2pmesh"[..])));
        let list = all.iter().find(|(k, _)| *k == ATTR_SCAN_FREQUENCIES).unwrap().1;
        assert_eq!(codec::attributes(list).count(), 2);
    }
}

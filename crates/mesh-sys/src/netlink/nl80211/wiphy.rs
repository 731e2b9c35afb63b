//! Radios: what they can do.

use std::collections::BTreeMap;

use super::{ATTR_WIPHY, HEADER, Mode};
use crate::netlink::Error;
use crate::netlink::codec::{attributes, text_of, u32_of};

const ATTR_WIPHY_NAME: u16 = 2;
const ATTR_WIPHY_BANDS: u16 = 22;
const ATTR_SUPPORTED_IFTYPES: u16 = 32;
const ATTR_CIPHER_SUITES: u16 = 57;
const ATTR_SUPPORT_MESH_AUTH: u16 = 115;
const ATTR_INTERFACE_COMBINATIONS: u16 = 120;
const ATTR_DEVICE_AP_SME: u16 = 141;
const ATTR_MAX_AP_ASSOC_STA: u16 = 202;

const BAND_FREQUENCIES: u16 = 1;
const BAND_HT_CAPABILITY: u16 = 4;
const FREQUENCY: u16 = 1;
const FREQUENCY_DISABLED: u16 = 2;
const FREQUENCY_NO_IR: u16 = 3;
const FREQUENCY_RADAR: u16 = 5;
const COMBINATION_LIMITS: u16 = 1;
const COMBINATION_INTERFACES: u16 = 2;
const COMBINATION_CHANNELS: u16 = 4;
const LIMIT_MOST: u16 = 1;
const LIMIT_MODES: u16 = 2;

/// 00-0F-AC:6, BIP-CMAC-128: protects management frames (IEEE 802.11-2020 §9.4.2.24.2).
const CIPHER_BIP: u32 = 0x000f_ac06;

/// What is kept of each list of a radio; real ones are far below.
const MAX_LIST: usize = 256;

/// A radio.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wiphy {
    /// Kernel index of the radio.
    pub index: u32,
    /// Kernel name, as `phy0`.
    pub name: String,
    /// What its interfaces can be, in order, each once.
    pub modes: Vec<Mode>,
    /// `enum nl80211_band`: 0 is 2.4 GHz, 1 is 5 GHz, 3 is 6 GHz; in order, each once.
    pub bands: Vec<u16>,
    /// Those of them in which it can use 802.11n rates.
    pub ht_bands: Vec<u16>,
    /// Its channels, by frequency, each once.
    pub channels: Vec<WifiChannel>,
    /// What it can be at the same time, each once.
    pub combinations: Vec<Combination>,
    /// The most stations that an access point on it can have; `None`: it does not say.
    pub max_ap_stations: Option<u32>,
    /// It can protect management frames.
    pub protects_management: bool,
    /// The device itself authenticates an access point's stations; no program above can.
    pub authenticates: bool,
    /// Peers of a mesh point can be authenticated by a program above.
    pub mesh_auth: bool,
}

/// A channel of a radio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WifiChannel {
    /// Its centre in MHz.
    pub frequency: u32,
    /// The band it is in.
    pub band: u16,
    /// A station may be the first to send on it, in the present country, without looking for radar.
    pub may_begin: bool,
    /// Radar has to be looked for before anything is sent on it, in the present country.
    pub radar: bool,
}

/// Interfaces that a radio can have at the same time.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Combination {
    /// At most so many of these kinds each.
    pub limits: Vec<(u32, Vec<Mode>)>,
    /// At most so many together.
    pub interfaces: u32,
    /// On at most so many channels.
    pub channels: u32,
}

/// Adds what one message of a split dump tells; the parts of a radio share ATTR_WIPHY.
pub(super) fn merge(body: &[u8], found: &mut BTreeMap<u32, Wiphy>) -> Result<(), Error> {
    let bytes = body.get(HEADER..).ok_or(Error::Malformed("wiphy"))?;
    let mut part = Wiphy::default();
    let mut index = None;
    for attribute in attributes(bytes) {
        match attribute? {
            (ATTR_WIPHY, v) => index = Some(u32_of(v)?),
            (ATTR_WIPHY_NAME, v) => part.name = text_of(v),
            (ATTR_MAX_AP_ASSOC_STA, v) => part.max_ap_stations = Some(u32_of(v)?).filter(|n| *n > 0),
            (ATTR_CIPHER_SUITES, v) => {
                let mut suites = v.chunks_exact(4).filter_map(|c| u32_of(c).ok());
                part.protects_management = suites.any(|s| s == CIPHER_BIP);
            }
            (ATTR_DEVICE_AP_SME, _) => part.authenticates = true,
            (ATTR_SUPPORT_MESH_AUTH, _) => part.mesh_auth = true,
            (ATTR_SUPPORTED_IFTYPES, v) => part.modes = modes(v)?,
            (ATTR_WIPHY_BANDS, v) => {
                for inner in attributes(v) {
                    let (band, value) = inner?;
                    part.band(band, value)?;
                }
            }
            (ATTR_INTERFACE_COMBINATIONS, v) => {
                for inner in attributes(v) {
                    part.combinations.push(combination(inner?.1)?);
                }
            }
            _ => {}
        }
    }
    let index = index.ok_or(Error::Malformed("wiphy without a number"))?;
    let whole = found.entry(index).or_default();
    whole.index = index;
    if !part.name.is_empty() {
        whole.name = part.name;
    }
    whole.max_ap_stations = part.max_ap_stations.or(whole.max_ap_stations);
    whole.protects_management |= part.protects_management;
    whole.authenticates |= part.authenticates;
    whole.mesh_auth |= part.mesh_auth;
    add(&mut whole.modes, part.modes);
    add(&mut whole.bands, part.bands);
    add(&mut whole.ht_bands, part.ht_bands);
    add(&mut whole.channels, part.channels);
    add(&mut whole.combinations, part.combinations);
    Ok(())
}

/// The same part may come twice.
fn add<T: Ord>(list: &mut Vec<T>, mut more: Vec<T>) {
    list.append(&mut more);
    list.sort_unstable();
    list.dedup();
    list.truncate(MAX_LIST);
}

impl Wiphy {
    fn band(&mut self, band: u16, value: &[u8]) -> Result<(), Error> {
        self.bands.push(band);
        for attribute in attributes(value) {
            match attribute? {
                (BAND_HT_CAPABILITY, _) => self.ht_bands.push(band),
                (BAND_FREQUENCIES, v) => {
                    for one in attributes(v) {
                        self.channels.extend(channel(band, one?.1)?);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// `None` for one that the country or the driver has switched off.
fn channel(band: u16, value: &[u8]) -> Result<Option<WifiChannel>, Error> {
    let (mut frequency, mut off, mut may_begin, mut radar) = (None, false, true, false);
    for attribute in attributes(value) {
        match attribute? {
            (FREQUENCY, v) => frequency = Some(u32_of(v)?),
            (FREQUENCY_DISABLED, _) => off = true,
            (FREQUENCY_NO_IR, _) => may_begin = false,
            (FREQUENCY_RADAR, _) => radar = true,
            _ => {}
        }
    }
    let may_begin = may_begin && !radar;
    Ok(frequency.filter(|_| !off).map(|frequency| WifiChannel { frequency, band, may_begin, radar }))
}

fn combination(value: &[u8]) -> Result<Combination, Error> {
    let mut combination = Combination::default();
    for attribute in attributes(value) {
        match attribute? {
            (COMBINATION_INTERFACES, v) => combination.interfaces = u32_of(v)?,
            (COMBINATION_CHANNELS, v) => combination.channels = u32_of(v)?,
            (COMBINATION_LIMITS, v) => {
                for inner in attributes(v) {
                    combination.limits.push(limit(inner?.1)?);
                }
                combination.limits.truncate(MAX_LIST);
            }
            _ => {}
        }
    }
    Ok(combination)
}

fn limit(value: &[u8]) -> Result<(u32, Vec<Mode>), Error> {
    let (mut most, mut kinds) = (0, Vec::new());
    for attribute in attributes(value) {
        match attribute? {
            (LIMIT_MOST, v) => most = u32_of(v)?,
            (LIMIT_MODES, v) => kinds = modes(v)?,
            _ => {}
        }
    }
    Ok((most, kinds))
}

/// Attributes without values, whose types are the modes.
fn modes(value: &[u8]) -> Result<Vec<Mode>, Error> {
    let mut modes = Vec::new();
    for inner in attributes(value).take(MAX_LIST) {
        modes.push(Mode::from_number(inner?.0));
    }
    Ok(modes)
}

#[cfg(test)]
mod tests {
    use super::super::tests::body;
    use super::*;
    use crate::netlink::codec::Nest;

    fn nest(parts: &[(u16, &[u8])]) -> Vec<u8> {
        let mut nest = Nest::default();
        parts.iter().for_each(|(kind, value)| nest.attribute(*kind, value));
        nest.bytes().to_vec()
    }

    fn flags(kinds: &[u16]) -> Vec<u8> {
        nest(&kinds.iter().map(|k| (*k, &[][..])).collect::<Vec<_>>())
    }

    fn frequency(mhz: u32, with: &[u16]) -> Vec<u8> {
        [nest(&[(FREQUENCY, &mhz.to_ne_bytes())]), flags(with), nest(&[(6, &2000u32.to_ne_bytes())])].concat()
    }

    #[test]
    fn the_parts_of_a_split_dump_are_one_radio() {
        let mut found = BTreeMap::new();
        let one = 1u32.to_ne_bytes();
        let limits = nest(&[
            (1, &nest(&[(LIMIT_MOST, &one), (LIMIT_MODES, &flags(&[2]))])),
            (2, &nest(&[(LIMIT_MOST, &2u32.to_ne_bytes()), (LIMIT_MODES, &flags(&[3, 7]))])),
        ]);
        let combination = nest(&[
            (COMBINATION_LIMITS, &limits),
            (COMBINATION_INTERFACES, &3u32.to_ne_bytes()),
            (COMBINATION_CHANNELS, &one),
        ]);
        let first = body(|b| {
            b.attribute_u32(ATTR_WIPHY, 3);
            b.attribute(ATTR_WIPHY_NAME, b"phy3\0");
            b.attribute(ATTR_SUPPORTED_IFTYPES, &flags(&[2, 3, 7, 12]));
            b.attribute(ATTR_INTERFACE_COMBINATIONS, &nest(&[(1, &combination)]));
            b.attribute_u32(ATTR_MAX_AP_ASSOC_STA, 10);
            b.attribute(ATTR_CIPHER_SUITES, &[0x000f_ac04u32, CIPHER_BIP].map(u32::to_ne_bytes).concat());
            b.attribute(ATTR_SUPPORT_MESH_AUTH, &[]);
        });
        let channels = nest(&[
            (0, &frequency(2412, &[])),
            (1, &frequency(2467, &[FREQUENCY_NO_IR])),
            (2, &frequency(2484, &[FREQUENCY_DISABLED])),
            (3, &frequency(5260, &[FREQUENCY_RADAR])),
        ]);
        let band = nest(&[(BAND_FREQUENCIES, &channels), (BAND_HT_CAPABILITY, &[0xef, 1])]);
        let second = body(|b| {
            b.attribute_u32(ATTR_WIPHY, 3);
            b.attribute(ATTR_WIPHY_BANDS, &nest(&[(0, &band), (1, &[])]));
        });
        for part in [&first, &second, &second, &first] {
            merge(part, &mut found).unwrap();
        }
        let channel = |frequency, may_begin, radar| WifiChannel { frequency, band: 0, may_begin, radar };
        let expected = Wiphy {
            index: 3,
            name: "phy3".into(),
            modes: vec![Mode::Station, Mode::AccessPoint, Mode::MeshPoint, Mode::Other(12)],
            bands: vec![0, 1],
            ht_bands: vec![0],
            channels: vec![
                channel(2412, true, false),
                channel(2467, false, false),
                channel(5260, false, true),
            ],
            combinations: vec![Combination {
                limits: vec![(1, vec![Mode::Station]), (2, vec![Mode::AccessPoint, Mode::MeshPoint])],
                interfaces: 3,
                channels: 1,
            }],
            max_ap_stations: Some(10),
            protects_management: true,
            authenticates: false,
            mesh_auth: true,
        };
        assert_eq!(found[&3], expected);
        for part in [&first, &second] {
            for cut in 0..part.len() {
                let _ = merge(&part[..cut], &mut found);
            }
        }
    }

    #[test]
    fn a_radio_needs_a_number_and_its_lists_are_bounded() {
        let mut found = BTreeMap::new();
        assert!(merge(&body(|b| b.attribute(ATTR_WIPHY_NAME, b"phy\0")), &mut found).is_err());
        let all: Vec<u16> = (0..5000).collect();
        merge(
            &body(|b| {
                b.attribute_u32(ATTR_WIPHY, 1);
                b.attribute(ATTR_SUPPORTED_IFTYPES, &flags(&all));
                b.attribute(ATTR_WIPHY_BANDS, &flags(&all));
            }),
            &mut found,
        )
        .unwrap();
        assert_eq!((found[&1].modes.len(), found[&1].bands.len()), (MAX_LIST, MAX_LIST));
    }
}

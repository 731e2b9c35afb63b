//! What each radio is for, by what it can do; the first rule that fits decides.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::{Mode, Off, Phy};

/// What the configuration says about radios.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RadioSettings {
    /// `mesh.channel`, as its centre in MHz.
    pub mesh_frequency: Option<u32>,
    /// `mesh.password` is set.
    pub secured: bool,
    /// `mesh.password` is set, and no password.
    pub locked: bool,
    /// `ap.channel`, as its centre in MHz.
    pub ap_frequency: Option<u32>,
}

/// Interfaces that a radio can have at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Combination {
    /// At most so many of these kinds each.
    pub limits: Vec<(u32, Vec<Mode>)>,
    /// At most so many together.
    pub interfaces: u32,
    /// On at most so many channels.
    pub channels: u32,
}

impl Combination {
    /// Whether these can be there at once, on one channel.
    pub fn allows(&self, modes: &[Mode]) -> bool {
        let left: Vec<u32> = self.limits.iter().map(|(most, _)| *most).collect();
        self.channels >= 1 && modes.len() <= self.interfaces as usize && self.place(modes, &left)
    }

    /// Finds each a limit that has room for it; a kind may be in several.
    fn place(&self, modes: &[Mode], left: &[u32]) -> bool {
        let Some((mode, rest)) = modes.split_first() else { return true };
        (0..left.len()).any(|at| {
            let fits = self.limits.get(at).is_some_and(|(_, kinds)| kinds.contains(mode));
            let mut after = left.to_vec();
            match after.get_mut(at) {
                Some(room) if fits && *room > 0 => *room -= 1,
                _ => return false,
            }
            self.place(rest, &after)
        })
    }
}

/// A channel on which a radio may begin to send: the country allows it, and no radar has to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel {
    /// Its centre in MHz.
    pub frequency: u32,
    /// 802.11n rates can be used.
    pub ht: bool,
}

/// What a radio is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Clients join through it, on that channel.
    pub access_point: Option<Channel>,
    /// It meshes, on that channel.
    pub mesh: Option<Channel>,
    /// Its access point offers SAE, too.
    pub sae: bool,
    /// Why, for people.
    pub reason: String,
    /// What the configuration wants and is not possible.
    pub denied: Vec<Denied>,
}

/// A wish of the configuration that is not possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Its key.
    pub key: &'static str,
    /// What is done instead, and why, for people.
    pub why: String,
}

/// Every node begins on the first of these that it may use, so that nodes find each other.
const PREFERRED: [u32; 5] = [2412, 2437, 2462, 5180, 5745];

/// Where a mesh of this node's ID was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeardMesh {
    /// Channel's centre in MHz.
    pub frequency: u32,
    /// The channel's noise in dBm; `None`: not measured.
    pub noise: Option<i8>,
    /// Somebody there has peers, speaks this mesh's security, and is near enough to be one.
    pub peers: bool,
}

/// The channel to mesh on of those where the mesh was heard: the least noisy one; of equals the one that nodes
/// begin on first.
pub fn best_channel(heard: &[HeardMesh]) -> Option<u32> {
    heard.iter().min_by_key(|h| (h.noise.unwrap_or(0), rank(h.frequency))).map(|h| h.frequency)
}

/// The order in which nodes choose channels, the same on all.
pub(crate) fn rank(frequency: u32) -> (usize, u32) {
    (PREFERRED.iter().position(|p| *p == frequency).unwrap_or(PREFERRED.len()), frequency)
}

/// What each of `phys` is for, in their order; `heard` is where each of them hears the mesh already, by its index.
pub fn assign(
    phys: &[Phy],
    heard: &BTreeMap<u32, u32>,
    settings: RadioSettings,
    released: bool,
) -> Vec<Assignment> {
    let works = |p: &Phy| !p.channels.is_empty() && p.off.is_none();
    let meshes = |p: &Phy| {
        let allowed = !settings.locked && (!settings.secured || p.sae_mesh);
        p.modes.contains(&Mode::MeshPoint) && allowed && works(p)
    };
    let serves = |p: &Phy| p.modes.contains(&Mode::AccessPoint) && works(p);
    let both = |p: &Phy| p.combinations.iter().any(|c| c.allows(&[Mode::AccessPoint, Mode::MeshPoint]));
    // The mesh gets the radio with the most bands; of equals, the first.
    let best = phys.iter().filter(|p| meshes(p)).max_by_key(|p| (p.bands.len(), core::cmp::Reverse(p.index)));
    let is_best = |p: &Phy| best.is_some_and(|b| b.index == p.index);
    // Clients get one that can't mesh, else one that the mesh can spare, else the only one.
    let server = phys
        .iter()
        .find(|p| serves(p) && !meshes(p))
        .or_else(|| phys.iter().find(|p| serves(p) && !is_best(p)))
        .or_else(|| phys.iter().find(|p| serves(p)));
    let is_server = |p: &Phy| server.is_some_and(|s| s.index == p.index);
    let others = |p: &Phy| phys.iter().filter(|o| o.index != p.index && meshes(o)).collect::<Vec<_>>();
    phys.iter()
        .map(|p| {
            let of_mesh = |p: &Phy| Choice::of_mesh(p, heard.get(&p.index).copied(), settings.mesh_frequency);
            let mesh = of_mesh(p);
            let others = others(p);
            let taken: Vec<u32> = others.iter().filter_map(|o| of_mesh(o).frequency()).collect();
            let ap = Choice::of_access_point(p, settings.ap_frequency, &taken);
            let idle = |reason: &str| Assignment {
                access_point: None,
                mesh: None,
                sae: false,
                reason: reason.to_string(),
                denied: Vec::new(),
            };
            let access_point = |rest: &str| Assignment {
                access_point: ap.channel,
                mesh: None,
                sae: p.sae_ap,
                reason: format!("access point, {}{rest}", ap.text),
                denied: ap.denied(),
            };
            match () {
                () if released => idle("manual workshop: radios are left to people"),
                () if p.off == Some(Off::Soft) => {
                    idle("switched off by software (rfkill); it is planned for again when that ends")
                }
                () if p.off == Some(Off::Hard) => idle(
                    "switched off by its button or switch (rfkill); it is planned for again when that ends",
                ),
                () if p.off == Some(Off::Stuck) => idle(
                    "it does not do what it is told to: it counts as none and is tried again later; unplug it and plug \
                     it in again",
                ),
                () if is_server(p) && !others.is_empty() => access_point("; another radio meshes"),
                () if is_server(p) && meshes(p) && both(p) => {
                    let other = settings.ap_frequency.filter(|f| mesh.frequency() != Some(*f));
                    let other = other.map(|f| {
                        format!(" (not {f} MHz as ap.channel says: one radio has one channel, the mesh's)")
                    });
                    Assignment {
                        access_point: mesh.channel,
                        mesh: mesh.channel,
                        sae: p.sae_ap,
                        reason: format!(
                            "mesh point and access point, {}{}",
                            mesh.text,
                            other.unwrap_or_default()
                        ),
                        denied: mesh.denied(),
                    }
                }
                () if is_server(p) && meshes(p) => {
                    access_point("; it can't be a mesh point beside it, the mesh runs over Ethernet")
                }
                () if meshes(p) => Assignment {
                    access_point: None,
                    mesh: mesh.channel,
                    sae: false,
                    reason: format!("mesh point, {}", mesh.text),
                    denied: mesh.denied(),
                },
                () if settings.locked && p.modes.contains(&Mode::MeshPoint) && works(p) => {
                    let why = "mesh.password can't be used, see meshctl status: no open mesh is joined";
                    if is_server(p) { access_point(&format!("; {why}")) } else { idle(why) }
                }
                () if is_server(p) && p.modes.contains(&Mode::MeshPoint) => access_point(
                    "; mesh.password is set, and its driver can't do SAE: the mesh runs over Ethernet",
                ),
                () if is_server(p) => access_point("; it can't be a mesh point"),
                () if p.channels.is_empty() => {
                    idle("no channel on which it may begin to send here (country?)")
                }
                () if p.modes.contains(&Mode::MeshPoint) => {
                    idle("mesh.password is set, and its driver can't do SAE")
                }
                () if serves(p) => idle("spare: another radio is the access point"),
                () => idle("not of use: neither access point nor mesh point"),
            }
        })
        .collect()
}

/// A channel, and how it was chosen, for people.
struct Choice {
    channel: Option<Channel>,
    text: String,
    /// It is not the one that this key wants.
    instead: Option<&'static str>,
}

impl Choice {
    /// The mesh's on a radio that hears it there.
    fn of_mesh(phy: &Phy, heard: Option<u32>, wanted: Option<u32>) -> Self {
        if let (None, Some(channel)) = (wanted, heard.and_then(|f| find(phy, f))) {
            let text = format!("{} MHz, where this mesh was heard", channel.frequency);
            return Self { channel: Some(channel), text, instead: None };
        }
        let default = PREFERRED.iter().find_map(|f| find(phy, *f)).or(phy.channels.first().copied());
        Self::of(phy, wanted, "mesh.channel", default)
    }

    /// An access point's; where it is free to choose, not one that this node's mesh works on.
    fn of_access_point(phy: &Phy, wanted: Option<u32>, taken: &[u32]) -> Self {
        let all = || PREFERRED.iter().filter_map(|f| find(phy, *f));
        let free = all().find(|c| !taken.contains(&c.frequency));
        Self::of(phy, wanted, "ap.channel", free.or(all().next()).or(phy.channels.first().copied()))
    }

    fn of(phy: &Phy, wanted: Option<u32>, key: &'static str, default: Option<Channel>) -> Self {
        let text = |c: Option<Channel>| c.map_or_else(String::new, |c| format!("{} MHz", c.frequency));
        let found = wanted.and_then(|f| find(phy, f));
        let why = |f| match phy.radar.contains(&f) {
            true => "where radar has to be looked for, which this node does not do",
            false => "which the radio or the country does not allow",
        };
        match (wanted, found) {
            (None, _) => Self { channel: default, text: text(default), instead: None },
            (Some(_), Some(_)) => {
                Self { channel: found, text: format!("{} as {key} says", text(found)), instead: None }
            }
            (Some(frequency), None) => Self {
                channel: default,
                text: format!("{} instead of {frequency} MHz ({key}), {}", text(default), why(frequency)),
                instead: Some(key),
            },
        }
    }

    fn denied(&self) -> Vec<Denied> {
        self.instead.map(|key| Denied { key, why: self.text.clone() }).into_iter().collect()
    }

    fn frequency(&self) -> Option<u32> {
        self.channel.map(|c| c.frequency)
    }
}

fn find(phy: &Phy, frequency: u32) -> Option<Channel> {
    phy.channels.iter().find(|c| c.frequency == frequency).copied()
}

/// The centre of a channel in MHz (IEEE 802.11-2020 Annex E); `None` for a number that is none.
pub const fn frequency(channel: u8) -> Option<u32> {
    match channel {
        1..=13 => Some(2407 + 5 * channel as u32),
        14 => Some(2484),
        36..=177 => Some(5000 + 5 * channel as u32),
        _ => None,
    }
}

/// The number of the channel with that centre; the inverse of [`frequency`].
pub fn channel_number(frequency_mhz: u32) -> Option<u8> {
    (1..=177).find(|n| frequency(*n) == Some(frequency_mhz))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Band;
    use Mode::{AccessPoint, Ibss, MeshPoint, Monitor, Station};
    use alloc::vec;

    fn combination(limits: &[(u32, &[Mode])], interfaces: u32) -> Combination {
        let limits = limits.iter().map(|(most, modes)| (*most, modes.to_vec())).collect();
        Combination { limits, interfaces, channels: 1 }
    }

    fn phy(index: u32, modes: &[Mode], bands: &[Band], combinations: Vec<Combination>) -> Phy {
        let on = |band, frequencies: &[u32]| {
            let all = frequencies.iter().map(|f| Channel { frequency: *f, ht: true });
            if bands.contains(&band) { all.collect() } else { Vec::new() }
        };
        Phy {
            index,
            name: format!("phy{index}"),
            modes: modes.to_vec(),
            bands: bands.to_vec(),
            most_clients: None,
            sae_ap: modes.contains(&MeshPoint),
            sae_mesh: modes.contains(&MeshPoint),
            off: None,
            radar: bands.contains(&Band::Ghz5).then_some(5260).into_iter().collect(),
            channels: [on(Band::Ghz2, &[2412, 2417, 2437, 2462]), on(Band::Ghz5, &[5180, 5200])].concat(),
            combinations,
        }
    }

    const G2: &[Band] = &[Band::Ghz2];
    const G25: &[Band] = &[Band::Ghz2, Band::Ghz5];

    // The shapes of real radios, from their drivers' public documentation and `iw phy` listings.

    /// On-board radio of a Pi 3B+ or 4; a Pi 3 or Zero 2 W has 2.4 GHz only.
    fn brcmfmac(index: u32, bands: &[Band]) -> Phy {
        let combinations = vec![combination(&[(1, &[Station]), (1, &[AccessPoint])], 4)];
        phy(index, &[Ibss, Station, AccessPoint], bands, combinations)
    }

    /// AR9271.
    fn ath9k_htc(index: u32) -> Phy {
        let combinations = vec![combination(&[(2, &[Station]), (2, &[AccessPoint, MeshPoint])], 2)];
        phy(index, &[Ibss, Station, AccessPoint, MeshPoint, Monitor], G2, combinations)
    }

    /// MT7612U.
    fn mt76x2u(index: u32) -> Phy {
        let combinations = vec![combination(&[(1, &[Ibss]), (8, &[Station, AccessPoint, MeshPoint])], 8)];
        phy(index, &[Ibss, Station, AccessPoint, MeshPoint, Monitor], G25, combinations)
    }

    /// RT5370.
    fn rt2800usb(index: u32) -> Phy {
        let combinations = vec![combination(&[(8, &[AccessPoint, MeshPoint])], 8)];
        phy(index, &[Ibss, Station, AccessPoint, MeshPoint, Monitor], G2, combinations)
    }

    /// RTL8192CU.
    fn rtl8xxxu(index: u32) -> Phy {
        phy(index, &[Station, Monitor], G2, vec![])
    }

    /// Can be either, not both.
    fn one_at_a_time(index: u32) -> Phy {
        phy(index, &[AccessPoint, MeshPoint], G2, vec![combination(&[(1, &[AccessPoint, MeshPoint])], 1)])
    }

    #[test]
    fn every_rule_once() {
        let open = RadioSettings::default();
        let secured = RadioSettings { secured: true, ..open };
        let no_channel = |p: Phy| Phy { channels: vec![], ..p };
        let no_sae = |p: Phy| Phy { sae_mesh: false, ..p };
        let off = |off, p: Phy| Phy { off: Some(off), ..p };
        // radios, settings, released; of each radio: access point, mesh, a part of the reason
        type Row = (Vec<Phy>, RadioSettings, bool, Vec<(bool, bool, &'static str)>);
        let table: Vec<Row> = vec![
            (vec![], open, false, vec![]),
            (vec![mt76x2u(0)], open, true, vec![(false, false, "manual")]),
            (vec![brcmfmac(0, G25)], open, false, vec![(true, false, "can't be a mesh point")]),
            (
                vec![brcmfmac(0, G2), ath9k_htc(1)],
                open,
                false,
                vec![(true, false, "another radio"), (false, true, "mesh point, 2412 MHz")],
            ),
            (
                vec![ath9k_htc(0), brcmfmac(1, G2)],
                open,
                false,
                vec![(false, true, "mesh point"), (true, false, "another radio")],
            ),
            (vec![ath9k_htc(0)], open, false, vec![(true, true, "mesh point and access point")]),
            (vec![rt2800usb(0)], open, false, vec![(true, true, "mesh point and access point")]),
            (vec![one_at_a_time(0)], open, false, vec![(true, false, "over Ethernet")]),
            (vec![rtl8xxxu(0)], open, false, vec![(false, false, "not of use")]),
            (
                vec![ath9k_htc(0), mt76x2u(1)],
                open,
                false,
                vec![(true, false, "another radio"), (false, true, "mesh point")],
            ),
            (
                vec![brcmfmac(0, G2), ath9k_htc(1), mt76x2u(2), rtl8xxxu(3)],
                open,
                false,
                vec![
                    (true, false, "another radio"),
                    (false, true, "mesh point"),
                    (false, true, "mesh point"),
                    (false, false, "not of use"),
                ],
            ),
            (
                vec![brcmfmac(0, G2), brcmfmac(1, G2)],
                open,
                false,
                vec![(true, false, "access point"), (false, false, "spare")],
            ),
            (vec![ath9k_htc(0)], secured, false, vec![(true, true, "mesh point and access point")]),
            (
                vec![no_sae(ath9k_htc(0))],
                secured,
                false,
                vec![(true, false, "can't do SAE: the mesh runs over")],
            ),
            (
                vec![brcmfmac(0, G2), no_sae(ath9k_htc(1))],
                secured,
                false,
                vec![(true, false, "can't be a mesh point"), (false, false, "can't do SAE")],
            ),
            (
                vec![ath9k_htc(0), mt76x2u(1)],
                RadioSettings { locked: true, ..open },
                false,
                vec![
                    (true, false, "mesh.password can't be used"),
                    (false, false, "mesh.password can't be used"),
                ],
            ),
            (vec![off(Off::Soft, ath9k_htc(0))], open, false, vec![(false, false, "by software")]),
            (
                vec![off(Off::Hard, brcmfmac(0, G2)), ath9k_htc(1)],
                open,
                false,
                vec![(false, false, "button"), (true, true, "mesh point and access point")],
            ),
            (
                vec![off(Off::Stuck, ath9k_htc(0)), mt76x2u(1)],
                open,
                false,
                vec![
                    (false, false, "does not do what it is told to"),
                    (true, true, "mesh point and access point"),
                ],
            ),
            (
                vec![mt76x2u(0)],
                RadioSettings { mesh_frequency: Some(5260), ..open },
                false,
                vec![(
                    true,
                    true,
                    "2412 MHz instead of 5260 MHz (mesh.channel), where radar has to be looked for",
                )],
            ),
            (vec![no_channel(ath9k_htc(0))], open, false, vec![(false, false, "no channel")]),
        ];
        for (phys, settings, released, want) in table {
            let got = assign(&phys, &BTreeMap::new(), settings, released);
            assert_eq!(got.len(), want.len());
            for (got, (access_point, mesh, part)) in got.iter().zip(want) {
                assert_eq!(
                    (got.access_point.is_some(), got.mesh.is_some()),
                    (access_point, mesh),
                    "{got:?} of {phys:?}"
                );
                assert!(got.reason.contains(part), "{:?} lacks {part:?}", got.reason);
            }
        }
    }

    #[test]
    fn the_channel_is_the_configured_one_or_one_that_all_nodes_choose() {
        let on = |p: Phy, mesh_frequency| {
            let settings = RadioSettings { mesh_frequency, ..RadioSettings::default() };
            assign(&[p], &BTreeMap::new(), settings, false).remove(0)
        };
        assert_eq!(on(mt76x2u(0), None).mesh.map(|c| c.frequency), Some(2412));
        let five = on(mt76x2u(0), Some(5180));
        assert_eq!(five.mesh.map(|c| c.frequency), Some(5180));
        assert!(five.reason.contains("as mesh.channel says"));
        let other = on(ath9k_htc(0), Some(5180));
        assert_eq!(other.mesh.map(|c| c.frequency), Some(2412));
        assert!(other.reason.contains("instead of 5180 MHz (mesh.channel)"), "{}", other.reason);
        assert!(five.denied.is_empty() && other.denied[0].key == "mesh.channel", "{other:?}");
        let odd = Phy { channels: vec![Channel { frequency: 2422, ht: false }], ..ath9k_htc(0) };
        assert_eq!(on(odd, None).mesh.map(|c| c.frequency), Some(2422));
    }

    #[test]
    fn the_access_point_keeps_off_the_mesh_unless_told_or_bound_to_it() {
        let settings = |ap_frequency| RadioSettings { ap_frequency, ..RadioSettings::default() };
        let ap =
            |phys: &[Phy], frequency| assign(phys, &BTreeMap::new(), settings(frequency), false).remove(0);
        let on = |a: &Assignment| a.access_point.map(|c| c.frequency);
        let alone = [brcmfmac(0, G2)];
        assert_eq!(on(&ap(&alone, None)), Some(2412));
        let two = [brcmfmac(0, G25), ath9k_htc(1)];
        assert_eq!(on(&ap(&two, None)), Some(2437), "the mesh is on 2412 MHz");
        assert_eq!(on(&ap(&two, Some(5180))), Some(5180));
        let not_here = ap(&two, Some(2484));
        assert_eq!(on(&not_here), Some(2437));
        assert!(not_here.reason.contains("instead of 2484 MHz (ap.channel)"), "{}", not_here.reason);
        let both = ap(&[ath9k_htc(0)], Some(2462));
        assert_eq!((on(&both), both.mesh.map(|c| c.frequency)), (Some(2412), Some(2412)));
        assert!(both.reason.contains("not 2462 MHz as ap.channel says"), "{}", both.reason);
    }

    #[test]
    fn a_mesh_that_is_heard_decides_unless_the_configuration_does() {
        let on = |p: Phy, heard, mesh_frequency| {
            let settings = RadioSettings { mesh_frequency, ..RadioSettings::default() };
            assign(&[p], &[(0, heard)].into(), settings, false).remove(0)
        };
        let there = on(mt76x2u(0), 5200, None);
        assert_eq!(there.mesh.map(|c| c.frequency), Some(5200));
        assert!(there.reason.contains("where this mesh was heard"), "{}", there.reason);
        assert_eq!(there.access_point.map(|c| c.frequency), Some(5200), "one radio, one channel");
        assert_eq!(on(mt76x2u(0), 5200, Some(2437)).mesh.map(|c| c.frequency), Some(2437));
        assert_eq!(on(ath9k_htc(0), 5200, None).mesh.map(|c| c.frequency), Some(2412), "not its band");
        let heard = |frequency, noise| HeardMesh { frequency, noise, peers: true };
        assert_eq!(best_channel(&[]), None);
        assert_eq!(best_channel(&[heard(2462, None), heard(2412, None)]), Some(2412), "as nodes begin");
        assert_eq!(
            best_channel(&[heard(2412, Some(-80)), heard(2462, Some(-95))]),
            Some(2462),
            "least noise"
        );
        assert_eq!(best_channel(&[heard(5220, None), heard(2462, Some(-80))]), Some(2462), "measured first");
    }

    /// Whatever radios say of themselves, also where it makes no sense.
    #[test]
    fn any_capabilities_give_a_plan_that_they_allow() {
        let mut state = 0x9e37_79b9_u32;
        let mut below = move |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % n
        };
        for _ in 0..20_000 {
            let all = [Ibss, Station, AccessPoint, MeshPoint, Monitor];
            let count = below(5);
            let phys: Vec<Phy> = (0..count)
                .map(|index| {
                    let mut some = || all.iter().copied().filter(|_| below(2) == 0).collect::<Vec<Mode>>();
                    let (modes, kinds) = (some(), some());
                    let limits = (0..below(3)).map(|_| (below(3), kinds.clone())).collect();
                    let combinations = vec![Combination { limits, interfaces: below(4), channels: below(3) }];
                    let channels = (0..below(4))
                        .map(|n| Channel { frequency: 2407 + 5 * n, ht: below(2) == 0 })
                        .collect();
                    let off =
                        [None, None, Some(Off::Stuck), Some(Off::Soft), Some(Off::Hard)][below(5) as usize];
                    let (sae_ap, sae_mesh) = (below(2) == 0, below(2) == 0);
                    Phy { channels, off, sae_ap, sae_mesh, ..phy(index, &modes, G2, combinations) }
                })
                .collect();
            let settings = RadioSettings {
                mesh_frequency: Some(2407 + 5 * below(5)).filter(|_| below(2) == 0),
                secured: below(2) == 0,
                locked: below(9) == 0,
                ap_frequency: Some(2407 + 5 * below(5)).filter(|_| below(2) == 0),
            };
            let heard = phys.iter().map(|p| (p.index, 2407 + 5 * below(6))).collect();
            let plan = assign(&phys, &heard, settings, below(9) == 0);
            assert_eq!(plan.len(), phys.len());
            assert!(plan.iter().filter(|a| a.access_point.is_some()).count() <= 1, "{plan:?}");
            for (a, p) in plan.iter().zip(&phys) {
                assert!(!a.reason.is_empty() && (a.sae <= p.sae_ap));
                for (channel, mode) in [(a.access_point, AccessPoint), (a.mesh, MeshPoint)] {
                    let Some(channel) = channel else { continue };
                    assert!(p.channels.contains(&channel) && p.modes.contains(&mode) && p.off.is_none());
                }
                if let (Some(ap), Some(mesh)) = (a.access_point, a.mesh) {
                    assert!(ap == mesh && p.combinations.iter().any(|c| c.allows(&[AccessPoint, MeshPoint])));
                }
                assert!(a.mesh.is_none() || (!settings.locked && (!settings.secured || p.sae_mesh)));
            }
        }
    }

    #[test]
    fn combinations_are_matched_not_counted() {
        let shared = combination(&[(1, &[AccessPoint, MeshPoint]), (1, &[AccessPoint])], 2);
        assert!(shared.allows(&[AccessPoint, MeshPoint]) && shared.allows(&[MeshPoint, AccessPoint]));
        assert!(!shared.allows(&[MeshPoint, MeshPoint]));
        assert!(!combination(&[(2, &[AccessPoint, MeshPoint])], 1).allows(&[AccessPoint, MeshPoint]));
        assert!(!Combination { channels: 0, ..shared }.allows(&[MeshPoint]));
        assert!(!combination(&[], 9).allows(&[MeshPoint]));
    }

    #[test]
    fn channel_numbers_are_frequencies() {
        let all = [(1, 2412), (13, 2472), (14, 2484), (36, 5180), (165, 5825)];
        assert!(all.iter().all(|(n, f)| frequency(*n) == Some(*f)));
        assert_eq!((frequency(0), frequency(20), frequency(200)), (None, None, None));
        assert!(all.iter().all(|(n, f)| channel_number(*f) == Some(*n)));
        assert_eq!(channel_number(2413), None);
    }
}

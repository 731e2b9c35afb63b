//! The rules, in their order; the first that fits decides.

use crate::{Link, Mode, Phy, Role};

/// ARPHRD_ETHER
const ETHERNET: u16 = 1;
/// ARPHRD_LOOPBACK
const LOOPBACK: u16 = 772;

/// What the configuration says about wired interfaces (`ethernet.role`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WiredRole {
    /// Find out. So far this means the mesh.
    #[default]
    Auto,
    /// Towards the Internet.
    Uplink,
    /// Towards other nodes.
    Mesh,
    /// Leave alone.
    Off,
}

/// A role and the reason for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The role.
    pub role: Role,
    /// For people.
    pub reason: &'static str,
}

const fn unused(reason: &'static str) -> Option<Decision> {
    Some(Decision { role: Role::Unused, reason })
}

/// What `link` is for; `None` for loopback, which is no part of any plan.
pub fn decide(link: &Link, wired: WiredRole, released: bool) -> Option<Decision> {
    let virtual_kind = link.kind.as_deref().filter(|k| *k != "veth");
    match () {
        () if link.hardware == LOOPBACK => None,
        () if released => unused("workshop = \"manual\": interfaces are left to people"),
        () if link.enslaved => unused("it is a port of a bridge or bond"),
        () if link.wifi == Some(Mode::MeshPoint) => {
            Some(Decision { role: Role::Mesh, reason: "802.11s mesh point" })
        }
        () if link.wifi.is_some() => unused("Wi-Fi: planned later"),
        () if virtual_kind.is_some() => unused("it is virtual: no cable can be plugged into it"),
        () if link.hardware != ETHERNET => unused("it is not Ethernet"),
        () => Some(match wired {
            WiredRole::Auto => Decision { role: Role::Mesh, reason: "wired; ethernet.role = \"auto\"" },
            WiredRole::Mesh => Decision { role: Role::Mesh, reason: "wired; ethernet.role = \"mesh\"" },
            WiredRole::Uplink => Decision {
                role: Role::Uplink,
                reason: "wired; ethernet.role = \"uplink\" (DHCP comes later)",
            },
            WiredRole::Off => Decision { role: Role::Unused, reason: "ethernet.role = \"off\"" },
        }),
    }
}

/// What is planned for a radio, for people.
pub(crate) fn phy_reason(phy: &Phy) -> &'static str {
    let can = |mode| phy.modes.contains(&mode);
    match (can(Mode::AccessPoint), can(Mode::MeshPoint)) {
        (true, true) => "planned later: access point or mesh point",
        (true, false) => "planned later: access point (it can't be a mesh point)",
        (false, true) => "planned later: mesh point (it can't be an access point)",
        (false, false) => "not of use: neither access point nor mesh point",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn ether() -> Link {
        Link {
            index: 2,
            name: "eth0".to_string(),
            hardware: ETHERNET,
            kind: None,
            enslaved: false,
            wifi: None,
            up: true,
            carrier: true,
        }
    }

    #[test]
    fn every_rule_once() {
        use WiredRole::{Auto, Mesh, Off, Uplink};
        let wifi = |mode| Link { wifi: Some(mode), ..ether() };
        let kind = |k: &str| Link { kind: Some(k.to_string()), ..ether() };
        let table = [
            (Link { hardware: LOOPBACK, ..ether() }, Auto, false, None),
            (Link { hardware: LOOPBACK, ..ether() }, Auto, true, None),
            (ether(), Mesh, true, Some((Role::Unused, "manual"))),
            (wifi(Mode::Other), Mesh, false, Some((Role::Unused, "Wi-Fi"))),
            (wifi(Mode::Station), Mesh, false, Some((Role::Unused, "Wi-Fi"))),
            (wifi(Mode::MeshPoint), Off, false, Some((Role::Mesh, "802.11s"))),
            (wifi(Mode::MeshPoint), Mesh, true, Some((Role::Unused, "manual"))),
            (Link { enslaved: true, ..wifi(Mode::MeshPoint) }, Mesh, false, Some((Role::Unused, "port"))),
            (Link { enslaved: true, ..kind("veth") }, Mesh, false, Some((Role::Unused, "port"))),
            (kind("bridge"), Mesh, false, Some((Role::Unused, "virtual"))),
            (kind("tun"), Mesh, false, Some((Role::Unused, "virtual"))),
            (kind("dummy"), Auto, false, Some((Role::Unused, "virtual"))),
            (Link { hardware: 65_534, ..ether() }, Auto, false, Some((Role::Unused, "not Ethernet"))),
            (kind("veth"), Auto, false, Some((Role::Mesh, "auto"))),
            (ether(), Auto, false, Some((Role::Mesh, "auto"))),
            (ether(), Mesh, false, Some((Role::Mesh, "mesh"))),
            (ether(), Uplink, false, Some((Role::Uplink, "uplink"))),
            (ether(), Off, false, Some((Role::Unused, "off"))),
        ];
        for (link, wired, released, want) in table {
            let got = decide(&link, wired, released);
            match (got, want) {
                (None, None) => {}
                (Some(d), Some((role, part))) => {
                    assert_eq!(d.role, role, "{link:?}");
                    assert!(d.reason.contains(part), "{} for {link:?}", d.reason);
                }
                other => panic!("{other:?} for {link:?}"),
            }
        }
    }

    #[test]
    fn names_decide_nothing() {
        for name in ["wlan0", "docker0", "br0", "lo", "tun0", "end0"] {
            let link = Link { name: name.to_string(), ..ether() };
            assert_eq!(decide(&link, WiredRole::Auto, false).map(|d| d.role), Some(Role::Mesh), "{name}");
        }
    }

    #[test]
    fn radios_say_what_they_are_good_for() {
        let phy = |modes| Phy { name: "phy0".to_string(), modes, bands: vec![] };
        assert!(phy_reason(&phy(vec![Mode::AccessPoint, Mode::MeshPoint])).contains("or mesh point"));
        assert!(phy_reason(&phy(vec![Mode::AccessPoint])).contains("can't be a mesh point"));
        assert!(phy_reason(&phy(vec![Mode::MeshPoint])).contains("can't be an access point"));
        assert!(phy_reason(&phy(vec![])).contains("not of use"));
    }
}

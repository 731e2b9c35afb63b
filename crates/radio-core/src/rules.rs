//! The rules, in their order; the first that fits decides.

use alloc::format;
use alloc::string::{String, ToString};

use crate::radios::{Assignment, Channel};
use crate::{Link, Mode, Role};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The role.
    pub role: Role,
    /// It is to join the mesh on this channel.
    pub join: Option<Channel>,
    /// It is ours and of no use any more.
    pub remove: bool,
    /// For people.
    pub reason: String,
}

fn decision(role: Role, reason: &str) -> Option<Decision> {
    Some(Decision { role, join: None, remove: false, reason: reason.to_string() })
}

/// A mesh point with a name that we give: `mesh` and a number.
pub(crate) fn is_own_mesh_point(link: &Link) -> bool {
    let number = link.name.strip_prefix("mesh").unwrap_or_default();
    let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    link.wifi.is_some_and(|w| w.mode == Mode::MeshPoint) && numbered
}

/// What `link` is for; `phy` is what its radio is for, if it belongs to one. `None` for loopback, which is
/// no part of any plan.
pub fn decide(link: &Link, phy: Option<&Assignment>, wired: WiredRole, released: bool) -> Option<Decision> {
    let virtual_kind = link.kind.as_deref().filter(|k| *k != "veth");
    let unused = |reason| decision(Role::Unused, reason);
    let mesh_point = link.wifi.is_some_and(|w| w.mode == Mode::MeshPoint);
    match () {
        () if link.hardware == LOOPBACK => None,
        () if released => unused("workshop = \"manual\": interfaces are left to people"),
        () if link.enslaved => unused("it is a port of a bridge or bond"),
        () if is_own_mesh_point(link) => match phy {
            Some(Assignment { mesh: Some(channel), .. }) => Some(Decision {
                role: Role::Mesh,
                join: Some(*channel),
                remove: false,
                reason: format!("802.11s mesh point on {} MHz", channel.frequency),
            }),
            Some(_) => unused("its radio is for something else").map(|d| Decision { remove: true, ..d }),
            None => unused("its radio is not known yet"),
        },
        () if mesh_point => decision(Role::Mesh, "802.11s mesh point made by hand"),
        () if link.wifi.is_some() => unused("Wi-Fi: left to people"),
        () if virtual_kind.is_some() => unused("it is virtual: no cable can be plugged into it"),
        () if link.hardware != ETHERNET => unused("it is not Ethernet"),
        () => match wired {
            WiredRole::Auto => decision(Role::Mesh, "wired; ethernet.role = \"auto\""),
            WiredRole::Mesh => decision(Role::Mesh, "wired; ethernet.role = \"mesh\""),
            WiredRole::Uplink => {
                decision(Role::Uplink, "wired; ethernet.role = \"uplink\" (DHCP comes later)")
            }
            WiredRole::Off => unused("ethernet.role = \"off\""),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Wifi;

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
        let wifi = |mode| Link { wifi: Some(Wifi { phy: 0, mode }), ..ether() };
        let named = |name: &str| Link { name: name.to_string(), ..wifi(Mode::MeshPoint) };
        let kind = |k: &str| Link { kind: Some(k.to_string()), ..ether() };
        let table = [
            (Link { hardware: LOOPBACK, ..ether() }, Auto, false, None),
            (Link { hardware: LOOPBACK, ..ether() }, Auto, true, None),
            (ether(), Mesh, true, Some((Role::Unused, "manual"))),
            (wifi(Mode::Other), Mesh, false, Some((Role::Unused, "Wi-Fi"))),
            (wifi(Mode::Station), Mesh, false, Some((Role::Unused, "Wi-Fi"))),
            (wifi(Mode::MeshPoint), Off, false, Some((Role::Mesh, "by hand"))),
            (named("meshX"), Off, false, Some((Role::Mesh, "by hand"))),
            (named("mesh12"), Off, false, Some((Role::Unused, "not known yet"))),
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
            let got = decide(&link, None, wired, released);
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
            assert_eq!(
                decide(&link, None, WiredRole::Auto, false).map(|d| d.role),
                Some(Role::Mesh),
                "{name}"
            );
        }
    }

    #[test]
    fn a_mesh_point_of_ours_does_what_its_radio_is_for() {
        let link =
            Link { name: "mesh0".to_string(), wifi: Some(Wifi { phy: 0, mode: Mode::MeshPoint }), ..ether() };
        let channel = Channel { frequency: 2412, ht: true };
        let radio = |mesh| Assignment { access_point: false, mesh, reason: String::new() };
        let of = |mesh| decide(&link, Some(&radio(mesh)), WiredRole::Auto, false).unwrap();
        let mesh = of(Some(channel));
        assert_eq!((mesh.role, mesh.join, mesh.remove), (Role::Mesh, Some(channel), false));
        let other = of(None);
        assert_eq!((other.role, other.join, other.remove), (Role::Unused, None, true));
        assert!(!decide(&link, Some(&radio(None)), WiredRole::Auto, true).unwrap().remove, "released");
    }
}

//! The rules, in their order; the first that fits decides.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::radios::{Assignment, Channel};
use crate::{Cable, Link, Mode, Role};

/// ARPHRD_ETHER
const ETHERNET: u16 = 1;
/// ARPHRD_LOOPBACK
const LOOPBACK: u16 = 772;

/// What the configuration says about wired interfaces (`ethernet.role`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WiredRole {
    /// Find out.
    #[default]
    Auto,
    /// Towards the Internet.
    Uplink,
    /// Towards other nodes.
    Mesh,
    /// Leave alone.
    Off,
}

/// What an interface of ours does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Its channel.
    pub channel: Channel,
    /// Mesh point and access point are on the same radio.
    pub shared: bool,
    /// An access point offers SAE, too.
    pub sae: bool,
}

impl Work {
    /// Time between beacons, in units of 1,024 µs. Mesh points need few, and clients expect many; on one radio
    /// they have to be the same.
    pub fn beacon_interval(&self, role: Role) -> u16 {
        match (self.shared, role) {
            (true, _) => 200,
            (false, Role::AccessPoint) => 100,
            (false, _) => 1000,
        }
    }
}

/// A role and the reason for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The role.
    pub role: Role,
    /// It is ours, and is to mesh or to serve like this.
    pub work: Option<Work>,
    /// It is ours and of no use any more.
    pub remove: bool,
    /// What is on its cable has to be found out.
    pub asks: bool,
    /// For people.
    pub reason: String,
}

fn decision(role: Role, reason: &str) -> Option<Decision> {
    Some(Decision { role, work: None, remove: false, asks: false, reason: reason.to_string() })
}

/// A mesh point with a name that we give: `mesh` and a number.
pub(crate) fn is_own_mesh_point(link: &Link) -> bool {
    link.wifi.is_some_and(|w| w.mode == Mode::MeshPoint) && is_numbered(&link.name, "mesh")
}

/// An access point with a name that we give: `ap` and a number. hostapd may leave it as a client's.
pub(crate) fn is_own_access_point(link: &Link) -> bool {
    let mode = link.wifi.map(|w| w.mode);
    matches!(mode, Some(Mode::AccessPoint | Mode::Station)) && is_numbered(&link.name, "ap")
}

fn is_numbered(name: &str, word: &str) -> bool {
    let number = name.strip_prefix(word).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// What a wired port is for.
fn wired_port(wired: WiredRole, cable: Cable) -> Decision {
    use WiredRole::{Auto, Mesh, Off, Uplink};
    let found = match cable {
        Cable::Quiet => "nothing heard on the cable yet".to_string(),
        Cable::Mesh => "a HELLO of another node was heard".to_string(),
        Cable::Uplink { lease, router } => {
            let lease = lease.map(|(ip, len, server)| format!("the DHCP server {server} gave {ip}/{len}"));
            let router = router.then(|| "a router advertises itself".to_string());
            [lease, router].into_iter().flatten().collect::<Vec<_>>().join(", ")
        }
        Cable::ByHand => "an address was set by hand".to_string(),
    };
    let (role, why) = match (wired, cable) {
        (Auto, Cable::Uplink { .. }) => (Role::Uplink, format!("wired; {found}")),
        (Auto, Cable::ByHand) => (Role::ByHand, format!("wired; {found}: it is left alone")),
        (Auto, _) => (Role::Mesh, format!("wired; {found}")),
        (Uplink, _) => (Role::Uplink, format!("wired; ethernet.role = \"uplink\"; {found}")),
        (Mesh, _) => (Role::Mesh, "wired; ethernet.role = \"mesh\"".to_string()),
        (Off, _) => (Role::Unused, "ethernet.role = \"off\"".to_string()),
    };
    Decision { role, work: None, remove: false, asks: matches!(wired, Auto | Uplink), reason: why }
}

/// What `link` is for; `phy` is what its radio is for, if it belongs to one, and `cable` what was found on its cable, if
/// it has one. `None` for loopback, which is no part of any plan.
pub fn decide(
    link: &Link,
    phy: Option<&Assignment>,
    cable: Cable,
    wired: WiredRole,
    released: bool,
) -> Option<Decision> {
    let virtual_kind = link.kind.as_deref().filter(|k| *k != "veth");
    let unused = |reason| decision(Role::Unused, reason);
    let elsewhere = || unused("its radio is for something else").map(|d| Decision { remove: true, ..d });
    let mesh_point = link.wifi.is_some_and(|w| w.mode == Mode::MeshPoint);
    match () {
        () if link.hardware == LOOPBACK => None,
        () if released => unused("manual workshop: interfaces are left to people"),
        () if link.enslaved => unused("it is a port of a bridge or bond"),
        () if is_own_mesh_point(link) => match phy {
            Some(Assignment { mesh: Some(channel), access_point, .. }) => Some(Decision {
                role: Role::Mesh,
                work: Some(Work { channel: *channel, shared: access_point.is_some(), sae: false }),
                remove: false,
                asks: false,
                reason: format!("802.11s mesh point on {} MHz", channel.frequency),
            }),
            Some(_) => elsewhere(),
            None => unused("its radio is not known yet"),
        },
        () if is_own_access_point(link) => match phy {
            Some(Assignment { access_point: Some(channel), mesh, sae, .. }) => Some(Decision {
                role: Role::AccessPoint,
                work: Some(Work { channel: *channel, shared: mesh.is_some(), sae: *sae }),
                remove: false,
                asks: false,
                reason: format!("access point on {} MHz", channel.frequency),
            }),
            Some(_) => elsewhere(),
            None => unused("its radio is not known yet"),
        },
        () if mesh_point => decision(Role::Mesh, "802.11s mesh point made by hand"),
        () if link.wifi.is_some() => unused("Wi-Fi: left to people"),
        () if virtual_kind.is_some() => unused("it is virtual: no cable can be plugged into it"),
        () if link.hardware != ETHERNET => unused("it is not Ethernet"),
        () => Some(wired_port(wired, cable)),
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
            (kind("veth"), Auto, false, Some((Role::Mesh, "nothing heard"))),
            (ether(), Auto, false, Some((Role::Mesh, "nothing heard"))),
            (ether(), Mesh, false, Some((Role::Mesh, "mesh"))),
            (ether(), Uplink, false, Some((Role::Uplink, "uplink"))),
            (ether(), Off, false, Some((Role::Unused, "off"))),
        ];
        for (link, wired, released, want) in table {
            let got = decide(&link, None, Cable::Quiet, wired, released);
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
    fn what_is_on_the_cable_decides_and_what_is_configured_before_it() {
        use WiredRole::{Auto, Mesh, Off, Uplink};
        let ip = core::net::Ipv4Addr::new;
        let lease = Some((ip(192, 168, 1, 57), 24, ip(192, 168, 1, 1)));
        let leads_out = |lease, router| Cable::Uplink { lease, router };
        let table = [
            (Auto, Cable::Quiet, Role::Mesh, "nothing heard"),
            (Auto, Cable::Mesh, Role::Mesh, "a HELLO"),
            (Auto, leads_out(lease, false), Role::Uplink, "the DHCP server 192.168.1.1 gave 192.168.1.57/24"),
            (Auto, leads_out(None, true), Role::Uplink, "a router advertises itself"),
            (Auto, leads_out(lease, true), Role::Uplink, "57/24, a router"),
            (Auto, Cable::ByHand, Role::ByHand, "by hand: it is left alone"),
            (Uplink, Cable::Quiet, Role::Uplink, "nothing heard"),
            (Uplink, Cable::Mesh, Role::Uplink, "uplink"),
            (Uplink, leads_out(lease, false), Role::Uplink, "192.168.1.57/24"),
            (Uplink, Cable::ByHand, Role::Uplink, "by hand"),
            (Mesh, leads_out(lease, true), Role::Mesh, "mesh"),
            (Off, leads_out(lease, true), Role::Unused, "off"),
        ];
        for (wired, cable, role, part) in table {
            let got = decide(&ether(), None, cable, wired, false).unwrap();
            assert_eq!(got.role, role, "{wired:?} {cable:?}");
            assert_eq!(got.asks, matches!(wired, Auto | Uplink));
            assert!(got.reason.contains(part), "{} for {wired:?} {cable:?}", got.reason);
        }
        assert!(!decide(&ether(), None, Cable::Quiet, Auto, true).unwrap().asks, "released");
    }

    #[test]
    fn names_decide_nothing() {
        for name in ["wlan0", "docker0", "br0", "lo", "tun0", "end0"] {
            let link = Link { name: name.to_string(), ..ether() };
            assert_eq!(
                decide(&link, None, Cable::Quiet, WiredRole::Auto, false).map(|d| d.role),
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
        let radio = |mesh| Assignment {
            access_point: None,
            mesh,
            sae: false,
            reason: String::new(),
            denied: Vec::new(),
        };
        let of = |mesh| decide(&link, Some(&radio(mesh)), Cable::Quiet, WiredRole::Auto, false).unwrap();
        let mesh = of(Some(channel));
        assert_eq!(
            (mesh.role, mesh.work, mesh.remove),
            (Role::Mesh, Some(Work { channel, shared: false, sae: false }), false)
        );
        let other = of(None);
        assert_eq!((other.role, other.work, other.remove), (Role::Unused, None, true));
        assert!(
            !decide(&link, Some(&radio(None)), Cable::Quiet, WiredRole::Auto, true).unwrap().remove,
            "released"
        );
    }

    #[test]
    fn an_access_point_of_ours_does_what_its_radio_is_for() {
        let link = |mode| Link { name: "ap0".to_string(), wifi: Some(Wifi { phy: 0, mode }), ..ether() };
        let channel = Channel { frequency: 2412, ht: true };
        let radio = |access_point| Assignment {
            access_point,
            mesh: None,
            sae: false,
            reason: String::new(),
            denied: Vec::new(),
        };
        let of =
            |mode, ap| decide(&link(mode), Some(&radio(ap)), Cable::Quiet, WiredRole::Auto, false).unwrap();
        for mode in [Mode::AccessPoint, Mode::Station] {
            let serves = of(mode, Some(channel));
            assert_eq!(
                (serves.role, serves.work),
                (Role::AccessPoint, Some(Work { channel, shared: false, sae: false }))
            );
            assert!(of(mode, None).remove);
        }
        assert_eq!(of(Mode::Monitor, Some(channel)).role, Role::Unused, "people's");
    }

    #[test]
    fn beacons_of_one_radio_come_at_the_same_times() {
        let work = |shared| Work { channel: Channel { frequency: 2412, ht: true }, shared, sae: false };
        let beacons = |shared| [Role::Mesh, Role::AccessPoint].map(|r| work(shared).beacon_interval(r));
        assert_eq!((beacons(false), beacons(true)), ([1000, 100], [200, 200]));
    }
}

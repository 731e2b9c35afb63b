//! From the kernel's words to the planner's, and the planner's wishes carried out.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use mesh_sys::netlink::nl80211::{self, Nl80211};
use mesh_sys::netlink::{self, Error, Rtnetlink, sysctl};
use mesh_sys::udp::Family;
use radio_core::{Band, Link, Mode, Phy, Role};

/// The settings of an interface in a role: family, key, value. Those that a kernel lacks are passed over.
fn settings(role: Role) -> &'static [(Family, &'static str, &'static str)] {
    match role {
        Role::Mesh | Role::AccessPoint => &[
            (Family::V6, "disable_ipv6", "0"),
            // A link-local address made from the MAC: the router's address on the link.
            (Family::V6, "addr_gen_mode", "0"),
            // The MAC is unique on the link or nothing works; detection would cost a second.
            (Family::V6, "accept_dad", "0"),
            // A router takes no advice from routers.
            (Family::V6, "accept_ra", "0"),
            (Family::V6, "accept_redirects", "0"),
            (Family::V4, "accept_redirects", "0"),
            (Family::V4, "send_redirects", "0"),
            // Answers may take another way than questions.
            (Family::V4, "rp_filter", "0"),
        ],
        // 2: also while forwarding
        Role::Uplink => &[(Family::V6, "disable_ipv6", "0"), (Family::V6, "accept_ra", "2")],
        Role::Unused => &[],
    }
}

/// Gives `link` the settings of `role` and sets it up.
pub(crate) fn prepare(nl: &mut Rtnetlink, link: &Link, role: Role) -> Result<(), Error> {
    for (family, key, value) in settings(role) {
        match sysctl::set(*family, &link.name, key, value) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => log::debug!("{}: no {key}", link.name),
            Err(e) => return Err(e.into()),
        }
    }
    if link.up { Ok(()) } else { nl.set_up(link.index, true) }
}

/// The kernel's interface as the planner knows it.
pub(crate) fn link(link: &netlink::Link, wireless: &BTreeSet<u32>) -> Link {
    Link {
        index: link.index,
        name: link.name.clone(),
        hardware: link.hardware,
        kind: link.kind.clone(),
        enslaved: link.master.is_some(),
        wireless: wireless.contains(&link.index),
        up: link.up,
        carrier: link.carrier,
    }
}

/// The radios, and the indices of their interfaces; none if there is no Wi-Fi in this kernel.
pub(crate) fn radios() -> Result<(Vec<Phy>, BTreeSet<u32>), Error> {
    // The kernel would load its Wi-Fi stack for the question alone, which takes half a second. A driver
    // brings it along.
    if !may_have_radios(Path::new("/sys/class")) {
        return Ok((Vec::new(), BTreeSet::new()));
    }
    let Some(mut nl) = Nl80211::open()? else { return Ok((Vec::new(), BTreeSet::new())) };
    let phys = nl.wiphys()?.into_iter().map(phy).collect();
    let interfaces = nl.interfaces()?.into_iter().map(|i| i.index).collect();
    Ok((phys, interfaces))
}

/// False if the Wi-Fi stack is not loaded. Where nothing can be told, it may be.
fn may_have_radios(classes: &Path) -> bool {
    classes.join("ieee80211").exists() || !classes.join("net").exists()
}

fn phy(wiphy: nl80211::Wiphy) -> Phy {
    let mode = |m: &nl80211::Mode| match m {
        nl80211::Mode::Ibss => Some(Mode::Ibss),
        nl80211::Mode::Station => Some(Mode::Station),
        nl80211::Mode::AccessPoint => Some(Mode::AccessPoint),
        nl80211::Mode::MeshPoint => Some(Mode::MeshPoint),
        nl80211::Mode::Monitor => Some(Mode::Monitor),
        nl80211::Mode::Other(_) => None,
    };
    let band = |b: &u16| match b {
        0 => Some(Band::Ghz2),
        1 => Some(Band::Ghz5),
        2 => Some(Band::Ghz60),
        3 => Some(Band::Ghz6),
        4 => Some(Band::Ghz0),
        _ => None,
    };
    Phy {
        modes: wiphy.modes.iter().filter_map(mode).collect(),
        bands: wiphy.bands.iter().filter_map(band).collect(),
        name: wiphy.name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_wifi_stack_nobody_is_asked() {
        let classes = std::env::temp_dir().join(format!("mesh-radio-class-{}", std::process::id()));
        assert!(may_have_radios(&classes), "no sysfs");
        std::fs::create_dir_all(classes.join("net")).unwrap();
        assert!(!may_have_radios(&classes));
        std::fs::create_dir_all(classes.join("ieee80211")).unwrap();
        assert!(may_have_radios(&classes));
        std::fs::remove_dir_all(&classes).unwrap();
    }
}

//! From the kernel's words to the planner's, and the planner's wishes carried out.

use std::collections::BTreeMap;
use std::io;

use mesh_sys::netlink::{self, Error, Rtnetlink, sysctl};
use mesh_sys::udp::Family;
use radio_core::{Link, Role, Wifi};

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
        Role::Uplink => &[
            (Family::V6, "disable_ipv6", "0"),
            // 2: also while forwarding
            (Family::V6, "accept_ra", "2"),
            (Family::V6, "accept_redirects", "0"),
            (Family::V4, "accept_redirects", "0"),
        ],
        Role::ByHand | Role::Unused => &[],
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

/// The kernel's interface as the planner knows it; `wifi` says what the interfaces of radios are.
pub(crate) fn link(link: &netlink::Link, wifi: &BTreeMap<u32, Wifi>) -> Link {
    Link {
        index: link.index,
        name: link.name.clone(),
        hardware: link.hardware,
        kind: link.kind.clone(),
        enslaved: link.master.is_some(),
        wifi: wifi.get(&link.index).copied(),
        up: link.up,
        carrier: link.carrier,
    }
}

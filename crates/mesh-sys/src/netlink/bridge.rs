//! Bridges and their ports, as far as they stand for radio (RTM_NEWLINK with a bridge's own attributes).

use super::codec::{Builder, Nest};
use super::link::{IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MASTER, about};

const IFLA_PROTINFO: u16 = 12;
const NLA_F_NESTED: u16 = 0x8000;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_ISOLATED: u16 = 33;

const BR_STATE_DISABLED: u8 = 0;
const BR_STATE_FORWARDING: u8 = 3;

/// Turns the snooping of multicast membership on or off.
pub(super) fn snooping_request(index: u32, on: bool) -> Builder {
    let mut data = Nest::default();
    data.attribute(IFLA_BR_MCAST_SNOOPING, &[on.into()]);
    let mut info = Nest::default();
    info.attribute(IFLA_INFO_KIND, b"bridge");
    info.attribute(IFLA_INFO_DATA, data.bytes());
    let mut b = Builder::new(libc::RTM_NEWLINK, 0, &about(index));
    b.attribute(IFLA_LINKINFO, info.bytes());
    b
}

/// Puts an interface into a bridge.
pub(super) fn master_request(index: u32, bridge: u32) -> Builder {
    let mut b = Builder::new(libc::RTM_NEWLINK, 0, &about(index));
    b.attribute_u32(IFLA_MASTER, bridge);
    b
}

/// Nothing passes from one isolated port to another.
pub(super) fn isolated_request(index: u32, on: bool) -> Builder {
    port_request(index, IFLA_BRPORT_ISOLATED, on.into())
}

/// A port that does not forward loses every frame, while the interface keeps its carrier.
pub(super) fn forwarding_request(index: u32, on: bool) -> Builder {
    port_request(index, IFLA_BRPORT_STATE, if on { BR_STATE_FORWARDING } else { BR_STATE_DISABLED })
}

fn port_request(index: u32, attribute: u16, value: u8) -> Builder {
    let mut data = Nest::default();
    data.attribute(attribute, &[value]);
    let mut fixed = about(index);
    if let Some(family) = fixed.first_mut() {
        *family = libc::AF_BRIDGE as u8;
    }
    let mut b = Builder::new(libc::RTM_SETLINK, 0, &fixed);
    b.attribute(IFLA_PROTINFO | NLA_F_NESTED, data.bytes());
    b
}

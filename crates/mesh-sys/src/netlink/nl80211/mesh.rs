//! Making interfaces on radios, and joining 802.11s meshes.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{ATTR_IFINDEX, ATTR_IFTYPE, ATTR_MAC, ATTR_WIPHY, CMD_DEL_STATION, Mode};
use crate::netlink::codec::{Builder, Nest};

const CMD_SET_INTERFACE: u8 = 6;
const CMD_NEW_INTERFACE: u8 = 7;
const CMD_DEL_INTERFACE: u8 = 8;
const CMD_SET_MESH_CONFIG: u8 = 29;
const CMD_SET_WIPHY_NETNS: u8 = 49;
const CMD_JOIN_MESH: u8 = 68;
const CMD_LEAVE_MESH: u8 = 69;
const ATTR_IFNAME: u16 = 4;
const ATTR_BEACON_INTERVAL: u16 = 12;
const ATTR_MESH_ID: u16 = 24;
const ATTR_MESH_CONFIG: u16 = 35;
const ATTR_WIPHY_FREQ: u16 = 38;
const ATTR_CHANNEL_WIDTH: u16 = 159;
const ATTR_NETNS_FD: u16 = 219;
const NESTED: u16 = 0x8000;

const CONFIG_HWMP_ROOTMODE: u16 = 14;
const CONFIG_GATE_ANNOUNCEMENTS: u16 = 17;
const CONFIG_FORWARDING: u16 = 19;
const CONFIG_RSSI_THRESHOLD: u16 = 20;
const CONFIG_PLINK_TIMEOUT: u16 = 28;

const WIDTH_20_WITHOUT_HT: u32 = 0;
const WIDTH_20: u32 = 1;

/// An open 802.11s mesh in which the stations do not forward: a router above does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshSetup<'a> {
    /// Mesh ID, 1 to 32 bytes.
    pub id: &'a [u8],
    /// Channel's centre in MHz.
    pub frequency: u32,
    /// Use 802.11n rates; the radio has to be able to.
    pub ht: bool,
    /// A peer that was not heard for so long is removed, in seconds.
    pub peer_timeout: u32,
    /// Time between beacons, in units of 1,024 µs, 10 to 10,000; the same for all that a radio sends.
    pub beacon_interval: u16,
    /// No peer link is opened with who is heard with less, in dBm, -255 to 0; 0: with all.
    pub rssi_threshold: i32,
}

fn about(family: u16, command: u8, interface: u32) -> Builder {
    let mut b = Builder::new(family, 0, &[command, 0, 0, 0]);
    b.attribute_u32(ATTR_IFINDEX, interface);
    b
}

pub(super) fn join(family: u16, interface: u32, setup: &MeshSetup<'_>) -> Builder {
    let mut b = about(family, CMD_JOIN_MESH, interface);
    b.attribute(ATTR_MESH_ID, setup.id);
    b.attribute_u32(ATTR_BEACON_INTERVAL, setup.beacon_interval.into());
    b.attribute_u32(ATTR_WIPHY_FREQ, setup.frequency);
    b.attribute_u32(ATTR_CHANNEL_WIDTH, if setup.ht { WIDTH_20 } else { WIDTH_20_WITHOUT_HT });
    let mut config = quiet(setup.rssi_threshold);
    config.attribute(CONFIG_PLINK_TIMEOUT, &setup.peer_timeout.to_ne_bytes());
    b.attribute(ATTR_MESH_CONFIG | NESTED, config.bytes());
    b
}

/// The settings of a mesh in which a router above does the work.
fn quiet(rssi_threshold: i32) -> Nest {
    let mut config = Nest::default();
    config.attribute(CONFIG_FORWARDING, &[0]);
    config.attribute(CONFIG_HWMP_ROOTMODE, &[0]);
    config.attribute(CONFIG_GATE_ANNOUNCEMENTS, &[0]);
    config.attribute(CONFIG_RSSI_THRESHOLD, &rssi_threshold.to_ne_bytes());
    config
}

pub(super) fn configure(family: u16, interface: u32, rssi_threshold: i32) -> Builder {
    let mut b = about(family, CMD_SET_MESH_CONFIG, interface);
    b.attribute(ATTR_MESH_CONFIG | NESTED, quiet(rssi_threshold).bytes());
    b
}

pub(super) fn leave(family: u16, interface: u32) -> Builder {
    about(family, CMD_LEAVE_MESH, interface)
}

pub(super) fn add_interface(family: u16, wiphy: u32, name: &str, mode: Mode) -> Builder {
    let mut b = Builder::new(family, 0, &[CMD_NEW_INTERFACE, 0, 0, 0]);
    b.attribute_u32(ATTR_WIPHY, wiphy);
    b.attribute(ATTR_IFNAME, &[name.as_bytes(), &[0]].concat());
    b.attribute_u32(ATTR_IFTYPE, mode.number().into());
    b
}

pub(super) fn set_mode(family: u16, interface: u32, mode: Mode) -> Builder {
    let mut b = about(family, CMD_SET_INTERFACE, interface);
    b.attribute_u32(ATTR_IFTYPE, mode.number().into());
    b
}

pub(super) fn remove_interface(family: u16, interface: u32) -> Builder {
    about(family, CMD_DEL_INTERFACE, interface)
}

pub(super) fn remove_station(family: u16, interface: u32, mac: [u8; 6]) -> Builder {
    let mut b = about(family, CMD_DEL_STATION, interface);
    b.attribute(ATTR_MAC, &mac);
    b
}

pub(super) fn set_namespace(family: u16, wiphy: u32, namespace: BorrowedFd<'_>) -> Builder {
    let mut b = Builder::new(family, 0, &[CMD_SET_WIPHY_NETNS, 0, 0, 0]);
    b.attribute_u32(ATTR_WIPHY, wiphy);
    b.attribute(ATTR_NETNS_FD, &namespace.as_raw_fd().to_ne_bytes());
    b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::codec;

    /// The command, and the attributes by number.
    fn read(request: Builder) -> (u8, Vec<(u16, Vec<u8>)>) {
        let bytes = request.finish(0, 1);
        let message = codec::messages(&bytes).next().unwrap().unwrap();
        let attributes = codec::attributes(&message.body[4..]);
        (message.body[0], attributes.map(|a| a.map(|(k, v)| (k, v.to_vec())).unwrap()).collect())
    }

    #[test]
    fn a_join_switches_forwarding_and_root_mode_off() {
        let setup = MeshSetup {
            id: b"p2pmesh",
            frequency: 2412,
            ht: true,
            peer_timeout: 10,
            beacon_interval: 200,
            rssi_threshold: -87,
        };
        let (command, attributes) = read(join(28, 5, &setup));
        let of = |kind| attributes.iter().find(|(k, _)| *k == kind).map(|(_, v)| v.clone()).unwrap();
        assert_eq!(command, CMD_JOIN_MESH);
        assert_eq!((of(ATTR_MESH_ID), of(ATTR_IFINDEX)), (b"p2pmesh".to_vec(), 5u32.to_ne_bytes().to_vec()));
        assert_eq!(of(ATTR_WIPHY_FREQ), 2412u32.to_ne_bytes());
        assert_eq!(of(ATTR_BEACON_INTERVAL), 200u32.to_ne_bytes());
        assert_eq!(of(ATTR_CHANNEL_WIDTH), WIDTH_20.to_ne_bytes());
        let config = of(ATTR_MESH_CONFIG);
        let config: Vec<_> = codec::attributes(&config).map(Result::unwrap).collect();
        assert!(
            config.contains(&(CONFIG_FORWARDING, &[0][..])) && config.contains(&(CONFIG_HWMP_ROOTMODE, &[0]))
        );
        assert!(config.contains(&(CONFIG_PLINK_TIMEOUT, &10u32.to_ne_bytes())));
        assert!(config.contains(&(CONFIG_RSSI_THRESHOLD, &(-87i32).to_ne_bytes())));
        assert_eq!(read(configure(28, 5, -87)).0, CMD_SET_MESH_CONFIG);
    }

    #[test]
    fn interfaces_are_named_by_radio_or_index() {
        let (command, attributes) = read(add_interface(28, 3, "mesh0", Mode::MeshPoint));
        assert_eq!(command, CMD_NEW_INTERFACE);
        let all = [
            (ATTR_WIPHY, 3u32.to_ne_bytes().to_vec()),
            (ATTR_IFNAME, b"mesh0\0".to_vec()),
            (ATTR_IFTYPE, 7u32.to_ne_bytes().to_vec()),
        ];
        assert_eq!(attributes, all);
        assert_eq!(read(remove_interface(28, 9)).1, [(ATTR_IFINDEX, 9u32.to_ne_bytes().to_vec())]);
        assert_eq!(read(set_mode(28, 9, Mode::AccessPoint)).1[1], (ATTR_IFTYPE, 3u32.to_ne_bytes().to_vec()));
        assert_eq!(read(remove_station(28, 9, [1; 6])).1[1], (ATTR_MAC, vec![1; 6]));
        assert_eq!(read(leave(28, 9)).0, CMD_LEAVE_MESH);
    }
}

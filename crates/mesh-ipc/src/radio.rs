//! Requests to `mesh-radio` and its answers.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// What can be asked of the radio service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RadioRequest {
    /// One [`RadioResponse::Plan`].
    Plan,
    /// A [`RadioResponse::Plan`] now and after every change, until the connection ends.
    Watch,
    /// One [`RadioResponse::Stations`], with the access point's.
    Stations,
    /// A [`RadioResponse::Stations`] now, at once when a peer comes or is lost, and every few seconds with
    /// new figures, until the connection ends.
    WatchStations,
    /// One [`RadioResponse::Clients`].
    Clients,
    /// Hands radios and interfaces to people, or takes them back; one [`RadioResponse::Plan`] when that is done.
    Workshop {
        /// To people.
        manual: bool,
    },
}

/// What the radio service answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RadioResponse {
    /// The plan in force.
    Plan(Plan),
    /// All stations of all mesh points there are now; the access point's only in the answer to
    /// [`RadioRequest::Stations`].
    Stations(Vec<Station>),
    /// The access point's clients that have an address from this node, by address.
    Clients(Vec<Client>),
}

/// A client of the access point, as the node's DHCP server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The address it was given.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// What it calls itself: visible ASCII; anybody can call themselves anything.
    pub name: Option<String>,
    /// Seconds until the address is free again, if it is not renewed.
    pub remaining_s: u64,
}

/// The most stations in a [`RadioResponse::Stations`].
pub const MAX_STATIONS: usize = 256;

/// A station in reach of a mesh point, as the radio sees it. A figure that is `None` is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// Kernel index of the interface.
    pub index: u32,
    /// Its kernel name.
    pub interface: String,
    /// The station's hardware address.
    pub mac: [u8; 6],
    /// Frames pass: its peer link is established. Else it is only heard.
    pub peer: bool,
    /// Received signal in dBm, below zero.
    pub signal: Option<i8>,
    /// Rate of what is sent to it, in bit/s.
    pub tx_bitrate: Option<u64>,
    /// Rate of what comes from it, in bit/s.
    pub rx_bitrate: Option<u64>,
    /// What is expected to get through to it, in bit/s.
    pub expected_throughput: Option<u64>,
    /// Milliseconds since anything came from it.
    pub inactive_ms: Option<u32>,
}

/// Which interface does what, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Every interface the service decides about.
    pub interfaces: Vec<Interface>,
    /// Every Wi-Fi radio found.
    pub phys: Vec<Phy>,
    /// The access point, where there is one.
    pub access_point: Option<AccessPoint>,
    /// People drive radios and interfaces.
    pub manual: bool,
}

/// The node's access point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessPoint {
    /// Kernel name of its interface.
    pub interface: String,
    /// Network name.
    pub ssid: String,
    /// Centre of its channel in MHz.
    pub frequency: u32,
    /// Number of its channel.
    pub channel: Option<u8>,
    /// Clients can join.
    pub serving: bool,
    /// It offers WPA3 (SAE) beside WPA2.
    pub wpa3: bool,
    /// The most clients the radio can have; `None`: it does not say.
    pub most_clients: Option<u32>,
}

/// What an interface is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The router runs on it.
    Mesh,
    /// Clients join through it.
    AccessPoint,
    /// Leads to the Internet.
    Uplink,
    /// Left alone.
    Unused,
    /// People have given it an address: left alone, but the node's name is answered for there.
    ByHand,
}

/// An interface of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Kernel name.
    pub name: String,
    /// Kernel index.
    pub index: u32,
    /// What it is for.
    pub role: Role,
    /// Up, with carrier.
    pub running: bool,
    /// Why it has that role, for people.
    pub reason: String,
}

/// A Wi-Fi radio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phy {
    /// Kernel name, as `phy0`.
    pub name: String,
    /// Driver's modes: `AP`, `mesh point`, `IBSS`, …
    pub modes: Vec<String>,
    /// Bands in GHz: `2.4`, `5`, `6`.
    pub bands: Vec<String>,
    /// What is planned for it, for people.
    pub reason: String,
}

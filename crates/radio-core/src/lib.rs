//! From the machine's interfaces and radios to a plan: which interface meshes, which serves clients, which
//! leads out, and why (level 2, sans-IO).
//!
//! The rules are two tables, [`decide`] for interfaces and [`assign`] for radios; what a radio is for is decided
//! by what it can do, never by a name. The driver hands
//! [`Planner`] what the kernel says, drains [`Planner::poll_output`] after every input, and wakes it at
//! [`Planner::poll_timeout`].
//!
//! [`Stations`], beside it, follows who is in reach of the mesh points.
//!
//! [`Port`] finds out what is on a cable; [`openings`] says which ports are open where.
//!
//! For an access point: [`Keeper`] says when its daemon is started again, [`dhcp`] gives its clients IPv4
//! addresses, [`ra`] tells them their IPv6 prefix.
#![no_std]

extern crate alloc;

pub mod dhcp;
mod keeper;
mod look;
mod openings;
mod planner;
mod port;
pub mod ra;
mod radios;
mod random;
mod rules;
mod stations;

use alloc::string::String;
use alloc::vec::Vec;

pub use keeper::{
    END_PATIENCE, FIRST_PAUSE, Keeper, KeeperInput, KeeperOutput, LONGEST_PAUSE, STABLE, START_PATIENCE,
};
pub use openings::{Opening, openings};
pub use planner::{Config, Counters, Input, MAX_INTERFACES, MAX_PHYS, Output, Planner};
pub use port::{Cable, Port, PortInput, PortOutput};
pub use radios::{
    Assignment, Channel, Combination, Denied, HeardMesh, RadioSettings, assign, best_channel, channel_number,
    frequency,
};
pub use rules::{Decision, WiredRole, Work, decide};
pub use stations::{
    FIGURES, MAX_STATIONS, Mac, POLL, Station, StationCounters, StationInput, StationOutput, Stations,
};

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index.
    pub index: u32,
    /// Kernel name, for people only.
    pub name: String,
    /// Hardware type, as in the kernel's `if_arp.h`: 1 is Ethernet.
    pub hardware: u16,
    /// Driver kind of a virtual interface (`veth`, `bridge`, …); `None` for hardware.
    pub kind: Option<String>,
    /// It is a port of a bridge or bond.
    pub enslaved: bool,
    /// What it is now, if it belongs to a Wi-Fi radio.
    pub wifi: Option<Wifi>,
    /// Administratively up.
    pub up: bool,
    /// It has carrier; means nothing while not up.
    pub carrier: bool,
}

/// What an interface of a radio is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wifi {
    /// Kernel index of the radio.
    pub phy: u32,
    /// What it is now.
    pub mode: Mode,
}

/// What a radio's interfaces can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Ad hoc.
    Ibss,
    /// Client of an access point.
    Station,
    /// Access point.
    AccessPoint,
    /// 802.11s mesh point.
    MeshPoint,
    /// Listens only.
    Monitor,
    /// Something of no use here.
    Other,
}

impl Mode {
    /// The field's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ibss => "IBSS",
            Self::Station => "managed",
            Self::AccessPoint => "AP",
            Self::MeshPoint => "mesh point",
            Self::Monitor => "monitor",
            Self::Other => "other",
        }
    }
}

/// A frequency band.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Band {
    /// 2.4 GHz
    Ghz2,
    /// 5 GHz
    Ghz5,
    /// 6 GHz
    Ghz6,
    /// 60 GHz
    Ghz60,
    /// Below 1 GHz
    Ghz0,
}

impl Band {
    /// In GHz.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ghz2 => "2.4",
            Self::Ghz5 => "5",
            Self::Ghz6 => "6",
            Self::Ghz60 => "60",
            Self::Ghz0 => "0.9",
        }
    }
}

/// A Wi-Fi radio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phy {
    /// Kernel index.
    pub index: u32,
    /// Kernel name, as `phy0`.
    pub name: String,
    /// What its interfaces can be.
    pub modes: Vec<Mode>,
    /// Where it can work.
    pub bands: Vec<Band>,
    /// The channels on which it may begin to send, by frequency.
    pub channels: Vec<Channel>,
    /// The centres of those where it would have to look for radar first, in MHz.
    pub radar: Vec<u32>,
    /// What it can be at the same time.
    pub combinations: Vec<Combination>,
    /// The most clients an access point on it can have; `None`: it does not say.
    pub most_clients: Option<u32>,
    /// An access point on it can offer SAE (WPA3), with management frames protected.
    pub sae_ap: bool,
    /// A mesh point on it can authenticate its peers by SAE.
    pub sae_mesh: bool,
    /// It can't be used at present.
    pub off: Option<Off>,
}

/// Why a radio can't be used at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    /// Somebody told the kernel to switch it off (rfkill).
    Soft,
    /// A switch or button (rfkill).
    Hard,
    /// It does not do what it is told to.
    Stuck,
}

/// What an interface is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The router runs on it.
    Mesh,
    /// Clients join through it.
    AccessPoint,
    /// Leads to the Internet.
    Uplink,
    /// People have given it an address: left alone, but the node's name is answered for there.
    ByHand,
    /// Left alone.
    Unused,
}

/// An interface of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedInterface {
    /// Kernel index.
    pub index: u32,
    /// Kernel name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Up, with carrier.
    pub running: bool,
    /// Why it has that role, for people.
    pub reason: String,
    /// What is on its cable has to be found out, by a [`Port`].
    pub asks: bool,
}

/// A radio of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPhy {
    /// The radio.
    pub phy: Phy,
    /// Clients join through it.
    pub access_point: bool,
    /// What is planned for it, for people.
    pub reason: String,
    /// What the configuration wants of it, and is not possible.
    pub denied: Vec<Denied>,
}

/// Which interface does what, and why; interfaces by index, radios as the kernel lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every interface but loopback.
    pub interfaces: Vec<PlannedInterface>,
    /// Every radio.
    pub phys: Vec<PlannedPhy>,
}

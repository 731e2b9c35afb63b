//! The radio service: brings wired interfaces up, gives each interface its role, keeps an access point for
//! phones, and tells whoever watches (level 4). The rules are in `radio-core`.
//!
//! Where to look: `service` the driver loop · `kernel` from the kernel's words to the planner's and back ·
//! `wifi` radios and stations · `daemon` programs that are kept running · `ap` hostapd · `secured` wpa_supplicant ·
//! `clients` what the access point's clients get · `ports` what is on cables, and what a network there gives ·
//! `firewall` what is open where · `report` the words of the control socket.
//!
//! Needs `CAP_NET_ADMIN`; for cables and an access point also `CAP_NET_RAW` (hostapd, router advertisements, DHCP
//! before there is an address) and `CAP_NET_BIND_SERVICE` (DHCP, HELLOs).

mod ap;
mod clients;
mod daemon;
mod firewall;
mod kernel;
mod ports;
mod report;
mod secured;
mod service;
mod settings;
mod wifi;

use std::process::ExitCode;

use mesh_sys::service::{self as common, About, Args, Failure};

const ABOUT: About = About {
    name: service::NAME,
    version: env!("CARGO_PKG_VERSION"),
    what: "gives every network interface its role and brings it up",
    flags: &[],
    check: mesh_config::check,
};

fn main() -> ExitCode {
    common::main(&ABOUT, run)
}

fn run(args: &Args) -> Result<(), Failure> {
    service::Service::new(args).and_then(|mut s| s.run()).map_err(Failure::Run)
}

//! The command line, the configuration and the node's identity, as one set of decisions.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use mesh_sys::identity::{self, Identity};
use mesh_sys::service::{Args, Flag};
use olsrv2::{Key, NetAddr, Timing};

/// The flags beyond those of every service.
pub(crate) const FLAGS: &[Flag] = &[
    Flag {
        name: "--interface",
        value: Some("IF"),
        many: true,
        help: "mesh interfaces (default: those mesh-radio names)",
    },
    Flag {
        name: "--originator",
        value: Some("ADDR"),
        many: true,
        help: "own address, one a family (default: from the identity)",
    },
    Flag { name: "--attach", value: Some("PREFIX"), many: true, help: "networks behind this node" },
    Flag {
        name: "--tc-scopes",
        value: Some("HOPS,..."),
        many: false,
        help: "how many hops successive TCs go, as 255,4,4 (default: all go all the way)",
    },
    Flag {
        name: "--record",
        value: Some("FILE"),
        many: false,
        help: "write all that happens to the router there, for mesh-sim --replay; ends at 64 MiB",
    },
    Flag { name: "--fast", value: None, many: false, help: "short intervals, for small lively meshes" },
];

/// What the service is to do.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `None`: as mesh-radio says.
    pub(crate) interfaces: Option<BTreeSet<String>>,
    pub(crate) originator6: Ipv6Addr,
    pub(crate) originator4: Ipv4Addr,
    /// The IPv4 address was given on the command line; it stays whoever else has it.
    pub(crate) fixed4: bool,
    /// An uplink is for the mesh, too (`gateway.share`, and `ethernet.role` is not "off").
    pub(crate) share_uplink: bool,
    /// Networks announced as attached, both families; the node's own /64 is among them if the IPv6
    /// originator comes from the identity.
    pub(crate) attached: Vec<NetAddr>,
    /// The node's own /64, where it has one.
    pub(crate) own_prefix: Option<NetAddr>,
    pub(crate) timing: Timing,
    /// Hop limits of successive TCs; empty: no scoping.
    pub(crate) tc_scopes: Vec<u8>,
    pub(crate) identity: Identity,
    /// RFC 7182 keys from `router.key`.
    pub(crate) keys: Vec<Key>,
    /// Where the configuration stands, and the copy of the last good one.
    config: [PathBuf; 2],
    pub(crate) run_dir: PathBuf,
    pub(crate) state_dir: PathBuf,
    /// Where inputs are recorded.
    pub(crate) record: Option<PathBuf>,
    /// What a person should know about the configuration.
    pub(crate) problems: Vec<String>,
}

impl Settings {
    /// Reads everything; an error is for people.
    pub(crate) fn new(args: &Args) -> Result<Self, String> {
        let interfaces = match args.all("--interface") {
            [] => None,
            names => Some(names.iter().map(|n| interface(n)).collect::<Result<_, _>>()?),
        };
        let identity = identity::load_or_create(&args.state_dir).map_err(|e| e.to_string())?;
        let node = identity.node_id();
        let (mut originator6, mut originator4) = (None, None);
        for text in args.all("--originator") {
            let doubled = match originator(text)? {
                IpAddr::V6(a) => originator6.replace(a).is_some(),
                IpAddr::V4(a) => originator4.replace(a).is_some(),
            };
            if doubled {
                return Err(format!("--originator {text}: only one address a family"));
            }
        }
        let mut attached = args.all("--attach").iter().map(|t| prefix(t)).collect::<Result<Vec<_>, _>>()?;
        let own_prefix = originator6.is_none().then(|| NetAddr::new(node.ula_prefix().into(), 64));
        attached.extend(own_prefix);
        attached.sort_unstable();
        attached.dedup();
        let mut settings = Self {
            interfaces,
            originator6: originator6.unwrap_or_else(|| node.ula_address()),
            fixed4: originator4.is_some(),
            share_uplink: false,
            originator4: originator4.unwrap_or_else(|| node.mesh_ipv4(0)),
            attached,
            own_prefix,
            tc_scopes: args.one("--tc-scopes").map_or(Ok(Vec::new()), scopes)?,
            timing: if args.has("--fast") { Timing::FAST } else { Timing::STEADY },
            identity,
            keys: Vec::new(),
            config: [args.config.clone(), args.state_dir.join("p2pmesh.toml")],
            run_dir: args.run_dir.clone(),
            state_dir: args.state_dir.join("mesh-router"),
            record: args.one("--record").map(PathBuf::from),
            problems: Vec::new(),
        };
        let config = settings.read_config();
        settings.share_uplink =
            config.gateway.share && config.ethernet.role != mesh_config::EthernetRole::Off;
        Ok(settings)
    }

    /// Reads the configuration file. Keys and problems are taken over; they may change while the router runs.
    pub(crate) fn read_config(&mut self) -> mesh_config::Config {
        let [path, last_good] = &self.config;
        let loaded = mesh_config::load_or_last_good(path, last_good);
        self.problems = loaded.problem_lines(path);
        self.keys = loaded.config.router.keys.iter().map(|k| Key::new(k.expose().as_bytes())).collect();
        loaded.config
    }
}

/// A name the kernel would take (IFNAMSIZ less its NUL).
fn interface(name: &str) -> Result<String, String> {
    let good = !name.is_empty() && name.len() < 16 && name != "." && name != "..";
    if good && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        Ok(name.to_owned())
    } else {
        Err(format!("--interface {name:?}: no interface can have that name"))
    }
}

/// A pattern that RFC 7181 §5.4.7 allows.
fn scopes(text: &str) -> Result<Vec<u8>, String> {
    let hops: Result<Vec<u8>, _> = text.split(',').map(|t| t.trim().parse()).collect();
    let regular = hops.ok().filter(|pattern| olsrv2::is_regular(pattern));
    regular.ok_or_else(|| {
        format!("--tc-scopes {text:?}: not hop limits of 2 to 255 that come regularly at every distance and go all the way, as 255,4,4")
    })
}

fn originator(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| format!("--originator {text:?}: not an IP address"))?;
    let routable = match ip {
        IpAddr::V4(a) => !a.is_link_local() && !a.is_broadcast(),
        IpAddr::V6(a) => !a.is_unicast_link_local(),
    };
    if routable && !ip.is_multicast() && !ip.is_loopback() && !ip.is_unspecified() {
        Ok(ip)
    } else {
        Err(format!("--originator {text}: has to be a routable unicast address"))
    }
}

/// `ADDR/LEN`, or `ADDR` for one host.
fn prefix(text: &str) -> Result<NetAddr, String> {
    let bad = || format!("--attach {text:?}: not a prefix like fd00:1::/64 or 10.1.0.0/16");
    let (ip, len) = text.split_once('/').map_or((text, None), |(ip, len)| (ip, Some(len)));
    let ip: IpAddr = ip.parse().map_err(|_| bad())?;
    let net = match len {
        None => NetAddr::host(ip),
        Some(len) => {
            let len: u8 = len.parse().map_err(|_| bad())?;
            if len > NetAddr::host(ip).prefix_len() {
                return Err(bad());
            }
            NetAddr::new(ip, len)
        }
    };
    if net.network() == net {
        Ok(net)
    } else {
        Err(format!("--attach {text}: has bits behind the prefix; {} is meant?", net.network()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_values_are_checked() {
        assert!(interface("eth0").is_ok() && interface("br-lan.10").is_ok());
        for bad in ["", "..", "a/b", "sixteen-letters-", "a b"] {
            assert!(interface(bad).is_err(), "{bad}");
        }
        assert!(originator("fd00::1").is_ok() && originator("10.64.0.1").is_ok());
        for bad in ["fe80::1", "ff02::1", "::", "127.0.0.1", "224.0.0.1", "x", "169.254.0.1"] {
            assert!(originator(bad).is_err(), "{bad}");
        }
        assert_eq!(prefix("10.0.0.0/24").unwrap(), NetAddr::new("10.0.0.0".parse().unwrap(), 24));
        assert_eq!(prefix("::/0").unwrap().prefix_len(), 0);
        assert_eq!(prefix("fd00::5").unwrap().prefix_len(), 128);
        for bad in ["fd00::1/64", "10.0.0.0/33", "10.0.0.0/", "x/3", "/64"] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
    }
}

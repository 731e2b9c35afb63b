//! The routers that can be put on the nodes: ours, and others' for comparison.

use std::fs;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::Command;

use crate::lab::{Node, Result, told};

/// A router, with the way it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// mesh-router as it is on a node.
    Mesh,
    /// mesh-router with short intervals.
    MeshFast,
    /// babeld, its interfaces declared wireless.
    Babeld,
    /// BIRD's Babel, its interfaces declared wireless.
    BirdBabel,
    /// BIRD's OSPFv3, point to multipoint over radio, point to point over cables.
    BirdOspf,
}

/// What a router is told on its node.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its interfaces.
    pub interfaces: Vec<String>,
    /// The node's addresses.
    pub addresses: (Ipv6Addr, std::net::Ipv4Addr),
    /// The number of the node.
    pub number: usize,
    /// Link-local addresses of all that may ever be in range (only OSPF over radio wants them).
    pub neighbors: Vec<Ipv6Addr>,
    /// It has cables, not radio.
    pub wired: bool,
    /// The way to [`OUTSIDE`] leads through it.
    pub gateway: bool,
}

/// An address outside of the mesh, which gateways have.
pub const OUTSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

impl Daemon {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Mesh, Self::MeshFast, Self::Babeld, Self::BirdBabel, Self::BirdOspf];

    /// Its name in tables and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mesh => "p2pmesh",
            Self::MeshFast => "p2pmesh-fast",
            Self::Babeld => "babeld",
            Self::BirdBabel => "bird-babel",
            Self::BirdOspf => "bird-ospf",
        }
    }

    /// The program it needs beside those of this project.
    pub const fn program(self) -> Option<&'static str> {
        match self {
            Self::Mesh | Self::MeshFast => None,
            Self::Babeld => Some("babeld"),
            Self::BirdBabel | Self::BirdOspf => Some("bird"),
        }
    }

    /// It is ours.
    pub const fn ours(self) -> bool {
        self.program().is_none()
    }

    /// What it is called on the node, for [`Node::stop`] and its like.
    pub const fn process(self) -> &'static str {
        match self.program() {
            None => "mesh-router",
            Some(program) => program,
        }
    }

    /// Where that program is: in `folder` or on the path.
    ///
    /// # Errors
    /// It is not there.
    pub fn find(program: &str, folder: Option<&PathBuf>) -> Result<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/sbin".into(), "/sbin".into()];
        let folders = folder.cloned().into_iter().chain(std::env::split_paths(&path)).chain(system);
        let mut places = folders.map(|f| f.join(program));
        places.find(|p| p.is_file()).ok_or_else(|| format!("{program} is not installed"))
    }

    /// Starts it on a node.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(self, node: &mut Node, setting: &Setting, peers: Option<&PathBuf>) -> Result<()> {
        match self {
            Self::Mesh | Self::MeshFast => {
                let (six, four) = (setting.addresses.0.to_string(), setting.addresses.1.to_string());
                let mut flags = vec!["--originator", &six, &four, "--interface"];
                flags.extend(setting.interfaces.iter().map(String::as_str));
                flags.extend((self == Self::MeshFast).then_some("--fast"));
                flags.extend(["--attach", "::/0"].iter().filter(|_| setting.gateway));
                node.start("mesh-router", &flags)
            }
            Self::Babeld => {
                let mut command = Command::new(Self::find("babeld", peers)?);
                let pid = node.file("babeld.pid");
                let _ = fs::remove_file(&pid); // of one that was killed
                command.arg("-I").arg(pid).arg("-S").arg(node.file("babeld.state"));
                for line in babeld(setting) {
                    command.arg("-C").arg(line);
                }
                node.spawn("babeld", command)
            }
            Self::BirdBabel | Self::BirdOspf => {
                let file = node.file("bird.conf");
                let protocol = if self == Self::BirdOspf { ospf(setting) } else { babel(setting) };
                fs::write(&file, bird(setting, &protocol)).map_err(told("bird.conf"))?;
                let mut command = Command::new(Self::find("bird", peers)?);
                command.arg("-f").arg("-c").arg(file).arg("-s").arg(node.file("bird.ctl"));
                node.spawn("bird", command)
            }
        }
    }
}

fn babeld(setting: &Setting) -> Vec<String> {
    let kind = if setting.wired { "wired" } else { "wireless" };
    let interfaces = setting.interfaces.iter().map(|i| format!("interface {i} type {kind}"));
    let addresses = [Some(setting.addresses.0), setting.gateway.then_some(OUTSIDE)];
    let own = addresses.into_iter().flatten().map(|ip| format!("redistribute local ip {ip}/128 allow"));
    interfaces.chain(own).chain(["redistribute local deny".into()]).collect()
}

fn bird(setting: &Setting, protocol: &str) -> String {
    format!(
        "log stderr {{ warning, error, fatal, bug }};
router id {};
protocol device {{ scan time 60; }}
protocol direct {{ ipv6; interface \"lo\"; }}
protocol kernel {{ ipv6 {{ import none; export where source != RTS_DEVICE; }}; scan time 60; }}
{protocol}
",
        setting.addresses.1
    )
}

fn babel(setting: &Setting) -> String {
    let kind = if setting.wired { "wired" } else { "wireless" };
    let interfaces: Vec<String> =
        setting.interfaces.iter().map(|i| format!("interface \"{i}\" {{ type {kind}; }};")).collect();
    format!("protocol babel {{ ipv6 {{ import all; export all; }}; {} }}", interfaces.join(" "))
}

fn ospf(setting: &Setting) -> String {
    let options = if setting.wired {
        "type ptp; check link yes;".to_owned()
    } else {
        let all: Vec<String> = setting.neighbors.iter().map(|n| format!("{n};")).collect();
        format!("type ptmp; check link yes; neighbors {{ {} }};", all.join(" "))
    };
    let interfaces: Vec<String> =
        setting.interfaces.iter().map(|i| format!("interface \"{i}\" {{ {options} }};")).collect();
    format!(
        "protocol ospf v3 {{ ecmp off; ipv6 {{ import all; export none; }}; area 0 {{ stubnet {}/128; {} }}; }}",
        setting.addresses.0,
        interfaces.join(" ")
    )
}

//! The command line, the configuration and the node's identity, as one set of decisions.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use mesh_sys::identity;
use mesh_sys::service::{Args, Flag};
use mesh_types::{NodeId, NodeName};
use names::Role;

use crate::announced::Announced;

/// The flags beyond those of every service.
pub(crate) const FLAGS: &[Flag] = &[
    Flag {
        name: "--interface",
        value: Some("IF"),
        many: true,
        help: "interfaces to serve (default: those mesh-radio names)",
    },
    Flag {
        name: "--access-point",
        value: Some("IF"),
        many: true,
        help: "interfaces of clients, who find the whole mesh there (default: those mesh-radio names)",
    },
    Flag { name: "--name", value: Some("NAME"), many: false, help: "the name (default: the host name)" },
    Flag {
        name: "--dns",
        value: Some("ADDR:PORT"),
        many: true,
        help: "where DNS clients are answered (default 127.0.0.1:53 [::1]:53)",
    },
];

/// What the service is to do.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `None`: as mesh-radio says.
    pub(crate) interfaces: Option<BTreeMap<String, Role>>,
    pub(crate) name: NodeName,
    /// Or why it is not known yet.
    pub(crate) node: Result<NodeId, String>,
    pub(crate) state_dir: PathBuf,
    /// What is announced beside the name.
    pub(crate) announced: Announced,
    pub(crate) dns: Vec<SocketAddr>,
    pub(crate) run_dir: PathBuf,
    /// What a person should know about the name.
    pub(crate) problems: Vec<String>,
}

impl Settings {
    /// Reads everything; an error is for people.
    pub(crate) fn new(args: &Args) -> Result<Self, String> {
        let mut problems = Vec::new();
        let node = node_id(&args.state_dir);
        let name = match args.one("--name") {
            Some(text) => NodeName::new(text).map_err(|e| format!("--name {text:?}: {e}"))?,
            None => host_name(node.as_ref().ok(), &mut problems)?,
        };
        let dns = match args.all("--dns") {
            [] => vec![(Ipv4Addr::LOCALHOST, 53).into(), (Ipv6Addr::LOCALHOST, 53).into()],
            texts => texts
                .iter()
                .map(|t| {
                    t.parse().map_err(|_| format!("--dns {t:?}: not an address and a port, as 127.0.0.1:53"))
                })
                .collect::<Result<_, _>>()?,
        };
        let flagged = |flag, role| args.all(flag).iter().map(move |name| (name.clone(), role));
        let interfaces: BTreeMap<String, Role> =
            flagged("--interface", Role::Mesh).chain(flagged("--access-point", Role::AccessPoint)).collect();
        let interfaces = Some(interfaces).filter(|i| !i.is_empty());
        let (run_dir, state_dir) = (args.run_dir.clone(), args.state_dir.clone());
        let announced = Announced::new(&args.config, &state_dir, &args.run_dir);
        Ok(Self { interfaces, name, node, state_dir, announced, dns, run_dir, problems })
    }
}

/// Who this node is; an error is for people.
pub(crate) fn node_id(state_dir: &Path) -> Result<NodeId, String> {
    let identity = identity::load_or_create(state_dir);
    identity
        .map(|i| i.node_id())
        .map_err(|e| format!("{e}; until it can be read this node's name is known on its links only"))
}

/// The machine's host name, or one made from the identity if that is not usable.
fn host_name(node: Option<&NodeId>, problems: &mut Vec<String>) -> Result<NodeName, String> {
    let text = mesh_sys::process::hostname();
    let label = text.split('.').next().unwrap_or_default();
    let fault = match NodeName::new(label) {
        Ok(name) if name.as_str() != "localhost" => return Ok(name),
        Ok(_) => "every machine is called that".to_owned(),
        Err(e) => e.to_string(),
    };
    let [a, b, ..] = node.map_or([0; 32], |n| *n.as_bytes());
    let made = format!("mesh-{a:02x}{b:02x}");
    problems.push(format!("host name {label:?}: {fault}; {made} is used, set `hostname` in p2pmesh.toml"));
    NodeName::new(&made).map_err(|e| format!("{made}: {e}"))
}

//! The configuration and the node's identity, as one set of decisions.

use mesh_config::{EthernetRole, Secret, Workshop, workshop};
use mesh_sys::identity;
use mesh_sys::service::Args;
use mesh_types::NodeId;
use radio_core::{Config, RadioSettings, WiredRole};

use crate::secured::MeshSecret;

/// IEEE 802.11-2020 §9.4.2.2
const MAX_SSID: usize = 32;

/// What the service is to do.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) plan: Config,
    pub(crate) mesh_id: String,
    pub(crate) host_name: String,
    /// With `mesh.password`.
    pub(crate) mesh_secret: Option<MeshSecret>,
    /// Two letters.
    pub(crate) country: Option<[u8; 2]>,
    pub(crate) ap: ApSettings,
    /// Or why it is not known.
    pub(crate) node: Result<NodeId, String>,
    /// What a person should know about all this.
    pub(crate) problems: Vec<String>,
    /// Where keys stand whose values may turn out to be impossible, for people.
    pub(crate) places: Vec<(&'static str, String)>,
}

/// The access point's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApSettings {
    pub(crate) ssid: String,
    pub(crate) password: Secret,
    /// Two letters.
    pub(crate) country: Option<String>,
}

impl Settings {
    pub(crate) fn new(args: &Args) -> Self {
        let loaded = mesh_config::load_or_last_good(&args.config, &args.state_dir.join("p2pmesh.toml"));
        let mut problems = loaded.problem_lines(&args.config);
        let locked =
            loaded.config.mesh.password.is_none() && loaded.problems.iter().any(|p| p.key == "mesh.password");
        let place = |key| Some((key, format!("{}: line {}: ", args.config.display(), loaded.line_of(key)?)));
        let places = ["mesh.channel", "ap.channel"].into_iter().filter_map(place).collect();
        let config = loaded.config;
        let frequency = |c: mesh_config::Channel| radio_core::frequency(c.number());
        let plan = Config {
            wired: match config.ethernet.role {
                EthernetRole::Auto => WiredRole::Auto,
                EthernetRole::Uplink => WiredRole::Uplink,
                EthernetRole::Mesh => WiredRole::Mesh,
                EthernetRole::Off => WiredRole::Off,
            },
            radios: RadioSettings {
                mesh_frequency: config.mesh.channel.and_then(frequency),
                secured: config.mesh.password.is_some(),
                locked,
                ap_frequency: config.ap.channel.and_then(frequency),
            },
            seed: mesh_sys::entropy::seed().unwrap_or_else(|_| std::process::id().into()),
            released: workshop::in_force(&args.run_dir, config.workshop) == Workshop::Manual,
        };
        let hostname = config.hostname.map_or_else(mesh_sys::process::hostname, |h| h.as_str().to_owned());
        let ssid = ssid(config.ap.ssid.unwrap_or_else(|| hostname.clone()), &mut problems);
        let node = identity::load_or_create(&args.state_dir).map(|i| i.node_id()).map_err(|e| {
            format!("{e}; until it can be read clients of the access point get no IPv6 addresses")
        });
        problems.extend(node.as_ref().err().cloned());
        let country = config.country.map(|c| c.to_string());
        let mesh_id = config.mesh.id;
        let secret = |password| MeshSecret { id: mesh_id.clone(), password, country: country.clone() };
        Self {
            plan,
            host_name: hostname,
            mesh_secret: config.mesh.password.map(secret),
            mesh_id,
            country: config.country.map(|c| c.as_bytes()),
            ap: ApSettings { ssid, password: config.ap.password, country },
            node,
            problems,
            places,
        }
    }
}

/// As long as it may be; only a host name can be longer.
fn ssid(mut name: String, problems: &mut Vec<String>) -> String {
    if name.len() > MAX_SSID {
        let end = (0..=MAX_SSID).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
        let whole = name.clone();
        name.truncate(end);
        problems.push(format!(
            "the access point is called {name:?}: {whole:?} has {} bytes, and a network's name at most {MAX_SSID}; \
             set ap.ssid in p2pmesh.toml",
            whole.len()
        ));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_33_bytes_is_cut_and_the_key_named() {
        let mut problems = Vec::new();
        assert_eq!(ssid("a".repeat(32), &mut problems), "a".repeat(32));
        assert_eq!(problems, [""; 0]);
        assert_eq!(ssid("a".repeat(33), &mut problems), "a".repeat(32));
        assert!(problems[0].contains("33 bytes") && problems[0].contains("ap.ssid"), "{problems:?}");
        assert_eq!(ssid("a".repeat(31) + "é", &mut problems), "a".repeat(31));
    }
}

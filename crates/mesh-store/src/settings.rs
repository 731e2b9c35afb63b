//! Command line, configuration and identity, as one value.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use content_id::base::base58;
use mesh_config::Workshop;
use mesh_sys::control::socket_path;
use mesh_sys::service::{Args, Flag};
use mesh_types::NodeId;

use crate::control::multiaddr;
use crate::peers::{GATEWAY, PORT};

/// Flags beside those of every service.
pub(crate) const FLAGS: &[Flag] = &[
    Flag {
        name: "--listen",
        value: Some("ADDR:PORT"),
        many: true,
        help: "where the gateway listens (default [::]:8080 and 0.0.0.0:8080)",
    },
    Flag {
        name: "--peer-listen",
        value: Some("ADDR:PORT"),
        many: true,
        help: "where nodes get blocks of this store alone (default, where no --listen is given: [::]:4080 and 0.0.0.0:4080)",
    },
    Flag {
        name: "--gateway-host",
        value: Some("HOST"),
        many: true,
        help: "a name below which each content has a host of its own, beside localhost; <cid>.ipfs.HOST must lead here",
    },
    Flag {
        name: "--convert-codecs",
        value: None,
        many: false,
        help: "convert blocks between dag-pb, dag-cbor and dag-json when asked to (IPIP-524 leaves it to clients)",
    },
    Flag {
        name: "--peer",
        value: Some("ADDR:PORT"),
        many: true,
        help: "gateways to ask for blocks, beside those of the router",
    },
    Flag {
        name: "--fast",
        value: None,
        many: false,
        help: "copies of what nodes publish move within seconds (for tests)",
    },
];

/// Bytes of one segment file.
const SEGMENT: u64 = 32 << 20;
/// Blocks the index may hold, about 56 bytes of memory each.
const MAX_BLOCKS: usize = 250_000;
/// What a store gets where the free space can't be found out.
const FALLBACK_QUOTA: u64 = 1 << 30;
/// The least a store is good for.
const MIN_QUOTA: u64 = 16 << 20;

/// Who this node is, in libp2p's terms.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) node: NodeId,
    /// Its public key (Ed25519).
    pub(crate) key: [u8; 32],
    pub(crate) peer_id: String,
    pub(crate) public_key: String,
    pub(crate) addresses: Vec<String>,
}

/// Everything the service needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) peer_listen: Vec<SocketAddr>,
    pub(crate) peers: Vec<SocketAddr>,
    /// Names below which content is isolated, in lower case.
    pub(crate) gateway_hosts: Vec<String>,
    /// Blocks are converted between codecs.
    pub(crate) convert: bool,
    /// Folder of the IPNS records.
    pub(crate) names: PathBuf,
    /// Folder of the segments.
    pub(crate) blocks: PathBuf,
    pub(crate) run_dir: PathBuf,
    /// What the configuration says of it.
    pub(crate) workshop: Workshop,
    pub(crate) quota: Option<u64>,
    /// Nodes that keep what is published.
    pub(crate) replicas: u8,
    /// Copies move within seconds.
    pub(crate) fast: bool,
    /// Holds the root of this node's catalogue.
    pub(crate) catalog: PathBuf,
    pub(crate) identity: Option<Names>,
    pub(crate) problems: Vec<String>,
}

impl Settings {
    /// From the command line and what it points to.
    pub(crate) fn from_args(args: &Args) -> Result<Self, String> {
        let addresses = |flag: &str| -> Result<Vec<SocketAddr>, String> {
            let parse = |text: &String| {
                text.parse()
                    .map_err(|_| format!("{flag} {text}: write ADDRESS:PORT, as [::]:8080 or 10.0.0.1:8080"))
            };
            args.all(flag).iter().map(parse).collect()
        };
        let mut listen = addresses("--listen")?;
        let mut peer_listen = addresses("--peer-listen")?;
        if listen.is_empty() {
            listen = everywhere(GATEWAY);
            if peer_listen.is_empty() {
                peer_listen = everywhere(PORT);
            }
        }
        let loaded = mesh_config::load_or_last_good(&args.config, &args.state_dir.join("p2pmesh.toml"));
        let identity = names(&args.state_dir);
        let mut problems = Vec::new();
        if let Err(why) = &identity {
            log::error!(target: "store", "{why}");
            problems.push(why.clone());
        }
        Ok(Self {
            listen,
            peer_listen,
            peers: addresses("--peer")?,
            gateway_hosts: gateway_hosts(args.all("--gateway-host")),
            convert: args.has("--convert-codecs"),
            names: args.state_dir.join("mesh-store").join("names"),
            blocks: args.state_dir.join("mesh-store").join("blocks"),
            run_dir: args.run_dir.clone(),
            workshop: loaded.config.workshop,
            quota: loaded.config.store.quota,
            fast: args.has("--fast"),
            replicas: loaded.config.store.replicas,
            catalog: args.state_dir.join("mesh-store").join("catalog"),
            identity: identity.ok(),
            problems,
        })
    }

    /// Limits of the store. Without a configured quota it is four fifths of the space that is free
    /// or taken by it already.
    pub(crate) fn store_config(&self) -> store_core::Config {
        let quota = self.quota.unwrap_or_else(|| {
            let own: u64 = fs::read_dir(&self.blocks)
                .map(|entries| entries.filter_map(|e| Some(e.ok()?.metadata().ok()?.len())).sum())
                .unwrap_or(0);
            match mesh_sys::file::free_space(&self.blocks) {
                Ok(free) => ((free.saturating_add(own)) / 5 * 4).max(MIN_QUOTA),
                Err(_) => FALLBACK_QUOTA,
            }
        });
        // room is made in segments: a small store has small ones
        store_core::Config { quota, segment_size: SEGMENT.min(quota / 8), max_blocks: MAX_BLOCKS }
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        socket_path(&self.run_dir, "mesh-store")
    }

    pub(crate) fn router_socket(&self) -> PathBuf {
        socket_path(&self.run_dir, "mesh-router")
    }
}

fn everywhere(port: u16) -> Vec<SocketAddr> {
    vec![([0u16; 8], port).into(), ([0u8; 4], port).into()]
}

/// `localhost` leads here by itself (RFC 6761 §6.3).
fn gateway_hosts(named: &[String]) -> Vec<String> {
    let named = named.iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    std::iter::once("localhost".to_owned()).chain(named).collect()
}

/// A port that a manual workshop leaves to people's own web servers.
pub(crate) fn is_web_port(address: SocketAddr) -> bool {
    matches!(address.port(), 80 | GATEWAY)
}

/// The node's key as libp2p writes it, and the address of its gateway.
fn names(state_dir: &Path) -> Result<Names, String> {
    let identity = mesh_sys::identity::load_or_create(state_dir).map_err(|e| e.to_string())?;
    let address = SocketAddr::new(identity.node_id().ula_address().into(), GATEWAY);
    let (peer_id, public_key) = libp2p_names(&identity.public_key());
    Ok(Names {
        node: identity.node_id(),
        key: identity.public_key(),
        addresses: vec![format!("{}/p2p/{peer_id}", multiaddr(address))],
        peer_id,
        public_key,
    })
}

/// Peer identifier and base64 of the public key's protobuf (libp2p peer-ids specification): an
/// Ed25519 key is short enough to be its own digest.
pub(crate) fn libp2p_names(key: &[u8; 32]) -> (String, String) {
    // key type 1 (Ed25519), then the key as a field of 32 bytes
    let mut message = vec![0x08, 0x01, 0x12, 0x20];
    message.extend_from_slice(key);
    let mut hash = vec![0x00, message.len() as u8];
    hash.extend_from_slice(&message);
    (base58(&hash), base64(&message))
}

/// Base64 with padding (RFC 4648 §4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |w, b| (w << 8) | u32::from(*b)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS.get((word >> (18 - 6 * place)) as usize & 63).copied().unwrap_or(b'=');
            out.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4648_10_base64_vectors() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn the_ports_of_web_servers_are_80_and_8080() {
        let all = ["[::]:80", "0.0.0.0:8080", "10.0.0.1:8081"].map(|a| a.parse().unwrap());
        assert_eq!(all.map(is_web_port), [true, true, false]);
    }

    #[test]
    fn peer_ids_of_ed25519_keys() {
        let (peer_id, public_key) = libp2p_names(&[0x42; 32]);
        assert!(peer_id.starts_with("12D3KooW") && peer_id.len() == 52, "{peer_id}");
        assert!(public_key.starts_with("CAESI"), "{public_key}");
    }
}

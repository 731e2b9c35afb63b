//! Content by host name: `<cid>.ipfs.<gateway>` and `<name>.ipns.<gateway>` (subdomain gateway
//! specification), as pure functions.

use content_id::base::base36;
use content_id::{Cid, Codec};

use crate::target::Namespace;

/// The longest label of a host name (RFC 2181 §11).
const MAX_LABEL: usize = 63;
/// The longest host name, with a port.
const MAX_HOST: usize = 260;

/// The names this gateway answers to.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    /// Below these every name leads here, so paths are redirected to names.
    pub(crate) isolated: Vec<String>,
    /// Names below this one are served, too, but may not lead here from everywhere: paths stay paths.
    pub(crate) own: String,
}

/// What a Host header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Paths, served where they are.
    Paths,
    /// Paths, redirected to names below this host (with its port).
    Gateway(String),
    /// The content of a name.
    Content {
        namespace: Namespace,
        label: String,
        /// The gateway's own name, with its port.
        gateway: String,
    },
}

impl Hosts {
    /// Whether `host` (with or without a port) is a name of this gateway's, or of content here.
    pub(crate) fn lead_here(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.place(&host) != Place::Paths || split_port(&host).0 == self.own
    }

    /// What `host` (with or without a port) asks for.
    pub(crate) fn place(&self, host: &str) -> Place {
        if host.len() > MAX_HOST {
            return Place::Paths;
        }
        let host = host.to_ascii_lowercase();
        let (name, port) = split_port(&host);
        let name = name.strip_suffix('.').unwrap_or(name);
        if self.isolated.iter().any(|known| known == name) {
            return Place::Gateway(format!("{name}{port}"));
        }
        let known = self.isolated.iter().chain(std::iter::once(&self.own));
        known
            .filter(|known| !known.is_empty())
            .find_map(|known| below(name, known, port))
            .unwrap_or(Place::Paths)
    }
}

fn below(name: &str, gateway: &str, port: &str) -> Option<Place> {
    let prefix = name.strip_suffix(gateway)?.strip_suffix('.')?;
    let (label, namespace) = match (prefix.strip_suffix(".ipfs"), prefix.strip_suffix(".ipns")) {
        (Some(label), _) => (label, Namespace::Ipfs),
        (_, Some(label)) => (label, Namespace::Ipns),
        _ => return None,
    };
    let gateway = format!("{gateway}{port}");
    Some(Place::Content { namespace, label: label.into(), gateway })
}

/// `host` and `:port`, which may be empty.
fn split_port(host: &str) -> (&str, &str) {
    match host.rfind(':') {
        // the colons of an IPv6 address are inside brackets
        Some(at) if !host.get(at..).unwrap_or("").contains(']') => host.split_at(at),
        _ => (host, ""),
    }
}

/// Why a root can't be a label.
pub(crate) const TOO_LONG: &str = "CID incompatible with DNS label length limit of 63";

/// The label of a CID: base32, or base36 where that is too long; keys always in base36.
pub(crate) fn label_of(cid: &Cid) -> Result<String, &'static str> {
    let cid = cid.to_v1();
    let text = cid.to_string();
    if text.len() <= MAX_LABEL {
        return Ok(text);
    }
    let text = format!("k{}", base36(&cid.to_bytes()));
    if cid.codec() != Codec::LIBP2P_KEY && text.len() <= MAX_LABEL { Ok(text) } else { Err(TOO_LONG) }
}

/// A DNS name as one label: `-` doubled, `.` as `-`.
pub(crate) fn inline_dns(name: &str) -> Result<String, &'static str> {
    let label = name.replace('-', "--").replace('.', "-");
    let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !plain || label.is_empty() {
        Err("the name is neither a key nor a DNS name")
    } else if label.len() > MAX_LABEL {
        Err("DNS name incompatible with DNS label length limit of 63")
    } else {
        Ok(label)
    }
}

/// The DNS name a label stands for.
pub(crate) fn outline_dns(label: &str) -> String {
    label.replace("--", "\0").replace('-', ".").replace('\0', "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V0: &str = "QmWATWQ7fVPP2EFGu71UkfnqhYXDYH566qy47CnJDgvs8u";

    fn hosts() -> Hosts {
        Hosts { isolated: vec!["localhost".into(), "example.com".into()], own: "bloor.local".into() }
    }

    #[test]
    fn hosts_lead_to_places() {
        let content = |namespace, label: &str, gateway: &str| Place::Content {
            namespace,
            label: label.into(),
            gateway: gateway.into(),
        };
        for (host, place) in [
            ("localhost", Place::Gateway("localhost".into())),
            ("LocalHost:8080", Place::Gateway("localhost:8080".into())),
            ("bloor.local:8080", Place::Paths),
            ("10.0.0.1:8080", Place::Paths),
            ("[fd00::1]:8080", Place::Paths),
            ("[::1]", Place::Paths),
            ("BAFY.ipfs.example.com", content(Namespace::Ipfs, "bafy", "example.com")),
            ("bafy.ipfs.bloor.local:8080", content(Namespace::Ipfs, "bafy", "bloor.local:8080")),
            ("a-b.ipns.localhost.", content(Namespace::Ipns, "a-b", "localhost")),
            ("x.y.ipns.localhost", content(Namespace::Ipns, "x.y", "localhost")),
            ("ipfs.localhost", Place::Paths),
            ("fake.domain.com", Place::Paths),
            ("notexample.com", Place::Paths),
            ("", Place::Paths),
        ] {
            assert_eq!(hosts().place(host), place, "{host}");
        }
        assert_eq!(hosts().place(&format!("{}.ipfs.localhost", "a".repeat(500))), Place::Paths);
        for host in ["localhost:80", "bafy.ipfs.example.com", "Bloor.local:8080", "x.ipns.bloor.local"] {
            assert!(hosts().lead_here(host), "{host}");
        }
        for host in ["example.org:443", "127.0.0.1:22", "xbloor.local", ""] {
            assert!(!hosts().lead_here(host), "{host}");
        }
    }

    #[test]
    fn labels_fit_into_dns() {
        let v0: Cid = V0.parse().unwrap();
        assert_eq!(label_of(&v0).unwrap(), v0.to_v1().to_string());
        let mut key = vec![1, 0x72, 0, 36, 8, 1, 0x12, 0x20];
        key.extend_from_slice(&[7; 32]);
        let key = label_of(&Cid::from_bytes(&key).unwrap()).unwrap();
        assert!(key.starts_with("k51") && key.len() <= 63, "{key}");
        let mut long = vec![1, 0x55, 0x13, 64];
        long.extend_from_slice(&[7; 64]);
        assert_eq!(label_of(&Cid::from_bytes(&long).unwrap()), Err(TOO_LONG));
    }

    #[test]
    fn dns_names_are_inlined() {
        assert_eq!(inline_dns("en.wikipedia-on-ipfs.org").unwrap(), "en-wikipedia--on--ipfs-org");
        assert_eq!(outline_dns("en-wikipedia--on--ipfs-org"), "en.wikipedia-on-ipfs.org");
        assert!(inline_dns(&"a.".repeat(40)).unwrap_err().contains("63"));
        assert!(inline_dns("a\r\nb").is_err());
    }

    proptest! {
        #[test]
        fn any_host_is_answered(host in ".{0,80}") {
            let _ = hosts().place(&host);
        }
    }
}

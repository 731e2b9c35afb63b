//! Services that are announced beside a host name (DNS-SD, RFC 6763), and their form in name records.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::wire::{Name, name_from_labels};

/// A node announces at most this many services to the mesh.
pub const MAX_SERVICES: usize = 48;
/// The longest label of a domain name.
const MAX_LABEL: usize = 63;
/// Text that fits into a message with all else (RFC 6763 §6.2 wants it far smaller), in bytes.
const MAX_TEXT: usize = 8_000;
/// The longest service type with its underscore (RFC 6335 §5.1).
const MAX_KIND: usize = 16;

/// A service to announce (RFC 6763).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The type without protocol and domain: `_http`.
    pub kind: String,
    /// `_tcp`, or `_udp` for all others.
    pub tcp: bool,
    /// Where it listens.
    pub port: u16,
    /// What it is called beside the node: `Library` becomes `Library on bloor`; without it: `bloor`.
    pub title: Option<String>,
    /// `key=value` strings of at most 255 bytes each.
    pub text: Vec<String>,
}

impl Service {
    /// A service called like the node, without text.
    pub fn new(kind: &str, tcp: bool, port: u16) -> Self {
        Self { kind: kind.into(), tcp, port, title: None, text: Vec::new() }
    }

    /// The instance's label on the node of that name. It always holds that name, so that it is unique where the
    /// name is and follows when the node is renamed.
    pub(crate) fn instance(&self, node: &str) -> String {
        let room = MAX_LABEL.saturating_sub(node.len() + " on ".len());
        let title = self.title.as_deref().unwrap_or_default();
        let end = (0..=room.min(title.len())).rev().find(|i| title.is_char_boundary(*i)).unwrap_or(0);
        match title.get(..end) {
            None | Some("") => node.to_string(),
            Some(title) => format!("{title} on {node}"),
        }
    }

    /// `_http._tcp.local`.
    pub(crate) fn type_name(&self) -> Option<Name> {
        name_from_labels([self.kind.as_bytes(), self.protocol(), b"local"])
    }

    /// `bloor._http._tcp.local`.
    pub(crate) fn instance_name(&self, node: &str) -> Option<Name> {
        name_from_labels([self.instance(node).as_bytes(), self.kind.as_bytes(), self.protocol(), b"local"])
    }

    fn protocol(&self) -> &[u8] {
        if self.tcp { b"_tcp" } else { b"_udp" }
    }

    /// Data of the SRV record (RFC 2782).
    pub(crate) fn srv(&self, host: &Name) -> Vec<u8> {
        let mut data = Vec::from([0, 0, 0, 0]);
        data.extend(self.port.to_be_bytes());
        data.extend_from_slice(host.as_slice());
        data
    }

    /// Data of the TXT record (RFC 6763 §6.1: never empty); texts for which there is no room are left out.
    pub(crate) fn txt(&self) -> Vec<u8> {
        let mut data = Vec::new();
        for t in self.text.iter().filter(|t| t.len() < 256) {
            if data.len() + t.len() >= MAX_TEXT {
                break;
            }
            data.push(t.len() as u8);
            data.extend_from_slice(t.as_bytes());
        }
        if data.is_empty() {
            data.push(0);
        }
        data
    }

    /// For a name record: type, title · 1 for TCP, 0 for UDP · port (2) · number of texts · texts. Each string is a
    /// length and that many bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        push_string(out, &self.kind);
        push_string(out, self.title.as_deref().unwrap_or_default());
        let texts = self.text.get(..255).unwrap_or(&self.text);
        out.push(self.tcp.into());
        out.extend(self.port.to_be_bytes());
        out.push(texts.len() as u8);
        texts.iter().for_each(|t| push_string(out, t));
    }

    /// The next one, or `None` where the bytes are no service.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let kind = string(bytes)?;
        let title = string(bytes)?;
        let (head, rest) = bytes.split_at_checked(4)?;
        *bytes = rest;
        let [protocol, high, low, texts] = head else { return None };
        let mut text = Vec::new();
        for _ in 0..*texts {
            text.push(string(bytes)?);
        }
        let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let good = kind.len() <= MAX_KIND && kind.starts_with('_') && kind.bytes().all(letter);
        let title = Some(title).filter(|t| !t.is_empty() && !t.chars().any(char::is_control));
        let port = u16::from_be_bytes([*high, *low]);
        good.then_some(Self { kind, tcp: *protocol == 1, port, title, text })
    }
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes().get(..255).unwrap_or(text.as_bytes());
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

fn string(bytes: &mut &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    *bytes = rest;
    core::str::from_utf8(text).ok().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn rfc6763_4_1_1_an_instance_fits_its_label_and_keeps_the_nodes_name() {
        let with = |title: &str| Service { title: Some(title.into()), ..Service::new("_http", true, 80) };
        assert_eq!(Service::new("_http", true, 80).instance("bloor"), "bloor");
        assert_eq!(with("Library").instance("bloor"), "Library on bloor");
        let long = with(&"ü".repeat(100)).instance("bloor");
        assert!(long.len() <= MAX_LABEL && long.ends_with("ü on bloor"), "{long}");
        assert_eq!(with("Library").instance(&"x".repeat(63)), "x".repeat(63));
    }

    #[test]
    fn a_service_survives_the_way_there_and_back() {
        let s = Service {
            title: Some("Bücher".into()),
            text: vec!["path=/".into(), "x".into()],
            ..Service::new("_sip", false, 5060)
        };
        let mut bytes = Vec::new();
        s.encode(&mut bytes);
        assert_eq!(Service::decode(&mut bytes.as_slice()), Some(s));
        for cut in 0..bytes.len() {
            assert_eq!(Service::decode(&mut bytes.get(..cut).unwrap()), None);
        }
    }

    #[test]
    fn rfc6763_6_1_a_txt_record_is_never_empty() {
        assert_eq!(Service::new("_http", true, 80).txt(), [0]);
    }
}

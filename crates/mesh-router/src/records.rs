//! Application records: signed and published for local services, verified and handed to them.
//!
//! A record as flooded is `public key (32) · signature (64) · content`. The signature (RFC 8032) covers a
//! fixed label, the kind, the version and the content; the originator has to be the address that follows
//! from the key. A record that fails is counted and never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mesh_ipc::router::MAX_PAYLOAD;
use mesh_sys::control::ClientId;
use mesh_sys::identity::{Identity, node_id_of, verify};
use mesh_types::{Duration, NodeId};

const LABEL: &[u8] = b"p2pmesh record 1\0";
const KEY: usize = 32;
const SIGNATURE: usize = 64;

fn signed_bytes(kind: u8, sequence: u32, content: &[u8]) -> Vec<u8> {
    [LABEL, &[kind], &sequence.to_be_bytes(), content].concat()
}

/// The record as it is flooded.
pub(crate) fn sign(identity: &Identity, kind: u8, sequence: u32, content: &[u8]) -> Vec<u8> {
    let signature = identity.sign(&signed_bytes(kind, sequence, content));
    [&identity.public_key()[..], &signature, content].concat()
}

/// The content of a flooded record; `None` if it is too short.
pub(crate) fn content(record: &[u8]) -> Option<&[u8]> {
    record.get(KEY + SIGNATURE..)
}

/// Whose record it is, if the signature is good and `originator` is that node's address.
pub(crate) fn check(originator: IpAddr, kind: u8, sequence: u32, record: &[u8]) -> Option<NodeId> {
    let (key, rest) = record.split_first_chunk::<KEY>()?;
    let (signature, content) = rest.split_first_chunk::<SIGNATURE>()?;
    let node = node_id_of(key);
    let its = originator == IpAddr::V6(node.ula_address());
    (its && verify(key, &signed_bytes(kind, sequence, content), signature)).then_some(node)
}

/// A record of this node.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) client: ClientId,
    pub(crate) sequence: u32,
    pub(crate) content: Vec<u8>,
    pub(crate) validity: Duration,
}

/// Who published what, who wants what, and whose signature was good.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) own: BTreeMap<u8, Own>,
    /// By originator and kind: the node, and the version that was verified. The content stays in the core.
    pub(crate) verified: BTreeMap<(IpAddr, u8), (NodeId, u32)>,
    subscribers: BTreeMap<ClientId, BTreeSet<u8>>,
}

impl Board {
    /// The reason why this can't be published, for people.
    pub(crate) fn refusal(&self, content: &[u8], validity_ms: u32) -> Option<String> {
        if content.len() > MAX_PAYLOAD {
            return Some(format!(
                "a record holds at most {MAX_PAYLOAD} bytes, this one has {}",
                content.len()
            ));
        }
        (validity_ms < 1_000).then(|| "a record has to be valid for a second at least".into())
    }

    /// `client` wants records of these kinds from now on.
    pub(crate) fn subscribe(&mut self, client: ClientId, kinds: &[u8]) {
        self.subscribers.entry(client).or_default().extend(kinds);
    }

    /// Who wants records of that kind.
    pub(crate) fn subscribers(&self, kind: u8) -> Vec<ClientId> {
        self.subscribers.iter().filter(|(_, kinds)| kinds.contains(&kind)).map(|(c, _)| *c).collect()
    }

    /// Forgets a client; the kinds it published are to be withdrawn.
    pub(crate) fn forget(&mut self, client: ClientId) -> Vec<u8> {
        self.subscribers.remove(&client);
        let kinds: Vec<u8> = self.own.iter().filter(|(_, o)| o.client == client).map(|(k, _)| *k).collect();
        self.own.retain(|_, o| o.client != client);
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc8032_only_the_owners_records_pass() {
        let identity = Identity::from_seed(&[7; 32]);
        let me = IpAddr::V6(identity.node_id().ula_address());
        let record = sign(&identity, 1, 5, b"hello");
        assert_eq!(check(me, 1, 5, &record), Some(identity.node_id()));
        assert_eq!(content(&record), Some(&b"hello"[..]));
        assert_eq!(check(me, 2, 5, &record), None, "another kind");
        assert_eq!(check(me, 1, 6, &record), None, "another version");
        let other = Identity::from_seed(&[8; 32]).node_id().ula_address();
        assert_eq!(check(other.into(), 1, 5, &record), None, "another originator");
        for i in 0..record.len() {
            let mut forged = record.clone();
            forged[i] ^= 1;
            assert_eq!(check(me, 1, 5, &forged), None, "byte {i}");
            assert_eq!(check(me, 1, 5, &record[..i]), None, "cut at {i}");
        }
        const { assert!(olsrv2::MAX_RECORD >= KEY + SIGNATURE + MAX_PAYLOAD) };
    }
}

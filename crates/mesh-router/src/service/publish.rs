//! Application records: publishing, verifying, telling subscribers.

use mesh_ipc::Response;
use mesh_ipc::router::{KIND_NAME, Record, RouterResponse};
use mesh_sys::clock;
use mesh_sys::control::ClientId;
use mesh_types::{Duration, Instant, NodeId};
use olsrv2::Input;

use super::{Service, V6};
use crate::answers;
use crate::instance::Instance;
use crate::records::{self, Own};
use crate::settings::Settings;

impl Service {
    pub(super) fn record_came(&mut self, now: Instant, node: NodeId, record: olsrv2::Record) {
        let key = (record.originator, record.kind);
        self.board.verified.insert(key, (node, record.sequence));
        if let Some(instance) = self.instances.get(V6)
            && let Some(shown) = shown(instance, node, &record, now)
        {
            self.broadcast(record.kind, &RouterResponse::Record(shown));
        }
        if record.kind == KIND_NAME
            && let Some(content) = records::content(&record.payload)
        {
            self.address_claimed(now, node, content);
        }
    }

    pub(super) fn broadcast(&mut self, kind: u8, what: &RouterResponse) {
        for client in self.board.subscribers(kind) {
            self.send(client, &Response::Service(what.clone()));
        }
    }

    pub(super) fn send(&mut self, client: ClientId, response: &Response<RouterResponse>) -> bool {
        let alive = self.control.send(&self.poller, client, response);
        if !alive {
            self.client_gone(client);
        }
        alive
    }

    pub(super) fn client_gone(&mut self, client: ClientId) {
        let now = clock::now();
        for kind in self.board.forget(client) {
            if let Some(instance) = self.instances.get_mut(V6) {
                instance.input(now, Input::Withdraw { kind });
            }
        }
        self.drain(now, V6);
    }

    pub(super) fn publish(
        &mut self,
        now: Instant,
        client: ClientId,
        kind: u8,
        content: Vec<u8>,
        validity_ms: u32,
    ) -> Result<(), String> {
        if self.settings.own_prefix.is_none() {
            return Err("with --originator the node's address is not that of its key; it can't sign".into());
        }
        if let Some(why) = self.board.refusal(&content, validity_ms) {
            return Err(why);
        }
        let validity = Duration::from_millis(validity_ms.into());
        let sequence = self.record.saturating_add(1);
        let payload = records::sign(&self.settings.identity, kind, sequence, &content);
        let instance = self.instances.get_mut(V6).ok_or("no IPv6")?;
        let input = Input::Publish { kind, sequence, payload: &payload, validity };
        instance.try_input(now, input).map_err(|e| e.to_string())?;
        self.record = sequence;
        let own = Own { client, sequence, content, validity };
        let shown = own_record(&self.settings, kind, &own);
        self.board.own.insert(kind, own);
        self.drain(now, V6);
        self.broadcast(kind, &RouterResponse::Record(shown));
        Ok(())
    }

    pub(super) fn snapshot(&self, now: Instant, kinds: &[u8]) -> Vec<Record> {
        let own = self.board.own.iter().filter(|(k, _)| kinds.contains(k));
        let mut all: Vec<Record> = own.map(|(k, o)| own_record(&self.settings, *k, o)).collect();
        let Some(instance) = self.instances.get(V6) else { return all };
        for record in instance.router.records().filter(|r| kinds.contains(&r.kind)) {
            // What the core holds may be newer than what subscribers were told.
            let good = self.board.verified.get(&(record.originator, record.kind));
            if let Some((node, _)) = good.filter(|(_, sequence)| *sequence == record.sequence) {
                all.extend(shown(instance, *node, record, now));
            }
        }
        all
    }
}

/// A record of another node as subscribers see it.
fn shown(instance: &Instance, node: NodeId, r: &olsrv2::Record, now: Instant) -> Option<Record> {
    Some(Record {
        node,
        kind: r.kind,
        seq: r.sequence.into(),
        hops: answers::hops(instance, r.originator),
        valid_ms: r.expires.saturating_since(now).as_millis(),
        payload: records::content(&r.payload)?.to_vec(),
    })
}

/// A record of this node as subscribers see it.
fn own_record(settings: &Settings, kind: u8, own: &Own) -> Record {
    Record {
        node: settings.identity.node_id(),
        kind,
        seq: own.sequence.into(),
        hops: 0,
        valid_ms: own.validity.as_millis(),
        payload: own.content.clone(),
    }
}

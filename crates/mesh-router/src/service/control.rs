//! The control socket: requests and answers.

use mesh_ipc::router::{RouterRequest, RouterResponse};
use mesh_ipc::{Request, Response, ServiceStatus};
use mesh_sys::control::{ClientId, ServerEvent};
use mesh_sys::poll;
use mesh_types::Instant;

use super::Service;
use crate::answers;
use crate::instance::Instance;
use crate::recording::RecordFile;

impl Service {
    pub(super) fn serve(&mut self, now: Instant, event: poll::Event) {
        for what in self.control.handle(&self.poller, event) {
            match what {
                ServerEvent::Gone(client) => self.client_gone(client),
                ServerEvent::Request(client, Request::Status) => {
                    let status = self.status(now);
                    self.send(client, &Response::Status(status));
                }
                ServerEvent::Request(client, Request::Service(request)) => self.answer(now, client, request),
            }
        }
    }

    fn answer(&mut self, now: Instant, client: ClientId, request: RouterRequest) {
        let answer = match request {
            RouterRequest::Neighbors => {
                RouterResponse::Neighbors(answers::neighbors(&self.instances, &self.links, now))
            }
            RouterRequest::Routes => RouterResponse::Routes(answers::routes(&self.instances, &self.links)),
            RouterRequest::Topology => RouterResponse::Topology(answers::topology(&self.instances)),
            RouterRequest::Traffic => RouterResponse::Traffic(answers::traffic(&self.instances, &self.links)),
            RouterRequest::Publish { kind, payload, validity_ms } => {
                match self.publish(now, client, kind, payload, validity_ms) {
                    Ok(()) => RouterResponse::Published,
                    Err(text) => {
                        self.send(client, &Response::Error(text));
                        return;
                    }
                }
            }
            RouterRequest::Subscribe { kinds } => {
                for record in self.snapshot(now, &kinds) {
                    if !self.send(client, &Response::Service(RouterResponse::Record(record))) {
                        return;
                    }
                }
                self.board.subscribe(client, &kinds);
                RouterResponse::SnapshotDone
            }
        };
        self.send(client, &Response::Service(answer));
    }

    fn status(&self, now: Instant) -> ServiceStatus {
        let mut status = ServiceStatus {
            service: "mesh-router".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: now.saturating_since(self.started).as_millis(),
            problems: self.settings.problems.clone(),
            counters: Vec::new(),
        };
        if self.settings.interfaces.is_none() && self.radio.is_none() {
            status.problems.push("mesh-radio does not answer; its last plan stays in force".into());
        }
        if self.instances.iter().all(|i| i.interfaces() == 0) {
            status.problems.push("no interface carries the mesh: no cable, no radio, or none chosen".into());
        }
        if self.rp_filter {
            status.problems.push(
                "net.ipv4.conf.all.rp_filter is not 0: IPv4 packets that take different ways there and back \
                 are dropped; set it to 0"
                    .into(),
            );
        }
        status.problems.extend(self.node_problems());
        let broken = self.instances.iter().flat_map(Instance::problems);
        status.problems.extend(broken.chain(self.fib.problems()).take(20).map(str::to_owned));
        status.problems.extend(self.recording.as_ref().and_then(RecordFile::problem).map(str::to_owned));
        answers::counters(&self.instances, &mut status);
        if let Some(e) = &self.numbers_unsaved {
            status.problems.push(format!(
                "sequence numbers can't be saved, others will not hear this node after its next start: {e}"
            ));
        }
        let more = [
            ("router_keys", self.settings.keys.len() as u64),
            ("kernel_routes", self.fib.count(&self.instances) as u64),
            ("kernel_failures", self.fib.failures),
            ("uplink_ipv6", self.uplinks.has(0).into()),
            ("uplink_ipv4", self.uplinks.has(1).into()),
            ("radio_peers", self.stations.peers() as u64),
            ("radio_peers_lost", self.stations.counters.lost),
            ("radio_reports", self.stations.counters.reports),
            ("radio_stations_ignored", self.stations.counters.ignored),
            ("records_published", self.board.own.len() as u64),
            ("records_bad_signature", self.instances.iter().map(|i| i.counters.bad_signatures).sum()),
        ];
        status.counters.extend(more.map(|(name, value)| (name.to_owned(), value)));
        status
    }
}

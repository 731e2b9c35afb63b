//! Name records to and from the mesh, through mesh-router's control socket.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use mesh_ipc::router::{KIND_NAME, RouterRequest, RouterResponse};
use mesh_ipc::{Request, Response};
use mesh_sys::control::Watcher;
use mesh_sys::poll::{Event, Poller};
use mesh_types::{Duration, NodeId};
use names::{Input, Names};

use mesh_types::Instant;

/// Without a refresh a name is forgotten after this, in milliseconds.
const VALIDITY_MS: u32 = 24_000;

/// The connection to the router.
#[derive(Debug)]
pub(crate) struct Router {
    watcher: Watcher<RouterRequest, RouterResponse>,
    /// Whose records the snapshot held so far; `None` once it is complete.
    snapshot: Option<BTreeSet<NodeId>>,
}

impl Router {
    /// Connects and subscribes.
    pub(crate) fn connect(run_dir: &Path, poller: &Poller, token: u64) -> io::Result<Self> {
        let mut watcher = Watcher::connect(run_dir, "mesh-router", poller, token)?;
        let subscribe = RouterRequest::Subscribe { kinds: vec![KIND_NAME] };
        watcher.send(poller, &Request::Service(subscribe))?;
        Ok(Self { watcher, snapshot: Some(BTreeSet::new()) })
    }

    pub(crate) fn publish(&mut self, poller: &Poller, payload: Vec<u8>) -> io::Result<()> {
        let request = RouterRequest::Publish { kind: KIND_NAME, payload, validity_ms: VALIDITY_MS };
        self.watcher.send(poller, &Request::Service(request))
    }

    /// Hands what arrived to the core.
    pub(crate) fn handle(
        &mut self,
        poller: &Poller,
        event: Event,
        now: Instant,
        core: &mut Names,
    ) -> io::Result<()> {
        for response in self.watcher.handle(poller, event)? {
            match response {
                Response::Service(RouterResponse::Record(r)) if r.kind == KIND_NAME => {
                    if let Some(seen) = &mut self.snapshot {
                        seen.insert(r.node);
                    }
                    let input = Input::Record {
                        node: r.node,
                        hops: r.hops,
                        valid: Duration::from_millis(r.valid_ms),
                        payload: &r.payload,
                    };
                    if let Err(e) = core.handle_input(now, input) {
                        log::debug!("record of node {}: {e}", r.node);
                    }
                }
                Response::Service(RouterResponse::RecordGone { node, kind: KIND_NAME }) => {
                    let _ = core.handle_input(now, Input::RecordGone(node));
                }
                Response::Service(RouterResponse::SnapshotDone) => {
                    let seen = self.snapshot.take().unwrap_or_default();
                    let stale: Vec<_> =
                        core.table().iter().map(|(n, _)| *n).filter(|n| !seen.contains(n)).collect();
                    for node in stale {
                        let _ = core.handle_input(now, Input::RecordGone(node));
                    }
                }
                Response::Error(text) => log::warn!("mesh-router: {text}"),
                _ => {}
            }
        }
        Ok(())
    }
}

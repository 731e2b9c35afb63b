//! What the nodes of the mesh say of their updates, over the router's records, and whose turn it is to restart.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use mesh_ipc::router::{KIND_UPDATE, RouterRequest, RouterResponse};
use mesh_ipc::update::Node;
use mesh_ipc::{Request, Response};
use mesh_sys::control::Watcher;
use mesh_sys::poll::{Event, Poller};
use mesh_types::{Duration, Instant, NodeId};
use update_core::{Fleet, FleetConfig, FleetInput, FleetOutput, Phase, Report};

/// Of any node's neighbours, so many per cent are down at once.
const SHARE: u8 = 20;
/// A claim stands that long before the restart; a flood takes a few seconds at most.
const SETTLE: Duration = Duration::from_secs(20);
/// Three tries of a new system, ten minutes each, and some.
const PATIENCE: Duration = Duration::from_secs(40 * 60);
/// How long others keep a report without a refresh, in ms.
const VALIDITY_MS: u32 = 120_000;
/// Pause before a lost router is looked for again, and between two questions for the links.
const PAUSE: Duration = Duration::from_secs(15);
/// Nodes that are shown.
const SHOWN: usize = 500;

pub(crate) struct Turns {
    fleet: Fleet,
    me: NodeId,
    run_dir: PathBuf,
    token: u64,
    /// Take turns; else only tell and show.
    staged: bool,
    connection: Option<Watcher<RouterRequest, RouterResponse>>,
    next: Instant,
    restart: bool,
}

impl Turns {
    pub(crate) fn new(run_dir: &Path, me: NodeId, staged: bool, token: u64, now: Instant) -> Self {
        let config = FleetConfig { me, share: SHARE, settle: SETTLE, patience: PATIENCE };
        let fleet = Fleet::new(config, now);
        Self {
            fleet,
            me,
            run_dir: run_dir.into(),
            token,
            staged,
            connection: None,
            next: now,
            restart: false,
        }
    }

    /// Something happened here.
    pub(crate) fn input(&mut self, poller: &Poller, now: Instant, input: FleetInput<'_>) {
        if self.staged || !matches!(input, FleetInput::Installed(_)) {
            self.fleet.handle_input(now, input);
            self.drain(poller);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        [Some(self.next), self.fleet.poll_timeout()].into_iter().flatten().min()
    }

    /// Lets time pass; true once it is this node's turn to restart.
    pub(crate) fn advance(&mut self, poller: &Poller, now: Instant) -> bool {
        self.fleet.handle_timeout(now);
        self.drain(poller);
        if now >= self.next {
            self.next = now + PAUSE;
            if self.connection.is_none() {
                self.connect(poller);
            }
            self.send(poller, RouterRequest::Topology);
        }
        std::mem::take(&mut self.restart)
    }

    /// Takes what the router says.
    pub(crate) fn handle(&mut self, poller: &Poller, event: Event, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        let answers = match connection.handle(poller, event) {
            Ok(answers) => answers,
            Err(e) => {
                log::debug!("mesh-router: {e}");
                self.connection = None;
                return;
            }
        };
        for answer in answers {
            let Response::Service(answer) = answer else { continue };
            match answer {
                RouterResponse::Record(r) if r.kind == KIND_UPDATE && r.node != self.me => {
                    if let Some(report) = Report::parse(&r.payload) {
                        self.fleet.handle_input(now, FleetInput::Report(r.node, report));
                    }
                }
                RouterResponse::RecordGone { node, kind } if kind == KIND_UPDATE => {
                    self.fleet.handle_input(now, FleetInput::Gone(node));
                }
                RouterResponse::Topology(edges) => {
                    // Links are between addresses; who has which follows from the NodeId.
                    let ids = self.fleet.others().map(|(id, _)| *id).chain([self.me]);
                    let names: BTreeMap<IpAddr, NodeId> =
                        ids.map(|id| (id.ula_address().into(), id)).collect();
                    let of = |a: &IpAddr| names.get(a).copied();
                    let links: Vec<_> =
                        edges.iter().filter_map(|e| Some((of(&e.from)?, of(&e.to)?))).collect();
                    self.fleet.handle_input(now, FleetInput::Links(&links));
                }
                _ => {}
            }
        }
        self.drain(poller);
    }

    /// All nodes that say something, this one first, for people.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let own = (&self.me, self.fleet.own());
        let all = std::iter::once(own).chain(self.fleet.others()).take(SHOWN);
        let show = |(node, report): (&NodeId, &Report)| Node {
            node: *node,
            running: report.running,
            target: report.target,
            failed: report.failed,
            phase: match report.phase {
                Phase::Idle => "idle",
                Phase::Ready => "waits for its turn",
                Phase::Claim => "is about to restart",
                Phase::Down => "restarts or is on trial",
            }
            .into(),
        };
        all.map(show).collect()
    }

    /// The release that failed somewhere, for which this node waits.
    pub(crate) fn stopped_by(&self) -> Option<u64> {
        self.fleet.stopped_by()
    }

    fn connect(&mut self, poller: &Poller) {
        match Watcher::connect(&self.run_dir, "mesh-router", poller, self.token) {
            Ok(connection) => self.connection = Some(connection),
            Err(e) => {
                log::debug!("mesh-router: {e}");
                return;
            }
        }
        self.send(poller, RouterRequest::Subscribe { kinds: vec![KIND_UPDATE] });
        self.publish(poller, *self.fleet.own());
    }

    fn publish(&mut self, poller: &Poller, report: Report) {
        let payload = report.encode().to_vec();
        self.send(poller, RouterRequest::Publish { kind: KIND_UPDATE, payload, validity_ms: VALIDITY_MS });
    }

    fn send(&mut self, poller: &Poller, request: RouterRequest) {
        if let Some(connection) = &mut self.connection
            && let Err(e) = connection.send(poller, &Request::Service(request))
        {
            log::debug!("mesh-router: {e}");
            self.connection = None;
        }
    }

    fn drain(&mut self, poller: &Poller) {
        while let Some(output) = self.fleet.poll_output() {
            match output {
                FleetOutput::Publish(report) => self.publish(poller, report),
                FleetOutput::Restart => self.restart = true,
            }
        }
    }
}

//! What the nodes of the mesh say of their updates and announce, over the router's records, and whose turn it is to restart.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use mesh_ipc::router::{KIND_OFFER, KIND_UPDATE, Record, RouterRequest, RouterResponse};
use mesh_ipc::update::{Node, Offered};
use mesh_ipc::{Request, Response};
use mesh_sys::control::Watcher;
use mesh_sys::poll::{Event, Poller};
use mesh_types::{Duration, Instant, NodeId};
use update_core::{
    Fleet, FleetConfig, FleetInput, FleetOutput, Offer, OfferCounts, Offers, Phase, Policy, Report,
};

/// Three tries of a new system, ten minutes each, and some.
const PATIENCE: Duration = Duration::from_secs(40 * 60);
/// How long others keep a report without a refresh, in ms; and what is announced, which is longer and changes seldom.
const VALIDITY_MS: u32 = 120_000;
const OFFER_VALIDITY_MS: u32 = 600_000;
/// Announcements that were dropped because too many came are asked for again after that long.
const AGAIN: Duration = Duration::from_secs(60);
/// Pause before a lost router is looked for again, and between two questions for the links.
const PAUSE: Duration = Duration::from_secs(15);
/// Nodes that are shown.
const SHOWN: usize = 500;

/// What the configuration says, and who this node is.
pub(crate) struct TurnsConfig {
    pub(crate) me: NodeId,
    pub(crate) run_dir: PathBuf,
    pub(crate) token: u64,
    /// Take turns and what is announced; else only tell and show.
    pub(crate) staged: bool,
    /// `update.share`, in per cent.
    pub(crate) share: u8,
    /// `update.settle`.
    pub(crate) settle: Duration,
    /// Its keys count.
    pub(crate) policy: Policy,
}

pub(crate) struct Turns {
    fleet: Fleet,
    offers: Offers,
    config: TurnsConfig,
    connection: Option<Watcher<RouterRequest, RouterResponse>>,
    next: Instant,
    restart: bool,
    /// What is announced at present; empty: nothing.
    announced: Vec<u8>,
    /// Announcements that had been dropped when the router was asked last, and when it may be asked again.
    dropped: (u64, Instant),
}

impl Turns {
    pub(crate) fn new(config: TurnsConfig, now: Instant) -> Self {
        let TurnsConfig { me, share, settle, .. } = config;
        let fleet = Fleet::new(FleetConfig { me, share, settle, patience: PATIENCE }, now);
        Self {
            fleet,
            offers: Offers::new(me, config.policy.clone(), now),
            config,
            connection: None,
            next: now,
            restart: false,
            announced: Vec::new(),
            dropped: (0, now),
        }
    }

    /// This node has that release, running or in its other slot.
    pub(crate) fn set_have(&mut self, release: u64) {
        self.offers.set_have(release);
    }

    /// This node has that bundle in its store, and announces it.
    pub(crate) fn keep(&mut self, poller: &Poller, offer: Option<Offer>) {
        self.offers.set_own(offer);
        self.announce(poller);
    }

    /// The offer to be taken now.
    pub(crate) fn wanted(&self, now: Instant) -> Option<&Offer> {
        let offer = self.offers.best(now).filter(|_| self.config.staged)?;
        (!self.fleet.is_stopped(offer.release)).then_some(offer)
    }

    /// What was wanted is not to be had for now.
    pub(crate) fn failed(&mut self, now: Instant, offer: &Offer) {
        self.offers.failed(now, offer);
    }

    /// What was wanted is refused; `release`: which one it really is, if that was seen.
    pub(crate) fn refused(&mut self, offer: &Offer, release: Option<u64>) {
        self.offers.refused(offer, release);
    }

    /// The release that this node is concerned with.
    pub(crate) const fn target(&self) -> u64 {
        self.fleet.own().target
    }

    /// Known failures of a release.
    pub(crate) fn failures(&self, release: u64) -> u8 {
        self.fleet.known(release).0
    }

    /// The newest system that is announced and not here, for people.
    pub(crate) fn offered(&self) -> Option<Offered> {
        let offer = self.offers.newest()?;
        let nodes = u32::try_from(self.offers.holders(offer)).unwrap_or(u32::MAX);
        let Offer { release, version, cid, .. } = offer.clone();
        Some(Offered { release, version, cid, nodes })
    }

    pub(crate) const fn counts(&self) -> OfferCounts {
        self.offers.counts()
    }

    /// Something happened here.
    pub(crate) fn input(&mut self, poller: &Poller, now: Instant, input: FleetInput<'_>) {
        if self.config.staged || !matches!(input, FleetInput::Installed(_)) {
            self.fleet.handle_input(now, input);
            self.drain(poller);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        [Some(self.next), self.fleet.poll_timeout(), self.offers.poll_timeout()].into_iter().flatten().min()
    }

    /// Lets time pass; true once it is this node's turn to restart.
    pub(crate) fn advance(&mut self, poller: &Poller, now: Instant) -> bool {
        self.fleet.handle_timeout(now);
        self.offers.handle_timeout(now);
        self.want(now);
        self.drain(poller);
        if now >= self.next {
            self.next = now + PAUSE;
            if self.connection.is_none() {
                self.connect(poller);
            }
            let dropped = self.offers.counts().dropped;
            if dropped != self.dropped.0 && now >= self.dropped.1 {
                self.dropped = (dropped, now + AGAIN);
                self.send(poller, RouterRequest::Subscribe { kinds: vec![KIND_OFFER] });
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
                RouterResponse::Record(r) if r.node != self.config.me => self.record(now, &r),
                RouterResponse::RecordGone { node, kind: KIND_OFFER } => self.offers.gone(node),
                RouterResponse::RecordGone { node, kind } if kind == KIND_UPDATE => {
                    self.fleet.handle_input(now, FleetInput::Gone(node));
                }
                RouterResponse::Topology(edges) => {
                    // Links are between addresses; who has which follows from the NodeId.
                    let ids = self.fleet.others().map(|(id, _)| *id).chain([self.config.me]);
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
        self.want(now);
        self.drain(poller);
        self.announce(poller);
    }

    fn record(&mut self, now: Instant, record: &Record) {
        match record.kind {
            KIND_OFFER => self.offers.came(now, record.node, &record.payload),
            KIND_UPDATE => {
                if let Some(report) = Report::parse(&record.payload) {
                    self.fleet.handle_input(now, FleetInput::Report(record.node, report));
                }
            }
            _ => {}
        }
    }

    /// The others are told that this node wants what is announced.
    fn want(&mut self, now: Instant) {
        let newest = self.offers.newest().filter(|_| self.config.staged).map(|o| o.release);
        if let Some(release) = newest.filter(|release| *release > self.fleet.own().target) {
            self.fleet.handle_input(now, FleetInput::Wanted(release));
        }
    }

    /// All nodes that say something, this one first, then those that are not heard any more, for people.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let own = std::iter::once((&self.config.me, self.fleet.own()));
        let heard = own.chain(self.fleet.others()).map(|(node, report)| shown(node, report, false));
        heard
            .chain(self.fleet.offline().map(|(node, report)| shown(node, report, true)))
            .take(SHOWN)
            .collect()
    }

    /// A release that failed somewhere and that nobody has resumed: the one this node wants, or else the newest.
    pub(crate) fn stopped(&self) -> Option<u64> {
        let others =
            || self.fleet.others().map(|(_, r)| r.target).filter(|r| self.fleet.is_stopped(*r)).max();
        self.fleet.stopped_by().or_else(others)
    }

    fn connect(&mut self, poller: &Poller) {
        match Watcher::connect(&self.config.run_dir, "mesh-router", poller, self.config.token) {
            Ok(connection) => self.connection = Some(connection),
            Err(e) => {
                log::debug!("mesh-router: {e}");
                return;
            }
        }
        self.send(poller, RouterRequest::Subscribe { kinds: vec![KIND_UPDATE, KIND_OFFER] });
        self.publish(poller, *self.fleet.own());
        self.announced.clear();
        self.announce(poller);
    }

    /// Announces what this node keeps, or takes that back.
    fn announce(&mut self, poller: &Poller) {
        let payload = self.offers.announced().map(Offer::encode).unwrap_or_default();
        if payload != self.announced && self.connection.is_some() {
            self.announced.clone_from(&payload);
            let (kind, validity_ms) = (KIND_OFFER, OFFER_VALIDITY_MS);
            self.send(poller, RouterRequest::Publish { kind, payload, validity_ms });
        }
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

fn shown(node: &NodeId, report: &Report, offline: bool) -> Node {
    let Report { running, target, percent, .. } = *report;
    let stopped = report.is_stopped();
    let phase = match report.phase {
        _ if offline => "offline",
        Phase::Idle if running == target => "up to date",
        Phase::Idle if percent == 100 => "went back to the old system",
        Phase::Idle if stopped => "waits: it failed on another node",
        Phase::Idle => "will fetch it",
        Phase::Fetch => "fetches it",
        Phase::Ready if stopped => "has it; waits: it failed on another node",
        Phase::Ready => "waits for its turn",
        Phase::Claim => "is about to restart",
        Phase::Down => "restarts or is on trial",
    };
    let failed = if stopped { target } else { 0 };
    Node { node: *node, running, target, failed, percent, offline, phase: phase.into() }
}

//! The driver loop: control socket, health gate, card.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mesh_ipc::update::{Slots, UpdateRequest, UpdateResponse};
use mesh_ipc::{Request, Response, ServiceStatus};
use mesh_sys::clock;
use mesh_sys::control::{Server, ServerEvent};
use mesh_sys::poll::Poller;
use mesh_sys::service::Args;
use mesh_sys::signal::{Signal, Signals};
use mesh_types::{Duration, Instant};
use update_core::{Gate, GateConfig, Input, Output, Slot};

use crate::card::Card;
use crate::disk;
use crate::probe::{Probes, Report};

/// The services that must answer, unless others are named.
const GATE: &[&str] = &["mesh-supervisor", "mesh-radio", "mesh-router", "mesh-mdns", "mesh-store"];
/// Pause between two questions to a service.
const INTERVAL: Duration = Duration::from_secs(1);
/// Pause before a confirmation that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(30);

// Tokens below are the probes' places in their list.
const SIGNALS: u64 = 100;
const CONTROL: u64 = 1000;

/// What the command line and the kernel say.
pub(crate) struct Options {
    /// The running slot; `None` where there are no slots.
    slot: Option<Slot>,
    disk: Option<PathBuf>,
    gate: GateConfig,
}

impl Options {
    pub(crate) fn from_args(args: &Args) -> Result<Self, String> {
        let told = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let told = told.split_whitespace().rev().find_map(|w| w.strip_prefix("p2pmesh.slot="));
        let slot = match args.one("--slot").or(told) {
            None => None,
            Some(name) => {
                Some(Slot::from_name(name).ok_or_else(|| format!("the slot is A or B, not {name:?}"))?)
            }
        };
        let stable = args.one("--stable").map_or(Ok(10), str::parse);
        let stable = stable.map_err(|_| "--stable needs a number of seconds".to_owned())?;
        let named = args.all("--gate");
        let services =
            if named.is_empty() { GATE.iter().map(|s| (*s).to_owned()).collect() } else { named.to_vec() };
        let gate = GateConfig { services, interval: INTERVAL, stable: Duration::from_secs(stable) };
        Ok(Self { slot, disk: args.one("--disk").map(PathBuf::from), gate })
    }
}

struct Service {
    started: Instant,
    card: Option<Card>,
    /// Why there is no card where there should be one, or why the last change failed.
    trouble: Option<String>,
    gate: Option<Gate>,
    probes: Probes,
    retry_at: Option<Instant>,
    last_waiting: Vec<String>,
}

/// Runs until SIGTERM.
pub(crate) fn run(run_dir: &Path, options: Options) -> io::Result<()> {
    let poller = Poller::new()?;
    let signals = Signals::new()?;
    poller.add(&signals, SIGNALS, false)?;
    let mut server: Server<UpdateRequest, UpdateResponse> =
        Server::bind(run_dir, crate::NAME, &poller, CONTROL)?;
    let mut service = Service::new(run_dir, options, clock::now());
    let mut events = Vec::new();
    loop {
        service.advance(&poller, clock::now());
        poller.wait(service.deadline(), &mut events)?;
        for event in events.drain(..) {
            if event.token == SIGNALS {
                while let Some(signal) = signals.next() {
                    if signal == Signal::Terminate {
                        log::info!("ends");
                        return Ok(());
                    }
                }
            } else if server.owns(event.token) {
                for what in server.handle(&poller, event) {
                    if let ServerEvent::Request(client, request) = what {
                        let answer = service.answer(request, clock::now());
                        server.send(&poller, client, &answer);
                    }
                }
            } else if let Some(report) = service.probes.handle(&poller, event) {
                service.report(report, clock::now());
            }
        }
    }
}

impl Service {
    fn new(run_dir: &Path, options: Options, now: Instant) -> Self {
        let probes = Probes::new(run_dir.to_path_buf(), &options.gate.services);
        let mut service = Self {
            started: now,
            card: None,
            trouble: None,
            gate: None,
            probes,
            retry_at: None,
            last_waiting: Vec::new(),
        };
        let Some(slot) = options.slot else {
            log::info!("no boot slots here: this system was not started from a p2pmesh card");
            return service;
        };
        let Some(path) = options.disk.or_else(disk::find) else {
            service.trouble = Some(format!(
                "slot {slot} runs, but its card was not found among the block devices; it can't be confirmed"
            ));
            log::error!("{}", service.trouble.as_deref().unwrap_or_default());
            return service;
        };
        match Card::open(&path, slot) {
            Ok(card) => {
                let slots = card.slots();
                log::info!(
                    "slot {slot} runs from {}; order {}; confirmed: {}",
                    path.display(),
                    slots.order,
                    slots.confirmed
                );
                card.problems().iter().for_each(|p| log::warn!("{p}"));
                service.gate = (!card.confirmed()).then(|| Gate::new(options.gate, now));
                service.card = Some(card);
            }
            Err(e) => {
                log::error!("{e}");
                service.trouble = Some(e.to_string());
            }
        }
        service
    }

    fn deadline(&self) -> Option<Instant> {
        let gate = self.gate.as_ref().and_then(Gate::poll_timeout);
        [self.retry_at, gate].into_iter().flatten().min()
    }

    /// Lets time pass for the gate and does what it asks for.
    fn advance(&mut self, poller: &Poller, now: Instant) {
        if self.retry_at.is_some_and(|at| now >= at) {
            self.confirm(now, "the health gate is open");
        }
        let Some(gate) = &mut self.gate else { return };
        gate.handle_timeout(now);
        let mut open = false;
        while let Some(output) = gate.poll_output() {
            match output {
                Output::Open => open = true,
                Output::Probe(name) => {
                    if let Some((service, result)) = self.probes.ask(poller, &name) {
                        feed(gate, &service, &result, now);
                    }
                }
            }
        }
        // Said once for every change; the seconds that count down are no change.
        let waiting: Vec<String> =
            gate.waiting_for(now).into_iter().filter(|w| !w.starts_with("all ")).collect();
        if waiting != self.last_waiting {
            log::info!(
                "health gate: {}",
                if waiting.is_empty() { "all services answer".into() } else { waiting.join("; ") }
            );
            self.last_waiting = waiting;
        }
        if open {
            self.confirm(now, "the health gate is open");
        }
    }

    fn report(&mut self, (service, result): Report, now: Instant) {
        if let Some(gate) = &mut self.gate {
            feed(gate, &service, &result, now);
        }
    }

    /// Confirms the running slot; a failure is kept for the status and tried again later.
    fn confirm(&mut self, now: Instant, why: &str) -> Response<UpdateResponse> {
        let Some(card) = &mut self.card else { return self.no_slots() };
        match card.confirm() {
            Ok(done) => {
                log::info!("{done} ({why})");
                self.gate = None;
                self.probes.close();
                self.retry_at = None;
                self.trouble = None;
                Response::Service(UpdateResponse::Done(done))
            }
            Err(e) => {
                let text = e.to_string();
                if self.trouble.as_ref() != Some(&text) {
                    log::error!("{text}");
                }
                self.trouble = Some(text.clone());
                // Only what the gate asked for is tried again; a person can see the answer.
                let open = self.gate.as_ref().is_some_and(Gate::is_open);
                self.retry_at = open.then(|| now + RETRY);
                Response::Error(text)
            }
        }
    }

    fn rollback(&mut self) -> Response<UpdateResponse> {
        let Some(card) = &mut self.card else { return self.no_slots() };
        match card.rollback() {
            Ok(done) => {
                log::info!("{done} (asked for)");
                Response::Service(UpdateResponse::Done(done))
            }
            Err(e) => {
                log::warn!("{e}");
                Response::Error(e.to_string())
            }
        }
    }

    fn no_slots(&self) -> Response<UpdateResponse> {
        Response::Error(self.trouble.clone().unwrap_or_else(|| {
            "no boot slots here: this system was not started from a p2pmesh card, so there is nothing to confirm or roll back"
                .into()
        }))
    }

    fn answer(&mut self, request: Request<UpdateRequest>, now: Instant) -> Response<UpdateResponse> {
        match request {
            Request::Status => Response::Status(self.status(now)),
            Request::Service(UpdateRequest::Slots) => {
                Response::Service(UpdateResponse::Slots(self.slots(now)))
            }
            Request::Service(UpdateRequest::Confirm) => self.confirm(now, "asked for"),
            Request::Service(UpdateRequest::Rollback) => self.rollback(),
        }
    }

    fn slots(&self, now: Instant) -> Slots {
        let slots = self.card.as_ref().map(Card::slots).unwrap_or_default();
        let waiting_for = self.gate.as_ref().map(|g| g.waiting_for(now)).unwrap_or_default();
        Slots { waiting_for, ..slots }
    }

    fn status(&self, now: Instant) -> ServiceStatus {
        let mut problems: Vec<String> = self.trouble.iter().cloned().collect();
        problems.extend(self.card.as_ref().map(Card::problems).unwrap_or_default());
        let confirmed = self.card.as_ref().is_some_and(Card::confirmed);
        ServiceStatus {
            service: crate::NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: now.saturating_since(self.started).as_millis(),
            problems,
            counters: vec![
                ("slots".into(), if self.card.is_some() { 2 } else { 0 }),
                ("confirmed".into(), confirmed.into()),
            ],
        }
    }
}

fn feed(gate: &mut Gate, service: &str, result: &Result<(), String>, now: Instant) {
    let input = match result {
        Ok(()) => Input::Answered(service),
        Err(why) => Input::Failed(service, why),
    };
    if let Err(e) = gate.handle_input(now, input) {
        log::debug!("{e}");
    }
}

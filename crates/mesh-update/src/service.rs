//! The driver loop: control socket, health gate, card. Installations are in `service/work.rs`.

mod work;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mesh_config::{Config, UpdateAuto};
use mesh_ipc::supervisor::{SupervisorRequest, SupervisorResponse};
use mesh_ipc::update::{Slots, UpdateRequest, UpdateResponse};
use mesh_ipc::{Request, Response, ServiceStatus};
use mesh_sys::control::{Client, ClientId, Server, ServerEvent};
use mesh_sys::poll::Poller;
use mesh_sys::service::Args;
use mesh_sys::signal::{Signal, Signals};
use mesh_sys::{clock, identity};
use mesh_types::{Duration, Instant};
use update_core::{FleetInput, Gate, GateConfig, Input, Output, Policy, Slot, test_keys};

use crate::card::Card;
use crate::disk;
use crate::fetch::Fetch;
use crate::job::{For, Job, Source, Step};
use crate::notes::{Notes, Trial};
use crate::probe::{ACCESS_POINT, CONSOLE, NEIGHBOUR, Probes, Report, STORE as STORE_READS};
use crate::share::Share;
use crate::turns::{Turns, TurnsConfig};

/// The services that must answer, unless others are named.
const GATE: &[&str] = &[
    "mesh-supervisor",
    "mesh-radio",
    "mesh-router",
    "mesh-mdns",
    "mesh-store",
    ACCESS_POINT,
    STORE_READS,
    CONSOLE,
];
/// Pause between two questions to a service.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the reason for waiting is kept during a trial, to spare the card.
const TRIAL_NOTES: u32 = 20;
const BUSY: &str = "a bundle is being installed; wait until that is done (meshctl update status)";
const TEST_KEYS: &str = "update.keys holds a test key, whose secret everybody knows: anybody can change this node. \
                         Put keys of your own there (docs/UPDATE.md)";
const NO_FILE: &str = "a bundle has to be a regular file";
/// The longest word about a USB stick, in bytes.
const MAX_NOTE: usize = 1000;
/// Pause before a confirmation that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(30);

// Tokens below are the probes' places in their list.
const SIGNALS: u64 = 100;
const STORE: u64 = 101;
const ROUTER: u64 = 102;
const SHARE: u64 = 103;
const CONTROL: u64 = 1000;

/// What the command line and the kernel say.
pub(crate) struct Options {
    /// The running slot; `None` where there are no slots.
    slot: Option<Slot>,
    disk: Option<PathBuf>,
    gate: GateConfig,
    policy: Policy,
    auto: UpdateAuto,
    /// `update.share` and `update.settle`.
    share: u8,
    settle: Duration,
    /// How long a new system may take until the gate opens.
    patience: Duration,
    run_dir: PathBuf,
    state_dir: PathBuf,
}

impl Options {
    pub(crate) fn from_args(args: &Args) -> Result<Self, String> {
        let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let told = cmdline.split_whitespace().rev().find_map(|w| w.strip_prefix("p2pmesh.slot="));
        let slot = match args.one("--slot").or(told) {
            None => None,
            Some(name) => {
                Some(Slot::from_name(name).ok_or_else(|| format!("the slot is A or B, not {name:?}"))?)
            }
        };
        let stable = args.one("--stable").map_or(Ok(10), str::parse);
        let stable = stable.map_err(|_| "--stable needs a number of seconds".to_owned())?;
        let patience = match args.one("--patience").map(str::parse) {
            None => mesh_sys::board::patience(&cmdline),
            Some(Ok(seconds)) => Duration::from_secs(seconds),
            Some(Err(_)) => return Err("--patience needs a number of seconds".into()),
        };
        let named = args.all("--gate");
        let services =
            if named.is_empty() { GATE.iter().map(|s| (*s).to_owned()).collect() } else { named.to_vec() };
        let gate = GateConfig { services, interval: INTERVAL, stable: Duration::from_secs(stable) };
        let loaded = mesh_config::load_or_last_good(&args.config, &args.state_dir.join("p2pmesh.toml"));
        Ok(Self {
            slot,
            disk: args.one("--disk").map(PathBuf::from),
            gate,
            policy: policy(&loaded.config, args.all("--board")),
            auto: loaded.config.update.auto,
            share: loaded.config.update.share,
            settle: Duration::from_secs(loaded.config.update.settle.into()),
            patience,
            run_dir: args.run_dir.clone(),
            state_dir: args.state_dir.clone(),
        })
    }
}

/// What this node asks of a bundle, as far as it does not change.
pub(crate) fn policy(config: &Config, boards: &[String]) -> Policy {
    let compatible = || {
        let texts = fs::read("/proc/device-tree/compatible").unwrap_or_default();
        let texts = texts.split(|b| *b == 0).filter(|t| !t.is_empty());
        texts.map(|t| String::from_utf8_lossy(t).into_owned()).collect()
    };
    Policy {
        keys: config.update.keys.clone(),
        threshold: config.update.threshold.map(usize::from),
        boards: if boards.is_empty() { compatible() } else { boards.to_vec() },
        ..Policy::default()
    }
}

struct Service {
    run_dir: PathBuf,
    policy: Policy,
    notes: Notes,
    /// `None` with `update.auto = "off"`.
    turns: Option<Turns>,
    /// What the other nodes are to be told next.
    news: Option<FleetInput<'static>>,
    job: Option<Job>,
    /// What was installed, on its way into the store.
    share: Option<Box<Share>>,
    /// How much of an installation the others were told of.
    told: u8,
    /// How the last installation ended.
    last: Option<String>,
    /// What the last USB stick came to, where that was no installation.
    stick: Option<String>,
    /// A neighbour was there when the installation began.
    neighbour: bool,
    /// When a new system whose gate is still closed is given up for this boot.
    give_up_at: Option<Instant>,
    started: Instant,
    card: Option<Card>,
    /// Why there is no card where there should be one, or why the last change failed.
    trouble: Option<String>,
    gate: Option<Gate>,
    probes: Probes,
    retry_at: Option<Instant>,
    last_waiting: Vec<String>,
    /// Times that the reason for waiting may still be kept.
    trial_notes: u32,
}

/// Runs until SIGTERM.
pub(crate) fn run(run_dir: &Path, options: Options) -> io::Result<()> {
    let poller = Poller::new()?;
    let signals = Signals::new()?;
    poller.add(&signals, SIGNALS, false)?;
    let mut server: Server<UpdateRequest, UpdateResponse> =
        Server::bind(run_dir, crate::NAME, &poller, CONTROL)?;
    server.take_files();
    let (auto, state_dir) = (options.auto, options.state_dir.clone());
    let (share, settle) = (options.share, options.settle);
    let mut service = Service::new(run_dir, options, clock::now());
    service.join(&poller, (auto, share, settle), &state_dir, clock::now());
    let mut events = Vec::new();
    loop {
        service.advance(&poller, clock::now());
        service.take_offer(&poller, clock::now());
        let busy = service.install(&poller, &mut server, clock::now());
        poller.wait(if busy { Some(clock::now()) } else { service.deadline() }, &mut events)?;
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
                    match what {
                        ServerEvent::Request(client, request) => {
                            let answer = match request {
                                Request::Service(UpdateRequest::OfferFile { check_only }) => {
                                    let file = server.file(client);
                                    service.offer_file(&poller, client, file, check_only, clock::now())
                                }
                                request => service.answer(&poller, client, request, clock::now()),
                            };
                            if let Some(answer) = answer {
                                server.send(&poller, client, &answer);
                            }
                        }
                        ServerEvent::Gone(client) => service.gone(&poller, client),
                    }
                }
            } else if event.token == ROUTER {
                if let Some(turns) = &mut service.turns {
                    turns.handle(&poller, event, clock::now());
                }
            } else if event.token == STORE {
                let failed = service.job.as_mut().and_then(|job| job.handle(&poller, event).err());
                if let Some(e) = failed {
                    service.over(&poller, &mut server, Err(e));
                }
            } else if event.token == SHARE {
                let done = service
                    .share
                    .as_mut()
                    .map(|share| share.handle(&poller, event))
                    .and_then(Result::transpose);
                if let Some(done) = done {
                    service.shared(&poller, &mut server, done, clock::now());
                }
            } else if let Some(report) = service.probes.handle(&poller, event) {
                service.report(report, clock::now());
            }
        }
    }
}

impl Service {
    fn new(run_dir: &Path, mut options: Options, now: Instant) -> Self {
        let notes = Notes::new(&options.state_dir);
        let trial = notes.trial().filter(|t| Some(t.slot) == options.slot);
        if trial.as_ref().is_some_and(|t| t.neighbour) {
            options.gate.services.push(NEIGHBOUR.into());
        }
        let probes = Probes::new(run_dir.to_path_buf(), &options.gate.services);
        let mut service = Self {
            run_dir: options.run_dir,
            policy: options.policy,
            notes,
            turns: None,
            news: None,
            job: None,
            share: None,
            told: 0,
            last: None,
            stick: None,
            neighbour: false,
            give_up_at: trial.map(|_| now + options.patience),
            started: now,
            card: None,
            trouble: None,
            gate: None,
            probes,
            retry_at: None,
            last_waiting: Vec::new(),
            trial_notes: TRIAL_NOTES,
        };
        if service.policy.keys.iter().any(|k| test_keys().contains(k)) {
            log::error!("{TEST_KEYS}");
        }
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
                if let Some(trial) = service.failed_trial() {
                    log::warn!("{}", trial.why());
                }
            }
            Err(e) => {
                log::error!("{e}");
                service.trouble = Some(e.to_string());
            }
        }
        service
    }

    /// Begins to talk with the other nodes about updates, where that is wanted and there are slots.
    fn join(
        &mut self,
        poller: &Poller,
        (auto, share, settle): (UpdateAuto, u8, Duration),
        state_dir: &Path,
        now: Instant,
    ) {
        let Some(card) = self.card.as_ref().filter(|_| auto != UpdateAuto::Off) else { return };
        let me = match identity::load_or_create(state_dir) {
            Ok(identity) => identity.node_id(),
            Err(e) => {
                log::warn!("this node does not tell others of its updates: {e}");
                return;
            }
        };
        let (staged, policy) = (auto == UpdateAuto::Staged, self.policy.clone());
        let (run_dir, token) = (self.run_dir.clone(), ROUTER);
        let mut turns = Turns::new(TurnsConfig { me, run_dir, token, staged, share, settle, policy }, now);
        let (confirmed, release, other) = (card.confirmed(), card.release().0, card.other_release());
        let on_trial = self.notes.trial().is_some_and(|t| t.slot == card.running());
        if confirmed || !on_trial {
            turns.input(poller, now, FleetInput::Confirmed(release));
        } else {
            turns.input(poller, now, FleetInput::OnTrial(release));
        }
        if confirmed && card.other_waits() {
            turns.input(poller, now, FleetInput::Installed(other));
        }
        // What went back once is not fetched again.
        turns.set_have(release.max(other));
        turns.keep(poller, self.notes.offer());
        self.turns = Some(turns);
        self.tell_failure(poller, now);
    }

    /// The others are to know that this node went back, as long as nothing else is tried.
    fn tell_failure(&mut self, poller: &Poller, now: Instant) {
        let other = self.card.as_ref().map_or(0, Card::other_release);
        if other != 0 && self.job.is_none() && self.failed_trial().is_some() {
            let number = self.notes.failure(other);
            self.tell(poller, now, FleetInput::WentBack(other, number));
        }
    }

    /// Tells the others what changed here; restarts when it is this node's turn.
    fn take_turn(&mut self, poller: &Poller, now: Instant) {
        if let Some(input) = std::mem::take(&mut self.news) {
            self.tell(poller, now, input);
            self.tell_failure(poller, now);
        }
        let Some(turns) = &mut self.turns else { return };
        if turns.advance(poller, now) {
            log::info!("it is this node's turn: it starts again into the new system");
            let release = self.card.as_ref().map_or(0, Card::other_release);
            let failures = turns.failures(release);
            if let Err(e) = self.notes.keep_attempt(release, failures) {
                log::warn!("the note about the restart can't be kept: {e}");
            }
            if !self.restart() {
                // Its turn comes again.
                self.news = Some(FleetInput::Installed(release));
            }
        }
    }

    fn tell(&mut self, poller: &Poller, now: Instant, input: FleetInput<'_>) {
        if let Some(turns) = &mut self.turns {
            turns.input(poller, now, input);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let turns = self.turns.as_ref().and_then(Turns::deadline);
        let gate = self.gate.as_ref().and_then(Gate::poll_timeout);
        let give_up = self.give_up_at.filter(|_| self.gate.is_some());
        [self.retry_at, gate, give_up, turns].into_iter().flatten().min()
    }

    /// Lets time pass for the gate and does what it asks for.
    fn advance(&mut self, poller: &Poller, now: Instant) {
        self.take_turn(poller, now);
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
            self.note_trial();
        }
        if open {
            self.confirm(now, "the health gate is open");
        } else if self.give_up_at.is_some_and(|at| now >= at) {
            self.give_up();
        }
    }

    /// A new system runs that is not confirmed yet, and there is one to go back to. The supervisor leaves the node to
    /// its watchdog if that stays so.
    fn on_trial(&self) -> bool {
        let trial = |c: &Card| self.notes.trial().is_some_and(|t| t.slot == c.running());
        self.card.as_ref().is_some_and(|c| !c.confirmed() && c.other_boots() && trial(c))
    }

    /// A new system did not prove good in time: the next boot is another try, or the old system.
    fn give_up(&mut self) {
        self.give_up_at = None;
        // Only where there is something to go back to.
        let Some(other) = self.card.as_ref().filter(|c| c.other_boots()).map(|c| c.running().other()) else {
            return;
        };
        log::error!(
            "the health gate did not open in time: the node starts again; slot {other} is the fallback"
        );
        let _ = self.restart();
    }

    /// Has the node start again; `false` if that is not to be had now.
    fn restart(&self) -> bool {
        let asked = Client::<SupervisorRequest, SupervisorResponse>::connect(
            &self.run_dir,
            "mesh-supervisor",
            std::time::Duration::from_secs(5),
        )
        .and_then(|mut c| c.request(&Request::Service(SupervisorRequest::Reboot)));
        match &asked {
            Ok(Response::Service(_)) => {}
            Ok(_) => log::error!("mesh-supervisor does not start the node again"),
            Err(e) => log::error!("mesh-supervisor can't be asked to start the node again: {e}"),
        }
        matches!(asked, Ok(Response::Service(_)))
    }

    fn report(&mut self, (service, result): Report, now: Instant) {
        self.neighbour |= service == NEIGHBOUR && result.is_ok();
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
                let (release, floor) = card.release();
                let running = card.running();
                self.news = Some(FleetInput::Confirmed(release));
                if let Err(e) = self.notes.raise_floor(floor) {
                    log::warn!("the floor of {floor} can't be kept: {e}");
                }
                // A trial of the other slot that failed stays worth knowing.
                if self.notes.trial().is_some_and(|t| t.slot == running)
                    && let Err(e) = self.notes.forget_trial()
                {
                    log::warn!("the note about the trial can't be removed: {e}");
                }
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
        Response::Error(self.why_no_slots())
    }

    fn why_no_slots(&self) -> String {
        self.trouble.clone().unwrap_or_else(|| {
            "no boot slots here: this system was not started from a p2pmesh card, so there is nothing to confirm, roll back or install"
                .into()
        })
    }

    /// The answer, unless it comes later.
    fn answer(
        &mut self,
        poller: &Poller,
        client: ClientId,
        request: Request<UpdateRequest>,
        now: Instant,
    ) -> Option<Response<UpdateResponse>> {
        let request = match request {
            Request::Status => return Some(Response::Status(self.status(now))),
            Request::Service(request) => request,
        };
        Some(match request {
            UpdateRequest::Slots => Response::Service(UpdateResponse::Slots(self.slots(now))),
            UpdateRequest::Confirm => self.confirm(now, "asked for"),
            UpdateRequest::Resume => match self.turns.as_ref().and_then(Turns::stopped) {
                Some(release) => {
                    self.tell(poller, now, FleetInput::Resume(release));
                    Response::Service(UpdateResponse::Done(format!(
                        "all nodes that hear of it go on with release {release}"
                    )))
                }
                None => Response::Error("no release that anybody waits with has failed in the mesh".into()),
            },
            UpdateRequest::Rollback if self.is_busy() => Response::Error(BUSY.into()),
            UpdateRequest::Rollback => self.rollback(),
            UpdateRequest::Stick(mut text) => {
                text.truncate(text.floor_char_boundary(MAX_NOTE));
                log::info!("{text}");
                self.stick = Some(text);
                Response::Service(UpdateResponse::Done("noted".into()))
            }
            UpdateRequest::Offer { size, check_only } => {
                return self
                    .begin(poller, For::Client(client), Some(size), check_only, now, |_| Ok(Source::Client))
                    .err()
                    .map(Response::Error);
            }
            // See `run`: it comes with a file.
            UpdateRequest::OfferFile { .. } => Response::Error(NO_FILE.into()),
            UpdateRequest::Fetch { path, check_only } => {
                let run_dir = self.run_dir.clone();
                let source = |reuse: &mut bool| {
                    *reuse = true;
                    Ok(Source::Store(Box::new(Fetch::start(&run_dir, poller, STORE, path)?)))
                };
                let client = For::Client(client);
                return self.begin(poller, client, None, check_only, now, source).err().map(Response::Error);
            }
            UpdateRequest::Data(bytes) => {
                let step = match (&mut self.job, &mut self.card) {
                    (Some(job), Some(card)) => job.data(card.disk(), client, &bytes),
                    _ => return Some(Response::Error("bytes came, but nothing is being installed".into())),
                };
                match step {
                    Step::Over(result) => {
                        return self.ended(poller, result, now).map(|(_, answer)| answer);
                    }
                    Step::Again | Step::Wait => return None,
                }
            }
        })
    }

    /// Keeps what the gate waits for, so that the other slot can tell if it never opens.
    fn note_trial(&mut self) {
        let Some(card) = self.card.as_ref().filter(|_| !self.last_waiting.is_empty()) else { return };
        let (slot, version) = (card.running(), card.version());
        let Some(trial) = self.notes.trial().filter(|t| t.slot == slot && t.version == version) else {
            return;
        };
        if self.trial_notes == 0 {
            return;
        }
        self.trial_notes -= 1;
        let trial = Trial { waited_for: self.last_waiting.clone(), ..trial };
        if let Err(e) = self.notes.keep_trial(&trial) {
            log::warn!("the note about the trial can't be kept: {e}");
        }
    }

    /// The last trial, if it was the other slot's, and that has no tries left.
    fn failed_trial(&self) -> Option<Trial> {
        let slots = self.card.as_ref()?.slots();
        let trial = self.notes.trial()?;
        let name = trial.slot.to_string();
        let given_up =
            |s: &mesh_ipc::update::Slot| s.name == name && s.tries_left == 0 && s.version == trial.version;
        (slots.running != name && slots.slots.iter().any(given_up)).then_some(trial)
    }

    fn slots(&self, now: Instant) -> Slots {
        let slots = self.card.as_ref().map(Card::slots).unwrap_or_default();
        let waiting_for = self.gate.as_ref().map(|g| g.waiting_for(now)).unwrap_or_default();
        let notes = self
            .failed_trial()
            .map(|t| t.why())
            .into_iter()
            .chain(self.last.clone())
            .chain(self.stick.clone())
            .collect();
        let floor = self
            .notes
            .floor()
            .max(self.card.as_ref().map_or(0, |c| if c.confirmed() { c.release().1 } else { 0 }));
        let fleet = self.turns.as_ref().map(Turns::nodes).unwrap_or_default();
        let offered = self.turns.as_ref().and_then(Turns::offered).map(Box::new);
        let kept = self.notes.offer().map(|offer| offer.cid).unwrap_or_default();
        let installing = self.installing();
        Slots { fleet, waiting_for, floor, installing, notes, offered, kept, ..slots }
    }

    fn status(&self, now: Instant) -> ServiceStatus {
        let mut problems: Vec<String> = self.trouble.iter().cloned().collect();
        problems.extend(self.card.as_ref().map(Card::problems).unwrap_or_default());
        problems.extend(self.failed_trial().map(|t| t.why()));
        if self.policy.keys.iter().any(|k| test_keys().contains(k)) {
            problems.push(TEST_KEYS.into());
        }
        let confirmed = self.card.as_ref().is_some_and(Card::confirmed);
        let offers = self.turns.as_ref().map(Turns::counts).unwrap_or_default();
        ServiceStatus {
            service: crate::NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: now.saturating_since(self.started).as_millis(),
            problems,
            counters: [
                ("slots", if self.card.is_some() { 2 } else { 0 }),
                ("confirmed", confirmed.into()),
                ("trial", self.on_trial().into()),
                ("offers_good", offers.good),
                ("offers_bad", offers.bad),
                ("offers_old", offers.old),
                ("offers_dropped", offers.dropped),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec(),
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

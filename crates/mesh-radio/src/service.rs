//! The driver: waits, tells the planner, carries out what it says, answers on the control socket.

use std::collections::BTreeSet;

use mesh_config::{EthernetRole, Workshop};
use mesh_ipc::radio::{Interface, MAX_STATIONS, Phy, Plan, RadioRequest, RadioResponse, Role, Station};
use mesh_ipc::{Request, Response, ServiceStatus};
use mesh_sys::clock;
use mesh_sys::control::{ClientId, Server, ServerEvent};
use mesh_sys::netlink::{self, Monitor, Rtnetlink};
use mesh_sys::poll::{self, Poller};
use mesh_sys::service::Args;
use mesh_sys::signal::{Signal, Signals};
use mesh_types::Instant;
use radio_core::{Channel, Config, Input, MeshSettings, Output, Planner, StationInput, WiredRole};

use crate::kernel;
use crate::wifi::Wifi;

pub(crate) const NAME: &str = "mesh-radio";

const SIGNALS: u64 = 0;
const MONITOR: u64 = 1;
const WIFI: u64 = 2;
const CONTROL: u64 = 16;

/// The whole service.
pub(crate) struct Service {
    poller: Poller,
    signals: Signals,
    monitor: Monitor,
    /// The kernel can't be heard any more.
    deaf: bool,
    nl: Rtnetlink,
    control: Server<RadioRequest, RadioResponse>,
    planner: Planner,
    wifi: Wifi,
    watchers: BTreeSet<ClientId>,
    station_watchers: BTreeSet<ClientId>,
    mesh_id: String,
    config_problems: Vec<String>,
    /// The last step that failed, until one succeeds.
    step_problem: Option<String>,
    started: Instant,
}

impl Service {
    /// Everything that has to work before there can be a plan; an error is for people.
    pub(crate) fn new(args: &Args) -> Result<Self, String> {
        let say = |what: &'static str| move |e: &dyn std::fmt::Display| format!("{what}: {e}");
        let loaded = mesh_config::load_or_last_good(&args.config, &args.state_dir.join("p2pmesh.toml"));
        let config = Config {
            wired: match loaded.config.ethernet.role {
                EthernetRole::Auto => WiredRole::Auto,
                EthernetRole::Uplink => WiredRole::Uplink,
                EthernetRole::Mesh => WiredRole::Mesh,
                EthernetRole::Off => WiredRole::Off,
            },
            mesh: MeshSettings {
                frequency: loaded.config.mesh.channel.and_then(|c| radio_core::frequency(c.number())),
                secured: loaded.config.mesh.password.is_some(),
            },
            released: matches!(loaded.config.workshop, Workshop::Manual),
        };
        let poller = Poller::new().map_err(|e| say("poller")(&e))?;
        let signals = Signals::new().map_err(|e| say("signals")(&e))?;
        let monitor = Monitor::new().map_err(|e| say("kernel notifications")(&e))?;
        let nl = Rtnetlink::new().map_err(|e| say("kernel interfaces")(&e))?;
        let control =
            Server::bind(&args.run_dir, NAME, &poller, CONTROL).map_err(|e| say("control socket")(&e))?;
        poller.add(&signals, SIGNALS, false).map_err(|e| say("poller")(&e))?;
        poller.add(&monitor, MONITOR, false).map_err(|e| say("poller")(&e))?;
        Ok(Self {
            poller,
            signals,
            monitor,
            deaf: false,
            nl,
            control,
            planner: Planner::new(config),
            wifi: Wifi::default(),
            watchers: BTreeSet::new(),
            station_watchers: BTreeSet::new(),
            mesh_id: loaded.config.mesh.id.clone(),
            config_problems: loaded.problem_lines(&args.config),
            step_problem: None,
            started: clock::now(),
        })
    }

    /// Runs until SIGTERM. Interfaces stay as they are: others may be using them.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        self.reload(clock::now());
        let mut events = Vec::new();
        loop {
            let timeouts = [self.planner.poll_timeout(), self.wifi.stations.poll_timeout()];
            let deadline = timeouts.into_iter().flatten().min();
            self.poller.wait(deadline, &mut events).map_err(|e| format!("waiting: {e}"))?;
            let now = clock::now();
            for event in events.drain(..) {
                match event.token {
                    SIGNALS if self.told_to_end() => return Ok(()),
                    SIGNALS => {}
                    MONITOR => self.hear_kernel(now),
                    WIFI => self.hear_radios(now),
                    _ => self.serve(now, event),
                }
            }
            if self.deaf {
                return Err("the kernel's notifications can't be heard any more".into());
            }
            if self.planner.poll_timeout().is_some_and(|t| t <= now) {
                self.planner.handle_timeout(now);
                self.drain(now);
            }
            if self.wifi.stations.poll_timeout().is_some_and(|t| t <= now) {
                self.wifi.stations.handle_timeout(now);
                self.drain_stations(now);
            }
        }
    }

    fn told_to_end(&self) -> bool {
        std::iter::from_fn(|| self.signals.next()).any(|s| s == Signal::Terminate)
    }

    fn hear_kernel(&mut self, now: Instant) {
        loop {
            match self.monitor.poll_event() {
                Ok(None) => return,
                Ok(Some(netlink::Event::Link(link))) => {
                    // An unknown interface may belong to a radio that has just come.
                    if self.planner.plan().interfaces.iter().all(|i| i.index != link.index) {
                        self.list_radios(now);
                    }
                    let link = kernel::link(&link, &self.wifi.interfaces);
                    self.planner.handle_input(now, Input::Link(&link));
                }
                Ok(Some(netlink::Event::LinkGone(link))) => {
                    self.planner.handle_input(now, Input::LinkGone(link.index));
                    if self.wifi.interfaces.contains_key(&link.index) {
                        self.list_radios(now);
                    }
                }
                Ok(Some(netlink::Event::Resync)) => self.reload(now),
                Ok(Some(_)) => {}
                Err(e) => {
                    log::warn!("kernel notifications: {e}; starting anew");
                    return self.reopen_monitor(now);
                }
            }
            self.drain(now);
        }
    }

    /// A socket that failed is replaced; where that fails, too, the supervisor's restart is the remedy.
    fn reopen_monitor(&mut self, now: Instant) {
        let _ = self.poller.remove(&self.monitor); // it would only report its error for ever
        match Monitor::new() {
            Ok(monitor) if self.poller.add(&monitor, MONITOR, false).is_ok() => self.monitor = monitor,
            _ => self.deaf = true,
        }
        self.reload(now);
    }

    /// Lists radios and interfaces anew.
    fn reload(&mut self, now: Instant) {
        let phys = self.wifi.list(now, &self.poller, WIFI);
        // Interfaces first, so that no radio is given what it has.
        match self.nl.links() {
            Ok(links) => {
                let links: Vec<_> = links.iter().map(|l| kernel::link(l, &self.wifi.interfaces)).collect();
                self.planner.handle_input(now, Input::AllLinks(&links));
            }
            Err(e) => log::warn!("listing interfaces: {e}"),
        }
        self.take_radios(now, phys);
        self.drain(now);
    }

    fn list_radios(&mut self, now: Instant) {
        let phys = self.wifi.list(now, &self.poller, WIFI);
        self.take_radios(now, phys);
    }

    fn take_radios(&mut self, now: Instant, phys: Result<Vec<radio_core::Phy>, netlink::Error>) {
        match phys {
            Ok(phys) => self.planner.handle_input(now, Input::AllPhys(&phys)),
            Err(e) => log::warn!("listing radios: {e}"),
        }
        self.drain_stations(now);
    }

    fn hear_radios(&mut self, now: Instant) {
        let mut changed = false;
        while let Some(change) = self.wifi.hear(now, &self.poller) {
            changed |= change;
            self.drain_stations(now);
        }
        if changed {
            self.reload(now);
        }
    }

    fn drain_stations(&mut self, now: Instant) {
        if self.wifi.drain(now) {
            let answer = Response::Service(RadioResponse::Stations(self.stations()));
            let (control, poller) = (&mut self.control, &self.poller);
            self.station_watchers.retain(|client| control.send(poller, *client, &answer));
            self.watch_stations(now);
        }
    }

    /// Somebody more or less wants to know of stations.
    fn watch_stations(&mut self, now: Instant) {
        let watched = !self.station_watchers.is_empty();
        self.wifi.stations.handle_input(now, StationInput::Watched(watched));
    }

    fn stations(&self) -> Vec<Station> {
        let plan = self.planner.plan();
        let name = |index: u32| plan.interfaces.iter().find(|i| i.index == index).map(|i| i.name.clone());
        let each = self.wifi.stations.iter().map(|s| Station {
            index: s.interface,
            interface: name(s.interface).unwrap_or_default(),
            mac: s.mac,
            peer: s.peer,
            signal: s.signal,
            tx_bitrate: s.tx_bitrate,
            rx_bitrate: s.rx_bitrate,
            expected_throughput: s.expected_throughput,
            inactive_ms: s.inactive_ms,
        });
        each.take(MAX_STATIONS).collect()
    }

    fn drain(&mut self, now: Instant) {
        // Bounded: each interface is prepared at most once before it has to wait.
        while let Some(output) = self.planner.poll_output() {
            match output {
                Output::Prepare { index, role, join } => self.prepare(now, index, role, join),
                Output::AddMeshPoint { phy, name } => {
                    let done = self.wifi.add_mesh_point(phy, &name);
                    if !self.note(&name, "can't be made on its radio", done) {
                        self.planner.handle_input(now, Input::PhyFailed { phy });
                    }
                }
                Output::Remove { index } => {
                    let done = self.wifi.remove(index);
                    self.note(&format!("interface {index}"), "can't be removed", done);
                }
                Output::PlanChanged => self.tell_watchers(),
            }
        }
    }

    fn prepare(&mut self, now: Instant, index: u32, role: radio_core::Role, join: Option<Channel>) {
        // As it is now, not as it was when the planner heard of it.
        let link = match self.nl.links().map(|all| all.into_iter().find(|l| l.index == index)) {
            Ok(Some(link)) => kernel::link(&link, &self.wifi.interfaces),
            _ => return, // gone again; the monitor tells
        };
        let (nl, wifi, id) = (&mut self.nl, &mut self.wifi, &self.mesh_id);
        let done = kernel::prepare(nl, &link, role)
            .and_then(|()| join.map_or(Ok(()), |channel| wifi.join(index, id, channel)));
        if self.note(&link.name, &format!("can't be set up for {role:?}"), done) {
            log::info!("{}: {role:?}: ready", link.name);
        } else {
            self.planner.handle_input(now, Input::Failed { index });
        }
    }

    /// Keeps what went wrong for people; true if nothing did.
    fn note(&mut self, name: &str, what: &str, done: Result<(), netlink::Error>) -> bool {
        self.step_problem = done.err().map(|e| format!("{name}: {what}: {e}"));
        self.step_problem.iter().for_each(|text| log::warn!("{text}; mesh-radio needs CAP_NET_ADMIN"));
        self.step_problem.is_none()
    }

    // --- control socket ---

    fn serve(&mut self, now: Instant, event: poll::Event) {
        for what in self.control.handle(&self.poller, event) {
            match what {
                ServerEvent::Gone(client) => {
                    self.watchers.remove(&client);
                    self.station_watchers.remove(&client);
                    self.watch_stations(now);
                }
                ServerEvent::Request(client, Request::Status) => {
                    let status = self.status(now);
                    self.control.send(&self.poller, client, &Response::Status(status));
                }
                ServerEvent::Request(client, Request::Service(request)) => self.answer(now, client, &request),
            }
        }
    }

    fn answer(&mut self, now: Instant, client: ClientId, request: &RadioRequest) {
        let answer = match request {
            RadioRequest::Plan | RadioRequest::Watch => {
                if *request == RadioRequest::Watch {
                    self.watchers.insert(client);
                }
                RadioResponse::Plan(plan(self.planner.plan()))
            }
            RadioRequest::Stations | RadioRequest::WatchStations => {
                self.wifi.refresh_stations(now);
                self.drain_stations(now);
                if *request == RadioRequest::WatchStations {
                    self.station_watchers.insert(client);
                    self.watch_stations(now);
                }
                RadioResponse::Stations(self.stations())
            }
        };
        self.control.send(&self.poller, client, &Response::Service(answer));
    }

    fn tell_watchers(&mut self) {
        let plan = plan(self.planner.plan());
        for i in &plan.interfaces {
            log::debug!("{}: {:?}, running: {}, {}", i.name, i.role, i.running, i.reason);
        }
        let answer = Response::Service(RadioResponse::Plan(plan));
        let (control, poller) = (&mut self.control, &self.poller);
        self.watchers.retain(|client| control.send(poller, *client, &answer));
    }

    fn status(&self, now: Instant) -> ServiceStatus {
        let (c, s) = (self.planner.counters(), self.wifi.stations.counters());
        let plan = self.planner.plan();
        let running = plan.interfaces.iter().filter(|i| i.running && i.role == radio_core::Role::Mesh);
        let counters = [
            ("interfaces", plan.interfaces.len() as u64),
            ("mesh_running", running.count() as u64),
            ("phys", plan.phys.len() as u64),
            ("plans", c.plans),
            ("steps", c.steps),
            ("failures", c.failures),
            ("too_many", c.too_many),
            ("stations", self.wifi.stations.iter().count() as u64),
            ("peers", self.wifi.stations.iter().filter(|s| s.peer).count() as u64),
            ("peers_up", s.peers_up),
            ("peers_lost", s.peers_lost),
            ("station_lists", s.lists),
            ("stations_too_many", s.too_many),
        ];
        ServiceStatus {
            service: NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: now.saturating_since(self.started).as_millis(),
            problems: self.config_problems.iter().chain(&self.step_problem).cloned().collect(),
            counters: counters.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }
}

/// The plan in the words of the control socket.
fn plan(plan: &radio_core::Plan) -> Plan {
    let interfaces = plan.interfaces.iter().map(|i| Interface {
        name: i.name.clone(),
        index: i.index,
        role: match i.role {
            radio_core::Role::Mesh => Role::Mesh,
            radio_core::Role::AccessPoint => Role::AccessPoint,
            radio_core::Role::Uplink => Role::Uplink,
            radio_core::Role::Unused => Role::Unused,
        },
        running: i.running,
        reason: i.reason.clone(),
    });
    let phys = plan.phys.iter().map(|p| Phy {
        name: p.phy.name.clone(),
        modes: p.phy.modes.iter().map(|m| m.name().to_owned()).collect(),
        bands: p.phy.bands.iter().map(|b| b.name().to_owned()).collect(),
        reason: p.reason.clone(),
    });
    Plan { interfaces: interfaces.collect(), phys: phys.collect() }
}

//! The driver: waits, tells the planner, carries out what it says, answers on the control socket.

use std::collections::BTreeSet;
use std::path::PathBuf;

use mesh_config::{Workshop, workshop};
use mesh_ipc::radio::{RadioRequest, RadioResponse};
use mesh_ipc::{Request, Response, ServiceStatus};
use mesh_sys::clock;
use mesh_sys::control::{ClientId, Server, ServerEvent};
use mesh_sys::netlink::{self, Monitor, Rtnetlink};
use mesh_sys::poll::{self, Poller};
use mesh_sys::service::Args;
use mesh_sys::signal::{Signal, Signals};
use mesh_sys::uevent::Uevents;
use mesh_types::{Instant, NodeId};
use radio_core::{Input, Mode, Output, Plan, Planner, Role, Station, StationInput, Work};

use crate::ap::{AccessPoint, Target};
use crate::clients::Clients;
use crate::firewall::Firewall;
use crate::ports::{self, Ports};
use crate::secured::{News, Secured};
use crate::settings::Settings;
use crate::wifi::{Heard, Wifi};
use crate::{kernel, report};

pub(crate) const NAME: &str = "mesh-radio";

const SIGNALS: u64 = 0;
const MONITOR: u64 = 1;
const WIFI: u64 = 2;
const HOSTAPD: [u64; 2] = [3, 4];
const DHCP: u64 = 5;
const SOLICITATIONS: u64 = 6;
const UEVENTS: u64 = 7;
/// Two for each secured mesh point.
const SUPPLICANTS: u64 = 8;
/// Four for each interface index.
const PORTS: u64 = 16;
const CONTROL: u64 = 1 << 48;

/// The whole service.
pub(crate) struct Service {
    poller: Poller,
    signals: Signals,
    monitor: Monitor,
    /// The kernel can't be heard any more.
    deaf: bool,
    nl: Rtnetlink,
    control: Server<RadioRequest, RadioResponse>,
    pub(crate) planner: Planner,
    pub(crate) wifi: Wifi,
    /// Switches of radios; without it they are only seen with other changes.
    uevents: Option<Uevents>,
    pub(crate) ap: AccessPoint,
    pub(crate) secured: Secured,
    /// Of the access point's interface, while it has that role.
    pub(crate) clients: Option<Clients>,
    pub(crate) ports: Ports,
    firewall: Firewall,
    node: Option<NodeId>,
    watchers: BTreeSet<ClientId>,
    station_watchers: BTreeSet<ClientId>,
    /// Peers of mesh points, since the start.
    peers_lost: u64,
    mesh_id: String,
    run_dir: PathBuf,
    /// What the log says of the plan.
    told: Plan,
    config_problems: Vec<String>,
    /// Where keys stand.
    places: Vec<(&'static str, String)>,
    /// The last step that failed, until one succeeds.
    step_problem: Option<String>,
    started: Instant,
}

impl Service {
    /// Everything that has to work before there can be a plan; an error is for people.
    pub(crate) fn new(args: &Args) -> Result<Self, String> {
        let say = |what: &'static str| move |e: &dyn std::fmt::Display| format!("{what}: {e}");
        let settings = Settings::new(args);
        let poller = Poller::new().map_err(|e| say("poller")(&e))?;
        let signals = Signals::new().map_err(|e| say("signals")(&e))?;
        let monitor = Monitor::new().map_err(|e| say("kernel notifications")(&e))?;
        let nl = Rtnetlink::new().map_err(|e| say("kernel interfaces")(&e))?;
        let control =
            Server::bind(&args.run_dir, NAME, &poller, CONTROL).map_err(|e| say("control socket")(&e))?;
        poller.add(&signals, SIGNALS, false).map_err(|e| say("poller")(&e))?;
        poller.add(&monitor, MONITOR, false).map_err(|e| say("poller")(&e))?;
        let uevents = Uevents::open().map_err(|e| log::warn!("switches of radios: {e}")).ok();
        if let Some(uevents) = &uevents {
            poller.add(uevents, UEVENTS, false).map_err(|e| say("poller")(&e))?;
        }
        let wifi = Wifi::new(settings.country);
        Ok(Self {
            poller,
            signals,
            monitor,
            deaf: false,
            nl,
            control,
            planner: Planner::new(settings.plan),
            wifi,
            uevents,
            secured: Secured::new(settings.mesh_secret, args.run_dir.clone(), SUPPLICANTS),
            run_dir: args.run_dir.clone(),
            told: Plan::default(),
            ap: AccessPoint::new(settings.ap, args.run_dir.join("hostapd.conf"), HOSTAPD),
            clients: None,
            firewall: Firewall::new(&args.state_dir, &args.run_dir, settings.node.as_ref().ok().copied()),
            ports: Ports::new(settings.host_name, args.run_dir.join("resolv.conf"), PORTS),
            node: settings.node.ok(),
            watchers: BTreeSet::new(),
            station_watchers: BTreeSet::new(),
            peers_lost: 0,
            mesh_id: settings.mesh_id,
            config_problems: settings.problems,
            places: settings.places,
            step_problem: None,
            started: clock::now(),
        })
    }

    /// Runs until SIGTERM. The access point ends with it; other interfaces stay as they are: somebody may be
    /// using them.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        self.reload(clock::now());
        let mut events = Vec::new();
        loop {
            let clients = self.clients.as_ref().and_then(Clients::poll_timeout);
            let cores = [self.planner.poll_timeout(), self.wifi.stations.poll_timeout()];
            let timeouts =
                cores.into_iter().chain([self.ap.poll_timeout(), self.secured.poll_timeout(), clients]);
            let timeouts = timeouts.chain([self.ports.poll_timeout(), self.firewall.poll_timeout()]);
            let deadline = timeouts.flatten().min();
            self.poller.wait(deadline, &mut events).map_err(|e| format!("waiting: {e}"))?;
            let now = clock::now();
            for event in events.drain(..) {
                match event.token {
                    SIGNALS if self.told_to_end() => {
                        self.end();
                        return Ok(());
                    }
                    SIGNALS => {}
                    MONITOR => self.hear_kernel(now),
                    WIFI => self.hear_radios(now),
                    token if HOSTAPD.contains(&token) => self.hear_hostapd(now),
                    DHCP => self.hear_dhcp(now),
                    UEVENTS => self.hear_switches(now),
                    SUPPLICANTS..PORTS => self.hear_supplicant(now, event.token),
                    SOLICITATIONS => self.clients.iter_mut().for_each(|c| c.hear_solicitations(now)),
                    token if self.ports.owns(token) => {
                        let news = self.ports.hear(now, token, &mut self.nl);
                        self.cables_changed(now, news);
                    }
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
            self.ap.handle_timeout(now, &self.poller);
            self.secured.handle_timeout(now, &self.poller);
            if let Some(clients) = &mut self.clients {
                clients.handle_timeout(now, &mut self.nl, &self.poller);
            }
            self.firewall.handle_timeout(now, self.planner.plan());
            let news = self.ports.handle_timeout(now, &mut self.nl, &self.poller);
            self.cables_changed(now, news);
        }
    }

    /// What was found out about cables is planned for.
    fn cables_changed(&mut self, now: Instant, news: ports::News) {
        if news.is_empty() {
            return;
        }
        for (index, cable) in news {
            self.planner.handle_input(now, Input::Cable { index, cable });
        }
        self.drain(now);
    }

    /// Looks for what is on the cables.
    fn follow_ports(&mut self, now: Instant) {
        let plan = self.planner.plan();
        let serves = plan.interfaces.iter().any(|i| i.role == Role::AccessPoint);
        let news = self.ports.follow(now, plan, serves, &mut self.nl, &self.poller);
        self.cables_changed(now, news);
    }

    /// Nothing that was made for clients stays.
    fn end(&mut self) {
        self.ports.end(clock::now(), &mut self.nl);
        self.firewall.end();
        self.clients.iter_mut().for_each(Clients::end);
        self.ap.end();
        self.secured.end();
        if let Some(clients) = self.clients.take()
            && let Err(e) = self.wifi.remove(clients.index())
        {
            log::warn!("removing the access point's interface: {e}");
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
                    if let Some(clients) = self.clients.as_mut().filter(|c| c.index() == link.index) {
                        clients.ensure(now, &mut self.nl, &self.poller);
                    }
                }
                Ok(Some(netlink::Event::LinkGone(link))) => {
                    self.planner.handle_input(now, Input::LinkGone(link.index));
                    if self.wifi.interfaces.contains_key(&link.index) {
                        self.list_radios(now);
                    }
                }
                Ok(Some(netlink::Event::Resync)) => self.reload(now),
                Ok(Some(netlink::Event::Address(_) | netlink::Event::AddressGone(_))) => {
                    let news = self.ports.addresses_changed(now, &mut self.nl);
                    self.cables_changed(now, news);
                }
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
        while let Some(heard) = self.wifi.hear(now, &self.poller) {
            changed |= heard == Heard::Changed;
            if let Heard::Looked(index) = heard {
                self.looked(now, index);
            }
            self.drain_stations(now);
        }
        if changed {
            self.reload(now);
        }
    }

    /// Somebody switched radios on or off.
    fn hear_switches(&mut self, now: Instant) {
        let heard = std::iter::from_fn(|| self.uevents.as_ref()?.next());
        if heard.filter(|e| e.subsystem == "rfkill").count() > 0 {
            self.reload(now);
        }
    }

    fn look(&mut self, now: Instant, index: u32, frequencies: &[u32]) {
        let Ok(Some(link)) = self.nl.links().map(|all| all.into_iter().find(|l| l.index == index)) else {
            return; // gone again; the monitor tells
        };
        let link = kernel::link(&link, &self.wifi.interfaces);
        let begun = kernel::prepare(&mut self.nl, &link, Role::Mesh)
            .and_then(|()| self.wifi.look(index, frequencies, &self.mesh_id));
        if let Err(e) = begun {
            log::info!("{}: can't look for the mesh: {e}", link.name);
            self.planner.handle_input(now, Input::Looked { index, heard: &[] });
        }
    }

    fn looked(&mut self, now: Instant, index: u32) {
        let heard = self.wifi.heard(index, &self.mesh_id, self.secured.wanted());
        self.planner.handle_input(now, Input::Looked { index, heard: &heard });
        self.drain(now);
    }

    /// Mesh points without peers look for the mesh again; as long as nobody wants to know of peers, none is one.
    fn note_lonely(&mut self, now: Instant) {
        let stations = &self.wifi.stations;
        let lonely = |index: &u32| stations.iter().all(|s| s.interface != *index || !s.peer);
        let points = self.wifi.stations.mesh_points().iter().copied().filter(lonely);
        let points: Vec<u32> = points.filter(|_| !self.station_watchers.is_empty()).collect();
        self.planner.handle_input(now, Input::Alone(&points));
    }

    fn drain_stations(&mut self, now: Instant) {
        let lost = self.wifi.stations.counters().peers_lost;
        if lost != self.peers_lost {
            self.peers_lost = lost;
            self.planner.handle_input(now, Input::PeerLost);
        }
        if self.wifi.drain(now) {
            let answer = Response::Service(RadioResponse::Stations(self.stations()));
            let (control, poller) = (&mut self.control, &self.poller);
            self.station_watchers.retain(|client| control.send(poller, *client, &answer));
            self.watch_stations(now);
        }
        self.note_lonely(now);
    }

    /// Somebody more or less wants to know of stations.
    fn watch_stations(&mut self, now: Instant) {
        let watched = !self.station_watchers.is_empty();
        self.wifi.stations.handle_input(now, StationInput::Watched(watched));
    }

    fn stations(&self) -> Vec<mesh_ipc::radio::Station> {
        report::stations(self.planner.plan(), self.wifi.stations.iter())
    }

    /// Those of the access point, too.
    fn all_stations(&mut self) -> Vec<mesh_ipc::radio::Station> {
        let clients = self.ap.target().map(|t| t.index).map(|index| self.wifi.clients(index));
        let mesh: Vec<Station> = self.wifi.stations.iter().copied().collect();
        report::stations(self.planner.plan(), clients.iter().flatten().chain(&mesh))
    }

    /// hostapd says something, or has ended.
    fn hear_hostapd(&mut self, now: Instant) {
        if self.ap.hear(now, &self.poller) {
            if let Some(clients) = &mut self.clients {
                clients.ensure(now, &mut self.nl, &self.poller);
            }
            self.tell_watchers(now);
        }
        self.give_up_radios(now);
    }

    /// Where hostapd or wpa_supplicant fails again and again, another radio may do better.
    fn give_up_radios(&mut self, now: Instant) {
        let ap = self.ap.target().filter(|_| self.ap.is_hopeless()).map(|t| t.index);
        let hopeless = self.secured.hopeless().chain(ap);
        let phys: Vec<u32> = hopeless.filter_map(|i| Some(self.wifi.interfaces.get(&i)?.phy)).collect();
        for phy in phys {
            self.planner.handle_input(now, Input::Stuck { phy });
        }
        self.drain(now);
    }

    fn hear_supplicant(&mut self, now: Instant, token: u64) {
        if let News::Joined(index) = self.secured.hear(now, &self.poller, token) {
            let done = self.wifi.configure_mesh(index);
            self.note(&format!("interface {index}"), "the mesh can't be told not to forward", done);
        }
        self.give_up_radios(now);
    }

    fn hear_dhcp(&mut self, now: Instant) {
        let Some(clients) = &mut self.clients else { return };
        let (wifi, index) = (&mut self.wifi, clients.index());
        clients.hear_dhcp(now, || wifi.clients(index).iter().map(|s| s.mac).collect());
    }

    fn drain(&mut self, now: Instant) {
        // Bounded: each interface is prepared at most once before it has to wait.
        while let Some(output) = self.planner.poll_output() {
            match output {
                Output::Prepare { index, role, work } => self.prepare(now, index, role, work),
                Output::AddInterface { phy, mode, name } => {
                    let done = self.wifi.add_interface(phy, &name, mode);
                    if !self.note(&name, "can't be made on its radio", done) {
                        self.planner.handle_input(now, Input::PhyFailed { phy });
                    }
                }
                Output::Look { index, frequencies } => self.look(now, index, &frequencies),
                Output::Remove { index } => {
                    let done = self.wifi.remove(index);
                    self.note(&format!("interface {index}"), "can't be removed", done);
                }
                Output::PlanChanged => {
                    self.firewall.follow(now, self.planner.plan());
                    self.release(now);
                    self.tell_watchers(now);
                    self.follow_ports(now);
                }
            }
        }
    }

    /// The interface is gone, or for something else now.
    fn release(&mut self, now: Instant) {
        let plan = self.planner.plan();
        self.secured.keep(|index| plan.interfaces.iter().any(|i| i.index == index && i.role == Role::Mesh));
        let serves =
            |index: u32| plan.interfaces.iter().any(|i| i.index == index && i.role == Role::AccessPoint);
        if self.ap.target().is_some_and(|t| !serves(t.index)) {
            self.ap.serve(now, &self.poller, None);
        }
        if self.clients.as_ref().is_some_and(|c| !serves(c.index())) {
            self.clients = None;
        }
    }

    fn serve_clients(&mut self, now: Instant, index: u32, interface: &str, work: Work) {
        if self.clients.as_ref().is_none_or(|c| c.index() != index) {
            self.clients = Some(Clients::new(index, interface, self.node, [DHCP, SOLICITATIONS]));
        }
        if let Some(clients) = &mut self.clients {
            clients.ensure(now, &mut self.nl, &self.poller);
        }
        self.ap.serve(now, &self.poller, Some(Target { index, interface: interface.into(), work }));
    }

    fn prepare(&mut self, now: Instant, index: u32, role: Role, work: Option<Work>) {
        // As it is now, not as it was when the planner heard of it.
        let link = match self.nl.links().map(|all| all.into_iter().find(|l| l.index == index)) {
            Ok(Some(link)) => kernel::link(&link, &self.wifi.interfaces),
            _ => return, // gone again; the monitor tells
        };
        let (nl, wifi, id) = (&mut self.nl, &mut self.wifi, &self.mesh_id);
        let (secured, poller) = (&mut self.secured, &self.poller);
        let done =
            kernel::prepare(nl, &link, role).and_then(|()| match work.filter(|_| role == Role::Mesh) {
                Some(work) if secured.wanted() => {
                    secured.join(now, poller, index, &link.name, work);
                    Ok(())
                }
                Some(work) => wifi.join(index, id, work),
                None => Ok(()),
            });
        if self.note(&link.name, &format!("can't be set up for {role:?}"), done) {
            // Wired ports tell when they change.
            let level = if work.is_some() { log::Level::Info } else { log::Level::Debug };
            log::log!(level, "{}: {role:?}: ready", link.name);
            self.ports.prepared(index);
            if let Some(work) = work.filter(|_| role == Role::AccessPoint) {
                self.serve_clients(now, index, &link.name, work);
            }
        } else {
            self.planner.handle_input(now, Input::Failed { index });
        }
    }

    /// Keeps what went wrong for people; true if nothing did.
    fn note(&mut self, name: &str, what: &str, done: Result<(), netlink::Error>) -> bool {
        self.step_problem = done.err().map(|e| {
            let advice = if e.is_permission() { "; mesh-radio needs CAP_NET_ADMIN" } else { "" };
            format!("{name}: {what}: {e}{advice}")
        });
        self.step_problem.iter().for_each(|text| log::warn!("{text}"));
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
                RadioResponse::Plan(report::plan(now, &self.planner, &self.ap, &self.secured))
            }
            RadioRequest::Clients => {
                RadioResponse::Clients(self.clients.as_ref().map(|c| c.list(now)).unwrap_or_default())
            }
            RadioRequest::Workshop { manual } => match self.set_workshop(now, *manual) {
                Ok(()) => RadioResponse::Plan(report::plan(now, &self.planner, &self.ap, &self.secured)),
                Err(why) => {
                    self.control.send(&self.poller, client, &Response::Error(why));
                    return;
                }
            },
            RadioRequest::Stations | RadioRequest::WatchStations => {
                self.wifi.refresh_stations(now);
                self.drain_stations(now);
                if *request == RadioRequest::WatchStations {
                    self.station_watchers.insert(client);
                    self.watch_stations(now);
                    RadioResponse::Stations(self.stations())
                } else {
                    RadioResponse::Stations(self.all_stations())
                }
            }
        };
        self.control.send(&self.poller, client, &Response::Service(answer));
    }

    /// Hands the interfaces to people, or takes them back. The other services read the file.
    fn set_workshop(&mut self, now: Instant, manual: bool) -> Result<(), String> {
        let chosen = if manual { Workshop::Manual } else { Workshop::Auto };
        workshop::choose(&self.run_dir, chosen).map_err(|e| format!("workshop: {e}"))?;
        if manual != self.planner.released() {
            let who = if manual {
                "people drive radios and interfaces"
            } else {
                "the node drives its radios again"
            };
            log::info!("workshop: {who}");
        }
        if self.planner.released() && !manual {
            self.clear_radios();
            self.reload(now);
        }
        self.planner.handle_input(now, Input::Released(manual));
        self.drain(now);
        self.reload(now);
        Ok(())
    }

    /// What people made of radios is ended: it would keep them on other channels.
    fn clear_radios(&mut self) {
        for i in &self.planner.plan().interfaces {
            let Some(wifi) = self.wifi.interfaces.get(&i.index).filter(|w| w.mode != Mode::Station) else {
                continue;
            };
            log::info!("{}: taken back, it was {}", i.name, wifi.mode.name());
            let done = self.nl.set_up(i.index, false).and_then(|()| self.wifi.make_station(i.index));
            if let Err(e) = done {
                log::warn!("{}: {e}", i.name);
            }
        }
    }

    fn tell_watchers(&mut self, now: Instant) {
        for text in report::changes(&self.told, self.planner.plan()) {
            log::info!("{text}");
        }
        self.told = self.planner.plan().clone();
        let plan = report::plan(now, &self.planner, &self.ap, &self.secured);
        let answer = Response::Service(RadioResponse::Plan(plan));
        let (control, poller) = (&mut self.control, &self.poller);
        self.watchers.retain(|client| control.send(poller, *client, &answer));
    }

    fn status(&mut self, now: Instant) -> ServiceStatus {
        let clients = self.clients.as_ref().map_or(&[][..], Clients::problems);
        let told = self.config_problems.iter().chain(&self.step_problem).chain(clients).cloned();
        let told = told.chain(self.ports.problems()).chain(self.firewall.problem().map(str::to_owned));
        let told = told.chain(self.ap.problem().map(str::to_owned)).chain(self.secured.problems(now));
        let told = told.chain(report::unusable(self.planner.plan()));
        let place = |key: &str| {
            let found = self.places.iter().find(|(k, _)| *k == key);
            found.map(|(_, place)| place.clone()).unwrap_or_default()
        };
        let told = told.chain(report::denied(self.planner.plan(), place));
        let problems: Vec<String> = told.chain(self.wifi.country_problem()).collect();
        ServiceStatus {
            service: NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: now.saturating_since(self.started).as_millis(),
            problems,
            counters: report::counters(self),
        }
    }
}

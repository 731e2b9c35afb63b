//! The driver: waits, hands each event to the core, and carries out what the core says.

use std::collections::BTreeMap;

use mesh_ipc::names::{NamesRequest, NamesResponse};
use mesh_ipc::radio::{self, RadioRequest, RadioResponse};
use mesh_ipc::{Request, Response};
use mesh_sys::control::{ClientId, Server, ServerEvent, Watcher};
use mesh_sys::netlink::{Monitor, Rtnetlink};
use mesh_sys::poll::{Event, Poller};
use mesh_sys::signal::{Signal, Signals};
use mesh_sys::{clock, entropy};
use mesh_types::{Duration, Instant};
use names::{Config, Datagram, Input, Names, Output, Rival, Role};

use crate::answers::{self, Wanted};
use crate::dns::{Dns, Query};
use crate::forward::Forwarder;
use crate::links::{Change, Links};
use crate::router::Router;
use crate::settings::{self, Settings};

const SIGNALS: u64 = 0;
const MONITOR: u64 = 1;
const RADIO: u64 = 2;
const ROUTER: u64 = 3;
/// One for each address of `--dns`, two for each access point.
const DNS: u64 = 1 << 40;
/// One for each question on its way to an uplink's server.
const FORWARD: u64 = 1 << 44;
/// Two for each interface index, IPv6 and IPv4.
const LINKS: u64 = 1 << 16;
const CONTROL: u64 = 1 << 48;

/// How often the other services are tried that do not answer, and sockets that did not open.
const RETRY: Duration = Duration::from_secs(1);
/// How often the files of services and the configuration are looked at, for changes.
const LOOK: Duration = Duration::from_secs(2);
/// Datagrams taken from one socket before others have their turn.
const BURST: usize = 32;
/// mDNS messages are at most 9000 bytes with their headers (RFC 6762 §17).
const BUFFER: usize = 9_000;
/// At most this many people wait for a name at once.
const MAX_ASKED: usize = 64;

type Control = Server<NamesRequest, NamesResponse>;

/// What mesh-radio's plan means for names; `None`: the interface is left alone.
fn role(planned: radio::Role) -> Option<Role> {
    match planned {
        radio::Role::Mesh => Some(Role::Mesh),
        radio::Role::AccessPoint => Some(Role::AccessPoint),
        // Others there reach what addresses the interface has, and not the mesh.
        radio::Role::Uplink | radio::Role::ByHand => Some(Role::Uplink),
        radio::Role::Unused => None,
    }
}

/// The whole service.
pub(crate) struct Service {
    settings: Settings,
    poller: Poller,
    signals: Signals,
    monitor: Monitor,
    kernel: Rtnetlink,
    control: Control,
    radio: Option<Watcher<RadioRequest, RadioResponse>>,
    router: Option<Router>,
    links: Links,
    dns: Dns,
    forwarder: Forwarder,
    core: Names,
    /// Who asked for a name on the control socket, by the core's token.
    asked: BTreeMap<u64, ClientId>,
    next_token: u64,
    renamed: Option<Rival>,
    started: Instant,
    retry_at: Instant,
    /// When people's files are looked at again.
    look_at: Instant,
    buffer: Vec<u8>,
}

impl Service {
    /// Everything that has to work before names can be served; an error is for people.
    pub(crate) fn new(settings: Settings) -> Result<Self, String> {
        let say = |what: &'static str| move |e: &dyn std::fmt::Display| format!("{what}: {e}");
        let now = clock::now();
        let poller = Poller::new().map_err(|e| say("poller")(&e))?;
        let signals = Signals::new().map_err(|e| say("signals")(&e))?;
        let monitor = Monitor::new().map_err(|e| say("kernel notifications")(&e))?;
        let kernel = Rtnetlink::new().map_err(|e| say("kernel interfaces")(&e))?;
        let control = Control::bind(&settings.run_dir, "mesh-mdns", &poller, CONTROL)
            .map_err(|e| say("control socket")(&e))?;
        poller.add(&signals, SIGNALS, false).map_err(|e| say("poller")(&e))?;
        poller.add(&monitor, MONITOR, false).map_err(|e| say("poller")(&e))?;
        let seed = entropy::seed().map_err(|e| say("randomness")(&e))?;
        let config = Config {
            name: settings.name.clone(),
            node: settings.node.clone().ok(),
            services: settings.announced.services.clone(),
        };
        let mut links = Links::default();
        if let Some(names) = &settings.interfaces {
            links.want(names.clone());
        }
        let told = settings.problems.iter().chain(&settings.announced.problems);
        for p in told.chain(settings.node.as_ref().err()) {
            log::warn!("{p}");
        }
        Ok(Self {
            poller,
            signals,
            monitor,
            kernel,
            control,
            radio: None,
            router: None,
            links,
            dns: Dns::new(&settings.dns),
            forwarder: Forwarder::new(settings.run_dir.join("resolv.conf")),
            core: Names::new(config, seed, now),
            asked: BTreeMap::new(),
            next_token: 0,
            renamed: None,
            started: now,
            retry_at: now,
            look_at: now + LOOK,
            buffer: vec![0; BUFFER],
            settings,
        })
    }

    /// Runs until SIGTERM, then says goodbye.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let now = clock::now();
        self.reload(now);
        self.retry(now);
        for p in self.dns.problems.iter().chain(&self.links.problems) {
            log::warn!("{p}");
        }
        let mut events = Vec::new();
        loop {
            let others = [self.next_retry(), self.forwarder.next_timeout(), self.dns.next_timeout()];
            let others = others.into_iter().flatten().chain([self.look_at]);
            let deadline = self.core.poll_timeout().into_iter().chain(others).min();
            self.poller.wait(deadline, &mut events).map_err(|e| format!("waiting: {e}"))?;
            let now = clock::now();
            for event in events.drain(..) {
                match event.token {
                    SIGNALS if self.told_to_end() => {
                        self.input(now, Input::Shutdown);
                        return Ok(());
                    }
                    SIGNALS => {}
                    MONITOR => self.hear_kernel(now),
                    RADIO => self.hear_radio(now, event),
                    ROUTER => self.hear_router(now, event),
                    token if self.control.owns(token) => self.serve(now, event),
                    token if token >= FORWARD => self.receive_forwarded(now, event),
                    token if token >= DNS => self.receive_dns(now, event),
                    token => self.receive(now, token.saturating_sub(LINKS)),
                }
            }
            if self.core.poll_timeout().is_some_and(|t| t <= now) {
                self.core.handle_timeout(now);
                self.drain(now);
            }
            for (client, reply) in self.forwarder.expire(&self.poller, FORWARD, now) {
                self.dns.reply(client, &reply, &self.poller, DNS);
            }
            self.dns.expire(now);
            if self.look_at <= now {
                self.look_at = now + LOOK;
                self.look_at_files(now);
            }
            if self.next_retry().is_some_and(|t| t <= now) {
                self.retry(now);
            }
        }
    }

    /// Services that people added, changed or took away since.
    fn look_at_files(&mut self, now: Instant) {
        if self.settings.announced.refresh() {
            let services = self.settings.announced.services.clone();
            log::info!("{} services are announced from now on", services.len());
            self.input(now, Input::Services(services));
        }
    }

    fn told_to_end(&self) -> bool {
        std::iter::from_fn(|| self.signals.next()).any(|s| s == Signal::Terminate)
    }

    fn next_retry(&self) -> Option<Instant> {
        let radio = self.settings.interfaces.is_none() && self.radio.is_none();
        let sockets = !self.dns.problems.is_empty() || !self.links.problems.is_empty();
        let identity = self.settings.node.is_err();
        (radio || self.router.is_none() || sockets || identity).then_some(self.retry_at)
    }

    /// Tries again what did not work.
    fn retry(&mut self, now: Instant) {
        self.retry_at = now + RETRY;
        self.dns.open_missing(&self.poller, DNS);
        if !self.links.problems.is_empty() {
            self.reload(now);
        }
        if self.settings.node.is_err() {
            self.settings.node = settings::node_id(&self.settings.state_dir);
            if let Ok(node) = self.settings.node {
                self.input(now, Input::Identity(node));
            }
        }
        if self.settings.interfaces.is_none() && self.radio.is_none() {
            let run_dir = &self.settings.run_dir;
            let mut watcher = Watcher::connect(run_dir, "mesh-radio", &self.poller, RADIO).ok();
            let watch = Request::Service(RadioRequest::Watch);
            if watcher.as_mut().is_some_and(|w| w.send(&self.poller, &watch).is_ok()) {
                self.radio = watcher;
            }
        }
        if self.router.is_none() {
            self.router = Router::connect(&self.settings.run_dir, &self.poller, ROUTER).ok();
            if self.router.is_some() {
                self.input(now, Input::Router(true));
            }
        }
    }

    /// Hands one input to the core and does what follows.
    fn input(&mut self, now: Instant, input: Input<'_>) {
        if let Err(e) = self.core.handle_input(now, input) {
            log::debug!("{e}");
        }
        self.drain(now);
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Transmit(t) => self.links.send(&t),
                Output::DnsReply { client, payload } => {
                    self.dns.reply(client, &payload, &self.poller, DNS);
                }
                Output::Forward { client, stream, payload } => {
                    let from = (client, stream);
                    let failed = self.forwarder.ask(&self.poller, FORWARD, clock::now(), from, payload);
                    if let Some((client, reply)) = failed {
                        self.dns.reply(client, &reply, &self.poller, DNS);
                    }
                }
                Output::Publish(payload) => {
                    let lost =
                        self.router.as_mut().is_some_and(|r| r.publish(&self.poller, payload).is_err());
                    if lost {
                        self.router = None;
                        let _ = self.core.handle_input(now, Input::Router(false));
                    }
                }
                Output::Resolved { token, known } => {
                    if let Some(client) = self.asked.remove(&token) {
                        self.control.send(&self.poller, client, &answers::resolved(known));
                    }
                }
                Output::Event(event) => {
                    if let names::Event::Renamed { rival, .. } = event {
                        self.renamed = Some(rival);
                    }
                    answers::log_event(&event, &self.links);
                }
            }
        }
    }

    fn hear_kernel(&mut self, now: Instant) {
        let mut any = false;
        while let Ok(Some(_)) = self.monitor.poll_event() {
            any = true;
        }
        if any {
            self.reload(now);
        }
    }

    /// Looks at the interfaces anew and tells the core.
    fn reload(&mut self, now: Instant) {
        let changes = match self.links.refresh(&mut self.kernel, &self.poller, LINKS) {
            Ok(changes) => changes,
            Err(e) => {
                log::warn!("reading interfaces and addresses: {e}; the next change is followed again");
                return;
            }
        };
        self.dns.serve_links(self.links.access_points(), &self.poller, DNS);
        for change in changes {
            let input = match change {
                Change::Present { index, addresses, role } => Input::Interface { index, addresses, role },
                Change::Gone(index) => Input::InterfaceGone(index),
                Change::Own(addresses) => Input::NodeAddresses(addresses),
            };
            self.input(now, input);
        }
    }

    fn hear_radio(&mut self, now: Instant, event: Event) {
        let Some(radio) = &mut self.radio else { return };
        let Ok(responses) = radio.handle(&self.poller, event) else {
            log::warn!("mesh-radio ended; the interfaces stay as they are until it is back");
            self.radio = None;
            return;
        };
        for response in responses {
            if let Response::Service(RadioResponse::Plan(plan)) = response {
                let served = plan.interfaces.into_iter().filter_map(|i| Some((i.name, role(i.role)?)));
                self.links.want(served.collect());
                self.reload(now);
            }
        }
    }

    fn hear_router(&mut self, now: Instant, event: Event) {
        let Some(router) = &mut self.router else { return };
        if router.handle(&self.poller, event, now, &mut self.core).is_err() {
            log::warn!("mesh-router ended; names of the mesh are forgotten as they expire");
            self.router = None;
            self.input(now, Input::Router(false));
        }
        self.drain(now);
    }

    /// Datagrams on port 5353.
    fn receive(&mut self, now: Instant, offset: u64) {
        for _ in 0..BURST {
            let mut buffer = std::mem::take(&mut self.buffer);
            match self.links.receive(offset, &mut buffer) {
                Some((index, Ok(Some(r)))) if !r.truncated => {
                    let datagram = Datagram {
                        interface: index,
                        source: r.source,
                        destination: r.destination,
                        payload: buffer.get(..r.len).unwrap_or_default(),
                    };
                    self.input(now, Input::Datagram(datagram));
                    self.buffer = buffer;
                }
                Some((_, Ok(Some(_)))) => self.buffer = buffer,
                other => {
                    self.buffer = buffer;
                    if let Some((_, Err(e))) = other {
                        log::debug!("mDNS socket: {e}");
                        self.links.close(offset);
                        self.reload(now);
                    }
                    return;
                }
            }
        }
    }

    fn receive_dns(&mut self, now: Instant, event: Event) {
        let upstream = self.forwarder.has_servers(now);
        self.input(now, Input::Upstream(upstream));
        let number = event.token - DNS;
        if Dns::is_stream(number) {
            let buffer = &mut self.buffer;
            let queries = self.dns.receive_stream(event, &self.poller, DNS, now, buffer, &self.links);
            for (client, payload) in queries {
                self.input(now, Input::Dns { client, stream: true, payload: &payload });
            }
            return;
        }
        for _ in 0..BURST {
            let mut buffer = std::mem::take(&mut self.buffer);
            let query = self.dns.receive(number, &mut buffer, &self.links);
            if let Some(Query { client, len }) = query {
                let payload = buffer.get(..len).unwrap_or_default();
                self.input(now, Input::Dns { client, stream: false, payload });
            }
            self.buffer = buffer;
            if query.is_none() {
                return;
            }
        }
    }

    fn receive_forwarded(&mut self, now: Instant, event: Event) {
        let reply = self.forwarder.receive(&self.poller, FORWARD, now, event, &mut self.buffer);
        if let Some((client, reply)) = reply {
            self.dns.reply(client, &reply, &self.poller, DNS);
        }
    }

    fn serve(&mut self, now: Instant, event: Event) {
        for what in self.control.handle(&self.poller, event) {
            match what {
                ServerEvent::Gone(client) => self.asked.retain(|_, c| *c != client),
                ServerEvent::Request(client, request) => {
                    if let Some(reply) = self.reply(now, client, request) {
                        self.control.send(&self.poller, client, &reply);
                    }
                }
            }
        }
        self.drain(now);
    }

    /// The reply, or `None` if it comes later.
    fn reply(
        &mut self,
        now: Instant,
        client: ClientId,
        request: Request<NamesRequest>,
    ) -> Option<answers::Reply> {
        match request {
            Request::Status => {
                let uptime = now.saturating_since(self.started);
                let status = answers::status(&self.core, uptime, &self.links, self.problems());
                Some(Response::Status(status))
            }
            Request::Service(NamesRequest::List) => Some(answers::names(self.core.list(now))),
            Request::Service(NamesRequest::Resolve(text)) => {
                let wanted = match answers::parse_wanted(&text) {
                    Ok(wanted) => wanted,
                    Err(text) => return Some(Response::Error(text)),
                };
                if self.asked.len() >= MAX_ASKED {
                    return Some(Response::Error("too many names are being asked for; try again".into()));
                }
                self.next_token += 1;
                self.asked.insert(self.next_token, client);
                let token = self.next_token;
                let input = match wanted {
                    Wanted::Name(name) => Input::Resolve { token, name },
                    Wanted::Address(address) => Input::ResolveAddress { token, address },
                };
                let _ = self.core.handle_input(now, input);
                None
            }
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = self.settings.announced.problems.clone();
        problems.extend(self.settings.problems.iter().cloned());
        problems.extend(self.settings.node.as_ref().err().cloned());
        if let Some(rival) = self.renamed {
            problems.push(answers::rename_problem(&self.core, rival, &self.links));
        }
        problems.extend(self.dns.problems.iter().chain(&self.links.problems).cloned());
        if self.settings.interfaces.is_none() && self.radio.is_none() {
            problems.push("mesh-radio does not answer: no interface is served until it does".into());
        }
        if self.router.is_none() {
            problems.push("mesh-router does not answer: names beyond the links are not known".into());
        }
        problems
    }
}

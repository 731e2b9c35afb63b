//! The driver: waits, hands each event to the part it belongs to, and carries out what the cores say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use mesh_ipc::router::{RouterRequest, RouterResponse};
use mesh_sys::control::Server;
use mesh_sys::netlink::{Detection, Monitor, Route, Rtnetlink, sysctl, tunnels_possible};
use mesh_sys::poll::Poller;
use mesh_sys::signal::{Signal, Signals};
use mesh_sys::udp::Family;
use mesh_sys::{clock, entropy};
use mesh_types::{Duration, Instant};
use olsrv2::{Config, Input, MetricMode, Sequences};

use crate::fib::{self, Fib, PROTOCOL};
use crate::instance::Instance;
use crate::ipv4::Ipv4;
use crate::links::Links;
use crate::numbers::{NumberFile, Numbers};
use crate::recording::RecordFile;
use crate::records::Board;
use crate::rules;
use crate::settings::Settings;
use crate::stations::Stations;
use crate::tunnels::Tunnels;
use crate::uplink::Uplinks;

mod control;
mod network;
mod node;
mod publish;
mod radio;
mod steer;

use radio::{RADIO_PAUSE, RadioWatch};

const SIGNALS: u64 = 0;
const MONITOR: u64 = 1;
const RADIO: u64 = 2;
/// Then two for each interface index, IPv6 and IPv4.
const SOCKETS: u64 = 16;
const CONTROL: u64 = 1 << 48;

/// How often the sequence numbers are looked at, and sockets that did not open are tried again.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// How long what is not urgent waits for something else to happen: a wake-up costs more than what is done.
const PATIENCE: Duration = Duration::from_secs(3);

/// Routes of the last run are kept so long at the most, until new ones take their place.
const GRACE: Duration = Duration::from_secs(30);

const V6: usize = 0;
const V4: usize = 1;

type Control = Server<RouterRequest, RouterResponse>;

/// The whole service.
pub(crate) struct Service {
    settings: Settings,
    poller: Poller,
    signals: Signals,
    monitor: Monitor,
    /// It failed and could not be replaced; housekeeping tries again.
    monitor_broken: bool,
    kernel: Rtnetlink,
    control: Control,
    radio: Option<RadioWatch>,
    radio_retry: (Instant, Duration),
    stations: Stations,
    links: Links,
    /// Answers of neighbours are heard until then.
    asked_until: Option<Instant>,
    /// Interfaces that have the settings routing needs.
    prepared: BTreeSet<u32>,
    /// IPv6 first, then IPv4.
    instances: Vec<Instance>,
    fib: Fib,
    uplinks: Uplinks,
    /// mesh-radio has one.
    access_point: bool,
    tunnels: Tunnels,
    /// Routes of tunnels that end here.
    ends: Vec<Route>,
    /// What the kernel's rules were made for.
    ruled: rules::Mesh,
    ipv4: Ipv4,
    /// The machine's own filter for sources is on, for all interfaces.
    rp_filter: bool,
    board: Board,
    numbers: NumberFile,
    /// What kept them from being saved.
    numbers_unsaved: Option<String>,
    record: u32,
    recording: Option<RecordFile>,
    /// Which start of the service this is, counted over all runs.
    start: u32,
    started: Instant,
    housekeeping: Instant,
    /// When everything that came before was handed to the cores.
    past: Instant,
    /// What comes as no news is looked at then, at the latest.
    calm_until: Instant,
    buffer: Vec<u8>,
}

impl Service {
    /// Everything that has to work before the node can route; an error is for people.
    pub(crate) fn new(mut settings: Settings) -> Result<Self, String> {
        let say = |what: &'static str| move |e: &dyn std::fmt::Display| format!("{what}: {e}");
        let now = clock::now();
        let poller = Poller::new().map_err(|e| say("poller")(&e))?;
        let signals = Signals::new().map_err(|e| say("signals")(&e))?;
        let mut monitor = Monitor::with_routes(PROTOCOL).map_err(|e| say("kernel notifications")(&e))?;
        monitor.hear_answers(false);
        let mut kernel = Rtnetlink::new().map_err(|e| say("kernel routes")(&e))?;
        let control = Control::bind(&settings.run_dir, "mesh-router", &poller, CONTROL)
            .map_err(|e| say("control socket")(&e))?;
        poller.add(&signals, SIGNALS, false).map_err(|e| say("poller")(&e))?;
        poller.add(&monitor, MONITOR, false).map_err(|e| say("poller")(&e))?;
        let grace = settings.timing.tc_interval.times(3).min(GRACE);
        let fib = Fib::new(&mut kernel, now, grace).map_err(|e| say("kernel routes")(&e))?;
        let (numbers, found) = NumberFile::open(settings.state_dir.join("sequences"));
        let state_dir = settings.state_dir.parent().unwrap_or(&settings.state_dir);
        let ipv4 = Ipv4::load(settings.identity.node_id(), state_dir);
        if !settings.fixed4 {
            settings.originator4 = ipv4.address();
        }
        let recording = settings.record.as_deref().map(RecordFile::create).transpose()?;
        let start = found.map_or(0, |n| n.start).saturating_add(1);
        let instances = instances(&settings, found.as_ref(), start, now)?;
        let own_ula = settings.own_prefix.map(|_| settings.identity.node_id().ula_prefix());
        let tunnels = tunnels_possible();
        if let Err(e) = &tunnels {
            log::warn!("no tunnels to gateways: the kernel takes no programs on routes: {e}");
        }
        kernel.set_tunnel_source(settings.originator6);
        let mut service = Self {
            poller,
            signals,
            monitor,
            monitor_broken: false,
            kernel,
            control,
            radio: None,
            radio_retry: (now, RADIO_PAUSE.0),
            stations: Stations::default(),
            links: Links::default(),
            asked_until: None,
            prepared: BTreeSet::new(),
            instances,
            fib,
            uplinks: Uplinks::new(settings.share_uplink, own_ula),
            access_point: false,
            tunnels: Tunnels::new(tunnels.is_ok()),
            ends: Vec::new(),
            ruled: rules::Mesh::default(),
            ipv4,
            rp_filter: sysctl::get(Family::V4, "all", "rp_filter").is_ok_and(|v| v != "0"),
            board: Board::default(),
            numbers,
            numbers_unsaved: None,
            start,
            recording,
            record: found.map_or(0, |n| n.record),
            started: now,
            housekeeping: now,
            past: now,
            calm_until: now,
            buffer: vec![0; mesh_sys::udp::MAX_DATAGRAM],
            settings,
        };
        service.save_numbers(); // before the first message is sent
        service.prepare(now)?;
        Ok(service)
    }

    /// Addresses, forwarding, attached networks, first look at the interfaces.
    fn prepare(&mut self, now: Instant) -> Result<(), String> {
        self.put_addresses().map_err(|e| {
            format!("own addresses on lo: {e}; mesh-router needs CAP_NET_ADMIN in its network namespace")
        })?;
        for (family, key, value) in [
            (Family::V6, "forwarding", "1"),
            (Family::V4, "forwarding", "1"),
            // Its own word is not enough: a redirect is sent if "all" or the interface says so.
            (Family::V4, "send_redirects", "0"),
        ] {
            self.set_sysctl(family, "all", key, value);
        }
        self.put_rules().map_err(|e| format!("routing rules: {e}; the kernel has to have several tables"))?;
        if let Some(prefix) = self.settings.own_prefix {
            self.fib.set(fib::own_prefix_route(prefix));
        }
        self.announce(now);
        if let Some(names) = self.settings.interfaces.clone() {
            self.links.want(names);
        }
        self.reload(now);
        log::info!(
            "node {} routes as {} and {}",
            self.settings.identity.node_id(),
            self.settings.originator6,
            self.settings.originator4
        );
        Ok(())
    }

    /// Runs until SIGTERM, then leaves nothing behind.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let mut events = Vec::new();
        loop {
            let deadline = self.next_deadline();
            self.poller.wait(Some(deadline), &mut events).map_err(|e| format!("waiting: {e}"))?;
            let now = clock::now();
            self.catch_up(now);
            for event in events.drain(..) {
                match event.token {
                    SIGNALS if self.told_to_end(now) => {
                        self.end();
                        return Ok(());
                    }
                    SIGNALS => {}
                    MONITOR => self.hear_kernel(now),
                    RADIO => self.hear_radio(now, event),
                    token if self.control.owns(token) => self.serve(now, event),
                    token => self.receive(now, token),
                }
            }
            self.timeouts(now);
            self.rest(now);
            self.keep_recording();
        }
    }

    /// Writes down what happened to the cores since the last time.
    pub(crate) fn keep_recording(&mut self) {
        let Some(file) = &mut self.recording else { return };
        file.keep(self.instances.iter_mut().map(|i| &mut i.recorder));
    }

    fn next_deadline(&self) -> Instant {
        let cores = self.instances.iter().filter_map(|i| i.router.poll_timeout()).min();
        let (at, pause) = self.radio_retry;
        let radio = self.radio.is_none().then_some(at + pause.divided_by(4));
        let others =
            [Some(self.fib.next_check()), Some(self.housekeeping + PATIENCE), Some(self.calm_until), radio];
        others.into_iter().flatten().chain(cores).min().unwrap_or(self.housekeeping)
    }

    fn told_to_end(&mut self, now: Instant) -> bool {
        while let Some(signal) = self.signals.next() {
            match signal {
                Signal::Terminate => return true,
                Signal::HangUp => self.change_keys(now),
                Signal::Child | Signal::User(_) => {}
            }
        }
        false
    }

    /// SIGHUP: `router.key` is read again and holds from now on; links and routes stay.
    fn change_keys(&mut self, now: Instant) {
        self.settings.read_config();
        log::info!("{} keys for routing messages now", self.settings.keys.len());
        for at in 0..self.instances.len() {
            let Some(instance) = self.instances.get_mut(at) else { continue };
            instance.input(now, Input::Keys(&self.settings.keys));
            self.drain(now, at);
        }
    }

    fn timeouts(&mut self, now: Instant) {
        self.end_asking(now);
        for at in 0..self.instances.len() {
            let Some(instance) = self.instances.get_mut(at) else { continue };
            if instance.timeout(now) {
                self.drain(now, at);
            }
        }
        if self.fib.next_check() <= now {
            if let Err(e) = self.put_addresses() {
                log::warn!("own addresses on lo: {e}");
            }
            if let Err(e) = self.put_rules() {
                log::warn!("routing rules: {e}");
            }
            self.fib.check(&mut self.kernel, &self.instances, now);
            self.look_for_uplinks(now);
        }
        if self.radio.is_none() && self.radio_retry.0 <= now {
            self.watch_radio(now);
        }
        if self.housekeeping <= now {
            self.housekeeping = now + HOUSEKEEPING;
            self.save_numbers();
            match self.monitor_broken {
                true => self.reopen_monitor(now),
                false => self.sync(now),
            }
        }
    }

    fn save_numbers(&mut self) {
        let numbers = self.present_numbers();
        let failed = self.numbers.keep_ahead(&numbers).err().map(|e| e.to_string());
        if failed != self.numbers_unsaved {
            failed.iter().for_each(|e| log::warn!("saving sequence numbers: {e}"));
            self.numbers_unsaved = failed;
        }
    }

    fn present_numbers(&self) -> Numbers {
        let of = |at: usize| self.instances.get(at).map(|i| i.router.sequences()).unwrap_or_default();
        Numbers { v6: of(V6), v4: of(1), record: self.record, start: self.start }
    }

    fn end(&mut self) {
        log::info!("ending: routes and addresses are removed");
        let now = clock::now();
        for at in 0..self.instances.len() {
            if let Some(instance) = self.instances.get_mut(at) {
                instance.input(now, Input::Leave);
            }
            self.drain(now, at);
        }
        for index in std::mem::take(&mut self.prepared) {
            self.watch_neighbors(index, &Detection::RFC4861);
        }
        self.uplinks.clear();
        self.fib.clear(&mut self.kernel, &self.instances, now);
        if let Err(e) = rules::sync(&mut self.kernel, &BTreeSet::new()) {
            log::warn!("removing the routing rules: {e}");
        }
        if let Ok(Some(lo)) = self.kernel.link("lo") {
            for (ip, len) in self.own_addresses() {
                if let Err(e) = self.kernel.remove_address(lo.index, ip, len) {
                    log::warn!("removing {ip} from lo: {e}");
                }
            }
        }
        let numbers = self.present_numbers();
        if let Err(e) = self.numbers.write(&numbers) {
            log::warn!("saving sequence numbers: {e}");
        }
        self.keep_recording();
        if let Some(file) = &mut self.recording {
            file.end();
        }
    }

    fn own_addresses(&self) -> [(IpAddr, u8); 2] {
        [(self.settings.originator6.into(), 128), (self.settings.originator4.into(), 32)]
    }

    fn put_addresses(&mut self) -> Result<(), mesh_sys::netlink::Error> {
        let gone = || mesh_sys::netlink::Error::Malformed("no interface lo");
        let lo = self.kernel.link("lo")?.ok_or_else(gone)?;
        if !lo.up {
            self.kernel.set_up(lo.index, true)?;
        }
        let addresses = self.own_addresses();
        addresses.iter().try_for_each(|(ip, len)| self.kernel.add_address(lo.index, *ip, *len))
    }

    fn set_sysctl(&self, family: Family, interface: &str, key: &str, value: &str) {
        if let Err(e) = sysctl::set(family, interface, key, value) {
            log::warn!("net.{family:?}.conf.{interface}.{key} = {value}: {e}");
        }
    }
}

fn instances(
    settings: &Settings,
    found: Option<&Numbers>,
    start: u32,
    now: Instant,
) -> Result<Vec<Instance>, String> {
    let originators: [(IpAddr, _); 2] = [
        (settings.originator6.into(), found.map(|n| n.v6)),
        (settings.originator4.into(), found.map(|n| n.v4)),
    ];
    let counter = u64::from(start) << 32;
    originators.into_iter().map(|(o, sequences)| instance(settings, o, sequences, counter, now)).collect()
}

/// `counter`: of the last signed message.
fn instance(
    settings: &Settings,
    originator: IpAddr,
    sequences: Option<Sequences>,
    counter: u64,
    now: Instant,
) -> Result<Instance, String> {
    let seed = entropy::seed().map_err(|e| format!("random numbers: {e}"))?;
    let config = Config {
        timing: settings.timing,
        metric: MetricMode::Dat,
        tc_scopes: settings.tc_scopes.clone(),
        share_packets: originator.is_ipv4(),
        sequences,
        keys: settings.keys.clone(),
        counter,
        ..Config::new(originator)
    };
    Ok(Instance::new(config, seed, now, settings.record.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_leads_back_to_its_socket() {
        for index in [1u32, 2, u32::MAX] {
            for at in [0u64, 1] {
                let token = SOCKETS + u64::from(index) * 2 + at;
                assert!(token < CONTROL);
                assert_eq!((((token - SOCKETS) / 2) as u32, (token - SOCKETS) % 2), (index, at));
            }
        }
    }
}

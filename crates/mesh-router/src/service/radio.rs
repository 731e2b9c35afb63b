//! What mesh-radio says: which interfaces mesh, and whom their radios reach.

use std::io;
use std::net::IpAddr;

use mesh_ipc::radio::{RadioRequest, RadioResponse, Role, Station};
use mesh_ipc::{Request, Response};
use mesh_sys::control::Watcher;
use mesh_sys::poll;
use mesh_types::{Duration, Instant};
use olsrv2::{Input, LinkStatus};

use super::{RADIO, Service};
use crate::stations::{Mac, News, is_station};

/// First and longest pause between tries to reach mesh-radio.
pub(super) const RADIO_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));

pub(super) type RadioWatch = Watcher<RadioRequest, RadioResponse>;

impl Service {
    pub(super) fn watch_radio(&mut self, now: Instant) {
        let connected = RadioWatch::connect(&self.settings.run_dir, "mesh-radio", &self.poller, RADIO)
            .and_then(|w| self.ask_radio(w));
        match connected {
            Ok(watch) => self.radio = Some(watch),
            Err(e) => {
                log::debug!("mesh-radio: {e}");
                self.radio_gone(now);
            }
        }
    }

    fn ask_radio(&self, mut watch: RadioWatch) -> io::Result<RadioWatch> {
        if self.settings.interfaces.is_none() {
            watch.send(&self.poller, &Request::Service(RadioRequest::Watch))?;
        }
        watch.send(&self.poller, &Request::Service(RadioRequest::WatchStations))?;
        Ok(watch)
    }

    /// The interfaces in use stay in use until mesh-radio says otherwise, and its silence is no loss of a link.
    fn radio_gone(&mut self, now: Instant) {
        self.radio = None;
        self.stations.forget();
        let pause = self.radio_retry.1;
        self.radio_retry = (now + pause, pause.times(2).min(RADIO_PAUSE.1));
    }

    pub(super) fn hear_radio(&mut self, now: Instant, event: poll::Event) {
        let Some(watch) = &mut self.radio else { return };
        match watch.handle(&self.poller, event) {
            Err(e) => {
                log::warn!("mesh-radio: {e}; its last plan stays in force");
                self.radio_gone(now);
            }
            Ok(answers) => {
                self.radio_retry.1 = RADIO_PAUSE.0;
                for answer in answers {
                    match answer {
                        Response::Service(RadioResponse::Stations(list)) => self.hear_stations(now, &list),
                        Response::Service(RadioResponse::Plan(plan)) => {
                            let of = |role| plan.interfaces.iter().filter(move |i| i.role == role);
                            self.access_point = of(Role::AccessPoint).next().is_some();
                            self.links.want(of(Role::Mesh).map(|i| i.name.clone()).collect());
                            self.sync(now);
                            self.look_for_uplinks(now);
                        }
                        Response::Error(e) => log::warn!("mesh-radio: {e}"),
                        Response::Status(_) | Response::Service(RadioResponse::Clients(_)) => {}
                    }
                }
            }
        }
    }

    fn hear_stations(&mut self, now: Instant, report: &[Station]) {
        let links = &self.links;
        let ours = |index: u32, name: &str| links.name(index) == Some(name) && links.wanted().contains(name);
        let News { lost, quality } = self.stations.take(report, ours);
        let mut about: Vec<u32> =
            lost.iter().map(|(index, _)| *index).chain(quality.iter().map(|(index, ..)| *index)).collect();
        about.sort_unstable();
        about.dedup();
        for index in about {
            let table = self.kernel.neighbors(index).unwrap_or_else(|e| {
                log::debug!("neighbours of interface {index}: {e}"); // their addresses may still tell
                Vec::new()
            });
            let (here, table) = (self.neighbors_on(index), &table);
            let named = |mac: Mac| here.iter().copied().filter(move |(_, ip)| is_station(*ip, mac, table));
            let lost = lost.iter().filter(|(i, _)| *i == index).flat_map(|(_, mac)| named(*mac));
            for (at, address) in lost {
                let name = self.links.name(index).unwrap_or("?");
                log::info!("{name}: the radio has lost {address}");
                self.give(now, at, Input::LinkLost { interface: index, address });
            }
            for (_, mac, quality) in quality.iter().filter(|(i, ..)| *i == index) {
                for (at, address) in named(*mac) {
                    let input = Input::LinkQuality { interface: index, address, quality: *quality };
                    self.give(now, at, input);
                }
            }
        }
    }

    /// The neighbours on an interface, with their instances.
    fn neighbors_on(&self, index: u32) -> Vec<(usize, IpAddr)> {
        let mut found = Vec::new();
        for (at, instance) in self.instances.iter().enumerate() {
            let here = instance.router.neighbors().filter(|n| n.interface == index);
            found.extend(here.filter(|n| n.status != LinkStatus::Lost).map(|n| (at, n.address)));
        }
        found
    }

    fn give(&mut self, now: Instant, at: usize, input: Input<'_>) {
        if let Some(instance) = self.instances.get_mut(at) {
            instance.input(now, input);
            self.drain(now, at);
        }
    }
}

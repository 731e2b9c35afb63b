//! Installations: begun by a client or by an announcement, and what follows them.

use std::fs::File;

use mesh_ipc::Response;
use mesh_ipc::update::{Progress, UpdateRequest, UpdateResponse};
use mesh_sys::clock;
use mesh_sys::control::{ClientId, Server};
use mesh_sys::poll::Poller;
use mesh_types::Instant;
use rustix::fs::{Advice, fadvise};
use update_core::{FleetInput, Install, InstallConfig, Policy, Refusal, Stage};

use super::{BUSY, NO_FILE, SHARE, STORE, Service};
use crate::card::Card;
use crate::fetch::Fetch;
use crate::job::{For, Job, LEFT, Source, Step};
use crate::notes::Trial;
use crate::probe::{NEIGHBOUR, Probes};
use crate::share::{Share, Told};
use crate::turns::Turns;

impl Service {
    /// Starts an installation; its answers come later.
    pub(super) fn begin(
        &mut self,
        poller: &Poller,
        for_whom: For,
        total: Option<u64>,
        check_only: bool,
        now: Instant,
        source: impl FnOnce(&mut bool) -> Result<Source, String>,
    ) -> Result<(), String> {
        if self.is_busy() {
            return Err(BUSY.into());
        }
        let Some(card) = &self.card else { return Err(self.why_no_slots()) };
        let Some(partitions) = card.partitions() else {
            return Err("the card has no second slot; flash it anew".into());
        };
        let mut reuse = false;
        let source = source(&mut reuse)?;
        let (running, floor) = card.release();
        // The floor of a system on trial does not count yet.
        let floor = if card.confirmed() { floor } else { 0 };
        let policy = Policy { running, floor: floor.max(self.notes.floor()), ..self.policy.clone() };
        // From here on the other slot is not one to restart into.
        let release = match &for_whom {
            For::Client(_) => self.turns.as_ref().map_or(0, Turns::target),
            For::Offer(offer) => offer.release,
        };
        let only = match &for_whom {
            For::Client(_) => None,
            For::Offer(offer) => Some((offer.manifest, offer.release)),
        };
        let running = card.running();
        let config = InstallConfig { policy, running, partitions, total, check_only, reuse, only };
        if self.gate.is_none() && !check_only {
            // Whether the node is not alone: the new system is held to it.
            self.neighbour = false;
            self.probes = Probes::new(self.run_dir.clone(), &[NEIGHBOUR.into()]);
            if let Some(report) = self.probes.ask(poller, NEIGHBOUR) {
                self.report(report, now);
            }
        }
        if !check_only && self.is_confirmed() {
            self.tell(poller, now, FleetInput::Fetching(release, 0));
        }
        self.stick = None;
        self.job = Some(Job::new(Install::new(config), source, check_only, for_whom, now));
        Ok(())
    }

    /// Installs out of a file that the client passed; an answer at once only if that can't be begun.
    pub(super) fn offer_file(
        &mut self,
        poller: &Poller,
        client: ClientId,
        file: Option<File>,
        check_only: bool,
        now: Instant,
    ) -> Option<Response<UpdateResponse>> {
        let begun = file.ok_or_else(|| NO_FILE.to_owned()).and_then(|file| {
            let size = file.metadata().map_err(|e| e.to_string())?.len();
            // The kernel reads ahead, further than it would: only a hint.
            let _ = fadvise(&file, 0, None, Advice::Sequential);
            self.begin(poller, For::Client(client), Some(size), check_only, now, |_| Ok(Source::File(file)))
        });
        begun.err().map(Response::Error)
    }

    /// Begins to install what was announced, where that is wanted.
    pub(super) fn take_offer(&mut self, poller: &Poller, now: Instant) {
        if self.job.is_some() || self.share.is_some() || self.gate.is_some() {
            return;
        }
        if !self.is_confirmed() {
            return;
        }
        let Some(offer) = self.turns.as_ref().and_then(|turns| turns.wanted(now)).cloned() else { return };
        log::info!(
            "release {} is announced, signed by enough keys; it is fetched: {}",
            offer.release,
            offer.cid
        );
        let (run_dir, path) = (self.run_dir.clone(), offer.cid.clone());
        let source = |reuse: &mut bool| {
            *reuse = true;
            Ok(Source::Store(Box::new(Fetch::start(&run_dir, poller, STORE, path)?)))
        };
        if let Err(e) = self.begin(poller, For::Offer(offer.clone()), None, false, now, source) {
            log::warn!("release {} can't be fetched: {e}", offer.release);
            if let Some(turns) = &mut self.turns {
                turns.failed(now, &offer);
            }
        }
    }

    fn is_confirmed(&self) -> bool {
        self.card.as_ref().is_some_and(Card::confirmed)
    }

    /// Something is being installed, or on its way into the store.
    pub(super) const fn is_busy(&self) -> bool {
        self.job.is_some() || self.share.is_some()
    }

    /// Does a piece of the installation, or of what follows; true if there is more to do at once.
    pub(super) fn install(
        &mut self,
        poller: &Poller,
        server: &mut Server<UpdateRequest, UpdateResponse>,
        now: Instant,
    ) -> bool {
        let Some(card) = &mut self.card else { return false };
        if let Some(share) = &mut self.share {
            return match share.step(card.disk(), poller) {
                Ok(more) => more,
                Err(e) => {
                    self.shared(poller, server, Err(e), now);
                    true
                }
            };
        }
        let Some(job) = &mut self.job else { return false };
        match job.step(card.disk(), poller, server, now) {
            Step::Again => {
                self.tell_progress(poller, now);
                true
            }
            Step::Wait => false,
            // What follows begins without an event.
            Step::Over(result) => {
                self.over(poller, server, result);
                true
            }
        }
    }

    /// The others see how far an installation is, in steps of ten per cent.
    fn tell_progress(&mut self, poller: &Poller, now: Instant) {
        let Some(job) = self.job.as_ref().filter(|j| !j.check_only()) else { return };
        let (done, total) = job.install().progress();
        if job.install().stage() != Stage::Writing || total == 0 {
            return;
        }
        let percent = (done * 10 / total * 10).min(90) as u8;
        let release = job.install().header().release;
        if percent != self.told {
            self.told = percent;
            self.tell(poller, now, FleetInput::Fetching(release, percent));
        }
    }

    /// The installation ended: whoever began it is told.
    pub(super) fn over(
        &mut self,
        poller: &Poller,
        server: &mut Server<UpdateRequest, UpdateResponse>,
        result: Result<String, String>,
    ) {
        if let Some((Some(client), answer)) = self.ended(poller, result, clock::now()) {
            server.send(poller, client, &answer);
        }
    }

    /// Who is to be told what; `None` if that comes later.
    pub(super) fn ended(
        &mut self,
        poller: &Poller,
        result: Result<String, String>,
        now: Instant,
    ) -> Option<(Option<ClientId>, Response<UpdateResponse>)> {
        let job = self.job.take()?;
        self.card.as_mut()?.refresh();
        self.told = 0;
        let done = match result {
            Ok(done) if !job.check_only() => done,
            Ok(done) => {
                self.last = Some(done.clone());
                return Some((job.client(), Response::Service(UpdateResponse::Done(done))));
            }
            Err(e) => {
                log::warn!("the bundle is not installed: {e}");
                self.last = Some(format!("the last bundle was not installed: {e}"));
                self.not_installed(poller, &job, now);
                return Some((job.client(), Response::Error(e)));
            }
        };
        log::info!("{done}");
        self.last = Some(done.clone());
        let (version, release) = (job.install().header().version.clone(), job.install().header().release);
        let neighbour = self.neighbour;
        let trial = Trial {
            slot: job.install().target(),
            version: version.clone(),
            neighbour,
            waited_for: Vec::new(),
        };
        if let Err(e) = self.notes.keep_trial(&trial) {
            log::warn!("the note about the trial can't be kept: {e}");
        }
        let told = Told { client: job.client(), done };
        let (told, why) = match (&mut self.turns, job.install().rebuild()) {
            (Some(turns), Some(rebuild)) => {
                turns.set_have(release);
                let old = self.notes.offer().map(|offer| offer.cid);
                let place = (self.run_dir.as_path(), poller, SHARE);
                match Share::start(place, rebuild, (release, version), old, told) {
                    Ok(share) => {
                        self.share = Some(Box::new(share));
                        return None;
                    }
                    Err(e) => e,
                }
            }
            _ => (told, String::new()),
        };
        self.not_shared(&why);
        self.news = Some(FleetInput::Installed(release));
        Some((told.client, Response::Service(UpdateResponse::Done(told.done))))
    }

    /// What was announced was not to be had, or is not what it should be.
    fn not_installed(&mut self, poller: &Poller, job: &Job, now: Instant) {
        if !job.check_only() && self.is_confirmed() {
            // What was there before may be there still.
            let ready =
                self.card.as_ref().filter(|c| c.confirmed() && c.other_waits()).map(Card::other_release);
            self.tell(poller, now, ready.map_or(FleetInput::Paused, FleetInput::Installed));
        }
        let (Some(turns), Some(offer)) = (&mut self.turns, job.offer()) else { return };
        match job.refusal() {
            Some(Refusal::NotOffered { same, release }) => turns.refused(offer, same.then_some(*release)),
            Some(refusal) if !refusal.may_pass() => turns.refused(offer, None),
            _ => turns.failed(now, offer),
        }
    }

    fn not_shared(&mut self, why: &str) {
        if !why.is_empty() {
            log::warn!("the new system's bundle is not kept for other nodes: {why}");
        }
    }

    /// The new system is in the store, or can't be: this node's turn may come.
    pub(super) fn shared(
        &mut self,
        poller: &Poller,
        server: &mut Server<UpdateRequest, UpdateResponse>,
        result: Result<String, String>,
        now: Instant,
    ) {
        let Some(mut share) = self.share.take() else { return };
        if let Some(card) = &mut self.card {
            card.refresh();
        }
        match result.map(|cid| (share.offer(&self.policy, &cid), cid)) {
            Ok((Some(offer), cid)) => {
                log::info!("its bundle is kept in the store for other nodes: {cid}");
                if let Err(e) = self.notes.keep_offer(&offer) {
                    log::warn!("the note about the bundle can't be kept: {e}");
                }
                if let Some(turns) = &mut self.turns {
                    turns.keep(poller, Some(offer));
                }
            }
            Ok((None, _)) => self.not_shared("it has more signatures than an announcement holds"),
            Err(e) => self.not_shared(&e),
        }
        self.tell(poller, now, FleetInput::Installed(share.release()));
        let told = share.told();
        if let Some(client) = told.client {
            let done = std::mem::take(&mut told.done);
            server.send(poller, client, &Response::Service(UpdateResponse::Done(done)));
        }
    }

    /// A client left; what it was sending ends here.
    pub(super) fn gone(&mut self, poller: &Poller, client: ClientId) {
        if let Some(share) = &mut self.share
            && share.told().client == Some(client)
        {
            share.told().client = None;
        }
        if self.job.as_mut().is_some_and(|job| job.gone(client)) {
            let _ = self.ended(poller, Err(LEFT.into()), clock::now());
        }
    }

    /// How far that is.
    pub(super) fn installing(&self) -> Option<Progress> {
        let Some(share) = &self.share else { return self.job.as_ref().map(Job::progress) };
        let (done, total) = share.progress();
        let slot = self.card.as_ref().map(|c| c.running().other().to_string()).unwrap_or_default();
        let (version, stage) = (share.version().to_owned(), "adding it to the store".to_owned());
        Some(Progress { version, slot, stage, done, total })
    }
}

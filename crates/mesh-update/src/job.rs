//! An installation under way: where the bundle's bytes come from, and who is told.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use mesh_ipc::Response;
use mesh_ipc::update::{Progress, UpdateRequest, UpdateResponse};
use mesh_sys::control::{ClientId, Server};
use mesh_sys::poll::Poller;
use mesh_types::{Duration, Instant};
use update_core::{Install, InstallError, Next, Offer, Refusal, Stage};

use crate::disk::Disk;
use crate::fetch::Fetch;

/// Pause between two reports to whoever looks on.
const REPORT: Duration = Duration::from_millis(200);

/// Why an installation ends with its client.
pub(crate) const LEFT: &str =
    "whoever sent the bundle left before its end; the installation goes on there when it is applied again";

/// Where the bytes come from.
pub(crate) enum Source {
    /// The client sends what it is asked for.
    Client,
    /// The client passed the file.
    File(File),
    /// The store of this node, by CID.
    Store(Box<Fetch>),
}

/// Who wants it.
pub(crate) enum For {
    /// A client that looks on.
    Client(ClientId),
    /// Nobody here: it was announced.
    Offer(Offer),
}

/// What a step came to.
pub(crate) enum Step {
    /// There is more to do at once.
    Again,
    /// Bytes have to arrive first.
    Wait,
    /// It is over, well or not: the words for whoever looks on.
    Over(Result<String, String>),
}

/// See the module's text.
pub(crate) struct Job {
    install: Install,
    source: Source,
    check_only: bool,
    /// Who began it, while there.
    client: Option<ClientId>,
    /// The client was asked for bytes.
    asked: bool,
    /// What was read of a file.
    piece: Vec<u8>,
    next_report: Instant,
    /// What was announced, where nobody here asked for it.
    offer: Option<Offer>,
    /// Why it is not installed, where the bundle is to blame.
    refusal: Option<Refusal>,
}

impl Job {
    pub(crate) fn new(
        install: Install,
        source: Source,
        check_only: bool,
        for_whom: For,
        now: Instant,
    ) -> Self {
        let (client, offer) = match for_whom {
            For::Client(client) => (Some(client), None),
            For::Offer(offer) => (None, Some(offer)),
        };
        Self {
            install,
            source,
            check_only,
            client,
            asked: false,
            piece: Vec::new(),
            next_report: now,
            offer,
            refusal: None,
        }
    }

    /// What was announced, where nobody here asked for it.
    pub(crate) const fn offer(&self) -> Option<&Offer> {
        self.offer.as_ref()
    }

    /// Why it ended, where the bundle is to blame.
    pub(crate) const fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    pub(crate) const fn install(&self) -> &Install {
        &self.install
    }

    pub(crate) const fn check_only(&self) -> bool {
        self.check_only
    }

    pub(crate) const fn client(&self) -> Option<ClientId> {
        self.client
    }

    /// The client is gone; true if that ends the installation.
    pub(crate) fn gone(&mut self, client: ClientId) -> bool {
        if self.client != Some(client) {
            return false;
        }
        self.client = None;
        matches!(self.source, Source::Client | Source::File(_))
    }

    /// Takes what the store says; an error ends the installation.
    pub(crate) fn handle(&mut self, poller: &Poller, event: mesh_sys::poll::Event) -> Result<(), String> {
        let Source::Store(fetch) = &mut self.source else { return Ok(()) };
        fetch.handle(poller, event)?;
        if let Some(size) = fetch.size() {
            self.install.set_total(size);
        }
        Ok(())
    }

    /// Takes bytes that the client sent.
    pub(crate) fn data(&mut self, disk: &mut Disk, client: ClientId, bytes: &[u8]) -> Step {
        if self.client != Some(client) || !self.asked {
            return Step::Over(Err("bytes came that were not asked for".into()));
        }
        self.asked = false;
        let result = self.install.feed(disk, bytes);
        self.went(result)
    }

    fn went(&mut self, result: Result<(), InstallError<std::io::Error>>) -> Step {
        let Err(e) = result else { return Step::Again };
        let text = e.to_string();
        if let InstallError::Refused(refusal) = e {
            self.refusal = Some(refusal);
        }
        Step::Over(Err(text))
    }

    /// Does the next piece: at most some 128 KiB are read or written.
    pub(crate) fn step(
        &mut self,
        disk: &mut Disk,
        poller: &Poller,
        server: &mut Server<UpdateRequest, UpdateResponse>,
        now: Instant,
    ) -> Step {
        if let Some(client) = self.client
            && now >= self.next_report
        {
            self.next_report = now + REPORT;
            let report = Response::Service(UpdateResponse::Progress(self.progress()));
            if !server.send(poller, client, &report) && self.gone(client) {
                return Step::Over(Err(LEFT.into()));
            }
        }
        let result = match self.install.next() {
            Next::Done => return Step::Over(Ok(self.done())),
            Next::Work => self.install.work(disk),
            Next::Want { offset, len } => match &mut self.source {
                Source::Client => {
                    if let Some(client) = self.client.filter(|_| !self.asked) {
                        self.asked = true;
                        let want = UpdateResponse::Want { offset, len: len as u32 };
                        if !server.send(poller, client, &Response::Service(want)) {
                            return Step::Over(Err(LEFT.into()));
                        }
                    }
                    return Step::Wait;
                }
                Source::File(file) => {
                    self.piece.resize(len, 0);
                    match read_at(file, &mut self.piece, offset) {
                        Ok(n) => self.install.feed(disk, self.piece.get(..n).unwrap_or_default()),
                        Err(e) => return Step::Over(Err(format!("the bundle can't be read: {e}"))),
                    }
                }
                Source::Store(fetch) => {
                    let wants = |from, max| self.install.wants(from, max);
                    if let Err(e) = fetch.ask(poller, (offset, len), wants) {
                        return Step::Over(Err(e));
                    }
                    match fetch.get(offset, len) {
                        Some(bytes) => self.install.feed(disk, bytes),
                        None => return Step::Wait,
                    }
                }
            },
        };
        self.went(result)
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> Progress {
        let (done, total) = self.install.progress();
        let stage = match self.install.stage() {
            Stage::Checking => "checking",
            Stage::Resuming => "looking at the slot",
            Stage::Writing if self.check_only => "checking",
            Stage::Writing => "writing",
            Stage::Verifying => "reading back",
            Stage::Done => "done",
        };
        Progress {
            version: self.install.header().version.clone(),
            slot: self.install.target().to_string(),
            stage: stage.into(),
            done,
            total,
        }
    }

    fn done(&self) -> String {
        let header = self.install.header();
        let what = format!("version {} (release {})", header.version, header.release);
        if self.check_only {
            return format!("{what} is good, and this node would install it; nothing was changed");
        }
        let slot = self.install.target();
        let reused = match self.install.reused() {
            0 => String::new(),
            n => format!("; {n} bytes came from the running slot"),
        };
        format!(
            "{what} is in slot {slot} and starts with the next boot; restart the node when it suits (reboot). It has three \
             tries to prove good, else the node comes back to slot {}{reused}",
            slot.other()
        )
    }
}

/// Fills `piece` from `offset` on, as far as the file goes.
pub(crate) fn read_at(file: &File, piece: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = piece.get_mut(done..).filter(|r| !r.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

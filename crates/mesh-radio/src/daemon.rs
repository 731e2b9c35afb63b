//! A program that serves on an interface for as long as it is wanted: started with its configuration, listened to,
//! ended, and started again with pauses when it fails.

use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use mesh_sys::poll::Poller;
use mesh_sys::process::{self, Child, Spec};
use mesh_sys::{clock, file};
use mesh_types::Instant;
use radio_core::{Keeper, KeeperInput, KeeperOutput};

/// A longer line is cut.
const MAX_LINE: usize = 1024;

/// Failures in a row.
const HOPELESS: u32 = 3;

/// What a line that the program printed means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It does what it is for, from now on.
    Serves,
    /// Nothing of interest here; it may be the reason of a failure.
    Other,
}

/// Which program, what for, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// Found in the usual folders.
    pub(crate) program: &'static str,
    /// For people, at the start of a sentence.
    pub(crate) what: String,
    /// Before the name of the configuration file.
    pub(crate) arguments: Vec<OsString>,
    /// What is in that file.
    pub(crate) configuration: String,
    /// Its control socket, where it can be asked whether it works.
    pub(crate) control: Option<PathBuf>,
}

/// The program, kept running while there is a [`Job`].
#[derive(Debug)]
pub(crate) struct Daemon {
    config_file: PathBuf,
    /// Poller tokens: its end, its output.
    tokens: [u64; 2],
    keeper: Keeper,
    job: Option<Job>,
    process: Option<Child>,
    /// The beginning of a line.
    heard: Vec<u8>,
    /// The first line that sounds like a reason.
    complaint: Option<String>,
    /// Why it does not serve, for people.
    problem: Option<String>,
    /// When it was last to begin.
    since: Instant,
    /// To its control socket.
    questions: Option<UnixDatagram>,
}

impl Daemon {
    pub(crate) fn new(config_file: PathBuf, tokens: [u64; 2]) -> Self {
        Self {
            config_file,
            tokens,
            keeper: Keeper::default(),
            job: None,
            process: None,
            heard: Vec::new(),
            complaint: None,
            problem: None,
            since: clock::now(),
            questions: None,
        }
    }

    pub(crate) const fn serves(&self) -> bool {
        self.keeper.serves()
    }

    /// It failed so often in a row that the fault may be its radio's.
    pub(crate) const fn is_hopeless(&self) -> bool {
        self.keeper.failures() >= HOPELESS
    }

    pub(crate) const fn restarts(&self) -> u64 {
        self.keeper.restarts()
    }

    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    pub(crate) const fn tokens(&self) -> [u64; 2] {
        self.tokens
    }

    /// When it was last to begin.
    pub(crate) const fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.keeper.poll_timeout()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, poller: &Poller) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        if self.questions.as_ref().is_some_and(has_answered) {
            self.keeper.handle_input(now, KeeperInput::Answered);
        }
        self.keeper.handle_timeout(now);
        self.drain(now, poller);
    }

    /// Does that job from now on, from its start; `None`: none.
    pub(crate) fn set_job(&mut self, now: Instant, poller: &Poller, job: Option<Job>) {
        self.job = job;
        self.problem = None;
        self.since = now;
        let input = if self.job.is_some() { KeeperInput::Wanted } else { KeeperInput::Unwanted };
        self.keeper.handle_input(now, input);
        self.drain(now, poller);
    }

    fn drain(&mut self, now: Instant, poller: &Poller) {
        // Bounded: a start that fails is followed by a pause.
        while let Some(output) = self.keeper.poll_output() {
            match output {
                KeeperOutput::Start => {
                    if let Err(e) = self.start(poller) {
                        let job = self.job.as_ref();
                        let (what, program) = job.map_or(("", ""), |j| (j.what.as_str(), j.program));
                        self.complain(format!("{what} can't be started: {program}: {e}"));
                        self.process = None;
                        self.keeper.handle_input(now, KeeperInput::Ended);
                    }
                }
                KeeperOutput::Ask => {
                    if !self.ask() {
                        self.keeper.handle_input(now, KeeperInput::Answered);
                    }
                }
                KeeperOutput::Terminate => self.process.iter().for_each(Child::terminate),
                KeeperOutput::Kill => {
                    let why =
                        if self.serves() { "does not answer" } else { "does not do what it is told to" };
                    log::warn!("{}: its program {why}; it is killed", self.file_name());
                    self.complaint = Some(format!("it {why}"));
                    self.process.iter().for_each(Child::kill);
                }
            }
        }
    }

    /// Asks it whether it works; false: it can't be asked.
    fn ask(&mut self) -> bool {
        if self.questions.is_none()
            && let Some(control) = self.job.as_ref().and_then(|j| j.control.as_ref())
        {
            let opened = question_socket(&self.answers(), control);
            self.questions = opened.inspect_err(|e| log::debug!("{}: {e}", control.display())).ok();
        }
        let Some(questions) = &self.questions else { return false };
        // One that hangs takes no more when its queue is full.
        match questions.send(b"PING") {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => {
                self.questions = None;
                false
            }
            _ => true,
        }
    }

    /// The folder that its control socket is to be in.
    pub(crate) fn sockets(&self) -> PathBuf {
        self.config_file.with_extension("sockets")
    }

    /// Where its answers come in.
    fn answers(&self) -> PathBuf {
        self.config_file.with_extension("answers")
    }

    fn file_name(&self) -> std::borrow::Cow<'_, str> {
        self.config_file.file_name().unwrap_or_default().to_string_lossy()
    }

    fn start(&mut self, poller: &Poller) -> io::Result<()> {
        let job = self.job.as_ref().ok_or(io::ErrorKind::NotFound)?;
        // Another's umask or an old file decides nothing: it holds the password.
        file::write_atomic(&self.config_file, job.configuration.as_bytes(), 0o600)?;
        (self.complaint, self.heard, self.questions) = (None, Vec::new(), None);
        let mut args = job.arguments.clone();
        args.push(self.config_file.clone().into_os_string());
        let child = Child::spawn(&Spec { program: job.program.into(), args, ..Spec::default() })?;
        let [end, output] = self.tokens;
        poller.add(&child, end, false)?;
        poller.add(child.output(), output, false)?;
        self.process = Some(child);
        Ok(())
    }

    /// It printed something, or ended: `line` is told every line, and says what it means. True if it ended by itself
    /// before it served.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        poller: &Poller,
        mut line: impl FnMut(&str) -> Meaning,
    ) -> bool {
        let Some(child) = &mut self.process else { return false };
        let mut bytes = Vec::new();
        if !child.read_output(&mut bytes).unwrap_or(false) {
            let _ = poller.remove(child.output()); // it would only report its end for ever
        }
        let ending = child.try_wait();
        self.heard.append(&mut bytes);
        while let Some(end) = self.heard.iter().position(|b| *b == b'\n') {
            let whole: Vec<u8> = self.heard.drain(..=end).collect();
            let text = String::from_utf8_lossy(whole.trim_ascii_end());
            let program = self.job.as_ref().map_or("", |j| j.program);
            log::debug!("{program}: {text}");
            if self.job.is_some() && line(&text) == Meaning::Serves {
                self.keeper.handle_input(now, KeeperInput::Serves);
                self.problem = None;
            } else if self.complaint.is_none() && sounds_like_a_reason(&text) {
                self.complaint = Some(text.into_owned());
            }
        }
        self.heard.truncate(MAX_LINE);
        match ending {
            Ok(None) => {}
            Ok(Some(how)) => return self.ended(now, poller, how),
            Err(e) => log::warn!("waiting for {}'s program: {e}", self.file_name()),
        }
        false
    }

    fn ended(&mut self, now: Instant, poller: &Poller, how: process::Ending) -> bool {
        // To do another job, or none.
        let told = self.keeper.is_ending();
        let unserved = !self.serves();
        self.process = None;
        if let Some(job) = self.job.as_ref().filter(|_| !told) {
            let why = self.complaint.take().map_or_else(String::new, |c| format!(": {c}"));
            self.complain(format!("{} is off: {} {how}{why}; it is started again", job.what, job.program));
        }
        self.keeper.handle_input(now, KeeperInput::Ended);
        self.drain(now, poller);
        unserved && !told && self.job.is_some()
    }

    fn complain(&mut self, text: String) {
        if self.problem.as_ref() != Some(&text) {
            log::warn!("{text}");
        }
        self.problem = Some(text);
        self.since = clock::now();
    }

    /// Ends it and waits for that.
    pub(crate) fn end(&mut self) {
        self.job = None;
        if let Some(mut child) = self.process.take() {
            match process::end_and_wait(child.pid(), std::time::Duration::from_secs(2)) {
                Ok(true) => {}
                _ => child.kill(),
            }
            let _ = child.try_wait();
        }
        let _ = std::fs::remove_file(&self.config_file);
        if self.questions.take().is_some() {
            let _ = std::fs::remove_file(self.answers());
        }
    }
}

/// A socket that hears only who has the control socket.
fn question_socket(answers: &Path, control: &Path) -> io::Result<UnixDatagram> {
    if let Err(e) = std::fs::remove_file(answers)
        && e.kind() != io::ErrorKind::NotFound
    {
        return Err(e);
    }
    let socket = UnixDatagram::bind(answers)?;
    socket.set_nonblocking(true)?;
    socket.connect(control)?;
    Ok(socket)
}

/// Whether any answer has come; all that have are taken.
fn has_answered(questions: &UnixDatagram) -> bool {
    let mut buffer = [0; 16];
    // Bounded: the queue holds about ten.
    std::iter::from_fn(|| questions.recv(&mut buffer).ok()).take(64).count() > 0
}

/// Such programs say much; the first complaint is mostly the cause of the others. Without a device for the radio's
/// switch they work as well.
fn sounds_like_a_reason(line: &str) -> bool {
    let words = ["rror", "ailed", "ould not", "not allowed", "not found", "nable to", "nvalid", "denied"];
    !line.starts_with("rfkill") && words.iter().any(|w| line.contains(w))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_types::Duration;

    /// A shell that does what the configuration says.
    fn job(script: &str) -> Job {
        let what = "the test".into();
        Job {
            program: "sh",
            what,
            arguments: Vec::new(),
            configuration: format!("{script}\n"),
            control: None,
        }
    }

    /// Listens until `enough`; how often it ended before it served.
    fn hear_until(daemon: &mut Daemon, poller: &Poller, enough: impl Fn(&Daemon) -> bool) -> u32 {
        let (mut events, mut failures) = (Vec::new(), 0);
        let deadline = clock::now() + Duration::from_secs(20);
        while !enough(daemon) {
            assert!(clock::now() < deadline, "{daemon:?}");
            let next = daemon.poll_timeout().map_or(deadline, |t| t.min(deadline));
            poller.wait(Some(next), &mut events).unwrap();
            let now = clock::now();
            for _ in events.drain(..) {
                let says = |l: &str| if l.starts_with("serving") { Meaning::Serves } else { Meaning::Other };
                failures += u32::from(daemon.hear(now, poller, says));
            }
            daemon.handle_timeout(now, poller);
        }
        failures
    }

    #[test]
    fn another_job_is_no_failure_and_an_early_end_is_one() {
        let folder = std::env::temp_dir().join(format!("mesh-radio-daemon-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let poller = Poller::new().unwrap();
        let mut daemon = Daemon::new(folder.join("job.conf"), [1, 2]);
        daemon.set_job(clock::now(), &poller, Some(job("echo serving; exec sleep 60")));
        assert_eq!(hear_until(&mut daemon, &poller, Daemon::serves), 0);
        let first = daemon.process.as_ref().map(Child::pid);
        daemon.set_job(clock::now(), &poller, Some(job("echo serving; exec sleep 61")));
        let other = |d: &Daemon| d.serves() && d.process.as_ref().map(Child::pid) != first;
        assert_eq!(hear_until(&mut daemon, &poller, other), 0);
        assert_eq!((daemon.problem(), daemon.restarts()), (None, 0));
        daemon.set_job(clock::now(), &poller, Some(job("echo it has failed")));
        assert_eq!(hear_until(&mut daemon, &poller, |d| d.restarts() > 0), 1);
        assert!(daemon.problem().is_some_and(|p| p.contains("it has failed")), "{:?}", daemon.problem());
        daemon.end();
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_first_complaint_is_the_reason() {
        assert!(sounds_like_a_reason(
            "ap0: IEEE 802.11 Configured channel (14) not found from the channel list"
        ));
        assert!(sounds_like_a_reason("nl80211: Could not configure driver mode"));
        assert!(!sounds_like_a_reason("rfkill: Cannot open RFKILL control device (not found)"));
        assert!(!sounds_like_a_reason("ap0: interface state UNINITIALIZED->ENABLED"));
    }
}

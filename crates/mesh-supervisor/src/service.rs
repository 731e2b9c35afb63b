//! One service as the driver holds it: its process, its log, its control socket.

use std::path::{Path, PathBuf};

use mesh_ipc::supervisor::{SupervisorRequest, SupervisorResponse};
use mesh_ipc::{Request, Response};
use mesh_sys::cgroup::{self, Cgroup};
use mesh_sys::control::Watcher;
use mesh_sys::poll::{Event, Poller};
use mesh_sys::process::{self, Child, Ending, Spec};
use mesh_types::Instant;

use crate::accounts;
use crate::options::Options;
use crate::ring::Ring;
use crate::table::Entry;

/// Tokens of one service: its end, its output, its control socket.
pub(crate) const TOKENS: u64 = 3;
/// The counter of mesh-update's status.
const TRIAL: &str = "trial";
/// Programs without a path are searched here.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Any service answers `Status` in the same words.
type Question = Watcher<SupervisorRequest, SupervisorResponse>;

/// What came after a question.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is well, but for these problems. mesh-update tells whether a new system is on trial.
    Status(Vec<String>, Option<bool>),
    /// It closed its socket.
    HungUp,
}

/// A service's process and what belongs to it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) entry: Entry,
    pub(crate) log: Ring,
    /// When its log's end was last kept.
    pub(crate) kept: Option<Instant>,
    first_token: u64,
    child: Option<Child>,
    question: Option<Question>,
    cgroup: Option<Cgroup>,
    /// It was not tried yet.
    wants_cgroup: bool,
    oom_kills: u64,
}

impl Running {
    pub(crate) fn new(entry: Entry, options: &Options, first_token: u64) -> Self {
        let log = Ring::open(&options.log_dir(), &entry.name).unwrap_or_else(|e| {
            log::warn!("{}: its log can't be kept: {e}", entry.name);
            Ring::nowhere()
        });
        Self {
            entry,
            log,
            kept: None,
            first_token,
            child: None,
            question: None,
            cgroup: None,
            wants_cgroup: options.system,
            oom_kills: 0,
        }
    }

    /// Its control group, made when it is first started: making one takes the kernel a while.
    fn make_cgroup(&mut self) {
        if !std::mem::take(&mut self.wants_cgroup) {
            return;
        }
        let entry = &self.entry;
        match Cgroup::create(Path::new(cgroup::ROOT), "p2pmesh", &entry.name, entry.memory, entry.processes) {
            Ok(group) => {
                let _ = group.kill(); // what a supervisor that died has left behind
                self.cgroup = Some(group);
            }
            Err(e) => log::warn!("{}: no control group ({e}); a resource limit instead", entry.name),
        }
    }

    /// Its process number, 0 when it does not run.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::pid)
    }

    /// Starts it; the error is for people.
    pub(crate) fn spawn(&mut self, options: &Options, poller: &Poller) -> Result<(), String> {
        let credentials = match &self.entry.user {
            Some(user) if process::is_root() => Some(accounts::lookup(&options.etc, user)?),
            _ => None,
        };
        let mut words = self.entry.exec.iter();
        let program = find_program(words.next().map_or("", String::as_str), &options.program_dir)?;
        let mut args: Vec<_> = words.map(Into::into).collect();
        if self.entry.answers {
            for (flag, path) in [
                ("--config", &options.config),
                ("--state-dir", &options.state_dir),
                ("--run-dir", &options.run_dir),
            ] {
                args.push(flag.into());
                args.push(path.into());
            }
        }
        self.make_cgroup();
        let join = self.cgroup.as_ref().and_then(|g| g.join_file().ok());
        let spec = Spec {
            program,
            args,
            env: std::env::var_os("P2PMESH_LOG").map(|v| ("P2PMESH_LOG".into(), v)).into_iter().collect(),
            credentials,
            capabilities: self.entry.capabilities.clone(),
            may_gain_privileges: self.entry.may_gain_privileges,
            data_limit: join.is_none().then_some(self.entry.memory),
            cgroup: join.as_ref(),
        };
        let child = Child::spawn(&spec).map_err(|e| format!("{}: {e}", spec.program.display()))?;
        let added = poller
            .add(&child, self.first_token, false)
            .and_then(|()| poller.add(child.output(), self.first_token + 1, false));
        if let Err(e) = added {
            child.kill();
            return Err(format!("can't be watched: {e}"));
        }
        self.oom_kills = self.cgroup.as_ref().map_or(0, Cgroup::oom_kills);
        self.child = Some(child);
        Ok(())
    }

    pub(crate) fn terminate(&self) {
        if let Some(child) = &self.child {
            child.terminate();
        }
    }

    pub(crate) fn kill(&self) {
        if let Some(child) = &self.child {
            child.kill();
        }
        if let Some(group) = &self.cgroup {
            let _ = group.kill();
        }
    }

    /// Takes what it printed.
    pub(crate) fn take_output(&mut self, now: Instant, poller: &Poller) {
        let Some(child) = &mut self.child else { return };
        let mut bytes = Vec::new();
        let open = child.read_output(&mut bytes).unwrap_or(false);
        self.log.push(now, &bytes);
        if !open {
            // Closed and still running: nothing more to read, and the poller would report it for ever.
            let _ = poller.remove(child.output());
        }
    }

    /// How it ended, for people, if it has; then nothing of it is left.
    pub(crate) fn take_ending(&mut self, now: Instant, poller: &Poller) -> Option<String> {
        let child = self.child.as_mut()?;
        let ending = match child.try_wait() {
            Ok(None) => return None,
            Ok(Some(ending)) => ending,
            Err(_) => Ending::Code(-1),
        };
        self.take_output(now, poller);
        // Whatever it started and left behind would keep its sockets and addresses.
        self.kill();
        self.child = None;
        self.question = None;
        let killed_for_memory = self.cgroup.as_ref().is_some_and(|g| g.oom_kills() > self.oom_kills)
            && ending == Ending::Signal(9);
        let how = if killed_for_memory {
            format!("was killed: it needed more than its {} MiB of memory", self.entry.memory >> 20)
        } else {
            ending.to_string()
        };
        self.log.note(now, &format!("supervisor: {} {how}", self.entry.name));
        Some(how)
    }

    /// Asks it how it is; `false` if it can't be reached.
    pub(crate) fn probe(&mut self, options: &Options, poller: &Poller) -> bool {
        let token = self.first_token + 2;
        if self.question.is_none() {
            self.question = Question::connect(&options.run_dir, &self.entry.name, poller, token).ok();
        }
        let sent = self.question.as_mut().is_some_and(|q| q.send(poller, &Request::Status).is_ok());
        if !sent {
            self.question = None;
        }
        sent
    }

    /// Reads its answer, if it is there.
    pub(crate) fn take_answer(&mut self, poller: &Poller, event: Event) -> Option<Answer> {
        match self.question.as_mut()?.handle(poller, event) {
            Ok(answers) => answers.into_iter().find_map(|a| match a {
                Response::Status(status) => {
                    let trial = status.counters.iter().find(|(name, _)| name == TRIAL);
                    Some(Answer::Status(status.problems, trial.map(|(_, n)| *n > 0)))
                }
                _ => None,
            }),
            Err(_) => {
                self.question = None;
                Some(Answer::HungUp)
            }
        }
    }

    /// Forgets a question that was not answered in time; its answer would be taken for a later one's.
    pub(crate) fn drop_question(&mut self) {
        self.question = None;
    }
}

pub(crate) fn find_program(name: &str, first: &Option<PathBuf>) -> Result<PathBuf, String> {
    if name.contains('/') {
        return Ok(name.into());
    }
    let folders = first.iter().map(PathBuf::as_path).chain(FOLDERS.iter().map(Path::new));
    folders
        .map(|f| f.join(name))
        .find(|p| p.is_file())
        .ok_or_else(|| format!("there is no program {name:?} in {}", FOLDERS.join(", ")))
}

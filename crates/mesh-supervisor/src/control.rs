//! Answers on the supervisor's control socket.

use mesh_ipc::supervisor::{Service, ServiceState, SupervisorRequest, SupervisorResponse};
use mesh_ipc::{Request, Response, ServiceStatus};
use mesh_sys::process::{self, Machine};
use mesh_types::Instant;

use crate::core::{Input, State};
use crate::ring;
use crate::run::{Driver, NAME};

/// At most that many lines and bytes of log a question.
const MAX_LINES: usize = 2_000;
const MAX_LOG_BYTES: u64 = 128 * 1024;

impl Driver {
    /// What to say to `request`.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        request: Request<SupervisorRequest>,
    ) -> Response<SupervisorResponse> {
        let answer = match request {
            Request::Status => return Response::Status(self.status(now)),
            Request::Service(SupervisorRequest::Services) => Ok(SupervisorResponse::Services(self.list())),
            Request::Service(SupervisorRequest::Restart(name)) => self.restart(now, &name),
            Request::Service(SupervisorRequest::Log { service, lines }) => self.log(&service, lines),
            Request::Service(SupervisorRequest::Reboot) => self.machine(Machine::Reboot),
            Request::Service(SupervisorRequest::PowerOff) => self.machine(Machine::PowerOff),
        };
        answer.map_or_else(Response::Error, Response::Service)
    }

    fn status(&self, now: Instant) -> ServiceStatus {
        let all = self.core.services();
        let mut problems = self.problems.clone();
        problems.extend((0..all.len()).filter(|&i| self.is_problem(i)).map(|i| self.complaint(i)));
        let ready = all.iter().filter(|s| matches!(s.state, State::Ready { .. })).count();
        let restarts: u64 = all.iter().map(|s| u64::from(s.restarts)).sum();
        ServiceStatus {
            service: NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: now.saturating_since(self.started).as_millis(),
            problems,
            counters: vec![
                ("services".into(), all.iter().filter(|s| s.member.wanted).count() as u64),
                ("ready".into(), ready as u64),
                ("restarts".into(), restarts),
                ("rss_kib".into(), process::rss_kib(std::process::id())),
            ],
        }
    }

    /// A service that is wanted, has failed and has not recovered.
    fn is_problem(&self, i: usize) -> bool {
        self.core.services().get(i).is_some_and(|s| {
            s.member.wanted && s.failures > 0 && !matches!(s.state, State::Ready { .. } | State::Stopped)
        })
    }

    /// What is the matter with a service, for people.
    pub(crate) fn complaint(&self, i: usize) -> String {
        let Some(s) = self.core.services().get(i) else { return String::new() };
        let name = &s.member.name;
        match (s.failures, s.state) {
            (0, _) => format!("{name} does not answer yet"),
            (1, _) => format!("{name} {}; it is started again", s.last_exit),
            (n, _) => format!(
                "{name} has failed {n} times in a row (last: it {}); see meshctl logs {name}",
                s.last_exit
            ),
        }
    }

    fn list(&self) -> Vec<Service> {
        let both = self.core.services().iter().zip(&self.services);
        both.map(|(seen, held)| Service {
            name: seen.member.name.clone(),
            state: match seen.state {
                State::Waiting => ServiceState::Waiting,
                State::Starting { .. } => ServiceState::Starting,
                State::Ready { .. } => ServiceState::Ready,
                State::BackOff { .. } => ServiceState::BackOff,
                State::Ending { .. } | State::Stopped => ServiceState::Stopped,
            },
            pid: held.pid(),
            rss_kib: match held.pid() {
                0 => 0,
                pid => process::rss_kib(pid),
            },
            restarts: seen.restarts,
            last_exit: seen.last_exit.clone(),
        })
        .collect()
    }

    fn find(&self, name: &str) -> Result<usize, String> {
        let names = || self.services.iter().map(|s| s.entry.name.as_str());
        names().position(|n| n == name).ok_or_else(|| {
            format!("there is no service {name:?}; there are {}", names().collect::<Vec<_>>().join(", "))
        })
    }

    fn restart(&mut self, now: Instant, name: &str) -> Result<SupervisorResponse, String> {
        let i = self.find(name)?;
        log::info!("{name}: is restarted on request");
        self.core.handle_input(now, Input::Restart(i));
        Ok(SupervisorResponse::Done)
    }

    fn log(&self, name: &str, lines: u32) -> Result<SupervisorResponse, String> {
        let dir = self.options.log_dir();
        let lines = usize::try_from(lines).unwrap_or(MAX_LINES).min(MAX_LINES);
        if name == NAME {
            return Ok(SupervisorResponse::Log(ring::tail(&dir, NAME, lines, MAX_LOG_BYTES)));
        }
        if !name.is_empty() {
            self.find(name)?;
            return Ok(SupervisorResponse::Log(ring::tail(&dir, name, lines, MAX_LOG_BYTES)));
        }
        let names = self.services.iter().map(|s| s.entry.name.as_str()).chain([NAME]);
        let mut all: Vec<String> = names
            .flat_map(|n| ring::tail(&dir, n, lines, MAX_LOG_BYTES / 4).into_iter().map(move |l| (n, l)))
            .map(|(n, line)| match line.split_once("] ") {
                Some((time, rest)) => format!("{time}] {n}: {rest}"),
                None => line,
            })
            .collect();
        // Stamps have a fixed width, so that text order is time order.
        all.sort();
        let skip = all.len().saturating_sub(lines);
        Ok(SupervisorResponse::Log(all.split_off(skip)))
    }

    fn machine(&self, what: Machine) -> Result<SupervisorResponse, String> {
        if !self.options.system {
            return Err("this supervisor does not run a node; the machine is left alone".into());
        }
        process::ask_init(what).map_err(|e| format!("init can't be told: {e}"))?;
        Ok(SupervisorResponse::Done)
    }
}

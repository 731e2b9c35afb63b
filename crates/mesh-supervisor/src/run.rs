//! `mesh-supervisor run`: the core's driver.

use std::fs;
use std::path::Path;

use mesh_ipc::supervisor::{SupervisorRequest, SupervisorResponse};
use mesh_sys::control::{self, Server, ServerEvent};
use mesh_sys::poll::{Event, Poller};
use mesh_sys::process::{self, Machine};
use mesh_sys::signal::{Signal, Signals};
use mesh_sys::watchdog::Watchdog;
use mesh_sys::{clock, file};
use mesh_types::{Duration, Instant};
use update_core::{Slot, TRIAL_NOTE, TrialLine};

use crate::board::{self, Light};
use crate::complaints::Complaints;
use crate::console::Console;
use crate::core::{Input, Member, Output, Policy, Supervisor};
use crate::hotplug::Hotplug;
use crate::options::Options;
use crate::service::{Answer, Running, TOKENS};
use crate::sticks::Sticks;
use crate::{accounts, kept, problems, ready, setup, table};

const SIGNALS: u64 = 0;
const HOTPLUG: u64 = 1;
const STICKS: u64 = 3;
const FIRST_SERVICE: u64 = 16;
const CONTROL: u64 = 1 << 32;
/// The end of a service's log is kept at most that often, to spare the card.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// Devices are looked at when the node is ready, or that long after the start.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// The name of the supervisor's own socket and log.
pub(crate) const NAME: &str = "mesh-supervisor";

type Control = Server<SupervisorRequest, SupervisorResponse>;

/// Everything the loop holds.
pub(crate) struct Driver {
    pub(crate) options: Options,
    pub(crate) core: Supervisor,
    pub(crate) services: Vec<Running>,
    /// Of the set-up and the table; those of services follow from their states.
    pub(crate) problems: Vec<String>,
    pub(crate) started: Instant,
    poller: Poller,
    signals: Signals,
    control: Option<Control>,
    hotplug: Option<Hotplug>,
    sticks: Option<Sticks>,
    /// When the devices that are there are looked at.
    look_at: Option<Instant>,
    dog: Option<Watchdog>,
    console: Console,
    complaints: Complaints,
    ended: bool,
}

/// Runs until it is told to end and every service has.
pub(crate) fn run(options: Options) -> Result<(), String> {
    log::info!("supervision starts");
    let mut driver = Driver::new(options)?;
    // The first service is on its way before the board is looked at.
    driver.work();
    driver.take_board();
    let mut events = Vec::new();
    loop {
        driver.work();
        if driver.ended {
            break;
        }
        let deadline = driver.core.poll_timeout().into_iter().chain(driver.look_at).min();
        driver.poller.wait(deadline, &mut events).map_err(|e| format!("epoll: {e}"))?;
        let now = clock::now();
        for event in &events {
            driver.handle(now, *event);
            driver.work();
        }
        driver.core.handle_timeout(clock::now());
        driver.look_for_devices(clock::now());
    }
    driver.finish();
    Ok(())
}

impl Driver {
    fn new(options: Options) -> Result<Self, String> {
        let at = |what: &Path, e: std::io::Error| format!("{}: {e}", what.display());
        let log_dir = options.log_dir();
        fs::create_dir_all(&log_dir).map_err(|e| at(&log_dir, e))?;
        let poller = Poller::new().map_err(|e| format!("epoll: {e}"))?;
        let signals = Signals::new().map_err(|e| format!("signals: {e}"))?;
        poller.add(&signals, SIGNALS, false).map_err(|e| format!("signals: {e}"))?;
        let control = Control::bind(&options.run_dir, NAME, &poller, CONTROL)
            .map_err(|e| format!("control socket: {e}"))?;
        share_socket(&options);
        let pid = options.pid_file();
        fs::write(&pid, format!("{}\n", std::process::id())).map_err(|e| at(&pid, e))?;

        let mut problems = problems::load(&options.run_dir);
        let services = load_table(&options, &mut problems);
        let now = clock::now();
        let members = services.iter().map(|s| member(&s.entry)).collect();
        Ok(Self {
            core: Supervisor::new(policy(&options), members, now),
            services,
            problems,
            started: now,
            poller,
            signals,
            control: Some(control),
            hotplug: None,
            sticks: None,
            look_at: None,
            dog: None,
            console: if options.system { Console::Serial } else { Console::Stdout },
            complaints: Complaints::default(),
            ended: false,
            options,
        })
    }

    /// What only a node has; `--watchdog` works everywhere.
    fn take_board(&mut self) {
        if let Some(device) = &self.options.watchdog {
            self.dog =
                Watchdog::arm(device, 15).map_err(|e| log::error!("watchdog {}: {e}", device.display())).ok();
        }
        if !self.options.system {
            return;
        }
        self.hotplug = Hotplug::start(&self.poller, HOTPLUG)
            .map_err(|e| log::error!("devices that are plugged in will not be noticed: {e}"))
            .ok();
        self.sticks = Some(Sticks::new(STICKS, setup::own_disk()));
        self.look_at = Some(self.started + LOOK_AFTER);
        if self.dog.is_none() {
            self.dog = board::arm_watchdog();
        }
        board::show(Path::new("/sys/class/leds"), Light::Starting);
    }

    /// The set-up has found the devices that were there; those that came between it and us were announced to
    /// nobody. Looking at all of them takes as long as starting a service, so the services come first.
    fn look_for_devices(&mut self, now: Instant) {
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            if let Some(hotplug) = &mut self.hotplug {
                hotplug.look(&self.poller);
            }
            if let Some(sticks) = &mut self.sticks {
                sticks.look(&self.options, &self.poller);
            }
        }
    }

    /// Does what the core wants done.
    fn work(&mut self) {
        while let Some(output) = self.core.poll_output() {
            let now = clock::now();
            if let Some(input) = self.act(now, output) {
                self.core.handle_input(now, input);
            }
        }
    }

    fn act(&mut self, now: Instant, output: Output) -> Option<Input> {
        match output {
            Output::Spawn(i) => {
                let result = self.services.get_mut(i)?.spawn(&self.options, &self.poller);
                match result {
                    Ok(()) => {
                        log::info!("{}: started, pid {}", self.name(i), self.services.get(i)?.pid());
                        return Some(Input::Spawned(i));
                    }
                    Err(why) => {
                        log::error!("{}: {why}", self.name(i));
                        return Some(Input::SpawnFailed(i, why));
                    }
                }
            }
            Output::Terminate(i) => self.services.get(i)?.terminate(),
            Output::Kill(i) => {
                log::warn!("{}: does not end; killed", self.name(i));
                self.services.get(i)?.kill();
            }
            Output::Probe(i) => {
                let service = self.services.get_mut(i)?;
                if !service.probe(&self.options, &self.poller) {
                    return Some(Input::Silent(i));
                }
            }
            Output::Unanswered(i) => self.services.get_mut(i)?.drop_question(),
            Output::Failed(i) => self.failed(now, i),
            Output::Ready => {
                self.console.say(&ready::announcement(&self.options));
                self.show(Light::Ready);
                self.look_at = self.look_at.and(Some(now));
            }
            Output::NotReady(missing) => {
                let names: Vec<_> = missing.iter().map(|&i| self.complaint(i)).collect();
                self.console.say(&format!(
                    "node is NOT ready: {}. It goes on trying; log in and see meshctl status and meshctl logs.",
                    names.join("; ")
                ));
                self.show(Light::Trouble);
            }
            Output::Feed => {
                if let Some(dog) = &mut self.dog
                    && let Err(e) = dog.feed()
                {
                    log::error!("the watchdog can't be fed: {e}");
                }
            }
            Output::Starve(why) => {
                self.console.say(&format!("the watchdog is not fed any more: {why}. The node starts again."));
                if self.dog.is_none() && self.options.system {
                    let _ = process::ask_init(Machine::Reboot);
                }
            }
            Output::Ended => self.ended = true,
        }
        None
    }

    fn failed(&mut self, now: Instant, i: usize) {
        let Some(seen) = self.core.services().get(i) else { return };
        log::error!("{}: {} (failure {} in a row)", seen.member.name, seen.last_exit, seen.failures);
        let Some(service) = self.services.get_mut(i) else { return };
        if service.kept.is_none_or(|at| now.saturating_since(at) >= KEEP_EVERY) {
            service.kept = Some(now);
            let name = &service.entry.name;
            if let Err(e) = kept::keep(&self.options.kept_logs(), &self.options.log_dir(), name) {
                log::warn!("the log of {name} can't be kept: {e}");
            }
        }
    }

    fn handle(&mut self, now: Instant, event: Event) {
        if event.token == SIGNALS {
            while let Some(signal) = self.signals.next() {
                if signal == Signal::Terminate {
                    log::info!("told to end");
                    if let Some(sticks) = &mut self.sticks {
                        sticks.end();
                    }
                    self.core.handle_input(now, Input::End);
                    self.work();
                }
            }
        } else if event.token >= CONTROL {
            self.control(now, event);
        } else if let Some(hotplug) = self.hotplug.as_mut().filter(|h| h.owns(event.token)) {
            for e in hotplug.handle(&self.poller, event) {
                // The module of a watchdog may come late.
                if self.dog.is_none() && e.subsystem == "watchdog" && e.action == "add" {
                    self.dog = board::arm_watchdog();
                }
                // Those that came before are looked at all together.
                if let Some(sticks) = self.sticks.as_mut().filter(|_| self.look_at.is_none()) {
                    sticks.came(&e, &self.options, &self.poller);
                }
            }
        } else if let Some(sticks) = self.sticks.as_mut().filter(|s| s.owns(event.token)) {
            sticks.handle(event, self.console, &self.options, &self.poller);
        } else if event.token >= FIRST_SERVICE {
            self.service_event(now, event);
        }
    }

    fn service_event(&mut self, now: Instant, event: Event) {
        let at = event.token - FIRST_SERVICE;
        let i = usize::try_from(at / TOKENS).unwrap_or(usize::MAX);
        let Some(service) = self.services.get_mut(i) else { return };
        let input = match at % TOKENS {
            0 => service.take_ending(now, &self.poller).map(|how| Input::Exited(i, how)),
            1 => {
                service.take_output(now, &self.poller);
                None
            }
            _ => match service.take_answer(&self.poller, event) {
                Some(Answer::Status(problems, trial)) => {
                    if let Some(on) = trial {
                        self.core.handle_input(now, Input::Trial(on));
                    }
                    let name = &service.entry.name;
                    for text in self.complaints.news(i, problems, &self.problems) {
                        self.console.say(&format!("{name}: {text}"));
                    }
                    Some(Input::Answered(i))
                }
                Some(Answer::HungUp) => Some(Input::Silent(i)),
                None => None,
            },
        };
        if let Some(input) = input {
            self.core.handle_input(now, input);
        }
    }

    fn control(&mut self, now: Instant, event: Event) {
        let Some(mut control) = self.control.take() else { return };
        for what in control.handle(&self.poller, event) {
            if let ServerEvent::Request(client, request) = what {
                let response = self.answer(now, request);
                control.send(&self.poller, client, &response);
            }
        }
        self.control = Some(control);
    }

    fn show(&self, light: Light) {
        if self.options.system {
            board::show(Path::new("/sys/class/leds"), light);
        }
    }

    fn name(&self, i: usize) -> &str {
        self.services.get(i).map_or("", |s| &s.entry.name)
    }

    /// Every service has ended: what must survive is written.
    fn finish(&mut self) {
        for service in &self.services {
            let name = &service.entry.name;
            if let Err(e) = kept::keep(&self.options.kept_logs(), &self.options.log_dir(), name) {
                log::warn!("the log of {name} can't be kept: {e}");
            }
        }
        let _ = kept::keep(&self.options.kept_logs(), &self.options.log_dir(), NAME);
        let _ = fs::remove_file(self.options.pid_file());
        log::info!("ended");
    }
}

/// The group `mesh` may ask the supervisor as it may ask every service.
fn share_socket(options: &Options) {
    let Some(gid) = accounts::group_id(&options.etc, accounts::MESH_GROUP) else { return };
    let path = control::socket_path(&options.run_dir, NAME);
    if options.system
        && let Err(e) = std::os::unix::fs::chown(&path, None, Some(gid))
    {
        log::warn!("{}: {e}; only root can ask the supervisor", path.display());
    }
}

fn policy(options: &Options) -> Policy {
    let mut policy = Policy::default();
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let note = file::read_limited(&options.state_dir.join(TRIAL_NOTE), 8192).unwrap_or_default();
    if options.system && is_trial(&String::from_utf8_lossy(&note), &cmdline) {
        log::info!("a new system runs for the first time, or was not confirmed so far");
        // mesh-update gives up first, if it can.
        let patience = board::patience(&cmdline);
        policy.trial_patience = Some(patience + patience.divided_by(10));
    }
    if options.quick { policy.quick() } else { policy }
}

/// Whether the note is about the system that runs.
fn is_trial(note: &str, cmdline: &str) -> bool {
    let told = |name| mesh_sys::board::argument(cmdline, name);
    TrialLine::parse(note).is_some_and(|t| {
        told("p2pmesh.version") == Some(t.version)
            && told("p2pmesh.slot").and_then(Slot::from_name) == Some(t.slot)
    })
}

fn member(entry: &table::Entry) -> Member {
    Member {
        name: entry.name.clone(),
        answers: entry.answers,
        required: entry.required,
        wanted: entry.when.as_ref().is_none_or(|file| Path::new(file).exists()),
    }
}

fn load_table(options: &Options, problems: &mut Vec<String>) -> Vec<Running> {
    let path = &options.services;
    let text = match file::read_limited(path, table::MAX_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) => {
            problems.push(format!("no service runs: the table {} can't be read: {e}", path.display()));
            String::new()
        }
    };
    let (entries, errors) = table::parse(&text);
    for e in errors {
        log::error!("{}: {e}", path.display());
        problems.push(format!("{}: {e}", path.display()));
    }
    let token = |i: usize| FIRST_SERVICE + i as u64 * TOKENS;
    entries.into_iter().enumerate().map(|(i, e)| Running::new(e, options, token(i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_about_another_system_is_no_trial() {
        let cmdline = "quiet p2pmesh.slot=B p2pmesh.part=1234-03 p2pmesh.version=1.2+g3 p2pmesh.root=ab";
        for (note, want) in [
            ("B 1.2+g3\n", true),
            ("B 1.2+g3 neighbour\nmesh-router: it is not running\n", true),
            ("A 1.2+g3\n", false),
            ("B 1.3\n", false),
            ("", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_trial(note, cmdline), want, "{note:?}");
        }
        assert!(!is_trial("B 1.2+g3\n", "quiet"));
    }
}

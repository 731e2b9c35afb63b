//! The real supervisor with real processes: shell scripts as services, their control sockets served here.
#![allow(clippy::unwrap_used, clippy::panic)] // a test's helpers fail as the test does

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mesh_ipc::supervisor::{Service, ServiceState, SupervisorRequest, SupervisorResponse};
use mesh_ipc::{Request, Response, ServiceStatus};
use mesh_sys::control::{Client, Server, ServerEvent};
use mesh_sys::poll::Poller;

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `what` gives something.
fn until<T>(name: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {name}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A supervisor in a folder of its own.
struct Node {
    dir: PathBuf,
    process: Option<Child>,
    printed: Option<Receiver<String>>,
}

impl Node {
    /// `table`'s `{}` become the node's folder.
    fn new(name: &str, table: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("mesh-supervisor-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("run")).unwrap();
        fs::write(dir.join("services.conf"), table.replace("{}", &dir.to_string_lossy())).unwrap();
        fs::write(dir.join("dog"), "").unwrap();
        Self { dir, process: None, printed: None }
    }

    fn script(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir.join(name);
        fs::write(&path, format!("#!/bin/sh\ncd {}\n{text}\n", self.dir.display())).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-supervisor"));
        command.arg(verb).arg("--quick");
        for (flag, file) in [
            ("--config", "p2pmesh.toml"),
            ("--state-dir", "state"),
            ("--run-dir", "run"),
            ("--services", "services.conf"),
            ("--watchdog", "dog"),
        ] {
            command.arg(flag).arg(self.dir.join(file));
        }
        command
    }

    fn setup(&self) {
        assert!(self.command("setup").output().unwrap().status.success());
    }

    fn start(&mut self) {
        let mut process = self.command("run").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, receiver) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
        self.printed = Some(receiver);
        self.process = Some(process);
    }

    fn line(&self, part: &str) -> String {
        until(part, || self.printed.as_ref()?.try_iter().find(|l| l.contains(part)))
    }

    fn ask(&self, request: &Request<SupervisorRequest>) -> Response<SupervisorResponse> {
        until("the supervisor's answer", || {
            let mut client: Client<SupervisorRequest, SupervisorResponse> =
                Client::connect(&self.dir.join("run"), "mesh-supervisor", PATIENCE).ok()?;
            client.request(request).ok()
        })
    }

    fn services(&self) -> Vec<Service> {
        match self.ask(&Request::Service(SupervisorRequest::Services)) {
            Response::Service(SupervisorResponse::Services(list)) => list,
            other => panic!("{other:?}"),
        }
    }

    fn service(&self, i: usize) -> Service {
        self.services().swap_remove(i)
    }

    fn status(&self) -> ServiceStatus {
        match self.ask(&Request::Status) {
            Response::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    fn log(&self, service: &str) -> Vec<String> {
        let service = service.to_owned();
        match self.ask(&Request::Service(SupervisorRequest::Log { service, lines: 100 })) {
            Response::Service(SupervisorResponse::Log(lines)) => lines,
            other => panic!("{other:?}"),
        }
    }

    /// Asks the supervisor to end; its exit code.
    fn end(&mut self) -> Option<i32> {
        assert!(self.command("finish").output().unwrap().status.success());
        self.process.take().unwrap().wait().unwrap().code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Answers `Status` on a service's control socket while it is told to.
struct FakeSocket {
    stop: Arc<AtomicBool>,
    mute: Arc<AtomicBool>,
    problems: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeSocket {
    fn serve(run_dir: &Path, service: &str) -> Self {
        let (stop, mute) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (run_dir, service) = (run_dir.to_owned(), service.to_owned());
        let (stopped, muted) = (stop.clone(), mute.clone());
        let problems = Arc::new(Mutex::new(Vec::new()));
        let said = problems.clone();
        let thread = std::thread::spawn(move || {
            let poller = Poller::new().unwrap();
            let mut server =
                Server::<SupervisorRequest, SupervisorResponse>::bind(&run_dir, &service, &poller, 1)
                    .unwrap();
            let mut events = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let soon = mesh_sys::clock::now() + mesh_types::Duration::from_millis(20);
                poller.wait(Some(soon), &mut events).unwrap();
                for event in events.clone() {
                    for what in server.handle(&poller, event) {
                        if let ServerEvent::Request(client, _) = what
                            && !muted.load(Ordering::SeqCst)
                        {
                            let problems = said.lock().unwrap().clone();
                            let status = ServiceStatus { problems, ..ServiceStatus::default() };
                            server.send(&poller, client, &Response::Status(status));
                        }
                    }
                }
            }
        });
        Self { stop, mute, problems, thread: Some(thread) }
    }
}

impl Drop for FakeSocket {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().unwrap().join();
    }
}

fn alive(pid: u32) -> bool {
    // A zombie is dead; whoever adopted it just has not looked yet.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim().starts_with('Z'))
}

/// Waits for SIGTERM and says so.
const OBEDIENT: &str = r#"echo "$0 starts" >> order
trap 'echo "$0 ends" >> order; exit 0' TERM
while :; do sleep 0.05; done"#;

#[test]
fn start_ready_and_end_in_order() {
    let mut node =
        Node::new("order", "[aa]\nexec = {}/aa\n[bb]\nexec = {}/bb\n[cc]\nexec={}/cc\nready=started\n");
    for name in ["aa", "bb", "cc"] {
        node.script(name, OBEDIENT);
    }
    node.setup();
    let run = node.dir.join("run");
    let _b = FakeSocket::serve(&run, "bb");
    node.start();
    until("aa to start", || {
        fs::read_to_string(node.dir.join("order")).ok().filter(|t| t.contains("aa starts"))
    });
    assert_eq!(node.service(0).state, ServiceState::Starting);
    assert!(node.status().problems.iter().all(|p| !p.starts_with("aa")), "starting is no problem");
    let _a = FakeSocket::serve(&run, "aa");
    let line = node.line("node is ready");
    assert!(
        line.starts_with("p2pmesh: node is ready: ") && line.contains("fd") && line.contains("10."),
        "{line}"
    );
    assert!(node.services().iter().all(|s| s.state == ServiceState::Ready && s.pid > 0 && s.rss_kib > 0));
    let fed = |node: &Node| fs::metadata(node.dir.join("dog")).unwrap().len();
    let before = fed(&node);
    until("the watchdog to be fed", || (fed(&node) > before).then_some(()));
    let pids: Vec<_> = node.services().iter().map(|s| s.pid).collect();
    // Every script has said that it starts before any is told to end.
    until("all to start", || {
        let order = fs::read_to_string(node.dir.join("order")).ok()?;
        (order.matches("starts").count() == 3).then_some(())
    });
    assert_eq!(node.end(), Some(0));
    assert!(!pids.iter().any(|p| alive(*p)));
    let order =
        fs::read_to_string(node.dir.join("order")).unwrap().replace(&format!("{}/", node.dir.display()), "");
    let ends: Vec<_> = order.lines().filter(|l| l.ends_with("ends")).collect();
    assert_eq!(ends, ["cc ends", "bb ends", "aa ends"]);
    assert!(!node.dir.join("run/mesh-supervisor.sock").exists());
    assert!(!node.dir.join("run/mesh-supervisor.pid").exists());
}

#[test]
fn a_crash_loop_is_slowed_told_and_does_not_hurt_the_others() {
    let mut node = Node::new("crash", "[bad]\nexec = {}/bad\n[good]\nexec = {}/good\nready = started\n");
    node.script("bad", "echo 'about to fail'; exit 3");
    node.script("good", OBEDIENT);
    node.setup();
    node.start();
    until("four failures", || (node.service(0).restarts >= 4).then_some(()));
    let bad = node.service(0);
    assert_eq!(bad.last_exit, "ended with code 3");
    assert_eq!(node.service(1).state, ServiceState::Ready);
    let problems = node.status().problems;
    assert!(
        problems.iter().any(|p| p.starts_with("bad has failed") && p.contains("meshctl logs bad")),
        "{problems:?}"
    );
    let log = node.log("bad");
    assert!(
        log.iter().any(|l| l.ends_with("about to fail")) && log.iter().any(|l| l.contains("code 3")),
        "{log:?}"
    );
    assert!(node.log("").iter().any(|l| l.contains("bad: about to fail")));
    let line = node.line("NOT ready");
    assert!(line.contains("bad has failed"), "{line}");
    let kept = node.dir.join("state/logs/boot-1/bad.log");
    assert!(fs::read_to_string(kept).unwrap().contains("about to fail"));
    assert_eq!(node.end(), Some(0));
}

#[test]
fn a_hung_service_is_ended_and_started_again() {
    let mut node = Node::new("hung", "[deaf]\nexec = {}/deaf\n");
    // It does not even listen to SIGTERM.
    node.script("deaf", "trap '' TERM; while :; do sleep 0.05; done");
    let socket = FakeSocket::serve(&node.dir.join("run"), "deaf");
    node.start();
    node.line("node is ready");
    let first = node.service(0).pid;
    socket.mute.store(true, Ordering::SeqCst);
    until("another process", || Some(node.service(0).pid).filter(|p| *p != first && *p != 0));
    assert!(!alive(first));
    assert!(node.service(0).last_exit.contains("did not answer"), "{:?}", node.service(0));
    socket.mute.store(false, Ordering::SeqCst);
    until("it to be ready again", || (node.service(0).state == ServiceState::Ready).then_some(()));
    assert_eq!(node.end(), Some(0));
}

#[test]
fn a_service_that_needs_too_much_memory_fails_alone() {
    let mut node = Node::new("memory", "[hog]\nexec = {}/hog\nmemory = 8 MiB\nready = started\n");
    node.script("hog", r#"x=$(head -c 100000000 /dev/zero | tr '\0' a); echo "got ${#x}"; sleep 100"#);
    node.start();
    until("the hog to fail", || (node.service(0).restarts >= 1).then_some(()));
    let log = node.log("hog");
    assert!(!log.iter().any(|l| l.contains("got 100000000")), "{log:?}");
    assert_eq!(node.end(), Some(0));
}

#[test]
fn restart_on_request_and_mistakes_in_requests() {
    let mut node =
        Node::new("restart", "[aa]\nexec = {}/aa\nready = started\n[off]\nexec = x\nwhen = {}/never\n");
    node.script("aa", OBEDIENT);
    node.start();
    until("aa to start", || fs::read_to_string(node.dir.join("order")).ok());
    let first = node.service(0).pid;
    let restart = |name: &str| node.ask(&Request::Service(SupervisorRequest::Restart(name.into())));
    assert_eq!(restart("aa"), Response::Service(SupervisorResponse::Done));
    until("another process", || Some(node.service(0).pid).filter(|p| *p != first && *p != 0));
    assert!(matches!(restart("zz"), Response::Error(e) if e.contains("aa")));
    assert!(matches!(node.ask(&Request::Service(SupervisorRequest::Reboot)), Response::Error(_)));
    assert_eq!(node.service(1).state, ServiceState::Stopped);
    assert_eq!(node.end(), Some(0));
}

#[test]
fn when_the_supervisor_is_killed_its_services_end_and_the_next_one_takes_over() {
    let mut node = Node::new("killed", "[aa]\nexec = {}/aa\nready = started\n");
    node.script("aa", OBEDIENT);
    node.start();
    until("aa to start", || fs::read_to_string(node.dir.join("order")).ok());
    let orphan = node.service(0).pid;
    let mut process = node.process.take().unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    until("the orphan to end", || (!alive(orphan)).then_some(()));
    node.start();
    node.line("node is ready");
    assert_ne!(node.service(0).pid, orphan);
    // A second one beside it is refused.
    let second = node.command("run").output().unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("already answers"));
    assert_eq!(node.end(), Some(0));
}

#[test]
fn set_up_problems_are_told_by_the_running_supervisor() {
    let mut node =
        Node::new("setup", "[aa]\nexec = {}/aa\nready = started\n[wrong]\nexec = x\nmemory = lots\n");
    node.script("aa", OBEDIENT);
    fs::write(node.dir.join("p2pmesh.toml"), "hostname = \"bloor\"\nap.pasword = \"x\"\n").unwrap();
    node.setup();
    let identity = fs::read(node.dir.join("state/identity")).unwrap();
    node.setup();
    assert_eq!(fs::read(node.dir.join("state/identity")).unwrap(), identity);
    assert!(
        !node.dir.join("state/p2pmesh.toml").exists(),
        "a configuration with mistakes is no last good one"
    );
    fs::write(node.dir.join("state/identity"), "damaged").unwrap();
    node.setup();
    assert_eq!(fs::read(node.dir.join("state/identity.damaged")).unwrap(), b"damaged");
    node.start();
    node.line("node is ready");
    let problems = node.status().problems;
    for part in ["ap.pasword", "root's password is the workshop's", "identity was damaged", "no size"] {
        assert!(problems.iter().any(|p| p.contains(part)), "{part}: {problems:?}");
    }
    assert_eq!(node.end(), Some(0));
    // A good one is kept, and used when the card's is not readable at all.
    fs::write(node.dir.join("p2pmesh.toml"), "hostname = \"bloor\"\n").unwrap();
    node.setup();
    assert_eq!(fs::read(node.dir.join("state/p2pmesh.toml")).unwrap(), b"hostname = \"bloor\"\n");
}

#[test]
fn what_a_service_finds_wrong_is_told_on_the_console() {
    let mut node = Node::new("complaints", "[aa]\nexec = {}/aa\n");
    node.script("aa", OBEDIENT);
    node.setup();
    let socket = FakeSocket::serve(&node.dir.join("run"), "aa");
    node.start();
    node.line("node is ready");
    *socket.problems.lock().unwrap() = vec!["bloor is taken: this node is bloor-2".into()];
    assert_eq!(node.line("bloor-2"), "p2pmesh: aa: bloor is taken: this node is bloor-2");
    assert_eq!(node.end(), Some(0));
}

#[test]
fn wrong_words_are_refused() {
    let node = Node::new("words", "");
    let code = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_mesh-supervisor")).args(words).output().unwrap().status.code()
    };
    assert_eq!(code(&["dance"]), Some(2));
    assert_eq!(code(&["run", "--nope"]), Some(2));
    assert_eq!(code(&["--version"]), Some(0));
    fs::write(node.dir.join("bad.toml"), "x = 1").unwrap();
    assert_eq!(
        code(&["run", "--check-config", "--config", &node.dir.join("bad.toml").to_string_lossy()]),
        Some(1)
    );
}

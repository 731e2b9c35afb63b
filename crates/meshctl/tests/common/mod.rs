//! Fake services for the tests of the command line.

#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use mesh_ipc::{Request, Response, ServiceStatus};
use mesh_sys::clock;
use mesh_sys::control::{Server, ServerEvent};
use mesh_sys::poll::Poller;
use mesh_types::Duration;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A folder with everything a node's command line looks at.
pub(crate) struct Node {
    pub(crate) dir: PathBuf,
    services: Vec<Fake>,
}

impl Node {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("meshctl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("state")).unwrap();
        // 32 bytes of 1: the identity of the golden outputs.
        fs::write(dir.join("state/identity"), "01".repeat(32) + "\n").unwrap();
        fs::write(dir.join("p2pmesh.toml"), "ap.password = \"a better one\"\nconsole.password = \"mine\"\n")
            .unwrap();
        Self { dir, services: Vec::new() }
    }

    /// Adds a service that answers `Status` and whatever `answer` says.
    pub(crate) fn service<Q, A>(
        &mut self,
        name: &str,
        answer: impl FnMut(Q) -> Vec<Response<A>> + Send + 'static,
    ) where
        Q: DeserializeOwned + 'static,
        A: Serialize + 'static,
    {
        self.services.push(Fake::start(&self.dir, name, answer));
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
        command.arg("--run-dir").arg(&self.dir);
        command.arg("--state-dir").arg(self.dir.join("state"));
        command.arg("--config").arg(self.dir.join("p2pmesh.toml"));
        command.args(words).stdin(Stdio::null()).current_dir(&self.dir);
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What it prints, when all goes well.
    #[track_caller]
    pub(crate) fn good(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {error}");
        assert_eq!(error, "", "{words:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it complains, when it ends with `code`.
    #[track_caller]
    pub(crate) fn bad(&self, words: &[&str], code: i32) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.services.clear();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

struct Fake {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    fn start<Q, A>(
        dir: &Path,
        name: &str,
        mut answer: impl FnMut(Q) -> Vec<Response<A>> + Send + 'static,
    ) -> Self
    where
        Q: DeserializeOwned + 'static,
        A: Serialize + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let (dir, name, ends) = (dir.to_path_buf(), name.to_owned(), stop.clone());
        let (ready, wait) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let poller = Poller::new().unwrap();
            let mut server: Server<Q, A> = Server::bind(&dir, &name, &poller, 0).unwrap();
            ready.send(()).unwrap();
            // Every service finds the same fault, as they do in a faulty configuration.
            let status = ServiceStatus {
                service: name,
                version: "9".into(),
                uptime_ms: 65_000,
                problems: vec!["something is odd".into()],
                counters: vec![("things".into(), 3)],
            };
            let mut events = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                poller.wait(Some(clock::now() + Duration::from_millis(20)), &mut events).unwrap();
                for event in events.drain(..) {
                    for what in server.handle(&poller, event) {
                        let ServerEvent::Request(id, request) = what else { continue };
                        let answers = match request {
                            Request::Status => vec![Response::Status(status.clone())],
                            Request::Service(q) => answer(q),
                        };
                        for a in &answers {
                            server.send(&poller, id, a);
                        }
                    }
                }
            }
        });
        wait.recv().unwrap();
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

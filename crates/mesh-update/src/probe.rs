//! Asking the other services how they are, without waiting.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use mesh_ipc::{Request, Response};
use mesh_sys::control::Watcher;
use mesh_sys::poll::{Event, Poller};

/// A service under watch; its place in the list is its token.
struct Probe {
    service: String,
    connection: Option<Watcher<(), ()>>,
    waiting: bool,
}

/// All services under watch.
pub(crate) struct Probes {
    run_dir: PathBuf,
    list: Vec<Probe>,
}

/// What a question brought to light: the service, and why it is not well if it is not.
pub(crate) type Report = (String, Result<(), String>);

impl Probes {
    pub(crate) fn new(run_dir: PathBuf, services: &[String]) -> Self {
        let list = services.iter().map(|s| Probe { service: s.clone(), connection: None, waiting: false });
        Self { run_dir, list: list.collect() }
    }

    /// Asks a service; a report comes at once if that is not possible, or if the last question is still open.
    pub(crate) fn ask(&mut self, poller: &Poller, service: &str) -> Option<Report> {
        let (token, probe) = (0..).zip(&mut self.list).find(|(_, p)| p.service == service)?;
        if probe.waiting {
            probe.waiting = false;
            probe.connection = None;
            return Some((service.to_owned(), Err("it does not answer".into())));
        }
        let result = probe.send(&self.run_dir, poller, token);
        probe.waiting = result.is_ok();
        result.err().map(|e| {
            probe.connection = None;
            (service.to_owned(), Err(explain(&e)))
        })
    }

    /// Takes what arrived.
    pub(crate) fn handle(&mut self, poller: &Poller, event: Event) -> Option<Report> {
        let probe = self.list.get_mut(usize::try_from(event.token).ok()?)?;
        let answers = probe.connection.as_mut()?.handle(poller, event);
        match answers {
            Ok(list) if list.is_empty() => None,
            Ok(list) => {
                probe.waiting = false;
                let well = list.iter().any(|r| matches!(r, Response::Status(_)));
                let result = if well { Ok(()) } else { Err("it does not say how it is".into()) };
                Some((probe.service.clone(), result))
            }
            Err(e) => {
                probe.connection = None;
                probe.waiting = false;
                Some((probe.service.clone(), Err(explain(&e))))
            }
        }
    }

    /// Ends all connections.
    pub(crate) fn close(&mut self) {
        self.list.clear();
    }
}

impl Probe {
    fn send(&mut self, run_dir: &std::path::Path, poller: &Poller, token: u64) -> io::Result<()> {
        let connection = match &mut self.connection {
            Some(c) => c,
            none => none.insert(Watcher::connect(run_dir, &self.service, poller, token)?),
        };
        connection.send(poller, &Request::Status)
    }
}

fn explain(e: &io::Error) -> String {
    match e.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => "it is not running".into(),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => "it ended".into(),
        _ => e.to_string(),
    }
}

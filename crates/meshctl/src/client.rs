//! Asking the services; every failure explained.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use mesh_ipc::store::{StoreRequest, StoreResponse};
use mesh_ipc::{Request, Response, ServiceStatus};
use mesh_sys::control::{Client, socket_path};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// How long a service may take for an ordinary answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Content may have to be fetched over many hops before the first byte comes.
const STORE_PATIENCE: Duration = Duration::from_secs(120);

/// mesh-store as this program sees it.
pub(crate) type Store = Service<StoreRequest, StoreResponse>;

pub(crate) fn store(run_dir: &Path) -> Result<Store, Failure> {
    Service::connect(run_dir, "mesh-store", STORE_PATIENCE)
}

/// A service as this program sees it.
pub(crate) struct Service<Q, A> {
    pub(crate) name: &'static str,
    client: Client<Q, A>,
}

impl<Q: Serialize, A: DeserializeOwned> Service<Q, A> {
    pub(crate) fn connect(run_dir: &Path, name: &'static str, patience: Duration) -> Result<Self, Failure> {
        let client = Client::connect(run_dir, name, patience).map_err(|e| explain(run_dir, name, &e))?;
        Ok(Self { name, client })
    }

    pub(crate) fn send(&mut self, request: Q) -> Result<(), Failure> {
        self.client.send(&Request::Service(request)).map_err(|e| self.lost(&e))
    }

    /// The request and an open file with it.
    pub(crate) fn send_with(&mut self, request: Q, file: &File) -> Result<(), Failure> {
        self.client.send_with(&Request::Service(request), file).map_err(|e| self.lost(&e))
    }

    pub(crate) fn receive(&mut self) -> Result<A, Failure> {
        match self.client.receive().map_err(|e| self.lost(&e))? {
            Response::Service(answer) => Ok(answer),
            Response::Error(text) => Err(Failure::new(text)),
            Response::Status(_) => Err(self.odd()),
        }
    }

    pub(crate) fn request(&mut self, request: Q) -> Result<A, Failure> {
        self.send(request)?;
        self.receive()
    }

    /// Hands over an open file that was asked for.
    pub(crate) fn pass(&mut self, file: &File) -> Result<(), Failure> {
        self.client.pass(file).map_err(|e| self.lost(&e))
    }

    fn status(&mut self) -> Result<ServiceStatus, Failure> {
        match self.client.request(&Request::Status).map_err(|e| self.lost(&e))? {
            Response::Status(status) => Ok(status),
            Response::Error(text) => Err(Failure::new(text)),
            Response::Service(_) => Err(self.odd()),
        }
    }

    /// An answer that does not belong to the question.
    pub(crate) fn odd(&self) -> Failure {
        Failure::new(format!(
            "{} gave an answer that meshctl does not know; both must come from the same image (see meshctl version)",
            self.name
        ))
    }

    fn lost(&self, e: &io::Error) -> Failure {
        let name = self.name;
        match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::new(format!(
                "{name} does not answer; it may be busy or stuck; try again, then see meshctl logs {name}"
            )),
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                Failure::new(format!(
                    "{name} ended before it answered; it is started again by itself; see meshctl logs {name}"
                ))
            }
            _ => Failure::new(format!("{name}: {e}; see meshctl logs {name}")),
        }
    }
}

/// One question, one answer.
pub(crate) fn ask<Q: Serialize, A: DeserializeOwned>(
    run_dir: &Path,
    name: &'static str,
    request: Q,
) -> Result<A, Failure> {
    Service::<Q, A>::connect(run_dir, name, PATIENCE)?.request(request)
}

/// How a service is, whatever its kind.
pub(crate) fn status(
    run_dir: &Path,
    name: &'static str,
    patience: Duration,
) -> Result<ServiceStatus, Failure> {
    // The types of the service's own messages don't matter for this one.
    Service::<(), ()>::connect(run_dir, name, patience)?.status()
}

/// Reads `from` to its end, `most` bytes at a time; `bad` says what an error there means.
pub(crate) fn read_in_parts(
    from: &mut dyn Read,
    most: usize,
    bad: impl Fn(io::Error) -> Failure,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut part = vec![0; most];
    loop {
        match from.read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(n) => take(part.get(..n).unwrap_or_default())?,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(bad(e)),
        }
    }
}

fn explain(run_dir: &Path, name: &str, e: &io::Error) -> Failure {
    let path = socket_path(run_dir, name);
    let path = path.display();
    match e.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused if name == "mesh-supervisor" => {
            Failure::new(format!(
                "mesh-supervisor is not running (nothing answers at {path}); without it no service is started; restart the node"
            ))
        }
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failure::new(format!(
            "{name} is not running (nothing answers at {path}); see meshctl status and meshctl logs {name}"
        )),
        ErrorKind::PermissionDenied => Failure::new(format!(
            "{path} may not be opened by this user; log in as root or as a member of the group mesh"
        )),
        _ => Failure::new(format!("{name} can't be reached at {path}: {e}; see meshctl logs {name}")),
    }
}

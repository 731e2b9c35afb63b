//! A bundle's bytes out of this node's store, by CID; the store has them or gets them from other nodes.

use std::io::ErrorKind;
use std::path::Path;

use mesh_ipc::store::{EntryKind, StoreRequest, StoreResponse};
use mesh_ipc::{Request, Response};
use mesh_sys::control::Watcher;
use mesh_sys::poll::{Event, Poller};

/// Bytes that are asked for at a time.
const WINDOW: u64 = 512 * 1024;

/// One file of the store.
pub(crate) struct Fetch {
    path: String,
    connection: Watcher<StoreRequest, StoreResponse>,
    size: Option<u64>,
    /// Bytes that came last, and where they belong.
    bytes: Vec<u8>,
    at: u64,
    busy: bool,
}

impl Fetch {
    /// Connects to the store and asks how long the file is.
    pub(crate) fn start(run_dir: &Path, poller: &Poller, token: u64, path: String) -> Result<Self, String> {
        let lost = |e: std::io::Error| format!("the bundle can't be had from the store: {}", explain(&e));
        let mut connection = Watcher::connect(run_dir, "mesh-store", poller, token).map_err(lost)?;
        let question = Request::Service(StoreRequest::Resolve { path: path.clone() });
        connection.send(poller, &question).map_err(lost)?;
        Ok(Self { path, connection, size: None, bytes: Vec::new(), at: 0, busy: true })
    }

    /// Length of the file; `None` while that is not known.
    pub(crate) const fn size(&self) -> Option<u64> {
        self.size
    }

    /// The bytes, if they are here; fewer at the file's end.
    pub(crate) fn get(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let size = self.size.filter(|_| !self.busy)?;
        let here = self.bytes.get(usize::try_from(offset.checked_sub(self.at)?).ok()?..)?;
        let ends = self.at + self.bytes.len() as u64 >= size;
        if here.len() < len && !ends { None } else { Some(here.get(..len).unwrap_or(here)) }
    }

    /// Asks for what lies from `offset` on, unless an answer is still to come.
    pub(crate) fn ask(&mut self, poller: &Poller, offset: u64) -> Result<(), String> {
        if self.busy {
            return Ok(());
        }
        self.busy = true;
        self.at = offset;
        self.bytes.clear();
        let question = StoreRequest::Cat { path: self.path.clone(), offset, length: Some(WINDOW) };
        self.connection.send(poller, &Request::Service(question)).map_err(|e| explain(&e))
    }

    /// Takes what the store says.
    pub(crate) fn handle(&mut self, poller: &Poller, event: Event) -> Result<(), String> {
        let answers = self.connection.handle(poller, event).map_err(|e| explain(&e))?;
        for answer in answers {
            match answer {
                Response::Service(StoreResponse::Entries(list)) => match list.first() {
                    Some(entry) if entry.kind == Some(EntryKind::File) => {
                        self.size = Some(entry.size);
                        self.busy = false;
                    }
                    _ => return Err(format!("{} is no file", self.path)),
                },
                Response::Service(StoreResponse::Data(bytes)) if (self.bytes.len() as u64) < WINDOW => {
                    self.bytes.extend_from_slice(&bytes);
                }
                Response::Service(StoreResponse::Done) => {
                    self.busy = false;
                    let end = self.at + self.bytes.len() as u64;
                    if self.bytes.is_empty() && self.size.is_some_and(|size| end < size) {
                        return Err(format!("the store gives nothing of {} from byte {end} on", self.path));
                    }
                }
                Response::Error(e) => return Err(e),
                _ => return Err("mesh-store gave an answer that does not belong to the question".into()),
            }
        }
        Ok(())
    }
}

fn explain(e: &std::io::Error) -> String {
    match e.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => "mesh-store is not running".into(),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
            "mesh-store ended; apply the bundle again: it goes on where it was".into()
        }
        _ => e.to_string(),
    }
}

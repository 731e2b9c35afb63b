//! The bundle of a system that was just installed goes into this node's store, so that others get it from here.
//!
//! It is made again out of the slot: what came from the running slot, a file or a stick was never in the store, and need not be
//! fetched for that. The same bundle has the same CID on every node. The one kept before it may go.

use std::collections::VecDeque;
use std::path::Path;

use mesh_ipc::store::{AddOptions, DATA_MAX, EntryKind, StoreRequest, StoreResponse};
use mesh_ipc::{Request, Response};
use mesh_sys::control::{ClientId, Watcher};
use mesh_sys::poll::{Event, Poller};
use update_core::{Offer, Policy, Rebuild};

use crate::disk::Disk;
use crate::fetch::explain;

/// How bundles are cut into blocks.
const PROFILE: &str = "unixfs-v1-2025";

/// See the module's text.
pub(crate) struct Share {
    rebuild: Rebuild,
    release: u64,
    version: String,
    connection: Watcher<StoreRequest, StoreResponse>,
    /// Of a piece that is longer than a frame.
    left: VecDeque<Vec<u8>>,
    sent: u64,
    ended: bool,
    cid: String,
    /// The answer to the removal of the old pin is still to come; it does not matter.
    unpins: bool,
    /// Who is to be told when it is done, and what.
    told: Told,
}

/// Who began the installation, while there, and its result.
pub(crate) struct Told {
    pub(crate) client: Option<ClientId>,
    pub(crate) done: String,
}

impl Share {
    /// Begins; what was kept before (`old`, a CID) need not be any more.
    pub(crate) fn start(
        (run_dir, poller, token): (&Path, &Poller, u64),
        rebuild: Rebuild,
        (release, version): (u64, String),
        old: Option<String>,
        told: Told,
    ) -> Result<Self, (Told, String)> {
        let connect = || {
            let mut connection = Watcher::connect(run_dir, "mesh-store", poller, token)?;
            let mut send = |request| connection.send(poller, &Request::Service(request));
            if let Some(path) = &old {
                send(StoreRequest::PinRemove { path: path.clone(), recursive: true })?;
            }
            let (profile, pin) = (PROFILE.to_owned(), true);
            let (cid_version, raw_leaves, chunk_size) = (None, None, None);
            let (only_hash, wrap) = (false, false);
            let options = AddOptions { profile, cid_version, raw_leaves, chunk_size, only_hash, wrap, pin };
            send(StoreRequest::AddBegin(options))?;
            send(StoreRequest::AddEntry { path: String::new(), kind: EntryKind::File })?;
            Ok(connection)
        };
        match connect() {
            Ok(connection) => Ok(Self {
                rebuild,
                release,
                version,
                connection,
                left: VecDeque::new(),
                sent: 0,
                ended: false,
                cid: String::new(),
                unpins: old.is_some(),
                told,
            }),
            Err(e) => Err((told, explain(&e))),
        }
    }

    /// Sends the next piece; true if there is more to do at once.
    pub(crate) fn step(&mut self, disk: &mut Disk, poller: &Poller) -> Result<bool, String> {
        if self.ended || self.connection.is_sending() {
            return Ok(false);
        }
        if self.left.is_empty() {
            let piece = self.rebuild.next(disk).map_err(|e| e.to_string())?;
            self.left = piece.iter().flat_map(|p| p.chunks(DATA_MAX)).map(<[u8]>::to_vec).collect();
        }
        let request = match self.left.pop_front() {
            Some(bytes) => {
                self.sent += bytes.len() as u64;
                StoreRequest::Data(bytes)
            }
            None => {
                self.ended = true;
                StoreRequest::AddEnd
            }
        };
        self.connection.send(poller, &Request::Service(request)).map_err(|e| explain(&e))?;
        Ok(!self.ended)
    }

    /// Takes what the store says; the CID once all of it is on the medium.
    pub(crate) fn handle(&mut self, poller: &Poller, event: Event) -> Result<Option<String>, String> {
        for answer in self.connection.handle(poller, event).map_err(|e| explain(&e))? {
            if std::mem::take(&mut self.unpins) {
                continue;
            }
            match answer {
                Response::Service(StoreResponse::Added { cid, .. }) => self.cid = cid,
                Response::Service(StoreResponse::Done) => return Ok(Some(self.cid.clone())),
                Response::Error(e) => return Err(e),
                _ => return Err("mesh-store gave an answer that does not belong to the question".into()),
            }
        }
        Ok(None)
    }

    /// What is announced of it.
    pub(crate) fn offer(&self, policy: &Policy, cid: &str) -> Option<Offer> {
        let mut signatures = Vec::new();
        Offer::new(policy, &self.rebuild.signed(&mut signatures, &self.version, self.release), cid)
    }

    /// Bytes sent, and all.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.sent, self.rebuild.len())
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) const fn release(&self) -> u64 {
        self.release
    }

    pub(crate) const fn told(&mut self) -> &mut Told {
        &mut self.told
    }
}

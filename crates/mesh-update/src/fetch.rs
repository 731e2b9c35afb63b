//! A bundle's bytes out of this node's store, by CID; the store has them or gets them from other nodes.
//!
//! What the installation will want next is asked for while it writes what came: up to [`AHEAD`] stretches are on their way.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::Path;

use mesh_ipc::store::{EntryKind, StoreRequest, StoreResponse};
use mesh_ipc::{Request, Response};
use mesh_sys::control::Watcher;
use mesh_sys::poll::{Event, Poller};

/// The most bytes that are asked for at a time, and the fewest (what is asked for first is short, and more follows).
const WINDOW: usize = 512 * 1024;
const LEAST: usize = 64 * 1024;
/// Stretches that are here or asked for.
const AHEAD: usize = 3;

/// A stretch of the file.
struct Piece {
    at: u64,
    len: usize,
    bytes: Vec<u8>,
    whole: bool,
}

impl Piece {
    const fn end(&self) -> u64 {
        self.at + self.len as u64
    }
}

/// One file of the store.
pub(crate) struct Fetch {
    path: String,
    connection: Watcher<StoreRequest, StoreResponse>,
    size: Option<u64>,
    /// In the order in which they were asked for.
    pieces: VecDeque<Piece>,
}

impl Fetch {
    /// Connects to the store and asks how long the file is.
    pub(crate) fn start(run_dir: &Path, poller: &Poller, token: u64, path: String) -> Result<Self, String> {
        let lost = |e: std::io::Error| format!("the bundle can't be had from the store: {}", explain(&e));
        let mut connection = Watcher::connect(run_dir, "mesh-store", poller, token).map_err(lost)?;
        let question = Request::Service(StoreRequest::Resolve { path: path.clone() });
        connection.send(poller, &question).map_err(lost)?;
        Ok(Self { path, connection, size: None, pieces: VecDeque::new() })
    }

    /// Length of the file; `None` while that is not known.
    pub(crate) const fn size(&self) -> Option<u64> {
        self.size
    }

    /// The bytes, if they are here; fewer at the file's end. What lies before them is dropped.
    pub(crate) fn get(&mut self, offset: u64, len: usize) -> Option<&[u8]> {
        let size = self.size?;
        while self.pieces.front().is_some_and(|p| p.whole && p.end() <= offset.min(size.saturating_sub(1))) {
            self.pieces.pop_front();
        }
        // What is wanted may go from one stretch into the next.
        while let [first, second, ..] = self.pieces.make_contiguous()
            && first.whole
            && second.whole
            && first.end() == second.at
            && offset + len as u64 > first.end()
        {
            let keep = usize::try_from(offset.saturating_sub(first.at)).ok()?.min(first.len);
            first.bytes.drain(..keep);
            first.at += keep as u64;
            first.bytes.append(&mut second.bytes);
            first.len = first.bytes.len();
            self.pieces.remove(1);
        }
        let piece = self.pieces.front().filter(|p| p.whole)?;
        let here = piece.bytes.get(usize::try_from(offset.checked_sub(piece.at)?).ok()?..)?;
        let ends = piece.end() >= size;
        if here.len() < len && !ends { None } else { Some(here.get(..len).unwrap_or(here)) }
    }

    /// Asks for what is wanted now, and what will be; `wants` says which stretch that is, from a byte on.
    pub(crate) fn ask(
        &mut self,
        poller: &Poller,
        (offset, len): (u64, usize),
        wants: impl Fn(u64, usize) -> Option<(u64, usize)>,
    ) -> Result<(), String> {
        let Some(size) = self.size else { return Ok(()) };
        // Stretches that begin elsewhere than where the installation goes on are of no use; those that are still to come
        // are waited for, since the store answers in order.
        let reach = |to: u64, p: &Piece| if p.at <= to && to < p.end() { p.end() } else { to };
        let covered = self.pieces.iter().fold(offset, reach);
        let whole = covered >= size.min(offset + len as u64);
        let useful = whole || (covered > offset && self.pieces.back().map(Piece::end) == Some(covered));
        if !useful && self.pieces.iter().all(|p| p.whole) {
            self.pieces.clear();
        }
        let mut from = self.pieces.back().map_or(offset, |p| p.end().max(offset));
        while self.pieces.len() < AHEAD
            && let Some((at, len)) = wants(from, WINDOW).filter(|(at, _)| *at < size)
        {
            let len = len.max(LEAST).min(usize::try_from(size - at).unwrap_or(usize::MAX));
            let length = Some(len as u64);
            let question = StoreRequest::Cat { path: self.path.clone(), offset: at, length };
            self.connection.send(poller, &Request::Service(question)).map_err(|e| explain(&e))?;
            self.pieces.push_back(Piece { at, len, bytes: Vec::with_capacity(len), whole: false });
            from = at + len as u64;
        }
        Ok(())
    }

    /// Takes what the store says.
    pub(crate) fn handle(&mut self, poller: &Poller, event: Event) -> Result<(), String> {
        let answers = self.connection.handle(poller, event).map_err(|e| explain(&e))?;
        for answer in answers {
            let piece = self.pieces.iter_mut().find(|p| !p.whole);
            match (answer, piece) {
                (Response::Service(StoreResponse::Entries(list)), None) => match list.first() {
                    Some(entry) if entry.kind == Some(EntryKind::File) => self.size = Some(entry.size),
                    _ => return Err(format!("{} is no file", self.path)),
                },
                (Response::Service(StoreResponse::Data(bytes)), Some(piece)) => {
                    if piece.bytes.len() + bytes.len() > piece.len {
                        return Err("mesh-store sent more than was asked for".into());
                    }
                    piece.bytes.extend_from_slice(&bytes);
                }
                (Response::Service(StoreResponse::Done), Some(piece)) => {
                    piece.whole = true;
                    if piece.bytes.len() < piece.len {
                        let end = piece.at + piece.bytes.len() as u64;
                        return Err(format!("the store gives nothing of {} from byte {end} on", self.path));
                    }
                }
                (Response::Error(e), _) => return Err(e),
                _ => return Err("mesh-store gave an answer that does not belong to the question".into()),
            }
        }
        Ok(())
    }
}

pub(crate) fn explain(e: &std::io::Error) -> String {
    match e.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => "mesh-store is not running".into(),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
            "mesh-store ended; apply the bundle again: it goes on where it was".into()
        }
        _ => e.to_string(),
    }
}

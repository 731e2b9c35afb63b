//! The open lists and maps of a writer. Entries are written as they come; when a map is closed,
//! they are put into canonical order in the output.

use alloc::vec::Vec;
use core::cmp::Ordering;

use super::{DagErrorKind, MAX_DEPTH};

/// What a value was, as far as dag-json's reserved forms ask for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueKind {
    Text,
    /// A map whose first key is `bytes` and whose value there is text.
    BytesForm,
    Other,
}

struct Entry {
    /// Where key and value begin in the output.
    at: usize,
    /// Where the key's own bytes begin among the keys.
    key: usize,
    key_end: usize,
    kind: ValueKind,
}

struct Open {
    map: bool,
    start: usize,
    /// Values of a list; a map counts its entries.
    count: u64,
    entries: Vec<Entry>,
    /// Where this map's keys begin among the keys.
    keys: usize,
}

/// A list or map that was just closed.
pub(super) struct Closed {
    pub(super) map: bool,
    /// Where its contents begin in the output.
    pub(super) start: usize,
    /// Values or entries.
    pub(super) count: u64,
    /// First key in canonical order is `/` or `bytes`: what its value is.
    pub(super) slash: Option<ValueKind>,
    pub(super) bytes: Option<ValueKind>,
}

pub(super) struct Nest {
    order: fn(&[u8], &[u8]) -> Ordering,
    open: Vec<Open>,
    /// Keys of all open maps, one after the other.
    keys: Vec<u8>,
}

impl Nest {
    pub(super) fn new(order: fn(&[u8], &[u8]) -> Ordering) -> Self {
        Self { order, open: Vec::new(), keys: Vec::new() }
    }

    /// A list or map begins; its contents will begin at `start` of the output.
    pub(super) fn open(&mut self, map: bool, start: usize) -> Result<(), DagErrorKind> {
        if self.open.len() >= MAX_DEPTH {
            return Err(DagErrorKind::TooDeep);
        }
        self.open.push(Open { map, start, count: 0, entries: Vec::new(), keys: self.keys.len() });
        Ok(())
    }

    /// An entry begins at `at` of the output.
    pub(super) fn key(&mut self, key: &str, at: usize) {
        let start = self.keys.len();
        self.keys.extend_from_slice(key.as_bytes());
        if let Some(open) = self.open.last_mut() {
            let kind = ValueKind::Other;
            open.entries.push(Entry { at, key: start, key_end: self.keys.len(), kind });
        }
    }

    /// A value was written.
    pub(super) fn value(&mut self, kind: ValueKind) {
        if let Some(open) = self.open.last_mut() {
            open.count += 1;
            if let Some(entry) = open.entries.last_mut() {
                entry.kind = kind;
            }
        }
    }

    /// Whether no list or map is open.
    pub(super) fn is_top(&self) -> bool {
        self.open.is_empty()
    }

    /// The innermost list or map ends: a map's entries in `out` are put in order.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) -> Result<Closed, DagErrorKind> {
        let mut open = self.open.pop().ok_or(DagErrorKind::Syntax)?;
        let key = |entry: &Entry| self.keys.get(entry.key..entry.key_end).unwrap_or_default();
        let order = |a: &Entry, b: &Entry| (self.order)(key(a), key(b));
        if !open.entries.is_sorted_by(|a, b| order(a, b) == Ordering::Less) {
            let ends: Vec<usize> =
                open.entries.iter().skip(1).map(|e| e.at).chain(core::iter::once(out.len())).collect();
            let mut entries: Vec<(&Entry, usize)> = open.entries.iter().zip(ends).collect();
            entries.sort_by(|(a, _), (b, _)| order(a, b));
            if !entries.is_sorted_by(|(a, _), (b, _)| order(a, b) == Ordering::Less) {
                return Err(DagErrorKind::DuplicateKey);
            }
            let mut sorted = Vec::with_capacity(out.len().saturating_sub(open.start));
            for (entry, end) in &entries {
                sorted.extend_from_slice(out.get(entry.at..*end).unwrap_or_default());
            }
            out.truncate(open.start);
            out.extend_from_slice(&sorted);
        }
        let first = open.entries.iter().min_by(|a, b| order(a, b));
        let named = |name: &[u8]| first.filter(|entry| key(entry) == name).map(|entry| entry.kind);
        let (slash, bytes) = (named(b"/"), named(b"bytes"));
        self.keys.truncate(open.keys);
        open.entries.clear();
        Ok(Closed { map: open.map, start: open.start, count: open.count, slash, bytes })
    }
}

//! Installing a bundle into the slot that does not run, so that power may fail at any moment.
//!
//! The order: signatures, board, age and sizes are checked; the boot state stops naming the slot; its header is zeroed
//! and synced; chunks are verified and written as they arrive; the slot is read back and every part compared; the
//! header is written last and synced; then the boot state names the slot. An installation that was cut off is
//! taken up where it was: the chunks that are on the medium are found by their hashes, no note is kept of them.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha256};

use crate::bundle::{
    BLOCK, BundlePart, ENTRY, Entry, MAX_CHUNK, Manifest, PREFIX, Prefix, SIGNATURE, Signature, sha256,
};
use crate::chunk::Unpacker;
use crate::header::SlotHeader;
use crate::mbr::Partition;
use crate::medium::{Medium, StateError, read_state, write_state};
use crate::policy::Policy;
use crate::rebuild::Rebuild;
use crate::refusal::Refusal;
use crate::reuse::Reuse;
use crate::sector::SECTOR;
use crate::state::Slot;

/// What to install where.
#[derive(Clone, Debug)]
pub struct InstallConfig {
    /// What the node asks of a bundle. `slot` is set from the partition.
    pub policy: Policy,
    /// The slot that runs.
    pub running: Slot,
    /// Where slot A and slot B lie.
    pub partitions: [Partition; 2],
    /// Bytes of the bundle, if they are known beforehand.
    pub total: Option<u64>,
    /// Only look: verify all of the bundle, write nothing.
    pub check_only: bool,
    /// Take chunks that the running slot has from there, in place of asking for them.
    pub reuse: bool,
    /// The only bundle that is wanted: SHA-256 of its manifest, and its release. `None`: any.
    pub only: Option<([u8; 32], u64)>,
}

/// What the installation needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// These bytes of the bundle, with [`Install::feed`]; never more than 128 KiB.
    Want {
        /// From the bundle's start.
        offset: u64,
        /// How many; more than zero.
        len: usize,
    },
    /// A call of [`Install::work`].
    Work,
    /// Nothing: it is done.
    Done,
}

/// Why an installation ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstallError<E> {
    /// The bundle is not wanted.
    Refused(Refusal),
    /// The medium failed.
    Medium(E),
    /// The medium gives back something else than was written.
    ReadBack(&'static str),
    /// The driver did what was not asked for.
    Driver,
}

impl<E> From<Refusal> for InstallError<E> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<E> From<StateError<E>> for InstallError<E> {
    fn from(e: StateError<E>) -> Self {
        match e {
            StateError::Medium(e) => Self::Medium(e),
            StateError::ReadBack | StateError::Encode(_) => Self::ReadBack("boot state"),
        }
    }
}

impl<E: fmt::Display> fmt::Display for InstallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(r) => write!(f, "{r}"),
            Self::Medium(e) => write!(f, "the card can't be read or written: {e}"),
            Self::ReadBack(what) => {
                write!(f, "the card gives back something else than was written ({what}); replace the card")
            }
            Self::Driver => f.write_str("bytes came that were not asked for"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for InstallError<E> {}

/// What it is doing, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading what was signed.
    Checking,
    /// Looking for what the medium has already.
    Resuming,
    /// Chunks arrive.
    Writing,
    /// Reading the slot back.
    Verifying,
    /// Done.
    Done,
}

enum Phase {
    Prefix,
    Signed(Prefix),
    Table,
    Reuse,
    Resume { chunk: u32 },
    Erase,
    Chunk,
    Verify { part: usize, at: u64, hash: Sha256 },
    Activate,
    Done,
}

/// See the module's text. Until [`Next::Done`]: do what [`Install::next`] says. After an error it is of no more use.
pub struct Install {
    config: InstallConfig,
    phase: Phase,
    manifest: Option<Manifest>,
    /// Manifest and signatures as they came.
    signed: Vec<u8>,
    header: SlotHeader,
    table: Vec<Entry>,
    table_hash: Sha256,
    /// Where the table, then the next chunk begins in the bundle.
    offset: u64,
    /// The next chunk.
    chunk: u32,
    /// Bytes of parts that are done.
    done: u64,
    writer: Writer,
    unpacker: Unpacker,
    reuse: Option<Reuse>,
    /// Bytes that came out of the running slot.
    reused: u64,
    /// Hash of the part that arrives, for [`InstallConfig::check_only`].
    part_hash: Sha256,
    buffer: Vec<u8>,
}

impl fmt::Debug for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Install")
            .field("stage", &self.stage())
            .field("chunk", &self.chunk)
            .finish_non_exhaustive()
    }
}

impl Install {
    /// Nothing is touched yet.
    pub fn new(mut config: InstallConfig) -> Self {
        let [a, b] = config.partitions;
        let target = if config.running == Slot::A { b } else { a };
        config.policy.slot = u64::from(target.sectors) * SECTOR as u64;
        Self {
            config,
            phase: Phase::Prefix,
            manifest: None,
            signed: Vec::new(),
            header: SlotHeader::default(),
            table: Vec::new(),
            table_hash: Sha256::new(),
            offset: 0,
            chunk: 0,
            done: 0,
            writer: Writer::new(u64::from(target.start) * SECTOR as u64),
            unpacker: Unpacker::default(),
            reuse: None,
            reused: 0,
            part_hash: Sha256::new(),
            buffer: vec![0; MAX_CHUNK],
        }
    }

    /// The bundle's length, where it becomes known only later.
    pub const fn set_total(&mut self, total: u64) {
        self.config.total = Some(total);
    }

    /// What it needs next.
    pub fn next(&self) -> Next {
        match &self.phase {
            Phase::Prefix => Next::Want { offset: 0, len: PREFIX },
            Phase::Signed(prefix) => Next::Want { offset: PREFIX as u64, len: prefix.signed_part() },
            Phase::Table => {
                let left = self.chunks().saturating_sub(self.table.len() as u32) as usize * ENTRY;
                Next::Want { offset: self.offset, len: left.min(MAX_CHUNK - MAX_CHUNK % ENTRY) }
            }
            Phase::Chunk => match self.table.get(self.chunk as usize) {
                Some(entry) if !self.has(entry) => {
                    Next::Want { offset: self.offset, len: entry.stored as usize }
                }
                _ => Next::Work,
            },
            Phase::Done => Next::Done,
            _ => Next::Work,
        }
    }

    /// What it is doing.
    pub const fn stage(&self) -> Stage {
        match self.phase {
            Phase::Prefix | Phase::Signed(_) | Phase::Table => Stage::Checking,
            Phase::Reuse | Phase::Resume { .. } => Stage::Resuming,
            Phase::Erase | Phase::Chunk => Stage::Writing,
            Phase::Verify { .. } | Phase::Activate => Stage::Verifying,
            Phase::Done => Stage::Done,
        }
    }

    /// Bytes of parts done in this stage, and all of them.
    pub fn progress(&self) -> (u64, u64) {
        (self.done, self.manifest.as_ref().map_or(0, Manifest::bytes))
    }

    /// Bytes that were taken from the running slot.
    pub const fn reused(&self) -> u64 {
        self.reused
    }

    /// What was signed; `None` until the signatures have been checked.
    pub const fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// The new slot's header; empty until the signatures have been checked.
    pub const fn header(&self) -> &SlotHeader {
        &self.header
    }

    /// The first stretch of the bundle from byte `from` on that will be asked for, as far as is known now: its first byte and
    /// its length, at most `max`. For a source that reads ahead.
    pub fn wants(&self, from: u64, max: usize) -> Option<(u64, usize)> {
        let mut run: Option<(u64, usize)> = None;
        let mut at = match (self.next(), &self.phase) {
            (Next::Want { offset, len }, phase) if !matches!(phase, Phase::Chunk) => {
                let end = offset + len as u64;
                return (from < end)
                    .then(|| (offset.max(from), ((end - offset.max(from)) as usize).min(max)));
            }
            (_, Phase::Chunk) => self.offset,
            _ => return None,
        };
        for entry in self.table.iter().skip(self.chunk as usize) {
            let end = at + u64::from(entry.stored);
            let begin = at.max(from);
            if begin < end && !self.has(entry) {
                let (start, len) = run.get_or_insert((begin, 0));
                *len = ((end - *start) as usize).min(max);
                if *len == max {
                    break;
                }
            } else if run.is_some() {
                break;
            }
            at = end;
        }
        run
    }

    /// What makes the bundle again, once all is done.
    pub fn rebuild(&self) -> Option<Rebuild> {
        let manifest = self.manifest.clone().filter(|_| matches!(self.phase, Phase::Done))?;
        (!self.config.check_only)
            .then(|| Rebuild::new(self.writer.start, manifest, self.signed.clone(), self.table.clone()))
    }

    /// The slot that is written.
    pub const fn target(&self) -> Slot {
        self.config.running.other()
    }

    /// Takes the bytes that [`Install::next`] asked for, or fewer where the source ends there.
    ///
    /// # Errors
    /// See [`InstallError`].
    pub fn feed<M: Medium>(&mut self, medium: &mut M, bytes: &[u8]) -> Result<(), InstallError<M::Error>> {
        let Next::Want { offset, len } = self.next() else { return Err(InstallError::Driver) };
        if bytes.len() < len {
            let (has, needed) =
                (offset + bytes.len() as u64, self.config.total.unwrap_or(0).max(offset + len as u64));
            return Err(Refusal::Truncated { has, needed }.into());
        }
        let bytes = bytes.get(..len).unwrap_or_default();
        match &self.phase {
            Phase::Prefix => {
                let prefix = bytes.first_chunk().ok_or(Refusal::NotABundle)?;
                self.phase = Phase::Signed(Prefix::parse(prefix)?);
            }
            Phase::Signed(prefix) => {
                let (manifest, signatures) =
                    bytes.split_at_checked(prefix.manifest).ok_or(Refusal::NotABundle)?;
                self.config.policy.check_signatures(manifest, &Signature::parse_all(signatures))?;
                debug_assert!(signatures.len().is_multiple_of(SIGNATURE));
                let hash = sha256(manifest);
                let manifest = Manifest::parse(manifest)?;
                let release = manifest.slot_header()?.release;
                if self.config.only.is_some_and(|only| only != (hash, release)) {
                    return Err(Refusal::NotOffered {
                        same: self.config.only.map(|o| o.0) == Some(hash),
                        release,
                    }
                    .into());
                }
                self.config.policy.check_manifest(&manifest)?;
                let copies = read_state(medium, |_| false).map_err(InstallError::Medium)?;
                if !self.config.check_only && !copies.state.is_confirmed(self.config.running) {
                    return Err(Refusal::OnTrial.into());
                }
                self.header = manifest.slot_header()?;
                self.manifest = Some(manifest);
                self.signed = bytes.to_vec();
                self.offset = (PREFIX + bytes.len()) as u64;
                self.phase = Phase::Table;
            }
            Phase::Table => self.feed_table(bytes)?,
            Phase::Chunk => {
                let entry = *self.table.get(self.chunk as usize).ok_or(InstallError::Driver)?;
                let chunk = self.unpacker.unpack(self.chunk, &entry, bytes)?;
                Self::accept(&self.config, &mut self.writer, &mut self.part_hash, medium, chunk)?;
                self.chunk_is_done(medium, &entry)?;
            }
            _ => return Err(InstallError::Driver),
        }
        Ok(())
    }

    /// Does the next piece of what needs no bytes of the bundle: some 128 KiB are read or written.
    ///
    /// # Errors
    /// See [`InstallError`].
    pub fn work<M: Medium>(&mut self, medium: &mut M) -> Result<(), InstallError<M::Error>> {
        match &mut self.phase {
            Phase::Reuse => {
                let more = match &mut self.reuse {
                    Some(reuse) => reuse.step(medium, &mut self.buffer).map_err(InstallError::Medium)?,
                    None => false,
                };
                if !more {
                    self.phase = Phase::Resume { chunk: 0 };
                }
                Ok(())
            }
            Phase::Resume { chunk } => {
                let chunk = *chunk;
                self.resume(medium, chunk)
            }
            Phase::Erase => self.erase(medium),
            Phase::Chunk => self.take_from_running(medium),
            Phase::Verify { .. } => self.verify(medium),
            Phase::Activate => self.activate(medium),
            _ => Err(InstallError::Driver),
        }
    }

    fn chunks(&self) -> u32 {
        self.manifest.as_ref().map_or(0, Manifest::chunks)
    }

    fn has(&self, entry: &Entry) -> bool {
        self.reuse.as_ref().is_some_and(|r| r.find(&entry.sha256).is_some())
    }

    /// The part that a chunk belongs to, the part's first chunk, and its first byte in the slot.
    fn part_of(&self, chunk: u32) -> Option<(&BundlePart, u32, u64)> {
        let mut first = 0u32;
        for part in self.manifest.as_ref().map_or(&[][..], |m| &m.parts) {
            let next = first.saturating_add(part.chunks);
            if chunk < next {
                return Some((part, first, part.kind.place(&self.header).0));
            }
            first = next;
        }
        None
    }

    fn feed_table<E>(&mut self, bytes: &[u8]) -> Result<(), InstallError<E>> {
        self.table_hash.update(bytes);
        for entry in bytes.as_chunks::<ENTRY>().0 {
            self.table.push(Entry::parse(entry)?);
        }
        self.offset += bytes.len() as u64;
        if (self.table.len() as u32) < self.chunks() {
            return Ok(());
        }
        let manifest = self.manifest.as_ref().ok_or(InstallError::Driver)?;
        if <[u8; 32]>::from(self.table_hash.finalize_reset()) != manifest.table {
            return Err(Refusal::Table.into());
        }
        // Each part's chunks make up the part: nothing ever unpacks to more than the manifest says.
        let mut entries = self.table.iter();
        for part in &manifest.parts {
            let size: u64 = entries.by_ref().take(part.chunks as usize).map(|e| u64::from(e.size)).sum();
            if size != u64::from(part.size) {
                return Err(Refusal::Format("a part's chunks don't make up the part").into());
            }
        }
        let needed = self.offset + self.table.iter().map(|e| u64::from(e.stored)).sum::<u64>();
        match self.config.total {
            Some(has) if has < needed => return Err(Refusal::Truncated { has, needed }.into()),
            Some(has) if has > needed => return Err(Refusal::Trailing { extra: has - needed }.into()),
            _ => {}
        }
        if self.config.check_only {
            self.phase = Phase::Chunk;
            return Ok(());
        }
        if self.config.reuse {
            let [a, b] = self.config.partitions;
            let running = if self.config.running == Slot::A { a } else { b };
            self.reuse = Some(Reuse::new(running));
        }
        self.phase = Phase::Reuse;
        Ok(())
    }

    /// Looks whether the medium holds a chunk already; the first one that it does not hold is where writing begins.
    fn resume<M: Medium>(&mut self, medium: &mut M, chunk: u32) -> Result<(), InstallError<M::Error>> {
        let Some((entry, (_, first, start))) =
            self.table.get(chunk as usize).copied().zip(self.part_of(chunk))
        else {
            // All of it is there.
            self.chunk = chunk;
            self.phase = Phase::Erase;
            return Ok(());
        };
        let before: u64 = self.between(first, chunk);
        let same = self.on_medium(medium, start + before, entry.size as usize)? == entry.sha256;
        if same {
            self.done += u64::from(entry.size);
            self.offset += u64::from(entry.stored);
            self.phase = Phase::Resume { chunk: chunk + 1 };
        } else {
            self.chunk = chunk;
            self.writer.seek(medium, start + before).map_err(InstallError::Medium)?;
            self.phase = Phase::Erase;
        }
        Ok(())
    }

    fn between(&self, first: u32, chunk: u32) -> u64 {
        let count = chunk.saturating_sub(first) as usize;
        self.table.iter().skip(first as usize).take(count).map(|e| u64::from(e.size)).sum()
    }

    /// Hash of bytes of the slot that is written.
    fn on_medium<M: Medium>(
        &mut self,
        medium: &mut M,
        at: u64,
        len: usize,
    ) -> Result<[u8; 32], InstallError<M::Error>> {
        let skip = (at % BLOCK as u64) as usize;
        self.buffer.resize(MAX_CHUNK + 2 * BLOCK, 0);
        let span = (skip + len).next_multiple_of(BLOCK);
        let buffer = self.buffer.get_mut(..span).ok_or(InstallError::Driver)?;
        medium.read(self.writer.start + at - skip as u64, buffer).map_err(InstallError::Medium)?;
        Ok(sha256(buffer.get(skip..skip + len).unwrap_or_default()))
    }

    /// The slot is no longer one to boot: first for the boot state, then by its header.
    fn erase<M: Medium>(&mut self, medium: &mut M) -> Result<(), InstallError<M::Error>> {
        let target = self.target();
        let copies = read_state(medium, |_| false).map_err(InstallError::Medium)?;
        if copies.state.left(target) > 0 {
            write_state(medium, copies.write_to, &copies.state.marked_bad(target))?;
        }
        let start = self.writer.start;
        medium.write(start, &[0; SECTOR]).and_then(|()| medium.sync()).map_err(InstallError::Medium)?;
        if self.read_header(medium)? != [0; SECTOR] {
            return Err(InstallError::ReadBack("header"));
        }
        self.phase = Phase::Chunk;
        if self.chunk >= self.chunks() {
            self.all_is_written(medium)?;
        }
        Ok(())
    }

    fn read_header<M: Medium>(&mut self, medium: &mut M) -> Result<[u8; SECTOR], InstallError<M::Error>> {
        let mut sector = [0; SECTOR];
        medium.read(self.writer.start, &mut sector).map_err(InstallError::Medium)?;
        Ok(sector)
    }

    /// Copies the next chunk from the running slot; if the medium no longer gives what it gave, it is asked for.
    fn take_from_running<M: Medium>(&mut self, medium: &mut M) -> Result<(), InstallError<M::Error>> {
        let entry = *self.table.get(self.chunk as usize).ok_or(InstallError::Driver)?;
        let Some(reuse) = &mut self.reuse else { return Err(InstallError::Driver) };
        let Some(chunk) = reuse.fetch(medium, &entry, &mut self.buffer).map_err(InstallError::Medium)? else {
            return Ok(());
        };
        Self::accept(&self.config, &mut self.writer, &mut self.part_hash, medium, chunk)?;
        self.reused += u64::from(entry.size);
        self.chunk_is_done(medium, &entry)
    }

    fn accept<M: Medium>(
        config: &InstallConfig,
        writer: &mut Writer,
        hash: &mut Sha256,
        medium: &mut M,
        chunk: &[u8],
    ) -> Result<(), InstallError<M::Error>> {
        if config.check_only {
            hash.update(chunk);
            return Ok(());
        }
        writer.append(medium, chunk).map_err(InstallError::Medium)
    }

    fn chunk_is_done<M: Medium>(
        &mut self,
        medium: &mut M,
        entry: &Entry,
    ) -> Result<(), InstallError<M::Error>> {
        self.done += u64::from(entry.size);
        self.offset += u64::from(entry.stored);
        let (part, first, _) = self.part_of(self.chunk).ok_or(InstallError::Driver)?;
        let (last, kind, hash) = (first + part.chunks == self.chunk + 1, part.kind, part.sha256);
        self.chunk += 1;
        if last && self.config.check_only && <[u8; 32]>::from(self.part_hash.finalize_reset()) != hash {
            return Err(Refusal::Part(kind).into());
        }
        if !last || self.config.check_only {
            if last && self.chunk == self.chunks() {
                self.phase = Phase::Done;
            }
            return Ok(());
        }
        match self.part_of(self.chunk) {
            Some((_, _, start)) => {
                self.writer.finish(medium).map_err(InstallError::Medium)?;
                self.writer.at = start;
                Ok(())
            }
            None => self.all_is_written(medium),
        }
    }

    fn all_is_written<M: Medium>(&mut self, medium: &mut M) -> Result<(), InstallError<M::Error>> {
        self.writer.finish(medium).and_then(|()| medium.sync()).map_err(InstallError::Medium)?;
        self.done = 0;
        self.phase = Phase::Verify { part: 0, at: 0, hash: Sha256::new() };
        Ok(())
    }

    /// Reads the slot back, a piece at a time.
    fn verify<M: Medium>(&mut self, medium: &mut M) -> Result<(), InstallError<M::Error>> {
        let Phase::Verify { part, at, hash } = &mut self.phase else { return Err(InstallError::Driver) };
        let Some(p) = self.manifest.as_ref().and_then(|m| m.parts.get(*part)) else {
            self.phase = Phase::Activate;
            return Ok(());
        };
        let left = u64::from(p.size).saturating_sub(*at);
        let len = left.min(MAX_CHUNK as u64) as usize;
        let buffer = self.buffer.get_mut(..len.next_multiple_of(BLOCK)).ok_or(InstallError::Driver)?;
        medium
            .read(self.writer.start + p.kind.place(&self.header).0 + *at, buffer)
            .map_err(InstallError::Medium)?;
        hash.update(buffer.get(..len).unwrap_or_default());
        *at += len as u64;
        self.done += len as u64;
        if *at < u64::from(p.size) {
            return Ok(());
        }
        if <[u8; 32]>::from(hash.finalize_reset()) != p.sha256 {
            return Err(InstallError::ReadBack(p.kind.name()));
        }
        *part += 1;
        *at = 0;
        Ok(())
    }

    /// The header, and only then the boot state.
    fn activate<M: Medium>(&mut self, medium: &mut M) -> Result<(), InstallError<M::Error>> {
        let header = self.manifest.as_ref().ok_or(InstallError::Driver)?.header;
        let start = self.writer.start;
        medium.write(start, &header).and_then(|()| medium.sync()).map_err(InstallError::Medium)?;
        if self.read_header(medium)? != header {
            return Err(InstallError::ReadBack("header"));
        }
        let copies = read_state(medium, |_| false).map_err(InstallError::Medium)?;
        write_state(medium, copies.write_to, &copies.state.activated(self.target()))?;
        self.phase = Phase::Done;
        Ok(())
    }
}

/// Writes bytes that come in any length as whole blocks.
struct Writer {
    /// Where the slot begins on the medium.
    start: u64,
    /// Where `pending` belongs, from the slot's start; a multiple of [`BLOCK`].
    at: u64,
    pending: Vec<u8>,
}

impl Writer {
    const fn new(start: u64) -> Self {
        Self { start, at: 0, pending: Vec::new() }
    }

    /// Goes on at `at`, with what the medium has of that block before it.
    fn seek<M: Medium>(&mut self, medium: &mut M, at: u64) -> Result<(), M::Error> {
        let skip = (at % BLOCK as u64) as usize;
        self.at = at - skip as u64;
        self.pending.clear();
        if skip > 0 {
            self.pending.resize(BLOCK, 0);
            medium.read(self.start + self.at, &mut self.pending)?;
            self.pending.truncate(skip);
        }
        Ok(())
    }

    fn append<M: Medium>(&mut self, medium: &mut M, bytes: &[u8]) -> Result<(), M::Error> {
        self.pending.extend_from_slice(bytes);
        let whole = self.pending.len() - self.pending.len() % BLOCK;
        self.write(medium, whole)
    }

    /// Fills up the last block with zeros.
    fn finish<M: Medium>(&mut self, medium: &mut M) -> Result<(), M::Error> {
        let whole = self.pending.len().next_multiple_of(BLOCK);
        self.pending.resize(whole, 0);
        self.write(medium, whole)
    }

    fn write<M: Medium>(&mut self, medium: &mut M, len: usize) -> Result<(), M::Error> {
        if len == 0 {
            return Ok(());
        }
        medium.write(self.start + self.at, self.pending.get(..len).unwrap_or_default())?;
        self.at += len as u64;
        self.pending.drain(..len);
        Ok(())
    }
}

//! IPNS records: those put on this node, kept on its disk, and those learned from other nodes, kept for
//! a while.
//!
//! A node may have no clock. A record's end counts only when the time of day is known: when the system's
//! clock says it is after the day this program was written.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use content_id::ipns::{MAX_RECORD, Name, Record, RecordError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::ask;
use crate::node::Scope;
use crate::peers::Peers;

/// Records kept on the disk, 10 KiB at most each.
const MAX_KEPT: usize = 1024;
/// Records of other nodes remembered.
const MAX_LEARNED: usize = 256;
/// Nodes asked for one name, the nearest ones.
const MAX_ASKED: usize = 16;
/// Names asked for at the same time.
const MAX_QUESTIONS: usize = 4;
/// Time for all of them together.
const ASK: Duration = Duration::from_secs(4);
/// The longest a learned record is used without asking again, whatever it says.
const MAX_FRESH: Duration = Duration::from_secs(60);
/// And the shortest.
const MIN_FRESH: Duration = Duration::from_secs(5);
/// 2026-01-01: a clock that says less is not set.
const CLOCK_IS_SET: Duration = Duration::from_secs(1_767_225_600);

/// A record and its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) record: Record,
    pub(crate) bytes: Arc<[u8]>,
}

/// One that came from another node, or the news that none has it.
struct Learned {
    known: Option<Known>,
    until: Instant,
}

#[derive(Default)]
struct Inner {
    kept: BTreeMap<Name, Known>,
    learned: BTreeMap<Name, Learned>,
}

/// Why a record is not taken.
#[derive(Debug)]
pub(crate) enum PutError {
    Record(RecordError),
    /// A newer one is known.
    Older,
    /// [`MAX_KEPT`] names are kept.
    Full,
    Disk(io::Error),
}

impl fmt::Display for PutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(e) => e.fmt(f),
            Self::Older => f.write_str("a newer record of this name is known here"),
            Self::Full => write!(f, "this node keeps {MAX_KEPT} names already"),
            Self::Disk(e) => write!(f, "the record could not be kept: {e}"),
        }
    }
}

/// The names this node knows.
pub(crate) struct Names {
    folder: PathBuf,
    inner: Mutex<Inner>,
    questions: Semaphore,
}

/// The time of day in nanoseconds since 1970, if it is known.
pub(crate) fn now() -> Option<i128> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    (since >= CLOCK_IS_SET).then_some(since.as_nanos() as i128)
}

impl Names {
    /// Those in `folder`; files that are no records are left alone, and logged.
    pub(crate) fn open(folder: PathBuf) -> Self {
        let mut kept = BTreeMap::new();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten().take(MAX_KEPT) {
            let path = entry.path();
            match load(&path) {
                Ok((name, known)) => drop(kept.insert(name, known)),
                Err(why) => log::warn!(target: "names", "{}: {why}", path.display()),
            }
        }
        let inner = Mutex::new(Inner { kept, learned: BTreeMap::new() });
        Self { folder, inner, questions: Semaphore::new(MAX_QUESTIONS) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record that is kept here and not expired.
    pub(crate) fn kept(&self, name: &Name) -> Option<Known> {
        let known = self.lock().kept.get(name).cloned()?;
        now().is_none_or(|now| now < known.record.ends).then_some(known)
    }

    /// Checks a record and keeps it, on the disk when this returns.
    pub(crate) async fn put(self: &Arc<Self>, name: Name, bytes: Vec<u8>) -> Result<Record, PutError> {
        let record = Record::verify(&name, &bytes, now()).map_err(PutError::Record)?;
        {
            let inner = self.lock();
            match inner.kept.get(&name) {
                Some(known) if known.record.is_newer_than(&record) => return Err(PutError::Older),
                None if inner.kept.len() >= MAX_KEPT => return Err(PutError::Full),
                _ => {}
            }
        }
        let (names, known) = (Arc::clone(self), Known { record: record.clone(), bytes: bytes.into() });
        let write = move || {
            fs::create_dir_all(&names.folder)?;
            mesh_sys::file::write_atomic(&names.folder.join(name.to_string()), &known.bytes, 0o644)?;
            let mut inner = names.lock();
            inner.learned.remove(&name);
            inner.kept.insert(name, known);
            Ok(())
        };
        let written = tokio::task::spawn_blocking(write).await.unwrap_or_else(|e| Err(io::Error::other(e)));
        written.map_err(PutError::Disk)?;
        Ok(record)
    }

    /// The newest record of a name: from here and, if `scope` says so, from the nodes around.
    pub(crate) async fn find(&self, peers: &Arc<Peers>, name: &Name, scope: Scope) -> Option<Known> {
        let own = self.kept(name);
        if scope == Scope::Local {
            return own;
        }
        let other = match self.learned(name) {
            Some(known) => known,
            None => {
                let _turn = self.questions.acquire().await;
                // somebody else may have asked for it meanwhile
                match self.learned(name) {
                    Some(known) => known,
                    None => {
                        let found = ask_around(peers, name).await;
                        self.learn(name, found.clone());
                        found
                    }
                }
            }
        };
        match (own, other) {
            (Some(own), Some(other)) if other.record.is_newer_than(&own.record) => Some(other),
            (own, other) => own.or(other),
        }
    }

    /// What other nodes said a moment ago.
    fn learned(&self, name: &Name) -> Option<Option<Known>> {
        let inner = self.lock();
        inner.learned.get(name).filter(|l| l.until > Instant::now()).map(|l| l.known.clone())
    }

    fn learn(&self, name: &Name, known: Option<Known>) {
        let ttl = known.as_ref().map_or(MIN_FRESH, |k| Duration::from_nanos(k.record.ttl));
        let until = Instant::now() + ttl.clamp(MIN_FRESH, MAX_FRESH);
        let mut inner = self.lock();
        if inner.learned.len() >= MAX_LEARNED {
            let now = Instant::now();
            inner.learned.retain(|_, l| l.until > now);
        }
        if inner.learned.len() < MAX_LEARNED {
            inner.learned.insert(name.clone(), Learned { known, until });
        }
    }
}

fn load(path: &Path) -> Result<(Name, Known), String> {
    let name = path.file_name().and_then(|n| n.to_str()).and_then(Name::parse).ok_or("not a name")?;
    let length = fs::metadata(path).map_err(|e| e.to_string())?.len();
    if length > MAX_RECORD as u64 {
        return Err(format!("{length} bytes are no record"));
    }
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    // one that has ended meanwhile stays: it tells which sequence numbers are old
    let record = Record::verify(&name, &bytes, None).map_err(|e| e.to_string())?;
    Ok((name, Known { record, bytes: bytes.into() }))
}

/// Asks the nearest nodes; the newest record wins.
async fn ask_around(peers: &Arc<Peers>, name: &Name) -> Option<Known> {
    let path = format!("/ipns/{name}?format=ipns-record");
    let mut asked = JoinSet::new();
    for address in peers.candidates().await.into_iter().take(MAX_ASKED) {
        let path = path.clone();
        asked.spawn(async move { ask::get(address, &path, MAX_RECORD).await });
    }
    let mut best: Option<Known> = None;
    let collect = async {
        while let Some(answer) = asked.join_next().await {
            let Ok(Some(bytes)) = answer else { continue };
            match Record::verify(name, &bytes, now()) {
                Ok(record) if best.as_ref().is_none_or(|b| record.is_newer_than(&b.record)) => {
                    best = Some(Known { record, bytes: bytes.into() });
                }
                Ok(_) => {}
                Err(e) => log::debug!(target: "names", "a record of {name} from another node: {e}"),
            }
        }
    };
    // whoever is late is not waited for
    let _ = tokio::time::timeout(ASK, collect).await;
    best
}

//! `--record`: all that happens to the cores, in a file (its format: [`olsrv2::recording`]).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use olsrv2::recording::{self, End, Recorder};

/// A recording is useless without its beginning; so it ends when it has grown to this, in bytes.
const LIMIT: u64 = 64 << 20;

/// The file, while it is written.
#[derive(Debug)]
pub(crate) struct RecordFile {
    path: PathBuf,
    file: Option<File>,
    limit: u64,
    written: u64,
    problem: Option<String>,
}

impl RecordFile {
    /// Begins a new one in place of what is there; an error is for people.
    pub(crate) fn create(path: &Path) -> Result<Self, String> {
        Self::with_limit(path, LIMIT)
    }

    fn with_limit(path: &Path, limit: u64) -> Result<Self, String> {
        let failed = |e| format!("--record {}: {e}", path.display());
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
        let mut this = Self { path: path.into(), file: Some(file), limit, written: 0, problem: None };
        let mut bytes = Vec::new();
        recording::header(concat!("mesh-router ", env!("CARGO_PKG_VERSION")), &mut bytes);
        this.write(&bytes);
        Ok(this)
    }

    /// Adds what was recorded of each core.
    pub(crate) fn keep<'a>(&mut self, recorders: impl Iterator<Item = &'a mut Option<Recorder>>) {
        let mut bytes = Vec::new();
        for (who, slot) in (0..recording::END).zip(recorders) {
            let entries = slot.as_mut().map(Recorder::take).unwrap_or_default();
            if !entries.is_empty() {
                recording::block(who, &entries, &mut bytes);
            }
            if self.file.is_none() {
                *slot = None;
            }
        }
        if bytes.is_empty() || self.file.is_none() {
            return;
        }
        if self.written + bytes.len() as u64 > self.limit {
            let text = format!("{}: the recording is full, it ends here", self.path.display());
            return self.stop(End::Full, Some(text));
        }
        self.write(&bytes);
    }

    /// The last mark.
    pub(crate) fn end(&mut self) {
        self.stop(End::Stopped, None);
    }

    /// What a person should know.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    fn stop(&mut self, why: End, problem: Option<String>) {
        let mut bytes = Vec::new();
        recording::end(why, &mut bytes);
        self.write(&bytes);
        self.file = None;
        self.note(problem);
    }

    fn write(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        self.written += bytes.len() as u64;
        // Not buffered: what came before a crash is what one wants to see.
        if let Err(e) = file.write_all(bytes) {
            self.file = None;
            self.note(Some(format!("{}: {e}; the recording ends here", self.path.display())));
        }
    }

    fn note(&mut self, problem: Option<String>) {
        problem.iter().for_each(|text| log::warn!("{text}"));
        self.problem = problem.or(self.problem.take());
    }
}

#[cfg(test)]
mod tests {
    use mesh_types::Instant;
    use olsrv2::recording::{Recording, What};
    use olsrv2::{Config, Input};

    use super::*;

    #[test]
    fn a_full_recording_ends_with_whole_entries_and_says_so() {
        let path = std::env::temp_dir().join(format!("mesh-router-recording-{}", std::process::id()));
        let mut file = RecordFile::with_limit(&path, 500).unwrap();
        let config = Config::new("fd00::1".parse().unwrap());
        let mut recorder = Some(Recorder::new(&config, 7, Instant::ZERO));
        for n in 0..100 {
            let now = Instant::from_millis(n);
            if let Some(recorder) = &mut recorder {
                let source = "fe80::2".parse().unwrap();
                recorder.input(now, &Input::Packet { interface: 1, source, bytes: &[0; 20] });
            }
            file.keep([&mut recorder].into_iter());
        }
        assert!(recorder.is_none(), "nothing is gathered any more");
        assert!(file.problem().unwrap().contains("full"));
        file.end();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(bytes.len() <= 503, "{}", bytes.len());
        let entries: Vec<_> = Recording::open(&bytes).unwrap().map(Result::unwrap).collect();
        assert!(matches!(entries.last().unwrap().what, What::End(End::Full)));
        assert!(entries.len() > 5);
    }
}

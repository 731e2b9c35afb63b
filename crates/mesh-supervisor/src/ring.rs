//! The log of one service: two files in RAM that take turns, so that the newest lines are always there and
//! their size has a limit.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use mesh_types::Instant;

/// Each of the two files takes up to that many bytes.
const HALF: u64 = 48 * 1024;
/// A longer line is cut.
const MAX_LINE: usize = 2048;

/// A log being written.
#[derive(Debug)]
pub(crate) struct Ring {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    partial: Vec<u8>,
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("log.old")
}

impl Ring {
    /// Goes on with the log of `name` in `dir`.
    pub(crate) fn open(dir: &Path, name: &str) -> io::Result<Self> {
        let path = dir.join(format!("{name}.log"));
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file: Some(file), size, partial: Vec::new() })
    }

    /// A log that keeps nothing, for when the RAM disk is full.
    pub(crate) fn nowhere() -> Self {
        Self { path: PathBuf::new(), file: None, size: 0, partial: Vec::new() }
    }

    /// Takes output as it comes; each whole line is stamped with the time since boot.
    pub(crate) fn push(&mut self, now: Instant, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = MAX_LINE.saturating_sub(self.partial.len());
            self.partial.extend_from_slice(text.get(..room.min(text.len())).unwrap_or_default());
            if whole {
                self.finish_line(now);
            }
        }
    }

    /// Writes one line of the supervisor's own.
    pub(crate) fn note(&mut self, now: Instant, line: &str) {
        if !self.partial.is_empty() {
            self.finish_line(now);
        }
        self.push(now, line.as_bytes());
        self.push(now, b"\n");
    }

    fn finish_line(&mut self, now: Instant) {
        let mut line = format!("[{:5}.{:03}] ", now.as_micros() / 1_000_000, now.as_micros() / 1_000 % 1_000);
        // Nothing that a service prints may move the cursor of who reads the log.
        line.extend(
            String::from_utf8_lossy(&self.partial).chars().map(|c| if c.is_control() { ' ' } else { c }),
        );
        line.push('\n');
        self.partial.clear();
        if self.size + line.len() as u64 > HALF && fs::rename(&self.path, old(&self.path)).is_ok() {
            self.file = File::create(&self.path).ok();
            self.size = 0;
        }
        if let Some(file) = &mut self.file
            && file.write_all(line.as_bytes()).is_ok()
        {
            self.size += line.len() as u64;
        }
    }
}

/// The last whole lines of a log, at most `lines` and `bytes` of them.
pub(crate) fn tail(dir: &Path, name: &str, lines: usize, bytes: u64) -> Vec<String> {
    let path = dir.join(format!("{name}.log"));
    let mut text = read_end(&path, bytes);
    if (text.len() as u64) < bytes {
        let mut before = read_end(&old(&path), bytes - text.len() as u64);
        before.append(&mut text);
        text = before;
    }
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    // The first line may be cut off at its front.
    let cut = usize::from(from == 0 && text.len() as u64 >= bytes);
    all.into_iter().skip(from + cut).map(str::to_owned).collect()
}

fn read_end(path: &Path, bytes: u64) -> Vec<u8> {
    let mut end = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let size = file.metadata().map_or(0, |m| m.len());
        let _ = file.seek(SeekFrom::Start(size.saturating_sub(bytes)));
        let _ = file.take(bytes).read_to_end(&mut end);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("mesh-supervisor-ring-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn lines_are_stamped_cleaned_and_cut() {
        let dir = dir("lines");
        let mut ring = Ring::open(&dir, "s").unwrap();
        ring.push(Instant::from_millis(1_234), b"one\ntw");
        ring.push(Instant::from_millis(2_000), b"o\x1b[2J\n\xff\n");
        ring.push(Instant::ZERO, &vec![b'x'; 100_000]);
        ring.note(Instant::ZERO, "note");
        let lines = tail(&dir, "s", 100, 1 << 20);
        assert_eq!(&lines[..3], ["[    1.234] one", "[    2.000] two [2J", "[    2.000] \u{fffd}"]);
        assert_eq!((lines[3].len(), lines[4].as_str()), (MAX_LINE + 12, "[    0.000] note"));
        assert_eq!(tail(&dir, "s", 1, 1 << 20), ["[    0.000] note"]);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_newest_lines_survive_and_the_size_has_a_limit() {
        let dir = dir("turns");
        for round in 0..3 {
            let mut ring = Ring::open(&dir, "s").unwrap(); // a new supervisor goes on
            for i in 0..5_000 {
                ring.note(Instant::ZERO, &format!("{round} line {i}"));
            }
        }
        let size: u64 = fs::read_dir(&dir).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(size <= 2 * HALF, "{size}");
        let lines = tail(&dir, "s", 1_000, 1 << 20);
        assert_eq!((lines.len(), lines[999].as_str()), (1_000, "[    0.000] 2 line 4999"));
        assert!(tail(&dir, "s", 1_000, 500).len() < 30);
        assert!(tail(&dir, "none", 10, 500).is_empty());
        fs::remove_dir_all(&dir).unwrap();
    }
}

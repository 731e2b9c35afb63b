//! How far long work has come: bytes, rate and time left, on a terminal; nothing on a pipe.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::table::{bytes, span};

/// Work that is done sooner shows nothing.
const QUIET: Duration = Duration::from_millis(500);
/// Time between two looks at the clock that show something.
const PERIOD: Duration = Duration::from_millis(200);

/// A line on standard error, rewritten in place, and taken away at the end.
#[derive(Debug)]
pub(crate) struct Line {
    /// Characters on the screen; `None`: nobody looks.
    width: Option<usize>,
}

impl Line {
    /// On a terminal, unless it is not wanted.
    pub(crate) fn new(wanted: bool) -> Self {
        Self { width: (wanted && std::io::stderr().is_terminal()).then_some(0) }
    }

    pub(crate) fn write(&mut self, text: &str) {
        if let Some(width) = &mut self.width {
            let _ = write!(std::io::stderr(), "\r{text:width$}");
            *width = text.chars().count();
        }
    }

    /// Takes it away, so that others can write.
    pub(crate) fn clear(&mut self) {
        if let Some(width) = self.width.as_mut().filter(|width| **width > 0) {
            let _ = write!(std::io::stderr(), "\r{:width$}\r", "");
            *width = 0;
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Bytes that are done.
#[derive(Debug)]
pub(crate) struct Progress {
    line: Line,
    start: Instant,
    next: Instant,
    total: Option<u64>,
    done: u64,
}

impl Progress {
    /// On a terminal, unless it is not wanted. `total` in bytes, if it is known.
    pub(crate) fn new(wanted: bool, total: Option<u64>) -> Self {
        let start = Instant::now();
        Self { line: Line::new(wanted), start, next: start + QUIET, total, done: 0 }
    }

    /// Whether anyone looks: what only serves the display need not be found out otherwise.
    pub(crate) const fn is_shown(&self) -> bool {
        self.line.width.is_some()
    }

    pub(crate) const fn set_total(&mut self, total: Option<u64>) {
        self.total = total;
    }

    /// So many more bytes are done.
    pub(crate) fn more(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        if !self.is_shown() {
            return;
        }
        let now = Instant::now();
        if now >= self.next {
            self.next = now + PERIOD;
            self.line.write(&line(self.done, self.total, now.saturating_duration_since(self.start)));
        }
    }

    /// Takes the line away, so that others can write.
    pub(crate) fn clear(&mut self) {
        self.line.clear();
    }
}

fn line(done: u64, total: Option<u64>, took: Duration) -> String {
    let millis = took.as_millis().max(1);
    let rate = u64::try_from(u128::from(done) * 1000 / millis).unwrap_or(u64::MAX);
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!(" {}  {}/s", bytes(done), bytes(rate));
    };
    let percent = u128::from(done) * 100 / u128::from(total);
    let left = u128::from(total.saturating_sub(done)) * 1000 / u128::from(rate.max(1));
    let left = span(u64::try_from(left).unwrap_or(u64::MAX));
    format!(" {} / {}  {}%  {}/s  {left} left", bytes(done), bytes(total), percent.min(100), bytes(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_rate_and_time_left() {
        let two = Duration::from_secs(2);
        assert_eq!(line(20 << 20, Some(200 << 20), two), " 20 MiB / 200 MiB  10%  10 MiB/s  18 s left");
        assert_eq!(line(1 << 20, None, two), " 1 MiB  512 KiB/s");
        assert_eq!(line(0, Some(0), Duration::ZERO), " 0 B  0 B/s");
        assert_eq!(line(30, Some(20), two), " 30 B / 20 B  100%  15 B/s  0 ms left");
    }

    #[test]
    fn nobody_looks_at_a_pipe() {
        let mut progress = Progress::new(false, Some(10));
        progress.more(10);
        assert!(!progress.is_shown());
    }
}

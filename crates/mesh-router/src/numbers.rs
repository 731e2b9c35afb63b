//! Sequence numbers that go on where the last run stopped (RFC 7181 §5.4.1), without a write a message.
//!
//! The file says which numbers may have been used: the present ones plus a reserve. A start after a crash
//! takes the file's numbers as they are, which is ahead of all that were used. A clean end writes the exact
//! ones. Text, one line: `2 <message6> <ansn6> <packet6> <message4> <ansn4> <packet4> <record> <start>`.
//!
//! `<start>` counts the starts. It is the upper half of the counter that numbers signed messages (RFC 7182
//! §13.8), so that none of them ever comes again; it has to be in the file before the first is sent.

use std::io;
use std::path::PathBuf;

use mesh_sys::file;
use olsrv2::Sequences;

/// Far less than half of the 16-bit circle, so that "ahead" is still "newer", also after several crashes in
/// a row.
const RESERVE: u16 = 2_048;
const RECORD_RESERVE: u32 = 1_024;

/// All numbers of the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) v6: Sequences,
    pub(crate) v4: Sequences,
    /// The version of the last record published.
    pub(crate) record: u32,
    /// Which start of the service this is.
    pub(crate) start: u32,
}

/// The file and what it promises.
#[derive(Debug)]
pub(crate) struct NumberFile {
    path: PathBuf,
    promised: Option<Numbers>,
}

impl NumberFile {
    /// The file of that name, and the numbers to start with, if there are any.
    pub(crate) fn open(path: PathBuf) -> (Self, Option<Numbers>) {
        let found = file::read_limited(&path, 256).ok().and_then(|bytes| parse(&bytes));
        (Self { path, promised: None }, found)
    }

    /// Makes sure that the file is ahead of `now`; writes only when it is not, or soon will not be.
    pub(crate) fn keep_ahead(&mut self, now: &Numbers) -> io::Result<()> {
        if self.promised.is_some_and(|p| is_ahead(&p, now)) {
            return Ok(());
        }
        let promise = Numbers {
            v6: advance(now.v6),
            v4: advance(now.v4),
            record: now.record.saturating_add(RECORD_RESERVE),
            start: now.start,
        };
        self.write(&promise)?;
        self.promised = Some(promise);
        Ok(())
    }

    /// Writes the exact numbers, at the end.
    pub(crate) fn write(&self, n: &Numbers) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let [a, b] = [n.v6, n.v4].map(|s| format!("{} {} {}", s.message, s.ansn, s.packet));
        file::write_atomic(&self.path, format!("2 {a} {b} {} {}\n", n.record, n.start).as_bytes(), 0o640)
    }
}

fn advance(s: Sequences) -> Sequences {
    let step = |n: u16| n.wrapping_add(RESERVE);
    Sequences { message: step(s.message), ansn: step(s.ansn), packet: step(s.packet) }
}

/// At least a quarter of the reserve is left of the numbers that others compare. Those of packets, which grow
/// fastest, only tell of losses.
fn is_ahead(promise: &Numbers, now: &Numbers) -> bool {
    let left = |p: u16, n: u16| (RESERVE / 4..=RESERVE).contains(&p.wrapping_sub(n));
    let both = [(promise.v6, now.v6), (promise.v4, now.v4)];
    both.iter().all(|(p, n)| left(p.message, n.message) && left(p.ansn, n.ansn))
        && promise.record.saturating_sub(now.record) >= RECORD_RESERVE / 4
}

fn parse(bytes: &[u8]) -> Option<Numbers> {
    let mut words = std::str::from_utf8(bytes).ok()?.split_whitespace();
    let with_start = match words.next()? {
        "1" => false,
        "2" => true,
        _ => return None,
    };
    let mut next = || words.next()?.parse::<u16>().ok();
    let mut three = || Some(Sequences { message: next()?, ansn: next()?, packet: next()? });
    let (v6, v4) = (three()?, three()?);
    let record = words.next()?.parse().ok()?;
    let start = if with_start { words.next()?.parse().ok()? } else { 0 };
    words.next().is_none().then_some(Numbers { v6, v4, record, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u16) -> Numbers {
        let s = Sequences { message: n, ansn: n, packet: n };
        Numbers { v6: s, v4: s, record: n.into(), start: 3 }
    }

    #[test]
    fn rfc7181_5_4_1_numbers_go_on_after_a_crash_and_after_a_clean_end() {
        let dir = std::env::temp_dir().join(format!("mesh-router-numbers-{}", std::process::id()));
        let path = dir.join("deep/sequences");
        let (mut file, found) = NumberFile::open(path.clone());
        assert_eq!(found, None);
        file.keep_ahead(&at(65_000)).unwrap();
        let after_crash = NumberFile::open(path.clone()).1.unwrap();
        assert_eq!(after_crash.v6.message, 65_000u16.wrapping_add(RESERVE), "ahead, over the wrap");
        assert_eq!(after_crash.record, 65_000 + RECORD_RESERVE);
        assert_eq!(after_crash.start, 3);
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        file.keep_ahead(&at(65_100)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written, "no write needed");
        file.keep_ahead(&at(65_000u16.wrapping_add(RESERVE - 5))).unwrap();
        assert_ne!(NumberFile::open(path.clone()).1.unwrap(), after_crash);
        file.write(&at(7)).unwrap();
        assert_eq!(NumberFile::open(path).1, Some(at(7)));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_broken_file_counts_as_none() {
        for bad in [
            "",
            "2",
            "3 1 1 1 1 1 1 1 3",
            "2 1 1 1 1 1 1 1",
            "2 1 1 1 1 1 99999 1 3",
            "2 1 1 1 1 1 1 1 3 1",
            "2 1 1 1 1 1 1 1 4294967296",
            "1 1 1 1 1 1 1 1 1",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse(b"2 1 1 1 1 1 1 1 3\n"), Some(at(1)));
        assert_eq!(parse(b"1 1 1 1 1 1 1 1\n"), Some(Numbers { start: 0, ..at(1) }), "the first format");
        assert_eq!(parse(&[0xff; 40]), None);
    }
}

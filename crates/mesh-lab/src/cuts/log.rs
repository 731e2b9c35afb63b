//! Logs of all that was written to a block device, as the kernel's dm-log-writes and QEMU's `blklogwrites` make them.
//!
//! All numbers are 64 bits little-endian unless said otherwise. The first sector of the log: `0x6a736677736872`, version 1,
//! number of entries, and in 32 bits the bytes of a sector. Then the entries, each a sector of its own: first sector on
//! the device, sectors, flags (1 flush, 2 FUA, 4 discard, 8 mark), bytes of a mark; padded with zeros. Behind it the
//! sectors' data, unless it is a discard. The number of entries is brought up to date now and then only, so
//! it is not believed: the log ends where an entry is all zeros or the file does.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use mesh_lab::lab::Result;
use update_core::SECTOR;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const DISCARD: u64 = 4;
/// A card writes what comes in one command in an order of its own; commands of the kernel's driver are not longer.
const COMMAND: usize = 1024;
/// How a commit block of ext4's journal begins (`jbd2_journal_commit_transaction`): it is written when all of its transaction is
/// on the card, so it is never in one command with what stands before it.
const COMMIT: [u8; 8] = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 2];

/// One sector that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// Which, on the card.
    pub(super) sector: u64,
    /// Where its data is in the log.
    at: u64,
}

/// A log that is there as a whole; the data stay in the file.
pub(super) struct Log {
    file: File,
    /// All sectors, in the order in which they were written.
    pub(super) writes: Vec<Write>,
    /// Flushes that the device was asked for.
    pub(super) flushes: usize,
}

impl Log {
    /// Reads what was written where.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bad = |e: std::io::Error| format!("{}: {e}", path.display());
        let file = File::open(path).map_err(bad)?;
        let end = file.metadata().map_err(bad)?.len();
        let mut first = [0; SECTOR];
        file.read_exact_at(&mut first, 0).map_err(bad)?;
        if [word(&first, 0), word(&first, 1), word(&first, 3) & 0xffff_ffff] != [MAGIC, 1, SECTOR as u64] {
            return Err(format!("{}: no log of writes with sectors of {SECTOR} bytes", path.display()));
        }
        let mut log = Self { file, writes: Vec::new(), flushes: 0 };
        let mut at = SECTOR as u64;
        let mut entry = [0; SECTOR];
        while at + SECTOR as u64 <= end {
            log.file.read_exact_at(&mut entry, at).map_err(bad)?;
            let [sector, count, flags] = [word(&entry, 0), word(&entry, 1), word(&entry, 2)];
            if [sector, count, flags] == [0; 3] {
                break;
            }
            at += SECTOR as u64;
            log.flushes += usize::from(count == 0);
            let data = if flags & DISCARD == 0 { count } else { 0 };
            if at + data * SECTOR as u64 > end {
                break; // the emulator was killed while it wrote this
            }
            log.writes.extend((0..data).map(|n| Write { sector: sector + n, at: at + n * SECTOR as u64 }));
            at += data * SECTOR as u64;
        }
        Ok(log)
    }

    /// What was written.
    pub(super) fn data(&self, write: &Write) -> Result<[u8; SECTOR]> {
        let mut data = [0; SECTOR];
        self.file.read_exact_at(&mut data, write.at).map_err(|e| format!("the log: {e}"))?;
        Ok(data)
    }

    /// The writes from the one numbered `from` on that may have been one command: neighbours on the card.
    pub(super) fn command(&self, from: usize) -> Result<&[Write]> {
        let rest = self.writes.get(from..).unwrap_or_default();
        let mut len = rest.len().min(1);
        for pair in rest.windows(2).take(COMMAND - 1) {
            let [a, b] = pair else { break };
            if b.sector != a.sector + 1 || self.data(b)?.starts_with(&COMMIT) {
                break;
            }
            len += 1;
        }
        Ok(rest.get(..len).unwrap_or(rest))
    }
}

fn word(sector: &[u8; SECTOR], n: usize) -> u64 {
    sector.as_chunks::<8>().0.get(n).map_or(0, |b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(words: &[u64]) -> Vec<u8> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.resize(SECTOR, 0);
        bytes
    }

    #[test]
    fn a_log_is_read_to_its_end() {
        let path = std::env::temp_dir().join(format!("mesh-lab-log-{}", std::process::id()));
        let mut bytes = sector(&[MAGIC, 1, 0, SECTOR as u64]);
        bytes.extend(sector(&[7, 2, 0, 0]));
        bytes.extend([[1; SECTOR], [2; SECTOR]].concat());
        bytes.extend(sector(&[9, 100, DISCARD, 0]));
        bytes.extend(sector(&[0, 0, 1, 0]));
        bytes.extend(sector(&[9, 1, 2, 0]));
        bytes.extend([3; SECTOR]);
        // Cut off: its second sector is missing.
        bytes.extend(sector(&[1, 2, 0, 0]));
        bytes.extend([4; SECTOR]);
        std::fs::write(&path, &bytes).unwrap();
        let log = Log::open(&path).unwrap();
        let sectors = |log: &Log| log.writes.iter().map(|w| w.sector).collect::<Vec<_>>();
        assert_eq!(sectors(&log), [7, 8, 9]);
        assert_eq!(log.flushes, 1);
        assert_eq!(log.data(&log.writes[1]).unwrap(), [2; SECTOR]);
        let command = |from| log.command(from).unwrap().len();
        assert_eq!([command(0), command(1), command(2), command(3)], [3, 2, 1, 0]);
        std::fs::write(&path, &bytes[512..]).unwrap();
        assert!(Log::open(&path).is_err());

        // A journal: two blocks and their commit block, then another transaction's.
        let mut commit = sector(&[]);
        commit[..8].copy_from_slice(&COMMIT);
        let mut bytes = sector(&[MAGIC, 1, 0, SECTOR as u64]);
        bytes.extend(
            [sector(&[20, 4, 0, 0]), [sector(&[1]), sector(&[2]), commit, sector(&[3])].concat()].concat(),
        );
        std::fs::write(&path, &bytes).unwrap();
        let log = Log::open(&path).unwrap();
        assert_eq!(sectors(&log), [20, 21, 22, 23]);
        let command = |from| log.command(from).unwrap().len();
        assert_eq!([command(0), command(1), command(2), command(3)], [2, 1, 2, 1]);
        std::fs::remove_file(&path).unwrap();
    }
}

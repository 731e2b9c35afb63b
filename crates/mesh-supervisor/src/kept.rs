//! Ends of logs on the data partition: for each of the last boots a folder, each with a limited size.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::ring;

/// Boots whose logs are kept, the running one included.
const BOOTS: usize = 5;
/// Of each log, per occasion.
const TAIL_BYTES: u64 = 16 * 1024;
/// Of each log, per boot.
const MAX_BYTES: u64 = 64 * 1024;

fn numbered(dir: &Path) -> Vec<(u64, PathBuf)> {
    let mut boots: Vec<(u64, PathBuf)> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.strip_prefix("boot-")?.parse().ok()?, e.path())))
        .collect();
    boots.sort();
    boots
}

/// Makes the folder of a new boot and removes those of old ones.
pub(crate) fn new_boot(dir: &Path) -> io::Result<()> {
    let boots = numbered(dir);
    let next = boots.last().map_or(1, |(n, _)| n.saturating_add(1));
    let too_many = (boots.len() + 1).saturating_sub(BOOTS);
    for (_, old) in boots.iter().take(too_many) {
        fs::remove_dir_all(old)?;
    }
    fs::create_dir_all(dir.join(format!("boot-{next}")))
}

/// Adds the end of a service's log to the running boot's folder.
pub(crate) fn keep(kept: &Path, log_dir: &Path, name: &str) -> io::Result<()> {
    let Some((_, folder)) = numbered(kept).pop() else { return Ok(()) };
    let lines = ring::tail(log_dir, name, usize::MAX, TAIL_BYTES);
    if lines.is_empty() {
        return Ok(());
    }
    let mut file = OpenOptions::new().append(true).create(true).open(folder.join(format!("{name}.log")))?;
    if file.metadata()?.len() + TAIL_BYTES > MAX_BYTES {
        return Ok(()); // the first failures say most
    }
    file.write_all(format!("{}\n\n", lines.join("\n")).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Ring;
    use mesh_types::Instant;

    #[test]
    fn only_the_last_boots_and_only_so_much_of_each() {
        let dir = std::env::temp_dir().join(format!("mesh-supervisor-kept-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let (kept, logs) = (dir.join("kept"), dir.join("log"));
        fs::create_dir_all(&logs).unwrap();
        keep(&kept, &logs, "s").unwrap(); // before the first boot's folder: nothing
        for _ in 0..12 {
            new_boot(&kept).unwrap();
        }
        let names: Vec<_> = numbered(&kept).into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, [8, 9, 10, 11, 12]);
        let mut log = Ring::open(&logs, "s").unwrap();
        for i in 0..2_000 {
            log.note(Instant::ZERO, &format!("line {i}"));
        }
        for _ in 0..20 {
            keep(&kept, &logs, "s").unwrap();
        }
        let text = fs::read_to_string(kept.join("boot-12/s.log")).unwrap();
        assert!(text.len() as u64 <= MAX_BYTES && text.trim_end().ends_with("line 1999"));
        fs::remove_dir_all(&dir).unwrap();
    }
}

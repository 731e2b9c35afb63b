//! What a person should know: found during set-up, kept in RAM for the running supervisor.

use std::fs;
use std::path::{Path, PathBuf};

/// More than that many are not kept.
const MAX: usize = 100;

fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("setup-problems")
}

/// Keeps the problems of the set-up, one a line.
pub(crate) fn save(run_dir: &Path, problems: &[String]) -> std::io::Result<()> {
    let lines: String = problems.iter().take(MAX).map(|p| p.replace(['\n', '\r'], " ") + "\n").collect();
    fs::write(path(run_dir), lines)
}

/// The problems of the set-up.
pub(crate) fn load(run_dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(path(run_dir)).unwrap_or_default();
    text.lines().take(MAX).map(str::to_owned).collect()
}

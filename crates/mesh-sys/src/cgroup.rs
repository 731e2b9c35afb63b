//! Control groups, version 2: memory and process limits of one service.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel shows them.
pub const ROOT: &str = "/sys/fs/cgroup";

/// One group.
#[derive(Debug)]
pub struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// Makes (or takes over) the group `parent/name` under `root` with limits in bytes and processes.
    /// Without swap a group above its limit loses its largest process.
    ///
    /// # Errors
    /// No cgroup file system there, no memory controller, or not allowed; then use resource limits.
    pub fn create(root: &Path, parent: &str, name: &str, memory: u64, processes: u32) -> io::Result<Self> {
        let above = root.join(parent);
        fs::metadata(root.join("cgroup.controllers"))?;
        fs::create_dir_all(&above)?;
        for dir in [root, &above] {
            fs::write(dir.join("cgroup.subtree_control"), "+memory +pids")?;
        }
        let dir = above.join(name);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("memory.max"), memory.to_string())?;
        // Where there is swap it would only hide a leak.
        let _ = fs::write(dir.join("memory.swap.max"), "0");
        // A service is killed whole, not crippled by the loss of one process.
        let _ = fs::write(dir.join("memory.oom.group"), "1");
        fs::write(dir.join("pids.max"), processes.to_string())?;
        Ok(Self { dir })
    }

    /// The file into which a process writes `0` to join.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn join_file(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.dir.join("cgroup.procs"))
    }

    /// Kills every process in it.
    ///
    /// # Errors
    /// What write(2) says; kernels before 5.14 have no such file.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.dir.join("cgroup.kill"), "1")
    }

    /// How many processes were killed for want of memory since it was made.
    pub fn oom_kills(&self) -> u64 {
        let events = fs::read_to_string(self.dir.join("memory.events")).unwrap_or_default();
        parse_event(&events, "oom_kill").unwrap_or(0)
    }

    /// Bytes in use now: anonymous memory, page cache and kernel memory of its processes.
    pub fn memory(&self) -> Option<u64> {
        fs::read_to_string(self.dir.join("memory.current")).ok()?.trim().parse().ok()
    }
}

/// The number beside `key` in a flat keyed file.
fn parse_event(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_by_their_whole_name() {
        let text = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(parse_event(text, "oom_kill"), Some(2));
        assert_eq!(parse_event(text, "oom"), Some(3));
        assert_eq!(parse_event(text, "oo"), None);
        assert_eq!(parse_event("oom_kill x", "oom_kill"), None);
    }

    #[test]
    fn without_a_cgroup_file_system_it_is_an_error() {
        let dir = std::env::temp_dir();
        assert!(Cgroup::create(&dir, "p2pmesh", "x", 1 << 20, 8).is_err());
        assert!(!dir.join("p2pmesh").exists());
    }
}

//! What this machine says about itself, from /proc.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// Milliseconds since the machine started.
pub(crate) fn uptime_ms() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split(['.', ' ']).next().unwrap_or_default();
    seconds.parse::<u64>().unwrap_or(0).saturating_mul(1000)
}

/// The value of `key=` on the kernel's command line.
pub(crate) fn cmdline(key: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/cmdline").ok()?;
    let value = text.split_whitespace().rev().find_map(|w| w.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.to_owned())
}

/// The machine's addresses, without loopback and link-local ones.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let mut list = inet6(&fs::read_to_string("/proc/net/if_inet6").unwrap_or_default());
    list.extend(fib_trie(&fs::read_to_string("/proc/net/fib_trie").unwrap_or_default()));
    list
}

/// `/proc/net/if_inet6`: address, index, prefix length, scope (0: global), flags, name.
fn inet6(text: &str) -> Vec<IpAddr> {
    let mut list: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let bits = u128::from_str_radix(fields.next()?, 16).ok()?;
            (fields.nth(2)? == "00").then_some(IpAddr::V6(Ipv6Addr::from_bits(bits)))
        })
        .collect();
    list.sort();
    list.dedup();
    list
}

/// `/proc/net/fib_trie`: an address of ours is the leaf above a line `/32 host LOCAL`.
fn fib_trie(text: &str) -> Vec<IpAddr> {
    let mut list: Vec<Ipv4Addr> = Vec::new();
    let mut leaf = None;
    for line in text.lines().map(str::trim_start) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL") {
            list.extend(leaf.filter(|a: &Ipv4Addr| !a.is_loopback() && !a.is_link_local()));
        }
    }
    list.sort();
    list.dedup();
    list.into_iter().map(IpAddr::V4).collect()
}

/// A mount.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) kind: String,
    pub(crate) read_only: bool,
}

/// The mount that holds `path`.
pub(crate) fn mount_of(path: &Path) -> Option<Mount> {
    let whole: PathBuf = fs::canonicalize(path).ok()?;
    find_mount(&fs::read_to_string("/proc/self/mountinfo").ok()?, &whole)
}

fn find_mount(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mut best: Option<(usize, Mount)> = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let fields: Vec<&str> = left.split(' ').collect();
        let (Some(point), Some(options)) = (fields.get(4), fields.get(5)) else { continue };
        let depth = Path::new(point).components().count();
        // Of two mounts on one place the later one is seen.
        if path.starts_with(point) && best.as_ref().is_none_or(|(d, _)| depth >= *d) {
            let kind = right.split(' ').next().unwrap_or_default().to_owned();
            best = Some((depth, Mount { kind, read_only: options.split(',').any(|o| o == "ro") }));
        }
    }
    best.map(|(_, mount)| mount)
}

/// Bytes free and in all on the file system that holds `path`.
pub(crate) fn space(path: &Path) -> Option<(u64, u64)> {
    let s = rustix::fs::statvfs(path).ok()?;
    Some((s.f_bavail.saturating_mul(s.f_frsize), s.f_blocks.saturating_mul(s.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_from_proc() {
        let inet6_text = "fd010203040506070000000000000001 01 80 00 80       lo\n\
                          fe80000000000000025056fffec00008 02 40 20 80     eth0\n\
                          00000000000000000000000000000001 01 80 10 80       lo\nbad\n";
        assert_eq!(inet6(inet6_text), ["fd01:203:405:607::1".parse::<IpAddr>().unwrap()]);
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.64.1.2\n        /32 host LOCAL\n     |-- 10.64.0.0\n        /10 link UNICAST\n\
                    Local:\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 10.64.1.2\n        /32 host LOCAL\n     |-- x\n        /32 host LOCAL\n";
        assert_eq!(fib_trie(trie), ["10.64.1.2".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn the_deepest_mount_counts() {
        let text = "21 1 254:1 / / ro,relatime - erofs /dev/dm-1 ro\n\
                    30 21 179:4 / /data rw,noatime shared:1 - ext4 /dev/mmcblk0p4 rw\n\
                    31 21 0:5 / /database rw - tmpfs x rw\nnonsense\n";
        let mount = |p: &str| find_mount(text, Path::new(p)).unwrap();
        assert_eq!(mount("/data/p2pmesh"), Mount { kind: "ext4".into(), read_only: false });
        assert_eq!(mount("/usr"), Mount { kind: "erofs".into(), read_only: true });
    }
}

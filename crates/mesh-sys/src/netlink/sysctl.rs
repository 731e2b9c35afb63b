//! Per-interface settings of IPv4 and IPv6 under /proc/sys/net. Writing them needs `CAP_NET_ADMIN` in the
//! network namespace, not root.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::udp::Family;

/// Writes `value` to `net.<family>.conf.<interface>.<key>`; `interface` may be `all` or `default`.
///
/// # Errors
/// `NotFound` if the interface is gone or the kernel lacks the setting; `InvalidInput` for a name that is
/// no interface's.
pub fn set(family: Family, interface: &str, key: &str, value: &str) -> io::Result<()> {
    let part = |text: &str| !text.is_empty() && !text.contains('/') && text != "." && text != "..";
    if !part(interface) || !part(key) {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("no interface is called {interface:?}")));
    }
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    let path: PathBuf = ["/proc/sys/net", family, "conf", interface, key].iter().collect();
    if fs::read_to_string(&path)?.trim() == value {
        return Ok(()); // some settings act on every write
    }
    fs::write(&path, value)
}

//! Per-interface settings of IPv4 and IPv6 under /proc/sys/net. Writing them needs `CAP_NET_ADMIN` in the
//! network namespace, not root.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::udp::Family;

/// Reads `net.<family>.conf.<interface>.<key>`.
///
/// # Errors
/// As [`set`].
pub fn get(family: Family, interface: &str, key: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(family, interface, key)?)?.trim().to_owned())
}

/// Writes `value` to `net.<family>.conf.<interface>.<key>`; `interface` may be `all` or `default`.
///
/// # Errors
/// `NotFound` if the interface is gone or the kernel lacks the setting; `InvalidInput` for a name that is
/// no interface's.
pub fn set(family: Family, interface: &str, key: &str, value: &str) -> io::Result<()> {
    // Some settings act on every write.
    if get(family, interface, key)? == value {
        Ok(())
    } else {
        fs::write(path(family, interface, key)?, value)
    }
}

/// Lets packets that come out of a tunnel pass the packet filter, where their addresses are translated
/// (`net.netfilter.nf_hooks_lwtunnel`). It holds for the whole machine, until it is started anew.
///
/// # Errors
/// `NotFound` if the kernel lacks the setting.
pub fn filter_tunnels() -> io::Result<()> {
    let path = "/proc/sys/net/netfilter/nf_hooks_lwtunnel";
    if fs::read_to_string(path)?.trim() == "1" { Ok(()) } else { fs::write(path, "1") }
}

fn path(family: Family, interface: &str, key: &str) -> io::Result<PathBuf> {
    let part = |text: &str| !text.is_empty() && !text.contains('/') && text != "." && text != "..";
    if !part(interface) || !part(key) {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("no interface is called {interface:?}")));
    }
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    Ok(["/proc/sys/net", family, "conf", interface, key].iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_leave_their_folder() {
        for (interface, key) in [("..", "x"), ("a/b", "x"), ("", "x"), ("lo", "../x"), ("lo", "")] {
            let error = get(Family::V4, interface, key).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{interface}/{key}");
        }
        assert_eq!(get(Family::V4, "nosuchif0", "forwarding").unwrap_err().kind(), ErrorKind::NotFound);
        assert!(get(Family::V4, "lo", "forwarding").is_ok());
    }
}

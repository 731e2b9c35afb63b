//! Lines for the person at the serial console.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use mesh_sys::service;

/// Where such lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Console {
    /// Every serial console that the kernel uses.
    Serial,
    /// Stdout.
    Stdout,
}

impl Console {
    /// Prints `p2pmesh: <text>` on a line of its own. A console that is gone or blocked is left out.
    pub(crate) fn say(self, text: &str) {
        log::info!("console: {text}");
        match self {
            Self::Stdout => service::print(&format!("p2pmesh: {text}\n")),
            Self::Serial => {
                // A log-in prompt may stand on the line.
                let line = format!("\r\np2pmesh: {text}\r\n");
                for tty in active(Path::new("/sys/class/tty/console/active")) {
                    let open = OpenOptions::new()
                        .write(true)
                        .custom_flags(nonblocking_terminal())
                        .open(Path::new("/dev").join(tty));
                    if let Ok(mut file) = open {
                        let _ = file.write_all(line.as_bytes());
                    }
                }
            }
        }
    }
}

/// Must neither become our controlling terminal nor block on a line that nobody reads.
const fn nonblocking_terminal() -> i32 {
    mesh_sys::process::O_NOCTTY | mesh_sys::process::O_NONBLOCK
}

/// The serial consoles of the kernel, in its order; screens (`tty0`) are not served.
pub(crate) fn active(list: &Path) -> Vec<String> {
    parse_active(&fs::read_to_string(list).unwrap_or_default())
}

fn parse_active(text: &str) -> Vec<String> {
    let serial = |name: &&str| {
        let rest = name.strip_prefix("tty").unwrap_or_default();
        rest.starts_with(|c: char| c.is_ascii_uppercase()) && rest.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    text.split_whitespace().filter(serial).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screens_and_nonsense_are_no_serial_consoles() {
        assert_eq!(parse_active("tty0 ttyS1 ttyAMA0\n"), ["ttyS1", "ttyAMA0"]);
        assert_eq!(parse_active("netcon0 ../x tty tty1 ttyS/../x"), Vec::<String>::new());
    }
}

//! What kind of board this is, and which of its watchdogs is to be armed.

use std::fs;
use std::path::Path;

use mesh_types::Duration;

use crate::watchdog::Offer;

/// A kernel command-line argument's value; an argument without one has the value "".
pub fn argument<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    cmdline.split_whitespace().find_map(|word| match word.split_once('=') {
        Some((n, value)) => (n == name).then_some(value),
        None => (word == name).then_some(""),
    })
}

/// For how long a new system may fail to prove good before the node starts again: ten minutes, or what the
/// command-line argument `p2pmesh.patience` says in seconds.
pub fn patience(cmdline: &str) -> Duration {
    let told = argument(cmdline, "p2pmesh.patience").and_then(|t| t.parse().ok());
    Duration::from_secs(told.filter(|s| *s > 0).unwrap_or(600))
}

/// True on a real Raspberry Pi. Its boot firmware writes the board's revision into the device tree
/// (`/system/linux,revision`); an emulator hands over the device tree as it is on disk, without it. The
/// command-line argument `p2pmesh.emulated=0|1` decides where somebody knows better.
pub fn is_real_board(device_tree: &Path, cmdline: &str) -> bool {
    match argument(cmdline, "p2pmesh.emulated") {
        Some("0") => true,
        Some(_) => false,
        None => {
            fs::read(device_tree.join("system/linux,revision")).is_ok_and(|r| r.iter().any(|byte| *byte != 0))
        }
    }
}

/// Which watchdog to arm. A real board takes the first hardware one; an emulated one takes the software
/// watchdog only, because the emulated bcm2835 watchdog resets the machine the moment it is armed.
pub fn choose(offers: &[Offer], real: bool) -> Option<&Offer> {
    let software = |o: &&Offer| o.identity == "Software Watchdog";
    let hardware = offers.iter().find(|o| !software(o) && !o.identity.is_empty());
    let fallback = offers.iter().find(software);
    if real { hardware.or(fallback) } else { fallback }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(number: u32, identity: &str) -> Offer {
        Offer { device: format!("/dev/watchdog{number}").into(), identity: identity.into() }
    }

    #[test]
    fn which_watchdog() {
        let pi = offer(0, "Broadcom BCM2835 Watchdog timer");
        let soft = offer(1, "Software Watchdog");
        let both = [pi.clone(), soft.clone()];
        for (offers, real, want) in [
            (&both[..], true, Some(&pi)),
            (&both[..], false, Some(&soft)),
            (&both[..1], false, None),
            (&both[1..], true, Some(&soft)),
            (&[], true, None),
        ] {
            assert_eq!(choose(offers, real), want, "{offers:?} real={real}");
        }
        assert_eq!(choose(&[offer(0, "")], true), None, "a device that does not say what it is");
    }

    #[test]
    fn patience_is_ten_minutes_unless_told() {
        for (cmdline, want) in [
            ("quiet", 600),
            ("p2pmesh.patience=30", 30),
            ("p2pmesh.patience=x", 600),
            ("p2pmesh.patience=0", 600),
        ] {
            assert_eq!(patience(cmdline), Duration::from_secs(want));
        }
    }

    #[test]
    fn what_is_a_real_board() {
        let dir = std::env::temp_dir().join(format!("mesh-sys-board-{}", std::process::id()));
        let (with, without) = (dir.join("with"), dir.join("without"));
        fs::create_dir_all(with.join("system")).unwrap();
        fs::create_dir_all(&without).unwrap();
        fs::write(with.join("system/linux,revision"), [0, 0xa0, 0x20, 0x82]).unwrap();
        for (tree, cmdline, want) in [
            (&with, "quiet", true),
            (&without, "quiet", false),
            (&with, "p2pmesh.emulated=1 quiet", false),
            (&with, "p2pmesh.emulated", false),
            (&without, "p2pmesh.emulated=0", true),
            (&with, "xp2pmesh.emulated=1", true),
        ] {
            assert_eq!(is_real_board(tree, cmdline), want, "{tree:?} {cmdline}");
        }
        fs::write(with.join("system/linux,revision"), [0; 4]).unwrap();
        assert!(!is_real_board(&with, ""));
        fs::remove_dir_all(&dir).unwrap();
    }
}

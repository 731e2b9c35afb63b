//! What the supervisor asks of the board: which watchdog to arm, and its light.

use std::fs;
use std::path::Path;

use mesh_sys::watchdog::{self, Offer, Watchdog};

/// A kernel command-line argument's value; an argument without one has the value "".
pub(crate) fn argument<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    cmdline.split_whitespace().find_map(|word| match word.split_once('=') {
        Some((n, value)) => (n == name).then_some(value),
        None => (word == name).then_some(""),
    })
}

/// True on a real Raspberry Pi. Its boot firmware writes the board's revision into the device tree
/// (`/system/linux,revision`); an emulator hands over the device tree as it is on disk, without it. The
/// command-line argument `p2pmesh.emulated=0|1` decides where somebody knows better.
pub(crate) fn is_real_board(device_tree: &Path, cmdline: &str) -> bool {
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
pub(crate) fn choose(offers: &[Offer], real: bool) -> Option<&Offer> {
    let software = |o: &&Offer| o.identity == "Software Watchdog";
    let hardware = offers.iter().find(|o| !software(o) && !o.identity.is_empty());
    let fallback = offers.iter().find(software);
    if real { hardware.or(fallback) } else { fallback }
}

/// Arms the board's watchdog; `None` where there is none (said in the log).
pub(crate) fn arm_watchdog() -> Option<Watchdog> {
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let real = is_real_board(Path::new("/proc/device-tree"), &cmdline);
    let offers = watchdog::offers(Path::new("/sys/class/watchdog"));
    let Some(offer) = choose(&offers, real) else {
        log::warn!("no watchdog to arm (found {offers:?}); a node that hangs will stay hung");
        return None;
    };
    // The Pi's timer holds 15 s at most; an emulated Pi may be starved by its host for longer.
    let timeout = if real { 15 } else { 60 };
    match Watchdog::arm(&offer.device, timeout) {
        Ok(dog) => {
            log::info!("watchdog: {} ({}), {} s", offer.device.display(), offer.identity, dog.timeout_s());
            Some(dog)
        }
        Err(e) => {
            log::warn!("watchdog {} can't be armed: {e}", offer.device.display());
            None
        }
    }
}

/// What the activity light shows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Light {
    /// Heartbeat: on its way.
    Starting,
    /// On: ready.
    Ready,
    /// Fast blinking: something required does not work.
    Trouble,
}

/// Sets the light; a board without one is no error.
pub(crate) fn show(leds: &Path, light: Light) {
    let names = ["ACT", "led0", "user-led", "green:activity", "green:act"];
    let Some(dir) = names.iter().map(|n| leds.join(n)).find(|d| d.join("trigger").exists()) else { return };
    let set = |file: &str, value: &str| fs::write(dir.join(file), value);
    let _ = match light {
        Light::Starting => set("trigger", "heartbeat").or_else(|_| set("trigger", "timer")),
        Light::Ready => set("trigger", "default-on")
            .or_else(|_| set("trigger", "none").and_then(|()| set("brightness", "255"))),
        Light::Trouble => set("trigger", "timer")
            .and_then(|()| set("delay_on", "100"))
            .and_then(|()| set("delay_off", "100")),
    };
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
    fn what_is_a_real_board() {
        let dir = std::env::temp_dir().join(format!("mesh-supervisor-board-{}", std::process::id()));
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

    #[test]
    fn the_light_falls_back_to_what_the_board_has() {
        let dir = std::env::temp_dir().join(format!("mesh-supervisor-led-{}", std::process::id()));
        show(&dir, Light::Ready);
        fs::create_dir_all(dir.join("led0")).unwrap();
        fs::write(dir.join("led0/trigger"), "").unwrap();
        show(&dir, Light::Starting);
        assert_eq!(fs::read_to_string(dir.join("led0/trigger")).unwrap(), "heartbeat");
        show(&dir, Light::Ready);
        assert_eq!(fs::read_to_string(dir.join("led0/trigger")).unwrap(), "default-on");
        fs::remove_dir_all(&dir).unwrap();
    }
}

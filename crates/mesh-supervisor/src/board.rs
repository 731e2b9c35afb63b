//! What the supervisor asks of the board: its watchdog and its light.

use std::fs;
use std::path::Path;

pub(crate) use mesh_sys::board::patience;
use mesh_sys::board::{choose, is_real_board};
use mesh_sys::watchdog::{self, Watchdog};

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

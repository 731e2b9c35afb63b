//! Kernel modules for the devices that are there and that come later.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use mesh_sys::clock;
use mesh_sys::poll::{Event, Poller};
use mesh_sys::process::{Child, Spec};
use mesh_sys::uevent::{Uevent, Uevents};
use mesh_types::Duration;

/// At most that many aliases wait to be looked up; a new scan finds what was dropped.
const MAX_WAITING: usize = 512;
/// At most that many go to one modprobe.
const BATCH: usize = 64;

/// How often the early loader looks whether it is to stop.
const TICK: Duration = Duration::from_millis(50);

/// Loads modules as devices appear, one modprobe at a time.
#[derive(Debug)]
pub(crate) struct Hotplug {
    events: Uevents,
    token: u64,
    waiting: VecDeque<String>,
    running: Option<Child>,
}

impl Hotplug {
    /// Listens under `token` (and uses the next one). Listen first, then [`look`](Self::look): nothing can
    /// slip through between the two.
    pub(crate) fn start(poller: &Poller, token: u64) -> std::io::Result<Self> {
        let events = Uevents::open()?;
        poller.add(&events, token, false)?;
        Ok(Self { events, token, waiting: VecDeque::new(), running: None })
    }

    /// Looks at the devices that are there already.
    pub(crate) fn look(&mut self, poller: &Poller) {
        for alias in aliases(Path::new("/sys/bus")) {
            self.want(alias);
        }
        self.go_on(poller);
    }

    fn want(&mut self, alias: String) {
        if self.waiting.len() < MAX_WAITING && !self.waiting.contains(&alias) {
            self.waiting.push_back(alias);
        }
    }

    /// True if `token` is one of ours.
    pub(crate) const fn owns(&self, token: u64) -> bool {
        token == self.token || token == self.token + 1
    }

    /// Does what `event` asks for and returns the devices that came or went.
    pub(crate) fn handle(&mut self, poller: &Poller, event: Event) -> Vec<Uevent> {
        let mut seen = Vec::new();
        if event.token == self.token {
            while let Some(e) = self.events.next() {
                if e.action == "add" && !e.modalias.is_empty() {
                    self.want(e.modalias.clone());
                }
                seen.push(e);
                if seen.len() >= MAX_WAITING {
                    break;
                }
            }
        } else if let Some(child) = &mut self.running
            && !matches!(child.try_wait(), Ok(None))
        {
            // Most aliases have no module; modprobe's code says nothing.
            self.running = None;
        }
        self.go_on(poller);
        seen
    }

    fn go_on(&mut self, poller: &Poller) {
        if self.running.is_some() || self.waiting.is_empty() {
            return;
        }
        let batch: Vec<_> = self.waiting.drain(..self.waiting.len().min(BATCH)).collect();
        let mut args = vec!["-abq".into()];
        args.extend(batch.into_iter().map(Into::into));
        let spec = Spec { program: "/sbin/modprobe".into(), args, ..Spec::default() };
        match Child::spawn(&spec) {
            Ok(child) => {
                if let Err(e) = poller.add(&child, self.token + 1, false) {
                    log::warn!("modprobe can't be watched: {e}");
                }
                self.running = Some(child);
            }
            Err(e) => log::error!("/sbin/modprobe can't be run: {e}; new devices stay without drivers"),
        }
    }
}

/// Devices get their modules while the set-up does other things: a USB network takes seconds to appear.
#[derive(Debug)]
pub(crate) struct Meanwhile {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Meanwhile {
    /// Starts.
    pub(crate) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || {
            if let Err(e) = work_until(&stopped) {
                log::warn!("devices wait for their drivers until the supervisor runs: {e}");
            }
        };
        Self { stop, thread: Some(std::thread::spawn(work)) }
    }
}

impl Drop for Meanwhile {
    /// Waits for the modprobe that runs; the supervisor goes on from there.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work_until(stop: &AtomicBool) -> std::io::Result<()> {
    let poller = Poller::new()?;
    let mut hotplug = Hotplug::start(&poller, 0)?;
    hotplug.look(&poller);
    let mut events = Vec::new();
    while !stop.load(Ordering::Relaxed) || hotplug.running.is_some() {
        if stop.load(Ordering::Relaxed) {
            hotplug.waiting.clear();
        }
        poller.wait(Some(clock::now() + TICK), &mut events)?;
        for event in &events {
            hotplug.handle(&poller, *event);
        }
    }
    Ok(())
}

/// The module aliases of all devices on the buses in `dir` that have no driver yet, each once.
fn aliases(dir: &Path) -> BTreeSet<String> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let devices = entries(dir).flat_map(|bus| entries(&bus.join("devices")));
    let alias = |device: std::path::PathBuf| {
        let text = fs::read_to_string(device.join("modalias")).ok()?;
        let wanted = !text.trim().is_empty() && !device.join("driver").exists();
        wanted.then(|| text.trim().to_owned())
    };
    devices.filter_map(alias).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_without_a_driver_name_their_module() {
        let dir = std::env::temp_dir().join(format!("mesh-supervisor-hotplug-{}", std::process::id()));
        let device = |bus: &str, name: &str, alias: &str, driver: bool| {
            let at = dir.join("devices").join(name);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("modalias"), alias).unwrap();
            if driver {
                fs::create_dir_all(at.join("driver")).unwrap();
            }
            let list = dir.join("bus").join(bus).join("devices");
            fs::create_dir_all(&list).unwrap();
            std::os::unix::fs::symlink(&at, list.join(name)).unwrap();
        };
        device("platform", "a", "of:NusbT(null)Cbrcm,bcm2835-usb\n", false);
        device("usb", "b", "usb:v1D6Bp0002", true);
        device("usb", "c", "usb:v0525pA4A2", false);
        device("platform", "d", "of:NusbT(null)Cbrcm,bcm2835-usb\n", false);
        device("platform", "e", "\n", false);
        fs::create_dir_all(dir.join("bus/empty")).unwrap();
        let found: Vec<_> = aliases(&dir.join("bus")).into_iter().collect();
        assert_eq!(found, ["of:NusbT(null)Cbrcm,bcm2835-usb", "usb:v0525pA4A2"]);
        fs::remove_dir_all(&dir).unwrap();
    }
}

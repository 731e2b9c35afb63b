//! The supervisor's own log: a ring in RAM on a node, stderr elsewhere.

use std::sync::{Mutex, OnceLock};

use mesh_sys::{clock, service};

use crate::options::Options;
use crate::ring::Ring;
use crate::run::NAME;

struct RingLog(Mutex<Ring>);

impl log::Log for RingLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        if let Ok(mut ring) = self.0.lock() {
            ring.note(clock::now(), &format!("{:<5} {}", record.level(), record.args()));
        }
    }
    fn flush(&self) {}
}

/// Starts the log. On a node stderr is the serial console, which belongs to people.
pub(crate) fn start(options: &Options) {
    if !options.system {
        return service::start_log();
    }
    let dir = options.log_dir();
    let ring = std::fs::create_dir_all(&dir).and_then(|()| Ring::open(&dir, NAME));
    let Ok(ring) = ring else { return service::start_log() };
    static LOG: OnceLock<RingLog> = OnceLock::new();
    if log::set_logger(LOG.get_or_init(|| RingLog(Mutex::new(ring)))).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

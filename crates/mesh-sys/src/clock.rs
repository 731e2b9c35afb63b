//! The machine's monotonic clock, as the cores want it.

use mesh_types::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Now, in microseconds since boot (CLOCK_MONOTONIC); never goes back.
pub fn now() -> Instant {
    let t = clock_gettime(ClockId::Monotonic);
    let micros = t.tv_sec.unsigned_abs().saturating_mul(1_000_000) + t.tv_nsec.unsigned_abs() / 1_000;
    Instant::from_micros(micros)
}

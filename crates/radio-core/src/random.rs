//! Random times, from a seed.

use mesh_types::Duration;

/// xorshift64*: enough to keep nodes out of step.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) const fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From zero up to `limit`.
    pub(crate) fn below(&mut self, limit: Duration) -> Duration {
        Duration::from_micros((self.word() >> 16) % limit.as_micros().max(1))
    }
}

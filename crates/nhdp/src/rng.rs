//! Numbers for jitter: small, seeded, the same on every run.

use mesh_types::Duration;

/// A SplitMix64 generator. Good enough to spread transmissions, no good for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// From a seed; different seeds give unrelated sequences.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A span between zero and `max`, both included.
    pub fn up_to(&mut self, max: Duration) -> Duration {
        let range = u128::from(max.as_micros()) + 1;
        let scaled = (u128::from(self.next_u64()) * range) >> 64;
        Duration::from_micros(u64::try_from(scaled).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5148_jitter_fills_its_range() {
        let mut rng = Rng::new(1);
        let max = Duration::from_micros(9);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[rng.up_to(max).as_micros() as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(rng.up_to(Duration::ZERO), Duration::ZERO);
        let _ = rng.up_to(Duration::MAX);
    }
}

//! Each node's own clock.

use mesh_types::Instant;

/// A clock that started at another time and runs at another rate than the simulator's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// What it showed at the simulator's zero, in microseconds.
    pub offset: u64,
    /// How much faster it runs, in parts per million; above −1,000,000.
    pub ppm: i32,
}

impl Clock {
    /// What it shows at `now`.
    pub fn local(&self, now: Instant) -> Instant {
        let rate = u128::from(1_000_000u64.saturating_add_signed(self.ppm.into()));
        let elapsed = u128::from(now.as_micros()) * rate / 1_000_000;
        Instant::from_micros(u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_add(self.offset))
    }

    /// The first simulator time at which it shows `local` or more.
    pub fn global(&self, local: Instant) -> Instant {
        let rate = u128::from(1_000_000u64.saturating_add_signed(self.ppm.into())).max(1);
        let elapsed = u128::from(local.as_micros().saturating_sub(self.offset));
        let at = (elapsed * 1_000_000).div_ceil(rate);
        Instant::from_micros(u64::try_from(at).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_met_and_not_early() {
        for ppm in [-900_000, -200, 0, 37, 5_000_000] {
            let clock = Clock { offset: 77, ppm };
            for local in [0, 76, 77, 78, 1_000_001, 123_456_789_012] {
                let at = clock.global(Instant::from_micros(local));
                assert!(clock.local(at).as_micros() >= local);
                if at > Instant::ZERO {
                    let before = Instant::from_micros(at.as_micros() - 1);
                    assert!(clock.local(before).as_micros() < local);
                }
            }
        }
    }
}

//! Time as tables keep it: half the size of an [`Instant`], and coarser.

use mesh_types::{Duration, Instant};

/// Time in steps of 2^11 µs, 2 ms; wraps after 101 days, and nothing is valid for half as long (RFC 5497 §5:
/// 45 days).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick(u32);

const SHIFT: u32 = 11;

impl Tick {
    pub(crate) const ZERO: Self = Self(0);

    /// The step `now` is in.
    pub(crate) fn of(now: Instant) -> Self {
        Self((now.as_micros() >> SHIFT) as u32)
    }

    /// Steps since then.
    pub(crate) fn age(self, now: Self) -> u32 {
        now.0.wrapping_sub(self.0)
    }

    /// Whether it has come.
    pub(crate) fn is_past(self, now: Self) -> bool {
        self.after(now) <= 0
    }

    /// Steps from `now` until then; negative if it has passed.
    pub(crate) fn after(self, now: Self) -> i32 {
        self.0.wrapping_sub(now.0).cast_signed()
    }

    /// A time that is neither soon nor was lately.
    pub(crate) fn opposite(self) -> Self {
        Self(self.0 ^ 1 << 31)
    }

    /// When it begins, seen from `now`.
    pub(crate) fn instant(self, now: Instant) -> Instant {
        let (steps, after) = (now.as_micros() >> SHIFT, self.after(Self::of(now)));
        Instant::from_micros(steps.saturating_add_signed(after.into()) << SHIFT)
    }
}

/// A span in steps, rounded down.
pub(crate) fn ticks(span: Duration) -> u32 {
    u32::try_from(span.as_micros() >> SHIFT).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_never_late_and_outlives_the_wrap() {
        for micros in [0, 1, 2_048, 1 << 40, (1 << 43) - 5, (1 << 43) + 5, 1 << 50] {
            let now = Instant::from_micros(micros);
            for span in [0, 1, 15_000_000, 3_932_160_000_000] {
                let at = now + Duration::from_micros(span);
                let tick = Tick::of(at);
                let begins = tick.instant(now);
                assert!(begins <= at && begins + Duration::from_micros(1 << SHIFT) > at);
                assert!(tick.is_past(Tick::of(at)));
                assert!(span < 4_096 || !tick.is_past(Tick::of(Instant::from_micros(micros + span - 2_048))));
            }
        }
    }
}

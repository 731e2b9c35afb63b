//! What is known of one node: how far it is, what it gives, how often it failed.

use mesh_types::{Duration, Instant};

use super::Ask;

/// Blocks on their way at the same time from one node.
const MAX_WINDOW: usize = 8;
/// A node whose blocks take longer is asked for fewer at a time.
const SLOW: Duration = Duration::from_secs(2);
/// How long a node that failed is left alone at first; doubled with each failure in a row.
const FAILED: Duration = Duration::from_secs(1);
/// The doublings at most.
const MAX_DOUBLINGS: u32 = 6;
/// The same for one that was only slower than others: it may be the only one that has the next block.
const OUTRUN_DOUBLINGS: u32 = 2;
/// How long one that sent wrong bytes is left alone.
const LIED: Duration = Duration::from_secs(120);
/// What a block takes from a node that has sent none yet.
const GUESS: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its place among the nodes in reach, 0 the nearest.
    pub(super) rank: usize,
    pub(super) in_reach: bool,
    /// Blocks on their way from it.
    pub(super) in_flight: usize,
    /// As many as may be: one until it has given one.
    pub(super) window: usize,
    /// What a block from it takes, smoothed (RFC 6298 §2 has the weights).
    pub(super) takes: Option<Duration>,
    /// When its last block came.
    pub(super) gave_at: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    /// One of them was that it did not give a block it was asked for.
    withheld: bool,
    /// Left alone until then.
    pub(super) avoid_until: Instant,
}

impl Peer {
    pub(super) const NEW: Self = Self {
        rank: usize::MAX,
        in_reach: false,
        in_flight: 0,
        window: 1,
        takes: None,
        gave_at: None,
        failures: 0,
        withheld: false,
        avoid_until: Instant::ZERO,
    };

    /// What a further block from it should take.
    pub(super) fn expected(&self) -> Duration {
        self.takes.unwrap_or(GUESS).times(self.in_flight as u64 + 1)
    }

    /// Whether it has given blocks, and the last thing it did was not a failure.
    pub(super) fn gives(&self, now: Instant) -> bool {
        self.gave_at.is_some() && self.failures == 0 && self.avoid_until <= now
    }

    pub(super) fn gave(&mut self, now: Instant, took: Duration) {
        self.takes = Some(match self.takes {
            None => took,
            Some(before) => Duration::from_micros(before.as_micros() / 8 * 7 + took.as_micros() / 8),
        });
        self.window = if took > SLOW { (self.window / 2).max(1) } else { (self.window + 1).min(MAX_WINDOW) };
        self.gave_at = Some(now);
        (self.failures, self.withheld, self.avoid_until) = (0, false, Instant::ZERO);
    }

    /// It said that it has a block, or has not. That makes up for silence, not for a block it did not give.
    pub(super) const fn answered(&mut self) {
        if !self.withheld {
            (self.failures, self.avoid_until) = (0, Instant::ZERO);
        }
    }

    /// It did not answer, or did not give a block. `spread`: a random number, so that not all nodes come back at once.
    pub(super) fn failed(&mut self, now: Instant, ask: Ask, spread: u64) {
        self.withheld |= ask == Ask::Block;
        self.leave_alone(now, MAX_DOUBLINGS, spread);
    }

    /// Others gave a block sooner, and it gave nothing meanwhile.
    pub(super) fn outrun(&mut self, now: Instant, spread: u64) {
        self.withheld = true;
        self.leave_alone(now, OUTRUN_DOUBLINGS, spread);
    }

    fn leave_alone(&mut self, now: Instant, doublings: u32, spread: u64) {
        // what was under way at the same time fails for the same reason
        if self.avoid_until <= now {
            let wait = FAILED.times(1 << self.failures.min(doublings));
            let extra = Duration::from_micros(spread % (wait.as_micros() / 4).max(1));
            self.failures = self.failures.saturating_add(1);
            self.avoid_until = now + wait + extra;
        }
        self.window = 1;
    }

    pub(super) fn lied(&mut self, now: Instant) {
        self.withheld = true;
        self.avoid_until = now + LIED;
        self.window = 1;
    }
}

//! The Directional Airtime metric (RFC 7779): the cost of a link's incoming direction from the share of
//! packets that arrive and from the link's bit rate.

use mesh_types::{Duration, Instant, Metric};

/// DAT_MEMORY_LENGTH.
const MEMORY: usize = 64;
/// DAT_REFRESH_INTERVAL.
pub(crate) const REFRESH: Duration = Duration::from_secs(1);
/// DAT_SEQNO_RESTART_DETECTION.
const RESTART: u16 = 256;
/// A loss of one: nothing is lost. Losses are in steps of 1/256.
const NO_LOSS: u32 = 256;
/// DAT_MAXIMUM_LOSS.
const MAX_LOSS: u32 = 8 * NO_LOSS;
/// Raw bit rates the median is taken of (RFC 7779 Appendix C).
const SAMPLES: usize = 5;

/// What is kept for a link (RFC 7779 §8), besides what NHDP keeps in [`nhdp::Signs`].
#[derive(Clone, Debug)]
pub(crate) struct Dat {
    /// L_DAT_received and L_DAT_total, as rings with their sums.
    received: [u16; MEMORY],
    total: [u16; MEMORY],
    sum_received: u32,
    sum_total: u32,
    tail: usize,
    /// When the tail's interval began.
    since: Instant,
    /// L_DAT_last_pkt_seqno.
    last_seq: Option<u16>,
    /// How many of [`nhdp::Signs::silent_intervals_ever`] were taken into account.
    silent_seen: u32,
    /// The loss in use, after hysteresis.
    loss: u32,
    bitrate: Bitrate,
}

/// What NHDP knows of the neighbour's silence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    /// L_DAT_hello_interval.
    pub(crate) interval: Duration,
    /// L_DAT_lost_packet_intervals.
    pub(crate) intervals: u32,
    pub(crate) intervals_ever: u32,
}

impl Dat {
    /// §8.1.
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            received: [0; MEMORY],
            total: [0; MEMORY],
            sum_received: 0,
            sum_total: 0,
            tail: 0,
            since: now,
            last_seq: None,
            silent_seen: 0,
            loss: NO_LOSS,
            bitrate: Bitrate { samples: [0; SAMPLES], count: 0, used: 0 },
        }
    }

    /// Moves on to the interval `now` is in (§10.2 steps 6 to 9).
    fn turn(&mut self, now: Instant) {
        let passed = now.saturating_since(self.since).as_micros() / REFRESH.as_micros();
        self.since += REFRESH.times(passed);
        for _ in 0..passed.min(MEMORY as u64) {
            self.tail = (self.tail + 1) % MEMORY;
            self.set_tail(0, 0);
        }
    }

    fn set_tail(&mut self, received: u16, total: u16) {
        let rings = [
            (&mut self.received, &mut self.sum_received, received),
            (&mut self.total, &mut self.sum_total, total),
        ];
        for (ring, sum, value) in rings {
            if let Some(slot) = ring.get_mut(self.tail) {
                *sum = (*sum).saturating_sub(u32::from(*slot)) + u32::from(value);
                *slot = value;
            }
        }
    }

    fn add(&mut self, received: u16, total: u16) {
        let (was, of) = (self.received.get(self.tail), self.total.get(self.tail));
        let (was, of) = (was.copied().unwrap_or(0), of.copied().unwrap_or(0));
        self.set_tail(was.saturating_add(received), of.saturating_add(total));
    }

    /// A packet with that sequence number arrived, and its messages were processed (§9.3).
    pub(crate) fn packet(&mut self, now: Instant, seq: u16) {
        self.turn(now);
        match self.last_seq {
            None => self.set_tail(1, 1),
            Some(last) => {
                let diff = seq.wrapping_sub(last);
                self.add(1, if diff > RESTART { 1 } else { diff });
            }
        }
        self.last_seq = Some(seq);
    }

    /// A HELLO arrived (§9.4 step 3); it counts while packets have no numbers.
    pub(crate) fn hello(&mut self, now: Instant) {
        self.turn(now);
        if self.last_seq.is_none() {
            self.add(1, 1);
        }
    }

    /// The radio measured a bit rate of the incoming direction, in bit/s.
    pub(crate) fn bitrate(&mut self, bits_per_second: u64) {
        self.bitrate.add(kilobits(bits_per_second));
    }

    /// L_DAT_rx_bitrate in bit/s, if the radio measured any.
    pub(crate) fn bitrate_in(&self) -> Option<u64> {
        Some(u64::from(self.bitrate.used) * 1000).filter(|r| *r > 0)
    }

    /// L_in_metric (§10.1, §10.2). `default_bitrate` in bit/s is used while the radio gave none.
    pub(crate) fn metric(&mut self, now: Instant, silence: Silence, default_bitrate: u64) -> Metric {
        self.turn(now);
        let silent = silence.intervals_ever.wrapping_sub(self.silent_seen);
        self.silent_seen = silence.intervals_ever;
        if self.last_seq.is_none() {
            self.add(0, u16::try_from(silent).unwrap_or(u16::MAX));
        }
        let memory = REFRESH.as_micros() * MEMORY as u64;
        let lost = match self.last_seq {
            Some(_) => silence.interval.as_micros().saturating_mul(u64::from(silence.intervals)),
            None => 0, // those intervals are in the total
        };
        let left = memory.saturating_sub(lost);
        let received = u64::from(self.sum_received) * 256 * left / memory;
        if received < 256 {
            return Metric::MAX_LINK;
        }
        self.settle_loss(received);
        let kilobits = if self.bitrate.used == 0 { kilobits(default_bitrate) } else { self.bitrate.used };
        // 2^24 / DAT_MAXIMUM_LOSS / 256
        let scaled = u64::from(self.loss) * 8192;
        let value = (scaled + u64::from(kilobits) / 2) / u64::from(kilobits);
        let metric = Metric::new(u32::try_from(value).unwrap_or(u32::MAX));
        // What is told to others is what is used here (RFC 7181 §6.2).
        Metric::from_compressed(metric.to_compressed())
    }

    /// Appendix D: the loss in use changes only if the measured one is another by half of it and more, the
    /// more the fewer packets it rests on. `received` is in 1/256.
    fn settle_loss(&mut self, received: u64) {
        let measured = u64::from(self.sum_total) * 256 * u64::from(NO_LOSS) / received.max(1);
        let measured = measured.clamp(NO_LOSS.into(), MAX_LOSS.into());
        let (used, packets) = (u64::from(self.loss), received / 256);
        if used.abs_diff(measured) * 2 * packets >= used * (packets + 8) {
            self.loss = u32::try_from(measured).unwrap_or(MAX_LOSS);
        }
    }
}

/// In kbit/s; DAT_MINIMUM_BITRATE is the least.
fn kilobits(bits_per_second: u64) -> u32 {
    u32::try_from((bits_per_second / 1000).max(1)).unwrap_or(u32::MAX)
}

/// L_DAT_rx_bitrate: rates jump from frame to frame. In kbit/s.
#[derive(Clone, Debug)]
struct Bitrate {
    samples: [u32; SAMPLES],
    count: usize,
    /// Zero: none yet.
    used: u32,
}

impl Bitrate {
    fn add(&mut self, kilobits: u32) {
        self.samples.rotate_right(1);
        if let Some(first) = self.samples.first_mut() {
            *first = kilobits;
        }
        self.count = (self.count + 1).min(SAMPLES);
        let mut sorted = self.samples;
        let known = sorted.get_mut(..self.count).unwrap_or_default();
        known.sort_unstable();
        let median = known.get(self.count / 2).copied().unwrap_or(kilobits);
        let change = u64::from(self.used.abs_diff(median)) * 4;
        if self.used == 0 || change >= u64::from(self.used) {
            self.used = median;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const QUIET: Silence = Silence { interval: Duration::from_secs(2), intervals: 0, intervals_ever: 0 };
    const MBIT: u64 = 1_000_000;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(10_000 + ms)
    }

    /// One packet a second with these numbers.
    fn fed(numbers: impl IntoIterator<Item = u16>) -> (Dat, Instant) {
        let mut dat = Dat::new(at(0));
        let mut now = at(0);
        for n in numbers {
            dat.packet(now, n);
            now += Duration::from_secs(1);
        }
        (dat, now)
    }

    #[test]
    fn rfc7779_appendix_e_values() {
        let value = |bitrate: u64| {
            let (mut dat, now) = fed(1..40);
            dat.metric(now, QUIET, bitrate).value()
        };
        assert_eq!(value(2000 * MBIT), Metric::MIN.value());
        // "2000" for 1 Mbit/s: 2^21 / 1000, as far as the compressed form can say it
        assert_eq!(value(MBIT), Metric::from_compressed(Metric::new(2097).to_compressed()).value());
        assert_eq!((value(1000 * MBIT), value(100 * MBIT), value(54 * MBIT)), (2, 21, 39));
        assert_eq!(value(0), value(1000), "DAT_MINIMUM_BITRATE");
        let (mut dat, now) = fed((0..60).map(|n| n * 10));
        assert_eq!(dat.metric(now, QUIET, 1), Metric::MAX_LINK, "loss is at most 7 of 8");
        let (mut dat, now) = fed((0..60).map(|n| n * 2));
        assert_eq!(dat.metric(now, QUIET, 100 * MBIT).value(), 42);
    }

    #[test]
    fn rfc7779_8_1_queues_start_with_zeros() {
        let mut dat = Dat::new(at(0));
        assert_eq!((dat.received.len(), dat.total.len()), (64, 64));
        assert_eq!((dat.sum_received, dat.sum_total), (0, 0));
        assert_eq!(dat.metric(at(0), QUIET, MBIT), Metric::MAX_LINK, "§10.2 step 4");
        dat.packet(at(100), 7);
        assert_eq!((dat.sum_received, dat.sum_total), (1, 1), "what was before the first packet is not loss");
    }

    #[test]
    fn rfc7779_9_3_restart_detection_at_256() {
        let sums = |numbers: &[u16]| {
            let (dat, _) = fed(numbers.iter().copied());
            (dat.sum_received, dat.sum_total)
        };
        assert_eq!(sums(&[1, 2, 5]), (3, 5));
        assert_eq!(sums(&[65_535, 1]), (2, 3), "numbers wrap");
        assert_eq!(sums(&[1, 257]), (2, 257), "256 lost in a row are loss");
        assert_eq!(sums(&[1, 258]), (2, 2), "more are a restart");
        assert_eq!(sums(&[500, 499, 500]), (3, 3), "so is a step back");
    }

    #[test]
    fn rfc7779_9_3_a_packet_after_the_hello_of_the_same_packet_counts_once() {
        let mut dat = Dat::new(at(0));
        dat.hello(at(0));
        dat.packet(at(0), 9);
        dat.hello(at(1));
        dat.packet(at(1), 10);
        assert_eq!((dat.sum_received, dat.sum_total), (2, 2));
    }

    #[test]
    fn rfc7779_10_2_what_is_older_than_64_intervals_is_forgotten() {
        let (mut dat, now) = fed((0..64).map(|n| n * 4));
        assert_eq!((dat.sum_received, dat.sum_total), (64, 253));
        dat.turn(now + Duration::from_secs(31));
        assert_eq!(dat.sum_received, 32);
        dat.turn(now + Duration::from_secs(1_000_000));
        assert_eq!((dat.sum_received, dat.sum_total), (0, 0));
    }

    #[test]
    fn rfc7779_9_4_10_1_without_packet_numbers_hellos_count() {
        let mut dat = Dat::new(at(0));
        let (mut ever, mut now) = (0, at(0));
        for n in 0..30 {
            now = at(n * 2000);
            if n % 2 == 0 {
                dat.hello(now)
            } else {
                ever += 1
            }
            dat.metric(now, Silence { intervals_ever: ever, ..QUIET }, MBIT);
        }
        assert_eq!((dat.sum_received, dat.sum_total), (15, 30));
        let all = Silence { intervals_ever: ever, ..QUIET };
        assert_eq!(dat.metric(now, all, 100 * MBIT).value(), 42);
    }

    #[test]
    fn rfc7779_10_2_3_lost_intervals_scale_what_was_received() {
        let (mut dat, now) = fed(0..64);
        let silent = |n: u32| Silence { intervals: n, intervals_ever: n, ..QUIET };
        assert_eq!(dat.metric(now, silent(1), 10 * MBIT), dat.metric(now, QUIET, 10 * MBIT), "hysteresis");
        assert_eq!(dat.metric(now, silent(16), 10 * MBIT).value(), 420, "half is lost");
        assert_eq!(
            dat.metric(now, silent(32), 10 * MBIT),
            Metric::MAX_LINK,
            "nothing for as long as it goes back"
        );
    }

    #[test]
    fn rfc7779_appendix_d_steady_loss_gives_a_steady_metric() {
        let mut rng = nhdp::Rng::new(5);
        for loss in [0u64, 51, 102] {
            let mut dat = Dat::new(at(0));
            let mut values = Vec::new();
            for n in 0..2000u16 {
                let now = at(u64::from(n) * 1700);
                if rng.next_u64() % 256 >= loss {
                    dat.packet(now, n);
                }
                values.push(dat.metric(now, QUIET, 100 * MBIT));
            }
            let changes = values.windows(2).filter(|w| w[0] != w[1]).count();
            assert!(changes <= 4, "{changes} changes in an hour at a loss of {loss}/256");
        }
    }

    #[test]
    fn rfc7779_appendix_c_bit_rates_are_steadied_by_their_median() {
        let (mut dat, now) = fed(0..40);
        for mbit in [54, 54, 6, 54, 48, 1, 54] {
            dat.bitrate(mbit * MBIT);
            assert_eq!(dat.metric(now, QUIET, MBIT).value(), 39);
        }
        (0..3).for_each(|_| dat.bitrate(6 * MBIT));
        assert_eq!(dat.metric(now, QUIET, MBIT).value(), 350);
    }
}

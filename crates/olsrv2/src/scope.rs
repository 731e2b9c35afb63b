//! Fish-eye scoping: how far TCs go, and how often they come at a distance (RFC 7181 §5.4.7).

use alloc::vec::Vec;

use mesh_types::Duration;
use rfc5444::encode_time;

/// A pattern of hop limits, and what it means for those who listen.
#[derive(Clone, Debug)]
pub(crate) struct Scopes {
    /// Hop limits in turn, the largest first.
    pattern: Vec<u8>,
    /// Up to that distance in hops a TC comes every so many intervals; beyond the last, never.
    periods: Vec<(u8, u8)>,
}

impl Scopes {
    /// One hop limit for all.
    pub(crate) fn uniform(hop_limit: u8) -> Self {
        Self { pattern: [hop_limit].into(), periods: [(hop_limit, 1)].into() }
    }

    /// `None` if the pattern is not what §5.4.7 asks for: at every distance TCs come at regular intervals,
    /// no hop limit is below 2, and one is `largest`.
    pub(crate) fn new(pattern: &[u8], largest: u8) -> Option<Self> {
        let start = pattern.iter().position(|l| *l == largest)?;
        let mut turned = pattern.to_vec();
        turned.rotate_left(start);
        let mut limits = turned.clone();
        limits.sort_unstable();
        limits.dedup();
        let good = turned.len() <= usize::from(u8::MAX) && limits.iter().all(|l| (2..=largest).contains(l));
        let periods = limits.iter().map(|l| Some((*l, period(&turned, *l)?)));
        let periods: Option<Vec<(u8, u8)>> = periods.collect();
        Some(Self { pattern: turned, periods: periods.filter(|_| good)? })
    }

    /// The hop limit of the `turn`th periodic TC after one that went all the way.
    pub(crate) fn hop_limit(&self, turn: usize) -> u8 {
        self.pattern.get(turn % self.pattern.len().max(1)).copied().unwrap_or(u8::MAX)
    }

    /// The value of an INTERVAL_TIME or VALIDITY_TIME TLV: `time` at a distance where every TC comes, more
    /// where fewer do (RFC 5497 §5, general form).
    pub(crate) fn times(&self, time: Duration) -> Vec<u8> {
        let code = |period: u8| encode_time(time.times(period.into()).as_micros());
        let mut value = Vec::new();
        if let Some(((_, last), nearer)) = self.periods.split_last() {
            for (distance, period) in nearer {
                value.extend([code(*period), *distance]);
            }
            value.push(code(*last));
        }
        value
    }
}

/// Whether successive TCs may have these hop limits (RFC 7181 §5.4.7): at every distance they come at regular
/// intervals, none goes less than 2 hops, and one goes 255.
pub fn is_regular(pattern: &[u8]) -> bool {
    Scopes::new(pattern, u8::MAX).is_some()
}

/// Every how manieth TC goes at least `distance` hops, if that is regular.
fn period(pattern: &[u8], distance: u8) -> Option<u8> {
    let far = pattern.iter().filter(|l| **l >= distance).count();
    let step = pattern.len().checked_div(far)?;
    let regular = pattern.iter().enumerate().all(|(i, l)| (*l >= distance) == (i % step == 0));
    u8::try_from(step).ok().filter(|_| regular)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rfc5444::{decode_time, time_code_at};

    #[test]
    fn rfc7181_5_4_7_only_regular_patterns() {
        for good in [&[255u8][..], &[255, 4, 4], &[4, 255, 4], &[255, 2, 8, 2], &[255, 255]] {
            assert!(Scopes::new(good, 255).is_some(), "{good:?}");
        }
        for bad in [&[][..], &[255, 255, 4, 4], &[255, 1], &[4, 4], &[255, 8, 2, 2], &[255, 0]] {
            assert!(Scopes::new(bad, 255).is_none(), "{bad:?}");
        }
        assert!(Scopes::new(&[16, 255], 16).is_none(), "the largest is what is said to be the largest");
    }

    #[test]
    fn rfc7181_5_4_7_times_vary_with_distance() {
        let scopes = Scopes::new(&[4, 4, 255], 255).unwrap();
        let limits: Vec<u8> = (0..4).map(|n| scopes.hop_limit(n)).collect();
        assert_eq!(limits, [255, 4, 4, 255]);
        let value = scopes.times(Duration::from_secs(5));
        let at = |hops| decode_time(time_code_at(&value, hops).unwrap()) / 1_000_000;
        assert_eq!((at(1), at(4), at(5), at(255)), (5, 5, 15, 15));
        assert_eq!(Scopes::uniform(255).times(Duration::from_secs(5)).len(), 1);
        let three = Scopes::new(&[255, 2, 8, 2], 255).unwrap().times(Duration::from_secs(1));
        let at = |hops| decode_time(time_code_at(&three, hops).unwrap()) / 1_000_000;
        assert_eq!((at(2), at(3), at(8), at(9)), (1, 2, 2, 4));
    }
}

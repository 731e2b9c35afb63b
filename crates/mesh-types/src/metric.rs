//! OLSRv2 link metrics (RFC 7181 §6.2).

use serde::{Deserialize, Serialize};

/// A link or path cost, 1 ..= 16776960 on a link; sums of links may be larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Metric(u32);

impl Metric {
    /// MINIMUM_METRIC.
    pub const MIN: Self = Self(1);
    /// MAXIMUM_METRIC.
    pub const MAX_LINK: Self = Self(16_776_960);
    /// UNKNOWN_METRIC, and any cost that is out of reach.
    pub const UNKNOWN: Self = Self(u32::MAX);

    /// A metric of that value; zero counts as [`Metric::MIN`].
    pub const fn new(value: u32) -> Self {
        Self(if value == 0 { 1 } else { value })
    }
    /// Its value.
    pub const fn value(self) -> u32 {
        self.0
    }
    /// The cost of two legs; saturates at [`Metric::UNKNOWN`].
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Decodes the 12-bit compressed form `aaaabbbbbbbb`: `(257 + b)·2^a − 256` (RFC 7181 §6.2).
    /// Bits above the twelfth are ignored.
    pub const fn from_compressed(bits: u16) -> Self {
        let b = (bits & 0xff) as u32;
        let a = ((bits >> 8) & 0xf) as u32;
        Self(((257 + b) << a) - 256)
    }

    /// The smallest 12-bit compressed form whose value is not below this one; values above
    /// [`Metric::MAX_LINK`] give its form, 0xfff.
    pub const fn to_compressed(self) -> u16 {
        if self.0 >= Self::MAX_LINK.0 {
            return 0xfff;
        }
        let mut a = 0u32;
        while a < 15 && ((257u32 + 255) << a) - 256 < self.0 {
            a += 1;
        }
        // ceil((value + 256) / 2^a) − 257
        let b = (self.0 + 256 + (1u32 << a) - 1) >> a;
        let b = b.saturating_sub(257);
        ((a << 8) | b) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc7181_6_2_every_compressed_value_round_trips() {
        let mut last = 0;
        for bits in 0..=0xfffu16 {
            let m = Metric::from_compressed(bits);
            assert_eq!(m.to_compressed(), bits, "value {}", m.value());
            assert!(m.value() > last);
            last = m.value();
        }
        assert_eq!(Metric::from_compressed(0), Metric::MIN);
        assert_eq!(Metric::from_compressed(0xfff), Metric::MAX_LINK);
    }

    #[test]
    fn compression_rounds_up() {
        for v in [1u32, 255, 256, 257, 258, 300, 1000, 1001, 65_537, 16_776_959] {
            let up = Metric::from_compressed(Metric::new(v).to_compressed());
            assert!(up.value() >= v);
        }
        assert_eq!(Metric::UNKNOWN.to_compressed(), 0xfff);
    }
}

//! RFC 5497 time values, with C = 1/1024 second as RFC 6130 and RFC 7181 use.

/// INTERVAL_TIME message TLV type (RFC 5497 §7).
pub const INTERVAL_TIME: u8 = 0;
/// VALIDITY_TIME message TLV type.
pub const VALIDITY_TIME: u8 = 1;

/// The time-code of the smallest representable time not below `micros` (RFC 5497 §5). Times below C give
/// code 0 (which stands for C itself: zero is not used by these protocols), times beyond the range 255.
pub fn encode_time(micros: u64) -> u8 {
    // In units of C/8, rounded up: one C is 8 units.
    let units = (u128::from(micros) * 8 * 1024).div_ceil(1_000_000);
    let mut b = 0u32;
    // The mantissa 8 + a, rounded up, must be at most 15.
    while b < 31 && units > (15u128 << b) {
        b += 1;
    }
    let mantissa = units.div_ceil(1 << b).clamp(8, 15);
    ((b << 3) | (mantissa as u32 - 8)) as u8
}

/// The time in microseconds that a code stands for, rounded to the nearest (RFC 5497 §5).
pub fn decode_time(code: u8) -> u64 {
    let units = u64::from(8 + (code & 7)) << (code >> 3);
    ((u128::from(units) * 1_000_000 + 4096) / 8192) as u64
}

/// The code in `<time-data>` for a receiver `hops` away from the originator (RFC 5497 §6); `hops` is the
/// hop count plus one. `None` if the data has an even length.
pub fn time_code_at(data: &[u8], hops: u8) -> Option<u8> {
    let (default, pairs) = data.split_last()?;
    let (pairs, rest) = pairs.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    Some(pairs.iter().find(|[_, d]| hops <= *d).map_or(*default, |[t, _]| *t))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5497_5_codes_of_known_times() {
        // 2 s = 2048 C: b = 11, a = 0; 6 s = 1.5 · 4096 C: b = 12, a = 4; 15 s needs rounding up.
        assert_eq!(encode_time(2_000_000), 0x58);
        assert_eq!(encode_time(6_000_000), 0x64);
        assert_eq!(encode_time(5_000_000), 0x62);
        assert_eq!(decode_time(0x58), 2_000_000);
        assert_eq!(decode_time(0x64), 6_000_000);
        assert_eq!(encode_time(0), 0);
        assert_eq!(encode_time(u64::MAX), 255);
    }

    #[test]
    fn rfc5497_5_every_code_survives_and_rounding_never_shortens() {
        for code in 0..=255u8 {
            // Rounded to microseconds, a code may come back one step up, never down.
            let back = encode_time(decode_time(code));
            assert!(back == code || back == code.saturating_add(1), "{code} {back}");
            if code >= 0x50 {
                assert_eq!(encode_time(decode_time(code) - 1), code);
            }
        }
        for micros in [1_000, 976, 977, 1_250_000, 1_250_001, 14_999_999, 15_000_000, 3_600_000_000] {
            assert!(decode_time(encode_time(micros)) + 1 >= micros, "{micros}");
        }
    }

    #[test]
    fn rfc5497_6_hop_count_picks_the_code() {
        let data = [10, 2, 20, 5, 30];
        assert_eq!(time_code_at(&data, 1), Some(10));
        assert_eq!(time_code_at(&data, 2), Some(10));
        assert_eq!(time_code_at(&data, 3), Some(20));
        assert_eq!(time_code_at(&data, 6), Some(30));
        assert_eq!(time_code_at(&[7], 200), Some(7));
        assert_eq!(time_code_at(&[7, 1], 1), None);
        assert_eq!(time_code_at(&[], 1), None);
    }
}

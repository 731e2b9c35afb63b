//! Unsigned LEB128 integers, in the two dialects in use here.

use alloc::vec::Vec;

/// Splits a multiformats varint (at most nine bytes, shortest form only) off `bytes`.
pub(crate) fn strict(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (value, used, rest) = any(bytes)?;
    if used > 9 || used != length(value) { None } else { Some((value, rest)) }
}

/// Splits a protobuf varint (at most ten bytes, padded forms allowed) off `bytes`.
pub(crate) fn protobuf(bytes: &[u8]) -> Option<(u64, &[u8])> {
    any(bytes).map(|(value, _, rest)| (value, rest))
}

fn any(bytes: &[u8]) -> Option<(u64, usize, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1, bytes.get(index + 1..)?));
        }
    }
    None
}

/// Appends `value` in its shortest form.
pub(crate) fn write(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes [`write()`] needs for `value`.
pub(crate) const fn length(value: u64) -> usize {
    let bits = 64 - value.leading_zeros() as usize;
    if bits == 0 { 1 } else { bits.div_ceil(7) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_form_round_trips() {
        for v in [0, 1, 127, 128, 16383, 16384, u64::from(u32::MAX), (1 << 63) - 1] {
            let mut out = Vec::new();
            write(v, &mut out);
            assert_eq!(out.len(), length(v));
            assert_eq!(strict(&out), Some((v, &[][..])));
            assert_eq!(protobuf(&out), Some((v, &[][..])));
        }
    }

    #[test]
    fn padded_and_endless_forms() {
        assert_eq!(strict(&[0x80, 0x00]), None);
        assert_eq!(protobuf(&[0x80, 0x00]), Some((0, &[][..])));
        assert_eq!(protobuf(&[0xff; 11]), None);
        assert_eq!(protobuf(&[0x80]), None);
        assert_eq!(strict(&[]), None);
    }
}

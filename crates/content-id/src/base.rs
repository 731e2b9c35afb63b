//! The text forms of a CID: base16, base32, base36, base58btc and base64 (multibase).

use alloc::string::String;
use alloc::vec::Vec;

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The longest text that is decoded, in characters; base58 and base36 cost its square.
pub const MAX_TEXT: usize = 512;

/// base58btc without a multibase prefix.
pub fn base58(bytes: &[u8]) -> String {
    positional(bytes, BASE58)
}

/// base36, lower case, without a multibase prefix.
pub fn base36(bytes: &[u8]) -> String {
    positional(bytes, BASE36)
}

/// base32, lower case, unpadded, without a multibase prefix (RFC 4648 §6).
pub fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let mut digit =
        |value: u32| text.push(char::from(BASE32.get(value as usize & 31).copied().unwrap_or(b'a')));
    let (mut pending, mut bits) = (0u32, 0u32);
    for byte in bytes {
        pending = (pending << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            digit(pending >> bits);
        }
    }
    if bits > 0 {
        digit(pending << (5 - bits));
    }
    text
}

/// Appends base64, unpadded (RFC 4648 §4).
pub(crate) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |all, b| (all << 8) | u32::from(*b)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            let index = (bits >> (18 - 6 * digit)) as usize & 63;
            out.extend(BASE64.get(index));
        }
    }
}

/// Decodes base64 of any length, unpadded or padded as it should be. Left-over bits must be zero.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    let digits = match text {
        [rest @ .., b'=', b'='] | [rest @ .., b'='] if text.len().is_multiple_of(4) => rest,
        _ => text,
    };
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut pending, mut bits) = (0u32, 0u32);
    for c in digits {
        pending = (pending << 6) | u32::from(base64_digit(*c)?);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((pending >> bits) as u8);
        }
    }
    let left = pending & ((1 << bits) - 1);
    if bits >= 6 || left != 0 { None } else { Some(out) }
}

const fn base64_digit(c: u8) -> Option<u8> {
    Some(match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

/// Decodes base58btc without a prefix.
pub fn from_base58(text: &str) -> Option<Vec<u8>> {
    from_positional(text, |c| digit_of(BASE58, c), 58)
}

/// Decodes a text with a multibase prefix: `f F b B k K z u m`.
pub fn from_multibase(text: &str) -> Option<Vec<u8>> {
    let prefix = text.chars().next()?;
    let rest = text.get(prefix.len_utf8()..)?;
    let lower = |c: u8| if c.is_ascii_uppercase() { 0 } else { c };
    let upper = |c: u8| if c.is_ascii_lowercase() { 0 } else { c.to_ascii_lowercase() };
    match prefix {
        'f' => from_bits(rest, |c| digit_of(BASE36.first_chunk::<16>()?, lower(c)), 4),
        'F' => from_bits(rest, |c| digit_of(BASE36.first_chunk::<16>()?, upper(c)), 4),
        'b' => from_bits(rest, |c| digit_of(BASE32, lower(c)), 5),
        'B' => from_bits(rest, |c| digit_of(BASE32, upper(c)), 5),
        'k' => from_positional(rest, |c| digit_of(BASE36, lower(c)), 36),
        'K' => from_positional(rest, |c| digit_of(BASE36, upper(c)), 36),
        'z' => from_base58(rest),
        'm' => from_bits(rest, |c| digit_of(BASE64, c), 6),
        'u' => from_bits(rest, |c| digit_of(BASE64_URL, c), 6),
        _ => None,
    }
}

fn digit_of(alphabet: &[u8], c: u8) -> Option<u8> {
    alphabet.iter().position(|a| *a == c).map(|p| p as u8)
}

/// Bases whose digits hold a whole number of bits. Left-over bits must be zero and fewer than a digit.
fn from_bits(text: &str, digit: impl Fn(u8) -> Option<u8>, width: u32) -> Option<Vec<u8>> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() * width as usize / 8);
    let (mut pending, mut bits) = (0u32, 0u32);
    for c in text.bytes() {
        pending = (pending << width) | u32::from(digit(c)?);
        bits += width;
        if bits >= 8 {
            bits -= 8;
            out.push((pending >> bits) as u8);
        }
    }
    let left = pending & ((1 << bits) - 1);
    if bits >= width || left != 0 { None } else { Some(out) }
}

/// Big-number bases: leading zero bytes become leading zero digits.
fn positional(bytes: &[u8], alphabet: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    let mut digits: Vec<u8> = Vec::with_capacity(bytes.len() * 2);
    for byte in bytes.iter().skip(zeros) {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % alphabet.len() as u32) as u8;
            carry /= alphabet.len() as u32;
        }
        while carry > 0 {
            digits.push((carry % alphabet.len() as u32) as u8);
            carry /= alphabet.len() as u32;
        }
    }
    let glyph = |d: u8| char::from(alphabet.get(usize::from(d)).copied().unwrap_or(b'?'));
    core::iter::repeat_n(glyph(0), zeros).chain(digits.iter().rev().map(|d| glyph(*d))).collect()
}

fn from_positional(text: &str, digit: impl Fn(u8) -> Option<u8>, base: u32) -> Option<Vec<u8>> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let mut bytes: Vec<u8> = Vec::with_capacity(text.len());
    let mut zeros = 0;
    for c in text.bytes() {
        let mut carry = u32::from(digit(c)?);
        if carry == 0 && bytes.is_empty() {
            zeros += 1;
        }
        for byte in &mut bytes {
            carry += u32::from(*byte) * base;
            *byte = carry as u8;
            carry >>= 8;
        }
        while carry > 0 {
            bytes.push(carry as u8);
            carry >>= 8;
        }
    }
    bytes.extend(core::iter::repeat_n(0, zeros));
    bytes.reverse();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;

    #[test]
    fn rfc4648_10_base32_vectors() {
        for (bytes, text) in
            [("", ""), ("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foobar", "mzxw6ytboi")]
        {
            assert_eq!(base32(bytes.as_bytes()), text);
            assert_eq!(from_multibase(&format!("b{text}")).unwrap(), bytes.as_bytes());
        }
    }

    #[test]
    fn non_canonical_tails_are_refused() {
        assert_eq!(from_multibase("bmz"), None);
        assert_eq!(from_multibase("bmzx"), None);
        assert_eq!(from_multibase("bMY"), None);
        assert_eq!(from_multibase("f0"), None);
        assert_eq!(from_multibase(""), None);
        assert_eq!(from_multibase("é"), None);
        assert_eq!(from_multibase(&format!("z{}", "1".repeat(MAX_TEXT + 1))), None);
    }

    proptest! {
        #[test]
        fn every_base_round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(from_base58(&base58(&bytes)).unwrap(), bytes.clone());
            prop_assert_eq!(from_multibase(&format!("k{}", base36(&bytes))).unwrap(), bytes.clone());
            prop_assert_eq!(from_multibase(&format!("K{}", base36(&bytes).to_uppercase())).unwrap(), bytes.clone());
            prop_assert_eq!(from_multibase(&format!("b{}", base32(&bytes))).unwrap(), bytes.clone());
            prop_assert_eq!(from_multibase(&format!("B{}", base32(&bytes).to_uppercase())).unwrap(), bytes);
        }

        #[test]
        fn any_text_is_answered(text in ".{0,60}") {
            let _ = from_multibase(&text);
            let _ = from_base58(&text);
        }
    }
}

//! RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2.2), as old IPNS keys sign. Verification only: all numbers
//! here are public, so the time they take may be, too.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::sha256;

/// Bytes of a modulus: 2,048 to 3,072 bits. Larger ones would keep a small machine busy for long.
const MODULUS: core::ops::RangeInclusive<usize> = 256..=384;
/// The largest public exponent, and the only one in use.
const MAX_EXPONENT: u32 = 65_537;
/// DER of rsaEncryption (RFC 8017 §A.1).
const RSA_ENCRYPTION: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
/// DER of a SHA-256 digest's frame (RFC 8017 §9.2, note 1).
const DIGEST_INFO: &[u8] =
    &[0x30, 0x31, 0x30, 0x0d, 0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];

/// A public key.
pub(super) struct PublicKey {
    /// 32 bits each, the lowest first.
    modulus: Vec<u32>,
    exponent: u32,
}

/// Splits a DER element off: tag, value, rest.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(n, rest)| (usize::from(*n), rest))?,
        0x82 => rest.split_first_chunk().map(|(n, rest)| (usize::from(u16::from_be_bytes(*n)), rest))?,
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((tag, value, rest))
}

/// The value of an element with that tag that fills `bytes`.
fn only(tag: u8, bytes: &[u8]) -> Option<&[u8]> {
    element(bytes).and_then(|(t, value, rest)| (t == tag && rest.is_empty()).then_some(value))
}

impl PublicKey {
    /// From a SubjectPublicKeyInfo (RFC 5280 §4.1).
    pub(super) fn from_der(der: &[u8]) -> Option<Self> {
        let (tag, algorithm, rest) = element(only(0x30, der)?)?;
        if tag != 0x30 || !algorithm.starts_with(RSA_ENCRYPTION) {
            return None;
        }
        let key = only(0x30, only(0x03, rest)?.strip_prefix(&[0])?)?;
        let (tag, modulus, rest) = element(key)?;
        let exponent = only(0x02, rest)?;
        let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
        let exponent = exponent.iter().try_fold(0u32, |n, b| Some(n.checked_mul(256)? + u32::from(*b)))?;
        let sane = tag == 0x02
            && MODULUS.contains(&modulus.len())
            && modulus.len().is_multiple_of(4)
            && modulus.first().is_some_and(|b| *b >= 0x80)
            && modulus.last().is_some_and(|b| b % 2 == 1)
            && (3..=MAX_EXPONENT).contains(&exponent);
        sane.then(|| Self { modulus: number(modulus), exponent })
    }

    /// Whether `signature` over `message` is by this key.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let length = self.modulus.len() * 4;
        if signature.len() != length {
            return false;
        }
        let signature = number(signature);
        if compare(&signature, &self.modulus) != Ordering::Less {
            return false;
        }
        let mut expected = vec![0xff; length];
        let tail = [&[0], DIGEST_INFO, &sha256(message)].concat();
        if let Some(head) = expected.first_chunk_mut::<2>() {
            *head = [0, 1];
        }
        let start = length.saturating_sub(tail.len());
        if let Some(place) = expected.get_mut(start..) {
            place.copy_from_slice(&tail);
        }
        self.power(&signature) == number(&expected)
    }

    /// `base` to the public exponent.
    fn power(&self, base: &[u32]) -> Vec<u32> {
        let mut result = base.to_vec();
        // the highest bit is the start
        for bit in (0..u32::BITS - 1 - self.exponent.leading_zeros()).rev() {
            result = self.multiply(&result, &result);
            if self.exponent >> bit & 1 == 1 {
                result = self.multiply(&result, base);
            }
        }
        result
    }

    /// `a * b`, by doubling and adding.
    fn multiply(&self, a: &[u32], b: &[u32]) -> Vec<u32> {
        let mut result = vec![0; self.modulus.len()];
        for word in b.iter().rev() {
            for bit in (0..32).rev() {
                let carry = double(&mut result);
                self.reduce(&mut result, carry);
                if word >> bit & 1 == 1 {
                    let carry = add(&mut result, a);
                    self.reduce(&mut result, carry);
                }
            }
        }
        result
    }

    /// Takes the modulus off once, if `n` with its carry is not below it.
    fn reduce(&self, n: &mut [u32], carry: bool) {
        if carry || compare(n, &self.modulus) != Ordering::Less {
            let mut borrow = false;
            for (word, other) in n.iter_mut().zip(&self.modulus) {
                let (less, first) = word.overflowing_sub(*other);
                let (less, second) = less.overflowing_sub(u32::from(borrow));
                (*word, borrow) = (less, first || second);
            }
        }
    }
}

/// Big-endian bytes, a multiple of four, as words.
fn number(bytes: &[u8]) -> Vec<u32> {
    let word = |chunk: &[u8]| chunk.iter().fold(0, |n, b| n << 8 | u32::from(*b));
    bytes.rchunks(4).map(word).collect()
}

/// Numbers of the same length.
fn compare(a: &[u32], b: &[u32]) -> Ordering {
    a.iter().rev().cmp(b.iter().rev())
}

fn double(n: &mut [u32]) -> bool {
    let mut carry = 0;
    for word in n {
        let high = *word >> 31;
        *word = *word << 1 | carry;
        carry = high;
    }
    carry == 1
}

fn add(n: &mut [u32], other: &[u32]) -> bool {
    let mut carry = false;
    for (word, other) in n.iter_mut().zip(other) {
        let (sum, first) = word.overflowing_add(*other);
        let (sum, second) = sum.overflowing_add(u32::from(carry));
        (*word, carry) = (sum, first || second);
    }
    carry
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key and a signature made with OpenSSL.
    const KEY: &str = "\
        30820122300d06092a864886f70d01010105000382010f003082010a0282010100aee9fd6b3c605081a9cf83b1a23f9cb622\
        a9037dc2b735fb631fc2eead2dabab1c4874e336e2b27f653eef485e55201b505b2d32e3dc1e4aaa349b7b1c25845b3ffcbb\
        3e18a95890a67db7979d31b4cc2fdbac74124a476973a38bd3fbbf924058639422107e04d147ac202d14e816c3d97c1cc804\
        f3edb425c3b336adf18aae98e8aba77999954459f5ec93a2e629b01f7b2bcc496322cf4e4dc1f685d557d5abdafcc1b91d8a\
        1e58849a76c6e263d22afa01d62ac0c3e4ceb42c3aa7b8ab1e16a26e4496cb0c8ed4785858f7f18f6a964c133bf828bfb476\
        59d63f78bae2e2ce9e06017cbab1686e352478668ad1fce3631cf1f14c4a38631a868beb5ab9ef0203010001";
    const SIGNATURE: &str = "\
        0fb46507d3b7a93708f9e7a89f12910ae2b19467ffbb059a933abdbccaef5bfc0b368042d3925b43505a4b164df758f3e4e7\
        9097d8cee99a188b8d640a8dbbb96c74e1653a03e8459d6a6135dbaf9dc26caf79336d15a09b2ad36f894c15d511aceab556\
        5039fb918ccda252bfd508219c5fc83ae214e4833df7d537a264a48ed26ac3f9846a3c0501bb2962a8027d5129ff699aabc4\
        1cd8e64cd8d3aa56ec4a773a076cd96b677e0bc56851ada64f6c6affaa416e58b8028e56ba695180bceeb889946535dca468\
        4be051600a050045d430002c65e9ac1550a1f4f90e2f54cb5d2d4db0dd9c91cc09111f24dcf1011a43d0d4dcd28189d27860\
        125b5bf2ec7e";

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn rfc8017_8_2_2_signatures() {
        let key = PublicKey::from_der(&hex(KEY)).unwrap();
        let signature = hex(SIGNATURE);
        assert!(key.verify(b"ipns-signature:a message", &signature));
        assert!(!key.verify(b"ipns-signature:another message", &signature));
        assert!(!key.verify(b"ipns-signature:a message", &signature[1..]));
        let mut wrong = signature.clone();
        wrong[255] ^= 1;
        assert!(!key.verify(b"ipns-signature:a message", &wrong));
        assert!(!key.verify(b"ipns-signature:a message", &[0xff; 256]));
        assert!(!key.verify(b"ipns-signature:a message", &[0; 256]));
    }

    #[test]
    fn keys_that_are_not_rsa_or_too_small_are_refused() {
        let key = hex(KEY);
        for end in 0..key.len() {
            assert!(PublicKey::from_der(&key[..end]).is_none(), "{end}");
        }
        let mut other = key.clone();
        other[10] ^= 1;
        assert!(PublicKey::from_der(&other).is_none(), "another algorithm");
        assert!(PublicKey::from_der(&[&key[..], &[0]].concat()).is_none());
        assert!(PublicKey::from_der(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]).is_none());
    }
}

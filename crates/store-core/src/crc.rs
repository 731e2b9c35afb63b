//! CRC-32 (IEEE 802.3), for the few dozen bytes of a record header.

const TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut n = 0;
    while n < 256 {
        let mut c = n as u32;
        let mut bit = 0;
        while bit < 8 {
            c = if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
            bit += 1;
        }
        #[allow(clippy::indexing_slicing, reason = "n < 256, at compile time")]
        {
            table[n] = c;
        }
        n += 1;
    }
    table
};

/// CRC-32 over all `parts`, one after the other.
pub(crate) fn crc32(parts: &[&[u8]]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let index = (crc ^ u32::from(*byte)) & 0xff;
        (crc >> 8) ^ TABLE.get(index as usize).copied().unwrap_or(0)
    };
    !parts.iter().fold(!0, |crc, part| part.iter().fold(crc, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value() {
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
    }
}

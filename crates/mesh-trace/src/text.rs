//! Hexadecimal text: one packet a line, or a dump whose lines begin with `offset:`.

use alloc::string::String;
use alloc::vec::Vec;
use core::str;

use crate::capture::Problem;

/// Longest packet that text may hold: a UDP datagram.
const MAX_PACKET: usize = 65_535;

/// Whether these bytes can be text at all.
pub(crate) fn is_text(file: &[u8]) -> bool {
    !file.is_empty() && file.iter().all(|b| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..))
}

/// One line's worth of octets.
struct Line {
    /// From the offset in front, if there is one.
    at: Option<usize>,
    octets: Vec<u8>,
}

/// The packet at `offset` or behind it; `offset` is moved past it. `None` at the end.
pub(crate) fn next_packet(file: &[u8], offset: &mut usize) -> Result<Option<Vec<u8>>, Problem> {
    let mut packet: Option<Vec<u8>> = None;
    while let Some(rest) = file.get(*offset..).filter(|rest| !rest.is_empty()) {
        let len = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
        let text = rest.get(..len).unwrap_or_default();
        let line = line(text).map_err(|what| Problem { offset: *offset, what })?;
        let Some(Line { at, octets }) = line else {
            *offset += len;
            continue;
        };
        match packet.as_mut() {
            None if at.is_none() => {
                *offset += len;
                return Ok(Some(octets));
            }
            None => packet = Some(octets),
            // A dump goes on as long as its offsets fit.
            Some(so_far) if at.is_some_and(|at| at != 0 && at == so_far.len()) => {
                so_far.extend(octets);
                if so_far.len() > MAX_PACKET {
                    return Err(Problem {
                        offset: *offset,
                        what: "a packet of more than 65535 octets".into(),
                    });
                }
            }
            Some(_) => return Ok(packet),
        }
        *offset += len;
    }
    Ok(packet)
}

/// `Ok(None)`: an empty line or a comment.
fn line(text: &[u8]) -> Result<Option<Line>, String> {
    let text = str::from_utf8(text).map_err(|_| String::from("not text"))?.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let (mut at, mut data) = (None, text);
    if let Some((offset, rest)) = text.split_once(": ") {
        let digits = offset.strip_prefix("0x").unwrap_or(offset);
        if let Ok(n) = usize::from_str_radix(digits, 16) {
            at = Some(n);
            // Two spaces part the octets from their characters.
            data = rest.trim_start().split("  ").next().unwrap_or_default();
        }
    }
    let mut octets = Vec::new();
    for word in data.split([' ', '\t', ':']).filter(|w| !w.is_empty()) {
        let digits = word.strip_prefix("0x").unwrap_or(word).as_bytes();
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            // What follows the octets is the packet's name.
            break;
        }
        let (pairs, odd) = digits.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(String::from("half an octet: an odd number of hexadecimal digits"));
        }
        octets.extend(pairs.iter().map(|[a, b]| (digit(*a) << 4) | digit(*b)));
    }
    if octets.is_empty() {
        return Err(String::from("no hexadecimal digits"));
    }
    Ok(Some(Line { at, octets }))
}

const fn digit(c: u8) -> u8 {
    match c {
        b'0'..=b'9' => c - b'0',
        b'a'..=b'f' => c - b'a' + 10,
        b'A'..=b'F' => c - b'A' + 10,
        _ => 0,
    }
}

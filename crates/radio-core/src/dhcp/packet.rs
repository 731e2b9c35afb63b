//! IPv4 and UDP around the messages of a client that has no address yet (RFC 2131 §4.1, RFC 791, RFC 768): the
//! host's own stack would choose a source address, and hears nothing that is sent to an address it does not have.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use super::{CLIENT_PORT, SERVER_PORT};

/// The longest packet that is of interest, as on Ethernet.
pub const MAX_PACKET: usize = 1500;

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;

/// The packet from 0.0.0.0, port 68, to 255.255.255.255, port 67, with that payload of at most 1,472 bytes.
pub fn wrap(payload: &[u8]) -> Vec<u8> {
    let udp_len = (UDP_HEADER + payload.len()) as u16;
    let ports = [CLIENT_PORT.to_be_bytes(), SERVER_PORT.to_be_bytes(), udp_len.to_be_bytes()].concat();
    let to = Ipv4Addr::BROADCAST.octets();
    let pseudo = [&[0; 4][..], &to, &[0, UDP], &udp_len.to_be_bytes(), &ports, &[0, 0], payload].concat();
    // RFC 768: a sum of zero is sent as all ones; zero means that there is none.
    let sum = match checksum(&pseudo) {
        0 => u16::MAX,
        sum => sum,
    };
    let total = (IP_HEADER as u16 + udp_len).to_be_bytes();
    let mut packet = [&[0x45, 0], &total[..], &[0, 0, 0, 0, 64, UDP, 0, 0, 0, 0, 0, 0], &to].concat();
    let header_sum = checksum(&packet).to_be_bytes();
    packet.iter_mut().skip(10).zip(header_sum).for_each(|(room, byte)| *room = byte);
    [&packet[..], &ports, &sum.to_be_bytes(), payload].concat()
}

/// The payload of an IPv4 packet, if it holds a whole datagram for port 68. UDP's checksum is not looked at: packets
/// of the same machine, and ones that the network card will complete, come without it.
pub fn unwrap(packet: &[u8]) -> Option<&[u8]> {
    let [first, _, a, b, _, _, fragment, offset, _, UDP, ..] = *packet else { return None };
    let header = usize::from(first & 15) * 4;
    let total = usize::from(u16::from_be_bytes([a, b]));
    let whole = first >> 4 == 4 && header >= IP_HEADER && fragment & 0x3f == 0 && offset == 0;
    let (header, rest) = packet.get(..total).filter(|_| whole)?.split_at_checked(header)?;
    if checksum(header) != 0 {
        return None;
    }
    let (&[_, _, p, q, l, m, _, _], payload) = rest.split_first_chunk::<UDP_HEADER>()?;
    let len = usize::from(u16::from_be_bytes([l, m])).checked_sub(UDP_HEADER)?;
    payload.get(..len).filter(|_| u16::from_be_bytes([p, q]) == CLIENT_PORT)
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let (words, last) = bytes.as_chunks::<2>();
    let words = words.iter().map(|w| u32::from(u16::from_be_bytes(*w)));
    let mut sum: u32 = words.chain(last.iter().map(|b| u32::from(*b) << 8)).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same packet, for the other port and with its checksum right.
    fn turned(mut packet: Vec<u8>) -> Vec<u8> {
        packet[22..24].copy_from_slice(&CLIENT_PORT.to_be_bytes());
        packet
    }

    #[test]
    fn rfc768_rfc791_what_is_wrapped_has_its_sums_and_reads_back() {
        let packet = wrap(b"odd");
        assert_eq!((packet.len(), &packet[12..20]), (31, &[0, 0, 0, 0, 255, 255, 255, 255][..]));
        assert_eq!(checksum(&packet[..20]), 0);
        let pseudo = [&packet[12..20], &[0, UDP, 0, 11], &packet[20..]].concat();
        assert_eq!(checksum(&pseudo), 0);
        assert_eq!(unwrap(&packet), None, "a server's port");
        let ours = turned(packet);
        assert_eq!(unwrap(&ours), Some(&b"odd"[..]));
        assert_eq!(unwrap(&[&ours[..], &[0; 20]].concat()), Some(&b"odd"[..]), "padded by Ethernet");
        for cut in 0..ours.len() {
            assert_eq!(unwrap(&ours[..cut]), None, "{cut}");
        }
        for (at, bit) in (0..20).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut flipped = ours.clone();
            flipped[at] ^= 1 << bit;
            assert_eq!(unwrap(&flipped), None, "byte {at}, bit {bit}");
        }
        let mut short = ours.clone();
        short[24..26].copy_from_slice(&7u16.to_be_bytes());
        assert_eq!(unwrap(&short), None, "shorter than its own header");
    }
}

//! Capture files: pcap, pcapng (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng) and hexadecimal text.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use crate::{link, text};

/// Interfaces that one pcapng section may describe; more are taken to be of the last one's kind.
const MAX_INTERFACES: usize = 256;

/// One frame of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// From 1, as other tools count.
    pub number: usize,
    /// Since 1970, in microseconds, if the capture says when.
    pub time: Option<u64>,
    /// What it holds.
    pub content: Content<'a>,
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A datagram from or to the `manet` port, or of the `manet` protocol.
    Packet {
        /// Source and destination, if the capture has them.
        addresses: Option<(IpAddr, IpAddr)>,
        /// The RFC 5444 packet.
        bytes: Cow<'a, [u8]>,
        /// The capture holds fewer bytes than were sent.
        cut: bool,
    },
    /// Something else.
    Other,
    /// It looks like one, but can't be read.
    Unreadable(&'static str),
}

/// The capture can't be read, from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, in bytes from the start of the file.
    pub offset: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {} of the file)", self.what, self.offset)
    }
}

impl core::error::Error for Problem {}

/// A capture's frames, in order. A problem ends it.
#[derive(Clone, Debug)]
pub struct Capture<'a> {
    file: &'a [u8],
    offset: usize,
    number: usize,
    format: Format,
}

#[derive(Clone, Debug)]
enum Format {
    Pcap { big: bool, nanos: bool, link: u32 },
    PcapNg { big: bool, interfaces: Vec<Interface> },
    Hex,
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u32,
    /// Ticks a second.
    resolution: u64,
    /// Longest data, 0: no limit.
    snap: usize,
}

impl<'a> Capture<'a> {
    /// Recognizes the format by its first bytes.
    ///
    /// # Errors
    /// It is none of the three.
    pub fn open(file: &'a [u8]) -> Result<Self, Problem> {
        let mut capture = Self { file, offset: 0, number: 0, format: Format::Hex };
        match file.first_chunk::<4>() {
            Some([0xa1, 0xb2, 0xc3, 0xd4]) => capture.pcap(true, false)?,
            Some([0xd4, 0xc3, 0xb2, 0xa1]) => capture.pcap(false, false)?,
            Some([0xa1, 0xb2, 0x3c, 0x4d]) => capture.pcap(true, true)?,
            Some([0x4d, 0x3c, 0xb2, 0xa1]) => capture.pcap(false, true)?,
            Some([0x0a, 0x0d, 0x0d, 0x0a]) => {
                capture.format = Format::PcapNg { big: false, interfaces: Vec::new() };
            }
            _ if text::is_text(file) => {}
            _ => return Err(capture.problem("neither a capture (pcap, pcapng) nor hexadecimal text")),
        }
        Ok(capture)
    }

    fn pcap(&mut self, big: bool, nanos: bool) -> Result<(), Problem> {
        let kind = self.u32(20, big).ok_or(self.problem("the file ends within its header"))?;
        // The upper bits say how long a checksum follows; it does no harm.
        self.format = Format::Pcap { big, nanos, link: kind & 0x0fff_ffff };
        self.offset = 24;
        Ok(())
    }

    fn problem(&self, what: &str) -> Problem {
        Problem { offset: self.offset, what: what.into() }
    }

    /// The `len` bytes that lie `at` bytes behind the present position.
    fn slice(&self, at: usize, len: usize) -> Option<&'a [u8]> {
        let start = self.offset.checked_add(at)?;
        self.file.get(start..start.checked_add(len)?)
    }

    fn u32(&self, at: usize, big: bool) -> Option<u32> {
        let bytes = *self.slice(at, 4)?.first_chunk::<4>()?;
        Some(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn u16(&self, at: usize, big: bool) -> Option<u16> {
        let bytes = *self.slice(at, 2)?.first_chunk::<2>()?;
        Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn frame(&mut self, time: Option<u64>, link: u32, data: &'a [u8], cut: bool) -> Frame<'a> {
        self.number += 1;
        Frame { number: self.number, time, content: link::content(link, data, cut) }
    }

    fn next_pcap(&mut self, big: bool, nanos: bool, link: u32) -> Result<Option<Frame<'a>>, Problem> {
        if self.offset >= self.file.len() {
            return Ok(None);
        }
        let field = |at| self.u32(at, big).ok_or(self.problem("the file ends within a frame's header"));
        let (seconds, fraction, len, whole) = (field(0)?, field(4)?, field(8)?, field(12)?);
        let data = usize::try_from(len).ok().and_then(|len| self.slice(16, len));
        let data = data.ok_or(self.problem("the file ends within a frame"))?;
        let micros = if nanos { fraction / 1000 } else { fraction };
        self.offset += 16 + data.len();
        let time = u64::from(seconds) * 1_000_000 + u64::from(micros);
        Ok(Some(self.frame(Some(time), link, data, len < whole)))
    }

    /// The next frame of a pcapng file; blocks that hold none are passed over.
    fn next_pcapng(
        &mut self,
        mut big: bool,
        mut interfaces: Vec<Interface>,
    ) -> Result<Option<Frame<'a>>, Problem> {
        while self.offset < self.file.len() {
            let short = || self.problem("the file ends within a block");
            if self.slice(0, 4) == Some(&[0x0a, 0x0d, 0x0d, 0x0a]) {
                big = match self.slice(8, 4).ok_or_else(short)? {
                    [0x1a, 0x2b, 0x3c, 0x4d] => true,
                    [0x4d, 0x3c, 0x2b, 0x1a] => false,
                    _ => return Err(self.problem("a section header without its byte-order mark")),
                };
                interfaces.clear();
            }
            let kind = self.u32(0, big).ok_or_else(short)?;
            let len = self.u32(4, big).and_then(|n| usize::try_from(n).ok()).ok_or_else(short)?;
            if len < 12 || len % 4 != 0 {
                return Err(self.problem("a block whose length is impossible"));
            }
            let block = self.slice(0, len).ok_or_else(short)?;
            let got = match kind {
                1 => {
                    if interfaces.len() < MAX_INTERFACES {
                        interfaces.extend(self.interface(big, block.len()));
                    }
                    None
                }
                2 | 3 | 6 => Some(self.block_data(kind, big, &interfaces, len)?),
                _ => None,
            };
            self.offset += len;
            if let Some((time, link, data, cut)) = got {
                self.format = Format::PcapNg { big, interfaces };
                return Ok(Some(self.frame(time, link, data, cut)));
            }
        }
        Ok(None)
    }

    /// An Interface Description Block.
    fn interface(&self, big: bool, len: usize) -> Option<Interface> {
        let link = self.u16(8, big)?.into();
        let snap = usize::try_from(self.u32(12, big)?).ok()?;
        let mut resolution = 1_000_000;
        let mut at = 16;
        while at + 4 <= len.saturating_sub(4) {
            let (code, size) = (self.u16(at, big)?, usize::from(self.u16(at + 2, big)?));
            if code == 0 {
                break;
            }
            if code == 9 {
                let power = *self.slice(at + 4, 1)?.first()?;
                let exponent = u32::from(power & 0x7f);
                let base: u64 = if power & 0x80 == 0 { 10 } else { 2 };
                resolution = base.checked_pow(exponent).unwrap_or(u64::MAX);
            }
            at += 4 + size.next_multiple_of(4);
        }
        Some(Interface { link, resolution, snap })
    }

    /// Time, link type, data and whether it was cut, of a block with a frame.
    #[allow(clippy::type_complexity)] // taken apart at once
    fn block_data(
        &self,
        kind: u32,
        big: bool,
        interfaces: &[Interface],
        len: usize,
    ) -> Result<(Option<u64>, u32, &'a [u8], bool), Problem> {
        let bad = || self.problem("a frame that does not fit its block");
        let size = |n: u32| usize::try_from(n).map_err(|_| bad());
        let field = |at| self.u32(at, big).ok_or_else(bad);
        let number = match kind {
            6 => size(field(8)?)?,
            2 => self.u16(8, big).ok_or_else(bad)?.into(),
            _ => 0,
        };
        let interface = interfaces.get(number).or(interfaces.last());
        let interface = *interface.ok_or(self.problem("a frame of an interface that is not described"))?;
        let (time, at, kept, whole) = if kind == 3 {
            let whole = size(field(8)?)?;
            let most = if interface.snap == 0 { usize::MAX } else { interface.snap };
            (None, 12, whole.min(most).min(len.saturating_sub(16)), whole)
        } else {
            let ticks = (u64::from(field(12)?) << 32) | u64::from(field(16)?);
            let micros = u128::from(ticks) * 1_000_000 / u128::from(interface.resolution.max(1));
            (u64::try_from(micros).ok(), 28, size(field(20)?)?, size(field(24)?)?)
        };
        if kept > len.saturating_sub(at + 4) {
            return Err(bad());
        }
        Ok((time, interface.link, self.slice(at, kept).ok_or_else(bad)?, kept < whole))
    }

    fn next_hex(&mut self) -> Result<Option<Frame<'a>>, Problem> {
        let Some(bytes) = text::next_packet(self.file, &mut self.offset)? else { return Ok(None) };
        self.number += 1;
        let content = Content::Packet { addresses: None, bytes: bytes.into(), cut: false };
        Ok(Some(Frame { number: self.number, time: None, content }))
    }
}

impl<'a> Iterator for Capture<'a> {
    type Item = Result<Frame<'a>, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match core::mem::replace(&mut self.format, Format::Ended) {
            Format::Ended => return None,
            Format::Pcap { big, nanos, link } => {
                let next = self.next_pcap(big, nanos, link);
                self.format = Format::Pcap { big, nanos, link };
                next
            }
            // Sets the format itself.
            Format::PcapNg { big, interfaces } => self.next_pcapng(big, interfaces),
            Format::Hex => {
                let next = self.next_hex();
                self.format = Format::Hex;
                next
            }
        };
        if !matches!(next, Ok(Some(_))) {
            self.format = Format::Ended;
        }
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use core::slice::from_ref;

    /// An IPv6 UDP datagram with that payload.
    fn ipv6(port: u16, payload: &[u8]) -> Vec<u8> {
        let len = (8 + payload.len()) as u16;
        let mut all = vec![0x60, 0, 0, 0, (len >> 8) as u8, len as u8, 17, 1];
        for address in ["fe80::1", "ff02::6d"] {
            all.extend(address.parse::<core::net::Ipv6Addr>().unwrap().octets());
        }
        for field in [port, port, len, 0] {
            all.extend(field.to_be_bytes());
        }
        all.extend(payload);
        all
    }

    fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
        [&[0; 12][..], &kind.to_be_bytes(), payload].concat()
    }

    fn pcap(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0];
        file.extend(link.to_le_bytes());
        for frame in frames {
            let len = frame.len() as u32;
            [7, 5, len, len].iter().for_each(|n: &u32| file.extend(n.to_le_bytes()));
            file.extend(frame);
        }
        file
    }

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let len = (padded as u32 + 12).to_be_bytes();
        [&kind.to_be_bytes()[..], &len, body, &vec![0; padded - body.len()], &len].concat()
    }

    fn pcapng(frame: &[u8]) -> Vec<u8> {
        let section = [&[0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0][..], &[0xff; 8]].concat();
        // Ethernet, microseconds written as 10^-9.
        let interface = [0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0];
        let time = 7_000_005_000u64.to_be_bytes();
        let len = (frame.len() as u32).to_be_bytes();
        let packet = [&[0; 4][..], &time, &len, &len, frame].concat();
        let simple = [&len[..], frame].concat();
        [
            block(0x0a0d_0d0a, &section),
            block(1, &interface),
            block(6, &packet),
            block(5, &[0; 8]),
            block(3, &simple),
        ]
        .concat()
    }

    fn packets(file: &[u8]) -> Vec<(Option<u64>, Vec<u8>)> {
        let frames = Capture::open(file).unwrap().map(|f| f.unwrap());
        let packet = |f: Frame<'_>| match f.content {
            Content::Packet { bytes, .. } => Some((f.time, bytes.into_owned())),
            _ => None,
        };
        frames.filter_map(packet).collect()
    }

    #[test]
    fn datagrams_are_found_in_both_formats_and_over_several_links() {
        let ip = ipv6(269, &[8, 0, 1]);
        let seen = (Some(7_000_005), vec![8, 0, 1]);
        assert_eq!(packets(&pcap(101, &[ip.clone(), ipv6(53, &[1])])), from_ref(&seen));
        assert_eq!(packets(&pcap(1, &[ethernet(0x86dd, &ip), ethernet(0x0806, &ip)])), from_ref(&seen));
        let tagged = [&[0, 5][..], &0x86ddu16.to_be_bytes(), &ip].concat();
        assert_eq!(packets(&pcap(1, &[ethernet(0x8100, &tagged)])), from_ref(&seen));
        let sll = [&[0; 14][..], &0x86ddu16.to_be_bytes(), &ip].concat();
        assert_eq!(packets(&pcap(113, &[sll])), from_ref(&seen));
        let sll2 = [&0x86ddu16.to_be_bytes()[..], &[0; 18], &ip].concat();
        assert_eq!(packets(&pcap(276, &[sll2])), from_ref(&seen));
        let simple = (None, seen.1.clone());
        assert_eq!(packets(&pcapng(&ethernet(0x86dd, &ip))), [seen, simple]);
    }

    #[test]
    fn ipv4_with_options_and_the_manet_protocol() {
        let mut ip = vec![0x46, 0, 0, 35, 0, 0, 0, 0, 1, 17, 0, 0, 10, 0, 0, 1, 224, 0, 0, 109, 1, 1, 1, 1];
        ip.extend([1, 13, 1, 13, 0, 11, 0, 0, 8, 0, 2]);
        ip.extend([0xee; 9]); // the link's padding
        let addresses = Some(("10.0.0.1".parse().unwrap(), "224.0.0.109".parse().unwrap()));
        let content = |bytes: &[u8]| {
            let file = pcap(101, &[bytes.to_vec()]);
            let mut frames = Capture::open(&file).unwrap();
            match frames.next().unwrap().unwrap().content {
                Content::Packet { addresses, bytes, cut } => Ok((addresses, bytes.into_owned(), cut)),
                Content::Unreadable(why) => Err(why),
                Content::Other => Err("other"),
            }
        };
        assert_eq!(content(&ip), Ok((addresses, vec![8, 0, 2], false)));
        ip[9] = 138;
        assert_eq!(content(&ip).unwrap().1.len(), 11);
        ip[6] = 0x20;
        assert!(content(&ip).unwrap_err().contains("fragment"));
    }

    #[test]
    fn a_damaged_file_says_where_and_ends() {
        let good = pcap(101, &[ipv6(269, &[0]), ipv6(269, &[0])]);
        for cut in 24..good.len() {
            let all: Vec<_> = Capture::open(&good[..cut]).unwrap().collect();
            let whole = all.iter().filter(|f| f.is_ok()).count();
            assert!(all.len() <= whole + 1 && whole < 2, "{cut}");
        }
        let ng = pcapng(&ethernet(0x86dd, &ipv6(269, &[0])));
        for cut in 4..ng.len() {
            let all: Vec<_> = Capture::open(&ng[..cut]).unwrap().collect();
            assert!(all.iter().filter(|f| f.is_err()).count() <= 1);
        }
        assert!(Capture::open(&[0xff, 0xfe, 0, 1]).is_err());
        assert!(Capture::open(&good[..20]).is_err());
    }

    #[test]
    fn hexadecimal_text_in_the_usual_shapes() {
        let two = "# a comment\n08 00 01\n\n080002 its name\n08:00:03\n0x080004\n";
        let all: Vec<Vec<u8>> = packets(two.as_bytes()).into_iter().map(|p| p.1).collect();
        assert_eq!(all, [vec![8, 0, 1], vec![8, 0, 2], vec![8, 0, 3], vec![8, 0, 4]]);
        let dump = "00000000: 0823 9900 8f00 52fd  .#....R.\n00000008: 0000            ..\n00000000: 00  .\n";
        let all: Vec<Vec<u8>> = packets(dump.as_bytes()).into_iter().map(|p| p.1).collect();
        assert_eq!(all, [vec![8, 0x23, 0x99, 0, 0x8f, 0, 0x52, 0xfd, 0, 0], vec![0]]);
        let bad: Vec<_> = Capture::open(b"0800\nhello\n").unwrap().collect();
        assert!(bad[0].is_ok());
        assert_eq!(bad[1].as_ref().unwrap_err().offset, 5);
        assert_eq!(bad.len(), 2);
        assert!(Capture::open(b"080").unwrap().next().unwrap().is_err(), "half an octet");
    }
}

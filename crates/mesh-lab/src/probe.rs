//! What a node sees: echoes, names, web pages. Small and independent of the product's own codecs.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{Node, Result, told};

/// Where a node's own programs ask.
const OWN_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// One echo request (RFC 792, RFC 4443 §4) and its answer: the time it took.
///
/// # Errors
/// No answer within `patience`, or no route.
pub fn ping(from: &Node, to: IpAddr, patience: Duration) -> Result<Duration> {
    from.inside(|| echo(to, patience))?.map_err(|e| format!("ping {to} from {}: {e}", from.name()))
}

fn echo(to: IpAddr, patience: Duration) -> Result<Duration> {
    let (domain, protocol, request, answer) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8u8, 0u8),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol)).map_err(told("socket"))?;
    socket.set_read_timeout(Some(Duration::from_millis(20))).map_err(told("socket"))?;
    let tag = std::process::id().to_be_bytes();
    let mut packet = [&[request, 0, 0, 0], &tag[..], b"p2pmesh!"].concat();
    if to.is_ipv4() {
        let sum = checksum(&packet).to_be_bytes();
        packet.iter_mut().skip(2).zip(sum).for_each(|(p, s)| *p = s);
    }
    let start = Instant::now();
    socket.send_to(&packet, &SocketAddr::new(to, 0).into()).map_err(told("send"))?;
    let mut buffer = [0u8; 256];
    while start.elapsed() < patience {
        let len = match socket.read(&mut buffer) {
            Ok(len) => len,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(e) => return Err(e.to_string()),
        };
        let got = buffer.get(..len).unwrap_or_default();
        // IPv4 comes with its header.
        let header = if to.is_ipv4() { got.first().map_or(0, |b| usize::from(b & 15) * 4) } else { 0 };
        let got = got.get(header..).unwrap_or_default();
        if got.first() == Some(&answer) && got.get(4..) == packet.get(4..) {
            return Ok(start.elapsed());
        }
    }
    Err(format!("no answer within {} ms", patience.as_millis()))
}

/// The Internet checksum, RFC 1071.
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|c| match c {
        [a, b] => u32::from(u16::from_be_bytes([*a, *b])),
        [a] => u32::from(*a) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Asks the node's own DNS server (127.0.0.1:53) for the addresses of `name`, IPv6 and IPv4.
///
/// # Errors
/// No answer, an error code, or no address.
pub fn resolve(on: &Node, name: &str) -> Result<Vec<IpAddr>> {
    let both = on.inside(|| -> Result<Vec<IpAddr>> {
        let mut found = query(OWN_SERVER, name, 28)?;
        found.extend(query(OWN_SERVER, name, 1)?);
        Ok(found)
    })?;
    both.map_err(|e| format!("{name} on {}: {e}", on.name()))
}

/// Asks a DNS server from a node for addresses, as type 1 (IPv4) or 28 (IPv6).
///
/// # Errors
/// No answer, an error code, or an answer that does not parse.
pub fn resolve_at(from: &Node, server: SocketAddr, name: &str, kind: u16) -> Result<Vec<IpAddr>> {
    let found = from.inside(|| query(server, name, kind))?;
    found.map_err(|e| format!("{name} from {}: {e}", from.name()))
}

/// The same over TCP (RFC 7766).
///
/// # Errors
/// As [`resolve_at`], or no connection.
pub fn resolve_over_tcp(from: &Node, server: SocketAddr, name: &str, kind: u16) -> Result<Vec<IpAddr>> {
    let found = from.inside(|| addresses(&ask_over_tcp(server, name, kind)?, kind))?;
    found.map_err(|e| format!("{name} from {} over TCP: {e}", from.name()))
}

/// Asks the node's own DNS server whose the address is.
///
/// # Errors
/// No answer, an error code, or no name.
pub fn reverse(on: &Node, address: IpAddr) -> Result<String> {
    let asked = match address {
        IpAddr::V4(a) => {
            let [a, b, c, d] = a.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(a) => {
            let digits = a.octets().into_iter().rev().map(|o| format!("{:x}.{:x}.", o & 15, o >> 4));
            digits.collect::<String>() + "ip6.arpa"
        }
    };
    let packet = on.inside(|| ask(OWN_SERVER, &asked, 12))??;
    let data = answers(&packet, 12).and_then(|(_, found)| found.into_iter().next());
    let name = data.and_then(|at| name_at(&packet, at.start));
    name.ok_or_else(|| format!("no name for {address} on {}", on.name()))
}

/// The name that starts there, without its last dot (RFC 1035 §4.1.4).
fn name_at(packet: &[u8], mut at: usize) -> Option<String> {
    let mut name = Vec::new();
    for _ in 0..128 {
        match *packet.get(at)? {
            0 => return Some(name.join(".")),
            len if len >= 0xc0 => at = usize::from(len & 0x3f) << 8 | usize::from(*packet.get(at + 1)?),
            len => {
                let label = packet.get(at + 1..at + 1 + usize::from(len))?;
                name.push(String::from_utf8_lossy(label).into_owned());
                at += usize::from(len) + 1;
            }
        }
    }
    None
}

/// A question, as a client asks it (RFC 1035 §4.1).
fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet
}

/// The message that answers a question.
fn ask(server: SocketAddr, name: &str, kind: u16) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(told("socket"))?;
    socket.set_read_timeout(Some(Duration::from_secs(3))).map_err(told("socket"))?;
    let packet = question(name, kind);
    socket.send_to(&packet, server).map_err(told("send"))?;
    let mut buffer = [0u8; 4096];
    let (len, _) = socket.recv_from(&mut buffer).map_err(|e| format!("no answer from {server}: {e}"))?;
    Ok(buffer.get(..len).unwrap_or_default().to_vec())
}

fn ask_over_tcp(server: SocketAddr, name: &str, kind: u16) -> Result<Vec<u8>> {
    let patience = Duration::from_secs(3);
    let mut stream =
        TcpStream::connect_timeout(&server, patience).map_err(|e| format!("no connection: {e}"))?;
    stream.set_read_timeout(Some(patience)).map_err(told("socket"))?;
    let packet = question(name, kind);
    stream.write_all(&[&(packet.len() as u16).to_be_bytes(), &packet[..]].concat()).map_err(told("send"))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).map_err(|e| format!("no answer: {e}"))?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).map_err(|e| format!("half an answer: {e}"))?;
    Ok(answer)
}

fn query(server: SocketAddr, name: &str, kind: u16) -> Result<Vec<IpAddr>> {
    addresses(&ask(server, name, kind)?, kind)
}

/// The addresses in an answer.
fn addresses(packet: &[u8], kind: u16) -> Result<Vec<IpAddr>> {
    let (code, found) = answers(packet, kind).ok_or("an answer that does not parse")?;
    match code {
        0 => Ok(found.into_iter().filter_map(|data| address(packet.get(data)?)).collect()),
        3 => Err("no such name (NXDOMAIN)".into()),
        code => Err(format!("DNS error {code}")),
    }
}

fn address(data: &[u8]) -> Option<IpAddr> {
    match data.len() {
        4 => <[u8; 4]>::try_from(data).ok().map(|d| IpAddr::V4(Ipv4Addr::from(d))),
        _ => <[u8; 16]>::try_from(data).ok().map(|d| IpAddr::V6(Ipv6Addr::from(d))),
    }
}

/// The code of an answer, and where the data of its records of that type lie (RFC 1035 §4).
fn answers(packet: &[u8], kind: u16) -> Option<(u8, Vec<Range<usize>>)> {
    let u16_at = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let name_end = |mut at: usize| loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            len if len >= 0xc0 => return Some(at + 2),
            len => at += usize::from(len) + 1,
        }
    };
    let mut at = 12;
    for _ in 0..u16_at(4)? {
        at = name_end(at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..u16_at(6)? {
        at = name_end(at)?;
        let len = usize::from(u16_at(at + 8)?);
        let data = at + 10..at + 10 + len;
        packet.get(data.clone())?;
        if u16_at(at)? == kind {
            found.push(data);
        }
        at += 10 + len;
    }
    Some((packet.get(3)? & 15, found))
}

/// Fetches `http://to/path`: the body of a 200.
///
/// # Errors
/// No connection, another status, or not within `patience`.
pub fn http_get(from: &Node, to: SocketAddr, path: &str, patience: Duration) -> Result<Vec<u8>> {
    get(from, to, path, "", patience)
}

/// As [`http_get`], only of what the store there holds itself.
///
/// # Errors
/// As [`http_get`]; not held is one of them.
pub fn http_held(from: &Node, to: SocketAddr, path: &str, patience: Duration) -> Result<Vec<u8>> {
    get(from, to, path, "Cache-Control: only-if-cached\r\n", patience)
}

fn get(from: &Node, to: SocketAddr, path: &str, fields: &str, patience: Duration) -> Result<Vec<u8>> {
    let page = from.inside(|| -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&to, patience).map_err(told("connect"))?;
        stream.set_read_timeout(Some(patience)).map_err(told("socket"))?;
        // 1.0: the body ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {to}\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).map_err(told("send"))?;
        let mut page = Vec::new();
        stream.read_to_end(&mut page).map_err(told("read"))?;
        Ok(page)
    })?;
    let page = page.map_err(|e| format!("http://{to}{path} from {}: {e}", from.name()))?;
    let end = page.windows(4).position(|w| w == b"\r\n\r\n").ok_or("not an HTTP answer")?;
    let head = String::from_utf8_lossy(page.get(..end).unwrap_or_default()).into_owned();
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        Ok(page.get(end + 4..).unwrap_or_default().to_vec())
    } else {
        let body = String::from_utf8_lossy(page.get(end + 4..).unwrap_or_default()).into_owned();
        Err(format!("http://{to}{path} from {}: {status}: {}", from.name(), body.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc1071_checksums_itself_to_zero() {
        let mut packet = vec![8, 0, 0, 0, 1, 2, 3, 4, 5];
        let sum = checksum(&packet).to_be_bytes();
        packet[2..4].copy_from_slice(&sum);
        assert_eq!(checksum(&packet), 0);
    }

    #[test]
    fn rfc1035_4_answers_are_read() {
        let mut packet = vec![0x12, 0x34, 0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0];
        packet.extend_from_slice(b"\x01c\x05local\0\0\x01\0\x01");
        packet.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 64, 1, 2]);
        let (code, found) = answers(&packet, 1).unwrap();
        assert_eq!((code, address(&packet[found[0].clone()])), (0, "10.64.1.2".parse().ok()));
        assert_eq!(name_at(&packet, 25).unwrap(), "c.local");
        for cut in 0..packet.len() {
            assert_eq!(answers(&packet[..cut], 1), None, "{cut}");
        }
    }
}

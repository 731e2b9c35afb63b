//! DHCP's messages (RFC 2131 §2, options of RFC 2132): a client's and a server's, read and written.
//!
//! Ethernet only. Options in the fields `sname` and `file` (overload) and ones split over several (RFC 3396)
//! are not looked for: what is of interest here never is that long.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use crate::Mac;

const BOOTREQUEST: u8 = 1;
const BOOTREPLY: u8 = 2;
const ETHERNET: u8 = 1;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Up to the options.
const HEADER: usize = 240;
/// Old clients take nothing shorter (RFC 1542 §2.1).
const SHORTEST: usize = 300;
const BROADCAST: u8 = 0x80;

/// The longest message that a client takes, with its IP and UDP headers: what Ethernet carries.
const LONGEST: u16 = 1500;
/// Of how many name servers a client takes note.
const MAX_NAME_SERVERS: usize = 3;

/// Of how many routes.
const MAX_ROUTES: usize = 16;

/// As a label of DNS.
const MAX_HOST_NAME: usize = 63;

/// A longer client identifier is none.
pub const MAX_CLIENT_ID: usize = 64;

const PAD: u8 = 0;
const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const NAME_SERVER: u8 = 6;
const HOST_NAME: u8 = 12;
const DOMAIN: u8 = 15;
const REQUESTED: u8 = 50;
const LEASE_TIME: u8 = 51;
const KIND: u8 = 53;
const SERVER: u8 = 54;
const WANTED: u8 = 55;
const MAX_MESSAGE: u8 = 57;
const RENEWAL_TIME: u8 = 58;
const REBINDING_TIME: u8 = 59;
const CLIENT_ID: u8 = 61;
/// RFC 3442
const CLASSLESS_ROUTES: u8 = 121;
const END: u8 = 255;

/// What a message is (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client looks for servers.
    Discover,
    /// An address is offered.
    Offer,
    /// A client takes or renews one.
    Request,
    /// A client found its address in use.
    Decline,
    /// It is the client's.
    Ack,
    /// It is not.
    Nak,
    /// A client gives its address back.
    Release,
    /// A client has an address and wants the rest.
    Inform,
    /// Another one.
    Unknown(u8),
}

impl Kind {
    /// From its number.
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            4 => Self::Decline,
            5 => Self::Ack,
            6 => Self::Nak,
            7 => Self::Release,
            8 => Self::Inform,
            n => Self::Unknown(n),
        }
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Discover => 1,
            Self::Offer => 2,
            Self::Request => 3,
            Self::Decline => 4,
            Self::Ack => 5,
            Self::Nak => 6,
            Self::Release => 7,
            Self::Inform => 8,
            Self::Unknown(n) => n,
        }
    }
}

/// Why bytes are no message of a client, or none of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Shorter than the fixed part.
    Short,
    /// Not for this side, not from Ethernet, or without DHCP's cookie.
    Foreign,
    /// An option ends behind the message, or has a length that it can't have.
    Option(u8),
    /// BOOTP, without a message type.
    NoKind,
}

impl core::fmt::Display for WireError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short => f.write_str("shorter than a DHCP message"),
            Self::Foreign => f.write_str("not a DHCP message for this side of Ethernet"),
            Self::Option(n) => write!(f, "DHCP option {n} has a wrong length"),
            Self::NoKind => f.write_str("no DHCP message type"),
        }
    }
}

/// A client's message; only what a server looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is.
    pub kind: Kind,
    /// The client's number for this exchange.
    pub xid: [u8; 4],
    /// It can't hear unicasts yet.
    pub broadcast: bool,
    /// The address the client has, unspecified if none.
    pub ciaddr: Ipv4Addr,
    /// The relay, unspecified if none.
    pub giaddr: Ipv4Addr,
    /// Hardware address.
    pub mac: Mac,
    /// Option 50: the address it wants.
    pub requested: Option<Ipv4Addr>,
    /// Option 54: the server it chose.
    pub server: Option<Ipv4Addr>,
    /// Option 61, 2 to [`MAX_CLIENT_ID`] bytes.
    pub client_id: Option<&'a [u8]>,
    /// Option 12: what the client calls itself, up to 63 visible ASCII characters.
    pub host_name: Option<&'a str>,
}

impl<'a> Message<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let fixed = fixed_part(bytes, BOOTREQUEST)?;
        let mut message = Self {
            kind: Kind::Unknown(0),
            xid: array(fixed, 4).ok_or(WireError::Short)?,
            broadcast: fixed.get(10).is_some_and(|flags| flags & BROADCAST != 0),
            ciaddr: address(fixed, 12).ok_or(WireError::Short)?,
            giaddr: address(fixed, 24).ok_or(WireError::Short)?,
            mac: array(fixed, 28).ok_or(WireError::Short)?,
            requested: None,
            server: None,
            client_id: None,
            host_name: None,
        };
        let mut kind = None;
        for option in options(bytes) {
            let (code, value) = option?;
            message.option(code, value, &mut kind)?;
        }
        message.kind = kind.ok_or(WireError::NoKind)?;
        Ok(message)
    }

    fn option(&mut self, code: u8, value: &'a [u8], kind: &mut Option<Kind>) -> Result<(), WireError> {
        let bad = WireError::Option(code);
        match code {
            KIND => {
                let [number] = value else { return Err(bad) };
                kind.get_or_insert(Kind::from_number(*number));
            }
            REQUESTED => self.requested = Some(whole_address(value).ok_or(bad)?),
            SERVER => self.server = Some(whole_address(value).ok_or(bad)?),
            HOST_NAME if value.len() <= MAX_HOST_NAME && value.iter().all(u8::is_ascii_graphic) => {
                self.host_name = str::from_utf8(value).ok().filter(|name| !name.is_empty());
            }
            CLIENT_ID if value.len() >= 2 && value.len() <= MAX_CLIENT_ID => self.client_id = Some(value),
            _ => {}
        }
        Ok(())
    }
}

/// Up to the options, if it is a DHCP message in that direction.
fn fixed_part(bytes: &[u8], direction: u8) -> Result<&[u8; HEADER], WireError> {
    let fixed: &[u8; HEADER] = bytes.first_chunk().ok_or(WireError::Short)?;
    let [op, hardware, length, ..] = *fixed;
    let ours = op == direction && hardware == ETHERNET && length == 6 && fixed.ends_with(&COOKIE);
    if ours { Ok(fixed) } else { Err(WireError::Foreign) }
}

/// The options of a message, up to the end or the first that ends behind it.
fn options(bytes: &[u8]) -> impl Iterator<Item = Result<(u8, &[u8]), WireError>> {
    let mut rest = bytes.get(HEADER..).unwrap_or_default();
    core::iter::from_fn(move || {
        while let [PAD, tail @ ..] = rest {
            rest = tail;
        }
        let (code, tail) = rest.split_first().filter(|(code, _)| **code != END)?;
        let whole = tail.split_first().and_then(|(len, tail)| tail.split_at_checked(usize::from(*len)));
        rest = whole.map_or(&[][..], |(_, tail)| tail);
        Some(whole.map(|(value, _)| (*code, value)).ok_or(WireError::Option(*code)))
    })
}

/// A way to a part of the world (RFC 3442).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// Where it leads; bits behind the prefix are zero.
    pub prefix: Ipv4Addr,
    /// Length of the prefix, at most 32; 0: everywhere.
    pub prefix_len: u8,
    /// Through whom; unspecified: it is on the link.
    pub router: Ipv4Addr,
}

/// A server's message; only what a client looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it is.
    pub kind: Kind,
    /// The client's number for this exchange.
    pub xid: [u8; 4],
    /// Whom it is for.
    pub mac: Mac,
    /// The client's address.
    pub yiaddr: Ipv4Addr,
    /// Option 54: who speaks.
    pub server: Option<Ipv4Addr>,
    /// Option 1: length of the network's prefix; `None` if it is not there, or no mask.
    pub prefix_len: Option<u8>,
    /// Option 3: the first router.
    pub router: Option<Ipv4Addr>,
    /// Option 121: up to sixteen routes, among which the default one is, too; then option 3 means nothing.
    pub routes: Option<Vec<StaticRoute>>,
    /// Option 6: up to three name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Options 51, 58 and 59 in seconds: how long the address is the client's, when it renews, and when it asks
    /// any server.
    pub times: [Option<u32>; 3],
}

impl Answer {
    /// Reads one.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let fixed = fixed_part(bytes, BOOTREPLY)?;
        let mut answer = Self {
            kind: Kind::Unknown(0),
            xid: array(fixed, 4).ok_or(WireError::Short)?,
            mac: array(fixed, 28).ok_or(WireError::Short)?,
            yiaddr: address(fixed, 16).ok_or(WireError::Short)?,
            server: None,
            prefix_len: None,
            router: None,
            routes: None,
            dns: Vec::new(),
            times: [None; 3],
        };
        let mut kind = None;
        for option in options(bytes) {
            let (code, value) = option?;
            let bad = WireError::Option(code);
            let [lease, renewal, rebinding] = &mut answer.times;
            let seconds = |to: &mut Option<u32>| {
                let value = <[u8; 4]>::try_from(value).map_err(|_| bad)?;
                *to = Some(u32::from_be_bytes(value));
                Ok(())
            };
            match code {
                KIND => {
                    let [number] = value else { return Err(bad) };
                    kind.get_or_insert(Kind::from_number(*number));
                }
                SERVER => answer.server = Some(whole_address(value).ok_or(bad)?),
                SUBNET_MASK => answer.prefix_len = prefix_len(whole_address(value).ok_or(bad)?),
                ROUTER => answer.router = Some(address(value, 0).ok_or(bad)?),
                CLASSLESS_ROUTES => answer.routes = Some(static_routes(value).ok_or(bad)?),
                NAME_SERVER => {
                    let servers = value.as_chunks::<4>().0.iter().map(|ip| Ipv4Addr::from_octets(*ip));
                    answer.dns = servers.take(MAX_NAME_SERVERS).collect();
                }
                LEASE_TIME => seconds(lease)?,
                RENEWAL_TIME => seconds(renewal)?,
                REBINDING_TIME => seconds(rebinding)?,
                _ => {}
            }
        }
        answer.kind = kind.ok_or(WireError::NoKind)?;
        Ok(answer)
    }
}

/// Of a mask whose ones come first.
fn prefix_len(mask: Ipv4Addr) -> Option<u8> {
    let ones = mask.to_bits().leading_ones();
    (mask.to_bits().count_ones() == ones).then_some(ones as u8)
}

/// RFC 3442: of each route the prefix's length, as many bytes of the prefix as that takes, and the router.
fn static_routes(mut value: &[u8]) -> Option<Vec<StaticRoute>> {
    let mut routes = Vec::new();
    while let Some((&prefix_len, rest)) = value.split_first() {
        let (prefix, rest) = rest.split_at_checked(usize::from(prefix_len.div_ceil(8)))?;
        let (router, rest) = rest.split_first_chunk::<4>()?;
        let mut whole = [0; 4];
        whole.get_mut(..prefix.len())?.copy_from_slice(prefix);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0);
        let prefix = Ipv4Addr::from_bits(u32::from_be_bytes(whole) & mask);
        if routes.len() < MAX_ROUTES {
            routes.push(StaticRoute { prefix, prefix_len, router: (*router).into() });
        }
        value = rest;
    }
    Some(routes)
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    pub(super) kind: Kind,
    pub(super) xid: [u8; 4],
    /// Seconds since it began.
    pub(super) secs: u16,
    /// The address it has, unspecified if none.
    pub(super) ciaddr: Ipv4Addr,
    pub(super) mac: Mac,
    pub(super) requested: Option<Ipv4Addr>,
    pub(super) server: Option<Ipv4Addr>,
    /// What the client is called, for the lists of home routers; at most 255 bytes.
    pub(super) host_name: &'a str,
}

/// Writes a client's message (RFC 2131 §4.4, table 5).
pub(super) fn request(ask: &Ask<'_>) -> Vec<u8> {
    let mut b = Vec::with_capacity(SHORTEST);
    b.extend_from_slice(&[BOOTREQUEST, ETHERNET, 6, 0]);
    b.extend_from_slice(&ask.xid);
    b.extend_from_slice(&ask.secs.to_be_bytes());
    b.extend_from_slice(&[0, 0]); // answers to its hardware address are heard
    b.extend_from_slice(&ask.ciaddr.octets());
    b.resize(b.len() + 12, 0);
    b.extend_from_slice(&ask.mac);
    b.resize(HEADER - COOKIE.len(), 0);
    b.extend_from_slice(&COOKIE);
    push(&mut b, KIND, &[ask.kind.number()]);
    push(&mut b, CLIENT_ID, &[&[ETHERNET], &ask.mac[..]].concat());
    for (code, ip) in [(REQUESTED, ask.requested), (SERVER, ask.server)] {
        if let Some(ip) = ip {
            push(&mut b, code, &ip.octets());
        }
    }
    if !matches!(ask.kind, Kind::Release | Kind::Decline) {
        push(&mut b, MAX_MESSAGE, &LONGEST.to_be_bytes());
        if !ask.host_name.is_empty() {
            push(&mut b, HOST_NAME, ask.host_name.as_bytes());
        }
        // Those of RFC 3442 before the router.
        let wanted = [SUBNET_MASK, CLASSLESS_ROUTES, ROUTER, NAME_SERVER];
        push(&mut b, WANTED, &[&wanted[..], &[LEASE_TIME, RENEWAL_TIME, REBINDING_TIME]].concat());
    }
    b.push(END);
    b.resize(b.len().max(SHORTEST), 0);
    b
}

/// Appends an option; one that is too long is left out.
fn push(b: &mut Vec<u8>, code: u8, value: &[u8]) {
    if let Ok(len) = u8::try_from(value.len()) {
        b.extend_from_slice(&[code, len]);
        b.extend_from_slice(value);
    }
}

/// What a server tells a client of its address and network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The server, which is the router and the name server, too.
    pub server: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix_len: u8,
    /// What names without a dot are looked up in; at most 255 bytes.
    pub domain: &'static str,
}

/// Writes the answer to `to`: `kind`, the address `yiaddr`, its lease in seconds (`None` in the answer to an
/// INFORM), and, but for a NAK, what there is to know of the network.
pub(super) fn reply(
    to: &Message<'_>,
    kind: Kind,
    yiaddr: Ipv4Addr,
    lease: Option<u32>,
    net: &Network,
) -> Vec<u8> {
    let mut b = Vec::with_capacity(SHORTEST + 64);
    b.extend_from_slice(&[BOOTREPLY, ETHERNET, 6, 0]);
    b.extend_from_slice(&to.xid);
    b.extend_from_slice(&[0, 0, if to.broadcast { BROADCAST } else { 0 }, 0]);
    let ciaddr = if kind == Kind::Ack { to.ciaddr } else { Ipv4Addr::UNSPECIFIED };
    for ip in [ciaddr, yiaddr, Ipv4Addr::UNSPECIFIED, to.giaddr] {
        b.extend_from_slice(&ip.octets());
    }
    b.extend_from_slice(&to.mac);
    b.resize(HEADER - COOKIE.len(), 0);
    b.extend_from_slice(&COOKIE);
    let mut option = |code: u8, value: &[u8]| push(&mut b, code, value);
    let server = net.server.octets();
    option(KIND, &[kind.number()]);
    option(SERVER, &server);
    if kind != Kind::Nak {
        let mask = u32::MAX.checked_shl(32 - u32::from(net.prefix_len.min(32))).unwrap_or(0);
        if let Some(lease) = lease {
            option(LEASE_TIME, &lease.to_be_bytes());
            // RFC 2131 §4.4.5
            option(RENEWAL_TIME, &(lease / 2).to_be_bytes());
            option(REBINDING_TIME, &(lease / 8 * 7).to_be_bytes());
        }
        option(SUBNET_MASK, &mask.to_be_bytes());
        option(ROUTER, &server);
        option(NAME_SERVER, &server);
        option(DOMAIN, net.domain.as_bytes());
    }
    if let Some(id) = to.client_id {
        option(CLIENT_ID, id); // RFC 6842
    }
    b.push(END);
    b.resize(b.len().max(SHORTEST), 0);
    b
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    array::<4>(bytes, at).map(Ipv4Addr::from_octets)
}

fn whole_address(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from_octets)
}

/// Client messages for tests.
#[cfg(test)]
pub(super) mod sample {
    use super::*;

    /// A message of that kind with these options behind it.
    pub(crate) fn message(kind: Kind, mac: Mac, options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut b = alloc::vec![0u8; HEADER];
        b[..8].copy_from_slice(&[1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
        b[28..34].copy_from_slice(&mac);
        b[236..].copy_from_slice(&COOKIE);
        for (code, value) in [(KIND, &[kind.number()][..])].iter().chain(options) {
            b.extend_from_slice(&[*code, value.len() as u8]);
            b.extend_from_slice(value);
        }
        b.push(END);
        b
    }

    /// The options of a message.
    pub(crate) fn options(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        super::options(bytes).map(|o| o.map(|(code, value)| (code, value.to_vec())).unwrap()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    #[test]
    fn rfc2131_a_request_is_read_whole() {
        let id = [1, 2, 0, 0, 0, 0, 7];
        let mut bytes = sample::message(
            Kind::Request,
            MAC,
            &[
                (REQUESTED, &[10, 0, 0, 9]),
                (SERVER, &[10, 0, 0, 1]),
                (CLIENT_ID, &id),
                (HOST_NAME, b"phone-7"),
                (55, &[1, 3, 6]),
                (PAD, &[]),
            ],
        );
        bytes[10] = 0x80;
        bytes[12..16].copy_from_slice(&[10, 0, 0, 5]);
        let want = Message {
            kind: Kind::Request,
            xid: [0xde, 0xad, 0xbe, 0xef],
            broadcast: true,
            ciaddr: Ipv4Addr::new(10, 0, 0, 5),
            giaddr: Ipv4Addr::UNSPECIFIED,
            mac: MAC,
            requested: Some(Ipv4Addr::new(10, 0, 0, 9)),
            server: Some(Ipv4Addr::new(10, 0, 0, 1)),
            client_id: Some(&id),
            host_name: Some("phone-7"),
        };
        assert_eq!(Message::parse(&bytes), Ok(want));
        for cut in 0..bytes.len() {
            let _ = Message::parse(&bytes[..cut]);
        }
    }

    #[test]
    fn what_is_no_request_says_why() {
        let good = sample::message(Kind::Discover, MAC, &[]);
        let with = |at: usize, byte: u8| {
            let mut b = good.clone();
            b[at] = byte;
            b
        };
        let parse = |b: &[u8]| Message::parse(b).map(|m| m.kind);
        assert_eq!(parse(&good), Ok(Kind::Discover));
        assert_eq!(parse(&with(0, 2)), Err(WireError::Foreign));
        assert_eq!(parse(&with(2, 16)), Err(WireError::Foreign));
        assert_eq!(parse(&with(236, 0)), Err(WireError::Foreign));
        assert_eq!(parse(&good[..200]), Err(WireError::Short));
        assert_eq!(parse(&good[..HEADER]), Err(WireError::NoKind));
        assert_eq!(parse(&with(241, 9)), Err(WireError::Option(KIND)));
        let three = sample::message(Kind::Discover, MAC, &[(REQUESTED, &[1, 2, 3])]);
        assert_eq!(parse(&three), Err(WireError::Option(REQUESTED)));
        let long = [7u8; MAX_CLIENT_ID + 1];
        let long = sample::message(Kind::Discover, MAC, &[(CLIENT_ID, &long)]);
        assert_eq!(Message::parse(&long).map(|m| m.client_id), Ok(None));
        for name in [&b"a b"[..], b"a\x1b[2J", b"", &[b'a'; 64], "é".as_bytes()] {
            let odd = sample::message(Kind::Discover, MAC, &[(HOST_NAME, name)]);
            assert_eq!(Message::parse(&odd).map(|m| m.host_name), Ok(None), "{name:?}");
        }
        assert_eq!(parse(&with(242, 77)), Ok(Kind::Unknown(77)));
    }

    #[test]
    fn rfc2132_an_answer_says_all_a_client_needs() {
        let net = Network { server: Ipv4Addr::new(10, 0, 0, 1), prefix_len: 24, domain: "local" };
        let ask = sample::message(Kind::Discover, MAC, &[(CLIENT_ID, &[0, 9])]);
        let ask = Message::parse(&ask).unwrap();
        let bytes = reply(&ask, Kind::Offer, Ipv4Addr::new(10, 0, 0, 77), Some(3600), &net);
        assert_eq!((bytes[0], &bytes[4..8], &bytes[16..20]), (2, &ask.xid[..], &[10, 0, 0, 77][..]));
        assert_eq!((&bytes[28..34], bytes.len()), (&MAC[..], SHORTEST));
        let of = |code| sample::options(&bytes).into_iter().find(|(c, _)| *c == code).map(|(_, v)| v);
        let server = Some(alloc::vec![10, 0, 0, 1]);
        assert_eq!((of(3), of(6), of(54)), (server.clone(), server.clone(), server));
        assert_eq!(of(1), Some(alloc::vec![255, 255, 255, 0]));
        assert_eq!(of(15).as_deref(), Some(&b"local"[..]));
        let seconds = |code| of(code).map(|v| u32::from_be_bytes(v.try_into().unwrap()));
        assert_eq!((seconds(51), seconds(58), seconds(59)), (Some(3600), Some(1800), Some(3150)));
        assert_eq!((of(53), of(61)), (Some(alloc::vec![2]), Some(alloc::vec![0, 9])));
        let nak = reply(&ask, Kind::Nak, Ipv4Addr::UNSPECIFIED, None, &net);
        let codes: Vec<u8> = sample::options(&nak).into_iter().map(|(c, _)| c).collect();
        assert_eq!(codes, [53, 54, 61]);
    }
}

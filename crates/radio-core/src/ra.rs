//! Router advertisements (RFC 4861, RFC 4862, RFC 8106), sans-IO.
//!
//! On an access point they are sent (§6.2): the node's /64 for its clients, the node as name server, and as router
//! where it routes. On a cable they are heard (§6.1.2): a router there leads out.

use alloc::vec::Vec;
use core::net::Ipv6Addr;

use mesh_types::{Duration, Instant};

use crate::Mac;
use crate::random::Random;

/// RFC 4861 §6.2.1: between unsolicited ones, shortest and longest.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(200), Duration::from_secs(600));
/// §10: the first few come closer together, …
const INITIAL: (u32, Duration) = (3, Duration::from_secs(16));
/// … answers are delayed by up to this, …
const MAX_DELAY: Duration = Duration::from_millis(500);
/// … and multicasts are no closer together than this.
const MIN_APART: Duration = Duration::from_secs(3);

/// Router lifetime in seconds.
const LIFETIME: u16 = 1800;
/// Valid and preferred lifetime of the prefix: clients that went elsewhere should not hold it for long.
const PREFIX_LIFETIMES: (u32, u32) = (7200, 3600);

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOURCE_LINK_LAYER: u8 = 1;
const PREFIX_INFORMATION: u8 = 3;
const ROUTE_INFORMATION: u8 = 24;
const RECURSIVE_DNS: u8 = 25;

/// What is advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// The /64 for clients.
    pub prefix: Ipv6Addr,
    /// Name server.
    pub dns: Ipv6Addr,
    /// Hardware address of the interface.
    pub mac: Option<Mac>,
    /// The node forwards packets.
    pub routes: bool,
}

impl Advertised {
    /// The ICMPv6 message, without its checksum. `leaving`: the node is no router any more from now on.
    pub fn message(&self, leaving: bool) -> Vec<u8> {
        let routes = self.routes && !leaving;
        let lifetime = if routes { LIFETIME } else { 0 };
        let (valid, preferred) = if leaving { (PREFIX_LIFETIMES.0, 0) } else { PREFIX_LIFETIMES };
        let mut b = alloc::vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0];
        b.extend_from_slice(&lifetime.to_be_bytes());
        b.extend_from_slice(&[0; 8]); // reachable and retransmission time: not said
        if let Some(mac) = self.mac {
            b.extend_from_slice(&[SOURCE_LINK_LAYER, 1]);
            b.extend_from_slice(&mac);
        }
        b.extend_from_slice(&[PREFIX_INFORMATION, 4, 64, 0xc0]); // on-link, autonomous
        b.extend_from_slice(&valid.to_be_bytes());
        b.extend_from_slice(&preferred.to_be_bytes());
        b.extend_from_slice(&[0; 4]);
        b.extend_from_slice(&self.prefix.octets());
        // RFC 4191: the other nodes' addresses, for clients that have another way to the Internet.
        b.extend_from_slice(&[ROUTE_INFORMATION, 2, 8, 0]);
        b.extend_from_slice(&u32::from(lifetime).to_be_bytes());
        b.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0]);
        b.extend_from_slice(&[RECURSIVE_DNS, 3, 0, 0]);
        b.extend_from_slice(&(if leaving { 0 } else { u32::from(LIFETIME) }).to_be_bytes());
        b.extend_from_slice(&self.dns.octets());
        b
    }
}

/// When advertisements are sent.
#[derive(Debug)]
pub struct Advertiser {
    random: Random,
    sent: u32,
    last: Option<Instant>,
    next: Instant,
    due: bool,
}

impl Advertiser {
    /// One whose interface has come up now.
    pub fn new(seed: u64, now: Instant) -> Self {
        Self { random: Random::new(seed), sent: 0, last: None, next: now, due: false }
    }

    /// A message came to the routers' group, with that hop limit.
    pub fn handle_input(&mut self, now: Instant, message: &[u8], hop_limit: Option<u8>) {
        if !is_solicitation(message, hop_limit) {
            return;
        }
        let delay = self.random.below(MAX_DELAY);
        let earliest = self.last.map_or(Instant::ZERO, |l| l + MIN_APART);
        self.next = self.next.min((now + delay).max(earliest));
    }

    /// One may be due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next > now {
            return;
        }
        self.due = true;
        self.sent = self.sent.saturating_add(1);
        self.last = Some(now);
        let spread = INTERVAL.1.saturating_sub(INTERVAL.0);
        let pause = INTERVAL.0 + self.random.below(spread);
        self.next = now + if self.sent < INITIAL.0 { pause.min(INITIAL.1) } else { pause };
    }

    /// True once, when one is to be sent to all nodes on the link.
    pub fn poll_output(&mut self) -> bool {
        core::mem::take(&mut self.due)
    }

    /// When [`Advertiser::handle_timeout`] is wanted.
    pub const fn poll_timeout(&self) -> Instant {
        self.next
    }
}

/// RFC 4861 §6.1.1; the kernel has checked the checksum.
fn is_solicitation(message: &[u8], hop_limit: Option<u8>) -> bool {
    let [ROUTER_SOLICITATION, 0, _, _, _, _, _, _, rest @ ..] = message else { return false };
    hop_limit == Some(255) && options(rest).is_some()
}

/// The options of a message, by type and with what follows their length; `None` if one ends behind the message.
fn options(mut rest: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut found = Vec::new();
    while let [kind, len, ..] = rest {
        let (option, tail) = rest.split_at_checked(usize::from(*len) * 8)?;
        found.push((*kind, option.get(2..)?));
        rest = tail;
    }
    rest.is_empty().then_some(found)
}

/// What a router says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// How long it is one that leads out; zero: it is none, or none any more.
    pub lifetime: Duration,
    /// Name servers (RFC 8106) and how long they are.
    pub dns: Vec<(Ipv6Addr, Duration)>,
}

/// Of how many name servers of one router is taken note.
const MAX_DNS: usize = 3;

impl Heard {
    /// Reads an advertisement whose checksum is right; `None` for anything that is none (RFC 4861 §6.1.2).
    pub fn parse(message: &[u8], source: Ipv6Addr, hop_limit: Option<u8>) -> Option<Self> {
        let [ROUTER_ADVERTISEMENT, 0, _, _, _, _, a, b, rest @ ..] = message else { return None };
        let all = options(rest.get(8..)?)?;
        if hop_limit != Some(255) || !source.is_unicast_link_local() {
            return None;
        }
        let mut dns = Vec::new();
        for (_, value) in all.iter().filter(|(kind, _)| *kind == RECURSIVE_DNS) {
            let Some((lifetime, servers)) = value.get(2..).and_then(<[u8]>::split_first_chunk) else {
                continue;
            };
            let lifetime = Duration::from_secs(u32::from_be_bytes(*lifetime).into());
            dns.extend(servers.as_chunks::<16>().0.iter().map(|ip| (Ipv6Addr::from(*ip), lifetime)));
        }
        dns.truncate(MAX_DNS);
        Some(Self { lifetime: Duration::from_secs(u16::from_be_bytes([*a, *b]).into()), dns })
    }
}

/// A router solicitation, without its checksum (RFC 4861 §4.1).
pub fn solicitation(mac: Option<Mac>) -> Vec<u8> {
    let mut b = alloc::vec![ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    if let Some(mac) = mac {
        b.extend_from_slice(&[SOURCE_LINK_LAYER, 1]);
        b.extend_from_slice(&mac);
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advertised() -> Advertised {
        Advertised {
            prefix: "fd01:203:405:607::".parse().unwrap(),
            dns: "fd01:203:405:607::1".parse().unwrap(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            routes: true,
        }
    }

    /// The options of an advertisement.
    fn options(bytes: &[u8]) -> Vec<(u8, &[u8])> {
        super::options(&bytes[16..]).unwrap()
    }

    #[test]
    fn rfc4861_4_2_an_advertisement_has_prefix_router_and_name_server() {
        let bytes = advertised().message(false);
        assert_eq!((bytes[0], bytes[5], &bytes[6..8]), (134, 0, &1800u16.to_be_bytes()[..]));
        let all = options(&bytes);
        let kinds: Vec<u8> = all.iter().map(|(k, _)| *k).collect();
        assert_eq!(kinds, [1, 3, 24, 25]);
        let (prefix, dns) = (&all[1].1, &all[3].1);
        assert_eq!((prefix[0], prefix[1]), (64, 0xc0));
        assert_eq!(&prefix[14..], advertised().prefix.octets());
        assert_eq!(&dns[6..], advertised().dns.octets());
    }

    #[test]
    fn rfc4861_6_2_5_one_that_leaves_says_so_and_one_that_does_not_route_is_no_router() {
        let leaving = advertised().message(true);
        assert_eq!(&leaving[6..8], &[0, 0]);
        assert_eq!(&options(&leaving)[1].1[6..10], &[0; 4], "preferred lifetime");
        let quiet = Advertised { routes: false, mac: None, ..advertised() }.message(false);
        assert_eq!(&quiet[6..8], &[0, 0]);
        assert_eq!(options(&quiet)[0].0, PREFIX_INFORMATION);
    }

    fn secs(n: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(n)
    }

    /// Runs until `end`; when one was sent.
    fn sent(a: &mut Advertiser, end: Instant) -> Vec<Instant> {
        let mut found = Vec::new();
        while a.poll_timeout() <= end {
            let now = a.poll_timeout();
            a.handle_timeout(now);
            if a.poll_output() {
                found.push(now);
            }
        }
        found
    }

    #[test]
    fn rfc4861_6_2_4_a_few_at_once_then_now_and_then() {
        let mut a = Advertiser::new(5, Instant::ZERO);
        let all = sent(&mut a, secs(20_000));
        assert_eq!(&all[..3], &[secs(0), secs(16), secs(32)]);
        for pair in all[2..].windows(2) {
            let apart = pair[1].saturating_since(pair[0]);
            assert!(apart >= INTERVAL.0 && apart <= INTERVAL.1, "{apart:?}");
        }
        let other = sent(&mut Advertiser::new(6, Instant::ZERO), secs(20_000));
        assert_ne!(all, other, "out of step");
    }

    #[test]
    fn rfc4861_6_2_6_solicitations_are_answered_soon_and_floods_are_not() {
        let solicitation = [&[133, 0, 0, 0, 0, 0, 0, 0][..], &[1, 1, 2, 0, 0, 0, 0, 9]].concat();
        let mut a = Advertiser::new(5, Instant::ZERO);
        sent(&mut a, secs(100));
        a.handle_input(secs(100), &solicitation, Some(255));
        let answer = a.poll_timeout();
        assert!(answer >= secs(100) && answer <= secs(100) + MAX_DELAY);
        sent(&mut a, answer);
        for ms in 0..10_000 {
            a.handle_input(answer + Duration::from_millis(ms), &solicitation, Some(255));
        }
        assert_eq!(a.poll_timeout(), answer + MIN_APART);
    }

    #[test]
    fn rfc4861_6_1_1_what_is_no_solicitation_changes_nothing() {
        let good = [133, 0, 0, 0, 0, 0, 0, 0];
        assert!(is_solicitation(&good, Some(255)));
        assert!(!is_solicitation(&good, Some(254)) && !is_solicitation(&good, None));
        let code = [133, 1, 0, 0, 0, 0, 0, 0];
        let empty_option = [&good[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
        let long_option = [&good[..], &[1, 2, 0, 0, 0, 0, 0, 0]].concat();
        let stray = [&good[..], &[1]].concat();
        for bad in
            [&code[..], &good[..7], &[134, 0, 0, 0, 0, 0, 0, 0], &empty_option, &long_option, &stray, &[]]
        {
            assert!(!is_solicitation(bad, Some(255)), "{bad:?}");
        }
    }

    #[test]
    fn rfc4861_6_1_2_what_a_router_says_is_read_and_what_is_no_advertisement_is_not() {
        let router: Ipv6Addr = "fe80::1".parse().unwrap();
        let bytes = advertised().message(false);
        let heard = Heard::parse(&bytes, router, Some(255)).unwrap();
        let half_an_hour = Duration::from_secs(1800);
        assert_eq!(
            heard,
            Heard { lifetime: half_an_hour, dns: alloc::vec![(advertised().dns, half_an_hour)] }
        );
        assert_eq!(
            Heard::parse(&advertised().message(true), router, Some(255)).unwrap().lifetime,
            Duration::ZERO
        );
        assert_eq!(Heard::parse(&bytes, router, Some(64)), None, "from beyond the link");
        assert_eq!(Heard::parse(&bytes, "fd00::1".parse().unwrap(), Some(255)), None, "not link-local");
        assert_eq!(Heard::parse(&solicitation(None), router, Some(255)), None);
        for cut in 0..bytes.len() {
            let short = Heard::parse(&bytes[..cut], router, Some(255));
            assert!(short.is_none() || (cut - 16) % 8 == 0, "{cut}");
        }
    }

    #[test]
    fn rfc4861_4_1_a_solicitation_of_ours_is_one() {
        for mac in [None, Some([2, 0, 0, 0, 0, 1])] {
            assert!(is_solicitation(&solicitation(mac), Some(255)));
        }
    }
}

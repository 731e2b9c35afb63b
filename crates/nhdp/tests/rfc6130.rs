//! Neighbourhood discovery by sections of RFC 6130 (and 7188, 7466): one router under test, HELLOs made by
//! hand.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::IpAddr;

use mesh_types::{Duration, Instant};
use nhdp::{
    Config, Event, Hello, HelloEntry, HelloError, Limits, LinkStatus, Liveness, LocalIf, Nhdp, Quality,
    Status,
};
use rfc5444::{Message, NetAddr, RawMessage};

const IF: u32 = 1;
const VALID: Duration = Duration::from_secs(6);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn host(text: &str) -> NetAddr {
    NetAddr::host(ip(text))
}

fn config(quality: Quality) -> Config {
    Config {
        addr_len: 16,
        other_addresses: vec![host("fd00::1")],
        hello_interval: Duration::from_secs(2),
        hello_lively: Duration::from_secs(2),
        hello_min_interval: Duration::from_millis(500),
        hello_hold: VALID,
        lost_hold: VALID,
        trigger_jitter: Duration::from_millis(100),
        quality,
        liveness: Liveness::OFF,
        limits: Limits { interfaces: 3, links: 8, neighbor_addresses: 4, two_hops: 8, lost: 16 },
    }
}

struct Us {
    nhdp: Nhdp<()>,
    now: Instant,
    /// Interface and time of each HELLO asked for.
    sent: Vec<(u32, Instant)>,
    ups: usize,
    downs: usize,
    forgotten: usize,
    probes: Vec<IpAddr>,
}

impl Us {
    fn new(quality: Quality, seed: u64) -> Self {
        let now = Instant::from_millis(10_000);
        let mut us = Self {
            nhdp: Nhdp::new(config(quality), seed),
            now,
            sent: Vec::new(),
            ups: 0,
            downs: 0,
            forgotten: 0,
            probes: Vec::new(),
        };
        assert!(us.nhdp.set_interface(now, IF, &[host("fe80::1")]));
        us
    }

    fn plain() -> Self {
        Self::new(Quality::OFF, 1)
    }

    fn drain(&mut self) {
        while let Some(event) = self.nhdp.poll_event() {
            match event {
                Event::HelloDue { interface } => self.sent.push((interface, self.now)),
                Event::Link { symmetric: true, .. } => self.ups += 1,
                Event::Link { symmetric: false, .. } => self.downs += 1,
                Event::Forgotten { interface, .. } => {
                    self.forgotten += 1;
                    self.nhdp.trigger(self.now, interface);
                }
                Event::Probe { address, .. } => self.probes.push(address.ip()),
            }
        }
    }

    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.nhdp.poll_timeout().filter(|t| *t <= end) {
            self.now = self.now.max(at);
            self.nhdp.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.nhdp.handle_timeout(end);
        self.drain();
    }

    fn hear(&mut self, source: &str, hello: &Hello) -> Result<(), HelloError> {
        let result = self.nhdp.process(self.now, IF, ip(source), hello).map(drop);
        self.drain();
        result
    }

    /// A HELLO of fe80::2, which says that of the link to us.
    fn hear_2(&mut self, word: Option<Status>) {
        self.hear("fe80::2", &hello(word)).unwrap();
    }

    fn quality(&mut self, quality: u8) {
        if let Some((id, _)) = self.nhdp.link_to(IF, ip("fe80::2")) {
            self.nhdp.set_quality(self.now, IF, id, quality);
        }
    }

    fn status(&self) -> Option<LinkStatus> {
        self.nhdp.link_to(IF, ip("fe80::2")).map(|(_, l)| l.status())
    }

    fn two_hops(&self) -> usize {
        self.nhdp.link_to(IF, ip("fe80::2")).map_or(0, |(_, l)| l.two_hops().count())
    }

    fn said(&self, address: &str) -> Option<(Option<LocalIf>, Option<Status>, Option<Status>)> {
        let hello = self.nhdp.generate(IF).unwrap();
        let entry = hello.entries.iter().find(|e| e.address == host(address))?;
        Some((entry.local_if, entry.link_status, entry.other_neighb))
    }
}

fn local(address: &str, which: LocalIf) -> HelloEntry {
    HelloEntry { local_if: Some(which), ..HelloEntry::new(host(address)) }
}

fn link(address: &str, status: Status) -> HelloEntry {
    HelloEntry { link_status: Some(status), ..HelloEntry::new(host(address)) }
}

fn other(address: &str, status: Status) -> HelloEntry {
    HelloEntry { other_neighb: Some(status), ..HelloEntry::new(host(address)) }
}

fn hello_of(mut entries: Vec<HelloEntry>) -> Hello {
    entries.sort_by_key(|e| e.address);
    Hello { originator: None, validity: VALID, interval: None, tlvs: Vec::new(), entries }
}

fn hello(word: Option<Status>) -> Hello {
    let mut entries = vec![local("fe80::2", LocalIf::This), local("fd00::2", LocalIf::Other)];
    entries.extend(word.map(|status| link("fe80::1", status)));
    entries.push(link("fe80::3", Status::Symmetric));
    hello_of(entries)
}

/// What can happen to a link.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Silent,
    Heard,
    Symmetric,
    Lost,
    HoldTime,
    RadioLost,
    Bad,
    Good,
}

impl Us {
    fn state(state: &str) -> Self {
        let initial = if state == "pending" { 100 } else { 200 };
        let mut us = Self::new(Quality { accept: 150, reject: 50, initial }, 1);
        match state {
            "none" => {}
            "heard" => us.hear_2(None),
            _ => us.hear_2(Some(Status::Symmetric)),
        }
        match state {
            "silent" => us.wait(VALID),
            "bad" => us.quality(10),
            _ => {}
        }
        us
    }

    fn happens(&mut self, event: Happening) {
        match event {
            Happening::Silent => self.hear_2(None),
            Happening::Heard => self.hear_2(Some(Status::Heard)),
            Happening::Symmetric => self.hear_2(Some(Status::Symmetric)),
            Happening::Lost => self.hear_2(Some(Status::Lost)),
            Happening::HoldTime => self.wait(VALID),
            Happening::RadioLost => self.nhdp.link_lost(self.now, IF, ip("fe80::2")),
            Happening::Bad => self.quality(10),
            Happening::Good => self.quality(250),
        }
        self.drain();
    }
}

/// Every event in every state (RFC 6130 §7.1, §12.5, §13, §14.3).
#[test]
fn rfc6130_7_1_link_status_transitions() {
    use Happening::{Bad, Good, Heard, HoldTime, Lost, RadioLost, Silent, Symmetric};
    const NONE: Option<LinkStatus> = None;
    const P: Option<LinkStatus> = Some(LinkStatus::Pending);
    const H: Option<LinkStatus> = Some(LinkStatus::Heard);
    const S: Option<LinkStatus> = Some(LinkStatus::Symmetric);
    const L: Option<LinkStatus> = Some(LinkStatus::Lost);
    let events = [Silent, Heard, Symmetric, Lost, HoldTime, RadioLost, Bad, Good];
    let table = [
        ("none", [H, S, S, H, NONE, NONE, NONE, NONE]),
        ("pending", [P, P, P, P, NONE, P, P, S]),
        ("heard", [H, S, S, H, L, L, L, H]),
        ("symmetric", [S, S, S, H, L, L, L, S]),
        ("silent", [H, S, S, H, NONE, L, L, L]),
        ("bad", [L, L, L, L, NONE, L, L, S]),
    ];
    for (state, expected) in table {
        for (event, expected) in events.into_iter().zip(expected) {
            let mut us = Us::state(state);
            us.happens(event);
            assert_eq!(us.status(), expected, "{state} + {event:?}");
            let symmetric = us.status() == S;
            assert_eq!(us.ups - us.downs, usize::from(symmetric), "{state} + {event:?}");
            let neighbor = us.nhdp.neighbors().any(|(_, n)| n.symmetric);
            assert_eq!(neighbor, symmetric, "{state} + {event:?}: N_symmetric follows");
            assert_eq!(us.two_hops() > 0, symmetric, "{state} + {event:?}: 2-hop neighbours follow");
        }
    }
}

#[test]
fn rfc6130_13_a_lost_link_is_told_as_lost_and_then_forgotten() {
    let mut us = Us::plain();
    us.hear_2(Some(Status::Symmetric));
    us.wait(VALID);
    assert_eq!(us.status(), Some(LinkStatus::Lost));
    assert_eq!(us.nhdp.neighbors().count(), 0, "§13.3");
    assert_eq!(us.said("fe80::2"), Some((None, Some(Status::Lost), None)));
    assert_eq!(us.said("fd00::2"), Some((None, None, Some(Status::Lost))), "Lost Neighbor Set");
    us.wait(VALID);
    assert_eq!((us.status(), us.said("fe80::2"), us.said("fd00::2")), (None, None, None));
    assert_eq!((us.ups, us.downs), (1, 1));
}

fn reparse(hello: &Hello, change: impl FnOnce(&mut Message)) -> Result<Hello, HelloError> {
    let mut message = hello.to_message(16);
    change(&mut message);
    let mut bytes = Vec::new();
    message.emit(&mut bytes).unwrap();
    Hello::parse(&RawMessage::parse(&bytes).unwrap().check().unwrap(), 16)
}

#[test]
fn rfc6130_11_1_what_a_hello_says() {
    let mut us = Us::plain();
    us.nhdp.set_interface(us.now, 2, &[host("fe80::1:1")]);
    assert_eq!(us.said("fe80::1"), Some((Some(LocalIf::This), None, None)));
    assert_eq!(us.said("fe80::1:1"), Some((Some(LocalIf::Other), None, None)));
    assert_eq!(us.said("fd00::1"), Some((Some(LocalIf::Other), None, None)));
    us.hear_2(None);
    assert_eq!(us.said("fe80::2"), Some((None, Some(Status::Heard), None)));
    assert_eq!(us.said("fd00::2"), None, "other addresses of a neighbour that is only heard");
    us.hear_2(Some(Status::Heard));
    assert_eq!(us.said("fe80::2"), Some((None, Some(Status::Symmetric), None)));
    assert_eq!(us.said("fd00::2"), Some((None, None, Some(Status::Symmetric))));
    // On the other interface it is a neighbour without a link.
    let there = us.nhdp.generate(2).unwrap();
    let entry = there.entries.iter().find(|e| e.address == host("fe80::2")).unwrap();
    assert_eq!((entry.link_status, entry.other_neighb), (None, Some(Status::Symmetric)));
    assert_eq!(us.said("fe80::3"), None, "2-hop neighbours are not told");
    // It can be read back.
    let hello = us.nhdp.generate(IF).unwrap();
    let back = reparse(&hello, |_| {}).unwrap();
    assert_eq!(back.entries.len(), hello.entries.len());
    assert_eq!((back.validity, back.interval), (VALID, Some(Duration::from_secs(2))));
}

#[test]
fn rfc6130_11_2_1_hellos_are_jittered_and_keep_their_interval() {
    let mut gaps = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let mut us = Us::new(Quality::OFF, seed);
        us.wait(Duration::from_secs(60));
        assert!(us.sent[0].1 <= Instant::from_millis(10_100), "the first goes out at once");
        for pair in us.sent.windows(2) {
            let gap = pair[1].1.saturating_since(pair[0].1);
            // HP_MAXJITTER = HELLO_INTERVAL / 4.
            assert!(gap >= Duration::from_millis(1500) && gap <= Duration::from_secs(2), "{gap}");
            gaps.insert(gap);
        }
    }
    assert!(gaps.len() > 300, "no lockstep");
}

#[test]
fn rfc6130_11_2_a_change_triggers_a_hello_not_before_the_minimum_interval() {
    for seed in 0..20 {
        let mut us = Us::new(Quality::OFF, seed);
        us.wait(Duration::from_millis(1000));
        let before = us.sent.len();
        for n in 0..40u32 {
            let source = format!("fe80::2:{n}");
            let entries = vec![local(&source, LocalIf::This), link("fe80::1", Status::Symmetric)];
            us.hear(&source, &hello_of(entries)).ok();
            us.wait(Duration::from_millis(50));
        }
        assert!(us.sent.len() >= before + 2, "triggered");
        let soon = us.sent[before].1.saturating_since(Instant::from_millis(11_000));
        assert!(soon <= Duration::from_millis(100), "{soon}");
        for pair in us.sent.windows(2) {
            let gap = pair[1].1.saturating_since(pair[0].1);
            // HELLO_MIN_INTERVAL may be reduced by jitter (§11.2.1).
            assert!(gap >= Duration::from_millis(375), "{gap}");
        }
    }
}

#[test]
fn rfc6130_11_2_a_neighbour_that_forgot_us_gets_a_hello_soon() {
    let second = Duration::from_secs(1);
    for (word, again) in [(None, 2), (Some(Status::Heard), 1), (Some(Status::Lost), 0)] {
        for seed in 0..20 {
            let mut us = Us::new(Quality::OFF, seed);
            us.hear_2(Some(Status::Heard));
            us.hear_2(Some(Status::Symmetric));
            us.wait(second.times(2));
            // Right after a periodic one, so that none is due soon.
            let before = us.sent.len() + 1;
            while us.sent.len() < before {
                us.wait(Duration::from_millis(1));
            }
            us.hear_2(Some(Status::Symmetric));
            us.wait(Duration::from_millis(600));
            assert_eq!((us.sent.len(), us.forgotten), (before, 0), "all is well");
            us.hear_2(word);
            us.wait(Duration::from_millis(100));
            assert_eq!(us.sent.len(), before + 1, "{word:?}");
            us.hear_2(word);
            us.wait(Duration::from_millis(300));
            assert_eq!(us.sent.len(), before + 1, "HELLO_MIN_INTERVAL");
            // A link that is lost comes up as a new one does.
            assert_eq!(us.forgotten, again, "{word:?}");
            us.hear_2(Some(Status::Heard));
            assert_eq!(us.status(), Some(LinkStatus::Symmetric));
        }
    }
}

#[test]
fn rfc6130_12_1_invalid_hellos_are_discarded() {
    let good = hello(Some(Status::Symmetric));
    assert!(reparse(&good, |_| {}).is_ok());
    type Case = (fn(&mut Message), HelloError);
    let cases: [Case; 5] = [
        (|m| m.hop_limit = Some(2), HelloError::Hops),
        (|m| m.hop_count = Some(1), HelloError::Hops),
        (|m| m.tlvs.clear(), HelloError::Time),
        (|m| m.tlvs.push(m.tlvs[0].clone()), HelloError::Time),
        (|m| m.tlvs[0].value = Some(vec![1, 2]), HelloError::Time),
    ];
    for (i, (change, error)) in cases.into_iter().enumerate() {
        assert_eq!(reparse(&good, change), Err(error), "case {i}");
    }
    assert!(reparse(&good, |m| (m.hop_limit, m.hop_count) = (Some(1), Some(0))).is_ok());
    // Two words on one address.
    for (a, b) in [
        (local("fe80::9", LocalIf::This), local("fe80::9", LocalIf::Other)),
        (local("fe80::9", LocalIf::This), link("fe80::9", Status::Heard)),
        (local("fe80::9", LocalIf::This), other("fe80::9", Status::Lost)),
        (link("fe80::9", Status::Heard), link("fe80::9", Status::Lost)),
        (other("fe80::9", Status::Symmetric), other("fe80::9", Status::Lost)),
    ] {
        let both = hello_of(vec![local("fe80::2", LocalIf::This), a, b]);
        assert_eq!(reparse(&both, |_| {}), Err(HelloError::Contradiction(host("fe80::9"))));
    }
    // LINK_STATUS and OTHER_NEIGHB may stand together, and a copy may repeat itself.
    let symmetric = link("fe80::9", Status::Symmetric);
    let both = vec![symmetric.clone(), other("fe80::9", Status::Lost), symmetric];
    assert!(reparse(&hello_of(both), |_| {}).is_ok());
    // Our own address, current or recent.
    let mut us = Us::plain();
    let stolen = hello_of(vec![local("fe80::2", LocalIf::This), local("fd00::1", LocalIf::Other)]);
    assert_eq!(us.hear("fe80::2", &stolen), Err(HelloError::OurAddress(host("fd00::1"))));
    us.nhdp.set_interface(us.now, IF, &[host("fe80::aa")]);
    let recent = hello_of(vec![local("fe80::1", LocalIf::This)]);
    assert_eq!(us.hear("fe80::1", &recent), Err(HelloError::OurAddress(host("fe80::1"))));
    us.wait(VALID);
    assert_eq!(us.hear("fe80::1", &recent), Ok(()), "§9.4: remembered for I_HOLD_TIME");
}

#[test]
fn rfc7188_4_3_1_unknown_values_are_ignored_long_ones_cut_short_ones_filled() {
    let hello = hello(Some(Status::Symmetric));
    let odd = reparse(&hello, |m| {
        for t in m.blocks.iter_mut().flat_map(|b| &mut b.tlvs).filter(|t| t.kind == nhdp::LINK_STATUS) {
            t.value.as_mut().unwrap().fill(77);
        }
    });
    let words = odd.unwrap().entries.iter().filter(|e| e.link_status.is_some()).count();
    assert_eq!(words, 0, "77 is no status, and no reason to reject");
    let long = reparse(&hello, |m| {
        for t in m.blocks.iter_mut().flat_map(|b| &mut b.tlvs).filter(|t| !t.multivalue) {
            t.value.as_mut().unwrap().push(9);
        }
    });
    assert_eq!(long.unwrap(), reparse(&hello, |_| {}).unwrap());
    let short = reparse(&hello, |m| {
        for t in m.blocks.iter_mut().flat_map(|b| &mut b.tlvs).filter(|t| t.kind == nhdp::LINK_STATUS) {
            (t.value, t.multivalue) = (None, false);
        }
    });
    let entries = short.unwrap().entries;
    assert!(entries.iter().filter(|e| e.local_if.is_none()).all(|e| e.link_status == Some(Status::Lost)));
}

#[test]
fn rfc6130_12_3_neighbours_merge_and_shed_addresses() {
    let mut us = Us::plain();
    us.hear_2(Some(Status::Symmetric));
    let three = |extra: &str| {
        let own = [local("fe80::3", LocalIf::This), local(extra, LocalIf::Other)];
        hello_of([&own[..], &[link("fe80::1", Status::Symmetric)]].concat())
    };
    us.hear("fe80::3", &three("fd00::3")).unwrap();
    assert_eq!(us.nhdp.neighbors().count(), 2);
    // fe80::2 turns out to be another interface of the same router.
    us.hear("fe80::3", &three("fe80::2")).unwrap();
    assert_eq!(us.nhdp.neighbors().count(), 1);
    let (_, only) = us.nhdp.neighbors().next().unwrap();
    assert!(only.symmetric);
    assert_eq!(only.addresses, [host("fe80::3"), host("fe80::2")]);
    assert_eq!(us.said("fd00::3"), Some((None, None, Some(Status::Lost))), "§12.4: shed while symmetric");
    assert_eq!(us.nhdp.interface(IF).unwrap().links().count(), 2);
}

#[test]
fn rfc6130_9_3_an_address_that_becomes_ours_is_nobody_elses() {
    let mut us = Us::plain();
    us.hear_2(Some(Status::Symmetric));
    let third = [local("fe80::3", LocalIf::This), link("fe80::1", Status::Symmetric)];
    let behind = [link("fd00::9", Status::Symmetric), link("fe80::8", Status::Symmetric)];
    us.hear("fe80::3", &hello_of([&third[..], &behind[..]].concat())).unwrap();
    us.nhdp.link_lost(us.now, IF, ip("fe80::2"));
    assert_eq!(us.said("fd00::2"), Some((None, None, Some(Status::Lost))));
    us.hear_2(Some(Status::Symmetric));
    assert_eq!(us.nhdp.neighbors().count(), 2);
    // The neighbour's address on the link, its other address' neighbour, a 2-hop neighbour's: all ours now.
    assert!(us.nhdp.set_interface(us.now, IF + 1, &[host("fd00::2"), host("fd00::9")]));
    us.drain();
    assert_eq!((us.status(), us.nhdp.neighbors().count()), (None, 1));
    let (_, other) = us.nhdp.link_to(IF, ip("fe80::3")).unwrap();
    assert_eq!(other.two_hops().map(|(a, _)| *a).collect::<Vec<_>>(), [host("fe80::8")]);
    assert_eq!(us.said("fd00::2"), Some((Some(LocalIf::Other), None, None)));
    // The same addresses once more change nothing.
    assert!(us.nhdp.set_interface(us.now, IF, &[host("fe80::1")]));
    assert_eq!(us.nhdp.neighbors().count(), 1);
}

#[test]
fn rfc6130_appendix_b_an_address_that_comes_back_is_lost_no_more() {
    let mut us = Us::plain();
    us.hear_2(Some(Status::Symmetric));
    let without = [local("fe80::2", LocalIf::This), link("fe80::1", Status::Symmetric)];
    us.hear("fe80::2", &hello_of(without.to_vec())).unwrap();
    assert_eq!(us.said("fd00::2"), Some((None, None, Some(Status::Lost))));
    us.hear_2(Some(Status::Symmetric));
    assert_eq!(us.said("fd00::2"), Some((None, None, Some(Status::Symmetric))));
    us.hear("fe80::2", &hello_of(without.to_vec())).unwrap();
    us.wait(Duration::from_secs(5));
    us.hear_2(Some(Status::Symmetric));
    us.hear("fe80::2", &hello_of(without.to_vec())).unwrap();
    us.wait(Duration::from_secs(4));
    assert_eq!(us.said("fd00::2"), Some((None, None, Some(Status::Lost))), "its time starts anew");
}

#[test]
fn rfc5497_6_a_hello_without_hop_count_takes_the_default_time() {
    let far = |m: &mut Message| m.tlvs[0].value = Some(vec![0x58, 2, 0x64]);
    let plain = reparse(&hello(None), far).unwrap();
    assert_eq!(plain.validity, Duration::from_secs(6));
    let counted = reparse(&hello(None), |m| {
        far(m);
        m.hop_count = Some(0);
    });
    assert_eq!(counted.unwrap().validity, Duration::from_secs(2));
}

#[test]
fn rfc6130_12_6_two_hop_neighbours_come_go_and_expire() {
    let mut us = Us::plain();
    let say = |us: &mut Us, entries: Vec<HelloEntry>| {
        let mut all = vec![local("fe80::2", LocalIf::This), link("fe80::1", Status::Symmetric)];
        all.extend(entries);
        us.hear("fe80::2", &hello_of(all)).unwrap();
        us.two_hops()
    };
    assert_eq!(
        say(&mut us, vec![link("fe80::3", Status::Symmetric), other("fd00::3", Status::Symmetric)]),
        2
    );
    // Only symmetric ones count; our own addresses never do.
    assert_eq!(say(&mut us, vec![link("fe80::4", Status::Heard), other("fd00::1", Status::Symmetric)]), 2);
    assert_eq!(say(&mut us, vec![link("fe80::3", Status::Lost)]), 1);
    assert_eq!(say(&mut us, vec![other("fd00::3", Status::Lost)]), 0);
    assert_eq!(say(&mut us, vec![other("fd00::3", Status::Symmetric)]), 1);
    us.wait(Duration::from_secs(3));
    say(&mut us, vec![]);
    us.wait(Duration::from_secs(4));
    assert_eq!((us.two_hops(), us.status()), (0, Some(LinkStatus::Symmetric)), "it expires alone");
}

#[test]
fn rfc7466_two_hop_neighbours_come_back_with_the_links_quality() {
    let mut us = Us::new(Quality { accept: 150, reject: 50, initial: 200 }, 1);
    us.hear_2(Some(Status::Symmetric));
    assert_eq!(us.two_hops(), 1);
    us.quality(10);
    assert_eq!((us.status(), us.two_hops()), (Some(LinkStatus::Lost), 0));
    us.hear_2(Some(Status::Symmetric));
    us.quality(100);
    assert_eq!((us.status(), us.two_hops()), (Some(LinkStatus::Lost), 0), "hysteresis");
    us.quality(160);
    assert_eq!((us.status(), us.two_hops()), (Some(LinkStatus::Symmetric), 1));
}

#[test]
fn rfc6130_12_2_without_local_addresses_the_source_is_the_neighbour() {
    let mut us = Us::plain();
    us.hear("fe80::2", &hello_of(vec![link("fe80::1", Status::Symmetric)])).unwrap();
    assert_eq!(us.status(), Some(LinkStatus::Symmetric));
    let (_, l) = us.nhdp.link_to(IF, ip("fe80::2")).unwrap();
    assert_eq!(l.addresses, [host("fe80::2")]);
}

#[test]
fn rfc6130_appendix_c_is_understood() {
    let examples = include_str!("../../rfc5444/tests/data/rfc-examples.txt");
    let hex = examples.lines().find(|l| l.contains("RFC 6130")).unwrap().split(' ').next().unwrap();
    let bytes: Vec<u8> =
        (2..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    let hello = Hello::parse(&RawMessage::parse(&bytes).unwrap().check().unwrap(), 4).unwrap();
    assert_eq!((hello.validity, hello.interval), (VALID, Some(Duration::from_secs(2))));
    let said: Vec<_> = hello.entries.iter().map(|e| (e.local_if, e.link_status)).collect();
    let status = [Status::Heard, Status::Heard, Status::Symmetric, Status::Lost].map(|s| (None, Some(s)));
    assert_eq!(said, [&[(Some(LocalIf::This), None)][..], &status[..]].concat());
}

fn with_probes() -> Us {
    let mut us = Us::plain();
    let liveness = Liveness { probe_timeout: Duration::from_secs(1), silence_hold: VALID.times(2) };
    let config = Config { liveness, ..config(Quality::OFF) };
    us.nhdp = Nhdp::new(config, 1);
    assert!(us.nhdp.set_interface(us.now, IF, &[host("fe80::1")]));
    us
}

impl Us {
    fn hear_regular(&mut self) {
        let interval = Some(Duration::from_secs(2));
        self.hear("fe80::2", &Hello { interval, ..hello(Some(Status::Symmetric)) }).unwrap();
    }

    fn answer(&mut self, there: bool) {
        match there {
            true => self.nhdp.probe_answered(self.now, IF, ip("fe80::2")),
            false => self.nhdp.probe_failed(self.now, IF, ip("fe80::2")),
        }
        self.drain();
    }
}

#[test]
fn rfc6130_14_a_silent_neighbour_is_suspect_and_a_failed_probe_ends_the_link() {
    let mut us = with_probes();
    us.hear_regular();
    us.wait(Duration::from_millis(2199));
    assert!(us.probes.is_empty());
    us.wait(Duration::from_millis(1));
    assert_eq!(us.probes, [ip("fe80::2")]);
    assert_eq!(us.status(), Some(LinkStatus::Symmetric), "suspect, still in use");
    assert!(us.nhdp.link_to(IF, ip("fe80::2")).unwrap().1.is_suspect());
    us.wait(Duration::from_millis(750));
    us.answer(false);
    assert_eq!(us.status(), Some(LinkStatus::Lost));
    assert_eq!(us.said("fe80::2"), Some((None, Some(Status::Lost), None)));
    assert_eq!((us.two_hops(), us.downs), (0, 1), "RFC 7466");
    // A HELLO alone is no proof now, an answer is.
    us.hear_regular();
    assert_eq!((us.status(), us.probes.len()), (Some(LinkStatus::Lost), 2));
    us.answer(true);
    assert_eq!((us.status(), us.two_hops()), (Some(LinkStatus::Symmetric), 1));
}

#[test]
fn rfc6130_14_answered_probes_keep_a_link_but_not_for_ever() {
    let mut us = with_probes();
    us.hear_regular();
    let start = us.now;
    for _ in 0..40 {
        us.wait(Duration::from_millis(500));
        if us.probes.pop().is_some() {
            us.answer(true);
        }
        if us.status() != Some(LinkStatus::Symmetric) {
            break;
        }
        assert_eq!(us.two_hops(), 1, "2-hop neighbours are kept with the link");
    }
    let kept = us.now.saturating_since(start);
    assert!(kept >= VALID.times(2) && kept < VALID.times(2) + Duration::from_secs(1), "{kept}");
    // Any packet is a sign of life.
    us.hear_regular();
    us.wait(Duration::from_secs(2));
    us.nhdp.packet_from(us.now, IF, ip("fe80::2"));
    us.wait(Duration::from_secs(2));
    assert!(us.probes.is_empty());
}

#[test]
fn rfc6130_14_without_a_verdict_the_hold_time_counts() {
    let mut us = with_probes();
    us.hear_regular();
    us.wait(VALID.saturating_sub(Duration::from_millis(1)));
    assert_eq!((us.status(), us.probes.len()), (Some(LinkStatus::Symmetric), 2));
    us.wait(Duration::from_millis(1));
    assert_eq!(us.status(), Some(LinkStatus::Lost));
}

#[test]
fn a_failure_nobody_asked_about_is_a_suspicion() {
    let mut us = with_probes();
    us.hear_regular();
    us.answer(false);
    assert_eq!((us.status(), us.probes.len()), (Some(LinkStatus::Symmetric), 1));
    us.answer(false);
    assert_eq!(us.status(), Some(LinkStatus::Lost));
    us.answer(false);
    assert_eq!(us.probes.len(), 1, "it is known to be gone");
}

#[test]
fn a_neighbour_that_another_lost_is_asked() {
    let mut us = with_probes();
    us.hear_regular();
    let lost = hello_of(vec![local("fe80::3", LocalIf::This), link("fe80::2", Status::Lost)]);
    us.hear("fe80::3", &lost).unwrap();
    assert!(us.probes.is_empty(), "it was heard just now");
    us.wait(Duration::from_secs(1));
    us.hear("fe80::3", &lost).unwrap();
    us.hear("fe80::3", &lost).unwrap();
    assert_eq!(us.probes, [ip("fe80::2")]);
    us.answer(true);
    assert_eq!(us.status(), Some(LinkStatus::Symmetric));
    us.hear("fe80::3", &lost).unwrap();
    us.answer(false);
    assert_eq!(us.status(), Some(LinkStatus::Lost));
}

#[test]
fn rfc6130_5_3_1_the_interval_is_long_only_while_nothing_changes_and_hellos_tell_it() {
    let mut us = Us::plain();
    let config = Config { hello_interval: Duration::from_secs(4), ..config(Quality::OFF) };
    us.nhdp = Nhdp::new(config, 7);
    assert!(us.nhdp.set_interface(us.now, IF, &[host("fe80::1")]));
    let gaps = |us: &mut Us, seconds: u64| {
        us.sent.clear();
        us.wait(Duration::from_secs(seconds));
        let times: Vec<Instant> = us.sent.iter().map(|(_, at)| *at).collect();
        times.windows(2).map(|w| w[1].saturating_since(w[0]).as_millis()).collect::<Vec<_>>()
    };
    let told = |us: &Us| us.nhdp.generate(IF).unwrap().interval;
    assert!(gaps(&mut us, 60).iter().all(|gap| (1500..=2000).contains(gap)));
    assert_eq!(told(&us), Some(Duration::from_secs(2)));
    us.nhdp.set_lively(us.now, IF, false);
    assert_eq!(told(&us), Some(Duration::from_secs(4)));
    let calm = gaps(&mut us, 120);
    assert!(calm.iter().skip(1).all(|gap| (3500..=4000).contains(gap)) && calm.len() > 25, "{calm:?}");
    us.nhdp.set_lively(us.now, IF, true);
    let sooner = us.nhdp.next_hello(IF).unwrap();
    assert!(sooner <= us.now + Duration::from_secs(2), "what changed is not told at the old pace");
}

#[test]
fn a_neighbour_with_a_tiny_interval_does_not_keep_us_busy() {
    let mut us = with_probes();
    let word = Some(Status::Symmetric);
    us.hear("fe80::2", &Hello { interval: Some(Duration::from_micros(1)), ..hello(word) }).unwrap();
    let mut wakes = 0;
    let end = us.now + Duration::from_secs(5);
    while let Some(at) = us.nhdp.poll_timeout().filter(|t| *t <= end) {
        us.now = us.now.max(at);
        us.nhdp.handle_timeout(us.now);
        wakes += 1;
    }
    assert!(wakes < 150, "{wakes}");
    us.nhdp.handle_timeout(end + Duration::from_secs(1_000_000));
}

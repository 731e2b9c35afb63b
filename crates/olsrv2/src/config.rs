//! What a router instance is told once, at its start.

use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::{Duration, Metric};

use crate::Key;

/// Everything an instance needs to know. Start from [`Config::new`] and change fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The router's originator address (RFC 7181 §5.2.1): routable, unique in the mesh. Its family is the
    /// instance's family; run one instance for IPv6 and one for IPv4. It is announced in HELLOs as an
    /// address of another interface (RFC 6130 LOCAL_IF = OTHER_IF) unless it is on the mesh interface.
    pub originator: IpAddr,
    /// Intervals and hold times.
    pub timing: Timing,
    /// Largest RFC 5444 packet (UDP payload) in bytes. A single message that is larger still goes out
    /// alone, for the IP layer to fragment. Default 1232: IPv6's minimum MTU without IP and UDP headers.
    pub mtu: usize,
    /// Willingness to be a flooding MPR, 0 (never) ..= 15 (always); 7 by default (RFC 7181 §5.4.6).
    pub will_flooding: u8,
    /// Willingness to be a routing MPR, 0 ..= 15; 7 by default. Zero: no transit traffic.
    pub will_routing: u8,
    /// How link costs are made.
    pub metric: MetricMode,
    /// Bit rate in bit/s of links of which neither the radio nor [`crate::Input::InterfaceBitrate`] told one,
    /// with [`MetricMode::Dat`].
    pub default_bitrate: u64,
    /// RFC 6130 §14 link quality thresholds.
    pub quality: QualityThresholds,
    /// Hop limit of our own TCs and records; 255 reaches any mesh (RFC 7181 TC_HOP_LIMIT).
    pub tc_hop_limit: u8,
    /// Fish-eye scoping (RFC 7181 §5.4.7): the hop limits of successive periodic TCs, over and over. At every
    /// distance they must come regularly, as with 255 4 4; none is below 2, one is [`Config::tc_hop_limit`].
    /// Times told vary with the distance. TCs that tell news always go all the way. Empty, or not regular:
    /// all go all the way.
    pub tc_scopes: Vec<u8>,
    /// Most entries each table may hold.
    pub limits: Limits,
    /// Messages may travel in the packets of another instance of this node, of the other family, on interfaces
    /// for which [`crate::Input::Carrier`] says so ([`crate::Output::Carry`]).
    pub share_packets: bool,
    /// Numbers to go on from: those of the previous run ([`crate::Router::sequences`]) or somewhat ahead of
    /// them, never behind, or the others take us for old news until T_HOLD_TIME has passed. `None`: drawn
    /// from the seed.
    pub sequences: Option<Sequences>,
    /// RFC 7182 keys of the mesh, at most two: messages are signed with all of them and need one good
    /// signature. Empty: nothing is signed and everyone is believed. [`crate::Input::Keys`] changes them.
    pub keys: Vec<Key>,
    /// Only higher numbers than this are used to number signed messages. Neither a restart nor a crash may
    /// ever bring a number again (count starts in the upper 32 bits), or the others take us for a replay.
    pub counter: u64,
}

impl Config {
    /// RFC 7181's default parameters for that originator address.
    pub fn new(originator: IpAddr) -> Self {
        Self {
            originator,
            timing: Timing::RFC7181,
            mtu: 1232,
            will_flooding: 7,
            will_routing: 7,
            metric: MetricMode::HopCount,
            default_bitrate: DEFAULT_BITRATE,
            quality: QualityThresholds::OFF,
            tc_hop_limit: 255,
            tc_scopes: Vec::new(),
            limits: Limits::DEFAULT,
            share_packets: false,
            sequences: None,
            keys: Vec::new(),
            counter: 0,
        }
    }
}

/// Protocol intervals (RFC 7181 §5.4, RFC 6130 §5.3). Jitter follows from them: HP_MAXJITTER =
/// the lively HELLO interval / 4, TP_MAXJITTER = TC interval / 4 (RFC 5148).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// HELLO_INTERVAL, between two periodic HELLOs on an interface, while nothing changes.
    pub hello_interval: Duration,
    /// The same for some seconds after a change, and while there is something to tell.
    pub hello_lively: Duration,
    /// HELLO_MIN_INTERVAL, between any two HELLOs on an interface.
    pub hello_min_interval: Duration,
    /// REFRESH_INTERVAL in HELLOs: one in so many names all neighbours, those between only this router, unless
    /// there is news. 1: every HELLO names all.
    pub hello_refresh: u32,
    /// H_HOLD_TIME: how long a HELLO's content is valid for its receivers.
    pub hello_hold: Duration,
    /// L_HOLD_TIME, N_HOLD_TIME: how long a lost link or neighbour is still reported as LOST.
    pub lost_hold: Duration,
    /// TC_INTERVAL.
    pub tc_interval: Duration,
    /// When news are told again, as TCs may be lost; after that it is TC_INTERVAL.
    pub tc_repeat: Duration,
    /// TC_MIN_INTERVAL.
    pub tc_min_interval: Duration,
    /// T_HOLD_TIME: how long a TC's content is valid.
    pub tc_hold: Duration,
    /// A_HOLD_TIME: how long empty TCs follow the last non-empty one.
    pub advertise_hold: Duration,
    /// P_HOLD_TIME, RX_HOLD_TIME, F_HOLD_TIME: how long a message number is remembered. For half of it the
    /// last TC of every router is repeated to new neighbours: not less than two TC intervals.
    pub message_hold: Duration,
    /// F_MAXJITTER: longest delay of a forwarded message.
    pub forward_jitter: Duration,
    /// How long a forwarded or repeated TC that says nothing new may wait for the interface's next HELLO, to
    /// travel in its packet (RFC 7181 §5.4.6 lets F_MAXJITTER follow the message). Zero: it does not wait.
    pub company_wait: Duration,
    /// Longest delay of a triggered HELLO or TC (HT_MAXJITTER, TT_MAXJITTER).
    pub trigger_jitter: Duration,
    /// How long the answer to [`crate::Output::Probe`] is waited for. Zero: no probes.
    pub probe_timeout: Duration,
    /// How long answered probes keep a link over which nothing comes.
    pub silence_hold: Duration,
}

impl Timing {
    /// RFC 7181 §5.4 and RFC 6130 §5: HELLO 2 s, TC 5 s.
    pub const RFC7181: Self = Self {
        hello_interval: Duration::from_secs(2),
        hello_lively: Duration::from_secs(2),
        hello_min_interval: Duration::from_millis(500),
        hello_refresh: 1,
        hello_hold: Duration::from_secs(6),
        lost_hold: Duration::from_secs(6),
        tc_interval: Duration::from_secs(5),
        tc_repeat: Duration::from_millis(1250),
        tc_min_interval: Duration::from_millis(1250),
        tc_hold: Duration::from_secs(15),
        advertise_hold: Duration::from_secs(15),
        message_hold: Duration::from_secs(30),
        forward_jitter: Duration::from_millis(400),
        company_wait: Duration::ZERO,
        trigger_jitter: Duration::from_millis(100),
        probe_timeout: Duration::from_millis(800),
        silence_hold: Duration::from_secs(24),
    };

    /// RFC 7181's, but what only repeats the last word comes seldom: HELLOs every 4 s while nothing changes, every other
    /// one without neighbours, TCs every 40 s. A change is told at once and again, whoever is new is told all: neither
    /// waits for the interval.
    pub const STEADY: Self = Self {
        hello_interval: Duration::from_secs(4),
        hello_refresh: 2,
        hello_hold: Duration::from_secs(24),
        tc_interval: Duration::from_secs(40),
        tc_repeat: Duration::from_millis(2500),
        tc_hold: Duration::from_secs(160),
        advertise_hold: Duration::from_secs(160),
        message_hold: Duration::from_secs(130),
        company_wait: Duration::from_secs(4),
        ..Self::RFC7181
    };

    /// For small, lively meshes: HELLO 0.5 s, TC 1 s, all else in proportion.
    pub const FAST: Self = Self {
        hello_interval: Duration::from_millis(500),
        hello_lively: Duration::from_millis(500),
        hello_min_interval: Duration::from_millis(125),
        hello_refresh: 1,
        hello_hold: Duration::from_millis(1500),
        lost_hold: Duration::from_millis(1500),
        tc_interval: Duration::from_secs(1),
        tc_repeat: Duration::from_millis(250),
        tc_min_interval: Duration::from_millis(250),
        tc_hold: Duration::from_secs(3),
        advertise_hold: Duration::from_secs(3),
        message_hold: Duration::from_secs(30),
        forward_jitter: Duration::from_millis(50),
        company_wait: Duration::ZERO,
        trigger_jitter: Duration::from_millis(25),
        probe_timeout: Duration::from_millis(400),
        silence_hold: Duration::from_secs(6),
    };
}

/// Where link costs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricMode {
    /// Every link costs [`DEFAULT_METRIC`]; shortest in hops.
    HopCount,
    /// [`crate::Input::LinkQuality`] sets the incoming cost; links without one cost [`DEFAULT_METRIC`].
    External,
    /// Directional Airtime (RFC 7779): lost packets and bit rates.
    Dat,
}

/// 20 Mbit/s: what a small radio brings across a room.
pub const DEFAULT_BITRATE: u64 = 20_000_000;

/// RFC 7181 §5.4.5 DEFAULT_METRIC, the cost of a link nothing is known about.
pub const DEFAULT_METRIC: Metric = Metric::new(256);

/// RFC 6130 §14: thresholds of L_quality, 0 ..= 255, for a link to be used or given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QualityThresholds {
    /// HYST_ACCEPT: at or above it a link becomes usable.
    pub accept: u8,
    /// HYST_REJECT: below it a link is lost. Not above `accept`.
    pub reject: u8,
    /// INITIAL_QUALITY of a new link. Below `accept` the link starts as pending.
    pub initial: u8,
}

impl QualityThresholds {
    /// Quality is not used: every link is good at once (RFC 6130's default).
    pub const OFF: Self = Self { accept: 0, reject: 0, initial: 255 };
}

/// Most entries per table. A full table refuses newcomers or drops the oldest remote entry, and counts it
/// ([`crate::Counters::table_full`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Mesh interfaces.
    pub interfaces: usize,
    /// Links per interface.
    pub links: usize,
    /// Addresses one neighbour may claim.
    pub neighbor_addresses: usize,
    /// 2-hop addresses over one link.
    pub two_hops: usize,
    /// Originators TCs are kept from.
    pub routers: usize,
    /// Advertised neighbours plus networks of one originator.
    pub per_router: usize,
    /// Remembered message numbers.
    pub messages: usize,
    /// Bytes of messages waiting to be forwarded, per interface.
    pub forward_queue: usize,
    /// Application records in all.
    pub records: usize,
    /// Kinds of application records of one originator.
    pub records_per_originator: usize,
    /// Bytes of all records' payloads.
    pub record_bytes: usize,
}

impl Limits {
    /// Room for meshes of thousands of nodes.
    pub const DEFAULT: Self = Self {
        interfaces: 16,
        links: 256,
        neighbor_addresses: 32,
        two_hops: 1024,
        routers: 16_384,
        per_router: 512,
        messages: 65_536,
        forward_queue: 65_536,
        records: 16_384,
        records_per_originator: 16,
        record_bytes: 2 * 1024 * 1024,
    };
}

/// Sequence numbers worth saving, so that a restart is not taken for old news by the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequences {
    /// Message sequence number (RFC 5444) of the last message sent.
    pub message: u16,
    /// ANSN (RFC 7181 §5.4.1) last advertised.
    pub ansn: u16,
    /// Packet sequence number last sent.
    pub packet: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rfc5444::{decode_time, encode_time};

    #[test]
    fn rfc6130_5_rfc7181_5_parameters_obey_their_constraints() {
        for t in [Timing::RFC7181, Timing::STEADY, Timing::FAST] {
            for told in [t.hello_interval, t.hello_lively, t.hello_hold, t.tc_interval, t.tc_hold] {
                assert_eq!(decode_time(encode_time(told.as_micros())), told.as_micros(), "{told}");
            }
            let quarter = |d: Duration| d.divided_by(4);
            let refresh = t.hello_interval.times(u64::from(t.hello_refresh));
            assert!(t.hello_lively >= t.hello_min_interval && t.hello_hold >= refresh.times(3));
            assert!(t.hello_interval >= t.hello_lively);
            assert!(quarter(t.hello_lively) <= t.hello_min_interval, "HP_MAXJITTER");
            // TC_MIN_INTERVAL is not reduced by jitter, so TP_MAXJITTER may be more (docs/rfc-exceptions/7181.md).
            assert!(t == Timing::STEADY || quarter(t.tc_interval) <= t.tc_min_interval, "TP_MAXJITTER");
            assert!(
                t.trigger_jitter <= quarter(t.hello_lively) && t.trigger_jitter <= quarter(t.tc_interval)
            );
            assert!(t.tc_interval >= t.tc_min_interval);
            assert!(t.tc_hold >= t.tc_interval.times(3) && t.advertise_hold >= t.tc_interval.times(3));
            let slowest = t.forward_jitter.max(t.company_wait);
            assert!(t.message_hold > slowest.times(32) && t.message_hold >= t.tc_interval.times(2));
        }
    }
}

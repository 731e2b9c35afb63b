//! What goes into a router and what comes out of it.

use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use mesh_types::{Duration, Instant, Metric};
use rfc5444::NetAddr;

use crate::{Key, Note};

/// One thing that happened outside. `interface` is the driver's own number (the kernel's ifindex).
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A datagram arrived on the `manet` port.
    Packet {
        /// Where.
        interface: u32,
        /// The datagram's source address: the neighbour's interface address (IPv6: link-local).
        source: IpAddr,
        /// UDP payload, one RFC 5444 packet.
        bytes: &'a [u8],
    },
    /// Whether another instance of this node, of the other family, uses that interface, too, and takes along
    /// what [`Output::Carry`] gives out; its packets are to be handed to this one as well, as they came. Only
    /// with [`crate::Config::share_packets`].
    Carrier {
        /// Which.
        interface: u32,
        /// Yes or no; no at first.
        on: bool,
    },
    /// The carrier is about to send a packet on that interface: whatever can go along is given out now.
    Join {
        /// Which.
        interface: u32,
    },
    /// Messages of the instance that this one is the carrier of: they are sent at once.
    Carry {
        /// Where.
        interface: u32,
        /// [`Output::Carry`]'s.
        messages: &'a [Vec<u8>],
    },
    /// An interface may be used from now on. An interface that is up already is taken as
    /// [`Input::AddressesChanged`].
    InterfaceUp {
        /// Its number.
        interface: u32,
        /// Its addresses of the instance's family, the one packets are sent from first (IPv6: the
        /// link-local one). Empty: unnumbered, packets are sent from the originator address.
        addresses: &'a [NetAddr],
    },
    /// An interface is gone or must not be used any more. Its links and routes go at once.
    InterfaceDown {
        /// Its number.
        interface: u32,
    },
    /// The addresses of an interface that is up have changed; `addresses` as in [`Input::InterfaceUp`].
    AddressesChanged {
        /// Its number.
        interface: u32,
        /// The new addresses, all of them.
        addresses: &'a [NetAddr],
    },
    /// The radio or the carrier reports that a neighbour is gone: no hold time is waited for.
    LinkLost {
        /// Where.
        interface: u32,
        /// The neighbour's interface address, as in the source of its packets.
        address: IpAddr,
    },
    /// What the radio knows of a link to a neighbour. Ignored for unknown links.
    LinkQuality {
        /// Where.
        interface: u32,
        /// The neighbour's interface address.
        address: IpAddr,
        /// The news.
        quality: LinkQuality,
    },
    /// The bit rate of an interface whose links all have the same, a wired one's; for
    /// [`crate::MetricMode::Dat`].
    InterfaceBitrate {
        /// Which.
        interface: u32,
        /// In bit/s; `None`: not known (any more).
        bits_per_second: Option<u64>,
    },
    /// A neighbour answered the probe of [`Output::Probe`].
    ProbeAnswered {
        /// Where.
        interface: u32,
        /// The neighbour's interface address.
        address: IpAddr,
    },
    /// A neighbour did not answer a probe however often it was repeated. Without a probe before it (the
    /// kernel found out by itself) it makes the neighbour suspect.
    ProbeFailed {
        /// Where.
        interface: u32,
        /// The neighbour's interface address.
        address: IpAddr,
    },
    /// This router is about to end: a last HELLO calls all its links lost, so that no neighbour waits.
    Leave,
    /// The networks reachable through this router (RFC 7181 §7.2), the whole set each time.
    AttachedNetworks(&'a [AttachedNetwork]),
    /// What TCs say beside the attached networks, the whole set each time; a note whose prefix is not attached
    /// waits for it.
    Notes(&'a [(NetAddr, Note)]),
    /// The originators of gateways that a tunnel leads to, the whole set each time: the driver has found their
    /// [`Note`]s true, and can make one. This node's own packets then go where [`crate::Router::gateway`] says.
    Tunnels(&'a [IpAddr]),
    /// The mesh's keys have changed; the whole list, as in [`crate::Config::keys`].
    Keys(&'a [Key]),
    /// Floods an application record, now and again until it is replaced or withdrawn. Publishing the same
    /// kind again replaces it and needs a higher sequence number.
    Publish {
        /// Which record of this originator; others' meaning is the application's affair.
        kind: u8,
        /// Its version; higher is newer (plain comparison). Saved by the caller across restarts.
        sequence: u32,
        /// At most [`crate::MAX_RECORD`] bytes, opaque (signed by the caller).
        payload: &'a [u8],
        /// How long receivers keep it after they last heard it; re-flooded every third of it.
        validity: Duration,
    },
    /// Whether a record told by [`Event::RecordReceived`] is genuine (its signature is good). One that is
    /// not is forgotten, and the last genuine one, if it has not expired, is back; so a forged record does
    /// not keep the place of a real one whatever its sequence number. To be said before the next packet;
    /// a record never judged counts as it is.
    JudgeRecord {
        /// Whose.
        originator: IpAddr,
        /// Which.
        kind: u8,
        /// Its version. If the router has another by now, nothing happens.
        sequence: u32,
        /// The verdict.
        genuine: bool,
    },
    /// Stops re-flooding a record of ours; the others forget it when its validity ends.
    Withdraw {
        /// Which.
        kind: u8,
    },
}

/// A radio's view of one link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkQuality {
    /// RFC 6130 §14 L_quality, 0 (dead) ..= 255 (perfect); `None`: not known, keep the last one.
    pub quality: Option<u8>,
    /// Cost of the incoming direction, used with [`crate::MetricMode::External`]; `None`: keep.
    pub metric_in: Option<Metric>,
    /// Bit rate of the incoming direction in bit/s, as last measured, used with
    /// [`crate::MetricMode::Dat`]; `None`: keep.
    pub bitrate_in: Option<u64>,
    /// Received signal in dBm, shown to people; `None`: keep.
    pub signal: Option<i8>,
}

/// A network behind this router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttachedNetwork {
    /// The prefix, e.g. the node's /64 or `::/0` of a gateway.
    pub prefix: NetAddr,
    /// AL_dist: hops behind this router, 0 for its own link (RFC 7181 §7.2).
    pub dist: u8,
    /// AL_metric: cost behind this router.
    pub metric: Metric,
}

/// Why an input was refused. Nothing changed; the caller may log it and go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputError {
    /// The packet is not RFC 5444; it was dropped and counted.
    Packet(rfc5444::Error),
    /// No such interface is up.
    UnknownInterface(u32),
    /// As many interfaces are up as [`crate::Limits::interfaces`] allows.
    TooManyInterfaces,
    /// An address of the other family.
    WrongFamily,
    /// The record's payload is longer than [`crate::MAX_RECORD`] bytes.
    RecordTooLong(usize),
    /// A record of that kind was published with this or a higher sequence number.
    RecordOutdated(u32),
    /// As many kinds of records as [`crate::Limits::records_per_originator`] allows.
    TooManyRecords,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet(e) => write!(f, "not an RFC 5444 packet, dropped: {e}"),
            Self::UnknownInterface(i) => write!(f, "interface {i} is not in use by the router"),
            Self::TooManyInterfaces => f.write_str("no room for another mesh interface"),
            Self::WrongFamily => f.write_str("the address is not of this instance's address family"),
            Self::RecordTooLong(n) => {
                write!(f, "a record holds at most {} bytes, this one has {n}", crate::MAX_RECORD)
            }
            Self::RecordOutdated(n) => write!(f, "record version {n} is already published or newer"),
            Self::TooManyRecords => f.write_str("no room for another kind of record of this node"),
        }
    }
}

impl core::error::Error for InputError {}

/// One thing to do or to know, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send one packet to the link-local multicast group (`ff02::6d`, `224.0.0.109`, port 269).
    Transmit {
        /// On this interface.
        interface: u32,
        /// UDP payload.
        bytes: Vec<u8>,
    },
    /// Send these RFC 5444 messages in packets of the carrier (see [`Input::Carrier`]), soon.
    Carry {
        /// On this interface.
        interface: u32,
        /// Whole messages.
        messages: Vec<Vec<u8>>,
    },
    /// A neighbour fell silent. Ask it by unicast whether it is there, a few times within
    /// [`crate::Timing::probe_timeout`], and say so with [`Input::ProbeAnswered`] or [`Input::ProbeFailed`].
    /// A driver that can't may leave it: then the hold times of RFC 6130 decide.
    Probe {
        /// On this interface.
        interface: u32,
        /// The neighbour's interface address.
        address: IpAddr,
    },
    /// Change the kernel's routes.
    Route(RouteChange),
    /// News for those who asked.
    Event(Event),
}

/// Packets to a prefix go another way. What else a route is ([`Route`]: metric, hops, router) is nothing to a
/// kernel; where only that changed, nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// Where to. At most one route exists for a prefix.
    pub prefix: NetAddr,
    /// What was; `None`: there was no route.
    pub old: Option<Way>,
    /// What is, in its place at once; `None`: there is no route any more. Never the same as `old`.
    pub new: Option<Way>,
}

/// Where a route's packets go next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    /// As [`Route::next_hop`].
    pub next_hop: IpAddr,
    /// As [`Route::interface`].
    pub interface: u32,
}

/// RFC 7181 §10 Routing Tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// R_dest_addr.
    pub prefix: NetAddr,
    /// R_next_iface_addr: the neighbour's address on the shared link (IPv6: link-local). Equal to the
    /// prefix' own address where the neighbour is unnumbered: then the destination is on the link.
    pub next_hop: IpAddr,
    /// R_local_iface_addr's interface.
    pub interface: u32,
    /// R_metric: sum of outgoing link metrics.
    pub metric: Metric,
    /// Number of hops to the destination router.
    pub hops: u8,
    /// R_dist: `hops` plus the attached network's own distance.
    pub dist: u8,
    /// Originator of the router that owns or announces the prefix.
    pub router: IpAddr,
}

impl Route {
    /// What the kernel needs of it, beside the prefix.
    pub fn way(&self) -> Way {
        Way { next_hop: self.next_hop, interface: self.interface }
    }
}

/// What subscribers hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link became symmetric.
    NeighborUp {
        /// Where.
        interface: u32,
        /// The neighbour's address on it.
        address: IpAddr,
        /// Its originator address, if it told one.
        originator: Option<IpAddr>,
    },
    /// A symmetric link is no more.
    NeighborDown {
        /// Where.
        interface: u32,
        /// The neighbour's address on it.
        address: IpAddr,
        /// Its originator address, if it told one.
        originator: Option<IpAddr>,
    },
    /// A record arrived that is new or newer than the one we had.
    RecordReceived(Record),
    /// A record's validity ended without being renewed.
    RecordExpired {
        /// Whose.
        originator: IpAddr,
        /// Which.
        kind: u8,
    },
}

/// An application record of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose: the message's originator address (not proof of anything; check the signature inside).
    pub originator: IpAddr,
    /// Which of its records.
    pub kind: u8,
    /// Version.
    pub sequence: u32,
    /// When it is forgotten unless heard again.
    pub expires: Instant,
    /// The bytes as published.
    pub payload: Vec<u8>,
}

/// RFC 6130 §7.1 L_status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkStatus {
    /// Quality is not yet good enough.
    Pending,
    /// We hear it; it has not told that it hears us.
    Heard,
    /// Both directions work.
    Symmetric,
    /// It was there.
    Lost,
}

/// One link, as [`crate::Router::neighbors`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborView {
    /// Where.
    pub interface: u32,
    /// The neighbour's address on the link.
    pub address: IpAddr,
    /// Its originator address, once known.
    pub originator: Option<IpAddr>,
    /// The link's state.
    pub status: LinkStatus,
    /// It was not heard when it should have been; a probe decides. Still in use.
    pub suspect: bool,
    /// L_quality, 0 ..= 255.
    pub quality: u8,
    /// Received signal in dBm, if the radio told.
    pub signal: Option<i8>,
    /// Bit rate of the incoming direction in bit/s as the metric uses it, if the radio told.
    pub bitrate_in: Option<u64>,
    /// Cost towards us, as we measured it.
    pub metric_in: Metric,
    /// Cost towards the neighbour, as it told us; [`Metric::UNKNOWN`] before.
    pub metric_out: Metric,
    /// Willingness to flood and to route, 0 ..= 15 each.
    pub willingness: (u8, u8),
    /// We chose it as flooding MPR, as routing MPR.
    pub mpr: (bool, bool),
    /// It chose us as flooding MPR, as routing MPR.
    pub mpr_selector: (bool, bool),
    /// Addresses reachable over it in two hops.
    pub two_hops: usize,
    /// When the last packet came over it.
    pub last_packet: Instant,
    /// When the link ends unless a HELLO arrives.
    pub expires: Instant,
}

/// One advertised link between two routers (RFC 7181 §9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopologyEdge {
    /// TR_from_orig_addr.
    pub from: IpAddr,
    /// TR_to_orig_addr.
    pub to: IpAddr,
    /// Cost from `from` to `to`.
    pub metric: Metric,
}

/// One network announced by a remote router (RFC 7181 §9.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedView {
    /// Who announces it.
    pub router: IpAddr,
    /// What.
    pub network: AttachedNetwork,
}

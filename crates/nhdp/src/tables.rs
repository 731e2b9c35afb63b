//! The information bases' tuples (RFC 6130 §6 to §8).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt::Debug;

use mesh_types::Instant;
use rfc5444::NetAddr;

use crate::liveness::Signs;

/// What a protocol on top keeps with each tuple (RFC 6130 §16; OLSRv2: metrics, willingness, MPR flags).
pub trait Extension {
    /// Kept with a Link Tuple.
    type Link: Default + Clone + Debug;
    /// Kept with a Neighbor Tuple.
    type Neighbor: Default + Clone + Debug;
    /// Kept with a 2-Hop Tuple.
    type TwoHop: Default + Clone + Debug;
}

impl Extension for () {
    type Link = ();
    type Neighbor = ();
    type TwoHop = ();
}

/// Names a Link Tuple of one interface; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(crate) u32);

/// Names a Neighbor Tuple; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeighborId(pub(crate) u32);

/// L_status (RFC 6130 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkStatus {
    /// Not yet good enough to be told to anyone.
    Pending,
    /// It is no more.
    Lost,
    /// We hear the neighbour.
    Heard,
    /// We hear each other.
    Symmetric,
}

/// A Link Tuple.
#[derive(Clone, Debug)]
pub struct Link<X: Extension> {
    /// L_neighbor_iface_addr_list, the address HELLOs come from first.
    pub addresses: Vec<NetAddr>,
    /// L_HEARD_time.
    pub heard_until: Instant,
    /// L_SYM_time.
    pub symmetric_until: Instant,
    /// L_time.
    pub expires: Instant,
    /// L_quality.
    pub quality: u8,
    /// L_pending.
    pub pending: bool,
    /// L_lost.
    pub lost: bool,
    /// When the neighbour was heard, and whether it answers.
    pub signs: Signs,
    /// The Neighbor Tuple, while one exists.
    pub neighbor: Option<NeighborId>,
    /// The extension's part.
    pub ext: X::Link,
    /// When it was made, and whether it has ever been symmetric: who makes room for others.
    pub(crate) since: Instant,
    pub(crate) proven: bool,
    /// Its last HELLO called the link symmetric.
    pub(crate) called_symmetric: bool,
    /// L_status when the consequences of a change were last drawn.
    pub(crate) settled: LinkStatus,
    pub(crate) two_hops: BTreeMap<NetAddr, TwoHop<X::TwoHop>>,
}

/// A 2-Hop Tuple; its link is the one it is kept in.
#[derive(Clone, Debug, Default)]
pub struct TwoHop<T> {
    /// N2_time.
    pub expires: Instant,
    /// The extension's part.
    pub ext: T,
}

impl<X: Extension> Link<X> {
    /// L_status at `now` (RFC 6130 §7.1).
    pub fn status_at(&self, now: Instant) -> LinkStatus {
        if self.pending {
            LinkStatus::Pending
        } else if self.lost || self.signs.unreachable {
            LinkStatus::Lost
        } else if self.symmetric_until > now {
            LinkStatus::Symmetric
        } else if self.heard_until > now {
            LinkStatus::Heard
        } else {
            LinkStatus::Lost
        }
    }

    /// L_status as of the last input or timeout.
    pub fn status(&self) -> LinkStatus {
        self.settled
    }

    /// The 2-Hop Tuples over this link that count: none unless the link is symmetric. While the link is
    /// lost for its quality only, they are kept aside and come back with it (RFC 7466).
    pub fn two_hops(&self) -> impl Iterator<Item = (&NetAddr, &TwoHop<X::TwoHop>)> {
        let visible = self.settled == LinkStatus::Symmetric;
        self.two_hops.iter().filter(move |_| visible)
    }

    /// The same, to change the extension's part.
    pub fn two_hops_mut(&mut self) -> impl Iterator<Item = (&NetAddr, &mut TwoHop<X::TwoHop>)> {
        self.two_hops.iter_mut()
    }
}

/// A Neighbor Tuple.
#[derive(Clone, Debug)]
pub struct Neighbor<X: Extension> {
    /// N_neighbor_addr_list.
    pub addresses: Vec<NetAddr>,
    /// N_symmetric.
    pub symmetric: bool,
    /// The extension's part.
    pub ext: X::Neighbor,
}

/// A MANET interface and its link set.
#[derive(Clone, Debug)]
pub struct Interface<X: Extension> {
    /// I_local_iface_addr_list, the sending address first.
    pub addresses: Vec<NetAddr>,
    pub(crate) links: BTreeMap<LinkId, Link<X>>,
    /// When the next periodic or triggered HELLO is due.
    pub(crate) hello_due: Instant,
    pub(crate) last_hello: Option<Instant>,
    /// HELLOs come at the shorter interval.
    pub(crate) lively: bool,
}

impl<X: Extension> Interface<X> {
    /// The link set.
    pub fn links(&self) -> impl Iterator<Item = (LinkId, &Link<X>)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    /// The same, to change the extension's part.
    pub fn links_mut(&mut self) -> impl Iterator<Item = (LinkId, &mut Link<X>)> {
        self.links.iter_mut().map(|(id, link)| (*id, link))
    }
}

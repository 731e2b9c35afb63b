//! Requests to `mesh-update` and its answers.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use mesh_types::NodeId;
use serde::{Deserialize, Serialize};

/// What can be asked of the update service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum UpdateRequest {
    /// One [`UpdateResponse::Slots`].
    Slots,
    /// Confirms the running slot now, without the health gate; one [`UpdateResponse::Done`].
    Confirm,
    /// Makes the other slot the first choice of the next boot; one [`UpdateResponse::Done`].
    Rollback,
    /// Installs a bundle that the client reads. The service asks for pieces with [`UpdateResponse::Want`], each of which
    /// the client answers with [`UpdateRequest::Data`], and tells how far it is with [`UpdateResponse::Progress`]; at the
    /// end comes one [`UpdateResponse::Done`] or an error. If the client leaves, the installation ends; it goes on where
    /// it was when the bundle is offered again.
    Offer {
        /// Bytes of the bundle.
        size: u64,
        /// Only verify it; nothing is changed.
        check_only: bool,
    },
    /// The bytes asked for last; fewer at the bundle's end.
    Data(#[serde(with = "crate::bytes")] Vec<u8>),
    /// Installs a bundle out of a regular file whose descriptor comes with the request (`SCM_RIGHTS`):
    /// [`UpdateResponse::Progress`], then one [`UpdateResponse::Done`]. If the client leaves, as with
    /// [`UpdateRequest::Offer`].
    OfferFile {
        /// Only verify it; nothing is changed.
        check_only: bool,
    },
    /// Installs a bundle out of the store, which fetches it if need be: [`UpdateResponse::Progress`], then one
    /// [`UpdateResponse::Done`]. It goes on if the client leaves.
    Fetch {
        /// `CID[/path]`.
        path: String,
        /// Only verify it; nothing is changed.
        check_only: bool,
    },
    /// All nodes go on with a release that failed somewhere in the mesh; one [`UpdateResponse::Done`].
    Resume,
    /// What a USB stick came to on which nothing was installed, for [`Slots::notes`]; one [`UpdateResponse::Done`].
    Stick(String),
}

/// What the update service answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum UpdateResponse {
    /// Both slots and the trial.
    Slots(Slots),
    /// It is done: what was changed, for people.
    Done(String),
    /// These bytes of the bundle are asked for.
    Want {
        /// From its start.
        offset: u64,
        /// 1 to 128 KiB.
        len: u32,
    },
    /// How far an installation is.
    Progress(Progress),
}

/// How far an installation is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Version of the new system; empty while the signatures are not checked.
    pub version: String,
    /// The slot that is written.
    pub slot: String,
    /// What is being done, for people.
    pub stage: String,
    /// Bytes of the system done in this stage.
    pub done: u64,
    /// All its bytes; 0 while that is not known.
    pub total: u64,
}

/// The slots and how the running one is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slots {
    /// `A` or `B`; empty where there are no slots (not booted from a card).
    pub running: String,
    /// Both slots, A first; empty where there are none.
    pub slots: Vec<Slot>,
    /// First choice first, as `A B`.
    pub order: String,
    /// The running slot was confirmed since boot.
    pub confirmed: bool,
    /// What the health gate waits for, for people; empty when it is open.
    pub waiting_for: Vec<String>,
    /// Releases below this are not installed.
    pub floor: u64,
    /// The installation that is under way.
    pub installing: Option<Progress>,
    /// Why the node went back to an older system, and how the last installation ended, for people.
    pub notes: Vec<String>,
    /// What the nodes of the mesh say, this one first; empty with `update.auto = "off"`.
    pub fleet: Vec<Node>,
    /// The newest system that is announced and that this node does not have.
    pub offered: Option<Box<Offered>>,
    /// The bundle that this node keeps in its store for others: its CID; empty: none.
    pub kept: String,
}

/// A node of the mesh, as it says itself. Releases are 0 where there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Which.
    pub node: NodeId,
    /// The release that runs and is confirmed.
    pub running: u64,
    /// The release it is taking, or took last.
    pub target: u64,
    /// The release that it knows to have failed somewhere, and does not go on with.
    pub failed: u64,
    /// How much of the target it has, 0 to 100.
    pub percent: u8,
    /// Nothing is heard of it any more.
    pub offline: bool,
    /// What it is doing, for people.
    pub phase: String,
}

/// A new system that is announced, signed by enough of this node's keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Offered {
    /// The release that it is said to be.
    pub release: u64,
    /// Its version.
    pub version: String,
    /// Its bundle.
    pub cid: String,
    /// Nodes that announce it.
    pub nodes: u32,
}

/// One slot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// `A` or `B`.
    pub name: String,
    /// Version in its header; empty without a valid header.
    pub version: String,
    /// Number of the release; 0 without one.
    pub release: u64,
    /// Tries left before the boot script passes it over.
    pub tries_left: u32,
}

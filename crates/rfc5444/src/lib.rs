//! RFC 5444 packets, messages, address blocks and TLVs; RFC 5497 time values (level 1).
//!
//! Two levels: [`PacketView`] checks bytes and reads them in place without allocating; [`Packet`],
//! [`Message`] and [`AddressBlock`] are owned values to build and write. Unknown types survive both ways.
#![no_std]

extern crate alloc;

mod address;
mod cursor;
mod emit;
mod error;
mod net_addr;
mod pack;
mod time;
mod value;
mod view;

pub use address::Address;
pub use emit::packet_header;
pub use error::{EmitError, Error, ErrorKind};
pub use net_addr::NetAddr;
pub use pack::{Attribute, Attributed, pack};
pub use time::{INTERVAL_TIME, VALIDITY_TIME, decode_time, encode_time, time_code_at};
pub use value::{AddressBlock, AddressTlv, Message, Packet, Tlv};
pub use view::{
    AddressBlockView, BlockIter, MessageIter, MessageView, PacketView, RawMessage, TlvIter, TlvView,
};

//! Captures of routing packets, read and explained (level 2).
//!
//! [`capture`] finds the datagrams of UDP port 269 (RFC 5498) in pcap and pcapng files and in hexadecimal
//! text; [`explain`] has names and meanings for what RFC 5444 packets hold (RFCs 5497, 6130, 7181, 7182).
#![no_std]

extern crate alloc;

pub mod capture;
pub mod explain;
mod link;
mod text;

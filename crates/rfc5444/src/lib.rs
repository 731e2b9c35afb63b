//! RFC 5444 packets, messages, address blocks and TLVs; RFC 5497 time values (level 1)
#![no_std]

//! RFC 7181 OLSRv2 routing, sans-IO (level 2)
#![no_std]

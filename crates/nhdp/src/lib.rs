//! RFC 6130 neighbourhood discovery, sans-IO (level 2)
#![no_std]

//! mDNS responder and mesh name table, sans-IO (level 2)
#![no_std]

//! CIDs, UnixFS and CAR (level 1)
#![no_std]

//! From radio capabilities to an interface plan, sans-IO (level 2)
#![no_std]

//! Boot-state sectors, slot headers and the slot state machine, sans-IO (level 2)
#![no_std]

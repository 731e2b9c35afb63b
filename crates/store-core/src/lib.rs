//! Block index, pins and quota over a disk trait, sans-IO (level 2)
#![no_std]

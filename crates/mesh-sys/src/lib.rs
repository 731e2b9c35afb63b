//! Sockets, netlink, poll loop, clock, entropy, files: the only unsafe code and system calls (level 3).
//!
//! Protocol rules live elsewhere; this crate turns them into what the kernel understands.

pub mod board;
pub mod cgroup;
pub mod clock;
pub mod control;
pub mod disk;
pub mod dm;
pub mod entropy;
pub mod file;
pub mod gpio;
pub mod icmp6;
pub mod identity;
pub mod kmod;
pub mod mount;
pub mod netlink;
pub mod packet;
pub mod poll;
pub mod process;
pub mod rfkill;
pub mod service;
pub mod signal;
pub mod tcp;
pub mod udp;
pub mod uevent;
pub mod watchdog;

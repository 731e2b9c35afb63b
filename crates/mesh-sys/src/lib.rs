//! Sockets, netlink, poll loop, clock, entropy, files: the only unsafe code and system calls (level 3)

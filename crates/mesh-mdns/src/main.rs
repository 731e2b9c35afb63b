//! mesh-mdns service (level 4)

fn main() {}

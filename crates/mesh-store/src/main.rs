//! mesh-store service (level 4)

fn main() {}

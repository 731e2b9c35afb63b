//! mesh-router service (level 4)

fn main() {}

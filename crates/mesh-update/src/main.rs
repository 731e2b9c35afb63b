//! mesh-update service (level 4)

fn main() {}

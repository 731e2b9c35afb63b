//! mesh-radio service (level 4)

fn main() {}

//! First boot, services with back-off and limits, watchdog (level 4)

fn main() {}

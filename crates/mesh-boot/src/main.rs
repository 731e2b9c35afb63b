//! The initramfs /init: modules, dm-linear, dm-verity, switch_root (level 4)

fn main() {}

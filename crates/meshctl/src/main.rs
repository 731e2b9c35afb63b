//! The command line of a node; also reached as ipfs (level 4)

fn main() {}

//! The control-socket protocol: length-prefixed, versioned postcard (level 1)
#![no_std]

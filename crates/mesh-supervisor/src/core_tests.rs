//! The core's rules, one table each.
